/* Regular expressions, by way of Oniguruma in its Perl syntax (which covers what Python's re offers
 * for module names). */
#ifndef FT_CORE_REGEX_H
#define FT_CORE_REGEX_H

#include "core/status.h"

struct ft_regex;

/* Compiles prefix + pattern + suffix; what is wrong with it is reported with `code`. */
int ft_regex_new(struct ft_regex **out, enum ft_code code, const char *prefix, const char *pattern,
                 const char *suffix);
/* Oniguruma's onig_new, for UTF-8. Where memory runs out within it, it frees twice and damages the
 * heap (seen in 6.9.8): the process ends then, with FT_ERESOURCE. Not for several threads at once.
 * Returns what onig_new does. */
struct re_pattern_buffer;
int ft_regex_compile(struct re_pattern_buffer **out, const char *pattern, const void *syntax,
                     char why[128]);
/* Python's re.fullmatch: *out whether it matches the whole of s. FT_ERESOURCE: out of memory;
 * FT_EDATA: the expression takes too many steps on s. */
int ft_regex_matches_all(const struct ft_regex *r, const char *s, bool *out);
/* Reports what Oniguruma's match or search returned, if it is neither a place nor ONIG_MISMATCH. */
int ft_regex_failed(int result, const char *text);
void ft_regex_free(struct ft_regex *r);

#endif
