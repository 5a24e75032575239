/* The ops that look at one row at a time without summing: embed, rope, glu, dropout, noise, add,
 * store, gather, regroup, pick_heads; and refresh. One block row per activation row, 8 columns (16
 * bytes) a thread where rows allow. */
#include "kernels/cuda/device.cuh"

#include "core/rng.h"

enum { THREADS = 128 };

/* Threads of a block, and blocks, for `items` columns or groups of them in each of `rows` rows. */
static int threads_for(int64_t items)
{
    return items < THREADS ? (int)((items + 31) / 32 * 32) : THREADS;
}

static struct ft_grid grid_of(int64_t rows, int64_t items)
{
    const int threads = threads_for(items);
    return {rows, (int)((items + threads - 1) / threads), 1};
}

/* This thread's item of its row. */
FT_DEVICE int64_t my_item(void)
{
    return (int64_t)ft_block_y() * ft_threads() + ft_thread();
}

/* Launches kernel<8> or kernel<1> over the columns of rows of `shape`. */
#define BY_COLUMNS(ctx, shape, kernel, wide, ...)                                                  \
    do {                                                                                           \
        const int64_t rows_ = ft_launch_rows(ctx, shape), cols_ = (shape)->cols;                   \
        if (wide)                                                                                  \
            ft_launch(ctx, kernel<8>, grid_of(rows_, cols_ / 8), threads_for(cols_ / 8), 0,        \
                      __VA_ARGS__);                                                                \
        else                                                                                       \
            ft_launch(ctx, kernel<1>, grid_of(rows_, cols_), threads_for(cols_), 0, __VA_ARGS__);  \
    } while (0)

template <int V>
FT_KERNEL(THREADS)
embed(struct ft_mark mark, const int32_t *live, const int32_t *ids, struct ft_rows w, float scale,
      struct ft_rows add, struct ft_rows y, int64_t cols, int64_t first)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float v[V] = {}, a[V] = {};
    if (c >= cols)
        return;
    if (t < live[FT_ROWS]) {
        if (ids[t] >= 0)
            ft_load<V>(v, w.p + (first + ids[t]) * w.ld + c);
        if (add.p)
            ft_load<V>(a, add.p + t * add.ld + c);
        FT_UNROLL
        for (int i = 0; i < V; i++)
            v[i] = v[i] * scale + a[i];
    }
    ft_store<V>(y.p + t * y.ld + c, v);
}

void ft_cuda_embed(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_embed_args *a = &args->embed;
    BY_COLUMNS(ctx, a->y, embed, ft_is_wide(a->w, a->add, a->y), ctx->live,
               (const int32_t *)a->ids->data, ft_rows_of(a->w), a->scale, ft_rows_of(a->add),
               ft_rows_of(a->y), a->y->cols, (int64_t)a->first);
}

struct rope_job {
    const int32_t *live, *angles;
    const float *cos, *sin;
    struct ft_rows x, y;
    int64_t cols;
    int heads, d, half, first;
    float sign;
    bool interleaved;
};

struct alignas(16) four {
    float v[4];
};

template <int V> FT_DEVICE void load_floats(float out[V], const float *p)
{
    FT_UNROLL
    for (int i = 0; i < V; i += 4) {
        if (V == 1) {
            out[0] = *p;
            continue;
        }
        const four f = *(const four *)(p + i);
        FT_UNROLL
        for (int k = 0; k < 4; k++)
            out[(i + k) % V] = f.v[k];
    }
}

/* Columns 2i and 2i + 1. */
FT_DEVICE void rotate_pair(const struct rope_job &j, int64_t t, int64_t i, const bf16 *x, bf16 *y)
{
    const int64_t row = t < j.live[FT_ROWS] ? j.angles[t] : 0;
    const float a = ft_to_float(x[0]), b = ft_to_float(x[1]);
    const float co = j.cos[row * j.half + i], si = j.sign * j.sin[row * j.half + i];
    y[0] = ft_to_bf16(a * co - b * si);
    y[1] = ft_to_bf16(b * co + a * si);
}

