/* Splits data files into records, and parses these. */
#include "io/records.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "io/parquet.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <zlib.h>

enum { BUFFER = 1 << 18 };
static const size_t most_bytes = (size_t)64 << 20; /* of a record */

struct kind;
struct ft_records {
    char *path;
    const struct kind *kind;
    gzFile file;
    int64_t bytes; /* of the file */
    unsigned char *buffer;
    size_t at, n;     /* the buffer's next byte, and its end */
    int line;         /* of the next byte */
    bool lines;       /* a record a line */
    bool list, begun; /* a JSON list, of which a record was read */
    int rc;           /* of what failed last */
    json_t *names;
    struct ft_parquet *table;
};

/* A kind of file: one row. */
struct kind {
    const char *type;
    const char *endings[4];
    int (*open)(struct ft_records *r);
    int (*next)(struct ft_records *r, struct ft_raw *raw, bool *more);
    int (*parse)(const struct ft_records *r, const struct ft_raw *raw, json_t **out);
};

void ft_raw_free(struct ft_raw *raw)
{
    ft_free(raw->text);
    *raw = (struct ft_raw){0};
}

static struct ft_where here(const struct ft_records *r)
{
    return (struct ft_where){.file = r->path, .line = r->line};
}

/* --- bytes --- */

static int fill(struct ft_records *r)
{
    int code;
    r->at = r->n = 0;
    const int n = gzread(r->file, r->buffer, BUFFER);
    const char *why = n <= 0 ? gzerror(r->file, &code) : NULL;
    if (n > 0) {
        r->n = (size_t)n;
        return FT_OK;
    }
    if (n == 0 && (code == Z_OK || code == Z_STREAM_END))
        return FT_OK;
    if (code == Z_MEM_ERROR || (code == Z_ERRNO && errno == ENOMEM))
        return r->rc = ft_short_of_memory();
    return r->rc = ft_fail_at(here(r), FT_EDATA, "cannot be read%s: %s",
                              code == Z_ERRNO ? "" : " as gzip",
                              code == Z_ERRNO ? strerror(errno) : why);
}

/* The next byte without taking it: -1 at the end, -2 on failure. */
static int peek(struct ft_records *r)
{
    if (r->at == r->n && fill(r))
        return -2;
    return r->at < r->n ? r->buffer[r->at] : -1;
}

static void take(struct ft_records *r)
{
    r->line += r->buffer[r->at++] == '\n';
}

static int put(struct ft_raw *raw, const void *p, size_t n)
{
    if (raw->too_long || raw->length + n > most_bytes) {
        raw->too_long = true;
        return FT_OK;
    }
    if (raw->length + n + 1 > raw->room) {
        const size_t room = 2 * (raw->length + n) + 256;
        FT_TRY(ft_grow(&raw->text, room, 1));
        raw->room = room;
    }
    memcpy(raw->text + raw->length, p, n);
    raw->length += n;
    return FT_OK;
}

/* The next byte into the record; is returned, as by peek. */
static int copy(struct ft_records *r, struct ft_raw *raw)
{
    const int c = peek(r);
    if (c < 0)
        return c;
    const char byte = (char)c;
    take(r);
    int rc = put(raw, &byte, 1);
    r->rc = rc ? rc : r->rc;
    return rc ? -2 : c;
}

static int misplaced(const struct ft_records *r, int c, const char *where)
{
    const bool plain = c > 0x20 && c < 0x7f;
    return plain ? ft_fail_at(here(r), FT_EDATA, "'%c' %s", c, where)
                 : ft_fail_at(here(r), FT_EDATA, "byte 0x%02x %s", (unsigned)c, where);
}

static void begin(const struct ft_records *r, struct ft_raw *raw)
{
    raw->length = 0;
    raw->too_long = false;
    raw->line = r->line;
}

