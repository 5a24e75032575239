/* The table of formats, and those that are a prompt and an answer. */
#include "data/format.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "data/internal.h"

#include <stdio.h>
#include <string.h>

/* A format: one row. Members that it does not use stay NULL. */
struct format_row {
    const char *type;
    int (*sample)(const struct ft_format *f, struct ft_tokenizer *t, const json_t *record,
                  struct ft_sample *s);
    const char *instruction, *input, *output, *system; /* fields; system NULL: of `texts` */
    const struct style *style;
    const char *texts[2]; /* the system text with input and without */
    const char *output_prefix;
    bool chat, cuts;
};

/* How an instruction, its input and a system text are put together. */
struct style {
    const char *with_input, *without, *system;
};

struct ft_format {
    struct format_row row; /* with the entry's own fields and formats */
    struct style style;
    const struct ft_format_options *o;
    const struct ft_chat *chat;
    struct ft_turn_rules rules;
    int32_t *end_tokens;
    const char **roles; /* rules.roles, by the template's names */
    int32_t bos, eos;   /* -1: none */
    long long now;
};

/* --- texts that grow --- */

struct text {
    char *p;
    size_t n, room;
};

static int add(struct text *t, const char *p, size_t n)
{
    if (t->n + n + 1 > t->room) {
        const size_t room = 2 * (t->n + n) + 256;
        FT_TRY(ft_grow(&t->p, room, 1));
        t->room = room;
    }
    memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = 0;
    return FT_OK;
}

/* --- fields --- */

/* A record's text: null and absent ones are empty if they may be; whole numbers are taken as text.
 */
static int get_text(const json_t *record, const char *field, bool needed, struct text *out)
{
    const json_t *v = json_object_get(record, field);
    char number[40];
    out->n = 0;
    if (json_is_string(v))
        return add(out, json_string_value(v), json_string_length(v));
    if (json_is_integer(v)) {
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        return add(out, number, strlen(number));
    }
    if (v && !json_is_null(v))
        return ft_fail(FT_EDATA, "'%s' is not a text", field);
    if (needed && !v) {
        ft_fail(FT_EDATA, "has no '%s'", field);
        const char *names[32];
        size_t n = 0;
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)record, key, value)
        {
            if (n < 32)
                names[n++] = key;
        }
        const char *near = ft_nearest(field, names, n);
        if (near)
            ft_hint("there is '%s'; the 'field' keys of the dataset say which is which", near);
        else
            ft_hint("the 'field' keys of the dataset say which is which");
        return FT_EDATA;
    }
    return add(out, "", 0);
}

/* Puts texts in the place of {instruction}, {input} and {system}; {{ and }} are braces. */
static int fill_in(struct text *out, const char *format, const struct text *instruction,
                   const struct text *input, const struct text *system)
{
    const struct {
        const char *name;
        const struct text *text;
    } known[] = {{"{instruction}", instruction}, {"{input}", input}, {"{system}", system}};
    for (const char *p = format; *p;) {
        size_t skip = 0;
        if (strncmp(p, "{{", 2) == 0 || strncmp(p, "}}", 2) == 0) {
            FT_TRY(add(out, p, 1));
            skip = 2;
        }
        for (size_t i = 0; i < 3 && !skip && *p == '{'; i++)
            if (known[i].text && ft_starts_with(p, known[i].name)) {
                FT_TRY(add(out, known[i].text->p ? known[i].text->p : "", known[i].text->n));
                skip = strlen(known[i].name);
            }
        if (!skip) {
            skip = strcspn(p + 1, "{}") + 1;
            FT_TRY(add(out, p, skip));
        }
        p += skip;
    }
    return FT_OK;
}

/* --- ids --- */

static int encode(struct ft_tokenizer *t, const struct text *text, bool special, struct ft_ids *ids)
{
    return ft_tokenizer_encode(t, text->p, text->n, special, ids, NULL);
}

