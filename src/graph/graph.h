/* A training step as a list of ops.
 *
 * A model is built once with builder calls; ft_graph_backward() appends the backward ops; then
 * ft_graph_plan() gives every value a place in one block of memory, and ft_graph_run() walks a
 * program's list. Builder calls never fail on the spot: the graph remembers the first failure,
 * hands out a stand-in tensor, and ft_graph_plan() returns the failure.
 *
 * The programs share one plan and overlap in pass memory: FT_PASS adds un-normalised sums into the
 * window values, FT_EVAL is a forward pass, FT_UPDATE applies the optimizer, FT_START makes what is
 * derived from parameters that the host has just written. */
#ifndef FT_GRAPH_GRAPH_H
#define FT_GRAPH_GRAPH_H

#include "kernels/backend.h"

struct ft_graph;

enum ft_program { FT_PASS, FT_EVAL, FT_UPDATE, FT_START, FT_PROGRAMS };

/* What a value is for: the lines of the memory table. Those before FT_M_PASS live as long as the
 * graph; pass values and scratch are placed by lifetime. */
#define FT_MEMORY(X)                                                                               \
    X(WEIGHTS, "base weights")                                                                     \
    X(ADAPTER, "adapter")                                                                          \
    X(GRADIENT, "gradients")                                                                       \
    X(OPTIMIZER, "optimizer state")                                                                \
    X(CACHE, "keys and values")                                                                    \
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
extern const char *const ft_recompute_labels[];

/* For this backend, which must outlive the graph. */
int ft_graph_new(struct ft_graph **out, const struct ft_backend *b);
void ft_graph_free(struct ft_graph *g);

/* --- values; tensors belong to the graph; names are copied --- */

struct ft_tensor *ft_graph_value(struct ft_graph *g, enum ft_memory use, const char *name,
                                 enum ft_dtype dtype, int64_t rows, int64_t cols);
/* Batch data. The host fills it at ft_graph_host(), and it is on the device when the program runs.
 */
struct ft_tensor *ft_graph_input(struct ft_graph *g, const char *name, enum ft_dtype dtype,
                                 int64_t rows, int64_t cols, enum ft_extent extent);
/* rows x cols elements of a persistent value from element `first`. */
struct ft_tensor *ft_graph_view(struct ft_graph *g, struct ft_tensor *parent, const char *name,
                                int64_t rows, int64_t cols, int64_t first);
/* A view of a value's place: rows x cols from element `first`, ld elements from row to row. */
struct ft_tensor *ft_graph_part(struct ft_graph *g, struct ft_tensor *parent, const char *name,
                                int64_t rows, int64_t cols, int64_t first, int64_t ld);
/* Columns first to first+cols-1 of a value. Its gradient is the same columns of the value's own,
 * and each slice may have one reader that backward goes through. */
struct ft_tensor *ft_graph_columns(struct ft_graph *g, struct ft_tensor *parent, const char *name,
                                   int64_t cols, int64_t first);
/* A new value with t's rows for an op to write. On a device it lies behind the columns of t, if
 * nothing else does, so that a product can read both as one. */
struct ft_tensor *ft_graph_beside(struct ft_graph *g, struct ft_tensor *t, const char *name,
                                  int64_t cols);
/* From now on w is a trained parameter: the f32 gradient of its block at (row, col), which has
 * grad's shape, is multiplied with scale and summed into grad. A parameter may have several blocks.
 */
void ft_graph_train(struct ft_graph *g, struct ft_tensor *w, int64_t row, int64_t col,
                    struct ft_tensor *grad, float scale);

/* Where the gradient of a weight that is trained in one piece is summed; NULL: it is frozen, or
 * there is none. */
struct ft_tensor *ft_graph_whole_gradient(struct ft_tensor *w);

/* --- building: ops go to the current program; layer labels say what FT_RECOMPUTE_LAYER drops ---
 */

void ft_graph_begin(struct ft_graph *g, enum ft_program p);
/* Values built from here belong to this layer; h, its input, is always kept. */
void ft_graph_layer(struct ft_graph *g, int layer, struct ft_tensor *h);
/* Names the value for profiles and the memory table. */
struct ft_tensor *ft_graph_name(struct ft_graph *g, struct ft_tensor *t, const char *name);

