/* How a tokenizer that is rebuilt from a GGUF file cuts text, by tokenizer.ggml.pre: its vocabulary
 * joins everything that lies in one piece. */
#include "text/gguf.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "tests/check.h"
#include "text/tokenizer.h"

#include <string.h>
#include <unistd.h>

/* What a space is in a byte-level vocabulary. */
static const char *const space = "\xc4\xa0";

static void put_bytes(char *out, const char *text, size_t n)
{
    *out = 0;
    for (size_t i = 0; i < n; i++)
        if (text[i] == ' ')
            strcat(out, space);
        else
            strncat(out, text + i, 1);
}

/* Every part of the text is a token, and comes of each two parts that it has. */
static json_t *metadata_of(const char *pre, const char *text)
{
    json_t *tokens = json_array(), *types = json_array(), *merges = json_array();
    const size_t n = strlen(text);
    char whole[256], left[256], right[256], pair[512];
    for (size_t length = 1; length <= n; length++)
        for (size_t from = 0; from + length <= n; from++) {
            put_bytes(whole, text + from, length);
            json_array_append_new(tokens, json_string(whole));
            json_array_append_new(types, json_integer(1));
            for (size_t cut = 1; cut < length; cut++) {
                put_bytes(left, text + from, cut);
                put_bytes(right, text + from + cut, length - cut);
                snprintf(pair, sizeof pair, "%s %s", left, right);
                json_array_append_new(merges, json_string(pair));
            }
        }
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "tokenizer.ggml.model", "gpt2",
                     "tokenizer.ggml.pre", pre, "tokenizer.ggml.tokens", tokens,
                     "tokenizer.ggml.token_type", types, "tokenizer.ggml.merges", merges);
}

static struct ft_tokenizer *open_tokenizer(const json_t *metadata)
{
    char path[] = "/tmp/ft-gguf-XXXXXX";
    const int fd = mkstemp(path);
    json_t *tokenizer = NULL, *config = NULL;
    struct ft_tokenizer *t = NULL;
    CHECK_INT(ft_gguf_tokenizer(metadata, "model.gguf", &tokenizer, &config), FT_OK);
    CHECK(fd >= 0 && tokenizer && json_dumpfd(tokenizer, fd, 0) == 0);
    CHECK_INT(ft_tokenizer_open(&t, path), FT_OK);
    json_decref(tokenizer);
    json_decref(config);
    close(fd);
    unlink(path);
    return t;
}

static void check_pieces(const char *pre, const char *text, const char *want)
{
    json_t *metadata = metadata_of(pre, text);
    struct ft_tokenizer *t = open_tokenizer(metadata);
    const json_t *tokens = json_object_get(metadata, "tokenizer.ggml.tokens");
    struct ft_ids ids = {0};
    char got[512] = "", spaced[512] = "";
    CHECK(t && ft_tokenizer_encode(t, text, strlen(text), false, &ids, NULL) == FT_OK);
    for (size_t i = 0; i < ids.n; i++) {
        strcat(got, i ? "|" : "");
        strcat(got, json_string_value(json_array_get(tokens, (size_t)ids.v[i])));
    }
    put_bytes(spaced, want, strlen(want));
    if (strcmp(got, spaced) != 0)
        check_fail(pre, 0, "is cut into %s, expected %s", got, spaced);
    ft_ids_free(&ids);
    ft_tokenizer_close(t);
    json_decref(metadata);
}

CASE(text_is_cut_as_the_file_says)
{
    static const char text[] = "Ab'LL go 12345 a$=b./";
    check_pieces("gpt-2", text, "Ab|'|LL| go| 12345| a|$=|b|./");
    check_pieces("llama-bpe", text, "Ab|'LL| go| |123|45| a|$=|b|./");
    check_pieces("glm4", text, "Ab|'LL| go| |123|45| a|$=|b|./");
    check_pieces("chatglm-bpe", text, "Ab|'LL| go| |123|45| a|$=|b|./");
    check_pieces("qwen2", text, "Ab|'LL| go| |1|2|3|4|5| a|$=|b|./");
    check_pieces("seed-coder", text, "Ab|'LL| go| |1|2|3|4|5| a|$=|b|./");
    check_pieces("smollm", text, "Ab|'|LL| go| |1|2|3|4|5| a|$=|b|./");
    check_pieces("tekken", "aBcd'LL 12 e./f", "a|Bcd|'LL| |1|2| e|./|f");
    check_pieces("falcon", text, "Ab|'|LL| go| |123|45| a|$=|b|./");
}
