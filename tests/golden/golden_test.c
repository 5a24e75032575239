/* Every golden case against what transformers and PEFT computed: logits, loss, each adapter
 * gradient, and the adapter's change after 20 steps. The limits are those of fp32 noise with room
 * (measured noise in brackets): logits 1e-5 of the largest (1.3e-6), loss 1e-6 (2e-7), gradients
 * 2e-5 of max(own norm, 1e-3 of the largest) (2.5e-6), change 5e-4 (2.4e-5). */
#include "tests/golden/golden.h"

#include "core/mem.h"
#include "core/quant.h"
#include "tests/kernels/ops.h"
#include "train/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct ft_st *open_golden(const char *name, const char *file)
{
    char path[512];
    struct ft_st *f = NULL;
    snprintf(path, sizeof path, FT_ROOT "/tests/golden/%.63s/%s", name, file);
    if (ft_st_open(&f, path))
        check_fail(name, 0, "%s", ft_status_report());
    return f;
}

/* What is trained: the adapter, or the model itself. */
static const char *trained_file(const char *name)
{
    return golden_is_full(name) ? "model.safetensors" : "adapter_model.safetensors";
}

static double element(const struct ft_tensor *w, int64_t i)
{
    if (w->dtype == FT_F32)
        return (double)((const float *)w->data)[i];
    uint16_t h = ((const uint16_t *)w->data)[i];
    return (double)(w->dtype == FT_BF16 ? ft_bf16_to_f32(h) : ft_f16_to_f32(h));
}

static void check_logits(const char *name, struct ft_job *j, const struct ft_st *golden)
{
    const struct ft_head_loss_args *a = &j->head;
    const struct ft_tensor *head = ft_is_quant(a->w->dtype) ? widened(a->w) : a->w;
    const float *h = a->h->data, *u = a->u ? a->u->data : NULL;
    const int64_t low = a->u ? a->u->cols : 0;
    int64_t n, row = 0;
    double *want = read_values(golden, "logits", &n), largest = 0, worst = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(want[i]));
    run_all(j, FT_EVAL);
    for (int64_t n_doc = 0; n_doc < j->held.n_docs; n_doc++) {
        const struct ft_document *doc = &j->held.docs[n_doc];
        for (int64_t t = 0; t < doc->length; t++, row++)
            for (int64_t v = 0; v < head->rows; v++) {
                double sum = 0;
                for (int64_t c = 0; c < head->cols; c++)
                    sum +=
                        (double)h[row * head->cols + c] * element(head, v * ft_tensor_ld(head) + c);
                sum *= (double)a->scale;
                for (int64_t c = 0; c < low; c++)
                    sum += (double)a->beta * (double)u[row * low + c] * element(a->b, v * low + c);
                if (a->softcap > 0)
                    sum = (double)a->softcap * tanh(sum / (double)a->softcap);
                worst = fmax(worst, fabs(sum - want[(doc->start + t) * head->rows + v]));
            }
    }
    printf("  logits %.1e", worst / largest);
    if (!(worst <= 1e-5 * largest))
        check_fail(name, 0, "logits are off by %.2e of the largest", worst / largest);
    drop_tensors();
    ft_free(want);
}

static double norm_of(const double *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += v[i] * v[i];
    return sqrt(sum);
}

/* The first place of the block with a tensor's first values, `step` apart in the tensor; -1: none.
 */
static int64_t place_of(const float *block, int64_t all, const double *v, int64_t n, int64_t step)
{
    for (int64_t at = 0; at + n <= all; at++)
        if (block[at] == (float)v[0] && (n <= step || block[at + 1] == (float)v[step]))
            return at;
    return -1;
}

/* How a tensor of the adapter's file lies in the flat block: as it is; or, where a weight is stored
 * transposed, by its columns; or, of experts, as a matrix each, which are side by side in the file,
 * their columns by turns; or (`each` > 0) these, and those below each other, each transposed. */
struct layout {
    int64_t at, rows, cols, experts, each;
    bool beside;
};

static struct layout find_layout(const float *block, int64_t all, const struct ft_st_entry *e,
                                 const double *v, int64_t n, int64_t each)
{
    struct layout l = {.rows = 1,
                       .cols = n,
                       .experts = 1,
                       .each = each,
                       .beside = strstr(e->name, "lora_B") != NULL};
    l.at = place_of(block, all, v, n, 1);
    if ((l.at >= 0 && !each) || e->n_dims < 2)
        return l;
    l.rows = e->dims[0];
    l.cols = e->dims[1];
    l.at = place_of(block, all, v, n, l.cols);
    while (l.at < 0 && ++l.experts <= l.cols)
        if (l.cols % l.experts == 0)
            l.at = place_of(block, all, v, n, l.experts < l.cols ? l.experts : n);
    return l;
}

