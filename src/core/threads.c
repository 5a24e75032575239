/* Owns the worker threads and how many there may be. */
#define _GNU_SOURCE
#include "core/threads.h"

#include "core/mem.h"
#include "core/status.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#define cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("isb" ::: "memory") /* waits about as long as x86's pause */
#else
#define cpu_relax() ((void)0)
#endif

/* Workers look for new work this often before they sleep: a training step hands out work every few
 * tens of microseconds, and waking a sleeping thread costs more than that. */
enum { SPINS = 4000 };

/* Pieces of the job that nobody has taken, of those that are a thread's own: the first of them
 * below 32 bits, the one behind the last above. Its owner takes from the front, others from the
 * back once their own are done, so that a thread's pieces are the same from job to job and what it
 * has in its cache serves again. A state is taken by exchanging it: what a thread takes is of the
 * job of now, however late it comes. */
struct share {
    _Alignas(64) _Atomic uint64_t pieces;
};

struct ft_pool {
    int n_threads, started;
    bool pinned;
    cpu_set_t was; /* where the thread that pinned could run */
    pthread_t *threads;
    char *scratch; /* n_threads x FT_THREAD_SCRATCH */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    _Atomic int sleepers, ids;
    _Atomic bool stop, waits; /* waits: who hands out work, asleep */
    /* The job: written only while no piece of one is at work. */
    ft_piece_fn *fn;
    void *arg;
    _Alignas(64) _Atomic uint64_t jobs; /* handed out so far */
    _Alignas(64) _Atomic int64_t left;  /* pieces that are not done */
    struct share shares[];
};

static int read_quota(void)
{
    double quota = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (f) {
        if (fscanf(f, "%lf %lf", &quota, &period) != 2)
            quota = -1; /* "max" */
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re"))) {
        if (fscanf(f, "%lf", &quota) != 1)
            quota = -1;
        fclose(f);
        if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re"))) {
            if (fscanf(f, "%lf", &period) != 1)
                period = 0;
            fclose(f);
        }
    }
    if (quota <= 0 || period <= 0)
        return 1 << 20;
    int cpus = (int)((quota + period - 1) / period);
    return cpus > 0 ? cpus : 1;
}

int ft_cpu_allowance(int sharers)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                        : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = read_quota() / sharers;
    if (quota < n)
        n = quota;
    const char *slurm = getenv("SLURM_CPUS_PER_TASK");
    int asked = slurm ? atoi(slurm) : 0;
    if (asked > 0 && asked < n)
        n = asked;
    return n > 0 ? n : 1;
}

/* Whether a list as "0-3,8" has one of the set. */
static bool lists_one_of(const char *list, const cpu_set_t *set)
{
    char *end;
    for (long cpu = strtol(list, &end, 10), last; end != list; cpu = strtol(list, &end, 10)) {
        last = *end == '-' ? strtol(end + 1, &end, 10) : cpu;
        for (; cpu <= last && cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, set))
                return true;
        list = end + (*end == ',');
    }
    return false;
}

/* Without stdio, whose buffer could not be had. */
int ft_numa_nodes(const char *root)
{
    enum { MOST = 256 };
    cpu_set_t set;
    int nodes = 0;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    for (int i = 0; i < MOST; i++) {
        char path[4096], list[4096];
        snprintf(path, sizeof path, "%s/node%d/cpulist", root, i);
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue; /* their numbers have gaps */
        const ssize_t n = read(fd, list, sizeof list - 1);
        list[n > 0 ? n : 0] = 0;
        nodes += lists_one_of(list, &set);
        close(fd);
    }
    return nodes > 0 ? nodes : 1;
}

/* A piece of a thread's share; -1: there is none. Once it is taken the job stays as it is until it
 * is done. */
static int64_t take(struct share *s, bool own)
{
    uint64_t pieces = atomic_load(&s->pieces);
    while ((uint32_t)pieces < pieces >> 32) {
        const uint64_t less = own ? pieces + 1 : pieces - ((uint64_t)1 << 32);
        if (atomic_compare_exchange_weak(&s->pieces, &pieces, less))
            return own ? (int64_t)(uint32_t)pieces : (int64_t)(less >> 32);
    }
    return -1;
}

