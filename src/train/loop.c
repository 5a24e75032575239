/* The training loop: windows of micro-batches, passes, updates, evaluation. */
#include "train/loop.h"

#include "core/file.h"
#include "track/mlflow.h"
#include "track/track.h"
#include "track/wandb.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* A finished step, before anything was read back. */
struct ft_step {
    double epoch;
    bool log, evaluate;
};

/* Fills the batch with the next pass, if one is left. */
static int fill_next(struct ft_loop *l, struct ft_work *w)
{
    l->ready = w->at < w->n;
    if (!l->ready)
        return FT_OK;
    FT_TRY(ft_job_fill(l->j, w->data, w->docs + w->at, w->n - w->at, (uint32_t)l->epoch, &l->next));
    w->at += l->next.counts[FT_DOCUMENTS];
    return FT_OK;
}

static void show_evaluation(struct ft_loop *l, double fraction)
{
    ft_track_event(l->track, &(struct ft_event){.kind = FT_EVENT_EVALUATING, .fraction = fraction});
}

/* Runs all that is left of the work. On a device this queues it, and the host fills one batch while
 * the device works on another. */
static int run_work(struct ft_loop *l, struct ft_work *w)
{
    const int64_t whole = w->data->n_docs, before = w->first;
    struct ft_profile *profile = l->o->profile ? &l->r->profile : NULL;
    for (;; l->ready = false) {
        if (!l->ready)
            FT_TRY(fill_next(l, w));
        if (!l->ready)
            return FT_OK;
        FT_TRY(ft_graph_run(l->j->graph, w->program, l->j->pool, &l->next, profile));
        if (w->program != FT_PASS) {
            show_evaluation(l, (double)(before + w->at) / (double)whole);
            continue;
        }
        l->tokens += l->next.counts[FT_ROWS];
        l->r->trained_tokens += l->next.counts[FT_TRAINED];
    }
}

bool ft_loop_writes(const struct ft_loop *l)
{
    return ft_world_rank(l->j->world) == 0;
}

int ft_loop_read_scalars(struct ft_loop *l)
{
    return ft_graph_read(l->j->graph, l->j->batch.scalars, l->scalars);
}

static int put_scalar(struct ft_loop *l, enum ft_scalar which, double value)
{
    return ft_graph_put(l->j->graph, l->j->batch.scalars, which, value);
}

/* Whether the run is to end now, to be gone on with later: a signal, or the Slurm job's end while
 * there is time for a step and a save. If one rank is asked, all are. */
static int is_asked_to_end(struct ft_loop *l, bool *end)
{
    enum { SPARE = 20 };
    double asked = (l->o->stop && *l->o->stop) ||
                   ft_now() + SPARE + 2 * (l->longest_step + l->save_took) > l->deadline;
    FT_TRY(ft_world_sum_f64(l->j->world, &asked, 1));
    *end = asked > 0;
    return FT_OK;
}

/* The best so far, but for the evaluation before the first step; and whether it is time to stop. */
static void compare(struct ft_loop *l, double loss)
{
    const struct ft_config *c = l->j->config;
    struct ft_train_result *r = l->r;
    l->better = l->step > 0 && (r->best_step < 0 || loss < r->best_eval);
    if (l->step == 0)
        return;
    l->not_better = l->better ? 0 : l->not_better + 1;
    if (l->better) {
        r->best_eval = loss;
        r->best_step = l->step;
    }
    if (c->early_stopping_patience < 1 || l->not_better < c->early_stopping_patience ||
        l->step == l->j->length.steps)
        return;
    r->stopped = true;
    ft_notice(ft_config_where(c, "early_stopping_patience"),
              "stopped after step %lld of %lld: %lld evaluations were not better than that of step "
              "%lld (%.4f)",
              (long long)l->step, (long long)l->j->length.steps, (long long)l->not_better,
              (long long)r->best_step, r->best_eval);
}

/* Over all ranks. */
static int sum_evaluation(struct ft_loop *l)
{
    FT_TRY(ft_loop_read_scalars(l));
    _Static_assert(FT_S_EVAL_COUNT == FT_S_EVAL_SUM + 1, "one sum");
    return ft_world_sum_f64(l->j->world, &l->scalars[FT_S_EVAL_SUM], 2);
}

