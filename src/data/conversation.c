/* From messages to trained tokens. */
#include "data/conversation.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"

#include <stdio.h>
#include <string.h>

const char *const ft_speaker_names[FT_SPEAKERS] = {"template",  "system", "user",
                                                   "assistant", "tool",   "others"};

enum ft_speaker ft_speaker_of(const char *role)
{
    for (int i = FT_OF_SYSTEM; role && i < FT_OF_OTHERS; i++)
        if (strcmp(role, ft_speaker_names[i]) == 0)
            return (enum ft_speaker)i;
    return FT_OF_OTHERS;
}

void ft_ends_add(struct ft_ends *ends, int32_t id, int64_t count)
{
    int i = 0;
    while (i < FT_ENDS && ends[i].count && ends[i].id != id)
        i++;
    if (i < FT_ENDS) {
        ends[i].id = id;
        ends[i].count += count;
    }
}

void ft_sample_clear(struct ft_sample *s)
{
    s->ids.n = s->labelled = 0;
    s->turns = s->ended = s->borders = s->wordless = 0;
    memset(s->ends, 0, sizeof s->ends);
    memset(s->unrendered, 0, sizeof s->unrendered);
    s->other_role[0] = s->other_member[0] = 0;
}

void ft_sample_free(struct ft_sample *s)
{
    ft_ids_free(&s->ids);
    ft_free(s->mask);
    ft_free(s->speaker);
    *s = (struct ft_sample){0};
}

int ft_sample_label(struct ft_sample *s, uint8_t mask, enum ft_speaker speaker)
{
    if (s->room < s->ids.n) {
        FT_TRY(ft_grow(&s->mask, s->ids.room, 1));
        FT_TRY(ft_grow(&s->speaker, s->ids.room, 1));
        s->room = s->ids.room;
    }
    for (; s->labelled < s->ids.n; s->labelled++) {
        s->mask[s->labelled] = mask;
        s->speaker[s->labelled] = (uint8_t)speaker;
    }
    return FT_OK;
}

/* --- one conversation --- */

/* A turn: its words are text[begin, end), what ends it lies before tail. */
struct turn {
    const char *role;
    size_t begin, end, tail;
    long ended_by; /* token; -1: none */
    bool trained;
    const json_t *parts; /* of its words that are trained on; NULL: all */
    bool cut; /* the words' end is where the messages so far end: what follows answers a call */
};

static size_t common_end(const struct ft_rendered *a, const struct ft_rendered *b, size_t most)
{
    size_t i = 0;
    while (i < most && a->text[a->length - 1 - i] == b->text[b->length - 1 - i])
        i++;
    return i;
}

/* The message with `words` for what it says; calls: and the same calls of tools, with other
 * arguments. NULL: out of memory. */
static json_t *with_words(const json_t *message, const char *words, bool calls)
{
    const bool parts = json_is_array(json_object_get(message, "content"));
    json_t *other = json_deep_copy(message), *text = json_string(words), *call;
    size_t i;
    int bad = json_object_set_new(other, "content",
                                  parts ? json_pack("[{sssO}]", "type", "text", "text", text)
                                        : json_incref(text));
    for (i = 0; i < (size_t)(FT_SAID - calls); i++)
        json_object_del(other, ft_said[i]);
    json_array_foreach(json_object_get(other, "tool_calls"), i, call)
    {
        json_t *function = json_object_get(call, "function");
        bad |= json_object_set_new(function ? function : call, "arguments",
                                   json_pack("{sO}", words, text));
    }
    json_decref(text);
    if (bad) {
        json_decref(other);
        return NULL;
    }
    return other;
}

static int render_words(const struct conversation *c, size_t i, const char *words, bool calls,
                        struct ft_rendered *r)
{
    json_t *other = with_words(json_array_get(c->messages, i), words, calls);
    int rc = other ? ft_render_messages(c, json_array_size(c->messages), i, other, false, r)
                   : ft_short_of_memory();
    json_decref(other);
    return rc;
}

static bool has_calls(const struct conversation *c, size_t i)
{
    return json_object_get(json_array_get(c->messages, i), "tool_calls") != NULL;
}

