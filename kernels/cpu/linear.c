/* linear, linear_dx, linear_dw: the ops that are matrix products. */
#include "kernels/cpu/unit.h"

/* Biases are stored weights too; the few that are not f32 are widened behind the words. */
static const float *bias_f32(const struct ft_tensor *bias, float *room)
{
    if (!bias || bias->dtype == FT_F32)
        return bias ? bias->data : NULL;
    BASE(widen_row)(room, bias, 0);
    return room;
}

/* Of a product of experts: an activation's rows from `first` on, and the e-th of the matrices that
 * lie below each other in a weight. NULL stays NULL. */
static struct ft_tensor *rows_from(struct ft_tensor *room, const struct ft_tensor *t, int64_t first)
{
    if (!t)
        return NULL;
    *room = *t;
    room->data = (float *)t->data + first * ft_tensor_ld(t);
    return room;
}

static struct ft_tensor *matrix(struct ft_tensor *room, const struct ft_tensor *t, int64_t experts,
                                int64_t e)
{
    if (!t)
        return NULL;
    *room = ft_tensor_part(t, experts, e);
    return room;
}

/* The rows of w that read through one mask at a time. */
static void masked_linear(const struct ft_kernel_ctx *ctx, const struct ft_linear_args *l,
                          struct ft_gemm g)
{
    const int64_t n = ft_masks(l->mask, l->x->cols), per = l->w->rows / n;
    g.n = per;
    g.mask_ld = ft_tensor_ld(l->mask);
    for (int64_t i = 0; i < n; i++) {
        g.a_mask = (const uint8_t *)l->mask->data + i * (l->mask->cols / n);
        g.b[0] = ft_operand_below(ft_operand_of(l->w, true, l->alpha), i * per);
        g.c = (float *)l->y->data + i * per;
        K(gemm)(ctx->pool, ctx->scratch, &g);
    }
}

/* Whether a product of x with w, and of `low` besides, left the words that g begins with; it wrote
 * y. */
static bool left_words(const struct ft_kernel_ctx *ctx, const struct ft_gemm *g,
                       const struct ft_tensor *x, const struct ft_tensor *low,
                       const struct ft_operand *w, const struct ft_tensor *y)
{
    const int64_t k[2] = {x->cols, low ? low->cols : 0};
    return ctx->before.scratch == ctx->scratch && x->data == g->a[0] &&
           ft_tensor_ld(x) == g->a_rs[0] && x->cols == g->k[0] && ft_live_rows(ctx, y) == g->m &&
           K(gemm_leaves)(g, k, w);
}

/* Whether the op before did: queries, keys and values read the same rows, and so do a gradient's
 * low-rank and base products. */
static bool after_linear(const struct ft_kernel_ctx *ctx, const struct ft_gemm *g)
{
    const struct ft_linear_args *l = (const struct ft_linear_args *)ctx->before.args;
    if (!l || ctx->before.op != FT_OP_linear || l->mask || l->offsets)
        return false;
    const struct ft_operand w = ft_operand_of(l->w, true, l->alpha);
    return left_words(ctx, g, l->x, l->u, &w, l->y);
}

static bool after_linear_dx(const struct ft_kernel_ctx *ctx, const struct ft_gemm *g)
{
    const struct ft_linear_dx_args *l = (const struct ft_linear_dx_args *)ctx->before.args;
    if (!l || ctx->before.op != FT_OP_linear_dx || l->mask || l->offsets)
        return false;
    const struct ft_operand w = ft_operand_of(l->w, false, l->alpha);
    return left_words(ctx, g, l->dy, l->du, &w, l->dx);
}

