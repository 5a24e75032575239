/* Products with an adapter's small matrix through masks of dropout (struct ft_linear_args): what is
 * read or written of the wide side passes the tensor cores once for all masks of a group, and the
 * bits fall on it in registers. K is the wide side's width, R the small matrix's. */
#include "kernels/cuda/product.h"
#include "kernels/cuda/tile.cuh"

enum {
    SIDE = 64, /* of the tiles, both ways */
    LD = ft_tile<SIDE>::LD,
    TILE = SIDE * LD,
    PART = 1024, /* rows that one block sums for dw */
    BITS = SIDE * SIDE / 8,
};

/* N masks side by side, each `bytes` long a row; column or row r of the small side reads through
 * mask r / per. */
struct masks {
    const uint8_t *p;
    int64_t ld, bytes;
    int n, per;
};

struct job {
    struct ft_rows x, low, add, y; /* low: A (R,K), or dy (T,R) where x meets it there */
    struct masks mask;
    float *parts;
    int64_t rows, cols, rank; /* the bucket, K, R */
    float alpha;
    bool wide;
};

FT_DEVICE int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The masks' bytes for a tile of x: SIDE rows from `row`, SIDE columns from `col`. */
FT_DEVICE void fetch_bits(uint8_t *bits, const struct masks &m, int64_t row, int64_t end,
                          int64_t col)
{
    for (int i = ft_thread(); i < m.n * BITS; i += FT_TILE_THREADS) {
        const int64_t t = row + i % BITS / 8, c = col / 8 + i % 8;
        bits[i] = t < end && c < m.bytes ? m.p[t * m.ld + i / BITS * m.bytes + c] : 0;
    }
}

FT_DEVICE uint32_t kept(const uint8_t *bits, int t, int c)
{
    return (uint32_t)(bits[8 * t + c / 8] >> (c % 8) & 1) * 0xffff;
}

/* The left operand's fragment of rows m.. and depth k.. of a tile of x, as one mask leaves it.
 * TRANS: rows of the operand are columns of x. */
template <bool TRANS>
FT_DEVICE void mask_fragment(uint32_t out[4], const uint32_t raw[4], const uint8_t *bits, int m,
                             int k)
{
    FT_UNROLL
    for (int i = 0; i < 4; i++) {
        const int r = m + ft_lane() / 4 + i % 2 * 8, d = k + ft_lane() % 4 * 2 + i / 2 * 8;
        const uint32_t low = TRANS ? kept(bits, d, r) : kept(bits, r, d);
        const uint32_t high = TRANS ? kept(bits, d + 1, r) : kept(bits, r, d + 1);
        out[i] = raw[i] & (low | high << 16);
    }
}

/* s (16 rows of this warp, 8 N columns) += tile of x, masked, times the tile of the small side. */
template <bool TRANS, int N>
FT_DEVICE void multiply(float s[N][4], const struct masks &masks, const bf16 *x, const bf16 *low,
                        const uint8_t *bits, int64_t first)
{
    const int m = ft_warp() * 16, i = ft_lane() / 8, r = ft_lane() % 8;
    for (int k = 0; k < SIDE; k += 16) {
        uint32_t raw[4], left[4], right[4];
        if (TRANS)
            ft_ldmatrix_trans(raw, x + (k + i / 2 * 8 + r) * LD + m + i % 2 * 8);
        else
            ft_ldmatrix(raw, x + (m + i % 2 * 8 + r) * LD + k + i / 2 * 8);
        int have = -1;
        FT_UNROLL
        for (int n = 0; n < N; n += 2) {
            if (TRANS)
                ft_ldmatrix_trans(right, low + (k + i % 2 * 8 + r) * LD + 8 * n + i / 2 * 8);
            else
                ft_ldmatrix(right, low + (8 * n + i / 2 * 8 + r) * LD + k + i % 2 * 8);
            FT_UNROLL
            for (int half = 0; half < 2; half++) {
                const int which = (int)smaller((first + 8 * (n + half)) / masks.per, masks.n - 1);
                if (which != have)
                    mask_fragment<TRANS>(left, raw, bits + which * BITS, m, k);
                have = which;
                ft_mma(s[n + half], left, right[2 * half], right[2 * half + 1]);
            }
        }
    }
}

