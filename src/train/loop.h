/* What the files of the training loop share. */
#ifndef FT_TRAIN_LOOP_H
#define FT_TRAIN_LOOP_H

#include "train/internal.h"

#include "track/track.h"

/* Documents that are to be run, pass by pass. */
struct ft_work {
    enum ft_program program;
    const struct ft_dataset *data;
    const int32_t *docs;
    int64_t n, at;
    int64_t first; /* documents of an evaluation before these */
};

struct ft_loop {
    struct ft_job *j;
    const struct ft_train_options *o;
    struct ft_train_result *r;
    struct ft_track *track;
    double scalars[FT_SCALARS];
    double began, last;              /* clock at the first step, at the last event */
    int64_t step;                    /* finished steps */
    int64_t epoch;                   /* the one being trained */
    int64_t batch;                   /* next micro-batch of it */
    int64_t epoch_steps, epoch_step; /* steps of this epoch, finished ones of it */
    struct ft_work window;           /* the step being trained, or the next one */
    bool ready;                      /* the batch holds its next pass already */
    struct ft_run next;
    float *gradients; /* of a device, on the host, for sums over ranks; or NULL */
    int64_t losses;   /* finite ones so far */
    double early_sum, last_losses[64];
    int64_t above;       /* steps in a row whose loss was above loss_watchdog_threshold */
    int64_t tokens;      /* of this window so far */
    int64_t since;       /* tokens of the steps since the last report */
    int64_t unevaluated; /* an evaluation was interrupted: it is to be made again */
    int64_t not_better;  /* evaluations in a row */
    bool better;         /* the last one was the best so far */
    struct ft_output out;
    struct ft_hashes *hashes;
    double deadline;         /* of the Slurm job, by ft_now() */
    double longest_step;     /* seconds */
    double saved, save_took; /* when the last checkpoint was written, and seconds it took */
    int64_t saved_step;
    int64_t log_bytes, resumed;
    double before; /* seconds of the run before it was resumed */
};

/* --- progress.c: what a checkpoint has of the loop --- */

/* Whether one is due behind the step that was just made. */
bool ft_loop_save_due(const struct ft_loop *l, bool epoch_ended);
int ft_loop_save(struct ft_loop *l);
/* Into a placed graph, from out.resume if there is one; on all ranks what rank 0 has. */
int ft_loop_restore(struct ft_loop *l);
/* The parameters of the best evaluation in place of the last step's, if the config wants them. */
int ft_loop_take_best(struct ft_loop *l);

/* --- loop.c --- */

int ft_loop_read_scalars(struct ft_loop *l);
/* Whether this process has the run folder: rank 0. */
bool ft_loop_writes(const struct ft_loop *l);

#endif
