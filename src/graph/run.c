/* Walks a program's list. */
#include "graph/internal.h"

#include "core/clock.h"

int ft_graph_walk(struct ft_graph *g, enum ft_program p, struct ft_kernel_ctx *ctx,
                  struct ft_profile *profile)
{
    const struct ft_backend *b = g->backend;
    int before = 0; /* nodes count through all programs */
    ctx->before = (struct ft_op_run){0};
    for (int q = 0; q < (int)p; q++)
        before += g->programs[q].n;
    for (int i = 0; i < g->programs[p].n; i++) {
        const struct ft_node *n = &g->programs[p].v[i];
        if (n->removed)
            continue;
        ctx->scratch = n->scratch ? n->scratch->t.data : NULL;
        ctx->node = before + i;
        double start = profile ? ft_now() : 0;
        b->ops[n->op](ctx, &n->args);
        ctx->before = (struct ft_op_run){n->op, &n->args, ctx->scratch};
        if (!profile)
            continue;
        if (b->dev && b->dev->sync(b))
            return FT_ERESOURCE;
        profile->seconds[n->op] += ft_now() - start;
        const struct ft_cost cost = ft_op_cost(n->op, &n->args, ctx->counts);
        profile->flops[n->op] += cost.flops;
        profile->bytes[n->op] += cost.bytes;
        profile->runs[n->op]++;
    }
    return FT_OK;
}

int ft_graph_run(struct ft_graph *g, enum ft_program p, struct ft_pool *pool,
                 const struct ft_run *run, struct ft_profile *profile)
{
    FT_ASSERT(g->block);
    if (g->backend->dev)
        return ft_device_run(g, p, run, profile);
    struct ft_kernel_ctx ctx = {.backend = g->backend, .pool = pool};
    memcpy(ctx.counts, run->counts, sizeof ctx.counts);
    return ft_graph_walk(g, p, &ctx, profile);
}

struct ft_cost ft_graph_cost(const struct ft_graph *g, enum ft_program p, const struct ft_run *run,
                             double flops[FT_OP_COUNT])
{
    struct ft_cost sum = {0};
    for (int i = 0; i < g->programs[p].n; i++) {
        const struct ft_node *n = &g->programs[p].v[i];
        if (n->removed)
            continue;
        struct ft_cost c = ft_op_cost(n->op, &n->args, run->counts);
        sum.flops += c.flops;
        sum.bytes += c.bytes;
        if (flops)
            flops[n->op] += c.flops;
    }
    return sum;
}

double ft_graph_seconds(const struct ft_graph *g, enum ft_program p, const struct ft_run *run,
                        double flops, double bytes)
{
    double seconds = 0;
    for (int i = 0; i < g->programs[p].n; i++) {
        const struct ft_node *n = &g->programs[p].v[i];
        if (n->removed)
            continue;
        const struct ft_cost c = ft_op_cost(n->op, &n->args, run->counts);
        const double compute = ft_op_is_product(n->op) ? c.flops / flops : 0;
        seconds += compute > c.bytes / bytes ? compute : c.bytes / bytes;
    }
    return seconds;
}

double ft_graph_useful_flops(const struct ft_graph *g, const struct ft_run *run)
{
    double sum = 0;
    for (int i = 0; i < g->programs[FT_PASS].n; i++) {
        const struct ft_node *n = &g->programs[FT_PASS].v[i];
        if (!n->removed && !n->again && ft_op_is_product(n->op))
            sum += ft_op_cost(n->op, &n->args, run->counts).flops;
    }
    return sum;
}

void ft_graph_poison(struct ft_graph *g)
{
    const struct ft_backend *b = g->backend;
    char *at = (char *)g->block + g->pass_begin, *nan;
    if (!b->dev) {
        memset(at, 0xff, g->pass_bytes);
        return;
    }
    FT_ASSERT(ft_alloc(&nan, g->pass_bytes, 1) == FT_OK);
    memset(nan, 0xff, g->pass_bytes);
    FT_ASSERT(!b->dev->copy_in(b, at, g->pass_bytes, nan, g->pass_bytes, g->pass_bytes, 1) &&
              !b->dev->sync(b));
    ft_free(nan);
}
