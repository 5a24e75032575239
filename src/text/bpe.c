/* Byte-pair encoding: a word's characters are joined, pair by pair, the pair of lowest rank first.
 */
#define _GNU_SOURCE
#include "text/internal.h"

#include <stdlib.h>

enum { CACHE = 1 << 15, CACHED_BYTES = 22, CACHED_IDS = 8 };

/* A pair of ids that may be joined. */
struct merge {
    uint64_t pair; /* left << 32 | right; UINT64_MAX: free */
    int32_t rank, id;
};

/* A word and its ids, for words that come again. */
struct cached {
    uint8_t length, n; /* n 0: free */
    char word[CACHED_BYTES];
    int32_t ids[CACHED_IDS];
};

/* A symbol of the word being joined; a list, since joins remove from the middle. */
struct symbol {
    int32_t id;
    int32_t previous, next; /* -1: none */
};

/* A join that may be made: ordered by rank, then place. */
struct join {
    int32_t rank, left, id;
};

struct bpe {
    struct merge *merges;
    size_t mask;
    bool byte_fallback, fuse_unknown, ignore_merges;
    bool by_space; /* no token has a space behind something else: see may_cut_at_spaces */
    char *prefix, *suffix;
    int32_t bytes[256]; /* ids of <0xNN> */
    int32_t first[256]; /* bytes mode: ids of single bytes */
    struct cached *cache;
    struct symbol *symbols;
    struct join *heap;
    size_t room;
};

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t spread(uint64_t pair)
{
    pair *= 0x9e3779b97f4a7c15u;
    return (size_t)(pair >> 20);
}

static const struct merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    const uint64_t pair = pair_of(left, right);
    size_t i = spread(pair) & b->mask;
    for (; b->merges[i].pair != UINT64_MAX; i = (i + 1) & b->mask)
        if (b->merges[i].pair == pair)
            return &b->merges[i];
    return NULL;
}

/* --- reading --- */

static int32_t token_id(const struct ft_text_model *m, const json_t *vocab, const char *p, size_t n)
{
    if (!m->bytes) /* the same strings, in a faster table */
        return ft_vocab_get(&m->vocab, p, n);
    const json_t *id = json_object_getn(vocab, p, n);
    return json_is_integer(id) ? (int32_t)json_integer_value(id) : -1;
}

/* "a b" or ["a", "b"] */
static bool read_pair(const json_t *spec, const char **a, size_t *na, const char **b, size_t *nb)
{
    if (json_is_array(spec) && json_array_size(spec) == 2) {
        const json_t *x = json_array_get(spec, 0), *y = json_array_get(spec, 1);
        *a = json_string_value(x);
        *b = json_string_value(y);
        *na = json_string_length(x);
        *nb = json_string_length(y);
        return *a && *b;
    }
    const char *text = json_string_value(spec), *space = text ? strchr(text, ' ') : NULL;
    if (!space)
        return false;
    *a = text;
    *na = (size_t)(space - text);
    *b = space + 1;
    *nb = json_string_length(spec) - *na - 1;
    return true;
}

static int read_merges(struct ft_text_model *m, struct bpe *b, const json_t *spec,
                       const json_t *vocab, const struct ft_place *at)
{
    const json_t *list = ft_json_get(spec, "merges");
    struct ft_bytes joined = {0};
    size_t room = 64, skip = strlen(b->prefix);
    int rc = FT_OK;
    if (!json_is_array(list))
        return ft_refuse(at, "has no 'merges'");
    while (room < 2 * json_array_size(list))
        room *= 2;
    FT_TRY(ft_alloc(&b->merges, room, sizeof *b->merges));
    b->mask = room - 1;
    for (size_t i = 0; i < room; i++)
        b->merges[i].pair = UINT64_MAX;
    for (size_t r = 0; r < json_array_size(list) && !rc; r++) {
        const char *x, *y;
        size_t nx, ny;
        if (!read_pair(json_array_get(list, r), &x, &nx, &y, &ny)) {
            rc = ft_refuse(at, "has a merge %zu that is not a pair", r);
            break;
        }
        joined.n = 0;
        rc = ft_bytes_add(&joined, x, nx);
        if (!rc)
            rc = ft_bytes_add(&joined, y + (ny >= skip ? skip : 0), ny - (ny >= skip ? skip : 0));
        const int32_t left = token_id(m, vocab, x, nx), right = token_id(m, vocab, y, ny);
        const int32_t id = rc ? -1 : token_id(m, vocab, joined.p, joined.n);
        if (!rc && (left < 0 || right < 0 || id < 0))
            rc = ft_refuse(at,
                           "has a merge %zu ('%.*s', '%.*s') whose tokens are not all in the "
                           "vocabulary",
                           r, (int)nx, x, (int)ny, y);
        if (rc)
            break;
        size_t k = spread(pair_of(left, right)) & b->mask;
        while (b->merges[k].pair != UINT64_MAX && b->merges[k].pair != pair_of(left, right))
            k = (k + 1) & b->mask;
        b->merges[k] = (struct merge){pair_of(left, right), (int32_t)r, id};
    }
    ft_bytes_free(&joined);
    return rc;
}

