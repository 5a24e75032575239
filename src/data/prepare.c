/* Reads records, tokenizes them on all threads, and writes them in their order. */
#include "data/prepare.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "data/data.h"
#include "io/records.h"
#include "io/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_RECORDS = 1024, BATCH_BYTES = 8 << 20, REPORTS = 5 };

/* A record on its way. */
struct slot {
    struct ft_raw raw;
    struct ft_sample sample;
    int rc;
    char *report; /* of what went wrong */
};

struct work {
    const struct ft_prepare *p;
    struct ft_records *records;
    struct slot *slots;
    int n_slots;
    _Atomic int next;
    struct ft_tokenizer **tokenizers; /* one a thread */
    const char *file;
    int file_number, first_file; /* among all files, of all entries */
    int64_t seen, from, to;      /* records: so far, and those that are taken */
    /* where documents go: a function, or these */
    ft_document_fn *each;
    void *each_ctx;
    bool enough;
    struct ft_spool ids, mask, offsets, source;
    uint32_t crc; /* of each document's ids and mask, one after the other */
    int64_t tokens;
    struct ft_audit *audit;
    char *reports[REPORTS]; /* of the first records that cannot be used */
    int n_reports;
};

/* --- slices --- */

static bool parse_bound(const char **p, double *out, bool *has, bool *percent)
{
    char *end;
    *has = false;
    if (**p == ':' || **p == ']')
        return true;
    if ((*p)[strspn(*p, "+-0123456789.")] != '%' && (*p)[strspn(*p, "-0123456789")] != ':' &&
        (*p)[strspn(*p, "-0123456789")] != ']')
        return false;
    *out = strtod(*p, &end);
    if (end == *p || !isfinite(*out))
        return false;
    *has = true;
    if (*end == '%') {
        *percent = true;
        end++;
    } else if (*percent || *out != floor(*out)) {
        return false;
    }
    *p = end;
    return true;
}

int ft_slice_parse(struct ft_slice *s, size_t *name, const char *split)
{
    const char *p = strchr(split, '[');
    bool percent_to = false;
    *s = (struct ft_slice){0};
    *name = p ? (size_t)(p - split) : strlen(split);
    if (!p && *name)
        return FT_OK;
    bool good =
        p && p++ > split && parse_bound(&p, &s->from, &s->has_from, &s->percent) && *p == ':';
    if (good) {
        p++;
        good = parse_bound(&p, &s->to, &s->has_to, &percent_to) && strcmp(p, "]") == 0;
    }
    if (good && s->has_from && s->has_to && s->percent != percent_to)
        good = false;
    s->percent = s->percent || percent_to;
    if (good && s->percent && (fabs(s->from) > 100 || fabs(s->to) > 100))
        good = false;
    if (good)
        return FT_OK;
    ft_fail(FT_ECONFIG, "'split' is '%s'", split);
    ft_hint("a split is a name, and may have a slice behind it: train[:1000], train[10%%:50%%], "
            "train[-100:]");
    return FT_ECONFIG;
}

static int64_t bound(double v, bool percent, int64_t n)
{
    double at = percent ? nearbyint(v / 100 * (double)n) : v; /* to even, as Python rounds */
    if (at < 0)
        at += (double)n;
    return at < 0 ? 0 : at >= (double)n ? n : (int64_t)at;
}

/* How many records there are in all files. */
static int count_records(const struct ft_prepare *p, int64_t *n)
{
    struct ft_raw raw = {0};
    int rc = FT_OK;
    *n = 0;
    for (const char *const *file = p->files; *file && !rc; file++) {
        struct ft_records *r;
        bool more = true;
        rc = ft_records_open(&r, *file, p->file_type);
        while (!rc && more) {
            rc = ft_records_next(r, &raw, &more);
            *n += !rc && more;
        }
        ft_records_close(r);
    }
    ft_raw_free(&raw);
    return rc;
}

static int find_range(struct work *w)
{
    const struct ft_slice *s = &w->p->slice;
    int64_t n = INT64_MAX;
    if (s->percent || s->from < 0 || s->to < 0)
        FT_TRY(count_records(w->p, &n));
    w->from = s->has_from ? bound(s->from, s->percent, n) : 0;
    w->to = s->has_to ? bound(s->to, s->percent, n) : n;
    w->to = w->to < w->from ? w->from : w->to;
    return FT_OK;
}

/* --- a batch of records, on all threads --- */

