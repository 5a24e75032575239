/* The blocks of GGUF's quantised types, as ggml defines them: 8 elements from the i-th, a multiple
 * of 8, to f32. One definition for the CPU and for CUDA. Every type lies row by row in whole
 * blocks. */
#ifndef FT_KERNELS_BLOCKS_H
#define FT_KERNELS_BLOCKS_H

#include "core/quant.h"

#ifndef FT_BLOCK
#define FT_BLOCK static inline
#endif

FT_BLOCK float ft_block_bits(uint32_t u)
{
    union {
        uint32_t u;
        float f;
    } v;
    v.u = u;
    return v.f;
}

/* An f16 that is finite. */
FT_BLOCK float ft_block_half(const uint8_t *p)
{
    const uint32_t h = (uint32_t)(p[0] | p[1] << 8);
    const float magnitude = ft_block_bits((h & 0x7fff) << 13) * 0x1p112f;
    return h & 0x8000 ? -magnitude : magnitude;
}

/* --- 32 elements: the lower halves of 16 bytes, then the upper ones --- */

FT_BLOCK void ft_q4_0(float *out, const uint8_t *b, int i)
{
    const float d = ft_block_half(b);
    const uint8_t *codes = b + 2 + i % 16;
    const int shift = i / 16 * 4;
    for (int k = 0; k < 8; k++)
        out[k] = (float)((codes[k] >> shift & 15) - 8) * d;
}

FT_BLOCK void ft_q4_1(float *out, const uint8_t *b, int i)
{
    const float d = ft_block_half(b), least = ft_block_half(b + 2);
    const uint8_t *codes = b + 4 + i % 16;
    const int shift = i / 16 * 4;
    for (int k = 0; k < 8; k++)
        out[k] = (float)(codes[k] >> shift & 15) * d + least;
}

/* The fifth bits are 32 bits in order. */
FT_BLOCK void ft_q5_0(float *out, const uint8_t *b, int i)
{
    const float d = ft_block_half(b);
    const uint8_t *codes = b + 6 + i % 16;
    const int shift = i / 16 * 4, fifths = b[2 + i / 8];
    for (int k = 0; k < 8; k++)
        out[k] = (float)(((codes[k] >> shift & 15) | (fifths >> k & 1) << 4) - 16) * d;
}

FT_BLOCK void ft_q5_1(float *out, const uint8_t *b, int i)
{
    const float d = ft_block_half(b), least = ft_block_half(b + 2);
    const uint8_t *codes = b + 8 + i % 16;
    const int shift = i / 16 * 4, fifths = b[4 + i / 8];
    for (int k = 0; k < 8; k++)
        out[k] = (float)((codes[k] >> shift & 15) | (fifths >> k & 1) << 4) * d + least;
}

FT_BLOCK void ft_q8_0(float *out, const uint8_t *b, int i)
{
    const float d = ft_block_half(b);
    for (int k = 0; k < 8; k++)
        out[k] = (float)(int8_t)b[2 + i + k] * d;
}

/* The 16 values of IQ4, from the distribution of weights. */
FT_BLOCK int ft_iq4(int code)
{
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    return values[code];
}

FT_BLOCK void ft_iq4_nl(float *out, const uint8_t *b, int i)
{
    const float d = ft_block_half(b);
    for (int k = 0; k < 8; k++)
        out[k] = d * (float)ft_iq4(b[2 + i % 16 + k] >> (i / 16 * 4) & 15);
}

/* E2M1 numbers, doubled, times half of a power of two. */
FT_BLOCK void ft_mxfp4(float *out, const uint8_t *b, int i)
{
    static const int8_t values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const float d =
        ft_block_bits(b[0] < 2 ? (uint32_t)0x00200000 << b[0] : (uint32_t)(b[0] - 1) << 23);
    for (int k = 0; k < 8; k++)
        out[k] = d * (float)values[b[1 + i % 16 + k] >> (i / 16 * 4) & 15];
}

/* --- 256 elements, with scales of their own for 16 or 32 --- */

FT_BLOCK void ft_q2_k(float *out, const uint8_t *b, int i)
{
    const uint8_t both = b[i / 16], *codes = b + 16 + i / 128 * 32 + i % 32;
    const float d = ft_block_half(b + 80) * (float)(both & 15);
    const float least = ft_block_half(b + 82) * (float)(both >> 4);
    for (int k = 0; k < 8; k++)
        out[k] = d * (float)(codes[k] >> (i % 128 / 32 * 2) & 3) - least;
}

