/* Thrift's compact protocol, as far as Parquet's metadata needs it:
 * https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md */
#ifndef FT_IO_THRIFT_H
#define FT_IO_THRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ft_thrift_type {
    FT_THRIFT_STOP,
    FT_THRIFT_TRUE,
    FT_THRIFT_FALSE,
    FT_THRIFT_BYTE,
    FT_THRIFT_I16,
    FT_THRIFT_I32,
    FT_THRIFT_I64,
    FT_THRIFT_DOUBLE,
    FT_THRIFT_BINARY,
    FT_THRIFT_LIST,
    FT_THRIFT_SET,
    FT_THRIFT_MAP,
    FT_THRIFT_STRUCT,
};

/* Bytes that are read. Once they are not what they should be, `bad` is set, and everything that is
 * read from then on is zero, and every struct and list at its end. */
struct ft_thrift {
    const uint8_t *p, *end;
    bool bad;
};

/* A field of a struct: start with {0}. */
struct ft_thrift_field {
    int id, type;
};
/* The next field; false: the struct is at its end. Its value must be read, or skipped. */
bool ft_thrift_next(struct ft_thrift *t, struct ft_thrift_field *f);
void ft_thrift_skip(struct ft_thrift *t, int type);

uint64_t ft_thrift_varint(struct ft_thrift *t);
int64_t ft_thrift_int(struct ft_thrift *t); /* of I16, I32, I64 */
/* A field's boolean lies in its type. */
static inline bool ft_thrift_bool(const struct ft_thrift_field *f)
{
    return f->type == FT_THRIFT_TRUE;
}
/* Points into what is read. */
const char *ft_thrift_binary(struct ft_thrift *t, size_t *n);
/* How many elements follow, and of which type; each takes a byte at least. */
size_t ft_thrift_list(struct ft_thrift *t, int *type);

#endif
