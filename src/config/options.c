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
#define AGAIN "activations are recomputed, which needs no copies elsewhere"
static const struct ft_choice recomputes[] = {
    {"false", FT_FALSE, NULL},   {"true", FT_TRUE, NULL},          {"auto", FT_AUTO, NULL},
    {"offload", FT_TRUE, AGAIN}, {"offload_disk", FT_TRUE, AGAIN}, {NULL, 0, NULL}};
static const struct ft_choice bf16s[] = {{"false", FT_FALSE, NULL},
                                         {"true", FT_TRUE, NULL},
                                         {"auto", FT_AUTO, NULL},
                                         {"unset", FT_UNSET, NULL},
                                         {"full", FT_TRUE, "adapters and sums stay fp32"},
                                         {NULL, 0, NULL}};
/* "false" is YAML's reading of a bare no */
static const struct ft_choice strategies[] = {
    {"no", FT_EVAL_NO, NULL},       {"false", FT_EVAL_NO, NULL},    {"steps", FT_EVAL_STEPS, NULL},
    {"epoch", FT_EVAL_EPOCH, NULL}, {"unset", FT_EVAL_UNSET, NULL}, {NULL, 0, NULL}};
static const struct ft_choice save_strategies[] = {{"no", FT_SAVE_NO, NULL},
                                                   {"false", FT_SAVE_NO, NULL},
                                                   {"steps", FT_SAVE_STEPS, NULL},
                                                   {"epoch", FT_SAVE_EPOCH, NULL},
                                                   {"best", FT_SAVE_BEST, NULL},
                                                   {"unset", FT_SAVE_UNSET, NULL},
                                                   {NULL, 0, NULL}};
static const struct ft_choice best_metrics[] = {
    {"eval_loss", 0, NULL}, {"loss", 1, NULL}, {NULL, 0, NULL}};
static const struct ft_choice adapters[] = {
    {"lora", 0, NULL}, {"qlora", 1, NULL}, {"vera", 3, NULL}, {"ia3", 4, NULL},
    {"loha", 5, NULL}, {"lokr", 6, NULL},  {"full", 2, NULL}, {NULL, 0, NULL}};
static const struct ft_choice biases[] = {{"none", FT_BIASES_NONE, NULL},
                                          {"all", FT_BIASES_ALL, NULL},
                                          {"lora_only", FT_BIASES_LORA_ONLY, NULL},
                                          {NULL, 0, NULL}};
static const struct ft_choice isas[] = {
    {"auto", 0, NULL}, {"generic", 1, NULL}, {"avx2", 2, NULL},     {"avx512", 3, NULL},
    {"amx", 4, NULL},  {"neon", 5, NULL},    {"openblas", 6, NULL}, {NULL, 0, NULL}};
#define MOMENTS "its moments are kept in 8 bits"
static const struct ft_choice optimizers[] = {{"adamw", FT_ADAMW, NULL},
                                              {"adamw_torch", FT_ADAMW, NULL},
                                              {"adamw_torch_fused", FT_ADAMW, NULL},
                                              {"adamw_hf", FT_ADAMW, NULL},
                                              {"paged_adamw_32bit", FT_ADAMW, NULL},
                                              {"adamw_8bit", FT_ADAMW_8BIT, NULL},
                                              {"adamw_bnb_8bit", FT_ADAMW_8BIT, NULL},
                                              {"paged_adamw_8bit", FT_ADAMW_8BIT, NULL},
                                              {"adamw_torch_8bit", FT_ADAMW_8BIT, NULL},
                                              {"adamw_torch_4bit", FT_ADAMW_8BIT, MOMENTS},
                                              {"ao_adamw_8bit", FT_ADAMW_8BIT, NULL},
                                              {"ao_adamw_4bit", FT_ADAMW_8BIT, MOMENTS},
                                              {"sgd", FT_SGD, NULL},
                                              {"lion", FT_LION, NULL},
                                              {"lion_32bit", FT_LION, NULL},
                                              {"paged_lion_32bit", FT_LION, NULL},
                                              {"lion_8bit", FT_LION_8BIT, NULL},
                                              {"paged_lion_8bit", FT_LION_8BIT, NULL},
                                              {"adafactor", FT_ADAFACTOR, NULL},
                                              {"muon", FT_MUON, NULL},
                                              {NULL, 0, NULL}};
