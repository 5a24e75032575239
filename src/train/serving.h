/* A model that answers: sequences side by side, each with the keys and values of what it has read.
 */
#ifndef FT_TRAIN_SERVING_H
#define FT_TRAIN_SERVING_H

#include "train/job.h"

struct ft_server {
    struct ft_job job;
    struct ft_serving serving;
    int64_t vocab;
    int64_t *length; /* of each sequence: tokens that it has read */
    int64_t *lengths;
    int32_t *ids;    /* (slots, context): what was read; NULL: angles depend on no length */
    int64_t *angles; /* of each sequence: the length that its keys' angles are of */
    float *logits;   /* of the last pass, in the graph or in `widened` */
    float *widened;  /* of a device, with what was copied from there */
    char *copied;
};

struct ft_server_options {
    int slots;       /* sequences side by side */
    int64_t context; /* tokens of each, at most */
    int64_t scored;  /* logits of one pass, at most: the slots, or more to score texts */
    int64_t vocab;   /* rows of the embedding and the head, at least; 0: the model's */
};

/* Opens the config's model and adapter, checks the memory, loads. progress may be NULL. */
int ft_server_open(struct ft_server *s, const struct ft_config *c,
                   const struct ft_server_options *o, ft_model_progress_fn *progress, void *ctx);
void ft_server_close(struct ft_server *s);

/* The vocabulary that the adapter in a folder has rows for, the model's or more. FT_EDATA */
int ft_new_tokens_rows(const char *adapter, const struct ft_model *m, int64_t *rows);

/* n ids that go on a sequence; the logits of the last `scored` of them are wanted. */
struct ft_reading {
    int slot;
    const int32_t *ids;
    int64_t n, scored;
};
/* Reads them, in as many passes as it takes: rows of logits (scored, vocab), reading after reading,
 * are in s->logits until the next call, where all of them were one pass's; else `each` gets them
 * pass by pass: `count` rows, the first of them row `first` of all scored ones. each may be NULL
 * where the scored ones are no more than the options' `scored`. */
typedef int ft_logits_fn(void *ctx, const float *logits, int64_t first, int64_t count);
int ft_server_read(struct ft_server *s, const struct ft_reading *r, int n, ft_logits_fn *each,
                   void *ctx);
/* The sequence begins again behind its first `length` tokens. */
void ft_server_forget(struct ft_server *s, int slot, int64_t length);

#endif
