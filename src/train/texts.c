/* Owns the way from a config's dataset entries to tokenized files. */
#include "train/internal.h"

#include "core/file.h"
#include "core/mem.h"
#include "core/sha256.h"
#include "core/text.h"
#include "io/records.h"
#include "text/builtin.h"
#include "text/chat.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- what the model's folder says --- */

/* allow_data_problems names problems that are errors. */
static int check_allowed(const struct ft_config *c)
{
    const char *names[FT_PROBLEMS];
    char list[256] = "";
    size_t n = 0;
    for (int i = 0; i < FT_PROBLEMS; i++)
        if (ft_problems[i].spoils) {
            const size_t at = strlen(list);
            snprintf(list + at, sizeof list - at, "%s%s", n ? ", " : "", ft_problems[i].name);
            names[n++] = ft_problems[i].name;
        }
    for (const char **p = c->allow_data_problems; p && *p; p++) {
        bool known = false;
        for (size_t i = 0; i < n; i++)
            known = known || strcmp(*p, names[i]) == 0;
        if (known)
            continue;
        const char *near = ft_nearest(*p, names, n);
        ft_fail_at(ft_config_where(c, "allow_data_problems"), FT_ECONFIG,
                   "'allow_data_problems' has '%s', allowed are %s", *p, list);
        if (near)
            ft_hint("did you mean '%s'?", near);
        return FT_ECONFIG;
    }
    return FT_OK;
}

/* Whether ft never looks at the token of this name. */
static bool is_unused(const char *name)
{
    return strcmp(name, "pad_token") == 0 || strcmp(name, "unk_token") == 0;
}

int ft_texts_new_tokens(const struct ft_config *c, struct ft_new_token **out)
{
    struct ft_new_token *list;
    size_t n = 0, room = 1;
    for (const char **p = c->special_tokens; p && *p; p += 2)
        room++;
    for (const char **p = c->eot_tokens; p && *p; p++)
        room++;
    for (const char **p = c->tokens; p && *p; p++)
        room++;
    FT_TRY(ft_alloc(&list, room, sizeof *list));
    for (const char **p = c->special_tokens; p && *p; p += 2)
        if (!is_unused(p[0]))
            list[n++] = (struct ft_new_token){p[1], true, true};
    for (const char **p = c->tokens; p && *p; p++)
        list[n++] = (struct ft_new_token){*p, false, false};
    for (const char **p = c->eot_tokens; p && *p; p++)
        list[n++] = (struct ft_new_token){*p, true, true};
    *out = list;
    return FT_OK;
}

/* Which tokens the tokenizer gets: one of them may have been a slip of the pen. */
static void say_new_tokens(const struct ft_texts *t)
{
    char text[256] = "";
    size_t at = 0;
    const int32_t first = ft_tokenizer_own_size(t->tokenizer),
                  end = ft_tokenizer_size(t->tokenizer);
    for (int32_t id = first; id < end && at < sizeof text - 1; id++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s'%s' (%d)", at ? ", " : "",
                               ft_tokenizer_token(t->tokenizer, id), id);
    if (at)
        ft_notice((struct ft_where){.file = t->folder}, "the tokenizer gets %d new token%s: %s%s",
                  end - first, end - first == 1 ? "" : "s", text,
                  at >= sizeof text - 1 ? ", ..." : "");
}

static int open_tokenizer(struct ft_texts *t, const char *folder)
{
    struct ft_new_token *more;
    FT_TRY(ft_texts_new_tokens(t->config, &more));
    int rc = ft_tokenizer_open_folder(&t->tokenizer, folder, more);
    ft_free(more);
    if (!rc)
        say_new_tokens(t);
    return rc;
}

