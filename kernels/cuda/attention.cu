/* Causal attention within documents, forward and backward, on tensor cores, without the (T,T)
 * matrix. Documents lie end to end; a tile of rows may reach over a border, and each row masks what
 * it does not see by its span. Every output element has one writer and one order of sums. Backward
 * computes the scores twice: once a tile of keys for dk and dv, once a tile of queries for dq, so
 * that nothing is summed in memory. After Dao 2023, arXiv 2307.08691. */
#include "kernels/cuda/tile.cuh"

#include <limits.h>

static const float LOG2E = 1.44269504088896341f;

struct attention_job {
    struct ft_rows q, k, v, o, dout, dq, dk, dv;
    float *lse, *delta; /* (T, heads) */
    const void *sinks;  /* (heads) f32 or bf16; NULL: none */
    bool sinks_f32;
    const int32_t *spans, *cached, *live;
    int rows; /* the bucket: rows from the live ones to here become zero */
    int heads, group, d, window;
    float scale, softcap;
    bool wide;
};

/* Rows and keys are counted in int: a batch's numbers are I32. */

/* Columns of head h. */
FT_DEVICE struct ft_rows head_of(struct ft_rows r, int h, int d)
{
    r.p += (int64_t)h * d;
    return r;
}

/* The first key that query row t sees. */
FT_DEVICE int first_key(const struct attention_job &j, int t)
{
    const int first = j.spans[2 * (int64_t)t], near = t - j.window + 1;
    return j.window > 0 && near > first ? near : first;
}

/* The row behind the last query that sees key t. */
FT_DEVICE int end_query(const struct attention_job &j, int t)
{
    const int end = j.spans[2 * (int64_t)t + 1], far = t + j.window;
    return j.window > 0 && far < end ? far : end;
}

FT_DEVICE int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* Tiles of queries are started from the last, which sees most keys; the heads that share keys run
 * side by side. Shapes of the tiles: M 16-row tiles a warp, KEYS keys at a time. */
template <int D> struct forward_shape {
    static constexpr int M = D <= 128 ? 2 : 1, KEYS = D <= 64 ? 64 : 32;
    static constexpr int ROWS = FT_TILE_WARPS * 16 * M, LD = ft_tile<D>::LD;
    static constexpr size_t SHARED = (size_t)(ROWS + 4 * KEYS) * LD * sizeof(bf16);
};

/* The running softmax of one 16-row tile: s becomes exp2(s' - max), o and sum are rescaled. */
template <int N, int C>
FT_DEVICE void softmax_tile(float s[N][4], float o[C][4], float max[2], float sum[2], float scale)
{
    FT_UNROLL
    for (int half = 0; half < 2; half++) {
        float now = max[half];
        FT_UNROLL
        for (int n = 0; n < N; n++)
            now = fmaxf(now, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        now = fmaxf(now, ft_shuffle_xor(now, 1)); /* the four threads of a row */
        now = fmaxf(now, ft_shuffle_xor(now, 2));
        const float base = now == -INFINITY ? 0 : now * scale;
        const float keep = ft_exp2(max[half] * scale - base);
        float add = 0;
        FT_UNROLL
        for (int n = 0; n < N; n++)
            FT_UNROLL
        for (int e = 2 * half; e < 2 * half + 2; e++)
            add += s[n][e] = ft_exp2(s[n][e] * scale - base);
        max[half] = now;
        sum[half] = sum[half] * keep + add;
        FT_UNROLL
        for (int c = 0; c < C; c++) {
            o[c][2 * half] *= keep;
            o[c][2 * half + 1] *= keep;
        }
    }
}

/* Fetches rows first.. of two tensors into two tiles. */
template <int D, int ROWS>
FT_DEVICE void fetch(const struct attention_job &j, bf16 *a, bf16 *b, struct ft_rows from_a,
                     struct ft_rows from_b, int first, int end)
{
    ft_tile_load<D, ROWS>(a, from_a, first, end, j.d, j.wide);
    ft_tile_load<D, ROWS>(b, from_b, first, end, j.d, j.wide);
}

/* Scores through the cap; they stay as they came from the product, before `scale`. */
template <int M, int N> FT_DEVICE void cap_scores(const struct attention_job &j, float s[M][N][4])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int n = 0; n < N; n++)
        FT_UNROLL
    for (int e = 0; e < 4; e++)
        s[m][n][e] = tanhf(s[m][n][e] * j.scale / j.softcap) * j.softcap / j.scale;
}