/* To the end of the line, which is taken and not put; *more: there was one. */
static int read_line(struct ft_records *r, struct ft_raw *raw, bool *more)
{
    begin(r, raw);
    *more = false;
    for (;;) {
        const int c = peek(r);
        if (c == -2)
            return r->rc;
        if (c == -1)
            break;
        *more = true;
        const unsigned char *p = r->buffer + r->at, *end = memchr(p, '\n', r->n - r->at);
        const size_t n = end ? (size_t)(end - p) : r->n - r->at;
        FT_TRY(put(raw, p, n));
        r->at += n;
        if (end) {
            take(r);
            break;
        }
    }
    if (raw->length && raw->text[raw->length - 1] == '\r')
        raw->length--;
    return FT_OK;
}

static bool is_blank(const struct ft_raw *raw)
{
    return !raw->too_long && (raw->length == 0 || strspn(raw->text, " \t\r") >= raw->length);
}

/* Lines that say something; their text has a zero byte behind it. */
static int next_line(struct ft_records *r, struct ft_raw *raw, bool *more)
{
    do {
        FT_TRY(read_line(r, raw, more));
        if (raw->length)
            raw->text[raw->length] = 0;
    } while (*more && is_blank(raw));
    return FT_OK;
}

/* --- what every record is checked for --- */

static int check_raw(const struct ft_records *r, const struct ft_raw *raw)
{
    struct ft_where at = {.file = r->path, .line = raw->line};
    if (raw->too_long)
        return ft_fail_at(at, FT_EDATA, "a record of more than %zu MiB", most_bytes >> 20);
    const char *zero = raw->length ? memchr(raw->text, 0, raw->length) : NULL;
    if (zero) {
        at.col = (int)(zero - raw->text) + 1;
        ft_fail_at(at, FT_EDATA, "has a zero byte: is the file binary, or UTF-16?");
        ft_hint("text must be UTF-8");
        return FT_EDATA;
    }
    return FT_OK;
}

static int not_utf8(const struct ft_records *r, const struct ft_raw *raw)
{
    ft_fail_at((struct ft_where){.file = r->path, .line = raw->line}, FT_EDATA,
               "is not valid UTF-8");
    ft_hint("convert it, for example from Latin-1: iconv -f latin1 -t utf8");
    return FT_EDATA;
}

/* --- lines --- */

static int parse_json(const struct ft_records *r, const struct ft_raw *raw, json_t **out)
{
    const struct ft_where at = {.file = r->path, .line = raw->line};
    return ft_json_record(raw->text, raw->length, at, FT_EDATA, out);
}

static int parse_text(const struct ft_records *r, const struct ft_raw *raw, json_t **out)
{
    const unsigned since = ft_alloc_failures();
    json_t *text = json_stringn(raw->length ? raw->text : "", raw->length);
    FT_TRY(ft_alloc_check(since));
    if (!text)
        return not_utf8(r, raw);
    *out = json_pack("{so}", "text", text);
    return *out ? FT_OK : ft_short_of_memory();
}

/* --- JSON: one list of records, or one record after the other --- */

static int skip_space(struct ft_records *r)
{
    int c;
    while ((c = peek(r)) == ' ' || c == '\t' || c == '\r' || c == '\n')
        take(r);
    return c;
}

static int open_json(struct ft_records *r)
{
    const int c = skip_space(r);
    if (c == '[') {
        take(r);
        r->list = true;
    } else if (c >= 0 && c != '{') {
        return ft_fail_at(here(r), FT_EDATA, "is neither a list of records nor records in lines");
    }
    return c == -2 ? r->rc : FT_OK;
}

static int copy_string(struct ft_records *r, struct ft_raw *raw)
{
    int c = copy(r, raw); /* the quote */
    while (c >= 0 && (c = copy(r, raw)) >= 0 && c != '"')
        if (c == '\\')
            c = copy(r, raw);
    return c;
}

