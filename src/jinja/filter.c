/* Filters. */
#define _GNU_SOURCE
#include "jinja/run.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* --- arguments --- */

static bool is_given(const struct jv *v)
{
    return v && v->kind != JV_NONE;
}

static bool yes(const struct jv *v)
{
    return v && jv_truth(v);
}

static struct jv *text_of(const struct jv_call *c, struct jv *v)
{
    return jv_text_of(c->r, c->at, v);
}

static long long number(const struct jv_call *c, int i, long long otherwise)
{
    if (!c->arg[i])
        return otherwise;
    if (c->arg[i]->kind != JV_INT && c->arg[i]->kind != JV_BOOL)
        jr_fail(c->r, c->at, "'%s' needs a whole number, not %s", c->of->name,
                jv_kind_name(c->arg[i]));
    return c->arg[i]->i;
}

/* A value under "a.b.0": from inside to inside; otherwise (may be NULL): for what is not there.
 * name NULL or None: the value itself. */
static struct jv *path_or(const struct jv_call *c, struct jv *v, struct jv *name,
                          struct jv *otherwise)
{
    if (!is_given(name))
        return v;
    if (name->kind != JV_STRING) {
        v = jv_item(c->r, c->at, v, name);
        return v->kind == JV_UNDEFINED && otherwise ? otherwise : v;
    }
    for (const char *p = name->s, *end = p + name->n; p <= end && !c->r->rc;) {
        const char *dot = memchr(p, '.', (size_t)(end - p));
        const size_t n = (size_t)((dot ? dot : end) - p);
        const bool digits = n > 0 && n < 10 && strspn(p, "0123456789") >= n;
        v = jv_item(c->r, c->at, v, digits ? jv_int(c->r, atoll(p)) : jv_text(c->r, p, n));
        v = v->kind == JV_UNDEFINED && otherwise ? otherwise : v;
        p += n + 1;
    }
    return v;
}

static struct jv *path(const struct jv_call *c, struct jv *v, struct jv *name)
{
    return path_or(c, v, name, NULL);
}

/* What values are ordered by. */
static struct jv *folded(const struct jv_call *c, struct jv *v, bool fold)
{
    return fold && v->kind == JV_STRING ? jv_letters(c->r, v, JV_LOWER) : v;
}

/* --- of any value --- */

static struct jv *otherwise(const struct jv_call *c)
{
    const bool missing = c->self->kind == JV_UNDEFINED || (yes(c->arg[1]) && !jv_truth(c->self));
    return !missing ? c->self : c->arg[0] ? c->arg[0] : jv_text(c->r, "", 0);
}

static struct jv *length(const struct jv_call *c)
{
    const struct jv *v = c->self;
    if (v->kind == JV_STRING)
        return jv_int(c->r, (long long)jv_characters(c->r, v));
    if (v->kind == JV_LOOP)
        return jv_int(c->r, (long long)v->self->n);
    if (v->kind == JV_UNDEFINED)
        return jv_int(c->r, 0);
    if (!jv_has_members(v) || v->kind == JV_ITERATOR)
        return jr_fail(c->r, c->at, "a value that is %s has no length", jv_kind_name(v));
    return jv_int(c->r, (long long)v->n);
}

static struct jv *string(const struct jv_call *c)
{
    return text_of(c, c->self);
}

/* A text that '+' must not be used on carelessly: Jinja then escapes the other one. */
static struct jv *safe(const struct jv_call *c)
{
    const struct jv *v = text_of(c, c->self);
    struct jv *out = jv_text(c->r, v->s, v->n);
    out->i = JV_SAFE;
    return out;
}

