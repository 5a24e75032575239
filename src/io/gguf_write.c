/* Writing GGUF: pairs and the table of tensors, then their bytes, each at a multiple of 32. */
#include "io/gguf_write.h"

#include <string.h>

enum { ALIGNMENT = 32, VERSION = 3 };
enum value { U32 = 4, F32 = 6, STRING = 8 };

static int put(struct ft_bytes *b, uint64_t v, int bytes)
{
    char out[8];
    for (int i = 0; i < bytes; i++)
        out[i] = (char)(v >> (8 * i) & 0xff);
    return ft_bytes_add(b, out, (size_t)bytes);
}

static int put_string(struct ft_bytes *b, const char *text)
{
    FT_TRY(put(b, strlen(text), 8));
    return ft_bytes_add(b, text, strlen(text));
}

static int put_key(struct ft_gguf_out *o, const char *key, enum value type)
{
    o->n_pairs++;
    FT_TRY(put_string(&o->pairs, key));
    return put(&o->pairs, type, 4);
}

int ft_gguf_put_text(struct ft_gguf_out *o, const char *key, const char *text)
{
    FT_TRY(put_key(o, key, STRING));
    return put_string(&o->pairs, text);
}

int ft_gguf_put_real(struct ft_gguf_out *o, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    FT_TRY(put_key(o, key, F32));
    return put(&o->pairs, bits, 4);
}

int ft_gguf_put_count(struct ft_gguf_out *o, const char *key, uint32_t v)
{
    FT_TRY(put_key(o, key, U32));
    return put(&o->pairs, v, 4);
}

static int64_t padded(int64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

int ft_gguf_add(struct ft_gguf_out *o, const char *name, enum ft_dtype dtype, int n_dims,
                const int64_t *dims)
{
    static const struct {
        enum ft_dtype dtype;
        uint32_t number;
    } types[] = {{FT_F32, 0}, {FT_F16, 1}, {FT_BF16, 30}};
    int64_t n = (int64_t)ft_dtype_size(dtype);
    size_t t = 0;
    while (types[t].dtype != dtype)
        t++;
    FT_TRY(put_string(&o->infos, name));
    FT_TRY(put(&o->infos, (uint64_t)n_dims, 4));
    for (int i = n_dims - 1; i >= 0; i--) { /* columns first there */
        FT_TRY(put(&o->infos, (uint64_t)dims[i], 8));
        n *= dims[i];
    }
    FT_TRY(put(&o->infos, types[t].number, 4));
    FT_TRY(put(&o->infos, (uint64_t)o->bytes, 8));
    o->bytes += padded(n);
    o->n_tensors++;
    return ft_bytes_add(&o->sizes, (const char *)&n, sizeof n);
}

static int pad(struct ft_writer *w, int64_t n)
{
    static const char zeros[ALIGNMENT];
    return ft_writer_put(w, zeros, (size_t)(padded(n) - n));
}

int ft_gguf_write(const struct ft_gguf_out *o, const char *path, ft_gguf_source_fn *source,
                  void *ctx)
{
    struct ft_writer w;
    struct ft_bytes head = {0};
    int rc = ft_bytes_add(&head, "GGUF", 4);
    if (!rc)
        rc = put(&head, VERSION, 4);
    if (!rc)
        rc = put(&head, (uint64_t)o->n_tensors, 8);
    if (!rc)
        rc = put(&head, (uint64_t)o->n_pairs, 8);
    if (!rc)
        rc = ft_bytes_add(&head, o->pairs.p, o->pairs.n);
    if (!rc)
        rc = ft_bytes_add(&head, o->infos.p, o->infos.n);
    if (!rc)
        rc = ft_writer_open(&w, path);
    if (rc) {
        ft_bytes_free(&head);
        return rc;
    }
    rc = ft_writer_put(&w, head.p, head.n);
    if (!rc)
        rc = pad(&w, (int64_t)head.n);
    ft_bytes_free(&head);
    for (int64_t i = 0; i < o->n_tensors && !rc; i++) {
        int64_t n;
        memcpy(&n, o->sizes.p + (size_t)i * sizeof n, sizeof n);
        rc = source(ctx, i, &w);
        if (!rc)
            rc = pad(&w, n);
    }
    if (!rc)
        return ft_writer_commit(&w);
    ft_writer_abort(&w);
    return rc;
}

void ft_gguf_out_free(struct ft_gguf_out *o)
{
    ft_bytes_free(&o->pairs);
    ft_bytes_free(&o->infos);
    ft_bytes_free(&o->sizes);
    *o = (struct ft_gguf_out){0};
}
