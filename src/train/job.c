/* Opens a job: model, data, adapter, the length of the run, the graph and its memory. */
#include "train/internal.h"

#include "core/file.h"
#include "core/mem.h"
#include "io/hub.h"
#include "io/tokenizer_check.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What the program and its libraries keep resident beside the planned memory: an allowance with
 * which the total fits what was measured, see docs/performance.md. */
enum { LIBRARY_BYTES = 6 << 20 };
/* The same for the CUDA runtime and its libraries, on the host; not measured yet. */
enum { DEVICE_LIBRARY_BYTES = 512 << 20 };

/* --- data --- */

/* What the reading of the documents will not say. */
static void report_audit(const struct ft_dataset_config *entry, const struct ft_audit *a)
{
    static const enum ft_problem told[] = {FT_BAD_RECORD, FT_PROMPT_BORDER, FT_UNENDED_TURN,
                                           FT_DOUBLE_BOS, FT_EMPTY_TURN};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        if (a->found[told[i]].count)
            ft_notice((struct ft_where){.file = entry->path}, "%lld of %lld %s; the first: %s",
                      (long long)a->found[told[i]].count, (long long)a->records,
                      ft_problems[told[i]].what, a->found[told[i]].first);
    for (int k = 0; k < FT_SPEAKERS * FT_PARTS; k++) {
        const struct ft_found *f = &a->unrendered[k / FT_PARTS][k % FT_PARTS];
        char name[64];
        if (f->count)
            ft_notice((struct ft_where){.file = entry->path},
                      "%lld of %lld documents: the template leaves out %s; the first: %s",
                      (long long)f->count, (long long)a->documents,
                      ft_unrendered_name(name, k / FT_PARTS, k % FT_PARTS), f->first);
    }
}

/* A tokenized file of another tokenizer has other words for the same ids. */
static int check_tokenizer(const struct ft_job *j, const struct ft_dataset *d, const char *file)
{
    const char *said = ft_dataset_metadata(d, "tokenizer_sha256");
    char own[65];
    if (!said || !*said)
        return FT_OK;
    FT_TRY(ft_tokenizer_sha256(j->model_path, own));
    if (!*own || strcmp(own, said) == 0)
        return FT_OK;
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "was tokenized with another tokenizer (sha256 %.8s) than the model's (%.8s)", said,
               own);
    ft_hint("tokenize the text again for this model: 'ft data CONFIG -o FILE.safetensors'");
    return FT_EDATA;
}

/* An entry's tokens, from its own file or the one that its text became. */
static int read_entry(struct ft_job *j, struct ft_dataset *d, const struct ft_dataset_config *entry,
                      const struct ft_texts *t)
{
    const struct ft_config *c = j->config;
    const struct ft_lengths lengths = {c->min_sample_len, c->sequence_len,
                                       (enum ft_excess)c->excess_length_strategy};
    struct ft_job_data *data = &j->data[j->n_data++];
    struct ft_source s;
    char *prepared = NULL;
    int rc = ft_source_open(&s, t, c, entry);
    if (!rc && (data->text = ft_source_is_text(entry))) {
        rc = ft_source_prepared(&prepared, &s, t, &data->audit);
        ft_status_place(entry->at);
        if (!rc)
            rc = ft_audit_check(&data->audit, c->allow_data_problems);
        ft_status_place((struct ft_where){0});
        if (!rc)
            report_audit(entry, &data->audit);
        if (!rc && d == &j->train)
            rc = ft_served_note(&j->served, &s, &data->audit);
    }
    for (char **file = s.files; file && *file && !rc; file++) {
        rc = ft_dataset_read(d, prepared ? prepared : *file, ft_model_decoder(j->model)->vocab,
                             &lengths);
        if (prepared)
            break; /* it has them all */
        if (!rc)
            rc = check_tokenizer(j, d, *file);
    }
    data->files = s.files;
    s.files = NULL;
    ft_source_close(&s);
    ft_free(prepared);
    return rc;
}

static int read_list(struct ft_job *j, struct ft_dataset *d, const struct ft_dataset_config *list,
                     int n, const struct ft_texts *t)
{
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++)
        rc = read_entry(j, d, &list[i], t);
    return rc;
}

