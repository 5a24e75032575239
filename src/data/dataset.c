/* Owns checking and reading tokenized datasets, and the validation split. */
#include "data/data.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/rng.h"
#include "io/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

struct ft_dataset_file {
    struct ft_st *f;
    const struct ft_st_entry *ids, *mask;
};

/* Checks go through a file with a window on its tokens. */
enum { WINDOW = 1 << 18 };
struct reader {
    struct ft_dataset *d;
    const char *path;
    const struct ft_dataset_file *file;
    struct ft_limits limits;
    int32_t *ids;
    uint8_t *mask;
    int64_t at, n, room, all; /* the window, and the file's tokens */
    uint32_t crc;
    bool refused; /* for its length: the file is sound */
};

static int invalid(const struct reader *r, const char *fmt, long long a, long long b)
{
    char text[256];
    snprintf(text, sizeof text, fmt, a, b);
    return ft_fail_at((struct ft_where){.file = r->path}, FT_EDATA, "%s", text);
}

static int find(const struct reader *r, const struct ft_st *f, const char *name,
                enum ft_dtype dtype, const struct ft_st_entry **out)
{
    const struct ft_where at = {.file = r->path};
    *out = ft_st_find(f, name);
    if (!*out) {
        ft_fail_at(at, FT_EDATA, "has no tensor '%s'", name);
        ft_hint(
            "a tokenized dataset has input_ids I32 (N), offsets I64 (D+1) and loss_mask U8 (N)");
        return FT_EDATA;
    }
    if ((*out)->dtype != dtype || (*out)->n_dims != 1)
        return ft_fail_at(at, FT_EDATA, "tensor '%s' is %s with %d dimensions, %s with 1 is needed",
                          name, (*out)->dtype_name, (*out)->n_dims, ft_dtype_name(dtype));
    return FT_OK;
}

/* What would be left out although it says what is trained, or how. */
static int check_tensors(const struct reader *r, const struct ft_st *f)
{
    static const char *const known[] = {"input_ids", "offsets", "loss_mask", "source"};
    static const char *const said[] = {"labels", "attention_mask", "position_ids"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        if (!ft_st_find(f, said[i]))
            continue;
        ft_fail_at((struct ft_where){.file = r->path}, FT_EDATA,
                   "has a tensor '%s', which ft does not take from a tokenized file", said[i]);
        ft_hint("loss_mask says which tokens are trained, offsets where documents begin; positions "
                "begin at 0 in each document");
        return FT_EDATA;
    }
    for (int i = 0; i < ft_st_count(f); i++) {
        const char *name = ft_st_at(f, i)->name;
        bool is = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            is = is || strcmp(known[k], name) == 0;
        if (!is)
            ft_notice((struct ft_where){.file = r->path}, "tensor '%s' is not used", name);
    }
    return FT_OK;
}

static int64_t count_targets(const uint8_t *mask, int64_t length)
{
    int64_t n = 0;
    for (int64_t i = 1; i < length; i++)
        n += mask[i];
    return n;
}

/* Moves the window so that tokens from..from+n are in it. */
static int look_at(struct reader *r, int64_t from, int64_t n)
{
    if (from >= r->at && from + n <= r->at + r->n)
        return FT_OK;
    if (n > r->room || !r->room) {
        const int64_t room = n > WINDOW ? n : WINDOW;
        FT_TRY(ft_grow(&r->ids, (size_t)room, sizeof *r->ids));
        FT_TRY(ft_grow(&r->mask, (size_t)room, 1));
        r->room = room;
    }
    r->at = from;
    r->n = r->all - from < r->room ? r->all - from : r->room;
    const int64_t at = from;
    FT_TRY(ft_st_read(r->file->f, r->file->ids, at * 4, (size_t)r->n * 4, r->ids));
    return ft_st_read(r->file->f, r->file->mask, at, (size_t)r->n, r->mask);
}

static int check_tokens(const struct reader *r, int64_t doc, int64_t start, int64_t length)
{
    for (int64_t i = 0; i < length; i++) {
        int32_t id = r->ids[start - r->at + i];
        uint8_t m = r->mask[start - r->at + i];
        if (id < 0 || id >= r->d->vocab)
            return ft_fail_at((struct ft_where){.file = r->path}, FT_EDATA,
                              "document %lld, position %lld: token id %d is outside the model's "
                              "vocabulary (0..%lld)",
                              (long long)doc, (long long)i, id, (long long)r->d->vocab - 1);
        if (m > 1)
            return ft_fail_at((struct ft_where){.file = r->path}, FT_EDATA,
                              "document %lld, position %lld: loss_mask is %d, allowed 0 and 1",
                              (long long)doc, (long long)i, m);
    }
    return FT_OK;
}

