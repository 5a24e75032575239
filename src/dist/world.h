/* The processes that work on one run: started by mpirun or srun, each with its part of every
 * window. NULL is a world of one for every function here. All are called by one thread, and those
 * that move data by all ranks in the same order. */
#ifndef FT_DIST_WORLD_H
#define FT_DIST_WORLD_H

#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

struct ft_world;
enum { FT_MOST_RANKS = 1024 };

/* What a rank's watch over the others finds; called by a thread of its own, and not to return. */
struct ft_world_watch {
    /* Nothing was heard of a rank for `seconds`: it hangs, has died, or its machine is gone. The
     * others have been told that this rank ends with FT_ERESOURCE. */
    void (*lost)(int rank, const char *host, int seconds);
    /* Another rank ended with this code, and has said why. */
    void (*ended)(int code);
};

/* How many processes a launcher's variables speak of; 1: of none. */
int ft_world_announced(void);

/* *out NULL: no launcher says that there are others. FT_ECONFIG where one does and MPI knows
 * nothing of them, or of another number: never a world of one in silence. FT_ERESOURCE without
 * libft_mpi.so (beside the program or in ../lib/ft, or the file that FT_MPI_LIBRARY names). *out is
 * to be closed after a failure too. */
int ft_world_open(struct ft_world **out, const struct ft_world_watch *watch);
/* After a failure: gives the others a second to say the same. Does not return if one has: then the
 * watch's `ended` follows. */
void ft_world_give_way(struct ft_world *w);
/* FT_OK: waits for all ranks. Another code: the others are told, and end with it. */
void ft_world_close(struct ft_world *w, int code);

int ft_world_rank(const struct ft_world *w); /* 0: the one that writes */
int ft_world_size(const struct ft_world *w);
int ft_world_here(const struct ft_world *w);  /* how many there are on this host */
int ft_world_place(const struct ft_world *w); /* its number among those */
const char *ft_world_host(const struct ft_world *w, int rank);

/* Sums over the ranks, in their order, into every rank's x. FT_ERESOURCE. */
int ft_world_sum(struct ft_world *w, float *x, int64_t n);
int ft_world_sum_f64(struct ft_world *w, double *x, int64_t n);
/* Rank 0's bytes to all. */
int ft_world_share(struct ft_world *w, void *x, size_t bytes);
/* Everyone's bytes, by rank, to all: `all` has room for size x bytes. */
int ft_world_gather(struct ft_world *w, const void *own, size_t bytes, void *all);

/* How many of the host's processors this rank may use: those that it may run on, shared with the
 * ranks that may run there too; most: what it could use alone. */
int ft_world_threads(struct ft_world *w, int most, int *threads);

#endif
