/* TRL's configs of trl sft. */
#include "cli/from.h"

#include "config/options.h"
#include "core/json.h"
#include "core/text.h"

#include <string.h>

/* --- the keys --- */

static int use_peft(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    bool on;
    if (!ft_value_bool(n, &on))
        return ft_value_refuse(r->key, n, "true or false");
    if (!on) {
        ft_fail_at(n->at.file ? n->at : (struct ft_where){.file = f->file}, FT_ECONFIG,
                   "'use_peft' is not true: TRL then trains all weights, ft an adapter");
        ft_hint("for an adapter with TRL's defaults, add 'use_peft: true' to %s", f->file);
        return FT_ECONFIG;
    }
    ft_from_put(f, r->to, ft_from_is(f, "load_in_4bit") ? "qlora" : "lora", NULL);
    return FT_OK;
}

static int four_bits(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    FT_TRY(ft_from_bool(f, r, n));
    if (ft_from_is(f, "load_in_4bit"))
        ft_from_put(f, "bnb_config_kwargs",
                    ft_arena_format(&f->arena,
                                    "{bnb_4bit_quant_type: %s, bnb_4bit_use_double_quant: %s}",
                                    ft_from_word(f, "bnb_4bit_quant_type", "nf4"),
                                    ft_from_is(f, "use_bnb_nested_quant") ? "true" : "false"),
                    NULL);
    return FT_OK;
}

static int saved(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    if (n->kind == FT_YAML_LIST && n->count)
        ft_from_put(f, r->to, ft_from_list(f, n), NULL);
    return FT_OK;
}

/* What PEFT adapts of a kind of model if it is not told (its TRANSFORMERS_MODELS_TO_LORA_...). */
static const struct ft_from_choice usual[] = {{"phi", "[q_proj, v_proj, fc1, fc2]", NULL},
                                              {"falcon", "[query_key_value]", NULL},
                                              {NULL, NULL, NULL}};

static int targets(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const struct ft_yaml *one = n->kind == FT_YAML_LIST && n->count == 1 ? n->first : n;
    const char *quoted = n->kind == FT_YAML_SCALAR ? ft_from_quoted(f, n->text) : NULL;
    char *kind = ft_from_model_text(f, ft_from_word(f, "model_name_or_path", NULL), "model_type");
    const struct ft_from_choice *c = ft_from_find_choice(usual, kind ? kind : "");
    if (one->kind == FT_YAML_SCALAR && strcmp(one->text, "all-linear") == 0)
        ft_from_put(f, "lora_target_linear", "true", NULL);
    else if (n->kind == FT_YAML_LIST)
        ft_from_put(f, r->to, ft_from_list(f, n), NULL);
    else if (n->kind == FT_YAML_SCALAR && *n->text) /* a name, or a regular expression */
        ft_from_put(f, r->to,
                    ft_arena_format(&f->arena, strpbrk(n->text, "*+?^$()|\\[") ? "%s" : "[%s]",
                                    quoted ? quoted : ""),
                    NULL);
    else
        ft_from_put(f, r->to, c ? c->to : "[q_proj, v_proj]", "PEFT's default");
    return FT_OK;
}

static int packing_strategy(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    (void)r;
    if (n->kind == FT_YAML_SCALAR &&
        (strcmp(n->text, "wrapped") == 0 || strcmp(n->text, "bfd_split") == 0))
        ft_from_note(f, n, "there long documents go on in the next sequence");
    return FT_OK;
}

static int end_token(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const char *token = n->kind == FT_YAML_SCALAR ? ft_from_quoted(f, n->text) : NULL;
    if (!token)
        return ft_value_refuse(r->key, n, "a text");
    ft_from_put(f, r->to, ft_arena_format(&f->arena, "{eos_token: %s}", token), NULL);
    return FT_OK;
}

/* A file, or a folder or id whose template is meant. */
static int template_path(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    if (n->kind != FT_YAML_SCALAR)
        return ft_value_refuse(r->key, n, "a text");
    const char *path = ft_from_path(f, n->text);
    const bool file = ft_ends_with(path, ".jinja") || ft_ends_with(path, ".j2");
    ft_from_put(f, "chat_template", "jinja", NULL);
    ft_from_put(
        f, "chat_template_jinja",
        ft_from_quoted(f, file ? path : ft_arena_format(&f->arena, "%s/chat_template.jinja", path)),
        file ? NULL : "where that folder keeps its template");
    return FT_OK;
}

static int template_text(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    ft_from_put(f, "chat_template", "jinja", NULL);
    return ft_from_text(f, r, n);
}

