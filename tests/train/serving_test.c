/* Answers: passes over cached keys against the logits of whole documents, the draw of tokens, and
 * several prompts side by side. */
#include "tests/golden/golden.h"

#include "core/mem.h"
#include "train/generate.h"

#include <math.h>
#include <string.h>

/* --- every golden model, read in pieces --- */

struct documents {
    int32_t *ids;
    int64_t *offsets, n, longest;
};

static void *read_all(const struct ft_st *f, const char *name, int64_t *n)
{
    const struct ft_st_entry *e = ft_st_find(f, name);
    void *data = NULL;
    CHECK(e && ft_alloc(&data, 1, (size_t)(e->end - e->begin)) == FT_OK);
    CHECK_INT(ft_st_read(f, e, 0, (size_t)(e->end - e->begin), data), FT_OK);
    *n = e->dims[0];
    return data;
}

static struct documents open_documents(const char *name)
{
    struct documents d = {0};
    char path[512];
    struct ft_st *f = NULL;
    int64_t n;
    snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/data.safetensors", name);
    CHECK_INT(ft_st_open(&f, path), FT_OK);
    d.ids = read_all(f, "input_ids", &n);
    d.offsets = read_all(f, "offsets", &d.n);
    d.n--;
    for (int64_t i = 0; i < d.n; i++)
        if (d.offsets[i + 1] - d.offsets[i] > d.longest)
            d.longest = d.offsets[i + 1] - d.offsets[i];
    ft_st_close(f);
    return d;
}

/* Where the rows of logits that are expected next stand in the golden ones. */
struct expected {
    const double *want;
    int64_t rows[4096], n, vocab, at;
    double worst, largest;
};

static int compare_logits(void *ctx, const float *logits, int64_t first, int64_t count)
{
    struct expected *e = ctx;
    CHECK_INT(first, e->at);
    for (int64_t i = 0; i < count; i++, e->at++)
        for (int64_t v = 0; v < e->vocab && e->at < e->n; v++)
            e->worst = fmax(e->worst, fabs((double)logits[i * e->vocab + v] -
                                           e->want[e->rows[e->at] * e->vocab + v]));
    return FT_OK;
}

/* Documents first.. of a group, a piece of each at a time; all at once where a position's angles
 * depend on how long its document is. */
static void read_group(struct ft_server *s, const struct documents *d, int64_t first, int slots,
                       struct expected *e)
{
    static const int pieces[] = {3, 1, 2, 5, 1, 9};
    int64_t at[4] = {0};
    for (int turn = 0, n = 1; n > 0; turn++) {
        struct ft_reading r[4];
        n = 0;
        e->n = e->at = 0;
        for (int i = 0; i < slots && first + i < d->n; i++) {
            const int64_t begin = d->offsets[first + i], length = d->offsets[first + i + 1] - begin;
            int64_t take = s->job.rope_by_length ? length : pieces[(turn + i) % 6];
            take = length - at[i] < take ? length - at[i] : take;
            if (!take)
                continue;
            r[n++] = (struct ft_reading){i, d->ids + begin + at[i], take, take};
            for (int64_t t = 0; t < take; t++)
                e->rows[e->n++] = begin + at[i] + t;
            at[i] += take;
        }
        CHECK_INT(ft_server_read(s, r, n, compare_logits, e), FT_OK);
        CHECK_INT(e->at, e->n);
    }
    for (int i = 0; i < slots; i++)
        ft_server_forget(s, i, 0);
}

static void check_case(const char *name, const char *device, double limit)
{
    struct setup s = {0};
    struct ft_config c = {0};
    struct ft_server server = {0};
    struct documents d = open_documents(name);
    char path[512];
    struct ft_st *golden = NULL;
    int64_t n;
    snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/golden.safetensors", name);
    CHECK_INT(ft_st_open(&golden, path), FT_OK);
    struct expected e = {.want = read_values(golden, "logits", &n)};
    for (int64_t i = 0; i < n; i++)
        e.largest = fmax(e.largest, fabs(e.want[i]));
    setup_golden(&s, name);
    setup_add(&s, "device=%s", device);
    CHECK_INT(ft_config_read(&c, NULL, s.list, s.n), FT_OK);
    const struct ft_server_options o = {.slots = 3, .context = d.longest, .scored = 7};
    if (ft_server_open(&server, &c, &o, NULL, NULL)) {
        check_fail(name, 0, "%s", ft_status_report());
    } else {
        e.vocab = server.vocab;
        for (int64_t first = 0; first < d.n; first += 3)
            read_group(&server, &d, first, 3, &e);
        printf("  %-20s %.1e\n", name, e.worst / e.largest);
        if (!(e.worst <= limit * e.largest))
            check_fail(name, 0, "logits are off by %.2e of the largest", e.worst / e.largest);
    }
    ft_server_close(&server);
    ft_config_fini(&c);
    ft_st_close(golden);
    ft_free((void *)(uintptr_t)e.want);
    ft_free(d.ids);
    ft_free(d.offsets);
}

