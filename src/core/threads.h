/* The one thread pool. */
#ifndef FT_CORE_THREADS_H
#define FT_CORE_THREADS_H

#include <stddef.h>
#include <stdint.h>

struct ft_pool;

/* Bytes of private scratch each thread of a pool has (see ft_pool_run). */
#define FT_THREAD_SCRATCH ((size_t)1 << 20)

/* How many threads this process may use: the affinity mask, its share of the cgroup's CPU quota
 * (rounded up) among `sharers` processes, and SLURM_CPUS_PER_TASK, whichever is least. At least 1.
 */
int ft_cpu_allowance(int sharers);

/* Memory nodes of which this process may use processors; 1 where that is not known. root: where the
 * kernel lists them, FT_NUMA_ROOT. */
#define FT_NUMA_ROOT "/sys/devices/system/node"
int ft_numa_nodes(const char *root);

/* A pool of n threads, the caller's included; FT_ERESOURCE if threads cannot be had. */
int ft_pool_new(struct ft_pool **out, int n);
void ft_pool_free(struct ft_pool *p);
int ft_pool_size(const struct ft_pool *p);
/* From now on each thread, the caller's too, stays on a processor of its own, where there are as
 * many as threads: beside a busy process the kernel would put two of them on one. Until
 * ft_pool_free(), by the same thread; other threads that it makes meanwhile stay where it is. */
void ft_pool_pin(struct ft_pool *p);

/* One piece of work. scratch is FT_THREAD_SCRATCH bytes, 64-byte aligned, private to the thread
 * while the piece runs; its content at entry is arbitrary. */
typedef void ft_piece_fn(void *arg, int64_t piece, void *scratch);

/* Runs fn for pieces 0..n-1, in any order, and returns when all are done. Pieces must not depend on
 * each other; results must not depend on which thread runs a piece. Not reentrant. */
void ft_pool_run(struct ft_pool *p, int64_t n, ft_piece_fn *fn, void *arg);

#endif
