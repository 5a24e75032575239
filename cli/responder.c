/* A model and its adapter by their names, as text. */
#include "cli/responder.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "io/hub.h"
#include "train/base.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_WORDS = 64 };

/* --- the config --- */

/* How the config calls the method of an adapter's folder; over a base in 4 bits LoRA is qlora. */
static int method_of(const char *adapter, bool four_bits, char *out, size_t room)
{
    char *path = ft_path_join(adapter, "adapter_config.json");
    json_t *said = NULL;
    int rc = path ? ft_json_file(path, FT_EDATA, &said) : FT_ERESOURCE;
    const char *type = json_string_value(json_object_get(said, "peft_type"));
    if (!rc && !type)
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "has no 'peft_type'");
    size_t i = 0;
    for (; !rc && type[i] && i + 1 < room; i++)
        out[i] = (char)(type[i] >= 'A' && type[i] <= 'Z' ? type[i] + 32 : type[i]);
    out[i] = 0;
    if (!rc && four_bits && strcmp(out, "lora") == 0)
        snprintf(out, room, "qlora");
    json_decref(said);
    ft_free(path);
    return rc;
}

static bool has_word(int n, char **words, const char *start)
{
    for (int i = 0; i < n; i++)
        if (ft_starts_with(words[i], start))
            return true;
    return false;
}

static int read_config(struct ft_responder *r, int n, char **words)
{
    const bool quantised = has_word(n, words, "load_in_");
    const bool four_bits = quantised && !has_word(n, words, "load_in_8bit");
    char base[4096], adapter[4096] = "", method[64];
    char how[96] = "";
    const char *list[MOST_WORDS + 8] = {"datasets.0.path=none", "datasets.0.type=tokenized",
                                        "output_dir=none", base};
    int at = 4;
    if (n > MOST_WORDS)
        return ft_fail(FT_ECONFIG, "too many words");
    snprintf(base, sizeof base, "base_model=%s", r->model);
    if (r->adapter) {
        FT_TRY(method_of(r->adapter, four_bits, method, sizeof method));
        snprintf(adapter, sizeof adapter, "lora_model_dir=%s", r->adapter);
        snprintf(how, sizeof how, "adapter=%s", method);
        list[at++] = adapter;
        list[at++] = how;
    } else if (quantised) { /* a config has an adapter over such a base */
        list[at++] = four_bits ? "adapter=qlora" : "adapter=lora";
        list[at++] = "lora_target_linear=true";
    } else {
        list[at++] = "adapter=full";
    }
    for (int i = 0; i < n; i++)
        list[at++] = words[i];
    FT_TRY(ft_config_read(&r->config, NULL, list, at));
    if (!r->adapter)
        r->config.adapter = "full"; /* none */
    return FT_OK;
}

/* --- the text side --- */

/* Ids of "eos_token_id": one, or a list. */
static int add_ends(struct ft_ids *ends, const json_t *o)
{
    const json_t *v = ft_json_get(o, "eos_token_id");
    if (json_is_integer(v))
        return ft_ids_add(ends, (int32_t)json_integer_value(v));
    for (size_t i = 0; i < json_array_size(v); i++)
        FT_TRY(ft_ids_add(ends, (int32_t)json_integer_value(json_array_get(v, i))));
    return FT_OK;
}

/* Of a file: its own, or those of the model that it has inside, as a vision model's config.json. */
static int add_ends_of(struct ft_ids *ends, const char *folder, const char *file)
{
    json_t *o = NULL;
    char *path = ft_path_join(folder, file);
    int rc = path ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(path))
        rc = ft_json_file(path, FT_EDATA, &o);
    if (!rc)
        rc = add_ends(ends, ft_json_get(o, "eos_token_id") ? o : json_object_get(o, "text_config"));
    json_decref(o);
    ft_free(path);
    return rc;
}

/* Every end of generation_config.json, the adapter's or else the model's; without one
 * config.json's; and the tokenizer's own. */
static int find_ends(struct ft_responder *r, const char *folder)
{
    json_t *tokens = NULL;
    if (r->adapter)
        FT_TRY(add_ends_of(&r->ends, r->adapter, "generation_config.json"));
    if (!r->ends.n)
        FT_TRY(add_ends_of(&r->ends, folder, "generation_config.json"));
    if (!r->ends.n)
        FT_TRY(add_ends_of(&r->ends, folder, "config.json"));
    int rc = ft_special_tokens(&tokens, folder);
    const char *eos = rc ? NULL : json_string_value(json_object_get(tokens, "eos_token"));
    const char *bos = rc ? NULL : json_string_value(json_object_get(tokens, "bos_token"));
    const int32_t id = eos ? ft_tokenizer_id(r->tokenizer, eos) : -1;
    r->begin = bos ? ft_tokenizer_id(r->tokenizer, bos) : id;
    if (!rc && id >= 0)
        rc = ft_ids_add(&r->ends, id);
    json_decref(tokens);
    return rc;
}

