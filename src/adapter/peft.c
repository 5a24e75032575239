/* PEFT's adapter folder: adapter_config.json and adapter_model.safetensors, in and out. */
#include "adapter/internal.h"

#include "core/bytes.h"
#include "core/file.h"
#include "core/mem.h"
#include "core/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of every tensor's name. */
static const char prefix[] = "base_model.model.";

/* --- adapter_config.json, out --- */

static json_t *target_names(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    json_t *list = json_array();
    for (const char *const *t = o->targets; t && *t; t++)
        if (!ft_adapter_means_experts(a, *t))
            json_array_append_new(list, json_string(*t));
    for (int i = 0; o->target_linear && i < a->n_slots; i++) {
        if (a->slots[i].kind == FT_SITE_EXPERTS)
            continue;
        const char *part = strrchr(a->slots[i].name, '.') + 1;
        bool seen = false;
        for (size_t k = 0; k < json_array_size(list) && !seen; k++)
            seen = strcmp(json_string_value(json_array_get(list, k)), part) == 0;
        if (!seen)
            json_array_append_new(list, json_string(part));
    }
    return list;
}

/* "layers.N." of a module's name: what is behind it, and N; NULL if there is none. */
static const char *behind_layer(const char *name, long *layer)
{
    char *end;
    const char *at = strstr(name, "layers.");
    *layer = at ? strtol(at + 7, &end, 10) : -1;
    return at && *end == '.' ? end + 1 : NULL;
}

/* Whether module i's name, behind its layer's number, occurred before. */
static bool seen_before(const struct ft_adapter *a, int i)
{
    long layer;
    const char *tail = behind_layer(a->slots[i].name, &layer), *other;
    for (int k = 0; k < i; k++)
        if ((other = behind_layer(a->slots[k].name, &layer)) && strcmp(other, tail) == 0)
            return true;
    return false;
}

void ft_adapter_compare_layers(struct ft_adapter *a, const struct ft_site *sites, int n)
{
    long layer;
    for (int i = 0; i < n; i++) {
        const char *spared = behind_layer(sites[i].name, &layer);
        if (sites[i].kind != FT_SITE_EXPERTS || a->slot_of_site[i] >= 0)
            continue;
        for (int k = 0; k < a->n_slots; k++)
            a->by_layer |= a->slots[k].kind == FT_SITE_EXPERTS &&
                           strcmp(behind_layer(a->slots[k].name, &layer), spared) == 0;
    }
}

/* The experts' parameters that are adapted, by the ends of their names: behind the layer, or from
 * it on. */
json_t *ft_target_parameters(const struct ft_adapter *a)
{
    long layer;
    json_t *list = json_null();
    for (int i = 0; i < a->n_slots; i++) {
        const char *name = a->slots[i].name, *tail = behind_layer(name, &layer);
        if (a->slots[i].kind != FT_SITE_EXPERTS || (!a->by_layer && seen_before(a, i)))
            continue;
        list = json_is_array(list) ? list : json_array();
        json_array_append_new(list, json_string(a->by_layer ? strstr(name, "layers.") : tail));
    }
    return list;
}

static void append_escaped(struct ft_bytes *b, const char *text)
{
    for (; *text; text++) {
        if (*text == '.')
            ft_bytes_add(b, "\\", 1);
        ft_bytes_add(b, text, 1);
    }
}

/* In a model that has other parts, plain names would reach into them: one expression for the
 * decoder's modules, if every adapted layer has the same ones; else their whole names. */
