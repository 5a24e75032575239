/* Owns the project's use of Oniguruma. */
#include "core/regex.h"

#include "core/mem.h"

#include <oniguruma.h>
#include <stdlib.h>
#include <string.h>

struct ft_regex {
    regex_t *code;
};

int ft_regex_new(struct ft_regex **out, enum ft_code code, const char *prefix, const char *pattern,
                 const char *suffix)
{
    OnigErrorInfo info;
    OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN] = "";
    struct ft_regex *r;
    *out = NULL;
    char *whole = ft_format("\\A(?:%s(?:%s)%s)\\z", prefix, pattern, suffix);
    if (!whole || ft_alloc(&r, 1, sizeof *r)) {
        ft_free(whole);
        return FT_ERESOURCE;
    }
    const OnigUChar *p = (const OnigUChar *)whole;
    OnigEncoding utf8 = ONIG_ENCODING_UTF8;
    onig_initialize(&utf8, 1);
    int rc = onig_new(&r->code, p, p + strlen(whole), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                      ONIG_SYNTAX_PERL_NG, &info);
    ft_free(whole);
    if (rc == ONIG_NORMAL) {
        *out = r;
        return FT_OK;
    }
    ft_free(r);
    onig_error_code_to_str(text, rc, &info);
    return ft_fail(code, "'%s' is not a valid regular expression: %s", pattern, (const char *)text);
}

bool ft_regex_matches_all(const struct ft_regex *r, const char *s)
{
    const OnigUChar *p = (const OnigUChar *)s;
    return onig_match(r->code, p, p + strlen(s), p, NULL, ONIG_OPTION_NONE) >= 0;
}

void ft_regex_free(struct ft_regex *r)
{
    if (!r)
        return;
    onig_free(r->code);
    ft_free(r);
}
