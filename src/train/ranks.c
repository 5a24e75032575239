/* The ranks of one run: each takes its documents of every window, and all have the sums. */
#include "train/internal.h"

#include <stdio.h>
#include <string.h>

/* --- that they are at the same run --- */

enum { FACTS = 6 };
static const char *const fact_names[FACTS] = {
    "version of ft", "documents", "tokens", "documents to evaluate", "steps", "trained parameters"};

static void find_facts(const struct ft_job *j, int64_t out[FACTS])
{
    const int64_t facts[FACTS] = {0,
                                  j->train.n_docs,
                                  j->train.n_tokens,
                                  j->held.n_docs,
                                  j->length.steps,
                                  ft_adapter_parameters(j->adapter)};
    memcpy(out, facts, sizeof facts);
    for (const char *c = FT_VERSION; *c; c++)
        out[0] = out[0] * 131 + *c;
}

struct card {
    int64_t facts[FACTS];
    char device[64], backend[16], isa[16];
};

/* Each rank makes the same update: its bits must not depend on where. */
static bool same_update(const struct card *a, const struct card *b)
{
    const bool generic = strcmp(a->isa, "generic") == 0 || strcmp(b->isa, "generic") == 0;
    return strcmp(a->backend, b->backend) == 0 && (!generic || strcmp(a->isa, b->isa) == 0);
}

static int compare(const struct ft_job *j, const struct card *all)
{
    const struct ft_world *w = j->world;
    const int size = ft_world_size(w);
    for (int k = 1; k < size; k++)
        for (int i = 0; i < FACTS; i++)
            if (all[k].facts[i] != all[0].facts[i])
                return ft_fail(FT_EDATA,
                               "rank %d on '%s' has other %s than rank 0 on '%s': %lld and %lld", k,
                               ft_world_host(w, k), fact_names[i], ft_world_host(w, 0),
                               (long long)all[k].facts[i], (long long)all[0].facts[i]);
    for (int k = 1; k < size; k++)
        if (!same_update(&all[k], &all[0])) {
            ft_fail(FT_ECONFIG,
                    "rank %d on '%s' would compute on %s (%s), rank 0 on '%s' on %s (%s)", k,
                    ft_world_host(w, k), all[k].backend, all[k].isa, ft_world_host(w, 0),
                    all[0].backend, all[0].isa);
            ft_hint(
                "'device: cuda' says what is wrong with a GPU that 'auto' passes over; 'cpu_isa' "
                "pins the instruction set");
            return FT_ECONFIG;
        }
    for (int k = 1; k < size; k++)
        for (int i = 0; i < k; i++) {
            if (!all[k].device[0] || strcmp(all[k].device, all[i].device) != 0)
                continue;
            ft_fail(FT_ECONFIG, "ranks %d and %d would compute on one GPU of '%s'", i, k,
                    ft_world_host(w, k));
            ft_hint("each rank needs a GPU of its own: 'srun --gpus-per-task=1', or fewer ranks");
            return FT_ECONFIG;
        }
    return FT_OK;
}

int ft_ranks_check(const struct ft_job *j)
{
    struct card own, *all;
    if (!j->world)
        return FT_OK;
    memset(&own, 0, sizeof own);
    find_facts(j, own.facts);
    snprintf(own.backend, sizeof own.backend, "%s", j->backend->device);
    snprintf(own.isa, sizeof own.isa, "%s", j->backend->isa);
    if (j->backend->dev)
        snprintf(own.device, sizeof own.device, "%.63s", j->backend->dev->id);
    FT_TRY(ft_alloc(&all, (size_t)ft_world_size(j->world), sizeof *all));
    int rc = ft_world_gather(j->world, &own, sizeof own, all);
    if (!rc)
        rc = compare(j, all);
    ft_free(all);
    return rc;
}

/* --- whose documents are whose --- */

/* Longer ones first; of one length, the order of the dataset. */
static bool is_before(const struct ft_dataset *d, int32_t a, int32_t b)
{
    const int32_t x = d->docs[a].length, y = d->docs[b].length;
    return x != y ? x > y : a < b;
}

static void sift(const struct ft_dataset *d, int32_t *v, int64_t at, int64_t n)
{
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_before(d, v[child], v[child + 1]))
            child++;
        if (!is_before(d, v[at], v[child]))
            return;
        const int32_t t = v[at];
        v[at] = v[child];
        v[child] = t;
    }
}

/* A heap's: in place, and nothing is allocated. */
static void sort(const struct ft_dataset *d, int32_t *v, int64_t n)
{
    for (int64_t i = n / 2; i-- > 0;)
        sift(d, v, i, n);
    for (int64_t end = n - 1; end > 0; end--) {
        const int32_t t = v[0];
        v[0] = v[end];
        v[end] = t;
        sift(d, v, 0, end);
    }
}

/* The longest document that is left goes to the rank with the fewest tokens. */
int64_t ft_ranks_take(const struct ft_job *j, const struct ft_dataset *d, int32_t *docs, int64_t n)
{
    const int size = ft_world_size(j->world), me = ft_world_rank(j->world);
    int64_t tokens[FT_MOST_RANKS] = {0}, mine = 0;
    if (size == 1)
        return n;
    sort(d, docs, n);
    for (int64_t i = 0; i < n; i++) {
        int least = 0;
        for (int k = 1; k < size; k++)
            least = tokens[k] < tokens[least] ? k : least;
        tokens[least] += d->docs[docs[i]].length;
        if (least == me)
            docs[mine++] = docs[i];
    }
    return mine;
}

/* --- sums and copies --- */

size_t ft_ranks_bytes(const struct ft_job *j)
{
    const size_t gradients = (size_t)ft_adapter_gradients(j->adapter)->cols * sizeof(float);
    return j->world && j->backend->dev ? gradients : 0;
}

int ft_ranks_sum(struct ft_job *j, float *host)
{
    struct ft_tensor *t = ft_adapter_gradients(j->adapter);
    if (!j->world)
        return FT_OK;
    if (!j->backend->dev)
        return ft_world_sum(j->world, t->data, t->cols);
    FT_TRY(ft_graph_read(j->graph, t, host));
    FT_TRY(ft_world_sum(j->world, host, t->cols));
    return ft_graph_write(j->graph, t, host);
}

static int share_tensor(struct ft_job *j, struct ft_tensor *t)
{
    const size_t n = ft_tensor_bytes(t);
    void *host = t->data;
    if (!j->backend->dev)
        return ft_world_share(j->world, host, n);
    FT_TRY(ft_alloc(&host, n, 1));
    int rc = ft_graph_read(j->graph, t, host);
    if (!rc)
        rc = ft_world_share(j->world, host, n);
    if (!rc)
        rc = ft_graph_write(j->graph, t, host);
    ft_free(host);
    return rc;
}

int ft_ranks_share(struct ft_job *j)
{
    struct ft_tensor *values = ft_adapter_values(j->adapter);
    if (!j->world)
        return FT_OK;
    FT_TRY(share_tensor(j, values));
    for (int i = 0; i < j->n_states; i++)
        FT_TRY(share_tensor(j, j->states[i]));
    if (ft_world_rank(j->world) > 0)
        FT_TRY(ft_graph_run(j->graph, FT_START, j->pool, &(struct ft_run){0}, NULL));
    return share_tensor(j, values); /* again: the start of a method (DoRA's) sets some of its own */
}
