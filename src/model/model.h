/* A Hugging Face model folder: its configuration, its weights, and the forward graph. */
#ifndef FT_MODEL_MODEL_H
#define FT_MODEL_MODEL_H

#include "core/status.h"
#include "graph/graph.h"

enum ft_rope_type {
    FT_ROPE_DEFAULT,
    FT_ROPE_LINEAR,
    FT_ROPE_DYNAMIC,
    FT_ROPE_LLAMA3,
    FT_ROPE_YARN,
    FT_ROPE_LONGROPE,
};

enum { FT_ROPE_MAX_HALF = 128 }; /* head_dim at most 256 */

/* Rotary positions, as transformers' modeling_rope_utils.py defines them. */
struct ft_rope_spec {
    enum ft_rope_type type;
    int dim; /* rotated columns of a head */
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double attention_factor;                  /* yarn, longrope: multiplies cos and sin */
    double beta_fast, beta_slow;              /* yarn */
    bool truncate;                            /* yarn */
    double max_positions, original_max_positions;
    float short_factor[FT_ROPE_MAX_HALF], long_factor[FT_ROPE_MAX_HALF]; /* longrope */
};

/* inv_freq (dim/2) for a document of this length. */
void ft_rope_frequencies(const struct ft_rope_spec *s, int64_t length, float *inv_freq);
/* cos, sin (rows, dim/2) for documents packed end to end: document d is rows offsets[d] to
 * offsets[d+1]-1, positions from 0; types that depend on length look at each document's own. */
void ft_rope_fill(const struct ft_rope_spec *s, const int32_t *offsets, int64_t docs,
                  float *cos_out, float *sin_out);

struct ft_model_config {
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, max_positions;
    double norm_eps;
    bool tied, attention_bias, mlp_bias;
    struct ft_rope_spec rope;
    long long eos_id, bos_id; /* -1 if the config has none */
};

/* A linear module: what adapters attach to. */
struct ft_module {
    const char *name; /* "model.layers.0.self_attn.q_proj" */
    int64_t in, out;
    int layer;
    struct ft_tensor *w, *bias; /* bias NULL: none; both NULL until declared */
};

struct ft_model;

/* Reads config.json and the headers of the weights, and checks every name, shape and dtype; no
 * weight is read. FT_EDATA. */
int ft_model_open(struct ft_model **out, const char *folder);
void ft_model_close(struct ft_model *m);

const struct ft_model_config *ft_model_config(const struct ft_model *m);
const char *ft_model_architecture(const struct ft_model *m);
int ft_model_modules(const struct ft_model *m, const struct ft_module **out);
int64_t ft_model_parameters(const struct ft_model *m);
/* The weight files' paths, for hashing. */
int ft_model_files(const struct ft_model *m);
const char *ft_model_file(const struct ft_model *m, int i);

/* Declares the weights as values of the graph, once per graph. */
int ft_model_declare(struct ft_model *m, struct ft_graph *g);

/* How a linear module is computed: the base product, and an adapter's if the module has one. */
typedef struct ft_tensor *ft_model_linear_fn(void *ctx, struct ft_graph *g, int module,
                                             struct ft_tensor *x, struct ft_tensor *w,
                                             struct ft_tensor *bias, struct ft_tensor *add);

struct ft_model_inputs {
    struct ft_tensor *ids, *cos, *sin, *offsets; /* (T,1) I32; (T, dim/2); (docs+1, 1) I32 */
    struct ft_tensor *targets, *scalars;         /* (T,1) I32; F64 */
    ft_model_linear_fn *linear;                  /* NULL: base products only */
    void *linear_ctx;
};

/* The forward pass and the loss in the graph's current program. Returns the normed hidden states
 * that the head reads (for tests). */
struct ft_tensor *ft_model_build(struct ft_model *m, struct ft_graph *g,
                                 const struct ft_model_inputs *in);
struct ft_tensor *ft_model_head(const struct ft_model *m); /* the head's weight, tied or not */

/* Reads all weights to where the graph has placed them, and looks for NaN and infinities on the way
 * unless allow_nonfinite. progress may be NULL; it is called from this thread. */
typedef void ft_model_progress_fn(void *ctx, uint64_t done, uint64_t total);
int ft_model_load(struct ft_model *m, struct ft_pool *pool, bool allow_nonfinite,
                  ft_model_progress_fn *progress, void *ctx);

#endif
