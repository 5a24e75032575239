/* The tile of AMX: 16 rows of 16 words each; four tiles of sums, two of each side. Where the
 * compiler has no AMX (FT_AMX without -mamx-bf16) the instructions are emulated, for the tests. */
#ifndef FT_KERNELS_CPU_AMX_H
#define FT_KERNELS_CPU_AMX_H

#include "kernels/cpu/unit.h"

enum { SIDE = 16 }; /* of a tile, in words */
_Static_assert(MR == 32 && NR == 32 && DEPTH == 16, "two tiles by two");

#if defined(__AMX_BF16__)

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

#define S(n) [n] = 4 * SIDE
#define R(n) [n] = SIDE
static const struct tile_config config = {
    .palette = 1,
    .row_bytes = {S(0), S(1), S(2), S(3), S(4), S(5), S(6), S(7)},
    .rows = {R(0), R(1), R(2), R(3), R(4), R(5), R(6), R(7)}};
#undef S
#undef R

#define tiles_begin() _tile_loadconfig(&config)
#define tiles_end()   _tile_release()
#define tile_zero(t)  _tile_zero(t)
/* GCC's intrinsic does not say that it reads memory. */
#define tile_load(t, from, ld)                                                                     \
    do {                                                                                           \
        __asm__ volatile("" ::: "memory");                                                         \
        _tile_loadd(t, from, (size_t)(ld) * sizeof(float));                                        \
    } while (0)
#define tile_store(t, to, ld)    _tile_stored(t, to, (size_t)(ld) * sizeof(float))
#define tile_mul_add(sums, a, b) _tile_dpbf16ps(sums, a, b)

#else

static _Thread_local float tiles[8][SIDE][SIDE];

#define tiles_begin() memset(tiles, 0xff, sizeof tiles)
#define tiles_end()   memset(tiles, 0xff, sizeof tiles)

static void tile_zero(int t)
{
    memset(tiles[t], 0, sizeof tiles[t]);
}

static void tile_load(int t, const float *from, int64_t ld)
{
    for (int i = 0; i < SIDE; i++)
        memcpy(tiles[t][i], from + i * ld, sizeof tiles[t][i]);
}

static void tile_store(int t, float *to, int64_t ld)
{
    for (int i = 0; i < SIDE; i++)
        memcpy(to + i * ld, tiles[t][i], sizeof tiles[t][i]);
}

static void tile_mul_add(int sums, int a, int b)
{
    for (int i = 0; i < SIDE; i++)
        for (int l = 0; l < SIDE; l++) {
            uint32_t one;
            memcpy(&one, &tiles[a][i][l], sizeof one);
            for (int j = 0; j < SIDE; j++) {
                uint32_t other;
                memcpy(&other, &tiles[b][l][j], sizeof other);
                tiles[sums][i][j] +=
                    ft_bf16_to_f32((uint16_t)one) * ft_bf16_to_f32((uint16_t)other);
                tiles[sums][i][j] +=
                    ft_bf16_to_f32((uint16_t)(one >> 16)) * ft_bf16_to_f32((uint16_t)(other >> 16));
            }
        }
}

#endif

