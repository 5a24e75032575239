/* Owns reading and writing of safetensors files. */
#define _GNU_SOURCE
#include "io/safetensors.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER = 100000000 }; /* as the reference implementation */

struct ft_st {
    char *path;
    int fd;
    json_t *header;
    struct ft_st_entry *entries; /* by begin */
    int *by_name;                /* indices, sorted by name */
    int n;
};

/* All dtypes of the format: name and bits. Those that ft computes with are in core/tensor.h. */
static const struct {
    const char *name;
    int bits;
} format_dtypes[] = {{"BOOL", 8}, {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                     {"I8", 8},   {"F8_E5M2", 8},     {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
                     {"U16", 16}, {"F8_E4M3FNUZ", 8}, {"F16", 16},    {"BF16", 16},   {"I32", 32},
                     {"U32", 32}, {"F32", 32},        {"C64", 64},    {"F64", 64},    {"I64", 64},
                     {"U64", 64}, {"F8_E5M2FNUZ", 8}};

static struct ft_where here(const struct ft_st *f)
{
    return (struct ft_where){.file = f->path};
}

static int tensor_error(const struct ft_st *f, const char *name, const char *what)
{
    return ft_fail_at(here(f), FT_EDATA, "tensor '%s': %s", name, what);
}

/* Element count times bits, or -1 on overflow. */
static int64_t bits_of(const struct ft_st_entry *e, int bits)
{
    uint64_t n = (uint64_t)bits;
    for (int i = 0; i < e->n_dims; i++)
        if (__builtin_mul_overflow(n, (uint64_t)e->dims[i], &n) || n > INT64_MAX)
            return -1;
    return (int64_t)n;
}

static bool get_count(const json_t *v, int64_t *out)
{
    *out = json_integer_value(v);
    return json_is_integer(v) && *out >= 0;
}

static int parse_entry(const struct ft_st *f, const char *name, const json_t *info,
                       struct ft_st_entry *e)
{
    const json_t *dtype = json_object_get(info, "dtype"), *shape = json_object_get(info, "shape");
    const json_t *offsets = json_object_get(info, "data_offsets");
    e->name = name;
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) ||
        json_array_size(offsets) != 2)
        return tensor_error(f, name, "needs 'dtype', 'shape' and two 'data_offsets'");
    e->dtype_name = json_string_value(dtype);
    int bits = 0;
    for (size_t i = 0; i < sizeof format_dtypes / sizeof *format_dtypes; i++)
        if (strcmp(format_dtypes[i].name, e->dtype_name) == 0)
            bits = format_dtypes[i].bits;
    if (!bits)
        return ft_fail_at(here(f), FT_EDATA, "tensor '%s': unknown dtype '%s'", name,
                          e->dtype_name);
    if (!ft_dtype_parse(e->dtype_name, &e->dtype))
        e->dtype = FT_DTYPE_COUNT;
    if (json_array_size(shape) > FT_ST_MAX_DIMS)
        return tensor_error(f, name, "has more than 8 dimensions");
    e->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < e->n_dims; i++)
        if (!get_count(json_array_get(shape, (size_t)i), &e->dims[i]))
            return tensor_error(f, name, "a dimension is not a whole number from 0");
    if (!get_count(json_array_get(offsets, 0), &e->begin) ||
        !get_count(json_array_get(offsets, 1), &e->end))
        return tensor_error(f, name, "an offset is not a whole number from 0");
    if (e->end < e->begin)
        return tensor_error(f, name, "ends before it begins");
    int64_t total = bits_of(e, bits);
    if (total < 0)
        return tensor_error(f, name, "its shape overflows 64 bits");
    if (total % 8 != 0 || total / 8 != e->end - e->begin)
        return ft_fail_at(here(f), FT_EDATA,
                          "tensor '%s': shape and dtype give %lld bits, its offsets %lld bytes",
                          name, (long long)total, (long long)(e->end - e->begin));
    return FT_OK;
}

static int by_begin(const void *a, const void *b)
{
    const struct ft_st_entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b, void *entries)
{
    const struct ft_st_entry *e = entries;
    return strcmp(e[*(const int *)a].name, e[*(const int *)b].name);
}