static bool has_text(const struct ft_dataset_config *list, int n)
{
    for (int i = 0; i < n; i++)
        if (ft_source_is_text(&list[i]))
            return true;
    return false;
}

/* All entries; the tokenizer is gone again before the weights come. */
static int read_data(struct ft_job *j, const struct ft_job_hooks *hooks)
{
    const struct ft_config *c = j->config;
    struct ft_texts t = {.folder = NULL};
    const size_t n = (size_t)(c->n_datasets + c->n_test_datasets);
    FT_TRY(ft_alloc(&j->data, n + 1, sizeof *j->data));
    int rc = FT_OK;
    const bool text =
        has_text(c->datasets, c->n_datasets) || has_text(c->test_datasets, c->n_test_datasets);
    if (text)
        rc = ft_texts_open(&t, c, j->model_path, j->pool);
    if (hooks) {
        t.progress = hooks->progress;
        t.progress_ctx = hooks->ctx;
        t.wait = hooks->wait;
    }
    if (!rc)
        rc = read_list(j, &j->train, c->datasets, c->n_datasets, &t);
    if (!rc)
        rc = read_list(j, &j->held, c->test_datasets, c->n_test_datasets, &t);
    if (!rc && text)
        rc = ft_served_settle(&j->served, &t);
    ft_texts_close(&t);
    if (!rc)
        rc = ft_served_check(&j->served, c, j->model_path, ft_model_decoder(j->model)->vocab);
    if (text)
        malloc_trim(0); /* a tokenizer is many small pieces, and the heap would keep them */
    return rc;
}

/* Documents that were left out, said once. */
static void report_left_out(const struct ft_dataset *d, const char *what)
{
    const struct {
        int64_t n;
        const char *why;
    } counts[] = {{d->empty, "are empty and left out"},
                  {d->untrained - d->cut_off, "have nothing to train on and are left out"},
                  {d->cut_off, "have all they train on beyond 'sequence_len' and are left out"},
                  {d->too_short, "are shorter than 'min_sample_len' and left out"},
                  {d->dropped, "are longer than 'sequence_len' and dropped"},
                  {d->truncated, "are longer than 'sequence_len' and cut"}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].n)
            ft_notice((struct ft_where){0}, "%s: %lld of %lld documents %s", what,
                      (long long)counts[i].n, (long long)d->read, counts[i].why);
}

/* A learned table of positions has an end, which no document may pass. */
static int check_positions(const struct ft_job *j)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    int64_t longest = j->train.longest > j->held.longest ? j->train.longest : j->held.longest;
    if (!d->positions || longest <= d->positions - d->first_position)
        return FT_OK;
    ft_fail_at(ft_config_where(j->config, "sequence_len"), FT_EDATA,
               "the longest document has %lld tokens, and the model has learned %lld positions",
               (long long)longest, (long long)(d->positions - d->first_position));
    ft_hint("set 'sequence_len' to %lld or less", (long long)(d->positions - d->first_position));
    return FT_EDATA;
}

static void report_context(const struct ft_job *j)
{
    int64_t longest = j->train.longest > j->held.longest ? j->train.longest : j->held.longest;
    int64_t context = ft_model_decoder(j->model)->max_positions;
    if (longest > context)
        ft_notice((struct ft_where){0},
                  "the longest document has %lld tokens, more than the model's context of %lld",
                  (long long)longest, (long long)context);
}

static int check_enough(const struct ft_job *j)
{
    const struct ft_dataset *d = &j->train;
    const struct ft_where at = ft_config_where(j->config, "datasets");
    FT_TRY(ft_dataset_check(d, at));
    if (!j->batching.packing && d->n_docs < j->batching.micro_batch_size) {
        ft_fail_at(at, FT_EDATA, "%lld documents are fewer than one micro-batch of %lld",
                   (long long)d->n_docs, (long long)j->batching.micro_batch_size);
        ft_hint("lower 'micro_batch_size'");
        return FT_EDATA;
    }
    return FT_OK;
}

/* Rows that make products run at full rate without keeping more activations than that takes. A
 * device wants a whole micro-batch at once: its user chooses it by what fits. */
