/* What the files of train/ share. */
#ifndef FT_TRAIN_INTERNAL_H
#define FT_TRAIN_INTERNAL_H

#include "train/train.h"

#include "core/clock.h"
#include "core/mem.h"
#include "train/licence.h"

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
int ft_job_open_serving_graph(struct ft_job *j);

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

/* Appends the loss to the current program; keys of dropout, or NULL; balance: how the rows were
 * spread over experts, or NULL. */
void ft_objective_build(struct ft_job *j, struct ft_tensor *hidden, struct ft_tensor *keys,
                        struct ft_tensor *balance);
/* The logits of these rows, before a cap. */
struct ft_tensor *ft_objective_logits(struct ft_job *j, struct ft_tensor *hidden);

/* --- optimizer.c --- */

/* FT_UPDATE: the window's end, and the optimizer's ops. */
int ft_update_build(struct ft_job *j);

/* --- lock.c: the run folder's lock --- */

struct ft_lock;
/* FT_ECONFIG, naming the holder, if another process has the folder: waits up to a minute for a sign
 * of life if that is on another machine. Lost by a holder that has ended, however. */
int ft_lock_take(struct ft_lock **out, const char *path, const char *folder, struct ft_where at);
int ft_lock_check(const struct ft_lock *l); /* FT_ERESOURCE: another has taken it meanwhile */
void ft_lock_free(struct ft_lock *l);       /* may be NULL */

/* --- output.c: the run folder --- */

struct ft_hashes;
struct ft_output {
    char *folder, *metrics, *lock_path, *room;
    char *tensorboard, *wandb; /* folders of event files, of offline runs */
    struct ft_lock *lock;
    bool made_folder; /* by us: removed again if nothing was written */
    bool finished;    /* the folder has this very run, at its end */
    char *resume;     /* the checkpoint to go on from, and its manifest; or NULL */
    json_t *manifest;
};

/* The files of a tokenizer, its templates and where generation ends; NULL ends. */
extern const char *const ft_text_files[];

/* Creates and locks output_dir, and finds out what it has of this run: starts *h, NULL before,
 * where that has to be compared. Refuses one that is in use, holds another run, or is a folder that
 * the run reads (FT_ECONFIG). */
int ft_output_open(struct ft_output *o, const struct ft_job *j, struct ft_hashes **h);
/* Once the run is about to begin: removes what an earlier run left there, or cuts the log to what
 * the checkpoint says; reserves the room that the results need. */
int ft_output_begin(struct ft_output *o, const struct ft_job *j);
void ft_output_close(struct ft_output *o);
/* The two files of the adapter, or the model, into a folder. */
int ft_output_adapter(const struct ft_job *j, const char *folder);
/* Adapter, tokenizer files. */
int ft_output_write(const struct ft_output *o, const struct ft_job *j);
/* status: "running", "interrupted", "finished"; r and h NULL: not known yet, else the model card is
 * written too. */
int ft_output_run_json(const struct ft_output *o, const struct ft_job *j, const char *status,
                       const struct ft_train_result *r, struct ft_hashes *h);
/* Gives the reserved room back before it is needed; and takes it again. */
void ft_output_release(const struct ft_output *o);
int ft_output_reserve(const struct ft_output *o, const struct ft_job *j);
/* Bytes of the log, which are on the disk then; 0 without one. */
int64_t ft_output_log_bytes(const struct ft_output *o);

/* --- card.c --- */

/* README.md of the folder, from what run.json has. */
int ft_card_write(const struct ft_job *j, const char *folder, const json_t *run);

/* --- checkpoint.c --- */

/* A number of the run's progress: a whole one, or reals (n 0: one). */
struct ft_counter {
    const char *name;
    int64_t *whole;
    double *real;
    int n;
};
struct ft_checkpoint {
    int64_t step;
    int64_t keep, best; /* keep the newest `keep`, and that of step `best` (-1: none) */
    const struct ft_counter *counters;
    int n_counters;
    json_t *identity; /* of resume.c */
};
/* Whole and on the disk under its name, or not at all; then older ones go. */
int ft_checkpoint_write(const struct ft_output *o, const struct ft_job *j,
                        const struct ft_checkpoint *c);
size_t ft_checkpoint_bytes(const struct ft_job *j); /* beside the adapter */
/* A checkpoint's manifest, once all its files are what it says. FT_EDATA: they are not; FT_ECONFIG:
 * it is of a newer ft. Caller json_decref()s. */
int ft_checkpoint_open(json_t **manifest, const char *folder);
/* The newest in a run folder that is whole; says which are not. NULL: none. */
int ft_checkpoint_newest(char **path, json_t **manifest, const char *folder);
/* Sets the counters, and in a placed graph parameters and moments. */
int ft_checkpoint_restore(const struct ft_checkpoint *c, struct ft_job *j, const char *folder,
                          const json_t *manifest);
void ft_checkpoint_sweep(const char *folder); /* what killed runs left */
int ft_checkpoint_remove_all(const char *folder);

/* --- resume.c: whether two runs are the same --- */

/* What decides the numbers of a run: config, hashes; those that are not computed yet are left out
 * unless waited for. Caller json_decref()s, after an error too. */
int ft_identity(json_t **out, const struct ft_job *j, struct ft_hashes *h, bool wait);
/* The first difference that resume_with_changes does not name, as a text in why; false: none. */
bool ft_identity_differs(const struct ft_job *j, const json_t *was, const json_t *is, char *why,
                         size_t room);

/* Whether version, processor or ranks are not those of the checkpoint: a notice says that the bits
 * will differ. */
bool ft_identity_moved(const struct ft_job *j, const json_t *was);

/* --- ranks.c: what ranks of one run agree on --- */

/* FT_EDATA naming the rank if another one has other data or another model; FT_ECONFIG if two would
 * compute on one GPU. */
int ft_ranks_check(const struct ft_job *j);
size_t ft_ranks_bytes(const struct ft_job *j); /* of host memory, beside the graph's */
/* This rank's of n documents, put first; they are n in all for the ranks together. Returns how many
 * there are, none too. */
int64_t ft_ranks_take(const struct ft_job *j, const struct ft_dataset *d, int32_t *docs, int64_t n);
/* The gradients, and these counts, as sums over the ranks. host: room for the gradients of a
 * device. */
int ft_ranks_sum(struct ft_job *j, float *host);
/* Parameters and optimizer states of rank 0, in every rank's placed graph. */
int ft_ranks_share(struct ft_job *j);

/* --- deadline.c --- */

/* When the Slurm job that this process runs in ends, by ft_now(); INFINITY: it runs in none, or
 * without an end. */
double ft_deadline(void);

/* --- hash.c: SHA-256 of what the run read, computed beside the training --- */

int ft_hashes_start(struct ft_hashes **out, const struct ft_job *j); /* once: *out NULL before */
/* {"path": "hex", ...} per kind, of those that are computed; wait: of all; h NULL: none. Caller
 * json_decref()s. */
json_t *ft_hashes_json(struct ft_hashes *h, bool wait);
void ft_hashes_free(struct ft_hashes *h);

#endif
