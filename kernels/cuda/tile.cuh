/* Tiles of attention: rows of one head in shared memory, and the two shapes of product that
 * attention is made of, on tensor cores. D is the head size rounded up to a size with kernels of
 * its own; columns behind the true size are zeros.
 *
 * Fragments are those of mma.m16n8k16 (PTX manual): thread l of a warp holds, of a 16x8 sum, rows
 * l/4 and l/4 + 8, columns 2 (l%4) and the next. A sum's fragments, rounded, are the left operand
 * of a product over its columns: so softmax's output never leaves the registers. */
#ifndef FT_CUDA_TILE_CUH
#define FT_CUDA_TILE_CUH

#include "kernels/cuda/device.cuh"

enum { FT_TILE_WARPS = 4, FT_TILE_THREADS = 32 * FT_TILE_WARPS };

/* Elements from a row of a tile to the next: 16 bytes more than the row, so that the eight rows an
 * ldmatrix reads at once lie in different banks. */
template <int D> struct ft_tile {
    static constexpr int LD = D + 8;
};

/* Copies rows first.. of `from` (columns 0..d-1 of a head) to a tile of ROWS rows; zeros from row
 * `end` on and behind d. wide: 16 bytes at a time, in the background, see ft_copy_async. */
template <int D, int ROWS>
FT_DEVICE void ft_tile_load(bf16 *tile, struct ft_rows from, int64_t first, int64_t end, int d,
                            bool wide)
{
    constexpr int CHUNKS = D / 8;
    for (int i = ft_thread(); i < ROWS * CHUNKS; i += FT_TILE_THREADS) {
        const int r = i / CHUNKS, c = i % CHUNKS * 8;
        const bool valid = first + r < end && c < d;
        bf16 *to = tile + r * ft_tile<D>::LD + c;
        const bf16 *p = from.p + (valid ? (first + r) * from.ld + c : 0);
        if (wide) {
            ft_copy_async(to, p, valid);
            continue;
        }
        for (int k = 0; k < 8; k++)
            to[k] = valid && c + k < d ? p[k] : ft_to_bf16(0);
    }
}

/* s += rows of a (16 M of this warp, D) times rows of b (8 N, D), transposed. */
template <int D, int M, int N>
FT_DEVICE void ft_tile_nt(float s[M][N][4], const bf16 *a, const bf16 *b)
{
    constexpr int LD = ft_tile<D>::LD;
    const int lane = ft_lane(), i = lane / 8, r = lane % 8;
    FT_UNROLL
    for (int k = 0; k < D; k += 16) {
        uint32_t left[M][4];
        FT_UNROLL
        for (int m = 0; m < M; m++)
            ft_ldmatrix(left[m], a + (16 * m + i % 2 * 8 + r) * LD + k + i / 2 * 8);
        FT_UNROLL
        for (int n = 0; n < N; n += 2) {
            uint32_t right[4];
            ft_ldmatrix(right, b + (8 * n + i / 2 * 8 + r) * LD + k + i % 2 * 8);
            FT_UNROLL
            for (int m = 0; m < M; m++) {
                ft_mma(s[m][n], left[m], right[0], right[1]);
                ft_mma(s[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* o += p (16 M, 8 N: a sum's fragments, rounded) times N*8 rows of b, columns 0..8C-1. */
template <int D, int M, int N, int C>
FT_DEVICE void ft_tile_nn(float o[M][C][4], const float p[M][N][4], const bf16 *b)
{
    constexpr int LD = ft_tile<D>::LD;
    const int lane = ft_lane(), i = lane / 8, r = lane % 8;
    FT_UNROLL
    for (int k = 0; k < N; k += 2) { /* 16 rows of b */
        uint32_t left[M][4];
        FT_UNROLL
        for (int m = 0; m < M; m++) {
            left[m][0] = ft_pack(p[m][k][0], p[m][k][1]);
            left[m][1] = ft_pack(p[m][k][2], p[m][k][3]);
            left[m][2] = ft_pack(p[m][k + 1][0], p[m][k + 1][1]);
            left[m][3] = ft_pack(p[m][k + 1][2], p[m][k + 1][3]);
        }
        FT_UNROLL
        for (int c = 0; c < C; c += 2) {
            uint32_t right[4];
            ft_ldmatrix_trans(right, b + (8 * k + i % 2 * 8 + r) * LD + 8 * c + i / 2 * 8);
            FT_UNROLL
            for (int m = 0; m < M; m++) {
                ft_mma(o[m][c], left[m], right[0], right[1]);
                ft_mma(o[m][c + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* The row within its 16 of element e of a fragment, and the column within its 8. */
FT_DEVICE int ft_fragment_row(int e)
{
    return ft_lane() / 4 + e / 2 * 8;
}
FT_DEVICE int ft_fragment_col(int e)
{
    return ft_lane() % 4 * 2 + e % 2;
}

/* Writes this warp's sums (16 M rows, 8 C columns) to rows first.. of `to`, through its own part of
 * shared memory. Rows from `end` on are left alone. */
template <int D, int M, int C>
FT_DEVICE void ft_tile_store(struct ft_rows to, int64_t first, int64_t end, int d, bool wide,
                             const float o[M][C][4], bf16 *staging)
{
    constexpr int LD = ft_tile<D>::LD;
    ft_sync_warp();
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int c = 0; c < C; c++)
        FT_UNROLL
    for (int e = 0; e < 4; e += 2)
        *(uint32_t *)(staging + (16 * m + ft_fragment_row(e)) * LD + 8 * c + ft_fragment_col(e)) =
            ft_pack(o[m][c][e], o[m][c][e + 1]);
    ft_sync_warp();
    for (int i = ft_lane(); i < 16 * M * C; i += 32) {
        const int r = i / C, c = i % C * 8;
        if (first + r >= end || c >= d)
            continue;
        bf16 *p = to.p + (first + r) * to.ld + c;
        const bf16 *q = staging + r * LD + c;
        if (wide)
            *(ft_vec8 *)p = *(const ft_vec8 *)q;
        else
            for (int k = 0; k < 8 && c + k < d; k++)
                p[k] = q[k];
    }
}

#endif
