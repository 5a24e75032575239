/* Tokenizers against ids and text that Hugging Face's tokenizers gave (scripts/make-golden-text),
 * and what is refused. */
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "tests/check.h"
#include "text/tokenizer.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool same_ids(const json_t *want, const struct ft_ids *got)
{
    if (json_array_size(want) != got->n)
        return false;
    for (size_t i = 0; i < got->n; i++)
        if (json_integer_value(json_array_get(want, i)) != got->v[i])
            return false;
    return true;
}

static void check_ids(struct ft_tokenizer *t, const char *name, size_t i, const json_t *doc,
                      const json_t *want, bool special)
{
    struct ft_ids ids = {0};
    int rc = ft_tokenizer_encode(t, json_string_value(doc), json_string_length(doc), special, &ids,
                                 NULL);
    if (rc || !same_ids(want, &ids))
        check_fail(name, (int)i, "ids differ (special %d, exit %d): '%s'", special, rc,
                   json_string_value(doc));
    ft_ids_free(&ids);
}

static size_t characters(const char *text, size_t bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

/* want: begin and end of each token in characters, by turns. A byte within a character stands for
 * all of it. */
static void check_places(struct ft_tokenizer *t, const char *name, size_t i, const json_t *doc,
                         const json_t *want)
{
    struct ft_ids ids = {0};
    struct ft_spans spans = {0};
    const char *text = json_string_value(doc);
    const size_t length = json_string_length(doc);
    CHECK_INT(ft_tokenizer_encode(t, text, length, false, &ids, &spans), FT_OK);
    CHECK_INT(spans.n, ids.n);
    CHECK_INT(spans.n, json_array_size(want) / 2);
    for (size_t k = 0; k < spans.n && 2 * k + 1 < json_array_size(want); k++) {
        size_t begin = spans.v[k].begin, end = spans.v[k].end;
        while (begin < length && ((unsigned char)text[begin] & 0xc0) == 0x80)
            begin--;
        const long long from = json_integer_value(json_array_get(want, 2 * k));
        const long long to = json_integer_value(json_array_get(want, 2 * k + 1));
        if ((long long)characters(text, begin) != from || (long long)characters(text, end) != to)
            check_fail(name, (int)i, "token %zu stands for %zu to %zu, expected %lld to %lld", k,
                       characters(text, begin), characters(text, end), from, to);
    }
    ft_ids_free(&ids);
    ft_spans_free(&spans);
}

static void check_text(struct ft_tokenizer *t, const char *name, size_t i, const json_t *list,
                       const json_t *want, bool skip)
{
    int32_t ids[4096];
    char *text;
    size_t n = json_array_size(list), length;
    FT_ASSERT(n <= 4096);
    for (size_t k = 0; k < n; k++)
        ids[k] = (int32_t)json_integer_value(json_array_get(list, k));
    CHECK_INT(ft_tokenizer_decode(t, ids, n, skip, &text, &length), FT_OK);
    if (length != json_string_length(want) || memcmp(text, json_string_value(want), length) != 0)
        check_fail(name, (int)i, "decoded text differs: '%s', expected '%s'", text,
                   json_string_value(want));
    ft_free(text);
}

static json_t *read_golden(const char *path)
{
    char *text;
    size_t n;
    json_t *root = NULL;
    if (ft_file_read(path, 1 << 26, FT_EDATA, &text, &n))
        return NULL;
    ft_json_record(text, n, (struct ft_where){.file = path}, FT_EDATA, &root);
    ft_free(text);
    return root;
}

static void one_tokenizer(const char *name)
{
    char path[512];
    struct ft_tokenizer *t;
    snprintf(path, sizeof path, FT_ROOT "/tests/text/golden/%s.json", name);
    json_t *root = read_golden(path);
    snprintf(path, sizeof path, FT_ROOT "/tests/text/golden/%s.tokenizer.json", name);
    if (!root || ft_tokenizer_open(&t, path)) {
        check_fail(name, 0, "%s", ft_status_report());
        json_decref(root);
        return;
    }
    const json_t *docs = json_object_get(root, "docs"), *ids = json_object_get(root, "ids");
    const json_t *plain = json_object_get(root, "plain"), *text = json_object_get(root, "text");
    const json_t *skipped = json_object_get(root, "skipped");
    CHECK(json_array_size(docs) >= 100);
    for (size_t i = 0; i < json_array_size(docs); i++) {
        const json_t *doc = json_array_get(docs, i), *with = json_array_get(ids, i);
        const json_t *without = json_array_get(plain, i);
        check_ids(t, name, i, doc, with, true);
        check_ids(t, name, i, doc, json_is_null(without) ? with : without, false);
        check_text(t, name, i, with, json_array_get(text, i), false);
        check_text(t, name, i, with, json_array_get(skipped, i), true);
        if (json_object_get(root, "offsets"))
            check_places(t, name, i, doc, json_array_get(json_object_get(root, "offsets"), i));
    }
    ft_tokenizer_close(t);
    json_decref(root);
}

CASE(every_part_gives_the_librarys_ids_and_text)
{
    struct dirent **list;
    int n = scandir(FT_ROOT "/tests/text/golden", &list, NULL, alphasort), tokenizers = 0;
    for (int i = 0; i < n; i++) {
        char *end = strstr(list[i]->d_name, ".tokenizer.json");
        if (end) {
            *end = 0;
            one_tokenizer(list[i]->d_name);
            tokenizers++;
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    CHECK(tokenizers >= 13);
}

/* A folder with the case's files beside tokenizer.json. */
static void write_folder(const char *folder, const json_t *files)
{
    const char *name;
    json_t *value;
    char path[256], *text;
    size_t n;
    CHECK_INT(
        ft_file_read(FT_ROOT "/tests/data/bytes/tokenizer.json", 1 << 26, FT_EDATA, &text, &n),
        FT_OK);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    CHECK_INT(ft_file_write(path, text, n), FT_OK);
    ft_free(text);
    json_object_foreach((json_t *)(uintptr_t)files, name, value)
    {
        snprintf(path, sizeof path, "%s/%s", folder, name);
        text = json_dumps(value, 0);
        CHECK_INT(ft_file_write(path, text, strlen(text)), FT_OK);
        free(text);
    }
}

static void empty_folder(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "added_tokens.json", "special_tokens_map.json"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
}

CASE(tokens_that_stand_beside_tokenizer_json)
{
    char folder[] = "/tmp/ft-beside-XXXXXX", name[32];
    json_t *root = read_golden(FT_ROOT "/tests/text/beside.json");
    const json_t *cases = json_object_get(root, "cases"), *texts = json_object_get(root, "texts");
    CHECK(mkdtemp(folder) != NULL && json_array_size(cases) >= 100);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i), *ids = json_object_get(one, "ids");
        struct ft_tokenizer *t;
        write_folder(folder, json_object_get(one, "files"));
        snprintf(name, sizeof name, "case %zu", i);
        const int rc = ft_tokenizer_open_folder(&t, folder, NULL);
        if (rc != (json_is_null(ids) ? FT_EDATA : FT_OK))
            check_fail(name, rc, "%s", ft_status_report());
        for (size_t k = 0; !rc && k < json_array_size(ids); k++)
            check_ids(t, name, k, json_array_get(texts, k), json_array_get(ids, k), false);
        if (json_is_null(ids))
            CHECK_HAS(ft_status_report(), "beside tokenizer.json");
        ft_tokenizer_close(t);
        ft_status_clear();
        empty_folder(folder);
    }
    rmdir(folder);
    json_decref(root);
}

/* What a tokenizer.json of this text is told. */
static void expect_refusal(const char *json, const char *part)
{
    char path[] = "/tmp/ft-tokenizer-XXXXXX";
    struct ft_tokenizer *t;
    int fd = mkstemp(path);
    FT_ASSERT(fd >= 0 && write(fd, json, strlen(json)) == (ssize_t)strlen(json));
    close(fd);
    CHECK_INT(ft_tokenizer_open(&t, path), FT_EDATA);
    CHECK_HAS(ft_status_report(), part);
    ft_status_clear();
    unlink(path);
}

#define BPE "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": []}"

CASE(what_is_not_known_is_refused_by_its_place)
{
    expect_refusal("[]", "is not a JSON object");
    expect_refusal("{}", "'model' is missing");
    expect_refusal("{\"model\": {\"type\": \"WordPiece\"}}", "'model' is a 'WordPiece'");
    expect_refusal("{" BPE ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": "
                   "[{\"type\": \"NFC\"}, {\"type\": \"Magic\"}]}}",
                   "'normalizer.normalizers.1' is a 'Magic'");
    expect_refusal("{" BPE ", \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", "
                   "\"pattern\": {\"Regex\": \"(\"}}}",
                   "'pre_tokenizer' has a pattern that is not a regular expression");
    expect_refusal("{" BPE ", \"decoder\": {\"type\": \"Strip\"}}", "has no text 'content'");
    expect_refusal("{" BPE ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
                   "[{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": {\"id\": \"A\"}}], "
                   "\"special_tokens\": {}}}",
                   "names the token '<s>' without ids");
    expect_refusal("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}",
                   "whose tokens are not all in the vocabulary");
    expect_refusal("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -4}, \"merges\": []}}",
                   "the id -4");
    expect_refusal("{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {\"a\": 0}, "
                   "\"merges\": []}}",
                   "its ids would be random");
    expect_refusal("{" BPE ", \"added_tokens\": [{\"content\": \"x\"}]}", "entry 0");
    expect_refusal("{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "'vocab' of tokens");
}

CASE(damaged_files_never_crash)
{
    char *text;
    size_t n;
    uint32_t state = 1;
    FT_ASSERT(ft_file_read(FT_ROOT "/tests/text/golden/unigram-first.tokenizer.json", 1 << 26,
                           FT_EDATA, &text, &n) == FT_OK);
    for (int i = 0; i < 60; i++) {
        char path[] = "/tmp/ft-tokenizer-XXXXXX", *copy;
        struct ft_tokenizer *t;
        int fd = mkstemp(path);
        FT_ASSERT(ft_alloc(&copy, n, 1) == FT_OK);
        memcpy(copy, text, n);
        for (int k = 0; k < 3; k++) {
            state = state * 1664525u + 1013904223u;
            copy[state % (i % 2 ? n : 2000)] = "0123\"{}[],:x"[state >> 28 & 11];
        }
        FT_ASSERT(fd >= 0 && write(fd, copy, n) == (ssize_t)n);
        close(fd);
        if (ft_tokenizer_open(&t, path) == FT_OK) {
            struct ft_ids ids = {0};
            ft_tokenizer_encode(t, "some text <mid> 12", 18, true, &ids, NULL);
            ft_ids_free(&ids);
            ft_tokenizer_close(t);
        }
        ft_status_clear();
        unlink(path);
        ft_free(copy);
    }
    ft_free(text);
}