static json_t *scoped_targets(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    static const char any_layer[] = "layers\\.\\d+\\.(";
    struct ft_bytes b = {0};
    json_t *list = json_array();
    int tails = 0;
    long layer, last = -1, layers = 0;
    for (int i = 0; i < a->n_slots; i++) {
        if (a->slots[i].kind == FT_SITE_EXPERTS)
            continue;
        json_array_append_new(list, json_string(a->slots[i].name));
        if (!behind_layer(a->slots[i].name, &layer))
            return list;
        layers += layer != last;
        last = layer;
        if (!seen_before(a, i))
            tails++;
    }
    const int experts = ft_adapter_slots_of(a, FT_SITE_EXPERTS);
    if (!tails || o->layers || layers != a->n_layers || layers * tails != a->n_slots - experts)
        return list;
    append_escaped(&b, a->scope);
    ft_bytes_add(&b, any_layer, sizeof any_layer - 1);
    for (int i = 0; i < a->n_slots; i++) {
        if (seen_before(a, i) || a->slots[i].kind == FT_SITE_EXPERTS)
            continue;
        if (b.n && b.p[b.n - 1] != '(')
            ft_bytes_add(&b, "|", 1);
        append_escaped(&b, behind_layer(a->slots[i].name, &layer));
    }
    ft_bytes_add(&b, ")", 2); /* and the end */
    json_decref(list);
    json_t *text = json_string(b.p ? b.p : "");
    ft_bytes_free(&b);
    return text;
}

/* Whole numbers as such. */
static json_t *number(double v)
{
    return v == floor(v) ? json_integer((json_int_t)v) : json_real(v);
}

/* An adapter that began with a part of the weights is written as LoRA of twice the rank, the frozen
 * pair beside the trained one; the scale stays what it was. */
static double rank_times(const struct ft_adapter *a)
{
    return a->start->residual ? 2 : 1;
}

static double alpha_times(const struct ft_adapter *a)
{
    return a->rslora ? sqrt(rank_times(a)) : rank_times(a);
}

/* The patterns as given; or, where they overlap, each module's own value under its whole name,
 * since the file's order of keys is not the config's. */
json_t *ft_pattern_config(const struct ft_adapter *a, const struct ft_pattern *p, bool ranks)
{
    const double times = ranks ? rank_times(a) : alpha_times(a);
    json_t *o = json_object();
    for (int i = 0; a->overlap && i < a->n_slots; i++) {
        const double v = ranks ? (double)a->slots[i].r : a->slots[i].alpha;
        if (v != (ranks ? (double)a->r : a->alpha))
            json_object_set_new(o, a->slots[i].name, number(v * times));
    }
    if (a->overlap)
        return o;
    for (; p && p->key; p++)
        if (!json_object_get(o, p->key))
            json_object_set_new(o, p->key, number(p->value * times));
    return o;
}

static bool is_dora(const struct ft_adapter *a)
{
    return strcmp(a->method->name, "dora") == 0;
}

/* Layers that were chosen by number; in a model with other parts whole names say it, and are not
 * subject to it. */
json_t *ft_layers_config(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    if (!o->layers || a->scope)
        return json_null();
    json_t *layers = json_array();
    for (const int64_t *l = o->layers; *l >= 0; l++)
        json_array_append_new(layers, json_integer(*l));
    return layers;
}

json_t *ft_lora_config(const struct ft_adapter *a, const struct ft_adapter_options *o)
{
    json_t *tokens = o->token_rows ? json_deep_copy(o->token_rows) : json_null();
    return json_pack("{s:n, s:s, s:o, s:b, s:b, s:o, s:o, s:f, s:n, s:I, s:o, s:o, s:o, s:b, s:b}",
                     "exclude_modules", "bias", o->bias, "alpha_pattern",
                     ft_pattern_config(a, o->alpha_pattern, false), "fan_in_fan_out", a->conv1d,
                     "init_lora_weights", 1, "layers_to_transform", ft_layers_config(a, o),
                     "lora_alpha", number(a->alpha * alpha_times(a)), "lora_dropout", a->dropout,
                     "layers_pattern", "r", (json_int_t)((double)a->r * rank_times(a)),
                     "rank_pattern", ft_pattern_config(a, o->rank_pattern, true),
                     "target_parameters", ft_target_parameters(a), "trainable_token_indices",
                     tokens, "use_dora", is_dora(a), "use_rslora", a->rslora);
}

