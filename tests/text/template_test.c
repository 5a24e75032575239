/* Chat templates against what transformers renders (scripts/make-golden-templates). */
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "tests/check.h"
#include "text/chat.h"
#include "jinja/template.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void one_case(const json_t *c, json_t *context)
{
    const char *source = json_string_value(json_object_get(c, "template"));
    const char *want = json_string_value(json_object_get(c, "text"));
    const json_t *marks = json_object_get(c, "marks");
    struct ft_template *t;
    struct ft_rendered r = {0};
    json_object_set(context, "add_generation_prompt", json_object_get(c, "prompt"));
    int rc = ft_template_open(&t, source, "golden");
    if (!rc)
        rc = ft_template_render(t, context, 0, &r);
    if (rc) {
        check_fail(source, rc, "%s", ft_status_report());
        ft_status_clear();
    } else if (strcmp(r.text, want) != 0) {
        check_fail(source, 0, "rendered '%s', expected '%s'", r.text, want);
    } else {
        CHECK_INT(r.n_marks, json_array_size(marks));
        for (size_t i = 0; i < r.n_marks; i++) {
            const json_t *m = json_array_get(marks, i);
            CHECK_INT(r.marks[i].begin, json_integer_value(json_array_get(m, 0)));
            CHECK_INT(r.marks[i].end, json_integer_value(json_array_get(m, 1)));
        }
    }
    ft_rendered_free(&r);
    ft_template_close(t);
}

CASE(templates_render_as_transformers_does)
{
    json_t *root = read_json(FT_ROOT "/tests/text/templates.json"),
           *context = json_object_get(root, "context");
    const json_t *cases = json_object_get(root, "cases");
    CHECK(json_array_size(cases) >= 40);
    for (size_t i = 0; i < json_array_size(cases); i++)
        one_case(json_array_get(cases, i), context);
    json_decref(root);
}

CASE(what_jinja_refuses_is_refused)
{
    json_t *root = read_json(FT_ROOT "/tests/text/templates.json");
    const json_t *list = json_object_get(root, "refused");
    CHECK(json_array_size(list) >= 10);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *source = json_string_value(json_array_get(list, i));
        struct ft_template *t = NULL;
        struct ft_rendered r = {0};
        int rc = ft_template_open(&t, source, "refused");
        if (!rc)
            rc = ft_template_render(t, json_object_get(root, "context"), 0, &r);
        if (rc != FT_EDATA || !strstr(ft_status_report(), "refused:1:"))
            check_fail(source, rc, "was not refused with its place: %s", ft_status_report());
        ft_rendered_free(&r);
        ft_template_close(t);
        ft_status_clear();
    }
    json_decref(root);
}

/* Special tokens that a folder does not name are those of its tokenizer's class. */
CASE(classes_have_special_tokens)
{
    static const struct {
        const char *config, *model, *bos, *eos, *pad;
    } rows[] = {
        {"{\"tokenizer_class\": \"GPT2TokenizerFast\"}", "{}", "<|endoftext|>", "<|endoftext|>",
         NULL},
        {"{\"model_max_length\": 1024}", "{\"model_type\": \"gpt2\"}", "<|endoftext|>",
         "<|endoftext|>", NULL},
        {"{\"tokenizer_class\": \"Qwen2Tokenizer\", \"eos_token\": \"<|im_end|>\", \"pad_token\": "
         "null}",
         "{}", NULL, "<|im_end|>", NULL},
        {"{\"tokenizer_class\": \"GemmaTokenizer\", \"eos_token\": {\"content\": \"<e>\"}}", "{}",
         "<bos>", "<e>", "<pad>"},
        {"{\"tokenizer_class\": \"PreTrainedTokenizerFast\"}", "{\"model_type\": \"gpt2\"}", NULL,
         NULL, NULL},
        {"{}", "{\"model_type\": \"llama\"}", NULL, NULL, NULL},
        {"{\"tokenizer_class\": \"LlamaTokenizerFaster\"}", "{}", NULL, NULL, NULL}};
    char folder[] = "/tmp/ft-classes-XXXXXX", path[256];
    CHECK(mkdtemp(folder) != NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *tokens = NULL;
        snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
        CHECK_INT(ft_file_write(path, rows[i].config, strlen(rows[i].config)), FT_OK);
        snprintf(path, sizeof path, "%s/config.json", folder);
        CHECK_INT(ft_file_write(path, rows[i].model, strlen(rows[i].model)), FT_OK);
        CHECK_INT(ft_special_tokens(&tokens, folder), FT_OK);
        const char *const got[] = {json_string_value(json_object_get(tokens, "bos_token")),
                                   json_string_value(json_object_get(tokens, "eos_token")),
                                   json_string_value(json_object_get(tokens, "pad_token"))};
        const char *const want[] = {rows[i].bos, rows[i].eos, rows[i].pad};
        for (int k = 0; k < 3; k++)
            if (!got[k] != !want[k] || (want[k] && strcmp(got[k], want[k]) != 0))
                check_fail(rows[i].config, k, "is %s, expected %s", got[k] ? got[k] : "none",
                           want[k] ? want[k] : "none");
        json_decref(tokens);
    }
    snprintf(path, sizeof path, "rm -r %s", folder);
    CHECK_INT(system(path), 0);
}

/* A template's file must be UTF-8: the byte that is not is named. */
CASE(a_template_file_is_text)
{
    char path[] = "/tmp/ft-template-XXXXXX", *text = NULL;
    CHECK(mkstemp(path) >= 0);
    CHECK_INT(ft_file_write(path, "a\nb\xff", 4), FT_OK);
    CHECK_INT(ft_chat_template_file(&text, path), FT_EDATA);
    CHECK_HAS(ft_status_report(), ":2:2: error: the byte 0xff is not UTF-8 text");
    ft_status_clear();
    CHECK_INT(ft_file_write(path, "a\0b", 3), FT_OK);
    CHECK_INT(ft_chat_template_file(&text, path), FT_EDATA);
    CHECK_HAS(ft_status_report(), ":1:2: error: the byte 0x00");
    ft_status_clear();
    CHECK_INT(ft_file_write(path, "\xc3\xa9", 2), FT_OK);
    CHECK_INT(ft_chat_template_file(&text, path), FT_OK);
    CHECK_TEXT(text, "\xc3\xa9");
    ft_free(text);
    unlink(path);
}

CASE(damaged_templates_never_crash)
{
    json_t *root = read_json(FT_ROOT "/tests/text/templates.json"),
           *context = json_object_get(root, "context");
    const json_t *cases = json_object_get(root, "cases");
    uint32_t state = 7;
    for (int i = 0; i < 3000; i++) {
        const json_t *c = json_array_get(cases, (size_t)i % json_array_size(cases));
        char *source = ft_strdup(json_string_value(json_object_get(c, "template")));
        struct ft_template *t = NULL;
        struct ft_rendered r = {0};
        const size_t n = strlen(source);
        for (int k = 0; k < 2; k++) {
            state = state * 1664525u + 1013904223u;
            char *at = &source[(state >> 8) % n];
            if ((unsigned char)*at < 0x80) /* keep it UTF-8 */
                *at = "{}%#()[]|.,:~-+*/'\" =nax0"[state % 26];
        }
        if (ft_template_open(&t, source, "damaged") == FT_OK)
            ft_template_render(t, context, 0, &r);
        ft_rendered_free(&r);
        ft_template_close(t);
        ft_free(source);
        ft_status_clear();
    }
    json_decref(root);
}
