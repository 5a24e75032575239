/* Owns the order of documents: shuffling, micro-batches, packing, passes. */
#include "data/data.h"

#include "core/mem.h"
#include "core/rng.h"

#include <string.h>

int ft_epoch_init(struct ft_epoch *e, int64_t n_docs)
{
    size_t n = (size_t)n_docs;
    *e = (struct ft_epoch){.n_docs = n_docs};
    int rc = ft_alloc(&e->order, n, sizeof *e->order);
    if (!rc)
        rc = ft_alloc(&e->batches, n, sizeof *e->batches);
    if (!rc)
        rc = ft_alloc(&e->bin_of, 2 * n, sizeof *e->bin_of);
    size_t leaves = 1;
    while (leaves < n)
        leaves *= 2;
    if (!rc)
        rc = ft_alloc(&e->tree, 2 * leaves, sizeof *e->tree);
    if (rc)
        ft_epoch_fini(e);
    return rc;
}

void ft_epoch_fini(struct ft_epoch *e)
{
    ft_free(e->order);
    ft_free(e->batches);
    ft_free(e->bin_of);
    ft_free(e->tree);
    *e = (struct ft_epoch){0};
}

static void shuffle(int32_t *v, int64_t n, uint64_t seed, enum ft_rng_use use, uint32_t epoch)
{
    struct ft_rng rng = ft_rng_init(seed, use, epoch, 0);
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = ft_rng_below(&rng, (uint32_t)i + 1);
        int32_t t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
}

static void fill_plain(struct ft_epoch *e, const struct ft_dataset *d, const struct ft_batching *b)
{
    for (int64_t i = 0; i < d->n_docs; i += b->micro_batch_size) {
        struct ft_micro_batch *m = &e->batches[e->n_batches++];
        *m = (struct ft_micro_batch){.first = i};
        for (int64_t k = i; k < d->n_docs && k < i + b->micro_batch_size; k++) {
            m->count++;
            m->tokens += d->docs[e->order[k]].length;
        }
    }
}

/* The first bin with room for `length`, by a tree whose nodes hold the most room below them. */
static int32_t first_fit(int32_t *tree, int64_t leaves, int32_t length)
{
    int64_t at = 1;
    while (at < leaves)
        at = tree[2 * at] >= length ? 2 * at : 2 * at + 1;
    tree[at] -= length;
    int32_t bin = (int32_t)(at - leaves);
    for (at /= 2; at >= 1; at /= 2)
        tree[at] = tree[2 * at] > tree[2 * at + 1] ? tree[2 * at] : tree[2 * at + 1];
    return bin;
}

/* Assigns a bin to each document of the order; returns how many bins there are. */
static int32_t assign_bins(struct ft_epoch *e, const struct ft_dataset *d, int32_t room,
                           bool next_fit)
{
    int64_t leaves = 1;
    int32_t bins = 0, left = 0;
    while (leaves < d->n_docs)
        leaves *= 2;
    for (int64_t i = 0; i < 2 * leaves; i++)
        e->tree[i] = room;
    for (int64_t i = 0; i < d->n_docs; i++) {
        int32_t length = d->docs[e->order[i]].length;
        if (!next_fit) {
            e->bin_of[i] = first_fit(e->tree, leaves, length);
        } else {
            bins += length > left && i > 0;
            left = (length > left ? room : left) - length;
            e->bin_of[i] = bins;
        }
    }
    for (int64_t i = 0; i < d->n_docs; i++)
        bins = e->bin_of[i] > bins ? e->bin_of[i] : bins;
    return bins + 1;
}

