/* Rows on their way to experts and back: route, spread, collect, and the gate of a shared expert.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/functions.h"

#include <math.h>

FT_INLINE int32_t *ints_of(const struct ft_tensor *t, int64_t row)
{
    return (int32_t *)t->data + row * t->cols;
}

/* --- the choice --- */

/* Scores of all experts, by softmax or each by itself. */
static void find_scores(float *score, const float *logit, int64_t n, bool sigmoid)
{
    float most = logit[0], sum = 0;
    for (int64_t e = 1; e < n; e++)
        most = larger(most, logit[e]);
    for (int64_t c = 0; c < n; c += VW) {
        const vf x = lanes(logit, c, n);
        put_lanes(score, sigmoid ? vf_sigmoid(x) : vf_exp(x - most), c, n);
    }
    for (int64_t e = 0; e < n && !sigmoid; e++)
        sum += score[e];
    for (int64_t e = 0; e < n && !sigmoid; e++)
        score[e] /= sum;
}

/* The number of the largest of n, the first of equals; those that are taken are -infinity. */
static int64_t find_largest(const float *v, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

/* The sum of a group's two largest. */
static float group_worth(const float *v, int64_t n)
{
    float first = v[0] > v[1] ? v[0] : v[1], second = v[0] > v[1] ? v[1] : v[0];
    for (int64_t i = 2; i < n; i++) {
        second = v[i] > first ? first : larger(second, v[i]);
        first = larger(first, v[i]);
    }
    return first + second;
}

/* Leaves the experts of all but the best groups out. */
static void drop_groups(float *rank, int64_t experts, int groups, int kept)
{
    const int64_t each = experts / groups;
    float worth[FT_EXPERTS_MAX];
    bool keep[FT_EXPERTS_MAX] = {false};
    for (int g = 0; g < groups; g++)
        worth[g] = group_worth(rank + g * each, each);
    for (int i = 0; i < kept; i++) {
        const int64_t best = find_largest(worth, groups);
        keep[best] = true;
        worth[best] = -INFINITY;
    }
    for (int64_t e = 0; e < experts; e++)
        if (!keep[e / each])
            rank[e] = -INFINITY;
}

static void route_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_route_args *a = &args->route;
    const int64_t experts = a->logits->cols, each = a->weights->cols;
    float score[FT_EXPERTS_MAX], rank[FT_EXPERTS_MAX], bias[FT_EXPERTS_MAX] = {0};
    const bool by_score = a->bias || a->groups > 1; /* else logits: large ones have equal scores */
    if (a->bias)
        K(widen_row)(bias, a->bias, 0);
    for (int64_t t = t0; t < t1; t++) {
        float *weight = row_of(a->weights, t), sum = 0;
        int32_t *chosen = ints_of(a->chosen, t);
        find_scores(score, row_of(a->logits, t), experts, a->sigmoid);
        for (int64_t e = 0; e < experts; e++)
            rank[e] = by_score ? score[e] + bias[e] : row_of(a->logits, t)[e];
        if (a->groups > 1)
            drop_groups(rank, experts, a->groups, a->kept_groups);
        for (int64_t j = 0; j < each; j++) {
            const int64_t best = find_largest(rank, experts);
            chosen[j] = (int32_t)best;
            weight[j] = score[best];
            rank[best] = -INFINITY;
            sum += score[best];
        }
        for (int64_t j = 0; j < each; j++)
            weight[j] = a->scale * (a->normalise ? weight[j] / sum : weight[j]);
    }
}

/* Slots sorted by their experts, in their own order: counted, and put behind one another. */
static void sort_slots(const struct ft_route_args *a, int64_t rows)
{
    const int64_t experts = a->logits->cols, n = rows * a->weights->cols;
    const int32_t *chosen = a->chosen->data;
    int32_t *offsets = a->offsets->data, *slots = a->slots->data, *places = a->places->data;
    int32_t next[FT_EXPERTS_MAX] = {0};
    for (int64_t i = 0; i < n; i++)
        next[chosen[i]]++;
    offsets[0] = 0;
    for (int64_t e = 0; e < experts; e++) {
        offsets[e + 1] = offsets[e] + next[e];
        next[e] = offsets[e];
    }
    for (int64_t i = 0; i < n; i++) {
        const int32_t place = next[chosen[i]]++;
        places[i] = place;
        slots[place] = (int32_t)i;
    }
}

