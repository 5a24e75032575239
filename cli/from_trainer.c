/* transformers' TrainingArguments, whose keys LLaMA-Factory's and TRL's configs share. */
#include "cli/from.h"

#include "config/options.h"
#include "core/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the schedule --- */

static const struct ft_from_choice schedules[] = {
    {"linear", "linear", NULL},
    {"cosine", "cosine", NULL},
    {"constant", "constant", NULL},
    {"constant_with_warmup", "constant_with_warmup", NULL},
    {"cosine_with_min_lr", "cosine", NULL},
    {"cosine_warmup_with_min_lr", "cosine", "there the warmup has a first rate of its own"},
    {"cosine_with_restarts", "cosine", "without restarts"},
    {"polynomial", "linear", "there a polynomial of power 1 by default"},
    {NULL, NULL, NULL}};

static int schedule(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    if (n->kind != FT_YAML_SCALAR)
        return ft_value_refuse(r->key, n, "a text");
    const struct ft_from_choice *c = ft_from_find_choice(schedules, n->text);
    const char *note = NULL;
    if (!c)
        ft_from_note(f, n, "not in ft, which takes cosine");
    else if (c->note)
        note = ft_arena_format(&f->arena, "%s: %s", c->name, c->note);
    else if (!n->at.file)
        note = ft_arena_format(&f->arena, "%s's default", f->tool->name);
    else if (strcmp(c->name, c->to) != 0)
        note = c->name;
    ft_from_put(f, r->to, c ? c->to : "cosine", note);
    return FT_OK;
}

/* A number of the config's, or the tool's default. */
static double number_or_usual(const struct ft_from *f, const char *key, double absent)
{
    for (const struct ft_from_row *r = f->tool->rows; r->key; r++)
        if (r->absent && strcmp(r->key, key) == 0)
            absent = strtod(r->absent, NULL);
    return ft_from_number(f, key, absent);
}

/* min_lr_rate is a share of learning_rate, min_lr a rate. */
static int schedule_arguments(struct ft_from *f, const struct ft_from_row *r,
                              const struct ft_yaml *n)
{
    const bool has_floor = strstr(ft_from_word(f, "lr_scheduler_type", ""), "min_lr") != NULL;
    const double peak = number_or_usual(f, "learning_rate", 5e-5);
    (void)r;
    for (const struct ft_yaml *e = n->kind == FT_YAML_MAP ? n->first : NULL; e; e = e->next) {
        double v;
        const bool share = strcmp(e->key, "min_lr_rate") == 0;
        if (ft_yaml_is_null(e))
            continue;
        if (has_floor && (share || strcmp(e->key, "min_lr") == 0) && ft_from_real_of(e, &v) &&
            (share || peak > 0))
            ft_from_put(f, "cosine_min_lr_ratio",
                        ft_arena_format(&f->arena, "%g", share ? v : v / peak),
                        share ? NULL : "min_lr / learning_rate");
        else
            ft_from_note(f, e, "ft's schedules take no such argument");
    }
    return FT_OK;
}

/* Below 1 warmup_steps is a share in transformers 5. ft takes one of the keys. */
static void put_warmup(struct ft_from *f)
{
    const double steps = ft_from_number(f, "warmup_steps", 0);
    const double ratio = ft_from_number(f, "warmup_ratio", 0);
    if (steps >= 1)
        ft_from_put(f, "warmup_steps", ft_arena_format(&f->arena, "%.0f", ceil(steps)), NULL);
    else if (steps > 0 || ratio > 0)
        ft_from_put(f, "warmup_ratio",
                    ft_arena_format(&f->arena, "%.15g", steps > 0 ? steps : ratio), NULL);
    else
        ft_from_put(f, "warmup_steps", "0", "no warmup by default");
    if (steps > 0 && ratio > 0)
        ft_from_note(f, ft_from_get(f, "warmup_ratio"), "ft takes warmup_steps");
}

/* --- how long --- */

static void put_length(struct ft_from *f)
{
    const double steps = ft_from_number(f, "max_steps", -1);
    const char *epochs = ft_from_word(f, "num_train_epochs", NULL);
    if (steps > 0)
        ft_from_put(f, "max_steps", ft_arena_format(&f->arena, "%.0f", steps), NULL);
    else
        ft_from_put(f, "num_epochs",
                    ft_arena_format(&f->arena, "%g", ft_from_number(f, "num_train_epochs", 3)),
                    epochs ? NULL : ft_arena_format(&f->arena, "%s's default", f->tool->name));
}

/* --- the optimizer --- */

