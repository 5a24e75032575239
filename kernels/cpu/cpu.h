/* Shared by the CPU kernels: vectors, names per instruction set, the serial and parallel products.
 *
 * Every file here but detect.c and scratch.c is compiled once per instruction set, with FT_ISA
 * naming it and the matching flags. Vector code is written with GCC's vector extension, and sums
 * keep 16 lanes whatever the machine's width, so that AVX2, AVX-512 and NEON give the same bits. */
#ifndef FT_KERNELS_CPU_H
#define FT_KERNELS_CPU_H

#include "core/quant.h"
#include "kernels/backend.h"

#if defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(FT_NEON) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif
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

#define FT_INLINE static inline __attribute__((always_inline))

/* 16 lanes: the unit of elementwise work and of sums. */
typedef float v16 __attribute__((vector_size(64)));
typedef float v16u __attribute__((vector_size(64), aligned(4)));
typedef int32_t v16i __attribute__((vector_size(64)));

FT_INLINE v16 v16_load(const float *p)
{
    return (v16) * (const v16u *)p;
}

FT_INLINE void v16_store(float *p, v16 v)
{
    *(v16u *)p = (v16u)v;
}

FT_INLINE v16 v16_set(float f)
{
    return (v16){0} + f;
}

/* The first n < 16 floats of p, zeros behind. */
FT_INLINE v16 v16_load_part(const float *p, int64_t n)
{
    float t[16] = {0};
    memcpy(t, p, (size_t)n * sizeof *t);
    return v16_load(t);
}

