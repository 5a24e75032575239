/* Shared objects that are installed with the program. */
#ifndef FT_CORE_BESIDE_H
#define FT_CORE_BESIDE_H

#include <limits.h>
#include <stdbool.h>

enum { FT_BESIDE_ROOM = PATH_MAX + 64 };

/* The first file of this name beside the program, in ../lib/ft or in ../lib; false: there is none.
 */
bool ft_beside(const char *name, char path[FT_BESIDE_ROOM]);

#endif
