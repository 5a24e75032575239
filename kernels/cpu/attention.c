/* Causal attention within documents, forward and backward, without the (T,T) matrix.
 *
 * Forward is cut by document, key head and block of queries; where each document has one query,
 * whose keys are cached, by parts of its keys, which are joined afterwards: what counts then is
 * that keys and values come from memory in one stream. Backward is cut by document and head, whose
 * keys' gradients are added up afterwards, or, where these are few for the threads, by blocks of
 * keys and then by blocks of queries, for which the scores are computed twice. Every sum has one
 * writer and the same order in both ways. */
#include "kernels/cpu/functions.h"
#include "kernels/cpu/unit.h"

enum {
    QB = 64,
    KB = 96,
    STRIP = NR == 32 ? 32 : 48, /* keys whose scores begin at the same query; of AMX whole tiles */
    CHUNK = 2 * KB,             /* queries whose part of keys' gradients is summed at once */
    ROWS = 16,                  /* of a piece that goes row by row */
    PARTS = FT_CPU_ATTENTION_PARTS,
    LEAST = 32, /* keys of a part */
    MOST = 272, /* heads of a query whose keys are shared out */
    MAX_DIM = FT_HEAD_DIM_MAX,
#if defined(FT_BLAS)
    SHARE = CHUNK, /* its bits depend on sizes */
#else
    SHARE = QB, /* queries of a piece, where the gradients are shared out by blocks */
#endif
    STRIPS = KB / STRIP,
    /* words of a row of a left side: of a head, and of scores */
    SIDE_DIM = WORD > 1 ? MAX_DIM / WORD + 16 : 0,
    SIDE_KEYS = WORD > 1 ? KB / WORD + 16 : 0,
};
_Static_assert(KB % STRIP == 0 && STRIP % (WORD * DEPTH) == 0 && QB % (WORD * DEPTH) == 0,
               "strips begin with a word");

/* A piece's private memory; all of it fits FT_THREAD_SCRATCH. */
struct room {
    float keys[KB * (MAX_DIM + 16)], /* of one query: scores (heads, KB) */
        keys_t[KB * (MAX_DIM + 16)];
    float values[KB * (MAX_DIM + 16)];
    float s[QB * KB], max[FT_HEAD_GROUP_MAX * QB], sum[FT_HEAD_GROUP_MAX * QB];
    float words[QB * (SIDE_DIM + SIDE_KEYS) + 16];
};
_Static_assert(MOST <= MAX_DIM + 16, "one query's scores lie in keys");
_Static_assert(sizeof(struct room) <= FT_THREAD_SCRATCH, "a piece's memory must fit");

/* The same of a backward piece: a block of keys and some queries of a head. */
struct back_room {
    float keys[KB / WORD * (MAX_DIM + 16)];
    float keys_t[STRIPS][MAX_DIM / WORD * (STRIP + 16)],
        values_t[STRIPS][MAX_DIM / WORD * (STRIP + 16)];
    float q[CHUNK / WORD * (MAX_DIM + 16)], dout[CHUNK / WORD * (MAX_DIM + 16)];
    float s[CHUNK * KB], ds[CHUNK * KB]; /* becoming weights, and their gradients */
    float q_words[CHUNK * SIDE_DIM + 16], dout_words[CHUNK * SIDE_DIM + 16];
    float words[CHUNK * SIDE_KEYS + 16];
    struct ft_side q_side, dout_side;
};
_Static_assert(sizeof(struct back_room) <= FT_THREAD_SCRATCH, "a piece's memory must fit");

struct job {
    const struct ft_attention_args *f;
    const struct ft_attention_dx_args *b;
    const int32_t *spans; /* (T,2) */
    int64_t rows;
    int heads, kv_heads, d, window, group;
    float scale, softcap;
    float *delta;       /* backward: sum_c dout*o, (T, heads) */
    float *dk_h, *dv_h; /* of each head, (T, heads, d); NULL: every head has keys of its own */
    float *parts;       /* forward, where keys are shared out: what each part came to */
    int64_t n_parts;    /* of a query */
    int64_t first;      /* the row of the first query whose parts these are */
};

/* The row behind the document that starts at row t. */
static int64_t end_of(const struct job *j, int64_t t)
{
    return j->spans[2 * t + 1];
}

