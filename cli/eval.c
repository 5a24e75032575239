/* ft eval */
#include "cli/responder.h"

#include "core/bytes.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "data/sample.h"
#include "train/base.h"
#include "train/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A question: its choices are texts first.. of the list. */
struct question {
    int64_t first, n, answer;
};

struct eval {
    bool json;
    const char *baseline;
    double tolerance;
    struct ft_score_text *texts;
    int64_t n, room, longest;
    double *lengths; /* of a choice, in characters; by text */
    struct question *questions;
    int64_t n_questions, room_questions;
    int64_t documents; /* texts that are no choices: the first ones of a config; else counted */
    struct ft_score *scores[2]; /* with the adapter (or of the model alone), and without */
    const volatile sig_atomic_t *stop;
    double told; /* when progress was shown last */
};

/* --- texts --- */

static int add_text(struct eval *e, const int32_t *ids, const uint8_t *mask, size_t n,
                    int64_t chain, double length)
{
    int32_t *own_ids;
    uint8_t *own_mask;
    if (!n)
        return ft_fail(FT_EDATA, "has no token");
    if (e->n == e->room) {
        e->room = e->room ? 2 * e->room : 64;
        FT_TRY(ft_grow(&e->texts, (size_t)e->room, sizeof *e->texts));
        FT_TRY(ft_grow(&e->lengths, (size_t)e->room, sizeof *e->lengths));
    }
    FT_TRY(ft_alloc(&own_ids, n + 1, sizeof *own_ids));
    int rc = ft_alloc(&own_mask, n + 1, 1);
    if (rc) {
        ft_free(own_ids);
        return rc;
    }
    memcpy(own_ids, ids, n * sizeof *ids);
    memcpy(own_mask, mask, n);
    e->lengths[e->n] = length;
    e->texts[e->n++] = (struct ft_score_text){own_ids, own_mask, (int64_t)n, chain};
    e->longest = (int64_t)n > e->longest ? (int64_t)n : e->longest;
    return FT_OK;
}

static void free_texts(struct eval *e)
{
    for (int64_t i = 0; i < e->n; i++) {
        ft_free((void *)(uintptr_t)e->texts[i].ids);
        ft_free((void *)(uintptr_t)e->texts[i].mask);
    }
    ft_free(e->texts);
    ft_free(e->lengths);
    ft_free(e->questions);
    ft_free(e->scores[0]);
    ft_free(e->scores[1]);
}

/* --- multiple choice, as lm-eval counts it --- */

/* The bytes of a text before the white space that it ends with, as Python's rstrip(). */
static size_t stripped(const char *text, size_t n)
{
    const char *p = text;
    ft_strip(&p, &n, false, true);
    return n;
}

/* Context and continuation in one: white space goes from the one to the other, both are tokenized
 * together, and the context is as many tokens as it has alone. An empty context is the token that
 * texts begin with. */
static int encode_choice(const struct ft_responder *r, const char *prompt, size_t length,
                         const char *choice, struct ft_ids *whole, size_t *context)
{
    const size_t kept = stripped(prompt, length);
    struct ft_bytes text = {0};
    struct ft_ids alone = {0};
    int rc = ft_bytes_add(&text, prompt, length);
    if (!rc)
        rc = ft_bytes_add(&text, " ", 1);
    if (!rc)
        rc = ft_bytes_add(&text, choice, strlen(choice));
    if (!rc && kept)
        rc = ft_tokenizer_encode(r->tokenizer, prompt, kept, true, &alone, NULL);
    *context = alone.n;
    if (!rc && !kept && r->begin >= 0) {
        rc = ft_ids_add(whole, r->begin);
        *context = 1;
    }
    if (!rc)
        rc = ft_tokenizer_encode(r->tokenizer, text.p, text.n, kept > 0, whole, NULL);
    if (!rc && !kept && r->begin >= 0 && whole->n > 1 && whole->v[1] == r->begin) {
        memmove(whole->v, whole->v + 1,
                (whole->n - 1) * sizeof *whole->v); /* it is there already */
        whole->n--;
    }
    if (!rc)
        rc = ft_responder_check(r, whole);
    if (!rc && (*context == 0 || whole->n <= *context))
        rc = ft_fail(FT_EDATA, "a choice has no token of its own, or nothing stands before it");
    ft_bytes_free(&text);
    ft_ids_free(&alone);
    return rc;
}

