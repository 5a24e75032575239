/* Tokenized datasets: what is refused, counted, split, ordered and packed. */
#include "core/mem.h"
#include "core/rng.h"
#include "data/data.h"
#include "io/safetensors.h"
#include "tests/check.h"

#include <stdlib.h>
#include <unistd.h>

static char path[64];

/* A dataset file of these arrays, at `path`. */
static void write_arrays(const int32_t *ids, int64_t n, const int64_t *offsets, int64_t docs,
                         const uint8_t *mask, int64_t masks)
{
    struct ft_st_item items[] = {
        {.name = "input_ids", .dtype = FT_I32, .n_dims = 1, .dims = {n}, .data = ids},
        {.name = "offsets", .dtype = FT_I64, .n_dims = 1, .dims = {docs + 1}, .data = offsets},
        {.name = "loss_mask", .dtype = FT_U8, .n_dims = 1, .dims = {masks}, .data = mask}};
    strcpy(path, "/tmp/ft-data-XXXXXX");
    close(mkstemp(path));
    CHECK_INT(ft_st_write(path, items, 3, NULL, 0), FT_OK);
}

/* The same; returns what reading it gives. */
static int read_arrays(struct ft_dataset *d, const int32_t *ids, int64_t n, const int64_t *offsets,
                       int64_t docs, const uint8_t *mask, int64_t masks, int64_t len,
                       enum ft_excess excess)
{
    *d = (struct ft_dataset){0};
    ft_status_clear();
    write_arrays(ids, n, offsets, docs, mask, masks);
    int rc = ft_dataset_read(d, path, 10, &(struct ft_limits){0, len, excess, NULL});
    unlink(path);
    return rc;
}

static const int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint8_t ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};

static void expect_bad(const int32_t *i, const int64_t *offsets, int64_t docs, const uint8_t *m,
                       int64_t masks, const char *part)
{
    struct ft_dataset d;
    CHECK_INT(read_arrays(&d, i, 8, offsets, docs, m, masks, 100, FT_EXCESS_DROP), FT_EDATA);
    CHECK_HAS(ft_status_report(), part);
    CHECK_HAS(ft_status_report(), path);
    ft_dataset_fini(&d);
}

CASE(f20_every_id_offset_and_mask_is_checked)
{
    const int64_t good[] = {0, 3, 8};
    const int32_t high[8] = {1, 2, 3, 4, 5, 10, 7, 8}, low[8] = {1, 2, 3, 4, 5, 6, 7, -1};
    const uint8_t two[8] = {1, 1, 2, 1, 1, 1, 1, 1};
    expect_bad(high, good, 2, ones, 8, "document 1, position 2: token id 10 is outside");
    expect_bad(low, good, 2, ones, 8, "document 1, position 4: token id -1 is outside");
    expect_bad(ids, good, 2, two, 8, "document 0, position 2: loss_mask is 2");
    expect_bad(ids, (int64_t[]){0, 5, 3, 8}, 3, ones, 8,
               "offsets[2] is 3, less than the one before");
    expect_bad(ids, (int64_t[]){1, 3, 8}, 2, ones, 8, "offsets[0] is 1");
    expect_bad(ids, (int64_t[]){0, 3, 7}, 2, ones, 8, "the last offset is 7, input_ids has 8");
    expect_bad(ids, (int64_t[]){0, 3, 9}, 2, ones, 8, "the last offset is 9");
    expect_bad(ids, good, 2, ones, 7, "loss_mask has 7 elements");
}

CASE(files_of_the_wrong_form_are_refused)
{
    struct ft_dataset d = {0};
    struct ft_st_item item = {
        .name = "input_ids", .dtype = FT_F32, .n_dims = 1, .dims = {2}, .data = "12345678"};
    strcpy(path, "/tmp/ft-data-XXXXXX");
    close(mkstemp(path));
    CHECK_INT(ft_st_write(path, &item, 1, NULL, 0), FT_OK);
    ft_status_clear();
    CHECK_INT(ft_dataset_read(&d, path, 10, &(struct ft_limits){0, 10, FT_EXCESS_DROP, NULL}),
              FT_EDATA);
    CHECK_HAS(ft_status_report(), "'input_ids' is F32");
    unlink(path);
    CHECK_INT(ft_dataset_read(&d, "/nonexistent.safetensors", 10,
                              &(struct ft_limits){0, 10, FT_EXCESS_DROP, NULL}),
              FT_EDATA);
    ft_dataset_fini(&d);
}

