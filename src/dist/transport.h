/* What carries data between ranks, in a shared object, so that one program runs with and without
 * MPI. */
#ifndef FT_DIST_TRANSPORT_H
#define FT_DIST_TRANSPORT_H

#include "dist/world.h"

enum { FT_HOST_NAME = 256 };

/* Bytes to or from one rank; none for oneself. */
struct ft_parcel {
    void *data;
    size_t bytes; /* below 2^31 */
};

struct ft_transport {
    int rank, size, here, place;
    char (*hosts)[FT_HOST_NAME]; /* of each rank */
    char error[256];             /* why a call failed */
    _Atomic bool told;           /* by another rank that it has failed: watch->ended follows */
    /* Sends to and receives from every rank: `size` parcels each. Not 0: it failed. */
    int (*exchange)(struct ft_transport *t, const struct ft_parcel *to,
                    const struct ft_parcel *from);
    /* Frees it. code 0: all ranks have come here; else the others are told. */
    void (*close)(struct ft_transport *t, int code);
};

/* What the shared object exports as "ft_transport_open": NULL with a reason in why, also for
 * another version than its own. */
typedef struct ft_transport *ft_transport_open_fn(const char *version,
                                                  const struct ft_world_watch *watch, char *why,
                                                  size_t room);

#endif
