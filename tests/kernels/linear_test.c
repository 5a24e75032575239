/* linear, linear_dx, linear_dw against doubles, and fused against unfused. */
#include "tests/kernels/ops.h"

#include "core/quant.h"

/* tokens, in, out, rank */
static const int64_t shapes[][4] = {{1, 1, 1, 1},      {2, 3, 5, 1},    {7, 33, 50, 3},
                                    {64, 96, 48, 16},  {65, 97, 49, 8}, {130, 400, 333, 5},
                                    {33, 1000, 17, 4}, {9, 512, 96, 2}};
#define EACH_SHAPE(i) for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)

/* n: rows, terms, columns, and terms of the low-rank part, which there may be none of. */
static void one_linear(struct bench *b, const int64_t n[4], enum ft_dtype dtype)
{
    b->live = n[0];
    struct ft_tensor *x = random_tensor(b, n[1], 1), *w = random_weight(n[2], n[1], dtype, 2);
    struct ft_tensor *bias = random_weight(1, n[2], dtype, 3), *add = random_tensor(b, n[2], 4);
    struct ft_tensor *u = n[3] ? random_tensor(b, n[3], 5) : NULL;
    struct ft_tensor *lb = n[3] ? random_weight(n[2], n[3], FT_F32, 6) : NULL;
    struct ft_tensor *y = empty_tensor(b, n[2]);
    run_op(b, FT_OP_linear,
           &(union ft_op_args){
               .linear = {x, w, bias, add, u, lb, NULL, NULL, y, 0.75f, n[3] ? -2.f : 0}});
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
                          b->keys ? tol_f32(size, (double)(n[1] + n[3]))
                                  : tol(b, size, (double)(n[1] + n[3])));
        }
    check_poison(b, y);
    drop_tensors();
}

static const enum ft_dtype dtypes[] = {FT_F32, FT_BF16, FT_F16};

static void linear_case(struct bench *b)
{
    EACH_SHAPE(s)
    for (int d = 0; d < 3; d++)
        one_linear(b, shapes[s], dtypes[d]);
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
               &(union ft_op_args){.linear_dx = {dy, w, add, du, a, NULL, NULL, dx, 1.f, 0.5f}});
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
        run_op(b, FT_OP_linear_dw, &(union ft_op_args){.linear_dw = {dy, x, NULL, NULL, dw, 2.f}});
        struct ft_tensor *fresh = copy_tensor(was);
        run_op(b, FT_OP_linear_dw,
               &(union ft_op_args){.linear_dw = {dy, x, NULL, NULL, fresh, 2.f, true}});
        for (int64_t o = 0; o < n[2]; o++)
            for (int64_t i = 0; i < n[1]; i++) {
                double sum = at(was, o, i), size = fabs(sum);
                for (int64_t t = 0; t < n[0]; t++) {
                    sum += 2 * at(dy, t, o) * at(x, t, i);
                    size += 2 * fabs(at(dy, t, o) * at(x, t, i));
                }
                check_element("linear_dw", b, o, i, at(dw, o, i), sum, tol_f32(size, (double)n[0]));
                check_element("fresh linear_dw", b, o, i, at(fresh, o, i), sum - at(was, o, i),
                              tol_f32(size, (double)n[0]));
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
               &(union ft_op_args){.linear = {x, w, NULL, NULL, u, lb, NULL, NULL, y, 1.f, 0.3f}});
        run_op(
            b, FT_OP_linear,
            &(union ft_op_args){.linear = {x, w, NULL, NULL, NULL, NULL, NULL, NULL, z, 1.f, 0}});
        run_op(b, FT_OP_linear, /* in place: y may overwrite add */
               &(union ft_op_args){.linear = {u, lb, NULL, z, NULL, NULL, NULL, NULL, z, 0.3f, 0}});
        CHECK(same_bits(b, y, z));
        drop_tensors();
    }
}

CASE(fused_low_rank_product_changes_no_bit)
{
    each_host_backend(fused_case);
}

