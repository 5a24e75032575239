/* Quantised weights against bitsandbytes' own: every byte of the planes, and every bit of what they
 * stand for. scripts/make-golden-quantised makes the files. */
#include "model/quantise.h"

#include "io/safetensors.h"
#include "kernels/backend.h"
#include "kernels/blocks.h"
#include "tests/check.h"

#include <dirent.h>
#include <stdlib.h>

#define FOLDER FT_ROOT "/tests/model/quantised"

static void *read_tensor(const struct ft_st *f, const char *kind, const char *name, size_t *bytes)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s%s", kind, kind[0] ? "." : "", name);
    const struct ft_st_entry *e = ft_st_find(f, full);
    *bytes = e ? (size_t)(e->end - e->begin) : 0;
    char *data = malloc(*bytes + 1);
    FT_ASSERT(data && (!e || ft_st_read(f, e, 0, *bytes, data) == FT_OK));
    return data;
}

/* The plane is what the file has, byte for byte. */
static void check_plane(const struct ft_st *f, const char *kind, const char *name, const void *got,
                        size_t bytes)
{
    size_t n;
    void *want = read_tensor(f, kind, name, &n);
    int64_t wrong = 0;
    for (size_t i = 0; i < n && n == bytes; i++)
        wrong += ((const uint8_t *)got)[i] != ((uint8_t *)want)[i];
    if (n != bytes || wrong)
        check_fail(ft_st_path(f), 0, "%s.%s: %lld of %zu bytes differ (%zu expected)", kind, name,
                   (long long)wrong, bytes, n);
    free(want);
}

/* What its rows stand for, in every instruction set, by segments and by products. */
static void check_value(const struct ft_st *f, const char *kind, struct ft_tensor *w)
{
    static const char *const isas[] = {"generic", "avx2", "avx512", "neon"};
    size_t n;
    float *want = read_tensor(f, kind, "value", &n);
    float *got = malloc((size_t)(w->rows * w->cols) * sizeof *got);
    int32_t ids[64] = {0};
    CHECK(n > 0 || w->rows > 100);
    for (int k = 0; k < 4 && n; k++) {
        const struct ft_backend *b;
        if (ft_cpu_backend(&b, isas[k], false)) {
            ft_status_clear();
            continue;
        }
        struct ft_tensor at = {.data = ids, .rows = w->rows, .cols = 1, .dtype = FT_I32};
        struct ft_tensor y = {.data = got, .rows = w->rows, .cols = w->cols, .dtype = FT_F32};
        for (int i = 0; i < w->rows; i++)
            ids[i] = i;
        struct ft_pool *pool;
        FT_ASSERT(ft_pool_new(&pool, 1) == FT_OK);
        const struct ft_kernel_ctx ctx = {.backend = b, .pool = pool};
        b->ops[FT_OP_embed](
            &ctx, &(union ft_op_args){.embed = {.ids = &at, .w = w, .y = &y, .scale = 1}});
        ft_pool_free(pool);
        CHECK_INT((int64_t)n, w->rows * w->cols * 4);
        if (memcmp(got, want, n) != 0)
            check_fail(ft_st_path(f), 0, "%s: other values with %s", kind, isas[k]);
    }
    free(got);
    free(want);
}

/* GGUF's types. */
static void check_block(const struct ft_st *f, enum ft_dtype type)
{
    size_t bytes, planes[FT_PLANES];
    void *codes = read_tensor(f, ft_dtype_name(type), "codes", &bytes);
    struct ft_tensor w = {.rows = 3, .cols = 512, .dtype = type, .name = "w"};
    ft_plane_bytes(&w, planes);
    CHECK_INT((int64_t)bytes, (int64_t)planes[FT_CODES]);
    w.data = calloc(1, ft_tensor_bytes(&w));
    FT_ASSERT(w.data);
    memcpy(w.data, codes, bytes);
    check_value(f, ft_dtype_name(type), &w);
    free(codes);
    free(w.data);
}

CASE(blocks_are_those_of_the_gguf_package)
{
    struct ft_st *f;
    CHECK_INT(ft_st_open(&f, FT_ROOT "/tests/model/blocks.safetensors"), FT_OK);
#define X(name, fn, elements, bytes, ...) check_block(f, FT_##name);
    FT_BLOCKS(X)
#undef X
    ft_st_close(f);
}

/* The sum of what a block filled with `fill` stands for, whose scales are 1 but the i-th, which is
 * 2. */
static double sum_of_block(enum ft_dtype type, int fill, int i)
{
    const struct ft_block_size size = ft_block_size(type);
    uint8_t block[256];
    double sum = 0;
    memset(block, fill, sizeof block);
    for (int k = 0; k < size.scales; k++) {
        const uint16_t half = k == i ? 0x4000 : 0x3c00;
        memcpy(block + size.scales_at + 2 * k, &half, sizeof half);
    }
    for (int at = 0; at < size.elements; at += 8) {
        float out[8];
        ft_block_run(out, type, block, at);
        for (int k = 0; k < 8; k++)
            sum += (double)out[k];
    }
    return sum;
}

