/* What quantised matrices stand for, in bf16, where products read it: each plane is read once, and
 * 16 bytes are written a thread. A format is a case of `element`. */
#include "kernels/cuda/widen.h"

#ifndef FT_HOST_BUILD
#define FT_BLOCK FT_DEVICE
#endif
#include "kernels/blocks.h"

enum { THREADS = 128 };

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

/* V columns a thread. */
template <int V>
FT_KERNEL(THREADS)
widen(struct ft_mark mark, struct ft_planes q, struct ft_block_size size, struct ft_rows y)
{
    ft_begin(mark);
    FT_SHARED(float, code);
    const int64_t row = ft_block_x(), c = ((int64_t)ft_block_y() * THREADS + ft_thread()) * V;
    const int64_t at = row * q.cols + c;
    float out[V] = {};
    if (q.p[FT_CODE] && ft_thread() < 16)
        code[ft_thread()] = ((const float *)q.p[FT_CODE])[ft_thread()];
    ft_sync_block();
    if (c >= q.cols)
        return;
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
    ft_store<V>(y.p + row * y.ld + c, out);
}

static int64_t widened_ld(const struct ft_tensor *w)
{
    return (w->cols + 7) / 8 * 8;
}

size_t ft_widened_bytes(const struct ft_tensor *w)
{
    return ft_is_quant(w->dtype) ? (size_t)(w->rows * widened_ld(w)) * sizeof(bf16) : 0;
}

struct ft_tensor ft_widened(const struct ft_kernel_ctx *ctx, const struct ft_tensor *w, void *room)
{
    struct ft_tensor y = *w;
    if (!ft_is_quant(w->dtype))
        return y;
    y.dtype = FT_BF16;
    y.data = room;
    y.ld = widened_ld(w);
    const struct ft_planes q = ft_planes_of(w);
    const struct ft_block_size size = ft_block_size(w->dtype);
    const int v = w->cols % 8 ? 1 : 8;
    const struct ft_grid grid = {w->rows, (int)((w->cols / v + THREADS - 1) / THREADS), 1};
    if (v == 8)
        ft_launch(ctx, widen<8>, grid, THREADS, 16 * sizeof(float), q, size, ft_rows_of(&y));
    else
        ft_launch(ctx, widen<1>, grid, THREADS, 16 * sizeof(float), q, size, ft_rows_of(&y));
    return y;
}
