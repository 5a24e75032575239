/* Opens model folders: finds the family, the weight files and every tensor; loads weights. */
#include "model/internal.h"

#include "core/file.h"
#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ft_where in_folder(const struct ft_model *m)
{
    return (struct ft_where){.file = m->folder};
}

/* --- config.json --- */

static int unknown_family(const char *file, const char *name)
{
    const char *names[64] = {0};
    size_t n = 0;
    for (int i = 0; i < ft_family_count && n < 64; i++)
        names[n++] = ft_families[i].architecture;
    const char *near = ft_nearest(name, names, n);
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "architecture '%s' is not one that ft knows", name);
    char list[1024] = "";
    for (size_t i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
    ft_hint("the nearest supported one is '%s'; all: %s", near ? near : names[0], list);
    return FT_EDATA;
}

static int find_family(struct ft_model *m, const json_t *root, const char *file)
{
    const json_t *list = ft_json_get(root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0)), *type = NULL;
    if (!ft_json_str(root, file, "model_type", &type))
        return FT_EDATA;
    if (!name && !type)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "has neither 'architectures' nor 'model_type'");
    for (int i = 0; i < ft_family_count && !m->family; i++)
        if (name ? strcmp(ft_families[i].architecture, name) == 0
                 : strcmp(ft_families[i].model_type, type) == 0)
            m->family = &ft_families[i];
    if (!m->family)
        return unknown_family(file, name ? name : type);
    if (!type || strcmp(m->family->model_type, type) == 0)
        return FT_OK;
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "'model_type' is '%s', the architecture is '%s', whose type is '%s'", type, name,
               m->family->model_type);
    ft_hint("transformers goes by 'model_type'; one of the two is wrong");
    return FT_EDATA;
}

static int check_quantisation(const json_t *root, const char *file)
{
    const json_t *q = ft_json_get(root, "quantization_config");
    const char *method = "unknown";
    if (!q)
        return FT_OK;
    if (!ft_json_str(q, file, "quant_method", &method))
        return FT_EDATA;
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "the weights are quantised with '%s', which ft does not read", method);
    ft_hint("use the folder of the unquantised model (F32, F16 or BF16 weights)");
    return FT_EDATA;
}

/* An adapter's folder, or one without a model, is said to be that. */
static int check_is_model(const struct ft_model *m, const char *config)
{
    char *adapter = ft_path_join(m->folder, "adapter_config.json");
    json_t *root = NULL;
    const char *base = NULL;
    if (!adapter)
        return FT_ERESOURCE;
    int rc = FT_OK;
    if (!ft_file_exists(config) && ft_file_exists(adapter)) {
        rc = ft_json_file(adapter, FT_EDATA, &root);
        base = json_string_value(json_object_get(root, "base_model_name_or_path"));
        if (!rc) {
            rc = ft_fail_at(in_folder(m), FT_EDATA,
                            "has no config.json: it is an adapter, not a model");
            ft_hint("its base model is '%s': that is 'base_model'; 'lora_model_dir' continues an "
                    "adapter",
                    base ? base : "(not said)");
        }
    } else if (!ft_file_exists(config)) {
        rc = ft_fail_at(in_folder(m), FT_EDATA, "has no config.json: it is not a model folder");
        ft_hint(
            "a Hugging Face model folder has config.json, .safetensors files and tokenizer.json");
    }
    json_decref(root);
    ft_free(adapter);
    return rc;
}

static int read_config(struct ft_model *m)
{
    char *path = ft_path_join(m->folder, "config.json");
    json_t *root = NULL;
    if (!path)
        return FT_ERESOURCE;
    int rc = check_is_model(m, path);
    if (!rc)
        rc = ft_json_file(path, FT_EDATA, &root);
    if (!rc && !json_is_object(root))
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "is not a JSON object");
    if (!rc)
        rc = find_family(m, root, path);
    if (!rc)
        rc = check_quantisation(root, path);
    if (!rc)
        rc = m->family->config(root, path, &m->config);
    json_decref(root);
    ft_free(path);
    return rc;
}

/* --- weight files --- */

static int open_file(struct ft_model *m, const char *name)
{
    char *path = ft_path_join(m->folder, name);
    struct ft_st *f = NULL;
    int rc = path ? ft_st_open(&f, path) : FT_ERESOURCE;
    if (!rc)
        rc = ft_grow(&m->files, (size_t)m->n_files + 1, sizeof *m->files);
    if (rc)
        ft_st_close(f);
    else
        m->files[m->n_files++] = f;
    ft_free(path);
    return rc;
}

