/* Tensors and the dtype table. */
#ifndef FT_CORE_TENSOR_H
#define FT_CORE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, bytes of one element, safetensors name */
#define FT_DTYPES(X)                                                                               \
    X(F32, 4, "F32")                                                                               \
    X(BF16, 2, "BF16")                                                                             \
    X(F16, 2, "F16")                                                                               \
    X(F64, 8, "F64")                                                                               \
    X(I32, 4, "I32")                                                                               \
    X(I64, 8, "I64")                                                                               \
    X(U8, 1, "U8")                                                                                 \
    X(U32, 4, "U32")                                                                               \
    X(I8, 1, "I8")                                                                                 \
    X(F8_E4M3, 1, "F8_E4M3")

/* Quantised matrices, and what they are called; their planes are in quant.h. */
#define FT_QUANTS(X)                                                                               \
    X(BNB4, "4-bit")                                                                               \
    X(BNB4_NESTED, "4-bit, double quantisation")                                                   \
    X(INT8_ROWS, "8-bit")                                                                          \
    X(FP8_BLOCKS, "FP8")                                                                           \
    X(INT4_GROUPS, "4-bit groups")                                                                 \
    X(Q4_0, "Q4_0")                                                                                \
    X(Q4_1, "Q4_1")                                                                                \
    X(Q5_0, "Q5_0")                                                                                \
    X(Q5_1, "Q5_1")                                                                                \
    X(Q8_0, "Q8_0")                                                                                \
    X(Q2_K, "Q2_K")                                                                                \
    X(Q3_K, "Q3_K")                                                                                \
    X(Q4_K, "Q4_K")                                                                                \
    X(Q5_K, "Q5_K")                                                                                \
    X(Q6_K, "Q6_K")                                                                                \
    X(IQ4_NL, "IQ4_NL")                                                                            \
    X(IQ4_XS, "IQ4_XS")                                                                            \
    X(MXFP4, "MXFP4")                                                                              \
    X(DYNAMIC8, "8-bit, dynamic")

enum ft_dtype {
#define X(name, size, st) FT_##name,
    FT_DTYPES(X)
#undef X
        FT_DTYPE_COUNT, /* also: none that ft knows */
#define X(name, text) FT_##name,
    FT_QUANTS(X)
#undef X
        FT_DTYPE_END
};

size_t ft_dtype_size(enum ft_dtype d); /* not of quantised ones */
const char *ft_dtype_name(enum ft_dtype d);
/* The dtype with this safetensors name in *out; false if ft has none such. */
bool ft_dtype_parse(const char *name, enum ft_dtype *out);

/* What bounds the rows of a tensor that hold data: all of them, or one of the batch's counts. */
enum ft_extent {
    FT_FIXED,
    FT_ROWS,      /* tokens of the pass */
    FT_DOCUMENTS, /* of the pass */
    FT_TRAINED,   /* tokens that are trained */
    FT_ROUTED,    /* rows that were sent to experts */
    FT_KEYS,      /* rows of a key-value cache */
    FT_EXTENTS
};

/* A row-major matrix. A vector of C elements is (1, C).
 * extent: unless it is FT_FIXED, rows is a capacity, and only rows below that count hold data. */
struct ft_tensor {
    void *data; /* not owned; NULL until the memory plan has placed it */
    int64_t rows, cols;
    enum ft_dtype dtype;
    enum ft_extent extent;
    int id;           /* index among the graph's values, -1 outside a graph */
    const char *name; /* for the memory table and messages */
    int64_t ld;       /* elements from one row to the next; 0: cols */
    int block;        /* of a quantised matrix: elements that share a scale, where that varies */
    int parts;        /* above 1: so many matrices of equal size, each quantised for itself, one
                         behind the other; rows are those of all */
};

static inline int64_t ft_tensor_ld(const struct ft_tensor *t)
{
    return t->ld ? t->ld : t->cols;
}

/* From the first element to the end of the last row's stride. */
size_t ft_tensor_bytes(const struct ft_tensor *t);
/* The i-th of n matrices of equal size, one below the other; where t has parts, n is their number.
 */
struct ft_tensor ft_tensor_part(const struct ft_tensor *t, int64_t n, int64_t i);

/* Widening is exact; narrowing rounds to nearest even. */
float ft_bf16_to_f32(uint16_t h);
uint16_t ft_f32_to_bf16(float f);
float ft_f16_to_f32(uint16_t h);
uint16_t ft_f32_to_f16(float f); /* too large becomes infinite */
/* Element i of data, widened; and v, narrowed to its place. F32, BF16 and F16. */
float ft_element_get(const void *data, size_t i, enum ft_dtype dtype);
void ft_element_put(void *data, size_t i, enum ft_dtype dtype, float v);

#endif