/* Whether the prompt and the answer together have other ids than one after the other. */
static int check_border(const struct ft_format *f, struct ft_tokenizer *t,
                        const struct text *prompt, const struct text *answer, struct ft_sample *s)
{
    struct ft_ids whole = {0};
    struct text both = {0};
    int rc = add(&both, prompt->p, prompt->n);
    if (!rc)
        rc = add(&both, answer->p, answer->n);
    if (!rc)
        rc = encode(t, &both, true, &whole);
    const size_t n = s->ids.n - (s->ids.n && s->ids.v[s->ids.n - 1] == f->eos);
    const size_t k = whole.n - (whole.n && whole.v[whole.n - 1] == f->eos);
    if (!rc && (n != k || (n && memcmp(s->ids.v, whole.v, n * sizeof *whole.v) != 0)))
        s->borders = 1;
    ft_free(both.p);
    ft_ids_free(&whole);
    return rc;
}

/* The answer's ids behind the prompt's: without a token that begins a text, with the one that ends
 * it. */
static int add_answer(const struct ft_format *f, struct ft_tokenizer *t, const struct text *answer,
                      struct ft_sample *s)
{
    const size_t first = s->ids.n;
    if (answer->n == 0)
        return FT_OK;
    FT_TRY(encode(t, answer, true, &s->ids));
    if (s->ids.n > first && f->eos >= 0 && s->ids.v[s->ids.n - 1] != f->eos)
        FT_TRY(ft_ids_add(&s->ids, f->eos));
    if (s->ids.n > first && s->ids.v[first] == f->bos && f->bos >= 0) {
        memmove(s->ids.v + first, s->ids.v + first + 1, (s->ids.n - first - 1) * sizeof *s->ids.v);
        s->ids.n--;
    }
    s->turns = 1;
    s->ended = s->ids.n > first && s->ids.v[s->ids.n - 1] == f->eos;
    if (s->ended)
        ft_ends_add(s->ends, f->eos, 1);
    return FT_OK;
}

static int sample_pair(const struct ft_format *f, struct ft_tokenizer *t, const struct text *prompt,
                       const struct text *answer, struct ft_sample *s)
{
    ft_sample_clear(s);
    if (prompt->n)
        FT_TRY(encode(t, prompt, true, &s->ids));
    FT_TRY(ft_sample_label(s, f->o->train_on_inputs, FT_OF_USER));
    FT_TRY(add_answer(f, t, answer, s));
    FT_TRY(ft_sample_label(s, 1, FT_OF_ASSISTANT));
    return prompt->n && answer->n ? check_border(f, t, prompt, answer, s) : FT_OK;
}

/* --- a prompt of several fields, and an answer --- */

struct fields {
    struct text instruction, input, output, system, prompt, answer;
};

static void free_fields(struct fields *v)
{
    struct text *const all[] = {&v->instruction, &v->input,  &v->output,
                                &v->system,      &v->prompt, &v->answer};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ft_free(all[i]->p);
}

static int read_fields(const struct ft_format *f, const json_t *record, struct fields *v)
{
    const struct format_row *r = &f->row;
    FT_TRY(get_text(record, r->instruction, true, &v->instruction));
    if (r->input)
        FT_TRY(get_text(record, r->input, false, &v->input));
    FT_TRY(get_text(record, r->output, true, &v->output));
    const char *system = r->texts[v->input.n ? 0 : 1];
    if (r->system && json_object_get(record, r->system))
        FT_TRY(get_text(record, r->system, false, &v->system));
    else if (r->system && !system)
        return get_text(record, r->system, true, &v->system);
    else if (system)
        FT_TRY(add(&v->system, system, strlen(system)));
    if (v->system.n && f->style.system)
        FT_TRY(fill_in(&v->prompt, f->style.system, NULL, NULL, &v->system));
    FT_TRY(fill_in(&v->prompt, v->input.n ? f->style.with_input : f->style.without, &v->instruction,
                   &v->input, &v->system));
    if (r->output_prefix)
        FT_TRY(add(&v->answer, r->output_prefix, strlen(r->output_prefix)));
    return add(&v->answer, v->output.p, v->output.n);
}

