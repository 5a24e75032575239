/* Products of experts (struct ft_linear_args): rows sorted by expert, each expert's rows times its own
 * matrix. As many blocks as the device has room for stay for the whole product and find their
 * pieces by the offsets, in device memory, so that a launch is the same whatever the routing.
 * Quantised weights are widened as tiles of them are read, those of experts without rows never. */
#include "kernels/cuda/product.h"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/widen.cuh"

enum {
    SIDE = 64, /* of the tiles, both ways */
    LD = ft_tile<SIDE>::LD,
    TILE = SIDE * LD,
};

/* A left side (rows of all experts) and a right side, `each` rows of which are an expert's. */
struct part {
    struct ft_rows left, right;
    int64_t depth, each;
    float scale;
};

struct job {
    const int32_t *offsets;
    int experts;
    struct part part[2]; /* depth 0: there is none */
    struct ft_planes quant; /* of an expert of the first right side; p[0] NULL: it is not quantised */
    struct ft_block_size size;
    size_t quant_bytes; /* from an expert to the next */
    struct ft_rows add, y, bias;
    float *dw;
    int64_t cols, ld; /* of y; of dw */
    bool wide, fresh;
};

FT_DEVICE int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The list of pieces, SIDE rows of an expert and SIDE columns each: expert after expert, of an
 * expert its rows, of rows their columns. A block walks it with its pieces. */
struct piece {
    int64_t number, before; /* blocks of rows of the experts before */
    int expert;
    int64_t row, col;
};

/* Where a piece is, the one of before being behind it; false: there are fewer pieces. */
FT_DEVICE bool find_piece(const struct job &j, struct piece *p)
{
    const int64_t columns = (j.cols + SIDE - 1) / SIDE, block = p->number / columns;
    for (; p->expert < j.experts; p->expert++) {
        const int64_t begin = j.offsets[p->expert];
        const int64_t blocks = (j.offsets[p->expert + 1] - begin + SIDE - 1) / SIDE;
        if (block - p->before < blocks) {
            p->row = begin + (block - p->before) * SIDE;
            p->col = p->number % columns * SIDE;
            return true;
        }
        p->before += blocks;
    }
    return false;
}

/* s (16 rows of this warp, SIDE columns) += left right: LEFT, RIGHT: its tile has the depth as its
 * rows. */
template <bool LEFT, bool RIGHT>
FT_DEVICE void multiply(float s[SIDE / 8][4], const bf16 *left, const bf16 *right)
{
    const int m = ft_warp() * 16, i = ft_lane() / 8, r = ft_lane() % 8;
    FT_UNROLL
    for (int k = 0; k < SIDE; k += 16) {
        uint32_t a[4], b[4];
        if (LEFT)
            ft_ldmatrix_trans(a, left + (k + i / 2 * 8 + r) * LD + m + i % 2 * 8);
        else
            ft_ldmatrix(a, left + (m + i % 2 * 8 + r) * LD + k + i / 2 * 8);
        FT_UNROLL
        for (int n = 0; n < SIDE / 8; n += 2) {
            if (RIGHT)
                ft_ldmatrix_trans(b, right + (k + i % 2 * 8 + r) * LD + 8 * n + i / 2 * 8);
            else
                ft_ldmatrix(b, right + (8 * n + i / 2 * 8 + r) * LD + k + i % 2 * 8);
            ft_mma(s[n], a, b[0], b[1]);
            ft_mma(s[n + 1], a, b[2], b[3]);
        }
    }
}

/* A tile of a quantised matrix: rows first.., columns c.. . */
template <int V>
FT_DEVICE void load_quant(bf16 *tile, const struct job &j, const float *code, int expert,
                          int64_t first, int64_t c)
{
    struct ft_planes q = j.quant;
    FT_UNROLL
    for (int i = 0; i < FT_PLANES; i++)
        if (q.p[i])
            q.p[i] = (char *)q.p[i] + (size_t)expert * j.quant_bytes;
    for (int i = ft_thread(); i < SIDE * SIDE / V; i += FT_TILE_THREADS) {
        const int r = i / (SIDE / V), d = i % (SIDE / V) * V;
        float out[V] = {};
        if (first + r < q.rows && c + d < q.cols)
            ft_widen<V>(out, q, j.size, code, first + r, c + d);
        for (int k = 0; k < V; k++)
            tile[r * LD + d + k] = ft_to_bf16(out[k]);
    }
}

/* A piece's tiles of part i for depth k: of the left side its rows to `end`, of the right side those
 * of its columns. RIGHT: its rows are the depth. */
