/* Loads a model's weights, or makes them. */
#include "core/quant.h"
#include "model/internal.h"

#include "core/text.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { CHUNK = 4 << 20, HOST_ROUND = 64, DEVICE_ROUND = 8 };

/* Weights are read in chunks of whole rows, a round of chunks at a time by all threads. On a device
 * a round lands in one of two staging buffers, whose content is on its way while the next is read.
 */
struct load {
    const struct ft_model *m;
    const int64_t *first_chunk; /* of each weight, and the total behind */
    int64_t base;               /* first chunk of this round */
    char *staging;              /* this round's buffer; NULL: straight to the weight's place */
    size_t slot;                /* bytes of a chunk's place in it */
    bool scan;
    _Atomic int64_t failed, nonfinite; /* a chunk, or -1 */
};

static int64_t row_elements(const struct ft_weight *w)
{
    return w->cols ? w->cols : w->rows;
}

static int64_t chunk_rows(const struct ft_weight *w)
{
    int64_t n = CHUNK / (row_elements(w) * (int64_t)ft_dtype_size(w->dtype));
    return n > 0 ? n : 1;
}

/* The largest chunk: more than CHUNK only where a single row is. */
static size_t chunk_bytes(const struct ft_model *m)
{
    size_t most = CHUNK;
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        size_t row = (size_t)row_elements(w) * ft_dtype_size(w->dtype);
        most = row > most ? row : most;
    }
    return most;
}

/* Matrices that are turned each for itself. */
static int count_parts(const struct ft_weight *w)
{
    return w->parts ? w->parts : 1;
}

/* A weight that the file holds transposed is turned in memory of its own, as it lies and as it
 * will.
 */
static size_t turning_bytes(const struct ft_weight *w)
{
    return (size_t)(w->rows * w->cols) / (size_t)count_parts(w) * ft_dtype_size(w->dtype);
}

size_t ft_model_loading(const struct ft_model *m, bool device)
{
    size_t most = ft_quantised_room(m, device);
    for (int i = 0; i < m->n_weights; i++)
        if (m->weights[i].transposed && !m->weights[i].way &&
            2 * turning_bytes(&m->weights[i]) > most)
            most = 2 * turning_bytes(&m->weights[i]);
    return most;
}

size_t ft_model_staging(const struct ft_model *m)
{
    return (size_t)2 * DEVICE_ROUND * chunk_bytes(m);
}

static int64_t row_count(const struct ft_weight *w)
{
    return w->cols ? w->stored : 1;
}

static bool all_finite(const void *data, size_t n, enum ft_dtype dtype)
{
    uint32_t bad = 0;
    if (dtype == FT_F32) {
        const uint32_t *p = data;
        for (size_t i = 0; i < n; i++)
            bad |= (p[i] & 0x7f800000u) == 0x7f800000u;
    } else {
        const uint16_t *p = data, mask = dtype == FT_BF16 ? 0x7f80 : 0x7c00;
        for (size_t i = 0; i < n; i++)
            bad |= (p[i] & mask) == mask;
    }
    return !bad;
}

/* In place, from the front: an element never grows. */
static void to_bf16(void *data, size_t n, enum ft_dtype from)
{
    uint16_t *out = data;
    if (from == FT_F16) {
        for (size_t i = 0; i < n; i++)
            out[i] = ft_f32_to_bf16(ft_f16_to_f32(out[i]));
    } else if (from == FT_F32) {
        for (size_t i = 0; i < n; i++) {
            float f;
            memcpy(&f, (const char *)data + i * sizeof f, sizeof f);
            out[i] = ft_f32_to_bf16(f);
        }
    }
}

/* Weights of a model that is no more than a shape: norms 1, the rest uniform with the variance that
 * keeps activations at 1; the same for any number of threads. */
static void make_rows(const struct ft_weight *w, int64_t row, int64_t rows, uint16_t *to)
{
    const int64_t cols = row_elements(w);
    const float bound = sqrtf(3.f / (float)cols);
    const bool bias = ft_ends_with(w->name, ".bias");
    for (int64_t r = row; r < row + rows; r++) {
        uint32_t state = ((uint32_t)r * 2654435761u) ^ (uint32_t)(w->rows * 31 + w->cols);
        for (int64_t c = 0; c < cols; c++, to++) {
            state = state * 1664525u + 1013904223u;
            float v = (float)(int32_t)state * 0x1p-31f * bound;
            *to = ft_f32_to_bf16(w->cols ? v : bias ? 0 : 1);
        }
    }
}

