/* The adapter of a job: a fresh one, or one that is continued, checked against the config. */
#include "train/internal.h"

#include "core/mem.h"

#include <stdio.h>
#include <string.h>

static void adapter_options(const struct ft_job *j, struct ft_adapter_options *o)
{
    const struct ft_config *c = j->config;
    _Static_assert(sizeof(struct ft_pattern) == sizeof(struct ft_pattern_config), "same layout");
    *o = (struct ft_adapter_options){
        .method = c->peft_use_dora ? "dora" : c->adapter,
        .r = c->lora_r,
        .alpha = c->lora_alpha,
        .dropout = c->lora_dropout,
        .rslora = c->peft_use_rslora,
        .loraplus_ratio = c->loraplus_lr_ratio,
        .targets = c->lora_target_modules,
        .target_regex = c->lora_target_regex,
        .target_linear = c->lora_target_linear,
        .rank_pattern = (const struct ft_pattern *)c->lora_rank_pattern,
        .alpha_pattern = (const struct ft_pattern *)c->lora_alpha_pattern,
        .layers = c->peft_layers_to_transform,
        .seed = (uint64_t)c->seed,
        .wholes = j->wholes,
        .n_wholes = j->n_wholes,
        .saved_modules = (const char *const *)j->saved_modules,
    };
}

/* The numbers that the config gives against those of the adapter that is continued. */
static int check_numbers(const struct ft_job *j, const struct ft_adapter_options *is)
{
    const struct ft_config *c = j->config;
    const struct {
        const char *key;
        double asked, is;
    } same[] = {{"lora_r", (double)c->lora_r, (double)is->r},
                {"lora_alpha", c->lora_alpha, is->alpha},
                {"lora_dropout", c->lora_dropout, is->dropout},
                {"peft_use_rslora", c->peft_use_rslora, is->rslora},
                {"peft_use_dora", c->peft_use_dora, strcmp(is->method, "dora") == 0}};
    int rc = FT_OK;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (ft_config_is_set(c, same[i].key) && same[i].asked != same[i].is) {
            rc = ft_fail_at(ft_config_where(c, same[i].key), FT_ECONFIG,
                            "'%s' is %g, the adapter in 'lora_model_dir' has %g", same[i].key,
                            same[i].asked, same[i].is);
            ft_hint("remove the key: the adapter's own value is used");
        }
    return rc;
}

/* The modules and patterns, by choosing them afresh as the config asks. */
static int check_modules(const struct ft_job *j, const struct ft_site *sites, int n,
                         const struct ft_adapter_options *is)
{
    const struct ft_config *c = j->config;
    bool targets = ft_config_is_set(c, "lora_target_modules") ||
                   (ft_config_is_set(c, "lora_target_linear") && c->lora_target_linear);
    bool patterns =
        ft_config_is_set(c, "lora_rank_pattern") || ft_config_is_set(c, "lora_alpha_pattern");
    struct ft_adapter_options o;
    struct ft_adapter *wanted;
    if (!targets)
        return FT_OK;
    adapter_options(j, &o);
    o.r = is->r;
    o.alpha = is->alpha;
    FT_TRY(ft_adapter_new(&wanted, sites, n, &o));
    const char *name = ft_adapter_difference(j->adapter, wanted, patterns);
    int rc = FT_OK;
    if (name) {
        rc = ft_fail_at(ft_config_where(c, "lora_model_dir"), FT_ECONFIG,
                        "the config's lora_ keys contradict the adapter in 'lora_model_dir', for "
                        "example at '%s'",
                        name);
        ft_hint("remove lora_target_modules, lora_target_linear and the patterns: the adapter says "
                "which modules it has");
    }
    ft_adapter_free(wanted);
    return rc;
}

/* The adapter's base by its name, however it was reached. */
static void compare_base(const struct ft_job *j)
{
    const char *said = ft_adapter_base(j->adapter), *own = j->config->base_model;
    const char *a = said ? strrchr(said, '/') : NULL, *b = strrchr(own, '/');
    a = a && a[1] ? a + 1 : said;
    b = b && b[1] ? b + 1 : own;
    if (said && *said && strcmp(a, b) != 0)
        ft_notice(ft_config_where(j->config, "lora_model_dir"),
                  "the adapter was trained on '%s', 'base_model' is '%s'", said, own);
}

static int open_folder(struct ft_job *j, const struct ft_site *sites, int n, const char *path)
{
    struct ft_adapter_options o;
    adapter_options(j, &o);
    return ft_adapter_open(&j->adapter, sites, n, path, &o);
}

static int continue_adapter(struct ft_job *j, const struct ft_site *sites, int n)
{
    const struct ft_config *c = j->config;
    struct ft_adapter_options is;
    char *path = ft_config_path(c, c->lora_model_dir);
    int rc = path ? open_folder(j, sites, n, path) : FT_ERESOURCE;
    ft_free(path);
    FT_TRY(rc);
    ft_adapter_config(j->adapter, &is);
    compare_base(j);
    FT_TRY(check_numbers(j, &is));
    return check_modules(j, sites, n, &is);
}

int ft_job_open_adapter(struct ft_job *j)
{
    const struct ft_module *modules;
    struct ft_adapter_options o;
    struct ft_site *sites;
    int n = ft_model_modules(j->model, &modules);
    FT_TRY(ft_wholes_choose(j));
    FT_TRY(ft_alloc(&sites, (size_t)n, sizeof *sites));
    for (int i = 0; i < n; i++)
        sites[i] = (struct ft_site){.name = modules[i].name,
                                    .in = modules[i].in,
                                    .out = modules[i].out,
                                    .layer = modules[i].layer,
                                    .group = modules[i].group,
                                    .conv1d = ft_model_decoder(j->model)->conv1d,
                                    .scope = ft_model_scope(j->model)};
    adapter_options(j, &o);
    int rc = j->config->lora_model_dir ? continue_adapter(j, sites, n)
                                       : ft_adapter_new(&j->adapter, sites, n, &o);
    ft_free(sites);
    return rc;
}
