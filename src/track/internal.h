/* What the sinks share. */
#ifndef FT_TRACK_INTERNAL_H
#define FT_TRACK_INTERNAL_H

#include "track/track.h"

/* A sink: open sets *state (NULL: nothing to do), event returns false when it cannot write any
 * more, close frees. */
struct ft_sink {
    const char *name;
    int (*open)(void **state, const struct ft_track_options *o);
    bool (*event)(void *state, const struct ft_event *e);
    void (*close)(void *state);
};

int ft_console_open(void **state, const struct ft_track_options *o);
bool ft_console_event(void *state, const struct ft_event *e);
void ft_console_close(void *state);
int ft_jsonl_open(void **state, const struct ft_track_options *o);
bool ft_jsonl_event(void *state, const struct ft_event *e);
void ft_jsonl_close(void *state);
int ft_mlflow_open(void **state, const struct ft_track_options *o);
bool ft_mlflow_event(void *state, const struct ft_event *e);
void ft_mlflow_close(void *state);
int ft_tensorboard_open(void **state, const struct ft_track_options *o);
bool ft_tensorboard_event(void *state, const struct ft_event *e);
void ft_tensorboard_close(void *state);

#endif
