/* Writes a model folder's weights again, those that were trained with their new values. Everything
 * else, a vision tower too, is as it was. */
#include "model/internal.h"

#include "core/file.h"

#include <string.h>

struct save {
    const struct ft_model *m;
    const struct ft_st *f;
    ft_model_trained_fn *trained;
    void *ctx;
};

/* The weight that this tensor of the file is, -1: none of the decoder's. */
static int weight_at(const struct save *s, int i)
{
    for (int k = 0; k < s->m->n_weights; k++)
        if (s->m->weights[k].entry == ft_st_at(s->f, i))
            return k;
    return -1;
}

/* Elements first.. of the weight as the file has them. */
static void narrow(const struct ft_weight *w, const float *values, size_t first, size_t n,
                   void *out)
{
    const size_t rows = (size_t)w->rows, cols = (size_t)(w->cols ? w->cols : 1);
    for (size_t i = 0; i < n; i++) {
        const size_t k = first + i;
        ft_element_put(out, i, w->dtype, values[w->transposed ? k % rows * cols + k / rows : k]);
    }
}

static int source(void *ctx, int i, int64_t from, size_t n, void *out)
{
    const struct save *s = ctx;
    const int weight = weight_at(s, i);
    const float *values = weight < 0 ? NULL : s->trained(s->ctx, weight);
    if (!values)
        return ft_st_read(s->f, ft_st_at(s->f, i), from, n, out);
    const struct ft_weight *w = &s->m->weights[weight];
    const size_t size = ft_dtype_size(w->dtype);
    narrow(w, values, (size_t)from / size, n / size, out);
    return FT_OK;
}

/* A small file of the folder, if it is there. */
static int copy_file(const struct ft_model *m, const char *folder, const char *name)
{
    char *from = ft_path_join(m->folder, name), *to = ft_path_join(folder, name), *data = NULL;
    size_t n = 0;
    int rc = from && to ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(from)) {
        rc = ft_file_read(from, (size_t)1 << 28, FT_EDATA, &data, &n);
        if (!rc)
            rc = ft_file_write(to, data, n);
    }
    ft_free(data);
    ft_free(from);
    ft_free(to);
    return rc;
}

int ft_model_save(const struct ft_model *m, const char *folder, ft_model_trained_fn *trained,
                  void *ctx)
{
    int rc = FT_OK;
    for (int i = 0; i < m->n_files && !rc; i++) {
        struct save s = {m, m->files[i], trained, ctx};
        const char *name = strrchr(ft_st_path(m->files[i]), '/');
        char *path = ft_path_join(folder, name ? name + 1 : ft_st_path(m->files[i]));
        rc = path ? ft_st_rewrite(m->files[i], path, source, &s) : FT_ERESOURCE;
        ft_free(path);
    }
    if (!rc)
        rc = copy_file(m, folder, "model.safetensors.index.json");
    return rc ? rc : copy_file(m, folder, "config.json");
}
