/* Training on a device: the CUDA backend, or its emulation where there is no GPU. bf16 arithmetic
 * against transformers, PEFT and the CPU's fp32; recompute, recordings and repeated runs to the
 * bit; what is said when there is no device, too little memory, or the device fails. */
#include "tests/golden/golden.h"

#include "core/file.h"
#include "core/mem.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Whether a device can be opened; skips the case (or, emulated, fails it) if not. */
static bool have_device(void)
{
    const struct ft_backend *b;
    if (ft_cuda_backend(&b, -1) == FT_OK) {
        ft_backend_close(b);
        return true;
    }
    if (getenv("FT_CUDA_LIBRARY") && !getenv("FT_TEST_DEVICE"))
        check_fail("device", 0, "%s", ft_status_report());
    else
        check_skip(ft_status_report());
    ft_status_clear();
    return false;
}

/* The emulated device can pretend what a real one cannot. */
static bool emulated(void)
{
    return getenv("FT_CUDA_LIBRARY") && !getenv("FT_TEST_DEVICE");
}

/* bf16 has 8 bits. On ten of these tiny models torch with PEFT, in bf16, is off by 2.1 to 6.1 % of
 * the gradient's norm and by up to 0.4 % of the loss; ft was off by 1.2 to 4.4 % and 0.13 %. */
static const double gradient_limit = 0.06, loss_limit = 0.01;

/* Where rounding sends a row to another expert, its gradient is another one: on twelve of the tiny
 * mixtures torch is off by 1.9 to 13.8 %; ft was by 1.6 to 9.0 %. */
static double limit_of(const char *name)
{
    static const char *const mixtures[] = {"moe", "mixtral", "deepseek"};
    for (size_t i = 0; i < sizeof mixtures / sizeof *mixtures; i++)
        if (strstr(name, mixtures[i]))
            return 0.12;
    return gradient_limit;
}

/* The summed gradient of all documents over the trained tokens, and the mean loss. */
static float *summed(struct ft_job *j, int64_t *n, double *loss)
{
    double sc[FT_SCALARS];
    run_all(j, FT_PASS);
    CHECK_INT(ft_graph_read(j->graph, j->batch.scalars, sc), FT_OK);
    float *g = read_floats(j, ft_adapter_gradients(j->adapter));
    *n = ft_adapter_parameters(j->adapter);
    *loss = sc[FT_S_LOSS_SUM] / sc[FT_S_TRAINED];
    for (int64_t i = 0; i < *n; i++)
        g[i] /= (float)sc[FT_S_TRAINED];
    return g;
}

static float *gradient(const char *name, const char *device, const char *extra, int64_t *n,
                       double *loss)
{
    struct setup s = {0};
    struct opened o = {0};
    setup_golden(&s, name);
    setup_add(&s, "device=%s", device);
    setup_add(&s, "sample_packing=true");
    if (extra)
        setup_add(&s, "%s", extra);
    if (!open_setup(&o, &s))
        return NULL;
    float *g = summed(&o.job, n, loss);
    close_setup(&o);
    return g;
}

/* As if it had been trained for long: a fresh adapter's gradient is half zeros. */
static void scatter(struct ft_job *j)
{
    const int64_t n = ft_adapter_parameters(j->adapter);
    struct ft_rng rng = ft_rng_init(7, FT_RNG_TEST, 0, 0);
    float *values;
    FT_ASSERT(ft_alloc(&values, (size_t)n, sizeof *values) == FT_OK);
    for (int64_t i = 0; i < n; i++)
        values[i] = ((float)(ft_rng_u32(&rng) >> 8) * 0x1p-24f - 0.5f) * 0.2f;
    CHECK_INT(ft_graph_write(j->graph, ft_adapter_values(j->adapter), values), FT_OK);
    CHECK_INT(ft_graph_run(j->graph, FT_START, j->pool, &(struct ft_run){0}, NULL), FT_OK);
    ft_free(values);
}

