/* The learning-rate schedules, as transformers' and Axolotl's: step s uses the factor of s - 1
 * finished steps. */
#include "train/job.h"

#include <math.h>

typedef double schedule_fn(double progress, double floor_ratio);

static double cosine(double progress, double floor_ratio)
{
    return floor_ratio + (1 - floor_ratio) * 0.5 * (1 + cos(M_PI * progress));
}

static double linear(double progress, double floor_ratio)
{
    (void)floor_ratio;
    return 1 - progress;
}

static double constant(double progress, double floor_ratio)
{
    (void)progress, (void)floor_ratio;
    return 1;
}

static const struct {
    schedule_fn *fn;
    bool warms_up;
} schedules[] = {
    [FT_COSINE] = {cosine, true},
    [FT_LINEAR] = {linear, true},
    [FT_CONSTANT] = {constant, false},
    [FT_CONSTANT_WARMUP] = {constant, true},
};

double ft_learning_rate(const struct ft_config *c, const struct ft_run_length *l, int64_t step)
{
    const double done = (double)(step - 1), warmup = (double)l->warmup_steps;
    if (schedules[c->lr_scheduler].warms_up && done < warmup) {
        const double share = done / warmup;
        return c->learning_rate * (c->lr_quadratic_warmup ? share * share : share);
    }
    const double falls = c->cosine_constant_lr_ratio; /* of the steps, those that are no floor */
    const double span = (falls > 0 ? floor(falls * (double)l->steps) : (double)l->steps) - warmup;
    const double progress = span > 0 ? (done - warmup) / span : 1;
    return c->learning_rate *
           schedules[c->lr_scheduler].fn(fmin(fmax(progress, 0), 1), c->cosine_min_lr_ratio);
}
