/* Owns the op table: what each op may overwrite, what it costs, its shape checks. */
#include "kernels/backend.h"

#include "core/quant.h"
#include "core/status.h"

static bool is(const struct ft_tensor *t, int64_t rows, int64_t cols)
{
    return t->rows == rows && t->cols == cols;
}

static bool same(const struct ft_tensor *a, const struct ft_tensor *b)
{
    return is(a, b->rows, b->cols) && a->extent == b->extent;
}

static bool same_or_none(const struct ft_tensor *a, const struct ft_tensor *b)
{
    return !a || same(a, b);
}

/* --- cost --- */

static double rows_of(const struct ft_tensor *t, const int64_t *n)
{
    return (double)(t->extent ? n[t->extent] : t->rows);
}

static double elements(const struct ft_tensor *t, const int64_t *n)
{
    return t ? rows_of(t, n) * (double)t->cols : 0;
}

static double bytes_of(const struct ft_tensor *t, const int64_t *n)
{
    if (t && ft_is_quant(t->dtype))
        return (double)ft_tensor_bytes(t);
    return t ? elements(t, n) * (double)ft_dtype_size(t->dtype) : 0;
}

static double all_bytes(enum ft_op op, const union ft_op_args *a, const int64_t *n)
{
    double sum = 0;
    for (int i = 0; i < ft_op_rows[op].n_in + ft_op_rows[op].n_out; i++)
        sum += bytes_of(a->slots[i], n);
    return sum;
}

struct ft_cost ft_op_cost(enum ft_op op, const union ft_op_args *a, const int64_t *n)
{
    const struct ft_op_row *row = &ft_op_rows[op];
    if (row->cost)
        return row->cost(a, n);
    return (struct ft_cost){row->flops * elements(a->slots[0], n), all_bytes(op, a, n)};
}

/* Parameters and what the optimizer keeps of them are read and written. */
static struct ft_cost update_cost(enum ft_op op, const struct ft_tensor *p, double flops,
                                  const union ft_op_args *a, const int64_t *n)
{
    return (struct ft_cost){flops * elements(p, n), 2 * all_bytes(op, a, n)};
}

static struct ft_cost adamw_cost(const union ft_op_args *a, const int64_t *n)
{
    return update_cost(FT_OP_adamw, a->adamw.p, 15, a, n);
}

static struct ft_cost sgd_cost(const union ft_op_args *a, const int64_t *n)
{
    return update_cost(FT_OP_sgd, a->sgd.p, 6, a, n);
}

static struct ft_cost lion_cost(const union ft_op_args *a, const int64_t *n)
{
    return update_cost(FT_OP_lion, a->lion.p, 10, a, n);
}

static struct ft_cost adafactor_cost(const union ft_op_args *a, const int64_t *n)
{
    return update_cost(FT_OP_adafactor, a->adafactor.p, 15, a, n);
}

/* Five times a product with the smaller side's square, the square itself, and back. */
static struct ft_cost muon_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_tensor *p = a->muon.p;
    const double rows = (double)p->rows, cols = (double)p->cols;
    const double small = rows < cols ? rows : cols, large = rows < cols ? cols : rows;
    return (struct ft_cost){5 * 2 * (2 * small * small * large + small * small * small),
                            2 * all_bytes(FT_OP_muon, a, n)};
}

/* Only the rows that are read of the table. */
static struct ft_cost embed_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_embed_args *e = &a->embed;
    const double row = (double)ft_tensor_bytes(e->w) / (double)e->w->rows;
    return (struct ft_cost){0, rows_of(e->y, n) * row + bytes_of(e->y, n) + bytes_of(e->add, n)};
}

/* Bytes of the weights of experts that have no row. */
static double idle_bytes(const struct ft_tensor *w, const struct ft_tensor *offsets, double rows)
{
    const double experts = (double)ft_experts(offsets);
    return rows < experts ? (1 - rows / experts) * (double)ft_tensor_bytes(w) : 0;
}

static struct ft_cost linear_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_linear_args *l = &a->linear;
    double k = (double)l->x->cols + (l->u ? (double)l->u->cols : 0);
    return (struct ft_cost){2 * elements(l->y, n) * k,
                            all_bytes(FT_OP_linear, a, n) -
                                idle_bytes(l->w, l->offsets, rows_of(l->y, n))};
}

static struct ft_cost linear_dx_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_linear_dx_args *l = &a->linear_dx;
    double k = (double)l->dy->cols + (l->du ? (double)l->du->cols : 0);
    return (struct ft_cost){2 * elements(l->dx, n) * k,
                            all_bytes(FT_OP_linear_dx, a, n) -
                                idle_bytes(l->w, l->offsets, rows_of(l->dx, n))};
}