static int check_places(struct ft_st *f, int64_t data, int64_t size)
{
    int64_t at = 0;
    for (int i = 0; i < f->n; i++) {
        struct ft_st_entry *e = &f->entries[i];
        if (e->begin != at)
            return ft_fail_at(here(f), FT_EDATA,
                              "tensor '%s': begins at byte %lld of the data where %lld is expected "
                              "(%s)",
                              e->name, (long long)e->begin, (long long)at,
                              e->begin < at ? "tensors overlap" : "a hole between tensors");
        at = e->end;
        if (__builtin_add_overflow(e->begin, data, &e->begin) ||
            __builtin_add_overflow(e->end, data, &e->end))
            return tensor_error(f, e->name, "its offsets overflow 64 bits");
    }
    if (at > size - data)
        return ft_fail_at(here(f), FT_EDATA, "is cut: %lld bytes, the header describes %lld",
                          (long long)size, (long long)(data + at));
    if (at < size - data)
        return ft_fail_at(here(f), FT_EDATA,
                          "has bytes behind its tensors: %lld bytes, the header describes %lld",
                          (long long)size, (long long)(data + at));
    return FT_OK;
}

static void sort_names(struct ft_st *f)
{
    for (int i = 0; i < f->n; i++)
        f->by_name[i] = i;
    qsort_r(f->by_name, (size_t)f->n, sizeof *f->by_name, by_name, f->entries);
}

static int parse_header(struct ft_st *f, int64_t data, int64_t size)
{
    const char *name;
    json_t *info;
    if (!json_is_object(f->header))
        return ft_fail_at(here(f), FT_EDATA, "the header is not a JSON object");
    const json_t *meta = json_object_get(f->header, "__metadata__");
    if (meta) {
        if (!json_is_object(meta))
            return ft_fail_at(here(f), FT_EDATA, "'__metadata__' is not an object");
        json_object_foreach((json_t *)meta, name, info) if (
            !json_is_string(info)) return ft_fail_at(here(f), FT_EDATA,
                                                     "'__metadata__': '%s' is not a string", name);
    }
    FT_TRY(ft_alloc(&f->entries, json_object_size(f->header), sizeof *f->entries));
    FT_TRY(ft_alloc(&f->by_name, json_object_size(f->header), sizeof *f->by_name));
    json_object_foreach(f->header, name, info)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        FT_TRY(parse_entry(f, name, info, &f->entries[f->n]));
        f->n++;
    }
    qsort(f->entries, (size_t)f->n, sizeof *f->entries, by_begin);
    FT_TRY(check_places(f, data, size));
    sort_names(f);
    return FT_OK;
}