/* The config's own special tokens in the place of the model's. */
static int set_special(struct ft_texts *t)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                        "sep_token", "cls_token", "mask_token"};
    const size_t n = sizeof names / sizeof *names;
    const char **p = t->config->special_tokens;
    for (; p && *p; p += 2) {
        bool known = false;
        for (size_t i = 0; i < n; i++)
            known = known || strcmp(p[0], names[i]) == 0;
        if (!known) {
            const char *near = ft_nearest(p[0], names, n);
            ft_fail_at(ft_config_where(t->config, "special_tokens"), FT_ECONFIG,
                       "'special_tokens' has '%s', which ft does not know", p[0]);
            if (near)
                ft_hint("did you mean '%s'?", near);
            return FT_ECONFIG;
        }
        if (ft_tokenizer_id(t->tokenizer, p[1]) < 0) { /* not among the new ones: not used */
            ft_notice(
                ft_config_where(t->config, "special_tokens"),
                "'%s' as %s is not in the model's vocabulary: ft never pads, and does without",
                p[1], p[0]);
            continue;
        }
        if (json_object_set_new(t->special, p[0], json_string(p[1])))
            return ft_short_of_memory();
    }
    return FT_OK;
}

static int32_t special_id(const struct ft_texts *t, const char *name)
{
    const char *token = json_string_value(json_object_get(t->special, name));
    return token ? ft_tokenizer_id(t->tokenizer, token) : -1;
}

/* How many tokens the model knows: more may be added to a tokenizer. */
static int read_embeddings(struct ft_texts *t)
{
    json_t *root;
    FT_TRY(ft_folder_json(&root, t->folder, "config.json"));
    const json_t *n = json_object_get(root, "vocab_size");
    n = n ? n : json_object_get(json_object_get(root, "text_config"), "vocab_size");
    t->embeddings = json_number_value(n) > 0 ? (int64_t)json_number_value(n) : 0;
    const int32_t size = ft_tokenizer_size(t->tokenizer);
    if (size > ft_tokenizer_own_size(t->tokenizer) && t->embeddings && t->embeddings < size)
        t->embeddings = size; /* rows are added */
    json_decref(root);
    return FT_OK;
}

int ft_texts_open(struct ft_texts *t, const struct ft_config *c, const char *folder,
                  struct ft_pool *pool)
{
    t->config = c;
    t->pool = pool;
    t->folder = ft_strdup(folder);
    char *path = ft_path_join(folder, "tokenizer.json");
    int rc = path && t->folder ? FT_OK : FT_ERESOURCE;
    if (!rc && !ft_file_exists(path)) {
        rc = ft_fail_at((struct ft_where){.file = folder}, FT_EDATA,
                        "has no tokenizer.json, which text datasets need");
        ft_hint("with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...) writes "
                "one; or give a tokenized dataset");
    }
    if (!rc)
        rc = open_tokenizer(t, folder);
    if (!rc)
        rc = ft_special_tokens(&t->special, folder);
    if (!rc)
        rc = set_special(t);
    if (!rc)
        rc = check_allowed(c);
    ft_free(path);
    if (!rc) {
        t->bos = special_id(t, "bos_token");
        t->eos = special_id(t, "eos_token");
        rc = read_embeddings(t);
    }
    return rc;
}

int ft_tokenizer_sha256(const char *folder, char hex[65])
{
    char *path = ft_path_join(folder, "tokenizer.json");
    if (!path)
        return FT_ERESOURCE;
    if (!ft_sha256_file(path, hex, NULL))
        hex[0] = 0;
    ft_free(path);
    return FT_OK;
}

void ft_texts_close(struct ft_texts *t)
{
    ft_tokenizer_close(t->tokenizer);
    json_decref(t->special);
    ft_free(t->folder);
    *t = (struct ft_texts){0};
}

/* --- the template of an entry --- */

static int unknown_template(struct ft_where at, const char *name)
{
    const char *names[64], *one;
    char list[1024] = "";
    size_t n = 0;
    for (; (one = ft_builtin_name((int)n)) && n < 64; n++) {
        const size_t end = strlen(list);
        names[n] = one;
        snprintf(list + end, sizeof list - end, "%s%s", n ? ", " : "", one);
    }
    const char *near = ft_nearest(name, names, n);
    ft_fail_at(at, FT_ECONFIG, "'chat_template' is '%s', which ft does not have", name);
    ft_hint("%s%s%stokenizer_default is the model's own, jinja is that of chat_template_jinja; "
            "built in are %s",
            near ? "did you mean '" : "", near ? near : "", near ? "'? " : "", list);
    return FT_ECONFIG;
}