/* A shard's name may not lead out of the folder. */
static bool is_plain_name(const char *name)
{
    return name[0] && !strchr(name, '/') && !strchr(name, '\\') && !strchr(name, ':') &&
           strcmp(name, "..") != 0 && ft_ends_with(name, ".safetensors");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* What the index says must be so: each tensor in the file that it names, and no other. */
static int check_index(const struct ft_model *m, const char *index, const json_t *root,
                       const json_t *map)
{
    const struct ft_where at = {.file = index};
    const json_t *said = json_object_get(ft_json_get(root, "metadata"), "total_size");
    const char *tensor;
    json_t *file;
    int64_t total = 0;
    json_object_foreach((json_t *)map, tensor, file)
    {
        for (int i = 0; i < m->n_files; i++)
            if (ft_ends_with(ft_st_path(m->files[i]), json_string_value(file)) &&
                !ft_st_find(m->files[i], tensor))
                return ft_fail_at(at, FT_EDATA, "tensor '%s' should be in '%s' but is not", tensor,
                                  json_string_value(file));
    }
    for (int i = 0; i < m->n_files; i++)
        for (int k = 0; k < ft_st_count(m->files[i]); k++) {
            const struct ft_st_entry *e = ft_st_at(m->files[i], k);
            const char *where = json_string_value(json_object_get(map, e->name));
            total += e->end - e->begin;
            if (!where)
                return ft_fail_at(at, FT_EDATA, "does not list tensor '%s', which is in '%s'",
                                  e->name, ft_st_path(m->files[i]));
            if (!ft_ends_with(ft_st_path(m->files[i]), where))
                return ft_fail_at(at, FT_EDATA, "tensor '%s' is in '%s', and not only in '%s'",
                                  e->name, ft_st_path(m->files[i]), where);
        }
    if (json_is_integer(said) && json_integer_value(said) != total)
        ft_notice(at, "says that the weights have %lld bytes; they have %lld",
                  (long long)json_integer_value(said), (long long)total);
    return FT_OK;
}

static int open_shards(struct ft_model *m, const char *index, const json_t *root)
{
    const json_t *map = ft_json_get(root, "weight_map");
    const char *tensor, **names;
    json_t *file;
    size_t n = 0;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return ft_fail_at((struct ft_where){.file = index}, FT_EDATA,
                          "has no 'weight_map' of tensors");
    FT_TRY(ft_alloc(&names, json_object_size(map), sizeof *names));
    int rc = FT_OK;
    json_object_foreach((json_t *)map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (!name || !is_plain_name(name))
            rc = ft_fail_at((struct ft_where){.file = index}, FT_EDATA,
                            "tensor '%s' lies in '%s', which is not a .safetensors file of this "
                            "folder",
                            tensor, name ? name : "(not a string)");
        else
            names[n++] = name;
        if (rc)
            break;
    }
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n && !rc; i++)
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0)
            rc = open_file(m, names[i]);
    if (!rc)
        rc = check_index(m, index, root, map);
    ft_free(names);
    return rc;
}

static int no_weights(const struct ft_model *m)
{
    static const char *const others[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                         "consolidated.00.pth", "model.ckpt.index", "tf_model.h5"};
    ft_fail_at(in_folder(m), FT_EDATA,
               "has neither 'model.safetensors' nor 'model.safetensors.index.json'");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = ft_path_join(m->folder, others[i]);
        bool there = path && ft_file_exists(path);
        ft_free(path);
        if (!there)
            continue;
        ft_hint("it has '%s', which ft never reads, since unpickling runs code; convert it with "
                "transformers' save_pretrained(..., safe_serialization=True)",
                others[i]);
        return FT_EDATA;
    }
    ft_hint("download the model's .safetensors files too");
    return FT_EDATA;
}

static int open_files(struct ft_model *m)
{
    char *index = ft_path_join(m->folder, "model.safetensors.index.json");
    char *single = ft_path_join(m->folder, "model.safetensors");
    json_t *root = NULL;
    int rc = index && single ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(single)) {
        rc = open_file(m, "model.safetensors");
        if (ft_file_exists(index))
            ft_notice(in_folder(m), "has 'model.safetensors' and an index of shards; the first is "
                                    "read, as transformers does");
    } else if (!rc && ft_file_exists(index)) {
        rc = ft_json_file(index, FT_EDATA, &root);
        if (!rc)
            rc = open_shards(m, index, root);
    } else if (!rc) {
        rc = no_weights(m);
    }
    json_decref(root);
    ft_free(index);
    ft_free(single);
    return rc;
}

/* --- tensors --- */

