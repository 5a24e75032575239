/* Passes over sequences whose keys and values are kept. */
#include "train/serving.h"

#include "train/internal.h"

#include "core/mem.h"

#include <math.h>
#include <string.h>

enum { HOST_ROWS = 512, DEVICE_ROWS = 2048 }; /* of a pass, at most */

static int alloc_tables(struct ft_server *s, int64_t layers, const struct ft_server_options *o)
{
    s->serving.slots = o->slots;
    s->serving.context = o->context;
    s->serving.scored = o->scored;
    s->serving.vocab = o->vocab;
    FT_TRY(ft_alloc(&s->length, (size_t)o->slots, sizeof *s->length));
    FT_TRY(ft_alloc(&s->serving.keys, (size_t)layers, sizeof *s->serving.keys));
    return ft_alloc(&s->serving.values, (size_t)layers, sizeof *s->serving.values);
}

int ft_server_open(struct ft_server *s, const struct ft_config *c,
                   const struct ft_server_options *o, ft_model_progress_fn *progress, void *ctx)
{
    enum { LAYERS_MOST = 4096 };
    *s = (struct ft_server){0};
    const int64_t most = c->device == FT_DEVICE_CPU ? HOST_ROWS : DEVICE_ROWS;
    const int64_t all = o->slots * o->context;
    FT_TRY(alloc_tables(s, LAYERS_MOST, o));
    FT_TRY(ft_job_open_serving(&s->job, c, &s->serving, all < most ? all : most));
    s->vocab = ft_model_decoder(s->job.model)->vocab;
    FT_TRY(ft_alloc(&s->lengths, (size_t)s->job.capacity, sizeof *s->lengths));
    if (s->job.rope_by_length) {
        FT_TRY(ft_alloc(&s->ids, (size_t)all, sizeof *s->ids));
        FT_TRY(ft_alloc(&s->angles, (size_t)o->slots, sizeof *s->angles));
    }
    FT_TRY(ft_job_check_memory(&s->job));
    if (s->job.backend->dev) {
        const size_t n = (size_t)(o->scored * s->vocab);
        FT_TRY(ft_alloc(&s->widened, n, sizeof *s->widened));
        FT_TRY(ft_alloc(&s->copied, 1, ft_tensor_bytes(s->serving.logits)));
    }
    return ft_job_place(&s->job, progress, ctx);
}

void ft_server_close(struct ft_server *s)
{
    ft_job_close(&s->job);
    ft_free(s->serving.keys);
    ft_free(s->serving.values);
    ft_free(s->length);
    ft_free(s->lengths);
    ft_free(s->ids);
    ft_free(s->angles);
    ft_free(s->widened);
    ft_free(s->copied);
    *s = (struct ft_server){0};
}

void ft_server_forget(struct ft_server *s, int slot, int64_t length)
{
    FT_ASSERT(length <= s->length[slot]);
    s->length[slot] = length;
}

/* The arrays of a pass while it is filled. */
struct filling {
    int32_t *ids, *positions, *spans, *picked, *places, *cached;
    int32_t *chunks, *cached_chunks; /* NULL: attention is not chunked */
    int64_t chunk;
    int64_t *lengths; /* of a row's sequence, once all that goes on it now is read */
    struct ft_run run;
};

static void begin_pass(const struct ft_server *s, struct filling *f)
{
    const struct ft_graph *g = s->job.graph;
    const struct ft_batch *b = &s->job.batch;
    *f = (struct filling){.ids = ft_graph_host(g, b->ids),
                          .positions = ft_graph_host(g, b->positions),
                          .spans = ft_graph_host(g, b->spans),
                          .picked = ft_graph_host(g, b->picked),
                          .places = ft_graph_host(g, s->serving.places),
                          .cached = ft_graph_host(g, s->serving.cached),
                          .chunks = b->chunks ? ft_graph_host(g, b->chunks) : NULL,
                          .cached_chunks =
                              b->chunks ? ft_graph_host(g, s->serving.cached_chunks) : NULL,
                          .chunk = ft_model_decoder(s->job.model)->chunk,
                          .lengths = s->lengths};
}

/* Angles that depend on a sequence's length: rows of their own. */
static int fill_angles(struct ft_server *s, const struct filling *f)
{
    const struct ft_job *j = &s->job;
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const int64_t rows = f->run.counts[FT_ROWS];
    for (int i = 0; i < d->n_ropes && j->rope_by_length; i++) {
        const int64_t half = j->batch.cos[i]->cols;
        float *cos_at = ft_graph_host(j->graph, j->batch.cos[i]),
              *sin_at = ft_graph_host(j->graph, j->batch.sin[i]), *table;
        FT_TRY(ft_alloc(&table, (size_t)(2 * s->serving.context * half), sizeof *table));
        for (int64_t row = 0; row < rows;) {
            const int64_t end = f->spans[2 * row + 1], length = f->lengths[row];
            ft_rope_fill(&d->rope[i], length, table, table + length * half);
            for (; row < end; row++) {
                const int64_t at = f->cached[2 * row + 1];
                memcpy(cos_at + row * half, table + at * half, (size_t)half * sizeof *table);
                memcpy(sin_at + row * half, table + (length + at) * half,
                       (size_t)half * sizeof *table);
            }
        }
        ft_free(table);
    }
    for (int64_t row = 0; row < rows && j->rope_by_length; row++)
        f->positions[row] = (int32_t)row;
    return FT_OK;
}