/* y is made here. */
struct ft_tensor *ft_embed(struct ft_graph *g, struct ft_embed_args args);
/* Give x, w, bias (NULL: none), eps and offset; each row in `groups` groups. centred: LayerNorm. */
struct ft_tensor *ft_norm(struct ft_graph *g, struct ft_norm_args args, int64_t groups,
                          bool centred);
/* alpha x w^T + bias + add; bias and add may be NULL */
struct ft_tensor *ft_linear(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *w,
                            struct ft_tensor *bias, struct ft_tensor *add, float alpha);
/* alpha x w^T + bias + add + beta u b^T; y is made here unless it is given */
struct ft_tensor *ft_linear_low_rank(struct ft_graph *g, struct ft_linear_args args);
/* x w^T, in f32 on every backend. */
struct ft_tensor *ft_logits(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *w,
                            struct ft_tensor *bias);
/* Rotates q and k, the first two of qkv, and replaces them there; in one op if the three are slices
 * of one value, end to end. Give cos, sin, angles, head_dim and interleaved. */
void ft_rope_qkv(struct ft_graph *g, struct ft_tensor *qkv[3], struct ft_rope_args args);
/* Rotates the first `heads` heads of x: y and sign are set here. */
struct ft_tensor *ft_rope(struct ft_graph *g, struct ft_rope_args args);
/* Columns that lie by key head in the order all q, all k, all v; see struct ft_regroup_args. */
struct ft_tensor *ft_regroup(struct ft_graph *g, struct ft_tensor *x, int groups, int per_group,
                             int head_dim);
/* Heads of `width` columns: n of each of x's `heads`, from `first` on, then rest (NULL: none), then
 * zeros; see struct ft_pick_heads_args. */
struct ft_tensor *ft_pick_heads(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *rest,
                                int heads, int first, int n, int width);
/* Outputs in args are made here: give q, k, v, spans, cached, sinks (NULL: none) and the scalars.
 */
struct ft_tensor *ft_attention(struct ft_graph *g, struct ft_attention_args args);
/* Rows of x into rows of a persistent value. */
void ft_store(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *places,
              struct ft_tensor *y);
/* The rows of x that are picked, as many as picked has. */
struct ft_tensor *ft_gather(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *picked);
/* Where rows go: outputs are made here; give logits, bias (NULL: none) and the scalars; k experts a
 * row. */
struct ft_route_args ft_route(struct ft_graph *g, struct ft_route_args args, int64_t k);
/* How the rows were spread so far (NULL: the first), and with this choice: see ft_balance_args. */
struct ft_tensor *ft_balance(struct ft_graph *g, const struct ft_route_args *r,
                             struct ft_tensor *so_far);
/* In FT_PASS: adds the loss of an uneven spread. */
void ft_balance_loss(struct ft_graph *g, struct ft_balance_loss_args args);
/* The rows of x, sorted by expert; weighted: times their weights. */
struct ft_tensor *ft_spread(struct ft_graph *g, struct ft_tensor *x, const struct ft_route_args *r,
                            bool weighted);
/* add (NULL: none) and what the experts gave for each row of x's. */
struct ft_tensor *ft_collect(struct ft_graph *g, struct ft_tensor *x, const struct ft_route_args *r,
                             bool weighted, struct ft_tensor *add);
/* sigmoid(gate) x + add; add may be NULL */
struct ft_tensor *ft_gate_rows(struct ft_graph *g, struct ft_tensor *gate, struct ft_tensor *x,
                               struct ft_tensor *add);
/* act(gate) * up; up NULL: act(gate) */
struct ft_tensor *ft_glu(struct ft_graph *g, struct ft_tensor *gate, struct ft_tensor *up,
                         enum ft_activation act);
/* Of pairs that lie beside each other, cut at limit; see struct ft_glu_pairs_args. */
struct ft_tensor *ft_glu_pairs(struct ft_graph *g, struct ft_tensor *x, float alpha, float limit);
/* Which of `cols` columns each row keeps, as bits, for the masks of products; made here. */
struct ft_tensor *ft_dropout_mask(struct ft_graph *g, struct ft_dropout_mask_args args,
                                  int64_t cols);