static int add_choice(struct eval *e, const struct ft_responder *r, const json_t *prompt,
                      const char *choice)
{
    struct ft_ids whole = {0};
    uint8_t *mask = NULL;
    size_t context = 0;
    double characters = 0;
    for (const char *p = choice; *p; p += ft_char_length(*p))
        characters++;
    int rc = encode_choice(r, json_string_value(prompt), json_string_length(prompt), choice, &whole,
                           &context);
    const size_t most = r->longest > 0 ? (size_t)r->longest + 1 : whole.n;
    const size_t skip = whole.n > most ? whole.n - most : 0; /* from the left, as there */
    if (!rc && skip >= context)
        rc = ft_fail(FT_EDATA, "a choice is longer than the model's %lld positions",
                     (long long)r->longest);
    if (!rc)
        rc = ft_alloc(&mask, whole.n, 1);
    for (size_t i = context; i < whole.n && !rc; i++)
        mask[i] = 1;
    if (!rc)
        rc = add_text(e, whole.v + skip, mask + skip, whole.n - skip, e->n_questions, characters);
    ft_free(mask);
    ft_ids_free(&whole);
    return rc;
}

static int add_question(struct eval *e, const struct ft_responder *r, const json_t *record)
{
    const json_t *prompt = json_object_get(record, "prompt"),
                 *choices = json_object_get(record, "choices"),
                 *answer = json_object_get(record, "answer");
    const size_t n = json_array_size(choices);
    if (!json_is_string(prompt) || !n || !json_is_integer(answer) ||
        json_integer_value(answer) < 0 || json_integer_value(answer) >= (json_int_t)n)
        return ft_fail(FT_EDATA,
                       "a question has 'prompt', 'choices' and the number of the right one as "
                       "'answer', from 0");
    if (e->n_questions == e->room_questions) {
        e->room_questions = e->room_questions ? 2 * e->room_questions : 64;
        FT_TRY(ft_grow(&e->questions, (size_t)e->room_questions, sizeof *e->questions));
    }
    e->questions[e->n_questions] =
        (struct question){e->n, (int64_t)n, (int64_t)json_integer_value(answer)};
    for (size_t i = 0; i < n; i++) {
        const char *choice = json_string_value(json_array_get(choices, i));
        if (!choice || !*choice)
            return ft_fail(FT_EDATA, "choice %zu is no text", i);
        FT_TRY(add_choice(e, r, prompt, choice));
    }
    e->n_questions++;
    return FT_OK;
}

/* --- other records --- */

static int add_conversation(struct eval *e, const struct ft_responder *r, const json_t *record)
{
    const struct ft_turn_rules rules = {.end = FT_TRAIN_UNSET};
    struct ft_sample s = {0};
    if (!r->chat)
        return ft_fail(FT_EDATA, "has 'messages', and the model has no chat template");
    int rc =
        ft_conversation_sample(&s, r->tokenizer, r->chat, record, &rules, (long long)time(NULL));
    if (!rc)
        rc = ft_responder_check(r, &s.ids);
    if (!rc)
        rc = add_text(e, s.ids.v, s.mask, s.ids.n, -1 - e->n, 0);
    ft_sample_free(&s);
    return rc;
}

/* All of a text, or what follows a prompt. */
static int add_plain(struct eval *e, const struct ft_responder *r, const json_t *prompt,
                     const json_t *text)
{
    struct ft_bytes all = {0};
    struct ft_ids ids = {0}, before = {0};
    uint8_t *mask = NULL;
    int rc =
        prompt ? ft_bytes_add(&all, json_string_value(prompt), json_string_length(prompt)) : FT_OK;
    if (!rc && prompt)
        rc = ft_tokenizer_encode(r->tokenizer, all.p, all.n, true, &before, NULL);
    if (!rc)
        rc = ft_bytes_add(&all, json_string_value(text), json_string_length(text));
    if (!rc)
        rc = ft_tokenizer_encode(r->tokenizer, all.p ? all.p : "", all.n, true, &ids, NULL);
    if (!rc)
        rc = ft_responder_check(r, &ids);
    if (!rc)
        rc = ft_alloc(&mask, ids.n + 1, 1);
    for (size_t i = before.n; i < ids.n && !rc; i++)
        mask[i] = 1;
    if (!rc)
        rc = add_text(e, ids.v, mask, ids.n, -1 - e->n, 0);
    ft_free(mask);
    ft_bytes_free(&all);
    ft_ids_free(&ids);
    ft_ids_free(&before);
    return rc;
}

