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

/* What curves are drawn of, by the names of Hugging Face's Trainer: the finite numbers of an event.
 */
struct ft_value {
    const char *name;
    double v;
};
enum { FT_VALUES = 6 };
int ft_event_values(const struct ft_event *e, struct ft_value out[FT_VALUES]);

/* All at once, at the file's end. */
bool ft_sink_write(int fd, const void *p, size_t n);

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
int ft_wandb_open(void **state, const struct ft_track_options *o);
bool ft_wandb_event(void *state, const struct ft_event *e);
void ft_wandb_close(void *state);

#endif
