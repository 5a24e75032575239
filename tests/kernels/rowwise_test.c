/* rmsnorm, rope, swiglu, dropout, add, embed against doubles and finite differences. */
#include "tests/kernels/ops.h"

static const int64_t shapes[][2] = {{1, 1},    {1, 2},    {7, 33},   {5, 64},    {64, 576},
                                    {3, 4096}, {2, 1160}, {2, 8192}, {1, 16392}, {2, 20000}};
#define EACH_SHAPE(i) for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)

static double norm_in_double(const double *x, const struct ft_tensor *w, int64_t n, double eps,
                             double offset, int64_t c)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return x[c] / sqrt(sum / (double)n + eps) * (at(w, 0, c) + offset);
}

static void rmsnorm_case(struct bench *b)
{
    EACH_SHAPE(s)
    for (int offset = 0; offset < 2; offset++) {
        const int64_t n = shapes[s][1];
        b->live = shapes[s][0];
        struct ft_tensor *x = random_tensor(b, n, 1);
        struct ft_tensor *w = random_weight(1, n, offset ? FT_BF16 : FT_F32, 2);
        struct ft_tensor *y = empty_tensor(b, n), *rstd = empty_sums(b, 1);
        run_op(b, FT_OP_rmsnorm,
               &(union ft_op_args){.rmsnorm = {x, w, y, rstd, 1e-5f, (float)offset}});
        for (int64_t t = 0; t < b->live; t++) {
            double sum = 0;
            for (int64_t c = 0; c < n; c++)
                sum += at(x, t, c) * at(x, t, c);
            for (int64_t c = 0; c < n; c++) {
                double want =
                    at(x, t, c) / sqrt(sum / (double)n + (double)1e-5f) * (at(w, 0, c) + offset);
                check_element("rmsnorm", b, t, c, at(y, t, c), want, tol(b, fabs(want), (double)n));
            }
        }
        check_poison(b, y);
        drop_tensors();
    }
}

CASE(rmsnorm_matches_doubles)
{
    each_backend(rmsnorm_case);
}