/* A value, up to its end: brackets are counted, what is within is not looked at. */
static int copy_value(struct ft_records *r, struct ft_raw *raw)
{
    int depth = 0, c;
    do {
        c = peek(r);
        if (c == '"') {
            c = copy_string(r, raw);
        } else if (c == '{' || c == '[') {
            depth++;
            c = copy(r, raw);
        } else if (depth && (c == '}' || c == ']')) {
            depth--;
            c = copy(r, raw);
        } else if (c >= 0 && (depth || !strchr(",]} \t\r\n", c))) {
            c = copy(r, raw);
        } else if (c >= 0) {
            break;
        }
    } while (c >= 0 && (depth || !strchr("}]\"", c)));
    if (c == -1 && depth)
        return ft_fail_at((struct ft_where){.file = r->path, .line = raw->line}, FT_EDATA,
                          "the file ends within the record that begins here");
    return c == -2 ? r->rc : FT_OK;
}

static int next_json(struct ft_records *r, struct ft_raw *raw, bool *more)
{
    int c = skip_space(r);
    *more = false;
    if (c == ',' && r->list && r->begun) {
        take(r);
        c = skip_space(r);
        if (c == ']')
            return misplaced(r, c, "where a record should begin");
    }
    begin(r, raw);
    if (c == -2)
        return r->rc;
    if (r->list && c == ']') {
        take(r);
        c = skip_space(r);
        r->list = false;
        if (c >= 0)
            return ft_fail_at(here(r), FT_EDATA, "there is more behind the list's end");
        return c == -2 ? r->rc : FT_OK;
    }
    if (c == -1)
        return r->list ? ft_fail_at(here(r), FT_EDATA, "the list has no end") : FT_OK;
    FT_TRY(copy_value(r, raw));
    if (raw->length == 0 && !raw->too_long)
        return misplaced(r, c, "where a record should begin");
    *more = r->begun = true;
    c = r->list ? skip_space(r) : 0;
    if (r->list && c >= 0 && c != ',' && c != ']')
        return misplaced(r, c, "where ',' or ']' should be");
    return c == -2 ? r->rc : FT_OK;
}

/* --- CSV, RFC 4180 --- */

/* Lines, up to the first whose end is not within quotes. */
static int next_csv(struct ft_records *r, struct ft_raw *raw, bool *more)
{
    bool quoted, first;
    int c;
    do {
        begin(r, raw);
        quoted = false;
        first = true;
        *more = false;
        while ((c = peek(r)) >= 0 && (c != '\n' || quoted)) {
            *more = true;
            c = copy(r, raw);
            if (c == '"' && quoted && peek(r) == '"')
                c = copy(r, raw);
            else if (c == '"' && (quoted || first))
                quoted = !quoted;
            first = c == ',' && !quoted;
            if (c < 0)
                break;
        }
        if (c == '\n') {
            *more = true;
            take(r);
        }
        if (c == -2)
            return r->rc;
        if (raw->length && !quoted && raw->text[raw->length - 1] == '\r')
            raw->length--;
        if (raw->length)
            raw->text[raw->length] = 0;
        if (quoted)
            return ft_fail_at((struct ft_where){.file = r->path, .line = raw->line}, FT_EDATA,
                              "the file ends within quotes of the record that begins here");
    } while (*more && is_blank(raw));
    return FT_OK;
}

/* Appends the field at *at to list, and moves *at to the comma behind it or the end. buffer has
 * room for the whole record. */
static int csv_field(const struct ft_records *r, const struct ft_raw *raw, size_t *at, char *buffer,
                     json_t *list)
{
    const char *p = raw->text + *at, *end = raw->text + raw->length;
    const bool was_quoted = p < end && *p == '"';
    bool quoted = was_quoted;
    char *to = buffer;
    for (p += quoted; p < end && (quoted || *p != ','); p++) {
        if (*p != '"' || !was_quoted)
            *to++ = *p;
        else if (quoted && p + 1 < end && p[1] == '"')
            *to++ = *++p;
        else
            quoted = false;
    }
    *at = (size_t)(p - raw->text);
    const unsigned since = ft_alloc_failures();
    json_t *text = to > buffer ? json_stringn(buffer, (size_t)(to - buffer)) : json_null();
    FT_TRY(ft_alloc_check(since));
    if (!text)
        return not_utf8(r, raw);
    return json_array_append_new(list, text) ? ft_short_of_memory() : FT_OK;
}

