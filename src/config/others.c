/* Owns the table of other programs' keys: Axolotl 0.19's, above all. A row has a reason and the
 * keys that it is the reason for. */
#include "config/options.h"
#include "core/text.h"

#include <string.h>
#include <strings.h>

/* --- keys whose values matter --- */

static const char *shown(const struct ft_yaml *n)
{
    return n->kind == FT_YAML_SCALAR ? n->text : n->kind == FT_YAML_LIST ? "a list" : "a map";
}

static int check_plugins(const struct ft_yaml *n)
{
    static const char *const harmless[] = {"liger",   "cut_cross_entropy", "kernels.KernelsPlugin",
                                           "swanlab", "expert_parallel",   "lm_eval"};
    const struct ft_yaml *e = n->kind == FT_YAML_LIST ? n->first : n;
    for (; e; e = n->kind == FT_YAML_LIST ? e->next : NULL) {
        bool is = false;
        for (size_t i = 0; e->kind == FT_YAML_SCALAR && i < sizeof harmless / sizeof *harmless; i++)
            is = is || strstr(e->text, harmless[i]) != NULL;
        if (!is)
            return ft_fail_at(e->at, FT_ECONFIG, "plugin '%s' is not one that ft can do without",
                              shown(e));
    }
    return FT_OK;
}

/* A file of it says how ranks share the work; what it says of optimizers is read from a map only.
 */
static int check_deepspeed(const struct ft_yaml *n)
{
    static const char *const own[] = {"optimizer", "scheduler"};
    for (int i = 0; i < 2 && n->kind == FT_YAML_MAP; i++)
        if (ft_yaml_get(n, own[i])) {
            ft_fail_at(n->at, FT_ECONFIG, "'deepspeed' has its own '%s', which ft does not read",
                       own[i]);
            ft_hint("say it with 'optimizer', 'learning_rate' and 'lr_scheduler'");
            return FT_ECONFIG;
        }
    return FT_OK;
}

static int check_model_type(const struct ft_yaml *n)
{
    if (n->kind != FT_YAML_SCALAR || !strstr(n->text, "Classification"))
        return FT_OK;
    return ft_fail_at(n->at, FT_ECONFIG,
                      "'model_type' is '%s': ft trains language models, no "
                      "classifiers",
                      n->text);
}

static int check_stored_quantization(const struct ft_yaml *n)
{
    if (n->kind == FT_YAML_SCALAR &&
        (strcmp(n->text, "Mxfp4Config") == 0 || strcmp(n->text, "FineGrainedFP8Config") == 0))
        return FT_OK;
    return ft_fail_at(n->at, FT_ECONFIG,
                      "'model_quantization_config' is '%s', allowed Mxfp4Config and "
                      "FineGrainedFP8Config",
                      shown(n));
}

/* Of the arguments only one says nothing of how ft would quantise. */
static int check_dequantize(const struct ft_yaml *n)
{
    for (const struct ft_yaml *e = n->kind == FT_YAML_MAP ? n->first : n; e; e = e->next) {
        if (n->kind == FT_YAML_MAP && strcmp(e->key, "dequantize") == 0)
            continue;
        ft_fail_at(e->at, FT_ECONFIG, "'model_quantization_config_kwargs' has '%s'",
                   n->kind == FT_YAML_MAP ? e->key : shown(n));
        ft_hint("only 'dequantize' is taken: ft quantises with load_in_4bit and load_in_8bit");
        return FT_ECONFIG;
    }
    return FT_OK;
}

/* --- the table --- */

