/* How likely a model finds texts. */
#ifndef FT_TRAIN_SCORE_H
#define FT_TRAIN_SCORE_H

#include "train/serving.h"

#include <signal.h>

/* Tokens; where mask is 1, the token counts, predicted from those before it (never the first). */
struct ft_score_text {
    const int32_t *ids;
    const uint8_t *mask;
    int64_t n;
    int64_t chain; /* texts that follow each other with the same number share how they begin */
};

struct ft_score {
    double log_likelihood; /* of the tokens that count, natural */
    int64_t tokens, right; /* they, and those that were the most likely */
};

/* What s must be opened with for texts as long as this: as many side by side as suit the memory. */
struct ft_server_options ft_score_options(int64_t longest, int64_t texts, int64_t vocab);

/* told: after every round, how many are done; may be NULL. FT_EREQUEUE once *stop (NULL: never). */
typedef void ft_score_told_fn(void *ctx, int64_t done);
int ft_score_texts(struct ft_server *s, const struct ft_score_text *texts, int64_t n,
                   struct ft_score *out, const volatile sig_atomic_t *stop, ft_score_told_fn *told,
                   void *ctx);

#endif