static void product(const struct ft_kernel_ctx *ctx, const struct ft_linear_args *l, int64_t rows)
{
    int64_t low = l->u ? l->u->cols : 0;
    float *room = (float *)((char *)ctx->scratch + FT_GEMM_SCRATCH);
    struct ft_gemm g = {
        .m = rows,
        .n = l->y->cols,
        .k = {l->x->cols, low},
        .a = {l->x->data, low ? l->u->data : NULL},
        .a_rs = {ft_tensor_ld(l->x), low ? ft_tensor_ld(l->u) : 0},
        .a_cs = {1, 1},
        .b = {ft_operand_of(l->w, true, l->alpha)},
        .add = l->add ? l->add->data : NULL,
        .ldadd = l->add ? ft_tensor_ld(l->add) : 0,
        .bias = bias_f32(l->bias, room),
        .c = l->y->data,
        .ldc = ft_tensor_ld(l->y),
    };
    if (low)
        g.b[1] = ft_operand_of(l->b, true, l->beta);
    g.again = !l->mask && after_linear(ctx, &g);
    if (l->mask)
        masked_linear(ctx, l, g);
    else if (ctx->counts[FT_KEYS] > 0 && g.m > 0 && g.m <= FT_FEW)
        BASE(few)(ctx->pool, &g);
    else
        K(gemm)(ctx->pool, ctx->scratch, &g);
}

void K(linear)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_linear_args *l = &args->linear;
    const int64_t experts = ft_experts(l->offsets);
    const int32_t *at = l->offsets ? l->offsets->data : NULL;
    if (!at)
        product(ctx, l, ft_live_rows(ctx, l->y));
    for (int64_t e = 0; at && e < experts; e++) {
        struct ft_tensor t[7];
        struct ft_linear_args own = {.x = rows_from(&t[0], l->x, at[e]),
                                     .w = matrix(&t[1], l->w, experts, e),
                                     .bias = matrix(&t[2], l->bias, experts, e),
                                     .add = rows_from(&t[3], l->add, at[e]),
                                     .u = rows_from(&t[4], l->u, at[e]),
                                     .b = matrix(&t[5], l->b, experts, e),
                                     .y = rows_from(&t[6], l->y, at[e]),
                                     .alpha = l->alpha,
                                     .beta = l->beta};
        if (at[e + 1] > at[e])
            product(ctx, &own, at[e + 1] - at[e]);
    }
}

/* The first part of the second product with the first product, the others added to that. */
static void masked_linear_dx(const struct ft_kernel_ctx *ctx, const struct ft_linear_dx_args *l,
                             struct ft_gemm g)
{
    const int64_t n = ft_masks(l->mask, l->dx->cols), per = g.k[1] / n;
    const struct ft_operand low = g.b[1];
    const float *du = g.a[1];
    g.k[1] = per;
    g.mask_ld = ft_tensor_ld(l->mask);
    for (int64_t i = 0; i < n; i++) {
        g.c_mask = (const uint8_t *)l->mask->data + i * (l->mask->cols / n);
        g.a[1] = du + i * per;
        g.b[1] = ft_operand_below(low, i * per);
        K(gemm)(ctx->pool, ctx->scratch, &g);
        g.k[0] = 0;
        g.add = g.c;
        g.ldadd = g.ldc;
    }
}

static void product_dx(const struct ft_kernel_ctx *ctx, const struct ft_linear_dx_args *l,
                       int64_t rows)
{
    int64_t low = l->du ? l->du->cols : 0;
    struct ft_gemm g = {
        .m = rows,
        .n = l->dx->cols,
        .k = {l->dy->cols, low},
        .a = {l->dy->data, low ? l->du->data : NULL},
        .a_rs = {ft_tensor_ld(l->dy), low ? ft_tensor_ld(l->du) : 0},
        .a_cs = {1, 1},
        .b = {ft_operand_of(l->w, false, l->alpha)},
        .add = l->add ? l->add->data : NULL,
        .ldadd = l->add ? ft_tensor_ld(l->add) : 0,
        .c = l->dx->data,
        .ldc = ft_tensor_ld(l->dx),
    };
    if (low)
        g.b[1] = ft_operand_of(l->a, false, l->beta);
    if (l->mask && !low) { /* what is masked is the second product */
        g.k[1] = g.k[0];
        g.a[1] = g.a[0];
        g.a_rs[1] = g.a_rs[0];
        g.b[1] = g.b[0];
        g.k[0] = 0;
    }
    g.again = !l->mask && after_linear_dx(ctx, &g);
    if (l->mask)
        masked_linear_dx(ctx, l, g);
    else
        K(gemm)(ctx->pool, ctx->scratch, &g);
}

