/* Vectors as wide as the instruction set's, in GCC's vector extension: a wider type than the
 * machine's is taken apart lane by lane where it is compared.
 *
 * Sums of a row keep 16 lanes whatever the width (struct sums), so that AVX2, AVX-512 and NEON give
 * the same bits. */
#ifndef FT_KERNELS_CPU_VECTORS_H
#define FT_KERNELS_CPU_VECTORS_H

#include "core/tensor.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(FT_NEON) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#include <stdint.h>
#include <string.h>

#define FT_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
enum { VW = 16 };
#define VBYTES 64
#define SPLAT(x)                                                                                   \
    {                                                                                              \
        x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x                                             \
    }
#elif defined(__AVX2__)
enum { VW = 8 };
#define VBYTES 32
#define SPLAT(x)                                                                                   \
    {                                                                                              \
        x, x, x, x, x, x, x, x                                                                     \
    }
#else
enum { VW = 4 };
#define VBYTES 16
#define SPLAT(x)                                                                                   \
    {                                                                                              \
        x, x, x, x                                                                                 \
    }
#endif

typedef float vf __attribute__((vector_size(VBYTES)));
typedef float vfu __attribute__((vector_size(VBYTES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(VBYTES)));
typedef uint32_t vu __attribute__((vector_size(VBYTES)));
typedef uint16_t vh __attribute__((vector_size(VBYTES / 2), aligned(2)));

/* --- f32, and what lies behind a row's end --- */

FT_INLINE vf vf_load(const float *p)
{
    return (vf) * (const vfu *)p;
}

FT_INLINE void vf_store(float *p, vf v)
{
    *(vfu *)p = (vfu)v;
}

FT_INLINE vf vf_set(float f)
{
    return (vf)SPLAT(f);
}

/* The first n < VW floats of p, zeros behind. */
FT_INLINE vf vf_load_part(const float *p, int64_t n)
{
    float t[VW] = {0};
    memcpy(t, p, (size_t)n * sizeof *t);
    return vf_load(t);
}

FT_INLINE void vf_store_part(float *p, vf v, int64_t n)
{
    float t[VW];
    vf_store(t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}

/* The lanes of columns c.. of p; zeros behind the last column. */
FT_INLINE vf lanes(const float *p, int64_t c, int64_t cols)
{
    return c + VW <= cols ? vf_load(p + c) : vf_load_part(p + c, cols - c);
}

FT_INLINE void put_lanes(float *p, vf v, int64_t c, int64_t cols)
{
    if (c + VW <= cols)
        vf_store(p + c, v);
    else
        vf_store_part(p + c, v, cols - c);
}

/* All bits in the lanes from the n-th on. */
FT_INLINE vi vf_behind(int64_t n)
{
    static const int32_t first[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vi lane;
    memcpy(&lane, first, sizeof lane);
    return lane >= (int32_t)n;
}

FT_INLINE vf vf_select(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/* b > a ? b : a, and b < a ? b : a: a where one is NaN. */
FT_INLINE vf vf_max(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)b, (__m512)a);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)b, (__m256)a);
#else
    return vf_select(b > a, b, a);
#endif
}

FT_INLINE vf vf_min(vf a, vf b)
{
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)b, (__m512)a);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)b, (__m256)a);
#else
    return vf_select(b < a, b, a);
#endif
}

