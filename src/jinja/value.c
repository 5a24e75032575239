/* The values of templates: making them, looking at them, as Python has them. */
#define _GNU_SOURCE
#include "jinja/run.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

static const size_t MOST_MEMORY = (size_t)1 << 30, MOST_WORK = (size_t)1 << 33;
enum { OF_VALUE = 16 }; /* the work of looking at one */
enum { MOST_NESTED = 500 };

struct jv jv_undefined = {.kind = JV_UNDEFINED, .s = ""};

/* --- making --- */

void *jr_take(struct jr *r, size_t n, size_t size)
{
    static _Thread_local long long nothing[64];
    const bool too_much = r->taken > MOST_MEMORY;
    void *v = r->rc == FT_ERESOURCE || too_much ? NULL : ft_arena_alloc(&r->arena, n, size);
    r->taken += n * size;
    if (too_much && !r->rc)
        jr_fail(r, r->at, "the template takes more than %zu MB", MOST_MEMORY >> 20);
    else if (!v && !r->rc)
        r->rc = FT_ERESOURCE;
    return v ? v : (n * size <= sizeof nothing ? nothing : NULL);
}
_Static_assert(sizeof(struct jv) <= 64 * sizeof(long long), "see jr_take()");

bool jr_work(struct jr *r, size_t n)
{
    r->work += n;
    if (r->work > MOST_WORK)
        jr_fail(r, r->at, "the template does not come to an end");
    return !r->rc;
}

struct jv *jr_fail(struct jr *r, const struct jn *n, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    if (!r->rc) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        r->rc = jn_fail(r->t, n, "%s", text);
    }
    return &jv_undefined;
}

struct jv *jv_new(struct jr *r, enum jv_kind kind)
{
    struct jv *v = jr_take(r, 1, sizeof *v);
    *v = (struct jv){.kind = kind, .s = ""};
    return v;
}

struct jv *jv_int(struct jr *r, long long i)
{
    struct jv *v = jv_new(r, JV_INT);
    v->i = i;
    return v;
}

struct jv *jv_bool(struct jr *r, bool b)
{
    struct jv *v = jv_new(r, JV_BOOL);
    v->i = b;
    return v;
}

struct jv *jv_float(struct jr *r, double f)
{
    struct jv *v = jv_new(r, JV_FLOAT);
    v->f = f;
    return v;
}

struct jv *jv_text(struct jr *r, const char *s, size_t n)
{
    struct jv *v = jv_new(r, JV_STRING);
    char *copy = jr_take(r, n + 1, 1);
    if (!copy || !jr_work(r, n + OF_VALUE))
        return v;
    if (n)
        memcpy(copy, s, n);
    copy[n] = 0;
    v->s = copy;
    v->n = n;
    return v;
}

struct jv *jv_taken(struct jr *r, struct ft_bytes *b)
{
    struct jv *v = jv_text(r, b->p ? b->p : "", b->n);
    ft_bytes_free(b);
    return v;
}

static bool can_be_key(const struct jv *v)
{
    if (v->kind == JV_LIST || v->kind == JV_DICT || (v->kind == JV_VIEW && *v->s == 'd'))
        return false;
    for (size_t i = 0; v->kind == JV_TUPLE && i < v->n; i++)
        if (!can_be_key(v->v[i]))
            return false;
    return true;
}

bool jv_check_key(struct jr *r, const struct jv *key)
{
    if (!can_be_key(key))
        jr_fail(r, r->at, "a %s cannot be a key", jv_kind_name(key));
    return !r->rc;
}

/* A container is deeper than what it holds. */
static void deepen(struct jr *r, struct jv *v, const struct jv *inner)
{
    if (v->kind != JV_NAMESPACE && inner->depth >= v->depth)
        v->depth = inner->depth + 1;
    if (v->depth > MOST_NESTED)
        jr_fail(r, r->at, "lists and dicts are nested more than %d deep", MOST_NESTED);
}

