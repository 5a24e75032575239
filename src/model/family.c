/* The family table: for each architecture its fields, its tensors and its forward pass. */
#include "model/internal.h"

#include <math.h>
#include <stdio.h>

/* The linear modules of a Llama layer. */
static const struct {
    const char *name;
    bool attention; /* whose bias flag counts */
    int group;      /* the first of those that read the same input */
} roles[FT_ROLES] = {
    [FT_Q] = {"self_attn.q_proj", true, FT_Q},     [FT_K] = {"self_attn.k_proj", true, FT_Q},
    [FT_V] = {"self_attn.v_proj", true, FT_Q},     [FT_O] = {"self_attn.o_proj", true, FT_O},
    [FT_GATE] = {"mlp.gate_proj", false, FT_GATE}, [FT_UP] = {"mlp.up_proj", false, FT_GATE},
    [FT_DOWN] = {"mlp.down_proj", false, FT_DOWN},
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
    FT_TRY(ft_alloc(&m->stacks, (size_t)c->layers * FT_ROLES, sizeof *m->stacks));
    FT_TRY(ft_model_want(m, &m->embed, c->vocab, c->hidden, "%s", m->embed_name));
    for (int l = 0; l < c->layers; l++) {
        FT_TRY(ft_model_want(m, &m->layers[l].attn_norm, c->hidden, 0,
                             "model.layers.%d.input_layernorm.weight", l));
        for (int r = 0; r < FT_ROLES; r++) {
            struct ft_module *p = &m->modules[m->n_modules++];
            role_shape(c, r, &p->out, &p->in);
            p->layer = l;
            p->group = l * FT_ROLES + roles[r].group;
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
        FT_TRY(ft_model_want(m, &m->head, c->vocab, c->hidden, "%s", m->head_name));
    return FT_OK;
}

struct step {
    struct ft_model *m;
    struct ft_graph *g;
    const struct ft_model_inputs *in;
};

static struct ft_tensor *norm(const struct step *s, struct ft_tensor *x, struct ft_tensor *w)
{
    const float eps = (float)s->m->config.norm_eps;
    return ft_norm(s->g, (struct ft_norm_args){.x = x, .w = w, .eps = eps}, 1, false);
}

/* The modules from..to of a layer, one group, into out. */
static void project(const struct step *s, int layer, int from, int to, struct ft_tensor *x,
                    struct ft_tensor *add, struct ft_tensor **out)
{
    const int first = layer * FT_ROLES + from, n = to - from + 1;
    if (s->in->linear) {
        s->in->linear(s->in->linear_ctx, s->g, first, n, x, add, out);
        return;
    }
    for (int i = 0; i < n; i++) {
        const struct ft_module *p = &s->m->modules[first + i];
        out[i] = ft_linear(s->g, x, p->w, p->bias, add, 1.f);
    }
}

static struct ft_tensor *llama_attention(const struct step *s, int l, struct ft_tensor *x,
                                         struct ft_tensor *h)
{
    const struct ft_model_config *c = &s->m->config;
    struct ft_tensor *qkv[3], *y;
    project(s, l, FT_Q, FT_V, x, NULL, qkv);
    ft_rope_qkv(s->g, qkv,
                (struct ft_rope_args){.cos = s->in->cos,
                                      .sin = s->in->sin,
                                      .angles = s->in->angles,
                                      .head_dim = (int)c->head_dim});
    struct ft_attention_args a = {
        .q = qkv[0],
        .k = qkv[1],
        .v = qkv[2],
        .spans = s->in->spans,
        .heads = (int)c->heads,
        .kv_heads = (int)c->kv_heads,
        .head_dim = (int)c->head_dim,
        .scale = 1.f / sqrtf((float)c->head_dim),
    };
    project(s, l, FT_O, FT_O, ft_attention(s->g, a), h, &y);
    return y;
}

static struct ft_tensor *llama_build(struct ft_model *m, struct ft_graph *g,
                                     const struct ft_model_inputs *in)
{
    const struct step s = {m, g, in};
    struct ft_tensor *h = ft_embed(g, in->ids, m->embed, NULL, 1.f);
    for (int l = 0; l < m->config.layers; l++) {
        ft_graph_layer(g, l, h);
        struct ft_tensor *x = norm(&s, h, m->layers[l].attn_norm);
        h = llama_attention(&s, l, x, h);
        x = norm(&s, h, m->layers[l].mlp_norm);
        struct ft_tensor *gate_up[2];
        project(&s, l, FT_GATE, FT_UP, x, NULL, gate_up);
        project(&s, l, FT_DOWN, FT_DOWN, ft_glu(g, gate_up[0], gate_up[1], FT_SILU), h, &h);
    }
    ft_graph_layer(g, -1, h);
    h = norm(&s, h, m->final_norm);
    ft_head_loss(g, (struct ft_head_loss_args){.h = h,
                                               .w = ft_model_head(m),
                                               .targets = in->targets,
                                               .picked = in->picked,
                                               .scalars = in->scalars,
                                               .scale = 1});
    return h;
}

const struct ft_family ft_families[] = {
    {"LlamaForCausalLM", "llama", ft_llama_config, llama_weights, llama_build},
};
const int ft_family_count = sizeof ft_families / sizeof *ft_families;
