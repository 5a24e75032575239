/* Matrix products on tensor cores: bf16 in, f32 sums, bf16 or f32 out. product.cu calls cuBLASLt;
 * host/product.cpp is a plain loop for the host build. */
#ifndef FT_CUDA_PRODUCT_H
#define FT_CUDA_PRODUCT_H

#include "kernels/cuda/runtime.h"

/* d (m,n) = alpha op(a) op(b) + beta c + bias, all row-major. op(a) is (m,k): a is (m,k), or (k,m)
 * if a_trans; op(b) is (k,n): b is (k,n), or (n,k) if b_trans. c has d's dtype and may be d. */
struct ft_product {
    int64_t m, n, k;
    const void *a, *b, *c, *bias; /* c, bias (n, bf16): NULL for none */
    int64_t lda, ldb, ldc, ldd;
    bool a_trans, b_trans;
    float alpha, beta;
    void *d;
    enum ft_dtype out; /* of c and d: FT_BF16 or FT_F32 */
};

/* Bytes of workspace a product may use, at ctx->scratch's beginning. */
#define FT_PRODUCT_SCRATCH ((size_t)32 << 20)

/* Queues the product; workspace NULL: none. Failure is noted in the backend. */
void ft_cuda_product(const struct ft_kernel_ctx *ctx, const struct ft_product *p, void *workspace);

/* Those through masks, of masked.cu, whose scratch is ft_cuda_linear_dw_scratch. */
void ft_masked_linear(const struct ft_kernel_ctx *ctx, const struct ft_linear_args *l);
void ft_masked_linear_dx(const struct ft_kernel_ctx *ctx, const struct ft_tensor *du,
                         const struct ft_tensor *a, const struct ft_tensor *mask, float alpha,
                         const struct ft_tensor *add, const struct ft_tensor *dx);
void ft_masked_linear_dw(const struct ft_kernel_ctx *ctx, const struct ft_linear_dw_args *l);

/* Those of experts, of grouped.cu. */
void ft_grouped_linear(const struct ft_kernel_ctx *ctx, const struct ft_linear_args *l);
void ft_grouped_linear_dx(const struct ft_kernel_ctx *ctx, const struct ft_linear_dx_args *l);
void ft_grouped_linear_dw(const struct ft_kernel_ctx *ctx, const struct ft_linear_dw_args *l);

int ft_products_open(struct ft_cuda *c); /* and the products_ functions of c->fns */
void ft_products_close(struct ft_cuda *c);

#endif
