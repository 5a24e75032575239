/* The optimizers: what they keep of each parameter, and their op. */
#include "train/internal.h"

/* A part of the flat block with one learning rate; its states are the same part of theirs. */
struct part {
    struct ft_tensor *scalars, *grad, *p, *state[2];
    float rate, decay;
};

static void adamw(const struct ft_config *c, struct ft_graph *g, const struct part *t)
{
    const struct ft_adamw_args a = {.scalars = t->scalars,
                                    .grad = t->grad,
                                    .p = t->p,
                                    .m = t->state[0],
                                    .v = t->state[1],
                                    .beta1 = (float)c->adam_beta1,
                                    .beta2 = (float)c->adam_beta2,
                                    .eps = (float)c->adam_epsilon,
                                    .weight_decay = t->decay,
                                    .rate = t->rate};
    ft_graph_emit(g, FT_OP_adamw, &(union ft_op_args){.adamw = a});
}

static void sgd(const struct ft_config *c, struct ft_graph *g, const struct part *t)
{
    const struct ft_sgd_args a = {.scalars = t->scalars,
                                  .grad = t->grad,
                                  .p = t->p,
                                  .mom = t->state[0],
                                  .momentum = (float)c->momentum,
                                  .weight_decay = t->decay,
                                  .rate = t->rate};
    ft_graph_emit(g, FT_OP_sgd, &(union ft_op_args){.sgd = a});
}

static void lion(const struct ft_config *c, struct ft_graph *g, const struct part *t)
{
    const struct ft_lion_args a = {.scalars = t->scalars,
                                   .grad = t->grad,
                                   .p = t->p,
                                   .m = t->state[0],
                                   .beta1 = (float)c->adam_beta1,
                                   .beta2 = (float)c->adam_beta2,
                                   .weight_decay = t->decay,
                                   .rate = t->rate};
    ft_graph_emit(g, FT_OP_lion, &(union ft_op_args){.lion = a});
}

static int adamw_states(const struct ft_config *c)
{
    (void)c;
    return 2;
}

static int sgd_states(const struct ft_config *c)
{
    return c->momentum > 0;
}

static int lion_states(const struct ft_config *c)
{
    (void)c;
    return 1;
}

static const struct optimizer {
    const char *states[2]; /* for the memory table */
    int (*n_states)(const struct ft_config *c);
    void (*emit)(const struct ft_config *c, struct ft_graph *g, const struct part *t);
} optimizers[] = {
    [FT_ADAMW] = {{"adamw mean", "adamw mean square"}, adamw_states, adamw},
    [FT_SGD] = {{"momentum"}, sgd_states, sgd},
    [FT_LION] = {{"lion momentum"}, lion_states, lion},
};

void ft_update_build(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    const struct optimizer *o = &optimizers[c->optimizer];
    struct ft_tensor *p = ft_adapter_values(j->adapter), *g = ft_adapter_gradients(j->adapter);
    struct ft_tensor *states[2] = {NULL, NULL};
    const struct ft_rates_range *ranges;
    const int n = ft_adapter_ranges(j->adapter, &ranges);
    ft_graph_begin(j->graph, FT_UPDATE);
    ft_graph_emit(j->graph, FT_OP_grad_norm,
                  &(union ft_op_args){.grad_norm = {g, j->batch.scalars, (float)c->max_grad_norm}});
    for (int k = 0; k < o->n_states(c); k++)
        states[k] = ft_graph_value(j->graph, FT_M_OPTIMIZER, o->states[k], FT_F32, 1, p->cols);
    for (int i = 0; i < n; i++) {
        const int64_t first = ranges[i].first, cols = ranges[i].n;
        struct part t = {.scalars = j->batch.scalars,
                         .rate = (float)ranges[i].rate,
                         .decay = ranges[i].decays ? (float)c->weight_decay : 0};
        t.grad = ft_graph_view(j->graph, g, g->name, 1, cols, first);
        t.p = ft_graph_view(j->graph, p, p->name, 1, cols, first);
        for (int k = 0; k < 2 && states[k]; k++)
            t.state[k] = ft_graph_view(j->graph, states[k], states[k]->name, 1, cols, first);
        o->emit(c, j->graph, &t);
    }
}
