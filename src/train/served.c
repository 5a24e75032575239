/* What is served is what was trained: the files of the tokenizer in the run folder, with the
 * template that was used and the token that ends turns, where transformers, vLLM and llama.cpp read
 * them. */
#include "train/internal.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "text/chat.h"

#include <string.h>

static const char *const copied[] = {"tokenizer.model", "vocab.json", "merges.txt"};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* --- what the datasets say --- */

int ft_served_note(struct ft_served *v, const struct ft_source *s, const struct ft_audit *audit)
{
    for (int i = 0; i < FT_ENDS && audit->ends[i].count; i++)
        ft_ends_add(v->ends, audit->ends[i].id, audit->ends[i].count);
    if (!s->template_text)
        return FT_OK;
    if (v->template && strcmp(v->template, s->template_text) != 0)
        ft_notice(
            s->entry->at,
            "'%s' goes through another template than the first dataset, whose is written into "
            "'output_dir'",
            s->entry->path);
    if (v->template)
        return FT_OK;
    v->template = ft_strdup(s->template_text);
    return v->template ? FT_OK : FT_ERESOURCE;
}

/* The token that a server stops at: the tokenizer's own end if it ends turns, else what ends most.
 */
int ft_served_settle(struct ft_served *v, const struct ft_texts *t)
{
    int most = 0;
    bool own = false;
    for (int i = 0; i < FT_ENDS && v->ends[i].count; i++) {
        v->end_tokens[i] = ft_strdup(ft_tokenizer_token(t->tokenizer, v->ends[i].id));
        if (!v->end_tokens[i])
            return FT_ERESOURCE;
        own = own || v->ends[i].id == t->eos;
        most = v->ends[i].count > v->ends[most].count ? i : most;
    }
    if (own || !v->ends[most].count)
        return FT_OK;
    v->eos = ft_strdup(v->end_tokens[most]);
    return v->eos ? FT_OK : FT_ERESOURCE;
}

void ft_served_free(struct ft_served *v)
{
    ft_free(v->template);
    ft_free(v->eos);
    for (int i = 0; i < FT_ENDS; i++)
        ft_free(v->end_tokens[i]);
    for (int i = 0; i < v->n_added; i++)
        ft_free(v->added[i].content);
    ft_free(v->added);
    *v = (struct ft_served){0};
}

/* --- files --- */

/* to: NULL, all is read and made, and nothing written. */
struct place {
    const char *from, *to;
};

static int read_text(const char *folder, const char *name, char **text, size_t *n)
{
    char *path = ft_path_join(folder, name);
    int rc = path ? FT_OK : FT_ERESOURCE;
    *text = NULL;
    *n = 0;
    if (!rc && ft_file_exists(path))
        rc = ft_file_read(path, (size_t)1 << 30, FT_EDATA, text, n);
    ft_free(path);
    return rc;
}

static int write_text(const char *folder, const char *name, const char *text, size_t n)
{
    if (!folder)
        return FT_OK;
    char *path = ft_path_join(folder, name);
    int rc = path ? ft_file_write(path, text, n) : FT_ERESOURCE;
    ft_free(path);
    return rc;
}

static int copy(const struct place *p, const char *name)
{
    char *text;
    size_t n;
    int rc = read_text(p->from, name, &text, &n);
    if (!rc && text)
        rc = write_text(p->to, name, text, n);
    ft_free(text);
    return rc;
}

/* A JSON object of the model's folder, whole numbers kept; {} if it is not there. */
static int read_object(const struct place *p, const char *name, json_t **out)
{
    char *text, *path = ft_path_join(p->from, name);
    size_t n;
    *out = NULL;
    int rc = path ? read_text(p->from, name, &text, &n) : FT_ERESOURCE;
    if (!rc && text) {
        const struct ft_where at = {.file = path, .line = 1};
        rc = ft_json_record(text, n, at, FT_EDATA, out);
        if (!rc && !json_is_object(*out)) {
            rc = ft_fail_at(at, FT_EDATA, "is not a JSON object");
            json_decref(*out);
            *out = NULL;
        }
        ft_free(text);
    }
    ft_free(path);
    if (!rc && !*out && !(*out = json_object()))
        rc = ft_short_of_memory();
    return rc;
}