/* null, written out, is no limit. */
static void put_length(struct ft_from *f)
{
    const struct ft_from_row row = {"max_length", NULL, "sequence_len", NULL, NULL};
    const struct ft_yaml *n = ft_yaml_get(f->root, "max_length");
    n = n ? n : ft_yaml_get(f->root, "max_seq_length");
    ft_from_put(f, "excess_length_strategy", "truncate", "ft drops documents unless it is told");
    if (!n) {
        ft_from_put(f, "sequence_len", "1024", "TRL's default");
    } else if (ft_yaml_is_null(n)) {
        const int64_t most = ft_from_model_number(f, ft_from_word(f, "model_name_or_path", NULL),
                                                  "max_position_embeddings");
        if (most > 0)
            ft_from_put(f, "sequence_len", ft_arena_format(&f->arena, "%lld", (long long)most),
                        "no limit there: the model's own");
        else
            ft_from_note(f, n, "no limit there; ft's sequence_len is 2048 unless it is set");
    } else if (ft_from_whole(f, &row, n)) {
        ft_status_clear_errors();
        ft_from_note(f, n, "is no number of tokens");
    }
}

/* --- the data --- */

struct source {
    const char *path, *name, *split;
    const struct ft_yaml *files; /* data_files, or NULL */
    const struct ft_yaml *share; /* fraction or weight, or NULL */
};

/* What TRL takes the records for, and what they are in ft. list: the members that the list of this
 * field has. */
static const struct shape {
    const char *fields[2], *member, *type, *yaml[2];
    bool whole; /* all of it is trained unless assistant_only_loss or completion_only_loss say else
                 */
} shapes[] = {
    {{"input_ids"}, NULL, "tokenized", {NULL}, false},
    {{"prompt", "completion"}, NULL, "prompt_completion", {NULL}, false},
    {{"messages"}, NULL, "chat_template", {NULL}, true},
    {{"conversations"},
     "from",
     "chat_template",
     {"field_messages: conversations", "message_property_mappings: {role: from, content: value}"},
     true},
    {{"conversations"}, NULL, "chat_template", {"field_messages: conversations"}, true},
};

static const struct shape *shape_of(const json_t *record)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        const json_t *first = json_array_get(ft_json_get(record, s->fields[0]), 0);
        if (ft_json_get(record, s->fields[0]) &&
            (!s->fields[1] || ft_json_get(record, s->fields[1])) &&
            (!s->member || ft_json_get(first, s->member)))
            return s;
    }
    return NULL;
}

/* Where the data is not here, the keys say what it would be. */
static const struct shape *guess(const struct ft_from *f)
{
    if (ft_from_get(f, "completion_only_loss"))
        return &shapes[1];
    return ft_from_get(f, "dataset_text_field") && !ft_from_is(f, "assistant_only_loss")
               ? NULL
               : &shapes[2];
}

static void put_type(struct ft_from *f, struct ft_from_lines *e, const json_t *record)
{
    const char *field = ft_from_word(f, "dataset_text_field", "text");
    const bool text = record && json_is_string(ft_json_get(record, field));
    const struct shape *s = text ? NULL : record ? shape_of(record) : guess(f);
    const bool only =
        ft_from_get(f, "completion_only_loss") && !ft_from_is(f, "completion_only_loss");
    const bool whole =
        s && (s->whole ? !ft_from_is(f, "assistant_only_loss") : s->fields[1] && only);
    ft_from_put_in(f, e, "type", s ? s->type : "completion",
                   !record ? "a guess: the data is not here"
                   : s     ? NULL
                           : "in pieces of sequence_len; TRL cuts");
    if (!s && strcmp(field, "text") != 0)
        ft_from_put_text(f, e, "field", field);
    for (int i = 0; s && i < 2 && s->yaml[i]; i++) {
        const size_t n = strcspn(s->yaml[i], ":");
        ft_from_put_in(f, e, ft_arena_format(&f->arena, "%.*s", (int)n, s->yaml[i]),
                       s->yaml[i] + n + 2, NULL);
    }
    if (whole)
        ft_from_put_in(f, e, "train_on_inputs", "true",
                       s->whole ? "without assistant_only_loss TRL trains everything, markup too"
                                : "completion_only_loss: false");
    if (ft_json_get(record, "chat_template_kwargs"))
        ft_from_put_in(f, e, NULL, NULL, "chat_template_kwargs of records are not read");
}

/* The files of data_files: one, a list, or a map's for this split. */
static const struct ft_yaml *files_of(const struct source *s)
{
    const struct ft_yaml *n = s->files;
    return n && n->kind == FT_YAML_MAP ? ft_yaml_get(n, s->split) : n;
}

