/* MXFP4 as gpt-oss has it: of each expert's matrix, (out, in / 32, 16) bytes of two codes that
 * follow each other, the first in the low half, and a scale for 32. In memory they are GGUF's
 * blocks of the same numbers: the scale, then 16 bytes that hold code i and code i + 16. */
#include "model/quantised.h"

enum { CODES = 16, BLOCK = 32, BYTES = 17 };

static int check_plane(const struct ft_weight *w, const struct ft_st *file,
                       const struct ft_st_entry *e, int64_t last)
{
    const int64_t rows = w->rows / w->parts, blocks = w->cols / BLOCK;
    const bool fits = e->n_dims == (last > 1 ? 4 : 3) && e->dims[0] == w->parts &&
                      e->dims[1] == rows && e->dims[2] == blocks && w->cols % BLOCK == 0 &&
                      (last == 1 || e->dims[3] == last);
    if (e->dtype != FT_U8)
        return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                          "tensor '%s' is %s, not U8", e->name, e->dtype_name);
    return fits ? FT_OK
                : ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                             "tensor '%s' is not of %d experts' matrices of %lld x %lld in blocks "
                             "of %d",
                             e->name, w->parts, (long long)rows, (long long)w->cols, BLOCK);
}

static int open_mxfp4(const struct ft_model *m, struct ft_weight *w)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *scales = ft_plane_find(m, w, "_scales", &file);
    if (!w->parts)
        return ft_fail_at(ft_plane_where(w), FT_EDATA,
                          "tensor '%s': ft reads MXFP4 of experts alone", w->entry->name);
    FT_TRY(check_plane(w, file, scales, 1));
    FT_TRY(check_plane(w, w->file, w->entry, CODES));
    w->as = FT_MXFP4;
    w->block = 0;
    return FT_OK;
}

static void pack(uint8_t *out, uint8_t scale, const uint8_t *codes)
{
    out[0] = scale;
    for (int i = 0; i < CODES; i++) {
        const uint8_t low = codes[i / 2], high = codes[CODES / 2 + i / 2];
        out[1 + i] = (uint8_t)((low >> i % 2 * 4 & 15) | (high >> i % 2 * 4 & 15) << 4);
    }
}

/* One expert's, row by row. */
static int load_mxfp4(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                      bool scan, const struct ft_planes *q)
{
    const size_t blocks = (size_t)(w->cols / BLOCK);
    struct ft_st *file = NULL;
    const struct ft_st_entry *scales = ft_plane_find(m, w, "_scales", &file);
    uint8_t *row, *out = q->p[FT_CODES];
    (void)pool;
    FT_TRY(ft_alloc(&row, blocks * BYTES, 1));
    int rc = FT_OK;
    for (int64_t r = 0; r < w->rows && !rc; r++, out += blocks * BYTES) {
        const int64_t at = (w->first + r) * (int64_t)blocks;
        rc = ft_st_read(w->file, w->entry, at * CODES, blocks * CODES, row);
        if (!rc)
            rc = ft_st_read(file, scales, at, blocks, row + blocks * CODES);
        for (size_t i = 0; i < blocks && !rc; i++)
            pack(out + i * BYTES, row[blocks * CODES + i], row + i * CODES);
        for (size_t i = 0; i < blocks && scan && !rc; i++)
            if (row[blocks * CODES + i] == 255)
                rc = ft_fail_at(ft_plane_where(w), FT_EDATA,
                                "tensor '%s' holds NaN or infinite values", scales->name);
    }
    ft_free(row);
    return rc;
}

const struct ft_way ft_mxfp4_way = {.method = "mxfp4",
                                    .mark = "_scales",
                                    .codes = "_blocks",
                                    .planes = {"_blocks", "_scales"},
                                    .open = open_mxfp4,
                                    .load = load_mxfp4};
