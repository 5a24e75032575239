/* Runs templates: values, operators, filters, tests, methods, as Jinja and Python have them. */
#define _GNU_SOURCE
#include "text/jinja.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <utf8proc.h>

enum { MOST_CALLS = 64, MOST_STEPS = 20000000, MOST_TEXT = 1 << 28 };

/* Names and values of one scope, the latest first. */
struct variable {
    const char *name;
    struct jv *value;
    struct variable *before;
};
struct scope {
    struct variable *vars;
    struct scope *outer;
};

enum flow { GO_ON, BREAK, CONTINUE };

struct run {
    const struct ft_template *t;
    struct ft_arena arena;
    struct scope *scope, *top;
    struct ft_bytes *out;
    struct ft_rendered *marks; /* NULL inside captured blocks */
    size_t room_marks;
    long long now;
    int rc, calls;
    long steps;
    size_t taken; /* of memory */
    enum flow flow;
};
static const size_t MOST_MEMORY = (size_t)1 << 30;

static struct jv undefined_value = {.kind = JV_UNDEFINED};

/* --- making values --- */

static void *take(struct run *r, size_t n, size_t size)
{
    static _Thread_local long long nothing[64];
    const bool too_much = r->taken > MOST_MEMORY;
    void *v = r->rc == FT_ERESOURCE || too_much ? NULL : ft_arena_alloc(&r->arena, n, size);
    r->taken += n * size;
    if (too_much && !r->rc)
        r->rc = ft_fail(FT_EDATA, "the template takes more than %zu MB", MOST_MEMORY >> 20);
    else if (!v && !r->rc)
        r->rc = FT_ERESOURCE;
    return v ? v : (n * size <= sizeof nothing ? nothing : NULL);
}

static struct jv *make(struct run *r, enum jv_kind kind)
{
    struct jv *v = take(r, 1, sizeof *v);
    *v = (struct jv){.kind = kind};
    return v;
}

static struct jv *make_int(struct run *r, long long i)
{
    struct jv *v = make(r, JV_INT);
    v->i = i;
    return v;
}

static struct jv *make_bool(struct run *r, bool b)
{
    struct jv *v = make(r, JV_BOOL);
    v->i = b;
    return v;
}

static struct jv *make_float(struct run *r, double f)
{
    struct jv *v = make(r, JV_FLOAT);
    v->f = f;
    return v;
}

static struct jv *make_text(struct run *r, const char *s, size_t n)
{
    struct jv *v = make(r, JV_STRING);
    char *copy = take(r, n + 1, 1);
    if (r->rc || !copy)
        return v;
    if (n)
        memcpy(copy, s, n);
    v->s = copy;
    v->n = n;
    return v;
}

static struct jv *take_bytes(struct run *r, struct ft_bytes *b)
{
    struct jv *v = make_text(r, b->p ? b->p : "", b->n);
    ft_bytes_free(b);
    return v;
}

static void append(struct run *r, struct jv *list, struct jv *key, struct jv *value)
{
    if (r->rc)
        return;
    if (list->n == list->room) {
        const size_t room = list->room ? 2 * list->room : 8;
        struct jv **v = ft_arena_alloc(&r->arena, room, sizeof *v);
        struct jv **k = ft_arena_alloc(&r->arena, room, sizeof *k);
        if (!v || !k) {
            r->rc = FT_ERESOURCE;
            return;
        }
        if (list->n) {
            memcpy(v, list->v, list->n * sizeof *v);
            if (list->keys)
                memcpy(k, list->keys, list->n * sizeof *k);
        }
        list->v = v;
        list->keys = k;
        list->room = room;
    }
    list->v[list->n] = value;
    list->keys[list->n++] = key;
}

static struct jv *from_json(struct run *r, const json_t *j)
{
    const char *key;
    json_t *member;
    struct jv *v;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = make(r, JV_DICT);
        json_object_foreach((json_t *)j, key, member)
            append(r, v, make_text(r, key, strlen(key)), from_json(r, member));
        return v;
    case JSON_ARRAY:
        v = make(r, JV_LIST);
        json_array_foreach((json_t *)j, i, member) append(r, v, NULL, from_json(r, member));
        return v;
    case JSON_STRING:
        return make_text(r, json_string_value(j), json_string_length(j));
    case JSON_INTEGER:
        return make_int(r, json_integer_value(j));
    case JSON_REAL:
        return make_float(r, json_real_value(j));
    case JSON_TRUE:
    case JSON_FALSE:
        return make_bool(r, json_is_true(j));
    default:
        return make(r, JV_NONE);
    }
}

static struct jv *fail(struct run *r, const struct jn *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static struct jv *fail(struct run *r, const struct jn *n, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    if (!r->rc) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        r->rc = jn_fail(r->t, n, "%s", text);
    }
    return &undefined_value;
}

static const char *kind_name(const struct jv *v)
{
    static const char *const names[] = {[JV_UNDEFINED] = "undefined", [JV_NONE] = "None",
                                        [JV_BOOL] = "bool",           [JV_INT] = "int",
                                        [JV_FLOAT] = "float",         [JV_STRING] = "str",
                                        [JV_LIST] = "list",           [JV_TUPLE] = "tuple",
                                        [JV_DICT] = "dict",           [JV_NAMESPACE] = "namespace",
                                        [JV_MACRO] = "macro",         [JV_FUNCTION] = "function",
                                        [JV_METHOD] = "method"};
    return names[v->kind];
}

/* --- looking at values --- */

static bool is_number(const struct jv *v)
{
    return v->kind == JV_INT || v->kind == JV_FLOAT || v->kind == JV_BOOL;
}

static double real_of(const struct jv *v)
{
    return v->kind == JV_FLOAT ? v->f : (double)v->i;
}

static bool is_list(const struct jv *v)
{
    return v->kind == JV_LIST || v->kind == JV_TUPLE;
}

static bool truth(const struct jv *v)
{
    switch (v->kind) {
    case JV_UNDEFINED:
    case JV_NONE:
        return false;
    case JV_BOOL:
    case JV_INT:
        return v->i != 0;
    case JV_FLOAT:
        return v->f != 0;
    case JV_STRING:
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
        return v->n > 0;
    default:
        return true;
    }
}

static bool equal(const struct jv *a, const struct jv *b);

static struct jv *member(const struct jv *dict, const struct jv *key)
{
    for (size_t i = 0; i < dict->n; i++)
        if (equal(dict->keys[i], key))
            return dict->v[i];
    return NULL;
}

static bool equal(const struct jv *a, const struct jv *b)
{
    if (is_number(a) && is_number(b))
        return a->kind == JV_FLOAT || b->kind == JV_FLOAT ? real_of(a) == real_of(b) : a->i == b->i;
    if (a->kind != b->kind)
        return false;
    if (a->kind == JV_STRING)
        return a->n == b->n && memcmp(a->s, b->s, a->n) == 0;
    if (is_list(a) || a->kind == JV_DICT) {
        if (a->n != b->n)
            return false;
        for (size_t i = 0; i < a->n; i++) {
            const struct jv *other = is_list(a) ? b->v[i] : member(b, a->keys[i]);
            if (!other || !equal(a->v[i], other))
                return false;
        }
        return true;
    }
    return a->kind == JV_NONE || a->kind == JV_UNDEFINED || a == b;
}

/* Characters of a text. */
static size_t characters(const struct jv *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n; i += (size_t)ft_char_length(v->s[i]))
        n++;
    return n;
}

/* i + step, or the number of its direction that ends every loop. */
static long long stepped(long long i, long long step)
{
    long long next;
    if (!__builtin_add_overflow(i, step, &next))
        return next;
    return step > 0 ? INT64_MAX : INT64_MIN;
}

/* --- writing values --- */

static void put(struct run *r, struct ft_bytes *b, const char *s, size_t n)
{
    if (r->rc)
        return;
    if (b->n + n > MOST_TEXT)
        r->rc = ft_fail(FT_EDATA, "the template makes a text of more than %d MB", MOST_TEXT >> 20);
    else if (ft_bytes_add(b, s, n))
        r->rc = FT_ERESOURCE;
}

static void put_real(struct run *r, struct ft_bytes *b, double f)
{
    char text[64];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, f);
        if (strtod(text, NULL) == f)
            break;
    }
    if (fabs(f) < 1e16 && strchr(text, 'e') && fabs(f) >= 1)
        snprintf(text, sizeof text, "%.0f", f);
    if (!strpbrk(text, ".en"))
        strcat(text, ".0");
    put(r, b, text, strlen(text));
}

/* Python's repr of a text. */
static void put_quoted(struct run *r, struct ft_bytes *b, const struct jv *v)
{
    const char quote = memchr(v->s, '\'', v->n) && !memchr(v->s, '"', v->n) ? '"' : '\'';
    put(r, b, &quote, 1);
    for (size_t i = 0; i < v->n; i++) {
        const char c = v->s[i];
        const char *escape = c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : NULL;
        if (escape)
            put(r, b, escape, 2);
        else if (c == '\\' || c == quote)
            put(r, b, (char[]){'\\', c}, 2);
        else
            put(r, b, &c, 1);
    }
    put(r, b, &quote, 1);
}

