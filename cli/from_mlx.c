/* mlx-lm's configs of mlx_lm.lora. */
#include "cli/from.h"

#include "config/options.h"
#include "core/file.h"
#include "core/json.h"
#include "core/text.h"

#include <math.h>
#include <string.h>

/* --- model and adapter --- */

static int model(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    FT_TRY(ft_from_text(f, r, n));
    if (strstr(n->text, "bit"))
        ft_from_note(f, n, "MLX's quantised format: name the original model");
    return FT_OK;
}

static int method(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const char *name = n->kind == FT_YAML_SCALAR ? n->text : "";
    if (strcmp(name, "dora") == 0)
        ft_from_put(f, "peft_use_dora", "true", NULL);
    else if (strcmp(name, "lora") != 0) {
        ft_fail_at(n->at, FT_ECONFIG, "'%s: %s': ft trains LoRA adapters only", r->key, name);
        return FT_ECONFIG;
    }
    ft_from_put(f, r->to, "lora", NULL);
    return FT_OK;
}

static void note_parameters(struct ft_from *f, const struct ft_yaml *all)
{
    for (const struct ft_yaml *e = all->first; e; e = e->next)
        if (strcmp(e->key, "rank") != 0 && strcmp(e->key, "scale") != 0 &&
            strcmp(e->key, "dropout") != 0 && strcmp(e->key, "keys") != 0)
            ft_from_note(f, e, "mlx-lm reads no such key of lora_parameters");
}

/* MLX adds scale x BA, PEFT lora_alpha / lora_r x BA. */
static int adapter(struct ft_from *f)
{
    const struct ft_yaml *all = ft_from_get(f, "lora_parameters");
    const bool is_map = all && all->kind == FT_YAML_MAP;
    const struct ft_yaml *keys = is_map ? ft_yaml_get(all, "keys") : NULL;
    const struct ft_yaml *dropout = is_map ? ft_yaml_get(all, "dropout") : NULL;
    double rank = 8, scale = 20;
    if (is_map) {
        ft_from_real_of(ft_yaml_get(all, "rank"), &rank);
        ft_from_real_of(ft_yaml_get(all, "scale"), &scale);
        note_parameters(f, all);
    }
    ft_from_put(f, "lora_r", ft_arena_format(&f->arena, "%.0f", rank),
                is_map ? NULL : "mlx-lm's default");
    ft_from_put(f, "lora_alpha", ft_arena_format(&f->arena, "%.15g", scale * rank),
                ft_arena_format(&f->arena, "scale %g x rank %.0f", scale, rank));
    if (dropout && dropout->kind == FT_YAML_SCALAR && !ft_yaml_is_null(dropout))
        ft_from_put_text(f, &f->config, "lora_dropout", dropout->text);
    if (!keys || ft_yaml_is_null(keys) || keys->kind != FT_YAML_LIST)
        ft_from_put(f, "lora_target_linear", "true", "mlx-lm's default: all of a layer's");
    else
        ft_from_put(f, "lora_target_modules", ft_from_list(f, keys), NULL);
    return FT_OK;
}

/* The last layers are adapted: which, depends on how many the model has. */
static void put_layers(struct ft_from *f)
{
    const double n = ft_from_number(f, "num_layers", 16);
    const char *name = ft_from_word(f, "model", NULL);
    const int64_t layers = n > 0 ? ft_from_model_number(f, name, "num_hidden_layers") : 0;
    char *list = NULL;
    if (layers < 0) {
        ft_from_put_in(f, &f->notes, NULL, NULL,
                       ft_arena_format(&f->arena,
                                       "num_layers: %.0f: the last layers only; the model is not "
                                       "here: list them as peft_layers_to_transform",
                                       n));
        return;
    }
    for (int64_t i = layers - (int64_t)n; n > 0 && n < (double)layers && i < layers; i++)
        list = ft_arena_format(&f->arena, "%s%s%lld", list ? list : "[", list ? ", " : "",
                               (long long)i);
    if (list)
        ft_from_put(
            f, "peft_layers_to_transform", ft_arena_format(&f->arena, "%s]", list),
            ft_arena_format(&f->arena, "num_layers: the last %.0f of %lld", n, (long long)layers));
}