static void sample_slot(struct work *w, struct ft_tokenizer *t, struct slot *s)
{
    const struct ft_where at = {.file = w->file, .line = s->raw.line};
    const unsigned since = ft_alloc_failures();
    json_t *record = NULL;
    char prefix[64];
    ft_status_place(at);
    s->rc = ft_record_parse(w->records, &s->raw, &record);
    if (!s->rc)
        s->rc = ft_format_sample(w->p->format, t, record, &s->sample);
    if (!s->rc || s->rc == FT_EDATA) /* some of what failed may have been taken for another way */
        s->rc = ft_alloc_check(since) ? FT_ERESOURCE : s->rc;
    json_decref(record);
    if (s->rc) {
        /* a template's errors have the template's place */
        snprintf(prefix, sizeof prefix, ":%d:", s->raw.line);
        if (!strstr(ft_status_report(), w->file) || !strstr(ft_status_report(), prefix))
            ft_fail(FT_EDATA, "the record cannot be used");
        s->report = ft_strdup(ft_status_report());
        ft_status_clear_errors();
    }
    ft_status_place((struct ft_where){0});
}

static void sample_piece(void *arg, int64_t piece, void *scratch)
{
    struct work *w = arg;
    (void)scratch;
    for (int i; (i = w->next++) < w->n_slots;)
        sample_slot(w, w->tokenizers[piece], &w->slots[i]);
}

/* The next records that are taken; *more false: the file has no more. */
static int read_batch(struct work *w, bool *more)
{
    size_t bytes = 0;
    w->n_slots = 0;
    *more = w->from < w->to && w->seen < w->to;
    while (*more && w->n_slots < BATCH_RECORDS && bytes < BATCH_BYTES) {
        struct slot *s = &w->slots[w->n_slots];
        FT_TRY(ft_records_next(w->records, &s->raw, more));
        if (*more && w->seen++ >= w->from) {
            bytes += s->raw.length;
            w->n_slots++;
        }
        *more = *more && w->seen < w->to;
    }
    return FT_OK;
}

/* --- documents --- */

static int put_document(struct work *w, const struct ft_sample *s, size_t from, size_t to, int line)
{
    const size_t n = to - from;
    const int32_t source[2] = {w->file_number, line};
    int64_t trained = 0;
    ft_audit_add(w->audit, s, from, to);
    for (size_t i = from + 1; i < to; i++)
        trained += s->mask[i];
    if (n == 0)
        ft_audit_find(w->audit, FT_NO_TEXT, w->file, line);
    else if (trained == 0)
        ft_audit_find(w->audit, FT_NOT_TRAINED, w->file, line);
    if (w->each) {
        w->enough = !w->each(w->each_ctx, s, from, to, w->file, line);
        return FT_OK;
    }
    w->tokens += (int64_t)n;
    w->crc = ft_tokens_crc(w->crc, s->ids.v + from, s->mask + from, n);
    FT_TRY(ft_spool_put(&w->ids, s->ids.v + from, n * sizeof *s->ids.v));
    FT_TRY(ft_spool_put(&w->mask, s->mask + from, n));
    FT_TRY(ft_spool_put(&w->offsets, &w->tokens, sizeof w->tokens));
    return ft_spool_put(&w->source, source, sizeof source);
}

static void find_problems(struct work *w, const struct ft_sample *s, int line)
{
    const struct ft_ids *ids = &s->ids;
    const int32_t bos = w->p->bos;
    if (bos >= 0 && ids->n > 1 && ids->v[0] == bos && ids->v[1] == bos)
        ft_audit_find(w->audit, FT_DOUBLE_BOS, w->file, line);
    ft_audit_add_turns(w->audit, s, w->file, line);
    if (s->wordless)
        ft_audit_find(w->audit, FT_EMPTY_TURN, w->file, line);
    if (ft_format_has_turns(w->p->format) && s->ended < s->turns)
        ft_audit_find(w->audit, FT_UNENDED_TURN, w->file, line);
    if (s->borders)
        ft_audit_find(w->audit, FT_PROMPT_BORDER, w->file, line);
}

static int put_sample(struct work *w, const struct slot *slot)
{
    const struct ft_sample *s = &slot->sample;
    const size_t chunk = ft_format_cuts(w->p->format) ? (size_t)w->p->sequence_len : s->ids.n + 1;
    size_t at = 0;
    find_problems(w, s, slot->raw.line);
    do {
        const size_t end = s->ids.n - at > chunk ? at + chunk : s->ids.n;
        FT_TRY(put_document(w, s, at, end, slot->raw.line));
        at = end;
    } while (at < s->ids.n && !w->enough);
    return FT_OK;
}

