/* The operators of templates. */
#define _GNU_SOURCE
#include "jinja/run.h"

#include <math.h>
#include <stdio.h>

/* --- order and membership --- */

int jv_order(struct jr *r, const struct jn *at, const struct jv *a, const struct jv *b)
{
    jr_work(r, 16);
    if (jv_is_number(a) && jv_is_number(b)) {
        if (a->kind != JV_FLOAT && b->kind != JV_FLOAT)
            return a->i < b->i ? -1 : a->i > b->i;
        return jv_real(a) < jv_real(b) ? -1 : jv_real(a) > jv_real(b);
    }
    if (a->kind == JV_STRING && b->kind == JV_STRING) {
        const size_t least = a->n < b->n ? a->n : b->n;
        int c = least && jr_work(r, least) ? memcmp(a->s, b->s, least) : 0;
        return c ? c : a->n < b->n ? -1 : a->n > b->n;
    }
    if (jv_is_list(a) && a->kind == b->kind) {
        for (size_t i = 0; i < a->n && i < b->n; i++)
            if (!jv_equal(r, a->v[i], b->v[i]))
                return jv_order(r, at, a->v[i], b->v[i]);
        return a->n < b->n ? -1 : a->n > b->n;
    }
    jr_fail(r, at, "%s and %s have no order", jv_kind_name(a), jv_kind_name(b));
    return 0;
}

static bool contains(struct jr *r, const struct jn *at, struct jv *in, const struct jv *x)
{
    if (in->kind == JV_STRING) {
        if (x->kind != JV_STRING) {
            jr_fail(r, at, "'in' a text needs a text, not %s", jv_kind_name(x));
            return false;
        }
        return x->n == 0 || !jr_work(r, in->n) || memmem(in->s, in->n, x->s, x->n) != NULL;
    }
    if (in->kind == JV_DICT)
        return jv_member(r, in, x) != NULL;
    if (in->kind == JV_ITERATOR) { /* goes up to the one that was looked for */
        while ((size_t)in->i < in->n)
            if (jv_equal(r, in->v[in->i++], x))
                return true;
        return false;
    }
    if (!jv_has_members(in) && in->kind != JV_UNDEFINED)
        jr_fail(r, at, "'in' needs something to look into, not %s", jv_kind_name(in));
    for (size_t i = 0; jv_has_members(in) && i < in->n; i++)
        if (jv_equal(r, in->v[i], x))
            return true;
    return false;
}

bool jv_compare(struct jr *r, const struct jn *at, const char *op, struct jv *a, struct jv *b)
{
    if (strcmp(op, "==") == 0)
        return jv_equal(r, a, b);
    if (strcmp(op, "!=") == 0)
        return !jv_equal(r, a, b);
    if (strcmp(op, "in") == 0)
        return contains(r, at, b, a);
    if (strcmp(op, "not in") == 0)
        return !contains(r, at, b, a);
    const int c = jv_order(r, at, a, b);
    return *op == '<' ? (op[1] ? c <= 0 : c < 0) : (op[1] ? c >= 0 : c > 0);
}

/* --- arithmetic --- */

static struct jv *repeated(struct jr *r, const struct jv *v, long long times)
{
    if (v->kind == JV_STRING) {
        struct ft_bytes out = {0};
        for (long long i = 0; i < times && v->n && !r->rc; i++)
            jr_put(r, &out, v->s, v->n);
        return jv_taken(r, &out);
    }
    struct jv *l = jv_new(r, v->kind);
    for (long long i = 0; i < times && v->n && !r->rc; i++)
        for (size_t k = 0; k < v->n; k++)
            jv_add(r, l, v->v[k]);
    return l;
}

static struct jv *joined(struct jr *r, const struct jv *a, const struct jv *b)
{
    if (a->kind == JV_STRING) {
        struct ft_bytes out = {0};
        jr_put(r, &out, a->s, a->n);
        jr_put(r, &out, b->s, b->n);
        return jv_taken(r, &out);
    }
    struct jv *l = jv_new(r, a->kind);
    for (size_t i = 0; i < a->n + b->n; i++)
        jv_add(r, l, i < a->n ? a->v[i] : b->v[i - a->n]);
    return l;
}

static struct jv *whole_number(struct jr *r, const struct jn *at, const char *op, long long a,
                               long long b)
{
    long long out = 0;
    if (strcmp(op, "**") == 0) {
        const double p = pow((double)a, (double)b);
        return a == 0 && b < 0    ? jr_fail(r, at, "a division by zero")
               : b < 0            ? jv_float(r, p)
               : fabs(p) < 0x1p53 ? jv_int(r, (long long)p)
                                  : jr_fail(r, at, "a power beyond 53 bits");
    }
    const bool too_large = strcmp(op, "+") == 0   ? __builtin_add_overflow(a, b, &out)
                           : strcmp(op, "-") == 0 ? __builtin_sub_overflow(a, b, &out)
                           : strcmp(op, "*") == 0 ? __builtin_mul_overflow(a, b, &out)
                                                  : a == INT64_MIN && b == -1;
    if (too_large)
        return jr_fail(r, at, "a whole number beyond 64 bits");
    if (*op != '/' && *op != '%')
        return jv_int(r, out);
    long long q = a / b, rest = a % b;
    if (rest && (rest < 0) != (b < 0)) { /* rounds down */
        q--;
        rest += b;
    }
    return jv_int(r, *op == '%' ? rest : q);
}