/* --- how long, how fast --- */

/* What MLX counts in micro-batches, in optimizer steps: at least one. */
static double updates(const struct ft_from *f, double iters)
{
    const double each = ft_from_number(f, "grad_accumulation_steps", 1);
    const double n = floor(iters / (each >= 1 ? each : 1));
    return n >= 1 ? n : 1;
}

static int in_updates(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    double v;
    if (!ft_from_real_of(n, &v) || v < 1)
        return ft_value_refuse(r->key, n, "a whole number from 1");
    ft_from_put(f, r->to, ft_arena_format(&f->arena, "%.0f", updates(f, v)),
                updates(f, v) == v
                    ? n->at.file ? NULL : "mlx-lm's default"
                    : ft_arena_format(&f->arena, "%s %.0f / grad_accumulation_steps", r->key, v));
    return FT_OK;
}

/* A schedule: which of its arguments is the last rate, and which the length; -1: none. */
static const struct schedule {
    const char *name, *to;
    int end, steps;
} schedules[] = {{"cosine_decay", "cosine", 2, 1},
                 {"linear_schedule", "linear", 1, 2},
                 {"exponential_decay", "constant", -1, -1},
                 {"step_decay", "constant", -1, -1}};

static double argument(const struct ft_yaml *list, int i, double absent)
{
    const struct ft_yaml *e = list && list->kind == FT_YAML_LIST && i >= 0 ? list->first : NULL;
    double v;
    for (; e && i > 0; i--)
        e = e->next;
    return ft_from_real_of(e, &v) ? v : absent;
}

static void put_ending(struct ft_from *f, const struct schedule *s, const struct ft_yaml *n,
                       const struct ft_yaml *list, double warmup)
{
    const double first = argument(list, 0, 0), end = argument(list, s->end, 0);
    const double total = warmup + argument(list, s->steps, 0);
    const double steps = updates(f, ft_from_number(f, "iters", 1000));
    if (s->end < 0 || (end != 0 && strcmp(s->to, "linear") == 0))
        ft_from_note(f, n, s->end < 0 ? "not in ft, which takes constant" : "ft's falls to zero");
    else if (end > 0 && first > 0)
        ft_from_put(f, "cosine_min_lr_ratio", ft_arena_format(&f->arena, "%.15g", end / first),
                    NULL);
    if (s->end >= 0 && total != steps)
        ft_from_put_in(f, &f->notes, NULL, NULL,
                       ft_arena_format(&f->arena,
                                       "lr_schedule: there it ends after %.0f updates; ft's ends "
                                       "with the run, after %.0f",
                                       total, steps));
}

static int schedule(struct ft_from *f)
{
    const struct ft_yaml *n = ft_from_get(f, "lr_schedule");
    const bool is_map = n && n->kind == FT_YAML_MAP;
    const struct ft_yaml *name = is_map ? ft_yaml_get(n, "name") : NULL;
    const struct ft_yaml *list = is_map ? ft_yaml_get(n, "arguments") : NULL;
    const struct ft_yaml *rise = is_map ? ft_yaml_get(n, "warmup_init") : NULL;
    const struct schedule *s = NULL;
    double warmup = 0, init = 0;
    if (is_map)
        ft_from_real_of(ft_yaml_get(n, "warmup"), &warmup);
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++)
        if (name && name->kind == FT_YAML_SCALAR && strcmp(schedules[i].name, name->text) == 0)
            s = &schedules[i];
    if (s)
        put_ending(f, s, n, list, warmup);
    else if (n)
        ft_from_note(f, n, "not in ft, which takes constant");
    const bool flat = !s || strcmp(s->to, "constant") == 0;
    ft_from_put(f, "lr_scheduler",
                !flat        ? s->to
                : warmup > 0 ? "constant_with_warmup"
                             : "constant",
                n ? NULL : "mlx-lm's default");
    ft_from_put(f, "warmup_steps", ft_arena_format(&f->arena, "%.0f", warmup), NULL);
    if (ft_from_real_of(rise, &init) && init != 0)
        ft_from_note(f, rise, "ft's warmup begins at 0");
    /* the schedule's first rate wins over learning_rate */
    const bool first = list && list->kind == FT_YAML_LIST && argument(list, 0, -1) >= 0;
    ft_from_put(
        f, "learning_rate",
        ft_from_quoted(f, first ? list->first->text : ft_from_word(f, "learning_rate", "1e-5")),
        first ? "lr_schedule's first" : NULL);
    return FT_OK;
}

