/* Products of few rows: each row of the weight is read once, as it is stored, and multiplied with
 * all of them. What a token at a time costs is reading the weights. */
#include "kernels/cpu/vectors.h"

#include "core/quant.h"
#include "core/status.h"

enum {
    STEP = 16,      /* rows of the weight a piece */
    SEGMENT = 1024, /* columns of a quantised row that are widened at a time */
    LANES = 32,     /* sums of an element, in every instruction set */
    VECTORS = LANES / VW,
    AHEAD = 2048, /* elements */
};

/* Sums of a row's products with m rows. */
struct sums {
    vf lanes[FT_FEW][VECTORS];
    float rest[FT_FEW];
};

FT_INLINE void add_products(const int m, struct sums *s, const void *w, const enum ft_dtype dtype,
                            int64_t at, int64_t n, const float *x, int64_t ldx)
{
    const size_t size = dtype == FT_F32 ? 4 : 2;
    int64_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        __builtin_prefetch((const char *)w + (size_t)(at + k + AHEAD) * size);
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

static float sum_lanes(const vf *v)
{
    float t[LANES];
    memcpy(t, v, sizeof t);
    for (int step = LANES / 2; step; step /= 2)
        for (int i = 0; i < step; i++)
            t[i] += t[i + step];
    return t[0];
}

FT_INLINE void one_row(const int m, float *out, const struct ft_operand *b, int64_t row, int64_t n,
                       const float *x, int64_t ldx)
{
    struct sums s = {0};
    float widened[SEGMENT];
    if (b->quant) {
        const struct ft_planes q = ft_planes_of(b->quant);
        for (int64_t k = 0; k < n; k += SEGMENT) {
            const int64_t take = n - k < SEGMENT ? n - k : SEGMENT;
            K(widen)(widened, &q, b->first + row, k, take);
            add_products(m, &s, widened, FT_F32, 0, take, x + k, ldx);
        }
    } else if (b->dtype == FT_BF16) {
        add_products(m, &s, b->data, FT_BF16, row * b->ld, n, x, ldx);
    } else if (b->dtype == FT_F16) {
        add_products(m, &s, b->data, FT_F16, row * b->ld, n, x, ldx);
    } else {
        add_products(m, &s, b->data, FT_F32, row * b->ld, n, x, ldx);
    }
    for (int i = 0; i < m; i++)
        out[i] += b->alpha * (sum_lanes(s.lanes[i]) + s.rest[i]);
}

static void any_row(const struct ft_gemm *g, int part, float *out, int64_t row)
{
    const struct ft_operand *b = &g->b[part];
    switch (g->m) {
    case 1:
        one_row(1, out, b, row, g->k[part], g->a[part], g->a_rs[part]);
        break;
    case 2:
        one_row(2, out, b, row, g->k[part], g->a[part], g->a_rs[part]);
        break;
    case 3:
        one_row(3, out, b, row, g->k[part], g->a[part], g->a_rs[part]);
        break;
    default:
        one_row(4, out, b, row, g->k[part], g->a[part], g->a_rs[part]);
        break;
    }
}

static void piece(void *arg, int64_t number, void *scratch)
{
    const struct ft_gemm *g = arg;
    const int64_t end = (number + 1) * STEP < g->n ? (number + 1) * STEP : g->n;
    (void)scratch;
    for (int64_t j = number * STEP; j < end; j++) {
        float sums[FT_FEW] = {0};
        for (int part = 0; part < 2; part++)
            if (g->k[part])
                any_row(g, part, sums, j);
        for (int64_t i = 0; i < g->m; i++)
            g->c[i * g->ldc + j] =
                (g->add ? g->add[i * g->ldadd + j] : 0) + (g->bias ? g->bias[j] : 0) + sums[i];
    }
}

void K(few)(struct ft_pool *pool, const struct ft_gemm *g)
{
    FT_ASSERT(g->m <= FT_FEW && !g->a_mask && !g->c_mask);
    ft_pool_run(pool, (g->n + STEP - 1) / STEP, piece, (void *)(uintptr_t)g);
}
