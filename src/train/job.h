/* A training job: everything that a config names, opened, checked and planned. */
#ifndef FT_TRAIN_JOB_H
#define FT_TRAIN_JOB_H

#include "adapter/adapter.h"
#include "config/config.h"
#include "data/data.h"
#include "dist/world.h"
#include "model/model.h"
#include "train/texts.h"

/* How long a run is, before it starts. */
struct ft_run_length {
    int64_t steps, warmup_steps;
    double epochs;                         /* the run's end, in epochs */
    int64_t first_epoch_steps;             /* optimizer steps of epoch 0 */
    int64_t first_epoch_batches;           /* micro-batches of epoch 0 */
    double docs_per_step, tokens_per_step; /* means over epoch 0 */
    double packing_efficiency;             /* tokens over bin room, epoch 0; 0 without packing */
    int64_t save_every; /* steps between checkpoints; 0: at epoch ends; -1: none */
    int64_t eval_every; /* steps between evaluations; 0: at epoch ends; -1: none */
};

/* The batch values of the graph, which a pass fills. */
struct ft_batch {
    struct ft_tensor *ids, *targets, *spans, *positions, *picked;
    struct ft_tensor *chunks; /* spans of chunked attention; NULL without */
    struct ft_tensor *keys;   /* of dropout and noise; NULL without */
    struct ft_tensor *tokens; /* indices of trained token rows, or -1; NULL without */
    struct ft_tensor *cos[FT_ROPES], *sin[FT_ROPES]; /* a row a position, or (rope_by_length) a row
                                                        an activation row */
    struct ft_tensor *scalars;
};

/* How conversations were rendered, and what ended them and other texts. */
struct ft_added_token {
    char *content;
    int32_t id;
    bool special;
};
struct ft_served {
    char *template; /* NULL: no conversations */
    char *eos;      /* what ends turns, if that is not the tokenizer's eos_token; or NULL */
    int64_t vocab;  /* the model's */
    struct ft_added_token *added; /* tokens that the model's own tokenizer does not have */
    int n_added;
    struct ft_ends ends[FT_ENDS];
    char *end_tokens[FT_ENDS];
};
/* Whether that is another template or end than the model's own folder says. */
int ft_served_differs(const struct ft_served *v, const char *folder, bool *differs);

enum { FT_EMBEDDING_ROWS, FT_HEAD_ROWS, FT_ROWS_OF };

/* A job that answers instead of training: sequences side by side, whose keys and values are kept.
 */
struct ft_serving {
    int slots;       /* sequences */
    int64_t context; /* tokens of each, at most */
    int64_t scored;  /* rows of a pass whose logits are made, at most */
    int64_t vocab;   /* rows of the embedding and the head, at least; what lacks is their mean */
    struct ft_tensor *places, *cached, *logits;
    struct ft_tensor *cached_chunks;   /* where attention is chunked; else NULL */
    struct ft_tensor **keys, **values; /* by layer */
};

struct ft_job {
    const struct ft_config *config;
    struct ft_serving *serving; /* NULL: it trains */
    struct ft_world *world;     /* the ranks that work on it; NULL: this process alone */
    char *model_path;
    char *origin;          /* of a GGUF file: the model that it was made from, if it says so */
    const char *base_name; /* as the adapter records it: the path, or the id in the cache */
    struct ft_model *model;
    struct ft_adapter *adapter;
    char **saved_modules;    /* named to be trained whole beside the adapter; NULL ends */
    struct ft_whole *wholes; /* weights that are trained whole */
    int n_wholes, *whole_of; /* of each of the model's weights; -1: frozen */
    struct ft_token_rows {   /* rows that are trained, of the embedding and of the head */
        int64_t n, *ids;
        int32_t *place; /* of each id of the vocabulary: its index in ids, or -1 */
        int whole;      /* what is trained */
        char name[320]; /* of that, in transformers */
        struct ft_tensor *rows, *frozen, *places; /* (n,C); as they were; (V,n): ones at ids */
    } token_rows[FT_ROWS_OF];
    bool untied;           /* the head is a copy of the embedding, since one of them is saved */
    bool head_follows;     /* the head takes the embedding's rows */
    json_t *token_indices; /* PEFT's trainable_token_indices; or NULL */
    int64_t new_rows;      /* that the vocabulary has grown by */
    json_t *continued;     /* adapter_config.json of the adapter that is gone on from; or NULL */
    struct ft_dataset train, held;
    struct ft_job_data { /* each entry of datasets and test_datasets: its files and audit */
        char **files;    /* NULL ends */
        bool text;       /* has an audit */
        struct ft_audit audit;
    } * data;
    int n_data;
    struct ft_served served;
    struct ft_batching batching;
    struct ft_epoch epoch; /* space for one epoch's order */
    struct ft_run_length length;
    int64_t capacity; /* rows of a pass */
    bool rope_by_length;
    const struct ft_backend *backend;
    int tuned_products; /* choices taken from ft_cuda_products_file() */
    struct ft_pool *pool;
    struct ft_graph *graph;
    enum ft_recompute recompute;
    struct ft_plan plan;
    struct ft_batch batch;
    struct ft_tensor **states; /* what the optimizer keeps, run by run of parameters */
    int n_states;
    struct ft_head_loss_args head; /* of FT_EVAL, or of FT_PASS without one; for tests */
    /* bytes beside the graph's block */
    size_t dataset_bytes, epoch_bytes, library_bytes;
};

