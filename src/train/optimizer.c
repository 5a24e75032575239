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

static void adafactor(const struct ft_config *c, struct ft_graph *g, const struct part *t)
{
    (void)c;
    const struct ft_adafactor_args a = {.scalars = t->scalars,
                                        .grad = t->grad,
                                        .p = t->p,
                                        .row = t->state[0],
                                        .col = t->state[1],
                                        .weight_decay = t->decay,
                                        .rate = t->rate};
    ft_graph_emit(g, FT_OP_adafactor, &(union ft_op_args){.adafactor = a});
}

/* Matrices; AdamW for the others, whose second state is not empty. */
static void muon(const struct ft_config *c, struct ft_graph *g, const struct part *t)
{
    const struct ft_muon_args a = {.scalars = t->scalars,
                                   .grad = t->grad,
                                   .p = t->p,
                                   .m = t->state[0],
                                   .momentum = 0.95f,
                                   .weight_decay = t->decay,
                                   .rate = t->rate};
    if (t->state[1])
        adamw(c, g, t);
    else
        ft_graph_emit(g, FT_OP_muon, &(union ft_op_args){.muon = a});
}

/* How an op sees a parameter, and what is kept of it. */
struct shape {
    int64_t rows;                /* of the parameter; 1: as one row */
    int64_t state_rows, size[2]; /* rows of each state, and its elements */
};

static struct shape adafactor_shape(const struct ft_trained_parameter *p)
{
    if (p->vector)
        return (struct shape){1, 1, {0, p->rows}};
    return (struct shape){p->rows, 1, {p->rows, p->cols}};
}

static struct shape muon_shape(const struct ft_trained_parameter *p)
{
    const int64_t n = p->rows * p->cols;
    if (p->vector || p->end)
        return (struct shape){1, 1, {n, n}};
    return (struct shape){p->rows, p->rows, {n, 0}};
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
    /* of a part of one learning rate; or, with a shape, of one parameter: a state without elements
     * is NULL */
    void (*emit)(const struct ft_config *c, struct ft_graph *g, const struct part *t);
    struct shape (*shape)(const struct ft_trained_parameter *p);
} optimizers[] = {
    [FT_ADAMW] = {{"adamw mean", "adamw mean square"}, adamw_states, adamw, NULL},
    [FT_SGD] = {{"momentum"}, sgd_states, sgd, NULL},
    [FT_LION] = {{"lion momentum"}, lion_states, lion, NULL},
    [FT_ADAFACTOR] = {{"adafactor rows", "adafactor columns"},
                      adamw_states,
                      adafactor,
                      adafactor_shape},
    [FT_MUON] = {{"muon momentum", "adamw mean square"}, adamw_states, muon, muon_shape},
};

/* The next n of a state's elements; NULL for none. */
static struct ft_tensor *next_state(struct ft_graph *g, struct ft_tensor *all, int64_t *at,
                                    int64_t n, int64_t rows)
{
    if (!n)
        return NULL;
    *at += n;
    return ft_graph_view(g, all, all->name, rows, n / rows, *at - n);
}

/* An op for each parameter. */
static void build_each(struct ft_job *j, const struct optimizer *o)
{
    const struct ft_config *c = j->config;
    struct ft_tensor *p = ft_adapter_values(j->adapter), *g = ft_adapter_gradients(j->adapter);
    int64_t all[2] = {0, 0}, at[2] = {0, 0};
    struct ft_tensor *states[2];
    const int n = ft_adapter_parameter_count(j->adapter);
    for (int i = 0; i < n; i++) {
        const struct ft_trained_parameter one = ft_adapter_parameter(j->adapter, i);
        const struct shape shape = o->shape(&one);
        all[0] += shape.size[0];
        all[1] += shape.size[1];
    }
    for (int k = 0; k < 2; k++)
        states[k] = j->states[k] =
            ft_graph_value(j->graph, FT_M_OPTIMIZER, o->states[k], FT_F32, 1, all[k] ? all[k] : 1);
    for (int i = 0; i < n; i++) {
        const struct ft_trained_parameter one = ft_adapter_parameter(j->adapter, i);
        const struct shape shape = o->shape(&one);
        const int64_t rows = shape.rows, cols = one.rows * one.cols / rows;
        struct part t = {.scalars = j->batch.scalars,
                         .rate = (float)one.rate,
                         .decay = one.decays ? (float)c->weight_decay : 0};
        t.grad = ft_graph_view(j->graph, g, g->name, rows, cols, one.at);
        t.p = ft_graph_view(j->graph, p, p->name, rows, cols, one.at);
        for (int k = 0; k < 2; k++)
            t.state[k] = next_state(j->graph, states[k], &at[k], shape.size[k], shape.state_rows);
        o->emit(c, j->graph, &t);
    }
}

/* An op for each part of the block that has one learning rate and weight decay. */
static void build_flat(struct ft_job *j, const struct optimizer *o)
{
    const struct ft_config *c = j->config;
    struct ft_tensor *p = ft_adapter_values(j->adapter), *g = ft_adapter_gradients(j->adapter);
    struct ft_tensor *states[2] = {NULL, NULL};
    const struct ft_rates_range *ranges;
    const int n = ft_adapter_ranges(j->adapter, &ranges);
    for (int k = 0; k < o->n_states(c); k++)
        states[k] = j->states[k] =
            ft_graph_value(j->graph, FT_M_OPTIMIZER, o->states[k], FT_F32, 1, p->cols);
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

void ft_update_build(struct ft_job *j)
{
    const struct optimizer *o = &optimizers[j->config->optimizer];
    struct ft_tensor *g = ft_adapter_gradients(j->adapter);
    ft_graph_begin(j->graph, FT_UPDATE);
    ft_graph_emit(
        j->graph, FT_OP_grad_norm,
        &(union ft_op_args){.grad_norm = {g, j->batch.scalars, (float)j->config->max_grad_norm}});
    if (o->shape)
        build_each(j, o);
    else
        build_flat(j, o);
}
