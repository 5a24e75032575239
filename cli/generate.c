/* ft generate */
#include "cli/responder.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 8 }; /* prompts side by side */

/* A prompt and its answers: by the adapter, and (compared) by the base before it. */
struct task {
    json_t *given; /* the record, or the text of -p */
    struct ft_ids prompt;
    struct answer {
        struct ft_ids ids;
        const char *finish; /* NULL: not finished */
    } answers[2];
};

struct generate {
    const char *text, *system, *file;
    bool raw, compare, json;
    int64_t max_tokens;
    struct ft_sampler sampler;
    const volatile sig_atomic_t *stop;
    struct task *tasks;
    int64_t n, room;
    /* of the run that goes on */
    struct ft_responder *r;
    int which;      /* of answers */
    int64_t told;   /* tasks that were printed */
    size_t printed; /* bytes of a text that appears as it is made */
};

/* --- prompts --- */

static int add_task(struct generate *g, json_t *given)
{
    if (g->n == g->room) {
        g->room = g->room ? 2 * g->room : 16;
        FT_TRY(ft_grow(&g->tasks, (size_t)g->room, sizeof *g->tasks));
    }
    g->tasks[g->n++] = (struct task){.given = json_incref(given)};
    return FT_OK;
}

static int take_record(void *ctx, json_t *record, struct ft_where at)
{
    if (!json_is_string(json_object_get(record, "prompt")) &&
        !json_is_array(json_object_get(record, "messages")))
        return ft_fail_at(at, FT_EDATA, "has neither 'prompt' nor 'messages'");
    return add_task(ctx, record);
}

static int read_prompts(struct generate *g)
{
    if (g->text) {
        json_t *record = json_pack("{ss}", "prompt", g->text);
        int rc = record ? add_task(g, record) : ft_fail(FT_EDATA, "'-p' is not valid UTF-8");
        json_decref(record);
        return rc;
    }
    return ft_read_records(g->file, take_record, g);
}

/* The messages of a record, with the system's words before them if it has none of its own. */
static json_t *with_system(const struct generate *g, const json_t *record)
{
    json_t *copy = json_deep_copy(record), *list = json_object_get(copy, "messages");
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "role"));
    if (g->system && (!first || strcmp(first, "system") != 0))
        json_array_insert_new(list, 0,
                              json_pack("{ss ss}", "role", "system", "content", g->system));
    return copy;
}

static int tokenize(const struct generate *g, const struct ft_responder *r, struct task *t)
{
    const json_t *prompt = json_object_get(t->given, "prompt");
    ft_ids_free(&t->prompt);
    if (g->raw && !json_is_string(prompt))
        return ft_fail(FT_EDATA, "'--raw' continues a 'prompt'; the record has 'messages'");
    if (g->raw)
        return ft_responder_text(r, json_string_value(prompt), json_string_length(prompt),
                                 &t->prompt);
    json_t *record = json_is_string(prompt)
                         ? ft_responder_turn(g->system, json_string_value(prompt))
                         : with_system(g, t->given);
    int rc = ft_responder_messages(r, record, &t->prompt);
    json_decref(record);
    return rc;
}

/* --- answers --- */

static bool appears(const struct generate *g)
{
    return g->n == 1 && !g->json;
}

/* What has been made so far, but for a character whose rest is still to come. */
static int show_words(struct generate *g, const struct answer *a)
{
    char *text = NULL;
    size_t length = 0;
    FT_TRY(ft_responder_words(g->r, a->ids.v, a->ids.n, &text, &length));
    const size_t half = sizeof "\xef\xbf\xbd" - 1;
    if (!a->finish && length >= half && memcmp(text + length - half, "\xef\xbf\xbd", half) == 0)
        length = g->printed;
    if (length > g->printed) {
        fwrite(text + g->printed, 1, length - g->printed, stdout);
        fflush(stdout);
        g->printed = length;
    }
    if (a->finish)
        printf("\n");
    ft_free(text);
    return FT_OK;
}

