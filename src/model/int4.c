/* Folders of 4-bit codes in groups along a row: compressed-tensors' "pack-quantized", GPTQ and AWQ.
 */
#include "model/quantised.h"

#include <stdio.h>
#include <string.h>

static int refuse_config(const char *file, const char *what, const char *is, const char *reads)
{
    return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                      "quantization_config: '%s' is %s; ft reads %s", what, is, reads);
}

static int must_be_4(const json_t *q, const char *file, const char *key)
{
    char is[32];
    const json_t *bits = json_object_get(q, key);
    snprintf(is, sizeof is, "%lld", (long long)json_integer_value(bits));
    return json_integer_value(bits) == 4 ? FT_OK : refuse_config(file, key, is, "4");
}

static int read_group(struct ft_model *m, const json_t *q, const char *file)
{
    const json_t *group = json_object_get(q, "group_size");
    m->said.group = group ? json_integer_value(group) : 128;
    if (m->said.group == -1 || (m->said.group >= 1 && m->said.group <= 1 << 20))
        return FT_OK;
    return refuse_config(file, "group_size", "not -1 or a count", "a count of columns");
}

/* --- what all have: codes, scales, zeros and groups as ft keeps them --- */

static int64_t groups_of(const struct ft_weight *w)
{
    return (w->cols + w->block - 1) / w->block;
}

/* Codes lie in words of 32 bits; others' bytes would be in another order. */
static int check_words(const struct ft_model *m, const struct ft_weight *w, const char *suffix,
                       size_t n)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = ft_plane_find(m, w, suffix, &file);
    if (e && e->dtype != FT_I32 && e->dtype != FT_U32)
        return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                          "tensor '%s' is %s; ft reads codes in words of I32", e->name,
                          e->dtype_name);
    return ft_plane_read(m, w, suffix, NULL, 4 * n);
}

/* All of such a tensor. Caller frees. */
static int read_words(const struct ft_model *m, const struct ft_weight *w, const char *suffix,
                      size_t n, uint32_t **out)
{
    FT_TRY(ft_alloc(out, n, sizeof **out));
    int rc = ft_plane_read(m, w, suffix, *out, 4 * n);
    if (rc) {
        ft_free(*out);
        *out = NULL;
    }
    return rc;
}

/* A column's group: as the file lists it, or by its place. */
static int read_groups(const struct ft_model *m, const struct ft_weight *w, const char *suffix,
                       const struct ft_planes *q)
{
    int32_t *groups = q->p[FT_GROUPS];
    struct ft_st *file = NULL;
    for (int64_t c = 0; c < w->cols; c++)
        groups[c] = (int32_t)(c / w->block);
    if (!ft_plane_find(m, w, suffix, &file))
        return FT_OK;
    FT_TRY(ft_plane_read(m, w, suffix, groups, 4 * (size_t)w->cols));
    for (int64_t c = 0; c < w->cols; c++) {
        if (groups[c] == -1) /* as compressed-tensors writes: by its place */
            groups[c] = (int32_t)(c / w->block);
        if (groups[c] < 0 || groups[c] >= groups_of(w))
            return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                              "a column of '%s' is of group %d, there are %lld", w->name, groups[c],
                              (long long)groups_of(w));
    }
    return FT_OK;
}

static uint8_t nibble(const uint32_t *words, int64_t i, int at)
{
    return words[i] >> (4 * at) & 15;
}

static void put_code(const struct ft_planes *q, int64_t row, int64_t col, uint8_t code)
{
    uint8_t *byte = (uint8_t *)q->p[FT_CODES] + row * ((q->cols + 1) / 2) + col / 2;
    *byte = (uint8_t)(col % 2 ? (*byte & 15) | code << 4 : (*byte & 0xf0) | code);
}