static struct ft_cost linear_dw_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_linear_dw_args *l = &a->linear_dw;
    return (struct ft_cost){2 * elements(l->x, n) * (double)l->dy->cols,
                            all_bytes(FT_OP_linear_dw, a, n) + bytes_of(l->dw, n)};
}

static double inner(const struct ft_tensor *b)
{
    return b ? (double)b->rows : 0;
}

/* Elements of y, each of which takes the inner products of both parts. */
static struct ft_cost compose_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_compose_args *c = &a->compose;
    return (struct ft_cost){elements(c->y, n) * (2 + 2 * inner(c->pb) + 2 * inner(c->qb)),
                            all_bytes(FT_OP_compose, a, n)};
}

static struct ft_cost compose_dx_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_compose_dx_args *c = &a->compose_dx;
    return (struct ft_cost){elements(c->dy, n) * (4 + 6 * inner(c->pb) + 6 * inner(c->qb)),
                            2 * all_bytes(FT_OP_compose_dx, a, n)};
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
    const struct ft_attention_args *t = &a->attention;
    return (struct ft_cost){4 * elements(t->q, n) * seen_keys(n, t->window),
                            all_bytes(FT_OP_attention, a, n)};
}

static struct ft_cost attention_dx_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_attention_dx_args *t = &a->attention_dx;
    return (struct ft_cost){10 * elements(t->q, n) * seen_keys(n, t->window),
                            all_bytes(FT_OP_attention_dx, a, n)};
}

/* Only the rows that are written, or read, of the larger one. */
static struct ft_cost store_cost(const union ft_op_args *a, const int64_t *n)
{
    return (struct ft_cost){0, 2 * bytes_of(a->store.x, n)};
}

static struct ft_cost gather_cost(const union ft_op_args *a, const int64_t *n)
{
    return (struct ft_cost){0, 2 * bytes_of(a->gather.y, n)};
}

static struct ft_cost balance_cost(const union ft_op_args *a, const int64_t *n)
{
    return (struct ft_cost){30 * elements(a->balance.logits, n), bytes_of(a->balance.logits, n)};
}

/* Both tables and what is read or written at the routed rows. */
static struct ft_cost spread_cost(const union ft_op_args *a, const int64_t *n)
{
    return (struct ft_cost){elements(a->spread.y, n), 2 * bytes_of(a->spread.y, n)};
}

static struct ft_cost row_norms_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_row_norms_args *r = &a->row_norms;
    return (struct ft_cost){2 * elements(r->w, n) * (double)(r->a->rows + 1),
                            all_bytes(FT_OP_row_norms, a, n)};
}

/* Only the rows that are written of the table. */
static struct ft_cost embed_dw_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_tensor *dy = a->embed_dw.dy;
    return (struct ft_cost){2 * elements(dy, n), bytes_of(dy, n) + 8 * elements(dy, n)};
}

/* Logits are written and read once or twice, a chunk at a time. */
static struct ft_cost head_loss_cost(const union ft_op_args *a, const int64_t *n)
{
    const struct ft_head_loss_args *h = &a->head_loss;
    const double logits = (double)n[FT_TRAINED] * (double)h->w->rows;
    const double passes = 1 + !!h->dh + !!h->dw, low = h->u ? (double)h->u->cols : 0;
    return (struct ft_cost){passes * 2 * logits * ((double)h->h->cols + low) + 15 * logits,
                            passes * (bytes_of(h->w, n) + 8 * logits)};
}

/* --- shapes --- */

static void embed_check(const union ft_op_args *a)
{
    const struct ft_embed_args *e = &a->embed;
    FT_ASSERT(is(e->ids, e->y->rows, 1) && e->ids->dtype == FT_I32 && e->y->cols == e->w->cols);
    FT_ASSERT(same_or_none(e->add, e->y));
}

/* Weights and sums of a norm whose rows are x's. */
static void check_norm(const struct ft_tensor *x, const struct ft_tensor *w,
                       const struct ft_tensor *rstd, const struct ft_tensor *mean)
{
    const int64_t groups = rstd->cols;
    FT_ASSERT(x->cols == groups * w->cols && (w->rows == 1 || w->rows == groups));
    FT_ASSERT(rstd->rows == x->rows && same_or_none(mean, rstd) && w->cols <= FT_NORM_COLS_MAX);
}

static void norm_check(const union ft_op_args *a)
{
    const struct ft_norm_args *r = &a->norm;
    FT_ASSERT(same(r->x, r->y) && (!r->bias || is(r->bias, 1, r->w->cols)));
    check_norm(r->x, r->w, r->rstd, r->mean);
}

