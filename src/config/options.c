/* Owns the table of options: one row each. */
#include "config/options.h"

#include <string.h>

/* excess_length_strategy's values are enum ft_excess of data/, in its order. */
static const struct ft_choice excess[] = {
    {"drop", 0, NULL}, {"truncate", 1, NULL}, {"raise", 2, NULL}, {NULL, 0, NULL}};
static const struct ft_choice devices[] = {{"auto", FT_DEVICE_AUTO, NULL},
                                           {"cpu", FT_DEVICE_CPU, NULL},
                                           {"cuda", FT_DEVICE_CUDA, NULL},
                                           {NULL, 0, NULL}};
static const struct ft_choice tristate[] = {
    {"false", FT_FALSE, NULL}, {"true", FT_TRUE, NULL}, {"auto", FT_AUTO, NULL}, {NULL, 0, NULL}};
static const struct ft_choice adapters[] = {{"lora", 0, NULL}, {"qlora", 1, NULL}, {NULL, 0, NULL}};
static const struct ft_choice isas[] = {{"auto", 0, NULL}, {"generic", 1, NULL},
                                        {"avx2", 2, NULL}, {"avx512", 3, NULL},
                                        {"amx", 4, NULL},  {NULL, 0, NULL}};
#define MOMENTS "adapters are small: its moments are kept in fp32"
static const struct ft_choice optimizers[] = {{"adamw", FT_ADAMW, NULL},
                                              {"adamw_torch", FT_ADAMW, NULL},
                                              {"adamw_torch_fused", FT_ADAMW, NULL},
                                              {"adamw_hf", FT_ADAMW, NULL},
                                              {"paged_adamw_32bit", FT_ADAMW, NULL},
                                              {"adamw_8bit", FT_ADAMW, MOMENTS},
                                              {"adamw_bnb_8bit", FT_ADAMW, MOMENTS},
                                              {"paged_adamw_8bit", FT_ADAMW, MOMENTS},
                                              {"adamw_torch_8bit", FT_ADAMW, MOMENTS},
                                              {"adamw_torch_4bit", FT_ADAMW, MOMENTS},
                                              {"ao_adamw_8bit", FT_ADAMW, MOMENTS},
                                              {"ao_adamw_4bit", FT_ADAMW, MOMENTS},
                                              {"sgd", FT_SGD, NULL},
                                              {NULL, 0, NULL}};
static const struct ft_choice schedules[] = {{"cosine", FT_COSINE, NULL},
                                             {"linear", FT_LINEAR, NULL},
                                             {"constant", FT_CONSTANT, NULL},
                                             {"constant_with_warmup", FT_CONSTANT_WARMUP, NULL},
                                             {NULL, 0, NULL}};

#define AT(member) offsetof(struct ft_config, member)
#define INT(key, lo, hi, def, group, help)                                                         \
    {                                                                                              \
#key, FT_T_INT, FT_HERE, AT(key), lo, hi, false, false, def, NULL, group, help             \
    }
#define REAL(key, lo, hi, def, group, help)                                                        \
    {                                                                                              \
#key, FT_T_REAL, FT_HERE, AT(key), lo, hi, false, false, def, NULL, group, help            \
    }
#define BOOL(key, def, group, help)                                                                \
    {                                                                                              \
#key, FT_T_BOOL, FT_HERE, AT(key), 0, 0, false, false, def, NULL, group, help              \
    }
#define TEXT(key, group, help)                                                                     \
    {                                                                                              \
#key, FT_T_TEXT, FT_HERE, AT(key), 0, 0, false, false, NULL, NULL, group, help             \
    }
#define CHOICE(key, choices, def, group, help)                                                     \
    {                                                                                              \
#key, FT_T_CHOICE, FT_HERE, AT(key), 0, 0, false, false, def, choices, group, help         \
    }
#define OTHER(key, type, group, help)                                                              \
    {                                                                                              \
#key, type, FT_HERE, AT(key), 0, 0, false, false, NULL, NULL, group, help                  \
    }
#define NOT(key, state, help)                                                                      \
    {                                                                                              \
        key, FT_T_ANY, state, 0, 0, 0, false, false, NULL, NULL, "other", help                     \
    }
#define LATER(key, help)    NOT(key, FT_LATER, help)
#define LATER_OK(key, help) NOT(key, FT_LATER_OK, help)
#define NOTICE(key, help)   NOT(key, FT_NOTICE, help)
#define REFUSED(key, help)  NOT(key, FT_REFUSED, help)

