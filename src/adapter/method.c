/* The method table: how each adapter method computes a module and starts. */
#include "adapter/internal.h"

/* Dropout falls on x where the product reads it, by a mask of each of the slots. */
static void drop(const struct ft_adapter *a, struct ft_graph *g, struct ft_linear_args *down,
                 struct ft_tensor *keys, const struct ft_slot *const *slots, int n)
{
    struct ft_dropout_mask_args m = {.keys = keys, .p = (float)a->dropout, .n = n, .seed = a->seed};
    for (int i = 0; i < n; i++)
        m.sites[i] = (uint32_t)slots[i]->site;
    down->mask = ft_dropout_mask(g, m, down->x->cols);
    down->alpha = 1 / (1 - (float)a->dropout);
}

struct ft_tensor *ft_adapter_down(const struct ft_adapter *a, struct ft_graph *g,
                                  const struct ft_slot *s, struct ft_tensor *w, struct ft_tensor *x,
                                  struct ft_tensor *keys, struct ft_tensor *offsets)
{
    struct ft_linear_args down = {.x = x, .w = w, .offsets = offsets, .alpha = 1};
    if (a->dropout > 0 && keys)
        drop(a, g, &down, keys, &s, 1);
    return ft_graph_name(g, ft_linear_low_rank(g, down), "low rank");
}

/* y = x w^T + bias + add, less the part that the adapter began with: - scale (x A0^T) B0^T. */
static struct ft_linear_args lora_base(struct ft_graph *g, const struct ft_slot *s,
                                       const struct ft_linears *l, int i)
{
    const struct ft_parameter *a = s->p[FT_LORA_A], *b = s->p[FT_LORA_B];
    struct ft_linear_args y = {.x = l->x,
                               .w = l->of[i].w,
                               .bias = l->of[i].bias,
                               .add = l->add,
                               .offsets = l->offsets,
                               .alpha = 1};
    if (!a->frozen)
        return y;
    y.u = ft_graph_name(g, ft_linear(g, l->x, a->frozen, NULL, NULL, 1), "low rank");
    y.b = b->frozen;
    y.beta = -s->scale;
    return y;
}

/* y = x w^T + bias + add + scale (drop(x) A^T) B^T.  Hu et al. 2021, arXiv 2106.09685. */
static struct ft_tensor *lora_linear(const struct ft_adapter *a, struct ft_graph *g,
                                     const struct ft_slot *s, const struct ft_linears *l, int i)
{
    struct ft_linear_args y = lora_base(g, s, l, i);
    struct ft_tensor *u = ft_adapter_down(a, g, s, s->p[FT_LORA_A]->value, l->x, l->keys,
                                          l->offsets),
                     *b = s->p[FT_LORA_B]->value;
    if (y.u)
        return ft_linear(g, u, b, NULL, ft_linear_low_rank(g, y), s->scale);
    y.u = u;
    y.b = b;
    y.beta = s->scale;
    return ft_linear_low_rank(g, y);
}

/* h + scale A[ids] B^T, as the embedding itself is scaled. */
static struct ft_tensor *lora_embed(struct ft_graph *g, const struct ft_slot *s,
                                    const struct ft_embed_args *base, struct ft_tensor *h)
{
    struct ft_embed_args a = *base;
    a.w = s->p[FT_LORA_A]->value;
    a.scale = 1;
    struct ft_tensor *u = ft_graph_name(g, ft_embed(g, a), "low rank");
    return ft_linear(g, u, s->p[FT_LORA_B]->value, NULL, h, s->scale * base->scale);
}

static void lora_head(const struct ft_adapter *a, struct ft_graph *g, const struct ft_slot *s,
                      struct ft_tensor *keys, struct ft_head_loss_args *head)
{
    head->u = ft_adapter_down(a, g, s, s->p[FT_LORA_A]->value, head->h, keys, NULL);
    head->b = s->p[FT_LORA_B]->value;
    head->beta = s->scale * head->scale;
}

/* The A's of a group, which lie one above the other in the flat block, as one parameter; NULL if
 * no module of it has an adapter. */
