/* linear, linear_dx, linear_dw: the ops that are matrix products. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/product.h"
#include "kernels/cuda/widen.h"

/* Whether b's columns lie right behind a's, row by row: then both are one operand. */
static bool is_beside(const struct ft_tensor *a, const struct ft_tensor *b)
{
    return ft_tensor_ld(a) == ft_tensor_ld(b) && a->rows == b->rows && a->dtype == b->dtype &&
           (const uint16_t *)a->data + a->cols == (const uint16_t *)b->data;
}

/* Whether b's rows lie right below a's. */
static bool is_below(const struct ft_tensor *a, const struct ft_tensor *b)
{
    return ft_tensor_ld(a) == ft_tensor_ld(b) && a->cols == b->cols && a->dtype == b->dtype &&
           (const uint16_t *)a->data + a->rows * ft_tensor_ld(a) == (const uint16_t *)b->data;
}

/* Where quantised weights are widened to. */
static void *behind_product(const struct ft_kernel_ctx *ctx)
{
    return (char *)ctx->scratch + FT_PRODUCT_SCRATCH;
}

size_t ft_cuda_linear_scratch(const union ft_op_args *args)
{
    return args->linear.offsets ? 0 : FT_PRODUCT_SCRATCH + ft_widened_bytes(args->linear.w);
}

size_t ft_cuda_linear_dx_scratch(const union ft_op_args *args)
{
    return args->linear_dx.offsets ? 0 : FT_PRODUCT_SCRATCH + ft_widened_bytes(args->linear_dx.w);
}

void ft_cuda_linear(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_linear_args *l = &args->linear;
    struct ft_product p = {};
    if (l->offsets) {
        ft_grouped_linear(ctx, l);
        return;
    }
    if (l->mask) {
        ft_masked_linear(ctx, l);
        return;
    }
    const struct ft_tensor w = ft_widened(ctx, l->w, behind_product(ctx));
    p.m = ft_launch_rows(ctx, l->y);
    p.n = l->y->cols;
    p.k = l->x->cols;
    p.a = l->x->data;
    p.lda = ft_tensor_ld(l->x);
    p.b = w.data;
    p.ldb = ft_tensor_ld(&w);
    p.b_trans = true;
    p.alpha = l->alpha;
    p.d = l->y->data;
    p.ldd = ft_tensor_ld(l->y);
    p.out = l->y->dtype;
    p.bias = l->bias ? l->bias->data : NULL;
    if (l->add) {
        p.c = l->add->data;
        p.ldc = ft_tensor_ld(l->add);
        p.beta = 1;
    }
    const bool one = l->u && l->alpha == l->beta && is_beside(l->x, l->u) && is_beside(&w, l->b);
    p.k += one ? l->u->cols : 0;
    ft_cuda_product(ctx, &p, ctx->scratch);
    if (!l->u || one)
        return;
    p.k = l->u->cols;
    p.a = l->u->data;
    p.lda = ft_tensor_ld(l->u);
    p.b = l->b->data;
    p.ldb = ft_tensor_ld(l->b);
    p.alpha = l->beta;
    p.bias = NULL;
    p.c = p.d;
    p.ldc = p.ldd;
    p.beta = 1;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

void ft_cuda_linear_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_linear_dx_args *l = &args->linear_dx;
    struct ft_product p = {};
    if (l->offsets) {
        ft_grouped_linear_dx(ctx, l);
        return;
    }
    if (l->mask && !l->du) {
        ft_masked_linear_dx(ctx, l->dy, l->w, l->mask, l->alpha, l->add, l->dx);
        return;
    }
    const struct ft_tensor w = ft_widened(ctx, l->w, behind_product(ctx));
    p.m = ft_launch_rows(ctx, l->dx);
    p.n = l->dx->cols;
    p.k = l->dy->cols;
    p.a = l->dy->data;
    p.lda = ft_tensor_ld(l->dy);
    p.b = w.data;
    p.ldb = ft_tensor_ld(&w);
    p.alpha = l->alpha;
    p.d = l->dx->data;
    p.ldd = ft_tensor_ld(l->dx);
    p.out = l->dx->dtype;
    if (l->add) {
        p.c = l->add->data;
        p.ldc = ft_tensor_ld(l->add);
        p.beta = 1;
    }
    const bool one =
        l->du && !l->mask && l->alpha == l->beta && is_beside(l->dy, l->du) && is_below(&w, l->a);
    p.k += one ? l->du->cols : 0;
    ft_cuda_product(ctx, &p, ctx->scratch);
    if (l->mask)
        ft_masked_linear_dx(ctx, l->du, l->a, l->mask, l->beta, l->dx, l->dx);
    if (!l->du || one || l->mask)
        return;
    p.k = l->du->cols;
    p.a = l->du->data;
    p.lda = ft_tensor_ld(l->du);
    p.b = l->a->data;
    p.ldb = ft_tensor_ld(l->a);
    p.alpha = l->beta;
    p.c = p.d;
    p.ldc = p.ldd;
    p.beta = 1;
    ft_cuda_product(ctx, &p, ctx->scratch);
}

/* Rows between the live ones and the bucket add nothing: dy is zero there. */
void ft_cuda_linear_dw(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_linear_dw_args *l = &args->linear_dw;
    struct ft_product p = {};
    if (l->offsets) {
        ft_grouped_linear_dw(ctx, l);
        return;
    }
    if (l->mask) {
        ft_masked_linear_dw(ctx, l);
        return;
    }
    p.m = l->dw->rows;
    p.n = l->dw->cols;
    p.k = ft_launch_rows(ctx, l->x);
    p.a = l->dy->data;
    p.lda = ft_tensor_ld(l->dy);
    p.a_trans = true;
    p.b = l->x->data;
    p.ldb = ft_tensor_ld(l->x);
    p.alpha = l->alpha;
    p.d = l->dw->data;
    p.c = l->fresh ? NULL : l->dw->data;
    p.ldc = p.ldd = ft_tensor_ld(l->dw);
    p.beta = l->fresh ? 0.f : 1.f;
    p.out = l->dw->dtype;
    ft_cuda_product(ctx, &p, ctx->scratch);
}
