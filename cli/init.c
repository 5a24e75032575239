/* ft init: a config from a model and a data file. */
#define _GNU_SOURCE
#include "cli/cli.h"
#include "cli/from.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "data/prepare.h"
#include "io/records.h"
#include "text/chat.h"
#include "train/job.h"
#include "train/base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOKED_AT = 200 };

/* --- what the records are --- */

/* A kind of record: one row. It has the fields; `list` among them is a list of objects with these
 * members. */
struct shape {
    const char *what, *fields[3], *list, *members[2];
    const char *yaml; /* of the entry, behind its path; lines end with \n */
    bool chat;
    const char *also; /* further fields that the format reads, with spaces around them */
};

#define OWN(prompt, answer)                                                                        \
    "    type:                                  # the prompt is {instruction}\n"                   \
    "      field_instruction: " prompt "\n      field_output: " answer                             \
    "\n      format: \"{instruction}\\n\\n{input}\"\n      no_input_format: "                      \
    "\"{instruction}\\n\"\n"
static const struct shape shapes[] = {
    {"messages",
     {"messages"},
     "messages",
     {"role", "content"},
     "    type: chat_template                    # 'messages' with 'role' and 'content'\n",
     true,
     " tools system "},
    {"conversations (ShareGPT)",
     {"conversations"},
     "conversations",
     {"from", "value"},
     "    type: chat_template                    # ShareGPT's names of the messages' parts\n"
     "    field_messages: conversations\n"
     "    message_property_mappings: {role: from, content: value}\n",
     true,
     " tools system "},
    {"conversations",
     {"conversations"},
     "conversations",
     {"role", "content"},
     "    type: chat_template\n    field_messages: conversations\n",
     true,
     " tools system "},
    {"messages (ShareGPT's names)",
     {"messages"},
     "messages",
     {"from", "value"},
     "    type: chat_template                    # ShareGPT's names of the messages' parts\n"
     "    message_property_mappings: {role: from, content: value}\n",
     true,
     " tools system "},
    {"segments",
     {"segments"},
     "segments",
     {"label", "text"},
     "    type: input_output                     # segments that say whether they are trained\n",
     false,
     NULL},
    {"token ids",
     {"input_ids"},
     NULL,
     {NULL},
     "    type: tokenized\n",
     false,
     " loss_mask labels attention_mask position_ids "},
    {"system, instruction and output",
     {"system", "instruction", "output"},
     NULL,
     {NULL},
     "    type: alpaca_w_system                  # system, instruction, input, output\n",
     false,
     " input "},
    {"instruction, context and response",
     {"instruction", "context", "response"},
     NULL,
     {NULL},
     "    type:                                  # the prompt is {instruction} and the context\n"
     "      field_instruction: instruction\n      field_input: context\n"
     "      field_output: response\n      format: \"{instruction}\\n\\n{input}\\n\"\n"
     "      no_input_format: \"{instruction}\\n\"\n",
     false,
     NULL},
    {"instruction and output",
     {"instruction", "output"},
     NULL,
     {NULL},
     "    type: alpaca                           # instruction, input (may be absent), output\n",
     false,
     " input "},
    {"instruction and response",
     {"instruction", "response"},
     NULL,
     {NULL},
     "    type: gpteacher                        # instruction, input (may be absent), response\n",
     false,
     " input "},
    {"prompt and completion, as messages",
     {"prompt", "completion"},
     "completion",
     {"role", "content"},
     "    type: prompt_completion                # lists of messages, through the chat template\n",
     true,
     " tools system "},
    {"prompt and completion",
     {"prompt", "completion"},
     NULL,
     {NULL},
     "    type: prompt_completion                # the prompt is taken as it stands\n",
     false,
     NULL},
    {"prompt and response",
     {"prompt", "response"},
     NULL,
     {NULL},
     OWN("prompt", "response"),
     false,
     NULL},
    {"question and answer",
     {"question", "answer"},
     NULL,
     {NULL},
     OWN("question", "answer"),
     false,
     NULL},
    {"input and output", {"input", "output"}, NULL, {NULL}, OWN("input", "output"), false, NULL},
    {"text",
     {"text"},
     NULL,
     {NULL},
     "    type: completion                       # plain text, all of it trained\n",
     false,
     NULL},
};

