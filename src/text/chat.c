/* Finds a folder's chat template and the special tokens it may name. */
#include "text/chat.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <string.h>

struct ft_chat {
    struct ft_template *template;
    json_t *tokens; /* bos_token, eos_token, ... */
};

/* A token is a text, or an object with its content. */
static void add_tokens(json_t *to, const json_t *config)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                        "sep_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = ft_json_get(config, names[i]);
        if (json_is_object(v))
            v = json_object_get(v, "content");
        if (json_is_string(v))
            json_object_set(to, names[i], (json_t *)v);
    }
}

/* The template's text: a text, or in a list of named ones the one named "default". */
static const char *template_text(const json_t *config)
{
    const json_t *v = ft_json_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *one = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(one, "template"));
    }
    return json_string_value(v);
}

static int open_template(struct ft_chat *c, const char *folder, const char *config_path,
                         const json_t *config)
{
    char *path = ft_path_join(folder, "chat_template.jinja"), *text = NULL;
    size_t n;
    int rc = path ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(path)) {
        rc = ft_file_read(path, 1 << 24, FT_EDATA, &text, &n);
        if (!rc)
            rc = ft_template_open(&c->template, text, path);
    } else if (!rc && template_text(config)) {
        rc = ft_template_open(&c->template, template_text(config), config_path);
    } else if (!rc) {
        rc = ft_fail_at((struct ft_where){.file = folder}, FT_EDATA,
                        "the model has no chat template (chat_template.jinja, or 'chat_template' "
                        "in tokenizer_config.json)");
    }
    ft_free(text);
    ft_free(path);
    return rc;
}

int ft_chat_open(struct ft_chat **out, const char *folder)
{
    char *path = ft_path_join(folder, "tokenizer_config.json");
    json_t *config = NULL;
    struct ft_chat *c;
    *out = NULL;
    int rc = path ? ft_alloc(&c, 1, sizeof *c) : FT_ERESOURCE;
    if (rc) {
        ft_free(path);
        return rc;
    }
    c->tokens = json_object();
    if (ft_file_exists(path))
        rc = ft_json_config(path, FT_EDATA, &config);
    if (!rc && !c->tokens)
        rc = ft_fail(FT_ERESOURCE, "out of memory");
    if (!rc)
        add_tokens(c->tokens, config);
    if (!rc)
        rc = open_template(c, folder, path, config);
    json_decref(config);
    ft_free(path);
    if (rc) {
        ft_chat_close(c);
        return rc;
    }
    *out = c;
    return FT_OK;
}

void ft_chat_close(struct ft_chat *c)
{
    if (!c)
        return;
    ft_template_close(c->template);
    json_decref(c->tokens);
    ft_free(c);
}

/* A message's reasoning goes by three names; templates read the first, or the second. */
static int name_reasoning(json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *v = (json_t *)(uintptr_t)ft_json_get(message, names[i]);
        if (!v)
            continue;
        return json_object_set(message, names[0], v) ||
               (!json_object_get(message, names[1]) && json_object_set(message, names[1], v));
    }
    return 0;
}

/* The messages as templates get them; a new list, NULL if memory is short. */
static json_t *prepared(const json_t *messages)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < json_array_size(messages); i++) {
        json_t *message = json_copy(json_array_get(messages, i));
        if ((json_is_object(message) && name_reasoning(message)) ||
            json_array_append_new(list, message)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

int ft_chat_render(const struct ft_chat *c, const json_t *record, bool prompt, long long now,
                   struct ft_rendered *out)
{
    json_t *context = json_copy(c->tokens);
    *out = (struct ft_rendered){0};
    if (!context || json_object_set_new(context, "tools", json_null()) ||
        json_object_set_new(context, "documents", json_null()) ||
        json_object_set_new(context, "add_generation_prompt", json_boolean(prompt)) ||
        json_object_update(context, (json_t *)(uintptr_t)record) ||
        (json_is_array(json_object_get(record, "messages")) &&
         json_object_set_new(context, "messages", prepared(json_object_get(record, "messages"))))) {
        json_decref(context);
        return ft_fail(FT_ERESOURCE, "out of memory");
    }
    int rc = ft_template_render(c->template, context, now, out);
    json_decref(context);
    return rc;
}
