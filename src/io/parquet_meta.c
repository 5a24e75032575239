/* Reads the footer of a Parquet file: schema, row groups, where each column's pages lie. */
#include "io/parquet_meta.h"

#include "core/file.h"
#include "io/thrift.h"

#include <string.h>

enum { MOST_NODES = 1 << 16, MOST_FOOTER = 1 << 28, MOST_LEVEL = 32 };

static int damaged(const char *path, const char *what)
{
    return ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "is a damaged Parquet file: %s",
                      what);
}

/* --- the schema --- */

/* An element as it stands in the list. */
struct element {
    const char *name;
    size_t name_n;
    int64_t type, size, repetition, children, converted, scale;
    enum ft_parquet_meaning logical;
    int digits;
};

/* Field 1 of DECIMAL. */
static int64_t read_scale(struct ft_thrift *t, int64_t otherwise)
{
    struct ft_thrift_field f = {0};
    while (ft_thrift_next(t, &f))
        if (f.id == 1 && f.type == FT_THRIFT_I32)
            otherwise = ft_thrift_int(t);
        else
            ft_thrift_skip(t, f.type);
    return otherwise;
}

/* The unit of TIME and TIMESTAMP, as digits of a second. */
static int read_unit(struct ft_thrift *t)
{
    struct ft_thrift_field f = {0}, unit = {0};
    int digits = 3;
    while (ft_thrift_next(t, &f)) {
        if (f.id != 2 || f.type != FT_THRIFT_STRUCT) {
            ft_thrift_skip(t, f.type);
            continue;
        }
        while (ft_thrift_next(t, &unit)) {
            digits = 3 * unit.id; /* 1: milliseconds, 2: microseconds, 3: nanoseconds */
            ft_thrift_skip(t, unit.type);
        }
    }
    return digits;
}

static bool read_signed(struct ft_thrift *t)
{
    struct ft_thrift_field f = {0};
    bool is_signed = true;
    while (ft_thrift_next(t, &f)) {
        if (f.id == 2)
            is_signed = ft_thrift_bool(&f);
        ft_thrift_skip(t, f.type);
    }
    return is_signed;
}

static void read_logical(struct ft_thrift *t, struct element *e)
{
    static const enum ft_parquet_meaning meanings[16] = {
        [1] = FT_PQ_TEXT,    [2] = FT_PQ_MAP,   [3] = FT_PQ_LIST, [4] = FT_PQ_TEXT,
        [5] = FT_PQ_DECIMAL, [6] = FT_PQ_DATE,  [7] = FT_PQ_TIME, [8] = FT_PQ_TIMESTAMP,
        [12] = FT_PQ_TEXT,   [14] = FT_PQ_UUID, [15] = FT_PQ_HALF};
    struct ft_thrift_field f = {0};
    while (ft_thrift_next(t, &f)) {
        if (f.id > 0 && f.id < 16)
            e->logical = meanings[f.id];
        if (f.type == FT_THRIFT_STRUCT && (f.id == 7 || f.id == 8))
            e->digits = read_unit(t);
        else if (f.type == FT_THRIFT_STRUCT && f.id == 5)
            e->scale = read_scale(t, e->scale);
        else if (f.type == FT_THRIFT_STRUCT && f.id == 10)
            e->logical = read_signed(t) ? FT_PQ_PLAIN : FT_PQ_UNSIGNED;
        else
            ft_thrift_skip(t, f.type);
    }
}

/* The older words for the same. */
static void read_converted(struct element *e)
{
    static const struct {
        enum ft_parquet_meaning meaning;
        int digits;
    } meanings[] = {
        [0] = {FT_PQ_TEXT, 0},       [1] = {FT_PQ_MAP, 0},       [3] = {FT_PQ_LIST, 0},
        [4] = {FT_PQ_TEXT, 0},       [5] = {FT_PQ_DECIMAL, 0},   [6] = {FT_PQ_DATE, 0},
        [7] = {FT_PQ_TIME, 3},       [8] = {FT_PQ_TIME, 6},      [9] = {FT_PQ_TIMESTAMP, 3},
        [10] = {FT_PQ_TIMESTAMP, 6}, [11] = {FT_PQ_UNSIGNED, 0}, [12] = {FT_PQ_UNSIGNED, 0},
        [13] = {FT_PQ_UNSIGNED, 0},  [14] = {FT_PQ_UNSIGNED, 0}, [19] = {FT_PQ_TEXT, 0}};
    if (e->logical != FT_PQ_PLAIN || e->converted < 0 ||
        e->converted >= (int64_t)(sizeof meanings / sizeof *meanings))
        return;
    e->logical = meanings[e->converted].meaning;
    e->digits = meanings[e->converted].digits;
}

