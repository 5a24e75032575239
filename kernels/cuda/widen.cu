/* What quantised matrices stand for, in bf16, where products read it: each plane is read once, and
 * 16 bytes are written a thread. */
#include "kernels/cuda/widen.cuh"

enum { THREADS = 128 };

/* V columns a thread. */
template <int V>
FT_KERNEL(THREADS)
widen(struct ft_mark mark, struct ft_planes q, struct ft_block_size size, struct ft_rows y)
{
    ft_begin(mark);
    FT_SHARED(float, code);
    const int64_t row = ft_block_x(), c = ((int64_t)ft_block_y() * THREADS + ft_thread()) * V;
    float out[V] = {};
    if (q.p[FT_CODE] && ft_thread() < 16)
        code[ft_thread()] = ((const float *)q.p[FT_CODE])[ft_thread()];
    ft_sync_block();
    if (c >= q.cols)
        return;
    ft_widen<V>(out, q, size, code, row, c);
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