int ft_adapter_describe(struct ft_adapter *a, const struct ft_adapter_options *o)
{
    const unsigned since = ft_alloc_failures();
    json_t *saved = json_null();
    for (const char *const *name = o->saved_modules; name && *name; name++) {
        saved = json_is_array(saved) ? saved : json_array();
        json_array_append_new(saved, json_string(*name));
    }
    json_t *targets = o->target_regex && !o->target_linear ? json_string(o->target_regex)
                      : a->scope                           ? scoped_targets(a, o)
                                                           : target_names(a, o);
    a->peft =
        json_pack("{s:n, s:b, s:o, s:s, s:n, s:o, s:s}", "base_model_name_or_path",
                  "inference_mode", 1, "modules_to_save", saved, "peft_type", a->method->peft_type,
                  "revision", "target_modules", targets, "task_type", "CAUSAL_LM");
    json_object_update_new(a->peft, a->method->config(a, o)); /* which may say its own targets */
    return ft_alloc_check(since);
}

static int write_config(const struct ft_adapter *a, const char *folder, const char *base_model)
{
    const unsigned since = ft_alloc_failures();
    json_object_set_new(a->peft, "base_model_name_or_path", json_string(base_model));
    char *text =
        ft_json_dumps(a->peft, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9), since);
    char *path = ft_path_join(folder, "adapter_config.json");
    int rc = text && path ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    ft_json_free(text);
    ft_free(path);
    return rc;
}

/* The frozen weight that PEFT writes beside the adapter of an embedding or a head. */
static bool is_base_weight(const struct ft_adapter *a, const char *tensor)
{
    char name[512];
    for (int i = a->n_slots - 1; i >= 0; i--) {
        if (a->slots[i].kind == FT_SITE_LINEAR)
            continue;
        snprintf(name, sizeof name, "%s%s.base_layer.weight", prefix, a->slots[i].name);
        if (strcmp(name, tensor) == 0)
            return true;
    }
    return false;
}

static bool is_parameter(const struct ft_adapter *a, const char *tensor)
{
    for (int i = 0; i < a->n_shared; i++)
        if (strcmp(a->shared[i].name, tensor) == 0)
            return true;
    for (int i = 0; i < a->n_parameters; i++)
        if (!a->parameters[i].old && strcmp(a->parameters[i].name, tensor) == 0)
            return true;
    return ft_once_has(a, tensor);
}

/* Whether a tensor of an adapter's file is of a part of the model that has no sites. */
static bool is_outside(const struct ft_adapter *a, const char *tensor)
{
    return a->scope && ft_starts_with(tensor, prefix) &&
           !ft_starts_with(tensor + sizeof prefix - 1, a->scope) && !is_parameter(a, tensor) &&
           !is_base_weight(a, tensor);
}

/* The tensors of the folder that the adapter was opened from that belong to other parts of the
 * model: they are written again as they were. Memory is the arena's. */
static int add_outside(const struct ft_adapter *a, const struct ft_st *f, struct ft_arena *arena,
                       struct ft_st_item *items, int *n)
{
    for (int i = 0; i < ft_st_count(f); i++) {
        const struct ft_st_entry *e = ft_st_at(f, i);
        if (!is_outside(a, e->name))
            continue;
        const size_t bytes = (size_t)(e->end - e->begin);
        char *data = ft_arena_alloc(arena, bytes ? bytes : 1, 1);
        if (!data)
            return FT_ERESOURCE;
        FT_TRY(ft_st_read(f, e, 0, bytes, data));
        struct ft_st_item *item = &items[(*n)++];
        *item = (struct ft_st_item){
            .name = e->name, .dtype = e->dtype, .n_dims = e->n_dims, .data = data};
        memcpy(item->dims, e->dims, sizeof item->dims);
    }
    return FT_OK;
}

int ft_adapter_check_finite(const struct ft_adapter *a, const float *p)
{
    for (int64_t i = 0; i < a->size; i++)
        if (!isfinite(p[i]))
            return ft_fail(FT_EDIVERGED,
                           "what was trained holds NaN or infinite values: it is not written");
    return FT_OK;
}

/* The shape that the file has. */
static void shape_of(const struct ft_parameter *p, int64_t dims[2])
{
    const int64_t rows = p->rows / p->experts;
    dims[0] = (p->turned ? p->cols : rows) * (p->beside ? 1 : p->experts);
    dims[1] = (p->turned ? rows : p->cols) * (p->beside ? p->experts : 1);
}

