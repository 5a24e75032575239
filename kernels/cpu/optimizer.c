/* grad_norm, adamw, sgd, lion: over the flat block of all trained parameters. */
#include "kernels/cpu/cpu.h"
#include "kernels/dynamic.h"
#include "kernels/window.h"

/* BLOCK: what of a state is widened at a time. */
enum { PIECE = 16384, BLOCK = FT_DYNAMIC_BLOCK };

/* What the codes of a state stand for, and where the next one begins. */
struct map {
    float value[FT_DYNAMIC_CODES], bound[FT_DYNAMIC_CODES - 1];
};

struct job {
    const union ft_op_args *args;
    int64_t n;
    double *sums; /* grad_norm: one a piece */
    float factor, lr, step_size, root_bc2;
    struct map maps[2]; /* without and with signs; of states in 8 bits */
};

static void square_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const float *g = j->args->grad_norm.grad->data;
    int64_t end = (piece + 1) * PIECE < j->n ? (piece + 1) * PIECE : j->n;
    double lane[8] = {0}, sum = 0;
    int64_t i = piece * PIECE; /* a multiple of 8 */
    for (; i + 8 <= end; i += 8)
        for (int l = 0; l < 8; l++)
            lane[l] += (double)g[i + l] * (double)g[i + l];
    for (; i < end; i++)
        lane[i & 7] += (double)g[i] * (double)g[i];
    for (int l = 0; l < 8; l++)
        sum += lane[l];
    j->sums[piece] = sum;
}

void K(grad_norm)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_grad_norm_args *a = &args->grad_norm;
    struct job j = {.args = args, .n = a->grad->cols, .sums = ctx->scratch};
    int64_t pieces = (j.n + PIECE - 1) / PIECE;
    double total = 0, *s = a->scalars->data;
    ft_pool_run(ctx->pool, pieces, square_piece, &j);
    for (int64_t i = 0; i < pieces; i++)
        total += j.sums[i];
    ft_end_window(s, total, (double)a->max_norm);
}

static void make_maps(struct job *j)
{
    for (int with_sign = 0; with_sign < 2; with_sign++) {
        struct map *m = &j->maps[with_sign];
        for (int i = 0; i < FT_DYNAMIC_CODES; i++)
            m->value[i] = ft_dynamic(i, with_sign);
        for (int i = 0; i + 1 < FT_DYNAMIC_CODES; i++)
            m->bound[i] = 0.5f * (m->value[i] + m->value[i + 1]);
    }
}

/* n <= BLOCK elements of a state as f32, from `first`, where a block begins: its own, or widened
 * into `room`. */
static float *open_state(const struct ft_tensor *t, const struct map *map, int64_t first, int64_t n,
                         float *room)
{
    if (t->dtype == FT_F32)
        return (float *)t->data + first;
    const struct ft_planes q = ft_planes_of(t);
    const uint8_t *codes = (const uint8_t *)q.p[FT_CODES] + first;
    const float scale = ((const float *)q.p[FT_SCALES])[first / BLOCK];
    for (int64_t i = 0; i < n; i++)
        room[i] = map->value[codes[i]] * scale;
    return room;
}

/* The nearest codes, all by halves, so that the inner loop is one of vectors. */
static void find_codes(const struct map *map, const float *part, int64_t n, int32_t *code)
{
    for (int64_t i = 0; i < n; i++)
        code[i] = 0;
    for (int32_t half = FT_DYNAMIC_CODES / 2; half; half /= 2) {
        const float *last = map->bound + half - 1;
        for (int64_t i = 0; i < n; i++)
            code[i] += last[code[i]] < part[i] ? half : 0;
    }
}

static void close_state(const struct ft_tensor *t, const struct map *map, int64_t first, int64_t n,
                        const float *x)
{
    if (t->dtype == FT_F32)
        return;
    const struct ft_planes q = ft_planes_of(t);
    uint8_t *codes = (uint8_t *)q.p[FT_CODES] + first;
    float part[BLOCK], most = 0;
    int32_t code[BLOCK];
    for (int64_t i = 0; i < n; i++)
        most = __builtin_fabsf(x[i]) > most ? __builtin_fabsf(x[i]) : most;
    ((float *)q.p[FT_SCALES])[first / BLOCK] = most;
    const float by = most > 0 ? most : 1;
    for (int64_t i = 0; i < n; i++)
        part[i] = x[i] / by;
    find_codes(map, part, n, code);
    for (int64_t i = 0; i < n; i++)
        codes[i] = (uint8_t)code[i];
}

static void adamw_block(const struct job *j, int64_t first, int64_t n)
{
    const struct ft_adamw_args *a = &j->args->adamw;
    float rooms[2][BLOCK];
    float *g = (float *)a->grad->data + first, *p = (float *)a->p->data + first;
    float *m = open_state(a->m, &j->maps[1], first, n, rooms[0]);
    float *v = open_state(a->v, &j->maps[0], first, n, rooms[1]);
    const float keep = 1.f - j->lr * a->weight_decay, b1 = 1.f - a->beta1, b2 = 1.f - a->beta2;
    const float factor = j->factor, beta2 = a->beta2, root = j->root_bc2, eps = a->eps;
    const float step_size = j->step_size;
    for (int64_t i = 0; i < n; i++) {
        float grad = g[i] * factor, mean = m[i] + (grad - m[i]) * b1;
        float square = v[i] * beta2 + grad * grad * b2;
        float denom = __builtin_sqrtf(square) / root + eps;
        p[i] = p[i] * keep - step_size * (mean / denom);
        m[i] = mean;
        v[i] = square;
        g[i] = 0;
    }
    close_state(a->m, &j->maps[1], first, n, m);
    close_state(a->v, &j->maps[0], first, n, v);
}