static const struct ft_weight *weight_of(const struct load *l, int64_t chunk, int64_t *row,
                                         int64_t *rows)
{
    int lo = 0, hi = l->m->n_weights - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (l->first_chunk[mid] <= chunk)
            lo = mid;
        else
            hi = mid - 1;
    }
    const struct ft_weight *w = &l->m->weights[lo];
    *row = (chunk - l->first_chunk[lo]) * chunk_rows(w);
    *rows = row_count(w) - *row < chunk_rows(w) ? row_count(w) - *row : chunk_rows(w);
    return w;
}

/* Rows in GGUF's blocks, widened. */
static int read_blocks(const struct ft_model *m, const struct ft_weight *w, int64_t first,
                       int64_t count, float *to)
{
    const size_t row = (size_t)(w->entry->end - w->entry->begin) / (size_t)w->stored;
    char *blocks;
    FT_TRY(ft_alloc(&blocks, row, 1));
    int rc = FT_OK;
    for (int64_t i = 0; i < count && !rc; i++) {
        rc =
            ft_st_read(w->file, w->entry, ft_gguf_row(m, w, first + i) * (int64_t)row, row, blocks);
        if (!rc)
            ft_gguf_widen(to + i * w->cols, w->entry->dtype, blocks, w->cols);
    }
    ft_free(blocks);
    return rc;
}

/* Rows of an expert's gate and up by turns. */
static int read_turns(const struct ft_weight *w, int64_t first, int64_t count, char *to)
{
    const size_t row = (size_t)w->cols * ft_dtype_size(w->dtype);
    for (int64_t at = w->first + first; count > 0; at++, count--, to += row) {
        const struct ft_piece *p = &w->pieces[at / (2 * w->piece_rows) * 2 + at % 2];
        FT_TRY(ft_st_read(p->file, p->entry, at / 2 % w->piece_rows * (int64_t)row, row, to));
    }
    return FT_OK;
}

/* Rows whose numbers are by turns those of two tensors. */
static int read_pairs(const struct ft_weight *w, int64_t first, int64_t count, char *to)
{
    const size_t size = ft_dtype_size(w->dtype), half = (size_t)w->cols / 2;
    char *row;
    FT_TRY(ft_alloc(&row, half, size));
    int rc = FT_OK;
    for (int64_t i = 0; i < 2 * count && !rc; i++) {
        const struct ft_piece *p = &w->pieces[i % 2];
        rc = ft_st_read(p->file, p->entry, (first + i / 2) * (int64_t)(half * size), half * size,
                        row);
        char *at = to + ((size_t)(i / 2) * 2 * half + (size_t)(i % 2)) * size;
        for (size_t k = 0; k < half && !rc; k++)
            memcpy(at + 2 * k * size, row + k * size, size);
    }
    ft_free(row);
    return rc;
}

/* Rows of a weight of experts, which may lie in tensors of their own. */
static int read_experts(const struct ft_weight *w, int64_t first, int64_t count, char *to)
{
    const size_t row = (size_t)w->cols * ft_dtype_size(w->dtype);
    const int64_t begin = w->first + first, end = begin + count;
    if (w->n_pieces && w->by_turns)
        return read_turns(w, first, count, to);
    const int64_t step = w->n_pieces ? w->piece_rows : end;
    for (int64_t at = begin, next; at < end; at = next) {
        const struct ft_piece *p = w->n_pieces ? &w->pieces[at / step] : NULL;
        next = (at / step + 1) * step < end ? (at / step + 1) * step : end;
        FT_TRY(ft_st_read(p ? p->file : w->file, p ? p->entry : w->entry, at % step * (int64_t)row,
                          (size_t)(next - at) * row, to + (size_t)(at - begin) * row));
    }
    return FT_OK;
}

/* Rows of a weight's file as they belong. */
static int read_file(const struct ft_model *m, const struct ft_weight *w, int64_t first,
                     int64_t count, char *to)
{
    const size_t size =
        (size_t)(w->entry->end - w->entry->begin) / (size_t)(w->cols ? w->stored : w->rows);
    const size_t row = w->cols ? size : size * (size_t)w->rows;
    int rc = FT_OK;
    if (w->parts)
        return read_experts(w, first, count, to);
    if (w->by_turns)
        return read_pairs(w, first, count, to);
    if (ft_is_quant(w->entry->dtype))
        return read_blocks(m, w, first, count, (float *)to);
    if (w->order == FT_IN_ORDER)
        return ft_st_read(w->file, w->entry, first * (int64_t)row, (size_t)count * row, to);
    /* rows, or the elements of a bias, which are read one by one */
    const int64_t n = w->cols ? count : w->rows, from = w->cols ? first : 0;
    for (int64_t i = 0; i < n && !rc; i++)
        rc = ft_st_read(w->file, w->entry, ft_gguf_row(m, w, from + i) * (int64_t)size, size,
                        to + (size_t)i * size);
    return rc;
}