/* a b + c, rounded once where the set can: avx2, avx512 and neon alike. */
FT_INLINE vf vf_fma(vf a, vf b, vf c)
{
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(FT_NEON) && defined(__ARM_NEON)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* --- across the lanes --- */

typedef float vf8 __attribute__((vector_size(32)));
typedef float vf4 __attribute__((vector_size(16)));
#define LOW_HALF(v)  __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#define HIGH_HALF(v) __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
#define LOW_FOUR(v)  __builtin_shufflevector(v, v, 0, 1, 2, 3)
#define HIGH_FOUR(v) __builtin_shufflevector(v, v, 4, 5, 6, 7)

/* By halves, in every instruction set the same order. */
FT_INLINE float vf_sum(vf v)
{
#if defined(__AVX512F__)
    const vf8 half = LOW_HALF(v) + HIGH_HALF(v);
    const vf4 four = LOW_FOUR(half) + HIGH_FOUR(half);
#elif defined(__AVX2__)
    const vf4 four = LOW_FOUR(v) + HIGH_FOUR(v);
#else
    const vf4 four = v;
#endif
    return (four[0] + four[2]) + (four[1] + four[3]);
}

FT_INLINE float larger(float a, float b)
{
    return b > a ? b : a;
}

FT_INLINE float vf_max_lane(vf v)
{
    float t[VW];
    vf_store(t, v);
#pragma GCC unroll 4
    for (int step = VW / 2; step; step /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < step; i++)
            t[i] = larger(t[i], t[i + step]);
    return t[0];
}

/* 16 sums side by side: a column goes to the (c % 16)-th. */
enum { SUM_VECTORS = 16 / VW };
struct sums {
    vf part[SUM_VECTORS];
};

/* x of the next VW columns: the parts take turns. */
FT_INLINE void add_next(struct sums *s, vf x)
{
    const vf first = s->part[0] + x;
#pragma GCC unroll 4
    for (int i = 1; i < SUM_VECTORS; i++)
        s->part[i - 1] = s->part[i];
    s->part[SUM_VECTORS - 1] = first;
}

/* By halves, which whoever's turn it is leaves the same pairs. */
FT_INLINE float sums_total(struct sums s)
{
#pragma GCC unroll 2
    for (int step = SUM_VECTORS / 2; step; step /= 2)
#pragma GCC unroll 2
        for (int i = 0; i < step; i++)
            s.part[i] += s.part[i + step];
    return vf_sum(s.part[0]);
}

/* --- stored numbers --- */

/* VW numbers of 16 bits, each in the low half of 32. */
FT_INLINE vu halves(const void *stored)
{
#if defined(__AVX512F__) /* GCC 12 converts two vectors and puts them together */
    return (vu)_mm512_cvtepu16_epi32((__m256i) * (const vh *)stored);
#else
    return __builtin_convertvector(*(const vh *)stored, vu);
#endif
}

/* Stored numbers, widened: VW of them, or one. */
FT_INLINE vf widen_vec(const void *data, enum ft_dtype dtype, int64_t at)
{
    if (dtype == FT_F32)
        return (vf) * (const vfu *)((const float *)data + at);
    const vu h = halves((const uint16_t *)data + at);
    if (dtype == FT_BF16)
        return (vf)(h << 16);
    /* f16: shift the exponent into place, then scale by 2^112; exact for all finite values */
    vf magnitude = (vf)((h & 0x7fff) << 13) * 0x1p112f;
    return (vf)((vu)magnitude | ((h & 0x8000) << 16));
}

FT_INLINE float widen_one(const void *data, enum ft_dtype dtype, int64_t at)
{
    if (dtype == FT_F32)
        return ((const float *)data)[at];
    uint16_t h = ((const uint16_t *)data)[at];
    return dtype == FT_BF16 ? ft_bf16_to_f32(h) : ft_f16_to_f32(h);
}

/* --- transposition --- */

/* A round of a transposition exchanges off-diagonal blocks of s lanes. The lanes are written out as
 * constants: GCC 12 builds vectors of them anew each time where loops fill them. */
#if defined(__AVX512F__)
#define BY_LANE(X, s)                                                                              \
    X(0, s), X(1, s), X(2, s), X(3, s), X(4, s), X(5, s), X(6, s), X(7, s), X(8, s), X(9, s),      \
        X(10, s), X(11, s), X(12, s), X(13, s), X(14, s), X(15, s)
#elif defined(__AVX2__)
#define BY_LANE(X, s) X(0, s), X(1, s), X(2, s), X(3, s), X(4, s), X(5, s), X(6, s), X(7, s)
#else
#define BY_LANE(X, s) X(0, s), X(1, s), X(2, s), X(3, s)
#endif
#define LOW(lane, s)  ((lane) & (s) ? VW + (lane) - (s) : (lane))
#define HIGH(lane, s) ((lane) & (s) ? VW + (lane) : (lane) + (s))
#define ROUND(s)                                                                                   \
    _Pragma("GCC unroll 16") for (int i = 0; i < VW; i++) if (!(i & (s)))                          \
    {                                                                                              \
        const vf x = r[i], y = r[i + (s)];                                                         \
        r[i] = __builtin_shufflevector(x, y, BY_LANE(LOW, s));                                     \
        r[i + (s)] = __builtin_shufflevector(x, y, BY_LANE(HIGH, s));                              \
    }

/* VW vectors, in place. */
FT_INLINE void transpose(vf r[VW])
{
#if defined(__AVX512F__)
    ROUND(8)
#endif
#if defined(__AVX2__)
    ROUND(4)
#endif
    ROUND(2)
    ROUND(1)
}
#undef BY_LANE
#undef LOW
#undef HIGH
#undef ROUND

#endif
