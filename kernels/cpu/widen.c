/* What quantised matrices stand for, in f32: bit for bit what the format's own library gives. */
#include "kernels/blocks.h"
#include "kernels/cpu/cpu.h"

typedef float v8 __attribute__((vector_size(32)));
typedef float v8u __attribute__((vector_size(32), aligned(4)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8w __attribute__((vector_size(32)));

/* --- bitsandbytes: blocks over all elements, row after row --- */

static float bnb4_scale(const struct ft_planes *q, int64_t block)
{
    if (q->dtype == FT_BNB4)
        return ((const float *)q->p[FT_SCALES])[block];
    const uint8_t code = ((const uint8_t *)q->p[FT_SCALES])[block];
    const float second = ((const float *)q->p[FT_SECOND])[block / FT_NESTED_BLOCK];
    return ((const float *)q->p[FT_SECOND_CODE])[code] * second + *(const float *)q->p[FT_OFFSET];
}

/* Elements from..from+n-1, which are of one block. */
FT_INLINE void bnb4_run(float *out, const uint8_t *codes, const float *code, float scale,
                        int64_t from, int64_t n)
{
    const v8w shifts = {4, 0, 12, 8, 20, 16, 28, 24};
    const v8 low = *(const v8u *)code * scale, high = *(const v8u *)(code + 8) * scale;
    int64_t i = 0;
    for (; from % 2 == 0 && i + 8 <= n; i += 8) {
        uint32_t four;
        memcpy(&four, codes + (from + i) / 2, 4);
        const v8i at = (v8i)((four + (v8w){0}) >> shifts & 15);
        *(v8u *)(out + i) = (v8u)__builtin_shuffle(low, high, at);
    }
    for (; i < n; i++) {
        const uint8_t two = codes[(from + i) / 2];
        out[i] = code[(from + i) % 2 ? two & 15 : two >> 4] * scale;
    }
}

static void bnb4(float *out, const struct ft_planes *q, int64_t at, int64_t n)
{
    for (int64_t i = 0, run; i < n; i += run) {
        const int64_t block = (at + i) / q->block, end = (block + 1) * q->block - at;
        run = (end < n ? end : n) - i;
        bnb4_run(out + i, q->p[FT_CODES], q->p[FT_CODE], bnb4_scale(q, block), at + i, run);
    }
}

static void int8_rows(float *out, const struct ft_planes *q, int64_t row, int64_t at, int64_t n)
{
    const int8_t *codes = (const int8_t *)q->p[FT_CODES] + at;
    const float scale = ((const float *)q->p[FT_SCALES])[row];
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)codes[i] * scale * 7.874015718698502e-3f;
}

static int64_t groups_of(const struct ft_planes *q)
{
    return (q->cols + q->block - 1) / q->block;
}

static void fp8_blocks(float *out, const struct ft_planes *q, int64_t row, int64_t col, int64_t n)
{
    const uint8_t *codes = (const uint8_t *)q->p[FT_CODES] + row * q->cols + col;
    const float *scales = (const float *)q->p[FT_SCALES] + row * groups_of(q);
    for (int64_t i = 0, run; i < n; i += run) {
        const int64_t block = (col + i) / q->block, end = (block + 1) * q->block - col;
        const float scale = scales[block];
        run = (end < n ? end : n) - i;
        for (int64_t k = i; k < i + run; k++)
            out[k] = ft_e4m3(codes[k]) * scale;
    }
}

/* Elements from..from+n-1 of a row, which are of one group. */
FT_INLINE void int4_run(float *out, const uint8_t *codes, int zero, float scale, int64_t from,
                        int64_t n)
{
    const v8w shifts = {0, 4, 8, 12, 16, 20, 24, 28};
    int64_t i = 0;
    for (; from % 2 == 0 && i + 8 <= n; i += 8) {
        uint32_t four;
        memcpy(&four, codes + (from + i) / 2, 4);
        const v8i steps = (v8i)((four + (v8w){0}) >> shifts & 15) - zero;
        *(v8u *)(out + i) = (v8u)(__builtin_convertvector(steps, v8) * scale);
    }
    for (; i < n; i++)
        out[i] = (float)((codes[(from + i) / 2] >> ((from + i) % 2 * 4) & 15) - zero) * scale;
}

/* How many of n neighbouring columns are of the first one's group. */
FT_INLINE int64_t group_run(const int32_t *groups, int64_t n)
{
    int64_t i = 0;
    for (int32_t differ = 0; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++)
            differ |= groups[i + k] ^ groups[0];
        if (differ)
            break;
    }
    while (i < n && groups[i] == groups[0])
        i++;
    return i;
}