/* Scores of keys that a row does not see, behind it or before its first, become -inf. */
template <int M, int N>
FT_DEVICE void mask_scores(float s[M][N][4], int first_row, int first_col, const int low[M][2])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int n = 0; n < N; n++)
        FT_UNROLL
    for (int e = 0; e < 4; e++) {
        const int key = first_col + 8 * n + ft_fragment_col(e);
        const int row = first_row + 16 * m + ft_fragment_row(e);
        if (key > row || key < low[m][e / 2])
            s[m][n][e] = -INFINITY;
    }
}

/* The first key of each of this thread's rows; none for rows that are not live. */
template <int M>
FT_DEVICE void first_keys(const struct attention_job &j, int first_row, int live, int low[M][2])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int half = 0; half < 2; half++) {
        const int t = first_row + 16 * m + ft_fragment_row(2 * half);
        low[m][half] = t < live ? first_key(j, t) : INT_MAX;
    }
}

/* What a row's sums are multiplied with, and its lse, from the largest score and the sum of the
 * others' exponentials. */
struct total {
    float factor, lse;
};

FT_DEVICE struct total total_of(const struct attention_job &j, int head, float max, float sum)
{
    if (!j.sinks)
        return total{1.f / sum, max + logf(sum)};
    const float sink = j.sinks_f32 ? ((const float *)j.sinks)[head]
                                   : ft_to_float(((const bf16 *)j.sinks)[head]);
    const float most = fmaxf(max, sink), mine = expf(max - most);
    const float all = sum * mine + expf(sink - most);
    return total{mine / all, most + logf(all)};
}

/* Divides each row by its sum, and notes its lse; rows that are not live become zero. */
template <int M, int C>
FT_DEVICE void finish_rows(const struct attention_job &j, int first_row, int live, int head,
                           float o[M][C][4], const float max[M][2], const float sum[M][2])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int half = 0; half < 2; half++) {
        float all = sum[m][half] + ft_shuffle_xor(sum[m][half], 1);
        all += ft_shuffle_xor(all, 2);
        const int t = first_row + 16 * m + ft_fragment_row(2 * half);
        const struct total row = total_of(j, head, max[m][half] * j.scale, all);
        const float inverse = t < live ? row.factor : 0;
        FT_UNROLL
        for (int c = 0; c < C; c++) {
            o[m][c][2 * half] *= inverse;
            o[m][c][2 * half + 1] *= inverse;
        }
        if (ft_lane() % 4 == 0 && t < j.rows)
            j.lse[(int64_t)t * j.heads + head] = t < live ? row.lse : 0;
    }
}

template <int D> FT_KERNEL(FT_TILE_THREADS) forward(struct ft_mark mark, struct attention_job j)
{
    ft_begin(mark);
    using S = forward_shape<D>;
    constexpr int M = S::M, N = S::KEYS / 8, C = D / 8, TILE = S::KEYS * S::LD;
    FT_SHARED(bf16, queries);
    bf16 *keys = queries + S::ROWS * S::LD, *values = keys + 2 * TILE;
    bf16 *my_queries = queries + ft_warp() * 16 * M * S::LD;
    const int live = j.live[FT_ROWS], q0 = (ft_grid_y() - 1 - ft_block_y()) * S::ROWS;
    const int q1 = smaller(q0 + S::ROWS, live), mine = q0 + ft_warp() * 16 * M;
    const int head = (int)ft_block_x(), kv = head / j.group;
    const struct ft_rows k = head_of(j.k, kv, j.d), v = head_of(j.v, kv, j.d);
    float o[M][C][4] = {}, max[M][2], sum[M][2] = {};
    int low[M][2];
    first_keys<M>(j, mine, live, low);
    FT_UNROLL
    for (int m = 0; m < M; m++)
        max[m][0] = max[m][1] = -INFINITY;
    if (q0 < live) {
        const int t0 = first_key(j, q0) / S::KEYS * S::KEYS;
        const int clear = first_key(j, q1 - 1); /* from here every row sees all up to itself */
        ft_tile_load<D, S::ROWS>(queries, head_of(j.q, head, j.d), q0, q1, j.d, j.wide);
        fetch<D, S::KEYS>(j, keys, values, k, v, t0, q1);
        ft_copy_commit();
        int stage = 0;
        for (int t = t0; t < q1; t += S::KEYS, stage ^= 1) {
            const int next = (stage ^ 1) * TILE, now = stage * TILE;
            if (t + S::KEYS < q1)
                fetch<D, S::KEYS>(j, keys + next, values + next, k, v, t + S::KEYS, q1);
            ft_copy_commit();
            ft_copy_wait<1>();
            ft_sync_block();
            float s[M][N][4] = {};
            ft_tile_nt<D, M, N>(s, my_queries, keys + now);
            if (j.softcap > 0)
                cap_scores<M, N>(j, s);
            if (t + S::KEYS > q0 || t < clear)
                mask_scores<M, N>(s, mine, t, low);
            FT_UNROLL
            for (int m = 0; m < M; m++)
                softmax_tile<N, C>(s[m], o[m], max[m], sum[m], j.scale * LOG2E);
            ft_tile_nn<D, M, N, C>(o, s, values + now);
            ft_sync_block();
        }
    }
    finish_rows<M, C>(j, mine, live, head, o, max, sum);
    ft_tile_store<D, M, C>(head_of(j.o, head, j.d), mine, j.rows, j.d, j.wide, o, my_queries);
}