static size_t codes_room(const struct ft_weight *w)
{
    const size_t rows = ((size_t)w->rows + 7) / 8 * 8, cols = ((size_t)w->cols + 7) / 8 * 8;
    return rows * cols / 2 + rows * (size_t)groups_of(w) * 8;
}

/* --- compressed-tensors: rows of words, 8 codes each, the lowest first --- */

static int check_ct(const json_t *q, const char *file)
{
    const char *name;
    json_t *group;
    json_object_foreach(json_object_get(q, "config_groups"), name, group)
    {
        const json_t *weights = json_object_get(group, "weights");
        const char *type = json_string_value(json_object_get(weights, "type"));
        const int64_t bits = json_integer_value(json_object_get(weights, "num_bits"));
        if (weights && !(bits == 4 && type && strcmp(type, "int") == 0) &&
            !(bits == 8 && type && strcmp(type, "float") == 0))
            return refuse_config(file, name, "of another kind", "int of 4 bits and float of 8");
    }
    return FT_OK;
}

static int ct_config(struct ft_model *m, const json_t *q, const char *file)
{
    const char *format = json_string_value(json_object_get(q, "format"));
    static const char *const known[] = {"pack-quantized", "float-quantized", "naive-quantized"};
    (void)m;
    for (int i = 0; i < 3 && format; i++)
        if (strcmp(format, known[i]) == 0)
            return check_ct(q, file);
    return refuse_config(file, "format", format ? format : "missing",
                         "pack-quantized and float-quantized");
}

static int open_ct(const struct ft_model *m, struct ft_weight *w)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *scale = ft_plane_find(m, w, ".weight_scale", &file);
    const int64_t words = (w->cols + 7) / 8, up = (w->rows + 7) / 8;
    w->as = FT_INT4_GROUPS;
    if (!scale)
        return ft_plane_missing(w, ".weight_scale");
    const int64_t groups = scale->n_dims == 2 ? scale->dims[1] : 1;
    if (groups < 1 || groups > w->cols || w->cols % groups)
        return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                          "tensor '%s' has %lld groups, which do not divide %lld columns",
                          scale->name, (long long)groups, (long long)w->cols);
    w->block = (int)(w->cols / groups);
    FT_TRY(check_words(m, w, ".weight_packed", (size_t)(w->rows * words)));
    FT_TRY(ft_plane_numbers(m, w, ".weight_scale", NULL, (size_t)(w->rows * groups), false));
    const struct ft_st_entry *zeros = ft_plane_find(m, w, ".weight_zero_point", &file);
    return !zeros ? FT_OK
           : zeros->dtype == FT_I8
               ? ft_plane_read(m, w, ".weight_zero_point", NULL, (size_t)(w->rows * groups))
               : check_words(m, w, ".weight_zero_point", (size_t)(up * groups));
}

static int ct_zeros(const struct ft_model *m, const struct ft_weight *w, const struct ft_planes *q)
{
    const int64_t n = groups_of(w);
    struct ft_st *file = NULL;
    uint8_t *zeros = q->p[FT_ZEROS];
    uint32_t *words;
    memset(zeros, 8, (size_t)(w->rows * n));
    const struct ft_st_entry *e = ft_plane_find(m, w, ".weight_zero_point", &file);
    if (!e)
        return FT_OK;
    if (e->dtype == FT_I8) { /* before 0.9: numbers around 0 */
        FT_TRY(ft_plane_read(m, w, ".weight_zero_point", zeros, (size_t)(w->rows * n)));
        for (int64_t i = 0; i < w->rows * n; i++)
            zeros[i] = (uint8_t)((zeros[i] + 8) & 15);
        return FT_OK;
    }
    FT_TRY(read_words(m, w, ".weight_zero_point", (size_t)((w->rows + 7) / 8 * n), &words));
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t g = 0; g < n; g++)
            zeros[r * n + g] = nibble(words, r / 8 * n + g, (int)(r % 8));
    ft_free(words);
    return FT_OK;
}

