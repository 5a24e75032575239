/* grad_norm, adamw, sgd, lion: over the flat block of all trained parameters. */
#include "core/quant.h"
#include "kernels/cuda/device.cuh"
#include "kernels/window.h"

#ifndef FT_HOST_BUILD
#define FT_DYNAMIC FT_DEVICE
#endif
#include "kernels/dynamic.h"

/* All threads of a block together have a block of a state. */
enum { THREADS = FT_DYNAMIC_BLOCK, PIECE = 16384 };

FT_KERNEL(THREADS)
square_piece(struct ft_mark mark, const float *g, int64_t n, double *sums)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    const int64_t from = ft_block_x() * PIECE;
    double sum = 0;
    for (int64_t i = from + ft_thread(); i < from + PIECE && i < n; i += THREADS)
        sum += (double)g[i] * (double)g[i];
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() == 0)
        sums[ft_block_x()] = sum;
}

/* Ends the window: see struct ft_grad_norm_args. */
FT_KERNEL(THREADS)
end_window(struct ft_mark mark, const double *sums, int64_t pieces, double max_norm, double *s)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    double sum = 0;
    for (int64_t i = ft_thread(); i < pieces; i += THREADS)
        sum += sums[i];
    sum = ft_block_sum<THREADS>(sum, shared);
    if (ft_thread() == 0)
        ft_end_window(s, sum, max_norm);
}

size_t ft_cuda_grad_norm_scratch(const union ft_op_args *args)
{
    return ((size_t)args->grad_norm.grad->cols / PIECE + 1) * sizeof(double);
}

void ft_cuda_grad_norm(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_grad_norm_args *a = &args->grad_norm;
    const int64_t n = a->grad->cols, pieces = (n + PIECE - 1) / PIECE;
    const size_t shared = THREADS * sizeof(double);
    double *sums = (double *)ctx->scratch;
    ft_launch(ctx, square_piece, ft_grid{pieces, 1, 1}, THREADS, shared,
              (const float *)a->grad->data, n, sums);
    ft_launch(ctx, end_window, ft_grid{1, 1, 1}, THREADS, shared, (const double *)sums, pieces,
              (double)a->max_norm, (double *)a->scalars->data);
}

/* What one update has in common, worked out once, on the device. */
struct common {
    float factor, lr, step_size, root_bc2;
    int apply; /* 0: the gradient is dropped and nothing else changes */
};
size_t ft_cuda_update_scratch(const union ft_op_args *args)
{
    (void)args;
    return sizeof(struct common);
}

FT_KERNEL(32)
prepare(struct ft_mark mark, const double *s, double beta1, double beta2, double rate,
        struct common *out)
{
    ft_begin(mark);
    if (ft_thread() != 0)
        return;
    const double bc1 = 1 - pow(beta1, s[FT_S_STEP]), bc2 = 1 - pow(beta2, s[FT_S_STEP]);
    out->factor = (float)s[FT_S_FACTOR];
    out->lr = (float)(s[FT_S_LR] * rate);
    out->step_size = (float)(s[FT_S_LR] * rate / bc1);
    out->root_bc2 = (float)sqrt(bc2);
    out->apply = s[FT_S_FINITE] != 0;
}

/* What is kept of each element: numbers, or codes and their scales. */
struct state {
    float *f32; /* sgd: the momentum or NULL */
    uint8_t *codes;
    float *scales;
};

struct update_job {
    const struct common *common;
    float *g, *p;
    struct state m, v;
    int64_t n;
    float beta1, beta2, eps, decay, rate;
};

/* Memory that a thread block shares: what codes stand for, without and with signs, and a number of
 * each thread. */
enum { SHARED = 2 * FT_DYNAMIC_CODES + THREADS };

FT_DEVICE void make_maps(const struct update_job &j, float *shared)
{
    if (j.m.f32)
        return;
    for (int code = ft_thread(); code < FT_DYNAMIC_CODES; code += THREADS)
        for (int with_sign = 0; with_sign < 2; with_sign++)
            shared[with_sign * FT_DYNAMIC_CODES + code] = ft_dynamic(code, with_sign);
    ft_sync_block();
}

FT_DEVICE float get_state(const struct state &s, const float *value, int64_t i)
{
    return s.f32 ? s.f32[i] : value[s.codes[i]] * s.scales[i / FT_DYNAMIC_BLOCK];
}

/* By all threads of a block, which have read its scale; x is 0 where there is no element. */
FT_DEVICE void put_state(const struct state &s, const float *value, float *room, float x, int64_t i,
                         int64_t n)
{
    if (s.f32) {
        if (i < n)
            s.f32[i] = x;
        return;
    }
    room[ft_thread()] = fabsf(x);
    for (int half = THREADS / 2; half > 0; half /= 2) {
        ft_sync_block();
        if (ft_thread() < half)
            room[ft_thread()] = fmaxf(room[ft_thread()], room[ft_thread() + half]);
    }
    ft_sync_block();
    const float most = room[0], part = x / (most > 0 ? most : 1);
    ft_sync_block();
    int code = 0;
    for (int half = FT_DYNAMIC_CODES / 2; half; half /= 2) {
        const int last = code + half - 1;
        code += 0.5f * (value[last] + value[last + 1]) < part ? half : 0;
    }
    if (i < n)
        s.codes[i] = (uint8_t)code;
    if (ft_thread() == 0)
        s.scales[i / FT_DYNAMIC_BLOCK] = most;
}

