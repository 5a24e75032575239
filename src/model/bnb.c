/* The folders of bitsandbytes: 4-bit weights with their state beside, and 8-bit ones. */
#include "model/quantised.h"

static const char *const states[] = {".weight.quant_state.bitsandbytes__nf4",
                                     ".weight.quant_state.bitsandbytes__fp4"};

/* The JSON beside a weight's codes. */
static int read_state(const struct ft_model *m, const struct ft_weight *w, json_t **root)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = ft_plane_find(m, w, states[0], &file);
    char *text;
    e = e ? e : ft_plane_find(m, w, states[1], &file);
    if (!e)
        return ft_plane_missing(w, states[0]);
    if (ft_plane_size(e) > 1 << 16)
        return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                          "tensor '%s' has %zu bytes, too many for a quantisation's state", e->name,
                          ft_plane_size(e));
    FT_TRY(ft_alloc(&text, ft_plane_size(e) + 1, 1));
    int rc = ft_st_read(file, e, 0, ft_plane_size(e), text);
    if (!rc)
        rc = ft_json_text(text, ft_plane_size(e), e->name, FT_EDATA, root);
    ft_free(text);
    return rc;
}

static int bad_state(const struct ft_weight *w, const char *what)
{
    return ft_fail_at(ft_plane_where(w), FT_EDATA, "the quantisation's state of '%s': %s", w->name,
                      what);
}

static int check_state(const struct ft_weight *w, const json_t *root, int64_t *block)
{
    const json_t *shape = json_object_get(root, "shape");
    const json_t *nested = json_object_get(root, "nested_blocksize");
    const int64_t rows = json_integer_value(json_array_get(shape, 0)),
                  cols = json_integer_value(json_array_get(shape, 1));
    *block = json_integer_value(json_object_get(root, "blocksize"));
    if (json_array_size(shape) != 2 || rows != w->rows || cols != w->cols)
        return ft_fail_at(
            ft_plane_where(w), FT_EDATA,
            "the quantisation's state of '%s' has the shape (%lld, %lld), config.json "
            "implies (%lld, %lld)",
            w->name, (long long)rows, (long long)cols, (long long)w->rows, (long long)w->cols);
    if (*block < 32 || *block > 4096 || (*block & (*block - 1)))
        return bad_state(w, "'blocksize' is not a power of two from 32 to 4096");
    if (nested && json_integer_value(nested) != FT_NESTED_BLOCK)
        return bad_state(w, "'nested_blocksize' is not 256");
    if (nested && !json_is_number(json_object_get(root, "nested_offset")))
        return bad_state(w, "it has no 'nested_offset'");
    return FT_OK;
}

/* The sizes of all planes. */
static int check_bnb4(const struct ft_model *m, const struct ft_weight *w)
{
    const struct ft_tensor t = ft_weight_tensor(w);
    size_t bytes[FT_PLANES];
    ft_plane_bytes(&t, bytes);
    FT_TRY(ft_plane_read(m, w, ".weight", NULL, bytes[FT_CODES]));
    FT_TRY(ft_plane_read(m, w, ".weight.absmax", NULL, bytes[FT_SCALES]));
    FT_TRY(ft_plane_read(m, w, ".weight.quant_map", NULL, bytes[FT_CODE]));
    if (w->as == FT_BNB4)
        return FT_OK;
    FT_TRY(ft_plane_read(m, w, ".weight.nested_absmax", NULL, bytes[FT_SECOND]));
    return ft_plane_read(m, w, ".weight.nested_quant_map", NULL, bytes[FT_SECOND_CODE]);
}

static int open_bnb4(const struct ft_model *m, struct ft_weight *w)
{
    json_t *root = NULL;
    int64_t block;
    int rc = read_state(m, w, &root);
    if (!rc)
        rc = check_state(w, root, &block);
    if (!rc) {
        w->as = json_object_get(root, "nested_blocksize") ? FT_BNB4_NESTED : FT_BNB4;
        w->block = (int)block;
        rc = check_bnb4(m, w);
    }
    json_decref(root);
    return rc;
}

static int load_bnb4(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                     bool scan, const struct ft_planes *q)
{
    static const char *const suffixes[FT_PLANES] = {[FT_CODES] = ".weight",
                                                    [FT_SCALES] = ".weight.absmax",
                                                    [FT_CODE] = ".weight.quant_map",
                                                    [FT_SECOND] = ".weight.nested_absmax",
                                                    [FT_SECOND_CODE] = ".weight.nested_quant_map"};
    const struct ft_tensor t = ft_weight_tensor(w);
    size_t bytes[FT_PLANES];
    json_t *root = NULL;
    (void)pool;
    ft_plane_bytes(&t, bytes);
    for (int i = 0; i < FT_OFFSET; i++) {
        if (!bytes[i])
            continue;
        FT_TRY(ft_plane_read(m, w, suffixes[i], q->p[i], bytes[i]));
        if (scan && i > FT_CODES && !(i == FT_SCALES && w->as == FT_BNB4_NESTED))
            FT_TRY(ft_plane_finite(w, suffixes[i], q->p[i], bytes[i] / sizeof(float)));
    }
    if (w->as == FT_BNB4)
        return FT_OK;
    FT_TRY(read_state(m, w, &root));
    *(float *)q->p[FT_OFFSET] = (float)json_number_value(json_object_get(root, "nested_offset"));
    json_decref(root);
    return FT_OK;
}

static int open_bnb8(const struct ft_model *m, struct ft_weight *w)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *format = ft_plane_find(m, w, ".weight_format", &file);
    uint8_t row_major = 0;
    w->as = FT_INT8_ROWS;
    if (format && ft_plane_size(format) == 1)
        FT_TRY(ft_st_read(file, format, 0, 1, &row_major));
    if (row_major)
        return ft_fail_at(ft_plane_where(w), FT_EDATA,
                          "'%s' is not stored row by row (its weight_format is %d)", w->name,
                          row_major);
    FT_TRY(ft_plane_read(m, w, ".weight", NULL, (size_t)(w->rows * w->cols)));
    return ft_plane_numbers(m, w, ".SCB", NULL, (size_t)w->rows, false);
}

static int load_bnb8(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                     bool scan, const struct ft_planes *q)
{
    (void)pool;
    FT_TRY(ft_plane_read(m, w, ".weight", q->p[FT_CODES], (size_t)(w->rows * w->cols)));
    return ft_plane_numbers(m, w, ".SCB", q->p[FT_SCALES], (size_t)w->rows, scan);
}

const struct ft_way ft_bnb4_way = {
    .method = "bitsandbytes",
    .mark = ".weight.absmax",
    .codes = ".weight",
    .planes = {".weight.absmax", ".weight.quant_map", ".weight.nested_absmax",
               ".weight.nested_quant_map", ".weight.quant_state.bitsandbytes__nf4",
               ".weight.quant_state.bitsandbytes__fp4"},
    .open = open_bnb4,
    .load = load_bnb4,
};

const struct ft_way ft_bnb8_way = {
    .method = "bitsandbytes",
    .mark = ".SCB",
    .codes = ".weight",
    .planes = {".SCB", ".weight_format"},
    .open = open_bnb8,
    .load = load_bnb8,
};
