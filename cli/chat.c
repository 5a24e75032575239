/* ft chat */
#include "cli/responder.h"

#include "core/json.h"
#include "core/mem.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 4096 }; /* unless the model's own is smaller, or it is said */

struct talk {
    struct ft_responder r;
    struct ft_server s;
    struct ft_generating how;
    const char *system;
    json_t *messages;
    struct ft_ids read;   /* what the server has read */
    struct ft_ids answer; /* of this turn */
    size_t printed;
    bool finished, full;
};

static void begin_anew(struct talk *t)
{
    json_decref(t->messages);
    t->messages = json_array();
    if (t->system)
        json_array_append_new(t->messages,
                              json_pack("{ss ss}", "role", "system", "content", t->system));
}

/* The answer so far, but for a character whose rest is still to come. */
static int take_token(void *ctx, int64_t prompt, int32_t id, const char *finish)
{
    struct talk *t = ctx;
    char *text = NULL;
    size_t length = 0;
    const size_t half = sizeof "\xef\xbf\xbd" - 1;
    (void)prompt;
    FT_TRY(ft_ids_add(&t->answer, id));
    FT_TRY(ft_responder_words(&t->r, t->answer.v, t->answer.n, &text, &length));
    if (!finish && length >= half && memcmp(text + length - half, "\xef\xbf\xbd", half) == 0)
        length = t->printed;
    if (length > t->printed) {
        fwrite(text + t->printed, 1, length - t->printed, stdout);
        fflush(stdout);
        t->printed = length;
    }
    t->finished = finish != NULL;
    t->full = finish && strcmp(finish, "length") == 0;
    ft_free(text);
    return FT_OK;
}

/* How much of the prompt has been read already; its last token is read again for its logits. */
static int64_t common(const struct talk *t, const struct ft_ids *b)
{
    const struct ft_ids *a = &t->read;
    size_t n = 0;
    if (t->s.job.rope_by_length) /* what was read was turned for its own length */
        return 0;
    while (n < a->n && n + 1 < b->n && a->v[n] == b->v[n])
        n++;
    return (int64_t)n;
}

/* What the server has read: the prompt, and the answer but for its last token. */
static int note_read(struct talk *t, const struct ft_ids *prompt)
{
    t->read.n = 0;
    for (size_t i = 0; i < prompt->n; i++)
        FT_TRY(ft_ids_add(&t->read, prompt->v[i]));
    for (size_t i = 0; i + 1 < t->answer.n; i++)
        FT_TRY(ft_ids_add(&t->read, t->answer.v[i]));
    if ((int64_t)t->read.n > t->s.length[0]) /* it was stopped before */
        t->read.n = (size_t)t->s.length[0];
    return FT_OK;
}

static int note_answer(struct talk *t)
{
    char *text = NULL;
    size_t length = 0;
    FT_TRY(ft_responder_words(&t->r, t->answer.v, t->answer.n, &text, &length));
    json_array_append_new(t->messages,
                          json_pack("{ss ss%}", "role", "assistant", "content", text, length));
    ft_free(text);
    return FT_OK;
}

/* Who types may go on; what comes from a pipe or a file is not answered by half. */
static int does_not_fit(struct talk *t, size_t n)
{
    ft_fail(FT_EDATA, "the conversation has %zu tokens, and %lld fit", n,
            (long long)t->s.serving.context);
    ft_hint("/new begins another, '--context N' makes room for more");
    if (!isatty(0))
        return FT_EDATA;
    fputs(ft_status_report(), stderr);
    ft_status_clear_errors();
    json_array_remove(t->messages, json_array_size(t->messages) - 1);
    return FT_OK;
}

static int answer(struct talk *t, const struct ft_ids *prompt)
{
    const int64_t left = t->s.serving.context - (int64_t)prompt->n;
    if (left <= 0)
        return does_not_fit(t, prompt->n);
    struct ft_generating how = t->how;
    how.max_tokens = left < how.max_tokens ? left : how.max_tokens;
    how.stop = ft_listen_to_stop();
    const struct ft_prompt p = {prompt->v, (int64_t)prompt->n};
    t->answer.n = t->printed = 0;
    t->full = false;
    FT_TRY(ft_generate(&t->s, &how, &p, 1, common(t, prompt), take_token, t));
    printf("%s\n", t->full ? " ..." : "");
    if (*how.stop && *how.stop != SIGINT)
        return FT_EREQUEUE;
    FT_TRY(note_read(t, prompt));
    if (t->answer.n)
        return note_answer(t);
    json_array_remove(t->messages, json_array_size(t->messages) - 1);
    return FT_OK;
}

static int one_turn(struct talk *t, const char *line)
{
    struct ft_ids prompt = {0};
    json_t *said = json_pack("{ss ss}", "role", "user", "content", line);
    if (!said)
        return ft_fail(FT_EDATA, "the line is not valid UTF-8");
    json_array_append_new(t->messages, said);
    json_t *record = json_pack("{sO}", "messages", t->messages);
    int rc = ft_responder_messages(&t->r, record, &prompt);
    json_decref(record);
    if (!rc)
        rc = answer(t, &prompt);
    ft_ids_free(&prompt);
    return rc;
}

static int run_turns(struct talk *t)
{
    const bool terminal = isatty(0) && isatty(1);
    char *line = NULL;
    size_t room = 0;
    int rc = FT_OK;
    if (terminal)
        printf("/new begins another conversation, /exit or Ctrl-D ends, Ctrl-C ends an answer\n");
    while (!rc) {
        if (terminal)
            printf("> ");
        fflush(stdout);
        ssize_t n = getline(&line, &room, stdin);
        if (n < 0 || strcmp(line, "/exit\n") == 0)
            break;
        if (n && line[n - 1] == '\n')
            line[n - 1] = 0;
        if (strcmp(line, "/new") == 0)
            begin_anew(t);
        else if (*line)
            rc = one_turn(t, line);
    }
    free(line);
    return rc;
}

int ft_cmd_chat(const struct ft_command *self, int n, char **words)
{
    struct talk t = {.how.max_tokens = 1024};
    const char *adapter = NULL;
    int64_t context = 0;
    FT_TRY(ft_take_text(self, &n, words, "-a", &adapter));
    FT_TRY(ft_take_text(self, &n, words, "--system", &t.system));
    FT_TRY(ft_take_number(self, &n, words, "--context", &context));
    FT_TRY(ft_take_number(self, &n, words, "--max-tokens", &t.how.max_tokens));
    FT_TRY(ft_take_sampler(self, &n, words, &t.how.sampler));
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n < 1) {
        ft_fail(FT_ECONFIG, "'ft chat' needs a model");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    int rc = ft_responder_open(&t.r, words[0], adapter, n - 1, words + 1);
    const int64_t own = t.r.longest > 0 && t.r.longest < CONTEXT ? t.r.longest : CONTEXT;
    const struct ft_server_options o = {
        .slots = 1, .context = context ? context : own, .scored = 1, .vocab = t.r.vocab};
    if (!rc)
        rc = ft_server_open(&t.s, &t.r.config, &o, NULL, NULL);
    ft_print_notices();
    t.how.ends = t.r.ends.v;
    t.how.n_ends = (int)t.r.ends.n;
    begin_anew(&t);
    if (!rc)
        rc = run_turns(&t);
    json_decref(t.messages);
    ft_ids_free(&t.read);
    ft_ids_free(&t.answer);
    ft_server_close(&t.s);
    ft_responder_close(&t.r);
    return rc;
}
