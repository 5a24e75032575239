/* A Hugging Face model folder: its configuration, its weights, and the forward graph. */
#ifndef FT_MODEL_MODEL_H
#define FT_MODEL_MODEL_H

#include "core/status.h"
#include "model/decoder.h"

/* A linear module: what adapters attach to. */
struct ft_module {
    const char *name; /* its path in transformers: "model.layers.0.self_attn.q_proj" */
    enum ft_kind kind;
    int64_t in, out;
    int layer;
    const char *once; /* of experts: what came before their numbers when each was modules of
                         its own; NULL: they never were */
    int64_t experts;  /* matrices of all experts below each other, each (out, in); 1 */
    int group;        /* modules of one group follow each other and read the same input */
    struct ft_tensor *w, *bias; /* bias NULL: none; both NULL until declared */
};

/* The weights of a group as one matrix, for a device: K inputs, N outputs, and room for R columns
 * of adapters behind and R rows below, so that W and its adapters are one operand each way:
 *
 *     w = [ W  sB ]   N rows      u = x A^T,  y = [x|u] [W|sB]^T + bias + add
 *         [ A   0 ]   R rows     du = dy sB, dx = [dy|du] [W;A]
 *
 * sB is block-diagonal where several modules lie in it. */
struct ft_stack {
    struct ft_tensor *w;    /* (N+R, K+R), FT_M_WEIGHTS; zeros but for W */
    struct ft_tensor *bias; /* (1,N) or NULL */
    int64_t in, out, rank;  /* K, N, R */
};

struct ft_model;

/* A model that is no more than a shape, for benchmarks: its weights are made when they are loaded.
 */
struct ft_shape {
    const char *name;         /* "llama-3-8b" */
    const char *architecture; /* a row of the family table, with these numbers */
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn;
    bool tied;
    double theta;
    int64_t rows; /* of a micro-batch that a GPU of 80 GB or more works well with */
};
extern const struct ft_shape ft_shapes[];
extern const int ft_shape_count;
const struct ft_shape *ft_shape_find(const char *name); /* NULL: none */
int ft_model_make(struct ft_model **out, const struct ft_shape *shape);

/* Reads config.json and the headers of the weights, and checks every name, shape and dtype; no
 * weight is read. FT_EDATA. */
int ft_model_open(struct ft_model **out, const char *folder);
void ft_model_close(struct ft_model *m);

const struct ft_decoder *ft_model_decoder(const struct ft_model *m);
/* Says otherwise than config.json whether the loss has a part for even routing, and how much that
 * counts. False: the model's loss has no such part. */
bool ft_model_balance(struct ft_model *m, bool balanced, double rate);
/* The beginning of the modules' names where the folder's model has other parts too; NULL: it has
 * none. */
const char *ft_model_scope(const struct ft_model *m);
const char *ft_model_architecture(const struct ft_model *m);
int ft_model_modules(const struct ft_model *m, const struct ft_module **out);
int64_t ft_model_parameters(const struct ft_model *m);
/* Those that a token meets: of experts, its share. */
int64_t ft_model_active(const struct ft_model *m);
/* The weight files' paths, for hashing. */
int ft_model_files(const struct ft_model *m);
const char *ft_model_file(const struct ft_model *m, int i);

/* Columns that an adapter needs behind the weights of modules first..first+n-1, one group: the sum
 * of their ranks, rounded up to 8. */
typedef int64_t ft_model_rank_fn(void *ctx, int first, int n);

/* The folder's weights, as far as they are the decoder's. */
struct ft_model_weight {
    const char *path; /* in transformers: "model.norm.weight" */
    enum ft_weight_kind {
        FT_W_LINEAR,
        FT_W_BIAS,
        FT_W_NORM,
        FT_W_EMBED,
        FT_W_POSITIONS, /* a learned table of them */
        FT_W_HEAD,
        FT_W_ROUTER,
        FT_W_BUFFER,  /* is never trained: biases of routers and experts */
        FT_W_SCORE,   /* nor is this, and f32 stays f32 on a device: sinks, corrections of scores */
        FT_W_EXPERTS, /* of all experts, below each other */
    } kind;
    int64_t rows, cols; /* cols 0: a vector of `rows` */
};
int ft_model_weights(const struct ft_model *m);
struct ft_model_weight ft_model_weight(const struct ft_model *m, int i);
/* Rows are added to the embedding and the head, up to a vocabulary of `rows`; they begin as the
 * mean of the others. Before anything else asks for the weights. */
void ft_model_enlarge(struct ft_model *m, int64_t rows);
/* From now on a head that is the embedding is a weight of its own, which begins with the same
 * values; before ft_model_declare. */
int ft_model_untie(struct ft_model *m);
/* How linear modules are to be quantised while they are loaded. */
struct ft_quantisation {
    int bits;                  /* 4, 8, or 0: not */
    bool fp4, nested, experts; /* the weights of experts too */
    const char *const *skip;   /* beginnings or ends of modules' names; NULL ends; may be NULL */
};
/* Before ft_model_declare. FT_ECONFIG if the folder's weights are quantised otherwise. */
int ft_model_quantise(struct ft_model *m, const struct ft_quantisation *o);
bool ft_model_is_quantised(const struct ft_model *m);
/* Whether the files are GGUF's: weights can be read from them, and not written again. */
bool ft_model_is_gguf(const struct ft_model *m);
/* Bytes of all weights if they were quantised so (0 bits: as they are), and on a device those
 * that the largest is widened to. 0: the folder is quantised already. */
