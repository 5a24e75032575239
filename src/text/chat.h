/* A model folder's chat template: from messages to the text that the model was trained on. */
#ifndef FT_TEXT_CHAT_H
#define FT_TEXT_CHAT_H

#include "text/template.h"

struct ft_chat;

/* From chat_template.jinja, or tokenizer_config.json's chat_template. FT_EDATA if there is none. */
int ft_chat_open(struct ft_chat **out, const char *folder);
void ft_chat_close(struct ft_chat *c);

/* record: {"messages": [...]}, and "tools" if the template takes them; its other members are
 * variables of the template too. prompt: with what begins the assistant's answer. */
int ft_chat_render(const struct ft_chat *c, const json_t *record, bool prompt, long long now,
                   struct ft_rendered *out);

#endif
