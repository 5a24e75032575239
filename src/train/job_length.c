/* How long a run is: steps, warmup, evaluations. */
#include "train/internal.h"

#include <math.h>

static int64_t steps_of(int64_t batches, int64_t accumulation)
{
    return (batches + accumulation - 1) / accumulation;
}

static void measure_first_epoch(struct ft_job *j)
{
    struct ft_run_length *l = &j->length;
    int64_t tokens = 0;
    for (int64_t i = 0; i < j->epoch.n_batches; i++)
        tokens += j->epoch.batches[i].tokens;
    l->first_epoch_batches = j->epoch.n_batches;
    l->first_epoch_steps = steps_of(j->epoch.n_batches, j->config->gradient_accumulation_steps);
    l->docs_per_step = (double)j->train.n_docs / (double)l->first_epoch_steps;
    l->tokens_per_step = (double)tokens / (double)l->first_epoch_steps;
    double room = (double)(j->batching.micro_batch_size * j->batching.sequence_len);
    if (j->batching.packing)
        l->packing_efficiency = (double)tokens / (room * (double)j->epoch.n_batches);
}

/* Packing can give epochs of different length, so each is laid out. */
static int64_t steps_of_epochs(struct ft_job *j, double epochs)
{
    int64_t steps = 0;
    for (uint32_t e = 0; (double)e < epochs; e++) {
        if (j->batching.packing && e > 0)
            ft_epoch_fill(&j->epoch, &j->train, &j->batching, e);
        int64_t n = steps_of(j->epoch.n_batches, j->config->gradient_accumulation_steps);
        double share = epochs - (double)e;
        steps += share < 1 ? (int64_t)ceil(share * (double)n - 1e-9) : n;
    }
    return steps > 0 ? steps : 1;
}

/* Axolotl and transformers save each 500 steps where only the strategy is given. */
static void find_saves(struct ft_run_length *l, const struct ft_config *c)
{
    if (c->save_strategy == FT_SAVE_NO || c->save_strategy == FT_SAVE_BEST)
        l->save_every = -1;
    else if (!isnan(c->save_steps))
        l->save_every = c->save_steps < 1 ? (int64_t)ceil(c->save_steps * (double)l->steps)
                                          : (int64_t)c->save_steps;
    else if (c->saves_per_epoch > 0)
        l->save_every = steps_of(l->first_epoch_steps, c->saves_per_epoch);
    else if (c->save_strategy == FT_SAVE_STEPS)
        l->save_every = 500;
}

void ft_job_find_length(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    struct ft_run_length *l = &j->length;
    ft_epoch_fill(&j->epoch, &j->train, &j->batching, 0);
    measure_first_epoch(j);
    if (c->max_steps > 0) {
        l->steps = c->max_steps;
        l->epochs = (double)l->steps / (double)l->first_epoch_steps;
    } else {
        l->epochs = c->num_epochs;
        l->steps = steps_of_epochs(j, c->num_epochs);
    }
    if (!isnan(c->warmup_steps) && (c->warmup_steps == 0 || c->warmup_steps >= 1))
        l->warmup_steps = (int64_t)c->warmup_steps;
    else if (!isnan(c->warmup_steps))
        l->warmup_steps = (int64_t)ceil(c->warmup_steps * (double)l->steps);
    else if (!isnan(c->warmup_ratio))
        l->warmup_steps = (int64_t)(c->warmup_ratio * (double)l->steps);
    else
        l->warmup_steps = (int64_t)fmin(0.03 * (double)l->steps, 100);
    if (l->warmup_steps > l->steps)
        ft_notice(
            ft_config_where(c, "warmup_steps"),
            "the warmup of %lld steps is longer than the run of %lld: the learning rate never "
            "reaches %g",
            (long long)l->warmup_steps, (long long)l->steps, c->learning_rate);
    if (j->held.n_docs == 0 || c->eval_strategy == FT_EVAL_NO)
        l->eval_every = -1;
    else if (!isnan(c->eval_steps))
        l->eval_every = c->eval_steps < 1 ? (int64_t)ceil(c->eval_steps * (double)l->steps)
                                          : (int64_t)c->eval_steps;
    else if (c->evals_per_epoch > 0)
        l->eval_every = steps_of(l->first_epoch_steps, c->evals_per_epoch);
    else if (c->eval_strategy == FT_EVAL_STEPS)
        l->eval_every = c->logging_steps;
    find_saves(l, c);
    const char *asks = !isnan(c->eval_steps)           ? "eval_steps"
                       : c->evals_per_epoch > 0        ? "evals_per_epoch"
                       : c->eval_strategy > FT_EVAL_NO ? "eval_strategy"
                                                       : NULL;
    if (j->held.n_docs == 0 && asks)
        ft_notice(ft_config_where(c, asks),
                  "nothing is evaluated: there is neither 'val_set_size' nor 'test_datasets'");
    if (c->max_steps > 0 && ft_config_is_set(c, "num_epochs"))
        ft_notice(ft_config_where(c, "num_epochs"),
                  "'max_steps' is given too and wins: %lld steps, %.2f epochs", (long long)l->steps,
                  l->epochs);
}
