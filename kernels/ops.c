/* Owns the op table: what each op may overwrite, its cost and shape checks. */
#include "kernels/backend.h"

#include "core/status.h"

static bool is(const struct ft_tensor *t, int64_t rows, int64_t cols)
{
    return t->rows == rows && t->cols == cols;
}

static bool same(const struct ft_tensor *a, const struct ft_tensor *b)
{
    return is(a, b->rows, b->cols) && a->extent == b->extent;
}

static struct ft_cost cost(double flops, double elements)
{
    return (struct ft_cost){flops, 4 * elements};
}

static int64_t rows_of(const struct ft_tensor *t, const int64_t *n)
{
    return t->extent ? n[t->extent] : t->rows;
}

static double size_of(const struct ft_tensor *t, const int64_t *n)
{
    return t ? (double)rows_of(t, n) * (double)t->cols : 0;
}

/* The size of a stored operand, in f32 elements. */
static double stored(const struct ft_tensor *t)
{
    return t ? (double)ft_tensor_bytes(t) / 4 : 0;
}

static void embed_check(const union ft_op_args *a)
{
    const struct ft_embed *e = &a->embed;
    FT_ASSERT(is(e->ids, e->y->rows, 1) && e->ids->dtype == FT_I32 && e->y->cols == e->w->cols);
}

static struct ft_cost embed_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(0, 1.5 * size_of(a->embed.y, n));
}

static void rmsnorm_check(const union ft_op_args *a)
{
    const struct ft_rmsnorm *r = &a->rmsnorm;
    FT_ASSERT(same(r->x, r->y) && is(r->w, 1, r->x->cols) && is(r->rstd, r->x->rows, 1));
    FT_ASSERT(r->x->cols <= FT_NORM_COLS_MAX);
}

static struct ft_cost rmsnorm_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(4 * size_of(a->rmsnorm.x, n), 2 * size_of(a->rmsnorm.x, n));
}

static void rmsnorm_dx_check(const union ft_op_args *a)
{
    const struct ft_rmsnorm_dx *r = &a->rmsnorm_dx;
    FT_ASSERT(same(r->x, r->dy) && same(r->x, r->dx) && is(r->w, 1, r->x->cols));
    FT_ASSERT(is(r->rstd, r->x->rows, 1) && (!r->add || same(r->add, r->x)));
}

static struct ft_cost rmsnorm_dx_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(9 * size_of(a->rmsnorm_dx.x, n), 4 * size_of(a->rmsnorm_dx.x, n));
}

static void linear_check(const union ft_op_args *a)
{
    const struct ft_linear *l = &a->linear;
    FT_ASSERT(is(l->w, l->y->cols, l->x->cols) && l->x->rows == l->y->rows);
    FT_ASSERT(!l->bias || is(l->bias, 1, l->y->cols));
    FT_ASSERT(!l->add || same(l->add, l->y));
    FT_ASSERT(!l->u == !l->b);
    FT_ASSERT(!l->u || (is(l->b, l->y->cols, l->u->cols) && l->u->rows == l->y->rows));
}

static struct ft_cost linear_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_linear *l = &a->linear;
    double k = (double)l->x->cols + (l->u ? (double)l->u->cols : 0);
    return cost(2 * size_of(l->y, n) * k,
                size_of(l->x, n) + size_of(l->y, n) + stored(l->w) + stored(l->b));
}

static void linear_dx_check(const union ft_op_args *a)
{
    const struct ft_linear_dx *l = &a->linear_dx;
    FT_ASSERT(is(l->w, l->dy->cols, l->dx->cols) && l->dx->rows == l->dy->rows);
    FT_ASSERT(!l->add || same(l->add, l->dx));
    FT_ASSERT(!l->du == !l->a);
    FT_ASSERT(!l->du || (is(l->a, l->du->cols, l->dx->cols) && l->du->rows == l->dx->rows));
}