/* Where element k of the file's tensor is in the block. */
static int64_t place_in(const struct layout *l, int64_t k)
{
    const int64_t row = k / l->cols, col = k % l->cols, width = l->cols / l->experts;
    if (l->each && !l->beside) {
        const int64_t rank = l->rows / l->each;
        return l->at + (row / rank * l->cols + col) * rank + row % rank;
    }
    if (l->each)
        return l->at + (col % l->each * (l->cols / l->each) + col / l->each) * l->rows + row;
    if (l->experts == 1)
        return l->at + col * l->rows + row;
    return l->at + (col % l->experts * l->rows + row) * width + col / l->experts;
}

/* What PEFT writes beside the adapter of an embedding or a head, and ft does not. */
static bool is_base_weight(const char *tensor)
{
    return strstr(tensor, ".base_layer.weight") != NULL;
}

/* VeRA's matrices, which no gradient changes. */
static bool is_frozen(const char *tensor)
{
    return strcmp(tensor, "base_model.vera_A") == 0 || strcmp(tensor, "base_model.vera_B") == 0;
}

static void check_unchanged(const struct ft_st *before, const struct ft_st *after,
                            const char *tensor)
{
    int64_t n, m;
    double *was = read_values(before, tensor, &n), *is = read_values(after, tensor, &m);
    CHECK(n == m && memcmp(was, is, (size_t)n * sizeof *was) == 0);
    ft_free(was);
    ft_free(is);
}

/* The adapter's tensor names, as PEFT's file has them, through the file the case came with. */
static void check_gradients(const char *name, struct ft_job *j, const struct ft_st *golden,
                            double tokens)
{
    struct ft_st *adapter = open_golden(name, trained_file(name));
    const float *grad = ft_adapter_gradients(j->adapter)->data;
    const float *value = ft_adapter_values(j->adapter)->data;
    const int64_t all = ft_adapter_parameters(j->adapter);
    const struct ft_decoder *model = ft_model_decoder(j->model);
    const int64_t crossed = model->names.crossed ? model->mixture.count : 0;
    double largest = 0, worst = 0;
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < ft_st_count(adapter); i++) {
            const struct ft_st_entry *e = ft_st_at(adapter, i);
            if (is_base_weight(e->name) || is_frozen(e->name))
                continue;
            char key[512];
            int64_t n, m;
            snprintf(key, sizeof key, "grad.%s", e->name);
            double *want = read_values(golden, key, &n);
            double *mine = read_values(adapter, e->name, &m), off = 0;
            if (round == 0) {
                largest = fmax(largest, norm_of(want, n));
            } else {
                const struct layout l =
                    find_layout(value, all, e, mine, n,
                                strstr(e->name, ".experts.") ? crossed : 0); /* values are unique */
                CHECK(l.at >= 0);
                for (int64_t k = 0; k < n && l.at >= 0; k++) {
                    double d = (double)grad[place_in(&l, k)] / tokens - want[k];
                    off += d * d;
                }
                off = sqrt(off) / fmax(norm_of(want, n), 1e-3 * largest);
                worst = fmax(worst, off);
                if (!(off <= 2e-5))
                    check_fail(name, 0, "gradient of %s is off by %.2e", e->name, off);
            }
            ft_free(want);
            ft_free(mine);
        }
    printf(", gradients %.1e", worst);
    ft_st_close(adapter);
}

static void check_one_pass(const char *name, const struct ft_st *golden)
{
    struct setup s = {0};
    struct opened o = {0};
    int64_t n;
    setup_golden(&s, name);
    setup_add(&s, "sample_packing=true"); /* all documents in one pass */
    setup_add(&s, "test_datasets.0.path=" FT_ROOT "/tests/golden/%s/data.safetensors", name);
    if (!open_setup(&o, &s))
        return;
    check_logits(name, &o.job, golden);
    run_all(&o.job, FT_PASS);
    const double *sc = o.job.batch.scalars->data;
    double *want = read_values(golden, "loss", &n), loss = sc[FT_S_LOSS_SUM] / sc[FT_S_TRAINED];
    printf(", loss %.1e", fabs(loss - want[0]) / want[0]);
    CHECK_NEAR(loss, want[0], 1e-6 * want[0]);
    check_gradients(name, &o.job, golden, sc[FT_S_TRAINED]);
    ft_free(want);
    close_setup(&o);
}

