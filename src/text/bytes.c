/* Growing bytes and lists, code points and their properties. */
#include "text/internal.h"

#include <stdarg.h>
#include <stdio.h>
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
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return FT_OK;
}

void ft_bytes_free(struct ft_bytes *b)
{
    ft_free(b->p);
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

int ft_ids_add(struct ft_ids *ids, int32_t id)
{
    if (ids->n == ids->room) {
        size_t room = ids->room ? 2 * ids->room : 256;
        FT_TRY(ft_grow(&ids->v, room, sizeof *ids->v));
        ids->room = room;
    }
    ids->v[ids->n++] = id;
    return FT_OK;
}

void ft_ids_free(struct ft_ids *ids)
{
    ft_free(ids->v);
    *ids = (struct ft_ids){0};
}

int ft_put_code_point(char *p, int32_t c)
{
    return (int)utf8proc_encode_char(c, (utf8proc_uint8_t *)p);
}

bool ft_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool ft_is_numeric(int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool ft_is_punctuation(int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool ft_is_word(int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ND) || k == UTF8PROC_CATEGORY_NL ||
           k == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d;
}

int ft_refuse(const struct ft_place *at, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return ft_fail_at((struct ft_where){.file = at->file}, FT_EDATA, "'%s' %s", at->path, text);
}

/* --- the characters that byte-level vocabularies write bytes with (GPT-2's bytes_to_unicode) ---
 */

static bool is_itself(int b)
{
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

int32_t ft_byte_char(uint8_t byte)
{
    int32_t others = 0;
    if (is_itself(byte))
        return byte;
    for (int b = 0; b < byte; b++)
        others += !is_itself(b);
    return 256 + others;
}

int ft_char_byte(int32_t c)
{
    if (c < 256)
        return is_itself(c) ? c : -1;
    for (int b = 0, next = 256; b < 256; b++)
        if (!is_itself(b) && next++ == c)
            return b;
    return -1;
}
