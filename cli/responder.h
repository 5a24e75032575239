/* MODEL and ADAPTER of a command line, and the text side of them: what generate, chat and eval
 * share. */
#ifndef FT_CLI_RESPONDER_H
#define FT_CLI_RESPONDER_H

#include "cli/cli.h"

#include "text/chat.h"
#include "text/tokenizer.h"
#include "train/generate.h"

struct ft_responder {
    const char *model, *adapter; /* adapter NULL: none */
    struct ft_config config;
    struct ft_tokenizer *tokenizer;
    struct ft_chat *chat;   /* NULL: no template */
    struct ft_ids ends;     /* tokens that end an answer */
    int32_t begin;          /* what texts begin with: bos_token, or else eos_token; -1: none */
    int64_t vocab, longest; /* the model's vocabulary, and the positions that it was made for */
};

/* words: KEY=VALUE of the config, for example device=cpu. Opens config and text, no weight. */
int ft_responder_open(struct ft_responder *r, const char *model, const char *adapter, int n,
                      char **words);
/* The config alone. */
int ft_responder_config(struct ft_responder *r, const char *model, const char *adapter, int n,
                        char **words);
void ft_responder_close(struct ft_responder *r);
/* Tokens of a text as it stands, or (record not NULL) of messages with what begins the answer. */
int ft_responder_text(const struct ft_responder *r, const char *text, size_t length,
                      struct ft_ids *out);
int ft_responder_messages(const struct ft_responder *r, const json_t *record, struct ft_ids *out);
/* FT_EDATA: an id that the model has not, or none at all. */
int ft_responder_check(const struct ft_responder *r, const struct ft_ids *ids);
/* {"messages": [...]} of one user's text. Caller json_decref()s. */
json_t *ft_responder_turn(const char *system, const char *text);
/* The text of an answer's tokens without its end, freed with ft_free. */
int ft_responder_words(const struct ft_responder *r, const int32_t *ids, size_t n, char **text,
                       size_t *length);

/* What a file's record is for. */
typedef int ft_record_fn(void *ctx, json_t *record, struct ft_where at);
/* Each line of JSON of a file ("-": stdin), one at least, to `each`; its first error ends it. */
int ft_read_records(const char *file, ft_record_fn *each, void *ctx);

/* The model that an adapter's config names; caller frees. */
int ft_named_base(const char *adapter, char **out);

/* The flags of sampling among words, removed. */
int ft_take_sampler(const struct ft_command *self, int *n, char **words, struct ft_sampler *s);
#define FT_SAMPLER_HELP                                                                            \
    "  --max-tokens N    tokens of an answer, at most (default 256; ft chat: 1024)\n"              \
    "  --temperature X   0, the default: the most likely token each time; else tokens are drawn\n" \
    "  --top-k N         from the N most likely\n"                                                 \
    "  --top-p X         from the fewest that are together at least so likely\n"                   \
    "  --min-p X         from those at least X times as likely as the most likely\n"               \
    "  --repetition-penalty X   1: none\n"                                                         \
    "  --seed N          the same seed draws the same tokens\n"

/* From now on SIGINT, SIGTERM and SIGHUP set this to their number. */
const volatile sig_atomic_t *ft_listen_to_stop(void);

/* The config's model alone. */
void ft_responder_without_adapter(struct ft_config *c);

/* eval.c: a model's loss on a file of records; adapter may be NULL, words are the config's options.
 */
int ft_eval_loss(const char *model, const char *adapter, const char *file, int n, char **words,
                 double *loss);

#endif
