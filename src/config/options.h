/* The table of options. */
#ifndef FT_CONFIG_OPTIONS_H
#define FT_CONFIG_OPTIONS_H

#include "config/config.h"

#include <stddef.h>

enum ft_option_type {
    FT_T_TEXT,     /* const char * */
    FT_T_PATH,     /* const char *: ~ is the home folder */
    FT_T_INT,      /* int64_t within lo..hi */
    FT_T_REAL,     /* double within lo..hi */
    FT_T_BOOL,     /* bool */
    FT_T_CHOICE,   /* int: the value of one of the choices */
    FT_T_WORD,     /* const char *: one of the choices' own names */
    FT_T_TARGETS,  /* lora_target_modules: a list of names, or one text */
    FT_T_INTS,     /* int64_t *, -1 ends */
    FT_T_PATTERNS, /* struct ft_pattern_config * */
    FT_T_ROWS,     /* struct ft_rows_config * */
    FT_T_DATASETS, /* struct ft_dataset_config * and a count behind it */
    FT_T_TEXTS,    /* const char **: a list of texts, or one; NULL ends */
    FT_T_TOKENS,   /* const char **: a map from names to texts, as pairs; NULL ends */
    FT_T_MAP,      /* const struct ft_yaml *: a map of anything */
};

enum ft_option_state {
    FT_LATER,    /* known, not there yet: an error when set to anything but false, 0 or empty */
    FT_LATER_OK, /* known, not there yet, and a run without it is still right: a notice */
    FT_NOTICE,   /* another program's switch that changes nothing here: a notice */
    FT_REFUSED,  /* would change the mathematics: an error, like FT_LATER, with its reason */
};

struct ft_choice {
    const char *name;
    int value;
    const char *notice; /* said when chosen; may be NULL */
};

struct ft_option {
    const char *key;
    enum ft_option_type type;
    size_t offset; /* of the member in struct ft_config */
    double lo, hi;
    bool open_lo; /* lo itself is not allowed */
    bool open_hi;
    const char *fallback; /* the default as text, NULL: unset */
    const struct ft_choice *choices;
    const char *group, *help;
};

extern const struct ft_option ft_options[];
extern const int ft_option_count;

int ft_option_find(const char *key); /* -1: none */

/* Keys of other programs: one row a reason. */
struct ft_other {
    enum ft_option_state state;
    const char *keys; /* with spaces between them */
    const char *help;
    int (*check)(const struct ft_yaml *n); /* of values, FT_ECONFIG; may be NULL */
};
extern const struct ft_other ft_others[];
extern const int ft_other_count;
const struct ft_other *ft_other_find(const char *key); /* NULL: none */
/* The row's next key behind `at` (NULL: its first) and its length; NULL: no more. */
const char *ft_other_key(const struct ft_other *o, const char *at, size_t *n);
/* ft's option that is called `name` elsewhere; *same: it is read as that one, else it is what was
 * probably meant. NULL: none. */
const char *ft_option_other_name(const char *name, bool *same);
/* The option one of whose other names is two edits or less from `name`; NULL: none. */
const char *ft_option_other_near(const char *name);
/* The option, or the other program's key, that was probably meant by `key`; NULL: none. */
const char *ft_option_nearest(struct ft_arena *arena, const char *key);

extern const struct ft_choice ft_train_on_choices[];

/* --- values, for the readers of tables --- */

bool ft_value_bool(const struct ft_yaml *n, bool *out);
/* A switch that is there but off, or an empty value: it changes nothing. */
bool ft_value_is_off(const struct ft_yaml *n);
/* FT_ECONFIG: "'key' is 'value', allowed ..." */
int ft_value_refuse(const char *key, const struct ft_yaml *n, const char *allowed);
/* A path with ~ as the home folder; FT_ECONFIG for another user's. */
int ft_value_path(const char **out, struct ft_arena *arena, const char *key,
                  const struct ft_yaml *n);
/* A list of texts, or one: NULL ends. */
int ft_value_texts(const char ***out, struct ft_arena *arena, const char *key,
                   const struct ft_yaml *n);
/* A map of texts as pairs of key and value. */
int ft_value_pairs(const char ***out, struct ft_arena *arena, const char *key,
                   const struct ft_yaml *n);

/* A map of anything: the node itself. */
int ft_value_map(const struct ft_yaml **out, const char *key, const struct ft_yaml *n);

/* config.c: a config's tree alone, with the overrides in it. Caller ft_config_fini()s. FT_ECONFIG
 */
int ft_config_tree(struct ft_config *c, const char *path, const char *const *overrides,
                   int n_overrides);
/* bnb.c: c->bnb from c->bnb_config_kwargs. FT_ECONFIG */
int ft_bnb_read(struct ft_config *c);

/* datasets.c: a list of entries. */
int ft_datasets_read(struct ft_config *c, const char *key, const struct ft_yaml *n,
                     struct ft_dataset_config **to, int *count);
/* The keys of an entry and their help, NULL ends. */
const char *ft_dataset_key(int i, const char **help);
/* The help of one of an entry's keys, also of those that change nothing or are refused; NULL: none.
 */
const char *ft_dataset_help(const char *key);

#endif
