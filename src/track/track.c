/* Owns the sinks: one row each, every one told of every event. */
#include "track/internal.h"

#include "core/mem.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

static const struct ft_sink sinks[] = {
    {"console", ft_console_open, ft_console_event, ft_console_close},
    {"metrics.jsonl", ft_jsonl_open, ft_jsonl_event, ft_jsonl_close},
    {"tensorboard", ft_tensorboard_open, ft_tensorboard_event, ft_tensorboard_close},
    {"wandb", ft_wandb_open, ft_wandb_event, ft_wandb_close},
    {"mlflow", ft_mlflow_open, ft_mlflow_event, ft_mlflow_close},
};
enum { SINKS = sizeof sinks / sizeof *sinks };

struct ft_track {
    void *state[SINKS];
};

int ft_track_open(struct ft_track **out, const struct ft_track_options *o)
{
    struct ft_track *t;
    *out = NULL;
    FT_TRY(ft_alloc(&t, 1, sizeof *t));
    for (int i = 0; i < SINKS; i++) {
        int rc = sinks[i].open(&t->state[i], o);
        if (rc) {
            ft_track_close(t);
            return rc;
        }
    }
    *out = t;
    return FT_OK;
}

void ft_track_event(struct ft_track *t, const struct ft_event *e)
{
    for (int i = 0; i < SINKS; i++)
        if (t->state[i] && !sinks[i].event(t->state[i], e)) {
            ft_notice((struct ft_where){0}, "'%s' cannot be written any more; training goes on",
                      sinks[i].name);
            sinks[i].close(t->state[i]);
            t->state[i] = NULL;
        }
}

void ft_track_close(struct ft_track *t)
{
    if (!t)
        return;
    for (int i = 0; i < SINKS; i++)
        if (t->state[i])
            sinks[i].close(t->state[i]);
    ft_free(t);
}

int ft_event_values(const struct ft_event *e, struct ft_value out[FT_VALUES])
{
    const bool step = e->kind == FT_EVENT_STEP && e->log;
    const struct {
        struct ft_value is;
        bool there;
    } all[FT_VALUES] = {{{"train/loss", e->loss}, step},
                        {{"train/grad_norm", e->grad_norm}, step},
                        {{"train/learning_rate", e->learning_rate}, step},
                        {{"train/epoch", e->epoch}, step},
                        {{"train/tokens_per_second", e->tokens_per_second}, step},
                        {{"eval/loss", e->eval_loss}, e->kind == FT_EVENT_EVAL}};
    int n = 0;
    for (int i = 0; i < FT_VALUES; i++)
        if (all[i].there && isfinite(all[i].is.v))
            out[n++] = all[i].is;
    return n;
}

bool ft_sink_write(int fd, const void *p, size_t n)
{
    ssize_t done;
    do
        done = write(fd, p, n);
    while (done < 0 && errno == EINTR);
    return done == (ssize_t)n;
}

const char *ft_duration_text(char *out, double seconds)
{
    long s = seconds > 0 && seconds < 1e9 ? (long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(out, 32, "%ldh%02ldm", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, 32, "%ldm%02lds", s / 60, s % 60);
    else
        snprintf(out, 32, "%lds", s);
    return out;
}
