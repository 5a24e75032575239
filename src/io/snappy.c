/* Decompresses Snappy. */
#include "io/snappy.h"

#include <string.h>

/* How long what follows is, before compression; false: it is not said. */
static bool read_length(uint64_t *length, const uint8_t **p, const uint8_t *end)
{
    *length = 0;
    for (int shift = 0; shift < 35 && *p < end; shift += 7) {
        const uint8_t b = *(*p)++;
        *length |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return true;
    }
    return false;
}

static size_t little_endian(const uint8_t *p, int bytes)
{
    size_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (size_t)p[i] << 8 * i;
    return v;
}

/* Bytes as they are; their number stands in the tag, or in 1 to 4 bytes behind it. */
static bool copy_literal(uint8_t **out, const uint8_t *out_end, const uint8_t **p,
                         const uint8_t *end, uint8_t tag)
{
    size_t n = tag >> 2;
    if (n >= 60) {
        const int bytes = (int)n - 59;
        if (end - *p < bytes)
            return false;
        n = little_endian(*p, bytes);
        *p += bytes;
    }
    n++;
    if (n > (size_t)(end - *p) || n > (size_t)(out_end - *out))
        return false;
    memcpy(*out, *p, n);
    *p += n;
    *out += n;
    return true;
}

/* Bytes that were written before; the two may overlap, which repeats them. */
static bool copy_back(uint8_t **out, const uint8_t *begin, const uint8_t *out_end,
                      const uint8_t **p, const uint8_t *end, uint8_t tag)
{
    const int kind = tag & 3, bytes = kind == 3 ? 4 : kind;
    if (end - *p < bytes)
        return false;
    const size_t n = kind == 1 ? 4 + (tag >> 2 & 7) : 1 + (tag >> 2);
    const size_t back = little_endian(*p, bytes) | (kind == 1 ? (size_t)(tag >> 5) << 8 : 0);
    *p += bytes;
    if (!back || back > (size_t)(*out - begin) || n > (size_t)(out_end - *out))
        return false;
    if (back >= n)
        memcpy(*out, *out - back, n);
    else
        for (size_t i = 0; i < n; i++)
            (*out)[i] = (*out)[(ptrdiff_t)i - (ptrdiff_t)back];
    *out += n;
    return true;
}

bool ft_snappy_decompress(uint8_t *out, size_t n, const uint8_t *in, size_t in_n)
{
    const uint8_t *p = in, *end = in + in_n, *begin = out, *out_end = out + n;
    uint64_t length;
    if (!read_length(&length, &p, end) || length != n)
        return false;
    while (p < end) {
        const uint8_t tag = *p++;
        if (!(tag & 3 ? copy_back(&out, begin, out_end, &p, end, tag)
                      : copy_literal(&out, out_end, &p, end, tag)))
            return false;
    }
    return out == out_end;
}