/* An item is V pairs of a head, or V columns of what is only copied. */
template <int V> FT_KERNEL(THREADS) rope(struct ft_mark mark, struct rope_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), item = my_item(), per_head = j.half / V;
    const bf16 *x = j.x.p + t * j.x.ld;
    bf16 *y = j.y.p + t * j.y.ld;
    const int64_t pairs = j.heads * per_head, rest = (j.d - 2 * j.half) / V;
    if (item < pairs) {
        const int64_t i = item % per_head * V, at = item / per_head * j.d + j.first + i;
        if (V == 1 && j.interleaved) {
            rotate_pair(j, t, i, x + at + i, y + at + i);
            return;
        }
        const int64_t row = t < j.live[FT_ROWS] ? j.angles[t] : 0;
        float a[V], b[V], co[V], si[V], p[V], q[V];
        load_floats<V>(co, j.cos + row * j.half + i);
        load_floats<V>(si, j.sin + row * j.half + i);
        ft_load<V>(a, x + at);
        ft_load<V>(b, x + at + j.half);
        FT_UNROLL
        for (int k = 0; k < V; k++) {
            const float s = j.sign * si[k];
            p[k] = a[k] * co[k] - b[k] * s;
            q[k] = b[k] * co[k] + a[k] * s;
        }
        ft_store<V>(y + at, p);
        ft_store<V>(y + at + j.half, q);
        return;
    }
    if (x == y)
        return;
    int64_t k = item - pairs, c;
    if (k < j.heads * rest) { /* before or behind the rotated part of a head */
        const int64_t at = k % rest * V;
        c = k / rest * j.d + (at < j.first ? at : at + 2 * j.half);
    } else { /* behind the heads */
        c = (int64_t)j.heads * j.d + (k - j.heads * rest) * V;
        if (c >= j.cols)
            return;
    }
    float v[V];
    ft_load<V>(v, x + c);
    ft_store<V>(y + c, v);
}

void ft_cuda_rope(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_rope_args *a = &args->rope;
    struct rope_job j = {};
    j.live = ctx->live;
    j.angles = (const int32_t *)a->angles->data;
    j.cos = (const float *)a->cos->data;
    j.sin = (const float *)a->sin->data;
    j.x = ft_rows_of(a->x);
    j.y = ft_rows_of(a->y);
    j.cols = a->x->cols;
    j.heads = a->heads;
    j.d = a->head_dim;
    j.half = (int)a->cos->cols;
    j.first = a->first;
    j.sign = a->sign;
    j.interleaved = a->interleaved;
    const bool wide = !j.interleaved && ft_is_wide(a->x, a->y) && j.half % 8 == 0 && j.d % 8 == 0 && j.first % 8 == 0;
    const int64_t rows = ft_launch_rows(ctx, a->y), v = wide ? 8 : 1;
    const int64_t copied = j.x.p == j.y.p ? 0 : j.cols - (int64_t)j.heads * 2 * j.half;
    const int64_t items = (int64_t)j.heads * j.half / v + copied / v;
    if (wide)
        ft_launch(ctx, rope<8>, grid_of(rows, items), threads_for(items), 0, j);
    else
        ft_launch(ctx, rope<1>, grid_of(rows, items), threads_for(items), 0, j);
}

FT_DEVICE float sigmoid(float x)
{
    return 1.f / (1.f + ft_exp(-x));
}

