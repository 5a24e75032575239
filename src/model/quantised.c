/* Quantised weights: those of a folder that has them, and those that are made while 16-bit ones are
 * loaded. A way is a row of `ways`. */
#include "model/quantise.h"

#include "model/internal.h"

#include <stdio.h>
#include <string.h>

static struct ft_where in_file(const struct ft_weight *w)
{
    return (struct ft_where){.file = ft_st_path(w->file)};
}

static size_t entry_bytes(const struct ft_st_entry *e)
{
    return (size_t)(e->end - e->begin);
}

/* --- made while loading --- */

/* The whole tensor at 16 bits (or 32), as the module multiplies with it. Caller frees. */
static int read_whole(const struct ft_weight *w, bool scan, char **out)
{
    const size_t n = (size_t)(w->rows * w->cols), bytes = n * ft_dtype_size(w->dtype);
    char *turned;
    FT_TRY(ft_alloc(out, bytes, 1));
    int rc = ft_model_read_rows(w, 0, w->rows, !scan, *out);
    if (!rc && w->transposed && w->file && !(rc = ft_alloc(&turned, bytes, 1))) {
        ft_model_turn(turned, *out, w->rows, w->cols, ft_dtype_size(w->dtype));
        ft_free(*out);
        *out = turned;
    }
    if (rc) {
        ft_free(*out);
        *out = NULL;
    }
    return rc;
}

static int make(const struct ft_weight *w, struct ft_pool *pool, bool scan,
                const struct ft_planes *q)
{
    char *data;
    FT_TRY(read_whole(w, scan, &data));
    int rc = FT_OK;
    if (q->dtype == FT_INT8_ROWS)
        ft_quantise_8bit(q, pool, data, w->dtype);
    else
        rc = ft_quantise_4bit(q, w->fp4, pool, data, w->dtype);
    ft_free(data);
    return rc;
}

/* The tensor, beside it the one that is turned, and the scales before they are quantised. */
static size_t making_room(const struct ft_weight *w)
{
    const size_t n = (size_t)(w->rows * w->cols), size = ft_dtype_size(w->dtype);
    return n * size * (w->transposed ? 2 : 1) +
           (w->block ? 4 * ft_blocks_of(n, (size_t)w->block) : 0);
}

/* --- bitsandbytes' folders --- */

/* The plane `suffix` of a weight, whose name is `base` long; NULL: there is none. */
static const struct ft_st_entry *plane(const struct ft_model *m, const struct ft_weight *w,
                                       size_t base, const char *suffix, struct ft_st **file)
{
    char name[512];
    snprintf(name, sizeof name, "%.*s%s", (int)base, w->name, suffix);
    return ft_model_entry(m, name, file);
}

static size_t module_name(const struct ft_weight *w)
{
    return strlen(w->name) - strlen(".weight");
}

static int misses(const struct ft_weight *w, size_t base, const char *suffix)
{
    return ft_fail_at(in_file(w), FT_EDATA, "tensor '%.*s%s' is missing: '%s' is quantised",
                      (int)base, w->name, suffix, w->name);
}

/* Reads a plane of exactly `bytes`, whatever it says that its elements are. */
static int read_plane(const struct ft_model *m, const struct ft_weight *w, size_t base,
                      const char *suffix, void *to, size_t bytes)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = plane(m, w, base, suffix, &file);
    if (!e)
        return misses(w, base, suffix);
    if (entry_bytes(e) != bytes)
        return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                          "tensor '%s' has %zu bytes, %zu belong to a weight of %lld x %lld",
                          e->name, entry_bytes(e), bytes, (long long)w->rows, (long long)w->cols);
    return to ? ft_st_read(file, e, 0, bytes, to) : FT_OK;
}

static const char *const states[] = {".quant_state.bitsandbytes__nf4",
                                     ".quant_state.bitsandbytes__fp4"};

/* The JSON beside a weight's codes. */
static int read_state(const struct ft_model *m, const struct ft_weight *w, json_t **root)
{
    const size_t base = strlen(w->name);
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = plane(m, w, base, states[0], &file);
    char *text;
    e = e ? e : plane(m, w, base, states[1], &file);
    if (!e)
        return misses(w, base, states[0]);
    if (entry_bytes(e) > 1 << 16)
        return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                          "tensor '%s' has %zu bytes, too many for a quantisation's state", e->name,
                          entry_bytes(e));
    FT_TRY(ft_alloc(&text, entry_bytes(e) + 1, 1));
    int rc = ft_st_read(file, e, 0, entry_bytes(e), text);
    if (!rc)
        rc = ft_json_text(text, entry_bytes(e), e->name, FT_EDATA, root);
    ft_free(text);
    return rc;
}

