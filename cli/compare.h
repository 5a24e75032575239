/* Comparing two runs, for ft compare and the end of ft train. */
#ifndef FT_CLI_COMPARE_H
#define FT_CLI_COMPARE_H

#include "cli/cli.h"

#include "train/compare.h"

#define FT_COMPARE_TOLERANCE 0.01

/* Prints the comparison (out NULL: not), writes JUnit's XML (junit NULL: not). FT_EREGRESSED names
 * the first measure that is not the baseline's. */
int ft_compare_runs(FILE *out, const char *baseline, const char *run,
                    const struct ft_compare_options *o, const char *junit);

#endif