/* Products one after the other, some of which read what the one before read; the first has 16
 * columns. */
enum { ROW = 7 };

static void check_row(struct bench *b, enum ft_op op, const union ft_op_args *args, int64_t n)
{
    struct ft_tensor *narrow = empty_tensor(b, 16), *wide = empty_tensor(b, n);
    run_ops(b, op, args, ROW);
    for (int i = 0; i < ROW; i++) {
        union ft_op_args one = args[i];
        struct ft_tensor **out = &one.slots[ft_op_rows[op].n_in], *y = *out;
        *out = i ? wide : narrow;
        run_op(b, op, &one);
        CHECK(same_bits(b, y, *out));
    }
}

static void in_a_row(struct bench *b, int64_t rows, int64_t k, int64_t n)
{
    b->live = rows;
    struct ft_tensor *x = random_tensor(b, k, 1), *other = random_tensor(b, k, 2);
    struct ft_tensor *w = random_weight(n, k, FT_BF16, 3), *wt = random_weight(k, n, FT_BF16, 4);
    struct ft_tensor *a = random_weight(16, k, FT_F32, 5), *at = random_weight(k, 16, FT_F32, 6);
    struct ft_tensor *u = random_tensor(b, 16, 7), *lb = random_weight(n, 16, FT_F32, 8);
    struct ft_tensor *lbt = random_weight(16, n, FT_F32, 9), *y[ROW], *dx[ROW];
    struct ft_tensor *bias = random_weight(1, n, FT_BF16, 10);
    struct ft_tensor *mask = byte_rows(b, (k + 7) / 8);
    memset(mask->data, 0x5a, (size_t)(mask->rows * mask->cols));
    for (int i = 0; i < ROW; i++) {
        y[i] = empty_tensor(b, i ? n : 16);
        dx[i] = empty_tensor(b, i ? n : 16);
    }
    const union ft_op_args forward[ROW] = {
        {.linear = {.x = x, .w = a, .y = y[0], .alpha = 3}},
        {.linear = {.x = x, .w = w, .u = u, .b = lb, .y = y[1], .alpha = 1, .beta = 2}},
        {.linear = {.x = x, .w = w, .bias = bias, .y = y[2], .alpha = 1}},
        {.linear = {.x = x, .w = w, .y = y[3], .alpha = 0.7f}}, /* which falls on x */
        {.linear = {.x = other, .w = w, .y = y[4], .alpha = 0.7f}},
        {.linear = {.x = other, .w = w, .mask = mask, .y = y[5], .alpha = 0.7f}},
        {.linear = {.x = other, .w = w, .y = y[6], .alpha = 0.7f}}};
    const union ft_op_args backward[ROW] = {
        {.linear_dx = {.dy = x, .w = at, .dx = dx[0], .alpha = 3}},
        {.linear_dx = {.dy = x, .w = wt, .du = u, .a = lbt, .dx = dx[1], .alpha = 1, .beta = 2}},
        {.linear_dx = {.dy = x, .w = wt, .dx = dx[2], .alpha = 1}},
        {.linear_dx = {.dy = x, .w = wt, .dx = dx[3], .alpha = 0.7f}},
        {.linear_dx = {.dy = x, .w = wt, .dx = dx[4], .alpha = 0.7f}},
        {.linear_dx = {.dy = other, .w = wt, .dx = dx[5], .alpha = 0.7f}},
        {.linear_dx = {.dy = x, .w = wt, .dx = dx[6], .alpha = 0.7f}}};
    check_row(b, FT_OP_linear, forward, n);
    check_row(b, FT_OP_linear_dx, backward, n);
    drop_tensors();
}

static void row_case(struct bench *b)
{
    in_a_row(b, 70, 96, 50);
    in_a_row(b, 33, 77, 100);
    in_a_row(b, 1100, 40, 20); /* more rows than become words at a time */
    in_a_row(b, 3, 9000, 20);
    in_a_row(b, 600, 9000, 8); /* more words than there is room for */
}