static int64_t pass_rows(const struct ft_job *j)
{
    enum { HOST_ROWS = 512, DEVICE_ROWS = 2048 };
    const struct ft_batching *b = &j->batching;
    if (!j->backend->dev)
        return HOST_ROWS;
    int64_t micro = b->micro_batch_size * (b->packing ? b->sequence_len : j->train.longest);
    return micro > DEVICE_ROWS ? micro : DEVICE_ROWS;
}

/* How the documents are batched, and what follows from it. */
static int open_batching(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    j->capacity = ft_pass_capacity(&j->train, &j->held, &j->batching,
                                   c->gradient_accumulation_steps, pass_rows(j));
    FT_TRY(ft_epoch_init(&j->epoch, j->train.n_docs));
    /* the documents' table; their tokens stay in the files, but for made ones */
    j->dataset_bytes = (size_t)(j->train.read + j->held.read) * sizeof *j->train.docs;
    j->dataset_bytes += j->train.ids ? (size_t)j->train.n_tokens * 5 : 0;
    j->epoch_bytes = (size_t)j->train.n_docs * (4 + 16 + 8 + 16);
    return FT_OK;
}

static void set_batching(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    j->batching = (struct ft_batching){.micro_batch_size = c->micro_batch_size,
                                       .sequence_len = c->sequence_len,
                                       .packing = c->sample_packing,
                                       .file_order = c->curriculum_sampling,
                                       .seed = (uint64_t)c->seed};
}

static int open_data(struct ft_job *j, const struct ft_job_hooks *hooks)
{
    const struct ft_config *c = j->config;
    FT_TRY(read_data(j, hooks));
    report_left_out(&j->train, "datasets");
    if (c->n_test_datasets) {
        report_left_out(&j->held, "test_datasets");
        if (j->held.n_docs == 0)
            return ft_fail_at(ft_config_where(c, "test_datasets"), FT_EDATA,
                              "nothing to evaluate on: no document has a trained token");
    }
    set_batching(j);
    FT_TRY(check_enough(j));
    if (c->val_set_size > 0) {
        FT_TRY(ft_dataset_split(&j->train, &j->held, c->val_set_size, (uint64_t)c->seed));
        FT_TRY(check_enough(j));
    }
    FT_TRY(check_positions(j));
    report_context(j);
    return open_batching(j);
}

/* --- the length of the run --- */

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

static void find_length(struct ft_job *j)
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

/* --- the adapter --- */

static void adapter_options(const struct ft_config *c, struct ft_adapter_options *o)
{
    _Static_assert(sizeof(struct ft_pattern) == sizeof(struct ft_pattern_config), "same layout");
    *o = (struct ft_adapter_options){
        .method = c->adapter,
        .r = c->lora_r,
        .alpha = c->lora_alpha,
        .dropout = c->lora_dropout,
        .rslora = c->peft_use_rslora,
        .targets = c->lora_target_modules,
        .target_regex = c->lora_target_regex,
        .target_linear = c->lora_target_linear,
        .rank_pattern = (const struct ft_pattern *)c->lora_rank_pattern,
        .alpha_pattern = (const struct ft_pattern *)c->lora_alpha_pattern,
        .layers = c->peft_layers_to_transform,
        .seed = (uint64_t)c->seed,
    };
}

/* The numbers that the config gives against those of the adapter that is continued. */
static int check_numbers(const struct ft_job *j, const struct ft_adapter_options *is)
{
    const struct ft_config *c = j->config;
    const struct {
        const char *key;
        double asked, is;
    } same[] = {{"lora_r", (double)c->lora_r, (double)is->r},
                {"lora_alpha", c->lora_alpha, is->alpha},
                {"lora_dropout", c->lora_dropout, is->dropout},
                {"peft_use_rslora", c->peft_use_rslora, is->rslora}};
    int rc = FT_OK;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (ft_config_is_set(c, same[i].key) && same[i].asked != same[i].is) {
            rc = ft_fail_at(ft_config_where(c, same[i].key), FT_ECONFIG,
                            "'%s' is %g, the adapter in 'lora_model_dir' has %g", same[i].key,
                            same[i].asked, same[i].is);
            ft_hint("remove the key: the adapter's own value is used");
        }
    return rc;
}

