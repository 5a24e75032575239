/* ft bench */
#include "cli/cli.h"

#include "train/bench.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_WORDS = 64 };

static void list_shapes_json(void)
{
    for (int i = 0; i < ft_shape_count; i++) {
        const struct ft_shape *c = &ft_shapes[i];
        printf("%s\"%s\": {\"architecture\": \"%s\", \"vocab_size\": %lld, \"hidden_size\": %lld, "
               "\"num_hidden_layers\": %lld, "
               "\"num_attention_heads\": %lld, \"num_key_value_heads\": %lld, \"head_dim\": %lld, "
               "\"intermediate_size\": %lld, \"tie_word_embeddings\": %s, \"attention_bias\": %s, "
               "\"rope_theta\": %.0f, \"rms_norm_eps\": 1e-05, \"max_position_embeddings\": %lld, "
               "\"rows\": %lld}",
               i ? ",\n " : "{", c->name, c->architecture, (long long)c->vocab,
               (long long)c->hidden, (long long)c->layers, (long long)c->heads,
               (long long)c->kv_heads, (long long)c->head_dim, (long long)c->ffn,
               c->tied ? "true" : "false", strstr(c->architecture, "Qwen2") ? "true" : "false",
               c->theta, 1LL << 17, (long long)ft_shapes[i].rows);
    }
    printf("}\n");
}

static int list_shapes(bool json)
{
    if (json) {
        list_shapes_json();
        return FT_OK;
    }
    printf("%-14s %8s %7s %6s %6s %9s %6s\n", "shape", "hidden", "layers", "heads", "ffn", "vocab",
           "rows");
    for (int i = 0; i < ft_shape_count; i++) {
        const struct ft_shape *c = &ft_shapes[i];
        printf("%-14s %8lld %7lld %3lld/%-3lld %6lld %9lld %6lld\n", ft_shapes[i].name,
               (long long)c->hidden, (long long)c->layers, (long long)c->heads,
               (long long)c->kv_heads, (long long)c->ffn, (long long)c->vocab,
               (long long)ft_shapes[i].rows);
    }
    return FT_OK;
}

/* Whether the job will run on a GPU: it has its own sizes. */
static bool wants_gpu(int n, char **words)
{
    const struct ft_backend *b;
    for (int i = 0; i < n; i++)
        if (strcmp(words[i], "device=cpu") == 0)
            return false;
    bool there = ft_cuda_backend(&b, -1) == FT_OK;
    ft_status_clear_errors();
    ft_backend_close(b);
    return there;
}

/* The config of a shape's benchmark: all linear modules, rank 16, what the command line adds. */
static int shape_config(struct ft_config *c, const struct ft_shape *shape, int64_t rows, int n,
                        char **words)
{
    char micro[48], length[48];
    const char *list[MOST_WORDS + 16];
    const bool gpu = wants_gpu(n, words);
    int64_t seq = gpu ? 2048 : 256;
    int at = 0;
    if (rows <= 0)
        rows = gpu ? shape->rows : 1024;
    if (seq > rows)
        seq = rows;
    for (int i = 0; i < n; i++)
        if (strncmp(words[i], "sequence_len=", 13) == 0)
            seq = atoll(words[i] + 13) > 0 ? atoll(words[i] + 13) : seq;
    snprintf(micro, sizeof micro, "micro_batch_size=%lld",
             (long long)(rows / seq > 0 ? rows / seq : 1));
    snprintf(length, sizeof length, "sequence_len=%lld", (long long)seq);
    list[at++] = "base_model=shape";
    list[at++] = "datasets.0.path=random";
    list[at++] = "datasets.0.type=tokenized";
    list[at++] = "output_dir=unused";
    list[at++] = "lora_target_linear=true";
    list[at++] = micro;
    list[at++] = length;
    for (int i = 0; i < n && i < MOST_WORDS; i++)
        list[at++] = words[i];
    return ft_config_read(c, NULL, list, at);
}

