/* Records of data files. */
#include "io/records.h"
#include "core/mem.h"
#include "tests/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static char path[128];

static void write_bytes(const char *name, const char *p, size_t n, bool gz)
{
    snprintf(path, sizeof path, "/tmp/ft-records-%ld-%s", (long)getpid(), name);
    if (gz) {
        gzFile f = gzopen(path, "wb");
        CHECK_INT(gzwrite(f, p, (unsigned)n), n);
        gzclose(f);
        return;
    }
    FILE *f = fopen(path, "wb");
    CHECK_INT(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* The records as JSON, each behind its line number: "1:{...} 3:{...}"; a bad one as "2:!". */
static const char *read_all(const char *type, int *rc)
{
    static char out[4096];
    struct ft_records *r;
    struct ft_raw raw = {0};
    bool more = true;
    out[0] = 0;
    *rc = ft_records_open(&r, path, type);
    while (*rc == FT_OK && (*rc = ft_records_next(r, &raw, &more)) == FT_OK && more) {
        const size_t n = strlen(out);
        json_t *v;
        int bad = ft_record_parse(r, &raw, &v);
        char *text = bad ? NULL : json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
        snprintf(out + n, sizeof out - n, "%s%d:%s", n ? " " : "", raw.line, text ? text : "!");
        json_decref(v);
        free(text);
    }
    ft_records_close(r);
    ft_raw_free(&raw);
    unlink(path);
    return out;
}

static void expect(const char *name, const char *text, const char *want)
{
    int rc;
    for (int gz = 0; gz < 2; gz++) {
        char full[64];
        snprintf(full, sizeof full, "%s%s", name, gz ? ".gz" : "");
        write_bytes(full, text, strlen(text), gz);
        CHECK_TEXT(read_all(NULL, &rc), want);
        CHECK_INT(rc, FT_OK);
    }
    ft_status_clear();
}

CASE(lines_of_json)
{
    expect("a.jsonl", "{\"a\":1}\n\n  \n{\"b\":\"\\u0000\"}\r\n[2]",
           "1:{\"a\":1} 4:{\"b\":\"\\u0000\"} 5:[2]");
    expect("a.ndjson", "\xef\xbb\xbf{\"a\":1}\n", "1:{\"a\":1}");
    expect("a.jsonl", "", "");
    expect("a.jsonl", "{\n{\"a\":\"\xff\"}\n{\"a\":1,\"a\":2}\n1\n", "1:! 2:! 3:! 4:1");
}

CASE(json_in_a_list_or_one_after_the_other)
{
    expect("a.json", "[]", "");
    expect("a.json", " [ {\"a\": \"],[{\\\"\"} ,\n{\"b\": [1, {\"c\": 2}]}\n, 3, \"x\" ] \n",
           "1:{\"a\":\"],[{\\\"\"} 2:{\"b\":[1,{\"c\":2}]} 3:3 3:\"x\"");
    expect("a.json", "{\"a\":1}\n{\n\"b\":\n2}\n", "1:{\"a\":1} 2:{\"b\":2}");
    expect("a.json", "[{\"a\": }, {\"b\": 1}]", "1:! 1:{\"b\":1}");
    static const char *const broken[] = {"[{\"a\": 1}", "[{\"a\": 1} {\"b\": 2}]",
                                         "[{\"a\": 1]", "[1] 2",
                                         "x",           "[,1]",
                                         "[1,]",        "[{\"a\": \"",
                                         "{\"a\": 1",   "[1,,2]"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        int rc;
        write_bytes("b.json", broken[i], strlen(broken[i]), false);
        read_all(NULL, &rc);
        if (rc != FT_EDATA)
            check_fail(broken[i], rc, "is taken");
        CHECK_HAS(ft_status_report(), "b.json:1: error:");
        ft_status_clear();
    }
}

CASE(lines_of_text)
{
    expect("a.txt", "one\r\n\n tw\"o\n",
           "1:{\"text\":\"one\"} 2:{\"text\":\"\"} 3:{\"text\":\" tw\\\"o\"}");
    expect("a.txt", "no end", "1:{\"text\":\"no end\"}");
    expect("a.txt", "bad \xc3\nok\n", "1:! 2:{\"text\":\"ok\"}");
}

CASE(csv_as_rfc_4180_has_it)
{
    expect("a.csv", "text,n\r\nplain,1\r\n\"a, \"\"b\"\"\nc\",2\r\n\n,\nit\"s,\"\"\nlast,\"4\"",
           "2:{\"text\":\"plain\",\"n\":\"1\"} 3:{\"text\":\"a, \\\"b\\\"\\nc\",\"n\":\"2\"} "
           "6:{\"text\":null,\"n\":null} 7:{\"text\":\"it\\\"s\",\"n\":null} "
           "8:{\"text\":\"last\",\"n\":\"4\"}");
    expect("a.csv", "a,b\n1\n1,2,3\n", "2:{\"a\":\"1\",\"b\":null} 3:!");
    expect("a.csv", "a\n", "");
    int rc;
    write_bytes("a.csv", "a,b\n1,\"2\n3\n", 11, false);
    read_all(NULL, &rc);
    CHECK_INT(rc, FT_EDATA);
    CHECK_HAS(ft_status_report(), "a.csv:2: error: the file ends within quotes");
    ft_status_clear();
    /* an index that pandas wrote */
    expect("a.csv", ",text\n0,x\n", "2:{\"Unnamed: 0\":\"0\",\"text\":\"x\"}");
    write_bytes("a.csv", "a,a\n1,2\n", 8, false);
    read_all(NULL, &rc);
    CHECK_INT(rc, FT_EDATA);
    CHECK_HAS(ft_status_report(), "two columns are called 'a'");
    ft_status_clear();
}

CASE(what_cannot_be_read)
{
    static const struct {
        const char *name, *type, *bytes;
        size_t n;
        const char *message;
    } cases[] = {{"a.parquet", NULL, "PAR1", 4, "damaged Parquet file: it is cut off"},
                 {"a.parquet", NULL, "{}", 2, "is not a Parquet file"},
                 {"a.jsonl", NULL, "PAR1xxxx", 8, "Parquet"},
                 {"a.bin", NULL, "x", 1, "no kind of file"},
                 {"a.jsonl", "arrow", "x", 1, "no kind of file that ft reads: arrow"},
                 {"a.jsonl", NULL, "\xff\xfe{\0", 4, "UTF-16"},
                 {"a.jsonl.gz", NULL, "\x1f\x8b\x08\0\0\0\0\0\0\x03\x33\x34", 12, "as gzip"}};
    int rc;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_bytes(cases[i].name, cases[i].bytes, cases[i].n, false);
        read_all(cases[i].type, &rc);
        CHECK_INT(rc, FT_EDATA);
        CHECK_HAS(ft_status_report(), cases[i].message);
        ft_status_clear();
    }
    write_bytes("z.jsonl", "{\"a\": 1}\n{\"\0\": 1}\n{\"b\": 1}\n", 27, false);
    CHECK_TEXT(read_all(NULL, &rc), "1:{\"a\":1} 2:! 3:{\"b\":1}");
    CHECK_HAS(ft_status_report(), "z.jsonl:2:3: error: has a zero byte");
    ft_status_clear();
    snprintf(path, sizeof path, "/tmp");
    struct ft_records *r;
    CHECK_INT(ft_records_open(&r, "/tmp", "text"), FT_EDATA);
    CHECK_HAS(ft_status_report(), "is a folder");
    CHECK_INT(ft_records_open(&r, "/nosuch.jsonl", NULL), FT_EDATA);
    ft_status_clear();
    /* a name that says nothing */
    write_bytes("data", "{\"a\": 1}\n{\"b\": 2}\n", 18, false);
    CHECK_TEXT(read_all("json", &rc), "1:{\"a\":1} 2:{\"b\":2}");
}

CASE(a_line_that_is_too_long_is_one_bad_record)
{
    const size_t n = (size_t)80 << 20;
    char *big;
    int rc;
    CHECK_INT(ft_alloc(&big, n, 1), FT_OK);
    memset(big, 'x', n);
    memcpy(big, "\"ok\"\n\"", 6);
    memcpy(big + n - 8, "\"\n\"end\"\n", 8);
    write_bytes("big.jsonl", big, n, false);
    ft_free(big);
    CHECK_TEXT(read_all(NULL, &rc), "1:\"ok\" 2:! 3:\"end\"");
    CHECK_INT(rc, FT_OK);
    CHECK_HAS(ft_status_report(), "big.jsonl:2: error: a record of more than 64 MiB");
    ft_status_clear();
}
