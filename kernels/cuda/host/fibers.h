/* A GPU's threads on the host: the threads of a block are fibers, blocks run one after the other.
 *
 * A warp's collective instructions meet at a rendezvous, where the lane that comes last computes
 * for all. Asynchronous copies land when they are waited for; until then their place holds poison.
 * Shared memory is a heap block of exactly the size that was asked for, poisoned at the block's
 * start. The order in which fibers run is shuffled. A block that can go no further (a barrier that
 * not all reach) aborts. Not proven here: PTX encodings, memory ordering, bank conflicts, speed. */
#ifndef FT_CUDA_HOST_FIBERS_H
#define FT_CUDA_HOST_FIBERS_H

#include "kernels/cuda/runtime.h"

#include <functional>

struct bf16;

/* The launch and the block that run now. */
struct ft_host_launch_info {
    int threads, block_y, block_z, grid_y;
    int64_t block_x, grid_x;
};
extern struct ft_host_launch_info ft_host_launch;
extern size_t ft_host_shared_limit; /* of a block */

/* Runs the kernel now, or notes it if a program is being recorded. */
void ft_host_submit(struct ft_cuda *c, int64_t x, int y, int z, int threads, size_t shared,
                    std::function<void()> kernel);
/* The same for work that is not a kernel. */
void ft_host_submit_plain(struct ft_cuda *c, std::function<void()> work);

int ft_host_thread(void);
void *ft_host_shared(void);
void ft_host_sync_block(void);
void ft_host_sync_warp(void);
float ft_host_shuffle_xor(float v, int mask);
void ft_host_ldmatrix(uint32_t r[4], const bf16 *row, bool trans);
void ft_host_mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);
void ft_host_copy_async(bf16 *shared, const bf16 *from, bool valid);
void ft_host_copy_commit(void);
void ft_host_copy_wait(int pending);

#endif
