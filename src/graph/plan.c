/* Places every value in one block: persistent values as declared, pass values and scratch by
 * lifetime (place.c). */
#include "graph/internal.h"

enum { ALIGN = 256 }; /* what the matrix products of a device read fastest */

static size_t align_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static bool is_placed_by_lifetime(const struct ft_value *v)
{
    return v->use >= FT_M_PASS;
}

static void touch(struct ft_tensor *t, int at)
{
    struct ft_value *v = ft_value_of(t);
    for (; v; v = v->parent) { /* a view keeps what it lies in */
        if (v->first < 0)
            v->first = at;
        v->last = at;
    }
}

/* Positions count through all programs, so that values of different programs never live together.
 */
static void find_lifetimes(struct ft_graph *g)
{
    int at = 0;
    for (int i = 0; i < g->n_values; i++)
        g->values[i]->first = g->values[i]->last = -1;
    for (int p = 0; p < FT_PROGRAMS; p++)
        for (int i = 0; i < g->programs[p].n; i++, at++) {
            struct ft_node *n = &g->programs[p].v[i];
            for (int s = 0; !n->removed && s < ft_node_slots(n); s++)
                if (n->args.slots[s])
                    touch(n->args.slots[s], at);
        }
}

static int add_scratch(struct ft_graph *g)
{
    const struct ft_backend *b = g->backend;
    int at = 0;
    for (int p = 0; p < FT_PROGRAMS; p++)
        for (int i = 0; i < g->programs[p].n; i++, at++) {
            struct ft_node *n = &g->programs[p].v[i];
            const struct ft_op_row *row = &ft_op_rows[n->op];
            n->scratch = NULL;
            size_t bytes = n->removed || !b->scratch[n->op] ? 0 : b->scratch[n->op](&n->args);
            if (!bytes)
                continue;
            struct ft_tensor *t =
                ft_graph_value(g, FT_M_SCRATCH, row->name, FT_U8, 1, (int64_t)bytes);
            FT_TRY(g->rc);
            n->scratch = ft_value_of(t);
            n->scratch->first = n->scratch->last = at;
        }
    return FT_OK;
}

/* The value that t lies in, where the plan may put another one in its place after position `at`. */
static struct ft_value *place_of(const struct ft_tensor *t, int64_t *first)
{
    struct ft_value *v = ft_value_of((struct ft_tensor *)t);
    *first = v->parent ? v->first_element : 0;
    return v->parent ? v->parent : v;
}

/* Whether output `out` may take over the place of input `in` of node n, at position `at`: the op
 * allows it, nobody reads the place afterwards, and the two are laid out alike. A slice stands for
 * its whole parent, since the op treats all slices of a value alike. */
static bool can_share(const struct ft_node *n, const struct ft_tensor *out,
                      const struct ft_tensor *in, int at)
{
    int64_t first_out, first_in;
    const struct ft_value *o = place_of(out, &first_out), *p = place_of(in, &first_in);
    const struct ft_value *v = p->root;
    if (!is_placed_by_lifetime(v) || !is_placed_by_lifetime(o) || v->last != at || o->root != o ||
        o->first != at)
        return false;
    if (first_out != first_in || ft_tensor_bytes(&o->t) != ft_tensor_bytes(&v->t) ||
        ft_tensor_ld(&o->t) != ft_tensor_ld(&p->t) || !out->ld != !in->ld)
        return false;
    int readers = 0; /* the same elements in two inputs may not be overwritten */
    for (int s = 0; s < ft_node_ins(n); s++) {
        int64_t first;
        readers +=
            n->args.slots[s] && place_of(n->args.slots[s], &first)->root == v && first == first_in;
    }
    return readers == 1;
}

/* Lets outputs take over the place of inputs that nobody reads afterwards, where the op allows. */
static void share_places(struct ft_graph *g)
{
    int at = 0;
    int64_t first;
    for (int p = 0; p < FT_PROGRAMS; p++)
        for (int i = 0; i < g->programs[p].n; i++, at++) {
            struct ft_node *n = &g->programs[p].v[i];
            const struct ft_op_row *row = &ft_op_rows[n->op];
            for (int k = 0; !n->removed && row->overwrites[k][0] >= 0; k++) {
                struct ft_tensor *out = n->args.slots[row->n_in + row->overwrites[k][0]];
                struct ft_tensor *in = n->args.slots[(int)row->overwrites[k][1]];
                if (!out || !in || !can_share(n, out, in, at))
                    continue;
                struct ft_value *o = place_of(out, &first), *v = place_of(in, &first)->root;
                o->root = v;
                v->last = o->last;
            }
        }
}

static int count_positions(const struct ft_graph *g)
{
    int n = 0;
    for (int p = 0; p < FT_PROGRAMS; p++)
        n += g->programs[p].n;
    return n;
}

/* Whether v has a place of its own, which it keeps from `first` to `last`. */
static bool has_place(const struct ft_value *v)
{
    return is_placed_by_lifetime(v) && v->root == v && !v->parent && v->first >= 0;
}