static struct ft_cost linear_dx_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_linear_dx *l = &a->linear_dx;
    double k = (double)l->dy->cols + (l->du ? (double)l->du->cols : 0);
    return cost(2 * size_of(l->dx, n) * k,
                size_of(l->dx, n) + size_of(l->dy, n) + stored(l->w) + stored(l->a));
}

static void linear_dw_check(const union ft_op_args *a)
{
    const struct ft_linear_dw *l = &a->linear_dw;
    FT_ASSERT(is(l->dw, l->dy->cols, l->x->cols) && l->x->rows == l->dy->rows);
    FT_ASSERT(l->dw->dtype == FT_F32);
}

static struct ft_cost linear_dw_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_linear_dw *l = &a->linear_dw;
    return cost(2 * size_of(l->x, n) * (double)l->dy->cols,
                size_of(l->x, n) + size_of(l->dy, n) + 2 * stored(l->dw));
}

static void rope_check(const union ft_op_args *a)
{
    const struct ft_rope *r = &a->rope;
    FT_ASSERT(same(r->x, r->y) && r->x->cols >= (int64_t)r->heads * r->head_dim);
    FT_ASSERT(same(r->cos, r->sin) && is(r->angles, r->x->rows, 1));
    FT_ASSERT(r->cos->cols >= 1 && 2 * r->cos->cols <= r->head_dim);
}

static struct ft_cost rope_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(3 * size_of(a->rope.x, n), 2 * size_of(a->rope.x, n));
}

static void attention_check(const union ft_op_args *a)
{
    const struct ft_attention *t = &a->attention;
    FT_ASSERT(same(t->q, t->o) && same(t->k, t->v) && t->heads % t->kv_heads == 0);
    FT_ASSERT(is(t->q, t->k->rows, (int64_t)t->heads * t->head_dim));
    FT_ASSERT(t->head_dim <= FT_HEAD_DIM_MAX && t->heads / t->kv_heads <= FT_HEAD_GROUP_MAX);
    FT_ASSERT(t->k->cols == (int64_t)t->kv_heads * t->head_dim &&
              is(t->lse, t->q->rows, t->heads) && is(t->spans, t->q->rows, 2));
}

/* Keys that a row sees on average, where all documents are of one length. */
static double seen_keys(const int64_t *n, int window)
{
    const int64_t docs = n[FT_DOCUMENTS];
    double half = (double)n[FT_ROWS] / (double)(docs > 0 ? docs : 1) / 2;
    return window > 0 && window < half ? window : half;
}

static struct ft_cost attention_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_attention *t = &a->attention;
    double seen = seen_keys(n, t->window);
    return cost(4 * size_of(t->q, n) * seen, 2 * (size_of(t->q, n) + size_of(t->k, n)));
}

static void attention_dx_check(const union ft_op_args *a)
{
    const struct ft_attention_dx *t = &a->attention_dx;
    FT_ASSERT(same(t->q, t->o) && same(t->k, t->v) && same(t->dq, t->q) && same(t->dout, t->o));
    FT_ASSERT(same(t->dk, t->k) && same(t->dv, t->v) && is(t->lse, t->q->rows, t->heads));
}

static struct ft_cost attention_dx_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_attention_dx *t = &a->attention_dx;
    double seen = seen_keys(n, t->window);
    return cost(10 * size_of(t->q, n) * seen, 4 * size_of(t->q, n) + 4 * size_of(t->k, n));
}

static void swiglu_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->swiglu.gate, a->swiglu.up) && same(a->swiglu.gate, a->swiglu.y));
}

static struct ft_cost swiglu_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(12 * size_of(a->swiglu.y, n), 3 * size_of(a->swiglu.y, n));
}

static void swiglu_dx_check(const union ft_op_args *a)
{
    const struct ft_swiglu_dx *s = &a->swiglu_dx;
    FT_ASSERT(same(s->gate, s->up) && same(s->gate, s->dy) && same(s->gate, s->dgate) &&
              same(s->gate, s->dup));
}

