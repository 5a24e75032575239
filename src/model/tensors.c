/* Finds every weight of the decoder in the folder's files, and checks names, shapes and dtypes. */
#include "core/quant.h"
#include "model/quantised.h"

#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ft_where in_folder(const struct ft_model *m)
{
    return (struct ft_where){.file = m->folder};
}

static void shape_text(char *out, size_t room, int n, const int64_t *dims)
{
    int at = snprintf(out, room, "(");
    for (int i = 0; i < n; i++)
        at += snprintf(out + at, room - (size_t)at, "%s%lld", i ? ", " : "", (long long)dims[i]);
    snprintf(out + at, room - (size_t)at, ")");
}

static int check_shape(const struct ft_weight *w)
{
    const struct ft_st_entry *e = w->entry;
    const struct ft_where at = {.file = ft_st_path(w->file)};
    int64_t dims[2] = {w->transposed ? w->cols : w->rows, w->transposed ? w->rows : w->cols};
    int n = w->cols ? 2 : 1;
    if (e->n_dims != n || e->dims[0] != dims[0] || (n == 2 && e->dims[1] != dims[1])) {
        char got[128], want[64];
        shape_text(got, sizeof got, e->n_dims, e->dims);
        shape_text(want, sizeof want, n, dims);
        return ft_fail_at(at, FT_EDATA, "tensor '%s' has shape %s, config.json implies %s", w->name,
                          got, want);
    }
    return FT_OK;
}

static int check_weight(const struct ft_weight *w)
{
    const struct ft_st_entry *e = w->entry;
    const struct ft_where at = {.file = ft_st_path(w->file)};
    FT_TRY(check_shape(w));
    if (e->dtype != FT_F32 && e->dtype != FT_BF16 && e->dtype != FT_F16)
        return ft_fail_at(at, FT_EDATA, "tensor '%s' is %s; ft reads F32, F16 and BF16 weights",
                          w->name, e->dtype_name);
    return FT_OK;
}

/* A weight in GGUF's blocks. */
static int check_blocks(const struct ft_model *m, struct ft_weight *w)
{
    w->way = &ft_gguf_way;
    FT_TRY(check_shape(w));
    return w->way->open(m, w);
}

/* Of a module's weight or bias; others lie in order. */
static enum ft_row_order order_of(const struct ft_model *m, const struct ft_weight *w)
{
    for (int i = 0; i < m->n_modules; i++) {
        const struct ft_module *p = &m->modules[i];
        if (w->slot == &p->w || w->slot == &p->bias)
            return ft_gguf_order(m, p->kind);
    }
    return FT_IN_ORDER;
}

static int weight_by_name(const void *a, const void *b)
{
    return strcmp(((const struct ft_weight *)a)->name, ((const struct ft_weight *)b)->name);
}

static bool starts_with_any(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n && list[i]; i++)
        if (ft_starts_with(name, list[i]))
            return true;
    return false;
}

/* What is no weight of the decoder: buffers that old conversions stored, a tied head's copy, and
 * the tower of a model that also sees. */
static bool is_harmless(const struct ft_model *m, const char *name)
{
    const struct ft_names *n = &m->decoder.names;
    bool buffer = ft_ends_with(name, ".rotary_emb.inv_freq");
    for (size_t i = 0; i < sizeof n->buffers / sizeof *n->buffers && n->buffers[i]; i++)
        buffer = buffer || ft_ends_with(name, n->buffers[i]);
    return buffer || (m->decoder.tied && strcmp(name, m->head_name) == 0) ||
           starts_with_any(name, n->others, sizeof n->others / sizeof *n->others);
}

const struct ft_st_entry *ft_model_entry(const struct ft_model *m, const char *name,
                                         struct ft_st **file)
{
    const struct ft_st_entry *e = NULL;
    for (int i = 0; i < m->n_files && !e; i++)
        if ((e = ft_st_find(m->files[i], name)))
            *file = m->files[i];
    return e;
}

int ft_model_settle_prefix(struct ft_model *m)
{
    const struct ft_names *n = &m->decoder.names;
    const char *one = NULL;
    struct ft_st *file;
    m->in_file = n->in_file[0] ? n->in_file[0] : n->prefix;
    for (int k = 0; k < FT_KINDS && !one; k++)
        one = n->module[k];
    for (size_t i = 0; i < sizeof n->in_file / sizeof *n->in_file && n->in_file[i]; i++) {
        char *name = ft_arena_format(&m->arena, "%s%s.0.%s.weight", n->in_file[i], n->layers, one);
        if (!name)
            return FT_ERESOURCE;
        if (ft_model_entry(m, name, &file)) {
            m->in_file = n->in_file[i];
            break;
        }
    }
    return FT_OK;
}

int ft_model_find_tensors(struct ft_model *m)
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
        if (ft_quantised_open(m, w))
            rc = FT_EDATA;
        else if (!w->entry)
            rc = ft_fail_at(in_folder(m), FT_EDATA, "tensor '%s' is missing", w->name);
        else if (ft_is_quant(w->entry->dtype) ? check_blocks(m, w) : !w->way && check_weight(w))
            rc = FT_EDATA;
        else /* of its rows, as they are read; codes may be called anything */
            w->dtype = ft_is_quant(w->entry->dtype)        ? FT_F32
                       : w->entry->dtype == FT_DTYPE_COUNT ? FT_U8
                                                           : w->entry->dtype;
        w->order = order_of(m, w);
    }
    if (!rc && m->quantised && !ft_model_is_quantised(m))
        ft_notice(in_folder(m),
                  "config.json says that the weights are quantised with '%s'; none of "
                  "them is",
                  m->quantised);
    qsort(m->weights, (size_t)m->n_weights, sizeof *m->weights, weight_by_name);
    for (int f = 0; f < m->n_files; f++)
        for (int i = 0; i < ft_st_count(m->files[f]); i++) {
            struct ft_weight key = {.name = ft_st_at(m->files[f], i)->name};
            if (!is_harmless(m, key.name) && !ft_quantised_plane(m, key.name) &&
                !bsearch(&key, m->weights, (size_t)m->n_weights, sizeof key, weight_by_name))
                rc = ft_fail_at((struct ft_where){.file = ft_st_path(m->files[f])}, FT_EDATA,
                                "tensor '%s' is not part of a '%s'", key.name,
                                m->family->architecture);
        }
    return rc;
}
