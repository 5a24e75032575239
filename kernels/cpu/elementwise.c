/* The ops that look at one row at a time without summing: embed, rope, glu, dropout, noise, add,
 * store, gather, regroup, pick_heads. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/functions.h"

#include "core/rng.h"

static void embed_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_embed_args *a = &args->embed;
    const int64_t cols = a->y->cols;
    for (int64_t t = t0; t < t1; t++) {
        float *y = row_of(a->y, t);
        const int32_t id = ((const int32_t *)a->ids->data)[t];
        if (id < 0)
            memset(y, 0, (size_t)cols * sizeof *y);
        else
            K(widen_row)(y, a->w, a->first + id);
        for (int64_t c = 0; c < cols && a->scale != 1.f; c++)
            y[c] *= a->scale;
        for (int64_t c = 0; c < cols && a->add; c++)
            y[c] += row_of(a->add, t)[c];
    }
}

/* The pairs of one head: columns i and i + half, or 2i and 2i + 1. */
FT_INLINE void rotate(float *y, const float *x, const float *co, const float *si, float sign,
                      int64_t half, int64_t step, int64_t apart)
{
    for (int64_t i = 0; i < half; i++) {
        const float x0 = x[i * step], x1 = x[i * step + apart], s = sign * si[i];
        y[i * step] = x0 * co[i] - x1 * s;
        y[i * step + apart] = x1 * co[i] + x0 * s;
    }
}

static void rope_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_rope_args *a = &args->rope;
    const int64_t half = a->cos->cols, d = a->head_dim, cols = a->x->cols;
    const int64_t rest = cols - a->heads * d, first = a->first, behind = first + 2 * half;
    for (int64_t t = t0; t < t1; t++) {
        const int64_t row = ((const int32_t *)a->angles->data)[t];
        const float *x = row_of(a->x, t);
        const float *co = (const float *)a->cos->data + row * half;
        const float *si = (const float *)a->sin->data + row * half;
        float *y = row_of(a->y, t);
        for (int h = 0; h < a->heads; h++, x += d, y += d) {
            if (a->interleaved)
                rotate(y + first, x + first, co, si, a->sign, half, 2, 1);
            else
                rotate(y + first, x + first, co, si, a->sign, half, 1, half);
            if (y != x && first > 0)
                memcpy(y, x, (size_t)first * sizeof *y);
            if (y != x && behind < d)
                memcpy(y + behind, x + behind, (size_t)(d - behind) * sizeof *y);
        }
        if (y != x && rest > 0)
            memcpy(y, x, (size_t)rest * sizeof *y);
    }
}

/* act(x), and in *slope its derivative. */
FT_INLINE vf activate(enum ft_activation act, vf x, vf *slope)
{
    const vf zero = {0};
    vf s, z, positive;
    switch (act) {
    case FT_SILU:
        s = vf_sigmoid(x);
        *slope = s + x * s * (1.f - s);
        return x * s;
    case FT_GELU_QUICK:
        s = vf_sigmoid(1.702f * x);
        *slope = s + 1.702f * x * s * (1.f - s);
        return x * s;
    case FT_GELU:
        s = 0.5f + 0.5f * vf_erf(x * 0.70710678118654752f);
        *slope = s + x * vf_exp(-0.5f * x * x) * 0.3989422804014327f;
        return x * s;
    case FT_GELU_TANH:
        z = vf_tanh(0.7978845608028654f * (x + 0.044715f * x * x * x));
        s = 0.5f + 0.5f * z;
        *slope = s + x * 0.5f * (1.f - z * z) * 0.7978845608028654f * (1.f + 0.134145f * x * x);
        return x * s;
    case FT_SIGMOID:
        s = vf_sigmoid(x);
        *slope = s * (1.f - s);
        return s;
    case FT_RELU:
    case FT_RELU2:
        break;
    }
    positive = vf_max(zero, x);
    if (act == FT_RELU2) {
        *slope = 2.f * positive;
        return positive * positive;
    }
    *slope = vf_select(x > zero, vf_set(1), zero);
    return positive;
}

FT_INLINE void glu_row(enum ft_activation act, const float *g, const float *u, float *y, int64_t n)
{
    for (int64_t c = 0; c < n; c += VW) {
        vf slope, v = activate(act, lanes(g, c, n), &slope);
        put_lanes(y, u ? v * lanes(u, c, n) : v, c, n);
    }
}

FT_INLINE void glu_dx_row(enum ft_activation act, const float *g, const float *u, const float *dy,
                          float *dg, float *du, int64_t n)
{
    for (int64_t c = 0; c < n; c += VW) {
        const vf d = lanes(dy, c, n);
        vf slope, v = activate(act, lanes(g, c, n), &slope);
        if (!u) {
            put_lanes(dg, d * slope, c, n);
            continue;
        }
        const vf dgate = d * lanes(u, c, n) * slope;
        put_lanes(dg, dgate, c, n);
        put_lanes(du, d * v, c, n);
    }
}