CASE(f21_documents_that_teach_nothing_are_counted)
{
    /* empty, one token, masked but for the first token, good */
    const int64_t offsets[] = {0, 0, 1, 4, 8};
    const uint8_t mask[8] = {1, 1, 0, 0, 0, 0, 1, 1};
    struct ft_dataset d;
    CHECK_INT(read_arrays(&d, ids, 8, offsets, 4, mask, 8, 100, FT_EXCESS_DROP), FT_OK);
    CHECK_INT(d.read, 4);
    CHECK_INT(d.empty, 1);
    CHECK_INT(d.untrained, 2);
    CHECK_INT(d.n_docs, 1);
    CHECK_INT(d.docs[0].number, 3);
    CHECK_INT(d.trained_tokens, 2);
    ft_dataset_fini(&d);
}

CASE(f24_long_documents)
{
    const int64_t offsets[] = {0, 3, 8};
    struct ft_dataset d;
    CHECK_INT(read_arrays(&d, ids, 8, offsets, 2, ones, 8, 4, FT_EXCESS_DROP), FT_OK);
    CHECK(d.dropped == 1 && d.n_docs == 1 && d.longest == 3);
    ft_dataset_fini(&d);
    CHECK_INT(read_arrays(&d, ids, 8, offsets, 2, ones, 8, 4, FT_EXCESS_TRUNCATE), FT_OK);
    CHECK(d.truncated == 1 && d.n_docs == 2 && d.docs[1].length == 4 && d.trained_tokens == 5);
    ft_dataset_fini(&d);
    CHECK_INT(read_arrays(&d, ids, 8, offsets, 2, ones, 8, 4, FT_EXCESS_RAISE), FT_EDATA);
    CHECK_HAS(ft_status_report(), "document 1 has 5 tokens");
    ft_dataset_fini(&d);
}

CASE(documents_that_come_again_may_be_left_out)
{
    enum { MANY = 3000 }; /* the set grows */
    static int32_t all[3 * MANY + 6];
    static uint8_t masks[3 * MANY + 6];
    static int64_t offsets[MANY + 3];
    struct ft_seen seen = {0};
    struct ft_dataset d = {0};
    for (int i = 0; i < 3 * MANY + 6; i++) {
        all[i] = i % 3 == 0 ? i / 3 / 100 : i % 3 == 1 ? i / 3 / 10 % 10 : i / 3 % 10;
        masks[i] = 1;
    }
    for (int i = 0; i < MANY + 3; i++)
        offsets[i] = 3 * i;
    memcpy(all + (ptrdiff_t)3 * MANY, all + 21, 3 * sizeof *all); /* the eighth again, and */
    memcpy(all + (ptrdiff_t)3 * MANY + 3, all + 21, 3 * sizeof *all);
    masks[3 * MANY + 4] = 0; /* with less of it trained */
    write_arrays(all, 3 * MANY + 6, offsets, MANY + 2, masks, 3 * MANY + 6);
    for (int i = 0; i < 2; i++) /* of a second file, all */
        CHECK_INT(ft_dataset_read(&d, path, 100, &(struct ft_limits){0, 9, FT_EXCESS_DROP, &seen}),
                  FT_OK);
    CHECK_INT(d.n_docs, MANY + 1);
    CHECK_INT(d.repeated, 1 + MANY + 2);
    CHECK_INT(d.docs[MANY].number, MANY + 1);
    unlink(path);
    ft_seen_fini(&seen);
    ft_dataset_fini(&d);
}

