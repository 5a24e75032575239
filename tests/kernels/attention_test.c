/* attention and attention_dx against doubles. */
#include "tests/kernels/ops.h"

struct shape {
    int heads, kv_heads, d, window;
    int docs[6]; /* lengths, 0 ends */
    float softcap;
    bool sinks;
};
static const struct shape shapes[] = {
    {1, 1, 2, 0, {1}, 0, false},
    {2, 1, 4, 0, {2, 1, 3}, 0, false},
    {4, 2, 10, 0, {5, 64, 7}, 0, false},
    {9, 3, 64, 0, {96, 97, 1}, 0, false},
    {6, 2, 32, 0, {200, 65}, 0, false},
    {3, 3, 16, 0, {300}, 0, false},
    {4, 1, 8, 5, {33, 2, 130}, 0, false},
    {2, 2, 128, 70, {150, 33, 9}, 0, false},
    {2, 1, 256, 0, {40}, 0, false},
    {2, 1, 80, 0, {130, 71}, 0, false},
    {1, 1, 160, 40, {77, 1, 90}, 0, false},
    {4, 2, 200, 0, {66, 129}, 0, false},
    {2, 2, 128, 0, {500}, 0, false},
    {3, 1, 64, 128, {511, 2, 300}, 0, false},
    {2, 1, 96, 0, {3, 140}, 0, false},
    {4, 2, 64, 0, {70, 9}, 2, false},
    {2, 1, 32, 20, {130}, 0.5f, false},
    {8, 2, 64, 0, {130, 1}, 0, true},
    {4, 1, 8, 5, {33, 2}, 0, true},
    {2, 2, 128, 70, {150}, 0, true},
    {4, 2, 64, 100, {400}, 0, false},
    {2, 1, 16, 0, {450}, 1, false},
};

/* Of the shape at work; NULL: none. */
static struct ft_tensor *sinks;

static double sink_of(int head)
{
    return sinks ? at(sinks, 0, head) : -1e300;
}

/* One document, one head, in doubles; rows from base. */
static void head_in_double(const struct ft_attention_dx_args *a, int64_t base, int len, int head,
                           double *o, double *lse, double *dq, double *dk, double *dv)
{
    const int d = a->head_dim, kv = head / (a->heads / a->kv_heads);
    for (int i = 0; i < len; i++) {
        double p[512], dp[512], slope[512], max = sink_of(head), sum = 0, delta = 0;
        int t0 = a->window > 0 && i - a->window + 1 > 0 ? i - a->window + 1 : 0;
        for (int t = t0; t <= i; t++) {
            p[t] = 0;
            for (int c = 0; c < d; c++)
                p[t] += at(a->q, base + i, head * d + c) * at(a->k, base + t, kv * d + c);
            p[t] *= (double)a->scale;
            if (a->softcap > 0)
                p[t] = (double)a->softcap * tanh(p[t] / (double)a->softcap);
            slope[t] = a->softcap > 0 ? 1 - pow(p[t] / (double)a->softcap, 2) : 1;
            max = fmax(max, p[t]);
        }
        for (int t = t0; t <= i; t++)
            sum += p[t] = exp(p[t] - max);
        sum += exp(sink_of(head) - max);
        lse[(base + i) * a->heads + head] = max + log(sum);
        for (int t = t0; t <= i; t++) {
            p[t] /= sum;
            dp[t] = 0;
            for (int c = 0; c < d; c++) {
                o[(base + i) * a->heads * d + head * d + c] +=
                    p[t] * at(a->v, base + t, kv * d + c);
                dp[t] += at(a->dout, base + i, head * d + c) * at(a->v, base + t, kv * d + c);
            }
            delta += p[t] * dp[t];
        }
        for (int t = t0; t <= i; t++) {
            double ds = p[t] * (dp[t] - delta) * (double)a->scale * slope[t];
            for (int c = 0; c < d; c++) {
                dq[(base + i) * a->heads * d + head * d + c] += ds * at(a->k, base + t, kv * d + c);
                dk[(base + t) * a->kv_heads * d + kv * d + c] +=
                    ds * at(a->q, base + i, head * d + c);
                dv[(base + t) * a->kv_heads * d + kv * d + c] +=
                    p[t] * at(a->dout, base + i, head * d + c);
            }
        }
    }
}

/* One query's output, by its places; returns its lse. */
static double row_in_double(const struct ft_attention_args *a, int64_t t, int head, double *o)
{
    const int d = a->head_dim, kv = head / (a->heads / a->kv_heads);
    const int32_t *c = (const int32_t *)a->cached->data + 2 * t;
    const int low = a->window > 0 && c[1] - a->window + 1 > 0 ? c[1] - a->window + 1 : 0;
    double p[512], max = sink_of(head), sum = 0;
    for (int i = low; i <= c[1]; i++) {
        p[i] = 0;
        for (int k = 0; k < d; k++)
            p[i] += at(a->q, t, head * d + k) * at(a->k, c[0] + i, kv * d + k);
        p[i] *= (double)a->scale;
        if (a->softcap > 0)
            p[i] = (double)a->softcap * tanh(p[i] / (double)a->softcap);
        max = fmax(max, p[i]);
    }
    for (int i = low; i <= c[1]; i++)
        sum += p[i] = exp(p[i] - max);
    sum += exp(sink_of(head) - max);
    for (int i = low; i <= c[1]; i++)
        for (int k = 0; k < d; k++)
            o[k] += p[i] / sum * at(a->v, c[0] + i, kv * d + k);
    return max + log(sum);
}

