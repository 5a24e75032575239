/* Rebuilds tokenizer.json from GGUF's metadata: byte-level BPE ("gpt2") by its named pre-tokenizer,
 * and SentencePiece's BPE ("llama"), whose merges follow from its scores as transformers derives
 * them. */
#include "text/gguf.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WORDS  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define BEHIND "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CASED(first, then)                                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]" first                             \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]" then "|"

/* tokenizer.ggml.pre: how text is cut before merges, and whether whole words are looked up first.
 */
static const struct pre {
    const char *names;  /* with spaces around each */
    const char *before; /* what is cut out first */
    const char *regex;  /* NULL: GPT-2's own */
    const char *after;  /* what is cut out of its pieces */
    bool digits;        /* each for itself, first of all */
    bool ignore_merges, nfc, bos;
} pres[] = {
    {.names = " gpt-2 olmo mpt phi-2 "},
    {.names = " llama-bpe llama3 llama-v3 dbrx smaug-bpe falcon3 pixtral ",
     .regex = WORDS "\\p{N}{1,3}" BEHIND,
     .ignore_merges = true,
     .bos = true},
    {.names = " qwen2 qwen3 deepseek-r1-qwen megrez ", .regex = WORDS "\\p{N}" BEHIND, .nfc = true},
    {.names = " smollm starcoder refact codeshell ", .digits = true},
    {.names = " command-r ", .digits = true, .nfc = true, .bos = true},
    {.names = " chatglm-bpe ", .regex = WORDS "\\p{N}{1,3}" BEHIND},
    {.names = " glm4 ", .regex = WORDS "\\p{N}{1,3}" BEHIND, .ignore_merges = true},
    {.names = " tekken ",
     .regex =
         CASED("*", "+") CASED("+", "*") "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|"
                                         "\\s+(?!\\S)|\\s+",
     .ignore_merges = true,
     .bos = true},
    {.names = " seed-coder ",
     .regex = WORDS "\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    {.names = " falcon ", .before = "[\\p{P}\\$\\+<=>\\^~\\|`]+", .after = "[0-9][0-9][0-9]"},
};

static struct ft_where at(const char *path)
{
    return (struct ft_where){.file = path};
}

static const json_t *get(const json_t *metadata, const char *key)
{
    return json_object_get(metadata, key);
}

static const struct pre *find_pre(const char *name)
{
    char spaced[64];
    snprintf(spaced, sizeof spaced, " %s ", name ? name : "?");
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        if (strstr(pres[i].names, spaced))
            return &pres[i];
    return NULL;
}

/* {token: id}, and the tokens that are found in text as they stand. */
static int put_vocabulary(const json_t *metadata, const char *path, json_t *vocab, json_t *added)
{
    enum { UNKNOWN = 2, CONTROL = 3, USER = 4 };
    const json_t *tokens = get(metadata, "tokenizer.ggml.tokens");
    const json_t *types = get(metadata, "tokenizer.ggml.token_type");
    size_t i;
    json_t *token;
    if (!json_is_array(tokens) || json_array_size(tokens) == 0)
        return ft_fail_at(at(path), FT_EDATA, "has no 'tokenizer.ggml.tokens'");
    json_array_foreach((json_t *)(uintptr_t)tokens, i, token)
    {
        const char *text = json_string_value(token);
        const json_int_t type = json_integer_value(json_array_get(types, i));
        if (!text)
            return ft_fail_at(at(path), FT_EDATA, "'tokenizer.ggml.tokens': %zu is no text", i);
        if (json_object_get(vocab, text))
            continue; /* filled up with copies */
        json_object_set_new(vocab, text, json_integer((json_int_t)i));
        if (type == CONTROL || type == USER || type == UNKNOWN)
            json_array_append_new(added, json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id",
                                                   (json_int_t)i, "content", text, "single_word", 0,
                                                   "lstrip", 0, "rstrip", 0, "normalized", 0,
                                                   "special", type != USER));
    }
    return FT_OK;
}

/* --- SentencePiece --- */

struct merge {
    const char *whole;
    size_t left; /* bytes of the left piece */
    double score;
    int left_id, right_id;
    int left_length, right_length; /* characters */
    size_t order;
};

static int by_ids(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    return x->left_id != y->left_id ? (x->left_id > y->left_id) - (x->left_id < y->left_id)
                                    : (x->right_id > y->right_id) - (x->right_id < y->right_id);
}

/* From the best on; those alike in the order that they were found in. */
static int by_score(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    if (x->left_length != y->left_length)
        return x->left_length < y->left_length ? 1 : -1;
    if (x->right_length != y->right_length)
        return x->right_length < y->right_length ? 1 : -1;
    return (x->order > y->order) - (x->order < y->order);
}

struct merges {
    struct merge *v;
    size_t n, room;
};

static int count_characters(const char *text, size_t n)
{
    int count = 0;
    for (size_t i = 0; i < n; i++)
        count += (text[i] & 0xc0) != 0x80;
    return count;
}

/* Every way to put a token together from two. */
static int add_merges(struct merges *m, const json_t *vocab, const char *token, double score)
{
    const size_t n = strlen(token), first = m->n;
    char piece[256];
    if (n >= sizeof piece)
        return FT_OK;
    for (size_t i = 1; i < n; i++) {
        if ((token[i] & 0xc0) == 0x80)
            continue;
        memcpy(piece, token, i);
        piece[i] = 0;
        const json_t *left = json_object_get(vocab, piece),
                     *right = json_object_get(vocab, token + i);
        if (!left || !right)
            continue;
        if (m->n == m->room) {
            m->room = m->room ? 2 * m->room : 4096;
            FT_TRY(ft_grow(&m->v, m->room, sizeof *m->v));
        }
        m->v[m->n++] = (struct merge){.whole = token,
                                      .left = i,
                                      .score = score,
                                      .left_id = (int)json_integer_value(left),
                                      .right_id = (int)json_integer_value(right),
                                      .left_length = count_characters(token, i),
                                      .right_length = count_characters(token + i, n - i)};
    }
    if (m->n > first)
        qsort(m->v + first, m->n - first, sizeof *m->v, by_ids);
    for (size_t i = first; i < m->n; i++)
        m->v[i].order = i;
    return FT_OK;
}

static int derive_merges(const json_t *metadata, const char *path, const json_t *vocab, json_t *out)
{
    const json_t *tokens = get(metadata, "tokenizer.ggml.tokens");
    const json_t *scores = get(metadata, "tokenizer.ggml.scores");
    struct merges m = {0};
    int rc = FT_OK;
    if (json_array_size(scores) != json_array_size(tokens))
        return ft_fail_at(at(path), FT_EDATA, "'tokenizer.ggml.scores' are not as many as tokens");
    for (size_t i = 0; i < json_array_size(tokens) && !rc; i++)
        rc = add_merges(&m, vocab, json_string_value(json_array_get(tokens, i)),
                        json_number_value(json_array_get(scores, i)));
    if (!rc && m.n)
        qsort(m.v, m.n, sizeof *m.v, by_score);
    for (size_t i = 0; i < m.n && !rc; i++)
        json_array_append_new(
            out, json_pack("[s#, s]", m.v[i].whole, (int)m.v[i].left, m.v[i].whole + m.v[i].left));
    ft_free(m.v);
    return rc;
}

static const char *token_of(const json_t *metadata, const char *key)
{
    const json_t *id = get(metadata, key), *tokens = get(metadata, "tokenizer.ggml.tokens");
    return id ? json_string_value(json_array_get(tokens, (size_t)json_integer_value(id))) : NULL;
}

static json_t *spm(const json_t *metadata, json_t *vocab, json_t *merges)
{
    const json_t *prefix = get(metadata, "tokenizer.ggml.add_space_prefix");
    const char *unknown = token_of(metadata, "tokenizer.ggml.unknown_token_id");
    json_t *replace = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ",
                                "content", "\xe2\x96\x81");
    json_t *steps = json_array();
    if (!json_is_false(prefix))
        json_array_append_new(
            steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", "\xe2\x96\x81"));
    json_array_append_new(steps, replace);
    json_t *decoders =
        json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                  "\xe2\x96\x81", "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (!json_is_false(prefix))
        json_array_append_new(decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                  "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:{s:s, s:o}, s:n, s:{s:s, s:o}, s:{s:s, s:s?, s:b, s:b, s:O, s:O}}",
                     "normalizer", "type", "Sequence", "normalizers", steps, "pre_tokenizer",
                     "decoder", "type", "Sequence", "decoders", decoders, "model", "type", "BPE",
                     "unk_token", unknown, "fuse_unk", 1, "byte_fallback", 1, "vocab", vocab,
                     "merges", merges);
}

/* --- byte-level BPE --- */

static json_t *byte_level(bool regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 0, "use_regex", regex);
}

static void put_split(json_t *steps, const char *regex)
{
    if (regex)
        json_array_append_new(steps,
                              json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
                                        "Regex", regex, "behavior", "Isolated", "invert", 0));
}

static json_t *steps_of(const struct pre *pre)
{
    json_t *steps = json_array();
    if (pre->digits)
        json_array_append_new(steps,
                              json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
    put_split(steps, pre->before);
    put_split(steps, pre->regex);
    json_array_append_new(steps, byte_level(!pre->regex));
    put_split(steps, pre->after);
    return steps;
}

static json_t *bpe(const json_t *metadata, const struct pre *pre, json_t *vocab)
{
    json_t *normalizer = pre->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    return json_pack("{s:o, s:{s:s, s:o}, s:o, s:{s:s, s:b, s:b, s:O, s:O}}", "normalizer",
                     normalizer, "pre_tokenizer", "type", "Sequence", "pretokenizers",
                     steps_of(pre), "decoder", byte_level(true), "model", "type", "BPE",
                     "ignore_merges", pre->ignore_merges, "byte_fallback", 0, "vocab", vocab,
                     "merges", get(metadata, "tokenizer.ggml.merges"));
}

/* --- both --- */

static void put_ends(const json_t *metadata, json_t *tokenizer, json_t *config, bool bos)
{
    static const char *const named[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                           {"eos_token", "tokenizer.ggml.eos_token_id"},
                                           {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                           {"pad_token", "tokenizer.ggml.padding_token_id"}};
    const json_t *add = get(metadata, "tokenizer.ggml.add_bos_token");
    const char *begin = token_of(metadata, named[0][1]);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (token_of(metadata, named[i][1]))
            json_object_set_new(config, named[i][0], json_string(token_of(metadata, named[i][1])));
    if (get(metadata, "tokenizer.chat_template"))
        json_object_set(config, "chat_template",
                        (json_t *)(uintptr_t)get(metadata, "tokenizer.chat_template"));
    json_t *single = json_pack("[{s:{s:s, s:i}}]", "Sequence", "id", "A", "type_id", 0);
    json_t *special = json_object();
    if (begin && (add ? json_is_true(add) : bos)) {
        json_array_insert_new(
            single, 0, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", begin, "type_id", 0));
        json_object_set_new(special, begin,
                            json_pack("{s:s, s:[I], s:[s]}", "id", begin, "ids",
                                      json_integer_value(get(metadata, named[0][1])), "tokens",
                                      begin));
    }
    json_object_set_new(tokenizer, "post_processor",
                        json_pack("{s:s, s:o, s:[], s:o}", "type", "TemplateProcessing", "single",
                                  single, "pair", "special_tokens", special));
}

static int refuse(const char *path, const char *key, const char *is)
{
    ft_fail_at(at(path), FT_EDATA, "'%s' is '%s': ft cannot rebuild this tokenizer", key,
               is ? is : "(missing)");
    ft_hint("tokenize the data with the original model's folder ('ft data'), and train on that");
    return FT_EDATA;
}

int ft_gguf_tokenizer(const json_t *metadata, const char *path, json_t **tokenizer, json_t **config)
{
    const char *model = json_string_value(get(metadata, "tokenizer.ggml.model"));
    const char *name = json_string_value(get(metadata, "tokenizer.ggml.pre"));
    const bool is_spm = model && strcmp(model, "llama") == 0;
    const struct pre *pre = find_pre(name);
    const unsigned since = ft_alloc_failures();
    *tokenizer = *config = NULL;
    if (!is_spm && (!model || strcmp(model, "gpt2") != 0))
        return refuse(path, "tokenizer.ggml.model", model);
    if (!is_spm && !pre)
        return refuse(path, "tokenizer.ggml.pre", name);
    if (!is_spm && !json_is_array(get(metadata, "tokenizer.ggml.merges")))
        return refuse(path, "tokenizer.ggml.merges", NULL);
    json_t *vocab = json_object(), *added = json_array(), *merges = json_array();
    int rc = put_vocabulary(metadata, path, vocab, added);
    if (!rc && is_spm)
        rc = derive_merges(metadata, path, vocab, merges);
    if (!rc) {
        *tokenizer = is_spm ? spm(metadata, vocab, merges) : bpe(metadata, pre, vocab);
        *config = json_object();
        json_object_set_new(*tokenizer, "version", json_string("1.0"));
        json_object_set(*tokenizer, "added_tokens", added);
        put_ends(metadata, *tokenizer, *config, is_spm || pre->bos);
        rc = ft_alloc_check(since);
    }
    json_decref(vocab);
    json_decref(added);
    json_decref(merges);
    if (rc) {
        json_decref(*tokenizer);
        json_decref(*config);
        *tokenizer = *config = NULL;
    }
    return rc;
}

/* --- the other way --- */

/* The steps of a pre-tokenizer as one text, to compare by what they do. */
static void describe_steps(const json_t *p, char *out, size_t room)
{
    const char *type = json_string_value(json_object_get(p, "type"));
    const json_t *list = json_object_get(p, "pretokenizers");
    const size_t at = strlen(out);
    for (size_t i = 0; i < json_array_size(list); i++)
        describe_steps(json_array_get(list, i), out, room);
    if (!type || list)
        return;
    const char *regex = json_string_value(json_object_get(json_object_get(p, "pattern"), "Regex"));
    const bool flag =
        json_is_true(json_object_get(p, "individual_digits")) ||
        (strcmp(type, "ByteLevel") == 0 && !json_is_false(json_object_get(p, "use_regex")));
    const char *behavior = json_string_value(json_object_get(p, "behavior"));
    const bool other = (behavior && strcmp(behavior, "Isolated") != 0) ||
                       json_is_true(json_object_get(p, "invert")) ||
                       json_is_true(json_object_get(p, "add_prefix_space")) ||
                       (json_object_get(p, "pattern") && !regex);
    snprintf(out + at, room - at, "%s(%s%s)%s", type, regex ? regex : "", flag ? "+" : "",
             other ? "?" : ""); /* which no row has */
}

/* What it does to the text first: "", or the type of its one step. */
static const char *normalizer_of(const json_t *tokenizer)
{
    const json_t *n = json_object_get(tokenizer, "normalizer");
    const json_t *list = json_object_get(n, "normalizers");
    if (list && json_array_size(list) < 2)
        n = json_array_get(list, 0);
    const char *type = json_string_value(json_object_get(n, "type"));
    return type ? type : "";
}

/* The row whose tokenizer cuts text as this one does. */
static const struct pre *find_like(const json_t *tokenizer)
{
    char own[2048] = "", row[2048];
    const bool merges =
        json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges"));
    describe_steps(json_object_get(tokenizer, "pre_tokenizer"), own, sizeof own);
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        json_t *like = json_pack("{s:o}", "pretokenizers", steps_of(&pres[i]));
        row[0] = 0;
        describe_steps(like, row, sizeof row);
        json_decref(like);
        if (strcmp(row, own) == 0 && pres[i].ignore_merges == merges &&
            strcmp(normalizer_of(tokenizer), pres[i].nfc ? "NFC" : "") == 0)
            return &pres[i];
    }
    return NULL;
}

/* "a b" for each, whether they are lists or texts. */
static json_t *list_merges(const json_t *tokenizer)
{
    const json_t *merges = json_object_get(json_object_get(tokenizer, "model"), "merges");
    json_t *out = json_array(), *m;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)merges, i, m)
    {
        if (json_is_string(m))
            json_array_append(out, m);
        else
            json_array_append_new(out,
                                  json_sprintf("%s %s", json_string_value(json_array_get(m, 0)),
                                               json_string_value(json_array_get(m, 1))));
    }
    return out;
}

/* --- SentencePiece --- */

static bool is_step(const json_t *step, const char *type, const char *member, const char *value)
{
    const char *is = json_string_value(json_object_get(step, "type"));
    const json_t *v = json_object_get(step, member);
    const json_t *text = json_is_object(v) ? json_object_get(v, "String") : v;
    return is && strcmp(is, type) == 0 &&
           (!value || (json_is_string(text) && strcmp(json_string_value(text), value) == 0));
}

/* Spaces become U+2581, *prefix: one is put before the text, and nothing else is done to it: in the
 * normalizer, or by Metaspace. false: it is another tokenizer. */
static bool is_sentencepiece(const json_t *tokenizer, bool *prefix)
{
    static const char space[] = "\xe2\x96\x81";
    const json_t *model = json_object_get(tokenizer, "model"),
                 *normalizer = json_object_get(tokenizer, "normalizer"),
                 *cut = json_object_get(tokenizer, "pre_tokenizer"),
                 *steps = json_object_get(normalizer, "normalizers");
    const char *scheme = json_string_value(json_object_get(cut, "prepend_scheme"));
    size_t at = 0;
    *prefix = false;
    if (!is_step(model, "BPE", "type", NULL) ||
        !json_is_true(json_object_get(model, "byte_fallback")))
        return false;
    if (is_step(cut, "Metaspace", "replacement", space) && json_is_null(normalizer)) {
        *prefix = scheme ? strcmp(scheme, "never") != 0
                         : !json_is_false(json_object_get(cut, "add_prefix_space"));
        return true;
    }
    if (!json_is_null(cut) && !is_step(cut, "Split", "pattern", " "))
        return false; /* Gemma's cuts at spaces, of which none are left */
    if (!steps)
        return is_step(normalizer, "Replace", "pattern", " ") &&
               is_step(normalizer, "Replace", "content", space);
    *prefix = is_step(json_array_get(steps, at), "Prepend", "prepend", space);
    at += *prefix;
    return json_array_size(steps) == at + 1 &&
           is_step(json_array_get(steps, at), "Replace", "pattern", " ") &&
           is_step(json_array_get(steps, at), "Replace", "content", space);
}

/* A token's score is the place of the first merge that makes it, from the best on; those that no
 * merge makes are never looked for. */
static json_t *list_scores(const json_t *tokenizer, int64_t vocab)
{
    const json_t *model = json_object_get(tokenizer, "model"),
                 *ids = json_object_get(model, "vocab");
    json_t *merges = list_merges(tokenizer), *scores = json_array(), *m;
    char whole[512];
    size_t i;
    const double last = -(double)json_array_size(merges) - 1;
    for (int64_t k = 0; k < vocab; k++)
        json_array_append_new(scores, json_real(last));
    json_array_foreach(merges, i, m)
    {
        const char *pair = json_string_value(m), *gap = pair ? strchr(pair, ' ') : NULL;
        if (!gap || strlen(pair) >= sizeof whole)
            continue;
        snprintf(whole, sizeof whole, "%.*s%s", (int)(gap - pair), pair, gap + 1);
        const json_t *id = json_object_get(ids, whole);
        const size_t at = (size_t)json_integer_value(id);
        if (id && json_real_value(json_array_get(scores, at)) == last)
            json_array_set_new(scores, at, json_real(-(double)i));
    }
    json_decref(merges);
    return scores;
}

/* What SentencePiece knows besides: bytes, and the unknown one. */
static void mark_types(const json_t *tokenizer, const json_t *tokens, json_t *types)
{
    enum { UNKNOWN = 2, BYTE = 6 };
    const char *unknown =
        json_string_value(json_object_get(json_object_get(tokenizer, "model"), "unk_token"));
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const char *text = json_string_value(json_array_get(tokens, i));
        unsigned byte;
        char end;
        if (text && strlen(text) == 6 && sscanf(text, "<0x%2X%c", &byte, &end) == 2 && end == '>')
            json_array_set_new(types, i, json_integer(BYTE));
        else if (text && unknown && strcmp(text, unknown) == 0)
            json_array_set_new(types, i, json_integer(UNKNOWN));
    }
}

/* Tokens by their ids, and what each is; gaps are filled up. false: one is beyond the model's. */
static bool list_tokens(const json_t *tokenizer, int64_t vocab, json_t *tokens, json_t *types)
{
    enum { NORMAL = 1, CONTROL = 3, USER = 4, UNUSED = 5 };
    const char *text;
    json_t *id, *t;
    size_t i;
    bool fit = true;
    for (int64_t k = 0; k < vocab; k++) {
        char name[32];
        snprintf(name, sizeof name, "[PAD%lld]", (long long)k);
        json_array_append_new(tokens, json_string(name));
        json_array_append_new(types, json_integer(UNUSED));
    }
    json_object_foreach(json_object_get(json_object_get(tokenizer, "model"), "vocab"), text, id)
    {
        const size_t at = (size_t)json_integer_value(id);
        fit = fit && at < (size_t)vocab;
        json_array_set_new(tokens, at, json_string(text));
        json_array_set_new(types, at, json_integer(NORMAL));
    }
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, t)
    {
        const size_t at = (size_t)json_integer_value(json_object_get(t, "id"));
        const bool special = json_is_true(json_object_get(t, "special"));
        fit = fit && at < (size_t)vocab;
        json_array_set(tokens, at, json_object_get(t, "content"));
        json_array_set_new(types, at, json_integer(special ? CONTROL : USER));
    }
    return fit;
}

/* The id of a special token; NULL: it is none of the tokenizer's. */
static const json_t *id_of(const json_t *tokenizer, const char *token)
{
    const json_t *added = json_object_get(tokenizer, "added_tokens");
    for (size_t k = 0; token && k < json_array_size(added); k++) {
        const json_t *t = json_array_get(added, k);
        const char *content = json_string_value(json_object_get(t, "content"));
        if (content && strcmp(content, token) == 0)
            return json_object_get(t, "id");
    }
    return token ? json_object_get(json_object_get(json_object_get(tokenizer, "model"), "vocab"),
                                   token)
                 : NULL;
}

int ft_gguf_from_tokenizer(json_t **out, const char *path, const json_t *tokenizer,
                           const json_t *special, const char *template, bool begins, int64_t vocab)
{
    static const char *const named[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                           {"eos_token", "tokenizer.ggml.eos_token_id"},
                                           {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                           {"pad_token", "tokenizer.ggml.padding_token_id"}};
    const unsigned since = ft_alloc_failures();
    bool prefix;
    const bool spm = is_sentencepiece(tokenizer, &prefix);
    const struct pre *pre = spm ? NULL : find_like(tokenizer);
    char name[32] = "default";
    if (!spm && !pre) {
        ft_fail_at(at(path), FT_EDATA,
                   "cuts text in a way that ft knows no name of llama.cpp's for");
        ft_hint("llama.cpp's convert_hf_to_gguf.py reads what 'ft merge' writes");
        return FT_EDATA;
    }
    if (pre)
        sscanf(pre->names, " %31s", name);
    json_t *o = json_object(), *tokens = json_array(), *types = json_array();
    const bool fit = list_tokens(tokenizer, vocab, tokens, types);
    json_object_set_new(o, "tokenizer.ggml.model", json_string(spm ? "llama" : "gpt2"));
    json_object_set_new(o, "tokenizer.ggml.pre", json_string(name));
    json_object_set_new(o, "tokenizer.ggml.tokens", tokens);
    json_object_set_new(o, "tokenizer.ggml.token_type", types);
    if (spm) {
        mark_types(tokenizer, tokens, types);
        json_object_set_new(o, "tokenizer.ggml.scores", list_scores(tokenizer, vocab));
        json_object_set_new(o, "tokenizer.ggml.add_space_prefix", json_boolean(prefix));
    } else {
        json_object_set_new(o, "tokenizer.ggml.merges", list_merges(tokenizer));
    }
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        const json_t *id =
            id_of(tokenizer, json_string_value(json_object_get(special, named[i][0])));
        if (id)
            json_object_set(o, named[i][1], (json_t *)(uintptr_t)id);
    }
    if (template)
        json_object_set_new(o, "tokenizer.chat_template", json_string(template));
    json_object_set_new(o, "tokenizer.ggml.add_bos_token", json_boolean(begins));
    int rc = ft_alloc_check(since);
    if (!rc && !fit)
        rc = ft_fail_at(at(path), FT_EDATA, "has tokens beyond the %lld of the model",
                        (long long)vocab);
    if (rc) {
        json_decref(o);
        o = NULL;
    }
    *out = o;
    return rc;
}
