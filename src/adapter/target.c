/* Which modules an adapter attaches to, and with which rank: PEFT's matching rules. */
#include "adapter/internal.h"

#include "core/regex.h"
#include "core/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

bool ft_adapter_name_matches(const char *module, const char *target)
{
    size_t n = strlen(module), m = strlen(target);
    return strcmp(module, target) == 0 ||
           (n > m && ft_ends_with(module, target) && module[n - m - 1] == '.');
}

static void list_candidates(const struct ft_site *sites, int n)
{
    char text[1024] = "";
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        bool seen = false;
        for (int k = 0; k < i && !seen; k++)
            seen = strcmp(last_part(sites[k].name), last_part(sites[i].name)) == 0;
        if (!seen && at < sizeof text - 128)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", at ? ", " : "",
                                   last_part(sites[i].name));
    }
    ft_hint("this model's modules are %s (for example '%s')", text, sites[0].name);
}

int ft_adapter_add_slot(struct ft_adapter *a, const struct ft_site *sites, int site)
{
    struct ft_slot *s = &a->slots[a->n_slots];
    *s = (struct ft_slot){
        .site = site, .kind = sites[site].kind, .in = sites[site].in, .out = sites[site].out};
    s->experts = sites[site].experts;
    s->once = sites[site].once;
    s->once_in = sites[site].once_in;
    s->crossed = sites[site].crossed;
    s->group = sites[site].group;
    s->feedforward = sites[site].feedforward;
    s->apart = sites[site].apart;
    s->name = ft_arena_format(&a->arena, "%s", sites[site].name);
    if (!s->name)
        return FT_ERESOURCE;
    a->slot_of_site[site] = a->n_slots++;
    return FT_OK;
}

bool ft_adapter_means_experts(const struct ft_adapter *a, const char *target)
{
    for (int i = 0; i < a->n_slots; i++)
        for (const char *const *name = a->slots[i].once; name && *name; name++)
            if (strcmp(last_part(target), *name) == 0)
                return true;
    return false;
}

static bool layer_chosen(const int64_t *layers, int layer)
{
    if (!layers)
        return true;
    for (; *layers >= 0; layers++)
        if (*layers == layer)
            return true;
    return false;
}

/* As PEFT: a target that is the whole name is not subject to the choice of layers. */
static bool in_list(const struct ft_site *site, const char *const *targets, const int64_t *layers)
{
    for (; targets && *targets; targets++)
        if (strcmp(site->name, *targets) == 0 ||
            (ft_adapter_name_matches(site->name, *targets) && layer_chosen(layers, site->layer)))
            return true;
    return false;
}

/* Whether the end of a name is one that experts had when they were modules. */
static bool was_called(const struct ft_site *site, const char *target)
{
    for (const char *const *name = site->once; name && *name; name++)
        if (strcmp(last_part(target), *name) == 0)
            return true;
    return false;
}

/* Whether some of the model's experts were called so: then PEFT takes the name for them alone. */
static bool means_experts(const struct ft_site *sites, int n, const char *target)
{
    for (int i = 0; i < n; i++)
        if (was_called(&sites[i], target))
            return true;
    return false;
}

/* Of experts' gates and ups, which are one parameter, both or none are adapted. */
static int check_once(const struct ft_site *sites, int n, const char *const *targets)
{
    for (int i = 0; i < n; i++) {
        const char *lacks = NULL, *has = NULL;
        for (const char *const *name = sites[i].once; name && *name; name++) {
            bool hit = false;
            for (const char *const *t = targets; t && *t && !hit; t++)
                hit = strcmp(last_part(*t), *name) == 0;
            *(hit ? &has : &lacks) = *name;
        }
        if (has && lacks)
            return ft_fail(FT_ECONFIG,
                           "'lora_target_modules' has '%s' without '%s': in the experts of this "
                           "model both are one parameter, '%s'",
                           has, lacks, last_part(sites[i].name));
    }
    return FT_OK;
}

