/* The words of a template: text, and the names, numbers, texts and signs within its tags. */
#ifndef FT_JINJA_LEX_H
#define FT_JINJA_LEX_H

#include "jinja/jinja.h"

enum token_kind {
    T_END,
    T_TEXT,
    T_OPEN_PRINT,
    T_OPEN_BLOCK,
    T_CLOSE,
    T_NAME,
    T_NUMBER,
    T_STRING,
    T_OP
};

struct token {
    enum token_kind kind;
    const char *p; /* T_STRING: unescaped */
    size_t n;
    int line, col;
};

struct parser {
    struct ft_template *t;
    const char *at, *end; /* of the source */
    const char *placed;   /* line and column of it are known */
    int placed_line, placed_col;
    int rc, depth, nested;   /* depth: of brackets in the tag; nested: of what is being read */
    int loops;               /* that are open, within a macro */
    bool calls_caller;       /* the macro that is being read names 'caller' */
    bool in_tag, strip_next; /* strip_next: the tag before ended in "-" */
    bool block;              /* the tag that is open is a block */
    struct token now;
};

/* Reads the next word into p->now; T_END at the end, and after an error. */
void jl_next(struct parser *p);
/* FT_EDATA at the word's place, unless something failed before. */
void jl_fail(struct parser *p, const struct token *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Memory of the template; never NULL for what is as small as a node: then p->rc is set. */
void *jl_take(struct parser *p, size_t n, size_t size);

#endif
