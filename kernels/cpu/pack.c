/* Packing: stored numbers become words in panels of NR columns, row of words after row, with zeros
 * behind the last column (to ALIGN) and the last word (to DEPTH). */
#include "kernels/cpu/unit.h"

/* Weights come from memory in strides that the processor does not foresee. It may be behind them.
 */
FT_INLINE void fetch_ahead(const struct ft_operand *b, enum ft_dtype dtype, int64_t at)
{
    const uintptr_t ahead = (uintptr_t)b->data + (uintptr_t)(at * (dtype == FT_F32 ? 4 : 2));
    __builtin_prefetch((const void *)ahead);
}

/* The word of element `at`, times its factor, and, if the sum goes on, of the one that is `step`
 * further. */
FT_INLINE float word_at(const struct ft_operand *b, enum ft_dtype dtype, int64_t at, int64_t step,
                        bool goes_on)
{
    const float factor = right_factor(b, dtype);
    return word_of(widen_one(b->data, dtype, at) * factor,
                   goes_on ? widen_one(b->data, dtype, at + step) * factor : 0);
}

static void clear_words(float *out, int64_t k, int64_t width)
{
    const int64_t used = (k + WORD - 1) / WORD;
    memset(out + used * width, 0, (size_t)((words_of(k) - used) * width) * sizeof *out);
}

/* Of VW rows that lie below each other, from element `at` on, VW words each: a column after the
 * other. */
FT_INLINE void square(float *out, int64_t width, const struct ft_operand *b, enum ft_dtype dtype,
                      int64_t at)
{
    vf r[VW];
#pragma GCC unroll 16
    for (int i = 0; i < VW; i++) {
        fetch_ahead(b, dtype, at + (VW + i) * b->ld);
        r[i] = words_along(b->data, dtype, at + i * b->ld, right_factor(b, dtype));
    }
    transpose(r);
#pragma GCC unroll 16
    for (int i = 0; i < VW; i++)
        *(vfu *)(out + i * width) = (vfu)r[i];
}

/* Products k0..k1-1 of one panel: columns j0..j0+w-1 of B. */
FT_INLINE void pack_trans(float *out, const struct ft_operand *b, enum ft_dtype dtype, int64_t k0,
                          int64_t k1, int64_t j0, int64_t w)
{
    const int64_t width = padded(w);
    for (int64_t j = 0; j < width; j += VW) {
        int64_t k = k0;
        float *to = out + j;
        if (j + VW <= w)
            for (; k + VW * WORD <= k1; k += VW * WORD, to += VW * width)
                square(to, width, b, dtype, (j0 + j) * b->ld + k);
        for (; k < k1; k += WORD, to += width)
            for (int i = 0; i < VW; i++)
                to[i] = j + i < w ? word_at(b, dtype, (j0 + j + i) * b->ld + k, 1, k + 1 < k1) : 0;
    }
    clear_words(out, k1 - k0, width);
}

FT_INLINE void pack_plain(float *out, const struct ft_operand *b, enum ft_dtype dtype, int64_t k0,
                          int64_t k1, int64_t j0, int64_t w)
{
    const int64_t width = padded(w);
    float *to = out;
    for (int64_t k = k0; k < k1; k += WORD, to += width) {
        const bool whole = k + WORD <= k1;
        int64_t at = k * b->ld + j0, j = 0;
        for (int i = 0; i < WORD; i++) {
            fetch_ahead(b, dtype, at + (12 + i) * b->ld);
            fetch_ahead(b, dtype, at + (12 + i) * b->ld + 32);
        }
        for (; whole && j + VW <= w; j += VW)
            *(vfu *)(to + j) =
                (vfu)words_across(b->data, dtype, at + j, b->ld, right_factor(b, dtype));
        for (; j < width; j++)
            to[j] = j < w ? word_at(b, dtype, at + j, b->ld, k + 1 < k1) : 0;
    }
    clear_words(out, k1 - k0, width);
}

/* Quantised rows pass through a buffer, some of their columns at a time. */
enum { SEGMENT = 128 };

static void pack_quant_trans(float *out, const struct ft_operand *b, int64_t k0, int64_t k1,
                             int64_t j0, int64_t w)
{
    const struct ft_planes q = ft_planes_of(b->quant);
    const int64_t width = padded(w);
    float rows[NR * SEGMENT];
    const struct ft_operand widened = {
        .data = rows, .dtype = FT_F32, .ld = SEGMENT, .trans = true, .alpha = b->alpha};
    for (int64_t k = k0; k < k1; k += SEGMENT) {
        const int64_t n = k1 - k < SEGMENT ? k1 - k : SEGMENT;
        for (int64_t j = 0; j < w; j++)
            BASE(widen)(rows + j * SEGMENT, &q, b->first + j0 + j, k, n);
        pack_trans(out + (k - k0) / WORD * width, &widened, FT_F32, 0, n, 0, w);
    }
}

/* Several panels, `panel` words from one to the next. */
static void pack_quant_plain(float *out, int64_t panel, const struct ft_operand *b, int64_t k0,
                             int64_t k1, int64_t j0, int64_t w)
{
    const struct ft_planes q = ft_planes_of(b->quant);
    float rows[WORD * DEPTH * PLAIN_PANELS * NR];
    const struct ft_operand widened = {
        .data = rows, .dtype = FT_F32, .ld = PLAIN_PANELS * NR, .alpha = b->alpha};
    for (int64_t k = k0; k < k1; k += WORD * DEPTH) {
        const int64_t n = k1 - k < WORD * DEPTH ? k1 - k : WORD * DEPTH;
        for (int64_t i = 0; i < n; i++)
            BASE(widen)(rows + i * PLAIN_PANELS * NR, &q, b->first + k + i, j0, w);
        for (int64_t j = 0; j < w; j += NR) {
            const int64_t part = w - j < NR ? w - j : NR;
            float *to = out + j / NR * panel + (k - k0) / WORD * padded(part);
            pack_plain(to, &widened, FT_F32, 0, n, j, part);
        }
    }
}

static void pack_panel(float *out, const struct ft_operand *b, int64_t k0, int64_t k1, int64_t j0,
                       int64_t w)
{
#define EACH(dtype)                                                                                \
    case dtype:                                                                                    \
        if (b->trans)                                                                              \
            pack_trans(out, b, dtype, k0, k1, j0, w);                                              \
        else                                                                                       \
            pack_plain(out, b, dtype, k0, k1, j0, w);                                              \
        return;
    switch (b->dtype) {
        EACH(FT_F32)
        EACH(FT_BF16)
        EACH(FT_F16)
    default:
        return; /* ft_op_check admits no other */
    }
#undef EACH
}

void K(gemm_pack_part)(float *out, const struct ft_operand *b, int64_t k0, int64_t k1, int64_t j,
                       int64_t end)
{
    const int64_t depth = words_of(k1 - k0), step = b->quant && !b->trans ? PLAIN_PANELS * NR : NR;
    for (int64_t w; j < end; j += w, out += w * depth) {
        w = end - j < step ? end - j : step;
        if (w > NR)
            w = w / NR * NR;
        if (!b->quant)
            pack_panel(out, b, k0, k1, j, w);
        else if (b->trans)
            pack_quant_trans(out, b, k0, k1, j, w);
        else
            pack_quant_plain(out, NR * depth, b, k0, k1, j, w);
    }
}

void K(gemm_pack)(float *packed, const struct ft_operand *b, int64_t k, int64_t n)
{
    K(gemm_pack_part)(packed, b, 0, k, 0, n);
}
