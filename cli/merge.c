/* ft merge */
#include "cli/responder.h"

#include "core/file.h"
#include "core/mem.h"
#include "train/merge.h"

#include <stdlib.h>
#include <string.h>

struct words {
    const char *out, *model, *file; /* file: to evaluate; or NULL */
    bool force, whole;
    enum ft_dtype dtype;
    double share[FT_MERGED];
    int n_shares;
    char **options; /* of the config: load_in_4bit=true */
    int n_options;
};

/* "0.5,0.3" */
static int read_shares(struct words *w, const char *text)
{
    for (const char *p = text; p && *p;) {
        char *end;
        if (w->n_shares == FT_MERGED)
            return ft_fail(FT_ECONFIG, "'--weights' has more than %d numbers", FT_MERGED);
        w->share[w->n_shares++] = strtod(p, &end);
        if (end == p || (*end && *end != ','))
            return ft_fail(FT_ECONFIG, "'--weights %s' is not a list of numbers", text);
        p = *end ? end + 1 : end;
    }
    return FT_OK;
}

static int read_dtype(struct words *w, const char *name)
{
    static const struct {
        const char *name;
        enum ft_dtype dtype;
    } types[] = {{"f32", FT_F32}, {"f16", FT_F16}, {"bf16", FT_BF16}};
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) {
            w->whole = true;
            w->dtype = types[i].dtype;
        }
    return !name || w->whole ? FT_OK : ft_fail(FT_ECONFIG, "'--dtype %s': f32, f16 or bf16", name);
}

static int merge_all(const struct words *w, const char *model, int n, char **adapters)
{
    struct ft_merge m = {.whole = w->whole, .dtype = w->dtype};
    struct ft_responder r[FT_MERGED] = {0};
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++) {
        rc = ft_responder_config(&r[i], model, adapters[i], w->n_options, w->options);
        if (!rc)
            rc = ft_merge_add(&m, &r[i].config, w->n_shares ? w->share[i] : 1, w->force);
    }
    ft_print_notices();
    ft_writer_heed(ft_listen_to_stop());
    if (!rc)
        rc = ft_merge_write(&m, w->out, w->force);
    ft_writer_heed(NULL);
    ft_merge_close(&m);
    for (int i = 0; i < n; i++)
        ft_responder_close(&r[i]);
    return rc;
}

/* What the merge costs: the adapter beside the weights, and in them; of several the base. */
static int tell_cost(const struct words *w, const char *model, int n, char **adapters)
{
    double before, after;
    FT_TRY(ft_eval_loss(model, n == 1 ? adapters[0] : NULL, w->file, w->n_options, w->options,
                        &before));
    FT_TRY(ft_eval_loss(w->out, NULL, w->file, 1, w->options, &after)); /* the device alone */
    printf("loss on %s: %.6f %s, %.6f merged (%+.6f)\n", w->file, before,
           n == 1 ? "with the adapter beside the weights" : "of the base", after, after - before);
    return FT_OK;
}

/* Options of the config, behind that of the device; the adapters' number. */
static int take_options(struct words *w, int n, char **words, char **options)
{
    static char cpu[] = "device=cpu";
    int adapters = 0;
    options[w->n_options++] = cpu;
    for (int i = 0; i < n; i++)
        if (strcspn(words[i], "=") < strcspn(words[i], "/"))
            options[w->n_options++] = words[i];
        else
            words[adapters++] = words[i];
    w->options = options;
    return adapters;
}

static int merge(const struct ft_command *self, int n, char **words, char **options)
{
    struct words w = {.force = ft_take_flag(&n, words, "--force")};
    const char *shares = NULL, *dtype = NULL;
    char *base = NULL;
    FT_TRY(ft_take_text(self, &n, words, "-o", &w.out));
    FT_TRY(ft_take_text(self, &n, words, "-m", &w.model));
    FT_TRY(ft_take_text(self, &n, words, "--weights", &shares));
    FT_TRY(ft_take_text(self, &n, words, "--dtype", &dtype));
    FT_TRY(ft_take_text(self, &n, words, "--eval", &w.file));
    FT_TRY(ft_refuse_flags(self, n, words));
    n = take_options(&w, n, words, options);
    FT_TRY(read_shares(&w, shares));
    FT_TRY(read_dtype(&w, dtype));
    if (n < 1 || n > FT_MERGED || !w.out || (w.n_shares && w.n_shares != n)) {
        ft_fail(FT_ECONFIG, !w.out            ? "'ft merge' needs a folder to write, behind '-o'"
                            : w.n_shares && n ? "'--weights' has not one number for each adapter"
                                              : "'ft merge' needs one adapter, or up to 16");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    int rc = w.model ? FT_OK : ft_named_base(words[0], &base);
    if (!rc)
        rc = merge_all(&w, w.model ? w.model : base, n, words);
    if (!rc)
        printf("%s: %s with %d adapter%s in its weights\n", w.out, w.model ? w.model : base, n,
               n == 1 ? "" : "s");
    if (!rc && w.file)
        rc = tell_cost(&w, w.model ? w.model : base, n, words);
    ft_free(base);
    return rc;
}

int ft_cmd_merge(const struct ft_command *self, int n, char **words)
{
    char **options;
    FT_TRY(ft_alloc(&options, (size_t)n + 1, sizeof *options));
    int rc = merge(self, n, words, options);
    ft_free(options);
    return rc;
}
