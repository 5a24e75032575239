/* From a record with a dataset's own names to the messages that templates take. */
#define _GNU_SOURCE
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "data/internal.h"

#include <string.h>

/* A value that may be given as a text of JSON. */
static int parsed(json_t **out, const json_t *v, const char *what)
{
    const char *why;
    if (!json_is_string(v)) {
        *out = json_incref((json_t *)(uintptr_t)v);
        return FT_OK;
    }
    FT_TRY(ft_json_within(out, json_string_value(v), json_string_length(v), &why));
    return *out ? FT_OK : ft_fail(FT_EDATA, "%s is a text that is not JSON: %s", what, why);
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
const char *ft_role_of(const struct ft_format_options *o, const char *role)
{
    static const char *const sharegpt[] = {"human",         "user",        "gpt",
                                           "assistant",     "observation", "tool",
                                           "function_call", "assistant",   NULL};
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
    for (size_t k = 0; k < 3 && !json_is_string(*text); k++)
        *text = json_object_get(part, names[k]);
    return json_is_string(*text)
               ? FT_OK
               : ft_fail(FT_EDATA, "has a part of type '%s', only text can be trained on",
                         type ? type : "(none)");
}

/* What begins where the last range ended continues it. */
static int add_range(json_t *ranges, size_t begin, size_t end)
{
    json_t *last = json_array_get(ranges, json_array_size(ranges) - 1);
    if (last && json_integer_value(json_array_get(last, 1)) == (json_int_t)begin && end > begin)
        return json_array_set_new(last, 1, json_integer((json_int_t)end)) ? ft_short_of_memory()
                                                                          : FT_OK;
    return end > begin && json_array_append_new(
                              ranges, json_pack("[II]", (json_int_t)begin, (json_int_t)end))
               ? ft_short_of_memory()
               : FT_OK;
}

/* The bytes of a text in parts that are trained on, if any part says whether it is; *out NULL: none
 * does; false: there is no text to train on. */
static int trained_parts(json_t **out, const json_t *parts)
{
    json_t *ranges = json_array();
    bool says = false;
    size_t at = 0;
    int rc = ranges ? FT_OK : ft_short_of_memory();
    for (size_t i = 0; i < json_array_size(parts) && !rc; i++) {
        const json_t *part = json_array_get(parts, i), *text;
        const json_t *own = ft_json_get(part, "train");
        own = own ? own : ft_json_get(part, "weight");
        if (own && !json_is_boolean(own) && !json_is_number(own))
            rc = ft_fail(FT_EDATA, "has a part whose 'train' is neither true nor false");
        if (!rc)
            rc = part_text(part, &text);
        if (rc)
            break;
        const size_t end = at + json_string_length(text);
        if (!own || json_is_true(own) || json_number_value(own) != 0)
            rc = add_range(ranges, at, end);
        says = says || own;
        at = end;
    }
    if (rc || !says || at == 0) {
        json_decref(ranges);
        ranges = NULL;
    }
    *out = !rc && says && at == 0 ? json_false() : ranges;
    return rc;
}

/* The same of a list of {begin_offset, end_offset, train}, in characters, ends included. */
static int trained_details(json_t **out, const json_t *details, const json_t *content)
{
    const char *text = json_string_value(content);
    *out = json_array_size(details) ? json_array() : json_false();
    int rc = *out ? FT_OK : ft_short_of_memory();
    for (size_t i = 0; i < json_array_size(details) && !rc; i++) {
        const json_t *one = json_array_get(details, i), *own = json_object_get(one, "train");
        const json_t *first = json_object_get(one, "begin_offset");
        const json_t *last = json_object_get(one, "end_offset");
        size_t at = 0, begin = 0;
        if (!json_is_integer(first) || !json_is_integer(last) || !json_is_boolean(own) || !text)
            rc = ft_fail(FT_EDATA, "has details of training without begin_offset, end_offset and "
                                   "train: true or false");
        if (rc || !json_is_true(own))
            continue;
        for (json_int_t c = 0; c <= json_integer_value(last) && at < json_string_length(content);
             c++) {
            begin = c <= json_integer_value(first) ? at : begin;
            at += (size_t)ft_char_length(text[at]);
        }
        if (json_integer_value(first) <= json_integer_value(last))
            rc = add_range(*out, begin, at);
    }
    if (rc) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

/* A text in parts becomes one. */
static int join_parts(json_t *message, const char *key, const json_t *parts)
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
    int bad = json_object_set_new(message, key, json_stringn_nocheck(all, n));
    ft_free(all);
    return bad ? ft_short_of_memory() : FT_OK;
}

/* A call's arguments may be a text of JSON. */
static int parse_calls(json_t *message)
{
    json_t *calls = json_deep_copy(json_object_get(message, "tool_calls")), *call;
    size_t i;
    int rc = calls ? FT_OK : ft_short_of_memory();
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function"), *value = NULL;
        const json_t *arguments = json_object_get(function, "arguments");
        if (!rc && !json_is_object(call))
            rc = ft_fail(FT_EDATA, "has a tool call that is not an object");
        if (!rc && json_is_string(arguments) && !json_string_length(arguments)) {
            rc = ft_fail(FT_EDATA, "has a call whose 'arguments' are an empty text");
            ft_hint("a call without arguments has {}");
        }
        if (rc || !json_is_string(arguments))
            continue;
        rc = parsed(&value, json_object_get(function, "arguments"), "a call's 'arguments'");
        if (!rc && json_object_set_new(function, "arguments", value))
            rc = ft_short_of_memory();
    }
    if (!rc && json_object_set(message, "tool_calls", calls))
        rc = ft_short_of_memory();
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
        const bool kept = !json_is_null(value) || strcmp(key, "content") == 0;
        if (kept && !is_source(o, key))
            bad |= json_object_set(to, key, value);
    }
    for (const char *const *p = o->properties; p && *p; p += 2) {
        value = json_object_get(from, p[1]);
        if (value && (!json_is_null(value) || strcmp(p[0], "content") == 0))
            bad |= json_object_set(to, p[0], value);
    }
    return bad ? ft_short_of_memory() : FT_OK;
}