static void norm_dx_check(const union ft_op_args *a)
{
    const struct ft_norm_dx_args *r = &a->norm_dx;
    FT_ASSERT(same(r->x, r->dy) && same(r->x, r->dx) && same_or_none(r->add, r->x));
    check_norm(r->x, r->w, r->rstd, r->mean);
}

/* n masks of x, which cut `rows` rows into n equal parts. */
static void check_mask(const struct ft_tensor *mask, const struct ft_tensor *x, int64_t rows)
{
    if (!mask)
        return;
    const int64_t n = ft_masks(mask, x->cols);
    FT_ASSERT(is(mask, x->rows, n * ((x->cols + 7) / 8)) && mask->dtype == FT_U8);
    FT_ASSERT(n >= 1 && n <= FT_MASKS && rows % n == 0 && (n == 1 || rows / n % 8 == 0));
}

/* How many matrices lie below each other in the weights of a product. */
static int64_t matrices(const struct ft_tensor *offsets)
{
    FT_ASSERT(!offsets || (offsets->rows == 1 && offsets->cols > 1 && offsets->dtype == FT_I32));
    return ft_experts(offsets);
}

static void linear_check(const union ft_op_args *a)
{
    const struct ft_linear_args *l = &a->linear;
    const int64_t n = matrices(l->offsets), rows = n * l->y->cols;
    FT_ASSERT(is(l->w, rows, l->x->cols) && l->x->rows == l->y->rows);
    FT_ASSERT(!l->bias || is(l->bias, n, l->y->cols));
    FT_ASSERT(same_or_none(l->add, l->y) && !l->u == !l->b);
    FT_ASSERT(!l->b || !ft_is_quant(l->b->dtype));
    FT_ASSERT(!l->u || (is(l->b, rows, l->u->cols) && l->u->rows == l->y->rows));
    check_mask(l->mask, l->x, l->w->rows);
    FT_ASSERT(!l->mask || (!l->bias && !l->add && !l->u && !l->offsets));
}

static void linear_dx_check(const union ft_op_args *a)
{
    const struct ft_linear_dx_args *l = &a->linear_dx;
    const int64_t n = matrices(l->offsets);
    FT_ASSERT(is(l->w, n * l->dy->cols, l->dx->cols) && l->dx->rows == l->dy->rows);
    FT_ASSERT(same_or_none(l->add, l->dx) && !l->du == !l->a);
    FT_ASSERT(!l->a || !ft_is_quant(l->a->dtype));
    FT_ASSERT(!l->du || (is(l->a, n * l->du->cols, l->dx->cols) && l->du->rows == l->dx->rows));
    check_mask(l->mask, l->dx, l->du ? l->a->rows : l->w->rows);
    FT_ASSERT(!l->mask || !l->offsets);
}

static void linear_dw_check(const union ft_op_args *a)
{
    const struct ft_linear_dw_args *l = &a->linear_dw;
    FT_ASSERT(is(l->dw, matrices(l->offsets) * l->dy->cols, l->x->cols));
    FT_ASSERT(l->dw->dtype == FT_F32 && l->x->rows == l->dy->rows && !(l->mask && l->offsets));
    check_mask(l->mask, l->x, 1);
}

/* Rows and columns of a part. */
static int64_t part_cols(const struct ft_tensor *a, const struct ft_tensor *b)
{
    FT_ASSERT(!b || b->rows == a->cols);
    return b ? b->cols : a->cols;
}

static void check_composed(const struct ft_tensor *y, const struct ft_tensor *pa,
                           const struct ft_tensor *pb, const struct ft_tensor *qa,
                           const struct ft_tensor *qb, bool kronecker)
{
    const int64_t k1 = part_cols(pa, pb), k2 = part_cols(qa, qb);
    FT_ASSERT(kronecker ? is(y, pa->rows * qa->rows, k1 * k2)
                        : is(y, pa->rows, k1) && is(y, qa->rows, k2));
}

static void compose_check(const union ft_op_args *a)
{
    const struct ft_compose_args *c = &a->compose;
    check_composed(c->y, c->pa, c->pb, c->qa, c->qb, c->kronecker);
}

static void compose_dx_check(const union ft_op_args *a)
{
    const struct ft_compose_dx_args *c = &a->compose_dx;
    check_composed(c->dy, c->pa, c->pb, c->qa, c->qb, c->kronecker);
    FT_ASSERT(same(c->dpa, c->pa) && same(c->dqa, c->qa) && !c->dpb == !c->pb && !c->dqb == !c->qb);
    FT_ASSERT(same_or_none(c->dpb, c->pb) && same_or_none(c->dqb, c->qb) && c->dy->dtype == FT_F32);
}

