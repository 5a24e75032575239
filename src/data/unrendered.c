/* Which parts of a record the template leaves out: those whose words may be others without a
 * change. */
#include "data/conversation.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"

#include <stdio.h>
#include <string.h>

const char *const ft_part_names[FT_PARTS] = {"content", "reasoning_content", "tool_calls",
                                             "name",    "other members",     "tools"};

static int short_of_memory(void)
{
    return ft_fail(FT_ERESOURCE, "out of memory");
}

/* Members that are no words. */
static bool is_plumbing(const struct conversation *c, const char *key)
{
    static const char *const keys[] = {"role",  "id",     "tool_call_id", "type",
                                       "train", "weight", "training"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return c->rules->field && strcmp(key, c->rules->field) == 0;
}

static enum ft_part part_of(const char *key)
{
    if (strcmp(key, "content") == 0 || strcmp(key, "name") == 0)
        return *key == 'c' ? FT_PART_CONTENT : FT_PART_NAME;
    for (int i = 0; i < FT_SAID; i++)
        if (strcmp(key, ft_said[i]) == 0)
            return i < FT_REASONINGS ? FT_PART_REASONING : FT_PART_CALLS;
    return FT_PART_OTHER;
}

/* Something is said there. */
static bool says(const json_t *v)
{
    const char *text = json_string_value(v);
    if (text)
        return text[strspn(text, " \t\r\n")] != 0;
    return v && !json_is_null(v) && !(json_is_array(v) && json_array_size(v) == 0) &&
           !(json_is_object(v) && json_object_size(v) == 0);
}

/* Words that nothing else has: of message i, its part, number k in it. */
static void stand_in(char out[48], size_t i, int part, size_t k)
{
    snprintf(out, 48, "[[ft%u-%d-%u-zz]]", (unsigned)i, part, (unsigned)k);
}

/* The calls with other names and arguments; NULL: out of memory. */
static json_t *other_calls(const json_t *calls, size_t i)
{
    json_t *other = json_deep_copy(calls), *call;
    size_t k;
    int bad = !other;
    json_array_foreach(other, k, call)
    {
        char name[48], argument[48];
        json_t *function = json_object_get(call, "function");
        function = function ? function : call;
        stand_in(name, i, FT_PART_CALLS, 2 * k);
        stand_in(argument, i, FT_PART_CALLS, 2 * k + 1);
        if (!json_is_object(function))
            continue;
        bad |= json_object_set_new(function, "name", json_string(name));
        bad |= json_object_set_new(function, "arguments", json_pack("{ss}", "a", argument));
    }
    if (bad) {
        json_decref(other);
        return NULL;
    }
    return other;
}

/* Another value in the place of message i's member. */
static json_t *other_value(const json_t *v, size_t i, enum ft_part part)
{
    char words[48];
    stand_in(words, i, part, 0);
    if (part == FT_PART_CALLS && json_is_array(v))
        return other_calls(v, i);
    return json_string(words);
}

/* Whether all words of a member's stand-in are in the text. */
static bool is_in(const struct ft_rendered *text, const json_t *v, size_t i, enum ft_part part)
{
    const size_t n = part == FT_PART_CALLS && json_is_array(v) ? 2 * json_array_size(v) : 1;
    for (size_t k = 0; k < n; k++) {
        char words[48];
        stand_in(words, i, part, k);
        if (!strstr(text->text, words))
            return false;
    }
    return true;
}

/* The messages with stand-ins for all that they say; NULL: out of memory. */
static json_t *with_stand_ins(const struct conversation *c)
{
    json_t *list = json_array(), *message, *value;
    const char *key;
    size_t i;
    int bad = !list;
    json_array_foreach(c->messages, i, message)
    {
        json_t *other = json_copy(message);
        json_object_foreach(message, key, value)
        {
            const enum ft_part part = part_of(key);
            if (says(value) && !is_plumbing(c, key) &&
                (json_is_string(value) || part == FT_PART_CALLS))
                bad |= json_object_set_new(other, key, other_value(value, i, part));
        }
        bad |= json_array_append_new(list, other);
    }
    if (bad) {
        json_decref(list);
        return NULL;
    }
    return list;
}

/* Whether the text stays the same with another value there: *same. */
static int changes_nothing(const struct conversation *c, size_t i, const char *key, bool *same)
{
    struct ft_rendered r = {0};
    const json_t *message = json_array_get(c->messages, i);
    const json_t *value = json_object_get(message, key);
    json_t *other = json_copy((json_t *)(uintptr_t)message);
    const enum ft_part part = part_of(key);
    int bad = !other || json_object_set_new(other, key, other_value(value, i, part));
    for (int k = 0; k < FT_REASONINGS && part == FT_PART_REASONING && !bad; k++)
        if (strcmp(ft_said[k], key) != 0)
            json_object_del(other, ft_said[k]);
    int rc = bad ? short_of_memory()
                 : ft_render_messages(c, json_array_size(c->messages), i, other, false, &r);
    *same =
        rc == FT_OK && r.length == c->text.length && memcmp(r.text, c->text.text, r.length) == 0;
    if (rc == FT_EDATA) { /* it is looked at, at least */
        ft_status_clear_errors();
        rc = FT_OK;
    }
    json_decref(other);
    ft_rendered_free(&r);
    return rc;
}

static int check_message(const struct conversation *c, const struct ft_rendered *all, size_t i)
{
    json_t *message = json_array_get(c->messages, i), *value;
    const enum ft_speaker who = ft_speaker_of(json_string_value(json_object_get(message, "role")));
    const char *key;
    json_object_foreach(message, key, value)
    {
        const enum ft_part part = part_of(key);
        bool same;
        if (!says(value) || is_plumbing(c, key) || (c->s->unrendered[who] & 1u << part) ||
            (all->text && is_in(all, value, i, part)))
            continue;
        FT_TRY(changes_nothing(c, i, key, &same));
        c->s->unrendered[who] |= (uint8_t)(same << part);
    }
    return FT_OK;
}

/* Tools that may as well not be there. */
static int check_tools(const struct conversation *c)
{
    const json_t *tools = json_object_get(c->record, "tools");
    struct ft_rendered r = {0};
    if (json_array_size(tools) == 0)
        return FT_OK;
    const char *name = json_string_value(
        json_object_get(json_object_get(json_array_get(tools, 0), "function"), "name"));
    if (name && strstr(c->text.text, name) == NULL)
        name = NULL;
    json_t *record = json_copy((json_t *)(uintptr_t)c->record);
    int bad = !record || json_object_set(record, "messages", c->messages);
    if (!bad) {
        json_object_del(record, "ft parts");
        json_object_del(record, "tools");
    }
    int rc = bad ? short_of_memory() : ft_chat_render(c->chat, record, false, c->now, &r);
    if (rc == FT_OK && r.length == c->text.length && memcmp(r.text, c->text.text, r.length) == 0)
        c->s->unrendered[FT_OF_TEMPLATE] |= 1u << FT_PART_TOOLS;
    if (rc == FT_EDATA) {
        ft_status_clear_errors();
        rc = FT_OK;
    }
    json_decref(record);
    ft_rendered_free(&r);
    return rc;
}

/* Nothing but contents, which are all there. */
static bool is_plain(const struct conversation *c)
{
    json_t *message, *value;
    const char *key;
    size_t i;
    if (!c->all_there || json_array_size(json_object_get(c->record, "tools")))
        return false;
    json_array_foreach(c->messages, i, message)
    {
        json_object_foreach(message, key, value)
        {
            if (strcmp(key, "content") != 0 && !is_plumbing(c, key) && says(value))
                return false;
        }
    }
    return true;
}

int ft_find_unrendered(const struct conversation *c)
{
    struct ft_rendered all = {0};
    if (is_plain(c))
        return FT_OK;
    json_t *list = with_stand_ins(c);
    if (!list)
        return short_of_memory();
    int rc = ft_render_list(c, list, false, &all);
    if (rc == FT_EDATA) {
        ft_status_clear_errors();
        ft_rendered_free(&all);
        rc = FT_OK;
    }
    for (size_t i = 0; i < json_array_size(c->messages) && !rc; i++)
        rc = check_message(c, &all, i);
    if (!rc)
        rc = check_tools(c);
    ft_rendered_free(&all);
    json_decref(list);
    return rc;
}
