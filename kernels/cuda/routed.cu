/* Rows on their way to experts and back: route, spread, collect, and the gate of a shared expert. All
 * rows of the bucket are routed; those behind the live ones have no gradient. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 128, WARPS = THREADS / 32 };

struct route_job {
    const float *logits, *weights, *dweights;
    const void *bias; /* f32 or bf16, or NULL */
    bool bias_f32, sigmoid, normalise;
    float *out;
    int32_t *chosen, *counts, *places, *slots, *offsets;
    struct ft_rows dlogits;
    int64_t rows;
    int experts, each, groups, kept;
    float scale;
};

/* Of a row's logits: what scores are made with. */
struct softmax {
    float most, sum;
};

FT_DEVICE struct softmax find_softmax(const struct route_job &j, const float *logit)
{
    struct softmax s = {-INFINITY, 0};
    for (int e = 0; e < j.experts && !j.sigmoid; e++)
        s.most = fmaxf(s.most, logit[e]);
    for (int e = 0; e < j.experts && !j.sigmoid; e++)
        s.sum += expf(logit[e] - s.most);
    return s;
}

FT_DEVICE float score_of(const struct route_job &j, const struct softmax &s, float logit)
{
    return j.sigmoid ? 1.f / (1.f + expf(-logit)) : expf(logit - s.most) / s.sum;
}

FT_DEVICE float rank_of(const struct route_job &j, const struct softmax &s, const float *logit,
                        int e)
{
    float bias = 0;
    if (!j.bias && j.groups <= 1)
        return logit[e]; /* large ones have equal scores */
    if (j.bias)
        bias = j.bias_f32 ? ((const float *)j.bias)[e] : ft_to_float(((const bf16 *)j.bias)[e]);
    return score_of(j, s, logit[e]) + bias;
}

/* Whether (v, i) comes behind (w, k): the larger first, of equals the lower number. */
FT_DEVICE bool is_behind(float v, int i, float w, int k)
{
    return v < w || (v == w && i > k);
}

/* Bits of the groups that count. */
FT_DEVICE uint64_t find_groups(const struct route_job &j, const struct softmax &s,
                               const float *logit)
{
    float worth[64];
    const int each = j.experts / j.groups;
    uint64_t kept = 0;
    for (int g = 0; g < j.groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (int e = g * each; e < (g + 1) * each; e++) {
            const float v = rank_of(j, s, logit, e);
            second = v > first ? first : fmaxf(second, v);
            first = fmaxf(first, v);
        }
        worth[g] = first + second;
    }
    for (int g = 0; g < j.groups; g++) {
        int before = 0;
        for (int k = 0; k < j.groups; k++)
            before += k != g && is_behind(worth[g], g, worth[k], k);
        kept |= before < j.kept ? (uint64_t)1 << g : 0;
    }
    return kept;
}

/* A thread a row: each choice is the next one in order behind the last. */
FT_KERNEL(THREADS) choose(struct ft_mark mark, struct route_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x() * THREADS + ft_thread();
    if (t >= j.rows)
        return;
    const float *logit = j.logits + t * j.experts;
    const struct softmax s = find_softmax(j, logit);
    const uint64_t groups = j.groups > 1 ? find_groups(j, s, logit) : ~(uint64_t)0;
    const int per = j.groups > 1 ? j.experts / j.groups : j.experts;
    float last = INFINITY, sum = 0;
    int at = -1;
    for (int i = 0; i < j.each; i++) {
        float best = -INFINITY;
        int which = -1;
        for (int e = 0; e < j.experts; e++) {
            const float v = groups >> (e / per) & 1 ? rank_of(j, s, logit, e) : -INFINITY;
            if (is_behind(v, e, last, at) && (which < 0 || v > best)) {
                best = v;
                which = e;
            }
        }
        which = which < 0 ? 0 : which; /* NaN is behind nothing */
        last = best;
        at = which;
        j.chosen[t * j.each + i] = which;
        j.out[t * j.each + i] = score_of(j, s, logit[which]);
        sum += score_of(j, s, logit[which]);
    }
    for (int i = 0; i < j.each; i++)
        j.out[t * j.each + i] *= j.normalise ? j.scale / sum : j.scale;
}