static struct ft_cost swiglu_dx_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(20 * size_of(a->swiglu_dx.dy, n), 5 * size_of(a->swiglu_dx.dy, n));
}

static void dropout_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->dropout.x, a->dropout.y) && is(a->dropout.keys, a->dropout.x->rows, 3));
}

static struct ft_cost dropout_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(20 * size_of(a->dropout.x, n), 2 * size_of(a->dropout.x, n));
}

static void add_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->add.a, a->add.b) && same(a->add.a, a->add.y));
}

static struct ft_cost add_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(size_of(a->add.y, n), 3 * size_of(a->add.y, n));
}

static void head_loss_check(const union ft_op_args *a)
{
    const struct ft_head_loss *h = &a->head_loss;
    FT_ASSERT(h->w->cols == h->h->cols && is(h->targets, h->h->rows, 1) &&
              is(h->picked, h->h->rows, 1));
    FT_ASSERT((!h->dh || same(h->dh, h->h)) && h->scalars->cols == FT_SCALARS);
}

static struct ft_cost head_loss_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_head_loss *h = &a->head_loss;
    double logits = (double)rows_of(h->h, n) * (double)h->w->rows;
    double products = 2 * logits * (double)h->h->cols;
    return cost((h->dh ? 2 : 1) * products + 15 * logits, stored(h->w) * 2 + 4 * logits);
}

static void grad_norm_check(const union ft_op_args *a)
{
    FT_ASSERT(a->grad_norm.grad->rows == 1 && a->grad_norm.scalars->cols == FT_SCALARS);
}

static struct ft_cost grad_norm_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(2 * size_of(a->grad_norm.grad, n), size_of(a->grad_norm.grad, n));
}

static void adamw_check(const union ft_op_args *a)
{
    const struct ft_adamw *o = &a->adamw;
    FT_ASSERT(same(o->p, o->grad) && same(o->p, o->m) && same(o->p, o->v));
}

static struct ft_cost adamw_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(15 * size_of(a->adamw.p, n), 8 * size_of(a->adamw.p, n));
}

static void sgd_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->sgd.p, a->sgd.grad) && (!a->sgd.mom || same(a->sgd.p, a->sgd.mom)));
}

static void refresh_check(const union ft_op_args *a)
{
    FT_ASSERT(a->refresh.values->dtype == FT_F32 && a->refresh.table->cols == FT_SEGMENT);
}

static struct ft_cost refresh_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(0, 1.5 * size_of(a->refresh.values, n));
}

static struct ft_cost sgd_cost(const union ft_op_args *a, const int64_t *n)
{
    return cost(6 * size_of(a->sgd.p, n), 6 * size_of(a->sgd.p, n));
}

enum {
#define X(name, ins, outs) INS_##name = ins, OUTS_##name = outs,
    FT_OPS(X)
#undef X
};

#define END                                                                                        \
    {                                                                                              \
        -1, -1                                                                                     \
    }
#define ROW(op, ...) [FT_OP_##op] = {#op, INS_##op, OUTS_##op, {__VA_ARGS__}, op##_cost, op##_check}

const struct ft_op_row ft_op_rows[FT_OP_COUNT] = {
    ROW(embed, END),
    ROW(rmsnorm, END),
    ROW(rmsnorm_dx, {0, 4}, {0, 0}, END),
    ROW(linear, {0, 3}, END),
    ROW(linear_dx, {0, 2}, END),
    ROW(linear_dw, END),
    ROW(rope, {0, 0}, END),
    ROW(attention, END),
    ROW(attention_dx, END),
    ROW(swiglu, {0, 0}, {0, 1}, END),
    ROW(swiglu_dx, {0, 0}, {1, 1}, END),
    ROW(dropout, {0, 0}, {0, 2}, END),
    ROW(add, {0, 0}, {0, 1}, END),
    ROW(head_loss, END),
    ROW(grad_norm, END),
    ROW(adamw, END),
    ROW(sgd, END),
    ROW(refresh, END),
};
