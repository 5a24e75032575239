/* Owns the graph's values and nodes, and the builder calls. */
#include "graph/internal.h"

const char *const ft_memory_labels[FT_MEMORY_COUNT] = {
#define X(name, label) label,
    FT_MEMORY(X)
#undef X
};

const char *const ft_recompute_labels[] = {
    [FT_KEEP_ALL] = "all activations kept",
    [FT_RECOMPUTE_CHEAP] = "norms and activation functions recomputed",
    [FT_RECOMPUTE_LAYER] = "layers recomputed",
};

int ft_graph_new(struct ft_graph **out, const struct ft_backend *b)
{
    struct ft_graph *g;
    *out = NULL;
    FT_TRY(ft_alloc(&g, 1, sizeof *g));
    g->layer = -1;
    g->backend = b;
    g->standin.t = (struct ft_tensor){.rows = 1, .cols = 1, .name = "(failed)"};
    *out = g;
    if (b->dev)
        g->live = ft_graph_input(g, "batch.live", FT_I32, 1, FT_EXTENTS, FT_FIXED);
    return g->rc;
}

void ft_graph_free(struct ft_graph *g)
{
    if (!g)
        return;
    ft_device_state_free(g);
    if (g->block)
        g->backend->free(g->backend, g->block, g->block_bytes);
    for (int p = 0; p < FT_PROGRAMS; p++)
        ft_free(g->programs[p].v);
    ft_free(g->values);
    ft_arena_fini(&g->arena);
    ft_free(g);
}

static struct ft_value *new_value(struct ft_graph *g, const char *name)
{
    if (g->rc)
        return &g->standin;
    if (g->n_values == g->room_values) {
        int room = g->room_values ? 2 * g->room_values : 1024;
        if ((g->rc = ft_grow(&g->values, (size_t)room, sizeof *g->values)))
            return &g->standin;
        g->room_values = room;
    }
    struct ft_value *v = ft_arena_alloc(&g->arena, 1, sizeof *v);
    char *copy = ft_arena_alloc(&g->arena, strlen(name) + 1, 1);
    if (!v || !copy) {
        g->rc = FT_ERESOURCE;
        return &g->standin;
    }
    v->t.name = strcpy(copy, name);
    v->t.id = g->n_values;
    v->layer = g->layer;
    v->producer = -1;
    v->first = v->last = -1;
    v->root = v;
    g->values[g->n_values++] = v;
    return v;
}

struct ft_tensor *ft_graph_value(struct ft_graph *g, enum ft_memory use, const char *name,
                                 enum ft_dtype dtype, int64_t rows, int64_t cols)
{
    FT_ASSERT(rows > 0 && cols > 0);
    struct ft_value *v = new_value(g, name);
    if (v == &g->standin)
        return &v->t;
    v->use = use;
    v->t.dtype = dtype;
    v->t.rows = rows;
    v->t.cols = cols;
    return &v->t;
}

struct ft_tensor *ft_graph_input(struct ft_graph *g, const char *name, enum ft_dtype dtype,
                                 int64_t rows, int64_t cols, enum ft_extent extent)
{
    struct ft_tensor *t = ft_graph_value(g, FT_M_BATCH, name, dtype, rows, cols);
    t->extent = extent;
    return t;
}

struct ft_tensor *ft_graph_part(struct ft_graph *g, struct ft_tensor *parent, const char *name,
                                int64_t rows, int64_t cols, int64_t first, int64_t ld)
{
    struct ft_value *p = ft_value_of(parent);
    if (g->rc)
        return &g->standin.t;
    FT_ASSERT(!p->parent && first >= 0 &&
              first + (rows - 1) * ld + cols <= parent->rows * ft_tensor_ld(parent) &&
              p->use < FT_M_PASS);
    struct ft_tensor *t = ft_graph_value(g, p->use, name, parent->dtype, rows, cols);
    if (t != &g->standin.t) {
        t->ld = ld == cols ? 0 : ld;
        t->extent = parent->extent;
        ft_value_of(t)->parent = p;
        ft_value_of(t)->first_element = first;
        ft_value_of(t)->layer = p->layer;
        ft_value_of(t)->needs_grad = p->needs_grad;
    }
    return t;
}

struct ft_tensor *ft_graph_view(struct ft_graph *g, struct ft_tensor *parent, const char *name,
                                int64_t rows, int64_t cols, int64_t first)
{
    return ft_graph_part(g, parent, name, rows, cols, first, cols);
}

