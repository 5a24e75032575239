/* Which of the model's weights are trained whole, and their places in the flat block of all that is
 * trained. */
#include "train/internal.h"

#include "core/bytes.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/regex.h"

#include <stdio.h>
#include <string.h>

/* An expression of unfrozen_parameters as Axolotl reads it: a dot is a dot unless '+' follows, and
 * what it names begins with it. */
static int open_pattern(const struct ft_job *j, const char *text, struct ft_regex **out)
{
    struct ft_bytes b = {0};
    const char *range = strrchr(text, '[');
    int rc = FT_OK;
    if (range && strchr(range, ':'))
        return ft_fail_at(ft_config_where(j->config, "unfrozen_parameters"), FT_ECONFIG,
                          "'%s': a range of rows is not supported", text);
    for (const char *c = text; *c && !rc; c++) {
        if (*c == '.' && c[1] != '+')
            rc = ft_bytes_add(&b, "\\", 1);
        if (!rc)
            rc = ft_bytes_add(&b, c, 1);
    }
    if (!rc)
        rc = ft_bytes_add(&b, ".*", 3);
    if (!rc)
        rc = ft_regex_new(out, FT_ECONFIG, "", b.p, "");
    ft_bytes_free(&b);
    return rc;
}

/* Those that unfrozen_parameters names; all without it. */
static int choose_of_model(struct ft_job *j, bool *chosen, int n)
{
    const char **list = j->config->unfrozen_parameters;
    for (int i = 0; i < n; i++)
        chosen[i] = !list;
    for (; list && *list; list++) {
        struct ft_regex *re = NULL;
        bool any = false, hit = false;
        int rc = open_pattern(j, *list, &re);
        for (int i = 0; i < n && !rc; i++) {
            rc = ft_regex_matches_all(re, ft_model_weight(j->model, i).path, &hit);
            chosen[i] = chosen[i] || hit;
            any = any || hit;
        }
        ft_regex_free(re);
        FT_TRY(rc);
        if (!any)
            return ft_fail_at(ft_config_where(j->config, "unfrozen_parameters"), FT_ECONFIG,
                              "'%s' matches no weight of the model", *list);
    }
    return FT_OK;
}

/* As PEFT: the end of the module's name, whatever is before it ("norm" is input_layernorm too). */
static bool names_module(const char *name, const char *path)
{
    const size_t n = strlen(name), length = (size_t)(strrchr(path, '.') - path);
    return length >= n && strncmp(path + length - n, name, n) == 0;
}

static int choose_saved(struct ft_job *j, bool *chosen, int n)
{
    const struct ft_where at = ft_config_where(j->config, "lora_modules_to_save");
    for (char **name = j->saved_modules; name && *name; name++) {
        bool any = false;
        for (int i = 0; i < n; i++) {
            const struct ft_model_weight w = ft_model_weight(j->model, i);
            if (!names_module(*name, w.path))
                continue;
            if (w.kind == FT_W_EXPERTS || w.kind == FT_W_BUFFER || w.kind == FT_W_SCORE)
                return ft_fail_at(at, FT_ECONFIG,
                                  "'%s' covers '%s', which is not trained whole: experts have "
                                  "adapters by 'lora_target_parameters'",
                                  *name, w.path);
            if (w.kind == FT_W_LINEAR)
                return ft_fail_at(
                    at, FT_ECONFIG,
                    "'%s' is a linear module of the layers: it can have an adapter, or "
                    "be trained with 'adapter: full' and 'unfrozen_parameters'",
                    *name);
            if (w.kind == FT_W_NORM && ft_model_is_gguf(j->model))
                return ft_fail_at(at, FT_ECONFIG,
                                  "'%s': the norms of a .gguf file are not those of its model's "
                                  "folder, which the adapter is for (some have 1 added)",
                                  *name);
            chosen[i] = any = true;
        }
        if (!any)
            return ft_fail_at(at, FT_ECONFIG, "'%s' matches no module that can be trained whole",
                              *name);
    }
    return FT_OK;
}

const char *const ft_bias_names[] = {"none", "all", "lora_only"};

int ft_contradiction(const struct ft_job *j, const char *key)
{
    ft_fail_at(ft_config_where(j->config, key), FT_ECONFIG,
               "'%s' is not what the adapter in 'lora_model_dir' has", key);
    ft_hint("remove the key: the adapter says itself what it trains");
    return FT_ECONFIG;
}

/* The config of an adapter that is continued: it says itself what it has beside its modules. */
static int read_continued(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    char *folder = ft_config_path(c, c->lora_model_dir);
    char *path = folder ? ft_path_join(folder, "adapter_config.json") : NULL;
    int rc = path ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(path))
        rc = ft_json_file(path, FT_EDATA, &j->continued);
    ft_free(folder);
    ft_free(path);
    return rc;
}

