/* ft tokenize */
#include "cli/cli.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "io/hub.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

struct options {
    bool special, raw, decode;
};

static void print_ids(const struct ft_ids *ids)
{
    printf("{\"input_ids\": [");
    for (size_t i = 0; i < ids->n; i++)
        printf("%s%d", i ? ", " : "", ids->v[i]);
    printf("]}\n");
}

static int encode_line(struct ft_tokenizer *t, const struct options *o, const char *text,
                       size_t length, const struct ft_where *at)
{
    struct ft_ids ids = {0};
    json_t *record = NULL, *value = NULL;
    int rc = FT_OK;
    if (!o->raw) {
        rc = ft_json_record(text, length, *at, FT_EDATA, &record);
        value = json_object_get(record, "text");
        if (!rc && !json_is_string(value))
            rc = ft_fail_at(*at, FT_EDATA, "has no 'text'");
        text = json_string_value(value);
        length = json_string_length(value);
    }
    if (!rc)
        rc = ft_tokenizer_encode(t, text, length, o->special, &ids);
    if (!rc)
        print_ids(&ids);
    ft_ids_free(&ids);
    json_decref(record);
    return rc;
}

static int decode_line(struct ft_tokenizer *t, const struct options *o, const char *line, size_t n,
                       const struct ft_where *at)
{
    json_t *record = NULL, *list;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t length = 0;
    int rc = ft_json_record(line, n, *at, FT_EDATA, &record);
    list = json_is_array(record) ? record : json_object_get(record, "input_ids");
    if (!rc && !json_is_array(list))
        rc = ft_fail_at(*at, FT_EDATA, "has no 'input_ids'");
    if (!rc)
        rc = ft_alloc(&ids, json_array_size(list) + 1, sizeof *ids);
    for (size_t i = 0; i < json_array_size(list) && !rc; i++) {
        const json_int_t id = json_integer_value(json_array_get(list, i));
        ids[i] = (int32_t)id;
        if (!json_is_integer(json_array_get(list, i)) || id < 0 || id >= ft_tokenizer_size(t))
            rc = ft_fail_at(*at, FT_EDATA, "input_ids[%zu] is no id of this tokenizer", i);
    }
    if (!rc)
        rc = ft_tokenizer_decode(t, ids, json_array_size(list), !o->special, &text, &length);
    if (!rc) {
        json_t *out = json_pack("{ss%}", "text", text, length);
        char *dumped = json_dumps(out, JSON_COMPACT);
        printf("%s\n", dumped ? dumped : "");
        free(dumped);
        json_decref(out);
    }
    ft_free(text);
    ft_free(ids);
    json_decref(record);
    return rc;
}

/* The ill-formed byte of a line, or -1: the tokenizer wants UTF-8. */
static long ill_formed(const char *p, size_t n)
{
    json_t *probe = json_stringn(p, n);
    long bad = probe ? -1 : 0;
    json_decref(probe);
    return bad;
}

static int run_lines(struct ft_tokenizer *t, const struct options *o, FILE *f, const char *name)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = FT_OK;
    for (int number = 1; !rc && (n = getline(&line, &room, f)) >= 0; number++) {
        const struct ft_where at = {.file = name, .line = number};
        if (n > 0 && line[n - 1] == '\n')
            n--;
        if (n == 0 && !o->raw)
            continue;
        if (o->raw && ill_formed(line, (size_t)n) >= 0)
            rc = ft_fail_at(at, FT_EDATA, "is not valid UTF-8");
        else
            rc = o->decode ? decode_line(t, o, line, (size_t)n, &at)
                           : encode_line(t, o, line, (size_t)n, &at);
    }
    free(line);
    return rc;
}

/* MODEL: a folder, an id in the local cache, or a tokenizer.json itself. */
static int open_tokenizer(struct ft_tokenizer **t, const char *model)
{
    char *folder = NULL, *path = NULL;
    bool cached;
    if (ft_file_exists(model) && !ft_is_folder(model))
        return ft_tokenizer_open(t, model);
    int rc = ft_hub_model(&folder, &cached, model, NULL);
    if (!rc && !(path = ft_path_join(folder, "tokenizer.json")))
        rc = FT_ERESOURCE;
    if (!rc)
        rc = ft_tokenizer_open(t, path);
    ft_free(folder);
    ft_free(path);
    return rc;
}

int ft_cmd_tokenize(const struct ft_command *self, int n, char **words)
{
    struct options o = {.special = !ft_take_flag(&n, words, "--no-special-tokens")};
    struct ft_tokenizer *t = NULL;
    o.raw = ft_take_flag(&n, words, "--raw");
    o.decode = ft_take_flag(&n, words, "--decode");
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n < 1 || n > 2) {
        ft_fail(FT_ECONFIG, "'ft tokenize' needs a model, and at most one file");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    const bool from_stdin = n < 2 || strcmp(words[1], "-") == 0;
    FT_TRY(open_tokenizer(&t, words[0]));
    FILE *f = from_stdin ? stdin : fopen(words[1], "re");
    int rc =
        f ? FT_OK : ft_fail_at((struct ft_where){.file = words[1]}, FT_EDATA, "cannot be read");
    if (!rc)
        rc = run_lines(t, &o, f, from_stdin ? "stdin" : words[1]);
    if (f && !from_stdin)
        fclose(f);
    ft_tokenizer_close(t);
    return rc;
}
