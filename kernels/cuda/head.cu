/* head_loss: output head and cross-entropy together, a chunk of trained rows at a time. Logits are
 * f32; their gradient is bf16 and is written over them, in the first half of each row. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/product.h"

enum { ROW_THREADS = 512, COPY_THREADS = 128, SUM_THREADS = 256 };

static const int64_t LOGIT_BYTES = 256 << 20; /* room for logits */

struct chunk {
    const int32_t *live, *picked, *targets;
    float *logits, *losses; /* (chunk, ld), (T) */
    int64_t first, vocab, ld;
    float softcap;
    bool backward;
};

/* What the logits are made of: hidden states and the head, or a low-rank pair. */
struct factor {
    struct ft_rows x, dx, rows; /* all of it, its gradient, and this chunk's */
    int64_t cols;
    const struct ft_tensor *in, *w, *dx_out, *dw;
    float alpha;
};

/* The row of the batch that this block's row of the chunk is, -1 behind the trained ones. */
FT_DEVICE int64_t batch_row(const struct chunk &j)
{
    const int64_t i = j.first + ft_block_x();
    return i < j.live[FT_TRAINED] ? j.picked[i] : -1;
}

template <int V>
FT_KERNEL(COPY_THREADS)
gather(struct ft_mark mark, struct chunk j, struct factor f)
{
    ft_begin(mark);
    const int64_t row = batch_row(j), c = ((int64_t)ft_block_y() * COPY_THREADS + ft_thread()) * V;
    float v[V] = {};
    if (c >= f.cols)
        return;
    if (row >= 0)
        ft_load<V>(v, f.x.p + row * f.x.ld + c);
    ft_store<V>(f.rows.p + ft_block_x() * f.rows.ld + c, v);
}

template <int V>
FT_KERNEL(COPY_THREADS)
scatter(struct ft_mark mark, struct chunk j, struct factor f)
{
    ft_begin(mark);
    const int64_t row = batch_row(j), c = ((int64_t)ft_block_y() * COPY_THREADS + ft_thread()) * V;
    float v[V];
    if (c >= f.cols || row < 0)
        return;
    ft_load<V>(v, f.rows.p + ft_block_x() * f.rows.ld + c);
    ft_store<V>(f.dx.p + row * f.dx.ld + c, v);
}

struct alignas(16) float4_ {
    float v[4];
};

struct alignas(8) pair {
    uint32_t low, high;
};

