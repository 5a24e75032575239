/* The training loop: windows of micro-batches, passes, updates, evaluation. */
#include "train/internal.h"

#include "track/track.h"

#include <math.h>
#include <string.h>
#include <sys/resource.h>

struct loop {
    struct ft_job *j;
    const struct ft_train_options *o;
    struct ft_train_result *r;
    struct ft_track *track;
    double *scalars;
    double began, last;              /* clock at the first step, at the last event */
    int64_t step;                    /* finished steps */
    uint32_t epoch;                  /* the one being trained */
    int64_t batch;                   /* next micro-batch of it */
    int64_t epoch_steps, epoch_step; /* steps of this epoch, finished ones of it */
    int skipped_in_a_row;
};

/* Fills the batch values with documents and runs the program over them, pass by pass. */
static int64_t run_documents(struct loop *l, enum ft_program p, const struct ft_dataset *d,
                             const int32_t *docs, int64_t n)
{
    struct ft_job *j = l->j;
    const struct ft_pass_arrays arrays = {j->batch.ids->data, j->batch.targets->data,
                                          j->batch.offsets->data, j->batch.keys->data};
    int64_t tokens = 0;
    for (int64_t at = 0; at < n;) {
        int64_t take = ft_pass_take(d, docs + at, n - at, j->capacity);
        int64_t rows = ft_pass_fill(&arrays, d, docs + at, take, l->epoch);
        ft_rope_fill(&ft_model_config(j->model)->rope, arrays.offsets, take, j->batch.cos->data,
                     j->batch.sin->data);
        ft_graph_run(j->graph, p, j->pool, rows, take, l->o->profile ? &l->r->profile : NULL);
        tokens += rows;
        at += take;
    }
    return tokens;
}

