/* Writes messages of protocol buffers. */
#include "track/protobuf.h"

#include <string.h>

enum wire { VARINT = 0, BITS64 = 1, BYTES = 2, BITS32 = 5 };
enum { LENGTH = 5 }; /* bytes that a length has which is not known yet */

static void put_varint(struct ft_bytes *m, uint64_t v)
{
    char b[10];
    size_t n = 0;
    do {
        b[n++] = (char)((v & 127) | (v > 127 ? 128 : 0));
        v >>= 7;
    } while (v);
    ft_bytes_add(m, b, n);
}

static void put_field(struct ft_bytes *m, int field, enum wire wire)
{
    put_varint(m, (uint64_t)field << 3 | wire);
}

void ft_pb_int(struct ft_bytes *m, int field, uint64_t v)
{
    put_field(m, field, VARINT);
    put_varint(m, v);
}

void ft_pb_float(struct ft_bytes *m, int field, float v)
{
    put_field(m, field, BITS32);
    ft_bytes_add(m, (const char *)&v, sizeof v);
}

void ft_pb_double(struct ft_bytes *m, int field, double v)
{
    put_field(m, field, BITS64);
    ft_bytes_add(m, (const char *)&v, sizeof v);
}

void ft_pb_text(struct ft_bytes *m, int field, const char *text)
{
    const size_t n = strlen(text);
    put_field(m, field, BYTES);
    put_varint(m, n);
    ft_bytes_add(m, text, n);
}

size_t ft_pb_begin(struct ft_bytes *m, int field)
{
    static const char unknown[LENGTH] = {0};
    put_field(m, field, BYTES);
    ft_bytes_add(m, unknown, LENGTH);
    return m->n;
}

/* The length takes all of its bytes, with zeros that a reader adds up as any other. */
void ft_pb_end(struct ft_bytes *m, size_t begun)
{
    if (begun < LENGTH || m->n < begun)
        return;
    size_t n = m->n - begun;
    for (size_t i = 0; i < LENGTH; i++, n >>= 7)
        m->p[begun - LENGTH + i] = (char)((n & 127) | (i + 1 < LENGTH ? 128 : 0));
}
