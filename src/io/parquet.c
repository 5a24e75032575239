/* Puts the columns of a Parquet file together to rows, and writes these as JSON. */
#define _GNU_SOURCE
#include "io/parquet.h"

#include "core/text.h"
#include "io/parquet_page.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

__extension__ typedef __int128 wide;
__extension__ typedef unsigned __int128 uwide;

struct ft_parquet {
    char *path;
    int fd;
    struct ft_parquet_meta meta;
    struct ft_parquet_column *columns;
    int64_t group, row, done; /* of the group; rows of the file */
    char *text;
    size_t length, room;
};

static const size_t most_bytes = (size_t)64 << 20; /* of a row */

static struct ft_where here(const struct ft_parquet *p)
{
    return (struct ft_where){.file = p->path, .line = (int)p->done + 1};
}

/* --- text --- */

static int put(struct ft_parquet *p, const char *s, size_t n)
{
    if (p->length + n > most_bytes)
        return ft_fail_at(here(p), FT_EDATA, "a record of more than %zu MiB", most_bytes >> 20);
    if (p->length + n + 1 > p->room) {
        const size_t room = 2 * (p->length + n) + 256;
        FT_TRY(ft_grow(&p->text, room, 1));
        p->room = room;
    }
    memcpy(p->text + p->length, s, n);
    p->length += n;
    return FT_OK;
}

static int put_text(struct ft_parquet *p, const char *s)
{
    return put(p, s, strlen(s));
}

/* What JSON wants written otherwise: in two characters where it has such. */
static int put_escaped(struct ft_parquet *p, char c)
{
    static const char is[] = "\"\\\n\r\t", as[] = "\"\\nrt";
    const char *found = strchr(is, c);
    char escaped[8] = {'\\', 0};
    if (found && c) {
        escaped[1] = as[found - is];
        return put(p, escaped, 2);
    }
    snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)(unsigned char)c);
    return put(p, escaped, 6);
}

/* The bytes before the first that JSON wants written otherwise; eight at a time. */
static size_t plain_bytes(const char *s, size_t n)
{
    const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
    size_t k = 0;
    for (uint64_t x; k + 8 <= n; k += 8) {
        memcpy(&x, s + k, 8);
        const uint64_t quote = x ^ ones * '"', back = x ^ ones * '\\';
        if ((((x - ones * 0x20) & ~x) | ((quote - ones) & ~quote) | ((back - ones) & ~back)) & tops)
            break;
    }
    while (k < n && (unsigned char)s[k] >= 0x20 && s[k] != '"' && s[k] != '\\')
        k++;
    return k;
}

/* In quotes. */
static int put_quoted(struct ft_parquet *p, const char *s, size_t n)
{
    FT_TRY(put(p, "\"", 1));
    for (size_t i = 0; i < n;) {
        size_t k = i + plain_bytes(s + i, n - i);
        FT_TRY(put(p, s + i, k - i));
        if (k < n)
            FT_TRY(put_escaped(p, s[k++]));
        i = k;
    }
    return put(p, "\"", 1);
}

/* --- values --- */

