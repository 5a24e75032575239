/* Benchmarks: optimizer steps as the training loop makes them, timed. */
#include "train/bench.h"

#include "core/clock.h"
#include "core/file.h"

#include <stdio.h>
#include <string.h>

enum { WARM_UP = 3 }; /* met, recorded, replayed */

struct bench {
    struct ft_job *j;
    struct ft_bench_result *r;
    int64_t batch;
    int64_t tokens;
};

/* One optimizer step over the next micro-batches of the epoch, waited for. */
static int one_step(struct bench *b, struct ft_profile *profile)
{
    struct ft_job *j = b->j;
    double scalars[FT_SCALARS];
    b->tokens = 0;
    for (int64_t g = 0; g < j->config->gradient_accumulation_steps; g++) {
        const struct ft_micro_batch *m = &j->epoch.batches[b->batch++ % j->epoch.n_batches];
        for (int64_t at = 0; at < m->count;) {
            struct ft_run run;
            FT_TRY(
                ft_job_fill(j, &j->train, j->epoch.order + m->first + at, m->count - at, 0, &run));
            at += run.counts[FT_DOCUMENTS];
            FT_TRY(ft_graph_run(j->graph, FT_PASS, j->pool, &run, profile));
            b->tokens += run.counts[FT_ROWS];
        }
    }
    FT_TRY(ft_graph_put(j->graph, j->batch.scalars, FT_S_LR, 1e-4));
    FT_TRY(ft_graph_run(j->graph, FT_UPDATE, j->pool, &(struct ft_run){0}, profile));
    FT_TRY(ft_graph_read(j->graph, j->batch.scalars, scalars));
    b->r->loss = scalars[FT_S_LOSS];
    return FT_OK;
}

/* By way of a file beside it, so that a reader finds the old choices or the new ones. */
static int write_choices(const struct ft_backend *d, const char *path)
{
    char folder[4096], temp[4200];
    snprintf(folder, sizeof folder, "%s", path);
    snprintf(temp, sizeof temp, "%s.tmp", folder);
    char *slash = strrchr(folder, '/');
    if (slash) {
        *slash = 0;
        FT_TRY(ft_make_folders(folder));
    }
    if (d->dev->products_save(d, temp) || rename(temp, path))
        return ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE,
                          "the chosen products cannot be written there");
    return FT_OK;
}

/* Chooses by timing, in a step whose ops run one by one, and writes the choices. */
static int tune(struct bench *b)
{
    const struct ft_backend *d = b->j->backend;
    const char *path = ft_cuda_products_file();
    struct ft_profile ignored = {0};
    if (d->dev->products_tune(d, 1))
        return ft_graph_device_failed(b->j->graph);
    FT_TRY(one_step(b, &ignored));
    d->dev->products_tune(d, 0);
    return write_choices(d, path);
}

static int measure(struct bench *b, const struct ft_bench_options *o)
{
    struct ft_bench_result *r = b->r;
    double began = ft_now(), tokens = 0, last = began;
    while (r->steps < o->steps || r->seconds < o->seconds) {
        FT_TRY(one_step(b, NULL));
        double now = ft_now(), rate = (double)b->tokens / (now - last);
        r->best_tokens_per_second =
            rate > r->best_tokens_per_second ? rate : r->best_tokens_per_second;
        tokens += (double)b->tokens;
        last = now;
        r->seconds = now - began;
        r->steps++;
    }
    r->rows = b->tokens;
    r->tokens_per_second = tokens / r->seconds;
    return FT_OK;
}

/* Of the highest rate that was seen: on a machine that others use too, no single look is it. */
static int find_share(const struct ft_job *j, struct ft_bench_result *r)
{
    const double rate = r->flops_per_token * r->tokens_per_second;
    double again = 0;
    if (!j->backend->dev)
        FT_TRY(ft_matrix_rate(j, &again));
    r->matrix_rate = again > r->matrix_rate ? again : r->matrix_rate;
    r->matrix_rate = rate > r->matrix_rate ? rate : r->matrix_rate;
    r->share = rate / r->matrix_rate;
    return FT_OK;
}

int ft_bench(struct ft_job *j, const struct ft_bench_options *o, struct ft_bench_result *r)
{
    struct bench b = {.j = j, .r = r};
    size_t before = 0, after = 0, all;
    *r = (struct ft_bench_result){0};
    if (o->tune && !j->backend->dev)
        return ft_fail(FT_ECONFIG, "'--tune' is for GPUs: the CPU's products have one way only");
    if (o->tune && !*ft_cuda_products_file())
        return ft_fail(FT_ECONFIG, "'--tune' has no place for its file: set FT_CUDA_PRODUCTS");
    FT_TRY(ft_job_check_memory(j));
    if (j->backend->dev && j->backend->dev->memory(j->backend, &before, &all))
        return ft_graph_device_failed(j->graph);
    FT_TRY(ft_matrix_rate(j, &r->matrix_rate));
    double start = ft_now();
    FT_TRY(ft_job_place(j, NULL, NULL));
    r->load_seconds = ft_now() - start;
    if (o->tune)
        FT_TRY(tune(&b));
    for (int i = 0; i < WARM_UP; i++)
        FT_TRY(one_step(&b, NULL));
    FT_TRY(measure(&b, o));
    if (j->backend->dev && j->backend->dev->memory(j->backend, &after, &all))
        return ft_graph_device_failed(j->graph);
    r->planned_bytes = j->backend->dev ? ft_job_device_memory(j) : ft_job_memory(j);
    r->taken_bytes =
        j->backend->dev ? before - (after < before ? after : before) : ft_memory_resident();
    r->flops_per_token = ft_job_flops_per_token(j);
    FT_TRY(find_share(j, r));
    for (int i = 0; i < 2 && o->profile; i++)
        FT_TRY(one_step(&b, &r->profile));
    return FT_OK;
}
