/* Which of the model's weights are trained whole, and their places in the flat block of all that is
 * trained. */
#include "train/internal.h"

#include "core/mem.h"

#include <string.h>

int ft_wholes_choose(struct ft_job *j)
{
    const int n = ft_model_weights(j->model);
    FT_TRY(ft_alloc(&j->wholes, (size_t)n + 1, sizeof *j->wholes));
    FT_TRY(ft_alloc(&j->whole_of, (size_t)n + 1, sizeof *j->whole_of));
    for (int i = 0; i < n; i++) {
        const struct ft_model_weight w = ft_model_weight(j->model, i);
        j->whole_of[i] = -1;
        if (strcmp(j->config->adapter, "full") != 0)
            continue;
        j->whole_of[i] = j->n_wholes;
        j->wholes[j->n_wholes++] =
            (struct ft_whole){.name = w.path,
                              .rows = w.rows,
                              .cols = w.cols ? w.cols : 1,
                              .n_dims = w.cols ? 2 : 1,
                              .decays = w.kind != FT_W_NORM && w.kind != FT_W_BIAS};
    }
    return FT_OK;
}

/* On the host a weight that is trained lies in the block. */
struct ft_tensor *ft_wholes_place(void *ctx, struct ft_graph *g, int weight)
{
    const struct ft_job *j = ctx;
    struct ft_tensor *value = NULL, *grad;
    if (j->whole_of[weight] >= 0)
        ft_adapter_whole(j->adapter, j->whole_of[weight], g, &value, &grad);
    return value;
}

void ft_wholes_train(struct ft_job *j)
{
    for (int i = 0; i < ft_model_weights(j->model); i++) {
        struct ft_tensor *value, *grad, *w = ft_model_weight_value(j->model, i);
        if (j->whole_of[i] < 0)
            continue;
        ft_adapter_whole(j->adapter, j->whole_of[i], j->graph, &value, &grad);
        ft_graph_train(j->graph, w, 0, 0, grad, 1);
        if (!value)
            ft_adapter_copy(j->adapter, j->whole_of[i], w);
    }
}

/* A weight's values as they are now, in the block that was read from the graph. */
struct saved {
    const struct ft_job *j;
    const float *values;
};

static const float *trained_values(void *ctx, int weight)
{
    const struct saved *s = ctx;
    const int whole = s->j->whole_of[weight];
    return whole < 0 ? NULL : s->values + ft_adapter_whole_at(s->j->adapter, whole);
}

int ft_wholes_save(const struct ft_job *j, const float *values, const char *folder)
{
    struct saved s = {j, values};
    FT_TRY(ft_adapter_check_finite(j->adapter, values));
    return ft_model_save(j->model, folder, trained_values, &s);
}

bool ft_job_trains_model(const struct ft_job *j)
{
    return strcmp(j->config->adapter, "full") == 0;
}

int ft_wholes_read(void *ctx, int whole, float *out)
{
    const struct ft_job *j = ctx;
    int i = 0;
    while (j->whole_of[i] != whole)
        i++;
    return ft_model_weight_read(j->model, i, j->config->allow_nonfinite_weights, out);
}