/* Too long, and that is not allowed: with the record's own place if the file knows it. */
static int refuse_length(struct reader *r, int64_t doc, int64_t length)
{
    r->refused = true;
    const struct ft_st_entry *source = ft_st_find(r->file->f, "source");
    const char *text = ft_st_metadata(r->file->f, "ft"), *file = NULL;
    const char *why;
    json_t *all = NULL;
    if (text)
        FT_TRY(ft_json_within(&all, text, strlen(text), &why));
    int32_t at[2] = {0, 0};
    if (source && source->dtype == FT_I32 && source->n_dims == 2 && source->dims[1] == 2 &&
        doc < source->dims[0] && ft_st_read(r->file->f, source, doc * 8, sizeof at, at) == FT_OK)
        file = json_string_value(
            json_array_get(json_object_get(all, "files"), (size_t)(at[0] < 0 ? 0 : at[0])));
    if (file)
        ft_fail_at((struct ft_where){.file = file, .line = at[1]}, FT_EDATA,
                   "has %lld tokens, more than 'sequence_len', which is %lld", (long long)length,
                   (long long)r->limits.most);
    else
        invalid(r, "document %lld has %lld tokens, more than 'sequence_len'", doc, length);
    ft_hint("raise 'sequence_len', or set 'excess_length_strategy' to drop or truncate");
    json_decref(all);
    return FT_EDATA;
}

uint32_t ft_tokens_crc(uint32_t crc, const int32_t *ids, const uint8_t *mask, size_t n)
{
    if (n == 0) /* NULL would begin anew */
        return crc;
    crc = (uint32_t)crc32_z(crc, (const unsigned char *)ids, n * sizeof *ids);
    return (uint32_t)crc32_z(crc, mask, n);
}

static int add_document(struct reader *r, int64_t doc, int64_t start, int64_t length)
{
    struct ft_dataset *d = r->d;
    int32_t number = (int32_t)d->read++;
    FT_TRY(look_at(r, start, length));
    FT_TRY(check_tokens(r, doc, start, length));
    r->crc =
        ft_tokens_crc(r->crc, r->ids + (start - r->at), r->mask + (start - r->at), (size_t)length);
    if (length == 0) {
        d->empty++;
        return FT_OK;
    }
    if (length < r->limits.least) {
        d->too_short++;
        return FT_OK;
    }
    if (length > r->limits.most) {
        if (r->limits.excess == FT_EXCESS_RAISE)
            return refuse_length(r, doc, length);
        if (r->limits.excess == FT_EXCESS_DROP) {
            d->dropped++;
            return FT_OK;
        }
        d->truncated++;
    }
    const int64_t all = length;
    length = length > r->limits.most ? r->limits.most : length;
    const uint8_t *mask = r->mask + (start - r->at);
    const int64_t targets = count_targets(mask, length);
    if (targets == 0) {
        d->untrained++;
        d->cut_off += count_targets(mask, all) > 0;
        return FT_OK;
    }
    bool known = false;
    if (r->limits.seen)
        FT_TRY(ft_seen_add(r->limits.seen, r->ids + (start - r->at), mask, (size_t)length, &known));
    if (known) {
        d->repeated++;
        return FT_OK;
    }
    d->trained_tokens += targets;
    d->longest = length > d->longest ? length : d->longest;
    d->docs[d->n_docs++] =
        (struct ft_document){start, (int32_t)length, number, d->n_files, (int32_t)targets};
    return FT_OK;
}

static int check_offsets(const struct reader *r, const int64_t *offsets, int64_t docs,
                         int64_t tokens)
{
    if (offsets[0] != 0)
        return invalid(r, "offsets[0] is %lld, it must be 0", offsets[0], 0);
    for (int64_t i = 0; i < docs; i++) {
        if (offsets[i + 1] < offsets[i])
            return invalid(r, "offsets[%lld] is %lld, less than the one before", i + 1,
                           offsets[i + 1]);
        if (offsets[i + 1] - offsets[i] > INT32_MAX / 4)
            return invalid(r, "document %lld has %lld tokens, too many", i,
                           offsets[i + 1] - offsets[i]);
    }
    if (offsets[docs] != tokens)
        return invalid(r, "the last offset is %lld, input_ids has %lld", offsets[docs], tokens);
    return FT_OK;
}

