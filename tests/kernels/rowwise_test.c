/* norm, rope, glu, dropout, add, embed against doubles and finite differences. */
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

static void norm_case(struct bench *b)
{
    EACH_SHAPE(s)
    for (int offset = 0; offset < 2; offset++) {
        const int64_t n = shapes[s][1];
        b->live = shapes[s][0];
        struct ft_tensor *x = random_tensor(b, n, 1);
        struct ft_tensor *w = random_weight(1, n, offset ? FT_BF16 : FT_F32, 2);
        struct ft_tensor *y = empty_tensor(b, n), *rstd = empty_sums(b, 1);
        run_op(b, FT_OP_norm,
               &(union ft_op_args){.norm = {x, w, NULL, y, rstd, NULL, 1e-5f, (float)offset}});
        for (int64_t t = 0; t < b->live; t++) {
            double sum = 0;
            for (int64_t c = 0; c < n; c++)
                sum += at(x, t, c) * at(x, t, c);
            for (int64_t c = 0; c < n; c++) {
                double want =
                    at(x, t, c) / sqrt(sum / (double)n + (double)1e-5f) * (at(w, 0, c) + offset);
                check_element("norm", b, t, c, at(y, t, c), want, tol(b, fabs(want), (double)n));
            }
        }
        check_poison(b, y);
        drop_tensors();
    }
}

CASE(norm_matches_doubles)
{
    each_backend(norm_case);
}

static void norm_dx_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t n = shapes[s][1] > 64 ? 64 : shapes[s][1];
        b->live = shapes[s][0] > 5 ? 5 : shapes[s][0];
        struct ft_tensor *x = random_tensor(b, n, 1), *w = random_weight(1, n, FT_F32, 2);
        struct ft_tensor *y = empty_tensor(b, n), *rstd = empty_sums(b, 1);
        struct ft_tensor *dy = random_tensor(b, n, 3), *add = random_tensor(b, n, 4);
        struct ft_tensor *dx = empty_tensor(b, n);
        run_op(b, FT_OP_norm, &(union ft_op_args){.norm = {x, w, NULL, y, rstd, NULL, 1e-5f, 1.f}});
        run_op(b, FT_OP_norm_dx,
               &(union ft_op_args){.norm_dx = {dy, x, w, rstd, NULL, add, dx, 1.f}});
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
                check_element("norm_dx", b, t, i, at(dx, t, i), want,
                              tol(b, size, (double)n) + 1e-8 * size);
            }
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(norm_dx_matches_finite_differences)
{
    each_backend(norm_dx_case);
}

/* The formula, at every size. */
static void norm_dx_wide_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t n = shapes[s][1];
        b->live = shapes[s][0];
        struct ft_tensor *x = random_tensor(b, n, 1), *w = random_weight(1, n, FT_F32, 2);
        struct ft_tensor *y = empty_tensor(b, n), *rstd = empty_sums(b, 1);
        struct ft_tensor *dy = random_tensor(b, n, 3), *add = random_tensor(b, n, 4);
        struct ft_tensor *dx = empty_tensor(b, n);
        run_op(b, FT_OP_norm, &(union ft_op_args){.norm = {x, w, NULL, y, rstd, NULL, 1e-5f, 1.f}});
        run_op(b, FT_OP_norm_dx,
               &(union ft_op_args){.norm_dx = {dy, x, w, rstd, NULL, add, dx, 1.f}});
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
                check_element("norm_dx", b, t, c, at(dx, t, c), want, tol(b, size, (double)n));
            }
        }
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(norm_dx_matches_the_formula)
{
    each_backend(norm_dx_wide_case);
}

/* Groups of a row, with weights of their own or one for all, centred or not, with a bias. */
struct norm_kind {
    int64_t groups, width;
    bool own, centred, biased;
};
static const struct norm_kind norm_kinds[] = {
    {1, 33, true, true, true},   {1, 640, true, true, false}, {3, 16, false, false, false},
    {4, 24, true, true, false},  {2, 64, true, false, false}, {5, 7, false, true, true},
    {1, 20000, true, true, true}};

