/* What stands beside tokenizer.json about tokens: their names and flags, and tokens that stand only
 * there. As transformers' AutoTokenizer merges them (tokenization_utils_base.py, _from_pretrained,
 * and tokenization_utils_tokenizers.py of 5.23). */
#include "text/internal.h"

#include "core/file.h"
#include "core/mem.h"
#include "text/chat.h"

#include <stdlib.h>

/* The special tokens of transformers' classes of tokenizers, for folders that name none: one row.
 * types: the model_type of folders that do not name the class either. */
static const struct {
    const char *class, *types[8], *bos, *eos, *unk, *pad;
} classes[] = {
    {"GPT2Tokenizer", {"gpt2"}, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL},
    {"GPTNeoXTokenizer", {NULL}, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "<|padding|>"},
    {"CodeGenTokenizer", {NULL}, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL},
    {"Qwen2Tokenizer",
     {"qwen2", "qwen3", "qwen2_moe", "qwen3_moe"},
     NULL,
     "<|endoftext|>",
     "<|endoftext|>",
     "<|endoftext|>"},
    {"Qwen3_5Tokenizer", {"qwen3_5"}, NULL, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"},
    {"LlamaTokenizer", {NULL}, "<s>", "</s>", "<unk>", NULL},
    {"CodeLlamaTokenizer", {NULL}, "<s>", "</s>", "<unk>", NULL},
    {"GemmaTokenizer",
     {"gemma", "gemma2", "gemma3", "gemma3_text"},
     "<bos>",
     "<eos>",
     "<unk>",
     "<pad>"},
    {"CohereTokenizer", {NULL}, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>", "<PAD>"},
};

/* The row of a tokenizer_config.json, or of the model beside it; -1: none. */
static int class_of(const json_t *tokenizer, const json_t *model)
{
    const char *class = json_string_value(json_object_get(tokenizer, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(model, "model_type"));
    for (int i = 0; i < (int)(sizeof classes / sizeof *classes); i++) {
        const size_t n = strlen(classes[i].class);
        if (class && strncmp(class, classes[i].class, n) == 0 &&
            (!class[n] || strcmp(class + n, "Fast") == 0))
            return i;
        for (int k = 0; !class && type && classes[i].types[k]; k++)
            if (strcmp(type, classes[i].types[k]) == 0)
                return i;
    }
    return -1;
}

/* The folder's files; NULL: not there. */
struct files {
    const char *folder;
    json_t *config, *map, *added, *model;
    bool listed; /* the config has added_tokens_decoder, and transformers looks at no other file */
};

/* A JSON file of the folder; *out NULL if it is not there. */
int ft_folder_json(json_t **out, const char *folder, const char *file)
{
    char *path = ft_path_join(folder, file);
    int rc = path ? FT_OK : FT_ERESOURCE;
    *out = NULL;
    if (!rc && ft_file_exists(path))
        rc = ft_json_config(path, FT_EDATA, out);
    if (!rc && *out && !json_is_object(*out)) {
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "is not a JSON object");
        json_decref(*out);
        *out = NULL;
    }
    ft_free(path);
    return rc;
}

static int open_files(struct files *f, const char *folder)
{
    *f = (struct files){.folder = folder};
    FT_TRY(ft_folder_json(&f->config, folder, "tokenizer_config.json"));
    FT_TRY(ft_folder_json(&f->map, folder, "special_tokens_map.json"));
    f->listed = json_object_get(f->config, "added_tokens_decoder") != NULL;
    if (!f->listed)
        FT_TRY(ft_folder_json(&f->added, folder, "added_tokens.json"));
    if (!json_object_get(f->config, "tokenizer_class"))
        FT_TRY(ft_folder_json(&f->model, folder, "config.json"));
    return FT_OK;
}

static void close_files(struct files *f)
{
    json_decref(f->config);
    json_decref(f->map);
    json_decref(f->added);
    json_decref(f->model);
}

/* --- names --- */

static int add_of_class(json_t *to, int i)
{
    const struct {
        const char *name, *token;
    } tokens[] = {{"bos_token", classes[i].bos},
                  {"eos_token", classes[i].eos},
                  {"unk_token", classes[i].unk},
                  {"pad_token", classes[i].pad}};
    for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++)
        if (tokens[k].token &&
            json_object_set_new(to, tokens[k].name, json_string(tokens[k].token)))
            return ft_short_of_memory();
    return FT_OK;
}

/* A token is a text, or an object with its content. */
static const json_t *content_of(const json_t *v)
{
    v = json_is_object(v) ? json_object_get(v, "content") : v;
    return json_is_string(v) ? v : NULL;
}

static int add_name(json_t *to, const char *name, const json_t *v)
{
    const json_t *content = content_of(v);
    if (json_is_null(v)) /* none, whatever its class says */
        json_object_del(to, name);
    return content && json_object_set(to, name, (json_t *)(uintptr_t)content) ? ft_short_of_memory()
                                                                              : FT_OK;
}

static bool is_name(const char *key)
{
    return ft_ends_with(key, "_token") && !ft_starts_with(key, "add_");
}

/* transformers' names, in its order; others follow. */
static const char *const standard[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
enum { STANDARD = sizeof standard / sizeof *standard };

static bool is_standard(const char *name)
{
    for (size_t i = 0; i < STANDARD; i++)
        if (strcmp(standard[i], name) == 0)
            return true;
    return false;
}

/* bos_token, eos_token, image_token, ... */
static int add_names(json_t *to, const json_t *from)
{
    const char *key;
    json_t *value;
    const json_t *more = json_object_get(from, "extra_special_tokens");
    bool others = json_object_size(more) > 0;
    json_object_foreach((json_t *)(uintptr_t)from, key, value)
    {
        if (!is_name(key))
            continue;
        others = others || (!is_standard(key) && json_is_string(value));
        FT_TRY(add_name(to, key, value));
    }
    /* transformers 5's place for the model's own, which gives way to all others */
    more = others ? more : json_object_get(from, "model_specific_special_tokens");
    json_object_foreach((json_t *)(uintptr_t)more, key, value)
    {
        FT_TRY(add_name(to, key, value));
    }
    return FT_OK;
}

/* Two files that name different tokens: which one counts. */
static void say_difference(const struct files *f, const json_t *names)
{
    const char *key;
    json_t *value;
    json_object_foreach(f->map, key, value)
    {
        const char *said = json_string_value(content_of(value));
        const char *own = json_string_value(json_object_get(f->listed ? names : f->config, key));
        own = own ? own : json_string_value(content_of(json_object_get(f->config, key)));
        if (is_name(key) && said && own && strcmp(said, own) != 0)
            ft_notice((struct ft_where){.file = f->folder},
                      "tokenizer_config.json has '%s' as %s, special_tokens_map.json '%s'; the "
                      "%s counts, as in transformers",
                      own, key, said, f->listed ? "first" : "second");
    }
}

/* A template in both places: the file counts. */
static int say_templates(const struct files *f)
{
    const char *own = json_string_value(json_object_get(f->config, "chat_template"));
    char *path = ft_path_join(f->folder, "chat_template.jinja"), *text = NULL;
    int rc = path ? FT_OK : FT_ERESOURCE;
    if (!rc && own && ft_file_exists(path))
        rc = ft_chat_template_file(&text, path);
    if (!rc && text && strcmp(text, own) != 0)
        ft_notice((struct ft_where){.file = path},
                  "is another template than that of tokenizer_config.json; the file counts, as in "
                  "transformers");
    ft_free(text);
    ft_free(path);
    return rc;
}

static int find_names(json_t **out, const struct files *f)
{
    *out = json_object();
    const int class = class_of(f->config, f->model);
    int rc = *out ? FT_OK : ft_short_of_memory();
    if (!rc && class >= 0)
        rc = add_of_class(*out, class);
    if (!rc)
        rc = add_names(*out, f->config);
    if (!rc && !f->listed)
        rc = add_names(*out, f->map);
    return rc;
}

int ft_special_tokens(json_t **out, const char *folder)
{
    const unsigned since = ft_alloc_failures();
    struct files f;
    *out = NULL;
    int rc = open_files(&f, folder);
    if (!rc)
        rc = find_names(out, &f);
    if (!rc)
        rc = say_templates(&f);
    if (!rc)
        say_difference(&f, *out);
    close_files(&f);
    if (!rc)
        rc = ft_alloc_check(since);
    if (rc) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

/* --- tokens --- */

static bool flag(const json_t *spec, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(spec, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* Appends a token. spec: its object, or its text, which is special then. */
static int put(struct ft_token_list *l, const json_t *spec, long long id, bool special)
{
    const json_t *content = content_of(spec);
    if (!content)
        return FT_OK;
    special = flag(spec, "special", special || !json_is_object(spec));
    if (l->n == l->room) {
        FT_TRY(ft_grow(&l->v, 2 * l->room + 16, sizeof *l->v));
        l->room = 2 * l->room + 16;
    }
    char *copy = ft_arena_format(&l->arena, "%s", json_string_value(content));
    if (!copy)
        return FT_ERESOURCE;
    l->v[l->n++] = (struct ft_beside){.token = {.content = copy,
                                                .id = id > INT32_MAX ? INT32_MAX : (int32_t)id,
                                                .single_word = flag(spec, "single_word", false),
                                                .lstrip = flag(spec, "lstrip", false),
                                                .rstrip = flag(spec, "rstrip", false),
                                                .normalized = flag(spec, "normalized", !special),
                                                .special = special},
                                      .listed = id >= 0};
    return FT_OK;
}

static int by_id(const void *a, const void *b)
{
    const struct ft_beside *x = a, *y = b;
    return (x->token.id > y->token.id) - (x->token.id < y->token.id);
}

static bool is_among(const json_t *list, const char *token)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *one = json_string_value(content_of(json_array_get(list, i)));
        if (one && strcmp(one, token) == 0)
            return true;
    }
    return false;
}

static const json_t *extra_tokens(const struct files *f)
{
    const json_t *v = json_object_get(f->config, "extra_special_tokens");
    return json_is_array(v) && json_array_size(v)
               ? v
               : json_object_get(f->config, "additional_special_tokens");
}

static bool has_name(const json_t *names, const char *token)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)names, key, value)
    {
        if (strcmp(json_string_value(value), token) == 0)
            return true;
    }
    return false;
}