/* Tiles of x and of the small side for depth k. */
template <bool TRANS, int N>
FT_DEVICE void fetch(const struct job &j, bf16 *x, bf16 *low, uint8_t *bits, int64_t m, int64_t n,
                     int64_t k, int64_t end)
{
    const int64_t row = TRANS ? k : m, col = TRANS ? m : k, last = TRANS ? end : j.rows;
    const int wide = (int)smaller(j.cols - col, SIDE);
    struct ft_rows from = j.x, other = j.low;
    from.p += col;
    ft_tile_load<SIDE, SIDE>(x, from, row, last, wide, j.wide);
    fetch_bits(bits, j.mask, row, last, col);
    other.p += TRANS ? n : k;
    if (TRANS)
        ft_tile_load<SIDE, SIDE>(low, other, k, end, (int)smaller(j.rank - n, SIDE), j.wide);
    else
        ft_tile_load<SIDE, 8 * N>(low, other, n, j.rank, wide, j.wide);
}

/* y = alpha (m x) A^T: a block 64 rows and 8 N columns. TRANS: parts of dy^T (m x), transposed: a
 * block 64 columns of x, 8 N of dy, and PART rows. */
template <bool TRANS, int N> FT_KERNEL(FT_TILE_THREADS) inward(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(bf16, x);
    bf16 *low = x + 2 * TILE;
    uint8_t *bits = (uint8_t *)(low + 2 * TILE);
    const int64_t m = ft_block_x() * SIDE, n = (int64_t)ft_block_y() * 8 * N;
    const int64_t begin = TRANS ? (int64_t)ft_block_z() * PART : 0;
    const int64_t end = TRANS ? smaller(begin + PART, j.rows) : j.cols;
    const int own = j.mask.n * BITS;
    float s[N][4] = {};
    fetch<TRANS, N>(j, x, low, bits, m, n, begin, end);
    ft_copy_commit();
    int stage = 0;
    for (int64_t k = begin; k < end; k += SIDE, stage ^= 1) {
        const int next = stage ^ 1;
        if (k + SIDE < end)
            fetch<TRANS, N>(j, x + next * TILE, low + next * TILE, bits + next * own, m, n,
                            k + SIDE, end);
        ft_copy_commit();
        ft_copy_wait<1>();
        ft_sync_block();
        multiply<TRANS, N>(s, j.mask, x + stage * TILE, low + stage * TILE, bits + stage * own, n);
        ft_sync_block();
    }
    FT_UNROLL
    for (int i = 0; i < N; i++)
        FT_UNROLL
    for (int e = 0; e < 4; e++) {
        const int64_t row = m + ft_warp() * 16 + ft_fragment_row(e);
        const int64_t col = n + 8 * i + ft_fragment_col(e);
        if (col >= j.rank || row >= (TRANS ? j.cols : j.rows))
            continue;
        if (TRANS)
            j.parts[(ft_block_z() * j.rank + col) * j.cols + row] = s[i][e];
        else
            j.y.p[row * j.y.ld + col] = ft_to_bf16(j.alpha * s[i][e]);
    }
}

/* dw = alpha times the sum of the parts, or added to what it was: a thread an element. */
FT_KERNEL(FT_TILE_THREADS)
sum_parts(struct ft_mark mark, struct job j, float *dw, int64_t ld, int parts, bool fresh)
{
    ft_begin(mark);
    const int64_t r = ft_block_x(), c = (int64_t)ft_block_y() * FT_TILE_THREADS + ft_thread();
    float sum = 0;
    if (c >= j.cols)
        return;
    for (int i = 0; i < parts; i++)
        sum += j.parts[(i * j.rank + r) * j.cols + c];
    dw[r * ld + c] = (fresh ? 0 : dw[r * ld + c]) + j.alpha * sum;
}