CASE(f17_a_file_that_changes_while_it_is_trained_on)
{
    const int64_t offsets[] = {0, 3, 8};
    struct ft_dataset d;
    int32_t got[8];
    uint8_t mask[8];
    write_arrays(ids, 8, offsets, 2, ones, 8);
    d = (struct ft_dataset){0};
    CHECK_INT(ft_dataset_read(&d, path, 10, &(struct ft_limits){0, 10, FT_EXCESS_DROP, NULL}),
              FT_OK);
    CHECK_INT(ft_dataset_tokens(&d, &d.docs[1], got, mask), FT_OK);
    CHECK(memcmp(got, ids + 3, 5 * sizeof *got) == 0);
    FILE *f = fopen(path, "r+b"); /* the last mask byte, then the whole file */
    fseek(f, -1, SEEK_END);
    fputc(0, f);
    fclose(f);
    CHECK_INT(ft_dataset_tokens(&d, &d.docs[0], got, mask), FT_OK);
    CHECK_INT(ft_dataset_tokens(&d, &d.docs[1], got, mask), FT_ERESOURCE);
    CHECK_HAS(ft_status_report(), "has changed since it was checked");
    ft_status_clear();
    CHECK_INT(truncate(path, 8), 0);
    CHECK_INT(ft_dataset_tokens(&d, &d.docs[0], got, mask), FT_ERESOURCE);
    ft_status_clear();
    unlink(path);
    ft_dataset_fini(&d);
}

/* n documents of random lengths up to `longest`. */
static void random_dataset(struct ft_dataset *d, int64_t n, int longest, uint32_t seed)
{
    struct ft_rng rng = ft_rng_init(3, FT_RNG_TEST, seed, 0);
    *d = (struct ft_dataset){.n_docs = n, .read = n, .longest = longest};
    FT_ASSERT(ft_alloc(&d->docs, (size_t)n, sizeof *d->docs) == FT_OK);
    for (int64_t i = 0; i < n; i++) {
        int32_t length = 1 + (int32_t)ft_rng_below(&rng, (uint32_t)longest);
        d->docs[i] = (struct ft_document){d->n_tokens, length, (int32_t)i, -1, length - 1};
        d->n_tokens += length;
    }
    FT_ASSERT(ft_alloc(&d->ids, (size_t)d->n_tokens, 4) == FT_OK);
    FT_ASSERT(ft_alloc(&d->mask, (size_t)d->n_tokens, 1) == FT_OK);
    for (int64_t i = 0; i < d->n_tokens; i++) {
        d->ids[i] = (int32_t)(i % 10);
        d->mask[i] = 1;
    }
}

/* Every document once, whole, in micro-batches that respect the batching. */
static int64_t check_epoch(const struct ft_dataset *d, const struct ft_batching *b, uint32_t epoch)
{
    struct ft_epoch e;
    int64_t seen = 0, total = 0;
    char *met;
    FT_ASSERT(ft_epoch_init(&e, d->n_docs) == FT_OK);
    FT_ASSERT(ft_alloc(&met, (size_t)d->n_docs, 1) == FT_OK);
    ft_epoch_fill(&e, d, b, epoch);
    for (int64_t i = 0; i < e.n_batches; i++) {
        int64_t tokens = 0;
        CHECK_INT(e.batches[i].first, seen);
        CHECK(e.batches[i].count > 0);
        for (int32_t k = 0; k < e.batches[i].count; k++, seen++) {
            int32_t doc = e.order[seen];
            CHECK(!met[doc]++);
            tokens += d->docs[doc].length;
        }
        CHECK_INT(e.batches[i].tokens, tokens);
        if (b->packing)
            CHECK(tokens <= b->micro_batch_size * b->sequence_len);
        else
            CHECK(e.batches[i].count <= b->micro_batch_size);
        total += tokens;
    }
    CHECK_INT(seen, d->n_docs);
    int64_t batches = e.n_batches;
    ft_epoch_fini(&e);
    ft_free(met);
    return batches;
}

CASE(every_document_once_an_epoch)
{
    static const int sizes[] = {1, 2, 3, 17, 1000};
    for (int i = 0; i < 5; i++) {
        struct ft_dataset d;
        random_dataset(&d, sizes[i], 64, (uint32_t)i);
        for (int mode = 0; mode < 4; mode++)
            for (uint32_t epoch = 0; epoch < 3; epoch++)
                check_epoch(&d,
                            &(struct ft_batching){.micro_batch_size = 4,
                                                  .sequence_len = 64,
                                                  .packing = mode & 1,
                                                  .file_order = mode & 2,
                                                  .seed = 5},
                            epoch);
        ft_dataset_fini(&d);
    }
}

