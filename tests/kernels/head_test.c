/* head_loss, grad_norm, adamw, sgd, lion (states in f32 and in 8 bits), adafactor, muon against
 * doubles. */
#include "core/quant.h"
#include "tests/kernels/ops.h"

enum { MOST_VOCAB = 300000 };

/* What is done to logits. */
struct logits {
    float scale, softcap;
    int64_t bytes;
    int64_t low; /* rank of the pair u, b; 0: none */
};
static const struct logits plain = {1, 0, 0, 0};
static const float low_scale = 0.5f;

/* The loss of a row in doubles; p becomes the gradient of its logits, before what scales them. */
static double row_in_double(const struct ft_head_loss_args *a, int64_t t, int32_t target, double *p)
{
    static double slope[MOST_VOCAB];
    const double cap = (double)a->softcap;
    double max = -1e300, sum = 0;
    for (int64_t i = 0; i < a->w->rows; i++) {
        p[i] = 0;
        for (int64_t k = 0; k < a->w->cols; k++)
            p[i] += at(a->h, t, k) * at(a->w, i, k) * (double)a->scale;
        for (int64_t k = 0; a->u && k < a->u->cols; k++)
            p[i] += at(a->u, t, k) * at(a->b, i, k) * (double)a->beta;
        if (cap > 0)
            p[i] = cap * tanh(p[i] / cap);
        slope[i] = cap > 0 ? 1 - pow(p[i] / cap, 2) : 1;
        max = fmax(max, p[i]);
    }
    const double at_target = p[target];
    for (int64_t i = 0; i < a->w->rows; i++)
        sum += p[i] = exp(p[i] - max);
    for (int64_t i = 0; i < a->w->rows; i++)
        p[i] = (p[i] / sum - (i == target)) * slope[i];
    return log(sum) + max - at_target;
}

/* One of the two that logits are made of: x w^T times alpha, with their gradients. */
struct factor {
    const char *name;
    const struct ft_tensor *x, *w, *dx, *dw, *was;
    float alpha;
    double *sums; /* (V,C), of dw */
};

static struct factor factor_of(const char *name, const struct ft_tensor *x,
                               const struct ft_tensor *w, const struct ft_tensor *dx,
                               const struct ft_tensor *dw, float alpha)
{
    return (struct factor){name,  x,
                           w,     dx,
                           dw,    copy_tensor(dw),
                           alpha, calloc((size_t)(w->rows * w->cols), sizeof(double))};
}

/* Row t, whose logits have gradient p; NULL: it is not trained. */
static void check_row(struct bench *b, struct factor *f, int64_t t, const double *p, double noise)
{
    const int64_t v = f->w->rows, c = f->w->cols;
    for (int64_t i = 0; i < v * c && p; i++)
        f->sums[i] += p[i / c] * at(f->x, t, i % c) * (double)f->alpha;
    for (int64_t k = 0; k < c; k++) {
        double want = 0;
        for (int64_t i = 0; i < v && p; i++)
            want += p[i] * at(f->w, i, k) * (double)f->alpha;
        check_element(f->name, b, t, k, at(f->dx, t, k), want, noise);
    }
}

static void check_weight(struct bench *b, struct factor *f, double noise)
{
    const int64_t c = f->w->cols;
    for (int64_t i = 0; i < f->w->rows * c; i++)
        check_element(f->name, b, i / c, i % c, at(f->dw, i / c, i % c),
                      at(f->was, i / c, i % c) + f->sums[i], noise);
    free(f->sums);
    check_poison(b, f->dx);
}