/* Whom a job knows besides its config: those who show what takes long while it is opened, and the
 * other ranks. Members may be NULL. */
struct ft_job_hooks {
    ft_prepare_progress_fn *progress;
    void *ctx;
    struct ft_world *world;
};
/* Opens and checks everything, tokenizes text, and plans the memory; takes no large block and reads
 * no weight. config must outlive the job; hooks may be NULL. */
int ft_job_open(struct ft_job *j, const struct ft_config *config, const struct ft_job_hooks *hooks);
/* The same for a model that is no more than a shape and random documents of sequence_len tokens;
 * the config's model and datasets are not looked at. */
int ft_job_open_shape(struct ft_job *j, const struct ft_config *config,
                      const struct ft_shape *shape);
/* The config's model and adapter alone: its datasets are not looked at, nothing is trained, and
 * there is no graph; or with one to answer with, of passes of `rows`. s must outlive the job. */
int ft_job_open_model(struct ft_job *j, const struct ft_config *config, struct ft_serving *s);
int ft_job_open_serving(struct ft_job *j, const struct ft_config *config, struct ft_serving *s,
                        int64_t rows);
void ft_job_close(struct ft_job *j);
/* Whether the model itself is trained, without an adapter. */
bool ft_job_trains_model(const struct ft_job *j);

/* After opening: takes the memory, reads the weights, and writes the adapter's first values.
 * progress may be NULL. */
int ft_job_place(struct ft_job *j, ft_model_progress_fn *progress, void *ctx);

/* Fills the batch with the next documents of docs[0..n) that fit one pass: as many as run
 * counts. */
int ft_job_fill(struct ft_job *j, const struct ft_dataset *d, const int32_t *docs, int64_t n,
                uint32_t epoch, struct ft_run *run);

/* All the memory the run will have resident on the host, in bytes; and on the device, 0 without. */
size_t ft_job_memory(const struct ft_job *j);
size_t ft_job_device_memory(const struct ft_job *j);
/* The part of the host's that copies to a device go through. */
size_t ft_job_staging(const struct ft_job *j);
/* FT_ERESOURCE, before a weight is read, if either does not suffice. */
int ft_job_check_memory(const struct ft_job *j);

/* What is left free on a device with this much memory, for kernels and libraries that load later: a
 * share that was chosen, not measured. */
size_t ft_device_reserve(size_t total);

/* Memory this process may still take: the least of what the system has available, the cgroup's
 * limit and the resource limits. */
size_t ft_memory_available(void);
/* Bytes resident now. */
size_t ft_memory_resident(void);

/* Learning rate of optimizer step 1..steps. */
double ft_learning_rate(const struct ft_config *c, const struct ft_run_length *l, int64_t step);

/* Measured on this machine, in this process, in about a second. */
struct ft_rates {
    double flops; /* a second, of products */
    double bytes; /* a second, of elementwise ops */
};
int ft_rates_measure(struct ft_rates *r, const struct ft_job *j);
/* FLOPs a second of one large product on random numbers: the device's measured matrix rate. */
int ft_matrix_rate(const struct ft_job *j, double *flops);
/* Seconds that the whole run will take, evaluation included. */
double ft_job_seconds(const struct ft_job *j, const struct ft_rates *r);

/* Products of one trained token, forward and backward, in FLOPs, without what recompute adds. */
double ft_job_flops_per_token(const struct ft_job *j);

#endif