/* act(x), and in *slope its derivative. */
FT_DEVICE float activate(int act, float x, float *slope)
{
    float s, z;
    switch (act) {
    case FT_SILU:
        s = sigmoid(x);
        *slope = s + x * s * (1.f - s);
        return x * s;
    case FT_GELU_QUICK:
        s = sigmoid(1.702f * x);
        *slope = s + 1.702f * x * s * (1.f - s);
        return x * s;
    case FT_GELU:
        s = 0.5f + 0.5f * erff(x * 0.70710678118654752f);
        *slope = s + x * ft_exp(-0.5f * x * x) * 0.3989422804014327f;
        return x * s;
    case FT_GELU_TANH:
        z = tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x));
        s = 0.5f + 0.5f * z;
        *slope = s + x * 0.5f * (1.f - z * z) * 0.7978845608028654f * (1.f + 0.134145f * x * x);
        return x * s;
    case FT_SIGMOID:
        s = sigmoid(x);
        *slope = s * (1.f - s);
        return s;
    case FT_RELU2:
        *slope = x > 0 ? 2.f * x : 0;
        return x > 0 ? x * x : 0;
    default:
        *slope = x > 0 ? 1.f : 0;
        return x > 0 ? x : 0;
    }
}

struct pairs_job {
    struct ft_rows x, y, dy;
    int64_t cols;
    float alpha, limit;
};

/* A thread a pair; dy: p NULL forward. */
FT_KERNEL(THREADS) glu_pairs(struct ft_mark mark, struct pairs_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item();
    if (c >= j.cols)
        return;
    const bf16 *x = j.x.p + t * j.x.ld + 2 * c;
    const float gate = ft_to_float(x[0]), up = ft_to_float(x[1]);
    const float g = fminf(gate, j.limit), u = fminf(fmaxf(up, -j.limit), j.limit);
    const float s = 1.f / (1.f + ft_exp(-j.alpha * g));
    if (!j.dy.p) {
        j.y.p[t * j.y.ld + c] = ft_to_bf16((u + 1) * (g * s));
        return;
    }
    const float dy = ft_to_float(j.dy.p[t * j.dy.ld + c]);
    bf16 *dx = j.y.p + t * j.y.ld + 2 * c;
    dx[0] = ft_to_bf16(gate > j.limit ? 0 : dy * (u + 1) * (s + g * j.alpha * s * (1 - s)));
    dx[1] = ft_to_bf16(u != up ? 0 : dy * g * s);
}

static void launch_pairs(const struct ft_kernel_ctx *ctx, const struct ft_tensor *shape,
                         struct pairs_job j)
{
    const int threads = threads_for(j.cols);
    const struct ft_grid grid = {ft_launch_rows(ctx, shape), (int)((j.cols + threads - 1) / threads),
                                 1};
    ft_launch(ctx, glu_pairs, grid, threads, 0, j);
}

void ft_cuda_glu_pairs(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_glu_pairs_args *a = &args->glu_pairs;
    struct pairs_job j = {};
    j.x = ft_rows_of(a->x);
    j.y = ft_rows_of(a->y);
    j.cols = a->y->cols;
    j.alpha = a->alpha;
    j.limit = a->limit;
    launch_pairs(ctx, a->y, j);
}

void ft_cuda_glu_pairs_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_glu_pairs_dx_args *a = &args->glu_pairs_dx;
    struct pairs_job j = {};
    j.x = ft_rows_of(a->x);
    j.dy = ft_rows_of(a->dy);
    j.y = ft_rows_of(a->dx);
    j.cols = a->dy->cols;
    j.alpha = a->alpha;
    j.limit = a->limit;
    launch_pairs(ctx, a->dy, j);
}

struct glu_job {
    struct ft_rows gate, up, dy, y, dgate, dup; /* up, dup: p NULL without */
    int64_t cols;
    int act;
};

template <int V> FT_KERNEL(THREADS) glu(struct ft_mark mark, struct glu_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float g[V], u[V], slope;
    if (c >= j.cols)
        return;
    ft_load<V>(g, j.gate.p + t * j.gate.ld + c);
    if (j.up.p)
        ft_load<V>(u, j.up.p + t * j.up.ld + c);
    FT_UNROLL
    for (int i = 0; i < V; i++)
        g[i] = activate(j.act, g[i], &slope) * (j.up.p ? u[i] : 1.f);
    ft_store<V>(j.y.p + t * j.y.ld + c, g);
}