static int read_saved(struct ft_job *j)
{
    const json_t *list = json_object_get(j->continued, "modules_to_save");
    const size_t n = json_is_array(list) ? json_array_size(list) : 0;
    FT_TRY(ft_alloc(&j->saved_modules, n + 1, sizeof *j->saved_modules));
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return ft_fail_at(ft_config_where(j->config, "lora_model_dir"), FT_EDATA,
                              "'modules_to_save' of the adapter has an entry that is no name");
        if (!(j->saved_modules[i] = ft_strdup(name)))
            return FT_ERESOURCE;
    }
    const char **asked = j->config->lora_modules_to_save;
    size_t same = 0;
    for (; asked && asked[same]; same++)
        if (same >= n || strcmp(asked[same], j->saved_modules[same]) != 0)
            return ft_contradiction(j, "lora_modules_to_save");
    return asked && same != n ? ft_contradiction(j, "lora_modules_to_save") : FT_OK;
}

static int copy_saved(struct ft_job *j)
{
    const char **list = j->config->lora_modules_to_save;
    size_t n = 0;
    while (list && list[n])
        n++;
    FT_TRY(ft_alloc(&j->saved_modules, n + 1, sizeof *j->saved_modules));
    for (size_t i = 0; i < n; i++)
        if (!(j->saved_modules[i] = ft_strdup(list[i])))
            return FT_ERESOURCE;
    return FT_OK;
}

/* The config's word, or that of the adapter that is continued. */
static int find_bias(const struct ft_job *j, int *bias)
{
    const char *own = json_string_value(json_object_get(j->continued, "bias"));
    *bias = j->config->bias;
    if (!j->continued)
        return FT_OK;
    own = own ? own : "none";
    int k = 0;
    while (k < 3 && strcmp(own, ft_bias_names[k]) != 0)
        k++;
    if (k == 3)
        return ft_fail_at(ft_config_where(j->config, "lora_model_dir"), FT_EDATA,
                          "'bias' of the adapter is '%s', not none, all or lora_only", own);
    if (ft_config_is_set(j->config, "bias") && *bias != k)
        return ft_contradiction(j, "bias");
    *bias = k;
    return FT_OK;
}

static void choose_biases(const struct ft_job *j, bool *chosen, int n, int bias)
{
    int found = 0;
    for (int i = 0; i < n && bias != FT_BIASES_NONE; i++)
        if (ft_model_weight(j->model, i).kind == FT_W_BIAS)
            found += chosen[i] = true;
    if (!found && bias != FT_BIASES_NONE)
        ft_notice(ft_config_where(j->config, "bias"), "this model has no biases");
}

void ft_wholes_free(struct ft_job *j)
{
    for (char **name = j->saved_modules; name && *name; name++)
        ft_free(*name);
    ft_free(j->saved_modules);
    ft_free(j->wholes);
    ft_free(j->whole_of);
}

/* A head or an embedding that is saved beside an adapter is a copy of its own, as in PEFT. */
static int untie(struct ft_job *j)
{
    bool asked = false;
    for (char **name = j->saved_modules; name && *name; name++)
        asked = asked || names_module(*name, "lm_head.weight") ||
                names_module(*name, "model.embed_tokens.weight");
    j->untied = asked && ft_model_decoder(j->model)->tied;
    return asked ? ft_model_untie(j->model) : FT_OK;
}

