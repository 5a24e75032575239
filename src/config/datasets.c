/* The entries of datasets: one table of their keys. */
#include "config/options.h"

#include "core/text.h"

#include <string.h>

/* The values are enum ft_train_on of data/. */
const struct ft_choice ft_train_on_choices[] = {{"turn", 0, NULL},  {"all", 1, NULL},
                                                {"last", 2, NULL},  {"none", 3, NULL},
                                                {"unset", 4, NULL}, {NULL, 0, NULL}};

enum kind {
    TEXT,   /* const char * */
    PATHS,  /* const char **: one or a list, ~ is the home folder */
    PATH,   /* const char *: ~ is the home folder */
    TEXTS,  /* const char **: one or a list */
    PAIRS,  /* const char **: a map of texts */
    ROLES,  /* const char **: a map from the template's roles to lists of the record's */
    FLAG,   /* bool */
    SWITCH, /* int: -1 unset */
    WHEN,   /* train_on_eos */
    MAP,    /* const struct ft_yaml *: a map of anything */
    TYPE,   /* a text, or a map with the format's own keys */
    SAME,   /* changes nothing here */
    NOT_YET,
};

/* A key of an entry: one row. */
struct row {
    const char *key;
    enum kind kind;
    size_t offset;
    const char *help;
};

#define ROW(key, kind, help)                                                                       \
    {                                                                                              \
#key, kind, offsetof(struct ft_dataset_config, key), help                                  \
    }
#define NONE(key, kind, help)                                                                      \
    {                                                                                              \
        key, kind, 0, help                                                                         \
    }
