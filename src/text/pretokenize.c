/* Pre-tokenizers: each cuts the pieces of the one before. */
#define _GNU_SOURCE
#include "text/internal.h"

#include <limits.h>

enum behaviour { REMOVED, ISOLATED, MERGED_PREVIOUS, MERGED_NEXT, CONTIGUOUS };
static const char *const behaviours[] = {"Removed",        "Isolated",   "MergedWithPrevious",
                                         "MergedWithNext", "Contiguous", NULL};

/* What becomes of matches and what is between them: out gets the pieces, without empty ones. */
static int apply(enum behaviour how, const struct ft_range *v, size_t n, struct ft_ranges *out)
{
    const size_t first = out->n;
    bool previous = false;
    if (how == MERGED_NEXT) { /* from the end: a match joins what follows it */
        for (size_t i = n; i-- > 0; previous = v[i].match) {
            if (v[i].match && !previous && out->n > first)
                out->v[out->n - 1].begin = v[i].begin;
            else
                FT_TRY(ft_ranges_add(out, v[i].begin, v[i].end, false));
        }
        for (size_t a = first, b = out->n; a + 1 < b; a++, b--) {
            struct ft_range t = out->v[a];
            out->v[a] = out->v[b - 1];
            out->v[b - 1] = t;
        }
        return FT_OK;
    }
    for (size_t i = 0; i < n; i++) {
        const bool match = v[i].match;
        bool join = false;
        if (how == MERGED_PREVIOUS)
            join = match && !previous;
        else if (how == CONTIGUOUS)
            join = match == previous;
        previous = match;
        if (how == REMOVED && match)
            continue;
        if (join && out->n > first)
            out->v[out->n - 1].end = v[i].end;
        else
            FT_TRY(ft_ranges_add(out, v[i].begin, v[i].end, false));
    }
    return FT_OK;
}

/* Cuts every piece by find(), which gives matches and what is between them. */
typedef int find_fn(const struct ft_step *s, const char *text, size_t begin, size_t end,
                    struct ft_ranges *out);

static int cut(const struct ft_step *s, enum behaviour how, bool invert, find_fn *find,
               struct ft_pieces *p)
{
    struct ft_ranges found = {0};
    int rc = FT_OK;
    p->spare->n = 0;
    for (size_t i = 0; i < p->ranges->n && !rc; i++) {
        found.n = 0;
        rc = find(s, p->text->p, p->ranges->v[i].begin, p->ranges->v[i].end, &found);
        for (size_t k = 0; invert && k < found.n; k++)
            found.v[k].match = !found.v[k].match;
        if (!rc)
            rc = apply(how, found.v, found.n, p->spare);
    }
    ft_free(found.v);
    struct ft_ranges t = *p->ranges;
    *p->ranges = *p->spare;
    *p->spare = t;
    return rc;
}

static int find_pattern(const struct ft_step *s, const char *text, size_t begin, size_t end,
                        struct ft_ranges *out)
{
    return ft_pattern_find(s->pattern, text, begin, end, out);
}

/* Matches of one character each. */
static int find_chars(bool (*is)(int32_t), const char *text, size_t begin, size_t end,
                      struct ft_ranges *out)
{
    size_t last = begin;
    for (size_t i = begin; i < end;) {
        int32_t c;
        const size_t n = (size_t)ft_code_point(text + i, &c);
        if (is(c)) {
            if (i > last)
                FT_TRY(ft_ranges_add(out, last, i, false));
            FT_TRY(ft_ranges_add(out, i, i + n, true));
            last = i + n;
        }
        i += n;
    }
    return last < end ? ft_ranges_add(out, last, end, false) : FT_OK;
}

static int find_digits(const struct ft_step *s, const char *text, size_t begin, size_t end,
                       struct ft_ranges *out)
{
    (void)s;
    return find_chars(ft_is_numeric, text, begin, end, out);
}

static int find_punctuation(const struct ft_step *s, const char *text, size_t begin, size_t end,
                            struct ft_ranges *out)
{
    (void)s;
    return find_chars(ft_is_punctuation, text, begin, end, out);
}