static void append(struct jr *r, struct jv *list, struct jv *key, struct jv *value)
{
    if (!jr_work(r, OF_VALUE))
        return;
    if (list->n == list->room) {
        const size_t room = list->room ? 2 * list->room : 8;
        struct jv **v = jr_take(r, room, sizeof *v), **k = jr_take(r, room, sizeof *k);
        if (r->rc)
            return;
        if (list->n) {
            memcpy(v, list->v, list->n * sizeof *v);
            memcpy(k, list->keys, list->n * sizeof *k);
        }
        list->v = v;
        list->keys = k;
        list->room = room;
    }
    deepen(r, list, value);
    if (key)
        deepen(r, list, key);
    list->v[list->n] = value;
    list->keys[list->n++] = key;
}

void jv_add(struct jr *r, struct jv *list, struct jv *value)
{
    append(r, list, NULL, value);
}

void jv_put(struct jr *r, struct jv *dict, struct jv *key, struct jv *value)
{
    if (!jv_check_key(r, key))
        return;
    for (size_t i = 0; i < dict->n; i++)
        if (jv_equal(r, dict->keys[i], key)) {
            deepen(r, dict, value);
            dict->v[i] = value;
            return;
        }
    append(r, dict, key, value);
}

struct jv *jv_pair(struct jr *r, struct jv *a, struct jv *b)
{
    struct jv *t = jv_new(r, JV_TUPLE);
    jv_add(r, t, a);
    jv_add(r, t, b);
    return t;
}

struct jv *jv_view(struct jr *r, const char *which)
{
    struct jv *v = jv_new(r, JV_VIEW);
    v->s = which;
    return v;
}

struct jv *jv_iterator(struct jv *list)
{
    if (list->kind == JV_LIST)
        list->kind = JV_ITERATOR;
    return list;
}

struct jv *jv_from_json(struct jr *r, const json_t *j)
{
    const char *key;
    json_t *member;
    struct jv *v;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        v = jv_new(r, JV_DICT);
        json_object_foreach((json_t *)j, key, member)
            append(r, v, jv_text(r, key, strlen(key)), jv_from_json(r, member));
        return v;
    case JSON_ARRAY:
        v = jv_new(r, JV_LIST);
        json_array_foreach((json_t *)j, i, member) jv_add(r, v, jv_from_json(r, member));
        return v;
    case JSON_STRING:
        return jv_text(r, json_string_value(j), json_string_length(j));
    case JSON_INTEGER:
        return jv_int(r, json_integer_value(j));
    case JSON_REAL: /* it may have been a whole number */
        if (fabs(json_real_value(j)) >= 0x1p63)
            return jr_fail(r, r->at, "a number beyond 64 bits is not supported");
        return jv_float(r, json_real_value(j));
    case JSON_TRUE:
    case JSON_FALSE:
        return jv_bool(r, json_is_true(j));
    default:
        return jv_new(r, JV_NONE);
    }
}

/* --- looking at --- */

const char *jv_kind_name(const struct jv *v)
{
    static const char *const names[] = {[JV_UNDEFINED] = "undefined", [JV_NONE] = "None",
                                        [JV_BOOL] = "bool",           [JV_INT] = "int",
                                        [JV_FLOAT] = "float",         [JV_STRING] = "str",
                                        [JV_LIST] = "list",           [JV_TUPLE] = "tuple",
                                        [JV_DICT] = "dict",           [JV_VIEW] = "view",
                                        [JV_ITERATOR] = "iterator",   [JV_NAMESPACE] = "namespace",
                                        [JV_LOOP] = "loop",           [JV_MACRO] = "macro",
                                        [JV_FUNCTION] = "function",   [JV_METHOD] = "method"};
    return names[v->kind];
}

bool jv_is_number(const struct jv *v)
{
    return v->kind == JV_INT || v->kind == JV_FLOAT || v->kind == JV_BOOL;
}

bool jv_is_list(const struct jv *v)
{
    return v->kind == JV_LIST || v->kind == JV_TUPLE;
}

bool jv_is_range(const struct jv *v)
{
    return v->kind == JV_VIEW && strcmp(v->s, "range") == 0;
}

bool jv_has_members(const struct jv *v)
{
    return jv_is_list(v) || v->kind == JV_DICT || v->kind == JV_VIEW || v->kind == JV_ITERATOR;
}

const char *jv_name(const struct jv *text)
{
    return text->kind == JV_STRING && strlen(text->s) == text->n ? text->s : "";
}