/* ft writes the tokenizer and the template that it trained with beside the adapter: they count. */
static int open_text(struct ft_responder *r, const char *folder)
{
    char *own = r->adapter ? ft_path_join(r->adapter, "tokenizer.json") : NULL;
    const char *from = own && ft_file_exists(own) ? r->adapter : folder;
    int rc = ft_tokenizer_open_folder(&r->tokenizer, from, NULL);
    if (!rc)
        rc = ft_chat_open(&r->chat, from);
    if (!rc)
        rc = find_ends(r, folder);
    ft_free(own);
    return rc;
}

int ft_responder_config(struct ft_responder *r, const char *model, const char *adapter, int n,
                        char **words)
{
    *r = (struct ft_responder){.model = model, .adapter = adapter};
    if (adapter && !ft_is_folder(adapter))
        return ft_fail_at((struct ft_where){.file = adapter}, FT_EDATA,
                          "is no folder with an adapter");
    return read_config(r, n, words);
}

int ft_responder_open(struct ft_responder *r, const char *model, const char *adapter, int n,
                      char **words)
{
    char *folder = NULL;
    bool cached;
    FT_TRY(ft_responder_config(r, model, adapter, n, words));
    FT_TRY(ft_base_find(&folder, &cached, NULL, model, r->config.revision_of_model, NULL));
    struct ft_model *m = NULL;
    int rc = ft_model_open(&m, folder);
    if (!rc) {
        r->vocab = ft_model_decoder(m)->vocab;
        r->longest = ft_model_decoder(m)->max_positions;
        rc = adapter ? ft_new_tokens_rows(adapter, m, &r->vocab) : FT_OK;
    }
    if (!rc) {
        rc = open_text(r, folder);
    }
    ft_model_close(m);
    ft_free(folder);
    return rc;
}

void ft_responder_without_adapter(struct ft_config *c)
{
    c->lora_model_dir = NULL;
    c->adapter = "full"; /* that is none */
}

void ft_responder_close(struct ft_responder *r)
{
    ft_tokenizer_close(r->tokenizer);
    ft_chat_close(r->chat);
    ft_ids_free(&r->ends);
    ft_config_fini(&r->config);
    *r = (struct ft_responder){0};
}

int ft_responder_check(const struct ft_responder *r, const struct ft_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] >= r->vocab)
            return ft_fail(FT_EDATA,
                           "the tokenizer gives the id %d, which is not below the model's "
                           "vocabulary of %lld",
                           ids->v[i], (long long)r->vocab);
    return ids->n ? FT_OK : ft_fail(FT_EDATA, "the prompt has no token");
}

int ft_responder_text(const struct ft_responder *r, const char *text, size_t length,
                      struct ft_ids *out)
{
    FT_TRY(ft_tokenizer_encode(r->tokenizer, text, length, true, out, NULL));
    return ft_responder_check(r, out);
}

int ft_responder_messages(const struct ft_responder *r, const json_t *record, struct ft_ids *out)
{
    struct ft_rendered text = {0};
    if (!r->chat) {
        ft_fail(FT_EDATA, "the model has no chat template");
        ft_hint("'--raw' continues the text as it stands");
        return FT_EDATA;
    }
    int rc = ft_chat_render(r->chat, record, true, (long long)time(NULL), &text);
    if (!rc) /* the template has the special tokens */
        rc = ft_tokenizer_encode(r->tokenizer, text.text, text.length, false, out, NULL);
    ft_rendered_free(&text);
    return rc ? rc : ft_responder_check(r, out);
}

json_t *ft_responder_turn(const char *system, const char *text)
{
    json_t *list = json_array();
    if (system)
        json_array_append_new(list, json_pack("{ss ss}", "role", "system", "content", system));
    json_array_append_new(list, json_pack("{ss ss}", "role", "user", "content", text));
    return json_pack("{so}", "messages", list);
}

