/* Decoders: from the tokens' strings to text. */
#include "text/internal.h"

#include "core/text.h"

#include <stdio.h>

/* Rewrites the strings one by one. */
typedef int put_fn(const struct ft_step *s, const char *p, size_t n, size_t i, size_t count,
                   struct ft_bytes *out);

static int rewrite(const struct ft_step *s, put_fn *put, struct ft_strings *p)
{
    struct ft_bytes out = {0};
    int rc = FT_OK;
    for (size_t i = 0; i < p->ranges.n && !rc; i++) {
        struct ft_range *r = &p->ranges.v[i];
        const size_t begin = out.n;
        rc = put(s, p->text.p + r->begin, r->end - r->begin, i, p->ranges.n, &out);
        *r = (struct ft_range){.begin = begin, .end = out.n};
    }
    ft_bytes_free(&p->text);
    p->text = out;
    return rc;
}

static void fuse_all(struct ft_strings *p)
{
    if (p->ranges.n)
        p->ranges.v[0] = (struct ft_range){.begin = 0, .end = p->text.n};
    p->ranges.n = p->ranges.n > 0;
}

static int fuse(const struct ft_step *s, struct ft_strings *p)
{
    (void)s;
    fuse_all(p);
    return FT_OK;
}

/* --- ByteLevel --- */

static int put_lossy(const char *p, size_t n, struct ft_bytes *out)
{
    for (size_t i = 0; i < n;) {
        size_t bad, length = ft_utf8_length(p + i, n - i, &bad);
        FT_TRY(length ? ft_bytes_add(out, p + i, length) : ft_bytes_add(out, "\xef\xbf\xbd", 3));
        i += length ? length : bad;
    }
    return FT_OK;
}

static int put_unmapped(const struct ft_step *s, const char *p, size_t n, size_t i, size_t count,
                        struct ft_bytes *out)
{
    (void)s, (void)i, (void)count;
    const size_t begin = out->n;
    for (size_t k = 0; k < n;) {
        int32_t c;
        k += (size_t)ft_code_point(p + k, &c);
        const int byte = ft_char_byte(c);
        if (byte < 0) { /* not a byte-level token: as it is */
            out->n = begin;
            return ft_bytes_add(out, p, n);
        }
        FT_TRY(ft_bytes_add(out, &(char){(char)byte}, 1));
    }
    return FT_OK;
}

static int byte_level(const struct ft_step *s, struct ft_strings *p)
{
    struct ft_bytes whole = {0};
    FT_TRY(rewrite(s, put_unmapped, p));
    int rc = put_lossy(p->text.p, p->text.n, &whole);
    ft_bytes_free(&p->text);
    p->text = whole;
    fuse_all(p);
    return rc;
}

/* --- ByteFallback --- */

/* The byte of "<0xNN>", or -1. */
static int fallback_byte(const char *p, size_t n)
{
    unsigned v;
    char digits[3] = {0};
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
        return -1;
    memcpy(digits, p + 3, 2);
    return strspn(digits, "0123456789abcdefABCDEF") == 2 && sscanf(digits, "%x", &v) == 1 ? (int)v
                                                                                          : -1;
}

/* A run of bytes: text if it is valid, else a replacement character for each. */
static int put_run(const struct ft_bytes *run, struct ft_strings *to)
{
    const size_t begin = to->text.n;
    bool valid = true;
    size_t bad;
    for (size_t i = 0; i < run->n && valid;) {
        size_t length = ft_utf8_length(run->p + i, run->n - i, &bad);
        valid = length > 0;
        i += length;
    }
    if (valid) {
        FT_TRY(ft_bytes_add(&to->text, run->p, run->n));
        return ft_ranges_add(&to->ranges, begin, to->text.n, false);
    }
    for (size_t i = 0; i < run->n; i++) {
        FT_TRY(ft_bytes_add(&to->text, "\xef\xbf\xbd", 3));
        FT_TRY(ft_ranges_add(&to->ranges, to->text.n - 3, to->text.n, false));
    }
    return FT_OK;
}

static int byte_fallback(const struct ft_step *s, struct ft_strings *p)
{
    struct ft_strings to = {{0}, {0}};
    struct ft_bytes run = {0};
    int rc = FT_OK;
    (void)s;
    for (size_t i = 0; i <= p->ranges.n && !rc; i++) {
        const bool more = i < p->ranges.n;
        const struct ft_range r = more ? p->ranges.v[i] : (struct ft_range){0};
        const char *text = more ? p->text.p + r.begin : "";
        const size_t n = r.end - r.begin;
        const int byte = more ? fallback_byte(text, n) : -1;
        if (byte >= 0) {
            rc = ft_bytes_add(&run, &(char){(char)byte}, 1);
            continue;
        }
        if (run.n)
            rc = put_run(&run, &to);
        run.n = 0;
        if (!more || rc)
            break;
        rc = ft_bytes_add(&to.text, text, n);
        if (!rc)
            rc = ft_ranges_add(&to.ranges, to.text.n - n, to.text.n, false);
    }
    ft_bytes_free(&run);
    ft_bytes_free(&p->text);
    ft_free(p->ranges.v);
    *p = to;
    return rc;
}

