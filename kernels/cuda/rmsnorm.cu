/* rmsnorm and its backward. A team of threads holds a row in registers, so that it is read once. */
#include "kernels/cuda/device.cuh"

enum { BLOCK = 128, HELD = 4 }; /* threads of a small team's block; vectors a thread holds */

/* The sum over a team of TEAM threads: a warp, or the whole block. */
template <int TEAM> FT_DEVICE float team_sum(float v, float *shared)
{
    v = ft_warp_sum(v);
    if (TEAM == 32)
        return v;
    if (ft_lane() == 0)
        shared[ft_warp()] = v;
    ft_sync_block();
    float sum = 0;
    for (int w = 0; w < TEAM / 32; w++) /* every thread in the same order */
        sum += shared[w];
    return sum;
}

struct norm_job {
    struct ft_rows x, dy, add, out;
    const bf16 *w;
    float *rstd;
    int64_t rows, cols;
    float eps, offset;
};

/* The k-th vector of this thread in its team's row: V columns from there. The first HELD stay in
 * registers; what is behind (very long or unaligned rows) is read again. */
template <int V, int TEAM> FT_DEVICE int64_t column(int k)
{
    return ((int64_t)k * TEAM + ft_thread() % TEAM) * V;
}

template <int V, int TEAM>
FT_KERNEL(TEAM < BLOCK ? BLOCK : TEAM)
norm_forward(struct ft_mark mark, struct norm_job j)
{
    ft_begin(mark);
    FT_SHARED(float, shared);
    constexpr int TEAMS = TEAM < BLOCK ? BLOCK / TEAM : 1;
    const int64_t t = ft_block_x() * TEAMS + ft_thread() / TEAM;
    const bf16 *x = j.x.p + t * j.x.ld;
    float held[HELD][V], sum = 0;
    if (TEAM == 32 && t >= j.rows)
        return; /* a whole warp */
    FT_UNROLL
    for (int k = 0; k < HELD; k++) {
        const int64_t c = column<V, TEAM>(k);
        if (c < j.cols) {
            ft_load<V>(held[k], x + c);
            FT_UNROLL
            for (int i = 0; i < V; i++)
                sum += held[k][i] * held[k][i];
        }
    }
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float v[V];
        ft_load<V>(v, x + c);
        FT_UNROLL
        for (int i = 0; i < V; i++)
            sum += v[i] * v[i];
    }
    const float rstd = 1.f / sqrtf(team_sum<TEAM>(sum, shared) / (float)j.cols + j.eps);
    if (ft_thread() % TEAM == 0)
        j.rstd[t] = rstd;
    bf16 *y = j.out.p + t * j.out.ld;
    FT_UNROLL
    for (int k = 0; k < HELD; k++) {
        const int64_t c = column<V, TEAM>(k);
        if (c < j.cols) {
            float w[V];
            ft_load<V>(w, j.w + c);
            FT_UNROLL
            for (int i = 0; i < V; i++)
                w[i] = held[k][i] * rstd * (w[i] + j.offset);
            ft_store<V>(y + c, w);
        }
    }
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float v[V], w[V];
        ft_load<V>(v, x + c);
        ft_load<V>(w, j.w + c);
        FT_UNROLL
        for (int i = 0; i < V; i++)
            w[i] = v[i] * rstd * (w[i] + j.offset);
        ft_store<V>(y + c, w);
    }
}

/* dx of one vector; pull = mean(dy w' xhat) * rstd. */
template <int V>
FT_DEVICE void backward_store(const struct norm_job &j, int64_t t, int64_t c, const float x[V],
                              const float dyw[V], float rstd, float pull)
{
    float d[V], add[V] = {};
    if (j.add.p)
        ft_load<V>(add, j.add.p + t * j.add.ld + c);
    FT_UNROLL
    for (int i = 0; i < V; i++)
        d[i] = (dyw[i] - x[i] * pull) * rstd + add[i];
    ft_store<V>(j.out.p + t * j.out.ld + c, d);
}

/* x and dy (w + offset) of one vector; their product is added to dot. */
template <int V>
FT_DEVICE void backward_load(const struct norm_job &j, int64_t t, int64_t c, float x[V],
                             float dyw[V], float *dot)
{
    float w[V];
    ft_load<V>(x, j.x.p + t * j.x.ld + c);
    ft_load<V>(dyw, j.dy.p + t * j.dy.ld + c);
    ft_load<V>(w, j.w + c);
    FT_UNROLL
    for (int i = 0; i < V; i++) {
        dyw[i] *= w[i] + j.offset;
        *dot += dyw[i] * x[i];
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
    float x[HELD][V], dyw[HELD][V], dot = 0;
    if (TEAM == 32 && t >= j.rows)
        return;
    const float rstd = j.rstd[t];
    FT_UNROLL
    for (int k = 0; k < HELD; k++) {
        const int64_t c = column<V, TEAM>(k);
        if (c < j.cols)
            backward_load<V>(j, t, c, x[k], dyw[k], &dot);
    }
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float p[V], q[V];
        backward_load<V>(j, t, c, p, q, &dot);
    }
    const float pull = team_sum<TEAM>(dot, shared) / (float)j.cols * rstd * rstd;
    FT_UNROLL
    for (int k = 0; k < HELD; k++) {
        const int64_t c = column<V, TEAM>(k);
        if (c < j.cols)
            backward_store<V>(j, t, c, x[k], dyw[k], rstd, pull);
    }
    for (int64_t c = column<V, TEAM>(HELD); c < j.cols; c += TEAM * V) {
        float p[V], q[V], unused = 0;
        backward_load<V>(j, t, c, p, q, &unused);
        backward_store<V>(j, t, c, p, q, rstd, pull);
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

void ft_cuda_rmsnorm(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_rmsnorm *a = &args->rmsnorm;
    struct norm_job j = {};
    j.x = ft_rows_of(a->x);
    j.out = ft_rows_of(a->y);
    j.w = (const bf16 *)a->w->data;
    j.rstd = (float *)a->rstd->data;
    j.rows = ft_launch_rows(ctx, a->x);
    j.cols = a->x->cols;
    j.eps = a->eps;
    j.offset = a->offset;
    if (ft_is_wide(a->x, a->y, a->w))
        launch<8>(ctx, true, j);
    else
        launch<1>(ctx, true, j);
}

void ft_cuda_rmsnorm_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_rmsnorm_dx *a = &args->rmsnorm_dx;
    struct norm_job j = {};
    j.x = ft_rows_of(a->x);
    j.dy = ft_rows_of(a->dy);
    j.add = ft_rows_of(a->add);
    j.out = ft_rows_of(a->dx);
    j.w = (const bf16 *)a->w->data;
    j.rstd = (float *)a->rstd->data;
    j.rows = ft_launch_rows(ctx, a->x);
    j.cols = a->x->cols;
    j.offset = a->offset;
    if (ft_is_wide(a->x, a->dy, a->add, a->dx, a->w))
        launch<8>(ctx, false, j);
    else
        launch<1>(ctx, false, j);
}
