/* Matrix products. The weight side is widened and packed into panels of NR columns by whoever
 * multiplies them; the activation side is read in place, or becomes words once a product. The
 * register tile is up to MR rows by NV vectors.
 *
 * Layout and loop order after Goto & van de Geijn, "Anatomy of high-performance matrix
 * multiplication" (2008), less the packing of A: with few columns a tile and A read by broadcast,
 * reading it in place costs nothing. */
#include "kernels/cpu/unit.h"

enum {
    MOST_PANELS = 192 / NR, /* of one piece */
    PACKED = 1 << 17, /* words of the right side that a thread packs: in its second-level cache */
    EACH = 8,         /* pieces a thread: fewer would leave threads waiting for one another */
    MOST_ROWS = 1024, /* for which a piece packs the right side once */
    MOST_LINES = 32,  /* of cache, fetched for one tile: more at once would hold it up */
};

#if defined(FT_AMX)
#include "kernels/cpu/amx.h"
#elif defined(FT_BLAS)
#include "kernels/cpu/blas.h"
#else

/* --- the register tile --- */

/* acc += a word of each of mr rows of A, broadcast, times nv vectors of B. */
FT_INLINE void add_word(const int mr, const int nv, const float *a, int64_t rs, const float *b,
                        vf acc[MR][NV])
{
    vf bv[NV];
#pragma GCC unroll 3
    for (int j = 0; j < nv; j++)
        bv[j] = (vf) * (const vfu *)(b + j * VW);
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) {
        const float one = a[i * rs];
        const vf av = SPLAT(one); /* a broadcast from memory */
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            acc[i][j] = mul_add(acc[i][j], av, bv[j]);
    }
}

#if defined(FT_NEON)

/* The same of VW words, which are lanes of registers: of a vector for each row where rows lie in
 * memory, else of a vector for VW rows. */
FT_INLINE void add_lanes(const int mr, const int nv, const bool by_col, const float *a,
                         int64_t stride, const float *b, vf acc[MR][NV])
{
    vf rows[8];
#pragma GCC unroll 8
    for (int i = 0; i < mr && !by_col; i++)
        rows[i] = (vf) * (const vfu *)(a + i * stride);
#pragma GCC unroll 4
    for (int l = 0; l < VW; l++, b += nv * VW) {
        vf bv[NV], columns[2];
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++)
            bv[j] = (vf) * (const vfu *)(b + j * VW);
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++)
            columns[i] =
                i >= mr / VW || !by_col ? (vf){0} : (vf) * (const vfu *)(a + l * stride + i * VW);
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
            for (int j = 0; j < nv; j++)
                acc[i][j] = by_col ? mul_add_lane(acc[i][j], columns[i / VW], i % VW, bv[j])
                                   : mul_add_lane(acc[i][j], rows[i], l, bv[j]);
    }
}

#endif

FT_INLINE void tile(const int mr, const int nv, const bool by_col, int64_t k, const float *a,
                    int64_t stride, const float *b, float *c, int64_t ldc, bool accumulate)
{
    const int64_t rs = by_col ? 1 : stride, cs = by_col ? stride : 1;
    int64_t l = 0;
    vf acc[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++) {
            acc[i][j] = (vf){0};
            __builtin_prefetch(c + i * ldc + j * VW, 1); /* by the time it is written */
        }
#if defined(FT_NEON)
    for (; (!by_col || mr % VW == 0) && l + VW <= k; l += VW)
        add_lanes(mr, nv, by_col, a + l * cs, stride, b + l * nv * VW, acc);
#endif
#pragma GCC unroll 4
    for (; l < k; l++)
        add_word(mr, nv, a + l * cs, rs, b + l * nv * VW, acc);
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
        tile(mr, nv, false, k, a, s, b, c, ldc, acc);                                              \
    }                                                                                              \
    static void col_##mr##_##nv(int64_t k, const float *a, int64_t s, const float *b, float *c,    \
                                int64_t ldc, bool acc)                                             \
    {                                                                                              \
        tile(mr, nv, true, k, a, s, b, c, ldc, acc);                                               \
    }