struct ft_tensor *ft_graph_columns(struct ft_graph *g, struct ft_tensor *parent, const char *name,
                                   int64_t cols, int64_t first)
{
    struct ft_value *p = ft_value_of(parent);
    if (g->rc)
        return &g->standin.t;
    if (p->columns) { /* columns of columns */
        first += p->first_element;
        p = p->parent;
    }
    FT_ASSERT(!p->parent && first >= 0 && (first + cols <= p->t.cols || first + cols <= p->room));
    struct ft_tensor *t = ft_graph_value(g, p->use, name, parent->dtype, parent->rows, cols);
    if (t == &g->standin.t)
        return t;
    t->extent = parent->extent;
    ft_value_of(t)->parent = p;
    ft_value_of(t)->columns = true;
    ft_value_of(t)->first_element = first;
    ft_value_of(t)->layer = p->layer;
    ft_value_of(t)->needs_grad = p->needs_grad;
    return t;
}

/* Whether what lies behind the columns of a value is worth a longer row. */
static bool can_annex(const struct ft_graph *g, const struct ft_value *v)
{
    return g->backend->dev && !v->parent && v->use == FT_M_PASS;
}

void ft_graph_reserve(struct ft_graph *g, struct ft_tensor *t, int64_t cols)
{
    struct ft_value *v = ft_value_of(t);
    if (can_annex(g, v) && v->room < cols)
        v->room = cols;
}

struct ft_tensor *ft_graph_beside(struct ft_graph *g, struct ft_tensor *t, const char *name,
                                  int64_t cols)
{
    struct ft_value *v = ft_value_of(t);
    if (!can_annex(g, v) || v->annexed) {
        struct ft_tensor *y = ft_graph_temp(g, name, t->rows, cols);
        y->extent = t->extent;
        return y;
    }
    v->annexed = true;
    ft_graph_reserve(g, t, t->cols + cols);
    struct ft_tensor *y = ft_graph_columns(g, t, name, cols, t->cols);
    ft_value_of(y)->needs_grad = false; /* the op that writes it will tell */
    return y;
}

void ft_graph_train(struct ft_graph *g, struct ft_tensor *w, int64_t row, int64_t col,
                    struct ft_tensor *grad, float scale)
{
    struct ft_trained *t = g->rc ? NULL : ft_arena_alloc(&g->arena, 1, sizeof *t);
    if (!t) {
        g->rc = g->rc ? g->rc : FT_ERESOURCE;
        return;
    }
    FT_ASSERT(row + grad->rows <= w->rows && col + grad->cols <= w->cols && grad->dtype == FT_F32);
    *t = (struct ft_trained){grad, row, col, scale, ft_value_of(w)->trained};
    ft_value_of(w)->needs_grad = true;
    ft_value_of(w)->trained = t;
}

void ft_graph_begin(struct ft_graph *g, enum ft_program p)
{
    g->current = p;
    g->layer = -1;
}

void ft_graph_layer(struct ft_graph *g, int layer, struct ft_tensor *h)
{
    g->layer = layer;
    ft_value_of(h)->keep = true;
}

struct ft_tensor *ft_graph_name(struct ft_graph *g, struct ft_tensor *t, const char *name)
{
    if (g->rc)
        return t;
    char *copy = ft_arena_alloc(&g->arena, strlen(name) + 1, 1);
    if (copy)
        t->name = strcpy(copy, name);
    else
        g->rc = FT_ERESOURCE;
    return t;
}

struct ft_tensor *ft_graph_temp(struct ft_graph *g, const char *name, int64_t rows, int64_t cols)
{
    struct ft_tensor *t = ft_graph_value(g, FT_M_PASS, name, g->backend->act, rows, cols);
    t->extent = FT_ROWS;
    return t;
}

/* A column of sums that stays f32 on every backend. */
static struct ft_tensor *sums_like(struct ft_graph *g, const char *name, const struct ft_tensor *x,
                                   int64_t cols)
{
    struct ft_tensor *t = ft_graph_value(g, FT_M_PASS, name, FT_F32, x->rows, cols);
    t->extent = x->extent;
    return t;
}

struct ft_tensor *ft_graph_plain(struct ft_graph *g, const char *name, const struct ft_tensor *like)
{
    struct ft_tensor *t = ft_graph_temp(g, name, like->rows, like->cols);
    t->extent = like->extent;
    t->dtype = like->dtype;
    return t;
}

struct ft_tensor *ft_graph_like(struct ft_graph *g, const char *name, const struct ft_tensor *like)
{
    struct ft_tensor *t = ft_graph_plain(g, name, like);
    ft_value_of(t)->room = ft_value_of((struct ft_tensor *)like)->room;
    return t;
}