static const struct row rows[] = {
    ROW(path, PATH,
        "A file (.jsonl, .json, .txt, .csv, each also .gz; .safetensors is tokenized already), a "
        "folder of such files, or an id in the local Hugging Face cache."),
    ROW(type, TYPE,
        "What the records are: chat_template, completion, alpaca and its kin, input_output, "
        "prompt_completion, tokenized; or a map with a format of one's own."),
    ROW(data_files, PATHS,
        "Files within path, which is a folder; in their last part * stands for any characters. "
        "With "
        "path: json (or text, csv): paths of their own."),
    ROW(ds_type, TEXT, "What path is where its name does not say it: json, text, csv or parquet."),
    ROW(name, TEXT, "A subset: the folder of this name within path."),
    ROW(split, TEXT,
        "train by default, the files of that name in a folder; with a slice: train[:1000], "
        "train[10%:50%], train[-100:]."),
    ROW(field, TEXT, "completion: the text's field ('text')."),
    ROW(field_messages, TEXT, "chat_template: the messages' field ('messages')."),
    ROW(field_system, TEXT, "The system message's field ('system')."),
    ROW(field_tools, TEXT, "chat_template: the tools' field ('tools')."),
    ROW(field_instruction, TEXT, "The instruction's field."),
    ROW(field_input, TEXT, "The input's field."),
    ROW(field_output, TEXT, "The answer's field."),
    ROW(format, TEXT, "A format of one's own: the prompt, with {instruction} and {input}."),
    ROW(no_input_format, TEXT, "The same for records without an input."),
    ROW(system_format, TEXT, "What stands before it, with {system}."),
    ROW(system_prompt, TEXT, "The system text of records without one."),
    ROW(message_property_mappings, PAIRS,
        "chat_template: which member of a message is what, e.g. {role: from, content: value}."),
    ROW(roles, ROLES,
        "chat_template: the records' names of roles, e.g. {user: [human, customer]}."),
    ROW(roles_to_train, TEXTS, "Whose turns are trained on; by default the assistant's."),
    ROW(train_on_eos, WHEN, "Which turns' ends are trained on: turn (those trained), all, last."),
    ROW(train_on_inputs, SWITCH, "Train on prompts too."),
    ROW(eot_tokens, TEXTS, "The tokens that end turns, where they cannot be found."),
    ROW(message_field_training, TEXT, "A message's member that says whether it is trained on."),
    ROW(message_field_role, TEXT, "An older way to say message_property_mappings: {role: ...}."),
    ROW(message_field_content, TEXT,
        "An older way to say message_property_mappings: {content: ...}."),
    ROW(chat_template, TEXT, "Another template for this dataset, as the option of that name."),
    ROW(chat_template_jinja, PATH, "The template's text, or a file with it."),
    ROW(chat_template_kwargs, MAP, "What this dataset's template is given besides the messages."),
    ROW(message_field_training_detail, TEXT,
        "A message's member with the parts of its text that are trained on: a list of "
        "{begin_offset, end_offset, train}, in characters, the last one included."),
    ROW(split_thinking, FLAG,
        "Take <think>...</think> out of the assistant's text, as its reasoning_content."),
    ROW(template_thinking_key, TEXT, "What the template calls reasoning ('reasoning_content')."),
    ROW(field_thinking, TEXT, "What the records call it, where that is another name."),
    ROW(drop_system_message, FLAG, "Leave system messages out."),
    ROW(revision, TEXT, "The branch or tag in the Hugging Face cache ('main')."),
    ROW(train_on_eot, WHEN,
        "As train_on_eos: ft has one rule for what ends turns. The two must not differ."),
    ROW(field_history, TEXT, "instruction: earlier turns, a list of [question, answer]."),
    NONE("trust_remote_code", SAME, "ft never runs a dataset's code."),
    NONE("preprocess_shards", SAME, "ft reads records one after the other."),
    NONE("shards", NOT_YET, "Take a slice instead: split: train[:10%]."),
    NONE("shards_idx", NOT_YET, "Take a slice instead: split: train[:10%]."),
    NONE("conversation", NOT_YET, "Use type: chat_template with a chat_template."),
    NONE("input_format", SAME, "Axolotl reads it nowhere."),
    NONE("input_transform", NOT_YET, "Change the data instead."),
    NONE("skip_thinking", NOT_YET, "Thoughts stay where the record has them."),
    NONE("field_human", SAME, "Axolotl reads it nowhere."),
    NONE("field_model", SAME, "Axolotl reads it nowhere."),
    NONE("logprobs_field", NOT_YET, "Distillation is another objective."),
    NONE("temperature", NOT_YET, "Distillation is another objective."),
    NONE("text_column", NOT_YET, "Use type: completion with a field."),
    NONE("skip", NOT_YET, "Take a slice instead: split: train[100:]."),
    NONE("field_chosen", NOT_YET, "Preference training is another objective."),
    NONE("field_rejected", NOT_YET, "Preference training is another objective."),
    NONE("step_separator", NOT_YET, "Reward models are another objective."),
    NONE("max_completion_length", NOT_YET, "Reward models are another objective."),
    NONE("train_on_last_step_only", NOT_YET, "Reward models are another objective."),
};
enum { ROWS = sizeof rows / sizeof *rows };

const char *ft_dataset_key(int i, const char **help)
{
    if (i >= ROWS || rows[i].kind >= SAME)
        return NULL;
    *help = rows[i].help;
    return rows[i].key;
}

const char *ft_dataset_help(const char *key)
{
    for (int i = 0; i < ROWS; i++)
        if (strcmp(rows[i].key, key) == 0)
            return rows[i].help;
    return NULL;
}

static int unknown(const char *key, const struct ft_yaml *e)
{
    const char *names[ROWS];
    for (int i = 0; i < ROWS; i++)
        names[i] = rows[i].key;
    const char *near = ft_nearest(e->key, names, ROWS);
    near = near && ft_is_near(e->key, near) ? near : NULL;
    ft_fail_at(e->key_at, FT_ECONFIG, "'%s' has no key '%s'", key, e->key);
    if (near)
        ft_hint("did you mean '%s'?", near);
    else
        ft_hint("see 'ft config --explain datasets'");
    return FT_ECONFIG;
}