static int add_record(struct eval *e, const struct ft_responder *r, const json_t *record)
{
    const json_t *prompt = json_object_get(record, "prompt"),
                 *completion = json_object_get(record, "completion"),
                 *text = json_object_get(record, "text");
    if (json_object_get(record, "choices"))
        return add_question(e, r, record);
    if (json_is_array(json_object_get(record, "messages")))
        return add_conversation(e, r, record);
    if (json_is_string(prompt) && json_is_string(completion))
        return add_plain(e, r, prompt, completion);
    if (json_is_string(text))
        return add_plain(e, r, NULL, text);
    return ft_fail(FT_EDATA, "has neither 'choices', 'messages', 'text', nor 'prompt' and "
                             "'completion'");
}

struct reading {
    struct eval *e;
    const struct ft_responder *r;
};

static int take_record(void *ctx, json_t *record, struct ft_where at)
{
    const struct reading *reading = ctx;
    const int rc = add_record(reading->e, reading->r, record);
    if (rc == FT_EDATA)
        ft_fail_at(at, FT_EDATA, "the record cannot be evaluated");
    return rc;
}

/* The evaluation set of a config. */
static int read_held(struct eval *e, const struct ft_config *c)
{
    struct ft_job j = {0};
    int32_t *ids = NULL;
    uint8_t *mask = NULL;
    int rc = ft_job_open(&j, c, &ft_data_hooks);
    if (!rc && !j.held.n_docs) {
        rc = ft_fail_at(ft_config_where(c, "test_datasets"), FT_ECONFIG,
                        "nothing is held out to evaluate");
        ft_hint("'val_set_size' holds out a part of the data, 'test_datasets' names files");
    }
    if (!rc)
        rc = ft_alloc(&ids, (size_t)j.held.longest, sizeof *ids);
    if (!rc)
        rc = ft_alloc(&mask, (size_t)j.held.longest, 1);
    for (int64_t i = 0; i < j.held.n_docs && !rc; i++) {
        const struct ft_document *doc = &j.held.docs[i];
        rc = ft_dataset_tokens(&j.held, doc, ids, mask);
        if (!rc)
            rc = add_text(e, ids, mask, (size_t)doc->length, -1 - e->n, 0);
    }
    ft_free(ids);
    ft_free(mask);
    ft_job_close(&j);
    return rc;
}

/* --- scores --- */

static void show_progress(void *ctx, int64_t done)
{
    struct eval *e = ctx;
    const double now = ft_now();
    if (e->json || !isatty(2) || (now - e->told < 0.2 && done < e->n))
        return;
    e->told = now;
    fprintf(stderr, "\r%lld of %lld%s", (long long)done, (long long)e->n,
            done == e->n ? "\r\033[K" : "");
}

static int score_with(struct eval *e, const struct ft_config *c, int64_t vocab, int which)
{
    struct ft_server s = {0};
    const struct ft_server_options o = ft_score_options(e->longest, e->n, vocab);
    FT_TRY(ft_alloc(&e->scores[which], (size_t)e->n, sizeof **e->scores));
    int rc = ft_server_open(&s, c, &o, NULL, NULL);
    ft_print_notices();
    if (!rc)
        rc = ft_score_texts(&s, e->texts, e->n, e->scores[which], e->stop, show_progress, e);
    ft_server_close(&s);
    return rc;
}

/* With its adapter, if it has one, and without. */
static int score_both(struct eval *e, const struct ft_config *c, int64_t vocab)
{
    struct ft_config base = *c;
    FT_TRY(score_with(e, c, vocab, 0));
    ft_responder_without_adapter(&base);
    return c->lora_model_dir ? score_with(e, &base, vocab, 1) : FT_OK;
}

struct summary {
    int64_t documents, tokens, right;
    double loss;
    int64_t questions;
    double acc, acc_norm;
};

/* Whether the question is answered rightly: by the likelihood, and by that a character. */
static void judge(const struct eval *e, const struct ft_score *s, const struct question *q,
                  bool right[2])
{
    int64_t best[2] = {0, 0};
    for (int64_t i = 1; i < q->n; i++)
        for (int k = 0; k < 2; k++) {
            const int64_t a = q->first + i, b = q->first + best[k];
            const double of_a = s[a].log_likelihood / (k ? e->lengths[a] : 1);
            if (of_a > s[b].log_likelihood / (k ? e->lengths[b] : 1))
                best[k] = i;
        }
    right[0] = best[0] == q->answer;
    right[1] = best[1] == q->answer;
}

