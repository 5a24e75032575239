/* Appends the backward ops: each op kind knows its own. */
#include "graph/internal.h"

struct backward {
    struct ft_graph *g;
    enum ft_recompute policy;
    struct ft_tensor *dshares; /* of balance_loss; NULL: there is none */
};

/* --- values that backward reads: kept, or computed again --- */

static bool is_dropped(const struct backward *b, const struct ft_value *v)
{
    if (v->use == FT_M_PASS && v->parent)
        return is_dropped(b, v->parent);
    if (v->use != FT_M_PASS || v->producer < 0 || v->keep || v->layer < 0)
        return false;
    const struct ft_node *n = &b->g->programs[FT_PASS].v[v->producer];
    if (ft_op_rows[n->op].again == FT_AGAIN_NEVER)
        return false;
    if (b->policy == FT_RECOMPUTE_LAYER)
        return true;
    /* the sums of a norm are small, and are kept with its input */
    return b->policy == FT_RECOMPUTE_CHEAP && ft_op_rows[n->op].again == FT_AGAIN_CHEAP &&
           n->args.slots[ft_node_ins(n)] == &v->t;
}

static struct ft_tensor *saved(struct backward *b, struct ft_tensor *t);

/* Where a recomputed value goes: a place of its own, or the same columns of its parent's twin. */
static struct ft_tensor *twin_of(struct backward *b, struct ft_tensor *t)
{
    const struct ft_value *v = ft_value_of(t);
    if (!v->parent)
        return ft_graph_like(b->g, t->name, t);
    return ft_graph_columns(b->g, saved(b, &v->parent->t), t->name, t->cols, v->first_element);
}

/* Emits the op that computed v again. A clone is the same op at the same shape on the same bits, so
 * its result is too. */
static void compute_again(struct backward *b, const struct ft_value *v)
{
    struct ft_graph *g = b->g;
    struct ft_node clone = g->programs[FT_PASS].v[v->producer];
    int ins = ft_node_ins(&clone), slots = ft_node_slots(&clone);
    for (int i = 0; i < ins; i++)
        clone.args.slots[i] = saved(b, clone.args.slots[i]);
    for (int i = ins; i < slots; i++) {
        struct ft_tensor *out = clone.args.slots[i];
        if (!out)
            continue;
        struct ft_tensor *twin = twin_of(b, out);
        ft_value_of(out)->again = twin;
        clone.args.slots[i] = twin;
    }
    ft_graph_emit(g, clone.op, &clone.args);
    if (!g->rc)
        g->programs[FT_PASS].v[g->programs[FT_PASS].n - 1].again = true;
}

/* The tensor that backward may read in t's stead, after cloning what computes it if it was dropped.
 */
static struct ft_tensor *saved(struct backward *b, struct ft_tensor *t)
{
    struct ft_graph *g = b->g;
    if (!t || g->rc || !is_dropped(b, ft_value_of(t)))
        return t;
    struct ft_value *v = ft_value_of(t);
    if (v->again)
        return v->again;
    if (v->producer >= 0)
        compute_again(b, v);
    else /* a slice */
        v->again = twin_of(b, t);
    return g->rc ? t : v->again;
}

/* --- gradients so far --- */

static bool wants(const struct ft_tensor *t)
{
    return t && ft_value_of((struct ft_tensor *)t)->needs_grad;
}

/* What has been summed into t's gradient so far, for an op that adds to it; NULL if nothing. */
static struct ft_tensor *so_far(const struct ft_tensor *t)
{
    return ft_value_of((struct ft_tensor *)t)->grad;
}

static void set_grad(struct ft_tensor *t, struct ft_tensor *grad)
{
    ft_value_of(t)->grad = grad;
}

/* Adds d, a finished tensor, to t's gradient. */
static void contribute(struct backward *b, struct ft_tensor *t, struct ft_tensor *d)
{
    struct ft_tensor *old = so_far(t);
    set_grad(t, old ? ft_add(b->g, old, d, 1) : d);
}