void ft_cuda_glu(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_glu_args *a = &args->glu;
    struct glu_job j = {};
    j.gate = ft_rows_of(a->gate);
    j.up = ft_rows_of(a->up);
    j.y = ft_rows_of(a->y);
    j.cols = a->y->cols;
    j.act = a->act;
    BY_COLUMNS(ctx, a->y, glu, ft_is_wide(a->gate, a->up, a->y), j);
}

template <int V> FT_KERNEL(THREADS) glu_dx(struct ft_mark mark, struct glu_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float g[V], u[V], d[V], slope;
    if (c >= j.cols)
        return;
    ft_load<V>(g, j.gate.p + t * j.gate.ld + c);
    if (j.up.p)
        ft_load<V>(u, j.up.p + t * j.up.ld + c);
    ft_load<V>(d, j.dy.p + t * j.dy.ld + c);
    FT_UNROLL
    for (int i = 0; i < V; i++) {
        const float v = activate(j.act, g[i], &slope);
        g[i] = d[i] * (j.up.p ? u[i] : 1.f) * slope;
        u[i] = d[i] * v;
    }
    ft_store<V>(j.dgate.p + t * j.dgate.ld + c, g);
    if (j.dup.p)
        ft_store<V>(j.dup.p + t * j.dup.ld + c, u);
}

void ft_cuda_glu_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_glu_dx_args *a = &args->glu_dx;
    struct glu_job j = {};
    j.gate = ft_rows_of(a->gate);
    j.up = ft_rows_of(a->up);
    j.dy = ft_rows_of(a->dy);
    j.dgate = ft_rows_of(a->dgate);
    j.dup = ft_rows_of(a->dup);
    j.cols = a->dy->cols;
    j.act = a->act;
    BY_COLUMNS(ctx, a->dy, glu_dx, ft_is_wide(a->gate, a->up, a->dy, a->dgate, a->dup), j);
}

struct dropout_job {
    const int32_t *live, *keys;
    struct ft_rows x, add, y;
    int64_t cols;
    float scale;
    uint32_t least, site;
    uint64_t seed;
};

/* The numbers of a group of eight columns are drawn together, as on the CPU. */
template <int V> FT_KERNEL(THREADS) dropout(struct ft_mark mark, struct dropout_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float x[V], add[V] = {};
    uint32_t words[4];
    if (c >= j.cols)
        return;
    const bool mine = t < j.live[FT_ROWS];
    const int32_t *key = j.keys + 3 * t;
    const uint64_t seed = j.seed + ((uint64_t)(uint32_t)(mine ? key[0] : 0) << 32 | FT_RNG_DROPOUT);
    const uint32_t at[4] = {(uint32_t)(c / 8), (uint32_t)(mine ? key[1] : 0),
                            (uint32_t)(mine ? key[2] : 0), j.site};
    ft_philox(at, seed, words);
    ft_load<V>(x, j.x.p + t * j.x.ld + c);
    if (j.add.p)
        ft_load<V>(add, j.add.p + t * j.add.ld + c);
    FT_UNROLL
    for (int i = 0; i < V; i++) {
        const int n = V == 1 ? (int)(c % 8) : i;
        const uint32_t number = words[n / 2] >> (n % 2 * 16) & 0xffff;
        x[i] = add[i] + (number >= j.least ? x[i] * j.scale : 0);
    }
    ft_store<V>(j.y.p + t * j.y.ld + c, x);
}

void ft_cuda_dropout(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_dropout_args *a = &args->dropout;
    struct dropout_job j = {};
    j.live = ctx->live;
    j.keys = (const int32_t *)a->keys->data;
    j.x = ft_rows_of(a->x);
    j.add = ft_rows_of(a->add);
    j.y = ft_rows_of(a->y);
    j.cols = a->x->cols;
    j.scale = 1.f / (1.f - a->p);
    j.least = ft_dropout_least(a->p);
    j.site = a->site;
    j.seed = a->seed;
    BY_COLUMNS(ctx, a->y, dropout, ft_is_wide(a->x, a->add, a->y), j);
}