/* The modules and patterns, by choosing them afresh as the config asks. */
static int check_modules(const struct ft_job *j, const struct ft_site *sites, int n,
                         const struct ft_adapter_options *is)
{
    const struct ft_config *c = j->config;
    bool targets = ft_config_is_set(c, "lora_target_modules") ||
                   (ft_config_is_set(c, "lora_target_linear") && c->lora_target_linear);
    bool patterns =
        ft_config_is_set(c, "lora_rank_pattern") || ft_config_is_set(c, "lora_alpha_pattern");
    struct ft_adapter_options o;
    struct ft_adapter *wanted;
    if (!targets)
        return FT_OK;
    adapter_options(c, &o);
    o.r = is->r;
    o.alpha = is->alpha;
    FT_TRY(ft_adapter_new(&wanted, sites, n, &o));
    const char *name = ft_adapter_difference(j->adapter, wanted, patterns);
    int rc = FT_OK;
    if (name) {
        rc = ft_fail_at(ft_config_where(c, "lora_model_dir"), FT_ECONFIG,
                        "the config's lora_ keys contradict the adapter in 'lora_model_dir', for "
                        "example at '%s'",
                        name);
        ft_hint("remove lora_target_modules, lora_target_linear and the patterns: the adapter says "
                "which modules it has");
    }
    ft_adapter_free(wanted);
    return rc;
}

/* The adapter's base by its name, however it was reached. */
static void compare_base(const struct ft_job *j)
{
    const char *said = ft_adapter_base(j->adapter), *own = j->config->base_model;
    const char *a = said ? strrchr(said, '/') : NULL, *b = strrchr(own, '/');
    a = a && a[1] ? a + 1 : said;
    b = b && b[1] ? b + 1 : own;
    if (said && *said && strcmp(a, b) != 0)
        ft_notice(ft_config_where(j->config, "lora_model_dir"),
                  "the adapter was trained on '%s', 'base_model' is '%s'", said, own);
}

static int continue_adapter(struct ft_job *j, const struct ft_site *sites, int n)
{
    const struct ft_config *c = j->config;
    struct ft_adapter_options is;
    char *path = ft_config_path(c, c->lora_model_dir);
    int rc = path ? ft_adapter_open(&j->adapter, sites, n, path, (uint64_t)c->seed) : FT_ERESOURCE;
    ft_free(path);
    FT_TRY(rc);
    ft_adapter_config(j->adapter, &is);
    compare_base(j);
    FT_TRY(check_numbers(j, &is));
    return check_modules(j, sites, n, &is);
}

static int open_adapter(struct ft_job *j)
{
    const struct ft_module *modules;
    struct ft_adapter_options o;
    struct ft_site *sites;
    int n = ft_model_modules(j->model, &modules);
    FT_TRY(ft_alloc(&sites, (size_t)n, sizeof *sites));
    for (int i = 0; i < n; i++)
        sites[i] = (struct ft_site){modules[i].name, modules[i].in, modules[i].out,
                                    modules[i].layer, modules[i].group,
                                    ft_model_decoder(j->model)->conv1d};
    adapter_options(j->config, &o);
    int rc = j->config->lora_model_dir ? continue_adapter(j, sites, n)
                                       : ft_adapter_new(&j->adapter, sites, n, &o);
    ft_free(sites);
    return rc;
}

/* --- the graph --- */

struct linear_ctx {
    const struct ft_job *job;
    struct ft_tensor *keys;
};

static void adapted_linear(void *ctx, struct ft_graph *g, int first, int n, struct ft_tensor *x,
                           struct ft_tensor *add, struct ft_tensor **out)
{
    const struct linear_ctx *c = ctx;
    const struct ft_module *modules;
    const struct ft_stack *stack = ft_model_stack(c->job->model, first);
    struct ft_linears l = {.first = first, .n = n, .x = x, .add = add, .keys = c->keys};
    ft_model_modules(c->job->model, &modules);
    for (int i = 0; i < n; i++) {
        l.of[i].w = modules[first + i].w;
        l.of[i].bias = modules[first + i].bias;
    }
    if (stack) {
        l.matrix = stack->w;
        l.biases = stack->bias;
    }
    ft_adapter_linears(c->job->adapter, g, &l);
    for (int i = 0; i < n; i++)
        out[i] = l.of[i].y;
}

