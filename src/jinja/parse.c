/* Reads templates: text and tags, and in the tags Jinja's expressions. */
#include "jinja/lex.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_DEPTH = 150 };

/* Appends to a list of nodes in the arena; false if memory is short. */
static bool jn_add(struct ft_arena *a, struct jn_list *l, struct jn *n)
{
    if (l->n == l->room) {
        const int room = l->room ? 2 * l->room : 4;
        struct jn **v = ft_arena_alloc(a, (size_t)room, sizeof *v);
        if (!v)
            return false;
        if (l->n)
            memcpy(v, l->v, (size_t)l->n * sizeof *v);
        l->v = v;
        l->room = room;
    }
    l->v[l->n++] = n;
    return true;
}

int jn_fail(const struct ft_template *t, const struct jn *n, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return ft_fail_at((struct ft_where){t->name, n ? n->line : 0, n ? n->col : 0}, FT_EDATA, "%s",
                      text);
}

static bool is(const struct parser *p, const char *text)
{
    return (p->now.kind == T_OP || p->now.kind == T_NAME) && strlen(text) == p->now.n &&
           memcmp(p->now.p, text, p->now.n) == 0;
}

static bool accept(struct parser *p, const char *text)
{
    if (!is(p, text))
        return false;
    jl_next(p);
    return true;
}

static void expect(struct parser *p, const char *text)
{
    if (!accept(p, text))
        jl_fail(p, &p->now, "'%s' is missing before '%.*s'", text, (int)p->now.n,
                p->now.n ? p->now.p : "");
}

static struct jn *node(struct parser *p, enum jn_kind kind)
{
    struct jn *n = jl_take(p, 1, sizeof *n);
    *n = (struct jn){.kind = kind, .line = p->now.line, .col = p->now.col};
    return n;
}
_Static_assert(sizeof(struct jn) <= 64 * sizeof(long long), "see take()");

static void add(struct parser *p, struct jn_list *l, struct jn *n)
{
    if (!jn_add(&p->t->arena, l, n))
        p->rc = FT_ERESOURCE;
}

static const char *copy(struct parser *p, const struct token *t)
{
    char *text = ft_arena_alloc(&p->t->arena, t->n + 1, 1);
    if (!text) {
        p->rc = FT_ERESOURCE;
        return "";
    }
    memcpy(text, t->p, t->n);
    return text;
}

static const char *name(struct parser *p)
{
    if (p->now.kind != T_NAME) {
        jl_fail(p, &p->now, "a name is missing");
        return "";
    }
    const char *text = copy(p, &p->now);
    jl_next(p);
    return text;
}

static void add_text(struct parser *p, struct jn *n, const char *text)
{
    if ((n->n_texts & (n->n_texts - 1)) == 0) { /* full: room for twice as many */
        const size_t room = n->n_texts ? 2 * (size_t)n->n_texts : 1;
        const char **v = ft_arena_alloc(&p->t->arena, room, sizeof *v);
        if (!v) {
            p->rc = FT_ERESOURCE;
            return;
        }
        if (n->n_texts)
            memcpy(v, n->texts, (size_t)n->n_texts * sizeof *v);
        n->texts = v;
    }
    n->texts[n->n_texts++] = text;
}

/* Counts what the parser's functions call one another for; false and an error: too much. */
static bool enter(struct parser *p)
{
    if (p->nested >= MOST_DEPTH)
        jl_fail(p, &p->now, "expressions and blocks are nested more than %d deep", MOST_DEPTH);
    else
        p->nested++;
    return !p->rc;
}

/* --- expressions, loosest first --- */

static struct jn *expression(struct parser *p);

static struct jn *constant(struct parser *p, enum jv_kind kind)
{
    struct jv *v = jl_take(p, 1, sizeof *v);
    *v = (struct jv){.kind = kind, .s = ""};
    struct jn *n = node(p, JN_CONST);
    n->value = v;
    return n;
}
_Static_assert(sizeof(struct jv) <= 64 * sizeof(long long), "see take()");