static int put_slot(struct work *w, struct slot *s)
{
    const int rc = s->rc;
    w->audit->records++;
    if (!rc)
        return put_sample(w, s);
    if (rc != FT_EDATA) {
        ft_status_add(s->report ? s->report : "error: out of memory");
    } else {
        ft_audit_find(w->audit, FT_BAD_RECORD, w->file, s->raw.line);
        if (w->n_reports < REPORTS) {
            w->reports[w->n_reports++] = s->report;
            s->report = NULL;
        }
    }
    ft_free(s->report);
    s->report = NULL;
    s->rc = FT_OK;
    return rc == FT_EDATA ? FT_OK : rc;
}

/* More records that cannot be used than may be left out. */
static int check_bad(struct work *w)
{
    const int64_t bad = w->audit->found[FT_BAD_RECORD].count;
    if (bad <= w->p->skip_bad)
        return FT_OK;
    for (int i = 0; i < w->n_reports; i++)
        ft_status_add(w->reports[i] ? w->reports[i] : "error: out of memory");
    ft_fail_at((struct ft_where){.file = w->p->files[0]}, FT_EDATA,
               "%lld of %lld records%s cannot be used%s", (long long)bad,
               (long long)w->audit->records, w->p->files[1] ? " (of all files)" : "",
               bad > REPORTS ? "; the first five are above" : "");
    if (w->p->skip_bad)
        ft_hint("'skip_bad_records' allows %lld", (long long)w->p->skip_bad);
    else if (bad < w->audit->records)
        ft_hint("'skip_bad_records: %lld' leaves them out", (long long)bad);
    else
        ft_hint(
            "all of them: 'type', the 'field_' keys or the template may not fit the file ('ft init "
            "MODEL %s' finds out which do); 'skip_bad_records' is for single ones",
            w->p->files[0]);
    return FT_EDATA;
}

/* Gives memory back that only large records need. */
static void shrink_slot(struct slot *s)
{
    enum { KEPT = 1 << 14 };
    if (s->raw.room > KEPT)
        ft_raw_free(&s->raw);
    if (s->sample.ids.room > KEPT)
        ft_sample_free(&s->sample);
}

/* --- files --- */

static int run_file(struct work *w)
{
    bool more = true;
    FT_TRY(ft_records_open(&w->records, w->file, w->p->file_type));
    int rc = FT_OK;
    while (more && !rc && !w->enough) {
        rc = read_batch(w, &more);
        w->next = 0;
        if (!rc && w->n_slots)
            ft_pool_run(w->p->pool, ft_pool_size(w->p->pool), sample_piece, w);
        for (int i = 0; i < w->n_slots && !rc && !w->enough; i++)
            rc = put_slot(w, &w->slots[i]);
        for (int i = 0; i < w->n_slots; i++)
            shrink_slot(&w->slots[i]);
        if (!rc && w->p->progress)
            w->p->progress(w->p->progress_ctx, ft_records_share(w->records), w->audit->documents,
                           w->audit->tokens);
    }
    ft_records_close(w->records);
    if (w->p->progress)
        w->p->progress(w->p->progress_ctx, 1, w->audit->documents, w->audit->tokens);
    return rc;
}

static int open_work(struct work *w)
{
    const int threads = ft_pool_size(w->p->pool);
    FT_TRY(ft_alloc(&w->slots, BATCH_RECORDS, sizeof *w->slots));
    FT_TRY(ft_alloc(&w->tokenizers, (size_t)threads, sizeof *w->tokenizers));
    for (int i = 0; i < threads; i++)
        FT_TRY(ft_tokenizer_share(&w->tokenizers[i], w->p->tokenizer));
    return find_range(w);
}

static void close_work(struct work *w)
{
    for (int i = 0; w->slots && i < BATCH_RECORDS; i++) {
        ft_raw_free(&w->slots[i].raw);
        ft_sample_free(&w->slots[i].sample);
        ft_free(w->slots[i].report);
    }
    for (int i = 0; w->tokenizers && i < ft_pool_size(w->p->pool); i++)
        ft_tokenizer_close(w->tokenizers[i]);
    for (int i = 0; i < w->n_reports; i++)
        ft_free(w->reports[i]);
    w->n_reports = 0;
    ft_free(w->slots);
    ft_free(w->tokenizers);
    w->slots = NULL;
    w->tokenizers = NULL;
}

static int run(struct work *w)
{
    int rc = open_work(w);
    for (int i = 0; w->p->files[i] && !rc && !w->enough && w->seen < w->to; i++) {
        w->file = w->p->files[i];
        w->file_number = w->first_file + i;
        rc = run_file(w);
    }
    if (!rc)
        rc = check_bad(w);
    close_work(w);
    return rc;
}

