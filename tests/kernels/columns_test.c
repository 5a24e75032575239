/* row_norms, scale_columns, columns_dw, norm_dw, embed_dw against doubles. */
#include "tests/kernels/ops.h"

static void row_norms_case(struct bench *b)
{
    static const int64_t shapes[][3] = {{1, 1, 1}, {5, 33, 3}, {40, 130, 8}, {7, 576, 16}};
    for (int i = 0; i < 4; i++) {
        const int64_t n = shapes[i][0], k = shapes[i][1], r = shapes[i][2];
        struct ft_tensor *w = random_weight(n, k, FT_BF16, 1), *a = random_weight(r, k, FT_F32, 2);
        struct ft_tensor *low = random_weight(n, r, FT_F32, 3), *norm = random_master(1, n, 4);
        run_op(b, FT_OP_row_norms, &(union ft_op_args){.row_norms = {w, a, low, norm, 0.5f}});
        for (int64_t row = 0; row < n; row++) {
            double sum = 0;
            for (int64_t c = 0; c < k; c++) {
                double v = at(w, row, c);
                for (int64_t l = 0; l < r; l++)
                    v += 0.5 * at(low, row, l) * at(a, l, c);
                sum += v * v;
            }
            check_element("row_norms", b, 0, row, at(norm, 0, row), sqrt(sum),
                          tol_f32(sqrt(sum) * (double)(r + 1), (double)k));
        }
        drop_tensors();
    }
}

CASE(row_norms_match_doubles)
{
    each_backend(row_norms_case);
}

/* Norms are lengths: above 0. */
static struct ft_tensor *lengths(int64_t n, uint32_t seed)
{
    struct ft_tensor *t = random_master(1, n, seed);
    for (int64_t c = 0; c < n; c++)
        put(t, 0, c, 1.5 + at(t, 0, c));
    return t;
}

