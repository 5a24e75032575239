/* LoHa and LoKr: the change of a weight is made of two matrices, element by element or as their
 * Kronecker product, and each of these of two narrow ones. Hyeon-Woo et al. 2021, arXiv 2108.06098;
 * Yeh et al. 2023, arXiv 2309.14859, as PEFT computes them. */
#include "adapter/internal.h"

#include "core/rng.h"

#include <math.h>

/* y = x W^T + bias + add + x D^T */
static struct ft_tensor *with_change(struct ft_graph *g, const struct ft_linears *l, int i,
                                     struct ft_compose_args d)
{
    struct ft_tensor *w = l->of[i].w;
    struct ft_tensor *change = ft_compose(g, d, "change of a weight");
    struct ft_tensor *base = ft_linear(g, l->x, w, l->of[i].bias, l->add, 1);
    return ft_graph_name(g, ft_linear(g, l->x, change, NULL, base, 1), w->name);
}

static struct ft_tensor *value_of(const struct ft_slot *s, enum ft_role role)
{
    return s->p[role] ? s->p[role]->value : NULL;
}

struct ft_tensor *ft_loha_linear(const struct ft_adapter *a, struct ft_graph *g,
                                 const struct ft_slot *s, const struct ft_linears *l, int i)
{
    (void)a;
    return with_change(g, l, i,
                       (struct ft_compose_args){.pa = value_of(s, FT_HADA_1A),
                                                .pb = value_of(s, FT_HADA_1B),
                                                .qa = value_of(s, FT_HADA_2A),
                                                .qb = value_of(s, FT_HADA_2B),
                                                .alpha = s->scale});
}

struct ft_tensor *ft_lokr_linear(const struct ft_adapter *a, struct ft_graph *g,
                                 const struct ft_slot *s, const struct ft_linears *l, int i)
{
    struct ft_compose_args d = {.pa = value_of(s, FT_LOKR_1),
                                .qa = value_of(s, FT_LOKR_2),
                                .qb = NULL,
                                .alpha = s->scale,
                                .kronecker = true};
    (void)a;
    if (!d.qa) {
        d.qa = value_of(s, FT_LOKR_2A);
        d.qb = value_of(s, FT_LOKR_2B);
    }
    return with_change(g, l, i, d);
}

/* The two factors of n nearest to each other, the smaller one first. */
static void factors(int64_t n, int64_t out[2])
{
    out[0] = 1;
    for (int64_t m = 2; m * m <= n; m++)
        if (n % m == 0)
            out[0] = m;
    out[1] = n / out[0];
}

void ft_lokr_shape(struct ft_slot *s)
{
    factors(s->out, s->out_factor);
    factors(s->in, s->in_factor);
}

bool ft_lokr_is_whole(const struct ft_slot *s)
{
    const int64_t out = s->out_factor[1], in = s->in_factor[1];
    return 2 * s->r >= (out > in ? out : in);
}

bool ft_lokr_is_narrow(const struct ft_slot *s)
{
    return !ft_lokr_is_whole(s);
}

/* As torch's kaiming_uniform_ with a = sqrt 5: within 1 / sqrt(columns). */
static void uniform(struct ft_rng *rng, const struct ft_parameter *p, float *values)
{
    const float bound = (float)(1 / sqrt((double)p->cols));
    for (int64_t i = 0; i < p->rows * p->cols; i++)
        values[p->at + i] = (2 * ft_rng_f32(rng) - 1) * bound;
}

/* One of the parts begins with zeros: LoHa's last, LoKr's first. */
int ft_lycoris_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx)
{
    (void)weight, (void)ctx;
    for (int i = 0; i < a->n_slots; i++) {
        const struct ft_slot *s = &a->slots[i];
        struct ft_rng rng = ft_rng_init(a->seed, FT_RNG_INIT, (uint32_t)s->site, 0);
        for (int k = 0; k < FT_ROLES; k++) {
            const struct ft_parameter *p = s->p[k];
            if (p && k == (int)a->method->zero)
                for (int64_t e = 0; e < p->rows * p->cols; e++)
                    values[p->at + e] = 0;
            else if (p)
                uniform(&rng, p, values);
        }
    }
    return FT_OK;
}

json_t *ft_loha_config(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    return json_pack("{s:f, s:o, s:n, s:b, s:n, s:o, s:f, s:I, s:f, s:o}", "alpha", a->alpha,
                     "alpha_pattern", ft_pattern_config(a, o->alpha_pattern, false),
                     "exclude_modules", "init_weights", 1, "layers_pattern", "layers_to_transform",
                     ft_layers_config(a, o), "module_dropout", 0.0, "r", (json_int_t)a->r,
                     "rank_dropout", 0.0, "rank_pattern",
                     ft_pattern_config(a, o->rank_pattern, true));
}

json_t *ft_lokr_config(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    json_t *all = ft_loha_config(a, o);
    json_object_update_new(all, json_pack("{s:b, s:i, s:b}", "decompose_both", 0,
                                          "decompose_factor", -1, "rank_dropout_scale", 0));
    return all;
}