int ft_wholes_choose(struct ft_job *j)
{
    const bool full = ft_job_trains_model(j);
    bool *chosen;
    int bias = FT_BIASES_NONE;
    if (j->config->lora_model_dir)
        FT_TRY(read_continued(j));
    FT_TRY(j->config->lora_model_dir ? read_saved(j) : copy_saved(j));
    FT_TRY(find_bias(j, &bias));
    FT_TRY(ft_token_rows_choose(j));
    if (full && j->saved_modules[0])
        return ft_fail_at(ft_config_where(j->config, "lora_modules_to_save"), FT_ECONFIG,
                          "'lora_modules_to_save' goes with an adapter; 'adapter' is 'full'");
    if (!full && j->config->unfrozen_parameters)
        return ft_fail_at(ft_config_where(j->config, "unfrozen_parameters"), FT_ECONFIG,
                          "'unfrozen_parameters' goes with 'adapter: full'");
    if (full && (bias != FT_BIASES_NONE || j->token_indices))
        return ft_fail_at(
            ft_config_where(j->config, bias ? "bias" : "peft_trainable_token_indices"), FT_ECONFIG,
            "'%s' goes with an adapter; 'adapter' is 'full'",
            bias ? "bias" : "peft_trainable_token_indices");
    if (full && ft_model_decoder(j->model)->mixture.count) {
        ft_fail_at(ft_config_where(j->config, "adapter"), FT_ECONFIG,
                   "'adapter: full' is not for mixtures of experts: ft trains them by adapters");
        ft_hint("'adapter: lora' with 'lora_target_parameters' adapts the experts too");
        return FT_ECONFIG;
    }
    FT_TRY(untie(j));
    const int n = ft_model_weights(j->model);
    FT_TRY(ft_alloc(&j->wholes, (size_t)n + FT_ROWS_OF, sizeof *j->wholes));
    FT_TRY(ft_alloc(&j->whole_of, (size_t)n + 1, sizeof *j->whole_of));
    FT_TRY(ft_alloc(&chosen, (size_t)n + 1, sizeof *chosen));
    int rc = full ? choose_of_model(j, chosen, n) : choose_saved(j, chosen, n);
    for (int i = 0; i < n; i++)
        j->whole_of[i] = chosen[i] ? 0 : -1; /* asked for by name */
    choose_biases(j, chosen, n, bias);
    for (int i = 0; i < n; i++) {
        const struct ft_model_weight w = ft_model_weight(j->model, i);
        const bool named = j->whole_of[i] >= 0;
        j->whole_of[i] = chosen[i] ? j->n_wholes : -1;
        if (chosen[i])
            j->wholes[j->n_wholes++] =
                (struct ft_whole){.name = w.path,
                                  .end = w.kind == FT_W_EMBED || w.kind == FT_W_HEAD,
                                  .adapted = !named && bias == FT_BIASES_LORA_ONLY,
                                  .rows = w.rows,
                                  .cols = w.cols ? w.cols : 1,
                                  .n_dims = w.cols ? 2 : 1,
                                  .decays = w.kind != FT_W_NORM && w.kind != FT_W_BIAS};
    }
    ft_free(chosen);
    ft_token_rows_list(j);
    return rc;
}

void ft_wholes_settle(struct ft_job *j)
{
    for (int i = 0; i < ft_model_weights(j->model); i++)
        if (j->whole_of[i] >= 0 && !ft_adapter_has_whole(j->adapter, j->whole_of[i]))
            j->whole_of[i] = -1;
}

/* On the host a weight that is trained lies in the block. */
struct ft_tensor *ft_wholes_place(void *ctx, struct ft_graph *g, int weight)
{
    const struct ft_job *j = ctx;
    struct ft_tensor *value = NULL, *grad;
    if (j->whole_of[weight] >= 0)
        ft_adapter_whole(j->adapter, j->whole_of[weight], g, &value, &grad);
    return value;
}

void ft_wholes_train(struct ft_job *j)
{
    for (int i = 0; i < ft_model_weights(j->model); i++) {
        struct ft_tensor *value, *grad, *w = ft_model_weight_value(j->model, i);
        if (j->whole_of[i] < 0)
            continue;
        ft_adapter_whole(j->adapter, j->whole_of[i], j->graph, &value, &grad);
        ft_graph_train(j->graph, w, 0, 0, grad, 1);
        if (!value)
            ft_adapter_copy(j->adapter, j->whole_of[i], w);
    }
}

/* A weight's values as they are now, in the block that was read from the graph. */
struct saved {
    const struct ft_job *j;
    const float *values;
};

static const float *trained_values(void *ctx, int weight)
{
    const struct saved *s = ctx;
    const int whole = s->j->whole_of[weight];
    return whole < 0 ? NULL : s->values + ft_adapter_whole_at(s->j->adapter, whole);
}

int ft_wholes_save(const struct ft_job *j, const float *values, const char *folder)
{
    struct saved s = {j, values};
    FT_TRY(ft_adapter_check_finite(j->adapter, values));
    return ft_model_save(j->model, folder, trained_values, &s);
}

bool ft_job_trains_model(const struct ft_job *j)
{
    return strcmp(j->config->adapter, "full") == 0 && !j->serving;
}

int ft_wholes_read(void *ctx, int whole, float *out)
{
    const struct ft_job *j = ctx;
    int i = 0;
    for (int k = 0; k < FT_ROWS_OF; k++)
        if (j->token_rows[k].n && j->token_rows[k].whole == whole)
            return ft_token_rows_read(j, &j->token_rows[k], out);
    while (j->whole_of[i] != whole)
        i++;
    return ft_model_weight_read(j->model, i, j->config->allow_nonfinite_weights, out);
}

int ft_wholes_module(void *ctx, const char *module, float *out)
{
    const struct ft_job *j = ctx;
    char path[512];
    snprintf(path, sizeof path, "%s.weight", module);
    const int i = ft_model_weight_find(j->model, path);
    FT_ASSERT(i >= 0);
    return ft_model_weight_read(j->model, i, j->config->allow_nonfinite_weights, out);
}
