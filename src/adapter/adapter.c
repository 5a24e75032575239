/* Adapters in the graph: slots, parameters, building. */
#include "adapter/internal.h"

#include <string.h>

static int begin(struct ft_adapter **out, const struct ft_site *sites, int n_sites)
{
    struct ft_adapter *a;
    FT_TRY(ft_alloc(&a, 1, sizeof *a));
    a->n_sites = n_sites;
    for (int i = 0; i < n_sites; i++)
        a->n_layers = sites[i].layer >= a->n_layers ? sites[i].layer + 1 : a->n_layers;
    for (int k = 0; k < FT_RATE_KINDS; k++)
        a->rate[k] = 1;
    a->conv1d = n_sites > 0 && sites[0].conv1d;
    if (n_sites > 0 && sites[0].scope && !(a->scope = ft_strdup(sites[0].scope))) {
        ft_free(a);
        return FT_ERESOURCE;
    }
    int rc = ft_alloc(&a->slots, (size_t)n_sites, sizeof *a->slots);
    if (!rc)
        rc = ft_alloc(&a->slot_of_site, (size_t)n_sites, sizeof *a->slot_of_site);
    if (!rc)
        rc = ft_alloc(&a->sites_out, (size_t)n_sites, sizeof *a->sites_out);
    if (rc) {
        ft_adapter_free(a);
        return rc;
    }
    for (int i = 0; i < n_sites; i++) {
        a->slot_of_site[i] = -1;
        a->sites_out[i] = sites[i].out;
    }
    *out = a;
    return FT_OK;
}

static void set_rates(struct ft_adapter *a, const struct ft_adapter_options *o)
{
    if (!(o->loraplus_ratio > 0))
        return;
    a->rate[FT_RATE_SECOND] = o->loraplus_ratio;
    a->rate[FT_RATE_EMBEDDING] = o->loraplus_embedding;
}

const struct ft_adapter_method *ft_adapter_method(const char *name)
{
    for (int i = 0; i < ft_adapter_method_count; i++)
        if (strcmp(ft_adapter_methods[i].name, name) == 0)
            return &ft_adapter_methods[i];
    return NULL;
}

unsigned ft_adapter_method_has(const char *method)
{
    const struct ft_adapter_method *m = ft_adapter_method(method);
    return (m->rank ? FT_HAS_RANK : 0) | (m->alpha ? FT_HAS_ALPHA : 0) |
           (m->dropout ? FT_HAS_DROPOUT : 0) |
           (m->peft_type && strcmp(m->peft_type, "LORA") == 0 ? FT_HAS_LORA : 0);
}

int ft_adapter_new(struct ft_adapter **out, const struct ft_site *sites, int n_sites,
                   const struct ft_adapter_options *o)
{
    struct ft_adapter *a;
    *out = NULL;
    FT_TRY(begin(&a, sites, n_sites));
    a->method = ft_adapter_method(o->method);
    FT_ASSERT(a->method);
    a->r = a->method->rank ? o->r : 1;
    a->alpha = o->alpha != 0 ? o->alpha : 2 * (double)o->r;
    a->dropout = a->method->dropout ? o->dropout : 0;
    a->rslora = o->rslora;
    a->start = ft_lora_start(o->init);
    FT_ASSERT(a->start);
    set_rates(a, o);
    a->seed = o->seed;
    if (a->conv1d && a->method->peft_type && !a->method->conv1d) {
        ft_adapter_free(a);
        return ft_fail(FT_ECONFIG,
                       "'adapter: %s' is not for this model, whose weights are stored "
                       "transposed: PEFT does not have it there",
                       o->method);
    }
    int rc = a->method->peft_type ? ft_adapter_match(a, sites, n_sites, o) : FT_OK;
    if (!rc)
        rc = ft_adapter_resolve(a, o->rank_pattern, o->alpha_pattern, o->wholes, o->n_wholes);
    if (!rc && a->method->peft_type)
        rc = ft_adapter_describe(a, o);
    if (rc) {
        ft_adapter_free(a);
        return rc;
    }
    *out = a;
    return FT_OK;
}

