/* From a record with a dataset's own names to the messages that templates take. */
#include "core/json.h"
#include "core/mem.h"
#include "data/internal.h"

#include <string.h>

static int short_of_memory(void)
{
    return ft_fail(FT_ERESOURCE, "out of memory");
}

/* A value that may be given as a text of JSON. */
static int parsed(json_t **out, const json_t *v, const char *what)
{
    json_error_t e;
    if (!json_is_string(v)) {
        *out = json_incref((json_t *)(uintptr_t)v);
        return FT_OK;
    }
    *out = json_loadb(json_string_value(v), json_string_length(v), JSON_DECODE_ANY | JSON_ALLOW_NUL,
                      &e);
    return *out ? FT_OK : ft_fail(FT_EDATA, "%s is a text that is not JSON: %s", what, e.text);
}

/* --- one message --- */

static const char *source_of(const struct ft_format_options *o, const char *property)
{
    for (const char *const *p = o->properties; p && *p; p += 2)
        if (strcmp(p[0], property) == 0)
            return p[1];
    return property;
}

static bool is_source(const struct ft_format_options *o, const char *key)
{
    for (const char *const *p = o->properties; p && *p; p += 2)
        if (strcmp(p[1], key) == 0)
            return true;
    return false;
}

/* ShareGPT's names, unless the entry has a table of its own. */
static const char *role_of(const struct ft_format_options *o, const char *role)
{
    static const char *const sharegpt[] = {"human", "user", "gpt", "assistant", NULL};
    for (const char *const *p = o->roles ? o->roles : sharegpt; *p; p += 2)
        if (strcmp(p[0], role) == 0)
            return p[1];
    return role;
}

static int part_text(const json_t *part, const json_t **text)
{
    static const char *const names[] = {"text", "content", "value"};
    const char *type = json_string_value(json_object_get(part, "type"));
    *text = NULL;
    if (ft_json_get(part, "train") || ft_json_get(part, "weight"))
        return ft_fail(FT_EDATA, "has parts with 'train' or 'weight', which ft cannot do yet");
    for (size_t k = 0; k < 3 && !json_is_string(*text); k++)
        *text = json_object_get(part, names[k]);
    return json_is_string(*text)
               ? FT_OK
               : ft_fail(FT_EDATA, "has a part of type '%s', only text can be trained on",
                         type ? type : "(none)");
}

/* Content in parts becomes one text. */
static int join_parts(json_t *message, const json_t *parts)
{
    const json_t *text;
    size_t n = 0;
    char *all;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        FT_TRY(part_text(json_array_get(parts, i), &text));
        n += json_string_length(text);
    }
    FT_TRY(ft_alloc(&all, n + 1, 1));
    n = 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        if (part_text(json_array_get(parts, i), &text))
            break;
        memcpy(all + n, json_string_value(text), json_string_length(text));
        n += json_string_length(text);
    }
    int bad = json_object_set_new(message, "content", json_stringn_nocheck(all, n));
    ft_free(all);
    return bad ? short_of_memory() : FT_OK;
}

/* A call's arguments may be a text of JSON. */
static int parse_calls(json_t *message)
{
    json_t *calls = json_deep_copy(json_object_get(message, "tool_calls")), *call;
    size_t i;
    int rc = calls ? FT_OK : short_of_memory();
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function"), *value = NULL;
        const json_t *arguments = json_object_get(function, "arguments");
        if (!rc && !json_is_object(call))
            rc = ft_fail(FT_EDATA, "has a tool call that is not an object");
        if (rc || !json_is_string(arguments) || !json_string_length(arguments))
            continue;
        rc = parsed(&value, json_object_get(function, "arguments"), "a call's 'arguments'");
        if (!rc && json_object_set_new(function, "arguments", value))
            rc = short_of_memory();
    }
    if (!rc && json_object_set(message, "tool_calls", calls))
        rc = short_of_memory();
    json_decref(calls);
    return rc;
}

/* Its properties by the template's names, without those that are null. */
static int copy_properties(json_t *to, const json_t *from, const struct ft_format_options *o)
{
    const char *key;
    json_t *value;
    int bad = 0;
    json_object_foreach((json_t *)(uintptr_t)from, key, value)
    {
        if (!json_is_null(value) && !is_source(o, key))
            bad |= json_object_set(to, key, value);
    }
    for (const char *const *p = o->properties; p && *p; p += 2) {
        value = json_object_get(from, p[1]);
        if (value && !json_is_null(value))
            bad |= json_object_set(to, p[0], value);
    }
    return bad ? short_of_memory() : FT_OK;
}