/* Names of roles, and what templates call them. ShareGPT's are known without being said. */
static const struct {
    const char *own, *role;
    bool known;
} role_names[] = {{"gpt", "assistant", true},           {"human", "user", true},
                  {"model", "assistant", false},        {"bot", "assistant", false},
                  {"ai", "assistant", false},           {"chatbot", "assistant", false},
                  {"chatgpt", "assistant", false},      {"customer", "user", false},
                  {"prompter", "user", false},          {"instruction", "user", false},
                  {"function_call", "assistant", true}, {"observation", "tool", true}};

/* The shape's list, which may be a text of JSON; the caller releases it. */
static json_t *messages_of(const json_t *record, const struct shape *s)
{
    json_t *list = json_object_get(record, s->list);
    json_t *within = NULL;
    const char *why;
    if (!json_is_string(list))
        return json_incref(list);
    if (ft_json_within(&within, json_string_value(list), json_string_length(list), &why))
        return NULL; /* reported */
    return within;
}

static bool has_shape(const json_t *record, const struct shape *s)
{
    for (int i = 0; i < 3 && s->fields[i]; i++)
        if (!json_object_get(record, s->fields[i]))
            return false;
    if (!s->list)
        return true;
    json_t *list = messages_of(record, s);
    const json_t *one = json_array_get(list, 0);
    bool has = true;
    for (int i = 0; i < 2; i++)
        has = has && json_object_get(one, s->members[i]);
    json_decref(list);
    return has;
}

/* What messages say beside role and words, over all that were looked at. */
struct habits {
    char unused[512];     /* fields that no part of the config reads, with ", " between them */
    const char *training; /* the member that says whether a message is trained on; NULL: none */
    bool called[sizeof role_names / sizeof *role_names];
};

static void note_habits(struct habits *h, const json_t *record, const struct shape *s)
{
    static const char *const members[] = {"train", "weight", "training"};
    json_t *list = s->chat ? messages_of(record, s) : NULL, *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        const char *role = json_string_value(json_object_get(one, s->members[0]));
        for (size_t k = 0; k < sizeof role_names / sizeof *role_names; k++)
            h->called[k] = h->called[k] || (role && strcmp(role, role_names[k].own) == 0);
        for (int k = 0; k < 3; k++) {
            const json_t *v = json_object_get(one, members[k]);
            if (json_is_boolean(v) || json_is_number(v))
                h->training = members[k];
        }
    }
    json_decref(list);
}

static int refuse_shape(const char *path, int line, const json_t *record)
{
    const char *key;
    json_t *value;
    char keys[256] = "";
    json_object_foreach((json_t *)(uintptr_t)record, key, value)
    {
        const size_t n = strlen(keys);
        snprintf(keys + n, sizeof keys - n, "%s%s", n ? ", " : "", key);
    }
    ft_fail_at((struct ft_where){.file = path, .line = line}, FT_EDATA,
               "the record has %s%s, which ft init does not recognise",
               *keys ? "the fields " : "no field", keys);
    ft_hint("it knows messages, conversations, segments, instruction/output, prompt/completion, "
            "question/answer and text; for others write the config by hand: the 'field' keys of a "
            "dataset say what is what ('ft config --explain datasets')");
    return FT_EDATA;
}

/* "a" among "a, b". */
static bool is_listed(const char *list, const char *name)
{
    const size_t n = strlen(name);
    for (const char *p = list; (p = strstr(p, name)); p++)
        if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ','))
            return true;
    return false;
}

static void note_unused(struct habits *h, const json_t *record, const struct shape *s)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)record, key, value)
    {
        char spaced[256];
        bool used = false;
        snprintf(spaced, sizeof spaced, " %.250s ", key);
        for (int i = 0; i < 3 && s->fields[i]; i++)
            used = used || strcmp(s->fields[i], key) == 0;
        used = used || (s->also && strstr(s->also, spaced)) || is_listed(h->unused, key);
        const size_t at = strlen(h->unused);
        if (!used)
            snprintf(h->unused + at, sizeof h->unused - at, "%s%s", at ? ", " : "", key);
    }
}

typedef int look_fn(void *ctx, const json_t *record, const char *path, int line);