/* The record's fields, of which no more than `most` are read. */
static int csv_fields(const struct ft_records *r, const struct ft_raw *raw, size_t most,
                      json_t **out)
{
    json_t *list = json_array();
    char *buffer = NULL;
    int rc = list ? ft_alloc(&buffer, raw->length + 1, 1) : ft_short_of_memory();
    size_t at = 0;
    while (!rc && json_array_size(list) < most) {
        rc = csv_field(r, raw, &at, buffer, list);
        if (at >= raw->length)
            break;
        at++; /* the comma */
    }
    ft_free(buffer);
    if (rc)
        json_decref(list);
    else
        *out = list;
    return rc;
}

/* The header: a column without a name is an index that pandas wrote, and gets pandas' name for it.
 */
static int check_names(const struct ft_records *r, json_t *names)
{
    const struct ft_where at = {.file = r->path, .line = 1};
    for (size_t i = 0; i < json_array_size(names); i++) {
        char unnamed[32];
        snprintf(unnamed, sizeof unnamed, "Unnamed: %zu", i);
        if (!json_is_string(json_array_get(names, i)) &&
            json_array_set_new(names, i, json_string(unnamed)))
            return ft_short_of_memory();
        for (size_t k = 0; k < i; k++)
            if (json_equal(json_array_get(names, i), json_array_get(names, k)))
                return ft_fail_at(at, FT_EDATA, "two columns are called '%s'",
                                  json_string_value(json_array_get(names, i)));
    }
    return FT_OK;
}

static int open_csv(struct ft_records *r)
{
    struct ft_raw raw = {0};
    bool more;
    r->line = 1;
    int rc = next_csv(r, &raw, &more);
    if (!rc && more)
        rc = check_raw(r, &raw);
    if (!rc && more)
        rc = csv_fields(r, &raw, 1 << 16, &r->names);
    if (!rc && more)
        rc = check_names(r, r->names);
    ft_raw_free(&raw);
    return rc;
}

