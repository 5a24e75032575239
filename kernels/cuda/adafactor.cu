/* adafactor: one parameter at a time, since its running means are those of rows and of columns. */
#include "kernels/cuda/device.cuh"
#include "kernels/window.h"

enum { THREADS = 256 };

/* What one update works out on the way, at the beginning of scratch. */
struct found {
    float mean, size; /* of the rows' means; what u is multiplied with */
};

struct job {
    const double *scalars;
    float *g, *p, *row, *col; /* row NULL: a vector */
    struct found *found;
    double *squares; /* of u, a sum a row */
    int64_t rows, cols;
    float weight_decay, rate;
};

FT_DEVICE bool applies(const struct job &j)
{
    return j.scalars[FT_S_FINITE] != 0;
}

/* A block a row. */
FT_KERNEL(THREADS) adafactor_rows(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    const int64_t r = ft_block_x();
    const float factor = (float)j.scalars[FT_S_FACTOR];
    const float decay = (float)ft_adafactor_decay(j.scalars[FT_S_STEP]);
    double sum = 0;
    if (!applies(j))
        return;
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        const float g = j.g[r * j.cols + c] * factor;
        sum += (double)g * (double)g + 1e-30;
    }
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() == 0)
        j.row[r] = j.row[r] * decay + (float)(sum / (double)j.cols) * (1 - decay);
}

/* A thread a column. */
FT_KERNEL(THREADS) adafactor_columns(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    const int64_t c = ft_block_x() * THREADS + ft_thread();
    const float factor = (float)j.scalars[FT_S_FACTOR];
    const float decay = (float)ft_adafactor_decay(j.scalars[FT_S_STEP]);
    double sum = 0;
    if (c >= j.cols || !applies(j))
        return;
    for (int64_t r = 0; r < j.rows; r++) {
        const float g = j.g[r * j.cols + c] * factor;
        sum += (double)g * (double)g + 1e-30;
    }
    j.col[c] = j.col[c] * decay + (float)(sum / (double)j.rows) * (1 - decay);
}

/* One block: the mean of the rows' means. */
FT_KERNEL(THREADS) adafactor_mean(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    double sum = 0;
    for (int64_t r = ft_thread(); r < j.rows && j.row; r += THREADS)
        sum += (double)j.row[r];
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() == 0)
        j.found->mean = (float)(sum / (double)j.rows);
}

FT_DEVICE float of_row(const struct job &j, int64_t r)
{
    const float factor = (float)j.scalars[FT_S_FACTOR];
    return factor * (j.row ? 1 / sqrtf(j.row[r] / j.found->mean) : 1.f);
}

/* A block a row. */
FT_KERNEL(THREADS) adafactor_squares(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    const int64_t r = ft_block_x();
    const float by = of_row(j, r);
    double sum = 0;
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        const float u = j.g[r * j.cols + c] * by / sqrtf(j.col[c]);
        sum += (double)u * (double)u;
    }
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() == 0)
        j.squares[r] = sum;
}

/* One block: 1, or less where the root mean square of u is above 1. */
FT_KERNEL(THREADS) adafactor_size(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    double sum = 0;
    for (int64_t r = ft_thread(); r < j.rows; r += THREADS)
        sum += j.squares[r];
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() != 0)
        return;
    const double root = sqrt(sum / ((double)j.rows * (double)j.cols));
    j.found->size = root > 1 ? (float)(1 / root) : 1.f;
}

/* A block a row. */
FT_KERNEL(THREADS) adafactor_apply(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    const int64_t r = ft_block_x();
    const float lr = (float)(j.scalars[FT_S_LR] * (double)j.rate), keep = 1.f - lr * j.weight_decay;
    const bool moves = applies(j);
    const float by = moves ? of_row(j, r) * j.found->size : 0;
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        const int64_t i = r * j.cols + c;
        if (moves)
            j.p[i] = j.p[i] * keep - lr * (j.g[i] * by / sqrtf(j.col[c]));
        j.g[i] = 0;
    }
}

static const size_t FOUND_BYTES = 256; /* struct found, and what aligns the sums behind it */

size_t ft_cuda_adafactor_scratch(const union ft_op_args *args)
{
    return FOUND_BYTES + (size_t)args->adafactor.p->rows * sizeof(double);
}

void ft_cuda_adafactor(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_adafactor_args *a = &args->adafactor;
    const size_t shared = THREADS * sizeof(double);
    struct job j = {};
    j.scalars = (const double *)a->scalars->data;
    j.g = (float *)a->grad->data;
    j.p = (float *)a->p->data;
    j.row = a->row ? (float *)a->row->data : NULL;
    j.col = (float *)a->col->data;
    j.found = (struct found *)ctx->scratch;
    j.squares = (double *)((char *)ctx->scratch + FOUND_BYTES);
    j.rows = a->p->rows;
    j.cols = a->p->cols;
    j.weight_decay = a->weight_decay;
    j.rate = a->rate;
    const struct ft_grid by_rows = {j.rows, 1, 1}, one = {1, 1, 1};
    if (a->row)
        ft_launch(ctx, adafactor_rows, by_rows, THREADS, shared, j);
    ft_launch(ctx, adafactor_columns, ft_grid{(j.cols + THREADS - 1) / THREADS, 1, 1}, THREADS, 0,
              j);
    ft_launch(ctx, adafactor_mean, one, THREADS, shared, j);
    ft_launch(ctx, adafactor_squares, by_rows, THREADS, shared, j);
    ft_launch(ctx, adafactor_size, one, THREADS, shared, j);
    ft_launch(ctx, adafactor_apply, by_rows, THREADS, 0, j);
}
