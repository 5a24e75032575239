/* config.json to ft_decoder: the fields by the family's tables, and what is refused. */
#include "model/internal.h"

#include <math.h>
#include <string.h>

static int refuse(const char *file, const char *key, const char *value, const char *known)
{
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA, "'%s' is '%s', which ft does not support",
               key, value);
    ft_hint("supported: %s", known);
    return FT_EDATA;
}

static const struct {
    const char *name;
    enum ft_activation act;
} activations[] = {
    {"silu", FT_SILU},
    {"swish", FT_SILU},
    {"gelu", FT_GELU},
    {"gelu_python", FT_GELU},
    {"gelu_new", FT_GELU_TANH},
    {"gelu_fast", FT_GELU_TANH},
    {"gelu_pytorch_tanh", FT_GELU_TANH},
    {"gelu_python_tanh", FT_GELU_TANH},
    {"gelu_accurate", FT_GELU_TANH},
    {"quick_gelu", FT_GELU_QUICK},
    {"relu", FT_RELU},
    {"relu2", FT_RELU2},
};

static bool read_activation(const json_t *o, const char *file, const char *key,
                            enum ft_activation *out)
{
    const char *name = NULL;
    if (!ft_json_str(o, file, key, &name))
        return false;
    for (size_t i = 0; name && i < sizeof activations / sizeof *activations; i++)
        if (strcmp(activations[i].name, name) == 0) {
            *out = activations[i].act;
            return true;
        }
    if (name)
        refuse(file, key, name, "silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, relu2");
    return !name;
}

static bool read_count(const json_t *o, const char *file, const struct ft_field *f, int64_t *out)
{
    long long n = *out;
    if (!ft_json_int(o, file, f->key, &n))
        return false;
    if (ft_json_get(o, f->key) && (n < 1 || n > 1 << 24)) {
        ft_fail_at((struct ft_where){.file = file}, FT_EDATA, "'%s' is %lld, allowed 1..16777216",
                   f->key, n);
        return false;
    }
    *out = n;
    return true;
}

static bool read_real(const json_t *o, const char *file, const struct ft_field *f, double *out)
{
    if (!ft_json_real(o, file, f->key, out))
        return false;
    if (isfinite(*out))
        return true;
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA, "'%s' is not a finite number", f->key);
    return false;
}

static bool read_bias(const json_t *o, const char *file, const struct ft_field *f, unsigned *mask)
{
    bool on = *mask & f->place;
    if (!ft_json_bool(o, file, f->key, &on))
        return false;
    *mask = on ? *mask | (unsigned)f->place : *mask & ~(unsigned)f->place;
    return true;
}

/* What must be so, since nothing else is implemented. */
static bool read_only(const json_t *o, const char *file, const struct ft_field *f)
{
    const bool want = f->place != 0;
    bool is = want;
    if (!ft_json_bool(o, file, f->key, &is))
        return false;
    if (is != want)
        refuse(file, f->key, is ? "true" : "false", want ? "true" : "false");
    return is == want;
}

static bool read_field(const json_t *o, const char *file, const struct ft_field *f,
                       struct ft_decoder *d)
{
    void *at = (char *)d + f->place;
    const json_t *said = json_object_get(o, f->key);
    const bool null = json_is_null(said);
    const bool is_zero = json_is_integer(said) && json_integer_value(said) == 0;
    switch (f->kind) {
    case FT_COUNT_OR_ZERO:
        if (is_zero) {
            *(int64_t *)at = 0;
            return true;
        }
        /* fall through */
    case FT_COUNT_OR_NONE:
        if (null)
            *(int64_t *)at = 0;
        return read_count(o, file, f, at);
    case FT_COUNT:
        return read_count(o, file, f, at);
    case FT_REAL_OR_NONE:
        if (null)
            *(double *)at = 0;
        return read_real(o, file, f, at);
    case FT_REAL:
        return read_real(o, file, f, at);
    case FT_FLAG:
        return ft_json_bool(o, file, f->key, at);
    case FT_BIAS:
        return read_bias(o, file, f, &d->biased);
    case FT_ACTIVATION:
        return read_activation(o, file, f->key, at);
    case FT_ONLY:
        return read_only(o, file, f);
    }
    return false;
}

static int check_heads(const struct ft_where at, struct ft_decoder *d)
{
    if (d->kv_heads == 0)
        d->kv_heads = d->heads;
    if (d->head_dim == 0) {
        if (d->hidden % d->heads)
            return ft_fail_at(at, FT_EDATA,
                              "'hidden_size' %lld is not a multiple of "
                              "'num_attention_heads' %lld, and there is no 'head_dim'",
                              (long long)d->hidden, (long long)d->heads);
        d->head_dim = d->hidden / d->heads;
    }
    if (d->heads % d->kv_heads)
        return ft_fail_at(at, FT_EDATA,
                          "'num_attention_heads' %lld is not a multiple of "
                          "'num_key_value_heads' %lld",
                          (long long)d->heads, (long long)d->kv_heads);
    if (d->head_dim % 2 || d->head_dim > FT_HEAD_DIM_MAX)
        return ft_fail_at(at, FT_EDATA, "'head_dim' is %lld, ft needs an even number up to %d",
                          (long long)d->head_dim, FT_HEAD_DIM_MAX);
    if (d->heads / d->kv_heads > FT_HEAD_GROUP_MAX)
        return ft_fail_at(at, FT_EDATA, "%lld heads share a key head, ft supports up to %d",
                          (long long)(d->heads / d->kv_heads), FT_HEAD_GROUP_MAX);
    return FT_OK;
}

