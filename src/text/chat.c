/* Finds a folder's chat template and the special tokens it may name. */
#include "text/chat.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"

#include <string.h>

struct ft_chat {
    struct ft_template *template, *with_tools; /* with_tools may be NULL */
    json_t *tokens;                            /* bos_token, eos_token, ... */
};

/* The template's text: a text, or the one of this name in a list of named ones. */
static const char *template_text(const json_t *config, const char *named)
{
    const json_t *v = ft_json_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *one = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, named) == 0)
            return json_string_value(json_object_get(one, "template"));
    }
    return strcmp(named, "default") == 0 ? json_string_value(v) : NULL;
}

int ft_chat_template_file(char **text, const char *path)
{
    struct ft_where at = {.file = path, .line = 1, .col = 1};
    size_t n;
    FT_TRY(ft_file_read(path, 1 << 24, FT_EDATA, text, &n));
    const size_t good = strnlen(*text, ft_utf8_valid(*text, n));
    for (size_t i = 0; i < good; i++) {
        at.line += (*text)[i] == '\n';
        at.col = (*text)[i] == '\n' ? 1 : at.col + 1;
    }
    if (good == n)
        return FT_OK;
    ft_fail_at(at, FT_EDATA, "the byte 0x%02x is not UTF-8 text", (unsigned char)(*text)[good]);
    ft_free(*text);
    *text = NULL;
    return FT_EDATA;
}

int ft_chat_template(char **text, char **name, const char *folder, bool tools)
{
    char *path = ft_path_join(folder, tools ? "additional_chat_templates/tool_use.jinja"
                                            : "chat_template.jinja");
    json_t *config = NULL;
    int rc = path ? FT_OK : FT_ERESOURCE;
    *text = *name = NULL;
    if (!rc && ft_file_exists(path)) {
        rc = ft_chat_template_file(text, path);
        if (rc)
            ft_free(path);
        else
            *name = path;
        return rc;
    }
    ft_free(path);
    if (!rc)
        rc = ft_folder_json(&config, folder, "tokenizer_config.json");
    const char *own = template_text(config, tools ? "tool_use" : "default");
    if (!rc && own) {
        *text = ft_strdup(own);
        *name = ft_path_join(folder, "tokenizer_config.json");
        rc = *text && *name ? FT_OK : FT_ERESOURCE;
    }
    json_decref(config);
    return rc;
}

int ft_chat_add_tools(struct ft_chat *c, const char *text, const char *name)
{
    return ft_template_open(&c->with_tools, text, name);
}

const char *ft_chat_token(const struct ft_chat *c, const char *name)
{
    return json_string_value(json_object_get(c->tokens, name));
}

int ft_chat_new(struct ft_chat **out, const char *text, const char *name, json_t *tokens)
{
    struct ft_chat *c;
    *out = NULL;
    FT_TRY(ft_alloc(&c, 1, sizeof *c));
    c->tokens = json_incref(tokens);
    int rc = ft_template_open(&c->template, text, name);
    if (rc)
        ft_chat_close(c);
    else
        *out = c;
    return rc;
}

int ft_chat_open(struct ft_chat **out, const char *folder)
{
    char *text, *name, *tools = NULL, *tools_name = NULL;
    json_t *tokens = NULL;
    *out = NULL;
    int rc = ft_chat_template(&text, &name, folder, false);
    if (rc || !text)
        return rc;
    if (!rc)
        rc = ft_special_tokens(&tokens, folder);
    if (!rc)
        rc = ft_chat_new(out, text, name, tokens);
    if (!rc)
        rc = ft_chat_template(&tools, &tools_name, folder, true);
    if (!rc && tools)
        rc = ft_chat_add_tools(*out, tools, tools_name);
    if (rc) {
        ft_chat_close(*out);
        *out = NULL;
    }
    json_decref(tokens);
    ft_free(text);
    ft_free(name);
    ft_free(tools);
    ft_free(tools_name);
    return rc;
}

void ft_chat_close(struct ft_chat *c)
{
    if (!c)
        return;
    ft_template_close(c->template);
    ft_template_close(c->with_tools);
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
        int bad = json_is_object(message) ? name_reasoning(message) : 0;
        bad = json_array_append_new(list, message) || bad;
        if (bad) {
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
        return ft_short_of_memory();
    }
    const bool tools = c->with_tools && ft_json_get(record, "tools");
    int rc = ft_template_render(tools ? c->with_tools : c->template, context, now, out);
    json_decref(context);
    return rc;
}
