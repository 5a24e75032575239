/* Ranks by MPI: one thread of each process makes all its calls. It carries what the run exchanges,
 * and between that a sign of life every second, so that a rank which hangs is found. */
#define _GNU_SOURCE
#include "dist/transport.h"

#include "core/clock.h"

#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAG_DATA = 1, TAG_SIGN };
enum {
    EACH = 1,     /* seconds from sign to sign */
    SILENCE = 20, /* seconds without one, after which a rank is given up */
    LATER = 3,    /* so much later by others than rank 0, which is to say it */
    FAREWELL = 1, /* seconds for the last sign to arrive */
    PATIENCE = 5, /* seconds for the others to leave, too */
};

struct mpi {
    struct ft_transport base;
    struct ft_world_watch watch;
    MPI_Comm comm;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t turn; /* told both ways: work is there, work is done */
    const struct ft_parcel *to, *from;
    _Atomic bool busy, ending;
    bool failed;
    int code;              /* that it ends with */
    MPI_Request *requests; /* 2 x size */
    /* signs: a code that this rank ends with, 0 while it lives */
    int *sign;            /* as sent to each rank */
    MPI_Request *signing; /* one a rank */
    double *heard, signed_at, looked_at;
};

static struct mpi *of(struct ft_transport *t)
{
    return (struct mpi *)t;
}

/* --- leaving after a failure; by the thread --- */

/* Slurm kills all ranks of a step when one leaves without MPI_Finalize, and their exit codes are
 * lost; which waits for all, so that it may never return. */
static void finalize(struct mpi *m)
{
    for (int k = 0; k < 2 * m->base.size; k++)
        if (m->requests[k] != MPI_REQUEST_NULL) {
            MPI_Cancel(&m->requests[k]);
            MPI_Request_free(&m->requests[k]);
        }
    MPI_Finalize();
}

static void *give_up(void *arg)
{
    struct mpi *m = arg;
    sleep(PATIENCE);
    m->watch.ended(m->code);
    return NULL;
}

/* Another rank has failed. */
static void follow(struct mpi *m, int code)
{
    pthread_t thread;
    m->code = code;
    m->base.told = true;
    if (pthread_create(&thread, NULL, give_up, m) == 0)
        finalize(m);
    m->watch.ended(code);
}

/* --- signs of life; by the thread --- */

static void send_signs(struct mpi *m, int code)
{
    for (int k = 0; k < m->base.size; k++) {
        int sent = 1;
        if (k == m->base.rank)
            continue;
        MPI_Test(&m->signing[k], &sent, MPI_STATUS_IGNORE);
        if (!sent)
            continue; /* the one before is still on its way */
        m->sign[k] = code;
        MPI_Isend(&m->sign[k], 1, MPI_INT, k, TAG_SIGN, m->comm, &m->signing[k]);
    }
}

static void receive_signs(struct mpi *m)
{
    for (;;) {
        int there = 0, code = 0;
        MPI_Status s;
        MPI_Iprobe(MPI_ANY_SOURCE, TAG_SIGN, m->comm, &there, &s);
        if (!there)
            return;
        MPI_Recv(&code, 1, MPI_INT, s.MPI_SOURCE, TAG_SIGN, m->comm, MPI_STATUS_IGNORE);
        m->heard[s.MPI_SOURCE] = ft_now();
        if (code && !m->ending)
            follow(m, code);
    }
}

/* Gives the last signs time to arrive. */
static void bid_farewell(struct mpi *m, int code)
{
    const double end = ft_now() + FAREWELL;
    send_signs(m, code);
    for (int all = 0; !all && ft_now() < end;)
        MPI_Testall(m->base.size, m->signing, &all, MPI_STATUSES_IGNORE);
}

static void look_around(struct mpi *m)
{
    const double now = ft_now();
    if (now - m->looked_at > SILENCE / 4) /* this process was stopped: so were others, maybe */
        for (int k = 0; k < m->base.size; k++)
            m->heard[k] = now;
    m->looked_at = now;
    receive_signs(m);
    if (now - m->signed_at < EACH)
        return;
    m->signed_at = now;
    send_signs(m, 0);
    for (int k = 0; k < m->base.size; k++) {
        const double limit = SILENCE + (m->base.rank ? LATER : 0);
        if (k == m->base.rank || now - m->heard[k] < limit)
            continue;
        bid_farewell(m, FT_ERESOURCE);
        m->watch.lost(k, m->base.hosts[k], (int)(now - m->heard[k]));
    }
}

/* --- exchanges; by the thread --- */

static void post(struct mpi *m, const struct ft_parcel *p, int k, bool sends, MPI_Request *r)
{
    *r = MPI_REQUEST_NULL;
    if (k == m->base.rank || !p->bytes)
        return;
    if (sends)
        MPI_Isend(p->data, (int)p->bytes, MPI_BYTE, k, TAG_DATA, m->comm, r);
    else
        MPI_Irecv(p->data, (int)p->bytes, MPI_BYTE, k, TAG_DATA, m->comm, r);
}

