/* Quantised weights: those of a folder that has them, and those that are made while 16-bit ones are
 * loaded. A way is a row of `ways`. */
#include "model/quantised.h"

#include "core/quant.h"
#include "core/text.h"
#include "kernels/backend.h"

#include <stdio.h>
#include <string.h>

/* --- planes in files --- */

struct ft_where ft_plane_where(const struct ft_weight *w)
{
    return (struct ft_where){.file = ft_st_path(w->file)};
}

static int module_length(const struct ft_weight *w)
{
    return (int)(strlen(w->name) - (ft_ends_with(w->name, ".weight") ? strlen(".weight") : 0));
}

const struct ft_st_entry *ft_plane_find(const struct ft_model *m, const struct ft_weight *w,
                                        const char *suffix, struct ft_st **file)
{
    char name[512];
    snprintf(name, sizeof name, "%.*s%s", module_length(w), w->name, suffix);
    return ft_model_entry(m, name, file);
}

int ft_plane_missing(const struct ft_weight *w, const char *suffix)
{
    return ft_fail_at(ft_plane_where(w), FT_EDATA,
                      "tensor '%.*s%s' is missing: the module's weight is quantised",
                      module_length(w), w->name, suffix);
}

static int wrong_size(const struct ft_weight *w, const struct ft_st *file,
                      const struct ft_st_entry *e, size_t bytes)
{
    return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                      "tensor '%s' has %zu bytes, %zu belong to a weight of %lld x %lld", e->name,
                      ft_plane_size(e), bytes, (long long)w->rows, (long long)w->cols);
}

int ft_plane_read(const struct ft_model *m, const struct ft_weight *w, const char *suffix, void *to,
                  size_t bytes)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = ft_plane_find(m, w, suffix, &file);
    if (!e)
        return ft_plane_missing(w, suffix);
    if (ft_plane_size(e) != bytes)
        return wrong_size(w, file, e, bytes);
    return to ? ft_st_read(file, e, 0, bytes, to) : FT_OK;
}

int ft_plane_finite(const struct ft_weight *w, const char *suffix, const float *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(numbers[i] - numbers[i] == 0))
            return ft_fail_at(ft_plane_where(w), FT_EDATA,
                              "tensor '%.*s%s' holds NaN or infinite values", module_length(w),
                              w->name, suffix);
    return FT_OK;
}

int ft_plane_numbers(const struct ft_model *m, const struct ft_weight *w, const char *suffix,
                     float *out, size_t n, bool scan)
{
    struct ft_st *file = NULL;
    const struct ft_st_entry *e = ft_plane_find(m, w, suffix, &file);
    char *data;
    if (!e)
        return ft_plane_missing(w, suffix);
    if (e->dtype != FT_F32 && e->dtype != FT_BF16 && e->dtype != FT_F16)
        return ft_fail_at((struct ft_where){.file = ft_st_path(file)}, FT_EDATA,
                          "tensor '%s' is %s, not F32, F16 or BF16", e->name, e->dtype_name);
    if (ft_plane_size(e) != n * ft_dtype_size(e->dtype))
        return wrong_size(w, file, e, n * ft_dtype_size(e->dtype));
    if (!out)
        return FT_OK;
    FT_TRY(ft_alloc(&data, ft_plane_size(e), 1));
    int rc = ft_st_read(file, e, 0, ft_plane_size(e), data);
    for (size_t i = 0; i < n && !rc; i++)
        out[i] = ft_element_get(data, i, e->dtype);
    ft_free(data);
    return rc || !scan ? rc : ft_plane_finite(w, suffix, out, n);
}

/* --- made while loading --- */

enum { READ_ROWS = 64 }; /* a piece's */

struct reading {
    const struct ft_model *m;
    const struct ft_weight *w;
    bool scan;
    char *to;
    _Atomic bool failed;
};

static int read_piece(const struct reading *r, int64_t piece)
{
    const int64_t from = piece * READ_ROWS, n = r->w->rows - from;
    return ft_model_read_rows(r->m, r->w, from, n < READ_ROWS ? n : READ_ROWS, !r->scan,
                              r->to + (size_t)(from * r->w->cols) * ft_dtype_size(r->w->dtype));
}

static void read_in_pool(void *arg, int64_t piece, void *scratch)
{
    struct reading *r = arg;
    (void)scratch;
    if (read_piece(r, piece))
        r->failed = true;
}

/* All rows; an error is met again on this thread, whose report counts. */
static int read_rows(struct reading *r, struct ft_pool *pool)
{
    const int64_t pieces = (r->w->rows + READ_ROWS - 1) / READ_ROWS;
    ft_pool_run(pool, pieces, read_in_pool, r);
    for (int64_t i = 0; i < pieces && r->failed; i++)
        FT_TRY(read_piece(r, i));
    return FT_OK;
}

