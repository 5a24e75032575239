/* The learning rate of each step against Axolotl 0.19's and transformers' schedules. */
#include "tests/check.h"
#include "train/job.h"

/* Eleven steps, three of them warmup. */
static void expect(const struct ft_config *c, const double rates[11])
{
    const struct ft_run_length l = {.steps = 11, .warmup_steps = 3};
    for (int i = 0; i < 11; i++)
        CHECK_NEAR(ft_learning_rate(c, &l, i + 1), c->learning_rate * rates[i], 1e-8);
}

CASE(the_warmup_may_be_quadratic)
{
    const struct ft_config c = {
        .learning_rate = 2, .lr_scheduler = FT_COSINE, .lr_quadratic_warmup = true};
    const double rates[11] = {0,           0.111111111, 0.444444444, 1,
                              0.961939766, 0.853553391, 0.691341716, 0.5,
                              0.308658284, 0.146446609, 0.038060234};
    expect(&c, rates);
}

CASE(a_cosine_may_stay_at_its_floor)
{
    const struct ft_config c = {.learning_rate = 2,
                                .lr_scheduler = FT_COSINE,
                                .cosine_min_lr_ratio = 0.1,
                                .cosine_constant_lr_ratio = 0.75};
    const double rates[11] = {0,           0.333333333, 0.666666667, 1,   0.914057647, 0.689057647,
                              0.410942353, 0.185942353, 0.1,         0.1, 0.1};
    expect(&c, rates);
}