static int load_ct(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                   bool scan, const struct ft_planes *q)
{
    const int64_t across = (w->cols + 7) / 8;
    uint32_t *words;
    (void)pool;
    FT_TRY(read_words(m, w, ".weight_packed", (size_t)(w->rows * across), &words));
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t c = 0; c < w->cols; c++)
            put_code(q, r, c, nibble(words, r * across + c / 8, (int)(c % 8)));
    ft_free(words);
    FT_TRY(ft_plane_numbers(m, w, ".weight_scale", q->p[FT_SCALES],
                            (size_t)(w->rows * groups_of(w)), scan));
    FT_TRY(ct_zeros(m, w, q));
    return read_groups(m, w, ".weight_g_idx", q);
}

const struct ft_way ft_ct_int4_way = {
    .method = "compressed-tensors",
    .mark = ".weight_packed",
    .codes = ".weight_packed",
    .planes = {".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape",
               ".weight_g_idx", ".input_scale"},
    .config = ct_config,
    .open = open_ct,
    .load = load_ct,
    .room = codes_room,
};

/* --- GPTQ: words of 8 codes that follow each other in a column of (cols, rows) --- */

static int gptq_config(struct ft_model *m, const json_t *q, const char *file)
{
    const char *format = json_string_value(json_object_get(q, "checkpoint_format"));
    FT_TRY(must_be_4(q, file, "bits"));
    FT_TRY(read_group(m, q, file));
    m->said.zero = format && strcmp(format, "gptq_v2") == 0 ? 0 : 1;
    if (format && strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0)
        return refuse_config(file, "checkpoint_format", format, "gptq and gptq_v2");
    return FT_OK;
}

static int check_even(const struct ft_weight *w)
{
    return w->rows % 8 || w->cols % 8 ? ft_fail_at(ft_plane_where(w), FT_EDATA,
                                                   "'%s' is %lld x %lld, not in words of 8 codes",
                                                   w->name, (long long)w->rows, (long long)w->cols)
                                      : FT_OK;
}

/* AutoGPTQ writes a bias for every module, of zeros where the model has none. */
static int check_bias(const struct ft_model *m, const struct ft_weight *w)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = ft_plane_find(m, w, ".bias", &file);
    float *numbers;
    bool zero = true;
    for (int i = 0; i < m->n_weights && e; i++)
        if (strcmp(m->weights[i].name, e->name) == 0)
            e = NULL; /* the model's own */
    if (!e)
        return FT_OK;
    FT_TRY(ft_alloc(&numbers, (size_t)w->rows, sizeof *numbers));
    int rc = ft_plane_numbers(m, w, ".bias", numbers, (size_t)w->rows, true);
    for (int64_t i = 0; i < w->rows && !rc; i++)
        zero &= numbers[i] == 0;
    ft_free(numbers);
    return rc || zero ? rc
                      : ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                                   "tensor '%s' is not zero, and a '%s' has no such bias", e->name,
                                   m->family->architecture);
}

/* Scales and zeros are the same in both. */
static int open_both(const struct ft_model *m, struct ft_weight *w)
{
    w->as = FT_INT4_GROUPS;
    w->block = (int)(m->said.group < 1 || m->said.group > w->cols ? w->cols : m->said.group);
    FT_TRY(check_even(w));
    FT_TRY(check_bias(m, w));
    FT_TRY(check_words(m, w, ".qweight", (size_t)(w->rows * w->cols) / 8));
    FT_TRY(check_words(m, w, ".qzeros", (size_t)(w->rows * groups_of(w)) / 8));
    return ft_plane_numbers(m, w, ".scales", NULL, (size_t)(w->rows * groups_of(w)), false);
}

/* Where in a word of AWQ the code of each of its 8 columns stands. */
static const int awq_place[8] = {0, 4, 1, 5, 2, 6, 3, 7};