static int check_parameters(const struct ft_adapter *a, const struct ft_site *sites, int n,
                            const struct ft_adapter_options *o)
{
    for (const char *const *p = o->parameters; p && *p; p++) {
        bool hit = false;
        for (int i = 0; i < n && !hit; i++)
            hit = sites[i].kind == FT_SITE_EXPERTS && ft_adapter_name_matches(sites[i].name, *p);
        if (hit)
            continue;
        ft_fail(FT_ECONFIG, "'lora_target_parameters': '%s' matches no parameter of experts", *p);
        for (int i = 0; i < n; i++)
            if (sites[i].kind == FT_SITE_EXPERTS) {
                ft_hint("this model's are called, for example, '%s'", sites[i].name);
                return FT_ECONFIG;
            }
        ft_hint("this model has no experts");
        return FT_ECONFIG;
    }
    if (!ft_adapter_slots_of(a, FT_SITE_EXPERTS))
        return FT_OK;
    const struct {
        bool is;
        const char *what;
    } excluded[] = {{a->dropout > 0, "lora_dropout"},
                    {o->bias && strcmp(o->bias, "none") != 0, "bias"},
                    {!a->method->experts[0].suffix, a->method->title},
                    {a->start->residual, "a LoRA that begins with a part of the weights"}};
    for (size_t i = 0; i < sizeof excluded / sizeof *excluded; i++)
        if (excluded[i].is)
            return ft_fail(FT_ECONFIG, "adapters on experts' parameters exclude %s, as in PEFT",
                           excluded[i].what);
    return FT_OK;
}

static int check_targets(const struct ft_site *sites, int n, const char *const *targets)
{
    int rc = FT_OK;
    for (; targets && *targets; targets++) {
        bool hit = false;
        for (int i = 0; i < n && !hit; i++)
            hit = was_called(&sites[i], *targets) ||
                  (sites[i].kind != FT_SITE_EXPERTS &&
                   ft_adapter_name_matches(sites[i].name, *targets));
        if (!hit)
            rc = ft_fail(FT_ECONFIG, "'lora_target_modules': '%s' matches no module", *targets);
    }
    if (rc)
        list_candidates(sites, n);
    return rc;
}

static int check_layers(const struct ft_adapter *a, const int64_t *layers)
{
    for (; layers && *layers >= 0; layers++)
        if (*layers >= a->n_layers)
            return ft_fail(FT_ECONFIG,
                           "'peft_layers_to_transform' has %lld, the model's layers are 0 to %d",
                           (long long)*layers, a->n_layers - 1);
    return FT_OK;
}

/* Some methods are for the linear modules of the layers only. */
static int check_kind(const struct ft_adapter *a, const struct ft_site *site)
{
    if (ft_method_covers(a->method, site->kind) &&
        (site->kind == FT_SITE_LINEAR || !a->start->residual))
        return FT_OK;
    return ft_fail(FT_ECONFIG,
                   "'lora_target_modules' covers '%s': the method '%s' is for the linear modules "
                   "of the layers",
                   site->name, a->start->residual ? a->start->name : a->method->name);
}

/* By the names of the modules that they were PEFT gives the gates and ups the rank of both. */
int ft_adapter_add_experts(struct ft_adapter *a, const struct ft_site *sites, int site, bool old)
{
    FT_TRY(ft_adapter_add_slot(a, sites, site));
    if (old && sites[site].once[1]) {
        a->slots[a->n_slots - 1].r = 2 * a->r;
        a->slots[a->n_slots - 1].alpha = 2 * a->alpha;
        a->overlap = true;
    }
    return FT_OK;
}

/* Experts: by their parameters' names, or by those of the modules that they were. */
static int match_experts(struct ft_adapter *a, const struct ft_site *sites, int site,
                         const struct ft_adapter_options *o)
{
    const struct ft_site *s = &sites[site];
    bool named = in_list(s, o->parameters, NULL), old = false;
    for (const char *const *t = o->targets; t && *t; t++)
        old = old || was_called(s, *t);
    if (!named && !old)
        return FT_OK;
    return ft_adapter_add_experts(a, sites, site, old);
}

/* Whether a linear module is one of those that were asked for. */
static bool is_target(const struct ft_site *sites, int n, int i, const struct ft_adapter_options *o)
{
    if (means_experts(sites, n, sites[i].name))
        return false;
    return in_list(&sites[i], o->targets, o->layers) ||
           (o->target_linear && sites[i].kind == FT_SITE_LINEAR &&
            (sites[i].usual_ia3 || !o->target_usual) && layer_chosen(o->layers, sites[i].layer));
}

