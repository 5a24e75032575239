/* Which programs load an adapter that was trained, and how. */
#ifndef FT_CLI_ENGINES_H
#define FT_CLI_ENGINES_H

#include "cli/cli.h"
#include "train/train.h"

/* A line each: the command, or why that program does not load it. */
void ft_print_engines(FILE *out, const struct ft_job *j);
/* Notices of programs that do not read its portable form as it is meant. */
void ft_note_portable(const struct ft_job *j);

#endif