static const char *thinking_key(const struct ft_format_options *o)
{
    return o->thinking_key ? o->thinking_key : "reasoning_content";
}

/* A part of a text. */
struct piece {
    const char *p;
    size_t n;
};

/* What stands between two marks, both of which are in s, and behind the second. */
static bool between(struct piece s, const char *open, const char *close, struct piece *inside,
                    struct piece *behind)
{
    const char *from = memmem(s.p, s.n, open, strlen(open));
    const char *to = memmem(s.p, s.n, close, strlen(close)), *const end = s.p + s.n;
    if (!from || !to)
        return false;
    from += strlen(open);
    *inside = (struct piece){from, to > from ? (size_t)(to - from) : 0};
    to += strlen(close);
    *behind = (struct piece){to, (size_t)(end - to)};
    return true;
}

/* Thoughts that stand in the text become the message's reasoning. */
static int split_thinking(json_t *message, const struct ft_format_options *o)
{
    static const char *const marks[][2] = {{"<think>", "</think>"},
                                           {"<reasoning>", "</reasoning>"},
                                           {"<|begin_of_thought|>", "<|end_of_thought|>"}};
    const json_t *content = json_object_get(message, "content");
    const struct piece all = {json_string_value(content), json_string_length(content)};
    struct piece thought, rest, answer, unused;
    size_t i = 0;
    while (all.p && i < 3 && !between(all, marks[i][0], marks[i][1], &thought, &rest))
        i++;
    if (!all.p || i == 3)
        return FT_OK;
    ft_strip(&thought.p, &thought.n, true, true);
    json_t *own = json_stringn_nocheck(thought.p, thought.n);
    ft_strip(&rest.p, &rest.n, true, false);
    if (between(rest, "<|begin_of_solution|>", "<|end_of_solution|>", &answer, &unused))
        ft_strip(&answer.p, &answer.n, true, true);
    else
        answer = rest;
    json_t *text = json_stringn_nocheck(answer.p, answer.n);
    int bad = json_object_set_new(message, thinking_key(o), own);
    bad = json_object_set_new(message, "content", text) || bad;
    return bad ? ft_short_of_memory() : FT_OK;
}

