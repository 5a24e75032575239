/* What the op tests share: backends, random tensors with poisoned rows, comparison. */
#ifndef FT_TESTS_KERNELS_OPS_H
#define FT_TESTS_KERNELS_OPS_H

#include "core/rng.h"
#include "kernels/backend.h"
#include "tests/check.h"
#include "tests/tolerance.h"

#include <math.h>
#include <stdlib.h>

/* A backend at work: `live` of the rows hold data, the rest are NaN and must stay so. */
struct bench {
    const struct ft_backend *backend;
    struct ft_pool *pool;
    int64_t live, docs;
};

/* Calls body once for every instruction set this machine has, with one and with three threads. */
void each_backend(void (*body)(struct bench *b));

/* A tensor of random values in [-1, 1), rounded to dtype; live ones have spare rows behind. */
struct ft_tensor *random_tensor(const struct bench *b, int64_t cols, uint32_t seed);
struct ft_tensor *random_weight(int64_t rows, int64_t cols, enum ft_dtype dtype, uint32_t seed);
struct ft_tensor *empty_tensor(const struct bench *b, int64_t cols);
struct ft_tensor *copy_tensor(const struct ft_tensor *t);
struct ft_tensor *int_tensor(int64_t rows, int64_t cols, bool live);
void drop_tensors(void); /* all of the above */

double at(const struct ft_tensor *t, int64_t row, int64_t col);

/* Runs the op with the scratch its row asks for (filled with NaN). */
void run_op(const struct bench *b, enum ft_op op, const union ft_op_args *args);

/* Compares one element. */
void check_element(const char *what, const struct bench *b, int64_t row, int64_t col, double got,
                   double want, double allowed);
/* Rows behind the live ones are untouched. */
void check_poison(const struct bench *b, const struct ft_tensor *t);
bool same_bits(const struct bench *b, const struct ft_tensor *x, const struct ft_tensor *y);

#endif