static struct jn *number(struct parser *p)
{
    char text[64];
    size_t n = 0;
    for (size_t i = 0; i < p->now.n && n < sizeof text - 1; i++)
        if (p->now.p[i] != '_')
            text[n++] = p->now.p[i];
    text[n] = 0;
    const bool based = text[0] == '0' && text[1] && strchr("xXoObB", text[1]);
    const bool real = !based && strpbrk(text, ".eE") != NULL;
    struct jn *c = constant(p, real ? JV_FLOAT : JV_INT);
    char *end = text;
    errno = 0;
    c->value->i = real    ? 0
                  : based ? strtoll(text + 2, &end,
                                    strchr("xX", text[1])   ? 16
                                    : strchr("oO", text[1]) ? 8
                                                            : 2)
                          : strtoll(text, &end, 10);
    if (!real && !based && text[0] == '0' && strspn(text, "0") < strlen(text))
        jl_fail(p, &p->now, "a number begins with 0");
    if (!real && (errno || *end))
        jl_fail(p, &p->now, "'%s' is no whole number of 64 bits", text);
    c->value->f = real ? strtod(text, NULL) : 0;
    jl_next(p);
    return c;
}

static struct jn *string(struct parser *p)
{
    struct jn *c = constant(p, JV_STRING);
    struct ft_bytes all = {0};
    while (p->now.kind == T_STRING && !p->rc) { /* neighbours are one */
        if (ft_bytes_add(&all, p->now.p, p->now.n))
            p->rc = FT_ERESOURCE;
        jl_next(p);
    }
    char *text = jl_take(p, all.n + 1, 1);
    if (!p->rc) {
        if (all.n)
            memcpy(text, all.p, all.n);
        c->value->s = text;
        c->value->n = all.n;
    }
    ft_bytes_free(&all);
    return c;
}

static struct jn *bracketed(struct parser *p)
{
    struct jn *n;
    if (accept(p, "(")) {
        n = node(p, JN_TUPLE);
        bool comma = is(p, ")");
        while (!is(p, ")") && !p->rc) {
            add(p, &n->list, expression(p));
            if (!accept(p, ","))
                break;
            comma = true;
        }
        expect(p, ")");
        return !comma && n->list.n == 1 ? n->list.v[0] : n;
    }
    if (accept(p, "[")) {
        n = node(p, JN_LIST);
        while (!is(p, "]") && !p->rc) {
            add(p, &n->list, expression(p));
            if (!accept(p, ","))
                break;
        }
        expect(p, "]");
        return n;
    }
    expect(p, "{");
    n = node(p, JN_DICT);
    while (!is(p, "}") && !p->rc) {
        add(p, &n->list, expression(p));
        expect(p, ":");
        add(p, &n->list, expression(p));
        if (!accept(p, ","))
            break;
    }
    expect(p, "}");
    return n;
}

static const struct {
    const char *name;
    enum jv_kind kind;
    int i;
} constants[] = {{"true", JV_BOOL, 1},  {"True", JV_BOOL, 1}, {"false", JV_BOOL, 0},
                 {"False", JV_BOOL, 0}, {"none", JV_NONE, 0}, {"None", JV_NONE, 0}};

static struct jn *primary(struct parser *p)
{
    if (p->now.kind == T_NUMBER)
        return number(p);
    if (p->now.kind == T_STRING)
        return string(p);
    if (is(p, "(") || is(p, "[") || is(p, "{"))
        return bracketed(p);
    if (p->now.kind != T_NAME) {
        jl_fail(p, &p->now, "an expression is missing");
        return constant(p, JV_NONE);
    }
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (is(p, constants[i].name)) {
            struct jn *c = constant(p, constants[i].kind);
            c->value->i = constants[i].i;
            jl_next(p);
            return c;
        }
    struct jn *n = node(p, JN_NAME);
    p->calls_caller = p->calls_caller || is(p, "caller");
    n->text = name(p);
    return n;
}

/* Behind "(": arguments into list, keyword ones into more and texts. */
static void arguments(struct parser *p, struct jn *n)
{
    while (!is(p, ")") && !p->rc) {
        if (is(p, "*")) {
            struct jn *all = node(p, JN_SPREAD);
            accept(p, "*");
            all->a = expression(p);
            add(p, &n->list, all);
            if (!accept(p, ","))
                break;
            continue;
        }
        struct jn *value = expression(p);
        if (value->kind == JN_NAME && accept(p, "=")) {
            add_text(p, n, value->text);
            add(p, &n->more, expression(p));
        } else if (n->n_texts) {
            jl_fail(p, &p->now, "a positional argument follows a keyword one");
        } else {
            add(p, &n->list, value);
        }
        if (!accept(p, ","))
            break;
    }
    expect(p, ")");
}

