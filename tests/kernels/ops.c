#include "tests/kernels/ops.h"

#include "core/mem.h"
#include "core/quant.h"
#include "core/status.h"

/* of this test alone */
extern const struct ft_backend ft_cpu_bf16_emulated_backend, ft_cpu_amx_emulated_backend,
    ft_cpu_neon_emulated_backend, ft_cpu_neon_bf16_emulated_backend;

enum { SPARE = 3 }; /* rows behind the live ones; on a device as many again behind the bucket */

static struct ft_tensor *all[512];
static int count;
static bool on_device; /* the backend at work is one */
static bool in_bf16;   /* its products take bf16: so that they are exact, all numbers are such */

static struct ft_tensor *make(int64_t rows, int64_t cols, enum ft_dtype dtype,
                              enum ft_extent extent, bool gaps)
{
    struct ft_tensor *t;
    FT_ASSERT(count < 512 && ft_alloc(&t, 1, sizeof *t) == FT_OK);
    *t = (struct ft_tensor){
        .rows = rows, .cols = cols, .dtype = dtype, .extent = extent, .id = -1, .name = "test"};
    if (gaps && rows > 1) /* sometimes of whole 16 bytes */
        t->ld = cols % 3 == 0 ? cols + 5 : (cols + 15) / 8 * 8;
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

static uint16_t to_f16(double v)
{
    int e = 0; /* the nearest f16 below, by its exponent and ten bits */
    double m = frexp(fabs(v), &e);
    uint16_t h =
        v == 0 || e < -12 ? 0 : (uint16_t)((e + 14) << 10 | ((uint32_t)(m * 2048) & 0x3ff));
    return (uint16_t)(h | (v < 0 ? 0x8000 : 0));
}

void put(struct ft_tensor *t, int64_t row, int64_t col, double v)
{
    const int64_t i = row * ft_tensor_ld(t) + col;
    if (t->dtype == FT_F32)
        ((float *)t->data)[i] = (float)v;
    else if (t->dtype == FT_BF16)
        ((uint16_t *)t->data)[i] = isnan(v) ? 0x7fff : ft_f32_to_bf16((float)v);
    else
        ((uint16_t *)t->data)[i] = to_f16(v);
}

double at(const struct ft_tensor *t, int64_t row, int64_t col)
{
    const int64_t i = row * ft_tensor_ld(t) + col;
    if (t->dtype == FT_F32)
        return (double)((const float *)t->data)[i];
    uint16_t h = ((const uint16_t *)t->data)[i];
    return (double)(t->dtype == FT_BF16 ? ft_bf16_to_f32(h) : ft_f16_to_f32(h));
}

static void randomise(struct ft_tensor *t, int64_t rows, uint32_t seed)
{
    struct ft_rng rng = ft_rng_init(7, FT_RNG_TEST, seed, (uint32_t)t->rows);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < t->cols; c++) {
            const float v = 2 * ft_rng_f32(&rng) - 1;
            put(t, r, c, (double)(in_bf16 ? ft_bf16_to_f32(ft_f32_to_bf16(v)) : v));
        }
}

struct ft_tensor *random_weight(int64_t rows, int64_t cols, enum ft_dtype dtype, uint32_t seed)
{
    struct ft_tensor *t = make(rows, cols, on_device ? FT_BF16 : dtype, FT_FIXED, true);
    randomise(t, rows, seed);
    return t;
}

struct ft_tensor *random_quant(int64_t rows, int64_t cols, enum ft_dtype dtype, int block,
                               uint32_t seed)
{
    struct ft_tensor *t = make(rows, cols, FT_U8, FT_FIXED, false);
    struct ft_rng rng = ft_rng_init(7, FT_RNG_TEST, seed, (uint32_t)dtype);
    size_t bytes[FT_PLANES];
    t->dtype = dtype;
    t->block = block;
    ft_free(t->data);
    FT_ASSERT(ft_alloc(&t->data, ft_tensor_bytes(t), 1) == FT_OK);
    const struct ft_planes q = ft_planes_of(t);
    ft_plane_bytes(t, bytes);
    for (int i = 0; i < FT_PLANES; i++) {
        const bool numbers = i != FT_CODES && !(dtype == FT_BNB4_NESTED && i == FT_SCALES) &&
                             !(dtype == FT_INT4_GROUPS && i != FT_SCALES);
        for (size_t k = 0; k < bytes[i] && !numbers; k++) /* no NaN among the codes of FP8 */
            ((uint8_t *)q.p[i])[k] =
                (uint8_t)(ft_rng_u32(&rng) & (dtype == FT_FP8_BLOCKS ? 0xb7 : 0xff));
        for (size_t k = 0; k < bytes[i] / 4 && numbers; k++)
            ((float *)q.p[i])[k] = (2 * ft_rng_f32(&rng) - 1) / 8;
    }
    for (int64_t c = 0; dtype == FT_INT4_GROUPS && c < cols; c++)
        ((int32_t *)q.p[FT_GROUPS])[c] = (int32_t)((c + (c > 9)) % cols / block);
    return t;
}