static int bad_state(const struct ft_weight *w, const char *what)
{
    return ft_fail_at(in_file(w), FT_EDATA, "the quantisation's state of '%s': %s", w->name, what);
}

static int check_state(const struct ft_weight *w, const json_t *root, int64_t *block)
{
    const json_t *shape = json_object_get(root, "shape");
    const json_t *nested = json_object_get(root, "nested_blocksize");
    const int64_t rows = json_integer_value(json_array_get(shape, 0)),
                  cols = json_integer_value(json_array_get(shape, 1));
    *block = json_integer_value(json_object_get(root, "blocksize"));
    if (json_array_size(shape) != 2 || rows != w->rows || cols != w->cols)
        return ft_fail_at(
            in_file(w), FT_EDATA,
            "the quantisation's state of '%s' has the shape (%lld, %lld), config.json "
            "implies (%lld, %lld)",
            w->name, (long long)rows, (long long)cols, (long long)w->rows, (long long)w->cols);
    if (*block < 32 || *block > 4096 || (*block & (*block - 1)))
        return bad_state(w, "'blocksize' is not a power of two from 32 to 4096");
    if (nested && json_integer_value(nested) != FT_NESTED_BLOCK)
        return bad_state(w, "'nested_blocksize' is not 256");
    if (nested && !json_is_number(json_object_get(root, "nested_offset")))
        return bad_state(w, "it has no 'nested_offset'");
    return FT_OK;
}

/* The sizes of all planes. */
static int check_bnb4(const struct ft_model *m, const struct ft_weight *w)
{
    const size_t base = strlen(w->name);
    const struct ft_tensor t = {
        .rows = w->rows, .cols = w->cols, .dtype = w->as, .block = w->block};
    size_t bytes[FT_PLANES];
    ft_plane_bytes(&t, bytes);
    FT_TRY(read_plane(m, w, base, "", NULL, bytes[FT_CODES]));
    FT_TRY(read_plane(m, w, base, ".absmax", NULL, bytes[FT_SCALES]));
    FT_TRY(read_plane(m, w, base, ".quant_map", NULL, bytes[FT_CODE]));
    if (w->as == FT_BNB4)
        return FT_OK;
    FT_TRY(read_plane(m, w, base, ".nested_absmax", NULL, bytes[FT_SECOND]));
    return read_plane(m, w, base, ".nested_quant_map", NULL, bytes[FT_SECOND_CODE]);
}

static int open_bnb4(const struct ft_model *m, struct ft_weight *w)
{
    json_t *root = NULL;
    int64_t block;
    int rc = read_state(m, w, &root);
    if (!rc)
        rc = check_state(w, root, &block);
    if (!rc) {
        w->as = json_object_get(root, "nested_blocksize") ? FT_BNB4_NESTED : FT_BNB4;
        w->block = (int)block;
        rc = check_bnb4(m, w);
    }
    json_decref(root);
    return rc;
}

static bool all_finite(const void *numbers, size_t bytes)
{
    const float *p = numbers;
    for (size_t i = 0; i < bytes / sizeof *p; i++)
        if (!(p[i] - p[i] == 0))
            return false;
    return true;
}

static int load_bnb4(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                     bool scan, const struct ft_planes *q)
{
    static const char *const suffixes[FT_PLANES] = {[FT_CODES] = "",
                                                    [FT_SCALES] = ".absmax",
                                                    [FT_CODE] = ".quant_map",
                                                    [FT_SECOND] = ".nested_absmax",
                                                    [FT_SECOND_CODE] = ".nested_quant_map"};
    const struct ft_tensor t = {
        .rows = w->rows, .cols = w->cols, .dtype = w->as, .block = w->block};
    size_t bytes[FT_PLANES];
    json_t *root = NULL;
    (void)pool;
    ft_plane_bytes(&t, bytes);
    for (int i = 0; i < FT_OFFSET; i++) {
        if (!bytes[i])
            continue;
        FT_TRY(read_plane(m, w, strlen(w->name), suffixes[i], q->p[i], bytes[i]));
        if (scan && i > FT_CODES && !(i == FT_SCALES && w->as == FT_BNB4_NESTED) &&
            !all_finite(q->p[i], bytes[i]))
            return ft_fail_at(in_file(w), FT_EDATA, "tensor '%s%s' holds NaN or infinite values",
                              w->name, suffixes[i]);
    }
    if (w->as == FT_BNB4)
        return FT_OK;
    FT_TRY(read_state(m, w, &root));
    *(float *)q->p[FT_OFFSET] = (float)json_number_value(json_object_get(root, "nested_offset"));
    json_decref(root);
    return FT_OK;
}