/* From (groups, rows) to (rows, groups); zeros in words along the rows. GPTQ's first format has
 * them less one, of the whole word: below a zero of 0 the next one lends. */
static int load_both(const struct ft_model *m, const struct ft_weight *w, bool awq, bool scan,
                     const struct ft_planes *q)
{
    const int64_t n = groups_of(w);
    uint8_t *zeros = q->p[FT_ZEROS];
    float *scales = q->p[FT_SCALES], *numbers;
    uint32_t *words;
    FT_TRY(read_words(m, w, ".qzeros", (size_t)(w->rows * n) / 8, &words));
    for (int64_t i = 0; i < w->rows * n / 8 && !awq; i++)
        words[i] += 0x11111111u * (uint32_t)m->said.zero;
    for (int64_t g = 0; g < n; g++)
        for (int64_t r = 0; r < w->rows; r++) {
            const int at = awq ? awq_place[r % 8] : (int)(r % 8);
            zeros[r * n + g] = nibble(words, g * (w->rows / 8) + r / 8, at);
        }
    ft_free(words);
    FT_TRY(ft_alloc(&numbers, (size_t)(w->rows * n), sizeof *numbers));
    int rc = ft_plane_numbers(m, w, ".scales", numbers, (size_t)(w->rows * n), scan);
    for (int64_t i = 0; i < w->rows * n && !rc; i++)
        scales[i % w->rows * n + i / w->rows] = numbers[i];
    ft_free(numbers);
    return rc;
}

static int load_gptq(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                     bool scan, const struct ft_planes *q)
{
    uint32_t *words;
    (void)pool;
    FT_TRY(read_words(m, w, ".qweight", (size_t)(w->rows * w->cols) / 8, &words));
    for (int64_t k = 0; k < w->cols / 8; k++)
        for (int64_t r = 0; r < w->rows; r++)
            for (int i = 0; i < 8; i++)
                put_code(q, r, 8 * k + i, nibble(words, k * w->rows + r, i));
    ft_free(words);
    FT_TRY(load_both(m, w, false, scan, q));
    return read_groups(m, w, ".g_idx", q);
}

const struct ft_way ft_gptq_way = {
    .method = "gptq",
    .mark = ".qweight",
    .codes = ".qweight",
    .planes = {".qweight", ".qzeros", ".scales", ".g_idx", ".bias"},
    .config = gptq_config,
    .open = open_both,
    .load = load_gptq,
    .room = codes_room,
};

/* --- AWQ: words of 8 codes of 8 rows, in an order of their own, in (cols, rows/8) --- */

static int awq_config(struct ft_model *m, const json_t *q, const char *file)
{
    const char *version = json_string_value(json_object_get(q, "version"));
    if (version && strcmp(version, "gemm") != 0 && strcmp(version, "GEMM") != 0)
        return refuse_config(file, "version", version, "gemm");
    FT_TRY(must_be_4(q, file, json_object_get(q, "w_bit") ? "w_bit" : "bits"));
    return read_group(m, q, file);
}

static int load_awq(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                    bool scan, const struct ft_planes *q)
{
    uint32_t *words;
    (void)pool;
    FT_TRY(read_words(m, w, ".qweight", (size_t)(w->rows * w->cols) / 8, &words));
    for (int64_t c = 0; c < w->cols; c++)
        for (int64_t r = 0; r < w->rows; r++)
            put_code(q, r, c, nibble(words, c * (w->rows / 8) + r / 8, awq_place[r % 8]));
    ft_free(words);
    FT_TRY(load_both(m, w, true, scan, q));
    return read_groups(m, w, ".g_idx", q);
}

const struct ft_way ft_awq_way = {
    .method = "awq",
    .mark = ".qweight",
    .codes = ".qweight",
    .planes = {".qweight", ".qzeros", ".scales", ".bias"},
    .config = awq_config,
    .open = open_both,
    .load = load_awq,
    .room = codes_room,
};