static struct jn *subscript(struct parser *p, struct jn *a)
{
    struct jn *n = node(p, JN_ITEM), *part[3] = {NULL, NULL, NULL};
    int colons = 0;
    n->a = a;
    while (!is(p, "]") && !p->rc) {
        if (accept(p, ":")) {
            if (++colons > 2)
                jl_fail(p, &p->now, "a slice has at most two colons");
        } else {
            part[colons < 3 ? colons : 2] = expression(p);
            if (!is(p, ":") && !is(p, "]"))
                break;
        }
    }
    expect(p, "]");
    if (!colons) {
        n->b = part[0];
        if (!n->b)
            jl_fail(p, &p->now, "an index is missing");
        return n;
    }
    n->kind = JN_SLICE;
    for (int i = 0; i < 3; i++)
        add(p, &n->list, part[i]);
    return n;
}

static struct jn *call(struct parser *p, struct jn *a)
{
    struct jn *n = node(p, JN_CALL);
    n->a = a;
    jl_next(p);
    arguments(p, n);
    return n;
}

static struct jn *postfix(struct parser *p, struct jn *a)
{
    while (!p->rc) {
        struct jn *n;
        if (accept(p, ".")) {
            n = node(p, JN_ATTR);
            n->a = a;
            if (p->now.kind == T_NUMBER) { /* x.0 is x[0] */
                n->kind = JN_ITEM;
                n->b = number(p);
            } else {
                n->text = name(p);
            }
        } else if (accept(p, "[")) {
            n = subscript(p, a);
        } else if (is(p, "(")) {
            n = call(p, a);
        } else {
            break;
        }
        a = n;
    }
    return a;
}

static struct jn *filter(struct parser *p, struct jn *a)
{
    struct jn *n = node(p, JN_FILTER);
    n->a = a;
    n->text = name(p);
    if (is(p, "."))
        jl_fail(p, &p->now, "the filter '%s.' is not supported", n->text);
    if (accept(p, "("))
        arguments(p, n);
    return n;
}

static struct jn *unary(struct parser *p, bool with_filter);

static struct jn *test(struct parser *p, struct jn *a)
{
    struct jn *n = node(p, JN_TEST);
    n->a = a;
    n->flag = accept(p, "not");
    n->text = name(p);
    if (accept(p, "(")) {
        arguments(p, n);
    } else if (p->now.kind == T_STRING || p->now.kind == T_NUMBER || is(p, "[") || is(p, "{") ||
               (p->now.kind == T_NAME && !is(p, "else") && !is(p, "or") && !is(p, "and") &&
                !is(p, "is") && !is(p, "if") && !is(p, "in") && !is(p, "not"))) {
        add(p, &n->list, postfix(p, primary(p)));
    } else if (is(p, "is") || is(p, "if") || is(p, "in") || is(p, "not")) {
        jl_fail(p, &p->now, "'%.*s' cannot follow a test: put the test in brackets", (int)p->now.n,
                p->now.p);
    }
    return n;
}

static struct jn *filters(struct parser *p, struct jn *a)
{
    while (!p->rc) {
        if (accept(p, "|"))
            a = filter(p, a);
        else if (accept(p, "is"))
            a = test(p, a);
        else if (is(p, "("))
            a = call(p, a);
        else
            break;
    }
    return a;
}

static struct jn *unary(struct parser *p, bool with_filter)
{
    struct jn *n;
    if ((is(p, "-") || is(p, "+")) && enter(p)) {
        n = node(p, JN_UNARY);
        n->text = copy(p, &p->now);
        jl_next(p);
        n->a = unary(p, false);
        p->nested--;
    } else {
        n = postfix(p, primary(p));
    }
    return with_filter ? filters(p, n) : n;
}

