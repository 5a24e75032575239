/* Writes a model folder's weights again, those that were trained with their new values. Everything
 * else, a vision tower too, is as it was. */
#include "model/internal.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <string.h>

struct save {
    const struct ft_model *m;
    const struct ft_st *f;
    ft_model_trained_fn *trained;
    void *ctx;
};

/* The weight that this tensor of the file is, a tied head's copy the embedding; -1: none of the
 * decoder's. */
static int weight_at(const struct save *s, int i)
{
    const struct ft_model *m = s->m;
    const struct ft_st_entry *e = ft_st_at(s->f, i);
    const bool copy = m->decoder.tied && strcmp(e->name, m->head_name) == 0;
    for (int k = 0; k < m->n_weights; k++)
        if (m->weights[k].entry == e || (copy && m->weights[k].slot == &m->embed))
            return k;
    return -1;
}

/* Elements first.. of the weight as the file has them. */
static void narrow(const struct ft_weight *w, enum ft_dtype dtype, const float *values,
                   size_t first, size_t n, void *out)
{
    const size_t rows = (size_t)w->rows, cols = (size_t)(w->cols ? w->cols : 1);
    for (size_t i = 0; i < n; i++) {
        const size_t k = first + i;
        ft_element_put(out, i, dtype, values[w->transposed ? k % rows * cols + k / rows : k]);
    }
}

static int source(void *ctx, int i, int64_t from, size_t n, void *out)
{
    const struct save *s = ctx;
    const int weight = weight_at(s, i);
    const float *values = weight < 0 ? NULL : s->trained(s->ctx, weight);
    if (!values)
        return ft_st_read(s->f, ft_st_at(s->f, i), from, n, out);
    const enum ft_dtype dtype = ft_st_at(s->f, i)->dtype;
    const size_t size = ft_dtype_size(dtype);
    narrow(&s->m->weights[weight], dtype, values, (size_t)from / size, n / size, out);
    return FT_OK;
}

/* The embedding and the head may have got new rows. */
static int save_file(struct save *s, const char *path, int64_t *more)
{
    int64_t *rows;
    const int n = ft_st_count(s->f);
    FT_TRY(ft_alloc(&rows, (size_t)n + 1, sizeof *rows));
    for (int i = 0; i < n; i++) {
        const struct ft_st_entry *e = ft_st_at(s->f, i);
        const int weight = weight_at(s, i);
        const struct ft_weight *w = weight < 0 ? NULL : &s->m->weights[weight];
        const bool end = w && (w->slot == &s->m->embed || w->slot == &s->m->head);
        rows[i] = end ? w->rows : e->dims[0];
        if (end)
            *more += (rows[i] - e->dims[0]) * w->cols * (int64_t)ft_dtype_size(e->dtype);
    }
    int rc = ft_st_rewrite(s->f, path, rows, source, s);
    ft_free(rows);
    return rc;
}

/* A JSON file of the folder, if it is there, with one number of its part `inside`, if it has that,
 * set, or (add) made larger if it is there. */
static int copy_json(const struct ft_model *m, const char *folder, const char *name,
                     const char *inside, const char *key, int64_t value, bool add)
{
    const unsigned since = ft_alloc_failures();
    char *from = ft_path_join(m->folder, name), *to = ft_path_join(folder, name), *text = NULL;
    json_t *root = NULL;
    int rc = from && to ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(from))
        rc = ft_json_file(from, FT_EDATA, &root);
    if (!rc && root) {
        json_t *in = json_object_get(root, inside);
        in = json_is_object(in) ? in : root;
        const json_t *old = json_object_get(in, key);
        if (old || !add)
            json_object_set_new(in, key, json_integer(value + (add ? json_integer_value(old) : 0)));
        text = ft_json_dumps(root, JSON_INDENT(2), since);
        rc = text ? ft_file_write(to, text, strlen(text)) : FT_ERESOURCE;
    }
    ft_json_free(text);
    json_decref(root);
    ft_free(from);
    ft_free(to);
    return rc;
}

/* A small file of the folder, if it is there. */
static int copy_file(const struct ft_model *m, const char *folder, const char *name)
{
    char *from = ft_path_join(m->folder, name), *to = ft_path_join(folder, name);
    int rc = from && to ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(from))
        rc = ft_file_copy(from, to);
    ft_free(from);
    ft_free(to);
    return rc;
}

int ft_model_save(const struct ft_model *m, const char *folder, ft_model_trained_fn *trained,
                  void *ctx)
{
    static const char index[] = "model.safetensors.index.json", config[] = "config.json";
    int64_t more = 0; /* bytes of new rows */
    int rc = FT_OK;
    for (int i = 0; i < m->n_files && !rc; i++) {
        struct save s = {m, m->files[i], trained, ctx};
        const char *name = strrchr(ft_st_path(m->files[i]), '/');
        char *path = ft_path_join(folder, name ? name + 1 : ft_st_path(m->files[i]));
        rc = path ? save_file(&s, path, &more) : FT_ERESOURCE;
        ft_free(path);
    }
    if (!rc)
        rc = more ? copy_json(m, folder, index, "metadata", "total_size", more, true)
                  : copy_file(m, folder, index);
    if (!rc)
        rc = more ? copy_json(m, folder, config, "text_config", "vocab_size", m->decoder.vocab,
                              false)
                  : copy_file(m, folder, config);
    return rc;
}