static int sample_fields(const struct ft_format *f, struct ft_tokenizer *t, const json_t *record,
                         struct ft_sample *s)
{
    struct fields v = {.prompt = {NULL, 0, 0}};
    int rc = read_fields(f, record, &v);
    if (!rc)
        rc = sample_pair(f, t, &v.prompt, &v.answer, s);
    free_fields(&v);
    return rc;
}

/* --- plain text --- */

static int sample_completion(const struct ft_format *f, struct ft_tokenizer *t,
                             const json_t *record, struct ft_sample *s)
{
    struct text text = {0};
    ft_sample_clear(s);
    int rc = get_text(record, f->o->field ? f->o->field : "text", true, &text);
    if (!rc && text.n) {
        rc = encode(t, &text, true, &s->ids);
        if (!rc && s->ids.n && f->eos >= 0 && s->ids.v[s->ids.n - 1] != f->eos)
            rc = ft_ids_add(&s->ids, f->eos);
        if (!rc && s->ids.n && f->eos >= 0)
            ft_ends_add(s->ends, f->eos, 1);
    }
    ft_free(text.p);
    return rc ? rc : ft_sample_label(s, 1, FT_OF_ASSISTANT);
}

/* --- texts that say themselves whether they are trained --- */

static int sample_segments(const struct ft_format *f, struct ft_tokenizer *t, const json_t *record,
                           struct ft_sample *s)
{
    const json_t *list = json_object_get(record, f->o->field ? f->o->field : "segments");
    ft_sample_clear(s);
    if (!json_is_array(list))
        return ft_fail(FT_EDATA, "has no list '%s'", f->o->field ? f->o->field : "segments");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i), *text = json_object_get(one, "text");
        const json_t *label = json_object_get(one, "label");
        if (!json_is_string(text) || !json_is_boolean(label))
            return ft_fail(FT_EDATA, "segment %zu has no 'text', or no 'label' of true or false",
                           i);
        const struct text own = {(char *)(uintptr_t)json_string_value(text),
                                 json_string_length(text), 0};
        const bool trained = json_is_true(label);
        FT_TRY(encode(t, &own, false, &s->ids));
        FT_TRY(ft_sample_label(s, trained || f->o->train_on_inputs,
                               trained ? FT_OF_ASSISTANT : FT_OF_USER));
    }
    return FT_OK;
}

/* --- tokens --- */

static int sample_tokens(const struct ft_format *f, struct ft_tokenizer *t, const json_t *record,
                         struct ft_sample *s)
{
    (void)f;
    return ft_tokens_sample(s, record, ft_tokenizer_size(t));
}

/* --- conversations --- */

static int sample_conversation(const struct ft_format *f, struct ft_tokenizer *t,
                               json_t *conversation, struct ft_sample *s)
{
    int rc = ft_conversation_sample(s, t, f->chat, conversation, &f->rules, f->now);
    json_decref(conversation);
    return rc;
}

/* Parts of conversations that ft's templates are not given. */
static void find_ungiven(const struct ft_format *f, const json_t *record, struct ft_sample *s)
{
    const char *tools = f->o->field_tools ? f->o->field_tools : "tools";
    if (json_array_size(json_object_get(record, "functions")) && !ft_json_get(record, tools))
        s->unrendered[FT_OF_TEMPLATE] |= 1u << FT_PART_TOOLS;
    if (json_array_size(json_object_get(record, "documents")))
        s->unrendered[FT_OF_TEMPLATE] |= 1u << FT_PART_OTHER;
}

static int sample_messages(const struct ft_format *f, struct ft_tokenizer *t, const json_t *record,
                           struct ft_sample *s)
{
    json_t *conversation = NULL;
    ft_sample_clear(s);
    FT_TRY(ft_conversation_from(&conversation, record, f->o));
    FT_TRY(sample_conversation(f, t, conversation, s));
    if (f->rules.look)
        find_ungiven(f, record, s);
    return FT_OK;
}

static int sample_message_pair(const struct ft_format *f, struct ft_tokenizer *t,
                               const json_t *record, struct ft_sample *s)
{
    json_t *conversation;
    ft_sample_clear(s);
    FT_TRY(
        ft_conversation_from_pair(&conversation, record, f->row.instruction, f->row.output, f->o));
    return sample_conversation(f, t, conversation, s);
}