static int parse_csv(const struct ft_records *r, const struct ft_raw *raw, json_t **out)
{
    json_t *fields = NULL;
    const size_t names = json_array_size(r->names);
    FT_TRY(csv_fields(r, raw, names + 1, &fields));
    const size_t n = json_array_size(fields);
    int rc = FT_OK;
    *out = json_object();
    if (n > names)
        rc = ft_fail_at((struct ft_where){.file = r->path, .line = raw->line}, FT_EDATA,
                        "has more fields than the header, which has %zu", names);
    for (size_t i = 0; i < names && !rc; i++)
        if (json_object_set_new(*out, json_string_value(json_array_get(r->names, i)),
                                i < n ? json_incref(json_array_get(fields, i)) : json_null()))
            rc = ft_short_of_memory();
    json_decref(fields);
    if (rc) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

/* --- lines of JSON, or what has their name --- */

/* How the first line ends: its brackets, outside of texts, and the first byte that says something
 * behind it (0: none, or beyond the buffer). */
static int first_line(const struct ft_records *r, char *next)
{
    int depth = 0;
    bool quoted = false;
    size_t i = r->at;
    *next = 0;
    for (; i < r->n && (quoted || r->buffer[i] != '\n'); i++) {
        const char c = (char)r->buffer[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted)
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    }
    while (i < r->n && strchr(" \t\r\n", (char)r->buffer[i]) && r->buffer[i])
        i++;
    *next = i < r->n ? (char)r->buffer[i] : 0;
    return depth;
}

/* A list, or records over several lines, in spite of the name. */
static bool is_other_json(const struct ft_records *r, int first)
{
    char next;
    const int depth = first == '[' || first == '{' ? first_line(r, &next) : 0;
    if (first == '[')
        return depth > 0 || !next;
    return first == '{' && depth > 0 && next && next != '{';
}

static int open_jsonl(struct ft_records *r)
{
    const int c = skip_space(r);
    r->lines = !is_other_json(r, c);
    return c == -2 ? r->rc : r->lines ? FT_OK : open_json(r);
}

static int next_jsonl(struct ft_records *r, struct ft_raw *raw, bool *more)
{
    return r->lines ? next_line(r, raw, more) : next_json(r, raw, more);
}

/* --- Parquet: its rows, written as JSON --- */

static int open_parquet(struct ft_records *r)
{
    r->line = 1;
    return ft_parquet_open(&r->table, r->path);
}

static int next_parquet(struct ft_records *r, struct ft_raw *raw, bool *more)
{
    const char *text;
    size_t n;
    begin(r, raw);
    FT_TRY(ft_parquet_next(r->table, &text, &n));
    *more = text != NULL;
    r->line += *more;
    return text ? put(raw, text, n) : FT_OK;
}

/* --- the file --- */

static int open_lines(struct ft_records *r)
{
    (void)r;
    return FT_OK;
}

static const struct kind kinds[] = {
    {"jsonl", {".jsonl", ".ndjson", ".jsonlines"}, open_jsonl, next_jsonl, parse_json},
    {"json", {".json"}, open_json, next_json, parse_json},
    {"text", {".txt", ".text"}, open_lines, read_line, parse_text},
    {"csv", {".csv"}, open_csv, next_csv, parse_csv},
    {"parquet", {".parquet", ".pq"}, open_parquet, next_parquet, parse_json},
};
static const struct kind *const parquet_kind = &kinds[4];

static const struct kind *kind_of(const char *path, const char *type)
{
    const size_t n = strlen(path), gz = n > 3 && strcasecmp(path + n - 3, ".gz") == 0 ? 3 : 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (type && strcmp(type, kinds[i].type) == 0)
            return &kinds[i];
        for (int k = 0; !type && k < 4 && kinds[i].endings[k]; k++) {
            const size_t e = strlen(kinds[i].endings[k]);
            if (n > e + gz && strncasecmp(path + n - gz - e, kinds[i].endings[k], e) == 0)
                return &kinds[i];
        }
    }
    return NULL;
}

const char *ft_records_kind(const char *path)
{
    const struct kind *k = kind_of(path, NULL);
    return k ? k->type : NULL;
}

static int refuse_kind(const char *path, const char *type)
{
    const struct ft_where at = {.file = path};
    ft_fail_at(at, FT_EDATA, "is no kind of file that ft reads%s%s", type ? ": " : "",
               type ? type : "");
    ft_hint(
        "data is read from .jsonl, .json, .txt and .csv, each also .gz, from .parquet, and from "
        "tokenized .safetensors; 'ds_type: json' (or text, csv, parquet) says what another name "
        "is");
    return FT_EDATA;
}

/* A byte order mark may stand first; that of UTF-16 may not. */
static int skip_mark(struct ft_records *r)
{
    const int c = peek(r);
    if (c == -2)
        return r->rc;
    if (r->n >= 3 && memcmp(r->buffer, "\xef\xbb\xbf", 3) == 0)
        r->at = 3;
    else if (r->n >= 2 &&
             (memcmp(r->buffer, "\xff\xfe", 2) == 0 || memcmp(r->buffer, "\xfe\xff", 2) == 0))
        return ft_fail_at(here(r), FT_EDATA, "is UTF-16; text must be UTF-8");
    else if (r->n >= 4 &&
             (memcmp(r->buffer, "PAR1", 4) == 0 || memcmp(r->buffer, "PARE", 4) == 0) &&
             !(r->kind && (r->kind->parse == parse_text || r->kind->parse == parse_csv)))
        r->kind = parquet_kind; /* whatever its name */
    else if (r->kind == parquet_kind)
        return ft_file_foreign(r->path, r->buffer, r->n, FT_EDATA)
                   ? FT_EDATA
                   : ft_fail_at(here(r), FT_EDATA, "is not a Parquet file");
    /* a page about the file, in its place; text may be HTML */
    const bool is_text = r->kind && r->kind->next == read_line;
    const bool pointer = r->n >= 8 && memcmp(r->buffer, "version ", 8) == 0;
    return is_text && !pointer ? FT_OK : ft_file_foreign(r->path, r->buffer, r->n, FT_EDATA);
}

