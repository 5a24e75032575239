/* The values of one column of one row group, page by page. */
#ifndef FT_IO_PARQUET_PAGE_H
#define FT_IO_PARQUET_PAGE_H

#include "io/parquet_meta.h"

/* A value: whole numbers and booleans in i, reals in d, bytes (also of FIXED and INT96) in p and n.
 * Bytes are the page's. */
struct ft_parquet_value {
    union {
        int64_t i;
        double d;
        const uint8_t *p;
    };
    uint32_t n;
};

struct ft_parquet_bytes {
    uint8_t *p;
    size_t n, room;
};

/* Reads a column from its first value to its last. */
struct ft_parquet_column {
    const struct ft_parquet_node *node;
    const char *path;
    int fd;
    int64_t at, end; /* of the pages that are left, in the file */
    int codec;
    /* the page: its levels, its values (of those that are there), and where reading stands */
    uint8_t *def, *rep;
    struct ft_parquet_value *values, *dictionary;
    int64_t n_dictionary, n, entry, value;
    int64_t left;                                        /* entries behind this page */
    struct ft_parquet_bytes packed, page, words, pieces; /* as read; decompressed; the dictionary's;
                                                            texts that were put together */
    size_t room, values_room, dictionary_room;
};

/* At a chunk; keeps what memory c has. c starts zeroed. */
void ft_parquet_column_begin(struct ft_parquet_column *c, const struct ft_parquet_node *node,
                             const struct ft_parquet_chunk *chunk, int fd, const char *path);
/* Makes the current entry available, reading the next page where one is at its end; *more false:
 * the chunk is. FT_EDATA, FT_ERESOURCE. */
int ft_parquet_column_look(struct ft_parquet_column *c, bool *more);
void ft_parquet_column_fini(struct ft_parquet_column *c);

/* Of the current entry. */
static inline int ft_parquet_def(const struct ft_parquet_column *c)
{
    return c->def[c->entry];
}
static inline int ft_parquet_rep(const struct ft_parquet_column *c)
{
    return c->rep[c->entry];
}
/* To the next entry. */
static inline void ft_parquet_advance(struct ft_parquet_column *c)
{
    c->value += c->def[c->entry] == c->node->def;
    c->entry++;
}

#endif