static struct jv *real_number(struct jr *r, const struct jn *at, const char *op, double x, double y)
{
    const bool power = strcmp(op, "**") == 0;
    if (power && ((x < 0 && y != floor(y)) || (x == 0 && y < 0)))
        return jr_fail(r, at, "this power is no number");
    double rest = fmod(x, y);
    rest = rest == 0 ? copysign(0, y) : (rest < 0) != (y < 0) ? rest + y : rest;
    if (power && isinf(pow(x, y)) && isfinite(x) && isfinite(y))
        return jr_fail(r, at, "this power is too large");
    return jv_float(r, power                  ? pow(x, y)
                       : *op == '+'           ? x + y
                       : *op == '-'           ? x - y
                       : *op == '*'           ? x * y
                       : strcmp(op, "/") == 0 ? x / y
                       : strcmp(op, "//") == 0
                           ? x - rest == 0 ? copysign(0, x / y) : rint((x - rest) / y)
                           : rest);
}

/* '+' of a text that is safe and one that is not gives the latter in HTML's notation. */
static bool needs_escape(const struct jv *safe, const struct jv *other)
{
    return safe->kind == JV_STRING && safe->i == JV_SAFE && other->kind == JV_STRING &&
           other->i != JV_SAFE && strcspn(other->s, "&<>'\"") < other->n;
}

struct jv *jv_arithmetic(struct jr *r, const struct jn *at, const char *op, struct jv *a,
                         struct jv *b)
{
    if (strcmp(op, "~") == 0)
        return joined(r, jv_text_of(r, at, a), jv_text_of(r, at, b));
    if (strcmp(op, "+") == 0 && (needs_escape(a, b) || needs_escape(b, a)))
        return jr_fail(r, at, "'+' after '|safe' escapes &, <, >, ' and \": use '~'");
    if (strcmp(op, "+") == 0 && a->kind == b->kind && (a->kind == JV_STRING || jv_is_list(a))) {
        struct jv *both = joined(r, a, b);
        both->i = a->kind == JV_STRING && (a->i == JV_SAFE || b->i == JV_SAFE) ? JV_SAFE : 0;
        return both;
    }
    if (strcmp(op, "+") != 0 && (!jv_check_safe(r, at, a) || !jv_check_safe(r, at, b)))
        return &jv_undefined;
    if (strcmp(op, "*") == 0) {
        const struct jv *v = b->kind == JV_INT || b->kind == JV_BOOL ? a : b, *n = v == a ? b : a;
        if ((v->kind == JV_STRING || jv_is_list(v)) && (n->kind == JV_INT || n->kind == JV_BOOL))
            return repeated(r, v, n->i);
    }
    if (strcmp(op, "%") == 0 && a->kind == JV_STRING)
        return jv_percent(r, at, a, b);
    if (!jv_is_number(a) || !jv_is_number(b))
        return jr_fail(r, at, "'%s' of %s and %s", op, jv_kind_name(a), jv_kind_name(b));
    if ((*op == '/' || *op == '%') && jv_real(b) == 0)
        return jr_fail(r, at, "a division by zero");
    if (a->kind == JV_FLOAT || b->kind == JV_FLOAT || strcmp(op, "/") == 0)
        return real_number(r, at, op, jv_real(a), jv_real(b));
    return whole_number(r, at, op, a->i, b->i);
}

/* --- "%s and %d" % (a, b) --- */

/* One %-conversion at *p, which goes behind it. */
static void convert(struct jr *r, const struct jn *at, struct ft_bytes *b, const char **p,
                    struct jv *v)
{
    char format[32], text[256];
    const char *begin = *p;
    *p += strspn(*p, "-+ 0");
    *p += strspn(*p, "0123456789");
    if (**p == '.')
        *p += 1 + strspn(*p + 1, "0123456789");
    const int n = (int)(*p - begin);
    const char kind = **p;
    *p += kind != 0;
    int written = -1;
    if (kind == 's' && n == 0) {
        jv_write(r, b, at, v, false);
        return;
    }
    if (n < 8 && (kind == 'd' || kind == 'i') && jv_is_number(v) && fabs(jv_real(v)) < 0x1p62) {
        snprintf(format, sizeof format, "%%%.*slld", n, begin);
        written = snprintf(text, sizeof text, format, /* NOLINT: of the checked form */
                           v->kind == JV_FLOAT ? (long long)v->f : v->i);
    } else if (n < 8 && kind && strchr("eEfFgG", kind) && jv_is_number(v)) {
        snprintf(format, sizeof format, "%%%.*s%c", n, begin, kind);
        written = snprintf(text, sizeof text, format, jv_real(v)); /* NOLINT: the same */
    }
    if (written >= 0 && written < (int)sizeof text)
        jr_put(r, b, text, (size_t)written);
    else
        jr_fail(r, at, "'%%%.*s' with a %s is not supported", n < 16 ? n + (kind != 0) : 16, begin,
                jv_kind_name(v));
}

struct jv *jv_percent(struct jr *r, const struct jn *at, const struct jv *format, struct jv *values)
{
    struct ft_bytes b = {0};
    size_t used = 0;
    const bool many = values->kind == JV_TUPLE;
    const char *p = format->s, *const end = p + format->n;
    while (p < end && !r->rc) {
        if (*p != '%') {
            jr_put(r, &b, p++, 1);
            continue;
        }
        p++;
        if (*p == '%') {
            jr_put(r, &b, p++, 1);
        } else if (used == (many ? values->n : 1)) {
            jr_fail(r, at, "more conversions in the text than values");
        } else {
            convert(r, at, &b, &p, many ? values->v[used] : values);
            used++;
        }
    }
    const bool indexed = values->kind == JV_DICT || values->kind == JV_LIST ||
                         values->kind == JV_UNDEFINED || values->kind == JV_VIEW;
    if (used < (many ? values->n : 1) && (many || !indexed))
        jr_fail(r, at, "more values than conversions in the text");
    return jv_taken(r, &b);
}
