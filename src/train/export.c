/* Exporting: a LoRA's pairs, module by module, as llama.cpp's file and as a portable PEFT folder.
 */
#include "train/export.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/quant.h"
#include "io/gguf_write.h"
#include "io/safetensors.h"
#include "model/gguf.h"
#include "text/chat.h"
#include "text/gguf.h"
#include "text/tokenizer.h"
#include "train/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of the linear modules alone; of nothing else that the forms could not hold. */
static int check_plain(const struct ft_job *j, const char *form, bool experts)
{
    const struct {
        unsigned trait;
        const char *what;
    } not [] = {{FT_TRAIT_METHOD, "it is no plain LoRA"},
                {FT_TRAIT_MODULES, "modules were trained whole"},
                {FT_TRAIT_BIASES, "biases were trained"},
                {FT_TRAIT_TOKENS, "rows of tokens were trained"},
                {FT_TRAIT_EMBEDDING, "the embedding has an adapter"},
                {FT_TRAIT_HEAD, "the head has an adapter"},
                {experts ? 0 : FT_TRAIT_EXPERTS, "experts have adapters"}};
    const unsigned traits = ft_adapter_traits(j->adapter);
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
        if (traits & not [i].trait) {
            ft_fail_at((struct ft_where){.file = j->config->lora_model_dir}, FT_EDATA,
                       "cannot be exported as %s: %s", form, not [i].what);
            ft_hint("'ft merge' puts it into the model's weights");
            return FT_EDATA;
        }
    return FT_OK;
}

/* --- llama.cpp --- */

struct source {
    const struct ft_job *j;
    const float *values;
    float alpha;
    const int *sites; /* of each pair of tensors */
};

/* A as it is; B with its rows where llama.cpp has them, times what alpha over the rank is not. */
static int put_tensor(void *ctx, int64_t i, struct ft_writer *w)
{
    const struct source *s = ctx;
    const struct ft_module *modules;
    struct ft_lora_pair p;
    float *b;
    ft_model_modules(s->j->model, &modules);
    ft_adapter_pair(s->j->adapter, s->values, s->sites[i / 2], &p);
    if (i % 2 == 0)
        return ft_writer_put(w, p.a, (size_t)(p.r * p.in) * sizeof *p.a);
    const float factor = p.scale * (float)p.r / s->alpha;
    FT_TRY(ft_alloc(&b, (size_t)(p.out * p.r), sizeof *b));
    for (int64_t row = 0; row < p.out; row++) {
        const int64_t to = ft_gguf_module_row(s->j->model, &modules[s->sites[i / 2]], row);
        for (int64_t k = 0; k < p.r; k++)
            b[to * p.r + k] = factor * p.b[row * p.r + k];
    }
    int rc = ft_writer_put(w, b, (size_t)(p.out * p.r) * sizeof *b);
    ft_free(b);
    return rc;
}

static int add_pair(struct ft_gguf_out *o, const struct ft_module *m, const struct ft_lora_pair *p)
{
    char module[64], name[96];
    ft_gguf_module(m, module, sizeof module);
    snprintf(name, sizeof name, "%s.weight.lora_a", module);
    FT_TRY(ft_gguf_add(o, name, FT_F32, 2, (int64_t[]){p->r, p->in}));
    snprintf(name, sizeof name, "%s.weight.lora_b", module);
    return ft_gguf_add(o, name, FT_F32, 2, (int64_t[]){p->out, p->r});
}

static int put_metadata(struct ft_gguf_out *o, const struct ft_job *j, float alpha)
{
    FT_TRY(ft_gguf_put_text(o, "general.type", "adapter"));
    FT_TRY(ft_gguf_put_text(o, "general.architecture", ft_gguf_architecture(j->model)));
    FT_TRY(ft_gguf_put_text(o, "general.name", j->base_name));
    FT_TRY(ft_gguf_put_text(o, "adapter.type", "lora"));
    return ft_gguf_put_real(o, "adapter.lora.alpha", alpha);
}

