/* Cuts templates into words, and strips what Jinja strips around tags. */
#include "jinja/lex.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Goes on from the last place that was asked for. */
static void place_of(struct parser *p, const char *at, int *line, int *col)
{
    if (!p->placed || at < p->placed) {
        p->placed = p->t->source;
        p->placed_line = p->placed_col = 1;
    }
    for (; p->placed < at; p->placed++) {
        p->placed_col = *p->placed == '\n' ? 1 : p->placed_col + 1;
        p->placed_line += *p->placed == '\n';
    }
    *line = p->placed_line;
    *col = p->placed_col;
}

void jl_fail(struct parser *p, const struct token *at, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (p->rc)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->rc = ft_fail_at((struct ft_where){p->t->name, at->line, at->col}, FT_EDATA, "%s", text);
}

void *jl_take(struct parser *p, size_t n, size_t size)
{
    static _Thread_local long long
        nothing[64]; /* written to once memory has failed; large enough for a node */
    void *v = p->rc == FT_ERESOURCE ? NULL : ft_arena_alloc(&p->t->arena, n, size);
    if (!v)
        p->rc = FT_ERESOURCE;
    return v ? v : nothing;
}

static const char *skip_space(const char *p, const char *end)
{
    size_t n = (size_t)(end - p);
    ft_strip(&p, &n, true, false);
    return p;
}

/* The end of [begin, end) without the white space there. */
static const char *without_space(const char *begin, const char *end)
{
    size_t n = (size_t)(end - begin);
    ft_strip(&begin, &n, false, true);
    return begin + n;
}

/* lstrip_blocks: the end of [begin, end) without the spaces of its last line, if there is nothing
 * else in that line. */
static const char *without_indent(const struct parser *p, const char *begin, const char *end)
{
    const char *line = end;
    while (line > begin && line[-1] != '\n')
        line--;
    if (line == begin && begin > p->t->source && begin[-1] != '\n')
        return end; /* the line began with something else */
    return without_space(line, end) == line ? line : end;
}

/* A run of text up to the next tag, less what the tags around it strip. */
static void text_token(struct parser *p)
{
    const char *begin = p->at, *end = begin, *strip_to;
    while (*end && !(end[0] == '{' && (end[1] == '{' || end[1] == '%' || end[1] == '#')))
        end++;
    p->now = (struct token){.kind = *begin ? T_TEXT : T_END, .p = begin};
    place_of(p, begin, &p->now.line, &p->now.col);
    strip_to = end;
    if (*end && end[2] == '-')
        strip_to = without_space(begin, end);
    else if (*end && end[1] != '{' && end[2] != '+')
        strip_to = without_indent(p, begin, end);
    if (p->strip_next)
        begin = skip_space(begin, strip_to);
    p->strip_next = false;
    p->now.p = begin;
    p->now.n = strip_to > begin ? (size_t)(strip_to - begin) : 0;
    p->at = end;
}

/* Behind a block or a comment one newline goes: trim_blocks. */
static void trim_newline(struct parser *p)
{
    if (p->at[0] == '\r' && p->at[1] == '\n')
        p->at += 2;
    else if (p->at[0] == '\n')
        p->at++;
}

static void skip_comment(struct parser *p)
{
    const char *begin = p->at + 2 + (p->at[2] == '-' || p->at[2] == '+');
    const char *end = strstr(begin, "#}");
    struct token here = {0};
    place_of(p, p->at, &here.line, &here.col);
    if (!end) {
        jl_fail(p, &here, "a comment is not closed");
        p->at += strlen(p->at);
        return;
    }
    p->strip_next = end > begin && end[-1] == '-';
    p->at = end + 2;
    if (!p->strip_next && !(end > begin && end[-1] == '+'))
        trim_newline(p);
}

