/* Matrix products. The weight side is widened and packed into panels of NR columns, once per
 * product; the activation side is read in place. The register tile is MR rows by NV vectors.
 *
 * Layout and loop order after Goto & van de Geijn, "Anatomy of high-performance matrix
 * multiplication" (2008), less the packing of A: with few columns a tile and A read by broadcast,
 * reading it in place costs nothing. */
#include "kernels/cpu/vectors.h"

#if defined(__AVX512F__)
enum { MR = 8, NV = 3 };
#elif defined(__AVX2__)
enum { MR = 6, NV = 2 };
#else
enum { MR = 4, NV = 2 };
#endif
enum {
    NR = VW * NV,
    KC = 384, /* products summed in registers before they are added to memory */
    TILE_ROWS =
        64, /* rows and panels of one piece: A and B blocks stay in the second-level cache */
    TILE_PANELS = 192 / NR,
    MIN_DEPTH = 4 * KC,
    MIN_PIECES = 16, /* fewer would leave threads waiting for one another */
};

/* --- the register tile --- */

FT_INLINE void tile(const int mr, const int nv, int64_t k, const float *a, int64_t rs, int64_t cs,
                    const float *b, float *c, int64_t ldc, bool accumulate)
{
    vf acc[8][NV];
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            acc[i][j] = (vf){0};
    for (int64_t l = 0; l < k; l++) {
        vf bv[NV];
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            bv[j] = (vf) * (const vfu *)(b + j * VW);
        b += nv * VW;
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++) {
            const float one = a[i * rs + l * cs];
            const vf av = SPLAT(one); /* a broadcast from memory */
#pragma GCC unroll 3
            for (int j = 0; j < nv; j++)
                acc[i][j] += av * bv[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++) {
            vfu *to = (vfu *)(c + i * ldc + j * VW);
            *to = (vfu)(accumulate ? (vf)*to + acc[i][j] : acc[i][j]);
        }
}

/* stride is rs when rows of A lie in memory (cs 1), else cs (rs 1) */
typedef void tile_fn(int64_t k, const float *a, int64_t stride, const float *b, float *c,
                     int64_t ldc, bool accumulate);

#define TILE(mr, nv)                                                                               \
    static void row_##mr##_##nv(int64_t k, const float *a, int64_t s, const float *b, float *c,    \
                                int64_t ldc, bool acc)                                             \
    {                                                                                              \
        tile(mr, nv, k, a, s, 1, b, c, ldc, acc);                                                  \
    }                                                                                              \
    static void col_##mr##_##nv(int64_t k, const float *a, int64_t s, const float *b, float *c,    \
                                int64_t ldc, bool acc)                                             \
    {                                                                                              \
        tile(mr, nv, k, a, 1, s, b, c, ldc, acc);                                                  \
    }
