/* ft init --from: what the readers of other tools' configs share. Texts of the result live in the
 * arena; a failed allocation is found at the end (ft_alloc_check), so functions that only put
 * something into the result return nothing. */
#ifndef FT_CLI_FROM_H
#define FT_CLI_FROM_H

#include "config/yaml.h"

#include <jansson.h>
#include <stdint.h>

/* A line of the result, "key: value  # note"; key NULL: the note alone. */
struct ft_from_line {
    const char *key, *value, *note;
    struct ft_from_line *next;
};
struct ft_from_lines {
    struct ft_from_line *first, *last;
};
/* An entry of datasets. */
struct ft_from_entry {
    struct ft_from_lines lines;
    struct ft_from_entry *next;
};
struct ft_from_entries {
    struct ft_from_entry *first, *last;
};

struct ft_from {
    struct ft_arena arena;
    const char *file, *folder; /* the other tool's config, and where it lies */
    const struct ft_from_tool *tool;
    const struct ft_yaml *root;
    struct ft_from_lines config, notes; /* notes: what has no counterpart */
    struct ft_from_lines nowhere;       /* entries' lines where memory is short */
    struct ft_from_entries datasets, test_datasets;
    char *model;  /* the model's folder, if ft_from_model has found it */
    bool starved; /* something was given up for want of memory */
};

/* A key of another tool: one row. convert gets its value, or, where the key is absent or null, the
 * tool's default `absent`, which stands here if it is another than ft's; without either it is not
 * called. NULL: another row or finish reads the key. */
struct ft_from_row {
    const char *key;
    int (*convert)(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n);
    const char *to, *absent; /* to: ft's key */
    const char *note;        /* behind the line, or why there is none */
};

/* A key that both rows and shared (may be NULL) have is the one of rows. same: keys that change
 * nothing in ft, spaces between them. finish: what takes several keys, such as data. */
struct ft_from_tool {
    const char *name;
    const char *const *sure, *const *likely; /* keys by which a file is this tool's */
    const char *needs;                       /* a key that must be there, or NULL */
    const struct ft_from_row *rows, *shared;
    const char *same[2];
    int (*finish)(struct ft_from *f);
};
extern const struct ft_from_tool ft_from_llamafactory, ft_from_trl, ft_from_mlx;

/* --- conversions of rows --- */

int ft_from_text(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n);
int ft_from_whole(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n);
int ft_from_real(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n);
int ft_from_bool(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n);
/* Not in ft: a comment, unless the value is off (false, 0, none, empty) or the default. */
int ft_from_lacks(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n);

/* A tracker's name or a list of them; the note: those that ft does not know. */
int ft_from_trackers(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n);

/* A name of one of the tool's choices, ft's for it, and what is to be said. */
struct ft_from_choice {
    const char *name, *to, *note;
};
/* The choice of this name (NULL ends the table); NULL: none. */
const struct ft_from_choice *ft_from_find_choice(const struct ft_from_choice *all,
                                                 const char *name);

/* --- reading the source --- */

const struct ft_yaml *ft_from_get(const struct ft_from *f,
                                  const char *key);        /* NULL: absent, null */
bool ft_from_is(const struct ft_from *f, const char *key); /* true there */
double ft_from_number(const struct ft_from *f, const char *key, double absent);
const char *ft_from_word(const struct ft_from *f, const char *key, const char *absent);
bool ft_from_real_of(const struct ft_yaml *n, double *out);

/* --- putting into the result --- */

void ft_from_put(struct ft_from *f, const char *key, const char *value, const char *note);
void ft_from_put_in(struct ft_from *f, struct ft_from_lines *to, const char *key, const char *value,
                    const char *note);
void ft_from_put_text(struct ft_from *f, struct ft_from_lines *to, const char *key,
                      const char *text);
/* A field that ft would read by itself and the tool does not: key names none, unless the record
 * shows that there is none. */
void ft_from_put_unread(struct ft_from *f, struct ft_from_lines *to, const char *key,
                        const char *field, const json_t *record);
void ft_from_drop(struct ft_from *f, const char *key); /* takes ft's key out again */
/* "# key: value: why" at the end. */
void ft_from_note(struct ft_from *f, const struct ft_yaml *n, const char *why);
struct ft_from_lines *ft_from_entry(struct ft_from *f, struct ft_from_entries *to);

const char *ft_from_quoted(struct ft_from *f, const char *text);       /* as YAML writes it */
const char *ft_from_list(struct ft_from *f, const struct ft_yaml *n);  /* of texts: [a, b] */
const char *ft_from_shown(struct ft_from *f, const struct ft_yaml *n); /* short, for comments */

/* --- files --- */

/* Takes back what was reported: the result can be made without what failed with rc, if anything.
 * Returns whether nothing failed. */
bool ft_from_forgive(struct ft_from *f, int rc);

/* A path of the source, from where ft is started; as it stands where it is not found. */
const char *ft_from_path(struct ft_from *f, const char *path);
/* The model's folder, or NULL where it is not on this machine. */
const char *ft_from_model(struct ft_from *f, const char *name);
/* A number of the model's config.json; -1: not known. */
int64_t ft_from_model_number(struct ft_from *f, const char *name, const char *key);
/* A text of it, in the arena; NULL: not known. */
char *ft_from_model_text(struct ft_from *f, const char *name, const char *key);
/* The first record of a data file, or of a folder's or cached dataset's split; NULL: cannot be
 * read. Caller json_decref()s. */
json_t *ft_from_record(struct ft_from *f, const char *path, const char *split);

/* --- from_trainer.c: TrainingArguments, which LLaMA-Factory and TRL share --- */

extern const struct ft_from_row ft_from_trainer[];
extern const char ft_from_trainer_same[];
int ft_from_trainer_finish(struct ft_from *f);

/* --- from_templates.c --- */

/* Writes what renders as LLaMA-Factory's template does; tools: the data has tools. */
int ft_from_template(struct ft_from *f, const char *name, bool tools);

int ft_init_from(const char *from, const char *out, bool force);

#endif
