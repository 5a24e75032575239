/* How fast a job runs: steps without evaluation, logs or files. */
#ifndef FT_TRAIN_BENCH_H
#define FT_TRAIN_BENCH_H

#include "train/job.h"

struct ft_bench_options {
    int64_t steps;  /* measured, at least */
    double seconds; /* measured, at least */
    bool profile;   /* then two steps more, timing every op */
    bool tune;      /* before: time the ways to compute each product, and write the choices */
};

struct ft_bench_result {
    int64_t steps, rows;      /* measured steps; rows of one */
    double seconds;           /* of all measured steps */
    double tokens_per_second; /* mean */
    double best_tokens_per_second;
    double flops_per_token; /* useful ones */
    double matrix_rate;     /* FLOPs a second of one large product, in this run */
    double share;           /* useful FLOPs over that rate */
    double load_seconds, loss;
    size_t planned_bytes, taken_bytes; /* on the device, or resident on the host */
    struct ft_profile profile;
};

/* The job must be freshly opened. */
int ft_bench(struct ft_job *j, const struct ft_bench_options *o, struct ft_bench_result *r);

#endif
