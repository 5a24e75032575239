/* Routing, rows to experts and back, and the products of experts, against doubles. */
#include "tests/kernels/ops.h"

#include "core/quant.h"
#include "core/status.h"

/* --- the choice --- */

static const struct way {
    int64_t rows, experts, each;
    int groups, kept;
    bool sigmoid, normalise, corrected;
    double scale, large; /* large: logits are so many times as large */
} ways[] = {
    {1, 1, 1, 1, 1, false, false, false, 1, 1},   {1, 4, 4, 1, 1, false, true, false, 1, 1},
    {7, 5, 2, 1, 1, false, true, false, 1, 1},    {33, 64, 8, 1, 1, false, false, false, 1, 1},
    {70, 128, 8, 1, 1, false, true, false, 1, 1}, {300, 6, 1, 1, 1, true, false, false, 1, 1},
    {40, 12, 3, 4, 2, true, true, true, 2.5, 1},  {9, 160, 6, 8, 3, true, true, true, 1, 1},
    {200, 3, 2, 1, 1, true, true, true, 1.5, 1},  {90, 16, 2, 1, 1, true, false, false, 1, 30},
};
#define EACH_WAY(i) for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)

static double score_of(const struct way *w, const double *logit, int64_t e)
{
    double sum = 0;
    if (w->sigmoid)
        return 1 / (1 + exp(-logit[e]));
    for (int64_t i = 0; i < w->experts; i++)
        sum += exp(logit[i]);
    return exp(logit[e]) / sum;
}

static double weight_of(const struct way *w, const double *logit, const int32_t *chosen, int64_t j)
{
    double sum = 0;
    for (int64_t i = 0; i < w->each; i++)
        sum += score_of(w, logit, chosen[i]);
    const double score = score_of(w, logit, chosen[j]);
    return w->scale * (w->normalise ? score / sum : score);
}

/* What an expert is chosen by, on the f32 that the op sees: -1 for those of groups left out. */
static double rank_of(const struct way *w, const double *logit, const struct ft_tensor *bias,
                      int64_t e)
{
    const double rank = score_of(w, logit, e) + (bias ? at(bias, 0, e) : 0);
    const int64_t size = w->experts / w->groups;
    double worth[64];
    int before = 0;
    if (!bias && w->groups == 1)
        return logit[e];
    for (int64_t g = 0; g < w->groups && w->groups > 1; g++) {
        double first = -9, second = -9;
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            const double v = score_of(w, logit, i) + (bias ? at(bias, 0, i) : 0);
            second = v > first ? first : fmax(second, v);
            first = fmax(first, v);
        }
        worth[g] = first + second;
    }
    for (int64_t g = 0; g < w->groups && w->groups > 1; g++)
        before += worth[g] > worth[e / size];
    return before < w->kept || w->groups == 1 ? rank : -99;
}

struct routing {
    struct ft_tensor *logits, *bias, *weights, *chosen, *places, *slots, *offsets;
};

static struct routing routed_by(struct bench *b, const struct way *w)
{
    struct routing r = {.logits = empty_sums(b, w->experts), .weights = empty_sums(b, w->each)};
    struct ft_rng rng = ft_rng_init(7, FT_RNG_TEST, (uint32_t)w->experts, 1);
    b->each = w->each;
    for (int64_t t = 0; t < covered_rows(b); t++)
        for (int64_t e = 0; e < w->experts; e++)
            put(r.logits, t, e, w->large * (double)(6 * ft_rng_f32(&rng) - 3));
    r.bias = w->corrected ? random_master(1, w->experts, 3) : NULL;
    r.chosen = int_rows(b, w->each);
    r.places = int_rows(b, w->each);
    r.slots = int_tensor(r.logits->rows * w->each, 1, FT_ROUTED);
    r.offsets = int_tensor(1, w->experts + 1, FT_FIXED);
    run_op(b, FT_OP_route,
           &(union ft_op_args){.route = {r.logits, r.bias, r.weights, r.chosen, r.places, r.slots,
                                         r.offsets, w->groups, w->kept, w->sigmoid, w->normalise,
                                         (float)w->scale}});
    return r;
}

