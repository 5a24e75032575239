/* How long a run will take: the ops' costs over this machine's measured rates. */
#include "train/job.h"

#include "core/clock.h"
#include "core/mem.h"

#include <string.h>

static int device_failed(const struct ft_backend *b)
{
    return ft_fail(FT_ERESOURCE, "%s: %s", b->dev->name, b->dev->error(b));
}

/* Seconds of the fastest of a few runs, over about a third of a second. */
static int fastest(const struct ft_job *j, enum ft_op op, const union ft_op_args *args,
                   int64_t rows, void *scratch, double *seconds)
{
    const struct ft_backend *b = j->backend;
    struct ft_kernel_ctx ctx = {.backend = b, .pool = j->pool, .scratch = scratch};
    ctx.counts[FT_ROWS] = rows;
    ctx.counts[FT_DOCUMENTS] = 1;
    double best = 1e30, begin = ft_now();
    for (int i = 0; i < 3 || (ft_now() - begin < 0.3 && i < 1000); i++) {
        double t = ft_now();
        b->ops[op](&ctx, args);
        if (b->dev && b->dev->sync(b))
            return device_failed(b);
        t = ft_now() - t;
        best = t < best ? t : best;
    }
    *seconds = best;
    return FT_OK;
}

/* A block for the tensors below, of numbers that are neither all zero nor all alike. */
static int fill_block(const struct ft_backend *b, void *block, size_t bytes)
{
    enum { CHUNK = 1 << 20 };
    uint16_t *pattern;
    FT_TRY(ft_alloc(&pattern, CHUNK, 1));
    uint32_t state = 1;
    for (size_t i = 0; i < CHUNK / 2;
         i++) { /* bf16 of either sign, 0.5 to 2, in halves of f32 too */
        state = state * 1664525u + 1013904223u;
        pattern[i] = (uint16_t)(0x3f00 | state >> 24 | (state >> 8 & 0x8000));
    }
    int rc = 0;
    for (size_t at = 0; at < bytes && !rc; at += CHUNK) {
        size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        if (b->dev)
            rc = b->dev->copy_in(b, (char *)block + at, n, pattern, n, n, 1);
        else
            memcpy((char *)block + at, pattern, n);
    }
    rc = b->dev && !rc ? b->dev->sync(b) : rc;
    ft_free(pattern);
    return rc ? device_failed(b) : FT_OK;
}

/* Columns of the product that is measured: the model's own, on the host no more than a tenth of a
 * second's worth. */
static int64_t measured_width(const struct ft_job *j, int64_t rows)
{
    const struct ft_decoder *c = ft_model_decoder(j->model);
    const int64_t most = (INT64_C(1) << 33) / (rows * c->hidden);
    return j->backend->dev || c->ffn <= most ? c->ffn : most < 64 ? 64 : most;
}

/* One product and one elementwise op, of the model's own shapes. */
int ft_rates_measure(struct ft_rates *r, const struct ft_job *j)
{
    const struct ft_decoder *c = ft_model_decoder(j->model);
    const struct ft_backend *b = j->backend;
    const int64_t most = b->dev ? 8192 : 512, t = j->capacity < most ? j->capacity : most;
    const size_t size = ft_dtype_size(b->act);
    const int64_t width = measured_width(j, t);
    struct ft_tensor x = {.rows = t,
                          .cols = c->hidden,
                          .dtype = b->act,
                          .extent = FT_ROWS,
                          .name = "x"},
                     gate = x;
    gate.cols = width;
    struct ft_tensor up = gate, y = gate,
                     w = {.rows = width, .cols = c->hidden, .dtype = FT_BF16, .name = "w"};
    union ft_op_args product = {.linear = {.x = &x, .w = &w, .y = &gate, .alpha = 1}};
    union ft_op_args glu = {.glu = {&gate, &up, &y, FT_SILU}};
    const size_t scratch = b->scratch[FT_OP_linear] ? b->scratch[FT_OP_linear](&product) : 0;
    const size_t wide = (size_t)t * (size_t)width * size, narrow = (size_t)t * (size_t)c->hidden;
    const size_t weight = (size_t)(c->hidden * width) * 2;
    const size_t bytes = scratch + 3 * wide + narrow * size + weight;
    void *block;
    FT_TRY(ft_backend_alloc(b, &block, bytes));
    char *at = (char *)block + scratch;
    gate.data = at;
    up.data = at + wide;
    y.data = at + 2 * wide;
    x.data = at + 3 * wide;
    w.data = at + 3 * wide + narrow * size;
    int rc = fill_block(b, block, bytes);
    double first = 0, second = 0;
    if (!rc)
        rc = fastest(j, FT_OP_linear, &product, t, block, &first);
    if (!rc)
        rc = fastest(j, FT_OP_glu, &glu, t, block, &second);
    if (!rc) {
        const int64_t counts[FT_EXTENTS] = {[FT_ROWS] = t, [FT_DOCUMENTS] = 1};
        r->flops = ft_op_cost(FT_OP_linear, &product, counts).flops / first;
        r->bytes = ft_op_cost(FT_OP_glu, &glu, counts).bytes / second;
    }
    b->free(b, block, bytes);
    return rc;
}

