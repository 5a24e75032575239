/* Small text helpers. */
#ifndef FT_CORE_TEXT_H
#define FT_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours) that turn a into b; longer words than 63
 * bytes are compared by their first 63. */
int ft_edit_distance(const char *a, const char *b);
/* The candidate nearest to word, or NULL if none is near enough to be meant. */
const char *ft_nearest(const char *word, const char *const *candidates, size_t n);

/* The bytes of the UTF-8 character at p[0, n), n >= 1; 0 if it is none: then *bad (may be NULL)
 * bytes are what is to be replaced as one. */
size_t ft_utf8_length(const char *p, size_t n, size_t *bad);
/* The bytes before the first that is not UTF-8; n if all are. */
size_t ft_utf8_valid(const char *p, size_t n);

bool ft_starts_with(const char *s, const char *prefix);
bool ft_ends_with(const char *s, const char *suffix);

#endif