CASE(products_in_a_row_change_no_bit)
{
    each_host_backend(row_case);
}

static void long_case(struct bench *b)
{
    /* more of k than one packed block holds */
    const int64_t k = 12000, n = 70;
    b->live = 9;
    struct ft_tensor *x = random_tensor(b, k, 1), *w = random_weight(n, k, FT_BF16, 2);
    struct ft_tensor *y = empty_tensor(b, n);
    run_op(b, FT_OP_linear,
           &(union ft_op_args){.linear = {x, w, NULL, NULL, NULL, NULL, NULL, NULL, y, 1.f, 0}});
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

static void threads_case(struct bench *b)
{
    static const int64_t sizes[][4] = {
        {1, 40, 700, 8}, {130, 400, 333, 16}, {70, 5000, 48, 5}, {1200, 64, 200, 32}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t *n = sizes[i];
        b->live = n[0];
        struct ft_tensor *x = random_tensor(b, n[1], 1), *w = random_weight(n[2], n[1], FT_BF16, 2);
        struct ft_tensor *u = random_tensor(b, n[3], 5), *lb = random_weight(n[2], n[3], FT_F32, 6);
        struct ft_tensor *y = empty_tensor(b, n[2]), *dx = empty_tensor(b, n[1]);
        struct ft_tensor *dw = random_master(n[3], n[1], 7);
        check_threads(
            b, FT_OP_linear,
            &(union ft_op_args){.linear = {x, w, NULL, NULL, u, lb, NULL, NULL, y, 1, 0.5f}}, &y,
            1);
        check_threads(b, FT_OP_linear_dx,
                      &(union ft_op_args){.linear_dx = {.dy = y, .w = w, .dx = dx, .alpha = 1}},
                      &dx, 1);
        check_threads(b, FT_OP_linear_dw,
                      &(union ft_op_args){.linear_dw = {u, x, NULL, NULL, dw, 1, true}}, &dw, 1);
        check_poison(b, y);
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(threads_change_no_bit)
{
    each_host_backend(threads_case);
}

/* n random masks side by side, and whether one keeps column c of row t. */
static struct ft_tensor *random_mask(const struct bench *b, int64_t cols, int64_t n)
{
    struct ft_tensor *mask = byte_rows(b, n * ((cols + 7) / 8));
    struct ft_rng rng = ft_rng_init(3, FT_RNG_TEST, (uint32_t)cols, 0);
    for (int64_t i = 0; i < mask->rows * mask->cols; i++)
        ((uint8_t *)mask->data)[i] = (uint8_t)ft_rng_u32(&rng);
    return mask;
}

static double kept(const struct ft_tensor *mask, int64_t bytes, int64_t i, int64_t t, int64_t c)
{
    return ((const uint8_t *)mask->data)[t * mask->cols + i * bytes + c / 8] >> (c % 8) & 1;
}

/* u = 2 (m x) A^T by n masks, each for r rows of A; and dA of one of them. */
static void masked_inputs(struct bench *b, int64_t k, int64_t r, int64_t n)
{
    const int64_t bytes = (k + 7) / 8;
    struct ft_tensor *x = random_tensor(b, k, 1), *mask = random_mask(b, k, n);
    struct ft_tensor *a = random_weight(n * r, k, FT_F32, 3), *u = empty_tensor(b, n * r);
    run_op(b, FT_OP_linear,
           &(union ft_op_args){.linear = {.x = x, .w = a, .mask = mask, .y = u, .alpha = 2}});
    for (int64_t t = 0; t < b->live; t++)
        for (int64_t o = 0; o < n * r; o++) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < k; i++) {
                const double v = 2 * at(x, t, i) * at(a, o, i) * kept(mask, bytes, o / r, t, i);
                sum += v;
                size += fabs(v);
            }
            check_element("masked linear", b, t, o, at(u, t, o), sum, tol(b, size, (double)k));
        }
    check_poison(b, u);
    struct ft_tensor *du = random_tensor(b, r, 5), *one = random_mask(b, k, 1);
    struct ft_tensor *dw = random_master(r, k, 6), *was = copy_tensor(dw), *new = copy_tensor(dw);
    run_op(b, FT_OP_linear_dw, &(union ft_op_args){.linear_dw = {du, x, one, NULL, dw, 2}});
    run_op(b, FT_OP_linear_dw, &(union ft_op_args){.linear_dw = {du, x, one, NULL, new, 2, true}});
    for (int64_t o = 0; o < r; o++)
        for (int64_t i = 0; i < k; i++) {
            double sum = 0, size = 1;
            for (int64_t t = 0; t < b->live; t++) {
                sum += 2 * at(du, t, o) * at(x, t, i) * kept(one, bytes, 0, t, i);
                size += 2 * fabs(at(du, t, o) * at(x, t, i));
            }
            const double allowed = tol_f32(size, (double)b->live);
            check_element("masked dw", b, o, i, at(dw, o, i), at(was, o, i) + sum, allowed);
            check_element("fresh masked dw", b, o, i, at(new, o, i), sum, allowed);
        }
    drop_tensors();
}

/* dx of W and of A through n masks in one product, and of A alone, added to that of W. */
static void masked_gradient(struct bench *b, int64_t k, int64_t n_out, int64_t r, int64_t n)
{
    struct ft_tensor *dy = random_tensor(b, n_out, 2), *w = random_weight(n_out, k, FT_BF16, 4);
    struct ft_tensor *du = random_tensor(b, n * r, 5), *a = random_weight(n * r, k, FT_F32, 3);
    struct ft_tensor *mask = random_mask(b, k, n), *both = empty_tensor(b, k);
    struct ft_tensor *plain = empty_tensor(b, k), *dx = empty_tensor(b, k);
    const struct ft_linear_dx_args calls[] = {
        {.dy = dy, .w = w, .du = du, .a = a, .mask = mask, .dx = both, .alpha = 1, .beta = 2},
        {.dy = dy, .w = w, .dx = plain, .alpha = 1},
        {.dy = du, .w = a, .add = plain, .mask = mask, .dx = dx, .alpha = 2}};
    for (int i = 0; i < 3; i++)
        run_op(b, FT_OP_linear_dx, &(union ft_op_args){.linear_dx = calls[i]});
    for (int64_t t = 0; t < b->live; t++)
        for (int64_t c = 0; c < k; c++) {
            double v = at(plain, t, c);
            for (int64_t o = 0; o < n * r; o++)
                v += 2 * at(du, t, o) * at(a, o, c) * kept(mask, (k + 7) / 8, o / r, t, c);
            const double limit = tol(b, (double)(n_out + n * r), (double)(n_out + n * r));
            check_element("masked dx", b, t, c, at(both, t, c), v, limit);
            check_element("masked dx alone", b, t, c, at(dx, t, c), v, limit);
        }
    check_poison(b, dx);
    drop_tensors();
}

static void masked_case(struct bench *b)
{
    static const struct {
        int64_t rows, k, n_out, r, n;
    } cases[] = {{1, 3, 2, 1, 1},      {70, 33, 20, 5, 1},    {130, 576, 100, 16, 1},
                 {513, 900, 64, 8, 1}, {70, 72, 20, 8, 3},    {65, 200, 40, 24, 2},
                 {33, 65, 12, 8, 4},   {130, 136, 24, 72, 2}, {1100, 64, 8, 16, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        b->live = cases[i].rows;
        masked_inputs(b, cases[i].k, cases[i].r, cases[i].n);
        masked_gradient(b, cases[i].k, cases[i].n_out, cases[i].r, cases[i].n);
    }
}

CASE(products_through_masks_match_doubles)
{
    each_backend(masked_case);
}

/* A quantised weight is the weight that it stands for: to the bit, but for bf16 on a device, where
 * both are rounded alike. */
static void quant_case(struct bench *b)
{
    static const struct {
        enum ft_dtype dtype;
        int block;
    } formats[] = {{FT_BNB4, 64},     {FT_BNB4_NESTED, 32}, {FT_BNB4_NESTED, 64},
                   {FT_INT8_ROWS, 0}, {FT_FP8_BLOCKS, 24},  {FT_INT4_GROUPS, 16},
                   {FT_Q4_K, 0},      {FT_Q5_0, 0}};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        EACH_SHAPE(s)
        {
            const int64_t *n = shapes[s];
            const int whole = ft_block_size(formats[f].dtype).elements;
            if (whole && n[1] % whole)
                continue; /* rows of whole blocks */
            if (b->backend->dev && !whole && s % 3 != 1)
                continue; /* the emulated one is slow */
            b->live = n[0];
            struct ft_tensor *q = random_quant(n[2], n[1], formats[f].dtype, formats[f].block, 3);
            struct ft_tensor *w = widened(q), *x = random_tensor(b, n[1], 1);
            struct ft_tensor *dy = random_tensor(b, n[2], 2), *y = empty_tensor(b, n[2]);
            struct ft_tensor *z = empty_tensor(b, n[2]), *dx = empty_tensor(b, n[1]);
            struct ft_tensor *dz = empty_tensor(b, n[1]);
            run_op(b, FT_OP_linear,
                   &(union ft_op_args){.linear = {.x = x, .w = q, .y = y, .alpha = 2}});
            run_op(b, FT_OP_linear,
                   &(union ft_op_args){.linear = {.x = x, .w = w, .y = z, .alpha = 2}});
            run_op(b, FT_OP_linear_dx,
                   &(union ft_op_args){.linear_dx = {.dy = dy, .w = q, .dx = dx, .alpha = 2}});
            run_op(b, FT_OP_linear_dx,
                   &(union ft_op_args){.linear_dx = {.dy = dy, .w = w, .dx = dz, .alpha = 2}});
            if (!same_bits(b, y, z) || !same_bits(b, dx, dz))
                check_fail(ft_dtype_name(q->dtype), (int)s,
                           "%s: another product than with what it "
                           "stands for",
                           b->backend->isa);
            check_poison(b, y);
            drop_tensors();
        }
}

CASE(quantised_weights_are_what_they_stand_for)
{
    each_backend(quant_case);
}

/* The same from a quantised weight and from what it stands for. */
static void few_quantised(struct bench *b, int64_t rows, enum ft_dtype dtype, int block)
{
    b->live = rows;
    struct ft_tensor *q = random_quant(37, 1280, dtype, block, 3), *w = widened(q);
    struct ft_tensor *x = random_tensor(b, 1280, 1);
    struct ft_tensor *y = empty_tensor(b, 37), *z = empty_tensor(b, 37);
    run_op(b, FT_OP_linear, &(union ft_op_args){.linear = {.x = x, .w = q, .y = y, .alpha = 2}});
    run_op(b, FT_OP_linear, &(union ft_op_args){.linear = {.x = x, .w = w, .y = z, .alpha = 2}});
    if (!same_bits(b, y, z))
        check_fail(ft_dtype_name(dtype), (int)rows, "%s: another product", b->backend->isa);
    drop_tensors();
}

/* Rows of an answer, which is read by rows of the weight, in f32 (kernels/cpu/few.c). */
static void few_case(struct bench *b)
{
    static const int64_t sizes[][3] = {{1, 1, 0},   {31, 15, 1},  {32, 16, 8},
                                       {47, 17, 0}, {576, 33, 3}, {1057, 50, 33}};
    b->keys = 1; /* some are cached */
    for (int64_t rows = 1; rows <= 4; rows++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int d = 0; d < 3; d++)
                one_linear(b, (int64_t[]){rows, sizes[i][0], sizes[i][1], sizes[i][2]}, dtypes[d]);
        few_quantised(b, rows, FT_BNB4, 64);
        few_quantised(b, rows, FT_Q4_K, 0);
    }
    b->keys = 0;
}

CASE(few_rows_match_doubles)
{
    each_host_backend(few_case);
}