CASE(packing_is_dense_and_orders_differ_by_epoch_and_seed)
{
    struct ft_dataset d;
    struct ft_epoch a, b;
    random_dataset(&d, 2000, 500, 1);
    const struct ft_batching packed = {
        .micro_batch_size = 4, .sequence_len = 512, .packing = true, .seed = 1};
    int64_t bins = check_epoch(&d, &packed, 0);
    CHECK((double)d.n_tokens / (double)(bins * 4 * 512) > 0.97);
    FT_ASSERT(ft_epoch_init(&a, d.n_docs) == FT_OK && ft_epoch_init(&b, d.n_docs) == FT_OK);
    ft_epoch_fill(&a, &d, &packed, 0);
    ft_epoch_fill(&b, &d, &packed, 0);
    CHECK(memcmp(a.order, b.order, (size_t)d.n_docs * 4) == 0);
    ft_epoch_fill(&b, &d, &packed, 1);
    CHECK(memcmp(a.order, b.order, (size_t)d.n_docs * 4) != 0);
    struct ft_batching other = packed;
    other.seed = 2;
    ft_epoch_fill(&b, &d, &other, 0);
    CHECK(memcmp(a.order, b.order, (size_t)d.n_docs * 4) != 0);
    ft_epoch_fini(&a);
    ft_epoch_fini(&b);
    ft_dataset_fini(&d);
}

CASE(validation_split_takes_its_share_once)
{
    struct ft_dataset d, held = {0};
    random_dataset(&d, 100, 20, 2);
    int64_t before = d.n_docs;
    CHECK_INT(ft_dataset_split(&d, &held, 0.1, 7), FT_OK);
    CHECK_INT(held.n_docs, 10);
    CHECK_INT(d.n_docs + held.n_docs, before);
    for (int64_t i = 0; i < held.n_docs; i++)
        for (int64_t k = 0; k < d.n_docs; k++)
            CHECK(held.docs[i].number != d.docs[k].number);
    ft_free(held.docs);
    held = (struct ft_dataset){0};
    CHECK_INT(ft_dataset_split(&d, &held, 3, 7), FT_OK);
    CHECK_INT(held.n_docs, 3);
    ft_free(held.docs);
    ft_status_clear();
    CHECK_INT(ft_dataset_split(&d, &held, 500, 7), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "nothing is left");
    ft_dataset_fini(&d);
}

CASE(a_pass_is_whole_documents_with_targets_inside_each)
{
    struct ft_dataset d;
    int32_t rows[4][256], spans[512], keys[768], order[4] = {2, 0, 3, 1};
    random_dataset(&d, 4, 40, 3);
    d.mask[d.docs[2].start + 1] = 0;
    d.docs[2].targets--;
    const struct ft_pass_arrays p = {rows[0], rows[1], spans, rows[2], rows[3], keys};
    struct ft_pass_counts c;
    CHECK_INT(ft_pass_fill(&p, &d, order, 4, 9, &c), FT_OK);
    int64_t n = c.rows, row = 0, trained = 0;
    for (int i = 0; i < 4; i++) {
        const struct ft_document *doc = &d.docs[order[i]];
        const int64_t first = row;
        for (int32_t t = 0; t < doc->length; t++, row++) {
            bool last = t + 1 == doc->length, masked = !last && !d.mask[doc->start + t + 1];
            CHECK_INT(p.ids[row], d.ids[doc->start + t]);
            CHECK_INT(p.targets[row], last || masked ? -1 : d.ids[doc->start + t + 1]);
            CHECK(spans[2 * row] == first && spans[2 * row + 1] == first + doc->length);
            CHECK_INT(p.positions[row], t);
            if (p.targets[row] >= 0)
                CHECK_INT(p.picked[trained++], row);
            CHECK(keys[3 * row] == 9 && keys[3 * row + 1] == doc->number && keys[3 * row + 2] == t);
        }
    }
    CHECK_INT(n, row);
    CHECK_INT(c.trained, trained);
    CHECK_INT(ft_pass_take(&d, order, 4, 1), 1); /* at least one, however long */
    CHECK_INT(ft_pass_take(&d, order, 4, n), 4);
    ft_dataset_fini(&d);
}
