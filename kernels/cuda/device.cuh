/* What CUDA kernels are written in: thread coordinates, shared memory, bf16, warp and tensor-core
 * instructions, launches. Everything that is not plain C++ goes through here, so that the same
 * sources compile for the host (FT_HOST_BUILD), where a block's threads are fibers and the tests
 * compare every op with the CPU's; see host/fibers.h. A test rejects asm and <<< elsewhere.
 *
 * A kernel is declared FT_KERNEL(threads) name(struct ft_mark mark, ...) and begins with
 * ft_begin(mark), which notes the op in host memory: what ran last is named when a device fails. */
#ifndef FT_CUDA_DEVICE_CUH
#define FT_CUDA_DEVICE_CUH

#include "kernels/cuda/runtime.h"

#include <math.h>

struct ft_mark {
    volatile uint32_t *at; /* host memory, mapped; NULL: not noted */
    uint32_t node;
};

struct ft_grid {
    int64_t x;
    int y, z;
};

struct bf16 {
    uint16_t bits;
};

#ifdef FT_HOST_BUILD

#include "kernels/cuda/host/fibers.h"

#define FT_DEVICE          static inline
#define FT_KERNEL(threads) static void
#define FT_UNROLL
#define FT_SHARED(type, name) type *name = (type *)ft_host_shared()

FT_DEVICE int ft_thread(void)
{
    return ft_host_thread();
}
FT_DEVICE int ft_threads(void)
{
    return ft_host_launch.threads;
}
FT_DEVICE int64_t ft_block_x(void)
{
    return ft_host_launch.block_x;
}
FT_DEVICE int ft_block_y(void)
{
    return ft_host_launch.block_y;
}
FT_DEVICE int ft_block_z(void)
{
    return ft_host_launch.block_z;
}
FT_DEVICE int64_t ft_grid_x(void)
{
    return ft_host_launch.grid_x;
}
FT_DEVICE int ft_grid_y(void)
{
    return ft_host_launch.grid_y;
}
FT_DEVICE void ft_sync_block(void)
{
    ft_host_sync_block();
}
FT_DEVICE void ft_sync_warp(void)
{
    ft_host_sync_warp();
}
FT_DEVICE float ft_shuffle_xor(float v, int mask)
{
    return ft_host_shuffle_xor(v, mask);
}
FT_DEVICE float ft_to_float(bf16 h)
{
    uint32_t u = (uint32_t)h.bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
FT_DEVICE bf16 ft_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if (f != f)
        return bf16{0x7fff};
    return bf16{(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
FT_DEVICE float ft_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
FT_DEVICE void ft_store16(void *p, const uint32_t v[4])
{
    memcpy(p, v, 16);
}
FT_DEVICE float ft_exp2(float x)
{
    return exp2f(x);
}
FT_DEVICE float ft_exp(float x)
{
    return expf(x);
}
FT_DEVICE void ft_ldmatrix(uint32_t r[4], const bf16 *row)
{
    ft_host_ldmatrix(r, row, false);
}
FT_DEVICE void ft_ldmatrix_trans(uint32_t r[4], const bf16 *row)
{
    ft_host_ldmatrix(r, row, true);
}
FT_DEVICE void ft_mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    ft_host_mma(d, a, b0, b1);
}
FT_DEVICE void ft_copy_async(bf16 *shared, const bf16 *from, bool valid)
{
    ft_host_copy_async(shared, from, valid);
}
FT_DEVICE void ft_copy_commit(void)
{
    ft_host_copy_commit();
}
template <int PENDING> FT_DEVICE void ft_copy_wait(void)
{
    ft_host_copy_wait(PENDING);
}

#else

#include <cuda_bf16.h>

#define FT_DEVICE          static __device__ __forceinline__
#define FT_KERNEL(threads) static __global__ void __launch_bounds__(threads)
#define FT_UNROLL          _Pragma("unroll")
#define FT_SHARED(type, name)                                                                      \
    extern __shared__ __align__(128) unsigned char ft_shared_memory[];                             \
    type *name = (type *)ft_shared_memory

FT_DEVICE int ft_thread(void)
{
    return (int)threadIdx.x;
}
FT_DEVICE int ft_threads(void)
{
    return (int)blockDim.x;
}
FT_DEVICE int64_t ft_block_x(void)
{
    return blockIdx.x;
}
FT_DEVICE int ft_block_y(void)
{
    return (int)blockIdx.y;
}
FT_DEVICE int ft_block_z(void)
{
    return (int)blockIdx.z;
}
FT_DEVICE int64_t ft_grid_x(void)
{
    return gridDim.x;
}
FT_DEVICE int ft_grid_y(void)
{
    return (int)gridDim.y;
}
FT_DEVICE void ft_sync_block(void)
{
    __syncthreads();
}
FT_DEVICE void ft_sync_warp(void)
{
    __syncwarp();
}
FT_DEVICE float ft_shuffle_xor(float v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}
FT_DEVICE float ft_to_float(bf16 h)
{
    return __uint_as_float((uint32_t)h.bits << 16);
}
FT_DEVICE bf16 ft_to_bf16(float f)
{
    return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(f))};
}
FT_DEVICE float ft_from_bits(uint32_t u)
{
    return __uint_as_float(u);
}
/* 16 bytes at once; the compiler cuts a plain store of a struct into four. */
FT_DEVICE void ft_store16(void *p, const uint32_t v[4])
{
    asm volatile("st.global.cg.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
                 "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}
FT_DEVICE float ft_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
FT_DEVICE float ft_exp(float x)
{
    return __expf(x);
}
FT_DEVICE uint32_t ft_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
/* Four 8x8 matrices of shared memory; lane l gives the address of row l%8 of matrix l/8. */
FT_DEVICE void ft_ldmatrix(uint32_t r[4], const bf16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ft_shared_address(row))
                 : "memory");
}
FT_DEVICE void ft_ldmatrix_trans(uint32_t r[4], const bf16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ft_shared_address(row))
                 : "memory");
}
/* d (16x8, f32) += a (16x16) b (16x8), in the fragments of the PTX manual. */
FT_DEVICE void ft_mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/* 16 bytes to shared memory, zeros if not valid; there after the wait for its commit and a barrier.
 */