static int write_object(const struct place *p, const char *name, const json_t *o, unsigned since)
{
    char *text = ft_json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(17), since);
    int rc = text ? write_text(p->to, name, text, strlen(text)) : FT_ERESOURCE;
    ft_json_free(text);
    return rc;
}

/* --- names of tokens --- */

/* The token keeps the flags that it has there. */
static void set_token(json_t *o, const char *name, const char *token)
{
    json_t *old = json_object_get(o, name);
    if (json_is_object(old))
        json_object_set_new(old, "content", json_string(token));
    else
        json_object_set_new(o, name, json_string(token));
}

static bool renames(const struct ft_served *v, const struct ft_config *c)
{
    return v->eos || c->special_tokens;
}

static void set_tokens(json_t *o, const struct ft_served *v, const struct ft_config *c)
{
    for (const char **p = c->special_tokens; p && *p; p += 2)
        set_token(o, p[0], p[1]);
    if (v->eos)
        set_token(o, "eos_token", v->eos);
}

/* --- new tokens --- */

/* As tokenizer.json and tokenizer_config.json have it. */
static json_t *token_object(const struct ft_added_token *t)
{
    return json_pack("{ss sb sb sb sb sb}", "content", t->content, "single_word", 0, "lstrip", 0,
                     "rstrip", 0, "normalized", 0, "special", (int)t->special);
}

static int write_tokenizer(const struct place *p, const struct ft_served *v)
{
    const unsigned since = ft_alloc_failures();
    json_t *root;
    if (!v->n_added)
        return copy(p, "tokenizer.json");
    FT_TRY(read_object(p, "tokenizer.json", &root));
    json_t *list = json_object_get(root, "added_tokens");
    if (!json_is_array(list)) {
        list = json_array();
        json_object_set_new(root, "added_tokens", list);
    }
    for (int i = 0; i < v->n_added; i++) {
        json_t *one = json_pack("{sI}", "id", (json_int_t)v->added[i].id);
        json_object_update_new(one, token_object(&v->added[i]));
        json_array_append_new(list, one);
    }
    int rc = write_object(p, "tokenizer.json", root, since);
    json_decref(root);
    return rc;
}

/* added_tokens.json, where the folder has one. */
static int write_added(const struct place *p, const struct ft_served *v)
{
    const unsigned since = ft_alloc_failures();
    json_t *root;
    if (!v->n_added)
        return copy(p, "added_tokens.json");
    FT_TRY(read_object(p, "added_tokens.json", &root));
    const bool there = json_object_size(root) > 0;
    for (int i = 0; i < v->n_added; i++)
        json_object_set_new(root, v->added[i].content, json_integer(v->added[i].id));
    int rc = there ? write_object(p, "added_tokens.json", root, since) : FT_OK;
    json_decref(root);
    return rc;
}

static void set_decoder(json_t *config, const struct ft_served *v)
{
    json_t *decoder = json_object_get(config, "added_tokens_decoder");
    for (int i = 0; i < v->n_added && json_is_object(decoder); i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", v->added[i].id);
        json_object_set_new(decoder, id, token_object(&v->added[i]));
    }
}

/* The template's text, or the default one of a list of named ones. */
static void set_template(json_t *o, const char *text)
{
    json_t *v = json_object_get(o, "chat_template");
    bool found = false;
    for (size_t i = 0; i < json_array_size(v); i++) {
        json_t *one = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, "default") == 0) {
            json_object_set_new(one, "template", json_string(text));
            found = true;
        }
    }
    if (!found)
        json_object_set_new(o, "chat_template", json_string(text));
}