/* A parameter to, or from, the order that the file has. */
static void reorder(float *out, const float *in, const struct ft_parameter *p, bool to)
{
    const int64_t n = p->experts, rows = p->rows / n, cols = p->turned ? rows : p->cols;
    for (int64_t e = 0; e < n; e++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < p->cols; c++) {
                const int64_t here = (e * rows + r) * p->cols + c;
                const int64_t place = p->turned ? c * cols + r : r * cols + c;
                const int64_t there = p->beside ? place * n + e : e * rows * p->cols + place;
                out[to ? there : here] = in[to ? here : there];
            }
}

/* A and A0 one above the other; B and -B0 beside each other. */
static int joined_item(const struct ft_parameter *p, const float *values, const float *frozen,
                       struct ft_arena *arena, struct ft_st_item *out)
{
    const bool below = ft_ends_with(p->name, "lora_A.weight");
    const size_t n = (size_t)(p->rows * p->cols), cols = (size_t)p->cols;
    float *data = ft_arena_alloc(arena, 2 * n, sizeof *data);
    if (!data)
        return FT_ERESOURCE;
    for (size_t i = 0; i < n; i++) {
        const size_t at = below ? i : i / cols * 2 * cols + i % cols;
        const float was = frozen[(size_t)p->at + i];
        data[at] = values[(size_t)p->at + i];
        data[at + (below ? n : cols)] = below ? was : -was;
    }
    out->dims[below ? 0 : 1] *= 2;
    out->data = data;
    return FT_OK;
}

/* A parameter as its file has it; what is turned or joined lies in the arena. */
static int item_of(const struct ft_adapter *a, const struct ft_parameter *p, const float *values,
                   struct ft_arena *arena, struct ft_st_item *out)
{
    *out = (struct ft_st_item){.name = p->name,
                               .dtype = FT_F32,
                               .n_dims = p->n_dims,
                               .dims = {p->rows, p->cols},
                               .data = values + p->at};
    if (a->start->residual && p->at < a->slot_size)
        return joined_item(p, values, a->frozen_values, arena, out);
    if (!p->turned && !p->beside)
        return FT_OK;
    float *data = ft_arena_alloc(arena, (size_t)(p->rows * p->cols), sizeof *data);
    if (!data)
        return FT_ERESOURCE;
    reorder(data, values + p->at, p, true);
    shape_of(p, out->dims);
    out->data = data;
    return FT_OK;
}

int ft_adapter_save(const struct ft_adapter *a, const float *values, const char *folder,
                    const char *base_model)
{
    FT_TRY(ft_adapter_check_finite(a, values));
    static const char *const meta[][2] = {{"format", "pt"}};
    struct ft_arena arena = {0};
    struct ft_st *from = NULL;
    int n = a->n_parameters;
    char *path = ft_path_join(folder, "adapter_model.safetensors");
    char *source =
        a->folder && a->scope ? ft_path_join(a->folder, "adapter_model.safetensors") : NULL;
    int rc = path && (source || !a->folder || !a->scope) ? FT_OK : FT_ERESOURCE;
    if (!rc && source)
        rc = ft_st_open(&from, source);
    const size_t room = (size_t)(n + a->n_shared) + (from ? (size_t)ft_st_count(from) : 0);
    struct ft_st_item *items = ft_arena_alloc(&arena, room, sizeof *items);
    if (!items)
        rc = FT_ERESOURCE;
    for (int i = 0; i < n && !rc; i++)
        rc = item_of(a, &a->parameters[i], values, &arena, &items[i]);
    for (int i = 0; i < a->n_shared && !rc; i++) {
        const struct ft_frozen_matrix *m = &a->shared[i];
        items[n++] = (struct ft_st_item){.name = m->name,
                                         .dtype = FT_F32,
                                         .n_dims = 2,
                                         .dims = {m->rows, m->cols},
                                         .data = a->frozen_values + m->at};
    }
    if (!rc && from)
        rc = add_outside(a, from, &arena, items, &n);
    if (!rc)
        rc = ft_st_write(path, items, n, meta, 1);
    if (!rc)
        rc = write_config(a, folder, base_model);
    ft_st_close(from);
    ft_free(source);
    ft_free(path);
    ft_arena_fini(&arena);
    return rc;
}

/* --- in --- */

struct import {
    struct ft_adapter *a;
    const char *file;
    const json_t *root;
};

