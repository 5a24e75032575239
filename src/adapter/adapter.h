/* Adapters: which modules get one, their parameters in the graph, and PEFT's files. */
#ifndef FT_ADAPTER_ADAPTER_H
#define FT_ADAPTER_ADAPTER_H

#include "core/json.h"
#include "core/status.h"
#include "graph/graph.h"

/* Modules of a group at most. */
enum { FT_LINEARS = FT_MASKS };

/* A module an adapter may attach to. */
struct ft_site {
    const char *name; /* "model.layers.0.self_attn.q_proj" */
    enum ft_site_kind {
        FT_SITE_LINEAR,
        FT_SITE_EMBEDDING, /* in: the vocabulary */
        FT_SITE_HEAD,      /* out: the vocabulary */
        FT_SITE_EXPERTS,   /* a parameter of so many matrices (out, in): PEFT's target_parameters */
    } kind;
    int64_t in, out, experts; /* experts: of others 1 */
    int layer;                /* -1: of none */
    const char *const *once;  /* of experts: names of modules that they were before they were one
                                 parameter, NULL ends; PEFT takes these as the parameter's */
    bool crossed;             /* PEFT has A for the outputs, B for the inputs */
    const char *once_in;      /* and what came before an expert's number in their paths */
    bool feedforward;         /* the last of an MLP: IA3 scales what it reads */
    bool usual_ia3;           /* IA3 adapts it if it is not told what */
    int group;   /* the first of the sites that read the same input and follow each other */
    bool apart;  /* on a device too its weight is a matrix of its own: it is quantised */
    bool conv1d; /* its weight is stored as (in, out): PEFT's fan_in_fan_out */
    /* the beginning of all sites' names, where the model has other parts (a vision tower): what
     * lies outside is nobody's here, but an adapter may have it; NULL: the sites are the whole
     * model */
    const char *scope;
};

/* An entry of rank_pattern or alpha_pattern. */
struct ft_pattern {
    const char *key; /* regular expression, matched as PEFT does: (.*\.)?(key)$ */
    double value;    /* a rank is whole */
};

/* A weight of the model that is trained whole, beside the modules' adapters or instead of them. */
struct ft_whole {
    const char *name; /* its path in transformers: "lm_head.weight" */
    bool adapted;     /* a bias: only if its module has an adapter */
    bool end;         /* an embedding or a head */
    int64_t rows, cols;
    int n_dims;  /* in files: 1 where cols is 1 */
    bool decays; /* takes weight decay: norms and biases do not */
};
/* Its values, as f32 (rows, cols). */
typedef int ft_whole_read_fn(void *ctx, int whole, float *out);

struct ft_adapter_options {
    const char *method; /* a row of the method table: "lora" */
    const struct ft_whole *wholes;
    int n_wholes;
    const char *const *saved_modules; /* the modules that the wholes are of; NULL ends */
    const char *bias;                 /* PEFT's key: "none", "all", "lora_only" */
    const json_t *token_rows;         /* PEFT's trainable_token_indices; NULL: none */
    int64_t r;
    double alpha;                  /* 0 with no patterns: 2 r */
    double dropout;                /* on the way into A, training only */
    const char *init;              /* PEFT's init_lora_weights: "true", "pissa", ... */
    bool rslora;                   /* alpha / sqrt(r) instead of alpha / r */
    double loraplus_ratio;         /* B's learning rate over A's; 0: the same for all */
    double loraplus_embedding;     /* with it: the embedding's over A's */
    const char *const *targets;    /* names, or ".suffix" matches; NULL ends; NULL: none */
    const char *target_regex;      /* instead of targets: matched as a whole */
    const char *const *parameters; /* names of experts' parameters, as targets; may be NULL */
    bool target_linear;            /* every linear module of the layers */
    bool target_usual;             /* instead: those that the method is used for */
    const struct ft_pattern *rank_pattern, *alpha_pattern; /* key NULL ends; may be NULL */
    const int64_t *layers;                                 /* -1 ends; NULL: all */
    uint64_t seed;                                         /* of initialisation and dropout */
};

struct ft_adapter;

/* Chooses the modules. FT_ECONFIG with the candidates if a target matches none. Keeps no pointer
 * into the options or sites. */
int ft_adapter_new(struct ft_adapter **out, const struct ft_site *sites, int n_sites,
                   const struct ft_adapter_options *options);
