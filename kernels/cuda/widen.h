/* Quantised matrices as bf16, for the ops that read them. */
#ifndef FT_CUDA_WIDEN_H
#define FT_CUDA_WIDEN_H

#include "core/quant.h"
#include "kernels/cuda/device.cuh"

/* Bytes that ft_widened writes; 0: w is not quantised. */
size_t ft_widened_bytes(const struct ft_tensor *w);
/* w itself, or what it stands for, which is queued to be written to room. */
struct ft_tensor ft_widened(const struct ft_kernel_ctx *ctx, const struct ft_tensor *w, void *room);

#endif