static void check_change(const char *name, const char *folder, const struct ft_st *golden)
{
    char path[512];
    struct ft_st *before = open_golden(name, trained_file(name)), *after = NULL;
    double off = 0, change = 0;
    snprintf(path, sizeof path, "%s/%s", folder, trained_file(name));
    if (ft_st_open(&after, path))
        check_fail(name, 0, "%s", ft_status_report());
    int expected = ft_st_count(before);
    for (int i = 0; i < ft_st_count(before); i++)
        expected -= is_base_weight(ft_st_at(before, i)->name);
    CHECK_INT(ft_st_count(after), expected);
    for (int i = 0; i < ft_st_count(before); i++) {
        const char *tensor = ft_st_at(before, i)->name;
        if (is_frozen(tensor))
            check_unchanged(before, after, tensor);
        if (is_base_weight(tensor) || is_frozen(tensor))
            continue;
        char key[512];
        int64_t n;
        snprintf(key, sizeof key, "after.%s", tensor);
        double *was = read_values(before, tensor, &n), *want = read_values(golden, key, &n);
        double *got = read_values(after, tensor, &n);
        snprintf(key, sizeof key, "grad.%s", tensor);
        double *grad = read_values(golden, key, &n), largest = 0;
        for (int64_t k = 0; k < n; k++)
            largest = fmax(largest, fabs(grad[k]));
        for (int64_t k = 0; got && k < n; k++) {
            /* where the gradient is rounding and nothing else (a key's bias), AdamW makes whole
             * steps of it */
            if (fabs(grad[k]) < 1e-6 * largest)
                continue;
            off += (got[k] - want[k]) * (got[k] - want[k]);
            change += (want[k] - was[k]) * (want[k] - was[k]);
        }
        ft_free(was);
        ft_free(want);
        ft_free(got);
        ft_free(grad);
    }
    printf(", change %.1e\n", sqrt(off / change));
    CHECK(sqrt(off / change) <= 5e-4);
    ft_st_close(before);
    ft_st_close(after);
}

static void check_trajectory(const char *name, const struct ft_st *golden)
{
    struct setup s = {0};
    struct ft_train_result r;
    char folder[256];
    double losses[32];
    int64_t n;
    setup_golden(&s, name);
    if (!train_setup(&s, folder, &r))
        return;
    double *want = read_values(golden, "losses", &n);
    CHECK_INT(read_losses(folder, losses, 32), n);
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(losses[i], want[i], 1e-5 * want[i]);
    check_change(name, folder, golden);
    ft_free(want);
    remove_folder(folder);
}

CASE(tiny_models_match_transformers_and_peft)
{
    char names[MAX_CASES][64];
    int n = golden_cases(names);
    CHECK(n >= 15);
    for (int i = 0; i < n; i++) {
        struct ft_st *golden = open_golden(names[i], "golden.safetensors");
        printf("  %-18s", names[i]);
        check_one_pass(names[i], golden);
        check_trajectory(names[i], golden);
        ft_st_close(golden);
    }
}

/* The case's adapter merged, and all weights written in f32; false: it cannot be merged. */
static bool merge_case(const char *name, const char *to)
{
    struct setup s = {0};
    struct ft_config c;
    struct ft_merge m = {.whole = true, .dtype = FT_F32};
    setup_golden(&s, name);
    int rc = ft_config_read(&c, NULL, s.list, s.n);
    if (!rc)
        rc = ft_merge_add(&m, &c, 1, true);
    const bool refused = rc == FT_EDATA;
    if (!rc)
        rc = ft_merge_write(&m, to, false);
    if (rc && !refused && !strstr(ft_status_report(), "also sees"))
        check_fail(name, rc, "%s", ft_status_report());
    ft_status_clear();
    ft_merge_close(&m);
    ft_config_fini(&c);
    return rc == FT_OK;
}

/* A model in a folder gives the case's logits. */
static void check_plain_logits(const char *name, const char *model)
{
    struct setup s = {0};
    struct opened o = {0};
    setup_add(&s, "base_model=%s", model);
    setup_add(&s, "device=cpu");
    setup_add(&s, "adapter=lora");
    setup_add(&s, "output_dir=unused");
    setup_add(&s, "sample_packing=true");
    setup_add(&s, "curriculum_sampling=true");
    setup_add(&s, "datasets.0.path=" FT_ROOT "/tests/golden/%s/data.safetensors", name);
    setup_add(&s, "test_datasets.0.path=" FT_ROOT "/tests/golden/%s/data.safetensors", name);
    struct ft_st *golden = open_golden(name, "golden.safetensors");
    if (open_setup(&o, &s)) {
        check_logits(name, &o.job, golden);
        close_setup(&o);
    }
    ft_st_close(golden);
}