CASE(pieces_over_cached_keys_give_the_golden_logits)
{
    char names[MAX_CASES][64];
    const int n = golden_cases(names);
    for (int i = 0; i < n; i++)
        check_case(names[i], "cpu", 1e-5);
}

/* The largest difference between two rows of logits. */
static double apart(const float *a, const float *b, int64_t vocab)
{
    double most = 0;
    for (int64_t v = 0; v < vocab; v++) {
        const double off = fabs((double)a[v] - (double)b[v]);
        most = off > most ? off : most;
    }
    return most;
}

/* The logits behind n tokens, that are read some at a time. */
static void read_some(struct ft_server *s, int slot, const int32_t *ids, int64_t from, int64_t n,
                      int64_t step, float *out)
{
    ft_server_forget(s, slot, from);
    for (int64_t at = from; at < n; at += step) {
        const int64_t take = n - at < step ? n - at : step;
        const struct ft_reading r = {slot, ids + at, take, 1};
        CHECK_INT(ft_server_read(s, &r, 1, NULL, NULL), FT_OK);
    }
    memcpy(out, s->logits, (size_t)s->vocab * sizeof *out);
}

/* longrope: beyond its original length a document has other angles from its first token on. */
CASE(a_sequence_that_outgrows_its_angles_is_read_again)
{
    struct setup s = {0};
    struct ft_config c = {0};
    struct ft_server server = {0};
    int32_t ids[30];
    float whole[128], parts[128];
    for (int i = 0; i < 30; i++)
        ids[i] = (i * 7 + 3) % 60;
    setup_golden(&s, "phi3-long"); /* original_max_position_embeddings: 16 */
    CHECK_INT(ft_config_read(&c, NULL, s.list, s.n), FT_OK);
    const struct ft_server_options o = {.slots = 2, .context = 30, .scored = 2};
    CHECK_INT(ft_server_open(&server, &c, &o, NULL, NULL), FT_OK);
    CHECK(server.vocab <= 128);
    for (int step = 1; step <= 5; step += 2) {
        read_some(&server, 0, ids, 0, 30, 30, whole);
        read_some(&server, 1, ids, 0, 30, step, parts);
        CHECK(apart(whole, parts, server.vocab) < 1e-4);
        /* and back: what is kept of a long one, in a short one */
        read_some(&server, 0, ids, 0, 12, 12, whole);
        read_some(&server, 1, ids, 5, 12, step, parts);
        CHECK(apart(whole, parts, server.vocab) < 1e-4);
    }
    ft_server_close(&server);
    ft_config_fini(&c);
}

CASE(a_device_gives_them_within_its_rounding)
{
    static const char *const names[] = {"base",    "gemma2",       "falcon",        "gpt2",
                                        "olmo3",   "rope-dynamic", "saved-head",    "tokens",
                                        "bnb-nf4", "gguf-qwen3",   "deepseek-v3-v4"};
    const struct ft_backend *b;
    if (ft_cuda_backend(&b, -1)) {
        check_skip(ft_status_report());
        ft_status_clear_errors();
        return;
    }
    ft_backend_close(b);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_case(names[i], "cuda", 0.05); /* weights of other formats are rounded to bf16 too */
}

/* --- the draw --- */

enum { VOCAB = 50, DRAWS = 20000 };

/* How often each token is drawn, against the probabilities: chi-square of those that may come. */
static void check_draws(const struct ft_sampler *o, const double *p, const char *what)
{
    struct ft_candidate room[VOCAB];
    int counts[VOCAB] = {0}, kinds = 0;
    double chi = 0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        float logits[VOCAB];
        for (int v = 0; v < VOCAB; v++)
            logits[v] = (float)(3 * sin(1.7 * v));
        counts[ft_sample_token(o, logits, VOCAB, NULL, 0, 7, i, room)]++;
    }
    for (int v = 0; v < VOCAB; v++) {
        if (p[v] == 0 && counts[v])
            check_fail(what, v, "a token that was ruled out is drawn");
        if (p[v] * DRAWS < 5)
            continue;
        kinds++;
        chi += pow(counts[v] - p[v] * DRAWS, 2) / (p[v] * DRAWS);
    }
    if (chi > kinds + 4 * sqrt(2.0 * kinds))
        check_fail(what, 0, "chi-square %.1f of %d kinds", chi, kinds);
}

/* Probabilities at a temperature, of tokens whose rank is below `most` and whose share beside the
 * largest is at least `least`. */