int ft_st_of(struct ft_st **out, const char *path, json_t *header, struct ft_st_entry *entries,
             int n)
{
    struct ft_st *f;
    *out = NULL;
    FT_TRY(ft_alloc(&f, 1, sizeof *f));
    f->fd = -1;
    f->path = ft_strdup(path);
    int rc = f->path ? FT_OK : FT_ERESOURCE;
    if (!rc)
        rc = ft_alloc(&f->by_name, (size_t)n + 1, sizeof *f->by_name);
    if (!rc)
        rc = ft_alloc(&f->entries, (size_t)n + 1, sizeof *f->entries);
    if (!rc && (f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0)
        rc = ft_fail_at(here(f), FT_EDATA, "cannot open: %s", strerror(errno));
    if (rc) {
        ft_st_close(f);
        return rc;
    }
    memcpy(f->entries, entries, (size_t)n * sizeof *entries);
    f->n = n;
    f->header = json_incref(header);
    qsort(f->entries, (size_t)f->n, sizeof *f->entries, by_begin);
    sort_names(f);
    *out = f;
    return FT_OK;
}

static int read_header(struct ft_st *f)
{
    struct stat st;
    unsigned char head[64] = {0};
    if (fstat(f->fd, &st) || !S_ISREG(st.st_mode))
        return ft_fail_at(here(f), FT_EDATA, "is not a regular file");
    size_t most = st.st_size < (off_t)sizeof head ? (size_t)st.st_size : sizeof head;
    FT_TRY(ft_pread(f->fd, f->path, head, most, 0));
    FT_TRY(ft_file_foreign(f->path, head, most, FT_EDATA));
    if (st.st_size < 8)
        return ft_fail_at(here(f), FT_EDATA, "has %lld bytes, too few for a header",
                          (long long)st.st_size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | head[i];
    if (n > MAX_HEADER)
        return ft_fail_at(here(f), FT_EDATA,
                          "its header would be %llu bytes, at most %d are allowed",
                          (unsigned long long)n, MAX_HEADER);
    if ((int64_t)n + 8 > st.st_size)
        return ft_fail_at(here(f), FT_EDATA, "is cut: %lld bytes, its header alone needs %lld",
                          (long long)st.st_size, (long long)n + 8);
    char *text;
    FT_TRY(ft_alloc(&text, (size_t)n + 1, 1));
    int rc = ft_pread(f->fd, f->path, text, (size_t)n, 8);
    if (!rc)
        rc = ft_json_text(text, (size_t)n, f->path, FT_EDATA, &f->header);
    ft_free(text);
    return rc ? rc : parse_header(f, (int64_t)n + 8, st.st_size);
}

int ft_st_open(struct ft_st **out, const char *path)
{
    struct ft_st *f;
    *out = NULL;
    FT_TRY(ft_alloc(&f, 1, sizeof *f));
    f->path = ft_strdup(path);
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = f->path ? FT_OK : FT_ERESOURCE;
    if (!rc && f->fd < 0)
        rc = ft_fail_at(here(f), FT_EDATA, "cannot open: %s", strerror(errno));
    if (!rc)
        rc = read_header(f);
    if (rc) {
        ft_st_close(f);
        return rc;
    }
    *out = f;
    return FT_OK;
}

void ft_st_close(struct ft_st *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    json_decref(f->header);
    ft_free(f->entries);
    ft_free(f->by_name);
    ft_free(f->path);
    ft_free(f);
}

const char *ft_st_path(const struct ft_st *f)
{
    return f->path;
}

int ft_st_count(const struct ft_st *f)
{
    return f->n;
}

const struct ft_st_entry *ft_st_at(const struct ft_st *f, int i)
{
    return &f->entries[i];
}

const struct ft_st_entry *ft_st_find(const struct ft_st *f, const char *name)
{
    int lo = 0, hi = f->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2, c = strcmp(name, f->entries[f->by_name[mid]].name);
        if (c == 0)
            return &f->entries[f->by_name[mid]];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

const char *ft_st_metadata(const struct ft_st *f, const char *key)
{
    return json_string_value(json_object_get(json_object_get(f->header, "__metadata__"), key));
}

int ft_st_read(const struct ft_st *f, const struct ft_st_entry *e, int64_t from, size_t n,
               void *out)
{
    FT_ASSERT(from >= 0 && from + (int64_t)n <= e->end - e->begin);
    return ft_pread(f->fd, f->path, out, n, e->begin + from);
}

/* --- writing --- */

static size_t item_bytes(const struct ft_st_item *i)
{
    size_t n = ft_dtype_size(i->dtype);
    for (int d = 0; d < i->n_dims; d++)
        n *= (size_t)i->dims[d];
    return n;
}

static int reference_order(const void *a, const void *b)
{
    const struct ft_st_item *x = a, *y = b;
    size_t p = ft_dtype_size(x->dtype), q = ft_dtype_size(y->dtype);
    return p != q ? (p < q ? 1 : -1) : strcmp(x->name, y->name);
}

/* jansson's text (or NULL), freed, as one padded with spaces to a multiple of 8. */
static char *padded(char *text)
{
    const size_t n = text ? strlen(text) : 0, full = (n + 7) / 8 * 8;
    char *out = NULL;
    if (text && ft_alloc(&out, full + 1, 1) == FT_OK) {
        memset(out, ' ', full);
        memcpy(out, text, n);
    }
    ft_json_free(text);
    return out;
}

/* The header's JSON text. Caller frees. */
static char *header_text(const struct ft_st_item *items, int n, const char *const (*meta)[2],
                         int n_meta)
{
    const unsigned since = ft_alloc_failures();
    json_t *root = json_object();
    if (n_meta) {
        json_t *m = json_object();
        for (int i = 0; i < n_meta; i++)
            json_object_set_new(m, meta[i][0], json_string(meta[i][1]));
        json_object_set_new(root, "__metadata__", m);
    }
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        json_t *e = json_object(), *shape = json_array(), *offsets = json_array();
        for (int d = 0; d < items[i].n_dims; d++)
            json_array_append_new(shape, json_integer(items[i].dims[d]));
        json_array_append_new(offsets, json_integer((json_int_t)at));
        at += item_bytes(&items[i]);
        json_array_append_new(offsets, json_integer((json_int_t)at));
        json_object_set_new(e, "dtype", json_string(ft_dtype_name(items[i].dtype)));
        json_object_set_new(e, "shape", shape);
        json_object_set_new(e, "data_offsets", offsets);
        json_object_set_new(root, items[i].name, e);
    }
    char *text = padded(ft_json_dumps(root, JSON_COMPACT, since));
    json_decref(root);
    return text;
}

static int put_header(struct ft_writer *w, const char *text)
{
    const uint64_t len = strlen(text);
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)(len >> (8 * i));
    FT_TRY(ft_writer_put(w, size, sizeof size));
    return ft_writer_put(w, text, (size_t)len);
}

int ft_st_write(const char *path, struct ft_st_item *items, int n, const char *const (*meta)[2],
                int n_meta)
{
    qsort(items, (size_t)n, sizeof *items, reference_order);
    char *text = header_text(items, n, meta, n_meta);
    if (!text)
        return FT_ERESOURCE;
    struct ft_writer w;
    int rc = ft_writer_open(&w, path);
    if (!rc)
        rc = put_header(&w, text);
    for (int i = 0; i < n && !rc; i++)
        rc = items[i].put     ? items[i].put(items[i].ctx, &w)
             : items[i].spool ? ft_spool_copy(items[i].spool, &w)
                              : ft_writer_put(&w, items[i].data, item_bytes(&items[i]));
    ft_free(text);
    if (rc) {
        ft_writer_abort(&w);
        return rc;
    }
    return ft_writer_commit(&w);
}

static int64_t row_bytes(const struct ft_st_entry *e)
{
    return e->n_dims && e->dims[0] ? (e->end - e->begin) / e->dims[0] : 0;
}

/* The file's header with tensor i at `rows[i]` rows. Caller frees. */
static char *header_again(const struct ft_st *f, const int64_t *rows)
{
    const unsigned since = ft_alloc_failures();
    json_t *root = json_deep_copy(f->header);
    int64_t at = 0;
    for (int i = 0; i < f->n; i++) {
        const struct ft_st_entry *e = &f->entries[i];
        json_t *entry = json_object_get(root, e->name), *offsets = json_array();
        json_array_append_new(offsets, json_integer(at));
        at += e->end - e->begin;
        if (e->n_dims && rows[i] != e->dims[0]) {
            json_array_set_new(json_object_get(entry, "shape"), 0, json_integer(rows[i]));
            at += (rows[i] - e->dims[0]) * row_bytes(e);
        }
        json_array_append_new(offsets, json_integer(at));
        json_object_set_new(entry, "data_offsets", offsets);
    }
    char *text = padded(ft_json_dumps(root, JSON_COMPACT, since));
    json_decref(root);
    return text;
}

int ft_st_rewrite(const struct ft_st *f, const char *path, const int64_t *rows,
                  ft_st_source_fn *source, void *ctx)
{
    enum { CHUNK = 1 << 22 };
    struct ft_writer w;
    char *buffer, *text = header_again(f, rows);
    if (!text)
        return FT_ERESOURCE;
    int rc = ft_alloc(&buffer, CHUNK, 1);
    if (!rc)
        rc = ft_writer_open(&w, path);
    if (rc) {
        ft_free(buffer);
        ft_free(text);
        return rc;
    }
    rc = put_header(&w, text);
    for (int i = 0; i < f->n && !rc; i++) {
        const struct ft_st_entry *e = &f->entries[i];
        const int64_t size = e->n_dims ? rows[i] * row_bytes(e) : e->end - e->begin;
        for (int64_t at = 0; at < size && !rc; at += CHUNK) {
            const size_t n = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
            rc = source(ctx, i, at, n, buffer);
            if (!rc)
                rc = ft_writer_put(&w, buffer, n);
        }
    }
    ft_free(buffer);
    ft_free(text);
    if (rc) {
        ft_writer_abort(&w);
        return rc;
    }
    return ft_writer_commit(&w);
}
