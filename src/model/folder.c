/* A model folder's weight files: one, or the shards of an index. */
#include "model/internal.h"

#include "core/file.h"
#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ft_where in_folder(const struct ft_model *m)
{
    return (struct ft_where){.file = m->folder};
}

static int open_file(struct ft_model *m, const char *name)
{
    char *path = ft_path_join(m->folder, name);
    struct ft_st *f = NULL;
    int rc = !path                         ? FT_ERESOURCE
             : ft_ends_with(name, ".gguf") ? ft_gguf_tensors(m, path, &f)
                                           : ft_st_open(&f, path);
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

/* model-00001-of-N.gguf and so on, as ft names the files of a GGUF model; the first is there. */
static int open_gguf(struct ft_model *m)
{
    for (int i = 1;; i++) {
        char name[32];
        snprintf(name, sizeof name, "model-%05d.gguf", i);
        char *path = ft_path_join(m->folder, name);
        const bool there = path && ft_file_exists(path);
        ft_free(path);
        if (!path)
            return FT_ERESOURCE;
        if (!there)
            break;
        FT_TRY(open_file(m, name));
    }
    m->decoder.norm_offset = 0; /* it is in the weights there */
    return FT_OK;
}

bool ft_model_is_gguf(const struct ft_model *m)
{
    return m->gguf;
}

int ft_model_open_files(struct ft_model *m)
{
    char *index = ft_path_join(m->folder, "model.safetensors.index.json");
    char *single = ft_path_join(m->folder, "model.safetensors");
    char *gguf = ft_path_join(m->folder, "model-00001.gguf");
    json_t *root = NULL;
    int rc = index && single && gguf ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(gguf)) {
        rc = open_gguf(m);
    } else if (!rc && ft_file_exists(single)) {
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
    ft_free(gguf);
    return rc;
}
