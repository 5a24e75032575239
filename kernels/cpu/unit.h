/* The unit that multiplies: what it takes as one word of 32 bits, the shape of its register tile,
 * and how stored numbers become words.
 *
 * A word is an f32; of a set with bf16 products (FT_PAIRS) it is two bf16 that follow each other
 * along the sum, the first in the low half, as vdpbf16ps, AMX's tdpbf16ps and ARM's bfdot take
 * them. Numbers are rounded to the nearest, ties to even, where they become words; sums are f32.
 * The factor of a right side that is stored as bf16 falls on the left side then, so that the
 * weights stay what they are. */
#ifndef FT_KERNELS_CPU_UNIT_H
#define FT_KERNELS_CPU_UNIT_H

#include "kernels/cpu/cpu.h"

/* MR: the most rows of a tile (tile_rows). */
#if defined(FT_AMX)
enum { MR = 32 };
#elif defined(__AVX512F__)
enum { MR = 8, NV = 3 };
#elif defined(__AVX2__)
enum { MR = 8, NV = 3 };
#elif defined(FT_NEON)
enum { MR = 8, NV = 2 };
#elif defined(FT_BLAS)
enum { MR = 1, NV = 192 / VW };
#else
enum { MR = 8, NV = 2 };
#endif

#if defined(FT_PAIRS)
enum { WORD = 2 }; /* products of a word */
#else
enum { WORD = 1 };
#endif
#if defined(FT_AMX)
enum { NR = 32, DEPTH = 16, ALIGN = 16 }; /* columns of a panel; words and columns come in these */
#else
enum { NR = VW * NV, DEPTH = 1, ALIGN = VW };
#endif

enum {
    KC = 384, /* words summed in registers before they are added to memory */
#if defined(FT_BLAS)
    TILE_ROWS = 256, /* a call packs both operands */
#else
    TILE_ROWS = 64, /* rows of one piece: blocks of both operands stay in the second-level cache */
#endif
    PLAIN_PANELS = (64 + NR - 1) / NR, /* of a quantised matrix that are packed at a time */
};

/* Rows of stored numbers that a thread packs next, which come from memory while it multiplies. */
struct ahead {
    const char *row;
    int64_t rows, bytes, ld; /* left; of a row, and from one to the next */
    int64_t at;              /* in the first of them */
    int64_t lines;           /* of cache, fetched for each tile */
};

FT_INLINE void fetch_some(struct ahead *a)
{
    for (int64_t n = a->lines; n > 0 && a->rows > 0; n--) {
        __builtin_prefetch(a->row + a->at, 0, 1);
        a->at += 64;
        if (a->at < a->bytes)
            continue;
        a->at = 0;
        a->row += a->ld;
        a->rows--;
    }
}

/* Rows of a tile nv vectors wide: as many as the registers hold the sums of. */
FT_INLINE int tile_rows(int nv)
{
#if defined(FT_AMX) || defined(__AVX512F__) || defined(FT_NEON) || defined(FT_BLAS)
    (void)nv;
    return MR;
#elif defined(__AVX2__)
    return nv == 1 ? 8 : nv == 2 ? 6 : 4;
#else
    return nv == 1 ? 8 : 4;
#endif
}

/* Words that k products take; those behind the last are zeros. */
FT_INLINE int64_t words_of(int64_t k)
{
    return (k + WORD * DEPTH - 1) / (WORD * DEPTH) * DEPTH;
}

/* Columns of a panel of w. */
FT_INLINE int64_t padded(int64_t w)
{
    return (w + ALIGN - 1) / ALIGN * ALIGN;
}

/* What of a right side's factor falls on the left side, where it becomes words, and on itself. */
FT_INLINE float left_factor(const struct ft_operand *right)
{
    return WORD > 1 && right->dtype == FT_BF16 ? right->alpha : 1;
}

FT_INLINE float right_factor(const struct ft_operand *right, enum ft_dtype dtype)
{
    return WORD > 1 && dtype == FT_BF16 ? 1 : right->alpha;
}

#if defined(FT_PAIRS)

typedef float vfh __attribute__((vector_size(VBYTES), aligned(2))); /* words of bf16 as they lie */