static void load_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    struct load *l = arg;
    int64_t row, rows, chunk = l->base + piece;
    const struct ft_weight *w = weight_of(l, chunk, &row, &rows);
    const struct ft_tensor *t = *w->slot;
    size_t n = (size_t)(rows * row_elements(w)), size = ft_dtype_size(w->dtype);
    size_t row_bytes = (size_t)row_elements(w) * size;
    char *to = l->staging ? l->staging + (size_t)piece * l->slot
                          : (char *)t->data + (size_t)row * row_bytes;
    if (!w->file)
        make_rows(w, row, rows, (uint16_t *)to);
    else if (read_file(l->m, w, row, rows, to))
        atomic_store(&l->failed, chunk);
    else if (l->scan && !all_finite(to, n, w->dtype))
        atomic_store(&l->nonfinite, chunk);
    else if (t->dtype != w->dtype)
        to_bf16(to, n, w->dtype);
}

/* Queues the copies of a round that lies in the staging buffer. */
static int send_round(const struct load *l, const struct ft_backend *b, int64_t chunks)
{
    for (int64_t i = 0; i < chunks; i++) {
        int64_t row, rows;
        const struct ft_weight *w = weight_of(l, l->base + i, &row, &rows);
        const struct ft_tensor *t = *w->slot;
        const size_t size = ft_dtype_size(t->dtype), bytes = (size_t)t->cols * size;
        const size_t pitch = (size_t)ft_tensor_ld(t) * size;
        if (b->dev->copy_in(b, (char *)t->data + (size_t)row * pitch, pitch,
                            l->staging + (size_t)i * l->slot, bytes, bytes, (size_t)rows))
            return -1;
    }
    return 0;
}

static int load_failed(const struct ft_weight *w, bool unread)
{
    const struct ft_where at = {.file = ft_st_path(w->file)};
    if (unread)
        return ft_fail_at(at, FT_ERESOURCE,
                          "tensor '%s' cannot be read: the file has changed or "
                          "the disk has failed",
                          w->name);
    ft_fail_at(at, FT_EDATA, "tensor '%s' holds NaN or infinite values", w->name);
    ft_hint("the file is damaged; download it again, or set 'allow_nonfinite_weights: true'");
    return FT_EDATA;
}

static int load_rounds(struct load *l, struct ft_graph *g, struct ft_pool *pool, char *buffers,
                       int64_t chunks, uint64_t total, ft_model_progress_fn *progress, void *ctx)
{
    const struct ft_backend *b = ft_graph_backend(g);
    const int64_t round = buffers ? DEVICE_ROUND : HOST_ROUND;
    int turn = 0;
    for (; l->base < chunks; l->base += round, turn ^= 1) {
        int64_t n = chunks - l->base < round ? chunks - l->base : round;
        if (buffers) {
            l->staging = buffers + (size_t)turn * DEVICE_ROUND * l->slot;
            if (b->dev->wait(b, turn))
                return ft_graph_device_failed(g);
        }
        ft_pool_run(pool, n, load_piece, l);
        if (l->failed >= 0 || l->nonfinite >= 0) {
            int64_t row, rows, chunk = l->failed >= 0 ? l->failed : l->nonfinite;
            return load_failed(weight_of(l, chunk, &row, &rows), l->failed >= 0);
        }
        if (buffers && (send_round(l, b, n) || b->dev->mark(b, turn)))
            return ft_graph_device_failed(g);
        if (progress)
            progress(ctx, (uint64_t)(l->base + n) * CHUNK, total);
    }
    return buffers && b->dev->sync(b) ? ft_graph_device_failed(g) : FT_OK;
}

/* to (rows, cols) from its transpose, elements of `size` bytes */
void ft_model_turn(char *to, const char *from, int64_t rows, int64_t cols, size_t size)
{
    enum { BLOCK = 64 };
    for (int64_t r0 = 0; r0 < rows; r0 += BLOCK)
        for (int64_t c = 0; c < cols; c++)
            for (int64_t r = r0; r < rows && r < r0 + BLOCK; r++)
                memcpy(to + (size_t)(r * cols + c) * size, from + (size_t)(c * rows + r) * size,
                       size);
}