/* Texts in parts, and which bytes of the message's words are trained on: *parts; NULL: all or none,
 * as its role says; false: none, unless it says so itself. */
static int read_parts(json_t *message, const struct ft_format_options *o, json_t **parts)
{
    json_t *thoughts = json_object_get(message, thinking_key(o)), *unused = NULL;
    const json_t *content = json_object_get(message, "content");
    const json_t *details = o->message_field_training_detail
                                ? ft_json_get(message, o->message_field_training_detail)
                                : NULL;
    if (json_is_array(content)) {
        FT_TRY(trained_parts(parts, content));
        FT_TRY(join_parts(message, "content", content));
    }
    if (json_is_array(details) && !*parts)
        FT_TRY(trained_details(parts, details, json_object_get(message, "content")));
    else if (details && !json_is_array(details))
        return ft_fail(FT_EDATA, "has a '%s' that is not a list", o->message_field_training_detail);
    if (!json_is_array(thoughts))
        return FT_OK;
    FT_TRY(trained_parts(&unused, thoughts));
    const bool says = unused != NULL;
    json_decref(unused);
    return says ? ft_fail(FT_EDATA, "has reasoning in parts with 'train' or 'weight', which ft "
                                    "cannot do yet")
                : join_parts(message, thinking_key(o), thoughts);
}

/* A text under another name than those that templates know, in a message that has none: the mapping
 * is wrong, rather than that nothing is said. */
static bool has_other_words(const json_t *message)
{
    static const char *const known[] = {
        "role", "name", "reasoning_content", "thinking", "reasoning", "tool_call_id", "id"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)message, key, value)
    {
        bool is = !json_is_string(value);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            is = is || strcmp(key, known[i]) == 0;
        if (!is)
            return true;
    }
    return false;
}

/* A call by its name, or a list of such; NULL: it is something else. */
static json_t *calls_of(const json_t *v)
{
    json_t *list = json_array();
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    for (size_t i = 0; i < n; i++) {
        json_t *one = json_is_array(v) ? json_array_get(v, i) : (json_t *)(uintptr_t)v;
        if (!json_is_string(json_object_get(one, "name"))) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, json_pack("{sssO}", "type", "function", "function", one));
    }
    return list;
}

/* ShareGPT's turn that calls a tool: its text is the call, or a list of calls, as JSON; any other
 * text stays the assistant's words. */
static int read_function_call(json_t *message)
{
    const json_t *content = json_object_get(message, "content");
    const unsigned since = ft_alloc_failures();
    const char *why;
    json_t *v = NULL;
    if (!json_is_string(content) || json_object_get(message, "tool_calls"))
        return FT_OK;
    FT_TRY(ft_json_within(&v, json_string_value(content), json_string_length(content), &why));
    json_t *calls = calls_of(v);
    if (calls) {
        json_object_set_new(message, "tool_calls", calls);
        json_object_set_new(message, "content", json_null());
    }
    json_decref(v);
    return ft_alloc_check(since);
}