static void row_of(const struct routing *r, int64_t t, double *logit)
{
    for (int64_t e = 0; e < r->logits->cols; e++)
        logit[e] = at(r->logits, t, e);
}

/* The chosen are the best, in order; equal ones the lower first. */
static void check_choice(const struct bench *b, const struct way *w, const struct routing *r)
{
    const int32_t *chosen = r->chosen->data;
    double logit[256];
    for (int64_t t = 0; t < b->live; t++, chosen += w->each) {
        row_of(r, t, logit);
        for (int64_t j = 0; j < w->each; j++) {
            const double mine = rank_of(w, logit, r->bias, chosen[j]);
            int64_t better = 0;
            for (int64_t e = 0; e < w->experts; e++)
                better += rank_of(w, logit, r->bias, e) > mine + 1e-6;
            if (better > j)
                check_fail("route", (int)t, "%s: choice %lld has %lld better ones", b->backend->isa,
                           (long long)j, (long long)better);
            check_element("route", b, t, j, at(r->weights, t, j), weight_of(w, logit, chosen, j),
                          1e-5);
        }
    }
}

/* Slots sorted by expert, in their own order; places are where they went. */
static void check_tables(const struct bench *b, const struct way *w, const struct routing *r)
{
    const int32_t *offsets = r->offsets->data, *slots = r->slots->data;
    const int32_t *places = r->places->data, *chosen = r->chosen->data;
    const int64_t n = covered_rows(b) * w->each;
    CHECK(offsets[0] == 0 && offsets[w->experts] == n);
    for (int64_t e = 0; e < w->experts; e++)
        for (int64_t i = offsets[e]; i < offsets[e + 1]; i++) {
            CHECK(slots[i] >= 0 && slots[i] < n && chosen[slots[i]] == e);
            CHECK(places[slots[i]] == i);
            CHECK(i == offsets[e] || slots[i] > slots[i - 1]);
        }
}

static void route_case(struct bench *b)
{
    EACH_WAY(i)
    {
        b->live = ways[i].rows;
        const struct routing r = routed_by(b, &ways[i]);
        check_choice(b, &ways[i], &r);
        check_tables(b, &ways[i], &r);
        drop_tensors();
    }
}

CASE(rows_go_to_the_best_experts)
{
    each_backend(route_case);
}