struct noise_job {
    const int32_t *live, *keys, *spans;
    struct ft_rows x, y;
    int64_t cols;
    float alpha;
    uint64_t seed;
};

template <int V> FT_KERNEL(THREADS) noise(struct ft_mark mark, struct noise_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float x[V];
    uint32_t words[4];
    if (c >= j.cols)
        return;
    ft_load<V>(x, j.x.p + t * j.x.ld + c);
    if (t < j.live[FT_ROWS]) {
        const int32_t *key = j.keys + 3 * t, *span = j.spans + 2 * t;
        const uint32_t at[4] = {(uint32_t)(c / 8), (uint32_t)key[1], (uint32_t)key[2], 0};
        const float most = j.alpha / sqrtf((float)(span[1] - span[0]) * (float)j.cols);
        ft_philox(at, j.seed + ((uint64_t)(uint32_t)key[0] << 32 | FT_RNG_NOISE), words);
        FT_UNROLL
        for (int i = 0; i < V; i++) {
            const int n = V == 1 ? (int)(c % 8) : i;
            const uint32_t number = words[n / 2] >> (n % 2 * 16) & 0xffff;
            x[i] += most * (((float)number + 0.5f) * 0x1p-15f - 1.f);
        }
    }
    ft_store<V>(j.y.p + t * j.y.ld + c, x);
}

void ft_cuda_noise(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_noise_args *a = &args->noise;
    struct noise_job j = {};
    j.live = ctx->live;
    j.keys = (const int32_t *)a->keys->data;
    j.spans = (const int32_t *)a->spans->data;
    j.x = ft_rows_of(a->x);
    j.y = ft_rows_of(a->y);
    j.cols = a->x->cols;
    j.alpha = a->alpha;
    j.seed = a->seed;
    BY_COLUMNS(ctx, a->y, noise, ft_is_wide(a->x, a->y), j);
}

struct ft_sites {
    uint32_t of[FT_MASKS];
};

/* A thread a byte of a mask. */
FT_KERNEL(THREADS)
dropout_mask(struct ft_mark mark, const int32_t *live, const int32_t *keys, uint8_t *mask,
             int64_t cols, int64_t ld, uint32_t least, struct ft_sites sites, uint64_t seed)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item();
    uint32_t words[4], byte = 0;
    if (c >= cols)
        return;
    const int32_t *key = keys + 3 * t;
    const bool mine = t < live[FT_ROWS];
    const uint32_t at[4] = {(uint32_t)c, (uint32_t)(mine ? key[1] : 0),
                            (uint32_t)(mine ? key[2] : 0), sites.of[ft_block_z()]};
    ft_philox(at, seed + ((uint64_t)(uint32_t)(mine ? key[0] : 0) << 32 | FT_RNG_DROPOUT), words);
    for (int i = 0; i < 8; i++)
        byte |= (uint32_t)((words[i / 2] >> (i % 2 * 16) & 0xffff) >= least) << i;
    mask[t * ld + ft_block_z() * cols + c] = (uint8_t)byte;
}

void ft_cuda_dropout_mask(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_dropout_mask_args *a = &args->dropout_mask;
    const int64_t cols = a->mask->cols / a->n;
    struct ft_grid grid = grid_of(ft_launch_rows(ctx, a->mask), cols);
    struct ft_sites sites;
    memcpy(sites.of, a->sites, sizeof sites.of);
    grid.z = a->n;
    ft_launch(ctx, dropout_mask, grid, threads_for(cols), 0, (const int32_t *)ctx->live,
              (const int32_t *)a->keys->data, (uint8_t *)a->mask->data, cols, ft_tensor_ld(a->mask),
              ft_dropout_least(a->p), sites, a->seed);
}

template <int V>
FT_KERNEL(THREADS)
add(struct ft_mark mark, struct ft_rows a, struct ft_rows b, struct ft_rows y, float beta,
    int64_t cols)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float p[V] = {}, q[V];
    if (c >= cols)
        return;
    if (a.p)
        ft_load<V>(p, a.p + t * a.ld + c);
    ft_load<V>(q, b.p + t * b.ld + c);
    FT_UNROLL
    for (int i = 0; i < V; i++)
        p[i] += beta * q[i];
    ft_store<V>(y.p + t * y.ld + c, p);
}