/* How long the prompt for message i is; 0 if the text does not begin with it, or there is none. */
static int prompt_length(const struct conversation *c, size_t i, size_t *out)
{
    struct ft_rendered r = {0};
    *out = 0;
    int rc = ft_render_messages(c, i, i, NULL, true, &r);
    if (rc == FT_EDATA)
        ft_status_clear_errors();
    else if (!rc && ft_common(&c->text, &r) == r.length)
        *out = r.length;
    ft_rendered_free(&r);
    return rc == FT_EDATA ? FT_OK : rc;
}

/* Where the answer to the messages before i begins, if the text begins as a prompt for it does. */
static int begin_at_prompt(const struct conversation *c, size_t i, struct turn *turn)
{
    size_t n;
    FT_TRY(prompt_length(c, i, &n));
    if (n && n < turn->begin)
        turn->begin = n;
    return FT_OK;
}

/* Two sets of words that share neither first nor last letter, since the message's own may share one
 * of them; and are not the message's own. */
static const char *other_words(const json_t *message, int k)
{
    static const char *const words[] = {"[[other words]]", "zz-other-words-zz", "((yet others))"};
    const char *own = json_string_value(json_object_get(message, "content"));
    return own && strcmp(own, words[k]) == 0 ? words[2] : words[k];
}

/* What differs between the text and another belongs to the turn. */
static void widen(const struct conversation *c, const struct ft_rendered *other, struct turn *turn)
{
    const size_t least = other->length < c->text.length ? other->length : c->text.length;
    const size_t begin = ft_common(&c->text, other);
    const size_t end = c->text.length - common_end(&c->text, other, least - begin);
    turn->begin = begin < turn->begin ? begin : turn->begin;
    turn->end = end > turn->end ? end : turn->end;
}

/* The most of own[0, n) that stands right before text[at]; tags: that is one, or several. */
static size_t stands_before(const struct conversation *c, const char *own, size_t n, size_t at,
                            bool tags)
{
    size_t most = 0;
    for (size_t k = 1; k <= n && k <= at && k <= 64; k++)
        if (memcmp(c->text.text + at - k, own, k) == 0 &&
            (!tags || (strchr("<[", own[0]) && strchr(">]", own[k - 1]))))
            most = k;
    return most;
}

/* How many bytes of the text right before text[at] are the message's own beginning: with the white
 * space behind a tag, which templates set as they like. */
static size_t own_before(const struct conversation *c, const json_t *content, size_t at)
{
    const char *own = json_string_value(content);
    size_t n = own ? json_string_length(content) : 0, space = 0;
    if (!own)
        return 0;
    ft_strip(&own, &n, true, false);
    while (space < at && strchr(" \t\r\n", c->text.text[at - space - 1]))
        space++;
    const size_t most = stands_before(c, own, n, at, false);
    const size_t tag = space ? stands_before(c, own, n, at - space, true) : 0;
    return most ? most : tag ? tag + space : 0;
}

/* Whether the template says more where an answer is asked for. */
static int has_prompt(const struct conversation *c, size_t i, size_t prompt, bool *has)
{
    struct ft_rendered r = {0};
    int rc = ft_render_messages(c, i, i, NULL, false, &r);
    *has = rc || r.length < prompt;
    if (rc == FT_EDATA)
        ft_status_clear_errors();
    ft_rendered_free(&r);
    return rc == FT_EDATA ? FT_OK : rc;
}

/* Words that open an answer are the model's to write unless its prompt has them: a template that
 * moves thoughts to their place has the opener in every rendering, so that it is no difference. */
static int begin_at_opener(const struct conversation *c, size_t i, struct turn *turn)
{
    const json_t *message = json_array_get(c->messages, i);
    const size_t own = own_before(c, json_object_get(message, "content"), turn->begin);
    bool thinks = false, has = true;
    size_t prompt;
    for (int k = 0; k < FT_REASONINGS; k++)
        thinks = thinks || json_string_length(json_object_get(message, ft_said[k]));
    if (turn->begin >= turn->end || (!thinks && !own))
        return FT_OK;
    FT_TRY(prompt_length(c, i, &prompt));
    if (prompt)
        FT_TRY(has_prompt(c, i, prompt, &has));
    prompt = has ? prompt : 0;
    if (prompt < turn->begin && (own || prompt))
        turn->begin = thinks && prompt             ? prompt
                      : prompt > turn->begin - own ? prompt
                                                   : turn->begin - own;
    return FT_OK;
}

/* The words of message i are where the text differs from one with other words in their place. Where
 * a tool's answer needs its call, the call stays, and its turn begins where a prompt ends. */