/* Left-associative operators of one level. */
static struct jn *binary(struct parser *p, const char *const *ops,
                         struct jn *(*below)(struct parser *))
{
    struct jn *a = below(p);
    while (!p->rc) {
        const char *const *op = ops;
        while (*op && !is(p, *op))
            op++;
        if (!*op)
            break;
        struct jn *n = node(p, JN_BINARY);
        n->text = *op;
        jl_next(p);
        n->a = a;
        n->b = below(p);
        a = n;
    }
    return a;
}

static struct jn *with_filters(struct parser *p)
{
    return unary(p, true);
}

static struct jn *power(struct parser *p)
{
    static const char *const ops[] = {"**", NULL};
    return binary(p, ops, with_filters);
}

static struct jn *product(struct parser *p)
{
    static const char *const ops[] = {"*", "//", "/", "%", NULL};
    return binary(p, ops, power);
}

static struct jn *concat(struct parser *p)
{
    static const char *const ops[] = {"~", NULL};
    return binary(p, ops, product);
}

static struct jn *sum(struct parser *p)
{
    static const char *const ops[] = {"+", "-", NULL};
    return binary(p, ops, concat);
}

static struct jn *comparison(struct parser *p)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">", "in", NULL};
    struct jn *n = node(p, JN_COMPARE);
    n->a = sum(p);
    while (!p->rc) {
        const char *found = NULL;
        for (int i = 0; ops[i] && !found; i++)
            found = is(p, ops[i]) ? ops[i] : NULL;
        if (found) {
            jl_next(p);
        } else if (is(p, "not")) { /* "not in" */
            jl_next(p);
            expect(p, "in");
            found = "not in";
        } else {
            break;
        }
        add_text(p, n, found);
        add(p, &n->list, sum(p));
    }
    return n->list.n ? n : n->a;
}

static struct jn *negation(struct parser *p)
{
    if (!is(p, "not") || !enter(p))
        return comparison(p);
    struct jn *n = node(p, JN_UNARY);
    n->text = "not";
    jl_next(p);
    n->a = negation(p);
    p->nested--;
    return n;
}

static struct jn *logic(struct parser *p, const char *word, enum jn_kind kind,
                        struct jn *(*below)(struct parser *))
{
    struct jn *a = below(p);
    while (is(p, word) && !p->rc) {
        struct jn *n = node(p, kind);
        jl_next(p);
        n->a = a;
        n->b = below(p);
        a = n;
    }
    return a;
}

static struct jn *conjunction(struct parser *p)
{
    return logic(p, "and", JN_AND, negation);
}

static struct jn *disjunction(struct parser *p)
{
    return logic(p, "or", JN_OR, conjunction);
}

static struct jn *expression(struct parser *p)
{
    if (!enter(p))
        return constant(p, JV_NONE);
    struct jn *a = disjunction(p);
    while (is(p, "if") && !p->rc) {
        struct jn *n = node(p, JN_IF_ELSE);
        jl_next(p);
        n->a = a;
        n->b = disjunction(p);
        n->c = accept(p, "else") ? expression(p) : NULL;
        a = n;
    }
    p->nested--;
    return a;
}

/* a, b, c without brackets is a tuple */
static struct jn *one_or_more(struct parser *p, struct jn *(*one)(struct parser *))
{
    struct jn *a = one(p);
    if (!is(p, ","))
        return a;
    struct jn *n = node(p, JN_TUPLE);
    add(p, &n->list, a);
    while (accept(p, ",") && p->now.kind != T_CLOSE && !p->rc)
        add(p, &n->list, one(p));
    return n;
}

/* --- statements --- */

static void close_tag(struct parser *p)
{
    if (p->now.kind != T_CLOSE)
        jl_fail(p, &p->now, "'%.*s' does not belong here", (int)p->now.n, p->now.n ? p->now.p : "");
    jl_next(p);
}

/* Statements up to a block tag whose name is one of ends (NULL ends them), which is then current.
 */
static void body(struct parser *p, struct jn_list *l, const char *const *ends,
                 const struct token *opened);

