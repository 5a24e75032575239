/* Growing bytes and lists, code points and their properties. */
#include "core/bytes.h"

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"

#include <string.h>
#include <utf8proc.h>

int ft_bytes_add(struct ft_bytes *b, const char *p, size_t n)
{
    if (b->n + n > b->room) {
        size_t room = b->room ? b->room : 256;
        while (room < b->n + n)
            room *= 2;
        FT_TRY(ft_grow(&b->p, room, 1));
        b->room = room;
    }
    if (b->track && b->n + n > b->from_room) {
        FT_TRY(ft_grow(&b->from, b->room, sizeof *b->from));
        b->from_room = b->room;
    }
    for (size_t i = 0; b->track && i < n; i++)
        b->from[b->n + i] = (uint32_t)b->at;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return FT_OK;
}

int ft_bytes_keep(struct ft_bytes *b, const char *p, size_t n, size_t at)
{
    FT_TRY(ft_bytes_add(b, p, n));
    for (size_t i = 0; b->track && i < n; i++)
        b->from[b->n - n + i] = (uint32_t)(at + i);
    return FT_OK;
}

void ft_bytes_follow(struct ft_bytes *b, struct ft_bytes *to)
{
    for (size_t i = 0; b->track && i < to->n; i++)
        to->from[i] = to->from[i] < b->n ? b->from[to->from[i]] : (uint32_t)b->end;
    to->end = b->end;
    struct ft_bytes t = *b;
    *b = *to;
    *to = t;
}

void ft_bytes_free(struct ft_bytes *b)
{
    ft_free(b->p);
    ft_free(b->from);
    *b = (struct ft_bytes){0};
}

int ft_ranges_add(struct ft_ranges *r, size_t begin, size_t end, bool match)
{
    if (r->n == r->room) {
        size_t room = r->room ? 2 * r->room : 64;
        FT_TRY(ft_grow(&r->v, room, sizeof *r->v));
        r->room = room;
    }
    r->v[r->n++] = (struct ft_range){.begin = begin, .end = end, .match = match};
    return FT_OK;
}

int ft_put_code_point(char *p, int32_t c)
{
    return (int)utf8proc_encode_char(c, (utf8proc_uint8_t *)p);
}

/* First and last of runs of code points, ascending. */
static bool in_table(const int32_t (*runs)[2], size_t n, int32_t c)
{
    for (size_t i = 0; i < n && c >= runs[i][0]; i++)
        if (c <= runs[i][1])
            return true;
    return false;
}
#define IN(runs, c) in_table(runs, sizeof runs / sizeof *runs, c)

/* Digits of Unicode 16, which utf8proc 2.8 does not know and the library does. */
static const int32_t new_digits[][2] = {{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
                                        {0x11de0, 0x11de9}, {0x16130, 0x16139}, {0x16d70, 0x16d79},
                                        {0x16ff4, 0x16ff6}, {0x1ccf0, 0x1ccf9}, {0x1e5f1, 0x1e5fa}};

bool ft_is_numeric(int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO ||
           IN(new_digits, c);
}

/* The library's punctuation is that of Unicode 8: what came later is none there. */
static const int32_t later_punctuation[][2] = {
    {0x61d, 0x61d},     {0x9fd, 0x9fd},     {0xa76, 0xa76},     {0xc77, 0xc77},
    {0xc84, 0xc84},     {0x1b7d, 0x1b7e},   {0x2e43, 0x2e4f},   {0x2e52, 0x2e5d},
    {0x10ead, 0x10ead}, {0x10f55, 0x10f59}, {0x10f86, 0x10f89}, {0x1144b, 0x1144f},
    {0x1145a, 0x1145b}, {0x1145d, 0x1145d}, {0x11660, 0x1166c}, {0x116b9, 0x116b9},
    {0x1183b, 0x1183b}, {0x11944, 0x11946}, {0x119e2, 0x119e2}, {0x11a3f, 0x11a46},
    {0x11a9a, 0x11a9c}, {0x11a9e, 0x11aa2}, {0x11b00, 0x11b09}, {0x11c41, 0x11c45},
    {0x11c70, 0x11c71}, {0x11ef7, 0x11ef8}, {0x11f43, 0x11f4f}, {0x11fff, 0x11fff},
    {0x12ff1, 0x12ff2}, {0x16e97, 0x16e9a}, {0x16fe2, 0x16fe2}, {0x1e95e, 0x1e95f}};
static const int32_t former_punctuation[][2] = {{0x166d, 0x166d}, {0x111c9, 0x111c9}};

bool ft_is_punctuation(int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    if (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO)
        return !IN(later_punctuation, c);
    return IN(former_punctuation, c);
}