static void rope_check(const union ft_op_args *a)
{
    const struct ft_rope_args *r = &a->rope;
    FT_ASSERT(same(r->x, r->y) && r->x->cols >= (int64_t)r->heads * r->head_dim);
    FT_ASSERT(same(r->cos, r->sin) && is(r->angles, r->x->rows, 1));
    FT_ASSERT(r->cos->cols >= 1 && r->first >= 0);
    FT_ASSERT(r->first + 2 * r->cos->cols <= r->head_dim);
}

static void attention_check(const union ft_op_args *a)
{
    const struct ft_attention_args *t = &a->attention;
    FT_ASSERT(same(t->q, t->o) && same(t->k, t->v) && t->heads % t->kv_heads == 0);
    FT_ASSERT(t->q->cols == (int64_t)t->heads * t->head_dim);
    FT_ASSERT(t->cached ? is(t->cached, t->q->rows, 2) : t->k->rows == t->q->rows);
    FT_ASSERT(t->head_dim <= FT_HEAD_DIM_MAX && t->heads / t->kv_heads <= FT_HEAD_GROUP_MAX);
    FT_ASSERT(t->k->cols == (int64_t)t->kv_heads * t->head_dim &&
              is(t->lse, t->q->rows, t->heads) && is(t->spans, t->q->rows, 2));
    FT_ASSERT(!t->sinks || is(t->sinks, 1, t->heads));
}

static void store_check(const union ft_op_args *a)
{
    const struct ft_store_args *s = &a->store;
    FT_ASSERT(is(s->places, s->x->rows, 1) && s->places->dtype == FT_I32);
    FT_ASSERT(s->x->cols == s->y->cols && s->x->dtype == s->y->dtype);
}

static void gather_check(const union ft_op_args *a)
{
    const struct ft_gather_args *g = &a->gather;
    FT_ASSERT(is(g->picked, g->y->rows, 1) && g->picked->dtype == FT_I32);
    FT_ASSERT(g->x->cols == g->y->cols && g->x->dtype == g->y->dtype);
}

static void route_check(const union ft_op_args *a)
{
    const struct ft_route_args *r = &a->route;
    const int64_t experts = r->logits->cols, each = r->weights->cols;
    FT_ASSERT(r->logits->dtype == FT_F32 && r->weights->dtype == FT_F32);
    FT_ASSERT(r->weights->rows == r->logits->rows && same(r->chosen, r->weights));
    FT_ASSERT(same(r->places, r->weights) && is(r->slots, r->logits->rows * each, 1));
    FT_ASSERT(is(r->offsets, 1, experts + 1) && (!r->bias || is(r->bias, 1, experts)));
    FT_ASSERT(each <= experts && experts <= FT_EXPERTS_MAX && each <= FT_EXPERTS_EACH_MAX);
    FT_ASSERT(r->groups <= 1 || (experts % r->groups == 0 && experts / r->groups > 1));
}

static void route_dx_check(const union ft_op_args *a)
{
    const struct ft_route_dx_args *r = &a->route_dx;
    FT_ASSERT(same(r->dweights, r->weights) && same(r->chosen, r->weights));
    FT_ASSERT(same(r->dlogits, r->logits) && r->dweights->dtype == FT_F32);
}

static void balance_check(const union ft_op_args *a)
{
    const struct ft_balance_args *b = &a->balance;
    FT_ASSERT(b->logits->dtype == FT_F32 && b->chosen->dtype == FT_I32);
    FT_ASSERT(b->chosen->rows == b->logits->rows && b->logits->cols <= FT_EXPERTS_MAX);
    FT_ASSERT(is(b->sums, 2, b->logits->cols) && b->sums->dtype == FT_F32);
    FT_ASSERT(!b->so_far || same(b->so_far, b->sums));
}

static void balance_loss_check(const union ft_op_args *a)
{
    const struct ft_balance_loss_args *b = &a->balance_loss;
    FT_ASSERT(b->sums->rows == 2 && b->sums->dtype == FT_F32 && b->each > 0);
    FT_ASSERT(is(b->dshares, 1, b->sums->cols) && b->dshares->dtype == FT_F32);
    FT_ASSERT(b->scalars->dtype == FT_F64);
}

static void balance_dx_check(const union ft_op_args *a)
{
    const struct ft_balance_dx_args *b = &a->balance_dx;
    FT_ASSERT(is(b->dshares, 1, b->logits->cols) && b->logits->dtype == FT_F32);
    FT_ASSERT(same(b->dlogits, b->logits));
}

/* The tables of route, between rows of x and their routed rows. */
static void check_routed(const struct ft_tensor *rows, const struct ft_tensor *routed,
                         const struct ft_tensor *places, const struct ft_tensor *slots,
                         const struct ft_tensor *weights)
{
    FT_ASSERT(rows->cols == routed->cols && places->rows == rows->rows);
    FT_ASSERT(routed->rows == rows->rows * places->cols && places->dtype == FT_I32);
    FT_ASSERT(!slots || (is(slots, routed->rows, 1) && slots->dtype == FT_I32));
    FT_ASSERT(!weights || (same(weights, places) && weights->dtype == FT_F32));
}