/* A thread's part of all slots. */
FT_DEVICE int64_t first_slot(const struct route_job &j, int thread)
{
    return j.rows * j.each * thread / THREADS;
}

/* A block an expert: how many slots are its. */
FT_KERNEL(THREADS) count(struct ft_mark mark, struct route_job j)
{
    ft_begin(mark);
    FT_SHARED(int32_t, counts);
    const int e = (int)ft_block_x();
    int32_t n = 0, all = 0;
    for (int64_t i = first_slot(j, ft_thread()); i < first_slot(j, ft_thread() + 1); i++)
        n += j.chosen[i] == e;
    counts[ft_thread()] = n;
    ft_sync_block();
    if (ft_thread() > 0)
        return;
    for (int k = 0; k < THREADS; k++)
        all += counts[k];
    j.counts[e] = all;
}

/* A block an expert: its slots behind those of the experts before it, in their order. */
FT_KERNEL(THREADS) place(struct ft_mark mark, struct route_job j)
{
    ft_begin(mark);
    FT_SHARED(int32_t, counts);
    const int e = (int)ft_block_x();
    const int64_t begin = first_slot(j, ft_thread()), end = first_slot(j, ft_thread() + 1);
    int32_t n = 0, next = 0;
    for (int64_t i = begin; i < end; i++)
        n += j.chosen[i] == e;
    counts[ft_thread()] = n;
    ft_sync_block();
    for (int k = 0; k < e; k++)
        next += j.counts[k];
    if (ft_thread() == 0) {
        j.offsets[e] = next;
        if (e + 1 == j.experts)
            j.offsets[j.experts] = next + j.counts[e];
    }
    for (int k = 0; k < ft_thread(); k++)
        next += counts[k];
    for (int64_t i = begin; i < end; i++) {
        if (j.chosen[i] != e)
            continue;
        j.places[i] = next;
        j.slots[next++] = (int32_t)i;
    }
}

size_t ft_cuda_route_scratch(const union ft_op_args *args)
{
    return (size_t)args->route.logits->cols * sizeof(int32_t);
}

void ft_cuda_route(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_route_args *a = &args->route;
    struct route_job j = {};
    j.logits = (const float *)a->logits->data;
    j.bias = a->bias ? a->bias->data : NULL;
    j.bias_f32 = a->bias && a->bias->dtype == FT_F32;
    j.sigmoid = a->sigmoid;
    j.normalise = a->normalise;
    j.out = (float *)a->weights->data;
    j.chosen = (int32_t *)a->chosen->data;
    j.counts = (int32_t *)ctx->scratch;
    j.places = (int32_t *)a->places->data;
    j.slots = (int32_t *)a->slots->data;
    j.offsets = (int32_t *)a->offsets->data;
    j.rows = ft_launch_rows(ctx, a->logits);
    j.experts = (int)a->logits->cols;
    j.each = (int)a->weights->cols;
    j.groups = a->groups;
    j.kept = a->kept_groups;
    j.scale = a->scale;
    const struct ft_grid experts = {j.experts, 1, 1};
    ft_launch(ctx, choose, ft_grid{(j.rows + THREADS - 1) / THREADS, 1, 1}, THREADS, 0, j);
    ft_launch(ctx, count, experts, THREADS, THREADS * sizeof(int32_t), j);
    ft_launch(ctx, place, experts, THREADS, THREADS * sizeof(int32_t), j);
}

/* A thread a row, as on the CPU. */
FT_KERNEL(THREADS) route_dx(struct ft_mark mark, struct route_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x() * THREADS + ft_thread();
    if (t >= j.rows)
        return;
    const float *logit = j.logits + t * j.experts, *dw = j.dweights + t * j.each;
    const int32_t *chosen = j.chosen + t * j.each;
    const struct softmax s = find_softmax(j, logit);
    float sum = 0, mean = 0;
    for (int i = 0; i < j.each; i++) {
        sum += score_of(j, s, logit[chosen[i]]);
        mean += dw[i] * j.weights[t * j.each + i];
    }
    for (int e = 0; e < j.experts; e++) {
        const float score = score_of(j, s, logit[e]);
        float d = j.sigmoid || j.normalise ? 0 : -score * mean;
        for (int i = 0; i < j.each; i++)
            if (chosen[i] == e) {
                const float g = j.scale * dw[i], ds = j.normalise ? (g - mean) / sum : g;
                d += j.sigmoid ? ds * score * (1 - score) : ds * score;
            }
        j.dlogits.p[t * j.dlogits.ld + e] = ft_to_bf16(d);
    }
}