static void read_element(struct ft_thrift *t, struct element *e)
{
    struct ft_thrift_field f = {0};
    *e = (struct element){.name = "", .type = -1, .converted = -1};
    while (ft_thrift_next(t, &f)) {
        int64_t *number = f.id == 1   ? &e->type
                          : f.id == 2 ? &e->size
                          : f.id == 3 ? &e->repetition
                          : f.id == 5 ? &e->children
                          : f.id == 6 ? &e->converted
                          : f.id == 7 ? &e->scale
                                      : NULL;
        if (number && f.type == FT_THRIFT_I32)
            *number = ft_thrift_int(t);
        else if (f.id == 4 && f.type == FT_THRIFT_BINARY)
            e->name = ft_thrift_binary(t, &e->name_n);
        else if (f.id == 10 && f.type == FT_THRIFT_STRUCT)
            read_logical(t, e);
        else
            ft_thrift_skip(t, f.type);
    }
    read_converted(e);
}

/* The node of an element, with the levels of its parent. */
static int make_node(struct ft_parquet_meta *m, struct ft_parquet_node *n, const struct element *e,
                     const struct ft_parquet_node *parent, const char *path)
{
    *n = (struct ft_parquet_node){.name =
                                      ft_arena_format(&m->arena, "%.*s", (int)e->name_n, e->name),
                                  .next = -1,
                                  .optional = parent && e->repetition == 1,
                                  .repeated = parent && e->repetition == 2,
                                  .meaning = e->logical,
                                  .scale = (int)e->scale,
                                  .column = m->n_columns,
                                  .type = (enum ft_parquet_type)e->type,
                                  .size = (int)e->size};
    n->def = (parent ? parent->def : 0) + (n->optional || n->repeated);
    n->rep = (parent ? parent->rep : 0) + n->repeated;
    if (e->logical == FT_PQ_TIME || e->logical == FT_PQ_TIMESTAMP)
        n->scale = e->digits > 0 && e->digits < 10 ? e->digits : 3;
    n->n_children = (int)e->children;
    if (!n->name)
        return FT_ERESOURCE;
    if (e->children < 0 || e->children > MOST_NODES || n->def > MOST_LEVEL || e->scale < 0 ||
        e->scale > 100 || (!e->children && parent && (e->type < 0 || e->type > FT_PQ_FIXED)) ||
        (!e->children && e->type == FT_PQ_FIXED && (e->size < 1 || e->size > 1 << 20)))
        return damaged(path, "its schema");
    if (e->children || !parent)
        return FT_OK;
    m->columns[m->n_columns++] = n;
    return FT_OK;
}

/* The list is the tree, each node before its children. */
static int read_schema(struct ft_parquet_meta *m, struct ft_thrift *t, const char *path)
{
    struct {
        int node, left, last; /* children that are still to come; the last one so far */
    } open[MOST_LEVEL + 2];
    int depth = 0, type;
    const size_t n = ft_thrift_list(t, &type);
    struct element e;
    if (m->nodes || n < 1 || n > MOST_NODES || type != FT_THRIFT_STRUCT)
        return damaged(path, "its schema");
    m->nodes = ft_arena_alloc(&m->arena, n, sizeof *m->nodes);
    m->columns = ft_arena_alloc(&m->arena, n, sizeof *m->columns);
    if (!m->nodes || !m->columns)
        return FT_ERESOURCE;
    for (m->n_nodes = 0; m->n_nodes < (int)n && !t->bad; m->n_nodes++) {
        const int at = m->n_nodes;
        read_element(t, &e);
        while (depth && !open[depth - 1].left)
            depth--;
        if (at && !depth)
            return damaged(path, "its schema");
        FT_TRY(make_node(m, &m->nodes[at], &e, at ? &m->nodes[open[depth - 1].node] : NULL, path));
        if (at) {
            const int last = open[depth - 1].last;
            *(last < 0 ? &m->nodes[open[depth - 1].node].first : &m->nodes[last].next) = at;
            open[depth - 1].last = at;
            open[depth - 1].left--;
        }
        if (m->nodes[at].n_children && depth > MOST_LEVEL)
            return damaged(path, "its schema");
        if (m->nodes[at].n_children) {
            open[depth].node = at;
            open[depth].left = m->nodes[at].n_children;
            open[depth++].last = -1;
        }
    }
    while (depth && !open[depth - 1].left)
        depth--;
    return t->bad || depth || !m->n_columns ? damaged(path, "its schema") : FT_OK;
}

/* --- row groups --- */

static void read_column(struct ft_thrift *t, struct ft_parquet_chunk *c, int64_t *type)
{
    struct ft_thrift_field f = {0};
    int64_t data = -1, dictionary = -1;
    while (ft_thrift_next(t, &f)) {
        int64_t codec = -1, *number = f.id == 1    ? type
                                      : f.id == 4  ? &codec
                                      : f.id == 5  ? &c->values
                                      : f.id == 7  ? &c->bytes
                                      : f.id == 9  ? &data
                                      : f.id == 11 ? &dictionary
                                                   : NULL;
        if (number && (f.type == FT_THRIFT_I32 || f.type == FT_THRIFT_I64))
            *number = ft_thrift_int(t);
        else
            ft_thrift_skip(t, f.type);
        if (f.id == 4)
            c->codec = (int)codec;
    }
    c->at = dictionary > 0 && dictionary < data ? dictionary : data;
}

