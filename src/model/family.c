/* The family table: for each architecture its fields, its tensors and its forward pass. */
#include "model/internal.h"

#include <math.h>
#include <stdio.h>

/* The linear modules of a Llama layer: name, where the shapes come from. */
static const struct {
    const char *name;
    bool attention; /* whose bias flag counts */
} roles[FT_ROLES] = {
    [FT_Q] = {"self_attn.q_proj", true},  [FT_K] = {"self_attn.k_proj", true},
    [FT_V] = {"self_attn.v_proj", true},  [FT_O] = {"self_attn.o_proj", true},
    [FT_GATE] = {"mlp.gate_proj", false}, [FT_UP] = {"mlp.up_proj", false},
    [FT_DOWN] = {"mlp.down_proj", false},
};

static void role_shape(const struct ft_model_config *c, int role, int64_t *out, int64_t *in)
{
    const int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int64_t outs[FT_ROLES] = {q, kv, kv, c->hidden, c->ffn, c->ffn, c->hidden};
    const int64_t ins[FT_ROLES] = {c->hidden, c->hidden, c->hidden, q,
                                   c->hidden, c->hidden, c->ffn};
    *out = outs[role];
    *in = ins[role];
}

static int llama_weights(struct ft_model *m)
{
    const struct ft_model_config *c = &m->config;
    FT_TRY(ft_alloc(&m->layers, (size_t)c->layers, sizeof *m->layers));
    FT_TRY(ft_alloc(&m->modules, (size_t)c->layers * FT_ROLES, sizeof *m->modules));
    FT_TRY(ft_model_want(m, &m->embed, c->vocab, c->hidden, "model.embed_tokens.weight"));
    for (int l = 0; l < c->layers; l++) {
        FT_TRY(ft_model_want(m, &m->layers[l].attn_norm, c->hidden, 0,
                             "model.layers.%d.input_layernorm.weight", l));
        for (int r = 0; r < FT_ROLES; r++) {
            struct ft_module *p = &m->modules[m->n_modules++];
            role_shape(c, r, &p->out, &p->in);
            p->layer = l;
            p->name = ft_arena_format(&m->arena, "model.layers.%d.%s", l, roles[r].name);
            if (!p->name)
                return FT_ERESOURCE;
            FT_TRY(ft_model_want(m, &p->w, p->out, p->in, "%s.weight", p->name));
            if (roles[r].attention ? c->attention_bias : c->mlp_bias)
                FT_TRY(ft_model_want(m, &p->bias, p->out, 0, "%s.bias", p->name));
        }
        FT_TRY(ft_model_want(m, &m->layers[l].mlp_norm, c->hidden, 0,
                             "model.layers.%d.post_attention_layernorm.weight", l));
    }
    FT_TRY(ft_model_want(m, &m->final_norm, c->hidden, 0, "model.norm.weight"));
    if (!c->tied)
        FT_TRY(ft_model_want(m, &m->head, c->vocab, c->hidden, "lm_head.weight"));
    return FT_OK;
}

struct step {
    struct ft_model *m;
    struct ft_graph *g;
    const struct ft_model_inputs *in;
};

static struct ft_tensor *linear(const struct step *s, int layer, int role, struct ft_tensor *x,
                                struct ft_tensor *add)
{
    const int i = layer * FT_ROLES + role;
    const struct ft_module *p = &s->m->modules[i];
    if (s->in->linear)
        return s->in->linear(s->in->linear_ctx, s->g, i, x, p->w, p->bias, add);
    return ft_linear(s->g, x, p->w, p->bias, add, 1.f);
}

static struct ft_tensor *llama_attention(const struct step *s, int l, struct ft_tensor *x,
                                         struct ft_tensor *h)
{
    const struct ft_model_config *c = &s->m->config;
    const int heads = (int)c->heads, kv_heads = (int)c->kv_heads, d = (int)c->head_dim;
    struct ft_tensor *q = linear(s, l, FT_Q, x, NULL), *k = linear(s, l, FT_K, x, NULL);
    struct ft_tensor *v = linear(s, l, FT_V, x, NULL);
    struct ft_attention a = {
        .q = ft_rope(s->g, q, s->in->cos, s->in->sin, heads, d),
        .k = ft_rope(s->g, k, s->in->cos, s->in->sin, kv_heads, d),
        .v = v,
        .offsets = s->in->offsets,
        .heads = heads,
        .kv_heads = kv_heads,
        .head_dim = d,
        .scale = 1.f / sqrtf((float)d),
    };
    return linear(s, l, FT_O, ft_attention(s->g, a), h);
}

static struct ft_tensor *llama_build(struct ft_model *m, struct ft_graph *g,
                                     const struct ft_model_inputs *in)
{
    const struct step s = {m, g, in};
    const float eps = (float)m->config.norm_eps;
    struct ft_tensor *h = ft_embed(g, in->ids, m->embed, 1.f);
    for (int l = 0; l < m->config.layers; l++) {
        ft_graph_layer(g, l, h);
        struct ft_tensor *x = ft_rmsnorm(g, h, m->layers[l].attn_norm, eps, 0);
        h = llama_attention(&s, l, x, h);
        x = ft_rmsnorm(g, h, m->layers[l].mlp_norm, eps, 0);
        struct ft_tensor *gate = linear(&s, l, FT_GATE, x, NULL);
        struct ft_tensor *up = linear(&s, l, FT_UP, x, NULL);
        h = linear(&s, l, FT_DOWN, ft_swiglu(g, gate, up), h);
    }
    ft_graph_layer(g, -1, h);
    h = ft_rmsnorm(g, h, m->final_norm, eps, 0);
    ft_head_loss(g, h, ft_model_head(m), in->targets, in->scalars);
    return h;
}

const struct ft_family ft_families[] = {
    {"LlamaForCausalLM", "llama", ft_llama_config, llama_weights, llama_build},
};
const int ft_family_count = sizeof ft_families / sizeof *ft_families;
