/* The adapter of a job: a fresh one, or one that is continued, checked against the config. */
#include "train/internal.h"

#include "core/bytes.h"
#include "core/file.h"
#include "core/mem.h"
#include "io/safetensors.h"

#include <stdio.h>
#include <string.h>

static void adapter_options(const struct ft_job *j, struct ft_adapter_options *o)
{
    const struct ft_config *c = j->config;
    _Static_assert(sizeof(struct ft_pattern) == sizeof(struct ft_pattern_config), "same layout");
    *o = (struct ft_adapter_options){
        .method = c->peft_use_dora ? "dora" : ft_config_adapter(c),
        .r = c->lora_r,
        .alpha = c->lora_alpha,
        .dropout = c->lora_dropout,
        .init = c->peft_init_lora_weights,
        .rslora = c->peft_use_rslora,
        .loraplus_ratio = c->loraplus_lr_ratio,
        .loraplus_embedding =
            c->learning_rate > 0 ? c->loraplus_lr_embedding / c->learning_rate : 1,
        .targets = c->lora_target_modules,
        .target_regex = c->lora_target_regex,
        .parameters = c->lora_target_parameters,
        .target_linear = c->lora_target_linear,
        .target_usual =
            strcmp(c->adapter, "ia3") == 0 && !ft_config_is_set(c, "lora_target_linear"),
        .rank_pattern = (const struct ft_pattern *)c->lora_rank_pattern,
        .alpha_pattern = (const struct ft_pattern *)c->lora_alpha_pattern,
        .layers = c->peft_layers_to_transform,
        .seed = (uint64_t)c->seed,
        .wholes = j->wholes,
        .n_wholes = j->n_wholes,
        .saved_modules = (const char *const *)j->saved_modules,
        .bias = ft_bias_names[c->bias],
        .token_rows = j->token_indices,
    };
}

/* The numbers that the config gives against those of the adapter that is continued. */
static int check_numbers(const struct ft_job *j, const struct ft_adapter_options *is)
{
    const struct ft_config *c = j->config;
    const char *method = strcmp(is->method, "dora") == 0 ? "lora" : is->method;
    if (ft_config_is_set(c, "adapter") && strcmp(ft_config_adapter(c), method) != 0)
        return ft_fail_at(ft_config_where(c, "adapter"), FT_ECONFIG,
                          "'adapter' is '%s', the one in 'lora_model_dir' is '%s'", c->adapter,
                          method);
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
                   ft_config_is_set(c, "lora_target_parameters") ||
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
    const char *said = ft_adapter_base(j->adapter), *own = j->base_name;
    const char *a = said ? strrchr(said, '/') : NULL, *b = strrchr(own, '/');
    a = a && a[1] ? a + 1 : said;
    b = b && b[1] ? b + 1 : own;
    if (said && *said && strcmp(a, b) != 0)
        ft_notice(ft_config_where(j->config, "lora_model_dir"),
                  "the adapter was trained on '%s', the base is '%s'", said, own);
}

/* A row of values against the adapter's copy of it, in the copy's dtype. */
static bool same_row(const float *own, const char *copy, enum ft_dtype dtype, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float v = own[i];
        if (dtype != FT_F32)
            v = dtype == FT_BF16 ? ft_bf16_to_f32(ft_f32_to_bf16(v))
                                 : ft_f16_to_f32(ft_f32_to_f16(v));
        if (v != ft_element_get(copy, (size_t)i, dtype))
            return false;
    }
    return true;
}

/* PEFT writes the frozen weight of an embedding or a head beside its adapter: it must be the
 * model's. */
