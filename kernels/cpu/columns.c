/* The ops that look at columns: row_norms of a weight, scale_columns; columns_dw, norm_dw and
 * embed_dw, whose pieces are columns, so that each sum has one order. */
#include "kernels/cpu/cpu.h"

struct job {
    const struct ft_kernel_ctx *ctx;
    const union ft_op_args *args;
    int64_t rows, step;
};

/* One row of w + scale b a, its length. */
static void norm_row(void *arg, int64_t n, void *scratch)
{
    const struct job *j = arg;
    const struct ft_row_norms_args *a = &j->args->row_norms;
    const int64_t cols = a->w->cols;
    float *row = scratch, *below = row + (cols + 15) / 16 * 16;
    const float *b = (const float *)a->b->data + n * ft_tensor_ld(a->b);
    struct sums sum = {0};
    K(widen_row)(row, a->w, n);
    for (int64_t r = 0; r < a->a->rows; r++) {
        const float *low = (const float *)a->a->data + r * ft_tensor_ld(a->a);
        const float times = a->scale * b[r];
        if (a->a->dtype != FT_F32) {
            K(widen_row)(below, a->a, r);
            low = below;
        }
        for (int64_t c = 0; c < cols; c += VW)
            put_lanes(row, lanes(row, c, cols) + times * lanes(low, c, cols), c, cols);
    }
    for (int64_t c = 0; c < cols; c += VW) {
        const vf v = lanes(row, c, cols);
        add_next(&sum, v * v);
    }
    ((float *)a->norm->data)[n] = __builtin_sqrtf(sums_total(sum));
}

void K(row_norms)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    struct job j = {.args = args};
    ft_pool_run(ctx->pool, args->row_norms.w->rows, norm_row, &j);
}

static void scale_piece(void *arg, int64_t piece, void *scratch)
{
    const struct job *j = arg;
    const struct ft_scale_columns_args *a = &j->args->scale_columns;
    const int64_t n = a->x->cols, t0 = piece * j->step;
    const int64_t t1 = t0 + j->step < j->rows ? t0 + j->step : j->rows;
    const float *m = a->m->data, *norm = a->norm ? a->norm->data : NULL, *bias = NULL;
    if (a->bias && a->bias->dtype == FT_F32)
        bias = a->bias->data;
    else if (a->bias) {
        K(widen_row)(scratch, a->bias, 0);
        bias = scratch;
    }
    for (int64_t t = t0; t < t1; t++) {
        const float *x = (const float *)a->x->data + t * ft_tensor_ld(a->x);
        const float *add = a->add ? (const float *)a->add->data + t * ft_tensor_ld(a->add) : NULL;
        float *y = (float *)a->y->data + t * ft_tensor_ld(a->y);
        for (int64_t c = 0; c < n; c += VW) {
            vf v = lanes(m, c, n);
            v = lanes(x, c, n) * (norm ? v / lanes(norm, c, n) : v);
            v += bias ? lanes(bias, c, n) : vf_set(0);
            put_lanes(y, add ? v + lanes(add, c, n) : v, c, n);
        }
    }
}

void K(scale_columns)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_tensor *x = args->scale_columns.x;
    struct job j = {.args = args, .rows = ft_live_rows(ctx, x), .step = ft_piece_rows(x->cols)};
    ft_pool_run(ctx->pool, (j.rows + j.step - 1) / j.step, scale_piece, &j);
}

enum { COLUMNS = 64 }; /* of a piece of columns_dw */

static void sum_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_columns_dw_args *a = &j->args->columns_dw;
    const int64_t c0 = piece * COLUMNS, left = a->dy->cols - c0,
                  n = left < COLUMNS ? left : COLUMNS;
    float sum[COLUMNS] = {0}, *dw = (float *)a->dw->data + c0;
    for (int64_t t = 0; t < j->rows; t++) {
        const float *dy = (const float *)a->dy->data + t * ft_tensor_ld(a->dy) + c0;
        const float *x = a->x ? (const float *)a->x->data + t * ft_tensor_ld(a->x) + c0 : NULL;
        for (int64_t c = 0; c < n; c++)
            sum[c] += x ? dy[c] * x[c] : dy[c];
    }
    for (int64_t c = 0; c < n; c++)
        dw[c] += a->norm ? sum[c] / ((const float *)a->norm->data)[c0 + c] : sum[c];
}

void K(columns_dw)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_tensor *dy = args->columns_dw.dy;
    struct job j = {.args = args, .rows = ft_live_rows(ctx, dy)};
    ft_pool_run(ctx->pool, (dy->cols + COLUMNS - 1) / COLUMNS, sum_piece, &j);
}

static void norm_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_norm_dw_args *a = &j->args->norm_dw;
    const int64_t groups = a->rstd->cols, width = a->x->cols / groups;
    const int64_t c0 = piece * COLUMNS, left = width - c0, n = left < COLUMNS ? left : COLUMNS;
    const bool own = a->dw && a->dw->rows > 1;
    float sum[COLUMNS] = {0}, plain[COLUMNS] = {0};
    for (int64_t g = 0; g < groups; g++) {
        for (int64_t t = 0; t < j->rows; t++) {
            const float *dy = (const float *)a->dy->data + t * ft_tensor_ld(a->dy) + g * width + c0;
            const float *x = (const float *)a->x->data + t * ft_tensor_ld(a->x) + g * width + c0;
            const float rstd = ((const float *)a->rstd->data)[t * groups + g];
            const float mean = a->mean ? ((const float *)a->mean->data)[t * groups + g] : 0;
            for (int64_t c = 0; c < n; c++) {
                sum[c] += dy[c] * ((x[c] - mean) * rstd);
                plain[c] += dy[c];
            }
        }
        if (!own && g + 1 < groups)
            continue;
        float *dw = a->dw ? (float *)a->dw->data + (own ? g : 0) * ft_tensor_ld(a->dw) + c0 : NULL;
        for (int64_t c = 0; c < n && dw; c++) {
            dw[c] += sum[c];
            sum[c] = 0;
        }
    }
    for (int64_t c = 0; c < n && a->db; c++)
        ((float *)a->db->data)[c0 + c] += plain[c];
}

void K(norm_dw)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_norm_dw_args *a = &args->norm_dw;
    struct job j = {.args = args, .rows = ft_live_rows(ctx, a->x)};
    const int64_t width = a->x->cols / a->rstd->cols;
    ft_pool_run(ctx->pool, (width + COLUMNS - 1) / COLUMNS, norm_piece, &j);
}

static void embed_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_embed_dw_args *a = &j->args->embed_dw;
    const int64_t c0 = piece * COLUMNS, left = a->dy->cols - c0,
                  n = left < COLUMNS ? left : COLUMNS;
    for (int64_t t = 0; t < j->rows; t++) {
        const int32_t id = ((const int32_t *)a->ids->data)[t];
        const int64_t row = a->first + id;
        if (id < 0 || id == a->pad)
            continue;
        const float *dy = (const float *)a->dy->data + t * ft_tensor_ld(a->dy) + c0;
        float *dw = (float *)a->dw->data + row * ft_tensor_ld(a->dw) + c0;
        for (int64_t c = 0; c < n; c++)
            dw[c] += a->scale * dy[c];
    }
}

void K(embed_dw)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_tensor *dy = args->embed_dw.dy;
    struct job j = {.args = args, .rows = ft_live_rows(ctx, dy)};
    ft_pool_run(ctx->pool, (dy->cols + COLUMNS - 1) / COLUMNS, embed_piece, &j);
}