/* What "every linear module" does not mean in a mixture. */
static void say_left_out(const struct ft_adapter *a, const struct ft_site *sites, int n)
{
    const struct ft_site *experts = NULL;
    int left = 0;
    for (int i = 0; i < n; i++) {
        experts = sites[i].kind == FT_SITE_EXPERTS ? &sites[i] : experts;
        left += sites[i].kind == FT_SITE_LINEAR && means_experts(sites, n, sites[i].name);
    }
    if (left)
        ft_notice(
            (struct ft_where){0},
            "%d modules outside the experts have no adapter, since PEFT takes their names for "
            "the experts' (the last is like '%s')",
            left, last_part(experts->name));
    if (experts && !ft_adapter_slots_of(a, FT_SITE_EXPERTS))
        ft_notice((struct ft_where){0},
                  "the experts have no adapter: they are parameters, no linear modules; "
                  "'lora_target_parameters' adapts them");
}

int ft_adapter_match(struct ft_adapter *a, const struct ft_site *sites, int n,
                     const struct ft_adapter_options *o)
{
    struct ft_regex *re = NULL;
    FT_TRY(check_targets(sites, n, o->targets));
    FT_TRY(check_once(sites, n, o->targets));
    FT_TRY(check_layers(a, o->layers));
    if (o->target_regex)
        FT_TRY(ft_regex_new(&re, FT_ECONFIG, "", o->target_regex, ""));
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++) {
        bool hit = false;
        if (sites[i].kind == FT_SITE_EXPERTS) {
            rc = match_experts(a, sites, i, o);
            continue;
        }
        if (re)
            rc = ft_regex_matches_all(re, sites[i].name, &hit);
        hit = hit || is_target(sites, n, i, o);
        if (!rc && hit)
            rc = check_kind(a, &sites[i]);
        if (!rc && hit)
            rc = ft_adapter_add_slot(a, sites, i);
    }
    ft_regex_free(re);
    ft_adapter_compare_layers(a, sites, n);
    if (!rc)
        rc = check_parameters(a, sites, n, o);
    if (!rc && o->target_linear)
        say_left_out(a, sites, n);
    if (rc || a->n_slots)
        return rc;
    if (o->target_regex)
        ft_fail(FT_ECONFIG, "'lora_target_modules': '%s' matches no module", o->target_regex);
    else
        ft_fail(FT_ECONFIG, "no module is chosen for the adapter: set 'lora_target_modules' or "
                            "'lora_target_linear: true'");
    list_candidates(sites, n);
    return FT_ECONFIG;
}

/* The first pattern that matches decides, as PEFT's get_pattern_key. */
static int apply_patterns(struct ft_adapter *a, const char *key, const struct ft_pattern *p,
                          bool is_rank)
{
    for (; p && p->key; p++) {
        struct ft_regex *re;
        bool hit = false;
        FT_TRY(ft_regex_new(&re, FT_ECONFIG, "(?:.*\\.)?", p->key, ""));
        int rc = FT_OK;
        for (int i = 0; i < a->n_slots && !rc; i++) {
            struct ft_slot *s = &a->slots[i];
            bool is;
            rc = ft_regex_matches_all(re, s->name, &is);
            if (rc || !is)
                continue;
            hit = true;
            const double had = is_rank ? (double)s->r : s->alpha;
            if (had != 0)
                a->overlap |= had != p->value;
            else if (is_rank)
                s->r = (int64_t)p->value;
            else
                s->alpha = p->value;
        }
        ft_regex_free(re);
        FT_TRY(rc);
        if (!hit && !a->imported)
            return ft_fail(FT_ECONFIG, "'%s': '%s' matches no adapted module", key, p->key);
    }
    return FT_OK;
}

