/* Owns the worker threads and how many there may be. */
#define _GNU_SOURCE
#include "core/threads.h"

#include "core/mem.h"
#include "core/status.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#define cpu_relax() __builtin_ia32_pause()
#else
#define cpu_relax() ((void)0)
#endif

/* Workers look for new work this often before they sleep: a training step hands out work every few
 * tens of microseconds, and waking a sleeping thread costs more than that. */
enum { SPINS = 4000 };

struct ft_pool {
    int n_threads, started;
    pthread_t *threads;
    char *scratch; /* n_threads x FT_THREAD_SCRATCH */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic uint64_t generation; /* of the job below */
    _Atomic int sleepers, active;
    _Atomic int64_t next;
    _Atomic bool stop;
    int64_t n_pieces;
    ft_piece_fn *fn;
    void *arg;
    _Atomic int ids;
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

static void work(struct ft_pool *p, void *scratch)
{
    for (;;) {
        int64_t i = atomic_fetch_add(&p->next, 1);
        if (i >= p->n_pieces)
            return;
        p->fn(p->arg, i, scratch);
    }
}

static void wait_for_job(struct ft_pool *p, uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->generation) != seen || atomic_load(&p->stop))
            return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->generation) == seen && !atomic_load(&p->stop))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker(void *arg)
{
    struct ft_pool *p = arg;
    void *scratch = p->scratch + (size_t)(1 + atomic_fetch_add(&p->ids, 1)) * FT_THREAD_SCRATCH;
    uint64_t seen = 0;
    for (;;) {
        wait_for_job(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        seen = atomic_load(&p->generation);
        work(p, scratch);
        atomic_fetch_sub(&p->active, 1);
    }
}

int ft_pool_new(struct ft_pool **out, int n)
{
    struct ft_pool *p;
    FT_ASSERT(n >= 1);
    *out = NULL;
    FT_TRY(ft_alloc(&p, 1, sizeof *p));
    p->n_threads = n;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    void *scratch = NULL;
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

void ft_pool_free(struct ft_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    ft_pages_free(p->scratch, (size_t)p->n_threads * FT_THREAD_SCRATCH);
    ft_free(p->threads);
    ft_free(p);
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
    p->fn = fn;
    p->arg = arg;
    p->n_pieces = n;
    atomic_store(&p->next, 0);
    atomic_store(&p->active, p->n_threads - 1);
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->sleepers)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    work(p, p->scratch);
    for (int spins = 0; atomic_load(&p->active) > 0; spins++) {
        cpu_relax();
        if (spins > SPINS)
            sched_yield();
    }
}