/* One row of queries and one head a block, over cached keys: each warp takes every fourth key and
 * keeps a softmax of its own; the first joins them. */
FT_KERNEL(FT_TILE_THREADS) forward_cached(struct ft_mark mark, struct attention_job j)
{
    ft_begin(mark);
    constexpr int PART = FT_HEAD_DIM_MAX + 2, COLS = FT_HEAD_DIM_MAX / 32;
    FT_SHARED(float, parts); /* of each warp: its sums, the maximum and the sum behind them */
    const int64_t t = ft_block_x();
    const int head = ft_block_y(), kv = head / j.group;
    const bool live = t < j.live[FT_ROWS];
    const int first = live ? j.cached[2 * t] : 0, at = live ? j.cached[2 * t + 1] : -1;
    const bf16 *q = j.q.p + t * j.q.ld + (int64_t)head * j.d;
    float sums[COLS] = {}, max = -INFINITY, sum = 0;
    const int low = j.window > 0 && at - j.window + 1 > 0 ? at - j.window + 1 : 0;
    for (int key = low + ft_warp(); key <= at; key += FT_TILE_WARPS) {
        const int64_t row = first + key, col = (int64_t)kv * j.d;
        float s = 0;
        for (int c = ft_lane(); c < j.d; c += 32)
            s += ft_to_float(q[c]) * ft_to_float(j.k.p[row * j.k.ld + col + c]);
        s = ft_warp_sum(s) * j.scale;
        if (j.softcap > 0)
            s = tanhf(s / j.softcap) * j.softcap;
        const float now = fmaxf(max, s), keep = ft_exp2((max - now) * LOG2E),
                    p = ft_exp2((s - now) * LOG2E);
        sum = sum * keep + p;
        max = now;
        for (int i = 0; i < COLS && ft_lane() + 32 * i < j.d; i++)
            sums[i] = sums[i] * keep + p * ft_to_float(j.v.p[row * j.v.ld + col + ft_lane() + 32 * i]);
    }
    float *mine = parts + ft_warp() * PART;
    for (int i = 0; i < COLS && ft_lane() + 32 * i < j.d; i++)
        mine[ft_lane() + 32 * i] = sums[i];
    if (ft_lane() == 0) {
        mine[FT_HEAD_DIM_MAX] = max;
        mine[FT_HEAD_DIM_MAX + 1] = sum;
    }
    ft_sync_block();
    float most = -INFINITY, all = 0;
    for (int w = 0; w < FT_TILE_WARPS; w++)
        most = fmaxf(most, parts[w * PART + FT_HEAD_DIM_MAX]);
    for (int w = 0; w < FT_TILE_WARPS && live; w++)
        all += parts[w * PART + FT_HEAD_DIM_MAX + 1] *
               ft_exp2((parts[w * PART + FT_HEAD_DIM_MAX] - most) * LOG2E);
    const struct total row = total_of(j, head, most, all);
    for (int c = ft_thread(); c < j.d; c += FT_TILE_THREADS) {
        float o = 0;
        for (int w = 0; w < FT_TILE_WARPS && live; w++)
            o += parts[w * PART + c] *
                 ft_exp2((parts[w * PART + FT_HEAD_DIM_MAX] - most) * LOG2E);
        j.o.p[t * j.o.ld + (int64_t)head * j.d + c] = ft_to_bf16(live ? o * row.factor : 0);
    }
    if (ft_thread() == 0)
        j.lse[t * j.heads + head] = live ? row.lse : 0;
}

