/* A tokenizer from a GGUF file's metadata. */
#ifndef FT_TEXT_GGUF_H
#define FT_TEXT_GGUF_H

#include "core/status.h"

#include <jansson.h>

/* tokenizer.json and tokenizer_config.json as transformers would have them. FT_EDATA where ft
 * cannot rebuild it; both are then NULL. Caller json_decref()s. */
int ft_gguf_tokenizer(const json_t *metadata, const char *path, json_t **tokenizer,
                      json_t **config);

#endif
