/* Which parts of a record the template leaves out: those whose words may be others without a
 * change. */
#define _GNU_SOURCE
#include "data/conversation.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"

#include <stdio.h>
#include <string.h>

const char *const ft_part_names[FT_PARTS] = {"content", "reasoning_content", "tool_calls",
                                             "name",    "other members",     "tools"};

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

enum { ALL = -1 };

/* What a call says in two words: name and arguments. */
static json_t *function_of(const json_t *call)
{
    json_t *function = json_object_get(call, "function");
    return json_is_object(function) ? function : (json_t *)(uintptr_t)call;
}

static const char *const call_words[] = {"name", "arguments"};

/* The calls with other names and arguments, or with one of these: call only/2's name (even) or
 * arguments. NULL: out of memory. */
static json_t *other_calls(const json_t *calls, size_t i, int only)
{
    json_t *other = json_deep_copy(calls), *call;
    size_t k;
    int bad = !other;
    json_array_foreach(other, k, call)
    {
        json_t *function = function_of(call);
        for (size_t w = 0; w < 2 && json_is_object(function); w++) {
            char words[48];
            stand_in(words, i, FT_PART_CALLS, 2 * k + w);
            if (only == ALL || (size_t)only == 2 * k + w)
                bad |= json_object_set_new(function, call_words[w],
                                           w ? json_pack("{ss}", "a", words) : json_string(words));
        }
    }
    if (bad) {
        json_decref(other);
        return NULL;
    }
    return other;
}

/* Another value in the place of message i's member; of calls, all or one of their words. */
static json_t *other_value(const json_t *v, size_t i, enum ft_part part, int only)
{
    char words[48];
    stand_in(words, i, part, 0);
    if (part == FT_PART_CALLS && json_is_array(v))
        return other_calls(v, i, only);
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
                bad |= json_object_set_new(other, key, other_value(value, i, part, ALL));
        }
        bad |= json_array_append_new(list, other);
    }
    if (bad) {
        json_decref(list);
        return NULL;
    }
    return list;
}

/* Whether the text stays the same with another value (taken over) there: *same. */
static int changes_nothing(const struct conversation *c, size_t i, const char *key, json_t *value,
                           bool *same)
{
    struct ft_rendered r = {0};
    json_t *other = json_copy(json_array_get(c->messages, i));
    const enum ft_part part = part_of(key);
    int bad = json_object_set_new(other, key, value);
    for (int k = 0; k < FT_REASONINGS && part == FT_PART_REASONING && !bad; k++)
        if (strcmp(ft_said[k], key) != 0)
            json_object_del(other, ft_said[k]);
    int rc = bad ? ft_short_of_memory()
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

/* A call's name or arguments that may be others. */
static int check_calls(const struct conversation *c, size_t i, const char *key, bool *same)
{
    const json_t *calls = json_object_get(json_array_get(c->messages, i), key);
    *same = false;
    for (int only = 0; (size_t)only < 2 * json_array_size(calls) && !*same; only++) {
        const json_t *call = json_array_get(calls, (size_t)only / 2);
        if (says(json_object_get(function_of(call), call_words[only % 2])))
            FT_TRY(changes_nothing(c, i, key, other_calls(calls, i, only), same));
    }
    return FT_OK;
}

/* Thoughts within the words, which templates take out of earlier turns. */
static int check_thoughts(const struct conversation *c, size_t i, const char *words, bool *same)
{
    static const char open[] = "<think>", close[] = "</think>";
    const char *from = words ? strstr(words, open) : NULL;
    const char *to = from ? strstr(from, close) : NULL;
    char thought[48];
    *same = false;
    if (!to)
        return FT_OK;
    from += strlen(open);
    size_t n = (size_t)(to - from);
    const char *p = from;
    ft_strip(&p, &n, true, true);
    if (n == 0 || memmem(c->text.text, c->text.length, p, n))
        return FT_OK;
    stand_in(thought, i, FT_PART_REASONING, 0);
    char *other = ft_format("%.*s%s%s", (int)(from - words), words, thought, to);
    if (!other)
        return FT_ERESOURCE;
    int rc = changes_nothing(c, i, "content", json_string(other), same);
    ft_free(other);
    return rc;
}

static void report(const struct conversation *c, size_t i, const char *key, enum ft_part part)
{
    const char *role = json_string_value(json_object_get(json_array_get(c->messages, i), "role"));
    const enum ft_speaker who = ft_speaker_of(role);
    struct ft_sample *s = c->s;
    s->unrendered[who] |= (uint8_t)(1u << part);
    if (part == FT_PART_OTHER && !s->other_member[0])
        snprintf(s->other_member, sizeof s->other_member, "%s", key);
    if (who == FT_OF_OTHERS && role && !s->other_role[0])
        snprintf(s->other_role, sizeof s->other_role, "%s", role);
}

static int check_message(const struct conversation *c, const struct ft_rendered *all, size_t i)
{
    json_t *message = json_array_get(c->messages, i), *value;
    const enum ft_speaker who = ft_speaker_of(json_string_value(json_object_get(message, "role")));
    const char *key;
    bool same;
    FT_TRY(check_thoughts(c, i, json_string_value(json_object_get(message, "content")), &same));
    if (same)
        report(c, i, "content", FT_PART_REASONING);
    json_object_foreach(message, key, value)
    {
        const enum ft_part part = part_of(key);
        if (!says(value) || is_plumbing(c, key) || (c->s->unrendered[who] & 1u << part) ||
            (all->text && is_in(all, value, i, part)))
            continue;
        if (part == FT_PART_CALLS && json_is_array(value))
            FT_TRY(check_calls(c, i, key, &same));
        else
            FT_TRY(changes_nothing(c, i, key, other_value(value, i, part, ALL), &same));
        if (same)
            report(c, i, key, part);
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
    int rc = bad ? ft_short_of_memory() : ft_chat_render(c->chat, record, false, c->now, &r);
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
            const bool content = strcmp(key, "content") == 0;
            if (!content && !is_plumbing(c, key) && says(value))
                return false;
            if (content && json_is_string(value) && strstr(json_string_value(value), "</think>"))
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
        return ft_short_of_memory();
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