#if defined(__AVX512F__)
#define TILES(X)        X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#define TILE_ALL_NV(mr) TILE(mr, 1) TILE(mr, 2) TILE(mr, 3)
#define ENTRY(mr)                                                                                  \
    {{row_##mr##_1, row_##mr##_2, row_##mr##_3}, {col_##mr##_1, col_##mr##_2, col_##mr##_3}},
#else
#define TILES(X)        X(1) X(2) X(3) X(4) X(5) X(6)
#define TILE_ALL_NV(mr) TILE(mr, 1) TILE(mr, 2)
#define ENTRY(mr)       {{row_##mr##_1, row_##mr##_2}, {col_##mr##_1, col_##mr##_2}},
#endif
TILES(TILE_ALL_NV)
static tile_fn *const tiles[][2][NV] = {TILES(ENTRY)};

/* C (m,w) (+)= A * one packed panel of k rows; w <= NR columns are stored. */
static void panel_mul(int64_t m, int64_t w, int64_t k, const float *a, int64_t rs, int64_t cs,
                      const float *b, float *c, int64_t ldc, bool accumulate)
{
    const int nv = (int)((w + VW - 1) / VW), by_col = cs != 1;
    const int64_t stride = by_col ? cs : rs, step = by_col ? 1 : rs;
    float edge[8 * NR];
    for (int64_t i = 0; i < m; i += MR) {
        int mr = m - i < MR ? (int)(m - i) : MR;
        tile_fn *fn = tiles[mr - 1][by_col][nv - 1];
        float *ci = c + i * ldc;
        if (w == (int64_t)nv * VW) {
            fn(k, a + i * step, stride, b, ci, ldc, accumulate);
            continue;
        }
        for (int r = 0; accumulate && r < mr; r++)
            memcpy(edge + r * NR, ci + r * ldc, (size_t)w * sizeof *c);
        fn(k, a + i * step, stride, b, edge, NR, accumulate);
        for (int r = 0; r < mr; r++)
            memcpy(ci + r * ldc, edge + r * NR, (size_t)w * sizeof *c);
    }
}

/* --- packing: widen, scale, and lay out panels of NR columns, row by row, zero-padded to VW --- */

/* Transposes VW vectors in place: log2(VW) rounds of exchanging off-diagonal blocks. */
FT_INLINE void transpose(vf r[VW])
{
#pragma GCC unroll 4
    for (int s = VW / 2; s; s /= 2) {
        vi lo, hi;
        for (int l = 0; l < VW; l++) {
            lo[l] = (l & s) ? VW + l - s : l;
            hi[l] = (l & s) ? VW + l : l + s;
        }
#pragma GCC unroll 16
        for (int i = 0; i < VW; i++)
            if (!(i & s)) {
                vf x = r[i], y = r[i + s];
                r[i] = __builtin_shuffle(x, y, lo);
                r[i + s] = __builtin_shuffle(x, y, hi);
            }
    }
}

/* Weights come from memory in strides that the processor does not foresee. */
FT_INLINE void fetch_ahead(const struct ft_operand *b, int64_t at)
{
    __builtin_prefetch((const char *)b->data + at * (b->dtype == FT_F32 ? 4 : 2));
}

/* Rows k0..k1-1 of one panel: columns j0..j0+w-1 of B. */
FT_INLINE void pack_trans(float *out, const struct ft_operand *b, enum ft_dtype dtype, int64_t k0,
                          int64_t k1, int64_t j0, int64_t w)
{
    const int64_t width = (w + VW - 1) / VW * VW;
    for (int64_t j = 0; j < width; j += VW) {
        int64_t k = k0;
        if (j + VW <= w)
            for (; k + VW <= k1; k += VW) {
                vf r[VW];
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++) {
                    fetch_ahead(b, (j0 + j + VW + i) * b->ld + k);
                    r[i] = widen_vec(b->data, dtype, (j0 + j + i) * b->ld + k) * b->alpha;
                }
                transpose(r);
#pragma GCC unroll 16
                for (int i = 0; i < VW; i++)
                    *(vfu *)(out + (k - k0 + i) * width + j) = (vfu)r[i];
            }
        for (; k < k1; k++)
            for (int i = 0; i < VW; i++)
                out[(k - k0) * width + j + i] =
                    j + i < w ? widen_one(b->data, dtype, (j0 + j + i) * b->ld + k) * b->alpha : 0;
    }
}

FT_INLINE void pack_plain(float *out, const struct ft_operand *b, enum ft_dtype dtype, int64_t k0,
                          int64_t k1, int64_t j0, int64_t w)
{
    const int64_t width = (w + VW - 1) / VW * VW;
    for (int64_t k = k0; k < k1; k++, out += width) {
        int64_t at = k * b->ld + j0, j = 0;
        fetch_ahead(b, at + 12 * b->ld);
        fetch_ahead(b, at + 12 * b->ld + 32);
        for (; j + VW <= w; j += VW)
            *(vfu *)(out + j) = (vfu)(widen_vec(b->data, dtype, at + j) * b->alpha);
        for (; j < width; j++)
            out[j] = j < w ? widen_one(b->data, dtype, at + j) * b->alpha : 0;
    }
}

/* Quantised rows pass through a buffer, some of their columns at a time. */
enum { SEGMENT = 128, PLAIN_PANELS = (64 + NR - 1) / NR };

static void pack_quant_trans(float *out, const struct ft_operand *b, int64_t k0, int64_t k1,
                             int64_t j0, int64_t w)
{
    const struct ft_planes q = ft_planes_of(b->quant);
    const int64_t width = (w + VW - 1) / VW * VW;
    float rows[NR * SEGMENT];
    const struct ft_operand widened = {
        .data = rows, .dtype = FT_F32, .ld = SEGMENT, .trans = true, .alpha = b->alpha};
    for (int64_t k = k0; k < k1; k += SEGMENT) {
        const int64_t n = k1 - k < SEGMENT ? k1 - k : SEGMENT;
        for (int64_t j = 0; j < w; j++)
            K(widen)(rows + j * SEGMENT, &q, b->first + j0 + j, k, n);
        pack_trans(out + (k - k0) * width, &widened, FT_F32, 0, n, 0, w);
    }
}

/* Several panels, `panel` floats from one to the next. */
static void pack_quant_plain(float *out, int64_t panel, const struct ft_operand *b, int64_t k0,
                             int64_t k1, int64_t j0, int64_t w)
{
    const struct ft_planes q = ft_planes_of(b->quant);
    float row[PLAIN_PANELS * NR];
    for (int64_t k = k0; k < k1; k++) {
        K(widen)(row, &q, b->first + k, j0, w);
        for (int64_t j = 0; j < w; j += NR) {
            const int64_t n = w - j < NR ? w - j : NR, width = (n + VW - 1) / VW * VW;
            float *to = out + j / NR * panel + (k - k0) * width;
            for (int64_t i = 0; i < width; i++)
                to[i] = i < n ? row[j + i] * b->alpha : 0;
        }
    }
}

static void pack_panel(float *out, const struct ft_operand *b, int64_t k0, int64_t k1, int64_t j0,
                       int64_t w)
{
#define EACH(dtype)                                                                                \
    case dtype:                                                                                    \
        if (b->trans)                                                                              \
            pack_trans(out, b, dtype, k0, k1, j0, w);                                              \
        else                                                                                       \
            pack_plain(out, b, dtype, k0, k1, j0, w);                                              \
        return;
    switch (b->dtype) {
        EACH(FT_F32)
        EACH(FT_BF16)
        EACH(FT_F16)
    default:
        return; /* ft_op_check admits no other */
    }
#undef EACH
}

int64_t K(gemm_padded)(int64_t n)
{
    return (n + VW - 1) / VW * VW;
}

void K(gemm_pack)(float *packed, const struct ft_operand *b, int64_t k, int64_t n)
{
    for (int64_t j = 0; j < n; j += NR)
        pack_panel(packed + j * k, b, 0, k, j, n - j < NR ? n - j : NR);
}

void K(gemm_mul)(int64_t m, int64_t n, int64_t k, const float *a, int64_t rs, int64_t cs,
                 const float *packed, float *c, int64_t ldc, bool accumulate)
{
    for (int64_t j = 0; j < n; j += NR)
        panel_mul(m, n - j < NR ? n - j : NR, k, a, rs, cs, packed + j * k, c + j, ldc, accumulate);
}

/* --- the parallel product: blocks of B that fit the shared scratch, packed then multiplied --- */

struct block {
    const struct ft_gemm *g;
    float *packed;
    int64_t j0, j1; /* columns */
    int64_t k0, k1; /* of the k[0] + k[1] products */
    int64_t row_pieces;
    int64_t group; /* panels of a piece */
    int64_t pack;  /* panels that are packed together */
};

/* Rows k0.. of an operand, from `at` rows into the panels of columns j.. */
static void pack_panels(const struct block *b, const struct ft_operand *from, int64_t at,
                        int64_t k0, int64_t k1, int64_t j, int64_t end)
{
    const int64_t depth = b->k1 - b->k0;
    if (from->quant && !from->trans) { /* all are full, or there is one */
        float *out = b->packed + (j - b->j0) * depth;
        const int64_t last = (end - j) / NR * NR;
        if (last)
            pack_quant_plain(out + at * NR, NR * depth, from, k0, k1, j, last);
        if (last < end - j)
            pack_quant_plain(out + last * depth + at * K(gemm_padded)(end - j - last), 0, from, k0,
                             k1, j + last, end - j - last);
        return;
    }
    for (; j < end; j += NR) {
        const int64_t w = end - j < NR ? end - j : NR;
        float *out = b->packed + (j - b->j0) * depth + at * K(gemm_padded)(w);
        if (from->quant)
            pack_quant_trans(out, from, k0, k1, j, w);
        else
            pack_panel(out, from, k0, k1, j, w);
    }
}

static void pack_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct block *b = arg;
    const struct ft_gemm *g = b->g;
    const int64_t j = b->j0 + piece * b->pack * NR, split = g->k[0];
    const int64_t j_end = b->j1 - j < b->pack * NR ? b->j1 : j + b->pack * NR;
    const int64_t end = b->k1 < split ? b->k1 : split;
    if (b->k0 < end)
        pack_panels(b, &g->b[0], 0, b->k0, end, j, j_end);
    if (b->k1 > split) {
        const int64_t from = b->k0 > split ? b->k0 : split;
        pack_panels(b, &g->b[1], from - b->k0, from - split, b->k1 - split, j, j_end);
    }
}

