/* The values of templates as text: Python's str and repr. */
#include "jinja/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

enum { MOST_TEXT = 1 << 28 };

void jr_put(struct jr *r, struct ft_bytes *b, const char *s, size_t n)
{
    if (!jr_work(r, n + 16))
        return;
    if (b->n + n > MOST_TEXT)
        jr_fail(r, r->at, "the template makes a text of more than %d MB", MOST_TEXT >> 20);
    else if (ft_bytes_add(b, s, n))
        r->rc = FT_ERESOURCE;
}

static void put_string(struct jr *r, struct ft_bytes *b, const char *s)
{
    jr_put(r, b, s, strlen(s));
}

/* The shortest decimals that read back the same. */
static void put_real(struct jr *r, struct ft_bytes *b, double f)
{
    char text[64];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*g", precision, f);
        if (strtod(text, NULL) == f)
            break;
    }
    if (isnan(f))
        snprintf(text, sizeof text, "nan");
    else if (fabs(f) < 1e16 && strchr(text, 'e') && fabs(f) >= 1)
        snprintf(text, sizeof text, "%.0f", f);
    put_string(r, b, text);
    if (!strpbrk(text, ".en"))
        put_string(r, b, ".0");
}

/* What repr writes as it is. */
static bool is_printable(int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    return c == ' ' || (k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS);
}

static void put_quoted(struct jr *r, struct ft_bytes *b, const struct jv *v)
{
    const char quote = memchr(v->s, '\'', v->n) && !memchr(v->s, '"', v->n) ? '"' : '\'';
    char text[16];
    jr_put(r, b, &quote, 1);
    for (size_t i = 0; i < v->n;) {
        int32_t c;
        const size_t n = (size_t)ft_code_point(v->s + i, &c);
        if (c == '\n' || c == '\t' || c == '\r')
            put_string(r, b, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
        else if (c == '\\' || c == quote)
            jr_put(r, b, (char[]){'\\', (char)c}, 2);
        else if (is_printable(c))
            jr_put(r, b, v->s + i, n);
        else
            jr_put(r, b, text,
                   (size_t)snprintf(text, sizeof text,
                                    c < 0x100     ? "\\x%02x"
                                    : c < 0x10000 ? "\\u%04x"
                                                  : "\\U%08x",
                                    (unsigned)c));
        i += n;
    }
    jr_put(r, b, &quote, 1);
}

static void put_members(struct jr *r, struct ft_bytes *b, const struct jn *at, const struct jv *v)
{
    const bool dict = v->kind == JV_DICT, tuple = v->kind == JV_TUPLE;
    put_string(r, b, dict ? "{" : tuple ? "(" : "[");
    for (size_t i = 0; i < v->n && !r->rc; i++) {
        put_string(r, b, i ? ", " : "");
        if (dict) {
            jv_write(r, b, at, v->keys[i], true);
            put_string(r, b, ": ");
        }
        jv_write(r, b, at, v->v[i], true);
    }
    put_string(r, b, dict ? "}" : tuple ? (v->n == 1 ? ",)" : ")") : "]");
}

void jv_write(struct jr *r, struct ft_bytes *b, const struct jn *at, const struct jv *v,
              bool inside)
{
    char text[32];
    switch (v->kind) {
    case JV_UNDEFINED:
        put_string(r, b, inside ? "Undefined" : "");
        break;
    case JV_NONE:
        put_string(r, b, "None");
        break;
    case JV_BOOL:
        put_string(r, b, v->i ? "True" : "False");
        break;
    case JV_INT:
        jr_put(r, b, text, (size_t)snprintf(text, sizeof text, "%lld", v->i));
        break;
    case JV_FLOAT:
        put_real(r, b, v->f);
        break;
    case JV_STRING:
        put_string(r, b, inside && v->i == JV_SAFE ? "Markup(" : "");
        if (inside)
            put_quoted(r, b, v);
        else
            jr_put(r, b, v->s, v->n);
        put_string(r, b, inside && v->i == JV_SAFE ? ")" : "");
        break;
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
        put_members(r, b, at, v);
        break;
    case JV_VIEW:
        if (*v->s == 'd') { /* dict_keys, ... */
            put_string(r, b, v->s);
            put_string(r, b, "(");
            put_members(r, b, at, v);
            put_string(r, b, ")");
            break;
        } /* fall through */
    default:
        jr_fail(r, at, "what is written here is no text but a %s",
                v->kind == JV_VIEW ? v->s : jv_kind_name(v));
    }
}

struct jv *jv_text_of(struct jr *r, const struct jn *at, struct jv *v)
{
    struct ft_bytes b = {0};
    if (v->kind == JV_STRING)
        return v;
    jv_write(r, &b, at, v, false);
    return jv_taken(r, &b);
}