int ft_export_gguf_adapter(const struct ft_job *j, const float *values, const char *path)
{
    struct ft_adapter_options is;
    struct ft_gguf_out o = {0};
    const struct ft_module *modules;
    const int n = ft_model_modules(j->model, &modules);
    int *sites, pairs = 0;
    FT_TRY(check_plain(j, "a GGUF adapter", false));
    if (!ft_gguf_architecture(j->model))
        return ft_fail_at((struct ft_where){.file = j->model_path}, FT_EDATA,
                          "'%s' is no architecture that ft knows llama.cpp's names of",
                          ft_model_architecture(j->model));
    ft_adapter_config(j->adapter, &is);
    const float alpha = (float)(is.alpha > 0 ? is.alpha : (double)is.r);
    FT_TRY(ft_alloc(&sites, (size_t)n + 1, sizeof *sites));
    int rc = put_metadata(&o, j, alpha);
    for (int i = 0; i < n && !rc; i++) {
        struct ft_lora_pair p;
        if (!ft_adapter_pair(j->adapter, values, i, &p))
            continue;
        sites[pairs++] = i;
        rc = add_pair(&o, &modules[i], &p);
    }
    struct source s = {j, values, alpha, sites};
    if (!rc)
        rc = ft_gguf_write(&o, path, put_tensor, &s);
    ft_gguf_out_free(&o);
    ft_free(sites);
    return rc;
}

/* --- portable --- */

static const char *leaf_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Kinds of modules that any layer has an adapter of; queries too where keys or values are, and all
 * matrices of experts where one is (vLLM's lora_weights.py asks for the three of them). */
static void find_kinds(const struct ft_job *j, const float *values, bool kinds[FT_KINDS])
{
    const struct ft_module *modules;
    const int n = ft_model_modules(j->model, &modules);
    struct ft_lora_pair p;
    memset(kinds, 0, FT_KINDS * sizeof *kinds);
    for (int i = 0; i < n; i++)
        if (ft_adapter_pair(j->adapter, values, i, &p))
            kinds[modules[i].kind] = true;
    if (kinds[FT_K] || kinds[FT_V])
        kinds[FT_Q] = true;
    kinds[FT_EXPERTS_IN] = kinds[FT_EXPERTS_OUT] = kinds[FT_EXPERTS_IN] || kinds[FT_EXPERTS_OUT];
}

/* Both of a module's tensors, of the one rank, zeros where it has none. */
static int fill_pair(const struct ft_job *j, const float *values, int site, int64_t r,
                     struct ft_arena *arena, struct ft_st_item *items)
{
    const struct ft_module *modules;
    struct ft_lora_pair p = {0};
    ft_model_modules(j->model, &modules);
    const struct ft_module *m = &modules[site];
    float *a = ft_arena_alloc(arena, (size_t)(r * m->in), sizeof *a),
          *b = ft_arena_alloc(arena, (size_t)(m->out * r), sizeof *b);
    char *names[2] = {ft_arena_format(arena, "base_model.model.%s.lora_A.weight", m->name),
                      ft_arena_format(arena, "base_model.model.%s.lora_B.weight", m->name)};
    if (!a || !b || !names[0] || !names[1])
        return FT_ERESOURCE;
    memset(a, 0, (size_t)(r * m->in) * sizeof *a);
    memset(b, 0, (size_t)(m->out * r) * sizeof *b);
    if (ft_adapter_pair(j->adapter, values, site, &p)) {
        memcpy(a, p.a, (size_t)(p.r * p.in) * sizeof *a);
        for (int64_t row = 0; row < p.out; row++)
            for (int64_t k = 0; k < p.r; k++)
                b[row * r + k] = p.scale * p.b[row * p.r + k];
    }
    items[0] = (struct ft_st_item){
        .name = names[0], .dtype = FT_F32, .n_dims = 2, .dims = {r, m->in}, .data = a};
    items[1] = (struct ft_st_item){
        .name = names[1], .dtype = FT_F32, .n_dims = 2, .dims = {m->out, r}, .data = b};
    return FT_OK;
}

/* Some rows of a matrix's pair as a module's own. */
static int fill_expert(const char *module, const struct ft_lora_pair *p, int64_t expert,
                       int64_t first, int64_t rows, int64_t r, struct ft_arena *arena,
                       struct ft_st_item *items)
{
    float *a = ft_arena_alloc(arena, (size_t)(r * p->in), sizeof *a),
          *b = ft_arena_alloc(arena, (size_t)(rows * r), sizeof *b);
    char *names[2] = {ft_arena_format(arena, "base_model.model.%s.lora_A.weight", module),
                      ft_arena_format(arena, "base_model.model.%s.lora_B.weight", module)};
    if (!a || !b || !names[0] || !names[1])
        return FT_ERESOURCE;
    memset(a, 0, (size_t)(r * p->in) * sizeof *a);
    memset(b, 0, (size_t)(rows * r) * sizeof *b);
    if (p->r)
        memcpy(a, p->a + expert * p->r * p->in, (size_t)(p->r * p->in) * sizeof *a);
    for (int64_t row = 0; row < rows && p->r; row++)
        for (int64_t k = 0; k < p->r; k++)
            b[row * r + k] = p->scale * p->b[(expert * p->out + first + row) * p->r + k];
    items[0] = (struct ft_st_item){
        .name = names[0], .dtype = FT_F32, .n_dims = 2, .dims = {r, p->in}, .data = a};
    items[1] = (struct ft_st_item){
        .name = names[1], .dtype = FT_F32, .n_dims = 2, .dims = {rows, r}, .data = b};
    return FT_OK;
}

/* Experts one by one, under the names of the modules that they were; the gate and the up of one
 * share its A. Adds to *n. */
static int fill_experts(const struct ft_job *j, const float *values, const struct ft_module *m,
                        int site, int64_t r, struct ft_arena *arena, struct ft_st_item *items,
                        int *n)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const struct ft_names *names = &d->names;
    const bool in = m->kind == FT_EXPERTS_IN;
    struct ft_lora_pair p;
    char module[256];
    if (!ft_adapter_pair(j->adapter, values, site, &p)) /* zeros, of rank 0 */
        p = (struct ft_lora_pair){.in = m->in, .out = m->out, .experts = m->experts};
    for (int64_t e = 0; e < p.experts; e++)
        for (int k = 0; k < (in ? 2 : 1); k++, *n += 2) {
            snprintf(module, sizeof module, "%s%s.%d.%s.%lld.%s", names->prefix, names->layers,
                     m->layer, names->experts, (long long)e, names->expert[in ? k : 3]);
            const int64_t rows = in ? d->mixture.ffn : p.out;
            FT_TRY(fill_expert(module, &p, e, k * rows, rows, r, arena, items + *n));
        }
    return FT_OK;
}