bool jv_check_safe(struct jr *r, const struct jn *at, const struct jv *v)
{
    if (v->kind == JV_STRING && v->i == JV_SAFE)
        jr_fail(r, at,
                "'|safe' and '|e' must come last: what is done with their texts is not "
                "supported");
    return !r->rc;
}

bool jv_is(const struct jv *v, const char *text)
{
    return v->kind == JV_STRING && strcmp(v->s, text) == 0;
}

double jv_real(const struct jv *v)
{
    return v->kind == JV_FLOAT ? v->f : (double)v->i;
}

bool jv_truth(const struct jv *v)
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
    case JV_VIEW:
        return v->n > 0;
    default: /* an iterator too, whatever it will give */
        return true;
    }
}

struct jv *jv_member(struct jr *r, const struct jv *dict, const struct jv *key)
{
    if (!jv_check_key(r, key))
        return NULL;
    for (size_t i = 0; i < dict->n; i++)
        if (jv_equal(r, dict->keys[i], key))
            return dict->v[i];
    return NULL;
}

/* Ranges by their order, a dict's keys and items by what there is. */
static bool equal_views(struct jr *r, const struct jv *a, const struct jv *b)
{
    bool all = a->n == b->n;
    for (size_t i = 0; i < a->n && all; i++) {
        all = jv_equal(r, a->v[i], b->v[i]);
        for (size_t k = 0; k < b->n && !all && *a->s == 'd'; k++)
            all = jv_equal(r, a->v[i], b->v[k]);
    }
    return all;
}

bool jv_equal(struct jr *r, const struct jv *a, const struct jv *b)
{
    if (!jr_work(r, OF_VALUE))
        return false;
    if (jv_is_number(a) && jv_is_number(b))
        return a->kind == JV_FLOAT || b->kind == JV_FLOAT ? jv_real(a) == jv_real(b) : a->i == b->i;
    if (a->kind != b->kind)
        return false;
    if (a->kind == JV_STRING)
        return a->n == b->n && jr_work(r, a->n) && memcmp(a->s, b->s, a->n) == 0;
    if (jv_is_list(a) || a->kind == JV_DICT) {
        if (a->n != b->n)
            return false;
        for (size_t i = 0; i < a->n; i++) {
            const struct jv *other = jv_is_list(a) ? b->v[i] : jv_member(r, b, a->keys[i]);
            if (!other || !jv_equal(r, a->v[i], other))
                return false;
        }
        return true;
    }
    if (a->kind == JV_VIEW && strcmp(a->s, b->s) == 0 && strcmp(a->s, "dict_values") != 0)
        return equal_views(r, a, b);
    if (a->kind == JV_METHOD || a->kind == JV_FUNCTION)
        return a->builtin == b->builtin && a->self == b->self;
    return a->kind == JV_NONE || a->kind == JV_UNDEFINED || a == b;
}

size_t jv_characters(struct jr *r, const struct jv *v)
{
    size_t n = 0;
    if (!jr_work(r, v->n))
        return 0;
    for (size_t i = 0; i < v->n; i += (size_t)ft_char_length(v->s[i]))
        n++;
    return n;
}

struct jv *jv_members(struct jr *r, const struct jn *at, struct jv *v)
{
    struct jv *l;
    if (jv_is_list(v))
        return v;
    l = jv_new(r, JV_LIST);
    if (v->kind == JV_STRING)
        for (size_t i = 0; i < v->n && !r->rc;) {
            const size_t c = (size_t)ft_char_length(v->s[i]);
            jv_add(r, l, jv_text(r, v->s + i, c));
            i += c;
        }
    else if (v->kind == JV_DICT)
        for (size_t i = 0; i < v->n; i++)
            jv_add(r, l, v->keys[i]);
    else if (v->kind == JV_VIEW || v->kind == JV_ITERATOR)
        for (size_t i = (size_t)v->i; i < v->n; i++)
            jv_add(r, l, v->v[i]);
    else if (v->kind == JV_LOOP)
        jr_fail(r, at, "looping over 'loop' is not supported");
    else if (v->kind != JV_UNDEFINED)
        jr_fail(r, at, "a value that is %s cannot be looped over", jv_kind_name(v));
    if (v->kind == JV_ITERATOR)
        v->i = (long long)v->n;
    return l;
}

/* --- attributes, items, slices --- */

