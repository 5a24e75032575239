/* What an adapter's config says of its modules, against the tensors that are there. PEFT builds the
 * modules that the config names and then fills those that have tensors, so that a difference
 * between the two changes what it computes without a word. */
#include "adapter/internal.h"

#include "core/regex.h"
#include "core/text.h"

#include <string.h>

/* Names, or one expression for whole names. */
struct names {
    const struct ft_adapter *adapter;
    const json_t *list;
    struct ft_regex *regex;
    bool all; /* "all-linear" */
};

struct claims {
    const struct ft_adapter *adapter;
    const char *file;
    const json_t *root;
    struct names targets, excluded;
    const json_t *layers; /* a number, or a list of them that is not empty; NULL: all */
};

static struct ft_where in(const struct claims *c)
{
    return (struct ft_where){.file = c->file};
}

static int open_names(const struct claims *c, const char *key, struct names *out)
{
    const json_t *v = ft_json_get(c->root, key);
    const char *text = json_string_value(v);
    *out = (struct names){.adapter = c->adapter, .list = json_is_array(v) ? v : NULL};
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_string(json_array_get(v, i)))
            return ft_fail_at(in(c), FT_EDATA, "'%s' has an entry that is not a name", key);
    if (!v || json_is_array(v))
        return FT_OK;
    if (!text)
        return ft_fail_at(in(c), FT_EDATA, "'%s' is neither a list of names nor a text", key);
    out->all = strcmp(text, "all-linear") == 0;
    return out->all ? FT_OK : ft_regex_new(&out->regex, FT_EDATA, "", text, "");
}

static int open_claims(struct claims *c)
{
    const json_t *pattern = ft_json_get(c->root, "layers_pattern");
    const char *name =
        json_string_value(json_is_array(pattern) ? json_array_get(pattern, 0) : pattern);
    FT_TRY(open_names(c, "target_modules", &c->targets));
    FT_TRY(open_names(c, "exclude_modules", &c->excluded));
    c->layers = ft_json_get(c->root, "layers_to_transform");
    if (json_is_array(c->layers) && json_array_size(c->layers) == 0)
        c->layers = NULL;
    if (!c->targets.list && !c->targets.regex && !c->targets.all &&
        !ft_json_get(c->root, "target_parameters"))
        return ft_fail_at(in(c), FT_EDATA, "'target_modules' is missing: which modules it has");
    if (c->layers && name && *name && strcmp(name, "layers") != 0)
        return ft_fail_at(in(c), FT_EDATA,
                          "'layers_pattern' is '%s': this model's layers are "
                          "'layers'",
                          name);
    return FT_OK;
}

static bool has_layer(const struct claims *c, int layer)
{
    if (!c->layers)
        return true;
    if (json_is_integer(c->layers))
        return json_integer_value(c->layers) == layer;
    for (size_t i = 0; i < json_array_size(c->layers); i++)
        if (json_integer_value(json_array_get(c->layers, i)) == layer)
            return true;
    return false;
}

/* As PEFT's check_target_module_exists: a whole name is not subject to the choice of layers.
 * FT_OK with *is, or what the expression's engine says. */
static int names_it(const struct names *n, const char *name, bool *is, bool *whole)
{
    *is = *whole = false;
    if (n->regex) {
        *whole = true;
        return ft_regex_matches_all(n->regex, name, is);
    }
    for (size_t i = 0; i < json_array_size(n->list) && !*whole; i++) {
        const char *one = json_string_value(json_array_get(n->list, i));
        if (ft_adapter_means_experts(n->adapter, one))
            continue;
        *whole = strcmp(one, name) == 0;
        *is = *is || *whole || ft_adapter_name_matches(name, one);
    }
    return FT_OK;
}

static int claims_it(const struct claims *c, const char *name, int layer, bool linear, bool *is)
{
    bool whole, excluded;
    FT_TRY(names_it(&c->excluded, name, &excluded, &whole));
    FT_TRY(names_it(&c->targets, name, is, &whole));
    *is = (c->targets.all && linear) ||
          (*is && (whole || (layer >= 0 && has_layer(c, layer)) || (layer < 0 && !c->layers)));
    *is = *is && !excluded;
    return FT_OK;
}

static int contradiction(const struct claims *c, const struct ft_adapter *a, const char *name,
                         bool claimed)
{
    ft_fail_at(in(c), FT_EDATA,
               claimed ? "'target_modules' covers '%s', for which adapter_model.safetensors has no "
                         "tensors"
                       : "'target_modules' does not cover '%s', for which "
                         "adapter_model.safetensors has tensors",
               name);
    ft_hint("PEFT goes by the config: it would %s; make the two agree, in '%s'",
            claimed ? "begin that module anew" : "leave these tensors out", a->folder);
    return FT_EDATA;
}

int ft_adapter_check_claims(const struct ft_adapter *a, const char *file,
                            const struct ft_site *sites, int n)
{
    struct claims c = {.adapter = a, .file = file, .root = a->peft};
    bool is;
    int rc = open_claims(&c);
    for (int i = 0; i < n && !rc; i++) {
        const bool linear = sites[i].kind == FT_SITE_LINEAR;
        if (sites[i].kind == FT_SITE_EXPERTS) /* were found by the config */
            continue;
        rc = claims_it(&c, sites[i].name, sites[i].layer, linear, &is);
        if (!rc && is != (a->slot_of_site[i] >= 0))
            rc = contradiction(&c, a, sites[i].name, is);
    }
    ft_regex_free(c.targets.regex);
    ft_regex_free(c.excluded.regex);
    return rc;
}