/* The first records of all files. */
static int look_over(char *const *files, look_fn *look, void *ctx)
{
    struct ft_raw raw = {0};
    int looked = 0, rc = FT_OK;
    for (; *files && !rc && looked < LOOKED_AT; files++) {
        struct ft_records *r;
        bool more = true;
        rc = ft_records_open(&r, *files, NULL);
        while (!rc && more && looked < LOOKED_AT) {
            const unsigned since = ft_alloc_failures();
            json_t *record = NULL;
            rc = ft_records_next(r, &raw, &more);
            if (rc || !more)
                break;
            rc = ft_record_parse(r, &raw, &record);
            if (!rc)
                rc = look(ctx, record, *files, raw.line);
            if (!rc)
                rc = ft_alloc_check(since);
            json_decref(record);
            looked++;
        }
        ft_records_close(r);
    }
    ft_raw_free(&raw);
    return rc;
}

/* The shapes that every record so far has. */
struct recognised {
    bool can[sizeof shapes / sizeof *shapes];
    struct habits *habits;
    const struct shape *shape; /* the first of them, once all were looked at */
    int looked;
};

static int narrow(void *ctx, const json_t *record, const char *path, int line)
{
    struct recognised *r = ctx;
    bool any = false;
    r->looked++;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        r->can[i] = r->can[i] && has_shape(record, &shapes[i]);
        any = any || r->can[i];
        if (r->can[i])
            note_habits(r->habits, record, &shapes[i]);
    }
    return any ? FT_OK : refuse_shape(path, line, record);
}

static int note_fields(void *ctx, const json_t *record, const char *path, int line)
{
    const struct recognised *r = ctx;
    (void)path;
    (void)line;
    note_unused(r->habits, record, r->shape);
    return FT_OK;
}

static int recognise(const struct shape **out, struct habits *habits, char *const *files)
{
    struct recognised r = {.habits = habits};
    memset(r.can, 1, sizeof r.can);
    FT_TRY(look_over(files, narrow, &r));
    if (r.looked == 0)
        return ft_fail_at((struct ft_where){.file = files[0]}, FT_EDATA, "has no record");
    for (size_t i = sizeof shapes / sizeof *shapes; i-- > 0;)
        r.shape = r.can[i] ? &shapes[i] : r.shape;
    *out = r.shape;
    return look_over(files, note_fields, &r);
}

/* --- the config --- */

struct init {
    const char *model, *data, *out;
    char **options; /* KEY=VALUE words */
    int n_options;
    struct ft_scratch scratch; /* for what is tried */
    char *trial;               /* the config in it */
    int64_t dropped;           /* documents longer than sequence_len */
    const struct shape *shape;
    struct habits habits;
    const char *template; /* NULL: the model's own */
    int64_t documents, sequence_len, micro, accumulate, epochs;
    bool fits;
    bool halves; /* it is a CPU's job, and this one is faster at bf16 products */
};

/* A built-in template whose tokens the model's vocabulary has. */
static int choose_template(struct init *o, const char *folder)
{
    static const struct {
        const char *token, *template;
    } known[] = {{"<|im_start|>", "chatml"},      {"<|start_header_id|>", "llama3"},
                 {"<start_of_turn>", "gemma"},    {"[SYSTEM_PROMPT]", "mistral_v7_tekken"},
                 {"[INST]", "mistral_v3_tekken"}, {"<|assistant|>", "phi_35"}};
    struct ft_tokenizer *t = NULL;
    char *text, *name;
    FT_TRY(ft_chat_template(&text, &name, folder, false));
    const bool has = text != NULL;
    ft_free(text);
    ft_free(name);
    if (has)
        return FT_OK;
    int rc = ft_tokenizer_open_folder(&t, folder, NULL);
    o->template = "alpaca"; /* needs no token of its own */
    for (size_t i = sizeof known / sizeof *known; i-- > 0 && !rc;)
        if (ft_tokenizer_id(t, known[i].token) >= 0)
            o->template = known[i].template;
    ft_tokenizer_close(t);
    return rc;
}

/* As YAML and JSON both write it. */
static void put_text(FILE *f, const char *text)
{
    const unsigned since = ft_alloc_failures();
    json_t *v = json_string(text);
    char *quoted = ft_json_dumps(v, JSON_ENCODE_ANY, since);
    fputs(quoted ? quoted : "\"\"", f);
    ft_json_free(quoted);
    json_decref(v);
}