FT_DEVICE void ft_copy_async(bf16 *shared, const bf16 *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ft_shared_address(shared)),
                 "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
FT_DEVICE void ft_copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int PENDING> FT_DEVICE void ft_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#endif

FT_DEVICE int ft_lane(void)
{
    return ft_thread() % 32;
}

FT_DEVICE int ft_warp(void)
{
    return ft_thread() / 32;
}

FT_DEVICE void ft_begin(struct ft_mark mark)
{
    if (mark.at && ft_thread() == 0 && ft_block_x() == 0 && ft_block_y() == 0 && ft_block_z() == 0)
        *mark.at = mark.node;
}

FT_DEVICE float ft_warp_sum(float v)
{
    for (int mask = 16; mask > 0; mask /= 2)
        v += ft_shuffle_xor(v, mask);
    return v;
}

FT_DEVICE float ft_warp_max(float v)
{
    for (int mask = 16; mask > 0; mask /= 2)
        v = fmaxf(v, ft_shuffle_xor(v, mask));
    return v;
}

/* The sum of the values of a block of N threads, to thread 0, in one fixed order. */
template <int N> FT_DEVICE double ft_block_sum(double v, double *shared)
{
    shared[ft_thread()] = v;
    for (int half = N / 2; half > 0; half /= 2) {
        ft_sync_block();
        if (ft_thread() < half)
            shared[ft_thread()] += shared[ft_thread() + half];
    }
    return shared[0];
}

FT_DEVICE uint32_t ft_pack(float low, float high)
{
    return (uint32_t)ft_to_bf16(low).bits | (uint32_t)ft_to_bf16(high).bits << 16;
}