void ft_cuda_add(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_add_args *a = &args->add;
    BY_COLUMNS(ctx, a->y, add, ft_is_wide(a->a, a->b, a->y), ft_rows_of(a->a), ft_rows_of(a->b),
               ft_rows_of(a->y), a->beta, a->y->cols);
}

template <int V>
FT_KERNEL(THREADS)
store(struct ft_mark mark, const int32_t *live, const int32_t *places, struct ft_rows x,
      struct ft_rows y, int64_t cols)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float v[V];
    if (c >= cols || t >= live[FT_ROWS])
        return;
    ft_load<V>(v, x.p + t * x.ld + c);
    ft_store<V>(y.p + places[t] * y.ld + c, v);
}

void ft_cuda_store(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_store_args *a = &args->store;
    BY_COLUMNS(ctx, a->x, store, ft_is_wide(a->x, a->y), ctx->live,
               (const int32_t *)a->places->data, ft_rows_of(a->x), ft_rows_of(a->y), a->x->cols);
}

template <int V>
FT_KERNEL(THREADS)
gather(struct ft_mark mark, const int32_t *live, const int32_t *picked, struct ft_rows x,
       struct ft_rows y, int64_t cols)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    float v[V] = {};
    if (c >= cols)
        return;
    if (t < live[FT_TRAINED])
        ft_load<V>(v, x.p + picked[t] * x.ld + c);
    ft_store<V>(y.p + t * y.ld + c, v);
}

void ft_cuda_gather(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_gather_args *a = &args->gather;
    BY_COLUMNS(ctx, a->y, gather, ft_is_wide(a->x, a->y), ctx->live,
               (const int32_t *)a->picked->data, ft_rows_of(a->x), ft_rows_of(a->y), a->y->cols);
}

template <int V>
FT_KERNEL(THREADS)
regroup(struct ft_mark mark, struct ft_rows x, struct ft_rows y, int groups, int per_group, int d,
        bool inverse)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V;
    const int in_group = per_group + 2, head = (int)(c / d), g = head / in_group;
    const int h = head % in_group;
    if (g >= groups)
        return;
    const int far = h < per_group ? g * per_group + h : groups * h + g;
    const int64_t near_at = c, far_at = (int64_t)far * d + c % d;
    float v[V];
    ft_load<V>(v, x.p + t * x.ld + (inverse ? far_at : near_at));
    ft_store<V>(y.p + t * y.ld + (inverse ? near_at : far_at), v);
}

void ft_cuda_regroup(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_regroup_args *a = &args->regroup;
    BY_COLUMNS(ctx, a->y, regroup, ft_is_wide(a->x, a->y) && a->head_dim % 8 == 0, ft_rows_of(a->x),
               ft_rows_of(a->y), a->groups, a->per_group, a->head_dim, a->inverse);
}

struct heads_job {
    struct ft_rows from, to, rest, add;
    int heads, in, out, first, n, r; /* in: width of x's heads; out: of y's */
};

template <int V> FT_KERNEL(THREADS) pick_heads(struct ft_mark mark, struct heads_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V, h = c / j.out;
    const int k = (int)(c % j.out);
    if (h >= j.heads)
        return;
    float v[V] = {};
    if (k < j.n)
        ft_load<V>(v, j.from.p + t * j.from.ld + h * j.in + j.first + k);
    else if (k < j.n + j.r)
        ft_load<V>(v, j.rest.p + t * j.rest.ld + k - j.n);
    ft_store<V>(j.to.p + t * j.to.ld + c, v);
}

