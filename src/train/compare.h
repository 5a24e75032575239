/* Two runs beside one another: their logs and what run.json says of them. */
#ifndef FT_TRAIN_COMPARE_H
#define FT_TRAIN_COMPARE_H

#include "core/status.h"

#include <jansson.h>
#include <stdint.h>

enum ft_measure {
    FT_LOSS,
    FT_EVAL_LOSS,
    FT_GRAD_NORM,
    FT_TRAINED_TOKENS,
    FT_MEASURES, /* those are compared */
    FT_LEARNING_RATE = FT_MEASURES,
    FT_SPEED,  /* tokens a second */
    FT_MEMORY, /* bytes resident at most until then */
    FT_CURVES
};

/* What a log has of a measure: steps ascending, NAN for null. */
struct ft_curve {
    int64_t *step;
    double *value;
    int64_t n, room;
};

struct ft_run_record {
    char *path;  /* of the log */
    json_t *run; /* run.json; NULL: there is none */
    struct ft_curve curves[FT_CURVES];
};

/* A run folder, or a metrics.jsonl. FT_EDATA names file and line. */
int ft_run_record_open(struct ft_run_record *r, const char *path);
void ft_run_record_close(struct ft_run_record *r);

struct ft_compare_options {
    double tolerance; /* of losses, relative, where bits may differ; norms have ten times that */
    double speed, memory; /* the run's least share of the baseline's speed, and most of its peak
                             memory; 0: not looked at */
};

/* A line of the comparison. */
struct ft_comparison {
    const char *name;
    bool looked_at, exact, passed;
    int64_t points;             /* compared */
    double difference, allowed; /* the largest relative one; of speed and memory, their shares */
    int64_t step;               /* where that is; -1: nowhere */
    double baseline, run;       /* there */
    const char *why;            /* not passed, and no number says why; or NULL */
};
enum { FT_COMPARE_SPEED = FT_MEASURES, FT_COMPARE_MEMORY, FT_COMPARISONS };

/* Every step of the baseline's must be in the run. *machine: what of version, device, instruction
 * set, threads and card differs, so that bits may; NULL: nothing, and every bit counts. */
void ft_compare(struct ft_comparison out[FT_COMPARISONS], const char **machine,
                const struct ft_run_record *baseline, const struct ft_run_record *run,
                const struct ft_compare_options *o);

#endif