const struct ft_option ft_options[] = {
    TEXT(base_model, "model",
         "The model to adapt: a Hugging Face folder with config.json and .safetensors files, or an "
         "id "
         "like org/name, which is looked up in the local Hugging Face cache (never the network)."),
    BOOL(allow_nonfinite_weights, "false", "model",
         "Load weights that hold NaN or infinite values instead of refusing them."),

    {"adapter", FT_T_WORD, FT_HERE, AT(adapter), 0, 0, false, false, "lora", adapters, "adapter",
     "The adapter method. qlora (a 4-bit base) is not there yet."},
    INT(lora_r, 1, 1024, "16", "adapter",
        "Rank of the low-rank update: how many directions each module may learn. vLLM loads at "
        "most "
        "--max-lora-rank (16 unless raised)."),
    {"lora_alpha", FT_T_REAL, FT_HERE, AT(lora_alpha), 0, 1048576, true, false, "32", NULL,
     "adapter",
     "The update is scaled by lora_alpha / lora_r (or / sqrt(lora_r) with peft_use_rslora)."},
    {"lora_dropout", FT_T_REAL, FT_HERE, AT(lora_dropout), 0, 0.999, false, false, "0", NULL,
     "adapter", "Share of the adapter's inputs zeroed while training."},
    OTHER(lora_target_modules, FT_T_TARGETS, "adapter",
          "The modules that get an adapter: a list of names ([q_proj, v_proj] or full paths), "
          "matched as PEFT does, or one regular expression for whole module paths. 'all-linear' is "
          "lora_target_linear."),
    BOOL(lora_target_linear, "false", "adapter",
         "Adapt every linear module but the output head, together with lora_target_modules if both "
         "are given. True when neither is given."),
    OTHER(
        lora_rank_pattern, FT_T_PATTERNS, "adapter",
        "Ranks that differ: a map from regular expressions (matched against the end of a module's "
        "path) to ranks. vLLM and llama.cpp's alpha do not know it."),
    OTHER(lora_alpha_pattern, FT_T_PATTERNS, "adapter",
          "Alphas that differ, like lora_rank_pattern."),
    OTHER(peft_layers_to_transform, FT_T_INTS, "adapter",
          "Adapt only these layers: a list of indices from 0, or one index."),
    BOOL(peft_use_rslora, "false", "adapter",
         "Scale by lora_alpha / sqrt(lora_r) (rank-stabilised LoRA). SGLang and llama.cpp ignore "
         "it."),
    TEXT(lora_model_dir, "adapter",
         "Continue from this PEFT LoRA adapter folder. Its adapter_config.json gives method, rank, "
         "alpha, dropout, targets and patterns; a lora_* key that contradicts it is an error."),

    OTHER(
        datasets, FT_T_DATASETS, "data",
        "What to train on: a list of entries with 'path' and 'type', whose keys are below. Several "
        "are mixed."),
    OTHER(test_datasets, FT_T_DATASETS, "data", "What to evaluate on, as datasets."),
    REAL(val_set_size, 0, 2147483647, "0", "data",
         "Hold out this share (below 1) or number of documents for evaluation, from the end of the "
         "shuffle by seed."),
    INT(sequence_len, 2, 16777216, "2048", "data", "Longest document in tokens."),
    CHOICE(excess_length_strategy, excess, "drop", "data",
           "What happens to longer documents: drop, truncate, or raise (stop with an error)."),
    BOOL(sample_packing, "false", "data",
         "Fill each micro-batch with whole documents up to micro_batch_size x sequence_len tokens. "
         "Documents never attend to one another."),
    BOOL(curriculum_sampling, "false", "data",
         "Keep the documents in the file's order, every epoch, instead of shuffling."),

    BOOL(train_on_inputs, "false", "data", "Train on prompts and the users' turns too."),
    OTHER(roles_to_train, FT_T_TEXTS, "data",
          "Whose turns of conversations are trained on; by default the assistant's."),
    CHOICE(train_on_eos, ft_train_on_choices, "unset", "data",
           "Which turns' ends are trained on: turn (those that are trained), all, last or none. By "
           "default those that are trained, or what a template's {% generation %} marks say."),
    OTHER(eot_tokens, FT_T_TEXTS, "data",
          "The tokens that end turns. By default ft finds them: the special token behind a turn's "
          "words. They must be in the vocabulary."),
    TEXT(chat_template, "data",
         "The template that conversations go through: tokenizer_default (the model's own), the "
         "name of a built-in one (chatml, llama3, ...), jinja (chat_template_jinja has it), or "
         "tokenizer_default_fallback_NAME for models that may have none."),
    TEXT(chat_template_jinja, "data", "A template's text, or the file that it is in."),
    OTHER(chat_template_kwargs, FT_T_MAP, "data",
          "What templates are given besides the messages, e.g. {enable_thinking: false}."),
    TEXT(default_system_message, "data", "A system message for conversations that have none."),
    OTHER(special_tokens, FT_T_TOKENS, "data",
          "Other special tokens than the model's: {eos_token: ..., bos_token: ...}. They must be "
          "in the vocabulary."),
    {"dataset_prepared_path", FT_T_TEXT, FT_HERE, AT(dataset_prepared_path), 0, 0, false, false,
     "last_run_prepared", NULL, "data",
     "Folder in which tokenized text is kept, by everything that it depends on: another template, "
     "tokenizer or file never meets old tokens. May be deleted at any time."},
    INT(skip_bad_records, 0, 1000000000, "0", "data",
        "Leave out up to this many records of a dataset that cannot be used, instead of stopping "
        "at the first."),
    OTHER(allow_data_problems, FT_T_TEXTS, "data",
          "Problems of the labels to train with nevertheless: unended_turns, empty_turns, "
          "double_bos."),

    INT(micro_batch_size, 1, 1048576, "1", "training",
        "Documents a micro-batch (with sample_packing: its size in units of sequence_len)."),
    INT(gradient_accumulation_steps, 1, 1048576, "1", "training",
        "Micro-batches an optimizer step. The loss is the mean over all trained tokens of the "
        "step."),
    {"num_epochs", FT_T_REAL, FT_HERE, AT(num_epochs), 0, 1e6, true, false, "1", NULL, "training",
     "How often to go through the data; may be fractional."},
    INT(max_steps, 1, 1000000000, NULL, "training",
        "Optimizer steps to make, repeating the data as needed; wins over num_epochs."),
    REAL(learning_rate, 0, 1e3, "2e-4", "training", "Peak learning rate."),
    CHOICE(lr_scheduler, schedules, "cosine", "training",
           "How the learning rate falls after the warmup: cosine or linear to zero, or constant."),
    INT(warmup_steps, 0, 1000000000, NULL, "training",
        "Steps over which the learning rate rises from zero. With neither warmup key: 3 % of the "
        "steps, at most 100."),
    REAL(warmup_ratio, 0, 1, NULL, "training", "Warmup as a share of the steps."),
    REAL(cosine_min_lr_ratio, 0, 1, "0", "training",
         "Where cosine ends, as a share of learning_rate."),
    CHOICE(optimizer, optimizers, "adamw", "training",
           "adamw (and torch's, paged and 8-bit names for it), or sgd."),
    REAL(weight_decay, 0, 1e3, "0", "training",
         "Decoupled for adamw, added to the gradient for sgd."),
    {"adam_beta1", FT_T_REAL, FT_HERE, AT(adam_beta1), 0, 0.999999, false, false, "0.9", NULL,
     "training", "adamw: decay of the mean gradient."},
    {"adam_beta2", FT_T_REAL, FT_HERE, AT(adam_beta2), 0, 0.999999, false, false, "0.999", NULL,
     "training", "adamw: decay of the mean squared gradient."},
    {"adam_epsilon", FT_T_REAL, FT_HERE, AT(adam_epsilon), 1e-30, 1, false, false, "1e-8", NULL,
     "training", "adamw: added to the root of the mean square."},
    {"momentum", FT_T_REAL, FT_HERE, AT(momentum), 0, 0.999999, false, false, "0", NULL, "training",
     "sgd: momentum."},
    REAL(max_grad_norm, 0, 1e9, "1.0", "training",
         "Clip the gradient to this norm; 0: no clipping."),
    CHOICE(
        gradient_checkpointing, tristate, "auto", "training",
        "Recompute each layer in backward instead of keeping its activations: less memory, about a "
        "third more time, the same bits. auto: keep them if they fit, else recompute norms and "
        "activation functions, else whole layers. On the CPU norms and activation functions are "
        "always recomputed, which costs next to nothing."),
    INT(seed, 0, 9007199254740991, "42", "training",
        "Seed of initialisation, shuffling and dropout."),

    {"eval_steps", FT_T_REAL, FT_HERE, AT(eval_steps), 0, 1e9, true, false, NULL, NULL,
     "evaluation",
     "Evaluate every so many steps; below 1: a share of the run. Unset: once an epoch."},
    INT(evals_per_epoch, 1, 1000000, NULL, "evaluation", "Evaluations an epoch."),

    CHOICE(
        device, devices, "auto", "machine",
        "Where to train. cuda: the first visible NVIDIA GPU, bf16 with fp32 sums. auto: the GPU if "
        "there is one that works, else the CPU."),
    CHOICE(bf16, tristate, "auto", "machine",
           "bf16 arithmetic with fp32 sums. auto: on a GPU. true: not there yet on the CPU, which "
           "computes in fp32, with weights in their stored type."),
    INT(threads, 0, 4096, "0", "machine",
        "Threads; 0: what affinity, the cgroup's quota and SLURM_CPUS_PER_TASK allow. The results "
        "do "
        "not depend on it."),
    {"cpu_isa", FT_T_WORD, FT_HERE, AT(cpu_isa), 0, 0, false, false, "auto", isas, "machine",
     "The instruction set of the CPU kernels. avx2 and avx512 give the same bits. amx is not there "
     "yet."},

    TEXT(output_dir, "output", "Folder for the adapter, metrics.jsonl and run.json."),
    BOOL(overwrite_output_dir, "false", "output",
         "Train into a folder that holds an earlier run, replacing its files."),
    INT(logging_steps, 1, 1000000000, "1", "output",
        "Write a line of metrics every so many steps."),

    /* known to ft's plans, not there yet */
    LATER("resume_from_checkpoint", "Continue from a checkpoint. Not there yet."),
    LATER("load_in_4bit", "A 4-bit (NF4) base model. Not there yet."),
    LATER("load_in_8bit", "An 8-bit base model. Not there yet: set it to false to train on the "
                          "stored weights."),
    LATER("peft_use_dora", "DoRA. Not there yet."),
    LATER("loraplus_lr_ratio", "LoRA+. Not there yet."),
    LATER("loraplus_lr_embedding", "LoRA+. Not there yet."),
    LATER("lora_modules_to_save", "Modules trained in full. Not there yet."),
    LATER("lora_target_parameters", "Adapters on expert parameters. Not there yet."),
    LATER("peft_init_lora_weights", "Other initialisations. Not there yet."),
    LATER("peft_trainable_token_indices", "Trained tokens. Not there yet."),
    LATER("early_stopping_patience", "Stop when evaluation stops falling. Not there yet."),
    LATER("load_best_model_at_end", "Keep the best checkpoint. Not there yet."),
    LATER("fp16", "fp16 arithmetic. Not there yet."),
    LATER("float16", "fp16 arithmetic. Not there yet."),
    LATER("fp8", "fp8 arithmetic. Not there yet."),
    LATER("world_size", "Several ranks. Not there yet."),
    LATER_OK("save_steps",
             "Checkpoints every so many steps. Not there yet: the adapter is written at "
             "the end."),
    LATER_OK("saves_per_epoch",
             "Checkpoints an epoch. Not there yet: the adapter is written at the "
             "end."),
    LATER_OK("save_strategy",
             "When to write checkpoints. Not there yet: the adapter is written at the "
             "end."),
    LATER_OK("save_total_limit", "How many checkpoints to keep. Not there yet."),
    LATER_OK("save_only_model", "Checkpoints without optimizer state. Not there yet."),
    LATER_OK("auto_resume_from_checkpoints",
             "Continue from the newest checkpoint of output_dir. Not "
             "there yet: the run starts from the beginning."),
    LATER_OK("eval_strategy", "Evaluation follows eval_steps and evals_per_epoch."),
    LATER_OK("use_tensorboard", "TensorBoard files. Not there yet: metrics.jsonl has the numbers."),
    LATER_OK("mlflow_tracking_uri", "MLflow. Not there yet: metrics.jsonl has the numbers."),
    LATER_OK("mlflow_experiment_name", "MLflow. Not there yet."),
    LATER_OK("mlflow_run_name", "MLflow. Not there yet."),

    /* switches of other programs that change nothing here */
    NOTICE("model_type", "ft reads the architecture from config.json."),
    NOTICE("tokenizer_type", "ft reads the tokenizer's own files."),
    NOTICE("tokenizer_config", "ft reads the tokenizer from the model's folder."),
    NOTICE("tokenizer_use_fast", "ft has one tokenizer."),
    NOTICE("trust_remote_code", "ft never runs a model's code."),
    NOTICE("is_llama_derived_model", "ft reads the architecture from config.json."),
    NOTICE("is_mistral_derived_model", "ft reads the architecture from config.json."),
    NOTICE("is_falcon_derived_model", "ft reads the architecture from config.json."),
    NOTICE("strict", "ft always checks every tensor."),
    NOTICE("tf32", "Products are fp32 on the CPU and bf16 on a GPU."),
    NOTICE("flash_attention", "Attention is always computed blockwise."),
    NOTICE("flash_attn_cross_entropy", "The loss is always computed in chunks."),
    NOTICE("flash_attn_rms_norm", "ft has its own kernels."),
    NOTICE("flash_attn_fuse_mlp", "ft has its own kernels."),
    NOTICE("sdp_attention", "Attention is always computed blockwise."),
    NOTICE("xformers_attention", "Attention is always computed blockwise."),
    NOTICE("eager_attention", "Attention is always computed blockwise."),
    NOTICE("attn_implementation", "Attention is always computed blockwise."),
    NOTICE("gradient_checkpointing_kwargs", "Recompute has no variants."),
    NOTICE("lora_mlp_kernel", "Adapters are always fused."),
    NOTICE("lora_qkv_kernel", "Adapters are always fused."),
    NOTICE("lora_o_kernel", "Adapters are always fused."),
    NOTICE("lora_fan_in_fan_out", "ft knows each module's layout."),
    NOTICE("liger_rope", "ft has its own kernels."),
    NOTICE("liger_rms_norm", "ft has its own kernels."),
    NOTICE("liger_glu_activation", "ft has its own kernels."),
    NOTICE("liger_swiglu", "ft has its own kernels."),
    NOTICE("liger_layer_norm", "ft has its own kernels."),
    NOTICE("liger_cross_entropy", "ft has its own kernels."),
    NOTICE("liger_fused_linear_cross_entropy", "ft has its own kernels."),
    NOTICE("cut_cross_entropy", "The loss is always computed in chunks."),
    NOTICE("chunked_cross_entropy", "The loss is always computed in chunks."),
    NOTICE("torch_compile", "ft is compiled."),
    NOTICE("pad_to_sequence_len", "ft never pads."),
    NOTICE("eval_sample_packing", "Evaluation does not depend on packing."),
    NOTICE("multipack_real_batches", "ft packs whole documents end to end."),
    NOTICE("sample_packing_group_size", "ft packs over the whole epoch."),
    NOTICE("sample_packing_bin_size", "A bin takes as many documents as fit."),
    NOTICE("group_by_length", "ft never pads, so there is nothing to gain."),
    NOTICE("eval_batch_size", "Evaluation runs in passes of the training's size."),
    NOTICE("loss_watchdog_threshold", "A loss that is not finite always stops the run."),
    NOTICE("loss_watchdog_patience", "A loss that is not finite always stops the run."),
    NOTICE("shuffle_merged_datasets", "Documents are shuffled unless curriculum_sampling is set."),
    NOTICE("shuffle_before_merging_datasets", "Documents are shuffled over all datasets."),
    NOTICE("skip_prepare_dataset", "Tokenized datasets are given as such."),
    NOTICE("dataset_processes", "Threads follow 'threads'."),
    NOTICE("dataset_num_proc", "Threads follow 'threads'."),
    NOTICE("dataset_keep_in_memory", "Tokens stay in their file, and are read as they are needed."),
    NOTICE("dataloader_num_workers", "Batches are made in the program."),
    NOTICE("dataloader_pin_memory", "Batches are made in the program."),
    NOTICE("dataloader_prefetch_factor", "Batches are made in the program."),
    NOTICE("eval_table_size", "ft generates no text while training."),
    NOTICE("eval_max_new_tokens", "ft generates no text while training."),
    NOTICE("eval_causal_lm_metrics", "Evaluation gives the loss."),
    NOTICE("wandb_mode", "W&B is not used; metrics.jsonl has the numbers."),
    NOTICE("wandb_project", "W&B is not used; metrics.jsonl has the numbers."),
    NOTICE("wandb_entity", "W&B is not used; metrics.jsonl has the numbers."),
    NOTICE("wandb_watch", "W&B is not used; metrics.jsonl has the numbers."),
    NOTICE("wandb_name", "W&B is not used; metrics.jsonl has the numbers."),
    NOTICE("wandb_run_id", "W&B is not used; metrics.jsonl has the numbers."),
    NOTICE("wandb_log_model", "W&B is not used; metrics.jsonl has the numbers."),
    NOTICE("hub_model_id", "ft never uploads."),
    NOTICE("hub_strategy", "ft never uploads."),
    NOTICE("push_dataset_to_hub", "ft never uploads."),
    NOTICE("hf_use_auth_token", "ft never uses the network."),
    NOTICE("save_safetensors", "ft always writes safetensors."),
    NOTICE("include_tokens_per_second", "tokens/s is always logged."),
    NOTICE("include_tkps", "tokens/s is always logged."),
    NOTICE("debug", "Use -v for more output."),
    NOTICE("local_rank", "ft finds its rank itself."),
    NOTICE("ddp_timeout", "There is one rank."),
    NOTICE("low_cpu_mem_usage", "Weights are never in memory twice."),
    NOTICE("lora_on_cpu", "The adapter lies where it is trained."),
    NOTICE("axolotl_config_path", "ft reads one file."),
    NOTICE("ddp_find_unused_parameters", "There is one rank."),

    /* would change the mathematics */
    REFUSED("rl", "Preference training is another objective."),
    REFUSED("reward_model", "Reward models are another objective."),
    REFUSED("neftune_noise_alpha", "NEFTune adds noise to embeddings."),
    REFUSED("noisy_embedding_alpha", "NEFTune adds noise to embeddings."),
    REFUSED("relora_steps", "ReLoRA merges and restarts."),
    REFUSED("deepspeed", "ft has no DeepSpeed; on one device, remove the key."),
    REFUSED("fsdp", "ft has no FSDP; on one device, remove the key."),
    REFUSED("fsdp_config", "ft has no FSDP; on one device, remove the key."),
    REFUSED("fsdp_version", "ft has no FSDP; on one device, remove the key."),
    REFUSED("unfrozen_parameters", "ft trains adapters only."),
    REFUSED("embeddings_skip_upcast", "Embeddings keep their stored type."),
    REFUSED("s2_attention", "Shifted sparse attention is another model."),
    REFUSED("overrides_of_model_config", "Change config.json in the model's folder instead."),
    REFUSED("model_config", "Change config.json in the model's folder instead."),
    REFUSED("rope_scaling", "Change config.json in the model's folder instead."),
    REFUSED("resize_token_embeddings_to_32x", "ft leaves the vocabulary as it is."),
    REFUSED("tokens", "Added tokens would need trained embeddings."),
    REFUSED("added_tokens_overrides", "Added tokens would need trained embeddings."),
    REFUSED("gptq", "Quantised bases are not there yet."),
    REFUSED("bnb_config_kwargs", "Quantised bases are not there yet."),
    REFUSED("lr_quadratic_warmup", "ft's warmup is linear."),
    REFUSED("lr_scheduler_kwargs", "ft's schedules take no arguments."),
    REFUSED("lr_groups", "One learning rate is used for all modules."),
    REFUSED("embedding_lr", "Embeddings are not trained."),
    REFUSED("embedding_lr_scale", "Embeddings are not trained."),
    REFUSED("cosine_constant_lr_ratio", "ft's cosine falls to the end."),
    REFUSED("optim_args", "Use adam_beta1, adam_beta2, adam_epsilon."),
    REFUSED("optim_target_modules", "GaLore is another optimizer."),
    REFUSED("label_smoothing_factor", "ft's loss is plain cross-entropy."),
    REFUSED("dataset_exact_deduplication", "Remove what is double from the data itself."),
    REFUSED("pretraining_dataset", "Use datasets."),
    REFUSED("streaming", "Use datasets."),
    REFUSED("sequence_parallel_degree", "There is one rank."),
    REFUSED("context_parallel_size", "There is one rank."),
    REFUSED("tensor_parallel_size", "There is one rank."),
    REFUSED("quantization", "Quantised training is another arithmetic."),
    REFUSED("qat", "Quantised training is another arithmetic."),
    REFUSED("use_pose", "PoSE changes positions."),
    REFUSED("llama4_linearized_experts", "Not one of ft's architectures."),
    {"plugins", FT_T_ANY, FT_NOTICE, 0, 0, 0, false, false, NULL, NULL, "other",
     "Axolotl's plugins; the Liger and Cut-Cross-Entropy ones change nothing here, others are "
     "refused."},
};
const int ft_option_count = sizeof ft_options / sizeof *ft_options;

int ft_option_find(const char *key)
{
    for (int i = 0; i < ft_option_count; i++)
        if (strcmp(ft_options[i].key, key) == 0)
            return i;
    return -1;
}