static int check_copy(const struct ft_job *j, const struct ft_st *f, const struct ft_site *site)
{
    char name[512], path[512];
    snprintf(name, sizeof name, "base_model.model.%s.base_layer.weight", site->name);
    snprintf(path, sizeof path, "%s.weight", site->name);
    const struct ft_st_entry *e = ft_st_find(f, name);
    const int i = ft_model_weight_find(j->model, path);
    if (!e || i < 0)
        return FT_OK;
    const struct ft_model_weight w = ft_model_weight(j->model, i);
    const size_t row = (size_t)w.cols * (e->dtype < FT_DTYPE_COUNT ? ft_dtype_size(e->dtype) : 0);
    bool same = row && e->n_dims == 2 && e->dims[0] == w.rows && e->dims[1] == w.cols;
    float *own = NULL;
    char *copy = NULL;
    int rc = same ? ft_alloc(&own, (size_t)w.cols, sizeof *own) : FT_OK;
    if (!rc && same)
        rc = ft_alloc(&copy, row, 1);
    for (int64_t r = 0; r < w.rows && same && !rc; r++) {
        rc = ft_model_weight_rows(j->model, i, r, 1, true, own);
        if (!rc)
            rc = ft_st_read(f, e, r * (int64_t)row, row, copy);
        same = !rc && same_row(own, copy, e->dtype, w.cols);
    }
    ft_free(own);
    ft_free(copy);
    if (!rc && !same)
        rc = ft_fail_at((struct ft_where){.file = ft_st_path(f)}, FT_EDATA,
                        "'%s' is not the base model's: the adapter belongs to another model, or "
                        "to one with another vocabulary",
                        name);
    return rc;
}

static int check_copies(const struct ft_job *j, const struct ft_site *sites, int n,
                        const char *folder)
{
    char *path = ft_path_join(folder, "adapter_model.safetensors");
    struct ft_st *f = NULL;
    int rc = path ? ft_st_open(&f, path) : FT_ERESOURCE;
    for (int i = n - 2; i < n && !rc; i++)
        rc = check_copy(j, f, &sites[i]);
    ft_st_close(f);
    ft_free(path);
    return rc;
}

static int open_folder(struct ft_job *j, const struct ft_site *sites, int n, const char *path)
{
    struct ft_adapter_options o;
    adapter_options(j, &o);
    FT_TRY(ft_adapter_open(&j->adapter, sites, n, path, &o));
    return check_copies(j, sites, n, path);
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

/* Names of the modules that experts were, where transformers has put them into one parameter. */
static const char *const *once(const struct ft_decoder *d, enum ft_kind kind)
{
    return !d->names.expert[0]      ? NULL
           : kind == FT_EXPERTS_IN  ? d->names.expert
           : kind == FT_EXPERTS_OUT ? d->names.expert + 3
                                    : NULL;
}

/* The linear modules of the layers, then the embedding, whose name goes to `embedding`, and the
 * head. */
static int list_sites(const struct ft_job *j, char *embedding, size_t room, struct ft_site **out,
                      int *n_sites)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const struct ft_module *modules;
    struct ft_site *sites;
    int n = ft_model_modules(j->model, &modules);
    FT_TRY(ft_alloc(&sites, (size_t)n + 2, sizeof *sites));
    for (int i = 0; i < n; i++)
        sites[i] = (struct ft_site){
            .name = modules[i].name,
            .kind = ft_is_experts(modules[i].kind) ? FT_SITE_EXPERTS : FT_SITE_LINEAR,
            .experts = modules[i].experts,
            .once = once(d, modules[i].kind),
            .once_in = modules[i].once,
            .crossed = d->names.crossed && ft_is_experts(modules[i].kind),
            .in = modules[i].in,
            .out = modules[i].out,
            .layer = modules[i].layer,
            .group = modules[i].group,
            .apart = ft_model_is_apart(j->model, modules[i].group),
            .feedforward = modules[i].kind == FT_DOWN || modules[i].kind == FT_SHARED_DOWN,
            .usual_ia3 = modules[i].kind == FT_K || modules[i].kind == FT_V ||
                         modules[i].kind == FT_QKV || modules[i].kind == FT_DOWN,
            .conv1d = d->conv1d};
    snprintf(embedding, room, "%s%s", d->names.prefix, d->names.embed);
    sites[n] = (struct ft_site){.name = embedding,
                                .kind = FT_SITE_EMBEDDING,
                                .in = d->vocab,
                                .out = d->hidden,
                                .layer = -1,
                                .group = n};
    sites[n + 1] = (struct ft_site){.name = d->names.head,
                                    .kind = FT_SITE_HEAD,
                                    .in = d->hidden,
                                    .out = d->vocab,
                                    .layer = -1,
                                    .group = n + 1};
    for (int i = 0; i < n + 2; i++)
        sites[i].scope = ft_model_scope(j->model);
    *n_sites = n + 2;
    *out = sites;
    return FT_OK;
}

