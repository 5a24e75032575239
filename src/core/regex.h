/* Regular expressions, by way of Oniguruma in its Perl syntax (which covers what Python's re offers
 * for module names). */
#ifndef FT_CORE_REGEX_H
#define FT_CORE_REGEX_H

#include "core/status.h"

struct ft_regex;

/* Compiles prefix + pattern + suffix; what is wrong with it is reported with `code`. */
int ft_regex_new(struct ft_regex **out, enum ft_code code, const char *prefix, const char *pattern,
                 const char *suffix);
/* Python's re.fullmatch: the whole of s. */
bool ft_regex_matches_all(const struct ft_regex *r, const char *s);
void ft_regex_free(struct ft_regex *r);

#endif
