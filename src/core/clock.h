/* The monotonic clock, in seconds. */
#ifndef FT_CORE_CLOCK_H
#define FT_CORE_CLOCK_H

#include <time.h>

static inline double ft_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
