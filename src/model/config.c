/* config.json to ft_model_config: the fields, their class defaults, and what is refused. */
#include "model/internal.h"

#include "core/json.h"

#include <math.h>
#include <string.h>

/* One field of config.json. */
struct field {
    const char *key;
    enum { COUNT, REAL, FLAG } kind;
    size_t offset;
    double fallback; /* COUNT: -1 means it must be given */
};
#define F(key, kind, member, fallback)                                                             \
    {                                                                                              \
        key, kind, offsetof(struct ft_model_config, member), fallback                              \
    }

/* transformers' LlamaConfig; null is the same as missing. */
static const struct field fields[] = {
    F("vocab_size", COUNT, vocab, 32000),
    F("hidden_size", COUNT, hidden, 4096),
    F("intermediate_size", COUNT, ffn, 11008),
    F("num_hidden_layers", COUNT, layers, 32),
    F("num_attention_heads", COUNT, heads, 32),
    F("num_key_value_heads", COUNT, kv_heads, 0), /* 0: as many as heads */
    F("head_dim", COUNT, head_dim, 0),            /* 0: hidden / heads */
    F("max_position_embeddings", COUNT, max_positions, 2048),
    F("rms_norm_eps", REAL, norm_eps, 1e-6),
    F("tie_word_embeddings", FLAG, tied, 0),
    F("attention_bias", FLAG, attention_bias, 0),
    F("mlp_bias", FLAG, mlp_bias, 0),
};

static int refuse(const char *file, const char *key, const char *value, const char *known)
{
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA, "'%s' is '%s', which ft does not support",
               key, value);
    ft_hint("supported: %s", known);
    return FT_EDATA;
}

static bool read_field(const json_t *o, const char *file, const struct field *f,
                       struct ft_model_config *c)
{
    char *at = (char *)c + f->offset;
    long long n = (long long)f->fallback;
    double r = f->fallback;
    bool b = f->fallback != 0;
    switch (f->kind) {
    case COUNT:
        if (!ft_json_int(o, file, f->key, &n))
            return false;
        if (n < 0 || n > 1 << 24 || (n == 0 && (ft_json_get(o, f->key) || f->fallback != 0))) {
            ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                       "'%s' is %lld, allowed 1..16777216", f->key, n);
            return false;
        }
        *(int64_t *)at = n;
        return true;
    case REAL:
        if (!ft_json_real(o, file, f->key, &r))
            return false;
        *(double *)at = r;
        return true;
    case FLAG:
        if (!ft_json_bool(o, file, f->key, &b))
            return false;
        *(bool *)at = b;
        return true;
    }
    return false;
}

static const struct {
    const char *name;
    enum ft_rope_type type;
} rope_types[] = {
    {"default", FT_ROPE_DEFAULT}, {"linear", FT_ROPE_LINEAR}, {"dynamic", FT_ROPE_DYNAMIC},
    {"llama3", FT_ROPE_LLAMA3},   {"yarn", FT_ROPE_YARN},     {"longrope", FT_ROPE_LONGROPE},
    {"su", FT_ROPE_LONGROPE}, /* Phi-3's first name for it */
};

/* A number that this rope type cannot do without. */
static int need(const json_t *o, const char *file, const char *type, const char *key, double *out)
{
    double v = NAN;
    if (!ft_json_real(o, file, key, &v))
        return FT_EDATA;
    if (!(v > 0) || !isfinite(v))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "rope type '%s' needs '%s' above 0", type, key);
    *out = v;
    return FT_OK;
}

static int factor_list(const json_t *o, const char *file, const char *key, int half, float *out)
{
    const json_t *list = ft_json_get(o, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)half)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "rope type 'longrope' needs '%s' with %d numbers", key, half);
    for (int i = 0; i < half; i++) {
        out[i] = (float)json_number_value(json_array_get(list, (size_t)i));
        if (!(out[i] > 0) || !isfinite(out[i]))
            return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                              "'%s': number %d is not above 0", key, i + 1);
    }
    return FT_OK;
}

