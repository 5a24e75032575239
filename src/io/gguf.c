/* Owns reading GGUF's header: magic, version, key-value pairs, tensor infos. */
#define _GNU_SOURCE
#include "io/gguf.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/quant.h"
#include "core/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file that is read from its beginning, through a buffer. */
struct reader {
    const char *path;
    int fd;
    int64_t at, size;
    unsigned char buffer[1 << 16];
    int64_t first, have; /* what of the file it holds */
    int rc;              /* the first failure; what is read then is zeros */
    unsigned since;      /* failed allocations before */
};

enum { DEPTH = 4, ALIGNMENT = 32, PAIRS = 1 << 16, TENSORS = 1 << 20 };

static struct ft_where here(const struct reader *r)
{
    return (struct ft_where){.file = r->path};
}

static void cut(struct reader *r)
{
    if (!r->rc)
        r->rc = ft_fail_at(here(r), FT_EDATA, "is cut: its header goes on behind its %lld bytes",
                           (long long)r->size);
}

static void get(struct reader *r, void *out, int64_t n)
{
    char *to = out;
    if (n > r->size - r->at)
        cut(r);
    while (n > 0 && !r->rc) {
        if (r->at < r->first || r->at >= r->first + r->have) {
            r->first = r->at;
            r->have = r->size - r->at < (int64_t)sizeof r->buffer ? r->size - r->at
                                                                  : (int64_t)sizeof r->buffer;
            r->rc = ft_pread(r->fd, r->path, r->buffer, (size_t)r->have, r->first);
        }
        const int64_t there = r->first + r->have - r->at, part = n < there ? n : there;
        memcpy(to, r->buffer + (r->at - r->first), (size_t)part);
        to += part;
        r->at += part;
        n -= part;
    }
    if (r->rc)
        memset(to, 0, (size_t)n);
}

static uint64_t get_number(struct reader *r, int bytes)
{
    unsigned char b[8] = {0};
    uint64_t v = 0;
    get(r, b, bytes);
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | b[i];
    return v;
}

/* A text; NULL if it cannot be read. Caller frees. */
static char *get_text(struct reader *r, size_t *n)
{
    const uint64_t length = get_number(r, 8);
    char *text = NULL;
    if (!r->rc && length > (uint64_t)(r->size - r->at))
        cut(r);
    if (r->rc)
        return NULL;
    if ((r->rc = ft_alloc(&text, (size_t)length + 1, 1)))
        return NULL;
    get(r, text, (int64_t)length);
    *n = (size_t)length;
    return text;
}

static json_t *get_string(struct reader *r)
{
    size_t n = 0;
    char *text = get_text(r, &n);
    json_t *s = text ? json_stringn(text, n) : NULL;
    if (text && !s && !r->rc)
        r->rc = ft_alloc_check(r->since)
                    ? FT_ERESOURCE
                    : ft_fail_at(here(r), FT_EDATA, "has a text at byte %lld that is not UTF-8",
                                 (long long)(r->at - (int64_t)n));
    ft_free(text);
    return s;
}

/* GGUF's types of values, by their numbers. */
enum value { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, VALUES };
static const int value_bytes[VALUES] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

static json_t *get_real(struct reader *r, bool wide)
{
    const uint64_t bits = get_number(r, wide ? 8 : 4);
    const uint32_t narrow = (uint32_t)bits;
    double v;
    float f;
    memcpy(&v, &bits, sizeof v);
    memcpy(&f, &narrow, sizeof f);
    v = wide ? v : (double)f;
    return v - v == 0 ? json_real(v) : json_null();
}

static json_t *get_value(struct reader *r, uint32_t type, int depth);

static json_t *get_array(struct reader *r, int depth)
{
    const uint32_t type = (uint32_t)get_number(r, 4);
    const uint64_t n = get_number(r, 8);
    if (r->rc)
        return NULL;
    if (depth >= DEPTH || type >= VALUES) {
        r->rc = ft_fail_at(here(r), FT_EDATA, "has an array of the unknown type %u at byte %lld",
                           type, (long long)r->at);
        return NULL;
    }
    if (n > (uint64_t)(r->size - r->at) / (uint64_t)value_bytes[type]) {
        cut(r);
        return NULL;
    }
    json_t *list = json_array();
    for (uint64_t i = 0; i < n && !r->rc; i++)
        json_array_append_new(list, get_value(r, type, depth + 1));
    return list;
}

