/* Recognises a folder: which family its config.json is of, and what it says of the decoder. */
#include "model/internal.h"

#include "core/file.h"
#include "core/text.h"

#include <stdio.h>
#include <string.h>

static struct ft_where in_folder(const struct ft_model *m)
{
    return (struct ft_where){.file = m->folder};
}

static void list_families(char *out, size_t room)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < ft_family_count && at < room; i++)
        at += (size_t)snprintf(out + at, room - at, "%s%s", i ? ", " : "",
                               ft_families[i]->architecture);
}

static const struct ft_field *find_field(const struct ft_family *f, const char *key)
{
    for (int k = 0; k < FT_FIELD_TABLES && f->fields[k]; k++)
        for (const struct ft_field *row = f->fields[k]; row->key; row++)
            if (strcmp(row->key, key) == 0)
                return row;
    return NULL;
}

/* The fields of config.json that the nearest known family does not have, of those that a decoder's
 * arithmetic could depend on. */
static void differing_fields(const json_t *root, const struct ft_family *f, char *out, size_t room)
{
    static const char *const beside[] = {
        "architectures",   "model_type",           "torch_dtype",
        "dtype",           "transformers_version", "use_cache",
        "_name_or_path",   "rope_scaling",         "auto_map",
        "rope_parameters", "rope_theta",           "bos_token_id",
        "eos_token_id",    "layer_types",          "initializer_range",
        "pad_token_id",    "pretraining_tp",       "attention_dropout"};
    const char *key;
    json_t *value;
    size_t at = 0;
    out[0] = 0;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        bool known = find_field(f, key) != NULL;
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
            known = known || strcmp(beside[i], key) == 0;
        if (!known && at < room)
            at += (size_t)snprintf(out + at, room - at, "%s%s", at ? ", " : "", key);
    }
}

static const struct ft_family *nearest_family(const char *name)
{
    const char *names[64] = {0};
    size_t n = 0;
    FT_ASSERT((size_t)ft_family_count <= sizeof names / sizeof *names);
    for (; n < (size_t)ft_family_count; n++)
        names[n] = ft_families[n]->architecture;
    const char *near = ft_nearest(name, names, n);
    for (size_t i = 0; i < n && near; i++)
        if (names[i] == near)
            return ft_families[i];
    return ft_families[0];
}

static int unknown_family(const json_t *root, const char *file, const char *name)
{
    char list[1536], fields[512];
    const struct ft_family *near = nearest_family(name);
    list_families(list, sizeof list);
    differing_fields(root, near, fields, sizeof fields);
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "architecture '%s' is not one that ft knows", name);
    ft_hint("the nearest supported one is '%s'%s%s; all: %s", near->architecture,
            fields[0] ? ", which does not have " : "", fields, list);
    return FT_EDATA;
}

/* The row by the architecture's name, or else by the type's. */
const struct ft_family *ft_family_find(const char *name, const char *type)
{
    for (int i = 0; i < ft_family_count; i++)
        if (name ? strcmp(ft_families[i]->architecture, name) == 0
                 : type && strcmp(ft_families[i]->model_type, type) == 0)
            return ft_families[i];
    return NULL;
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
    m->family = ft_family_find(name, type);
    if (!m->family)
        return unknown_family(root, file, name ? name : type);
    if (!type || strcmp(m->family->model_type, type) == 0 ||
        (m->family->alias && strcmp(m->family->alias, type) == 0))
        return FT_OK;
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "'model_type' is '%s', the architecture is '%s', whose type is '%s'", type, name,
               m->family->model_type);
    ft_hint("transformers goes by 'model_type'; one of the two is wrong");
    return FT_EDATA;
}

/* --- a folder whose decoder is the text part of more --- */

/* Where modules and tensors lie, by the outer row. */
static void place_names(struct ft_names *n, const struct ft_names *outer)
{
    n->prefix = outer->prefix;
    n->head = outer->head ? outer->head : n->head;
    memcpy(n->in_file, outer->in_file, sizeof n->in_file);
    memcpy(n->head_in_file, outer->head_in_file, sizeof n->head_in_file);
    memcpy(n->others, outer->others, sizeof n->others);
}

static int find_text(const struct ft_family *outer, const json_t *text, const char *file,
                     const struct ft_family **out)
{
    const char *type = NULL;
    if (!ft_json_str(text, file, "model_type", &type))
        return FT_EDATA;
    for (size_t i = 0; i < sizeof outer->text / sizeof *outer->text && outer->text[i]; i++)
        if (!type || strcmp(type, outer->text[i]->model_type) == 0 ||
            strcmp(type, outer->model_type) == 0) {
            *out = outer->text[i];
            return FT_OK;
        }
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "'text_config' is of the type '%s', which ft does not know in a '%s'", type,
               outer->architecture);
    ft_hint("ft knows '%s' there", outer->text[0]->model_type);
    return FT_EDATA;
}

static int read_decoder(struct ft_model *m, const json_t *root, const char *file)
{
    const struct ft_family *f = m->family, *text = f;
    const json_t *config = root;
    if (f->text[0]) {
        config = ft_json_get(root, "text_config") ? ft_json_get(root, "text_config") : root;
        FT_TRY(find_text(f, config, file, &text));
    }
    m->text = text;
    m->decoder = text->decoder;
    if (f->text[0]) {
        place_names(&m->decoder.names, &f->decoder.names);
        m->decoder.tied = f->decoder.tied;
    }
    FT_TRY(ft_config_to_decoder(config, file, text, m));
    m->decoder.mixture.balanced &= !m->decoder.mixture.plain_loss;
    /* the outer config's word counts, where both speak */
    if (config != root && !ft_json_bool(root, file, "tie_word_embeddings", &m->decoder.tied))
        return FT_EDATA;
    return FT_OK;
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

int ft_model_read_config(struct ft_model *m)
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
        rc = ft_quantised_config(m, root, path);
    if (!rc)
        rc = read_decoder(m, root, path);
    json_decref(root);
    ft_free(path);
    return rc;
}
