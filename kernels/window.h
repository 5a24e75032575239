/* The end of an accumulation window: what grad_norm writes, on every backend. */
#ifndef FT_KERNELS_WINDOW_H
#define FT_KERNELS_WINDOW_H

#include "core/rng.h"
#include "kernels/ops.h"

#include <math.h>

/* sum: the summed gradient's sum of squares. See struct ft_grad_norm_args. */
FT_ANYWHERE void ft_end_window(double *s, double sum, double max_norm)
{
    const double tokens = s[FT_S_TRAINED], norm = sqrt(sum) / tokens;
    const bool finite = tokens > 0 && isfinite(norm) && isfinite(s[FT_S_LOSS_SUM]);
    const double clip = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;
    s[FT_S_LOSS] = s[FT_S_LOSS_SUM] / tokens;
    s[FT_S_TOKENS] = tokens;
    s[FT_S_NORM] = norm;
    s[FT_S_FINITE] = finite;
    s[FT_S_FACTOR] = (clip < 1 ? clip : 1) / tokens;
    s[FT_S_STEP] += finite;
    s[FT_S_SKIPPED] += !finite;
    s[FT_S_SKIPPED_IN_ROW] = finite ? 0 : s[FT_S_SKIPPED_IN_ROW] + 1;
    if (s[FT_S_SKIPPED_IN_ROW] > s[FT_S_MOST_IN_ROW])
        s[FT_S_MOST_IN_ROW] = s[FT_S_SKIPPED_IN_ROW];
    s[FT_S_LOSS_SUM] = s[FT_S_TRAINED] = 0;
}

/* Muon: the five steps, each x = a x + (b x x^T + c (x x^T)^2) x, and the step's length by shape.
 */
enum { FT_MUON_STEPS = 5 };
#define FT_MUON_A   3.4445f
#define FT_MUON_B   -4.7750f
#define FT_MUON_C   2.0315f
#define FT_MUON_EPS 1e-7
FT_ANYWHERE float ft_muon_scale(int64_t rows, int64_t cols)
{
    return 0.2f * sqrtf((float)(rows > cols ? rows : cols));
}

/* Adafactor's decay of the running means at an update, counted from 1. */
FT_ANYWHERE double ft_adafactor_decay(double step)
{
    return 1 - pow(step, -0.8);
}

#endif
