/* The safetensors format: u64 header length, JSON header, tensor bytes. Every rule of the reference
 * reader is enforced before a byte of a tensor is read, and duplicate names besides. */
#ifndef FT_IO_SAFETENSORS_H
#define FT_IO_SAFETENSORS_H

#include "core/file.h"
#include "core/status.h"
#include "core/tensor.h"

#include <jansson.h>

enum { FT_ST_MAX_DIMS = 8 };

struct ft_st_entry {
    const char *name;
    const char *dtype_name; /* as the file says */
    enum ft_dtype dtype;    /* FT_DTYPE_COUNT if it is one that ft does not read */
    int n_dims;
    int64_t dims[FT_ST_MAX_DIMS];
    int64_t begin, end; /* within the file */
};

struct ft_st; /* an open file */

/* Opens and checks; FT_EDATA names what is wrong (a Git LFS pointer is called one). */
int ft_st_open(struct ft_st **out, const char *path);
/* Tensors of a file of another format as if they were one's of this: entries, whose names live as
 * long as header, which is kept (not stolen). FT_EDATA if the file cannot be opened. */
int ft_st_of(struct ft_st **out, const char *path, json_t *header, struct ft_st_entry *entries,
             int n);
void ft_st_close(struct ft_st *f);

const char *ft_st_path(const struct ft_st *f);
int ft_st_count(const struct ft_st *f);
const struct ft_st_entry *ft_st_at(const struct ft_st *f, int i); /* sorted by place in the file */
const struct ft_st_entry *ft_st_find(const struct ft_st *f, const char *name); /* NULL if absent */
const char *ft_st_metadata(const struct ft_st *f, const char *key);            /* NULL if absent */

/* Bytes [from, from + n) of a tensor; FT_ERESOURCE if the file has shrunk meanwhile. */
int ft_st_read(const struct ft_st *f, const struct ft_st_entry *e, int64_t from, size_t n,
               void *out);

/* What to write: data as it will lie in the file. */
struct ft_st_item {
    const char *name;
    enum ft_dtype dtype;
    int n_dims;
    int64_t dims[FT_ST_MAX_DIMS];
    const void *data;
    struct ft_spool *spool; /* instead of data; or what puts all of it: */
    int (*put)(void *ctx, struct ft_writer *w);
    void *ctx;
};

/* Writes items atomically, in the reference writer's order (by dtype size descending, then name),
 * with `__metadata__` from n_meta pairs of strings. Reorders items. FT_ERESOURCE. */
int ft_st_write(const char *path, struct ft_st_item *items, int n, const char *const (*meta)[2],
                int n_meta);

/* Bytes [from, from + n) of what is to stand in tensor i's place. */
typedef int ft_st_source_fn(void *ctx, int i, int64_t from, size_t n, void *out);
/* Writes the same tensors under the same names and dtypes to another file, atomically; their first
 * dimensions become `rows`. */
int ft_st_rewrite(const struct ft_st *f, const char *path, const int64_t *rows,
                  ft_st_source_fn *source, void *ctx);

#endif
