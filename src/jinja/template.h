/* Chat templates: the Jinja that Hugging Face's templates are written in, as transformers renders
 * it (trim_blocks, lstrip_blocks, loop controls, raise_exception, strftime_now, tojson,
 * generation). What is not supported is an error with line and column. */
#ifndef FT_JINJA_TEMPLATE_H
#define FT_JINJA_TEMPLATE_H

#include "core/status.h"

#include <jansson.h>
#include <stddef.h>

struct ft_template;

/* Parses `source` (UTF-8; copied); `name` stands for it in messages. FT_EDATA. */
int ft_template_open(struct ft_template **out, const char *source, const char *name);
void ft_template_close(struct ft_template *t);

/* A rendered text, and the byte ranges that {% generation %} marked. Freed with ft_rendered_free.
 */
struct ft_rendered {
    char *text;
    size_t length;
    struct ft_mark_range {
        size_t begin, end;
    } * marks;
    size_t n_marks;
};
/* context: an object whose members are the template's variables. FT_EDATA: what the template
 * raised, or an operation that Python would refuse. now: seconds since 1970 for strftime_now. */
int ft_template_render(const struct ft_template *t, const json_t *context, long long now,
                       struct ft_rendered *out);
void ft_rendered_free(struct ft_rendered *r);

#endif