static void route_dx_case(struct bench *b)
{
    EACH_WAY(i)
    {
        const struct way *w = &ways[i];
        double logit[256];
        b->live = w->rows < 9 ? w->rows : 9;
        const struct routing r = routed_by(b, w);
        struct ft_tensor *dw = empty_sums(b, w->each), *d = empty_tensor(b, w->experts);
        for (int64_t t = 0; t < covered_rows(b); t++)
            for (int64_t j = 0; j < w->each; j++)
                put(dw, t, j, t < b->live ? sin((double)(3 * t + j)) : 0);
        run_op(b, FT_OP_route_dx,
               &(union ft_op_args){.route_dx = {dw, r.logits, r.weights, r.chosen, d, w->sigmoid,
                                                w->normalise, (float)w->scale}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t e = 0; e < w->experts; e++) {
                const int32_t *chosen = (const int32_t *)r.chosen->data + t * w->each;
                double side[2] = {0};
                for (int k = 0; k < 2; k++) {
                    row_of(&r, t, logit);
                    logit[e] += k ? 1e-4 : -1e-4;
                    for (int64_t j = 0; j < w->each; j++)
                        side[k] += at(dw, t, j) * weight_of(w, logit, chosen, j);
                }
                const double want = (side[1] - side[0]) / 2e-4;
                check_element("route_dx", b, t, e, at(d, t, e), want,
                              1e-5 + (b->backend->dev ? tol_bf16(fabs(want)) : 0));
            }
        check_poison(b, d);
        drop_tensors();
    }
}

CASE(weights_have_gradients)
{
    each_backend(route_dx_case);
}

/* --- how evenly they are chosen --- */

static void check_sums(const struct bench *b, const struct way *w, const struct routing *r,
                       const struct ft_tensor *so_far, const struct ft_tensor *sums)
{
    const struct way softmax = {.experts = w->experts};
    double logit[256];
    for (int64_t e = 0; e < w->experts; e++) {
        double count = so_far ? at(so_far, 0, e) : 0, share = so_far ? at(so_far, 1, e) : 0;
        for (int64_t t = 0; t < b->live; t++) {
            row_of(r, t, logit);
            share += score_of(&softmax, logit, e);
            for (int64_t j = 0; j < w->each; j++)
                count += ((const int32_t *)r->chosen->data)[t * w->each + j] == e;
        }
        check_element("balance", b, 0, e, at(sums, 0, e), count, 1e-6 * (1 + count));
        check_element("balance", b, 1, e, at(sums, 1, e), share, 1e-5 * (1 + share));
    }
}

/* What the loss is made of: see ft_balance_loss_args. */
static double loss_of(const struct ft_tensor *sums, double each, double *scale)
{
    double n = 0, sum = 0;
    for (int64_t e = 0; e < sums->cols; e++) {
        n += at(sums, 0, e) / each;
        sum += at(sums, 0, e) * at(sums, 1, e);
    }
    *scale = (double)sums->cols / (n * n);
    return *scale * sum;
}

static void balance_case(struct bench *b)
{
    EACH_WAY(i)
    {
        const struct way *w = &ways[i];
        double values[FT_SCALARS] = {[FT_S_LOSS_SUM] = 2}, scale;
        b->live = w->rows;
        b->trained = 3;
        const struct routing r = routed_by(b, w);
        struct ft_tensor *so_far = i % 2 ? random_master(2, w->experts, 5) : NULL;
        struct ft_tensor *sums = random_master(2, w->experts, 6),
                         *dshares = random_master(1, w->experts, 7),
                         *scalars = scalars_tensor(values);
        run_op(b, FT_OP_balance,
               &(union ft_op_args){.balance = {r.logits, r.chosen, so_far, sums}});
        check_sums(b, w, &r, so_far, sums);
        run_op(b, FT_OP_balance_loss,
               &(union ft_op_args){.balance_loss = {sums, scalars, dshares, (int)w->each, 0.25f}});
        const double loss = loss_of(sums, (double)w->each, &scale), want = 2 + 3 * 0.25 * loss;
        check_element("balance_loss", b, 0, 0, ((double *)scalars->data)[FT_S_LOSS_SUM], want,
                      1e-6 * fabs(want));
        for (int64_t e = 0; e < w->experts; e++) {
            const double d = 3 * 0.25 * scale * at(sums, 0, e);
            check_element("balance_loss", b, 1, e, at(dshares, 0, e), d, 1e-6 * (1e-3 + fabs(d)));
        }
        drop_tensors();
    }
    b->trained = 0;
}

CASE(uneven_choices_cost)
{
    each_backend(balance_case);
}

static void balance_dx_case(struct bench *b)
{
    EACH_WAY(i)
    {
        const struct way *w = &ways[i], softmax = {.experts = w->experts};
        double logit[256];
        b->live = w->rows < 9 ? w->rows : 9;
        const struct routing r = routed_by(b, w);
        struct ft_tensor *dshares = random_master(1, w->experts, 8),
                         *d = empty_tensor(b, w->experts);
        run_op(b, FT_OP_balance_dx, &(union ft_op_args){.balance_dx = {dshares, r.logits, d}});
        for (int64_t t = 0; t < b->live; t++) {
            double mean = 0;
            row_of(&r, t, logit);
            for (int64_t e = 0; e < w->experts; e++)
                mean += score_of(&softmax, logit, e) * at(dshares, 0, e);
            for (int64_t e = 0; e < w->experts; e++) {
                const double want = score_of(&softmax, logit, e) * (at(dshares, 0, e) - mean);
                check_element("balance_dx", b, t, e, at(d, t, e), want,
                              1e-5 + (b->backend->dev ? tol_bf16(fabs(want)) : 0));
            }
        }
        check_poison(b, d);
        drop_tensors();
    }
}

CASE(uneven_choices_have_gradients)
{
    each_backend(balance_dx_case);
}

/* --- there and back --- */

static void spread_case(struct bench *b)
{
    static const int64_t widths[] = {1, 16, 37, 256};
    for (int i = 0; i < 8; i++) {
        const struct way *w = &ways[3 + i % 4];
        const int64_t cols = widths[i / 2];
        b->live = w->rows;
        const struct routing r = routed_by(b, w);
        const int32_t *slots = r.slots->data;
        struct ft_tensor *x = random_tensor(b, cols, 1), *y = empty_routed(b, cols);
        struct ft_tensor *weights = i % 2 ? r.weights : NULL;
        run_op(b, FT_OP_spread, &(union ft_op_args){.spread = {x, r.slots, r.places, weights, y}});
        for (int64_t k = 0; k < covered_rows(b) * w->each; k++) {
            const int64_t t = slots[k] / w->each;
            for (int64_t c = 0; c < cols && t < b->live; c++) {
                const double want =
                    at(x, t, c) * (weights ? at(weights, t, slots[k] % w->each) : 1);
                check_element("spread", b, k, c, at(y, k, c), want, tol(b, fabs(want), 1));
            }
        }
        drop_tensors();
    }
}

CASE(rows_are_spread_over_experts)
{
    each_backend(spread_case);
}

static void collect_case(struct bench *b)
{
    static const int64_t widths[] = {1, 16, 37, 256};
    for (int i = 0; i < 8; i++) {
        const struct way *w = &ways[3 + i % 4];
        const int64_t cols = widths[i / 2];
        b->live = w->rows;
        const struct routing r = routed_by(b, w);
        const int32_t *places = r.places->data;
        struct ft_tensor *x = routed_tensor(b, cols, 1), *y = empty_tensor(b, cols);
        struct ft_tensor *weights = i % 2 ? r.weights : NULL;
        struct ft_tensor *add = i % 4 < 2 ? random_tensor(b, cols, 2) : NULL;
        struct ft_tensor *dy = random_tensor(b, cols, 3), *dw = empty_sums(b, w->each);
        run_op(b, FT_OP_collect,
               &(union ft_op_args){.collect = {x, r.places, r.slots, weights, add, y}});
        run_op(b, FT_OP_collect_dw, &(union ft_op_args){.collect_dw = {dy, x, r.places, dw}});
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t c = 0; c < cols; c++) {
                double sum = add ? at(add, t, c) : 0, size = fabs(sum);
                for (int64_t j = 0; j < w->each; j++) {
                    const double v = at(x, places[t * w->each + j], c);
                    sum += v * (weights ? at(weights, t, j) : 1);
                    size += fabs(v);
                }
                check_element("collect", b, t, c, at(y, t, c), sum, tol(b, size, 9));
            }
        for (int64_t t = 0; t < b->live; t++)
            for (int64_t j = 0; j < w->each; j++) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < cols; c++) {
                    const double v = at(dy, t, c) * at(x, places[t * w->each + j], c);
                    sum += v;
                    size += fabs(v);
                }
                check_element("collect_dw", b, t, j, at(dw, t, j), sum,
                              tol_f32(size, (double)cols));
            }
        check_poison(b, y);
        drop_tensors();
    }
}

