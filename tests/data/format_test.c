/* Text datasets: ids and masks against Axolotl's and transformers' own
 * (scripts/make-golden-formats), the audit, prepared files. */
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/threads.h"
#include "data/data.h"
#include "tests/check.h"
#include "train/texts.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];

static void write_text(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_INT(ft_file_write(path, text, strlen(text)), FT_OK);
}

static void fresh(void)
{
    if (!folder[0]) {
        strcpy(folder, "/tmp/ft-format-XXXXXX");
        CHECK(mkdtemp(folder) != NULL);
    }
}

/* A config with one dataset, opened. */
struct opened {
    struct ft_config c;
    struct ft_texts t;
    struct ft_pool *pool;
    struct ft_source s;
};

static int open_config(struct opened *o, const char *model, int threads)
{
    char path[256];
    *o = (struct opened){.pool = NULL};
    snprintf(path, sizeof path, "%s/c.yaml", folder);
    FT_TRY(ft_config_read(&o->c, path, NULL, 0));
    FT_TRY(ft_pool_new(&o->pool, threads));
    FT_TRY(ft_texts_open(&o->t, &o->c, model, o->pool));
    return ft_source_open(&o->s, &o->t, &o->c, &o->c.datasets[0]);
}

static void close_config(struct opened *o)
{
    ft_source_close(&o->s);
    ft_texts_close(&o->t);
    ft_pool_free(o->pool);
    ft_config_fini(&o->c);
}

/* entry: YAML of the entry's other keys, config: of other options. */
static void write_path(const char *path, const char *entry, const char *config)
{
    char text[4096];
    snprintf(text, sizeof text,
             "base_model: m\noutput_dir: %s/out\ndataset_prepared_path: %s/prepared\ndatasets:\n"
             "  - path: %s\n%s%s",
             folder, folder, path, entry, config);
    write_text("c.yaml", text);
}

static void write_config(const char *data, const char *entry, const char *config)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, data);
    write_path(path, entry, config);
}

/* --- golden --- */

struct golden {
    const char *name;
    const json_t *ids, *masks;
    size_t at, other_ids, other_masks;
};

static bool compare(void *ctx, const struct ft_sample *s, size_t from, size_t to, const char *file,
                    int line)
{
    struct golden *g = ctx;
    const json_t *ids = json_array_get(g->ids, g->at);
    const char *mask = json_string_value(json_array_get(g->masks, g->at++));
    bool same = json_array_size(ids) == to - from, same_mask = same;
    (void)file;
    (void)line;
    for (size_t i = from; i < to && same; i++) {
        same = json_integer_value(json_array_get(ids, i - from)) == s->ids.v[i];
        same_mask = same_mask && mask[i - from] == '0' + s->mask[i];
    }
    g->other_ids += !same;
    g->other_masks += !same_mask;
    return true;
}

static void write_case(const json_t *c)
{
    const json_t *records = json_object_get(c, "records");
    json_t *config = json_deep_copy(json_object_get(c, "config"));
    json_t *entry = json_deep_copy(json_object_get(c, "entry"));
    char path[256];
    snprintf(path, sizeof path, "%s/data.jsonl", folder);
    FILE *f = fopen(path, "w");
    for (size_t i = 0; i < json_array_size(records); i++) {
        json_dumpf(json_array_get(records, i), f, JSON_COMPACT);
        fputc('\n', f);
    }
    fclose(f);
    json_object_set_new(entry, "path", json_string(path));
    json_object_set_new(config, "datasets", json_pack("[o]", entry));
    json_object_set_new(config, "base_model", json_string("m"));
    json_object_set_new(config, "output_dir", json_string("o"));
    char *text = json_dumps(config, 0);
    write_text("c.yaml", text);
    free(text);
    json_decref(config);
}

