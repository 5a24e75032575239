/* What the files of model/ share. */
#ifndef FT_MODEL_INTERNAL_H
#define FT_MODEL_INTERNAL_H

#include "model/model.h"

#include "core/json.h"
#include "core/mem.h"
#include "io/safetensors.h"

/* Far above any model; a config that asks for more is hostile or broken. */
#define FT_LAYERS_MAX 4096

/* One field of config.json. null is the same as missing, but for the kinds that say otherwise. */
struct ft_field {
    const char *key; /* NULL ends a table */
    enum {
        FT_COUNT,         /* int64_t, 1..2^24 */
        FT_COUNT_OR_NONE, /* null: 0 */
        FT_COUNT_OR_ZERO, /* null and 0: 0 */
        FT_REAL,          /* double */
        FT_REAL_OR_NONE,  /* null: 0 */
        FT_FLAG,          /* bool */
        FT_BIAS,          /* place: the kinds of modules that have one */
        FT_ACTIVATION,
        FT_ONLY, /* place: the only value of this flag that is implemented */
    } kind;
    size_t place; /* of the member in struct ft_decoder, which holds the default */
};
#define FT_FIELD(key, kind, member)                                                                \
    {                                                                                              \
        key, kind, offsetof(struct ft_decoder, member)                                             \
    }
#define FT_BIASED(key, kinds)                                                                      \
    {                                                                                              \
        key, FT_BIAS, kinds                                                                        \
    }
#define FT_MUST_BE(key, value)                                                                     \
    {                                                                                              \
        key, FT_ONLY, value                                                                        \
    }
#define FT_NO_MORE                                                                                 \
    {                                                                                              \
        NULL, FT_COUNT, 0                                                                          \
    }
#define FT_BIT(kind)   (1u << (kind))
#define FT_BITS_QKV    (FT_BIT(FT_Q) | FT_BIT(FT_K) | FT_BIT(FT_V) | FT_BIT(FT_QKV))
#define FT_BITS_ATTEND (FT_BITS_QKV | FT_BIT(FT_O))
#define FT_BITS_MLP    (FT_BIT(FT_GATE) | FT_BIT(FT_UP) | FT_BIT(FT_GATE_UP) | FT_BIT(FT_DOWN))

/* How a family's config.json speaks of rotary positions. */
struct ft_rope_keys {
    double theta;          /* the default; 0: none is rotated */
    const char *theta_key; /* beside rope_theta; or NULL */
    double partial;        /* default share of a head that is rotated; 0: always all */
    const char *partial_key;
    const char *dim_key; /* rotated columns of a head; or NULL */
    bool fixed_alpha;    /* type 'dynamic' with an 'alpha' scales theta, whatever the length */
    double local_theta;  /* > 0: sliding layers have a table of their own, with this default */
    const char *local_key;
    bool yarn_is_longrope; /* Phi-3's old name */
    const char *fallback;  /* the parameters, as JSON, of a config that has none; or NULL */
};
/* rope_config.c: fills d->rope. */
int ft_rope_read(const json_t *root, const char *file, const struct ft_rope_keys *k,
                 struct ft_decoder *d);

enum { FT_FIELD_TABLES = 5 };

/* A model family: one row a transformers architecture. */
struct ft_family {
    const char *architecture; /* as in config.json's "architectures" */
    const char *model_type;
    const char *alias; /* another model_type that folders of this architecture have; or NULL */
    const struct ft_field *fields[FT_FIELD_TABLES]; /* NULL ends */
    struct ft_rope_keys rope;
    bool layer_types; /* config.json may list them */
    int pad;          /* one more than what pad_token_id is where config.json leaves it out */
    /* what tables cannot say; may be NULL. FT_EDATA */
    int (*settle)(const json_t *root, const char *file, struct ft_decoder *d);
    /* of a folder with a vision tower: the rows that text_config's model_type may name, the first
     * where it names none; where the decoder's modules and tensors lie is this row's */
    const struct ft_family *text[3];
    struct ft_decoder decoder; /* its constants, and the defaults of its fields */
};
extern const struct ft_family *const ft_families[];
extern const int ft_family_count;

/* family/llama.c: what most families' config.json has, and the names of most families' tensors. */
extern const struct ft_field ft_size_fields[], ft_common_fields[], ft_bias_fields[];
extern const struct ft_field ft_granite_fields[];
int ft_granite_settle(const json_t *root, const char *file, struct ft_decoder *d);
/* family/mixture.c: how many experts there are, and of a row. */
extern const struct ft_field ft_mixture_fields[];
/* family/corrected.c: experts that are chosen by their scores' sigmoid, in groups; shared experts,
 * which are one of as many times the width, and the first layers, which have none, by these keys
 * and defaults. */
