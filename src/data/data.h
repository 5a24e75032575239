/* Tokenized datasets, and the order in which their documents are trained on. */
#ifndef FT_DATA_DATA_H
#define FT_DATA_DATA_H

#include "core/status.h"

#include <stdint.h>

enum ft_excess { FT_EXCESS_DROP, FT_EXCESS_TRUNCATE, FT_EXCESS_RAISE };

struct ft_document {
    int64_t start;   /* of its tokens in its file */
    int32_t length;  /* as trained: after truncation */
    int32_t number;  /* among all documents of the files, from 0: names it for dropout */
    int32_t file;    /* index into files; -1: its tokens are in ids and mask */
    int32_t targets; /* trained tokens but the first */
};

/* Documents of one or several files, in file order, without those that are left out. Tokens stay in
 * the files, which stay open: a pass reads those that it needs. */
struct ft_dataset {
    struct ft_dataset_file *files;
    int n_files;
    bool borrowed; /* files, ids and mask are another dataset's */
    int32_t *ids;  /* of made documents */
    uint8_t *mask;
    int64_t vocab, n_tokens;
    struct ft_document *docs;
    int64_t n_docs;
    /* counts for the user; repeated: there before, where limits say so */
    int64_t read, empty, untrained, dropped, truncated, too_short, repeated;
    int64_t cut_off;        /* of the untrained: what was trained lies beyond sequence_len */
    int64_t trained_tokens; /* targets in docs */
    int64_t longest;
    bool tokens_only; /* every file is a user's own, not made from text */
};

/* A set of documents. Begins zeroed. */
struct ft_seen {
    uint64_t (*slots)[2];
    size_t room, n;
};
/* Adds one; *known: a document with these ids and this mask was there. FT_ERESOURCE */
int ft_seen_add(struct ft_seen *s, const int32_t *ids, const uint8_t *mask, size_t n, bool *known);
void ft_seen_fini(struct ft_seen *s);

/* Which documents are taken: lengths are in tokens. */
struct ft_limits {
    int64_t least, most;
    enum ft_excess excess; /* what happens to longer ones; shorter ones are left out */
    struct ft_seen *seen;  /* those of before, which are left out; NULL: they may come again */
};

/* One safetensors file: input_ids I32 (N), offsets I64 (D+1), loss_mask U8 (N). Appends to d, which
 * starts zeroed. Every id, offset and mask is checked; FT_EDATA names file, document and position.
 */
int ft_dataset_read(struct ft_dataset *d, const char *path, int64_t vocab,
                    const struct ft_limits *limits);
/* A member of the metadata of the file that was read last; NULL: it has none such. */
const char *ft_dataset_metadata(const struct ft_dataset *d, const char *key);
/* FT_EDATA, at `at`, if no document is left to train on; says why, and what helps. */
int ft_dataset_check(const struct ft_dataset *d, struct ft_where at);
/* n documents of `length` random tokens, all trained on. */
int ft_dataset_make(struct ft_dataset *d, int64_t n, int64_t length, int64_t vocab, uint64_t seed);
void ft_dataset_fini(struct ft_dataset *d);
/* CRC-32 of documents one after the other, each one's ids and then its mask: what the "crc32" of a
 * file's metadata says. */
uint32_t ft_tokens_crc(uint32_t crc, const int32_t *ids, const uint8_t *mask, size_t n);

/* A document's tokens: doc->length ids and masks. FT_ERESOURCE if they are not what was checked:
 * ids of the vocabulary, as many of them trained. */
int ft_dataset_tokens(const struct ft_dataset *d, const struct ft_document *doc, int32_t *ids,
                      uint8_t *mask);

/* Moves documents of d to `held`, which borrows d's files: share < 1 of them, or that many, from
 * the end of the shuffle by seed. Both keep file order. */
int ft_dataset_split(struct ft_dataset *d, struct ft_dataset *held, double share, uint64_t seed);

/* A micro-batch: docs[first] to docs[first + count - 1] of the plan's order. */
struct ft_micro_batch {
    int64_t first;
    int32_t count, tokens;
};

/* How documents make micro-batches. */
struct ft_batching {
    int64_t micro_batch_size, sequence_len;
    bool packing;    /* bins of micro_batch_size * sequence_len tokens, whole documents */
    bool file_order; /* documents in the file's order, every epoch */
    uint64_t seed;
};

/* One epoch's order. */
struct ft_epoch {
    int32_t *order; /* indices into docs */
    struct ft_micro_batch *batches;
    int64_t n_batches;
    /* working space */
    int32_t *bin_of, *tree;
    int64_t n_docs;
};

/* Space for epochs of n documents; after this ft_epoch_fill does not allocate. */
int ft_epoch_init(struct ft_epoch *e, int64_t n_docs);
void ft_epoch_fini(struct ft_epoch *e);
/* Order and micro-batches of epoch number `epoch`, from 0: the same for the same arguments. */
void ft_epoch_fill(struct ft_epoch *e, const struct ft_dataset *d, const struct ft_batching *b,
                   uint32_t epoch);

/* A pass: whole documents end to end, flat. The arrays are the batch values of the graph, described
 * in kernels/ops.h; keys may be NULL. */
struct ft_pass_arrays {
    int32_t *ids, *targets, *spans, *positions, *picked;
    int32_t *keys; /* (T,3): epoch, document, position */
};
struct ft_pass_counts {
    int64_t rows, trained; /* picked[0..trained) are the rows whose target is not -1 */
};

/* Writes documents docs[0..n) end to end; target -1 where the next token is not trained.
 * FT_ERESOURCE as ft_dataset_tokens. */
int ft_pass_fill(const struct ft_pass_arrays *p, const struct ft_dataset *d, const int32_t *docs,
                 int64_t n, uint32_t epoch, struct ft_pass_counts *counts);

/* How many of docs[0..n) fit one pass of at most `rows` rows: at least one. */
int64_t ft_pass_take(const struct ft_dataset *d, const int32_t *docs, int64_t n, int64_t rows);

/* Rows that a pass needs room for: whole documents, up to `rows` rows together unless one alone is
 * longer, and no more than a window of `accumulation` micro-batches has. Follows from the data, the
 * batching and the kind of device alone, so that the bits do too. */
int64_t ft_pass_capacity(const struct ft_dataset *train, const struct ft_dataset *held,
                         const struct ft_batching *b, int64_t accumulation, int64_t rows);

#endif
