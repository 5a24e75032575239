/* Writing GGUF: pairs and the table of tensors, then their bytes, each at a multiple of 32. */
#include "io/gguf_write.h"

#include <string.h>

enum { ALIGNMENT = 32, VERSION = 3 };
enum value { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

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

int ft_gguf_put_flag(struct ft_gguf_out *o, const char *key, bool v)
{
    FT_TRY(put_key(o, key, BOOL));
    return put(&o->pairs, v, 1);
}

static int begin_list(struct ft_gguf_out *o, const char *key, enum value type, const json_t *list)
{
    FT_TRY(put_key(o, key, ARRAY));
    FT_TRY(put(&o->pairs, type, 4));
    return put(&o->pairs, json_array_size(list), 8);
}

static int put_texts(struct ft_gguf_out *o, const char *key, const json_t *list)
{
    FT_TRY(begin_list(o, key, STRING, list));
    for (size_t i = 0; i < json_array_size(list); i++)
        FT_TRY(put_string(&o->pairs, json_string_value(json_array_get(list, i))));
    return FT_OK;
}

static int put_numbers(struct ft_gguf_out *o, const char *key, const json_t *list)
{
    FT_TRY(begin_list(o, key, I32, list));
    for (size_t i = 0; i < json_array_size(list); i++)
        FT_TRY(put(&o->pairs, (uint32_t)json_integer_value(json_array_get(list, i)), 4));
    return FT_OK;
}

static int put_flags(struct ft_gguf_out *o, const char *key, const json_t *list)
{
    FT_TRY(begin_list(o, key, BOOL, list));
    for (size_t i = 0; i < json_array_size(list); i++)
        FT_TRY(put(&o->pairs, json_is_true(json_array_get(list, i)), 1));
    return FT_OK;
}

static int put_reals(struct ft_gguf_out *o, const char *key, const json_t *list)
{
    FT_TRY(begin_list(o, key, F32, list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const float v = (float)json_real_value(json_array_get(list, i));
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        FT_TRY(put(&o->pairs, bits, 4));
    }
    return FT_OK;
}

int ft_gguf_put_all(struct ft_gguf_out *o, const json_t *members)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)members, key, v)
    {
        FT_TRY(json_is_string(v)    ? ft_gguf_put_text(o, key, json_string_value(v))
               : json_is_boolean(v) ? ft_gguf_put_flag(o, key, json_is_true(v))
               : json_is_integer(v) ? ft_gguf_put_count(o, key, (uint32_t)json_integer_value(v))
               : json_is_string(json_array_get(v, 0))  ? put_texts(o, key, v)
               : json_is_boolean(json_array_get(v, 0)) ? put_flags(o, key, v)
               : json_is_real(json_array_get(v, 0))    ? put_reals(o, key, v)
                                                       : put_numbers(o, key, v));
    }
    return FT_OK;
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
        int64_t bytes, elements;
    } types[] = {{FT_F32, 0, 4, 1},    {FT_F16, 1, 2, 1},   {FT_Q4_0, 2, 18, 32},
                 {FT_Q8_0, 8, 34, 32}, {FT_BF16, 30, 2, 1}, {FT_MXFP4, 39, 17, 32}};
    int64_t n = 1;
    size_t t = 0;
    while (types[t].dtype != dtype)
        t++;
    FT_TRY(put_string(&o->infos, name));
    FT_TRY(put(&o->infos, (uint64_t)n_dims, 4));
    for (int i = n_dims - 1; i >= 0; i--) { /* columns first there */
        FT_TRY(put(&o->infos, (uint64_t)dims[i], 8));
        n *= dims[i];
    }
    n = n / types[t].elements * types[t].bytes;
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