/* The whole tensor at 16 bits (or 32), as the module multiplies with it. Caller frees. */
static int read_whole(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                      bool scan, char **out)
{
    const size_t n = (size_t)(w->rows * w->cols), bytes = n * ft_dtype_size(w->dtype);
    char *turned;
    FT_TRY(ft_alloc(out, bytes, 1));
    struct reading r = {.m = m, .w = w, .scan = scan, .to = *out};
    int rc = read_rows(&r, pool);
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

static int load_made(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                     bool scan, const struct ft_planes *q)
{
    char *data;
    FT_TRY(read_whole(m, w, pool, scan, &data));
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

/* --- the table --- */

static const struct ft_way made = {.load = load_made, .room = making_room};
static const struct ft_way *const ways[] = {&ft_bnb4_way,    &ft_bnb8_way,   &ft_fp8_way,
                                            &ft_ct_int4_way, &ft_ct_fp8_way, &ft_gptq_way,
                                            &ft_awq_way,     &ft_mxfp4_way};
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
        if (strcmp(ways[i]->method, method) == 0) {
            m->quantised = ways[i]->method;
            if (ways[i]->config)
                return ways[i]->config(m, q, file);
        }
    if (m->quantised)
        return FT_OK;
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "the weights are quantised with '%s', which ft does not read", method);
    ft_hint("use the folder of the unquantised model (F32, F16 or BF16 weights), with 'adapter: "
            "qlora' and 'load_in_4bit: true' if memory is short; ft reads those of bitsandbytes, "
            "fp8, compressed-tensors, gptq, awq and mxfp4");
    return FT_EDATA;
}

/* --- experts that the files have one by one --- */

/* One of the tensors, as a weight of its own. */
static struct ft_weight piece_of(const struct ft_weight *w, int i)
{
    struct ft_weight one = *w;
    one.name = w->pieces[i].name;
    one.file = w->pieces[i].file;
    one.entry = w->pieces[i].entry;
    one.rows = one.stored = w->piece_rows;
    one.first = one.parts = one.n_pieces = 0;
    return one;
}

static bool is_piecewise(const struct ft_weight *w)
{
    return w->n_pieces && w->way && w->way->method;
}

int ft_quantised_pieces(const struct ft_model *m, struct ft_weight *w)
{
    for (int i = 0; i < w->n_pieces; i++) {
        struct ft_weight one = piece_of(w, i);
        one.way = NULL;
        FT_TRY(ft_quantised_open(m, &one));
        if (i == 0 && !one.way)
            return FT_OK;
        if (i > 0 && (one.way != w->way || one.as != w->as || one.block != w->block))
            return ft_fail_at((struct ft_where){.file = m->folder}, FT_EDATA,
                              "tensor '%s' is not quantised as that of the first expert is",
                              one.name);
        w->way = one.way;
        w->as = one.as;
        w->block = one.block;
        w->pieces[i].file = one.file;
        w->pieces[i].entry = one.entry;
    }
    w->file = w->pieces[0].file;
    w->entry = w->pieces[0].entry;
    return FT_OK;
}

/* The planes of one tensor to the k-th place of those of an expert, which holds `each`. What is of
 * no rows is the same in all. */
static int put_piece(const struct ft_weight *w, const struct ft_planes *from, int k, int64_t each,
                     const struct ft_planes *to)
{
    const struct ft_tensor small = ft_weight_tensor(w);
    struct ft_tensor large = small;
    size_t part[FT_PLANES], all[FT_PLANES];
    large.rows *= each;
    ft_plane_bytes(&small, part);
    ft_plane_bytes(&large, all);
    for (int i = 0; i < FT_PLANES; i++) {
        const bool by_rows = all[i] == (size_t)each * part[i];
        const size_t row = part[i] / (size_t)w->rows;
        if (part[i] && by_rows && w->by_turns)
            for (int64_t r = 0; r < w->rows; r++)
                memcpy((char *)to->p[i] + (size_t)(r * each + k) * row,
                       (char *)from->p[i] + (size_t)r * row, row);
        else if (part[i] && (by_rows || k == 0))
            memcpy((char *)to->p[i] + (by_rows ? (size_t)k * part[i] : 0), from->p[i], part[i]);
        else if (part[i] && (all[i] != part[i] || memcmp(to->p[i], from->p[i], part[i]) != 0))
            return ft_fail_at(ft_plane_where(w), FT_EDATA,
                              "tensor '%s' has other groups or blocks than the one that an expert "
                              "multiplies with beside it",
                              w->name);
    }
    return FT_OK;
}