static int add_message(json_t *list, const json_t *from, const struct ft_format_options *o)
{
    json_t *to = json_object();
    int rc = to ? copy_properties(to, from, o) : short_of_memory();
    const char *role = json_string_value(json_object_get(to, "role"));
    if (!rc && !role) {
        rc = ft_fail(FT_EDATA, "has no '%s'", source_of(o, "role"));
        if (json_object_get(from, "from"))
            ft_hint("for ShareGPT's names: message_property_mappings: {role: from, content: "
                    "value}");
    }
    if (!rc && json_object_set_new(to, "role", json_string(role_of(o, role))))
        rc = short_of_memory();
    const json_t *content = json_object_get(to, "content");
    if (!rc && json_is_array(content))
        rc = join_parts(to, content);
    else if (!rc && content && !json_is_string(content))
        rc = ft_fail(FT_EDATA, "has a '%s' that is not a text", source_of(o, "content"));
    else if (!rc && !content && !json_object_get(to, "tool_calls"))
        rc = ft_fail(FT_EDATA, "has no '%s'", source_of(o, "content"));
    if (!rc && json_is_array(json_object_get(to, "tool_calls")))
        rc = parse_calls(to);
    if (!rc && json_array_append(list, to))
        rc = short_of_memory();
    json_decref(to);
    return rc;
}

/* --- the conversation --- */

static int add_system(json_t *list, const char *text, size_t n)
{
    json_t *message = json_pack("{ssss%}", "role", "system", "content", text, n);
    return !message || json_array_insert_new(list, 0, message) ? short_of_memory() : FT_OK;
}

/* The system message that the record has beside its messages, or the entry's own. */
static int complete(json_t *list, const json_t *record, const struct ft_format_options *o)
{
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "role"));
    const bool has = first && strcmp(first, "system") == 0;
    const json_t *own = ft_json_get(record, o->field_system ? o->field_system : "system");
    if (has && o->drop_system_message)
        return json_array_remove(list, 0) ? short_of_memory() : FT_OK;
    if (has || o->drop_system_message)
        return FT_OK;
    if (json_is_string(own))
        return add_system(list, json_string_value(own), json_string_length(own));
    if (o->default_system)
        return add_system(list, o->default_system, strlen(o->default_system));
    return FT_OK;
}

static int add_messages(json_t *list, const json_t *messages, const struct ft_format_options *o)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *one = json_array_get(messages, i);
        if (!json_is_object(one))
            return ft_fail(FT_EDATA, "message %zu is not an object", i + 1);
        int rc = add_message(list, one, o);
        if (rc)
            return rc == FT_EDATA ? ft_fail(FT_EDATA, "message %zu cannot be used", i + 1) : rc;
    }
    return FT_OK;
}

static int get_messages(json_t **out, const json_t *record, const struct ft_format_options *o)
{
    const char *field = o->field_messages ? o->field_messages : "messages";
    const json_t *messages = ft_json_get(record, field);
    *out = NULL;
    if (!messages) {
        ft_fail(FT_EDATA, "has no '%s'", field);
        if (json_object_get(record, "conversations"))
            ft_hint("there are 'conversations': field_messages: conversations, and for ShareGPT "
                    "message_property_mappings: {role: from, content: value}");
        return FT_EDATA;
    }
    FT_TRY(parsed(out, messages, field));
    if (json_is_array(*out) && json_array_size(*out) > 0)
        return FT_OK;
    json_decref(*out);
    *out = NULL;
    return ft_fail(FT_EDATA, "'%s' is not a list of messages", field);
}

int ft_conversation_from(json_t **out, const json_t *record, const struct ft_format_options *o)
{
    json_t *messages, *list = json_array(), *tools = NULL;
    const json_t *given = ft_json_get(record, o->field_tools ? o->field_tools : "tools");
    int rc = get_messages(&messages, record, o);
    if (!rc)
        rc = list ? add_messages(list, messages, o) : short_of_memory();
    if (!rc)
        rc = complete(list, record, o);
    if (!rc && given)
        rc = parsed(&tools, given, "'tools'");
    if (!rc && tools && !json_is_array(tools))
        rc = ft_fail(FT_EDATA, "'tools' is not a list");
    *out = rc ? NULL : json_pack("{sO}", "messages", list);
    if (!rc && (!*out || (json_array_size(tools) && json_object_set(*out, "tools", tools))))
        rc = short_of_memory();
    json_decref(messages);
    json_decref(list);
    json_decref(tools);
    return rc;
}