/* y in doubles; dx by the formula. */
static void group_in_double(const struct norm_kind *k, const double *x, const double *g,
                            const double *w, const double *bias, double *y, double *dx)
{
    const double n = (double)k->width;
    double mean = 0, square = 0, level = 0, dot = 0;
    for (int64_t c = 0; c < k->width && k->centred; c++)
        mean += x[c] / n;
    for (int64_t c = 0; c < k->width; c++)
        square += (x[c] - mean) * (x[c] - mean) / n;
    const double r = 1 / sqrt(square + (double)1e-5f);
    for (int64_t c = 0; c < k->width; c++) {
        y[c] = (x[c] - mean) * r * w[c] + bias[c];
        level += k->centred ? g[c] * w[c] / n : 0;
        dot += g[c] * w[c] * (x[c] - mean) * r / n;
    }
    for (int64_t c = 0; c < k->width; c++)
        dx[c] = r * (g[c] * w[c] - level - (x[c] - mean) * r * dot);
}

static void norm_kind_case(struct bench *b, const struct norm_kind *k)
{
    const int64_t cols = k->groups * k->width;
    static double v[6][20000];
    b->live = 5;
    struct ft_tensor *x = random_tensor(b, cols, 1), *dy = random_tensor(b, cols, 2);
    struct ft_tensor *w = random_weight(k->own ? k->groups : 1, k->width, FT_BF16, 3);
    struct ft_tensor *bias = k->biased ? random_weight(1, k->width, FT_F16, 4) : NULL;
    struct ft_tensor *y = empty_tensor(b, cols), *dx = empty_tensor(b, cols);
    struct ft_tensor *rstd = empty_sums(b, k->groups);
    struct ft_tensor *mean = k->centred ? empty_sums(b, k->groups) : NULL;
    run_op(b, FT_OP_norm, &(union ft_op_args){.norm = {x, w, bias, y, rstd, mean, 1e-5f, 0.5f}});
    run_op(b, FT_OP_norm_dx,
           &(union ft_op_args){.norm_dx = {dy, x, w, rstd, mean, NULL, dx, 0.5f}});
    for (int64_t t = 0; t < b->live; t++)
        for (int64_t g = 0; g < k->groups; g++) {
            for (int64_t c = 0; c < k->width; c++) {
                v[0][c] = at(x, t, g * k->width + c);
                v[1][c] = at(dy, t, g * k->width + c);
                v[2][c] = at(w, k->own ? g : 0, c) + 0.5;
                v[3][c] = bias ? at(bias, 0, c) : 0;
            }
            group_in_double(k, v[0], v[1], v[2], v[3], v[4], v[5]);
            for (int64_t c = 0; c < k->width; c++) {
                const int64_t at_c = g * k->width + c;
                check_element("norm y", b, t, at_c, at(y, t, at_c), v[4][c],
                              tol(b, 4, (double)k->width));
                check_element("norm dx", b, t, at_c, at(dx, t, at_c), v[5][c],
                              tol(b, 8, (double)k->width));
            }
        }
    check_poison(b, y);
    check_poison(b, dx);
    drop_tensors();
}

static void norm_kinds_case(struct bench *b)
{
    for (size_t i = 0; i < sizeof norm_kinds / sizeof *norm_kinds; i++)
        norm_kind_case(b, &norm_kinds[i]);
}

CASE(norms_of_groups_with_mean_and_bias_match_doubles)
{
    each_backend(norm_kinds_case);
}