/* What is assigned to: a name, or several of them, in brackets or not. */
static struct jn *target(struct parser *p)
{
    struct jn *all = node(p, JN_TUPLE);
    bool comma = false;
    do {
        struct jn *one;
        if (is(p, "(") && enter(p)) {
            accept(p, "(");
            one = target(p);
            expect(p, ")");
            p->nested--;
        } else {
            one = node(p, JN_NAME);
            for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
                if (is(p, constants[i].name))
                    jl_fail(p, &p->now, "'%s' cannot be set", constants[i].name);
            one->text = name(p);
            if (is(p, ".")) {
                struct jn *member = node(p, JN_ATTR);
                accept(p, ".");
                member->a = one;
                member->text = name(p);
                one = member;
            }
        }
        add(p, &all->list, one);
        comma = comma || is(p, ",");
    } while (accept(p, ",") && !p->rc);
    return comma || !all->list.n ? all : all->list.v[0];
}

/* Of a macro or a call: the loops around it are not its own. */
static void body_of_its_own(struct parser *p, struct jn_list *l, const char *const *ends,
                            const struct token *opened)
{
    const int loops = p->loops;
    p->loops = 0;
    body(p, l, ends, opened);
    p->loops = loops;
}

static struct jn *for_statement(struct parser *p, const struct token *here)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    struct jn *n = node(p, JN_FOR);
    n->a = target(p);
    expect(p, "in");
    n->b = one_or_more(p, disjunction);
    if (accept(p, "if"))
        n->c = expression(p);
    n->flag = accept(p, "recursive");
    close_tag(p);
    p->loops++;
    body(p, &n->list, ends, here);
    p->loops--;
    if (accept(p, "else")) {
        close_tag(p);
        body(p, &n->more, last, here);
    }
    jl_next(p);
    close_tag(p);
    return n;
}

static struct jn *if_statement(struct parser *p, const struct token *here)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct jn *n = node(p, JN_IF);
    add(p, &n->list, one_or_more(p, disjunction));
    for (;;) {
        struct jn *then = node(p, JN_TUPLE); /* holds the body */
        close_tag(p);
        body(p, &then->list, ends, here);
        add(p, &n->more, then);
        if (accept(p, "elif"))
            add(p, &n->list, one_or_more(p, disjunction));
        else if (accept(p, "else"))
            add(p, &n->list, NULL);
        else
            break;
        if (p->rc)
            break;
    }
    jl_next(p);
    close_tag(p);
    return n;
}

static struct jn *set_statement(struct parser *p, const struct token *here)
{
    static const char *const ends[] = {"endset", NULL};
    struct jn *n = node(p, JN_SET);
    n->a = target(p);
    if (accept(p, "=")) {
        n->b = one_or_more(p, expression);
        close_tag(p);
        return n;
    }
    if (accept(p, "|"))
        n->c = filters(p, filter(p, NULL));
    close_tag(p);
    body(p, &n->list, ends, here);
    jl_next(p);
    close_tag(p);
    return n;
}

static struct jn *macro_statement(struct parser *p, const struct token *here)
{
    static const char *const ends[] = {"endmacro", NULL};
    struct jn *n = node(p, JN_MACRO);
    n->text = name(p);
    expect(p, "(");
    while (!is(p, ")") && !p->rc) {
        add_text(p, n, name(p));
        const bool defaults = n->more.n && n->more.v[n->more.n - 1];
        add(p, &n->more, accept(p, "=") ? expression(p) : NULL);
        if (!p->rc && defaults && !n->more.v[n->more.n - 1])
            jl_fail(p, &p->now, "'%s' has no default, but the one before has",
                    n->texts[n->n_texts - 1]);
        if (!accept(p, ","))
            break;
    }
    expect(p, ")");
    close_tag(p);
    const bool calls_caller = p->calls_caller;
    p->calls_caller = false;
    body_of_its_own(p, &n->list, ends, here);
    n->flag = p->calls_caller;
    p->calls_caller = calls_caller || n->flag;
    jl_next(p);
    close_tag(p);
    return n;
}

/* {% word ... %}body{% endword %}; a set or filter block's body is in the loop that they are in. */
static struct jn *wrapped(struct parser *p, enum jn_kind kind, const char *end, struct jn *a,
                          const struct token *here)
{
    const char *const ends[] = {end, NULL};
    struct jn *n = node(p, kind);
    n->a = a;
    close_tag(p);
    if (kind == JN_FILTERBLOCK)
        body(p, &n->list, ends, here);
    else
        body_of_its_own(p, &n->list, ends, here);
    jl_next(p);
    close_tag(p);
    return n;
}

