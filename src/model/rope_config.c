/* config.json's parameters of rotary positions, as versions 4 and 5 of transformers write them. */
#include "model/internal.h"

#include <math.h>
#include <string.h>

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

static int find_type(const json_t *o, const json_t *root, const char *file,
                     const struct ft_rope_keys *k, const char **type, enum ft_rope_type *out)
{
    *type = "default";
    if (o != root &&
        (!ft_json_str(o, file, "type", type) || !ft_json_str(o, file, "rope_type", type)))
        return FT_EDATA;
    if (strcmp(*type, "mrope") == 0 && ft_json_get(o, "mrope_section"))
        *type = "default"; /* one position for all sections, where there is only text */
    for (size_t i = 0; i < sizeof rope_types / sizeof *rope_types; i++)
        if (strcmp(rope_types[i].name, *type) == 0) {
            *out = rope_types[i].type;
            if (*out == FT_ROPE_YARN && k->yarn_is_longrope)
                *out = FT_ROPE_LONGROPE;
            return FT_OK;
        }
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "'rope_type' is '%s', which ft does not support", *type);
    ft_hint("supported: default, linear, dynamic, llama3, yarn, longrope");
    return FT_EDATA;
}

static int check_spec(const struct ft_rope_spec *s, const char *file)
{
    const struct ft_where at = {.file = file};
    if (!(s->theta > 1) || !isfinite(s->theta))
        return ft_fail_at(at, FT_EDATA, "'rope_theta' is %g, allowed above 1", s->theta);
    if (s->dim < 2 || s->dim % 2 || s->dim > 2 * FT_ROPE_MAX_HALF)
        return ft_fail_at(at, FT_EDATA,
                          "%d columns of a head would be rotated, ft needs an even number up to %d",
                          s->dim, 2 * FT_ROPE_MAX_HALF);
    if (s->type == FT_ROPE_DYNAMIC && s->dim <= 2)
        return ft_fail_at(at, FT_EDATA, "rope type 'dynamic' needs a head_dim above 2");
    return FT_OK;
}

/* 'dynamic' by name only: theta by a factor that is said. */
static int fixed_theta(const json_t *o, const char *file, const struct ft_rope_keys *k,
                       const struct ft_decoder *d, enum ft_rope_type *type, double *theta)
{
    double alpha = 0;
    if (!k->fixed_alpha || *type != FT_ROPE_DYNAMIC)
        return FT_OK;
    if (!ft_json_real(o, file, "alpha", &alpha))
        return FT_EDATA;
    if (alpha == 0)
        return FT_OK;
    if (!(alpha > 0) || !isfinite(alpha) || d->head_dim <= 2)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "rope: 'alpha' is %g, allowed above 0, with a head_dim above 2", alpha);
    *type = FT_ROPE_DEFAULT;
    *theta *= pow(alpha, (double)d->head_dim / (double)(d->head_dim - 2));
    return FT_OK;
}

/* The share of a head that is rotated. */
static int read_partial(const json_t *root, const json_t *o, const char *file,
                        const struct ft_rope_keys *k, const struct ft_decoder *d, double *partial)
{
    long long columns = 0;
    *partial = k->partial > 0 ? k->partial : 1;
    if (k->dim_key && !ft_json_int(root, file, k->dim_key, &columns))
        return FT_EDATA;
    if (columns)
        *partial = (double)columns / (double)d->head_dim;
    if (!ft_json_real(root, file, "partial_rotary_factor", partial) ||
        (k->partial_key && !ft_json_real(root, file, k->partial_key, partial)) ||
        !ft_json_real(o, file, "partial_rotary_factor", partial))
        return FT_EDATA;
    if (*partial > 0 && *partial <= 1 && (*partial == 1 || k->partial > 0))
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                      "%g of each head would be rotated ('partial_rotary_factor'%s%s), %s",
                      *partial, k->dim_key ? ", " : "", k->dim_key ? k->dim_key : "",
                      k->partial > 0 ? "allowed above 0 to 1"
                                     : "which this architecture does not have");
}