/* A new tensor for t's gradient. A slice's is a slice of its parent's. */
static struct ft_tensor *grad_like(struct backward *b, const struct ft_tensor *t)
{
    const struct ft_value *v = ft_value_of((struct ft_tensor *)t);
    struct ft_value *p = v->parent;
    if (!p || v->use != FT_M_PASS)
        return ft_graph_like(b->g, "gradient", t);
    FT_ASSERT(!v->grad); /* one reader */
    if (!p->grad)
        p->grad = ft_graph_like(b->g, "gradient", &p->t);
    return ft_graph_columns(b->g, p->grad, "gradient", t->cols, v->first_element);
}

/* The same behind the columns of dy, if a slice does not have its place already. */
static struct ft_tensor *gradient_beside(struct backward *b, const struct ft_tensor *t,
                                         struct ft_tensor *dy)
{
    const struct ft_value *v = ft_value_of((struct ft_tensor *)t);
    const bool slice = v->columns && v->producer < 0;
    return slice ? grad_like(b, t) : ft_graph_beside(b->g, dy, "gradient", t->cols);
}

static void emit(struct backward *b, enum ft_op op, union ft_op_args args)
{
    ft_graph_emit(b->g, op, &args);
}

/* grad(x) += alpha dy w, in dx */
static void product_dx(struct backward *b, struct ft_tensor *x, struct ft_tensor *dx,
                       struct ft_tensor *dy, struct ft_tensor *w, struct ft_tensor *mask,
                       struct ft_tensor *offsets, float alpha)
{
    emit(b, FT_OP_linear_dx,
         (union ft_op_args){.linear_dx = {.dy = dy,
                                          .w = saved(b, w),
                                          .add = so_far(x),
                                          .mask = saved(b, mask),
                                          .offsets = offsets,
                                          .dx = dx,
                                          .alpha = alpha}});
    set_grad(x, dx);
}

/* Those columns of x; x itself if they are all. */
static struct ft_tensor *columns(struct backward *b, struct ft_tensor *x, int64_t first, int64_t n)
{
    return n == x->cols ? x : ft_graph_columns(b->g, x, x->name, n, first);
}

/* The mask that row `row` of w reads x through. */
static struct ft_tensor *mask_of(struct backward *b, struct ft_tensor *mask,
                                 const struct ft_tensor *w, const struct ft_tensor *x, int64_t row)
{
    if (!mask)
        return NULL;
    const int64_t n = ft_masks(mask, x->cols), bytes = mask->cols / n;
    return columns(b, mask, row / (w->rows / n) * bytes, bytes);
}

/* grad(w) += alpha dy^T x, block by block; a block has one mask. Of experts' weights there is one
 * block, which is all of them. */
static void product_dw(struct backward *b, struct ft_tensor *w, struct ft_tensor *dy,
                       struct ft_tensor *x, struct ft_tensor *mask, struct ft_tensor *offsets,
                       float alpha)
{
    x = saved(b, x);
    mask = saved(b, mask);
    for (const struct ft_trained *t = ft_value_of(w)->trained; t && !b->g->rc; t = t->next) {
        const int64_t rows = t->grad->rows / ft_experts(offsets);
        FT_ASSERT(!offsets || (t->grad->rows == w->rows && t->grad->cols == w->cols));
        emit(b, FT_OP_linear_dw,
             (union ft_op_args){.linear_dw = {.dy = columns(b, dy, t->row, rows),
                                              .x = columns(b, x, t->col, t->grad->cols),
                                              .mask = mask_of(b, mask, w, x, t->row),
                                              .offsets = offsets,
                                              .dw = t->grad,
                                              .alpha = alpha * t->scale}});
    }
}

/* --- one function an op kind; dy is the gradient of the node's first output --- */

typedef void backward_fn(struct backward *b, const struct ft_node *n, struct ft_tensor *dy);

static void no_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    (void)b, (void)n, (void)dy;
    FT_ASSERT(!"this op has no backward");
}

/* grad(bias) += sum_t dy, block by block. */
static void columns_gradient(struct backward *b, struct ft_tensor *bias, struct ft_tensor *dy)
{
    const struct ft_trained *t = bias ? ft_value_of(bias)->trained : NULL;
    for (; t && !b->g->rc; t = t->next)
        emit(b, FT_OP_columns_dw,
             (union ft_op_args){
                 .columns_dw = {.dy = columns(b, dy, t->col, t->grad->cols), .dw = t->grad}});
}

