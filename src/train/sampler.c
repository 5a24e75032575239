/* Repetition penalty, temperature, top-k, top-p and min-p, and the draw. */
#include "train/sampler.h"

#include "core/rng.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

static const double LEAST = 1e-3; /* a temperature: below, numbers would overflow */

/* Once for each token that is there, however often; marked by its bit of `done`. */
static void penalise(const struct ft_sampler *o, float *logits, int64_t vocab, const int32_t *seen,
                     size_t n, uint8_t *done)
{
    for (int64_t i = 0; i < vocab; i++)
        done[i] = 0;
    for (size_t i = 0; i < n; i++) {
        float *l = &logits[seen[i]];
        if (done[seen[i]])
            continue;
        done[seen[i]] = 1;
        *l = *l > 0 ? *l / (float)o->repetition_penalty : *l * (float)o->repetition_penalty;
    }
}

/* The first of the largest; -1: one is not a number, or the largest is not finite. By lanes, of
 * which the compiler makes vectors. */
static int32_t most_likely(const float *logits, int64_t vocab)
{
    enum { LANES = 32 };
    float most[LANES], best = -INFINITY;
    int32_t nan = 0, at = 0;
    int64_t i = 0;
    for (int k = 0; k < LANES; k++)
        most[k] = -INFINITY;
    for (; i + LANES <= vocab; i += LANES)
        for (int k = 0; k < LANES; k++) {
            const float l = logits[i + k];
            most[k] = l > most[k] ? l : most[k];
            nan |= l != l;
        }
    for (; i < vocab; i++) {
        nan |= logits[i] != logits[i];
        best = logits[i] > best ? logits[i] : best;
    }
    for (int k = 0; k < LANES; k++)
        best = most[k] > best ? most[k] : best;
    if (nan || !isfinite(best))
        return -1;
    while (logits[at] != best)
        at++;
    return at;
}

static int by_logit(const void *a, const void *b)
{
    const struct ft_candidate *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit)
                                : (x->id > y->id) - (x->id < y->id);
}

/* The candidates whose logit is at least this. */
static int64_t keep_above(struct ft_candidate *c, int64_t n, float least)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (c[i].logit >= least)
            c[kept++] = c[i];
    return kept;
}

/* The k-th largest logit, by halving the range that it lies in. */
static float kth_logit(struct ft_candidate *c, int64_t n, int64_t k)
{
    for (int64_t low = 0, high = n - 1;;) {
        const float pivot = c[(low + high) / 2].logit;
        int64_t i = low, j = high;
        while (i <= j) {
            while (c[i].logit > pivot)
                i++;
            while (c[j].logit < pivot)
                j--;
            if (i <= j) {
                const struct ft_candidate t = c[i];
                c[i++] = c[j];
                c[j--] = t;
            }
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            return c[k - 1].logit;
    }
}

static double weight_of(const struct ft_candidate *c, float max)
{
    return exp((double)c->logit - (double)max);
}

static double sum_weights(const struct ft_candidate *c, int64_t n, float max)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += weight_of(&c[i], max);
    return sum;
}

/* The least likely go, as long as they are together no more than 1 - p. What is below (1 - p) / n
 * goes in any case, and is not sorted. */
static int64_t keep_top_p(struct ft_candidate *c, int64_t n, double p, float max)
{
    const double all = sum_weights(c, n, max);
    const float least = (float)((double)max + log((1 - p) / (double)n * all));
    double gone = 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (c[i].logit < least)
            gone += weight_of(&c[i], max);
        else
            c[kept++] = c[i];
    }
    qsort(c, (size_t)kept, sizeof *c, by_logit);
    while (kept > 1 && gone + weight_of(&c[kept - 1], max) <= (1 - p) * all)
        gone += weight_of(&c[--kept], max);
    return kept;
}

static int32_t draw(const struct ft_sampler *o, const struct ft_candidate *c, int64_t n, float max,
                    uint32_t sequence, uint32_t step)
{
    uint32_t counter[4] = {0, FT_RNG_SAMPLE, sequence, step}, word[4];
    ft_philox(counter, o->seed, word);
    const double u = ((double)word[0] * 0x1p21 + (double)(word[1] >> 11)) * 0x1p-53;
    double rest = u * sum_weights(c, n, max);
    for (int64_t i = 0; i < n; i++) {
        rest -= weight_of(&c[i], max);
        if (rest < 0)
            return c[i].id;
    }
    return c[n - 1].id;
}

int32_t ft_sample_token(const struct ft_sampler *o, float *logits, int64_t vocab,
                        const int32_t *seen, size_t n, uint32_t sequence, uint32_t step,
                        struct ft_candidate *room)
{
    if (o->repetition_penalty != 1)
        penalise(o, logits, vocab, seen, n, (uint8_t *)room);
    const int32_t best = most_likely(logits, vocab);
    if (best < 0 || o->temperature < LEAST)
        return best;
    int64_t left = vocab;
    for (int64_t i = 0; i < vocab; i++)
        room[i] = (struct ft_candidate){logits[i] / (float)o->temperature, (int32_t)i};
    const float max = logits[best] / (float)o->temperature;
    if (o->top_k > 0 && o->top_k < left)
        left = keep_above(room, left, kth_logit(room, left, o->top_k));
    if (o->top_p < 1)
        left = keep_top_p(room, left, o->top_p, max);
    if (o->min_p > 0)
        left = keep_above(room, left, (float)((double)max + log(o->min_p)));
    return draw(o, room, left, max, sequence, step);
}
