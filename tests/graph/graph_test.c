/* The graph: fusing, recompute, the memory plan. */
#include "core/clock.h"
#include "core/mem.h"
#include "graph/graph.h"
#include "tests/check.h"
#include "core/status.h"

#include <math.h>

enum { T = 8, C = 16, V = 11, R = 2 };

struct tiny {
    struct ft_graph *g;
    struct ft_tensor *ids, *targets, *picked, *embed, *norm, *w1, *w2, *a, *b, *grad, *scalars,
        *loss_h;
    struct ft_plan plan;
    int fused;
};

static struct ft_tensor *norm(const struct tiny *t, struct ft_tensor *x)
{
    return ft_norm(t->g, (struct ft_norm_args){.x = x, .w = t->norm, .eps = 1e-5f}, 1, false);
}

static void declare(struct tiny *t)
{
    t->ids = ft_graph_input(t->g, "ids", FT_I32, T, 1, FT_ROWS);
    t->targets = ft_graph_input(t->g, "targets", FT_I32, T, 1, FT_ROWS);
    t->picked = ft_graph_input(t->g, "picked", FT_I32, T, 1, FT_ROWS);
    t->scalars = ft_graph_input(t->g, "scalars", FT_F64, 1, FT_SCALARS, FT_FIXED);
    t->embed = ft_graph_value(t->g, FT_M_WEIGHTS, "embed", FT_F32, V, C);
    t->norm = ft_graph_value(t->g, FT_M_WEIGHTS, "norm", FT_F32, 1, C);
    t->w1 = ft_graph_value(t->g, FT_M_WEIGHTS, "w1", FT_F32, C, C);
    t->w2 = ft_graph_value(t->g, FT_M_WEIGHTS, "w2", FT_F32, C, C);
    t->a = ft_graph_value(t->g, FT_M_ADAPTER, "a", FT_F32, R, C);
    t->b = ft_graph_value(t->g, FT_M_ADAPTER, "b", FT_F32, C, R);
    t->grad = ft_graph_value(t->g, FT_M_GRADIENT, "grad", FT_F32, 1, 2 * R * C);
    ft_graph_train(t->g, t->a, 0, 0, ft_graph_view(t->g, t->grad, "da", R, C, 0), 1);
    ft_graph_train(t->g, t->b, 0, 0, ft_graph_view(t->g, t->grad, "db", C, R, R * C), 1);
}

/* embed -> layers of norm -> linear + LoRA -> (added to the input) -> norm -> head */
static void forward(struct tiny *t, int layers)
{
    struct ft_tensor *h =
        ft_embed(t->g, (struct ft_embed_args){.ids = t->ids, .w = t->embed, .scale = 1, .pad = -1});
    for (int l = 0; l < layers; l++) {
        ft_graph_layer(t->g, l, h);
        struct ft_tensor *x = norm(t, h);
        struct ft_tensor *gate = ft_linear(t->g, x, t->w1, NULL, NULL, 1);
        struct ft_tensor *u = ft_linear(t->g, x, t->a, NULL, NULL, 1);
        struct ft_tensor *up =
            ft_linear(t->g, u, t->b, NULL, ft_linear(t->g, x, t->w2, NULL, NULL, 1), 0.5f);
        h = ft_linear(t->g, ft_glu(t->g, gate, up, FT_SILU), t->w1, NULL, h, 1);
    }
    ft_graph_layer(t->g, -1, h);
    ft_head_loss(t->g, (struct ft_head_loss_args){.h = norm(t, h),
                                                  .w = t->embed,
                                                  .targets = t->targets,
                                                  .picked = t->picked,
                                                  .scalars = t->scalars,
                                                  .scale = 1});
}

static void build(struct tiny *t, enum ft_recompute policy, bool fuse)
{
    const struct ft_backend *b;
    FT_ASSERT(ft_cpu_backend(&b, "auto", false) == FT_OK);
    FT_ASSERT(ft_graph_new(&t->g, b) == FT_OK);
    declare(t);
    ft_graph_begin(t->g, FT_PASS);
    forward(t, 2);
    t->fused = fuse ? ft_graph_fuse(t->g, FT_PASS) : 0;
    ft_graph_backward(t->g, policy);
    t->fused += fuse ? ft_graph_fuse(t->g, FT_PASS) : 0;
    CHECK_INT(ft_graph_plan(t->g, &t->plan), FT_OK);
}

