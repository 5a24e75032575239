/* What the files of model/ share. */
#ifndef FT_MODEL_INTERNAL_H
#define FT_MODEL_INTERNAL_H

#include "model/model.h"

#include "core/json.h"
#include "core/mem.h"
#include "io/safetensors.h"

/* Far above any model; a config that asks for more is hostile or broken. */
#define FT_LAYERS_MAX 4096

/* The linear modules of one layer, in the order they run. */
enum ft_role { FT_Q, FT_K, FT_V, FT_O, FT_GATE, FT_UP, FT_DOWN, FT_ROLES };

/* A tensor of the folder and where it goes. */
struct ft_weight {
    const char *name;
    int64_t rows, cols; /* cols 0: a vector of `rows` */
    struct ft_tensor **slot;
    enum ft_dtype dtype; /* as stored */
    struct ft_st *file;  /* found by ft_model_open; NULL: weights are made on the spot */
    const struct ft_st_entry *entry;
};

struct ft_layer {
    struct ft_tensor *attn_norm, *mlp_norm;
};

/* A model family: one row a transformers architecture. */
struct ft_family {
    const char *architecture; /* as in config.json's "architectures" */
    const char *model_type;
    int (*config)(const json_t *root, const char *file, struct ft_model_config *c);
    /* lists every weight of the folder by ft_model_want() and the modules */
    int (*weights)(struct ft_model *m);
    struct ft_tensor *(*build)(struct ft_model *m, struct ft_graph *g,
                               const struct ft_model_inputs *in);
};
extern const struct ft_family ft_families[];
extern const int ft_family_count;

struct ft_model {
    struct ft_arena arena;
    char *folder;
    const struct ft_family *family;
    struct ft_model_config config;
    struct ft_st **files;
    int n_files;
    struct ft_weight *weights;
    int n_weights, room_weights;
    struct ft_module *modules; /* layers x FT_ROLES */
    struct ft_stack *stacks;   /* of groups, at their first module; w NULL: not stacked */
    int n_modules;
    struct ft_tensor *embed, *final_norm, *head;
    struct ft_layer *layers;
    const char *embed_name, *head_name; /* their tensors */
};

/* tie.c: whether the head is the embedding, by config.json and the open files; sets config.tied,
 * embed_name and head_name. Different weights under both names are two, as in transformers. */
int ft_model_settle_tie(struct ft_model *m);

/* Notes that the folder must hold this tensor; slot gets it when declared. */
int ft_model_want(struct ft_model *m, struct ft_tensor **slot, int64_t rows, int64_t cols,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));

int ft_llama_config(const json_t *root, const char *file, struct ft_model_config *c);

#endif
