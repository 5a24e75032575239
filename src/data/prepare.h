/* From data files to a tokenized dataset: read, tokenized on all threads, audited, written. */
#ifndef FT_DATA_PREPARE_H
#define FT_DATA_PREPARE_H

#include "core/threads.h"
#include "data/audit.h"
#include "data/format.h"

/* Which records of all: from one up to another, in records or percent, negative ones from the end;
 * absent: to the end. */
struct ft_slice {
    double from, to;
    bool has_from, has_to, percent;
};
/* "train", "train[:20%]", "train[100:-5]"; FT_ECONFIG. *name: the length of the split's name. */
int ft_slice_parse(struct ft_slice *s, size_t *name, const char *split);

typedef void ft_prepare_progress_fn(void *ctx, double share, int64_t documents, int64_t tokens);

struct ft_prepare {
    const char *const *files; /* NULL ends */
    const char *file_type;    /* as ft_records_open takes it */
    struct ft_slice slice;
    const struct ft_format *format;
    const struct ft_tokenizer *tokenizer;
    int32_t bos;          /* -1: none */
    int64_t sequence_len; /* of chunks, for formats that cut */
    int64_t skip_bad;     /* so many records that cannot be used are left out */
    struct ft_pool *pool;
    ft_prepare_progress_fn *progress; /* may be NULL */
    void *progress_ctx;
};

/* Called with each document in order, when not written: for showing some. Returns false: enough. */
typedef bool ft_document_fn(void *ctx, const struct ft_sample *s, size_t from, size_t to,
                            const char *file, int line);

/* What is thought of the audits before the file is written; an error leaves what was there. */
typedef int ft_audits_fn(void *ctx, const struct ft_audit *audits, int n);

/* Writes n of them, one behind the other, as `path`: input_ids, loss_mask, offsets, and `source`
 * I32 (D,2), each document's file (index among the metadata's "files") and line. meta: n_meta pairs
 * for its metadata, besides the audit's. audits: n. check may be NULL. FT_EDATA names file and
 * line.
 */
int ft_prepare_file(const struct ft_prepare *p, int n, const char *path,
                    const char *const (*meta)[2], int n_meta, struct ft_audit *audits,
                    ft_audits_fn *check, void *ctx);
/* The same documents, without writing them. */
int ft_prepare_each(const struct ft_prepare *p, ft_document_fn *each, void *ctx,
                    struct ft_audit *audit);

/* The first audit in a prepared dataset's metadata. false: it is not there, damaged, or of another
 * key. */
bool ft_prepared_audit(const char *path, const char *key, struct ft_audit *audit);

#endif
