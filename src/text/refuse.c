/* What a tokenizer's file is told where it asks for what is not supported. */
#include "text/internal.h"

#include <stdarg.h>
#include <stdio.h>

int ft_refuse(const struct ft_place *at, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return ft_fail_at((struct ft_where){.file = at->file}, FT_EDATA, "'%s' %s", at->path, text);
}