/* "user: [human, customer]": what the records call a role; how many names. */
static int put_names(FILE *f, const struct habits *h, const char *role, const char *before)
{
    int n = 0;
    for (size_t k = 0; k < sizeof role_names / sizeof *role_names; k++) {
        if (!h->called[k] || strcmp(role_names[k].role, role) != 0)
            continue;
        if (n++ == 0)
            fprintf(f, "%s%s: [%s", before, role, role_names[k].own);
        else
            fprintf(f, ", %s", role_names[k].own);
    }
    if (n)
        fputc(']', f);
    return n;
}

static void write_habits(FILE *f, const struct habits *h)
{
    bool own = false;
    for (size_t k = 0; k < sizeof role_names / sizeof *role_names; k++)
        own = own || (h->called[k] && !role_names[k].known);
    if (own) {
        fputs("    roles: {", f);
        int n = put_names(f, h, "assistant", "");
        n += put_names(f, h, "user", n ? ", " : "");
        put_names(f, h, "tool", n ? ", " : "");
        fputs("}\n", f);
    }
    if (h->training)
        fprintf(f, "    message_field_training: %-15s# says which messages are trained on\n",
                h->training);
}

/* What the command line says of a key; NULL: nothing. */
static const char *option(const struct init *o, const char *key)
{
    const size_t n = strlen(key);
    for (int i = 0; i < o->n_options; i++)
        if (strncmp(o->options[i], key, n) == 0 && o->options[i][n] == '=')
            return o->options[i] + n + 1;
    return NULL;
}

/* "key: value   # comment", unless the command line says another value. */
static void put_line(FILE *f, const struct init *o, const char *key, const char *value,
                     const char *comment)
{
    const char *own = option(o, key);
    const int n = fprintf(f, "%s: %s", key, own ? own : value);
    fprintf(f, "%*s%s%s\n", comment && n < 39 ? 39 - n : 0, "", comment ? " # " : "",
            comment ? comment : "");
}

static void put_number(FILE *f, const struct init *o, const char *key, int64_t value,
                       const char *comment)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    put_line(f, o, key, text, comment);
}

/* Keys that put_line has written. */
static bool is_written(const struct init *o, const char *key, size_t n)
{
    static const char *const always[] = {"output_dir",       "adapter",
                                         "lora_r",           "lora_alpha",
                                         "lora_dropout",     "sequence_len",
                                         "sample_packing",   "lora_target_linear",
                                         "micro_batch_size", "gradient_accumulation_steps",
                                         "num_epochs",       "learning_rate",
                                         "lr_scheduler",     "warmup_ratio"};
    if (n == 13 && memcmp(key, "chat_template", 13) == 0)
        return o->template != NULL;
    if (n == 4 && memcmp(key, "bf16", 4) == 0)
        return o->halves;
    if (n == 12 && memcmp(key, "val_set_size", 12) == 0)
        return o->documents >= 100;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (strlen(always[i]) == n && memcmp(always[i], key, n) == 0)
            return true;
    return false;
}

static void put_output(FILE *f, const struct init *o)
{
    const char *slash = strrchr(o->out, '/'), *name = slash ? slash + 1 : o->out;
    char folder[512];
    snprintf(folder, sizeof folder, "out/%.*s", (int)strcspn(name, "."), name);
    if (option(o, "output_dir")) {
        put_line(f, o, "output_dir", "", NULL);
    } else {
        fputs("output_dir: ", f);
        put_text(f, folder);
        fputc('\n', f);
    }
    fputc('\n', f);
}