/* s (16 rows, SIDE columns) = du A for the rows of A of one mask. */
FT_DEVICE void low_rank_tile(const struct job &j, float s[SIDE / 8][4], bf16 *du, bf16 *a,
                             int64_t row, int64_t col, int64_t first, int64_t end)
{
    const int m = ft_warp() * 16, i = ft_lane() / 8, r = ft_lane() % 8;
    for (int64_t k = first; k < end; k += SIDE) {
        struct ft_rows from = j.x, other = j.low;
        const int depth = (int)smaller(end - k, SIDE);
        from.p += k;
        other.p += col;
        ft_sync_block();
        ft_tile_load<SIDE, SIDE>(du, from, row, j.rows, depth, j.wide);
        ft_tile_load<SIDE, SIDE>(a, other, k, end, (int)smaller(j.cols - col, SIDE), j.wide);
        ft_copy_commit();
        ft_copy_wait<0>();
        ft_sync_block();
        for (int d = 0; d < depth; d += 16) {
            uint32_t left[4], right[4];
            ft_ldmatrix(left, du + (m + i % 2 * 8 + r) * LD + d + i / 2 * 8);
            FT_UNROLL
            for (int n = 0; n < SIDE / 8; n += 2) {
                ft_ldmatrix_trans(right, a + (d + i % 2 * 8 + r) * LD + 8 * n + i / 2 * 8);
                ft_mma(s[n], left, right[0], right[1]);
                ft_mma(s[n + 1], left, right[2], right[3]);
            }
        }
    }
}

/* y = add + alpha m (du A): a block 64 rows and 64 columns. */
FT_KERNEL(FT_TILE_THREADS) outward(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(bf16, du);
    bf16 *a = du + TILE, *mine = a + TILE + ft_warp() * 16 * LD;
    const int64_t row = ft_block_x() * SIDE, col = (int64_t)ft_block_y() * SIDE;
    const int wide = (int)smaller(j.cols - col, SIDE);
    float sum[1][SIDE / 8][4] = {};
    if (j.add.p) {
        struct ft_rows from = j.add;
        from.p += col;
        ft_tile_load<SIDE, SIDE>(a + TILE, from, row, j.rows, wide, j.wide);
    }
    for (int i = 0; i < j.mask.n; i++) {
        float s[SIDE / 8][4] = {};
        low_rank_tile(j, s, du, a, row, col, (int64_t)i * j.mask.per,
                      (int64_t)(i + 1) * j.mask.per);
        FT_UNROLL
        for (int n = 0; n < SIDE / 8; n++)
            FT_UNROLL
        for (int e = 0; e < 4; e++) {
            const int64_t t = row + ft_warp() * 16 + ft_fragment_row(e), c = col / 8 + n;
            const bool has = t < j.rows && c < j.mask.bytes;
            const int byte = has ? j.mask.p[t * j.mask.ld + i * j.mask.bytes + c] : 0;
            sum[0][n][e] += byte >> ft_fragment_col(e) & 1 ? s[n][e] : 0;
        }
    }
    FT_UNROLL
    for (int n = 0; n < SIDE / 8; n++)
        FT_UNROLL
    for (int e = 0; e < 4; e++) {
        const bf16 *add = mine + ft_fragment_row(e) * LD + 8 * n + ft_fragment_col(e);
        sum[0][n][e] = (j.add.p ? ft_to_float(*add) : 0) + j.alpha * sum[0][n][e];
    }
    struct ft_rows to = j.y;
    to.p += col;
    ft_tile_store<SIDE, 1, SIDE / 8>(to, row + ft_warp() * 16, j.rows, wide, j.wide, sum, mine);
}

static int64_t tiles(int64_t n, int64_t side)
{
    return (n + side - 1) / side;
}