static int own_template(struct ft_source *s, const struct ft_texts *t, const char *jinja)
{
    char *path = jinja ? ft_config_path(t->config, jinja) : NULL;
    if (!jinja)
        return ft_fail_at(s->entry->at, FT_ECONFIG,
                          "'chat_template' is 'jinja', and there is no 'chat_template_jinja'");
    if (path && strlen(jinja) < PATH_MAX && ft_file_exists(path)) {
        int rc = ft_chat_template_file(&s->template_text, path);
        s->template_name = path;
        return rc;
    }
    const bool failed = path == NULL;
    ft_free(path);
    if (failed)
        return FT_ERESOURCE;
    if (!strstr(jinja, "{{") && !strstr(jinja, "{%"))
        return ft_fail_at(s->entry->at, FT_ECONFIG,
                          "'chat_template_jinja' is '%s', which is no file and no template", jinja);
    s->template_text = ft_strdup(jinja);
    s->template_name = ft_strdup("chat_template_jinja");
    return s->template_text && s->template_name ? FT_OK : FT_ERESOURCE;
}

static int open_template(struct ft_source *s, const struct ft_texts *t)
{
    static const char fallback[] = "tokenizer_default_fallback_";
    const struct ft_config *c = t->config;
    const bool own = s->entry->chat_template || s->entry->chat_template_jinja;
    const char *jinja = own ? s->entry->chat_template_jinja : c->chat_template_jinja;
    const char *name = own ? s->entry->chat_template : c->chat_template;
    if ((!name && jinja) || (name && strcmp(name, "jinja") == 0))
        return own_template(s, t, jinja);
    const bool falls_back = name && ft_starts_with(name, fallback);
    if (!name || falls_back || strcmp(name, "tokenizer_default") == 0) {
        FT_TRY(ft_chat_template(&s->template_text, &s->template_name, t->folder, false));
        if (s->template_text)
            return ft_chat_template(&s->tools_text, &s->tools_name, t->folder, true);
        if (!falls_back) {
            ft_fail_at((struct ft_where){.file = t->folder}, FT_EDATA,
                       "the model has no chat template, which '%s' needs", s->entry->path);
            ft_hint("name one: chat_template: chatml (or llama3, ...; see 'ft config --explain "
                    "chat_template')");
            return FT_EDATA;
        }
        name += sizeof fallback - 1;
    }
    const char *text = ft_builtin_template(name);
    if (!text)
        return unknown_template(s->entry->at, name);
    s->template_text = ft_strdup(text);
    s->template_name = ft_format("chat_template %s", name);
    return s->template_text && s->template_name ? FT_OK : FT_ERESOURCE;
}

/* A template's name, of an entry or of all. */
static int check_template(struct ft_where at, const char *name)
{
    static const char fallback[] = "tokenizer_default_fallback_";
    if (!name || strcmp(name, "jinja") == 0 || strcmp(name, "tokenizer_default") == 0)
        return FT_OK;
    if (ft_starts_with(name, fallback))
        name += sizeof fallback - 1;
    return ft_builtin_template(name) ? FT_OK : unknown_template(at, name);
}

static int check_entries(const struct ft_dataset_config *list, int n)
{
    int rc = FT_OK;
    for (int i = 0; i < n; i++) {
        ft_status_place(list[i].at);
        int bad =
            list[i].type && ft_source_is_text(&list[i]) ? ft_format_check(list[i].type) : FT_OK;
        ft_status_place((struct ft_where){0});
        rc = rc ? rc : bad;
        bad = check_template(list[i].at, list[i].chat_template);
        rc = rc ? rc : bad;
    }
    return rc;
}

int ft_texts_check(const struct ft_config *c)
{
    int rc = check_template(ft_config_where(c, "chat_template"), c->chat_template);
    int bad = check_entries(c->datasets, c->n_datasets);
    rc = rc ? rc : bad;
    bad = check_entries(c->test_datasets, c->n_test_datasets);
    return rc ? rc : bad;
}

/* --- an entry --- */

