/* Walks a program's list. */
#include "graph/internal.h"

#include "core/clock.h"

void ft_graph_run(struct ft_graph *g, enum ft_program p, struct ft_pool *pool, int64_t rows,
                  int64_t docs, struct ft_profile *profile)
{
    struct ft_kernel_ctx ctx = {.pool = pool, .rows = rows, .docs = docs};
    FT_ASSERT(g->block);
    for (int i = 0; i < g->programs[p].n; i++) {
        const struct ft_node *n = &g->programs[p].v[i];
        if (n->removed)
            continue;
        ctx.scratch = n->scratch ? n->scratch->t.data : NULL;
        double start = profile ? ft_now() : 0;
        g->backend->ops[n->op](&ctx, &n->args);
        if (!profile)
            continue;
        profile->seconds[n->op] += ft_now() - start;
        profile->flops[n->op] += ft_op_rows[n->op].cost(&n->args, rows, docs).flops;
        profile->runs[n->op]++;
    }
}

struct ft_cost ft_graph_cost(const struct ft_graph *g, enum ft_program p, int64_t rows,
                             int64_t docs, double flops[FT_OP_COUNT])
{
    struct ft_cost sum = {0};
    for (int i = 0; i < g->programs[p].n; i++) {
        const struct ft_node *n = &g->programs[p].v[i];
        if (n->removed)
            continue;
        struct ft_cost c = ft_op_rows[n->op].cost(&n->args, rows, docs);
        sum.flops += c.flops;
        sum.bytes += c.bytes;
        if (flops)
            flops[n->op] += c.flops;
    }
    return sum;
}

void ft_graph_poison(struct ft_graph *g)
{
    memset((char *)g->block + g->pass_begin, 0xff, g->pass_bytes);
}
