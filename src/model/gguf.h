/* A GGUF file's config.json. */
#ifndef FT_MODEL_GGUF_H
#define FT_MODEL_GGUF_H

#include "io/gguf.h"
#include "io/gguf_write.h"
#include "model/model.h"

/* As transformers would have it. FT_EDATA for an architecture that ft does not know. Caller
 * json_decref()s. */
int ft_gguf_config(const struct ft_gguf *g, const char *path, json_t **out);

/* llama.cpp's architecture of a model; NULL: ft knows none. */
const char *ft_gguf_architecture(const struct ft_model *m);
/* llama.cpp's name of a linear module, "blk.0.attn_q"; and the row of its matrix there that a row
 * of the module's output is. */
void ft_gguf_module(const struct ft_module *p, char *out, size_t room);
int64_t ft_gguf_module_row(const struct ft_model *m, const struct ft_module *p, int64_t row);

/* --- writing a whole model --- */

/* The metadata of the model itself. FT_EDATA: ft does not write its architecture. */
int ft_gguf_put_model(struct ft_gguf_out *o, const struct ft_model *m);
/* Tensors of what llama.cpp divides the frequencies by; returns how many. */
struct ft_gguf_factors {
    const char *name;
    int n;
    float v[FT_ROPE_MAX_HALF];
};
enum { FT_GGUF_FACTORS = 2 };
int ft_gguf_factors(const struct ft_model *m, struct ft_gguf_factors out[FT_GGUF_FACTORS]);
/* A tensor of llama.cpp's that a weight becomes, or a part of it: of each expert's matrix (or of
 * the whole) `rows` rows from `first` on, each `step`-th, of rows that number `of`, each of `cols`
 * elements. dims: rows first. */
struct ft_gguf_place {
    char name[128];
    int n_dims;
    int64_t dims[3];
    int64_t first, step, rows, of, cols;
};
/* How many tensors it becomes: gates and ups of experts are two, and so are their biases. */
int ft_gguf_places(const struct ft_model *m, int weight);
/* The i-th; false: llama.cpp has no such tensor that ft knows. */
bool ft_gguf_place(const struct ft_model *m, int weight, int i, struct ft_gguf_place *out);
/* The row there that a row of a weight, which is no experts', is. */
int64_t ft_gguf_weight_row(const struct ft_model *m, int weight, int64_t row);

#endif