void ft_cuda_route_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_route_dx_args *a = &args->route_dx;
    struct route_job j = {};
    j.logits = (const float *)a->logits->data;
    j.weights = (const float *)a->weights->data;
    j.dweights = (const float *)a->dweights->data;
    j.chosen = (int32_t *)a->chosen->data;
    j.dlogits = ft_rows_of(a->dlogits);
    j.sigmoid = a->sigmoid;
    j.normalise = a->normalise;
    j.rows = ft_launch_rows(ctx, a->logits);
    j.experts = (int)a->logits->cols;
    j.each = (int)a->weights->cols;
    j.scale = a->scale;
    ft_launch(ctx, route_dx, ft_grid{(j.rows + THREADS - 1) / THREADS, 1, 1}, THREADS, 0, j);
}

struct balance_job {
    const float *logits, *so_far, *dshares;
    const int32_t *chosen, *live;
    float *sums;
    struct ft_rows dlogits;
    int64_t rows;
    int experts, each;
};

/* A block an expert: how many of the live rows chose it, and its share of them all, each thread's
 * rows summed first. */
FT_KERNEL(THREADS) balance(struct ft_mark mark, struct balance_job j)
{
    ft_begin(mark);
    FT_SHARED(double, shared);
    struct route_job softmax = {};
    const int e = (int)ft_block_x();
    double count = 0, share = 0;
    softmax.experts = j.experts;
    for (int64_t t = ft_thread(); t < j.live[FT_ROWS]; t += THREADS) {
        const float *logit = j.logits + t * j.experts;
        const struct softmax s = find_softmax(softmax, logit);
        share += (double)score_of(softmax, s, logit[e]);
        for (int i = 0; i < j.each; i++)
            count += j.chosen[t * j.each + i] == e;
    }
    shared[ft_thread()] = count;
    shared[THREADS + ft_thread()] = share;
    ft_sync_block();
    if (ft_thread() > 1)
        return;
    double all = 0;
    for (int i = 0; i < THREADS; i++)
        all += shared[ft_thread() * THREADS + i];
    const int at = ft_thread() * j.experts + e;
    j.sums[at] = (j.so_far ? j.so_far[at] : 0) + (float)all;
}

void ft_cuda_balance(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_balance_args *a = &args->balance;
    struct balance_job j = {};
    j.logits = (const float *)a->logits->data;
    j.chosen = (const int32_t *)a->chosen->data;
    j.so_far = a->so_far ? (const float *)a->so_far->data : NULL;
    j.sums = (float *)a->sums->data;
    j.live = (const int32_t *)ctx->live;
    j.experts = (int)a->logits->cols;
    j.each = (int)a->chosen->cols;
    ft_launch(ctx, balance, ft_grid{j.experts, 1, 1}, THREADS, 2 * THREADS * sizeof(double), j);
}

FT_KERNEL(32)
balance_loss(struct ft_mark mark, const float *sums, const int32_t *live, double *loss,
             float *dshares, int experts, int each, double rate)
{
    ft_begin(mark);
    double rows = 0, sum = 0;
    if (ft_thread() > 0)
        return;
    for (int e = 0; e < experts; e++)
        rows += (double)sums[e] / each;
    const double trained = (double)live[FT_TRAINED],
                 scale = rows > 0 ? trained * rate * (double)experts / (rows * rows) : 0;
    for (int e = 0; e < experts; e++) {
        dshares[e] = (float)(scale * (double)sums[e]);
        sum += (double)sums[e] * (double)sums[experts + e];
    }
    *loss += scale * sum;
}

