/* linear, linear_dx, linear_dw against doubles, and fused against unfused. */
#include "tests/kernels/ops.h"

/* tokens, in, out, rank */
static const int64_t shapes[][4] = {{1, 1, 1, 1},     {2, 3, 5, 1},    {7, 33, 50, 3},
                                    {64, 96, 48, 16}, {65, 97, 49, 8}, {130, 400, 333, 5},
                                    {33, 1000, 17, 4}};
#define EACH_SHAPE(i) for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)

static void linear_case(struct bench *b)
{
    static const enum ft_dtype dtypes[] = {FT_F32, FT_BF16, FT_F16};
    EACH_SHAPE(s)
    for (int d = 0; d < 3; d++) {
        const int64_t *n = shapes[s];
        b->live = n[0];
        struct ft_tensor *x = random_tensor(b, n[1], 1),
                         *w = random_weight(n[2], n[1], dtypes[d], 2);
        struct ft_tensor *bias = random_weight(1, n[2], dtypes[d], 3),
                         *add = random_tensor(b, n[2], 4);
        struct ft_tensor *u = random_tensor(b, n[3], 5), *lb = random_weight(n[2], n[3], FT_F32, 6);
        struct ft_tensor *y = empty_tensor(b, n[2]);
        run_op(b, FT_OP_linear,
               &(union ft_op_args){.linear = {x, w, bias, add, u, lb, y, 0.75f, -2.f}});
        for (int64_t t = 0; t < n[0]; t++)
            for (int64_t o = 0; o < n[2]; o++) {
                double sum = at(bias, 0, o) + at(add, t, o), size = fabs(sum);
                for (int64_t i = 0; i < n[1]; i++) {
                    sum += 0.75 * at(x, t, i) * at(w, o, i);
                    size += fabs(at(x, t, i) * at(w, o, i));
                }
                for (int64_t i = 0; i < n[3]; i++) {
                    sum += -2 * at(u, t, i) * at(lb, o, i);
                    size += 2 * fabs(at(u, t, i) * at(lb, o, i));
                }
                check_element("linear", b, t, o, at(y, t, o), sum,
                              tol(b, size, (double)(n[1] + n[3])));
            }
        check_poison(b, y);
        drop_tensors();
    }
}

CASE(linear_matches_doubles)
{
    each_backend(linear_case);
}

static void linear_dx_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t *n = shapes[s];
        b->live = n[0];
        struct ft_tensor *dy = random_tensor(b, n[2], 1),
                         *w = random_weight(n[2], n[1], FT_BF16, 2);
        struct ft_tensor *add = random_tensor(b, n[1], 3), *du = random_tensor(b, n[3], 4);
        struct ft_tensor *a = random_weight(n[3], n[1], FT_F32, 5), *dx = empty_tensor(b, n[1]);
        run_op(b, FT_OP_linear_dx,
               &(union ft_op_args){.linear_dx = {dy, w, add, du, a, dx, 1.f, 0.5f}});
        for (int64_t t = 0; t < n[0]; t++)
            for (int64_t i = 0; i < n[1]; i++) {
                double sum = at(add, t, i), size = fabs(sum);
                for (int64_t o = 0; o < n[2]; o++) {
                    sum += at(dy, t, o) * at(w, o, i);
                    size += fabs(at(dy, t, o) * at(w, o, i));
                }
                for (int64_t r = 0; r < n[3]; r++) {
                    sum += 0.5 * at(du, t, r) * at(a, r, i);
                    size += 0.5 * fabs(at(du, t, r) * at(a, r, i));
                }
                check_element("linear_dx", b, t, i, at(dx, t, i), sum,
                              tol(b, size, (double)(n[2] + n[3])));
            }
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(linear_dx_matches_doubles)
{
    each_backend(linear_dx_case);
}

static void linear_dw_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t *n = shapes[s];
        b->live = n[0];
        struct ft_tensor *dy = random_tensor(b, n[2], 1), *x = random_tensor(b, n[1], 2);
        struct ft_tensor *dw = random_master(n[2], n[1], 3), *was = copy_tensor(dw);
        run_op(b, FT_OP_linear_dw, &(union ft_op_args){.linear_dw = {dy, x, dw, 2.f}});
        for (int64_t o = 0; o < n[2]; o++)
            for (int64_t i = 0; i < n[1]; i++) {
                double sum = at(was, o, i), size = fabs(sum);
                for (int64_t t = 0; t < n[0]; t++) {
                    sum += 2 * at(dy, t, o) * at(x, t, i);
                    size += 2 * fabs(at(dy, t, o) * at(x, t, i));
                }
                check_element("linear_dw", b, o, i, at(dw, o, i), sum, tol_f32(size, (double)n[0]));
            }
        drop_tensors();
    }
}

CASE(linear_dw_matches_doubles)
{
    each_backend(linear_dw_case);
}

static void fused_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t *n = shapes[s];
        b->live = n[0];
        struct ft_tensor *x = random_tensor(b, n[1], 1), *w = random_weight(n[2], n[1], FT_BF16, 2);
        struct ft_tensor *u = random_tensor(b, n[3], 5), *lb = random_weight(n[2], n[3], FT_F32, 6);
        struct ft_tensor *y = empty_tensor(b, n[2]), *z = empty_tensor(b, n[2]);
        run_op(b, FT_OP_linear,
               &(union ft_op_args){.linear = {x, w, NULL, NULL, u, lb, y, 1.f, 0.3f}});
        run_op(b, FT_OP_linear,
               &(union ft_op_args){.linear = {x, w, NULL, NULL, NULL, NULL, z, 1.f, 0}});
        run_op(b, FT_OP_linear, /* in place: y may overwrite add */
               &(union ft_op_args){.linear = {u, lb, NULL, z, NULL, NULL, z, 0.3f, 0}});
        CHECK(same_bits(b, y, z));
        drop_tensors();
    }
}

CASE(fused_low_rank_product_changes_no_bit)
{
    each_host_backend(fused_case);
}

static void long_case(struct bench *b)
{
    /* more of k than one packed block holds */
    const int64_t k = 12000, n = 70;
    b->live = 9;
    struct ft_tensor *x = random_tensor(b, k, 1), *w = random_weight(n, k, FT_BF16, 2);
    struct ft_tensor *y = empty_tensor(b, n);
    run_op(b, FT_OP_linear,
           &(union ft_op_args){.linear = {x, w, NULL, NULL, NULL, NULL, y, 1.f, 0}});
    for (int64_t t = 0; t < b->live; t++)
        for (int64_t o = 0; o < n; o++) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < k; i++) {
                sum += at(x, t, i) * at(w, o, i);
                size += fabs(at(x, t, i) * at(w, o, i));
            }
            check_element("long linear", b, t, o, at(y, t, o), sum, tol(b, size, (double)k));
        }
}

CASE(linear_sums_across_blocks)
{
    each_backend(long_case);
}