static void begin_rows(const struct ft_gemm *g, int64_t i0, int64_t rows, int64_t j, int64_t w)
{
    for (int64_t i = i0; i < i0 + rows; i++) {
        float *c = g->c + i * g->ldc + j;
        if (g->add && g->add != g->c)
            memcpy(c, g->add + i * g->ldadd + j, (size_t)w * sizeof *c);
        else if (!g->add)
            memset(c, 0, (size_t)w * sizeof *c);
        for (int64_t l = 0; g->bias && l < w; l++)
            c[l] += g->bias[j + l];
    }
}

FT_INLINE bool is_kept(const uint8_t *mask, int64_t at)
{
    return mask[at / 8] >> (at % 8) & 1;
}

/* n values, those whose bit is 0 as 0; added to what stands there, or in its place. */
FT_INLINE void copy_kept(float *to, const float *from, const uint8_t *mask, int64_t at, int64_t n,
                         bool adds)
{
    typedef float v8 __attribute__((vector_size(32), aligned(4)));
    typedef int32_t v8i __attribute__((vector_size(32)));
    const v8i bit = {1, 2, 4, 8, 16, 32, 64, 128};
    int64_t i = 0;
    for (; at % 8 == 0 && i + 8 <= n; i += 8) {
        const v8i kept = ((int32_t)mask[(size_t)(at + i) / 8] & bit) != 0;
        const v8 value = (v8)((v8i) * (const v8 *)(from + i) & kept);
        *(v8 *)(to + i) = adds ? *(v8 *)(to + i) + value : value;
    }
    for (; i < n; i++) {
        const float value = is_kept(mask, at + i) ? from[i] : 0;
        to[i] = adds ? to[i] + value : value;
    }
}

