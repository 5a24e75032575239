/* head_loss, grad_norm, adamw, sgd, lion against doubles. */
#include "tests/kernels/ops.h"

enum { MOST_VOCAB = 300000 };

/* What is done to logits. */
struct logits {
    float scale, softcap;
    int64_t bytes;
};
static const struct logits plain = {1, 0, 0};

/* The loss of a row in doubles; p becomes the gradient of its logits. */
static double row_in_double(const struct ft_tensor *h, const struct ft_tensor *w, int64_t t,
                            int32_t target, const struct logits *l, double *p)
{
    static double slope[MOST_VOCAB];
    double max = -1e300, sum = 0;
    for (int64_t i = 0; i < w->rows; i++) {
        p[i] = 0;
        for (int64_t k = 0; k < w->cols; k++)
            p[i] += at(h, t, k) * at(w, i, k);
        p[i] *= (double)l->scale;
        if (l->softcap > 0)
            p[i] = (double)l->softcap * tanh(p[i] / (double)l->softcap);
        slope[i] = l->softcap > 0 ? 1 - pow(p[i] / (double)l->softcap, 2) : 1;
        max = fmax(max, p[i]);
    }
    const double at_target = p[target];
    for (int64_t i = 0; i < w->rows; i++)
        sum += p[i] = exp(p[i] - max);
    for (int64_t i = 0; i < w->rows; i++)
        p[i] = (p[i] / sum - (i == target)) * slope[i] * (double)l->scale;
    return log(sum) + max - at_target;
}

/* n rows of c columns, a vocabulary of v; every so many rows are trained. */
static void head_shape(struct bench *b, int64_t n, int64_t c, int64_t v, int every,
                       const struct logits *l)
{
    static double p[MOST_VOCAB];
    double values[FT_SCALARS] = {[FT_S_LOSS_SUM] = 10, [FT_S_TRAINED] = 2}, loss = 10;
    b->live = n;
    struct ft_tensor *h = random_tensor(b, c, 1), *w = random_weight(v, c, FT_BF16, 2);
    struct ft_tensor *targets = int_rows(b, 1), *dh = empty_tensor(b, c);
    struct ft_tensor *picked = int_rows(b, 1), *dw = random_master(v, c, 3), *was = copy_tensor(dw);
    double *sums = calloc((size_t)(v * c), sizeof *sums);
    int32_t *target = targets->data;
    int trained = 0;
    for (int64_t t = 0; t < b->live; t++) {
        target[t] = t % every ? -1 : (int32_t)(t * 5 % v);
        if (target[t] >= 0)
            ((int32_t *)picked->data)[trained++] = (int32_t)t;
    }
    b->trained = trained;
    run_op(b, FT_OP_head_loss,
           &(union ft_op_args){.head_loss = {h, w, targets, picked, dh, scalars_tensor(values), dw,
                                             l->scale, l->softcap, l->bytes}});
    for (int64_t t = 0; t < b->live; t++) {
        if (target[t] >= 0)
            loss += row_in_double(h, w, t, target[t], l, p);
        for (int64_t i = 0; i < v * c && target[t] >= 0; i++)
            sums[i] += p[i / c] * at(h, t, i % c);
        for (int64_t k = 0; k < c; k++) {
            double want = 0;
            for (int64_t i = 0; i < v && target[t] >= 0; i++)
                want += p[i] * at(w, i, k);
            check_element("head_loss dh", b, t, k, at(dh, t, k), want,
                          (double)fmaxf(1, l->scale) *
                              (4 * tol_f32(2, (double)(v + c)) + tol(b, 1, 1)));
        }
    }
    for (int64_t i = 0; i < v * c; i++)
        check_element("head_loss dw", b, i / c, i % c, at(dw, i / c, i % c),
                      at(was, i / c, i % c) + sums[i],
                      (double)fmaxf(1, l->scale) * (4 * tol_f32(2, (double)(n + c)) +
                                                    tol(b, 1 + 0.05 * (double)trained, 1)));
    free(sums);
    CHECK_NEAR(values[FT_S_LOSS_SUM], loss, 4 * tol_f32(loss, (double)(v + c)));
    CHECK_INT(values[FT_S_TRAINED], 2 + trained);
    check_poison(b, dh);
    run_op(b, FT_OP_head_loss,
           &(union ft_op_args){.head_loss = {h, w, targets, picked, NULL, scalars_tensor(values),
                                             NULL, l->scale, l->softcap, l->bytes}});
    CHECK_NEAR(values[FT_S_EVAL_SUM], loss - 10, 4 * tol_f32(loss, (double)(v + c)));
    CHECK_INT(values[FT_S_EVAL_COUNT], trained);
    drop_tensors();
}

