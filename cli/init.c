/* ft init: a config from a model and a data file. */
#include "cli/cli.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "data/prepare.h"
#include "io/hub.h"
#include "io/records.h"
#include "text/chat.h"
#include "train/job.h"

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
     true},
    {"conversations (ShareGPT)",
     {"conversations"},
     "conversations",
     {"from", "value"},
     "    type: chat_template                    # ShareGPT's names of the messages' parts\n"
     "    field_messages: conversations\n"
     "    message_property_mappings: {role: from, content: value}\n",
     true},
    {"conversations",
     {"conversations"},
     "conversations",
     {"role", "content"},
     "    type: chat_template\n    field_messages: conversations\n",
     true},
    {"messages (ShareGPT's names)",
     {"messages"},
     "messages",
     {"from", "value"},
     "    type: chat_template                    # ShareGPT's names of the messages' parts\n"
     "    message_property_mappings: {role: from, content: value}\n",
     true},
    {"segments",
     {"segments"},
     "segments",
     {"label", "text"},
     "    type: input_output                     # segments that say whether they are trained\n",
     false},
    {"token ids", {"input_ids"}, NULL, {NULL}, "    type: tokenized\n", false},
    {"system, instruction and output",
     {"system", "instruction", "output"},
     NULL,
     {NULL},
     "    type: alpaca_w_system                  # system, instruction, input, output\n",
     false},
    {"instruction, context and response",
     {"instruction", "context", "response"},
     NULL,
     {NULL},
     "    type:                                  # the prompt is {instruction} and the context\n"
     "      field_instruction: instruction\n      field_input: context\n"
     "      field_output: response\n      format: \"{instruction}\\n\\n{input}\\n\"\n"
     "      no_input_format: \"{instruction}\\n\"\n",
     false},
    {"instruction and output",
     {"instruction", "output"},
     NULL,
     {NULL},
     "    type: alpaca                           # instruction, input (may be absent), output\n",
     false},
    {"instruction and response",
     {"instruction", "response"},
     NULL,
     {NULL},
     "    type: gpteacher                        # instruction, input (may be absent), response\n",
     false},
    {"prompt and completion",
     {"prompt", "completion"},
     NULL,
     {NULL},
     "    type: prompt_completion                # the prompt is taken as it stands\n",
     false},
    {"prompt and response", {"prompt", "response"}, NULL, {NULL}, OWN("prompt", "response"), false},
    {"question and answer", {"question", "answer"}, NULL, {NULL}, OWN("question", "answer"), false},
    {"text",
     {"text"},
     NULL,
     {NULL},
     "    type: completion                       # plain text, all of it trained\n",
     false},
};

/* Names of roles, and what templates call them. ShareGPT's are known without being said. */
static const struct {
    const char *own, *role;
    bool known;
} role_names[] = {{"gpt", "assistant", true},      {"human", "user", true},
                  {"model", "assistant", false},   {"bot", "assistant", false},
                  {"ai", "assistant", false},      {"chatbot", "assistant", false},
                  {"chatgpt", "assistant", false}, {"customer", "user", false},
                  {"prompter", "user", false},     {"instruction", "user", false}};

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

/* The shape that the first records all have. */
static int recognise(const struct shape **out, struct habits *habits, const char *path)
{
    struct ft_records *r;
    struct ft_raw raw = {0};
    const size_t n = sizeof shapes / sizeof *shapes;
    bool can[sizeof shapes / sizeof *shapes], more = true;
    int looked = 0, rc = ft_records_open(&r, path, NULL);
    memset(can, 1, sizeof can);
    while (!rc && more && looked < LOOKED_AT) {
        const unsigned since = ft_alloc_failures();
        json_t *record = NULL;
        rc = ft_records_next(r, &raw, &more);
        if (rc || !more)
            break;
        rc = ft_record_parse(r, &raw, &record);
        bool any = false;
        for (size_t i = 0; i < n && !rc; i++) {
            can[i] = can[i] && has_shape(record, &shapes[i]);
            any = any || can[i];
        }
        if (!rc && !any)
            rc = refuse_shape(path, raw.line, record);
        for (size_t i = 0; i < n && !rc; i++)
            if (can[i])
                note_habits(habits, record, &shapes[i]);
        if (!rc)
            rc = ft_alloc_check(since);
        json_decref(record);
        looked++;
    }
    ft_records_close(r);
    ft_raw_free(&raw);
    if (!rc && looked == 0)
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "has no record");
    for (size_t i = n; i-- > 0 && !rc;)
        *out = can[i] ? &shapes[i] : *out;
    return rc;
}

