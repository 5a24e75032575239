/* llama.cpp's architectures: what they are in transformers, what their tensors are called, and how
 * the rows of those lie. */
#ifndef FT_MODEL_GGUF_KINDS_H
#define FT_MODEL_GGUF_KINDS_H

#include "model/internal.h"

struct ft_gguf_kind {
    const char *name, *architecture; /* llama.cpp's and transformers' */
    /* what it is with a window of attention, or with experts, where that is another one */
    const char *windowed, *mixture;
    bool permuted;   /* rows of q and k lie as pairs that rotate */
    int every;       /* all layers have a window but each so many-th, where the file has no list of
                      * them; 0: llama.cpp knows no windows there */
    bool normalised; /* the weights of a row's experts are made to sum to 1; no key says it */
    const char *mlp_norm; /* where the norm before the MLP has another one's name */
    int sections[3]; /* by which positions of images are rotated, where config.json does not say;
                      * 0: it has none. The file lists them */
};

/* NULL: ft knows none of that name; none for the model. */
const struct ft_gguf_kind *ft_gguf_kind(const char *name);
const struct ft_gguf_kind *ft_gguf_kind_of(const struct ft_model *m);
bool ft_gguf_is_kind(const struct ft_gguf_kind *k, const char *name);
/* All their names, as "llama, qwen2 and qwen3". */
void ft_gguf_list_kinds(char *out, size_t room);

/* llama.cpp's names behind blk.N., by ft's numbers. */
extern const char *const ft_gguf_modules[FT_KINDS];
const char *ft_gguf_norm(const struct ft_model *m, int site);
#define FT_GGUF_ROUTER     "ffn_gate_inp"
#define FT_GGUF_SINKS      "attn_sinks.weight"
#define FT_GGUF_CORRECTION "exp_probs_b.bias"
enum { FT_GGUF_SOFTMAX = 1, FT_GGUF_SIGMOID = 2 }; /* ways to route */
/* All experts' matrices, one behind the other; their places in ft_names.expert. */
enum { FT_GGUF_EXPERTS = 3 };
extern const struct ft_gguf_experts {
    const char *name;
    int expert;
} ft_gguf_experts[FT_GGUF_EXPERTS];
/* Whether `name` is the first `length` characters of `what`. */
bool ft_gguf_named(const char *name, const char *what, size_t length);

/* All queries, then all keys, then all values; the model has them by group. */
int64_t ft_gguf_grouped_row(const struct ft_decoder *d, int64_t row);
/* Halves of a head; the file has pairs. */
int64_t ft_gguf_paired_row(const struct ft_decoder *d, int64_t row);

#endif