static double tokens_of(const struct ft_dataset *d)
{
    double n = 0;
    for (int64_t i = 0; i < d->n_docs; i++)
        n += d->docs[i].length;
    return n;
}

/* A full pass of documents of the data's mean length, all trained. */
static struct ft_run full_pass(const struct ft_job *j)
{
    double n = (double)j->capacity * (double)j->train.n_docs / tokens_of(&j->train);
    return (struct ft_run){
        .counts = {[FT_ROWS] = j->capacity,
                   [FT_DOCUMENTS] = n > 1 ? (int64_t)(n + 0.5) : 1,
                   [FT_TRAINED] = j->capacity,
                   [FT_ROUTED] = j->capacity * ft_model_decoder(j->model)->mixture.each}};
}

/* Seconds of one run of a program with all rows live. */
static double program_seconds(const struct ft_job *j, enum ft_program p, const struct ft_rates *r)
{
    const struct ft_run run = full_pass(j);
    return ft_graph_seconds(j->graph, p, &run, r->flops, r->bytes);
}

double ft_job_seconds(const struct ft_job *j, const struct ft_rates *r)
{
    const struct ft_run_length *l = &j->length;
    double pass = program_seconds(j, FT_PASS, r) / (double)j->capacity; /* a token */
    double update = program_seconds(j, FT_UPDATE, r);
    double seconds = (double)l->steps * (l->tokens_per_step * pass + update);
    if (l->eval_every >= 0) {
        double evals = 1 + (l->eval_every > 0 ? (double)l->steps / (double)l->eval_every
                                              : (double)l->steps / (double)l->first_epoch_steps);
        double eval = program_seconds(j, FT_EVAL, r) / (double)j->capacity;
        seconds += (evals + j->config->eval_on_start) * tokens_of(&j->held) * eval;
    }
    return seconds;
}

double ft_job_flops_per_token(const struct ft_job *j)
{
    const struct ft_run run = full_pass(j);
    return ft_graph_useful_flops(j->graph, &run) / (double)j->capacity;
}

/* y = x w^T of n x n matrices, as large as it takes for the rate to be the device's. */
static int measure_product(const struct ft_job *j, int64_t n, double *seconds)
{
    const struct ft_backend *b = j->backend;
    struct ft_tensor x = {.rows = n, .cols = n, .dtype = b->act, .extent = FT_ROWS, .name = "x"},
                     y = x, w = x;
    union ft_op_args product = {.linear = {.x = &x, .w = &w, .y = &y, .alpha = 1}};
    const size_t scratch = b->scratch[FT_OP_linear] ? b->scratch[FT_OP_linear](&product) : 0;
    const size_t one = ft_tensor_bytes(&x), bytes = scratch + 3 * one;
    void *block;
    w.extent = FT_FIXED;
    FT_TRY(ft_backend_alloc(b, &block, bytes));
    x.data = (char *)block + scratch;
    y.data = (char *)x.data + one;
    w.data = (char *)y.data + one;
    int rc = fill_block(b, block, bytes);
    if (!rc)
        rc = fastest(j, FT_OP_linear, &product, n, block, seconds);
    b->free(b, block, bytes);
    return rc;
}

int ft_matrix_rate(const struct ft_job *j, double *flops)
{
    double seconds = 0;
    int64_t n = 128;
    do {
        n *= 2;
        FT_TRY(measure_product(j, n, &seconds));
    } while (n < 8192 && seconds < 5e-3 * (j->backend->dev ? 0.2 : 1));
    *flops = 2 * (double)n * (double)n * (double)n / seconds;
    return FT_OK;
}