/* n rows of c columns, a vocabulary of v; every so many rows are trained. */
static void head_shape(struct bench *b, int64_t n, int64_t c, int64_t v, int every,
                       const struct logits *l)
{
    static double p[MOST_VOCAB];
    double values[FT_SCALARS] = {[FT_S_LOSS_SUM] = 10, [FT_S_TRAINED] = 2}, loss = 10;
    b->live = n;
    struct ft_head_loss_args a = {.h = random_tensor(b, c, 1),
                                  .w = random_weight(v, c, FT_BF16, 2),
                                  .targets = int_rows(b, 1),
                                  .picked = int_rows(b, 1),
                                  .dh = empty_tensor(b, c),
                                  .scalars = scalars_tensor(values),
                                  .dw = random_master(v, c, 3),
                                  .scale = l->scale,
                                  .softcap = l->softcap,
                                  .beta = low_scale,
                                  .logit_bytes = l->bytes};
    if (l->low) {
        a.u = random_tensor(b, l->low, 4);
        a.b = random_weight(v, l->low, FT_F32, 5);
        a.du = empty_tensor(b, l->low);
        a.db = random_master(v, l->low, 6);
    }
    struct factor f[2] = {factor_of("head_loss h", a.h, a.w, a.dh, a.dw, a.scale)};
    if (l->low)
        f[1] = factor_of("head_loss u", a.u, a.b, a.du, a.db, low_scale);
    int32_t *target = a.targets->data;
    int trained = 0;
    for (int64_t t = 0; t < b->live; t++) {
        target[t] = t % every ? -1 : (int32_t)(t * 5 % v);
        if (target[t] >= 0)
            ((int32_t *)a.picked->data)[trained++] = (int32_t)t;
    }
    b->trained = trained;
    run_op(b, FT_OP_head_loss, &(union ft_op_args){.head_loss = a});
    /* where bf16 products are the host's, scaled hidden states are rounded too */
    const bool rounds = b->backend->products == FT_BF16 && !b->backend->dev;
    const double noise = (double)fmaxf(1, l->scale) * (rounds ? 8 : 4);
    for (int64_t t = 0; t < b->live; t++) {
        const bool is = target[t] >= 0;
        loss += is ? row_in_double(&a, t, target[t], p) : 0;
        for (int k = 0; k < 1 + (l->low > 0); k++)
            check_row(b, &f[k], t, is ? p : NULL,
                      noise * (tol_f32(2, (double)(v + c)) + tol(b, 1, 1) / 4));
    }
    for (int k = 0; k < 1 + (l->low > 0); k++)
        check_weight(b, &f[k],
                     noise *
                         (tol_f32(2, (double)(n + c)) + tol(b, 1 + 0.05 * (double)trained, 1) / 4));
    const double allowed = 4 * tol_f32(loss, (double)(v + c)) + (rounds ? tol_bf16(loss) / 8 : 0);
    CHECK_NEAR(values[FT_S_LOSS_SUM], loss, allowed);
    CHECK_INT(values[FT_S_TRAINED], 2 + trained);
    a.dh = a.dw = a.du = a.db = NULL;
    run_op(b, FT_OP_head_loss, &(union ft_op_args){.head_loss = a});
    CHECK_NEAR(values[FT_S_EVAL_SUM], loss - 10, allowed);
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
    head_shape(b, 200, 9, 120, 1, &(struct logits){1, 0, 1, 0});
    head_shape(b, 200, 9, 120, 1, &(struct logits){1, 0, 1, 3});
}

CASE(head_loss_in_chunks)
{
    each_backend(chunks_case);
}

