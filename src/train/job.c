/* Opens a job: backend, model, adapter, data, the length of the run, the graph and its memory. */
#include "train/internal.h"

#include "core/mem.h"
#include "core/text.h"
#include "io/tokenizer_check.h"
#include "train/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether this machine has an NVIDIA GPU, or was told of one: else nobody expects it to be used. */
static bool has_gpu(void)
{
    return getenv("FT_CUDA_LIBRARY") || access("/dev/nvidiactl", F_OK) == 0 ||
           access("/dev/dxg", F_OK) == 0; /* of WSL */
}

/* The CPU, with bf16 products where the config wants them and they are faster. */
static int open_cpu(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    FT_TRY(ft_cpu_backend(&j->backend, c->cpu_isa, c->bf16 == FT_TRUE || c->bf16 == FT_AUTO));
    if (c->bf16 == FT_TRUE && j->backend->products != FT_BF16)
        ft_notice(ft_config_where(c, "bf16"),
                  "'bf16: true': %s has no units for bf16 products that are faster than fp32's "
                  "(AMX, AMD's AVX-512-BF16, ARM's BF16): products are computed in fp32",
                  strcmp(c->cpu_isa, "auto") == 0 ? "this processor" : "what 'cpu_isa' names");
    return FT_OK;
}

/* The device that the config asks for. "auto" takes the GPU if one can be opened. */
static int open_backend(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    if (c->device == FT_DEVICE_CPU)
        return open_cpu(j);
    if (c->device == FT_DEVICE_AUTO && c->bf16 == FT_FALSE) {
        if (has_gpu())
            ft_notice((struct ft_where){0},
                      "'device: auto' took the CPU: 'bf16' is false, and a GPU "
                      "computes in bf16");
        return open_cpu(j);
    }
    if (ft_cuda_backend(&j->backend, j->world ? ft_world_place(j->world) : -1) == FT_OK) {
        j->backend->dev->products_load(j->backend, ft_cuda_products_file(), &j->tuned_products);
        if (c->device == FT_DEVICE_AUTO)
            ft_notice((struct ft_where){0}, "'device: auto' took %s", j->backend->dev->name);
        return FT_OK;
    }
    if (c->device == FT_DEVICE_CUDA)
        return FT_ERESOURCE;
    const char *why = ft_status_report(); /* its first line, without "error: " */
    const size_t skip = sizeof "error: " - 1;
    if (has_gpu())
        ft_notice((struct ft_where){0}, "'device: auto' took the CPU: %.*s",
                  (int)(strcspn(why, "\n") - skip), why + skip);
    ft_status_clear_errors();
    return open_cpu(j);
}

static int open_pool(struct ft_job *j)
{
    int threads;
    FT_TRY(ft_world_threads(j->world, ft_cpu_allowance(ft_world_here(j->world)), &threads));
    return ft_pool_new(&j->pool, j->config->threads > 0 ? (int)j->config->threads : threads);
}

/* What the config asks for; a folder may be quantised already. */
static int quantise(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    const struct ft_quantisation q = {.bits = c->load_in_4bit   ? 4
                                              : c->load_in_8bit ? 8
                                                                : 0,
                                      .fp4 = c->bnb.fp4,
                                      .nested = c->bnb.nested,
                                      .experts = c->quantize_moe_experts,
                                      .skip = (const char *const *)c->bnb.skip};
    const bool already = ft_model_is_quantised(j->model);
    FT_TRY(ft_model_quantise(j->model, &q));
    if (!already && q.bits && !q.experts && ft_model_decoder(j->model)->mixture.count)
        ft_notice(ft_config_where(c, q.bits == 4 ? "load_in_4bit" : "load_in_8bit"),
                  "the experts keep 16 bits, as in bitsandbytes: 'quantize_moe_experts: true' "
                  "quantises them too");
    if (already && c->bnb_config_kwargs)
        ft_notice(ft_config_where(c, "bnb_config_kwargs"),
                  "'bnb_config_kwargs' changes nothing here: the model's weights are quantised "
                  "already");
    if (!ft_model_is_quantised(j->model) && strcmp(c->adapter, "qlora") == 0) {
        ft_fail_at(ft_config_where(c, "adapter"), FT_EDATA,
                   "'adapter: qlora' needs a quantised base, and the weights are not");
        ft_hint("'load_in_4bit: true' quantises them while they are loaded");
        return FT_EDATA;
    }
    if (ft_model_is_quantised(j->model) && ft_job_trains_model(j))
        return ft_fail_at((struct ft_where){.file = j->base_name}, FT_EDATA,
                          "the weights are quantised: they cannot be trained themselves");
    if (ft_model_is_gguf(j->model) && ft_job_trains_model(j))
        return ft_fail_at((struct ft_where){.file = j->base_name}, FT_ECONFIG,
                          "the weights of a .gguf file cannot be trained themselves: name the "
                          "folder that it was made from, or an adapter");
    return FT_OK;
}