static int find_words(const struct conversation *c, size_t i, struct turn *turn)
{
    const json_t *message = json_array_get(c->messages, i);
    bool calls = false;
    turn->begin = c->text.length;
    turn->end = 0;
    for (int k = 0; k < 2; k++) {
        struct ft_rendered r = {0};
        const char *words = other_words(message, k);
        int rc = render_words(c, i, words, calls, &r);
        if (rc == FT_EDATA && !calls && has_calls(c, i)) {
            ft_status_clear_errors();
            ft_rendered_free(&r);
            calls = true;
            rc = render_words(c, i, words, calls, &r);
        }
        if (!rc)
            widen(c, &r, turn);
        ft_rendered_free(&r);
        FT_TRY(rc);
    }
    if (calls)
        return begin_at_prompt(c, i, turn);
    return turn->trained ? begin_at_opener(c, i, turn) : FT_OK;
}

/* --- all words at once --- */

/* A text of its own for each message. */
static void stand_in(char out[48], size_t i)
{
    snprintf(out, 48, "[[words-of-message-%zu-zz]]", i);
}

/* The conversation with stand-ins for all words; NULL if a message says more than one text. */
static json_t *with_stand_ins(const struct conversation *c)
{
    json_t *list = json_array(), *message;
    size_t i;
    int bad = list == NULL;
    json_array_foreach((json_t *)(uintptr_t)c->messages, i, message)
    {
        char words[48];
        const json_t *content = json_object_get(message, "content");
        bool plain = json_is_string(content) && json_string_length(content) > 0;
        for (size_t k = 0; k < FT_SAID; k++)
            plain = plain && !json_object_get(message, ft_said[k]);
        json_t *other = plain && !bad ? json_copy(message) : NULL;
        stand_in(words, i);
        bad = bad || !other || json_object_set_new(other, "content", json_string(words));
        bad = json_array_append_new(list, other) || bad;
    }
    if (bad) {
        json_decref(list);
        return NULL;
    }
    return list;
}

/* The message's words at text[at]: as they are, or trimmed. 0: they are not there. */
static size_t words_at(const struct conversation *c, size_t i, size_t at)
{
    const json_t *content = json_object_get(json_array_get(c->messages, i), "content");
    const char *p = json_string_value(content), *end = p + json_string_length(content);
    const size_t left = c->text.length - at;
    for (int trimmed = 0; trimmed < 2; trimmed++) {
        const size_t n = (size_t)(end - p);
        if (n && n <= left && memcmp(c->text.text + at, p, n) == 0)
            return n;
        while (p < end && strchr(" \t\r\n\v\f", *p))
            p++;
        while (p < end && strchr(" \t\r\n\v\f", end[-1]))
            end--;
    }
    return 0;
}

/* Walks through both texts: what lies between words must be the same. */
static bool align(const struct conversation *c, const struct ft_rendered *other, struct turn *turns,
                  size_t n)
{
    size_t a = 0, b = 0;
    for (size_t i = 0; i <= n; i++) {
        char words[48];
        stand_in(words, i);
        const char *from = other->text + a;
        const char *hit = i < n ? strstr(from, words) : other->text + other->length;
        if (!hit)
            return false;
        const size_t between = (size_t)(hit - from);
        if (between > c->text.length - b || memcmp(c->text.text + b, from, between) != 0)
            return false;
        a += between + (i < n ? strlen(words) : 0);
        b += between;
        if (i == n)
            break;
        turns[i].begin = b;
        b += words_at(c, i, b);
        turns[i].end = turns[i].tail = b;
        if (turns[i].end == turns[i].begin)
            return false;
    }
    return b == c->text.length;
}

/* Where a template does nothing with words but to put them in their places, one rendering finds
 * them all. */
static bool find_all_words(const struct conversation *c, struct turn *turns, size_t n)
{
    json_t *list = with_stand_ins(c);
    struct ft_rendered other = {0};
    bool found = false;
    if (!list)
        return false;
    if (ft_render_list(c, list, false, &other) == FT_OK)
        found = align(c, &other, turns, n);
    else
        ft_status_clear_errors();
    ft_rendered_free(&other);
    json_decref(list);
    if (found)
        turns[n - 1].tail = c->text.length;
    return found;
}

/* Up to where the text is the same as that of the messages up to i alone. A template that cannot
 * say, or says other things there, leaves the tail to the next message. */
