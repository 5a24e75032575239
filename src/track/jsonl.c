/* The metrics.jsonl sink: one object a line, each written whole. */
#include "track/internal.h"

#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

struct jsonl {
    int fd;
};

int ft_jsonl_open(void **state, const struct ft_track_options *o)
{
    struct jsonl *j;
    *state = NULL;
    if (!o->metrics_path)
        return FT_OK;
    FT_TRY(ft_alloc(&j, 1, sizeof *j));
    j->fd = open(o->metrics_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (j->fd < 0) {
        ft_free(j);
        return ft_fail_at((struct ft_where){.file = o->metrics_path}, FT_ERESOURCE,
                          "cannot create: %s", strerror(errno));
    }
    *state = j;
    return FT_OK;
}

/* JSON knows no NaN: it becomes null. */
static const char *number(char out[32], double v)
{
    if (isfinite(v))
        snprintf(out, 32, "%.9g", v);
    else
        memcpy(out, "null", 5);
    return out;
}

bool ft_jsonl_event(void *state, const struct ft_event *e)
{
    const struct jsonl *j = state;
    char line[640], n[7][32];
    if (e->kind == FT_EVENT_STEP && e->log)
        snprintf(line, sizeof line,
                 "{\"step\": %lld, \"epoch\": %s, \"loss\": %s, \"grad_norm\": %s, "
                 "\"learning_rate\": %s, \"trained_tokens\": %lld, \"tokens_seen\": %lld, "
                 "\"tokens_per_second\": %s, \"seconds\": %s, \"peak_bytes\": %zu%s}\n",
                 (long long)e->step, number(n[0], e->epoch), number(n[1], e->loss),
                 number(n[2], e->grad_norm), number(n[3], e->learning_rate),
                 (long long)e->trained_tokens, (long long)e->tokens_seen,
                 number(n[4], e->tokens_per_second), number(n[5], e->seconds), e->resident_bytes,
                 e->skipped ? ", \"skipped\": true" : "");
    else if (e->kind == FT_EVENT_EVAL)
        snprintf(line, sizeof line, "{\"step\": %lld, \"eval_loss\": %s}\n", (long long)e->step,
                 number(n[0], e->eval_loss));
    else
        return true;
    return ft_sink_write(j->fd, line, strlen(line));
}

void ft_jsonl_close(void *state)
{
    struct jsonl *j = state;
    close(j->fd);
    ft_free(j);
}
