/* adafactor: one parameter at a time, since its running means are those of rows and of columns. */
#include "kernels/cpu/cpu.h"
#include "kernels/window.h"

enum { COLUMNS = 128 };

struct job {
    float *g, *p, *row, *col;
    int64_t rows, cols, step; /* rows of a piece */
    float factor, lr, decay;  /* of the window, and of the running means */
    float mean, keep, size;   /* of row; of p; what u is multiplied with */
    double *squares;          /* of u, a sum a row */
};

/* The running mean of each row of this piece. */
static void row_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const int64_t end = (piece + 1) * j->step < j->rows ? (piece + 1) * j->step : j->rows;
    for (int64_t r = piece * j->step; r < end; r++) {
        const float *g = j->g + r * j->cols;
        double sum = 0;
        for (int64_t c = 0; c < j->cols; c++)
            sum += (double)(g[c] * j->factor) * (double)(g[c] * j->factor) + 1e-30;
        j->row[r] = j->row[r] * j->decay + (float)(sum / (double)j->cols) * (1 - j->decay);
    }
}

static void column_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const int64_t first = piece * COLUMNS, left = j->cols - first,
                  n = left < COLUMNS ? left : COLUMNS;
    double sums[COLUMNS] = {0};
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t c = 0; c < n; c++) {
            const float g = j->g[r * j->cols + first + c] * j->factor;
            sums[c] += (double)g * (double)g + 1e-30;
        }
    for (int64_t c = 0; c < n; c++)
        j->col[first + c] =
            j->col[first + c] * j->decay + (float)(sums[c] / (double)j->rows) * (1 - j->decay);
}

/* What a row's elements are divided by for their row, as a factor. */
FT_INLINE float of_row(const struct job *j, int64_t r)
{
    return j->factor * (j->row ? 1 / __builtin_sqrtf(j->row[r] / j->mean) : 1.f);
}

static void square_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const int64_t end = (piece + 1) * j->step < j->rows ? (piece + 1) * j->step : j->rows;
    for (int64_t r = piece * j->step; r < end; r++) {
        const float by = of_row(j, r);
        double sum = 0;
        for (int64_t c = 0; c < j->cols; c++) {
            const float u = j->g[r * j->cols + c] * by / __builtin_sqrtf(j->col[c]);
            sum += (double)u * (double)u;
        }
        j->squares[r] = sum;
    }
}

static void apply_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const int64_t end = (piece + 1) * j->step < j->rows ? (piece + 1) * j->step : j->rows;
    for (int64_t r = piece * j->step; r < end; r++) {
        float *p = j->p + r * j->cols, *g = j->g + r * j->cols;
        const float by = of_row(j, r) * j->size;
        for (int64_t c = 0; c < j->cols; c++) {
            p[c] = p[c] * j->keep - j->lr * (g[c] * by / __builtin_sqrtf(j->col[c]));
            g[c] = 0;
        }
    }
}

/* 1, or less where the root mean square of u is above 1. */
static float size_of(const struct job *j)
{
    double sum = 0;
    for (int64_t r = 0; r < j->rows; r++)
        sum += j->squares[r];
    const double root = __builtin_sqrt(sum / (double)(j->rows * j->cols));
    return root > 1 ? (float)(1 / root) : 1;
}

void K(adafactor)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_adafactor_args *a = &args->adafactor;
    const double *s = a->scalars->data;
    struct job j = {.g = a->grad->data,
                    .p = a->p->data,
                    .row = a->row ? a->row->data : NULL,
                    .col = a->col->data,
                    .rows = a->p->rows,
                    .cols = a->p->cols,
                    .step = ft_piece_rows(a->p->cols),
                    .factor = (float)s[FT_S_FACTOR],
                    .lr = (float)s[FT_S_LR] * a->rate,
                    .decay = (float)ft_adafactor_decay(s[FT_S_STEP]),
                    .squares = ctx->scratch};
    const int64_t pieces = (j.rows + j.step - 1) / j.step;
    if (s[FT_S_FINITE] == 0) {
        memset(j.g, 0, (size_t)(j.rows * j.cols) * sizeof *j.g);
        return;
    }
    j.keep = 1.f - j.lr * a->weight_decay;
    if (j.row)
        ft_pool_run(ctx->pool, pieces, row_piece, &j);
    ft_pool_run(ctx->pool, (j.cols + COLUMNS - 1) / COLUMNS, column_piece, &j);
    double sum = 0;
    for (int64_t r = 0; r < j.rows && j.row; r++)
        sum += (double)j.row[r];
    j.mean = (float)(sum / (double)j.rows);
    ft_pool_run(ctx->pool, pieces, square_piece, &j);
    j.size = size_of(&j);
    ft_pool_run(ctx->pool, pieces, apply_piece, &j);
}
