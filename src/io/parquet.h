/* Parquet files, as records of JSON: https://github.com/apache/parquet-format. */
#ifndef FT_IO_PARQUET_H
#define FT_IO_PARQUET_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>

struct ft_parquet;

/* Reads the footer. FT_EDATA for what is damaged, encrypted, or has a column of a form that ft does
 * not read. */
int ft_parquet_open(struct ft_parquet **out, const char *path);
void ft_parquet_close(struct ft_parquet *p); /* may be NULL */
/* The next row as a JSON object, which is p's until the next call: lists and structs as JSON's, a
 * map with texts as keys as an object, dates and times as ISO 8601, bytes that are no UTF-8 and
 * numbers that are not finite as null. *text NULL: there is none. */
int ft_parquet_next(struct ft_parquet *p, const char **text, size_t *length);
/* The part of the rows that was read, 0 to 1. */
double ft_parquet_share(const struct ft_parquet *p);

#endif
