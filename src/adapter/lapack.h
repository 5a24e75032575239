/* The largest singular values of a matrix, by LAPACK, which is opened when it is needed. */
#ifndef FT_ADAPTER_LAPACK_H
#define FT_ADAPTER_LAPACK_H

#include "core/status.h"

#include <stdint.h>

struct ft_lapack;
/* FT_ERESOURCE, with the package to install. */
int ft_lapack_open(struct ft_lapack **out);
void ft_lapack_close(struct ft_lapack *l);

/* The r largest singular values of w (rows, cols), s[0] the largest; left (r, rows) and right (r,
 * cols) are their vectors, each a row of length 1, or of zeros where the value is 0. In double,
 * from the smaller of w w^T and w^T w. r <= min(rows, cols). */
int ft_lapack_top(const struct ft_lapack *l, const float *w, int64_t rows, int64_t cols, int64_t r,
                  double *s, double *left, double *right);
/* Bytes that this takes. */
size_t ft_lapack_bytes(int64_t rows, int64_t cols, int64_t r);

#endif