/* delta = sum_c dout o, a warp a row and head. */
FT_KERNEL(FT_TILE_THREADS) row_delta(struct ft_mark mark, struct attention_job j)
{
    ft_begin(mark);
    const int64_t t = ft_block_x();
    for (int h = ft_warp(); h < j.heads; h += FT_TILE_WARPS) {
        const bf16 *o = j.o.p + t * j.o.ld + (int64_t)h * j.d;
        const bf16 *dout = j.dout.p + t * j.dout.ld + (int64_t)h * j.d;
        float sum = 0;
        for (int c = ft_lane(); c < j.d; c += 32)
            sum += ft_to_float(o[c]) * ft_to_float(dout[c]);
        sum = ft_warp_sum(sum);
        if (ft_lane() == 0)
            j.delta[t * j.heads + h] = sum;
    }
}

/* A warp has 16 M rows, so many that its sums just stay in registers: what it reads of the other
 * side is used M times. OUT of the D columns are summed by a block (wide heads in two parts). */
template <int D, int M_> struct backward_shape {
    static constexpr int M = M_, ROWS = FT_TILE_WARPS * 16 * M, LD = ft_tile<D>::LD;
    static constexpr int OTHERS = D <= 128 ? 32 : 16; /* rows of the other side at a time */
    static constexpr int OUT = D <= 128 ? D : D / 2;
    static constexpr size_t SHARED = (size_t)(2 * ROWS + 4 * OTHERS) * LD * sizeof(bf16);
};
template <int D> using keys_shape = backward_shape<D, D <= 64 ? 2 : 1>;

/* lse and delta of a query lie in the gap behind its row of a tile. */
template <int D> FT_DEVICE float *row_sums(bf16 *tile, int r)
{
    return (float *)(tile + r * ft_tile<D>::LD + D);
}

/* s becomes p = exp2(s scale - lse), dp becomes ds = p (dp - delta) scale, 0 where not seen; with a
 * cap, times its slope. */
FT_DEVICE void score_gradient(const struct attention_job &j, bool seen, float lse, float delta,
                              float *s, float *dp)
{
    float x = *s * j.scale, slope = j.scale;
    if (j.softcap > 0) {
        const float r = tanhf(x / j.softcap);
        x = r * j.softcap;
        slope *= 1.f - r * r;
    }
    *s = seen ? ft_exp2(x * LOG2E - lse * LOG2E) : 0;
    *dp = *s * (*dp - delta) * slope;
}

/* Fetches queries t.. of a head, their dout, lse and delta. */
template <int D>
FT_DEVICE void fetch_queries(const struct attention_job &j, bf16 *queries, bf16 *douts, int head,
                             int t, int end)
{
    constexpr int OTHERS = keys_shape<D>::OTHERS;
    fetch<D, OTHERS>(j, queries, douts, head_of(j.q, head, j.d), head_of(j.dout, head, j.d), t,
                     end);
    for (int r = ft_thread(); r < OTHERS; r += FT_TILE_THREADS) {
        const bool is = t + r < end;
        float *sums = row_sums<D>(queries, r);
        sums[0] = is ? j.lse[(int64_t)(t + r) * j.heads + head] : 0;
        sums[1] = is ? j.delta[(int64_t)(t + r) * j.heads + head] : 0;
    }
}

/* s and dp of a tile of keys against queries t.. become p and ds. */
template <int D, int M, int N>
FT_DEVICE void key_gradients(const struct attention_job &j, bf16 *q, int first_row, int t,
                             const int end[M][2], float s[M][N][4], float dp[M][N][4])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int n = 0; n < N; n++)
        FT_UNROLL
    for (int e = 0; e < 4; e++) {
        const int c = 8 * n + ft_fragment_col(e), query = t + c;
        const int key = first_row + 16 * m + ft_fragment_row(e);
        const float *sums = row_sums<D>(q, c);
        score_gradient(j, query >= key && query < end[m][e / 2], sums[0], sums[1], &s[m][n][e],
                       &dp[m][n][e]);
    }
}

