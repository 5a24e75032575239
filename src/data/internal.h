/* What the files of data/ share. */
#ifndef FT_DATA_INTERNAL_H
#define FT_DATA_INTERNAL_H

#include "data/format.h"

/* messages.c: {"messages": [...], "tools": ...} as templates take it, from a record with the
 * entry's own names. FT_EDATA. */
int ft_conversation_from(json_t **out, const json_t *record, const struct ft_format_options *o);

/* The same of a prompt and a completion that are lists of messages: only the completion's turns may
 * be trained. */
int ft_conversation_from_pair(json_t **out, const json_t *record, const char *prompt,
                              const char *completion, const struct ft_format_options *o);
/* The same of texts: earlier turns, a list of [question, answer] (NULL: none), a question and its
 * answer; system "": none. */
int ft_conversation_from_texts(json_t **out, const char *system, const json_t *history,
                               const char *question, const char *answer);

/* What the template calls a role of the record's. */
const char *ft_role_of(const struct ft_format_options *o, const char *role);

/* tokens.c: a record with input_ids, which are below vocab. FT_EDATA, also where its lists
 * contradict one another or what ft trains. */
int ft_tokens_sample(struct ft_sample *s, const json_t *record, int32_t vocab);

#endif