/* Continues from a PEFT LoRA adapter: method, ranks, alphas and modules come from its files. Of the
 * options seed, the loraplus_ rates and the wholes count; train checks that the others do not
 * contradict.
 */
int ft_adapter_open(struct ft_adapter **out, const struct ft_site *sites, int n_sites,
                    const char *folder, const struct ft_adapter_options *options);
void ft_adapter_free(struct ft_adapter *a);

int64_t ft_adapter_parameters(const struct ft_adapter *a);
int ft_adapter_modules(const struct ft_adapter *a);
int64_t ft_adapter_max_rank(const struct ft_adapter *a);  /* as it is written */
const char *ft_adapter_title(const struct ft_adapter *a); /* "LoRA" */
/* Whether the embedding or the head has an adapter. */
bool ft_adapter_has(const struct ft_adapter *a, enum ft_site_kind kind);
bool ft_adapter_has_site(const struct ft_adapter *a, int site);
/* What a program that loads the adapter has to know, as bits. */
enum ft_trait {
    FT_TRAIT_METHOD = 1,  /* it is not plain LoRA */
    FT_TRAIT_MODULES = 2, /* modules trained whole */
    FT_TRAIT_BIASES = 4,  /* trained biases */
    FT_TRAIT_TOKENS = 8,  /* trained token rows */
    FT_TRAIT_EMBEDDING = 16,
    FT_TRAIT_HEAD = 32,
    FT_TRAIT_EXPERTS = 128,
    FT_TRAIT_RANKS = 64, /* ranks or alphas differ between modules */
};
unsigned ft_adapter_traits(const struct ft_adapter *a);
/* The base model that an opened adapter names; NULL: none. */
const char *ft_adapter_base(const struct ft_adapter *a);
/* What the adapter's own config says, for checking options against: r, alpha, rslora. */
void ft_adapter_config(const struct ft_adapter *a, struct ft_adapter_options *out);
/* The first module that only one of the two has, or (ranks) whose rank or alpha differs; NULL:
 * none. */
const char *ft_adapter_difference(const struct ft_adapter *a, const struct ft_adapter *b,
                                  bool ranks);

/* The modules first..first+n-1 read the same input: the sum of their ranks, rounded up to 8, or
 * with dropout of their pitches; 0 if none has an adapter, or if this adapter's products cannot be
 * folded into stacked ones. */
int64_t ft_adapter_stack_rank(const struct ft_adapter *a, int first, int n);

/* Parameters and their summed gradients, flat f32: (1, P) each; on a backend with bf16 activations
 * also the copies that products read. Call once a graph, before building. */
int ft_adapter_declare(struct ft_adapter *a, struct ft_graph *g);
struct ft_tensor *ft_adapter_values(const struct ft_adapter *a);
struct ft_tensor *ft_adapter_gradients(const struct ft_adapter *a);

/* Parameter i of all that are trained, in the order of the block. */
struct ft_trained_parameter {
    int64_t at, rows, cols;
    bool vector; /* of one dimension in PEFT's file */
    bool end;    /* of an embedding or a head, or a module that is saved beside an adapter */
    double rate; /* what the learning rate is multiplied with */
    bool decays;
};
int ft_adapter_parameter_count(const struct ft_adapter *a);
struct ft_trained_parameter ft_adapter_parameter(const struct ft_adapter *a, int i);

/* Weight i of the options' wholes, after ft_adapter_declare: its gradient, and on the host its
 * value, which is the model's weight then (on a device NULL: the weight is a copy, see
 * ft_adapter_copy). */
void ft_adapter_whole(const struct ft_adapter *a, int i, struct ft_graph *g,
                      struct ft_tensor **value, struct ft_tensor **grad);
/* Whether the whole is trained: not if it is a bias of a module without an adapter. */
bool ft_adapter_has_whole(const struct ft_adapter *a, int i);
/* On a device: the weight that is to be the bf16 copy of whole i. */
void ft_adapter_copy(struct ft_adapter *a, int i, struct ft_tensor *weight);

