/* The ops that look at columns: row_norms of a weight, scale_columns; columns_dw, norm_dw and
 * embed_dw, where a thread has a column and goes through all rows, so that each sum has one order.
 */
#include "kernels/cuda/widen.h"

enum { THREADS = 128 };

struct norm_job {
    struct ft_rows w, a, b;
    int64_t cols;
    int rank;
    float scale, *norm;
};

/* A block a row. */
FT_KERNEL(THREADS) row_norms(struct ft_mark mark, struct norm_job j)
{
    ft_begin(mark);
    FT_SHARED(float, shared);
    const int64_t n = ft_block_x();
    float sum = 0;
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        float low = 0;
        for (int r = 0; r < j.rank; r++)
            low += ft_to_float(j.b.p[n * j.b.ld + r]) * ft_to_float(j.a.p[r * j.a.ld + c]);
        const float v = ft_to_float(j.w.p[n * j.w.ld + c]) + j.scale * low;
        sum += v * v;
    }
    sum = ft_warp_sum(sum);
    if (ft_lane() == 0)
        shared[ft_warp()] = sum;
    ft_sync_block();
    if (ft_thread() != 0)
        return;
    float all = 0;
    for (int w = 0; w < THREADS / 32; w++)
        all += shared[w];
    j.norm[n] = sqrtf(all);
}

size_t ft_cuda_row_norms_scratch(const union ft_op_args *args)
{
    return ft_widened_bytes(args->row_norms.w);
}

void ft_cuda_row_norms(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_row_norms_args *a = &args->row_norms;
    struct norm_job j = {};
    const struct ft_tensor w = ft_widened(ctx, a->w, ctx->scratch);
    j.w = ft_rows_of(&w);
    j.a = ft_rows_of(a->a);
    j.b = ft_rows_of(a->b);
    j.cols = a->w->cols;
    j.rank = (int)a->a->rows;
    j.scale = a->scale;
    j.norm = (float *)a->norm->data;
    ft_launch(ctx, row_norms, ft_grid{a->w->rows, 1, 1}, THREADS, THREADS / 32 * sizeof(float), j);
}

struct scale_job {
    struct ft_rows x, add, y;
    const float *m, *norm;
    const bf16 *bias;
    int64_t cols;
};

FT_KERNEL(THREADS) scale_columns(struct ft_mark mark, struct scale_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x(), c = (int64_t)ft_block_y() * THREADS + ft_thread();
    if (c >= j.cols)
        return;
    float v = ft_to_float(j.x.p[t * j.x.ld + c]) * (j.norm ? j.m[c] / j.norm[c] : j.m[c]);
    v += j.bias ? ft_to_float(j.bias[c]) : 0;
    v += j.add.p ? ft_to_float(j.add.p[t * j.add.ld + c]) : 0;
    j.y.p[t * j.y.ld + c] = ft_to_bf16(v);
}

void ft_cuda_scale_columns(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_scale_columns_args *a = &args->scale_columns;
    struct scale_job j = {};
    j.x = ft_rows_of(a->x);
    j.add = ft_rows_of(a->add);
    j.y = ft_rows_of(a->y);
    j.m = (const float *)a->m->data;
    j.norm = a->norm ? (const float *)a->norm->data : NULL;
    j.bias = a->bias ? (const bf16 *)a->bias->data : NULL;
    j.cols = a->x->cols;
    ft_launch(ctx, scale_columns,
              ft_grid{ft_launch_rows(ctx, a->y), (int)((j.cols + THREADS - 1) / THREADS), 1},
              THREADS, 0, j);
}

struct sum_job {
    struct ft_rows dy, x;
    const float *norm;
    float *dw;
    int64_t rows, cols;
};

/* A thread a column, all rows in order: rows between the live ones and the bucket add nothing. */
FT_KERNEL(THREADS) columns_dw(struct ft_mark mark, struct sum_job j)
{
    ft_begin(mark);
    const int64_t c = ft_block_x() * THREADS + ft_thread();
    float sum = 0;
    if (c >= j.cols)
        return;
    for (int64_t t = 0; t < j.rows; t++) {
        const float d = ft_to_float(j.dy.p[t * j.dy.ld + c]);
        sum += j.x.p ? d * ft_to_float(j.x.p[t * j.x.ld + c]) : d;
    }
    j.dw[c] += j.norm ? sum / j.norm[c] : sum;
}