static int evaluate(struct ft_loop *l)
{
    struct ft_job *j = l->j;
    int32_t docs[256];
    bool end = false;
    FT_TRY(ft_loop_read_scalars(
        l)); /* waits for what was queued: the time from here on is evaluation's */
    const double began = ft_now();
    FT_TRY(put_scalar(l, FT_S_EVAL_SUM, 0));
    FT_TRY(put_scalar(l, FT_S_EVAL_COUNT, 0));
    for (int64_t i = 0; i < j->held.n_docs;) {
        int64_t n = 0;
        for (; n < 256 && i + n < j->held.n_docs; n++)
            docs[n] = (int32_t)(i + n);
        struct ft_work w = {FT_EVAL, &j->held, docs, ft_ranks_take(j, &j->held, docs, n), 0, i};
        FT_TRY(run_work(l, &w));
        i += n;
        FT_TRY(is_asked_to_end(l, &end));
        l->unevaluated = i < j->held.n_docs && end;
        if (l->unevaluated)
            return FT_OK;
    }
    FT_TRY(sum_evaluation(l));
    double loss = l->scalars[FT_S_EVAL_SUM] / l->scalars[FT_S_EVAL_COUNT];
    if (isnan(l->r->first_eval))
        l->r->first_eval = loss;
    l->r->last_eval = loss;
    compare(l, loss);
    ft_track_event(l->track, &(struct ft_event){.kind = FT_EVENT_EVAL,
                                                .step = l->step,
                                                .steps = j->length.steps,
                                                .eval_loss = loss});
    l->last += ft_now() - began;
    return FT_OK;
}

static void begin_epoch(struct ft_loop *l)
{
    struct ft_job *j = l->j;
    int64_t g = j->config->gradient_accumulation_steps;
    ft_epoch_fill(&j->epoch, &j->train, &j->batching, (uint32_t)l->epoch);
    l->batch = 0;
    l->epoch_step = 0;
    l->epoch_steps = (j->epoch.n_batches + g - 1) / g;
}

/* The documents of the next optimizer step: a window of micro-batches. Their loss is one mean over
 * the whole window, so that passes may reach across micro-batches. */
static void begin_window(struct ft_loop *l)
{
    const struct ft_job *j = l->j;
    if (l->batch == j->epoch.n_batches) {
        l->epoch++;
        begin_epoch(l);
    }
    int64_t end = l->batch + j->config->gradient_accumulation_steps, n = 0;
    if (end > j->epoch.n_batches)
        end = j->epoch.n_batches;
    const int64_t first = j->epoch.batches[l->batch].first;
    for (; l->batch < end; l->batch++)
        n += j->epoch.batches[l->batch].count;
    n = ft_ranks_take(j, &j->train, j->epoch.order + first, n);
    l->window = (struct ft_work){FT_PASS, &j->train, j->epoch.order + first, n, 0, 0};
    l->tokens = 0;
}

static size_t peak_resident(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (size_t)u.ru_maxrss * 1024;
}

static void report_step(struct ft_loop *l, const struct ft_step *s)
{
    const struct ft_job *j = l->j;
    double now = ft_now(), spent = now - l->last;
    struct ft_event e = {
        .kind = FT_EVENT_STEP,
        .step = l->step,
        .steps = j->length.steps,
        .epoch = s->epoch,
        .loss = l->scalars[FT_S_LOSS],
        .grad_norm = l->scalars[FT_S_NORM],
        .learning_rate = l->scalars[FT_S_LR],
        .trained_tokens = (int64_t)l->scalars[FT_S_TOKENS],
        .tokens_seen = l->r->tokens,
        .tokens_per_second = spent > 0 ? (double)l->since / spent : 0,
        .seconds = l->before + now - l->began,
        .eta_seconds =
            (now - l->began) / (double)(l->step - l->resumed) * (double)(j->length.steps - l->step),
        .resident_bytes = peak_resident(),
        .skipped = l->scalars[FT_S_FINITE] == 0,
        .log = s->log || l->scalars[FT_S_FINITE] == 0,
    };
    ft_track_event(l->track, &e);
    l->last = ft_now();
    l->since = 0;
}