/* The 6 bits of the n-th of 16 scales: four of them in one place, two in another. */
FT_BLOCK int ft_q3_scale(const uint8_t *s, int n)
{
    return (s[n % 8] >> (n / 8 * 4) & 15) | (s[8 + n % 4] >> (n / 4 * 2) & 3) << 4;
}

FT_BLOCK void ft_q3_k(float *out, const uint8_t *b, int i)
{
    const uint8_t *high = b + i % 32, *codes = b + 32 + i / 128 * 32 + i % 32;
    const float d = ft_block_half(b + 108) * (float)(ft_q3_scale(b + 96, i / 16) - 32);
    for (int k = 0; k < 8; k++)
        out[k] =
            d * (float)((codes[k] >> (i % 128 / 32 * 2) & 3) - (high[k] >> (i / 32) & 1 ? 0 : 4));
}

/* The 6 bits of scale and minimum of the n-th 32 elements. */
FT_BLOCK int ft_k4_scale(const uint8_t *s, int n)
{
    return n < 4 ? s[n] & 63 : (s[n + 4] & 15) | s[n - 4] >> 6 << 4;
}
FT_BLOCK int ft_k4_least(const uint8_t *s, int n)
{
    return n < 4 ? s[n + 4] & 63 : s[n + 4] >> 4 | s[n] >> 6 << 4;
}

FT_BLOCK void ft_q4_k(float *out, const uint8_t *b, int i)
{
    const uint8_t *codes = b + 16 + i / 64 * 32 + i % 32;
    const float d = ft_block_half(b) * (float)ft_k4_scale(b + 4, i / 32);
    const float least = ft_block_half(b + 2) * (float)ft_k4_least(b + 4, i / 32);
    for (int k = 0; k < 8; k++)
        out[k] = d * (float)(codes[k] >> (i % 64 / 32 * 4) & 15) - least;
}

FT_BLOCK void ft_q5_k(float *out, const uint8_t *b, int i)
{
    const uint8_t *high = b + 16 + i % 32, *codes = b + 48 + i / 64 * 32 + i % 32;
    const float d = ft_block_half(b) * (float)ft_k4_scale(b + 4, i / 32);
    const float least = ft_block_half(b + 2) * (float)ft_k4_least(b + 4, i / 32);
    for (int k = 0; k < 8; k++)
        out[k] =
            d * (float)((codes[k] >> (i % 64 / 32 * 4) & 15) | (high[k] >> (i / 32) & 1) << 4) -
            least;
}

FT_BLOCK void ft_q6_k(float *out, const uint8_t *b, int i)
{
    const int quarter = i % 128 / 32;
    const uint8_t *codes = b + i / 128 * 64 + quarter % 2 * 32 + i % 32;
    const uint8_t *high = b + 128 + i / 128 * 32 + i % 32;
    const float d = ft_block_half(b + 208) * (float)(int8_t)b[192 + i / 16];
    for (int k = 0; k < 8; k++)
        out[k] = d * (float)(((codes[k] >> (quarter / 2 * 4) & 15) | (high[k] >> (2 * quarter) & 3)
                                                                         << 4) -
                             32);
}

FT_BLOCK void ft_iq4_xs(float *out, const uint8_t *b, int i)
{
    const int n = i / 32, high = b[2] | b[3] << 8;
    const int scale = (b[4 + n / 2] >> (n % 2 * 4) & 15) | (high >> (2 * n) & 3) << 4;
    const float d = ft_block_half(b) * (float)(scale - 32);
    for (int k = 0; k < 8; k++)
        out[k] = d * (float)ft_iq4(b[8 + 16 * n + i % 16 + k] >> (i % 32 / 16 * 4) & 15);
}

FT_BLOCK void ft_block_run(float *out, enum ft_dtype type, const uint8_t *block, int i)
{
    switch (type) {
#define X(name, fn, elements, bytes, ...)                                                          \
    case FT_##name:                                                                                \
        ft_##fn(out, block, i);                                                                    \
        return;
        FT_BLOCKS(X)
#undef X
    default:
        return;
    }
}

#endif