int ft_model_want(struct ft_model *m, struct ft_tensor **slot, int64_t rows, int64_t cols,
                  const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    if (m->n_weights == m->room_weights) {
        int room = m->room_weights ? 2 * m->room_weights : 256;
        FT_TRY(ft_grow(&m->weights, (size_t)room, sizeof *m->weights));
        m->room_weights = room;
    }
    char *copy = ft_arena_format(&m->arena, "%s", name);
    if (!copy)
        return FT_ERESOURCE;
    m->weights[m->n_weights++] =
        (struct ft_weight){.name = copy, .rows = rows, .cols = cols, .slot = slot};
    return FT_OK;
}

static void shape_text(char *out, size_t room, int n, const int64_t *dims)
{
    int at = snprintf(out, room, "(");
    for (int i = 0; i < n; i++)
        at += snprintf(out + at, room - (size_t)at, "%s%lld", i ? ", " : "", (long long)dims[i]);
    snprintf(out + at, room - (size_t)at, ")");
}

static int check_weight(const struct ft_weight *w)
{
    const struct ft_st_entry *e = w->entry;
    const struct ft_where at = {.file = ft_st_path(w->file)};
    int64_t dims[2] = {w->rows, w->cols};
    int n = w->cols ? 2 : 1;
    if (e->n_dims != n || e->dims[0] != dims[0] || (n == 2 && e->dims[1] != dims[1])) {
        char got[128], want[64];
        shape_text(got, sizeof got, e->n_dims, e->dims);
        shape_text(want, sizeof want, n, dims);
        return ft_fail_at(at, FT_EDATA, "tensor '%s' has shape %s, config.json implies %s", w->name,
                          got, want);
    }
    if (e->dtype != FT_F32 && e->dtype != FT_BF16 && e->dtype != FT_F16)
        return ft_fail_at(at, FT_EDATA, "tensor '%s' is %s; ft reads F32, F16 and BF16 weights",
                          w->name, e->dtype_name);
    return FT_OK;
}

static int weight_by_name(const void *a, const void *b)
{
    return strcmp(((const struct ft_weight *)a)->name, ((const struct ft_weight *)b)->name);
}

/* Buffers that old conversions stored, and a tied head's copy. */
static bool is_harmless(const struct ft_model *m, const char *name)
{
    return ft_ends_with(name, ".rotary_emb.inv_freq") ||
           (m->config.tied && strcmp(name, "lm_head.weight") == 0);
}

static int find_tensors(struct ft_model *m)
{
    int rc = FT_OK;
    for (int i = 0; i < m->n_weights; i++) {
        struct ft_weight *w = &m->weights[i];
        for (int f = 0; f < m->n_files; f++) {
            const struct ft_st_entry *e = ft_st_find(m->files[f], w->name);
            if (e && w->entry)
                rc = ft_fail_at(in_folder(m), FT_EDATA, "tensor '%s' is in two files", w->name);
            else if (e) {
                w->entry = e;
                w->file = m->files[f];
            }
        }
        if (!w->entry)
            rc = ft_fail_at(in_folder(m), FT_EDATA, "tensor '%s' is missing", w->name);
        else if (check_weight(w))
            rc = FT_EDATA;
        else
            w->dtype = w->entry->dtype;
    }
    qsort(m->weights, (size_t)m->n_weights, sizeof *m->weights, weight_by_name);
    for (int f = 0; f < m->n_files; f++)
        for (int i = 0; i < ft_st_count(m->files[f]); i++) {
            struct ft_weight key = {.name = ft_st_at(m->files[f], i)->name};
            if (!is_harmless(m, key.name) &&
                !bsearch(&key, m->weights, (size_t)m->n_weights, sizeof key, weight_by_name))
                rc = ft_fail_at((struct ft_where){.file = ft_st_path(m->files[f])}, FT_EDATA,
                                "tensor '%s' is not part of a '%s'", key.name,
                                m->family->architecture);
        }
    return rc;
}

int ft_model_open(struct ft_model **out, const char *folder)
{
    struct ft_model *m;
    *out = NULL;
    FT_TRY(ft_alloc(&m, 1, sizeof *m));
    int rc = (m->folder = ft_strdup(folder)) ? FT_OK : FT_ERESOURCE;
    if (!rc && !ft_is_folder(folder)) {
        rc = ft_fail_at(in_folder(m), FT_EDATA, "is not a model folder");
        ft_hint("'base_model' names a folder with config.json and .safetensors files");
    }
    if (!rc)
        rc = read_config(m);
    if (!rc)
        rc = open_files(m);
    if (!rc)
        rc = ft_model_settle_tie(m);
    if (!rc)
        rc = m->family->weights(m);
    if (!rc)
        rc = find_tensors(m);
    if (rc) {
        ft_model_close(m);
        return rc;
    }
    *out = m;
    return FT_OK;
}

