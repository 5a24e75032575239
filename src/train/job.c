/* Opens a job: model, data, adapter, the length of the run, the graph and its memory. */
#include "train/job.h"

#include "core/file.h"
#include "core/mem.h"
#include "io/hub.h"
#include "io/tokenizer_check.h"

#include <math.h>
#include <string.h>

/* What the program and its libraries keep resident beside the planned memory: an allowance with
 * which the total fits what was measured, see docs/performance.md. */
enum { LIBRARY_BYTES = 6 << 20 };

/* --- data --- */

static int read_list(struct ft_job *j, struct ft_dataset *d, const struct ft_dataset_config *list,
                     int n)
{
    const struct ft_config *c = j->config;
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++) {
        char *path = ft_config_path(c, list[i].path);
        rc = path ? FT_OK : FT_ERESOURCE;
        if (!rc && !ft_file_exists(path))
            rc = ft_fail_at(list[i].at, FT_EDATA, "dataset '%s' does not exist", list[i].path);
        if (!rc)
            rc = ft_dataset_read(d, path, ft_model_config(j->model)->vocab, c->sequence_len,
                                 (enum ft_excess)c->excess_length_strategy);
        ft_free(path);
    }
    return rc;
}

/* Documents that were left out, said once. */
static void report_left_out(const struct ft_dataset *d, const char *what)
{
    const struct {
        int64_t n;
        const char *why;
    } counts[] = {{d->empty, "are empty and left out"},
                  {d->untrained, "have nothing to train on and are left out"},
                  {d->dropped, "are longer than 'sequence_len' and dropped"},
                  {d->truncated, "are longer than 'sequence_len' and cut"}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].n)
            ft_notice((struct ft_where){0}, "%s: %lld of %lld documents %s", what,
                      (long long)counts[i].n, (long long)d->read, counts[i].why);
}

static void report_context(const struct ft_job *j)
{
    int64_t longest = j->train.longest > j->held.longest ? j->train.longest : j->held.longest;
    int64_t context = ft_model_config(j->model)->max_positions;
    if (longest > context)
        ft_notice((struct ft_where){0},
                  "the longest document has %lld tokens, more than the model's context of %lld",
                  (long long)longest, (long long)context);
}

static int check_enough(const struct ft_job *j)
{
    const struct ft_dataset *d = &j->train;
    const struct ft_where at = ft_config_where(j->config, "datasets");
    if (d->n_docs == 0) {
        ft_fail_at(at, FT_EDATA,
                   "nothing to train on: of %lld documents %lld are empty, %lld have no "
                   "trained token, %lld are too long",
                   (long long)d->read, (long long)d->empty, (long long)d->untrained,
                   (long long)d->dropped);
        if (d->dropped)
            ft_hint("raise 'sequence_len', or set 'excess_length_strategy: truncate'");
        else if (d->untrained)
            ft_hint(
                "loss_mask is 1 for the tokens to learn; a document's first token never counts");
        return FT_EDATA;
    }
    if (!j->batching.packing && d->n_docs < j->batching.micro_batch_size) {
        ft_fail_at(at, FT_EDATA, "%lld documents are fewer than one micro-batch of %lld",
                   (long long)d->n_docs, (long long)j->batching.micro_batch_size);
        ft_hint("lower 'micro_batch_size'");
        return FT_EDATA;
    }
    return FT_OK;
}

