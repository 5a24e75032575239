/* Shared by the CPU kernels: names per instruction set, the serial and parallel products.
 *
 * Every file here but detect.c and scratch.c is compiled once per instruction set, with FT_ISA
 * naming it and the matching flags. */
#ifndef FT_KERNELS_CPU_H
#define FT_KERNELS_CPU_H

#include "core/quant.h"
#include "kernels/backend.h"
#include "kernels/cpu/vectors.h"

#include <stdint.h>
#include <string.h>

#define FT_CAT_(a, b, c, d) a##b##c##d
#define FT_CAT(a, b, c, d)  FT_CAT_(a, b, c, d)
/* The name of a kernel in this instruction set's object: ft_cpu_avx2_norm */
#define K(name)             FT_CAT(ft_cpu_, FT_ISA, _, name)

/* The same of the set whose kernels this one shares, all but its products: of a set of its own, K
 */
#ifdef FT_BASE
#define BASE(name) FT_CAT(ft_cpu_, FT_BASE, _, name)
#else
#define BASE(name) K(name)
#endif

/* A right operand, (k, n): B[i][j] = trans ? data[j*ld + i] : data[i*ld + j], times alpha; of a
 * quantised matrix, what it stands for in place of data, from row `first`. */
struct ft_operand {
    const void *data;
    enum ft_dtype dtype;
    int64_t ld;
    bool trans;
    float alpha;
    const struct ft_tensor *quant; /* NULL: it is not quantised */
    int64_t first;
};

FT_INLINE struct ft_operand ft_operand_of(const struct ft_tensor *w, bool trans, float alpha)
{
    return (struct ft_operand){.data = w->data,
                               .dtype = w->dtype,
                               .ld = ft_tensor_ld(w),
                               .trans = trans,
                               .alpha = alpha,
                               .quant = ft_is_quant(w->dtype) ? w : NULL};
}

/* Rows first.. of it. */
FT_INLINE struct ft_operand ft_operand_below(struct ft_operand w, int64_t first)
{
    if (!w.quant)
        w.data = (const char *)w.data + (size_t)(first * w.ld) * ft_dtype_size(w.dtype);
    w.first += first;
    return w;
}

/* C (m,n) = [C or add] + bias + A1 B1 + A2 B2.  A[i][l] = a[i*rs + l*cs], with rs or cs 1. Each
 * element sums 384 words of products at a time (unit.h), first those of A1 B1, then those of A2 B2,
 * in order. */
struct ft_gemm {
    int64_t m, n, k[2]; /* k[1] = 0: no second product */
    const float *a[2];
    int64_t a_rs[2], a_cs[2];
    struct ft_operand b[2];
    const float *add; /* (m,n); NULL: zero; may be c itself, with its leading dimension */
    int64_t ldadd;
    const float *bias; /* (n); NULL: zero */
    float *c;
    int64_t ldc;
    /* bits, mask_ld bytes a row, or NULL: where a bit is 0, a[0] counts as 0 (the rows of the mask
     * are those of the activation: of A, or of its transpose where rs is 1), or what A2 B2 adds is
     * not added */
    const uint8_t *a_mask, *c_mask;
    int64_t mask_ld;
    bool again; /* the product before has left the words of a[0] in scratch */
};

/* Bytes of shared scratch that a product needs for the words of its left side. */
#define FT_GEMM_SCRATCH ((size_t)8 << 20)

/* In parallel; scratch is FT_GEMM_SCRATCH bytes. */
void K(gemm)(struct ft_pool *pool, void *scratch, const struct ft_gemm *g);
/* Whether a product of the same a[0] as g's with `right`, of k terms in its two parts, leaves there
 * the words that g begins with. Neither has a mask. */
bool K(gemm_leaves)(const struct ft_gemm *g, const int64_t k[2], const struct ft_operand *right);

/* few.c: the same for few rows of A, read by rows, without masks: each element sums by 32 lanes. */
enum { FT_FEW = 4 };
void BASE(few)(struct ft_pool *pool, const struct ft_gemm *g);

/* The serial pieces, for kernels that keep their operands in cache (attention).
 * pack: B into panels of at most k (n + 16) floats, k up to the next 32. */
/* Products k0..k1-1 (k0 at a word's start) of columns j..end-1. */
void K(gemm_pack_part)(float *out, const struct ft_operand *b, int64_t k0, int64_t k1, int64_t j,
                       int64_t end);