/* Quantised bases and GGUF files too: a folder of transformers' that gives the adapter's logits. */
CASE(merged_in_f32_they_are_models_without_an_adapter)
{
    char names[MAX_CASES][64], folder[256];
    const int n = golden_cases(names);
    int merged = 0;
    for (int i = 0; i < n; i++) {
        char to[300];
        if (golden_is_full(names[i]))
            continue;
        make_folder(folder);
        snprintf(to, sizeof to, "%s/merged", folder);
        if (merge_case(names[i], to)) {
            printf("  %-18s", names[i]);
            check_plain_logits(names[i], to);
            printf("\n");
            merged++;
        }
        remove_folder(folder);
    }
    printf("  %d of %d cases can be merged\n", merged, n);
    CHECK(merged >= 60);
}

/* s B A of a module of the adapter that was written, into out (out x in), which is zeroed. */
static void written_product(const struct ft_st *f, const char *module, double scale, double *out,
                            int64_t n)
{
    char name[512];
    int64_t na, nb;
    snprintf(name, sizeof name, "%s.lora_A.weight", module);
    const struct ft_st_entry *e = ft_st_find(f, name);
    double *a = read_values(f, name, &na);
    snprintf(name, sizeof name, "%s.lora_B.weight", module);
    double *b = read_values(f, name, &nb);
    if (!a || !b)
        return;
    const int64_t r = e->dims[0], in = e->dims[1], rows = nb / r;
    CHECK_INT(rows * in, n);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < r; k++)
            for (int64_t c = 0; c < in; c++)
                out[i * in + c] += scale * b[i * r + k] * a[k * in + c];
    ft_free(a);
    ft_free(b);
}

static double scale_of(const struct ft_config *c, const char *module)
{
    const double r = strstr(module, "q_proj") && c->lora_rank_pattern ? 2 : (double)c->lora_r;
    return c->lora_alpha / (c->peft_use_rslora ? sqrt(r) : r);
}

/* The case has no adapter to go on from: ft begins one as PEFT did, and writes plain LoRA. */
static void check_start(const char *name)
{
    struct setup s = {0};
    struct ft_train_result r;
    struct ft_config c;
    char folder[256], path[512];
    struct ft_st *start = open_golden(name, "start.safetensors"), *after = NULL;
    double losses[32], off = 0, change = 0;
    int64_t n;
    setup_golden(&s, name);
    CHECK_INT(ft_config_read(&c, NULL, s.list, s.n), 0);
    if (!train_setup(&s, folder, &r))
        return;
    double *want = read_values(start, "losses", &n);
    CHECK_INT(read_losses(folder, losses, 32), n);
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(losses[i], want[i], 1e-5 * want[i]);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    if (ft_st_open(&after, path))
        check_fail(name, 0, "%s", ft_status_report());
    for (int i = 0; i < ft_st_count(start); i++) {
        const char *tensor = ft_st_at(start, i)->name, *module = tensor + sizeof "delta." - 1;
        if (strncmp(tensor, "delta.", sizeof "delta." - 1) != 0)
            continue;
        double *delta = read_values(start, tensor, &n), *got = calloc((size_t)n, sizeof *got);
        written_product(after, module, scale_of(&c, module), got, n);
        for (int64_t k = 0; k < n; k++) {
            off += (got[k] - delta[k]) * (got[k] - delta[k]);
            change += delta[k] * delta[k];
        }
        ft_free(delta);
        free(got);
    }
    printf("  %-18s change %.1e\n", name, sqrt(off / change));
    CHECK(change > 0 && sqrt(off / change) <= 5e-4);
    ft_free(want);
    ft_st_close(start);
    ft_st_close(after);
    ft_config_fini(&c);
    remove_folder(folder);
}

CASE(adapters_begin_as_in_peft)
{
    check_start("pissa");
    check_start("pissa-nf4");
    check_start("olora-awq");
    check_start("olora");
    check_start("phi3-pissa");
    check_start("gpt2-pissa");
}

