/* Curves in the terminal. */
#ifndef FT_CLI_CHART_H
#define FT_CLI_CHART_H

#include "train/compare.h"

#include <stdio.h>

/* A curve, and what its points are drawn with. */
struct ft_chart_curve {
    const struct ft_curve *curve;
    char mark;
};
/* A chart of 12 lines and at most 76 columns: a point is the mean of the steps that it covers, and
 * `both` where two curves meet. Nothing is drawn of curves without a finite value. */
void ft_chart_print(FILE *out, const char *title, const struct ft_chart_curve *curves, int n,
                    char both);

#endif