static int64_t stack_rank(void *ctx, int first, int n)
{
    return ft_adapter_stack_rank(ctx, first, n);
}

static void declare_batch(struct ft_job *j)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const int64_t t = j->capacity;
    const int64_t longest = j->train.longest > j->held.longest ? j->train.longest : j->held.longest;
    struct ft_adapter_options o;
    struct ft_batch *b = &j->batch;
    struct ft_graph *g = j->graph;
    ft_adapter_config(j->adapter, &o);
    *b = (struct ft_batch){0};
    j->rope_by_length = false;
    for (int i = 0; i < d->n_ropes; i++)
        j->rope_by_length |= ft_rope_by_length(&d->rope[i]);
    b->ids = ft_graph_input(g, "batch.ids", FT_I32, t, 1, FT_ROWS);
    b->targets = ft_graph_input(g, "batch.targets", FT_I32, t, 1, FT_ROWS);
    b->spans = ft_graph_input(g, "batch.spans", FT_I32, t, 2, FT_ROWS);
    b->positions = ft_graph_input(g, "batch.positions", FT_I32, t, 1, FT_ROWS);
    b->picked = ft_graph_input(g, "batch.picked", FT_I32, t, 1, FT_ROWS);
    if (o.dropout > 0)
        b->keys = ft_graph_input(g, "batch.keys", FT_I32, t, 3, FT_ROWS);
    enum ft_memory use = j->rope_by_length ? FT_M_BATCH : FT_M_WEIGHTS;
    for (int i = 0; i < d->n_ropes; i++) {
        const int64_t rows = j->rope_by_length ? t : longest, half = d->rope[i].dim / 2;
        b->cos[i] = ft_graph_value(g, use, "rope.cos", FT_F32, rows, half);
        b->sin[i] = ft_graph_value(g, use, "rope.sin", FT_F32, rows, half);
    }
    b->scalars = ft_graph_value(g, FT_M_OPTIMIZER, "scalars", FT_F64, 1, FT_SCALARS);
}

int ft_job_fill(struct ft_job *j, const struct ft_dataset *d, const int32_t *docs, int64_t n,
                uint32_t epoch, struct ft_run *run)
{
    const struct ft_batch *b = &j->batch;
    const struct ft_graph *g = j->graph;
    const struct ft_pass_arrays a = {.ids = ft_graph_host(g, b->ids),
                                     .targets = ft_graph_host(g, b->targets),
                                     .spans = ft_graph_host(g, b->spans),
                                     .positions = ft_graph_host(g, b->positions),
                                     .picked = ft_graph_host(g, b->picked),
                                     .keys = b->keys ? ft_graph_host(g, b->keys) : NULL};
    const int64_t take = ft_pass_take(d, docs, n, j->capacity);
    struct ft_pass_counts c;
    FT_TRY(ft_pass_fill(&a, d, docs, take, epoch, &c));
    *run = (struct ft_run){
        .counts = {[FT_ROWS] = c.rows, [FT_DOCUMENTS] = take, [FT_TRAINED] = c.trained}};
    if (!j->rope_by_length)
        return FT_OK;
    const struct ft_decoder *model = ft_model_decoder(j->model);
    for (int i = 0; i < model->n_ropes; i++) {
        float *cos_at = ft_graph_host(g, b->cos[i]), *sin_at = ft_graph_host(g, b->sin[i]);
        const int64_t half = b->cos[i]->cols;
        for (int64_t row = 0; row < c.rows; row = a.spans[2 * row + 1])
            ft_rope_fill(&model->rope[i], a.spans[2 * row + 1] - row, cos_at + row * half,
                         sin_at + row * half);
    }
    for (int64_t row = 0; row < c.rows; row++)
        a.positions[row] = (int32_t)row;
    return FT_OK;
}