bool ft_source_is_text(const struct ft_dataset_config *entry)
{
    return !ft_ends_with(entry->path, ".safetensors");
}

/* message_property_mappings, with the older keys for the same. */
static int find_properties(struct ft_source *s)
{
    const struct ft_dataset_config *d = s->entry;
    size_t n = 0, at = 0;
    while (d->message_property_mappings && d->message_property_mappings[n])
        n++;
    FT_TRY(ft_alloc(&s->properties, n + 7, sizeof *s->properties));
    for (; at < n; at++)
        s->properties[at] = d->message_property_mappings[at];
    if (d->message_field_role) {
        s->properties[at++] = "role";
        s->properties[at++] = d->message_field_role;
    }
    if (d->message_field_content) {
        s->properties[at++] = "content";
        s->properties[at++] = d->message_field_content;
    }
    if (d->field_thinking) {
        s->properties[at++] =
            d->template_thinking_key ? d->template_thinking_key : "reasoning_content";
        s->properties[at++] = d->field_thinking;
    }
    return FT_OK;
}

static long long now(void)
{
    const char *fixed = getenv("SOURCE_DATE_EPOCH");
    return fixed && *fixed ? atoll(fixed) : (long long)time(NULL);
}

/* The special tokens, and what chat_template_kwargs adds. */
static int find_names(struct ft_source *s, const struct ft_texts *t)
{
    static const char *const others[] = {"messages", "tools", "documents", "add_generation_prompt",
                                         "chat_template"};
    const struct ft_yaml *more = s->entry->chat_template_kwargs ? s->entry->chat_template_kwargs
                                                                : t->config->chat_template_kwargs;
    s->names = json_copy(t->special);
    for (const struct ft_yaml *e = more ? more->first : NULL; e && s->names; e = e->next) {
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            if (strcmp(e->key, others[i]) == 0)
                return ft_fail_at(e->key_at, FT_ECONFIG,
                                  "'chat_template_kwargs' has '%s', which is not its to say",
                                  e->key);
        if (json_object_set_new(s->names, e->key, ft_value_json(e))) {
            json_decref(s->names);
            s->names = NULL;
        }
    }
    return s->names ? FT_OK : ft_short_of_memory();
}

/* A role that nearly is one that conversations have is said to be so. */
static void check_roles(const struct ft_source *s, const struct ft_texts *t)
{
    static const char *const known[] = {"system", "user", "assistant", "tool",
                                        "human",  "gpt",  "developer", "model"};
    const char *const *role = s->options.roles_to_train, *const * pair;
    const struct ft_where at =
        s->entry->roles_to_train ? s->entry->at : ft_config_where(t->config, "roles_to_train");
    for (; role && *role; role++) {
        const char *near = ft_nearest(*role, known, sizeof known / sizeof *known);
        bool is = !near || strcmp(near, *role) == 0;
        for (pair = s->options.roles; pair && *pair && !is; pair++)
            is = strcmp(*pair, *role) == 0;
        if (!is)
            ft_notice(at, "'roles_to_train' has '%s': did you mean '%s'?", *role, near);
    }
}

/* An entry without a type has token ids, as in Axolotl, or it is an error. Prompts and completions
 * may be messages, as TRL has them: the first record tells. */
static int find_type(struct ft_source *s)
{
    struct ft_raw raw = {0};
    struct ft_records *r;
    json_t *record = NULL;
    bool more;
    s->type = s->entry->type;
    if (s->type && strcmp(s->type, "prompt_completion") != 0)
        return FT_OK;
    FT_TRY(ft_records_open(&r, s->files[0], s->prepare.file_type));
    int rc = ft_records_next(r, &raw, &more);
    if (!rc && more)
        rc = ft_record_parse(r, &raw, &record);
    const char *prompt = s->entry->field_instruction ? s->entry->field_instruction : "prompt";
    if (!rc && s->type) {
        if (json_is_array(json_object_get(record, prompt)))
            s->type = "prompt_completion.messages";
    } else if (!rc && json_is_array(json_object_get(record, "input_ids"))) {
        s->type = "tokenized";
    } else if (!rc) {
        rc = ft_fail_at(s->entry->at, FT_ECONFIG, "'%s' has no 'type'", s->entry->path);
        ft_hint("messages are chat_template, plain text is completion, instruction and output are "
                "alpaca; 'ft init MODEL %s' finds out",
                s->entry->path);
    }
    json_decref(record);
    ft_raw_free(&raw);
    ft_records_close(r);
    return rc;
}

