/* Products of few rows: each row of the weight is read once, as it is stored, and multiplied with
 * all of them. What a token at a time costs is reading the weights. */
#include "kernels/cpu/cpu.h"

#include "core/quant.h"
#include "core/status.h"

enum {
    STEP = 16,      /* rows of the weight a piece */
    SEGMENT = 1024, /* columns of a quantised row that are widened at a time */
    LANES = 32,     /* sums of an element, in every instruction set */
    VECTORS = LANES / VW,
};

/* Sums of a row's products with m rows. */
struct row_sums {
    vf lanes[FT_FEW][VECTORS];
    float rest[FT_FEW];
};

/* One row after another, and nothing asked for ahead: the processor does so by itself as long as it
 * sees one stream (docs/findings/a-token-at-a-time.md). */
FT_INLINE void add_products(const int m, struct row_sums *s, const void *w,
                            const enum ft_dtype dtype, int64_t at, int64_t n, const float *x,
                            int64_t ldx)
{
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) {
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            const vf a = widen_vec(w, dtype, at + k + v * VW);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++)
                s->lanes[i][v] += a * (vf) * (const vfu *)(x + i * ldx + k + v * VW);
        }
    }
    for (; k < n; k++) {
        const float a = widen_one(w, dtype, at + k);
        for (int i = 0; i < m; i++)
            s->rest[i] += a * x[i * ldx + k];
    }
}

/* By halves. */
FT_INLINE float sum_lanes(const vf v[VECTORS])
{
    vf t[VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < VECTORS; i++)
        t[i] = v[i];
#pragma GCC unroll 4
    for (int step = VECTORS / 2; step; step /= 2)
#pragma GCC unroll 4
        for (int i = 0; i < step; i++)
            t[i] += t[i + step];
    return vf_sum(t[0]);
}

FT_INLINE void put_sums(const int m, const struct row_sums *s, float alpha, float *out)
{
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        out[i * STEP] += alpha * (sum_lanes(s->lanes[i]) + s->rest[i]);
}

/* Some rows of the weight, at most STEP, with the m rows of x: out[i * STEP + r] gets the r-th's.
 */
struct rows {
    const struct ft_operand *b;
    int64_t first, count, n; /* n: columns */
    const float *x;
    int64_t ldx;
    float *out;
};

FT_INLINE void stored_rows(const int m, const enum ft_dtype dtype, const struct rows *w)
{
    for (int64_t r = 0; r < w->count; r++) {
        struct row_sums s = {0};
        add_products(m, &s, w->b->data, dtype, (w->first + r) * w->b->ld, w->n, w->x, w->ldx);
        put_sums(m, &s, w->b->alpha, w->out + r);
    }
}

FT_INLINE void quantised_rows(const int m, const struct rows *w)
{
    float widened[SEGMENT];
    const struct ft_planes q = ft_planes_of(w->b->quant);
    for (int64_t r = 0; r < w->count; r++) {
        struct row_sums s = {0};
        for (int64_t k = 0; k < w->n; k += SEGMENT) {
            const int64_t take = w->n - k < SEGMENT ? w->n - k : SEGMENT;
            K(widen)(widened, &q, w->b->first + w->first + r, k, take);
            add_products(m, &s, widened, FT_F32, 0, take, w->x + k, w->ldx);
        }
        put_sums(m, &s, w->b->alpha, w->out + r);
    }
}

FT_INLINE void some_rows(const int m, const struct rows *w)
{
    if (w->b->quant)
        quantised_rows(m, w);
    else if (w->b->dtype == FT_BF16)
        stored_rows(m, FT_BF16, w);
    else if (w->b->dtype == FT_F16)
        stored_rows(m, FT_F16, w);
    else
        stored_rows(m, FT_F32, w);
}

static void any_rows(int64_t m, const struct rows *w)
{
    switch (m) {
    case 1:
        some_rows(1, w);
        break;
    case 2:
        some_rows(2, w);
        break;
    case 3:
        some_rows(3, w);
        break;
    default:
        some_rows(4, w);
        break;
    }
}

static void piece(void *arg, int64_t number, void *scratch)
{
    const struct ft_gemm *g = arg;
    const int64_t first = number * STEP, n = g->n - first < STEP ? g->n - first : STEP;
    float sums[FT_FEW * STEP] = {0};
    (void)scratch;
    for (int part = 0; part < 2; part++)
        if (g->k[part])
            any_rows(g->m, &(struct rows){&g->b[part], first, n, g->k[part], g->a[part],
                                          g->a_rs[part], sums});
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = first; j < first + n; j++)
            g->c[i * g->ldc + j] = (g->add ? g->add[i * g->ldadd + j] : 0) +
                                   (g->bias ? g->bias[j] : 0) + sums[i * STEP + j - first];
}

void K(few)(struct ft_pool *pool, const struct ft_gemm *g)
{
    FT_ASSERT(g->m <= FT_FEW && !g->a_mask && !g->c_mask);
    ft_pool_run(pool, (g->n + STEP - 1) / STEP, piece, (void *)(uintptr_t)g);
}