struct ft_tensor *ft_dropout(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *keys,
                             float p, uint32_t site, uint64_t seed);
/* x with uniform noise of up to alpha / sqrt(its document's elements). */
struct ft_tensor *ft_noise(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *keys,
                           struct ft_tensor *spans, float alpha, uint64_t seed);
/* a + beta b */
struct ft_tensor *ft_add(struct ft_graph *g, struct ft_tensor *a, struct ft_tensor *b, float beta);
/* A matrix from two, as a value of the pass: y is made here. */
struct ft_tensor *ft_compose(struct ft_graph *g, struct ft_compose_args args, const char *name);
/* The lengths of the rows of w + scale b a, (1,N) f32, which backward takes as constants. */
struct ft_tensor *ft_row_norms(struct ft_graph *g, struct ft_tensor *w, struct ft_tensor *a,
                               struct ft_tensor *b, float scale);
/* y is made here. */
struct ft_tensor *ft_scale_columns(struct ft_graph *g, struct ft_scale_columns_args args);
/* In FT_PASS also the gradient of h, dh, which is made here; in FT_EVAL the loss only. */
void ft_head_loss(struct ft_graph *g, struct ft_head_loss_args args);
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
/* Takes the block from the backend and points every tensor into it. On a device, tensor->data is
 * then an address there. */
int ft_graph_place(struct ft_graph *g);
const struct ft_backend *ft_graph_backend(const struct ft_graph *g);

/* Where the host fills a batch value for the next ft_graph_run; changes with each run. */
void *ft_graph_host(const struct ft_graph *g, const struct ft_tensor *t);
/* Copies a whole contiguous tensor to and from the host; ft_graph_read waits for all work before
 * it. FT_ERESOURCE if the device has failed. */
int ft_graph_write(struct ft_graph *g, struct ft_tensor *t, const void *from);
int ft_graph_read(struct ft_graph *g, const struct ft_tensor *t, void *to);
/* Part of it: `bytes` from `at`. */
int ft_graph_write_part(struct ft_graph *g, struct ft_tensor *t, size_t at, const void *from,
                        size_t bytes);
/* One number of an F64 tensor, queued behind the runs so far: waits for none of them. */
int ft_graph_put(struct ft_graph *g, struct ft_tensor *t, int64_t element, double value);
/* Adds an error that says what failed on the device and in which op; returns FT_ERESOURCE. */
int ft_graph_device_failed(const struct ft_graph *g);

/* Seconds and cost by op kind, summed over runs. */
struct ft_profile {
    double seconds[FT_OP_COUNT], flops[FT_OP_COUNT], bytes[FT_OP_COUNT];
    int64_t runs[FT_OP_COUNT];
};

/* One run's counts; FT_ROWS at most the capacity. */
struct ft_run {
    int64_t counts[FT_EXTENTS];
};
/* profile may be NULL; with one, each op is waited for. On a device the run is queued, and its
 * failure may surface later. FT_ERESOURCE. */
int ft_graph_run(struct ft_graph *g, enum ft_program p, struct ft_pool *pool,
                 const struct ft_run *run, struct ft_profile *profile);

/* Summed cost of a program's run, by op kind into flops (may be NULL). */
struct ft_cost ft_graph_cost(const struct ft_graph *g, enum ft_program p, const struct ft_run *run,
                             double flops[FT_OP_COUNT]);

/* Seconds of a program's run at these rates (FLOPs and bytes a second): each op takes the larger of
 * what its FLOPs and its bytes take. */
double ft_graph_seconds(const struct ft_graph *g, enum ft_program p, const struct ft_run *run,
                        double flops, double bytes);

/* FLOPs of one pass in products, without what recompute adds. */
double ft_graph_useful_flops(const struct ft_graph *g, const struct ft_run *run);

/* The largest values of pass memory that live at its peak: for the memory table. */
struct ft_plan_line {
    const char *name;
    size_t bytes;
};
int ft_graph_peak_lines(const struct ft_graph *g, struct ft_plan_line *lines, int most);

/* Tests: fills pass memory with NaN. */
void ft_graph_poison(struct ft_graph *g);

#endif