int ft_responder_words(const struct ft_responder *r, const int32_t *ids, size_t n, char **text,
                       size_t *length)
{
    for (size_t i = 0; n && i < r->ends.n; i++)
        if (ids[n - 1] == r->ends.v[i]) {
            n--;
            break;
        }
    return ft_tokenizer_decode(r->tokenizer, ids, n, true, text, length);
}

int ft_named_base(const char *adapter, char **out)
{
    char *path = ft_path_join(adapter, "adapter_config.json");
    json_t *said = NULL;
    int rc = path ? ft_json_file(path, FT_EDATA, &said) : FT_ERESOURCE;
    const char *base = json_string_value(json_object_get(said, "base_model_name_or_path"));
    if (!rc && !(base && *base)) {
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                        "does not say which model it is for");
        ft_hint("'-m MODEL' names it");
    }
    if (!rc)
        rc = (*out = ft_strdup(base)) ? FT_OK : FT_ERESOURCE;
    json_decref(said);
    ft_free(path);
    return rc;
}

/* --- flags --- */

static int take_real(const struct ft_command *self, int *n, char **words, const char *flag,
                     double least, double most, double *out)
{
    const char *text = NULL;
    char *end;
    FT_TRY(ft_take_text(self, n, words, flag, &text));
    if (!text)
        return FT_OK;
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= least && *out <= most))
        return ft_fail(FT_ECONFIG, "'%s' of 'ft %s' is a number from %g to %g, not '%s'", flag,
                       self->name, least, most, text);
    return FT_OK;
}

int ft_take_sampler(const struct ft_command *self, int *n, char **words, struct ft_sampler *s)
{
    int64_t seed = 0;
    *s = (struct ft_sampler){.repetition_penalty = 1, .top_p = 1};
    FT_TRY(take_real(self, n, words, "--temperature", 0, 100, &s->temperature));
    FT_TRY(take_real(self, n, words, "--top-p", 1e-9, 1, &s->top_p));
    FT_TRY(take_real(self, n, words, "--min-p", 0, 1, &s->min_p));
    FT_TRY(take_real(self, n, words, "--repetition-penalty", 1e-3, 1e3, &s->repetition_penalty));
    FT_TRY(ft_take_number(self, n, words, "--top-k", &s->top_k));
    FT_TRY(ft_take_number(self, n, words, "--seed", &seed));
    s->seed = (uint64_t)seed;
    if (s->temperature == 0 && (s->top_p < 1 || s->min_p > 0 || s->top_k > 0 || seed)) {
        ft_fail(FT_ECONFIG, "--top-k, --top-p, --min-p and --seed say nothing at temperature 0");
        ft_hint("'--temperature 1' draws tokens with the probabilities that the model gives");
        return FT_ECONFIG;
    }
    return FT_OK;
}

/* --- files of records --- */

static int read_lines(FILE *f, const char *name, ft_record_fn *each, void *ctx)
{
    char *line = NULL;
    size_t room = 0, found = 0;
    ssize_t n;
    int rc = FT_OK;
    for (int number = 1; !rc && (n = getline(&line, &room, f)) >= 0; number++) {
        const struct ft_where at = {.file = name, .line = number};
        json_t *record = NULL;
        if (n > 0 && line[n - 1] == '\n')
            n--;
        if (!n)
            continue;
        rc = ft_json_record(line, (size_t)n, at, FT_EDATA, &record);
        if (!rc)
            rc = each(ctx, record, at);
        json_decref(record);
        found++;
    }
    if (!rc && ferror(f))
        rc = ft_fail_at((struct ft_where){.file = name}, FT_ERESOURCE, "cannot be read: %s",
                        strerror(errno));
    else if (!rc && !found)
        rc = ft_fail_at((struct ft_where){.file = name}, FT_EDATA, "has no record");
    free(line);
    return rc;
}

int ft_read_records(const char *file, ft_record_fn *each, void *ctx)
{
    if (strcmp(file, "-") == 0)
        return read_lines(stdin, "stdin", each, ctx);
    FILE *f = fopen(file, "re");
    if (!f)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA, "cannot be read: %s",
                          strerror(errno));
    const int rc = read_lines(f, file, each, ctx);
    fclose(f);
    return rc;
}

/* --- signals --- */

static volatile sig_atomic_t stopped;

static void on_stop(int sig)
{
    stopped = sig;
}

const volatile sig_atomic_t *ft_listen_to_stop(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction now = {.sa_handler = on_stop}, was;
    sigemptyset(&now.sa_mask);
    stopped = 0;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaction(signals[i], &now, NULL);
    return &stopped;
}
