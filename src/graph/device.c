/* What a device adds to a graph: staging buffers for the batch, copies, recordings of programs.
 *
 * The host fills one staging buffer while the device works on what came from the other. A program
 * is run op by op the first time it is met with a shape, and recorded the second time; from then on
 * the recording is replayed. Recordings are kept for the shapes used last. */
#include "graph/internal.h"

#include <stdio.h>

enum {
    BUFFERS = 2,
    RECORDINGS = 48,
    ROW_STEPS = 32,
    TRAINED_STEPS = 8,
    BUCKET_ROWS = 64,
    SMALL = 64
};

struct recording {
    enum ft_program program;
    int64_t rows, trained;
    void *handle;  /* NULL: met once, not recorded yet */
    uint64_t used; /* the run that used it last; 0: free */
};

struct ft_device_state {
    char *staging[BUFFERS];
    bool pending[BUFFERS]; /* a copy from it was queued */
    int now;               /* the buffer the host fills */
    double *small;         /* SMALL single numbers on their way */
    int n_small;
    int64_t capacity; /* rows of a pass */
    uint64_t runs;
    struct recording recordings[RECORDINGS];
};

int ft_graph_device_failed(const struct ft_graph *g)
{
    const struct ft_device_fns *d = g->backend->dev;
    int node = d->last_node(g->backend), seen = 0;
    const char *op = "";
    for (int p = 0; p < FT_PROGRAMS && node >= 0; p++) {
        if (node - seen < g->programs[p].n) {
            op = ft_op_rows[g->programs[p].v[node - seen].op].name;
            break;
        }
        seen += g->programs[p].n;
    }
    if (*op)
        ft_fail(FT_ERESOURCE, "%s: %s; in or behind op '%s' (number %d)", d->name,
                d->error(g->backend), op, node);
    else
        ft_fail(FT_ERESOURCE, "%s: %s", d->name, d->error(g->backend));
    return FT_ERESOURCE;
}

static int checked(const struct ft_graph *g, int rc)
{
    return rc ? ft_graph_device_failed(g) : FT_OK;
}

int ft_device_state_new(struct ft_graph *g)
{
    FT_TRY(ft_alloc(&g->device, 1, sizeof *g->device));
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i]->t.extent == FT_ROWS && g->values[i]->t.rows > g->device->capacity)
            g->device->capacity = g->values[i]->t.rows;
    for (int i = 0; i < BUFFERS; i++) {
        FT_TRY(checked(g, g->backend->dev->host_alloc(g->backend, (void **)&g->device->staging[i],
                                                      g->batch_bytes)));
        memset(g->device->staging[i], 0, g->batch_bytes);
    }
    FT_TRY(checked(g, g->backend->dev->host_alloc(g->backend, (void **)&g->device->small,
                                                  SMALL * sizeof(double))));
    return FT_OK;
}

void ft_device_state_free(struct ft_graph *g)
{
    struct ft_device_state *s = g->device;
    if (!s)
        return;
    const struct ft_device_fns *d = g->backend->dev;
    d->sync(g->backend);
    for (int i = 0; i < RECORDINGS; i++)
        if (s->recordings[i].handle)
            d->record_free(g->backend, s->recordings[i].handle);
    for (int i = 0; i < BUFFERS; i++)
        if (s->staging[i])
            d->host_free(g->backend, s->staging[i]);
    if (s->small)
        d->host_free(g->backend, s->small);
    ft_free(s);
    g->device = NULL;
}

const struct ft_backend *ft_graph_backend(const struct ft_graph *g)
{
    return g->backend;
}

void *ft_graph_host(const struct ft_graph *g, const struct ft_tensor *t)
{
    if (!g->device)
        return t->data;
    const struct ft_value *v = ft_value_of((struct ft_tensor *)t);
    FT_ASSERT(v->use == FT_M_BATCH && !v->parent);
    return g->device->staging[g->device->now] + (v->offset - g->batch_begin);
}

int ft_graph_write_part(struct ft_graph *g, struct ft_tensor *t, size_t at, const void *from,
                        size_t bytes)
{
    const struct ft_backend *b = g->backend;
    FT_ASSERT(at + bytes <= ft_tensor_bytes(t));
    char *to = (char *)t->data + at;
    if (!g->device) {
        if (to != from)
            memcpy(to, from, bytes);
        return FT_OK;
    }
    return checked(g, b->dev->copy_in(b, to, bytes, from, bytes, bytes, 1) || b->dev->sync(b));
}

int ft_graph_write(struct ft_graph *g, struct ft_tensor *t, const void *from)
{
    return ft_graph_write_part(g, t, 0, from, ft_tensor_bytes(t));
}

int ft_graph_put(struct ft_graph *g, struct ft_tensor *t, int64_t element, double value)
{
    const struct ft_backend *b = g->backend;
    struct ft_device_state *s = g->device;
    FT_ASSERT(t->dtype == FT_F64 && element < t->cols);
    double *to = (double *)t->data + element;
    if (!s) {
        *to = value;
        return FT_OK;
    }
    if (s->n_small == SMALL) { /* all may still be on their way */
        FT_TRY(checked(g, b->dev->sync(b)));
        s->n_small = 0;
    }
    double *from = &s->small[s->n_small++];
    *from = value;
    return checked(g, b->dev->copy_in(b, to, sizeof value, from, sizeof value, sizeof value, 1));
}