static const struct ft_choice schedules[] = {{"cosine", FT_COSINE, NULL},
                                             {"linear", FT_LINEAR, NULL},
                                             {"constant", FT_CONSTANT, NULL},
                                             {"constant_with_warmup", FT_CONSTANT_WARMUP, NULL},
                                             {NULL, 0, NULL}};

static const struct ft_choice wandb_uses[] = {
    {"false", FT_FALSE, NULL}, {"true", FT_TRUE, NULL}, {"auto", FT_AUTO, NULL}, {NULL, 0, NULL}};
static const struct ft_choice wandb_modes[] = {
    {"offline", 0, NULL}, {"online", 1, NULL}, {"disabled", 2, NULL}, {NULL, 0, NULL}};

#define AT(member) offsetof(struct ft_config, member)
#define INT(key, lo, hi, def, group, help)                                                         \
    {                                                                                              \
#key, FT_T_INT, AT(key), lo, hi, false, false, def, NULL, group, help                      \
    }
#define REAL(key, lo, hi, def, group, help)                                                        \
    {                                                                                              \
#key, FT_T_REAL, AT(key), lo, hi, false, false, def, NULL, group, help                     \
    }
#define BOOL(key, def, group, help)                                                                \
    {                                                                                              \
#key, FT_T_BOOL, AT(key), 0, 0, false, false, def, NULL, group, help                       \
    }
#define TEXT(key, group, help)                                                                     \
    {                                                                                              \
#key, FT_T_TEXT, AT(key), 0, 0, false, false, NULL, NULL, group, help                      \
    }
#define PATH(key, group, help)                                                                     \
    {                                                                                              \
#key, FT_T_PATH, AT(key), 0, 0, false, false, NULL, NULL, group, help                      \
    }
#define CHOICE(key, choices, def, group, help)                                                     \
    {                                                                                              \
#key, FT_T_CHOICE, AT(key), 0, 0, false, false, def, choices, group, help                  \
    }
#define OTHER(key, type, group, help)                                                              \
    {                                                                                              \
#key, type, AT(key), 0, 0, false, false, NULL, NULL, group, help                           \
    }