static void head_case(struct bench *b)
{
    static const int64_t shapes[][3] = {{1, 1, 1},      {5, 8, 3},  {33, 20, 37},
                                        {70, 64, 1000}, {9, 7, 16}, {6, 40, 8200}};
    for (int s = 0; s < 6; s++)
        for (int every = 1; every <= 3; every++)
            head_shape(b, shapes[s][0], shapes[s][1], shapes[s][2], every, &plain);
}

CASE(head_loss_matches_doubles)
{
    each_backend(head_case);
}

/* Room for so few logits that they are computed in chunks of 64 rows. */
static void chunks_case(struct bench *b)
{
    head_shape(b, 200, 9, 120, 1, &(struct logits){1, 0, 1});
}

CASE(head_loss_in_chunks)
{
    each_backend(chunks_case);
}

static void capped_case(struct bench *b)
{
    static const struct logits all[] = {{0.25f, 0, 0}, {1, 1.5f, 0}, {3, 2, 1}};
    for (int i = 0; i < 3; i++) {
        head_shape(b, 70, 20, 37, 2, &all[i]);
        head_shape(b, 5, 8, 8200, 1, &all[i]);
    }
}

CASE(head_loss_scales_and_caps)
{
    each_backend(capped_case);
}

static void nonfinite_case(struct bench *b)
{
    double values[FT_SCALARS] = {0};
    b->live = b->trained = 2;
    struct ft_tensor *h = random_tensor(b, 4, 1), *w = random_weight(40, 4, FT_F32, 2);
    struct ft_tensor *targets = int_rows(b, 1), *picked = int_rows(b, 1);
    struct ft_tensor *dh = empty_tensor(b, 4);
    ((int32_t *)picked->data)[1] = 1;
    put(h, 1, 1, INFINITY);
    run_op(b, FT_OP_head_loss,
           &(union ft_op_args){
               .head_loss = {h, w, targets, picked, dh, scalars_tensor(values), NULL, 1, 0, 0}});
    CHECK(!isfinite(values[FT_S_LOSS_SUM]));
}

CASE(infinite_logits_reach_the_loss)
{
    each_backend(nonfinite_case);
}

/* Lion from p0 and m0, on a gradient g0 that is still to be scaled. */
static void lion_step(struct bench *b, struct ft_tensor *sc, const struct ft_tensor *g0,
                      const struct ft_tensor *p0, const struct ft_tensor *m0, double factor)
{
    struct ft_tensor *g = copy_tensor(g0), *p = copy_tensor(p0), *m = copy_tensor(m0);
    const double b1 = (double)0.9f, b2 = (double)0.99f, keep = 1 - 1e-2 * (double)0.1f;
    run_op(b, FT_OP_lion, &(union ft_op_args){.lion = {sc, g, p, m, 0.9f, 0.99f, 0.1f, 1}});
    for (int64_t i = 0; i < g->cols; i++) {
        const double gi = at(g0, 0, i) * factor, mi = at(m0, 0, i);
        const double towards = b1 * mi + (1 - b1) * gi, sign = (towards > 0) - (towards < 0);
        if (fabs(towards) > 1e-6) /* below, the sign is one of rounding */
            check_element("lion", b, 0, i, at(p, 0, i), at(p0, 0, i) * keep - 1e-2 * sign,
                          tol_f32(2, 4));
        check_element("lion mean", b, 0, i, at(m, 0, i), b2 * mi + (1 - b2) * gi, tol_f32(2, 4));
        check_element("lion grad", b, 0, i, at(g, 0, i), 0, 0);
    }
    /* where all is 0 nothing moves */
    memset(p->data, 0, (size_t)p->cols * sizeof(float));
    memset(m->data, 0, (size_t)m->cols * sizeof(float));
    run_op(b, FT_OP_lion, &(union ft_op_args){.lion = {sc, g, p, m, 0.9f, 0.99f, 0.1f, 1}});
    CHECK_NEAR(at(p, 0, 0), 0, 0);
}

