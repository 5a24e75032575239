/* Chat templates that come with ft, by the names that Axolotl's users know. */
#ifndef FT_TEXT_BUILTIN_H
#define FT_TEXT_BUILTIN_H

/* NULL: there is none of this name. */
const char *ft_builtin_template(const char *name);
/* Name number i, NULL behind the last. */
const char *ft_builtin_name(int i);

#endif
