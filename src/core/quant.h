/* Quantised matrices. Codes and the planes that make numbers of them lie end to end in one block of
 * memory, each from a multiple of 64 bytes: so that a quantised matrix is one value, with a dtype.
 * A format is a row of FT_QUANTS, a case here, and a case of kernels/cpu/widen.c and
 * kernels/cuda/widen.cu. For the CUDA backend too, which is C++ and links nothing of core/. */
#ifndef FT_CORE_QUANT_H
#define FT_CORE_QUANT_H

#include "core/tensor.h"

/* GGUF's types: their decoder in kernels/blocks.h, elements and bytes of a block, and where in it
 * how many scales of F16 lie (the other numbers are always finite). Their only plane is blocks, row
 * by row. */
#define FT_BLOCKS(X)                                                                               \
    X(Q4_0, q4_0, 32, 18, 0, 1)                                                                    \
    X(Q4_1, q4_1, 32, 20, 0, 2)                                                                    \
    X(Q5_0, q5_0, 32, 22, 0, 1)                                                                    \
    X(Q5_1, q5_1, 32, 24, 0, 2)                                                                    \
    X(Q8_0, q8_0, 32, 34, 0, 1)                                                                    \
    X(Q2_K, q2_k, 256, 84, 80, 2)                                                                  \
    X(Q3_K, q3_k, 256, 110, 108, 1)                                                                \
    X(Q4_K, q4_k, 256, 144, 0, 2)                                                                  \
    X(Q5_K, q5_k, 256, 176, 0, 2)                                                                  \
    X(Q6_K, q6_k, 256, 210, 208, 1)                                                                \
    X(IQ4_NL, iq4_nl, 32, 18, 0, 1)                                                                \
    X(IQ4_XS, iq4_xs, 256, 136, 0, 1)                                                              \
    X(MXFP4, mxfp4, 32, 17, 0, 0)

/* Elements and bytes of a block of that type; elements 0: it is none of GGUF's. */
struct ft_block_size {
    int elements, bytes, scales_at, scales;
};
static inline struct ft_block_size ft_block_size(enum ft_dtype type)
{
    struct ft_block_size size = {0, 0, 0, 0};
    switch (type) {
#define X(name, fn, of, is, at, n)                                                                 \
    case FT_##name:                                                                                \
        size.elements = of;                                                                        \
        size.bytes = is;                                                                           \
        size.scales_at = at;                                                                       \
        size.scales = n;                                                                           \
        break;
        FT_BLOCKS(X)
#undef X
    default:
        break;
    }
    return size;
}

enum { FT_PLANES = 6, FT_NESTED_BLOCK = 256, FT_DYNAMIC_BLOCK = 256 };

/* What a format's planes are, in their order. n = rows cols, nb = ceil(n / block). */
enum {
    /* BNB4: U8 (ceil(n/2)), the high half first. INT8_ROWS: I8 (n). FP8_BLOCKS: E4M3 (n).
     * INT4_GROUPS: U8 (rows, ceil(cols/2)), the low half first. DYNAMIC8: U8 (n), see
     * kernels/dynamic.h */
    FT_CODES,
    /* BNB4: F32 (nb); BNB4_NESTED: U8 (nb), numbers in FT_SECOND_CODE. INT8_ROWS: F32 (rows), what
     * 127 stands for. FP8_BLOCKS, INT4_GROUPS: F32 (rows, ceil(cols/block)). DYNAMIC8: F32 (nb) */
    FT_SCALES,
    FT_CODE,        /* BNB4: F32 (16), what a code stands for */
    FT_SECOND,      /* BNB4_NESTED: F32 (ceil(nb/256)), the scales' scales */
    FT_SECOND_CODE, /* BNB4_NESTED: F32 (256) */
    FT_OFFSET,      /* BNB4_NESTED: F32 (1), added to the scales */
    /* INT4_GROUPS: U8 (rows, ceil(cols/block)), the code of zero; I32 (cols), a column's group */
    FT_ZEROS = FT_CODE,
    FT_GROUPS = FT_SECOND,
};

static inline bool ft_is_quant(enum ft_dtype d)
{
    return d > FT_DTYPE_COUNT;
}

