/* What is known of a dataset's labels: counts, and problems with the place of the first. */
#ifndef FT_DATA_AUDIT_H
#define FT_DATA_AUDIT_H

#include "data/sample.h"

#include <jansson.h>
#include <stdint.h>

enum ft_problem {
    FT_BAD_RECORD,    /* skipped: not readable, or not what the format needs */
    FT_NO_TEXT,       /* documents without a token */
    FT_NOT_TRAINED,   /* documents of which nothing is trained */
    FT_UNENDED_TURN,  /* documents with a trained turn that does not end in a trained terminator */
    FT_DOUBLE_BOS,    /* documents that begin with the token that begins texts, twice */
    FT_EMPTY_TURN,    /* documents with a trained turn of which only its end is left */
    FT_UNRENDERED,    /* documents with a part that the template leaves out */
    FT_PROMPT_BORDER, /* documents where a prompt's end has other ids than the prompt alone */
    FT_PROBLEMS
};
/* A problem: its name, as 'allow_data_problems' has it; what it is, behind a number of documents;
 * what to do. */
struct ft_problem_row {
    const char *name, *what, *hint;
    bool spoils; /* training, so it is an error unless allowed */
};
extern const struct ft_problem_row ft_problems[FT_PROBLEMS];

struct ft_audit {
    int64_t records, documents, tokens, trained, longest;
    int64_t tokens_of[FT_SPEAKERS], trained_of[FT_SPEAKERS];
    struct ft_found {
        int64_t count;
        char first[512]; /* "file:line", or "file:line, 'role or member'" */
    } found[FT_PROBLEMS];
    struct ft_found unrendered[FT_SPEAKERS][FT_PARTS]; /* documents, by whose part */
    struct ft_ends ends[FT_ENDS];                      /* what ends trained turns */
};
/* "assistant's tool_calls", into 64 bytes. */
const char *ft_unrendered_name(char out[64], int speaker, int part);

/* What s says of its turns: what ends them, what was left out. */
void ft_audit_add_turns(struct ft_audit *a, const struct ft_sample *s, const char *file, int line);
void ft_audit_find(struct ft_audit *a, enum ft_problem p, const char *file, int line);
/* Counts a document: s's tokens from..to. */
void ft_audit_add(struct ft_audit *a, const struct ft_sample *s, size_t from, size_t to);

/* NULL if memory is short. */
json_t *ft_audit_json(const struct ft_audit *a);
bool ft_audit_from_json(struct ft_audit *a, const json_t *o);

/* FT_EDATA if nothing is trained at all, and for each problem that spoils training and is not among
 * allowed (NULL ends; may be NULL). */
int ft_audit_check(const struct ft_audit *a, const char *const *allowed);

#endif