/* --- the optimizer --- */

static const struct {
    const char *name, *to, *decay;
} optimizers[] = {{"adam", "adamw", "0"}, {"adamw", "adamw", "0.01"}, {"sgd", "sgd", "0"}};

static const struct ft_from_choice arguments[] = {{"weight_decay", "weight_decay", NULL},
                                                  {"eps", "adam_epsilon", NULL},
                                                  {"momentum", "momentum", NULL},
                                                  {NULL, NULL, NULL}};

static void put_argument(struct ft_from *f, const struct ft_yaml *e)
{
    const struct ft_from_choice *c = ft_from_find_choice(arguments, e->key);
    double v;
    if (c && ft_from_real_of(e, &v)) {
        ft_from_put(f, c->to, e->text, NULL);
    } else if (strcmp(e->key, "betas") == 0 && e->kind == FT_YAML_LIST && e->count == 2) {
        ft_from_put(f, "adam_beta1", ft_arena_format(&f->arena, "%.15g", argument(e, 0, 0.9)),
                    NULL);
        ft_from_put(f, "adam_beta2", ft_arena_format(&f->arena, "%.15g", argument(e, 1, 0.999)),
                    NULL);
    } else if (strcmp(e->key, "bias_correction") != 0 && !ft_yaml_is_null(e)) {
        ft_from_note(f, e, "an argument that ft's optimizer does not take");
    }
}

static int optimizer(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const struct ft_yaml *all = ft_from_get(f, "optimizer_config");
    const char *name = n->kind == FT_YAML_SCALAR ? n->text : "";
    const struct ft_yaml *own = all && all->kind == FT_YAML_MAP ? ft_yaml_get(all, name) : NULL;
    const struct ft_yaml *bias = own ? ft_yaml_get(own, "bias_correction") : NULL;
    size_t i = 0;
    bool corrects = false;
    while (i < 3 && strcasecmp(optimizers[i].name, name) != 0)
        i++;
    if (i == 3) {
        ft_from_note(f, n, "another optimizer: adamw is used");
        ft_from_put(f, r->to, "adamw", NULL);
        return FT_OK;
    }
    ft_from_put(f, r->to, optimizers[i].to, i == 0 ? "adam is adamw without weight decay" : NULL);
    ft_from_put(f, "weight_decay", optimizers[i].decay, i == 1 ? "mlx-lm's default" : NULL);
    for (const struct ft_yaml *e = own && own->kind == FT_YAML_MAP ? own->first : NULL; e;
         e = e->next)
        put_argument(f, e);
    if (i < 2 && !(bias && ft_value_bool(bias, &corrects) && corrects))
        ft_from_put_in(f, &f->notes, NULL, NULL,
                       "bias_correction: mlx-lm's adam has none, so that its first steps are up to "
                       "3 times as large");
    return FT_OK;
}

/* --- the data --- */

/* A place that names the fields: the top of the config, or an entry of hf_dataset. */
struct features {
    const char *prompt, *completion, *chat, *text;
    bool said, said_text; /* that it is prompts, or texts */
};

static const char *feature(const struct ft_yaml *map, const char *key, const char *absent,
                           bool *said)
{
    const struct ft_yaml *n = ft_yaml_get(map, key);
    if (!n || ft_yaml_is_null(n) || n->kind != FT_YAML_SCALAR)
        return absent;
    *said = true;
    return n->text;
}

