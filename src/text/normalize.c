/* Normalizers. */
#include "text/internal.h"

#include "core/mem.h"

#include <stdlib.h>
#include <utf8proc.h>

/* --- Unicode normal forms --- */

static int open_form(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    static const struct {
        const char *type;
        int options;
    } forms[] = {{"NFC", UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    (void)spec, (void)at;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(s->row->type, forms[i].type) == 0)
            s->choice = forms[i].options;
    return FT_OK;
}

static bool is_ascii(const char *p, size_t n)
{
    unsigned char all = 0;
    for (size_t i = 0; i < n; i++)
        all |= (unsigned char)p[i];
    return all < 0x80;
}

/* The end of the grapheme that begins at p[0]. */
static size_t grapheme(const char *p, size_t n)
{
    utf8proc_int32_t state = 0;
    int32_t a, b;
    size_t at = (size_t)ft_code_point(p, &a);
    while (at < n) {
        int length = ft_code_point(p + at, &b);
        if (utf8proc_grapheme_break_stateful(a, b, &state))
            break;
        at += (size_t)length;
        a = b;
    }
    return at;
}

static int put_form(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &mapped,
                     (utf8proc_option_t)(UTF8PROC_STABLE | s->choice));
    if (length == UTF8PROC_ERROR_NOMEM)
        return ft_short_of_memory();
    if (length < 0)
        return ft_fail(FT_EDATA, "text cannot be normalized: %s", utf8proc_errmsg(length));
    int rc = ft_bytes_add(out, (const char *)mapped, (size_t)length);
    free(mapped);
    return rc;
}

/* Where its bytes come from is known by the grapheme, which normal forms do not look beyond; where
 * that gives another text than the whole at once, by proportion. */
static int track_form(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    struct ft_bytes whole = {0};
    const size_t first = out->n;
    int rc = put_form(s, p, n, &whole);
    for (size_t i = 0; i < n && !rc;) {
        const size_t length = grapheme(p + i, n - i), begin = out->n;
        out->at = i;
        rc = put_form(s, p + i, length, out);
        if (!rc) { /* the characters that stay as they are, and what follows them */
            size_t same = 0;
            while (same < length && begin + same < out->n && out->p[begin + same] == p[i + same])
                same++;
            while (same && same < length && ((unsigned char)p[i + same] & 0xc0) == 0x80)
                same--;
            for (size_t k = begin; k < out->n; k++)
                out->from[k] = (uint32_t)(i + (k - begin < same ? k - begin : same));
        }
        i += length;
    }
    if (!rc &&
        (out->n - first != whole.n || (whole.n && memcmp(out->p + first, whole.p, whole.n) != 0))) {
        out->n = first;
        for (size_t i = 0; i < whole.n && !rc; i++) {
            out->at = (size_t)((double)i * (double)n / (double)whole.n);
            rc = ft_bytes_add(out, whole.p + i, 1);
        }
    }
    ft_bytes_free(&whole);
    return rc;
}

static int normal_form(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    if (is_ascii(p, n))
        return ft_bytes_keep(out, p, n, 0);
    return out->track ? track_form(s, p, n, out) : put_form(s, p, n, out);
}

/* --- the others --- */

static int open_prepend(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    return ft_step_text(&s->text, spec, "prepend", NULL, at);
}

static int prepend(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    if (n)
        FT_TRY(ft_bytes_add(out, s->text, strlen(s->text)));
    return ft_bytes_keep(out, p, n, 0);
}

static int open_replace(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    FT_TRY(ft_pattern_open(&s->pattern, ft_json_get(spec, "pattern"), at));
    return ft_step_text(&s->text, spec, "content", NULL, at);
}

static int replace(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    return ft_pattern_replace(s->pattern, p, n, s->text, out);
}

static int open_strip(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    s->flag = s->flag2 = true;
    return ft_json_bool(spec, at->file, "strip_left", &s->flag) &&
                   ft_json_bool(spec, at->file, "strip_right", &s->flag2)
               ? FT_OK
               : FT_EDATA;
}

static int strip(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    size_t begin = 0, end = 0;
    bool any = false;
    for (size_t i = 0; i < n; i += (size_t)ft_char_length(p[i])) {
        int32_t c;
        int length = ft_code_point(p + i, &c);
        if (ft_is_space(c))
            continue;
        if (!any)
            begin = i;
        any = true;
        end = i + (size_t)length;
    }
    if (!any)
        return s->flag || s->flag2 ? FT_OK : ft_bytes_keep(out, p, n, 0);
    begin = s->flag ? begin : 0;
    end = s->flag2 ? end : n;
    return ft_bytes_keep(out, p + begin, end - begin, begin);
}

static int lowercase(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    (void)s;
    for (size_t i = 0; i < n;) {
        int32_t c;
        char text[4];
        out->at = i;
        i += (size_t)ft_code_point(p + i, &c);
        if (c == 0x130) { /* the one whose lower case is two characters */
            FT_TRY(ft_bytes_add(out, "i\xcc\x87", 3));
            continue;
        }
        FT_TRY(ft_bytes_add(out, text, (size_t)ft_put_code_point(text, utf8proc_tolower(c))));
    }
    return FT_OK;
}