/* All layers' pairs, of one rank, with the scale in B. */
struct uniform {
    struct ft_arena arena;
    struct ft_st_item *items;
    int *sites; /* of each pair of a linear module */
    int n;      /* items */
    int64_t r;
    bool kinds[FT_KINDS];
};

static void free_uniform(struct uniform *u)
{
    ft_free(u->items);
    ft_free(u->sites);
    ft_arena_fini(&u->arena);
}

/* To be freed after a failure too. */
static int make_uniform(struct uniform *u, const struct ft_job *j, const float *values,
                        const char *form, bool experts)
{
    const struct ft_module *modules;
    const int n = ft_model_modules(j->model, &modules);
    int rc = FT_OK;
    *u = (struct uniform){.r = ft_adapter_max_rank(j->adapter)};
    const bool one_by_one = experts && ft_model_decoder(j->model)->names.expert[0];
    size_t most = 1;
    FT_TRY(check_plain(j, form, one_by_one));
    find_kinds(j, values, u->kinds);
    for (int i = 0; i < n; i++)
        most += 2 * (size_t)modules[i].experts * (modules[i].kind == FT_EXPERTS_IN ? 2 : 1);
    FT_TRY(ft_alloc(&u->items, most, sizeof *u->items));
    FT_TRY(ft_alloc(&u->sites, most / 2 + 1, sizeof *u->sites));
    for (int i = 0; i < n && !rc; i++)
        if (ft_is_experts(modules[i].kind) && u->kinds[modules[i].kind]) {
            rc = fill_experts(j, values, &modules[i], i, u->r, &u->arena, u->items, &u->n);
        } else if (u->kinds[modules[i].kind]) {
            u->sites[u->n / 2] = i;
            rc = fill_pair(j, values, i, u->r, &u->arena, u->items + u->n);
            u->n += 2;
        }
    return rc;
}