static int open_format(struct ft_source *s, const struct ft_texts *t, const struct ft_config *c)
{
    const struct ft_dataset_config *d = s->entry;
    FT_TRY(find_type(s));
    FT_TRY(find_properties(s));
    s->options = (struct ft_format_options){
        .type = s->type,
        .field = d->field,
        .field_messages = d->field_messages,
        .field_system = d->field_system,
        .field_tools = d->field_tools,
        .field_history = d->field_history,
        .field_instruction = d->field_instruction,
        .field_input = d->field_input,
        .field_output = d->field_output,
        .format = d->format,
        .no_input_format = d->no_input_format,
        .system_format = d->system_format,
        .system_prompt = d->system_prompt,
        .properties = s->properties,
        .roles = d->roles,
        .roles_to_train = d->roles_to_train ? d->roles_to_train : c->roles_to_train,
        .message_field_training = d->message_field_training,
        .message_field_training_detail = d->message_field_training_detail,
        .thinking_key = d->template_thinking_key,
        .split_thinking = d->split_thinking,
        .end_tokens = d->eot_tokens ? d->eot_tokens : c->eot_tokens,
        .default_system = c->default_system_message,
        .train_on_eos = (enum ft_train_on)(d->train_on_eos != FT_TRAIN_UNSET ? d->train_on_eos
                                                                             : c->train_on_eos),
        .train_on_inputs = d->train_on_inputs >= 0 ? d->train_on_inputs : c->train_on_inputs,
        .drop_system_message = d->drop_system_message,
        .embeddings = t->embeddings,
        .bos = t->bos,
        .eos = t->eos,
        .now = now(),
    };
    if (ft_format_needs_chat(s->type)) {
        FT_TRY(open_template(s, t));
        check_roles(s, t);
        FT_TRY(find_names(s, t));
        FT_TRY(ft_chat_new(&s->chat, s->template_text, s->template_name, s->names));
        if (s->tools_text)
            FT_TRY(ft_chat_add_tools(s->chat, s->tools_text, s->tools_name));
        s->says_date = strstr(s->template_text, "strftime_now") ||
                       (s->tools_text && strstr(s->tools_text, "strftime_now"));
    }
    return ft_format_open(&s->format, &s->options, t->tokenizer, s->chat);
}

int ft_source_open(struct ft_source *s, const struct ft_texts *t, const struct ft_config *c,
                   const struct ft_dataset_config *entry)
{
    const unsigned since = ft_alloc_failures();
    *s = (struct ft_source){.entry = entry};
    ft_status_place(entry->at);
    int rc = ft_source_files(s, c);
    if (!rc && ft_source_is_text(entry))
        rc = open_format(s, t, c);
    if (!rc)
        rc = ft_alloc_check(since);
    ft_status_place((struct ft_where){0});
    if (rc || !ft_source_is_text(entry))
        return rc;
    s->prepare.files = (const char *const *)s->files;
    s->prepare.format = s->format;
    s->prepare.tokenizer = t->tokenizer;
    s->prepare.bos = t->bos;
    s->prepare.sequence_len = c->sequence_len;
    s->prepare.skip_bad = c->skip_bad_records;
    s->prepare.pool = t->pool;
    s->prepare.progress = t->progress;
    s->prepare.progress_ctx = t->progress_ctx;
    return FT_OK;
}

void ft_source_close(struct ft_source *s)
{
    ft_format_close(s->format);
    ft_chat_close(s->chat);
    json_decref(s->names);
    ft_free_names(s->files);
    ft_free(s->properties);
    ft_free(s->template_text);
    ft_free(s->template_name);
    ft_free(s->tools_text);
    ft_free(s->tools_name);
    *s = (struct ft_source){0};
}
