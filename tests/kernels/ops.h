/* What the op tests share: backends, random tensors with poisoned rows, comparison. */
#ifndef FT_TESTS_KERNELS_OPS_H
#define FT_TESTS_KERNELS_OPS_H

#include "core/rng.h"
#include "kernels/backend.h"
#include "tests/check.h"
#include "tests/tolerance.h"

#include <math.h>
#include <stdlib.h>

/* A backend at work: `live` of the rows hold data, the rest are NaN and must stay so. A device is
 * told a few rows more, its bucket; between the two inputs hold zeros and outputs anything finite.
 */
struct bench {
    const struct ft_backend *backend;
    struct ft_pool *pool;
    int64_t live, docs, trained, keys;
    int64_t each; /* routed rows of a row */
};

/* Calls body once for every instruction set this machine has, with one and with three threads, and
 * once for the CUDA device or its emulation, if there is one. With FT_TEST_DEVICE=cuda for the
 * latter alone. */
void each_backend(void (*body)(struct bench *b));
void each_host_backend(void (*body)(struct bench *b));

/* Tensors lie in the host's memory; run_op copies them to a device and back. Activations and
 * weights have gaps between their rows; on a device they are bf16. */

/* Random values in [-1, 1), rounded to the dtype; activations have spare rows behind. */
struct ft_tensor *random_tensor(const struct bench *b, int64_t cols, uint32_t seed);
struct ft_tensor *random_weight(int64_t rows, int64_t cols, enum ft_dtype dtype, uint32_t seed);
/* Random planes; and what they stand for. */
struct ft_tensor *random_quant(int64_t rows, int64_t cols, enum ft_dtype dtype, int block,
                               uint32_t seed);
struct ft_tensor *widened(const struct ft_tensor *w);
struct ft_tensor *random_master(int64_t rows, int64_t cols, uint32_t seed); /* f32 everywhere */
struct ft_tensor *empty_tensor(const struct bench *b, int64_t cols);
struct ft_tensor *empty_sums(const struct bench *b, int64_t cols); /* f32 everywhere */
struct ft_tensor *copy_tensor(const struct ft_tensor *t);
struct ft_tensor *int_tensor(int64_t rows, int64_t cols, enum ft_extent extent);
/* int_tensor with a row for each row of an activation */
struct ft_tensor *int_rows(const struct bench *b, int64_t cols);
/* Those that the op covers: the live ones, or a device's bucket. */
int64_t covered_rows(const struct bench *b);
/* `each` rows for each row of an activation, of all that the op covers; empty: NaN. */
struct ft_tensor *routed_tensor(const struct bench *b, int64_t cols, uint32_t seed);
struct ft_tensor *empty_routed(const struct bench *b, int64_t cols);
struct ft_tensor *byte_rows(const struct bench *b, int64_t cols); /* U8 */
struct ft_tensor *scalars_tensor(double *values);
void drop_tensors(void); /* all of the above */

double at(const struct ft_tensor *t, int64_t row, int64_t col);
void put(struct ft_tensor *t, int64_t row, int64_t col, double v);

/* Runs the op with the scratch its backend asks for (filled with NaN). */
void run_op(const struct bench *b, enum ft_op op, const union ft_op_args *args);
/* n of them, one after the other in the same scratch, as a program's. */
void run_ops(const struct bench *b, enum ft_op op, const union ft_op_args *args, int n);

/* What an element may be off by: f32 sums of n products whose magnitudes add up to `magnitude`, and
 * the backend's rounding of activations. */
double tol(const struct bench *b, double magnitude, double n);

/* The same op with other numbers of threads writes the same bits: `out` of it, and its poison. */
void check_threads(const struct bench *b, enum ft_op op, const union ft_op_args *args,
                   struct ft_tensor *const *out, int n);

/* Compares one element. */
void check_element(const char *what, const struct bench *b, int64_t row, int64_t col, double got,
                   double want, double allowed);
/* Rows behind the live ones are untouched. */
void check_poison(const struct bench *b, const struct ft_tensor *t);
bool same_bits(const struct bench *b, const struct ft_tensor *x, const struct ft_tensor *y);

#endif
