/* The method table: how each adapter method computes a module and starts. */
#include "adapter/internal.h"

#include "core/rng.h"

#include <math.h>

/* y = x w^T + bias + add + scale (drop(x) A^T) B^T.  Hu et al. 2021, arXiv 2106.09685. */
static struct ft_tensor *lora_linear(const struct ft_adapter *a, struct ft_graph *g,
                                     const struct ft_slot *s, struct ft_tensor *x,
                                     struct ft_tensor *w, struct ft_tensor *bias,
                                     struct ft_tensor *add, struct ft_tensor *keys)
{
    struct ft_tensor *base = ft_linear(g, x, w, bias, add, 1.f), *dropped = x;
    if (a->dropout > 0 && keys)
        dropped = ft_dropout(g, x, keys, (float)a->dropout, (uint32_t)s->site, a->seed);
    struct ft_tensor *u = ft_linear(g, dropped, s->a, NULL, NULL, 1.f);
    return ft_graph_name(g, ft_linear(g, u, s->b, NULL, base, s->scale), w->name);
}

/* PEFT's: kaiming_uniform_(A, a=sqrt(5)), which is uniform in +-1/sqrt(in); B zero. */
static void lora_init(const struct ft_adapter *a, const struct ft_slot *s, float *values)
{
    struct ft_rng rng = ft_rng_init(a->seed, FT_RNG_INIT, (uint32_t)s->site, 0);
    float *p = values + s->a_at, bound = (float)(1 / sqrt((double)s->in));
    for (int64_t i = 0; i < s->r * s->in; i++)
        p[i] = (2 * ft_rng_f32(&rng) - 1) * bound;
    float *q = values + s->b_at;
    for (int64_t i = 0; i < s->out * s->r; i++)
        q[i] = 0;
}

const struct ft_adapter_method ft_adapter_methods[] = {
    {"lora", "LORA", lora_linear, lora_init},
};
const int ft_adapter_method_count = sizeof ft_adapter_methods / sizeof *ft_adapter_methods;