void ft_cuda_balance_loss(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_balance_loss_args *a = &args->balance_loss;
    ft_launch(ctx, balance_loss, ft_grid{1, 1, 1}, 32, 0, (const float *)a->sums->data,
              (const int32_t *)ctx->live, (double *)a->scalars->data + FT_S_LOSS_SUM,
              (float *)a->dshares->data, (int)a->sums->cols, a->each, (double)a->rate);
}

/* A thread a row. */
FT_KERNEL(THREADS) balance_dx(struct ft_mark mark, struct balance_job j)
{
    ft_begin(mark);
    struct route_job softmax = {};
    const int64_t t = ft_block_x() * THREADS + ft_thread();
    if (t >= j.rows)
        return;
    softmax.experts = j.experts;
    const float *logit = j.logits + t * j.experts;
    const struct softmax s = find_softmax(softmax, logit);
    float mean = 0;
    for (int e = 0; e < j.experts; e++)
        mean += score_of(softmax, s, logit[e]) * j.dshares[e];
    for (int e = 0; e < j.experts; e++)
        j.dlogits.p[t * j.dlogits.ld + e] =
            ft_to_bf16(score_of(softmax, s, logit[e]) * (j.dshares[e] - mean));
}

void ft_cuda_balance_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_balance_dx_args *a = &args->balance_dx;
    struct balance_job j = {};
    j.logits = (const float *)a->logits->data;
    j.dshares = (const float *)a->dshares->data;
    j.dlogits = ft_rows_of(a->dlogits);
    j.rows = ft_launch_rows(ctx, a->logits);
    j.experts = (int)a->logits->cols;
    ft_launch(ctx, balance_dx, ft_grid{(j.rows + THREADS - 1) / THREADS, 1, 1}, THREADS, 0, j);
}

struct rows_job {
    struct ft_rows x, add, y;
    const int32_t *slots, *places;
    const float *weights;
    float *dw;
    int64_t rows, cols;
    int each;
};

/* A block a routed row. */
FT_KERNEL(THREADS) spread(struct ft_mark mark, struct rows_job j)
{
    ft_begin(mark);
    const int64_t r = ft_block_x(), slot = j.slots[r];
    const bf16 *x = j.x.p + slot / j.each * j.x.ld;
    const float w = j.weights ? j.weights[slot] : 1;
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS)
        j.y.p[r * j.y.ld + c] = j.weights ? ft_to_bf16(w * ft_to_float(x[c])) : x[c];
}

void ft_cuda_spread(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_spread_args *a = &args->spread;
    struct rows_job j = {};
    j.x = ft_rows_of(a->x);
    j.y = ft_rows_of(a->y);
    j.slots = (const int32_t *)a->slots->data;
    j.weights = a->weights ? (const float *)a->weights->data : NULL;
    j.cols = a->x->cols;
    j.each = (int)a->places->cols;
    ft_launch(ctx, spread, ft_grid{ft_launch_rows(ctx, a->y), 1, 1}, THREADS, 0, j);
}

/* A block a row. */
FT_KERNEL(THREADS) collect(struct ft_mark mark, struct rows_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x();
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        float sum = j.add.p ? ft_to_float(j.add.p[t * j.add.ld + c]) : 0;
        for (int i = 0; i < j.each; i++) {
            const int64_t slot = t * j.each + i;
            const float x = ft_to_float(j.x.p[j.places[slot] * j.x.ld + c]);
            sum += j.weights ? j.weights[slot] * x : x;
        }
        j.y.p[t * j.y.ld + c] = ft_to_bf16(sum);
    }
}

void ft_cuda_collect(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_collect_args *a = &args->collect;
    struct rows_job j = {};
    j.x = ft_rows_of(a->x);
    j.add = ft_rows_of(a->add);
    j.y = ft_rows_of(a->y);
    j.places = (const int32_t *)a->places->data;
    j.weights = a->weights ? (const float *)a->weights->data : NULL;
    j.cols = a->y->cols;
    j.each = (int)a->places->cols;
    ft_launch(ctx, collect, ft_grid{ft_launch_rows(ctx, a->y), 1, 1}, THREADS, 0, j);
}