void ft_graph_emit(struct ft_graph *g, enum ft_op op, const union ft_op_args *args)
{
    const struct ft_op_row *row = &ft_op_rows[op];
    struct ft_nodes *list = &g->programs[g->current];
    if (g->rc)
        return;
    ft_op_check(op, args);
    if (list->n == list->room) {
        int room = list->room ? 2 * list->room : 512;
        if ((g->rc = ft_grow(&list->v, (size_t)room, sizeof *list->v)))
            return;
        list->room = room;
    }
    bool needs_grad = false;
    for (int i = 0; i < row->n_in; i++)
        if (args->slots[i] && ft_value_of(args->slots[i])->needs_grad)
            needs_grad = true;
    for (int i = row->n_in; i < row->n_in + row->n_out; i++) {
        struct ft_tensor *t = args->slots[i];
        if (!t || ft_value_of(t)->use < FT_M_PASS)
            continue;
        ft_value_of(t)->needs_grad |= needs_grad;
        ft_value_of(t)->producer = list->n;
    }
    list->v[list->n++] = (struct ft_node){.op = op, .args = *args, .layer = g->layer};
}

/* Emits an op whose first output is the result. */
static struct ft_tensor *emit(struct ft_graph *g, enum ft_op op, const union ft_op_args *args)
{
    ft_graph_emit(g, op, args);
    return g->rc ? &g->standin.t : args->slots[ft_op_rows[op].n_in];
}

struct ft_tensor *ft_embed(struct ft_graph *g, struct ft_embed_args a)
{
    a.y = ft_graph_temp(g, "embedding", a.ids->rows, a.w->cols);
    return emit(g, FT_OP_embed, &(union ft_op_args){.embed = a});
}

struct ft_tensor *ft_norm(struct ft_graph *g, struct ft_norm_args a, int64_t groups, bool centred)
{
    a.y = ft_graph_plain(g, "norm", a.x);
    a.rstd = sums_like(g, "norm.rstd", a.x, groups);
    a.mean = centred ? sums_like(g, "norm.mean", a.x, groups) : NULL;
    return emit(g, FT_OP_norm, &(union ft_op_args){.norm = a});
}

struct ft_tensor *ft_linear(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *w,
                            struct ft_tensor *bias, struct ft_tensor *add, float alpha)
{
    return ft_linear_low_rank(
        g, (struct ft_linear_args){.x = x, .w = w, .bias = bias, .add = add, .alpha = alpha});
}

struct ft_tensor *ft_linear_low_rank(struct ft_graph *g, struct ft_linear_args l)
{
    if (!l.y) {
        l.y = ft_graph_temp(g, l.w->name, l.x->rows, l.w->rows / ft_experts(l.offsets));
        l.y->extent = l.x->extent;
    }
    if (l.u) /* as its gradient will need it, to share its place */
        ft_graph_reserve(g, l.y, l.y->cols + l.u->cols);
    return emit(g, FT_OP_linear, &(union ft_op_args){.linear = l});
}

struct ft_tensor *ft_logits(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *w,
                            struct ft_tensor *bias)
{
    return ft_linear_low_rank(
        g, (struct ft_linear_args){
               .x = x, .w = w, .bias = bias, .y = sums_like(g, w->name, x, w->rows), .alpha = 1});
}

struct ft_tensor *ft_rope(struct ft_graph *g, struct ft_rope_args a)
{
    a.y = ft_graph_like(g, "rope", a.x);
    a.sign = 1;
    return emit(g, FT_OP_rope, &(union ft_op_args){.rope = a});
}

void ft_rope_qkv(struct ft_graph *g, struct ft_tensor *qkv[3], struct ft_rope_args a)
{
    struct ft_value *whole = ft_value_of(qkv[0])->parent;
    const int heads = (int)(qkv[0]->cols / a.head_dim), kv_heads = (int)(qkv[1]->cols / a.head_dim);
    int64_t at = 0;
    for (int i = 0; i < 2 && !whole && !g->rc; i++) {
        a.x = qkv[i];
        a.heads = i ? kv_heads : heads;
        qkv[i] = ft_rope(g, a);
    }
    if (!whole || g->rc)
        return;
    a.x = &whole->t;
    a.heads = heads + kv_heads;
    struct ft_tensor *y = ft_rope(g, a);
    for (int i = 0; i < 3 && !g->rc; i++) {
        FT_ASSERT(ft_value_of(qkv[i])->parent == whole && ft_value_of(qkv[i])->first_element == at);
        at += qkv[i]->cols;
        qkv[i] = ft_graph_columns(g, y, qkv[i]->name, qkv[i]->cols, at - qkv[i]->cols);
    }
}

