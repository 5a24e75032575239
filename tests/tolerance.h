/* Where every tolerance of an op test comes from.
 *
 * A sum of n f32 products is off by at most about n ulps of the sum of magnitudes, and by about
 * sqrt(n) for random data; 4 sqrt(n) + 8 leaves room for the tail and for the few roundings around
 * the sum. */
#ifndef FT_TESTS_TOLERANCE_H
#define FT_TESTS_TOLERANCE_H

#include <math.h>

static inline double tol_f32(double magnitude, double n)
{
    return magnitude * 0x1p-24 * (8 + 4 * sqrt(n)) + 1e-30;
}

/* A result that is rounded to bf16 (8 bits) once or twice, or a sum of factors that were. */
static inline double tol_bf16(double magnitude)
{
    return magnitude * 0x1p-7;
}

#endif
