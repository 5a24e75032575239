/* head_loss: output head and cross-entropy together, a chunk of trained rows at a time. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/functions.h"

struct job {
    const struct ft_head_loss_args *a;
    const int32_t *rows; /* the trained rows, ascending */
    int64_t r0, r1;      /* this chunk of them */
    float *h, *u;        /* (chunk, C), (chunk, R) */
    float *logits;       /* (chunk, V) */
    double *loss;        /* (chunk) */
};

static void gather(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_tensor *h = j->a->h, *u = j->a->u;
    const int64_t row = j->rows[j->r0 + i];
    memcpy(j->h + i * h->cols, row_of(h, row), (size_t)h->cols * sizeof(float));
    if (u)
        memcpy(j->u + i * u->cols, row_of(u, row), (size_t)u->cols * sizeof(float));
}

static void scatter(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_tensor *dh = j->a->dh, *du = j->a->du;
    const int64_t row = j->rows[j->r0 + i];
    memcpy(row_of(dh, row), j->h + i * dh->cols, (size_t)dh->cols * sizeof(float));
    if (du)
        memcpy(row_of(du, row), j->u + i * du->cols, (size_t)du->cols * sizeof(float));
}

static void cap_logits(float *x, int64_t n, float cap)
{
    for (int64_t c = 0; c < n; c += VW)
        put_lanes(x, vf_tanh(lanes(x, c, n) / cap) * cap, c, n);
}

/* Logits overwritten by their gradient before the cap: (softmax - onehot) (1 - (x/cap)^2). */
static void capped_gradient(float *x, int64_t n, float cap, float max, float inv, int32_t target)
{
    const float at_target = x[target] / cap;
    const float p = __builtin_expf(x[target] - max) * inv;
    for (int64_t c = 0; c < n; c += VW) {
        const vf v = lanes(x, c, n), r = v / cap;
        put_lanes(x, vf_exp(v - max) * inv * (1.f - r * r), c, n);
    }
    x[target] = (p - 1.f) * (1.f - at_target * at_target);
}

static float largest(const float *x, int64_t n)
{
    const int64_t whole = n / VW * VW;
    vf m = vf_set(-__builtin_inff());
    for (int64_t c = 0; c < whole; c += VW)
        m = vf_max(m, vf_load(x + c));
    float max = vf_max_lane(m);
    for (int64_t c = whole; c < n; c++)
        max = larger(max, x[c]);
    return max;
}

/* One row: the loss, and logits overwritten by their gradient softmax - onehot. */
static void softmax_loss(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const int64_t n = j->a->w->rows;
    float *x = j->logits + i * n;
    const int32_t target = ((const int32_t *)j->a->targets->data)[j->rows[j->r0 + i]];
    const float cap = j->a->softcap;
    if (cap > 0)
        cap_logits(x, n, cap);
    const float at_target = x[target], max = largest(x, n);
    struct sums sum = {0};
    double total = 0;
    /* NaN or infinite logits must not hide behind exp's clamp: they poison the loss */
    const float poison = max - max;
    for (int64_t c = 0; c < n; c += VW) {
        vf e = vf_exp(lanes(x, c, n) - max);
        if (c + VW > n)
            e = (vf)((vi)e & ~vf_behind(n - c));
        add_next(&sum, e);
        if (cap <= 0)
            put_lanes(x, e, c, n);
        if ((c + VW) % 4096 == 0) { /* long vocabularies: sum the sums in double */
            total += (double)sums_total(sum);
            sum = (struct sums){0};
        }
    }
    total += (double)sums_total(sum);
    j->loss[i] = __builtin_log(total) + (double)max - (double)at_target + (double)poison;
    if (!j->a->dh)
        return;
    const float inv = (float)(1.0 / total);
    if (cap > 0) {
        capped_gradient(x, n, cap, max, inv, target);
        return;
    }
    for (int64_t c = 0; c < n; c += VW)
        put_lanes(x, lanes(x, c, n) * inv, c, n);
    x[target] -= 1.f;
}