static json_t *get_value(struct reader *r, uint32_t type, int depth)
{
    switch (type) {
    case U8:
    case U16:
    case U32:
        return json_integer((json_int_t)get_number(r, value_bytes[type]));
    case I8:
        return json_integer((int8_t)get_number(r, 1));
    case I16:
        return json_integer((int16_t)get_number(r, 2));
    case I32:
        return json_integer((int32_t)get_number(r, 4));
    case U64:
    case I64:
        return json_integer((json_int_t)get_number(r, 8));
    case F32:
    case F64:
        return get_real(r, type == F64);
    case BOOL:
        return json_boolean(get_number(r, 1) != 0);
    case STRING:
        return get_string(r);
    case ARRAY:
        return get_array(r, depth);
    default:
        if (!r->rc)
            r->rc = ft_fail_at(here(r), FT_EDATA, "has a value of the unknown type %u at byte %lld",
                               type, (long long)r->at);
        return NULL;
    }
}

static void get_pairs(struct reader *r, uint64_t n, json_t *to)
{
    for (uint64_t i = 0; i < n && !r->rc; i++) {
        size_t length = 0;
        char *key = get_text(r, &length);
        json_t *value = get_value(r, (uint32_t)get_number(r, 4), 0);
        if (!r->rc && (!key[0] || strlen(key) != length || json_object_get(to, key)))
            r->rc = ft_fail_at(here(r), FT_EDATA, "has the key '%s' twice, or one that is no text",
                               key);
        if (!r->rc && json_object_set_new(to, key, value))
            r->rc = ft_alloc_check(r->since)
                        ? FT_ERESOURCE
                        : ft_fail_at(here(r), FT_EDATA, "has a key that is not UTF-8");
        else if (r->rc)
            json_decref(value);
        ft_free(key);
    }
}

/* --- tensors --- */

static const struct {
    uint32_t number;
    enum ft_dtype dtype;
} types[] = {{0, FT_F32},     {1, FT_F16},     {2, FT_Q4_0},  {3, FT_Q4_1},
             {6, FT_Q5_0},    {7, FT_Q5_1},    {8, FT_Q8_0},  {10, FT_Q2_K},
             {11, FT_Q3_K},   {12, FT_Q4_K},   {13, FT_Q5_K}, {14, FT_Q6_K},
             {20, FT_IQ4_NL}, {23, FT_IQ4_XS}, {30, FT_BF16}, {39, FT_MXFP4}};

static int tensor_error(const struct reader *r, const struct ft_gguf_tensor *t, const char *what)
{
    return ft_fail_at(here(r), FT_EDATA, "tensor '%s': %s", t->name, what);
}

/* Bytes of a tensor, -1: it is none that this file can have. */
static int64_t bytes_of(const struct ft_gguf_tensor *t)
{
    const struct ft_block_size block = ft_block_size(t->dtype);
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        if (t->dims[i] < 1 || __builtin_mul_overflow(n, t->dims[i], &n) || n > (int64_t)1 << 50)
            return -1;
    if (!block.elements)
        return n * (int64_t)ft_dtype_size(t->dtype);
    return t->dims[t->n_dims - 1] % block.elements ? -1 : n / block.elements * block.bytes;
}

static void get_tensor(struct reader *r, struct ft_gguf_tensor *t, json_t *names)
{
    json_t *name = get_string(r);
    t->n_dims = (int)get_number(r, 4);
    t->name = name ? json_string_value(name) : "";
    if (!r->rc && (t->n_dims < 1 || t->n_dims > 4))
        r->rc = tensor_error(r, t, "has not 1 to 4 dimensions");
    t->n_dims = r->rc ? 0 : t->n_dims;
    for (int i = t->n_dims - 1; i >= 0 && !r->rc; i--)
        t->dims[i] = (int64_t)get_number(r, 8);
    const uint32_t type = (uint32_t)get_number(r, 4);
    t->begin = (int64_t)get_number(r, 8);
    t->dtype = FT_DTYPE_COUNT;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].number == type)
            t->dtype = types[i].dtype;
    if (!r->rc && json_array_append(names, name))
        r->rc = FT_ERESOURCE;
    if (!r->rc && t->dtype == FT_DTYPE_COUNT) {
        r->rc =
            ft_fail_at(here(r), FT_EDATA,
                       "tensor '%s' is of ggml's type %u, which ft does not read", t->name, type);
        ft_hint(
            "ft reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS "
            "and MXFP4");
    }
    json_decref(name);
    if (r->rc)
        return;
    t->type_name = ft_dtype_name(t->dtype);
    t->end = bytes_of(t);
    if (t->end < 0)
        r->rc = tensor_error(r, t, "its shape is not one of its type");
}

