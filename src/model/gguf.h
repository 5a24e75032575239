/* A GGUF file's config.json. */
#ifndef FT_MODEL_GGUF_H
#define FT_MODEL_GGUF_H

#include "io/gguf.h"

/* As transformers would have it. FT_EDATA for an architecture that ft does not know. Caller
 * json_decref()s. */
int ft_gguf_config(const struct ft_gguf *g, const char *path, json_t **out);

#endif