/* One table of angles. */
static int write_table(struct ft_job *j, int i)
{
    struct ft_tensor *c = j->batch.cos[i], *s = j->batch.sin[i];
    const size_t n = (size_t)(c->rows * c->cols);
    float *tables;
    FT_TRY(ft_alloc(&tables, 2 * n, sizeof *tables));
    ft_rope_fill(&ft_model_decoder(j->model)->rope[i], c->rows, tables, tables + n);
    int rc = ft_graph_write(j->graph, c, tables);
    if (!rc)
        rc = ft_graph_write(j->graph, s, tables + n);
    ft_free(tables);
    return rc;
}

/* The tables of angles, where a position's angles are the same in every document. */
static int write_rope(struct ft_job *j)
{
    for (int i = 0; i < ft_model_decoder(j->model)->n_ropes && !j->rope_by_length; i++)
        FT_TRY(write_table(j, i));
    return FT_OK;
}

static int write_adapter(struct ft_job *j)
{
    struct ft_tensor *values = ft_adapter_values(j->adapter);
    float *host = values->data;
    if (j->backend->dev)
        FT_TRY(ft_alloc(&host, (size_t)values->cols, sizeof *host));
    int rc = ft_adapter_fill(j->adapter, host);
    if (!rc)
        rc = ft_graph_write(j->graph, values, host);
    if (j->backend->dev)
        ft_free(host);
    if (!rc)
        rc = ft_adapter_place(j->adapter, j->graph);
    if (!rc)
        rc = ft_graph_run(j->graph, FT_START, j->pool, &(struct ft_run){0}, NULL);
    return rc;
}

int ft_job_place(struct ft_job *j, ft_model_progress_fn *progress, void *ctx)
{
    FT_TRY(ft_graph_place(j->graph));
    FT_TRY(ft_model_load(j->model, j->graph, j->pool, j->config->allow_nonfinite_weights, progress,
                         ctx));
    FT_TRY(write_rope(j));
    return write_adapter(j);
}

static void build_update(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    struct ft_tensor *p = ft_adapter_values(j->adapter), *g = ft_adapter_gradients(j->adapter);
    struct ft_tensor *s = j->batch.scalars;
    ft_graph_begin(j->graph, FT_UPDATE);
    ft_graph_emit(j->graph, FT_OP_grad_norm,
                  &(union ft_op_args){.grad_norm = {g, s, (float)c->max_grad_norm}});
    if (c->optimizer == FT_SGD) {
        struct ft_tensor *m = NULL;
        if (c->momentum > 0)
            m = ft_graph_value(j->graph, FT_M_OPTIMIZER, "momentum", FT_F32, 1, p->cols);
        ft_graph_emit(
            j->graph, FT_OP_sgd,
            &(union ft_op_args){.sgd = {s, g, p, m, (float)c->momentum, (float)c->weight_decay}});
        return;
    }
    struct ft_tensor *m =
        ft_graph_value(j->graph, FT_M_OPTIMIZER, "adamw mean", FT_F32, 1, p->cols);
    struct ft_tensor *v =
        ft_graph_value(j->graph, FT_M_OPTIMIZER, "adamw mean square", FT_F32, 1, p->cols);
    ft_graph_emit(
        j->graph, FT_OP_adamw,
        &(union ft_op_args){.adamw = {s, g, p, m, v, (float)c->adam_beta1, (float)c->adam_beta2,
                                      (float)c->adam_epsilon, (float)c->weight_decay}});
}

static int build_graph(struct ft_job *j, enum ft_recompute recompute)
{
    struct linear_ctx ctx = {.job = j};
    ft_graph_free(j->graph);
    FT_TRY(ft_graph_new(&j->graph, j->backend));
    j->recompute = recompute;
    FT_TRY(ft_model_declare(j->model, j->graph, stack_rank, j->adapter));
    FT_TRY(ft_adapter_declare(j->adapter, j->graph));
    declare_batch(j);
    struct ft_model_inputs in = {.ids = j->batch.ids,
                                 .angles = j->batch.positions,
                                 .spans = j->batch.spans,
                                 .linear = adapted_linear,
                                 .linear_ctx = &ctx};
    memcpy(in.cos, j->batch.cos, sizeof in.cos);
    memcpy(in.sin, j->batch.sin, sizeof in.sin);
    ctx.keys = j->batch.keys;
    ft_graph_begin(j->graph, FT_PASS);
    ft_objective_build(j, ft_model_build(j->model, j->graph, &in));
    ft_graph_fuse(j->graph, FT_PASS);
    ft_graph_backward(j->graph, recompute);
    ft_graph_fuse(j->graph, FT_PASS);
    if (j->held.n_docs) {
        ctx.keys = NULL; /* no dropout */
        ft_graph_begin(j->graph, FT_EVAL);
        j->hidden = ft_model_build(j->model, j->graph, &in);
        ft_objective_build(j, j->hidden);
        ft_graph_fuse(j->graph, FT_EVAL);
    }
    build_update(j);
    FT_TRY(ft_adapter_emit_refresh(j->adapter, j->graph));
    ft_graph_begin(j->graph, FT_START);
    FT_TRY(ft_adapter_emit_refresh(j->adapter, j->graph));
    return ft_graph_plan(j->graph, &j->plan);
}