static struct job job_of(const struct ft_tensor *x, const struct ft_tensor *low,
                         const struct ft_tensor *mask, int64_t cols, int64_t rank, float alpha)
{
    struct job j = {};
    j.x = ft_rows_of(x);
    j.low = ft_rows_of(low);
    j.cols = cols;
    j.rank = rank;
    j.alpha = alpha;
    j.mask.p = (const uint8_t *)mask->data;
    j.mask.ld = ft_tensor_ld(mask);
    j.mask.bytes = (cols + 7) / 8;
    j.mask.n = (int)(mask->cols / j.mask.bytes);
    j.mask.per = (int)(rank / j.mask.n);
    return j;
}

/* By as many columns as the small side has, up to 64 a block. */
template <bool TRANS>
static void launch_inward(const struct ft_kernel_ctx *ctx, const struct job &j, int64_t x, int z)
{
    const size_t shared = 4 * TILE * sizeof(bf16) + 2 * (size_t)j.mask.n * BITS;
    const int64_t n = j.rank;
    const struct ft_grid grid = {x, (int)tiles(n, n <= 16 ? 16 : n <= 32 ? 32 : 64), z};
    if (n <= 16)
        ft_launch(ctx, inward<TRANS, 2>, grid, FT_TILE_THREADS, shared, j);
    else if (n <= 32)
        ft_launch(ctx, inward<TRANS, 4>, grid, FT_TILE_THREADS, shared, j);
    else
        ft_launch(ctx, inward<TRANS, 8>, grid, FT_TILE_THREADS, shared, j);
}

void ft_masked_linear(const struct ft_kernel_ctx *ctx, const struct ft_linear_args *l)
{
    struct job j = job_of(l->x, l->w, l->mask, l->x->cols, l->y->cols, l->alpha);
    j.y = ft_rows_of(l->y);
    j.rows = ft_launch_rows(ctx, l->y);
    j.wide = ft_is_wide(l->x, l->w);
    launch_inward<false>(ctx, j, tiles(j.rows, SIDE), 1);
}

void ft_masked_linear_dx(const struct ft_kernel_ctx *ctx, const struct ft_tensor *du,
                         const struct ft_tensor *a, const struct ft_tensor *mask, float alpha,
                         const struct ft_tensor *add, const struct ft_tensor *dx)
{
    struct job j = job_of(du, a, mask, dx->cols, du->cols, alpha);
    j.add = ft_rows_of(add);
    j.y = ft_rows_of(dx);
    j.rows = ft_launch_rows(ctx, dx);
    j.wide = ft_is_wide(du, a, add, dx) && j.mask.per % 8 == 0;
    const struct ft_grid grid = {tiles(j.rows, SIDE), (int)tiles(j.cols, SIDE), 1};
    ft_launch(ctx, outward, grid, FT_TILE_THREADS, 3 * TILE * sizeof(bf16), j);
}

size_t ft_cuda_linear_dw_scratch(const union ft_op_args *args)
{
    const struct ft_linear_dw_args *l = &args->linear_dw;
    if (l->offsets)
        return 0;
    const size_t parts = (size_t)tiles(l->x->rows, PART);
    const size_t bytes = parts * (size_t)(l->dw->rows * l->dw->cols) * sizeof(float);
    return l->mask && bytes > FT_PRODUCT_SCRATCH ? bytes : FT_PRODUCT_SCRATCH;
}

void ft_masked_linear_dw(const struct ft_kernel_ctx *ctx, const struct ft_linear_dw_args *l)
{
    struct job j = job_of(l->x, l->dy, l->mask, l->x->cols, l->dy->cols, l->alpha);
    j.parts = (float *)ctx->scratch;
    j.rows = ft_launch_rows(ctx, l->x);
    j.wide = ft_is_wide(l->x, l->dy);
    const int parts = (int)tiles(j.rows, PART);
    const struct ft_grid grid = {j.rank, (int)tiles(j.cols, FT_TILE_THREADS), 1};
    launch_inward<true>(ctx, j, tiles(j.cols, SIDE), parts);
    ft_launch(ctx, sum_parts, grid, FT_TILE_THREADS, 0, j, (float *)l->dw->data,
              ft_tensor_ld(l->dw), parts, l->fresh);
}
