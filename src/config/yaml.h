/* YAML into a tree of nodes that know where they stand. */
#ifndef FT_CONFIG_YAML_H
#define FT_CONFIG_YAML_H

#include "core/mem.h"
#include "core/status.h"

enum ft_yaml_kind { FT_YAML_SCALAR, FT_YAML_LIST, FT_YAML_MAP };

struct ft_yaml {
    enum ft_yaml_kind kind;
    struct ft_where at;
    const char *text; /* scalars */
    bool quoted;      /* a quoted scalar is text, never null or a number by nature */
    const char *key;  /* of this entry, in a map */
    struct ft_where key_at;
    struct ft_yaml *first, *last, *next;
    int count;
};

/* The document of a file; it must be a map. Anchors, aliases, duplicate keys, tabs, byte order
 * marks, several documents and deep nesting are refused with their place (FT_ECONFIG). Nodes live
 * in arena. */
int ft_yaml_file(struct ft_yaml **out, struct ft_arena *arena, const char *path, const char *name);
/* A single value given on the command line ("[a, b]", "1e-4"); origin names it in messages. */
int ft_yaml_value(struct ft_yaml **out, struct ft_arena *arena, const char *text,
                  const char *origin);

struct ft_yaml *ft_yaml_get(const struct ft_yaml *map, const char *key); /* NULL if absent */
/* Puts value at a dotted path ("datasets.0.path") of the tree, making maps and list ends as needed.
 */
int ft_yaml_set(struct ft_yaml *root, struct ft_arena *arena, const char *path,
                struct ft_yaml *value);
bool ft_yaml_is_null(const struct ft_yaml *n);

#endif