static void optimizer_case(struct bench *b)
{
    static const int64_t sizes[] = {1, 17, 40000};
    for (int s = 0; s < 3; s++) {
        const int64_t n = sizes[s];
        double values[FT_SCALARS] = {[FT_S_LR] = 1e-2, [FT_S_STEP] = 2, [FT_S_TRAINED] = 4};
        struct ft_tensor *sc = scalars_tensor(values);
        struct ft_tensor *g = random_master(1, n, 1), *p = random_master(1, n, 2);
        struct ft_tensor *m = random_master(1, n, 3), *v = random_master(1, n, 4);
        for (int64_t i = 0; i < n; i++)
            ((float *)v->data)[i] = fabsf(((float *)v->data)[i]);
        struct ft_tensor *g0 = copy_tensor(g), *p0 = copy_tensor(p), *m0 = copy_tensor(m);
        struct ft_tensor *v0 = copy_tensor(v);
        run_op(b, FT_OP_grad_norm, &(union ft_op_args){.grad_norm = {g, sc, 0.1f}});
        double norm = 0;
        for (int64_t i = 0; i < n; i++)
            norm += at(g, 0, i) * at(g, 0, i);
        norm = sqrt(norm) / 4;
        double factor = fmin(1, (double)0.1f / (norm + 1e-6)) / 4;
        CHECK_NEAR(values[FT_S_NORM], norm, 1e-9 * norm);
        CHECK_NEAR(values[FT_S_FACTOR], factor, 1e-9 * factor);
        CHECK_INT(values[FT_S_FINITE], 1);
        CHECK_INT(values[FT_S_STEP], 3);
        CHECK_INT(values[FT_S_TOKENS], 4);
        CHECK_INT(values[FT_S_TRAINED], 0);
        run_op(b, FT_OP_adamw,
               &(union ft_op_args){.adamw = {sc, g, p, m, v, 0.9f, 0.99f, 1e-8f, 0.1f, 1}});
        const double b1 = (double)0.9f, b2 = (double)0.99f;
        for (int64_t i = 0; i < n; i++) {
            double gi = at(g0, 0, i) * factor, mi = b1 * at(m0, 0, i) + (1 - b1) * gi;
            double vi = b2 * at(v0, 0, i) + (1 - b2) * gi * gi;
            double step = mi / (1 - pow(b1, 3)) / (sqrt(vi / (1 - pow(b2, 3))) + (double)1e-8f);
            double want = at(p0, 0, i) * (1 - 1e-2 * (double)0.1f) - 1e-2 * step;
            check_element("adamw", b, 0, i, at(p, 0, i), want, tol_f32(2 + fabs(step), 4));
            check_element("adamw grad", b, 0, i, at(g, 0, i), 0, 0);
        }
        struct ft_tensor *mom = copy_tensor(m0), *q = copy_tensor(p0), *h = copy_tensor(g0);
        run_op(b, FT_OP_sgd, &(union ft_op_args){.sgd = {sc, h, q, mom, 0.5f, 0.1f, 1}});
        for (int64_t i = 0; i < n; i++) {
            double d = 0.5 * at(m0, 0, i) + at(g0, 0, i) * factor + (double)0.1f * at(p0, 0, i);
            check_element("sgd", b, 0, i, at(q, 0, i), at(p0, 0, i) - 1e-2 * d, tol_f32(2, 4));
        }
        lion_step(b, sc, g0, p0, m0, factor);
        /* a gradient that is not finite: nothing moves, the gradient is dropped */
        struct ft_tensor *before = copy_tensor(p);
        ((float *)g->data)[n / 2] = NAN;
        values[FT_S_TRAINED] = 4;
        run_op(b, FT_OP_grad_norm, &(union ft_op_args){.grad_norm = {g, sc, 0}});
        CHECK_INT(values[FT_S_FINITE], 0);
        CHECK_INT(values[FT_S_SKIPPED_IN_ROW], 1);
        CHECK_INT(values[FT_S_MOST_IN_ROW], 1);
        CHECK_INT(values[FT_S_STEP], 3);
        run_op(b, FT_OP_adamw,
               &(union ft_op_args){.adamw = {sc, g, p, m, v, 0.9f, 0.99f, 1e-8f, 0.1f, 1}});
        CHECK(same_bits(b, p, before));
        CHECK_NEAR(at(g, 0, n / 2), 0, 0);
        drop_tensors();
    }
}

CASE(optimizers_match_doubles)
{
    each_backend(optimizer_case);
}
