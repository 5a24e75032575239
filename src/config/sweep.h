/* A config some of whose options have a list of values, each of which a run takes. */
#ifndef FT_CONFIG_SWEEP_H
#define FT_CONFIG_SWEEP_H

#include "core/mem.h"

/* One combination. */
struct ft_sweep_run {
    char *name;     /* "lora_r=16,learning_rate=1e-4": what differs, as the name of a folder */
    char **changes; /* "key=value" of what differs, and the last, "output_dir=OUT/NAME" */
    char *folder;   /* OUT/NAME */
};

struct ft_sweep {
    struct ft_sweep_run *runs; /* the first list's values change slowest */
    int n_runs, n_changes;     /* n_changes is of each run */
    struct ft_arena arena;
};

/* The combinations of a config file (or NULL) and overrides, as for ft_config_read(). An option
 * that takes one value is swept by a list of values, one that takes a list or a map by a list of
 * those. The runs' configs are not checked. FT_ECONFIG: nothing is swept, or too much, or
 * output_dir is missing. */
int ft_sweep_read(struct ft_sweep *s, const char *path, const char *const *overrides,
                  int n_overrides);
void ft_sweep_fini(struct ft_sweep *s);

#endif
