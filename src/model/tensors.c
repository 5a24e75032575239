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
    const bool one_by_one = w->n_pieces > 0;
    const int64_t rows = one_by_one ? w->piece_rows : w->parts ? w->rows / w->parts : w->rows;
    const int64_t cols = w->by_turns && !w->parts ? w->cols / 2 : w->cols;
    const int64_t all[3] = {w->parts, w->transposed ? cols : rows, w->transposed ? rows : cols};
    const int64_t *dims = w->parts && !one_by_one ? all : all + 1;
    const int n = w->parts && !one_by_one ? 3 : w->cols ? 2 : 1;
    if (e->n_dims != n || memcmp(e->dims, dims, (size_t)n * sizeof *dims) != 0) {
        char got[128], want[64];
        shape_text(got, sizeof got, e->n_dims, e->dims);
        shape_text(want, sizeof want, n, dims);
        return ft_fail_at(at, FT_EDATA, "tensor '%s' has shape %s, config.json implies %s", e->name,
                          got, want);
    }
    return FT_OK;
}

/* What GGUF's blocks are read of. */
static bool may_be_blocks(const struct ft_weight *w)
{
    return ft_is_quant(w->entry->dtype) && w->kind != FT_W_BUFFER && w->kind != FT_W_SCORE;
}

static int check_weight(const struct ft_weight *w)
{
    const struct ft_st_entry *e = w->entry;
    const struct ft_where at = {.file = ft_st_path(w->file)};
    FT_TRY(check_shape(w));
    if (e->dtype != FT_F32 && e->dtype != FT_BF16 && e->dtype != FT_F16)
        return ft_fail_at(at, FT_EDATA, "tensor '%s' is %s; ft reads F32, F16 and BF16 weights",
                          e->name, e->dtype_name);
    return FT_OK;
}

/* A tensor of the files by its name; entry NULL: none has it. */
static int find_one(const struct ft_model *m, const char *name, struct ft_st **file,
                    const struct ft_st_entry **entry)
{
    for (int f = 0; f < m->n_files; f++) {
        const struct ft_st_entry *e = ft_st_find(m->files[f], name);
        if (e && *entry)
            return ft_fail_at(in_folder(m), FT_EDATA, "tensor '%s' is in two files", name);
        if (!e)
            continue;
        *entry = e;
        *file = m->files[f];
    }
    return FT_OK;
}

static int missing(const struct ft_model *m, const char *name)
{
    return ft_fail_at(in_folder(m), FT_EDATA, "tensor '%s' is missing", name);
}

/* The tensors of a weight that the files have one expert after the other; it is left with the
 * first one's place. */
static int find_pieces(const struct ft_model *m, struct ft_weight *w)
{
    int rc = FT_OK;
    FT_TRY(ft_quantised_pieces(m, w));
    if (w->way)
        return FT_OK;
    for (int i = 0; i < w->n_pieces; i++) {
        struct ft_piece *p = &w->pieces[i];
        struct ft_weight one = *w;
        if (find_one(m, p->name, &p->file, &p->entry))
            rc = FT_EDATA;
        one.entry = p->entry;
        one.file = p->file;
        if (!p->entry)
            rc = missing(m, p->name);
        else if (may_be_blocks(&one) ? check_shape(&one) : check_weight(&one))
            rc = FT_EDATA;
        else if (w->pieces[0].entry && p->entry->dtype != w->pieces[0].entry->dtype)
            rc =
                ft_fail_at((struct ft_where){.file = ft_st_path(p->file)}, FT_EDATA,
                           "tensor '%s' is %s, '%s' %s: a layer's experts are of one type", p->name,
                           p->entry->dtype_name, w->pieces[0].name, w->pieces[0].entry->dtype_name);
    }
    w->file = w->pieces[0].file;
    w->entry = w->pieces[0].entry;
    return rc;
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

/* Whether it is of a layer behind the last one. */
static bool is_behind(const struct ft_model *m, const char *name)
{
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%s%s.", m->in_file, m->decoder.names.layers);
    return ft_starts_with(name, prefix) &&
           strtoll(name + strlen(prefix), NULL, 10) >= m->decoder.layers;
}

/* What is no weight of the decoder: buffers that old conversions stored, a tied head's copy, the
 * tower of a model that also sees, and layers that only guess further tokens. */
static bool is_harmless(const struct ft_model *m, const char *name)
{
    const struct ft_names *n = &m->decoder.names;
    bool buffer = ft_ends_with(name, ".rotary_emb.inv_freq");
    for (size_t i = 0; i < sizeof n->buffers / sizeof *n->buffers && n->buffers[i]; i++)
        buffer = buffer || ft_ends_with(name, n->buffers[i]);
    return buffer || (n->more_layers && is_behind(m, name)) ||
           (m->decoder.tied && strcmp(name, m->head_name) == 0) ||
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

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of all tensors that the weights lie in, sorted. Caller frees. */
static int list_names(const struct ft_model *m, const char ***out, size_t *n)
{
    size_t most = 0;
    for (int i = 0; i < m->n_weights; i++)
        most += 1 + (size_t)m->weights[i].n_pieces;
    FT_TRY(ft_alloc(out, most, sizeof **out));
    *n = 0;
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        for (int k = 0; k < w->n_pieces; k++)
            (*out)[(*n)++] = w->pieces[k].name;
        if (!w->n_pieces)
            (*out)[(*n)++] = w->name;
    }
    qsort(*out, *n, sizeof **out, by_text);
    return FT_OK;
}

/* No tensor of the files is left that nothing knows. */
static int check_others(const struct ft_model *m)
{
    const char **names;
    size_t n;
    FT_TRY(list_names(m, &names, &n));
    int rc = FT_OK;
    for (int f = 0; f < m->n_files; f++)
        for (int i = 0; i < ft_st_count(m->files[f]); i++) {
            const char *name = ft_st_at(m->files[f], i)->name;
            if (!bsearch(&name, names, n, sizeof *names, by_text) && !is_harmless(m, name) &&
                !ft_quantised_plane(m, name))
                rc = ft_fail_at((struct ft_where){.file = ft_st_path(m->files[f])}, FT_EDATA,
                                "tensor '%s' is not part of a '%s'", name, m->family->architecture);
        }
    ft_free(names);
    return rc;
}

int ft_model_find_tensors(struct ft_model *m)
{
    int rc = FT_OK;
    for (int i = 0; i < m->n_weights; i++) {
        struct ft_weight *w = &m->weights[i];
        if (w->n_pieces ? find_pieces(m, w) : find_one(m, w->name, &w->file, &w->entry))
            rc = FT_EDATA;
        if (w->n_pieces && rc)
            continue;
        if (!w->n_pieces && ft_quantised_open(m, w))
            rc = FT_EDATA;
        else if (!w->entry)
            rc = missing(m, w->name);
        else if (may_be_blocks(w) ? check_blocks(m, w) : !w->way && !w->n_pieces && check_weight(w))
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
    const int others = check_others(m);
    return rc ? rc : others;
}