void K(gemm_pack)(float *packed, const struct ft_operand *b, int64_t k, int64_t n);
/* A left side as words; rs or cs is 1. */
struct ft_side {
    const float *words;
    int64_t rs, cs;
};
/* A (m,k) as one: itself where a word is an f32, else in room of m (k/2 + 16) floats, m up to the
 * next 32. */
struct ft_side K(gemm_side)(float *room, int64_t m, int64_t k, const float *a, int64_t rs,
                            int64_t cs);
/* C (m,n) (+)= k terms of A times those from `first` on, where a word begins, of what was packed,
 * `depth` terms in all. */
void K(gemm_mul_side)(int64_t m, int64_t n, int64_t k, struct ft_side a, const float *packed,
                      int64_t first, int64_t depth, float *c, int64_t ldc, bool accumulate);

/* Row i of a stored matrix (ld elements a row), widened. */
void BASE(widen_row)(float *out, const struct ft_tensor *w, int64_t row);
/* Columns col to col+n-1 of a row of a quantised matrix. */
void BASE(widen)(float *out, const struct ft_planes *q, int64_t row, int64_t col, int64_t n);

/* attention.c: where keys of single queries are shared out, the most parts of all queries together.
 */
enum { FT_CPU_ATTENTION_PARTS = 64 };

/* detect.c: of the BLAS library, once the set that needs it has been asked for; Fortran's
 * interface, the lengths of the texts behind */
typedef void ft_sgemm_fn(const char *trans_a, const char *trans_b, const int *m, const int *n,
                         const int *k, const float *alpha, const float *a, const int *lda,
                         const float *b, const int *ldb, const float *beta, float *c,
                         const int *ldc, size_t, size_t);
extern ft_sgemm_fn *ft_cpu_sgemm;

/* scratch.c: compiled once */
size_t ft_cpu_scratch_product(const union ft_op_args *a);
size_t ft_cpu_scratch_linear(const union ft_op_args *a);
size_t ft_cpu_scratch_linear_dw(const union ft_op_args *a);
size_t ft_cpu_scratch_attention(const union ft_op_args *a);
size_t ft_cpu_scratch_attention_dx(const union ft_op_args *a);
size_t ft_cpu_scratch_head_loss(const union ft_op_args *a);
size_t ft_cpu_scratch_compose(const union ft_op_args *a);
size_t ft_cpu_scratch_compose_dx(const union ft_op_args *a);
size_t ft_cpu_scratch_muon(const union ft_op_args *a);
size_t ft_cpu_scratch_adafactor(const union ft_op_args *a);
size_t ft_cpu_scratch_grad_norm(const union ft_op_args *a);
int64_t ft_cpu_head_rows(const struct ft_head_loss_args *h);

#define X(name, ins, outs) ft_op_fn BASE(name);
FT_OPS(X)
#undef X
/* The ops that are products, which each set has of its own. */
#define FT_PRODUCTS(X) X(linear) X(linear_dx) X(linear_dw) X(attention) X(attention_dx) X(head_loss)
#ifdef FT_BASE
#define X(name) ft_op_fn K(name);
FT_PRODUCTS(X)
#undef X
#endif

/* Rows that an elementwise piece handles: by shape, about 16 thousand elements. */
FT_INLINE int64_t ft_piece_rows(int64_t cols)
{
    int64_t r = 16384 / (cols > 0 ? cols : 1);
    return r > 0 ? r : 1;
}

FT_INLINE float *row_of(const struct ft_tensor *t, int64_t row)
{
    return (float *)t->data + row * ft_tensor_ld(t);
}

/* Rows t0 to t1-1 of an op that looks at one at a time. */
typedef void rows_fn(const union ft_op_args *args, int64_t t0, int64_t t1);

struct rows_job {
    const union ft_op_args *args;
    rows_fn *fn;
    int64_t n, step;
};

static inline void rows_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct rows_job *j = arg;
    const int64_t t0 = piece * j->step, t1 = t0 + j->step < j->n ? t0 + j->step : j->n;
    j->fn(j->args, t0, t1);
}

/* All live rows of `shape`, in pieces; a row takes as long as one of `cols` numbers. */
static inline void by_rows(const struct ft_kernel_ctx *ctx, const struct ft_tensor *shape,
                           int64_t cols, const union ft_op_args *args, rows_fn *fn)
{
    struct rows_job j = {args, fn, ft_live_rows(ctx, shape), ft_piece_rows(cols)};
    ft_pool_run(ctx->pool, (j.n + j.step - 1) / j.step, rows_piece, &j);
}

#endif