static void read_chunk(struct ft_thrift *t, struct ft_parquet_chunk *c, int64_t *type, bool *apart)
{
    struct ft_thrift_field f = {0};
    while (ft_thrift_next(t, &f)) {
        *apart = *apart || f.id == 1; /* lies in another file */
        if (f.id == 3 && f.type == FT_THRIFT_STRUCT)
            read_column(t, c, type);
        else
            ft_thrift_skip(t, f.type);
    }
}

static int read_chunks(struct ft_parquet_meta *m, struct ft_thrift *t, int64_t group,
                       const char *path, int64_t file_bytes)
{
    int type;
    if (ft_thrift_list(t, &type) != (size_t)m->n_columns || type != FT_THRIFT_STRUCT)
        return damaged(path, "a row group has not the schema's columns");
    for (int i = 0; i < m->n_columns; i++) {
        struct ft_parquet_chunk *c = &m->chunks[group * m->n_columns + i];
        int64_t kind = -1;
        bool apart = false;
        read_chunk(t, c, &kind, &apart);
        if (apart)
            return damaged(path, "its columns lie in other files");
        if (!t->bad && c->values == 0) {
            c->at = c->bytes = 0;
            continue;
        }
        if (t->bad || kind != (int64_t)m->columns[i]->type || c->at < 4 || c->bytes < 0 ||
            c->values < 0 || c->at > file_bytes || c->bytes > file_bytes - c->at)
            return damaged(path, "where a column lies");
    }
    return FT_OK;
}

static int read_groups(struct ft_parquet_meta *m, struct ft_thrift *t, const char *path,
                       int64_t file_bytes)
{
    int type;
    const size_t n = ft_thrift_list(t, &type);
    if (!m->nodes || m->chunks || (n && type != FT_THRIFT_STRUCT) ||
        n * (size_t)m->n_columns > (size_t)(t->end - t->p))
        return damaged(path, "its row groups");
    m->n_groups = (int64_t)n;
    m->group_rows = ft_arena_alloc(&m->arena, n, sizeof *m->group_rows);
    m->chunks = ft_arena_alloc(&m->arena, n * (size_t)m->n_columns, sizeof *m->chunks);
    if (!m->group_rows || !m->chunks)
        return FT_ERESOURCE;
    for (size_t i = 0; i < n; i++) {
        struct ft_thrift_field f = {0};
        bool columns = false;
        while (ft_thrift_next(t, &f)) {
            if (f.id == 1 && f.type == FT_THRIFT_LIST && !columns) {
                FT_TRY(read_chunks(m, t, (int64_t)i, path, file_bytes));
                columns = true;
            } else if (f.id == 3 && f.type == FT_THRIFT_I64) {
                m->group_rows[i] = ft_thrift_int(t);
            } else {
                ft_thrift_skip(t, f.type);
            }
        }
        if (!columns || m->group_rows[i] < 0 || m->group_rows[i] > INT64_MAX - m->rows)
            return damaged(path, "its row groups");
        m->rows += m->group_rows[i];
    }
    return FT_OK;
}

static int read_footer(struct ft_parquet_meta *m, struct ft_thrift *t, const char *path,
                       int64_t file_bytes)
{
    struct ft_thrift_field f = {0};
    while (ft_thrift_next(t, &f)) {
        if (f.id == 2 && f.type == FT_THRIFT_LIST)
            FT_TRY(read_schema(m, t, path));
        else if (f.id == 4 && f.type == FT_THRIFT_LIST)
            FT_TRY(read_groups(m, t, path, file_bytes));
        else
            ft_thrift_skip(t, f.type);
    }
    return t->bad || !m->nodes || !m->chunks ? damaged(path, "its footer") : FT_OK;
}

int ft_parquet_meta_read(struct ft_parquet_meta *m, int fd, const char *path, int64_t file_bytes)
{
    uint8_t tail[8];
    *m = (struct ft_parquet_meta){.n_nodes = 0};
    if (file_bytes < 12)
        return damaged(path, "it is cut off");
    FT_TRY(ft_pread(fd, path, tail, 8, file_bytes - 8));
    if (memcmp(tail + 4, "PARE", 4) == 0)
        return ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                          "is an encrypted Parquet file, which ft does not read");
    if (memcmp(tail + 4, "PAR1", 4) != 0)
        return damaged(path, "it is cut off");
    const int64_t n = tail[0] | tail[1] << 8 | tail[2] << 16 | (int64_t)tail[3] << 24;
    if (n > file_bytes - 12 || n > MOST_FOOTER)
        return damaged(path, "its footer");
    uint8_t *bytes = ft_arena_alloc(&m->arena, (size_t)n + 1, 1);
    if (!bytes)
        return FT_ERESOURCE;
    FT_TRY(ft_pread(fd, path, bytes, (size_t)n, file_bytes - 8 - n));
    return read_footer(m, &(struct ft_thrift){bytes, bytes + n, false}, path, file_bytes);
}

void ft_parquet_meta_fini(struct ft_parquet_meta *m)
{
    ft_arena_fini(&m->arena);
    *m = (struct ft_parquet_meta){.n_nodes = 0};
}
