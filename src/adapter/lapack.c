/* LAPACK's calls in C, of the library that core/blas.h opens. */
#include "adapter/lapack.h"

#include "core/blas.h"
#include "core/mem.h"

#include <dlfcn.h>
#include <math.h>
#include <string.h>

/* Fortran's interface: everything by address, the lengths of texts behind. */
typedef void syrk_fn(const char *uplo, const char *trans, const int *n, const int *k,
                     const double *alpha, const double *a, const int *lda, const double *beta,
                     double *c, const int *ldc, size_t, size_t);
typedef void syevr_fn(const char *jobz, const char *range, const char *uplo, const int *n,
                      double *a, const int *lda, const double *vl, const double *vu, const int *il,
                      const int *iu, const double *abstol, int *m, double *w, double *z,
                      const int *ldz, int *isuppz, double *work, const int *lwork, int *iwork,
                      const int *liwork, int *info, size_t, size_t, size_t);

struct ft_lapack {
    void *library;
    syrk_fn *dsyrk;
    syevr_fn *dsyevr;
};

enum { BLOCK = 256 }; /* rows or columns of w that are widened at a time */

int ft_lapack_open(struct ft_lapack **out)
{
    struct ft_lapack *l;
    *out = NULL;
    FT_TRY(ft_alloc(&l, 1, sizeof *l));
    l->library = ft_blas_open();
    if (l->library) {
        *(void **)&l->dsyrk = dlsym(l->library, "dsyrk_");
        *(void **)&l->dsyevr = dlsym(l->library, "dsyevr_");
    }
    if (!l->dsyrk || !l->dsyevr) {
        ft_lapack_close(l);
        ft_fail(FT_ERESOURCE, "'peft_init_lora_weights: pissa' needs LAPACK, which is not here");
        ft_hint("install OpenBLAS (on Debian: apt-get install libopenblas0)");
        return FT_ERESOURCE;
    }
    *out = l;
    return FT_OK;
}

void ft_lapack_close(struct ft_lapack *l)
{
    if (l && l->library)
        dlclose(l->library);
    ft_free(l);
}

/* w^T w (wide: w w^T), n x n, upper triangle in Fortran's order. */
static int gram(const struct ft_lapack *l, const float *w, int64_t rows, int64_t cols, bool wide,
                double *g)
{
    const int64_t most = wide ? cols : rows;
    const int n = (int)(wide ? rows : cols);
    const double one = 1;
    double *block;
    FT_TRY(ft_alloc(&block, (size_t)n * BLOCK, sizeof *block));
    for (int64_t at = 0; at < most; at += BLOCK) {
        const int k = (int)(most - at < BLOCK ? most - at : BLOCK);
        const double beta = at ? 1 : 0;
        for (int64_t i = 0; i < n; i++) /* as Fortran's (n, k) */
            for (int64_t c = 0; c < k; c++)
                block[c * n + i] = (double)(wide ? w[i * cols + at + c] : w[(at + c) * cols + i]);
        l->dsyrk("U", "N", &n, &k, &one, block, &n, &beta, g, &n, 1, 1);
    }
    ft_free(block);
    return FT_OK;
}

/* The eigenvectors of the r largest eigenvalues, a column each, in ascending order. g is lost. */
static int eigen(const struct ft_lapack *l, double *g, int n, int r, double *values,
                 double *vectors)
{
    const int first = n - r + 1;
    const double zero = 0;
    int found = 0, info = 0, isize = -1, size = -1, iasked, *iwork = NULL, *support;
    double asked, *work = NULL;
    FT_TRY(ft_alloc(&support, 2 * (size_t)n, sizeof *support));
    l->dsyevr("V", "I", "U", &n, g, &n, &zero, &zero, &first, &n, &zero, &found, values, vectors,
              &n, support, &asked, &size, &iasked, &isize, &info, 1, 1, 1);
    size = (int)asked;
    isize = iasked;
    int rc = ft_alloc(&work, (size_t)size, sizeof *work);
    if (!rc)
        rc = ft_alloc(&iwork, (size_t)isize, sizeof *iwork);
    if (!rc)
        l->dsyevr("V", "I", "U", &n, g, &n, &zero, &zero, &first, &n, &zero, &found, values,
                  vectors, &n, support, work, &size, iwork, &isize, &info, 1, 1, 1);
    ft_free(support);
    ft_free(work);
    ft_free(iwork);
    if (!rc && (info || found != r))
        rc = ft_fail(FT_EDATA, "LAPACK's dsyevr failed (%d) on a weight of the model", info);
    return rc;
}

/* other = w^T v / s (wide: v is the left one), or w v / s. */
static void other_side(const float *w, int64_t rows, int64_t cols, bool wide, const double *v,
                       double s, double *other)
{
    memset(other, 0, (size_t)(wide ? cols : rows) * sizeof *other);
    for (int64_t i = 0; i < rows; i++) {
        const float *row = w + i * cols;
        double sum = 0;
        for (int64_t c = 0; c < cols; c++) {
            if (wide)
                other[c] += (double)row[c] * v[i] / s;
            else
                sum += (double)row[c] * v[c];
        }
        if (!wide)
            other[i] = sum / s;
    }
}

int ft_lapack_top(const struct ft_lapack *l, const float *w, int64_t rows, int64_t cols, int64_t r,
                  double *s, double *left, double *right)
{
    const bool wide = rows < cols;
    const int64_t n = wide ? rows : cols;
    double *g, *values = NULL, *vectors = NULL;
    FT_TRY(ft_alloc(&g, (size_t)(n * n), sizeof *g));
    int rc = ft_alloc(&values, (size_t)n, sizeof *values);
    if (!rc)
        rc = ft_alloc(&vectors, (size_t)(n * r), sizeof *vectors);
    if (!rc)
        rc = gram(l, w, rows, cols, wide, g);
    if (!rc)
        rc = eigen(l, g, (int)n, (int)r, values, vectors);
    for (int64_t k = 0; k < r && !rc; k++) {
        const double *v = vectors + (r - 1 - k) * n, value = values[r - 1 - k];
        double *one = wide ? left + k * rows : right + k * cols;
        double *two = wide ? right + k * cols : left + k * rows;
        s[k] = value > 1e-24 * values[r - 1] ? sqrt(value) : 0;
        memcpy(one, v, (size_t)n * sizeof *one);
        if (s[k] > 0)
            other_side(w, rows, cols, wide, v, s[k], two);
        else
            memset(two, 0, (size_t)(wide ? cols : rows) * sizeof *two);
    }
    ft_free(g);
    ft_free(values);
    ft_free(vectors);
    return rc;
}

size_t ft_lapack_bytes(int64_t rows, int64_t cols, int64_t r)
{
    const int64_t n = rows < cols ? rows : cols;
    /* two copies of the triangle in LAPACK's hands, the block, its work, and the vectors */
    return (size_t)(2 * n * n + n * BLOCK + 64 * n + r * (n + rows + cols)) * sizeof(double) +
           ((size_t)32 << 20);
}
