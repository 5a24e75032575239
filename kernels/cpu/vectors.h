/* Vectors as wide as the instruction set's, for the products. */
#ifndef FT_KERNELS_CPU_VECTORS_H
#define FT_KERNELS_CPU_VECTORS_H

#include "kernels/cpu/cpu.h"

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

/* By halves, in every instruction set the same order. */
FT_INLINE float vf_sum(vf v)
{
#if defined(__AVX512F__)
    return v16_sum((v16)v);
#else
    float t[VW];
    memcpy(t, &v, sizeof t);
#pragma GCC unroll 4
    for (int step = VW / 2; step; step /= 2)
#pragma GCC unroll 4
        for (int i = 0; i < step; i++)
            t[i] += t[i + step];
    return t[0];
#endif
}

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