static const struct ft_from_choice optimizers[] = {{"adamw_torch", "adamw_torch", NULL},
                                                   {"adamw_torch_fused", "adamw_torch_fused", NULL},
                                                   {"adamw_hf", "adamw_hf", NULL},
                                                   {"adamw_8bit", "adamw_8bit", NULL},
                                                   {"adamw_bnb_8bit", "adamw_bnb_8bit", NULL},
                                                   {"paged_adamw_8bit", "paged_adamw_8bit", NULL},
                                                   {"paged_adamw_32bit", "paged_adamw_32bit", NULL},
                                                   {"adamw_torch_8bit", "adamw_torch_8bit", NULL},
                                                   {"adamw_torch_4bit", "adamw_torch_4bit", NULL},
                                                   {"sgd", "sgd", NULL},
                                                   {"lion_32bit", "lion_32bit", NULL},
                                                   {"lion_8bit", "lion_8bit", NULL},
                                                   {"paged_lion_32bit", "paged_lion_32bit", NULL},
                                                   {"paged_lion_8bit", "paged_lion_8bit", NULL},
                                                   {"adafactor", "adafactor", NULL},
                                                   {"paged_adamw", "adamw", NULL},
                                                   {"adamw_apex_fused", "adamw", NULL},
                                                   {"adamw_anyprecision", "adamw", NULL},
                                                   {"adamw_torch_npu_fused", "adamw", NULL},
                                                   {"adamw_torch_xla", "adamw", NULL},
                                                   {NULL, NULL, NULL}};

static int optimizer(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    if (n->kind != FT_YAML_SCALAR)
        return ft_value_refuse(r->key, n, "a text");
    const struct ft_from_choice *c = ft_from_find_choice(optimizers, n->text);
    if (!c)
        ft_from_note(f, n, "another optimizer: adamw is used");
    ft_from_put(f, r->to, c ? c->to : "adamw", c && strcmp(c->name, c->to) != 0 ? c->name : NULL);
    return FT_OK;
}

/* --- evaluation and logging --- */

/* The number of steps between two lines; 0: not by steps. */
static double logging_steps(const struct ft_from *f)
{
    const double v = number_or_usual(f, "logging_steps", 500);
    return strcmp(ft_from_word(f, "logging_strategy", "steps"), "steps") == 0 ? v : 0;
}

static void put_evaluation(struct ft_from *f)
{
    const char *strategy =
        ft_from_word(f, "eval_strategy", ft_from_word(f, "evaluation_strategy", "no"));
    const double every = logging_steps(f), eval = ft_from_number(f, "eval_steps", every);
    if (every >= 1)
        ft_from_put(f, "logging_steps", ft_arena_format(&f->arena, "%.0f", every),
                    ft_from_get(f, "logging_steps")
                        ? NULL
                        : ft_arena_format(&f->arena, "%s's default", f->tool->name));
    if (strcmp(strategy, "steps") == 0 && eval > 0)
        ft_from_put(f, "eval_steps", ft_arena_format(&f->arena, "%.15g", eval), NULL);
}

/* --- checkpoints --- */

static void put_saving(struct ft_from *f)
{
    const char *strategy = ft_from_word(f, "save_strategy", "steps");
    const double every = number_or_usual(f, "save_steps", 500);
    if (strcmp(strategy, "steps") != 0)
        ft_from_put(f, "save_strategy", strategy, NULL);
    else if (every > 0)
        ft_from_put(f, "save_steps", ft_arena_format(&f->arena, "%.15g", every),
                    ft_from_get(f, "save_steps")
                        ? NULL
                        : ft_arena_format(&f->arena, "%s's default", f->tool->name));
}

/* Only losses are compared. */
static int best_metric(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const char *name = ft_from_word(f, r->key, "loss");
    if (strcmp(name, "loss") != 0 && strcmp(name, "eval_loss") != 0)
        ft_from_note(f, n, "ft compares the evaluation's loss");
    return FT_OK;
}

/* false would be fp32, for which ft has no GPU: there fp16 is meant. */
static int bf16(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    bool on;
    if (!ft_value_bool(n, &on))
        return ft_value_refuse(r->key, n, "true or false");
    if (on)
        ft_from_put(f, r->key, "auto", NULL);
    return FT_OK;
}

int ft_from_trainer_finish(struct ft_from *f)
{
    put_warmup(f);
    put_length(f);
    put_evaluation(f);
    put_saving(f);
    return FT_OK;
}

/* --- the table --- */

#define ONE_DEVICE                                                                                 \
    "ft trains on one device; there the batch was micro_batch_size x gradient_accumulation_steps " \
    "x devices"