int ft_prepare_each(const struct ft_prepare *p, ft_document_fn *each, void *ctx,
                    struct ft_audit *audit)
{
    struct work w = {.p = p, .each = each, .each_ctx = ctx, .audit = audit};
    *audit = (struct ft_audit){0};
    return run(&w);
}

/* --- the tokenized dataset --- */

/* {"audit": [...], "files": [...]} as a text; freed with free. */
static char *describe(const struct ft_prepare *p, int n, const struct ft_audit *audits)
{
    const unsigned since = ft_alloc_failures();
    json_t *files = json_array(), *list = json_array(), *all;
    for (int i = 0; i < n; i++) {
        json_array_append_new(list, ft_audit_json(&audits[i]));
        for (const char *const *f = p[i].files; *f; f++)
            json_array_append_new(files, json_string(*f));
    }
    all = json_pack("{soso}", "audit", list, "files", files);
    char *text = ft_json_dumps(all, JSON_COMPACT, since);
    json_decref(all);
    return text;
}

static int write_dataset(struct work *w, const char *path, const char *const (*meta)[2], int n_meta,
                         const char *description)
{
    const int64_t docs = w->offsets.bytes / (int64_t)sizeof w->tokens - 1;
    const char *all[16][2];
    char crc[16];
    FT_ASSERT(n_meta < 14);
    snprintf(crc, sizeof crc, "%08x", w->crc);
    for (int i = 0; i < n_meta; i++)
        memcpy(all[i], meta[i], sizeof *all);
    all[n_meta][0] = "ft";
    all[n_meta][1] = description;
    all[n_meta + 1][0] = "crc32";
    all[n_meta + 1][1] = crc;
    struct ft_st_item items[] = {
        {.name = "input_ids", .dtype = FT_I32, .n_dims = 1, .dims = {w->tokens}, .spool = &w->ids},
        {.name = "loss_mask", .dtype = FT_U8, .n_dims = 1, .dims = {w->tokens}, .spool = &w->mask},
        {.name = "offsets", .dtype = FT_I64, .n_dims = 1, .dims = {docs + 1}, .spool = &w->offsets},
        {.name = "source", .dtype = FT_I32, .n_dims = 2, .dims = {docs, 2}, .spool = &w->source},
    };
    return ft_st_write(path, items, 4, (const char *const(*)[2])all, n_meta + 2);
}

int ft_prepare_file(const struct ft_prepare *p, int n, const char *path,
                    const char *const (*meta)[2], int n_meta, struct ft_audit *audits,
                    ft_audits_fn *check, void *ctx)
{
    struct work w = {.p = p,
                     .ids = FT_SPOOL_CLOSED,
                     .mask = FT_SPOOL_CLOSED,
                     .offsets = FT_SPOOL_CLOSED,
                     .source = FT_SPOOL_CLOSED};
    const int64_t zero = 0;
    char *text = NULL;
    int rc;
    FT_GO(ft_spool_open(&w.ids, path));
    FT_GO(ft_spool_open(&w.mask, path));
    FT_GO(ft_spool_open(&w.offsets, path));
    FT_GO(ft_spool_open(&w.source, path));
    FT_GO(ft_spool_put(&w.offsets, &zero, sizeof zero));
    for (int i = 0; i < n; i++) {
        audits[i] = (struct ft_audit){0};
        w.p = &p[i];
        w.audit = &audits[i];
        w.seen = 0;
        FT_GO(run(&w));
        for (const char *const *f = p[i].files; *f; f++)
            w.first_file++;
    }
    FT_GO(check ? check(ctx, audits, n) : FT_OK);
    text = describe(p, n, audits);
    FT_GO(text ? FT_OK : FT_ERESOURCE);
    FT_GO(write_dataset(&w, path, meta, n_meta, text));
out:
    ft_json_free(text);
    ft_spool_close(&w.ids);
    ft_spool_close(&w.mask);
    ft_spool_close(&w.offsets);
    ft_spool_close(&w.source);
    return rc;
}

bool ft_prepared_audit(const char *path, const char *key, struct ft_audit *audit)
{
    struct ft_st *f;
    json_t *all = NULL;
    const char *why;
    if (ft_st_open(&f, path)) {
        ft_status_clear_errors();
        return false;
    }
    const char *text = ft_st_metadata(f, "ft");
    if (text && ft_json_within(&all, text, strlen(text), &why))
        ft_status_clear_errors();
    const char *own = ft_st_metadata(f, "key");
    const bool good = own && strcmp(own, key) == 0 &&
                      ft_audit_from_json(audit, json_array_get(json_object_get(all, "audit"), 0));
    json_decref(all);
    ft_st_close(f);
    return good;
}
