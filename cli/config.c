/* ft config */
#include "cli/cli.h"

#include "train/texts.h"

int ft_cmd_config(const struct ft_command *self, int n, char **words)
{
    if (ft_take_flag(&n, words, "--schema"))
        return ft_config_schema(stdout);
    if (ft_take_flag(&n, words, "--explain")) {
        int rc = ft_refuse_flags(self, n, words);
        if (!rc && n == 0)
            ft_config_list(stdout);
        for (int i = 0; i < n && !rc; i++) {
            if (i)
                putchar('\n');
            rc = ft_config_explain(stdout, words[i]);
        }
        return rc;
    }
    if (ft_take_flag(&n, words, "--dump")) {
        struct ft_config c;
        int rc = ft_read_config_words(&c, self, n, words);
        if (!rc)
            rc = ft_texts_check(&c);
        if (!rc)
            rc = ft_config_dump(stdout, &c);
        ft_config_fini(&c);
        return rc;
    }
    ft_fail(FT_ECONFIG, "'ft config' needs --explain, --schema or --dump");
    ft_hint("see 'ft config --help'");
    return FT_ECONFIG;
}