/* Records of a file whose name does not say: JSON, or NULL. */
static const struct kind *kind_by_content(const struct ft_records *r)
{
    size_t i = r->at;
    while (i < r->n && strchr(" \t\r\n", r->buffer[i]) && r->buffer[i])
        i++;
    return i < r->n && (r->buffer[i] == '{' || r->buffer[i] == '[') ? &kinds[0] : NULL;
}

static int open_file(struct ft_records *r)
{
    struct stat st;
    const struct ft_where at = {.file = r->path};
    if (stat(r->path, &st))
        return ft_fail_at(at, FT_EDATA, "cannot be read: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return ft_fail_at(at, FT_EDATA, "is %s, not a file",
                          S_ISDIR(st.st_mode) ? "a folder" : "a special file");
    r->bytes = st.st_size;
    errno = 0;
    r->file = gzopen(r->path, "rbe");
    if (!r->file && (errno == 0 || errno == ENOMEM))
        return ft_short_of_memory();
    if (!r->file)
        return ft_fail_at(at, FT_EDATA, "cannot be read: %s", strerror(errno));
    gzbuffer(r->file, BUFFER);
    FT_TRY(ft_alloc(&r->buffer, BUFFER, 1));
    r->line = 1;
    FT_TRY(skip_mark(r));
    if (!r->kind && !(r->kind = kind_by_content(r)))
        return refuse_kind(r->path, NULL);
    return r->kind->open(r);
}

int ft_records_open(struct ft_records **out, const char *path, const char *type)
{
    struct ft_records *r;
    const bool json = type && strcmp(type, "json") == 0;
    *out = NULL;
    FT_TRY(ft_alloc(&r, 1, sizeof *r));
    /* Hugging Face calls lines of JSON "json" too; the name may know better */
    r->kind = kind_of(path, json ? NULL : type);
    if (json && (!r->kind || (r->kind != &kinds[0] && r->kind != &kinds[1])))
        r->kind = &kinds[1];
    int rc = r->kind || !type ? FT_OK : refuse_kind(path, type);
    if (!rc && !(r->path = ft_strdup(path)))
        rc = FT_ERESOURCE;
    if (!rc)
        rc = open_file(r);
    if (rc) {
        ft_records_close(r);
        return rc;
    }
    *out = r;
    return FT_OK;
}

void ft_records_close(struct ft_records *r)
{
    if (!r)
        return;
    if (r->file)
        gzclose(r->file);
    json_decref(r->names);
    ft_parquet_close(r->table);
    ft_free(r->buffer);
    ft_free(r->path);
    ft_free(r);
}

int ft_records_next(struct ft_records *r, struct ft_raw *raw, bool *more)
{
    return r->kind->next(r, raw, more);
}

int ft_record_parse(const struct ft_records *r, const struct ft_raw *raw, json_t **out)
{
    *out = NULL;
    FT_TRY(check_raw(r, raw));
    return r->kind->parse(r, raw, out);
}

double ft_records_share(const struct ft_records *r)
{
    if (r->table)
        return ft_parquet_share(r->table);
    return r->bytes > 0 ? (double)gzoffset(r->file) / (double)r->bytes : 1;
}