static int check_crc(const struct reader *r)
{
    const char *text = ft_st_metadata(r->file->f, "crc32");
    char own[16];
    snprintf(own, sizeof own, "%08x", r->crc);
    if (!text || strcmp(text, own) == 0)
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = r->path}, FT_EDATA,
                      "is damaged: its tokens have the checksum %s, not %s", own, text);
}

static int read_all(struct reader *r, struct ft_dataset_file *file)
{
    struct ft_dataset *d = r->d;
    const struct ft_st_entry *offs;
    int64_t *offsets = NULL;
    int rc;
    FT_TRY(check_tensors(r, file->f));
    FT_TRY(find(r, file->f, "input_ids", FT_I32, &file->ids));
    FT_TRY(find(r, file->f, "offsets", FT_I64, &offs));
    FT_TRY(find(r, file->f, "loss_mask", FT_U8, &file->mask));
    const int64_t n = file->ids->dims[0], docs = offs->dims[0] - 1;
    if (file->mask->dims[0] != n)
        return invalid(r, "loss_mask has %lld elements, input_ids %lld", file->mask->dims[0], n);
    if (docs < 0)
        return invalid(r, "offsets is empty; it has one element more than there are documents", 0,
                       0);
    if (d->read + docs > INT32_MAX)
        return invalid(r, "%lld documents are too many (at most %lld)", d->read + docs, INT32_MAX);
    r->all = n;
    FT_TRY(ft_grow(&d->docs, (size_t)(d->n_docs + docs), sizeof *d->docs));
    FT_TRY(ft_alloc(&offsets, (size_t)docs + 1, sizeof *offsets));
    FT_GO(ft_st_read(file->f, offs, 0, (size_t)(docs + 1) * 8, offsets));
    FT_GO(check_offsets(r, offsets, docs, n));
    for (int64_t i = 0; i < docs; i++)
        FT_GO(add_document(r, i, offsets[i], offsets[i + 1] - offsets[i]));
    FT_GO(check_crc(r));
    d->n_tokens += n;
out:
    if (rc == FT_EDATA && !r->refused && ft_st_metadata(file->f, "key"))
        ft_hint("ft made this file from text: delete it, and it is made again");
    ft_free(offsets);
    return rc;
}

int ft_dataset_read(struct ft_dataset *d, const char *path, int64_t vocab,
                    const struct ft_limits *limits)
{
    struct ft_dataset_file file = {NULL, NULL, NULL};
    struct reader r = {.d = d, .path = path, .file = &file, .limits = *limits};
    d->vocab = vocab;
    FT_TRY(ft_grow(&d->files, (size_t)d->n_files + 1, sizeof *d->files));
    FT_TRY(ft_st_open(&file.f, path));
    int rc = read_all(&r, &file);
    ft_free(r.ids);
    ft_free(r.mask);
    if (rc)
        ft_st_close(file.f);
    else {
        const bool own = ft_st_metadata(file.f, "key") == NULL;
        d->tokens_only = own && (d->tokens_only || d->n_files == 0);
        d->files[d->n_files++] = file;
    }
    return rc;
}

int ft_dataset_check(const struct ft_dataset *d, struct ft_where at)
{
    if (d->n_docs)
        return FT_OK;
    ft_fail_at(at, FT_EDATA,
               "nothing to train on: of %lld documents %lld are empty, %lld have no trained token, "
               "%lld have them all beyond 'sequence_len', %lld are too long, %lld too short",
               (long long)d->read, (long long)d->empty, (long long)(d->untrained - d->cut_off),
               (long long)d->cut_off, (long long)d->dropped, (long long)d->too_short);
    if (d->cut_off)
        ft_hint("truncating cuts every answer off: raise 'sequence_len'");
    else if (d->dropped)
        ft_hint("raise 'sequence_len', or set 'excess_length_strategy: truncate'");
    else if (d->untrained && d->tokens_only)
        ft_hint("loss_mask is 1 for the tokens to learn; a document's first token never counts");
    else if (d->untrained)
        ft_hint("'ft data CONFIG --show 3' shows what is trained on");
    return FT_EDATA;
}

const char *ft_dataset_metadata(const struct ft_dataset *d, const char *key)
{
    return d->n_files ? ft_st_metadata(d->files[d->n_files - 1].f, key) : NULL;
}

