/* A training step as a list of ops.
 *
 * A model is built once with builder calls; ft_graph_backward() appends the backward ops; then
 * ft_graph_plan() gives every value a place in one block of memory, and ft_graph_run() walks a
 * program's list. Builder calls never fail on the spot: the graph remembers the first failure,
 * hands out a stand-in tensor, and ft_graph_plan() returns the failure.
 *
 * Three programs share one plan and overlap in pass memory: FT_PASS adds un-normalised sums into
 * the window values, FT_EVAL is a forward pass, FT_UPDATE applies the optimizer. */
#ifndef FT_GRAPH_GRAPH_H
#define FT_GRAPH_GRAPH_H

#include "kernels/backend.h"

struct ft_graph;

enum ft_program { FT_PASS, FT_EVAL, FT_UPDATE, FT_PROGRAMS };

/* What a value is for: the lines of the memory table. Those before FT_M_PASS live as long as the
 * graph; pass values and scratch are placed by lifetime. */
#define FT_MEMORY(X)                                                                               \
    X(WEIGHTS, "base weights")                                                                     \
    X(ADAPTER, "adapter")                                                                          \
    X(GRADIENT, "gradients")                                                                       \
    X(OPTIMIZER, "optimizer state")                                                                \
    X(BATCH, "batch")                                                                              \
    X(PASS, "activations")                                                                         \
    X(SCRATCH, "scratch")
enum ft_memory {
#define X(name, label) FT_M_##name,
    FT_MEMORY(X)
#undef X
        FT_MEMORY_COUNT
};
extern const char *const ft_memory_labels[FT_MEMORY_COUNT];

/* Which forward values backward computes again instead of keeping. The bits are the same. */
enum ft_recompute {
    FT_KEEP_ALL,
    FT_RECOMPUTE_CHEAP, /* norms, SwiGLU, dropout */
    FT_RECOMPUTE_LAYER, /* everything but the layers' inputs */
};

int ft_graph_new(struct ft_graph **out);
void ft_graph_free(struct ft_graph *g);

/* --- values; tensors belong to the graph; names are copied --- */

struct ft_tensor *ft_graph_value(struct ft_graph *g, enum ft_memory use, const char *name,
                                 enum ft_dtype dtype, int64_t rows, int64_t cols);
/* Batch data: rows follow the live count if live. */
struct ft_tensor *ft_graph_input(struct ft_graph *g, const char *name, enum ft_dtype dtype,
                                 int64_t rows, int64_t cols, bool live);
/* rows x cols elements of parent from element `first`. */
struct ft_tensor *ft_graph_view(struct ft_graph *g, struct ft_tensor *parent, const char *name,
                                int64_t rows, int64_t cols, int64_t first);
/* From now on w is a trained parameter, whose gradient is summed into grad (same shape). */
void ft_graph_train(struct ft_graph *g, struct ft_tensor *w, struct ft_tensor *grad);

/* --- building: ops go to the current program; layer labels say what FT_RECOMPUTE_LAYER drops ---
 */

void ft_graph_begin(struct ft_graph *g, enum ft_program p);
/* Values built from here belong to this layer; h, its input, is always kept. */
void ft_graph_layer(struct ft_graph *g, int layer, struct ft_tensor *h);
/* Names the value for profiles and the memory table. */
struct ft_tensor *ft_graph_name(struct ft_graph *g, struct ft_tensor *t, const char *name);

struct ft_tensor *ft_embed(struct ft_graph *g, struct ft_tensor *ids, struct ft_tensor *w,
                           float scale);
struct ft_tensor *ft_rmsnorm(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *w,
                             float eps, float offset);
/* alpha x w^T + bias + add; bias and add may be NULL */
struct ft_tensor *ft_linear(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *w,
                            struct ft_tensor *bias, struct ft_tensor *add, float alpha);
struct ft_tensor *ft_rope(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *cos,
                          struct ft_tensor *sin, int heads, int head_dim);
/* Outputs in args are made here: give q, k, v, offsets and the scalars. */
struct ft_tensor *ft_attention(struct ft_graph *g, struct ft_attention args);
struct ft_tensor *ft_swiglu(struct ft_graph *g, struct ft_tensor *gate, struct ft_tensor *up);
struct ft_tensor *ft_dropout(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *keys,
                             float p, uint32_t site, uint64_t seed);
struct ft_tensor *ft_add(struct ft_graph *g, struct ft_tensor *a, struct ft_tensor *b);
/* In FT_PASS also the gradient of h; in FT_EVAL the loss only. */
void ft_head_loss(struct ft_graph *g, struct ft_tensor *h, struct ft_tensor *w,
                  struct ft_tensor *targets, struct ft_tensor *scalars);
/* The optimizer's ops take their tensors as they are. */
void ft_graph_emit(struct ft_graph *g, enum ft_op op, const union ft_op_args *args);

/* Replaces products by fused ones (base product + low-rank product). Call before and after
 * ft_graph_backward; changes no bit. Returns how many were fused. */
int ft_graph_fuse(struct ft_graph *g, enum ft_program p);

/* Appends the gradients of the head_loss in FT_PASS. Nothing is computed that no trained parameter
 * depends on. */
void ft_graph_backward(struct ft_graph *g, enum ft_recompute policy);

/* --- placing and running --- */

struct ft_plan {
    size_t total;                 /* bytes of the block */
    size_t used[FT_MEMORY_COUNT]; /* PASS: the peak of activations and scratch together less the
                                     scratch at that peak; SCRATCH: that scratch */
    int values, nodes[FT_PROGRAMS];
};

/* Places every value; no memory is taken. plan may be NULL. */
int ft_graph_plan(struct ft_graph *g, struct ft_plan *plan);
/* Takes the block from the backend and points every tensor into it. */
int ft_graph_place(struct ft_graph *g, const struct ft_backend *b);

/* Seconds and cost by op kind, summed over runs. */
struct ft_profile {
    double seconds[FT_OP_COUNT], flops[FT_OP_COUNT];
    int64_t runs[FT_OP_COUNT];
};

/* rows <= capacity live rows in docs documents; profile may be NULL. */
void ft_graph_run(struct ft_graph *g, enum ft_program p, struct ft_pool *pool, int64_t rows,
                  int64_t docs, struct ft_profile *profile);

/* Summed cost of a program with this many live rows in docs documents, by op kind into flops (may
 * be NULL). */
struct ft_cost ft_graph_cost(const struct ft_graph *g, enum ft_program p, int64_t rows,
                             int64_t docs, double flops[FT_OP_COUNT]);

/* The largest values of pass memory that live at its peak: for the memory table. */
struct ft_plan_line {
    const char *name;
    size_t bytes;
};
int ft_graph_peak_lines(const struct ft_graph *g, struct ft_plan_line *lines, int most);

/* Tests: fills pass memory with NaN. */
void ft_graph_poison(struct ft_graph *g);

#endif