/* The gradient of a weight that an op has made for this product alone. */
static void produced_dw(struct backward *b, const struct ft_linear_args *l, struct ft_tensor *dy)
{
    struct ft_tensor *dw =
        ft_graph_value(b->g, FT_M_PASS, "gradient", FT_F32, l->w->rows, l->w->cols);
    FT_ASSERT(!so_far(l->w) && !l->mask && !l->offsets);
    emit(b, FT_OP_linear_dw,
         (union ft_op_args){
             .linear_dw = {
                 .dy = dy, .x = saved(b, l->x), .dw = dw, .alpha = l->alpha, .fresh = true}});
    set_grad(l->w, dw);
}

/* Whether a product finds the words of dy that the one before has made, if nothing comes between:
 * dx directly behind the low-rank du then, though it may take more memory. */
static bool reuses_words(const struct backward *b)
{
    return !b->g->backend->dev && b->g->backend->products == FT_BF16;
}

static void linear_inputs(struct backward *b, const struct ft_linear_args *l, struct ft_tensor *dy)
{
    if (wants(l->x))
        product_dx(b, l->x, grad_like(b, l->x), dy, l->w, l->mask, l->offsets, l->alpha);
}

static void linear_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_linear_args *l = &n->args.linear;
    if (l->u) {
        if (wants(l->b))
            product_dw(b, l->b, dy, l->u, NULL, l->offsets, l->beta);
        if (wants(l->u)) /* behind dy, so that both are one input of what follows */
            product_dx(b, l->u, gradient_beside(b, l->u, dy), dy, l->b, NULL, l->offsets, l->beta);
    }
    if (reuses_words(b))
        linear_inputs(b, l, dy);
    if (wants(l->w) && ft_value_of(l->w)->producer >= 0)
        produced_dw(b, l, dy);
    else if (wants(l->w))
        product_dw(b, l->w, dy, l->x, l->mask, l->offsets, l->alpha);
    FT_ASSERT(!l->offsets || !l->bias || !wants(l->bias));
    columns_gradient(b, l->bias, dy);
    if (!reuses_words(b))
        linear_inputs(b, l, dy);
    if (wants(l->add))
        contribute(b, l->add, dy);
}

static void norm_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_norm_args *r = &n->args.norm;
    struct ft_tensor *dw = ft_graph_whole_gradient(r->w), *db = ft_graph_whole_gradient(r->bias);
    if (dw || db)
        emit(b, FT_OP_norm_dw,
             (union ft_op_args){
                 .norm_dw = {dy, saved(b, r->x), saved(b, r->rstd), saved(b, r->mean), dw, db}});
    if (!wants(r->x))
        return;
    struct ft_tensor *dx = grad_like(b, r->x);
    emit(b, FT_OP_norm_dx,
         (union ft_op_args){.norm_dx = {.dy = dy,
                                        .x = saved(b, r->x),
                                        .w = r->w,
                                        .rstd = saved(b, r->rstd),
                                        .mean = saved(b, r->mean),
                                        .add = so_far(r->x),
                                        .dx = dx,
                                        .offset = r->offset}});
    set_grad(r->x, dx);
}

static void rope_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    struct ft_rope_args r = n->args.rope;
    struct ft_tensor *x = r.x;
    r.x = dy;
    r.y = grad_like(b, x);
    r.sign = -r.sign;
    emit(b, FT_OP_rope, (union ft_op_args){.rope = r});
    contribute(b, x, r.y);
}

