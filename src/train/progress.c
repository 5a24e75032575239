/* What decides the rest of a run, beside parameters and moments: into a checkpoint and back. */
#include "train/loop.h"

#include <math.h>
#include <string.h>

/* Everything that decides the rest of the run, beside parameters and moments. */
enum { COUNTERS = 28 };
static int list_counters(struct ft_loop *l, struct ft_counter out[COUNTERS])
{
    struct ft_train_result *r = l->r;
    const struct ft_counter all[] = {
        {"step", &l->step, NULL, 0},
        {"epoch", &l->epoch, NULL, 0},
        {"epoch_step", &l->epoch_step, NULL, 0},
        {"unevaluated", &l->unevaluated, NULL, 0},
        {"log_bytes", &l->log_bytes, NULL, 0},
        {"seconds", NULL, &r->seconds, 0},
        {"tokens", &r->tokens, NULL, 0},
        {"trained_tokens", &r->trained_tokens, NULL, 0},
        {"tokens_since_report", &l->since, NULL, 0},
        {"first_loss", NULL, &r->first_loss, 0},
        {"last_loss", NULL, &r->last_loss, 0},
        {"losses", &l->losses, NULL, 0},
        {"early_sum", NULL, &l->early_sum, 0},
        {"early_loss", NULL, &r->early_loss, 0},
        {"late_loss", NULL, &r->late_loss, 0},
        {"last_losses", NULL, l->last_losses, sizeof l->last_losses / sizeof(double)},
        {"zero_gradients", &r->zero_gradients, NULL, 0},
        {"skipped", &r->skipped, NULL, 0},
        {"moved", &r->moved, NULL, 0},
        {"steps_above_watchdog", &l->above, NULL, 0},
        {"first_eval", NULL, &r->first_eval, 0},
        {"last_eval", NULL, &r->last_eval, 0},
        {"best_eval", NULL, &r->best_eval, 0},
        {"best_step", &r->best_step, NULL, 0},
        {"evaluations_not_better", &l->not_better, NULL, 0},
        {"longest_step", NULL, &l->longest_step, 0},
        {"save_took", NULL, &l->save_took, 0},
        {"scalars", NULL, l->scalars, FT_SCALARS},
    };
    _Static_assert(sizeof all / sizeof *all == COUNTERS, "COUNTERS");
    memcpy(out, all, sizeof all);
    return COUNTERS;
}

static int64_t checkpoints_kept(const struct ft_config *c)
{
    const bool asked =
        !isnan(c->save_steps) || c->saves_per_epoch > 0 || c->save_strategy != FT_SAVE_UNSET;
    return c->save_total_limit > 0 ? c->save_total_limit : asked ? 4 : 2;
}

int ft_loop_save(struct ft_loop *l)
{
    struct ft_counter counters[COUNTERS];
    const double began = ft_now();
    if (!ft_loop_writes(l))
        return FT_OK;
    FT_TRY(ft_loop_read_scalars(l));
    l->r->seconds = l->before + began - l->began;
    l->log_bytes = ft_output_log_bytes(&l->out);
    struct ft_checkpoint c = {.step = l->step,
                              .keep = checkpoints_kept(l->j->config),
                              .best = l->j->config->load_best_model_at_end ? l->r->best_step : -1,
                              .counters = counters,
                              .n_counters = list_counters(l, counters)};
    ft_output_release(&l->out);
    int rc = ft_identity(&c.identity, l->j, l->hashes, false);
    if (!rc)
        rc = ft_checkpoint_write(&l->out, l->j, &c);
    json_decref(c.identity);
    FT_TRY(rc);
    if (ft_output_reserve(&l->out, l->j)) {
        ft_notice((struct ft_where){.file = l->out.folder},
                  "after the checkpoint of step %lld there is no room for another one",
                  (long long)l->step);
        ft_status_clear_errors();
    }
    l->saved = ft_now();
    l->save_took = l->saved - began;
    l->saved_step = l->step;
    l->last += l->save_took;
    return FT_OK;
}

bool ft_loop_save_due(const struct ft_loop *l, bool epoch_ended)
{
    enum { EACH = 600 }; /* seconds */
    const struct ft_config *c = l->j->config;
    const struct ft_run_length *n = &l->j->length;
    const bool keeps_best = c->load_best_model_at_end || c->save_strategy == FT_SAVE_BEST;
    if ((c->save_first_step && l->step == 1) || (keeps_best && l->better))
        return true;
    if (n->save_every)
        return n->save_every > 0 && l->step % n->save_every == 0;
    return epoch_ended || l->step == n->steps ||
           (c->save_strategy == FT_SAVE_UNSET && ft_now() - l->saved > EACH);
}

static int share_counters(struct ft_loop *l, const struct ft_counter *c, int n)
{
    for (int i = 0; i < n; i++)
        if (c[i].whole)
            FT_TRY(ft_world_share(l->j->world, c[i].whole, sizeof *c[i].whole));
        else
            FT_TRY(ft_world_share(l->j->world, c[i].real,
                                  (c[i].n ? (size_t)c[i].n : 1) * sizeof *c[i].real));
    return FT_OK;
}

static int go_on(struct ft_loop *l)
{
    FT_TRY(ft_graph_write(l->j->graph, l->j->batch.scalars, l->scalars));
    l->before = l->r->seconds;
    l->resumed = l->r->resumed = l->saved_step = l->step;
    l->r->stopped = false;
    return FT_OK;
}

/* Rank 0's. */
static int restore(struct ft_loop *l, const struct ft_checkpoint *c)
{
    FT_TRY(ft_checkpoint_restore(c, l->j, l->out.resume, l->out.manifest));
    if (l->step < 1 || l->epoch < 0 || l->epoch > UINT32_MAX || l->epoch_step < 0)
        return ft_fail_at((struct ft_where){.file = l->out.resume}, FT_EDATA,
                          "the manifest's step %lld of epoch %lld cannot be",
                          (long long)l->epoch_step, (long long)l->epoch);
    ft_notice((struct ft_where){.file = l->out.resume}, "the run goes on from step %lld of %lld",
              (long long)l->step, (long long)l->j->length.steps);
    l->r->moved += ft_identity_moved(l->j, json_object_get(l->out.manifest, "identity"));
    return FT_OK;
}

int ft_loop_restore(struct ft_loop *l)
{
    struct ft_counter counters[COUNTERS];
    struct ft_checkpoint c = {.counters = counters, .n_counters = list_counters(l, counters)};
    if (l->out.resume)
        FT_TRY(restore(l, &c));
    FT_TRY(ft_ranks_share(l->j));
    FT_TRY(share_counters(l, counters, c.n_counters));
    return l->step ? go_on(l) : FT_OK;
}

/* The adapter of the best evaluation in place of the last step's. */
int ft_loop_take_best(struct ft_loop *l)
{
    const int64_t best = l->r->best_step;
    json_t *manifest = NULL;
    if (!l->j->config->load_best_model_at_end || best < 0 || best == l->step || !ft_loop_writes(l))
        return FT_OK;
    char *path = ft_format("%s/checkpoint-%lld", l->out.folder, (long long)best);
    struct ft_checkpoint none = {0};
    int rc = path ? ft_checkpoint_open(&manifest, path) : FT_ERESOURCE;
    if (!rc)
        rc = ft_checkpoint_restore(&none, l->j, path, manifest);
    l->r->best_written = !rc;
    json_decref(manifest);
    ft_free(path);
    return rc;
}