static struct ft_tensor *lora_group(struct ft_adapter *a, struct ft_graph *g,
                                    const struct ft_linears *l, struct ft_tensor **grad)
{
    const struct ft_slot *first = NULL;
    int64_t rank = 0;
    for (int i = 0; i < l->n; i++) {
        const struct ft_slot *s = ft_adapter_slot(a, l->first + i);
        first = first ? first : s;
        rank += s ? s->r : 0;
    }
    if (!first)
        return NULL;
    const int64_t at = first->p[FT_LORA_A]->at;
    *grad = ft_graph_view(g, a->gradients, first->name, rank, first->in, at);
    return ft_graph_view(g, a->values, first->name, rank, first->in, at);
}

/* On the host: u = x A^T for all modules at once; each module's product takes its columns of u. */
static void lora_beside(struct ft_adapter *a, struct ft_graph *g, struct ft_linears *l)
{
    struct ft_tensor *grad, *all = lora_group(a, g, l, &grad), *u = NULL;
    int64_t rank = 0;
    if (all) {
        ft_graph_train(g, all, 0, 0, grad, 1);
        u = ft_graph_name(g, ft_linear(g, l->x, all, NULL, NULL, 1), "low rank");
    }
    for (int i = 0; i < l->n; i++) {
        const struct ft_slot *s = ft_adapter_slot(a, l->first + i);
        struct ft_linear_args y = {
            .x = l->x, .w = l->of[i].w, .bias = l->of[i].bias, .add = l->add, .alpha = 1};
        if (s) {
            y.u = s->r == u->cols ? u : ft_graph_columns(g, u, "low rank", s->r, rank);
            y.b = s->p[FT_LORA_B]->value;
            y.beta = s->scale;
            rank += s->r;
        }
        l->of[i].y = ft_linear_low_rank(g, y);
    }
}

/* u of all modules behind the columns of x; down is the A's, one below the other. With dropout each
 * has its own mask and as many rows. */
static struct ft_tensor *folded_down(struct ft_adapter *a, struct ft_graph *g,
                                     const struct ft_linears *l, struct ft_tensor *down)
{
    const struct ft_slot *slots[FT_LINEARS];
    const int64_t pitch = ft_adapter_pitch(a, l->first, l->n);
    struct ft_linear_args u = {.x = l->x, .w = down, .alpha = 1};
    struct ft_tensor *grad;
    int n = 0;
    for (int i = 0; i < l->n; i++)
        if ((slots[n] = ft_adapter_slot(a, l->first + i)))
            n++;
    if (!pitch && lora_group(a, g, l, &grad))
        ft_graph_train(g, down, 0, 0, grad, 1);
    for (int i = 0; i < n && pitch; i++)
        ft_graph_train(g, down, i * pitch, 0, ft_parameter_gradient(a, g, slots[i]->p[FT_LORA_A]),
                       1);
    if (pitch && l->keys)
        drop(a, g, &u, l->keys, slots, n);
    u.y = ft_graph_beside(g, l->x, "low rank", down->rows);
    return ft_linear_low_rank(g, u);
}

/* On a device: one product for all modules, whose adapters lie beside and below the weights. */
static void lora_folded(struct ft_adapter *a, struct ft_graph *g, struct ft_linears *l)
{
    struct ft_tensor *m = l->matrix;
    const int64_t in = l->x->cols, room = m->cols - in, out = m->rows - room, ld = ft_tensor_ld(m);
    const int64_t pitch = ft_adapter_pitch(a, l->first, l->n);
    struct ft_linear_args y = {.x = l->x, .add = l->add, .alpha = 1, .beta = 1};
    if (l->biases)
        y.bias = ft_graph_part(g, l->biases, l->biases->name, 1, out, 0, out);
    y.w = ft_graph_part(g, m, m->name, out, in, 0, ld);
    if (room > 0) {
        y.b = ft_graph_part(g, m, m->name, out, room, in, ld);
        y.u = folded_down(a, g, l, ft_graph_part(g, m, m->name, room, in, out * ld, ld));
    }
    int64_t at = 0, rank = 0;
    for (int i = 0; i < l->n; at += l->of[i++].w->rows) {
        struct ft_slot *s = ft_adapter_slot(a, l->first + i);
        struct ft_tensor *bias = ft_graph_whole_gradient(l->of[i].bias);
        if (bias)
            ft_graph_train(g, y.bias, 0, at, bias, 1);
        if (!s)
            continue;
        ft_graph_train(g, y.b, at, rank, ft_parameter_gradient(a, g, s->p[FT_LORA_B]), s->scale);
        s->stack = m;
        s->stack_out = out;
        s->stack_in = in;
        s->first_out = at;
        s->first_rank = rank;
        rank += pitch ? pitch : s->r;
    }
    struct ft_tensor *all = ft_graph_name(g, ft_linear_low_rank(g, y), m->name);
    at = 0;
    for (int i = 0; i < l->n; at += l->of[i++].w->rows)
        l->of[i].y =
            l->n == 1 ? all : ft_graph_columns(g, all, l->of[i].w->name, l->of[i].w->rows, at);
}