static struct jv *loop_attribute(struct jr *r, const struct jv *loop, const char *name)
{
    const long long n = (long long)loop->self->n, k = loop->i, depth = (long long)loop->n;
    const struct {
        const char *name;
        long long i;
    } numbers[] = {{"index", k + 1},         {"index0", k}, {"revindex", n - k},
                   {"revindex0", n - k - 1}, {"length", n}, {"depth", depth},
                   {"depth0", depth - 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(name, numbers[i].name) == 0)
            return jv_int(r, numbers[i].i);
    if (strcmp(name, "first") == 0)
        return jv_bool(r, k == 0);
    if (strcmp(name, "last") == 0)
        return jv_bool(r, k == n - 1);
    if (strcmp(name, "previtem") == 0 && k > 0)
        return loop->self->v[k - 1];
    if (strcmp(name, "nextitem") == 0 && k + 1 < n)
        return loop->self->v[k + 1];
    return &jv_undefined;
}

/* What has members by name, as a namespace, a dict, or one of groupby's pairs. */
static struct jv *named_member(struct jr *r, const struct jv *v, const char *name)
{
    const struct jv key = {.kind = JV_STRING, .s = name, .n = strlen(name)};
    if (v->kind == JV_DICT || v->kind == JV_NAMESPACE)
        return jv_member(r, v, &key);
    for (size_t i = 0; v->kind == JV_TUPLE && i < v->n; i++)
        if (v->keys[i] && jv_equal(r, v->keys[i], &key))
            return v->v[i];
    return NULL;
}

/* Whether Python's value has an attribute that is not there here. */
static bool has_more(const struct jv *v, const char *name)
{
    static const char *const of_numbers[] = {
        "real",      "imag",       "numerator",        "denominator", "bit_length",
        "bit_count", "conjugate",  "as_integer_ratio", "is_integer",  "hex",
        "to_bytes",  "from_bytes", "fromhex"};
    for (size_t i = 0; jv_is_number(v) && i < sizeof of_numbers / sizeof *of_numbers; i++)
        if (strcmp(name, of_numbers[i]) == 0)
            return true;
    return v->kind == JV_VIEW || v->kind == JV_ITERATOR || v->kind == JV_MACRO;
}

struct jv *jv_attribute(struct jr *r, const struct jn *at, struct jv *v, const char *name)
{
    const struct jv_builtin *methods = v->kind == JV_STRING  ? jv_text_methods
                                       : v->kind == JV_DICT  ? jv_dict_methods
                                       : v->kind == JV_LOOP  ? jv_loop_methods
                                       : v->kind == JV_LIST  ? jv_list_methods
                                       : v->kind == JV_TUPLE ? jv_tuple_methods
                                                             : NULL;
    const struct jv_builtin *method = methods ? jv_find(methods, name) : NULL;
    if (v->kind == JV_UNDEFINED)
        return jr_fail(r, at, "'%s' is asked of something undefined", name);
    if (method && method->which == JV_UNSAFE) /* Jinja's sandbox hides what would change them */
        return &jv_undefined;
    if (method) {
        struct jv *m = jv_new(r, JV_METHOD);
        m->builtin = method;
        m->self = v;
        return m;
    }
    if (v->kind == JV_LOOP)
        return loop_attribute(r, v, name);
    struct jv *found = named_member(r, v, name);
    return found ? found
           : has_more(v, name)
               ? jr_fail(r, at, "'%s' of a %s is not supported", name, jv_kind_name(v))
               : &jv_undefined;
}

/* Character i of a text, from its end if i is negative. */
static struct jv *character(struct jr *r, const struct jv *v, long long i)
{
    size_t at = i < 0 ? v->n : 0;
    if (i >= (long long)v->n || i < -(long long)v->n)
        return &jv_undefined;
    for (; i > 0 && at < v->n; i--, r->work += 3)
        at += (size_t)ft_char_length(v->s[at]);
    for (; i < 0; i++, r->work += 3) {
        if (at == 0)
            return &jv_undefined;
        at--;
        while (at > 0 && ((unsigned char)v->s[at] & 0xc0) == 0x80)
            at--;
    }
    return at < v->n ? jv_text(r, v->s + at, (size_t)ft_char_length(v->s[at])) : &jv_undefined;
}

struct jv *jv_item(struct jr *r, const struct jn *at, struct jv *v, struct jv *key)
{
    const bool number = key->kind == JV_INT || key->kind == JV_BOOL;
    if (v->kind == JV_UNDEFINED)
        return jr_fail(r, at, "something undefined is indexed");
    if (v->kind == JV_DICT) {
        struct jv *found = jv_member(r, v, key);
        if (found)
            return found;
    }
    if (v->kind == JV_STRING && number)
        return jv_check_safe(r, at, v) ? character(r, v, key->i) : &jv_undefined;
    if ((jv_is_list(v) || jv_is_range(v)) && number) {
        const long long n = (long long)v->n, i = key->i < 0 ? key->i + n : key->i;
        return i >= 0 && i < n ? v->v[i] : &jv_undefined;
    }
    return key->kind == JV_STRING ? jv_attribute(r, at, v, jv_name(key)) : &jv_undefined;
}

/* i + step, or the number of its direction that ends every loop. */
static long long stepped(long long i, long long step)
{
    long long next;
    if (!__builtin_add_overflow(i, step, &next))
        return next;
    return step > 0 ? INT64_MAX : INT64_MIN;
}

/* Where Python's slice of n members begins and ends, and its step. */
static bool find_bounds(struct jr *r, const struct jn *at, long long n, struct jv *const part[3],
                        long long bound[3])
{
    bool given[3] = {false, false, false};
    bound[2] = 1;
    for (int i = 0; i < 3; i++) {
        if (!part[i] || part[i]->kind == JV_NONE)
            continue;
        if (part[i]->kind != JV_INT && part[i]->kind != JV_BOOL)
            jr_fail(r, at, "a slice needs whole numbers");
        bound[i] = part[i]->i;
        given[i] = true;
    }
    const bool back = bound[2] < 0;
    if (bound[2] == 0)
        jr_fail(r, at, "a slice's step is 0");
    for (int i = 0; i < 2; i++) {
        const long long low = back ? -1 : 0, high = back ? n - 1 : n;
        if (!given[i])
            bound[i] = (i == 0) == back ? high : low;
        else if (bound[i] < 0)
            bound[i] += n;
        bound[i] = bound[i] < low ? low : bound[i] > high ? high : bound[i];
    }
    return !r->rc;
}

static struct jv *slice_text(struct jr *r, const struct jn *at, const struct jv *v,
                             struct jv *const part[3])
{
    const size_t n = jv_characters(r, v);
    size_t *places = NULL, k = 0;
    struct ft_bytes text = {0};
    long long bound[3];
    if (!find_bounds(r, at, (long long)n, part, bound))
        return &jv_undefined;
    if (ft_alloc(&places, n + 1, sizeof *places)) {
        r->rc = FT_ERESOURCE;
        return &jv_undefined;
    }
    for (size_t i = 0; i < v->n; i += (size_t)ft_char_length(v->s[i]))
        places[k++] = i;
    places[n] = v->n;
    if (bound[2] == 1 && bound[0] < bound[1])
        jr_put(r, &text, v->s + places[bound[0]], places[bound[1]] - places[bound[0]]);
    else
        for (long long i = bound[0]; bound[2] > 0 ? i < bound[1] : i > bound[1];
             i = stepped(i, bound[2]))
            jr_put(r, &text, v->s + places[i], places[i + 1] - places[i]);
    ft_free(places);
    return jv_taken(r, &text);
}

struct jv *jv_slice(struct jr *r, const struct jn *at, struct jv *v, struct jv *const part[3])
{
    long long bound[3];
    if (v->kind == JV_STRING)
        return jv_check_safe(r, at, v) ? slice_text(r, at, v, part) : &jv_undefined;
    if (!jv_is_list(v) && !jv_is_range(v))
        return jr_fail(r, at, "a slice of a %s", v->kind == JV_VIEW ? v->s : jv_kind_name(v));
    struct jv *out = jv_is_range(v) ? jv_view(r, v->s) : jv_new(r, v->kind);
    if (!find_bounds(r, at, (long long)v->n, part, bound))
        return &jv_undefined;
    for (long long i = bound[0]; bound[2] > 0 ? i < bound[1] : i > bound[1];
         i = stepped(i, bound[2]))
        jv_add(r, out, v->v[i]);
    return out;
}