const struct ft_other ft_others[] = {
    /* known to ft's plans, not there yet, and a run without it is another one */
    {FT_LATER, "fp8 fp8_config",
     "Products in FP8, which need a card of compute capability 8.9 or later (Ada, Hopper). Not "
     "there "
     "yet.",
     NULL},
    {FT_LATER, "nonexpert_quantization gemma4_fp8_nonexpert gemma4_nf4_nonexpert",
     "Matrices of one model in two formats. Not there yet.", NULL},
    {FT_LATER, "peft", "LoftQ's initialisation. Not there yet.", NULL},
    {FT_LATER, "peft_layers_pattern", "Layers of another name than the model's. Not there yet.",
     NULL},
    {FT_LATER, "embedding_lr embedding_lr_scale",
     "A learning rate of the embedding's own. Not there yet.", NULL},
    {FT_LATER, "peft_ensure_weight_tying",
     "One copy of a tied embedding and head in an adapter. Not there yet.", NULL},
    {FT_LATER, "dsv4_fp4_grouped_mode", "fp4 arithmetic. Not there yet.", NULL},
    /* not there yet, and the adapter is the same without */
    {FT_LATER_OK, "hf_mlflow_log_artifacts", "MLflow gets numbers and parameters, no files yet.",
     NULL},
    {FT_LATER_OK, "eval_sequence_len", "Evaluation uses sequence_len.", NULL},
    {FT_LATER_OK, "dynamic_checkpoint", "Checkpoints on demand. Not there yet.", NULL},
    /* changes nothing in what ft computes */
    {FT_NOTICE, "fp16 float16", "ft computes in bf16 on a GPU, in fp32 on a CPU.", NULL},
    {FT_NOTICE, "deepspeed",
     "There is one device; where there were several, raise gradient_accumulation_steps by "
     "their number.",
     check_deepspeed},
    {FT_NOTICE,
     "world_size fsdp fsdp_config fsdp_version sequence_parallel_degree "
     "context_parallel_size tensor_parallel_size",
     "There is one device; where there were several, raise gradient_accumulation_steps by "
     "their number.",
     NULL},
    {FT_NOTICE, "model_type", "ft reads the architecture from config.json.", check_model_type},
    {FT_NOTICE,
     "is_llama_derived_model is_mistral_derived_model is_falcon_derived_model "
     "cls_model_config type_of_model is_qwen_derived_model",
     "ft reads the architecture from config.json.", NULL},
    {FT_NOTICE, "tokenizer_type tokenizer_legacy", "ft reads the tokenizer's own files.", NULL},
    {FT_NOTICE, "tokenizer_use_fast", "ft has one tokenizer.", NULL},
    {FT_NOTICE, "trust_remote_code", "ft never runs a model's code.", NULL},
    {FT_NOTICE, "strict", "ft always checks every tensor.", NULL},
    {FT_NOTICE, "tf32", "Products are fp32 on the CPU and bf16 on a GPU.", NULL},
    {FT_NOTICE,
     "flash_attention sdp_attention xformers_attention eager_attention attn_implementation "
     "flex_attention flex_attn_compile_kwargs flash_attn_d512 gemma4_hybrid_attn_impl "
     "large_head_attention",
     "Attention is always computed blockwise.", NULL},
    {FT_NOTICE,
     "flash_attn_cross_entropy cut_cross_entropy chunked_cross_entropy "
     "chunked_cross_entropy_num_chunks",
     "The loss is always computed in chunks.", NULL},
    {FT_NOTICE,
     "flash_attn_rms_norm flash_attn_fuse_mlp liger_rope liger_rms_norm "
     "liger_glu_activation liger_swiglu liger_layer_norm liger_cross_entropy "
     "liger_fused_linear_cross_entropy use_kernels flash_optimum fused_attn_kernel "
     "experts_implementation expert_backend use_scattermoe use_sonicmoe use_dsv4_kernels "
     "use_glm_dsa_kernels moe_grouped_backend moe_dequant_chunk_size moe_bnb_fast "
     "dsv4_fp8_lora_kernel liger_rms_norm_gated liger_kernel_impl tiled_mlp "
     "tiled_mlp_num_shards tiled_mlp_use_original_mlp unsloth_cross_entropy_loss "
     "unsloth_rms_norm unsloth_rope",
     "ft has its own kernels.", NULL},
    {FT_NOTICE, "gradient_checkpointing_kwargs", "Recompute has no variants.", NULL},
    {FT_NOTICE,
     "lora_mlp_kernel lora_qkv_kernel lora_o_kernel dsv4_shared_mlp_lora_kernel "
     "lora_embedding_kernel unsloth_lora_mlp unsloth_lora_qkv unsloth_lora_o",
     "Adapters are always fused.", NULL},
    {FT_NOTICE, "lora_fan_in_fan_out", "ft knows each module's layout.", NULL},
    {FT_NOTICE, "torch_compile torch_compile_backend torch_compile_mode torch_compile_options",
     "ft is compiled.", NULL},
    {FT_NOTICE, "pad_to_sequence_len pad_to_multiple_of batch_flattening", "ft never pads.", NULL},
    {FT_NOTICE, "eval_sample_packing", "Evaluation does not depend on packing.", NULL},
    {FT_NOTICE, "multipack_real_batches", "ft packs whole documents end to end.", NULL},
    {FT_NOTICE, "sample_packing_group_size", "ft packs over the whole epoch.", NULL},
    {FT_NOTICE, "sample_packing_bin_size", "A bin takes as many documents as fit.", NULL},
    {FT_NOTICE, "group_by_length", "ft never pads, so there is nothing to gain.", NULL},
    {FT_NOTICE, "eval_batch_size", "Evaluation runs in passes of the training's size.", NULL},
    {FT_NOTICE, "shuffle_merged_datasets",
     "Documents are shuffled unless curriculum_sampling is set.", NULL},
    {FT_NOTICE, "shuffle_before_merging_datasets", "Documents are shuffled over all datasets.",
     NULL},
    {FT_NOTICE, "skip_prepare_dataset", "Tokenized datasets are given as such.", NULL},
    {FT_NOTICE, "dataset_processes dataset_num_proc", "Threads follow 'threads'.", NULL},
    {FT_NOTICE, "dataset_keep_in_memory",
     "Tokens stay in their file, and are read as they are needed.", NULL},
    {FT_NOTICE, "dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor",
     "Batches are made in the program.", NULL},
    {FT_NOTICE,
     "eval_table_size eval_max_new_tokens generate_samples num_generation_samples "
     "generation_max_new_tokens generation_temperature generation_top_p generation_top_k "
     "generation_prompt_ratio generation_do_sample",
     "ft generates no text while training.", NULL},
    {FT_NOTICE, "eval_causal_lm_metrics do_causal_lm_eval", "Evaluation gives the loss.", NULL},
    {FT_NOTICE, "wandb_watch wandb_log_model", "W&B gets numbers and the config, no files.", NULL},
    {FT_NOTICE, "hub_model_id hub_strategy push_dataset_to_hub hub_revision", "ft never uploads.",
     NULL},
    {FT_NOTICE, "hf_use_auth_token", "ft downloads and uploads nothing.", NULL},
    {FT_NOTICE, "save_safetensors", "ft always writes safetensors.", NULL},
    {FT_NOTICE, "save_only_model", "A checkpoint always has what resuming needs.", NULL},
    {FT_NOTICE, "include_tokens_per_second include_tkps", "tokens/s is always logged.", NULL},
    {FT_NOTICE, "debug", "Use -v for more output.", NULL},
    {FT_NOTICE, "local_rank", "ft finds its rank itself.", NULL},
    {FT_NOTICE,
     "ddp_timeout ddp_find_unused_parameters fp8_enable_fsdp_float8_all_gather ddp "
     "ddp_bucket_cap_mb ddp_broadcast_buffers deepcompile fsdp_final_state_dict_type "
     "dp_shard_size dp_replicate_size heads_k_stride ring_attn_func expert_parallel_size "
     "expert_parallel_backend expert_parallel_num_nvl_bytes expert_parallel_num_rdma_bytes "
     "expert_parallel_token_capacity expert_parallel_fallback_on_unsupported "
     "accelerator_config",
     "There is one rank.", NULL},
    {FT_NOTICE, "low_cpu_mem_usage", "Weights are never in memory twice.", NULL},
    {FT_NOTICE, "lora_on_cpu", "The adapter lies where it is trained.", NULL},
    {FT_NOTICE, "axolotl_config_path", "ft reads one file.", NULL},
    {FT_NOTICE, "embeddings_skip_upcast", "Embeddings keep their stored type.", NULL},
    {FT_NOTICE, "quantization", "A setting of another command of Axolotl's.", NULL},
    {FT_NOTICE, "tokenizer_use_mistral_common",
     "ft reads tokenizer.json and the model's own chat template.", NULL},
    {FT_NOTICE, "tokenizer_save_jinja_files", "ft writes the adapter, not a tokenizer.", NULL},
    {FT_NOTICE, "freeze_mm_modules", "ft trains no vision or audio modules.", NULL},
    {FT_NOTICE, "experimental_skip_move_to_device ple_cpu_offload",
     "ft places each weight where it is used.", NULL},
    {FT_NOTICE, "mean_resizing_embeddings",
     "New rows of the embedding begin as the mean of the others.", NULL},
    {FT_NOTICE, "torch_dtype", "Axolotl computes it itself; bf16 says what ft computes in.", NULL},
    {FT_NOTICE, "device_map", "There is one device; 'device' says which.", NULL},
    {FT_NOTICE, "max_memory gpu_memory_limit torch_empty_cache_steps",
     "ft plans its memory itself.", NULL},
    {FT_NOTICE, "layer_offloading", "Weights stay where they are used.", NULL},
    {FT_NOTICE, "peft_autocast_adapter_dtype", "The adapter is always kept in fp32.", NULL},
    {FT_NOTICE, "qlora_sharded_model_loading", "There is one device.", NULL},
    {FT_NOTICE, "merge_lora merge_method",
     "Training writes an adapter; merging is another command.", NULL},
    {FT_NOTICE, "gptq_disable_exllama", "ft has no GPTQ kernels to choose from.", NULL},
    {FT_NOTICE, "gptq", "The model's own config.json says so.", NULL},
    {FT_NOTICE, "gptq_groupsize gptq_model_v1",
     "Axolotl ignores it too: the model's own files say it.", NULL},
    {FT_NOTICE, "model_quantization_config",
     "Weights are read as the model's folder has them: MXFP4 and FP8 stay what they are.",
     check_stored_quantization},
    {FT_NOTICE, "model_quantization_config_kwargs",
     "Stored weights are the same numbers, dequantised or not.", check_dequantize},
    {FT_NOTICE, "llama4_linearized_experts",
     "Experts are read under either names, in one tensor or one by one.", NULL},
    {FT_NOTICE, "bfloat16", "'bf16' says what ft computes in.", NULL},
    {FT_NOTICE, "float32", "Axolotl reads it nowhere in training; bf16: false is fp32.", NULL},
    {FT_NOTICE, "fp32_norms fp32_norm_classes",
     "A setting of FSDP's; ft's norms always sum in fp32.", NULL},
    {FT_NOTICE, "sage_attention", "Attention is always computed blockwise, and never in 8 bits.",
     NULL},
    {FT_NOTICE, "sdpa_varlen", "Documents never attend to one another, whatever the kernel.", NULL},
    {FT_NOTICE, "dsv4_fp8_nonexpert_mode dsv4_bf16_all", "Weights keep their stored type.", NULL},
    {FT_NOTICE, "activation_offloading", "Activations stay on the device, or are recomputed.",
     NULL},
    {FT_NOTICE, "selective_checkpointing",
     "gradient_checkpointing says what is kept; the bits are the same.", NULL},
    {FT_NOTICE, "gc_steps gc_collect_steps", "ft has no garbage to collect.", NULL},
    {FT_NOTICE, "context_parapllel_size",
     "A misspelt context_parallel_size, which Axolotl ignores too.", NULL},
    {FT_NOTICE, "use_ray ray_run_name ray_num_workers resources_per_worker",
     "ft starts its own process.", NULL},
    {FT_NOTICE, "num_dataset_shards_to_save", "Tokens are kept in one file.", NULL},
    {FT_NOTICE, "remove_unused_columns", "ft reads only the fields that it needs.", NULL},
    {FT_NOTICE, "is_preprocess preprocess_iterable", "Axolotl's own bookkeeping.", NULL},
    {FT_NOTICE, "total_num_tokens total_supervised_tokens", "ft counts the tokens itself.", NULL},
    {FT_NOTICE, "sample_packing_sequentially", "Bins are filled first-fit over the shuffled order.",
     NULL},
    {FT_NOTICE, "sample_packing_mp_start_method", "ft packs in the program.", NULL},
    {FT_NOTICE, "sample_packing_eff_est", "ft counts the packed batches exactly.", NULL},
    {FT_NOTICE,
     "pretrain_multipack_buffer_size pretrain_multipack_attn "
     "pretraining_sample_concatenation",
     "Only for pretraining_dataset.", NULL},
    {FT_NOTICE, "streaming_multipack_buffer_size", "Only for streaming.", NULL},
    {FT_NOTICE, "auto_find_batch_size", "The batch is as large as the config says.", NULL},
    {FT_NOTICE, "torchdistx_path", "Only adamw_anyprecision reads it.", NULL},
    {FT_NOTICE, "lr_div_factor", "Axolotl reads it nowhere.", NULL},
    {FT_NOTICE, "adam_epsilon2 adam_beta3", "Only CAME reads it.", NULL},
    {FT_NOTICE, "adam_eps", "Axolotl ignores it too; adam_epsilon is the key.", NULL},
    {FT_NOTICE, "dion_lr dion_momentum dion_rank_fraction dion_rank_multiple_of",
     "Only Dion reads it.", NULL},
    {FT_NOTICE,
     "qgalore_rank qgalore_update_proj_gap qgalore_scale qgalore_proj_type "
     "qgalore_proj_quant qgalore_proj_bits qgalore_proj_group_size qgalore_cos_threshold "
     "qgalore_gamma_proj qgalore_queue_size",
     "Only Q-GaLore reads it.", NULL},
    {FT_NOTICE,
     "do_bench_eval bench_dataset bench_split lm_eval_tasks lm_eval_batch_size "
     "lm_eval_post_train lm_eval_model",
     "ft runs no benchmarks.", NULL},
    {FT_NOTICE, "profiler_steps profiler_steps_start", "ft is profiled from outside.", NULL},
    {FT_NOTICE,
     "use_comet comet_api_key comet_workspace comet_project_name comet_experiment_key "
     "comet_mode comet_online comet_experiment_config",
     "Comet is not used; metrics.jsonl has the numbers.", NULL},
    {FT_NOTICE, "use_trackio trackio_project_name trackio_run_name trackio_space_id",
     "Trackio is not used; metrics.jsonl has the numbers.", NULL},
    {FT_NOTICE, "use_otel_metrics otel_metrics_host otel_metrics_port",
     "OpenTelemetry is not used; metrics.jsonl has the numbers.", NULL},
    {FT_NOTICE,
     "use_swanlab swanlab_project swanlab_experiment_name swanlab_description swanlab_mode "
     "swanlab_workspace swanlab_api_key swanlab_log_model swanlab_web_host "
     "swanlab_api_host swanlab_lark_webhook_url swanlab_lark_secret "
     "swanlab_log_completions swanlab_completion_log_interval "
     "swanlab_completion_max_buffer",
     "SwanLab is not used; metrics.jsonl has the numbers.", NULL},
    {FT_NOTICE,
     "gradio_title gradio_share gradio_server_name gradio_server_port "
     "gradio_max_new_tokens gradio_temperature",
     "ft has no web page.", NULL},
    {FT_NOTICE, "test_value", "No key of Axolotl's either; it ignores it too.", NULL},
    {FT_NOTICE, "capabilities env_capabilities", "ft asks the machine itself.", NULL},
    {FT_NOTICE, "plugins",
     "Axolotl's plugins; those that only choose kernels, trackers or devices change "
     "nothing here.",
     check_plugins},
    /* would change the mathematics */
    {FT_REFUSED, "tokenizer_config",
     "ft reads the tokenizer from the folder of base_model: another one has other ids.", NULL},
    {FT_REFUSED,
     "rl max_prompt_len trl vllm ebft dpo_use_weighting dpo_label_smoothing "
     "precompute_ref_log_probs dpo_use_liger_kernel dpo_padding_free dpo_loss_type "
     "dpo_loss_weights dpo_beta dpo_use_logits_to_keep dpo_generate_during_eval "
     "dpo_norm_loss rpo_alpha orpo_alpha simpo_gamma cpo_alpha kto_desirable_weight "
     "kto_undesirable_weight rl_beta",
     "Preference training is another objective.", NULL},
    {FT_REFUSED, "reward_model process_reward_model center_rewards_coefficient num_labels",
     "Reward models are another objective.", NULL},
    {FT_REFUSED, "noisy_embedding_alpha", "Its name is neftune_noise_alpha.", NULL},
    {FT_REFUSED, "relora_steps relora relora_prune_ratio relora_prune_method relora_cpu_offload",
     "ReLoRA merges and restarts.", NULL},
    {FT_REFUSED, "s2_attention", "Shifted sparse attention is another model.", NULL},
    {FT_REFUSED, "rope_scaling", "Change config.json in the model's folder instead.", NULL},
    {FT_REFUSED, "shrink_embeddings", "ft takes no token away.", NULL},
    {FT_REFUSED, "added_tokens_overrides", "ft does not rename tokens: 'tokens' adds some.", NULL},
    {FT_REFUSED, "lr_scheduler_kwargs", "ft's schedules take no arguments.", NULL},
    {FT_REFUSED, "lr_groups", "One learning rate is used for all modules.", NULL},
    {FT_REFUSED, "optim_args", "Use adam_beta1, adam_beta2, adam_epsilon.", NULL},
    {FT_REFUSED, "optim_target_modules", "GaLore is another optimizer.", NULL},
    {FT_REFUSED, "label_smoothing_factor", "ft's loss is plain cross-entropy.", NULL},
    {FT_REFUSED, "pretraining_dataset streaming", "Use datasets.", NULL},
    {FT_REFUSED, "qat", "Quantised training is another arithmetic.", NULL},
    {FT_REFUSED, "use_pose pose_split_on_token_ids pose_max_context_len pose_num_chunks",
     "PoSE changes positions.", NULL},
    {FT_REFUSED, "base_model_config", "config.json is read from base_model's own folder.", NULL},
    {FT_REFUSED, "overrides_of_model_kwargs model_kwargs",
     "ft has no such arguments when it loads a model.", NULL},
    {FT_REFUSED,
     "processor_type processor_kwargs image_size image_resize_algorithm role_boundaries",
     "ft trains on text only.", NULL},
    {FT_REFUSED, "use_onebitllms", "Ternary models are not adapted.", NULL},
    {FT_REFUSED, "reinit_weights", "ft adapts the weights that the model has.", NULL},
    {FT_REFUSED, "fix_untrained_tokens", "ft leaves the base's embeddings as they are.", NULL},
    {FT_REFUSED, "peft_layer_replication", "Repeated layers are another model.", NULL},
    {FT_REFUSED, "mora", "MoRA is another adapter.", NULL},
    {FT_REFUSED, "lisa_n_layers lisa_step_interval lisa_layers_attribute",
     "LISA trains the base's own layers.", NULL},
    {FT_REFUSED, "spectrum_top_fraction spectrum_model_name",
     "Spectrum trains the base's own layers.", NULL},
    {FT_REFUSED, "llmcompressor", "Sparse and compressed training is another arithmetic.", NULL},
    {FT_REFUSED, "scaling_softmax scaling_softmax_factor scaling_softmax_bias",
     "Scaled softmax is another model.", NULL},
    {FT_REFUSED, "nvfp4_merge_aware nvfp4_merge_aware_start_step",
     "Training that rounds the adapted weights is another arithmetic.", NULL},
    {FT_REFUSED, "dense_mixer", "DenseMixer changes the router's gradients.", NULL},
    {FT_REFUSED, "liger_use_token_scaling", "A loss weighted by probability is another objective.",
     NULL},
    {FT_REFUSED, "dataset_shard_num dataset_shard_idx", "Take a slice instead: split: train[:10%].",
     NULL},
    {FT_REFUSED, "dataloader_drop_last", "ft trains on an epoch's last, smaller batch too.", NULL},
    {FT_REFUSED, "max_packed_sequence_len", "Use sample_packing and sequence_len.", NULL},
    {FT_REFUSED, "trainer_cls", "ft runs no Python code.", NULL},
    {FT_REFUSED, "jagged_restart_steps jagged_restart_warmup_steps jagged_restart_anneal_steps",
     "Restarted learning rates are another schedule.", NULL},
    {FT_REFUSED, "grokfast_alpha grokfast_lamb", "Grokfast filters the gradients.", NULL},
    {FT_REFUSED, "use_eaft eaft_alpha eaft_k", "A loss weighted by entropy is another objective.",
     NULL},
    {FT_REFUSED,
     "kd_trainer kd_ce_alpha kd_alpha kd_temperature kd_temperature_min kd_beta "
     "kd_normalize_topk kd_online_server_base_url kd_online_topk kd_online_server "
     "kd_online_timeout",
     "Distillation is another objective.", NULL},
    {FT_REFUSED, "diffusion", "Diffusion training is another objective.", NULL},
    {FT_REFUSED, "hatchery", "ft trains on this machine.", NULL},
    {FT_REFUSED,
     "nemo_gym_enabled nemo_gym_dir nemo_gym_auto_clone nemo_gym_config_paths "
     "nemo_gym_head_port nemo_gym_server_timeout nemo_gym_verify_timeout "
     "nemo_gym_run_timeout nemo_gym_datasets nemo_gym_auto_start nemo_gym_model_name "
     "nemo_gym_multi_turn nemo_gym_max_turns",
     "Reinforcement learning is another objective.", NULL},
};
const int ft_other_count = sizeof ft_others / sizeof *ft_others;