/* {user: [human, prompter]} as pairs human user, prompter user */
static int read_roles(const char ***out, struct ft_arena *arena, const struct ft_yaml *n)
{
    size_t count = 0, i = 0;
    if (n->kind != FT_YAML_MAP)
        return ft_value_refuse("roles", n, "a map from roles to lists of roles");
    for (const struct ft_yaml *e = n->first; e; e = e->next)
        count += e->kind == FT_YAML_LIST ? (size_t)e->count : 1;
    *out = ft_arena_alloc(arena, 2 * count + 1, sizeof **out);
    if (!*out)
        return FT_ERESOURCE;
    for (const struct ft_yaml *e = n->first; e; e = e->next) {
        const char **sources;
        FT_TRY(ft_value_texts(&sources, arena, "roles", e));
        for (; *sources; sources++) {
            (*out)[i++] = *sources;
            (*out)[i++] = e->key;
        }
    }
    return FT_OK;
}

static int read_when(int *out, const struct ft_yaml *n)
{
    bool on;
    for (const struct ft_choice *c = ft_train_on_choices; c->name; c++)
        if (n->kind == FT_YAML_SCALAR && strcmp(n->text, c->name) == 0) {
            *out = c->value;
            return FT_OK;
        }
    if (ft_value_bool(n, &on)) {
        *out = on ? 0 : 3;
        return FT_OK;
    }
    return ft_value_refuse("train_on_eos", n, "turn, all, last or none");
}

static int read_paths(const char ***out, struct ft_arena *arena, const char *key,
                      const struct ft_yaml *n)
{
    FT_TRY(ft_value_texts(out, arena, key, n));
    const struct ft_yaml *e = n->kind == FT_YAML_LIST ? n->first : n;
    for (int i = 0; (*out)[i]; i++, e = e->next)
        FT_TRY(ft_value_path(&(*out)[i], arena, key, e));
    return FT_OK;
}

static int read_key(struct ft_config *c, const struct row *r, const struct ft_yaml *n,
                    struct ft_dataset_config *d);

/* The format's own keys, in a map. */
static int read_type(struct ft_config *c, const struct ft_yaml *n, struct ft_dataset_config *d)
{
    int rc = FT_OK;
    d->type = "user_defined";
    for (const struct ft_yaml *e = n->first; e; e = e->next) {
        int bad = FT_OK, i = 0;
        while (i < ROWS && strcmp(rows[i].key, e->key) != 0)
            i++;
        const bool of_formats = ft_starts_with(e->key, "field") || ft_ends_with(e->key, "format") ||
                                strcmp(e->key, "system_prompt") == 0;
        if (i < ROWS && rows[i].kind == TEXT && of_formats)
            bad = ft_yaml_is_null(e) ? FT_OK : read_key(c, &rows[i], e, d);
        else
            bad = unknown("type", e);
        rc = rc ? rc : bad;
    }
    return rc;
}

static int read_key(struct ft_config *c, const struct row *r, const struct ft_yaml *n,
                    struct ft_dataset_config *d)
{
    void *to = (char *)d + r->offset;
    bool flag;
    switch (r->kind) {
    case TYPE:
        if (n->kind == FT_YAML_MAP)
            return read_type(c, n, d);
        /* fall through */
    case TEXT:
        if (n->kind != FT_YAML_SCALAR)
            return ft_value_refuse(r->key, n, "a text");
        *(const char **)to = n->text;
        return FT_OK;
    case PATH:
        return ft_value_path(to, &c->arena, r->key, n);
    case PATHS:
        return read_paths(to, &c->arena, r->key, n);
    case TEXTS:
        return ft_value_texts(to, &c->arena, r->key, n);
    case PAIRS:
        return ft_value_pairs(to, &c->arena, r->key, n);
    case ROLES:
        return read_roles(to, &c->arena, n);
    case MAP:
        return ft_value_map(to, r->key, n);
    case FLAG:
        return ft_value_bool(n, to) ? FT_OK : ft_value_refuse(r->key, n, "true or false");
    case SWITCH:
        if (!ft_value_bool(n, &flag))
            return ft_value_refuse(r->key, n, "true or false");
        *(int *)to = flag;
        return FT_OK;
    case WHEN:
        return read_when(to, n);
    case SAME:
        ft_notice(n->at, "'%s' changes nothing: %s", r->key, r->help);
        return FT_OK;
    case NOT_YET:
        if (n->kind == FT_YAML_SCALAR && (!n->text[0] || (ft_value_bool(n, &flag) && !flag)))
            return FT_OK;
        ft_fail_at(n->at, FT_ECONFIG, "'%s' of a dataset is not supported", r->key);
        ft_hint("%s", r->help);
        return FT_ECONFIG;
    }
    return FT_OK;
}