/* Of vectors of f32, their bf16 in the high halves. */
FT_INLINE vu rounded(vf v)
{
    const vu bits = (vu)v, magnitude = bits & 0x7fffffff;
    const vu nan = (vu)(magnitude > 0x7f800000);
    const vu near = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    return (near & ~nan) | ((bits | 0x400000) & 0xffff0000 & nan);
}

/* Words of the products of two rows that follow each other. */
FT_INLINE vf pair(vf first, vf second)
{
#if defined(__AVX512BF16__)
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    return (vf)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    const bfloat16x8_t low = vcvtq_low_bf16_f32((float32x4_t)first);
    const bfloat16x8_t both = vcvtq_high_bf16_f32(low, (float32x4_t)second);
    const uint16x8_t bits = vreinterpretq_u16_bf16(both);
    return (vf)vzip1q_u16(bits, vextq_u16(bits, bits, 4));
#else
    return (vf)(rounded(first) >> 16 | rounded(second));
#endif
}

/* Words of 2 VW numbers that follow each other. */
FT_INLINE vf pairs(vf low, vf high)
{
#if defined(__AVX512BF16__)
    return (vf)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    const bfloat16x8_t half = vcvtq_low_bf16_f32((float32x4_t)low);
    return (vf)vcvtq_high_bf16_f32(half, (float32x4_t)high);
#else
    vi even, odd;
    for (int i = 0; i < VW; i++) {
        even[i] = 2 * i;
        odd[i] = 2 * i + 1;
    }
    const vf first = __builtin_shuffle(low, high, even);
    return pair(first, __builtin_shuffle(low, high, odd));
#endif
}

FT_INLINE float word_of(float first, float second)
{
    uint32_t bits = ft_f32_to_bf16(first) | (uint32_t)ft_f32_to_bf16(second) << 16;
    float word;
    memcpy(&word, &bits, sizeof word);
    return word;
}

/* VW words of a row, from element `at`; the factor of bf16 is 1. */
FT_INLINE vf words_along(const void *data, enum ft_dtype dtype, int64_t at, float factor)
{
    if (dtype == FT_BF16)
        return (vf) * (const vfh *)((const uint16_t *)data + at);
    return pairs(widen_vec(data, dtype, at) * factor, widen_vec(data, dtype, at + VW) * factor);
}

/* The words of VW columns of two rows, ld elements from one to the other. */
FT_INLINE vf words_across(const void *data, enum ft_dtype dtype, int64_t at, int64_t ld,
                          float factor)
{
    if (dtype == FT_BF16) {
        const uint16_t *first = (const uint16_t *)data + at;
        return (vf)(halves(first) | halves(first + ld) << 16);
    }
    return pair(widen_vec(data, dtype, at) * factor, widen_vec(data, dtype, at + ld) * factor);
}

/* acc + the products of words. */
FT_INLINE vf mul_add(vf acc, vf a, vf b)
{
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return (vf)vbfdotq_f32((float32x4_t)acc, (bfloat16x8_t)a, (bfloat16x8_t)b);
#else
    acc += (vf)((vu)a & 0xffff0000) * (vf)((vu)b & 0xffff0000);
    return acc + (vf)((vu)a << 16) * (vf)((vu)b << 16);
#endif
}

#else

FT_INLINE float word_of(float first, float second)
{
    (void)second;
    return first;
}

FT_INLINE vf words_along(const void *data, enum ft_dtype dtype, int64_t at, float factor)
{
    return widen_vec(data, dtype, at) * factor;
}

FT_INLINE vf words_across(const void *data, enum ft_dtype dtype, int64_t at, int64_t ld,
                          float factor)
{
    (void)ld;
    return widen_vec(data, dtype, at) * factor;
}

FT_INLINE vf mul_add(vf acc, vf a, vf b)
{
    return acc + a * b;
}

#endif

#if defined(FT_NEON)

/* acc + the products of a lane of a with b: one instruction. */
FT_INLINE vf mul_add_lane(vf acc, vf a, const int lane, vf b)
{
#if defined(FT_PAIRS) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return (vf)vbfdotq_laneq_f32((float32x4_t)acc, (bfloat16x8_t)b, (bfloat16x8_t)a, lane);
#else
    const float one = a[lane];
    return mul_add(acc, (vf)SPLAT(one), b);
#endif
}

#endif

#endif