/* What is asked: the instruction and its input, in lines of their own. */
static int read_question(const struct ft_format *f, const json_t *record, struct fields *v)
{
    const struct format_row *r = &f->row;
    FT_TRY(get_text(record, r->instruction, true, &v->instruction));
    FT_TRY(get_text(record, r->input, false, &v->input));
    FT_TRY(get_text(record, r->output, true, &v->output));
    if (f->o->field_system)
        FT_TRY(get_text(record, f->o->field_system, false, &v->system));
    if (!v->system.n && f->o->default_system)
        FT_TRY(add(&v->system, f->o->default_system, strlen(f->o->default_system)));
    FT_TRY(add(&v->prompt, v->instruction.p, v->instruction.n));
    if (v->instruction.n && v->input.n)
        FT_TRY(add(&v->prompt, "\n", 1));
    return add(&v->prompt, v->input.p, v->input.n);
}

static int sample_instruction(const struct ft_format *f, struct ft_tokenizer *t,
                              const json_t *record, struct ft_sample *s)
{
    struct fields v = {.prompt = {NULL, 0, 0}};
    const json_t *history = f->o->field_history ? ft_json_get(record, f->o->field_history) : NULL;
    json_t *conversation = NULL;
    ft_sample_clear(s);
    int rc = read_question(f, record, &v);
    if (!rc)
        rc = ft_conversation_from_texts(&conversation, v.system.p ? v.system.p : "", history,
                                        v.prompt.p, v.output.p);
    if (!rc)
        rc = sample_conversation(f, t, conversation, s);
    free_fields(&v);
    return rc;
}

/* --- the table --- */

#define TASK_INPUT                                                                                 \
    "Below is an instruction that describes a task, paired with an input that provides further "   \
    "context. Write a response that appropriately completes the request."
#define TASK                                                                                       \
    "Below is an instruction that describes a task. Write a response that appropriately completes" \
    " the request."
#define CONCISE_INPUT                                                                              \
    "Below is an instruction from a USER that describes a task, paired with an input that "        \
    "provides further context. The ASSISTANT writes a response that concisely and appropriately "  \
    "completes the request.\n\n"
#define CONCISE                                                                                    \
    "Below is an instruction from a USER that describes a task. The ASSISTANT writes a response "  \
    "that appropriately and concisely completes the request.\n\n"

static const struct style instruct = {
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    "### Instruction:\n{instruction}\n\n### Response:\n", "{system}\n\n"};
static const struct style chat = {"USER: {instruction}\n{input}\nASSISTANT:",
                                  "USER: {instruction}\nASSISTANT:", "SYSTEM: {system}\n"};
static const struct style orca = {
    "### Human:\n{instruction}\n### Additional Context:\n{input}\n### Assistant:\n",
    "### Human:\n{instruction}\n### Assistant:\n", "### System:\n{system}\n"};
static const struct style chatml = {
    "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\n{system}<|im_end|>\n"};
static const struct style phi = {"<|user|>\n{instruction}<|end|>{input}<|assistant|>",
                                 "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
                                 "<|system|>\n{system}<|end|>\n"};
static const struct style summary = {
    "USER: Summarize the following article as a TL;DR.\n{instruction}\n{input}\nASSISTANT:",
    "USER: Summarize the following article as a TL;DR.\n{instruction}\nASSISTANT:", NULL};
static const struct style own_words = {"{instruction} {input} ", "{instruction} ", "{system}"};
static const struct style plain = {"{instruction}{input}", "{instruction}", NULL};

/* type, function, fields: instruction, input, output, system, style, system texts */
#define PAIR(type, ...)                                                                            \
    {                                                                                              \
        type, sample_fields, __VA_ARGS__                                                           \
    }