static const char *paths_of(struct ft_from *f, const struct ft_yaml *n, const char **first)
{
    const char *all = NULL;
    for (const struct ft_yaml *e = n->kind == FT_YAML_LIST ? n->first : n; e;
         e = n->kind == FT_YAML_LIST ? e->next : NULL) {
        const char *path = e->kind == FT_YAML_SCALAR ? ft_from_path(f, e->text) : NULL;
        const char *quoted = ft_from_quoted(f, path);
        *first = *first ? *first : path;
        if (quoted)
            all = ft_arena_format(&f->arena, "%s%s%s", all ? all : "", all ? ", " : "", quoted);
    }
    return all ? ft_arena_format(&f->arena, "[%s]", all) : NULL;
}

static void put_source(struct ft_from *f, struct ft_from_entries *to, const struct source *s)
{
    struct ft_from_lines *e = ft_from_entry(f, to);
    const struct ft_yaml *files = files_of(s);
    const char *path = ft_from_path(f, s->path), *first = NULL;
    ft_from_put_text(f, e, "path", path);
    if (s->name)
        ft_from_put_text(f, e, "name", s->name);
    if (files)
        ft_from_put_in(f, e, "data_files", paths_of(f, files, &first), NULL);
    else if (strcmp(s->split, "train") != 0)
        ft_from_put_text(f, e, "split", s->split);
    json_t *record = ft_from_record(f, first ? first : path, s->split);
    put_type(f, e, record);
    json_decref(record);
    if (s->share)
        ft_from_put_in(f, e, NULL, NULL,
                       ft_arena_format(&f->arena, "%s: %s: ft takes all; split: train[:N] a part",
                                       s->share->key, ft_from_shown(f, s->share)));
}

static const char *text_of(const struct ft_yaml *map, const char *key, const char *absent)
{
    const struct ft_yaml *n = ft_yaml_get(map, key);
    return n && n->kind == FT_YAML_SCALAR && !ft_yaml_is_null(n) ? n->text : absent;
}

static const struct ft_yaml *value_of(const struct ft_yaml *map, const char *key)
{
    const struct ft_yaml *n = ft_yaml_get(map, key);
    return n && !ft_yaml_is_null(n) ? n : NULL;
}

/* TRL's datasets, and the alignment handbook's dataset_mixture, whose keys have other names. */
static int put_list(struct ft_from *f, const struct ft_yaml *list, const char *key)
{
    if (list->kind != FT_YAML_LIST)
        return ft_value_refuse(key, list, "a list of datasets");
    for (const struct ft_yaml *e = list->first; e; e = e->next) {
        if (e->kind != FT_YAML_MAP)
            return ft_value_refuse(key, e, "maps with a 'path'");
        struct source s = {
            .path = text_of(e, "path", text_of(e, "id", NULL)),
            .name = text_of(e, "name", text_of(e, "config", text_of(e, "data_dir", NULL))),
            .split = text_of(e, "split", "train"),
            .files = value_of(e, "data_files"),
            .share = value_of(e, "fraction")};
        s.share = s.share ? s.share : value_of(e, "weight");
        if (!s.path)
            return ft_fail_at(e->at, FT_ECONFIG, "this dataset has no 'path'");
        put_source(f, &f->datasets, &s);
        if (s.files && s.files->kind == FT_YAML_MAP && value_of(s.files, "test")) {
            s.split = "test";
            s.share = NULL;
            put_source(f, &f->test_datasets, &s);
        }
    }
    return FT_OK;
}

/* The test split is read only if there is to be an evaluation. */
static void put_named(struct ft_from *f, const char *name)
{
    struct source s = {.path = name,
                       .name = ft_from_word(f, "dataset_config", NULL),
                       .split = ft_from_word(f, "dataset_train_split", "train")};
    put_source(f, &f->datasets, &s);
    if (strcmp(ft_from_word(f, "eval_strategy", ft_from_word(f, "evaluation_strategy", "no")),
               "no") == 0)
        return;
    s.split = ft_from_word(f, "dataset_test_split", "test");
    put_source(f, &f->test_datasets, &s);
}

static int put_data(struct ft_from *f)
{
    const struct ft_yaml *list = ft_from_get(f, "datasets");
    const struct ft_yaml *mixture = ft_from_get(f, "dataset_mixture");
    const char *name = ft_from_word(f, "dataset_name", NULL);
    if (!list && mixture && mixture->kind == FT_YAML_MAP) {
        list = value_of(mixture, "datasets");
        const char *held = text_of(mixture, "test_split_size", NULL);
        if (held)
            ft_from_put(f, "val_set_size", ft_from_quoted(f, held), NULL);
    }
    if (!list && !name)
        return ft_fail_at((struct ft_where){.file = f->file}, FT_ECONFIG,
                          "has neither 'dataset_name' nor 'datasets'");
    if (list)
        FT_TRY(put_list(f, list, "datasets"));
    else
        put_named(f, name);
    if (f->test_datasets.first)
        ft_from_drop(f, "val_set_size");
    return FT_OK;
}