static void fill_packed(struct ft_epoch *e, const struct ft_dataset *d, const struct ft_batching *b,
                        uint32_t epoch)
{
    int64_t room = b->micro_batch_size * b->sequence_len, n = d->n_docs, at = 0;
    int32_t bins = assign_bins(e, d, room > INT32_MAX ? INT32_MAX : (int32_t)room, b->file_order);
    /* the tree has done its work: its memory holds the bins' sequence and each one's rank in it */
    int32_t *sequence = e->tree, *rank = e->tree + n, *sorted = e->bin_of + n;
    for (int32_t i = 0; i < bins; i++)
        sequence[i] = i;
    if (!b->file_order)
        shuffle(sequence, bins, b->seed, FT_RNG_BINS, epoch);
    for (int32_t i = 0; i < bins; i++) {
        rank[sequence[i]] = i;
        e->batches[i] = (struct ft_micro_batch){0};
    }
    e->n_batches = bins;
    for (int64_t i = 0; i < n; i++)
        e->batches[rank[e->bin_of[i]]].count++;
    for (int32_t i = 0; i < bins; i++) {
        e->batches[i].first = at;
        at += e->batches[i].count;
        e->batches[i].count = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        struct ft_micro_batch *m = &e->batches[rank[e->bin_of[i]]];
        sorted[m->first + m->count++] = e->order[i];
        m->tokens += d->docs[e->order[i]].length;
    }
    memcpy(e->order, sorted, (size_t)n * sizeof *sorted);
}

void ft_epoch_fill(struct ft_epoch *e, const struct ft_dataset *d, const struct ft_batching *b,
                   uint32_t epoch)
{
    FT_ASSERT(d->n_docs <= e->n_docs);
    for (int64_t i = 0; i < d->n_docs; i++)
        e->order[i] = (int32_t)i;
    if (!b->file_order)
        shuffle(e->order, d->n_docs, b->seed, FT_RNG_SHUFFLE, epoch);
    e->n_batches = 0;
    if (b->packing)
        fill_packed(e, d, b, epoch);
    else
        fill_plain(e, d, b);
}

int ft_pass_fill(const struct ft_pass_arrays *p, const struct ft_dataset *d, const int32_t *docs,
                 int64_t n, uint32_t epoch, struct ft_pass_counts *counts)
{
    struct ft_pass_counts c = {0};
    for (int64_t i = 0; i < n; i++) {
        const struct ft_document *doc = &d->docs[docs[i]];
        const int64_t first = c.rows;
        int32_t *ids = p->ids + first, *targets = p->targets + first;
        /* the mask's bytes lie where the targets will, which are written from the end */
        uint8_t *mask = (uint8_t *)targets;
        FT_TRY(ft_dataset_tokens(d, doc, ids, mask));
        for (int32_t t = doc->length - 1; t >= 0; t--)
            targets[t] = t + 1 < doc->length && mask[t + 1] ? ids[t + 1] : -1;
        for (int32_t t = 0; t < doc->length; t++, c.rows++) {
            const int64_t row = c.rows;
            p->spans[2 * row] = (int32_t)first;
            p->spans[2 * row + 1] = (int32_t)(first + doc->length);
            p->positions[row] = t;
            if (targets[t] >= 0)
                p->picked[c.trained++] = (int32_t)row;
            if (!p->keys)
                continue;
            p->keys[3 * row] = (int32_t)epoch;
            p->keys[3 * row + 1] = doc->number;
            p->keys[3 * row + 2] = t;
        }
    }
    *counts = c;
    return FT_OK;
}

int64_t ft_pass_take(const struct ft_dataset *d, const int32_t *docs, int64_t n, int64_t rows)
{
    int64_t sum = 0, taken = 0;
    while (taken < n && (taken == 0 || sum + d->docs[docs[taken]].length <= rows))
        sum += d->docs[docs[taken++]].length;
    return taken;
}

int64_t ft_pass_capacity(const struct ft_dataset *train, const struct ft_dataset *held,
                         const struct ft_batching *b, int64_t accumulation, int64_t rows)
{
    int64_t longest = train->longest > held->longest ? train->longest : held->longest;
    int64_t most = b->micro_batch_size * (b->packing ? b->sequence_len : train->longest);
    most = most < rows ? most * accumulation : most; /* at least one micro-batch */
    most = most < rows ? most : rows;
    int64_t tokens = 0;
    for (int64_t i = 0; i < train->n_docs; i++)
        tokens += train->docs[i].length;
    most = most < tokens ? most : tokens; /* no pass can have more */
    return most > longest ? most : longest;
}
