/* Matrix products. The weight side is widened and packed into panels of NR columns, once per
 * product; the activation side is read in place. The register tile is MR rows by NV vectors.
 *
 * Layout and loop order after Goto & van de Geijn, "Anatomy of high-performance matrix
 * multiplication" (2008), less the packing of A: with few columns a tile and A read by broadcast,
 * reading it in place costs nothing. */
#include "kernels/cpu/unit.h"

enum {
    TILE_PANELS = 192 / NR, /* panels of one piece */
    MIN_DEPTH = 4 * KC,
    MIN_PIECES = 16, /* fewer would leave threads waiting for one another */
};

#if defined(FT_AMX)
#include "kernels/cpu/amx.h"
#else

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
                acc[i][j] = mul_add(acc[i][j], av, bv[j]);
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

#if defined(FT_PAIRS)

/* At most TILE_ROWS columns of a times factor, k products that lie cs apart, as columns of words.
 */
static struct side words_of_columns(float *room, const float *a, int64_t cs, int64_t columns,
                                    int64_t k, float factor)
{
    for (int64_t l = 0; l < k; l += 2, a += 2 * cs) {
        float *to = room + l / 2 * TILE_ROWS;
        int64_t i = 0;
        for (; l + 1 < k && i + VW <= columns; i += VW)
            *(vfu *)(to + i) =
                (vfu)pair(*(const vfu *)(a + i) * factor, *(const vfu *)(a + cs + i) * factor);
        for (; i < columns; i++)
            to[i] = word_of(a[i] * factor, l + 1 < k ? a[cs + i] * factor : 0);
    }
    return (struct side){room, 1, TILE_ROWS};
}

#endif
#endif

/* --- the left side as words --- */

#if defined(FT_PAIRS)

/* The words of a row times factor, with zeros behind. */
static void pair_along(float *to, const float *from, int64_t k, float factor)
{
    int64_t l = 0;
    for (; l + 2 * VW <= k; l += 2 * VW)
        *(vfu *)(to + l / 2) =
            (vfu)pairs(*(const vfu *)(from + l) * factor, *(const vfu *)(from + l + VW) * factor);
    for (; l < k; l += 2)
        to[l / 2] = word_of(from[l] * factor, l + 1 < k ? from[l + 1] * factor : 0);
    for (l = (k + 1) / 2; l < words_of(k); l++)
        to[l] = 0;
}

/* At most TILE_ROWS rows of k numbers times factor, at most KC words, in room for as many. */
static struct side words_of_side(float *room, const float *a, int64_t rs, int64_t cs, int64_t rows,
                                 int64_t k, float factor)
{
    if (cs == 1) {
        for (int64_t i = 0; i < rows; i++)
            pair_along(room + i * KC, a + i * rs, k, factor);
        return (struct side){room, KC, 1};
    }
    return words_of_columns(room, a, cs, rows, k, factor);
}

#else

/* As it lies: the factor falls on the other side. */
static struct side words_of_side(float *room, const float *a, int64_t rs, int64_t cs, int64_t rows,
                                 int64_t k, float factor)
{
    (void)room, (void)rows, (void)k, (void)factor;
    return (struct side){a, rs, cs};
}

#endif

void K(gemm_mul)(int64_t m, int64_t n, int64_t k, const float *a, int64_t rs, int64_t cs,
                 const float *packed, float *c, int64_t ldc, bool accumulate)
{
    float room[WORD > 1 ? TILE_ROWS * KC : 1];
    const int64_t depth = words_of(k), rows = WORD > 1 ? TILE_ROWS : m;
    const int64_t most = WORD > 1 ? KC * WORD : k;
    for (int64_t i = 0; i < m; i += rows)
        for (int64_t l = 0; l < k; l += most) {
            const int64_t take = k - l < most ? k - l : most, some = m - i < rows ? m - i : rows;
            const struct side s = words_of_side(room, a + i * rs + l * cs, rs, cs, some, take, 1);
            for (int64_t j = 0; j < n; j += NR) {
                const int64_t w = n - j < NR ? n - j : NR;
                panel_mul(some, w, words_of(take), s.words, s.rs, s.cs,
                          packed + j * depth + l / WORD * padded(w), c + i * ldc + j, ldc,
                          accumulate || l > 0);
            }
        }
}

/* --- the parallel product: blocks of B that fit the shared scratch, packed then multiplied --- */

struct block {
    const struct ft_gemm *g;
    float *packed;
    int64_t j0, j1; /* columns */
    int64_t k0, k1; /* of the words of both sums */
    int64_t split;  /* words of the first one */
    int64_t row_pieces;
    int64_t group; /* panels of a piece */
    int64_t pack;  /* panels that are packed together */
};