/* A weight whose file has (cols, rows), or one of its parts. */
static int load_turned(const struct ft_weight *w, int part, struct ft_graph *g, bool scan)
{
    const struct ft_backend *b = ft_graph_backend(g);
    const struct ft_tensor one = ft_tensor_part(*w->slot, count_parts(w), part), *t = &one;
    const size_t bytes = turning_bytes(w), n = (size_t)(one.rows * one.cols);
    char *from;
    FT_TRY(ft_alloc(&from, 2 * bytes, 1));
    char *to = from + bytes;
    int rc = FT_OK;
    if (ft_st_read(w->file, w->entry, part * (int64_t)bytes, bytes, from))
        rc = load_failed(w, true);
    else if (scan && !all_finite(from, n, w->dtype))
        rc = load_failed(w, false);
    if (!rc) {
        ft_model_turn(to, from, one.rows, one.cols, ft_dtype_size(w->dtype));
        if (t->dtype != w->dtype)
            to_bf16(to, n, w->dtype);
        const size_t row = (size_t)w->cols * ft_dtype_size(t->dtype);
        const size_t pitch = (size_t)ft_tensor_ld(t) * ft_dtype_size(t->dtype);
        for (int64_t r = 0; r < one.rows && !b->dev; r++)
            memcpy((char *)t->data + (size_t)r * pitch, to + (size_t)r * row, row);
        if (b->dev &&
            (b->dev->copy_in(b, t->data, pitch, to, row, row, (size_t)one.rows) || b->dev->sync(b)))
            rc = ft_graph_device_failed(g);
    }
    ft_free(from);
    return rc;
}

static bool is_turned(const struct ft_weight *w)
{
    return w->transposed && w->file && !w->way;
}

static int load_all_turned(const struct ft_model *m, struct ft_graph *g, bool scan)
{
    for (int i = 0; i < m->n_weights; i++)
        for (int part = 0; part < count_parts(&m->weights[i]); part++)
            if (is_turned(&m->weights[i]) && !m->weights[i].elsewhere)
                FT_TRY(load_turned(&m->weights[i], part, g, scan));
    return FT_OK;
}

/* Chunks of a weight; one that is turned or quantised has none, and is loaded whole. */
static int64_t chunk_count(const struct ft_weight *w)
{
    const int64_t step = chunk_rows(w);
    return is_turned(w) || w->way || w->elsewhere ? 0 : (row_count(w) + step - 1) / step;
}

int ft_model_read_rows(const struct ft_model *m, const struct ft_weight *w, int64_t first,
                       int64_t count, bool allow_nonfinite, char *data)
{
    const size_t n = (size_t)(count * row_elements(w));
    if (!w->file)
        make_rows(w, first, count, (uint16_t *)data);
    else if (read_file(m, w, first, count, data))
        return load_failed(w, true);
    else if (!allow_nonfinite && !all_finite(data, n, w->dtype))
        return load_failed(w, false);
    return FT_OK;
}

/* The mean of the rows that the file has, as a row of its dtype. */
static int mean_row(const struct ft_model *m, const struct ft_weight *w, float *out)
{
    const size_t cols = (size_t)row_elements(w);
    double *sums;
    char *row;
    FT_TRY(ft_alloc(&sums, cols, sizeof *sums));
    int rc = ft_alloc(&row, cols, ft_dtype_size(w->dtype));
    for (int64_t r = 0; r < w->stored && !rc; r++) {
        rc = ft_model_read_rows(m, w, r, 1, true, row);
        for (size_t c = 0; c < cols && !rc; c++)
            sums[c] += (double)ft_element_get(row, c, w->dtype);
    }
    for (size_t c = 0; c < cols && !rc; c++) {
        ft_element_put(row, c, w->dtype, (float)(sums[c] / (double)w->stored));
        out[c] = ft_element_get(row, c, w->dtype);
    }
    ft_free(row);
    ft_free(sums);
    return rc;
}