static struct jv *escape(const struct jv_call *c)
{
    static const char special[] = "&<>'\"";
    static const char *const forms[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    const struct jv *v = text_of(c, c->self);
    struct ft_bytes b = {0};
    if (v->i == JV_SAFE)
        return c->self;
    for (size_t i = 0; i < v->n && !c->r->rc; i++) {
        const char *at = memchr(special, v->s[i], sizeof special - 1);
        const char *form = at ? forms[at - special] : v->s + i;
        jr_put(c->r, &b, form, at ? strlen(form) : 1);
    }
    struct jv *out = jv_taken(c->r, &b);
    out->i = JV_SAFE;
    return out;
}

static struct jv *attr(const struct jv_call *c)
{
    if (c->arg[0]->kind != JV_STRING)
        return jr_fail(c->r, c->at, "'attr' needs a name");
    if (c->self->kind == JV_DICT && !jv_find(jv_dict_methods, jv_name(c->arg[0])))
        return &jv_undefined; /* not a dict's members */
    return jv_attribute(c->r, c->at, c->self, jv_name(c->arg[0]));
}

/* --- of numbers --- */

/* Python's float() of a text. */
static bool read_real(const struct jv *text, double *out)
{
    char digits[128], *end;
    size_t n = 0, i = 0, last = text->n;
    while (i < last && isspace((unsigned char)text->s[i]))
        i++;
    while (last > i && isspace((unsigned char)text->s[last - 1]))
        last--;
    for (size_t k = i; k < last; k++) {
        const bool between = text->s[k] == '_' && k > i && isdigit((unsigned char)text->s[k - 1]) &&
                             isdigit((unsigned char)text->s[k + 1]);
        if (n + 1 == sizeof digits || (text->s[k] == '_' && !between))
            return false;
        if (!between)
            digits[n++] = text->s[k];
    }
    digits[n] = 0;
    *out = strtod(digits, &end);
    return n > 0 && end == digits + n && !strpbrk(digits, "xXpP(");
}

static struct jv *to_float(const struct jv_call *c)
{
    double f = jv_real(c->self);
    if (c->self->kind == JV_UNDEFINED)
        return jr_fail(c->r, c->at, "'float' of something undefined");
    if (!jv_is_number(c->self) && (c->self->kind != JV_STRING || !read_real(c->self, &f)))
        return c->arg[0] ? c->arg[0] : jv_float(c->r, 0);
    return jv_float(c->r, f);
}

static struct jv *to_int(const struct jv_call *c)
{
    double f = c->self->f;
    char *end;
    if (c->self->kind == JV_UNDEFINED || (c->self->kind == JV_FLOAT && isinf(f)))
        return jr_fail(c->r, c->at, "'int' of what is no number");
    if (number(c, 1, 10) != 10)
        return jr_fail(c->r, c->at, "'int' of another base than 10 is not supported");
    if (c->self->kind == JV_INT || c->self->kind == JV_BOOL)
        return jv_int(c->r, c->self->i);
    if (c->self->kind == JV_STRING && c->self->n < 19 && c->self->n) {
        const long long i = strtoll(c->self->s, &end, 10);
        if (end == c->self->s + c->self->n)
            return jv_int(c->r, i);
    }
    if ((c->self->kind != JV_FLOAT && (c->self->kind != JV_STRING || !read_real(c->self, &f))) ||
        !isfinite(f))
        return c->arg[0] ? c->arg[0] : jv_int(c->r, 0);
    if (fabs(f) >= 0x1p53)
        return jr_fail(c->r, c->at, "'int' of a number beyond 53 bits is not supported");
    return jv_int(c->r, (long long)f);
}

static struct jv *absolute(const struct jv_call *c)
{
    if (c->self->kind == JV_FLOAT)
        return jv_float(c->r, fabs(c->self->f));
    if (!jv_is_number(c->self) || c->self->i == INT64_MIN)
        return jr_fail(c->r, c->at, "'abs' needs a number, not %s", jv_kind_name(c->self));
    return jv_int(c->r, c->self->i < 0 ? -c->self->i : c->self->i);
}

static struct jv *rounded(const struct jv_call *c)
{
    const long long digits = number(c, 0, 0);
    const struct jv *how = c->arg[1];
    char text[400];
    if (!jv_is_number(c->self) || digits < 0 || digits > 15)
        return jr_fail(c->r, c->at, "'round' of a %s to %lld digits is not supported",
                       jv_kind_name(c->self), digits);
    const double scale = pow(10, (double)digits), x = jv_real(c->self);
    if (how && jv_is(how, "ceil"))
        return jv_float(c->r, ceil(x * scale) / scale + 0.0);
    if (how && jv_is(how, "floor"))
        return jv_float(c->r, floor(x * scale) / scale + 0.0);
    if (how && !jv_is(how, "common"))
        return jr_fail(c->r, c->at, "'round' knows 'common', 'ceil' and 'floor'");
    if (c->self->kind != JV_FLOAT)
        return jv_int(c->r, c->self->i);
    snprintf(text, sizeof text, "%.*f", (int)digits, x);
    return jv_float(c->r, strtod(text, NULL));
}

/* --- of texts --- */

static struct jv *letters(const struct jv_call *c)
{
    return jv_letters(c->r, text_of(c, c->self), (enum jv_letters)c->of->which);
}

/* The bytes of the character at p if words begin behind it. */
static size_t parts_words(const char *p)
{
    int32_t c;
    const size_t n = (size_t)ft_code_point(p, &c);
    return memchr("-({[<", *p, 5) || ft_is_blank(c) ? n : 0;
}

/* Unlike Python's: only what is behind white space, '-' and opening brackets begins a word. */
static struct jv *title(const struct jv_call *c)
{
    const struct jv *v = text_of(c, c->self);
    struct ft_bytes b = {0};
    for (size_t i = 0; i < v->n && !c->r->rc;) {
        size_t end = i + (size_t)ft_char_length(v->s[i]);
        const struct jv *head = jv_text(c->r, v->s + i, end - i);
        i = end;
        if (!parts_words(head->s))
            while (i < v->n && !parts_words(v->s + i))
                i += (size_t)ft_char_length(v->s[i]);
        head = jv_letters(c->r, head, JV_UPPER);
        const struct jv *tail = jv_letters(c->r, jv_text(c->r, v->s + end, i - end), JV_LOWER);
        jr_put(c->r, &b, head->s, head->n);
        jr_put(c->r, &b, tail->s, tail->n);
    }
    return jv_taken(c->r, &b);
}

static struct jv *trim(const struct jv_call *c)
{
    const struct jv *set = is_given(c->arg[0]) ? c->arg[0] : NULL;
    if (set && set->kind != JV_STRING)
        return jr_fail(c->r, c->at, "'trim' needs a text, not %s", jv_kind_name(set));
    return jv_strip(c->r, text_of(c, c->self), set, true, true);
}

static struct jv *replace(const struct jv_call *c)
{
    return jv_replace(c->r, text_of(c, c->self), text_of(c, c->arg[0]), text_of(c, c->arg[1]),
                      is_given(c->arg[2]) ? number(c, 2, -1) : -1);
}

static struct jv *center(const struct jv_call *c)
{
    return jv_pad(c->r, c->at, text_of(c, c->self), number(c, 0, 80), 'c', NULL);
}

static struct jv *indent(const struct jv_call *c)
{
    const bool given = c->arg[0] && c->arg[0]->kind == JV_STRING, blank = yes(c->arg[2]);
    const long long width = given ? 1 : number(c, 0, 4);
    const struct jv *v = c->self;
    struct ft_bytes whole = {0}, b = {0};
    if (v->kind != JV_STRING)
        return jr_fail(c->r, c->at, "'indent' needs a text, not %s", jv_kind_name(v));
    jr_put(c->r, &whole, v->s, v->n);
    jr_put(c->r, &whole, "\n", 1); /* as Jinja: a newline at the end counts */
    const struct jv *lines = jv_lines(c->r, jv_taken(c->r, &whole), false);
    for (size_t i = 0; i < lines->n && !c->r->rc; i++) {
        const struct jv *line = lines->v[i];
        if (i)
            jr_put(c->r, &b, "\n", 1);
        for (long long k = 0; (i ? blank || line->n : yes(c->arg[1])) && k < width && !c->r->rc;
             k++)
            jr_put(c->r, &b, given ? c->arg[0]->s : " ", given ? c->arg[0]->n : 1);
        jr_put(c->r, &b, line->s, line->n);
    }
    return jv_taken(c->r, &b);
}

static struct jv *truncated(const struct jv_call *c)
{
    struct jv *v = c->self;
    const long long most = number(c, 0, 255), leeway = is_given(c->arg[3]) ? number(c, 3, 5) : 5;
    const struct jv *end = c->arg[2] ? text_of(c, c->arg[2]) : jv_text(c->r, "...", 3);
    if (v->kind == JV_UNDEFINED)
        return v;
    if (v->kind != JV_STRING)
        return jr_fail(c->r, c->at, "'truncate' needs a text, not %s", jv_kind_name(v));
    const long long tail = (long long)jv_characters(c->r, end),
                    n = (long long)jv_characters(c->r, v);
    if (most < tail || leeway < 0)
        return jr_fail(c->r, c->at, "'truncate' to %lld characters", most);
    if (n - leeway <= most)
        return v;
    size_t cut = 0;
    for (long long i = 0; i < most - tail; i++)
        cut += (size_t)ft_char_length(v->s[cut]);
    const char *space = yes(c->arg[1]) ? NULL : memrchr(v->s, ' ', cut);
    struct ft_bytes b = {0};
    jr_put(c->r, &b, v->s, space ? (size_t)(space - v->s) : cut);
    jr_put(c->r, &b, end->s, end->n);
    return jv_taken(c->r, &b);
}

static struct jv *format(const struct jv_call *c)
{
    struct jv *values = jv_new(c->r, JV_TUPLE);
    if (c->all->n_named)
        return jr_fail(c->r, c->at, "'format' with names is not supported");
    for (int i = 0; i < c->all->n; i++)
        jv_add(c->r, values, c->all->v[i]);
    return jv_percent(c->r, c->at, text_of(c, c->self), values);
}

/* --- of lists --- */

static struct jv *members(const struct jv_call *c)
{
    return jv_members(c->r, c->at, c->self);
}

/* A list of its own, to be filled or ordered. */
static struct jv *to_list(const struct jv_call *c)
{
    const struct jv *in = members(c);
    struct jv *l = jv_new(c->r, JV_LIST);
    for (size_t i = 0; i < in->n && !c->r->rc; i++)
        jv_add(c->r, l, in->v[i]);
    return l;
}

static struct jv *join(const struct jv_call *c)
{
    const struct jv *l = members(c), *between = c->arg[0] ? text_of(c, c->arg[0]) : NULL;
    struct ft_bytes b = {0};
    for (size_t i = 0; i < l->n && !c->r->rc; i++) {
        if (i && between)
            jr_put(c->r, &b, between->s, between->n);
        jv_write(c->r, &b, c->at, path(c, l->v[i], c->arg[1]), false);
    }
    return jv_taken(c->r, &b);
}

static struct jv *reverse(const struct jv_call *c)
{
    const struct jv *in = members(c);
    struct jv *l = jv_new(c->r, JV_LIST);
    struct ft_bytes b = {0};
    for (size_t i = in->n; i-- > 0 && !c->r->rc;)
        if (c->self->kind == JV_STRING)
            jr_put(c->r, &b, in->v[i]->s, in->v[i]->n);
        else
            jv_add(c->r, l, in->v[i]);
    if (c->self->kind == JV_STRING)
        return jv_taken(c->r, &b);
    return c->self->kind == JV_ITERATOR ? l : jv_iterator(l);
}

static struct jv *first(const struct jv_call *c)
{
    struct jv *v = c->self;
    if (v->kind == JV_ITERATOR) /* the others stay */
        return (size_t)v->i < v->n ? v->v[v->i++] : &jv_undefined;
    if (v->kind == JV_STRING)
        return jv_item(c->r, c->at, v, jv_int(c->r, 0));
    const struct jv *l = members(c);
    return l->n ? l->v[0] : &jv_undefined;
}

static struct jv *last(const struct jv_call *c)
{
    if (c->self->kind == JV_ITERATOR)
        return jr_fail(c->r, c->at, "'last' needs a list: put '|list' before it");
    if (c->self->kind == JV_STRING)
        return jv_item(c->r, c->at, c->self, jv_int(c->r, -1));
    const struct jv *l = members(c);
    return l->n ? l->v[l->n - 1] : &jv_undefined;
}

static struct jv *unique(const struct jv_call *c)
{
    const struct jv *in = members(c);
    struct jv *l = jv_new(c->r, JV_LIST), *keys = jv_new(c->r, JV_LIST);
    for (size_t i = 0; i < in->n && !c->r->rc; i++) {
        struct jv *key = folded(c, path(c, in->v[i], c->arg[1]), !yes(c->arg[0]));
        bool twice = !jv_check_key(c->r, key);
        for (size_t k = 0; k < keys->n && !twice; k++)
            twice = jv_equal(c->r, keys->v[k], key);
        if (twice)
            continue;
        jv_add(c->r, keys, key);
        jv_add(c->r, l, in->v[i]);
    }
    return jv_iterator(l);
}

/* min, max */
static struct jv *extreme(const struct jv_call *c)
{
    const struct jv *l = members(c);
    struct jv *best = &jv_undefined, *best_key = NULL;
    for (size_t i = 0; i < l->n && !c->r->rc; i++) {
        struct jv *key = folded(c, path(c, l->v[i], c->arg[1]), !yes(c->arg[0]));
        const int order = best_key ? jv_order(c->r, c->at, key, best_key) : 0;
        if (!best_key || (c->of->which ? order > 0 : order < 0)) {
            best = l->v[i];
            best_key = key;
        }
    }
    return best;
}

static struct jv *sum(const struct jv_call *c)
{
    const struct jv *l = members(c);
    struct jv *out = c->arg[1] ? c->arg[1] : jv_int(c->r, 0);
    if (out->kind == JV_STRING)
        return jr_fail(c->r, c->at, "'sum' is not for texts: 'join' is");
    for (size_t i = 0; i < l->n && !c->r->rc; i++)
        out = jv_arithmetic(c->r, c->at, "+", out, path(c, l->v[i], c->arg[0]));
    return out;
}

/* The keys of "a,b.c": a list. */
static struct jv *sort_keys(const struct jv_call *c, struct jv *v, struct jv *names, bool fold)
{
    struct jv *keys = jv_new(c->r, JV_LIST);
    if (!is_given(names) || names->kind != JV_STRING) {
        jv_add(c->r, keys, folded(c, path(c, v, names), fold));
        return keys;
    }
    for (const char *p = names->s, *end = p + names->n; p <= end && !c->r->rc;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const size_t n = (size_t)((comma ? comma : end) - p);
        jv_add(c->r, keys, folded(c, path(c, v, jv_text(c->r, p, n)), fold));
        p += n + 1;
    }
    return keys;
}

/* Orders l by keys, both change; stable, by insertion: lists in templates are short. */
static void sort_by(const struct jv_call *c, struct jv *l, struct jv *keys, bool back)
{
    for (size_t i = 1; i < l->n && !c->r->rc; i++) {
        struct jv *v = l->v[i], *key = keys->v[i];
        size_t k = i;
        for (; k > 0 && !c->r->rc; k--) {
            const int order = jv_order(c->r, c->at, keys->v[k - 1], key);
            if (back ? order >= 0 : order <= 0)
                break;
            l->v[k] = l->v[k - 1];
            keys->v[k] = keys->v[k - 1];
        }
        l->v[k] = v;
        keys->v[k] = key;
        jr_work(c->r, i - k);
    }
}

static struct jv *sort(const struct jv_call *c)
{
    struct jv *l = to_list(c), *keys = jv_new(c->r, JV_LIST);
    for (size_t i = 0; i < l->n && !c->r->rc; i++)
        jv_add(c->r, keys, sort_keys(c, l->v[i], c->arg[2], !yes(c->arg[1])));
    sort_by(c, l, keys, yes(c->arg[0]));
    return l;
}

static struct jv *group_by(const struct jv_call *c)
{
    struct jv *l = to_list(c), *keys = jv_new(c->r, JV_LIST), *out = jv_new(c->r, JV_LIST);
    const bool fold = !yes(c->arg[2]);
    for (size_t i = 0; i < l->n && !c->r->rc; i++) {
        struct jv *key = path(c, l->v[i], c->arg[0]);
        key = key->kind == JV_UNDEFINED && is_given(c->arg[1]) ? c->arg[1] : key;
        jv_add(c->r, keys, folded(c, key, fold));
    }
    sort_by(c, l, keys, false);
    for (size_t i = 0; i < l->n && !c->r->rc;) {
        struct jv *pair = jv_new(c->r, JV_TUPLE), *group = jv_new(c->r, JV_LIST);
        struct jv *key = path(c, l->v[i], c->arg[0]);
        const struct jv *same = keys->v[i];
        for (; i < l->n && jv_equal(c->r, keys->v[i], same); i++)
            jv_add(c->r, group, l->v[i]);
        jv_add(c->r, pair, key->kind == JV_UNDEFINED && is_given(c->arg[1]) ? c->arg[1] : key);
        jv_add(c->r, pair, group);
        if (c->r->rc)
            break;
        pair->keys[0] = jv_text(c->r, "grouper", 7);
        pair->keys[1] = jv_text(c->r, "list", 4);
        jv_add(c->r, out, pair);
    }
    return out;
}

static struct jv *batch(const struct jv_call *c)
{
    const struct jv *in = members(c);
    const long long n = number(c, 0, 0);
    struct jv *l = jv_new(c->r, JV_LIST), *row = NULL;
    if (n < 1)
        return jr_fail(c->r, c->at, "'batch' of %lld", n);
    for (size_t i = 0; i < in->n && !c->r->rc; i++) {
        if (i % (size_t)n == 0 && (row = jv_new(c->r, JV_LIST)))
            jv_add(c->r, l, row);
        jv_add(c->r, row, in->v[i]);
    }
    while (row && is_given(c->arg[1]) && (long long)row->n < n && !c->r->rc)
        jv_add(c->r, row, c->arg[1]);
    for (size_t i = 0; i < l->n; i++) /* filled after they were put there */
        l->depth = l->v[i]->depth >= l->depth ? l->v[i]->depth + 1 : l->depth;
    return jv_iterator(l);
}

static struct jv *slices(const struct jv_call *c)
{
    const struct jv *in = members(c);
    const long long n = number(c, 0, 0), count = (long long)in->n;
    struct jv *l = jv_new(c->r, JV_LIST);
    size_t at = 0;
    if (n < 1)
        return jr_fail(c->r, c->at, "'slice' into %lld", n);
    for (long long i = 0; i < n && !c->r->rc; i++) {
        struct jv *row = jv_new(c->r, JV_LIST);
        const long long take = count / n + (i < count % n);
        for (long long k = 0; k < take; k++)
            jv_add(c->r, row, in->v[at++]);
        if (is_given(c->arg[1]) && i >= count % n)
            jv_add(c->r, row, c->arg[1]);
        jv_add(c->r, l, row);
    }
    return jv_iterator(l);
}

/* --- of dicts --- */

static struct jv *items(const struct jv_call *c)
{
    struct jv *l = jv_new(c->r, JV_LIST);
    if (c->self->kind != JV_DICT && c->self->kind != JV_UNDEFINED)
        return jr_fail(c->r, c->at, "'%s' needs a dict, not %s", c->of->name,
                       jv_kind_name(c->self));
    for (size_t i = 0; i < c->self->n && !c->r->rc; i++)
        jv_add(c->r, l, jv_pair(c->r, c->self->keys[i], c->self->v[i]));
    return c->of->which ? l : jv_iterator(l);
}

static struct jv *sorted_items(const struct jv_call *c)
{
    struct jv *l, *keys = jv_new(c->r, JV_LIST);
    const bool by_value = c->arg[1] && jv_is(c->arg[1], "value");
    if (c->arg[1] && !by_value && !jv_is(c->arg[1], "key"))
        return jr_fail(c->r, c->at, "'dictsort' is by 'key' or by 'value'");
    if (c->self->kind != JV_DICT)
        return jr_fail(c->r, c->at, "'dictsort' needs a dict, not %s", jv_kind_name(c->self));
    l = items(c);
    for (size_t i = 0; i < l->n && !c->r->rc; i++)
        jv_add(c->r, keys, folded(c, l->v[i]->v[by_value], !yes(c->arg[0])));
    sort_by(c, l, keys, yes(c->arg[2]));
    return l;
}

/* --- by names of filters and tests --- */

/* The arguments from number `from` on, for the filter or test that is named before them. */
static struct jv_args rest(const struct jv_args *a, int from)
{
    struct jv_args out = {.names = a->names, .n_named = a->n_named};
    for (int i = from; i < a->n; i++)
        out.v[out.n++] = a->v[i];
    memcpy(out.named, a->named, sizeof out.named);
    return out;
}

/* The row that an argument names. */
static const struct jv_builtin *named(const struct jv_call *c, const struct jv_builtin *rows,
                                      const struct jv *name)
{
    const struct jv_builtin *row = name->kind == JV_STRING ? jv_find(rows, jv_name(name)) : NULL;
    if (!row && name->kind == JV_STRING)
        jr_fail(c->r, c->at, "the %s '%s' is not supported", rows == jv_tests ? "test" : "filter",
                name->s);
    else if (!row)
        jr_fail(c->r, c->at, "'%s' takes a name in quotes here, not a value that is %s",
                c->of->name, jv_kind_name(name));
    return row;
}

static struct jv *map(const struct jv_call *c)
{
    const struct jv_args *a = c->all;
    struct jv *l = jv_new(c->r, JV_LIST), *name = NULL, *missing = NULL;
    if (!jv_truth(c->self))
        return jv_iterator(l);
    const struct jv *in = members(c);
    const struct jv_builtin *row = a->n ? named(c, jv_filters, a->v[0]) : NULL;
    const struct jv_args others = rest(a, 1);
    for (int i = 0; !a->n && i < a->n_named; i++)
        if (strcmp(a->names[i], "attribute") == 0)
            name = a->named[i];
        else if (strcmp(a->names[i], "default") == 0)
            missing = a->named[i];
        else
            jr_fail(c->r, c->at, "'map' has no argument '%s'", a->names[i]);
    if (!a->n && !name)
        jr_fail(c->r, c->at, "'map' needs a filter's name, or an attribute");
    for (size_t i = 0; i < in->n && !c->r->rc; i++) {
        jv_add(c->r, l,
               row ? jv_run(c->r, c->at, row, in->v[i], &others)
                   : path_or(c, in->v[i], name, is_given(missing) ? missing : NULL));
    }
    return jv_iterator(l);
}

enum { SELECT = 1, BY_ATTRIBUTE = 2 };

static struct jv *selected(const struct jv_call *c)
{
    const struct jv_args *a = c->all;
    const int first = c->of->which & BY_ATTRIBUTE ? 1 : 0;
    struct jv *l = jv_new(c->r, JV_LIST);
    if (!jv_truth(c->self))
        return jv_iterator(l);
    if (a->n < first)
        return jr_fail(c->r, c->at, "'%s' needs an attribute", c->of->name);
    const struct jv *in = members(c);
    const struct jv_builtin *row = a->n > first ? named(c, jv_tests, a->v[first]) : NULL;
    const struct jv_args others = rest(a, first + 1);
    for (size_t i = 0; i < in->n && !c->r->rc; i++) {
        struct jv *x = first ? path(c, in->v[i], a->v[0]) : in->v[i];
        if (jv_truth(row ? jv_run(c->r, c->at, row, x, &others) : x) == (c->of->which & SELECT))
            jv_add(c->r, l, in->v[i]);
    }
    return jv_iterator(l);
}

const struct jv_builtin jv_filters[] = {
    {"abs", absolute, "", 0},
    {"attr", attr, "name", 0},
    {"batch", batch, "linecount fill_with=", 0},
    {"capitalize", letters, "", JV_CAPITALIZE},
    {"center", center, "width=", 0},
    {"count", length, "", 0},
    {"d", otherwise, "default_value= boolean=", 0},
    {"default", otherwise, "default_value= boolean=", 0},
    {"dictsort", sorted_items, "case_sensitive= by= reverse=", 1},
    {"e", escape, "", 0},
    {"escape", escape, "", 0},
    {"first", first, "", 0},
    {"float", to_float, "default=", 0},
    {"format", format, "*", 0},
    {"groupby", group_by, "attribute default= case_sensitive=", 0},
    {"indent", indent, "width= first= blank=", 0},
    {"int", to_int, "default= base=", 0},
    {"items", items, "", 0},
    {"join", join, "d= attribute=", 0},
    {"last", last, "", 0},
    {"length", length, "", 0},
    {"list", to_list, "", 0},
    {"lower", letters, "", JV_LOWER},
    {"map", map, "*", 0},
    {"max", extreme, "case_sensitive= attribute=", 1},
    {"min", extreme, "case_sensitive= attribute=", 0},
    {"reject", selected, "*", 0},
    {"rejectattr", selected, "*", BY_ATTRIBUTE},
    {"replace", replace, "old new count=", 0},
    {"reverse", reverse, "", 0},
    {"round", rounded, "precision= method=", 0},
    {"safe", safe, "", 0},
    {"select", selected, "*", SELECT},
    {"selectattr", selected, "*", SELECT | BY_ATTRIBUTE},
    {"slice", slices, "slices fill_with=", 0},
    {"sort", sort, "reverse= case_sensitive= attribute=", 0},
    {"string", string, "", 0},
    {"sum", sum, "attribute= start=", 0},
    {"title", title, "", 0},
    {"tojson", jv_to_json, "ensure_ascii= indent= separators= sort_keys=", 0},
    {"trim", trim, "chars=", 0},
    {"truncate", truncated, "length= killwords= end= leeway=", 0},
    {"unique", unique, "case_sensitive= attribute=", 0},
    {"upper", letters, "", JV_UPPER},
    {"filesizeformat", NULL, "*", 0},
    {"forceescape", NULL, "*", 0},
    {"pprint", NULL, "*", 0},
    {"random", NULL, "*", 0},
    {"striptags", NULL, "*", 0},
    {"urlencode", NULL, "*", 0},
    {"urlize", NULL, "*", 0},
    {"wordcount", NULL, "*", 0},
    {"wordwrap", NULL, "*", 0},
    {"xmlattr", NULL, "*", 0},
    {NULL, NULL, NULL, 0}};
