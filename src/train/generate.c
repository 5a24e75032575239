/* Generation: prompts take slots as these come free, and every pass gives each its next token. */
#include "train/generate.h"

#include "core/mem.h"

#include <string.h>

/* A slot at work. */
struct answer {
    int64_t prompt; /* -1: free */
    int64_t made;   /* tokens so far */
    int32_t *ids;   /* the prompt's and those */
    int64_t n, unread;
};

struct work {
    struct ft_server *s;
    const struct ft_generating *o;
    const struct ft_prompt *prompts;
    int64_t n, next; /* prompts, and the next to begin */
    ft_token_fn *each;
    void *ctx;
    struct answer *answers; /* by slot */
    struct ft_reading *readings;
    int n_readings;
    struct ft_candidate *room;
};

static bool is_end(const struct ft_generating *o, int32_t id)
{
    for (int i = 0; i < o->n_ends; i++)
        if (o->ends[i] == id)
            return true;
    return false;
}

static void begin(struct work *w, int slot, int64_t kept)
{
    struct answer *a = &w->answers[slot];
    const struct ft_prompt *p = &w->prompts[w->next];
    *a = (struct answer){.prompt = w->next++, .ids = a->ids, .n = p->n};
    memcpy(a->ids, p->ids, (size_t)p->n * sizeof *a->ids);
    a->unread = p->n - kept;
    ft_server_forget(w->s, slot, kept);
}

/* The logits of some of this round's readings: a token for each. */
static int take_tokens(void *ctx, const float *logits, int64_t first, int64_t count)
{
    struct work *w = ctx;
    const int64_t vocab = w->s->vocab;
    for (int64_t i = 0; i < count; i++) {
        const int slot = w->readings[first + i].slot;
        struct answer *a = &w->answers[slot];
        float *row = (float *)(uintptr_t)logits + i * vocab;
        const int32_t id = ft_sample_token(&w->o->sampler, row, vocab, a->ids, (size_t)a->n,
                                           (uint32_t)a->prompt, (uint32_t)a->made, w->room);
        if (id < 0)
            return ft_fail(FT_EDATA, "the model gives numbers that are not finite");
        a->ids[a->n++] = id;
        a->made++;
        a->unread = 1;
        const bool full = a->made == w->o->max_tokens || a->n > w->s->serving.context;
        const char *finish = is_end(w->o, id) ? "stop" : full ? "length" : NULL;
        const int64_t prompt = a->prompt;
        if (finish)
            a->prompt = -1;
        FT_TRY(w->each(w->ctx, prompt, id, finish));
    }
    return FT_OK;
}

/* One token for every slot; false in *more: all prompts are answered. */
static int one_round(struct work *w, int64_t kept, bool *more)
{
    w->n_readings = 0;
    for (int slot = 0; slot < w->s->serving.slots; slot++) {
        struct answer *a = &w->answers[slot];
        if (a->prompt < 0 && w->next < w->n)
            begin(w, slot, w->next ? 0 : kept);
        if (a->prompt >= 0)
            w->readings[w->n_readings++] =
                (struct ft_reading){slot, a->ids + a->n - a->unread, a->unread, 1};
    }
    *more = w->n_readings > 0;
    return ft_server_read(w->s, w->readings, w->n_readings, take_tokens, w);
}

static int run(struct work *w, int64_t kept)
{
    const size_t slots = (size_t)w->s->serving.slots;
    bool more = true;
    FT_TRY(ft_alloc(&w->answers, slots, sizeof *w->answers));
    FT_TRY(ft_alloc(&w->readings, slots, sizeof *w->readings));
    FT_TRY(ft_alloc(&w->room, (size_t)w->s->vocab, sizeof *w->room));
    for (size_t i = 0; i < slots; i++) {
        w->answers[i].prompt = -1;
        FT_TRY(ft_alloc(&w->answers[i].ids, (size_t)w->s->serving.context + 1, sizeof(int32_t)));
    }
    while (more && !(w->o->stop && *w->o->stop))
        FT_TRY(one_round(w, kept, &more));
    return FT_OK;
}

int ft_generate(struct ft_server *s, const struct ft_generating *o, const struct ft_prompt *prompts,
                int64_t n, int64_t kept, ft_token_fn *each, void *ctx)
{
    struct work w = {.s = s, .o = o, .prompts = prompts, .n = n, .each = each, .ctx = ctx};
    int rc = run(&w, kept);
    for (int i = 0; w.answers && i < s->serving.slots; i++)
        ft_free(w.answers[i].ids);
    ft_free(w.answers);
    ft_free(w.readings);
    ft_free(w.room);
    return rc;
}