extern const struct ft_field ft_grouped_fields[];
int ft_shared_settle(const json_t *root, const char *file, struct ft_decoder *d,
                     const char *shared_key, long long shared, const char *first_key,
                     long long first);
#define FT_LLAMA_LAYER                                                                             \
    .layers = "layers", .embed = "embed_tokens", .norm = "norm", .head = "lm_head"
#define FT_LLAMA_ATTENTION                                                                         \
    [FT_Q] = "self_attn.q_proj", [FT_K] = "self_attn.k_proj", [FT_V] = "self_attn.v_proj",         \
    [FT_O] = "self_attn.o_proj"
#define FT_LLAMA_MLP                                                                               \
    [FT_GATE] = "mlp.gate_proj", [FT_UP] = "mlp.up_proj", [FT_DOWN] = "mlp.down_proj"
#define FT_LLAMA_NORMS                                                                             \
    [FT_NORM_ATTENTION] = "input_layernorm", [FT_NORM_MLP] = "post_attention_layernorm"
#define FT_QK_NORMS [FT_NORM_Q] = "self_attn.q_norm", [FT_NORM_K] = "self_attn.k_norm"
/* Experts as most mixtures have them: all in the model, one by one in files. */
#define FT_MLP_EXPERTS                                                                             \
    [FT_EXPERTS_IN] = "mlp.experts.gate_up_proj", [FT_EXPERTS_OUT] = "mlp.experts.down_proj"
#define FT_LLAMA_EXPERT .expert = {"gate_proj", "up_proj", NULL, "down_proj", NULL}
#define FT_SHARED_EXPERTS                                                                          \
    [FT_SHARED_GATE] = "mlp.shared_experts.gate_proj",                                             \
    [FT_SHARED_UP] = "mlp.shared_experts.up_proj",                                                 \
    [FT_SHARED_DOWN] = "mlp.shared_experts.down_proj"
/* All of Llama's names. */
#define FT_LLAMA_NAMES                                                                             \
    .names = {.prefix = "model.",                                                                  \
              FT_LLAMA_LAYER,                                                                      \
              .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},                                        \
              .layer_norm = {FT_LLAMA_NORMS}}

/* How a GGUF file has the rows of a weight: as they are; those of each head as pairs that rotate;
 * those of q, k and v, which lie by group, all queries first, then keys, then values. */
enum ft_row_order { FT_IN_ORDER, FT_PAIRED, FT_GROUPED };

/* A tensor of one expert, which is part of a weight. */
struct ft_piece {
    const char *name;
    struct ft_st *file;
    const struct ft_st_entry *entry;
};

/* A tensor of the folder and where it goes. */
struct ft_weight {
    const char *name; /* in the files */
    const char *path; /* in transformers */
    enum ft_weight_kind kind;
    int64_t rows, cols; /* cols 0: a vector of `rows` */
    int64_t stored;     /* rows that the file has; the others begin as their mean */
    bool elsewhere;     /* its value is not the model's: nothing is loaded into it */
    bool transposed;    /* the file has (cols, rows) */
    /* of experts: matrices below each other; where the files have them one by one, n_pieces tensors
     * of as many rows; and its first row in all that the files have, where it is one of them */
    int parts;
    struct ft_piece *pieces;
    int n_pieces;
    int64_t piece_rows, first;
    bool
        by_turns; /* rows of a gate and an up (of a vector for each expert: its numbers) by turns */
    enum ft_row_order order;
    struct ft_tensor **slot;
    enum ft_dtype dtype; /* as stored */
    /* a quantised one: how it is loaded, what it is in memory, and of which blocks; way NULL: it is
     * in memory as it is stored */
    const struct ft_way *way;
    enum ft_dtype as;
    int block;
    bool fp4;
    struct ft_st *file; /* found by ft_model_open; NULL: weights are made on the spot */
    const struct ft_st_entry *entry;
};

/* A norm's weight and, if it has one, bias. */
struct ft_norm_weights {
    struct ft_tensor *w, *bias;
};

struct ft_layer {
    struct ft_norm_weights norm[FT_NORM_SITES];
    struct ft_tensor *router, *router_bias, *correction, *sinks; /* NULL: none */
    int module[FT_KINDS]; /* indices of its modules; -1: none */
};

/* From quantization_config, as far as the tensors do not show it. */
struct ft_quantised_said {
    int64_t group;    /* GPTQ, AWQ: columns that share a scale, -1: all */
    int zero;         /* GPTQ: what is added to the zeros */
    int64_t block[2]; /* FP8 */
};