static void attention_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_attention_args *a = &n->args.attention;
    FT_ASSERT(!a->cached);
    struct ft_attention_dx_args d = {.q = saved(b, a->q),
                                     .k = saved(b, a->k),
                                     .v = saved(b, a->v),
                                     .o = saved(b, a->o),
                                     .lse = saved(b, a->lse),
                                     .dout = dy,
                                     .spans = a->spans,
                                     .dq = grad_like(b, a->q),
                                     .dk = grad_like(b, a->k),
                                     .dv = grad_like(b, a->v),
                                     .heads = a->heads,
                                     .kv_heads = a->kv_heads,
                                     .head_dim = a->head_dim,
                                     .window = a->window,
                                     .scale = a->scale,
                                     .softcap = a->softcap};
    emit(b, FT_OP_attention_dx, (union ft_op_args){.attention_dx = d});
    struct ft_tensor *in[3] = {a->q, a->k, a->v}, *grad[3] = {d.dq, d.dk, d.dv};
    for (int i = 0; i < 3; i++)
        if (wants(in[i]))
            contribute(b, in[i], grad[i]);
}

static void glu_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_glu_args *s = &n->args.glu;
    struct ft_tensor *dgate = grad_like(b, s->gate), *dup = s->up ? grad_like(b, s->up) : NULL;
    emit(
        b, FT_OP_glu_dx,
        (union ft_op_args){.glu_dx = {saved(b, s->gate), saved(b, s->up), dy, dgate, dup, s->act}});
    if (wants(s->gate))
        contribute(b, s->gate, dgate);
    if (wants(s->up))
        contribute(b, s->up, dup);
}

static void glu_pairs_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_glu_pairs_args *p = &n->args.glu_pairs;
    struct ft_tensor *dx = grad_like(b, p->x);
    emit(b, FT_OP_glu_pairs_dx,
         (union ft_op_args){.glu_pairs_dx = {saved(b, p->x), dy, dx, p->alpha, p->limit}});
    contribute(b, p->x, dx);
}

/* Of the weights, which nothing else reads but one more op at most. */
static void weights_gradient(struct backward *b, struct ft_tensor *weights, struct ft_tensor *y,
                             struct ft_tensor *x, struct ft_tensor *places)
{
    struct ft_tensor *dw = ft_graph_plain(b->g, "routing gradient", weights);
    FT_ASSERT(!so_far(weights));
    emit(b, FT_OP_collect_dw, (union ft_op_args){.collect_dw = {y, x, places, dw}});
    set_grad(weights, dw);
}

static void route_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_route_args *r = &n->args.route;
    struct ft_tensor *dlogits =
        ft_graph_temp(b->g, "routing gradient", r->logits->rows, r->logits->cols);
    dlogits->extent = r->logits->extent;
    emit(b, FT_OP_route_dx,
         (union ft_op_args){.route_dx = {dy, saved(b, r->logits), r->weights, r->chosen, dlogits,
                                         r->sigmoid, r->normalise, r->scale}});
    contribute(b, r->logits, dlogits);
}

/* Of the shares of all mixtures alike. */
static void balance_backward(struct backward *b, const struct ft_node *n)
{
    struct ft_tensor *logits = n->args.balance.logits;
    if (!wants(logits) || !b->dshares)
        return;
    struct ft_tensor *d = ft_graph_temp(b->g, "balance gradient", logits->rows, logits->cols);
    d->extent = logits->extent;
    emit(b, FT_OP_balance_dx, (union ft_op_args){.balance_dx = {b->dshares, saved(b, logits), d}});
    contribute(b, logits, d);
}

static void spread_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_spread_args *s = &n->args.spread;
    if (s->weights && wants(s->weights))
        weights_gradient(b, s->weights, saved(b, s->x), dy, s->places);
    if (!wants(s->x))
        return;
    struct ft_tensor *dx = grad_like(b, s->x);
    emit(b, FT_OP_collect,
         (union ft_op_args){.collect = {dy, s->places, s->slots, s->weights, so_far(s->x), dx}});
    set_grad(s->x, dx);
}

static void collect_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_collect_args *c = &n->args.collect;
    if (c->weights && wants(c->weights))
        weights_gradient(b, c->weights, dy, saved(b, c->x), c->places);
    if (wants(c->x)) {
        struct ft_tensor *dx = grad_like(b, c->x);
        FT_ASSERT(!so_far(c->x));
        emit(b, FT_OP_spread,
             (union ft_op_args){.spread = {dy, c->slots, c->places, c->weights, dx}});
        set_grad(c->x, dx);
    }
    if (wants(c->add))
        contribute(b, c->add, dy);
}

