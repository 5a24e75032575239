/* Tries of bytes: one hash table from (node, byte) to node. */
#include "text/internal.h"

struct edge {
    uint64_t key; /* node << 8 | byte, plus one; 0: free */
    int32_t to;
};

struct ft_trie {
    struct edge *edges;
    size_t mask;
    int32_t *values;
    int32_t nodes, room;
};

int ft_trie_new(struct ft_trie **out, size_t bytes)
{
    struct ft_trie *t;
    size_t room = 64;
    *out = NULL;
    while (room < 2 * bytes)
        room *= 2;
    FT_TRY(ft_alloc(&t, 1, sizeof *t));
    int rc = ft_alloc(&t->edges, room, sizeof *t->edges);
    if (!rc)
        rc = ft_alloc(&t->values, bytes + 1, sizeof *t->values);
    if (rc) {
        ft_trie_free(t);
        return rc;
    }
    t->mask = room - 1;
    t->room = (int32_t)bytes + 1;
    t->nodes = 1;
    t->values[0] = -1;
    *out = t;
    return FT_OK;
}

void ft_trie_free(struct ft_trie *t)
{
    if (!t)
        return;
    ft_free(t->edges);
    ft_free(t->values);
    ft_free(t);
}

static struct edge *edge_of(const struct ft_trie *t, int32_t node, unsigned char byte)
{
    const uint64_t key = ((uint64_t)(uint32_t)node << 8 | byte) + 1;
    size_t i = (size_t)(key * 0x9e3779b97f4a7c15u >> 24) & t->mask;
    while (t->edges[i].key && t->edges[i].key != key)
        i = (i + 1) & t->mask;
    return &t->edges[i];
}

int ft_trie_put(struct ft_trie *t, const char *p, size_t n, int32_t value)
{
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        struct edge *e = edge_of(t, node, (unsigned char)p[i]);
        if (!e->key) {
            FT_ASSERT(t->nodes < t->room);
            e->key = ((uint64_t)(uint32_t)node << 8 | (unsigned char)p[i]) + 1;
            e->to = t->nodes;
            t->values[t->nodes++] = -1;
        }
        node = e->to;
    }
    t->values[node] = value;
    return FT_OK;
}

int32_t ft_trie_step(const struct ft_trie *t, int32_t node, unsigned char byte)
{
    const struct edge *e = edge_of(t, node, byte);
    return e->key ? e->to : -1;
}

int32_t ft_trie_value(const struct ft_trie *t, int32_t node)
{
    return t->values[node];
}
