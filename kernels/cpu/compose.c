/* compose and its backward: a matrix from two smaller ones. */
#include "kernels/cpu/cpu.h"

/* One of the two: a b, or a alone. */
struct part {
    const struct ft_tensor *a, *b;
    int64_t rows, cols;
    float *value, *gradient; /* (rows, cols) */
};

struct job {
    struct part p, q;
    const float *dy;
    float *y;
    int64_t ld;
    float alpha;
    bool kronecker, second;
};

static void product(const struct ft_kernel_ctx *ctx, const struct ft_gemm *g)
{
    K(gemm)(ctx->pool, ctx->scratch, g);
}

/* Takes rows x cols floats of scratch for the part's value, and computes it. */
static float *open_part(const struct ft_kernel_ctx *ctx, struct part *p, const struct ft_tensor *a,
                        const struct ft_tensor *b, float *room)
{
    *p = (struct part){.a = a, .b = b, .rows = a->rows, .cols = b ? b->cols : a->cols};
    p->value = room;
    for (int64_t r = 0; r < a->rows && !b; r++)
        K(widen_row)(room + r * a->cols, a, r);
    if (!b)
        return room + p->rows * p->cols;
    product(ctx, &(struct ft_gemm){.m = p->rows,
                                   .n = p->cols,
                                   .k = {b->rows},
                                   .a = {a->data},
                                   .a_rs = {ft_tensor_ld(a)},
                                   .a_cs = {1},
                                   .b = {{b->data, b->dtype, ft_tensor_ld(b), false, 1}},
                                   .c = room,
                                   .ldc = p->cols});
    return room + p->rows * p->cols;
}

static void compose_row(void *arg, int64_t n, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct part *p = &j->p, *q = &j->q;
    float *y = j->y + n * j->ld;
    if (!j->kronecker) {
        for (int64_t k = 0; k < p->cols; k++)
            y[k] = j->alpha * p->value[n * p->cols + k] * q->value[n * q->cols + k];
        return;
    }
    const float *a = p->value + n / q->rows * p->cols, *b = q->value + n % q->rows * q->cols;
    for (int64_t k = 0; k < p->cols; k++)
        for (int64_t l = 0; l < q->cols; l++)
            y[k * q->cols + l] = j->alpha * a[k] * b[l];
}

void K(compose)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_compose_args *c = &args->compose;
    struct job j = {
        .y = c->y->data, .ld = ft_tensor_ld(c->y), .alpha = c->alpha, .kronecker = c->kronecker};
    float *room = (float *)((char *)ctx->scratch + FT_GEMM_SCRATCH);
    room = open_part(ctx, &j.p, c->pa, c->pb, room);
    open_part(ctx, &j.q, c->qa, c->qb, room);
    ft_pool_run(ctx->pool, c->y->rows, compose_row, &j);
}

/* A row of the gradient of one part's value: the second's if j->second. */
static void gradient_row(void *arg, int64_t row, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct part *q = &j->q, *own = j->second ? q : &j->p, *other = j->second ? &j->p : q;
    float *d = own->gradient + row * own->cols;
    for (int64_t c = 0; c < own->cols && !j->kronecker; c++)
        d[c] = j->alpha * j->dy[row * j->ld + c] * other->value[row * other->cols + c];
    for (int64_t c = 0; c < own->cols && j->kronecker; c++) {
        double sum = 0;
        for (int64_t i = 0; i < other->rows; i++) {
            const int64_t at = j->second ? i * q->rows + row : row * q->rows + i;
            for (int64_t k = 0; k < other->cols; k++)
                sum +=
                    (double)(j->dy[at * j->ld + (j->second ? k * q->cols + c : c * q->cols + k)] *
                             other->value[i * other->cols + k]);
        }
        d[c] = j->alpha * (float)sum;
    }
}

/* From the gradient of a part's value to those of what it is made of. */
static void close_part(const struct ft_kernel_ctx *ctx, const struct part *p, struct ft_tensor *da,
                       struct ft_tensor *db)
{
    float *a = da->data;
    for (int64_t i = 0; i < p->rows * p->cols && !p->b; i++)
        a[i / p->cols * ft_tensor_ld(da) + i % p->cols] += p->gradient[i];
    if (!p->b)
        return;
    const struct ft_tensor *b = p->b;
    product(ctx, &(struct ft_gemm){.m = p->rows,
                                   .n = da->cols,
                                   .k = {p->cols},
                                   .a = {p->gradient},
                                   .a_rs = {p->cols},
                                   .a_cs = {1},
                                   .b = {{b->data, b->dtype, ft_tensor_ld(b), true, 1}},
                                   .add = a,
                                   .ldadd = ft_tensor_ld(da),
                                   .c = a,
                                   .ldc = ft_tensor_ld(da)});
    product(ctx, &(struct ft_gemm){.m = db->rows,
                                   .n = p->cols,
                                   .k = {p->rows},
                                   .a = {p->a->data},
                                   .a_rs = {1},
                                   .a_cs = {ft_tensor_ld(p->a)},
                                   .b = {{p->gradient, FT_F32, p->cols, false, 1}},
                                   .add = db->data,
                                   .ldadd = ft_tensor_ld(db),
                                   .c = db->data,
                                   .ldc = ft_tensor_ld(db)});
}

void K(compose_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_compose_dx_args *c = &args->compose_dx;
    struct job j = {
        .dy = c->dy->data, .ld = ft_tensor_ld(c->dy), .alpha = c->alpha, .kronecker = c->kronecker};
    float *room = (float *)((char *)ctx->scratch + FT_GEMM_SCRATCH);
    room = open_part(ctx, &j.p, c->pa, c->pb, room);
    room = open_part(ctx, &j.q, c->qa, c->qb, room);
    j.p.gradient = room;
    j.q.gradient = room + j.p.rows * j.p.cols;
    ft_pool_run(ctx->pool, j.p.rows, gradient_row, &j);
    j.second = true;
    ft_pool_run(ctx->pool, j.q.rows, gradient_row, &j);
    close_part(ctx, &j.p, c->dpa, c->dpb);
    close_part(ctx, &j.q, c->dqa, c->dqb);
}
