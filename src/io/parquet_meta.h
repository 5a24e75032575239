/* What a Parquet file says of itself: schema and row groups.
 * https://github.com/apache/parquet-format: parquet.thrift, LogicalTypes.md, Encodings.md. */
#ifndef FT_IO_PARQUET_META_H
#define FT_IO_PARQUET_META_H

#include "core/mem.h"
#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

enum ft_parquet_type {
    FT_PQ_BOOLEAN,
    FT_PQ_INT32,
    FT_PQ_INT64,
    FT_PQ_INT96,
    FT_PQ_FLOAT,
    FT_PQ_DOUBLE,
    FT_PQ_BYTES,
    FT_PQ_FIXED,
};

/* What values stand for; from the logical type, or the older converted type. */
enum ft_parquet_meaning {
    FT_PQ_PLAIN,
    FT_PQ_TEXT,
    FT_PQ_MAP,
    FT_PQ_LIST,
    FT_PQ_DECIMAL,
    FT_PQ_DATE,
    FT_PQ_TIME,
    FT_PQ_TIMESTAMP,
    FT_PQ_UNSIGNED,
    FT_PQ_HALF,
    FT_PQ_UUID,
};

/* A node of the schema: a group with children, or a column. */
struct ft_parquet_node {
    const char *name;
    int n_children, first; /* index of the first; each one's `next` follows */
    int next;              /* of the same parent; -1: the last */
    bool optional, repeated;
    int def, rep; /* levels from which on it is there; of repetition */
    enum ft_parquet_meaning meaning;
    int scale;  /* of DECIMAL; digits of seconds of TIME and TIMESTAMP */
    int column; /* of a group: its first */
    enum ft_parquet_type type;
    int size; /* of FT_PQ_FIXED */
};

struct ft_parquet_chunk {
    int codec;
    int64_t at, bytes, values; /* in the file, its dictionary too */
};

struct ft_parquet_meta {
    struct ft_arena arena;
    struct ft_parquet_node *nodes; /* 0: the root */
    int n_nodes, n_columns;
    const struct ft_parquet_node **columns;
    int64_t n_groups, *group_rows, rows;
    struct ft_parquet_chunk *chunks; /* n_groups x n_columns */
};

/* From the file's footer; `path` for messages. FT_EDATA. */
int ft_parquet_meta_read(struct ft_parquet_meta *m, int fd, const char *path, int64_t file_bytes);
void ft_parquet_meta_fini(struct ft_parquet_meta *m);

#endif
