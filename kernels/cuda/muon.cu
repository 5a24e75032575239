/* muon: one parameter at a time, whose step is made orthogonal by products of bf16. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/product.h"
#include "kernels/window.h"

enum { THREADS = 256 };

struct job {
    const double *scalars;
    float *g, *p, *m;
    bf16 *x;              /* (small, ld): the smaller side of the parameter is x's rows */
    double *sums, *scale; /* a row of the parameter each; what x is multiplied with */
    int64_t rows, cols, ld;
    float momentum, weight_decay, rate;
};

FT_DEVICE bool applies(const struct job &j)
{
    return j.scalars[FT_S_FINITE] != 0;
}

FT_DEVICE int64_t place(const struct job &j, int64_t r, int64_t c)
{
    return j.rows > j.cols ? c * j.ld + r : r * j.ld + c;
}

/* A block a row: the momentum, and the sum of squares of what it leads to. */
FT_KERNEL(THREADS) muon_momentum(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    const int64_t r = ft_block_x();
    const float factor = (float)j.scalars[FT_S_FACTOR];
    double sum = 0;
    for (int64_t c = ft_thread(); c < j.cols && applies(j); c += THREADS) {
        const int64_t i = r * j.cols + c;
        const float g = j.g[i] * factor, m = j.momentum * j.m[i] + g, u = g + j.momentum * m;
        j.m[i] = m;
        sum += (double)u * (double)u;
    }
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() == 0)
        j.sums[r] = sum;
}

FT_KERNEL(THREADS) muon_norm(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    double sum = 0;
    for (int64_t r = ft_thread(); r < j.rows; r += THREADS)
        sum += j.sums[r];
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() == 0)
        *j.scale = 1 / (sqrt(sum) + FT_MUON_EPS);
}

/* A block a row: x, of length 1. */
FT_KERNEL(THREADS) muon_scaled(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    const int64_t r = ft_block_x();
    const float factor = (float)j.scalars[FT_S_FACTOR], by = (float)*j.scale;
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        const int64_t i = r * j.cols + c;
        const float u = j.g[i] * factor + j.momentum * j.m[i];
        j.x[place(j, r, c)] = ft_to_bf16(applies(j) ? u * by : 0);
    }
}

FT_KERNEL(THREADS) muon_apply(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    const int64_t r = ft_block_x();
    const float lr = (float)(j.scalars[FT_S_LR] * (double)j.rate), keep = 1.f - lr * j.weight_decay;
    const float by = lr * ft_muon_scale(j.rows, j.cols);
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        const int64_t i = r * j.cols + c;
        if (applies(j))
            j.p[i] = j.p[i] * keep - by * ft_to_float(j.x[place(j, r, c)]);
        j.g[i] = 0;
    }
}

static int64_t aligned(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Where things lie in scratch, in bytes from its beginning. */
struct layout {
    int64_t small, large, ld, ld_square;
    size_t sums, x, y, square, poly, total;
};

static struct layout layout_of(const struct ft_tensor *p)
{
    struct layout l = {};
    l.small = p->rows < p->cols ? p->rows : p->cols;
    l.large = p->rows < p->cols ? p->cols : p->rows;
    l.ld = aligned(l.large, 8);
    l.ld_square = aligned(l.small, 8);
    l.sums = FT_PRODUCT_SCRATCH;
    l.x = l.sums + (size_t)aligned((p->rows + 1) * 8, 256);
    l.y = l.x + (size_t)aligned(l.small * l.ld * 2, 256);
    l.square = l.y + (size_t)aligned(l.small * l.ld * 2, 256);
    l.poly = l.square + (size_t)aligned(l.small * l.ld_square * 2, 256);
    l.total = l.poly + (size_t)aligned(l.small * l.ld_square * 2, 256);
    return l;
}

size_t ft_cuda_muon_scratch(const union ft_op_args *args)
{
    return layout_of(args->muon.p).total;
}

/* d (m,n) = alpha a b + beta c; b is (n,k) if trans. All bf16, c with d's rows. */
static void multiply(const struct ft_kernel_ctx *ctx, int64_t m, int64_t n, int64_t k,
                     const void *a, int64_t lda, const void *b, int64_t ldb, bool trans,
                     float alpha, const void *c, float beta, void *d, int64_t ldd)
{
    struct ft_product p = {};
    p.m = m;
    p.n = n;
    p.k = k;
    p.a = a;
    p.lda = lda;
    p.b = b;
    p.ldb = ldb;
    p.b_trans = trans;
    p.alpha = alpha;
    p.c = c;
    p.beta = beta;
    p.d = d;
    p.ldc = p.ldd = ldd;
    p.out = FT_BF16;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

void ft_cuda_muon(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_muon_args *a = &args->muon;
    const struct layout l = layout_of(a->p);
    char *scratch = (char *)ctx->scratch;
    void *x = scratch + l.x, *y = scratch + l.y, *square = scratch + l.square;
    void *poly = scratch + l.poly;
    struct job j = {};
    j.scalars = (const double *)a->scalars->data;
    j.g = (float *)a->grad->data;
    j.p = (float *)a->p->data;
    j.m = (float *)a->m->data;
    j.sums = (double *)(scratch + l.sums);
    j.scale = j.sums + a->p->rows;
    j.rows = a->p->rows;
    j.cols = a->p->cols;
    j.ld = l.ld;
    j.momentum = a->momentum;
    j.weight_decay = a->weight_decay;
    j.rate = a->rate;
    j.x = (bf16 *)x;
    const struct ft_grid by_rows = {j.rows, 1, 1}, one = {1, 1, 1};
    const size_t shared = THREADS * sizeof(double);
    ft_launch(ctx, muon_momentum, by_rows, THREADS, shared, j);
    ft_launch(ctx, muon_norm, one, THREADS, shared, j);
    ft_launch(ctx, muon_scaled, by_rows, THREADS, 0, j);
    for (int k = 0; k < FT_MUON_STEPS; k++) {
        multiply(ctx, l.small, l.small, l.large, x, l.ld, x, l.ld, true, 1, NULL, 0, square,
                 l.ld_square);
        multiply(ctx, l.small, l.small, l.small, square, l.ld_square, square, l.ld_square, false,
                 FT_MUON_C, square, FT_MUON_B, poly, l.ld_square);
        multiply(ctx, l.small, l.large, l.small, poly, l.ld_square, x, l.ld, false, 1, x, FT_MUON_A,
                 y, l.ld);
        void *was = x;
        x = y;
        y = was;
    }
    j.x = (bf16 *)x;
    ft_launch(ctx, muon_apply, by_rows, THREADS, 0, j);
}
