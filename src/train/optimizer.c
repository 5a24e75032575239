/* The optimizers: what they keep of each parameter, and their op. */
#include "train/internal.h"

#include "core/quant.h"

/* A part of the flat block with one learning rate, and what is kept of it. */
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

/* How an op sees its part of the block, and what is kept of it. */
struct shape {
    int64_t rows;                /* of the part; 1: as one row */
    int64_t state_rows, size[2]; /* rows of each state, and its elements; 0: it is NULL */
};

static struct shape adamw_shape(const struct ft_config *c, const struct ft_trained_parameter *p)
{
    (void)c;
    return (struct shape){1, 1, {p->rows * p->cols, p->rows * p->cols}};
}

static struct shape sgd_shape(const struct ft_config *c, const struct ft_trained_parameter *p)
{
    return (struct shape){1, 1, {c->momentum > 0 ? p->rows * p->cols : 0, 0}};
}

static struct shape lion_shape(const struct ft_config *c, const struct ft_trained_parameter *p)
{
    (void)c;
    return (struct shape){1, 1, {p->rows * p->cols, 0}};
}

static struct shape adafactor_shape(const struct ft_config *c, const struct ft_trained_parameter *p)
{
    (void)c;
    if (p->vector)
        return (struct shape){1, 1, {0, p->rows}};
    return (struct shape){p->rows, 1, {p->rows, p->cols}};
}

static struct shape muon_shape(const struct ft_config *c, const struct ft_trained_parameter *p)
{
    const int64_t n = p->rows * p->cols;
    (void)c;
    if (p->vector || p->end)
        return (struct shape){1, 1, {n, n}};
    return (struct shape){p->rows, p->rows, {n, 0}};
}

enum { EACH = 1, EIGHT_BITS = 2 };

/* how: EACH: an op for each parameter; otherwise for each run of parameters that have one learning
 * rate and weight decay, as if they were one. EIGHT_BITS: of parameters of 4096 elements and more,
 * states are DYNAMIC8, whose blocks begin with each parameter, as bitsandbytes has it. */
static const struct optimizer {
    const char *states[2]; /* for the memory table */
    void (*emit)(const struct ft_config *c, struct ft_graph *g, const struct part *t);
    struct shape (*shape)(const struct ft_config *c, const struct ft_trained_parameter *p);
    int how;
} optimizers[] = {
    [FT_ADAMW] = {{"adamw mean", "adamw mean square"}, adamw, adamw_shape, 0},
    [FT_ADAMW_8BIT] = {{"adamw mean", "adamw mean square"}, adamw, adamw_shape, EIGHT_BITS},
    [FT_SGD] = {{"momentum"}, sgd, sgd_shape, 0},
    [FT_LION] = {{"lion momentum"}, lion, lion_shape, 0},
    [FT_LION_8BIT] = {{"lion momentum"}, lion, lion_shape, EIGHT_BITS},
    [FT_ADAFACTOR] = {{"adafactor rows", "adafactor columns"}, adafactor, adafactor_shape, EACH},
    [FT_MUON] = {{"muon momentum", "adamw mean square"}, muon, muon_shape, EACH},
};

static bool in_8bit(const struct optimizer *o, const struct ft_trained_parameter *p)
{
    return o->how & EIGHT_BITS && p->rows * p->cols >= 4096;
}

/* Whether the next parameter goes on with the run. */
static bool is_same_run(const struct optimizer *o, const struct ft_trained_parameter *run,
                        bool eight, const struct ft_trained_parameter *next)
{
    return !(o->how & EACH) && run->rate == next->rate && run->decays == next->decays &&
           eight == in_8bit(o, next) && (!eight || run->rows * run->cols % FT_DYNAMIC_BLOCK == 0);
}

static struct ft_tensor *new_state(struct ft_job *j, const char *name, bool eight, int64_t rows,
                                   int64_t n)
{
    if (!n)
        return NULL;
    struct ft_tensor *t = ft_graph_value(j->graph, FT_M_OPTIMIZER, name,
                                         eight ? FT_DYNAMIC8 : FT_F32, rows, n / rows);
    t->block = eight ? FT_DYNAMIC_BLOCK : 0;
    j->states[j->n_states++] = t;
    return t;
}

static void build_run(struct ft_job *j, const struct optimizer *o,
                      const struct ft_trained_parameter *run, bool eight)
{
    const struct ft_config *c = j->config;
    struct ft_tensor *p = ft_adapter_values(j->adapter), *g = ft_adapter_gradients(j->adapter);
    const struct shape shape = o->shape(c, run);
    const int64_t cols = run->rows * run->cols / shape.rows;
    struct part t = {.scalars = j->batch.scalars,
                     .rate = (float)run->rate,
                     .decay = run->decays ? (float)c->weight_decay : 0};
    t.grad = ft_graph_view(j->graph, g, g->name, shape.rows, cols, run->at);
    t.p = ft_graph_view(j->graph, p, p->name, shape.rows, cols, run->at);
    for (int k = 0; k < 2; k++)
        t.state[k] = new_state(j, o->states[k], eight, shape.state_rows, shape.size[k]);
    o->emit(c, j->graph, &t);
}

int ft_update_build(struct ft_job *j)
{
    const struct optimizer *o = &optimizers[j->config->optimizer];
    struct ft_tensor *g = ft_adapter_gradients(j->adapter);
    const int n = ft_adapter_parameter_count(j->adapter);
    int64_t covered = 0;
    j->n_states = 0;
    FT_TRY(ft_grow(&j->states, 2 * (size_t)n, sizeof *j->states));
    ft_graph_begin(j->graph, FT_UPDATE);
    ft_graph_emit(
        j->graph, FT_OP_grad_norm,
        &(union ft_op_args){.grad_norm = {g, j->batch.scalars, (float)j->config->max_grad_norm}});
    for (int i = 0; i < n;) {
        struct ft_trained_parameter run = ft_adapter_parameter(j->adapter, i);
        const bool eight = in_8bit(o, &run);
        for (i++; i < n; i++) {
            const struct ft_trained_parameter next = ft_adapter_parameter(j->adapter, i);
            if (!is_same_run(o, &run, eight, &next))
                break;
            run.cols = run.rows * run.cols + next.rows * next.cols;
            run.rows = 1;
        }
        build_run(j, o, &run, eight);
        covered += run.rows * run.cols;
    }
    FT_ASSERT(covered == ft_adapter_parameters(j->adapter));
    return FT_OK;
}