const char *ft_other_key(const struct ft_other *o, const char *at, size_t *n)
{
    at = at ? at + strcspn(at, " ") : o->keys;
    at += strspn(at, " ");
    *n = strcspn(at, " ");
    return *n ? at : NULL;
}

const struct ft_other *ft_other_find(const char *key)
{
    const size_t length = strlen(key);
    size_t n;
    for (int i = 0; i < ft_other_count; i++)
        for (const char *at = NULL; (at = ft_other_key(&ft_others[i], at, &n));)
            if (n == length && memcmp(at, key, n) == 0)
                return &ft_others[i];
    return NULL;
}

/* --- other names --- */

/* What other programs call an option of ft's, and what people write for one. */
static const struct {
    const char *name, *key;
    bool same; /* the same option: it is read as that; else only a hint */
} names[] = {
    {"model_revision", "revision_of_model", true},
    {"evaluation_strategy", "eval_strategy", true},
    {"model_config", "overrides_of_model_config", true},
    {"lora_rank", "lora_r", false},
    {"rank", "lora_r", false},
    {"r", "lora_r", false},
    {"alpha", "lora_alpha", false},
    {"dropout", "lora_dropout", false},
    {"target_modules", "lora_target_modules", false},
    {"lora_target", "lora_target_modules", false},
    {"use_rslora", "peft_use_rslora", false},
    {"rank_pattern", "lora_rank_pattern", false},
    {"alpha_pattern", "lora_alpha_pattern", false},
    {"layers_to_transform", "peft_layers_to_transform", false},
    {"lora_dir", "lora_model_dir", false},
    {"model", "base_model", false},
    {"model_name_or_path", "base_model", false},
    {"base_model_name_or_path", "base_model", false},
    {"dataset", "datasets", false},
    {"data", "datasets", false},
    {"train_file", "datasets", false},
    {"eval_dataset", "test_datasets", false},
    {"validation_file", "test_datasets", false},
    {"val_size", "val_set_size", false},
    {"val_split", "val_set_size", false},
    {"validation_split", "val_set_size", false},
    {"output", "output_dir", false},
    {"adapter_path", "output_dir", false},
    {"lr", "learning_rate", false},
    {"epochs", "num_epochs", false},
    {"num_train_epochs", "num_epochs", false},
    {"steps", "max_steps", false},
    {"iters", "max_steps", false},
    {"per_device_train_batch_size", "micro_batch_size", false},
    {"grad_accum", "gradient_accumulation_steps", false},
    {"max_seq_length", "sequence_len", false},
    {"max_seq_len", "sequence_len", false},
    {"seq_len", "sequence_len", false},
    {"seq_length", "sequence_len", false},
    {"max_length", "sequence_len", false},
    {"cutoff_len", "sequence_len", false},
    {"packing", "sample_packing", false},
    {"optim", "optimizer", false},
    {"lr_scheduler_type", "lr_scheduler", false},
    {"warmup", "warmup_steps", false},
    {"grad_checkpoint", "gradient_checkpointing", false},
    {"template", "chat_template", false},
    {"n_threads", "threads", false},
    {"num_threads", "threads", false},
    {"random_seed", "seed", false},
};

const char *ft_option_other_name(const char *name, bool *same)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(names[i].name, name) == 0) {
            *same = names[i].same;
            return names[i].key;
        }
    return NULL;
}

const char *ft_option_other_near(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i].name) > 4 && ft_edit_distance(names[i].name, name) <= 2)
            return names[i].key;
    return NULL;
}
