/* norm and its backward. A team of threads holds a group of a row in registers, so that it is read
 * once. */
#include "kernels/cuda/device.cuh"

enum { BLOCK = 128, HELD = 4 }; /* threads of a small team's block; vectors a thread holds */

/* The sum over a team of TEAM threads: a warp, or the whole block. */
template <int TEAM> FT_DEVICE float team_sum(float v, float *shared)
{
    v = ft_warp_sum(v);
    if (TEAM == 32)
        return v;
    ft_sync_block(); /* an earlier sum has been read */
    if (ft_lane() == 0)
        shared[ft_warp()] = v;
    ft_sync_block();
    float sum = 0;
    for (int w = 0; w < TEAM / 32; w++) /* every thread in the same order */
        sum += shared[w];
    return sum;
}

struct norm_job {
    struct ft_rows x, dy, add, out, w; /* w.ld 0: all groups have one */
    const bf16 *bias;                  /* NULL: none */
    float *rstd, *mean;                /* mean NULL: RMSNorm */
    int64_t rows, cols;                /* groups of all rows; columns of a group */
    int groups;                        /* of a row */
    float eps, offset;
};

/* Group number n of a tensor. */
FT_DEVICE bf16 *group_of(const struct norm_job &j, struct ft_rows r, int64_t n)
{
    return r.p ? r.p + n / j.groups * r.ld + n % j.groups * j.cols : NULL;
}

FT_DEVICE const bf16 *weights_of(const struct norm_job &j, int64_t n)
{
    return j.w.p + n % j.groups * j.w.ld;
}

/* The k-th vector of this thread in its team's row: V columns from there. The first HELD stay in
 * registers; what is behind (very long or unaligned rows) is read again. */
template <int V, int TEAM> FT_DEVICE int64_t column(int k)
{
    return ((int64_t)k * TEAM + ft_thread() % TEAM) * V;
}

/* The sums of (x - mean)^k of this thread's columns, k = 1 (from: 0) or 2. */
template <int V, int TEAM, bool SQUARE>
FT_DEVICE float sum_of(const struct norm_job &j, const bf16 *x, const float held[HELD][V],
                       float mean)
{
    float sum = 0;
    FT_UNROLL
    for (int k = 0; k < HELD; k++) {
        if (column<V, TEAM>(k) >= j.cols)
            continue;
        FT_UNROLL
        for (int i = 0; i < V; i++) {
            const float v = held[k][i] - mean;
            sum += SQUARE ? v * v : v;
        }
    }
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float v[V];
        ft_load<V>(v, x + c);
        FT_UNROLL
        for (int i = 0; i < V; i++)
            sum += SQUARE ? (v[i] - mean) * (v[i] - mean) : v[i] - mean;
    }
    return sum;
}

/* y of one vector. */
template <int V>
FT_DEVICE void forward_store(const struct norm_job &j, const bf16 *weights, bf16 *y, int64_t c,
                             const float x[V], float mean, float rstd)
{
    float w[V], bias[V] = {};
    ft_load<V>(w, weights + c);
    if (j.bias)
        ft_load<V>(bias, j.bias + c);
    FT_UNROLL
    for (int i = 0; i < V; i++)
        w[i] = (x[i] - mean) * rstd * (w[i] + j.offset) + bias[i];
    ft_store<V>(y + c, w);
}

template <int V, int TEAM>
FT_KERNEL(TEAM < BLOCK ? BLOCK : TEAM)
norm_forward(struct ft_mark mark, struct norm_job j)
{
    ft_begin(mark);
    FT_SHARED(float, shared);
    constexpr int TEAMS = TEAM < BLOCK ? BLOCK / TEAM : 1;
    const int64_t t = ft_block_x() * TEAMS + ft_thread() / TEAM;
    if (TEAM == 32 && t >= j.rows)
        return; /* a whole warp */
    const bf16 *x = group_of(j, j.x, t), *w = weights_of(j, t);
    bf16 *y = group_of(j, j.out, t);
    float held[HELD][V], mean = 0;
    FT_UNROLL
    for (int k = 0; k < HELD; k++)
        if (column<V, TEAM>(k) < j.cols)
            ft_load<V>(held[k], x + column<V, TEAM>(k));
    if (j.mean)
        mean = team_sum<TEAM>(sum_of<V, TEAM, false>(j, x, held, 0), shared) / (float)j.cols;
    const float sum = team_sum<TEAM>(sum_of<V, TEAM, true>(j, x, held, mean), shared);
    const float rstd = 1.f / sqrtf(sum / (float)j.cols + j.eps);
    if (ft_thread() % TEAM == 0) {
        j.rstd[t] = rstd;
        if (j.mean)
            j.mean[t] = mean;
    }
    FT_UNROLL
    for (int k = 0; k < HELD; k++)
        if (column<V, TEAM>(k) < j.cols)
            forward_store<V>(j, w, y, column<V, TEAM>(k), held[k], mean, rstd);
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float v[V];
        ft_load<V>(v, x + c);
        forward_store<V>(j, w, y, c, v, mean, rstd);
    }
}

/* What backward knows of a group: pull = mean_c(g xhat) rstd, level = mean_c(g). */
struct group {
    const bf16 *x, *dy, *w, *add;
    bf16 *dx;
    float mean, rstd, pull, level;
};

/* dx of one vector; x is less its mean. */
template <int V>
FT_DEVICE void backward_store(const struct group &a, int64_t c, const float x[V],
                              const float dyw[V])
{
    float d[V], add[V] = {};
    if (a.add)
        ft_load<V>(add, a.add + c);
    FT_UNROLL
    for (int i = 0; i < V; i++)
        d[i] = (dyw[i] - x[i] * a.pull - a.level) * a.rstd + add[i];
    ft_store<V>(a.dx + c, d);
}

