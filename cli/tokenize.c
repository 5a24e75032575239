/* ft tokenize */
#include "cli/cli.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "data/sample.h"
#include "text/chat.h"
#include "text/tokenizer.h"
#include "train/base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    bool special, raw, decode, render, prompt, offsets;
};

/* What a run works with. */
struct tools {
    struct ft_tokenizer *tokenizer;
    struct ft_chat *chat; /* NULL: none */
};

static int print_text(const char *text, size_t length)
{
    const unsigned since = ft_alloc_failures();
    json_t *out = json_pack("{ss%}", "text", text, length);
    char *dumped = ft_json_dumps(out, JSON_COMPACT, since);
    json_decref(out);
    if (!dumped)
        return FT_ERESOURCE;
    printf("%s\n", dumped);
    ft_json_free(dumped);
    return FT_OK;
}

/* Characters that end or begin before byte `at` of valid UTF-8; c and i go on from the call before,
 * since places mostly rise. */
static size_t character(const char *text, size_t at, bool up, size_t *i, size_t *c)
{
    if (at < *i)
        *i = *c = 0;
    while (*i < at) {
        size_t next = *i + 1;
        while ((text[next] & 0xc0) == 0x80)
            next++;
        if (next > at)
            return *c + up; /* within a character */
        *i = next;
        ++*c;
    }
    return *c;
}

/* text ends with a byte that is no part of it and no continuation. */
static void print_ids(const struct ft_ids *ids, const struct ft_spans *spans, const char *text)
{
    size_t i = 0, c = 0;
    printf("{\"input_ids\": [");
    for (size_t k = 0; k < ids->n; k++)
        printf("%s%d", k ? ", " : "", ids->v[k]);
    if (spans)
        printf("], \"offsets\": [");
    for (size_t k = 0; spans && k < spans->n; k++) {
        const size_t begin = character(text, spans->v[k].begin, false, &i, &c);
        printf("%s[%zu, %zu]", k ? ", " : "", begin,
               character(text, spans->v[k].end, true, &i, &c));
    }
    printf("]}\n");
}

/* A record's text: its own, or its messages through the chat template, which has the special tokens
 * in it already. */
static int record_text(const struct tools *t, const struct options *o, const json_t *record,
                       const struct ft_where *at, struct ft_rendered *rendered, bool *special)
{
    const json_t *text = json_object_get(record, "text");
    *special = o->special;
    if (json_is_string(text)) {
        rendered->length = json_string_length(text);
        rendered->text = malloc(rendered->length + 1);
        if (!rendered->text)
            return ft_short_of_memory();
        memcpy(rendered->text, json_string_value(text), rendered->length + 1);
        return FT_OK;
    }
    if (!json_is_array(json_object_get(record, "messages")))
        return ft_fail_at(*at, FT_EDATA, "has neither 'text' nor 'messages'");
    if (!t->chat)
        return ft_fail_at(*at, FT_EDATA, "has 'messages', but there is no chat template");
    *special = false;
    int rc = ft_chat_render(t->chat, record, o->prompt, (long long)time(NULL), rendered);
    if (rc == FT_EDATA)
        ft_fail_at(*at, FT_EDATA, "the record cannot be rendered");
    return rc;
}

/* A conversation with its mask, as training would have it. */
static int print_conversation(const struct tools *t, const json_t *record, unsigned since)
{
    const struct ft_turn_rules rules = {.end = FT_TRAIN_UNSET};
    struct ft_sample s = {0};
    int rc =
        ft_conversation_sample(&s, t->tokenizer, t->chat, record, &rules, (long long)time(NULL));
    if (!rc)
        rc = ft_alloc_check(since);
    if (!rc) {
        printf("{\"input_ids\": [");
        for (size_t i = 0; i < s.ids.n; i++)
            printf("%s%d", i ? ", " : "", s.ids.v[i]);
        printf("], \"loss_mask\": [");
        for (size_t i = 0; i < s.ids.n; i++)
            printf("%s%d", i ? ", " : "", s.mask[i]);
        printf("]}\n");
    }
    ft_sample_free(&s);
    return rc;
}

static int encode_line(const struct tools *t, const struct options *o, const char *line,
                       size_t length, const struct ft_where *at)
{
    struct ft_rendered r = {0};
    struct ft_ids ids = {0};
    struct ft_spans spans = {0};
    json_t *record = NULL;
    bool special = o->special;
    const unsigned since = ft_alloc_failures();
    int rc = o->raw ? FT_OK : ft_json_record(line, length, *at, FT_EDATA, &record);
    const bool chat = record && t->chat && json_is_array(json_object_get(record, "messages"));
    if (!rc && chat && !o->render && !o->prompt && !o->offsets) {
        rc = print_conversation(t, record, since);
        if (rc == FT_EDATA)
            ft_fail_at(*at, FT_EDATA, "the record cannot be rendered");
        json_decref(record);
        return rc;
    }
    if (!rc && !o->raw)
        rc = record_text(t, o, record, at, &r, &special);
    if (!rc && o->render)
        rc = print_text(r.text, r.length);
    else if (!rc)
        rc = ft_tokenizer_encode(t->tokenizer, o->raw ? line : r.text, o->raw ? length : r.length,
                                 special, &ids, o->offsets ? &spans : NULL);
    if (!rc && !o->render)
        print_ids(&ids, o->offsets ? &spans : NULL, o->raw ? line : r.text);
    ft_rendered_free(&r);
    ft_ids_free(&ids);
    ft_spans_free(&spans);
    json_decref(record);
    return rc;
}