/* Those with ids: added_tokens_decoder, or added_tokens.json where there is none. */
static int put_listed(struct ft_token_list *l, const struct files *f, const json_t *names)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(f->config, "added_tokens_decoder"), key, value)
    {
        char *end;
        const long long id = strtoll(key, &end, 10);
        if (end == key || *end || id < 0 || !json_is_object(value))
            return ft_fail_at((struct ft_where){.file = f->folder}, FT_EDATA,
                              "tokenizer_config.json: 'added_tokens_decoder' has '%s', which is no "
                              "id with a token",
                              key);
        FT_TRY(put(l, value, id, false));
    }
    json_object_foreach(f->added, key, value)
    {
        const bool special = has_name(names, key) || is_among(extra_tokens(f), key);
        if (!json_is_number(value) || json_number_value(value) < 0)
            return ft_fail_at((struct ft_where){.file = f->folder}, FT_EDATA,
                              "added_tokens.json has '%s' without an id", key);
        json_t *spec = json_pack("{ss sb}", "content", key, "special", special);
        int rc = spec ? put(l, spec, (long long)json_number_value(value), special)
                      : ft_short_of_memory();
        json_decref(spec);
        FT_TRY(rc);
    }
    if (l->n)
        qsort(l->v, l->n, sizeof *l->v, by_id);
    return FT_OK;
}

