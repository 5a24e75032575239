/* Which bytes of a text tokens stand for, found from the tokens themselves: a model gives ids
 * alone, so that its words can be kept with nothing but their ids. */
#include "text/internal.h"

#include <stdio.h>

int ft_spans_add(struct ft_spans *s, size_t begin, size_t end)
{
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 256;
        FT_TRY(ft_grow(&s->v, room, sizeof *s->v));
        s->room = room;
    }
    s->v[s->n++] = (struct ft_span){(uint32_t)begin, (uint32_t)end};
    return FT_OK;
}

void ft_spans_free(struct ft_spans *s)
{
    ft_free(s->v);
    *s = (struct ft_spans){0};
}

/* A byte-level token's bytes, if p[0, n) begins with them; else 0. */
static size_t match_bytes(const char *token, const char *p, size_t n)
{
    size_t at = 0;
    while (*token) {
        int32_t c;
        token += ft_code_point(token, &c);
        if (at == n || ft_char_byte(c) != (unsigned char)p[at])
            return 0;
        at++;
    }
    return at;
}

/* How many of the bytes p[0, n) the token stands for if it stands at their beginning; else 0. */
static size_t match(const struct ft_text_model *m, int32_t id, const char *p, size_t n)
{
    const char *token = id >= 0 && id < m->size ? m->tokens[id] : NULL;
    const size_t prefix = strlen(m->prefix), suffix = strlen(m->suffix);
    unsigned byte;
    if (!token || !*token)
        return 0;
    if (m->bytes)
        return match_bytes(token, p, n);
    if (prefix && strncmp(token, m->prefix, prefix) == 0)
        token += prefix;
    size_t length = strlen(token);
    if (suffix && length >= suffix && strcmp(token + length - suffix, m->suffix) == 0)
        length -= suffix;
    if (length && length <= n && memcmp(token, p, length) == 0)
        return length;
    return n && length == 6 && sscanf(token, "<0x%2X>", &byte) == 1 && byte == (unsigned char)p[0];
}

static size_t step(const struct ft_text_model *m, char c)
{
    return m->bytes ? 1 : (size_t)ft_char_length(c);
}

/* What an unknown token at `at` stands for: a character, or all of them up to where the next token
 * stands. */
static size_t unknown(const struct ft_text_model *m, const int32_t *ids, size_t n, const char *p,
                      size_t at, size_t end)
{
    size_t to = at < end ? at + step(m, p[at]) : end;
    if (n > 1 && ids[1] == ids[0])
        return to;
    while (to < end && !(n > 1 && match(m, ids[1], p + to, end - to)))
        to += step(m, p[to]);
    return to < end ? to : end;
}

/* Where what text[begin, to) stands for ends: several bytes may stand for one place. */
static size_t end_of(const struct ft_bytes *text, size_t begin, size_t to)
{
    const size_t last = to > begin ? text->from[to - 1] : ft_bytes_from(text, begin);
    while (to > begin && to < text->n && text->from[to] <= last)
        to++;
    return ft_bytes_from(text, to);
}

int ft_spans_of(const struct ft_text_model *m, const int32_t *ids, size_t n,
                const struct ft_bytes *text, size_t begin, size_t end, struct ft_spans *out)
{
    size_t at = begin;
    for (size_t i = 0; i < n; i++) {
        size_t from = at, length = 0;
        while (ids[i] != m->unknown && from < end &&
               !(length = match(m, ids[i], text->p + from, end - from)))
            from += step(m, text->p[from]); /* over what the model has no token for */
        const size_t to =
            length ? from + length : unknown(m, ids + i, n - i, text->p, from = at, end);
        FT_TRY(ft_spans_add(out, ft_bytes_from(text, from), end_of(text, from, to)));
        at = to;
    }
    return FT_OK;
}