static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static int yarn_fields(const json_t *o, const char *file, struct ft_rope_spec *s)
{
    double mscale = 0, mscale_all = 0, fast = 0, slow = 0, attention = 0;
    bool truncate = true;
    if (!ft_json_real(o, file, "mscale", &mscale) ||
        !ft_json_real(o, file, "mscale_all_dim", &mscale_all) ||
        !ft_json_real(o, file, "beta_fast", &fast) || !ft_json_real(o, file, "beta_slow", &slow) ||
        !ft_json_real(o, file, "attention_factor", &attention) ||
        !ft_json_bool(o, file, "truncate", &truncate))
        return FT_EDATA;
    s->beta_fast = fast != 0 ? fast : 32;
    s->beta_slow = slow != 0 ? slow : 1;
    s->truncate = truncate;
    if (!(s->beta_fast > 0) || !(s->beta_slow > 0))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'beta_fast' %g and 'beta_slow' %g must be above 0", s->beta_fast,
                          s->beta_slow);
    if (ft_json_get(o, "attention_factor"))
        s->attention_factor = attention;
    else if (mscale != 0 && mscale_all != 0)
        s->attention_factor = yarn_scale(s->factor, mscale) / yarn_scale(s->factor, mscale_all);
    else
        s->attention_factor = yarn_scale(s->factor, 1);
    return FT_OK;
}

static int longrope_fields(const json_t *o, const char *file, struct ft_rope_spec *s)
{
    FT_TRY(factor_list(o, file, "short_factor", s->dim / 2, s->short_factor));
    FT_TRY(factor_list(o, file, "long_factor", s->dim / 2, s->long_factor));
    s->attention_factor =
        s->factor <= 1 ? 1 : sqrt(1 + log(s->factor) / log(s->original_max_positions));
    if (!ft_json_real(o, file, "attention_factor", &s->attention_factor))
        return FT_EDATA;
    return FT_OK;
}

/* root: config.json; o: its rope_parameters or rope_scaling, or root itself if it has neither. */
static int rope_fields(const json_t *root, const json_t *o, const char *file, const char *type,
                       struct ft_rope_spec *s)
{
    double original = s->max_positions;
    if (!ft_json_real(o, file, "original_max_position_embeddings", &original) ||
        !ft_json_real(root, file, "original_max_position_embeddings", &original))
        return FT_EDATA;
    s->original_max_positions = original;
    if (s->type != FT_ROPE_DEFAULT && (!(original > 1) || !isfinite(original)))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'original_max_position_embeddings' is %g, allowed above 1", original);
    switch (s->type) {
    case FT_ROPE_DEFAULT:
        return FT_OK;
    case FT_ROPE_LLAMA3:
        FT_TRY(need(o, file, type, "low_freq_factor", &s->low_freq_factor));
        FT_TRY(need(o, file, type, "high_freq_factor", &s->high_freq_factor));
        return need(o, file, type, "factor", &s->factor);
    case FT_ROPE_LINEAR:
    case FT_ROPE_DYNAMIC:
        return need(o, file, type, "factor", &s->factor);
    case FT_ROPE_YARN:
    case FT_ROPE_LONGROPE:
        s->factor = s->max_positions / s->original_max_positions;
        if (ft_json_get(o, "factor"))
            FT_TRY(need(o, file, type, "factor", &s->factor));
        return s->type == FT_ROPE_YARN ? yarn_fields(o, file, s) : longrope_fields(o, file, s);
    }
    return FT_OK;
}

/* Two places for one fact: what transformers takes. */
static void say_rope(const json_t *root, const json_t *o, const char *file)
{
    static const char *const keys[] = {"rope_theta", "partial_rotary_factor"};
    const char *type = json_string_value(json_object_get(o, "type"));
    const char *rope_type = json_string_value(json_object_get(o, "rope_type"));
    for (size_t i = 0; i < 2 && o != root; i++) {
        const json_t *outer = ft_json_get(root, keys[i]), *inner = ft_json_get(o, keys[i]);
        if (outer && inner && json_number_value(outer) != json_number_value(inner))
            ft_notice((struct ft_where){.file = file},
                      "'%s' is %g, and %g among the parameters of rope; the second counts", keys[i],
                      json_number_value(outer), json_number_value(inner));
    }
    if (o != root && type && rope_type && strcmp(type, rope_type) != 0)
        ft_notice((struct ft_where){.file = file},
                  "'type' of rope is '%s', and 'rope_type' '%s'; the second counts", type,
                  rope_type);
}