/* One loop an activation, so that what it is is known inside. */
#define EACH_ACTIVATION(act, call)                                                                 \
    switch (act) {                                                                                 \
    case FT_SILU:                                                                                  \
        call(FT_SILU);                                                                             \
        break;                                                                                     \
    case FT_GELU:                                                                                  \
        call(FT_GELU);                                                                             \
        break;                                                                                     \
    case FT_GELU_TANH:                                                                             \
        call(FT_GELU_TANH);                                                                        \
        break;                                                                                     \
    case FT_GELU_QUICK:                                                                            \
        call(FT_GELU_QUICK);                                                                       \
        break;                                                                                     \
    case FT_RELU:                                                                                  \
        call(FT_RELU);                                                                             \
        break;                                                                                     \
    case FT_RELU2:                                                                                 \
        call(FT_RELU2);                                                                            \
        break;                                                                                     \
    case FT_SIGMOID:                                                                               \
        call(FT_SIGMOID);                                                                          \
        break;                                                                                     \
    }

static void glu_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_glu_args *a = &args->glu;
#define ROW(act) glu_row(act, row_of(a->gate, t), u, row_of(a->y, t), a->y->cols)
    for (int64_t t = t0; t < t1; t++) {
        const float *u = a->up ? row_of(a->up, t) : NULL;
        EACH_ACTIVATION(a->act, ROW)
    }
#undef ROW
}

static void glu_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_glu_dx_args *a = &args->glu_dx;
#define ROW(act)                                                                                   \
    glu_dx_row(act, row_of(a->gate, t), u, row_of(a->dy, t), row_of(a->dgate, t), du, a->dy->cols)
    for (int64_t t = t0; t < t1; t++) {
        const float *u = a->up ? row_of(a->up, t) : NULL;
        float *du = a->dup ? row_of(a->dup, t) : NULL;
        EACH_ACTIVATION(a->act, ROW)
    }
#undef ROW
}

/* Gates and ups of pairs, cut, and the gates' sigmoids. */
struct pairs {
    vf gate, up, sigmoid;
    vi gate_kept, up_kept;
};

/* Of the n pairs of x, at most VW. */
FT_INLINE struct pairs cut_pairs(const float *x, int64_t n, float alpha, float limit)
{
    float gate[VW] = {0}, up[VW] = {0};
    for (int64_t i = 0; i < n; i++) {
        gate[i] = x[2 * i];
        up[i] = x[2 * i + 1];
    }
    const vf g = vf_load(gate), u = vf_load(up), most = vf_set(limit);
    struct pairs p = {.gate = vf_min(g, most), .up = vf_max(vf_min(u, most), -most)};
    p.gate_kept = ~(vi)(g > most);
    p.up_kept = ~((vi)(u > most) | (vi)(u < -most));
    p.sigmoid = vf_sigmoid(alpha * p.gate);
    return p;
}

static void glu_pairs_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_glu_pairs_args *a = &args->glu_pairs;
    const int64_t n = a->y->cols;
    for (int64_t t = t0; t < t1; t++)
        for (int64_t c = 0; c < n; c += VW) {
            const float *x = row_of(a->x, t) + 2 * c;
            const struct pairs p = cut_pairs(x, n - c < VW ? n - c : VW, a->alpha, a->limit);
            put_lanes(row_of(a->y, t), (p.up + 1) * (p.gate * p.sigmoid), c, n);
        }
}

static void glu_pairs_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_glu_pairs_dx_args *a = &args->glu_pairs_dx;
    const int64_t cols = a->dy->cols;
    float dgate[VW], dup[VW];
    for (int64_t t = t0; t < t1; t++)
        for (int64_t c = 0; c < cols; c += VW) {
            const int64_t n = cols - c < VW ? cols - c : VW;
            const struct pairs p = cut_pairs(row_of(a->x, t) + 2 * c, n, a->alpha, a->limit);
            const vf dy = lanes(row_of(a->dy, t), c, cols), s = p.sigmoid;
            const vf slope = s + p.gate * a->alpha * s * (1 - s);
            vf_store(dgate, (vf)((vi)(dy * (p.up + 1) * slope) & p.gate_kept));
            vf_store(dup, (vf)((vi)(dy * p.gate * s) & p.up_kept));
            float *dx = row_of(a->dx, t) + 2 * c;
            for (int64_t i = 0; i < n; i++) {
                dx[2 * i] = dgate[i];
                dx[2 * i + 1] = dup[i];
            }
        }
}