static void capped_case(struct bench *b)
{
    static const struct logits all[] = {
        {0.25f, 0, 0, 0}, {1, 1.5f, 0, 0}, {3, 2, 1, 0}, {0.25f, 0, 0, 8}, {1, 1.5f, 0, 5}};
    for (int i = 0; i < 5; i++) {
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
           &(union ft_op_args){.head_loss = {.h = h,
                                             .w = w,
                                             .targets = targets,
                                             .picked = picked,
                                             .dh = dh,
                                             .scalars = scalars_tensor(values),
                                             .scale = 1}});
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

/* Two updates of a parameter of this shape, or of a vector. */
static void adafactor_shape(struct bench *b, int64_t rows, int64_t cols, bool vector)
{
    const double factor = 0.25, lr = 1e-2, decays = (double)0.1f;
    double values[FT_SCALARS] = {[FT_S_LR] = lr, [FT_S_FACTOR] = factor, [FT_S_FINITE] = 1};
    struct ft_tensor *sc = scalars_tensor(values), *p = random_master(rows, cols, 1);
    struct ft_tensor *row = vector ? NULL : random_master(1, rows, 2),
                     *col = random_master(1, cols, 3);
    double *r = calloc((size_t)rows, sizeof *r), *c = calloc((size_t)cols, sizeof *c);
    memset(col->data, 0, (size_t)cols * sizeof(float));
    if (row)
        memset(row->data, 0, (size_t)rows * sizeof(float));
    for (int step = 1; step <= 2; step++) {
        struct ft_tensor *g = random_master(rows, cols, 3 + (uint32_t)step), *g0 = copy_tensor(g);
        struct ft_tensor *p0 = copy_tensor(p);
        const double keep = 1 - pow(step, -0.8);
        double mean = 0, squares = 0;
        for (int64_t i = 0; i < rows; i++)
            r[i] *= keep;
        for (int64_t k = 0; k < cols; k++)
            c[k] *= keep;
        for (int64_t i = 0; i < rows * cols; i++) {
            const double v = pow(at(g0, i / cols, i % cols) * factor, 2) + 1e-30;
            r[i / cols] += (1 - keep) * v / (double)cols;
            c[i % cols] += (1 - keep) * v / (double)rows;
        }
        for (int64_t i = 0; i < rows; i++)
            mean += r[i] / (double)rows;
#define U(i)                                                                                       \
    (at(g0, (i) / cols, (i) % cols) * factor /                                                     \
     sqrt((vector ? 1 : r[(i) / cols] / mean) * c[(i) % cols]))
        for (int64_t i = 0; i < rows * cols; i++)
            squares += U(i) * U(i) / (double)(rows * cols);
        values[FT_S_STEP] = step;
        run_op(b, FT_OP_adafactor, &(union ft_op_args){.adafactor = {sc, g, p, row, col, 0.1f, 1}});
        for (int64_t i = 0; i < rows * cols; i++) {
            const double u = U(i) / fmax(1, sqrt(squares));
            check_element("adafactor", b, i / cols, i % cols, at(p, i / cols, i % cols),
                          at(p0, i / cols, i % cols) * (1 - lr * decays) - lr * u,
                          tol_f32(2 + lr * fabs(u), 16));
            check_element("adafactor grad", b, i / cols, i % cols, at(g, i / cols, i % cols), 0, 0);
        }
#undef U
    }
    free(r);
    free(c);
    drop_tensors();
}

static void adafactor_case(struct bench *b)
{
    adafactor_shape(b, 1, 1, false);
    adafactor_shape(b, 1, 300, true);
    adafactor_shape(b, 37, 16, false);
    adafactor_shape(b, 5, 1000, false);
    adafactor_shape(b, 700, 1, false);
}

CASE(adafactor_matches_doubles)
{
    each_backend(adafactor_case);
}

/* c (m,n) = alpha a (m,k) b (k,n) + beta d, in doubles. */
static void multiply(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k,
                     double alpha, const double *d, double beta)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t l = 0; l < n; l++) {
            double sum = 0;
            for (int64_t e = 0; e < k; e++)
                sum += a[i * k + e] * b[e * n + l];
            c[i * n + l] = alpha * sum + beta * d[i * n + l];
        }
}

/* x (s,l) towards its nearest orthogonal matrix. */
static void five_steps(double *x, int64_t s, int64_t l)
{
    double *t = calloc((size_t)(s * l), sizeof *t), *a = calloc((size_t)(s * s), sizeof *a);
    double *p = calloc((size_t)(s * s), sizeof *p), *y = calloc((size_t)(s * l), sizeof *y);
    for (int k = 0; k < 5; k++) {
        for (int64_t i = 0; i < s * l; i++)
            t[i % l * s + i / l] = x[i];
        multiply(a, x, t, s, s, l, 1, a, 0);
        multiply(p, a, a, s, s, s, 2.0315, a, -4.7750);
        multiply(y, p, x, s, l, s, 1, x, 3.4445);
        memcpy(x, y, (size_t)(s * l) * sizeof *x);
    }
    free(t);
    free(a);
    free(p);
    free(y);
}