CASE(rows_are_collected_from_experts)
{
    each_backend(collect_case);
}

static void gate_case(struct bench *b)
{
    static const int64_t shapes[][2] = {{1, 1}, {5, 33}, {70, 256}};
    for (int i = 0; i < 3; i++) {
        const int64_t cols = shapes[i][1];
        b->live = shapes[i][0];
        struct ft_tensor *gate = random_tensor(b, 1, 1), *x = random_tensor(b, cols, 2);
        struct ft_tensor *add = i ? random_tensor(b, cols, 3) : NULL, *y = empty_tensor(b, cols);
        struct ft_tensor *dy = random_tensor(b, cols, 4), *dgate = empty_tensor(b, 1);
        struct ft_tensor *dx = empty_tensor(b, cols);
        run_op(b, FT_OP_gate_rows, &(union ft_op_args){.gate_rows = {gate, x, add, y}});
        run_op(b, FT_OP_gate_rows_dx,
               &(union ft_op_args){.gate_rows_dx = {gate, x, dy, dgate, dx}});
        for (int64_t t = 0; t < b->live; t++) {
            const double s = 1 / (1 + exp(-at(gate, t, 0)));
            double sum = 0, size = 0;
            for (int64_t c = 0; c < cols; c++) {
                const double v = s * at(x, t, c) + (add ? at(add, t, c) : 0);
                check_element("gate_rows", b, t, c, at(y, t, c), v, tol(b, 2, 4));
                check_element("gate_rows_dx", b, t, c, at(dx, t, c), s * at(dy, t, c),
                              tol(b, 1, 4));
                sum += at(x, t, c) * at(dy, t, c);
                size += fabs(at(x, t, c) * at(dy, t, c));
            }
            check_element("gate_rows_dx", b, t, 0, at(dgate, t, 0), s * (1 - s) * sum,
                          tol(b, size, (double)cols + 8));
        }
        check_poison(b, y);
        check_poison(b, dx);
        drop_tensors();
    }
}