static int64_t blocks_of(const struct job *j, int64_t t, int64_t size)
{
    return (end_of(j, t) - t + size - 1) / size;
}

/* Block n of all documents' blocks of `size` rows: its document's first row, its own in that. */
static void find_block(const struct job *j, int64_t n, int64_t size, int64_t *base, int64_t *row)
{
    int64_t t = 0;
    for (; n >= blocks_of(j, t, size); t = end_of(j, t))
        n -= blocks_of(j, t, size);
    *base = t;
    *row = n * size;
}

static int64_t count_blocks(const struct job *j, int64_t size)
{
    int64_t n = 0;
    for (int64_t t = 0; t < j->rows; t = end_of(j, t))
        n += blocks_of(j, t, size);
    return n;
}

static int64_t count_documents(const struct job *j)
{
    int64_t n = 0;
    for (int64_t t = 0; t < j->rows; t = end_of(j, t))
        n++;
    return n;
}

static int64_t find_document(const struct job *j, int64_t n)
{
    int64_t t = 0;
    while (n-- > 0)
        t = end_of(j, t);
    return t;
}

/* First key that a query at position i of its document sees. */
static int64_t first_key(const struct job *j, int64_t i)
{
    return j->window > 0 && i - j->window + 1 > 0 ? i - j->window + 1 : 0;
}

/* -inf but for keys first to end-1 of n, a multiple of 16. */
static void hide(float *row, int64_t n, int64_t first, int64_t end)
{
    const vf unseen = vf_set(-__builtin_inff());
    for (int64_t t = 0; t < n; t += VW)
        if (t < first || t + VW > end)
            vf_store(row + t, vf_select(vf_behind(end - t) | ~vf_behind(first - t), unseen,
                                        vf_load(row + t)));
}

static void cap_scores(const struct job *j, float *s, int64_t n)
{
    for (int64_t t = 0; j->softcap > 0 && t < n; t += VW)
        vf_store(s + t, vf_tanh(vf_load(s + t) / j->softcap) * j->softcap);
}

/* s = q k^T becomes scale s, capped, with -inf where unseen, also behind the last key to a multiple
 * of 16; q rows are nq from position i0, keys nk from t0. */
static void mask_scores(const struct job *j, float *s, int64_t i0, int64_t nq, int64_t t0,
                        int64_t nk)
{
    const int64_t wide = (nk + 15) / 16 * 16;
    for (int64_t i = 0; i < nq; i++) {
        float *row = s + i * KB;
        for (int64_t t = 0; t < wide; t += VW)
            vf_store(row + t, vf_load(row + t) * j->scale);
        cap_scores(j, row, wide);
        const int64_t first = first_key(j, i0 + i) - t0, behind = i0 + i - t0 + 1;
        hide(row, wide, first, behind < nk ? behind : nk);
    }
}

/* One row of the running softmax: s, n scores (n a multiple of 16), becomes exp(s - new max); o,
 * sum are rescaled. */
static void softmax_row(float *s, int64_t n, float *o, int64_t d, float *max, float *sum)
{
    vf m = vf_set(-__builtin_inff());
    struct sums sums = {0};
    for (int64_t t = 0; t < n; t += VW)
        m = vf_max(m, vf_load(s + t));
    float now = vf_max_lane(m);
    if (now < *max)
        now = *max;
    if (now == -__builtin_inff()) { /* nothing seen yet: no weight, nothing to rescale */
        memset(s, 0, (size_t)n * sizeof *s);
        return;
    }
    for (int64_t t = 0; t < n; t += VW) {
        vf x = vf_load(s + t), e = vf_exp(x - now);
        e = (vf)((vi)e & ((vi)(x > -3e38f))); /* -inf gives an exact zero */
        add_next(&sums, e);
        vf_store(s + t, e);
    }
    if (now > *max) {
        float keep = *max == -__builtin_inff() ? 0 : __builtin_expf(*max - now);
        for (int64_t c = 0; c < d; c++)
            o[c] *= keep;
        *sum *= keep;
        *max = now;
    }
    *sum += sums_total(sums);
}