/* Behind {% word %} at p, with its signs (0 if it has none); NULL: something else is there. */
static const char *behind_tag(const char *p, const char *last, const char *word, char *before,
                              char *after)
{
    *before = p[2] == '-' || p[2] == '+' ? p[2] : 0;
    p += *before ? 3 : 2;
    p = skip_space(p, last);
    if (strncmp(p, word, strlen(word)) != 0)
        return NULL;
    p = skip_space(p + strlen(word), last);
    *after = *p == '-' || *p == '+' ? *p : 0;
    p += *after != 0;
    return strncmp(p, "%}", 2) == 0 ? p + 2 : NULL;
}

/* {% raw %}text{% endraw %}, if it is what is there. */
static bool raw_token(struct parser *p)
{
    char before, after, sign;
    const char *begin = behind_tag(p->at, p->end, "raw", &sign, &after), *end, *behind = NULL;
    struct token here = {.kind = T_TEXT};
    if (!begin || after == '+')
        return false;
    place_of(p, p->at, &here.line, &here.col);
    if (after == '-')
        begin = skip_space(begin, p->end);
    for (end = begin; (end = strstr(end, "{%")); end++)
        if ((behind = behind_tag(end, p->end, "endraw", &before, &after)))
            break;
    if (!behind) {
        jl_fail(p, &here, "this block is not closed: 'endraw' is missing");
        p->at += strlen(p->at);
        p->now = here;
        return true;
    }
    const char *stripped = before == '-'   ? without_space(begin, end)
                           : before == '+' ? end
                                           : without_indent(p, begin, end);
    here.p = begin;
    here.n = (size_t)(stripped - begin);
    p->now = here;
    p->at = behind;
    p->strip_next = after == '-';
    if (!after)
        trim_newline(p);
    return true;
}

/* The character of `digits` hexadecimal digits at p->at, which goes behind them. */
static int32_t hex_character(struct parser *p, const struct token *at, size_t digits)
{
    char hex[9] = {0};
    if (strspn(p->at, "0123456789abcdefABCDEF") < digits) {
        jl_fail(p, at, "an escape needs %zu hexadecimal digits", digits);
        return ' ';
    }
    memcpy(hex, p->at, digits);
    p->at += digits;
    const long c = strtol(hex, NULL, 16);
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        jl_fail(p, at, "'%s' is no character", hex);
        return ' ';
    }
    return (int32_t)c;
}

/* What the escape behind a backslash at p->at stands for, at out, as in Python; its bytes. */
static size_t escaped(struct parser *p, const struct token *at, char *out)
{
    static const char letters[] = "abfnrtv\\'\"", codes[] = "\a\b\f\n\r\t\v\\'\"";
    const char c = *p->at++, *letter = strchr(letters, c);
    if (letter) {
        *out = codes[letter - letters];
        return 1;
    }
    if (c == '\n')
        return 0;
    if (c == 'x' || c == 'u' || c == 'U')
        return (size_t)ft_put_code_point(out, hex_character(p, at,
                                                            c == 'x'   ? 2
                                                            : c == 'u' ? 4
                                                                       : 8));
    if (c >= '0' && c <= '7') {
        int32_t code = c - '0';
        for (int i = 0; i < 2 && *p->at >= '0' && *p->at <= '7'; i++)
            code = 8 * code + *p->at++ - '0';
        return (size_t)ft_put_code_point(out, code);
    }
    if (c == 'N' || (unsigned char)c >= 0x80)
        jl_fail(p, at, "the escape '\\%.*s' is not supported", ft_char_length(c), p->at - 1);
    out[0] = '\\'; /* an unknown one stays */
    out[1] = c;
    return 2;
}

static void string_token(struct parser *p)
{
    const char quote = *p->at++;
    size_t n = 0, length = 0;
    while (p->at[length] && p->at[length] != quote)
        length += p->at[length] == '\\' && p->at[length + 1] ? 2 : 1;
    char *out = jl_take(p, length + 1, 1);
    while (*p->at && *p->at != quote && !p->rc) { /* no escape is shorter than what it stands for */
        if (*p->at == '\\' && p->at[1]) {
            p->at++;
            n += escaped(p, &p->now, out + n);
        } else {
            out[n++] = *p->at++;
        }
    }
    if (*p->at != quote)
        jl_fail(p, &p->now, "a text is not closed");
    else
        p->at++;
    p->now.kind = T_STRING;
    p->now.p = out;
    p->now.n = n;
}

