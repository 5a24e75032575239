/* Dataset formats: from a record of a data file to the tokens that are trained on. The names, keys
 * and ids are Axolotl's. */
#ifndef FT_DATA_FORMAT_H
#define FT_DATA_FORMAT_H

#include "data/sample.h"

/* A dataset entry's keys. NULL: not given; lists end with NULL. Texts stay the caller's. */
struct ft_format_options {
    const char *type; /* a format's name, or "user_defined" with a format of its own */
    const char *field, *field_messages, *field_system, *field_tools, *field_history;
    const char *field_instruction, *field_input, *field_output;
    const char *format, *no_input_format, *system_format, *system_prompt; /* user_defined */
    const char *const *properties; /* pairs: what the template calls it, what the record does */
    const char *const *roles;      /* pairs: the record's, the template's */
    const char *const *roles_to_train;
    const char *message_field_training, *message_field_training_detail;
    const char *thinking_key;      /* what the template calls reasoning; NULL: reasoning_content */
    const char *const *end_tokens; /* eot_tokens */
    const char *default_system;    /* a system message for conversations without one */
    enum ft_train_on train_on_eos;
    bool train_on_inputs, drop_system_message, split_thinking;
    int32_t bos, eos;   /* what begins and ends texts; -1: none */
    int64_t embeddings; /* the model's vocab_size; 0: not known */
    long long now;      /* seconds since 1970, for templates that say the date */
};

struct ft_format;

/* t gives the special tokens; chat may be NULL for formats that need none, and must outlive the
 * format, as the options must. FT_ECONFIG: no such format, or options that it cannot take. */
int ft_format_open(struct ft_format **out, const struct ft_format_options *o,
                   const struct ft_tokenizer *t, const struct ft_chat *chat);
void ft_format_close(struct ft_format *f);

/* FT_ECONFIG, with the nearest name, if there is no such format. */
int ft_format_check(const char *type);
/* Whether a format's records go through a chat template; false for unknown names, too. */
bool ft_format_needs_chat(const char *type);
/* Documents are cut into chunks of sequence_len instead of being too long. */
bool ft_format_cuts(const struct ft_format *f);
/* Turns end in a terminator, or something is wrong. */
bool ft_format_has_turns(const struct ft_format *f);

/* A record's ids, mask and speakers. Any thread may call it, with a tokenizer of its own. FT_EDATA.
 */
int ft_format_sample(const struct ft_format *f, struct ft_tokenizer *t, const json_t *record,
                     struct ft_sample *s);

#endif