const struct ft_option ft_options[] = {
    PATH(base_model, "model",
         "The model to adapt: a Hugging Face folder with config.json and .safetensors files, a "
         ".gguf "
         "file, or an id like org/name, which is looked up in the local Hugging Face cache (never "
         "the network)."),
    TEXT(
        base_model_name, "model",
        "The model's id or folder that adapter_config.json names, for PEFT to load it from; unset: "
        "base_model, or what a .gguf file says that it was made from."),
    OTHER(overrides_of_model_config, FT_T_MAP, "model",
          "What config.json is to say otherwise of the loss of a mixture of experts: "
          "{output_router_logits: true} adds the part for even routing, times "
          "router_aux_loss_coef."),
    TEXT(revision_of_model, "model",
         "Which branch, tag or commit of base_model in the Hugging Face cache ('main')."),
    BOOL(allow_nonfinite_weights, "false", "model",
         "Load weights that hold NaN or infinite values instead of refusing them."),

    BOOL(quantize_moe_experts, "false", "model",
         "With load_in_4bit or load_in_8bit: the weights of experts are quantised too, each "
         "expert's matrix for itself."),
    BOOL(load_in_4bit, "false", "model",
         "Quantise the weights of the linear modules to 4 bits while they are loaded (NF4 with "
         "double quantisation, as bitsandbytes), for 'adapter: qlora'. Embedding, head and norms "
         "stay as they are. A folder that bitsandbytes has quantised is read as it is."),
    BOOL(load_in_8bit, "false", "model", "The same to 8 bits, a scale a row, for 'adapter: lora'."),
    OTHER(bnb_config_kwargs, FT_T_MAP, "model",
          "How: {bnb_4bit_quant_type: nf4 or fp4, bnb_4bit_use_double_quant: true, "
          "llm_int8_skip_modules: [...]}."),

    {"adapter", FT_T_WORD, AT(adapter), 0, 0, false, false, "lora", adapters, "adapter",
     "The adapter method: lora; vera and ia3 train some numbers a module; loha and lokr make the "
     "change of a weight from two matrices; full trains the model itself. qlora is lora over a "
     "base of 4 bits: with load_in_4bit, or one that is quantised already."},
    INT(lora_r, 1, 1024, "16", "adapter",
        "Rank of the low-rank update: how many directions each module may learn. vLLM loads at "
        "most "
        "--max-lora-rank (16 unless raised)."),
    {"lora_alpha", FT_T_REAL, AT(lora_alpha), 0, 1048576, true, false, "32", NULL, "adapter",
     "The update is scaled by lora_alpha / lora_r (or / sqrt(lora_r) with peft_use_rslora)."},
    {"lora_dropout", FT_T_REAL, AT(lora_dropout), 0, 0.999, false, false, "0", NULL, "adapter",
     "Share of the adapter's inputs zeroed while training."},
    OTHER(lora_target_modules, FT_T_TARGETS, "adapter",
          "The modules that get an adapter: a list of names ([q_proj, v_proj] or full paths), "
          "matched as PEFT does, or one regular expression for whole module paths. 'all-linear' is "
          "lora_target_linear."),
    BOOL(lora_target_linear, "false", "adapter",
         "Adapt every linear module but the output head, together with lora_target_modules if both "
         "are given. True when neither is given."),
    OTHER(lora_target_parameters, FT_T_TEXTS, "adapter",
          "Parameters of experts that get an adapter (mlp.experts.gate_up_proj, "
          "mlp.experts.down_proj), matched as PEFT's target_parameters; each expert has one of "
          "rank lora_r. They have no dropout."),
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
    BOOL(peft_use_dora, "false", "adapter",
         "Train the length of each output's weights apart from their direction (DoRA). vLLM and "
         "llama.cpp do not load it."),
    {"peft_init_lora_weights", FT_T_TEXT, AT(peft_init_lora_weights), 0, 0, false, false, "true",
     NULL, "adapter",
     "How the adapter begins: true (A random, B zero), gaussian, pissa (with the weight's largest "
     "singular values, by OpenBLAS) or olora (with the beginning of its QR). The last two are "
     "written as plain LoRA of twice the rank."},
    {"loraplus_lr_ratio", FT_T_REAL, AT(loraplus_lr_ratio), 0, 1e6, true, false, NULL, NULL,
     "adapter",
     "LoRA+: the learning rate of B (and of DoRA's lengths) is this many times learning_rate."},
    REAL(loraplus_lr_embedding, 0, 1e3, "1e-6", "adapter",
         "LoRA+: the learning rate of an embedding's adapter, where loraplus_lr_ratio is set."),
    OTHER(lora_modules_to_save, FT_T_TEXTS, "adapter",
          "Modules that are trained whole beside the adapter and saved with it: names such as "
          "embed_tokens, lm_head or norm. vLLM and llama.cpp do not load such adapters."),
    OTHER(peft_trainable_token_indices, FT_T_ROWS, "adapter",
          "Tokens whose rows of the embedding are trained beside the adapter, by their ids; a head "
          "that is the embedding follows. Or a map: {embed_tokens: [...], lm_head: [...]}. vLLM "
          "and llama.cpp do not load such adapters."),
    CHOICE(bias, biases, "none", "adapter",
           "Biases that are trained beside the adapter: all of the model, or (lora_only) those of "
           "the adapted modules. vLLM and llama.cpp do not load such adapters."),
    OTHER(unfrozen_parameters, FT_T_TEXTS, "adapter",
          "With adapter: full, the weights that are trained, the others being frozen: expressions "
          "for the beginnings of their names ('model.layers.3[0-9]', 'lm_head')."),
    PATH(lora_model_dir, "adapter",
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
    INT(min_sample_len, 0, 16777216, "0", "data",
        "Leave out documents of fewer tokens; those of one token have nothing to predict anyway."),
    CHOICE(excess_length_strategy, excess, "drop", "data",
           "What happens to longer documents: drop, truncate, or raise (stop with an error)."),
    BOOL(sample_packing, "false", "data",
         "Fill each micro-batch with whole documents up to micro_batch_size x sequence_len tokens. "
         "Documents never attend to one another."),
    BOOL(curriculum_sampling, "false", "data",
         "Keep the documents in the file's order, every epoch, instead of shuffling."),

    BOOL(dataset_exact_deduplication, "false", "data",
         "Leave out documents with the same tokens, and the same of them trained, as one before."),

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
    PATH(chat_template_jinja, "data", "A template's text, or the file that it is in."),
    OTHER(chat_template_kwargs, FT_T_MAP, "data",
          "What templates are given besides the messages, e.g. {enable_thinking: false}."),
    TEXT(default_system_message, "data", "A system message for conversations that have none."),
    OTHER(tokens, FT_T_TEXTS, "data",
          "Tokens to add to the tokenizer. The model's vocabulary grows where it has no row for "
          "them, and those rows must be trained: lora_modules_to_save or "
          "peft_trainable_token_indices. Tokens of special_tokens and eot_tokens that the "
          "tokenizer does not have are added likewise."),
    BOOL(resize_token_embeddings_to_32x, "false", "data",
         "A vocabulary that grows does so to a multiple of 32."),
    OTHER(special_tokens, FT_T_TOKENS, "data",
          "Other special tokens than the model's: {eos_token: ..., bos_token: ...}. They must be "
          "in the vocabulary."),
    {"dataset_prepared_path", FT_T_PATH, AT(dataset_prepared_path), 0, 0, false, false,
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
    INT(batch_size, 1, 1073741824, NULL, "training",
        "Documents an optimizer step: gradient_accumulation_steps x micro_batch_size, where the "
        "former "
        "is not given."),
    {"num_epochs", FT_T_REAL, AT(num_epochs), 0, 1e6, true, false, "1", NULL, "training",
     "How often to go through the data; may be fractional."},
    INT(max_steps, -1, 1000000000, NULL, "training",
        "Optimizer steps to make, repeating the data as needed; wins over num_epochs. -1 and 0: "
        "num_epochs says it."),
    REAL(learning_rate, 0, 1e3, "2e-4", "training", "Peak learning rate."),
    CHOICE(lr_scheduler, schedules, "cosine", "training",
           "How the learning rate falls after the warmup: cosine or linear to zero, or constant."),
    REAL(warmup_steps, 0, 1e9, NULL, "training",
         "Steps over which the learning rate rises from zero; below 1: a share of the run. With "
         "neither warmup key: 3 % of the steps, at most 100."),
    REAL(warmup_ratio, 0, 1, NULL, "training", "Warmup as a share of the steps."),
    REAL(cosine_min_lr_ratio, 0, 1, "0", "training",
         "Where cosine ends, as a share of learning_rate."),
    REAL(cosine_constant_lr_ratio, 0, 1, "0", "training",
         "The share of the steps after which cosine has reached cosine_min_lr_ratio, and stays; 0: "
         "at the end."),
    BOOL(lr_quadratic_warmup, "false", "training",
         "With cosine: the warmup rises as the square of its share."),
    CHOICE(optimizer, optimizers, "adamw", "training",
           "adamw, lion (and the paged names for them), adamw_8bit or lion_8bit (states in 8 bits, "
           "a quarter of the memory), adafactor, muon (for matrices; vectors, embeddings and heads "
           "take adamw), or sgd."),
    REAL(neftune_noise_alpha, 0, 1e6, "0", "training",
         "NEFTune: noise on the embeddings while training, up to this over the square root of a "
         "document's numbers. 5 is usual; 0: none."),
    REAL(weight_decay, 0, 1e3, "0", "training",
         "Added to the gradient for sgd, decoupled for the others."),
    {"adam_beta1", FT_T_REAL, AT(adam_beta1), 0, 0.999999, false, false, "0.9", NULL, "training",
     "adamw: decay of the mean gradient; lion: its share in the step."},
    {"adam_beta2", FT_T_REAL, AT(adam_beta2), 0, 0.999999, false, false, "0.999", NULL, "training",
     "adamw: decay of the mean squared gradient; lion: of the mean gradient."},
    {"adam_epsilon", FT_T_REAL, AT(adam_epsilon), 1e-30, 1, false, false, "1e-8", NULL, "training",
     "adamw: added to the root of the mean square."},
    {"momentum", FT_T_REAL, AT(momentum), 0, 0.999999, false, false, "0", NULL, "training",
     "sgd: momentum."},
    REAL(max_grad_norm, 0, 1e9, "1.0", "training",
         "Clip the gradient to this norm; 0: no clipping."),
    CHOICE(
        gradient_checkpointing, recomputes, "auto", "training",
        "Recompute each layer in backward instead of keeping its activations: less memory, about a "
        "third more time, the same bits. auto: keep them if they fit, else recompute norms and "
        "activation functions, else whole layers. On the CPU norms and activation functions are "
        "always recomputed, which costs next to nothing."),
    INT(seed, 0, 9007199254740991, "42", "training",
        "Seed of initialisation, shuffling and dropout."),

    {"eval_steps", FT_T_REAL, AT(eval_steps), 0, 1e9, true, false, NULL, NULL, "evaluation",
     "Evaluate every so many steps; below 1: a share of the run. Unset: once an epoch."},
    INT(evals_per_epoch, 0, 1000000, NULL, "evaluation", "Evaluations an epoch; 0: as if unset."),
    BOOL(eval_on_start, "true", "evaluation",
         "Evaluate before the first step too: what the model can without training."),
    CHOICE(
        eval_strategy, strategies, "unset", "evaluation",
        "no: never evaluate, not even before the first step. epoch: at the end of each. steps: "
        "every "
        "eval_steps, or logging_steps. Unset: what eval_steps or evals_per_epoch say, else epoch."),
    {"loss_watchdog_threshold", FT_T_REAL, AT(loss_watchdog_threshold), 0, 1e30, true, false, NULL,
     NULL, "training",
     "Stop when the training loss is above this for loss_watchdog_patience steps in a row; the "
     "adapter "
     "is written. A loss that is not finite always stops the run."},
    INT(loss_watchdog_patience, 0, 1000000000, NULL, "training",
        "How many steps in a row the loss must be above loss_watchdog_threshold; unset or 0: 3."),

    CHOICE(
        device, devices, "auto", "machine",
        "Where to train. cuda: the first visible NVIDIA GPU, bf16 with fp32 sums. auto: the GPU if "
        "there is one that works, else the CPU."),
    CHOICE(
        bf16, bf16s, "unset", "machine",
        "Products of bf16 numbers with fp32 sums. unset: on a GPU. auto, true: on a CPU too, where "
        "it has units for them that are faster than fp32's (AMX, AMD's AVX-512-BF16, ARM's BF16); "
        "true says "
        "so if not. Everything else is fp32 on a CPU."),
    INT(threads, 0, 4096, "0", "machine",
        "Threads; 0: what affinity, the cgroup's quota and SLURM_CPUS_PER_TASK allow. The results "
        "do "
        "not depend on it."),
    {"cpu_isa", FT_T_WORD, AT(cpu_isa), 0, 0, false, false, "auto", isas, "machine",
     "The instruction set of the CPU kernels. avx2, avx512 and (on ARM) neon give the same bits in "
     "fp32. amx has bf16 products alone. openblas: generic, with OpenBLAS's products; auto takes "
     "it on a processor that ft has no products for."},

    PATH(output_dir, "output", "Folder for the adapter, metrics.jsonl and run.json."),
    BOOL(overwrite_output_dir, "false", "output",
         "Train into a folder that holds another run, or one that is finished, replacing its "
         "files."),
    INT(logging_steps, 1, 1000000000, "1", "output",
        "Write a line of metrics every so many steps."),
    BOOL(use_tensorboard, "false", "output",
         "Write TensorBoard event files too, into the folder 'tensorboard' of output_dir."),
    BOOL(use_mlflow, "false", "output",
         "Send losses and the config to an MLflow server, too; it never holds training up. "
         "mlflow_experiment_name does the same."),
    TEXT(mlflow_tracking_uri, "output",
         "The server, http://HOST:PORT. Unset: the variable MLFLOW_TRACKING_URI."),
    TEXT(mlflow_experiment_name, "output",
         "The experiment there, which is made if it is not there; unset: ft."),
    TEXT(mlflow_run_name, "output", "The name of the run there; unset: the server's choice."),
    CHOICE(use_wandb, wandb_uses, "auto", "output",
           "Write an offline run of Weights & Biases, too, in the folder 'wandb' of output_dir; "
           "'wandb sync' uploads it, ft never does. auto: if wandb_project is set."),
    TEXT(wandb_project, "output", "The run's project there; unset: ft."),
    TEXT(wandb_entity, "output", "The user or team there; unset: whoever uploads it."),
    TEXT(wandb_name, "output", "The name of the run; unset: the last part of output_dir."),
    TEXT(wandb_run_id, "output", "The id of the run; unset: a new one."),
    {"wandb_mode", FT_T_WORD, AT(wandb_mode), 0, 0, false, false, "offline", wandb_modes, "output",
     "disabled: no run is written. online and offline are the same to ft."},

    PATH(
        baseline, "output",
        "An earlier run's folder, or its metrics.jsonl: at the end the run is compared with it, as "
        "'ft compare' does, and ft exits with 6 if they differ."),
    REAL(
        baseline_tolerance, 0, 1e9, "0.01", "output",
        "What losses may differ by, relatively, where version, device, instruction set, threads or "
        "card do; where they do not, every bit counts."),

    {"save_steps", FT_T_REAL, AT(save_steps), 0, 1e9, true, false, NULL, NULL, "checkpoints",
     "A checkpoint every so many steps; below 1: a share of the run. Unset: at the end of each "
     "epoch and every ten minutes."},
    INT(saves_per_epoch, 0, 1000000, NULL, "checkpoints", "Checkpoints an epoch; 0: as if unset."),
    CHOICE(
        save_strategy, save_strategies, "unset", "checkpoints",
        "no: none but when the run is interrupted. epoch: at the end of each epoch. steps: every "
        "save_steps, or each 500. best: where evaluation is better than ever. Unset: what "
        "save_steps or saves_per_epoch say, else each epoch and every ten minutes."),
    INT(save_total_limit, 1, 1000000, NULL, "checkpoints",
        "How many checkpoints to keep, beside the best; unset: 2, or 4 where the config says when "
        "to save."),
    BOOL(save_first_step, "false", "checkpoints", "A checkpoint after the first step too."),
    BOOL(auto_resume_from_checkpoints, "true", "checkpoints",
         "Go on from the newest checkpoint in output_dir that is whole. false: start again, which "
         "needs overwrite_output_dir."),
    PATH(resume_from_checkpoint, "checkpoints",
         "Go on from this checkpoint folder, of whichever run; true: from the newest one in "
         "output_dir."),
    {"resume_with_changes", FT_T_TEXTS, AT(resume_with_changes), 0, 0, false, false, NULL, NULL,
     "checkpoints",
     "What may differ from the run that is resumed: keys of the config, 'model', 'data'. The rest "
     "of the run is another one then."},
    BOOL(load_best_model_at_end, "false", "checkpoints",
         "Write the adapter of the best evaluation instead of the last step's."),
    {"metric_for_best_model", FT_T_WORD, AT(metric_for_best_model), 0, 0, false, false, "eval_loss",
     best_metrics, "checkpoints", "What is compared between evaluations: their loss."},
    BOOL(greater_is_better, "false", "checkpoints",
         "Whether a larger metric is a better one; of losses it is not."),
    INT(early_stopping_patience, 1, 1000000, NULL, "checkpoints",
        "Stop after so many evaluations in a row that were not better than the best."),
};
const int ft_option_count = sizeof ft_options / sizeof *ft_options;

int ft_option_find(const char *key)
{
    for (int i = 0; i < ft_option_count; i++)
        if (strcmp(ft_options[i].key, key) == 0)
            return i;
    return -1;
}