/* Python's str(), or repr() inside of containers. */
static void put_value(struct run *r, struct ft_bytes *b, const struct jv *v, bool inside)
{
    char text[32];
    switch (v->kind) {
    case JV_UNDEFINED:
        return;
    case JV_NONE:
        put(r, b, "None", 4);
        return;
    case JV_BOOL:
        put(r, b, v->i ? "True" : "False", v->i ? 4 : 5);
        return;
    case JV_INT:
        put(r, b, text, (size_t)snprintf(text, sizeof text, "%lld", v->i));
        return;
    case JV_FLOAT:
        put_real(r, b, v->f);
        return;
    case JV_STRING:
        if (inside)
            put_quoted(r, b, v);
        else
            put(r, b, v->s ? v->s : "", v->n);
        return;
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
        break;
    default:
        put(r, b, "<", 1);
        put(r, b, kind_name(v), strlen(kind_name(v)));
        put(r, b, ">", 1);
        return;
    }
    put(r, b, v->kind == JV_LIST ? "[" : v->kind == JV_TUPLE ? "(" : "{", 1);
    for (size_t i = 0; i < v->n; i++) {
        put(r, b, ", ", i ? 2 : 0);
        if (v->kind == JV_DICT) {
            put_value(r, b, v->keys[i], true);
            put(r, b, ": ", 2);
        }
        put_value(r, b, v->v[i], true);
    }
    if (v->kind == JV_TUPLE && v->n == 1)
        put(r, b, ",", 1);
    put(r, b, v->kind == JV_LIST ? "]" : v->kind == JV_TUPLE ? ")" : "}", 1);
}

/* A character beyond ASCII as \uXXXX, two of them beyond the first plane. */
static void put_escaped(struct run *r, struct ft_bytes *b, int32_t c)
{
    char text[16];
    if (c < 0x10000)
        put(r, b, text, (size_t)snprintf(text, sizeof text, "\\u%04x", (unsigned)c));
    else
        put(r, b, text,
            (size_t)snprintf(text, sizeof text, "\\u%04x\\u%04x",
                             0xd800 + ((unsigned)(c - 0x10000) >> 10),
                             0xdc00 + ((unsigned)c & 0x3ff)));
}

static void put_json_text(struct run *r, struct ft_bytes *b, const struct jv *v, bool ascii)
{
    put(r, b, "\"", 1);
    for (size_t i = 0; i < v->n; i++) {
        int32_t code;
        if (ascii && (unsigned char)v->s[i] >= 0x80) {
            i += (size_t)ft_code_point(v->s + i, &code) - 1;
            put_escaped(r, b, code);
            continue;
        }
        const unsigned char c = (unsigned char)v->s[i];
        char text[8];
        const char *short_form = c == '\n'   ? "\\n"
                                 : c == '\t' ? "\\t"
                                 : c == '\r' ? "\\r"
                                 : c == '\b' ? "\\b"
                                 : c == '\f' ? "\\f"
                                             : NULL;
        if (c == '"' || c == '\\')
            put(r, b, (char[]){'\\', (char)c}, 2);
        else if (short_form)
            put(r, b, short_form, 2);
        else if (c < 0x20)
            put(r, b, text, (size_t)snprintf(text, sizeof text, "\\u%04x", c));
        else
            put(r, b, (const char *)&v->s[i], 1);
    }
    put(r, b, "\"", 1);
}

/* How tojson writes. */
struct json_style {
    long long indent;                 /* -1: in one line */
    const struct jv *between, *colon; /* NULL: as Python has them */
    bool sorted, ascii;
};

static void put_indent(struct run *r, struct ft_bytes *b, long long indent, int depth)
{
    if (indent < 0)
        return;
    put(r, b, "\n", 1);
    for (long long i = 0; i < indent * depth && !r->rc; i++)
        put(r, b, " ", 1);
}

/* A key as json.dumps writes it: always a text. */
static void put_key(struct run *r, struct ft_bytes *b, const struct jn *at, const struct jv *v,
                    bool ascii)
{
    struct ft_bytes text = {0};
    if (v->kind == JV_STRING) {
        put_json_text(r, b, v, ascii);
        return;
    }
    if (v->kind == JV_NONE)
        put(r, &text, "null", 4);
    else if (v->kind == JV_BOOL)
        put(r, &text, v->i ? "true" : "false", v->i ? 4 : 5);
    else if (is_number(v))
        put_value(r, &text, v, false);
    else
        fail(r, at, "'tojson' cannot write a key that is %s", kind_name(v));
    put(r, b, "\"", 1);
    put(r, b, text.p ? text.p : "", text.n);
    put(r, b, "\"", 1);
    ft_bytes_free(&text);
}

/* The dict's members in the order of their keys' texts. */
static void sort_members(struct run *r, const struct jv *v, size_t *order)
{
    for (size_t i = 0; i < v->n; i++) {
        size_t k = i;
        for (; k > 0 && !r->rc; k--) {
            const struct jv *x = v->keys[order[k - 1]], *y = v->keys[i];
            const size_t n = x->n < y->n ? x->n : y->n;
            const int c = n ? memcmp(x->s, y->s, n) : 0;
            if (c < 0 || (c == 0 && x->n <= y->n))
                break;
            order[k] = order[k - 1];
        }
        order[k] = i;
    }
}

/* json.dumps. */
static void put_json(struct run *r, struct ft_bytes *b, const struct jn *at, const struct jv *v,
                     const struct json_style *style, int depth)
{
    if (v->kind == JV_STRING) {
        put_json_text(r, b, v, style->ascii);
    } else if (v->kind == JV_NONE) {
        put(r, b, "null", 4);
    } else if (v->kind == JV_BOOL) {
        put(r, b, v->i ? "true" : "false", v->i ? 4 : 5);
    } else if (is_number(v)) {
        put_value(r, b, v, false);
    } else if (is_list(v) || v->kind == JV_DICT) {
        const bool dict = v->kind == JV_DICT;
        size_t *order = dict && style->sorted ? take(r, v->n + 1, sizeof *order) : NULL;
        if (order && !r->rc)
            sort_members(r, v, order);
        put(r, b, dict ? "{" : "[", 1);
        for (size_t i = 0; i < v->n && !r->rc; i++) {
            const size_t m = order ? order[i] : i;
            if (i && style->between)
                put(r, b, style->between->s, style->between->n);
            else if (i)
                put(r, b, ", ", style->indent < 0 ? 2 : 1);
            put_indent(r, b, style->indent, depth + 1);
            if (dict) {
                put_key(r, b, at, v->keys[m], style->ascii);
                put(r, b, style->colon ? style->colon->s : ": ",
                    style->colon ? style->colon->n : 2);
            }
            put_json(r, b, at, v->v[m], style, depth + 1);
        }
        if (v->n)
            put_indent(r, b, style->indent, depth);
        put(r, b, dict ? "}" : "]", 1);
    } else {
        fail(r, at, "'tojson' cannot write a value that is %s", kind_name(v));
    }
}

/* The value as a text. */
static struct jv *text_of(struct run *r, struct jv *v)
{
    struct ft_bytes b = {0};
    if (v->kind == JV_STRING)
        return v;
    put_value(r, &b, v, false);
    return take_bytes(r, &b);
}

/* --- variables --- */

static void set_variable(struct run *r, const char *name, struct jv *value)
{
    for (struct variable *v = r->scope->vars; v; v = v->before)
        if (strcmp(v->name, name) == 0) {
            v->value = value;
            return;
        }
    struct variable *v = take(r, 1, sizeof *v);
    if (r->rc)
        return;
    *v = (struct variable){name, value, r->scope->vars};
    r->scope->vars = v;
}

static struct jv *find_variable(const struct run *r, const char *name)
{
    for (const struct scope *s = r->scope; s; s = s->outer)
        for (struct variable *v = s->vars; v; v = v->before)
            if (strcmp(v->name, name) == 0)
                return v->value;
    return NULL;
}

static struct scope *open_scope(struct run *r, struct scope *outer)
{
    struct scope *s = take(r, 1, sizeof *s);
    *s = (struct scope){.outer = outer};
    return s;
}

/* --- evaluation --- */

static struct jv *eval(struct run *r, const struct jn *n);
static void run_list(struct run *r, const struct jn_list *l);

/* Arguments of a call, filter or test. */
enum { MOST_ARGUMENTS = 16 };
struct args {
    struct jv *v[MOST_ARGUMENTS];
    int n;
    const char **names;
    struct jv *named[MOST_ARGUMENTS];
    int n_named;
};

static void add_argument(struct run *r, const struct jn *n, struct args *a, struct jv *v)
{
    if (a->n == MOST_ARGUMENTS)
        fail(r, n, "more than %d arguments", MOST_ARGUMENTS);
    else
        a->v[a->n++] = v;
}

static struct args arguments(struct run *r, const struct jn *n)
{
    struct args a = {.names = n->texts};
    for (int i = 0; i < n->list.n && !r->rc; i++) {
        const struct jn *one = n->list.v[i];
        struct jv *v = eval(r, one->kind == JN_SPREAD ? one->a : one);
        if (one->kind != JN_SPREAD) {
            add_argument(r, n, &a, v);
            continue;
        }
        if (v->kind != JV_LIST && v->kind != JV_TUPLE)
            fail(r, n, "what follows '*' is no list");
        for (size_t k = 0; k < v->n && !r->rc; k++)
            add_argument(r, n, &a, v->v[k]);
    }
    for (int i = 0; i < n->more.n && !r->rc; i++) {
        if (i == MOST_ARGUMENTS)
            fail(r, n, "more than %d arguments", MOST_ARGUMENTS);
        else
            a.named[a.n_named++] = eval(r, n->more.v[i]);
    }
    return a;
}

/* Argument number i, or the one of this name; NULL: not given. */
static struct jv *argument(const struct args *a, int i, const char *name)
{
    if (i >= 0 && i < a->n)
        return a->v[i];
    for (int k = 0; name && k < a->n_named; k++)
        if (strcmp(a->names[k], name) == 0)
            return a->named[k];
    return NULL;
}