static void gate_rows_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_gate_rows_args *r = &n->args.gate_rows;
    struct ft_tensor *dgate = grad_like(b, r->gate), *dx = grad_like(b, r->x);
    emit(b, FT_OP_gate_rows_dx,
         (union ft_op_args){.gate_rows_dx = {saved(b, r->gate), saved(b, r->x), dy, dgate, dx}});
    contribute(b, r->gate, dgate);
    contribute(b, r->x, dx);
    if (wants(r->add))
        contribute(b, r->add, dy);
}

static void regroup_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    struct ft_regroup_args r = n->args.regroup;
    struct ft_tensor *x = r.x;
    r.x = dy;
    r.y = grad_like(b, x);
    r.inverse = !r.inverse;
    emit(b, FT_OP_regroup, (union ft_op_args){.regroup = r});
    contribute(b, x, r.y);
}

static void pick_heads_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_pick_heads_args *p = &n->args.pick_heads;
    const struct ft_pick_heads_dx_args d = {.dy = dy,
                                            .add = so_far(p->x),
                                            .dx = grad_like(b, p->x),
                                            .drest = wants(p->rest) ? grad_like(b, p->rest) : NULL,
                                            .heads = p->heads,
                                            .first = p->first,
                                            .n = p->n};
    emit(b, FT_OP_pick_heads_dx, (union ft_op_args){.pick_heads_dx = d});
    if (wants(p->x))
        set_grad(p->x, d.dx);
    if (d.drest)
        contribute(b, p->rest, d.drest);
}

static void scale_columns_backward(struct backward *b, const struct ft_node *n,
                                   struct ft_tensor *dy)
{
    const struct ft_scale_columns_args *s = &n->args.scale_columns;
    for (const struct ft_trained *t = ft_value_of(s->m)->trained; t; t = t->next)
        emit(b, FT_OP_columns_dw,
             (union ft_op_args){
                 .columns_dw = {
                     .dy = dy, .x = saved(b, s->x), .norm = saved(b, s->norm), .dw = t->grad}});
    if (wants(s->x)) {
        struct ft_tensor *dx = grad_like(b, s->x);
        emit(b, FT_OP_scale_columns,
             (union ft_op_args){
                 .scale_columns = {
                     .x = dy, .m = s->m, .norm = saved(b, s->norm), .add = so_far(s->x), .y = dx}});
        set_grad(s->x, dx);
    }
    if (wants(s->add))
        contribute(b, s->add, dy);
}

static void compose_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_compose_args *c = &n->args.compose;
    emit(b, FT_OP_compose_dx,
         (union ft_op_args){.compose_dx = {.dy = dy,
                                           .pa = c->pa,
                                           .pb = c->pb,
                                           .qa = c->qa,
                                           .qb = c->qb,
                                           .dpa = ft_graph_whole_gradient(c->pa),
                                           .dpb = ft_graph_whole_gradient(c->pb),
                                           .dqa = ft_graph_whole_gradient(c->qa),
                                           .dqb = ft_graph_whole_gradient(c->qb),
                                           .alpha = c->alpha,
                                           .kronecker = c->kronecker}});
}

static void embed_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_embed_args *e = &n->args.embed;
    struct ft_tensor *dw = ft_graph_whole_gradient(e->w);
    if (dw)
        emit(b, FT_OP_embed_dw,
             (union ft_op_args){.embed_dw = {dy, e->ids, dw, e->scale, e->first, e->pad}});
    if (wants(e->add))
        contribute(b, e->add, dy);
}

static void dropout_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    struct ft_dropout_args d = n->args.dropout;
    struct ft_tensor *x = d.x;
    d.x = dy;
    d.add = so_far(x);
    d.y = grad_like(b, x);
    emit(b, FT_OP_dropout, (union ft_op_args){.dropout = d});
    set_grad(x, d.y);
}

static void noise_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    contribute(b, n->args.noise.x, dy);
}

