/* The training loop: windows of micro-batches, passes, updates, evaluation. */
#include "train/internal.h"

#include "track/track.h"

#include <math.h>
#include <string.h>
#include <sys/resource.h>

/* Documents that are to be run, pass by pass. */
struct work {
    enum ft_program program;
    const struct ft_dataset *data;
    const int32_t *docs;
    int64_t n, at;
};

struct loop {
    struct ft_job *j;
    const struct ft_train_options *o;
    struct ft_train_result *r;
    struct ft_track *track;
    double scalars[FT_SCALARS];
    double began, last;              /* clock at the first step, at the last event */
    int64_t step;                    /* finished steps */
    uint32_t epoch;                  /* the one being trained */
    int64_t batch;                   /* next micro-batch of it */
    int64_t epoch_steps, epoch_step; /* steps of this epoch, finished ones of it */
    struct work window;              /* the step being trained, or the next one */
    bool ready;                      /* the batch holds its next pass already */
    struct ft_run next;
    int64_t losses; /* finite ones so far */
    double early_sum, last_losses[64];
    int64_t above;  /* steps in a row whose loss was above loss_watchdog_threshold */
    int64_t tokens; /* of this window so far */
    int64_t since;  /* tokens of the steps since the last report */
};

/* A finished step, before anything was read back. */
struct ft_step {
    double epoch;
    bool log, evaluate;
};

/* Fills the batch with the next pass, if one is left. */
static int fill_next(struct loop *l, struct work *w)
{
    l->ready = w->at < w->n;
    if (!l->ready)
        return FT_OK;
    FT_TRY(ft_job_fill(l->j, w->data, w->docs + w->at, w->n - w->at, l->epoch, &l->next));
    w->at += l->next.counts[FT_DOCUMENTS];
    return FT_OK;
}

/* Runs all that is left of the work. On a device this queues it, and the host fills one batch while
 * the device works on another. */
static int run_work(struct loop *l, struct work *w)
{
    struct ft_profile *profile = l->o->profile ? &l->r->profile : NULL;
    for (;; l->ready = false) {
        if (!l->ready)
            FT_TRY(fill_next(l, w));
        if (!l->ready)
            return FT_OK;
        FT_TRY(ft_graph_run(l->j->graph, w->program, l->j->pool, &l->next, profile));
        if (w->program != FT_PASS)
            continue;
        l->tokens += l->next.counts[FT_ROWS];
        l->r->trained_tokens += l->next.counts[FT_TRAINED];
    }
}

static int read_scalars(struct loop *l)
{
    return ft_graph_read(l->j->graph, l->j->batch.scalars, l->scalars);
}

static int put_scalar(struct loop *l, enum ft_scalar which, double value)
{
    return ft_graph_put(l->j->graph, l->j->batch.scalars, which, value);
}

static int evaluate(struct loop *l)
{
    struct ft_job *j = l->j;
    int32_t docs[256];
    FT_TRY(read_scalars(l)); /* waits for what was queued: the time from here on is evaluation's */
    const double began = ft_now();
    FT_TRY(put_scalar(l, FT_S_EVAL_SUM, 0));
    FT_TRY(put_scalar(l, FT_S_EVAL_COUNT, 0));
    for (int64_t i = 0; i < j->held.n_docs;) {
        int64_t n = 0;
        for (; n < 256 && i + n < j->held.n_docs; n++)
            docs[n] = (int32_t)(i + n);
        struct work w = {FT_EVAL, &j->held, docs, n, 0};
        FT_TRY(run_work(l, &w));
        i += n;
    }
    FT_TRY(read_scalars(l));
    double loss = l->scalars[FT_S_EVAL_SUM] / l->scalars[FT_S_EVAL_COUNT];
    if (isnan(l->r->first_eval))
        l->r->first_eval = loss;
    l->r->last_eval = loss;
    ft_track_event(l->track, &(struct ft_event){.kind = FT_EVENT_EVAL,
                                                .step = l->step,
                                                .steps = j->length.steps,
                                                .eval_loss = loss});
    l->last += ft_now() - began;
    return FT_OK;
}

static void begin_epoch(struct loop *l)
{
    struct ft_job *j = l->j;
    int64_t g = j->config->gradient_accumulation_steps;
    ft_epoch_fill(&j->epoch, &j->train, &j->batching, l->epoch);
    l->batch = 0;
    l->epoch_step = 0;
    l->epoch_steps = (j->epoch.n_batches + g - 1) / g;
}

/* The documents of the next optimizer step: a window of micro-batches. Their loss is one mean over
 * the whole window, so that passes may reach across micro-batches. */
static void begin_window(struct loop *l)
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
    l->window = (struct work){FT_PASS, &j->train, j->epoch.order + first, n, 0};
    l->tokens = 0;
}

