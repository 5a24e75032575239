/* Owns the world of ranks: whether there is one, and what is computed over it. */
#define _GNU_SOURCE
#include "dist/transport.h"

#include "core/beside.h"
#include "core/mem.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char library[] = "libft_mpi.so";

/* Of one rank, in one exchange: what keeps the room small and the counts below MPI's limit. */
enum { PIECE = 1 << 18 }; /* bytes */

struct ft_world {
    struct ft_transport *transport;
    struct ft_parcel *to, *from; /* one a rank */
    char *room;                  /* size x PIECE bytes */
};

/* --- what launchers say --- */

/* How many processes a variable speaks of; 0: it is not set, or says nothing. */
static int said(const char *name)
{
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

/* The launchers' words for how many processes work together. */
static const char *const counts[] = {"OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS", "PMI_SIZE",
                                     "WORLD_SIZE"};

int ft_world_announced(void)
{
    int most = 1;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        most = said(counts[i]) > most ? said(counts[i]) : most;
    return most;
}

/* The first that is set and says another number. */
static const char *contradiction(int size)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (said(counts[i]) > 0 && said(counts[i]) != size)
            return counts[i];
    if (!said("SLURM_NTASKS") && size == 1 && said("SLURM_JOB_NUM_NODES") > 1)
        return "SLURM_JOB_NUM_NODES";
    return NULL;
}

static int refuse(const char *name, int size)
{
    if (size > 1)
        ft_fail(FT_ECONFIG, "'%s' says %d, and MPI knows of %d processes", name, said(name), size);
    else
        ft_fail(FT_ECONFIG, "'%s' says %d, and this process knows of no other", name, said(name));
    ft_hint("'srun --mpi=pmix ft train ...' or 'mpirun ft train ...' starts all that are to train "
            "together; where this process is to train alone, ask for one task: 'srun -n1 ft train "
            "...', 'sbatch --ntasks=1'");
    return FT_ECONFIG;
}

/* Whether whoever started this process speaks to MPI. */
static bool launched_by_mpi(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK");
}

/* --- opening --- */

static ft_transport_open_fn *find_transport(char *why, size_t room)
{
    const char *given = getenv("FT_MPI_LIBRARY");
    char path[FT_BESIDE_ROOM];
    ft_transport_open_fn *open = NULL;
    const bool found = (given && *given) || ft_beside(library, path);
    /* global: MPI's own plugins look for its symbols */
    void *handle = found ? dlopen(given && *given ? given : path, RTLD_NOW | RTLD_GLOBAL) : NULL;
    if (handle)
        *(void **)&open = dlsym(handle, "ft_transport_open");
    if (!found)
        snprintf(why, room, "%s is not beside the program", library);
    else if (!open)
        snprintf(why, room, "%s", dlerror());
    return open;
}

static int open_transport(struct ft_transport **t, const struct ft_world_watch *watch)
{
    char why[512];
    ft_transport_open_fn *open = find_transport(why, sizeof why);
    *t = open ? open(FT_VERSION, watch, why, sizeof why) : NULL;
    if (*t)
        return FT_OK;
    ft_fail(FT_ERESOURCE, "this process cannot work with the others: %s", why);
    ft_hint("ft is built with ranks where CMake finds MPI (Debian: libopenmpi-dev); to train "
            "alone, start one process");
    return FT_ERESOURCE;
}

int ft_world_open(struct ft_world **out, const struct ft_world_watch *watch)
{
    struct ft_world *w;
    *out = NULL;
    const char *other = contradiction(1);
    if (!other)
        return FT_OK;
    if (!launched_by_mpi())
        return refuse(other, 1);
    FT_TRY(ft_alloc(&w, 1, sizeof *w));
    int rc = open_transport(&w->transport, watch);
    const int size = rc ? 1 : w->transport->size;
    /* mpirun's own daemons on other nodes are Slurm tasks, whose variables those ranks see */
    if (!rc && w->transport->rank == 0 && (other = contradiction(size)))
        rc = refuse(other, size);
    if (!rc)
        rc = ft_alloc(&w->to, (size_t)size, sizeof *w->to);
    if (!rc)
        rc = ft_alloc(&w->from, (size_t)size, sizeof *w->from);
    if (!rc)
        rc = ft_alloc(&w->room, (size_t)size, PIECE);
    if (rc && !w->transport) {
        ft_free(w);
        w = NULL;
    }
    *out = w; /* the others are there to be told */
    return rc;
}

void ft_world_give_way(struct ft_world *w)
{
    sleep(1);
    while (w->transport->told)
        sleep(1);
}

void ft_world_close(struct ft_world *w, int code)
{
    char here = 1;
    if (!w)
        return;
    if (!code && ft_world_gather(w, &here, 1, w->room))
        code = FT_ERESOURCE;
    w->transport->close(w->transport, code);
    ft_free(w->to);
    ft_free(w->from);
    ft_free(w->room);
    ft_free(w);
}

int ft_world_rank(const struct ft_world *w)
{
    return w ? w->transport->rank : 0;
}

int ft_world_size(const struct ft_world *w)
{
    return w ? w->transport->size : 1;
}

int ft_world_here(const struct ft_world *w)
{
    return w ? w->transport->here : 1;
}

int ft_world_place(const struct ft_world *w)
{
    return w ? w->transport->place : 0;
}

const char *ft_world_host(const struct ft_world *w, int rank)
{
    return w ? w->transport->hosts[rank] : "";
}

/* --- moving data --- */

