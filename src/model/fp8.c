/* The folders of fine-grained FP8 (quant_method fp8: a scale for each block of 128 x 128) and of
 * compressed-tensors' FP8 (a scale for the tensor, each row, or each block). */
#include "model/quantised.h"

/* Rows and columns that one scale is for. */
struct grid {
    int64_t rows, cols;
};

static int read_config(struct ft_model *m, const json_t *q, const char *file)
{
    const json_t *block = ft_json_get(q, "weight_block_size");
    m->said.block[0] = m->said.block[1] = 128;
    for (size_t i = 0; i < 2 && block; i++) {
        const json_t *n = json_array_get(block, i);
        if (json_array_size(block) != 2 || !json_is_integer(n) || json_integer_value(n) < 1 ||
            json_integer_value(n) > 1 << 20)
            return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                              "'weight_block_size' is not two whole numbers");
        m->said.block[i] = json_integer_value(n);
    }
    return FT_OK;
}

static int check_codes(const struct ft_weight *w)
{
    const struct ft_st_entry *e = w->entry;
    if (e->dtype != FT_F8_E4M3)
        return ft_fail_at(ft_plane_where(w), FT_EDATA,
                          "tensor '%s' is %s, and has scales: ft reads F8_E4M3 there", e->name,
                          e->dtype_name);
    if (e->n_dims != 2 || e->dims[0] != w->rows || e->dims[1] != w->cols)
        return ft_fail_at(ft_plane_where(w), FT_EDATA,
                          "tensor '%s' is not %lld x %lld, as config.json implies", e->name,
                          (long long)w->rows, (long long)w->cols);
    return FT_OK;
}

static size_t scales_of(const struct ft_weight *w, struct grid g)
{
    return ft_blocks_of((size_t)w->rows, (size_t)g.rows) *
           ft_blocks_of((size_t)w->cols, (size_t)g.cols);
}

static int open_blocks(const struct ft_model *m, struct ft_weight *w)
{
    const struct grid g = {m->said.block[0], m->said.block[1]};
    w->as = FT_FP8_BLOCKS;
    w->block = (int)(g.cols < w->cols ? g.cols : w->cols);
    FT_TRY(check_codes(w));
    return ft_plane_numbers(m, w, ".weight_scale_inv", NULL, scales_of(w, g), false);
}

/* The scales' shape says what each is for: the tensor, a row, or a block of 128 x 128. */
static int grid_of(const struct ft_model *m, const struct ft_weight *w, struct grid *g)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = ft_plane_find(m, w, ".weight_scale", &file);
    const size_t n = ft_plane_size(e) / (e->dtype < FT_DTYPE_COUNT ? ft_dtype_size(e->dtype) : 1);
    const struct grid grids[] = {{w->rows, w->cols}, {1, w->cols}, {128, 128}};
    for (int i = 0; i < 3; i++)
        if (n == scales_of(w, grids[i])) {
            *g = grids[i];
            return FT_OK;
        }
    return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                      "tensor '%s' has %zu numbers: ft reads one, one a row, or one for 128 x 128",
                      e->name, n);
}

static int open_ct(const struct ft_model *m, struct ft_weight *w)
{
    struct grid g;
    w->as = FT_FP8_BLOCKS;
    FT_TRY(check_codes(w));
    FT_TRY(grid_of(m, w, &g));
    w->block = (int)(g.cols < w->cols ? g.cols : w->cols);
    return ft_plane_numbers(m, w, ".weight_scale", NULL, scales_of(w, g), false);
}

/* The scales of a grid, for each row by itself. */
static int load(const struct ft_model *m, const struct ft_weight *w, struct grid g,
                const char *suffix, bool scan, const struct ft_planes *q)
{
    const uint8_t *codes = q->p[FT_CODES];
    const size_t across = ft_blocks_of((size_t)w->cols, (size_t)w->block);
    float *scales, *out = q->p[FT_SCALES];
    FT_TRY(ft_plane_read(m, w, ".weight", q->p[FT_CODES], (size_t)(w->rows * w->cols)));
    for (int64_t i = 0; i < w->rows * w->cols; i++)
        if ((codes[i] & 0x7f) == 0x7f)
            return ft_fail_at(ft_plane_where(w), FT_EDATA, "tensor '%s' holds NaN", w->name);
    FT_TRY(ft_alloc(&scales, scales_of(w, g), sizeof *scales));
    int rc = ft_plane_numbers(m, w, suffix, scales, scales_of(w, g), scan);
    for (int64_t r = 0; r < w->rows && !rc; r++)
        for (size_t c = 0; c < across; c++)
            out[(size_t)r * across + c] = scales[(size_t)(r / g.rows) * across + c];
    ft_free(scales);
    return rc;
}

static int load_blocks(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                       bool scan, const struct ft_planes *q)
{
    (void)pool;
    return load(m, w, (struct grid){m->said.block[0], m->said.block[1]}, ".weight_scale_inv", scan,
                q);
}

static int load_ct(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                   bool scan, const struct ft_planes *q)
{
    struct grid g;
    (void)pool;
    FT_TRY(grid_of(m, w, &g));
    return load(m, w, g, ".weight_scale", scan, q);
}

/* The scales as they lie in the file, widened. */
static size_t room(const struct ft_weight *w)
{
    return (size_t)w->rows * ft_blocks_of((size_t)w->cols, (size_t)w->block) * 8;
}

const struct ft_way ft_fp8_way = {
    .method = "fp8",
    .mark = ".weight_scale_inv",
    .codes = ".weight",
    .planes = {".weight_scale_inv", ".activation_scale", ".input_scale"},
    .config = read_config,
    .open = open_blocks,
    .load = load_blocks,
    .room = room,
};

const struct ft_way ft_ct_fp8_way = {
    .method = "compressed-tensors",
    .mark = ".weight_scale",
    .codes = ".weight",
    .planes = {".weight_scale", ".input_scale", ".weight_zero_point", ".input_zero_point"},
    .open = open_ct,
    .load = load_ct,
    .room = room,
};