static struct features features_of(const struct ft_yaml *map)
{
    struct features v = {0};
    bool chat = false;
    v.prompt = feature(map, "prompt_feature", "prompt", &v.said);
    v.completion = feature(map, "completion_feature", "completion", &v.said);
    v.chat = feature(map, "chat_feature", "messages", &chat);
    v.text = feature(map, "text_feature", "text", &v.said_text);
    return v;
}

/* What the records are, by the first one, in the order in which mlx-lm looks. */
static void put_type(struct ft_from *f, struct ft_from_lines *e, const struct features *v,
                     const json_t *record)
{
    const bool masks = ft_from_is(f, "mask_prompt");
    const bool prompts =
        record ? ft_json_get(record, v->prompt) && ft_json_get(record, v->completion) : v->said;
    const bool chat = record ? ft_json_get(record, v->chat) != NULL : !v->said_text;
    if (prompts) {
        ft_from_put_in(f, e, "type", "instruction", "a user's and an assistant's message");
        ft_from_put_text(f, e, "field_instruction", v->prompt);
        ft_from_put_unread(f, e, "field_input", "input", record);
        ft_from_put_text(f, e, "field_output", v->completion);
    } else if (chat) {
        ft_from_put_in(f, e, "type", "chat_template",
                       !record ? "a guess: the data is not here"
                       : masks ? "mask_prompt: there only the last message is trained"
                               : NULL);
        if (strcmp(v->chat, "messages") != 0)
            ft_from_put_text(f, e, "field_messages", v->chat);
    } else {
        ft_from_put_in(f, e, "type", "completion", "in pieces of sequence_len; there cut");
        if (strcmp(v->text, "text") != 0)
            ft_from_put_text(f, e, "field", v->text);
    }
    if (!masks && (prompts || chat))
        ft_from_put_in(f, e, "train_on_inputs", "true",
                       "without mask_prompt mlx-lm trains everything, markup too");
}

static void put_entry(struct ft_from *f, struct ft_from_entries *to, const char *path,
                      const char *name, const char *split, const struct features *v)
{
    struct ft_from_lines *e = ft_from_entry(f, to);
    json_t *record = ft_from_record(f, path, split);
    ft_from_put_text(f, e, "path", path);
    if (name)
        ft_from_put_text(f, e, "name", name);
    if (split)
        ft_from_put_text(f, e, "split", split);
    put_type(f, e, v, record);
    json_decref(record);
}

static void put_hub(struct ft_from *f, const struct ft_yaml *n)
{
    const struct features v = features_of(n);
    const struct ft_yaml *config = ft_yaml_get(n, "config");
    bool said = false;
    const char *path = feature(n, "path", feature(n, "name", NULL, &said), &said);
    const char *name =
        config && config->kind == FT_YAML_MAP ? feature(config, "name", NULL, &said) : NULL;
    if (!path)
        return;
    put_entry(f, &f->datasets, path, name, feature(n, "train_split", "train[:80%]", &said), &v);
    put_entry(f, &f->test_datasets, path, name, feature(n, "valid_split", "train[-10%:]", &said),
              &v);
}

/* A folder with train.jsonl and valid.jsonl, else an id with these splits. */
static void put_folder(struct ft_from *f)
{
    const struct features v = features_of(f->root);
    const char *data = ft_from_path(f, ft_from_word(f, "data", "data"));
    size_t n = strlen(data);
    while (n > 1 && data[n - 1] == '/')
        n--;
    const char *valid = ft_arena_format(&f->arena, "%.*s/valid.jsonl", (int)n, data);
    if (!ft_is_folder(data) && data[0] != '/' && data[0] != '.' && strchr(data, '/')) {
        put_entry(f, &f->datasets, data, NULL, "train", &v);
        put_entry(f, &f->test_datasets, data, NULL, "valid", &v);
        return;
    }
    const char *train = ft_arena_format(&f->arena, "%.*s/train.jsonl", (int)n, data);
    if (train)
        put_entry(f, &f->datasets, train, NULL, NULL, &v);
    if (valid && ft_file_exists(valid))
        put_entry(f, &f->test_datasets, valid, NULL, NULL, &v);
}