static void probabilities(double *p, double temperature, int most, double least)
{
    double max = -1e9, sum = 0;
    for (int v = 0; v < VOCAB; v++)
        max = fmax(max, 3 * sin(1.7 * v) / temperature);
    for (int v = 0; v < VOCAB; v++) {
        int rank = 0;
        for (int k = 0; k < VOCAB; k++)
            rank += sin(1.7 * k) > sin(1.7 * v);
        p[v] = exp(3 * sin(1.7 * v) / temperature - max);
        p[v] = rank < most && p[v] >= least ? p[v] : 0;
        sum += p[v];
    }
    for (int v = 0; v < VOCAB; v++)
        p[v] /= sum;
}

CASE(tokens_are_drawn_with_their_probabilities)
{
    struct ft_sampler o = {.repetition_penalty = 1, .temperature = 1, .top_p = 1, .seed = 3};
    double p[VOCAB], all[VOCAB];
    probabilities(p, 1, VOCAB, 0);
    check_draws(&o, p, "plain");
    o.temperature = 0.6;
    probabilities(p, 0.6, VOCAB, 0);
    check_draws(&o, p, "temperature");
    o.top_k = 5;
    probabilities(p, 0.6, 5, 0);
    check_draws(&o, p, "top-k");
    o.top_k = 0;
    o.min_p = 0.3;
    probabilities(p, 0.6, VOCAB, 0.3);
    check_draws(&o, p, "min-p");
    o.min_p = 0;
    o.temperature = 1;
    o.top_p = 0.7;
    probabilities(all, 1, VOCAB, 0);
    for (int most = 1; most <= VOCAB; most++) { /* the fewest that are at least 0.7 together */
        double sum = 0;
        probabilities(p, 1, most, 0);
        for (int v = 0; v < VOCAB; v++)
            sum += p[v] > 0 ? all[v] : 0;
        if (sum >= 0.7)
            break;
    }
    check_draws(&o, p, "top-p");
}

CASE(repetition_and_greed)
{
    struct ft_sampler o = {.repetition_penalty = 2, .top_p = 1};
    struct ft_candidate room[4];
    const int32_t seen[] = {1, 3, 1};
    float logits[] = {1, 1.5f, 1, -1}, same[] = {2, 5, 5, 1};
    CHECK_INT(ft_sample_token(&o, logits, 4, seen, 3, 0, 0, room), 0);
    CHECK(logits[1] == 0.75f && logits[3] == -2);
    o.repetition_penalty = 1;
    CHECK_INT(ft_sample_token(&o, same, 4, seen, 3, 0, 0, room), 1);
}

/* --- several prompts --- */

struct answers {
    int32_t ids[8][16];
    int n[8], finished;
};

static int note_token(void *ctx, int64_t prompt, int32_t id, const char *finish)
{
    struct answers *a = ctx;
    a->ids[prompt][a->n[prompt]++] = id;
    a->finished += finish != NULL;
    return FT_OK;
}

static void answer(int slots, double temperature, struct answers *a)
{
    struct setup s = {0};
    struct ft_config c = {0};
    struct ft_server server = {0};
    static const int32_t ids[] = {5, 9, 3, 17, 40, 2, 8, 8, 31, 50, 6};
    struct ft_prompt prompts[5];
    for (int i = 0; i < 5; i++)
        prompts[i] = (struct ft_prompt){ids + i, 3 + i % 3};
    setup_golden(&s, "base");
    CHECK_INT(ft_config_read(&c, NULL, s.list, s.n), FT_OK);
    const struct ft_server_options o = {.slots = slots, .context = 20, .scored = slots};
    const int32_t end = 33;
    const struct ft_generating how = {
        .sampler = {.repetition_penalty = 1, .temperature = temperature, .top_p = 1, .seed = 5},
        .max_tokens = 12,
        .ends = &end,
        .n_ends = 1};
    CHECK_INT(ft_server_open(&server, &c, &o, NULL, NULL), FT_OK);
    memset(a, 0, sizeof *a);
    CHECK_INT(ft_generate(&server, &how, prompts, 5, 0, note_token, a), FT_OK);
    CHECK_INT(a->finished, 5);
    ft_server_close(&server);
    ft_config_fini(&c);
}

CASE(answers_do_not_depend_on_what_is_beside_them)
{
    static struct answers one, three, eight;
    for (int drawn = 0; drawn < 2; drawn++) {
        answer(1, drawn, &one);
        answer(3, drawn, &three);
        answer(8, drawn, &eight);
        CHECK(memcmp(&one, &three, sizeof one) == 0);
        CHECK(memcmp(&one, &eight, sizeof one) == 0);
    }
}