/* --- the others --- */

static int open_replace(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    FT_TRY(ft_pattern_open(&s->pattern, ft_json_get(spec, "pattern"), at));
    return ft_step_text(&s->text, spec, "content", NULL, at);
}

static int put_replaced(const struct ft_step *s, const char *p, size_t n, size_t i, size_t count,
                        struct ft_bytes *out)
{
    (void)i, (void)count;
    return ft_pattern_replace(s->pattern, p, n, s->text, out);
}

static int replace(const struct ft_step *s, struct ft_strings *p)
{
    return rewrite(s, put_replaced, p);
}

static int open_strip(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    FT_TRY(ft_step_text(&s->text, spec, "content", NULL, at));
    return ft_json_int(spec, at->file, "start", &s->number) &&
                   ft_json_int(spec, at->file, "stop", &s->number2)
               ? FT_OK
               : FT_EDATA;
}

static int put_stripped(const struct ft_step *s, const char *p, size_t n, size_t i, size_t count,
                        struct ft_bytes *out)
{
    const size_t length = strlen(s->text);
    (void)i, (void)count;
    for (long long k = 0; length && k < s->number && n >= length && !memcmp(p, s->text, length);
         k++) {
        p += length;
        n -= length;
    }
    for (long long k = 0;
         length && k < s->number2 && n >= length && !memcmp(p + n - length, s->text, length); k++)
        n -= length;
    return ft_bytes_add(out, p, n);
}

static int strip(const struct ft_step *s, struct ft_strings *p)
{
    return rewrite(s, put_stripped, p);
}

static int open_metaspace(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    static const char *const schemes[] = {"first", "never", "always", NULL};
    bool add = true;
    FT_TRY(ft_step_text(&s->text, spec, "replacement", "\xe2\x96\x81", at));
    if (!*s->text || s->text[ft_char_length(*s->text)])
        return ft_refuse(at, "has a 'replacement' that is not one character");
    if (!ft_json_bool(spec, at->file, "add_prefix_space", &add))
        return FT_EDATA;
    s->choice = ft_step_choice(spec, "prepend_scheme", schemes, add ? 2 : 1, at);
    return s->choice < 0 ? FT_EDATA : FT_OK;
}

static int put_metaspace(const struct ft_step *s, const char *p, size_t n, size_t i, size_t count,
                         struct ft_bytes *out)
{
    const size_t length = strlen(s->text);
    (void)count;
    for (size_t k = 0; k < n;) {
        const bool is = n - k >= length && memcmp(p + k, s->text, length) == 0;
        if (!is)
            FT_TRY(ft_bytes_add(out, p + k, 1));
        else if (i > 0 || s->choice == 1)
            FT_TRY(ft_bytes_add(out, " ", 1));
        k += is ? length : 1;
    }
    return FT_OK;
}

static int metaspace(const struct ft_step *s, struct ft_strings *p)
{
    return rewrite(s, put_metaspace, p);
}

static int open_suffix(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    return ft_step_text(&s->text, spec, "suffix", "</w>", at);
}

static int put_suffixed(const struct ft_step *s, const char *p, size_t n, size_t i, size_t count,
                        struct ft_bytes *out)
{
    const size_t length = strlen(s->text);
    for (size_t k = 0; k < n;) {
        const bool is = length && n - k >= length && memcmp(p + k, s->text, length) == 0;
        if (!is)
            FT_TRY(ft_bytes_add(out, p + k, 1));
        else if (i + 1 < count)
            FT_TRY(ft_bytes_add(out, " ", 1));
        k += is ? length : 1;
    }
    return FT_OK;
}

static int suffix(const struct ft_step *s, struct ft_strings *p)
{
    return rewrite(s, put_suffixed, p);
}

static const struct ft_step_row rows[] = {
    {.type = "ByteLevel", .decode = byte_level},
    {.type = "ByteFallback", .decode = byte_fallback},
    {.type = "Fuse", .decode = fuse},
    {.type = "Replace", .open = open_replace, .decode = replace},
    {.type = "Strip", .open = open_strip, .decode = strip},
    {.type = "Metaspace", .open = open_metaspace, .decode = metaspace},
    {.type = "BPEDecoder", .open = open_suffix, .decode = suffix},
};

int ft_decoder_open(struct ft_step **out, const json_t *spec, const struct ft_place *at)
{
    return ft_steps_open(out, spec, "decoders", rows, sizeof rows / sizeof *rows, at);
}

int ft_decode(const struct ft_step *s, struct ft_strings *p)
{
    for (; s && p->ranges.n; s = s->next)
        FT_TRY(s->row->decode(s, p));
    return FT_OK;
}
