/* IA3: a number for each column of what a module gives, or of what it reads where it is the last of
 * a feed-forward. Liu et al. 2022, arXiv 2205.05638, as PEFT computes it: the bias is scaled too.
 */
#include "adapter/internal.h"

#include <string.h>

struct ft_tensor *ft_ia3_linear(const struct ft_adapter *a, struct ft_graph *g,
                                const struct ft_slot *s, const struct ft_linears *l, int i)
{
    struct ft_tensor *w = l->of[i].w, *bias = l->of[i].bias;
    struct ft_scale_columns_args scale = {.m = s->p[FT_IA3_L]->value};
    (void)a;
    if (s->feedforward) {
        scale.x = l->x;
        return ft_linear(g, ft_scale_columns(g, scale), w, bias, l->add, 1);
    }
    scale.x = ft_linear(g, l->x, w, bias, NULL, 1);
    scale.add = l->add;
    return ft_graph_name(g, ft_scale_columns(g, scale), w->name);
}

int ft_ia3_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx)
{
    (void)weight, (void)ctx;
    for (int64_t i = 0; i < a->slot_size; i++)
        values[i] = 1;
    return FT_OK;
}

/* Which of the modules read what is scaled: whole names, since PEFT looks for them at the ends of
 * names only. */
json_t *ft_ia3_config(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    json_t *targets = json_array(), *last = json_array();
    (void)o;
    for (int i = 0; i < a->n_slots; i++) {
        json_array_append_new(targets, json_string(a->slots[i].name));
        if (a->slots[i].feedforward)
            json_array_append_new(last, json_string(a->slots[i].name));
    }
    return json_pack("{s:n, s:o, s:b, s:o, s:b}", "exclude_modules", "feedforward_modules", last,
                     "fan_in_fan_out", a->conv1d, "target_modules", targets, "init_ia3_weights", 1);
}
