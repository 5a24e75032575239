/* JSON, by way of jansson: strict UTF-8, duplicate keys refused. Its failed allocations are counted
 * with ft's (core/mem.h). */
#ifndef FT_CORE_JSON_H
#define FT_CORE_JSON_H

#include "core/status.h"

#include <jansson.h>

/* Parses a whole file; errors carry the file's line and column. Caller json_decref()s *out. */
int ft_json_file(const char *path, enum ft_code code, json_t **out);
/* The same with whole numbers as reals: tokenizer_config.json has some beyond 64 bits. */
int ft_json_config(const char *path, enum ft_code code, json_t **out);
/* Parses len bytes; `name` stands for them in messages. */
int ft_json_text(const char *text, size_t len, const char *name, enum ft_code code, json_t **out);

/* A line of a JSONL file: any value, and texts may hold the character U+0000. Whole numbers beyond
 * 64 bits are reals. */
int ft_json_record(const char *text, size_t len, struct ft_where at, enum ft_code code,
                   json_t **out);

/* JSON within a text: any value. *out NULL and *why if it is none, which is not reported;
 * FT_ERESOURCE. */
int ft_json_within(json_t **out, const char *text, size_t len, const char **why);

/* The tree as text, freed with ft_json_free; NULL, reported, if it is NULL or one of this thread's
 * allocations has failed since ft_alloc_failures() was `since`: taken before the tree is built,
 * this covers all that built it. */
char *ft_json_dumps(const json_t *root, size_t flags, unsigned since);
/* The same into a file of the folder, atomically. FT_ERESOURCE. */
int ft_json_write(const char *folder, const char *name, const json_t *root, size_t flags,
                  unsigned since);
void ft_json_free(void *text); /* NULL: nothing */

/* Members of an object; a missing or null member leaves *out alone and returns true; a member of
 * another type is reported and returns false. */
bool ft_json_int(const json_t *o, const char *file, const char *key, long long *out);
bool ft_json_real(const json_t *o, const char *file, const char *key, double *out);
bool ft_json_bool(const json_t *o, const char *file, const char *key, bool *out);
bool ft_json_str(const json_t *o, const char *file, const char *key, const char **out);

/* The member if it is there and not null, else NULL. */
const json_t *ft_json_get(const json_t *o, const char *key);

#endif