int ft_model_weight_rows(const struct ft_model *m, int i, int64_t first, int64_t count,
                         bool allow_nonfinite, float *out)
{
    const struct ft_weight *w = &m->weights[i];
    const int64_t cols = row_elements(w), end = first + count;
    const int64_t there = first >= row_count(w) ? 0
                          : end < row_count(w)  ? count
                                                : row_count(w) - first;
    char *data;
    FT_ASSERT(!w->transposed || !w->file);
    FT_TRY(ft_alloc(&data, (size_t)(there * cols), ft_dtype_size(w->dtype)));
    int rc = there ? ft_model_read_rows(m, w, first, there, allow_nonfinite, data) : FT_OK;
    for (size_t k = 0; k < (size_t)(there * cols) && !rc; k++)
        out[k] = ft_element_get(data, k, w->dtype);
    ft_free(data);
    if (!rc && there < count)
        rc = mean_row(m, w, out + there * cols);
    for (int64_t r = there + 1; r < count && !rc; r++)
        memcpy(out + r * cols, out + there * cols, (size_t)cols * sizeof *out);
    return rc;
}

/* The rows that the file does not have, where the graph has placed the weight. */
static int load_new_rows(const struct ft_model *m, int i, struct ft_graph *g)
{
    const struct ft_weight *w = &m->weights[i];
    struct ft_tensor *t = *w->slot;
    float *row;
    if (w->stored == w->rows || w->elsewhere)
        return FT_OK;
    const size_t cols = (size_t)row_elements(w), size = ft_dtype_size(t->dtype);
    FT_TRY(ft_alloc(&row, cols, sizeof *row));
    int rc = ft_model_weight_rows(m, i, w->stored, 1, true, row);
    for (size_t c = 0; c < cols && !rc && t->dtype != FT_F32; c++)
        ft_element_put(row, c, t->dtype, row[c]); /* never ahead of what is read */
    for (int64_t r = w->stored; r < w->rows && !rc; r++)
        rc = ft_graph_write_part(g, t, (size_t)(r * ft_tensor_ld(t)) * size, row, cols * size);
    ft_free(row);
    return rc;
}

int ft_model_weight_read(const struct ft_model *m, int i, bool allow_nonfinite, float *out)
{
    const struct ft_weight *w = &m->weights[i];
    if (w->way)
        return ft_quantised_read(m, w, !allow_nonfinite, out);
    const size_t n = (size_t)(row_count(w) * row_elements(w));
    const size_t rows = (size_t)w->rows, cols = (size_t)(w->cols ? w->cols : 1);
    char *data;
    if (!w->transposed || !w->file)
        return ft_model_weight_rows(m, i, 0, row_count(w), allow_nonfinite, out);
    FT_TRY(ft_alloc(&data, n, ft_dtype_size(w->dtype)));
    int rc = ft_model_read_rows(m, w, 0, row_count(w), allow_nonfinite, data);
    const size_t one = rows / (size_t)count_parts(w), part = one * cols;
    for (size_t k = 0; k < n && !rc; k++)
        out[k / part * part + k % part % one * cols + k % part / one] =
            ft_element_get(data, k, w->dtype);
    ft_free(data);
    return rc;
}

int ft_model_load(struct ft_model *m, struct ft_graph *g, struct ft_pool *pool,
                  bool allow_nonfinite, ft_model_progress_fn *progress, void *ctx)
{
    const struct ft_backend *b = ft_graph_backend(g);
    int64_t *first, at = 0;
    void *buffers = NULL;
    FT_TRY(ft_alloc(&first, (size_t)m->n_weights + 1, sizeof *first));
    for (int i = 0; i < m->n_weights; i++) {
        first[i] = at;
        at += chunk_count(&m->weights[i]);
    }
    struct load l = {
        .m = m, .first_chunk = first, .scan = !allow_nonfinite, .slot = chunk_bytes(m)};
    uint64_t total = (uint64_t)at * CHUNK;
    for (int i = 0; i < m->n_weights; i++)
        total += m->weights[i].way ? ft_quantised_bytes(&m->weights[i]) : 0;
    l.failed = l.nonfinite = -1;
    int rc = FT_OK;
    if (b->dev && b->dev->host_alloc(b, &buffers, ft_model_staging(m)))
        rc = ft_graph_device_failed(g);
    if (!rc)
        rc = load_rounds(&l, g, pool, buffers, at, total, progress, ctx);
    if (!rc)
        rc = ft_quantised_load(m, g, pool, l.scan, progress, ctx, (uint64_t)at * CHUNK, total);
    if (!rc)
        rc = load_all_turned(m, g, l.scan);
    for (int i = 0; i < m->n_weights && !rc; i++)
        rc = load_new_rows(m, i, g);
    if (buffers) {
        b->dev->sync(b); /* after a failure, copies may still be on their way */
        b->dev->host_free(b, buffers);
    }
    ft_free(first);
    return rc;
}