static void muon_shape(struct bench *b, int64_t rows, int64_t cols)
{
    const double factor = 0.25, lr = 1e-2, mu = (double)0.95f;
    const bool tall = rows > cols;
    const int64_t s = tall ? cols : rows, l = tall ? rows : cols, n = rows * cols;
    double values[FT_SCALARS] = {[FT_S_LR] = lr, [FT_S_FACTOR] = factor, [FT_S_FINITE] = 1};
    struct ft_tensor *sc = scalars_tensor(values), *p = random_master(rows, cols, 1);
    struct ft_tensor *m = random_master(rows, cols, 2), *g = random_master(rows, cols, 3);
    struct ft_tensor *p0 = copy_tensor(p), *m0 = copy_tensor(m), *g0 = copy_tensor(g);
    double *x = calloc((size_t)n, sizeof *x), norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double gi = at(g0, i / cols, i % cols) * factor;
        const double u = gi + mu * (mu * at(m0, i / cols, i % cols) + gi);
        x[tall ? i % cols * l + i / cols : i] = u;
        norm += u * u;
    }
    for (int64_t i = 0; i < n; i++)
        x[i] /= sqrt(norm) + 1e-7;
    five_steps(x, s, l);
    run_op(b, FT_OP_muon, &(union ft_op_args){.muon = {sc, g, p, m, 0.95f, 0.1f, 1}});
    const double by = lr * 0.2 * sqrt((double)l), keep = 1 - lr * (double)0.1f;
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = i / cols, c = i % cols;
        const double u = x[tall ? c * l + r : i], mi = mu * at(m0, r, c) + at(g0, r, c) * factor;
        check_element("muon", b, r, c, at(p, r, c), at(p0, r, c) * keep - by * u,
                      tol_f32(2, 8) + by * (tol_f32(4, (double)l) + tol(b, 0.5, 1) * 8));
        check_element("muon momentum", b, r, c, at(m, r, c), mi, tol_f32(2, 4));
        check_element("muon grad", b, r, c, at(g, r, c), 0, 0);
    }
    free(x);
    drop_tensors();
}

static void muon_case(struct bench *b)
{
    muon_shape(b, 1, 1);
    muon_shape(b, 3, 40);
    muon_shape(b, 70, 5);
    muon_shape(b, 33, 33);
    muon_shape(b, 16, 300);
}