static int refuse(const struct import *m, const char *key, const char *why)
{
    return ft_fail_at((struct ft_where){.file = m->file}, FT_EDATA, "'%s' %s", key, why);
}

/* Keys that change what the adapter computes, and the value that ft supports. */
static int check_features(const struct import *m)
{
    static const char *const flags[] = {"lora_bias", "decompose_both", "rank_dropout_scale"};
    static const char *const numbers[] = {"rank_dropout", "module_dropout"};
    bool fan_in = m->a->conv1d;
    static const char *const objects[] = {
        "layer_replication", "arrow_config",  "alora_invocation_tokens", "kasa_config",
        "monteclora_config", "velora_config", "megatron_config"};
    const char *key;
    json_t *value;
    /* initialisations that also change the base weights, unless PEFT converted them on saving */
    const char *init = json_string_value(json_object_get(m->root, "init_lora_weights"));
    if (init && strcmp(init, "gaussian") != 0 && strcmp(init, "eva") != 0 &&
        strcmp(init, "orthogonal") != 0)
        return ft_fail_at(
            (struct ft_where){.file = m->file}, FT_EDATA,
            "'init_lora_weights' is '%s': the adapter belongs to changed base weights", init);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (json_is_true(json_object_get(m->root, flags[i])))
            return refuse(m, flags[i], "is not supported");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (json_number_value(json_object_get(m->root, numbers[i])) != 0)
            return refuse(m, numbers[i], "is not supported");
    const json_t *factor = ft_json_get(m->root, "decompose_factor");
    if (factor && json_integer_value(factor) != -1)
        return refuse(m, "decompose_factor", "other than -1 is not supported");
    if (!ft_json_bool(m->root, m->file, "fan_in_fan_out", &fan_in))
        return FT_EDATA;
    if (fan_in != m->a->conv1d) /* PEFT corrects it, with a warning */
        ft_notice((struct ft_where){.file = m->file},
                  "'fan_in_fan_out' is %s; this model's weights are stored %s, and that counts",
                  fan_in ? "true" : "false", m->a->conv1d ? "so" : "otherwise");
    json_object_foreach((json_t *)(uintptr_t)m->root, key, value)
    {
        if (ft_starts_with(key, "use_") && strcmp(key, "use_rslora") != 0 &&
            strcmp(key, "use_dora") != 0 && !json_is_false(value) && !json_is_null(value))
            return refuse(m, key, "is not supported");
    }
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        if (ft_json_get(m->root, objects[i]))
            return refuse(m, objects[i], "is not supported");
    return FT_OK;
}

static int read_patterns(const struct import *m, const char *key, struct ft_pattern **out)
{
    const json_t *o = ft_json_get(m->root, key);
    const char *name;
    json_t *v;
    int n = 0;
    *out = ft_arena_alloc(&m->a->arena, json_object_size(o) + 1, sizeof **out);
    if (!*out)
        return FT_ERESOURCE;
    json_object_foreach((json_t *)o, name, v)
    {
        double value = json_number_value(v);
        const bool whole = strcmp(key, "rank_pattern") != 0 || value == floor(value);
        if (!(value > 0) || !whole || value > 1 << 20)
            return refuse(m, key, "has a value that is not a (whole) number above 0");
        char *copy = ft_arena_format(&m->a->arena, "%s", name);
        if (!copy)
            return FT_ERESOURCE;
        (*out)[n++] = (struct ft_pattern){copy, value};
    }
    return FT_OK;
}

/* Which of the two forms IA3 has here: the shape of its vector says it. */
static void see_feedforward(struct ft_slot *s, const struct ft_st *f)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s.ia3_l", prefix, s->name);
    const struct ft_st_entry *e = ft_st_find(f, name);
    s->feedforward = e && e->n_dims == 2 && e->dims[0] == 1;
}

/* Whether it is one of the parameters that the config names. */
static bool is_named(const json_t *root, const char *name)
{
    const json_t *list = ft_json_get(root, "target_parameters");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *one = json_string_value(json_array_get(list, i));
        if (one && ft_adapter_name_matches(name, one))
            return true;
    }
    return false;
}