/* The same of a fresh adapter with dropout on all modules, q's of another rank. */
static float *dropout_gradient(const char *name, const char *device, const char *keep, int64_t *n,
                               double *loss)
{
    struct setup s = {0};
    struct opened o = {0};
    setup_golden(&s, name);
    setup_add(&s, "lora_model_dir=");
    setup_add(&s, "lora_target_linear=true");
    setup_add(&s, "lora_rank_pattern={q_proj: 3}");
    setup_add(&s, "lora_dropout=0.2");
    setup_add(&s, "sample_packing=true");
    setup_add(&s, "device=%s", device);
    setup_add(&s, "%s", keep);
    if (!open_setup(&o, &s))
        return NULL;
    scatter(&o.job);
    float *g = summed(&o.job, n, loss);
    close_setup(&o);
    return g;
}

/* |a - b| / |b| */
static double distance(const float *a, const float *b, int64_t n)
{
    double off = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(off / size);
}

/* The sanitizer is slow. */
#if defined(__SANITIZE_ADDRESS__)
enum { GOLDEN_STRIDE = 3 };
#else
enum { GOLDEN_STRIDE = 1 };
#endif

CASE(gradients_of_golden_models_follow_the_cpu)
{
    char names[MAX_CASES][64];
    int cases = golden_cases(names);
    if (!have_device())
        return;
    for (int i = 0; i < cases; i += GOLDEN_STRIDE) {
        int64_t n = 0, m = 0;
        double loss[2];
        float *want = gradient(names[i], "cpu", NULL, &n, &loss[0]);
        float *got = gradient(names[i], "cuda", NULL, &m, &loss[1]);
        CHECK_INT(n, m);
        if (got && want) {
            double off = distance(got, want, n);
            printf("  %-18s loss %.1e, gradients %.1e\n", names[i],
                   fabs(loss[1] - loss[0]) / loss[0], off);
            CHECK_NEAR(loss[1], loss[0], loss_limit * loss[0]);
            if (!(off <= limit_of(names[i])))
                check_fail(names[i], 0, "the gradient is off by %.2e", off);
        }
        ft_free(want);
        ft_free(got);
    }
}

/* The masks are drawn from the same keys, so that the CPU's gradient is what a device's follows. */
CASE(gradients_with_dropout_follow_the_cpu)
{
    static const char *const names[] = {"base", "biases", "wide-group"};
    if (!have_device())
        return;
    for (int i = 0; i < 3; i++) {
        int64_t n = 0, m = 0, k = 0;
        double loss[3];
        float *want = dropout_gradient(names[i], "cpu", "threads=2", &n, &loss[0]);
        float *got =
            dropout_gradient(names[i], "cuda", "gradient_checkpointing=false", &m, &loss[1]);
        float *again =
            dropout_gradient(names[i], "cuda", "gradient_checkpointing=true", &k, &loss[2]);
        CHECK(got && want && again && n == m && n == k);
        CHECK(got && again && memcmp(got, again, (size_t)n * sizeof *got) == 0);
        CHECK_NEAR(loss[1], loss[0], loss_limit * loss[0]);
        if (got && want) {
            double off = distance(got, want, n);
            printf("  %-18s gradients %.1e\n", names[i], off);
            CHECK(off <= gradient_limit);
        }
        ft_free(want);
        ft_free(got);
        ft_free(again);
    }
}

CASE(a_plan_too_large_for_the_gpu_says_so)
{
    struct setup s = {0};
    struct opened o = {0};
    if (!emulated())
        return;
    setup_golden(&s, "base");
    setup_add(&s, "device=cuda");
    setenv("FT_EMULATED_MEMORY", "1000", 1);
    int rc = ft_config_read(&o.config, NULL, s.list, s.n);
    if (!rc)
        rc = ft_job_open(&o.job, &o.config, NULL);
    CHECK_INT(rc, FT_OK);
    CHECK_INT(ft_graph_place(o.job.graph), FT_ERESOURCE);
    CHECK_HAS(ft_status_report(), "GB were asked for");
    close_setup(&o);
    unsetenv("FT_EMULATED_MEMORY");
    ft_status_clear();
}

