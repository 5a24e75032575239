/* Exporting: a LoRA's pairs, module by module, as llama.cpp's file and as a portable PEFT folder.
 */
#include "train/export.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "io/gguf_write.h"
#include "io/safetensors.h"
#include "model/gguf.h"
#include "train/internal.h"

#include <stdio.h>
#include <string.h>

/* Of the linear modules alone; of nothing else that the forms could not hold. */
static int check_plain(const struct ft_job *j, const char *form)
{
    static const struct {
        unsigned trait;
        const char *what;
    } not [] = {{FT_TRAIT_METHOD, "it is no plain LoRA"},
                {FT_TRAIT_MODULES, "modules were trained whole"},
                {FT_TRAIT_BIASES, "biases were trained"},
                {FT_TRAIT_TOKENS, "rows of tokens were trained"},
                {FT_TRAIT_EMBEDDING, "the embedding has an adapter"},
                {FT_TRAIT_HEAD, "the head has an adapter"}};
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
    FT_TRY(check_plain(j, "a GGUF adapter"));
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

/* Kinds of modules that any layer has an adapter of; queries too where keys or values are. */
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

static int write_config(const struct ft_job *j, const bool kinds[FT_KINDS], int64_t r,
                        const char *folder)
{
    const unsigned since = ft_alloc_failures();
    const struct ft_names *names = &ft_model_decoder(j->model)->names;
    char *path = ft_path_join(folder, "adapter_config.json");
    json_t *targets = json_array();
    for (int k = 0; k < FT_KINDS; k++)
        if (kinds[k] && names->module[k])
            json_array_append_new(targets, json_string(leaf_of(names->module[k])));
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:f, s:s, s:b, s:b, s:b, s:b, s:{}, s:{}, s:o, "
        "s:n, s:b}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", j->base_name, "r",
        (json_int_t)r, "lora_alpha", (json_int_t)r, "lora_dropout", 0.0, "bias", "none",
        "fan_in_fan_out", ft_model_decoder(j->model)->conv1d, "inference_mode", 1, "use_rslora", 0,
        "use_dora", 0, "rank_pattern", "alpha_pattern", "target_modules", targets,
        "modules_to_save", "init_lora_weights", 1);
    char *text = o ? ft_json_dumps(o, JSON_INDENT(2), since) : NULL;
    int rc = path && text ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    ft_json_free(text);
    json_decref(o);
    ft_free(path);
    return rc;
}

int ft_export_portable(const struct ft_job *j, const float *values, const char *folder)
{
    const struct ft_module *modules;
    const int n = ft_model_modules(j->model, &modules);
    const int64_t r = ft_adapter_max_rank(j->adapter);
    static const char *const meta[][2] = {{"format", "pt"}};
    struct ft_arena arena = {0};
    struct ft_st_item *items;
    bool kinds[FT_KINDS];
    int at = 0, rc = FT_OK;
    FT_TRY(check_plain(j, "a portable adapter"));
    find_kinds(j, values, kinds);
    FT_TRY(ft_alloc(&items, 2 * (size_t)n + 1, sizeof *items));
    for (int i = 0; i < n && !rc; i++)
        if (kinds[modules[i].kind]) {
            rc = fill_pair(j, values, i, r, &arena, items + at);
            at += 2;
        }
    char *path = ft_path_join(folder, "adapter_model.safetensors");
    if (!rc)
        rc = path ? ft_make_folders(folder) : FT_ERESOURCE;
    if (!rc)
        rc = ft_st_write(path, items, at, meta, 1);
    if (!rc)
        rc = write_config(j, kinds, r, folder);
    ft_free(path);
    ft_free(items);
    ft_arena_fini(&arena);
    return rc;
}