static void scale_case(struct bench *b)
{
    for (int what = 0; what < 8; what++) {
        const int64_t n = 70 + what;
        b->live = 9;
        struct ft_tensor *x = random_tensor(b, n, 1), *m = random_master(1, n, 2);
        struct ft_tensor *norm = what & 1 ? lengths(n, 3) : NULL;
        struct ft_tensor *bias = what & 2 ? random_weight(1, n, FT_F16, 4) : NULL;
        struct ft_tensor *add = what & 4 ? random_tensor(b, n, 5) : NULL, *y = empty_tensor(b, n);
        run_op(b, FT_OP_scale_columns,
               &(union ft_op_args){.scale_columns = {x, m, norm, bias, add, y}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t c = 0; c < n; c++) {
                double want = at(x, t, c) * at(m, 0, c) / (norm ? at(norm, 0, c) : 1);
                want += (bias ? at(bias, 0, c) : 0) + (add ? at(add, t, c) : 0);
                check_element("scale_columns", b, t, c, at(y, t, c), want, tol(b, 5, 4));
            }
        check_poison(b, y);
        drop_tensors();
    }
}

CASE(scale_columns_matches_doubles)
{
    each_backend(scale_case);
}

static void columns_dw_case(struct bench *b)
{
    for (int what = 0; what < 4; what++) {
        const int64_t n = 130 + what;
        b->live = 41;
        struct ft_tensor *dy = random_tensor(b, n, 1),
                         *x = what & 1 ? random_tensor(b, n, 2) : NULL;
        struct ft_tensor *norm = what & 2 ? lengths(n, 3) : NULL;
        struct ft_tensor *dw = random_master(1, n, 4), *was = copy_tensor(dw);
        run_op(b, FT_OP_columns_dw, &(union ft_op_args){.columns_dw = {dy, x, norm, dw}});
        for (int64_t c = 0; c < n; c++) {
            double sum = 0;
            for (int64_t t = 0; t < b->live; t++)
                sum += at(dy, t, c) * (x ? at(x, t, c) : 1);
            check_element("columns_dw", b, 0, c, at(dw, 0, c),
                          at(was, 0, c) + sum / (norm ? at(norm, 0, c) : 1),
                          tol_f32(80, (double)b->live));
        }
        drop_tensors();
    }
}

CASE(columns_dw_matches_doubles)
{
    each_backend(columns_dw_case);
}

static void norm_dw_case(struct bench *b)
{
    static const int shapes[][4] = {/* groups, width, own weights, centred */
                                    {1, 33, 0, 0},
                                    {1, 200, 0, 1},
                                    {4, 16, 0, 0},
                                    {3, 70, 1, 1}};
    for (int i = 0; i < 4; i++) {
        const int64_t groups = shapes[i][0], width = shapes[i][1];
        const bool own = shapes[i][2], centred = shapes[i][3];
        b->live = 23;
        struct ft_tensor *dy = random_tensor(b, groups * width, 1);
        struct ft_tensor *x = random_tensor(b, groups * width, 2), *rstd = empty_sums(b, groups);
        struct ft_tensor *mean = centred ? empty_sums(b, groups) : NULL;
        struct ft_tensor *dw = random_master(own ? groups : 1, width, 3), *was = copy_tensor(dw);
        struct ft_tensor *db = centred && !own ? random_master(1, width, 4) : NULL;
        struct ft_tensor *before = db ? copy_tensor(db) : NULL;
        for (int64_t t = 0; t < b->live + 3 && t < rstd->rows; t++)
            for (int64_t g = 0; g < groups; g++) {
                put(rstd, t, g, 0.5 + (double)((t + g) % 3));
                if (mean)
                    put(mean, t, g, 0.1 * (double)g);
            }
        run_op(b, FT_OP_norm_dw, &(union ft_op_args){.norm_dw = {dy, x, rstd, mean, dw, db}});
        for (int64_t row = 0; row < dw->rows; row++)
            for (int64_t c = 0; c < width; c++) {
                double sum = at(was, row, c), plain = 0;
                for (int64_t g = own ? row : 0; g < (own ? row + 1 : groups); g++)
                    for (int64_t t = 0; t < b->live; t++) {
                        const double d = at(dy, t, g * width + c);
                        const double v = at(x, t, g * width + c) - (mean ? at(mean, t, g) : 0);
                        sum += d * v * at(rstd, t, g);
                        plain += d;
                    }
                check_element("norm_dw", b, row, c, at(dw, row, c), sum, tol_f32(200, 100));
                if (db)
                    check_element("norm_db", b, 0, c, at(db, 0, c), at(before, 0, c) + plain,
                                  tol_f32(100, 100));
            }
        drop_tensors();
    }
}

CASE(norm_dw_matches_doubles)
{
    each_backend(norm_dw_case);
}

static void embed_dw_case(struct bench *b)
{
    b->live = 31;
    struct ft_tensor *dy = random_tensor(b, 130, 1), *ids = int_rows(b, 1);
    struct ft_tensor *dw = random_master(9, 130, 2), *want = copy_tensor(dw);
    for (int64_t t = 0; t < b->live; t++) {
        const int id = (int)(t * 5 % 7) - 1;
        ((int32_t *)ids->data)[t] = id;
        for (int64_t c = 0; c < 130 && id >= 0 && id != 3; c++)
            put(want, id + 2, c, at(want, id + 2, c) + 0.5 * at(dy, t, c));
    }
    run_op(b, FT_OP_embed_dw, &(union ft_op_args){.embed_dw = {dy, ids, dw, 0.5f, 2, 3}});
    for (int64_t i = 0; i < 9 * 130; i++)
        check_element("embed_dw", b, i / 130, i % 130, at(dw, i / 130, i % 130),
                      at(want, i / 130, i % 130), tol_f32(10, 10));
    drop_tensors();
}

CASE(embed_dw_matches_doubles)
{
    each_backend(embed_dw_case);
}
