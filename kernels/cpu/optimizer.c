/* grad_norm, adamw, sgd, lion: over the flat block of all trained parameters. */
#include "kernels/cpu/cpu.h"
#include "kernels/window.h"

enum { PIECE = 16384 };

struct job {
    const union ft_op_args *args;
    int64_t n;
    double *sums; /* grad_norm: one a piece */
    float factor, lr, step_size, root_bc2;
};

static void square_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const float *g = j->args->grad_norm.grad->data;
    int64_t end = (piece + 1) * PIECE < j->n ? (piece + 1) * PIECE : j->n;
    double lane[8] = {0}, sum = 0;
    for (int64_t i = piece * PIECE; i < end; i++)
        lane[i & 7] += (double)g[i] * (double)g[i];
    for (int l = 0; l < 8; l++)
        sum += lane[l];
    j->sums[piece] = sum;
}

void K(grad_norm)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_grad_norm_args *a = &args->grad_norm;
    struct job j = {.args = args, .n = a->grad->cols, .sums = ctx->scratch};
    int64_t pieces = (j.n + PIECE - 1) / PIECE;
    double total = 0, *s = a->scalars->data;
    ft_pool_run(ctx->pool, pieces, square_piece, &j);
    for (int64_t i = 0; i < pieces; i++)
        total += j.sums[i];
    ft_end_window(s, total, (double)a->max_norm);
}

static void adamw_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_adamw_args *a = &j->args->adamw;
    float *g = a->grad->data, *p = a->p->data, *m = a->m->data, *v = a->v->data;
    const float keep = 1.f - j->lr * a->weight_decay, b1 = 1.f - a->beta1, b2 = 1.f - a->beta2;
    int64_t end = (piece + 1) * PIECE < j->n ? (piece + 1) * PIECE : j->n;
    for (int64_t i = piece * PIECE; i < end; i++) {
        float gi = g[i] * j->factor;
        float mi = m[i] + (gi - m[i]) * b1, vi = v[i] * a->beta2 + gi * gi * b2;
        float denom = __builtin_sqrtf(vi) / j->root_bc2 + a->eps;
        p[i] = p[i] * keep - j->step_size * (mi / denom);
        m[i] = mi;
        v[i] = vi;
        g[i] = 0;
    }
}

/* True if the update is to be made; otherwise the gradient is dropped and nothing else changes. */
static bool begin(struct job *j, const struct ft_tensor *scalars, const struct ft_tensor *grad,
                  float rate)
{
    const double *s = scalars->data;
    j->n = grad->cols;
    j->factor = (float)s[FT_S_FACTOR];
    j->lr = (float)s[FT_S_LR] * rate;
    if (s[FT_S_FINITE] != 0)
        return true;
    memset(grad->data, 0, (size_t)j->n * sizeof(float));
    return false;
}

void K(adamw)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_adamw_args *a = &args->adamw;
    const double *s = a->scalars->data, step = s[FT_S_STEP];
    struct job j = {.args = args};
    if (!begin(&j, a->scalars, a->grad, a->rate))
        return;
    double bc1 = 1 - __builtin_pow((double)a->beta1, step);
    j.step_size = (float)(s[FT_S_LR] * (double)a->rate / bc1);
    j.root_bc2 = (float)__builtin_sqrt(1 - __builtin_pow((double)a->beta2, step));
    ft_pool_run(ctx->pool, (j.n + PIECE - 1) / PIECE, adamw_piece, &j);
}

static void sgd_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_sgd_args *a = &j->args->sgd;
    float *g = a->grad->data, *p = a->p->data, *b = a->mom ? a->mom->data : NULL;
    int64_t end = (piece + 1) * PIECE < j->n ? (piece + 1) * PIECE : j->n;
    for (int64_t i = piece * PIECE; i < end; i++) {
        float d = g[i] * j->factor + a->weight_decay * p[i];
        if (b)
            d = b[i] = a->momentum * b[i] + d;
        p[i] -= j->lr * d;
        g[i] = 0;
    }
}

void K(sgd)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    struct job j = {.args = args};
    if (begin(&j, args->sgd.scalars, args->sgd.grad, args->sgd.rate))
        ft_pool_run(ctx->pool, (j.n + PIECE - 1) / PIECE, sgd_piece, &j);
}

static void lion_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_lion_args *a = &j->args->lion;
    float *g = a->grad->data, *p = a->p->data, *m = a->m->data;
    const float keep = 1.f - j->lr * a->weight_decay, b1 = 1.f - a->beta1, b2 = 1.f - a->beta2;
    int64_t end = (piece + 1) * PIECE < j->n ? (piece + 1) * PIECE : j->n;
    for (int64_t i = piece * PIECE; i < end; i++) {
        const float gi = g[i] * j->factor, towards = m[i] * a->beta1 + gi * b1;
        const float sign = (float)((towards > 0) - (towards < 0));
        p[i] = p[i] * keep - j->lr * sign;
        m[i] = m[i] * a->beta2 + gi * b2;
        g[i] = 0;
    }
}

void K(lion)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    struct job j = {.args = args};
    if (begin(&j, args->lion.scalars, args->lion.grad, args->lion.rate))
        ft_pool_run(ctx->pool, (j.n + PIECE - 1) / PIECE, lion_piece, &j);
}

static void refresh_segment(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct ft_refresh_args *a = arg;
    const int64_t *s = (const int64_t *)a->table->data + i * FT_SEGMENT;
    const float *from = (const float *)a->values->data + s[FT_G_FIRST];
    uint16_t *to = (uint16_t *)(uintptr_t)s[FT_G_ADDRESS];
    double scale;
    memcpy(&scale, &s[FT_G_SCALE], sizeof scale);
    for (int64_t r = 0; r < s[FT_G_ROWS]; r++)
        for (int64_t c = 0; c < s[FT_G_COLS]; c++)
            to[r * s[FT_G_LD] + c] = ft_f32_to_bf16(from[r * s[FT_G_COLS] + c] * (float)scale);
}

void K(refresh)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    struct ft_refresh_args a = args->refresh;
    ft_pool_run(ctx->pool, a.table->rows, refresh_segment, &a);
}