static void add_backward(struct backward *b, const struct ft_node *n, struct ft_tensor *dy)
{
    const struct ft_add_args *a = &n->args.add;
    if (wants(a->a))
        contribute(b, a->a, dy);
    if (wants(a->b) && a->beta == 1)
        contribute(b, a->b, dy);
    else if (wants(a->b))
        set_grad(a->b, ft_add(b->g, so_far(a->b), dy, a->beta));
}

static backward_fn *const table[FT_OP_COUNT] = {
    [FT_OP_embed] = embed_backward, /* ids have no gradient */
    [FT_OP_norm] = norm_backward,
    [FT_OP_norm_dx] = no_backward,
    [FT_OP_linear] = linear_backward,
    [FT_OP_linear_dx] = no_backward,
    [FT_OP_linear_dw] = no_backward,
    [FT_OP_rope] = rope_backward,
    [FT_OP_attention] = attention_backward,
    [FT_OP_attention_dx] = no_backward,
    [FT_OP_glu] = glu_backward,
    [FT_OP_glu_dx] = no_backward,
    [FT_OP_glu_pairs] = glu_pairs_backward,
    [FT_OP_glu_pairs_dx] = no_backward,
    [FT_OP_dropout_mask] = no_backward,
    [FT_OP_dropout] = dropout_backward,
    [FT_OP_noise] = noise_backward,
    [FT_OP_add] = add_backward,
    [FT_OP_store] = no_backward,
    [FT_OP_gather] = no_backward,
    [FT_OP_route] = route_backward,
    [FT_OP_route_dx] = no_backward,
    [FT_OP_balance] = no_backward, /* its part comes from balance_loss by itself */
    [FT_OP_balance_dx] = no_backward,
    [FT_OP_balance_loss] = no_backward,
    [FT_OP_spread] = spread_backward,
    [FT_OP_collect] = collect_backward,
    [FT_OP_collect_dw] = no_backward,
    [FT_OP_gate_rows] = gate_rows_backward,
    [FT_OP_gate_rows_dx] = no_backward,
    [FT_OP_regroup] = regroup_backward,
    [FT_OP_pick_heads] = pick_heads_backward,
    [FT_OP_pick_heads_dx] = no_backward,
    [FT_OP_compose] = compose_backward,
    [FT_OP_compose_dx] = no_backward,
    [FT_OP_row_norms] = no_backward, /* constants */
    [FT_OP_scale_columns] = scale_columns_backward,
    [FT_OP_columns_dw] = no_backward,
    [FT_OP_norm_dw] = no_backward,
    [FT_OP_embed_dw] = no_backward,
    [FT_OP_head_loss] = no_backward, /* leaves its gradient as an output */
    [FT_OP_grad_norm] = no_backward,
    [FT_OP_adamw] = no_backward,
    [FT_OP_sgd] = no_backward,
    [FT_OP_lion] = no_backward,
    [FT_OP_adafactor] = no_backward,
    [FT_OP_muon] = no_backward,
    [FT_OP_refresh] = no_backward,
};

void ft_graph_backward(struct ft_graph *g, enum ft_recompute policy)
{
    struct backward b = {.g = g, .policy = policy};
    ft_graph_begin(g, FT_PASS);
    for (int i = g->programs[FT_PASS].n - 1; i >= 0 && !g->rc; i--) {
        struct ft_node n = g->programs[FT_PASS].v[i]; /* a copy: the list grows below */
        if (n.removed)
            continue;
        if (n.op == FT_OP_head_loss) {
            set_grad(n.args.head_loss.h, n.args.head_loss.dh);
            if (n.args.head_loss.u)
                set_grad(n.args.head_loss.u, n.args.head_loss.du);
            continue;
        }
        if (n.op == FT_OP_balance_loss)
            b.dshares = n.args.balance_loss.dshares;
        struct ft_tensor *y = n.args.slots[ft_node_ins(&n)];
        g->layer = n.layer;
        if (n.op == FT_OP_balance)
            balance_backward(&b, &n);
        if (!wants(y) || !so_far(y))
            continue;
        table[n.op](&b, &n, so_far(y));
    }
    g->layer = -1;
}
