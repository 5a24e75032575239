/* compose and its backward: a matrix from two smaller ones. A thread an element. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 128 };

/* One of the two: a b, or a alone; and its gradient (rows, cols). */
struct part {
    struct ft_rows a, b;
    float *gradient;
    int64_t rows, cols, inner; /* inner 0: a alone */
};

struct job {
    struct part p, q;
    struct ft_rows y;
    const float *dy;
    int64_t cols, ld; /* of y, of dy */
    float alpha;
    bool kronecker, second;
};

FT_DEVICE float value(const struct part &p, int64_t r, int64_t c)
{
    if (!p.inner)
        return ft_to_float(p.a.p[r * p.a.ld + c]);
    float sum = 0;
    for (int64_t k = 0; k < p.inner; k++)
        sum += ft_to_float(p.a.p[r * p.a.ld + k]) * ft_to_float(p.b.p[k * p.b.ld + c]);
    return sum;
}

FT_KERNEL(THREADS) compose(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    const int64_t r = ft_block_x(), c = (int64_t)ft_block_y() * THREADS + ft_thread();
    if (c >= j.cols)
        return;
    const float v = j.kronecker ? value(j.p, r / j.q.rows, c / j.q.cols) *
                                      value(j.q, r % j.q.rows, c % j.q.cols)
                                : value(j.p, r, c) * value(j.q, r, c);
    j.y.p[r * j.y.ld + c] = ft_to_bf16(j.alpha * v);
}

/* The gradient of an element of one part's value: the second's if j.second. */
FT_KERNEL(THREADS) compose_gradient(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    const struct part &q = j.q, &own = j.second ? q : j.p, &other = j.second ? j.p : q;
    const int64_t r = ft_block_x(), c = (int64_t)ft_block_y() * THREADS + ft_thread();
    float sum = 0;
    if (c >= own.cols)
        return;
    if (!j.kronecker)
        sum = j.dy[r * j.ld + c] * value(other, r, c);
    for (int64_t i = 0; i < other.rows && j.kronecker; i++) {
        const int64_t at = j.second ? i * q.rows + r : r * q.rows + i;
        for (int64_t k = 0; k < other.cols; k++)
            sum +=
                j.dy[at * j.ld + (j.second ? k * q.cols + c : c * q.cols + k)] * value(other, i, k);
    }
    own.gradient[r * own.cols + c] = j.alpha * sum;
}

/* da += gradient b^T, or gradient itself. */
FT_KERNEL(THREADS)
compose_left(struct ft_mark mark, struct part p, float *da, int64_t cols, int64_t ld)
{
    ft_begin(mark);
    const int64_t r = ft_block_x(), c = (int64_t)ft_block_y() * THREADS + ft_thread();
    float sum = 0;
    if (c >= cols)
        return;
    if (!p.inner)
        sum = p.gradient[r * p.cols + c];
    for (int64_t k = 0; k < p.cols && p.inner; k++)
        sum += p.gradient[r * p.cols + k] * ft_to_float(p.b.p[c * p.b.ld + k]);
    da[r * ld + c] += sum;
}

/* db += a^T gradient */
FT_KERNEL(THREADS) compose_right(struct ft_mark mark, struct part p, float *db, int64_t ld)
{
    ft_begin(mark);
    const int64_t r = ft_block_x(), c = (int64_t)ft_block_y() * THREADS + ft_thread();
    float sum = 0;
    if (c >= p.cols)
        return;
    for (int64_t i = 0; i < p.rows; i++)
        sum += ft_to_float(p.a.p[i * p.a.ld + r]) * p.gradient[i * p.cols + c];
    db[r * ld + c] += sum;
}

static struct ft_grid grid_of(int64_t rows, int64_t cols)
{
    return {rows, (int)((cols + THREADS - 1) / THREADS), 1};
}

static struct part part_of(const struct ft_tensor *a, const struct ft_tensor *b)
{
    struct part p = {};
    p.a = ft_rows_of(a);
    p.b = ft_rows_of(b);
    p.rows = a->rows;
    p.cols = b ? b->cols : a->cols;
    p.inner = b ? b->rows : 0;
    return p;
}

void ft_cuda_compose(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_compose_args *c = &args->compose;
    struct job j = {};
    j.p = part_of(c->pa, c->pb);
    j.q = part_of(c->qa, c->qb);
    j.y = ft_rows_of(c->y);
    j.cols = c->y->cols;
    j.alpha = c->alpha;
    j.kronecker = c->kronecker;
    ft_launch(ctx, compose, grid_of(c->y->rows, j.cols), THREADS, 0, j);
}

size_t ft_cuda_compose_dx_scratch(const union ft_op_args *args)
{
    const struct ft_compose_dx_args *c = &args->compose_dx;
    const struct part p = part_of(c->pa, c->pb), q = part_of(c->qa, c->qb);
    return (size_t)(p.rows * p.cols + q.rows * q.cols) * sizeof(float);
}

static void close_part(const struct ft_kernel_ctx *ctx, const struct part &p,
                       const struct ft_tensor *da, const struct ft_tensor *db)
{
    ft_launch(ctx, compose_left, grid_of(p.rows, da->cols), THREADS, 0, p, (float *)da->data,
              da->cols, ft_tensor_ld(da));
    if (db)
        ft_launch(ctx, compose_right, grid_of(db->rows, p.cols), THREADS, 0, p, (float *)db->data,
                  ft_tensor_ld(db));
}

void ft_cuda_compose_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_compose_dx_args *c = &args->compose_dx;
    struct job j = {};
    j.p = part_of(c->pa, c->pb);
    j.q = part_of(c->qa, c->qb);
    j.p.gradient = (float *)ctx->scratch;
    j.q.gradient = j.p.gradient + j.p.rows * j.p.cols;
    j.dy = (const float *)c->dy->data;
    j.ld = ft_tensor_ld(c->dy);
    j.alpha = c->alpha;
    j.kronecker = c->kronecker;
    ft_launch(ctx, compose_gradient, grid_of(j.p.rows, j.p.cols), THREADS, 0, j);
    j.second = true;
    ft_launch(ctx, compose_gradient, grid_of(j.q.rows, j.q.cols), THREADS, 0, j);
    close_part(ctx, j.p, c->dpa, c->dpb);
    close_part(ctx, j.q, c->dqa, c->dqb);
}