static int diverged(const struct ft_loop *l)
{
    ft_fail(FT_EDIVERGED, "step %lld: loss or gradient is not finite (%d in a row)",
            (long long)l->step, (int)l->scalars[FT_S_MOST_IN_ROW]);
    ft_hint(
        "lower 'learning_rate' (%g), lengthen the warmup, or look at the data of these steps; no "
        "adapter was written%s",
        l->j->config->learning_rate,
        l->saved_step > 0 ? ", the last checkpoint is from before" : "");
    return FT_EDIVERGED;
}

/* The first and the last tenth of the losses; at most as many as there is room for. */
static void note_loss(struct ft_loop *l)
{
    const int64_t tenth = l->j->length.steps / 10, most = sizeof l->last_losses / sizeof(double);
    const int64_t n = tenth < 1 ? 1 : tenth > most ? most : tenth;
    const double loss = l->scalars[FT_S_LOSS];
    l->r->zero_gradients += l->scalars[FT_S_NORM] == 0;
    if (!isfinite(loss))
        return;
    if (l->losses < n)
        l->early_sum += loss;
    l->last_losses[l->losses++ % n] = loss;
    const int64_t seen = l->losses < n ? l->losses : n;
    double sum = 0;
    for (int64_t i = 0; i < seen; i++)
        sum += l->last_losses[i];
    l->r->early_loss = l->early_sum / (double)seen;
    l->r->late_loss = sum / (double)seen;
}

/* What nobody would see in a log of thousands of lines. */
static void say_doubts(const struct ft_train_result *r)
{
    const bool evaluated = !isnan(r->first_eval) && r->steps > 0;
    const double from = evaluated ? r->first_eval : r->early_loss;
    const double to = evaluated ? r->last_eval : r->late_loss;
    if (to > from)
        ft_notice((struct ft_where){0},
                  "the %sloss ended above where it began: %.4f -> %.4f; a lower 'learning_rate' or "
                  "other data may help",
                  evaluated ? "evaluation's " : "", from, to);
    if (r->zero_gradients)
        ft_notice((struct ft_where){0},
                  "the gradient was exactly zero in %lld of %lld steps: nothing was learned there",
                  (long long)r->zero_gradients, (long long)r->steps);
}

/* A loss that stays high ends the run; what it has learned is written. */
static void watch(struct ft_loop *l)
{
    const struct ft_config *c = l->j->config;
    const int64_t patience = c->loss_watchdog_patience > 0 ? c->loss_watchdog_patience : 3;
    l->above = l->scalars[FT_S_LOSS] > c->loss_watchdog_threshold ? l->above + 1 : 0;
    if (l->above < patience || l->r->stopped)
        return;
    l->r->stopped = true;
    ft_notice(
        ft_config_where(c, "loss_watchdog_threshold"),
        "stopped after step %lld of %lld: the loss was above %g for %lld steps in a row (%g now)",
        (long long)l->step, (long long)l->j->length.steps, c->loss_watchdog_threshold,
        (long long)l->above, l->scalars[FT_S_LOSS]);
}

/* What the device counted; waits for it. */
static int look_at_step(struct ft_loop *l, const struct ft_step *s)
{
    struct ft_train_result *r = l->r;
    FT_TRY(ft_loop_read_scalars(l));
    r->skipped = (int64_t)l->scalars[FT_S_SKIPPED];
    r->last_loss = l->scalars[FT_S_LOSS];
    if (isnan(r->first_loss))
        r->first_loss = r->last_loss;
    report_step(l, s);
    bool last = l->step == l->j->length.steps;
    note_loss(l);
    watch(l);
    if (l->scalars[FT_S_SKIPPED_IN_ROW] >= FT_MAX_SKIPPED || (last && l->scalars[FT_S_FINITE] == 0))
        return diverged(l);
    return FT_OK;
}

static bool evaluation_due(const struct ft_loop *l)
{
    const struct ft_run_length *n = &l->j->length;
    if (n->eval_every < 0)
        return false;
    if (l->step == n->steps)
        return true;
    return n->eval_every > 0 ? l->step % n->eval_every == 0 : l->epoch_step == l->epoch_steps;
}

