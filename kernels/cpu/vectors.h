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

#endif
