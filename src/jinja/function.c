/* Calls of what is built in, with Python's rules for arguments; functions, and the methods of
 * dicts, lists and loops. */
#include "jinja/run.h"

#include <time.h>

/* --- calls --- */

const struct jv_builtin *jv_find(const struct jv_builtin *rows, const char *name)
{
    for (; rows->name; rows++)
        if (strcmp(rows->name, name) == 0)
            return rows;
    return NULL;
}

/* The argument of the parameter `name`, which is number i; NULL: not given. */
static struct jv *argument(const struct jv_call *c, int i, const char *name, size_t n, int *by_name)
{
    const struct jv_args *a = c->all;
    for (int k = 0; name && k < a->n_named; k++)
        if (strlen(a->names[k]) == n && memcmp(a->names[k], name, n) == 0) {
            ++*by_name;
            return i < a->n
                       ? jr_fail(c->r, c->at, "'%s' is given '%s' twice", c->of->name, a->names[k])
                       : a->named[k];
        }
    return i < a->n ? a->v[i] : NULL;
}

/* Puts the arguments in the order of the row's parameters. */
static void bind(struct jv_call *c)
{
    const char *p = c->of->parameters;
    const bool named = *p != '/';
    int i = 0, by_name = 0;
    if (*p == '*')
        return;
    for (p += named ? 0 : 2; *p && !c->r->rc; i++) {
        const size_t n = strcspn(p, " =");
        c->arg[i] = argument(c, i, named ? p : NULL, n, &by_name);
        if (!c->arg[i] && p[n] != '=')
            jr_fail(c->r, c->at, "'%s' needs its argument '%.*s'", c->of->name, (int)n, p);
        p += n + (p[n] == '=');
        p += *p == ' ';
    }
    if (c->all->n > i)
        jr_fail(c->r, c->at, "'%s' takes %d argument%s, not %d", c->of->name, i, i == 1 ? "" : "s",
                c->all->n);
    if (by_name < c->all->n_named)
        jr_fail(c->r, c->at, "'%s' has no argument of one of the names given, such as '%s'",
                c->of->name, c->all->names[c->all->n_named - 1]);
}

struct jv *jv_run(struct jr *r, const struct jn *at, const struct jv_builtin *row, struct jv *self,
                  const struct jv_args *args)
{
    static const char *const any[] = {"safe",  "e",      "escape", "tojson", "length",
                                      "count", "string", "d",      "default"};
    struct jv_call c = {.r = r, .at = at, .of = row, .self = self, .all = args};
    bool takes_safe = jv_find(jv_tests, row->name) == row;
    for (size_t i = 0; i < sizeof any / sizeof *any; i++)
        takes_safe = takes_safe || strcmp(row->name, any[i]) == 0;
    if (self && !takes_safe && !jv_check_safe(r, at, self))
        return &jv_undefined;
    if (!row->run)
        return jr_fail(r, at, "'%s' is not supported", row->name);
    bind(&c);
    return r->rc ? &jv_undefined : row->run(&c);
}

/* --- functions --- */

static struct jv *raise_exception(const struct jv_call *c)
{
    const struct jv *why = jv_text_of(c->r, c->at, c->arg[0]);
    return jr_fail(c->r, c->at, "the template refuses: %s", why->s);
}

static struct jv *strftime_now(const struct jv_call *c)
{
    const struct jv *format = c->arg[0];
    char text[256];
    time_t now = (time_t)c->r->now;
    struct tm tm;
    if (format->kind != JV_STRING)
        return jr_fail(c->r, c->at, "'strftime_now' needs a format");
    /* a time without a zone, as Python's now() is */
    struct jv zone[2] = {{.kind = JV_STRING, .s = "%z", .n = 2},
                         {.kind = JV_STRING, .s = "%Z", .n = 2}};
    const struct jv none = {.kind = JV_STRING, .s = ""};
    for (int i = 0; i < 2; i++)
        format = jv_replace(c->r, format, &zone[i], &none, -1);
    if (strstr(format->s, "%f"))
        return jr_fail(c->r, c->at, "'%%f' in 'strftime_now' is not supported");
    localtime_r(&now, &tm);
    const size_t n = strftime(text, sizeof text, format->s, &tm);
    if (n == 0 && format->n)
        return jr_fail(c->r, c->at, "the date '%s' has no text, or one that is too long",
                       format->s);
    return jv_text(c->r, text, n);
}

static struct jv *range(const struct jv_call *c)
{
    enum { MOST = 100000 }; /* as Jinja's sandbox */
    long long v[3] = {0, 0, 1};
    struct jv *l = jv_view(c->r, "range");
    int n = 0;
    for (; n < 3 && c->arg[n]; n++) {
        if (c->arg[n]->kind != JV_INT && c->arg[n]->kind != JV_BOOL)
            return jr_fail(c->r, c->at, "'range' needs whole numbers");
        v[n] = c->arg[n]->i;
    }
    if (n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0)
        return jr_fail(c->r, c->at, "a range whose step is 0");
    for (long long i = v[0]; (v[2] > 0 ? i < v[1] : i > v[1]) && !c->r->rc;) {
        if (l->n == MOST)
            return jr_fail(c->r, c->at, "a range of more than %d numbers", MOST);
        jv_add(c->r, l, jv_int(c->r, i));
        if (__builtin_add_overflow(i, v[2], &i))
            break;
    }
    return l;
}