static int64_t size_of(const struct ft_slot *s, enum ft_size size)
{
    const int64_t sizes[] = {[FT_SIZE_R] = s->r,
                             [FT_SIZE_IN] = s->in,
                             [FT_SIZE_OUT] = s->out,
                             [FT_SIZE_RANKS] = s->experts * s->r,
                             [FT_SIZE_OUTS] = s->experts * s->out,
                             [FT_SIZE_OUT_SMALL] = s->out_factor[0],
                             [FT_SIZE_OUT_LARGE] = s->out_factor[1],
                             [FT_SIZE_IN_SMALL] = s->in_factor[0],
                             [FT_SIZE_IN_LARGE] = s->in_factor[1],
                             [FT_SIZE_ONE] = 1,
                             [FT_SIZE_NONE] = 1};
    return sizes[size];
}

/* PEFT wraps the module that has the parameters, once for each that is adapted: what is wrapped
 * first lies deepest. */
static const char *experts_name(struct ft_adapter *a, const struct ft_slot *s, bool first)
{
    const int n = (int)(strrchr(s->name, '.') - s->name);
    bool inner = false;
    for (const struct ft_slot *t = s + 1; t < a->slots + a->n_slots && !inner; t++)
        inner = t->kind == FT_SITE_EXPERTS && strncmp(t->name, s->name, (size_t)n + 1) == 0;
    return ft_arena_format(&a->arena, "base_model.model.%.*s.%slora_%c.weight", n, s->name,
                           inner ? "base_layer." : "", first ? 'A' : 'B');
}

static int add_parameter(struct ft_adapter *a, struct ft_slot *s,
                         const struct ft_parameter_row *row)
{
    struct ft_parameter *p = &a->parameters[a->n_parameters++];
    const bool first = (row->role == FT_LORA_A) != s->crossed;
    *p = (struct ft_parameter){.rows = size_of(s, row->rows),
                               .cols = size_of(s, row->cols),
                               .n_dims = row->cols == FT_SIZE_NONE ? 1 : 2,
                               .vector = row->cols >= FT_SIZE_ONE || row->rows == FT_SIZE_ONE,
                               .experts = s->kind == FT_SITE_EXPERTS ? s->experts : 1,
                               .turned = row->turned || s->crossed,
                               .beside = s->experts > 1 && !first,
                               .end = s->kind == FT_SITE_EMBEDDING || s->kind == FT_SITE_HEAD,
                               .old = s->old ? s : NULL,
                               .at = a->size};
    p->name = s->kind == FT_SITE_EXPERTS
                  ? experts_name(a, s, first)
                  : ft_arena_format(&a->arena, "base_model.model.%s.%s", s->name, row->suffix);
    s->p[row->role] = p;
    a->size += p->rows * p->cols;
    return p->name ? FT_OK : FT_ERESOURCE;
}

/* The parameters of one kind of learning rate: every group's first ones, then its second ones, so
 * that a group's A's are one matrix. */
static int add_rate(struct ft_adapter *a, double rate)
{
    const int64_t first = a->size;
    for (int i = 0, end; i < a->n_slots; i = end) {
        for (end = i; end < a->n_slots && a->slots[end].group == a->slots[i].group;)
            end++;
        const struct ft_parameter_row *row =
            ft_method_rows(a->method, a->slots[i].kind, a->slots[i].feedforward);
        for (; row->suffix; row++)
            for (int k = i; k < end && a->rate[row->rate] == rate; k++)
                if (!row->when || row->when(&a->slots[k]))
                    FT_TRY(add_parameter(a, &a->slots[k], row));
    }
    if (a->size > first)
        a->ranges[a->n_ranges++] = (struct ft_rates_range){first, a->size - first, rate, true};
    return FT_OK;
}

/* The name in PEFT's file of a weight that is trained whole; *adapted: whether it is a bias of a
 * module that has an adapter, which PEFT has put below the adapter. */
static const char *whole_name(struct ft_adapter *a, const char *path, bool *adapted)
{
    const size_t n = strlen(path), end = sizeof ".bias" - 1;
    const bool bias = ft_ends_with(path, ".bias");
    *adapted = false;
    for (int i = 0; bias && i < a->n_slots && !*adapted; i++)
        *adapted =
            strlen(a->slots[i].name) == n - end && strncmp(a->slots[i].name, path, n - end) == 0;
    return *adapted ? ft_arena_format(&a->arena, "base_model.model.%.*s.base_layer.bias",
                                      (int)(n - end), path)
                    : ft_arena_format(&a->arena, "base_model.model.%s", path);
}

