/* ft config */
#include "cli/cli.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "train/texts.h"

#include <string.h>

/* --- a stage of DVC --- */

static void put_item(const char *path)
{
    json_t *text = json_string(path);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    printf("      - %s", quoted ? quoted : "");
    ft_json_free(quoted);
    json_decref(text);
}

/* What lies on the disk: what is found in the cache has a name that says what it is. */
static int put_need(const struct ft_config *c, const char *path)
{
    if (!path)
        return FT_OK;
    char *found = ft_config_path(c, path);
    if (found && (ft_file_exists(found) || ft_is_folder(found))) {
        put_item(found);
        putchar('\n');
    }
    int rc = found ? FT_OK : FT_ERESOURCE;
    ft_free(found);
    return rc;
}

static int put_needs(const struct ft_config *c, const char *file)
{
    FT_TRY(put_need(c, file));
    FT_TRY(put_need(c, c->base_model));
    FT_TRY(put_need(c, c->lora_model_dir));
    FT_TRY(put_need(c, c->chat_template_jinja));
    for (int i = 0; i < c->n_datasets; i++)
        FT_TRY(put_need(c, c->datasets[i].path));
    for (int i = 0; i < c->n_test_datasets; i++)
        FT_TRY(put_need(c, c->test_datasets[i].path));
    return FT_OK;
}

/* persist: DVC removes what a stage will make, and ft goes on from it. */
static int put_made(const struct ft_config *c, const char *name, bool metrics)
{
    char *path = name ? ft_path_join(c->output_dir, name) : ft_strdup(c->output_dir);
    if (!path)
        return FT_ERESOURCE;
    put_item(path);
    printf(":\n          persist: true\n%s", metrics ? "          cache: false\n" : "");
    ft_free(path);
    return FT_OK;
}

static int print_dvc(const struct ft_config *c, int n, char **words)
{
    printf("stages:\n  train:\n    cmd: >-\n      ft train");
    for (int i = 0; i < n; i++) {
        putchar(' ');
        ft_put_shell_word(stdout, words[i]);
    }
    printf(" overwrite_output_dir=true --quiet\n    deps:\n");
    FT_TRY(put_needs(c, c->folder ? c->file : NULL));
    printf("    outs:\n");
    if (strcmp(c->adapter, "full") == 0)
        return put_made(c, NULL, false);
    FT_TRY(put_made(c, "adapter_model.safetensors", false));
    FT_TRY(put_made(c, "adapter_config.json", false));
    printf("    metrics:\n");
    return put_made(c, "run.json", true);
}

/* --- the command --- */

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
    const bool dump = ft_take_flag(&n, words, "--dump"), dvc = ft_take_flag(&n, words, "--dvc");
    if (dump || dvc) {
        struct ft_config c;
        int rc = ft_read_config_words(&c, self, n, words);
        if (!rc)
            rc = ft_texts_check(&c);
        if (!rc)
            rc = dump ? ft_config_dump(stdout, &c) : print_dvc(&c, n, words);
        ft_config_fini(&c);
        return rc;
    }
    ft_fail(FT_ECONFIG, "'ft config' needs --explain, --schema, --dump or --dvc");
    ft_hint("see 'ft config --help'");
    return FT_ECONFIG;
}
