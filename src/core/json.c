/* Owns the project's use of jansson. */
#include "core/json.h"

#include "core/file.h"
#include "core/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* jansson does not look at all of its allocations: where one fails, its reader leaves characters
 * out or stops the process, and its copies lack members. So none fails while the kernel has pages:
 * what the heap refuses comes from there, and is counted, and what was built with it is not used.
 */
enum { SPARE = 256 };
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    void *p;
    size_t n;
} spares[SPARE];
static _Atomic int n_spares; /* in use */

static void *spare_malloc(size_t n)
{
    void *p = NULL;
    pthread_mutex_lock(&spare_lock);
    for (int i = 0; i < SPARE && !p; i++) {
        if (spares[i].p)
            continue;
        p = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        p = p == MAP_FAILED ? NULL : p;
        spares[i].p = p;
        spares[i].n = n ? n : 1;
        n_spares += p != NULL;
        break;
    }
    pthread_mutex_unlock(&spare_lock);
    return p;
}

static bool spare_free(void *p)
{
    bool is = false;
    pthread_mutex_lock(&spare_lock);
    for (int i = 0; i < SPARE && !is; i++)
        if (spares[i].p == p) {
            munmap(p, spares[i].n);
            spares[i].p = NULL;
            n_spares--;
            is = true;
        }
    pthread_mutex_unlock(&spare_lock);
    return is;
}

static void *counted_malloc(size_t n)
{
    void *p = malloc(n);
    if (p)
        return p;
    ft_alloc_failed();
    return spare_malloc(n);
}

int ft_json_write(const char *folder, const char *name, const json_t *root, size_t flags,
                  unsigned since)
{
    char *path = ft_path_join(folder, name), *text = ft_json_dumps(root, flags, since);
    int rc = path && text ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    ft_json_free(text);
    ft_free(path);
    return rc;
}

void ft_json_free(void *p)
{
    if (p && (!n_spares || !spare_free(p)))
        free(p);
}

/* Before anything calls jansson, and before there are threads. */
__attribute__((constructor)) static void count_allocations(void)
{
    json_set_alloc_funcs(counted_malloc, ft_json_free);
}

/* Parses. NULL with FT_OK: it is not JSON, and *e says why. */
static int parse(json_t **out, const char *text, size_t len, size_t flags, json_error_t *e)
{
    const unsigned since = ft_alloc_failures();
    *out = json_loadb(text, len, flags, e);
    const int rc = ft_alloc_check(since);
    if (rc) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

int ft_json_text(const char *text, size_t len, const char *name, enum ft_code code, json_t **out)
{
    json_error_t e;
    FT_TRY(parse(out, text, len, JSON_REJECT_DUPLICATES, &e));
    if (*out)
        return FT_OK;
    return ft_fail_at((struct ft_where){name, e.line, e.column}, code, "not valid JSON: %s",
                      e.text);
}

static bool too_long(const char *digits, size_t n)
{
    char text[24];
    if (n < 19 || n >= sizeof text)
        return n >= 19;
    memcpy(text, digits, n);
    text[n] = 0;
    errno = 0;
    strtoll(text, NULL, 10);
    return errno == ERANGE;
}

/* NaN, Infinity and -Infinity, as Python writes them: how long the word at p[0, n) is; 0: none. */
static size_t no_number(const char *p, size_t n)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n >= strlen(words[i]) && memcmp(p, words[i], strlen(words[i])) == 0)
            return strlen(words[i]);
    return 0;
}

/* A copy in which whole numbers beyond 64 bits are reals, and what is no number is null; NULL: out
 * of memory. */
