/* GGUF files, versions 2 and 3: metadata and the places of tensors. Everything that a hostile file
 * may say is checked against the file's size before it is used. */
#ifndef FT_IO_GGUF_H
#define FT_IO_GGUF_H

#include "core/status.h"
#include "core/tensor.h"

#include <jansson.h>

struct ft_gguf_tensor {
    const char *name; /* lives as long as the metadata */
    enum ft_dtype dtype;
    const char *type_name;
    int n_dims;
    int64_t dims[4];    /* rows first, as of a row-major tensor */
    int64_t begin, end; /* within the file */
};

struct ft_gguf {
    json_t *metadata; /* an object, and under "" the tensors' names */
    struct ft_gguf_tensor *tensors;
    int n;
};

/* Whether a path is of such a file: by its end and its first bytes. */
bool ft_gguf_is(const char *path);
/* FT_EDATA names what is wrong. */
int ft_gguf_open(struct ft_gguf *g, const char *path);
void ft_gguf_close(struct ft_gguf *g);

#endif
