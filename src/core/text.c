/* Owns word distance, for suggestions, and what is UTF-8. */
#include "core/text.h"

#include <string.h>

enum { MOST = 63 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

int ft_edit_distance(const char *a, const char *b)
{
    int n = least((int)strlen(a), MOST), m = least((int)strlen(b), MOST);
    int d[MOST + 1][MOST + 1];
    for (int i = 0; i <= n; i++)
        d[i][0] = i;
    for (int j = 0; j <= m; j++)
        d[0][j] = j;
    for (int i = 1; i <= n; i++)
        for (int j = 1; j <= m; j++) {
            int differ = a[i - 1] != b[j - 1];
            d[i][j] = least(least(d[i - 1][j] + 1, d[i][j - 1] + 1), d[i - 1][j - 1] + differ);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[n][m];
}

const char *ft_nearest(const char *word, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    int limit = (int)strlen(word) / 3 + 1, least_so_far = limit + 1;
    for (size_t i = 0; i < n; i++) {
        int d = ft_edit_distance(word, candidates[i]);
        if (d < least_so_far) {
            least_so_far = d;
            best = candidates[i];
        }
    }
    return best;
}

bool ft_is_near(const char *word, const char *name)
{
    const int most = (int)strlen(word) / 4;
    return ft_edit_distance(word, name) <= (most < 2 ? 2 : most);
}

bool ft_starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool ft_ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

size_t ft_utf8_length(const char *text, size_t n, size_t *bad)
{
    static const unsigned char low[] = {0x80, 0xa0, 0x80, 0x90, 0x80};
    static const unsigned char high[] = {0xbf, 0xbf, 0x9f, 0xbf, 0x8f};
    const unsigned char *p = (const unsigned char *)text;
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    size_t unused;
    bad = bad ? bad : &unused;
    *bad = 1;
    if (length == 0 || p[0] > 0xf4)
        return 0;
    int special = p[0] == 0xe0 ? 1 : p[0] == 0xed ? 2 : p[0] == 0xf0 ? 3 : p[0] == 0xf4 ? 4 : 0;
    for (size_t i = 1; i < length; i++) {
        const int k = i == 1 ? special : 0;
        if (i >= n || p[i] < low[k] || p[i] > high[k]) {
            *bad = i;
            return 0;
        }
    }
    return length;
}

size_t ft_utf8_valid(const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        const size_t length = ft_utf8_length(p + i, n - i, NULL);
        if (!length)
            return i;
        i += length;
    }
    return n;
}

bool ft_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool ft_is_blank(int32_t c)
{
    return ft_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

void ft_strip(const char **p, size_t *n, bool left, bool right)
{
    const char *begin = *p, *end = *p + *n;
    int32_t c;
    while (left && begin < end && (ft_code_point(begin, &c), ft_is_blank(c)))
        begin += ft_char_length(*begin);
    while (right && end > begin) {
        const char *last = end - 1;
        while (last > begin && ((unsigned char)*last & 0xc0) == 0x80)
            last--;
        ft_code_point(last, &c);
        if (!ft_is_blank(c))
            break;
        end = last;
    }
    *p = begin;
    *n = (size_t)(end - begin);
}