struct ft_tensor *ft_regroup(struct ft_graph *g, struct ft_tensor *x, int groups, int per_group,
                             int head_dim)
{
    struct ft_tensor *y = ft_graph_plain(g, x->name, x);
    return emit(g, FT_OP_regroup,
                &(union ft_op_args){.regroup = {x, y, groups, per_group, head_dim, false}});
}

struct ft_tensor *ft_pick_heads(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *rest,
                                int heads, int first, int n, int width)
{
    struct ft_tensor *y = ft_graph_temp(g, x->name, x->rows, (int64_t)heads * width);
    y->extent = x->extent;
    return emit(g, FT_OP_pick_heads,
                &(union ft_op_args){.pick_heads = {x, rest, y, heads, first, n}});
}

struct ft_tensor *ft_attention(struct ft_graph *g, struct ft_attention_args a)
{
    a.o = ft_graph_plain(g, "attention", a.q);
    a.lse = sums_like(g, "attention.lse", a.q, a.heads);
    return emit(g, FT_OP_attention, &(union ft_op_args){.attention = a});
}

void ft_store(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *places,
              struct ft_tensor *y)
{
    ft_graph_emit(g, FT_OP_store, &(union ft_op_args){.store = {x, places, y}});
}

struct ft_tensor *ft_gather(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *picked)
{
    struct ft_tensor *y = ft_graph_temp(g, x->name, picked->rows, x->cols);
    y->extent = picked->extent;
    return emit(g, FT_OP_gather, &(union ft_op_args){.gather = {x, picked, y}});
}

/* A table of whole numbers that the pass makes. */
static struct ft_tensor *numbers(struct ft_graph *g, const char *name, int64_t rows, int64_t cols,
                                 enum ft_extent extent)
{
    struct ft_tensor *t = ft_graph_value(g, FT_M_PASS, name, FT_I32, rows, cols);
    t->extent = extent;
    return t;
}

struct ft_route_args ft_route(struct ft_graph *g, struct ft_route_args a, int64_t k)
{
    const int64_t rows = a.logits->rows;
    const enum ft_extent extent = a.logits->extent;
    a.weights = sums_like(g, "routing", a.logits, k);
    a.chosen = numbers(g, "routing", rows, k, extent);
    a.places = numbers(g, "routing", rows, k, extent);
    a.slots = numbers(g, "routing", rows * k, 1, FT_ROUTED);
    a.offsets = numbers(g, "routing", 1, a.logits->cols + 1, FT_FIXED);
    ft_graph_emit(g, FT_OP_route, &(union ft_op_args){.route = a});
    return a;
}

struct ft_tensor *ft_balance(struct ft_graph *g, const struct ft_route_args *r,
                             struct ft_tensor *so_far)
{
    struct ft_tensor *sums = ft_graph_value(g, FT_M_PASS, "balance", FT_F32, 2, r->logits->cols);
    return emit(g, FT_OP_balance,
                &(union ft_op_args){.balance = {r->logits, r->chosen, so_far, sums}});
}

void ft_balance_loss(struct ft_graph *g, struct ft_balance_loss_args a)
{
    a.dshares = ft_graph_value(g, FT_M_PASS, "balance gradient", FT_F32, 1, a.sums->cols);
    ft_graph_emit(g, FT_OP_balance_loss, &(union ft_op_args){.balance_loss = a});
}

struct ft_tensor *ft_spread(struct ft_graph *g, struct ft_tensor *x, const struct ft_route_args *r,
                            bool weighted)
{
    struct ft_tensor *y = ft_graph_temp(g, "routed rows", r->slots->rows, x->cols);
    y->extent = FT_ROUTED;
    return emit(
        g, FT_OP_spread,
        &(union ft_op_args){.spread = {x, r->slots, r->places, weighted ? r->weights : NULL, y}});
}

struct ft_tensor *ft_collect(struct ft_graph *g, struct ft_tensor *x, const struct ft_route_args *r,
                             bool weighted, struct ft_tensor *add)
{
    struct ft_tensor *y = ft_graph_temp(g, "experts", r->places->rows, x->cols);
    y->extent = r->places->extent;
    return emit(g, FT_OP_collect,
                &(union ft_op_args){
                    .collect = {x, r->places, r->slots, weighted ? r->weights : NULL, add, y}});
}