/* Whether the config names the modules that experts were, and the file has these. */
static bool is_old(const json_t *root, const struct ft_site *site, const struct ft_st *f)
{
    char name[512];
    if (!site->once || is_named(root, site->name))
        return false;
    snprintf(name, sizeof name, "%s%s.0.%s.lora_A.weight", prefix, site->once_in, site->once[0]);
    return ft_st_find(f, name) != NULL;
}

/* The modules of which the tensor file has any parameter. */
static int find_slots(struct import *m, const struct ft_site *sites, int n, const struct ft_st *f)
{
    struct ft_adapter *a = m->a;
    for (int i = 0; i < n; i++) {
        const bool embedding = sites[i].kind == FT_SITE_EMBEDDING;
        const struct ft_parameter_row *row = ft_method_rows(
            embedding ? ft_adapter_method("lora") : a->method, sites[i].kind, sites[i].feedforward);
        if (is_old(m->root, &sites[i], f)) {
            FT_TRY(ft_adapter_add_experts(a, sites, i, true));
            a->slots[a->n_slots - 1].old = true;
            continue;
        }
        bool has = sites[i].kind == FT_SITE_EXPERTS && is_named(m->root, sites[i].name);
        for (; row->suffix && sites[i].kind != FT_SITE_EXPERTS; row++) {
            char name[512];
            snprintf(name, sizeof name, "%s%s.%s", prefix, sites[i].name, row->suffix);
            has = has || ft_st_find(f, name);
        }
        if (has && !ft_method_covers(a->method, sites[i].kind))
            return ft_fail_at(
                (struct ft_where){.file = m->file}, FT_EDATA,
                "the method '%s' is for the linear modules of the layers; the adapter "
                "has '%s' too",
                a->method->name, sites[i].name);
        if (has)
            FT_TRY(ft_adapter_add_slot(a, sites, i));
        if (has && a->method->feedforward[0].suffix)
            see_feedforward(&a->slots[a->n_slots - 1], f);
    }
    if (!a->n_slots)
        return ft_fail_at((struct ft_where){.file = ft_st_path(f)}, FT_EDATA,
                          "holds no adapter for this model's modules");
    return FT_OK;
}

/* The parameter's tensor is there, as large as it must be. */
static int check_tensor(const struct ft_st *f, const struct ft_parameter *p)
{
    const struct ft_where at = {.file = ft_st_path(f)};
    const struct ft_st_entry *e = ft_st_find(f, p->name);
    if (p->old)
        return ft_once_check(p, f);
    int64_t dims[2];
    shape_of(p, dims);
    if (!e)
        return ft_fail_at(at, FT_EDATA, "tensor '%s' is missing", p->name);
    if (e->dtype != FT_F32 && e->dtype != FT_BF16 && e->dtype != FT_F16)
        return ft_fail_at(at, FT_EDATA, "tensor '%s' is %s; ft reads F32, F16 and BF16", p->name,
                          e->dtype_name);
    if (e->n_dims != p->n_dims || e->dims[0] != dims[0] || (e->n_dims > 1 && e->dims[1] != dims[1]))
        return ft_fail_at(at, FT_EDATA,
                          "tensor '%s' has %lld x %lld elements, adapter_config.json and this "
                          "model imply %lld x %lld",
                          p->name, (long long)e->dims[0],
                          e->n_dims > 1 ? (long long)e->dims[1] : 1LL, (long long)dims[0],
                          (long long)dims[1]);
    return FT_OK;
}

/* A matrix that all modules share, as the file has it. */
static struct ft_parameter as_parameter(const struct ft_frozen_matrix *m)
{
    return (struct ft_parameter){
        .name = m->name, .rows = m->rows, .cols = m->cols, .experts = 1, .n_dims = 2, .at = m->at};
}

