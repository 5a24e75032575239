/* The backend interface: memory and a full table of ops. */
#ifndef FT_KERNELS_BACKEND_H
#define FT_KERNELS_BACKEND_H

#include "kernels/ops.h"

struct ft_backend {
    const char *device; /* "cpu" */
    const char *isa;    /* what its kernels were compiled for: "avx512", ... */
    ft_op_fn *ops[FT_OP_COUNT];
    int (*alloc)(void **out, size_t bytes); /* zeroed; FT_ERESOURCE */
    void (*free)(void *ptr, size_t bytes);
};

/* The CPU backend for an instruction set: "auto" (the best this machine has), "avx512", "avx2" or
 * "generic". FT_ERESOURCE if this machine or this build lacks it. avx2 and avx512 give the same
 * bits. */
int ft_cpu_backend(const struct ft_backend **out, const char *isa);

/* The processor's own name, "" if unknown. */
const char *ft_cpu_model(void);

#endif
