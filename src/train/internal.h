/* What the files of train/ share. */
#ifndef FT_TRAIN_INTERNAL_H
#define FT_TRAIN_INTERNAL_H

#include "train/train.h"

#include "core/clock.h"
#include "core/mem.h"

/* --- files.c --- */

void ft_free_names(char **names); /* NULL ends; may be NULL */

/* --- served.c: what a server needs besides the adapter --- */

/* What a dataset says of it; the first template counts. */
int ft_served_note(struct ft_served *v, const struct ft_source *s, const struct ft_audit *audit);
/* After the last dataset. */
int ft_served_settle(struct ft_served *v, const struct ft_texts *t);
/* Reads and makes all that ft_served_write will write, before a step is made: FT_EDATA for what is
 * damaged, a notice where what is trained ends otherwise than the model's folder says. */
int ft_served_check(struct ft_served *v, const struct ft_config *c, const char *from,
                    int64_t vocab);
void ft_served_free(struct ft_served *v);
/* The tokenizer's files, templates and generation_config.json, from the model's folder. */
int ft_served_write(const struct ft_served *v, const struct ft_config *c, const char *from,
                    const char *to);

/* --- job_data.c, job_length.c, job_adapter.c, job_graph.c: the parts of ft_job_open --- */

int ft_job_open_data(struct ft_job *j, const struct ft_job_hooks *hooks);
void ft_job_set_batching(struct ft_job *j);
int ft_job_open_batching(struct ft_job *j); /* after the data is there */
void ft_job_find_length(struct ft_job *j);
int ft_job_open_adapter(struct ft_job *j);
int ft_job_open_graph(struct ft_job *j);

/* --- wholes.c: weights that are trained whole --- */

void ft_wholes_free(struct ft_job *j);
int ft_wholes_choose(struct ft_job *j);   /* after the model is open */
void ft_wholes_settle(struct ft_job *j);  /* after the adapter is */
extern const char *const ft_bias_names[]; /* by enum ft_biases, in PEFT's words */
/* FT_ECONFIG: the key contradicts the adapter that is continued. */
int ft_contradiction(const struct ft_job *j, const char *key);
struct ft_tensor *ft_wholes_place(void *ctx, struct ft_graph *g, int weight); /* ctx: the job */
void ft_wholes_train(struct ft_job *j);               /* after both are declared */
int ft_wholes_read(void *ctx, int whole, float *out); /* ctx: the job */
/* A module's frozen weight; ctx: the job. */
int ft_wholes_module(void *ctx, const char *module, float *out);
/* The model folder with what was trained. FT_EDIVERGED if it is not finite. */
int ft_wholes_save(const struct ft_job *j, const float *values, const char *folder);

/* --- tokens.c: rows of the embedding or the head that are trained --- */

int ft_token_rows_choose(struct ft_job *j); /* after the model is open */
void ft_token_rows_free(struct ft_job *j);
void ft_token_rows_list(struct ft_job *j);       /* into the wholes */
int ft_token_rows_check(const struct ft_job *j); /* against the adapter: FT_ECONFIG */
void ft_token_rows_declare(struct ft_job *j);    /* in the graph */
int ft_token_rows_write(struct ft_job *j);       /* once it is placed */
int ft_token_rows_read(const struct ft_job *j, const struct ft_token_rows *t, float *out);
/* Where ids are trained ones: -1 there, and their index in tokens. */
void ft_token_rows_fill(const struct ft_job *j, int32_t *ids, int32_t *tokens, int64_t n);
struct ft_tensor *ft_token_rows_embed(const struct ft_job *j, struct ft_graph *g,
                                      const struct ft_embed_args *base, struct ft_tensor *h);
void ft_token_rows_head(struct ft_job *j, struct ft_graph *g, struct ft_head_loss_args *head);

/* --- new_tokens.c: tokens that the config adds --- */

int ft_new_tokens_open(struct ft_job *j);        /* after the model, before the adapter */
int ft_new_tokens_check(const struct ft_job *j); /* after the adapter: FT_ECONFIG */

/* --- objective.c: what is done with the hidden states --- */

/* Appends the loss to the current program; keys of dropout, or NULL. */
void ft_objective_build(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys);

/* --- optimizer.c --- */

/* FT_UPDATE: the window's end, and the optimizer's ops. */
void ft_update_build(struct ft_job *j);

/* --- output.c: the run folder --- */

struct ft_output {
    char *folder, *metrics, *lock_path;
    int lock;         /* the lock file's descriptor, -1: none */
    bool made_folder; /* by us: removed again if nothing was written */
};

/* Creates and locks output_dir; refuses one that is in use, holds an earlier run, or is a folder
 * that the run reads (FT_ECONFIG). */
int ft_output_open(struct ft_output *o, const struct ft_job *j);
/* Removes what an earlier run left there, once this one is about to begin. */
int ft_output_begin(struct ft_output *o);
void ft_output_close(struct ft_output *o);
/* Adapter, tokenizer files, model card. */
int ft_output_write(const struct ft_output *o, const struct ft_job *j);
struct ft_hashes;
int ft_output_run_json(const struct ft_output *o, const struct ft_job *j,
                       const struct ft_train_result *r, struct ft_hashes *h);

/* --- hash.c: SHA-256 of what the run read, computed beside the training --- */

int ft_hashes_start(struct ft_hashes **out, const struct ft_job *j);
/* Waits for the thread; {"path": "hex", ...} per kind. Caller json_decref()s. */
json_t *ft_hashes_json(struct ft_hashes *h);
void ft_hashes_free(struct ft_hashes *h);

#endif