static int open_data(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    FT_TRY(read_list(j, &j->train, c->datasets, c->n_datasets));
    report_left_out(&j->train, "datasets");
    if (c->n_test_datasets) {
        FT_TRY(read_list(j, &j->held, c->test_datasets, c->n_test_datasets));
        report_left_out(&j->held, "test_datasets");
        if (j->held.n_docs == 0)
            return ft_fail_at(ft_config_where(c, "test_datasets"), FT_EDATA,
                              "nothing to evaluate on: no document has a trained token");
    }
    j->batching = (struct ft_batching){.micro_batch_size = c->micro_batch_size,
                                       .sequence_len = c->sequence_len,
                                       .packing = c->sample_packing,
                                       .file_order = c->curriculum_sampling,
                                       .seed = (uint64_t)c->seed};
    FT_TRY(check_enough(j));
    if (c->val_set_size > 0) {
        FT_TRY(ft_dataset_split(&j->train, &j->held, c->val_set_size, (uint64_t)c->seed));
        j->held_shares_tokens = true;
        FT_TRY(check_enough(j));
    }
    report_context(j);
    j->capacity = ft_pass_capacity(&j->train, &j->held, &j->batching);
    FT_TRY(ft_epoch_init(&j->epoch, j->train.n_docs));
    j->dataset_bytes = (size_t)j->train.n_tokens * 5 + (size_t)j->train.read * 16;
    if (!j->held_shares_tokens)
        j->dataset_bytes += (size_t)j->held.n_tokens * 5 + (size_t)j->held.read * 16;
    j->epoch_bytes = (size_t)j->train.n_docs * (4 + 16 + 8 + 16);
    return FT_OK;
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
    if (c->warmup_steps >= 0)
        l->warmup_steps = c->warmup_steps;
    else if (!isnan(c->warmup_ratio))
        l->warmup_steps = (int64_t)(c->warmup_ratio * (double)l->steps);
    else
        l->warmup_steps = (int64_t)fmin(0.03 * (double)l->steps, 100);
    if (j->held.n_docs == 0)
        l->eval_every = -1;
    else if (!isnan(c->eval_steps))
        l->eval_every = c->eval_steps < 1 ? (int64_t)ceil(c->eval_steps * (double)l->steps)
                                          : (int64_t)c->eval_steps;
    else if (c->evals_per_epoch > 0)
        l->eval_every = steps_of(l->first_epoch_steps, c->evals_per_epoch);
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
                {"lora_alpha", (double)c->lora_alpha, (double)is->alpha},
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

static int continue_adapter(struct ft_job *j, const struct ft_site *sites, int n)
{
    const struct ft_config *c = j->config;
    struct ft_adapter_options is;
    char *path = ft_config_path(c, c->lora_model_dir);
    int rc = path ? ft_adapter_open(&j->adapter, sites, n, path, (uint64_t)c->seed) : FT_ERESOURCE;
    ft_free(path);
    FT_TRY(rc);
    ft_adapter_config(j->adapter, &is);
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
        sites[i] =
            (struct ft_site){modules[i].name, modules[i].in, modules[i].out, modules[i].layer};
    adapter_options(j->config, &o);
    int rc = j->config->lora_model_dir ? continue_adapter(j, sites, n)
                                       : ft_adapter_new(&j->adapter, sites, n, &o);
    ft_free(sites);
    return rc;
}

/* --- the graph --- */

struct linear_ctx {
    struct ft_adapter *adapter;
    struct ft_tensor *keys;
};

static struct ft_tensor *adapted_linear(void *ctx, struct ft_graph *g, int module,
                                        struct ft_tensor *x, struct ft_tensor *w,
                                        struct ft_tensor *bias, struct ft_tensor *add)
{
    struct linear_ctx *l = ctx;
    return ft_adapter_linear(l->adapter, g, module, x, w, bias, add, l->keys);
}

static void declare_batch(struct ft_job *j)
{
    const int64_t t = j->capacity, half = ft_model_config(j->model)->rope.dim / 2;
    struct ft_batch *b = &j->batch;
    b->ids = ft_graph_input(j->graph, "batch.ids", FT_I32, t, 1, true);
    b->targets = ft_graph_input(j->graph, "batch.targets", FT_I32, t, 1, true);
    b->keys = ft_graph_input(j->graph, "batch.keys", FT_I32, t, 3, true);
    b->offsets = ft_graph_input(j->graph, "batch.offsets", FT_I32, t + 1, 1, false);
    b->cos = ft_graph_input(j->graph, "batch.cos", FT_F32, t, half, true);
    b->sin = ft_graph_input(j->graph, "batch.sin", FT_F32, t, half, true);
    b->scalars = ft_graph_input(j->graph, "scalars", FT_F64, 1, FT_SCALARS, false);
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
    struct linear_ctx ctx = {j->adapter, NULL};
    ft_graph_free(j->graph);
    FT_TRY(ft_graph_new(&j->graph));
    j->recompute = recompute;
    FT_TRY(ft_model_declare(j->model, j->graph));
    FT_TRY(ft_adapter_declare(j->adapter, j->graph));
    declare_batch(j);
    const struct ft_model_inputs in = {.ids = j->batch.ids,
                                       .cos = j->batch.cos,
                                       .sin = j->batch.sin,
                                       .offsets = j->batch.offsets,
                                       .targets = j->batch.targets,
                                       .scalars = j->batch.scalars,
                                       .linear = adapted_linear,
                                       .linear_ctx = &ctx};
    ctx.keys = j->batch.keys;
    ft_graph_begin(j->graph, FT_PASS);
    ft_model_build(j->model, j->graph, &in);
    ft_graph_fuse(j->graph, FT_PASS);
    ft_graph_backward(j->graph, recompute);
    ft_graph_fuse(j->graph, FT_PASS);
    if (j->held.n_docs) {
        ctx.keys = NULL; /* no dropout */
        ft_graph_begin(j->graph, FT_EVAL);
        j->hidden = ft_model_build(j->model, j->graph, &in);
        ft_graph_fuse(j->graph, FT_EVAL);
    }
    build_update(j);
    return ft_graph_plan(j->graph, &j->plan);
}

size_t ft_job_memory(const struct ft_job *j)
{
    return j->plan.total + j->dataset_bytes + j->epoch_bytes + j->library_bytes +
           (size_t)ft_pool_size(j->pool) * FT_THREAD_SCRATCH;
}

static int open_graph(struct ft_job *j)
{
    bool all = j->config->gradient_checkpointing == FT_TRUE;
    j->library_bytes = LIBRARY_BYTES;
    FT_TRY(build_graph(j, all ? FT_RECOMPUTE_LAYER : FT_RECOMPUTE_CHEAP));
    if (j->config->gradient_checkpointing == FT_AUTO && ft_job_memory(j) > ft_memory_available())
        FT_TRY(build_graph(j, FT_RECOMPUTE_LAYER));
    return FT_OK;
}

/* --- the whole --- */

int ft_job_open(struct ft_job *j, const struct ft_config *c)
{
    *j = (struct ft_job){.config = c};
    FT_TRY(ft_cpu_backend(&j->backend, c->cpu_isa));
    bool cached;
    FT_TRY(ft_hub_model(&j->model_path, &cached, c->base_model, c->folder));
    j->base_name = cached ? c->base_model : j->model_path;
    FT_TRY(ft_model_open(&j->model, j->model_path));
    FT_TRY(ft_tokenizer_check(j->model_path, ft_model_config(j->model)->vocab));
    FT_TRY(open_adapter(j));
    FT_TRY(open_data(j));
    find_length(j);
    FT_TRY(ft_pool_new(&j->pool, c->threads > 0 ? (int)c->threads : ft_cpu_allowance()));
    return open_graph(j);
}

void ft_job_close(struct ft_job *j)
{
    ft_graph_free(j->graph);
    ft_pool_free(j->pool);
    ft_epoch_fini(&j->epoch);
    if (j->held_shares_tokens)
        j->held.ids = NULL, j->held.mask = NULL;
    ft_dataset_fini(&j->held);
    ft_dataset_fini(&j->train);
    ft_adapter_free(j->adapter);
    ft_model_close(j->model);
    ft_free(j->model_path);
    *j = (struct ft_job){0};
}