/* What of a row's document is its chunk: rows of this pass, and cached keys. */
static void put_chunk(struct filling *f, int64_t row, int64_t slot, int64_t at)
{
    const int64_t into = at % f->chunk, begin = row - into, end = begin + f->chunk;
    const int64_t first = f->spans[2 * row], last = f->spans[2 * row + 1];
    f->chunks[2 * row] = (int32_t)(begin > first ? begin : first);
    f->chunks[2 * row + 1] = (int32_t)(end < last ? end : last);
    f->cached_chunks[2 * row] = (int32_t)(slot + at - into);
    f->cached_chunks[2 * row + 1] = (int32_t)into;
}

/* Rows `from` to `to` of a reading. */
static void put_rows(struct ft_server *s, struct filling *f, const struct ft_reading *r,
                     int64_t from, int64_t to)
{
    const int64_t first = f->run.counts[FT_ROWS], slot = r->slot * s->serving.context;
    const int64_t whole = s->length[r->slot] + r->n - from;
    for (int64_t i = from; i < to; i++) {
        const int64_t row = f->run.counts[FT_ROWS]++, at = s->length[r->slot]++;
        f->ids[row] = r->ids[i];
        f->positions[row] = (int32_t)at;
        f->spans[2 * row] = (int32_t)first;
        f->spans[2 * row + 1] = (int32_t)(first + to - from);
        f->lengths[row] = whole;
        f->places[row] = (int32_t)(slot + at);
        f->cached[2 * row] = (int32_t)slot;
        f->cached[2 * row + 1] = (int32_t)at;
        if (f->chunks)
            put_chunk(f, row, slot, at);
        if (i >= r->n - r->scored)
            f->picked[f->run.counts[FT_TRAINED]++] = (int32_t)row;
    }
    f->run.counts[FT_ROUTED] =
        f->run.counts[FT_ROWS] * ft_model_decoder(s->job.model)->mixture.each;
    f->run.counts[FT_DOCUMENTS]++;
    f->run.counts[FT_KEYS] += s->length[r->slot];
}

/* The logits of a pass, capped, as f32. */
static int take_logits(struct ft_server *s, int64_t rows)
{
    const struct ft_tensor *t = s->serving.logits;
    const float cap = (float)ft_model_decoder(s->job.model)->logit_softcap;
    const int64_t n = rows * s->vocab;
    if (!s->job.backend->dev) {
        FT_ASSERT(ft_tensor_ld(t) == s->vocab);
        s->logits = t->data;
    } else {
        FT_TRY(ft_graph_read(s->job.graph, t, s->copied));
        s->logits = s->widened;
        for (int64_t i = 0; i < n; i++)
            s->logits[i] = ft_element_get(
                s->copied, (size_t)(i / s->vocab * ft_tensor_ld(t) + i % s->vocab), t->dtype);
    }
    for (int64_t i = 0; i < n && cap > 0; i++)
        s->logits[i] = cap * tanhf(s->logits[i] / cap);
    return FT_OK;
}

static int run_pass(struct ft_server *s, struct filling *f)
{
    struct ft_job *j = &s->job;
    if (j->batch.tokens)
        ft_token_rows_fill(j, f->ids, ft_graph_host(j->graph, j->batch.tokens),
                           f->run.counts[FT_ROWS]);
    FT_TRY(fill_angles(s, f));
    FT_TRY(ft_graph_run(j->graph, FT_EVAL, j->pool, &f->run, NULL));
    return f->run.counts[FT_TRAINED] ? take_logits(s, f->run.counts[FT_TRAINED]) : FT_OK;
}

/* A reading, with all that its sequence has where the kept keys' angles are no longer right. */
static struct ft_reading whole_reading(struct ft_server *s, const struct ft_reading *r)
{
    const struct ft_decoder *d = ft_model_decoder(s->job.model);
    const int64_t had = s->length[r->slot], has = had + r->n;
    bool changes = false;
    FT_ASSERT(has <= s->serving.context);
    if (!s->ids)
        return *r;
    int32_t *ids = s->ids + r->slot * s->serving.context;
    memcpy(ids + had, r->ids, (size_t)r->n * sizeof *ids);
    for (int i = 0; i < d->n_ropes; i++)
        changes |= had > 0 && ft_rope_changes(&d->rope[i], s->angles[r->slot], has);
    s->angles[r->slot] = has;
    if (!changes)
        return *r;
    s->length[r->slot] = 0;
    return (struct ft_reading){r->slot, ids, has, r->scored};
}

int ft_server_read(struct ft_server *s, const struct ft_reading *r, int n, ft_logits_fn *each,
                   void *ctx)
{
    int64_t at = 0, scored = 0; /* rows of the reading that are read; logits so far */
    struct ft_reading now = {0};
    for (int i = 0; i < n;) {
        struct filling f;
        begin_pass(s, &f);
        while (i < n && f.run.counts[FT_ROWS] < s->job.capacity &&
               f.run.counts[FT_TRAINED] < s->serving.scored) {
            if (at == 0)
                now = whole_reading(s, &r[i]);
            int64_t to = at + s->job.capacity - f.run.counts[FT_ROWS];
            const int64_t quiet = now.n - now.scored, most = (at > quiet ? at : quiet) +
                                                             s->serving.scored -
                                                             f.run.counts[FT_TRAINED];
            to = to < now.n ? to : now.n;
            to = to < most ? to : most;
            put_rows(s, &f, &now, at, to);
            at = to < now.n ? to : 0;
            i += at == 0;
        }
        FT_TRY(run_pass(s, &f));
        if (each && f.run.counts[FT_TRAINED])
            FT_TRY(each(ctx, s->logits, scored, f.run.counts[FT_TRAINED]));
        scored += f.run.counts[FT_TRAINED];
    }
    return FT_OK;
}