FT_INLINE uint64_t stream_key(uint64_t seed, int32_t epoch, enum ft_rng_use use)
{
    return seed + ((uint64_t)(uint32_t)epoch << 32 | (uint32_t)use);
}

/* Philox of 16 neighbouring counters at once: the same numbers as ft_philox. */
FT_INLINE void philox16(uint32_t c[4][16], uint64_t key)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (int l = 0; l < 16; l++) {
            const uint64_t p0 = (uint64_t)0xD2511F53u * c[0][l],
                           p1 = (uint64_t)0xCD9E8D57u * c[2][l];
            c[0][l] = (uint32_t)(p1 >> 32) ^ c[1][l] ^ k0;
            c[2][l] = (uint32_t)(p0 >> 32) ^ c[3][l] ^ k1;
            c[1][l] = (uint32_t)p1;
            c[3][l] = (uint32_t)p0;
        }
}

/* The numbers of 16 groups of 8 columns of a row, from group `first` on: four words each. */
FT_INLINE void draw_groups(uint32_t c[4][16], const int32_t key[3], uint64_t seed, uint32_t site,
                           enum ft_rng_use use, int64_t first)
{
    for (int l = 0; l < 16; l++) {
        c[0][l] = (uint32_t)(first + l);
        c[1][l] = (uint32_t)key[1];
        c[2][l] = (uint32_t)key[2];
        c[3][l] = site;
    }
    philox16(c, stream_key(seed, key[0], use));
}

/* Sixteen bytes of a row's mask, from byte `first` on. */
FT_INLINE void mask_bytes(uint8_t out[16], const int32_t key[3], uint64_t seed, uint32_t site,
                          uint32_t least, int64_t first)
{
    uint32_t c[4][16], byte[16] = {0};
    draw_groups(c, key, seed, site, FT_RNG_DROPOUT, first);
    for (int w = 0; w < 4; w++)
        for (int l = 0; l < 16; l++)
            byte[l] |= (uint32_t)((c[w][l] & 0xffff) >= least) << (2 * w) |
                       (uint32_t)(c[w][l] >> 16 >= least) << (2 * w + 1);
    for (int l = 0; l < 16; l++)
        out[l] = (uint8_t)byte[l];
}

static void dropout_mask_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_dropout_mask_args *a = &args->dropout_mask;
    const uint32_t least = ft_dropout_least(a->p);
    const int64_t cols = a->mask->cols / a->n;
    for (int64_t t = t0; t < t1; t++) {
        uint8_t *mask = (uint8_t *)a->mask->data + t * ft_tensor_ld(a->mask), bytes[16];
        const int32_t *key = (const int32_t *)a->keys->data + t * 3;
        for (int64_t i = 0; i < a->n * cols; i += cols)
            for (int64_t c = 0; c < cols; c += 16) {
                const int64_t left = cols - c;
                mask_bytes(bytes, key, a->seed, a->sites[i / cols], least, c);
                memcpy(mask + i + c, bytes, (size_t)(left < 16 ? left : 16));
            }
    }
}

static void dropout_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_dropout_args *a = &args->dropout;
    const int64_t cols = a->x->cols;
    const float scale = 1.f / (1.f - a->p);
    const uint32_t least = ft_dropout_least(a->p);
    for (int64_t t = t0; t < t1; t++) {
        const float *x = row_of(a->x, t), *add = a->add ? row_of(a->add, t) : NULL;
        const int32_t *key = (const int32_t *)a->keys->data + t * 3;
        float *y = row_of(a->y, t);
        uint8_t mask[16];
        for (int64_t c = 0; c < cols; c++) {
            if (c % 128 == 0)
                mask_bytes(mask, key, a->seed, a->site, least, c / 8);
            const float kept = mask[c / 8 % 16] >> (c % 8) & 1 ? x[c] * scale : 0;
            y[c] = add ? add[c] + kept : kept;
        }
    }
}

static void noise_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_noise_args *a = &args->noise;
    const int64_t cols = a->x->cols;
    for (int64_t t = t0; t < t1; t++) {
        const int32_t *key = (const int32_t *)a->keys->data + t * 3;
        const int32_t *span = (const int32_t *)a->spans->data + t * 2;
        const float *x = row_of(a->x, t);
        const float most = a->alpha / __builtin_sqrtf((float)(span[1] - span[0]) * (float)cols);
        float *y = row_of(a->y, t);
        uint32_t words[4][16];
        for (int64_t c = 0; c < cols; c++) {
            if (c % 128 == 0)
                draw_groups(words, key, a->seed, 0, FT_RNG_NOISE, c / 8);
            const uint32_t word = words[c % 8 / 2][c / 8 % 16];
            y[c] = x[c] + most * ft_noise_of(word >> (c % 2 * 16) & 0xffff);
        }
    }
}