/* Whole tiles: one or two of rows (ld rs), one or two of columns (ldb to a row of words). */
FT_INLINE void tiles_mul(const bool tall, const bool wide, int64_t k, const float *a, int64_t rs,
                         const float *b, int64_t ldb, float *c, int64_t ldc, bool accumulate)
{
#define EACH_SUM(do)                                                                               \
    do                                                                                             \
        (0, c);                                                                                    \
    if (wide)                                                                                      \
        do                                                                                         \
            (1, c + SIDE);                                                                         \
    if (tall)                                                                                      \
        do                                                                                         \
            (2, c + SIDE * ldc);                                                                   \
    if (tall && wide)                                                                              \
        do                                                                                         \
        (3, c + SIDE * ldc + SIDE)
#define LOAD(t, at)  tile_load(t, at, ldc)
#define STORE(t, at) tile_store(t, at, ldc)
#define ZERO(t, at)  tile_zero(t)
    if (accumulate) {
        EACH_SUM(LOAD);
    } else {
        EACH_SUM(ZERO);
    }
    for (int64_t l = 0; l < k; l += SIDE) {
        tile_load(4, a + l, rs);
        tile_load(6, b + l * ldb, ldb);
        tile_mul_add(0, 4, 6);
        if (wide) {
            tile_load(7, b + l * ldb + SIDE, ldb);
            tile_mul_add(1, 4, 7);
        }
        if (tall) {
            tile_load(5, a + SIDE * rs + l, rs);
            tile_mul_add(2, 5, 6);
        }
        if (tall && wide)
            tile_mul_add(3, 5, 7);
    }
    EACH_SUM(STORE);
#undef EACH_SUM
#undef LOAD
#undef STORE
#undef ZERO
}

/* C (m,w) (+)= A * one packed panel of k words; A's room has whole tiles of rows. */
static void panel_mul(int64_t m, int64_t w, int64_t k, const float *a, int64_t rs, int64_t cs,
                      const float *b, float *c, int64_t ldc, bool accumulate, struct ahead *ahead)
{
    const int64_t width = padded(w);
    float edge[MR * NR];
    (void)cs; /* 1 */
    tiles_begin();
    for (int64_t i = 0; i < m; i += MR, a += MR * rs, c += MR * ldc) {
        const int64_t rows = m - i < MR ? m - i : MR;
        const bool aside = rows % SIDE || w % SIDE, tall = rows > SIDE, wide = w > SIDE;
        float *to = aside ? edge : c;
        const int64_t ld = aside ? NR : ldc;
        fetch_some(ahead);
        for (int64_t r = 0; aside && accumulate && r < rows; r++)
            memcpy(edge + r * NR, c + r * ldc, (size_t)w * sizeof *c);
        if (tall && wide)
            tiles_mul(true, true, k, a, rs, b, width, to, ld, accumulate);
        else if (tall)
            tiles_mul(true, false, k, a, rs, b, width, to, ld, accumulate);
        else if (wide)
            tiles_mul(false, true, k, a, rs, b, width, to, ld, accumulate);
        else
            tiles_mul(false, false, k, a, rs, b, width, to, ld, accumulate);
        for (int64_t r = 0; aside && r < rows; r++)
            memcpy(c + r * ldc, edge + r * NR, (size_t)w * sizeof *c);
    }
    tiles_end();
}

/* The words of VW columns of a, which lie cs apart along the sum, at `to`: a row of it each. */
static void pair_square(float *to, int64_t rs, const float *a, int64_t cs, int64_t columns,
                        int64_t k, float factor)
{
    vf r[VW];
    if (columns >= VW && k >= 2 * VW) {
        for (int64_t l = 0; l < VW; l++, a += 2 * cs)
            r[l] = pair(*(const vfu *)a * factor, *(const vfu *)(a + cs) * factor);
        transpose(r);
        for (int64_t i = 0; i < VW; i++)
            *(vfu *)(to + i * rs) = (vfu)r[i];
        return;
    }
    for (int64_t i = 0; i < VW && i < columns; i++)
        for (int64_t l = 0; l < VW; l++)
            to[i * rs + l] = word_of(2 * l < k ? a[i + 2 * l * cs] * factor : 0,
                                     2 * l + 1 < k ? a[i + (2 * l + 1) * cs] * factor : 0);
}

/* Columns of a times factor, k products that lie cs apart, as rows of words. */
static void pair_columns(float *to, const struct ft_side *s, const float *a, int64_t cs,
                         int64_t columns, int64_t k, float factor)
{
    for (int64_t l = 0; l < words_of(k); l += VW)
        for (int64_t i = 0; i < columns; i += VW)
            pair_square(to + i * s->rs + l, s->rs, a + i + 2 * l * cs, cs, columns - i, k - 2 * l,
                        factor);
}

#endif