static void spread_check(const union ft_op_args *a)
{
    const struct ft_spread_args *s = &a->spread;
    check_routed(s->x, s->y, s->places, s->slots, s->weights);
}

static void collect_check(const union ft_op_args *a)
{
    const struct ft_collect_args *c = &a->collect;
    check_routed(c->y, c->x, c->places, c->slots, c->weights);
    FT_ASSERT(same_or_none(c->add, c->y));
}

static void collect_dw_check(const union ft_op_args *a)
{
    const struct ft_collect_dw_args *c = &a->collect_dw;
    check_routed(c->y, c->x, c->places, NULL, c->dw);
}

static void gate_rows_check(const union ft_op_args *a)
{
    const struct ft_gate_rows_args *g = &a->gate_rows;
    FT_ASSERT(is(g->gate, g->x->rows, 1) && same(g->x, g->y) && same_or_none(g->add, g->x));
}

static void gate_rows_dx_check(const union ft_op_args *a)
{
    const struct ft_gate_rows_dx_args *g = &a->gate_rows_dx;
    FT_ASSERT(is(g->gate, g->x->rows, 1) && same(g->dgate, g->gate));
    FT_ASSERT(same(g->x, g->dy) && same(g->x, g->dx));
}

static void attention_dx_check(const union ft_op_args *a)
{
    const struct ft_attention_dx_args *t = &a->attention_dx;
    FT_ASSERT(same(t->q, t->o) && same(t->k, t->v) && same(t->dq, t->q) && same(t->dout, t->o));
    FT_ASSERT(same(t->dk, t->k) && same(t->dv, t->v) && is(t->lse, t->q->rows, t->heads));
}

static void glu_check(const union ft_op_args *a)
{
    FT_ASSERT(same_or_none(a->glu.up, a->glu.gate) && same(a->glu.gate, a->glu.y));
}

static void glu_dx_check(const union ft_op_args *a)
{
    const struct ft_glu_dx_args *s = &a->glu_dx;
    FT_ASSERT(same(s->gate, s->dy) && same(s->gate, s->dgate) && !s->up == !s->dup);
    FT_ASSERT(same_or_none(s->up, s->gate) && same_or_none(s->dup, s->gate));
}

static void glu_pairs_check(const union ft_op_args *a)
{
    const struct ft_glu_pairs_args *g = &a->glu_pairs;
    FT_ASSERT(is(g->x, g->y->rows, 2 * g->y->cols) && g->x->extent == g->y->extent);
}

static void glu_pairs_dx_check(const union ft_op_args *a)
{
    const struct ft_glu_pairs_dx_args *g = &a->glu_pairs_dx;
    FT_ASSERT(same(g->x, g->dx) && is(g->x, g->dy->rows, 2 * g->dy->cols));
}

static void dropout_mask_check(const union ft_op_args *a)
{
    const struct ft_dropout_mask_args *d = &a->dropout_mask;
    FT_ASSERT(is(d->keys, d->mask->rows, 3) && d->mask->dtype == FT_U8);
    FT_ASSERT(d->n >= 1 && d->n <= FT_MASKS && d->mask->cols % d->n == 0);
}

static void noise_check(const union ft_op_args *a)
{
    const struct ft_noise_args *n = &a->noise;
    FT_ASSERT(same(n->x, n->y) && is(n->keys, n->x->rows, 3) && is(n->spans, n->x->rows, 2));
}

static void dropout_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->dropout.x, a->dropout.y) && is(a->dropout.keys, a->dropout.x->rows, 3));
    FT_ASSERT(same_or_none(a->dropout.add, a->dropout.x));
}

static void add_check(const union ft_op_args *a)
{
    FT_ASSERT(same_or_none(a->add.a, a->add.b) && same(a->add.b, a->add.y));
}

static void regroup_check(const union ft_op_args *a)
{
    const struct ft_regroup_args *r = &a->regroup;
    FT_ASSERT(same(r->x, r->y) &&
              r->x->cols == (int64_t)r->groups * (r->per_group + 2) * r->head_dim);
}

static void pick_heads_check(const union ft_op_args *a)
{
    const struct ft_pick_heads_args *p = &a->pick_heads;
    const int64_t in = p->x->cols / p->heads, out = p->y->cols / p->heads;
    FT_ASSERT(p->x->rows == p->y->rows && in * p->heads == p->x->cols &&
              out * p->heads == p->y->cols);
    FT_ASSERT(p->first >= 0 && p->n > 0 && p->first + p->n <= in);
    FT_ASSERT(p->n + (p->rest ? p->rest->cols : 0) <= out);
    FT_ASSERT(!p->rest || p->rest->rows == p->x->rows);
}

