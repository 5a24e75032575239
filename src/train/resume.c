/* Whether a run is the one that a folder holds: its config, and the hashes of what it reads. */
#include "train/internal.h"

#include "core/json.h"

#include <stdio.h>
#include <string.h>

/* Keys that decide no number of the run: where things lie (their hashes count), how it is told, how
 * it is saved, what it runs on. */
static const char free_keys[] =
    " base_model base_model_name revision_of_model output_dir overwrite_output_dir logging_steps "
    "save_steps saves_per_epoch save_strategy save_total_limit save_first_step "
    "use_tensorboard use_mlflow mlflow_tracking_uri mlflow_experiment_name mlflow_run_name "
    "use_wandb wandb_mode wandb_project wandb_entity wandb_name wandb_run_id "
    "auto_resume_from_checkpoints resume_from_checkpoint resume_with_changes "
    "baseline baseline_tolerance load_best_model_at_end early_stopping_patience "
    "dataset_prepared_path threads device cpu_isa bf16 gradient_checkpointing ";

static bool is_free(const char *key)
{
    char word[128];
    snprintf(word, sizeof word, " %s ", key);
    return strstr(free_keys, word) != NULL;
}

int ft_identity(json_t **out, const struct ft_job *j, struct ft_hashes *h, bool wait)
{
    const unsigned since = ft_alloc_failures();
    *out = json_pack("{ss ss ss si so so}", "ft_version", FT_VERSION, "device", j->backend->device,
                     "isa", j->backend->isa, "ranks", ft_world_size(j->world), "config",
                     ft_config_json(j->config), "sha256", ft_hashes_json(h, wait));
    return ft_alloc_check(since);
}

static bool may_change(const struct ft_job *j, const char *name)
{
    for (const char **may = j->config->resume_with_changes; may && *may; may++)
        if (strcmp(*may, name) == 0)
            return true;
    return false;
}

/* Datasets lie anywhere: their files' hashes count. */
static json_t *without_paths(const json_t *value)
{
    json_t *copy = json_deep_copy(value), *entry;
    size_t k;
    json_array_foreach(copy, k, entry)
    {
        json_object_del(entry, "path");
        json_object_del(entry, "data_files");
    }
    return copy;
}

/* As text: whole numbers and reals may be read back as the other. */
static bool same(const json_t *a, const json_t *b)
{
    const size_t flags = JSON_ENCODE_ANY | JSON_SORT_KEYS | JSON_REAL_PRECISION(12);
    json_t *own = without_paths(a), *other = without_paths(b);
    char *x = json_dumps(own, flags), *y = json_dumps(other, flags);
    const bool equal = x && y && strcmp(x, y) == 0;
    ft_json_free(x);
    ft_json_free(y);
    json_decref(own);
    json_decref(other);
    return equal;
}

static void put_change(char *why, size_t room, const char *key, const json_t *was, const json_t *is)
{
    const size_t flags = JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6);
    char *x = json_dumps(was, flags), *y = json_dumps(is, flags);
    snprintf(why, room, "'%s' was %.60s and is %.60s", key, x ? x : "?", y ? y : "?");
    ft_json_free(x);
    ft_json_free(y);
}

/* The hashes of one kind, in their order, whatever the files are called; one that is not known is
 * like any. */
static bool same_files(const json_t *was, const json_t *is)
{
    void *a = json_object_iter((json_t *)(uintptr_t)was),
         *b = json_object_iter((json_t *)(uintptr_t)is);
    if (!was || !is)
        return true;
    for (; a && b; a = json_object_iter_next((json_t *)(uintptr_t)was, a),
                   b = json_object_iter_next((json_t *)(uintptr_t)is, b))
        if (!json_equal(json_object_iter_value(a), json_object_iter_value(b)))
            return false;
    return !a && !b;
}

bool ft_identity_differs(const struct ft_job *j, const json_t *was, const json_t *is, char *why,
                         size_t room)
{
    static const struct {
        const char *kind, *name, *what;
    } files[] = {
        {"config", "model", "the model's config.json"},
        {"tokenizer", "model", "the model's tokenizer.json"},
        {"weights", "model", "the model's weights"},
        {"dataset", "data", "the datasets' files"},
    };
    const json_t *before = json_object_get(was, "sha256"), *now = json_object_get(is, "sha256");
    const json_t *config = json_object_get(was, "config");
    const char *key;
    json_t *value;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!may_change(j, files[i].name) && !same_files(json_object_get(before, files[i].kind),
                                                         json_object_get(now, files[i].kind))) {
            snprintf(why, room, "%s are others now ('%s')", files[i].what, files[i].name);
            return true;
        }
    json_object_foreach(json_object_get(is, "config"), key, value)
    {
        const json_t *old = json_object_get(config, key);
        if (old && !is_free(key) && !may_change(j, key) && !same(old, value)) {
            put_change(why, room, key, old, value);
            return true;
        }
    }
    return false;
}

bool ft_identity_moved(const struct ft_job *j, const json_t *was)
{
    const char *version = json_string_value(json_object_get(was, "ft_version"));
    const char *device = json_string_value(json_object_get(was, "device"));
    const char *isa = json_string_value(json_object_get(was, "isa"));
    const json_t *said = json_object_get(was, "ranks");
    const int ranks = said ? (int)json_integer_value(said) : 1, now = ft_world_size(j->world);
    const bool other = !version || !device || !isa || strcmp(version, FT_VERSION) != 0 ||
                       strcmp(device, j->backend->device) != 0 || strcmp(isa, j->backend->isa) != 0;
    if (ranks != now)
        ft_notice((struct ft_where){0},
                  "the run was begun by %d rank%s and goes on with %d: the windows are the same, "
                  "the last bits of their sums will not be",
                  ranks, ranks == 1 ? "" : "s", now);
    if (other)
        ft_notice((struct ft_where){0},
                  "the run was begun with ft %s on %s (%s): the rest will not have the same bits",
                  version ? version : "?", device ? device : "?", isa ? isa : "?");
    return other || ranks != now;
}
