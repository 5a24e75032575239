/* The words of a command line. */
#include "cli/cli.h"

#include "train/job.h"

#include <stdlib.h>
#include <string.h>

bool ft_take_flag(int *n, char **words, const char *flag)
{
    for (int i = 0; i < *n; i++)
        if (strcmp(words[i], flag) == 0) {
            memmove(&words[i], &words[i + 1], (size_t)(*n - i - 1) * sizeof *words);
            --*n;
            return true;
        }
    return false;
}

/* The text of "flag TEXT" or "flag=TEXT", removed; NULL if it is not there. */
static const char *take(int *n, char **words, const char *flag)
{
    const size_t length = strlen(flag);
    for (int i = 0; i < *n; i++) {
        if (strncmp(words[i], flag, length) != 0 || (words[i][length] && words[i][length] != '='))
            continue;
        const int taken = words[i][length] || i + 1 == *n ? 1 : 2;
        const char *text = words[i][length] ? words[i] + length + 1
                           : taken == 2     ? words[i + 1]
                                            : "";
        memmove(&words[i], &words[i + taken], (size_t)(*n - i - taken) * sizeof *words);
        *n -= taken;
        return text;
    }
    return NULL;
}

int ft_take_text(const struct ft_command *self, int *n, char **words, const char *flag,
                 const char **out)
{
    const char *text = take(n, words, flag);
    if (text && !*text)
        return ft_fail(FT_ECONFIG, "'%s' of 'ft %s' needs a text behind it", flag, self->name);
    *out = text ? text : *out;
    return FT_OK;
}

int ft_take_number(const struct ft_command *self, int *n, char **words, const char *flag,
                   int64_t *out)
{
    const char *text = take(n, words, flag);
    char *end;
    if (!text)
        return FT_OK;
    const long long v = strtoll(text, &end, 10);
    if (end == text || *end || v < 1)
        return ft_fail(FT_ECONFIG, "'%s' of 'ft %s' needs a whole number from 1, not '%s'", flag,
                       self->name, text);
    *out = v;
    return FT_OK;
}

/* "--max_steps 1": the line to type instead. */
static void hint_option(const struct ft_command *self, const char *flag, const char *next)
{
    char key[128];
    const char *value = strchr(flag, '=');
    const char *name = flag + strspn(flag, "-");
    snprintf(key, sizeof key, "%.*s", (int)strcspn(name, "="), name);
    for (char *p = key; *p; p++)
        *p = *p == '-' ? '_' : *p;
    const char *known = ft_config_option(key);
    if (value)
        value++;
    else if (next && next[0] != '-' && !strchr(next, '='))
        value = next;
    if (known && strchr(self->arguments, '='))
        ft_hint("options of the config are written without dashes: ft %s CONFIG.yaml %s=%s",
                self->name, known, value ? value : "VALUE");
    else
        ft_hint("see 'ft %s --help'; options of the config are written key=value", self->name);
}

int ft_refuse_flags(const struct ft_command *self, int n, char **words)
{
    for (int i = 0; i < n; i++)
        if (words[i][0] == '-' && words[i][1]) {
            ft_fail(FT_ECONFIG, "'%s' is not a flag of 'ft %s'", words[i], self->name);
            hint_option(self, words[i], i + 1 < n ? words[i + 1] : NULL);
            return FT_ECONFIG;
        }
    return FT_OK;
}

int ft_config_words(const struct ft_command *self, int n, char **words, const char **path)
{
    *path = NULL;
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n == 0) {
        ft_fail(FT_ECONFIG, "'ft %s' needs a config file", self->name);
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    /* a first word with a "/" before its "=" is a path: runs/lr=1e-4/config.yaml */
    if (strcspn(words[0], "/") <= strcspn(words[0], "="))
        *path = words[0];
    return FT_OK;
}

int ft_read_config_words(struct ft_config *c, const struct ft_command *self, int n, char **words)
{
    const char *path;
    *c = (struct ft_config){0};
    FT_TRY(ft_config_words(self, n, words, &path));
    const int first = path ? 1 : 0;
    return ft_config_read(c, path, (const char *const *)words + first, n - first);
}

void ft_put_shell_word(FILE *out, const char *text)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=,+:@%-";
    if (text[0] && text[strspn(text, plain)] == 0) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", out);
        else
            fputc(*text, out);
    fputc('\'', out);
}

const char *ft_bytes_text(char *out, double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 999.5 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(out, 32, u == 0 ? "%.0f %s" : bytes < 9.95 ? "%.2f %s" : "%.1f %s", bytes, units[u]);
    return out;
}

void ft_print_profile(FILE *out, const struct ft_profile *p)
{
    double total = 0;
    for (int i = 0; i < FT_OP_COUNT; i++)
        total += p->seconds[i];
    fprintf(out, "\n%-14s %9s %7s %8s %9s %9s\n", "op", "seconds", "share", "runs", "GFLOP/s",
            "GB/s");
    for (int i = 0; i < FT_OP_COUNT; i++)
        if (p->runs[i])
            fprintf(out, "%-14s %9.3f %6.1f%% %8lld %9.1f %9.1f\n", ft_op_rows[i].name,
                    p->seconds[i], 100 * p->seconds[i] / total, (long long)p->runs[i],
                    p->flops[i] / p->seconds[i] * 1e-9, p->bytes[i] / p->seconds[i] * 1e-9);
}
