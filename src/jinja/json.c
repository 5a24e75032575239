/* tojson: Python's json.dumps. */
#include "jinja/run.h"

#include <math.h>
#include <stdio.h>

/* How it writes. */
struct style {
    const struct jn *at;
    const struct jv *indent, *between, *colon; /* indent NULL: in one line */
    bool sorted, ascii;
};

/* A character beyond ASCII as \uXXXX, two of them beyond the first plane. */
static void put_escaped(struct jr *r, struct ft_bytes *b, int32_t c)
{
    char text[16];
    if (c < 0x10000)
        jr_put(r, b, text, (size_t)snprintf(text, sizeof text, "\\u%04x", (unsigned)c));
    else
        jr_put(r, b, text,
               (size_t)snprintf(text, sizeof text, "\\u%04x\\u%04x",
                                0xd800 + ((unsigned)(c - 0x10000) >> 10),
                                0xdc00 + ((unsigned)c & 0x3ff)));
}

static void put_text(struct jr *r, struct ft_bytes *b, const struct jv *v, bool ascii)
{
    jr_put(r, b, "\"", 1);
    for (size_t i = 0; i < v->n; i++) {
        int32_t code;
        if (ascii && ((unsigned char)v->s[i] >= 0x80 || v->s[i] == 0x7f)) {
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
            jr_put(r, b, (char[]){'\\', (char)c}, 2);
        else if (short_form)
            jr_put(r, b, short_form, 2);
        else if (c < 0x20)
            jr_put(r, b, text, (size_t)snprintf(text, sizeof text, "\\u%04x", c));
        else
            jr_put(r, b, (const char *)&v->s[i], 1);
    }
    jr_put(r, b, "\"", 1);
}

static void put_real(struct jr *r, struct ft_bytes *b, const struct jn *at, const struct jv *v)
{
    if (v->kind == JV_FLOAT && !isfinite(v->f))
        jr_put(r, b,
               isnan(v->f) ? "NaN"
               : v->f > 0  ? "Infinity"
                           : "-Infinity",
               isnan(v->f) ? 3
               : v->f > 0  ? 8
                           : 9);
    else
        jv_write(r, b, at, v, false);
}

static void put_indent(struct jr *r, struct ft_bytes *b, const struct style *s, int depth)
{
    if (!s->indent)
        return;
    jr_put(r, b, "\n", 1);
    const long long times = s->indent->kind == JV_STRING ? 1 : s->indent->i;
    for (int k = 0; k < depth; k++)
        for (long long i = 0; i < times && !r->rc; i++)
            jr_put(r, b, s->indent->kind == JV_STRING ? s->indent->s : " ",
                   s->indent->kind == JV_STRING ? s->indent->n : 1);
}

static void put_constant(struct jr *r, struct ft_bytes *b, const struct jv *v)
{
    const char *text = v->kind == JV_NONE ? "null" : v->i ? "true" : "false";
    jr_put(r, b, text, strlen(text));
}

/* A key is always a text. */
static void put_key(struct jr *r, struct ft_bytes *b, const struct style *s, const struct jv *v)
{
    if (v->kind == JV_STRING) {
        put_text(r, b, v, s->ascii);
        return;
    }
    jr_put(r, b, "\"", 1);
    if (v->kind == JV_NONE || v->kind == JV_BOOL)
        put_constant(r, b, v);
    else if (jv_is_number(v))
        put_real(r, b, s->at, v);
    else
        jr_fail(r, s->at, "'tojson' cannot write a key that is %s", jv_kind_name(v));
    jr_put(r, b, "\"", 1);
}

/* The dict's members in the order of their keys. */
static void sort_members(struct jr *r, const struct jn *at, const struct jv *v, size_t *order)
{
    for (size_t i = 0; i < v->n && !r->rc; i++) {
        size_t k = i;
        for (; k > 0 && !r->rc && jv_order(r, at, v->keys[order[k - 1]], v->keys[i]) > 0; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
}

static void put_json(struct jr *r, struct ft_bytes *b, const struct style *s, const struct jv *v,
                     int depth);

static void put_members(struct jr *r, struct ft_bytes *b, const struct style *s, const struct jv *v,
                        int depth)
{
    const bool dict = v->kind == JV_DICT;
    size_t *order = dict && s->sorted ? jr_take(r, v->n + 1, sizeof *order) : NULL;
    if (order && !r->rc)
        sort_members(r, s->at, v, order);
    jr_put(r, b, dict ? "{" : "[", 1);
    for (size_t i = 0; i < v->n && !r->rc; i++) {
        const size_t m = order ? order[i] : i;
        if (i && s->between)
            jr_put(r, b, s->between->s, s->between->n);
        else if (i)
            jr_put(r, b, ", ", s->indent ? 1 : 2);
        put_indent(r, b, s, depth + 1);
        if (dict) {
            put_key(r, b, s, v->keys[m]);
            jr_put(r, b, s->colon ? s->colon->s : ": ", s->colon ? s->colon->n : 2);
        }
        put_json(r, b, s, v->v[m], depth + 1);
    }
    if (v->n)
        put_indent(r, b, s, depth);
    jr_put(r, b, dict ? "}" : "]", 1);
}

static void put_json(struct jr *r, struct ft_bytes *b, const struct style *s, const struct jv *v,
                     int depth)
{
    if (v->kind == JV_STRING)
        put_text(r, b, v, s->ascii);
    else if (v->kind == JV_NONE || v->kind == JV_BOOL)
        put_constant(r, b, v);
    else if (jv_is_number(v))
        put_real(r, b, s->at, v);
    else if (jv_is_list(v) || v->kind == JV_DICT)
        put_members(r, b, s, v, depth);
    else
        jr_fail(r, s->at, "'tojson' cannot write a value that is %s", jv_kind_name(v));
}

struct jv *jv_to_json(const struct jv_call *c)
{
    const struct jv *ascii = c->arg[0], *indent = c->arg[1], *between = c->arg[2],
                    *sort = c->arg[3];
    struct style s = {
        .at = c->at, .ascii = ascii && jv_truth(ascii), .sorted = sort && jv_truth(sort)};
    struct ft_bytes b = {0};
    if (indent && (indent->kind == JV_INT || indent->kind == JV_STRING || indent->kind == JV_BOOL))
        s.indent = indent;
    else if (indent && indent->kind != JV_NONE)
        return jr_fail(c->r, c->at, "'tojson' with an indent that is %s", jv_kind_name(indent));
    if (between && jv_is_list(between) && between->n == 2 && between->v[0]->kind == JV_STRING &&
        between->v[1]->kind == JV_STRING) {
        s.between = between->v[0];
        s.colon = between->v[1];
    } else if (between && between->kind != JV_NONE) {
        return jr_fail(c->r, c->at, "the separators of 'tojson' must be two texts");
    }
    put_json(c->r, &b, &s, c->self, 0);
    return jv_taken(c->r, &b);
}
