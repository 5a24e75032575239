/* Writing GGUF, version 3. */
#ifndef FT_IO_GGUF_WRITE_H
#define FT_IO_GGUF_WRITE_H

#include "core/bytes.h"
#include "core/file.h"
#include "core/tensor.h"

/* Starts zeroed, freed with ft_gguf_out_free. */
struct ft_gguf_out {
    struct ft_bytes pairs, infos; /* as they will lie in the file */
    struct ft_bytes sizes;        /* of the tensors, I64 each */
    int64_t n_pairs, n_tensors, bytes;
};
void ft_gguf_out_free(struct ft_gguf_out *o);

/* FT_ERESOURCE. */
int ft_gguf_put_text(struct ft_gguf_out *o, const char *key, const char *text);
int ft_gguf_put_real(struct ft_gguf_out *o, const char *key, float v);
int ft_gguf_put_count(struct ft_gguf_out *o, const char *key, uint32_t v);

/* A tensor behind those before it. dims: rows first, as of a row-major tensor; F32, F16 or BF16. */
int ft_gguf_add(struct ft_gguf_out *o, const char *name, enum ft_dtype dtype, int n_dims,
                const int64_t *dims);
/* Puts tensor i's bytes, all of them, to the writer. */
typedef int ft_gguf_source_fn(void *ctx, int64_t i, struct ft_writer *w);
/* Writes the file, atomically. */
int ft_gguf_write(const struct ft_gguf_out *o, const char *path, ft_gguf_source_fn *source,
                  void *ctx);

#endif