static void work(struct ft_pool *p, int thread)
{
    char *scratch = p->scratch + (size_t)thread * FT_THREAD_SCRATCH;
    int64_t done = 0;
    for (int i = 0; i < p->n_threads; i++)
        for (int64_t piece; (piece = take(&p->shares[(thread + i) % p->n_threads], i == 0)) >= 0;
             done++)
            p->fn(p->arg, piece, scratch);
    if (!done || atomic_fetch_sub(&p->left, done) != done || !atomic_load(&p->waits))
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->lock);
}

/* For pieces, not for threads. Asleep, it leaves its processor to a thread that has one and was
 * taken off its own. */
static void wait_for_pieces(struct ft_pool *p)
{
    for (int i = 0; i < SPINS; i++) {
        if (!atomic_load(&p->left))
            return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_exchange(&p->waits, true); /* a store could pass the load behind it in qemu's ARM */
    while (atomic_load(&p->left))
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->waits, false);
    pthread_mutex_unlock(&p->lock);
}

/* Until there is another job than the ones `seen`. */
static void wait_for_job(struct ft_pool *p, uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->jobs) != seen || atomic_load(&p->stop))
            return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->jobs) == seen && !atomic_load(&p->stop))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker(void *arg)
{
    struct ft_pool *p = arg;
    const int thread = 1 + atomic_fetch_add(&p->ids, 1);
    for (uint64_t seen = 0;;) {
        wait_for_job(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        seen = atomic_load(&p->jobs);
        work(p, thread);
    }
}

static size_t pool_bytes(int threads)
{
    return sizeof(struct ft_pool) + (size_t)threads * sizeof(struct share);
}

int ft_pool_new(struct ft_pool **out, int n)
{
    void *pages, *scratch = NULL;
    FT_ASSERT(n >= 1);
    *out = NULL;
    FT_TRY(ft_pages_alloc(&pages, pool_bytes(n)));
    struct ft_pool *p = pages;
    p->n_threads = n;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    int rc = ft_pages_alloc(&scratch, (size_t)n * FT_THREAD_SCRATCH);
    p->scratch = scratch;
    if (!rc)
        rc = ft_alloc(&p->threads, (size_t)n, sizeof *p->threads);
    for (; !rc && p->started < n - 1; p->started++)
        if (pthread_create(&p->threads[p->started], NULL, worker, p)) {
            rc = ft_fail(FT_ERESOURCE, "cannot start thread %d of %d", p->started + 2, n);
            ft_hint("set 'threads' lower, or raise the limit on processes (ulimit -u)");
            break;
        }
    if (rc) {
        ft_pool_free(p);
        return rc;
    }
    *out = p;
    return FT_OK;
}

void ft_pool_pin(struct ft_pool *p)
{
    if (p->pinned || p->n_threads == 1 || sched_getaffinity(0, sizeof p->was, &p->was) ||
        CPU_COUNT(&p->was) != p->n_threads)
        return;
    int cpu = -1;
    for (int i = 0; i < p->n_threads; i++) {
        cpu_set_t one;
        do
            cpu++;
        while (!CPU_ISSET(cpu, &p->was));
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(i ? p->threads[i - 1] : pthread_self(), sizeof one, &one);
    }
    p->pinned = true;
}

void ft_pool_free(struct ft_pool *p)
{
    if (!p)
        return;
    if (p->pinned)
        sched_setaffinity(0, sizeof p->was, &p->was);
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    ft_pages_free(p->scratch, (size_t)p->n_threads * FT_THREAD_SCRATCH);
    ft_free(p->threads);
    ft_pages_free(p, pool_bytes(p->n_threads));
}

int ft_pool_size(const struct ft_pool *p)
{
    return p->n_threads;
}

void ft_pool_run(struct ft_pool *p, int64_t n, ft_piece_fn *fn, void *arg)
{
    if (n <= 0)
        return;
    if (p->n_threads == 1 || n == 1) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i, p->scratch);
        return;
    }
    FT_ASSERT(n <= UINT32_MAX);
    p->fn = fn;
    p->arg = arg;
    atomic_store(&p->left, n);
    for (uint64_t t = 0, threads = (uint64_t)p->n_threads; t < threads; t++) {
        const uint64_t first = (uint64_t)n * t / threads, end = (uint64_t)n * (t + 1) / threads;
        atomic_store(&p->shares[t].pieces, end << 32 | first);
    }
    atomic_fetch_add(&p->jobs, 1);
    if (atomic_load(&p->sleepers)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    work(p, 0);
    wait_for_pieces(p);
}
