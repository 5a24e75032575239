/* Renders a conversation, as it is and otherwise, and says which message a template does not take.
 */
#include "data/conversation.h"

#include "core/json.h"
#include "core/mem.h"

#include <string.h>

const char *const ft_said[FT_SAID] = {"reasoning_content", "thinking", "reasoning", "tool_calls"};

int ft_render_list(const struct conversation *c, json_t *messages, bool prompt,
                   struct ft_rendered *out)
{
    json_t *record = json_copy((json_t *)(uintptr_t)c->record);
    const bool bad = !record || json_object_set(record, "messages", messages);
    if (!bad)
        json_object_del(record, "ft parts");
    int rc = bad ? ft_short_of_memory() : ft_chat_render(c->chat, record, prompt, c->now, out);
    json_decref(record);
    return rc;
}

int ft_render_messages(const struct conversation *c, size_t n, size_t i, json_t *other, bool prompt,
                       struct ft_rendered *out)
{
    json_t *list = json_array();
    int bad = !list;
    for (size_t k = 0; k < n && !bad; k++)
        bad = json_array_append(list, k == i && other ? other : json_array_get(c->messages, k));
    int rc = bad ? ft_short_of_memory() : ft_render_list(c, list, prompt, out);
    json_decref(list);
    return rc;
}

size_t ft_common(const struct ft_rendered *a, const struct ft_rendered *b)
{
    const size_t n = a->length < b->length ? a->length : b->length;
    size_t i = 0;
    while (i < n && a->text[i] == b->text[i])
        i++;
    return i;
}

/* --- messages without a text --- */

static bool has_no_text(const json_t *message)
{
    return ft_json_get(message, "content") == NULL;
}

/* The first message without a text; their number if all have one. */
static size_t first_without_text(const struct conversation *c)
{
    size_t i = 0;
    while (i < json_array_size(c->messages) && !has_no_text(json_array_get(c->messages, i)))
        i++;
    return i;
}

/* A list in which they have an empty one. */
static json_t *with_empty_texts(const struct conversation *c)
{
    json_t *list = json_array(), *message;
    size_t i;
    int bad = !list;
    json_array_foreach(c->messages, i, message)
    {
        json_t *other = has_no_text(message) ? json_copy(message) : json_incref(message);
        if (has_no_text(message))
            bad |= json_object_set_new(other, "content", json_string(""));
        bad |= json_array_append_new(list, other);
    }
    if (bad) {
        json_decref(list);
        return NULL;
    }
    return list;
}

/* Some templates write "None" where there is no text. */
static bool writes_none(const struct ft_rendered *as_is, const struct ft_rendered *empty)
{
    const size_t at = ft_common(as_is, empty);
    return as_is->length >= at + 4 && memcmp(as_is->text + at, "None", 4) == 0;
}

/* Both ways: as the record has it, unless the template cannot say that. Templates may ask whether
 * there is a text, so that the two can differ. */
static int render_without_text(struct conversation *c)
{
    struct ft_rendered empty = {0};
    json_t *list = with_empty_texts(c);
    if (!list)
        return ft_short_of_memory();
    int as_is = ft_render_list(c, c->messages, false, &c->text);
    if (as_is && as_is != FT_EDATA) {
        json_decref(list);
        return as_is;
    }
    if (as_is)
        ft_status_clear_errors();
    int rc = ft_render_list(c, list, false, &empty);
    const bool takes_empty = rc == FT_OK && (as_is || writes_none(&c->text, &empty));
    if (rc == FT_EDATA && !as_is) {
        ft_status_clear_errors();
        rc = FT_OK;
    }
    if (takes_empty) {
        struct ft_rendered unused = c->text;
        c->text = empty;
        empty = unused;
        json_decref(c->messages);
        c->messages = json_incref(list);
    }
    ft_rendered_free(&empty);
    json_decref(list);
    return rc;
}

/* --- what a template does not take --- */

/* Renders fewer and fewer messages: the first that cannot be there is the one behind the longest
 * beginning that can. 0: no beginning can be rendered. */
static size_t find_refused(const struct conversation *c)
{
    for (size_t n = json_array_size(c->messages) - 1; n > 0; n--) {
        struct ft_rendered r = {0};
        int rc = ft_render_messages(c, n, n, NULL, false, &r);
        ft_rendered_free(&r);
        if (rc == FT_OK)
            return n + 1;
        if (rc != FT_EDATA)
            return 0;
    }
    return 0;
}

/* Whether the first message is what is not taken: it is the only one, or the others alone are. */
static bool is_first_refused(const struct conversation *c)
{
    struct ft_rendered r = {0};
    json_t *others = json_copy(c->messages);
    bool is = json_array_size(c->messages) == 1;
    if (others && json_array_remove(others, 0) == 0 && json_array_size(others))
        is = ft_render_list(c, others, false, &r) == FT_OK;
    ft_rendered_free(&r);
    json_decref(others);
    return is;
}

static int name_refused(const struct conversation *c, size_t without)
{
    char before[4096];
    snprintf(before, sizeof before, "%s", ft_status_report());
    size_t n = find_refused(c);
    if (n == 0 && is_first_refused(c))
        n = 1;
    ft_status_clear_errors();
    ft_status_add(before);
    const json_t *message = n ? json_array_get(c->messages, n - 1) : NULL;
    const char *role = json_string_value(json_object_get(message, "role"));
    if (n && has_no_text(message)) {
        ft_fail(FT_EDATA, "message %zu ('%s') has no 'content', and the template needs one", n,
                role);
        ft_hint("give it a text, or use a template that takes messages without one; or leave such "
                "records out: skip_bad_records");
    } else if (n) {
        ft_fail(FT_EDATA, "message %zu ('%s') is not taken by the template", n, role ? role : "");
        ft_hint("change the record or the template (chat_template); or leave such records out: "
                "skip_bad_records");
    } else {
        ft_fail(FT_EDATA, "the template does not take the record%s",
                without < json_array_size(c->messages) ? ", which has a message without 'content'"
                                                       : "");
        ft_hint("change the record or the template (chat_template); or leave such records out: "
                "skip_bad_records");
    }
    return FT_EDATA;
}

int ft_render_whole(struct conversation *c)
{
    const size_t without = first_without_text(c);
    int rc = without == json_array_size(c->messages)
                 ? ft_render_list(c, c->messages, false, &c->text)
                 : render_without_text(c);
    return rc == FT_EDATA ? name_refused(c, without) : rc;
}