FT_INLINE void v16_store_part(float *p, v16 v, int64_t n)
{
    float t[16];
    v16_store(t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}

/* The 16 lanes of columns c.. of p; zeros behind the last column. */
FT_INLINE v16 lanes(const float *p, int64_t c, int64_t cols)
{
    return c + 16 <= cols ? v16_load(p + c) : v16_load_part(p + c, cols - c);
}

FT_INLINE void put_lanes(float *p, v16 v, int64_t c, int64_t cols)
{
    if (c + 16 <= cols)
        v16_store(p + c, v);
    else
        v16_store_part(p + c, v, cols - c);
}

/* Halves and quarters of it. */
typedef float v16_half __attribute__((vector_size(32)));
typedef int32_t v16i_half __attribute__((vector_size(32)));
typedef float v16_quarter __attribute__((vector_size(16)));
#define V16_LOW(v)   __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7)
#define V16_HIGH(v)  __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)
#define HALF_LOW(v)  __builtin_shufflevector(v, v, 0, 1, 2, 3)
#define HALF_HIGH(v) __builtin_shufflevector(v, v, 4, 5, 6, 7)

/* The sum of the lanes, pairwise. */
FT_INLINE float v16_sum(v16 v)
{
    const v16_half eight = V16_LOW(v) + V16_HIGH(v);
    const v16_quarter four = HALF_LOW(eight) + HALF_HIGH(eight);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

FT_INLINE v16 v16_max(v16 a, v16 b)
{
    v16i less = a < b;
    return (v16)(((v16i)b & less) | ((v16i)a & ~less));
}

FT_INLINE float larger(float a, float b)
{
    return b > a ? b : a;
}

FT_INLINE float v16_max_lane(v16 v)
{
    const v16_half x = V16_LOW(v), y = V16_HIGH(v);
    const v16i_half less = x < y;
    const v16_half eight = (v16_half)(((v16i_half)y & less) | ((v16i_half)x & ~less));
    const v16_quarter a = HALF_LOW(eight), b = HALF_HIGH(eight);
    return larger(larger(larger(a[0], b[0]), larger(a[2], b[2])),
                  larger(larger(a[1], b[1]), larger(a[3], b[3])));
}

/* a b + c, rounded once where the set can: avx2, avx512 and neon alike. */
FT_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
#if defined(__AVX512F__)
    return (v16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    const union {
        v16 v;
        __m256 half[2];
    } x = {a}, y = {b}, z = {c};
    union {
        __m256 half[2];
        v16 v;
    } sum = {{_mm256_fmadd_ps(x.half[0], y.half[0], z.half[0]),
              _mm256_fmadd_ps(x.half[1], y.half[1], z.half[1])}};
    return sum.v;
#elif defined(FT_NEON) && defined(__ARM_NEON)
    union {
        v16 v;
        float32x4_t quarter[4];
    } x = {a}, y = {b}, sum = {c};
    for (int i = 0; i < 4; i++)
        sum.quarter[i] = vfmaq_f32(sum.quarter[i], x.quarter[i], y.quarter[i]);
    return sum.v;
#else
    return a * b + c;
#endif
}

/* exp(x) to about 1 ulp for -87 <= x <= 88; below, 2^-126 or so; above, 2^127 or so. NaN stays NaN.
 * x = n ln2 + r, |r| <= ln2/2, with Cephes' expf polynomial for exp(r). */
FT_INLINE v16 v16_exp(v16 x)
{
    const v16 hi = v16_set(88.3762626647949f), lo = v16_set(-87.3365478515625f);
    v16i above = x > hi, below = x < lo;
    x = (v16)(((v16i)hi & above) | ((v16i)x & ~above));
    x = (v16)(((v16i)lo & below) | ((v16i)x & ~below));
    const float magic = 12582912.f; /* 1.5 * 2^23: adding it rounds to an integer */
    v16 shifted = v16_fma(x, v16_set(1.44269504088896341f), v16_set(magic));
    v16 n = shifted - magic;
    v16 r = v16_fma(n, v16_set(-0.693359375f), x);
    r = v16_fma(n, v16_set(2.12194440e-4f), r);
    v16 p = v16_set(1.9875691500e-4f);
    p = v16_fma(p, r, v16_set(1.3981999507e-3f));
    p = v16_fma(p, r, v16_set(8.3334519073e-3f));
    p = v16_fma(p, r, v16_set(4.1665795894e-2f));
    p = v16_fma(p, r, v16_set(1.6666665459e-1f));
    p = v16_fma(p, r, v16_set(5.0000001201e-1f));
    p = v16_fma(p, r * r, r) + 1.0f;
    v16i scale = ((v16i)shifted - 0x4b400000 + 127) << 23;
    return p * (v16)scale;
}

/* All bits in the lanes from the n-th on. */
FT_INLINE v16i v16_behind(int64_t n)
{
    const v16i lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane >= (int32_t)n;
}

FT_INLINE v16 v16_select(v16i mask, v16 yes, v16 no)
{
    return (v16)(((v16i)yes & mask) | ((v16i)no & ~mask));
}

FT_INLINE v16 v16_sigmoid(v16 x)
{
    return 1.f / (1.f + v16_exp(-x));
}

/* To about 2 ulp: near 0 by Cephes' tanhf polynomial, else by exp. NaN stays NaN. */
FT_INLINE v16 v16_tanh(v16 x)
{
    const v16 z = x * x;
    v16 p = v16_set(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const v16 near = p * z * x + x, far = 1.f - 2.f / (v16_exp(2.f * x) + 1.f);
    return v16_select(z < 0.625f * 0.625f, near, far);
}

/* To about 3e-7: the rational approximation of Eigen and XLA, x P(x^2) / Q(x^2) up to |x| = 4. */
FT_INLINE v16 v16_erf(v16 x)
{
    const v16 four = v16_set(4.f);
    x = v16_select(x > four, four, v16_select(x < -four, -four, x));
    const v16 z = x * x;
    v16 p = v16_set(-2.72614225801306e-10f);
    p = p * z + 2.77068142495902e-08f;
    p = p * z - 2.10102402082508e-06f;
    p = p * z - 5.69250639462346e-05f;
    p = p * z - 7.34990630326855e-04f;
    p = p * z - 2.95459980854025e-03f;
    p = p * z - 1.60960333262415e-02f;
    v16 q = v16_set(-1.45660718464996e-05f);
    q = q * z - 2.13374055278905e-04f;
    q = q * z - 1.68282697438203e-03f;
    q = q * z - 7.37332916720468e-03f;
    q = q * z - 1.42647390514189e-02f;
    return x * p / q;
}

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
