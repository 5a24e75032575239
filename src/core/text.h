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

bool ft_starts_with(const char *s, const char *prefix);
bool ft_ends_with(const char *s, const char *suffix);

#endif