static int decode_line(const struct ft_tokenizer *t, const struct options *o, const char *line,
                       size_t n, const struct ft_where *at)
{
    json_t *record = NULL, *list;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t length = 0;
    int rc = ft_json_record(line, n, *at, FT_EDATA, &record);
    list = json_is_array(record) ? record : json_object_get(record, "input_ids");
    if (!rc && !json_is_array(list))
        rc = ft_fail_at(*at, FT_EDATA, "has no 'input_ids'");
    if (!rc)
        rc = ft_alloc(&ids, json_array_size(list) + 1, sizeof *ids);
    for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
        const json_int_t id = json_integer_value(json_array_get(list, i));
        ids[i] = (int32_t)id;
        if (!json_is_integer(json_array_get(list, i)) || id < 0 || id >= ft_tokenizer_size(t))
            rc = ft_fail_at(*at, FT_EDATA, "input_ids[%zu] is no id of this tokenizer", i);
    }
    if (!rc)
        rc = ft_tokenizer_decode(t, ids, json_array_size(list), !o->special, &text, &length);
    if (!rc)
        rc = print_text(text, length);
    ft_free(text);
    ft_free(ids);
    json_decref(record);
    return rc;
}

static int run_lines(const struct tools *t, const struct options *o, FILE *f, const char *name)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = FT_OK;
    errno = 0;
    for (int number = 1; !rc && (n = getline(&line, &room, f)) >= 0; number++) {
        const struct ft_where at = {.file = name, .line = number};
        if (n > 0 && line[n - 1] == '\n')
            n--;
        if (number == 1 && !o->raw && n >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
            memmove(line, line + 3, (size_t)(n -= 3) + 1); /* a byte order mark */
        if (n == 0 && !o->raw)
            continue;
        if (o->raw && ft_utf8_valid(line, (size_t)n) < (size_t)n)
            rc = ft_fail_at(at, FT_EDATA, "is not valid UTF-8");
        else
            rc = o->decode ? decode_line(t->tokenizer, o, line, (size_t)n, &at)
                           : encode_line(t, o, line, (size_t)n, &at);
    }
    if (!rc && !feof(f))
        rc = ft_fail_at((struct ft_where){.file = name}, errno == ENOMEM ? FT_ERESOURCE : FT_EDATA,
                        "cannot be read: %s", strerror(errno));
    free(line);
    return rc;
}

/* MODEL: a folder, an id in the local cache, or a tokenizer.json itself. */
static int open_tools(struct tools *t, const char *model)
{
    char *folder = NULL;
    bool cached;
    if (ft_file_exists(model) && !ft_is_folder(model) && !ft_ends_with(model, ".gguf"))
        return ft_tokenizer_open(&t->tokenizer, model);
    int rc = ft_base_find(&folder, &cached, NULL, model, NULL, NULL);
    if (!rc)
        rc = ft_tokenizer_open_folder(&t->tokenizer, folder, NULL);
    if (!rc)
        rc = ft_chat_open(&t->chat, folder);
    ft_free(folder);
    return rc;
}

int ft_cmd_tokenize(const struct ft_command *self, int n, char **words)
{
    struct options o = {.special = !ft_take_flag(&n, words, "--no-special-tokens")};
    struct tools t = {NULL, NULL};
    o.render = ft_take_flag(&n, words, "--render");
    o.prompt = ft_take_flag(&n, words, "--generation-prompt");
    o.raw = ft_take_flag(&n, words, "--raw");
    o.offsets = ft_take_flag(&n, words, "--offsets");
    o.decode = ft_take_flag(&n, words, "--decode");
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n < 1 || n > 2) {
        ft_fail(FT_ECONFIG, "'ft tokenize' needs a model, and at most one file");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    if (o.render && (o.raw || o.decode))
        return ft_fail(FT_ECONFIG, "'--render' is for records, not for '--raw' or '--decode'");
    const bool from_stdin = n < 2 || strcmp(words[1], "-") == 0;
    FILE *f = from_stdin ? stdin : fopen(words[1], "re");
    int rc = f ? FT_OK
               : ft_fail_at((struct ft_where){.file = words[1]},
                            errno == ENOMEM ? FT_ERESOURCE : FT_EDATA, "cannot be read: %s",
                            strerror(errno));
    if (!rc)
        rc = open_tools(&t, words[0]);
    if (!rc)
        rc = run_lines(&t, &o, f, from_stdin ? "stdin" : words[1]);
    if (f && !from_stdin)
        fclose(f);
    ft_tokenizer_close(t.tokenizer);
    ft_chat_close(t.chat);
    return rc;
}