int ft_graph_read(struct ft_graph *g, const struct ft_tensor *t, void *to)
{
    const struct ft_backend *b = g->backend;
    if (!g->device) {
        if (to != t->data)
            memcpy(to, t->data, ft_tensor_bytes(t));
        return FT_OK;
    }
    return checked(g, b->dev->copy_out(b, to, t->data, ft_tensor_bytes(t)));
}

/* Live rows rounded up to one of so many steps, so that few recordings serve all batches. */
static int64_t bucket(int64_t n, int64_t capacity, int64_t steps)
{
    int64_t unit = (capacity + steps - 1) / steps;
    unit = (unit + BUCKET_ROWS - 1) / BUCKET_ROWS * BUCKET_ROWS;
    int64_t up = (n + unit - 1) / unit * unit;
    return up < capacity ? up : capacity;
}

/* Whether a is the better one to give up: nothing recorded, or not used for longer. */
static bool worth_less(const struct recording *a, const struct recording *b)
{
    if (!a->handle != !b->handle)
        return !a->handle;
    return a->used < b->used;
}

/* The slot of this shape, or the one that is worth least. */
static struct recording *find(struct ft_graph *g, enum ft_program p, int64_t rows, int64_t trained)
{
    struct ft_device_state *s = g->device;
    struct recording *oldest = &s->recordings[0];
    for (int i = 0; i < RECORDINGS; i++) {
        struct recording *r = &s->recordings[i];
        if (r->used && r->program == p && r->rows == rows && r->trained == trained)
            return r;
        if (worth_less(r, oldest))
            oldest = r;
    }
    if (oldest->handle)
        g->backend->dev->record_free(g->backend, oldest->handle);
    *oldest = (struct recording){.program = p, .rows = rows, .trained = trained};
    return oldest;
}

static int queue(struct ft_graph *g, enum ft_program p, struct ft_kernel_ctx *ctx)
{
    const struct ft_backend *b = g->backend;
    const struct ft_device_fns *d = b->dev;
    struct recording *r = find(g, p, ctx->counts[FT_ROWS], ctx->counts[FT_TRAINED]);
    bool met = r->used > 0;
    r->used = ++g->device->runs;
    if (!met)
        return ft_graph_walk(g, p, ctx, NULL);
    if (!r->handle) {
        if (d->record_begin(b))
            return FT_ERESOURCE;
        int rc = ft_graph_walk(g, p, ctx, NULL);
        if (d->record_end(b, &r->handle) || rc)
            return FT_ERESOURCE;
    }
    return d->replay(b, r->handle);
}

/* Sends the batch that the host has filled, and turns to the other buffer. */
static int send_batch(struct ft_graph *g, const struct ft_run *run)
{
    const struct ft_backend *b = g->backend;
    struct ft_device_state *s = g->device;
    int32_t *live = ft_graph_host(g, g->live);
    for (int i = 0; i < FT_EXTENTS; i++)
        live[i] = (int32_t)run->counts[i];
    char *to = (char *)g->block + g->batch_begin;
    if (b->dev->copy_in(b, to, g->batch_bytes, s->staging[s->now], g->batch_bytes, g->batch_bytes,
                        1) ||
        b->dev->mark(b, s->now))
        return -1;
    s->pending[s->now] = true;
    s->now = (s->now + 1) % BUFFERS;
    if (s->pending[s->now] && b->dev->wait(b, s->now))
        return -1;
    s->pending[s->now] = false;
    return 0;
}

int ft_device_run(struct ft_graph *g, enum ft_program p, const struct ft_run *run,
                  struct ft_profile *profile)
{
    const int64_t capacity = g->device->capacity;
    struct ft_kernel_ctx ctx = {.backend = g->backend, .live = g->live->data};
    memcpy(ctx.counts, run->counts, sizeof ctx.counts);
    ctx.counts[FT_ROWS] = bucket(run->counts[FT_ROWS], capacity, ROW_STEPS);
    ctx.counts[FT_TRAINED] = bucket(run->counts[FT_TRAINED], capacity, TRAINED_STEPS);
    if (run->counts[FT_ROWS])
        ctx.counts[FT_ROUTED] = run->counts[FT_ROUTED] / run->counts[FT_ROWS] * ctx.counts[FT_ROWS];
    if (p == FT_PASS || p == FT_EVAL)
        FT_TRY(checked(g, send_batch(g, run)));
    else
        ctx.counts[FT_ROWS] = ctx.counts[FT_TRAINED] = ctx.counts[FT_ROUTED] = 0;
    if (profile)
        return checked(g, ft_graph_walk(g, p, &ctx, profile));
    return checked(g, queue(g, p, &ctx));
}