/* dict(...), namespace(...): from a dict or pairs, and by name. */
static struct jv *new_dict(const struct jv_call *c)
{
    const struct jv_args *a = c->all;
    struct jv *v = jv_new(c->r, (enum jv_kind)c->of->which);
    if (a->n > 1)
        return jr_fail(c->r, c->at, "'%s' takes one argument that has no name, not %d", c->of->name,
                       a->n);
    struct jv *from = a->n ? a->v[0] : NULL;
    if (from && from->kind == JV_DICT) {
        for (size_t i = 0; i < from->n; i++)
            jv_put(c->r, v, from->keys[i], from->v[i]);
    } else if (from) {
        const struct jv *list = jv_members(c->r, c->at, from);
        for (size_t i = 0; i < list->n && !c->r->rc; i++) {
            const struct jv *pair = jv_members(c->r, c->at, list->v[i]);
            if (pair->n != 2)
                return jr_fail(c->r, c->at, "'%s' needs pairs", c->of->name);
            jv_put(c->r, v, pair->v[0], pair->v[1]);
        }
    }
    for (int i = 0; i < a->n_named; i++)
        jv_put(c->r, v, jv_text(c->r, a->names[i], strlen(a->names[i])), a->named[i]);
    for (size_t i = 0; v->kind == JV_NAMESPACE && i < v->n && !c->r->rc; i++)
        if (v->keys[i]->kind == JV_STRING && *v->keys[i]->s == '_')
            jr_fail(c->r, c->at, "a namespace's names cannot begin with '_'");
    return v;
}

const struct jv_builtin jv_functions[] = {{"raise_exception", raise_exception, "message", 0},
                                          {"strftime_now", strftime_now, "format", 0},
                                          {"range", range, "/ start stop= step=", 0},
                                          {"namespace", new_dict, "*", JV_NAMESPACE},
                                          {"dict", new_dict, "*", JV_DICT},
                                          {"cycler", NULL, "*", 0},
                                          {"joiner", NULL, "*", 0},
                                          {"lipsum", NULL, "*", 0},
                                          {NULL, NULL, NULL, 0}};

/* --- methods of dicts --- */

static struct jv *get(const struct jv_call *c)
{
    struct jv *found = jv_member(c->r, c->self, c->arg[0]);
    return found ? found : c->arg[1] ? c->arg[1] : jv_new(c->r, JV_NONE);
}

static struct jv *view(const struct jv_call *c)
{
    static const char *const names[] = {"dict_items", "dict_keys", "dict_values"};
    const struct jv *d = c->self;
    struct jv *v = jv_view(c->r, names[c->of->which]);
    for (size_t i = 0; i < d->n && !c->r->rc; i++)
        jv_add(c->r, v,
               c->of->which == 0   ? jv_pair(c->r, d->keys[i], d->v[i])
               : c->of->which == 1 ? d->keys[i]
                                   : d->v[i]);
    return v;
}

static struct jv *copy(const struct jv_call *c)
{
    return c->self; /* nothing in a template changes it */
}

const struct jv_builtin jv_dict_methods[] = {{"get", get, "/ key default=", 0},
                                             {"items", view, "", 0},
                                             {"keys", view, "", 1},
                                             {"values", view, "", 2},
                                             {"copy", copy, "", 0},
                                             {"clear", NULL, "*", JV_UNSAFE},
                                             {"fromkeys", NULL, "*", 0},
                                             {"pop", NULL, "*", JV_UNSAFE},
                                             {"popitem", NULL, "*", JV_UNSAFE},
                                             {"setdefault", NULL, "*", JV_UNSAFE},
                                             {"update", NULL, "*", JV_UNSAFE},
                                             {NULL, NULL, NULL, 0}};

/* --- methods of lists and tuples --- */

static struct jv *list_index(const struct jv_call *c)
{
    for (size_t i = 0; i < c->self->n; i++)
        if (jv_equal(c->r, c->self->v[i], c->arg[0]))
            return jv_int(c->r, (long long)i);
    return jr_fail(c->r, c->at, "the value looked for is not in the list");
}

static struct jv *list_count(const struct jv_call *c)
{
    long long n = 0;
    for (size_t i = 0; i < c->self->n; i++)
        n += jv_equal(c->r, c->self->v[i], c->arg[0]);
    return jv_int(c->r, n);
}

const struct jv_builtin jv_list_methods[] = {{"index", list_index, "/ value", 0},
                                             {"count", list_count, "/ value", 0},
                                             {"copy", copy, "", 0},
                                             {"append", NULL, "*", JV_UNSAFE},
                                             {"clear", NULL, "*", JV_UNSAFE},
                                             {"extend", NULL, "*", JV_UNSAFE},
                                             {"insert", NULL, "*", JV_UNSAFE},
                                             {"pop", NULL, "*", JV_UNSAFE},
                                             {"remove", NULL, "*", JV_UNSAFE},
                                             {"reverse", NULL, "*", JV_UNSAFE},
                                             {"sort", NULL, "*", JV_UNSAFE},
                                             {NULL, NULL, NULL, 0}};

const struct jv_builtin jv_tuple_methods[] = {{"index", list_index, "/ value", 0},
                                              {"count", list_count, "/ value", 0},
                                              {NULL, NULL, NULL, 0}};

/* --- methods of loops --- */

static struct jv *cycle(const struct jv_call *c)
{
    if (c->all->n == 0)
        return jr_fail(c->r, c->at, "'cycle' needs values to go through");
    return c->all->v[c->self->i % c->all->n];
}

static struct jv *changed(const struct jv_call *c)
{
    struct jv *now = jv_new(c->r, JV_TUPLE), **before = c->self->keys;
    for (int i = 0; i < c->all->n; i++)
        jv_add(c->r, now, c->all->v[i]);
    if (*before && jv_equal(c->r, *before, now))
        return jv_bool(c->r, false);
    *before = now;
    return jv_bool(c->r, true);
}

const struct jv_builtin jv_loop_methods[] = {
    {"cycle", cycle, "*", 0}, {"changed", changed, "*", 0}, {NULL, NULL, NULL, 0}};
