/* What the files that look at one conversation share: conversation.c, rendering.c, unrendered.c. */
#ifndef FT_DATA_CONVERSATION_H
#define FT_DATA_CONVERSATION_H

#include "data/sample.h"

struct conversation {
    struct ft_sample *s;
    struct ft_tokenizer *t;
    const struct ft_chat *chat;
    const json_t *record;
    json_t *messages;    /* the record's, or (owned) with texts for those that have none */
    const json_t *parts; /* by message: null, or the bytes of its words that are trained on */
    const struct ft_turn_rules *rules;
    long long now;
    struct ft_rendered text;
    struct ft_spans spans;
    bool all_there; /* every message's content was found in the text */
};

/* What a message may say besides its content: its reasoning by any of its names, then its calls. */
enum { FT_REASONINGS = 3, FT_SAID = 4 };
extern const char *const ft_said[FT_SAID];

/* --- rendering.c --- */

/* The record with other messages. */
int ft_render_list(const struct conversation *c, json_t *messages, bool prompt,
                   struct ft_rendered *out);
/* The first n messages, with `other` in place of message i if it is not NULL; prompt: and what
 * begins an answer. */
int ft_render_messages(const struct conversation *c, size_t n, size_t i, json_t *other, bool prompt,
                       struct ft_rendered *out);
/* The whole, into c->text. Messages without a text keep null or nothing where the template takes
 * that, else get an empty text. FT_EDATA names the message that the template does not take. */
int ft_render_whole(struct conversation *c);
size_t ft_common(const struct ft_rendered *a, const struct ft_rendered *b);

/* --- unrendered.c --- */

/* Notes in c->s which parts of the record do not change c->text. */
int ft_find_unrendered(const struct conversation *c);

#endif
