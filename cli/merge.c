/* ft merge */
#include "cli/responder.h"

#include "core/mem.h"
#include "train/merge.h"

#include <stdlib.h>
#include <string.h>

struct words {
    const char *out, *model;
    bool force;
    double share[FT_MERGED];
    int n_shares;
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

static int merge_all(const struct words *w, const char *model, int n, char **adapters)
{
    static char cpu[] = "device=cpu";
    char *more[] = {cpu};
    struct ft_merge m = {0};
    struct ft_responder r[FT_MERGED] = {0};
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++) {
        rc = ft_responder_config(&r[i], model, adapters[i], 1, more);
        if (!rc)
            rc = ft_merge_add(&m, &r[i].config, w->n_shares ? w->share[i] : 1, w->force);
    }
    ft_print_notices();
    if (!rc)
        rc = ft_merge_write(&m, w->out, w->force);
    ft_merge_close(&m);
    for (int i = 0; i < n; i++)
        ft_responder_close(&r[i]);
    return rc;
}

int ft_cmd_merge(const struct ft_command *self, int n, char **words)
{
    struct words w = {.force = ft_take_flag(&n, words, "--force")};
    const char *shares = NULL;
    char *base = NULL;
    FT_TRY(ft_take_text(self, &n, words, "-o", &w.out));
    FT_TRY(ft_take_text(self, &n, words, "-m", &w.model));
    FT_TRY(ft_take_text(self, &n, words, "--weights", &shares));
    FT_TRY(ft_refuse_flags(self, n, words));
    FT_TRY(read_shares(&w, shares));
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
    ft_free(base);
    return rc;
}
