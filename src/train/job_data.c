/* The data of a job: its entries read and checked, and how documents are batched. */
#include "train/internal.h"

#include "core/mem.h"
#include "io/tokenizer_check.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

/* What the reading of the documents will not say. */
static void report_audit(const struct ft_dataset_config *entry, const struct ft_audit *a)
{
    static const enum ft_problem told[] = {FT_BAD_RECORD, FT_PROMPT_BORDER, FT_UNENDED_TURN,
                                           FT_DOUBLE_BOS, FT_EMPTY_TURN};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        if (a->found[told[i]].count)
            ft_notice((struct ft_where){.file = entry->path}, "%lld of %lld %s; the first: %s",
                      (long long)a->found[told[i]].count, (long long)a->records,
                      ft_problems[told[i]].what, a->found[told[i]].first);
    for (int k = 0; k < FT_SPEAKERS * FT_PARTS; k++) {
        const struct ft_found *f = &a->unrendered[k / FT_PARTS][k % FT_PARTS];
        char name[64];
        if (f->count)
            ft_notice((struct ft_where){.file = entry->path},
                      "%lld of %lld documents: the template leaves out %s; the first: %s",
                      (long long)f->count, (long long)a->documents,
                      ft_unrendered_name(name, k / FT_PARTS, k % FT_PARTS), f->first);
    }
}

/* A tokenized file of another tokenizer has other words for the same ids. */
static int check_tokenizer(const struct ft_job *j, const struct ft_dataset *d, const char *file)
{
    const char *said = ft_dataset_metadata(d, "tokenizer_sha256");
    char own[65];
    if (!said || !*said)
        return FT_OK;
    FT_TRY(ft_tokenizer_sha256(j->model_path, own));
    if (!*own || strcmp(own, said) == 0)
        return FT_OK;
    ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
               "was tokenized with another tokenizer (sha256 %.8s) than the model's (%.8s)", said,
               own);
    ft_hint("tokenize the text again for this model: 'ft data CONFIG -o FILE.safetensors'");
    return FT_EDATA;
}

/* An entry's tokens, from its own file or the one that its text became. */
static int read_entry(struct ft_job *j, struct ft_dataset *d, const struct ft_dataset_config *entry,
                      const struct ft_texts *t, struct ft_seen *seen)
{
    const struct ft_config *c = j->config;
    const struct ft_limits limits = {c->min_sample_len, c->sequence_len,
                                     (enum ft_excess)c->excess_length_strategy,
                                     c->dataset_exact_deduplication ? seen : NULL};
    struct ft_job_data *data = &j->data[j->n_data++];
    struct ft_source s;
    char *prepared = NULL;
    int rc = ft_source_open(&s, t, c, entry);
    if (!rc && (data->text = ft_source_is_text(entry))) {
        rc = ft_source_prepared(&prepared, &s, t, &data->audit);
        ft_status_place(entry->at);
        if (!rc)
            rc = ft_audit_check(&data->audit, c->allow_data_problems);
        ft_status_place((struct ft_where){0});
        if (!rc)
            report_audit(entry, &data->audit);
        if (!rc && d == &j->train)
            rc = ft_served_note(&j->served, &s, &data->audit);
    }
    for (char **file = s.files; file && *file && !rc; file++) {
        rc = ft_dataset_read(d, prepared ? prepared : *file, ft_model_decoder(j->model)->vocab,
                             &limits);
        if (prepared)
            break; /* it has them all */
        if (!rc)
            rc = check_tokenizer(j, d, *file);
    }
    data->files = s.files;
    s.files = NULL;
    ft_source_close(&s);
    ft_free(prepared);
    return rc;
}

static int read_list(struct ft_job *j, struct ft_dataset *d, const struct ft_dataset_config *list,
                     int n, const struct ft_texts *t)
{
    struct ft_seen seen = {0};
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++)
        rc = read_entry(j, d, &list[i], t, &seen);
    ft_seen_fini(&seen);
    return rc;
}

static bool has_text(const struct ft_dataset_config *list, int n)
{
    for (int i = 0; i < n; i++)
        if (ft_source_is_text(&list[i]))
            return true;
    return false;
}

/* All entries; the tokenizer is gone again before the weights come. */
static int read_data(struct ft_job *j, const struct ft_job_hooks *hooks)
{
    const struct ft_config *c = j->config;
    struct ft_texts t = {.folder = NULL};
    const size_t n = (size_t)(c->n_datasets + c->n_test_datasets);
    FT_TRY(ft_alloc(&j->data, n + 1, sizeof *j->data));
    int rc = FT_OK;
    const bool text =
        has_text(c->datasets, c->n_datasets) || has_text(c->test_datasets, c->n_test_datasets);
    if (text)
        rc = ft_texts_open(&t, c, j->model_path, j->pool);
    if (hooks) {
        t.progress = hooks->progress;
        t.progress_ctx = hooks->ctx;
    }
    if (!rc)
        rc = read_list(j, &j->train, c->datasets, c->n_datasets, &t);
    if (!rc)
        rc = read_list(j, &j->held, c->test_datasets, c->n_test_datasets, &t);
    if (!rc && text)
        rc = ft_served_settle(&j->served, &t);
    ft_texts_close(&t);
    if (!rc)
        rc = ft_served_check(&j->served, c, j->model_path, ft_model_decoder(j->model)->vocab);
    if (text)
        malloc_trim(0); /* a tokenizer is many small pieces, and the heap would keep them */
    return rc;
}