static void fill(struct ft_tensor *t, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1;
    for (int64_t i = 0; i < t->rows * t->cols; i++) {
        state = state * 1664525u + 1013904223u;
        ((float *)t->data)[i] = (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
}

/* Loss after filling everything; gradients are in t->grad. */
static double run(struct tiny *t, struct ft_pool *pool, float bump, int which)
{
    int32_t *ids = t->ids->data, *targets = t->targets->data;
    double *s = t->scalars->data;
    fill(t->embed, 1);
    fill(t->norm, 2);
    fill(t->w1, 3);
    fill(t->w2, 4);
    fill(t->a, 5);
    fill(t->b, 6);
    if (which >= 0)
        ((float *)(which < R * C ? t->a : t->b)->data)[which % (R * C)] += bump;
    memset(t->grad->data, 0, ft_tensor_bytes(t->grad));
    struct ft_run r = {.counts = {[FT_ROWS] = T - 1, [FT_DOCUMENTS] = 1}};
    for (int i = 0; i < T; i++) {
        ids[i] = i * 5 % V;
        targets[i] = i == 3 ? -1 : i * 7 % V;
        if (i != 3 && i < T - 1)
            ((int32_t *)t->picked->data)[r.counts[FT_TRAINED]++] = i;
    }
    s[FT_S_LOSS_SUM] = s[FT_S_TRAINED] = 0;
    ft_graph_poison(t->g);
    CHECK_INT(ft_graph_run(t->g, FT_PASS, pool, &r, NULL), FT_OK);
    return s[FT_S_LOSS_SUM];
}

static void open_graph(struct tiny *t, enum ft_recompute policy, bool fuse)
{
    build(t, policy, fuse);
    CHECK_INT(ft_graph_place(t->g), FT_OK);
}

CASE(gradients_match_finite_differences)
{
    struct tiny t = {0};
    struct ft_pool *pool;
    FT_ASSERT(ft_pool_new(&pool, 2) == FT_OK);
    open_graph(&t, FT_RECOMPUTE_CHEAP, true);
    for (int i = 0; i < 2 * R * C; i += 3) {
        double up = run(&t, pool, 1e-2f, i), down = run(&t, pool, -1e-2f, i);
        run(&t, pool, 0, -1);
        double got = (double)((float *)t.grad->data)[i], want = (up - down) / 2e-2;
        CHECK_NEAR(got, want, 2e-3 + 2e-2 * fabs(want));
    }
    ft_graph_free(t.g);
    ft_pool_free(pool);
}

CASE(policies_and_fusing_change_memory_and_no_bit)
{
    struct ft_pool *pool;
    float want[2 * R * C];
    double loss = 0;
    size_t kept = 0;
    FT_ASSERT(ft_pool_new(&pool, 1) == FT_OK);
    for (int policy = FT_KEEP_ALL; policy <= FT_RECOMPUTE_LAYER; policy++)
        for (int fuse = 0; fuse < 2; fuse++) {
            struct tiny t = {0};
            open_graph(&t, (enum ft_recompute)policy, fuse);
            double now = run(&t, pool, 0, -1);
            if (policy == 0 && fuse == 0) {
                memcpy(want, t.grad->data, sizeof want);
                loss = now;
            }
            CHECK(now == loss && memcmp(want, t.grad->data, sizeof want) == 0);
            CHECK_INT(t.fused > 0, fuse);
            if (policy == FT_KEEP_ALL)
                kept = t.plan.used[FT_M_PASS];
            else
                CHECK(t.plan.used[FT_M_PASS] <= kept);
            CHECK(t.plan.total >= t.plan.used[FT_M_WEIGHTS] + t.plan.used[FT_M_PASS]);
            ft_graph_free(t.g);
        }
    ft_pool_free(pool);
}

CASE(nothing_is_computed_below_the_first_adapter)
{
    /* the embedding's and the first norm's gradients are not asked for */
    struct tiny t = {0};
    double flops[FT_OP_COUNT] = {0};
    build(&t, FT_KEEP_ALL, true);
    ft_graph_cost(t.g, FT_PASS, &(struct ft_run){.counts = {[FT_ROWS] = T, [FT_DOCUMENTS] = 1}},
                  flops);
    CHECK(flops[FT_OP_norm_dx] == 9.0 * T * C * 2); /* the last norm's and the second layer's */
    ft_graph_free(t.g);
}

/* As many values as the deepest models have: planned in a moment, in no more than what lives at the
 * peak. */
CASE(a_hundred_thousand_values_are_placed)
{
    enum { LAYERS = 3600 };
    const struct ft_backend *b;
    struct tiny t = {0};
    FT_ASSERT(ft_cpu_backend(&b, "auto", false) == FT_OK);
    FT_ASSERT(ft_graph_new(&t.g, b) == FT_OK);
    declare(&t);
    ft_graph_begin(t.g, FT_PASS);
    forward(&t, LAYERS);
    ft_graph_fuse(t.g, FT_PASS);
    ft_graph_backward(t.g, FT_RECOMPUTE_CHEAP);
    ft_graph_fuse(t.g, FT_PASS);
    const double start = ft_now();
    CHECK_INT(ft_graph_plan(t.g, &t.plan), FT_OK);
    printf("  %d values placed in %.2f s\n", t.plan.values, ft_now() - start);
    CHECK(t.plan.values >= 100000);
    /* kept of a layer: its input, gate and up, and less of u and of the norm's sum */
    const size_t kept = (size_t)LAYERS * 3 * T * C * sizeof(float);
    CHECK(t.plan.used[FT_M_PASS] > kept && t.plan.used[FT_M_PASS] < 2 * kept);
    ft_graph_free(t.g);
}