static const struct format_row rows[] = {
    {.type = "chat_template", .sample = sample_messages, .chat = true},
    {.type = "instruction",
     .sample = sample_instruction,
     .instruction = "instruction",
     .input = "input",
     .output = "output",
     .chat = true},
    {.type = "prompt_completion.messages",
     .sample = sample_message_pair,
     .instruction = "prompt",
     .output = "completion",
     .chat = true},
    {.type = "completion", .sample = sample_completion, .cuts = true},
    {.type = "input_output", .sample = sample_segments},
    {.type = "tokenized", .sample = sample_tokens},
    PAIR("prompt_completion", "prompt", NULL, "completion", NULL, &plain, {NULL, NULL}, NULL, 0, 0),
    PAIR("alpaca", "instruction", "input", "output", NULL, &instruct, {TASK_INPUT, TASK}, NULL, 0,
         0),
    PAIR("alpaca_instruct", "instruction", "input", "output", NULL, &instruct, {TASK_INPUT, TASK},
         NULL, 0, 0),
    PAIR("alpaca_instruct.load_no_prompt", "instruction", "input", "output", NULL, &instruct,
         {NULL, NULL}, NULL, 0, 0),
    PAIR("alpaca_chat", "instruction", "input", "output", NULL, &chat, {TASK_INPUT, TASK}, NULL, 0,
         0),
    PAIR("alpaca_chat.load_no_prompt", "instruction", "input", "output", NULL, &chat, {NULL, NULL},
         NULL, 0, 0),
    PAIR("alpaca_chat.load_concise", "instruction", "input", "output", NULL, &chat,
         {CONCISE_INPUT, CONCISE}, NULL, 0, 0),
    PAIR("alpaca_chat.load_qa", "question", NULL, "answer", NULL, &chat, {CONCISE_INPUT, CONCISE},
         NULL, 0, 0),
    PAIR("alpaca_chat.load_camel_ai", "message_1", NULL, "message_2", NULL, &chat,
         {CONCISE_INPUT, CONCISE}, NULL, 0, 0),
    PAIR("alpaca_w_system", "instruction", "input", "output", "system", &chat, {NULL, NULL}, NULL,
         0, 0),
    PAIR("alpaca_w_system.load_chat", "instruction", "input", "output", "system", &chat,
         {NULL, NULL}, NULL, 0, 0),
    PAIR("alpaca_w_system.load_instruct", "instruction", "input", "output", "system", &instruct,
         {NULL, NULL}, NULL, 0, 0),
    PAIR("alpaca_w_system.load_open_orca", "question", NULL, "response", "system_prompt", &orca,
         {NULL, NULL}, NULL, 0, 0),
    PAIR("alpaca_w_system.load_open_orca_chatml", "question", NULL, "response", "system_prompt",
         &chatml, {NULL, NULL}, NULL, 0, 0),
    PAIR("gpteacher", "instruction", "input", "response", NULL, &instruct, {TASK_INPUT, TASK}, NULL,
         0, 0),
    PAIR("oasst", "INSTRUCTION", NULL, "RESPONSE", NULL, &instruct, {TASK_INPUT, TASK}, NULL, 0, 0),
    PAIR("nomic_gpt4all", "prompt", NULL, "response", NULL, &instruct, {TASK_INPUT, TASK}, NULL, 0,
         0),
    PAIR("jeopardy", "question", "category", "answer", NULL, &instruct, {TASK_INPUT, TASK},
         "what is ", 0, 0),
    PAIR("summarizetldr", "article", NULL, "summary", NULL, &summary, {NULL, NULL}, NULL, 0, 0),
    PAIR("user_defined", "instruction", "input", "output", "system", &own_words, {"", ""}, NULL, 0,
         0),
};
enum { ROWS = sizeof rows / sizeof *rows };

/* "alpaca:chat": a format in another style. */
static const struct {
    const char *name;
    const struct style *style;
} styles[] = {{"instruct", &instruct}, {"chat", &chat}, {"chatml", &chatml}, {"phi", &phi}};

static bool takes_style(const struct format_row *r)
{
    static const char *const types[] = {"alpaca", "gpteacher", "oasst", "jeopardy"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(r->type, types[i]) == 0)
            return true;
    return false;
}