static int write_items(const struct uniform *u, const char *folder, const char *name,
                       const char *const (*meta)[2])
{
    FT_TRY(ft_make_folders(folder));
    char *path = ft_path_join(folder, name);
    int rc = path ? ft_st_write(path, u->items, u->n, meta, 1) : FT_ERESOURCE;
    ft_free(path);
    return rc;
}

/* Takes o. */
static int write_json(json_t *o, const char *folder, unsigned since)
{
    int rc = ft_json_write(folder, "adapter_config.json", o, JSON_INDENT(2), since);
    json_decref(o);
    return rc;
}

static int write_config(const struct ft_job *j, const bool kinds[FT_KINDS], int64_t r,
                        const char *folder)
{
    const unsigned since = ft_alloc_failures();
    const struct ft_names *names = &ft_model_decoder(j->model)->names;
    json_t *targets = json_array();
    for (int k = 0; k < FT_KINDS; k++)
        if (kinds[k] && names->module[k] && !ft_is_experts((enum ft_kind)k))
            json_array_append_new(targets, json_string(leaf_of(names->module[k])));
    for (int i = 0; i < 4; i++)
        if (kinds[i < 3 ? FT_EXPERTS_IN : FT_EXPERTS_OUT] && names->expert[i])
            json_array_append_new(targets, json_string(names->expert[i]));
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:f, s:s, s:b, s:b, s:b, s:b, s:{}, s:{}, s:o, "
        "s:n, s:b}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", j->base_name, "r",
        (json_int_t)r, "lora_alpha", (json_int_t)r, "lora_dropout", 0.0, "bias", "none",
        "fan_in_fan_out", ft_model_decoder(j->model)->conv1d, "inference_mode", 1, "use_rslora", 0,
        "use_dora", 0, "rank_pattern", "alpha_pattern", "target_modules", targets,
        "modules_to_save", "init_lora_weights", 1);
    return write_json(o, folder, since);
}

int ft_export_portable(const struct ft_job *j, const float *values, const char *folder)
{
    struct uniform u;
    static const char *const meta[][2] = {{"format", "pt"}};
    int rc = make_uniform(&u, j, values, "a portable adapter", true);
    if (!rc)
        rc = write_items(&u, folder, "adapter_model.safetensors", meta);
    if (!rc)
        rc = write_config(j, u.kinds, u.r, folder);
    free_uniform(&u);
    return rc;
}

/* --- mlx-lm --- */

/* As mlx-lm has them: A as (in, r), B as (r, out). */
static int turn(struct ft_arena *arena, struct ft_st_item *item, const char *module,
                const char *name)
{
    const int64_t rows = item->dims[0], cols = item->dims[1];
    const float *from = item->data;
    float *to = ft_arena_alloc(arena, (size_t)(rows * cols), sizeof *to);
    item->name = ft_arena_format(arena, "%s.%s", module, name);
    if (!to || !item->name)
        return FT_ERESOURCE;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < cols; k++)
            to[k * rows + i] = from[i * cols + k];
    item->dims[0] = cols;
    item->dims[1] = rows;
    item->data = to;
    return FT_OK;
}

static int write_mlx_config(const struct ft_job *j, const bool kinds[FT_KINDS], int64_t r,
                            const char *folder)
{
    const unsigned since = ft_alloc_failures();
    const struct ft_names *names = &ft_model_decoder(j->model)->names;
    json_t *keys = json_array();
    for (int k = 0; k < FT_KINDS; k++)
        if (kinds[k] && names->module[k])
            json_array_append_new(keys, json_string(names->module[k]));
    json_t *o = json_pack("{s:s, s:s, s:i, s:{s:I, s:f, s:f, s:o}}", "fine_tune_type", "lora",
                          "model", j->base_name, "num_layers",
                          (int)ft_model_decoder(j->model)->layers, "lora_parameters", "rank",
                          (json_int_t)r, "scale", 1.0, "dropout", 0.0, "keys", keys);
    return write_json(o, folder, since);
}