static size_t peak_resident(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (size_t)u.ru_maxrss * 1024;
}

static void report_step(struct loop *l, const struct ft_step *s)
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
        .seconds = now - l->began,
        .eta_seconds = (now - l->began) / (double)l->step * (double)(j->length.steps - l->step),
        .resident_bytes = peak_resident(),
        .skipped = l->scalars[FT_S_FINITE] == 0,
        .log = s->log || l->scalars[FT_S_FINITE] == 0,
    };
    ft_track_event(l->track, &e);
    l->last = ft_now();
    l->since = 0;
}

static int diverged(const struct loop *l)
{
    ft_fail(FT_EDIVERGED, "step %lld: loss or gradient is not finite (%d in a row)",
            (long long)l->step, (int)l->scalars[FT_S_MOST_IN_ROW]);
    ft_hint(
        "lower 'learning_rate' (%g), lengthen the warmup, or look at the data of these steps; no "
        "adapter was written",
        l->j->config->learning_rate);
    return FT_EDIVERGED;
}

/* The first and the last tenth of the losses; at most as many as there is room for. */
static void note_loss(struct loop *l)
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
static void watch(struct loop *l)
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
static int look_at_step(struct loop *l, const struct ft_step *s)
{
    struct ft_train_result *r = l->r;
    FT_TRY(read_scalars(l));
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

static bool evaluation_due(const struct loop *l)
{
    const struct ft_run_length *n = &l->j->length;
    if (n->eval_every < 0)
        return false;
    if (l->step == n->steps)
        return true;
    return n->eval_every > 0 ? l->step % n->eval_every == 0 : l->epoch_step == l->epoch_steps;
}

/* One optimizer step: a window of micro-batches and the update. Before the device is waited for,
 * the next window's first batch is made. */
static int train_step(struct loop *l)
{
    struct ft_job *j = l->j;
    FT_TRY(run_work(l, &l->window));
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

static int run_steps(struct loop *l)
{
    struct ft_job *j = l->j;
    begin_epoch(l);
    if (j->length.eval_every >= 0)
        FT_TRY(evaluate(l));
    begin_window(l);
    while (l->step < j->length.steps && !l->r->stopped) {
        int rc = train_step(l);
        if (rc == FT_ERESOURCE)
            ft_hint("this was at step %lld; no adapter was written", (long long)l->step);
        FT_TRY(rc);
    }
    return FT_OK;
}

static void show_loading(void *ctx, uint64_t done, uint64_t total)
{
    ft_track_event(ctx, &(struct ft_event){.kind = FT_EVENT_LOADING,
                                           .fraction = (double)done / (double)total});
}

static int place_and_load(struct loop *l)
{
    struct ft_job *j = l->j;
    FT_TRY(ft_job_check_memory(j));
    return ft_job_place(j, show_loading, l->track);
}

static void finish(struct loop *l)
{
    struct ft_train_result *r = l->r;
    r->steps = l->step;
    r->seconds = ft_now() - l->began;
    r->tokens_per_second = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
    r->peak_bytes = peak_resident();
    say_doubts(r);
    ft_track_event(l->track, &(struct ft_event){.kind = FT_EVENT_END,
                                                .step = r->steps,
                                                .steps = l->j->length.steps,
                                                .tokens_seen = r->tokens,
                                                .seconds = r->seconds,
                                                .tokens_per_second = r->tokens_per_second});
}

int ft_train(struct ft_job *j, const struct ft_train_options *o, struct ft_train_result *r)
{
    struct loop l = {.j = j, .o = o, .r = r};
    struct ft_output out;
    struct ft_hashes *hashes = NULL;
    *r = (struct ft_train_result){.first_loss = NAN,
                                  .last_loss = NAN,
                                  .early_loss = NAN,
                                  .late_loss = NAN,
                                  .first_eval = NAN,
                                  .last_eval = NAN};
    int rc = ft_output_open(&out, j);
    if (rc)
        goto out;
    FT_GO(ft_track_open(&l.track, o->console, NULL));
    FT_GO(place_and_load(&l));
    ft_track_close(l.track);
    l.track = NULL;
    FT_GO(ft_output_begin(&out));
    FT_GO(ft_track_open(&l.track, o->console, out.metrics));
    FT_GO(ft_hashes_start(&hashes, j));
    l.began = l.last = ft_now();
    r->startup_seconds = o->started > 0 ? l.began - o->started : 0;
    FT_GO(run_steps(&l));
    finish(&l);
    FT_GO(ft_output_write(&out, j));
    FT_GO(ft_output_run_json(&out, j, r, hashes));
out:
    ft_track_close(l.track);
    ft_hashes_free(hashes);
    ft_output_close(&out);
    return rc;
}