struct ft_tensor *ft_gate_rows(struct ft_graph *g, struct ft_tensor *gate, struct ft_tensor *x,
                               struct ft_tensor *add)
{
    struct ft_tensor *y = ft_graph_plain(g, "gated", x);
    return emit(g, FT_OP_gate_rows, &(union ft_op_args){.gate_rows = {gate, x, add, y}});
}

struct ft_tensor *ft_glu(struct ft_graph *g, struct ft_tensor *gate, struct ft_tensor *up,
                         enum ft_activation act)
{
    struct ft_tensor *y = ft_graph_plain(g, "activation", gate);
    return emit(g, FT_OP_glu, &(union ft_op_args){.glu = {gate, up, y, act}});
}

struct ft_tensor *ft_glu_pairs(struct ft_graph *g, struct ft_tensor *x, float alpha, float limit)
{
    struct ft_tensor *y = ft_graph_temp(g, "activation", x->rows, x->cols / 2);
    y->extent = x->extent;
    return emit(g, FT_OP_glu_pairs, &(union ft_op_args){.glu_pairs = {x, y, alpha, limit}});
}

struct ft_tensor *ft_dropout_mask(struct ft_graph *g, struct ft_dropout_mask_args a, int64_t cols)
{
    a.mask =
        ft_graph_value(g, FT_M_PASS, "dropout mask", FT_U8, a.keys->rows, a.n * ((cols + 7) / 8));
    a.mask->extent = a.keys->extent;
    return emit(g, FT_OP_dropout_mask, &(union ft_op_args){.dropout_mask = a});
}

struct ft_tensor *ft_dropout(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *keys,
                             float p, uint32_t site, uint64_t seed)
{
    struct ft_tensor *y = ft_graph_plain(g, "dropout", x);
    return emit(g, FT_OP_dropout,
                &(union ft_op_args){.dropout = {x, keys, NULL, y, p, site, seed}});
}

struct ft_tensor *ft_noise(struct ft_graph *g, struct ft_tensor *x, struct ft_tensor *keys,
                           struct ft_tensor *spans, float alpha, uint64_t seed)
{
    struct ft_tensor *y = ft_graph_plain(g, "noise", x);
    return emit(g, FT_OP_noise, &(union ft_op_args){.noise = {x, keys, spans, y, alpha, seed}});
}

struct ft_tensor *ft_add(struct ft_graph *g, struct ft_tensor *a, struct ft_tensor *b, float beta)
{
    struct ft_tensor *y = ft_graph_like(g, "add", a ? a : b);
    return emit(g, FT_OP_add, &(union ft_op_args){.add = {a, b, y, beta}});
}

struct ft_tensor *ft_compose(struct ft_graph *g, struct ft_compose_args a, const char *name)
{
    const int64_t k1 = a.pb ? a.pb->cols : a.pa->cols, k2 = a.qb ? a.qb->cols : a.qa->cols;
    const int64_t rows = a.kronecker ? a.pa->rows * a.qa->rows : a.pa->rows;
    a.y = ft_graph_value(g, FT_M_PASS, name, g->backend->act, rows, a.kronecker ? k1 * k2 : k1);
    return emit(g, FT_OP_compose, &(union ft_op_args){.compose = a});
}

struct ft_tensor *ft_row_norms(struct ft_graph *g, struct ft_tensor *w, struct ft_tensor *a,
                               struct ft_tensor *b, float scale)
{
    struct ft_tensor *y = ft_graph_value(g, FT_M_PASS, "row norms", FT_F32, 1, w->rows);
    return emit(g, FT_OP_row_norms, &(union ft_op_args){.row_norms = {w, a, b, y, scale}});
}

struct ft_tensor *ft_scale_columns(struct ft_graph *g, struct ft_scale_columns_args a)
{
    a.y = ft_graph_plain(g, "scaled", a.x);
    return emit(g, FT_OP_scale_columns, &(union ft_op_args){.scale_columns = a});
}

struct ft_tensor *ft_graph_whole_gradient(struct ft_tensor *w)
{
    const struct ft_trained *t = w ? ft_value_of(w)->trained : NULL;
    FT_ASSERT(!t || (!t->next && t->scale == 1));
    return t ? t->grad : NULL;
}

void ft_head_loss(struct ft_graph *g, struct ft_head_loss_args a)
{
    if (g->current == FT_PASS) {
        a.dh = ft_graph_like(g, "head.dh", a.h);
        a.dw = ft_graph_whole_gradient(a.w);
        a.du = a.u ? ft_graph_plain(g, "gradient", a.u) : NULL;
        a.db = ft_graph_whole_gradient(a.b);
    }
    ft_graph_emit(g, FT_OP_head_loss, &(union ft_op_args){.head_loss = a});
}
