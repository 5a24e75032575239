/* What the template's parser and its interpreter share: the tree and the values. */
#ifndef FT_JINJA_JINJA_H
#define FT_JINJA_JINJA_H

#include "core/bytes.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"

#include <string.h>
#include "jinja/template.h"

enum jn_kind {
    /* expressions */
    JN_CONST,  /* value */
    JN_NAME,   /* text */
    JN_LIST,   /* list */
    JN_TUPLE,  /* list */
    JN_DICT,   /* list: key, value, key, value */
    JN_UNARY,  /* text: "-", "+", "not"; a */
    JN_BINARY, /* text: the operator; a, b */
    JN_AND,
    JN_OR,
    JN_COMPARE, /* a; list of operands, names of operators in texts */
    JN_IF_ELSE, /* b: condition; a: then; c: else or NULL */
    JN_ATTR,    /* a, text */
    JN_ITEM,    /* a, b */
    JN_SLICE,   /* a; list of three, each may be NULL */
    JN_CALL,    /* a, list; keyword values in more, their names in texts */
    JN_SPREAD,  /* a: *a among a call's arguments */
    JN_FILTER,  /* a (NULL: the block's text), text, list, more, texts */
    JN_TEST,    /* a, text, list, flag: negated */
    /* statements */
    JN_TEXT,        /* text, length */
    JN_PRINT,       /* a */
    JN_IF,          /* list of pairs: condition (NULL: else), body in more */
    JN_FOR,         /* a: target; b: iterable; c: condition or NULL; list: body; more: else; flag:
                     * recursive */
    JN_SET,         /* a: target (NAME, TUPLE, ATTR); b: value, or NULL and list: body */
    JN_MACRO,       /* text; texts: parameters; more: defaults (NULL: none); list: body; flag: it
                     * names 'caller' */
    JN_WITH,        /* texts: names; more: their values; list: body */
    JN_CALLBLOCK,   /* a: call; list: body */
    JN_FILTERBLOCK, /* a: filter; list: body */
    JN_GENERATION,  /* list: body */
    JN_BREAK,
    JN_CONTINUE,
};

struct jn;
struct jn_list {
    struct jn **v;
    int n, room;
};
struct jn {
    enum jn_kind kind;
    int line, col;
    const char *text;
    size_t length;
    struct jv *value;
    struct jn *a, *b, *c;
    struct jn_list list, more;
    const char **texts;
    int n_texts;
    bool flag;
};

enum jv_kind {
    JV_UNDEFINED,
    JV_NONE,
    JV_BOOL, /* i */
    JV_INT,  /* i */
    JV_FLOAT,
    JV_STRING,
    JV_LIST,
    JV_TUPLE,     /* with names in keys: groupby's */
    JV_DICT,      /* keys are values */
    JV_VIEW,      /* a dict's items, keys or values, or a range: string: which; list */
    JV_ITERATOR,  /* what select, map, ... give: goes once from i to its end */
    JV_NAMESPACE, /* a dict whose members can be set */
    JV_LOOP,      /* i: index; n: depth; self: the list; node: the statement; scope: around it;
                   * keys: what changed() was last asked */
    JV_MACRO,     /* node; scope: what it sees */
    JV_FUNCTION,  /* builtin */
    JV_METHOD,    /* builtin, self */
};
struct jv {
    enum jv_kind kind;
    int depth; /* of containers in one another */
    long long i;
    double f;
    const char *s; /* ends in 0 */
    size_t n;      /* bytes of s, or members of v (and of keys) */
    size_t room;
    struct jv **v, **keys;
    struct jv *self;
    const struct jn *node;
    const struct jv_builtin *builtin;
    struct scope *scope;
};

struct ft_template {
    struct ft_arena arena;
    const char *source, *name;
    struct jn_list body;
};

/* FT_EDATA at the node's place in the template. */
int jn_fail(const struct ft_template *t, const struct jn *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