/* A block of A, rows i0.. and products k0.., through its mask into `to`, laid out alike with the
 * smallest strides. */
static void mask_block(const struct ft_gemm *g, float *to, int64_t i0, int64_t rows, int64_t k0,
                       int64_t depth)
{
    const bool by_col = g->a_cs[0] != 1;
    for (int64_t i = 0; i < (by_col ? depth : rows); i++) {
        const int64_t row = (by_col ? k0 : i0) + i, first = by_col ? i0 : k0;
        const float *from =
            g->a[0] + (by_col ? row * g->a_cs[0] + first : row * g->a_rs[0] + first);
        copy_kept(to + i * (by_col ? TILE_ROWS : KC), from, g->a_mask + row * g->mask_ld, first,
                  by_col ? rows : depth, false);
    }
}

/* C += what is kept of a tile. */
static void add_kept(const struct ft_gemm *g, const float *tile, int64_t i0, int64_t rows,
                     int64_t j, int64_t w)
{
    for (int64_t i = i0; i < i0 + rows; i++)
        copy_kept(g->c + i * g->ldc + j, tile + (i - i0) * NR, g->c_mask + i * g->mask_ld, j, w,
                  true);
}

static void mul_piece(void *arg, int64_t piece, void *scratch)
{
    const struct block *b = arg;
    const struct ft_gemm *g = b->g;
    const int64_t i0 = piece % b->row_pieces * TILE_ROWS;
    const int64_t rows = g->m - i0 < TILE_ROWS ? g->m - i0 : TILE_ROWS;
    const int64_t p0 = piece / b->row_pieces * b->group, depth = b->k1 - b->k0;
    bool started = b->k0 > 0 || g->add || g->bias || (g->c_mask && g->k[0] == 0);
    float *block = scratch, *tile = block + TILE_ROWS * KC;
    if (b->k0 == 0 && started) {
        int64_t j = b->j0 + p0 * NR, w = b->group * NR;
        begin_rows(g, i0, rows, j, b->j1 - j < w ? b->j1 - j : w);
    }
    for (int64_t k = b->k0, next; k < b->k1; k = next, started = true) {
        int part = k >= g->k[0];
        int64_t end = part ? g->k[0] + g->k[1] : g->k[0];
        next = k + KC < end ? k + KC : end;
        if (next > b->k1)
            next = b->k1;
        int64_t rs = g->a_rs[part], cs = g->a_cs[part];
        const float *a = g->a[part] + i0 * rs + (k - (part ? g->k[0] : 0)) * cs;
        if (!part && g->a_mask) {
            mask_block(g, block, i0, rows, k, next - k);
            a = block;
            rs = cs == 1 ? KC : 1;
            cs = cs == 1 ? 1 : TILE_ROWS;
        }
        for (int64_t p = p0; p < p0 + b->group && b->j0 + p * NR < b->j1; p++) {
            int64_t j = b->j0 + p * NR, w = b->j1 - j < NR ? b->j1 - j : NR;
            const float *packed = b->packed + p * NR * depth + (k - b->k0) * K(gemm_padded)(w);
            if (part && g->c_mask) {
                panel_mul(rows, w, next - k, a, rs, cs, packed, tile, NR, false);
                add_kept(g, tile, i0, rows, j, w);
                continue;
            }
            panel_mul(rows, w, next - k, a, rs, cs, packed, g->c + i0 * g->ldc + j, g->ldc,
                      started);
        }
    }
}