static double evaluate(struct loop *l)
{
    struct ft_job *j = l->j;
    l->scalars[FT_S_EVAL_SUM] = l->scalars[FT_S_EVAL_COUNT] = 0;
    for (int64_t i = 0; i < j->held.n_docs;) {
        int32_t docs[64];
        int64_t n = 0;
        while (n < 64 && i + n < j->held.n_docs) {
            docs[n] = (int32_t)(i + n);
            n++;
        }
        n = ft_pass_take(&j->held, docs, n, j->capacity);
        run_documents(l, FT_EVAL, &j->held, docs, n);
        i += n;
    }
    double loss = l->scalars[FT_S_EVAL_SUM] / l->scalars[FT_S_EVAL_COUNT];
    if (isnan(l->r->first_eval))
        l->r->first_eval = loss;
    l->r->last_eval = loss;
    ft_track_event(l->track, &(struct ft_event){.kind = FT_EVENT_EVAL,
                                                .step = l->step,
                                                .steps = j->length.steps,
                                                .eval_loss = loss});
    l->last = ft_now();
    return loss;
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

static size_t peak_resident(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (size_t)u.ru_maxrss * 1024;
}

static void report_step(struct loop *l, int64_t tokens, double loss, bool skipped)
{
    const struct ft_job *j = l->j;
    double now = ft_now(), spent = now - l->last;
    struct ft_event e = {
        .kind = FT_EVENT_STEP,
        .step = l->step,
        .steps = j->length.steps,
        .epoch = (double)l->epoch + (double)l->epoch_step / (double)l->epoch_steps,
        .loss = loss,
        .grad_norm = l->scalars[FT_S_NORM],
        .learning_rate = l->scalars[FT_S_LR],
        .trained_tokens = (int64_t)l->scalars[FT_S_TRAINED],
        .tokens_seen = l->r->tokens,
        .tokens_per_second = spent > 0 ? (double)tokens / spent : 0,
        .seconds = now - l->began,
        .eta_seconds = (now - l->began) / (double)l->step * (double)(j->length.steps - l->step),
        .resident_bytes = peak_resident(),
        .skipped = skipped,
        .log = l->step % j->config->logging_steps == 0 || l->step == 1 ||
               l->step == j->length.steps || skipped,
    };
    ft_track_event(l->track, &e);
    l->last = ft_now();
}

/* One optimizer step: a window of micro-batches and the update. */
static int train_step(struct loop *l)
{
    struct ft_job *j = l->j;
    int64_t tokens = 0, end = l->batch + j->config->gradient_accumulation_steps;
    if (end > j->epoch.n_batches)
        end = j->epoch.n_batches;
    l->scalars[FT_S_LOSS_SUM] = l->scalars[FT_S_TRAINED] = 0;
    for (; l->batch < end; l->batch++) {
        const struct ft_micro_batch *m = &j->epoch.batches[l->batch];
        tokens += run_documents(l, FT_PASS, &j->train, j->epoch.order + m->first, m->count);
    }
    l->step++;
    l->epoch_step++;
    l->scalars[FT_S_LR] = ft_learning_rate(j->config, &j->length, l->step);
    l->scalars[FT_S_STEP] = (double)(l->step - l->r->skipped);
    ft_graph_run(j->graph, FT_UPDATE, j->pool, 0, 0, l->o->profile ? &l->r->profile : NULL);
    bool skipped = l->scalars[FT_S_FINITE] == 0;
    double loss = l->scalars[FT_S_LOSS_SUM] / l->scalars[FT_S_TRAINED];
    l->r->tokens += tokens;
    l->r->trained_tokens += (int64_t)l->scalars[FT_S_TRAINED];
    l->r->skipped += skipped;
    l->skipped_in_a_row = skipped ? l->skipped_in_a_row + 1 : 0;
    if (isnan(l->r->first_loss))
        l->r->first_loss = loss;
    l->r->last_loss = loss;
    report_step(l, tokens, loss, skipped);
    if (l->skipped_in_a_row < FT_MAX_SKIPPED && !(skipped && l->step == j->length.steps))
        return FT_OK;
    ft_fail(FT_EDIVERGED, "step %lld: loss or gradient is not finite (%d in a row)",
            (long long)l->step, l->skipped_in_a_row);
    ft_hint(
        "lower 'learning_rate' (%g), lengthen the warmup, or look at the data of these steps; no "
        "adapter was written",
        j->config->learning_rate);
    return FT_EDIVERGED;
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

static int run_steps(struct loop *l)
{
    struct ft_job *j = l->j;
    begin_epoch(l);
    if (j->length.eval_every >= 0)
        evaluate(l);
    while (l->step < j->length.steps) {
        FT_TRY(train_step(l));
        if (evaluation_due(l))
            evaluate(l);
        if (l->epoch_step == l->epoch_steps && l->step < j->length.steps) {
            l->epoch++;
            begin_epoch(l);
        }
    }
    return FT_OK;
}

static void show_loading(void *ctx, uint64_t done, uint64_t total)
{
    ft_track_event(ctx, &(struct ft_event){.kind = FT_EVENT_LOADING,
                                           .fraction = (double)done / (double)total});
}

/* Refuses before the first weight is read what could not end well. */
static int check_memory(const struct ft_job *j)
{
    size_t need = ft_job_memory(j), have = ft_memory_available() + ft_memory_resident();
    if (need <= have)
        return FT_OK;
    ft_fail(FT_ERESOURCE, "training needs %.2f GB of memory, %.2f GB are available",
            (double)need / 1e9, (double)have / 1e9);
    ft_hint("'ft plan' shows where it goes; lower 'sequence_len', or set "
            "'gradient_checkpointing: true'");
    return FT_ERESOURCE;
}

static int place_and_load(struct loop *l)
{
    struct ft_job *j = l->j;
    FT_TRY(check_memory(j));
    FT_TRY(ft_graph_place(j->graph, j->backend));
    FT_TRY(ft_model_load(j->model, j->pool, j->config->allow_nonfinite_weights, show_loading,
                         l->track));
    l->scalars = j->batch.scalars->data;
    return ft_adapter_fill(j->adapter);
}

static void finish(struct loop *l)
{
    struct ft_train_result *r = l->r;
    r->steps = l->step;
    r->seconds = ft_now() - l->began;
    r->tokens_per_second = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
    r->peak_bytes = peak_resident();
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
    *r = (struct ft_train_result){
        .first_loss = NAN, .last_loss = NAN, .first_eval = NAN, .last_eval = NAN};
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
