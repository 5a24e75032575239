/* OpenBLAS, or another library with BLAS and LAPACK in Fortran's names. */
#ifndef FT_CORE_BLAS_H
#define FT_CORE_BLAS_H

/* Opens it, for calls by one thread or by several at once, each of which it serves alone. NULL:
 * there is none. Give it back to dlclose. */
void *ft_blas_open(void);

#endif