/* The rows' defaults, and what routing can do. */
static int check_mixture(const struct ft_where at, struct ft_decoder *d)
{
    struct ft_mixture *m = &d->mixture;
    m->ffn = m->ffn ? m->ffn : d->ffn;
    m->every = m->every ? m->every : 1;
    m->scale = m->scale != 0 ? m->scale : 1;
    if (m->count > FT_EXPERTS_MAX)
        return ft_fail_at(at, FT_EDATA, "there are %lld experts, ft supports up to %d",
                          (long long)m->count, FT_EXPERTS_MAX);
    if (m->each > m->count || m->each > FT_EXPERTS_EACH_MAX || (m->count && !m->each))
        return ft_fail_at(at, FT_EDATA,
                          "'num_experts_per_tok' is %lld; there are %lld experts, and ft supports "
                          "up to %d for a token",
                          (long long)m->each, (long long)m->count, FT_EXPERTS_EACH_MAX);
    if (m->groups > FT_EXPERT_GROUPS_MAX)
        return ft_fail_at(at, FT_EDATA, "experts are in %lld groups, ft supports up to %d",
                          (long long)m->groups, FT_EXPERT_GROUPS_MAX);
    if (m->groups > 1 && (m->count % m->groups || m->count / m->groups < 2))
        return ft_fail_at(at, FT_EDATA, "%lld experts are not %lld equal groups of two or more",
                          (long long)m->count, (long long)m->groups);
    if (m->groups > 1 &&
        (m->kept_groups > m->groups || m->kept_groups * (m->count / m->groups) < m->each))
        return ft_fail_at(at, FT_EDATA, "'topk_group' is %lld of %lld groups",
                          (long long)m->kept_groups, (long long)m->groups);
    return FT_OK;
}

static int check_shape(const char *file, struct ft_decoder *d)
{
    const struct ft_where at = {.file = file};
    FT_TRY(check_heads(at, d));
    FT_TRY(check_mixture(at, d));
    const int64_t whole = d->qk_norm == FT_QK_WHOLE ? d->heads * d->head_dim : 0;
    if (d->hidden > FT_NORM_COLS_MAX || whole > FT_NORM_COLS_MAX)
        return ft_fail_at(at, FT_EDATA, "'hidden_size' is %lld, ft supports up to %d",
                          (long long)d->hidden, FT_NORM_COLS_MAX);
    if (d->layers > FT_LAYERS_MAX)
        return ft_fail_at(at, FT_EDATA, "'num_hidden_layers' is %lld, ft supports up to %d",
                          (long long)d->layers, FT_LAYERS_MAX);
    if (!(d->norm_eps > 0))
        return ft_fail_at(at, FT_EDATA, "the norms' epsilon is %g, allowed above 0", d->norm_eps);
    if (d->attention_scale < 0 || d->attention_softcap < 0 || d->logit_softcap < 0)
        return ft_fail_at(at, FT_EDATA, "a scale or cap of attention or logits is below 0");
    return FT_OK;
}

/* --- layers --- */

/* Whether layer i is of the sliding kind, where config.json does not list its layers. */
static bool is_sliding(const struct ft_decoder *d, int64_t i)
{
    if (d->sliding_before > 0 && i >= d->sliding_before)
        return false;
    if (d->sliding_every > 0)
        return (i + 1) % d->sliding_every != 0;
    return i >= d->sliding_from;
}

static int layer_type(const json_t *list, const char *file, int64_t i, bool chunked, bool *sliding)
{
    const char *name = json_string_value(json_array_get(list, (size_t)i));
    if (name && strcmp(name, "full_attention") == 0)
        *sliding = false;
    else if (name && strcmp(name, chunked ? "chunked_attention" : "sliding_attention") == 0)
        *sliding = true;
    else
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'layer_types': entry %lld is '%s'; ft knows 'full_attention' and "
                          "'%s' there",
                          (long long)i, name ? name : "(no text)",
                          chunked ? "chunked_attention" : "sliding_attention");
    return FT_OK;
}

static int check_list(const json_t *list, const char *file, const char *key,
                      const struct ft_decoder *d)
{
    if (!list || (json_is_array(list) && json_array_size(list) >= (size_t)d->layers))
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                      "'%s' is no list of %lld entries, one a layer", key, (long long)d->layers);
}