static int place_by_lifetime(struct ft_graph *g)
{
    struct ft_value **todo;
    int n = 0;
    FT_TRY(ft_alloc(&todo, (size_t)g->n_values + 1, sizeof *todo));
    for (int i = 0; i < g->n_values; i++)
        if (has_place(g->values[i]))
            todo[n++] = g->values[i];
    int rc = ft_place_values(todo, n, count_positions(g), &g->pass_bytes);
    ft_free(todo);
    return rc;
}

/* The position at which most lives, and how much of that is scratch. */
static int find_peak(struct ft_graph *g, struct ft_plan *plan)
{
    const int positions = count_positions(g);
    int64_t *change, now[2] = {0}, best = 0; /* of all; of scratch */
    FT_TRY(ft_alloc(&change, 2 * (size_t)positions + 2, sizeof *change));
    for (int i = 0; i < g->n_values; i++) {
        const struct ft_value *v = g->values[i];
        for (int scratch = 0; has_place(v) && scratch <= (v->use == FT_M_SCRATCH); scratch++) {
            change[2 * v->first + scratch] += (int64_t)v->bytes;
            change[2 * v->last + 2 + scratch] -= (int64_t)v->bytes;
        }
    }
    for (int at = 0; at < positions; at++) {
        now[0] += change[2 * at];
        now[1] += change[2 * at + 1];
        if (now[0] > best) {
            best = now[0];
            g->peak = at;
            plan->used[FT_M_SCRATCH] = (size_t)now[1];
        }
    }
    ft_free(change);
    plan->used[FT_M_PASS] = g->pass_bytes - plan->used[FT_M_SCRATCH];
    return FT_OK;
}

/* How far rows lie apart, once it is known what lies behind their columns. */
static void set_strides(struct ft_graph *g)
{
    for (int i = 0; i < g->n_values; i++) {
        struct ft_value *v = g->values[i];
        if (v->room > v->t.cols)
            v->t.ld = (v->room + 7) / 8 * 8; /* 16 bytes of bf16 */
    }
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i]->columns)
            g->values[i]->t.ld = ft_tensor_ld(&g->values[i]->parent->t);
}

int ft_graph_plan(struct ft_graph *g, struct ft_plan *plan)
{
    struct ft_plan none;
    size_t at = 0;
    FT_TRY(g->rc);
    plan = plan ? plan : &none;
    *plan = (struct ft_plan){0};
    set_strides(g);
    find_lifetimes(g);
    FT_TRY(add_scratch(g));
    for (int i = 0; i < g->n_values; i++)
        g->values[i]->bytes = align_up(ft_tensor_bytes(&g->values[i]->t));
    share_places(g);
    for (int use = 0; use < FT_M_PASS; use++) {
        if (use == FT_M_BATCH)
            g->batch_begin = at;
        for (int i = 0; i < g->n_values; i++) {
            struct ft_value *v = g->values[i];
            if ((int)v->use != use || v->parent)
                continue;
            v->offset = at;
            at += v->bytes;
            plan->used[use] += v->bytes;
        }
        if (use == FT_M_BATCH)
            g->batch_bytes = at - g->batch_begin;
    }
    FT_TRY(place_by_lifetime(g));
    g->pass_begin = at;
    g->block_bytes = at + g->pass_bytes;
    FT_TRY(find_peak(g, plan));
    plan->total = g->block_bytes;
    plan->values = g->n_values;
    for (int p = 0; p < FT_PROGRAMS; p++)
        for (int i = 0; i < g->programs[p].n; i++)
            plan->nodes[p] += !g->programs[p].v[i].removed;
    return FT_OK;
}

static size_t place_offset(const struct ft_graph *g, const struct ft_value *v)
{
    return v->root->offset + (is_placed_by_lifetime(v) ? g->pass_begin : 0);
}

int ft_graph_place(struct ft_graph *g)
{
    FT_ASSERT(!g->block);
    FT_TRY(ft_backend_alloc(g->backend, &g->block, g->block_bytes));
    char *base = g->block;
    for (int i = 0; i < g->n_values; i++) {
        struct ft_value *v = g->values[i];
        v->t.data = base + place_offset(g, v->parent ? v->parent : v);
        if (v->parent)
            v->t.data = (char *)v->t.data + (size_t)v->first_element * ft_dtype_size(v->t.dtype);
    }
    return g->backend->dev ? ft_device_state_new(g) : FT_OK;
}

static int by_bytes(const void *a, const void *b)
{
    const struct ft_plan_line *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : strcmp(x->name, y->name);
}

int ft_graph_peak_lines(const struct ft_graph *g, struct ft_plan_line *lines, int most)
{
    struct ft_plan_line all[64];
    int n = 0;
    for (int i = 0; i < g->n_values; i++) {
        const struct ft_value *v = g->values[i];
        if (!has_place(v) || v->first > g->peak || v->last < g->peak)
            continue;
        int k = 0;
        while (k < n && strcmp(all[k].name, v->t.name) != 0)
            k++;
        if (k == 64)
            continue;
        if (k == n)
            all[n++] = (struct ft_plan_line){v->t.name, 0};
        all[k].bytes += v->bytes;
    }
    qsort(all, (size_t)n, sizeof *all, by_bytes);
    n = n < most ? n : most;
    memcpy(lines, all, (size_t)n * sizeof *all);
    return n;
}