int ft_model_make(struct ft_model **out, const struct ft_shape *shape)
{
    struct ft_model *m;
    *out = NULL;
    FT_TRY(ft_alloc(&m, 1, sizeof *m));
    m->family = &ft_families[0];
    m->config = shape->config;
    int rc = (m->folder = ft_strdup(shape->name)) ? FT_OK : FT_ERESOURCE;
    if (!rc)
        rc = ft_model_settle_tie(m);
    if (!rc)
        rc = m->family->weights(m);
    if (rc) {
        ft_model_close(m);
        return rc;
    }
    for (int i = 0; i < m->n_weights; i++)
        m->weights[i].dtype = FT_BF16;
    *out = m;
    return FT_OK;
}

void ft_model_close(struct ft_model *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->n_files; i++)
        ft_st_close(m->files[i]);
    ft_free(m->files);
    ft_free(m->weights);
    ft_free(m->modules);
    ft_free(m->stacks);
    ft_free(m->layers);
    ft_free(m->folder);
    ft_arena_fini(&m->arena);
    ft_free(m);
}

const struct ft_model_config *ft_model_config(const struct ft_model *m)
{
    return &m->config;
}

const char *ft_model_architecture(const struct ft_model *m)
{
    return m->family->architecture;
}

int ft_model_modules(const struct ft_model *m, const struct ft_module **out)
{
    *out = m->modules;
    return m->n_modules;
}

int64_t ft_model_parameters(const struct ft_model *m)
{
    int64_t n = 0;
    for (int i = 0; i < m->n_weights; i++)
        n += m->weights[i].rows * (m->weights[i].cols ? m->weights[i].cols : 1);
    return n;
}

int ft_model_files(const struct ft_model *m)
{
    return m->n_files;
}

const char *ft_model_file(const struct ft_model *m, int i)
{
    return ft_st_path(m->files[i]);
}

/* One matrix for a group's weights, and one vector for its biases if any module has one. */
static void declare_group(struct ft_model *m, struct ft_graph *g, int first, int n, int64_t rank)
{
    struct ft_module *p = &m->modules[first];
    struct ft_stack *s = &m->stacks[first];
    bool biased = false;
    *s = (struct ft_stack){.in = p[0].in, .rank = rank};
    for (int i = 0; i < n; i++) {
        FT_ASSERT(p[i].in == s->in && p[i].group == first);
        s->out += p[i].out;
        biased |= p[i].bias != NULL;
    }
    s->w = ft_graph_value(g, FT_M_WEIGHTS, p[0].name, FT_BF16, s->out + rank, s->in + rank);
    s->w->ld = (s->in + rank + 7) / 8 * 8;
    if (biased)
        s->bias = ft_graph_value(g, FT_M_WEIGHTS, p[0].name, FT_BF16, 1, s->out);
    int64_t row = 0;
    for (int i = 0; i < n; i++) {
        p[i].w = ft_graph_part(g, s->w, p[i].name, p[i].out, p[i].in, row * s->w->ld, s->w->ld);
        if (p[i].bias)
            p[i].bias = ft_graph_view(g, s->bias, p[i].name, 1, p[i].out, row);
        row += p[i].out;
    }
}

static int group_size(const struct ft_model *m, int first)
{
    int n = 1;
    while (first + n < m->n_modules && m->modules[first + n].group == first)
        n++;
    return n;
}

int ft_model_declare(struct ft_model *m, struct ft_graph *g, ft_model_rank_fn *rank, void *ctx)
{
    static struct ft_tensor wanted; /* a place that stands for "to be declared" */
    const bool stacked = ft_graph_backend(g)->act == FT_BF16;
    for (int i = 0; i < m->n_weights; i++)
        *m->weights[i].slot = &wanted;
    for (int i = 0, n; stacked && i < m->n_modules; i += n) {
        n = group_size(m, i);
        declare_group(m, g, i, n, rank ? rank(ctx, i, n) : 0);
    }
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        if (*w->slot == &wanted)
            *w->slot = ft_graph_value(g, FT_M_WEIGHTS, w->name, stacked ? FT_BF16 : w->dtype,
                                      w->cols ? w->rows : 1, w->cols ? w->cols : w->rows);
    }
    return FT_OK;
}

const struct ft_stack *ft_model_stack(const struct ft_model *m, int first)
{
    return m->stacks[first].w ? &m->stacks[first] : NULL;
}

struct ft_tensor *ft_model_head(const struct ft_model *m)
{
    return m->config.tied ? m->embed : m->head;
}

struct ft_tensor *ft_model_build(struct ft_model *m, struct ft_graph *g,
                                 const struct ft_model_inputs *in)
{
    return m->family->build(m, g, in);
}