static struct jn *with_statement(struct parser *p, const struct token *here)
{
    static const char *const ends[] = {"endwith", NULL};
    struct jn *n = node(p, JN_WITH);
    while (p->now.kind == T_NAME && !p->rc) {
        add_text(p, n, name(p));
        expect(p, "=");
        add(p, &n->more, expression(p));
        if (!accept(p, ","))
            break;
    }
    close_tag(p);
    body(p, &n->list, ends, here);
    jl_next(p);
    close_tag(p);
    return n;
}

static struct jn *statement(struct parser *p, const struct token *here)
{
    struct jn *n;
    if (accept(p, "for"))
        return for_statement(p, here);
    if (accept(p, "if"))
        return if_statement(p, here);
    if (accept(p, "set"))
        return set_statement(p, here);
    if (accept(p, "macro"))
        return macro_statement(p, here);
    if (accept(p, "with"))
        return with_statement(p, here);
    if (accept(p, "generation"))
        return wrapped(p, JN_GENERATION, "endgeneration", NULL, here);
    if (accept(p, "filter"))
        return wrapped(p, JN_FILTERBLOCK, "endfilter", filters(p, filter(p, NULL)), here);
    if (accept(p, "call"))
        return wrapped(p, JN_CALLBLOCK, "endcall", postfix(p, primary(p)), here);
    if (is(p, "break") || is(p, "continue")) {
        if (!p->loops)
            jl_fail(p, here, "'%.*s' is in no loop", (int)p->now.n, p->now.p);
        n = node(p, is(p, "break") ? JN_BREAK : JN_CONTINUE);
        jl_next(p);
        close_tag(p);
        return n;
    }
    jl_fail(p, here, "the statement '%.*s' is not supported", (int)p->now.n,
            p->now.n ? p->now.p : "");
    return node(p, JN_BREAK);
}

static void body(struct parser *p, struct jn_list *l, const char *const *ends,
                 const struct token *opened)
{
    if (!enter(p))
        return;
    while (!p->rc) {
        const struct token here = p->now;
        if (here.kind == T_END) {
            if (ends)
                jl_fail(p, opened, "this block is not closed: '%s' is missing",
                        ends[1] ? ends[ends[2] ? 2 : 1] : ends[0]);
            break;
        }
        struct jn *n = NULL;
        if (here.kind == T_TEXT) {
            n = node(p, JN_TEXT);
            n->text = here.p;
            n->length = here.n;
            jl_next(p);
        } else if (here.kind == T_OPEN_PRINT) {
            n = node(p, JN_PRINT);
            jl_next(p);
            n->a = one_or_more(p, expression);
            close_tag(p);
        } else {
            jl_next(p);
            bool end = false;
            for (int i = 0; ends && ends[i]; i++)
                end = end || is(p, ends[i]);
            if (end)
                break;
            n = statement(p, &here);
        }
        add(p, l, n);
    }
    p->nested--;
}

int ft_template_open(struct ft_template **out, const char *source, const char *label)
{
    struct ft_template *t;
    *out = NULL;
    FT_TRY(ft_alloc(&t, 1, sizeof *t));
    size_t n = 0;
    char *kept = ft_arena_alloc(&t->arena, strlen(source) + 1, 1);
    t->name = ft_arena_format(&t->arena, "%s", label);
    struct parser p = {.t = t};
    if (!kept || !t->name) {
        p.rc = FT_ERESOURCE;
    } else {
        for (const char *c = source; *c; c++) /* every line end is a newline */
            if (*c != '\r' || c[1] != '\n')
                kept[n++] = *c == '\r' ? '\n' : *c;
        if (n && kept[n - 1] == '\n') /* Jinja drops one at the end */
            kept[n - 1] = 0;
        t->source = p.at = kept;
        p.end = kept + strlen(kept);
        jl_next(&p);
        body(&p, &t->body, NULL, &p.now);
    }
    if (p.rc) {
        ft_template_close(t);
        return p.rc;
    }
    *out = t;
    return FT_OK;
}

void ft_template_close(struct ft_template *t)
{
    if (!t)
        return;
    ft_arena_fini(&t->arena);
    ft_free(t);
}
