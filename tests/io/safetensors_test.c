/* The safetensors reader against valid, broken and hostile files; the writer against the reader. */
#include "core/file.h"
#include "core/mem.h"
#include "core/rng.h"
#include "io/safetensors.h"
#include "tests/check.h"

#include <stdlib.h>
#include <unistd.h>

static char path[64];

static void write_bytes(const void *data, size_t n)
{
    strcpy(path, "/tmp/ft-st-XXXXXX");
    int fd = mkstemp(path);
    FT_ASSERT(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

/* A file with this header and `data` zero bytes behind it. */
static void write_file(const char *header, size_t data)
{
    size_t n = strlen(header);
    unsigned char *buf;
    FT_ASSERT(ft_alloc(&buf, 8 + n + data, 1) == FT_OK);
    for (int i = 0; i < 8; i++)
        buf[i] = (unsigned char)(n >> (8 * i));
    memcpy(buf + 8, header, n);
    write_bytes(buf, 8 + n + data);
    ft_free(buf);
}

static void expect(int code, const char *part)
{
    struct ft_st *f;
    ft_status_clear();
    CHECK_INT(ft_st_open(&f, path), code);
    if (code)
        CHECK_HAS(ft_status_report(), part);
    ft_st_close(f);
    unlink(path);
}

#define T(name, dtype, shape, from, to)                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to   \
    "]}"

CASE(valid_files_are_read)
{
    write_file("{" T("a", "F32", "[2,3]", 0, 24) "," T("b", "U8", "[]", 24, 25) "}", 25);
    expect(FT_OK, "");
    write_file("  {" T("a", "BF16", "[0,3]", 0, 0) ",\"__metadata__\":{\"k\":\"v\"}}   ", 0);
    expect(FT_OK, "");
    write_file("{}", 0);
    expect(FT_OK, "");
    write_file("{" T("b", "F4", "[4]", 0, 2) "," T("a", "F8_E4M3", "[3]", 2, 5) "}", 5);
    expect(FT_OK, "");
}

CASE(every_rule_of_the_format_is_enforced)
{
    write_bytes("1234567", 7);
    expect(FT_EDATA, "too few");
    write_bytes("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    expect(FT_EDATA, "header would be");
    write_bytes("\x40\0\0\0\0\0\0\0{}", 10);
    expect(FT_EDATA, "is cut");
    write_bytes("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 56);
    expect(FT_EDATA, "Git LFS pointer");
    write_file("[1]", 0);
    expect(FT_EDATA, "not a JSON object");
    write_file("{\"a\":", 0);
    expect(FT_EDATA, "not valid JSON");
    write_file("{\"\xff\":1}", 0);
    expect(FT_EDATA, "not valid JSON");
    write_file("{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 4, 8) "}", 8);
    expect(FT_EDATA, "duplicate");
    write_file("{" T("a", "Q8", "[1]", 0, 4) "}", 4);
    expect(FT_EDATA, "unknown dtype 'Q8'");
    write_file("{" T("a", "F32", "[-1]", 0, 4) "}", 4);
    expect(FT_EDATA, "'a'");
    write_file("{" T("a", "F32", "[1.5]", 0, 4) "}", 4);
    expect(FT_EDATA, "'a'");
    write_file("{" T("a", "F32", "[1]", -4, 0) "}", 4);
    expect(FT_EDATA, "'a'");
    write_file("{" T("a", "F32", "[1]", 4, 0) "}", 4);
    expect(FT_EDATA, "ends before");
    write_file("{" T("a", "F32", "[2]", 0, 4) "}", 4);
    expect(FT_EDATA, "shape and dtype");
    write_file("{" T("a", "F32", "[4611686018427387904,16]", 0, 4) "}", 4);
    expect(FT_EDATA, "overflows");
    write_file("{" T("a", "F4", "[3]", 0, 2) "}", 2);
    expect(FT_EDATA, "12 bits");
    write_file("{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 2, 6) "}", 6);
    expect(FT_EDATA, "overlap");
    write_file("{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", 12);
    expect(FT_EDATA, "hole");
    write_file("{" T("a", "F32", "[1]", 4, 8) "}", 8);
    expect(FT_EDATA, "hole");
    write_file("{" T("a", "F32", "[1]", 0, 4) "}", 3);
    expect(FT_EDATA, "is cut");
    write_file("{" T("a", "F32", "[1]", 0, 4) "}", 5);
    expect(FT_EDATA, "behind its tensors");
    write_file("{\"__metadata__\":{\"a\":1}}", 0);
    expect(FT_EDATA, "__metadata__");
    write_file("{\"a\":{\"dtype\":\"F32\"}}", 0);
    expect(FT_EDATA, "needs");
    write_file("{\"a\":7}", 0);
    expect(FT_EDATA, "needs");
    write_file("{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1);
    expect(FT_EDATA, "dimensions");
}

CASE(a_file_that_shrinks_is_an_error_not_a_signal)
{
    struct ft_st *f;
    char buf[4096];
    write_file("{" T("a", "F32", "[1024]", 0, 4096) "}", 4096);
    CHECK_INT(ft_st_open(&f, path), FT_OK);
    CHECK(truncate(path, 1000) == 0);
    ft_status_clear();
    CHECK_INT(ft_st_read(f, ft_st_find(f, "a"), 0, 4096, buf), FT_ERESOURCE);
    CHECK_HAS(ft_status_report(), "cut while being read");
    ft_st_close(f);
    unlink(path);
}

CASE(what_is_written_is_read_back)
{
    static const char *const meta[][2] = {{"format", "pt"}};
    float a[6] = {1, 2, 3, 4, 5, 6}, back[6];
    uint8_t b[3] = {7, 8, 9};
    struct ft_st_item items[] = {
        {.name = "z.u8", .dtype = FT_U8, .n_dims = 1, .dims = {3}, .data = b},
        {.name = "a.f32", .dtype = FT_F32, .n_dims = 2, .dims = {2, 3}, .data = a},
    };
    struct ft_st *f;
    write_bytes("", 0);
    CHECK_INT(ft_st_write(path, items, 2, meta, 1), FT_OK);
    CHECK_INT(ft_st_open(&f, path), FT_OK);
    CHECK_INT(ft_st_count(f), 2);
    CHECK_TEXT(ft_st_at(f, 0)->name, "a.f32"); /* wider dtypes first */
    CHECK_INT(ft_st_at(f, 0)->begin % 8, 0);
    CHECK_TEXT(ft_st_metadata(f, "format"), "pt");
    CHECK_INT(ft_st_read(f, ft_st_find(f, "a.f32"), 0, sizeof back, back), FT_OK);
    CHECK(memcmp(a, back, sizeof a) == 0);
    CHECK(ft_st_find(f, "nothing") == NULL);
    ft_st_close(f);
    unlink(path);
}

CASE(a_failed_write_leaves_the_old_file)
{
    struct ft_st_item item = {
        .name = "a", .dtype = FT_F32, .n_dims = 1, .dims = {1}, .data = "1234"};
    ft_status_clear();
    CHECK_INT(ft_st_write("/dev/null/x", &item, 1, NULL, 0), FT_ERESOURCE);
    CHECK_HAS(ft_status_report(), "/dev/null/x");
}

CASE(damaged_files_never_crash)
{
    static const char header[] =
        "{" T("a", "F32", "[2,3]", 0, 24) "," T("b", "U8", "[5]", 24, 29) "}";
    struct ft_rng rng = ft_rng_init(1, FT_RNG_TEST, 2, 3);
    for (int round = 0; round < 3000; round++) {
        unsigned char buf[256];
        size_t n = sizeof header - 1, size = 8 + n + 29;
        memset(buf, 0, sizeof buf);
        buf[0] = (unsigned char)n;
        memcpy(buf + 8, header, n);
        for (uint32_t k = 1 + ft_rng_below(&rng, 4); k > 0; k--)
            buf[ft_rng_below(&rng, (uint32_t)size)] = (unsigned char)ft_rng_u32(&rng);
        if (ft_rng_below(&rng, 4) == 0)
            size = ft_rng_below(&rng, (uint32_t)size);
        write_bytes(buf, size);
        struct ft_st *f;
        ft_status_clear();
        int rc = ft_st_open(&f, path);
        CHECK(rc == FT_OK || (rc == FT_EDATA && ft_status_errors() > 0));
        ft_st_close(f);
        unlink(path);
    }
}