static struct ft_operand rows_of(const struct ft_tensor *t, int64_t row, int64_t col, bool trans)
{
    const int64_t ld = ft_tensor_ld(t);
    return (struct ft_operand){.data = (const float *)t->data + row * ld + col,
                               .dtype = FT_F32,
                               .ld = ld,
                               .trans = trans,
                               .alpha = 1.f};
}

/* What a row's sums are multiplied with, and the log of its softmax's denominator. */
struct total {
    float factor, lse;
};

static struct total total_of(const struct ft_attention_args *a, int head, float max, float sum)
{
    if (!a->sinks)
        return (struct total){1.f / sum, max + __builtin_logf(sum)};
    const float sink = ft_element_get(a->sinks->data, (size_t)head, a->sinks->dtype);
    const float most = larger(max, sink), mine = __builtin_expf(max - most);
    const float all = sum * mine + __builtin_expf(sink - most);
    return (struct total){mine / all, most + __builtin_logf(all)};
}

/* Some queries of one document and key head, and some of the keys that they see. */
struct block {
    int64_t row, nq;    /* queries: the first one's row, how many */
    int64_t key, at;    /* the row of the document's first key; keys before the first query's own */
    int64_t first, end; /* keys, from the document's first; `first` is a multiple of KB */
    int kv;
    float *o; /* (nq, group*d): what is summed, without the denominator */
    int64_t ldo;
    float *max, *sum; /* (group, QB) */
};

static struct block block_of(const struct job *j, int64_t base, int64_t i0, int kv)
{
    const struct ft_attention_args *a = j->f;
    const int64_t len = end_of(j, base) - base, nq = len - i0 < QB ? len - i0 : QB;
    const int32_t *cached = a->cached ? (const int32_t *)a->cached->data + 2 * base : NULL;
    const int64_t at = cached ? cached[1] + i0 : i0;
    return (struct block){.row = base + i0,
                          .nq = nq,
                          .key = cached ? cached[0] : base,
                          .at = at,
                          .first = first_key(j, at) / KB * KB,
                          .end = at + nq,
                          .kv = kv};
}

static void attend(const struct job *j, struct room *r, const struct block *b)
{
    const struct ft_attention_args *a = j->f;
    const int64_t d = j->d, ldq = ft_tensor_ld(a->q);
    for (int64_t i = 0; i < b->nq; i++)
        memset(b->o + i * b->ldo, 0, (size_t)(j->group * d) * sizeof(float));
    for (int h = 0; h < j->group; h++)
        for (int64_t i = 0; i < b->nq; i++) {
            b->max[h * QB + i] = -__builtin_inff();
            b->sum[h * QB + i] = 0;
        }
    for (int64_t t0 = b->first; t0 < b->end; t0 += KB) {
        const int64_t nk = b->end - t0 < KB ? b->end - t0 : KB;
        struct ft_operand k = rows_of(a->k, b->key + t0, b->kv * d, true);
        struct ft_operand v = rows_of(a->v, b->key + t0, b->kv * d, false);
        K(gemm_pack)(r->keys_t, &k, d, nk);
        K(gemm_pack)(r->values, &v, nk, d);
        for (int h = 0; h < j->group; h++) {
            const float *q = (const float *)a->q->data + b->row * ldq + (b->kv * j->group + h) * d;
            float *o = b->o + h * d;
            K(gemm_mul_side)
            (b->nq, nk, d, K(gemm_side)(r->words, b->nq, d, q, ldq, 1), r->keys_t, 0, d, r->s, KB,
             false);
            mask_scores(j, r->s, b->at, b->nq, t0, nk);
            for (int64_t i = 0; i < b->nq; i++)
                softmax_row(r->s + i * KB, (nk + 15) / 16 * 16, o + i * b->ldo, d,
                            &b->max[h * QB + i], &b->sum[h * QB + i]);
            K(gemm_mul_side)
            (b->nq, d, nk, K(gemm_side)(r->words, b->nq, nk, r->s, KB, 1), r->values, 0, nk, o,
             b->ldo, true);
        }
    }
}