/* A warp a slot. */
FT_KERNEL(THREADS) collect_dw(struct ft_mark mark, struct rows_job j)
{
    ft_begin(mark);
    const int64_t slot = ft_block_x() * WARPS + ft_warp();
    float sum = 0;
    if (slot >= j.rows * j.each)
        return;
    const bf16 *y = j.y.p + slot / j.each * j.y.ld, *x = j.x.p + j.places[slot] * j.x.ld;
    for (int64_t c = ft_lane(); c < j.cols; c += 32)
        sum += ft_to_float(y[c]) * ft_to_float(x[c]);
    sum = ft_warp_sum(sum);
    if (ft_lane() == 0)
        j.dw[slot] = sum;
}

void ft_cuda_collect_dw(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_collect_dw_args *a = &args->collect_dw;
    struct rows_job j = {};
    j.x = ft_rows_of(a->x);
    j.y = ft_rows_of(a->y);
    j.places = (const int32_t *)a->places->data;
    j.dw = (float *)a->dw->data;
    j.rows = ft_launch_rows(ctx, a->y);
    j.cols = a->y->cols;
    j.each = (int)a->places->cols;
    ft_launch(ctx, collect_dw, ft_grid{(j.rows * j.each + WARPS - 1) / WARPS, 1, 1}, THREADS, 0, j);
}

struct gate_job {
    struct ft_rows gate, x, add, dy, y, dgate;
    int64_t rows, cols;
};

FT_DEVICE float gate_of(const struct gate_job &j, int64_t t)
{
    return 1.f / (1.f + expf(-ft_to_float(j.gate.p[t * j.gate.ld])));
}

/* A block a row. */
FT_KERNEL(THREADS) gate_rows(struct ft_mark mark, struct gate_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x();
    const float s = gate_of(j, t);
    for (int64_t c = ft_thread(); c < j.cols; c += THREADS) {
        const float add = j.add.p ? ft_to_float(j.add.p[t * j.add.ld + c]) : 0;
        j.y.p[t * j.y.ld + c] = ft_to_bf16(s * ft_to_float(j.x.p[t * j.x.ld + c]) + add);
    }
}

void ft_cuda_gate_rows(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_gate_rows_args *a = &args->gate_rows;
    struct gate_job j = {};
    j.gate = ft_rows_of(a->gate);
    j.x = ft_rows_of(a->x);
    j.add = ft_rows_of(a->add);
    j.y = ft_rows_of(a->y);
    j.cols = a->x->cols;
    ft_launch(ctx, gate_rows, ft_grid{ft_launch_rows(ctx, a->x), 1, 1}, THREADS, 0, j);
}

/* A warp a row. */
FT_KERNEL(THREADS) gate_rows_dx(struct ft_mark mark, struct gate_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x() * WARPS + ft_warp();
    float sum = 0;
    if (t >= j.rows)
        return;
    const float s = gate_of(j, t);
    for (int64_t c = ft_lane(); c < j.cols; c += 32) {
        const float dy = ft_to_float(j.dy.p[t * j.dy.ld + c]);
        sum += dy * ft_to_float(j.x.p[t * j.x.ld + c]);
        j.y.p[t * j.y.ld + c] = ft_to_bf16(s * dy);
    }
    sum = ft_warp_sum(sum);
    if (ft_lane() == 0)
        j.dgate.p[t * j.dgate.ld] = ft_to_bf16(s * (1 - s) * sum);
}

void ft_cuda_gate_rows_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_gate_rows_dx_args *a = &args->gate_rows_dx;
    struct gate_job j = {};
    j.gate = ft_rows_of(a->gate);
    j.x = ft_rows_of(a->x);
    j.dy = ft_rows_of(a->dy);
    j.y = ft_rows_of(a->dx);
    j.dgate = ft_rows_of(a->dgate);
    j.rows = ft_launch_rows(ctx, a->x);
    j.cols = a->x->cols;
    ft_launch(ctx, gate_rows_dx, ft_grid{(j.rows + WARPS - 1) / WARPS, 1, 1}, THREADS, 0, j);
}