static void write_yaml(FILE *f, const struct init *o)
{
    char batch[64];
    fputs(
        "# Written by ft init. 'ft plan' says what it needs, 'ft config --explain KEY' what a key "
        "means.\nbase_model: ",
        f);
    put_text(f, o->model);
    fputs("\ndatasets:\n  - path: ", f);
    put_text(f, o->data);
    fprintf(f, "\n%s", o->shape->yaml);
    if (o->shape->chat)
        write_habits(f, &o->habits);
    if (o->template)
        put_line(f, o, "chat_template", o->template,
                 "the model has none of its own; its tokens fit this one");
    if (o->documents >= 100)
        put_line(f, o, "val_set_size", o->documents >= 2000 ? "0.02" : "0.05",
                 "held out, to see whether it learns or memorises");
    put_output(f, o);
    put_line(f, o, "adapter", "lora", NULL);
    put_line(f, o, "lora_r", "16", "what the adapter may learn; vLLM's limit by default");
    if (option(o, "lora_alpha") || !option(o, "lora_r"))
        put_line(f, o, "lora_alpha", "32", "twice the rank");
    put_line(f, o, "lora_dropout", "0.0", NULL);
    if (!option(o, "lora_target_modules"))
        put_line(f, o, "lora_target_linear", "true", "every linear module but the head");
    fputc('\n', f);
    put_number(f, o, "sequence_len", o->sequence_len,
               strcmp(o->shape->what, "text") == 0 ? "longer documents are cut into pieces"
                                                   : "longer documents are dropped, and counted");
    put_line(f, o, "sample_packing", "false", "true: fill each micro-batch with whole documents");
    put_number(f, o, "micro_batch_size", o->micro, "documents at once: what fits this machine");
    snprintf(batch, sizeof batch, "%lld documents an optimizer step",
             (long long)(o->micro * o->accumulate));
    put_number(f, o, "gradient_accumulation_steps", o->accumulate, batch);
    put_number(f, o, "num_epochs", o->epochs, NULL);
    put_line(f, o, "learning_rate", "2e-4", NULL);
    put_line(f, o, "lr_scheduler", "cosine", NULL);
    if (!option(o, "warmup_steps"))
        put_line(f, o, "warmup_ratio", "0.03", NULL);
    if (o->halves)
        put_line(f, o, "bf16", "auto", "what this processor multiplies faster; false: fp32");
    for (int i = 0; i < o->n_options; i++) {
        const size_t n = strcspn(o->options[i], "=");
        if (!is_written(o, o->options[i], n))
            fprintf(f, "%.*s: %s\n", (int)n, o->options[i], o->options[i] + n + 1);
    }
}

static int save(const struct init *o, const char *path)
{
    struct ft_printed p;
    FT_TRY(ft_printed_open(&p));
    write_yaml(p.o, o);
    int rc = ft_printed_close(&p);
    if (!rc)
        rc = ft_file_write(path, p.text, p.n);
    ft_printed_free(&p);
    return rc;
}

/* The config as it stands, and its tokens in our own folder. */
static int read_back(struct ft_config *c, const struct init *o)
{
    char prepared[640];
    snprintf(prepared, sizeof prepared, "dataset_prepared_path=%s", o->scratch.path);
    const char *const overrides[] = {prepared};
    FT_TRY(save(o, o->trial));
    return ft_config_read_as(c, o->trial, o->out, overrides, 1);
}

/* --- how much data there is --- */

struct lengths {
    int32_t *v;
    size_t n, room;
    bool failed;
};

static bool note_length(void *ctx, const struct ft_sample *s, size_t from, size_t to,
                        const char *file, int line)
{
    struct lengths *l = ctx;
    (void)s;
    (void)file;
    (void)line;
    if (l->n == l->room) {
        const size_t room = 2 * l->room + 1024;
        l->failed = ft_grow(&l->v, room, sizeof *l->v) != FT_OK;
        if (l->failed)
            return false;
        l->room = room;
    }
    l->v[l->n++] = (int32_t)(to - from);
    return true;
}