static void rmsnorm_dx_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t n = shapes[s][1] > 64 ? 64 : shapes[s][1];
        b->live = shapes[s][0] > 5 ? 5 : shapes[s][0];
        struct ft_tensor *x = random_tensor(b, n, 1), *w = random_weight(1, n, FT_F32, 2);
        struct ft_tensor *y = empty_tensor(b, n), *rstd = empty_sums(b, 1);
        struct ft_tensor *dy = random_tensor(b, n, 3), *add = random_tensor(b, n, 4);
        struct ft_tensor *dx = empty_tensor(b, n);
        run_op(b, FT_OP_rmsnorm, &(union ft_op_args){.rmsnorm = {x, w, y, rstd, 1e-5f, 1.f}});
        run_op(b, FT_OP_rmsnorm_dx,
               &(union ft_op_args){.rmsnorm_dx = {dy, x, w, rstd, add, dx, 1.f}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t i = 0; i < n; i++) {
                double row[64], d[2], size = 0;
                for (int side = 0; side < 2; side++) {
                    for (int64_t c = 0; c < n; c++)
                        row[c] = at(x, t, c) + (c == i ? (side ? 1e-6 : -1e-6) : 0);
                    d[side] = 0;
                    for (int64_t c = 0; c < n; c++)
                        d[side] += at(dy, t, c) * norm_in_double(row, w, n, (double)1e-5f, 1, c);
                    size += fabs(d[side]);
                }
                double want = at(add, t, i) + (d[1] - d[0]) / 2e-6;
                size += fabs(want) + 4 * at(rstd, t, 0) + 2;
                check_element("rmsnorm_dx", b, t, i, at(dx, t, i), want,
                              tol(b, size, (double)n) + 1e-8 * size);
            }
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(rmsnorm_dx_matches_finite_differences)
{
    each_backend(rmsnorm_dx_case);
}

/* The formula, at every size. */
static void rmsnorm_dx_wide_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t n = shapes[s][1];
        b->live = shapes[s][0];
        struct ft_tensor *x = random_tensor(b, n, 1), *w = random_weight(1, n, FT_F32, 2);
        struct ft_tensor *y = empty_tensor(b, n), *rstd = empty_sums(b, 1);
        struct ft_tensor *dy = random_tensor(b, n, 3), *add = random_tensor(b, n, 4);
        struct ft_tensor *dx = empty_tensor(b, n);
        run_op(b, FT_OP_rmsnorm, &(union ft_op_args){.rmsnorm = {x, w, y, rstd, 1e-5f, 1.f}});
        run_op(b, FT_OP_rmsnorm_dx,
               &(union ft_op_args){.rmsnorm_dx = {dy, x, w, rstd, add, dx, 1.f}});
        for (int64_t t = 0; t < b->live; t++) {
            double sum = 0, dot = 0;
            for (int64_t c = 0; c < n; c++) {
                sum += at(x, t, c) * at(x, t, c);
                dot += at(dy, t, c) * (at(w, 0, c) + 1) * at(x, t, c);
            }
            const double r = 1 / sqrt(sum / (double)n + (double)1e-5f);
            for (int64_t c = 0; c < n; c++) {
                double g = at(dy, t, c) * (at(w, 0, c) + 1);
                double pull = at(x, t, c) * dot / (double)n * r * r;
                double want = at(add, t, c) + r * (g - pull);
                double size = fabs(at(add, t, c)) + r * (fabs(g) + fabs(pull)) + r;
                check_element("rmsnorm_dx", b, t, c, at(dx, t, c), want, tol(b, size, (double)n));
            }
        }
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(rmsnorm_dx_matches_the_formula)
{
    each_backend(rmsnorm_dx_wide_case);
}

static void rope_case(struct bench *b)
{
    static const int dims[][3] = {
        {1, 2, 1}, {3, 6, 2}, {2, 64, 32}, {5, 16, 8}}; /* heads, dim, half */
    for (int i = 0; i < 4; i++) {
        const int heads = dims[i][0], d = dims[i][1], half = dims[i][2];
        b->live = 9;
        const int cols = heads * d + i; /* columns behind the heads are copied */
        struct ft_tensor *x = random_tensor(b, cols, 1), *co = random_master(20, half, 2);
        struct ft_tensor *si = random_master(20, half, 3), *y = empty_tensor(b, cols);
        struct ft_tensor *angles = int_rows(b, 1);
        int32_t *row = angles->data;
        for (int64_t t = 0; t < b->live; t++)
            row[t] = (int32_t)(t * 7 % 20);
        run_op(b, FT_OP_rope, &(union ft_op_args){.rope = {x, co, si, angles, y, heads, d, 1.f}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t c = 0; c < cols; c++) {
                int64_t k = c % d, head = c - k, r = row[t];
                double want = at(x, t, c);
                if (k < half && c < heads * d)
                    want = at(x, t, c) * at(co, r, k) - at(x, t, head + k + half) * at(si, r, k);
                else if (k < 2 * half && c < heads * d)
                    want = at(x, t, c) * at(co, r, k - half) +
                           at(x, t, head + k - half) * at(si, r, k - half);
                check_element("rope", b, t, c, at(y, t, c), want, tol(b, 2, 1));
            }
        check_poison(b, y);
        /* backward is the transpose: <rope(x), z> = <x, rope_back(z)>; in place too */
        struct ft_tensor *z = random_tensor(b, cols, 4), *back = copy_tensor(z);
        run_op(b, FT_OP_rope,
               &(union ft_op_args){.rope = {back, co, si, angles, back, heads, d, -1.f}});
        for (int64_t t = 0; t < b->live; t++) {
            double p = 0, q = 0;
            for (int64_t c = 0; c < cols; c++) {
                p += at(y, t, c) * at(z, t, c);
                q += at(x, t, c) * at(back, t, c);
            }
            CHECK_NEAR(p, q, tol(b, cols, cols));
        }
        drop_tensors();
    }
}

CASE(rope_rotates_and_its_transpose_undoes)
{
    each_backend(rope_case);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void swiglu_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t n = shapes[s][1];
        b->live = shapes[s][0];
        struct ft_tensor *g = random_tensor(b, n, 1), *u = random_tensor(b, n, 2);
        struct ft_tensor *dy = random_tensor(b, n, 3), *y = empty_tensor(b, n);
        struct ft_tensor *dg = empty_tensor(b, n), *du = empty_tensor(b, n);
        for (int64_t i = 0; i < b->live * n; i++) /* the range that matters, and far beyond */
            put(g, i / n, i % n, at(g, i / n, i % n) * (i % 7 == 0 ? 120 : 6));
        run_op(b, FT_OP_swiglu, &(union ft_op_args){.swiglu = {g, u, y}});
        run_op(b, FT_OP_swiglu_dx, &(union ft_op_args){.swiglu_dx = {g, u, dy, dg, du}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t c = 0; c < n; c++) {
                double x = at(g, t, c), z = at(u, t, c), d = at(dy, t, c);
                double slope = (silu(x + 1e-5) - silu(x - 1e-5)) / 2e-5;
                check_element("swiglu", b, t, c, at(y, t, c), silu(x) * z,
                              tol(b, fabs(x * z) + 1e-30, 4));
                check_element("swiglu dup", b, t, c, at(du, t, c), d * silu(x),
                              tol(b, fabs(x * d) + 1e-30, 4));
                check_element("swiglu dgate", b, t, c, at(dg, t, c), d * z * slope,
                              tol(b, (1 + fabs(x)) * fabs(d * z), 4) + 1e-9);
            }
        check_poison(b, y);
        check_poison(b, dg);
        check_poison(b, du);
        drop_tensors();
    }
}

CASE(swiglu_matches_doubles_and_finite_differences)
{
    each_backend(swiglu_case);
}

static void dropout_case(struct bench *b)
{
    const int64_t n = 129;
    const float p = 0.3f;
    b->live = 200;
    struct ft_tensor *x = random_tensor(b, n, 1), *y = empty_tensor(b, n), *z = empty_tensor(b, n);
    struct ft_tensor *keys = int_rows(b, 3), *add = random_tensor(b, n, 2);
    int32_t *k = keys->data;
    for (int64_t t = 0; t < b->live; t++) {
        k[3 * t] = 1;
        k[3 * t + 1] = (int32_t)(t / 10);
        k[3 * t + 2] = (int32_t)(t % 10);
    }
    run_op(b, FT_OP_dropout, &(union ft_op_args){.dropout = {x, keys, NULL, y, p, 5, 42}});
    run_op(b, FT_OP_dropout, &(union ft_op_args){.dropout = {x, keys, add, z, p, 5, 42}});
    int64_t zeros = 0;
    for (int64_t t = 0; t < b->live; t++)
        for (int64_t c = 0; c < n; c++) {
            double v = at(y, t, c), kept = at(x, t, c) / (1 - (double)p);
            zeros += v == 0;
            if (v != 0)
                check_element("dropout", b, t, c, v, kept, tol(b, fabs(kept), 1));
            check_element("dropout add", b, t, c, at(z, t, c), v + at(add, t, c), tol(b, 3, 1));
        }
    double share = (double)zeros / (double)(b->live * n);
    CHECK_NEAR(share, (double)p, 0.02);
    check_poison(b, y);
    /* a row's mask follows its document and position, not its place in the batch */
    struct ft_tensor *moved = empty_tensor(b, n), *xm = copy_tensor(x);
    for (int64_t c = 0; c < n; c++)
        put(xm, 0, c, at(x, 17, c));
    memcpy(k, k + 51, 12);
    run_op(b, FT_OP_dropout, &(union ft_op_args){.dropout = {xm, keys, NULL, moved, p, 5, 42}});
    for (int64_t c = 0; c < n; c++)
        CHECK(at(moved, 0, c) == at(y, 17, c));
    /* another site, another mask */
    run_op(b, FT_OP_dropout, &(union ft_op_args){.dropout = {x, keys, NULL, z, p, 6, 42}});
    CHECK(!same_bits(b, y, z));
}

CASE(dropout_keeps_its_share_and_its_keys)
{
    each_backend(dropout_case);
}

static void embed_case(struct bench *b)
{
    b->live = 5;
    struct ft_tensor *w = random_weight(11, 37, FT_BF16, 1), *ids = int_rows(b, 1);
    struct ft_tensor *y = empty_tensor(b, 37), *z = empty_tensor(b, 37),
                     *x = random_tensor(b, 37, 2);
    for (int i = 0; i < 5; i++)
        ((int32_t *)ids->data)[i] = i * 7 % 11;
    run_op(b, FT_OP_embed, &(union ft_op_args){.embed = {ids, w, y, 2.f}});
    run_op(b, FT_OP_add, &(union ft_op_args){.add = {x, y, z}});
    for (int64_t t = 0; t < 5; t++)
        for (int64_t c = 0; c < 37; c++) {
            CHECK_NEAR(at(y, t, c), 2 * at(w, t * 7 % 11, c), 0);
            CHECK_NEAR(at(z, t, c), at(x, t, c) + at(y, t, c), tol(b, 3, 1));
        }
    check_poison(b, y);
    check_poison(b, z);
}

CASE(embed_and_add)
{
    each_backend(embed_case);
}