static int64_t least(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static void pack_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct block *b = arg;
    const struct ft_gemm *g = b->g;
    const int64_t j = b->j0 + piece * b->pack * NR, j_end = least(b->j1, j + b->pack * NR);
    const int64_t depth = b->k1 - b->k0;
    float *out = b->packed + (j - b->j0) * depth;
    for (int part = 0; part < 2; part++) {
        const int64_t first = part ? b->split : 0; /* its first word */
        const int64_t k0 = (b->k0 > first ? b->k0 - first : 0) * WORD;
        const int64_t k1 = least(g->k[part], (b->k1 - first) * WORD);
        if (k0 < k1)
            K(gemm_pack_part)
        (out, depth, first + k0 / WORD - b->k0, &g->b[part], k0, k1, j, j_end);
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
        copy_kept(to + i * (by_col ? TILE_ROWS : KC * WORD), from, g->a_mask + row * g->mask_ld,
                  first, by_col ? rows : depth, false);
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

/* What mul_piece keeps in a thread's scratch. */
struct room {
    float kept[TILE_ROWS * KC * WORD], words[TILE_ROWS * KC], tile[TILE_ROWS * NR];
};
_Static_assert(sizeof(struct room) <= FT_THREAD_SCRATCH, "a piece's memory must fit");

/* Rows i0.. of the left side of a part, n products from its k-th on. */
static struct side side_of(const struct ft_gemm *g, struct room *r, int part, int64_t i0,
                           int64_t rows, int64_t k, int64_t n)
{
    int64_t rs = g->a_rs[part], cs = g->a_cs[part];
    const float *a = g->a[part] + i0 * rs + k * cs;
    if (!part && g->a_mask) {
        mask_block(g, r->kept, i0, rows, k, n);
        a = r->kept;
        rs = cs == 1 ? KC * WORD : 1;
        cs = cs == 1 ? 1 : TILE_ROWS;
    }
    return words_of_side(r->words, a, rs, cs, rows, n, g->b[part].alpha);
}

static void mul_piece(void *arg, int64_t piece, void *scratch)
{
    const struct block *b = arg;
    const struct ft_gemm *g = b->g;
    struct room *r = scratch;
    const int64_t i0 = piece % b->row_pieces * TILE_ROWS, rows = least(g->m - i0, TILE_ROWS);
    const int64_t p0 = piece / b->row_pieces * b->group, depth = b->k1 - b->k0;
    bool started = b->k0 > 0 || g->add || g->bias || (g->c_mask && g->k[0] == 0);
    if (b->k0 == 0 && started) {
        const int64_t j = b->j0 + p0 * NR;
        begin_rows(g, i0, rows, j, least(b->j1 - j, b->group * NR));
    }
    for (int64_t l = b->k0, next; l < b->k1; l = next, started = true) {
        const int part = l >= b->split;
        next = least(least(l + KC, b->k1), part ? b->k1 : b->split);
        const int64_t k = (l - (part ? b->split : 0)) * WORD;
        const struct side s =
            side_of(g, r, part, i0, rows, k, least((next - l) * WORD, g->k[part] - k));
        for (int64_t p = p0; p < p0 + b->group && b->j0 + p * NR < b->j1; p++) {
            const int64_t j = b->j0 + p * NR, w = least(b->j1 - j, NR);
            const float *packed = b->packed + p * NR * depth + (l - b->k0) * padded(w);
            const bool aside = part && g->c_mask;
            panel_mul(rows, w, next - l, s.words, s.rs, s.cs, packed,
                      aside ? r->tile : g->c + i0 * g->ldc + j, aside ? NR : g->ldc,
                      started && !aside);
            if (aside)
                add_kept(g, r->tile, i0, rows, j, w);
        }
    }
}

void K(gemm)(struct ft_pool *pool, void *scratch, const struct ft_gemm *g)
{
    const int64_t room = (int64_t)(FT_GEMM_SCRATCH / sizeof(float));
    struct block b = {.g = g, .packed = scratch, .split = words_of(g->k[0])};
    const int64_t k_all = b.split + words_of(g->k[1]);
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
    depth = least(depth, k_all);
    int64_t width = depth > 0 ? room / depth / NR * NR : g->n;
    for (b.j0 = 0; b.j0 < g->n; b.j0 = b.j1) {
        b.j1 = least(b.j0 + width, g->n);
        int64_t panels = (b.j1 - b.j0 + NR - 1) / NR;
        b.group = TILE_PANELS;
        while (b.group > 1 && (panels + b.group - 1) / b.group * b.row_pieces < MIN_PIECES)
            b.group /= 2;
        int64_t pieces = (panels + b.group - 1) / b.group * b.row_pieces;
        b.k0 = 0;
        do {
            b.k1 = least(b.k0 + depth, k_all);
            ft_pool_run(pool, (panels + b.pack - 1) / b.pack, pack_piece, &b);
            ft_pool_run(pool, pieces, mul_piece, &b);
            b.k0 = b.k1;
        } while (b.k0 < k_all);
    }
}