static void pick_heads_dx_check(const union ft_op_args *a)
{
    const struct ft_pick_heads_dx_args *p = &a->pick_heads_dx;
    const union ft_op_args forward = {.pick_heads = {.x = p->dx,
                                                     .rest = p->drest,
                                                     .y = p->dy,
                                                     .heads = p->heads,
                                                     .first = p->first,
                                                     .n = p->n}};
    pick_heads_check(&forward);
    FT_ASSERT(same_or_none(p->add, p->dx));
}

static void row_norms_check(const union ft_op_args *a)
{
    const struct ft_row_norms_args *r = &a->row_norms;
    FT_ASSERT(r->a->cols == r->w->cols && is(r->b, r->w->rows, r->a->rows));
    FT_ASSERT(is(r->norm, 1, r->w->rows) && r->norm->dtype == FT_F32);
    FT_ASSERT(r->w->cols <= FT_NORM_COLS_MAX);
}

static void scale_columns_check(const union ft_op_args *a)
{
    const struct ft_scale_columns_args *s = &a->scale_columns;
    FT_ASSERT(same(s->x, s->y) && is(s->m, 1, s->x->cols) && same_or_none(s->norm, s->m));
    FT_ASSERT(same_or_none(s->add, s->x) && (!s->bias || is(s->bias, 1, s->x->cols)));
    FT_ASSERT(s->m->dtype == FT_F32);
}

static void columns_dw_check(const union ft_op_args *a)
{
    const struct ft_columns_dw_args *c = &a->columns_dw;
    FT_ASSERT(same_or_none(c->x, c->dy) && is(c->dw, 1, c->dy->cols));
    FT_ASSERT(same_or_none(c->norm, c->dw) && c->dw->dtype == FT_F32);
}

static void norm_dw_check(const union ft_op_args *a)
{
    const struct ft_norm_dw_args *r = &a->norm_dw;
    FT_ASSERT(same(r->x, r->dy) && r->rstd->rows == r->x->rows && same_or_none(r->mean, r->rstd));
    if (r->dw)
        FT_ASSERT(r->dw->cols * r->rstd->cols == r->x->cols && r->dw->dtype == FT_F32 &&
                  (r->dw->rows == 1 || r->dw->rows == r->rstd->cols));
    FT_ASSERT(!r->db || is(r->db, 1, r->x->cols / r->rstd->cols));
}

static void embed_dw_check(const union ft_op_args *a)
{
    const struct ft_embed_dw_args *e = &a->embed_dw;
    FT_ASSERT(is(e->ids, e->dy->rows, 1) && e->dw->cols == e->dy->cols && e->dw->dtype == FT_F32);
}

static void head_loss_check(const union ft_op_args *a)
{
    const struct ft_head_loss_args *h = &a->head_loss;
    FT_ASSERT(h->w->cols == h->h->cols && is(h->targets, h->h->rows, 1) &&
              is(h->picked, h->h->rows, 1));
    FT_ASSERT(same_or_none(h->dh, h->h) && h->scalars->cols == FT_SCALARS);
    FT_ASSERT(!h->dw || (h->dh && is(h->dw, h->w->rows, h->w->cols) && h->dw->dtype == FT_F32));
    FT_ASSERT(!h->u == !h->b && !h->du == !(h->u && h->dh) && same_or_none(h->du, h->u));
    FT_ASSERT(!h->u || is(h->b, h->w->rows, h->u->cols));
    FT_ASSERT(!h->db || (h->du && is(h->db, h->b->rows, h->b->cols) && h->db->dtype == FT_F32));
}

static void grad_norm_check(const union ft_op_args *a)
{
    FT_ASSERT(a->grad_norm.grad->rows == 1 && a->grad_norm.scalars->cols == FT_SCALARS);
}

static bool is_state(const struct ft_tensor *t, const struct ft_tensor *p)
{
    return same(t, p) &&
           (t->dtype == FT_F32 || (t->dtype == FT_DYNAMIC8 && t->block == FT_DYNAMIC_BLOCK));
}

static void adamw_check(const union ft_op_args *a)
{
    const struct ft_adamw_args *o = &a->adamw;
    FT_ASSERT(same(o->p, o->grad) && is_state(o->m, o->p) && is_state(o->v, o->p));
}

static void sgd_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->sgd.p, a->sgd.grad) && same_or_none(a->sgd.mom, a->sgd.p));
}

static void lion_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->lion.p, a->lion.grad) && is_state(a->lion.m, a->lion.p));
}