#define TILES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#if defined(__AVX2__)
#define TILE_ALL_NV(mr) TILE(mr, 1) TILE(mr, 2) TILE(mr, 3)
#define ENTRY(mr)                                                                                  \
    {{row_##mr##_1, row_##mr##_2, row_##mr##_3}, {col_##mr##_1, col_##mr##_2, col_##mr##_3}},
#else
#define TILE_ALL_NV(mr) TILE(mr, 1) TILE(mr, 2)
#define ENTRY(mr)       {{row_##mr##_1, row_##mr##_2}, {col_##mr##_1, col_##mr##_2}},
#endif
TILES(TILE_ALL_NV)
static tile_fn *const tiles[][2][NV] = {TILES(ENTRY)};
_Static_assert(sizeof tiles / sizeof *tiles >= MR, "a tile of each height");

/* C (m,w) (+)= A * one packed panel of k rows; w <= NR columns are stored. */
static void panel_mul(int64_t m, int64_t w, int64_t k, const float *a, int64_t rs, int64_t cs,
                      const float *b, float *c, int64_t ldc, bool accumulate, struct ahead *ahead)
{
    const int nv = (int)((w + VW - 1) / VW), by_col = cs != 1, tall = tile_rows(nv);
    const int64_t stride = by_col ? cs : rs, step = by_col ? 1 : rs;
    float edge[MR * NR];
    for (int64_t i = 0; i < m; i += tall) {
        int mr = m - i < tall ? (int)(m - i) : tall;
        tile_fn *fn = tiles[mr - 1][by_col][nv - 1];
        float *ci = c + i * ldc;
        fetch_some(ahead);
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

/* Columns of a times factor, k products that lie cs apart, as columns of words. */
static void pair_columns(float *to, const struct ft_side *s, const float *a, int64_t cs,
                         int64_t columns, int64_t k, float factor)
{
    for (int64_t l = 0; l < k; l += 2, a += 2 * cs, to += s->cs) {
        int64_t i = 0;
        for (; l + 1 < k && i + VW <= columns; i += VW)
            *(vfu *)(to + i) =
                (vfu)pair(*(const vfu *)(a + i) * factor, *(const vfu *)(a + cs + i) * factor);
        for (; i < columns; i++)
            to[i] = word_of(a[i] * factor, l + 1 < k ? a[cs + i] * factor : 0);
    }
}

#endif
#endif

/* --- the left side as words --- */

/* Room as a side: rows of words, or columns of them where A has its columns together. AMX takes
 * rows alone. */
static struct ft_side side_in(const float *room, bool by_col, int64_t rows, int64_t words)
{
#if defined(FT_AMX)
    by_col = false;
#endif
    return by_col ? (struct ft_side){room, 1, rows} : (struct ft_side){room, words, 1};
}

/* At least n, in whole tiles, and not at the same place of each page. */
static int64_t spread(int64_t n)
{
    n = (n + 31) / 32 * 32;
    return n % 256 ? n : n + 32;
}

/* Words of a row that both parts of so many rows may have in the shared scratch. */
static int64_t words_in_room(int64_t rows)
{
    const int64_t most = (int64_t)(FT_GEMM_SCRATCH / sizeof(float)) / spread(rows) - 2 * 64;
    return most / KC * KC;
}

#if defined(FT_PAIRS)

/* Words from the l-th number of a row on, which are less than vectors of them; zeros behind. */
static __attribute__((noinline)) void pair_rest(float *to, const float *from, int64_t l, int64_t k,
                                                float factor)
{
    for (; l < k; l += 2)
        to[l / 2] = word_of(from[l] * factor, l + 1 < k ? from[l + 1] * factor : 0);
    for (l = (k + 1) / 2; l < words_of(k); l++)
        to[l] = 0;
}

FT_INLINE void pair_along(float *to, const float *from, int64_t k, float factor)
{
    int64_t l = 0;
    for (; l + 2 * VW <= k; l += 2 * VW)
        *(vfu *)(to + l / 2) =
            (vfu)pairs(*(const vfu *)(from + l) * factor, *(const vfu *)(from + l + VW) * factor);
    if (l < 2 * words_of(k))
        pair_rest(to, from, l, k, factor);
}

/* Rows of k numbers, times factor: into `to`, whose strides are the side's. */
static void make_words(float *to, const struct ft_side *s, const float *a, int64_t rs, int64_t cs,
                       int64_t rows, int64_t k, float factor)
{
    for (int64_t i = 0; cs == 1 && i < rows; i++)
        pair_along(to + i * s->rs, a + i * rs, k, factor);
    if (cs != 1)
        pair_columns(to, s, a, cs, rows, k, factor);
}

#else

static void make_words(float *to, const struct ft_side *s, const float *a, int64_t rs, int64_t cs,
                       int64_t rows, int64_t k, float factor)
{
    (void)factor;
    for (int64_t i = 0; i < (cs == 1 ? rows : k); i++)
        memcpy(to + i * (cs == 1 ? s->rs : s->cs), a + i * (cs == 1 ? rs : cs),
               (size_t)(cs == 1 ? k : rows) * sizeof *to);
}

#endif

static int64_t least(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

struct ft_side K(gemm_side)(float *room, int64_t m, int64_t k, const float *a, int64_t rs,
                            int64_t cs)
{
    if (WORD == 1)
        return (struct ft_side){a, rs, cs};
    const struct ft_side s = side_in(room, cs != 1, m, words_of(k));
    make_words(room, &s, a, rs, cs, m, k, 1);
    return s;
}

void K(gemm_mul_side)(int64_t m, int64_t n, int64_t k, struct ft_side a, const float *packed,
                      int64_t first, int64_t depth, float *c, int64_t ldc, bool accumulate)
{
    const int64_t words = words_of(k), panel = words_of(depth);
    struct ahead none = {0};
    for (int64_t l = 0; l < words; l += KC)
        for (int64_t j = 0; j < n; j += NR) {
            const int64_t w = least(n - j, NR);
            panel_mul(m, w, least(words - l, KC), a.words + l * a.cs, a.rs, a.cs,
                      packed + j * panel + (first / WORD + l) * padded(w), c + j, ldc,
                      accumulate || l > 0, &none);
        }
}

/* --- the parallel product: the left side becomes words, a piece packs what it multiplies --- */

struct block {
    const struct ft_gemm *g;
    int64_t i0, i1; /* rows */
    int64_t l0, l1; /* of the words of both sums */
    int64_t split;  /* words of the first one */
    struct ft_side side[2];
    int64_t row_pieces, piece_rows, piece_panels;
    int64_t depth; /* words that are packed at a time */
};

/* First word of a part among those of now, counted from its own first. */
static int64_t first_word(const struct block *b, int part)
{
    const int64_t begin = part ? b->split : 0;
    return b->l0 > begin ? b->l0 - begin : 0;
}

static int64_t last_word(const struct block *b, int part)
{
    return part ? b->l1 - b->split : least(b->l1, b->split);
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
    enum { W = VW < 8 ? VW : 8 }; /* of the machine's lanes, those that a byte has bits for */
    typedef float some __attribute__((vector_size(4 * W), aligned(4)));
    typedef int32_t bits __attribute__((vector_size(4 * W)));
    static const int32_t each[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    bits bit;
    memcpy(&bit, each, sizeof bit);
    int64_t i = 0;
    for (; at % W == 0 && i + W <= n; i += W) {
        const int32_t byte = mask[(size_t)(at + i) / 8] >> (at + i) % 8;
        const bits kept = (byte & bit) != 0;
        const some value = (some)((bits) * (const some *)(from + i) & kept);
        *(some *)(to + i) = adds ? *(some *)(to + i) + value : value;
    }
    for (; i < n; i++) {
        const float value = is_kept(mask, at + i) ? from[i] : 0;
        to[i] = adds ? to[i] + value : value;
    }
}

/* Columns first.. of rows of `from`, through their mask. */
static void keep_rows(const struct ft_gemm *g, float *to, int64_t ld, int64_t row, int64_t rows,
                      int64_t first, int64_t n, const float *from, int64_t ldfrom)
{
    for (int64_t i = 0; i < rows; i++)
        copy_kept(to + i * ld, from + i * ldfrom, g->a_mask + (row + i) * g->mask_ld, first, n,
                  false);
}

/* What a piece keeps in a thread's scratch. */
union room {
    float kept[TILE_ROWS * KC * WORD];
    struct {
        float packed[PACKED], tile[TILE_ROWS * NR];
    };
};
_Static_assert(sizeof(union room) <= FT_THREAD_SCRATCH, "a piece's memory must fit");

/* Some rows of a part of the left side. */
static void make_part(const struct block *b, union room *r, int part, int64_t i, int64_t rows)
{
    const struct ft_gemm *g = b->g;
    const struct ft_side *s = &b->side[part];
    const int64_t rs = g->a_rs[part], cs = g->a_cs[part], l0 = first_word(b, part);
    for (int64_t l = l0, next; l < last_word(b, part); l = next) {
        next = least(l + KC, last_word(b, part));
        const int64_t k = l * WORD, n = least(next * WORD, g->k[part]) - k;
        const float *a = g->a[part] + i * rs + k * cs;
        float *to = (float *)(uintptr_t)s->words + (i - b->i0) * s->rs + (l - l0) * s->cs;
        const float factor = left_factor(&g->b[part]);
        if (part || !g->a_mask) {
            make_words(to, s, a, rs, cs, rows, n, factor);
        } else if (cs == 1) {
            keep_rows(g, r->kept, KC * WORD, i, rows, k, n, a, rs);
            make_words(to, s, r->kept, KC * WORD, 1, rows, n, factor);
        } else {
            keep_rows(g, r->kept, TILE_ROWS, k, n, i, rows, a, cs);
            make_words(to, s, r->kept, 1, TILE_ROWS, rows, n, factor);
        }
    }
}

static bool is_made(const struct ft_gemm *g, int part)
{
    return g->k[part] && (WORD > 1 || (!part && g->a_mask));
}

static void make_piece(void *arg, int64_t piece, void *scratch)
{
    const struct block *b = arg;
    const int64_t i = b->i0 + piece * TILE_ROWS;
    for (int part = b->g->again; part < 2; part++)
        if (is_made(b->g, part))
            make_part(b, scratch, part, i, least(b->i1 - i, TILE_ROWS));
}

/* C += what is kept of a tile. */
static void add_kept(const struct ft_gemm *g, const float *tile, int64_t i0, int64_t rows,
                     int64_t j, int64_t w)
{
    for (int64_t i = i0; i < i0 + rows; i++)
        copy_kept(g->c + i * g->ldc + j, tile + (i - i0) * NR, g->c_mask + i * g->mask_ld, j, w,
                  true);
}

/* Words l0 to l1 of a part, which are packed, and what is packed next. */
struct stretch {
    int part;
    int64_t l0, l1;
    struct ahead ahead;
};

/* A block of rows times columns j.. of what is packed, words from l to next. */
static void mul_block(const struct block *b, union room *r, struct stretch *t, int64_t i,
                      int64_t rows, int64_t j, int64_t j_end, int64_t l, int64_t next)
{
    const struct ft_gemm *g = b->g;
    const struct ft_side *s = &b->side[t->part];
    const float *a = s->words + (i - b->i0) * s->rs + (l - first_word(b, t->part)) * s->cs;
    const bool aside = t->part && g->c_mask;
    const bool started = l || (t->part && g->k[0]) || g->add || g->bias || (g->c_mask && !g->k[0]);
    for (int64_t w, at = 0; j < j_end; j += w, at += NR * (t->l1 - t->l0)) {
        w = least(j_end - j, NR);
        panel_mul(rows, w, next - l, a, s->rs, s->cs, r->packed + at + (l - t->l0) * padded(w),
                  aside ? r->tile : g->c + i * g->ldc + j, aside ? NR : g->ldc, started && !aside,
                  &t->ahead);
        if (aside)
            add_kept(g, r->tile, i, rows, j, w);
    }
}

static int64_t first_column(const struct block *b, int64_t piece)
{
    return piece / b->row_pieces * b->piece_panels * NR;
}

static int64_t end_column(const struct block *b, int64_t piece)
{
    return least(b->g->n, first_column(b, piece) + b->piece_panels * NR);
}

/* What a thread packs behind a stretch of a piece, the next one or the first of the next columns,
 * to be fetched while it multiplies so many tiles. */
static struct ahead find_ahead(const struct block *b, const struct stretch *t, int64_t piece,
                               int64_t times)
{
    const struct ft_operand *o = &b->g->b[t->part];
    const bool same = t->l1 < last_word(b, t->part);
    const int64_t l = same ? t->l1 : first_word(b, t->part), next = same ? piece : piece + 1;
    const int64_t j = first_column(b, next), columns = end_column(b, next) - j, k = l * WORD;
    const int64_t end = least(least(l + b->depth, last_word(b, t->part)) * WORD, b->g->k[t->part]);
    if (o->quant || t->part || columns <= 0 || (!same && j == first_column(b, piece)))
        return (struct ahead){0};
    const int64_t size = (int64_t)ft_dtype_size(o->dtype), ld = o->ld * size;
    struct ahead a = {.row = (const char *)o->data +
                             (o->trans ? j * ld + k * size : k * ld + j * size),
                      .rows = o->trans ? columns : end - k,
                      .bytes = (o->trans ? end - k : columns) * size,
                      .ld = ld};
    a.lines = least((a.rows * ((a.bytes + 63) / 64) + times - 1) / times, MOST_LINES);
    return a;
}

static void mul_piece(void *arg, int64_t piece, void *scratch)
{
    const struct block *b = arg;
    const struct ft_gemm *g = b->g;
    union room *r = scratch;
    const int64_t j = first_column(b, piece), j_end = end_column(b, piece);
    const int64_t i0 = b->i0 + piece % b->row_pieces * b->piece_rows;
    const int64_t i1 = least(b->i1, i0 + b->piece_rows), tall = tile_rows(NR / VW);
    if (b->l0 == 0 && (g->add || g->bias || (g->c_mask && !g->k[0])))
        begin_rows(g, i0, i1 - i0, j, j_end - j);
    struct stretch t = {0};
    for (; t.part < 2; t.part++)
        for (t.l0 = first_word(b, t.part); t.l0 < last_word(b, t.part); t.l0 = t.l1) {
            t.l1 = least(t.l0 + b->depth, last_word(b, t.part));
            K(gemm_pack_part)
            (r->packed, &g->b[t.part], t.l0 * WORD, least(t.l1 * WORD, g->k[t.part]), j, j_end);
            const int64_t deep = (t.l1 - t.l0 + KC - 1) / KC;
            t.ahead =
                find_ahead(b, &t, piece, (i1 - i0 + tall - 1) / tall * deep * b->piece_panels);
            for (int64_t l = t.l0; l < t.l1; l += KC)
                for (int64_t i = i0; i < i1; i += TILE_ROWS)
                    mul_block(b, r, &t, i, least(i1 - i, TILE_ROWS), j, j_end, l,
                              least(l + KC, t.l1));
        }
}

/* Pieces of whole panels and, where these are few for the threads, of some of the rows. */
static int64_t cut(struct block *b, int64_t threads)
{
    const int64_t panels = (b->g->n + NR - 1) / NR, wanted = threads > 1 ? EACH * threads : 1;
    const int64_t blocks = (b->i1 - b->i0 + TILE_ROWS - 1) / TILE_ROWS;
    b->piece_panels = panels / wanted < 1 ? 1 : least(panels / wanted, MOST_PANELS);
    const int64_t columns = (panels + b->piece_panels - 1) / b->piece_panels;
    const int64_t parts = least(blocks, (wanted + columns - 1) / columns);
    b->piece_rows = (blocks + parts - 1) / parts * TILE_ROWS;
    b->row_pieces = (b->i1 - b->i0 + b->piece_rows - 1) / b->piece_rows;
    b->depth = PACKED / (b->piece_panels * NR) / KC * KC;
    return columns * b->row_pieces;
}

/* Where the words of now lie: in the shared scratch, or as A does. */
static void find_sides(struct block *b, float *scratch)
{
    const struct ft_gemm *g = b->g;
    for (int part = 0; part < 2; part++) {
        const int64_t words = last_word(b, part) - first_word(b, part), rows = b->i1 - b->i0;
        const int64_t rs = g->a_rs[part], cs = g->a_cs[part];
        if (words <= 0)
            continue;
        if (!is_made(g, part)) {
            b->side[part] =
                (struct ft_side){g->a[part] + b->i0 * rs + first_word(b, part) * cs, rs, cs};
            continue;
        }
        b->side[part] = side_in(scratch, cs != 1, spread(rows), spread(words));
        scratch += spread(rows) * spread(words);
    }
}

bool K(gemm_leaves)(const struct ft_gemm *g, const int64_t k[2], const struct ft_operand *right)
{
    return WORD > 1 && g->m <= MOST_ROWS && left_factor(&g->b[0]) == left_factor(right) &&
           words_of(k[0]) + words_of(k[1]) <= words_in_room(g->m) &&
           words_of(g->k[0]) + words_of(g->k[1]) <= words_in_room(g->m);
}

void K(gemm)(struct ft_pool *pool, void *scratch, const struct ft_gemm *g)
{
    struct block b = {.g = g, .split = words_of(g->k[0])};
    const int64_t all = b.split + words_of(g->k[1]);
    const bool made = is_made(g, 0) || is_made(g, 1);
    /* as many rows as keep what a piece packs worth it, and as many words as there is room for */
    const int64_t slab = made ? least(g->m, MOST_ROWS) : g->m;
    const int64_t depth = made ? least(all, words_in_room(slab)) : all;
    const bool makes = made && !(g->again && !g->k[1]);
    for (b.i0 = 0; b.i0 < g->m; b.i0 = b.i1) {
        b.i1 = least(b.i0 + slab, g->m);
        b.l0 = 0;
        do {
            b.l1 = least(b.l0 + depth, all);
            find_sides(&b, scratch);
            if (makes)
                ft_pool_run(pool, (b.i1 - b.i0 + TILE_ROWS - 1) / TILE_ROWS, make_piece, &b);
            ft_pool_run(pool, cut(&b, ft_pool_size(pool)), mul_piece, &b);
            b.l0 = b.l1;
        } while (b.l0 < all);
    }
}