static inline size_t ft_blocks_of(size_t n, size_t block)
{
    return (n + block - 1) / block;
}

/* Bytes of each plane; 0: the format has none such. */
static inline void ft_plane_bytes(const struct ft_tensor *t, size_t out[FT_PLANES])
{
    const size_t n = (size_t)t->rows * (size_t)t->cols;
    const size_t nb = t->block ? ft_blocks_of(n, (size_t)t->block) : 0;
    for (int i = 0; i < FT_PLANES; i++)
        out[i] = 0;
    switch (t->dtype) {
    case FT_BNB4_NESTED:
        out[FT_SECOND] = 4 * ft_blocks_of(nb, FT_NESTED_BLOCK);
        out[FT_SECOND_CODE] = 256 * 4;
        out[FT_OFFSET] = 4; /* fall through */
    case FT_BNB4:
        out[FT_CODES] = ft_blocks_of(n, 2);
        out[FT_SCALES] = nb * (t->dtype == FT_BNB4 ? 4 : 1);
        out[FT_CODE] = 16 * 4;
        return;
    case FT_INT8_ROWS:
        out[FT_CODES] = n;
        out[FT_SCALES] = 4 * (size_t)t->rows;
        return;
    case FT_DYNAMIC8: /* what an optimizer keeps; no product reads it */
        out[FT_CODES] = n;
        out[FT_SCALES] = 4 * nb;
        return;
    case FT_FP8_BLOCKS:
        out[FT_CODES] = n;
        out[FT_SCALES] = 4 * (size_t)t->rows * ft_blocks_of((size_t)t->cols, (size_t)t->block);
        return;
    case FT_INT4_GROUPS:
        out[FT_CODES] = (size_t)t->rows * ft_blocks_of((size_t)t->cols, 2);
        out[FT_ZEROS] = (size_t)t->rows * ft_blocks_of((size_t)t->cols, (size_t)t->block);
        out[FT_SCALES] = 4 * out[FT_ZEROS];
        out[FT_GROUPS] = 4 * (size_t)t->cols;
        return;
    default: /* GGUF's, whose rows are whole blocks */
        out[FT_CODES] =
            n / (size_t)ft_block_size(t->dtype).elements * (size_t)ft_block_size(t->dtype).bytes;
        return;
    }
}

/* An E4M3 number, which is no NaN: its exponent and fraction moved into place, then scaled. */
static inline float ft_e4m3(uint8_t code)
{
    union {
        uint32_t u;
        float f;
    } v;
    v.u = (uint32_t)(code & 0x7f) << 20;
    v.f *= 0x1p120f;
    return code & 0x80 ? -v.f : v.f;
}

/* A matrix with the addresses of its planes. */
struct ft_planes {
    enum ft_dtype dtype;
    int64_t rows, cols;
    int block;
    void *p[FT_PLANES]; /* NULL: none such */
    size_t bytes;       /* of all */
};

/* Those of the memory that t->data points to; all from it, if that is not known yet. */
static inline struct ft_planes ft_planes_of(const struct ft_tensor *t)
{
    struct ft_planes q;
    size_t bytes[FT_PLANES];
    q.dtype = t->dtype;
    q.rows = t->rows;
    q.cols = t->cols;
    q.block = t->block;
    q.bytes = 0;
    ft_plane_bytes(t, bytes);
    for (int i = 0; i < FT_PLANES; i++) {
        q.p[i] = bytes[i] && t->data ? (char *)t->data + q.bytes : NULL;
        q.bytes += (bytes[i] + 63) / 64 * 64;
    }
    return q;
}

/* The first of n matrices of equal size. */
static inline struct ft_tensor ft_first_part(const struct ft_tensor *t, int64_t n)
{
    struct ft_tensor part = *t;
    part.rows /= n;
    part.parts = 0;
    return part;
}

/* Bytes of one of a quantised tensor's parts. */
static inline size_t ft_part_bytes(const struct ft_tensor *t)
{
    const struct ft_tensor part = ft_first_part(t, t->parts > 1 ? t->parts : 1);
    return ft_planes_of(&part).bytes;
}

#endif
