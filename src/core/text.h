/* Small text helpers. */
#ifndef FT_CORE_TEXT_H
#define FT_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Edits (insert, delete, replace, swap of neighbours) that turn a into b; longer words than 63
 * bytes are compared by their first 63. */
int ft_edit_distance(const char *a, const char *b);
/* The candidate nearest to word, or NULL if none is near enough to be meant. */
const char *ft_nearest(const char *word, const char *const *candidates, size_t n);
/* Whether a name is near enough to a word that it is meant even where there are very many names. */
bool ft_is_near(const char *word, const char *name);

/* The bytes of the UTF-8 character at p[0, n), n >= 1; 0 if it is none: then *bad (may be NULL)
 * bytes are what is to be replaced as one. */
size_t ft_utf8_length(const char *p, size_t n, size_t *bad);
/* The bytes before the first that is not UTF-8; n if all are. */
size_t ft_utf8_valid(const char *p, size_t n);

/* Decodes the code point at p (valid UTF-8); returns its length. */
static inline int ft_code_point(const char *p, int32_t *out)
{
    const unsigned char *u = (const unsigned char *)p;
    if (u[0] < 0x80) {
        *out = u[0];
        return 1;
    }
    if (u[0] < 0xe0) {
        *out = (u[0] & 0x1f) << 6 | (u[1] & 0x3f);
        return 2;
    }
    if (u[0] < 0xf0) {
        *out = (u[0] & 0x0f) << 12 | (u[1] & 0x3f) << 6 | (u[2] & 0x3f);
        return 3;
    }
    *out = (u[0] & 0x07) << 18 | (u[1] & 0x3f) << 12 | (u[2] & 0x3f) << 6 | (u[3] & 0x3f);
    return 4;
}
static inline int ft_char_length(char c)
{
    const unsigned char u = (unsigned char)c;
    return u < 0x80 ? 1 : u < 0xe0 ? 2 : u < 0xf0 ? 3 : 4;
}

bool ft_is_space(int32_t c); /* Unicode White_Space */
bool ft_is_blank(int32_t c); /* and the separators that Python strips with it */
/* Python's strip(): *p and *n become what is left of valid UTF-8. */
void ft_strip(const char **p, size_t *n, bool left, bool right);

bool ft_starts_with(const char *s, const char *prefix);
bool ft_ends_with(const char *s, const char *suffix);

#endif
