/* A model folder's chat template: from messages to the text that the model was trained on. */
#ifndef FT_TEXT_CHAT_H
#define FT_TEXT_CHAT_H

#include "jinja/template.h"

struct ft_chat;

/* The folder's special tokens by name ("eos_token": "</s>", ...), as its tokenizer_config.json and
 * special_tokens_map.json say; the caller releases the object. (special.c) */
int ft_special_tokens(json_t **out, const char *folder);

/* A JSON object in a file of the folder, whole numbers as reals; *out NULL if it is not there. */
int ft_folder_json(json_t **out, const char *folder, const char *file);

/* A file's template, freed with ft_free. FT_EDATA with the place of what is not UTF-8. */
int ft_chat_template_file(char **text, const char *path);
/* A template's own text: the folder's chat_template.jinja, or tokenizer_config.json's
 * chat_template; name: the file that it is in; tools: the one that stands there as "tool_use".
 * Freed with ft_free; *text NULL if there is none. */
int ft_chat_template(char **text, char **name, const char *folder, bool tools);
/* tokens: what the template may call bos_token and the like; is kept. */
int ft_chat_new(struct ft_chat **out, const char *text, const char *name, json_t *tokens);
/* Both of the folder's; *out NULL if it has no template. */
int ft_chat_open(struct ft_chat **out, const char *folder);
void ft_chat_close(struct ft_chat *c);
/* One of the special tokens that templates may name; NULL: there is none. */
const char *ft_chat_token(const struct ft_chat *c, const char *name);
/* The template for records with tools, where a model has one of its own. */
int ft_chat_add_tools(struct ft_chat *c, const char *text, const char *name);

/* record: {"messages": [...]}, and "tools" if the template takes them; its other members are
 * variables of the template too. prompt: with what begins the assistant's answer. */
int ft_chat_render(const struct ft_chat *c, const json_t *record, bool prompt, long long now,
                   struct ft_rendered *out);

#endif
