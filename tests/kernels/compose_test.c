/* compose and its backward against doubles. */
#include "tests/kernels/ops.h"

/* A part of y: a b, or a alone. */
struct part {
    struct ft_tensor *a, *b, *da, *db, *da0, *db0;
    int64_t rows, cols;
    double *value, *gradient;
};

/* inner 0: a alone. */
static struct part make_part(int64_t rows, int64_t cols, int64_t inner, uint32_t seed)
{
    struct part p = {.rows = rows, .cols = cols};
    p.a = random_weight(rows, inner ? inner : cols, FT_F32, seed);
    p.b = inner ? random_weight(inner, cols, FT_F32, seed + 1) : NULL;
    p.da = random_master(p.a->rows, p.a->cols, seed + 2);
    p.db = inner ? random_master(inner, cols, seed + 3) : NULL;
    p.da0 = copy_tensor(p.da);
    p.db0 = inner ? copy_tensor(p.db) : NULL;
    p.value = calloc((size_t)(rows * cols), sizeof *p.value);
    p.gradient = calloc((size_t)(rows * cols), sizeof *p.gradient);
    for (int64_t i = 0; i < rows * cols; i++) {
        p.value[i] = inner ? 0 : at(p.a, i / cols, i % cols);
        for (int64_t k = 0; k < inner; k++)
            p.value[i] += at(p.a, i / cols, k) * at(p.b, k, i % cols);
    }
    return p;
}

/* The gradients of what a part is made of, from that of its value. */
static void check_part(struct bench *b, struct part *p, const char *name, double noise)
{
    const int64_t inner = p->b ? p->b->rows : 0;
    for (int64_t i = 0; i < p->a->rows * p->a->cols; i++) {
        const int64_t r = i / p->a->cols, c = i % p->a->cols;
        double want = at(p->da0, r, c) + (inner ? 0 : p->gradient[r * p->cols + c]);
        for (int64_t k = 0; k < p->cols && inner; k++)
            want += p->gradient[r * p->cols + k] * at(p->b, c, k);
        check_element(name, b, r, c, at(p->da, r, c), want, noise);
    }
    for (int64_t i = 0; i < inner * p->cols; i++) {
        const int64_t r = i / p->cols, c = i % p->cols;
        double want = at(p->db0, r, c);
        for (int64_t k = 0; k < p->rows; k++)
            want += at(p->a, k, r) * p->gradient[k * p->cols + c];
        check_element(name, b, r, c, at(p->db, r, c), want, noise);
    }
    free(p->value);
    free(p->gradient);
}

static void compose_shape(struct bench *b, struct part p, struct part q, bool kronecker)
{
    const int64_t rows = kronecker ? p.rows * q.rows : p.rows;
    const int64_t cols = kronecker ? p.cols * q.cols : p.cols;
    const double alpha = 0.5;
    b->live = rows;
    struct ft_tensor *y = empty_tensor(b, cols), *dy = random_master(rows, cols, 20);
    y->extent = FT_FIXED;
    y->rows = rows;
    run_op(b, FT_OP_compose,
           &(union ft_op_args){.compose = {p.a, p.b, q.a, q.b, y, (float)alpha, kronecker}});
    for (int64_t i = 0; i < rows * cols; i++) {
        const int64_t r = i / cols, c = i % cols;
        const int64_t n = kronecker ? r / q.rows * p.cols + c / q.cols : i;
        const int64_t m = kronecker ? r % q.rows * q.cols + c % q.cols : i;
        check_element("compose", b, r, c, at(y, r, c), alpha * p.value[n] * q.value[m],
                      tol_f32(8, 40) + tol(b, fabs(alpha * p.value[n] * q.value[m]), 1));
        p.gradient[n] += alpha * at(dy, r, c) * q.value[m];
        q.gradient[m] += alpha * at(dy, r, c) * p.value[n];
    }
    run_op(b, FT_OP_compose_dx,
           &(union ft_op_args){.compose_dx = {dy, p.a, p.b, q.a, q.b, p.da, p.db, q.da, q.db,
                                              (float)alpha, kronecker}});
    check_part(b, &p, "compose_dx first", tol_f32(40, 400));
    check_part(b, &q, "compose_dx second", tol_f32(40, 400));
    drop_tensors();
}

static void compose_case(struct bench *b)
{
    compose_shape(b, make_part(1, 1, 1, 1), make_part(1, 1, 1, 7), false);
    compose_shape(b, make_part(37, 20, 3, 1), make_part(37, 20, 3, 7), false);
    compose_shape(b, make_part(5, 140, 8, 1), make_part(5, 140, 8, 7), false);
    compose_shape(b, make_part(4, 3, 0, 1), make_part(9, 7, 0, 7), true);
    compose_shape(b, make_part(6, 5, 0, 1), make_part(8, 11, 4, 7), true);
}

CASE(compose_matches_doubles)
{
    each_backend(compose_case);
}