/* Documents that were left out, said once. */
static void report_left_out(const struct ft_dataset *d, const char *what)
{
    const struct {
        int64_t n;
        const char *why;
    } counts[] = {{d->empty, "are empty and left out"},
                  {d->untrained - d->cut_off, "have nothing to train on and are left out"},
                  {d->cut_off, "have all they train on beyond 'sequence_len' and are left out"},
                  {d->too_short, "are shorter than 'min_sample_len' and left out"},
                  {d->repeated, "have been there before and are left out"},
                  {d->dropped, "are longer than 'sequence_len' and dropped"},
                  {d->truncated, "are longer than 'sequence_len' and cut"}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].n)
            ft_notice((struct ft_where){0}, "%s: %lld of %lld documents %s", what,
                      (long long)counts[i].n, (long long)d->read, counts[i].why);
}

/* A learned table of positions has an end, which no document may pass. */
static int check_positions(const struct ft_job *j)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    int64_t longest = j->train.longest > j->held.longest ? j->train.longest : j->held.longest;
    if (!d->positions || longest <= d->positions - d->first_position)
        return FT_OK;
    ft_fail_at(ft_config_where(j->config, "sequence_len"), FT_EDATA,
               "the longest document has %lld tokens, and the model has learned %lld positions",
               (long long)longest, (long long)(d->positions - d->first_position));
    ft_hint("set 'sequence_len' to %lld or less", (long long)(d->positions - d->first_position));
    return FT_EDATA;
}

static void report_context(const struct ft_job *j)
{
    int64_t longest = j->train.longest > j->held.longest ? j->train.longest : j->held.longest;
    int64_t context = ft_model_decoder(j->model)->max_positions;
    if (longest > context)
        ft_notice((struct ft_where){0},
                  "the longest document has %lld tokens, more than the model's context of %lld",
                  (long long)longest, (long long)context);
}

static int check_enough(const struct ft_job *j)
{
    const struct ft_dataset *d = &j->train;
    const struct ft_where at = ft_config_where(j->config, "datasets");
    FT_TRY(ft_dataset_check(d, at));
    if (!j->batching.packing && d->n_docs < j->batching.micro_batch_size) {
        ft_fail_at(at, FT_EDATA, "%lld documents are fewer than one micro-batch of %lld",
                   (long long)d->n_docs, (long long)j->batching.micro_batch_size);
        ft_hint("lower 'micro_batch_size'");
        return FT_EDATA;
    }
    return FT_OK;
}

/* Rows that make products run at full rate without keeping more activations than that takes. A
 * device wants a whole micro-batch at once: its user chooses it by what fits. So does a loss that
 * is not a sum over documents. */
static int64_t pass_rows(const struct ft_job *j)
{
    enum { HOST_ROWS = 512, DEVICE_ROWS = 2048, EXPERT_ROWS = 64 };
    const struct ft_batching *b = &j->batching;
    const struct ft_mixture *m = &ft_model_decoder(j->model)->mixture;
    if (!j->backend->dev && !m->balanced) {
        const int64_t wanted = m->count ? EXPERT_ROWS * m->count / m->each : HOST_ROWS;
        return wanted < HOST_ROWS ? HOST_ROWS : wanted > DEVICE_ROWS ? DEVICE_ROWS : wanted;
    }
    int64_t micro = b->micro_batch_size * (b->packing ? b->sequence_len : j->train.longest);
    return micro > DEVICE_ROWS ? micro : DEVICE_ROWS;
}

/* How the documents are batched, and what follows from it. */
int ft_job_open_batching(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    j->capacity = ft_pass_capacity(&j->train, &j->held, &j->batching,
                                   c->gradient_accumulation_steps, pass_rows(j));
    FT_TRY(ft_epoch_init(&j->epoch, j->train.n_docs));
    /* the documents' table; their tokens stay in the files, but for made ones */
    j->dataset_bytes = (size_t)(j->train.read + j->held.read) * sizeof *j->train.docs;
    j->dataset_bytes += j->train.ids ? (size_t)j->train.n_tokens * 5 : 0;
    j->epoch_bytes = (size_t)j->train.n_docs * (4 + 16 + 8 + 16);
    return FT_OK;
}

void ft_job_set_batching(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    j->batching = (struct ft_batching){.micro_batch_size = c->micro_batch_size,
                                       .sequence_len = c->sequence_len,
                                       .packing = c->sample_packing,
                                       .file_order = c->curriculum_sampling,
                                       .seed = (uint64_t)c->seed};
}

int ft_job_open_data(struct ft_job *j, const struct ft_job_hooks *hooks)
{
    const struct ft_config *c = j->config;
    FT_TRY(read_data(j, hooks));
    report_left_out(&j->train, "datasets");
    if (c->n_test_datasets) {
        report_left_out(&j->held, "test_datasets");
        if (j->held.n_docs == 0)
            return ft_fail_at(ft_config_where(c, "test_datasets"), FT_EDATA,
                              "nothing to evaluate on: no document has a trained token");
    }
    ft_job_set_batching(j);
    FT_TRY(check_enough(j));
    if (c->val_set_size > 0) {
        FT_TRY(ft_dataset_split(&j->train, &j->held, c->val_set_size, (uint64_t)c->seed));
        FT_TRY(check_enough(j));
    }
    FT_TRY(check_positions(j));
    report_context(j);
    return ft_job_open_batching(j);
}