template <bool RIGHT>
FT_DEVICE void fetch(const struct job &j, int i, bf16 *tiles, const float *code,
                     const struct piece &at, int64_t end, int64_t k)
{
    const struct part &p = j.part[i];
    struct ft_rows left = p.left, right = p.right;
    const int deep = (int)smaller(p.depth - k, SIDE);
    left.p += k;
    ft_tile_load<SIDE, SIDE>(tiles, left, at.row, end, deep, j.wide);
    const int64_t first = RIGHT ? k : at.col, c = RIGHT ? at.col : k;
    if (i == 0 && j.quant.p[0]) {
        if (j.quant.cols % 8)
            load_quant<1>(tiles + TILE, j, code, at.expert, first, c);
        else
            load_quant<8>(tiles + TILE, j, code, at.expert, first, c);
    } else {
        const int64_t begin = (int64_t)at.expert * p.each;
        right.p += c;
        ft_tile_load<SIDE, SIDE>(tiles + TILE, right, begin + first, begin + p.each,
                                 RIGHT ? (int)smaller(j.cols - at.col, SIDE) : deep, j.wide);
    }
    ft_copy_commit();
}

/* A piece of y = add + bias + the parts' products. */
template <bool RIGHT>
FT_DEVICE void multiply_piece(const struct job &j, const struct piece &p, bf16 *tiles,
                              const float *code)
{
    const int64_t end = j.offsets[p.expert + 1];
    float sum[1][SIDE / 8][4] = {};
    for (int i = 0; i < 2 && j.part[i].depth; i++) {
        float s[SIDE / 8][4] = {};
        int stage = 0;
        fetch<RIGHT>(j, i, tiles, code, p, end, 0);
        for (int64_t k = 0; k < j.part[i].depth; k += SIDE, stage ^= 1) {
            if (k + SIDE < j.part[i].depth) {
                fetch<RIGHT>(j, i, tiles + (stage ^ 1) * 2 * TILE, code, p, end, k + SIDE);
                ft_copy_wait<1>();
            } else {
                ft_copy_wait<0>();
            }
            ft_sync_block();
            multiply<false, RIGHT>(s, tiles + stage * 2 * TILE, tiles + stage * 2 * TILE + TILE);
            ft_sync_block();
        }
        FT_UNROLL
        for (int n = 0; n < SIDE / 8; n++)
            FT_UNROLL
        for (int e = 0; e < 4; e++)
            sum[0][n][e] += j.part[i].scale * s[n][e];
    }
    FT_UNROLL
    for (int n = 0; n < SIDE / 8; n++)
        FT_UNROLL
    for (int e = 0; e < 4; e++) {
        const int64_t r = p.row + ft_warp() * 16 + ft_fragment_row(e);
        const int64_t c = p.col + 8 * n + ft_fragment_col(e);
        if (r >= end || c >= j.cols)
            continue;
        if (j.bias.p)
            sum[0][n][e] += ft_to_float(j.bias.p[p.expert * j.bias.ld + c]);
        if (j.add.p)
            sum[0][n][e] += ft_to_float(j.add.p[r * j.add.ld + c]);
    }
    struct ft_rows to = j.y;
    to.p += p.col;
    ft_tile_store<SIDE, 1, SIDE / 8>(to, p.row + ft_warp() * 16, end,
                                     (int)smaller(j.cols - p.col, SIDE), j.wide, sum,
                                     tiles + ft_warp() * 16 * LD);
}

template <bool RIGHT> FT_KERNEL(FT_TILE_THREADS) grouped(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(bf16, tiles);
    float *code = (float *)(tiles + 4 * TILE);
    struct piece p = {ft_block_x(), 0, 0, 0, 0};
    for (; find_piece(j, &p); p.number += ft_grid_x()) {
        ft_sync_block(); /* with the piece before */
        if (j.quant.p[FT_CODE] && ft_thread() < 16)
            code[ft_thread()] =
                ((const float *)((char *)j.quant.p[FT_CODE] +
                                 (size_t)p.expert * j.quant_bytes))[ft_thread()];
        ft_sync_block();
        multiply_piece<RIGHT>(j, p, tiles, code);
    }
}

/* dw of an expert: a block SIDE of its rows (columns of dy) and SIDE columns. */
FT_KERNEL(FT_TILE_THREADS) grouped_dw(struct ft_mark mark, struct job j)
{
    ft_begin(mark);
    FT_SHARED(bf16, tiles);
    const struct part &p = j.part[0];
    const int expert = ft_block_z();
    const int64_t row = ft_block_x() * SIDE, col = (int64_t)ft_block_y() * SIDE;
    const int64_t begin = j.offsets[expert], end = j.offsets[expert + 1];
    float s[SIDE / 8][4] = {};
    struct ft_rows left = p.left, right = p.right;
    left.p += row;
    right.p += col;
    for (int64_t k = begin; k < end; k += SIDE) {
        ft_tile_load<SIDE, SIDE>(tiles, left, k, end, (int)smaller(p.each - row, SIDE), j.wide);
        ft_tile_load<SIDE, SIDE>(tiles + TILE, right, k, end, (int)smaller(j.cols - col, SIDE),
                                 j.wide);
        ft_copy_commit();
        ft_copy_wait<0>();
        ft_sync_block();
        multiply<true, true>(s, tiles, tiles + TILE);
        ft_sync_block();
    }
    FT_UNROLL
    for (int n = 0; n < SIDE / 8; n++)
        FT_UNROLL
    for (int e = 0; e < 4; e++) {
        const int64_t r = row + ft_warp() * 16 + ft_fragment_row(e);
        const int64_t c = col + 8 * n + ft_fragment_col(e);
        if (r >= p.each || c >= j.cols)
            continue;
        float *to = j.dw + (expert * p.each + r) * j.ld + c;
        *to = (j.fresh ? 0 : *to) + p.scale * s[n][e];
    }
}