void K(route)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_route_args *a = &args->route;
    by_rows(ctx, a->logits, 16 * a->logits->cols, args, route_rows);
    sort_slots(a, ft_live_rows(ctx, a->logits));
}

/* Of weights w = scale p (or scale s / sum s): the gradient of logits where g = scale dw. */
static void route_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_route_dx_args *a = &args->route_dx;
    const int64_t experts = a->logits->cols, each = a->weights->cols;
    float score[FT_EXPERTS_MAX];
    for (int64_t t = t0; t < t1; t++) {
        const float *weight = row_of(a->weights, t), *dweight = row_of(a->dweights, t);
        const int32_t *chosen = ints_of(a->chosen, t);
        float *d = row_of(a->dlogits, t), sum = 0, mean = 0;
        find_scores(score, row_of(a->logits, t), experts, a->sigmoid);
        for (int64_t j = 0; j < each; j++) {
            sum += score[chosen[j]];
            mean += dweight[j] * weight[j]; /* of g over the weights, for both */
        }
        for (int64_t e = 0; e < experts; e++)
            d[e] = a->sigmoid || a->normalise ? 0 : -score[e] * mean;
        for (int64_t j = 0; j < each; j++) {
            const float s = score[chosen[j]], g = a->scale * dweight[j];
            const float ds = a->normalise ? (g - mean) / sum : g; /* of the score */
            d[chosen[j]] += a->sigmoid ? ds * s * (1 - s) : ds * s;
        }
    }
}

void K(route_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    by_rows(ctx, args->route_dx.logits, 16 * args->route_dx.logits->cols, args, route_dx_rows);
}

/* --- how evenly they are chosen --- */

/* By one thread, in the order of the rows. */
void K(balance)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_balance_args *a = &args->balance;
    const int64_t rows = ft_live_rows(ctx, a->logits), experts = a->logits->cols;
    float *counts = row_of(a->sums, 0), *shares = row_of(a->sums, 1), score[FT_EXPERTS_MAX];
    double sums[2][FT_EXPERTS_MAX] = {{0}};
    for (int64_t t = 0; t < rows; t++) {
        find_scores(score, row_of(a->logits, t), experts, false);
        for (int64_t e = 0; e < experts; e++)
            sums[1][e] += (double)score[e];
        for (int64_t j = 0; j < a->chosen->cols; j++)
            sums[0][ints_of(a->chosen, t)[j]]++;
    }
    for (int64_t e = 0; e < experts; e++) {
        counts[e] = (a->so_far ? row_of(a->so_far, 0)[e] : 0) + (float)sums[0][e];
        shares[e] = (a->so_far ? row_of(a->so_far, 1)[e] : 0) + (float)sums[1][e];
    }
}

void K(balance_loss)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_balance_loss_args *a = &args->balance_loss;
    const float *counts = row_of(a->sums, 0), *shares = row_of(a->sums, 1);
    const int64_t experts = a->sums->cols;
    double rows = 0, sum = 0;
    for (int64_t e = 0; e < experts; e++)
        rows += (double)counts[e] / a->each;
    const double trained = (double)ctx->counts[FT_TRAINED],
                 scale = rows > 0 ? trained * (double)a->rate * (double)experts / (rows * rows) : 0;
    for (int64_t e = 0; e < experts; e++) {
        row_of(a->dshares, 0)[e] = (float)(scale * (double)counts[e]);
        sum += (double)counts[e] * (double)shares[e];
    }
    ((double *)a->scalars->data)[FT_S_LOSS_SUM] += scale * sum;
}

static void balance_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_balance_dx_args *a = &args->balance_dx;
    const int64_t experts = a->logits->cols;
    const float *dshare = row_of(a->dshares, 0);
    float score[FT_EXPERTS_MAX];
    for (int64_t t = t0; t < t1; t++) {
        float *d = row_of(a->dlogits, t), mean = 0;
        find_scores(score, row_of(a->logits, t), experts, false);
        for (int64_t e = 0; e < experts; e++)
            mean += score[e] * dshare[e];
        for (int64_t e = 0; e < experts; e++)
            d[e] = score[e] * (dshare[e] - mean);
    }
}