/* --- the config --- */

struct init {
    const char *model, *data, *out;
    const struct shape *shape;
    struct habits habits;
    const char *template; /* NULL: the model's own */
    int64_t documents, sequence_len, micro, accumulate, epochs;
    bool fits;
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
    int rc = ft_tokenizer_open_folder(&t, folder);
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
        const int n = put_names(f, h, "assistant", "");
        put_names(f, h, "user", n ? ", " : "");
        fputs("}\n", f);
    }
    if (h->training)
        fprintf(f, "    message_field_training: %-15s# says which messages are trained on\n",
                h->training);
}

static void write_yaml(FILE *f, const struct init *o)
{
    const char *slash = strrchr(o->out, '/'), *name = slash ? slash + 1 : o->out;
    char folder[512];
    snprintf(folder, sizeof folder, "out/%.*s", (int)strcspn(name, "."), name);
    fprintf(
        f,
        "# Written by ft init. 'ft plan' says what it needs, 'ft config --explain KEY' what a key "
        "means.\n");
    fputs("base_model: ", f);
    put_text(f, o->model);
    fputs("\ndatasets:\n  - path: ", f);
    put_text(f, o->data);
    fprintf(f, "\n%s", o->shape->yaml);
    if (o->shape->chat)
        write_habits(f, &o->habits);
    if (o->template)
        fprintf(f, "chat_template: %-25s# the model has none of its own; its tokens fit this one\n",
                o->template);
    if (o->documents >= 100)
        fprintf(f, "val_set_size: %-26s# held out, to see whether it learns or memorises\n",
                o->documents >= 2000 ? "0.02" : "0.05");
    fputs("output_dir: ", f);
    put_text(f, folder);
    fputs("\n\n", f);
    fprintf(f, "adapter: lora\n"
               "lora_r: 16                              # what the adapter may learn; vLLM's limit "
               "by default\n"
               "lora_alpha: 32                          # twice the rank\n"
               "lora_dropout: 0.0\n"
               "lora_target_linear: true                # every linear module but the head\n\n");
    fprintf(f, "sequence_len: %-26lld# longer documents are %s\n", (long long)o->sequence_len,
            strcmp(o->shape->what, "text") == 0 ? "cut into pieces" : "dropped, and counted");
    fprintf(f, "sample_packing: false                   # true: fill each micro-batch with whole "
               "documents\n");
    fprintf(f, "micro_batch_size: %-22lld# documents at once: what fits this machine\n",
            (long long)o->micro);
    fprintf(f, "gradient_accumulation_steps: %-11lld# %lld documents an optimizer step\n",
            (long long)o->accumulate, (long long)(o->micro * o->accumulate));
    fprintf(f, "num_epochs: %lld\n", (long long)o->epochs);
    fprintf(f, "learning_rate: 2e-4\nlr_scheduler: cosine\nwarmup_ratio: 0.03\n");
}

static int save(const struct init *o)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return ft_fail(FT_ERESOURCE, "out of memory");
    const unsigned since = ft_alloc_failures();
    write_yaml(f, o);
    const bool bad = ferror(f) != 0;
    int rc = fclose(f) || bad ? ft_fail(FT_ERESOURCE, "out of memory") : ft_alloc_check(since);
    if (!rc)
        rc = ft_file_write(o->out, text, n);
    free(text);
    return rc;
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
    int rc = ft_pool_new(&pool, ft_cpu_allowance());
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