static void one_case(const json_t *c, int threads)
{
    struct golden g = {.name = json_string_value(json_object_get(c, "name")),
                       .ids = json_object_get(c, "ids"),
                       .masks = json_object_get(c, "masks")};
    struct ft_audit audit;
    struct opened o;
    write_case(c);
    int rc = open_config(&o, json_string_value(json_object_get(c, "model")), threads);
    if (!rc)
        rc = ft_prepare_each(&o.s.prepare, compare, &g, &audit);
    if (rc || g.at != json_array_size(g.ids) || g.other_ids || g.other_masks)
        check_fail(g.name, rc,
                   "%zu of %zu documents, %zu with other ids, %zu with another mask: %s", g.at,
                   json_array_size(g.ids), g.other_ids, g.other_masks, ft_status_report());
    ft_status_clear();
    close_config(&o);
}

CASE(formats_give_the_ids_and_masks_of_axolotl_and_transformers)
{
    json_t *root = read_json(FT_ROOT "/tests/data/formats.json");
    fresh();
    const json_t *cases = json_object_get(root, "cases");
    CHECK(json_array_size(cases) >= 50);
    for (size_t i = 0; i < json_array_size(cases); i++)
        one_case(json_array_get(cases, i), 1 + (int)(i % 3));
    json_decref(root);
}

/* --- the audit --- */

#define MODEL FT_ROOT "/tests/data/bytes"

/* The audit of the config's dataset; rc of it and of its verdict. */
static int audit_config(struct ft_audit *a)
{
    struct opened o;
    int rc = open_config(&o, MODEL, 2);
    char *path = NULL;
    if (!rc)
        rc = ft_source_prepared(&path, &o.s, &o.t, a);
    if (!rc)
        rc = ft_audit_check(a, o.c.allow_data_problems);
    ft_free(path);
    close_config(&o);
    return rc;
}

static int audit(struct ft_audit *a, const char *data, const char *entry, const char *config)
{
    write_config(data, entry, config);
    return audit_config(a);
}

static int audit_path(struct ft_audit *a, const char *path, const char *entry)
{
    write_path(path, entry, "");
    return audit_config(a);
}

CASE(the_audit_counts_and_finds)
{
    struct ft_audit a;
    fresh();
    write_text(
        "chat.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"bc\"}]}\n"
        "\n{\"messages\": [{\"role\": \"user\", \"content\": \"only a question\"}]}\n");
    CHECK_INT(audit(&a, "chat.jsonl", "    type: chat_template\n", "chat_template: chatml\n"),
              FT_OK);
    CHECK_INT(a.records, 2);
    CHECK_INT(a.documents, 2);
    CHECK_INT(a.found[FT_NOT_TRAINED].count, 1);
    CHECK_HAS(a.found[FT_NOT_TRAINED].first, "/chat.jsonl:3");
    CHECK_INT(a.found[FT_UNENDED_TURN].count, 0);
    CHECK_INT(a.trained_of[FT_OF_USER], 0);
    CHECK_INT(a.trained_of[FT_OF_ASSISTANT], a.tokens_of[FT_OF_ASSISTANT]);
    CHECK(a.trained_of[FT_OF_TEMPLATE] == 1 && a.tokens_of[FT_OF_ASSISTANT] >= 1);

    /* a template whose turns have no end */
    static const char endless[] = "chat_template_jinja: \"{% for m in messages %}{{ m.role }}: {{ "
                                  "m.content }} {% endfor %}\"\n";
    CHECK_INT(audit(&a, "chat.jsonl", "    type: chat_template\n", endless), FT_EDATA);
    CHECK_HAS(ft_status_report(), "/chat.jsonl:1: error: 1 of 2 documents have a trained turn");
    CHECK_HAS(ft_status_report(), "allow_data_problems: [unended_turns]");
    ft_status_clear();
    char allowed[256];
    snprintf(allowed, sizeof allowed, "%sallow_data_problems: [unended_turns]\n", endless);
    CHECK_INT(audit(&a, "chat.jsonl", "    type: chat_template\n", allowed), FT_OK);
    CHECK_INT(a.found[FT_UNENDED_TURN].count, 1);

    /* a text that brings its own beginning; texts without a token */
    write_text("text.jsonl",
               "{\"text\": \"<s>x\"}\n{\"text\": \"\"}\n{\"text\": null}\n{\"text\": 5}\n");
    CHECK_INT(audit(&a, "text.jsonl", "    type: completion\n", ""), FT_EDATA);
    CHECK_HAS(ft_status_report(), "/text.jsonl:1: error: 1 of 4 documents begin with");
    ft_status_clear();
    CHECK_INT(a.found[FT_NO_TEXT].count, 2);
    CHECK_INT(a.documents, 4);

    /* a prompt and an answer that are one word */
    write_text("border.jsonl", "{\"prompt\": \"the wo\", \"completion\": \"rld\"}\n");
    CHECK_INT(audit(&a, "border.jsonl", "    type: prompt_completion\n", ""), FT_OK);
    CHECK_INT(a.found[FT_PROMPT_BORDER].count, 1);
}

