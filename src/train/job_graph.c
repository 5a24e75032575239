/* The graph of a job: its batch, programs and memory; filling and placing it. */
#include "train/internal.h"

#include "core/mem.h"

#include <stdio.h>
#include <string.h>

/* What the program and its libraries keep resident beside the planned memory: an allowance with
 * which the total fits what was measured, see docs/performance.md. */
enum { LIBRARY_BYTES = 12 << 20 };
/* The same for the CUDA runtime and its libraries, on the host; not measured yet. */
enum { DEVICE_LIBRARY_BYTES = 512 << 20 };

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

static struct ft_tensor *adapted_experts(void *ctx, struct ft_graph *g, int module,
                                         struct ft_tensor *x, struct ft_tensor *offsets)
{
    const struct linear_ctx *c = ctx;
    const struct ft_module *modules;
    struct ft_linears l = {.first = module, .n = 1, .x = x, .offsets = offsets};
    ft_model_modules(c->job->model, &modules);
    l.of[0].w = modules[module].w;
    l.of[0].bias = modules[module].bias;
    ft_adapter_linears(c->job->adapter, g, &l);
    return l.of[0].y;
}

static struct ft_tensor *adapted_embedding(void *ctx, struct ft_graph *g,
                                           const struct ft_embed_args *base, struct ft_tensor *h)
{
    const struct linear_ctx *c = ctx;
    const struct ft_config *config = c->job->config;
    h = ft_token_rows_embed(c->job, g, base, h);
    h = ft_adapter_embed(c->job->adapter, g, base, h);
    if (c->keys && config->neftune_noise_alpha > 0)
        h = ft_noise(g, h, c->keys, c->job->batch.spans, (float)config->neftune_noise_alpha,
                     (uint64_t)config->seed);
    return h;
}

static int64_t stack_rank(void *ctx, int first, int n)
{
    return ft_adapter_stack_rank(ctx, first, n);
}

/* What every forward pass reads; documents are at most `longest`. */
static void declare_inputs(struct ft_job *j, int64_t longest)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const int64_t t = j->capacity;
    struct ft_batch *b = &j->batch;
    struct ft_graph *g = j->graph;
    *b = (struct ft_batch){0};
    j->rope_by_length = false;
    for (int i = 0; i < d->n_ropes; i++)
        j->rope_by_length |= ft_rope_by_length(&d->rope[i]);
    b->ids = ft_graph_input(g, "batch.ids", FT_I32, t, 1, FT_ROWS);
    b->spans = ft_graph_input(g, "batch.spans", FT_I32, t, 2, FT_ROWS);
    b->positions = ft_graph_input(g, "batch.positions", FT_I32, t, 1, FT_ROWS);
    if (d->chunk > 0)
        b->chunks = ft_graph_input(g, "batch.chunks", FT_I32, t, 2, FT_ROWS);
    enum ft_memory use = j->rope_by_length ? FT_M_BATCH : FT_M_WEIGHTS;
    for (int i = 0; i < d->n_ropes; i++) {
        const int64_t rows = j->rope_by_length ? t : longest, half = d->rope[i].dim / 2;
        b->cos[i] = ft_graph_value(g, use, "rope.cos", FT_F32, rows, half);
        b->sin[i] = ft_graph_value(g, use, "rope.sin", FT_F32, rows, half);
    }
}

static void declare_batch(struct ft_job *j)
{
    const int64_t t = j->capacity;
    const int64_t longest = j->train.longest > j->held.longest ? j->train.longest : j->held.longest;
    struct ft_adapter_options o;
    struct ft_batch *b = &j->batch;
    struct ft_graph *g = j->graph;
    ft_adapter_config(j->adapter, &o);
    declare_inputs(j, longest);
    b->targets = ft_graph_input(g, "batch.targets", FT_I32, t, 1, FT_ROWS);
    b->picked = ft_graph_input(g, "batch.picked", FT_I32, t, 1, FT_ROWS);
    if (o.dropout > 0 || j->config->neftune_noise_alpha > 0)
        b->keys = ft_graph_input(g, "batch.keys", FT_I32, t, 3, FT_ROWS);
    b->scalars = ft_graph_value(g, FT_M_OPTIMIZER, "scalars", FT_F64, 1, FT_SCALARS);
}

