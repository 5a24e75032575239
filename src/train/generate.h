/* Tokens that follow prompts. */
#ifndef FT_TRAIN_GENERATE_H
#define FT_TRAIN_GENERATE_H

#include "train/sampler.h"
#include "train/serving.h"

#include <signal.h>

struct ft_prompt {
    const int32_t *ids;
    int64_t n; /* at least one; with max_tokens at most the server's context */
};

struct ft_generating {
    struct ft_sampler sampler;
    int64_t max_tokens;
    const int32_t *ends; /* tokens that end an answer */
    int n_ends;
    const volatile sig_atomic_t *stop; /* not 0: no further token; may be NULL */
};

/* The next token of a prompt's answer. finish: "stop" (it is an end), "length" (it is the last one
 * that fits), NULL: more follow. */
typedef int ft_token_fn(void *ctx, int64_t prompt, int32_t id, const char *finish);
/* All prompts, as many side by side as the server has slots. The tokens of a prompt come in order;
 * those of several prompts by turns. kept: tokens of the first prompt that slot 0 has read already
 * (a conversation that goes on); the others begin anew. */
int ft_generate(struct ft_server *s, const struct ft_generating *o, const struct ft_prompt *prompts,
                int64_t n, int64_t kept, ft_token_fn *each, void *ctx);

#endif
