#include "tests/kernels/ops.h"

#include "core/mem.h"
#include "core/status.h"

enum { SPARE = 3 };

static struct ft_tensor *all[512];
static int count;

static struct ft_tensor *make(int64_t rows, int64_t cols, enum ft_dtype dtype, bool live)
{
    struct ft_tensor *t;
    FT_ASSERT(count < 512 && ft_alloc(&t, 1, sizeof *t) == FT_OK);
    *t = (struct ft_tensor){
        .rows = rows, .cols = cols, .dtype = dtype, .live = live, .id = -1, .name = "test"};
    FT_ASSERT(ft_alloc(&t->data, ft_tensor_bytes(t) + 64, 1) == FT_OK);
    all[count++] = t;
    return t;
}

void drop_tensors(void)
{
    while (count > 0) {
        ft_free(all[--count]->data);
        ft_free(all[count]);
    }
}

static void store(struct ft_tensor *t, int64_t i, float v)
{
    if (t->dtype == FT_F32) {
        ((float *)t->data)[i] = v;
    } else if (t->dtype == FT_BF16) {
        ((uint16_t *)t->data)[i] = ft_f32_to_bf16(v);
    } else { /* the nearest f16 below, by its exponent and ten bits */
        int e;
        float m = frexpf(fabsf(v), &e); /* m in [0.5, 1) */
        uint16_t h =
            v == 0 || e < -12 ? 0 : (uint16_t)((e + 14) << 10 | ((uint32_t)(m * 2048) & 0x3ff));
        ((uint16_t *)t->data)[i] = (uint16_t)(h | (v < 0 ? 0x8000 : 0));
    }
}

struct ft_tensor *random_weight(int64_t rows, int64_t cols, enum ft_dtype dtype, uint32_t seed)
{
    struct ft_tensor *t = make(rows, cols, dtype, false);
    struct ft_rng rng = ft_rng_init(7, FT_RNG_TEST, seed, (uint32_t)rows);
    for (int64_t i = 0; i < rows * cols; i++)
        store(t, i, 2 * ft_rng_f32(&rng) - 1);
    return t;
}

static void poison(const struct bench *b, struct ft_tensor *t)
{
    for (int64_t i = b->live * t->cols; i < t->rows * t->cols; i++)
        ((float *)t->data)[i] = NAN;
}

struct ft_tensor *random_tensor(const struct bench *b, int64_t cols, uint32_t seed)
{
    struct ft_tensor *t = random_weight(b->live + SPARE, cols, FT_F32, seed);
    t->live = true;
    poison(b, t);
    return t;
}

struct ft_tensor *empty_tensor(const struct bench *b, int64_t cols)
{
    struct ft_tensor *t = make(b->live + SPARE, cols, FT_F32, true);
    for (int64_t i = 0; i < t->rows * t->cols; i++)
        ((float *)t->data)[i] = NAN;
    return t;
}

struct ft_tensor *copy_tensor(const struct ft_tensor *t)
{
    struct ft_tensor *c = make(t->rows, t->cols, t->dtype, t->live);
    memcpy(c->data, t->data, ft_tensor_bytes(t));
    return c;
}

struct ft_tensor *int_tensor(int64_t rows, int64_t cols, bool live)
{
    return make(rows, cols, FT_I32, live);
}

double at(const struct ft_tensor *t, int64_t row, int64_t col)
{
    int64_t i = row * t->cols + col;
    if (t->dtype == FT_F32)
        return (double)((const float *)t->data)[i];
    uint16_t h = ((const uint16_t *)t->data)[i];
    return (double)(t->dtype == FT_BF16 ? ft_bf16_to_f32(h) : ft_f16_to_f32(h));
}

void run_op(const struct bench *b, enum ft_op op, const union ft_op_args *args)
{
    const struct ft_op_row *row = &ft_op_rows[op];
    void *scratch = NULL;
    size_t bytes = row->scratch ? row->scratch(args) : 0;
    row->check(args);
    if (bytes) {
        FT_ASSERT(ft_pages_alloc(&scratch, bytes) == FT_OK);
        memset(scratch, 0xff, bytes);
    }
    const struct ft_kernel_ctx ctx = {b->pool, b->live, b->docs, scratch};
    b->backend->ops[op](&ctx, args);
    ft_pages_free(scratch, bytes);
}

void check_element(const char *what, const struct bench *b, int64_t row, int64_t col, double got,
                   double want, double allowed)
{
    if (!(fabs(got - want) <= allowed))
        check_fail(what, (int)b->live, "%s at (%lld,%lld): %.9g, expected %.9g +- %.2g",
                   b->backend->isa, (long long)row, (long long)col, got, want, allowed);
}

void check_poison(const struct bench *b, const struct ft_tensor *t)
{
    for (int64_t i = b->live * t->cols; i < t->rows * t->cols; i++)
        if (!isnan(((const float *)t->data)[i])) {
            check_fail(__FILE__, __LINE__, "a row behind the live ones was written");
            return;
        }
}

bool same_bits(const struct bench *b, const struct ft_tensor *x, const struct ft_tensor *y)
{
    int64_t rows = x->live ? b->live : x->rows;
    return memcmp(x->data, y->data, (size_t)(rows * x->cols) * 4) == 0;
}

void each_backend(void (*body)(struct bench *b))
{
    static const char *const isas[] = {"generic", "avx2", "avx512"};
    for (int i = 0; i < 3; i++)
        for (int threads = 1; threads <= 3; threads += 2) {
            struct bench b = {.docs = 1};
            if (ft_cpu_backend(&b.backend, isas[i])) {
                ft_status_clear();
                continue;
            }
            FT_ASSERT(ft_pool_new(&b.pool, threads) == FT_OK);
            body(&b);
            drop_tensors();
            ft_pool_free(b.pool);
        }
}