CASE(text_beside_the_messages_is_the_systems)
{
    struct ft_audit a;
    fresh();
    write_text("sys.jsonl",
               "{\"system\": \"Be brief, friend\", \"messages\": [{\"role\": \"user\", "
               "\"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n");
    CHECK_INT(audit(&a, "sys.jsonl", "    type: chat_template\n", "chat_template: chatml\n"),
              FT_OK);
    CHECK(a.tokens_of[FT_OF_SYSTEM] > 0 && a.trained_of[FT_OF_SYSTEM] == 0);
    CHECK_INT(audit(&a, "sys.jsonl", "    type: chat_template\n    drop_system_message: true\n",
                    "chat_template: chatml\n"),
              FT_OK);
    CHECK_INT(a.tokens_of[FT_OF_SYSTEM], 0);
    CHECK_INT(audit(&a, "sys.jsonl", "    type: chat_template\n    field_system: none\n",
                    "chat_template: chatml\ndefault_system_message: You are it\n"),
              FT_OK);
    CHECK(a.tokens_of[FT_OF_SYSTEM] > 0);
    /* nobody of that name speaks */
    CHECK_INT(audit(&a, "sys.jsonl", "    type: chat_template\n    roles_to_train: [asistant]\n",
                    "chat_template: chatml\n"),
              FT_EDATA);
    CHECK_HAS(ft_status_report(), "nothing to train on: of 1 documents");
    CHECK_HAS(ft_status_report(), "sys.jsonl:1");
    ft_status_clear();
}

