/* norm and its backward: RMSNorm and LayerNorm, of rows or of the heads in them. */
#include "kernels/cpu/cpu.h"

struct job {
    const struct ft_norm_args *f;
    const struct ft_norm_dx_args *b;
    int64_t n, cols, width; /* rows; columns of a row and of a group */
};

/* Norm weights are small: each piece widens the ones that are not f32 into its own scratch. */
static const float *weight(const struct ft_tensor *w, int64_t group, void *scratch)
{
    const int64_t row = w->rows == 1 ? 0 : group;
    if (w->dtype == FT_F32)
        return (const float *)w->data + row * ft_tensor_ld(w);
    K(widen_row)(scratch, w, row);
    return scratch;
}

/* sum_c (x - mean)^2 */
FT_INLINE float squares(const float *x, float mean, int64_t n)
{
    struct sums sum = {0};
    for (int64_t c = 0; c < n; c += VW) {
        vf v = lanes(x, c, n) - mean;
        if (c + VW > n)
            v = (vf)((vi)v & ~vf_behind(n - c));
        add_next(&sum, v * v);
    }
    return sums_total(sum);
}

FT_INLINE float mean_of(const float *x, int64_t n)
{
    struct sums sum = {0};
    for (int64_t c = 0; c < n; c += VW)
        add_next(&sum, lanes(x, c, n));
    return sums_total(sum) / (float)n;
}

/* One group of a row. */
static void forward_group(const struct ft_norm_args *a, int64_t t, int64_t g, const float *w,
                          const float *bias)
{
    const int64_t n = a->w->cols, at = t * a->rstd->cols + g;
    const float *x = (const float *)a->x->data + t * ft_tensor_ld(a->x) + g * n;
    float *y = (float *)a->y->data + t * ft_tensor_ld(a->y) + g * n;
    const float mean = a->mean ? mean_of(x, n) : 0;
    const float rstd = 1.f / __builtin_sqrtf(squares(x, mean, n) / (float)n + a->eps);
    ((float *)a->rstd->data)[at] = rstd;
    if (a->mean)
        ((float *)a->mean->data)[at] = mean;
    for (int64_t c = 0; c < n; c += VW) {
        vf v = (lanes(x, c, n) - mean) * rstd * (lanes(w, c, n) + a->offset);
        put_lanes(y, bias ? v + lanes(bias, c, n) : v, c, n);
    }
}

static void forward(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const struct ft_norm_args *a = j->f;
    const int64_t step = ft_piece_rows(j->cols), groups = a->rstd->cols;
    const int64_t end = (piece + 1) * step < j->n ? (piece + 1) * step : j->n;
    float *room = (float *)scratch + j->width; /* behind the weights */
    const float *bias = a->bias ? weight(a->bias, 0, room) : NULL;
    const float *w = NULL;
    for (int64_t g = 0; g < groups; g++) {
        if (g == 0 || a->w->rows > 1)
            w = weight(a->w, g, scratch);
        for (int64_t t = piece * step; t < end; t++)
            forward_group(a, t, g, w, bias);
    }
}

static void backward_group(const struct ft_norm_dx_args *a, int64_t t, int64_t g, const float *w)
{
    const int64_t n = a->w->cols, at = t * a->rstd->cols + g;
    const float *x = (const float *)a->x->data + t * ft_tensor_ld(a->x) + g * n;
    const float *dy = (const float *)a->dy->data + t * ft_tensor_ld(a->dy) + g * n;
    const float *add =
        a->add ? (const float *)a->add->data + t * ft_tensor_ld(a->add) + g * n : NULL;
    float *dx = (float *)a->dx->data + t * ft_tensor_ld(a->dx) + g * n;
    const float rstd = ((const float *)a->rstd->data)[at];
    const float mean = a->mean ? ((const float *)a->mean->data)[at] : 0;
    struct sums dot = {0}, sum = {0};
    for (int64_t c = 0; c < n; c += VW) {
        const vf d = lanes(dy, c, n) * (lanes(w, c, n) + a->offset);
        add_next(&dot, d * (lanes(x, c, n) - mean));
        add_next(&sum, d);
    }
    /* mean_c(g xhat) * rstd, to be multiplied with x - mean; and mean_c(g) */
    const float pull = sums_total(dot) / (float)n * rstd * rstd;
    const float level = a->mean ? sums_total(sum) / (float)n : 0;
    for (int64_t c = 0; c < n; c += VW) {
        vf d = lanes(dy, c, n) * (lanes(w, c, n) + a->offset) - (lanes(x, c, n) - mean) * pull;
        d = (d - level) * rstd;
        put_lanes(dx, add ? d + lanes(add, c, n) : d, c, n);
    }
}

static void backward(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const struct ft_norm_dx_args *a = j->b;
    const int64_t step = ft_piece_rows(j->cols), groups = a->rstd->cols;
    const int64_t end = (piece + 1) * step < j->n ? (piece + 1) * step : j->n;
    const float *w = NULL;
    for (int64_t g = 0; g < groups; g++) {
        if (g == 0 || a->w->rows > 1)
            w = weight(a->w, g, scratch);
        for (int64_t t = piece * step; t < end; t++)
            backward_group(a, t, g, w);
    }
}

void K(norm)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_norm_args *a = &args->norm;
    struct job j = {.f = a, .n = ft_live_rows(ctx, a->x), .cols = a->x->cols, .width = a->w->cols};
    int64_t step = ft_piece_rows(j.cols);
    ft_pool_run(ctx->pool, (j.n + step - 1) / step, forward, &j);
}

void K(norm_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_norm_dx_args *a = &args->norm_dx;
    struct job j = {.b = a, .n = ft_live_rows(ctx, a->x), .cols = a->x->cols, .width = a->w->cols};
    int64_t step = ft_piece_rows(j.cols);
    ft_pool_run(ctx->pool, (j.n + step - 1) / step, backward, &j);
}