static int by_begin(const void *a, const void *b)
{
    const struct ft_gguf_tensor *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Offsets into the file, inside it, apart from one another. */
static int place(const struct reader *r, struct ft_gguf *g, int64_t alignment)
{
    const int64_t data = (r->at + alignment - 1) / alignment * alignment;
    int64_t last = data;
    qsort(g->tensors, (size_t)g->n, sizeof *g->tensors, by_begin);
    for (int i = 0; i < g->n; i++) {
        struct ft_gguf_tensor *t = &g->tensors[i];
        if (t->begin < 0 || t->begin > r->size || t->begin % alignment)
            return tensor_error(r, t, "its offset is not a place in the file");
        t->begin += data;
        if (__builtin_add_overflow(t->end, t->begin, &t->end) || t->end > r->size)
            return ft_fail_at(here(r), FT_EDATA, "is cut: tensor '%s' ends behind its %lld bytes",
                              t->name, (long long)r->size);
        if (t->begin < last)
            return tensor_error(r, t, "overlaps the one before it");
        last = t->end;
    }
    return FT_OK;
}

static int read_all(struct reader *r, struct ft_gguf *g)
{
    char magic[4];
    get(r, magic, 4);
    const uint64_t version = get_number(r, 4);
    const uint64_t tensors = get_number(r, 8), pairs = get_number(r, 8);
    if (r->rc)
        return r->rc;
    if (memcmp(magic, "GGUF", 4) != 0 || version < 2 || version > 3)
        return ft_fail_at(here(r), FT_EDATA, "is not a GGUF file of version 2 or 3");
    if (pairs > PAIRS || tensors > TENSORS)
        return ft_fail_at(here(r), FT_EDATA, "says it has %llu values and %llu tensors: too many",
                          (unsigned long long)pairs, (unsigned long long)tensors);
    json_t *names = json_array();
    g->metadata = json_object();
    get_pairs(r, pairs, g->metadata);
    if (!r->rc)
        r->rc = ft_alloc(&g->tensors, (size_t)tensors + 1, sizeof *g->tensors);
    for (uint64_t i = 0; i < tensors && !r->rc; i++, g->n++)
        get_tensor(r, &g->tensors[i], names);
    json_object_set_new(g->metadata, "", names);
    if (!r->rc)
        r->rc = ft_alloc_check(r->since);
    const json_t *said = json_object_get(g->metadata, "general.alignment");
    const int64_t alignment = said ? json_integer_value(said) : ALIGNMENT;
    if (!r->rc && (alignment < 1 || alignment > 1 << 20 || (alignment & (alignment - 1))))
        r->rc = ft_fail_at(here(r), FT_EDATA, "'general.alignment' is not a power of two");
    return r->rc ? r->rc : place(r, g, alignment);
}

bool ft_gguf_is(const char *path)
{
    char magic[4] = {0};
    int fd = ft_ends_with(path, ".gguf") ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    const bool is = fd >= 0 && read(fd, magic, 4) == 4 && memcmp(magic, "GGUF", 4) == 0;
    if (fd >= 0)
        close(fd);
    return is;
}

int ft_gguf_open(struct ft_gguf *g, const char *path)
{
    struct reader *r;
    struct stat st;
    *g = (struct ft_gguf){0};
    FT_TRY(ft_alloc(&r, 1, sizeof *r));
    r->path = path;
    r->since = ft_alloc_failures();
    r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = FT_OK;
    if (r->fd < 0 || fstat(r->fd, &st) || !S_ISREG(st.st_mode))
        rc = ft_fail_at(here(r), FT_EDATA, "cannot open: %s",
                        r->fd < 0 ? strerror(errno) : "it is not a regular file");
    else {
        r->size = st.st_size;
        rc = read_all(r, g);
    }
    if (r->fd >= 0)
        close(r->fd);
    ft_free(r);
    if (rc)
        ft_gguf_close(g);
    return rc;
}

void ft_gguf_close(struct ft_gguf *g)
{
    json_decref(g->metadata);
    ft_free(g->tensors);
    *g = (struct ft_gguf){0};
}
