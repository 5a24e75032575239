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

FT_INLINE float *row_of(const struct ft_tensor *t, int64_t row)
{
    return (float *)t->data + row * ft_tensor_ld(t);
}

static void embed_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_embed *a = &args->embed;
    const int64_t cols = a->y->cols;
    for (int64_t t = t0; t < t1; t++) {
        float *y = row_of(a->y, t);
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
        const float *x = row_of(a->x, t);
        const float *co = (const float *)a->cos->data + row * half;
        const float *si = (const float *)a->sin->data + row * half;
        float *y = row_of(a->y, t);
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

static void swiglu_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_swiglu *a = &args->swiglu;
    for (int64_t t = t0; t < t1; t++) {
        const float *g = row_of(a->gate, t), *u = row_of(a->up, t);
        float *y = row_of(a->y, t);
        for (int64_t c = 0; c < a->y->cols; c += 16) {
            const v16 x = lanes(g, c, a->y->cols);
            put_lanes(y, x * sigmoid(x) * lanes(u, c, a->y->cols), c, a->y->cols);
        }
    }
}

static void swiglu_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_swiglu_dx *a = &args->swiglu_dx;
    const int64_t n = a->dy->cols;
    for (int64_t t = t0; t < t1; t++) {
        const float *g = row_of(a->gate, t), *u = row_of(a->up, t), *dy = row_of(a->dy, t);
        float *dg = row_of(a->dgate, t), *du = row_of(a->dup, t);
        for (int64_t c = 0; c < n; c += 16) {
            const v16 x = lanes(g, c, n), d = lanes(dy, c, n), s = sigmoid(x), silu = x * s;
            const v16 dgate = d * lanes(u, c, n) * (s + silu * (1.f - s));
            put_lanes(dg, dgate, c, n);
            put_lanes(du, d * silu, c, n);
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
        const float *x = row_of(a->x, t), *add = a->add ? row_of(a->add, t) : NULL;
        float *y = row_of(a->y, t);
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
    for (int64_t t = t0; t < t1; t++) {
        const float *p = row_of(a->a, t), *q = row_of(a->b, t);
        float *y = row_of(a->y, t);
        for (int64_t c = 0; c < a->y->cols; c++)
            y[c] = p[c] + q[c];
    }
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