/* The members of anything that can be looped over, as a list. */
static struct jv *members(struct run *r, const struct jn *at, struct jv *v)
{
    struct jv *l;
    if (is_list(v))
        return v;
    l = make(r, JV_LIST);
    if (v->kind == JV_STRING)
        for (size_t i = 0; i < v->n;) {
            const size_t c = (size_t)ft_char_length(v->s[i]);
            append(r, l, NULL, make_text(r, v->s + i, c));
            i += c;
        }
    else if (v->kind == JV_DICT)
        for (size_t i = 0; i < v->n; i++)
            append(r, l, NULL, v->keys[i]);
    else if (v->kind != JV_UNDEFINED)
        fail(r, at, "a value that is %s cannot be looped over", kind_name(v));
    return l;
}

static const char *const text_methods[] = {
    "split", "strip",        "lstrip",       "rstrip",     "startswith", "endswith", "replace",
    "upper", "lower",        "title",        "capitalize", "find",       "count",    "join",
    "index", "removeprefix", "removesuffix", "splitlines", "rsplit",     "isdigit",  "isspace",
    NULL};
static const char *const dict_methods[] = {"get", "items", "keys", "values", NULL};
static const char *const list_methods[] = {"index", "count", NULL};

static bool in_names(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

static struct jv *attribute(struct run *r, const struct jn *at, struct jv *v, const char *name)
{
    struct jv key = {.kind = JV_STRING, .s = name, .n = strlen(name)}, *found;
    const char *const *methods = v->kind == JV_STRING ? text_methods
                                 : v->kind == JV_DICT ? dict_methods
                                 : is_list(v)         ? list_methods
                                                      : NULL;
    if (v->kind == JV_UNDEFINED)
        return fail(r, at, "'%s' is asked of something undefined", name);
    if (methods && in_names(methods, name)) {
        struct jv *m = make(r, JV_METHOD);
        m->s = name;
        m->self = v;
        return m;
    }
    if (v->kind == JV_DICT || v->kind == JV_NAMESPACE) {
        found = member(v, &key);
        if (found)
            return found;
    }
    return &undefined_value;
}

/* Python's index: negative ones count from the end. */
static bool find_index(const struct jv *i, size_t n, size_t *out)
{
    long long at = i->i < 0 ? i->i + (long long)n : i->i;
    *out = (size_t)at;
    return i->kind != JV_FLOAT && at >= 0 && at < (long long)n;
}

static struct jv *item(struct run *r, const struct jn *at, struct jv *v, struct jv *key)
{
    size_t i;
    struct jv *found;
    if (v->kind == JV_UNDEFINED)
        return fail(r, at, "something undefined is indexed");
    if (v->kind == JV_DICT || v->kind == JV_NAMESPACE) {
        found = member(v, key);
        return found ? found : &undefined_value;
    }
    if ((is_list(v) || v->kind == JV_STRING) && (key->kind == JV_INT || key->kind == JV_BOOL)) {
        struct jv *l = members(r, at, v);
        return find_index(key, l->n, &i) ? l->v[i] : &undefined_value;
    }
    if (key->kind == JV_STRING)
        return attribute(r, at, v, key->s);
    return &undefined_value;
}

static struct jv *slice(struct run *r, const struct jn *n, struct jv *v)
{
    long long part[3] = {0, 0, 1};
    bool given[3] = {false, false, false};
    struct jv *all = members(r, n, v), *out = make(r, v->kind == JV_TUPLE ? JV_TUPLE : JV_LIST);
    const long long count = (long long)all->n;
    for (int i = 0; i < 3; i++) {
        struct jv *p = n->list.v[i] ? eval(r, n->list.v[i]) : NULL;
        if (!p || p->kind == JV_NONE)
            continue;
        if (p->kind != JV_INT)
            return fail(r, n, "a slice needs whole numbers");
        part[i] = p->i;
        given[i] = true;
    }
    const long long step = part[2];
    if (step == 0)
        return fail(r, n, "a slice's step is 0");
    for (int i = 0; i < 2; i++) {
        if (!given[i]) {
            part[i] = (i == 0) == (step > 0) ? 0 : count;
            if (step < 0)
                part[i] = i == 0 ? count - 1 : -1;
            continue;
        }
        part[i] += part[i] < 0 ? count : 0;
        const long long low = step < 0 ? -1 : 0, high = step < 0 ? count - 1 : count;
        part[i] = part[i] < low ? low : part[i] > high ? high : part[i];
    }
    for (long long i = part[0]; step > 0 ? i < part[1] : i > part[1]; i = stepped(i, step))
        append(r, out, NULL, all->v[i]);
    if (v->kind != JV_STRING)
        return out;
    struct ft_bytes b = {0};
    for (size_t i = 0; i < out->n; i++)
        put(r, &b, out->v[i]->s, out->v[i]->n);
    return take_bytes(r, &b);
}

/* --- operators --- */

static struct jv *arithmetic(struct run *r, const struct jn *n, struct jv *a, struct jv *b)
{
    const char *op = n->text;
    if (strcmp(op, "~") == 0) {
        struct ft_bytes out = {0};
        put_value(r, &out, a, false);
        put_value(r, &out, b, false);
        return take_bytes(r, &out);
    }
    if (*op == '+' && a->kind == JV_STRING && b->kind == JV_STRING) {
        struct ft_bytes out = {0};
        put(r, &out, a->s ? a->s : "", a->n);
        put(r, &out, b->s ? b->s : "", b->n);
        return take_bytes(r, &out);
    }
    if (*op == '+' && is_list(a) && a->kind == b->kind) {
        struct jv *l = make(r, a->kind);
        for (size_t i = 0; i < a->n + b->n; i++)
            append(r, l, NULL, i < a->n ? a->v[i] : b->v[i - a->n]);
        return l;
    }
    if (strcmp(op, "*") == 0 && a->kind == JV_STRING && b->kind == JV_INT) {
        struct ft_bytes out = {0};
        for (long long i = 0; i < b->i && !r->rc; i++)
            put(r, &out, a->s, a->n);
        return take_bytes(r, &out);
    }
    if (!is_number(a) || !is_number(b))
        return fail(r, n, "'%s' of %s and %s", op, kind_name(a), kind_name(b));
    const bool real = a->kind == JV_FLOAT || b->kind == JV_FLOAT || strcmp(op, "/") == 0;
    const double x = real_of(a), y = real_of(b);
    const bool divides = *op == '/' || *op == '%';
    if (divides && y == 0)
        return fail(r, n, "a division by zero");
    if (strcmp(op, "**") == 0)
        return real || b->i < 0           ? make_float(r, pow(x, y))
               : fabs(pow(x, y)) < 0x1p53 ? make_int(r, (long long)pow(x, y))
                                          : fail(r, n, "a power beyond 53 bits");
    if (real)
        return make_float(r, *op == '+'              ? x + y
                             : *op == '-'            ? x - y
                             : *op == '*'            ? x * y
                             : strcmp(op, "/") == 0  ? x / y
                             : strcmp(op, "//") == 0 ? floor(x / y)
                                                     : x - y * floor(x / y));
    long long out = 0;
    const bool too_large = strcmp(op, "+") == 0   ? __builtin_add_overflow(a->i, b->i, &out)
                           : strcmp(op, "-") == 0 ? __builtin_sub_overflow(a->i, b->i, &out)
                           : strcmp(op, "*") == 0 ? __builtin_mul_overflow(a->i, b->i, &out)
                                                  : a->i == INT64_MIN && b->i == -1;
    if (too_large)
        return fail(r, n, "a whole number beyond 64 bits");
    if (!divides)
        return make_int(r, out);
    long long q = a->i / b->i, rest = a->i % b->i;
    if (rest && (rest < 0) != (b->i < 0)) { /* rounds down */
        q--;
        rest += b->i;
    }
    return make_int(r, *op == '%' ? rest : q);
}

static bool contains(struct run *r, const struct jn *n, const struct jv *a, const struct jv *b)
{
    if (b->kind == JV_STRING) {
        if (a->kind != JV_STRING) {
            fail(r, n, "'in' a text needs a text, not %s", kind_name(a));
            return false;
        }
        return a->n == 0 || memmem(b->s, b->n, a->s, a->n) != NULL;
    }
    if (b->kind == JV_DICT || b->kind == JV_NAMESPACE)
        return member(b, a) != NULL;
    if (is_list(b)) {
        for (size_t i = 0; i < b->n; i++)
            if (equal(b->v[i], a))
                return true;
    } else if (b->kind != JV_UNDEFINED) {
        fail(r, n, "'in' needs something to look into, not %s", kind_name(b));
    }
    return false;
}

static int order(struct run *r, const struct jn *n, const struct jv *a, const struct jv *b)
{
    if (is_number(a) && is_number(b))
        return real_of(a) < real_of(b) ? -1 : real_of(a) > real_of(b);
    if (a->kind == JV_STRING && b->kind == JV_STRING) {
        const size_t least = a->n < b->n ? a->n : b->n;
        int c = least ? memcmp(a->s, b->s, least) : 0;
        return c ? c : a->n < b->n ? -1 : a->n > b->n;
    }
    fail(r, n, "%s and %s have no order", kind_name(a), kind_name(b));
    return 0;
}

static bool compare(struct run *r, const struct jn *n, const char *op, const struct jv *a,
                    const struct jv *b)
{
    if (strcmp(op, "==") == 0)
        return equal(a, b);
    if (strcmp(op, "!=") == 0)
        return !equal(a, b);
    if (strcmp(op, "in") == 0)
        return contains(r, n, a, b);
    if (strcmp(op, "not in") == 0)
        return !contains(r, n, a, b);
    const int c = order(r, n, a, b);
    return *op == '<' ? (op[1] ? c <= 0 : c < 0) : (op[1] ? c >= 0 : c > 0);
}

/* --- tests --- */

static struct jv *run_test(struct run *r, const struct jn *n)
{
    const char *name = n->text;
    struct jv *v = eval(r, n->a);
    const struct args a = arguments(r, n);
    struct jv *x = argument(&a, 0, NULL);
    bool is = false, known = true;
    if (strcmp(name, "defined") == 0)
        is = v->kind != JV_UNDEFINED;
    else if (strcmp(name, "undefined") == 0)
        is = v->kind == JV_UNDEFINED;
    else if (strcmp(name, "none") == 0)
        is = v->kind == JV_NONE;
    else if (strcmp(name, "string") == 0)
        is = v->kind == JV_STRING;
    else if (strcmp(name, "mapping") == 0)
        is = v->kind == JV_DICT;
    else if (strcmp(name, "iterable") == 0)
        is = is_list(v) || v->kind == JV_STRING || v->kind == JV_DICT || v->kind == JV_UNDEFINED;
    else if (strcmp(name, "sequence") == 0)
        is = is_list(v) || v->kind == JV_STRING || v->kind == JV_DICT || v->kind == JV_UNDEFINED;
    else if (strcmp(name, "number") == 0)
        is = is_number(v);
    else if (strcmp(name, "integer") == 0)
        is = v->kind == JV_INT;
    else if (strcmp(name, "float") == 0)
        is = v->kind == JV_FLOAT;
    else if (strcmp(name, "boolean") == 0)
        is = v->kind == JV_BOOL;
    else if (strcmp(name, "true") == 0)
        is = v->kind == JV_BOOL && v->i;
    else if (strcmp(name, "false") == 0)
        is = v->kind == JV_BOOL && !v->i;
    else if (strcmp(name, "callable") == 0)
        is = v->kind == JV_MACRO || v->kind == JV_FUNCTION || v->kind == JV_METHOD;
    else if (strcmp(name, "odd") == 0 || strcmp(name, "even") == 0)
        is = v->kind == JV_INT && (v->i & 1) == (*name == 'o');
    else if (x && strcmp(name, "divisibleby") == 0)
        is = v->kind == JV_INT && x->kind == JV_INT && x->i && v->i % x->i == 0;
    else if (x && (strcmp(name, "equalto") == 0 || strcmp(name, "eq") == 0))
        is = equal(v, x);
    else if (x && strcmp(name, "ne") == 0)
        is = !equal(v, x);
    else if (x && strcmp(name, "in") == 0)
        is = contains(r, n, v, x);
    else
        known = false;
    if (!known)
        return fail(r, n, "the test '%s' is not supported", name);
    return make_bool(r, is != n->flag);
}

/* --- methods and filters of texts --- */

static bool in_set(const struct jv *set, const char *p, size_t n)
{
    int32_t c;
    ft_code_point(p, &c);
    if (!set || set->kind != JV_STRING)
        return ft_is_space(c) || (c >= 0x1c && c <= 0x1f);
    for (size_t i = 0; i < set->n; i += (size_t)ft_char_length(set->s[i]))
        if ((size_t)ft_char_length(set->s[i]) == n && memcmp(set->s + i, p, n) == 0)
            return true;
    return false;
}

static struct jv *strip(struct run *r, struct jv *v, const struct jv *set, bool left, bool right)
{
    size_t begin = 0, end = v->n;
    while (left && begin < end && in_set(set, v->s + begin, (size_t)ft_char_length(v->s[begin])))
        begin += (size_t)ft_char_length(v->s[begin]);
    while (right && end > begin) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)v->s[at] & 0xc0) == 0x80)
            at--;
        if (!in_set(set, v->s + at, end - at))
            break;
        end = at;
    }
    return make_text(r, v->s + begin, end - begin);
}