/* A piece, block by block. */
static void each_block(const struct job *j, int64_t piece,
                       void (*block)(const struct job *j, int64_t first, int64_t n))
{
    const int64_t end = (piece + 1) * PIECE < j->n ? (piece + 1) * PIECE : j->n;
    for (int64_t i = piece * PIECE; i < end; i += BLOCK)
        block(j, i, end - i < BLOCK ? end - i : BLOCK);
}

static void adamw_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    each_block(arg, piece, adamw_block);
}

/* True if the update is to be made; otherwise the gradient is dropped and nothing else changes. */
static bool begin(struct job *j, const struct ft_tensor *scalars, const struct ft_tensor *grad,
                  float rate)
{
    const double *s = scalars->data;
    j->n = grad->cols;
    j->factor = (float)s[FT_S_FACTOR];
    j->lr = (float)s[FT_S_LR] * rate;
    if (s[FT_S_FINITE] != 0)
        return true;
    memset(grad->data, 0, (size_t)j->n * sizeof(float));
    return false;
}

void K(adamw)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_adamw_args *a = &args->adamw;
    const double *s = a->scalars->data, step = s[FT_S_STEP];
    struct job j = {.args = args};
    if (!begin(&j, a->scalars, a->grad, a->rate))
        return;
    double bc1 = 1 - __builtin_pow((double)a->beta1, step);
    j.step_size = (float)(s[FT_S_LR] * (double)a->rate / bc1);
    j.root_bc2 = (float)__builtin_sqrt(1 - __builtin_pow((double)a->beta2, step));
    make_maps(&j);
    ft_pool_run(ctx->pool, (j.n + PIECE - 1) / PIECE, adamw_piece, &j);
}

static void sgd_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    const struct ft_sgd_args *a = &j->args->sgd;
    float *g = a->grad->data, *p = a->p->data, *b = a->mom ? a->mom->data : NULL;
    int64_t end = (piece + 1) * PIECE < j->n ? (piece + 1) * PIECE : j->n;
    for (int64_t i = piece * PIECE; i < end; i++) {
        float d = g[i] * j->factor + a->weight_decay * p[i];
        if (b)
            d = b[i] = a->momentum * b[i] + d;
        p[i] -= j->lr * d;
        g[i] = 0;
    }
}

void K(sgd)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    struct job j = {.args = args};
    if (begin(&j, args->sgd.scalars, args->sgd.grad, args->sgd.rate))
        ft_pool_run(ctx->pool, (j.n + PIECE - 1) / PIECE, sgd_piece, &j);
}

static void lion_block(const struct job *j, int64_t first, int64_t n)
{
    const struct ft_lion_args *a = &j->args->lion;
    float room[BLOCK];
    float *g = (float *)a->grad->data + first, *p = (float *)a->p->data + first;
    float *m = open_state(a->m, &j->maps[1], first, n, room);
    const float keep = 1.f - j->lr * a->weight_decay, b1 = 1.f - a->beta1, b2 = 1.f - a->beta2;
    const float factor = j->factor, lr = j->lr, beta1 = a->beta1, beta2 = a->beta2;
    for (int64_t i = 0; i < n; i++) {
        const float gi = g[i] * factor, towards = m[i] * beta1 + gi * b1;
        const float sign = (float)((towards > 0) - (towards < 0));
        p[i] = p[i] * keep - lr * sign;
        m[i] = m[i] * beta2 + gi * b2;
        g[i] = 0;
    }
    close_state(a->m, &j->maps[1], first, n, m);
}

static void lion_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    each_block(arg, piece, lion_block);
}

void K(lion)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    struct job j = {.args = args};
    if (!begin(&j, args->lion.scalars, args->lion.grad, args->lion.rate))
        return;
    make_maps(&j);
    ft_pool_run(ctx->pool, (j.n + PIECE - 1) / PIECE, lion_piece, &j);
}

static void refresh_segment(void *arg, int64_t i, void *scratch)
{
    (void)scratch;
    const struct ft_refresh_args *a = arg;
    const int64_t *s = (const int64_t *)a->table->data + i * FT_SEGMENT;
    const float *from = (const float *)a->values->data + s[FT_G_FIRST];
    uint16_t *to = (uint16_t *)(uintptr_t)s[FT_G_ADDRESS];
    double scale;
    memcpy(&scale, &s[FT_G_SCALE], sizeof scale);
    for (int64_t r = 0; r < s[FT_G_ROWS]; r++)
        for (int64_t c = 0; c < s[FT_G_COLS]; c++)
            to[r * s[FT_G_LD] + c] = ft_f32_to_bf16(from[r * s[FT_G_COLS] + c] * (float)scale);
}

void K(refresh)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    struct ft_refresh_args a = args->refresh;
    ft_pool_run(ctx->pool, a.table->rows, refresh_segment, &a);
}