CASE(a_shared_expert_has_a_gate)
{
    each_backend(gate_case);
}

/* --- products --- */

/* tokens, experts, each, in, out, rank */
static const int64_t shapes[][6] = {{1, 1, 1, 1, 1, 1},      {3, 4, 1, 8, 5, 2},
                                    {33, 5, 2, 40, 24, 3},   {64, 2, 2, 96, 48, 16},
                                    {130, 9, 3, 72, 136, 8}, {20, 64, 2, 24, 64, 4}};
#define EACH_SHAPE(i) for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)

/* Very uneven: most rows are the second's, every third has none. */
static struct ft_tensor *uneven(const struct bench *b, int64_t experts)
{
    struct ft_tensor *t = int_tensor(1, experts + 1, FT_FIXED);
    int32_t *at_expert = t->data;
    const int64_t n = covered_rows(b) * b->each;
    int64_t left = n;
    at_expert[0] = 0;
    for (int64_t e = 0; e < experts; e++) {
        int64_t mine = e % 3 == 2 ? 0 : e == 1 ? left * 2 / 3 : left / 5;
        mine = e + 1 == experts ? left : mine;
        at_expert[e + 1] = (int32_t)(at_expert[e] + mine);
        left -= mine;
    }
    return t;
}

static int64_t expert_of(const struct ft_tensor *offsets, int64_t row)
{
    const int32_t *at_expert = offsets->data;
    int64_t e = 0;
    while (row >= at_expert[e + 1])
        e++;
    return e;
}