static int put_answer(const struct generate *g, json_t *out, const struct answer *a)
{
    char *text = NULL;
    size_t length = 0;
    json_t *ids = json_array();
    FT_TRY(ft_responder_words(g->r, a->ids.v, a->ids.n, &text, &length));
    for (size_t i = 0; i < a->ids.n; i++)
        json_array_append_new(ids, json_integer(a->ids.v[i]));
    json_object_set_new(out, "text", json_stringn(text, length));
    json_object_set_new(out, "tokens", ids);
    json_object_set_new(out, "finish", json_string(a->finish));
    ft_free(text);
    return FT_OK;
}

static int print_json(const struct generate *g, const struct task *t)
{
    const unsigned since = ft_alloc_failures();
    const char *key = json_object_get(t->given, "prompt") ? "prompt" : "messages";
    json_t *out = json_object(), *base = json_object();
    json_object_set(out, key, json_object_get(t->given, key));
    int rc = g->compare ? put_answer(g, base, &t->answers[0]) : FT_OK;
    if (!rc && g->compare)
        json_object_set(out, "base", base);
    if (!rc)
        rc = put_answer(g, out, &t->answers[1]);
    char *dumped = rc ? NULL : ft_json_dumps(out, JSON_COMPACT, since);
    if (!rc && !dumped)
        rc = FT_ERESOURCE;
    if (dumped)
        printf("%s\n", dumped);
    ft_json_free(dumped);
    json_decref(base);
    json_decref(out);
    return rc;
}

static int print_words(struct generate *g, const char *title, const struct answer *a)
{
    if (title)
        printf("%s\n", title);
    g->printed = 0;
    return show_words(g, a);
}

/* The tasks that are answered, in order. */
static int tell_finished(struct generate *g)
{
    for (; g->told < g->n && g->tasks[g->told].answers[1].finish; g->told++) {
        const struct task *t = &g->tasks[g->told];
        if (g->json) {
            FT_TRY(print_json(g, t));
            continue;
        }
        const char *text = json_string_value(json_object_get(t->given, "prompt"));
        if (g->n > 1)
            printf("%s[%lld] %s\n", g->told ? "\n" : "", (long long)g->told + 1, text ? text : "");
        if (g->compare)
            FT_TRY(print_words(g, "--- the base:", &t->answers[0]));
        if (g->compare || g->n > 1)
            FT_TRY(print_words(g, g->compare ? "--- with the adapter:" : NULL, &t->answers[1]));
    }
    fflush(stdout);
    return FT_OK;
}

static int take_token(void *ctx, int64_t prompt, int32_t id, const char *finish)
{
    struct generate *g = ctx;
    struct answer *a = &g->tasks[prompt].answers[g->which];
    FT_TRY(ft_ids_add(&a->ids, id));
    a->finish = finish;
    if (appears(g) && !g->compare)
        FT_TRY(show_words(g, a));
    return finish && g->which ? tell_finished(g) : FT_OK;
}

/* Of the longest prompt and its answer, within what the model was made for. */
static int find_context(const struct generate *g, const struct ft_responder *r, int64_t *context)
{
    *context = 0;
    for (int64_t i = 0; i < g->n; i++) {
        const int64_t n = (int64_t)g->tasks[i].prompt.n;
        if (r->longest > 0 && n >= r->longest)
            return ft_fail(FT_EDATA,
                           "prompt %lld has %lld tokens, the model was made for %lld with its "
                           "answer",
                           (long long)i + 1, (long long)n, (long long)r->longest);
        *context = n + g->max_tokens > *context ? n + g->max_tokens : *context;
    }
    *context = r->longest > 0 && *context > r->longest ? r->longest : *context;
    return FT_OK;
}

