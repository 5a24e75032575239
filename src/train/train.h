/* The main job: from a checked config to an adapter. */
#ifndef FT_TRAIN_TRAIN_H
#define FT_TRAIN_TRAIN_H

#include "train/job.h"

#include <signal.h>

struct ft_train_options {
    FILE *console;        /* progress; NULL: none */
    bool profile;         /* time every op */
    double started;       /* ft_now() when the program began */
    void (*begins)(void); /* told when weights are loaded and steps begin; may be NULL */
    const volatile sig_atomic_t *stop; /* not 0: end after this step, as if to go on; may be NULL */
};

struct ft_train_result {
    int64_t steps, tokens, trained_tokens, skipped;
    double seconds;         /* of training and evaluation */
    double startup_seconds; /* from the program's start to the first step's */
    double tokens_per_second;
    double first_loss, last_loss;
    double early_loss, late_loss; /* means over the first and the last tenth of the steps */
    double first_eval, last_eval; /* NAN without evaluation */
    int64_t zero_gradients;       /* steps whose gradient was exactly zero */
    bool stopped;                 /* before its last step, by the losses */
    bool interrupted;             /* asked to end: to be gone on with */
    bool finished;     /* the folder had this run already, at its end: nothing was done */
    int64_t resumed;   /* the step it went on from */
    int64_t moved;     /* times that it went on with another version, processor or ranks */
    int64_t best_step; /* of the best evaluation; -1: none */
    double best_eval;
    bool best_written; /* it is what was written at the end */
    size_t peak_bytes; /* resident at most, as the kernel counts */
    struct ft_profile profile;
};

/* Trains the job to its end, or on from the newest checkpoint in output_dir, and writes the
 * adapter, the log, checkpoints and run.json there. FT_OK too where it was interrupted. The job
 * must be freshly opened. */
int ft_train(struct ft_job *j, const struct ft_train_options *o, struct ft_train_result *r);

/* How many steps in a row may have a loss or gradient that is not finite before the run stops. */
enum { FT_MAX_SKIPPED = 3 };

#endif