static int finish(struct ft_from *f)
{
    FT_TRY(ft_from_trainer_finish(f));
    put_length(f);
    return put_data(f);
}

/* --- the table --- */

#define LACKS(key, note)                                                                           \
    {                                                                                              \
        key, ft_from_lacks, NULL, NULL, note                                                       \
    }
#define READ(key)                                                                                  \
    {                                                                                              \
        key, NULL, NULL, NULL, NULL                                                                \
    }

static const struct ft_from_row rows[] = {
    {"use_peft", use_peft, "adapter", "false", NULL},
    {"model_name_or_path", ft_from_text, "base_model", NULL, NULL},
    {"model_revision", ft_from_lacks, NULL, "main", "ft takes what the cache's main names"},
    {"lora_r", ft_from_whole, "lora_r", "16", NULL},
    {"lora_alpha", ft_from_real, "lora_alpha", "32", NULL},
    {"lora_dropout", ft_from_real, "lora_dropout", "0.05", NULL},
    {"lora_target_modules", targets, "lora_target_modules", "", NULL},
    {"use_rslora", ft_from_bool, "peft_use_rslora", NULL, NULL},
    {"use_dora", ft_from_bool, "peft_use_dora", NULL, NULL},
    {"lora_modules_to_save", saved, "lora_modules_to_save", NULL, NULL},
    LACKS("lora_target_parameters", "ft adapts linear modules only"),
    {"load_in_4bit", four_bits, "load_in_4bit", NULL, NULL},
    {"load_in_8bit", ft_from_bool, "load_in_8bit", NULL, NULL},
    READ("bnb_4bit_quant_type"),
    READ("use_bnb_nested_quant"),
    {"learning_rate", ft_from_real, "learning_rate", "2e-5", NULL},
    {"logging_steps", NULL, NULL, "10", NULL},
    READ("dataset_name"),
    READ("dataset_config"),
    READ("dataset_train_split"),
    READ("dataset_test_split"),
    READ("datasets"),
    READ("dataset_mixture"),
    READ("dataset_text_field"),
    READ("assistant_only_loss"),
    READ("completion_only_loss"),
    READ("max_length"),
    READ("max_seq_length"),
    {"test_split_size", ft_from_real, "val_set_size", NULL, NULL},
    {"packing", ft_from_bool, "sample_packing", NULL, NULL},
    {"packing_strategy", packing_strategy, NULL, NULL, NULL},
    {"truncation_mode", ft_from_lacks, NULL, "keep_start", "ft cuts the end off"},
    {"eos_token", end_token, "special_tokens", NULL, NULL},
    {"chat_template_path", template_path, "chat_template_jinja", NULL, NULL},
    {"chat_template", template_text, "chat_template_jinja", NULL, NULL},
    {"loss_type", ft_from_lacks, NULL, "nll", "ft's loss is plain cross-entropy"},
    LACKS("router_aux_loss_coef", "ft's loss is plain cross-entropy"),
    LACKS("env", "set variables where ft is started"),
    {NULL, NULL, NULL, NULL, NULL},
};

static const char same[] =
    "activation_offloading attn_implementation bnb_4bit_quant_storage "
    "dataset_kwargs dataset_num_proc dataset_streaming dtype eval_packing ignore_bias_buffers "
    "lora_task_type model_init_kwargs pad_to_multiple_of pad_token padding_free "
    "shuffle_dataset streaming torch_dtype trust_remote_code";

static const char *const sure[] = {"dataset_name",
                                   "use_peft",
                                   "lora_target_modules",
                                   "dataset_train_split",
                                   "assistant_only_loss",
                                   "completion_only_loss",
                                   "dataset_text_field",
                                   "dataset_mixture",
                                   "datasets",
                                   NULL};
static const char *const likely[] = {"lora_r", "max_length", "max_seq_length",
                                     "per_device_train_batch_size", NULL};

const struct ft_from_tool ft_from_trl = {.name = "TRL",
                                         .sure = sure,
                                         .likely = likely,
                                         .needs = "model_name_or_path",
                                         .rows = rows,
                                         .shared = ft_from_trainer,
                                         .same = {same, ft_from_trainer_same},
                                         .finish = finish};
