/* Writes a model folder's weights again: those that were trained with their new values, and
 * everything else, a vision tower too, as it was; or all of the decoder's in one dtype. */
#include "model/internal.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <stdio.h>
#include <string.h>

struct save {
    const struct ft_model *m;
    const struct ft_st *f;
    ft_model_trained_fn *trained;
    void *ctx;
};

/* Whether a tensor is the weight, or (of experts) which of its pieces; -1: it is not. */
static int piece_of(const struct ft_weight *w, const struct ft_st_entry *e)
{
    for (int i = 0; i < w->n_pieces; i++)
        if (w->pieces[i].entry == e)
            return i;
    return w->entry == e ? 0 : -1;
}

/* The weight that this tensor of the file is, a tied head's copy the embedding, or that it is a
 * piece of; -1: none of the decoder's. */
static int weight_at(const struct save *s, int i, int *piece)
{
    const struct ft_model *m = s->m;
    const struct ft_st_entry *e = ft_st_at(s->f, i);
    const bool copy = m->decoder.tied && strcmp(e->name, m->head_name) == 0;
    *piece = 0;
    for (int k = 0; k < m->n_weights; k++) {
        const int is = piece_of(&m->weights[k], e);
        if (is >= 0 || (copy && m->weights[k].slot == &m->embed)) {
            *piece = is < 0 ? 0 : is;
            return k;
        }
    }
    return -1;
}

/* Where element k of what a file has, matrices turned or not, is in the weight. */
static size_t place_of(const struct ft_weight *w, bool turned, size_t k)
{
    const size_t cols = (size_t)(w->cols ? w->cols : 1);
    const size_t rows = (size_t)(w->rows / (w->parts ? w->parts : 1)), part = rows * cols;
    return turned ? k / part * part + k % part % rows * cols + k % part / rows : k;
}

/* Elements first.. of the weight as the file has them. */
static void narrow(const struct ft_weight *w, enum ft_dtype dtype, const float *values,
                   size_t first, size_t n, void *out)
{
    for (size_t i = 0; i < n; i++)
        ft_element_put(out, i, dtype, values[place_of(w, w->transposed, first + i)]);
}