static struct summary sum_up(const struct eval *e, const struct ft_score *s)
{
    struct summary all = {.questions = e->n_questions};
    for (int64_t i = 0; i < e->n; i++) {
        if (e->texts[i].chain >= 0)
            continue;
        all.documents++;
        all.tokens += s[i].tokens;
        all.right += s[i].right;
        all.loss -= s[i].log_likelihood;
    }
    all.loss /= (double)all.tokens;
    for (int64_t i = 0; i < e->n_questions; i++) {
        bool right[2];
        judge(e, s, &e->questions[i], right);
        all.acc += right[0];
        all.acc_norm += right[1];
    }
    all.acc /= (double)e->n_questions;
    all.acc_norm /= (double)e->n_questions;
    return all;
}

/* Standard errors of what the adapter changed: of the mean over tokens, by documents; of
 * accuracies, by questions. */
static void errors_of_difference(const struct eval *e, double *loss, double acc[2])
{
    const struct ft_score *a = e->scores[0], *b = e->scores[1];
    double all = 0, tokens = 0, off = 0, n = 0, mean[2] = {0}, square[2] = {0};
    for (int round = 0; round < 2; round++)
        for (int64_t i = 0; i < e->n; i++) {
            if (e->texts[i].chain >= 0)
                continue;
            const double d = b[i].log_likelihood - a[i].log_likelihood, m = (double)a[i].tokens;
            if (round)
                off += pow(d - all / tokens * m, 2);
            else {
                all += d;
                tokens += m;
                n++;
            }
        }
    *loss = sqrt(off * n / (n - 1)) / tokens;
    for (int64_t i = 0; i < e->n_questions; i++) {
        bool with[2], without[2];
        judge(e, a, &e->questions[i], with);
        judge(e, b, &e->questions[i], without);
        for (int k = 0; k < 2; k++) {
            mean[k] += with[k] - without[k];
            square[k] += with[k] != without[k];
        }
    }
    const double q = (double)e->n_questions;
    for (int k = 0; k < 2; k++)
        acc[k] = sqrt((square[k] - mean[k] * mean[k] / q) / (q - 1) / q);
}

/* Of a share of n. */
static double error_of(double p, int64_t n)
{
    return sqrt(p * (1 - p) / (double)(n - 1));
}

/* --- what is told --- */

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *as_json(const struct summary *s)
{
    json_t *o = json_object();
    if (s->documents) {
        json_object_set_new(o, "documents", json_integer(s->documents));
        json_object_set_new(o, "tokens", json_integer(s->tokens));
        json_object_set_new(o, "loss", number(s->loss));
        json_object_set_new(o, "perplexity", number(exp(s->loss)));
        json_object_set_new(o, "token_accuracy", number((double)s->right / (double)s->tokens));
    }
    if (s->questions) {
        json_object_set_new(o, "questions", json_integer(s->questions));
        json_object_set_new(o, "acc", number(s->acc));
        json_object_set_new(o, "acc_stderr", number(error_of(s->acc, s->questions)));
        json_object_set_new(o, "acc_norm", number(s->acc_norm));
        json_object_set_new(o, "acc_norm_stderr", number(error_of(s->acc_norm, s->questions)));
    }
    return o;
}

static void print_row(const char *name, double with, double without, double error, bool both,
                      int digits)
{
    if (!both)
        printf("%-16s %12.*f\n", name, digits, with);
    else if (isfinite(error))
        printf("%-16s %12.*f %12.*f %+12.*f +- %.*f\n", name, digits, without, digits, with, digits,
               with - without, digits, error);
    else
        printf("%-16s %12.*f %12.*f %+12.*f\n", name, digits, without, digits, with, digits,
               with - without);
}

