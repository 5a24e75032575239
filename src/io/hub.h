/* The local Hugging Face cache. */
#ifndef FT_IO_HUB_H
#define FT_IO_HUB_H

#include "core/status.h"

/* The folder of a model (kind "model") or dataset ("dataset"; a file too): `name` itself where it
 * exists as a path (beside `folder` too), else the snapshot of "org/name" in HF_HUB_CACHE,
 * HF_HOME/hub or ~/.cache/huggingface/hub. revision: a branch or tag, NULL: main. Never the
 * network. *cached tells which. FT_EDATA with the command that downloads it. Caller frees *out. */
int ft_hub_find(char **out, bool *cached, const char *kind, const char *name, const char *revision,
                const char *folder);

#endif
