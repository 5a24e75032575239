/* muon: one parameter at a time, whose step is made orthogonal by products. */
#include "kernels/cpu/cpu.h"
#include "kernels/window.h"

struct job {
    const struct ft_muon_args *a;
    int64_t rows, cols, step; /* of the parameter; rows of a piece */
    int64_t small, large;     /* its sides */
    float factor, lr;
    float *x, *y, *square, *poly; /* (small, large) twice, (small, small) twice */
    double *sums;                 /* a row of the parameter each */
};

/* Where element (r, c) of the parameter lies in x: the smaller side is x's rows. */
FT_INLINE int64_t place(const struct job *j, int64_t r, int64_t c)
{
    return j->rows > j->cols ? c * j->large + r : r * j->large + c;
}

static void momentum_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const float *grad = j->a->grad->data, keep = j->a->momentum;
    float *m = j->a->m->data;
    const int64_t end = (piece + 1) * j->step < j->rows ? (piece + 1) * j->step : j->rows;
    for (int64_t r = piece * j->step; r < end; r++) {
        double sum = 0;
        for (int64_t c = 0; c < j->cols; c++) {
            const int64_t i = r * j->cols + c;
            const float g = grad[i] * j->factor;
            m[i] = keep * m[i] + g;
            const float u = g + keep * m[i];
            j->x[place(j, r, c)] = u;
            sum += (double)u * (double)u;
        }
        j->sums[r] = sum;
    }
}

static void apply_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    float *p = j->a->p->data, *grad = j->a->grad->data;
    const float keep = 1.f - j->lr * j->a->weight_decay;
    const float by = j->lr * ft_muon_scale(j->rows, j->cols);
    const int64_t end = (piece + 1) * j->step < j->rows ? (piece + 1) * j->step : j->rows;
    for (int64_t r = piece * j->step; r < end; r++)
        for (int64_t c = 0; c < j->cols; c++) {
            const int64_t i = r * j->cols + c;
            p[i] = p[i] * keep - by * j->x[place(j, r, c)];
            grad[i] = 0;
        }
}

/* c (m,n) = a (m,k) b, where b is (n,k) if trans, else (k,n); times alpha. */
static void product(const struct ft_kernel_ctx *ctx, int64_t m, int64_t n, int64_t k,
                    const float *a, const float *b, bool trans, float alpha, float *c)
{
    K(gemm)
    (ctx->pool, ctx->scratch,
     &(struct ft_gemm){
         .m = m,
         .n = n,
         .k = {k},
         .a = {a},
         .a_rs = {k},
         .a_cs = {1},
         .b = {{b, FT_F32, trans ? k : n, trans, alpha}},
         .c = c,
         .ldc = n,
     });
}

/* out = alpha a + b, over either. */
static void combine(float *out, const float *a, const float *b, float alpha, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = alpha * a[i] + b[i];
}

static void orthogonalise(const struct ft_kernel_ctx *ctx, struct job *j)
{
    const int64_t s = j->small, l = j->large;
    double sum = 0;
    for (int64_t r = 0; r < j->rows; r++)
        sum += j->sums[r];
    const float by = (float)(1 / (__builtin_sqrt(sum) + FT_MUON_EPS));
    for (int64_t i = 0; i < s * l; i++)
        j->x[i] *= by;
    for (int k = 0; k < FT_MUON_STEPS; k++) {
        product(ctx, s, s, l, j->x, j->x, true, 1, j->square);
        product(ctx, s, s, s, j->square, j->square, false, FT_MUON_C, j->poly);
        combine(j->poly, j->square, j->poly, FT_MUON_B, s * s);
        product(ctx, s, l, s, j->poly, j->x, false, 1, j->y);
        combine(j->x, j->x, j->y, FT_MUON_A, s * l);
    }
}

void K(muon)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_muon_args *a = &args->muon;
    const double *s = a->scalars->data;
    struct job j = {.a = a,
                    .rows = a->p->rows,
                    .cols = a->p->cols,
                    .step = ft_piece_rows(a->p->cols),
                    .factor = (float)s[FT_S_FACTOR],
                    .lr = (float)s[FT_S_LR] * a->rate};
    j.small = j.rows < j.cols ? j.rows : j.cols;
    j.large = j.rows < j.cols ? j.cols : j.rows;
    j.sums = (double *)((char *)ctx->scratch + FT_GEMM_SCRATCH);
    j.x = (float *)(j.sums + (j.rows + 7) / 8 * 8);
    j.y = j.x + (j.small * j.large + 15) / 16 * 16;
    j.square = j.y + (j.small * j.large + 15) / 16 * 16;
    j.poly = j.square + (j.small * j.small + 15) / 16 * 16;
    const int64_t pieces = (j.rows + j.step - 1) / j.step;
    if (s[FT_S_FINITE] == 0) {
        memset(a->grad->data, 0, (size_t)(j.rows * j.cols) * sizeof(float));
        return;
    }
    ft_pool_run(ctx->pool, pieces, momentum_piece, &j);
    orthogonalise(ctx, &j);
    ft_pool_run(ctx->pool, pieces, apply_piece, &j);
}