/* Which table of positions a layer's keys and queries use. */
static void choose_rope(const struct ft_decoder *d, bool sliding, bool rotated,
                        struct ft_decoder_layer *l)
{
    const bool still = d->n_ropes > 1 && d->rope[1].still > 0;
    const bool by_type = d->n_ropes > 1 && d->rope[1].growth == 0 && !still;
    const bool grown = d->n_ropes > 1 && !by_type && !still;
    l->rope = !rotated || d->n_ropes == 0 ? -1 : by_type && sliding ? 1 : 0;
    l->rope_q = (l->rope >= 0 && grown) || (l->rope < 0 && still) ? 1 : l->rope;
}

/* Whether a list of config.json has layer i. */
static bool is_in(const json_t *list, int64_t i)
{
    for (size_t k = 0; k < json_array_size(list); k++)
        if (json_integer_value(json_array_get(list, k)) == i)
            return true;
    return false;
}

static int choose_mixtures(const json_t *root, const char *file, struct ft_decoder *d)
{
    const struct ft_mixture *m = &d->mixture;
    const json_t *plain = ft_json_get(root, "mlp_only_layers");
    const json_t *listed = ft_json_get(root, "moe_layers");
    const json_t *types = m->listed ? ft_json_get(root, "mlp_layer_types") : NULL;
    FT_TRY(check_list(types, file, "mlp_layer_types", d));
    for (int64_t i = 0; i < d->layers && m->count; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        d->layer[i].experts = type ? strcmp(type, "sparse") == 0
                              : listed
                                  ? is_in(listed, i)
                                  : i >= m->first && (i + 1) % m->every == 0 && !is_in(plain, i);
    }
    return FT_OK;
}

static int read_layers(const json_t *root, const char *file, const struct ft_family *f,
                       struct ft_model *m)
{
    struct ft_decoder *d = &m->decoder;
    const json_t *types = f->layer_types ? ft_json_get(root, "layer_types") : NULL;
    const json_t *ropes = d->nope_every ? ft_json_get(root, "no_rope_layers") : NULL;
    ropes = json_array_size(ropes) || !json_is_array(ropes) ? ropes : NULL; /* empty: not said */
    FT_TRY(check_list(types, file, "layer_types", d));
    FT_TRY(check_list(ropes, file, "no_rope_layers", d));
    d->layer = ft_arena_alloc(&m->arena, (size_t)d->layers, sizeof *d->layer);
    if (!d->layer)
        return FT_ERESOURCE;
    for (int64_t i = 0; i < d->layers; i++) {
        bool sliding = is_sliding(d, i), rotated = !d->nope_every || (i + 1) % d->nope_every != 0;
        if (ropes)
            rotated = json_integer_value(json_array_get(ropes, (size_t)i)) != 0;
        if (d->nope_every) /* those that are not rotated slide; those that are, chunk */
            sliding = d->chunk ? rotated : !rotated;
        if (types)
            FT_TRY(layer_type(types, file, i, d->chunk > 0, &sliding));
        d->layer[i].chunked = d->chunk > 0 && sliding;
        d->layer[i].window = sliding && d->use_window ? (int)d->window : 0;
        if (d->rope_sliding_only)
            rotated = d->layer[i].window > 0;
        choose_rope(d, sliding, rotated, &d->layer[i]);
    }
    return choose_mixtures(root, file, d);
}

/* --- the whole --- */

/* An end or begin token may be a number or a list; the first counts. */
static long long token_id(const json_t *root, const char *key)
{
    const json_t *v = ft_json_get(root, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}

static int say_dropout(const json_t *root, const char *file)
{
    static const char *const keys[] = {"attention_dropout", "attn_pdrop",        "resid_pdrop",
                                       "embd_pdrop",        "hidden_dropout",    "dropout",
                                       "residual_dropout",  "embedding_dropout", "layerdrop"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double p = 0;
        if (!ft_json_real(root, file, keys[i], &p))
            return FT_EDATA;
        if (p != 0)
            ft_notice((struct ft_where){.file = file},
                      "'%s' %g is not applied: ft trains with dropout in the adapter only", keys[i],
                      p);
    }
    return FT_OK;
}

int ft_config_to_decoder(const json_t *root, const char *file, const struct ft_family *f,
                         struct ft_model *m)
{
    struct ft_decoder *d = &m->decoder;
    double *const scales[] = {&d->embed_scale, &d->residual_scale, &d->logit_scale};
    bool ok = true;
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        *scales[i] = *scales[i] != 0 ? *scales[i] : 1; /* rows leave out what is 1 */
    for (int k = 0; k < FT_FIELD_TABLES && f->fields[k]; k++)
        for (const struct ft_field *row = f->fields[k]; row->key; row++)
            ok = read_field(root, file, row, d) && ok;
    if (!ok)
        return FT_EDATA;
    FT_TRY(say_dropout(root, file));
    if (f->settle)
        FT_TRY(f->settle(root, file, d));
    FT_TRY(check_shape(file, d));
    d->pad_id = json_object_get(root, "pad_token_id") ? token_id(root, "pad_token_id") : f->pad - 1;
    if (d->pad_id >= d->vocab || d->pad_is_trained)
        d->pad_id = -1;
    if (f->rope.theta > 0)
        FT_TRY(ft_rope_read(root, file, &f->rope, d));
    return read_layers(root, file, f, m);
}