static void adafactor_check(const union ft_op_args *a)
{
    const struct ft_adafactor_args *f = &a->adafactor;
    FT_ASSERT(same(f->p, f->grad) && is(f->col, 1, f->p->cols));
    FT_ASSERT(f->row ? is(f->row, 1, f->p->rows) : f->p->rows == 1);
}

static void muon_check(const union ft_op_args *a)
{
    FT_ASSERT(same(a->muon.p, a->muon.grad) && same(a->muon.p, a->muon.m));
}

static void refresh_check(const union ft_op_args *a)
{
    FT_ASSERT(a->refresh.values->dtype == FT_F32 && a->refresh.table->cols == FT_SEGMENT);
}

void ft_op_check(enum ft_op op, const union ft_op_args *a)
{
    const struct ft_op_row *row = &ft_op_rows[op];
    for (int i = 0; i < row->n_in + row->n_out; i++)
        FT_ASSERT(a->slots[i] || row->optional >> i & 1);
    row->check(a);
}

/* --- the table --- */

enum {
#define X(name, ins, outs) INS_##name = ins, OUTS_##name = outs,
    FT_OPS(X)
#undef X
};
#define X(name, ins, outs)                                                                         \
    _Static_assert((ins) + (outs) <= FT_SLOTS, #name " has too many inputs and outputs");          \
    _Static_assert(sizeof(struct ft_##name##_args) >= ((ins) + (outs)) * sizeof(void *),           \
                   #name "'s arguments are fewer than its inputs and outputs");
FT_OPS(X)
#undef X
_Static_assert(sizeof((union ft_op_args *)0)->slots == FT_SLOTS * sizeof(void *), "all of them");

/* Bit of a member of an op's arguments. */
#define SLOT(op, member) (1u << offsetof(struct ft_##op##_args, member) / sizeof(void *))
#define NONE                                                                                       \
    {                                                                                              \
        {                                                                                          \
            -1, -1                                                                                 \
        }                                                                                          \
    }
#define OVER(...)                                                                                  \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            -1, -1                                                                                 \
        }                                                                                          \
    }
#define ROW(op, class, again, optional, overwrites, flops, cost)                                   \
    [FT_OP_##op] = {#op,      INS_##op,   OUTS_##op, class, again,                                 \
                    optional, overwrites, flops,     cost,  op##_check}
#define NEVER FT_AGAIN_NEVER
#define KEEP  FT_AGAIN_LAYER
#define AGAIN FT_AGAIN_CHEAP

const struct ft_op_row ft_op_rows[FT_OP_COUNT] = {
    ROW(embed, FT_ROWWISE, KEEP, SLOT(embed, add), NONE, 0, embed_cost),
    ROW(norm, FT_ROWWISE, AGAIN, SLOT(norm, bias) | SLOT(norm, mean), NONE, 4, NULL),
    ROW(norm_dx, FT_ROWWISE, KEEP, SLOT(norm_dx, mean) | SLOT(norm_dx, add), OVER({0, 5}, {0, 0}),
        9, NULL),
    ROW(linear, FT_PRODUCT, KEEP,
        SLOT(linear, bias) | SLOT(linear, add) | SLOT(linear, u) | SLOT(linear, b) |
            SLOT(linear, mask) | SLOT(linear, offsets),
        OVER({0, 3}), 0, linear_cost),
    ROW(linear_dx, FT_PRODUCT, KEEP,
        SLOT(linear_dx, add) | SLOT(linear_dx, du) | SLOT(linear_dx, a) | SLOT(linear_dx, mask) |
            SLOT(linear_dx, offsets),
        OVER({0, 2}), 0, linear_dx_cost),
    ROW(linear_dw, FT_PRODUCT, KEEP, SLOT(linear_dw, mask) | SLOT(linear_dw, offsets), NONE, 0,
        linear_dw_cost),
    ROW(rope, FT_ROWWISE, KEEP, 0, OVER({0, 0}), 3, NULL),
    ROW(attention, FT_PRODUCT, KEEP, SLOT(attention, cached) | SLOT(attention, sinks), NONE, 0,
        attention_cost),
    ROW(attention_dx, FT_PRODUCT, KEEP, 0, NONE, 0, attention_dx_cost),
    ROW(glu, FT_ROWWISE, AGAIN, SLOT(glu, up), OVER({0, 0}, {0, 1}), 12, NULL),
    ROW(glu_dx, FT_ROWWISE, KEEP, SLOT(glu_dx, up) | SLOT(glu_dx, dup), OVER({0, 0}, {1, 1}), 20,
        NULL),
    ROW(glu_pairs, FT_ROWWISE, AGAIN, 0, NONE, 8, NULL),
    ROW(glu_pairs_dx, FT_ROWWISE, KEEP, 0, NONE, 12, NULL),
    ROW(dropout_mask, FT_ROWWISE, KEEP, 0, NONE, 0, NULL),
    ROW(dropout, FT_ROWWISE, AGAIN, SLOT(dropout, add), OVER({0, 0}, {0, 2}), 20, NULL),
    ROW(noise, FT_ROWWISE, KEEP, 0, OVER({0, 0}), 20, NULL),
    ROW(add, FT_ROWWISE, KEEP, SLOT(add, a), OVER({0, 0}, {0, 1}), 1, NULL),
    ROW(store, FT_ROWWISE, KEEP, 0, NONE, 0, store_cost),
    ROW(gather, FT_ROWWISE, KEEP, 0, NONE, 0, gather_cost),
    ROW(route, FT_ROWWISE, NEVER, SLOT(route, bias), NONE, 30, NULL),
    ROW(route_dx, FT_ROWWISE, KEEP, 0, NONE, 30, NULL),
    ROW(balance, FT_ROWWISE, NEVER, SLOT(balance, so_far), NONE, 0, balance_cost),
    ROW(balance_dx, FT_ROWWISE, KEEP, 0, NONE, 30, NULL),
    ROW(balance_loss, FT_ROWWISE, KEEP, 0, NONE, 2, NULL),
    ROW(spread, FT_ROWWISE, AGAIN, SLOT(spread, weights), NONE, 0, spread_cost),
    ROW(collect, FT_ROWWISE, KEEP, SLOT(collect, weights) | SLOT(collect, add), OVER({0, 4}), 2,
        NULL),
    ROW(collect_dw, FT_ROWWISE, KEEP, 0, NONE, 2, NULL),
    ROW(gate_rows, FT_ROWWISE, AGAIN, SLOT(gate_rows, add), OVER({0, 1}, {0, 2}), 2, NULL),
    ROW(gate_rows_dx, FT_ROWWISE, KEEP, 0, OVER({1, 2}), 4, NULL),
    ROW(regroup, FT_ROWWISE, KEEP, 0, NONE, 0, NULL),
    ROW(pick_heads, FT_ROWWISE, AGAIN, SLOT(pick_heads, rest), NONE, 0, NULL),
    ROW(pick_heads_dx, FT_ROWWISE, KEEP, SLOT(pick_heads_dx, add) | SLOT(pick_heads_dx, drest),
        OVER({0, 1}), 1, NULL),
    ROW(compose, FT_PARAMETERS, KEEP, SLOT(compose, pb) | SLOT(compose, qb), NONE, 0, compose_cost),
    ROW(compose_dx, FT_PARAMETERS, KEEP,
        SLOT(compose_dx, pb) | SLOT(compose_dx, qb) | SLOT(compose_dx, dpb) | SLOT(compose_dx, dqb),
        NONE, 0, compose_dx_cost),
    ROW(row_norms, FT_ROWWISE, KEEP, 0, NONE, 0, row_norms_cost),
    ROW(scale_columns, FT_ROWWISE, KEEP,
        SLOT(scale_columns, norm) | SLOT(scale_columns, bias) | SLOT(scale_columns, add),
        OVER({0, 0}, {0, 4}), 3, NULL),
    ROW(columns_dw, FT_ROWWISE, KEEP, SLOT(columns_dw, x) | SLOT(columns_dw, norm), NONE, 3, NULL),
    ROW(norm_dw, FT_ROWWISE, KEEP, SLOT(norm_dw, mean) | SLOT(norm_dw, dw) | SLOT(norm_dw, db),
        NONE, 5, NULL),
    ROW(embed_dw, FT_ROWWISE, KEEP, 0, NONE, 0, embed_dw_cost),
    ROW(head_loss, FT_PRODUCT, KEEP,
        SLOT(head_loss, u) | SLOT(head_loss, b) | SLOT(head_loss, dh) | SLOT(head_loss, dw) |
            SLOT(head_loss, du) | SLOT(head_loss, db),
        NONE, 0, head_loss_cost),
    ROW(grad_norm, FT_PARAMETERS, KEEP, 0, NONE, 2, NULL),
    ROW(adamw, FT_PARAMETERS, KEEP, 0, NONE, 0, adamw_cost),
    ROW(sgd, FT_PARAMETERS, KEEP, SLOT(sgd, mom), NONE, 0, sgd_cost),
    ROW(lion, FT_PARAMETERS, KEEP, 0, NONE, 0, lion_cost),
    ROW(adafactor, FT_PARAMETERS, KEEP, SLOT(adafactor, row), NONE, 0, adafactor_cost),
    ROW(muon, FT_PARAMETERS, KEEP, 0, NONE, 0, muon_cost),
    ROW(refresh, FT_PARAMETERS, KEEP, 0, NONE, 0, NULL),
};
