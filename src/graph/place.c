/* Finds places for values by lifetime: largest first, each at the lowest place that is free while
 * it lives. Measured on training steps, the block is then as large as what lives at its peak.
 *
 * A segment tree over the positions knows what is taken: a node has the places of values that live
 * throughout its positions, and of those that live at any of them, as ranges that are joined where
 * they touch. Values that live together lie close, so that there are few ranges. */
#include "graph/internal.h"

struct range {
    size_t at, end;
};

/* Sorted, none touching another. */
struct cover {
    struct range *v;
    int n, room;
};

struct node {
    struct cover all, any;
};

struct tree {
    struct node *nodes; /* children of i: 2i, 2i+1; leaves, a power of two, from `leaves` on */
    int leaves;
    struct cover taken; /* of one search */
};

static int make_room(struct cover *c, int n)
{
    if (n <= c->room)
        return FT_OK;
    int room = c->room ? 2 * c->room : 4;
    while (room < n)
        room *= 2;
    FT_TRY(ft_grow(&c->v, (size_t)room, sizeof *c->v));
    c->room = room;
    return FT_OK;
}

/* The first range that ends at `at` or behind. */
static int first_behind(const struct cover *c, size_t at)
{
    int low = 0, high = c->n;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (c->v[middle].end < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int add(struct cover *c, struct range r)
{
    int from = first_behind(c, r.at), to = from;
    for (; to < c->n && c->v[to].at <= r.end; to++) {
        r.at = c->v[to].at < r.at ? c->v[to].at : r.at;
        r.end = c->v[to].end > r.end ? c->v[to].end : r.end;
    }
    FT_TRY(make_room(c, c->n + 1));
    memmove(c->v + from + 1, c->v + to, (size_t)(c->n - to) * sizeof *c->v);
    c->v[from] = r;
    c->n += 1 - (to - from);
    return FT_OK;
}

static int add_all(struct cover *to, const struct cover *from)
{
    FT_TRY(make_room(to, to->n + from->n));
    if (from->n)
        memcpy(to->v + to->n, from->v, (size_t)from->n * sizeof *from->v);
    to->n += from->n;
    return FT_OK;
}

static int by_at(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* What is taken while a value lives: at any position of the nodes that its life is made of, and
 * throughout those that contain its beginning or end. */
static int search(struct tree *t, const struct ft_value *v, size_t *offset)
{
    int l = v->first + t->leaves, r = v->last + t->leaves + 1;
    t->taken.n = 0;
    for (int a = l, b = r; a < b; a /= 2, b /= 2) {
        if (a & 1)
            FT_TRY(add_all(&t->taken, &t->nodes[a++].any));
        if (b & 1)
            FT_TRY(add_all(&t->taken, &t->nodes[--b].any));
    }
    for (int a = l, b = r - 1; a > 0; a /= 2, b /= 2) {
        FT_TRY(add_all(&t->taken, &t->nodes[a].all));
        if (b != a)
            FT_TRY(add_all(&t->taken, &t->nodes[b].all));
    }
    if (t->taken.n)
        qsort(t->taken.v, (size_t)t->taken.n, sizeof *t->taken.v, by_at);
    size_t at = 0;
    for (int i = 0; i < t->taken.n && t->taken.v[i].at < at + v->bytes; i++)
        at = t->taken.v[i].end > at ? t->taken.v[i].end : at;
    *offset = at;
    return FT_OK;
}

static int take(struct tree *t, const struct ft_value *v)
{
    const struct range range = {v->offset, v->offset + v->bytes};
    int l = v->first + t->leaves, r = v->last + t->leaves + 1;
    for (int a = l, b = r; a < b; a /= 2, b /= 2) {
        const int sides[2] = {a & 1 ? a++ : 0, b & 1 ? --b : 0};
        for (int i = 0; i < 2; i++)
            if (sides[i]) {
                FT_TRY(add(&t->nodes[sides[i]].all, range));
                FT_TRY(add(&t->nodes[sides[i]].any, range));
            }
    }
    for (int a = l, b = r - 1; a > 0; a /= 2, b /= 2) {
        FT_TRY(add(&t->nodes[a].any, range));
        if (b != a)
            FT_TRY(add(&t->nodes[b].any, range));
    }
    return FT_OK;
}

static void free_tree(struct tree *t)
{
    for (int i = 0; t->nodes && i < 2 * t->leaves; i++) {
        ft_free(t->nodes[i].all.v);
        ft_free(t->nodes[i].any.v);
    }
    ft_free(t->nodes);
    ft_free(t->taken.v);
}

static int by_size(const void *a, const void *b)
{
    const struct ft_value *x = *(struct ft_value *const *)a, *y = *(struct ft_value *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->t.id - y->t.id;
}

int ft_place_values(struct ft_value **values, int n, int positions, size_t *bytes)
{
    struct tree t = {.leaves = 1};
    while (t.leaves < positions)
        t.leaves *= 2;
    qsort(values, (size_t)n, sizeof *values, by_size);
    *bytes = 0;
    int rc = ft_alloc(&t.nodes, 2 * (size_t)t.leaves, sizeof *t.nodes);
    for (int i = 0; i < n && !rc; i++) {
        rc = search(&t, values[i], &values[i]->offset);
        if (!rc)
            rc = take(&t, values[i]);
        if (values[i]->offset + values[i]->bytes > *bytes)
            *bytes = values[i]->offset + values[i]->bytes;
    }
    free_tree(&t);
    return rc;
}