struct ft_tensor *widened(const struct ft_tensor *w)
{
    struct ft_tensor *y = make(w->rows, w->cols, on_device ? FT_BF16 : FT_F32, FT_FIXED, true);
    const struct ft_backend *b;
    float *row;
    FT_ASSERT(ft_cpu_backend(&b, "generic", false) == FT_OK);
    FT_ASSERT(ft_alloc(&row, (size_t)w->cols, sizeof *row) == FT_OK);
    struct ft_pool *pool;
    FT_ASSERT(ft_pool_new(&pool, 1) == FT_OK);
    const struct ft_kernel_ctx ctx = {.backend = b, .pool = pool};
    for (int32_t r = 0; r < w->rows; r++) {
        struct ft_tensor id = {.data = &r, .rows = 1, .cols = 1, .dtype = FT_I32};
        struct ft_tensor out = {.data = row, .rows = 1, .cols = w->cols, .dtype = FT_F32};
        b->ops[FT_OP_embed](&ctx,
                            &(union ft_op_args){.embed = {.ids = &id,
                                                          .w = (struct ft_tensor *)(uintptr_t)w,
                                                          .y = &out,
                                                          .scale = 1}});
        for (int64_t c = 0; c < w->cols; c++)
            put(y, r, c, (double)row[c]);
    }
    ft_pool_free(pool);
    ft_free(row);
    return y;
}

struct ft_tensor *random_master(int64_t rows, int64_t cols, uint32_t seed)
{
    struct ft_tensor *t = make(rows, cols, FT_F32, FT_FIXED, false);
    randomise(t, rows, seed);
    return t;
}

int64_t covered_rows(const struct bench *b)
{
    return b->backend->dev ? b->live + SPARE : b->live;
}

/* NaN from row `from` on. */
static void poison(struct ft_tensor *t, int64_t from)
{
    for (int64_t r = from; r < t->rows; r++)
        for (int64_t c = 0; c < t->cols; c++)
            put(t, r, c, NAN);
}

static struct ft_tensor *activation(const struct bench *b, int64_t cols, enum ft_dtype dtype,
                                    bool gaps)
{
    return make(covered_rows(b) + SPARE, cols, dtype, FT_ROWS, gaps);
}

struct ft_tensor *random_tensor(const struct bench *b, int64_t cols, uint32_t seed)
{
    struct ft_tensor *t = activation(b, cols, b->backend->act, true);
    randomise(t, b->live, seed);
    poison(t, covered_rows(b));
    return t;
}

struct ft_tensor *empty_tensor(const struct bench *b, int64_t cols)
{
    struct ft_tensor *t = activation(b, cols, b->backend->act, true);
    poison(t, 0);
    return t;
}

static struct ft_tensor *routed(const struct bench *b, int64_t cols)
{
    return make((covered_rows(b) + SPARE) * b->each, cols, b->backend->act, FT_ROUTED, true);
}

struct ft_tensor *routed_tensor(const struct bench *b, int64_t cols, uint32_t seed)
{
    struct ft_tensor *t = routed(b, cols);
    randomise(t, covered_rows(b) * b->each, seed);
    poison(t, covered_rows(b) * b->each);
    return t;
}

struct ft_tensor *empty_routed(const struct bench *b, int64_t cols)
{
    struct ft_tensor *t = routed(b, cols);
    poison(t, 0);
    return t;
}

struct ft_tensor *empty_sums(const struct bench *b, int64_t cols)
{
    struct ft_tensor *t = activation(b, cols, FT_F32, false);
    poison(t, 0);
    return t;
}

struct ft_tensor *copy_tensor(const struct ft_tensor *t)
{
    struct ft_tensor *c = make(t->rows, t->cols, t->dtype, t->extent, t->ld != 0);
    FT_ASSERT(c->ld == t->ld);
    memcpy(c->data, t->data, ft_tensor_bytes(t));
    return c;
}

struct ft_tensor *int_tensor(int64_t rows, int64_t cols, enum ft_extent extent)
{
    return make(rows, cols, FT_I32, extent, false);
}