static int open_bnb8(const struct ft_model *m, struct ft_weight *w)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *format = plane(m, w, module_name(w), ".weight_format", &file);
    uint8_t row_major = 0;
    w->as = FT_INT8_ROWS;
    if (format && entry_bytes(format) == 1)
        FT_TRY(ft_st_read(file, format, 0, 1, &row_major));
    if (row_major)
        return ft_fail_at(in_file(w), FT_EDATA,
                          "'%s' is not stored row by row (its weight_format is %d)", w->name,
                          row_major);
    FT_TRY(read_plane(m, w, strlen(w->name), "", NULL, (size_t)(w->rows * w->cols)));
    return read_plane(m, w, module_name(w), ".SCB", NULL, 4 * (size_t)w->rows);
}

static int load_bnb8(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                     bool scan, const struct ft_planes *q)
{
    (void)pool;
    FT_TRY(read_plane(m, w, strlen(w->name), "", q->p[FT_CODES], (size_t)(w->rows * w->cols)));
    FT_TRY(read_plane(m, w, module_name(w), ".SCB", q->p[FT_SCALES], 4 * (size_t)w->rows));
    if (scan && !all_finite(q->p[FT_SCALES], 4 * (size_t)w->rows))
        return ft_fail_at(in_file(w), FT_EDATA, "the scales of '%s' hold NaN or infinite values",
                          w->name);
    return FT_OK;
}

static int load_made(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                     bool scan, const struct ft_planes *q)
{
    (void)m;
    return make(w, pool, scan, q);
}

/* --- the table --- */

struct ft_way {
    const char *method; /* quant_method of config.json; NULL: made while loading */
    /* the tensor that a weight of this way has beside its codes: behind the weight's name, or
     * (module) the module's */
    const char *mark;
    bool module;
    const char *planes[8];                                      /* all that may stand there */
    int (*open)(const struct ft_model *m, struct ft_weight *w); /* checks; sets as and block */
    int (*load)(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                bool scan, const struct ft_planes *q);
    size_t (*room)(const struct ft_weight *w); /* host memory while it is loaded; NULL: none */
};

static const struct ft_way made = {.load = load_made, .room = making_room};
static const struct ft_way ways[] = {
    {.method = "bitsandbytes",
     .mark = ".absmax",
     .planes = {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"},
     .open = open_bnb4,
     .load = load_bnb4},
    {.method = "bitsandbytes",
     .mark = ".SCB",
     .module = true,
     .planes = {".SCB", ".weight_format"},
     .open = open_bnb8,
     .load = load_bnb8},
};
enum { WAYS = sizeof ways / sizeof *ways };

int ft_quantised_config(struct ft_model *m, const json_t *root, const char *file)
{
    const json_t *q = ft_json_get(root, "quantization_config");
    const char *method = "unknown";
    if (!q)
        return FT_OK;
    if (!ft_json_str(q, file, "quant_method", &method))
        return FT_EDATA;
    for (int i = 0; i < WAYS; i++)
        if (strcmp(ways[i].method, method) == 0) {
            m->quantised = ways[i].method;
            return FT_OK;
        }
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "the weights are quantised with '%s', which ft does not read", method);
    ft_hint("use the folder of the unquantised model (F32, F16 or BF16 weights), with 'adapter: "
            "qlora' and 'load_in_4bit: true' if memory is short; ft reads those of bitsandbytes");
    return FT_EDATA;
}

static size_t base_of(const struct ft_way *way, const struct ft_weight *w)
{
    return way->module ? module_name(w) : strlen(w->name);
}

int ft_quantised_open(const struct ft_model *m, struct ft_weight *w)
{
    struct ft_st *file = NULL;
    for (int i = 0; i < WAYS && m->quantised && w->cols; i++) {
        const struct ft_way *way = &ways[i];
        if (strcmp(way->method, m->quantised) != 0 ||
            !plane(m, w, base_of(way, w), way->mark, &file))
            continue;
        w->way = way;
        return way->open(m, w);
    }
    return FT_OK;
}

