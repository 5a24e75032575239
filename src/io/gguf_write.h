/* Writing GGUF, version 3. */
#ifndef FT_IO_GGUF_WRITE_H
#define FT_IO_GGUF_WRITE_H

#include "core/bytes.h"
#include "core/file.h"
#include "core/tensor.h"

#include <jansson.h>

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
int ft_gguf_put_flag(struct ft_gguf_out *o, const char *key, bool v);
/* Each member of an object: a text, a whole number as U32, a flag, or a list of texts, of flags,
 * of whole numbers (I32) or of reals (F32). */
int ft_gguf_put_all(struct ft_gguf_out *o, const json_t *members);

/* A tensor behind those before it. dims: rows first, as of a row-major tensor; F32, F16, BF16,
 * Q8_0, Q4_0 or MXFP4. */
int ft_gguf_add(struct ft_gguf_out *o, const char *name, enum ft_dtype dtype, int n_dims,
                const int64_t *dims);
/* Puts tensor i's bytes, all of them, to the writer. */
typedef int ft_gguf_source_fn(void *ctx, int64_t i, struct ft_writer *w);
/* Writes the file, atomically. */
int ft_gguf_write(const struct ft_gguf_out *o, const char *path, ft_gguf_source_fn *source,
                  void *ctx);

#endif