static int read_rope(const json_t *root, const char *file, struct ft_model_config *c)
{
    struct ft_rope_spec *s = &c->rope;
    const json_t *o = ft_json_get(root, "rope_scaling"); /* transformers' order, too */
    if (json_object_size(o) == 0)
        o = ft_json_get(root, "rope_parameters");
    if (json_object_size(o) == 0)
        o = root;
    const char *type = "default";
    double partial = 1, theta = 10000;
    if (o != root &&
        (!ft_json_str(o, file, "type", &type) || !ft_json_str(o, file, "rope_type", &type)))
        return FT_EDATA;
    if (!ft_json_real(root, file, "rope_theta", &theta) ||
        !ft_json_real(o, file, "rope_theta", &theta) ||
        !ft_json_real(root, file, "partial_rotary_factor", &partial) ||
        !ft_json_real(o, file, "partial_rotary_factor", &partial))
        return FT_EDATA;
    say_rope(root, o, file);
    if (!(theta > 1) || !isfinite(theta))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'rope_theta' is %g, allowed above 1", theta);
    if (partial != 1)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'partial_rotary_factor' is %g, which this architecture does not have",
                          partial);
    size_t i = 0, n = sizeof rope_types / sizeof *rope_types;
    while (i < n && strcmp(rope_types[i].name, type) != 0)
        i++;
    if (i == n)
        return refuse(file, "rope_type", type, "default, linear, dynamic, llama3, yarn, longrope");
    *s = (struct ft_rope_spec){.type = rope_types[i].type,
                               .dim = (int)c->head_dim,
                               .theta = theta,
                               .factor = 1,
                               .attention_factor = 1,
                               .max_positions = (double)c->max_positions};
    if (s->type == FT_ROPE_DYNAMIC && s->dim <= 2)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "rope type 'dynamic' needs a head_dim above 2");
    FT_TRY(rope_fields(root, o, file, type, s));
    if (!(s->attention_factor > 0) || !isfinite(s->attention_factor) || !isfinite(s->factor))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "rope: 'attention_factor' %g or 'factor' %g is out of range",
                          s->attention_factor, s->factor);
    return FT_OK;
}

static int check_shape(const char *file, struct ft_model_config *c)
{
    const struct ft_where at = {.file = file};
    if (c->kv_heads == 0)
        c->kv_heads = c->heads;
    if (c->head_dim == 0) {
        if (c->hidden % c->heads)
            return ft_fail_at(at, FT_EDATA,
                              "'hidden_size' %lld is not a multiple of "
                              "'num_attention_heads' %lld, and there is no 'head_dim'",
                              (long long)c->hidden, (long long)c->heads);
        c->head_dim = c->hidden / c->heads;
    }
    if (c->heads % c->kv_heads)
        return ft_fail_at(at, FT_EDATA,
                          "'num_attention_heads' %lld is not a multiple of "
                          "'num_key_value_heads' %lld",
                          (long long)c->heads, (long long)c->kv_heads);
    if (c->head_dim % 2 || c->head_dim > FT_HEAD_DIM_MAX)
        return ft_fail_at(at, FT_EDATA, "'head_dim' is %lld, ft needs an even number up to %d",
                          (long long)c->head_dim, FT_HEAD_DIM_MAX);
    if (c->heads / c->kv_heads > FT_HEAD_GROUP_MAX)
        return ft_fail_at(at, FT_EDATA, "%lld heads share a key head, ft supports up to %d",
                          (long long)(c->heads / c->kv_heads), FT_HEAD_GROUP_MAX);
    if (c->hidden > FT_NORM_COLS_MAX)
        return ft_fail_at(at, FT_EDATA, "'hidden_size' is %lld, ft supports up to %d",
                          (long long)c->hidden, FT_NORM_COLS_MAX);
    if (c->layers > FT_LAYERS_MAX)
        return ft_fail_at(at, FT_EDATA, "'num_hidden_layers' is %lld, ft supports up to %d",
                          (long long)c->layers, FT_LAYERS_MAX);
    if (!(c->norm_eps > 0))
        return ft_fail_at(at, FT_EDATA, "'rms_norm_eps' is %g, allowed above 0", c->norm_eps);
    return FT_OK;
}

/* An end or begin token may be a number or a list; the first counts. */
static long long token_id(const json_t *root, const char *key)
{
    const json_t *v = ft_json_get(root, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}

int ft_llama_config(const json_t *root, const char *file, struct ft_model_config *c)
{
    const char *act = "silu";
    bool ok = ft_json_str(root, file, "hidden_act", &act);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        ok = read_field(root, file, &fields[i], c) && ok;
    if (!ok)
        return FT_EDATA;
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return refuse(file, "hidden_act", act, "silu");
    double dropout = 0;
    if (!ft_json_real(root, file, "attention_dropout", &dropout))
        return FT_EDATA;
    if (dropout != 0)
        ft_notice(
            (struct ft_where){.file = file},
            "'attention_dropout' %g is not applied: ft trains with dropout in the adapter only",
            dropout);
    FT_TRY(check_shape(file, c));
    c->bos_id = token_id(root, "bos_token_id");
    c->eos_id = token_id(root, "eos_token_id");
    return read_rope(root, file, c);
}
