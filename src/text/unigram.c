/* Unigram: the way to cut a text into tokens whose scores add up to the most (Kudo 2018,
 * arXiv 1804.10959), by dynamic programming over byte positions. */
#include "text/internal.h"

#include <stdio.h>
#include <stdlib.h>

struct best {
    double score;
    size_t begin;
    int32_t id; /* -1: nothing ends here yet */
};

struct unigram {
    double *scores, unknown_score;
    struct ft_trie *trie;
    bool byte_fallback;
    int32_t bytes[256];
    struct best *best;
    size_t room;
};

static const double unknown_penalty = 10;

/* A score as the library reads it: its JSON parser takes the digits as a whole number and divides
 * by a power of ten, which may be off by the last bit. Cuts of equal score are decided by such
 * bits. */
static double as_the_library_reads(double v)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    char text[64];
    uint64_t digits = 0;
    int exponent = 0;
    bool fraction = false;
    for (int precision = 15; precision <= 17; precision++) { /* the shortest that gives v */
        snprintf(text, sizeof text, "%.*e", precision - 1, v);
        if (strtod(text, NULL) == v)
            break;
    }
    char *e = strchr(text, 'e'), *end = e;
    if (!e)
        return v;
    while (end > text && end[-1] == '0')
        end--; /* zeros at the end are not written */
    for (const char *p = text; p < end; p++) {
        if (*p == '.')
            fraction = true;
        if (*p < '0' || *p > '9')
            continue;
        digits = digits * 10 + (uint64_t)(*p - '0');
        exponent -= fraction;
    }
    exponent += atoi(e + 1);
    if (exponent > 22 || exponent < -22)
        return v;
    double f = (double)digits;
    f = exponent >= 0 ? f * tens[exponent] : f / tens[-exponent];
    return v < 0 ? -f : f;
}

static int read_vocab(struct ft_text_model *m, struct unigram *u, const json_t *vocab,
                      const struct ft_place *at)
{
    const size_t n = json_array_size(vocab);
    size_t bytes = 0;
    double least = 0;
    FT_TRY(ft_vocab_init(&m->vocab, n));
    FT_TRY(ft_alloc(&u->scores, n, sizeof *u->scores));
    for (size_t i = 0; i < n; i++)
        bytes += json_string_length(json_array_get(json_array_get(vocab, i), 0));
    FT_TRY(ft_trie_new(&u->trie, bytes));
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(vocab, i), *token = json_array_get(pair, 0);
        const json_t *score = json_array_get(pair, 1);
        if (!json_is_string(token) || !json_is_number(score))
            return ft_refuse(at, "has an entry %zu that is not a token and its score", i);
        const char *text = json_string_value(token);
        const size_t length = json_string_length(token);
        FT_TRY(ft_text_model_token(m, text, length, (int64_t)i, at));
        u->scores[i] = json_is_real(score) ? as_the_library_reads(json_real_value(score))
                                           : json_number_value(score);
        least = i == 0 || u->scores[i] < least ? u->scores[i] : least;
        if (length)
            FT_TRY(ft_trie_put(u->trie, text, length, (int32_t)i));
    }
    u->unknown_score = least - unknown_penalty;
    return FT_OK;
}

static int open_unigram(struct ft_text_model *m, const json_t *spec, const struct ft_place *at)
{
    const json_t *vocab = ft_json_get(spec, "vocab");
    long long unknown = -1;
    struct unigram *u;
    m->bytes = false; /* it works on mapped characters as they are */
    FT_TRY(ft_alloc(&u, 1, sizeof *u));
    m->state = u;
    if (!json_is_array(vocab) || json_array_size(vocab) == 0)
        return ft_refuse(at, "has no 'vocab' of tokens and scores");
    FT_TRY(read_vocab(m, u, vocab, at));
    if (!ft_json_int(spec, at->file, "unk_id", &unknown) ||
        !ft_json_bool(spec, at->file, "byte_fallback", &u->byte_fallback))
        return FT_EDATA;
    if (unknown >= (long long)json_array_size(vocab))
        return ft_refuse(at, "has an 'unk_id' of %lld, beyond its vocabulary", unknown);
    m->unknown = unknown < 0 ? -1 : (int32_t)unknown;
    if (u->byte_fallback) /* tokens that are missing are -1 */
        ft_byte_tokens(m, u->bytes);
    return FT_OK;
}

