/* A tokenizer from a GGUF file's metadata. */
#ifndef FT_TEXT_GGUF_H
#define FT_TEXT_GGUF_H

#include "core/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* tokenizer.json and tokenizer_config.json as transformers would have them. FT_EDATA where ft
 * cannot rebuild it; both are then NULL. Caller json_decref()s. */
int ft_gguf_tokenizer(const json_t *metadata, const char *path, json_t **tokenizer,
                      json_t **config);
/* The other way: metadata of a byte-level BPE tokenizer. special: tokens by name; template NULL:
 * none; begins: texts begin with bos_token; vocab: the model's, gaps are filled up. FT_EDATA for
 * one that llama.cpp has no name of, as far as ft knows. Caller json_decref()s. */
int ft_gguf_from_tokenizer(json_t **out, const char *path, const json_t *tokenizer,
                           const json_t *special, const char *template, bool begins, int64_t vocab);

#endif