/* What goes by evaluations needs some. */
static int check_evaluated(const struct ft_job *j)
{
    const struct ft_config *c = j->config;
    const char *key = c->early_stopping_patience > 0     ? "early_stopping_patience"
                      : c->load_best_model_at_end        ? "load_best_model_at_end"
                      : c->save_strategy == FT_SAVE_BEST ? "save_strategy"
                                                         : NULL;
    if (!key || j->length.eval_every >= 0)
        return FT_OK;
    ft_fail_at(ft_config_where(c, key), FT_ECONFIG,
               "'%s' goes by evaluations, and nothing is evaluated", key);
    ft_hint("'val_set_size: 0.05' holds out a part of the data for it");
    return FT_ECONFIG;
}

/* What is left once model and data are there. */
static int open_rest(struct ft_job *j)
{
    ft_job_find_length(j);
    FT_TRY(check_evaluated(j));
    FT_TRY(ft_job_open_graph(j));
    return ft_ranks_check(j);
}

/* One key of config.json's that changes the loss alone; others would make another model of it for
 * whoever loads the adapter. */
static int override_key(const struct ft_yaml *e, bool *balanced, double *rate)
{
    json_t *v = ft_value_json(e);
    int rc = FT_OK;
    if (strcmp(e->key, "output_router_logits") == 0) {
        *balanced = json_is_true(v);
        if (!json_is_boolean(v))
            rc = ft_fail_at(e->at, FT_ECONFIG, "'%s' is true or false", e->key);
    } else if (strcmp(e->key, "router_aux_loss_coef") == 0) {
        *rate = json_number_value(v);
        if (!json_is_number(v) || *rate < 0)
            rc = ft_fail_at(e->at, FT_ECONFIG, "'%s' is a number that is not negative", e->key);
    } else {
        rc = ft_fail_at(e->key_at, FT_ECONFIG, "'%s' of config.json would be another model's",
                        e->key);
        ft_hint("output_router_logits and router_aux_loss_coef can be overridden; for others "
                "change config.json in the model's folder");
    }
    json_decref(v);
    return rc;
}

static int override_config(struct ft_job *j)
{
    const struct ft_yaml *all = j->config->overrides_of_model_config;
    const struct ft_mixture *m = &ft_model_decoder(j->model)->mixture;
    bool balanced = m->balanced;
    double rate = m->balance_rate;
    for (const struct ft_yaml *e = all ? all->first : NULL; e; e = e->next)
        FT_TRY(override_key(e, &balanced, &rate));
    const bool asked = balanced || rate != m->balance_rate;
    if (!ft_model_balance(j->model, balanced, rate) && asked)
        return ft_fail_at(ft_config_where(j->config, "overrides_of_model_config"), FT_ECONFIG,
                          "the loss of '%s' has no part for even routing",
                          ft_model_architecture(j->model));
    if (asked && !balanced)
        ft_notice(ft_config_where(j->config, "overrides_of_model_config"),
                  "'router_aux_loss_coef' changes nothing where 'output_router_logits' is false");
    return FT_OK;
}