/* The row behind the last query that sees each of this thread's keys. */
template <int M>
FT_DEVICE void end_queries(const struct attention_job &j, int first_row, int live, int end[M][2])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int half = 0; half < 2; half++) {
        const int t = first_row + 16 * m + ft_fragment_row(2 * half);
        end[m][half] = t < live ? end_query(j, t) : 0;
    }
}

/* dk and dv of a tile of keys: all queries of all heads of the group pass by. Scores are
 * transposed: rows are keys. */
template <int D>
FT_KERNEL(FT_TILE_THREADS)
backward_keys(struct ft_mark mark, struct attention_job j)
{
    ft_begin(mark);
    using S = keys_shape<D>;
    constexpr int M = S::M, N = S::OTHERS / 8, C = S::OUT / 8, TILE = S::OTHERS * S::LD;
    FT_SHARED(bf16, keys);
    bf16 *values = keys + S::ROWS * S::LD, *queries = values + S::ROWS * S::LD;
    bf16 *douts = queries + 2 * TILE;
    bf16 *my_keys = keys + ft_warp() * 16 * M * S::LD;
    bf16 *my_values = values + ft_warp() * 16 * M * S::LD;
    const int live = j.live[FT_ROWS], k0 = (int)ft_block_x() * S::ROWS,
              k1 = smaller(k0 + S::ROWS, live);
    const int mine = k0 + ft_warp() * 16 * M;
    const int kv = ft_block_y(), first_col = ft_block_z() * S::OUT;
    float dk[M][C][4] = {}, dv[M][C][4] = {};
    if (k0 < live) {
        int end[M][2], stage = 0;
        end_queries<M>(j, mine, live, end);
        fetch<D, S::ROWS>(j, keys, values, head_of(j.k, kv, j.d), head_of(j.v, kv, j.d), k0, k1);
        const int q0 = k0 / S::OTHERS * S::OTHERS, q1 = end_query(j, k1 - 1);
        const int tiles = (q1 - q0 + S::OTHERS - 1) / S::OTHERS, all = tiles * j.group;
        fetch_queries<D>(j, queries, douts, kv * j.group, q0, q1);
        ft_copy_commit();
        for (int i = 0; i < all; i++, stage ^= 1) { /* the next tile comes while this one is used */
            const int next = (stage ^ 1) * TILE, t = q0 + i % tiles * S::OTHERS;
            if (i + 1 < all)
                fetch_queries<D>(j, queries + next, douts + next, kv * j.group + (i + 1) / tiles,
                                 q0 + (i + 1) % tiles * S::OTHERS, q1);
            ft_copy_commit();
            ft_copy_wait<1>();
            ft_sync_block();
            bf16 *q = queries + stage * TILE, *dout = douts + stage * TILE;
            float s[M][N][4] = {}, dp[M][N][4] = {};
            ft_tile_nt<D, M, N>(s, my_keys, q);
            ft_tile_nt<D, M, N>(dp, my_values, dout);
            key_gradients<D, M, N>(j, q, mine, t, end, s, dp);
            ft_tile_nn<D, M, N, C>(dv, s, dout + first_col);
            ft_tile_nn<D, M, N, C>(dk, dp, q + first_col);
            ft_sync_block();
        }
    }
    struct ft_rows to_k = head_of(j.dk, kv, j.d), to_v = head_of(j.dv, kv, j.d);
    to_k.p += first_col;
    to_v.p += first_col;
    ft_tile_store<D, M, C>(to_k, mine, j.rows, j.d - first_col, j.wide, dk, my_keys);
    ft_tile_store<D, M, C>(to_v, mine, j.rows, j.d - first_col, j.wide, dv, my_values);
}

/* s and dp of a tile of queries against keys t.. become p and ds. */
template <int M, int N>
FT_DEVICE void query_gradients(const struct attention_job &j, int first_row, int t,
                               const int low[M][2], const float lse[M][2], const float delta[M][2],
                               float s[M][N][4], float dp[M][N][4])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int n = 0; n < N; n++)
        FT_UNROLL
    for (int e = 0; e < 4; e++) {
        const int key = t + 8 * n + ft_fragment_col(e);
        const int row = first_row + 16 * m + ft_fragment_row(e);
        score_gradient(j, key <= row && key >= low[m][e / 2], lse[m][e / 2], delta[m][e / 2],
                       &s[m][n][e], &dp[m][n][e]);
    }
}