/* One table. root: config.json; o: its parameters of this table, or root itself. */
static int read_table(const json_t *root, const json_t *o, const char *file,
                      const struct ft_rope_keys *k, double theta, const struct ft_decoder *d,
                      struct ft_rope_spec *s)
{
    const char *type;
    double partial;
    enum ft_rope_type t;
    FT_TRY(find_type(o, root, file, k, &type, &t));
    if (!ft_json_real(o, file, "rope_theta", &theta))
        return FT_EDATA;
    FT_TRY(read_partial(root, o, file, k, d, &partial));
    FT_TRY(fixed_theta(o, file, k, d, &t, &theta));
    const int64_t columns = d->latent.kv ? d->latent.rotated : d->head_dim;
    *s = (struct ft_rope_spec){.type = t,
                               .dim = (int)((double)columns * partial),
                               .theta = theta,
                               .factor = 1,
                               .attention_factor = 1,
                               .max_positions = (double)d->max_positions};
    FT_TRY(check_spec(s, file));
    FT_TRY(rope_fields(root, o, file, type, s));
    if (!(s->attention_factor > 0) || !isfinite(s->attention_factor) || !isfinite(s->factor))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "rope: 'attention_factor' %g or 'factor' %g is out of range",
                          s->attention_factor, s->factor);
    return FT_OK;
}

/* A third table for queries, which grow with their position. */
static int read_growth(const json_t *o, const char *file, struct ft_decoder *d)
{
    double growth = 0;
    if (d->rope[1].still > 0) { /* is there already, but for its width */
        d->rope[1].dim = (int)d->head_dim;
        d->n_ropes = 2;
        return FT_OK;
    }
    if (!ft_json_real(o, file, "llama_4_scaling_beta", &growth))
        return FT_EDATA;
    if (growth < 0 || !isfinite(growth))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'llama_4_scaling_beta' is %g, allowed from 0", growth);
    if (growth == 0)
        return FT_OK;
    d->rope[1] = d->rope[0];
    d->rope[1].growth = growth;
    d->n_ropes = 2;
    return FT_OK;
}

/* Full and sliding layers have a table each: nested parameters by layer type, or version 4's keys,
 * whose scaling reaches the full layers only. */
static int read_two(const json_t *root, const json_t *o, const char *file,
                    const struct ft_rope_keys *k, struct ft_decoder *d)
{
    const json_t *scaling = ft_json_get(root, "rope_scaling");
    const json_t *full = ft_json_get(o, "full_attention"),
                 *local = ft_json_get(o, "sliding_attention");
    double theta = k->theta, local_theta = k->local_theta;
    if (json_object_size(scaling) > 0 && !full)
        full = scaling;
    if (!full && !local && o != root && o != scaling)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'rope_parameters' has neither 'full_attention' nor 'sliding_attention'");
    if (!ft_json_real(root, file, "rope_theta", &theta) ||
        (k->local_key && !ft_json_real(root, file, k->local_key, &local_theta)))
        return FT_EDATA;
    FT_TRY(read_table(root, full ? full : root, file, k, theta, d, &d->rope[0]));
    /* an empty object: nothing of the full layers' reaches the sliding ones */
    json_t *none = json_object();
    if (!none)
        return ft_short_of_memory();
    int rc = read_table(none, local ? local : none, file, k, local_theta, d, &d->rope[1]);
    json_decref(none);
    d->n_ropes = 2;
    return rc;
}

/* The class's own parameters. */
static int read_fallback(const json_t *root, const char *file, const struct ft_rope_keys *k,
                         struct ft_decoder *d)
{
    json_t *o = NULL;
    FT_TRY(ft_json_text(k->fallback, strlen(k->fallback), file, FT_EDATA, &o));
    int rc = read_table(root, o, file, k, k->theta, d, &d->rope[0]);
    d->n_ropes = 1;
    if (!rc)
        rc = read_growth(o, file, d);
    json_decref(o);
    return rc;
}

int ft_rope_read(const json_t *root, const char *file, const struct ft_rope_keys *k,
                 struct ft_decoder *d)
{
    const json_t *o = ft_json_get(root, "rope_scaling"); /* transformers' order, too */
    double theta = k->theta;
    if (json_object_size(o) == 0)
        o = ft_json_get(root, "rope_parameters");
    if (json_object_size(o) == 0 && k->fallback)
        return read_fallback(root, file, k, d);
    if (json_object_size(o) == 0)
        o = root;
    if (k->local_theta > 0) {
        const json_t *nested = ft_json_get(root, "rope_parameters");
        return read_two(root, json_object_size(nested) ? nested : o, file, k, d);
    }
    if (!ft_json_real(root, file, "rope_theta", &theta) ||
        (k->theta_key && !ft_json_real(root, file, k->theta_key, &theta)))
        return FT_EDATA;
    say_rope(root, o, file);
    FT_TRY(read_table(root, o, file, k, theta, d, &d->rope[0]));
    d->n_ropes = 1;
    return read_growth(o, file, d);
}