struct ft_model {
    struct ft_arena arena;
    char *folder;
    const struct ft_family *family, *text; /* text: the decoder's row, of a folder that also sees */
    struct ft_decoder decoder;
    struct ft_st **files;
    int n_files;
    struct ft_weight *weights;
    int n_weights, room_weights;
    struct ft_module *modules;
    struct ft_stack *stacks; /* of groups, at their first module; w NULL: not stacked */
    int n_modules;
    struct ft_tensor *embed, *positions, *head;
    struct ft_norm_weights final_norm;
    struct ft_layer *layers;
    const char *quantised;         /* quant_method of the folder; NULL: it is not */
    bool gguf, permuted;           /* its files are GGUF's; with the rows of q and k permuted */
    struct ft_quantised_said said; /* what its configuration says besides */
    const char *in_file;           /* the prefix of its tensors in the files */
    const char *embed_name, *head_name; /* their tensors */
};

/* recognise.c: the row of an architecture, or else of a type; NULL: none. And a folder's
 * config.json into m->family and m->decoder. */
const struct ft_family *ft_family_find(const char *architecture, const char *type);
int ft_model_read_config(struct ft_model *m);

/* decoder.c: what files call one expert's matrix, by its place in ft_names.expert; `end` is
 * "weight" or "bias", an expert below 0 is all of them. In the arena; NULL: no memory. */
const char *ft_decoder_expert(struct ft_model *m, const char *prefix, int layer, int64_t expert,
                              int which, const char *end);

/* config.c: fills m->decoder, which has the family's defaults. */
int ft_config_to_decoder(const json_t *root, const char *file, const struct ft_family *f,
                         struct ft_model *m);

/* folder.c: opens the weight files. tensors.c: finds and checks every weight in them. */
int ft_model_open_files(struct ft_model *m);
int ft_model_find_tensors(struct ft_model *m);
/* The file and entry of a tensor; entry NULL: none. */
const struct ft_st_entry *ft_model_entry(const struct ft_model *m, const char *name,
                                         struct ft_st **file);
/* Chooses the prefix that the files' tensors have. */
int ft_model_settle_prefix(struct ft_model *m);

/* tie.c: whether the head is the embedding, by config.json and the open files; sets decoder.tied,
 * embed_name and head_name. Different weights under both names are two, as in transformers. */
int ft_model_settle_tie(struct ft_model *m);

/* quantised.c: config.json's quantization_config; finds and checks the planes of a weight, if it is
 * quantised; whether a tensor is such a plane. FT_EDATA */
int ft_quantised_config(struct ft_model *m, const json_t *root, const char *file);
int ft_quantised_open(const struct ft_model *m, struct ft_weight *w);
int ft_quantised_pieces(const struct ft_model *m, struct ft_weight *w); /* of each of its pieces */
bool ft_quantised_plane(const struct ft_model *m, const char *name);
/* Host memory that loading takes; bytes that are read for a weight; and loading all of them. */
size_t ft_quantised_room(const struct ft_model *m, bool device);
uint64_t ft_quantised_bytes(const struct ft_weight *w);
/* What a quantised weight stands for, in f32. */
int ft_quantised_read(const struct ft_model *m, const struct ft_weight *w, bool scan, float *out);
int ft_quantised_load(const struct ft_model *m, struct ft_graph *g, struct ft_pool *pool, bool scan,
                      ft_model_progress_fn *progress, void *ctx, uint64_t done, uint64_t total);

/* gguf.c: a file's tensors under transformers' names, by m->decoder; the row of the file where a
 * weight's row lies; n elements from the beginning of a block, widened. */
int ft_gguf_tensors(struct ft_model *m, const char *path, struct ft_st **out);
int64_t ft_gguf_row(const struct ft_model *m, const struct ft_weight *w, int64_t row);
enum ft_row_order ft_gguf_order(const struct ft_model *m, enum ft_kind kind);
void ft_gguf_widen(float *out, enum ft_dtype type, const char *blocks, int64_t n);

/* load.c: `count` rows, as they lie in the file; and a matrix from its transpose. */
int ft_model_read_rows(const struct ft_model *m, const struct ft_weight *w, int64_t first,
                       int64_t count, bool allow_nonfinite, char *data);
void ft_model_turn(char *to, const char *from, int64_t rows, int64_t cols, size_t size);

/* decoder.c: lists every weight of the folder and the modules. */
int ft_decoder_weights(struct ft_model *m);

#endif