/* x - mean and dy (w + offset) of one vector; their product is added to dot, the latter to sum. */
template <int V>
FT_DEVICE void backward_load(const struct group &a, float offset, int64_t c, float x[V],
                             float dyw[V], float *dot, float *sum)
{
    float w[V];
    ft_load<V>(x, a.x + c);
    ft_load<V>(dyw, a.dy + c);
    ft_load<V>(w, a.w + c);
    FT_UNROLL
    for (int i = 0; i < V; i++) {
        x[i] -= a.mean;
        dyw[i] *= w[i] + offset;
        *dot += dyw[i] * x[i];
        *sum += dyw[i];
    }
}

template <int V, int TEAM>
FT_KERNEL(TEAM < BLOCK ? BLOCK : TEAM)
norm_backward(struct ft_mark mark, struct norm_job j)
{
    ft_begin(mark);
    FT_SHARED(float, shared);
    constexpr int TEAMS = TEAM < BLOCK ? BLOCK / TEAM : 1;
    const int64_t t = ft_block_x() * TEAMS + ft_thread() / TEAM;
    float x[HELD][V], dyw[HELD][V], dot = 0, sum = 0;
    if (TEAM == 32 && t >= j.rows)
        return;
    struct group a = {group_of(j, j.x, t), group_of(j, j.dy, t), weights_of(j, t),
                      group_of(j, j.add, t), group_of(j, j.out, t)};
    a.rstd = j.rstd[t];
    a.mean = j.mean ? j.mean[t] : 0;
    FT_UNROLL
    for (int k = 0; k < HELD; k++)
        if (column<V, TEAM>(k) < j.cols)
            backward_load<V>(a, j.offset, column<V, TEAM>(k), x[k], dyw[k], &dot, &sum);
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float p[V], q[V];
        backward_load<V>(a, j.offset, c, p, q, &dot, &sum);
    }
    a.pull = team_sum<TEAM>(dot, shared) / (float)j.cols * a.rstd * a.rstd;
    a.level = j.mean ? team_sum<TEAM>(sum, shared) / (float)j.cols : 0;
    FT_UNROLL
    for (int k = 0; k < HELD; k++)
        if (column<V, TEAM>(k) < j.cols)
            backward_store<V>(a, column<V, TEAM>(k), x[k], dyw[k]);
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float p[V], q[V], unused = 0;
        backward_load<V>(a, j.offset, c, p, q, &unused, &unused);
        backward_store<V>(a, c, p, q);
    }
}

typedef void norm_kernel(struct ft_mark, struct norm_job);

/* The smallest team that holds a row in its registers, or the largest. */
template <int V>
static void launch(const struct ft_kernel_ctx *ctx, bool forward, const struct norm_job &j)
{
    static const struct {
        int team;
        norm_kernel *forward, *backward;
    } kinds[] = {
        {32, norm_forward<V, 32>, norm_backward<V, 32>},
        {128, norm_forward<V, 128>, norm_backward<V, 128>},
        {512, norm_forward<V, 512>, norm_backward<V, 512>},
    };
    int k = 0;
    while (k < 2 && j.cols > (int64_t)kinds[k].team * HELD * V)
        k++;
    const int team = kinds[k].team, block = team < BLOCK ? BLOCK : team, teams = block / team;
    ft_launch(ctx, forward ? kinds[k].forward : kinds[k].backward,
              ft_grid{(j.rows + teams - 1) / teams, 1, 1}, block, 16 * sizeof(float), j);
}

/* Rows, groups and weights; false: groups cannot be read 8 columns at a time. */
static bool set_groups(const struct ft_kernel_ctx *ctx, struct norm_job *j,
                       const struct ft_tensor *x, const struct ft_tensor *w,
                       const struct ft_tensor *rstd, const struct ft_tensor *mean)
{
    j->groups = (int)rstd->cols;
    j->rows = ft_launch_rows(ctx, x) * j->groups;
    j->cols = w->cols;
    j->w = ft_rows_of(w);
    if (w->rows == 1)
        j->w.ld = 0;
    j->rstd = (float *)rstd->data;
    j->mean = mean ? (float *)mean->data : NULL;
    return ft_is_wide(w) && j->w.ld % 8 == 0;
}

void ft_cuda_norm(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_norm_args *a = &args->norm;
    struct norm_job j = {};
    const bool wide = set_groups(ctx, &j, a->x, a->w, a->rstd, a->mean);
    j.x = ft_rows_of(a->x);
    j.out = ft_rows_of(a->y);
    j.bias = a->bias ? (const bf16 *)a->bias->data : NULL;
    j.eps = a->eps;
    j.offset = a->offset;
    if (wide && ft_is_wide(a->x, a->y, a->bias))
        launch<8>(ctx, true, j);
    else
        launch<1>(ctx, true, j);
}

void ft_cuda_norm_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_norm_dx_args *a = &args->norm_dx;
    struct norm_job j = {};
    const bool wide = set_groups(ctx, &j, a->x, a->w, a->rstd, a->mean);
    j.x = ft_rows_of(a->x);
    j.dy = ft_rows_of(a->dy);
    j.add = ft_rows_of(a->add);
    j.out = ft_rows_of(a->dx);
    j.offset = a->offset;
    if (wide && ft_is_wide(a->x, a->dy, a->add, a->dx))
        launch<8>(ctx, false, j);
    else
        launch<1>(ctx, false, j);
}
