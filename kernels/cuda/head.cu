/* head_loss: output head and cross-entropy together, a chunk of trained rows at a time. Logits are
 * f32; their gradient is bf16 and is written over them, in the first half of each row. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/product.h"

enum { ROW_THREADS = 512, COPY_THREADS = 128, SUM_THREADS = 256 };

static const int64_t LOGIT_BYTES = 256 << 20; /* room for logits */

struct chunk {
    const int32_t *live, *picked, *targets;
    struct ft_rows h, dh, rows; /* all hidden states, their gradient, and this chunk's */
    float *logits, *losses;     /* (chunk, ld), (T) */
    int64_t first, cols, vocab, ld;
    float softcap;
    bool backward;
};

/* The row of the batch that this block's row of the chunk is, -1 behind the trained ones. */
FT_DEVICE int64_t batch_row(const struct chunk &j)
{
    const int64_t i = j.first + ft_block_x();
    return i < j.live[FT_TRAINED] ? j.picked[i] : -1;
}

template <int V> FT_KERNEL(COPY_THREADS) gather(struct ft_mark mark, struct chunk j)
{
    ft_begin(mark);
    const int64_t row = batch_row(j), c = ((int64_t)ft_block_y() * COPY_THREADS + ft_thread()) * V;
    float v[V] = {};
    if (c >= j.cols)
        return;
    if (row >= 0)
        ft_load<V>(v, j.h.p + row * j.h.ld + c);
    ft_store<V>(j.rows.p + ft_block_x() * j.rows.ld + c, v);
}

template <int V> FT_KERNEL(COPY_THREADS) scatter(struct ft_mark mark, struct chunk j)
{
    ft_begin(mark);
    const int64_t row = batch_row(j), c = ((int64_t)ft_block_y() * COPY_THREADS + ft_thread()) * V;
    float v[V];
    if (c >= j.cols || row < 0)
        return;
    ft_load<V>(v, j.rows.p + ft_block_x() * j.rows.ld + c);
    ft_store<V>(j.dh.p + row * j.dh.ld + c, v);
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
    size_t logits, hidden, losses, total;
    int64_t ld_logits, ld_hidden;
};

static struct layout layout_of(const struct ft_head_loss_args *h)
{
    struct layout l = {};
    l.rows =
        ft_head_chunk_rows(h->h->rows, h->w->rows, h->logit_bytes ? h->logit_bytes : LOGIT_BYTES);
    l.ld_logits = aligned(h->w->rows, 4);
    l.ld_hidden = aligned(h->h->cols, 8);
    l.logits = FT_PRODUCT_SCRATCH;
    l.hidden = l.logits + (size_t)aligned(l.rows * l.ld_logits * 4, 256);
    l.losses = l.hidden + (size_t)aligned(l.rows * l.ld_hidden * 2, 256);
    l.total = l.losses + (size_t)h->h->rows * sizeof(float);
    return l;
}

size_t ft_cuda_head_scratch(const union ft_op_args *args)
{
    return layout_of(&args->head_loss).total;
}

static void products(const struct ft_kernel_ctx *ctx, const struct ft_head_loss_args *a,
                     const struct chunk &j, int64_t n, bool down)
{
    struct ft_product p = {};
    p.m = n;
    p.n = down ? j.cols : j.vocab;
    p.k = down ? j.vocab : j.cols;
    p.a = down ? (void *)j.logits : (void *)j.rows.p;
    p.lda = down ? 2 * j.ld : j.rows.ld; /* bf16 gradients in rows of f32 logits */
    p.b = a->w->data;
    p.ldb = ft_tensor_ld(a->w);
    p.b_trans = !down;
    p.alpha = a->scale;
    p.d = down ? (void *)j.rows.p : (void *)j.logits;
    p.ldd = down ? j.rows.ld : j.ld;
    p.out = down ? FT_BF16 : FT_F32;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

/* dw += logits' gradient^T h, of a chunk of n rows. */
static void weight_product(const struct ft_kernel_ctx *ctx, const struct ft_head_loss_args *a,
                           const struct chunk &j, int64_t n)
{
    struct ft_product p = {};
    p.m = j.vocab;
    p.n = j.cols;
    p.k = n;
    p.a = j.logits;
    p.lda = 2 * j.ld;
    p.a_trans = true;
    p.b = j.rows.p;
    p.ldb = j.rows.ld;
    p.alpha = a->scale;
    p.c = p.d = a->dw->data;
    p.ldc = p.ldd = ft_tensor_ld(a->dw);
    p.beta = 1;
    p.out = FT_F32;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

void ft_cuda_head_loss(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_head_loss_args *a = &args->head_loss;
    const struct layout l = layout_of(a);
    char *scratch = (char *)ctx->scratch;
    struct chunk j = {};
    j.live = ctx->live;
    j.picked = (const int32_t *)a->picked->data;
    j.targets = (const int32_t *)a->targets->data;
    j.h = ft_rows_of(a->h);
    j.dh = ft_rows_of(a->dh);
    j.rows.p = (bf16 *)(scratch + l.hidden);
    j.rows.ld = l.ld_hidden;
    j.logits = (float *)(scratch + l.logits);
    j.losses = (float *)(scratch + l.losses);
    j.cols = a->h->cols;
    j.vocab = a->w->rows;
    j.ld = l.ld_logits;
    j.softcap = a->softcap;
    j.backward = a->dh != NULL;
    const bool wide = ft_is_wide(a->h, a->dh);
    const int64_t trained =
        ctx->counts[FT_TRAINED] < a->h->rows ? ctx->counts[FT_TRAINED] : a->h->rows;
    const int items = (int)((j.cols / (wide ? 8 : 1) + COPY_THREADS - 1) / COPY_THREADS);
    if (a->dh)
        ft_cuda_zero(ctx, a->dh->data,
                     (size_t)ft_launch_rows(ctx, a->dh) * (size_t)ft_tensor_ld(a->dh) * 2);
    for (; j.first < trained; j.first += l.rows) {
        const int64_t n = trained - j.first < l.rows ? trained - j.first : l.rows;
        ft_launch(ctx, wide ? gather<8> : gather<1>, ft_grid{n, items, 1}, COPY_THREADS, 0, j);
        products(ctx, a, j, n, false);
        ft_launch(ctx, softmax_loss, ft_grid{n, 1, 1}, ROW_THREADS, 64 * sizeof(float), j);
        if (!a->dh)
            continue;
        if (a->dw)
            weight_product(ctx, a, j, n);
        products(ctx, a, j, n, true);
        ft_launch(ctx, wide ? scatter<8> : scatter<1>, ft_grid{n, items, 1}, COPY_THREADS, 0, j);
    }
    double *s = (double *)a->scalars->data;
    ft_launch(ctx, sum_losses, ft_grid{1, 1, 1}, SUM_THREADS, SUM_THREADS * sizeof(double),
              (const int32_t *)ctx->live, (const float *)j.losses,
              s + (a->dh ? FT_S_LOSS_SUM : FT_S_EVAL_SUM),
              s + (a->dh ? FT_S_TRAINED : FT_S_EVAL_COUNT));
}