/* Four logits from column c; -inf behind the last one. */
FT_DEVICE float4_ four(const float *x, int64_t c, int64_t n)
{
    float4_ f = {{-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
    if (c + 4 <= n)
        return *(const float4_ *)(x + c);
    for (int i = 0; i < 4 && c + i < n; i++)
        f.v[i] = x[c + i];
    return f;
}

/* The largest logit of the row and the sum of exp(x - largest), to every thread. */
FT_DEVICE void row_sums(const float *x, int64_t n, float *shared, float *max_out, float *sum_out)
{
    float max = -INFINITY, sum = 0;
    for (int64_t c = (int64_t)ft_thread() * 4; c < n; c += ROW_THREADS * 4) {
        const float4_ f = four(x, c, n);
        const float most = fmaxf(fmaxf(f.v[0], f.v[1]), fmaxf(f.v[2], f.v[3]));
        if (most > max) {
            sum *= ft_exp(max - most);
            max = most;
        }
        /* max is -inf only while every logit was: those add exp(NaN), as they should */
        for (int i = 0; i < 4 && c + i < n; i++)
            sum += ft_exp(f.v[i] - max);
    }
    const float all = ft_warp_max(max);
    sum = ft_warp_sum(max == -INFINITY && sum == 0 ? 0 : sum * ft_exp(max - all));
    if (ft_lane() == 0) {
        shared[ft_warp()] = all;
        shared[32 + ft_warp()] = sum;
    }
    ft_sync_block();
    max = -INFINITY;
    for (int w = 0; w < ROW_THREADS / 32; w++)
        max = fmaxf(max, shared[w]);
    sum = 0;
    for (int w = 0; w < ROW_THREADS / 32; w++)
        sum += shared[32 + w] == 0 ? 0 : shared[32 + w] * ft_exp(shared[w] - max);
    *max_out = max;
    *sum_out = sum;
}

FT_KERNEL(ROW_THREADS) softmax_loss(struct ft_mark mark, struct chunk j)
{
    ft_begin(mark);
    FT_SHARED(float, shared);
    const int64_t row = batch_row(j), n = j.vocab;
    float *x = j.logits + ft_block_x() * j.ld, max, sum;
    bf16 *d = (bf16 *)x;
    if (row < 0) { /* padding of the chunk: no gradient */
        for (int64_t c = ft_thread(); c < n && j.backward; c += ROW_THREADS)
            d[c] = ft_to_bf16(0);
        return;
    }
    if (j.softcap > 0) {
        for (int64_t c = ft_thread(); c < n; c += ROW_THREADS)
            x[c] = tanhf(x[c] / j.softcap) * j.softcap;
        ft_sync_block();
    }
    row_sums(x, n, shared, &max, &sum);
    const int64_t target = j.targets[row];
    if (ft_thread() == 0)
        j.losses[j.first + ft_block_x()] = logf(sum) + max - x[target];
    if (!j.backward)
        return;
    const float inverse = 1.f / sum;
    const int64_t rounds = (n + ROW_THREADS * 4 - 1) / (ROW_THREADS * 4);
    for (int64_t r = 0; r < rounds; r++) {
        const int64_t c = (r * ROW_THREADS + ft_thread()) * 4;
        float4_ f = four(x, c, n);
        for (int i = 0; i < 4; i++) {
            const float r = j.softcap > 0 && c + i < n ? f.v[i] / j.softcap : 0;
            f.v[i] = ft_exp(f.v[i] - max) * inverse - (c + i == target ? 1.f : 0.f);
            f.v[i] *= 1.f - r * r;
        }
        ft_sync_block(); /* what this round writes over was read in this round or before */
        if (c + 4 <= n)
            *(pair *)(d + c) = {ft_pack(f.v[0], f.v[1]), ft_pack(f.v[2], f.v[3])};
        else
            for (int i = 0; i < 4 && c + i < n; i++)
                d[c + i] = ft_to_bf16(f.v[i]);
    }
}

/* The losses of all trained rows, in one fixed order, into the two scalars. */
FT_KERNEL(SUM_THREADS)
sum_losses(struct ft_mark mark, const int32_t *live, const float *losses, double *sum,
           double *count)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    double mine = 0;
    for (int64_t i = ft_thread(); i < live[FT_TRAINED]; i += SUM_THREADS)
        mine += (double)losses[i];
    shared[ft_thread()] = mine;
    ft_sync_block();
    if (ft_thread() != 0)
        return;
    double all = 0;
    for (int i = 0; i < SUM_THREADS; i++)
        all += shared[i];
    *sum += all;
    *count += (double)live[FT_TRAINED];
}

static int64_t aligned(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Where things lie in scratch, in bytes from its beginning. */
struct layout {
    int64_t rows; /* of a chunk */
    size_t logits, hidden, low, losses, total;
    int64_t ld_logits, ld_hidden, ld_low;
};

static struct layout layout_of(const struct ft_head_loss_args *h)
{
    struct layout l = {};
    l.rows =
        ft_head_chunk_rows(h->h->rows, h->w->rows, h->logit_bytes ? h->logit_bytes : LOGIT_BYTES);
    l.ld_logits = aligned(h->w->rows, 4);
    l.ld_hidden = aligned(h->h->cols, 8);
    l.ld_low = h->u ? aligned(h->u->cols, 8) : 0;
    l.logits = FT_PRODUCT_SCRATCH;
    l.hidden = l.logits + (size_t)aligned(l.rows * l.ld_logits * 4, 256);
    l.low = l.hidden + (size_t)aligned(l.rows * l.ld_hidden * 2, 256);
    l.losses = l.low + (size_t)aligned(l.rows * l.ld_low * 2, 256);
    l.total = l.losses + (size_t)h->h->rows * sizeof(float);
    return l;
}

size_t ft_cuda_head_scratch(const union ft_op_args *args)
{
    return layout_of(&args->head_loss).total;
}

static struct factor factor_of(const struct ft_tensor *x, const struct ft_tensor *w,
                               const struct ft_tensor *dx, const struct ft_tensor *dw, float alpha,
                               char *rows, int64_t ld)
{
    struct factor f = {};
    f.x = ft_rows_of(x);
    f.dx = ft_rows_of(dx);
    f.rows.p = (bf16 *)rows;
    f.rows.ld = ld;
    f.cols = x->cols;
    f.in = x;
    f.w = w;
    f.dx_out = dx;
    f.dw = dw;
    f.alpha = alpha;
    return f;
}

/* Launches the kernel that moves rows between the batch and the chunk. */
static void move_rows(const struct ft_kernel_ctx *ctx, const struct chunk &j,
                      const struct factor &f, int64_t n, bool back)
{
    const bool wide = ft_is_wide(f.in, f.dx_out);
    const int items = (int)((f.cols / (wide ? 8 : 1) + COPY_THREADS - 1) / COPY_THREADS);
    auto kernel = back ? wide ? scatter<8> : scatter<1> : wide ? gather<8> : gather<1>;
    ft_launch(ctx, kernel, ft_grid{n, items, 1}, COPY_THREADS, 0, j, f);
}

/* The factor's part of the logits of n rows, on top of what is there or not. */
static void logits_product(const struct ft_kernel_ctx *ctx, const struct chunk &j,
                           const struct factor &f, int64_t n, bool on_top)
{
    struct ft_product p = {};
    p.m = n;
    p.n = j.vocab;
    p.k = f.cols;
    p.a = f.rows.p;
    p.lda = f.rows.ld;
    p.b = f.w->data;
    p.ldb = ft_tensor_ld(f.w);
    p.b_trans = true;
    p.alpha = f.alpha;
    p.c = on_top ? j.logits : NULL;
    p.beta = on_top ? 1.f : 0.f;
    p.d = j.logits;
    p.ldc = p.ldd = j.ld;
    p.out = FT_F32;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

/* The gradient of the factor's rows, over the rows themselves. The logits' gradient lies as bf16 in
 * rows of f32. */
static void rows_product(const struct ft_kernel_ctx *ctx, const struct chunk &j,
                         const struct factor &f, int64_t n)
{
    struct ft_product p = {};
    p.m = n;
    p.n = f.cols;
    p.k = j.vocab;
    p.a = j.logits;
    p.lda = 2 * j.ld;
    p.b = f.w->data;
    p.ldb = ft_tensor_ld(f.w);
    p.alpha = f.alpha;
    p.d = f.rows.p;
    p.ldd = f.rows.ld;
    p.out = FT_BF16;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

/* dw += alpha dlogits^T x, of a chunk of n rows. */
static void weight_product(const struct ft_kernel_ctx *ctx, const struct chunk &j,
                           const struct factor &f, int64_t n)
{
    struct ft_product p = {};
    p.m = j.vocab;
    p.n = f.cols;
    p.k = n;
    p.a = j.logits;
    p.lda = 2 * j.ld;
    p.a_trans = true;
    p.b = f.rows.p;
    p.ldb = f.rows.ld;
    p.alpha = f.alpha;
    p.c = p.d = f.dw->data;
    p.ldc = p.ldd = ft_tensor_ld(f.dw);
    p.beta = 1;
    p.out = FT_F32;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

/* From the logits' gradient: those of the weight and of the rows. */
static void backward_products(const struct ft_kernel_ctx *ctx, const struct chunk &j,
                              const struct factor &f, int64_t n)
{
    if (f.dw)
        weight_product(ctx, j, f, n);
    rows_product(ctx, j, f, n);
    move_rows(ctx, j, f, n, true);
}

static void clear_rows(const struct ft_kernel_ctx *ctx, const struct ft_tensor *t)
{
    if (t)
        ft_cuda_zero(ctx, t->data, (size_t)ft_launch_rows(ctx, t) * (size_t)ft_tensor_ld(t) * 2);
}

void ft_cuda_head_loss(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_head_loss_args *a = &args->head_loss;
    const struct layout l = layout_of(a);
    char *scratch = (char *)ctx->scratch;
    struct chunk j = {};
    struct factor f[2];
    const int factors = a->u ? 2 : 1;
    j.live = ctx->live;
    j.picked = (const int32_t *)a->picked->data;
    j.targets = (const int32_t *)a->targets->data;
    j.logits = (float *)(scratch + l.logits);
    j.losses = (float *)(scratch + l.losses);
    j.vocab = a->w->rows;
    j.ld = l.ld_logits;
    j.softcap = a->softcap;
    j.backward = a->dh != NULL;
    f[0] = factor_of(a->h, a->w, a->dh, a->dw, a->scale, scratch + l.hidden, l.ld_hidden);
    if (a->u)
        f[1] = factor_of(a->u, a->b, a->du, a->db, a->beta, scratch + l.low, l.ld_low);
    const int64_t trained =
        ctx->counts[FT_TRAINED] < a->h->rows ? ctx->counts[FT_TRAINED] : a->h->rows;
    clear_rows(ctx, a->dh);
    clear_rows(ctx, a->du);
    for (; j.first < trained; j.first += l.rows) {
        const int64_t n = trained - j.first < l.rows ? trained - j.first : l.rows;
        for (int k = 0; k < factors; k++) {
            move_rows(ctx, j, f[k], n, false);
            logits_product(ctx, j, f[k], n, k > 0);
        }
        ft_launch(ctx, softmax_loss, ft_grid{n, 1, 1}, ROW_THREADS, 64 * sizeof(float), j);
        for (int k = 0; k < factors && a->dh; k++)
            backward_products(ctx, j, f[k], n);
    }
    double *s = (double *)a->scalars->data;
    ft_launch(ctx, sum_losses, ft_grid{1, 1, 1}, SUM_THREADS, SUM_THREADS * sizeof(double),
              (const int32_t *)ctx->live, (const float *)j.losses,
              s + (a->dh ? FT_S_LOSS_SUM : FT_S_EVAL_SUM),
              s + (a->dh ? FT_S_TRAINED : FT_S_EVAL_COUNT));
}