size_t ft_job_device_memory(const struct ft_job *j)
{
    return j->backend->dev ? j->plan.total : 0;
}

/* Two buffers for batches, those that weights are loaded through, and the adapter while it is
 * filled or written. */
size_t ft_job_staging(const struct ft_job *j)
{
    if (!j->backend->dev)
        return ft_model_turning(j->model);
    return 2 * j->plan.used[FT_M_BATCH] + ft_model_staging(j->model) + ft_model_turning(j->model) +
           4 * (size_t)ft_adapter_parameters(j->adapter);
}

size_t ft_job_memory(const struct ft_job *j)
{
    const size_t here = ft_job_staging(j) + (j->backend->dev ? 0 : j->plan.total);
    return here + j->dataset_bytes + j->epoch_bytes + j->library_bytes +
           (size_t)ft_pool_size(j->pool) * FT_THREAD_SCRATCH;
}

size_t ft_device_reserve(size_t total)
{
    size_t share = total / 128, most = (size_t)512 << 20;
    return share < most ? share : most;
}

/* Whether the graph as planned fits what is free now. */
static int fits(const struct ft_job *j, bool *yes)
{
    size_t there = 0, all;
    *yes = ft_job_memory(j) <= ft_memory_available();
    if (!j->backend->dev)
        return FT_OK;
    if (j->backend->dev->memory(j->backend, &there, &all))
        return ft_graph_device_failed(j->graph);
    *yes = *yes && ft_job_device_memory(j) + ft_device_reserve(all) <= there;
    return FT_OK;
}

static int too_large(const char *where, size_t need, size_t have, const char *whose)
{
    ft_fail(FT_ERESOURCE, "training needs %.3f GB of memory%s, %.3f GB are %s", (double)need / 1e9,
            where, (double)have / 1e9, whose);
    ft_hint("'ft plan' shows where it goes; lower 'micro_batch_size' or 'sequence_len', or set "
            "'gradient_checkpointing: true'");
    return FT_ERESOURCE;
}

int ft_job_check_memory(const struct ft_job *j)
{
    size_t need = ft_job_memory(j), have = ft_memory_available() + ft_memory_resident(), all;
    if (need > have)
        return too_large("", need, have, "available");
    if (!j->backend->dev)
        return FT_OK;
    need = ft_job_device_memory(j);
    if (j->backend->dev->memory(j->backend, &have, &all))
        return ft_graph_device_failed(j->graph);
    if (need + ft_device_reserve(all) > have)
        return too_large(" on the GPU", need + ft_device_reserve(all), have, "free there");
    return FT_OK;
}

/* What backward keeps, from most to least; the bits are the same. On the CPU norms and SwiGLU are
 * always computed again: there it costs nothing that can be measured. */
static int open_graph(struct ft_job *j)
{
    const int asked = (int)j->config->gradient_checkpointing;
    const int most = j->backend->dev ? FT_KEEP_ALL : FT_RECOMPUTE_CHEAP;
    bool done = false;
    j->library_bytes = LIBRARY_BYTES + (j->backend->dev ? DEVICE_LIBRARY_BYTES : 0);
    for (int r = asked == FT_TRUE ? FT_RECOMPUTE_LAYER : most; !done; r++) {
        FT_TRY(build_graph(j, (enum ft_recompute)r));
        FT_TRY(fits(j, &done));
        done = done || asked != FT_AUTO || r == FT_RECOMPUTE_LAYER;
    }
    return FT_OK;
}