/* *parts: see read_parts. */
static int add_message(json_t *list, const json_t *from, const struct ft_format_options *o,
                       json_t **parts)
{
    *parts = NULL;
    json_t *to = json_object();
    int rc = to ? copy_properties(to, from, o) : ft_short_of_memory();
    const char *role = json_string_value(json_object_get(to, "role"));
    if (!rc && !role) {
        rc = ft_fail(FT_EDATA, "has no '%s'", source_of(o, "role"));
        if (json_object_get(from, "from"))
            ft_hint("for ShareGPT's names: message_property_mappings: {role: from, content: "
                    "value}");
    }
    if (!rc && strcmp(role, "function_call") == 0)
        rc = read_function_call(to);
    if (!rc && json_object_set_new(to, "role", json_string(ft_role_of(o, role))))
        rc = ft_short_of_memory();
    if (!rc)
        rc = read_parts(to, o, parts);
    const json_t *content = json_object_get(to, "content");
    if (!rc && content && !json_is_string(content) && !json_is_null(content))
        rc = ft_fail(FT_EDATA, "has a '%s' that is not a text", source_of(o, "content"));
    else if (!rc && !content && has_other_words(to))
        rc = ft_fail(FT_EDATA, "has no '%s'", source_of(o, "content"));
    if (!rc && o->split_thinking && strcmp(ft_role_of(o, role), "assistant") == 0)
        rc = *parts ? ft_fail(FT_EDATA, "has parts with 'train' or 'weight', which "
                                        "'split_thinking' cannot cut")
                    : split_thinking(to, o);
    if (!rc && json_is_array(json_object_get(to, "tool_calls")))
        rc = parse_calls(to);
    if (!rc && json_array_append(list, to))
        rc = ft_short_of_memory();
    json_decref(to);
    return rc;
}

/* --- the conversation --- */

static int add_system(json_t *list, const char *text, size_t n)
{
    json_t *message = json_pack("{ssss%}", "role", "system", "content", text, n);
    return !message || json_array_insert_new(list, 0, message) ? ft_short_of_memory() : FT_OK;
}

/* The system message that the record has beside its messages, or the entry's own. */
static int complete(json_t *list, json_t *parts, const json_t *record,
                    const struct ft_format_options *o)
{
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "role"));
    const bool has = first && strcmp(first, "system") == 0;
    const json_t *own = ft_json_get(record, o->field_system ? o->field_system : "system");
    if (has && o->drop_system_message)
        return json_array_remove(list, 0) || json_array_remove(parts, 0) ? ft_short_of_memory()
                                                                         : FT_OK;
    if (has || o->drop_system_message || (!json_is_string(own) && !o->default_system))
        return FT_OK;
    if (json_array_insert_new(parts, 0, json_null()))
        return ft_short_of_memory();
    return json_is_string(own) ? add_system(list, json_string_value(own), json_string_length(own))
                               : add_system(list, o->default_system, strlen(o->default_system));
}

static int add_messages(json_t *list, json_t *parts, const json_t *messages,
                        const struct ft_format_options *o)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *one = json_array_get(messages, i);
        if (!json_is_object(one))
            return ft_fail(FT_EDATA, "message %zu is not an object", i + 1);
        json_t *own;
        int rc = add_message(list, one, o, &own);
        if (json_array_append_new(parts, own ? own : json_null()) && !rc)
            rc = ft_short_of_memory();
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

/* A tool's parameters may be a text of JSON. */
static int parse_tools(json_t **tools)
{
    json_t *copy = json_deep_copy(*tools), *tool;
    size_t i;
    int rc = copy ? FT_OK : ft_short_of_memory();
    json_array_foreach(copy, i, tool)
    {
        if (json_is_object(tool) && !json_object_get(tool, "function") &&
            json_is_string(json_object_get(tool, "name"))) { /* bare, as ShareGPT has them */
            json_t *whole = json_pack("{sssO}", "type", "function", "function", tool);
            if (!whole || json_array_set_new(copy, i, whole))
                rc = ft_short_of_memory();
            tool = json_array_get(copy, i);
        }
        json_t *function = json_object_get(tool, "function"), *value = NULL;
        const json_t *parameters = json_object_get(function, "parameters");
        if (rc || !json_is_string(parameters))
            continue;
        rc = parsed(&value, parameters, "a tool's 'parameters'");
        if (!rc && json_object_set_new(function, "parameters", value))
            rc = ft_short_of_memory();
    }
    json_decref(*tools);
    *tools = copy;
    return rc;
}