int ft_dataset_tokens(const struct ft_dataset *d, const struct ft_document *doc, int32_t *ids,
                      uint8_t *mask)
{
    const size_t n = (size_t)doc->length;
    if (doc->file < 0) {
        memcpy(ids, d->ids + doc->start, n * sizeof *ids);
        memcpy(mask, d->mask + doc->start, n);
        return FT_OK;
    }
    const struct ft_dataset_file *file = &d->files[doc->file];
    FT_TRY(ft_st_read(file->f, file->ids, doc->start * 4, n * 4, ids));
    FT_TRY(ft_st_read(file->f, file->mask, doc->start, n, mask));
    bool same = true;
    int32_t targets = 0;
    for (size_t i = 0; i < n; i++) {
        same = same && ids[i] >= 0 && ids[i] < d->vocab && mask[i] <= 1;
        targets += i > 0 && mask[i];
    }
    if (same && targets == doc->targets)
        return FT_OK;
    ft_fail_at((struct ft_where){.file = ft_st_path(file->f)}, FT_ERESOURCE,
               "has changed since it was checked: document %d", doc->number);
    ft_hint("do not write to a dataset while it is trained on");
    return FT_ERESOURCE;
}

int ft_dataset_make(struct ft_dataset *d, int64_t n, int64_t length, int64_t vocab, uint64_t seed)
{
    struct ft_rng rng = ft_rng_init(seed, FT_RNG_TEST, 0, 0);
    const size_t tokens = (size_t)(n * length);
    *d = (struct ft_dataset){.n_tokens = n * length, .n_docs = n, .read = n, .longest = length};
    int rc = ft_alloc(&d->ids, tokens, sizeof *d->ids);
    if (!rc)
        rc = ft_alloc(&d->mask, tokens, sizeof *d->mask);
    if (!rc)
        rc = ft_alloc(&d->docs, (size_t)n, sizeof *d->docs);
    if (rc) {
        ft_dataset_fini(d);
        return rc;
    }
    for (size_t i = 0; i < tokens; i++) {
        d->ids[i] = (int32_t)ft_rng_below(&rng, (uint32_t)vocab);
        d->mask[i] = 1;
    }
    for (int64_t i = 0; i < n; i++)
        d->docs[i] =
            (struct ft_document){i * length, (int32_t)length, (int32_t)i, -1, (int32_t)length - 1};
    d->trained_tokens = n * (length - 1);
    return FT_OK;
}

void ft_dataset_fini(struct ft_dataset *d)
{
    for (int i = 0; i < d->n_files && !d->borrowed; i++)
        ft_st_close(d->files[i].f);
    if (!d->borrowed) {
        ft_free(d->files);
        ft_free(d->ids);
        ft_free(d->mask);
    }
    ft_free(d->docs);
    *d = (struct ft_dataset){0};
}

static void summarise(struct ft_dataset *d)
{
    d->trained_tokens = d->longest = 0;
    for (int64_t i = 0; i < d->n_docs; i++) {
        d->trained_tokens += d->docs[i].targets;
        if (d->docs[i].length > d->longest)
            d->longest = d->docs[i].length;
    }
}

int ft_dataset_split(struct ft_dataset *d, struct ft_dataset *held, double share, uint64_t seed)
{
    const int64_t n = d->n_docs;
    int64_t take = share < 1 ? (int64_t)ceil(share * (double)n) : (int64_t)share;
    uint8_t *out;
    int32_t *order;
    if (take >= n)
        return ft_fail(FT_ECONFIG,
                       "'val_set_size' would hold out %lld of %lld documents: nothing is left to "
                       "train on",
                       (long long)take, (long long)n);
    FT_TRY(ft_alloc(&order, (size_t)n, sizeof *order + 1));
    out = (uint8_t *)(order + n);
    struct ft_rng rng = ft_rng_init(seed, FT_RNG_SHUFFLE, 0xffffffffu, 0);
    for (int64_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = ft_rng_below(&rng, (uint32_t)i + 1);
        int32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (int64_t i = n - take; i < n; i++)
        out[order[i]] = 1;
    int rc = ft_alloc(&held->docs, (size_t)take, sizeof *held->docs);
    if (!rc) {
        int64_t kept = 0;
        for (int64_t i = 0; i < n; i++) {
            if (out[i])
                held->docs[held->n_docs++] = d->docs[i];
            else
                d->docs[kept++] = d->docs[i];
        }
        d->n_docs = kept;
        held->borrowed = true;
        held->files = d->files;
        held->n_files = d->n_files;
        held->vocab = d->vocab;
        held->ids = d->ids;
        held->mask = d->mask;
        summarise(d);
        summarise(held);
    }
    ft_free(order);
    return rc;
}