CASE(what_is_kept_changes_no_bit)
{
    static const char *const policies[] = {"gradient_checkpointing=false",
                                           "gradient_checkpointing=true"};
    static const char *const models[] = {"base", "biases", "wide-group"};
    if (!have_device())
        return;
    for (int i = 0; i < 3; i++) {
        int64_t n;
        double loss[2];
        float *a = gradient(models[i], "cuda", policies[0], &n, &loss[0]);
        float *b = gradient(models[i], "cuda", policies[1], &n, &loss[1]);
        CHECK(a && b && loss[0] == loss[1] && memcmp(a, b, (size_t)n * sizeof *a) == 0);
        ft_free(a);
        ft_free(b);
    }
}

static int losses_of(const char *device, bool dropout, double *losses, char folder[256])
{
    struct setup s = {0};
    struct ft_train_result r;
    setup_golden(&s, "base");
    setup_add(&s, "device=%s", device);
    setup_add(&s, "test_datasets.0.path=" FT_ROOT "/tests/golden/base/data.safetensors");
    setup_add(&s, "eval_steps=7");
    setup_add(&s, "micro_batch_size=2");
    if (dropout) { /* a fresh adapter, since the golden ones have none */
        setup_add(&s, "lora_model_dir=");
        setup_add(&s, "lora_target_linear=true");
        setup_add(&s, "lora_dropout=0.1");
        setup_add(&s, "learning_rate=1e-3");
    }
    return train_setup(&s, folder, &r) ? read_losses(folder, losses, 64) : 0;
}

static void follow(bool dropout)
{
    char a[256], b[256];
    double p[64], q[64];
    int n = losses_of("cpu", dropout, p, a), m = losses_of("cuda", dropout, q, b);
    CHECK_INT(m, n);
    CHECK(n == 20);
    for (int i = 0; i < n; i++)
        CHECK_NEAR(q[i], p[i], loss_limit * p[i]);
    remove_folder(a);
    remove_folder(b);
}

CASE(losses_of_a_run_follow_the_cpu)
{
    if (have_device())
        follow(false);
}

CASE(losses_with_dropout_follow_the_cpu)
{
    if (have_device())
        follow(true);
}

CASE(two_runs_give_the_same_bits)
{
    char a[256], b[256], x[512], y[512];
    double p[64], q[64];
    if (!have_device())
        return;
    int n = losses_of("cuda", false, p, a), m = losses_of("cuda", false, q, b);
    CHECK(n == 20 && m == 20 && memcmp(p, q, 20 * sizeof *p) == 0);
    snprintf(x, sizeof x, "%s/adapter_model.safetensors", a);
    snprintf(y, sizeof y, "%s/adapter_model.safetensors", b);
    CHECK(same_files(x, y));
    remove_folder(a);
    remove_folder(b);
}

/* With a profile every op is waited for and nothing is recorded. */
CASE(recorded_programs_give_the_same_bits_as_single_ops)
{
    char folder[2][64], file[2][128];
    if (!have_device())
        return;
    for (int i = 0; i < 2; i++) {
        struct setup s = {0};
        struct opened o = {0};
        struct ft_train_result r;
        setup_golden(&s, "long");
        setup_add(&s, "device=cuda");
        setup_add(&s, "max_steps=4");
        snprintf(folder[i], sizeof folder[i], "/tmp/ft-test-XXXXXX");
        FT_ASSERT(mkdtemp(folder[i]));
        setup_add(&s, "output_dir=%s", folder[i]);
        int rc = ft_config_read(&o.config, NULL, s.list, s.n);
        if (!rc)
            rc = ft_job_open(&o.job, &o.config, NULL);
        if (!rc)
            rc = ft_train(&o.job, &(struct ft_train_options){.profile = i == 1}, &r);
        CHECK_INT(rc, FT_OK);
        close_setup(&o);
        strcat(strcpy(file[i], folder[i]), "/adapter_model.safetensors");
    }
    CHECK(same_files(file[0], file[1]));
    remove_folder(folder[0]);
    remove_folder(folder[1]);
}

/* --- what goes wrong; the emulated device pretends --- */