/* The tensors of an expert, each for itself. */
static int load_pieces(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                       bool scan, const struct ft_planes *q)
{
    const int64_t each = w->rows / w->piece_rows;
    char *planes;
    int rc = FT_OK;
    for (int k = 0; k < each && !rc; k++) {
        const struct ft_weight one = piece_of(w, (int)(w->first / w->piece_rows) + k);
        struct ft_tensor t = ft_weight_tensor(&one);
        FT_TRY(ft_alloc(&planes, ft_planes_of(&t).bytes, 1));
        t.data = planes;
        const struct ft_planes from = ft_planes_of(&t);
        rc = w->way->load(m, &one, pool, scan, &from);
        if (!rc)
            rc = put_piece(&one, &from, k, each, q);
        ft_free(planes);
    }
    return rc;
}

static int load_planes(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                       bool scan, const struct ft_planes *q)
{
    return is_piecewise(w) ? load_pieces(m, w, pool, scan, q) : w->way->load(m, w, pool, scan, q);
}

int ft_quantised_open(const struct ft_model *m, struct ft_weight *w)
{
    struct ft_st *file = NULL;
    for (int i = 0; i < WAYS && m->quantised && w->cols; i++) {
        const struct ft_way *way = ways[i];
        if (strcmp(way->method, m->quantised) != 0 || !ft_plane_find(m, w, way->mark, &file))
            continue;
        const struct ft_st_entry *e = ft_plane_find(m, w, way->codes, &w->file);
        if (!e) {
            w->file = file;
            return ft_plane_missing(w, way->codes);
        }
        w->entry = e;
        w->way = way;
        return way->open(m, w);
    }
    return FT_OK;
}

static bool is_plane_of(const struct ft_weight *w, const char *name)
{
    const size_t n = (size_t)module_length(w);
    for (int k = 0; k < 8 && w->way->planes[k] && strncmp(name, w->name, n) == 0; k++)
        if (strcmp(name + n, w->way->planes[k]) == 0)
            return true;
    return false;
}

/* Whether the name begins as those of all the weight's tensors do. */
static bool is_near(const struct ft_weight *w, const char *name)
{
    const char *first = w->pieces[0].name, *last = w->pieces[w->n_pieces - 1].name;
    size_t n = 0;
    while (first[n] && first[n] == last[n])
        n++;
    return strncmp(name, first, n) == 0;
}

bool ft_quantised_plane(const struct ft_model *m, const char *name)
{
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        if (!w->way || !w->way->method)
            continue;
        if (!w->n_pieces && is_plane_of(w, name))
            return true;
        for (int k = 0; w->n_pieces && is_near(w, name) && k < w->n_pieces; k++) {
            const struct ft_weight one = piece_of(w, k);
            if (is_plane_of(&one, name))
                return true;
        }
    }
    return false;
}

/* As transformers: the beginning of a module's name, or its end. */
static bool is_skipped(const struct ft_weight *w, const char *const *skip)
{
    const size_t end = ft_ends_with(w->path, ".weight") ? strlen(".weight") : 0;
    const size_t n = strlen(w->path) - end;
    for (; skip && *skip; skip++) {
        const size_t k = strlen(*skip);
        if (k <= n && (strncmp(w->path, *skip, k) == 0 || strncmp(w->path + n - k, *skip, k) == 0))
            return true;
    }
    return false;
}

/* Whether it is one of those that become so. */
static bool is_meant(const struct ft_weight *w, const struct ft_quantisation *o)
{
    return (w->kind == FT_W_LINEAR || (w->kind == FT_W_EXPERTS && o->experts)) &&
           !is_skipped(w, o->skip);
}

/* What it becomes. */
static void quantise_weight(struct ft_weight *w, const struct ft_quantisation *o)
{
    w->way = &made;
    w->as = o->bits == 8 ? FT_INT8_ROWS : o->nested ? FT_BNB4_NESTED : FT_BNB4;
    w->block = o->bits == 8 ? 0 : 64;
    w->fp4 = o->fp4;
}

static bool is_of(enum ft_dtype is, int bits)
{
    return bits == 8 ? is == FT_INT8_ROWS : is == FT_BNB4 || is == FT_BNB4_NESTED;
}

int ft_model_quantise(struct ft_model *m, const struct ft_quantisation *o)
{
    if (!o->bits)
        return FT_OK;
    if (ft_model_is_quantised(m)) {
        int other = 0;
        for (int i = 0; i < m->n_weights; i++)
            other += m->weights[i].way && !is_of(m->weights[i].as, o->bits);
        if (!other)
            return FT_OK; /* that is what it is */
        ft_fail_at((struct ft_where){.file = m->folder}, FT_EDATA,
                   "%d bits are asked for, but the model's weights are quantised already, with "
                   "others",
                   o->bits);
        ft_hint("'%s: false' trains on them as they are",
                o->bits == 8 ? "load_in_8bit" : "load_in_4bit");
        return FT_EDATA;
    }
    for (int i = 0; i < m->n_weights; i++) {
        struct ft_weight *w = &m->weights[i];
        if (is_meant(w, o))
            quantise_weight(w, o);
    }
    return FT_OK;
}