/* An item is V columns of dx, or behind them of drest. */
template <int V> FT_KERNEL(THREADS) pick_heads_dx(struct ft_mark mark, struct heads_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = my_item() * V, h = c / j.in;
    const bf16 *dy = j.from.p + t * j.from.ld;
    float v[V] = {}, d[V];
    if (h < j.heads) {
        const int k = (int)(c % j.in) - j.first;
        if (j.add.p)
            ft_load<V>(v, j.add.p + t * j.add.ld + c);
        if (k >= 0 && k < j.n) {
            ft_load<V>(d, dy + h * j.out + k);
            FT_UNROLL
            for (int i = 0; i < V; i++)
                v[i] += d[i];
        }
        ft_store<V>(j.to.p + t * j.to.ld + c, v);
        return;
    }
    const int64_t k = c - (int64_t)j.heads * j.in;
    if (k >= j.r)
        return;
    for (int i = 0; i < j.heads; i++) {
        ft_load<V>(d, dy + (int64_t)i * j.out + j.n + k);
        FT_UNROLL
        for (int l = 0; l < V; l++)
            v[l] += d[l];
    }
    ft_store<V>(j.rest.p + t * j.rest.ld + k, v);
}

/* Whether all borders lie between whole vectors. */
static bool are_eights(const struct heads_job *j)
{
    return (j->in | j->out | j->first | j->n | j->r) % 8 == 0;
}

void ft_cuda_pick_heads(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_pick_heads_args *a = &args->pick_heads;
    const struct heads_job j = {ft_rows_of(a->x),
                                ft_rows_of(a->y),
                                ft_rows_of(a->rest),
                                ft_rows_of(NULL),
                                a->heads,
                                (int)(a->x->cols / a->heads),
                                (int)(a->y->cols / a->heads),
                                a->first,
                                a->n,
                                a->rest ? (int)a->rest->cols : 0};
    BY_COLUMNS(ctx, a->y, pick_heads, ft_is_wide(a->x, a->rest, a->y) && are_eights(&j), j);
}

void ft_cuda_pick_heads_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_pick_heads_dx_args *a = &args->pick_heads_dx;
    const struct heads_job j = {ft_rows_of(a->dy),
                                ft_rows_of(a->dx),
                                ft_rows_of(a->drest),
                                ft_rows_of(a->add),
                                a->heads,
                                (int)(a->dx->cols / a->heads),
                                (int)(a->dy->cols / a->heads),
                                a->first,
                                a->n,
                                a->drest ? (int)a->drest->cols : 0};
    const int64_t rows = ft_launch_rows(ctx, a->dx), items = a->dx->cols + j.r;
    if (ft_is_wide(a->dy, a->add, a->dx) && ft_is_wide(a->drest) && are_eights(&j))
        ft_launch(ctx, pick_heads_dx<8>, grid_of(rows, items / 8), threads_for(items / 8), 0, j);
    else
        ft_launch(ctx, pick_heads_dx<1>, grid_of(rows, items), threads_for(items), 0, j);
}

enum { REFRESH_BLOCKS = 64, REFRESH_MOST = 2048 }; /* of a segment; if it is the only one */

FT_KERNEL(THREADS) refresh(struct ft_mark mark, const float *values, const int64_t *table)
{
    ft_begin(mark);
    const int64_t *s = table + ft_block_x() * FT_SEGMENT, cols = s[FT_G_COLS], ld = s[FT_G_LD];
    const float *from = values + s[FT_G_FIRST];
    bf16 *to = (bf16 *)(uintptr_t)s[FT_G_ADDRESS];
    const float scale = (float)*(const double *)(s + FT_G_SCALE);
    const int64_t n = s[FT_G_ROWS] * cols, step = (int64_t)ft_grid_y() * THREADS;
    for (int64_t i = my_item(); i < n; i += step)
        to[n == cols ? i : i / cols * ld + i % cols] = ft_to_bf16(from[i] * scale);
}

void ft_cuda_refresh(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_refresh_args *a = &args->refresh;
    ft_launch(ctx, refresh,
              ft_grid{a->table->rows, a->table->rows == 1 ? REFRESH_MOST : REFRESH_BLOCKS, 1},
              THREADS, 0, (const float *)a->values->data, (const int64_t *)a->table->data);
}