static void compare(const char *what, const struct bench *b, const struct ft_tensor *got,
                    const double *want, double n)
{
    double size = 1; /* values are O(1): measured against the largest */
    for (int64_t i = 0; i < b->live * got->cols; i++)
        size = fmax(size, fabs(want[i]));
    for (int64_t i = 0; i < b->live * got->cols; i++)
        check_element(
            what, b, i / got->cols, i % got->cols, at(got, i / got->cols, i % got->cols), want[i],
            4 * tol_f32(size, n) + (b->backend->products == FT_BF16 ? tol_bf16(size) : 0));
    check_poison(b, got);
}

static void one_shape(struct bench *b, const struct shape *s)
{
    const int q = s->heads * s->d, kv = s->kv_heads * s->d;
    int longest = 0;
    b->live = b->docs = 0;
    for (; s->docs[b->docs]; b->docs++) {
        b->live += s->docs[b->docs];
        longest = s->docs[b->docs] > longest ? s->docs[b->docs] : longest;
    }
    sinks = s->sinks ? random_weight(1, s->heads, FT_F32, 9) : NULL;
    struct ft_tensor *spans = int_rows(b, 2);
    int32_t *span = spans->data;
    for (int64_t doc = 0, t = 0, first = 0; doc < b->docs; first += s->docs[doc++])
        for (; t < first + s->docs[doc]; t++) {
            span[2 * t] = (int32_t)first;
            span[2 * t + 1] = (int32_t)(first + s->docs[doc]);
        }
    struct ft_attention_dx_args a = {.q = random_tensor(b, q, 1),
                                     .k = random_tensor(b, kv, 2),
                                     .v = random_tensor(b, kv, 3),
                                     .o = empty_tensor(b, q),
                                     .lse = empty_sums(b, s->heads),
                                     .dout = random_tensor(b, q, 4),
                                     .spans = spans,
                                     .dq = empty_tensor(b, q),
                                     .dk = empty_tensor(b, kv),
                                     .dv = empty_tensor(b, kv),
                                     .heads = s->heads,
                                     .kv_heads = s->kv_heads,
                                     .head_dim = s->d,
                                     .window = s->window,
                                     .scale = (float)(1.5 / sqrt(s->d)),
                                     .softcap = s->softcap};
    run_op(
        b, FT_OP_attention,
        &(union ft_op_args){.attention = {a.q, a.k, a.v, spans, NULL, sinks, a.o, a.lse, a.heads,
                                          a.kv_heads, a.head_dim, a.window, a.scale, a.softcap}});
    run_op(b, FT_OP_attention_dx, &(union ft_op_args){.attention_dx = a});
    if (!b->backend->dev && b->docs == 1) /* cut by heads or by blocks */
        check_threads(b, FT_OP_attention_dx, &(union ft_op_args){.attention_dx = a},
                      (struct ft_tensor *const[]){a.dq, a.dk, a.dv}, 3);
    size_t n = (size_t)b->live * (size_t)(3 * q + 2 * kv);
    double *o = calloc(n, sizeof *o), *lse = o + b->live * q, *dq = lse + b->live * q;
    double *dk = dq + b->live * q, *dv = dk + b->live * kv;
    for (int64_t doc = 0, base = 0; doc < b->docs; base += s->docs[doc++])
        for (int h = 0; h < s->heads; h++)
            head_in_double(&a, base, s->docs[doc], h, o, lse, dq, dk, dv);
    compare("attention o", b, a.o, o, longest + s->d);
    compare("attention lse", b, a.lse, lse, longest + s->d);
    compare("attention dq", b, a.dq, dq, longest + s->d);
    compare("attention dk", b, a.dk, dk, longest + s->d);
    compare("attention dv", b, a.dv, dv, longest + s->d);
    free(o);
    drop_tensors();
}