static int find_space(const struct ft_step *s, const char *text, size_t begin, size_t end,
                      struct ft_ranges *out)
{
    (void)s;
    return find_chars(ft_is_space, text, begin, end, out);
}

/* Writes the pieces anew; put() writes one, and knows whether it is the first of the whole text.
 * Places in out are the piece's own. */
typedef int put_fn(const struct ft_step *s, const char *p, size_t n, bool first,
                   struct ft_bytes *out);

static int rewrite(const struct ft_step *s, put_fn *put, struct ft_pieces *p)
{
    struct ft_bytes *out = p->spare_text;
    out->n = 0;
    out->track = p->text->track;
    for (size_t i = 0; i < p->ranges->n; i++) {
        struct ft_range *r = &p->ranges->v[i];
        const size_t begin = out->n;
        out->at = 0;
        FT_TRY(put(s, p->text->p + r->begin, r->end - r->begin, p->first && i == 0, out));
        for (size_t k = begin; out->track && k < out->n; k++)
            out->from[k] += (uint32_t)r->begin;
        *r = (struct ft_range){.begin = begin, .end = out->n};
    }
    ft_bytes_follow(p->text, out);
    return FT_OK;
}

/* --- ByteLevel --- */

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static int open_byte_level(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    bool use_regex = true;
    s->flag = true; /* add_prefix_space */
    if (!ft_json_bool(spec, at->file, "add_prefix_space", &s->flag) ||
        !ft_json_bool(spec, at->file, "use_regex", &use_regex))
        return FT_EDATA;
    return use_regex ? ft_pattern_regex(&s->pattern, gpt2_pattern, at) : FT_OK;
}

static int put_with_space(const struct ft_step *s, const char *p, size_t n, bool first,
                          struct ft_bytes *out)
{
    (void)s, (void)first;
    if (n && p[0] != ' ')
        FT_TRY(ft_bytes_add(out, " ", 1));
    return ft_bytes_keep(out, p, n, 0);
}

static int put_bytes(const struct ft_step *s, const char *p, size_t n, bool first,
                     struct ft_bytes *out)
{
    (void)s, (void)first;
    for (size_t i = 0; i < n; i++) {
        char text[4];
        out->at = i;
        FT_TRY(
            ft_bytes_add(out, text, (size_t)ft_put_code_point(text, ft_byte_char((uint8_t)p[i]))));
    }
    return FT_OK;
}

/* flag2: the model works on bytes, nothing is mapped. */
static int byte_level(const struct ft_step *s, struct ft_pieces *p)
{
    if (s->flag)
        FT_TRY(rewrite(s, put_with_space, p));
    if (s->pattern)
        FT_TRY(cut(s, ISOLATED, false, find_pattern, p));
    return s->flag2 ? FT_OK : rewrite(s, put_bytes, p);
}

/* --- Metaspace --- */

enum scheme { FIRST, NEVER, ALWAYS };

static int open_metaspace(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    static const char *const schemes[] = {"first", "never", "always", NULL};
    bool add = true;
    s->flag = true; /* split */
    FT_TRY(ft_step_text(&s->text, spec, "replacement", "\xe2\x96\x81", at));
    if (!*s->text || s->text[ft_char_length(*s->text)])
        return ft_refuse(at, "has a 'replacement' that is not one character");
    if (!ft_json_bool(spec, at->file, "add_prefix_space", &add) ||
        !ft_json_bool(spec, at->file, "split", &s->flag))
        return FT_EDATA;
    s->choice = ft_step_choice(spec, "prepend_scheme", schemes, add ? ALWAYS : NEVER, at);
    return s->choice < 0 ? FT_EDATA : FT_OK;
}

static int put_metaspace(const struct ft_step *s, const char *p, size_t n, bool first,
                         struct ft_bytes *out)
{
    const size_t length = strlen(s->text);
    const bool has = n && (p[0] == ' ' || (n >= length && memcmp(p, s->text, length) == 0));
    if (!has && (s->choice == ALWAYS || (s->choice == FIRST && first)))
        FT_TRY(ft_bytes_add(out, s->text, length));
    for (size_t i = 0; i < n; i++) {
        out->at = i;
        FT_TRY(p[i] == ' ' ? ft_bytes_add(out, s->text, length) : ft_bytes_add(out, p + i, 1));
    }
    return FT_OK;
}