static struct jv *split(struct run *r, struct jv *v, const struct jv *sep, long long most,
                        bool back)
{
    struct jv *l = make(r, JV_LIST);
    size_t begin = 0;
    if (!sep || sep->kind != JV_STRING) { /* runs of white space */
        for (size_t i = 0; i <= v->n;) {
            const size_t c = i < v->n ? (size_t)ft_char_length(v->s[i]) : 1;
            if (most == 0 && i == begin && i < v->n && !in_set(NULL, v->s + i, c)) {
                struct jv *rest = make_text(r, v->s + i, v->n - i); /* with its spaces */
                append(r, l, NULL, rest);
                return l;
            }
            if (i == v->n || in_set(NULL, v->s + i, c)) {
                most -= i > begin && most > 0;
                if (i > begin)
                    append(r, l, NULL, make_text(r, v->s + begin, i - begin));
                begin = i + c;
            }
            i += c;
        }
        return l;
    }
    if (back && most >= 0) { /* the last `most` separators */
        long long count = 0;
        for (size_t i = 0; sep->n && i + sep->n <= v->n;)
            if (memcmp(v->s + i, sep->s, sep->n) == 0) {
                count++;
                i += sep->n;
            } else {
                i++;
            }
        long long skip = count > most ? count - most : 0;
        for (size_t i = 0; sep->n && i + sep->n <= v->n;) {
            if (memcmp(v->s + i, sep->s, sep->n) != 0) {
                i++;
                continue;
            }
            if (skip-- <= 0) {
                append(r, l, NULL, make_text(r, v->s + begin, i - begin));
                begin = i + sep->n;
            }
            i += sep->n;
        }
        append(r, l, NULL, make_text(r, v->s + begin, v->n - begin));
        return l;
    }
    while (sep->n && most != 0) {
        const char *hit = memmem(v->s + begin, v->n - begin, sep->s, sep->n);
        if (!hit)
            break;
        const size_t at = (size_t)(hit - v->s);
        append(r, l, NULL, make_text(r, v->s + begin, at - begin));
        begin = at + sep->n;
        most--;
    }
    append(r, l, NULL, make_text(r, v->s + begin, v->n - begin));
    return l;
}

static struct jv *replace(struct run *r, struct jv *v, const struct jv *from, const struct jv *to,
                          long long most)
{
    struct ft_bytes b = {0};
    size_t begin = 0;
    while (from->n && most != 0) {
        const char *hit = memmem(v->s + begin, v->n - begin, from->s, from->n);
        if (!hit)
            break;
        put(r, &b, v->s + begin, (size_t)(hit - v->s) - begin);
        put(r, &b, to->s, to->n);
        begin = (size_t)(hit - v->s) + from->n;
        most--;
    }
    put(r, &b, v->s + begin, v->n - begin);
    return take_bytes(r, &b);
}

enum letters { UPPER, LOWER, TITLE, CAPITALIZE };

static struct jv *letters(struct run *r, struct jv *v, enum letters how)
{
    struct ft_bytes b = {0};
    bool inside = false;
    for (size_t i = 0; i < v->n;) {
        int32_t c;
        char text[4];
        i += (size_t)ft_code_point(v->s + i, &c);
        const bool up =
            how == UPPER || (how == TITLE && !inside) || (how == CAPITALIZE && b.n == 0);
        inside = utf8proc_category(c) >= UTF8PROC_CATEGORY_LU &&
                 utf8proc_category(c) <= UTF8PROC_CATEGORY_LO;
        c = up ? utf8proc_toupper(c) : utf8proc_tolower(c);
        put(r, &b, text, (size_t)ft_put_code_point(text, c));
    }
    return take_bytes(r, &b);
}

static struct jv *join(struct run *r, const struct jn *n, const struct jv *list,
                       const struct jv *sep)
{
    struct ft_bytes b = {0};
    for (size_t i = 0; i < list->n; i++) {
        if (i && sep && sep->kind == JV_STRING)
            put(r, &b, sep->s, sep->n);
        if (n && list->v[i]->kind != JV_STRING)
            fail(r, n, "only texts can be joined, not %s", kind_name(list->v[i]));
        put_value(r, &b, list->v[i], false);
    }
    return take_bytes(r, &b);
}

static bool begins(const struct jv *v, const struct jv *with, bool end)
{
    if (is_list(with)) {
        for (size_t i = 0; i < with->n; i++)
            if (begins(v, with->v[i], end))
                return true;
        return false;
    }
    return with->kind == JV_STRING && with->n <= v->n &&
           memcmp(v->s + (end ? v->n - with->n : 0), with->s, with->n) == 0;
}

/* What filters and methods take: how many arguments by place, and which by name. */
struct signature {
    const char *name;
    int most;
    const char *named[5];
};

static bool check_arguments(struct run *r, const struct jn *n, const struct signature *list,
                            size_t count, const char *name, const struct args *a)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) != 0)
            continue;
        if (a->n > list[i].most)
            fail(r, n, "'%s' takes %d arguments, not %d", name, list[i].most, a->n);
        for (int k = 0; k < a->n_named && !r->rc; k++) {
            bool known = false;
            for (int m = 0; m < 5 && list[i].named[m]; m++)
                known = known || strcmp(list[i].named[m], a->names[k]) == 0;
            if (!known)
                fail(r, n, "'%s' has no argument '%s'", name, a->names[k]);
        }
    }
    return !r->rc;
}