static void lora_stacked(struct ft_adapter *a, struct ft_graph *g, struct ft_linears *l)
{
    if (l->matrix)
        lora_folded(a, g, l);
    else
        lora_beside(a, g, l);
}

/* y = x W^T + bias + add with each row of W' = W + scale B A brought to the length `magnitude`; the
 * row norms of W' are constants to backward. Liu et al. 2024, arXiv 2402.09353, as PEFT computes
 * it: with dropout, what is not dropped passes W alone. */
static struct ft_tensor *dora_linear(const struct ft_adapter *a, struct ft_graph *g,
                                     const struct ft_slot *s, const struct ft_linears *l, int i)
{
    struct ft_tensor *w = l->of[i].w, *x = l->x, *add = l->add, *bias = l->of[i].bias;
    const bool drops = a->dropout > 0 && l->keys;
    struct ft_scale_columns_args scale = {.m = s->p[FT_MAGNITUDE]->value};
    if (drops)
        x = ft_dropout(g, x, l->keys, (float)a->dropout, (uint32_t)s->site, a->seed);
    struct ft_tensor *plain = ft_linear(g, x, w, NULL, NULL, 1);
    struct ft_tensor *u = ft_linear(g, x, s->p[FT_LORA_A]->value, NULL, NULL, 1);
    scale.x = ft_linear(g, u, s->p[FT_LORA_B]->value, NULL, plain, s->scale);
    scale.norm = ft_row_norms(g, w, s->p[FT_LORA_A]->value, s->p[FT_LORA_B]->value, s->scale);
    if (drops) {
        add = ft_linear(g, l->x, w, bias, add, 1);
        add = ft_add(g, add, plain, -1);
        bias = NULL;
    }
    scale.bias = bias;
    scale.add = add;
    return ft_graph_name(g, ft_scale_columns(g, scale), w->name);
}

/* The rows' lengths as they are. */
static void dora_start(const struct ft_adapter *a, struct ft_graph *g, const struct ft_slot *s)
{
    (void)a;
    ft_graph_emit(
        g, FT_OP_row_norms,
        &(union ft_op_args){.row_norms = {s->w, s->p[FT_LORA_A]->value, s->p[FT_LORA_B]->value,
                                          s->p[FT_MAGNITUDE]->value, s->scale}});
}

#define LORA                                                                                       \
    {"lora_A.weight", FT_LORA_A, FT_SIZE_R, FT_SIZE_IN, FT_RATE_FIRST, false, false, NULL},        \
    {                                                                                              \
        "lora_B.weight", FT_LORA_B, FT_SIZE_OUT, FT_SIZE_R, FT_RATE_SECOND, false, false, NULL     \
    }

/* DoRA is LoRA in PEFT's files, with use_dora. */
#define LORA_CONFIG                                                                                \
    .peft_type = "LORA", .conv1d = true, .rank = "r", .alpha = "lora_alpha",                       \
    .dropout = "lora_dropout", .default_rank = 8, .init = ft_lora_init, .config = ft_lora_config