/* lse and delta of this thread's rows. */
template <int M>
FT_DEVICE void query_sums(const struct attention_job &j, int first_row, int live, int head,
                          float lse[M][2], float delta[M][2])
{
    FT_UNROLL
    for (int m = 0; m < M; m++)
        FT_UNROLL
    for (int half = 0; half < 2; half++) {
        const int64_t t = first_row + 16 * m + ft_fragment_row(2 * half);
        lse[m][half] = t < live ? j.lse[t * j.heads + head] : 0;
        delta[m][half] = t < live ? j.delta[t * j.heads + head] : 0;
    }
}

/* dq of a tile of queries: all keys they see pass by. */
template <int D, int M>
FT_KERNEL(FT_TILE_THREADS)
backward_queries(struct ft_mark mark, struct attention_job j)
{
    ft_begin(mark);
    using S = backward_shape<D, M>;
    constexpr int N = S::OTHERS / 8, C = S::OUT / 8, TILE = S::OTHERS * S::LD;
    FT_SHARED(bf16, queries);
    bf16 *douts = queries + S::ROWS * S::LD, *keys = douts + S::ROWS * S::LD;
    bf16 *values = keys + 2 * TILE;
    bf16 *my_queries = queries + ft_warp() * 16 * M * S::LD;
    const int live = j.live[FT_ROWS], q0 = (ft_grid_y() - 1 - ft_block_y()) * S::ROWS;
    const int q1 = smaller(q0 + S::ROWS, live), mine = q0 + ft_warp() * 16 * M;
    const int head = (int)ft_block_x(), kv = head / j.group, first_col = ft_block_z() * S::OUT;
    const struct ft_rows k = head_of(j.k, kv, j.d), v = head_of(j.v, kv, j.d);
    float dq[M][C][4] = {};
    if (q0 < live) {
        int low[M][2], stage = 0;
        float lse[M][2], delta[M][2];
        first_keys<M>(j, mine, live, low);
        query_sums<M>(j, mine, live, head, lse, delta);
        const int t0 = first_key(j, q0) / S::OTHERS * S::OTHERS;
        fetch<D, S::ROWS>(j, queries, douts, head_of(j.q, head, j.d), head_of(j.dout, head, j.d),
                          q0, q1);
        fetch<D, S::OTHERS>(j, keys, values, k, v, t0, q1);
        ft_copy_commit();
        for (int t = t0; t < q1; t += S::OTHERS, stage ^= 1) {
            const int next = (stage ^ 1) * TILE, now = stage * TILE;
            if (t + S::OTHERS < q1)
                fetch<D, S::OTHERS>(j, keys + next, values + next, k, v, t + S::OTHERS, q1);
            ft_copy_commit();
            ft_copy_wait<1>();
            ft_sync_block();
            float s[M][N][4] = {}, dp[M][N][4] = {};
            ft_tile_nt<D, M, N>(s, my_queries, keys + now);
            ft_tile_nt<D, M, N>(dp, douts + ft_warp() * 16 * M * S::LD, values + now);
            query_gradients<M, N>(j, mine, t, low, lse, delta, s, dp);
            ft_tile_nn<D, M, N, C>(dq, dp, keys + now + first_col);
            ft_sync_block();
        }
    }
    struct ft_rows to = head_of(j.dq, head, j.d);
    to.p += first_col;
    ft_tile_store<D, M, C>(to, mine, j.rows, j.d - first_col, j.wide, dq, my_queries);
}

/* --- the host's side --- */

static int blocks(int rows, int size)
{
    return (rows + size - 1) / size;
}

template <int D> static void run_forward(const struct ft_kernel_ctx *ctx, struct attention_job j)
{
    using S = forward_shape<D>;
    ft_launch(ctx, forward<D>, ft_grid{j.heads, blocks(j.rows, S::ROWS), 1}, FT_TILE_THREADS,
              S::SHARED, j);
}

template <int D, int M>
static void run_queries(const struct ft_kernel_ctx *ctx, struct attention_job j)
{
    using S = backward_shape<D, M>;
    ft_launch(ctx, backward_queries<D, M>, ft_grid{j.heads, blocks(j.rows, S::ROWS), D / S::OUT},
              FT_TILE_THREADS, S::SHARED, j);
}