static void forward(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const struct ft_attention_args *a = j->f;
    struct room *r = scratch;
    int64_t base, i0;
    find_block(j, piece / j->kv_heads, QB, &base, &i0);
    struct block b = block_of(j, base, i0, (int)(piece % j->kv_heads));
    b.ldo = ft_tensor_ld(a->o);
    b.o = (float *)a->o->data + b.row * b.ldo + b.kv * j->group * j->d;
    b.max = r->max;
    b.sum = r->sum;
    attend(j, r, &b);
    for (int h = 0; h < j->group; h++)
        for (int64_t i = 0; i < b.nq; i++) {
            const int head = b.kv * j->group + h;
            float *o = b.o + i * b.ldo + h * j->d;
            const struct total all = total_of(a, head, b.max[h * QB + i], b.sum[h * QB + i]);
            for (int64_t c = 0; c < j->d; c++)
                o[c] *= all.factor;
            ((float *)a->lse->data)[(b.row + i) * j->heads + head] = all.lse;
        }
}

/* --- one query of each document, whose keys are shared out --- */

/* What a part of a query's keys comes to, for each head: the largest score and the sum of weights.
 */
static float *weights_of(const struct job *j, int64_t part, int head)
{
    return j->parts + (part * j->heads + head) * 2;
}

/* The weighted values. */
static float *sums_of(const struct job *j, int64_t part, int head)
{
    return j->parts + 2 * PARTS * j->heads + (part * j->heads + head) * j->d;
}

/* s (heads, KB): products of a query with keys, as these lie, all heads of a key at once. */
FT_INLINE void score_keys(const struct job *j, const int64_t d, float *s, const float *q,
                          const float *k, int64_t ldk, int64_t nk)
{
    for (int64_t t = 0; t < nk; t++)
        for (int head = 0; head < j->heads; head++) {
            const float *x = q + head * d, *y = k + t * ldk + head / j->group * d;
            struct sums sum = {0};
            for (int64_t c = 0; c < d; c += VW)
                add_next(&sum, lanes(x, c, d) * lanes(y, c, d));
            s[head * KB + t] = j->scale * sums_total(sum);
        }
}

/* o (heads, d) += s v */
FT_INLINE void add_values(const struct job *j, const int64_t d, float *o, const float *s,
                          const float *v, int64_t ldv, int64_t nk)
{
    for (int64_t t = 0; t < nk; t++)
        for (int head = 0; head < j->heads; head++) {
            const float weight = s[head * KB + t], *y = v + t * ldv + head / j->group * d;
            float *x = o + head * d;
            for (int64_t c = 0; c < d; c += VW)
                put_lanes(x, lanes(x, c, d) + weight * lanes(y, c, d), c, d);
        }
}

/* Keys from row `key` on, n of them, for one query. */
FT_INLINE void one_query(const struct job *j, const int64_t d, struct room *r, int64_t part,
                         int64_t row, int64_t key, int64_t n)
{
    const struct ft_attention_args *a = j->f;
    const int64_t ldk = ft_tensor_ld(a->k), ldv = ft_tensor_ld(a->v);
    const float *q = (const float *)a->q->data + row * ft_tensor_ld(a->q);
    float *s = r->keys;
    for (int head = 0; head < j->heads; head++) {
        weights_of(j, part, head)[0] = -__builtin_inff();
        weights_of(j, part, head)[1] = 0;
    }
    memset(sums_of(j, part, 0), 0, (size_t)(j->heads * d) * sizeof(float));
    for (int64_t t0 = 0; t0 < n; t0 += KB) {
        const int64_t nk = n - t0 < KB ? n - t0 : KB, wide = (nk + 15) / 16 * 16;
        score_keys(j, d, s, q, (const float *)a->k->data + (key + t0) * ldk, ldk, nk);
        for (int head = 0; head < j->heads; head++) {
            float *mine = s + head * KB, *weights = weights_of(j, part, head);
            cap_scores(j, mine, nk);
            for (int64_t t = nk; t < wide; t++)
                mine[t] = -__builtin_inff();
            softmax_row(mine, wide, sums_of(j, part, head), d, &weights[0], &weights[1]);
        }
        add_values(j, d, sums_of(j, part, 0), s, (const float *)a->v->data + (key + t0) * ldv, ldv,
                   nk);
    }
}