/* The type's row; *style: what stands behind its colon, NULL without one. */
static const struct format_row *find(const char *type, const struct style **style)
{
    const size_t n = strcspn(type, ":");
    *style = NULL;
    for (size_t i = 0; i < sizeof styles / sizeof *styles && type[n]; i++)
        if (strcmp(styles[i].name, type + n + 1) == 0)
            *style = styles[i].style;
    for (int i = 0; i < ROWS; i++)
        if (strncmp(rows[i].type, type, n) == 0 && !rows[i].type[n])
            return !type[n] || (*style && takes_style(&rows[i])) ? &rows[i] : NULL;
    return NULL;
}

static int unknown_type(const char *type)
{
    const char *names[ROWS];
    char list[1024] = "";
    for (int i = 0; i < ROWS; i++) {
        names[i] = rows[i].type;
        const size_t n = strlen(list);
        if (!strchr(names[i], '.'))
            snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", names[i]);
    }
    const char *near = ft_nearest(type, names, ROWS);
    ft_fail(FT_ECONFIG, "'%s' is not a dataset 'type' of ft's", type);
    if (near)
        ft_hint("did you mean '%s'?", near);
    else
        ft_hint("types are %s (and alpaca:chat, :chatml, :phi); ShareGPT's conversations are "
                "chat_template with field_messages and "
                "message_property_mappings",
                list);
    return FT_ECONFIG;
}

/* The entry's own fields and formats in the row's place. */
static void apply_options(struct ft_format *f)
{
    const struct ft_format_options *o = f->o;
    struct format_row *r = &f->row;
    const struct {
        const char **to, *from;
    } own[] = {{&r->instruction, o->field_instruction}, {&r->input, o->field_input},
               {&r->output, o->field_output},           {&r->system, o->field_system},
               {&f->style.with_input, o->format},       {&f->style.without, o->no_input_format},
               {&f->style.system, o->system_format},    {&r->texts[0], o->system_prompt},
               {&r->texts[1], o->system_prompt}};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i].from && (own[i].to != &r->system || r->system))
            *own[i].to = own[i].from;
}

/* Tokens that end turns must be one id each. */
static int find_end_tokens(struct ft_format *f, const struct ft_tokenizer *t)
{
    int n = 0;
    for (; f->o->end_tokens && f->o->end_tokens[n]; n++)
        ;
    FT_TRY(ft_alloc(&f->end_tokens, (size_t)n + 2, sizeof *f->end_tokens));
    for (int i = 0; i < n; i++) {
        f->end_tokens[i] = ft_tokenizer_id(t, f->o->end_tokens[i]);
        if (f->end_tokens[i] < 0) {
            ft_fail(FT_ECONFIG, "'eot_tokens' has '%s', which is not in the model's vocabulary",
                    f->o->end_tokens[i]);
            ft_hint("choose a token that the tokenizer has, or add it: 'tokens' lists new ones");
            return FT_ECONFIG;
        }
    }
    if (n && f->o->eos >= 0) /* besides them */
        f->end_tokens[n++] = f->o->eos;
    f->rules.end_tokens = f->end_tokens;
    f->rules.n_end_tokens = n;
    return FT_OK;
}