/* With the flags that stand where the name does. */
static int put_name(struct ft_token_list *l, const struct files *f, const char *name,
                    const json_t *token)
{
    const json_t *own = !f->listed ? json_object_get(f->map, name) : NULL;
    own = content_of(own) ? own : json_object_get(f->config, name);
    const bool same = token && content_of(own) && json_equal(content_of(own), token);
    return put(l, same ? own : token, -1, true);
}

/* Named ones and further special ones, which are tokens even if nothing else says so. */
static int put_named(struct ft_token_list *l, const struct files *f, const json_t *names)
{
    const json_t *const extra[] = {
        extra_tokens(f), f->listed ? NULL : json_object_get(f->map, "extra_special_tokens")};
    const char *key;
    json_t *value;
    for (size_t i = 0; i < STANDARD; i++)
        FT_TRY(put_name(l, f, standard[i], json_object_get(names, standard[i])));
    json_object_foreach((json_t *)(uintptr_t)names, key, value)
    {
        if (!is_standard(key))
            FT_TRY(put_name(l, f, key, value));
    }
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < json_array_size(extra[k]); i++)
            FT_TRY(put(l, json_array_get(extra[k], i), -1, true));
    return FT_OK;
}

int ft_tokens_beside(struct ft_token_list *l, const char *folder)
{
    const unsigned since = ft_alloc_failures();
    json_t *names = NULL;
    struct files f;
    *l = (struct ft_token_list){.v = NULL};
    int rc = open_files(&f, folder);
    if (!rc)
        rc = find_names(&names, &f);
    if (!rc)
        rc = put_listed(l, &f, names);
    if (!rc)
        rc = put_named(l, &f, names);
    for (size_t i = 0; i < l->n && !rc; i++) /* a name makes a token special */
        l->v[i].token.special = l->v[i].token.special || has_name(names, l->v[i].token.content);
    json_decref(names);
    close_files(&f);
    return rc ? rc : ft_alloc_check(since);
}

void ft_token_list_free(struct ft_token_list *l)
{
    ft_free(l->v);
    ft_arena_fini(&l->arena);
}