FT_KERNEL(THREADS) adamw(struct ft_mark mark, struct update_job j)
{
    ft_begin(mark);
    FT_SHARED(float, shared);
    float *with_sign = shared + FT_DYNAMIC_CODES, *room = with_sign + FT_DYNAMIC_CODES;
    const struct common c = *j.common;
    const float keep = 1.f - c.lr * j.decay, b1 = 1.f - j.beta1, b2 = 1.f - j.beta2;
    const int64_t first = ft_block_x() * PIECE;
    make_maps(j, shared);
    for (int64_t at = first; at < first + PIECE && at < j.n; at += THREADS) {
        const int64_t i = at + ft_thread();
        float m = 0, v = 0;
        if (c.apply && i < j.n) {
            const float g = j.g[i] * c.factor, m0 = get_state(j.m, with_sign, i);
            m = m0 + (g - m0) * b1;
            v = get_state(j.v, shared, i) * j.beta2 + g * g * b2;
            const float denom = sqrtf(v) / c.root_bc2 + j.eps;
            j.p[i] = j.p[i] * keep - c.step_size * (m / denom);
        }
        if (c.apply) {
            put_state(j.m, with_sign, room, m, i, j.n);
            put_state(j.v, shared, room, v, i, j.n);
        }
        if (i < j.n)
            j.g[i] = 0;
    }
}

FT_KERNEL(THREADS) sgd(struct ft_mark mark, struct update_job j)
{
    ft_begin(mark);
    const struct common c = *j.common;
    for (int64_t i = ft_block_x() * PIECE + ft_thread(); i < (ft_block_x() + 1) * PIECE && i < j.n;
         i += THREADS) {
        if (c.apply) {
            float d = j.g[i] * c.factor + j.decay * j.p[i];
            if (j.m.f32)
                d = j.m.f32[i] = j.beta1 * j.m.f32[i] + d;
            j.p[i] -= c.lr * d;
        }
        j.g[i] = 0;
    }
}

FT_KERNEL(THREADS) lion(struct ft_mark mark, struct update_job j)
{
    ft_begin(mark);
    FT_SHARED(float, shared);
    float *with_sign = shared + FT_DYNAMIC_CODES, *room = with_sign + FT_DYNAMIC_CODES;
    const struct common c = *j.common;
    const float keep = 1.f - c.lr * j.decay, b1 = 1.f - j.beta1, b2 = 1.f - j.beta2;
    const int64_t first = ft_block_x() * PIECE;
    make_maps(j, shared);
    for (int64_t at = first; at < first + PIECE && at < j.n; at += THREADS) {
        const int64_t i = at + ft_thread();
        float m = 0;
        if (c.apply && i < j.n) {
            const float g = j.g[i] * c.factor, m0 = get_state(j.m, with_sign, i);
            const float towards = m0 * j.beta1 + g * b1;
            j.p[i] = j.p[i] * keep - c.lr * (float)((towards > 0) - (towards < 0));
            m = m0 * j.beta2 + g * b2;
        }
        if (c.apply)
            put_state(j.m, with_sign, room, m, i, j.n);
        if (i < j.n)
            j.g[i] = 0;
    }
}

static void update(const struct ft_kernel_ctx *ctx, void (*kernel)(struct ft_mark, update_job),
                   const struct ft_tensor *scalars, struct update_job j)
{
    struct common *common = (struct common *)ctx->scratch;
    j.common = common;
    ft_launch(ctx, prepare, ft_grid{1, 1, 1}, 32, 0, (const double *)scalars->data, (double)j.beta1,
              (double)j.beta2, (double)j.rate, common);
    ft_launch(ctx, kernel, ft_grid{(j.n + PIECE - 1) / PIECE, 1, 1}, THREADS,
              SHARED * sizeof(float), j);
}

static struct state state_of(const struct ft_tensor *t)
{
    struct state s = {};
    if (t->dtype == FT_F32) {
        s.f32 = (float *)t->data;
        return s;
    }
    const struct ft_planes q = ft_planes_of(t);
    s.codes = (uint8_t *)q.p[FT_CODES];
    s.scales = (float *)q.p[FT_SCALES];
    return s;
}

/* What every optimizer takes. */
template <class Args> static struct update_job job_of(const Args *a)
{
    struct update_job j = {};
    j.g = (float *)a->grad->data;
    j.p = (float *)a->p->data;
    j.n = a->grad->cols;
    j.decay = a->weight_decay;
    j.rate = a->rate;
    return j;
}

void ft_cuda_adamw(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_adamw_args *a = &args->adamw;
    struct update_job j = job_of(a);
    j.m = state_of(a->m);
    j.v = state_of(a->v);
    j.beta1 = a->beta1;
    j.beta2 = a->beta2;
    j.eps = a->eps;
    update(ctx, adamw, a->scalars, j);
}

void ft_cuda_sgd(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_sgd_args *a = &args->sgd;
    struct update_job j = job_of(a);
    j.m.f32 = a->mom ? (float *)a->mom->data : NULL;
    j.beta1 = a->momentum;
    update(ctx, sgd, a->scalars, j);
}

void ft_cuda_lion(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_lion_args *a = &args->lion;
    struct update_job j = job_of(a);
    j.m = state_of(a->m);
    j.beta1 = a->beta1;
    j.beta2 = a->beta2;
    update(ctx, lion, a->scalars, j);
}