static const char *digits(const char *p)
{
    while (isdigit((unsigned char)*p) || (*p == '_' && isdigit((unsigned char)p[1])))
        p++;
    return p;
}

static void number_token(struct parser *p)
{
    const char *c = p->at, *end;
    const bool member = c > p->t->source && c[-1] == '.'; /* x.0.1 */
    if (*c == '0' && c[1] && strchr("xXoObB", c[1])) {
        end = c + 2;
        while (isxdigit((unsigned char)*end) || *end == '_')
            end++;
    } else {
        end = digits(c);
        if (!member && *end == '.' && isdigit((unsigned char)end[1]))
            end = digits(end + 1);
        if (!member && (*end == 'e' || *end == 'E')) {
            const bool sign = end[1] == '+' || end[1] == '-';
            if (isdigit((unsigned char)end[1 + sign]))
                end = digits(end + 1 + sign);
        }
    }
    p->now.kind = T_NUMBER;
    p->now.n = (size_t)(end - c);
    p->at = end;
}

static void tag_token(struct parser *p)
{
    static const char *const ops[] = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                      "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                      "]",  "{",  "}",  ",",  ".",  ":",  "|", ";"};
    p->at = skip_space(p->at, p->end);
    p->now = (struct token){.p = p->at};
    place_of(p, p->at, &p->now.line, &p->now.col);
    const char *c = p->at, *end = p->block ? "%}" : "}}";
    const bool minus = c[0] == '-' || (c[0] == '+' && p->block);
    if (strncmp(c + minus, end, 2) == 0 && p->depth == 0) {
        p->now.kind = T_CLOSE;
        p->strip_next = c[0] == '-';
        p->at += minus + 2;
        p->in_tag = false;
        if (p->block && c[0] != '-' && c[0] != '+')
            trim_newline(p);
        return;
    }
    if (!*c) {
        jl_fail(p, &p->now, "a tag is not closed");
        return;
    }
    if (isalpha((unsigned char)*c) || *c == '_') {
        while (isalnum((unsigned char)*p->at) || *p->at == '_')
            p->at++;
        p->now.kind = T_NAME;
        p->now.n = (size_t)(p->at - c);
        return;
    }
    if (isdigit((unsigned char)*c)) {
        number_token(p);
        return;
    }
    if (*c == '\'' || *c == '"') {
        string_token(p);
        return;
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strncmp(c, ops[i], strlen(ops[i])) == 0) {
            p->now.kind = T_OP;
            p->now.n = strlen(ops[i]);
            p->at += p->now.n;
            p->depth += strchr("([{", *c) ? 1 : strchr(")]}", *c) ? -1 : 0;
            return;
        }
    jl_fail(p, &p->now, "'%.*s' is not part of any expression", ft_char_length(*c), c);
}

void jl_next(struct parser *p)
{
    if (p->rc) {
        p->now.kind = T_END;
        return;
    }
    if (p->in_tag) {
        tag_token(p);
        return;
    }
    while (p->at[0] == '{' && p->at[1] == '#')
        skip_comment(p);
    if (p->at[0] == '{' && p->at[1] == '%' && raw_token(p))
        return;
    if (p->at[0] == '{' && (p->at[1] == '{' || p->at[1] == '%')) {
        p->block = p->at[1] == '%';
        p->now = (struct token){.kind = p->block ? T_OPEN_BLOCK : T_OPEN_PRINT, .p = p->at};
        place_of(p, p->at, &p->now.line, &p->now.col);
        p->at += 2;
        p->at += *p->at == '-' || *p->at == '+';
        p->in_tag = true;
        p->strip_next = false;
        p->depth = 0;
        return;
    }
    text_token(p);
}