/* Whether the folder's own template is the one that was used. */
static int is_own_template(const char *folder, const struct ft_served *v, bool *is)
{
    char *text, *name;
    int rc = ft_chat_template(&text, &name, folder, false);
    *is = !v->template || (!rc && text && strcmp(text, v->template) == 0);
    ft_free(text);
    ft_free(name);
    return rc;
}

static int write_config(const struct place *p, const struct ft_served *v, const struct ft_config *c,
                        bool own_template)
{
    const unsigned since = ft_alloc_failures();
    json_t *config;
    if (own_template && !renames(v, c) && !v->n_added)
        return copy(p, "tokenizer_config.json");
    FT_TRY(read_object(p, "tokenizer_config.json", &config));
    set_tokens(config, v, c);
    set_decoder(config, v);
    if (!own_template)
        set_template(config, v->template);
    int rc = write_object(p, "tokenizer_config.json", config, since);
    json_decref(config);
    return rc;
}

static int write_map(const struct place *p, const struct ft_served *v, const struct ft_config *c)
{
    const unsigned since = ft_alloc_failures();
    json_t *map;
    if (!renames(v, c))
        return copy(p, "special_tokens_map.json");
    FT_TRY(read_object(p, "special_tokens_map.json", &map));
    const bool there = json_object_size(map) > 0;
    set_tokens(map, v, c);
    int rc = there ? write_object(p, "special_tokens_map.json", map, since) : FT_OK;
    json_decref(map);
    return rc;
}

/* --- where generation stops --- */

static bool has_id(const json_t *ids, int32_t id)
{
    for (size_t i = 0; i < json_array_size(ids); i++)
        if (json_integer_value(json_array_get(ids, i)) == id)
            return true;
    return false;
}

/* The base model's ids, by generation_config.json or else config.json. */
static json_t *known_ends(const json_t *generation, const json_t *model)
{
    json_t *list = json_array();
    const json_t *v = ft_json_get(generation, "eos_token_id");
    v = v ? v : ft_json_get(model, "eos_token_id");
    for (size_t i = 0; i < json_array_size(v); i++)
        json_array_append(list, json_array_get(v, i));
    if (json_is_integer(v))
        json_array_append(list, (json_t *)(uintptr_t)v);
    return list;
}

/* FT_EDATA for what is no id; a notice for an id that the model has not. */
static int check_ids(const struct place *p, const struct ft_served *v, const json_t *o,
                     const char *name)
{
    const json_t *ids = json_object_get(o, "eos_token_id");
    const size_t n = json_is_array(ids) ? json_array_size(ids) : !!ft_json_get(o, "eos_token_id");
    char *path = ft_path_join(p->from, name);
    int rc = path ? FT_OK : FT_ERESOURCE;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *id = json_is_array(ids) ? json_array_get(ids, i) : ids;
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id))
            rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                            "'eos_token_id' is neither a token's id nor a list of them");
        else if (value < 0 || value >= v->vocab)
            ft_notice((struct ft_where){.file = path},
                      "'eos_token_id' has %lld, which is no token of the model (0..%lld)",
                      (long long)value, (long long)v->vocab - 1);
    }
    ft_free(path);
    return rc;
}

/* The ends that the base model does not know join its own. *unknown: their names. */
static void join_ends(json_t *ends, const struct ft_served *v, char *unknown, size_t room)
{
    for (int i = 0; i < FT_ENDS && v->ends[i].count; i++)
        if (!has_id(ends, v->ends[i].id)) {
            const size_t at = strlen(unknown);
            json_array_append_new(ends, json_integer(v->ends[i].id));
            snprintf(unknown + at, room - at, "%s'%s'", at ? " and " : "", v->end_tokens[i]);
        }
}