static void print_result(const struct ft_job *j, const struct ft_bench_result *r, bool tuned)
{
    char a[32], b[32];
    printf("%-22s %.0f tok/s (best step %.0f), %lld steps of %lld rows in %.2f s\n", "speed",
           r->tokens_per_second, r->best_tokens_per_second, (long long)r->steps, (long long)r->rows,
           r->seconds);
    printf("%-22s %.2f TFLOP/s useful, %.1f %% of the %.2f measured here\n", "rate",
           r->flops_per_token * r->tokens_per_second * 1e-12, 100 * r->share,
           r->matrix_rate * 1e-12);
    printf("%-22s %s planned, %s taken; %s\n", "memory", ft_bytes_text(a, (double)r->planned_bytes),
           ft_bytes_text(b, (double)r->taken_bytes), ft_recompute_labels[j->recompute]);
    if (j->tuned_products && !tuned)
        printf("%-22s %d tuned ones from %s\n", "products", j->tuned_products,
               ft_cuda_products_file());
    printf("%-22s %.2f s for the weights; loss %.4f\n", "start", r->load_seconds, r->loss);
}

static void print_json(const struct ft_job *j, const struct ft_bench_result *r)
{
    printf("{\"model\": \"%s\", \"device\": \"%s\", \"isa\": \"%s\", \"rows\": %lld, \"steps\": "
           "%lld, \"tokens_per_second\": %.6g, \"best_tokens_per_second\": %.6g, "
           "\"flops_per_token\": %.6g, \"matrix_flops\": %.6g, \"share\": %.4g, "
           "\"planned_bytes\": %zu, \"taken_bytes\": %zu, \"kept\": \"%s\", \"loss\": %.6g}\n",
           j->base_name, j->backend->dev ? j->backend->dev->name : "cpu", j->backend->isa,
           (long long)r->rows, (long long)r->steps, r->tokens_per_second, r->best_tokens_per_second,
           r->flops_per_token, r->matrix_rate, r->share, r->planned_bytes, r->taken_bytes,
           ft_recompute_labels[j->recompute], r->loss);
}

int ft_cmd_bench(const struct ft_command *self, int n, char **words)
{
    const bool json = ft_take_flag(&n, words, "--json"), list = ft_take_flag(&n, words, "--list");
    struct ft_bench_options o = {.steps = 5, .seconds = 3};
    struct ft_bench_result r;
    struct ft_config c = {0};
    struct ft_job j = {0};
    int64_t rows = 0;
    o.profile = ft_take_flag(&n, words, "--profile");
    o.tune = ft_take_flag(&n, words, "--tune");
    if (list && n > 0)
        return ft_fail(FT_ECONFIG, "'--list' stands alone: '%s' is too much", words[0]);
    if (list)
        return list_shapes(json);
    FT_TRY(ft_take_number(self, &n, words, "--rows", &rows));
    FT_TRY(ft_take_number(self, &n, words, "--steps", &o.steps));
    const struct ft_shape *shape = n > 0 ? ft_shape_find(words[0]) : NULL;
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n > MOST_WORDS)
        return ft_fail(FT_ECONFIG, "%d options are more than the %d that are allowed", n,
                       MOST_WORDS);
    if (!shape && rows)
        return ft_fail(FT_ECONFIG, "'--rows' is for shapes: a config's rows are micro_batch_size "
                                   "times sequence_len");
    if (!shape && n > 0 && !strpbrk(words[0], "/.=")) {
        ft_fail(FT_ECONFIG, "'%s' is neither a shape nor a config file", words[0]);
        ft_hint("'ft bench --list' shows the shapes");
        return FT_ECONFIG;
    }
    int rc = shape ? shape_config(&c, shape, rows, n - 1, words + 1)
                   : ft_read_config_words(&c, self, n, words);
    if (!rc)
        rc = shape ? ft_job_open_shape(&j, &c, shape) : ft_job_open(&j, &c, NULL);
    ft_print_notices();
    if (!rc && !json)
        printf("%s on %s (%s)\n", j.base_name, j.backend->dev ? j.backend->dev->name : "the CPU",
               j.backend->isa);
    fflush(stdout);
    if (!rc)
        rc = ft_bench(&j, &o, &r);
    if (!rc && o.tune && !json)
        printf("%-22s timed and written to %s\n", "products", ft_cuda_products_file());
    if (!rc && json)
        print_json(&j, &r);
    else if (!rc)
        print_result(&j, &r, o.tune);
    if (!rc && o.profile)
        ft_print_profile(json ? stderr : stdout, &r.profile);
    ft_job_close(&j);
    ft_config_fini(&c);
    return rc;
}
