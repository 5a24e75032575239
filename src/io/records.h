/* The records of a data file, one after the other: JSON Lines, a JSON list, lines of text, CSV,
 * each of which may be gzipped, and Parquet. A file is never in memory as a whole. */
#ifndef FT_IO_RECORDS_H
#define FT_IO_RECORDS_H

#include "core/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct ft_records;

/* A record as it stands in the file. Starts zeroed; memory is kept from one to the next. */
struct ft_raw {
    char *text;
    size_t length, room;
    int line; /* of its beginning, from 1; of Parquet: the row */
    bool too_long;
};
void ft_raw_free(struct ft_raw *raw);

/* What a file of this name is, as ft_records_open's type; NULL: nothing that ft reads. */
const char *ft_records_kind(const char *path);

/* type: "json", "text", "csv" or "parquet", NULL: by the name's ending (.jsonl .ndjson .json .txt
 * .text .csv, and .gz behind it; .parquet). FT_EDATA: no such file, or one of a kind that ft does
 * not read. */
int ft_records_open(struct ft_records **out, const char *path, const char *type);
void ft_records_close(struct ft_records *r);

/* The next record; *more false: there is none. FT_EDATA: nothing behind this can be read. */
int ft_records_next(struct ft_records *r, struct ft_raw *raw, bool *more);
/* What it says: a value, an object with "text" for a line of text, one with the header's names for
 * CSV (an empty field is null). FT_EDATA with file and line. Any thread may call it. */
int ft_record_parse(const struct ft_records *r, const struct ft_raw *raw, json_t **out);

/* The part of the file that was read, 0 to 1. */
double ft_records_share(const struct ft_records *r);

#endif
