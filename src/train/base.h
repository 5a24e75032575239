/* Base models by name: folders, ids in the local cache, and GGUF files. */
#ifndef FT_TRAIN_BASE_H
#define FT_TRAIN_BASE_H

#include "core/status.h"

#include <stdbool.h>

/* As ft_hub_find for a model; of a GGUF file, a folder in the cache that stands for it:
 * config.json, the tokenizer's files, and links to the file and its other parts. *origin (may be
 * NULL): the model that the file was made from, as it says itself, or NULL. Caller frees both. */
int ft_base_find(char **out, bool *cached, char **origin, const char *name, const char *revision,
                 const char *folder);

#endif