/* --- Precompiled: SentencePiece's map of strings, a double array behind the length of its part ---
 */

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static int open_precompiled(struct ft_step *s, const json_t *spec, const struct ft_place *at)
{
    const char *text = json_string_value(ft_json_get(spec, "precompiled_charsmap"));
    uint32_t bits = 0, trie;
    int have = 0;
    if (!text)
        return ft_refuse(at, "has no 'precompiled_charsmap'");
    char *to;
    FT_TRY(ft_alloc(&to, strlen(text) + 1, 1));
    s->data = to;
    for (; *text && *text != '='; text++) {
        int v = base64_value(*text);
        if (v < 0)
            return ft_refuse(at, "has a 'precompiled_charsmap' that is not base64");
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            to[s->data_bytes++] = (char)(bits >> have);
        }
    }
    if (s->data_bytes < 4)
        return ft_refuse(at, "has a 'precompiled_charsmap' that is too short");
    memcpy(&trie, to, 4);
    if (trie % 4 || trie > s->data_bytes - 4)
        return ft_refuse(at, "has a 'precompiled_charsmap' whose parts do not fit");
    return FT_OK;
}

/* The value of the first (shortest) key that begins `key`... of the keys that begin it, the first.
 */
static long charsmap_find(const struct ft_step *s, const char *key, size_t n)
{
    const unsigned char *data = s->data;
    uint32_t bytes, unit, node = 0;
    memcpy(&bytes, data, 4);
    const size_t units = bytes / 4;
    if (units == 0)
        return -1;
    memcpy(&unit, data + 4, 4);
    node ^= unit >> 10 << ((unit & 0x200) >> 6);
    for (size_t i = 0; i < n; i++) {
        const uint32_t c = (unsigned char)key[i];
        if (c == 0)
            return -1;
        node ^= c;
        if (node >= units)
            return -1;
        memcpy(&unit, data + 4 + 4 * (size_t)node, 4);
        if ((unit & 0x800000ffu) != c)
            return -1;
        node ^= unit >> 10 << ((unit & 0x200) >> 6);
        if (unit >> 8 & 1) {
            if (node >= units)
                return -1;
            memcpy(&unit, data + 4 + 4 * (size_t)node, 4);
            return (long)(unit & 0x7fffffff);
        }
    }
    return -1;
}

/* Writes what the map has for p[0, n), if anything. */
static bool charsmap_put(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out,
                         int *rc)
{
    uint32_t trie;
    long at = charsmap_find(s, p, n);
    if (at < 0)
        return false;
    memcpy(&trie, s->data, 4);
    const size_t first = 4 + (size_t)trie + (size_t)at;
    if (first >= s->data_bytes)
        return false;
    const char *text = (const char *)s->data + first;
    *rc = ft_bytes_add(out, text, strnlen(text, s->data_bytes - first));
    return true;
}

static int precompiled(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out)
{
    int rc = FT_OK;
    for (size_t i = 0; i < n && !rc;) {
        const size_t length = grapheme(p + i, n - i);
        out->at = i;
        if (length >= 6 || !charsmap_put(s, p + i, length, out, &rc))
            for (size_t k = 0; k < length && !rc;) {
                const size_t c = (size_t)ft_char_length(p[i + k]);
                out->at = i + k;
                if (!charsmap_put(s, p + i + k, c, out, &rc))
                    rc = ft_bytes_add(out, p + i + k, c);
                k += c;
            }
        i += length;
    }
    return rc;
}

static const struct ft_step_row rows[] = {
    {.type = "NFC", .open = open_form, .normalize = normal_form},
    {.type = "NFD", .open = open_form, .normalize = normal_form},
    {.type = "NFKC", .open = open_form, .normalize = normal_form},
    {.type = "NFKD", .open = open_form, .normalize = normal_form},
    {.type = "Prepend", .open = open_prepend, .normalize = prepend},
    {.type = "Replace", .open = open_replace, .normalize = replace},
    {.type = "Strip", .open = open_strip, .normalize = strip},
    {.type = "Lowercase", .normalize = lowercase},
    {.type = "Precompiled", .open = open_precompiled, .normalize = precompiled},
};

int ft_normalizer_open(struct ft_step **out, const json_t *spec, const struct ft_place *at)
{
    return ft_steps_open(out, spec, "normalizers", rows, sizeof rows / sizeof *rows, at);
}

int ft_normalize(const struct ft_step *s, struct ft_bytes *b, struct ft_bytes *spare)
{
    for (; s; s = s->next) {
        spare->n = spare->at = 0;
        spare->track = b->track;
        FT_TRY(s->row->normalize(s, b->p ? b->p : "", b->n, spare));
        ft_bytes_follow(b, spare);
    }
    return FT_OK;
}
