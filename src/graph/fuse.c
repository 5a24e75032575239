/* Owns the patterns that replace groups of ops by fused ones. */
#include "graph/internal.h"

#include "core/quant.h"

/* How often each value is read by nodes of the program. */
static void count_uses(const struct ft_nodes *list, int *uses)
{
    for (int i = 0; i < list->n; i++)
        for (int s = 0; !list->v[i].removed && s < ft_node_ins(&list->v[i]); s++)
            if (list->v[i].args.slots[s])
                uses[list->v[i].args.slots[s]->id]++;
}

/* The node that wrote the sum this product adds to, if the sum has no other reader. */
static struct ft_node *only_writer(struct ft_nodes *list, const struct ft_tensor *add,
                                   const int *uses, enum ft_op op)
{
    if (!add || uses[add->id] != 1)
        return NULL;
    int at = ft_value_of((struct ft_tensor *)add)->producer;
    if (at < 0 || list->v[at].removed || list->v[at].op != op)
        return NULL;
    return list->v[at].args.slots[ft_node_ins(&list->v[at])] == add ? &list->v[at] : NULL;
}

/* y = (x w^T ...) + u b^T: one product over K + R. The later node's place is kept, since u may be
 * computed between the two. */
static bool fuse_linear(struct ft_nodes *list, struct ft_node *n, const int *uses)
{
    struct ft_linear_args *low = &n->args.linear;
    if (low->u || low->bias || low->mask || ft_is_quant(low->w->dtype) ||
        low->x->cols > low->y->cols || ft_value_of(low->w)->producer >= 0)
        return false;
    struct ft_node *first = only_writer(list, low->add, uses, FT_OP_linear);
    if (!first || first->args.linear.u || first->args.linear.mask ||
        first->args.linear.offsets != low->offsets || low->x->cols > first->args.linear.x->cols)
        return false;
    struct ft_linear_args base = first->args.linear;
    base.u = low->x;
    base.b = low->w;
    base.beta = low->alpha;
    base.y = low->y;
    *low = base;
    first->removed = true;
    return true;
}

/* dx = (dy w ...) + du a, likewise. */
static bool fuse_linear_dx(struct ft_nodes *list, struct ft_node *n, const int *uses)
{
    struct ft_linear_dx_args *low = &n->args.linear_dx;
    if (low->du || ft_is_quant(low->w->dtype) || low->dy->cols > low->w->cols)
        return false;
    struct ft_node *first = only_writer(list, low->add, uses, FT_OP_linear_dx);
    if (!first || first->args.linear_dx.du || first->args.linear_dx.mask ||
        first->args.linear_dx.offsets != low->offsets ||
        low->dy->cols > first->args.linear_dx.dy->cols)
        return false;
    struct ft_linear_dx_args base = first->args.linear_dx;
    base.du = low->dy;
    base.a = low->w;
    base.mask = low->mask;
    base.beta = low->alpha;
    base.dx = low->dx;
    *low = base;
    first->removed = true;
    return true;
}

int ft_graph_fuse(struct ft_graph *g, enum ft_program p)
{
    struct ft_nodes *list = &g->programs[p];
    int *uses, fused = 0;
    if (g->rc)
        return 0;
    if ((g->rc = ft_alloc(&uses, (size_t)g->n_values, sizeof *uses)))
        return 0;
    count_uses(list, uses);
    for (int i = 0; i < list->n; i++) {
        struct ft_node *n = &list->v[i];
        if (!n->removed && n->op == FT_OP_linear)
            fused += fuse_linear(list, n, uses);
        else if (!n->removed && n->op == FT_OP_linear_dx)
            fused += fuse_linear_dx(list, n, uses);
    }
    ft_free(uses);
    return fused;
}