/* Days since 1970-01-01, and a part of that day. digits < 0: the day alone. */
static int put_time(struct ft_parquet *p, int64_t days, int64_t part, int64_t per_second,
                    int digits)
{
    char text[64];
    struct tm tm;
    const bool known = days > -4000000 && days < 4000000;
    const time_t t = known ? (time_t)(days * 86400) : 0;
    if (!known || !gmtime_r(&t, &tm))
        return put_text(p, "null");
    int n = snprintf(text, sizeof text, "\"%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday);
    if (digits >= 0) {
        const int64_t s = part / per_second, rest = part % per_second;
        n += snprintf(text + n, sizeof text - (size_t)n, "T%02d:%02d:%02d", (int)(s / 3600),
                      (int)(s / 60 % 60), (int)(s % 60));
        if (rest)
            n += snprintf(text + n, sizeof text - (size_t)n, ".%0*lld", digits, (long long)rest);
    }
    snprintf(text + n, sizeof text - (size_t)n, "\"");
    return put_text(p, text);
}

static int64_t power(int64_t base, int n)
{
    int64_t v = 1;
    for (; n > 0; n--)
        v *= base;
    return v;
}

static int put_timestamp(struct ft_parquet *p, int64_t v, int digits)
{
    const int64_t second = power(10, digits), day = 86400 * second;
    const int64_t part = v % day;
    return put_time(p, v / day - (part < 0), part < 0 ? part + day : part, second, digits);
}

static int put_clock(struct ft_parquet *p, int64_t v, int digits)
{
    char text[64];
    const int64_t second = power(10, digits), s = v / second;
    if (v < 0 || s >= 86400)
        return put_text(p, "null");
    snprintf(text, sizeof text, "\"%02d:%02d:%02d.%0*lld\"", (int)(s / 3600), (int)(s / 60 % 60),
             (int)(s % 60), digits, (long long)(v % second));
    return put_text(p, text);
}

/* A whole number of up to 38 digits with a point before the last `scale`. */
static int put_decimal(struct ft_parquet *p, wide v, int scale)
{
    char digits[64], text[192];
    int n = 0;
    const bool negative = v < 0;
    uwide rest = negative ? -(uwide)v : (uwide)v;
    do {
        digits[n++] = (char)('0' + (int)(rest % 10));
        rest /= 10;
    } while (rest);
    char *to = text;
    if (negative)
        *to++ = '-';
    if (n <= scale)
        *to++ = '0';
    for (int i = n; i-- > scale;)
        *to++ = digits[i];
    if (scale)
        *to++ = '.';
    for (int i = scale; i-- > 0;)
        *to++ = i < n ? digits[i] : '0';
    if (!scale && n > 18) { /* more than whole numbers of JSON hold here */
        *to++ = '.';
        *to++ = '0';
    }
    return put(p, text, (size_t)(to - text));
}

/* A real stays one where it is whole. */
static int put_real(struct ft_parquet *p, double v)
{
    char text[64];
    snprintf(text, sizeof text - 2, "%.17g", v);
    if (!strpbrk(text, ".e"))
        strcat(text, ".0");
    return put_text(p, isfinite(v) ? text : "null");
}

static double half_to_double(const uint8_t *b)
{
    const int bits = b[0] | b[1] << 8, exponent = bits >> 10 & 31;
    const double fraction = bits & 1023;
    const double v = exponent == 31 ? (fraction != 0 ? (double)NAN : (double)INFINITY)
                     : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                    : ldexp(fraction, -24);
    return bits >> 15 ? -v : v;
}

static wide big_endian(const uint8_t *b, uint32_t n)
{
    uwide v = n && b[0] & 0x80 ? ~(uwide)0 : 0;
    for (uint32_t i = 0; i < n; i++)
        v = v << 8 | b[i];
    return (wide)v;
}

static int put_uuid(struct ft_parquet *p, const uint8_t *b)
{
    char text[40];
    int n = 0;
    for (int i = 0; i < 16; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%02x",
                      i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
    return put_quoted(p, text, (size_t)n);
}

/* Nanoseconds of a day, and the day by Julius Caesar's count. */
static int put_int96(struct ft_parquet *p, const uint8_t *b)
{
    uint64_t nanoseconds;
    uint32_t day;
    memcpy(&nanoseconds, b, 8);
    memcpy(&day, b + 8, 4);
    return nanoseconds < 86400000000000u
               ? put_time(p, (int64_t)day - 2440588, (int64_t)nanoseconds, 1000000000, 9)
               : put_text(p, "null");
}

static int put_bytes(struct ft_parquet *p, const struct ft_parquet_node *n,
                     struct ft_parquet_value v)
{
    if (n->meaning == FT_PQ_DECIMAL)
        return v.n <= 16 ? put_decimal(p, big_endian(v.p, v.n), n->scale) : put_text(p, "null");
    if (n->meaning == FT_PQ_HALF && v.n == 2)
        return put_real(p, half_to_double(v.p));
    if (n->meaning == FT_PQ_UUID && v.n == 16)
        return put_uuid(p, v.p);
    const char *s = (const char *)v.p;
    if (ft_utf8_valid(s, v.n) == v.n)
        return put_quoted(p, s, v.n);
    if (n->meaning == FT_PQ_TEXT)
        return ft_fail_at(here(p), FT_EDATA, "the text of column '%s' is not valid UTF-8", n->name);
    return put_text(p, "null");
}

static int put_whole(struct ft_parquet *p, const struct ft_parquet_node *n, int64_t v)
{
    char text[32];
    switch (n->meaning) {
    case FT_PQ_DECIMAL:
        return put_decimal(p, v, n->scale);
    case FT_PQ_DATE:
        return put_time(p, v, 0, 1, -1);
    case FT_PQ_TIME:
        return put_clock(p, v, n->scale);
    case FT_PQ_TIMESTAMP:
        return put_timestamp(p, v, n->scale);
    case FT_PQ_UNSIGNED:
        if (n->type == FT_PQ_INT32)
            v = (uint32_t)v;
        if (v < 0)
            return put_decimal(p, (wide)(uint64_t)v, 0);
        snprintf(text, sizeof text, "%lld", (long long)v);
        return put_text(p, text);
    default:
        snprintf(text, sizeof text, "%lld", (long long)v);
        return put_text(p, text);
    }
}

static int put_value(struct ft_parquet *p, const struct ft_parquet_node *n,
                     struct ft_parquet_value v)
{
    switch (n->type) {
    case FT_PQ_BOOLEAN:
        return put_text(p, v.i ? "true" : "false");
    case FT_PQ_INT32:
    case FT_PQ_INT64:
        return put_whole(p, n, v.i);
    case FT_PQ_FLOAT:
    case FT_PQ_DOUBLE:
        return put_real(p, v.d);
    case FT_PQ_INT96:
        return put_int96(p, v.p);
    default:
        return put_bytes(p, n, v);
    }
}

/* --- rows, as in section 4 of Melnik et al., "Dremel" (VLDB 2010): levels tell where a list ends
 * --- */

/* The entry at which a node's first column stands. */
static int look(struct ft_parquet *p, const struct ft_parquet_node *n, struct ft_parquet_column **c)
{
    bool more;
    *c = &p->columns[n->column];
    FT_TRY(ft_parquet_column_look(*c, &more));
    return more
               ? FT_OK
               : ft_fail_at(here(p), FT_EDATA,
                            "is a damaged Parquet file: column '%s' has fewer rows than the others",
                            (*c)->node->name);
}

static const struct ft_parquet_node *first_of(const struct ft_parquet *p,
                                              const struct ft_parquet_node *n)
{
    return n->n_children ? &p->meta.nodes[n->first] : NULL;
}

static const struct ft_parquet_node *after(const struct ft_parquet *p,
                                           const struct ft_parquet_node *n)
{
    return n->next >= 0 ? &p->meta.nodes[n->next] : NULL;
}

/* Passes over an entry of all columns of a node that is not there. */
static int pass(struct ft_parquet *p, const struct ft_parquet_node *n)
{
    struct ft_parquet_column *c;
    if (n->n_children == 0) {
        FT_TRY(look(p, n, &c));
        ft_parquet_advance(c);
    }
    for (n = first_of(p, n); n; n = after(p, n))
        FT_TRY(pass(p, n));
    return FT_OK;
}

static int put_field(struct ft_parquet *p, const struct ft_parquet_node *n);

static int put_struct(struct ft_parquet *p, const struct ft_parquet_node *n)
{
    const struct ft_parquet_node *first = first_of(p, n);
    FT_TRY(put(p, "{", 1));
    for (const struct ft_parquet_node *c = first; c; c = after(p, c)) {
        if (c != first)
            FT_TRY(put(p, ", ", 2));
        FT_TRY(put_quoted(p, c->name, strlen(c->name)));
        FT_TRY(put(p, ": ", 2));
        FT_TRY(put_field(p, c));
    }
    return put(p, "}", 1);
}

/* The field in which a list's repeated group has its elements; NULL: the group is the element. */
static const struct ft_parquet_node *wrapped(const struct ft_parquet *p,
                                             const struct ft_parquet_node *list,
                                             const struct ft_parquet_node *repeated)
{
    const size_t n = strlen(list->name);
    if (repeated->n_children != 1 || strcmp(repeated->name, "array") == 0 ||
        (strncmp(repeated->name, list->name, n) == 0 && strcmp(repeated->name + n, "_tuple") == 0))
        return NULL;
    return first_of(p, repeated);
}

static int put_there(struct ft_parquet *p, const struct ft_parquet_node *n);

/* "key": value of a map whose keys are texts. */
static int put_pair(struct ft_parquet *p, const struct ft_parquet_node *pair)
{
    const struct ft_parquet_node *key = first_of(p, pair);
    FT_TRY(put_field(p, key));
    FT_TRY(put(p, ": ", 2));
    return put_field(p, after(p, key));
}

/* Elements of a repeated node as long as its first column says that more belong to this list. */
static int put_repeated(struct ft_parquet *p, const struct ft_parquet_node *list,
                        const struct ft_parquet_node *n)
{
    struct ft_parquet_column *c;
    const struct ft_parquet_node *key = first_of(p, n);
    const bool map = list && list->meaning == FT_PQ_MAP && n->n_children == 2 &&
                     key->meaning == FT_PQ_TEXT && !key->optional && !key->repeated;
    const struct ft_parquet_node *element =
        list && list->meaning == FT_PQ_LIST ? wrapped(p, list, n) : NULL;
    bool more;
    FT_TRY(look(p, n, &c));
    FT_TRY(put(p, map ? "{" : "[", 1));
    if (ft_parquet_def(c) < n->def) {
        FT_TRY(pass(p, n));
        return put(p, map ? "}" : "]", 1);
    }
    for (bool first = true;; first = false) {
        if (!first)
            FT_TRY(put(p, ", ", 2));
        FT_TRY(map ? put_pair(p, n) : element ? put_field(p, element) : put_there(p, n));
        FT_TRY(ft_parquet_column_look(c, &more));
        if (!more || ft_parquet_rep(c) < n->rep)
            return put(p, map ? "}" : "]", 1);
    }
}

/* A node that is there. */
static int put_there(struct ft_parquet *p, const struct ft_parquet_node *n)
{
    struct ft_parquet_column *c;
    if (n->n_children) {
        const struct ft_parquet_node *inner = first_of(p, n);
        const bool list = n->meaning == FT_PQ_LIST || n->meaning == FT_PQ_MAP;
        return list && n->n_children == 1 && inner->repeated ? put_repeated(p, n, inner)
                                                             : put_struct(p, n);
    }
    FT_TRY(look(p, n, &c));
    if (ft_parquet_def(c) != n->def)
        return ft_fail_at(here(p), FT_EDATA,
                          "is a damaged Parquet file: columns beside '%s' have other lists",
                          n->name);
    const struct ft_parquet_value v = c->values[c->value];
    ft_parquet_advance(c);
    return put_value(p, n, v);
}

static int put_field(struct ft_parquet *p, const struct ft_parquet_node *n)
{
    struct ft_parquet_column *c;
    if (n->repeated)
        return put_repeated(p, NULL, n);
    FT_TRY(look(p, n, &c));
    if (ft_parquet_def(c) >= n->def)
        return put_there(p, n);
    FT_TRY(pass(p, n));
    return put_text(p, "null");
}

/* --- the file --- */

static int begin_group(struct ft_parquet *p)
{
    const int n = p->meta.n_columns;
    for (int i = 0; i < n; i++)
        ft_parquet_column_begin(&p->columns[i], p->meta.columns[i],
                                &p->meta.chunks[p->group * n + i], p->fd, p->path);
    p->row = 0;
    return FT_OK;
}

/* A map's key that is null, or anything else that JSON has no words for, is left to its parser. */
int ft_parquet_next(struct ft_parquet *p, const char **text, size_t *length)
{
    *text = NULL;
    *length = 0;
    while (p->group < p->meta.n_groups && p->row == p->meta.group_rows[p->group])
        if (++p->group < p->meta.n_groups)
            FT_TRY(begin_group(p));
    if (p->group >= p->meta.n_groups)
        return FT_OK;
    p->length = 0;
    FT_TRY(put_struct(p, &p->meta.nodes[0]));
    p->text[p->length] = 0;
    p->row++;
    p->done++;
    *text = p->text;
    *length = p->length;
    return FT_OK;
}

static int open_file(struct ft_parquet *p)
{
    struct stat st;
    p->fd = open(p->path, O_RDONLY | O_CLOEXEC);
    if (p->fd < 0 || fstat(p->fd, &st))
        return ft_fail_at((struct ft_where){.file = p->path}, FT_EDATA, "cannot be read: %s",
                          strerror(errno));
    FT_TRY(ft_parquet_meta_read(&p->meta, p->fd, p->path, st.st_size));
    FT_TRY(ft_alloc(&p->columns, (size_t)p->meta.n_columns, sizeof *p->columns));
    return p->meta.n_groups ? begin_group(p) : FT_OK;
}

int ft_parquet_open(struct ft_parquet **out, const char *path)
{
    struct ft_parquet *p;
    *out = NULL;
    FT_TRY(ft_alloc(&p, 1, sizeof *p));
    p->fd = -1;
    int rc = (p->path = ft_strdup(path)) ? open_file(p) : FT_ERESOURCE;
    if (rc) {
        ft_parquet_close(p);
        return rc;
    }
    *out = p;
    return FT_OK;
}

void ft_parquet_close(struct ft_parquet *p)
{
    if (!p)
        return;
    for (int i = 0; p->columns && i < p->meta.n_columns; i++)
        ft_parquet_column_fini(&p->columns[i]);
    ft_free(p->columns);
    ft_parquet_meta_fini(&p->meta);
    if (p->fd >= 0)
        close(p->fd);
    ft_free(p->text);
    ft_free(p->path);
    ft_free(p);
}

double ft_parquet_share(const struct ft_parquet *p)
{
    return p->meta.rows ? (double)p->done / (double)p->meta.rows : 1;
}