int ft_export_mlx(const struct ft_job *j, const float *values, const char *folder)
{
    const struct ft_module *modules;
    struct uniform u;
    static const char *const meta[][2] = {{"format", "mlx"}};
    ft_model_modules(j->model, &modules);
    int rc = make_uniform(&u, j, values, "an adapter for mlx-lm", false);
    for (int i = 0; i < u.n && !rc; i += 2) {
        rc = turn(&u.arena, &u.items[i], modules[u.sites[i / 2]].name, "lora_a");
        if (!rc)
            rc = turn(&u.arena, &u.items[i + 1], modules[u.sites[i / 2]].name, "lora_b");
    }
    if (!rc)
        rc = write_items(&u, folder, "adapters.safetensors", meta);
    if (!rc)
        rc = write_mlx_config(j, u.kinds, u.r, folder);
    free_uniform(&u);
    return rc;
}

/* --- a whole model as GGUF --- */

struct model_source {
    struct ft_merge *m;
    enum ft_dtype type;
    struct place {
        int weight, place; /* of that weight's places */
    } * places;
    int n_places;
    struct ft_gguf_factors factors[FT_GGUF_FACTORS];
    int n_factors;
};

static void put_half(float d, unsigned char *out)
{
    const uint16_t half = ft_f32_to_f16(d);
    memcpy(out, &half, sizeof half);
}

/* A block of 32 as ggml's reference makes it: the largest over 127 as f16, then the rounded codes.
 */
static void pack_q8_0(const float *x, unsigned char *out)
{
    float most = 0;
    for (int k = 0; k < 32; k++)
        most = fabsf(x[k]) > most ? fabsf(x[k]) : most;
    const float d = most / 127, inverse = d != 0 ? 1 / d : 0;
    put_half(d, out);
    for (int k = 0; k < 32; k++)
        ((int8_t *)out)[2 + k] = (int8_t)roundf(x[k] * inverse);
}

/* The number of the largest magnitude becomes code 0, which stands for -8; two codes a byte. */
static void pack_q4_0(const float *x, unsigned char *out)
{
    float most = 0;
    for (int k = 0; k < 32; k++)
        most = fabsf(x[k]) > fabsf(most) ? x[k] : most;
    const float d = most / -8, inverse = d != 0 ? 1 / d : 0;
    int codes[32];
    put_half(d, out);
    for (int k = 0; k < 32; k++) {
        const int code = (int)(x[k] * inverse + 8.5f);
        codes[k] = code < 15 ? code : 15;
    }
    for (int k = 0; k < 16; k++)
        out[2 + k] = (unsigned char)(codes[k] | codes[k + 16] << 4);
}

/* A power of two, then for each number the nearest of sixteen, the first of two that are as near;
 * what has been such a block is again what it was. */
static void pack_mxfp4(const float *x, unsigned char *out)
{
    static const signed char values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    int codes[32], exponent = 0;
    float most = 0;
    for (int k = 0; k < 32; k++)
        most = fabsf(x[k]) > most ? fabsf(x[k]) : most;
    if (most > 0)
        frexpf(most, &exponent);
    exponent += 124; /* the largest is 6 of 2^(this - 127), or below */
    exponent = exponent < 0 || !(most > 0) ? 0 : exponent > 254 ? 254 : exponent;
    const float d = ldexpf(1, exponent - 128);
    for (int k = 0; k < 32; k++) {
        codes[k] = 0;
        for (int i = 1; i < 16; i++)
            if (fabsf((float)values[i] * d - x[k]) < fabsf((float)values[codes[k]] * d - x[k]))
                codes[k] = i;
    }
    out[0] = (unsigned char)exponent;
    for (int k = 0; k < 16; k++)
        out[1 + k] = (unsigned char)(codes[k] | codes[k + 16] << 4);
}

