/* What quantised matrices stand for, element by element: a format is a case of ft_widen. */
#ifndef FT_CUDA_WIDEN_CUH
#define FT_CUDA_WIDEN_CUH

#include "kernels/cuda/widen.h"

#ifndef FT_HOST_BUILD
#define FT_BLOCK FT_DEVICE
#endif
#include "kernels/blocks.h"

/* As ft_e4m3. */
FT_DEVICE float e4m3(uint8_t code)
{
    const float magnitude = ft_from_bits((uint32_t)(code & 0x7f) << 20) * 0x1p120f;
    return code & 0x80 ? -magnitude : magnitude;
}

FT_DEVICE float bnb4_scale(const struct ft_planes &q, int64_t block)
{
    if (q.dtype == FT_BNB4)
        return ((const float *)q.p[FT_SCALES])[block];
    const uint8_t code = ((const uint8_t *)q.p[FT_SCALES])[block];
    return ((const float *)q.p[FT_SECOND_CODE])[code] *
               ((const float *)q.p[FT_SECOND])[block / FT_NESTED_BLOCK] +
           *(const float *)q.p[FT_OFFSET];
}

/* Elements at..at+V-1 of all, which are of row `row`. */
template <int V>
FT_DEVICE void bnb4(float out[V], const struct ft_planes &q, const float *code, int64_t at)
{
    const uint8_t *codes = (const uint8_t *)q.p[FT_CODES] + at / 2;
    const float scale = bnb4_scale(q, at / q.block); /* V divides the block */
    if (V == 8) {
        const uint32_t four = *(const uint32_t *)codes;
        FT_UNROLL
        for (int i = 0; i < V; i++)
            out[i] = code[four >> (i / 2 * 8 + (i % 2 ? 0 : 4)) & 15] * scale;
    } else {
        out[0] = code[at % 2 ? codes[0] & 15 : codes[0] >> 4] * scale;
    }
}

template <int V>
FT_DEVICE void int8_rows(float out[V], const struct ft_planes &q, int64_t row, int64_t at)
{
    const int8_t *codes = (const int8_t *)q.p[FT_CODES] + at;
    const float scale = ((const float *)q.p[FT_SCALES])[row];
    if (V == 8) {
        const uint64_t eight = *(const uint64_t *)codes;
        FT_UNROLL
        for (int i = 0; i < V; i++)
            out[i] = (float)(int8_t)(eight >> (8 * i)) * scale * 7.874015718698502e-3f;
    } else {
        out[0] = (float)codes[0] * scale * 7.874015718698502e-3f;
    }
}

template <int V>
FT_DEVICE void fp8_blocks(float out[V], const struct ft_planes &q, int64_t row, int64_t c)
{
    const uint8_t *codes = (const uint8_t *)q.p[FT_CODES] + row * q.cols + c;
    const float *scales = (const float *)q.p[FT_SCALES] + row * ((q.cols + q.block - 1) / q.block);
    const uint64_t eight = V == 8 ? *(const uint64_t *)codes : codes[0];
    FT_UNROLL
    for (int i = 0; i < V; i++)
        out[i] = e4m3((uint8_t)(eight >> (8 * i))) * scales[(c + i) / q.block];
}

template <int V>
FT_DEVICE void int4_groups(float out[V], const struct ft_planes &q, int64_t row, int64_t c)
{
    const int64_t n = (q.cols + q.block - 1) / q.block;
    const uint8_t *codes = (const uint8_t *)q.p[FT_CODES] + row * ((q.cols + 1) / 2) + c / 2;
    const float *scales = (const float *)q.p[FT_SCALES] + row * n;
    const uint8_t *zeros = (const uint8_t *)q.p[FT_ZEROS] + row * n;
    const int32_t *groups = (const int32_t *)q.p[FT_GROUPS] + c;
    const uint32_t eight = V == 8 ? *(const uint32_t *)codes : codes[0] >> (c % 2 * 4);
    FT_UNROLL
    for (int i = 0; i < V; i++)
        out[i] = (float)((int)(eight >> (4 * i) & 15) - zeros[groups[i]]) * scales[groups[i]];
}

/* Columns c..c+V-1 of a row; code: the table FT_CODE, if the format has one. V is 8 only where 8
 * divides the columns. */
template <int V>
FT_DEVICE void ft_widen(float out[V], const struct ft_planes &q, const struct ft_block_size &size,
                        const float *code, int64_t row, int64_t c)
{
    const int64_t at = row * q.cols + c;
    switch (q.dtype) {
    case FT_BNB4:
    case FT_BNB4_NESTED:
        bnb4<V>(out, q, code, at);
        break;
    case FT_INT8_ROWS:
        int8_rows<V>(out, q, row, at);
        break;
    case FT_FP8_BLOCKS:
        fp8_blocks<V>(out, q, row, c);
        break;
    case FT_INT4_GROUPS:
        int4_groups<V>(out, q, row, c);
        break;
    default: /* GGUF's, whose rows are whole blocks */
        if (V == 8)
            ft_block_run(out, q.dtype,
                         (const uint8_t *)q.p[FT_CODES] + at / size.elements * size.bytes,
                         (int)(at % size.elements));
        break;
    }
}

#endif
