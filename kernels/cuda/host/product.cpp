/* Products of the host build: plain loops over widened copies, f32 sums in order. */
#include "kernels/cuda/host/fibers.h"
#include "kernels/cuda/product.h"

#include <stdio.h>
#include <vector>

static float widen(uint16_t h)
{
    const uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint16_t narrow(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return f != f ? 0x7fff : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* The (rows, cols) matrix that op() makes of p, as floats. */
static std::vector<float> operand(const void *p, int64_t rows, int64_t cols, int64_t ld, bool trans)
{
    std::vector<float> out((size_t)(rows * cols));
    const uint16_t *v = (const uint16_t *)p;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            out[(size_t)(r * cols + c)] = widen(trans ? v[c * ld + r] : v[r * ld + c]);
    return out;
}

static void compute(const struct ft_product &p)
{
    const std::vector<float> a = operand(p.a, p.m, p.k, p.lda, p.a_trans);
    const std::vector<float> b = operand(p.b, p.k, p.n, p.ldb, p.b_trans);
    std::vector<float> row((size_t)p.n);
    for (int64_t i = 0; i < p.m; i++) {
        for (int64_t j = 0; j < p.n; j++)
            row[(size_t)j] = 0;
        for (int64_t l = 0; l < p.k; l++) {
            const float x = a[(size_t)(i * p.k + l)], *y = &b[(size_t)(l * p.n)];
            for (int64_t j = 0; j < p.n; j++)
                row[(size_t)j] += x * y[j];
        }
        for (int64_t j = 0; j < p.n; j++) {
            float v = p.alpha * row[(size_t)j];
            if (p.bias)
                v += widen(((const uint16_t *)p.bias)[j]);
            if (p.c)
                v += p.beta * (p.out == FT_BF16 ? widen(((const uint16_t *)p.c)[i * p.ldc + j])
                                                : ((const float *)p.c)[i * p.ldc + j]);
            if (p.out == FT_BF16)
                ((uint16_t *)p.d)[i * p.ldd + j] = narrow(v);
            else
                ((float *)p.d)[i * p.ldd + j] = v;
        }
    }
}

void ft_cuda_product(const struct ft_kernel_ctx *ctx, const struct ft_product *p, void *workspace)
{
    (void)workspace;
    if (p->m == 0 || p->n == 0)
        return;
    const struct ft_product copy = *p;
    ft_host_submit_plain(ft_cuda_of(ctx), [=] { compute(copy); });
}

/* There is one way only to compute a product here; the file holds no more than its first line. */
static int tune(const struct ft_backend *b, int on)
{
    (void)b, (void)on;
    return 0;
}

static int save(const struct ft_backend *b, const char *path)
{
    (void)b;
    FILE *f = fopen(path, "we");
    if (!f)
        return -1;
    fputs("ft products 1: emulated\n", f);
    return fclose(f) ? -1 : 0;
}

static int load(const struct ft_backend *b, const char *path, int *count)
{
    (void)b, (void)path;
    *count = 0;
    return 0;
}

int ft_products_open(struct ft_cuda *c)
{
    c->fns.products_tune = tune;
    c->fns.products_save = save;
    c->fns.products_load = load;
    return 0;
}

void ft_products_close(struct ft_cuda *c)
{
    (void)c;
}