CASE(muon_matches_doubles)
{
    each_backend(muon_case);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The dynamic map as its paper puts it: means between even places, decade by decade. */
static void dynamic_codes(double code[256], bool with_sign)
{
    int n = 0;
    for (int decade = 0; decade < 7; decade++) {
        const int parts = 1 << (decade + !with_sign);
        for (int k = 0; k < parts; k++) {
            const double mean = 0.1 + 0.9 * (k + 0.5) / parts;
            code[n++] = mean * pow(10, decade - 6);
            if (with_sign)
                code[n++] = -mean * pow(10, decade - 6);
        }
    }
    code[n++] = 0;
    code[n++] = 1;
    CHECK_INT(n, 256);
    qsort(code, 256, sizeof *code, ascending);
}

struct kept { /* a state in 8 bits, and its numbers before a step */
    struct ft_tensor *t;
    double code[256], before[40000];
};

static double kept_at(const struct kept *k, int64_t i)
{
    const struct ft_planes q = ft_planes_of(k->t);
    return k->code[((const uint8_t *)q.p[FT_CODES])[i]] *
           (double)((const float *)q.p[FT_SCALES])[i / FT_DYNAMIC_BLOCK];
}

static void keep(struct kept *k, int64_t n, bool with_sign, uint32_t seed)
{
    dynamic_codes(k->code, with_sign);
    k->t = random_quant(1, n, FT_DYNAMIC8, FT_DYNAMIC_BLOCK, seed);
    float *scales = ft_planes_of(k->t).p[FT_SCALES];
    for (int64_t i = 0; i * FT_DYNAMIC_BLOCK < n; i++)
        scales[i] = i == 1 ? 0 : fabsf(scales[i]);
    for (int64_t i = 0; i < n; i++)
        k->before[i] = kept_at(k, i);
}

/* The largest of each block is its scale, and each code the nearest to what it is to be. */
static void check_kept(const struct bench *b, const struct kept *k, const double *want)
{
    const float *scales = ft_planes_of(k->t).p[FT_SCALES];
    const int64_t n = k->t->cols;
    for (int64_t i = 0, at = 0; i < n; i++) {
        double most = 0, nearest = INFINITY;
        for (at = i / FT_DYNAMIC_BLOCK * FT_DYNAMIC_BLOCK;
             at < n && at < (i / FT_DYNAMIC_BLOCK + 1) * FT_DYNAMIC_BLOCK; at++)
            most = fmax(most, fabs(want[at]));
        check_element("scale", b, 0, i, (double)scales[i / FT_DYNAMIC_BLOCK], most,
                      tol_f32(1, 4) * most);
        for (int c = 0; c < 256; c++)
            nearest = fmin(nearest, fabs(k->code[c] * most - want[i]));
        check_element("code", b, 0, i, fabs(kept_at(k, i) - want[i]), nearest,
                      tol_f32(1, 8) * most);
    }
}

static void eight_bits_size(struct bench *b, int64_t n)
{
    static struct kept m, v;
    static double want_m[40000], want_v[40000];
    const double lr = 1e-2, factor = 0.25, keeps = 1 - lr * (double)0.1f;
    const double b1 = (double)0.9f, b2 = (double)0.99f;
    double values[FT_SCALARS] = {
        [FT_S_LR] = lr, [FT_S_FACTOR] = factor, [FT_S_FINITE] = 1, [FT_S_STEP] = 3};
    struct ft_tensor *sc = scalars_tensor(values), *p = random_master(1, n, 1);
    struct ft_tensor *g = random_master(1, n, 2), *p0 = copy_tensor(p), *g0 = copy_tensor(g);
    keep(&m, n, true, 3);
    keep(&v, n, false, 4);
    run_op(b, FT_OP_adamw,
           &(union ft_op_args){.adamw = {sc, g, p, m.t, v.t, 0.9f, 0.99f, 1e-8f, 0.1f, 1}});
    for (int64_t i = 0; i < n; i++) {
        const double gi = at(g0, 0, i) * factor;
        want_m[i] = b1 * m.before[i] + (1 - b1) * gi;
        want_v[i] = b2 * v.before[i] + (1 - b2) * gi * gi;
        const double step =
            want_m[i] / (1 - pow(b1, 3)) / (sqrt(want_v[i] / (1 - pow(b2, 3))) + (double)1e-8f);
        check_element("adamw in 8 bits", b, 0, i, at(p, 0, i), at(p0, 0, i) * keeps - lr * step,
                      tol_f32(2 + fabs(step), 8));
        check_element("adamw grad", b, 0, i, at(g, 0, i), 0, 0);
    }
    check_kept(b, &m, want_m);
    check_kept(b, &v, want_v);
    /* lion; and a gradient that is dropped */
    keep(&m, n, true, 5);
    struct ft_tensor *h = copy_tensor(g0), *q = copy_tensor(p0);
    run_op(b, FT_OP_lion, &(union ft_op_args){.lion = {sc, h, q, m.t, 0.9f, 0.99f, 0.1f, 1}});
    for (int64_t i = 0; i < n; i++) {
        const double gi = at(g0, 0, i) * factor, towards = b1 * m.before[i] + (1 - b1) * gi;
        want_m[i] = b2 * m.before[i] + (1 - b2) * gi;
        if (fabs(towards) > 1e-6)
            check_element("lion in 8 bits", b, 0, i, at(q, 0, i),
                          at(p0, 0, i) * keeps - lr * ((towards > 0) - (towards < 0)),
                          tol_f32(2, 4));
    }
    check_kept(b, &m, want_m);
    struct ft_tensor *same = copy_tensor(q);
    values[FT_S_FINITE] = 0;
    run_op(b, FT_OP_lion, &(union ft_op_args){.lion = {sc, h, q, m.t, 0.9f, 0.99f, 0.1f, 1}});
    CHECK(same_bits(b, q, same));
    check_kept(b, &m, want_m);
    drop_tensors();
}

static void eight_bits_case(struct bench *b)
{
    eight_bits_size(b, 1);
    eight_bits_size(b, 600);
    eight_bits_size(b, 40000);
}

CASE(states_in_8_bits_match_doubles)
{
    each_backend(eight_bits_case);
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