static void product_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t *n = shapes[s], in = n[3], out = n[4], rank = n[5];
        b->live = n[0];
        b->each = n[2];
        struct ft_tensor *offsets = uneven(b, n[1]), *x = routed_tensor(b, in, 1);
        struct ft_tensor *w = random_weight(n[1] * out, in, s % 2 ? FT_BF16 : FT_F32, 2);
        struct ft_tensor *bias = random_weight(n[1], out, FT_BF16, 3);
        struct ft_tensor *u = routed_tensor(b, rank, 4);
        struct ft_tensor *lb = random_weight(n[1] * out, rank, FT_F32, 5);
        struct ft_tensor *y = empty_routed(b, out);
        const union ft_op_args args = {
            .linear = {x, w, bias, NULL, u, lb, NULL, offsets, y, 0.75f, -2.f}};
        run_op(b, FT_OP_linear, &args);
        for (int64_t t = 0; t < covered_rows(b) * b->each; t++) {
            const int64_t e = expert_of(offsets, t);
            for (int64_t o = 0; o < out; o++) {
                double sum = at(bias, e, o), size = fabs(sum);
                for (int64_t i = 0; i < in; i++) {
                    sum += 0.75 * at(x, t, i) * at(w, e * out + o, i);
                    size += fabs(at(x, t, i) * at(w, e * out + o, i));
                }
                for (int64_t i = 0; i < rank; i++) {
                    sum += -2 * at(u, t, i) * at(lb, e * out + o, i);
                    size += 2 * fabs(at(u, t, i) * at(lb, e * out + o, i));
                }
                check_element("product of experts", b, t, o, at(y, t, o), sum,
                              tol(b, size, (double)(in + rank)));
            }
        }
        if (!b->backend->dev && s > 2)
            check_threads(b, FT_OP_linear, &args, &y, 1);
        drop_tensors();
    }
}

CASE(experts_multiply_their_own_rows)
{
    each_backend(product_case);
}

static void product_dx_case(struct bench *b)
{
    EACH_SHAPE(s)
    {
        const int64_t *n = shapes[s], in = n[3], out = n[4], rank = n[5];
        b->live = n[0];
        b->each = n[2];
        struct ft_tensor *offsets = uneven(b, n[1]), *dy = routed_tensor(b, out, 1);
        struct ft_tensor *w = random_weight(n[1] * out, in, FT_BF16, 2);
        struct ft_tensor *add = routed_tensor(b, in, 3), *du = routed_tensor(b, rank, 4);
        struct ft_tensor *a = random_weight(n[1] * rank, in, FT_F32, 5), *dx = empty_routed(b, in);
        run_op(b, FT_OP_linear_dx,
               &(union ft_op_args){.linear_dx = {dy, w, add, du, a, NULL, offsets, dx, 1.f, 0.5f}});
        for (int64_t t = 0; t < covered_rows(b) * b->each; t++) {
            const int64_t e = expert_of(offsets, t);
            for (int64_t i = 0; i < in; i++) {
                double sum = at(add, t, i), size = fabs(sum);
                for (int64_t o = 0; o < out; o++) {
                    sum += at(dy, t, o) * at(w, e * out + o, i);
                    size += fabs(at(dy, t, o) * at(w, e * out + o, i));
                }
                for (int64_t k = 0; k < rank; k++) {
                    sum += 0.5 * at(du, t, k) * at(a, e * rank + k, i);
                    size += 0.5 * fabs(at(du, t, k) * at(a, e * rank + k, i));
                }
                check_element("dx of experts", b, t, i, at(dx, t, i), sum,
                              tol(b, size, (double)(out + rank)));
            }
        }
        drop_tensors();
    }
}

CASE(experts_give_their_rows_gradients)
{
    each_backend(product_dx_case);
}