/* The messages with the record's system message and tools. */
static int assemble(json_t **out, json_t *list, json_t *parts, const json_t *record,
                    const struct ft_format_options *o)
{
    const json_t *given = ft_json_get(record, o->field_tools ? o->field_tools : "tools");
    json_t *tools = NULL;
    int rc = complete(list, parts, record, o);
    if (!rc && given)
        rc = parsed(&tools, given, "'tools'");
    if (!rc && tools && !json_is_array(tools))
        rc = ft_fail(FT_EDATA, "'tools' is not a list");
    if (!rc && tools)
        rc = parse_tools(&tools);
    *out = rc ? NULL : json_pack("{sOsO}", "messages", list, "ft parts", parts);
    if (!rc && (!*out || (json_array_size(tools) && json_object_set(*out, "tools", tools))))
        rc = ft_short_of_memory();
    json_decref(tools);
    return rc;
}

int ft_conversation_from(json_t **out, const json_t *record, const struct ft_format_options *o)
{
    json_t *messages, *list = json_array(), *parts = json_array();
    *out = NULL;
    int rc = get_messages(&messages, record, o);
    if (!rc)
        rc = list && parts ? add_messages(list, parts, messages, o) : ft_short_of_memory();
    if (!rc)
        rc = assemble(out, list, parts, record, o);
    json_decref(messages);
    json_decref(list);
    json_decref(parts);
    return rc;
}

static int add_list(json_t *list, json_t *parts, const json_t *record, const char *field,
                    const struct ft_format_options *o)
{
    const json_t *v = ft_json_get(record, field);
    if (!json_is_array(v) || json_array_size(v) == 0)
        return ft_fail(FT_EDATA, "'%s' is not a list of messages", field);
    return add_messages(list, parts, v, o);
}

int ft_conversation_from_pair(json_t **out, const json_t *record, const char *prompt,
                              const char *completion, const struct ft_format_options *o)
{
    json_t *list = json_array(), *parts = json_array();
    *out = NULL;
    int rc = list && parts ? add_list(list, parts, record, prompt, o) : ft_short_of_memory();
    for (size_t i = 0; i < json_array_size(parts) && !rc; i++)
        if (json_array_set_new(parts, i, json_false()))
            rc = ft_short_of_memory();
    if (!rc)
        rc = add_list(list, parts, record, completion, o);
    if (!rc)
        rc = assemble(out, list, parts, record, o);
    json_decref(list);
    json_decref(parts);
    return rc;
}

static int add_text(json_t *list, const char *role, const json_t *text)
{
    if (!json_is_string(text))
        return ft_fail(FT_EDATA, "has earlier turns that are not pairs of texts");
    json_t *message = json_pack("{sssO}", "role", role, "content", text);
    return !message || json_array_append_new(list, message) ? ft_short_of_memory() : FT_OK;
}

static int add_own(json_t *list, const char *role, const char *text)
{
    json_t *v = json_string(text);
    int rc = v ? add_text(list, role, v) : ft_short_of_memory();
    json_decref(v);
    return rc;
}

int ft_conversation_from_texts(json_t **out, const char *system, const json_t *history,
                               const char *question, const char *answer)
{
    json_t *list = json_array();
    int rc = list ? FT_OK : ft_short_of_memory();
    *out = NULL;
    if (!rc && *system)
        rc = add_own(list, "system", system);
    if (!rc && history && !json_is_array(history))
        rc = ft_fail(FT_EDATA, "has earlier turns that are not a list");
    for (size_t i = 0; i < json_array_size(history) && !rc; i++) {
        const json_t *pair = json_array_get(history, i);
        rc = add_text(list, "user", json_array_get(pair, 0));
        if (!rc)
            rc = add_text(list, "assistant", json_array_get(pair, 1));
    }
    if (!rc)
        rc = add_own(list, "user", question);
    if (!rc)
        rc = add_own(list, "assistant", answer);
    if (!rc && !(*out = json_pack("{sO}", "messages", list)))
        rc = ft_short_of_memory();
    json_decref(list);
    return rc;
}