static void find_tail(const struct conversation *c, size_t i, struct turn *turn)
{
    struct ft_rendered r = {0};
    turn->tail = c->text.length;
    if (i + 1 == json_array_size(c->messages))
        return;
    if (ft_render_messages(c, i + 1, i, NULL, false, &r) == FT_OK) {
        turn->tail = ft_common(&c->text, &r);
        /* some templates write a tool's answer into the turn that called it */
        turn->cut = turn->tail < turn->end && turn->tail > turn->begin && has_calls(c, i);
        if (turn->cut)
            turn->end = turn->tail;
        if (turn->tail < turn->end)
            turn->tail = turn->end;
    } else {
        ft_status_clear_errors();
        turn->tail = turn->end;
    }
    ft_rendered_free(&r);
}

static bool has(const int32_t *list, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == id)
            return true;
    return false;
}

/* A token before which no token stands for text[at] or what follows: tokens stand in the text's
 * order, but for those of one grapheme. */
static size_t first_near(const struct conversation *c, size_t at)
{
    enum { MARGIN = 64 };
    size_t low = 0, high = c->spans.n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (c->spans.v[middle].end < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low > MARGIN ? low - MARGIN : 0;
}

/* Whether the tokens from k on stand for nothing before text[end]. */
static bool is_behind(const struct conversation *c, size_t k, size_t end)
{
    enum { MARGIN = 64 };
    return k >= MARGIN && c->spans.v[k - MARGIN].begin > end;
}

/* The end of text may follow the turn's own end, and so may other tokens of its tail: at once, or
 * as the last of all. */
static long last_of_end(const struct conversation *c, const struct turn *turn, size_t k)
{
    const char *eos = ft_chat_token(c->chat, "eos_token");
    const size_t n = c->spans.n;
    for (; k + 1 < n; k++) {
        const struct ft_span at = c->spans.v[k], next = c->spans.v[k + 1];
        const int32_t id = c->s->ids.v[k + 1];
        const bool is_eos = eos && ft_tokenizer_is_added(c->t, id) &&
                            strcmp(ft_tokenizer_token(c->t, id), eos) == 0;
        const bool in_tail = next.end <= turn->tail && ft_tokenizer_is_special(c->t, id);
        if (next.begin != at.end || next.end == next.begin || !(is_eos || in_tail))
            break;
    }
    /* "<|end|>\n<|endoftext|>" at the text's end */
    const char *rest = c->text.text + c->spans.v[k].end;
    const size_t blank = strspn(rest, " \t\r\n");
    if (eos && turn->tail == c->text.length && blank && strcmp(rest + blank, eos) == 0 &&
        ft_tokenizer_is_added(c->t, c->s->ids.v[n - 1]))
        return (long)n - 1;
    return (long)k;
}

/* An added token that is no white space, as "\n" is in some vocabularies. */
static bool ends_turns(const struct conversation *c, int32_t id)
{
    const char *token = ft_tokenizer_is_added(c->t, id) ? ft_tokenizer_token(c->t, id) : "";
    return token[strspn(token, " \t\r\n")] != 0;
}

/* The added token that ends the turn, -1 if there is none: the first behind its words that the turn
 * alone has too, or the first of `known` before `limit`. */
static long find_end(const struct conversation *c, const struct turn *turn, size_t limit,
                     const struct ft_ids *known)
{
    for (size_t k = first_near(c, turn->end); k < c->spans.n; k++) {
        const struct ft_span at = c->spans.v[k];
        const int32_t id = c->s->ids.v[k];
        if (at.begin < turn->end || at.end == at.begin || !ends_turns(c, id))
            continue;
        if (at.begin >= limit)
            break;
        if (has(known->v, known->n, id) || (at.end <= turn->tail && !c->rules->n_end_tokens))
            return last_of_end(c, turn, k);
    }
    return -1;
}

/* Where turn i may end at the latest: where the next one's words begin. */
static size_t limit_of(const struct conversation *c, const struct turn *turns, size_t n, size_t i)
{
    const bool next = i + 1 < n && turns[i + 1].begin > turns[i].end;
    return next ? turns[i + 1].begin : c->text.length;
}

/* What ends each turn. Where a template renders a turn alone otherwise than within the
 * conversation, what ends the others tells. quick: tails are looked for only where that does not.
 */
static int find_ends(const struct conversation *c, struct turn *turns, size_t n, bool quick)
{
    struct ft_ids known = {0};
    int rc = FT_OK;
    for (int i = 0; i < c->rules->n_end_tokens && !rc; i++)
        rc = ft_ids_add(&known, c->rules->end_tokens[i]);
    for (int round = 0; round < 2; round++)
        for (size_t i = n; i-- > 0 && !rc;) { /* the last turn's end is never in doubt */
            const size_t limit = limit_of(c, turns, n, i);
            turns[i].ended_by = find_end(c, &turns[i], limit, &known);
            const bool wanted = turns[i].trained || c->rules->end == FT_TRAIN_ALL;
            if (turns[i].ended_by < 0 && quick && round == 0 && wanted) {
                find_tail(c, i, &turns[i]);
                turns[i].ended_by = find_end(c, &turns[i], limit, &known);
            }
            const int32_t id = turns[i].ended_by < 0 ? -1 : c->s->ids.v[turns[i].ended_by];
            if (id >= 0 && !has(known.v, known.n, id))
                rc = ft_ids_add(&known, id);
        }
    ft_ids_free(&known);
    return rc;
}

/* Trains the tokens that stand for any of text[begin, end). */
static void train(const struct conversation *c, size_t begin, size_t end)
{
    for (size_t k = first_near(c, begin); k < c->spans.n && !is_behind(c, k, end); k++)
        if (c->spans.v[k].end > begin && c->spans.v[k].begin < end)
            c->s->mask[k] = 1;
}

/* The first token that has text[at], -1 if none has it. */
static long token_at(const struct conversation *c, size_t at)
{
    for (size_t k = first_near(c, at); k < c->spans.n && !is_behind(c, k, at + 1); k++)
        if (c->spans.v[k].begin <= at && at < c->spans.v[k].end)
            return (long)k;
    return -1;
}

/* The tokens of a {% generation %} mark, as apply_chat_template finds them: from the one of its
 * first character to the first one of its last, even where more tokens make up that one. */
static void train_mark(const struct conversation *c, size_t begin, size_t end)
{
    size_t last = end;
    while (last > 0 && (c->text.text[--last] & 0xc0) == 0x80)
        ;
    const long from = token_at(c, begin), to = token_at(c, last);
    for (long k = from; from >= 0 && k <= to; k++)
        c->s->mask[k] = 1;
}

static void speak(const struct conversation *c, const struct turn *turn)
{
    for (size_t k = first_near(c, turn->begin); k < c->spans.n && !is_behind(c, k, turn->end); k++)
        if (c->spans.v[k].end > turn->begin && c->spans.v[k].begin < turn->end)
            c->s->speaker[k] = (uint8_t)ft_speaker_of(turn->role);
}

/* A message may say whether it is trained, with nothing but true, false and numbers. */
static bool says_whether(const struct ft_turn_rules *r, const json_t *message)
{
    const json_t *own = r->field ? ft_json_get(message, r->field) : NULL;
    return !own || json_is_boolean(own) || json_is_number(own);
}

static bool is_trained(const struct ft_turn_rules *r, const json_t *message, const char *role,
                       int parts)
{
    const json_t *own = r->field ? json_object_get(message, r->field) : NULL;
    if (json_is_boolean(own) || json_is_number(own))
        return json_is_true(own) || json_number_value(own) != 0;
    if (parts >= 0) /* parts of it are, or none is there */
        return parts;
    if (r->inputs)
        return true;
    if (!r->roles)
        return strcmp(role, "assistant") == 0;
    for (const char *const *one = r->roles; *one; one++)
        if (strcmp(*one, role) == 0)
            return true;
    return false;
}

/* A token that is partly the template's and partly the turn's: when the model is asked, its prompt
 * ends otherwise. */
static bool crosses_border(const struct conversation *c, const struct turn *turn)
{
    for (size_t k = first_near(c, turn->begin); k < c->spans.n && !is_behind(c, k, turn->begin);
         k++)
        if (c->spans.v[k].begin < turn->begin && c->spans.v[k].end > turn->begin)
            return true;
    return false;
}

/* Whether the words themselves end with an added token, as calls of tools do. */
static bool ends_with_token(const struct conversation *c, const struct turn *turn)
{
    for (size_t k = first_near(c, turn->end); k < c->spans.n; k++)
        if (c->spans.v[k].end == turn->end && ft_tokenizer_is_added(c->t, c->s->ids.v[k]))
            return true;
    return false;
}

static const size_t NOWHERE = SIZE_MAX;

/* text[at, at + n) is p, and what other words changed lies within. */
static bool is_at(const struct conversation *c, size_t at, const char *p, size_t n,
                  const struct turn *changed)
{
    return at <= changed->begin && at + n >= changed->end && at + n <= c->text.length &&
           memcmp(c->text.text + at, p, n) == 0;
}

/* Where the words of message i stand: text[*at] is words[*skipped], since templates may trim them.
 * What they say besides stays. */
static int find_content(const struct conversation *c, size_t i, size_t *at, size_t *skipped)
{
    const json_t *message = json_array_get(c->messages, i);
    const json_t *content = json_object_get(message, "content");
    const char *words = json_string_value(content), *p = words;
    size_t n = json_string_length(content);
    struct turn changed = {.begin = c->text.length};
    for (int k = 0; k < 2; k++) {
        struct ft_rendered r = {0};
        json_t *other = json_copy((json_t *)(uintptr_t)message);
        int rc =
            !other || json_object_set_new(other, "content", json_string(other_words(message, k)))
                ? ft_short_of_memory()
                : ft_render_messages(c, json_array_size(c->messages), i, other, false, &r);
        json_decref(other);
        if (!rc)
            widen(c, &r, &changed);
        ft_rendered_free(&r);
        FT_TRY(rc);
    }
    for (int trimmed = 0; trimmed < 2 && n; trimmed++) {
        for (size_t k = 0; k <= n && k <= changed.begin; k++)
            if (is_at(c, changed.begin - k, p, n, &changed)) {
                *at = changed.begin - k;
                *skipped = (size_t)(p - words);
                return FT_OK;
            }
        ft_strip(&p, &n, true, true);
    }
    *at = NOWHERE;
    if (!n) /* nothing but white space, which is gone */
        return FT_OK;
    ft_fail(
        FT_EDATA,
        "message %zu: the template changes its text, and the parts that are trained on cannot be "
        "found",
        i + 1);
    ft_hint("leave its 'train' and 'weight' out, or use a template that writes texts as they are");
    return FT_EDATA;
}

/* Trains what lies within the parts of the words that are trained on; what lies partly without does
 * not. */
static int train_parts(const struct conversation *c, size_t i, const json_t *parts)
{
    size_t at, skipped;
    if (!json_array_size(parts))
        return FT_OK;
    FT_TRY(find_content(c, i, &at, &skipped));
    if (at == NOWHERE)
        return FT_OK;
    for (size_t k = 0; k < json_array_size(parts); k++) {
        const json_t *part = json_array_get(parts, k);
        const size_t from = (size_t)json_integer_value(json_array_get(part, 0));
        const size_t to = (size_t)json_integer_value(json_array_get(part, 1));
        const size_t begin = at + (from > skipped ? from - skipped : 0);
        const size_t end = to > skipped ? at + to - skipped : at;
        for (size_t t = first_near(c, begin); t < c->spans.n && !is_behind(c, t, end); t++)
            if (c->spans.v[t].begin >= begin && c->spans.v[t].end <= end &&
                c->spans.v[t].end > c->spans.v[t].begin)
                c->s->mask[t] = 1;
    }
    return FT_OK;
}

/* Whether anything but what ends it, and white space, is trained of the turn. */
static bool trains_words(const struct conversation *c, const struct turn *turn)
{
    const size_t end = turn->ended_by < 0 ? turn->end : c->spans.v[turn->ended_by].end;
    for (size_t k = first_near(c, turn->begin); k < c->spans.n && !is_behind(c, k, end); k++) {
        const struct ft_span at = c->spans.v[k];
        const char *text = c->text.text + at.begin;
        const bool blank = strspn(text, " \t\r\n") >= at.end - at.begin;
        if (at.begin >= turn->begin && at.end <= end && c->s->mask[k] && !blank &&
            !ft_tokenizer_is_added(c->t, c->s->ids.v[k]))
            return true;
    }
    return false;
}

static void train_turn(struct conversation *c, const struct turn *turn, bool last, bool marked)
{
    const enum ft_train_on end = c->rules->end;
    const long at = turn->ended_by;
    const bool wanted =
        end == FT_TRAIN_ALL || (end == FT_TRAIN_LAST && last) ||
        (turn->trained && (end == FT_TRAIN_TURN || (end == FT_TRAIN_UNSET && !marked)));
    if (turn->trained && !marked && !turn->parts)
        train(c, turn->begin, turn->end);
    if (at >= 0 && wanted && turn->trained) /* with what stands before it: it is written too */
        train(c, turn->end, c->spans.v[at].end);
    else if (at >= 0 && wanted)
        c->s->mask[at] = 1;
    if (turn->trained) {
        const bool ends = at >= 0 && c->s->mask[at];
        c->s->wordless += ends && !turn->parts && !trains_words(c, turn);
        if (ends)
            ft_ends_add(c->s->ends, c->s->ids.v[at], 1);
        c->s->turns++;
        c->s->ended += ends || (turn->cut && ends_with_token(c, turn));
        c->s->borders += turn->end > turn->begin && crosses_border(c, turn);
    }
}

static int find_turns(struct conversation *c)
{
    const size_t n = json_array_size(c->messages);
    bool marked = c->text.n_marks > 0 && !c->rules->roles && !c->rules->inputs && !c->rules->field;
    struct turn *turns;
    FT_TRY(ft_alloc(&turns, n + 1, sizeof *turns));
    int rc = FT_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *message = json_array_get(c->messages, i);
        turns[i].role = json_string_value(json_object_get(message, "role"));
        turns[i].parts = json_array_get(c->parts, i);
        const bool none = json_is_false(turns[i].parts); /* unless it says otherwise itself */
        turns[i].parts = json_is_array(turns[i].parts) ? turns[i].parts : NULL;
        if (!turns[i].role)
            rc = ft_fail(FT_EDATA, "message %zu has no 'role'", i + 1);
        else if (!says_whether(c->rules, message))
            rc = ft_fail(FT_EDATA, "message %zu: '%s' is neither true nor false", i + 1,
                         c->rules->field);
        else
            turns[i].trained = is_trained(c->rules, message, turns[i].role,
                                          turns[i].parts ? 1
                                          : none         ? 0
                                                         : -1);
        marked = marked && !turns[i].parts && !none;
    }
    const bool quick = !rc && find_all_words(c, turns, n);
    c->all_there = quick;
    for (size_t i = 0; i < n && !rc && !quick; i++) {
        rc = find_words(c, i, &turns[i]);
        if (!rc)
            find_tail(c, i, &turns[i]);
    }
    if (!rc)
        rc = find_ends(c, turns, n, quick);
    bool unended = false;
    for (size_t i = 0; i < n && !rc; i++)
        unended = unended || (turns[i].trained && turns[i].ended_by < 0);
    if (!rc && quick && unended) { /* all tails, since what ends others may end it */
        for (size_t i = 0; i < n; i++)
            find_tail(c, i, &turns[i]);
        rc = find_ends(c, turns, n, false);
    }
    for (size_t i = 0; i < n && !rc; i++)
        speak(c, &turns[i]);
    for (size_t k = 0; k < c->text.n_marks && marked && !rc; k++)
        train_mark(c, c->text.marks[k].begin, c->text.marks[k].end);
    for (size_t i = 0; i < n && !rc; i++)
        train_turn(c, &turns[i], i + 1 == n, marked);
    for (size_t i = 0; i < n && !rc; i++)
        if (turns[i].trained && turns[i].parts)
            rc = train_parts(c, i, turns[i].parts);
    ft_free(turns);
    return rc;
}

int ft_conversation_sample(struct ft_sample *s, struct ft_tokenizer *t, const struct ft_chat *chat,
                           const json_t *record, const struct ft_turn_rules *rules, long long now)
{
    struct conversation c = {.s = s,
                             .t = t,
                             .chat = chat,
                             .record = record,
                             .messages = json_incref(json_object_get(record, "messages")),
                             .parts = json_object_get(record, "ft parts"),
                             .rules = rules,
                             .now = now};
    ft_sample_clear(s);
    int rc = json_array_size(c.messages) ? ft_render_whole(&c)
                                         : ft_fail(FT_EDATA, "there are no messages");
    if (!rc)
        rc = ft_tokenizer_encode(t, c.text.text, c.text.length, false, &s->ids, &c.spans);
    if (!rc)
        rc = ft_sample_label(s, 0, FT_OF_TEMPLATE);
    if (!rc)
        rc = find_turns(&c);
    if (!rc && rules->look)
        rc = ft_find_unrendered(&c);
    json_decref(c.messages);
    ft_rendered_free(&c.text);
    ft_spans_free(&c.spans);
    return rc;
}
