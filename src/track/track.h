/* What happens in a run, and who is told: events and their sinks. */
#ifndef FT_TRACK_TRACK_H
#define FT_TRACK_TRACK_H

#include "core/status.h"

#include <stdint.h>
#include <stdio.h>

enum ft_event_kind {
    FT_EVENT_LOADING,    /* fraction */
    FT_EVENT_EVALUATING, /* fraction */
    FT_EVENT_STEP,
    FT_EVENT_EVAL,
    FT_EVENT_END,
};

/* One event; members that its kind does not have are 0. */
struct ft_event {
    enum ft_event_kind kind;
    int64_t step, steps;
    double epoch, loss, grad_norm, learning_rate; /* loss and norm may be NAN: written as null */
    double eval_loss;
    int64_t trained_tokens, tokens_seen; /* in this step's window; so far */
    double tokens_per_second, seconds, eta_seconds;
    double fraction;
    size_t resident_bytes;
    bool skipped;     /* the step's update was dropped */
    bool interrupted; /* at the end: the run can go on */
    bool log;         /* a step that logging_steps asks to write */
};

struct ft_track;
struct ft_mlflow_options; /* mlflow.h */
struct ft_wandb_options;  /* wandb.h */

/* What the sinks write to; NULL: nothing. */
struct ft_track_options {
    FILE *console;            /* a live line if it is a terminal, else plain lines */
    bool plain;               /* plain lines in any case: launchers show a terminal where none is */
    const char *metrics_path; /* one object a line is appended, and flushed */
    const char *tensorboard;  /* the folder of event files */
    const struct ft_mlflow_options *mlflow;
    const struct ft_wandb_options *wandb;
    int64_t first_step; /* the run goes on behind this step; 0: it begins */
};
int ft_track_open(struct ft_track **out, const struct ft_track_options *o);
/* Never fails: a sink that cannot write is reported once as a notice, and left. Allocates nothing.
 */
void ft_track_event(struct ft_track *t, const struct ft_event *e);
void ft_track_close(struct ft_track *t);

/* Seconds as "1h02m", "3m20s" or "12s", into a buffer of 32 bytes. */
const char *ft_duration_text(char *out, double seconds);

#endif