/* The space as sentencepiece writes it. */
static const char space[] = "\xe2\x96\x81";
enum { SPACE = sizeof space - 1 };

/* Whether a text of several words may be cut before each space and joined word by word, with the
 * same ids: where no token has a space behind another character, no join reaches over that place.
 */
static bool may_cut_at_spaces(const struct ft_text_model *m, const struct bpe *b)
{
    if (m->bytes || b->ignore_merges || *b->prefix || *b->suffix ||
        ft_vocab_get(&m->vocab, space, SPACE) < 0)
        return false;
    for (int32_t i = 0; i < m->size; i++) {
        const char *token = m->tokens[i], *hit = token;
        while (hit && (hit = strstr(hit, space))) {
            if (hit > token && (hit - token < SPACE || memcmp(hit - SPACE, space, SPACE) != 0))
                return false;
            hit += SPACE;
        }
    }
    return true;
}

static int open_bpe(struct ft_text_model *m, const json_t *spec, const struct ft_place *at)
{
    const json_t *vocab = ft_json_get(spec, "vocab"), *v;
    const char *unknown = NULL, *name, *file = at->file;
    double dropout = 0;
    struct bpe *b;
    FT_TRY(ft_alloc(&b, 1, sizeof *b));
    m->state = b;
    m->unknown = -1;
    if (!ft_json_str(spec, file, "unk_token", &unknown) ||
        !ft_json_real(spec, file, "dropout", &dropout) ||
        !ft_json_bool(spec, file, "byte_fallback", &b->byte_fallback) ||
        !ft_json_bool(spec, file, "fuse_unk", &b->fuse_unknown) ||
        !ft_json_bool(spec, file, "ignore_merges", &b->ignore_merges))
        return FT_EDATA;
    if (dropout != 0)
        return ft_refuse(at, "has a 'dropout' of %g: its ids would be random", dropout);
    FT_TRY(ft_step_text(&b->prefix, spec, "continuing_subword_prefix", "", at));
    FT_TRY(ft_step_text(&b->suffix, spec, "end_of_word_suffix", "", at));
    m->prefix = b->prefix;
    m->suffix = b->suffix;
    m->bytes = m->bytes && !*b->prefix && !*b->suffix;
    if (!json_is_object(vocab))
        return ft_refuse(at, "has no 'vocab'");
    FT_TRY(ft_vocab_init(&m->vocab, json_object_size(vocab)));
    json_object_foreach((json_t *)vocab, name, v)
    {
        if (!json_is_integer(v))
            return ft_refuse(at, "gives '%s' an id that is not a number", name);
        FT_TRY(ft_text_model_token(m, name, strlen(name), json_integer_value(v), at));
    }
    FT_TRY(read_merges(m, b, spec, vocab, at));
    if (unknown && (m->unknown = token_id(m, vocab, unknown, strlen(unknown))) < 0)
        return ft_refuse(at, "has an unknown token '%s' that is not in the vocabulary", unknown);
    if (b->byte_fallback) /* tokens that are missing are -1, as in the library */
        ft_byte_tokens(m, b->bytes);
    for (int i = 0; i < 256; i++) {
        const char c = (char)i;
        b->first[i] = ft_vocab_get(&m->vocab, &c, 1);
    }
    b->by_space = may_cut_at_spaces(m, b);
    return ft_alloc(&b->cache, CACHE, sizeof *b->cache);
}