static int check_entry(const char *key, const struct ft_yaml *n, struct ft_dataset_config *d)
{
    if (d->type && !*d->type)
        d->type = NULL;
    const bool tokens = d->path && ft_ends_with(d->path, ".safetensors");
    if (!d->path)
        return ft_fail_at(n->at, FT_ECONFIG, "this entry of '%s' has no 'path'", key);
    if (tokens && ((d->split && strcmp(d->split, "train") != 0) || d->data_files || d->name)) {
        ft_fail_at(d->at, FT_ECONFIG,
                   "'%s' is tokenized: 'split', 'data_files' and 'name' are for "
                   "text",
                   d->path);
        ft_hint("'ft data' makes a tokenized file of a split of text");
        return FT_ECONFIG;
    }
    if (tokens && d->type && strcmp(d->type, "tokenized") != 0)
        return ft_fail_at(d->at, FT_ECONFIG, "'%s' as '%s': a .safetensors file is tokenized",
                          d->path, d->type);
    return FT_OK;
}

static int read_entry(struct ft_config *c, const char *key, const struct ft_yaml *n,
                      struct ft_dataset_config *d)
{
    int rc = FT_OK;
    d->at = n->at;
    d->train_on_inputs = -1;
    d->train_on_eos = d->train_on_eot = 4;
    if (n->kind != FT_YAML_MAP)
        return ft_value_refuse(key, n, "entries with a 'path'");
    for (const struct ft_yaml *e = n->first; e; e = e->next) {
        int bad = FT_OK, i = 0;
        while (i < ROWS && strcmp(rows[i].key, e->key) != 0)
            i++;
        if (i == ROWS && (ft_yaml_is_null(e) || ft_value_is_off(e)))
            ft_notice(e->key_at, "'%s' has no key '%s', which is empty or off: it changes nothing",
                      key, e->key);
        else if (i == ROWS)
            bad = unknown(key, e);
        else if (!ft_yaml_is_null(e))
            bad = read_key(c, &rows[i], e, d);
        if (strcmp(e->key, "path") == 0)
            d->at = e->at;
        rc = rc ? rc : bad;
    }
    if (!rc && d->train_on_eos != 4 && d->train_on_eot != 4 && d->train_on_eos != d->train_on_eot)
        rc = ft_fail_at(n->at, FT_ECONFIG,
                        "'train_on_eot' and 'train_on_eos' differ: ft has one rule "
                        "for what ends turns");
    if (d->train_on_eos == 4)
        d->train_on_eos = d->train_on_eot;
    return rc ? rc : check_entry(key, n, d);
}

int ft_datasets_read(struct ft_config *c, const char *key, const struct ft_yaml *n,
                     struct ft_dataset_config **to, int *count)
{
    int rc = FT_OK;
    if (n->kind != FT_YAML_LIST)
        return ft_value_refuse(key, n, "a list of entries with a 'path'");
    *to = ft_arena_alloc(&c->arena, (size_t)n->count + 1, sizeof **to);
    if (!*to)
        return FT_ERESOURCE;
    for (const struct ft_yaml *e = n->first; e; e = e->next) {
        int bad = read_entry(c, key, e, &(*to)[(*count)++]);
        rc = rc ? rc : bad;
    }
    return rc;
}