const struct ft_from_row ft_from_trainer[] = {
    {"per_device_train_batch_size", ft_from_whole, "micro_batch_size", "8", NULL},
    {"gradient_accumulation_steps", ft_from_whole, "gradient_accumulation_steps", "1", NULL},
    {"learning_rate", ft_from_real, "learning_rate", "5e-5", NULL},
    {"lr_scheduler_type", schedule, "lr_scheduler", "linear", NULL},
    {"lr_scheduler_kwargs", schedule_arguments, NULL, NULL, NULL},
    {"warmup_steps", NULL, NULL, NULL, NULL},
    {"warmup_ratio", NULL, NULL, NULL, NULL},
    {"num_train_epochs", NULL, NULL, NULL, NULL},
    {"max_steps", NULL, NULL, NULL, NULL},
    {"optim", optimizer, "optimizer", NULL, NULL},
    {"weight_decay", ft_from_real, "weight_decay", NULL, NULL},
    {"adam_beta1", ft_from_real, "adam_beta1", NULL, NULL},
    {"adam_beta2", ft_from_real, "adam_beta2", NULL, NULL},
    {"adam_epsilon", ft_from_real, "adam_epsilon", NULL, NULL},
    {"max_grad_norm", ft_from_real, "max_grad_norm", NULL, NULL},
    {"seed", ft_from_whole, "seed", NULL, NULL},
    {"logging_steps", NULL, NULL, NULL, NULL},
    {"logging_strategy", NULL, NULL, NULL, NULL},
    {"eval_strategy", NULL, NULL, NULL, NULL},
    {"evaluation_strategy", NULL, NULL, NULL, NULL},
    {"eval_steps", NULL, NULL, NULL, NULL},
    {"save_steps", NULL, NULL, NULL, NULL},
    {"save_strategy", NULL, NULL, NULL, NULL},
    {"save_total_limit", ft_from_whole, "save_total_limit", NULL, NULL},
    {"save_only_model", NULL, NULL, NULL, NULL},
    {"greater_is_better", NULL, NULL, NULL, NULL},
    {"output_dir", ft_from_text, "output_dir", "trainer_output", NULL},
    {"overwrite_output_dir", ft_from_bool, "overwrite_output_dir", NULL, NULL},
    {"resume_from_checkpoint", ft_from_lacks, NULL, NULL,
     "ft's checkpoints are its own; a run goes on from its newest by itself"},
    {"bf16", bf16, NULL, NULL, NULL},
    {"fp16", ft_from_lacks, NULL, NULL, "ft computes in bf16 on a GPU, in fp32 on a CPU"},
    {"neftune_noise_alpha", ft_from_real, "neftune_noise_alpha", NULL, NULL},
    {"label_smoothing_factor", ft_from_lacks, NULL, NULL, "ft's loss is plain cross-entropy"},
    {"optim_args", ft_from_lacks, NULL, NULL, "set adam_beta1, adam_beta2, adam_epsilon"},
    {"optim_target_modules", ft_from_lacks, NULL, NULL, "ft trains the adapter's modules alike"},
    {"load_best_model_at_end", ft_from_bool, "load_best_model_at_end", NULL, NULL},
    {"metric_for_best_model", best_metric, NULL, NULL, NULL},
    {"auto_find_batch_size", ft_from_lacks, NULL, NULL, "'ft plan' says what fits"},
    {"dataloader_drop_last", ft_from_lacks, NULL, NULL, "ft's last step takes what is left"},
    {"logging_first_step", NULL, NULL, NULL, NULL},
    {"deepspeed", ft_from_lacks, NULL, NULL, ONE_DEVICE},
    {"fsdp", ft_from_lacks, NULL, NULL, ONE_DEVICE},
    {"parallelism_config", ft_from_lacks, NULL, NULL, ONE_DEVICE},
    {"push_to_hub", ft_from_lacks, NULL, NULL, "ft never uploads"},
    {"report_to", ft_from_trackers, NULL, NULL, "ft knows wandb, tensorboard and mlflow"},
    {"run_name", ft_from_text, "wandb_name", NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

const char ft_from_trainer_same[] =
    "accelerator_config average_tokens_across_devices batch_eval_metrics bf16_full_eval "
    "data_seed dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory "
    "dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb "
    "ddp_find_unused_parameters ddp_static_graph ddp_timeout debug disable_tqdm do_eval "
    "do_predict do_train enable_jit_checkpoint eval_accumulation_steps eval_delay "
    "eval_do_concat_batches eval_on_start eval_use_gather_object fp16_full_eval fsdp_config "
    "full_determinism gradient_checkpointing gradient_checkpointing_kwargs "
    "group_by_length hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy "
    "hub_token ignore_data_skip include_for_metrics include_inputs_for_metrics "
    "include_num_input_tokens_seen include_tokens_per_second label_names length_column_name "
    "liger_kernel_config local_rank log_level log_level_replica log_on_each_node logging_dir "
    "logging_nan_inf_filter no_cuda per_device_eval_batch_size "
    "prediction_loss_only project remove_unused_columns "
    "restore_callback_states_from_checkpoint save_on_each_node save_safetensors "
    "skip_memory_metrics tf32 torch_compile torch_compile_backend torch_compile_mode "
    "torch_empty_cache_steps trackio_bucket_id trackio_space_id trackio_static_space_id "
    "train_sampling_strategy use_cache use_cpu use_liger_kernel";