/* Types of blocks that can be written. */
static const struct packing {
    enum ft_dtype type;
    void (*pack)(const float *x, unsigned char *out);
} packings[] = {{FT_Q8_0, pack_q8_0}, {FT_Q4_0, pack_q4_0}, {FT_MXFP4, pack_mxfp4}};

static const struct packing *packing_of(enum ft_dtype type)
{
    for (size_t i = 0; i < sizeof packings / sizeof *packings; i++)
        if (packings[i].type == type)
            return &packings[i];
    return NULL;
}

/* A vector, a norm, a router, a buffer and positions stay f32; a row that is not in whole blocks
 * becomes f16; of 4 bits the embedding and the head, which a small error shows most in, have 8; so
 * has all but the experts beside MXFP4. */
static enum ft_dtype type_of(const struct ft_model_weight *w, enum ft_dtype type)
{
    if (!w->cols || w->rows == 1 || w->kind == FT_W_NORM || w->kind == FT_W_ROUTER ||
        w->kind == FT_W_POSITIONS || w->kind == FT_W_BUFFER)
        return FT_F32;
    if ((type == FT_Q4_0 && (w->kind == FT_W_EMBED || w->kind == FT_W_HEAD)) ||
        (type == FT_MXFP4 && w->kind != FT_W_EXPERTS))
        type = FT_Q8_0;
    return packing_of(type) && w->cols % ft_block_size(type).elements != 0 ? FT_F16 : type;
}

static size_t row_bytes(int64_t n, enum ft_dtype type)
{
    if (!packing_of(type))
        return (size_t)n * ft_dtype_size(type);
    const struct ft_block_size size = ft_block_size(type);
    return (size_t)(n / size.elements * size.bytes);
}

static void put_row(const float *x, int64_t n, enum ft_dtype type, char *out)
{
    const struct packing *p = packing_of(type);
    if (!p) {
        for (int64_t i = 0; i < n; i++)
            ft_element_put(out, (size_t)i, type, x[i]);
        return;
    }
    const struct ft_block_size size = ft_block_size(type);
    for (int64_t i = 0; i < n / size.elements; i++)
        p->pack(x + i * size.elements, (unsigned char *)out + i * size.bytes);
}

/* A weight's rows, or those of its place, where llama.cpp has them. Of a vector each element is a
 * row. */
static int put_weight(void *ctx, int64_t i, struct ft_writer *w)
{
    const struct model_source *s = ctx;
    const struct ft_model *model = s->m->jobs[0].model;
    struct ft_gguf_place place;
    const float *values;
    char *out;
    if (i >= s->n_places) {
        const struct ft_gguf_factors *f = &s->factors[i - s->n_places];
        return ft_writer_put(w, f->v, (size_t)f->n * sizeof *f->v);
    }
    const int weight = s->places[i].weight;
    const struct ft_model_weight is = ft_model_weight(model, weight);
    const enum ft_dtype type = type_of(&is, s->type);
    /* Gemma's norms have there what is added to them */
    const bool norm = is.kind == FT_W_NORM && !is.cols;
    const float more = norm ? (float)ft_model_decoder(model)->norm_offset : 0;
    ft_gguf_place(model, weight, s->places[i].place, &place);
    const int64_t cols = place.cols, all = is.rows * (is.cols ? is.cols : 1) / cols;
    const int64_t rows = all / place.of * place.rows;
    const size_t bytes = row_bytes(cols, type);
    FT_TRY(ft_merge_values(s->m, weight, &values));
    FT_TRY(ft_alloc(&out, (size_t)rows, bytes));
    for (int64_t r = 0; r < rows; r++) {
        const int64_t row = r / place.rows * place.of + place.first + r % place.rows * place.step;
        const float raised = norm ? values[row] + more : 0;
        const int64_t to = place.rows < all ? r : ft_gguf_weight_row(model, weight, row);
        put_row(norm ? &raised : values + row * cols, cols, type, out + (size_t)to * bytes);
    }
    int rc = ft_writer_put(w, out, (size_t)rows * bytes);
    ft_free(out);
    return rc;
}