static void add_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_add_args *a = &args->add;
    for (int64_t t = t0; t < t1; t++) {
        const float *p = a->a ? row_of(a->a, t) : NULL, *q = row_of(a->b, t);
        float *y = row_of(a->y, t);
        for (int64_t c = 0; c < a->y->cols; c++)
            y[c] = p ? p[c] + a->beta * q[c] : a->beta * q[c];
    }
}

static void store_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_store_args *a = &args->store;
    for (int64_t t = t0; t < t1; t++)
        memcpy(row_of(a->y, ((const int32_t *)a->places->data)[t]), row_of(a->x, t),
               (size_t)a->x->cols * sizeof(float));
}

static void gather_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_gather_args *a = &args->gather;
    for (int64_t t = t0; t < t1; t++)
        memcpy(row_of(a->y, t), row_of(a->x, ((const int32_t *)a->picked->data)[t]),
               (size_t)a->x->cols * sizeof(float));
}

static void regroup_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_regroup_args *a = &args->regroup;
    const int64_t d = a->head_dim, in_group = a->per_group + 2;
    for (int64_t t = t0; t < t1; t++)
        for (int64_t g = 0; g < a->groups; g++)
            for (int64_t h = 0; h < in_group; h++) {
                const int64_t near = g * in_group + h;
                const int64_t far = h < a->per_group
                                        ? g * a->per_group + h
                                        : a->groups * h + g; /* behind all query heads */
                const int64_t from = a->inverse ? far : near, to = a->inverse ? near : far;
                memcpy(row_of(a->y, t) + to * d, row_of(a->x, t) + from * d,
                       (size_t)d * sizeof(float));
            }
}

static void pick_heads_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_pick_heads_args *a = &args->pick_heads;
    const int64_t in = a->x->cols / a->heads, out = a->y->cols / a->heads;
    const int64_t r = a->rest ? a->rest->cols : 0, zeros = out - a->n - r;
    for (int64_t t = t0; t < t1; t++) {
        const float *x = row_of(a->x, t);
        float *y = row_of(a->y, t);
        for (int h = 0; h < a->heads; h++, x += in, y += out) {
            memcpy(y, x + a->first, (size_t)a->n * sizeof *y);
            if (r)
                memcpy(y + a->n, row_of(a->rest, t), (size_t)r * sizeof *y);
            memset(y + a->n + r, 0, (size_t)zeros * sizeof *y);
        }
    }
}

static void pick_heads_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_pick_heads_dx_args *a = &args->pick_heads_dx;
    const int64_t in = a->dx->cols / a->heads, out = a->dy->cols / a->heads;
    const int64_t r = a->drest ? a->drest->cols : 0;
    for (int64_t t = t0; t < t1; t++) {
        const float *dy = row_of(a->dy, t);
        float *dx = row_of(a->dx, t), *drest = r ? row_of(a->drest, t) : NULL;
        if (!a->add)
            memset(dx, 0, (size_t)a->dx->cols * sizeof *dx);
        else if (a->add->data != a->dx->data)
            memcpy(dx, row_of(a->add, t), (size_t)a->dx->cols * sizeof *dx);
        for (int h = 0; h < a->heads; h++) {
            for (int64_t c = 0; c < a->n; c++)
                dx[h * in + a->first + c] += dy[h * out + c];
            for (int64_t c = 0; c < r; c++)
                drest[c] = (h ? drest[c] : 0) + dy[h * out + a->n + c];
        }
    }
}

#define BY_ROWS(name, shape)                                                                       \
    void K(name)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)                    \
    {                                                                                              \
        by_rows(ctx, args->name.shape, args->name.shape->cols, args, name##_rows);                 \
    }
BY_ROWS(embed, y)
BY_ROWS(rope, y)
BY_ROWS(glu, y)
BY_ROWS(glu_dx, dy)
BY_ROWS(dropout_mask, mask)
BY_ROWS(dropout, y)
BY_ROWS(noise, y)
BY_ROWS(add, y)
BY_ROWS(store, x)
BY_ROWS(gather, y)
BY_ROWS(regroup, y)
BY_ROWS(pick_heads, y)
BY_ROWS(pick_heads_dx, dy)

void K(glu_pairs)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    by_rows(ctx, args->glu_pairs.x, 4 * args->glu_pairs.x->cols, args, glu_pairs_rows);
}

void K(glu_pairs_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    by_rows(ctx, args->glu_pairs_dx.x, 4 * args->glu_pairs_dx.x->cols, args, glu_pairs_dx_rows);
}
