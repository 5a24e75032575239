/* Parquet files as pyarrow writes them (scripts/make-golden-parquet): what it reads from them. */
#include "core/file.h"
#include "core/mem.h"
#include "io/records.h"
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN FT_ROOT "/tests/io/parquet/"

/* All records of one are those of the other. */
static void compare(const char *name)
{
    char path[256];
    struct ft_records *got, *want;
    struct ft_raw a = {0}, b = {0};
    bool more = true, other = true;
    int rows = 0;
    snprintf(path, sizeof path, GOLDEN "%s.parquet", name);
    CHECK_INT(ft_records_open(&got, path, NULL), FT_OK);
    snprintf(path, sizeof path, GOLDEN "%s.jsonl", name);
    CHECK_INT(ft_records_open(&want, path, NULL), FT_OK);
    if (!got || !want)
        return;
    while (more) {
        json_t *x = NULL, *y = NULL;
        CHECK_INT(ft_records_next(got, &a, &more), FT_OK);
        CHECK_INT(ft_records_next(want, &b, &other), FT_OK);
        CHECK_INT(more, other);
        if (!more || !other)
            break;
        CHECK_INT(a.line, ++rows);
        CHECK_INT(ft_record_parse(got, &a, &x), FT_OK);
        CHECK_INT(ft_record_parse(want, &b, &y), FT_OK);
        if (!json_equal(x, y))
            check_fail(__FILE__, __LINE__, "%s, row %d: %.*s\nis not %.*s", name, rows,
                       (int)a.length, a.text, (int)b.length, b.text);
        json_decref(x);
        json_decref(y);
    }
    CHECK_INT(rows, strcmp(name, "empty") == 0 ? 0 : 40);
    CHECK(ft_records_share(got) == 1);
    ft_raw_free(&a);
    ft_raw_free(&b);
    ft_records_close(got);
    ft_records_close(want);
}

CASE(every_encoding_and_compression)
{
    static const char *const names[] = {"plain", "dictionary", "delta",  "delta-v2",
                                        "pages", "pages-v2",   "groups", "empty"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        compare(names[i]);
}

static char copy[64];

/* Opens a changed copy of a file and reads it to its end; returns what that gave. */
static int read_changed(const char *name, size_t keep, long at, int byte)
{
    char *bytes;
    size_t n;
    struct ft_records *r;
    struct ft_raw raw = {0};
    bool more = true;
    CHECK_INT(ft_file_read(name, 1 << 24, FT_EDATA, &bytes, &n), FT_OK);
    if (at >= 0)
        bytes[at] = (char)byte;
    snprintf(copy, sizeof copy, "/tmp/ft-parquet-%ld.jsonl", (long)getpid());
    CHECK_INT(ft_file_write(copy, bytes, n < keep ? n : keep), FT_OK);
    ft_free(bytes);
    int rc = ft_records_open(&r, copy, NULL);
    while (!rc && more)
        rc = ft_records_next(r, &raw, &more);
    ft_raw_free(&raw);
    if (r)
        ft_records_close(r);
    unlink(copy);
    return rc;
}

CASE(damaged_files_are_refused)
{
    CHECK_INT(read_changed(GOLDEN "plain.parquet", 1 << 24, -1, 0), FT_OK); /* whatever its name */
    CHECK_INT(read_changed(GOLDEN "plain.parquet", 1000, -1, 0), FT_EDATA);
    CHECK_HAS(ft_status_report(), "is a damaged Parquet file: it is cut off");
    ft_status_clear();
    CHECK_INT(read_changed(GOLDEN "plain.parquet", 6, -1, 0), FT_EDATA);
    ft_status_clear();
    /* within the first page, which has a checksum */
    CHECK_INT(read_changed(GOLDEN "pages.parquet", 1 << 24, 60, 0x55), FT_EDATA);
    CHECK_HAS(ft_status_report(), "column 'text'");
    ft_status_clear();
}