/* The config's model, and its adapter. */
static int open_model(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    bool cached;
    FT_TRY(ft_base_find(&j->model_path, &cached, &j->origin, c->base_model, c->revision_of_model,
                        c->folder));
    const bool file = ft_ends_with(c->base_model, ".gguf");
    j->base_name = c->base_model_name ? c->base_model_name
                   : j->origin        ? j->origin
                   : cached || file   ? c->base_model
                                      : j->model_path;
    if (file && !j->origin && !c->base_model_name && !j->serving)
        ft_notice(ft_config_where(c, "base_model"),
                  "the file does not say which model it was made from: the adapter names the file; "
                  "'base_model_name' gives PEFT the model's folder or id in its place");
    FT_TRY(ft_model_open(&j->model, j->model_path));
    FT_TRY(override_config(j));
    FT_TRY(quantise(j));
    FT_TRY(ft_tokenizer_check(j->model_path, ft_model_decoder(j->model)->vocab));
    FT_TRY(ft_new_tokens_open(j));
    FT_TRY(ft_job_open_adapter(j));
    return ft_new_tokens_check(j);
}

int ft_job_open(struct ft_job *j, const struct ft_config *c, const struct ft_job_hooks *hooks)
{
    *j = (struct ft_job){.config = c, .world = hooks ? hooks->world : NULL};
    FT_TRY(open_backend(j));
    FT_TRY(open_model(j));
    FT_TRY(open_pool(j));
    FT_TRY(ft_job_open_data(j, hooks));
    return open_rest(j);
}

int ft_job_open_model(struct ft_job *j, const struct ft_config *c, struct ft_serving *s)
{
    *j = (struct ft_job){.config = c, .serving = s};
    FT_TRY(open_backend(j));
    FT_TRY(open_model(j));
    return open_pool(j);
}

int ft_job_open_serving(struct ft_job *j, const struct ft_config *c, struct ft_serving *s,
                        int64_t rows)
{
    FT_TRY(ft_job_open_model(j, c, s));
    const struct ft_decoder *d = ft_model_decoder(j->model);
    if (d->positions && s->context > d->positions - d->first_position)
        return ft_fail_at((struct ft_where){.file = j->model_path}, FT_EDATA,
                          "has %lld positions, and a text with its answer has %lld tokens",
                          (long long)(d->positions - d->first_position), (long long)s->context);
    j->capacity = rows;
    return ft_job_open_serving_graph(j);
}

int ft_job_open_shape(struct ft_job *j, const struct ft_config *c, const struct ft_shape *shape)
{
    *j = (struct ft_job){.config = c, .base_name = shape->name};
    FT_TRY(open_backend(j));
    FT_TRY(ft_model_make(&j->model, shape));
    FT_TRY(quantise(j));
    FT_TRY(ft_job_open_adapter(j));
    int64_t docs = 4 * c->micro_batch_size * c->gradient_accumulation_steps;
    FT_TRY(ft_dataset_make(&j->train, docs, c->sequence_len, shape->vocab, (uint64_t)c->seed));
    ft_job_set_batching(j);
    FT_TRY(ft_job_open_batching(j));
    FT_TRY(open_pool(j));
    return open_rest(j);
}

void ft_job_close(struct ft_job *j)
{
    ft_graph_free(j->graph);
    ft_pool_free(j->pool);
    ft_epoch_fini(&j->epoch);
    ft_dataset_fini(&j->held);
    ft_dataset_fini(&j->train);
    for (int i = 0; i < j->n_data; i++) {
        for (char **file = j->data[i].files; file && *file; file++)
            ft_free(*file);
        ft_free(j->data[i].files);
    }
    ft_free(j->data);
    ft_served_free(&j->served);
    ft_adapter_free(j->adapter);
    ft_wholes_free(j);
    ft_token_rows_free(j);
    json_decref(j->continued);
    ft_model_close(j->model);
    ft_backend_close(j->backend);
    ft_free(j->states);
    ft_free(j->model_path);
    ft_free(j->origin);
    *j = (struct ft_job){0};
}
