/* Counter-based random numbers: Philox 4x32, ten rounds (Salmon et al., "Parallel random numbers:
 * as easy as 1, 2, 3", SC 2011). The same key and counter always give the same numbers, on every
 * device and in any order. */
#ifndef FT_CORE_RNG_H
#define FT_CORE_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define FT_ANYWHERE static __host__ __device__ inline
#else
#define FT_ANYWHERE static inline
#endif

FT_ANYWHERE void ft_philox(const uint32_t counter[4], uint64_t key, uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* What a stream of numbers is for: part of the counter, so that streams never meet. */
enum ft_rng_use {
    FT_RNG_INIT = 1,
    FT_RNG_SHUFFLE,
    FT_RNG_DROPOUT,
    FT_RNG_BINS,
    FT_RNG_TEST,
    FT_RNG_NOISE,
    FT_RNG_SAMPLE
};

/* A sequential stream over one key and counter prefix. */
struct ft_rng {
    uint64_t key;
    uint32_t counter[4], buf[4];
    int have;
};

static inline struct ft_rng ft_rng_init(uint64_t seed, enum ft_rng_use use, uint32_t a, uint32_t b)
{
    return (struct ft_rng){.key = seed, .counter = {0, (uint32_t)use, a, b}};
}

static inline uint32_t ft_rng_u32(struct ft_rng *r)
{
    if (r->have == 0) {
        ft_philox(r->counter, r->key, r->buf);
        r->counter[0]++;
        r->have = 4;
    }
    return r->buf[--r->have];
}

/* Uniform in [0, 1), 24 bits. */
static inline float ft_rng_f32(struct ft_rng *r)
{
    return (float)(ft_rng_u32(r) >> 8) * 0x1p-24f;
}

/* Uniform in [0, n), n > 0, without bias (Lemire, "Fast random integer generation", 2019). */
static inline uint32_t ft_rng_below(struct ft_rng *r, uint32_t n)
{
    uint64_t m = (uint64_t)ft_rng_u32(r) * n;
    if ((uint32_t)m < n) {
        uint32_t least = -n % n;
        while ((uint32_t)m < least)
            m = (uint64_t)ft_rng_u32(r) * n;
    }
    return (uint32_t)(m >> 32);
}

#endif