/* Linear modules that read the same input. */
struct ft_linears {
    int first, n;              /* sites first..first+n-1 */
    struct ft_tensor *x, *add; /* add: NULL, or the residual stream, for n = 1 */
    struct ft_tensor
        *offsets;           /* of a module of all experts, n = 1, see struct ft_linear_args; NULL */
    struct ft_tensor *keys; /* the dropout keys of the batch; NULL: no dropout */
    struct {
        struct ft_tensor *w, *bias; /* bias may be NULL */
        struct ft_tensor *y;        /* out */
    } of[FT_LINEARS];
    /* on a device, all weights and room for the adapters: (N+R, K+R) as src/model/model.h says, and
     * the biases (1,N); else NULL */
    struct ft_tensor *matrix, *biases;
};
/* Builds them, each with its adapter if it has one. */
void ft_adapter_linears(struct ft_adapter *a, struct ft_graph *g, struct ft_linears *l);
/* h, what the embedding gave by base, with what its adapter adds, if it has one. */
struct ft_tensor *ft_adapter_embed(const struct ft_adapter *a, struct ft_graph *g,
                                   const struct ft_embed_args *base, struct ft_tensor *h);
/* The low-rank pair of the head's adapter, if it has one, into its arguments: h and scale are
 * there. keys: as in struct ft_linears. */
void ft_adapter_head(const struct ft_adapter *a, struct ft_graph *g, struct ft_tensor *keys,
                     struct ft_head_loss_args *head);

/* Ends FT_UPDATE: makes the copies that products read. Nothing where they read the masters. */
void ft_adapter_emit_refresh(struct ft_adapter *a, struct ft_graph *g);
/* FT_START: the copies, and the first values that follow from the weights. */
void ft_adapter_emit_start(struct ft_adapter *a, struct ft_graph *g);
/* After the graph is placed: where the copies lie. */
int ft_adapter_place(struct ft_adapter *a, struct ft_graph *g);

/* Fresh values for ft_adapter_values (A Kaiming-uniform with a = sqrt 5, B zero, as PEFT), or those
 * of the folder it was opened from, into P floats; those of wholes by `read`. */
typedef int ft_site_weight_fn(void *ctx, const char *module, float *out); /* f32 (out, in) */
int ft_adapter_fill(struct ft_adapter *a, struct ft_graph *g, float *values, ft_whole_read_fn *read,
                    ft_site_weight_fn *weight, void *ctx);
/* Bytes of host memory that this takes beside the values. */
size_t ft_adapter_start_bytes(const struct ft_adapter *a, bool device);
/* What a method has, as bits: keys of the others say nothing to it. */
enum ft_method_has { FT_HAS_RANK = 1, FT_HAS_ALPHA = 2, FT_HAS_DROPOUT = 4, FT_HAS_LORA = 8 };
unsigned ft_adapter_method_has(const char *method);
/* Whether a fresh adapter can begin so. */
bool ft_adapter_init_known(const char *name);

/* --- merging (merge.c) --- */

/* The values of the folder that it was opened from, P floats, without a graph. */
int ft_adapter_read(struct ft_adapter *a, float *values);
/* Whether it is added to the weights: then a share of it can be taken, and several be merged. */
bool ft_adapter_adds(const struct ft_adapter *a);
/* Whether the site has an adapter; and a row of its weight, f32 (in), as the adapter makes it (of
 * an embedding: a token's). share: 1, or of one that adds. What a bias is multiplied with. */
bool ft_adapter_changes(const struct ft_adapter *a, int site);
void ft_adapter_merge(const struct ft_adapter *a, const float *values, int site, float share,
                      int64_t row, float *w);
/* A site's low-rank pair among the values: y += scale b a x, a (r,in), b (out,r). false: it has
 * none, or the adapter is not plain LoRA. */
struct ft_lora_pair {
    const float *a, *b;
    int64_t r, in, out;
    int64_t experts; /* so many pairs, one behind the other */
    float scale;
};
bool ft_adapter_pair(const struct ft_adapter *a, const float *values, int site,
                     struct ft_lora_pair *out);
float ft_adapter_merge_bias(const struct ft_adapter *a, const float *values, int site, int64_t row);

int64_t ft_adapter_whole_at(const struct ft_adapter *a, int i); /* its first element in the block */

/* FT_EDIVERGED, reported, if one of the P values is not finite. */
int ft_adapter_check_finite(const struct ft_adapter *a, const float *values);

/* Writes adapter_model.safetensors and adapter_config.json into folder, each atomically.
 * FT_EDIVERGED, and nothing written, if one of the P values is not finite. */
int ft_adapter_save(const struct ft_adapter *a, const float *values, const char *folder,
                    const char *base_model);

#endif
