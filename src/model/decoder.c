/* Walks a struct ft_decoder: lists its modules and weights, and builds its forward pass. */
#include "model/internal.h"

#include "core/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- weights --- */

/* A tensor's path in transformers, from its name in the files. */
static const char *path_of(struct ft_model *m, const char *name)
{
    if (strcmp(name, m->head_name) == 0 && !m->decoder.tied)
        return ft_arena_format(&m->arena, "%s.weight", m->decoder.names.head);
    if (!ft_starts_with(name, m->in_file)) /* a tied head in the embedding's place */
        return ft_arena_format(&m->arena, "%s%s.weight", m->decoder.names.prefix,
                               m->decoder.names.embed);
    return ft_arena_format(&m->arena, "%s%s", m->decoder.names.prefix, name + strlen(m->in_file));
}

/* Notes that the folder must hold this tensor; slot gets it when declared. */
static int want(struct ft_model *m, enum ft_weight_kind kind, struct ft_tensor **slot, int64_t rows,
                int64_t cols, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
static int want(struct ft_model *m, enum ft_weight_kind kind, struct ft_tensor **slot, int64_t rows,
                int64_t cols, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    if (m->n_weights == m->room_weights) {
        int room = m->room_weights ? 2 * m->room_weights : 256;
        FT_TRY(ft_grow(&m->weights, (size_t)room, sizeof *m->weights));
        m->room_weights = room;
    }
    char *copy = ft_arena_format(&m->arena, "%s", name);
    const char *path = copy ? path_of(m, copy) : NULL;
    if (!path)
        return FT_ERESOURCE;
    m->weights[m->n_weights++] = (struct ft_weight){.name = copy,
                                                    .path = path,
                                                    .kind = kind,
                                                    .rows = rows,
                                                    .cols = cols,
                                                    .stored = rows,
                                                    .slot = slot};
    return FT_OK;
}

/* What a kind of module reads and gives, and which kinds read the same: those of a row. */
static void module_shape(const struct ft_decoder *d, enum ft_kind kind, int64_t *in, int64_t *out)
{
    const int64_t q = d->heads * d->head_dim, kv = d->kv_heads * d->head_dim;
    const struct ft_latent *l = &d->latent;
    const int64_t outs[FT_KINDS] = {[FT_Q] = q,
                                    [FT_K] = kv,
                                    [FT_V] = kv,
                                    [FT_QKV] = q + 2 * kv,
                                    [FT_Q_DOWN] = l->q,
                                    [FT_Q_UP] = q,
                                    [FT_KV_DOWN] = l->kv + l->rotated,
                                    [FT_KV_UP] = d->heads * (l->still + l->v),
                                    [FT_O_GATE] = q,
                                    [FT_O] = d->hidden,
                                    [FT_GATE] = d->ffn,
                                    [FT_UP] = d->ffn,
                                    [FT_GATE_UP] = 2 * d->ffn,
                                    [FT_DOWN] = d->hidden,
                                    [FT_SHARED_GATE] = d->mixture.shared_ffn,
                                    [FT_SHARED_UP] = d->mixture.shared_ffn,
                                    [FT_SHARED_DOWN] = d->hidden,
                                    [FT_SHARED_SCALE] = 1,
                                    [FT_EXPERTS_IN] = 2 * d->mixture.ffn,
                                    [FT_EXPERTS_OUT] = d->hidden};
    *out = outs[kind];
    *in = kind == FT_O             ? (l->kv ? d->heads * l->v : q)
          : kind == FT_Q_UP        ? l->q
          : kind == FT_KV_UP       ? l->kv
          : kind == FT_DOWN        ? d->ffn
          : kind == FT_SHARED_DOWN ? d->mixture.shared_ffn
          : kind == FT_EXPERTS_OUT ? d->mixture.ffn
                                   : d->hidden;
}

/* The first kind of those that read the same input and follow each other. */
static enum ft_kind group_of(enum ft_kind kind)
{
    return kind == FT_K || kind == FT_V ? FT_Q
           : kind == FT_UP              ? FT_GATE
           : kind == FT_SHARED_UP       ? FT_SHARED_GATE
                                        : kind;
}

const char *ft_decoder_expert(struct ft_model *m, const char *prefix, int layer, int64_t expert,
                              int which, const char *end)
{
    static const char *const plain[] = {"gate", "up", NULL, "down"}; /* only GGUF has them apart */
    const struct ft_names *n = &m->decoder.names;
    const char *own = n->expert[0] ? n->expert[which] : plain[which];
    const char *all = n->experts ? n->experts : n->module[FT_EXPERTS_IN];
    const int length = n->experts ? (int)strlen(all) : (int)(strrchr(all, '.') - all);
    if (n->linear[0] && !m->gguf)
        return ft_arena_format(&m->arena, "%s%s.%d.%.*s.%s.%lld.%s", prefix, n->layers, layer,
                               length, all, n->linear[which], (long long)expert, end);
    return expert < 0 ? ft_arena_format(&m->arena, "%s%s.%d.%.*s.%s.%s", prefix, n->layers, layer,
                                        length, all, own, end)
                      : ft_arena_format(&m->arena, "%s%s.%d.%.*s.%lld.%s.%s", prefix, n->layers,
                                        layer, length, all, (long long)expert, own, end);
}

/* The tensors that the files have of a weight one by one: of each expert, or of all of them
 * (`expert` below 0); of gates and ups each. */
static int want_pieces(struct ft_model *m, const struct ft_module *p, struct ft_weight *w, int n,
                       bool all, const char *end)
{
    const bool in = p->kind == FT_EXPERTS_IN;
    const int each = in ? 2 : 1;
    w->n_pieces = n;
    w->pieces = ft_arena_alloc(&m->arena, (size_t)n, sizeof *w->pieces);
    for (int i = 0; w->pieces && i < n; i++)
        if (!(w->pieces[i].name = ft_decoder_expert(m, m->in_file, p->layer, all ? -1 : i / each,
                                                    in ? i % each : 3, end)))
            return FT_ERESOURCE;
    return w->pieces ? FT_OK : FT_ERESOURCE;
}

/* What is added to all experts' products. */
static int want_biases(struct ft_model *m, struct ft_module *p)
{
    const struct ft_names *n = &m->decoder.names;
    FT_TRY(want(m, FT_W_BUFFER, &p->bias, p->experts, p->out, "%s%s.%d.%s_bias", m->in_file,
                n->layers, p->layer, n->module[p->kind]));
    struct ft_weight *w = &m->weights[m->n_weights - 1];
    if (!m->gguf || p->kind != FT_EXPERTS_IN)
        return FT_OK;
    w->by_turns = true;
    w->piece_rows = w->rows;
    return want_pieces(m, p, w, 2, true, "bias");
}

/* Whether the files have the first expert's matrix under linearised names. */
static bool has_linear(struct ft_model *m, const struct ft_module *p)
{
    struct ft_st *file;
    const char *name =
        ft_decoder_expert(m, m->in_file, p->layer, 0, p->kind == FT_EXPERTS_IN ? 0 : 3, "weight");
    return name && ft_model_entry(m, name, &file);
}

/* A weight of all experts: one tensor, or in the files one for each expert, and for its gate and up
 * too. */
static int want_experts(struct ft_model *m, struct ft_module *p)
{
    const struct ft_names *n = &m->decoder.names;
    const bool in = p->kind == FT_EXPERTS_IN;
    const char *all = n->all_in_file[!in];
    const int each = in ? 2 : 1;
    struct ft_st *file;
    const struct ft_st_entry *e;
    char name[256];
    p->experts = m->decoder.mixture.count;
    snprintf(name, sizeof name, "%s%s.%d.%s", m->in_file, n->layers, p->layer,
             all ? all : n->module[p->kind]);
    if (!ft_model_entry(m, name, &file) && !m->gguf)
        snprintf(name, sizeof name, "%s%s.%d.%s", m->in_file, n->layers, p->layer,
                 n->module[p->kind]);
    FT_TRY(want(m, FT_W_EXPERTS, &p->w, p->experts * p->out, p->in, "%s", name));
    struct ft_weight *w = &m->weights[m->n_weights - 1];
    w->path = p->name;
    w->parts = (int)p->experts;
    e = ft_model_entry(m, name, &file);
    const bool fits = e && e->n_dims == 3 && p->in != p->out && e->dims[1] == p->in;
    w->transposed = e && (n->always_turned || (n->turned && fits));
    if (n->expert[0] && !(p->once = ft_arena_format(&m->arena, "%s%s.%d.%s", n->prefix, n->layers,
                                                    p->layer, n->experts)))
        return FT_ERESOURCE;
    const bool apart = n->expert[0] || m->gguf || (n->linear[0] && has_linear(m, p));
    if (!e && m->n_files && apart) {
        w->piece_rows = w->rows / (w->parts * each);
        w->by_turns = in && m->decoder.mixture.pair_limit > 0;
        FT_TRY(want_pieces(m, p, w, w->parts * each, false, "weight"));
    }
    return m->decoder.mixture.biased ? want_biases(m, p) : FT_OK;
}

/* As it is called in files, or, beside experts in one tensor, as it is called in the model. */
static int want_router(struct ft_model *m, int layer)
{
    const struct ft_names *n = &m->decoder.names;
    struct ft_layer *l = &m->layers[layer];
    struct ft_st *file;
    char own[256];
    snprintf(own, sizeof own, "%s%s.%d.%s.weight", m->in_file, n->layers, layer, n->router);
    const bool as_own = !n->router_in_file || ft_model_entry(m, own, &file);
    FT_TRY(want(m, FT_W_ROUTER, &l->router, m->decoder.mixture.count, m->decoder.hidden,
                "%s%s.%d.%s.weight", m->in_file, n->layers, layer,
                as_own ? n->router : n->router_in_file));
    struct ft_weight *w = &m->weights[m->n_weights - 1];
    if (!(w->path = ft_arena_format(&m->arena, "%s%s.%d.%s.weight", n->prefix, n->layers, layer,
                                    n->router)))
        return FT_ERESOURCE;
    if (m->decoder.mixture.biased)
        FT_TRY(want(m, FT_W_BUFFER, &l->router_bias, m->decoder.mixture.count, 0, "%s%s.%d.%s.bias",
                    m->in_file, n->layers, layer, n->router));
    return n->correction ? want(m, FT_W_SCORE, &l->correction, m->decoder.mixture.count, 0,
                                "%s%s.%d.%s", m->in_file, n->layers, layer, n->correction)
                         : FT_OK;
}

static int add_module(struct ft_model *m, int layer, enum ft_kind kind)
{
    const struct ft_decoder *d = &m->decoder;
    const struct ft_names *n = &d->names;
    struct ft_module *p = &m->modules[m->n_modules];
    struct ft_layer *l = &m->layers[layer];
    const int first = l->module[group_of(kind)];
    l->module[kind] = m->n_modules;
    *p = (struct ft_module){.kind = kind, .layer = layer, .experts = 1};
    p->group = first >= 0 ? first : m->n_modules;
    m->n_modules++;
    module_shape(d, kind, &p->in, &p->out);
    p->name =
        ft_arena_format(&m->arena, "%s%s.%d.%s", n->prefix, n->layers, layer, n->module[kind]);
    if (!p->name)
        return FT_ERESOURCE;
    if (ft_is_experts(kind))
        return want_experts(m, p);
    FT_TRY(want(m, FT_W_LINEAR, &p->w, p->out, p->in, "%s%s.%d.%s.weight", m->in_file, n->layers,
                layer, n->module[kind]));
    m->weights[m->n_weights - 1].transposed = d->conv1d && !m->gguf;
    if (d->biased & FT_BIT(kind))
        FT_TRY(want(m, FT_W_BIAS, &p->bias, p->out, 0, "%s%s.%d.%s.bias", m->in_file, n->layers,
                    layer, n->module[kind]));
    return FT_OK;
}

static int want_norm(struct ft_model *m, struct ft_norm_weights *to, int64_t rows, int64_t cols,
                     const char *name)
{
    FT_TRY(want(m, FT_W_NORM, &to->w, rows, cols, "%s%s.weight", m->in_file, name));
    if (m->decoder.norm_biased)
        FT_TRY(want(m, FT_W_BIAS, &to->bias, rows, cols, "%s%s.bias", m->in_file, name));
    return FT_OK;
}

static int add_norm(struct ft_model *m, int layer, enum ft_norm_site site)
{
    const struct ft_decoder *d = &m->decoder;
    const int64_t heads = site == FT_NORM_Q ? d->heads : d->kv_heads;
    int64_t rows = d->hidden, cols = 0;
    char name[128];
    if (site == FT_NORM_Q || site == FT_NORM_K) {
        rows = d->qk_norm == FT_QK_WHOLE       ? heads * d->head_dim
               : d->qk_norm == FT_QK_EACH_HEAD ? heads
                                               : d->head_dim;
        cols = d->qk_norm == FT_QK_EACH_HEAD ? d->head_dim : 0;
    }
    if (site == FT_NORM_Q_NARROW || site == FT_NORM_KV_NARROW)
        rows = site == FT_NORM_Q_NARROW ? d->latent.q : d->latent.kv;
    snprintf(name, sizeof name, "%s.%d.%s", d->names.layers, layer, d->names.layer_norm[site]);
    return want_norm(m, &m->layers[layer].norm[site], rows, cols, name);
}

/* An MLP of its own, or a mixture's. */
static bool has_module(const struct ft_decoder *d, int layer, enum ft_kind kind)
{
    return kind < FT_GATE || (kind >= FT_SHARED_GATE) == d->layer[layer].experts;
}

static int add_layer(struct ft_model *m, int layer)
{
    const struct ft_names *n = &m->decoder.names;
    for (int k = 0; k < FT_KINDS; k++)
        m->layers[layer].module[k] = -1;
    for (int k = 0; k < FT_KINDS; k++)
        if (n->module[k] && has_module(&m->decoder, layer, (enum ft_kind)k))
            FT_TRY(add_module(m, layer, (enum ft_kind)k));
    if (m->decoder.layer[layer].experts)
        FT_TRY(want_router(m, layer));
    if (n->sinks)
        FT_TRY(want(m, FT_W_SCORE, &m->layers[layer].sinks, m->decoder.heads, 0, "%s%s.%d.%s",
                    m->in_file, n->layers, layer, n->sinks));
    for (int s = 0; s < FT_NORM_SITES; s++)
        if (n->layer_norm[s])
            FT_TRY(add_norm(m, layer, (enum ft_norm_site)s));
    return FT_OK;
}

int ft_decoder_weights(struct ft_model *m)
{
    const struct ft_decoder *d = &m->decoder;
    const size_t layers = (size_t)d->layers;
    FT_TRY(ft_alloc(&m->layers, layers, sizeof *m->layers));
    FT_TRY(ft_alloc(&m->modules, layers * FT_KINDS, sizeof *m->modules));
    FT_TRY(ft_alloc(&m->stacks, layers * FT_KINDS, sizeof *m->stacks));
    FT_TRY(want(m, FT_W_EMBED, &m->embed, d->vocab, d->hidden, "%s", m->embed_name));
    if (d->names.positions)
        FT_TRY(want(m, FT_W_POSITIONS, &m->positions, d->positions, d->hidden, "%s%s.weight",
                    m->in_file, d->names.positions));
    for (int l = 0; l < d->layers; l++)
        FT_TRY(add_layer(m, l));
    if (d->names.norm)
        FT_TRY(want_norm(m, &m->final_norm, d->hidden, 0, d->names.norm));
    if (!d->tied)
        FT_TRY(want(m, FT_W_HEAD, &m->head, d->vocab, d->hidden, "%s", m->head_name));
    return FT_OK;
}

/* --- the forward pass --- */

struct step {
    struct ft_model *m;
    struct ft_graph *g;
    const struct ft_model_inputs *in;
    const struct ft_decoder *d;
    const struct ft_layer *layer;
    const struct ft_decoder_layer *how;
};

static struct ft_tensor *norm(const struct step *s, struct ft_tensor *x,
                              const struct ft_norm_weights *w, int64_t groups)
{
    const struct ft_norm_args a = {.x = x,
                                   .w = w->w,
                                   .bias = w->bias,
                                   .eps = (float)s->d->norm_eps,
                                   .offset = (float)s->d->norm_offset};
    return ft_norm(s->g, a, groups, s->d->norm_centred);
}

/* The norm at a place of the layer, if it has one. */
static struct ft_tensor *norm_at(const struct step *s, enum ft_norm_site site, struct ft_tensor *x)
{
    const struct ft_norm_weights *w = &s->layer->norm[site];
    return w->w ? norm(s, x, w, 1) : x;
}

/* n modules from this kind on, one group, into out. */
static void project(const struct step *s, enum ft_kind kind, int n, struct ft_tensor *x,
                    struct ft_tensor *add, struct ft_tensor **out)
{
    const int first = s->layer->module[kind];
    if (s->in->linear) {
        s->in->linear(s->in->ctx, s->g, first, n, x, add, out);
        return;
    }
    for (int i = 0; i < n; i++) {
        const struct ft_module *p = &s->m->modules[first + i];
        out[i] = ft_linear(s->g, x, p->w, p->bias, add, 1.f);
    }
}

/* h + residual_scale * norm(module(x)): by the module's own product where nothing is between. */
static struct ft_tensor *residual(const struct step *s, enum ft_kind kind, enum ft_norm_site site,
                                  struct ft_tensor *x, struct ft_tensor *h)
{
    struct ft_tensor *y;
    const bool direct = !s->layer->norm[site].w && s->d->residual_scale == 1;
    project(s, kind, 1, x, direct ? h : NULL, &y);
    return direct ? y : ft_add(s->g, h, norm_at(s, site, y), (float)s->d->residual_scale);
}

/* Queries, keys and values as slices of one value, or each of its own. */
static void project_qkv(const struct step *s, struct ft_tensor *x, struct ft_tensor *qkv[3])
{
    const struct ft_decoder *d = s->d;
    const int64_t cols[3] = {d->heads * d->head_dim, d->kv_heads * d->head_dim,
                             d->kv_heads * d->head_dim};
    int64_t at = 0;
    struct ft_tensor *whole;
    if (!ft_decoder_has(d, FT_QKV)) {
        project(s, FT_Q, 3, x, NULL, qkv);
        return;
    }
    project(s, FT_QKV, 1, x, NULL, &whole);
    if (d->qkv_by_group)
        whole = ft_regroup(s->g, whole, (int)d->kv_heads, (int)(d->heads / d->kv_heads),
                           (int)d->head_dim);
    for (int i = 0; i < 3; at += cols[i++])
        qkv[i] = ft_graph_columns(s->g, whole, whole->name, cols[i], at);
}

/* The norm of what is narrow; its class has an epsilon of its own. */
static struct ft_tensor *norm_narrow(const struct step *s, enum ft_norm_site site,
                                     struct ft_tensor *x)
{
    const struct ft_norm_args a = {.x = x, .w = s->layer->norm[site].w, .eps = 1e-6F};
    return ft_norm(s->g, a, 1, false);
}

/* The same from narrow ones, rotated. Values are followed by zeros up to head_dim. */
static void project_latent(const struct step *s, struct ft_tensor *x, struct ft_tensor *qkv[3])
{
    const struct ft_decoder *d = s->d;
    const struct ft_latent *l = &d->latent;
    const int heads = (int)d->heads, width = (int)d->head_dim, still = (int)l->still;
    struct ft_rope_args a = {.angles = s->in->angles,
                             .cos = s->in->cos[s->how->rope],
                             .sin = s->in->sin[s->how->rope],
                             .interleaved = d->interleaved};
    struct ft_tensor *narrow, *both;
    project(s, l->q ? FT_Q_DOWN : FT_Q, 1, x, NULL, &a.x);
    if (l->q)
        project(s, FT_Q_UP, 1, norm_narrow(s, FT_NORM_Q_NARROW, a.x), NULL, &a.x);
    a.heads = heads;
    a.head_dim = width;
    a.first = still;
    qkv[0] = ft_rope(s->g, a);
    project(s, FT_KV_DOWN, 1, x, NULL, &narrow);
    a.x = ft_graph_columns(s->g, narrow, narrow->name, l->rotated, l->kv);
    a.heads = 1;
    a.head_dim = (int)l->rotated;
    a.first = 0;
    struct ft_tensor *rotated = ft_rope(s->g, a);
    narrow = ft_graph_columns(s->g, narrow, narrow->name, l->kv, 0);
    project(s, FT_KV_UP, 1, norm_narrow(s, FT_NORM_KV_NARROW, narrow), NULL, &both);
    qkv[1] = ft_pick_heads(s->g, both, rotated, heads, 0, still, width);
    qkv[2] = ft_pick_heads(s->g, both, NULL, heads, still, (int)l->v, width);
}

static void norm_qk(const struct step *s, struct ft_tensor *qkv[3])
{
    const int64_t heads[2] = {s->d->heads, s->d->kv_heads};
    for (int i = 0; i < 2; i++) {
        const struct ft_norm_weights *w = &s->layer->norm[i ? FT_NORM_K : FT_NORM_Q];
        if (w->w)
            qkv[i] = norm(s, qkv[i], w, s->d->qk_norm == FT_QK_WHOLE ? 1 : heads[i]);
    }
}

static void rotate(const struct step *s, struct ft_tensor *qkv[3])
{
    const int tables[2] = {s->how->rope_q, s->how->rope};
    struct ft_rope_args a = {
        .angles = s->in->angles, .head_dim = (int)s->d->head_dim, .interleaved = s->d->interleaved};
    if (tables[0] < 0 && tables[1] < 0)
        return;
    if (tables[0] == tables[1]) {
        a.cos = s->in->cos[tables[0]];
        a.sin = s->in->sin[tables[0]];
        ft_rope_qkv(s->g, qkv, a);
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (tables[i] < 0)
            continue;
        a.x = qkv[i];
        a.cos = s->in->cos[tables[i]];
        a.sin = s->in->sin[tables[i]];
        a.heads = (int)(i ? s->d->kv_heads : s->d->heads);
        qkv[i] = ft_rope(s->g, a);
    }
}

/* A norm without a weight: 1 is added to zeros, which is what memory begins with. */
static void bring_to_length(const struct step *s, struct ft_tensor *qkv[3])
{
    const int64_t heads[2] = {s->d->heads, s->d->kv_heads};
    const enum ft_dtype dtype = ft_graph_backend(s->g)->act;
    struct ft_tensor *zeros = ft_graph_value(s->g, FT_M_WEIGHTS, "zeros", dtype, 1, s->d->head_dim);
    for (int i = 0; i < 2; i++) {
        const struct ft_norm_args a = {
            .x = qkv[i], .w = zeros, .eps = (float)s->d->norm_eps, .offset = 1};
        qkv[i] = ft_norm(s->g, a, heads[i], false);
    }
}

/* Queries, keys and values as attention takes them. */
static void prepare_qkv(const struct step *s, struct ft_tensor *x, struct ft_tensor *qkv[3])
{
    const struct ft_decoder *d = s->d;
    if (d->latent.kv) {
        project_latent(s, x, qkv);
        return;
    }
    project_qkv(s, x, qkv);
    if (!d->qk_norm_rotated)
        norm_qk(s, qkv);
    rotate(s, qkv);
    if (d->qk_norm_rotated)
        norm_qk(s, qkv);
    if (d->qk_length && s->how->rope >= 0)
        bring_to_length(s, qkv);
}

static struct ft_tensor *attend(const struct step *s, struct ft_tensor *x)
{
    const struct ft_decoder *d = s->d;
    const double scale =
        d->attention_scale > 0 ? d->attention_scale : 1 / sqrt((double)d->head_dim);
    struct ft_tensor *qkv[3];
    prepare_qkv(s, x, qkv);
    const struct ft_attention_args a = {.q = qkv[0],
                                        .k = qkv[1],
                                        .v = qkv[2],
                                        .spans = s->how->chunked ? s->in->chunks : s->in->spans,
                                        .sinks = s->layer->sinks,
                                        .heads = (int)d->heads,
                                        .kv_heads = (int)d->kv_heads,
                                        .head_dim = (int)d->head_dim,
                                        .window = s->how->window,
                                        .scale = (float)scale,
                                        .softcap = (float)d->attention_softcap};
    struct ft_tensor *y = s->in->attend
                              ? s->in->attend(s->in->ctx, s->g, (int)(s->layer - s->m->layers), a)
                              : ft_attention(s->g, a);
    if (d->latent.kv && d->latent.v < d->head_dim)
        y = ft_pick_heads(s->g, y, NULL, (int)d->heads, 0, (int)d->latent.v, (int)d->latent.v);
    if (!ft_decoder_has(d, FT_O_GATE))
        return y;
    struct ft_tensor *gate;
    project(s, FT_O_GATE, 1, x, NULL, &gate);
    return ft_glu(s->g, gate, y, FT_SIGMOID);
}

/* What the last product of the MLP reads. */
static struct ft_tensor *activate(const struct step *s, struct ft_tensor *x)
{
    const struct ft_decoder *d = s->d;
    struct ft_tensor *gate_up[2], *whole;
    if (ft_decoder_has(d, FT_GATE_UP)) {
        project(s, FT_GATE_UP, 1, x, NULL, &whole);
        for (int i = 0; i < 2; i++)
            gate_up[i] = ft_graph_columns(s->g, whole, whole->name, d->ffn, i * d->ffn);
    } else if (ft_decoder_has(d, FT_GATE)) {
        project(s, FT_GATE, 2, x, NULL, gate_up);
    } else {
        project(s, FT_UP, 1, x, NULL, gate_up);
        gate_up[1] = NULL;
    }
    return ft_glu(s->g, gate_up[0], gate_up[1], d->act);
}

static struct ft_tensor *project_experts(const struct step *s, enum ft_kind kind,
                                         struct ft_tensor *x, struct ft_tensor *offsets)
{
    const int module = s->layer->module[kind];
    const struct ft_linear_args a = {.x = x,
                                     .w = s->m->modules[module].w,
                                     .bias = s->m->modules[module].bias,
                                     .offsets = offsets,
                                     .alpha = 1};
    return s->in->experts ? s->in->experts(s->in->ctx, s->g, module, x, offsets)
                          : ft_linear_low_rank(s->g, a);
}

/* add (NULL: none) and what the expert gives that all rows go to. */
static struct ft_tensor *shared_expert(const struct step *s, struct ft_tensor *x,
                                       struct ft_tensor *add)
{
    struct ft_tensor *gate_up[2], *y, *scale;
    const bool scaled = ft_decoder_has(s->d, FT_SHARED_SCALE);
    if (!s->d->mixture.shared_ffn)
        return add;
    project(s, FT_SHARED_GATE, 2, x, NULL, gate_up);
    struct ft_tensor *z = ft_glu(s->g, gate_up[0], gate_up[1], s->d->act);
    project(s, FT_SHARED_DOWN, 1, z, scaled ? NULL : add, &y);
    if (!scaled)
        return y;
    project(s, FT_SHARED_SCALE, 1, x, NULL, &scale);
    return ft_gate_rows(s->g, scale, y, add);
}

/* What the last product of the experts reads. */
static struct ft_tensor *activate_experts(const struct step *s, struct ft_tensor *whole)
{
    const struct ft_mixture *e = &s->d->mixture;
    if (e->pair_limit > 0)
        return ft_glu_pairs(s->g, whole, (float)e->pair_alpha, (float)e->pair_limit);
    struct ft_tensor *gate = ft_graph_columns(s->g, whole, whole->name, e->ffn, 0),
                     *up = ft_graph_columns(s->g, whole, whole->name, e->ffn, e->ffn);
    return ft_glu(s->g, gate, up, s->d->act);
}

/* h + residual_scale * norm(what the experts that x is sent to give for it). */
static struct ft_tensor *mixture(const struct step *s, struct ft_tensor *x, struct ft_tensor *h)
{
    const struct ft_mixture *e = &s->d->mixture;
    const bool direct = !s->layer->norm[FT_NORM_MLP_OUT].w && s->d->residual_scale == 1;
    const struct ft_route_args r =
        ft_route(s->g,
                 (struct ft_route_args){
                     .logits = ft_logits(s->g, x, s->layer->router, s->layer->router_bias),
                     .bias = s->layer->correction,
                     .groups = (int)e->groups,
                     .kept_groups = (int)e->kept_groups,
                     .sigmoid = e->sigmoid,
                     .normalise = e->normalise,
                     .scale = (float)e->scale},
                 e->each);
    if (s->in->balance)
        *s->in->balance = ft_balance(s->g, &r, *s->in->balance);
    struct ft_tensor *rows = ft_spread(s->g, x, &r, e->weighs_inputs);
    struct ft_tensor *whole = project_experts(s, FT_EXPERTS_IN, rows, r.offsets);
    rows = project_experts(s, FT_EXPERTS_OUT, activate_experts(s, whole), r.offsets);
    struct ft_tensor *y =
        ft_collect(s->g, rows, &r, !e->weighs_inputs, shared_expert(s, x, direct ? h : NULL));
    return direct ? y
                  : ft_add(s->g, h, norm_at(s, FT_NORM_MLP_OUT, y), (float)s->d->residual_scale);
}

static struct ft_tensor *layer(const struct step *s, struct ft_tensor *h)
{
    struct ft_tensor *x = norm_at(s, FT_NORM_ATTENTION, h), *y = x;
    if (s->d->parallel && s->layer->norm[FT_NORM_MLP].w)
        y = norm_at(s, FT_NORM_MLP, h);
    h = residual(s, FT_O, FT_NORM_ATTENTION_OUT, attend(s, x), h);
    if (!s->d->parallel)
        y = norm_at(s, FT_NORM_MLP, h);
    if (s->how->experts)
        return mixture(s, y, h);
    return residual(s, FT_DOWN, FT_NORM_MLP_OUT, activate(s, y), h);
}

struct ft_tensor *ft_model_build(struct ft_model *m, struct ft_graph *g,
                                 const struct ft_model_inputs *in)
{
    const struct ft_decoder *d = &m->decoder;
    struct step s = {.m = m, .g = g, .in = in, .d = d};
    const struct ft_embed_args embed = {
        .ids = in->ids, .w = m->embed, .scale = (float)d->embed_scale, .pad = (int)d->pad_id};
    struct ft_tensor *h = ft_embed(g, embed);
    if (in->embed)
        h = in->embed(in->ctx, g, &embed, h);
    if (m->positions)
        h = ft_embed(g, (struct ft_embed_args){.ids = in->angles,
                                               .w = m->positions,
                                               .add = h,
                                               .scale = 1,
                                               .first = (int)d->first_position,
                                               .pad = -1});
    for (int l = 0; l < d->layers; l++) {
        ft_graph_layer(g, l, h);
        s.layer = &m->layers[l];
        s.how = &d->layer[l];
        h = layer(&s, h);
    }
    ft_graph_layer(g, -1, h);
    return m->final_norm.w ? norm(&s, h, &m->final_norm, 1) : h;
}