static void close_bpe(struct ft_text_model *m)
{
    struct bpe *b = m->state;
    if (!b)
        return;
    ft_free(b->merges);
    ft_free(b->prefix);
    ft_free(b->suffix);
    ft_free(b->cache);
    ft_free(b->symbols);
    ft_free(b->heap);
    ft_free(b);
}

/* --- a word's symbols --- */

struct word {
    struct bpe *b;
    int32_t n, unknown_id; /* -1: none */
    bool unknown;          /* the last symbol is the unknown token */
};

static void push(struct word *w, int32_t id)
{
    w->b->symbols[w->n] = (struct symbol){id, w->n - 1, w->n + 1};
    w->n++;
}

/* A character that is no token: its bytes, or the unknown token, or nothing. */
static void push_unknown(struct word *w, const char *p, size_t n)
{
    const struct bpe *b = w->b;
    bool all = b->byte_fallback;
    for (size_t i = 0; i < n && all; i++)
        all = b->bytes[(unsigned char)p[i]] >= 0;
    for (size_t i = 0; i < n && all; i++)
        push(w, b->bytes[(unsigned char)p[i]]);
    if (all) {
        w->unknown = false;
        return;
    }
    if (w->unknown_id >= 0 && !(b->fuse_unknown && w->unknown))
        push(w, w->unknown_id);
    w->unknown = w->unknown_id >= 0;
}

static int read_word(struct ft_text_model *m, struct word *w, const char *p, size_t n)
{
    struct bpe *b = m->state;
    struct ft_bytes key = {0};
    int rc = FT_OK;
    if (m->bytes) { /* a byte is a token, but in odd vocabularies */
        for (size_t i = 0; i < n; i++)
            if (b->first[(unsigned char)p[i]] >= 0) {
                push(w, b->first[(unsigned char)p[i]]);
                w->unknown = false;
            } else {
                push_unknown(w, NULL, 0);
            }
        return FT_OK;
    }
    for (size_t i = 0; i < n && !rc;) {
        const size_t length = (size_t)ft_char_length(p[i]);
        const bool last = i + length >= n;
        int32_t id;
        if (*b->prefix || *b->suffix) {
            key.n = 0;
            if (i > 0)
                rc = ft_bytes_add(&key, b->prefix, strlen(b->prefix));
            if (!rc)
                rc = ft_bytes_add(&key, p + i, length);
            if (!rc && last)
                rc = ft_bytes_add(&key, b->suffix, strlen(b->suffix));
            id = rc ? -1 : ft_vocab_get(&m->vocab, key.p, key.n);
        } else {
            id = ft_vocab_get(&m->vocab, p + i, length);
        }
        if (id >= 0) {
            push(w, id);
            w->unknown = false;
        } else {
            push_unknown(w, p + i, length);
        }
        i += length;
    }
    ft_bytes_free(&key);
    return rc;
}

/* --- joining --- */

static bool before(const struct join *x, const struct join *y)
{
    return x->rank != y->rank ? x->rank < y->rank : x->left < y->left;
}

