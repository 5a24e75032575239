/* The ops that look at one row at a time without summing: embed, rope, swiglu, dropout, add. */
#include "kernels/cpu/cpu.h"

#include "core/rng.h"

/* Runs body(args, first row, end row) over pieces of rows. */
typedef void rows_fn(const union ft_op_args *args, int64_t t0, int64_t t1);

struct job {
    const union ft_op_args *args;
    rows_fn *fn;
    int64_t n, step;
};

static void run_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct job *j = arg;
    int64_t t0 = piece * j->step, t1 = t0 + j->step < j->n ? t0 + j->step : j->n;
    j->fn(j->args, t0, t1);
}

static void by_rows(const struct ft_kernel_ctx *ctx, const struct ft_tensor *shape,
                    const union ft_op_args *args, rows_fn *fn)
{
    struct job j = {args, fn, ft_live_rows(ctx, shape), ft_piece_rows(shape->cols)};
    ft_pool_run(ctx->pool, (j.n + j.step - 1) / j.step, run_piece, &j);
}

static void embed_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_embed *a = &args->embed;
    const int64_t cols = a->y->cols;
    for (int64_t t = t0; t < t1; t++) {
        float *y = (float *)a->y->data + t * cols;
        K(widen_row)(y, a->w, ((const int32_t *)a->ids->data)[t]);
        for (int64_t c = 0; c < cols && a->scale != 1.f; c++)
            y[c] *= a->scale;
    }
}

static void rope_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_rope *a = &args->rope;
    const int64_t half = a->cos->cols, d = a->head_dim, cols = a->x->cols;
    const int64_t rest = cols - a->heads * d;
    for (int64_t t = t0; t < t1; t++) {
        const int64_t row = ((const int32_t *)a->angles->data)[t];
        const float *x = (const float *)a->x->data + t * cols;
        const float *co = (const float *)a->cos->data + row * half;
        const float *si = (const float *)a->sin->data + row * half;
        float *y = (float *)a->y->data + t * cols;
        for (int h = 0; h < a->heads; h++, x += d, y += d) {
            for (int64_t i = 0; i < half; i++) {
                float x0 = x[i], x1 = x[i + half], s = a->sign * si[i];
                y[i] = x0 * co[i] - x1 * s;
                y[i + half] = x1 * co[i] + x0 * s;
            }
            if (y != x && 2 * half < d)
                memcpy(y + 2 * half, x + 2 * half, (size_t)(d - 2 * half) * sizeof *y);
        }
        if (y != x && rest > 0)
            memcpy(y, x, (size_t)rest * sizeof *y);
    }
}

FT_INLINE v16 sigmoid(v16 x)
{
    return 1.f / (1.f + v16_exp(-x));
}

/* Rows of an elementwise op are contiguous: n elements, 16 at a time. */
FT_INLINE int64_t span(const struct ft_tensor *t, int64_t t0, int64_t t1, int64_t *from)
{
    *from = t0 * t->cols;
    return (t1 - t0) * t->cols;
}

static void swiglu_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_swiglu *a = &args->swiglu;
    int64_t from, n = span(a->y, t0, t1, &from);
    const float *g = (const float *)a->gate->data + from, *u = (const float *)a->up->data + from;
    float *y = (float *)a->y->data + from;
    for (int64_t i = 0; i < n; i += 16) {
        int64_t m = n - i;
        v16 x = m >= 16 ? v16_load(g + i) : v16_load_part(g + i, m);
        v16 z = m >= 16 ? v16_load(u + i) : v16_load_part(u + i, m);
        v16 r = x * sigmoid(x) * z;
        if (m >= 16)
            v16_store(y + i, r);
        else
            v16_store_part(y + i, r, m);
    }
}

static void swiglu_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_swiglu_dx *a = &args->swiglu_dx;
    int64_t from, n = span(a->dy, t0, t1, &from);
    const float *g = (const float *)a->gate->data + from, *u = (const float *)a->up->data + from;
    const float *dy = (const float *)a->dy->data + from;
    float *dg = (float *)a->dgate->data + from, *du = (float *)a->dup->data + from;
    for (int64_t i = 0; i < n; i += 16) {
        int64_t m = n - i;
        v16 x = m >= 16 ? v16_load(g + i) : v16_load_part(g + i, m);
        v16 z = m >= 16 ? v16_load(u + i) : v16_load_part(u + i, m);
        v16 d = m >= 16 ? v16_load(dy + i) : v16_load_part(dy + i, m);
        v16 s = sigmoid(x), silu = x * s;
        v16 rg = d * z * (s + silu * (1.f - s)), ru = d * silu;
        if (m >= 16) {
            v16_store(dg + i, rg);
            v16_store(du + i, ru);
        } else {
            v16_store_part(dg + i, rg, m);
            v16_store_part(du + i, ru, m);
        }
    }
}

static void dropout_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_dropout *a = &args->dropout;
    const int64_t cols = a->x->cols;
    const float scale = 1.f / (1.f - a->p);
    const uint32_t least = (uint32_t)((double)a->p * 4294967296.0);
    for (int64_t t = t0; t < t1; t++) {
        const float *x = (const float *)a->x->data + t * cols;
        const float *add = a->add ? (const float *)a->add->data + t * cols : NULL;
        float *y = (float *)a->y->data + t * cols;
        const int32_t *key = (const int32_t *)a->keys->data + t * 3;
        uint64_t seed = a->seed + ((uint64_t)(uint32_t)key[0] << 32 | FT_RNG_DROPOUT);
        for (int64_t c = 0; c < cols; c += 4) {
            uint32_t bits[4],
                at[4] = {(uint32_t)(c / 4), (uint32_t)key[1], (uint32_t)key[2], a->site};
            ft_philox(at, seed, bits);
            for (int64_t l = 0; l < 4 && c + l < cols; l++) {
                float kept = bits[l] >= least ? x[c + l] * scale : 0;
                y[c + l] = add ? add[c + l] + kept : kept;
            }
        }
    }
}

static void add_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_add *a = &args->add;
    int64_t from, n = span(a->y, t0, t1, &from);
    const float *p = (const float *)a->a->data + from, *q = (const float *)a->b->data + from;
    float *y = (float *)a->y->data + from;
    for (int64_t i = 0; i < n; i++)
        y[i] = p[i] + q[i];
}

#define BY_ROWS(name, shape)                                                                       \
    void K(name)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)                    \
    {                                                                                              \
        by_rows(ctx, args->name.shape, args, name##_rows);                                         \
    }
BY_ROWS(embed, y)
BY_ROWS(rope, y)
BY_ROWS(swiglu, y)
BY_ROWS(swiglu_dx, dy)
BY_ROWS(dropout, y)
BY_ROWS(add, y)
