/* Patterns: a plain text, or a regular expression in Oniguruma's own syntax, which is the engine
 * and the syntax that the tokenizers library uses. */
#define _GNU_SOURCE
#include "text/internal.h"

#include "core/regex.h"

#include <oniguruma.h>

struct ft_pattern_code {
    char *plain;
    regex_t *regex;
};

int ft_pattern_regex(struct ft_pattern_code **out, const char *regex, const struct ft_place *at)
{
    char why[128];
    struct ft_pattern_code *p;
    *out = NULL;
    FT_TRY(ft_alloc(&p, 1, sizeof *p));
    int rc = ft_regex_compile(&p->regex, regex, ONIG_SYNTAX_ONIGURUMA, why);
    if (rc == ONIG_NORMAL) {
        *out = p;
        return FT_OK;
    }
    ft_pattern_close(p);
    return ft_refuse(at, "has a pattern that is not a regular expression: %s", why);
}

bool ft_is_word(int32_t c)
{
    static const char *const properties[] = {"Alphabetic", "M", "Nd", "Pc"};
    static int types[4], ready;
    OnigEncoding utf8 = ONIG_ENCODING_UTF8;
    if (!ready) {
        onig_initialize(&utf8, 1);
        for (int i = 0; i < 4; i++)
            types[i] = ONIG_ENCODING_UTF8->property_name_to_ctype(
                ONIG_ENCODING_UTF8, (OnigUChar *)(uintptr_t)properties[i],
                (OnigUChar *)(uintptr_t)properties[i] + strlen(properties[i]));
        ready = 1;
    }
    bool is = c == 0x200c || c == 0x200d;
    for (int i = 0; i < 4; i++)
        is = is || ONIGENC_IS_CODE_CTYPE(ONIG_ENCODING_UTF8, (OnigCodePoint)c, (unsigned)types[i]);
    return is;
}

int ft_pattern_open(struct ft_pattern_code **out, const json_t *spec, const struct ft_place *at)
{
    const char *plain = json_string_value(json_object_get(spec, "String"));
    const char *regex = json_string_value(json_object_get(spec, "Regex"));
    struct ft_pattern_code *p;
    *out = NULL;
    if (!plain && !regex)
        return ft_refuse(at, "has a pattern that is neither 'String' nor 'Regex'");
    if (regex)
        return ft_pattern_regex(out, regex, at);
    if (!*plain)
        return ft_refuse(at, "has an empty pattern");
    FT_TRY(ft_alloc(&p, 1, sizeof *p));
    p->plain = ft_strdup(plain);
    *out = p;
    return p->plain ? FT_OK : FT_ERESOURCE;
}

void ft_pattern_close(struct ft_pattern_code *p)
{
    if (!p)
        return;
    if (p->regex)
        onig_free(p->regex);
    ft_free(p->plain);
    ft_free(p);
}

/* The next match in text[at, end), if *is there one. */
static int next_match(const struct ft_pattern_code *p, OnigRegion *region, const char *text,
                      size_t begin, size_t at, size_t end, size_t *from, size_t *to, bool *is)
{
    if (p->plain) {
        const size_t n = strlen(p->plain);
        const char *hit = at < end ? memmem(text + at, end - at, p->plain, n) : NULL;
        if (hit) {
            *from = (size_t)(hit - text);
            *to = *from + n;
        }
        *is = hit != NULL;
        return FT_OK;
    }
    const OnigUChar *s = (const OnigUChar *)text;
    int rc = onig_search(p->regex, s + begin, s + end, s + at, s + end, region, ONIG_OPTION_NONE);
    *is = rc >= 0;
    if (rc < 0)
        return rc == ONIG_MISMATCH ? FT_OK : ft_regex_failed(rc, text + at);
    *from = begin + (size_t)region->beg[0];
    *to = begin + (size_t)region->end[0];
    return FT_OK;
}

int ft_pattern_find(const struct ft_pattern_code *p, const char *text, size_t begin, size_t end,
                    struct ft_ranges *out)
{
    size_t at = begin, last = begin, from, to;
    OnigRegion region;
    bool is = true;
    int rc = FT_OK;
    onig_region_init(&region); /* here, so that threads can share the pattern */
    while (!rc && at <= end) {
        rc = next_match(p, &region, text, begin, at, end, &from, &to, &is);
        if (rc || !is)
            break;
        if (from > last)
            rc = ft_ranges_add(out, last, from, false);
        if (to > from && !rc)
            rc = ft_ranges_add(out, from, to, true);
        last = to;
        /* an empty match: go on behind the next character */
        at = to > from ? to : to < end ? to + (size_t)ft_char_length(text[to]) : end + 1;
    }
    onig_region_free(&region, 0);
    return last < end && !rc ? ft_ranges_add(out, last, end, false) : rc;
}

int ft_pattern_replace(const struct ft_pattern_code *p, const char *text, size_t n,
                       const char *content, struct ft_bytes *out)
{
    struct ft_ranges r = {0};
    int rc = ft_pattern_find(p, text, 0, n, &r);
    for (size_t i = 0; i < r.n && !rc; i++) {
        const size_t begin = r.v[i].begin;
        out->at = begin;
        rc = r.v[i].match ? ft_bytes_add(out, content, strlen(content))
                          : ft_bytes_keep(out, text + begin, r.v[i].end - begin, begin);
    }
    ft_free(r.v);
    return rc;
}