static int source(void *ctx, int i, int64_t from, size_t n, void *out)
{
    const struct save *s = ctx;
    int piece;
    const int weight = weight_at(s, i, &piece);
    const float *values = weight < 0 ? NULL : s->trained(s->ctx, weight);
    if (!values)
        return ft_st_read(s->f, ft_st_at(s->f, i), from, n, out);
    const enum ft_dtype dtype = ft_st_at(s->f, i)->dtype;
    const size_t size = ft_dtype_size(dtype);
    const struct ft_weight *w = &s->m->weights[weight];
    narrow(w, dtype, values, (size_t)(piece * w->piece_rows * w->cols) + (size_t)from / size,
           n / size, out);
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
        int piece;
        const int weight = weight_at(s, i, &piece);
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

/* --- all in one dtype --- */

enum { SHARD = 1 << 30 }; /* values of a file, about */

struct one {
    const struct ft_model *m;
    int weight, piece;
    enum ft_dtype dtype;
    ft_model_values_fn *values;
    void *ctx;
};

/* As how many tensors transformers has it: a GGUF file's experts may be apart where its are not. */
static int pieces_of(const struct ft_model *m, const struct ft_weight *w)
{
    return m->decoder.names.expert[0] ? w->n_pieces : 0;
}

/* Of one of its pieces, or of all. */
static int64_t rows_of(const struct ft_model *m, const struct ft_weight *w)
{
    return pieces_of(m, w) ? w->piece_rows : w->rows;
}

/* Where transformers has the other direction (GPT-2's Conv1D), whatever the file has. */
static bool is_turned(const struct one *o)
{
    const enum ft_weight_kind kind = o->m->weights[o->weight].kind;
    return (kind == FT_W_LINEAR && o->m->decoder.conv1d) ||
           (kind == FT_W_EXPERTS && o->m->decoder.names.always_turned);
}

static int put_one(void *ctx, struct ft_writer *to)
{
    enum { CHUNK = 1 << 16 };
    const struct one *o = ctx;
    const struct ft_weight *w = &o->m->weights[o->weight];
    const size_t n = (size_t)(rows_of(o->m, w) * (w->cols ? w->cols : 1));
    const size_t size = ft_dtype_size(o->dtype), first = (size_t)o->piece * n;
    /* GGUF has Gemma's norms with the 1 that is added to them */
    const float less =
        w->kind == FT_W_NORM && o->m->gguf ? (float)o->m->family->decoder.norm_offset : 0;
    const float *values;
    char *buffer;
    FT_TRY(o->values(o->ctx, o->weight, &values));
    FT_TRY(ft_alloc(&buffer, CHUNK, size));
    int rc = FT_OK;
    for (size_t at = 0; at < n && !rc; at += CHUNK) {
        const size_t part = n - at < CHUNK ? n - at : CHUNK;
        for (size_t i = 0; i < part; i++) {
            const size_t from = place_of(w, is_turned(o), first + at + i);
            ft_element_put(buffer, i, o->dtype, values[from] - less);
        }
        rc = ft_writer_put(to, buffer, part * size);
    }
    ft_free(buffer);
    return rc;
}

/* A tensor of the new files: experts as the old ones have them, which other programs know. */
static struct ft_st_item item_of(struct one *o)
{
    const struct ft_weight *w = &o->m->weights[o->weight];
    const bool turned = is_turned(o), apart = pieces_of(o->m, w) > 0, stacked = w->parts && !apart;
    const bool as_in_file = w->kind == FT_W_EXPERTS || w->kind == FT_W_ROUTER;
    const int64_t rows = rows_of(o->m, w) / (stacked ? w->parts : 1);
    struct ft_st_item item = {.name = apart        ? w->pieces[o->piece].name
                                      : as_in_file ? w->name
                                                   : w->path,
                              .dtype = o->dtype,
                              .n_dims = stacked   ? 3
                                        : w->cols ? 2
                                                  : 1,
                              .put = put_one,
                              .ctx = o};
    int64_t *dims = item.dims;
    if (stacked)
        *dims++ = w->parts;
    dims[0] = turned ? w->cols : rows;
    if (w->cols)
        dims[1] = turned ? rows : w->cols;
    return item;
}

static int64_t elements_of(const struct one *o)
{
    const struct ft_weight *w = &o->m->weights[o->weight];
    return rows_of(o->m, w) * (w->cols ? w->cols : 1);
}

/* All of them; NULL: only their number. */
static int list_all(const struct one *like, struct one *out)
{
    const struct ft_model *m = like->m;
    int n = 0;
    for (int i = 0; i < m->n_weights; i++)
        for (int piece = 0, pieces = pieces_of(m, &m->weights[i]); piece < (pieces ? pieces : 1);
             piece++) {
            if (out) {
                out[n] = *like;
                out[n].weight = i;
                out[n].piece = piece;
                /* a correction decides by its last digits which experts are chosen */
                if (m->weights[i].kind == FT_W_SCORE && m->weights[i].dtype == FT_F32)
                    out[n].dtype = FT_F32;
            }
            n++;
        }
    return n;
}

/* Those from `first` on that one file holds: their number. */
static int fill_shard(struct one *ones, int first, int all, struct ft_st_item *items)
{
    int64_t total = 0;
    int n = 0;
    for (int i = first; i < all && total < SHARD; i++, n++) {
        items[n] = item_of(&ones[i]);
        total += elements_of(&ones[i]);
    }
    return n;
}

static int count_shards(struct one *ones, int all, struct ft_st_item *items)
{
    int n = 0;
    for (int first = 0; first < all; n++)
        first += fill_shard(ones, first, all, items);
    return n;
}

/* The folder's, as it is for weights that are not quantised. */
static int write_config(const struct ft_model *m, const char *folder, enum ft_dtype dtype)
{
    static const char *const names[] = {
        [FT_F32] = "float32", [FT_F16] = "float16", [FT_BF16] = "bfloat16"};
    const unsigned since = ft_alloc_failures();
    char *path = ft_path_join(m->folder, "config.json");
    json_t *root = NULL;
    int rc = path ? ft_json_file(path, FT_EDATA, &root) : FT_ERESOURCE;
    if (!rc) {
        json_object_del(root, "quantization_config");
        json_object_del(root, "dtype");
        json_object_set_new(root, "torch_dtype", json_string(names[dtype]));
        if (!json_object_get(root, "model_type")) /* of a GGUF file */
            json_object_set_new(root, "model_type", json_string(m->family->model_type));
        json_object_set_new(root, "vocab_size", json_integer(m->decoder.vocab));
        rc = ft_json_write(folder, "config.json", root, JSON_INDENT(2), since);
    }
    json_decref(root);
    ft_free(path);
    return rc;
}

static int write_index(const char *folder, json_t *map, int64_t bytes)
{
    const unsigned since = ft_alloc_failures();
    json_t *root =
        json_pack("{s{sI} sO}", "metadata", "total_size", (json_int_t)bytes, "weight_map", map);
    int rc = ft_json_write(folder, "model.safetensors.index.json", root, JSON_INDENT(2), since);
    json_decref(root);
    return rc;
}

static int write_shards(const char *folder, struct one *ones, int all, struct ft_st_item *items)
{
    static const char *const meta[][2] = {{"format", "pt"}};
    const unsigned since = ft_alloc_failures();
    const int shards = count_shards(ones, all, items);
    json_t *map = json_object();
    int64_t bytes = 0;
    int rc = FT_OK;
    for (int i = 0, first = 0; i < shards && !rc; i++) {
        char name[64] = "model.safetensors";
        if (shards > 1)
            snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i + 1, shards);
        const int n = fill_shard(ones, first, all, items);
        for (int k = 0; k < n; k++) {
            bytes += elements_of(&ones[first + k]) * (int64_t)ft_dtype_size(ones[0].dtype);
            json_object_set_new(map, items[k].name, json_string(name));
        }
        char *path = ft_path_join(folder, name);
        rc = path ? ft_st_write(path, items, n, meta, 1) : FT_ERESOURCE;
        ft_free(path);
        first += n;
    }
    if (!rc)
        rc = ft_alloc_check(since);
    if (!rc && shards > 1)
        rc = write_index(folder, map, bytes);
    json_decref(map);
    return rc;
}

int ft_model_save_as(const struct ft_model *m, const char *folder, enum ft_dtype dtype,
                     ft_model_values_fn *values, void *ctx)
{
    const struct one like = {m, 0, 0, dtype, values, ctx};
    const int all = list_all(&like, NULL);
    struct one *ones;
    struct ft_st_item *items = NULL;
    if (m->family->text[0])
        return ft_fail_at((struct ft_where){.file = m->folder}, FT_EDATA,
                          "the model also sees: ft writes it again in its own types only");
    FT_TRY(ft_alloc(&ones, (size_t)all + 1, sizeof *ones));
    int rc = ft_alloc(&items, (size_t)all + 1, sizeof *items);
    list_all(&like, ones);
    if (!rc)
        rc = write_shards(folder, ones, all, items);
    if (!rc)
        rc = write_config(m, folder, dtype);
    ft_free(items);
    ft_free(ones);
    return rc;
}
