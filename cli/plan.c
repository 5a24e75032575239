/* ft plan */
#include "cli/cli.h"

#include "track/track.h"
#include "train/job.h"

#include <math.h>
#include <string.h>

static void line(const char *label, const char *value)
{
    printf("  %-26s %s\n", label, value);
}

static void count(const char *label, double n)
{
    char text[64];
    snprintf(text, sizeof text, "%.0f", n);
    line(label, text);
}

/* Of a mixture of experts; a token's share of their rows is the same for all on average. */
static void print_experts(const struct ft_job *j)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const struct ft_mixture *m = &d->mixture;
    const double share = m->count ? (double)m->each / (double)m->count : 0;
    int64_t layers = 0;
    char text[128];
    if (!m->count)
        return;
    for (int64_t i = 0; i < d->layers; i++)
        layers += d->layer[i].experts;
    count("active parameters", (double)ft_model_active(j->model));
    snprintf(text, sizeof text, "%lld, %lld a token, in %lld of %lld layers", (long long)m->count,
             (long long)m->each, (long long)layers, (long long)d->layers);
    line("experts", text);
    snprintf(text, sizeof text, "%.1f a pass, if they are evenly chosen",
             share * fmin((double)j->capacity, j->length.tokens_per_step));
    line("rows an expert", text);
}

static void print_run(const struct ft_job *j)
{
    const struct ft_run_length *l = &j->length;
    const struct ft_dataset *d = &j->train;
    char text[128];
    int64_t tokens = 0;
    for (int64_t i = 0; i < d->n_docs; i++)
        tokens += d->docs[i].length;
    printf("model\n");
    line("architecture", ft_model_architecture(j->model));
    count("parameters", (double)ft_model_parameters(j->model));
    print_experts(j);
    snprintf(text, sizeof text, "%lld (%.3f %%) on %d modules",
             (long long)ft_adapter_parameters(j->adapter),
             100.0 * (double)ft_adapter_parameters(j->adapter) /
                 (double)ft_model_parameters(j->model),
             ft_adapter_modules(j->adapter));
    line("trained parameters", text);
    printf("data\n");
    count("documents", (double)d->n_docs);
    count("tokens", (double)tokens);
    snprintf(text, sizeof text, "%lld (%.1f %%)", (long long)d->trained_tokens,
             100.0 * (double)d->trained_tokens / (double)tokens);
    line("trained tokens", text);
    count("longest document", (double)d->longest);
    if (j->held.n_docs)
        count("evaluation documents", (double)j->held.n_docs);
    if (l->packing_efficiency > 0) {
        snprintf(text, sizeof text, "%.1f %%", 100 * l->packing_efficiency);
        line("packing efficiency", text);
    }
    printf("run\n");
    count("steps", (double)l->steps);
    snprintf(text, sizeof text, "%lld", (long long)l->warmup_steps);
    line("warmup steps", text);
    snprintf(text, sizeof text, "%.3g", l->epochs);
    line("epochs", text);
    snprintf(text, sizeof text, "%.1f", l->docs_per_step);
    line("documents a step", text);
    snprintf(text, sizeof text, "%.1f", l->tokens_per_step);
    line("tokens a step", text);
    count("rows a pass", (double)j->capacity);
}

static void print_memory(const struct ft_job *j)
{
    char text[32];
    struct ft_plan_line peak[6];
    printf(j->backend->dev ? "memory on the GPU\n" : "memory\n");
    for (int i = 0; i < FT_MEMORY_COUNT; i++)
        if (j->plan.used[i])
            line(ft_memory_labels[i], ft_bytes_text(text, (double)j->plan.used[i]));
    line("kept for backward", ft_recompute_labels[j->recompute]);
    if (j->backend->dev) {
        size_t have = 0, all = 0;
        line("total", ft_bytes_text(text, (double)ft_job_device_memory(j)));
        if (j->backend->dev->memory(j->backend, &have, &all) == 0)
            line("free there", ft_bytes_text(text, (double)have));
    }
    if (j->backend->dev)
        printf("memory here\n");
    line("datasets and their order",
         ft_bytes_text(text, (double)(j->dataset_bytes + j->epoch_bytes)));
    if (j->backend->dev)
        line("copies to the GPU", ft_bytes_text(text, (double)ft_job_staging(j)));
    line("threads", ft_bytes_text(text, (double)ft_pool_size(j->pool) * FT_THREAD_SCRATCH));
    line("program and libraries", ft_bytes_text(text, (double)j->library_bytes));
    line("total", ft_bytes_text(text, (double)ft_job_memory(j)));
    line("available here", ft_bytes_text(text, (double)ft_memory_available()));
    int n = ft_graph_peak_lines(j->graph, peak, 6);
    printf("  largest at the peak:\n");
    for (int i = 0; i < n; i++)
        printf("    %-40s %s\n", peak[i].name, ft_bytes_text(text, (double)peak[i].bytes));
}

