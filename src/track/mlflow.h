/* What the MLflow sink is told. */
#ifndef FT_TRACK_MLFLOW_H
#define FT_TRACK_MLFLOW_H

#include <jansson.h>

struct ft_mlflow_options {
    const char *uri;        /* "http://host:port", with a path or not */
    const char *experiment; /* is made if it is not there */
    const char *run;        /* NULL: the server invents a name */
    const json_t *params;   /* an object: what is set is logged as parameters */
};

/* FT_ECONFIG for an address that ft does not speak to. */
int ft_mlflow_check(const char *uri);

#endif