/* Of each row the part of its document that is one chunk. */
static void fill_chunks(const int32_t *spans, int32_t *chunks, int64_t rows, int64_t chunk)
{
    for (int64_t row = 0; row < rows; row++) {
        const int64_t first = spans[2 * row], end = spans[2 * row + 1];
        const int64_t begin = first + (row - first) / chunk * chunk;
        chunks[2 * row] = (int32_t)begin;
        chunks[2 * row + 1] = (int32_t)(begin + chunk < end ? begin + chunk : end);
    }
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
        .counts = {[FT_ROWS] = c.rows,
                   [FT_DOCUMENTS] = take,
                   [FT_TRAINED] = c.trained,
                   [FT_ROUTED] = c.rows * ft_model_decoder(j->model)->mixture.each}};
    if (b->chunks)
        fill_chunks(a.spans, ft_graph_host(g, b->chunks), c.rows,
                    ft_model_decoder(j->model)->chunk);
    if (b->tokens)
        ft_token_rows_fill(j, a.ids, ft_graph_host(g, b->tokens), c.rows);
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
    int rc = ft_adapter_fill(j->adapter, j->graph, host, ft_wholes_read, ft_wholes_module, j);
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
    FT_TRY(ft_token_rows_write(j));
    return write_adapter(j);
}

/* A graph that has the adapter and the model's weights as values, and no op. */
static int begin_graph(struct ft_job *j)
{
    ft_graph_free(j->graph);
    j->graph = NULL;
    FT_TRY(ft_graph_new(&j->graph, j->backend));
    FT_TRY(ft_adapter_declare(j->adapter, j->graph));
    FT_TRY(ft_model_declare(j->model, j->graph, stack_rank, j->adapter, ft_wholes_place, j));
    ft_wholes_train(j);
    return FT_OK;
}

static struct ft_model_inputs inputs_of(const struct ft_job *j, struct linear_ctx *ctx)
{
    struct ft_model_inputs in = {.ids = j->batch.ids,
                                 .angles = j->batch.positions,
                                 .spans = j->batch.spans,
                                 .chunks = j->batch.chunks,
                                 .linear = adapted_linear,
                                 .experts = adapted_experts,
                                 .embed = adapted_embedding,
                                 .ctx = ctx};
    memcpy(in.cos, j->batch.cos, sizeof in.cos);
    memcpy(in.sin, j->batch.sin, sizeof in.sin);
    return in;
}

static int build_graph(struct ft_job *j, enum ft_recompute recompute)
{
    struct linear_ctx ctx = {.job = j};
    j->recompute = recompute;
    FT_TRY(begin_graph(j));
    declare_batch(j);
    ft_token_rows_declare(j);
    struct ft_model_inputs in = inputs_of(j, &ctx);
    struct ft_tensor *balance = NULL, *hidden;
    ctx.keys = j->batch.keys; /* what is random, while training only */
    in.balance = ft_model_decoder(j->model)->mixture.balanced ? &balance : NULL;
    ft_graph_begin(j->graph, FT_PASS);
    hidden = ft_model_build(j->model, j->graph, &in);
    ft_objective_build(j, hidden, ctx.keys, balance);
    ft_graph_fuse(j->graph, FT_PASS);
    ft_graph_backward(j->graph, recompute);
    ft_graph_fuse(j->graph, FT_PASS);
    if (j->held.n_docs) {
        ctx.keys = NULL;
        in.balance = NULL; /* it says nothing of the model's words */
        ft_graph_begin(j->graph, FT_EVAL);
        ft_objective_build(j, ft_model_build(j->model, j->graph, &in), NULL, NULL);
        ft_graph_fuse(j->graph, FT_EVAL);
    }
    FT_TRY(ft_update_build(j));
    ft_adapter_emit_refresh(j->adapter, j->graph);
    ft_graph_begin(j->graph, FT_START);
    ft_adapter_emit_start(j->adapter, j->graph);
    return ft_graph_plan(j->graph, &j->plan);
}