static void rope_case(struct bench *b)
{
    static const int dims[][4] = {{1, 2, 1, 0},  {3, 6, 2, 0},  {2, 64, 32, 0}, {5, 16, 8, 0},
                                  {3, 10, 3, 4}, {2, 24, 8, 8}, {2, 40, 8, 16}};
    for (int i = 0; i < 7; i++) { /* heads, dim, half, first */
        const int heads = dims[i][0], d = dims[i][1], half = dims[i][2], first = dims[i][3];
        b->live = 9;
        const int cols = heads * d + i % 5; /* columns behind the heads are copied */
        struct ft_tensor *x = random_tensor(b, cols, 1), *co = random_master(20, half, 2);
        struct ft_tensor *si = random_master(20, half, 3), *y = empty_tensor(b, cols);
        struct ft_tensor *angles = int_rows(b, 1);
        int32_t *row = angles->data;
        for (int64_t t = 0; t < b->live; t++)
            row[t] = (int32_t)(t * 7 % 20);
        run_op(b, FT_OP_rope,
               &(union ft_op_args){.rope = {x, co, si, angles, y, heads, d, first, 1.f, false}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t c = 0; c < cols; c++) {
                int64_t k = c % d - first, r = row[t];
                double want = at(x, t, c);
                if (k >= 0 && k < half && c < heads * d)
                    want = at(x, t, c) * at(co, r, k) - at(x, t, c + half) * at(si, r, k);
                else if (k >= 0 && k < 2 * half && c < heads * d)
                    want = at(x, t, c) * at(co, r, k - half) +
                           at(x, t, c - half) * at(si, r, k - half);
                check_element("rope", b, t, c, at(y, t, c), want, tol(b, 2, 1));
            }
        check_poison(b, y);
        /* backward is the transpose: <rope(x), z> = <x, rope_back(z)>; in place too */
        struct ft_tensor *z = random_tensor(b, cols, 4), *back = copy_tensor(z);
        run_op(b, FT_OP_rope,
               &(union ft_op_args){
                   .rope = {back, co, si, angles, back, heads, d, first, -1.f, false}});
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

static void interleaved_case(struct bench *b)
{
    static const int dims[][4] = {
        {1, 2, 1, 0}, {3, 6, 2, 0}, {2, 64, 32, 0}, {5, 16, 4, 0}, {3, 24, 4, 16}};
    for (int i = 0; i < 5; i++) {
        const int heads = dims[i][0], d = dims[i][1], half = dims[i][2], first = dims[i][3];
        const int cols = heads * d + i;
        b->live = 9;
        struct ft_tensor *x = random_tensor(b, cols, 1), *co = random_master(20, half, 2);
        struct ft_tensor *si = random_master(20, half, 3), *y = empty_tensor(b, cols);
        struct ft_tensor *angles = int_rows(b, 1);
        for (int64_t t = 0; t < b->live; t++)
            ((int32_t *)angles->data)[t] = (int32_t)(t * 7 % 20);
        run_op(b, FT_OP_rope,
               &(union ft_op_args){.rope = {x, co, si, angles, y, heads, d, first, -1.f, true}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t c = 0; c < cols; c++) {
                const int64_t k = c % d - first, r = t * 7 % 20;
                const bool rotated = k >= 0 && k < 2 * half && c < heads * d, second = k % 2;
                const double other = rotated ? at(x, t, second ? c - 1 : c + 1) : 0;
                double want = at(x, t, c);
                if (rotated) /* the sign is -1 */
                    want = want * at(co, r, k / 2) + (second ? -1 : 1) * other * at(si, r, k / 2);
                check_element("rope", b, t, c, at(y, t, c), want, tol(b, 2, 1));
            }
        check_poison(b, y);
        drop_tensors();
    }
}

CASE(rope_rotates_neighbours)
{
    each_backend(interleaved_case);
}

static void regroup_case(struct bench *b)
{
    static const int shapes_of[][3] = {{1, 1, 4}, {3, 1, 8}, {2, 4, 16}, {5, 2, 3}};
    for (int i = 0; i < 4; i++) {
        const int groups = shapes_of[i][0], per = shapes_of[i][1], d = shapes_of[i][2];
        const int cols = groups * (per + 2) * d;
        b->live = 7;
        struct ft_tensor *x = random_tensor(b, cols, 1), *y = empty_tensor(b, cols);
        struct ft_tensor *z = empty_tensor(b, cols);
        run_op(b, FT_OP_regroup, &(union ft_op_args){.regroup = {x, y, groups, per, d, false}});
        run_op(b, FT_OP_regroup, &(union ft_op_args){.regroup = {y, z, groups, per, d, true}});
        for (int64_t t = 0; t < b->live; t++)
            for (int g = 0; g < groups; g++)
                for (int h = 0; h < per + 2; h++)
                    for (int c = 0; c < d; c++) {
                        int to = h < per ? g * per + h : groups * per + (h - per) * groups + g;
                        CHECK(at(y, t, to * d + c) == at(x, t, (g * (per + 2) + h) * d + c));
                    }
        CHECK(same_bits(b, x, z));
        check_poison(b, y);
        drop_tensors();
    }
}

/* Columns of heads, with what all heads share and without; and their gradients. */
static void pick_heads_case(struct bench *b)
{
    /* heads, x's width, first, n, rest, y's width */
    static const int shapes_of[][6] = {{1, 3, 1, 2, 1, 4},    {3, 7, 0, 4, 3, 7},
                                       {2, 32, 0, 16, 8, 24}, {2, 32, 16, 8, 0, 24},
                                       {5, 24, 0, 16, 0, 16}, {4, 5, 2, 3, 0, 5}};
    for (int i = 0; i < 12; i++) {
        const int *s = shapes_of[i / 2];
        const int heads = s[0], in = s[1], first = s[2], n = s[3], r = s[4], out = s[5];
        b->live = 7;
        struct ft_tensor *x = random_tensor(b, heads * in, 1), *y = empty_tensor(b, heads * out);
        struct ft_tensor *rest = r ? random_tensor(b, r, 2) : NULL;
        run_op(b, FT_OP_pick_heads,
               &(union ft_op_args){.pick_heads = {x, rest, y, heads, first, n}});
        struct ft_tensor *add = i % 2 ? random_tensor(b, heads * in, 3) : NULL;
        struct ft_tensor *dx = add ? copy_tensor(add) : empty_tensor(b, heads * in);
        struct ft_tensor *drest = r ? empty_tensor(b, r) : NULL;
        run_op(
            b, FT_OP_pick_heads_dx,
            &(union ft_op_args){.pick_heads_dx = {y, add ? dx : NULL, dx, drest, heads, first, n}});
        for (int64_t t = 0; t < b->live; t++) {
            for (int c = 0; c < heads * out; c++) {
                const int h = c / out, k = c % out;
                const double want = k < n       ? at(x, t, h * in + first + k)
                                    : k < n + r ? at(rest, t, k - n)
                                                : 0;
                CHECK(at(y, t, c) == want);
            }
            for (int c = 0; c < heads * in; c++) {
                const int k = c % in - first;
                const double was = add ? at(add, t, c) : 0;
                check_element("dx", b, t, c, at(dx, t, c),
                              was + (k >= 0 && k < n ? at(x, t, c) : 0), tol(b, 1, 2));
            }
            for (int c = 0; c < r; c++)
                check_element("drest", b, t, c, at(drest, t, c), heads * at(rest, t, c),
                              tol(b, heads, heads));
        }
        check_poison(b, y);
        drop_tensors();
    }
}

CASE(pick_heads_takes_columns_and_gives_gradients_back)
{
    each_backend(pick_heads_case);
}

/* Rows to their places, and the picked ones back. */
static void store_case(struct bench *b)
{
    for (int cols = 5; cols <= 64; cols += 59) {
        b->live = 40;
        b->trained = 17;
        struct ft_tensor *x = random_tensor(b, cols, 1), *places = int_rows(b, 1);
        struct ft_tensor *y = random_weight(100, cols, b->backend->act, 2), *was = copy_tensor(y);
        for (int t = 0; t < b->live; t++)
            ((int32_t *)places->data)[t] = (7 * t + 3) % 100;
        run_op(b, FT_OP_store, &(union ft_op_args){.store = {x, places, y}});
        for (int row = 0; row < 100; row++)
            for (int c = 0; c < cols; c++) {
                int from = -1;
                for (int t = 0; t < b->live; t++)
                    from = (7 * t + 3) % 100 == row ? t : from;
                check_element("store", b, row, c, at(y, row, c),
                              from < 0 ? at(was, row, c) : at(x, from, c), 0);
            }
        struct ft_tensor *z = empty_tensor(b, cols);
        z->extent = FT_TRAINED;
        struct ft_tensor *picked = int_tensor(z->rows, 1, FT_TRAINED);
        for (int s = 0; s < b->trained; s++)
            ((int32_t *)picked->data)[s] = 2 * s + 1;
        run_op(b, FT_OP_gather, &(union ft_op_args){.gather = {x, picked, z}});
        for (int s = 0; s < b->trained; s++)
            for (int c = 0; c < cols; c++)
                check_element("gather", b, s, c, at(z, s, c), at(x, 2 * s + 1, c), 0);
        drop_tensors();
    }
}

CASE(store_and_gather_move_rows)
{
    each_backend(store_case);
}

CASE(regroup_orders_heads_and_back)
{
    each_backend(regroup_case);
}

static double activation(enum ft_activation act, double x)
{
    switch (act) {
    case FT_SILU:
        return x / (1 + exp(-x));
    case FT_GELU:
        return x * erfc(-x / sqrt(2)) / 2;
    case FT_GELU_TANH:
        return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case FT_GELU_QUICK:
        return x / (1 + exp(-1.702 * x));
    case FT_RELU:
        return x > 0 ? x : 0;
    case FT_RELU2:
        return x > 0 ? x * x : 0;
    case FT_SIGMOID:
        return 1 / (1 + exp(-x));
    }
    return NAN;
}

static void activation_case(struct bench *b)
{
    for (int act = FT_SILU; act <= FT_SIGMOID; act++)
        for (int both = 0; both < 2; both++) {
            const int64_t n = 77;
            b->live = 13;
            struct ft_tensor *g = random_tensor(b, n, 1), *u = both ? random_tensor(b, n, 2) : NULL;
            struct ft_tensor *dy = random_tensor(b, n, 3), *y = empty_tensor(b, n);
            struct ft_tensor *dg = empty_tensor(b, n), *du = both ? empty_tensor(b, n) : NULL;
            for (int64_t i = 0; i < b->live * n; i++)
                put(g, i / n, i % n, at(g, i / n, i % n) * (i % 7 == 0 ? 60 : 5));
            run_op(b, FT_OP_glu, &(union ft_op_args){.glu = {g, u, y, act}});
            run_op(b, FT_OP_glu_dx, &(union ft_op_args){.glu_dx = {g, u, dy, dg, du, act}});
            for (int64_t t = 0; t < b->live; t++)
                for (int64_t c = 0; c < n; c++) {
                    const double x = at(g, t, c), z = both ? at(u, t, c) : 1, d = at(dy, t, c);
                    const double value = activation(act, x), size = fabs(x) + fabs(value);
                    const double slope =
                        (activation(act, x + 1e-5) - activation(act, x - 1e-5)) / 2e-5;
                    check_element("glu", b, t, c, at(y, t, c), value * z,
                                  tol(b, size * fabs(z) + 1e-30, 8));
                    check_element("glu dgate", b, t, c, at(dg, t, c), d * z * slope,
                                  tol(b, (1 + size) * fabs(d * z), 8) + 1e-8);
                    if (both)
                        check_element("glu dup", b, t, c, at(du, t, c), d * value,
                                      tol(b, size * fabs(d) + 1e-30, 8));
                }
            check_poison(b, y);
            check_poison(b, dg);
            drop_tensors();
        }
}

CASE(activations_match_doubles_and_finite_differences)
{
    each_backend(activation_case);
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
    const int64_t bytes = (n + 7) / 8;
    struct ft_tensor *mask = byte_rows(b, 2 * bytes); /* the same decisions, as bits */
    run_op(b, FT_OP_dropout_mask,
           &(union ft_op_args){.dropout_mask = {keys, mask, p, 2, {6, 5}, 42}});
    for (int64_t t = 0; t < b->live; t++)
        for (int64_t c = 0; c < n; c++)
            CHECK((((uint8_t *)mask->data)[t * mask->cols + bytes + c / 8] >> (c % 8) & 1) ==
                  (at(y, t, c) != 0));
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

static void noise_case(struct bench *b)
{
    const int64_t n = 137;
    b->live = 90;
    struct ft_tensor *x = random_tensor(b, n, 1), *y = empty_tensor(b, n), *z = empty_tensor(b, n);
    struct ft_tensor *keys = int_rows(b, 3), *spans = int_rows(b, 2);
    double sum = 0, squares = 0;
    for (int64_t t = 0; t < b->live; t++) { /* documents of 10 and of 80 rows */
        ((int32_t *)keys->data)[3 * t] = 1;
        ((int32_t *)keys->data)[3 * t + 1] = t >= 10;
        ((int32_t *)keys->data)[3 * t + 2] = (int32_t)(t >= 10 ? t - 10 : t);
        ((int32_t *)spans->data)[2 * t] = t >= 10 ? 10 : 0;
        ((int32_t *)spans->data)[2 * t + 1] = t >= 10 ? 90 : 10;
    }
    run_op(b, FT_OP_noise, &(union ft_op_args){.noise = {x, keys, spans, y, 50.f, 42}});
    for (int64_t t = 0; t < b->live; t++) {
        const double most = 50 / sqrt((double)n * (t >= 10 ? 80 : 10));
        for (int64_t c = 0; c < n; c++) {
            const double u = (at(y, t, c) - at(x, t, c)) / most;
            CHECK(fabs(u) <= 1 + tol(b, 4, 1) / most);
            sum += u;
            squares += u * u;
        }
    }
    CHECK_NEAR(sum / (double)(b->live * n), 0, 0.02);
    CHECK_NEAR(squares / (double)(b->live * n), 1.0 / 3, 0.02);
    check_poison(b, y);
    /* an epoch later, other noise */
    for (int64_t t = 0; t < b->live; t++)
        ((int32_t *)keys->data)[3 * t] = 2;
    run_op(b, FT_OP_noise, &(union ft_op_args){.noise = {x, keys, spans, z, 50.f, 42}});
    CHECK(!same_bits(b, y, z));
    drop_tensors();
}

CASE(noise_is_uniform_and_follows_its_keys)
{
    each_backend(noise_case);
}

static void embed_case(struct bench *b)
{
    b->live = 5;
    struct ft_tensor *w = random_weight(12, 37, FT_BF16, 1), *ids = int_rows(b, 1);
    struct ft_tensor *y = empty_tensor(b, 37), *z = empty_tensor(b, 37),
                     *x = random_tensor(b, 37, 2);
    struct ft_tensor *both = empty_tensor(b, 37), *half = empty_tensor(b, 37);
    for (int i = 0; i < 5; i++)
        ((int32_t *)ids->data)[i] = i == 3 ? -1 : i * 7 % 11; /* at most 10, or none */
    run_op(b, FT_OP_embed, &(union ft_op_args){.embed = {ids, w, NULL, y, 2.f, 0, -1}});
    run_op(b, FT_OP_add, &(union ft_op_args){.add = {x, y, z, 0.5f}});
    run_op(b, FT_OP_embed, &(union ft_op_args){.embed = {ids, w, x, both, 2.f, 1, -1}});
    run_op(b, FT_OP_add, &(union ft_op_args){.add = {NULL, x, half, 0.5f}});
    for (int64_t t = 0; t < 5; t++)
        for (int64_t c = 0; c < 37; c++) {
            const double row = t == 3 ? 0 : 1;
            CHECK_NEAR(at(y, t, c), row * 2 * at(w, t * 7 % 11, c), 0);
            CHECK_NEAR(at(z, t, c), at(x, t, c) + 0.5 * at(y, t, c), tol(b, 3, 1));
            CHECK_NEAR(at(both, t, c), at(x, t, c) + row * 2 * at(w, t * 7 % 11 + 1, c),
                       tol(b, 3, 1));
            CHECK_NEAR(at(half, t, c), 0.5 * at(x, t, c), tol(b, 1, 1));
        }
    check_poison(b, y);
    check_poison(b, z);
}

CASE(embed_and_add)
{
    each_backend(embed_case);
}

static double pair_in_double(double gate, double up, double alpha, double limit)
{
    const double g = fmin(gate, limit), u = fmax(-limit, fmin(up, limit));
    return (u + 1) * g / (1 + exp(-alpha * g));
}

static void pairs_case(struct bench *b)
{
    static const int64_t widths[] = {1, 7, 64, 300};
    const double alpha = 1.702, limit = 0.6; /* some are cut */
    for (int i = 0; i < 4; i++) {
        const int64_t n = widths[i];
        b->live = 5;
        struct ft_tensor *x = random_tensor(b, 2 * n, 1), *y = empty_tensor(b, n);
        struct ft_tensor *dy = random_tensor(b, n, 2), *dx = empty_tensor(b, 2 * n);
        run_op(b, FT_OP_glu_pairs, &(union ft_op_args){.glu_pairs = {x, y, 1.702f, 0.6f}});
        run_op(b, FT_OP_glu_pairs_dx,
               &(union ft_op_args){.glu_pairs_dx = {x, dy, dx, 1.702f, 0.6f}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t c = 0; c < n; c++) {
                const double g = at(x, t, 2 * c), u = at(x, t, 2 * c + 1), h = 1e-5;
                const double dg = (pair_in_double(g + h, u, alpha, limit) -
                                   pair_in_double(g - h, u, alpha, limit)) /
                                  (2 * h),
                             du = (pair_in_double(g, u + h, alpha, limit) -
                                   pair_in_double(g, u - h, alpha, limit)) /
                                  (2 * h);
                check_element("glu_pairs", b, t, c, at(y, t, c), pair_in_double(g, u, alpha, limit),
                              tol(b, 1, 8));
                if (fabs(g - limit) > 1e-3)
                    check_element("glu_pairs_dx", b, t, 2 * c, at(dx, t, 2 * c), dg * at(dy, t, c),
                                  1e-6 + tol(b, 2, 8));
                if (fabs(fabs(u) - limit) > 1e-3)
                    check_element("glu_pairs_dx", b, t, 2 * c + 1, at(dx, t, 2 * c + 1),
                                  du * at(dy, t, c), 1e-6 + tol(b, 2, 8));
            }
        check_poison(b, y);
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(pairs_are_cut_and_gated)
{
    each_backend(pairs_case);
}