struct ft_tensor *int_rows(const struct bench *b, int64_t cols)
{
    return activation(b, cols, FT_I32, false);
}

struct ft_tensor *byte_rows(const struct bench *b, int64_t cols)
{
    return activation(b, cols, FT_U8, false);
}

struct ft_tensor *scalars_tensor(double *values)
{
    static struct ft_tensor t;
    t = (struct ft_tensor){.data = values,
                           .rows = 1,
                           .cols = FT_SCALARS,
                           .dtype = FT_F64,
                           .id = -1,
                           .name = "scalars"};
    return &t;
}

static void must(const struct bench *b, int rc)
{
    if (rc)
        check_fail("device", rc, "%s", b->backend->dev->error(b->backend));
}

static void live_counts(const struct bench *b, int32_t counts[FT_EXTENTS])
{
    memset(counts, 0, FT_EXTENTS * sizeof *counts);
    counts[FT_ROWS] = (int32_t)b->live;
    counts[FT_DOCUMENTS] = (int32_t)b->docs;
    counts[FT_TRAINED] = (int32_t)b->trained;
    counts[FT_ROUTED] = (int32_t)(b->live * b->each);
}

/* Copies every tensor of the op to the device, runs it there, and copies them back. */
static void run_on_device(const struct bench *b, enum ft_op op, union ft_op_args args)
{
    const struct ft_backend *d = b->backend;
    const int slots = ft_op_rows[op].n_in + ft_op_rows[op].n_out;
    struct ft_tensor there[FT_SLOTS], *here[FT_SLOTS];
    int32_t counts[FT_EXTENTS];
    live_counts(b, counts);
    void *live, *scratch = NULL;
    must(b, d->alloc(d, &live, sizeof counts));
    must(b, d->dev->copy_in(d, live, sizeof counts, counts, sizeof counts, sizeof counts, 1));
    for (int i = 0; i < slots; i++) {
        here[i] = args.slots[i];
        if (!here[i])
            continue;
        int same = 0; /* a tensor that is given twice is one */
        while (here[same] != here[i])
            same++;
        there[i] = *here[i];
        const size_t bytes = ft_tensor_bytes(here[i]);
        if (same < i) {
            there[i].data = there[same].data;
        } else {
            must(b, d->alloc(d, &there[i].data, bytes));
            must(b, d->dev->copy_in(d, there[i].data, bytes, here[i]->data, bytes, bytes, 1));
        }
        args.slots[i] = &there[i];
    }
    const size_t room = d->scratch[op] ? d->scratch[op](&args) : 0;
    if (room) {
        void *nan;
        must(b, d->alloc(d, &scratch, room));
        FT_ASSERT(ft_alloc(&nan, room, 1) == FT_OK);
        memset(nan, 0xff, room);
        must(b, d->dev->copy_in(d, scratch, room, nan, room, room, 1));
        must(b, d->dev->sync(d));
        ft_free(nan);
    }
    const struct ft_kernel_ctx ctx = {.backend = d,
                                      .counts = {[FT_ROWS] = covered_rows(b),
                                                 [FT_DOCUMENTS] = b->docs,
                                                 [FT_TRAINED] = b->trained ? b->trained + SPARE : 0,
                                                 [FT_ROUTED] = covered_rows(b) * b->each},
                                      .live = live,
                                      .scratch = scratch};
    d->ops[op](&ctx, &args);
    must(b, d->dev->sync(d));
    for (int i = 0; i < slots; i++) {
        int same = 0;
        while (here[i] && here[same] != here[i])
            same++;
        if (!here[i] || same < i)
            continue;
        const size_t bytes = ft_tensor_bytes(here[i]);
        must(b, d->dev->copy_out(d, here[i]->data, there[i].data, bytes));
        d->free(d, there[i].data, bytes);
    }
    d->free(d, live, sizeof counts);
    if (scratch)
        d->free(d, scratch, room);
}

