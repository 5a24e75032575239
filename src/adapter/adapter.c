/* Adapters in the graph: slots, parameters, building. */
#include "adapter/internal.h"

#include <string.h>

static int begin(struct ft_adapter **out, int n_sites)
{
    struct ft_adapter *a;
    FT_TRY(ft_alloc(&a, 1, sizeof *a));
    a->n_sites = n_sites;
    int rc = ft_alloc(&a->slots, (size_t)n_sites, sizeof *a->slots);
    if (!rc)
        rc = ft_alloc(&a->slot_of_site, (size_t)n_sites, sizeof *a->slot_of_site);
    if (rc) {
        ft_adapter_free(a);
        return rc;
    }
    for (int i = 0; i < n_sites; i++)
        a->slot_of_site[i] = -1;
    *out = a;
    return FT_OK;
}

static const struct ft_adapter_method *find_method(const char *name)
{
    for (int i = 0; i < ft_adapter_method_count; i++)
        if (strcmp(ft_adapter_methods[i].name, name) == 0)
            return &ft_adapter_methods[i];
    return NULL;
}

int ft_adapter_new(struct ft_adapter **out, const struct ft_site *sites, int n_sites,
                   const struct ft_adapter_options *o)
{
    struct ft_adapter *a;
    *out = NULL;
    FT_TRY(begin(&a, n_sites));
    a->method = find_method(o->method);
    FT_ASSERT(a->method);
    a->r = o->r;
    a->alpha = o->alpha ? o->alpha : 2 * o->r;
    a->dropout = o->dropout;
    a->rslora = o->rslora;
    a->seed = o->seed;
    int rc = ft_adapter_match(a, sites, n_sites, o);
    if (!rc)
        rc = ft_adapter_resolve(a, o->rank_pattern, o->alpha_pattern);
    if (!rc)
        rc = ft_adapter_describe(a, o);
    if (rc) {
        ft_adapter_free(a);
        return rc;
    }
    *out = a;
    return FT_OK;
}

int ft_adapter_open(struct ft_adapter **out, const struct ft_site *sites, int n_sites,
                    const char *folder, uint64_t seed)
{
    struct ft_adapter *a;
    *out = NULL;
    FT_TRY(begin(&a, n_sites));
    a->method = &ft_adapter_methods[0];
    a->seed = seed;
    int rc = ft_adapter_import(a, sites, n_sites, folder);
    if (rc) {
        ft_adapter_free(a);
        return rc;
    }
    *out = a;
    return FT_OK;
}

void ft_adapter_free(struct ft_adapter *a)
{
    if (!a)
        return;
    json_decref(a->peft);
    ft_free(a->folder);
    ft_free(a->slots);
    ft_free(a->slot_of_site);
    ft_arena_fini(&a->arena);
    ft_free(a);
}

int64_t ft_adapter_parameters(const struct ft_adapter *a)
{
    return a->parameters;
}

int ft_adapter_modules(const struct ft_adapter *a)
{
    return a->n_slots;
}

int64_t ft_adapter_max_rank(const struct ft_adapter *a)
{
    int64_t most = 0;
    for (int i = 0; i < a->n_slots; i++)
        most = a->slots[i].r > most ? a->slots[i].r : most;
    return most;
}

void ft_adapter_config(const struct ft_adapter *a, struct ft_adapter_options *out)
{
    *out = (struct ft_adapter_options){.method = a->method->name,
                                       .r = a->r,
                                       .alpha = a->alpha,
                                       .dropout = a->dropout,
                                       .rslora = a->rslora};
}

const char *ft_adapter_difference(const struct ft_adapter *a, const struct ft_adapter *b,
                                  bool ranks)
{
    for (int i = 0; i < a->n_sites; i++) {
        const struct ft_slot *s = a->slot_of_site[i] < 0 ? NULL : &a->slots[a->slot_of_site[i]];
        const struct ft_slot *t = b->slot_of_site[i] < 0 ? NULL : &b->slots[b->slot_of_site[i]];
        if (!s != !t)
            return s ? s->name : t->name;
        if (s && ranks && (s->r != t->r || s->alpha != t->alpha))
            return s->name;
    }
    return NULL;
}

bool ft_adapter_is_uneven(const struct ft_adapter *a)
{
    for (int i = 1; i < a->n_slots; i++)
        if (a->slots[i].r != a->slots[0].r || a->slots[i].alpha != a->slots[0].alpha)
            return true;
    return false;
}

int ft_adapter_declare(struct ft_adapter *a, struct ft_graph *g)
{
    char name[320];
    a->values = ft_graph_value(g, FT_M_ADAPTER, "adapter parameters", FT_F32, 1, a->parameters);
    a->gradients = ft_graph_value(g, FT_M_GRADIENT, "adapter gradients", FT_F32, 1, a->parameters);
    int64_t at = 0;
    for (int i = 0; i < a->n_slots; i++) {
        struct ft_slot *s = &a->slots[i];
        snprintf(name, sizeof name, "%s.lora_A", s->name);
        s->a = ft_graph_view(g, a->values, name, s->r, s->in, at);
        ft_graph_train(g, s->a, ft_graph_view(g, a->gradients, name, s->r, s->in, at));
        at += s->r * s->in;
        snprintf(name, sizeof name, "%s.lora_B", s->name);
        s->b = ft_graph_view(g, a->values, name, s->out, s->r, at);
        ft_graph_train(g, s->b, ft_graph_view(g, a->gradients, name, s->out, s->r, at));
        at += s->out * s->r;
    }
    return FT_OK;
}

struct ft_tensor *ft_adapter_values(const struct ft_adapter *a)
{
    return a->values;
}

struct ft_tensor *ft_adapter_gradients(const struct ft_adapter *a)
{
    return a->gradients;
}

struct ft_tensor *ft_adapter_linear(struct ft_adapter *a, struct ft_graph *g, int site,
                                    struct ft_tensor *x, struct ft_tensor *w,
                                    struct ft_tensor *bias, struct ft_tensor *add,
                                    struct ft_tensor *keys)
{
    int i = a->slot_of_site[site];
    if (i < 0)
        return ft_linear(g, x, w, bias, add, 1.f);
    return a->method->linear(a, g, &a->slots[i], x, w, bias, add, keys);
}

int ft_adapter_fill(struct ft_adapter *a)
{
    if (a->folder)
        return ft_adapter_read_values(a);
    for (int i = 0; i < a->n_slots; i++)
        a->method->init(a, &a->slots[i]);
    return FT_OK;
}