/* What the memory would be with the base's weights at other precisions. */
static void print_choices(const struct ft_job *j)
{
    static const struct {
        const char *label;
        struct ft_quantisation q;
    } all[] = {{"as stored", {.bits = 0}},
               {"load_in_8bit (int8)", {.bits = 8}},
               {"load_in_4bit (NF4)", {.bits = 4, .nested = true}},
               {"and quantize_moe_experts", {.bits = 4, .nested = true, .experts = true}}};
    const struct ft_config *c = j->config;
    const bool device = j->backend->dev != NULL;
    const struct ft_quantisation is = {.bits = c->load_in_4bit   ? 4
                                               : c->load_in_8bit ? 8
                                                                 : 0,
                                       .nested = c->bnb.nested,
                                       .experts = c->quantize_moe_experts};
    const int n = ft_model_decoder(j->model)->mixture.count ? 4 : 3;
    const size_t now = ft_model_bytes_as(j->model, &is, device);
    const size_t total = device ? ft_job_device_memory(j) : ft_job_memory(j);
    char text[32];
    if (!now || strcmp(c->adapter, "full") == 0)
        return;
    printf("  in all, by the base's weights:\n");
    for (int i = 0; i < n; i++)
        printf("    %-40s %s%s\n", all[i].label,
               ft_bytes_text(
                   text, (double)(total - now + ft_model_bytes_as(j->model, &all[i].q, device))),
               all[i].q.bits == is.bits && all[i].q.experts == is.experts ? ", as planned" : "");
}

/* Rounded up generously: a job that is killed for a minute or a megabyte is worth nothing. */
struct ft_slurm_needs ft_slurm_needs(const struct ft_job *j, double seconds)
{
    return (struct ft_slurm_needs){
        j->backend->dev != NULL,
        ft_pool_size(j->pool),
        (long)ceil((double)ft_job_memory(j) * 1.1 / 1048576) + 64,
        (long)ceil((seconds * 1.5 + 120) / 60),
    };
}

void ft_print_slurm(FILE *out, const char *indent, const struct ft_slurm_needs *needs)
{
    if (needs->gpu)
        fprintf(out, "%s#SBATCH --gres=gpu:1\n", indent);
    fprintf(out, "%s#SBATCH --cpus-per-task=%d\n", indent, needs->processors);
    fprintf(out, "%s#SBATCH --mem=%ldM\n", indent, needs->megabytes);
    fprintf(out, "%s#SBATCH --time=%02ld:%02ld:00\n", indent, needs->minutes / 60,
            needs->minutes % 60);
}

/* Memory is near to the processors of its own node: a rank each reads its own copy of the weights.
 */
static void print_nodes(const struct ft_job *j, int nodes)
{
    if (j->backend->dev || nodes < 2)
        return;
    printf("%d memory nodes here: a rank each is faster than threads over all of them\n", nodes);
    printf("  mpirun -np %d --map-by numa --bind-to numa ft train ...\n", nodes);
}

static void print_json(const struct ft_job *j, const struct ft_rates *r, double seconds)
{
    const struct ft_run_length *l = &j->length;
    printf("{\"parameters\": %lld, \"active_parameters\": %lld, \"trained_parameters\": %lld, "
           "\"documents\": %lld, "
           "\"trained_tokens\": %lld, \"steps\": %lld, \"warmup_steps\": %lld, "
           "\"documents_per_step\": %.6g, \"tokens_per_step\": %.6g, \"packing_efficiency\": %.6g, "
           "\"rows\": %lld, \"memory_bytes\": %zu, \"device_memory_bytes\": %zu, \"kept\": \"%s\", "
           "\"seconds\": %.6g, \"flops\": %.6g, "
           "\"flops_per_token\": %.6g",
           (long long)ft_model_parameters(j->model), (long long)ft_model_active(j->model),
           (long long)ft_adapter_parameters(j->adapter), (long long)j->train.n_docs,
           (long long)j->train.trained_tokens, (long long)l->steps, (long long)l->warmup_steps,
           l->docs_per_step, l->tokens_per_step, l->packing_efficiency, (long long)j->capacity,
           ft_job_memory(j), ft_job_device_memory(j), ft_recompute_labels[j->recompute], seconds,
           r->flops, ft_job_flops_per_token(j));
    for (int i = 0; i < FT_MEMORY_COUNT; i++)
        printf(", \"%s\": %zu", ft_memory_labels[i], j->plan.used[i]);
    printf("}\n");
}

int ft_cmd_plan(const struct ft_command *self, int n, char **words)
{
    const bool json = ft_take_flag(&n, words, "--json");
    struct ft_config c;
    struct ft_job j = {0};
    struct ft_rates rates;
    char text[64];
    int rc = ft_read_config_words(&c, self, n, words);
    if (!rc)
        rc = ft_job_open(&j, &c, &ft_data_hooks);
    ft_print_notices();
    if (!rc)
        rc = ft_rates_measure(&rates, &j);
    if (!rc) {
        double seconds = ft_job_seconds(&j, &rates);
        if (json) {
            print_json(&j, &rates, seconds);
        } else {
            print_run(&j);
            print_memory(&j);
            print_choices(&j);
            printf("time\n");
            snprintf(text, sizeof text, "%.0f GFLOP/s in products, %.1f GB/s elsewhere",
                     rates.flops * 1e-9, rates.bytes * 1e-9);
            line("measured here", text);
            char time[32];
            snprintf(text, sizeof text, "about %s", ft_duration_text(time, seconds));
            line("the run", text);
            const struct ft_slurm_needs needs = ft_slurm_needs(&j, seconds);
            printf("for a Slurm job, at this machine's speed\n");
            ft_print_slurm(stdout, "  ", &needs);
            print_nodes(&j, ft_numa_nodes(FT_NUMA_ROOT));
        }
    }
    ft_job_close(&j);
    ft_config_fini(&c);
    return rc;
}