static char *with_reals(const char *text, size_t len, size_t *out_len)
{
    char *out;
    size_t n = 0, i = 0;
    bool quoted = false;
    if (ft_alloc(&out, len + len / 3 * 2 + 4, 1)) /* ".0" for each, null for NaN */
        return NULL;
    while (i < len) {
        const size_t begin = i, skip = quoted ? 0 : no_number(text + i, len - i);
        bool whole = true;
        if (skip) {
            memcpy(out + n, "null", 4);
            n += 4;
            i += skip;
            continue;
        }
        for (; !quoted && i < len && text[i] && strchr("0123456789+-.eE", text[i]); i++)
            whole = whole && !strchr(".eE", text[i]);
        if (i == begin) {
            i += quoted && text[i] == '\\' && i + 1 < len ? 2 : 1;
            quoted = quoted != (text[begin] == '"');
            whole = false;
        }
        memcpy(out + n, text + begin, i - begin);
        n += i - begin;
        if (whole && too_long(text + begin, i - begin)) {
            memcpy(out + n, ".0", 2);
            n += 2;
        }
    }
    *out_len = n;
    return out;
}

int ft_json_record(const char *text, size_t len, struct ft_where at, enum ft_code code,
                   json_t **out)
{
    json_error_t e;
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    FT_TRY(parse(out, text, len, flags, &e));
    if (!*out) { /* perhaps what Python's json takes and jansson does not */
        size_t n;
        char *other = with_reals(text, len, &n);
        if (!other)
            return FT_ERESOURCE;
        int rc = parse(out, other, n, flags, &e);
        ft_free(other);
        FT_TRY(rc);
    }
    if (*out)
        return FT_OK;
    at.line += e.line > 1 ? e.line - 1 : 0;
    at.col = e.column;
    return ft_fail_at(at, code, "not valid JSON: %s", e.text);
}

int ft_json_file(const char *path, enum ft_code code, json_t **out)
{
    char *text;
    size_t len;
    *out = NULL;
    FT_TRY(ft_file_read(path, (size_t)1 << 30, code, &text, &len));
    int rc = ft_json_text(text, len, path, code, out);
    ft_free(text);
    return rc;
}

int ft_json_config(const char *path, enum ft_code code, json_t **out)
{
    json_error_t e;
    char *text;
    size_t len;
    *out = NULL;
    FT_TRY(ft_file_read(path, (size_t)1 << 26, code, &text, &len));
    int rc = parse(out, text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
    ft_free(text);
    if (rc || *out)
        return rc;
    return ft_fail_at((struct ft_where){path, e.line, e.column}, code, "not valid JSON: %s",
                      e.text);
}

int ft_json_within(json_t **out, const char *text, size_t len, const char **why)
{
    static _Thread_local char kept[JSON_ERROR_TEXT_LENGTH];
    json_error_t e;
    FT_TRY(parse(out, text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e));
    if (!*out)
        snprintf(kept, sizeof kept, "%s", e.text);
    *why = kept;
    return FT_OK;
}

char *ft_json_dumps(const json_t *root, size_t flags, unsigned since)
{
    char *text = root ? json_dumps(root, flags) : NULL;
    if (text && ft_alloc_failures() == since)
        return text;
    ft_json_free(text);
    ft_short_of_memory();
    return NULL;
}

const json_t *ft_json_get(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v) ? v : NULL;
}

static bool wrong(const char *file, const char *key, const char *want)
{
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA, "'%s' is not %s", key, want);
    return false;
}

bool ft_json_int(const json_t *o, const char *file, const char *key, long long *out)
{
    const json_t *v = ft_json_get(o, key);
    if (!v)
        return true;
    if (!json_is_integer(v))
        return wrong(file, key, "an integer");
    *out = json_integer_value(v);
    return true;
}

bool ft_json_real(const json_t *o, const char *file, const char *key, double *out)
{
    const json_t *v = ft_json_get(o, key);
    if (!v)
        return true;
    if (!json_is_number(v))
        return wrong(file, key, "a number");
    *out = json_number_value(v);
    return true;
}

bool ft_json_bool(const json_t *o, const char *file, const char *key, bool *out)
{
    const json_t *v = ft_json_get(o, key);
    if (!v)
        return true;
    if (!json_is_boolean(v))
        return wrong(file, key, "true or false");
    *out = json_is_true(v);
    return true;
}

bool ft_json_str(const json_t *o, const char *file, const char *key, const char **out)
{
    const json_t *v = ft_json_get(o, key);
    if (!v)
        return true;
    if (!json_is_string(v))
        return wrong(file, key, "a string");
    *out = json_string_value(v);
    return true;
}