/* All parameters are there, and no other tensor is. */
static int check_tensors(const struct ft_adapter *a, const struct ft_st *f)
{
    const struct ft_where at = {.file = ft_st_path(f)};
    for (int i = 0; i < a->n_parameters; i++)
        FT_TRY(check_tensor(f, &a->parameters[i]));
    for (int i = 0; i < a->n_shared; i++) {
        const struct ft_parameter as = as_parameter(&a->shared[i]);
        const int rc = check_tensor(f, &as);
        if (rc && !ft_st_find(f, as.name))
            ft_hint("saved with 'save_projection: false', it can only be made again by torch");
        FT_TRY(rc);
    }
    for (int i = 0; i < ft_st_count(f); i++) {
        const char *name = ft_st_at(f, i)->name;
        if (!is_outside(a, name) && !is_parameter(a, name) && !is_base_weight(a, name))
            return ft_fail_at(at, FT_EDATA, "tensor '%s' belongs to no module of this model", name);
    }
    return FT_OK;
}

/* The row of the table that the adapter is of. */
static int find_method(struct import *m)
{
    const char *type = "";
    bool dora = false;
    if (!ft_json_str(m->root, m->file, "peft_type", &type) ||
        !ft_json_bool(m->root, m->file, "use_dora", &dora))
        return FT_EDATA;
    for (int i = 0; i < ft_adapter_method_count && !m->a->method; i++) {
        const struct ft_adapter_method *row = &ft_adapter_methods[i];
        if (row->peft_type && strcmp(row->peft_type, type) == 0)
            m->a->method = dora ? ft_adapter_method("dora") : row;
    }
    if (!m->a->method)
        return ft_fail_at((struct ft_where){.file = m->file}, FT_EDATA,
                          "'peft_type' is '%s': ft does not have this method", type);
    return FT_OK;
}

static int read_fields(struct import *m)
{
    struct ft_adapter *a = m->a;
    FT_TRY(find_method(m));
    FT_TRY(check_features(m));
    long long r = a->method->default_rank;
    double alpha = 8; /* PEFT's default */
    if (a->method->rank &&
        (!ft_json_int(m->root, m->file, a->method->rank, &r) || r < 1 || r > 1 << 16))
        return refuse(m, a->method->rank, "is out of range");
    if (a->method->alpha && (!ft_json_real(m->root, m->file, a->method->alpha, &alpha) ||
                             !(alpha > 0) || alpha > 1 << 20))
        return refuse(m, a->method->alpha, "is not a number above 0");
    if (a->method->dropout && (!ft_json_real(m->root, m->file, a->method->dropout, &a->dropout) ||
                               !(a->dropout >= 0) || a->dropout > 0.999))
        return refuse(m, a->method->dropout, "is not within 0 to 0.999");
    if (!ft_json_bool(m->root, m->file, "use_rslora", &a->rslora))
        return FT_EDATA;
    a->r = a->method->rank ? r : 1;
    a->alpha = alpha;
    return FT_OK;
}

/* PEFT takes no dropout where experts' parameters are adapted. From before they were parameters an
 * adapter may have it: it goes on without. */
static int check_experts(const struct import *m)
{
    const struct ft_where at = {.file = m->file};
    const char *key = m->a->method->dropout;
    bool any = false, all_old = true;
    for (int i = 0; i < m->a->n_slots; i++)
        if (m->a->slots[i].kind == FT_SITE_EXPERTS) {
            any = true;
            all_old = all_old && m->a->slots[i].old;
        }
    if (!any || m->a->dropout == 0)
        return FT_OK;
    if (!all_old)
        return refuse(m, key, "above 0 excludes adapters on experts' parameters, as in PEFT");
    ft_notice(at, "'%s' counts as 0: the experts are parameters now, which PEFT has without", key);
    m->a->dropout = 0;
    return json_object_set_new(m->a->peft, key, json_real(0)) ? ft_short_of_memory() : FT_OK;
}

static int refuse_folder(const char *folder)
{
    const struct ft_where at = {.file = folder};
    if (!ft_file_exists(folder))
        return ft_fail_at(at, FT_EDATA, "does not exist; 'lora_model_dir' is an adapter's folder");
    char *model = ft_path_join(folder, "config.json");
    const bool is_model = model && ft_file_exists(model);
    ft_free(model);
    ft_fail_at(at, FT_EDATA, "has no adapter_config.json: it is no adapter's folder%s",
               is_model ? ", but a model's" : "");
    ft_hint("'lora_model_dir' is an adapter to go on from%s",
            is_model ? "; the model is 'base_model'" : "");
    return FT_EDATA;
}