bool ft_quantised_plane(const struct ft_model *m, const char *name)
{
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        const size_t base = w->way && w->way->method ? base_of(w->way, w) : 0;
        for (int k = 0; base && k < 8 && w->way->planes[k]; k++)
            if (strncmp(name, w->name, base) == 0 && strcmp(name + base, w->way->planes[k]) == 0)
                return true;
    }
    return false;
}

/* As transformers: the beginning of a module's name, or its end. */
static bool is_skipped(const struct ft_weight *w, const char *const *skip)
{
    const size_t n = strlen(w->path) - strlen(".weight");
    for (; skip && *skip; skip++) {
        const size_t k = strlen(*skip);
        if (k <= n && (strncmp(w->path, *skip, k) == 0 || strncmp(w->path + n - k, *skip, k) == 0))
            return true;
    }
    return false;
}

int ft_model_quantise(struct ft_model *m, const struct ft_quantisation *o)
{
    if (!o->bits)
        return FT_OK;
    if (m->quantised) {
        int other = 0;
        for (int i = 0; i < m->n_weights; i++)
            other += m->weights[i].way && (m->weights[i].as == FT_INT8_ROWS) != (o->bits == 8);
        if (!other)
            return FT_OK; /* that is what it is */
        ft_fail_at((struct ft_where){.file = m->folder}, FT_EDATA,
                   "%d bits are asked for, but the folder's weights are quantised already, with "
                   "others",
                   o->bits);
        ft_hint("'%s: false' trains on them as they are",
                o->bits == 8 ? "load_in_8bit" : "load_in_4bit");
        return FT_EDATA;
    }
    for (int i = 0; i < m->n_weights; i++) {
        struct ft_weight *w = &m->weights[i];
        if (w->kind != FT_W_LINEAR || is_skipped(w, o->skip))
            continue;
        w->way = &made;
        w->as = o->bits == 8 ? FT_INT8_ROWS : o->nested ? FT_BNB4_NESTED : FT_BNB4;
        w->block = o->bits == 8 ? 0 : 64;
        w->fp4 = o->fp4;
    }
    return FT_OK;
}

bool ft_model_is_quantised(const struct ft_model *m)
{
    for (int i = 0; i < m->n_weights; i++)
        if (m->weights[i].way)
            return true;
    return false;
}

size_t ft_quantised_room(const struct ft_model *m, bool device)
{
    size_t most = 0;
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        const struct ft_tensor t = {
            .rows = w->rows, .cols = w->cols, .dtype = w->as, .block = w->block};
        if (!w->way)
            continue;
        const size_t need =
            (w->way->room ? w->way->room(w) : 0) + (device ? ft_planes_of(&t).bytes : 0);
        most = need > most ? need : most;
    }
    return most;
}

/* On a device the planes are made here, and sent. */
static int load_one(const struct ft_model *m, const struct ft_weight *w, struct ft_graph *g,
                    struct ft_pool *pool, bool scan)
{
    struct ft_tensor t = **w->slot;
    if (!ft_graph_backend(g)->dev) {
        const struct ft_planes q = ft_planes_of(&t);
        return w->way->load(m, w, pool, scan, &q);
    }
    char *host;
    FT_TRY(ft_alloc(&host, ft_tensor_bytes(&t), 1));
    t.data = host;
    const struct ft_planes q = ft_planes_of(&t);
    int rc = w->way->load(m, w, pool, scan, &q);
    if (!rc)
        rc = ft_graph_write(g, *w->slot, host);
    ft_free(host);
    return rc;
}

int ft_quantised_load(const struct ft_model *m, struct ft_graph *g, struct ft_pool *pool, bool scan,
                      ft_model_progress_fn *progress, void *ctx, uint64_t done, uint64_t total)
{
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        if (!w->way)
            continue;
        FT_TRY(load_one(m, w, g, pool, scan));
        done += ft_quantised_bytes(w);
        if (progress)
            progress(ctx, done, total);
    }
    return FT_OK;
}

uint64_t ft_quantised_bytes(const struct ft_weight *w)
{
    return w->entry ? entry_bytes(w->entry) : (size_t)(w->rows * w->cols) * 2;
}