void run_ops(const struct bench *b, enum ft_op op, const union ft_op_args *args, int n)
{
    void *scratch = NULL;
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        ft_op_check(op, &args[i]);
        const size_t own = b->backend->scratch[op] ? b->backend->scratch[op](&args[i]) : 0;
        bytes = own > bytes ? own : bytes;
        if (b->backend->dev)
            run_on_device(b, op, args[i]);
    }
    if (b->backend->dev)
        return;
    if (bytes) {
        FT_ASSERT(ft_pages_alloc(&scratch, bytes) == FT_OK);
        memset(scratch, 0xff, bytes);
    }
    struct ft_kernel_ctx ctx = {.backend = b->backend,
                                .pool = b->pool,
                                .counts = {[FT_ROWS] = b->live,
                                           [FT_DOCUMENTS] = b->docs,
                                           [FT_TRAINED] = b->trained,
                                           [FT_ROUTED] = b->live * b->each,
                                           [FT_KEYS] = b->keys},
                                .scratch = scratch};
    for (int i = 0; i < n; i++) {
        b->backend->ops[op](&ctx, &args[i]);
        ctx.before = (struct ft_op_run){op, &args[i], scratch};
    }
    ft_pages_free(scratch, bytes);
}

void run_op(const struct bench *b, enum ft_op op, const union ft_op_args *args)
{
    run_ops(b, op, args, 1);
}

void check_threads(const struct bench *b, enum ft_op op, const union ft_op_args *args,
                   struct ft_tensor *const *out, int n)
{
    static const int counts[] = {1, 2, 24};
    struct ft_tensor *was[8];
    FT_ASSERT(n <= 8);
    for (int t = 0; t < 3; t++) {
        struct bench other = *b;
        FT_ASSERT(ft_pool_new(&other.pool, counts[t]) == FT_OK);
        run_op(&other, op, args);
        ft_pool_free(other.pool);
        for (int i = 0; i < n; i++) {
            if (t == 0)
                was[i] = copy_tensor(out[i]);
            else if (!same_bits(b, out[i], was[i]))
                check_fail(ft_op_rows[op].name, i, "%s: %d threads give other bits than one",
                           b->backend->isa, counts[t]);
        }
    }
}

double tol(const struct bench *b, double magnitude, double n)
{
    return tol_f32(magnitude, n) + (b->backend->products == FT_BF16 ? tol_bf16(magnitude) : 0);
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
    for (int64_t r = b->live; r < t->rows; r++)
        for (int64_t c = 0; c < t->cols; c++)
            if (r < covered_rows(b) ? !isfinite(at(t, r, c)) : !isnan(at(t, r, c))) {
                check_fail(__FILE__, __LINE__, "%s: row %lld of %lld live ones was %s",
                           b->backend->isa, (long long)r, (long long)b->live,
                           r < covered_rows(b) ? "left alone" : "written");
                return;
            }
}

bool same_bits(const struct bench *b, const struct ft_tensor *x, const struct ft_tensor *y)
{
    int64_t rows = x->extent ? b->live : x->rows;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < x->cols; c++)
            if (at(x, r, c) != at(y, r, c))
                return false;
    return true;
}

static void on_host(const struct ft_backend *backend, int least, void (*body)(struct bench *b))
{
    in_bf16 = backend->products == FT_BF16;
    for (int threads = least; threads <= 3; threads += 2) {
        struct bench b = {.backend = backend, .docs = 1};
        FT_ASSERT(ft_pool_new(&b.pool, threads) == FT_OK);
        body(&b);
        drop_tensors();
        ft_pool_free(b.pool);
    }
    in_bf16 = false;
}

void each_host_backend(void (*body)(struct bench *b))
{
    static const char *const isas[] = {"generic", "avx2", "avx512", "amx", "neon", "openblas"};
    const struct ft_backend *plain, *bf16;
    if (getenv("FT_TEST_DEVICE"))
        return;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (ft_cpu_backend(&plain, isas[i], false) == FT_OK)
            on_host(plain, 1, body);
        if (ft_cpu_backend(&bf16, isas[i], true) == FT_OK && bf16 != plain)
            on_host(bf16, 1, body);
        ft_status_clear();
    }
    on_host(&ft_cpu_bf16_emulated_backend, 3, body);
    on_host(&ft_cpu_amx_emulated_backend, 3, body);
    on_host(&ft_cpu_neon_emulated_backend, 3, body);
    on_host(&ft_cpu_neon_bf16_emulated_backend, 3, body);
}

void each_backend(void (*body)(struct bench *b))
{
    struct bench b = {.docs = 1};
    each_host_backend(body);
    if (ft_cuda_backend(&b.backend, -1)) {
        if (getenv("FT_TEST_DEVICE"))
            check_skip(ft_status_report());
        else if (getenv("FT_CUDA_LIBRARY")) /* the emulation must be there */
            check_fail("each_backend", 0, "%s", ft_status_report());
        ft_status_clear();
        return;
    }
    on_device = true;
    body(&b);
    drop_tensors();
    on_device = false;
    ft_backend_close(b.backend);
}