void ft_cuda_columns_dw(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_columns_dw_args *a = &args->columns_dw;
    struct sum_job j = {};
    j.dy = ft_rows_of(a->dy);
    j.x = ft_rows_of(a->x);
    j.norm = a->norm ? (const float *)a->norm->data : NULL;
    j.dw = (float *)a->dw->data;
    j.rows = ft_launch_rows(ctx, a->dy);
    j.cols = a->dy->cols;
    ft_launch(ctx, columns_dw, ft_grid{(j.cols + THREADS - 1) / THREADS, 1, 1}, THREADS, 0, j);
}

struct norm_sum_job {
    struct ft_rows dy, x;
    const float *rstd, *mean;
    float *dw, *db;
    int64_t rows, width, ld;
    int groups;
    bool own; /* a weight for each group */
};

FT_KERNEL(THREADS) norm_dw(struct ft_mark mark, struct norm_sum_job j)
{
    ft_begin(mark);
    const int64_t c = ft_block_x() * THREADS + ft_thread();
    float sum = 0, plain = 0;
    if (c >= j.width)
        return;
    for (int g = 0; g < j.groups; g++) {
        for (int64_t t = 0; t < j.rows; t++) {
            const int64_t at = g * j.width + c, n = t * j.groups + g;
            const float d = ft_to_float(j.dy.p[t * j.dy.ld + at]);
            const float x = ft_to_float(j.x.p[t * j.x.ld + at]) - (j.mean ? j.mean[n] : 0);
            sum += d * (x * j.rstd[n]);
            plain += d;
        }
        if (j.dw && (j.own || g + 1 == j.groups)) {
            j.dw[(j.own ? g : 0) * j.ld + c] += sum;
            sum = 0;
        }
    }
    if (j.db)
        j.db[c] += plain;
}

void ft_cuda_norm_dw(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_norm_dw_args *a = &args->norm_dw;
    struct norm_sum_job j = {};
    j.dy = ft_rows_of(a->dy);
    j.x = ft_rows_of(a->x);
    j.rstd = (const float *)a->rstd->data;
    j.mean = a->mean ? (const float *)a->mean->data : NULL;
    j.dw = a->dw ? (float *)a->dw->data : NULL;
    j.db = a->db ? (float *)a->db->data : NULL;
    j.rows = ft_launch_rows(ctx, a->x);
    j.groups = (int)a->rstd->cols;
    j.width = a->x->cols / j.groups;
    j.ld = a->dw ? ft_tensor_ld(a->dw) : 0;
    j.own = a->dw && a->dw->rows > 1;
    ft_launch(ctx, norm_dw, ft_grid{(j.width + THREADS - 1) / THREADS, 1, 1}, THREADS, 0, j);
}

struct embed_job {
    const int32_t *live, *ids;
    struct ft_rows dy;
    float *dw;
    int64_t rows, cols, ld, first;
    int pad;
    float scale;
};

FT_KERNEL(THREADS) embed_dw(struct ft_mark mark, struct embed_job j)
{
    ft_begin(mark);
    const int64_t c = ft_block_x() * THREADS + ft_thread();
    if (c >= j.cols)
        return;
    for (int64_t t = 0; t < j.rows && t < j.live[FT_ROWS]; t++)
        if (j.ids[t] >= 0 && j.ids[t] != j.pad)
            j.dw[(j.first + j.ids[t]) * j.ld + c] += j.scale * ft_to_float(j.dy.p[t * j.dy.ld + c]);
}

void ft_cuda_embed_dw(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_embed_dw_args *a = &args->embed_dw;
    struct embed_job j = {};
    j.live = ctx->live;
    j.ids = (const int32_t *)a->ids->data;
    j.dy = ft_rows_of(a->dy);
    j.dw = (float *)a->dw->data;
    j.rows = ft_launch_rows(ctx, a->dy);
    j.cols = a->dy->cols;
    j.ld = ft_tensor_ld(a->dw);
    j.first = a->first;
    j.pad = a->pad;
    j.scale = a->scale;
    ft_launch(ctx, embed_dw, ft_grid{(j.cols + THREADS - 1) / THREADS, 1, 1}, THREADS, 0, j);
}