/* What the window's sums are over all ranks; and its tokens. */
static int sum_window(struct ft_loop *l)
{
    struct ft_train_result *r = l->r;
    struct ft_job *j = l->j;
    if (!j->world)
        return FT_OK;
    FT_TRY(ft_loop_read_scalars(l));
    double sums[] = {l->scalars[FT_S_LOSS_SUM], l->scalars[FT_S_TRAINED], (double)l->tokens};
    const int64_t before = r->trained_tokens - (int64_t)sums[1];
    FT_TRY(ft_world_sum_f64(j->world, sums, 3));
    FT_TRY(put_scalar(l, FT_S_LOSS_SUM, sums[0]));
    FT_TRY(put_scalar(l, FT_S_TRAINED, sums[1]));
    l->tokens = (int64_t)sums[2];
    r->trained_tokens = before + (int64_t)sums[1];
    return ft_ranks_sum(j, l->gradients);
}

/* One optimizer step: a window of micro-batches and the update. Before the device is waited for,
 * the next window's first batch is made. */
static int train_step(struct ft_loop *l)
{
    struct ft_job *j = l->j;
    FT_TRY(run_work(l, &l->window));
    FT_TRY(sum_window(l));
    l->step++;
    l->epoch_step++;
    FT_TRY(put_scalar(l, FT_S_LR, ft_learning_rate(j->config, &j->length, l->step)));
    FT_TRY(ft_graph_run(j->graph, FT_UPDATE, j->pool, &(struct ft_run){0},
                        l->o->profile ? &l->r->profile : NULL));
    l->r->tokens += l->tokens;
    l->since += l->tokens;
    const struct ft_step s = {
        .epoch = (double)l->epoch + (double)l->epoch_step / (double)l->epoch_steps,
        .log =
            l->step % j->config->logging_steps == 0 || l->step == 1 || l->step == j->length.steps,
        .evaluate = evaluation_due(l),
    };
    if (l->step < j->length.steps) {
        begin_window(l);
        l->ready = false;
        if (!s.evaluate)
            FT_TRY(fill_next(l, &l->window));
    }
    if (s.log || !j->backend->dev)
        FT_TRY(look_at_step(l, &s));
    return s.evaluate ? evaluate(l) : FT_OK;
}

/* --- the run --- */

/* Where a checkpoint was made: in its epoch, at the window that follows. */
static void go_on(struct ft_loop *l)
{
    const int64_t done = l->epoch_step, g = l->j->config->gradient_accumulation_steps;
    begin_epoch(l);
    l->epoch_step = done < l->epoch_steps ? done : l->epoch_steps;
    l->batch =
        l->epoch_step * g < l->j->epoch.n_batches ? l->epoch_step * g : l->j->epoch.n_batches;
}

static bool begins_with_evaluation(const struct ft_loop *l)
{
    return l->j->length.eval_every >= 0 && l->j->config->eval_on_start;
}

static int begin_run(struct ft_loop *l)
{
    if (l->resumed)
        go_on(l);
    else
        begin_epoch(l);
    if (l->resumed ? l->unevaluated : begins_with_evaluation(l))
        FT_TRY(evaluate(l));
    if (l->step < l->j->length.steps)
        begin_window(l);
    return FT_OK;
}

/* A step, and the checkpoint behind it. */
static int advance(struct ft_loop *l)
{
    const int64_t epoch = l->epoch;
    const double began = ft_now();
    l->better = false;
    int rc = train_step(l);
    if (rc == FT_ERESOURCE && ft_loop_writes(l))
        ft_hint("this was at step %lld; the last checkpoint is of step %lld", (long long)l->step,
                (long long)l->saved_step);
    FT_TRY(rc);
    const double took = ft_now() - began;
    l->longest_step = took > l->longest_step ? took : l->longest_step;
    return ft_loop_save_due(l, l->epoch != epoch) ? ft_loop_save(l) : FT_OK;
}

static int is_over(struct ft_loop *l, bool *over)
{
    *over = l->step >= l->j->length.steps || l->r->stopped;
    return *over ? FT_OK : is_asked_to_end(l, over);
}