static void int4_groups(float *out, const struct ft_planes *q, int64_t row, int64_t col, int64_t n)
{
    const uint8_t *codes = (const uint8_t *)q->p[FT_CODES] + row * ((q->cols + 1) / 2);
    const float *scales = (const float *)q->p[FT_SCALES] + row * groups_of(q);
    const uint8_t *zeros = (const uint8_t *)q->p[FT_ZEROS] + row * groups_of(q);
    const int32_t *groups = (const int32_t *)q->p[FT_GROUPS] + col;
    for (int64_t i = 0, run; i < n; i += run) {
        run = group_run(groups + i, n - i);
        int4_run(out + i, codes, zeros[groups[i]], scales[groups[i]], col + i, run);
    }
}

/* Runs of 8 elements of one of GGUF's types; the first and the last may be parts. */
#define X(name, fn, elements, bytes, ...)                                                          \
    static void run_##fn(float *out, const uint8_t *codes, int64_t at, int64_t n)                  \
    {                                                                                              \
        for (; n >= 8; at += 8, n -= 8, out += 8)                                                  \
            ft_##fn(out, codes + at / (elements) * (bytes), (int)(at % (elements)));               \
    }
FT_BLOCKS(X)
#undef X

typedef void run_fn(float *out, const uint8_t *codes, int64_t at, int64_t n);

static void blocks(float *out, const struct ft_planes *q, int64_t at, int64_t n)
{
    static run_fn *const runs[] = {
#define X(name, fn, elements, bytes, ...) [FT_##name - FT_Q4_0] = run_##fn,
        FT_BLOCKS(X)
#undef X
    };
    run_fn *run = runs[q->dtype - FT_Q4_0];
    const uint8_t *codes = q->p[FT_CODES];
    float eight[8];
    while (n > 0) {
        const int from = (int)(at % 8);
        const int64_t count = from || n < 8 ? (n < 8 - from ? n : 8 - from) : n / 8 * 8;
        if (count < 8) {
            run(eight, codes, at - from, 8);
            memcpy(out, eight + from, (size_t)count * sizeof *out);
        } else {
            run(out, codes, at, count);
        }
        out += count;
        at += count;
        n -= count;
    }
}

void K(widen)(float *out, const struct ft_planes *q, int64_t row, int64_t col, int64_t n)
{
    const int64_t at = row * q->cols + col;
    switch (q->dtype) {
    case FT_BNB4:
    case FT_BNB4_NESTED:
        bnb4(out, q, at, n);
        return;
    case FT_INT8_ROWS:
        int8_rows(out, q, row, at, n);
        return;
    case FT_FP8_BLOCKS:
        fp8_blocks(out, q, row, col, n);
        return;
    case FT_INT4_GROUPS:
        int4_groups(out, q, row, col, n);
        return;
    default:
        blocks(out, q, at, n);
        return;
    }
}

void K(widen_row)(float *out, const struct ft_tensor *w, int64_t row)
{
    const int64_t at = row * ft_tensor_ld(w);
    if (ft_is_quant(w->dtype)) {
        const struct ft_planes q = ft_planes_of(w);
        K(widen)(out, &q, row, 0, w->cols);
        return;
    }
    int64_t c = 0;
    for (; w->dtype == FT_BF16 && c + VW <= w->cols; c += VW)
        *(vfu *)(out + c) = widen_vec(w->data, FT_BF16, at + c);
    for (; c < w->cols; c++)
        out[c] = widen_one(w->data, w->dtype, at + c);
}
