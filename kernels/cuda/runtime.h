/* The CUDA backend's state, and what kernels' host code needs of the runtime. Implemented by
 * runtime.cu with the CUDA runtime, and by host/runtime.cpp for the host build. */
#ifndef FT_CUDA_RUNTIME_H
#define FT_CUDA_RUNTIME_H

#include "kernels/backend.h"

#include <stdint.h>
#include <string.h>

#ifdef FT_HOST_BUILD
typedef struct ft_host_queue *ft_stream;
#else
#include <cuda_runtime.h>
typedef cudaStream_t ft_stream;
#endif

struct ft_cuda {
    struct ft_backend base; /* first: a backend of this kind is its ft_cuda */
    struct ft_device_fns fns;
    char isa[32];
    int device, processors; /* streaming multiprocessors */
    size_t shared_limit;    /* bytes of shared memory that a block can have */
    ft_stream stream;
    void *products;          /* product.cu's state */
    volatile uint32_t *mark; /* node of the op that began last; host memory that the device sees */
    volatile uint32_t *mark_device;
    void *events[FT_DEVICE_MARKS];
    bool failed;
    char error[512];
};

static inline struct ft_cuda *ft_cuda_of(const struct ft_kernel_ctx *ctx)
{
    return (struct ft_cuda *)(uintptr_t)ctx->backend;
}

/* Notes the first failure. */
void ft_cuda_fail(struct ft_cuda *c, const char *what, const char *why);
#ifndef FT_HOST_BUILD
/* -1, and the failure noted, if e is an error. */
int ft_cuda_check(struct ft_cuda *c, cudaError_t e, const char *what);
#endif

/* table.cu: the ops and their scratch, into c->base. */
void ft_cuda_fill_table(struct ft_cuda *c);

/* Fills with zero bytes, in stream order. */
void ft_cuda_zero(const struct ft_kernel_ctx *ctx, void *p, size_t bytes);

#define X(name, ins, outs)                                                                         \
    void ft_cuda_##name(const struct ft_kernel_ctx *, const union ft_op_args *);
FT_OPS(X)
#undef X

#endif