static int by_size(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* sequence_len: room for 99 of 100 documents, a power of two, within the model's context. */
static int measure(struct init *o, const struct ft_config *c, const char *folder, int64_t context)
{
    struct ft_texts t = {.folder = NULL};
    struct ft_source s = {.entry = NULL};
    struct ft_pool *pool = NULL;
    struct ft_audit audit;
    struct lengths l = {.v = NULL};
    int rc = ft_pool_new(&pool, ft_cpu_allowance(1));
    if (!rc)
        rc = ft_texts_open(&t, c, folder, pool);
    t.progress = ft_data_hooks.progress;
    if (!rc)
        rc = ft_source_open(&s, &t, c, &c->datasets[0]);
    if (!rc)
        rc = ft_prepare_each(&s.prepare, note_length, &l, &audit);
    if (!rc && l.failed)
        rc = FT_ERESOURCE;
    if (!rc && l.n == 0)
        rc = ft_fail_at((struct ft_where){.file = o->data}, FT_EDATA, "has no document");
    if (!rc) {
        qsort(l.v, l.n, sizeof *l.v, by_size);
        const int64_t most = l.v[(l.n - 1) * 99 / 100];
        for (o->sequence_len = 128; o->sequence_len < most; o->sequence_len *= 2)
            ;
        if (o->sequence_len > context)
            o->sequence_len = context;
        const char *own = option(o, "sequence_len");
        const long long limit = own ? atoll(own) : o->sequence_len;
        for (size_t i = 0; i < l.n && !ft_format_cuts(s.format); i++)
            o->dropped += l.v[i] > limit;
        o->documents = (int64_t)l.n;
        o->epochs = l.n < 5000 ? 3 : 1;
    }
    ft_source_close(&s);
    ft_texts_close(&t);
    ft_pool_free(pool);
    ft_free(l.v);
    return rc;
}

/* --- what fits --- */

/* Whether a run with this config would fit: o->fits. An error may be this batch's alone. */
static bool has_halves(const struct ft_config *c)
{
    const struct ft_backend *b;
    return ft_cpu_backend(&b, c->cpu_isa, true) == FT_OK && b->products == FT_BF16;
}

static int try_config(struct init *o)
{
    struct ft_config c = {.file = NULL};
    struct ft_job j = {0};
    int rc = read_back(&c, o);
    if (!rc)
        rc = ft_job_open(&j, &c, &ft_data_hooks);
    o->fits = !rc && ft_job_check_memory(&j) == FT_OK;
    o->halves = !rc && !j.backend->dev && has_halves(&c);
    if (!rc)
        ft_status_clear_errors();
    ft_job_close(&j);
    ft_config_fini(&c);
    ft_status_clear_notices();
    return rc;
}

/* The largest micro-batch whose plan fits; 16 documents a step. */
static int fit(struct init *o)
{
    enum { STEP = 16 };
    const bool fixed = option(o, "micro_batch_size") != NULL;
    for (o->micro = fixed ? 1 : 8;; o->micro /= 2) {
        o->accumulate = o->documents < STEP ? 1 : STEP / o->micro;
        ft_status_clear_errors();
        int rc = try_config(o);
        if (o->fits || o->micro == 1 || rc == FT_ERESOURCE)
            return rc;
    }
}

/* The model's context, from its config. */
static int find_context(int64_t *out, const char *folder)
{
    struct ft_model *m;
    FT_TRY(ft_model_open(&m, folder));
    *out = ft_model_decoder(m)->max_positions;
    ft_model_close(m);
    return FT_OK;
}

/* The data's files: one, or those of a folder or a dataset in the cache. */
static int find_files(struct ft_source *s, const struct init *o, struct ft_config *c,
                      struct ft_dataset_config *entry)
{
    *entry = (struct ft_dataset_config){.path = o->data};
    *c = (struct ft_config){.folder = NULL};
    *s = (struct ft_source){.entry = entry};
    return ft_source_files(s, c);
}

static int look_at_data(struct init *o)
{
    struct ft_dataset_config entry;
    struct ft_config none;
    struct ft_source s;
    int rc = find_files(&s, o, &none, &entry);
    if (!rc)
        rc = recognise(&o->shape, &o->habits, s.files);
    ft_source_close(&s);
    return rc;
}

static int make(struct init *o)
{
    struct ft_config c = {.file = NULL};
    char *folder = NULL;
    bool cached;
    int64_t context = 0;
    int rc = ft_base_find(&folder, &cached, NULL, o->model, NULL, NULL);
    if (!rc)
        rc = look_at_data(o);
    if (!rc)
        rc = find_context(&context, folder);
    if (!rc && o->shape->chat && !option(o, "chat_template"))
        rc = choose_template(o, folder);
    o->sequence_len = context < 2 ? 2 : context;
    o->micro = o->accumulate = o->epochs = 1;
    if (!rc)
        rc = read_back(&c, o);
    if (!rc)
        rc = measure(o, &c, folder, context);
    ft_config_fini(&c);
    ft_free(folder);
    if (!rc)
        rc = fit(o);
    return !rc && o->halves ? fit(o) : rc; /* with bf16 in it */
}

static int show(const struct init *o, bool failed)
{
    struct ft_config c = {.file = NULL};
    int rc = read_back(&c, o);
    printf("%s: %s, %lld documents\n", o->data, o->shape->what, (long long)o->documents);
    if (o->habits.unused[0])
        printf("not used: the fields %s\n", o->habits.unused);
    if (o->dropped)
        printf("%lld of %lld documents are longer than sequence_len and will be dropped\n",
               (long long)o->dropped, (long long)o->documents);
    printf("%s: sequence_len %lld, %lld x %lld documents a step%s\n\n", o->out,
           (long long)c.sequence_len, (long long)c.micro_batch_size,
           (long long)c.gradient_accumulation_steps,
           failed    ? "; not planned yet, since the data is not fit to train on"
           : o->fits ? ""
                     : "; this does not fit this machine's memory");
    printf("Two documents, what is trained on %s:\n",
           isatty(1) ? "in green" : "between \u27e6 and \u27e7");
    if (!rc)
        rc = ft_show_documents(&c, 2);
    ft_config_fini(&c);
    printf("\nNext:  ft data %s     what is trained on, and what is wrong with it\n"
           "       ft plan %s     memory and time\n"
           "       ft train %s\n",
           o->out, o->out, o->out);
    return rc;
}

/* data.jsonl.gz -> data.yaml, folder/ -> folder.yaml, here. */
static char *default_name(const char *data)
{
    size_t n = strlen(data);
    while (n > 1 && data[n - 1] == '/')
        n--;
    size_t begin = n;
    while (begin > 0 && data[begin - 1] != '/')
        begin--;
    const size_t stem = strcspn(data + begin, "./");
    return stem ? ft_format("%.*s.yaml", (int)stem, data + begin) : ft_strdup("config.yaml");
}

/* What cannot be written as a line of its own. */
static int check_options(const struct init *o)
{
    for (int i = 0; i < o->n_options; i++) {
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(o->options[i], "="), o->options[i]);
        if (!strchr(o->options[i], '=') || strchr(key, '.')) {
            ft_fail(FT_ECONFIG, "'%s' is not KEY=VALUE with an option of ft's", o->options[i]);
            ft_hint("keys within others are changed in the written file");
            return FT_ECONFIG;
        }
        if (strcmp(key, "base_model") == 0 || strcmp(key, "datasets") == 0)
            return ft_fail(FT_ECONFIG, "'%s' is what MODEL and DATA say", key);
    }
    return FT_OK;
}