int ft_adapter_open(struct ft_adapter **out, const struct ft_site *sites, int n_sites,
                    const char *folder, const struct ft_adapter_options *o)
{
    struct ft_adapter *a;
    *out = NULL;
    FT_TRY(begin(&a, sites, n_sites));
    a->seed = o->seed;
    set_rates(a, o);
    int rc = ft_adapter_import(a, sites, n_sites, folder, o);
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
    ft_free(a->frozen_copy);
    ft_free(a->folder);
    ft_free(a->scope);
    ft_free(a->slots);
    ft_free(a->parameters);
    ft_free(a->wholes);
    ft_free(a->whole_copies);
    ft_free(a->slot_of_site);
    ft_free(a->sites_out);
    ft_arena_fini(&a->arena);
    ft_free(a);
}

int64_t ft_adapter_parameters(const struct ft_adapter *a)
{
    return a->size;
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
    return a->start->residual ? 2 * most : most;
}

const char *ft_adapter_title(const struct ft_adapter *a)
{
    return a->method->title;
}

const char *ft_adapter_base(const struct ft_adapter *a)
{
    return a->peft ? json_string_value(json_object_get(a->peft, "base_model_name_or_path")) : NULL;
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

/* The embedding's or the head's; NULL: it has no adapter. */
static const struct ft_slot *slot_of_kind(const struct ft_adapter *a, enum ft_site_kind kind)
{
    for (int i = a->n_slots - 1; i >= 0; i--)
        if (a->slots[i].kind == kind)
            return &a->slots[i];
    return NULL;
}

bool ft_adapter_has(const struct ft_adapter *a, enum ft_site_kind kind)
{
    return slot_of_kind(a, kind) != NULL;
}

/* Whether patterns make ranks or alphas differ between modules. */
static bool is_uneven(const struct ft_adapter *a)
{
    for (int i = 1; i < a->n_slots; i++)
        if (a->slots[i].r != a->slots[0].r || a->slots[i].alpha != a->slots[0].alpha)
            return true;
    return false;
}

bool ft_adapter_has_site(const struct ft_adapter *a, int site)
{
    return a->slot_of_site[site] >= 0;
}

unsigned ft_adapter_traits(const struct ft_adapter *a)
{
    const char *bias = json_string_value(json_object_get(a->peft, "bias"));
    const json_t *saved = json_object_get(a->peft, "modules_to_save");
    const struct {
        enum ft_trait bit;
        bool has;
    } all[] = {{FT_TRAIT_METHOD, strcmp(a->method->name, "lora") != 0},
               {FT_TRAIT_MODULES, json_array_size(saved) > 0},
               {FT_TRAIT_BIASES, bias && strcmp(bias, "none") != 0},
               {FT_TRAIT_TOKENS, ft_json_get(a->peft, "trainable_token_indices") != NULL},
               {FT_TRAIT_EMBEDDING, ft_adapter_has(a, FT_SITE_EMBEDDING)},
               {FT_TRAIT_HEAD, ft_adapter_has(a, FT_SITE_HEAD)},
               {FT_TRAIT_EXPERTS, ft_adapter_slots_of(a, FT_SITE_EXPERTS) > 0},
               {FT_TRAIT_RANKS, is_uneven(a)}};
    unsigned traits = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        traits |= all[i].has ? all[i].bit : 0;
    return traits;
}

/* The products of modules with a frozen part cannot be folded. */
static bool can_stack(const struct ft_adapter *a)
{
    return a->method->stacked && !a->start->residual;
}

static int64_t round_up(int64_t n)
{
    return (n + 7) / 8 * 8;
}

int64_t ft_adapter_pitch(const struct ft_adapter *a, int first, int n)
{
    int64_t most = 0;
    for (int i = first; i < first + n && a->dropout > 0; i++)
        if (a->slot_of_site[i] >= 0 && a->slots[a->slot_of_site[i]].r > most)
            most = a->slots[a->slot_of_site[i]].r;
    return round_up(most);
}

int64_t ft_adapter_stack_rank(const struct ft_adapter *a, int first, int n)
{
    const int64_t pitch = ft_adapter_pitch(a, first, n);
    int64_t rank = 0;
    for (int i = first; i < first + n; i++)
        if (a->slot_of_site[i] >= 0)
            rank += pitch ? pitch : a->slots[a->slot_of_site[i]].r;
    return can_stack(a) ? round_up(rank) : 0;
}

struct ft_tensor *ft_parameter_gradient(const struct ft_adapter *a, struct ft_graph *g,
                                        const struct ft_parameter *p)
{
    return p->vector ? ft_graph_view(g, a->gradients, p->name, 1, p->rows * p->cols, p->at)
                     : ft_graph_view(g, a->gradients, p->name, p->rows, p->cols, p->at);
}

/* Whether what products read of it lies in a matrix of the model's, on a device. */
static bool is_stacked(const struct ft_adapter *a, const struct ft_graph *g,
                       const struct ft_slot *s)
{
    return ft_graph_backend(g)->act != FT_F32 && can_stack(a) && s->kind == FT_SITE_LINEAR &&
           !s->apart;
}

/* What a slot's ops read, and where its gradients go. Vectors are rows in the graph. */
static void declare_slot(struct ft_adapter *a, struct ft_graph *g, struct ft_slot *s)
{
    const struct ft_parameter_row *row = ft_method_rows(a->method, s->kind, s->feedforward);
    for (; row->suffix; row++) {
        struct ft_parameter *p = s->p[row->role];
        if (!p)
            continue;
        struct ft_tensor *from = a->copies && !row->master ? a->copies : a->values;
        p->value = p->frozen = NULL;
        if (a->start->residual)
            p->frozen = ft_graph_view(g, a->frozen, p->name, p->rows, p->cols, p->at);
        if (is_stacked(a, g, s))
            continue;
        p->value = p->vector ? ft_graph_view(g, from, p->name, 1, p->rows * p->cols, p->at)
                             : ft_graph_view(g, from, p->name, p->rows, p->cols, p->at);
        ft_graph_train(g, p->value, 0, 0, ft_parameter_gradient(a, g, p), 1);
    }
}

int ft_adapter_declare(struct ft_adapter *a, struct ft_graph *g)
{
    const bool narrow = ft_graph_backend(g)->act != FT_F32;
    int stacked = 0, wholes = 0;
    for (int i = 0; i < a->n_wholes; i++)
        wholes += a->wholes[i] != NULL;
    const int64_t room = a->size ? a->size : 1; /* a model that answers by itself has none */
    a->values = ft_graph_value(g, FT_M_ADAPTER, "adapter parameters", FT_F32, 1, room);
    a->gradients = ft_graph_value(g, FT_M_GRADIENT, "adapter gradients", FT_F32, 1, room);
    a->copies = a->table = a->frozen = NULL;
    if (a->frozen_size)
        a->frozen = ft_graph_value(g, FT_M_ADAPTER, "adapter's beginning", ft_graph_backend(g)->act,
                                   1, a->frozen_size);
    for (int i = 0; i < a->n_slots; i++)
        stacked += is_stacked(a, g, &a->slots[i]);
    if (narrow && stacked < a->n_slots)
        a->copies = ft_graph_value(g, FT_M_ADAPTER, "adapter copies", FT_BF16, 1, a->slot_size);
    for (int i = 0; i < a->n_slots; i++) {
        a->slots[i].stack = a->slots[i].w = NULL;
        declare_slot(a, g, &a->slots[i]);
    }
    if (narrow)
        a->table = ft_graph_value(g, FT_M_ADAPTER, "adapter copies", FT_I64,
                                  2 * stacked + (a->copies != NULL) + wholes, FT_SEGMENT);
    return FT_OK;
}

void ft_adapter_whole(const struct ft_adapter *a, int i, struct ft_graph *g,
                      struct ft_tensor **value, struct ft_tensor **grad)
{
    const struct ft_parameter *p = a->wholes[i];
    *grad = ft_parameter_gradient(a, g, p);
    *value = NULL;
    if (ft_graph_backend(g)->act == FT_F32)
        *value = ft_graph_view(g, a->values, p->name, (*grad)->rows, (*grad)->cols, p->at);
}

int64_t ft_adapter_whole_at(const struct ft_adapter *a, int i)
{
    return a->wholes[i]->at;
}

bool ft_adapter_has_whole(const struct ft_adapter *a, int i)
{
    return a->wholes[i] != NULL;
}

void ft_adapter_copy(struct ft_adapter *a, int i, struct ft_tensor *weight)
{
    a->whole_copies[i] = weight;
}

int ft_adapter_parameter_count(const struct ft_adapter *a)
{
    return a->n_parameters;
}

struct ft_trained_parameter ft_adapter_parameter(const struct ft_adapter *a, int i)
{
    const struct ft_parameter *p = &a->parameters[i];
    const struct ft_rates_range *r = a->ranges;
    while (p->at >= r->first + r->n)
        r++;
    return (struct ft_trained_parameter){.at = p->at,
                                         .rows = p->rows,
                                         .cols = p->cols,
                                         .vector = p->n_dims == 1,
                                         .end = p->end,
                                         .rate = r->rate,
                                         .decays = r->decays};
}

struct ft_tensor *ft_adapter_values(const struct ft_adapter *a)
{
    return a->values;
}

struct ft_tensor *ft_adapter_gradients(const struct ft_adapter *a)
{
    return a->gradients;
}

void ft_adapter_linears(struct ft_adapter *a, struct ft_graph *g, struct ft_linears *l)
{
    FT_ASSERT(l->n <= FT_LINEARS && (!l->add || l->n == 1));
    /* on the host, dropout gives each module an input of its own */
    const bool host = ft_graph_backend(g)->act == FT_F32;
    if (can_stack(a) && !l->offsets && (l->matrix || (host && a->dropout == 0))) {
        a->method->stacked(a, g, l);
        return;
    }
    for (int i = 0; i < l->n; i++) {
        struct ft_slot *s = ft_adapter_slot(a, l->first + i);
        if (s)
            s->w = l->of[i].w;
        const struct ft_linear_args plain = {.x = l->x,
                                             .w = l->of[i].w,
                                             .bias = l->of[i].bias,
                                             .add = l->add,
                                             .offsets = l->offsets,
                                             .alpha = 1};
        l->of[i].y = s ? a->method->linear(a, g, s, l, i) : ft_linear_low_rank(g, plain);
    }
}

struct ft_tensor *ft_adapter_embed(const struct ft_adapter *a, struct ft_graph *g,
                                   const struct ft_embed_args *base, struct ft_tensor *h)
{
    const struct ft_slot *s = slot_of_kind(a, FT_SITE_EMBEDDING);
    return s ? a->method->embed(g, s, base, h) : h;
}

void ft_adapter_head(const struct ft_adapter *a, struct ft_graph *g, struct ft_tensor *keys,
                     struct ft_head_loss_args *head)
{
    const struct ft_slot *s = slot_of_kind(a, FT_SITE_HEAD);
    if (s)
        a->method->head(a, g, s, keys, head);
}

void ft_adapter_emit_refresh(struct ft_adapter *a, struct ft_graph *g)
{
    if (a->table)
        ft_graph_emit(g, FT_OP_refresh,
                      &(union ft_op_args){.refresh = {.values = a->values, .table = a->table}});
}

void ft_adapter_emit_start(struct ft_adapter *a, struct ft_graph *g)
{
    ft_adapter_emit_refresh(a, g);
    for (int i = 0; i < a->n_slots && a->method->start && !a->folder; i++)
        a->method->start(a, g, &a->slots[i]);
}

static void segment(int64_t *row, int64_t first, char *to, int64_t rows, int64_t cols, int64_t ld,
                    float scale)
{
    const double wide = (double)scale;
    row[FT_G_FIRST] = first;
    row[FT_G_ADDRESS] = (int64_t)(uintptr_t)to;
    row[FT_G_ROWS] = rows;
    row[FT_G_COLS] = cols;
    row[FT_G_LD] = ld;
    memcpy(&row[FT_G_SCALE], &wide, sizeof wide);
}

int ft_adapter_place(struct ft_adapter *a, struct ft_graph *g)
{
    int64_t *rows;
    if (!a->table)
        return FT_OK;
    FT_TRY(ft_alloc(&rows, (size_t)a->table->rows * FT_SEGMENT, sizeof *rows));
    int64_t *next = rows;
    if (a->copies) { /* of all; those of stacked modules are not read */
        segment(next, 0, a->copies->data, 1, a->slot_size, a->slot_size, 1);
        next += FT_SEGMENT;
    }
    for (int i = 0; i < a->n_wholes; i++) {
        const struct ft_tensor *w = a->whole_copies[i];
        if (!w)
            continue;
        segment(next, a->wholes[i]->at, w->data, w->rows, w->cols, ft_tensor_ld(w), 1);
        next += FT_SEGMENT;
    }
    for (int i = 0; i < a->n_slots; i++) {
        const struct ft_slot *s = &a->slots[i];
        if (!s->stack)
            continue;
        const int64_t ld = ft_tensor_ld(s->stack), row = s->stack_out + s->first_rank;
        char *base = s->stack->data;
        segment(next, s->p[FT_LORA_A]->at, base + 2 * row * ld, s->r, s->in, ld, 1);
        segment(next + FT_SEGMENT, s->p[FT_LORA_B]->at,
                base + 2 * (s->first_out * ld + s->stack_in + s->first_rank), s->out, s->r, ld,
                s->scale);
        next += 2 * FT_SEGMENT;
    }
    int rc = ft_graph_write(g, a->table, rows);
    ft_free(rows);
    return rc;
}

/* Where the host keeps what the adapter began with: on the host, where products read it. */
static int open_frozen(struct ft_adapter *a, const struct ft_graph *g)
{
    if (a->frozen && !ft_graph_backend(g)->dev) {
        a->frozen_values = a->frozen->data;
        return FT_OK;
    }
    if (a->frozen && !a->frozen_copy)
        FT_TRY(ft_alloc(&a->frozen_copy, (size_t)a->frozen_size, sizeof *a->frozen_copy));
    a->frozen_values = a->frozen_copy;
    return FT_OK;
}

/* On a device: to where products read it. */
static int write_frozen(struct ft_adapter *a, struct ft_graph *g)
{
    const enum ft_dtype act = ft_graph_backend(g)->act;
    char *copy;
    if (!a->frozen_copy)
        return FT_OK;
    FT_TRY(ft_alloc(&copy, (size_t)a->frozen_size, ft_dtype_size(act)));
    for (int64_t i = 0; i < a->frozen_size; i++) { /* what is taken away is also what is written */
        ft_element_put(copy, (size_t)i, act, a->frozen_values[i]);
        a->frozen_values[i] = ft_element_get(copy, (size_t)i, act);
    }
    int rc = ft_graph_write(g, a->frozen, copy);
    ft_free(copy);
    return rc;
}

int ft_adapter_fill(struct ft_adapter *a, struct ft_graph *g, float *values, ft_whole_read_fn *read,
                    ft_site_weight_fn *weight, void *ctx)
{
    FT_TRY(open_frozen(a, g));
    if (a->folder) {
        FT_TRY(ft_adapter_read_values(a, values));
        return write_frozen(a, g);
    }
    if (a->method->init)
        FT_TRY(a->method->init(a, values, weight, ctx));
    FT_TRY(write_frozen(a, g));
    for (int i = 0; i < a->n_wholes; i++)
        if (a->wholes[i])
            FT_TRY(read(ctx, i, values + a->wholes[i]->at));
    return FT_OK;
}