/* Methods of texts. */
static const struct signature method_signatures[] = {{"strip", 1, {NULL}},
                                                     {"lstrip", 1, {NULL}},
                                                     {"rstrip", 1, {NULL}},
                                                     {"split", 2, {"sep", "maxsplit"}},
                                                     {"rsplit", 2, {"sep", "maxsplit"}},
                                                     {"isdigit", 0, {NULL}},
                                                     {"isspace", 0, {NULL}},
                                                     {"splitlines", 0, {NULL}},
                                                     {"startswith", 1, {NULL}},
                                                     {"endswith", 1, {NULL}},
                                                     {"join", 1, {NULL}},
                                                     {"removeprefix", 1, {NULL}},
                                                     {"removesuffix", 1, {NULL}},
                                                     {"replace", 3, {"old", "new", "count"}},
                                                     {"count", 1, {NULL}},
                                                     {"find", 1, {NULL}},
                                                     {"index", 1, {NULL}},
                                                     {"upper", 0, {NULL}},
                                                     {"lower", 0, {NULL}},
                                                     {"title", 0, {NULL}},
                                                     {"capitalize", 0, {NULL}}};

static struct jv *text_method(struct run *r, const struct jn *n, const char *name, struct jv *v,
                              const struct args *a)
{
    struct jv *x = argument(a, 0, NULL), *y = argument(a, 1, NULL), *z = argument(a, 2, "count");
    const char *const m = name;
    if (!check_arguments(r, n, method_signatures,
                         sizeof method_signatures / sizeof *method_signatures, name, a))
        return &undefined_value;
    if (strcmp(m, "strip") == 0 || strcmp(m, "lstrip") == 0 || strcmp(m, "rstrip") == 0)
        return strip(r, v, x, *m != 'r', *m != 'l');
    if (strcmp(m, "split") == 0 || strcmp(m, "rsplit") == 0) {
        const struct jv *most = argument(a, 1, "maxsplit"), *sep = argument(a, 0, "sep");
        const long long parts = most && most->kind == JV_INT ? most->i : -1;
        const bool blank = !sep || sep->kind != JV_STRING;
        if (!blank && sep->n == 0)
            return fail(r, n, "'%s' by an empty text", m);
        if (blank && *m == 'r' && parts >= 0)
            return fail(r, n, "'rsplit' by white space with 'maxsplit' is not supported");
        return split(r, v, sep, parts, *m == 'r');
    }
    if (strcmp(m, "upper") == 0 || strcmp(m, "lower") == 0 || strcmp(m, "title") == 0 ||
        strcmp(m, "capitalize") == 0)
        return letters(r, v,
                       *m == 'u'   ? UPPER
                       : *m == 'l' ? LOWER
                       : *m == 't' ? TITLE
                                   : CAPITALIZE);
    if (strcmp(m, "isdigit") == 0 || strcmp(m, "isspace") == 0) {
        bool all = v->n > 0;
        for (size_t i = 0; i < v->n; i++)
            all = all && (*(m + 2) == 'd' ? isdigit((unsigned char)v->s[i])
                                          : isspace((unsigned char)v->s[i]));
        return make_bool(r, all);
    }
    if (strcmp(m, "splitlines") == 0) {
        struct jv nl = {.kind = JV_STRING, .s = "\n", .n = 1}, *l = split(r, v, &nl, -1, false);
        if (l->n && l->v[l->n - 1]->n == 0)
            l->n--;
        return l;
    }
    if (!x)
        return fail(r, n, "'%s' needs an argument", name);
    if (strcmp(m, "startswith") == 0 || strcmp(m, "endswith") == 0)
        return make_bool(r, begins(v, x, *m == 'e'));
    if (strcmp(m, "join") == 0)
        return join(r, n, members(r, n, x), v);
    if (x->kind != JV_STRING)
        return fail(r, n, "'%s' needs a text, not %s", name, kind_name(x));
    if (strcmp(m, "removeprefix") == 0 || strcmp(m, "removesuffix") == 0) {
        const bool end = m[6] == 's', hit = begins(v, x, end);
        return make_text(r, v->s + (hit && !end ? x->n : 0), v->n - (hit ? x->n : 0));
    }
    if (strcmp(m, "replace") == 0) {
        if (!y || y->kind != JV_STRING)
            return fail(r, n, "'replace' needs two texts");
        if (!x->n)
            return fail(r, n, "'replace' of an empty text is not supported");
        return replace(r, v, x, y, z ? z->i : -1);
    }
    if (strcmp(m, "count") == 0 && !x->n)
        return make_int(r, (long long)characters(v) + 1);
    if (strcmp(m, "count") == 0) {
        struct jv *parts = split(r, v, x, -1, false);
        return make_int(r, (long long)parts->n - 1);
    }
    const char *hit = v->n >= x->n ? (x->n ? memmem(v->s, v->n, x->s, x->n) : v->s) : NULL;
    if (!hit && strcmp(m, "index") == 0)
        return fail(r, n, "the text looked for is not there");
    struct jv before = {.kind = JV_STRING, .s = v->s, .n = hit ? (size_t)(hit - v->s) : 0};
    return make_int(r, hit ? (long long)characters(&before) : -1);
}

static struct jv *pair(struct run *r, struct jv *a, struct jv *b)
{
    struct jv *t = make(r, JV_TUPLE);
    append(r, t, NULL, a);
    append(r, t, NULL, b);
    return t;
}

static struct jv *dict_list(struct run *r, const struct jv *v, const char *which)
{
    struct jv *l = make(r, JV_LIST);
    for (size_t i = 0; i < v->n; i++)
        append(r, l, NULL,
               *which == 'i'   ? pair(r, v->keys[i], v->v[i])
               : *which == 'k' ? v->keys[i]
                               : v->v[i]);
    return l;
}

static struct jv *call_method(struct run *r, const struct jn *n, const struct jv *m,
                              const struct args *a)
{
    struct jv *self = m->self, *x = argument(a, 0, NULL);
    if (self->kind == JV_STRING)
        return text_method(r, n, m->s, self, a);
    if (self->kind == JV_DICT && strcmp(m->s, "get") != 0)
        return dict_list(r, self, m->s);
    if (!x)
        return fail(r, n, "'%s' needs an argument", m->s);
    if (self->kind == JV_DICT) {
        struct jv *found = member(self, x), *otherwise = argument(a, 1, "default");
        return found ? found : otherwise ? otherwise : make(r, JV_NONE);
    }
    long long count = 0;
    for (size_t i = 0; i < self->n; i++) {
        if (!equal(self->v[i], x))
            continue;
        if (*m->s == 'i')
            return make_int(r, (long long)i);
        count++;
    }
    return *m->s == 'i' ? fail(r, n, "the value looked for is not in the list")
                        : make_int(r, count);
}

/* --- functions --- */

static struct jv *strftime_now(struct run *r, const struct jn *n, const struct args *a)
{
    const struct jv *format = argument(a, 0, NULL);
    char text[256];
    time_t now = (time_t)r->now;
    struct tm tm;
    if (!format || format->kind != JV_STRING)
        return fail(r, n, "'strftime_now' needs a format");
    localtime_r(&now, &tm);
    return make_text(r, text, strftime(text, sizeof text, format->s, &tm));
}