/* The device that the config asks for. "auto" takes the GPU if one can be opened. */
static int open_backend(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    if (c->device == FT_DEVICE_CPU)
        return ft_cpu_backend(&j->backend, c->cpu_isa);
    if (c->device == FT_DEVICE_AUTO && c->bf16 == FT_FALSE) {
        ft_notice((struct ft_where){0}, "'device: auto' took the CPU: 'bf16' is false, and a GPU "
                                        "computes in bf16");
        return ft_cpu_backend(&j->backend, c->cpu_isa);
    }
    if (ft_cuda_backend(&j->backend, -1) == FT_OK) {
        j->backend->dev->products_load(j->backend, ft_cuda_products_file(), &j->tuned_products);
        if (c->device == FT_DEVICE_AUTO)
            ft_notice((struct ft_where){0}, "'device: auto' took %s", j->backend->dev->name);
        return FT_OK;
    }
    if (c->device == FT_DEVICE_CUDA)
        return FT_ERESOURCE;
    const char *why = ft_status_report(); /* its first line, without "error: " */
    const size_t skip = sizeof "error: " - 1;
    ft_notice((struct ft_where){0}, "'device: auto' took the CPU: %.*s",
              (int)(strcspn(why, "\n") - skip), why + skip);
    ft_status_clear_errors();
    if (c->bf16 == FT_TRUE)
        ft_notice((struct ft_where){0},
                  "'bf16: true' is not there yet on the CPU: products are computed in fp32");
    return ft_cpu_backend(&j->backend, c->cpu_isa);
}

/* --- the whole --- */

static int open_pool(struct ft_job *j)
{
    const int64_t threads = j->config->threads;
    return ft_pool_new(&j->pool, threads > 0 ? (int)threads : ft_cpu_allowance());
}

/* What is left once model and data are there. */
static int open_rest(struct ft_job *j)
{
    find_length(j);
    return open_graph(j);
}

int ft_job_open(struct ft_job *j, const struct ft_config *c, const struct ft_job_hooks *hooks)
{
    *j = (struct ft_job){.config = c};
    FT_TRY(open_backend(j));
    bool cached;
    FT_TRY(ft_hub_find(&j->model_path, &cached, "model", c->base_model, c->revision_of_model,
                       c->folder));
    j->base_name = cached ? c->base_model : j->model_path;
    FT_TRY(ft_model_open(&j->model, j->model_path));
    FT_TRY(ft_tokenizer_check(j->model_path, ft_model_decoder(j->model)->vocab));
    FT_TRY(open_adapter(j));
    FT_TRY(open_pool(j));
    FT_TRY(open_data(j, hooks));
    return open_rest(j);
}

int ft_job_open_shape(struct ft_job *j, const struct ft_config *c, const struct ft_shape *shape)
{
    *j = (struct ft_job){.config = c, .base_name = shape->name};
    FT_TRY(open_backend(j));
    FT_TRY(ft_model_make(&j->model, shape));
    FT_TRY(open_adapter(j));
    int64_t docs = 4 * c->micro_batch_size * c->gradient_accumulation_steps;
    FT_TRY(
        ft_dataset_make(&j->train, docs, c->sequence_len, shape->vocab, (uint64_t)c->seed));
    set_batching(j);
    FT_TRY(open_batching(j));
    FT_TRY(open_pool(j));
    return open_rest(j);
}

void ft_job_close(struct ft_job *j)
{
    ft_graph_free(j->graph);
    ft_pool_free(j->pool);
    ft_epoch_fini(&j->epoch);
    ft_dataset_fini(&j->held);
    ft_dataset_fini(&j->train);
    for (int i = 0; i < j->n_data; i++) {
        for (char **file = j->data[i].files; file && *file; file++)
            ft_free(*file);
        ft_free(j->data[i].files);
    }
    ft_free(j->data);
    ft_served_free(&j->served);
    ft_adapter_free(j->adapter);
    ft_model_close(j->model);
    ft_backend_close(j->backend);
    ft_free(j->model_path);
    *j = (struct ft_job){0};
}