static int64_t tiles_of(int64_t n)
{
    return (n + SIDE - 1) / SIDE;
}

static struct part part_of(const struct ft_tensor *left, const struct ft_tensor *right, int experts,
                           float scale)
{
    struct part p = {};
    if (!left)
        return p;
    p.left = ft_rows_of(left);
    p.right = ft_rows_of(right);
    p.depth = left->cols;
    p.each = right->rows / experts;
    p.scale = scale;
    return p;
}

static struct job job_of(const struct ft_tensor *offsets, const struct ft_tensor *w,
                         const struct ft_tensor *y)
{
    struct job j = {};
    j.offsets = (const int32_t *)offsets->data;
    j.experts = (int)ft_experts(offsets);
    j.y = ft_rows_of(y);
    j.cols = y->cols;
    if (ft_is_quant(w->dtype)) {
        const struct ft_tensor one = ft_first_part(w, j.experts);
        j.quant = ft_planes_of(&one);
        j.size = ft_block_size(w->dtype);
        j.quant_bytes = j.quant.bytes;
    }
    return j;
}

/* As many blocks as the device has room for, or as there can be pieces: the last rows of each expert
 * may be few. */
template <bool RIGHT>
static void launch(const struct ft_kernel_ctx *ctx, const struct ft_tensor *y, const struct job &j)
{
    enum { SHARED = 4 * TILE * (int)sizeof(bf16) + 16 * (int)sizeof(float) };
    const int64_t room = ft_resident_blocks(ctx, grouped<RIGHT>, FT_TILE_THREADS, SHARED);
    const int64_t most = (tiles_of(ft_launch_rows(ctx, y)) + j.experts) * tiles_of(y->cols);
    ft_launch(ctx, grouped<RIGHT>, ft_grid{room < most ? room : most, 1, 1},
              FT_TILE_THREADS, SHARED, j);
}

void ft_grouped_linear(const struct ft_kernel_ctx *ctx, const struct ft_linear_args *l)
{
    struct job j = job_of(l->offsets, l->w, l->y);
    j.part[0] = part_of(l->x, l->w, j.experts, l->alpha);
    j.part[1] = part_of(l->u, l->b, j.experts, l->beta);
    j.add = ft_rows_of(l->add);
    j.bias = ft_rows_of(l->bias);
    j.wide = ft_is_wide(l->x, ft_is_quant(l->w->dtype) ? NULL : l->w, l->u, l->b, l->y);
    launch<false>(ctx, l->y, j);
}

void ft_grouped_linear_dx(const struct ft_kernel_ctx *ctx, const struct ft_linear_dx_args *l)
{
    struct job j = job_of(l->offsets, l->w, l->dx);
    j.part[0] = part_of(l->dy, l->w, j.experts, l->alpha);
    j.part[1] = part_of(l->du, l->a, j.experts, l->beta);
    j.add = ft_rows_of(l->add);
    j.wide = ft_is_wide(l->dy, ft_is_quant(l->w->dtype) ? NULL : l->w, l->du, l->a, l->dx);
    launch<true>(ctx, l->dx, j);
}

void ft_grouped_linear_dw(const struct ft_kernel_ctx *ctx, const struct ft_linear_dw_args *l)
{
    struct job j = {};
    j.offsets = (const int32_t *)l->offsets->data;
    j.experts = (int)ft_experts(l->offsets);
    j.part[0].left = ft_rows_of(l->dy);
    j.part[0].right = ft_rows_of(l->x);
    j.part[0].each = l->dy->cols;
    j.part[0].scale = l->alpha;
    j.cols = l->x->cols;
    j.dw = (float *)l->dw->data;
    j.ld = ft_tensor_ld(l->dw);
    j.fresh = l->fresh;
    j.wide = ft_is_wide(l->dy, l->x);
    const struct ft_grid grid = {tiles_of(l->dy->cols), (int)tiles_of(j.cols), j.experts};
    ft_launch(ctx, grouped_dw, grid, FT_TILE_THREADS, 2 * TILE * sizeof(bf16), j);
}
