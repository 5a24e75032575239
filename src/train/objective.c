/* The objectives: what a program does with the hidden states that the head reads. */
#include "train/internal.h"

/* The next token's cross-entropy, summed over the trained tokens. */
static void cross_entropy(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    j->head = (struct ft_head_loss_args){.h = hidden,
                                         .w = ft_model_head(j->model),
                                         .targets = j->batch.targets,
                                         .picked = j->batch.picked,
                                         .scalars = j->batch.scalars,
                                         .scale = (float)d->logit_scale,
                                         .softcap = (float)d->logit_softcap};
    ft_token_rows_head(j, j->graph, &j->head);
    ft_adapter_head(j->adapter, j->graph, keys, &j->head);
    ft_head_loss(j->graph, j->head);
}

static const struct {
    const char *name;
    void (*build)(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys);
} objectives[] = {
    {"sft", cross_entropy},
};

void ft_objective_build(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys)
{
    objectives[0].build(j, hidden, keys);
}