static int write_ends(const struct place *p, const struct ft_served *v, json_t *generation,
                      const json_t *model)
{
    const unsigned since = ft_alloc_failures();
    char unknown[256] = "";
    json_t *ends = known_ends(generation, model);
    join_ends(ends, v, unknown, sizeof unknown);
    if (unknown[0] && !p->to)
        ft_notice((struct ft_where){.file = p->from},
                  "what is trained ends with %s, at which its eos_token_id does not stop: the "
                  "generation_config.json in 'output_dir' will",
                  unknown);
    int rc = ft_alloc_check(since);
    if (!rc && !unknown[0] && (json_object_size(generation) || !v->ends[0].count))
        rc = copy(p, "generation_config.json");
    else if (!rc) {
        json_object_set(generation, "eos_token_id", ends);
        if (!json_object_get(generation, "bos_token_id") && ft_json_get(model, "bos_token_id"))
            json_object_set(generation, "bos_token_id", json_object_get(model, "bos_token_id"));
        rc = write_object(p, "generation_config.json", generation, since);
    }
    json_decref(ends);
    return rc;
}

static int write_generation(const struct place *p, const struct ft_served *v)
{
    json_t *generation, *model = NULL;
    FT_TRY(read_object(p, "generation_config.json", &generation));
    int rc = read_object(p, "config.json", &model);
    if (!rc && !p->to)
        rc = check_ids(p, v, generation, "generation_config.json");
    if (!rc)
        rc = write_ends(p, v, generation, model);
    json_decref(generation);
    json_decref(model);
    return rc;
}

/* The template that a model has for records with tools. */
static int copy_tool_template(const struct place *p)
{
    char *text, *folder = ft_path_join(p->to ? p->to : "", "additional_chat_templates");
    size_t n;
    int rc = folder ? read_text(p->from, "additional_chat_templates/tool_use.jinja", &text, &n)
                    : FT_ERESOURCE;
    if (!rc && text) {
        rc = p->to ? ft_make_folders(folder) : FT_OK;
        if (!rc)
            rc = write_text(p->to ? folder : NULL, "tool_use.jinja", text, n);
        ft_free(text);
    }
    ft_free(folder);
    return rc;
}

static int write_all(const struct place *p, const struct ft_served *v, const struct ft_config *c)
{
    bool own;
    for (size_t i = 0; i < COUNT(copied); i++)
        FT_TRY(copy(p, copied[i]));
    FT_TRY(write_tokenizer(p, v));
    FT_TRY(write_added(p, v));
    FT_TRY(is_own_template(p->from, v, &own));
    FT_TRY(write_config(p, v, c, own));
    FT_TRY(write_map(p, v, c));
    FT_TRY(write_generation(p, v));
    FT_TRY(copy_tool_template(p));
    return own ? copy(p, "chat_template.jinja")
               : write_text(p->to, "chat_template.jinja", v->template, strlen(v->template));
}

/* What no file of a tokenizer can say, and a request has to. */
static void say_unserved(const struct ft_config *c)
{
    bool given = c->chat_template_kwargs && c->chat_template_kwargs->count;
    for (int i = 0; i < c->n_datasets; i++)
        given = given || c->datasets[i].chat_template_kwargs;
    if (given)
        ft_notice((struct ft_where){0},
                  "'chat_template_kwargs' is not part of the template: requests must give it too "
                  "to be rendered as they are trained");
    if (c->default_system_message)
        ft_notice((struct ft_where){0},
                  "'default_system_message' is not part of the template: requests must begin with "
                  "it to be rendered as they are trained");
}

int ft_served_check(struct ft_served *v, const struct ft_config *c, const char *from, int64_t vocab)
{
    v->vocab = vocab;
    if (v->template)
        say_unserved(c);
    return write_all(&(struct place){from, NULL}, v, c);
}

int ft_served_write(const struct ft_served *v, const struct ft_config *c, const char *from,
                    const char *to)
{
    return write_all(&(struct place){from, to}, v, c);
}

int ft_served_differs(const struct ft_served *v, const char *folder, bool *differs)
{
    bool own;
    FT_TRY(is_own_template(folder, v, &own));
    *differs = !own || v->eos;
    return FT_OK;
}
