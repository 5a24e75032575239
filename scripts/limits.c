/* What this machine can do at most, as JSON: multiply-adds and memory reads of so many threads, and
 * how long a line of cache takes from a core to another. For scripts/bench-cpu and
 * scripts/bench-decode, which build it.
 * usage: limits [THREADS]                              (default 2) */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stay_on(int number)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    const int wanted = number % CPU_COUNT(&allowed);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && seen++ == wanted) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
        }
}

/* --- each returns what it did, in 1e9 FLOPs or bytes --- */

enum { LOOPS = 4000000 };

#if defined(__x86_64__)
#define TWELVE(X) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)
#define CLOBBERED                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13"
#define RATE(name, set, per, zero, X)                                                              \
    __attribute__((target(set))) static double name(void)                                          \
    {                                                                                              \
        long n = LOOPS;                                                                            \
        __asm__ volatile(zero TWELVE(X) "1:\n" TWELVE(X) "dec %0\njnz 1b\n" : "+r"(n)::CLOBBERED); \
        return 12. * LOOPS * per * 1e-9;                                                           \
    }
#define ZERO      "vpxor %%xmm0,%%xmm0,%%xmm0\nvpxor %%xmm1,%%xmm1,%%xmm1\n"
#define FMA256(i) "vfmadd231ps %%ymm0,%%ymm1,%%ymm" #i "\n"
#define FMA512(i) "vfmadd231ps %%zmm0,%%zmm1,%%zmm" #i "\n"
#define DOT512(i) "vdpbf16ps %%zmm0,%%zmm1,%%zmm" #i "\n"
RATE(fma256, "avx2,fma", 16, ZERO, FMA256)
RATE(fma512, "avx512f", 32, ZERO, FMA512)
RATE(dot512, "avx512f,avx512bf16", 64, ZERO, DOT512)

static double fp32(void)
{
    return __builtin_cpu_supports("avx512f") ? fma512()
           : __builtin_cpu_supports("fma")   ? fma256()
                                             : 0;
}

static double bf16(void)
{
    return __builtin_cpu_supports("avx512bf16") ? dot512() : 0;
}
#else
static double fp32(void)
{
    return 0; /* not known */
}

static double bf16(void)
{
    return 0;
}
#endif

static double memory(void)
{
    enum { BYTES = 256 << 20 };
    static _Thread_local uint64_t *p;
    uint64_t sum = 0;
    if (!p) {
        p = aligned_alloc(2 << 20, BYTES);
        madvise(p, BYTES, MADV_HUGEPAGE);
        memset(p, 1, BYTES);
    }
    for (size_t i = 0; i < BYTES / sizeof *p; i += 8)
        sum += p[i] + p[i + 1] + p[i + 2] + p[i + 3] + p[i + 4] + p[i + 5] + p[i + 6] + p[i + 7];
    return sum ? BYTES * 1e-9 : 0;
}

/* --- of all threads together: the best of ROUNDS, each from the moment when all begin until the
 * last is done. What each does best by itself would be more than memory gives to all. --- */

enum { ROUNDS = 8 };

struct part {
    double (*fn)(void);
    double work, best; /* best: the first part has it, of all threads together */
    int number, threads;
    pthread_barrier_t *all;
};

static void *one(void *arg)
{
    struct part *p = arg;
    stay_on(p->number);
    p->fn();
    for (int i = 0; i < ROUNDS; i++) {
        pthread_barrier_wait(p->all);
        const double begin = now();
        p->work = p->fn();
        pthread_barrier_wait(p->all);
        double work = 0;
        for (int k = 0; p->number == 0 && k < p->threads; k++)
            work += p[k].work;
        const double rate = work / (now() - begin);
        p->best = rate > p->best ? rate : p->best;
    }
    return NULL;
}

static double together(double (*fn)(void), int threads)
{
    pthread_t t[256];
    struct part parts[256];
    pthread_barrier_t all;
    pthread_barrier_init(&all, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++)
        parts[i] = (struct part){.fn = fn, .number = i, .threads = threads, .all = &all};
    for (int i = 0; i < threads; i++)
        pthread_create(&t[i], NULL, one, &parts[i]);
    for (int i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    return parts[0].best;
}

/* --- a line from core to core --- */

enum { TURNS = 100000 };
static _Atomic int line;

static void *answer(void *arg)
{
    (void)arg;
    stay_on(1);
    for (int i = 0; i < TURNS; i++) {
        while (atomic_load_explicit(&line, memory_order_acquire) != 2 * i + 1)
            ;
        atomic_store_explicit(&line, 2 * i + 2, memory_order_release);
    }
    return NULL;
}

static double nanoseconds(void)
{
    pthread_t t;
    pthread_create(&t, NULL, answer, NULL);
    stay_on(0);
    const double begin = now();
    for (int i = 0; i < TURNS; i++) {
        atomic_store_explicit(&line, 2 * i + 1, memory_order_release);
        while (atomic_load_explicit(&line, memory_order_acquire) != 2 * i + 2)
            ;
    }
    const double spent = now() - begin;
    pthread_join(t, NULL);
    return spent / TURNS * 1e9 / 2;
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : 2;
    if (threads < 1 || threads > 256)
        return 2;
    const double products = together(fp32, threads), pairs = together(bf16, threads);
    const double reads = together(memory, threads); /* before this thread stays on one core */
    printf("{\"fp32\": %.1f, \"bf16\": %.1f, \"memory\": %.1f, \"line_ns\": %.0f}\n", products,
           pairs, reads, threads > 1 ? nanoseconds() : 0);
    return 0;
}