/* {name} in a format of one's own must be one of those that are filled in. */
static int check_places(const char *key, const char *format)
{
    static const char *const known[] = {"instruction", "input", "system"};
    for (const char *p = format; p && (p = strchr(p, '{'));) {
        const size_t n = strspn(p + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
        char name[64];
        bool is = p[1] == '{' || n == 0 || p[1 + n] != '}' || n >= sizeof name;
        snprintf(name, sizeof name, "%.*s", (int)n, p + 1);
        for (size_t i = 0; i < 3 && !is; i++)
            is = strcmp(name, known[i]) == 0;
        if (!is) {
            const char *near = ft_nearest(name, known, 3);
            ft_fail(FT_ECONFIG, "'%s' has '{%s}', which nothing is put in place of", key, name);
            ft_hint("%s%s%sthere are {instruction}, {input} and {system}; {{ and }} are braces",
                    near ? "did you mean '{" : "", near ? near : "", near ? "}'? " : "");
            return FT_ECONFIG;
        }
        p += p[1] == '{' ? 2 : 1;
    }
    return FT_OK;
}

/* roles_to_train speaks of the record's roles or the template's. */
static int open_rules(struct ft_format *f, const struct ft_tokenizer *t)
{
    const char *const *roles = f->o->roles_to_train;
    size_t n = 0;
    while (roles && roles[n])
        n++;
    if (roles) {
        FT_TRY(ft_alloc(&f->roles, n + 1, sizeof *f->roles));
        for (size_t i = 0; i < n; i++)
            f->roles[i] = ft_role_of(f->o, roles[i]);
        f->rules.roles = f->roles;
    }
    f->rules.inputs = f->o->train_on_inputs;
    f->rules.end = f->o->train_on_eos;
    f->rules.field = f->o->message_field_training;
    f->rules.look = true;
    f->now = f->o->now;
    if (f->row.chat && !f->chat)
        return ft_fail(FT_ECONFIG, "'%s' needs a chat template", f->row.type);
    return find_end_tokens(f, t);
}

int ft_format_open(struct ft_format **out, const struct ft_format_options *o,
                   const struct ft_tokenizer *t, const struct ft_chat *chat_template)
{
    const struct style *style;
    const struct format_row *row = find(o->type, &style);
    struct ft_format *f;
    *out = NULL;
    if (!row)
        return unknown_type(o->type);
    FT_TRY(ft_alloc(&f, 1, sizeof *f));
    f->row = *row;
    f->style = style ? *style : row->style ? *row->style : plain;
    f->o = o;
    f->chat = chat_template;
    f->bos = o->bos;
    f->eos = o->eos;
    apply_options(f);
    int rc = check_places("format", o->format);
    if (!rc)
        rc = check_places("no_input_format", o->no_input_format);
    if (!rc)
        rc = check_places("system_format", o->system_format);
    if (!rc)
        rc = open_rules(f, t);
    if (rc)
        ft_format_close(f);
    else
        *out = f;
    return rc;
}

void ft_format_close(struct ft_format *f)
{
    if (!f)
        return;
    ft_free(f->end_tokens);
    ft_free(f->roles);
    ft_free(f);
}

int ft_format_check(const char *type)
{
    const struct style *style;
    return find(type, &style) ? FT_OK : unknown_type(type);
}

bool ft_format_needs_chat(const char *type)
{
    const struct style *style;
    const struct format_row *r = find(type, &style);
    return r && r->chat;
}

bool ft_format_cuts(const struct ft_format *f)
{
    return f->row.cuts;
}

bool ft_format_has_turns(const struct ft_format *f)
{
    const enum ft_train_on end = f->o->train_on_eos;
    const bool ends = end == FT_TRAIN_UNSET || end == FT_TRAIN_TURN || end == FT_TRAIN_ALL;
    return f->row.chat ? ends : f->row.instruction != NULL;
}

/* Tokens may be added to a tokenizer and not to the model. */
static int check_embeddings(const struct ft_format *f, const struct ft_tokenizer *t,
                            const struct ft_ids *ids)
{
    for (size_t i = 0; i < ids->n && f->o->embeddings; i++)
        if (ids->v[i] >= f->o->embeddings) {
            ft_fail(FT_EDATA,
                    "has the token '%s' (%d), for which the model has no embedding: "
                    "its 'vocab_size' is %lld",
                    ft_tokenizer_token(t, ids->v[i]), ids->v[i], (long long)f->o->embeddings);
            ft_hint("take the token out of the files beside tokenizer.json, or give the model an "
                    "embedding for it: model.resize_token_embeddings(len(tokenizer))");
            return FT_EDATA;
        }
    return FT_OK;
}

int ft_format_sample(const struct ft_format *f, struct ft_tokenizer *t, const json_t *record,
                     struct ft_sample *s)
{
    if (!json_is_object(record))
        return ft_fail(FT_EDATA, "is not a JSON object");
    FT_TRY(f->row.sample(f, t, record, s));
    return check_embeddings(f, t, &s->ids);
}