static void forward_part(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const int64_t row = j->first + piece / j->n_parts, part = piece % j->n_parts;
    const int32_t *cached = (const int32_t *)j->f->cached->data + 2 * row;
    const int64_t first = first_key(j, cached[1]), all = cached[1] + 1 - first;
    const int64_t from = all * part / j->n_parts, n = all * (part + 1) / j->n_parts - from;
    const int64_t key = cached[0] + first + from;
    switch (j->d) {
    case 64:
        one_query(j, 64, scratch, piece, row, key, n);
        break;
    case 128:
        one_query(j, 128, scratch, piece, row, key, n);
        break;
    default:
        one_query(j, j->d, scratch, piece, row, key, n);
        break;
    }
}

/* A head's sums, in the order of its keys. `part`: the first of its query. */
static void join_head(const struct job *j, int64_t row, int64_t part, int head)
{
    const struct ft_attention_args *a = j->f;
    float *o = (float *)a->o->data + row * ft_tensor_ld(a->o) + head * j->d;
    float max = -__builtin_inff(), sum = 0;
    for (int64_t i = 0; i < j->n_parts; i++)
        max = larger(max, weights_of(j, part + i, head)[0]);
    memset(o, 0, (size_t)j->d * sizeof *o);
    for (int64_t i = 0; i < j->n_parts; i++) {
        const float *sums = sums_of(j, part + i, head), *weights = weights_of(j, part + i, head);
        const float keep = __builtin_expf(weights[0] - max);
        sum += keep * weights[1];
        for (int64_t c = 0; c < j->d; c++)
            o[c] += keep * sums[c];
    }
    const struct total all = total_of(a, head, max, sum);
    for (int64_t c = 0; c < j->d; c++)
        o[c] *= all.factor;
    ((float *)a->lse->data)[row * j->heads + head] = all.lse;
}

static void join_parts(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    (void)scratch;
    for (int head = 0; head < j->heads; head++)
        join_head(j, j->first + piece, piece * j->n_parts, head);
}

/* Into how many parts each query's keys are cut, a power of two: by the most keys, so that of few
 * keys some parts may be empty. */
static int64_t parts_of(const struct job *j, int64_t rows)
{
    const int32_t *cached = (const int32_t *)j->f->cached->data + 2 * j->first;
    int64_t most = 0, parts = 1;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t n = cached[2 * i + 1] + 1 - first_key(j, cached[2 * i + 1]);
        most = n > most ? n : most;
    }
    while (2 * parts * rows <= PARTS && 2 * parts * LEAST <= most)
        parts *= 2;
    return parts;
}

static void forward_parts(const struct ft_kernel_ctx *ctx, struct job *j)
{
    j->parts = ctx->scratch;
    for (; j->first < j->rows; j->first += PARTS) {
        const int64_t rows = j->rows - j->first < PARTS ? j->rows - j->first : PARTS;
        j->n_parts = parts_of(j, rows);
        ft_pool_run(ctx->pool, rows * j->n_parts, forward_part, j);
        ft_pool_run(ctx->pool, rows, join_parts, j);
    }
}

/* p = exp(s - lse); ds = p * (dp - delta) * scale, times the cap's slope 1 - (s/cap)^2; of nk keys;
 * p over s, ds over dp. */
static void block_gradients(const struct job *j, float *s, float *ds, const float *lse,
                            const float *delta, int64_t nq, int64_t nk)
{
    for (int64_t i = 0; i < nq; i++) {
        float l = lse[i * j->heads], dl = delta[i * j->heads];
        for (int64_t t = 0; t < nk; t += VW) {
            vf x = vf_load(s + i * KB + t), p = vf_exp(x - l);
            const vi seen = (vi)(x > -3e38f);
            p = (vf)((vi)p & seen);
            vf_store(s + i * KB + t, p);
            vf d = p * (vf_load(ds + i * KB + t) - dl) * j->scale;
            if (j->softcap > 0) {
                x /= j->softcap;
                d = (vf)((vi)(d * (1.f - x * x)) & seen);
            }
            vf_store(ds + i * KB + t, d);
        }
    }
}

enum { KEYS = 1, QUERIES = 2 }; /* whose gradients are wanted */

/* Some queries and some keys of one head of a document, and the scores where they meet. */
struct area {
    int64_t base; /* the document's first row */
    int head, what;
    int64_t i0, nq, t0, nk;
};