static void product_dw_case(struct bench *b)
{
    EACH_SHAPE(s)
    for (int fresh = 0; fresh < 2; fresh++) {
        const int64_t *n = shapes[s], in = n[3], out = n[4];
        b->live = n[0];
        b->each = n[2];
        struct ft_tensor *offsets = uneven(b, n[1]), *dy = routed_tensor(b, out, 1);
        struct ft_tensor *x = routed_tensor(b, in, 2);
        struct ft_tensor *dw = random_master(n[1] * out, in, 3), *was = copy_tensor(dw);
        const int32_t *at_expert = offsets->data;
        run_op(b, FT_OP_linear_dw,
               &(union ft_op_args){.linear_dw = {dy, x, NULL, offsets, dw, 2.f, fresh}});
        for (int64_t e = 0; e < n[1]; e++)
            for (int64_t o = 0; o < out; o++)
                for (int64_t i = 0; i < in; i++) {
                    double sum = fresh ? 0 : at(was, e * out + o, i), size = fabs(sum);
                    for (int64_t t = at_expert[e]; t < at_expert[e + 1]; t++) {
                        sum += 2 * at(dy, t, o) * at(x, t, i);
                        size += 2 * fabs(at(dy, t, o) * at(x, t, i));
                    }
                    check_element("dw of experts", b, e * out + o, i, at(dw, e * out + o, i), sum,
                                  tol_f32(size, (double)(b->live * b->each)));
                }
        drop_tensors();
    }
}

CASE(experts_have_gradients_of_their_own)
{
    each_backend(product_dw_case);
}

/* Each expert's matrix is quantised for itself; what is computed is what it stands for. */
static void quantised_case(struct bench *b)
{
    static const struct {
        enum ft_dtype dtype;
        int block;
    } kinds[] = {{FT_BNB4, 64}, {FT_BNB4_NESTED, 64}, {FT_INT8_ROWS, 0}, {FT_FP8_BLOCKS, 16}};
    enum { EXPERTS = 4, OUT = 24, IN = 64 };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        b->live = 21;
        b->each = 2;
        struct ft_tensor *offsets = uneven(b, EXPERTS), *x = routed_tensor(b, IN, 1);
        struct ft_tensor *dy = routed_tensor(b, OUT, 2);
        struct ft_tensor *plain = random_weight(EXPERTS * OUT, IN, FT_F32, 3);
        struct ft_tensor quant = {.rows = EXPERTS * OUT,
                                  .cols = IN,
                                  .dtype = kinds[k].dtype,
                                  .block = kinds[k].block,
                                  .parts = EXPERTS,
                                  .id = -1,
                                  .name = "experts"};
        const size_t one = ft_part_bytes(&quant);
        quant.data = aligned_alloc(64, (one * EXPERTS + 63) / 64 * 64);
        FT_ASSERT(quant.data);
        for (int64_t e = 0; e < EXPERTS; e++) {
            const struct ft_tensor *w =
                random_quant(OUT, IN, kinds[k].dtype, kinds[k].block, (uint32_t)e);
            const struct ft_tensor *means = widened(w);
            memcpy((char *)quant.data + (size_t)e * one, w->data, one);
            for (int64_t i = 0; i < OUT * IN; i++)
                put(plain, e * OUT + i / IN, i % IN, at(means, i / IN, i % IN));
        }
        struct ft_tensor *got[2] = {empty_routed(b, OUT), empty_routed(b, IN)};
        struct ft_tensor *want[2] = {empty_routed(b, OUT), empty_routed(b, IN)};
        for (int i = 0; i < 2; i++) {
            struct ft_tensor *w = i ? plain : &quant, **y = i ? want : got;
            run_op(b, FT_OP_linear,
                   &(union ft_op_args){
                       .linear = {.x = x, .w = w, .offsets = offsets, .y = y[0], .alpha = 1}});
            run_op(
                b, FT_OP_linear_dx,
                &(union ft_op_args){
                    .linear_dx = {.dy = dy, .w = w, .offsets = offsets, .dx = y[1], .alpha = 1}});
        }
        for (int i = 0; i < 2; i++)
            if (!same_bits(b, got[i], want[i]))
                check_fail("quantised experts", i, "%s: %s is not what it stands for",
                           b->backend->isa, ft_dtype_name(kinds[k].dtype));
        free(quant.data);
        drop_tensors();
    }
}

CASE(quantised_experts_are_what_they_stand_for)
{
    each_backend(quantised_case);
}