static int read_back(struct ft_config *c, const struct init *o)
{
    return ft_config_read(c, o->out, NULL, 0);
}

/* Whether a run with this config would fit: o->fits. An error may be this batch's alone. */
static int try_config(struct init *o)
{
    struct ft_config c = {.file = NULL};
    struct ft_job j = {0};
    int rc = save(o);
    if (!rc)
        rc = read_back(&c, o);
    if (!rc)
        rc = ft_job_open(&j, &c, &ft_data_hooks);
    o->fits = !rc && ft_job_check_memory(&j) == FT_OK;
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
    for (o->micro = 8;; o->micro /= 2) {
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
    *out = ft_model_config(m)->max_positions;
    ft_model_close(m);
    return FT_OK;
}

static int first_config(struct ft_config *c, const struct init *o, int64_t context)
{
    char length[64];
    snprintf(length, sizeof length, "sequence_len=%lld", (long long)(context < 2 ? 2 : context));
    const char *const overrides[] = {length};
    return ft_config_read(c, o->out, overrides, 1);
}

static int make(struct init *o)
{
    struct ft_config c = {.file = NULL};
    char *folder = NULL;
    bool cached;
    int64_t context = 0;
    int rc = ft_hub_find(&folder, &cached, "model", o->model, NULL, NULL);
    if (!rc)
        rc = recognise(&o->shape, &o->habits, o->data);
    if (!rc)
        rc = find_context(&context, folder);
    if (!rc && o->shape->chat)
        rc = choose_template(o, folder);
    o->sequence_len = context;
    o->micro = o->accumulate = o->epochs = 1;
    if (!rc)
        rc = save(o);
    if (!rc)
        rc = first_config(&c, o, context);
    if (!rc)
        rc = measure(o, &c, folder, context);
    ft_config_fini(&c);
    ft_free(folder);
    return rc ? rc : fit(o);
}

static int show(const struct init *o, bool failed)
{
    struct ft_config c = {.file = NULL};
    int rc = ft_config_read(&c, o->out, NULL, 0);
    printf("%s: %s, %lld documents\n", o->data, o->shape->what, (long long)o->documents);
    printf("%s: sequence_len %lld, %lld x %lld documents a step%s\n\n", o->out,
           (long long)o->sequence_len, (long long)o->micro, (long long)o->accumulate,
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

/* data.jsonl.gz -> data.yaml, here. */
static char *default_name(const char *data)
{
    const char *slash = strrchr(data, '/'), *name = slash ? slash + 1 : data;
    return ft_format("%.*s.yaml", (int)strcspn(name, "."), name);
}

int ft_cmd_init(const struct ft_command *self, int n, char **words)
{
    struct init o = {.template = NULL};
    char *name = NULL;
    FT_TRY(ft_take_text(self, &n, words, "-o", &o.out));
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n != 2) {
        ft_fail(FT_ECONFIG, "'ft init' needs a model and a data file");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    o.model = words[0];
    o.data = words[1];
    if (!o.out)
        o.out = name = default_name(o.data);
    if (!o.out)
        return FT_ERESOURCE;
    if (ft_file_exists(o.out)) {
        ft_fail_at((struct ft_where){.file = o.out}, FT_ECONFIG, "exists already");
        ft_hint("remove it, or write elsewhere: ft init -o FILE.yaml ...");
        ft_free(name);
        return FT_ECONFIG;
    }
    const bool readable = ft_utf8_valid(o.data, strlen(o.data)) == strlen(o.data);
    int rc = readable ? make(&o) : ft_fail(FT_ECONFIG, "the data file's name is not UTF-8");
    /* a config is of use even if its data needs a word about the labels first */
    const bool useful = rc == FT_OK || (rc == FT_EDATA && o.documents);
    if (useful) {
        int bad = show(&o, rc != FT_OK);
        rc = rc ? rc : bad;
    } else {
        unlink(o.out);
    }
    ft_free(name);
    return rc;
}