static struct jv *range(struct run *r, const struct jn *n, const struct args *a)
{
    long long v[3] = {0, 0, 1};
    struct jv *l = make(r, JV_LIST);
    for (int i = 0; i < a->n && i < 3; i++) {
        if (a->v[i]->kind != JV_INT)
            return fail(r, n, "'range' needs whole numbers");
        v[i] = a->v[i]->i;
    }
    if (a->n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (a->n < 1 || v[2] == 0)
        return fail(r, n, "'range' needs one to three numbers, the last not 0");
    for (long long i = v[0]; v[2] > 0 ? i < v[1] : i > v[1]; i = stepped(i, v[2])) {
        if (l->n > 1000000)
            return fail(r, n, "a range of more than a million numbers");
        append(r, l, NULL, make_int(r, i));
    }
    return l;
}

static struct jv *call_function(struct run *r, const struct jn *n, const char *name,
                                const struct args *a)
{
    if (strcmp(name, "raise_exception") == 0) {
        const struct jv *why = argument(a, 0, NULL);
        return fail(r, n, "the template refuses: %.*s", why && why->s ? (int)why->n : 0,
                    why && why->s ? why->s : "");
    }
    if (strcmp(name, "strftime_now") == 0)
        return strftime_now(r, n, a);
    if (strcmp(name, "range") == 0)
        return range(r, n, a);
    struct jv *v = make(r, *name == 'n' ? JV_NAMESPACE : JV_DICT); /* namespace, dict */
    struct jv *from = argument(a, 0, NULL);
    for (size_t i = 0; from && from->kind == JV_DICT && i < from->n; i++)
        append(r, v, from->keys[i], from->v[i]);
    for (int i = 0; i < a->n_named; i++)
        append(r, v, make_text(r, a->names[i], strlen(a->names[i])), a->named[i]);
    return v;
}

/* Runs statements with their output into a text. */
static struct jv *captured(struct run *r, const struct jn_list *l)
{
    struct ft_bytes b = {0}, *out = r->out;
    struct ft_rendered *marks = r->marks;
    r->out = &b;
    r->marks = NULL;
    run_list(r, l);
    r->out = out;
    r->marks = marks;
    return take_bytes(r, &b);
}

static struct jv *call_macro(struct run *r, const struct jn *n, const struct jv *m,
                             const struct args *a, struct jv *caller)
{
    const struct jn *macro = m->node;
    if (r->calls >= MOST_CALLS)
        return fail(r, n, "macros call one another more than %d deep", MOST_CALLS);
    if (a->n > macro->n_texts)
        return fail(r, n, "'%s' takes %d arguments", macro->text, macro->n_texts);
    for (int k = 0; k < a->n_named; k++) {
        bool known = false;
        for (int i = 0; i < macro->n_texts; i++)
            known = known || strcmp(a->names[k], macro->texts[i]) == 0;
        if (!known)
            return fail(r, n, "'%s' has no argument '%s'", macro->text, a->names[k]);
    }
    struct scope *outer = r->scope, *inner = open_scope(r, m->scope ? m->scope : r->top);
    for (int i = 0; i < macro->n_texts && !r->rc; i++) {
        struct jv *v = argument(a, i, macro->texts[i]);
        r->scope = inner; /* defaults may name the arguments before them */
        if (!v)
            v = macro->more.v[i] ? eval(r, macro->more.v[i]) : &undefined_value;
        set_variable(r, macro->texts[i], v);
        r->scope = outer;
    }
    r->scope = inner;
    if (caller)
        set_variable(r, "caller", caller);
    r->calls++;
    struct jv *out = captured(r, &macro->list);
    r->calls--;
    r->scope = outer;
    r->flow = GO_ON;
    return out;
}

/* What a name stands for where it is no variable. */
static struct jv *find_function(struct run *r, const char *name)
{
    static const char *const functions[] = {"raise_exception", "strftime_now", "range",
                                            "namespace",       "dict",         NULL};
    if (!in_names(functions, name))
        return &undefined_value;
    struct jv *v = make_text(r, name, strlen(name));
    v->kind = JV_FUNCTION;
    return v;
}

static struct jv *call(struct run *r, const struct jn *n)
{
    struct jv *f = eval(r, n->a);
    const struct args a = arguments(r, n);
    if (r->rc)
        return &undefined_value;
    if (f->kind == JV_METHOD)
        return call_method(r, n, f, &a);
    if (f->kind == JV_MACRO)
        return call_macro(r, n, f, &a, NULL);
    if (f->kind == JV_FUNCTION)
        return call_function(r, n, f->s, &a);
    if (n->a->kind == JN_NAME || n->a->kind == JN_ATTR)
        return fail(r, n, "'%s' cannot be called", n->a->text);
    return fail(r, n, "a value that is %s cannot be called", kind_name(f));
}

/* --- filters --- */

static int by_order(struct run *r, const struct jn *n, struct jv *a, struct jv *b, bool fold)
{
    if (fold && a->kind == JV_STRING && b->kind == JV_STRING) {
        a = letters(r, a, LOWER);
        b = letters(r, b, LOWER);
    }
    return order(r, n, a, b);
}

/* A name given as an argument: of a filter, a test, an attribute. */
static bool is_name(struct run *r, const struct jn *n, const struct jv *name)
{
    if (name->kind == JV_STRING)
        return true;
    fail(r, n, "'%s' takes a name in quotes here, not a value that is %s", n->text,
         kind_name(name));
    return false;
}

/* attribute of an element, "a.b" from inside to inside. */
static struct jv *path(struct run *r, const struct jn *n, struct jv *v, const struct jv *name)
{
    if (!name)
        return v;
    if (name->kind == JV_INT)
        return item(r, n, v, (struct jv *)(uintptr_t)name);
    if (!is_name(r, n, name))
        return &undefined_value;
    struct jv dot = {.kind = JV_STRING, .s = ".", .n = 1};
    struct jv *parts = split(r, (struct jv *)(uintptr_t)name, &dot, -1, false);
    for (size_t i = 0; i < parts->n && !r->rc; i++)
        v = attribute(r, n, v, parts->v[i]->s);
    return v;
}

/* Stable, by insertion: lists in templates are short. */
static struct jv *sorted(struct run *r, const struct jn *n, struct jv *v, const struct jv *name,
                         bool reverse, bool fold)
{
    struct jv *in = members(r, n, v), *l = make(r, JV_LIST);
    for (size_t i = 0; i < in->n && !r->rc; i++) {
        append(r, l, NULL, in->v[i]);
        for (size_t k = l->n - 1; k > 0 && !r->rc; k--) {
            int c = by_order(r, n, path(r, n, l->v[k - 1], name), path(r, n, l->v[k], name), fold);
            if (reverse ? c >= 0 : c <= 0)
                break;
            struct jv *t = l->v[k];
            l->v[k] = l->v[k - 1];
            l->v[k - 1] = t;
        }
    }
    return l;
}

static struct jv *filtered(struct run *r, const struct jn *n, const char *name, struct jv *v,
                           const struct args *a);

/* select, reject, selectattr, rejectattr: by a test's name, or by truth. */
static struct jv *selected(struct run *r, const struct jn *n, struct jv *v, const struct args *a)
{
    const bool by_attribute = strstr(n->text, "attr") != NULL, keep = *n->text == 's';
    const int first = by_attribute ? 1 : 0;
    struct jv *in = members(r, n, v), *l = make(r, JV_LIST);
    for (size_t i = 0; i < in->n && !r->rc; i++) {
        struct jv *x = by_attribute ? path(r, n, in->v[i], argument(a, 0, NULL)) : in->v[i];
        const struct jv *test = argument(a, first, NULL);
        bool yes = truth(x);
        if (test && is_name(r, n, test)) {
            struct jn value = {.kind = JN_CONST, .value = x, .line = n->line, .col = n->col};
            struct jn other = {.kind = JN_CONST, .value = argument(a, first + 1, NULL)};
            struct jn *list[1] = {&other};
            struct jn t = {.kind = JN_TEST,
                           .text = test->s,
                           .a = &value,
                           .line = n->line,
                           .col = n->col,
                           .list = {list, other.value ? 1 : 0, 1}};
            if (strcmp(t.text, "==") == 0)
                t.text = "eq";
            yes = truth(run_test(r, &t));
        }
        if (yes == keep)
            append(r, l, NULL, in->v[i]);
    }
    return l;
}

static struct jv *mapped(struct run *r, const struct jn *n, struct jv *v, const struct args *a)
{
    struct jv *in = members(r, n, v), *l = make(r, JV_LIST);
    const struct jv *name = argument(a, -1, "attribute"), *filter = argument(a, 0, NULL);
    if (filter && !is_name(r, n, filter))
        return l;
    for (size_t i = 0; i < in->n && !r->rc; i++) {
        struct args rest = {0};
        for (int k = 1; k < a->n; k++)
            rest.v[rest.n++] = a->v[k];
        struct jv *x = name     ? path(r, n, in->v[i], name)
                       : filter ? filtered(r, n, filter->s, in->v[i], &rest)
                                : in->v[i];
        struct jv *otherwise = argument(a, -1, "default");
        append(r, l, NULL, x->kind == JV_UNDEFINED && otherwise ? otherwise : x);
    }
    return l;
}

static struct jv *indented(struct run *r, struct jv *v, const struct args *a)
{
    const struct jv *width = argument(a, 0, "width"), *first = argument(a, 1, "first");
    const struct jv *blank = argument(a, 2, "blank");
    const long long n = width && width->kind == JV_INT ? width->i : 4;
    struct ft_bytes b = {0};
    bool at_line = first && truth(first);
    for (size_t i = 0; i < v->n; i++) {
        if (at_line && ((v->s[i] != '\n') || (blank && truth(blank))))
            for (long long k = 0; k < n && !r->rc; k++)
                put(r, &b, " ", 1);
        put(r, &b, v->s + i, 1);
        at_line = v->s[i] == '\n';
    }
    return take_bytes(r, &b);
}

static struct jv *length_of(struct run *r, const struct jn *n, const struct jv *v)
{
    if (v->kind == JV_STRING)
        return make_int(r, (long long)characters(v));
    if (is_list(v) || v->kind == JV_DICT)
        return make_int(r, (long long)v->n);
    if (v->kind == JV_UNDEFINED)
        return make_int(r, 0);
    return fail(r, n, "a value that is %s has no length", kind_name(v));
}

static struct jv *number_filter(struct run *r, const char *name, struct jv *v, const struct args *a)
{
    struct jv *otherwise = argument(a, 0, "default");
    char *end = NULL;
    double f = real_of(v);
    bool ok = is_number(v);
    if (v->kind == JV_STRING && v->n) {
        f = strtod(v->s, &end);
        ok = *end == 0;
    }
    if (!ok)
        return otherwise ? otherwise : *name == 'i' ? make_int(r, 0) : make_float(r, 0);
    return *name == 'i' ? make_int(r, v->kind == JV_INT ? v->i : (long long)f) : make_float(r, f);
}

/* The same to unique, which by default takes letters of either case for one. */
static bool alike(struct run *r, struct jv *a, struct jv *b, bool fold)
{
    if (fold && a->kind == JV_STRING && b->kind == JV_STRING)
        return equal(letters(r, a, LOWER), letters(r, b, LOWER));
    return equal(a, b);
}

static struct jv *list_filter(struct run *r, const struct jn *n, const char *name, struct jv *v,
                              const struct args *a)
{
    struct jv *l = members(r, n, v), *out;
    if (strcmp(name, "list") == 0 || strcmp(name, "reverse") == 0 || strcmp(name, "unique") == 0) {
        const struct jv *exact = argument(a, 0, "case_sensitive"),
                        *by = argument(a, 1, "attribute");
        bool fold = !(exact && truth(exact));
        out = make(r, JV_LIST);
        for (size_t i = 0; i < l->n && !r->rc; i++) {
            struct jv *x = l->v[*name == 'r' ? l->n - 1 - i : i];
            bool twice = false;
            for (size_t k = 0; *name == 'u' && !twice && k < out->n; k++)
                twice = alike(r, path(r, n, out->v[k], by), path(r, n, x, by), fold);
            if (!twice)
                append(r, out, NULL, x);
        }
        return *name == 'r' && v->kind == JV_STRING ? join(r, NULL, out, NULL) : out;
    }
    if (strcmp(name, "first") == 0 || strcmp(name, "last") == 0)
        return l->n ? l->v[*name == 'f' ? 0 : l->n - 1] : &undefined_value;
    if (strcmp(name, "min") == 0 || strcmp(name, "max") == 0) {
        out = l->n ? l->v[0] : &undefined_value;
        for (size_t i = 1; i < l->n && !r->rc; i++) {
            int c = by_order(r, n, l->v[i], out, true);
            out = (name[1] == 'i' ? c < 0 : c > 0) ? l->v[i] : out;
        }
        return out;
    }
    if (strcmp(name, "sum") == 0) {
        struct jn plus = {.kind = JN_BINARY, .text = "+", .line = n->line, .col = n->col};
        out = make_int(r, 0);
        for (size_t i = 0; i < l->n && !r->rc; i++)
            out = arithmetic(r, &plus, out, path(r, n, l->v[i], argument(a, 0, "attribute")));
        return out;
    }
    const struct jv *reverse = argument(a, 0, "reverse"), *fold = argument(a, 1, "case_sensitive");
    return sorted(r, n, l, argument(a, 2, "attribute"), reverse && truth(reverse),
                  !(fold && truth(fold)));
}

static struct jv *to_json(struct run *r, const struct jn *n, const struct jv *v,
                          const struct args *a)
{
    const struct jv *ascii = argument(a, 0, "ensure_ascii"), *indent = argument(a, 1, "indent");
    const struct jv *separators = argument(a, 2, "separators"), *sort = argument(a, 3, "sort_keys");
    struct json_style style = {
        .indent = -1, .ascii = ascii && truth(ascii), .sorted = sort && truth(sort)};
    struct ft_bytes b = {0};
    if (indent && indent->kind == JV_INT)
        style.indent = indent->i < 0 ? 0 : indent->i;
    else if (indent && indent->kind != JV_NONE)
        return fail(r, n, "'tojson' with an indent that is %s is not supported", kind_name(indent));
    if (separators && is_list(separators) && separators->n == 2 &&
        separators->v[0]->kind == JV_STRING && separators->v[1]->kind == JV_STRING) {
        style.between = separators->v[0];
        style.colon = separators->v[1];
    } else if (separators && separators->kind != JV_NONE) {
        return fail(r, n, "the separators of 'tojson' must be two texts");
    }
    put_json(r, &b, n, v, &style, 0);
    return take_bytes(r, &b);
}

/* Filters; map, select and their kin look at their own. */
static const struct signature filter_signatures[] = {
    {"default", 2, {"default_value", "boolean"}},
    {"d", 2, {"default_value", "boolean"}},
    {"tojson", 4, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"length", 0, {NULL}},
    {"count", 0, {NULL}},
    {"trim", 1, {"chars"}},
    {"string", 0, {NULL}},
    {"safe", 0, {NULL}},
    {"join", 2, {"d", "attribute"}},
    {"items", 0, {NULL}},
    {"dictsort", 3, {"case_sensitive", "by", "reverse"}},
    {"list", 0, {NULL}},
    {"reverse", 0, {NULL}},
    {"unique", 2, {"case_sensitive", "attribute"}},
    {"first", 0, {NULL}},
    {"last", 0, {NULL}},
    {"min", 2, {"case_sensitive", "attribute"}},
    {"max", 2, {"case_sensitive", "attribute"}},
    {"sum", 2, {"attribute", "start"}},
    {"sort", 3, {"reverse", "case_sensitive", "attribute"}},
    {"upper", 0, {NULL}},
    {"lower", 0, {NULL}},
    {"title", 0, {NULL}},
    {"capitalize", 0, {NULL}},
    {"replace", 3, {"old", "new", "count"}},
    {"indent", 3, {"width", "first", "blank"}},
    {"int", 1, {"default"}},
    {"float", 1, {"default"}},
    {"abs", 0, {NULL}}};

static struct jv *filtered(struct run *r, const struct jn *n, const char *name, struct jv *v,
                           const struct args *a)
{
    if (!check_arguments(r, n, filter_signatures,
                         sizeof filter_signatures / sizeof *filter_signatures, name, a))
        return &undefined_value;
    static const char *const on_lists[] = {"list", "reverse", "unique", "first", "last",
                                           "min",  "max",     "sum",    "sort",  NULL};
    static const char *const on_texts[] = {"upper",      "lower",   "title",
                                           "capitalize", "replace", NULL};
    if (strcmp(name, "default") == 0 || strcmp(name, "d") == 0) {
        struct jv *otherwise = argument(a, 0, "default_value"), *also = argument(a, 1, "boolean");
        bool missing = v->kind == JV_UNDEFINED || (also && truth(also) && !truth(v));
        return !missing ? v : otherwise ? otherwise : make_text(r, "", 0);
    }
    if (strcmp(name, "tojson") == 0) {
        return to_json(r, n, v, a);
    }
    if (strcmp(name, "length") == 0 || strcmp(name, "count") == 0)
        return length_of(r, n, v);
    if (strcmp(name, "trim") == 0)
        return strip(r, text_of(r, v), argument(a, 0, "chars"), true, true);
    if (strcmp(name, "string") == 0 || strcmp(name, "safe") == 0)
        return text_of(r, v);
    if (strcmp(name, "join") == 0) {
        struct jv *l = members(r, n, v), *of = argument(a, 1, "attribute");
        if (of) {
            struct args attribute_only = {
                .names = (const char *[]){"attribute"}, .named = {of}, .n_named = 1};
            l = mapped(r, n, l, &attribute_only);
        }
        return join(r, NULL, l, argument(a, 0, "d"));
    }
    if (strcmp(name, "items") == 0 || strcmp(name, "dictsort") == 0) {
        if (v->kind == JV_UNDEFINED)
            return make(r, JV_LIST);
        if (v->kind != JV_DICT)
            return fail(r, n, "'%s' needs a dict, not %s", name, kind_name(v));
        const struct jv *exact = argument(a, 0, "case_sensitive"), *by = argument(a, 1, "by");
        const struct jv *back = argument(a, 2, "reverse");
        const bool value = by && by->kind == JV_STRING && by->n == 5;
        struct jv *l = dict_list(r, v, "items"), which = {.kind = JV_INT, .i = value};
        return *name == 'i'
                   ? l
                   : sorted(r, n, l, &which, back && truth(back), !(exact && truth(exact)));
    }
    if (in_names(on_lists, name))
        return list_filter(r, n, name, v, a);
    if (in_names(on_texts, name))
        return text_method(r, n, name, text_of(r, v), a);
    if (strcmp(name, "indent") == 0)
        return indented(r, text_of(r, v), a);
    if (strcmp(name, "int") == 0 || strcmp(name, "float") == 0)
        return number_filter(r, name, v, a);
    if (strcmp(name, "abs") == 0 && is_number(v))
        return v->kind == JV_FLOAT ? make_float(r, fabs(v->f))
                                   : make_int(r, v->i < 0 ? -v->i : v->i);
    if (strcmp(name, "map") == 0)
        return mapped(r, n, v, a);
    if (n->text && (strncmp(n->text, "select", 6) == 0 || strncmp(n->text, "reject", 6) == 0))
        return selected(r, n, v, a);
    return fail(r, n, "the filter '%s' is not supported", name);
}

/* --- expressions --- */

static struct jv *container(struct run *r, const struct jn *n)
{
    struct jv *v = make(r, n->kind == JN_LIST ? JV_LIST : n->kind == JN_TUPLE ? JV_TUPLE : JV_DICT);
    const int step = n->kind == JN_DICT ? 2 : 1;
    for (int i = 0; i + step <= n->list.n && !r->rc; i += step) {
        struct jv *x = eval(r, n->list.v[i]);
        if (step == 1)
            append(r, v, NULL, x);
        else
            append(r, v, x, eval(r, n->list.v[i + 1]));
    }
    return v;
}

static struct jv *comparisons(struct run *r, const struct jn *n)
{
    struct jv *a = eval(r, n->a);
    bool all = true;
    for (int i = 0; i < n->list.n && all && !r->rc; i++) {
        struct jv *b = eval(r, n->list.v[i]);
        all = !r->rc && compare(r, n, n->texts[i], a, b);
        a = b;
    }
    return make_bool(r, all);
}

static struct jv *negated(struct run *r, const struct jn *n)
{
    struct jv *v = eval(r, n->a);
    if (*n->text == 'n')
        return make_bool(r, !truth(v));
    if (!is_number(v))
        return fail(r, n, "'%s' of %s", n->text, kind_name(v));
    if (*n->text == '+')
        return v;
    return v->kind == JV_FLOAT ? make_float(r, -v->f) : make_int(r, -v->i);
}

static struct jv *filter_node(struct run *r, const struct jn *n)
{
    struct jv *v = n->a ? eval(r, n->a) : find_variable(r, "(block)");
    const struct args a = arguments(r, n);
    return r->rc ? &undefined_value : filtered(r, n, n->text, v ? v : &undefined_value, &a);
}

static struct jv *eval(struct run *r, const struct jn *n)
{
    struct jv *a, *b;
    if (++r->steps > MOST_STEPS)
        return fail(r, n, "the template does not come to an end");
    if (r->rc)
        return &undefined_value;
    switch (n->kind) {
    case JN_CONST:
        return n->value;
    case JN_NAME:
        a = find_variable(r, n->text);
        return a ? a : find_function(r, n->text);
    case JN_LIST:
    case JN_TUPLE:
    case JN_DICT:
        return container(r, n);
    case JN_UNARY:
        return negated(r, n);
    case JN_BINARY:
        a = eval(r, n->a);
        b = eval(r, n->b);
        return r->rc ? &undefined_value : arithmetic(r, n, a, b);
    case JN_AND:
        a = eval(r, n->a);
        return truth(a) ? eval(r, n->b) : a;
    case JN_OR:
        a = eval(r, n->a);
        return truth(a) ? a : eval(r, n->b);
    case JN_COMPARE:
        return comparisons(r, n);
    case JN_IF_ELSE:
        if (truth(eval(r, n->b)))
            return eval(r, n->a);
        return n->c ? eval(r, n->c) : &undefined_value;
    case JN_ATTR:
        a = eval(r, n->a);
        return r->rc ? a : attribute(r, n, a, n->text);
    case JN_ITEM:
        a = eval(r, n->a);
        b = eval(r, n->b);
        return r->rc ? a : item(r, n, a, b);
    case JN_SLICE:
        a = eval(r, n->a);
        return r->rc ? a : slice(r, n, a);
    case JN_CALL:
        return call(r, n);
    case JN_FILTER:
        return filter_node(r, n);
    case JN_TEST:
        return run_test(r, n);
    default:
        return fail(r, n, "this is no expression");
    }
}

/* --- statements --- */

static void assign(struct run *r, const struct jn *target, struct jv *v)
{
    if (target->kind == JN_NAME) {
        set_variable(r, target->text, v);
    } else if (target->kind == JN_ATTR) {
        struct jv *of = eval(r, target->a);
        struct jv key = {.kind = JV_STRING, .s = target->text, .n = strlen(target->text)};
        if (of->kind != JV_NAMESPACE) {
            fail(r, target, "only a namespace's members can be set");
            return;
        }
        for (size_t i = 0; i < of->n; i++)
            if (equal(of->keys[i], &key)) {
                of->v[i] = v;
                return;
            }
        append(r, of, make_text(r, key.s, key.n), v);
    } else {
        struct jv *l = members(r, target, v);
        if ((int)l->n != target->list.n) {
            fail(r, target, "%d names for %zu values", target->list.n, l->n);
            return;
        }
        for (int i = 0; i < target->list.n; i++)
            assign(r, target->list.v[i], l->v[i]);
    }
}

static void set_loop(struct run *r, struct jv *loop, const struct jv *all, size_t i)
{
    const long long n = (long long)all->n, k = (long long)i;
    const struct {
        const char *name;
        struct jv *value;
    } fields[] = {
        {"index", make_int(r, k + 1)},
        {"index0", make_int(r, k)},
        {"revindex", make_int(r, n - k)},
        {"revindex0", make_int(r, n - k - 1)},
        {"first", make_bool(r, k == 0)},
        {"last", make_bool(r, k == n - 1)},
        {"length", make_int(r, n)},
        {"previtem", i > 0 ? all->v[i - 1] : &undefined_value},
        {"nextitem", i + 1 < all->n ? all->v[i + 1] : &undefined_value},
    };
    loop->n = 0;
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        append(r, loop, make_text(r, fields[f].name, strlen(fields[f].name)), fields[f].value);
}

static void set_targets(struct run *r, const struct jn *n, struct jv *v)
{
    if (n->n_texts == 1) {
        set_variable(r, n->texts[0], v);
        return;
    }
    struct jv *l = members(r, n, v);
    if ((int)l->n != n->n_texts) {
        fail(r, n, "%d names for %zu values", n->n_texts, l->n);
        return;
    }
    for (int i = 0; i < n->n_texts; i++)
        set_variable(r, n->texts[i], l->v[i]);
}

static void run_for(struct run *r, const struct jn *n)
{
    struct jv *all = members(r, n, eval(r, n->a)), *kept = all;
    struct scope *outer = r->scope;
    if (n->b) { /* the condition chooses before the loop counts */
        kept = make(r, JV_LIST);
        for (size_t i = 0; i < all->n && !r->rc; i++) {
            r->scope = open_scope(r, outer);
            set_targets(r, n, all->v[i]);
            if (truth(eval(r, n->b)))
                append(r, kept, NULL, all->v[i]);
        }
    }
    for (size_t i = 0; i < kept->n && !r->rc; i++) {
        struct jv *loop = make(r, JV_NAMESPACE);
        r->scope = open_scope(r, outer);
        set_loop(r, loop, kept, i);
        set_variable(r, "loop", loop);
        set_targets(r, n, kept->v[i]);
        run_list(r, &n->list);
        const enum flow flow = r->flow;
        r->flow = GO_ON;
        if (flow == BREAK)
            break;
    }
    r->scope = outer;
    if (kept->n == 0)
        run_list(r, &n->more);
}

static void run_if(struct run *r, const struct jn *n)
{
    for (int i = 0; i < n->more.n && !r->rc; i++)
        if (i >= n->list.n || !n->list.v[i] || truth(eval(r, n->list.v[i]))) {
            if (!r->rc)
                run_list(r, &n->more.v[i]->list);
            return;
        }
}

static void run_generation(struct run *r, const struct jn *n)
{
    const size_t begin = r->out->n;
    run_list(r, &n->list);
    struct ft_rendered *m = r->marks;
    if (r->rc || !m)
        return;
    if (m->n_marks == r->room_marks) {
        const size_t room = r->room_marks ? 2 * r->room_marks : 8;
        if (ft_grow(&m->marks, room, sizeof *m->marks)) {
            r->rc = FT_ERESOURCE;
            return;
        }
        r->room_marks = room;
    }
    m->marks[m->n_marks++] = (struct ft_mark_range){begin, r->out->n};
}

/* A filter chain whose innermost filter takes the block's text. */
static void run_filter_block(struct run *r, const struct jn *n)
{
    struct scope *outer = r->scope;
    struct jv *text = captured(r, &n->list);
    r->scope = open_scope(r, outer);
    set_variable(r, "(block)", text);
    put_value(r, r->out, eval(r, n->a), false);
    r->scope = outer;
}

static void run_call_block(struct run *r, const struct jn *n)
{
    struct jn *inner = take(r, 1, sizeof *inner);
    struct jv *caller = make(r, JV_MACRO), *f;
    *inner = (struct jn){.kind = JN_MACRO, .text = "caller", .list = n->list};
    caller->node = inner;
    caller->scope = r->scope;
    if (n->a->kind != JN_CALL) {
        fail(r, n, "a call block needs a call");
        return;
    }
    f = eval(r, n->a->a);
    const struct args a = arguments(r, n->a);
    if (!r->rc && f->kind != JV_MACRO)
        fail(r, n, "a call block calls macros only");
    if (!r->rc)
        put_value(r, r->out, call_macro(r, n, f, &a, caller), false);
}

static void run_set(struct run *r, const struct jn *n)
{
    struct jv *v = n->b ? eval(r, n->b) : captured(r, &n->list);
    if (n->c && !r->rc) {
        struct scope *outer = r->scope;
        r->scope = open_scope(r, outer);
        set_variable(r, "(block)", v);
        v = eval(r, n->c);
        r->scope = outer;
    }
    if (!r->rc)
        assign(r, n->a, v);
}

static void run_one(struct run *r, const struct jn *n)
{
    struct jv *v;
    switch (n->kind) {
    case JN_TEXT:
        put(r, r->out, n->text, n->length);
        break;
    case JN_PRINT:
        v = eval(r, n->a);
        if (!r->rc)
            put_value(r, r->out, v, false);
        break;
    case JN_IF:
        run_if(r, n);
        break;
    case JN_FOR:
        run_for(r, n);
        break;
    case JN_SET:
        run_set(r, n);
        break;
    case JN_MACRO:
        v = make(r, JV_MACRO);
        v->node = n;
        v->scope = r->scope;
        set_variable(r, n->text, v);
        break;
    case JN_GENERATION:
        run_generation(r, n);
        break;
    case JN_FILTERBLOCK:
        run_filter_block(r, n);
        break;
    case JN_CALLBLOCK:
        run_call_block(r, n);
        break;
    default:
        r->flow = n->kind == JN_BREAK ? BREAK : CONTINUE;
    }
}

static void run_list(struct run *r, const struct jn_list *l)
{
    for (int i = 0; i < l->n && !r->rc && r->flow == GO_ON; i++) {
        if (++r->steps > MOST_STEPS)
            fail(r, l->v[i], "the template does not come to an end");
        else
            run_one(r, l->v[i]);
    }
}

int ft_template_render(const struct ft_template *t, const json_t *context, long long now,
                       struct ft_rendered *out)
{
    struct ft_bytes text = {0};
    const char *key;
    json_t *value;
    *out = (struct ft_rendered){0};
    struct run r = {.t = t, .out = &text, .marks = out, .now = now};
    r.scope = r.top = open_scope(&r, NULL);
    json_object_foreach((json_t *)context, key, value) set_variable(&r, key, from_json(&r, value));
    run_list(&r, &t->body);
    if (!r.rc && ft_bytes_add(&text, "", 1))
        r.rc = FT_ERESOURCE;
    ft_arena_fini(&r.arena);
    if (r.rc) {
        ft_bytes_free(&text);
        ft_rendered_free(out);
        return r.rc;
    }
    out->text = text.p;
    out->length = text.n - 1;
    return FT_OK;
}

void ft_rendered_free(struct ft_rendered *r)
{
    ft_free(r->text);
    ft_free(r->marks);
    *r = (struct ft_rendered){0};
}