/* Of an area's strip of keys: where it begins, how many they are, and the first of the queries that
 * sees one of them. */
struct strip {
    int64_t first, n, query;
};

static struct strip strip_of(const struct area *p, int i)
{
    const int64_t first = i * STRIP, left = p->nk - first, query = p->t0 + first - p->i0;
    return (struct strip){first, left < STRIP ? left : STRIP, query > 0 ? query : 0};
}

static int strips_of(const struct area *p)
{
    return (int)((p->nk + STRIP - 1) / STRIP);
}

/* What of the queries does not depend on the keys. */
static void prepare_queries(const struct job *j, struct back_room *r, const struct area *p)
{
    const struct ft_attention_dx_args *a = j->b;
    const int64_t row = p->base + p->i0, col = p->head * j->d;
    const struct ft_operand q = rows_of(a->q, row, col, false);
    const struct ft_operand dout = rows_of(a->dout, row, col, false);
    r->q_side = K(gemm_side)(r->q_words, p->nq, j->d, q.data, q.ld, 1);
    r->dout_side = K(gemm_side)(r->dout_words, p->nq, j->d, dout.data, dout.ld, 1);
    if (p->what & KEYS) {
        K(gemm_pack)(r->q, &q, p->nq, j->d);
        K(gemm_pack)(r->dout, &dout, p->nq, j->d);
    }
}

/* What of the keys does not depend on the queries. */
static void prepare_keys(const struct job *j, struct back_room *r, const struct area *p)
{
    const int64_t row = p->base + p->t0, col = p->head / j->group * j->d;
    if (p->what & QUERIES) {
        const struct ft_operand k = rows_of(j->b->k, row, col, false);
        K(gemm_pack)(r->keys, &k, p->nk, j->d);
    }
    for (int i = 0; i < strips_of(p); i++) {
        const struct strip s = strip_of(p, i);
        const struct ft_operand k = rows_of(j->b->k, row + s.first, col, true);
        const struct ft_operand v = rows_of(j->b->v, row + s.first, col, true);
        K(gemm_pack)(r->keys_t[i], &k, j->d, s.n);
        K(gemm_pack)(r->values_t[i], &v, j->d, s.n);
    }
}

static struct ft_side rows_below(struct ft_side s, int64_t rows)
{
    s.words += rows * s.rs;
    return s;
}

/* Weights and their gradients of a strip. */
static void backward_scores(const struct job *j, struct back_room *r, const struct area *p, int i)
{
    const struct strip s = strip_of(p, i);
    const int64_t at = s.query * KB + s.first, nq = p->nq - s.query,
                  row = p->base + p->i0 + s.query;
    K(gemm_mul_side)
    (nq, s.n, j->d, rows_below(r->q_side, s.query), r->keys_t[i], 0, j->d, r->s + at, KB, false);
    mask_scores(j, r->s + at, p->i0 + s.query, nq, p->t0 + s.first, s.n);
    K(gemm_mul_side)
    (nq, s.n, j->d, rows_below(r->dout_side, s.query), r->values_t[i], 0, j->d, r->ds + at, KB,
     false);
    block_gradients(j, r->s + at, r->ds + at,
                    (const float *)j->b->lse->data + row * j->heads + p->head,
                    j->delta + row * j->heads + p->head, nq, s.n);
}

/* The gradients of a strip's keys or values (+)= s^T x, where x are the queries' rows, packed:
 * where all heads' are summed aside, or where they belong. The first queries that see a key begin
 * its sum. */
static void add_to_keys(const struct job *j, struct back_room *r, const struct area *p, int i,
                        const float *s, const float *x, float *heads, const struct ft_tensor *out)
{
    const struct strip strip = strip_of(p, i);
    const int64_t nq = p->nq - strip.query, t0 = p->t0 + strip.first;
    const int64_t ld = heads ? j->heads * j->d : ft_tensor_ld(out);
    float *c = (heads ? heads : (float *)out->data) + (p->base + t0) * ld + p->head * j->d;
    K(gemm_mul_side)
    (strip.n, j->d, nq,
     K(gemm_side)(r->words, strip.n, nq, s + strip.query * KB + strip.first, 1, KB), x, strip.query,
     p->nq, c, ld, p->i0 > t0);
}

