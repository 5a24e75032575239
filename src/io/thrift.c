/* Reads Thrift's compact protocol. */
#include "io/thrift.h"

enum { DEPTH = 32 };

static void spoil(struct ft_thrift *t)
{
    t->bad = true;
    t->p = t->end;
}

static uint8_t byte(struct ft_thrift *t)
{
    if (t->p < t->end)
        return *t->p++;
    spoil(t);
    return 0;
}

uint64_t ft_thrift_varint(struct ft_thrift *t)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        const uint8_t b = byte(t);
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    spoil(t);
    return 0;
}

int64_t ft_thrift_int(struct ft_thrift *t)
{
    const uint64_t v = ft_thrift_varint(t);
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

bool ft_thrift_next(struct ft_thrift *t, struct ft_thrift_field *f)
{
    const uint8_t b = byte(t);
    f->type = b & 15;
    if (t->bad || f->type == FT_THRIFT_STOP)
        return false;
    if (b >> 4)
        f->id += b >> 4;
    else
        f->id = (int16_t)ft_thrift_int(t);
    if (f->type > FT_THRIFT_STRUCT || f->id > INT16_MAX)
        spoil(t);
    return !t->bad;
}

const char *ft_thrift_binary(struct ft_thrift *t, size_t *n)
{
    const uint64_t length = ft_thrift_varint(t);
    *n = 0;
    if (length > (uint64_t)(t->end - t->p)) {
        spoil(t);
        return "";
    }
    *n = (size_t)length;
    t->p += length;
    return (const char *)t->p - length;
}

size_t ft_thrift_list(struct ft_thrift *t, int *type)
{
    const uint8_t b = byte(t);
    const uint64_t n = b >> 4 == 15 ? ft_thrift_varint(t) : b >> 4;
    *type = b & 15;
    if (n > (uint64_t)(t->end - t->p))
        spoil(t);
    return t->bad ? 0 : (size_t)n;
}

static void skip(struct ft_thrift *t, int type, int depth);

/* In lists a boolean is a byte. */
static void skip_elements(struct ft_thrift *t, size_t n, int type, int depth)
{
    for (size_t i = 0; i < n && !t->bad; i++)
        if (type == FT_THRIFT_TRUE || type == FT_THRIFT_FALSE)
            byte(t);
        else
            skip(t, type, depth);
}

static void skip_map(struct ft_thrift *t, int depth)
{
    const uint64_t n = ft_thrift_varint(t);
    const uint8_t types = n ? byte(t) : 0;
    for (uint64_t i = 0; i < n && !t->bad; i++) {
        skip_elements(t, 1, types >> 4, depth);
        skip_elements(t, 1, types & 15, depth);
    }
}

static void skip(struct ft_thrift *t, int type, int depth)
{
    struct ft_thrift_field f = {0};
    size_t n;
    int element;
    if (depth > DEPTH)
        spoil(t);
    switch (type) {
    case FT_THRIFT_TRUE:
    case FT_THRIFT_FALSE:
        break;
    case FT_THRIFT_BYTE:
        byte(t);
        break;
    case FT_THRIFT_I16:
    case FT_THRIFT_I32:
    case FT_THRIFT_I64:
        ft_thrift_varint(t);
        break;
    case FT_THRIFT_DOUBLE:
        for (int i = 0; i < 8; i++)
            byte(t);
        break;
    case FT_THRIFT_BINARY:
        ft_thrift_binary(t, &n);
        break;
    case FT_THRIFT_LIST:
    case FT_THRIFT_SET:
        n = ft_thrift_list(t, &element);
        skip_elements(t, n, element, depth + 1);
        break;
    case FT_THRIFT_MAP:
        skip_map(t, depth + 1);
        break;
    case FT_THRIFT_STRUCT:
        while (ft_thrift_next(t, &f))
            skip(t, f.type, depth + 1);
        break;
    default:
        spoil(t);
    }
}

void ft_thrift_skip(struct ft_thrift *t, int type)
{
    skip(t, type, 0);
}