/* Wholes that take weight decay, or those that do not. */
static int add_wholes(struct ft_adapter *a, const struct ft_whole *wholes, int n, bool decay)
{
    const int64_t first = a->size;
    for (int i = 0; i < n; i++) {
        const struct ft_whole *w = &wholes[i];
        struct ft_parameter *p = &a->parameters[a->n_parameters];
        bool adapted;
        if (w->decays != decay)
            continue;
        const char *name = whole_name(a, w->name, &adapted);
        if (!name)
            return FT_ERESOURCE;
        if (w->adapted && !adapted)
            continue;
        *p = (struct ft_parameter){.name = name,
                                   .experts = 1,
                                   .rows = w->rows,
                                   .cols = w->cols,
                                   .n_dims = w->n_dims,
                                   .vector = w->n_dims == 1,
                                   .end = w->end || a->method->peft_type,
                                   .at = a->size};
        a->wholes[i] = p;
        a->n_parameters++;
        a->size += p->rows * p->cols;
    }
    if (a->size > first)
        a->ranges[a->n_ranges++] = (struct ft_rates_range){first, a->size - first, 1, decay};
    return FT_OK;
}

static int lay_out(struct ft_adapter *a, const struct ft_whole *wholes, int n)
{
    const size_t most = (size_t)a->n_slots * FT_PARAMETER_ROWS + (size_t)n;
    FT_TRY(ft_alloc(&a->parameters, most, sizeof *a->parameters));
    FT_TRY(ft_alloc(&a->wholes, (size_t)n + 1, sizeof *a->wholes));
    FT_TRY(ft_alloc(&a->whole_copies, (size_t)n + 1, sizeof *a->whole_copies));
    a->n_wholes = n;
    for (int k = 0; k < FT_RATE_KINDS; k++) {
        bool done = false;
        for (int earlier = 0; earlier < k; earlier++)
            done = done || a->rate[earlier] == a->rate[k];
        if (!done)
            FT_TRY(add_rate(a, a->rate[k]));
    }
    a->slot_size = a->size;
    a->n_shared = a->method->share ? a->method->share(a, a->shared) : 0;
    a->frozen_size = a->start->residual ? a->slot_size : 0;
    for (int i = 0; i < a->n_shared; i++)
        a->frozen_size += a->shared[i].rows * a->shared[i].cols;
    FT_TRY(add_wholes(a, wholes, n, true));
    return add_wholes(a, wholes, n, false);
}

int ft_adapter_resolve(struct ft_adapter *a, const struct ft_pattern *ranks,
                       const struct ft_pattern *alphas, const struct ft_whole *wholes, int n_wholes)
{
    FT_TRY(apply_patterns(a, "lora_rank_pattern", ranks, true));
    FT_TRY(apply_patterns(a, "lora_alpha_pattern", alphas, false));
    const struct ft_slot *first = NULL;
    int above = 0;
    for (int i = 0; i < a->n_slots; i++) {
        struct ft_slot *s = &a->slots[i];
        s->r = s->r ? s->r : a->r;
        s->alpha = s->alpha != 0 ? s->alpha : a->alpha;
        s->scale = (float)(s->alpha / (a->rslora ? sqrt((double)s->r) : (double)s->r));
        if (a->method->shape)
            a->method->shape(s);
        bool is_above = s->r > s->in || s->r > s->out;
        above += is_above;
        first = !first && is_above ? s : first;
    }
    if (first && a->start->residual)
        return ft_fail(
            FT_ECONFIG,
            "'peft_init_lora_weights: %s' takes rank %lld out of '%s', which is %lld x %lld",
            a->start->name, (long long)first->r, first->name, (long long)first->out,
            (long long)first->in);
    FT_TRY(lay_out(a, wholes, n_wholes));
    if (first)
        ft_notice((struct ft_where){0},
                  "rank %lld is above the rank of the module itself for %d modules, such as '%s' "
                  "(%lld x %lld)",
                  (long long)first->r, above, first->name, (long long)first->out,
                  (long long)first->in);
    return FT_OK;
}