size_t ft_model_bytes_as(const struct ft_model *m, const struct ft_quantisation *o, bool device);
/* Whether a weight of the group that begins at this module is quantised: no stack holds them. */
bool ft_model_is_apart(const struct ft_model *m, int first);
/* Its value in the graph, after ft_model_declare. */
struct ft_tensor *ft_model_weight_value(const struct ft_model *m, int i);
/* Its values as f32, as the modules multiply with it; FT_EDATA if one is not finite. */
int ft_model_weight_read(const struct ft_model *m, int i, bool allow_nonfinite, float *out);
/* `count` rows from `first` of a weight that is not stored transposed. */
int ft_model_weight_rows(const struct ft_model *m, int i, int64_t first, int64_t count,
                         bool allow_nonfinite, float *out);
/* The weight with this path in transformers; of a tied head, the embedding. -1: none. */
int ft_model_weight_find(const struct ft_model *m, const char *path);
/* Writes the folder's weight files to another folder, those of `trained` (by ctx's answer: their
 * f32 values, or NULL for a weight that is as it was) with new values, in the dtype of before. */
typedef const float *ft_model_trained_fn(void *ctx, int weight);
int ft_model_save(const struct ft_model *m, const char *folder, ft_model_trained_fn *trained,
                  void *ctx);
/* Writes all weights in one dtype (F32, F16 or BF16) as a folder of transformers': from quantised
 * ones and GGUF files too. values gives a weight's in f32, until its next call. FT_EDATA for a
 * model that also sees, whose other weights ft does not know. */
typedef int ft_model_values_fn(void *ctx, int weight, const float **out);
int ft_model_save_as(const struct ft_model *m, const char *folder, enum ft_dtype dtype,
                     ft_model_values_fn *values, void *ctx);

/* Declares the weights as values of the graph, once per graph. On a backend with bf16 activations
 * all are bf16 but those of quantised modules, and a group's weights lie in one matrix (struct
 * ft_stack) with room for `rank` (NULL: none), which ft_model_stack gives, if none is quantised.
 * place (NULL: none) gives the value of a weight that belongs to somebody else, who fills it; NULL
 * for the others. */
typedef struct ft_tensor *ft_model_place_fn(void *ctx, struct ft_graph *g, int weight);
int ft_model_declare(struct ft_model *m, struct ft_graph *g, ft_model_rank_fn *rank, void *rank_ctx,
                     ft_model_place_fn *place, void *place_ctx);
/* The stack of the group that starts at module `first`, its weights only; NULL if groups are not
 * stacked. */
const struct ft_stack *ft_model_stack(const struct ft_model *m, int first);

/* How a group of linear modules is computed: the base products, and an adapter's where a module has
 * one. add, if any, goes to the only module of its group. */
typedef void ft_model_linear_fn(void *ctx, struct ft_graph *g, int first, int n,
                                struct ft_tensor *x, struct ft_tensor *add, struct ft_tensor **out);
/* The same for a module of all experts: x are routed rows, offsets as of route. */
typedef struct ft_tensor *ft_model_experts_fn(void *ctx, struct ft_graph *g, int module,
                                              struct ft_tensor *x, struct ft_tensor *offsets);

/* What h, the embedding as base computed it, becomes. */
typedef struct ft_tensor *ft_model_embed_fn(void *ctx, struct ft_graph *g,
                                            const struct ft_embed_args *base, struct ft_tensor *h);

/* Attention of a layer: what becomes of q, k and v, in its own way. */
typedef struct ft_tensor *ft_model_attend_fn(void *ctx, struct ft_graph *g, int layer,
                                             struct ft_attention_args args);

struct ft_model_inputs {
    struct ft_tensor *ids, *angles, *spans;          /* I32 (T,1), (T,1), (T,2): kernels/ops.h */
    struct ft_tensor *chunks;                        /* spans of chunked layers; NULL: none are */
    struct ft_tensor *cos[FT_ROPES], *sin[FT_ROPES]; /* (P, dim/2) */
    ft_model_linear_fn *linear;                      /* NULL: base products only */
    ft_model_experts_fn *experts;                    /* NULL: likewise */
    ft_model_embed_fn *embed;                        /* NULL: the embedding only */
    ft_model_attend_fn *attend;                      /* NULL: over the pass's own keys */
    void *ctx;                                       /* of these */
    struct ft_tensor **balance; /* gets how the rows are spread over experts; NULL: not asked for */
};

/* The forward pass in the graph's current program: the normed hidden states that the head reads. */
struct ft_tensor *ft_model_build(struct ft_model *m, struct ft_graph *g,
                                 const struct ft_model_inputs *in);
struct ft_tensor *ft_model_head(const struct ft_model *m); /* the head's weight, tied or not */

/* Bytes of host memory that loading to a device goes through; and those that one weight takes while
 * it is turned (where it is stored transposed) or quantised. */
size_t ft_model_staging(const struct ft_model *m);
size_t ft_model_loading(const struct ft_model *m, bool device);
/* Reads all weights to where the graph has placed them, and looks for NaN and infinities on the way
 * unless allow_nonfinite. progress may be NULL; it is called from this thread. */
typedef void ft_model_progress_fn(void *ctx, uint64_t done, uint64_t total);
int ft_model_load(struct ft_model *m, struct ft_graph *g, struct ft_pool *pool,
                  bool allow_nonfinite, ft_model_progress_fn *progress, void *ctx);

#endif