/* b->live queries over so many cached rows of keys, whose documents are not filled in. */
static struct ft_attention_args cached_args(struct bench *b, const struct shape *s, int64_t rows)
{
    const int q = s->heads * s->d, kv = s->kv_heads * s->d;
    struct ft_tensor *spans = int_rows(b, 2), *cached = int_rows(b, 2);
    sinks = s->sinks ? random_weight(1, s->heads, FT_BF16, 9) : NULL;
    return (struct ft_attention_args){.q = random_tensor(b, q, 1),
                                      .k = random_weight(rows, kv, b->backend->act, 2),
                                      .v = random_weight(rows, kv, b->backend->act, 3),
                                      .spans = spans,
                                      .cached = cached,
                                      .sinks = sinks,
                                      .o = empty_tensor(b, q),
                                      .lse = empty_sums(b, s->heads),
                                      .heads = s->heads,
                                      .kv_heads = s->kv_heads,
                                      .head_dim = s->d,
                                      .window = s->window,
                                      .scale = (float)(1.5 / sqrt(s->d)),
                                      .softcap = s->softcap};
}

/* Row t is of the document of rows first to end-1; its keys begin in row `slot`, and `before` of
 * them are older than its own. */
static void put_row(const struct ft_attention_args *a, int t, int first, int end, int slot,
                    int before)
{
    int32_t *span = (int32_t *)a->spans->data + 2 * t;
    int32_t *cached = (int32_t *)a->cached->data + 2 * t;
    span[0] = first;
    span[1] = end;
    cached[0] = slot;
    cached[1] = before;
}

/* Runs and compares; n: keys of the longest. */
static void check_cached(struct bench *b, const struct shape *s, const struct ft_attention_args *a,
                         int n)
{
    const int q = s->heads * s->d;
    run_op(b, FT_OP_attention, &(union ft_op_args){.attention = *a});
    double *o = calloc((size_t)(b->live * (q + s->heads)), sizeof *o), *lse = o + b->live * q;
    for (int t = 0; t < b->live; t++)
        for (int h = 0; h < s->heads; h++)
            lse[t * s->heads + h] = row_in_double(a, t, h, o + t * q + h * s->d);
    compare("cached o", b, a->o, o, n + s->d);
    compare("cached lse", b, a->lse, lse, n + s->d);
    free(o);
}

/* Queries behind keys that are cached: the last rows of documents whose keys lie in rows of their
 * own, in another order than the queries. */
static void one_cached(struct bench *b, const struct shape *s, const int take[3])
{
    enum { ROOM = 320 };
    const int before[3] = {90, 0, 200}, slot[3] = {2, 0, 1};
    b->live = take[0] + take[1] + take[2];
    b->docs = 3;
    const struct ft_attention_args a = cached_args(b, s, 3 * ROOM);
    for (int doc = 0, t = 0, first = 0; doc < 3; first += take[doc++])
        for (; t < first + take[doc]; t++)
            put_row(&a, t, first, first + take[doc], slot[doc] * ROOM, before[doc] + t - first);
    check_cached(b, s, &a, 270);
    drop_tensors();
}

/* So many queries of documents of their own, the longest of n keys. */
static void single_queries(struct bench *b, const struct shape *s, int rows, int n)
{
    const int slots = rows < 5 ? rows : 5;
    b->live = b->docs = rows;
    const union ft_op_args args = {.attention = cached_args(b, s, slots * (n + 1))};
    for (int t = 0; t < rows; t++)
        put_row(&args.attention, t, t, t + 1, t % slots * (n + 1), (t * 37 + n - 1) % n);
    check_cached(b, s, &args.attention, n);
    check_threads(b, FT_OP_attention, &args,
                  (struct ft_tensor *const[]){args.attention.o, args.attention.lse}, 2);
    drop_tensors();
}

static void single_case(struct bench *b)
{
    static const struct {
        struct shape shape;
        int rows, keys;
    } all[] = {
        {{9, 3, 64, 0, {0}, 0, false}, 1, 500},     {{4, 2, 128, 50, {0}, 30, true}, 2, 300},
        {{6, 2, 80, 100, {0}, 0, true}, 3, 257},    {{2, 1, 256, 33, {0}, 5, true}, 1, 97},
        {{3, 1, 18, 17, {0}, 0.5f, true}, 130, 65}, {{4, 2, 10, 0, {0}, 2, false}, 65, 64},
        {{272, 34, 4, 0, {0}, 0, true}, 2, 150},    {{273, 273, 2, 0, {0}, 0, false}, 1, 97}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        single_queries(b, &all[i].shape, all[i].rows, all[i].keys);
}

CASE(single_queries_over_cached_keys_match_doubles)
{
    each_host_backend(single_case);
}

static void cached_case(struct bench *b)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < 2; k++)
            one_cached(b, &shapes[i], (int[2][3]){{1, 7, 66}, {1, 1, 1}}[k]);
}

CASE(attention_over_cached_keys_matches_doubles)
{
    each_backend(cached_case);
}

/* The sanitizer is slow, above all with an emulated device. */
#if defined(__SANITIZE_ADDRESS__)
enum { LONGEST = 300 };
#else
enum { LONGEST = 1 << 20 };
#endif

static void attention_case(struct bench *b)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i].docs[0] <= LONGEST)
            one_shape(b, &shapes[i]);
}

CASE(attention_matches_doubles)
{
    each_backend(attention_case);
}
