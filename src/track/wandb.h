/* What the W&B sink is told. */
#ifndef FT_TRACK_WANDB_H
#define FT_TRACK_WANDB_H

#include "core/status.h"

#include <jansson.h>

struct ft_wandb_options {
    const char *folder; /* the run's own folder goes there, "offline-run-TIME-ID" */
    const char *project, *name;
    const char *entity;   /* NULL: whoever uploads the run */
    const char *run;      /* its id; NULL: a new one, or that of the run which goes on */
    const json_t *config; /* an object: what is set is logged */
};

/* FT_ECONFIG for an id that W&B does not take. */
int ft_wandb_check(const char *id, struct ft_where at);
/* The offline runs in the folder, and the folder if nothing else is in it. */
void ft_wandb_remove(const char *folder);

#endif
