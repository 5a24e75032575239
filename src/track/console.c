/* The console sink: lines, and below them a bar in a terminal. */
#define _GNU_SOURCE
#include "track/internal.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct console {
    FILE *out;
    bool live;   /* a terminal that can do it */
    bool colour; /* and has colours that are wanted */
    bool arrows; /* and UTF-8 */
    bool dirty;  /* an unfinished live line stands there */
    int64_t losses;
    double fast, slow; /* running means of the loss */
};

static bool is_set(const char *name)
{
    const char *text = getenv(name);
    return text && *text;
}

static bool speaks_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++)
        if (is_set(names[i]))
            return strcasestr(getenv(names[i]), "utf-8") || strcasestr(getenv(names[i]), "utf8");
    return false;
}

int ft_console_open(void **state, const struct ft_track_options *o)
{
    struct console *c;
    *state = NULL;
    if (!o->console)
        return FT_OK;
    FT_TRY(ft_alloc(&c, 1, sizeof *c));
    c->out = o->console;
    c->live = !o->plain && isatty(fileno(c->out)) == 1 && is_set("TERM") &&
              strcmp(getenv("TERM"), "dumb") != 0;
    c->colour = c->live && !is_set("NO_COLOR");
    c->arrows = c->live && speaks_utf8();
    *state = c;
    return FT_OK;
}

static int columns(const struct console *c)
{
    struct winsize w;
    return ioctl(fileno(c->out), TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

static void end_line(struct console *c)
{
    if (c->dirty)
        fprintf(c->out, "\r\033[K");
    c->dirty = false;
}

static void put_colour(const struct console *c, const char *code)
{
    if (c->colour)
        fprintf(c->out, "\033[%sm", code);
}

/* Replaces the live line by a bar and a text of `width` columns, of which as much is shown as fits
 * the terminal. */
static void show(struct console *c, double fraction, const char *text, int width)
{
    enum { MOST = 30 };
    int room = columns(c) - 1 - width - (int)sizeof "[] 100 %  " + 1;
    room = room > MOST ? MOST : room;
    fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
    end_line(c);
    if (room >= 5) {
        const int full = (int)(fraction * room + 0.5);
        fputc('[', c->out);
        put_colour(c, "32");
        for (int i = 0; i < room; i++) {
            if (i == full)
                put_colour(c, "2");
            fputc(i < full ? '#' : '.', c->out);
        }
        put_colour(c, "0");
        fprintf(c->out, "] %3.0f %%  ", 100 * fraction);
    }
    fprintf(c->out, "%s", width < columns(c) ? text : "");
    c->dirty = true;
}

static void loss_text(char out[32], double loss)
{
    if (isfinite(loss))
        snprintf(out, 32, "%.4f", loss);
    else
        strcpy(out, "not finite");
}

/* What a step leaves in the log; where a bar stands below it, that has the rest. */
static void print_step(struct console *c, const struct ft_event *e)
{
    char loss[32], eta[32];
    loss_text(loss, e->loss);
    fprintf(c->out, "step %lld/%lld  loss %s  lr %.2e  norm %.3f  %.0f tok/s  %.0f MB",
            (long long)e->step, (long long)e->steps, loss, e->learning_rate, e->grad_norm,
            e->tokens_per_second, (double)e->resident_bytes / 1e6);
    if (!c->live)
        fprintf(c->out, "  eta %s", ft_duration_text(eta, e->eta_seconds));
    fprintf(c->out, "%s\n", e->skipped ? "  (update skipped)" : "");
}

/* Where the loss goes: the last few steps against the last few dozen. */
static const char *trend(struct console *c, double loss)
{
    enum { LEAST = 10 };
    if (!isfinite(loss))
        return " ";
    c->fast = c->losses ? c->fast + (loss - c->fast) / 5 : loss;
    c->slow = c->losses ? c->slow + (loss - c->slow) / 25 : loss;
    if (++c->losses < LEAST)
        return " ";
    const double change = (c->fast - c->slow) / (fabs(c->slow) + 1e-9);
    if (change < -0.002)
        return c->arrows ? "\u2193" : "-";
    return change > 0.002 ? (c->arrows ? "\u2191" : "+") : c->arrows ? "\u2192" : "=";
}

static void show_step(struct console *c, const struct ft_event *e)
{
    char text[160], loss[32], eta[32];
    loss_text(loss, e->loss);
    const char *arrow = trend(c, e->loss);
    const int n = snprintf(text, sizeof text, "step %lld/%lld  loss %s %s  %.0f tok/s  eta %s",
                           (long long)e->step, (long long)e->steps, loss, arrow,
                           e->tokens_per_second, ft_duration_text(eta, e->eta_seconds));
    show(c, (double)e->step / (double)e->steps, text, n - (int)strlen(arrow) + 1);
}

static void print_evaluation(struct console *c, const struct ft_event *e)
{
    end_line(c);
    put_colour(c, "36");
    fprintf(c->out, "step %lld/%lld  eval loss %.4f", (long long)e->step, (long long)e->steps,
            e->eval_loss);
    put_colour(c, "0");
    fputc('\n', c->out);
}

bool ft_console_event(void *state, const struct ft_event *e)
{
    static const char loading[] = "loading weights", evaluating[] = "evaluating";
    struct console *c = state;
    char time[32];
    switch (e->kind) {
    case FT_EVENT_LOADING:
        if (c->live)
            show(c, e->fraction, loading, sizeof loading - 1);
        break;
    case FT_EVENT_EVALUATING:
        if (c->live)
            show(c, e->fraction, evaluating, sizeof evaluating - 1);
        break;
    case FT_EVENT_STEP:
        end_line(c);
        if (e->log)
            print_step(c, e);
        if (c->live)
            show_step(c, e);
        break;
    case FT_EVENT_EVAL:
        print_evaluation(c, e);
        break;
    case FT_EVENT_END:
        end_line(c);
        fprintf(c->out, "%lld step%s in %s, %lld tokens, %.0f tok/s\n", (long long)e->step,
                e->step == 1 ? "" : "s", ft_duration_text(time, e->seconds),
                (long long)e->tokens_seen, e->tokens_per_second);
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