static void print_table(const struct eval *e, const struct summary *a, const struct summary *b)
{
    const bool both = e->scores[1] != NULL;
    double loss = NAN, acc[2] = {NAN, NAN};
    if (both) {
        errors_of_difference(e, &loss, acc);
        printf("%-16s %12s %12s %12s\n", "", "the base", "adapter", "difference");
    }
    if (a->documents) {
        print_row("loss", a->loss, b->loss, loss, both, 4);
        print_row("perplexity", exp(a->loss), exp(b->loss), NAN, both, 3);
        print_row("token accuracy", (double)a->right / (double)a->tokens,
                  (double)b->right / (double)b->tokens, NAN, both, 4);
        printf("of %lld token%s in %lld document%s\n", (long long)a->tokens,
               a->tokens == 1 ? "" : "s", (long long)a->documents, a->documents == 1 ? "" : "s");
    }
    if (!a->questions)
        return;
    print_row("acc", a->acc, b->acc, both ? acc[0] : NAN, both, 4);
    print_row("acc_norm", a->acc_norm, b->acc_norm, both ? acc[1] : NAN, both, 4);
    printf("of %lld question%s", (long long)a->questions, a->questions == 1 ? "" : "s");
    if (a->questions > 1)
        printf("; standard errors of one model's: %.4f, %.4f", error_of(a->acc, a->questions),
               error_of(a->acc_norm, a->questions));
    printf("\n");
}

static int print_json(const struct eval *e, const struct summary *a, const struct summary *b)
{
    const unsigned since = ft_alloc_failures();
    json_t *o = as_json(a);
    double loss, acc[2];
    if (e->scores[1]) {
        errors_of_difference(e, &loss, acc);
        json_t *d = json_object();
        json_object_set_new(o, "base", as_json(b));
        if (a->documents)
            json_object_set_new(d, "loss_stderr", number(loss));
        if (a->questions) {
            json_object_set_new(d, "acc_stderr", number(acc[0]));
            json_object_set_new(d, "acc_norm_stderr", number(acc[1]));
        }
        json_object_set_new(o, "difference", d);
    }
    char *text = ft_json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(10), since);
    json_decref(o);
    if (!text)
        return FT_ERESOURCE;
    printf("%s\n", text);
    ft_json_free(text);
    return FT_OK;
}

/* Against a saved --json: the loss may be larger, and accuracies smaller, by the tolerance. */
static int check_baseline(const struct eval *e, const struct summary *a)
{
    json_t *was = NULL;
    const struct {
        const char *key;
        double is;
        bool there, less; /* less is better */
    } all[] = {{"loss", a->loss, a->documents > 0, true},
               {"token_accuracy", (double)a->right / (double)a->tokens, a->documents > 0, false},
               {"acc", a->acc, a->questions > 0, false},
               {"acc_norm", a->acc_norm, a->questions > 0, false}};
    int rc = FT_OK;
    if (!e->baseline)
        return FT_OK;
    FT_TRY(ft_json_file(e->baseline, FT_EDATA, &was));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const json_t *v = json_object_get(was, all[i].key);
        const double before = json_number_value(v);
        if (all[i].there && !json_is_number(v)) {
            rc = ft_fail_at((struct ft_where){.file = e->baseline}, FT_EDATA, "has no '%s'",
                            all[i].key);
            break;
        }
        if (!all[i].there)
            continue;
        const double worse = all[i].less ? all[i].is / before - 1 : before - all[i].is;
        if (!(worse <= e->tolerance)) {
            fprintf(stderr, "%s: '%s' was %.6g, and is %.6g\n", e->baseline, all[i].key, before,
                    all[i].is);
            rc = FT_EREGRESSED;
        }
    }
    json_decref(was);
    return rc;
}

static int tell(const struct eval *e)
{
    const struct summary a = sum_up(e, e->scores[0]),
                         b = e->scores[1] ? sum_up(e, e->scores[1]) : (struct summary){0};
    if (a.documents && !a.tokens)
        return ft_fail(FT_EDATA, "no token counts in these documents");
    if (e->json)
        FT_TRY(print_json(e, &a, &b));
    else
        print_table(e, &a, &b);
    return check_baseline(e, &a);
}

/* --- the command --- */