static int run(struct init *o, bool force)
{
    if (ft_file_exists(o->out) && !force) {
        ft_fail_at((struct ft_where){.file = o->out}, FT_ECONFIG, "exists already");
        ft_hint("'--force' replaces it; '-o FILE.yaml' writes elsewhere");
        return FT_ECONFIG;
    }
    if (ft_utf8_valid(o->data, strlen(o->data)) < strlen(o->data))
        return ft_fail(FT_ECONFIG, "the data file's name is not UTF-8");
    FT_TRY(check_options(o));
    FT_TRY(ft_scratch_open(&o->scratch));
    if (!(o->trial = ft_path_join(o->scratch.path, "config.yaml")))
        return FT_ERESOURCE;
    int rc = make(o);
    /* a config is of use even if its data needs a word about the labels first */
    if (rc == FT_OK || (rc == FT_EDATA && o->documents)) {
        int bad = save(o, o->out);
        if (!bad)
            bad = show(o, rc != FT_OK);
        rc = rc ? rc : bad;
    }
    return rc;
}

int ft_cmd_init(const struct ft_command *self, int n, char **words)
{
    const bool force = ft_take_flag(&n, words, "--force");
    struct init o = {.template = NULL};
    char *name = NULL;
    const char *from = NULL;
    FT_TRY(ft_take_text(self, &n, words, "-o", &o.out));
    FT_TRY(ft_take_text(self, &n, words, "--from", &from));
    FT_TRY(ft_refuse_flags(self, n, words));
    if (o.out && strcmp(o.out, "-") == 0)
        return ft_fail(FT_ECONFIG, "'-o -': the config is a file, and what it says is printed");
    if (from)
        return n ? ft_fail(FT_ECONFIG, "'--from' takes model and data from its file, not '%s'",
                           words[0])
                 : ft_init_from(from, o.out, force);
    if (n < 2 || strchr(words[0], '=') || strchr(words[1], '=')) {
        ft_fail(FT_ECONFIG, "'ft init' needs a model and a data file");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    o.model = words[0];
    o.data = words[1];
    o.options = words + 2;
    o.n_options = n - 2;
    if (!o.out)
        o.out = name = default_name(o.data);
    int rc = o.out ? run(&o, force) : FT_ERESOURCE;
    ft_scratch_close(&o.scratch);
    ft_free(o.trial);
    ft_free(name);
    return rc;
}