void K(linear_dx)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_linear_dx_args *l = &args->linear_dx;
    const int64_t experts = ft_experts(l->offsets);
    const int32_t *at = l->offsets ? l->offsets->data : NULL;
    if (!at)
        product_dx(ctx, l, ft_live_rows(ctx, l->dx));
    for (int64_t e = 0; at && e < experts; e++) {
        struct ft_tensor t[6];
        struct ft_linear_dx_args own = {.dy = rows_from(&t[0], l->dy, at[e]),
                                        .w = matrix(&t[1], l->w, experts, e),
                                        .add = rows_from(&t[2], l->add, at[e]),
                                        .du = rows_from(&t[3], l->du, at[e]),
                                        .a = matrix(&t[4], l->a, experts, e),
                                        .dx = rows_from(&t[5], l->dx, at[e]),
                                        .alpha = l->alpha,
                                        .beta = l->beta};
        if (at[e + 1] > at[e])
            product_dx(ctx, &own, at[e + 1] - at[e]);
    }
}

/* The larger side of dw is taken as the rows. A much larger one, as of an adapter, that would have
 * to become words first is packed instead, as it is multiplied. */
static void product_dw(const struct ft_kernel_ctx *ctx, const struct ft_linear_dw_args *l,
                       int64_t depth)
{
    if (!depth) {
        for (int64_t n = 0; l->fresh && n < l->dw->rows; n++)
            memset((float *)l->dw->data + n * ft_tensor_ld(l->dw), 0,
                   (size_t)l->dw->cols * sizeof(float));
        return;
    }
    const bool wide = l->dw->cols > l->dw->rows;
    const int64_t large = wide ? l->dw->cols : l->dw->rows,
                  small = l->dw->rows + l->dw->cols - large;
    const bool flip = l->mask || (WORD > 1 && large >= 8 * small ? !wide : wide);
    const struct ft_tensor *rows = flip ? l->x : l->dy, *cols = flip ? l->dy : l->x;
    const int64_t ld = ft_tensor_ld(l->dw);
    float *dw = l->dw->data, *aside = (float *)((char *)ctx->scratch + FT_GEMM_SCRATCH);
    struct ft_gemm g = {
        .m = rows->cols,
        .n = cols->cols,
        .k = {depth},
        .a = {rows->data},
        .a_rs = {1},
        .a_cs = {ft_tensor_ld(rows)},
        .b = {ft_operand_of(cols, false, l->alpha)},
        .add = flip || l->fresh ? NULL : dw,
        .ldadd = ld,
        .c = flip ? aside : dw,
        .ldc = flip ? cols->cols : ld,
    };
    if (l->mask) { /* x is the rows then */
        g.a_mask = l->mask->data;
        g.mask_ld = ft_tensor_ld(l->mask);
    }
    K(gemm)(ctx->pool, ctx->scratch, &g);
    for (int64_t n = 0; flip && n < l->dw->rows; n++)
        for (int64_t k = 0; k < l->dw->cols; k++)
            dw[n * ld + k] = (l->fresh ? 0 : dw[n * ld + k]) + aside[k * l->dw->rows + n];
}

void K(linear_dw)(const struct ft_kernel_ctx *ctx, const union ft_op_args *args)
{
    const struct ft_linear_dw_args *l = &args->linear_dw;
    const int64_t experts = ft_experts(l->offsets);
    const int32_t *at = l->offsets ? l->offsets->data : NULL;
    if (!at)
        product_dw(ctx, l, ft_live_rows(ctx, l->x));
    for (int64_t e = 0; at && e < experts; e++) {
        struct ft_tensor t[3];
        struct ft_linear_dw_args own = {.dy = rows_from(&t[0], l->dy, at[e]),
                                        .x = rows_from(&t[1], l->x, at[e]),
                                        .dw = matrix(&t[2], l->dw, experts, e),
                                        .alpha = l->alpha,
                                        .fresh = l->fresh};
        if (at[e + 1] > at[e] || l->fresh)
            product_dw(ctx, &own, at[e + 1] - at[e]);
    }
}