/* The queries' gradients += ds k, of those that see strips 0 to i and no more. */
static void add_to_queries(const struct job *j, struct back_room *r, const struct area *p, int i)
{
    const struct ft_tensor *dq = j->b->dq;
    const struct strip s = strip_of(p, i);
    const int64_t end = i + 1 < strips_of(p) ? strip_of(p, i + 1).query : p->nq;
    const int64_t n = (end < p->nq ? end : p->nq) - s.query, k = s.first + s.n;
    const int64_t row = p->base + p->i0 + s.query, ld = ft_tensor_ld(dq);
    if (n > 0)
        K(gemm_mul_side)
    (n, j->d, k, K(gemm_side)(r->words, n, k, r->ds + s.query * KB, KB, 1), r->keys, 0, p->nk,
     (float *)dq->data + row * ld + p->head * j->d, ld, true);
}

/* Adds to the gradients what an area whose queries and keys are prepared contributes. */
static void backward_area(const struct job *j, struct back_room *r, const struct area *p)
{
    for (int i = 0; i < strips_of(p) && strip_of(p, i).query < p->nq; i++) {
        backward_scores(j, r, p, i);
        if (p->what & KEYS) {
            add_to_keys(j, r, p, i, r->s, r->dout, j->dv_h, j->b->dv);
            add_to_keys(j, r, p, i, r->ds, r->q, j->dk_h, j->b->dk);
        }
        if (p->what & QUERIES)
            add_to_queries(j, r, p, i);
    }
}

static void clear_queries(const struct job *j, int64_t row, int64_t n, int head)
{
    const struct ft_tensor *dq = j->b->dq;
    for (int64_t i = row; i < row + n; i++)
        memset((float *)dq->data + i * ft_tensor_ld(dq) + head * j->d, 0,
               (size_t)j->d * sizeof(float));
}

/* Some queries of one head with all keys that they see. */
static void backward_rows(const struct job *j, struct back_room *r, struct area p)
{
    const int64_t len = end_of(j, p.base) - p.base;
    clear_queries(j, p.base + p.i0, p.nq, p.head);
    prepare_queries(j, r, &p);
    for (p.t0 = first_key(j, p.i0) / KB * KB; p.t0 < p.i0 + p.nq; p.t0 += KB) {
        p.nk = len - p.t0 < KB ? len - p.t0 : KB;
        prepare_keys(j, r, &p);
        backward_area(j, r, &p);
    }
}

/* All of one document's head. */
static void backward(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const int64_t base = find_document(j, piece / j->heads), len = end_of(j, base) - base;
    struct area p = {.base = base, .head = (int)(piece % j->heads), .what = KEYS | QUERIES};
    for (; p.i0 < len; p.i0 += CHUNK) {
        p.nq = len - p.i0 < CHUNK ? len - p.i0 : CHUNK;
        backward_rows(j, scratch, p);
    }
}

/* A block of keys of one head with all queries that see one of them. */
static void backward_keys(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    struct area p = {.head = (int)(piece % j->heads), .what = KEYS};
    find_block(j, piece / j->heads, KB, &p.base, &p.t0);
    const int64_t len = end_of(j, p.base) - p.base;
    p.nk = len - p.t0 < KB ? len - p.t0 : KB;
    prepare_keys(j, scratch, &p);
    for (p.i0 = p.t0 / CHUNK * CHUNK; p.i0 < len && first_key(j, p.i0) < p.t0 + p.nk;
         p.i0 += CHUNK) {
        p.nq = len - p.i0 < CHUNK ? len - p.i0 : CHUNK;
        prepare_queries(j, scratch, &p);
        backward_area(j, scratch, &p);
    }
}

static void backward_queries(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    struct area p = {.head = (int)(piece % j->heads), .what = QUERIES};
    find_block(j, piece / j->heads, SHARE, &p.base, &p.i0);
    const int64_t len = end_of(j, p.base) - p.base;
    p.nq = len - p.i0 < SHARE ? len - p.i0 : SHARE;
    backward_rows(j, scratch, p);
}

