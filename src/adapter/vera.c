/* VeRA: y = x W^T + bias + add + b * (d * (drop(x) A^T) B^T), column by column, where A and B are
 * random, frozen and the same for all modules, each of which takes as much of them as it is large;
 * b and d are trained. Kopiczko et al. 2023, arXiv 2310.11454, as PEFT computes it. */
#include "adapter/internal.h"

#include "core/rng.h"

#include <math.h>

/* d begins with this, b with zeros. */
static const float d_initial = 0.1f;

int ft_vera_share(const struct ft_adapter *a, struct ft_frozen_matrix out[FT_FROZEN])
{
    int64_t in = 0, most = 0;
    for (int i = 0; i < a->n_slots; i++) {
        in = a->slots[i].in > in ? a->slots[i].in : in;
        most = a->slots[i].out > most ? a->slots[i].out : most;
    }
    out[0] = (struct ft_frozen_matrix){"base_model.vera_A", a->r, in, 0};
    out[1] = (struct ft_frozen_matrix){"base_model.vera_B", most, a->r, a->r * in};
    return 2;
}

struct ft_tensor *ft_vera_linear(const struct ft_adapter *a, struct ft_graph *g,
                                 const struct ft_slot *s, const struct ft_linears *l, int i)
{
    const struct ft_frozen_matrix *all = a->shared;
    struct ft_tensor *down =
        ft_graph_part(g, a->frozen, all[0].name, s->r, s->in, all[0].at, all[0].cols);
    struct ft_tensor *up = ft_graph_part(g, a->frozen, all[1].name, s->out, s->r, all[1].at, s->r);
    struct ft_tensor *base = ft_linear(g, l->x, l->of[i].w, l->of[i].bias, l->add, 1);
    struct ft_tensor *u = ft_adapter_down(a, g, s, down, l->x, l->keys, NULL);
    u = ft_scale_columns(g, (struct ft_scale_columns_args){.x = u, .m = s->p[FT_VERA_D]->value});
    u = ft_linear(g, u, up, NULL, NULL, 1);
    u = ft_scale_columns(
        g, (struct ft_scale_columns_args){.x = u, .m = s->p[FT_VERA_B]->value, .add = base});
    return ft_graph_name(g, u, l->of[i].w->name);
}

/* PEFT's own matrices come from torch's generator, which is why they are written with the adapter.
 */
int ft_vera_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx)
{
    (void)weight, (void)ctx;
    for (int k = 0; k < a->n_shared; k++) {
        const struct ft_frozen_matrix *m = &a->shared[k];
        struct ft_rng rng = ft_rng_init(a->seed, FT_RNG_INIT, (uint32_t)k, 0);
        const float bound = (float)sqrt(6 / (double)m->cols);
        for (int64_t i = 0; i < m->rows * m->cols; i++)
            a->frozen_values[m->at + i] = (2 * ft_rng_f32(&rng) - 1) * bound;
    }
    for (int i = 0; i < a->n_slots; i++) {
        const struct ft_slot *s = &a->slots[i];
        for (int64_t k = 0; k < s->r; k++)
            values[s->p[FT_VERA_D]->at + k] = d_initial;
        for (int64_t k = 0; k < s->out; k++)
            values[s->p[FT_VERA_B]->at + k] = 0;
    }
    return FT_OK;
}

json_t *ft_vera_config(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    return json_pack("{s:s, s:f, s:b, s:b, s:n, s:o, s:i, s:I, s:b, s:f}", "bias", "none",
                     "d_initial", (double)d_initial, "fan_in_fan_out", a->conv1d, "init_weights", 1,
                     "layers_pattern", "layers_to_transform", ft_layers_config(a, o),
                     "projection_prng_key", 0, "r", (json_int_t)a->r, "save_projection", 1,
                     "vera_dropout", a->dropout);
}