/* Waits awake for what is there within a moment, then lets others run between the looks. */
static void run_exchange(struct mpi *m)
{
    const double began = ft_now();
    const int n = m->base.size;
    int all = 0, rc = MPI_SUCCESS;
    for (int k = 0; k < n; k++) {
        post(m, &m->from[k], k, false, &m->requests[k]);
        post(m, &m->to[k], k, true, &m->requests[n + k]);
    }
    for (int64_t i = 0; !all && rc == MPI_SUCCESS; i++) {
        rc = MPI_Testall(2 * n, m->requests, &all, MPI_STATUSES_IGNORE);
        if (all || i % 64)
            continue;
        look_around(m);
        if (ft_now() - began > 0.01)
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    m->failed = rc != MPI_SUCCESS;
    if (m->failed)
        snprintf(m->base.error, sizeof m->base.error, "MPI could not carry data between the ranks");
}

/* --- the thread --- */

static bool meet(struct mpi *m)
{
    int n;
    MPI_Comm here;
    struct ft_transport *t = &m->base;
    if (MPI_Comm_dup(MPI_COMM_WORLD, &m->comm) != MPI_SUCCESS)
        return false;
    MPI_Comm_set_errhandler(m->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(m->comm, &t->rank);
    MPI_Comm_size(m->comm, &t->size);
    if (t->size > FT_MOST_RANKS)
        return false;
    MPI_Comm_split_type(m->comm, MPI_COMM_TYPE_SHARED, t->rank, MPI_INFO_NULL, &here);
    MPI_Comm_rank(here, &t->place);
    MPI_Comm_size(here, &t->here);
    MPI_Comm_free(&here);
    const size_t ranks = (size_t)t->size;
    t->hosts = calloc(ranks, sizeof *t->hosts);
    m->requests = calloc(2 * ranks, sizeof *m->requests);
    m->sign = calloc(ranks, sizeof *m->sign);
    m->signing = calloc(ranks, sizeof *m->signing);
    m->heard = calloc(ranks, sizeof *m->heard);
    if (!t->hosts || !m->requests || !m->sign || !m->signing || !m->heard)
        return false;
    char name[MPI_MAX_PROCESSOR_NAME + FT_HOST_NAME] = "";
    MPI_Get_processor_name(name, &n);
    name[FT_HOST_NAME - 1] = 0;
    MPI_Allgather(name, FT_HOST_NAME, MPI_BYTE, t->hosts, FT_HOST_NAME, MPI_BYTE, m->comm);
    m->looked_at = m->signed_at = ft_now();
    for (int k = 0; k < t->size; k++) {
        m->signing[k] = m->requests[k] = m->requests[t->size + k] = MPI_REQUEST_NULL;
        m->heard[k] = m->looked_at;
    }
    return true;
}

/* Until there is work, or it is time to look around. */
static void wait_for_work(struct mpi *m)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 100000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&m->lock);
    if (!m->busy && !m->ending)
        pthread_cond_timedwait(&m->turn, &m->lock, &until);
    pthread_mutex_unlock(&m->lock);
}

static void finish_work(struct mpi *m)
{
    pthread_mutex_lock(&m->lock);
    m->busy = false;
    pthread_cond_broadcast(&m->turn);
    pthread_mutex_unlock(&m->lock);
}

static void *talk(void *arg)
{
    struct mpi *m = arg;
    int provided;
    m->failed =
        MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || !meet(m);
    bool opened = !m->failed;
    finish_work(m);
    while (opened && !m->ending) {
        wait_for_work(m);
        look_around(m);
        if (!m->busy)
            continue;
        run_exchange(m);
        finish_work(m);
    }
    if (opened && m->code)
        bid_farewell(m, m->code);
    if (opened)
        finalize(m);
    return NULL;
}

/* --- by the run --- */

/* Hands work to the thread and waits for it. */
static int wait_for_thread(struct mpi *m)
{
    pthread_mutex_lock(&m->lock);
    pthread_cond_broadcast(&m->turn);
    while (m->busy)
        pthread_cond_wait(&m->turn, &m->lock);
    pthread_mutex_unlock(&m->lock);
    return m->failed;
}

static int exchange(struct ft_transport *t, const struct ft_parcel *to,
                    const struct ft_parcel *from)
{
    struct mpi *m = of(t);
    pthread_mutex_lock(&m->lock);
    m->to = to;
    m->from = from;
    m->busy = true;
    pthread_mutex_unlock(&m->lock);
    return wait_for_thread(m);
}

static void begin_lock(struct mpi *m)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->turn, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static void give_back(struct mpi *m)
{
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->turn);
    free(m->base.hosts);
    free(m->requests);
    free(m->sign);
    free(m->signing);
    free(m->heard);
    free(m);
}

static void close_transport(struct ft_transport *t, int code)
{
    struct mpi *m = of(t);
    pthread_mutex_lock(&m->lock);
    m->code = code;
    m->ending = true;
    pthread_cond_broadcast(&m->turn);
    pthread_mutex_unlock(&m->lock);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    if (!code)
        pthread_join(m->thread, NULL);
    else if (pthread_timedjoin_np(m->thread, NULL, &until))
        return; /* it waits for a rank that does not come: the process ends without it */
    give_back(m);
}

ft_transport_open_fn ft_transport_open;
__attribute__((visibility("default"))) struct ft_transport *
ft_transport_open(const char *version, const struct ft_world_watch *watch, char *why, size_t room)
{
    sigset_t all, was;
    if (strcmp(version, FT_VERSION) != 0) {
        snprintf(why, room, "it is of ft " FT_VERSION);
        return NULL;
    }
    struct mpi *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(why, room, "out of memory");
        return NULL;
    }
    m->watch = *watch;
    m->busy = true;
    m->base.exchange = exchange;
    m->base.close = close_transport;
    begin_lock(m);
    sigfillset(&all); /* signals are for the run */
    pthread_sigmask(SIG_SETMASK, &all, &was);
    const int error = pthread_create(&m->thread, NULL, talk, m);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    if (!error && !wait_for_thread(m))
        return &m->base;
    snprintf(why, room, "%s", error ? strerror(error) : "MPI could not begin");
    if (!error)
        pthread_join(m->thread, NULL);
    give_back(m);
    return NULL;
}