/* The gradients of the keys that heads share: in the heads' order. */
static void add_heads(const struct job *j, int64_t row)
{
    const struct ft_tensor *out[2] = {j->b->dk, j->b->dv};
    const float *parts[2] = {j->dk_h, j->dv_h};
    for (int k = 0; k < 2; k++)
        for (int kv = 0; kv < j->kv_heads; kv++) {
            float *to = (float *)out[k]->data + row * ft_tensor_ld(out[k]) + kv * j->d;
            const float *from = parts[k] + (row * j->heads + kv * j->group) * j->d;
            memcpy(to, from, (size_t)j->d * sizeof *to);
            for (int h = 1; h < j->group; h++)
                for (int c = 0; c < j->d; c++)
                    to[c] += from[h * j->d + c];
        }
}

/* Whether blocks are done sooner than heads, though that takes seven products instead of five. */
static bool by_blocks(const struct job *j, int threads)
{
    double all = 0, most = 0;
    for (int64_t t = 0; t < j->rows; t = end_of(j, t)) {
        const double len = (double)(end_of(j, t) - t);
        all += len * len * j->heads;
        most = len * len > most ? len * len : most;
    }
    return 1.4 * all / threads < __builtin_ceil(all / (threads * most)) * most;
}

static void add_heads_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    for (int64_t row = piece * ROWS; row < (piece + 1) * ROWS && row < j->rows; row++)
        add_heads(j, row);
}

static void find_delta(const struct job *j, int64_t t)
{
    const struct ft_attention_dx_args *a = j->b;
    for (int h = 0; h < j->heads; h++) {
        const float *o = (const float *)a->o->data + t * ft_tensor_ld(a->o) + h * j->d;
        const float *dout = (const float *)a->dout->data + t * ft_tensor_ld(a->dout) + h * j->d;
        struct sums sum = {0};
        for (int64_t c = 0; c < j->d; c += VW)
            add_next(&sum, lanes(o, c, j->d) * lanes(dout, c, j->d));
        j->delta[t * j->heads + h] = sums_total(sum);
    }
}

static void delta_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    for (int64_t row = piece * ROWS; row < (piece + 1) * ROWS && row < j->rows; row++)
        find_delta(j, row);
}

void K(attention)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_attention_args *a = &args->attention;
    struct job j = {.f = a,
                    .spans = a->spans->data,
                    .rows = ft_live_rows(ctx, a->q),
                    .heads = a->heads,
                    .kv_heads = a->kv_heads,
                    .d = a->head_dim,
                    .window = a->window,
                    .group = a->heads / a->kv_heads,
                    .scale = a->scale,
                    .softcap = a->softcap};
    if (a->cached && j.heads <= MOST && count_documents(&j) == j.rows)
        forward_parts(ctx, &j);
    else
        ft_pool_run(ctx->pool, count_blocks(&j, QB) * j.kv_heads, forward, &j);
}

void K(attention_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_attention_dx_args *a = &args->attention_dx;
    struct job j = {.b = a,
                    .spans = a->spans->data,
                    .rows = ft_live_rows(ctx, a->q),
                    .heads = a->heads,
                    .kv_heads = a->kv_heads,
                    .d = a->head_dim,
                    .window = a->window,
                    .group = a->heads / a->kv_heads,
                    .scale = a->scale,
                    .softcap = a->softcap,
                    .delta = ctx->scratch};
    if (j.group > 1) {
        const int64_t size = a->q->rows * j.heads * j.d;
        j.dk_h = j.delta + (a->q->rows * j.heads + 15) / 16 * 16;
        j.dv_h = j.dk_h + size;
    }
    ft_pool_run(ctx->pool, (j.rows + ROWS - 1) / ROWS, delta_piece, &j);
    if (by_blocks(&j, ft_pool_size(ctx->pool))) {
        ft_pool_run(ctx->pool, count_blocks(&j, KB) * j.heads, backward_keys, &j);
        ft_pool_run(ctx->pool, count_blocks(&j, SHARE) * j.heads, backward_queries, &j);
    } else {
        ft_pool_run(ctx->pool, count_documents(&j) * j.heads, backward, &j);
    }
    if (j.group > 1)
        ft_pool_run(ctx->pool, (j.rows + ROWS - 1) / ROWS, add_heads_piece, &j);
}
