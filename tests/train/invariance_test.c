/* What must not change the result: threads, instruction set, recompute (bits); the split of a
 * window, packing (to rounding). And what must not happen: allocation after the first step. */
#include "tests/golden/golden.h"

#include "core/mem.h"
#include "tests/failing.h"

#include <math.h>
#include <stdlib.h>

static void add_all(struct setup *s, const char *name, const char *const *extra)
{
    setup_golden(s, name);
    for (; *extra; extra++)
        setup_add(s, "%s", *extra);
}

static void expect_same_bits(const char *name, const char *const *a, const char *const *b)
{
    struct setup s = {0}, t = {0};
    struct ft_train_result r;
    char x[256], y[256], file[2][512];
    add_all(&s, name, a);
    add_all(&t, name, b);
    if (!train_setup(&s, x, &r) || !train_setup(&t, y, &r))
        return;
    snprintf(file[0], sizeof file[0], "%s/adapter_model.safetensors", x);
    snprintf(file[1], sizeof file[1], "%s/adapter_model.safetensors", y);
    double p[64], q[64];
    int n = read_losses(x, p, 64), m = read_losses(y, q, 64);
    bool same = n == m && n == 20 && memcmp(p, q, (size_t)n * sizeof *p) == 0;
    if (!same_files(file[0], file[1]) || !same)
        check_fail(name, 0, "%s and %s do not give the same bits", a[0], b[0]);
    remove_folder(x);
    remove_folder(y);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

CASE(same_bits_twice_and_with_any_thread_count)
{
    expect_same_bits("long", LIST("threads=1"), LIST("threads=1"));
    expect_same_bits("long", LIST("threads=1"), LIST("threads=2"));
    expect_same_bits("long", LIST("threads=2"), LIST("threads=5"));
    expect_same_bits("odd", LIST("threads=1"), LIST("threads=3"));
    expect_same_bits("long", LIST("bf16=auto", "threads=1"), LIST("bf16=auto", "threads=5"));
}

CASE(same_bits_with_recompute)
{
    expect_same_bits("base", LIST("gradient_checkpointing=false"),
                     LIST("gradient_checkpointing=true"));
    expect_same_bits("long", LIST("gradient_checkpointing=false", "sample_packing=true"),
                     LIST("gradient_checkpointing=true", "sample_packing=true"));
    expect_same_bits("biases", LIST("gradient_checkpointing=auto"),
                     LIST("gradient_checkpointing=true"));
}

CASE(same_bits_on_avx2_and_avx512)
{
    const struct ft_backend *b;
    if (ft_cpu_backend(&b, "avx512", false))
        check_skip("this machine has no AVX-512");
    expect_same_bits("long", LIST("cpu_isa=avx2"), LIST("cpu_isa=avx512"));
    expect_same_bits("patterns", LIST("cpu_isa=avx2"), LIST("cpu_isa=avx512"));
}

CASE(same_bits_with_recomputed_dropout)
{
    /* a fresh adapter, since the golden ones have no dropout */
    struct setup s = {0};
    struct ft_train_result r;
    char folder[3][256], file[3][1024];
    static const char *const variants[3] = {"gradient_checkpointing=false",
                                            "gradient_checkpointing=true", "threads=3"};
    setup_golden(&s, "base");
    setup_add(&s, "lora_model_dir=");
    setup_add(&s, "lora_dropout=0.25");
    setup_add(&s, "neftune_noise_alpha=5");
    setup_add(&s, "lora_target_linear=true");
    for (int i = 0; i < 3; i++) {
        struct setup t = s;
        for (int k = 0; k < t.n; k++)
            t.list[k] = t.text[k];
        setup_add(&t, "%s", variants[i]);
        if (!train_setup(&t, folder[i], &r))
            return;
        snprintf(file[i], sizeof file[i], "%s/adapter_model.safetensors", folder[i]);
    }
    CHECK(same_files(file[0], file[1]));
    CHECK(same_files(file[0], file[2]));
    for (int i = 0; i < 3; i++)
        remove_folder(folder[i]);
}

/* The summed gradient of all documents, and the loss. */
static double *gradient(const char *name, const char *const *extra, int64_t *n, double *loss)
{
    struct setup s = {0};
    struct opened o = {0};
    double *out;
    add_all(&s, name, extra);
    if (!open_setup(&o, &s))
        return NULL;
    run_all(&o.job, FT_PASS);
    const float *g = ft_adapter_gradients(o.job.adapter)->data;
    const double *sc = o.job.batch.scalars->data;
    *n = ft_adapter_parameters(o.job.adapter);
    *loss = sc[FT_S_LOSS_SUM] / sc[FT_S_TRAINED];
    FT_ASSERT(ft_alloc(&out, (size_t)*n, sizeof *out) == FT_OK);
    for (int64_t i = 0; i < *n; i++)
        out[i] = (double)g[i] / sc[FT_S_TRAINED];
    close_setup(&o);
    return out;
}

/* How far y is from x, by their norms. */
static double off_by(const double *x, const double *y, int64_t n)
{
    double off = 0, size = 0;
    for (int64_t k = 0; k < n; k++) {
        off += (x[k] - y[k]) * (x[k] - y[k]);
        size += x[k] * x[k];
    }
    return sqrt(off / size);
}

CASE(split_and_packing_give_the_same_gradient)
{
    static const char *const cases[] = {"base", "long", "wide-group", "rope-dynamic"};
    for (int i = 0; i < 4; i++) {
        int64_t n = 0, m = 0;
        double loss[2];
        double *one = gradient(cases[i], LIST("micro_batch_size=1"), &n, &loss[0]);
        double *all = gradient(cases[i], LIST("sample_packing=true"), &m, &loss[1]);
        CHECK_INT(n, m);
        CHECK(one && all && off_by(one, all, n) <= 2e-5);
        CHECK_NEAR(loss[0], loss[1], 1e-6 * loss[0]);
        ft_free(one);
        ft_free(all);
    }
}

CASE(bf16_products_give_nearly_the_same_gradient)
{
    static const char *const cases[] = {"base", "long", "wide-group"};
    const struct ft_backend *b;
    if (ft_cpu_backend(&b, "auto", true) || b->products != FT_BF16)
        check_skip("this machine has no fast bf16 products");
    for (int i = 0; i < 3; i++) {
        int64_t n = 0, m = 0;
        double loss[2];
        double *exact = gradient(cases[i], LIST("bf16=false"), &n, &loss[0]);
        double *near = gradient(cases[i], LIST("bf16=auto"), &m, &loss[1]);
        CHECK_INT(n, m);
        const double off = exact && near ? off_by(exact, near, n) : NAN;
        CHECK(off > 0 && off <= 0.03);
        CHECK_NEAR(loss[1], loss[0], 5e-3 * loss[0]);
        ft_free(exact);
        ft_free(near);
    }
}

CASE(accumulation_is_one_window)
{
    struct setup s = {0}, t = {0};
    struct ft_train_result r;
    char x[256], y[256];
    double p[64], q[64];
    add_all(&s, "base", LIST("micro_batch_size=1", "gradient_accumulation_steps=3"));
    add_all(&t, "base", LIST("micro_batch_size=3", "gradient_accumulation_steps=1"));
    if (!train_setup(&s, x, &r) || !train_setup(&t, y, &r))
        return;
    int n = read_losses(x, p, 64), m = read_losses(y, q, 64);
    CHECK_INT(n, m);
    for (int i = 0; i < n; i++)
        CHECK_NEAR(p[i], q[i], 1e-6 * p[i]);
    remove_folder(x);
    remove_folder(y);
}

CASE(nothing_is_allocated_after_the_first_step)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    long counts[2];
    for (int i = 0; i < 2; i++) {
        struct setup s = {0};
        struct ft_train_result r;
        char folder[256];
        setup_golden(&s, "base");
        setup_add(&s, "gradient_accumulation_steps=1");
        setup_add(&s, "test_datasets.0.path=" FT_ROOT "/tests/golden/base/data.safetensors");
        setup_add(&s, "max_steps=%d", i ? 40 : 2);
        setup_add(&s, "eval_steps=2");
        setup_add(&s, "sample_packing=true");
        long before = allocations_made();
        if (!train_setup(&s, folder, &r))
            return;
        counts[i] = allocations_made() - before;
        remove_folder(folder);
    }
    CHECK(counts[0] > 0);
    CHECK_INT(counts[1], counts[0]);
#else
    check_skip("the sanitizer owns the allocator");
#endif
}