size_t ft_model_bytes_as(const struct ft_model *m, const struct ft_quantisation *o, bool device)
{
    size_t sum = 0, widest = 0;
    for (int i = 0; i < m->n_weights; i++) {
        struct ft_weight w = m->weights[i];
        const size_t n = (size_t)(w.rows * (w.cols ? w.cols : 1));
        if (w.way && w.way->method)
            return 0;
        if (!o->bits || !is_meant(&w, o)) {
            sum += n * (device ? 2 : ft_dtype_size(w.dtype));
            continue;
        }
        quantise_weight(&w, o);
        const struct ft_tensor t = ft_weight_tensor(&w);
        sum += ft_tensor_bytes(&t);
        widest = 2 * n > widest && !w.parts ? 2 * n : widest;
    }
    return sum + (device ? widest : 0);
}

bool ft_model_is_quantised(const struct ft_model *m)
{
    for (int i = 0; i < m->n_weights; i++)
        if (m->weights[i].way)
            return true;
    return false;
}

/* One of the matrices that are quantised each for itself. */
static struct ft_weight part_of(const struct ft_weight *w, int i)
{
    struct ft_weight one = *w;
    if (!w->parts)
        return one;
    one.rows = one.stored = w->rows / w->parts;
    one.first = i * one.rows;
    one.parts = 1;
    return one;
}

static int count_parts(const struct ft_weight *w)
{
    return w->parts ? w->parts : 1;
}

size_t ft_quantised_room(const struct ft_model *m, bool device)
{
    size_t most = 0;
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        if (!w->way)
            continue;
        const struct ft_weight one = part_of(w, 0);
        const struct ft_tensor t = ft_weight_tensor(&one);
        const size_t need = (w->way->room ? w->way->room(&one) : 0) +
                            (device + is_piecewise(w)) * ft_planes_of(&t).bytes;
        most = need > most ? need : most;
    }
    return most;
}

/* On a device the planes are made here, and sent. */
static int load_part(const struct ft_model *m, const struct ft_weight *whole, int part,
                     struct ft_graph *g, struct ft_pool *pool, bool scan)
{
    const struct ft_weight one = part_of(whole, part), *w = &one;
    struct ft_tensor t = ft_tensor_part(*w->slot, count_parts(whole), part);
    if (!ft_graph_backend(g)->dev) {
        const struct ft_planes q = ft_planes_of(&t);
        return load_planes(m, w, pool, scan, &q);
    }
    char *host;
    FT_TRY(ft_alloc(&host, ft_tensor_bytes(&t), 1));
    t.data = host;
    const struct ft_planes q = ft_planes_of(&t);
    int rc = load_planes(m, w, pool, scan, &q);
    if (!rc)
        rc = ft_graph_write_part(g, *w->slot, (size_t)part * ft_tensor_bytes(&t), host,
                                 ft_tensor_bytes(&t));
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
        for (int part = 0; part < count_parts(w); part++)
            FT_TRY(load_part(m, w, part, g, pool, scan));
        done += ft_quantised_bytes(w);
        if (progress)
            progress(ctx, done, total);
    }
    return FT_OK;
}

/* One part. */
static int read_part(const struct ft_model *m, const struct ft_weight *w, bool scan, float *out)
{
    const struct ft_backend *cpu; /* every instruction set gives the same bits */
    struct ft_tensor t = ft_weight_tensor(w);
    struct ft_pool *pool = NULL;
    char *planes = NULL;
    int rc = ft_cpu_backend(&cpu, "auto", false);
    if (!rc)
        rc = ft_pool_new(&pool, 1);
    if (!rc)
        rc = ft_alloc(&planes, ft_planes_of(&t).bytes, 1);
    t.data = planes;
    const struct ft_planes q = ft_planes_of(&t);
    if (!rc)
        rc = load_planes(m, w, pool, scan, &q);
    for (int64_t row = 0; row < w->rows && !rc; row++)
        cpu->widen_row(out + row * w->cols, &t, row);
    ft_free(planes);
    ft_pool_free(pool);
    return rc;
}

int ft_quantised_read(const struct ft_model *m, const struct ft_weight *w, bool scan, float *out)
{
    for (int part = 0; part < count_parts(w); part++) {
        const struct ft_weight one = part_of(w, part);
        FT_TRY(read_part(m, &one, scan, out + one.first * w->cols));
    }
    return FT_OK;
}

uint64_t ft_quantised_bytes(const struct ft_weight *w)
{
    if (w->parts)
        return (uint64_t)(w->rows * w->cols) * ft_dtype_size(w->dtype);
    return w->entry ? ft_plane_size(w->entry) : (size_t)(w->rows * w->cols) * 2;
}
