/* Owns the project's use of Oniguruma. */
#include "core/regex.h"

#include "core/mem.h"

#include <oniguruma.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void end_short_of_memory(int signal)
{
    static const char text[] = "error: out of memory (in a regular expression)\n";
    (void)signal;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(FT_ERESOURCE);
    _exit(FT_ERESOURCE);
}

int ft_regex_compile(regex_t **out, const char *pattern, const void *syntax, char why[128])
{
    static const int deadly[] = {SIGABRT, SIGSEGV, SIGBUS};
    struct sigaction own = {.sa_handler = end_short_of_memory}, before[3];
    const OnigUChar *p = (const OnigUChar *)pattern;
    OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN] = "";
    OnigErrorInfo info;
    OnigEncoding utf8 = ONIG_ENCODING_UTF8;
    for (int i = 0; i < 3; i++)
        sigaction(deadly[i], &own, &before[i]);
    int rc = onig_initialize(&utf8, 1);
    if (rc == ONIG_NORMAL)
        rc = onig_new(out, p, p + strlen(pattern), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                      (OnigSyntaxType *)(uintptr_t)syntax, &info);
    if (rc == ONIGERR_MEMORY) /* the heap may be damaged by now: nothing else may use it */
        end_short_of_memory(0);
    for (int i = 0; i < 3; i++)
        sigaction(deadly[i], &before[i], NULL);
    if (rc != ONIG_NORMAL)
        onig_error_code_to_str(text, rc, &info);
    snprintf(why, 128, "%s", (const char *)text);
    return rc;
}

struct ft_regex {
    regex_t *code;
};

int ft_regex_failed(int result, const char *text)
{
    OnigUChar why[ONIG_MAX_ERROR_MESSAGE_LEN] = "";
    if (result == ONIGERR_MEMORY)
        return ft_short_of_memory();
    onig_error_code_to_str(why, result);
    return ft_fail(FT_EDATA, "a regular expression cannot be matched with '%.40s': %s", text,
                   (const char *)why);
}

int ft_regex_new(struct ft_regex **out, enum ft_code code, const char *prefix, const char *pattern,
                 const char *suffix)
{
    char why[128];
    struct ft_regex *r;
    *out = NULL;
    char *whole = ft_format("\\A(?:%s(?:%s)%s)\\z", prefix, pattern, suffix);
    if (!whole || ft_alloc(&r, 1, sizeof *r)) {
        ft_free(whole);
        return FT_ERESOURCE;
    }
    int rc = ft_regex_compile(&r->code, whole, ONIG_SYNTAX_PERL_NG, why);
    ft_free(whole);
    if (rc == ONIG_NORMAL) {
        *out = r;
        return FT_OK;
    }
    ft_free(r);
    return ft_fail(code, "'%s' is not a valid regular expression: %s", pattern, why);
}

int ft_regex_matches_all(const struct ft_regex *r, const char *s, bool *out)
{
    const OnigUChar *p = (const OnigUChar *)s;
    const int n = onig_match(r->code, p, p + strlen(s), p, NULL, ONIG_OPTION_NONE);
    *out = n >= 0;
    return n >= 0 || n == ONIG_MISMATCH ? FT_OK : ft_regex_failed(n, s);
}

void ft_regex_free(struct ft_regex *r)
{
    if (!r)
        return;
    onig_free(r->code);
    ft_free(r);
}