void K(gemm)(struct ft_pool *pool, void *scratch, const struct ft_gemm *g)
{
    const int64_t room = (int64_t)(FT_GEMM_SCRATCH / sizeof(float)), k_all = g->k[0] + g->k[1];
    struct block b = {.g = g, .packed = scratch};
    b.row_pieces = (g->m + TILE_ROWS - 1) / TILE_ROWS;
    b.pack = 1;
    for (int i = 0; i < 2; i++)
        if (g->b[i].quant && !g->b[i].trans)
            b.pack = PLAIN_PANELS;
    if (g->m <= 0)
        return;
    /* all columns at a time where a good depth of them fits, so that A is read once; the depth is a
     * multiple of KC, so that the sums are the same in every instruction set */
    int64_t depth = room / ((g->n + NR - 1) / NR * NR) / KC * KC; /* at least one panel's width */
    depth = depth < MIN_DEPTH ? MIN_DEPTH : depth;
    depth = depth < k_all ? depth : k_all;
    int64_t width = depth > 0 ? room / depth / NR * NR : g->n;
    for (b.j0 = 0; b.j0 < g->n; b.j0 = b.j1) {
        b.j1 = b.j0 + width < g->n ? b.j0 + width : g->n;
        int64_t panels = (b.j1 - b.j0 + NR - 1) / NR;
        b.group = TILE_PANELS;
        while (b.group > 1 && (panels + b.group - 1) / b.group * b.row_pieces < MIN_PIECES)
            b.group /= 2;
        int64_t pieces = (panels + b.group - 1) / b.group * b.row_pieces;
        b.k0 = 0;
        do {
            b.k1 = b.k0 + depth < k_all ? b.k0 + depth : k_all;
            ft_pool_run(pool, (panels + b.pack - 1) / b.pack, pack_piece, &b);
            ft_pool_run(pool, pieces, mul_piece, &b);
            b.k0 = b.k1;
        } while (b.k0 < k_all);
    }
}

void K(widen_row)(float *out, const struct ft_tensor *w, int64_t row)
{
    const int64_t at = row * ft_tensor_ld(w);
    if (ft_is_quant(w->dtype)) {
        const struct ft_planes q = ft_planes_of(w);
        K(widen)(out, &q, row, 0, w->cols);
        return;
    }
    for (int64_t c = 0; c < w->cols; c++)
        out[c] = widen_one(w->data, w->dtype, at + c);
}
