/* Added tokens: cut out of the text before anything else looks at it, the leftmost one first and of
 * those the longest. */
#include "text/internal.h"

int ft_added_trie(struct ft_trie **out, const struct ft_added *tokens, int n, bool normalized,
                  const struct ft_step *s)
{
    struct ft_bytes content = {0}, spare = {0}, all = {0};
    struct ft_ranges ranges = {0};
    int rc = FT_OK;
    *out = NULL;
    for (int i = 0; i < n && !rc; i++) {
        if (tokens[i].normalized != normalized || !*tokens[i].content)
            continue;
        content.n = 0;
        rc = ft_bytes_add(&content, tokens[i].content, strlen(tokens[i].content));
        if (!rc && normalized)
            rc = ft_normalize(s, &content, &spare);
        const size_t begin = all.n;
        if (!rc)
            rc = ft_bytes_add(&all, content.p, content.n);
        if (!rc && content.n)
            rc = ft_ranges_add(&ranges, begin, all.n, false);
        if (!rc && content.n)
            ranges.v[ranges.n - 1].number = i;
    }
    if (!rc && ranges.n)
        rc = ft_trie_new(out, all.n);
    for (size_t i = 0; i < ranges.n && !rc; i++)
        rc = ft_trie_put(*out, all.p + ranges.v[i].begin, ranges.v[i].end - ranges.v[i].begin,
                         ranges.v[i].number);
    ft_bytes_free(&content);
    ft_bytes_free(&spare);
    ft_bytes_free(&all);
    ft_free(ranges.v);
    return rc;
}

/* The code point that ends at text[at]. */
static int32_t last_before(const char *text, size_t at)
{
    int32_t c;
    do
        at--;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80);
    ft_code_point(text + at, &c);
    return c;
}

static bool stands_alone(const char *text, size_t length, size_t begin, size_t end)
{
    int32_t c;
    if (begin > 0 && ft_is_word(last_before(text, begin)))
        return false;
    if (end == length)
        return true;
    ft_code_point(text + end, &c);
    return !ft_is_word(c);
}

/* The longest string of the trie at text[at]; its number, -1 if there is none. */
static int32_t longest(const struct ft_trie *t, const char *text, size_t at, size_t length,
                       size_t *end)
{
    int32_t node = 0, found = -1;
    for (size_t i = at; i < length; i++) {
        node = ft_trie_step(t, node, (unsigned char)text[i]);
        if (node < 0)
            break;
        if (ft_trie_value(t, node) >= 0) {
            found = ft_trie_value(t, node);
            *end = i + 1;
        }
    }
    return found;
}

int ft_added_split(const struct ft_trie *t, const struct ft_added *tokens, const char *text,
                   size_t length, struct ft_ranges *out, struct ft_ids *numbers)
{
    size_t last = 0, end = 0;
    for (size_t i = 0; t && i < length;) {
        int32_t k = longest(t, text, i, length, &end);
        if (k < 0) {
            i++;
            continue;
        }
        size_t begin = i;
        i = end;
        if (tokens[k].single_word && !stands_alone(text, length, begin, end))
            continue;
        while (tokens[k].lstrip && begin > last && ft_is_space(last_before(text, begin)))
            do
                begin--;
            while (begin > last && ((unsigned char)text[begin] & 0xc0) == 0x80);
        for (int32_t c; tokens[k].rstrip && end < length;) {
            const int n = ft_code_point(text + end, &c);
            if (!ft_is_space(c))
                break;
            end += (size_t)n;
        }
        if (begin > last)
            FT_TRY(ft_ranges_add(out, last, begin, false));
        FT_TRY(ft_ranges_add(out, begin < last ? last : begin, end, true));
        FT_TRY(ft_ids_add(numbers, k));
        last = end;
        i = i < end ? end : i;
    }
    return last < length ? ft_ranges_add(out, last, length, false) : FT_OK;
}
