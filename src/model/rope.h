/* Rotary positions, as transformers' modeling_rope_utils.py defines them. */
#ifndef FT_MODEL_ROPE_H
#define FT_MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

enum ft_rope_type {
    FT_ROPE_DEFAULT,
    FT_ROPE_LINEAR,
    FT_ROPE_DYNAMIC,
    FT_ROPE_LLAMA3,
    FT_ROPE_YARN,
    FT_ROPE_LONGROPE,
};

enum { FT_ROPE_MAX_HALF = 128 }; /* head_dim at most 256 */

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
    /* > 0: nothing is rotated, but times 1 + growth log(1 + floor((p + 1) / still)), as Llama 4's
     * queries where they have no positions */
    double still;
    double
        growth; /* of queries, as Ministral 3: times 1 + growth log(1 + floor(p / original_max)) */
};

/* inv_freq (dim/2) for a document of this length. */
void ft_rope_frequencies(const struct ft_rope_spec *s, int64_t length, float *inv_freq);
/* Whether a position's angles depend on its document's length. */
bool ft_rope_by_length(const struct ft_rope_spec *s);
/* Whether positions of a document of `a` tokens have other angles in one of `b`, and are read again
 * where its keys are kept: longrope's, as transformers does it. */
bool ft_rope_changes(const struct ft_rope_spec *s, int64_t a, int64_t b);
/* cos, sin (length, dim/2) for the positions of a document of this length. */
void ft_rope_fill(const struct ft_rope_spec *s, int64_t length, float *cos_out, float *sin_out);

#endif
