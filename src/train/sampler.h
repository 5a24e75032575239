/* The next token from logits. */
#ifndef FT_TRAIN_SAMPLER_H
#define FT_TRAIN_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

/* In this order, as transformers applies them. */
struct ft_sampler {
    double repetition_penalty; /* of tokens that are there already; 1: none */
    double temperature; /* 0: the most likely token, the first of equals; the rest is unused */
    int64_t top_k;      /* the k most likely; 0: all */
    double top_p;       /* the fewest whose probability is at least this; 1: all */
    double min_p;       /* those at least this likely beside the most likely; 0: all */
    uint64_t seed;
};

struct ft_candidate {
    float logit;
    int32_t id;
};

/* -1: a logit is NaN, or the largest is not finite. A temperature below 0.001 is 0. room: for
 * `vocab` candidates. seen: the n tokens before. The same seed, sequence and step give the same
 * token. logits are changed. */
int32_t ft_sample_token(const struct ft_sampler *o, float *logits, int64_t vocab,
                        const int32_t *seen, size_t n, uint32_t sequence, uint32_t step,
                        struct ft_candidate *room);

#endif