static int run_steps(struct ft_loop *l)
{
    const int64_t steps = l->j->length.steps;
    FT_TRY(begin_run(l));
    for (bool over;;) {
        FT_TRY(is_over(l, &over));
        if (over)
            break;
        FT_TRY(advance(l));
    }
    l->r->interrupted = !l->r->stopped && (l->step < steps || l->unevaluated);
    if (l->r->interrupted && l->step > 0 && (l->saved_step != l->step || l->unevaluated))
        FT_TRY(ft_loop_save(l));
    return l->r->interrupted ? FT_OK : ft_loop_take_best(l);
}

static void show_loading(void *ctx, uint64_t done, uint64_t total)
{
    ft_track_event(ctx, &(struct ft_event){.kind = FT_EVENT_LOADING,
                                           .fraction = (double)done / (double)total});
}

static int place_and_load(struct ft_loop *l)
{
    struct ft_job *j = l->j;
    double none = 0;
    FT_TRY(ft_job_check_memory(j));
    FT_TRY(ft_world_sum_f64(j->world, &none, 1)); /* before one of them takes its part */
    if (ft_ranks_bytes(j))
        FT_TRY(ft_alloc(&l->gradients, ft_ranks_bytes(j), 1));
    return ft_job_place(j, show_loading, l->track);
}

static void finish(struct ft_loop *l)
{
    struct ft_train_result *r = l->r;
    const double here = ft_now() - l->began;
    r->steps = l->step;
    r->seconds = l->before + here;
    r->tokens_per_second = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
    r->peak_bytes = peak_resident();
    if (!r->interrupted)
        say_doubts(r);
    ft_track_event(l->track, &(struct ft_event){.kind = FT_EVENT_END,
                                                .interrupted = r->interrupted,
                                                .step = r->steps,
                                                .steps = l->j->length.steps,
                                                .tokens_seen = r->tokens,
                                                .seconds = r->seconds,
                                                .tokens_per_second = r->tokens_per_second});
}

/* What only the rank that writes does. */
static int begin_output(struct ft_loop *l)
{
    struct ft_job *j = l->j;
    if (!ft_loop_writes(l))
        return FT_OK;
    FT_TRY(ft_output_begin(&l->out, j));
    /* with the hashes that a resumed run was compared by: those of another have not been begun, so
     * that what is written does not depend on how fast they come */
    FT_TRY(ft_output_run_json(&l->out, j, "running", NULL, l->hashes));
    FT_TRY(ft_hashes_start(&l->hashes, j));
    l->deadline = ft_deadline();
    return FT_OK;
}

/* What the MLflow server is told, where the config wants one: the one that the config or the
 * environment names. */
static int mlflow_options(struct ft_mlflow_options *o, bool *wanted, const struct ft_config *c)
{
    const char *named = c->mlflow_tracking_uri, *around = getenv("MLFLOW_TRACKING_URI");
    *o = (struct ft_mlflow_options){
        .uri = named && *named ? named : around,
        .experiment = c->mlflow_experiment_name ? c->mlflow_experiment_name : "ft",
        .run = c->mlflow_run_name};
    *wanted = c->use_mlflow || c->mlflow_experiment_name;
    if (*wanted && (!o->uri || !*o->uri))
        return ft_fail_at(ft_config_where(c, "use_mlflow"), FT_ECONFIG,
                          "MLflow needs 'mlflow_tracking_uri', or MLFLOW_TRACKING_URI");
    return FT_OK;
}

/* Before anything is touched: what the trackers are told can be right. */
static int check_trackers(const struct ft_loop *l)
{
    const struct ft_config *c = l->j->config;
    const char *id = c->wandb_run_id;
    struct ft_mlflow_options mlflow;
    bool wanted;
    FT_TRY(mlflow_options(&mlflow, &wanted, c));
    if (wanted)
        FT_TRY(ft_mlflow_check(mlflow.uri));
    const bool on = c->use_wandb != FT_FALSE && strcmp(c->wandb_mode, "disabled") != 0;
    return on && id && *id ? ft_wandb_check(id, ft_config_where(c, "wandb_run_id")) : FT_OK;
}