static void heap_push(struct bpe *b, size_t *n, struct join j)
{
    size_t i = (*n)++;
    for (; i > 0 && before(&j, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = j;
}

static struct join heap_pop(struct bpe *b, size_t *n)
{
    const struct join top = b->heap[0], last = b->heap[--*n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *n)
            break;
        if (child + 1 < *n && before(&b->heap[child + 1], &b->heap[child]))
            child++;
        if (!before(&b->heap[child], &last))
            break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    b->heap[i] = last;
    return top;
}

static void consider(struct bpe *b, size_t *n, int32_t left)
{
    const int32_t right = b->symbols[left].next;
    if (right < 0)
        return;
    const struct merge *m = find_merge(b, b->symbols[left].id, b->symbols[right].id);
    if (m)
        heap_push(b, n, (struct join){m->rank, left, m->id});
}

static void join_all(struct word *w)
{
    struct bpe *b = w->b;
    struct symbol *s = b->symbols;
    size_t n = 0;
    if (w->n == 0)
        return;
    s[w->n - 1].next = -1;
    for (int32_t i = 0; i + 1 < w->n; i++)
        consider(b, &n, i);
    while (n > 0) {
        const struct join j = heap_pop(b, &n);
        const int32_t right = s[j.left].id < 0 ? -1 : s[j.left].next;
        const struct merge *m = right < 0 ? NULL : find_merge(b, s[j.left].id, s[right].id);
        if (!m || m->id != j.id)
            continue; /* one of the two was joined otherwise; judged as the library does */
        s[j.left].id = j.id;
        s[j.left].next = s[right].next;
        if (s[right].next >= 0)
            s[s[right].next].previous = j.left;
        s[right].id = -1;
        if (s[j.left].previous >= 0)
            consider(b, &n, s[j.left].previous);
        consider(b, &n, j.left);
    }
}

/* --- words --- */

static struct cached *cache_slot(const struct bpe *b, const char *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * 0x100000001b3u;
    return &b->cache[(h ^ h >> 31) % CACHE];
}

static int compute(struct ft_text_model *m, const char *p, size_t n, struct ft_ids *out)
{
    struct bpe *b = m->state;
    struct word w = {.b = b, .unknown_id = m->unknown};
    int32_t whole = b->ignore_merges ? ft_vocab_get(&m->vocab, p, n) : -1;
    if (whole >= 0)
        return ft_ids_add(out, whole);
    if (b->room < 4 * n + 16) {
        const size_t room = 8 * n + 256;
        FT_TRY(ft_grow(&b->symbols, room, sizeof *b->symbols));
        FT_TRY(ft_grow(&b->heap, 3 * room, sizeof *b->heap));
        b->room = room;
    }
    FT_TRY(read_word(m, &w, p, n));
    join_all(&w);
    for (int32_t i = w.n ? 0 : -1; i >= 0; i = b->symbols[i].next)
        FT_TRY(ft_ids_add(out, b->symbols[i].id));
    return FT_OK;
}

static int encode_word(struct ft_text_model *m, const char *p, size_t n, struct ft_ids *out)
{
    struct bpe *b = m->state;
    if (n > CACHED_BYTES)
        return compute(m, p, n, out);
    struct cached *c = cache_slot(b, p, n);
    if (c->n && c->length == n && memcmp(c->word, p, n) == 0) {
        for (int i = 0; i < c->n; i++)
            FT_TRY(ft_ids_add(out, c->ids[i]));
        return FT_OK;
    }
    const size_t first = out->n;
    FT_TRY(compute(m, p, n, out));
    const size_t count = out->n - first;
    if (count >= 1 && count <= CACHED_IDS) {
        c->length = (uint8_t)n;
        c->n = (uint8_t)count;
        memcpy(c->word, p, n);
        memcpy(c->ids, out->v + first, count * sizeof *c->ids);
    }
    return FT_OK;
}

static int encode_bpe(struct ft_text_model *m, const char *p, size_t n, struct ft_ids *out)
{
    const struct bpe *b = m->state;
    size_t begin = 0;
    for (size_t i = b->by_space ? SPACE : n; i + SPACE <= n;) {
        const char *hit = memmem(p + i, n - i, space, SPACE);
        if (!hit)
            break;
        const size_t at = (size_t)(hit - p);
        if (at >= begin + 1 && (at < SPACE || memcmp(hit - SPACE, space, SPACE) != 0)) {
            FT_TRY(encode_word(m, p + begin, at - begin, out));
            begin = at;
        }
        i = at + SPACE;
    }
    return begin < n ? encode_word(m, p + begin, n - begin, out) : FT_OK;
}

static int share_bpe(struct ft_text_model *m)
{
    struct bpe *b;
    FT_TRY(ft_alloc(&b, 1, sizeof *b));
    *b = *(const struct bpe *)m->state;
    b->symbols = NULL;
    b->heap = NULL;
    b->room = 0;
    m->state = b;
    return ft_alloc(&b->cache, CACHE, sizeof *b->cache);
}

static void unshare_bpe(struct ft_text_model *m)
{
    struct bpe *b = m->state;
    ft_free(b->cache);
    ft_free(b->symbols);
    ft_free(b->heap);
    ft_free(b);
}

const struct ft_model_row ft_bpe_row = {"BPE",      open_bpe,  close_bpe,
                                        encode_bpe, share_bpe, unshare_bpe};