static int train_with(const char *name, const char *value, const char *device, char folder[64])
{
    struct setup s = {0};
    struct opened o = {0};
    struct ft_train_result r;
    setup_golden(&s, "base");
    setup_add(&s, "device=%s", device);
    strcpy(folder, "/tmp/ft-test-XXXXXX");
    FT_ASSERT(mkdtemp(folder));
    setup_add(&s, "output_dir=%s", folder);
    setenv(name, value, 1);
    int rc = ft_config_read(&o.config, NULL, s.list, s.n);
    if (!rc)
        rc = ft_job_open(&o.job, &o.config, NULL);
    if (!rc)
        rc = ft_train(&o.job, &(struct ft_train_options){0}, &r);
    close_setup(&o);
    unsetenv(name);
    return rc;
}

static bool wrote_an_adapter(const char *folder)
{
    char path[128];
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    return ft_file_exists(path);
}

CASE(without_a_gpu)
{
    char folder[64];
    if (!emulated())
        return;
    CHECK_INT(train_with("FT_EMULATED_MEMORY", "0", "cuda", folder), FT_ERESOURCE);
    CHECK_HAS(ft_status_report(), "no CUDA device can be used: the emulated machine has no GPU");
    CHECK_HAS(ft_status_report(), "hint: 'device: cpu'");
    ft_status_clear();
    remove_folder(folder);
    /* auto says what it took, and why */
    CHECK_INT(train_with("FT_EMULATED_MEMORY", "0", "auto", folder), FT_OK);
    CHECK_HAS(ft_status_notices(), "'device: auto' took the CPU: no CUDA device can be used");
    CHECK(wrote_an_adapter(folder));
    ft_status_clear_notices();
    remove_folder(folder);
}

CASE(too_little_memory_on_the_gpu)
{
    char folder[64];
    if (!emulated())
        return;
    CHECK_INT(train_with("FT_EMULATED_MEMORY", "1000000", "cuda", folder), FT_ERESOURCE);
    CHECK_HAS(ft_status_report(), "of memory on the GPU");
    CHECK(!wrote_an_adapter(folder));
    ft_status_clear();
    remove_folder(folder);
}

CASE(less_memory_keeps_less_and_changes_no_bit)
{
    float *want = NULL;
    size_t need = 0;
    if (!emulated())
        return;
    for (int i = 0; i < 3; i++) {
        struct setup s = {0};
        struct opened o = {0};
        char room[32];
        setup_golden(&s, "long");
        setup_add(&s, "device=cuda");
        setup_add(&s, "gradient_checkpointing=auto");
        /* each time a little less than the last policy needed, with the reserve of a 128th */
        snprintf(room, sizeof room, "%zu", i ? need / 127 * 128 - 1024 : (size_t)1 << 40);
        setenv("FT_EMULATED_MEMORY", room, 1);
        if (!open_setup(&o, &s))
            break;
        CHECK_INT(o.job.recompute, FT_KEEP_ALL + i);
        need = ft_job_device_memory(&o.job);
        run_all(&o.job, FT_PASS);
        float *got = read_floats(&o.job, ft_adapter_gradients(o.job.adapter));
        if (!want)
            want = got;
        else
            CHECK(memcmp(want, got, (size_t)ft_adapter_parameters(o.job.adapter) * 4) == 0);
        if (got != want)
            ft_free(got);
        close_setup(&o);
    }
    ft_free(want);
    unsetenv("FT_EMULATED_MEMORY");
}

CASE(a_device_that_fails_names_the_op_and_the_step)
{
    static const char *const when[] = {"1", "40", "1500"};
    char folder[64];
    if (!emulated())
        return;
    for (int i = 0; i < 3; i++) {
        CHECK_INT(train_with("FT_EMULATED_FAULT", when[i], "cuda", folder), FT_ERESOURCE);
        CHECK_HAS(ft_status_report(), "an emulated fault; in or behind op '");
        CHECK(i == 0 || strstr(ft_status_report(), "this was at step"));
        CHECK(!wrote_an_adapter(folder));
        ft_status_clear();
        remove_folder(folder);
    }
}
