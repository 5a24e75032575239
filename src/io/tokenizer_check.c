/* Owns the check of a tokenizer's ids against the embedding. */
#include "io/tokenizer_check.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

struct beyond {
    int count;
    char text[256]; /* the first few, "'<tok>' 5, ..." */
};

static void note(struct beyond *b, const char *token, long long id)
{
    token = token ? token : "?";
    size_t at = strlen(b->text);
    if (b->count++ < 4 && at < sizeof b->text - 1)
        snprintf(b->text + at, sizeof b->text - at, "%s'%s' %lld", at ? ", " : "", token, id);
}

/* BPE and WordPiece list their vocabulary by token, Unigram by position. */
static void check_vocabulary(const json_t *model, int64_t rows, struct beyond *b)
{
    const json_t *vocab = ft_json_get(model, "vocab");
    const char *token;
    json_t *id;
    if (json_is_array(vocab)) {
        for (size_t i = (size_t)rows; i < json_array_size(vocab); i++)
            note(b, json_string_value(json_array_get(json_array_get(vocab, i), 0)), (long long)i);
        return;
    }
    json_object_foreach((json_t *)vocab, token, id) if (json_integer_value(id) >= rows)
        note(b, token, json_integer_value(id));
}

int ft_tokenizer_check(const char *folder, int64_t rows)
{
    char *path = ft_path_join(folder, "tokenizer.json");
    struct beyond b = {0};
    json_t *root = NULL, *t;
    size_t i;
    if (!path)
        return FT_ERESOURCE;
    int rc = ft_file_exists(path) ? ft_json_file(path, FT_EDATA, &root) : FT_OK;
    if (!rc && root) {
        check_vocabulary(ft_json_get(root, "model"), rows, &b);
        json_array_foreach((json_t *)ft_json_get(root, "added_tokens"), i, t)
        {
            long long id = json_integer_value(json_object_get(t, "id"));
            if (id >= rows)
                note(&b, json_string_value(json_object_get(t, "content")), id);
        }
    }
    if (!rc && b.count)
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                        "%d token ids lie beyond the model's %lld embedding rows: %s%s", b.count,
                        (long long)rows, b.text, b.count > 4 ? ", ..." : "");
    json_decref(root);
    malloc_trim(0); /* a vocabulary's tree is large, and the heap would keep it */
    ft_free(path);
    return rc;
}