CASE(scales_of_blocks_lie_where_the_table_says)
{
#define X(name, fn, elements, bytes, at, scales)                                                   \
    for (int i = 0; i < (scales); i++)                                                             \
        CHECK(sum_of_block(FT_##name, 0x55, i) != sum_of_block(FT_##name, 0x55, -1));
    FT_BLOCKS(X)
#undef X
}

static struct ft_tensor begin(const struct ft_st *f, enum ft_dtype dtype, int block)
{
    const struct ft_st_entry *e = ft_st_find(f, "weight");
    struct ft_tensor w = {
        .rows = e->dims[0], .cols = e->dims[1], .dtype = dtype, .block = block, .name = "w"};
    w.data = calloc(1, ft_tensor_bytes(&w));
    FT_ASSERT(w.data);
    return w;
}

static void check_4bit(const struct ft_st *f, struct ft_pool *pool, bool fp4, int block,
                       bool nested)
{
    char kind[64];
    size_t n, bytes[FT_PLANES];
    snprintf(kind, sizeof kind, "%s-%d-%s", fp4 ? "fp4" : "nf4", block,
             nested ? "nested" : "plain");
    struct ft_tensor w = begin(f, nested ? FT_BNB4_NESTED : FT_BNB4, block);
    struct ft_planes q = ft_planes_of(&w);
    void *data = read_tensor(f, "", "weight", &n);
    CHECK_INT(ft_quantise_4bit(&q, fp4, pool, data, ft_st_find(f, "weight")->dtype), FT_OK);
    ft_plane_bytes(&w, bytes);
    check_plane(f, kind, "codes", q.p[FT_CODES], bytes[FT_CODES]);
    check_plane(f, kind, "absmax", q.p[FT_SCALES], bytes[FT_SCALES]);
    check_plane(f, kind, "quant_map", q.p[FT_CODE], bytes[FT_CODE]);
    if (nested) {
        check_plane(f, kind, "nested_offset", q.p[FT_OFFSET], bytes[FT_OFFSET]);
        check_plane(f, kind, "nested_quant_map", q.p[FT_SECOND_CODE], bytes[FT_SECOND_CODE]);
        check_plane(f, kind, "nested_absmax", q.p[FT_SECOND], bytes[FT_SECOND]);
    }
    check_value(f, kind, &w);
    free(data);
    free(w.data);
}

static void check_8bit(const struct ft_st *f, struct ft_pool *pool)
{
    size_t n, bytes[FT_PLANES];
    struct ft_tensor w = begin(f, FT_INT8_ROWS, 0);
    struct ft_planes q = ft_planes_of(&w);
    void *data = read_tensor(f, "", "weight", &n);
    ft_quantise_8bit(&q, pool, data, ft_st_find(f, "weight")->dtype);
    ft_plane_bytes(&w, bytes);
    check_plane(f, "int8", "codes", q.p[FT_CODES], bytes[FT_CODES]);
    check_plane(f, "int8", "SCB", q.p[FT_SCALES], bytes[FT_SCALES]);
    check_value(f, "int8", &w);
    free(data);
    free(w.data);
}

static void each_file(void (*check)(const struct ft_st *f, struct ft_pool *pool))
{
    struct ft_pool *pool;
    struct dirent *entry;
    DIR *dir = opendir(FOLDER);
    int files = 0;
    FT_ASSERT(dir && ft_pool_new(&pool, 2) == FT_OK);
    while ((entry = readdir(dir))) {
        char path[512];
        struct ft_st *f;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, FOLDER "/%s", entry->d_name);
        CHECK_INT(ft_st_open(&f, path), FT_OK);
        check(f, pool);
        ft_st_close(f);
        files++;
    }
    CHECK(files >= 7);
    ft_pool_free(pool);
    closedir(dir);
}

static void four(const struct ft_st *f, struct ft_pool *pool)
{
    static const struct {
        bool fp4;
        int block;
        bool nested;
    } kinds[] = {{false, 64, false},
                 {false, 64, true},
                 {true, 64, true},
                 {true, 128, false},
                 {false, 4096, true}};
    const bool large = ft_st_find(f, "weight")->dims[0] > 100;
    for (int i = 0; i < 5; i++)
        if (!large || i == 1)
            check_4bit(f, pool, kinds[i].fp4, kinds[i].block, kinds[i].nested);
}

CASE(four_bits_are_those_of_bitsandbytes)
{
    each_file(four);
}

static void eight(const struct ft_st *f, struct ft_pool *pool)
{
    if (ft_st_find(f, "int8.codes"))
        check_8bit(f, pool);
}

CASE(eight_bits_are_those_of_bitsandbytes)
{
    each_file(eight);
}