static void logits(const struct ft_kernel_ctx *ctx, struct job *j)
{
    const struct ft_head_loss_args *a = j->a;
    const int64_t low = a->u ? a->u->cols : 0;
    struct ft_gemm g = {
        .m = j->r1 - j->r0,
        .n = a->w->rows,
        .k = {a->h->cols, low},
        .a = {j->h, j->u},
        .a_rs = {a->h->cols, low},
        .a_cs = {1, 1},
        .b = {ft_operand_of(a->w, true, a->scale)},
        .c = j->logits,
        .ldc = a->w->rows,
    };
    if (low)
        g.b[1] = ft_operand_of(a->b, true, a->beta);
    K(gemm)(ctx->pool, ctx->scratch, &g);
}

/* x = alpha dlogits w, over what x was. */
static void down(const struct ft_kernel_ctx *ctx, const struct job *j, const struct ft_tensor *w,
                 float *x, float alpha)
{
    K(gemm)
    (ctx->pool, ctx->scratch,
     &(struct ft_gemm){
         .m = j->r1 - j->r0,
         .n = w->cols,
         .k = {w->rows},
         .a = {j->logits},
         .a_rs = {w->rows},
         .a_cs = {1},
         .b = {ft_operand_of(w, false, alpha)},
         .c = x,
         .ldc = w->cols,
     });
}

/* dw += alpha dlogits^T x */
static void weight(const struct ft_kernel_ctx *ctx, const struct job *j, const float *x,
                   struct ft_tensor *dw, float alpha)
{
    K(gemm)
    (ctx->pool, ctx->scratch,
     &(struct ft_gemm){
         .m = dw->rows,
         .n = dw->cols,
         .k = {j->r1 - j->r0},
         .a = {j->logits},
         .a_rs = {1},
         .a_cs = {dw->rows},
         .b = {{.data = x, .dtype = FT_F32, .ld = dw->cols, .alpha = alpha}},
         .add = dw->data,
         .ldadd = ft_tensor_ld(dw),
         .c = dw->data,
         .ldc = ft_tensor_ld(dw),
     });
}

static void chunk(const struct ft_kernel_ctx *ctx, struct job *j)
{
    const struct ft_head_loss_args *a = j->a;
    const int64_t n = j->r1 - j->r0;
    ft_pool_run(ctx->pool, n, gather, j);
    logits(ctx, j);
    ft_pool_run(ctx->pool, n, softmax_loss, j);
    if (a->dw) /* before the hidden states are written over */
        weight(ctx, j, j->h, a->dw, a->scale);
    if (a->db)
        weight(ctx, j, j->u, a->db, a->beta);
    if (a->du)
        down(ctx, j, a->b, j->u, a->beta);
    if (a->dh) {
        down(ctx, j, a->w, j->h, a->scale);
        ft_pool_run(ctx->pool, n, scatter, j);
    }
}

static void clear_rows(const struct ft_tensor *t, int64_t rows)
{
    for (int64_t row = 0; t && row < rows; row++)
        memset(row_of(t, row), 0, (size_t)t->cols * sizeof(float));
}

void K(head_loss)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_head_loss_args *a = &args->head_loss;
    const int64_t live = ft_live_rows(ctx, a->h), step = ft_cpu_head_rows(a);
    const int64_t n = ctx->counts[FT_TRAINED];
    double *scalars = a->scalars->data, loss = 0;
    struct job j = {.a = a, .h = (float *)((char *)ctx->scratch + FT_GEMM_SCRATCH)};
    j.u = j.h + step * a->h->cols;
    j.logits = j.u + step * (a->u ? a->u->cols : 0);
    size_t used = (size_t)((char *)(j.logits + step * a->w->rows) - (char *)ctx->scratch);
    j.loss = (double *)((char *)ctx->scratch + (used + 63) / 64 * 64);
    j.rows = a->picked->data;
    clear_rows(a->dh, live);
    clear_rows(a->du, live);
    for (j.r0 = 0; j.r0 < n; j.r0 = j.r1) {
        j.r1 = j.r0 + step < n ? j.r0 + step : n;
        chunk(ctx, &j);
        for (int64_t i = 0; i < j.r1 - j.r0; i++)
            loss += j.loss[i];
    }
    scalars[a->dh ? FT_S_LOSS_SUM : FT_S_EVAL_SUM] += loss;
    scalars[a->dh ? FT_S_TRAINED : FT_S_EVAL_COUNT] += (double)n;
}
