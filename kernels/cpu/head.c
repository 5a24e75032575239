/* head_loss: output head and cross-entropy together, a chunk of trained rows at a time. */
#include "kernels/cpu/cpu.h"

struct job {
    const struct ft_head_loss_args *a;
    const int32_t *rows; /* the trained rows, ascending */
    int64_t r0, r1;      /* this chunk of them */
    float *h, *logits;   /* (chunk, C), (chunk, V) */
    double *loss;        /* (chunk) */
};

static void gather(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    int64_t cols = j->a->h->cols;
    memcpy(j->h + i * cols,
           (const float *)j->a->h->data + j->rows[j->r0 + i] * ft_tensor_ld(j->a->h),
           (size_t)cols * sizeof(float));
}

static void scatter(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    int64_t cols = j->a->h->cols;
    memcpy((float *)j->a->dh->data + j->rows[j->r0 + i] * ft_tensor_ld(j->a->dh), j->h + i * cols,
           (size_t)cols * sizeof(float));
}

static void cap_logits(float *x, int64_t n, float cap)
{
    for (int64_t c = 0; c < n; c += 16)
        put_lanes(x, v16_tanh(lanes(x, c, n) / cap) * cap, c, n);
}

/* Logits overwritten by their gradient before the cap: (softmax - onehot) (1 - (x/cap)^2). */
static void capped_gradient(float *x, int64_t n, float cap, float max, float inv, int32_t target)
{
    const float at_target = x[target] / cap;
    const float p = __builtin_expf(x[target] - max) * inv;
    for (int64_t c = 0; c < n; c += 16) {
        const v16 v = lanes(x, c, n), r = v / cap;
        put_lanes(x, v16_exp(v - max) * inv * (1.f - r * r), c, n);
    }
    x[target] = (p - 1.f) * (1.f - at_target * at_target);
}

/* One row: the loss, and logits overwritten by their gradient softmax - onehot. */
static void softmax_loss(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const int64_t n = j->a->w->rows, whole = n / 16 * 16;
    float *x = j->logits + i * n;
    const int32_t target = ((const int32_t *)j->a->targets->data)[j->rows[j->r0 + i]];
    const float cap = j->a->softcap;
    v16 m = v16_set(-__builtin_inff()), sum = {0};
    if (cap > 0)
        cap_logits(x, n, cap);
    for (int64_t c = 0; c < whole; c += 16)
        m = v16_max(m, v16_load(x + c));
    float max = v16_max_lane(m);
    for (int64_t c = whole; c < n; c++)
        max = x[c] > max ? x[c] : max;
    const float at_target = x[target];
    double total = 0;
    /* NaN or infinite logits must not hide behind exp's clamp: they poison the loss */
    const float poison = max - max;
    for (int64_t c = 0; c < whole; c += 16) {
        v16 e = v16_exp(v16_load(x + c) - max);
        sum += e;
        if (cap <= 0)
            v16_store(x + c, e);
        if (c % 4096 == 4080) { /* long vocabularies: sum the sums in double */
            total += (double)v16_sum(sum);
            sum = v16_set(0);
        }
    }
    if (whole < n) {
        v16 e = v16_exp(v16_load_part(x + whole, n - whole) - max);
        if (cap <= 0)
            v16_store_part(x + whole, e, n - whole);
        for (int64_t c = 0; c < n - whole; c++)
            total += (double)e[c];
    }
    total += (double)v16_sum(sum);
    j->loss[i] = __builtin_log(total) + (double)max - (double)at_target + (double)poison;
    if (!j->a->dh)
        return;
    const float inv = (float)(1.0 / total);
    if (cap > 0) {
        capped_gradient(x, n, cap, max, inv, target);
        return;
    }
    for (int64_t c = 0; c < whole; c += 16)
        v16_store(x + c, v16_load(x + c) * inv);
    for (int64_t c = whole; c < n; c++)
        x[c] *= inv;
    x[target] -= 1.f;
}

static void chunk(const struct ft_kernel_ctx *ctx, struct job *j)
{
    const struct ft_head_loss_args *a = j->a;
    const int64_t n = j->r1 - j->r0, cols = a->h->cols, vocab = a->w->rows;
    struct ft_gemm up = {
        .m = n,
        .n = vocab,
        .k = {cols},
        .a = {j->h},
        .a_rs = {cols},
        .a_cs = {1},
        .b = {{a->w->data, a->w->dtype, ft_tensor_ld(a->w), true, a->scale}},
        .c = j->logits,
        .ldc = vocab,
    };
    struct ft_gemm down = {
        .m = n,
        .n = cols,
        .k = {vocab},
        .a = {j->logits},
        .a_rs = {vocab},
        .a_cs = {1},
        .b = {{a->w->data, a->w->dtype, ft_tensor_ld(a->w), false, a->scale}},
        .c = j->h,
        .ldc = cols,
    };
    ft_pool_run(ctx->pool, n, gather, j);
    K(gemm)(ctx->pool, ctx->scratch, &up);
    struct ft_gemm weight = {
        .m = vocab,
        .n = cols,
        .k = {n},
        .a = {j->logits},
        .a_rs = {1},
        .a_cs = {vocab},
        .b = {{j->h, FT_F32, cols, false, a->scale}},
    };
    ft_pool_run(ctx->pool, n, softmax_loss, j);
    if (a->dw) { /* before the hidden states are written over */
        weight.add = weight.c = a->dw->data;
        weight.ldadd = weight.ldc = ft_tensor_ld(a->dw);
        K(gemm)(ctx->pool, ctx->scratch, &weight);
    }
    if (a->dh) {
        K(gemm)(ctx->pool, ctx->scratch, &down);
        ft_pool_run(ctx->pool, n, scatter, j);
    }
}

void K(head_loss)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_head_loss_args *a = &args->head_loss;
    const int64_t live = ft_live_rows(ctx, a->h), step = ft_cpu_head_rows(a);
    const int64_t n = ctx->counts[FT_TRAINED];
    double *scalars = a->scalars->data, loss = 0;
    struct job j = {.a = a, .h = (float *)((char *)ctx->scratch + FT_GEMM_SCRATCH)};
    j.logits = j.h + step * a->h->cols;
    size_t used = (size_t)((char *)(j.logits + step * a->w->rows) - (char *)ctx->scratch);
    j.loss = (double *)((char *)ctx->scratch + (used + 63) / 64 * 64);
    j.rows = a->picked->data;
    for (int64_t t = 0; a->dh && t < live; t++)
        memset((float *)a->dh->data + t * ft_tensor_ld(a->dh), 0,
               (size_t)a->dh->cols * sizeof(float));
    for (j.r0 = 0; j.r0 < n; j.r0 = j.r1) {
        j.r1 = j.r0 + step < n ? j.r0 + step : n;
        chunk(ctx, &j);
        for (int64_t i = 0; i < j.r1 - j.r0; i++)
            loss += j.loss[i];
    }
    scalars[a->dh ? FT_S_LOSS_SUM : FT_S_EVAL_SUM] += loss;
    scalars[a->dh ? FT_S_TRAINED : FT_S_EVAL_COUNT] += (double)n;
}