static int find_text(const struct ft_step *s, const char *text, size_t begin, size_t end,
                     struct ft_ranges *out)
{
    const size_t length = strlen(s->text);
    size_t last = begin;
    while (last < end) {
        const char *hit = memmem(text + last, end - last, s->text, length);
        if (!hit)
            break;
        const size_t at = (size_t)(hit - text);
        if (at > last)
            FT_TRY(ft_ranges_add(out, last, at, false));
        FT_TRY(ft_ranges_add(out, at, at + length, true));
        last = at + length;
    }
    return last < end ? ft_ranges_add(out, last, end, false) : FT_OK;
}

static int metaspace(const struct ft_step *s, struct ft_pieces *p)
{
    FT_TRY(rewrite(s, put_metaspace, p));
    return s->flag ? cut(s, MERGED_NEXT, false, find_text, p) : FT_OK;
}

/* --- the others --- */

static int open_split(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    s->choice = ft_step_choice(spec, "behavior", behaviours, -1, at);
    if (s->choice < 0 || !ft_json_bool(spec, at->file, "invert", &s->flag))
        return FT_EDATA;
    return ft_pattern_open(&s->pattern, ft_json_get(spec, "pattern"), at);
}

static int split(const struct ft_step *s, struct ft_pieces *p)
{
    return cut(s, (enum behaviour)s->choice, s->flag, find_pattern, p);
}

static int open_digits(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    return ft_json_bool(spec, at->file, "individual_digits", &s->flag) ? FT_OK : FT_EDATA;
}

static int digits(const struct ft_step *s, struct ft_pieces *p)
{
    return cut(s, s->flag ? ISOLATED : CONTIGUOUS, false, find_digits, p);
}

static int open_punctuation(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    s->choice = ft_step_choice(spec, "behavior", behaviours, ISOLATED, at);
    return s->choice < 0 ? FT_EDATA : FT_OK;
}

static int punctuation(const struct ft_step *s, struct ft_pieces *p)
{
    return cut(s, (enum behaviour)s->choice, false, find_punctuation, p);
}

static int whitespace_split(const struct ft_step *s, struct ft_pieces *p)
{
    return cut(s, REMOVED, false, find_space, p);
}

static int open_whitespace(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    (void)spec;
    return ft_pattern_regex(&s->pattern, "[" FT_WORD "]+|[^" FT_WORD "\\p{White_Space}]+", at);
}

static int whitespace(const struct ft_step *s, struct ft_pieces *p)
{
    return cut(s, REMOVED, true, find_pattern, p);
}

static const struct ft_step_row rows[] = {
    {.type = "ByteLevel", .open = open_byte_level, .pretokenize = byte_level},
    {.type = "Split", .open = open_split, .pretokenize = split},
    {.type = "Metaspace", .open = open_metaspace, .pretokenize = metaspace},
    {.type = "Digits", .open = open_digits, .pretokenize = digits},
    {.type = "Punctuation", .open = open_punctuation, .pretokenize = punctuation},
    {.type = "Whitespace", .open = open_whitespace, .pretokenize = whitespace},
    {.type = "WhitespaceSplit", .pretokenize = whitespace_split},
};

int ft_pretokenizer_open(struct ft_step **out, const json_t *spec, const struct ft_place *at)
{
    return ft_steps_open(out, spec, "pretokenizers", rows, sizeof rows / sizeof *rows, at);
}

bool ft_pretokenizer_is_bytes(struct ft_step *s)
{
    while (s && s->next)
        s = s->next;
    if (!s || s->row->pretokenize != byte_level)
        return false;
    s->flag2 = true;
    return true;
}

int ft_pretokenize(const struct ft_step *s, struct ft_pieces *p)
{
    p->ranges->n = 0;
    if (p->text->n == 0)
        return FT_OK;
    FT_TRY(ft_ranges_add(p->ranges, 0, p->text->n, false));
    for (; s; s = s->next)
        FT_TRY(s->row->pretokenize(s, p));
    return FT_OK;
}
