/* The main job: from a checked config to an adapter. */
#ifndef FT_TRAIN_TRAIN_H
#define FT_TRAIN_TRAIN_H

#include "train/job.h"

struct ft_train_options {
    FILE *console;  /* progress; NULL: none */
    bool profile;   /* time every op */
    double started; /* ft_now() when the program began */
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
    bool stopped;                 /* by loss_watchdog_threshold */
    size_t peak_bytes;            /* resident at most, as the kernel counts */
    struct ft_profile profile;
};

/* Trains the job to its end and writes the adapter, the log and run.json into output_dir. The job
 * must be freshly opened. */
int ft_train(struct ft_job *j, const struct ft_train_options *o, struct ft_train_result *r);

/* How many steps in a row may have a loss or gradient that is not finite before the run stops. */
enum { FT_MAX_SKIPPED = 3 };

#endif