static int add_weights(struct ft_gguf_out *o, struct model_source *s, const struct ft_model *m)
{
    struct ft_gguf_place place;
    FT_TRY(ft_alloc(&s->places, 2 * (size_t)ft_model_weights(m), sizeof *s->places));
    for (int i = 0; i < ft_model_weights(m); i++) {
        const struct ft_model_weight w = ft_model_weight(m, i);
        for (int k = 0; k < ft_gguf_places(m, i); k++) {
            if (!ft_gguf_place(m, i, k, &place))
                return ft_fail(FT_EDATA, "'%s' has no name in llama.cpp that ft knows", w.path);
            FT_TRY(ft_gguf_add(o, place.name, type_of(&w, s->type), place.n_dims, place.dims));
            s->places[s->n_places++] = (struct place){i, k};
        }
    }
    s->n_factors = ft_gguf_factors(m, s->factors);
    for (int i = 0; i < s->n_factors; i++)
        FT_TRY(ft_gguf_add(o, s->factors[i].name, FT_F32, 1, (int64_t[]){s->factors[i].n}));
    return FT_OK;
}

/* Whether texts begin with bos_token by themselves. */
static int find_beginning(const char *folder, const json_t *special, bool *begins)
{
    struct ft_tokenizer *t = NULL;
    struct ft_ids ids = {0};
    const char *bos = json_string_value(json_object_get(special, "bos_token"));
    int rc = ft_tokenizer_open_folder(&t, folder, NULL);
    if (!rc)
        rc = ft_tokenizer_encode(t, "a", 1, true, &ids, NULL);
    *begins = !rc && bos && ids.n > 1 && ids.v[0] == ft_tokenizer_id(t, bos);
    ft_ids_free(&ids);
    ft_tokenizer_close(t);
    return rc;
}

static int put_text(struct ft_gguf_out *o, const struct ft_merge *m)
{
    char *path = NULL, *template = NULL, *name = NULL, *folder;
    json_t *tokenizer = NULL, *special = NULL, *all = NULL;
    bool begins = false;
    FT_TRY(ft_merge_file(m, "tokenizer.json", &path));
    if (!path)
        return ft_fail_at((struct ft_where){.file = m->jobs[0].model_path}, FT_EDATA,
                          "has no tokenizer.json, which the file would need");
    folder = ft_strdup(path);
    int rc = folder ? FT_OK : FT_ERESOURCE;
    if (!rc)
        *strrchr(folder, '/') = 0;
    if (!rc)
        rc = ft_json_file(path, FT_EDATA, &tokenizer);
    if (!rc)
        rc = ft_special_tokens(&special, folder);
    if (!rc)
        rc = ft_chat_template(&template, &name, folder, false);
    if (!rc)
        rc = find_beginning(folder, special, &begins);
    if (!rc)
        rc = ft_gguf_from_tokenizer(&all, path, tokenizer, special, template, begins,
                                    ft_model_decoder(m->jobs[0].model)->vocab);
    if (!rc)
        rc = ft_gguf_put_all(o, all);
    json_decref(all);
    json_decref(tokenizer);
    json_decref(special);
    ft_free(template);
    ft_free(name);
    ft_free(folder);
    ft_free(path);
    return rc;
}

int ft_export_gguf(struct ft_merge *m, enum ft_dtype type, const char *path)
{
    const struct ft_model *model = m->jobs[0].model;
    struct model_source s = {.m = m, .type = type};
    struct ft_gguf_out o = {0};
    if (type == FT_MXFP4 && !ft_model_decoder(model)->mixture.count)
        return ft_fail(FT_ECONFIG,
                       "'--type mxfp4' is for the weights of experts; this model has none");
    int rc = ft_gguf_put_model(&o, model);
    if (!rc)
        rc = ft_gguf_put_text(&o, "general.name", m->jobs[0].base_name);
    if (!rc)
        rc = put_text(&o, m);
    if (!rc)
        rc = add_weights(&o, &s, model);
    if (!rc)
        rc = ft_gguf_write(&o, path, put_weight, &s);
    ft_free(s.places);
    ft_gguf_out_free(&o);
    return rc;
}
