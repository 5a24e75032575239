/* ft man, ft completions: pages and scripts made from the tables of commands and options. */
#include "cli/cli.h"

#include "config/options.h"
#include "core/text.h"

#include <string.h>

/* --- the manual page --- */

/* Text as roff takes it: no line may begin a request, backslashes are doubled, hyphens stay such.
 */
static void put_roff(FILE *out, const char *text)
{
    for (bool begins = true; *text; text++) {
        if (begins && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
        begins = *text == '\n';
    }
}

static void put_command(FILE *out, const struct ft_command *c)
{
    fputs(".SS ft ", out);
    put_roff(out, c->name);
    fputc(' ', out);
    put_roff(out, c->arguments);
    fputs("\n.nf\n", out);
    put_roff(out, c->help);
    fputs(".fi\n", out);
}

static void put_option(FILE *out, const struct ft_option *o)
{
    fputs(".TP\n.B ", out);
    put_roff(out, o->key);
    fputc('\n', out);
    put_roff(out, o->help);
    for (const struct ft_choice *k = o->choices; k && k->name; k++) {
        fputs(k == o->choices ? " One of " : ", ", out);
        put_roff(out, k->name);
    }
    if (o->choices)
        fputc('.', out);
    if (o->fallback) {
        fputs(" Default: ", out);
        put_roff(out, o->fallback);
        fputc('.', out);
    }
    fputc('\n', out);
}

int ft_cmd_man(const struct ft_command *self, int n, char **words)
{
    FT_TRY(ft_refuse_flags(self, n, words));
    fputs(".TH FT 1 \"\" \"ft " FT_VERSION
          "\"\n.SH NAME\nft \\- fine\\-tunes open\\-weight language "
          "models with low\\-rank adapters\n.SH SYNOPSIS\n.B ft\n.I COMMAND\n[...]\n.SH COMMANDS\n",
          stdout);
    for (const struct ft_command *c = ft_commands; c->name; c++)
        put_command(stdout, c);
    fputs(".SH CONFIG\nThe keys of a config file; each may also stand behind it, as KEY=VALUE.\n",
          stdout);
    const char *group = "";
    for (int i = 0; i < ft_option_count; i++) {
        if (strcmp(group, ft_options[i].group) != 0)
            fprintf(stdout, ".SS %s\n", ft_options[i].group);
        group = ft_options[i].group;
        put_option(stdout, &ft_options[i]);
    }
    fputs(".SH EXIT STATUS\n", stdout);
    put_roff(stdout, ft_exit_codes);
    return FT_OK;
}

/* --- completions --- */

/* Calls put for each flag of a command: the first words of its help's lines that begin so. */
static void each_flag(const struct ft_command *c, void (*put)(const char *flag, int n))
{
    for (const char *line = c->help; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "  -", 3) == 0)
            put(line + 2, (int)strcspn(line + 2, " \n"));
    }
}

static void put_word(const char *word, int n)
{
    printf(" %.*s", n, word);
}

static void put_keys(void)
{
    for (int i = 0; i < ft_option_count; i++)
        printf(" %s=", ft_options[i].key);
}

static void bash(void)
{
    printf("_ft() {\n    local word=${COMP_WORDS[COMP_CWORD]} words=\n"
           "    if [ \"$COMP_CWORD\" = 1 ]; then\n        words=\"");
    for (const struct ft_command *c = ft_commands; c->name; c++)
        put_word(c->name, (int)strlen(c->name));
    printf("\"\n    else\n        case ${COMP_WORDS[1]} in\n");
    for (const struct ft_command *c = ft_commands; c->name; c++) {
        printf("        %s) words=\" --help", c->name);
        each_flag(c, put_word);
        if (strstr(c->arguments, "KEY=VALUE"))
            printf("$_ft_keys");
        printf("\" ;;\n");
    }
    printf("        esac\n    fi\n"
           "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\"; compgen -f -- "
           "\"$word\")\n"
           "    [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace\n}\n_ft_keys=\"");
    put_keys();
    printf("\"\ncomplete -o filenames -F _ft ft\n");
}

static void zsh(void)
{
    printf("#compdef ft\n_ft() {\n    local -a commands keys\n    local command=$words[2]\n    "
           "keys=(");
    put_keys();
    printf(")\n    if (( CURRENT == 2 )); then\n        commands=(");
    for (const struct ft_command *c = ft_commands; c->name; c++)
        printf(" '%s:%s'", c->name, c->summary);
    printf(")\n        _describe command commands\n        return\n    fi\n"
           "    case $command in\n");
    for (const struct ft_command *c = ft_commands; c->name; c++) {
        printf("    %s) compadd -- --help", c->name);
        each_flag(c, put_word);
        if (strstr(c->arguments, "KEY=VALUE"))
            printf("; compadd -S '' -- $keys");
        printf(" ;;\n");
    }
    printf("    esac\n    _files\n}\n_ft \"$@\"\n");
}

static const struct ft_command *completed;

static void put_fish(const char *flag, int n)
{
    const bool is_long = strncmp(flag, "--", 2) == 0;
    printf("complete -c ft -n '__fish_seen_subcommand_from %s' -%c %.*s\n", completed->name,
           is_long ? 'l' : 's', n - 1 - is_long, flag + 1 + is_long);
}

static void fish(void)
{
    for (const struct ft_command *c = ft_commands; c->name; c++) {
        printf("complete -c ft -n __fish_use_subcommand -f -a %s -d '%s'\n", c->name, c->summary);
        completed = c;
        each_flag(c, put_fish);
    }
    printf("complete -c ft -n 'not __fish_use_subcommand' -a '");
    put_keys();
    printf("'\n");
}

int ft_cmd_completions(const struct ft_command *self, int n, char **words)
{
    static const struct {
        const char *shell;
        void (*print)(void);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    FT_TRY(ft_refuse_flags(self, n, words));
    for (size_t i = 0; n == 1 && i < sizeof shells / sizeof *shells; i++)
        if (strcmp(words[0], shells[i].shell) == 0) {
            shells[i].print();
            return FT_OK;
        }
    ft_fail(FT_ECONFIG, "'ft completions' needs bash, zsh or fish");
    return FT_ECONFIG;
}