/* Keys that say nothing to the method that was chosen. */
static int check_method(const struct ft_job *j)
{
    static const struct {
        const char *key;
        enum ft_method_has needs;
    } keys[] = {{"lora_r", FT_HAS_RANK},
                {"lora_rank_pattern", FT_HAS_ALPHA},
                {"lora_alpha", FT_HAS_ALPHA},
                {"lora_alpha_pattern", FT_HAS_ALPHA},
                {"lora_dropout", FT_HAS_DROPOUT},
                {"peft_use_rslora", FT_HAS_LORA},
                {"peft_use_dora", FT_HAS_LORA},
                {"peft_init_lora_weights", FT_HAS_LORA},
                {"bias", FT_HAS_LORA},
                {"lora_target_parameters", FT_HAS_LORA},
                {"peft_trainable_token_indices", FT_HAS_LORA}};
    const struct ft_config *c = j->config;
    if (ft_job_trains_model(j))
        return FT_OK;
    const unsigned has = ft_adapter_method_has(ft_config_adapter(c));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (ft_config_is_set(c, keys[i].key) && !(has & keys[i].needs))
            return ft_fail_at(ft_config_where(c, keys[i].key), FT_ECONFIG,
                              "'%s' says nothing to 'adapter: %s'", keys[i].key, c->adapter);
    return FT_OK;
}

/* How the adapter is to begin. */
static int check_init(const struct ft_job *j)
{
    const struct ft_config *c = j->config;
    const char *init = c->peft_init_lora_weights;
    const struct ft_where at = ft_config_where(c, "peft_init_lora_weights");
    if (!ft_adapter_init_known(init))
        return ft_fail_at(
            at, FT_ECONFIG,
            "'peft_init_lora_weights' is '%s'; ft begins adapters with true, gaussian, "
            "pissa, pissa_niter_N or olora",
            init);
    if (strcmp(init, "true") != 0 && c->lora_model_dir)
        return ft_fail_at(at, FT_ECONFIG,
                          "'peft_init_lora_weights' is '%s': the adapter in 'lora_model_dir' has "
                          "begun already",
                          init);
    if (c->peft_use_dora && strcmp(init, "true") != 0 && strcmp(init, "gaussian") != 0)
        return ft_fail_at(at, FT_ECONFIG,
                          "'peft_init_lora_weights: %s' and 'peft_use_dora' exclude each other",
                          init);
    return FT_OK;
}

/* Optimizers that see a matrix: PEFT's has all experts, in an order of its own. */
static int check_optimizer(const struct ft_job *j)
{
    const struct ft_config *c = j->config;
    if (j->serving || (c->optimizer != FT_MUON && c->optimizer != FT_ADAFACTOR) ||
        !(ft_adapter_traits(j->adapter) & FT_TRAIT_EXPERTS))
        return FT_OK;
    ft_fail_at(ft_config_where(c, "optimizer"), FT_ECONFIG,
               "adapters on experts' parameters exclude '%s', whose step depends on how PEFT "
               "joins the experts into one matrix",
               c->optimizer == FT_MUON ? "muon" : "adafactor");
    ft_hint("'optimizer: adamw_torch', 'lion_32bit' or 'sgd' sees each number alone");
    return FT_ECONFIG;
}

int ft_job_open_adapter(struct ft_job *j)
{
    struct ft_adapter_options o;
    struct ft_site *sites;
    char embedding[256];
    int n = 0;
    if (!j->serving || j->config->lora_model_dir) {
        FT_TRY(check_method(j));
        FT_TRY(check_init(j));
    }
    FT_TRY(ft_wholes_choose(j));
    FT_TRY(list_sites(j, embedding, sizeof embedding, &sites, &n));
    adapter_options(j, &o);
    int rc = j->config->lora_model_dir ? continue_adapter(j, sites, n)
                                       : ft_adapter_new(&j->adapter, sites, n, &o);
    ft_free(sites);
    FT_TRY(rc);
    FT_TRY(check_optimizer(j));
    ft_wholes_settle(j);
    return ft_token_rows_check(j);
}