static void close_unigram(struct ft_text_model *m)
{
    struct unigram *u = m->state;
    if (!u)
        return;
    ft_trie_free(u->trie);
    ft_free(u->scores);
    ft_free(u->best);
    ft_free(u);
}

static void offer(struct best *to, double score, size_t begin, int32_t id)
{
    if (to->id < 0 || score > to->score)
        *to = (struct best){score, begin, id};
}

/* The unknown stretch p[0, n): its bytes, or one unknown token. */
static int put_unknown(const struct ft_text_model *m, const char *p, size_t n, struct ft_ids *out)
{
    const struct unigram *u = m->state;
    bool all = u->byte_fallback;
    for (size_t i = 0; i < n && all; i++)
        all = u->bytes[(unsigned char)p[i]] >= 0;
    if (!all)
        return ft_ids_add(out, m->unknown);
    for (size_t i = 0; i < n; i++)
        FT_TRY(ft_ids_add(out, u->bytes[(unsigned char)p[i]]));
    return FT_OK;
}

static int encode_unigram(struct ft_text_model *m, const char *p, size_t n, struct ft_ids *out)
{
    struct unigram *u = m->state;
    if (u->room < n + 1) {
        FT_TRY(ft_grow(&u->best, 2 * n + 64, sizeof *u->best));
        u->room = 2 * n + 64;
    }
    struct best *best = u->best;
    best[0] = (struct best){0, 0, 0};
    for (size_t i = 1; i <= n; i++)
        best[i].id = -1;
    for (size_t at = 0; at < n; at += (size_t)ft_char_length(p[at])) {
        const size_t one = (size_t)ft_char_length(p[at]);
        bool single = false;
        int32_t node = 0;
        for (size_t i = at; i < n; i++) {
            node = ft_trie_step(u->trie, node, (unsigned char)p[i]);
            if (node < 0)
                break;
            const int32_t id = ft_trie_value(u->trie, node);
            if (id < 0)
                continue;
            offer(&best[i + 1], best[at].score + u->scores[id], at, id);
            single |= i + 1 - at == one;
        }
        if (single)
            continue;
        if (m->unknown < 0)
            return ft_fail(FT_EDATA, "the tokenizer has no token for '%.*s' and no unknown token",
                           (int)one, p + at);
        offer(&best[at + one], best[at].score + u->unknown_score, at, m->unknown);
    }
    /* back to front, turned around: begins of the tokens in best[].begin's chain */
    size_t count = 0;
    for (size_t at = n; at > 0; at = best[at].begin)
        count++;
    size_t *ends;
    FT_TRY(ft_alloc(&ends, count + 1, sizeof *ends));
    size_t k = count;
    for (size_t at = n; at > 0; at = best[at].begin)
        ends[--k] = at;
    int rc = FT_OK;
    for (size_t i = 0; i < count && !rc;) {
        const size_t begin = best[ends[i]].begin;
        if (best[ends[i]].id != m->unknown) {
            rc = ft_ids_add(out, best[ends[i++]].id);
            continue;
        }
        while (i + 1 < count && best[ends[i + 1]].id == m->unknown)
            i++; /* neighbours are one unknown */
        rc = put_unknown(m, p + begin, ends[i] - begin, out);
        i++;
    }
    ft_free(ends);
    return rc;
}

static int share_unigram(struct ft_text_model *m)
{
    struct unigram *u;
    FT_TRY(ft_alloc(&u, 1, sizeof *u));
    *u = *(const struct unigram *)m->state;
    u->best = NULL;
    u->room = 0;
    m->state = u;
    return FT_OK;
}

static void unshare_unigram(struct ft_text_model *m)
{
    struct unigram *u = m->state;
    ft_free(u->best);
    ft_free(u);
}

const struct ft_model_row ft_unigram_row = {"Unigram",      open_unigram,  close_unigram,
                                            encode_unigram, share_unigram, unshare_unigram};
