/* The console sink: one live line in a terminal, plain lines elsewhere. */
#include "track/internal.h"

#include "core/mem.h"

#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct console {
    FILE *out;
    bool live;  /* a terminal */
    bool dirty; /* an unfinished live line stands there */
};

int ft_console_open(void **state, const struct ft_track_options *o)
{
    struct console *c;
    *state = NULL;
    if (!o->console)
        return FT_OK;
    FT_TRY(ft_alloc(&c, 1, sizeof *c));
    c->out = o->console;
    c->live = !o->plain && isatty(fileno(c->out)) == 1;
    *state = c;
    return FT_OK;
}

static int columns(const struct console *c)
{
    struct winsize w;
    return ioctl(fileno(c->out), TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

/* Replaces the live line, cut to the terminal's width. */
static void show(struct console *c, const char *line)
{
    fprintf(c->out, "\r\033[K%.*s", columns(c) - 1, line);
    c->dirty = true;
}

static void end_line(struct console *c)
{
    if (c->dirty)
        fprintf(c->out, "\r\033[K");
    c->dirty = false;
}

static void step_line(char *out, size_t room, const struct ft_event *e)
{
    char loss[32], eta[32];
    if (isfinite(e->loss))
        snprintf(loss, sizeof loss, "%.4f", e->loss);
    else
        snprintf(loss, sizeof loss, "not finite");
    snprintf(out, room,
             "step %lld/%lld  loss %s  lr %.2e  norm %.3f  %.0f tok/s  %.0f MB  eta %s%s",
             (long long)e->step, (long long)e->steps, loss, e->learning_rate, e->grad_norm,
             e->tokens_per_second, (double)e->resident_bytes / 1e6,
             ft_duration_text(eta, e->eta_seconds), e->skipped ? "  (update skipped)" : "");
}

bool ft_console_event(void *state, const struct ft_event *e)
{
    struct console *c = state;
    char line[256], time[32];
    switch (e->kind) {
    case FT_EVENT_LOADING:
        if (c->live) {
            snprintf(line, sizeof line, "loading weights %3.0f %%", 100 * e->fraction);
            show(c, line);
        }
        break;
    case FT_EVENT_STEP:
        step_line(line, sizeof line, e);
        if (c->live)
            show(c, line);
        else if (e->log)
            fprintf(c->out, "%s\n", line);
        break;
    case FT_EVENT_EVAL:
        end_line(c);
        fprintf(c->out, "step %lld/%lld  eval loss %.4f\n", (long long)e->step, (long long)e->steps,
                e->eval_loss);
        break;
    case FT_EVENT_END:
        end_line(c);
        fprintf(c->out, "%lld steps in %s, %lld tokens, %.0f tok/s\n", (long long)e->step,
                ft_duration_text(time, e->seconds), (long long)e->tokens_seen,
                e->tokens_per_second);
        break;
    }
    return fflush(c->out) == 0 && !ferror(c->out);
}

void ft_console_close(void *state)
{
    struct console *c = state;
    end_line(c);
    fflush(c->out);
    ft_free(c);
}