/* All answers of the model with its adapter, or (which 0) without it, to the same tokens. */
static int answer_all(struct generate *g, const char *model, const char *adapter, int which, int n,
                      char **words)
{
    struct ft_responder r = {0};
    struct ft_server s = {0};
    struct ft_prompt *prompts = NULL;
    int64_t context = 0;
    int rc = ft_responder_open(&r, model, adapter, n, words);
    if (!which)
        ft_responder_without_adapter(&r.config);
    for (int64_t i = 0; i < g->n && !rc; i++)
        rc = tokenize(g, &r, &g->tasks[i]);
    if (!rc)
        rc = find_context(g, &r, &context);
    const int slots = g->n < SLOTS ? (int)g->n : SLOTS;
    const struct ft_server_options o = {
        .slots = slots, .context = context, .scored = slots, .vocab = r.vocab};
    if (!rc)
        rc = ft_server_open(&s, &r.config, &o, NULL, NULL);
    ft_print_notices();
    if (!rc)
        rc = ft_alloc(&prompts, (size_t)g->n, sizeof *prompts);
    for (int64_t i = 0; i < g->n && !rc; i++)
        prompts[i] = (struct ft_prompt){g->tasks[i].prompt.v, (int64_t)g->tasks[i].prompt.n};
    g->r = &r;
    g->which = which;
    const struct ft_generating how = {.sampler = g->sampler,
                                      .max_tokens = g->max_tokens,
                                      .ends = r.ends.v,
                                      .n_ends = (int)r.ends.n,
                                      .stop = g->stop};
    if (!rc)
        rc = ft_generate(&s, &how, prompts, g->n, 0, take_token, g);
    ft_free(prompts);
    ft_server_close(&s);
    ft_responder_close(&r);
    return rc;
}

/* --- the command --- */

static int take_words(struct generate *g, const struct ft_command *self, int *n, char **words,
                      const char **adapter)
{
    g->max_tokens = 256;
    g->raw = ft_take_flag(n, words, "--raw");
    g->compare = ft_take_flag(n, words, "--compare");
    g->json = ft_take_flag(n, words, "--json");
    FT_TRY(ft_take_text(self, n, words, "-p", &g->text));
    FT_TRY(ft_take_text(self, n, words, "--system", &g->system));
    FT_TRY(ft_take_text(self, n, words, "-a", adapter));
    FT_TRY(ft_take_number(self, n, words, "--max-tokens", &g->max_tokens));
    FT_TRY(ft_take_sampler(self, n, words, &g->sampler));
    const bool is_flag = *n > 1 && words[1][0] == '-' && words[1][1];
    if (*n > 1 && !is_flag && !strchr(words[1], '=')) {
        g->file = words[1];
        memmove(&words[1], &words[2], (size_t)(*n - 2) * sizeof *words);
        --*n;
    }
    FT_TRY(ft_refuse_flags(self, *n, words));
    if (*n < 1 || !g->text == !g->file) {
        ft_fail(FT_ECONFIG, *n < 1
                                ? "'ft generate' needs a model"
                                : "'ft generate' needs a text behind '-p', or a file of prompts");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    if (g->compare && !*adapter)
        return ft_fail(FT_ECONFIG, "'--compare' is for an adapter: name it with '-a'");
    if (g->raw && g->system)
        return ft_fail(FT_ECONFIG, "'--raw' has no template that '--system' could stand in");
    return FT_OK;
}

int ft_cmd_generate(const struct ft_command *self, int n, char **words)
{
    struct generate g = {0};
    const char *adapter = NULL;
    FT_TRY(take_words(&g, self, &n, words, &adapter));
    g.stop = ft_listen_to_stop();
    int rc = read_prompts(&g);
    if (!rc && g.compare)
        rc = answer_all(&g, words[0], adapter, 0, n - 1, words + 1);
    if (!rc && !*g.stop)
        rc = answer_all(&g, words[0], adapter, 1, n - 1, words + 1);
    if (!rc && *g.stop) {
        printf("\n");
        rc = FT_EREQUEUE;
    }
    for (int64_t i = 0; i < g.n; i++) {
        json_decref(g.tasks[i].given);
        ft_ids_free(&g.tasks[i].prompt);
        ft_ids_free(&g.tasks[i].answers[0].ids);
        ft_ids_free(&g.tasks[i].answers[1].ids);
    }
    ft_free(g.tasks);
    return rc;
}