/* The case's weights or adapter with more tensors, in a folder of its own. */
static void copy_with(const char *name, const char *file, const char *config,
                      const struct ft_st_item *more, int n_more, char folder[256])
{
    static const char *const meta[][2] = {{"format", "pt"}};
    struct ft_st *f = open_golden(name, file);
    struct ft_st_item items[128];
    char path[1024], *data[128];
    const int n = ft_st_count(f);
    make_folder(folder);
    FT_ASSERT(n + n_more < 128);
    for (int i = 0; i < n; i++) {
        const struct ft_st_entry *e = ft_st_at(f, i);
        data[i] = malloc((size_t)(e->end - e->begin));
        FT_ASSERT(data[i] && ft_st_read(f, e, 0, (size_t)(e->end - e->begin), data[i]) == FT_OK);
        items[i] = (struct ft_st_item){
            .name = e->name, .dtype = e->dtype, .n_dims = e->n_dims, .data = data[i]};
        memcpy(items[i].dims, e->dims, sizeof items[i].dims);
    }
    memcpy(items + n, more, (size_t)n_more * sizeof *more);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    CHECK_INT(ft_st_write(path, items, n + n_more, meta, 1), 0);
    for (int i = 0; i < n; i++)
        free(data[i]);
    ft_st_close(f);
    snprintf(path, sizeof path, "cp " FT_ROOT "/tests/golden/%s/%s %s", name, config, folder);
    CHECK_INT(system(path), 0);
}

CASE(an_adapter_of_the_tower_is_carried_along)
{
    struct setup s = {0};
    struct ft_train_result r;
    struct ft_st *before = NULL, *after = NULL;
    char from[256], folder[256], path[512];
    float values[192];
    int same = 0;
    for (int i = 0; i < 192; i++)
        values[i] = (float)i;
    const struct ft_st_item tower[] = {
        {.name = "base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight",
         .dtype = FT_F32,
         .n_dims = 2,
         .dims = {4, 16},
         .data = values},
        {.name = "base_model.model.model.visual.blocks.0.attn.qkv.lora_B.weight",
         .dtype = FT_F32,
         .n_dims = 2,
         .dims = {48, 4},
         .data = values}};
    copy_with("qwen3-vl", "adapter_model.safetensors", "adapter_config.json", tower, 2, from);
    setup_golden(&s, "qwen3-vl");
    setup_add(&s, "lora_model_dir=%s", from);
    if (!train_setup(&s, folder, &r))
        return;
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", from);
    CHECK_INT(ft_st_open(&before, path), 0);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    CHECK_INT(ft_st_open(&after, path), 0);
    CHECK_INT(ft_st_count(after), ft_st_count(before));
    for (int i = 0; i < ft_st_count(before); i++) {
        const char *tensor = ft_st_at(before, i)->name;
        if (!strstr(tensor, "visual"))
            continue;
        check_unchanged(before, after, tensor);
        same++;
    }
    CHECK_INT(same, 2);
    ft_st_close(before);
    ft_st_close(after);
    remove_folder(from);
    remove_folder(folder);
}

/* Files that have a tied head's tensor too: it stays the embedding, or transformers would read two.
 */
CASE(the_copy_of_a_tied_head_is_saved_with_the_embedding)
{
    struct setup s = {0};
    struct ft_train_result r;
    struct ft_st *f = open_golden("full-tied", "model.safetensors"), *after = NULL;
    const struct ft_st_entry *e = ft_st_find(f, "model.embed_tokens.weight");
    const size_t bytes = (size_t)(e->end - e->begin);
    char from[256], folder[256], path[512], *was = malloc(bytes), *now[2];
    FT_ASSERT(was && ft_st_read(f, e, 0, bytes, was) == FT_OK);
    struct ft_st_item head = {
        .name = "lm_head.weight", .dtype = e->dtype, .n_dims = 2, .data = was};
    memcpy(head.dims, e->dims, sizeof head.dims);
    copy_with("full-tied", "model.safetensors", "config.json", &head, 1, from);
    setup_golden(&s, "full-tied");
    setup_add(&s, "base_model=%s", from);
    if (!train_setup(&s, folder, &r))
        return;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    CHECK_INT(ft_st_open(&after, path), 0);
    for (int i = 0; i < 2; i++) {
        now[i] = malloc(bytes);
        e = ft_st_find(after, i ? "lm_head.weight" : "model.embed_tokens.weight");
        FT_ASSERT(now[i] && ft_st_read(after, e, 0, bytes, now[i]) == FT_OK);
    }
    CHECK(memcmp(now[0], now[1], bytes) == 0 && memcmp(now[0], was, bytes) != 0);
    free(now[0]);
    free(now[1]);
    free(was);
    ft_st_close(f);
    ft_st_close(after);
    remove_folder(from);
    remove_folder(folder);
}