static int exchange(struct ft_world *w)
{
    struct ft_transport *t = w->transport;
    if (t->exchange(t, w->to, w->from) == 0)
        return FT_OK;
    return ft_fail(FT_ERESOURCE, "rank %d of %d, on '%s': %s", t->rank, t->size, t->hosts[t->rank],
                   t->error);
}

/* Bytes before rank k's part of n elements. */
static size_t before(const struct ft_world *w, int64_t n, size_t element, int k)
{
    return (size_t)(n * k / w->transport->size) * element;
}

static struct ft_parcel part_of(const struct ft_world *w, void *x, int64_t n, size_t element, int k)
{
    const size_t at = before(w, n, element, k);
    return (struct ft_parcel){(char *)x + at, before(w, n, element, k + 1) - at};
}

/* One's own part of x to all, and theirs into their places. */
static int spread(struct ft_world *w, void *x, int64_t n, size_t element)
{
    for (int k = 0; k < w->transport->size; k++) {
        w->to[k] = part_of(w, x, n, element, w->transport->rank);
        w->from[k] = part_of(w, x, n, element, k);
    }
    return exchange(w);
}

typedef void add_fn(void *sum, const struct ft_parcel *parts, int n, int64_t count);

static void add_f32(void *sum, const struct ft_parcel *parts, int n, int64_t count)
{
    float *y = sum;
    for (int64_t i = 0; i < count; i++) {
        double s = 0;
        for (int k = 0; k < n; k++)
            s += (double)((const float *)parts[k].data)[i];
        y[i] = (float)s;
    }
}

static void add_f64(void *sum, const struct ft_parcel *parts, int n, int64_t count)
{
    double *y = sum;
    for (int64_t i = 0; i < count; i++) {
        double s = 0;
        for (int k = 0; k < n; k++)
            s += ((const double *)parts[k].data)[i];
        y[i] = s;
    }
}

/* A rank adds one part of the block, and sends the sum to all. At most size x PIECE bytes. */
static int sum_block(struct ft_world *w, void *x, int64_t n, size_t element, add_fn *add)
{
    const int size = w->transport->size, me = w->transport->rank;
    const struct ft_parcel mine = part_of(w, x, n, element, me);
    for (int k = 0; k < size; k++) {
        w->to[k] = part_of(w, x, n, element, k);
        w->from[k] = (struct ft_parcel){w->room + (size_t)k * PIECE, mine.bytes};
    }
    w->from[me] = mine;
    FT_TRY(exchange(w));
    add(mine.data, w->from, size, (int64_t)(mine.bytes / element));
    return spread(w, x, n, element);
}

static int sum(struct ft_world *w, void *x, int64_t n, size_t element, add_fn *add)
{
    if (!w)
        return FT_OK;
    const int64_t most = (int64_t)w->transport->size * (int64_t)(PIECE / element);
    for (int64_t i = 0; i < n; i += most)
        FT_TRY(sum_block(w, (char *)x + (size_t)i * element, n - i < most ? n - i : most, element,
                         add));
    return FT_OK;
}

int ft_world_sum(struct ft_world *w, float *x, int64_t n)
{
    return sum(w, x, n, sizeof *x, add_f32);
}

int ft_world_sum_f64(struct ft_world *w, double *x, int64_t n)
{
    return sum(w, x, n, sizeof *x, add_f64);
}

int ft_world_share(struct ft_world *w, void *x, size_t bytes)
{
    enum { MOST = 1 << 24 };
    if (!w)
        return FT_OK;
    const int me = w->transport->rank;
    for (size_t i = 0; i < bytes; i += MOST) {
        const struct ft_parcel none = {NULL, 0},
                               part = {(char *)x + i, bytes - i < MOST ? bytes - i : MOST};
        for (int k = 0; k < w->transport->size; k++) {
            w->to[k] = me == 0 ? part : none;
            w->from[k] = me > 0 && k == 0 ? part : none;
        }
        FT_TRY(exchange(w));
    }
    return FT_OK;
}

int ft_world_gather(struct ft_world *w, const void *own, size_t bytes, void *all)
{
    memcpy((char *)all + (size_t)ft_world_rank(w) * bytes, own, bytes);
    return w ? spread(w, all, w->transport->size, bytes) : FT_OK;
}

/* --- the host's processors --- */

struct allowance {
    char host[FT_HOST_NAME];
    cpu_set_t may;
};

int ft_world_threads(struct ft_world *w, int most, int *threads)
{
    struct allowance own, *all;
    memset(&own, 0, sizeof own);
    const size_t size = (size_t)ft_world_size(w);
    *threads = most;
    if (size == 1)
        return FT_OK;
    snprintf(own.host, sizeof own.host, "%s", ft_world_host(w, ft_world_rank(w)));
    if (sched_getaffinity(0, sizeof own.may,
                          &own.may)) /* more processors than a set has room for */
        memset(&own.may, 0xff, sizeof own.may);
    FT_TRY(ft_alloc(&all, size, sizeof *all));
    int rc = ft_world_gather(w, &own, sizeof own, all);
    double share = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && !rc; cpu++) {
        int users = 0;
        for (size_t k = 0; k < size; k++)
            users += strcmp(all[k].host, own.host) == 0 && CPU_ISSET(cpu, &all[k].may);
        share += CPU_ISSET(cpu, &own.may) ? 1.0 / users : 0;
    }
    ft_free(all);
    *threads = share < most ? (int)(share + 1e-6) : most;
    *threads = *threads > 0 ? *threads : 1;
    return rc;
}