void K(balance_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    by_rows(ctx, args->balance_dx.logits, 16 * args->balance_dx.logits->cols, args,
            balance_dx_rows);
}

/* --- there and back --- */

/* y = w x, or y += w x. */
FT_INLINE void put_row(float *y, const float *x, float w, int64_t cols, bool adds)
{
    for (int64_t c = 0; c < cols; c += VW) {
        const vf v = w * lanes(x, c, cols);
        put_lanes(y, adds ? lanes(y, c, cols) + v : v, c, cols);
    }
}

static void spread_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_spread_args *a = &args->spread;
    const int64_t each = a->places->cols;
    for (int64_t r = t0; r < t1; r++) {
        const int32_t slot = *ints_of(a->slots, r);
        const float *x = row_of(a->x, slot / each);
        if (a->weights)
            put_row(row_of(a->y, r), x, ((const float *)a->weights->data)[slot], a->x->cols, false);
        else
            memcpy(row_of(a->y, r), x, (size_t)a->x->cols * sizeof *x);
    }
}

void K(spread)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    by_rows(ctx, args->spread.y, args->spread.y->cols, args, spread_rows);
}

static void collect_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_collect_args *a = &args->collect;
    const int64_t cols = a->y->cols, each = a->places->cols;
    for (int64_t t = t0; t < t1; t++) {
        const int32_t *places = ints_of(a->places, t);
        const float *weights = a->weights ? row_of(a->weights, t) : NULL;
        float *y = row_of(a->y, t);
        if (a->add && a->add->data != a->y->data)
            memcpy(y, row_of(a->add, t), (size_t)cols * sizeof *y);
        for (int64_t j = 0; j < each; j++)
            put_row(y, row_of(a->x, places[j]), weights ? weights[j] : 1, cols, j > 0 || a->add);
    }
}

void K(collect)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_tensor *y = args->collect.y;
    by_rows(ctx, y, y->cols * args->collect.places->cols, args, collect_rows);
}

static float inner(const float *x, const float *y, int64_t cols)
{
    struct sums sum = {0};
    for (int64_t c = 0; c < cols; c += VW)
        add_next(&sum, lanes(x, c, cols) * lanes(y, c, cols));
    return sums_total(sum);
}

static void collect_dw_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_collect_dw_args *a = &args->collect_dw;
    for (int64_t t = t0; t < t1; t++)
        for (int64_t j = 0; j < a->places->cols; j++)
            row_of(a->dw, t)[j] =
                inner(row_of(a->y, t), row_of(a->x, ints_of(a->places, t)[j]), a->y->cols);
}

void K(collect_dw)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_collect_dw_args *a = &args->collect_dw;
    by_rows(ctx, a->y, a->y->cols * a->places->cols, args, collect_dw_rows);
}

/* --- a shared expert's gate --- */

static float sigmoid(float x)
{
    return vf_sigmoid(vf_set(x))[0];
}

static void gate_rows_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_gate_rows_args *a = &args->gate_rows;
    const int64_t cols = a->x->cols;
    for (int64_t t = t0; t < t1; t++) {
        const float s = sigmoid(*row_of(a->gate, t)), *x = row_of(a->x, t);
        float *y = row_of(a->y, t);
        for (int64_t c = 0; c < cols; c += VW) {
            const vf v = s * lanes(x, c, cols);
            put_lanes(y, a->add ? v + lanes(row_of(a->add, t), c, cols) : v, c, cols);
        }
    }
}

void K(gate_rows)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    by_rows(ctx, args->gate_rows.x, args->gate_rows.x->cols, args, gate_rows_rows);
}

static void gate_rows_dx_rows(const union ft_op_args *args, int64_t t0, int64_t t1)
{
    const struct ft_gate_rows_dx_args *a = &args->gate_rows_dx;
    const int64_t cols = a->x->cols;
    for (int64_t t = t0; t < t1; t++) {
        const float s = sigmoid(*row_of(a->gate, t)), *dy = row_of(a->dy, t);
        *row_of(a->dgate, t) = s * (1 - s) * inner(dy, row_of(a->x, t), cols);
        put_row(row_of(a->dx, t), dy, s, cols, false);
    }
}

void K(gate_rows_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    by_rows(ctx, args->gate_rows_dx.x, args->gate_rows_dx.x->cols, args, gate_rows_dx_rows);
}
