/* Scores: texts are read side by side, and what follows in a chain goes on from what it shares with
 * the text before. */
#include "train/score.h"

#include "core/mem.h"

#include <math.h>

enum { ROWS = 1024, SLOTS = 32, LOGIT_BYTES = 64 << 20 };

struct ft_server_options ft_score_options(int64_t longest, int64_t texts, int64_t vocab)
{
    int64_t slots = ROWS / longest, scored = LOGIT_BYTES / (4 * vocab);
    slots = slots > SLOTS ? SLOTS : slots;
    slots = slots > texts ? texts : slots;
    scored = scored > ROWS / 2 ? ROWS / 2 : scored;
    return (struct ft_server_options){.slots = slots > 1 ? (int)slots : 1,
                                      .context = longest,
                                      .scored = scored > 16 ? scored : 16,
                                      .vocab = vocab};
}

/* A slot at work on a chain. */
struct chain {
    int64_t text;      /* the one that is read now; -1: free */
    int64_t kept;      /* tokens of it that were read with the one before */
    int64_t first_row; /* its first scored row is the logits behind this token */
};

struct scoring {
    struct ft_server *s;
    const struct ft_score_text *texts;
    int64_t n, next;
    struct ft_score *out;
    struct chain *chains; /* by slot */
    struct ft_reading *readings;
    int n_readings;
    const float *logits; /* of the rows that are looked at now */
    int64_t first, count;
    struct row {
        int64_t text, at; /* the token that a row predicts */
        double log_likelihood;
        bool counts, right;
    } * rows;
};

static int64_t first_counted(const struct ft_score_text *t)
{
    int64_t i = 1;
    while (i < t->n && !t->mask[i])
        i++;
    return i;
}

static int64_t shared(const struct ft_score_text *a, const struct ft_score_text *b)
{
    int64_t n = 0;
    while (n < a->n && n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

/* The next text of a slot's chain, or of a new one; false: none. */
static bool next_text(struct scoring *w, int slot)
{
    struct chain *c = &w->chains[slot];
    const int64_t was = c->text;
    const bool goes_on =
        was >= 0 && was + 1 < w->n && w->texts[was + 1].chain == w->texts[was].chain;
    if (!goes_on && w->next >= w->n) {
        c->text = -1;
        return false;
    }
    c->text = goes_on ? was + 1 : w->next;
    c->kept = 0;
    const struct ft_score_text *t = &w->texts[c->text];
    if (goes_on && !w->s->job.rope_by_length) {
        const int64_t both = shared(&w->texts[was], t), most = first_counted(t) - 1;
        c->kept = both < most ? both : most;
        c->kept = c->kept < w->s->length[slot] ? c->kept : w->s->length[slot];
    } else if (!goes_on) { /* the whole chain is this slot's */
        while (w->next < w->n && w->texts[w->next].chain == t->chain)
            w->next++;
    }
    return true;
}

/* Reads what is new of a text but its last token; logits from the one before the first that counts.
 */
static void add_reading(struct scoring *w, int slot)
{
    const struct chain *c = &w->chains[slot];
    const struct ft_score_text *t = &w->texts[c->text];
    const int64_t first = first_counted(t) - 1, end = t->n - 1;
    w->chains[slot].first_row = first;
    ft_server_forget(w->s, slot, c->kept);
    if (end > c->kept)
        w->readings[w->n_readings++] = (struct ft_reading){slot, t->ids + c->kept, end - c->kept,
                                                           end - first > 0 ? end - first : 0};
}

/* One row of logits against the token that followed. */
static void score_row(void *arg, int64_t piece, void *scratch)
{
    struct scoring *w = arg;
    struct row *r = &w->rows[piece];
    const int64_t vocab = w->s->vocab;
    const float *l = w->logits + piece * vocab;
    const int32_t want = w->texts[r->text].ids[r->at];
    float max = l[0];
    double sum = 0;
    (void)scratch;
    if (!r->counts)
        return;
    int64_t best = 0;
    for (int64_t v = 1; v < vocab; v++)
        if (l[v] > max) {
            max = l[v];
            best = v;
        }
    for (int64_t v = 0; v < vocab; v++)
        sum += (double)expf(l[v] - max);
    r->log_likelihood = (double)l[want] - (double)max - log(sum);
    r->right = best == want;
}

/* Which token of which text a row of this round predicts. */
static struct row row_at(const struct scoring *w, int64_t row)
{
    for (int i = 0; i < w->n_readings; i++) {
        const struct ft_reading *r = &w->readings[i];
        const struct chain *c = &w->chains[r->slot];
        if (row < r->scored) {
            const int64_t at = c->first_row + row + 1;
            return (struct row){.text = c->text, .at = at, .counts = w->texts[c->text].mask[at]};
        }
        row -= r->scored;
    }
    FT_ASSERT(false);
    return (struct row){0};
}

static int take_rows(void *ctx, const float *logits, int64_t first, int64_t count)
{
    struct scoring *w = ctx;
    w->logits = logits;
    for (int64_t i = 0; i < count; i++)
        w->rows[i] = row_at(w, first + i);
    ft_pool_run(w->s->job.pool, count, score_row, w);
    for (int64_t i = 0; i < count; i++) {
        struct ft_score *s = &w->out[w->rows[i].text];
        if (!w->rows[i].counts)
            continue;
        s->log_likelihood += w->rows[i].log_likelihood;
        s->tokens++;
        s->right += w->rows[i].right;
    }
    return FT_OK;
}

static int run(struct scoring *w, const volatile sig_atomic_t *stop, ft_score_told_fn *told,
               void *ctx)
{
    const int slots = w->s->serving.slots;
    int64_t done = 0;
    FT_TRY(ft_alloc(&w->chains, (size_t)slots, sizeof *w->chains));
    FT_TRY(ft_alloc(&w->readings, (size_t)slots, sizeof *w->readings));
    FT_TRY(ft_alloc(&w->rows, (size_t)w->s->serving.scored, sizeof *w->rows));
    for (int i = 0; i < slots; i++)
        w->chains[i].text = -1;
    for (;;) {
        int busy = 0;
        w->n_readings = 0;
        for (int slot = 0; slot < slots; slot++)
            if (next_text(w, slot)) {
                add_reading(w, slot);
                busy++;
            }
        if (!busy)
            return FT_OK;
        FT_TRY(ft_server_read(w->s, w->readings, w->n_readings, take_rows, w));
        done += busy;
        if (told)
            told(ctx, done);
        if (stop && *stop)
            return FT_EREQUEUE;
    }
}

int ft_score_texts(struct ft_server *s, const struct ft_score_text *texts, int64_t n,
                   struct ft_score *out, const volatile sig_atomic_t *stop, ft_score_told_fn *told,
                   void *ctx)
{
    struct scoring w = {.s = s, .texts = texts, .n = n, .out = out};
    for (int64_t i = 0; i < n; i++)
        out[i] = (struct ft_score){0};
    int rc = run(&w, stop, told, ctx);
    ft_free(w.chains);
    ft_free(w.readings);
    ft_free(w.rows);
    return rc;
}
