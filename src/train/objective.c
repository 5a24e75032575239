/* The objectives: what a program does with the hidden states that the head reads. */
#include "train/internal.h"

/* The next token's cross-entropy, summed over the trained tokens. */
static void cross_entropy(struct ft_job *j, struct ft_tensor *hidden)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    ft_head_loss(j->graph, (struct ft_head_loss_args){.h = hidden,
                                                      .w = ft_model_head(j->model),
                                                      .targets = j->batch.targets,
                                                      .picked = j->batch.picked,
                                                      .scalars = j->batch.scalars,
                                                      .scale = (float)d->logit_scale,
                                                      .softcap = (float)d->logit_softcap});
}

static const struct {
    const char *name;
    void (*build)(struct ft_job *j, struct ft_tensor *hidden);
} objectives[] = {
    {"sft", cross_entropy},
};

void ft_objective_build(struct ft_job *j, struct ft_tensor *hidden)
{
    objectives[0].build(j, hidden);
}