/* The config's evaluation set, by what the run folder has. */
static int eval_config(struct eval *e, const struct ft_command *self, int n, char **words)
{
    struct ft_config c = {0};
    struct ft_model *m = NULL;
    char *out = NULL, *adapter = NULL, *folder = NULL;
    bool cached;
    int rc = ft_read_config_words(&c, self, n, words);
    if (!rc)
        rc = read_held(e, &c);
    if (!rc)
        rc = (out = ft_config_path(&c, c.output_dir)) ? FT_OK : FT_ERESOURCE;
    if (!rc)
        rc = (adapter = ft_path_join(out, "adapter_config.json")) ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(adapter))
        c.lora_model_dir = out;
    else if (!rc && strcmp(c.adapter, "full") == 0)
        c.base_model = out; /* the model that was trained */
    c.peft_init_lora_weights = "true";
    if (!rc && !c.lora_model_dir && c.base_model != out) {
        fprintf(stderr, "'%s' has no adapter: this is the base model\n", out);
        c.adapter = "full";
    }
    if (!rc)
        rc = ft_base_find(&folder, &cached, NULL, c.base_model, c.revision_of_model, c.folder);
    if (!rc)
        rc = ft_model_open(&m, folder);
    int64_t vocab = m ? ft_model_decoder(m)->vocab : 1;
    if (!rc && c.lora_model_dir)
        rc = ft_new_tokens_rows(c.lora_model_dir, m, &vocab);
    ft_model_close(m);
    if (!rc)
        rc = score_both(e, &c, vocab);
    c.lora_model_dir = NULL;
    ft_config_fini(&c);
    ft_free(out);
    ft_free(adapter);
    ft_free(folder);
    return rc;
}

/* Texts that go on where the model was never trained: their loss says little. */
static void note_long(const struct eval *e, const char *file, int64_t positions)
{
    int64_t n = 0;
    for (int64_t i = 0; i < e->n; i++)
        n += positions > 0 && e->texts[i].chain < 0 && e->texts[i].n > positions;
    if (n)
        ft_notice((struct ft_where){.file = file},
                  "%lld of %lld texts are longer than the model's %lld positions; they are scored "
                  "whole",
                  (long long)n, (long long)e->n, (long long)positions);
}

static int eval_file(struct eval *e, const char *model, const char *adapter, const char *file,
                     int n, char **words)
{
    struct ft_responder r = {0};
    int rc = ft_responder_open(&r, model, adapter, n, words);
    if (!rc)
        rc = ft_read_records(file, take_record, &(struct reading){e, &r});
    note_long(e, file, r.longest);
    if (!rc)
        rc = score_both(e, &r.config, r.vocab);
    ft_responder_close(&r);
    return rc;
}

int ft_eval_loss(const char *model, const char *adapter, const char *file, int n, char **words,
                 double *loss)
{
    struct eval e = {.json = true, .stop = ft_listen_to_stop()};
    struct ft_responder r = {0};
    int rc = ft_responder_open(&r, model, adapter, n, words);
    if (!rc)
        rc = ft_read_records(file, take_record, &(struct reading){&e, &r});
    if (!rc)
        rc = score_with(&e, &r.config, r.vocab, 0);
    if (!rc)
        *loss = sum_up(&e, e.scores[0]).loss;
    ft_responder_close(&r);
    free_texts(&e);
    return rc;
}

static bool is_config(const char *word)
{
    return ft_ends_with(word, ".yaml") || ft_ends_with(word, ".yml");
}

int ft_cmd_eval(const struct ft_command *self, int n, char **words)
{
    struct eval e = {.json = ft_take_flag(&n, words, "--json"), .tolerance = 0.01};
    const char *adapter = NULL, *tolerance = NULL;
    FT_TRY(ft_take_text(self, &n, words, "-a", &adapter));
    FT_TRY(ft_take_text(self, &n, words, "--baseline", &e.baseline));
    FT_TRY(ft_take_text(self, &n, words, "--tolerance", &tolerance));
    FT_TRY(ft_refuse_flags(self, n, words));
    char *end = NULL;
    e.tolerance = tolerance ? strtod(tolerance, &end) : e.tolerance;
    if (tolerance && (*end || end == tolerance || !(e.tolerance >= 0)))
        return ft_fail(FT_ECONFIG, "'--tolerance' of 'ft eval' is a number from 0, not '%s'",
                       tolerance);
    const bool config = n >= 1 && is_config(words[0]);
    if (n < 1 || (!config && n < 2) || (config && adapter)) {
        ft_fail(FT_ECONFIG, config
                                ? "a config says itself which adapter it has: '-a' is for a model"
                                : "'ft eval' needs a config, or a model and a file");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    if (e.baseline && !ft_file_exists(e.baseline))
        return ft_fail_at((struct ft_where){.file = e.baseline}, FT_EDATA, "does not exist");
    e.stop = ft_listen_to_stop();
    int rc = config ? eval_config(&e, self, n, words)
                    : eval_file(&e, words[0], adapter, words[1], n - 2, words + 2);
    if (!rc)
        rc = tell(&e);
    free_texts(&e);
    return rc;
}
