/* The objectives: what a program does with the hidden states that the head reads. */
#include "train/internal.h"

/* The head with all that is trained of it. */
static struct ft_head_loss_args head_of(struct ft_job *j, struct ft_tensor *hidden,
                                        struct ft_tensor *keys)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    struct ft_head_loss_args head = {.h = hidden,
                                     .w = ft_model_head(j->model),
                                     .targets = j->batch.targets,
                                     .picked = j->batch.picked,
                                     .scalars = j->batch.scalars,
                                     .scale = (float)d->logit_scale,
                                     .softcap = (float)d->logit_softcap};
    ft_token_rows_head(j, j->graph, &head);
    ft_adapter_head(j->adapter, j->graph, keys, &head);
    return head;
}

struct ft_tensor *ft_objective_logits(struct ft_job *j, struct ft_tensor *hidden)
{
    const struct ft_head_loss_args head = head_of(j, hidden, NULL);
    return ft_linear_low_rank(j->graph, (struct ft_linear_args){.x = hidden,
                                                                .w = head.w,
                                                                .u = head.u,
                                                                .b = head.b,
                                                                .alpha = head.scale,
                                                                .beta = head.beta});
}

/* The next token's cross-entropy, summed over the trained tokens. */
static void cross_entropy(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys)
{
    j->head = head_of(j, hidden, keys);
    ft_head_loss(j->graph, j->head);
}

/* What uneven routing costs, once for each trained token. */
static void even_routing(struct ft_job *j, struct ft_tensor *balance)
{
    const struct ft_mixture *m = &ft_model_decoder(j->model)->mixture;
    ft_balance_loss(j->graph, (struct ft_balance_loss_args){.sums = balance,
                                                            .scalars = j->batch.scalars,
                                                            .each = (int)m->each,
                                                            .rate = (float)m->balance_rate});
}

static const struct {
    const char *name;
    void (*build)(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys);
} objectives[] = {
    {"sft", cross_entropy},
};

void ft_objective_build(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys,
                        struct ft_tensor *balance)
{
    objectives[0].build(j, hidden, keys);
    if (balance)
        even_routing(j, balance);
}