int ft_adapter_import(struct ft_adapter *a, const struct ft_site *sites, int n, const char *folder,
                      const struct ft_adapter_options *o)
{
    char *config = ft_path_join(folder, "adapter_config.json");
    char *tensors = ft_path_join(folder, "adapter_model.safetensors");
    struct ft_st *f = NULL;
    struct ft_pattern *ranks, *alphas;
    struct import m = {a, config, NULL};
    a->imported = true;
    a->start = ft_lora_start("true"); /* what it began with is over */
    int rc = config && tensors && (a->folder = ft_strdup(folder)) ? FT_OK : FT_ERESOURCE;
    if (!rc && !ft_file_exists(config))
        rc = refuse_folder(folder);
    if (!rc)
        FT_GO(ft_json_file(config, FT_EDATA, &a->peft));
    if (rc)
        goto out;
    m.root = a->peft;
    FT_GO(read_fields(&m));
    FT_GO(ft_st_open(&f, tensors));
    FT_GO(find_slots(&m, sites, n, f));
    ft_adapter_compare_layers(a, sites, n);
    FT_GO(check_experts(&m));
    FT_GO(ft_adapter_check_claims(a, config, sites, n));
    FT_GO(read_patterns(&m, "rank_pattern", &ranks));
    FT_GO(read_patterns(&m, "alpha_pattern", &alphas));
    FT_GO(ft_adapter_resolve(a, ranks, alphas, o->wholes, o->n_wholes));
    FT_GO(check_tensors(a, f));
    FT_GO(ft_once_convert(a));
    if (json_object_set_new(a->peft, "inference_mode", json_true()))
        rc = ft_short_of_memory();
out:
    ft_st_close(f);
    ft_free(config);
    ft_free(tensors);
    return rc;
}

/* n elements of a tensor as f32. */
int ft_adapter_read_f32(const struct ft_st *f, const struct ft_st_entry *e, int64_t n, float *out)
{
    uint16_t *half;
    if (e->dtype == FT_F32)
        return ft_st_read(f, e, 0, (size_t)n * 4, out);
    FT_TRY(ft_alloc(&half, (size_t)n, sizeof *half));
    int rc = ft_st_read(f, e, 0, (size_t)n * 2, half);
    for (int64_t i = 0; i < n && !rc; i++)
        out[i] = e->dtype == FT_BF16 ? ft_bf16_to_f32(half[i]) : ft_f16_to_f32(half[i]);
    ft_free(half);
    return rc;
}

static int read_tensor(const struct ft_st *f, const struct ft_parameter *p, float *out)
{
    const int64_t n = p->rows * p->cols;
    const struct ft_st_entry *e = ft_st_find(f, p->name);
    const struct ft_where at = {.file = ft_st_path(f)};
    float *aside = NULL;
    if (p->old)
        return ft_once_read(p, f, out);
    if (!e)
        return ft_fail_at(at, FT_EDATA, "tensor '%s' is missing", p->name);
    if (p->turned || p->beside)
        FT_TRY(ft_alloc(&aside, (size_t)n, sizeof *aside));
    int rc = ft_adapter_read_f32(f, e, n, aside ? aside : out);
    if (aside && !rc)
        reorder(out, aside, p, false);
    ft_free(aside);
    for (int64_t i = 0; i < n && !rc; i++)
        if (!isfinite(out[i]))
            rc = ft_fail_at(at, FT_EDATA, "tensor '%s' holds NaN or infinite values", p->name);
    return rc;
}

int ft_adapter_read_values(const struct ft_adapter *a, float *values)
{
    char *path = ft_path_join(a->folder, "adapter_model.safetensors");
    struct ft_st *f = NULL;
    int rc = path ? ft_st_open(&f, path) : FT_ERESOURCE;
    for (int i = 0; i < a->n_parameters && !rc; i++)
        rc = read_tensor(f, &a->parameters[i], values + a->parameters[i].at);
    for (int i = 0; i < a->n_shared && !rc; i++) {
        const struct ft_parameter as = as_parameter(&a->shared[i]);
        rc = read_tensor(f, &as, a->frozen_values + as.at);
    }
    ft_st_close(f);
    ft_free(path);
    return rc;
}