/* V values of a row, widened; V is 8 (16 bytes, aligned) or 1. */
struct alignas(16) ft_vec8 {
    bf16 v[8];
};
template <int V> FT_DEVICE void ft_load(float out[V], const bf16 *p)
{
    if (V == 8) {
        const ft_vec8 x = *(const ft_vec8 *)p;
        FT_UNROLL
        for (int i = 0; i < V; i++)
            out[i] = ft_to_float(x.v[i]);
    } else {
        out[0] = ft_to_float(*p);
    }
}
template <int V> FT_DEVICE void ft_store(bf16 *p, const float in[V])
{
    if (V == 8) {
        uint32_t x[4];
        FT_UNROLL
        for (int i = 0; i < 4; i++)
            x[i] = ft_pack(in[2 * i % V], in[(2 * i + 1) % V]);
        ft_store16(p, x);
    } else {
        *p = ft_to_bf16(in[0]);
    }
}

/* --- launching, on the host's side --- */

/* Rows of bf16 that lie ld elements apart. */
struct ft_rows {
    bf16 *p;
    int64_t ld;
};
static inline struct ft_rows ft_rows_of(const struct ft_tensor *t)
{
    struct ft_rows r = {NULL, 0};
    if (t) {
        r.p = (bf16 *)t->data;
        r.ld = ft_tensor_ld(t);
    }
    return r;
}

/* Whether all rows of all these (NULL: none) can be read 16 bytes at a time. */
template <typename... T> static inline bool ft_is_wide(const T *...tensors)
{
    const struct ft_tensor *all[] = {tensors...};
    for (const struct ft_tensor *t : all)
        if (t && (t->cols % 8 || ft_tensor_ld(t) % 8 || (uintptr_t)t->data % 16))
            return false;
    return true;
}

/* Rows that a launch covers: the bucket for activations, all of the others. */
static inline int64_t ft_launch_rows(const struct ft_kernel_ctx *ctx, const struct ft_tensor *t)
{
    const int64_t n = ctx->counts[t->extent];
    return t->extent && n < t->rows ? n : t->rows;
}

/* How many blocks of a kernel are on the device at a time. */
template <typename... P>
static int64_t ft_resident_blocks(const struct ft_kernel_ctx *ctx,
                                  void (*kernel)(struct ft_mark, P...), int threads, size_t shared)
{
    struct ft_cuda *c = ft_cuda_of(ctx);
    int each = 3; /* as the host build has it */
#ifdef FT_HOST_BUILD
    (void)kernel, (void)threads, (void)shared;
#else
    if (ft_cuda_check(
            c, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared),
            "cudaOccupancyMaxActiveBlocksPerMultiprocessor"))
        return 0;
#endif
    return (int64_t)c->processors * (each > 0 ? each : 1);
}

/* Queues kernel<<<grid, threads, shared>>>(mark, args...). Nothing if the device has failed. */
template <typename... P, typename... A>
static void ft_launch(const struct ft_kernel_ctx *ctx, void (*kernel)(struct ft_mark, P...),
                      struct ft_grid grid, int threads, size_t shared, A... args)
{
    struct ft_cuda *c = ft_cuda_of(ctx);
    const struct ft_mark mark = {c->mark_device, (uint32_t)ctx->node};
    if (c->failed || grid.x <= 0)
        return;
#ifdef FT_HOST_BUILD
    ft_host_submit(c, grid.x, grid.y, grid.z, threads, shared,
                   [=] { kernel(mark, static_cast<P>(args)...); });
#else
    if (shared > 48 * 1024 &&
        ft_cuda_check(
            c,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
            "cudaFuncSetAttribute"))
        return;
    const dim3 blocks((unsigned)grid.x, (unsigned)grid.y, (unsigned)grid.z);
    kernel<<<blocks, (unsigned)threads, shared, c->stream>>>(mark, static_cast<P>(args)...);
    ft_cuda_check(c, cudaGetLastError(), "a kernel launch");
#endif
}

#endif
