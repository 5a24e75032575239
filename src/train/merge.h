/* A model with its adapter in its weights. */
#ifndef FT_TRAIN_MERGE_H
#define FT_TRAIN_MERGE_H

#include "train/job.h"

enum { FT_MERGED = 16 }; /* adapters at most */

/* Adapters of one model, each with its share. */
struct ft_merge {
    struct ft_job jobs[FT_MERGED];
    struct ft_serving none; /* the jobs have no graph */
    float *values[FT_MERGED];
    double share[FT_MERGED];
    int n;
    bool whole; /* all weights are written, in `dtype`: the model's may be quantised */
    enum ft_dtype dtype;
    /* the weights that were asked for last, and which of the two places it was: files have both
     * sides of experts by turns */
    int weight[2], last, rc;
    float *merged[2];
};

/* Opens model and adapter of a config, and reads the adapter's values. The model must be the one
 * that the adapter was trained on, by the hashes in its run.json, or else by its name, unless
 * forced. FT_EDATA: it is not, or cannot be merged rightly. */
int ft_merge_add(struct ft_merge *m, const struct ft_config *c, double share, bool force);
/* Writes the model's folder again, with tokenizer, template and generation_config of the first
 * adapter's folder or else the model's. A folder that is there already is written into only if
 * forced; a new one appears whole. */
int ft_merge_write(struct ft_merge *m, const char *folder, bool force);
/* A weight's values, f32, with what is merged: until the next call. FT_EDATA if one is not finite.
 */
int ft_merge_values(struct ft_merge *m, int weight, const float **out);
/* The path of a text file that belongs to the result, the first adapter's or else the model's;
 * *out NULL: there is none. Caller frees. */
int ft_merge_file(const struct ft_merge *m, const char *name, char **out);
void ft_merge_close(struct ft_merge *m);

#endif