/* What is trained of a record, "[" where that begins anew. */
static void check_trained(const char *model, const char *record, const char *entry,
                          const char *config, const char *trained, int turns)
{
    struct opened o;
    struct ft_sample s = {0};
    char got[512] = "", keys[512], *text;
    json_t *r = NULL;
    size_t n;
    snprintf(keys, sizeof keys, "    type: chat_template\n%s", entry);
    write_text("x.jsonl", "{}\n");
    write_config("x.jsonl", keys, config);
    CHECK_INT(open_config(&o, model, 1), FT_OK);
    CHECK_INT(ft_json_record(record, strlen(record), (struct ft_where){0}, FT_EDATA, &r), FT_OK);
    if (ft_format_sample(o.s.format, o.t.tokenizer, r, &s))
        snprintf(got, sizeof got, "%s", ft_status_report());
    for (size_t i = 0; i < s.labelled; i++) {
        const bool open = s.mask[i] && (i == 0 || !s.mask[i - 1]);
        ft_tokenizer_decode(o.t.tokenizer, &s.ids.v[i], 1, false, &text, &n);
        if (s.mask[i])
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", open ? "[" : "", text);
        ft_free(text);
    }
    if (turns > 0) {
        CHECK_TEXT(got, trained);
        CHECK_INT(s.turns, turns);
        CHECK_INT(s.ended, turns);
    } else {
        CHECK_HAS(got, trained);
    }
    ft_status_clear();
    json_decref(r);
    ft_sample_free(&s);
    close_config(&o);
}

/* Masks of turns that answer with calls: from the prompt's end to what ends them. */
static void check_calls(const char *template, const char *trained)
{
    static const char record[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"w?\"}, {\"role\": \"assistant\", "
        "\"content\": \"\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": "
        "{\"a\": "
        "1}}}]}, {\"role\": \"tool\", \"content\": \"T\"}, {\"role\": \"assistant\", \"content\": "
        "\"ok\"}]}";
    char config[1024];
    snprintf(config, sizeof config, "chat_template_jinja: \"%s\"\n", template);
    check_trained(MODEL, record, "", config, trained, 2);
}

#define HEAD                                                                                       \
    "{% for m in messages %}{% if m.role == 'user' %}U:{{ m.content }}{% elif m.role == "          \
    "'assistant'"                                                                                  \
    " %}{% if m.tool_calls %}C:{{ m.tool_calls[0].function.name }}"                                \
    "({{ m.tool_calls[0].function.arguments.a }})"

CASE(turns_that_call_tools_are_trained_whole)
{
    fresh();
    /* as plain turns */
    check_calls(HEAD "{% else %}A:{{ m.content }}{% endif %}<|im_end|>{% else %}T:{{ m.content }}"
                     "{% endif %}{% endfor %}",
                "[C:f(1)<|im_end|>[ok<|im_end|>");
    /* an answer that needs its call, so that the call cannot be taken away */
    check_calls(HEAD "{% else %}A:{{ m.content }}{% endif %}<|im_end|>{% else %}{{ "
                     "raise_exception('no call') if not messages[1].tool_calls }}T:{{ m.content }}"
                     "{% endif %}{% endfor %}{% if add_generation_prompt %}C:{% endif %}",
                "[f(1)<|im_end|>[ok<|im_end|>");
    /* a template that writes the answer into the turn that asked for it */
    check_calls(HEAD
                "<|im_end|>{% for t in messages if t.role == 'tool' %}R:{{ t.content }}{% endfor"
                " %}{% else %}A:{{ m.content }}<|im_end|>{% endif %}{% endif %}{% endfor %}",
                "[C:f(1)<|im_end|>[ok<|im_end|>");
}

#define ANSWER(content)                                                                            \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", " content \
    "}]}"
#define CHATML "chat_template: chatml\n"

CASE(parts_of_turns_may_be_trained)
{
    static const char pieces[] = FT_ROOT "/tests/data/pieces";
    static const char parts[] = ANSWER(
        "\"content\": [{\"text\": \"  ab\", \"train\": true}, {\"text\": \"cd\", \"weight\": "
        "0}, {\"text\": \"x1 \"}]");
    fresh();
    check_trained(MODEL, parts, "", CHATML, "[ ab[x1 <|im_end|>", 1); /* "\n " is not */
    check_trained(pieces, parts, "", CHATML, "[ab[x1<|im_end|>", 1);
    /* trimmed, and in another place */
    check_trained(
        MODEL, parts, "",
        "chat_template_jinja: \"{% for m in messages %}{{ m.role }} ab{{ m.content | trim "
        "}}<|im_end|>{% endfor %}\"\n",
        "[ab[x1<|im_end|>", 1);
    /* the same words in a call, behind them */
    check_trained(
        MODEL,
        ANSWER("\"content\": [{\"text\": \"Paris\", \"train\": true}], \"tool_calls\": "
               "[{\"function\": {\"name\": \"w\", \"arguments\": {\"c\": \"Paris\"}}}]"),
        "",
        "chat_template_jinja: \"{% for m in messages %}{{ m.role }}:{{ m.content }}{% for "
        "c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}<|im_end|>{% endfor "
        "%}\"\n",
        "[Paris[<|im_end|>", 1);
    /* a token of two parts that are both trained */
    check_trained(MODEL,
                  ANSWER("\"content\": [{\"text\": \"x Hello \", \"train\": true}, {\"text\": "
                         "\"world\"}, {\"text\": \" no\", \"train\": false}]"),
                  "", CHATML, "[x Hello world[<|im_end|>", 1);
    /* nothing but white space, which the template takes away */
    check_trained(
        MODEL, ANSWER("\"content\": [{\"text\": \"  \", \"train\": true}]"), "",
        "chat_template_jinja: \"{% for m in messages %}{{ m.content | trim }}<|im_end|>{% "
        "endfor %}\"\n",
        "[<|im_end|>", 1);
    check_trained(MODEL, ANSWER("\"content\": [{\"text\": \"\", \"train\": true}]"), "", CHATML, "",
                  0);
    check_trained(MODEL, parts, "", "chat_template_jinja: \"{{ messages[1].content | upper }}\"\n",
                  "message 2: the template changes its text", 0);
    check_trained(MODEL, ANSWER("\"content\": [{\"text\": \"a\", \"train\": \"no\"}]"), "", CHATML,
                  "'train' is neither true nor false", 0);
    check_trained(MODEL,
                  ANSWER("\"content\": \"a\", \"reasoning_content\": [{\"text\": \"a\", \"train\": "
                         "false}]"),
                  "", CHATML, "reasoning in parts", 0);
}

CASE(ranges_of_turns_may_be_trained)
{
    fresh();
    static const char details[] =
        ANSWER("\"content\": \"h\u00e9llo, you\", \"d\": [{\"begin_offset\": 1, \"end_offset\": 1, "
               "\"train\": true}, {\"begin_offset\": 6, \"end_offset\": 99, \"train\": true}]");
    check_trained(MODEL, details, "    message_field_training_detail: d\n", CHATML,
                  "[\u00e9[ you<|im_end|>", 1);
    check_trained(MODEL, ANSWER("\"content\": \"a\", \"d\": [{\"begin_offset\": 1}]"),
                  "    message_field_training_detail: d\n", CHATML, "without begin_offset", 0);
    /* an empty list: nothing, unless the message says so itself */
    check_trained(MODEL, ANSWER("\"content\": \"a\", \"d\": []"),
                  "    message_field_training_detail: d\n", CHATML, "", 0);
    check_trained(MODEL, ANSWER("\"content\": \"a\", \"d\": [], \"t\": true"),
                  "    message_field_training_detail: d\n    message_field_training: t\n", CHATML,
                  "[a<|im_end|>", 1);
    check_trained(MODEL, ANSWER("\"content\": \"a\", \"d\": true"),
                  "    message_field_training_detail: d\n", CHATML, "has a 'd' that is not a list",
                  0);
}

CASE(roles_and_tools_by_the_records_names)
{
    static const char record[] =
        "{\"messages\": [{\"role\": \"human\", \"content\": \"q\"}, {\"role\": \"bot\", "
        "\"content\": \"a\"}], \"tools\": [{\"function\": {\"name\": \"f\", \"parameters\": "
        "\"{\\\"p\\\": 7}\"}}]}";
    static const char template[] =
        "chat_template_jinja: \"{{ tools[0].function.parameters.p + 1 }}{% for m in messages %}{{ "
        "m.role }}:{{ m.content }}<|im_end|>{% endfor %}\"\n";
    fresh();
    check_trained(MODEL, record, "    roles: {assistant: [bot]}\n    roles_to_train: [bot]\n",
                  template, "[a<|im_end|>", 1);
    check_trained(MODEL, record, "    roles_to_train: [human]\n", template, "[q<|im_end|>", 1);
    check_trained(MODEL, record, "    roles: {user: [human]}\n    roles_to_train: [human, bot]\n",
                  template, "[q<|im_end|>[a<|im_end|>", 2);
}

CASE(thoughts_may_be_split_off)
{
    static const char template[] =
        "chat_template_jinja: \"{% for m in messages %}{{ m.role }}<{{ m.reasoning_content }}>{{ "
        "m.content }}<|im_end|>{% endfor %}\"\n";
    fresh();
    check_trained(MODEL, ANSWER("\"content\": \"<think> t </think>\\n x\""),
                  "    split_thinking: true\n", template, "[t>x<|im_end|>", 1);
    check_trained(MODEL, ANSWER("\"content\": \"<think>a\\u0000b</think>c\\u0000d\""),
                  "    split_thinking: true\n", template, "[ab>cd<|im_end|>", 1);
    check_trained(MODEL, ANSWER("\"content\": \"</think>x<think>\""), "    split_thinking: true\n",
                  template, "[x<think><|im_end|>", 1);
    check_trained(MODEL, ANSWER("\"content\": [{\"text\": \"a\", \"train\": false}]"),
                  "    split_thinking: true\n", template, "which 'split_thinking' cannot cut", 0);
}

CASE(templates_get_what_chat_template_kwargs_says)
{
    struct opened o;
    static const char template[] =
        "chat_template_jinja: \"{{ messages[1].content }}<|im_end|>{{ a }}{{ b }}{{ c }}\"\n";
    char config[512];
    fresh();
    snprintf(config, sizeof config, "%schat_template_kwargs: {a: false, b: 1.5, c: \"2\"}\n",
             template);
    check_trained(MODEL, ANSWER("\"content\": \"x\""), "", config, "[x<|im_end|>", 1);
    /* the entry's own go before the option's */
    snprintf(config, sizeof config,
             "chat_template_jinja: \"{{ messages[1].content }}{{ a }}<|im_end|>\"\n"
             "chat_template_kwargs: {a: 1}\n");
    check_trained(MODEL, ANSWER("\"content\": \"x\""),
                  "    chat_template_kwargs: {a: [1, null, yes, \"no\"]}\n", config,
                  "[x[1, None, True, 'no']<|im_end|>", 1);
    write_config("x.jsonl", "    type: chat_template\n",
                 CHATML "chat_template_kwargs: {messages: 1}\n");
    CHECK_INT(open_config(&o, MODEL, 1), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "c.yaml:8:24: error: 'chat_template_kwargs' has 'messages'");
    close_config(&o);
    ft_status_clear();
    write_config("x.jsonl", "    type: chat_template\n", CHATML "chat_template_kwargs: 1\n");
    CHECK_INT(open_config(&o, MODEL, 1), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "'chat_template_kwargs' is '1', allowed a map");
    close_config(&o);
    ft_status_clear();
}

CASE(a_damaged_prepared_file_is_found_out)
{
    struct opened o;
    struct ft_audit a;
    struct ft_dataset d = {0};
    char *path = NULL;
    fresh();
    write_text("dmg.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two three\"}\n");
    write_config("dmg.jsonl", "    type: completion\n", "");
    CHECK_INT(open_config(&o, MODEL, 1), FT_OK);
    CHECK_INT(ft_source_prepared(&path, &o.s, &o.t, &a), FT_OK);
    CHECK_INT(ft_dataset_read(&d, path, 1 << 20, &(struct ft_limits){0, 100, FT_EXCESS_DROP, NULL}),
              FT_OK);
    ft_dataset_fini(&d);
    FILE *f = fopen(path, "r+b"); /* a mask bit, the file's last byte */
    fseek(f, -1, SEEK_END);
    fputc(0, f);
    fclose(f);
    CHECK_INT(ft_dataset_read(&d, path, 1 << 20, &(struct ft_limits){0, 100, FT_EXCESS_DROP, NULL}),
              FT_EDATA);
    CHECK_HAS(ft_status_report(), "is damaged");
    ft_status_clear();
    ft_dataset_fini(&d);
    ft_free(path);
    close_config(&o);
}

CASE(bad_records_are_named_and_may_be_skipped)
{
    struct ft_audit a;
    fresh();
    write_text("bad.jsonl",
               "{\"text\": \"one\"}\n{\"text\": \n{\"text\": \"two\"}\n[1]\n{\"txt\": 1}\n");
    CHECK_INT(audit(&a, "bad.jsonl", "    type: completion\n", ""), FT_EDATA);
    CHECK_HAS(ft_status_report(), "/bad.jsonl:2:");
    CHECK_HAS(ft_status_report(), "not valid JSON");
    ft_status_clear();
    CHECK_INT(audit(&a, "bad.jsonl", "    type: completion\n", "skip_bad_records: 2\n"), FT_EDATA);
    CHECK_HAS(ft_status_report(), "/bad.jsonl:5: error: has no 'text'");
    CHECK_HAS(ft_status_report(), "there is 'txt'");
    CHECK_HAS(ft_status_report(), "'skip_bad_records' allows 2");
    ft_status_clear();
    CHECK_INT(audit(&a, "bad.jsonl", "    type: completion\n", "skip_bad_records: 3\n"), FT_OK);
    CHECK_INT(a.records, 5);
    CHECK_INT(a.documents, 2);
    CHECK_INT(a.found[FT_BAD_RECORD].count, 3);
    CHECK_HAS(a.found[FT_BAD_RECORD].first, "/bad.jsonl:2");
}

CASE(slices_take_what_they_name)
{
    static const struct {
        const char *split;
        int documents;
    } cases[] = {{"train[:3]", 3},  {"train[7:]", 3},      {"train[-2:]", 2},
                 {"train", 10},     {"train[20%:50%]", 3}, {"train[:-9]", 1},
                 {"train[5:2]", 0}, {"train[90%:]", 1},    {"train[:25%]", 2}};
    struct ft_audit a;
    char text[512] = "", entry[96];
    fresh();
    for (int i = 0; i < 10; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "{\"text\": \"%d\"}\n", i);
    write_text("ten.jsonl", text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(entry, sizeof entry, "    type: completion\n    split: \"%s\"\n", cases[i].split);
        CHECK_INT(audit(&a, "ten.jsonl", entry, ""), cases[i].documents ? FT_OK : FT_EDATA);
        CHECK_INT(a.documents, cases[i].documents);
        ft_status_clear();
    }
    CHECK_INT(audit(&a, "ten.jsonl", "    type: completion\n    split: train[a:]\n", ""),
              FT_ECONFIG);
    CHECK_INT(audit(&a, "ten.jsonl", "    type: completion\n    split: test\n", ""), FT_EDATA);
    CHECK_INT(audit(&a, "ten.jsonl", "    type: completion\n    split: train[1:5%]\n", ""),
              FT_ECONFIG);
    ft_status_clear();
}

CASE(folders_are_searched_for_the_splits_files)
{
    struct ft_audit a;
    char path[256];
    fresh();
    snprintf(path, sizeof path, "%s/set/data", folder);
    CHECK_INT(ft_make_folders(path), FT_OK);
    write_text("set/data/train-00001.jsonl", "{\"text\": \"b\"}\n{\"text\": \"c\"}\n");
    write_text("set/data/train-00000.jsonl", "{\"text\": \"a\"}\n");
    write_text("set/data/test-00000.jsonl", "{\"text\": \"t\"}\n");
    CHECK_INT(audit(&a, "set", "    type: completion\n", ""), FT_OK);
    CHECK_INT(a.documents, 3);
    CHECK_INT(audit(&a, "set", "    type: completion\n    split: test\n", ""), FT_OK);
    CHECK_INT(a.documents, 1);
    CHECK_INT(audit(&a, "set", "    type: completion\n    data_files: data/t*-00000.jsonl\n", ""),
              FT_OK);
    CHECK_INT(a.documents, 2);
    CHECK_INT(audit(&a, "set", "    type: completion\n    data_files: [data/nosuch.jsonl]\n", ""),
              FT_EDATA);
    CHECK_INT(audit(&a, "set", "    type: completion\n    split: validation\n", ""), FT_EDATA);
    ft_status_clear();
    char entry[256];
    snprintf(entry, sizeof entry, "    type: completion\n    data_files: %s/set/data/*.jsonl\n",
             folder);
    CHECK_INT(audit_path(&a, "json", entry), FT_OK);
    CHECK_INT(a.documents, 4);
    CHECK_INT(audit_path(&a, "json", "    type: completion\n    data_files: [/nosuch.jsonl]\n"),
              FT_EDATA);
    CHECK_HAS(ft_status_report(), "there is no file '/nosuch.jsonl'");
    ft_status_clear();
    write_text("set/x.parquet", "PAR1");
    snprintf(path, sizeof path, "rm -r %s/set/data", folder);
    CHECK_INT(system(path), 0);
    CHECK_INT(audit(&a, "set", "    type: completion\n", ""), FT_EDATA);
    CHECK_HAS(ft_status_report(), "x.parquet: error: is a damaged Parquet file");
    ft_status_clear();
}

/* --- prepared files --- */

static char *prepared(const char *data, const char *entry, const char *config)
{
    struct opened o;
    struct ft_audit a;
    char *path = NULL;
    write_config(data, entry, config);
    int rc = open_config(&o, MODEL, 1);
    if (!rc)
        rc = ft_source_prepared(&path, &o.s, &o.t, &a);
    CHECK_INT(rc, FT_OK);
    close_config(&o);
    return path;
}

CASE(a_change_of_anything_that_matters_is_another_file)
{
    static const char chat[] = "    type: chat_template\n";
    fresh();
    write_text("k.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
                          "\"assistant\", \"content\": \"b\"}]}\n");
    char *first = prepared("k.jsonl", chat, "chat_template: chatml\n");
    char *others[] = {prepared("k.jsonl", chat, "chat_template: llama3\n"),
                      prepared("k.jsonl", chat, "chat_template: chatml\ntrain_on_inputs: true\n"),
                      prepared("k.jsonl", chat, "chat_template: chatml\ntrain_on_eos: none\n"),
                      prepared("k.jsonl", "    type: chat_template\n    split: train[:1]\n",
                               "chat_template: chatml\n"),
                      NULL,
                      NULL};
    char *same = prepared("k.jsonl", chat, "chat_template: chatml\nlora_r: 4\nsequence_len: 64\n");
    CHECK_TEXT(first, same);
    write_text("k.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
                          "\"assistant\", \"content\": \"c\"}]}\n");
    others[4] = prepared("k.jsonl", chat, "chat_template: chatml\n");
    for (char **p = others; *p; p++) {
        CHECK(strcmp(first, *p) != 0);
        ft_free(*p);
    }
    ft_free(first);
    ft_free(same);
}

/* Processes that begin at the same time: one builds, all get the same; a builder that dies is
 * replaced. */
CASE(of_jobs_that_start_together_one_builds)
{
    char path[256], text[64];
    pid_t pids[4];
    fresh();
    snprintf(path, sizeof path, "%s/many.jsonl", folder);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 20000; i++)
        fprintf(f, "{\"text\": \"document number %d\"}\n", i);
    fclose(f);
    write_config("many.jsonl", "    type: completion\n", "");
    fflush(stdout);
    for (int i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct opened o;
            struct ft_audit a;
            char *file = NULL;
            int rc = open_config(&o, MODEL, 1);
            if (!rc)
                rc = ft_source_prepared(&file, &o.s, &o.t, &a);
            _exit(rc ? rc : a.documents == 20000 ? 0 : 99);
        }
        if (i == 0) {
            usleep(20000); /* long enough to hold the lock, not to finish */
            kill(pids[0], SIGKILL);
        }
    }
    for (int i = 0; i < 4; i++) {
        int status;
        waitpid(pids[i], &status, 0);
        if (i > 0)
            CHECK_INT(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    }
    snprintf(path, sizeof path, "ls %s/prepared | grep -c tmp", folder);
    f = popen(path, "r");
    CHECK(fgets(text, sizeof text, f) != NULL);
    pclose(f);
    CHECK_INT(atoi(text), 0); /* what the one that was killed left is gone */
    snprintf(path, sizeof path, "rm -rf %s", folder);
    CHECK_INT(system(path), 0);
    folder[0] = 0;
}