static bool wandb_options(struct ft_wandb_options *o, const struct ft_loop *l)
{
    const struct ft_config *c = l->j->config;
    const bool project = c->wandb_project && *c->wandb_project;
    const bool named = c->wandb_run_id && *c->wandb_run_id;
    *o = (struct ft_wandb_options){
        .folder = l->out.wandb,
        .project = project ? c->wandb_project : "ft",
        .name = c->wandb_name && *c->wandb_name ? c->wandb_name : ft_path_name(l->out.folder),
        .entity = c->wandb_entity && *c->wandb_entity ? c->wandb_entity : NULL,
        .run = named ? c->wandb_run_id : NULL};
    return (c->use_wandb == FT_AUTO ? project : c->use_wandb == FT_TRUE) &&
           strcmp(c->wandb_mode, "disabled") != 0;
}

/* The sinks of the rank that writes. */
static int open_track(struct ft_loop *l, struct ft_track_options *to)
{
    const struct ft_config *c = l->j->config;
    struct ft_mlflow_options mlflow;
    struct ft_wandb_options wandb;
    bool to_mlflow;
    if (!ft_loop_writes(l))
        return ft_track_open(&l->track, to);
    FT_TRY(mlflow_options(&mlflow, &to_mlflow, c));
    const bool to_wandb = wandb_options(&wandb, l);
    const unsigned since = ft_alloc_failures();
    json_t *params = to_mlflow || to_wandb ? ft_config_json(c) : NULL;
    mlflow.params = wandb.config = params;
    to->mlflow = to_mlflow ? &mlflow : NULL;
    to->wandb = to_wandb ? &wandb : NULL;
    int rc = ft_alloc_check(since);
    if (!rc)
        rc = ft_track_open(&l->track, to);
    json_decref(params);
    return rc;
}

/* From the weights to the first step. */
static int start(struct ft_loop *l)
{
    struct ft_track_options to = {.console = l->o->console, .plain = l->j->world != NULL};
    FT_TRY(ft_track_open(&l->track, &to));
    FT_TRY(place_and_load(l));
    ft_track_close(l->track);
    l->track = NULL;
    FT_TRY(ft_loop_restore(l));
    FT_TRY(begin_output(l));
    to.metrics_path = l->out.metrics;
    to.tensorboard = l->j->config->use_tensorboard ? l->out.tensorboard : NULL;
    to.first_step = l->step;
    FT_TRY(open_track(l, &to));
    if (l->o->begins)
        l->o->begins();
    l->began = l->last = l->saved = ft_now();
    l->r->startup_seconds = l->o->started > 0 ? l->began - l->o->started : 0;
    return FT_OK;
}

/* What it leaves: of an interrupted run the adapter as it stands. */
static int write_all(struct ft_loop *l)
{
    const bool trained = l->step > 0;
    if (!ft_loop_writes(l))
        return FT_OK;
    if (trained)
        FT_TRY(ft_output_write(&l->out, l->j));
    return ft_output_run_json(&l->out, l->j, l->r->interrupted ? "interrupted" : "finished",
                              trained ? l->r : NULL, l->hashes);
}

/* Opens the folder, and tells all whether there is anything to do. */
static int open_output(struct ft_loop *l)
{
    if (ft_loop_writes(l))
        FT_TRY(check_trackers(l));
    if (ft_loop_writes(l))
        FT_TRY(ft_output_open(&l->out, l->j, &l->hashes));
    FT_TRY(ft_world_share(l->j->world, &l->out.finished, sizeof l->out.finished));
    l->r->finished = l->out.finished;
    return FT_OK;
}

int ft_train(struct ft_job *j, const struct ft_train_options *o, struct ft_train_result *r)
{
    struct ft_loop l = {.j = j, .o = o, .r = r, .deadline = INFINITY};
    *r = (struct ft_train_result){.first_loss = NAN,
                                  .last_loss = NAN,
                                  .early_loss = NAN,
                                  .late_loss = NAN,
                                  .first_eval = NAN,
                                  .last_eval = NAN,
                                  .best_eval = NAN,
                                  .best_step = -1};
    int rc = open_output(&l);
    if (!rc && !r->finished) {
        rc = start(&l);
        if (!rc) {
            ft_pool_pin(j->pool);
            rc = run_steps(&l);
        }
        if (!rc) {
            finish(&l);
            rc = write_all(&l);
        }
    }
    ft_track_close(l.track);
    ft_hashes_free(l.hashes);
    ft_output_close(&l.out);
    ft_free(l.gradients);
    return rc;
}