static int finish(struct ft_from *f)
{
    const struct ft_yaml *hub = ft_from_get(f, "hf_dataset");
    FT_TRY(adapter(f));
    put_layers(f);
    FT_TRY(schedule(f));
    if (hub && hub->kind == FT_YAML_MAP)
        put_hub(f, hub);
    else if (hub && hub->kind == FT_YAML_LIST)
        for (const struct ft_yaml *e = hub->first; e; e = e->next)
            put_hub(f, e);
    else
        put_folder(f);
    if (!f->test_datasets.first)
        ft_from_drop(f, "eval_steps");
    ft_from_put(f, "excess_length_strategy", "truncate", "ft drops documents unless it is told");
    ft_from_put(f, "max_grad_norm", "0", "mlx-lm does not clip");
    return FT_OK;
}

/* --- the table --- */

static const struct ft_from_row rows[] = {
    {"model", model, "base_model", "Qwen/Qwen3-0.6b", NULL},
    {"fine_tune_type", method, "adapter", "lora", NULL},
    {"lora_parameters", NULL, NULL, NULL, NULL},
    {"num_layers", NULL, NULL, NULL, NULL},
    {"data", NULL, NULL, NULL, NULL},
    {"hf_dataset", NULL, NULL, NULL, NULL},
    {"prompt_feature", NULL, NULL, NULL, NULL},
    {"completion_feature", NULL, NULL, NULL, NULL},
    {"chat_feature", NULL, NULL, NULL, NULL},
    {"text_feature", NULL, NULL, NULL, NULL},
    {"mask_prompt", NULL, NULL, NULL, NULL},
    {"max_seq_length", ft_from_whole, "sequence_len", "2048", NULL},
    {"batch_size", ft_from_whole, "micro_batch_size", "4", NULL},
    {"grad_accumulation_steps", ft_from_whole, "gradient_accumulation_steps", "1", NULL},
    {"iters", in_updates, "max_steps", "1000", NULL},
    {"optimizer", optimizer, "optimizer", "adam", NULL},
    {"optimizer_config", NULL, NULL, NULL, NULL},
    {"learning_rate", NULL, NULL, NULL, NULL},
    {"lr_schedule", NULL, NULL, NULL, NULL},
    {"seed", ft_from_whole, "seed", "0", NULL},
    {"steps_per_report", in_updates, "logging_steps", "10", NULL},
    {"steps_per_eval", in_updates, "eval_steps", "200", NULL},
    {"adapter_path", ft_from_text, "output_dir", "adapters", NULL},
    {"val_batches", ft_from_lacks, NULL, "-1",
     "ft evaluates on all of it; split: train[:N] takes a part"},
    {"resume_adapter_file", ft_from_lacks, NULL, NULL, "MLX's format is not PEFT's"},
    {"test", ft_from_lacks, NULL, NULL, "ft has no test behind the training"},
    {"save_every", in_updates, "save_steps", "100", NULL},
    {"report_to", ft_from_trackers, NULL, NULL, "ft knows wandb, tensorboard and mlflow"},
    {"wandb", ft_from_text, "wandb_project", NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char same[] =
    "clear_cache_threshold config grad_checkpoint project_name test_batches train "
    "trust_remote_code";

static const char *const sure[] = {"lora_parameters", "fine_tune_type", "iters", "hf_dataset",
                                   "num_layers",      "mask_prompt",    NULL};
static const char *const likely[] = {"adapter_path", "data", NULL};

const struct ft_from_tool ft_from_mlx = {.name = "mlx-lm",
                                         .sure = sure,
                                         .likely = likely,
                                         .rows = rows,
                                         .same = {same, NULL},
                                         .finish = finish};
