/* rmsnorm and its backward. */
#include "kernels/cpu/cpu.h"

struct job {
    const struct ft_rmsnorm *f;
    const struct ft_rmsnorm_dx *b;
    int64_t n, cols;
};

/* Norm weights are small: each piece widens the ones that are not f32 into its own scratch. */
static const float *weight(const struct ft_tensor *w, void *scratch)
{
    if (w->dtype == FT_F32)
        return w->data;
    K(widen_row)(scratch, w, 0);
    return scratch;
}

static void forward(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const struct ft_rmsnorm *a = j->f;
    const int64_t cols = j->cols, step = ft_piece_rows(cols);
    const float *w = weight(a->w, scratch);
    int64_t end = (piece + 1) * step < j->n ? (piece + 1) * step : j->n;
    for (int64_t t = piece * step; t < end; t++) {
        const float *x = (const float *)a->x->data + t * ft_tensor_ld(a->x);
        float *y = (float *)a->y->data + t * ft_tensor_ld(a->y);
        v16 sum = {0};
        for (int64_t c = 0; c < cols; c += 16) {
            v16 v = lanes(x, c, cols);
            sum += v * v;
        }
        float rstd = 1.f / __builtin_sqrtf(v16_sum(sum) / (float)cols + a->eps);
        ((float *)a->rstd->data)[t] = rstd;
        for (int64_t c = 0; c < cols; c += 16)
            put_lanes(y, lanes(x, c, cols) * rstd * (lanes(w, c, cols) + a->offset), c, cols);
    }
}

static void backward(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const struct ft_rmsnorm_dx *a = j->b;
    const int64_t cols = j->cols, step = ft_piece_rows(cols);
    const float *w = weight(a->w, scratch);
    int64_t end = (piece + 1) * step < j->n ? (piece + 1) * step : j->n;
    for (int64_t t = piece * step; t < end; t++) {
        const float *x = (const float *)a->x->data + t * ft_tensor_ld(a->x);
        const float *dy = (const float *)a->dy->data + t * ft_tensor_ld(a->dy);
        const float *add = a->add ? (const float *)a->add->data + t * ft_tensor_ld(a->add) : NULL;
        float *dx = (float *)a->dx->data + t * ft_tensor_ld(a->dx),
              rstd = ((const float *)a->rstd->data)[t];
        v16 dot = {0};
        for (int64_t c = 0; c < cols; c += 16)
            dot += lanes(dy, c, cols) * (lanes(w, c, cols) + a->offset) * lanes(x, c, cols);
        /* mean(dy w' xhat) * rstd, to be multiplied with x */
        float pull = v16_sum(dot) / (float)cols * rstd * rstd;
        for (int64_t c = 0; c < cols; c += 16) {
            v16 d = lanes(dy, c, cols) * (lanes(w, c, cols) + a->offset) - lanes(x, c, cols) * pull;
            d *= rstd;
            put_lanes(dx, add ? d + lanes(add, c, cols) : d, c, cols);
        }
    }
}

void K(rmsnorm)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_rmsnorm *a = &args->rmsnorm;
    struct job j = {.f = a, .n = ft_live_rows(ctx, a->x), .cols = a->x->cols};
    int64_t step = ft_piece_rows(j.cols);
    ft_pool_run(ctx->pool, (j.n + step - 1) / step, forward, &j);
}

void K(rmsnorm_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_rmsnorm_dx *a = &args->rmsnorm_dx;
    struct job j = {.b = a, .n = ft_live_rows(ctx, a->x), .cols = a->x->cols};
    int64_t step = ft_piece_rows(j.cols);
    ft_pool_run(ctx->pool, (j.n + step - 1) / step, backward, &j);
}