template <int D> static void run_backward(const struct ft_kernel_ctx *ctx, struct attention_job j)
{
    using S = keys_shape<D>;
    constexpr int MOST = D <= 128 ? 2 : 1; /* by registers; by shared memory it depends */
    ft_launch(ctx, row_delta, ft_grid{j.rows, 1, 1}, FT_TILE_THREADS, 0, j);
    ft_launch(ctx, backward_keys<D>,
              ft_grid{blocks(j.rows, S::ROWS), j.heads / j.group, D / S::OUT}, FT_TILE_THREADS,
              S::SHARED, j);
    if (backward_shape<D, MOST>::SHARED <= ft_cuda_of(ctx)->shared_limit)
        run_queries<D, MOST>(ctx, j);
    else
        run_queries<D, 1>(ctx, j);
}

/* The head sizes with kernels of their own; others take the next one and pad with zeros. */
static const struct {
    int d;
    void (*forward)(const struct ft_kernel_ctx *, struct attention_job);
    void (*backward)(const struct ft_kernel_ctx *, struct attention_job);
} sizes[] = {
    {32, run_forward<32>, run_backward<32>},    {64, run_forward<64>, run_backward<64>},
    {96, run_forward<96>, run_backward<96>},    {128, run_forward<128>, run_backward<128>},
    {192, run_forward<192>, run_backward<192>}, {256, run_forward<256>, run_backward<256>},
};

static int size_for(int d)
{
    int i = 0;
    while (sizes[i].d < d)
        i++;
    return i;
}

void ft_cuda_attention(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_attention_args *a = &args->attention;
    struct attention_job j = {};
    j.q = ft_rows_of(a->q);
    j.k = ft_rows_of(a->k);
    j.v = ft_rows_of(a->v);
    j.o = ft_rows_of(a->o);
    j.lse = (float *)a->lse->data;
    j.sinks = a->sinks ? a->sinks->data : NULL;
    j.sinks_f32 = a->sinks && a->sinks->dtype == FT_F32;
    j.spans = (const int32_t *)a->spans->data;
    j.live = ctx->live;
    j.rows = (int)ft_launch_rows(ctx, a->q);
    j.heads = a->heads;
    j.group = a->heads / a->kv_heads;
    j.d = a->head_dim;
    j.window = a->window;
    j.scale = a->scale;
    j.softcap = a->softcap;
    j.wide = ft_is_wide(a->q, a->k, a->v, a->o) && j.d % 8 == 0;
    if (a->cached) {
        j.cached = (const int32_t *)a->cached->data;
        ft_launch(ctx, forward_cached, ft_grid{j.rows, j.heads, 1}, FT_TILE_THREADS,
                  FT_TILE_WARPS * (FT_HEAD_DIM_MAX + 2) * sizeof(float), j);
        return;
    }
    sizes[size_for(j.d)].forward(ctx, j);
}

size_t ft_cuda_attention_dx_scratch(const union ft_op_args *args)
{
    const struct ft_attention_dx_args *a = &args->attention_dx;
    return (size_t)a->q->rows * (size_t)a->heads * sizeof(float);
}

void ft_cuda_attention_dx(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_attention_dx_args *a = &args->attention_dx;
    struct attention_job j = {};
    j.q = ft_rows_of(a->q);
    j.k = ft_rows_of(a->k);
    j.v = ft_rows_of(a->v);
    j.o = ft_rows_of(a->o);
    j.dout = ft_rows_of(a->dout);
    j.dq = ft_rows_of(a->dq);
    j.dk = ft_rows_of(a->dk);
    j.dv = ft_rows_of(a->dv);
    j.lse = (float *)a->lse->data;
    j.delta = (float *)ctx->scratch;
    j.spans = (const int32_t *)a->spans->data;
    j.live = ctx->live;
    j.rows = (int)ft_launch_rows(ctx, a->q);
    j.heads = a->heads;
    j.group = a->heads / a->kv_heads;
    j.d = a->head_dim;
    j.window = a->window;
    j.scale = a->scale;
    j.softcap = a->softcap;
    j.wide = ft_is_wide(a->q, a->k, a->v, a->dout, a->dq, a->dk, a->dv) && j.d % 8 == 0;
    sizes[size_for(j.d)].backward(ctx, j);
}