const struct ft_adapter_method ft_adapter_methods[] = {
    {
        .name = "lora",
        .title = "LoRA",
        LORA_CONFIG,
        .parameters = {LORA},
        .embedding = {{"lora_embedding_A", FT_LORA_A, FT_SIZE_IN, FT_SIZE_R, FT_RATE_EMBEDDING,
                       false, true, NULL},
                      {"lora_embedding_B", FT_LORA_B, FT_SIZE_OUT, FT_SIZE_R, FT_RATE_EMBEDDING,
                       false, false, NULL}},
        .experts = {{"lora_A.weight", FT_LORA_A, FT_SIZE_RANKS, FT_SIZE_IN, FT_RATE_FIRST, false,
                     false, NULL},
                    {"lora_B.weight", FT_LORA_B, FT_SIZE_OUTS, FT_SIZE_R, FT_RATE_SECOND, false,
                     false, NULL}},
        .merge = ft_lora_merge,
        .adds = true,
        .linear = lora_linear,
        .stacked = lora_stacked,
        .embed = lora_embed,
        .head = lora_head,
    },
    {
        .name = "dora",
        .title = "DoRA",
        LORA_CONFIG,
        .parameters = {LORA,
                       {"lora_magnitude_vector", FT_MAGNITUDE, FT_SIZE_OUT, FT_SIZE_NONE,
                        FT_RATE_SECOND, true, false, NULL}},
        .merge = ft_dora_merge,
        .linear = dora_linear,
        .start = dora_start,
    },
    {
        .name = "vera",
        .conv1d = true,
        .title = "VeRA",
        .peft_type = "VERA",
        .rank = "r",
        .dropout = "vera_dropout",
        .default_rank = 256,
        .parameters = {{"vera_lambda_b", FT_VERA_B, FT_SIZE_OUT, FT_SIZE_NONE, FT_RATE_SECOND, true,
                        false, NULL},
                       {"vera_lambda_d", FT_VERA_D, FT_SIZE_R, FT_SIZE_NONE, FT_RATE_SECOND, true,
                        false, NULL}},
        .share = ft_vera_share,
        .merge = ft_vera_merge,
        .adds = true,
        .linear = ft_vera_linear,
        .init = ft_vera_init,
        .config = ft_vera_config,
    },
    {
        .name = "ia3",
        .conv1d = true,
        .title = "IA3",
        .peft_type = "IA3",
        .parameters = {{"ia3_l", FT_IA3_L, FT_SIZE_OUT, FT_SIZE_ONE, FT_RATE_FIRST, true, false,
                        NULL}},
        .feedforward = {{"ia3_l", FT_IA3_L, FT_SIZE_ONE, FT_SIZE_IN, FT_RATE_FIRST, true, false,
                         NULL}},
        .merge = ft_ia3_merge,
        .linear = ft_ia3_linear,
        .init = ft_ia3_init,
        .config = ft_ia3_config,
    },
    {
        .name = "loha",
        .title = "LoHa",
        .peft_type = "LOHA",
        .rank = "r",
        .alpha = "alpha",
        .default_rank = 8,
        .parameters =
            {{"hada_w1_a", FT_HADA_1A, FT_SIZE_OUT, FT_SIZE_R, FT_RATE_FIRST, false, false, NULL},
             {"hada_w1_b", FT_HADA_1B, FT_SIZE_R, FT_SIZE_IN, FT_RATE_FIRST, false, false, NULL},
             {"hada_w2_a", FT_HADA_2A, FT_SIZE_OUT, FT_SIZE_R, FT_RATE_FIRST, false, false, NULL},
             {"hada_w2_b", FT_HADA_2B, FT_SIZE_R, FT_SIZE_IN, FT_RATE_FIRST, false, false, NULL}},
        .zero = FT_HADA_2B,
        .merge = ft_loha_merge,
        .adds = true,
        .linear = ft_loha_linear,
        .init = ft_lycoris_init,
        .config = ft_loha_config,
    },
    {
        .name = "lokr",
        .title = "LoKr",
        .peft_type = "LOKR",
        .rank = "r",
        .alpha = "alpha",
        .default_rank = 8,
        .parameters = {{"lokr_w1", FT_LOKR_1, FT_SIZE_OUT_SMALL, FT_SIZE_IN_SMALL, FT_RATE_FIRST,
                        false, false, NULL},
                       {"lokr_w2", FT_LOKR_2, FT_SIZE_OUT_LARGE, FT_SIZE_IN_LARGE, FT_RATE_FIRST,
                        false, false, ft_lokr_is_whole},
                       {"lokr_w2_a", FT_LOKR_2A, FT_SIZE_OUT_LARGE, FT_SIZE_R, FT_RATE_FIRST, false,
                        false, ft_lokr_is_narrow},
                       {"lokr_w2_b", FT_LOKR_2B, FT_SIZE_R, FT_SIZE_IN_LARGE, FT_RATE_FIRST, false,
                        false, ft_lokr_is_narrow}},
        .zero = FT_LOKR_1,
        .shape = ft_lokr_shape,
        .merge = ft_lokr_merge,
        .adds = true,
        .linear = ft_lokr_linear,
        .init = ft_lycoris_init,
        .config = ft_lokr_config,
    },
    /* no adapter: every weight is trained whole */
    {.name = "full"},
};
const int ft_adapter_method_count = sizeof ft_adapter_methods / sizeof *ft_adapter_methods;