/* Keys and values go to their places first; then the queries see them there. */
static struct ft_tensor *attend_cached(void *ctx, struct ft_graph *g, int layer,
                                       struct ft_attention_args a)
{
    const struct linear_ctx *c = ctx;
    const struct ft_serving *s = c->job->serving;
    ft_store(g, a.k, s->places, s->keys[layer]);
    ft_store(g, a.v, s->places, s->values[layer]);
    a.k = s->keys[layer];
    a.v = s->values[layer];
    a.cached = ft_model_decoder(c->job->model)->layer[layer].chunked ? s->cached_chunks : s->cached;
    return ft_attention(g, a);
}

static void declare_serving(struct ft_job *j)
{
    struct ft_serving *s = j->serving;
    struct ft_graph *g = j->graph;
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const enum ft_dtype act = j->backend->act;
    const int64_t cols = d->kv_heads * d->head_dim;
    declare_inputs(j, s->context);
    j->batch.picked = ft_graph_input(g, "batch.picked", FT_I32, s->scored, 1, FT_TRAINED);
    s->places = ft_graph_input(g, "batch.places", FT_I32, j->capacity, 1, FT_ROWS);
    s->cached = ft_graph_input(g, "batch.cached", FT_I32, j->capacity, 2, FT_ROWS);
    if (d->chunk > 0)
        s->cached_chunks =
            ft_graph_input(g, "batch.cached chunks", FT_I32, j->capacity, 2, FT_ROWS);
    for (int64_t l = 0; l < d->layers; l++) {
        s->keys[l] = ft_graph_value(g, FT_M_CACHE, "keys", act, s->slots * s->context, cols);
        s->values[l] = ft_graph_value(g, FT_M_CACHE, "values", act, s->slots * s->context, cols);
    }
}

int ft_job_open_serving_graph(struct ft_job *j)
{
    struct linear_ctx ctx = {.job = j};
    j->library_bytes = LIBRARY_BYTES + (j->backend->dev ? DEVICE_LIBRARY_BYTES : 0);
    FT_TRY(begin_graph(j));
    declare_serving(j);
    ft_token_rows_declare(j);
    struct ft_model_inputs in = inputs_of(j, &ctx);
    in.attend = attend_cached;
    ft_graph_begin(j->graph, FT_EVAL);
    j->serving->logits = ft_objective_logits(
        j, ft_gather(j->graph, ft_model_build(j->model, j->graph, &in), j->batch.picked));
    ft_graph_fuse(j->graph, FT_EVAL);
    ft_graph_begin(j->graph, FT_START);
    ft_adapter_emit_start(j->adapter, j->graph);
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
    const size_t start = ft_adapter_start_bytes(j->adapter, j->backend->dev),
                 turning = ft_model_loading(j->model, j->backend->dev != NULL);
    const size_t once = start > turning ? start : turning;
    if (!j->backend->dev)
        return once;
    return 2 * j->plan.used[FT_M_BATCH] + ft_model_staging(j->model) + once +
           4 * (size_t)ft_adapter_parameters(j->adapter);
}

size_t ft_job_memory(const struct ft_job *j)
{
    const size_t here = ft_job_staging(j) + (j->backend->dev ? 0 : j->plan.total);
    return here + j->dataset_bytes + j->epoch_bytes + j->library_bytes + ft_ranks_bytes(j) +
           (size_t)ft_pool_size(j->pool) * FT_THREAD_SCRATCH;
}

size_t ft_device_reserve(size_t total)
{
    size_t share = total / 128, most = (size_t)512 << 20;
    return share < most ? share : most;
}

/* This rank's part of the host's memory. */
static size_t available(const struct ft_job *j)
{
    return ft_memory_available() / (size_t)ft_world_here(j->world);
}

/* Whether the graph as planned fits what is free now. */
static int fits(const struct ft_job *j, bool *yes)
{
    size_t there = 0, all;
    *yes = ft_job_memory(j) <= available(j);
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
    size_t need = ft_job_memory(j), have = available(j) + ft_memory_resident(), all;
    if (need > have)
        return too_large("", need, have,
                         ft_world_here(j->world) > 1 ? "this rank's part" : "available");
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
int ft_job_open_graph(struct ft_job *j)
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
