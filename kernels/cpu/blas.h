/* The tile of a BLAS library: a whole panel by its sgemm, for processors that ft has no kernels of
 * its own for. */
#ifndef FT_KERNELS_CPU_BLAS_H
#define FT_KERNELS_CPU_BLAS_H

#include "kernels/cpu/unit.h"

/* C (m,w) (+)= A * one packed panel of k words. In Fortran's order, of columns, each matrix is its
 * transpose: C' = B' A'. */
static void panel_mul(int64_t m, int64_t w, int64_t k, const float *a, int64_t rs, int64_t cs,
                      const float *b, float *c, int64_t ldc, bool accumulate, struct ahead *ahead)
{
    const int rows = (int)m, columns = (int)w, depth = (int)k, to = (int)ldc;
    const int from = (int)(cs == 1 ? rs : cs), width = (int)padded(w);
    const int lda = from > 0 ? from : 1; /* a single row's stride may be anything */
    const float one = 1, beta = accumulate;
    (void)ahead;
    ft_cpu_sgemm("N", cs == 1 ? "N" : "T", &columns, &rows, &depth, &one, b, &width, a, &lda, &beta,
                 c, &to, 1, 1);
}

#endif
