/* What the files of graph/ share. */
#ifndef FT_GRAPH_INTERNAL_H
#define FT_GRAPH_INTERNAL_H

#include "graph/graph.h"

#include "core/mem.h"
#include "core/status.h"

#include <stdlib.h>
#include <string.h>

struct ft_value {
    struct ft_tensor t; /* first: a tensor of the graph is its value */
    enum ft_memory use;
    int layer;                  /* -1 outside the layers */
    int producer;               /* node of FT_PASS that writes it; -1: none */
    bool keep;                  /* a layer's input: never recomputed */
    bool annexed;               /* something lies behind its columns */
    bool columns;               /* a view of columns: rows lie as far apart as its parent's */
    int64_t room;               /* columns that a row must have space for; 0: its own */
    bool needs_grad;            /* a trained parameter, or computed from one */
    struct ft_trained *trained; /* a parameter's blocks */
    struct ft_tensor *grad;     /* the gradient so far in backward */
    struct ft_tensor *again;    /* its recomputed twin, once there is one */
    /* views: of a persistent value's elements, or of a pass value's columns */
    struct ft_value *parent;
    int64_t first_element;
    /* the plan */
    int first, last;       /* positions in the concatenated programs; -1: never used */
    struct ft_value *root; /* the value whose place it shares; itself if none */
    size_t offset, bytes;
};

/* A block of a parameter, see ft_graph_train. */
struct ft_trained {
    struct ft_tensor *grad;
    int64_t row, col;
    float scale;
    struct ft_trained *next;
};

struct ft_node {
    enum ft_op op;
    union ft_op_args args;
    int layer;
    bool removed, again;      /* again: computes what was computed before */
    struct ft_value *scratch; /* NULL: none */
};

struct ft_nodes {
    struct ft_node *v;
    int n, room;
};

struct ft_graph {
    struct ft_arena arena;
    struct ft_value **values;
    int n_values, room_values;
    struct ft_nodes programs[FT_PROGRAMS];
    enum ft_program current;
    int layer;
    int rc;                  /* the first failure */
    struct ft_value standin; /* handed out after it */
    size_t block_bytes, pass_begin, pass_bytes;
    int peak; /* position at which pass memory is largest */
    const struct ft_backend *backend;
    void *block;
    size_t batch_begin, batch_bytes; /* FT_M_BATCH values within the block */
    struct ft_tensor *live;          /* I32 (1,FT_EXTENTS); devices only */
    struct ft_device_state *device;  /* NULL on the CPU */
};

/* device.c: staging buffers and recordings. */
int ft_device_state_new(struct ft_graph *g);
void ft_device_state_free(struct ft_graph *g);
/* Runs a program on a device: from a recording where it can. */
int ft_device_run(struct ft_graph *g, enum ft_program p, const struct ft_run *run,
                  struct ft_profile *profile);
/* Walks a program's list; on a device this queues it. */
int ft_graph_walk(struct ft_graph *g, enum ft_program p, struct ft_kernel_ctx *ctx,
                  struct ft_profile *profile);

/* place.c: offsets for values that live from `first` to `last`, of so many positions; *bytes is the
 * end of the highest. Sorts the list. */
int ft_place_values(struct ft_value **values, int n, int positions, size_t *bytes);

static inline struct ft_value *ft_value_of(struct ft_tensor *t)
{
    return (struct ft_value *)t; /* t is its first member */
}

/* A pass value of the current program. */
struct ft_tensor *ft_graph_temp(struct ft_graph *g, const char *name, int64_t rows, int64_t cols);
/* The same shape, dtype and extent as `like`; and with room for what lies behind its columns. */
struct ft_tensor *ft_graph_plain(struct ft_graph *g, const char *name,
                                 const struct ft_tensor *like);
struct ft_tensor *ft_graph_like(struct ft_graph *g, const char *name, const struct ft_tensor *like);

/* On a device, makes rows of a pass value at least `cols` long. */
void ft_graph_reserve(struct ft_graph *g, struct ft_tensor *t, int64_t cols);

/* Inputs and outputs of a node, as the row counts them. */
static inline int ft_node_ins(const struct ft_node *n)
{
    return ft_op_rows[n->op].n_in;
}

static inline int ft_node_slots(const struct ft_node *n)
{
    return ft_op_rows[n->op].n_in + ft_op_rows[n->op].n_out;
}

#endif
