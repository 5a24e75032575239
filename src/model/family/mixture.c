/* Mixtures of experts: Mixtral, Qwen 2 and 3 MoE and the text of Qwen 3 VL MoE, OLMoE, Granite MoE,
 * gpt-oss, the text of Llama 4. */
#include "model/family/family.h"

const struct ft_field ft_mixture_fields[] = {
    FT_FIELD("num_local_experts", FT_COUNT, mixture.count),
    FT_FIELD("num_experts", FT_COUNT, mixture.count),
    FT_FIELD("num_experts_per_tok", FT_COUNT, mixture.each),
    FT_FIELD("moe_intermediate_size", FT_COUNT, mixture.ffn),
    FT_FIELD("output_router_logits", FT_FLAG, mixture.balanced),
    FT_FIELD("router_aux_loss_coef", FT_REAL, mixture.balance_rate),
    FT_NO_MORE,
};

static const struct ft_field mixtral_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_NO_MORE,
};

const struct ft_family ft_family_mixtral = {
    .architecture = "MixtralForCausalLM",
    .model_type = "mixtral",
    .fields = {ft_common_fields, ft_mixture_fields, mixtral_fields},
    .rope = {.theta = 1e6},
    .decoder = {.vocab = 32000,
                .hidden = 4096,
                .ffn = 14336,
                .layers = 32,
                .heads = 32,
                .kv_heads = 8,
                .max_positions = 131072,
                .norm_eps = 1e-5,
                .use_window = true,
                .mixture = {.count = 8, .each = 2, .normalise = true, .balance_rate = 0.001},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_MLP_EXPERTS},
                          .layer_norm = {FT_LLAMA_NORMS},
                          .router = "mlp.gate",
                          .router_in_file = "block_sparse_moe.gate",
                          .experts = "block_sparse_moe.experts",
                          .expert = {"w1", "w3", NULL, "w2", NULL}}},
};

static const struct ft_field qwen_fields[] = {
    FT_FIELD("decoder_sparse_step", FT_COUNT, mixture.every),
    FT_FIELD("norm_topk_prob", FT_FLAG, mixture.normalise),
    FT_FIELD("shared_expert_intermediate_size", FT_COUNT, mixture.shared_ffn),
    FT_FIELD("sliding_window", FT_COUNT_OR_ZERO, window),
    FT_FIELD("use_sliding_window", FT_FLAG, use_window),
    FT_FIELD("max_window_layers", FT_COUNT, sliding_before),
    FT_BIASED("qkv_bias", FT_BITS_QKV),
    FT_NO_MORE,
};

const struct ft_family ft_family_qwen2_moe = {
    .architecture = "Qwen2MoeForCausalLM",
    .model_type = "qwen2_moe",
    .fields = {ft_common_fields, ft_mixture_fields, qwen_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .decoder = {.vocab = 151936,
                .hidden = 2048,
                .ffn = 5632,
                .layers = 24,
                .heads = 16,
                .kv_heads = 16,
                .max_positions = 32768,
                .norm_eps = 1e-6,
                .biased = FT_BITS_QKV,
                .window = 4096,
                .sliding_every = 2,
                .sliding_before = 28,
                .mixture = {.count = 60,
                            .each = 4,
                            .ffn = 1408,
                            .shared_ffn = 5632,
                            .balance_rate = 0.001},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION,
                                     FT_LLAMA_MLP, [FT_SHARED_GATE] = "mlp.shared_expert.gate_proj",
                                     [FT_SHARED_UP] = "mlp.shared_expert.up_proj",
                                     [FT_SHARED_DOWN] = "mlp.shared_expert.down_proj",
                                     [FT_SHARED_SCALE] = "mlp.shared_expert_gate", FT_MLP_EXPERTS},
                          .layer_norm = {FT_LLAMA_NORMS},
                          .router = "mlp.gate",
                          .experts = "mlp.experts",
                          FT_LLAMA_EXPERT}},
};

static const struct ft_field qwen3_fields[] = {
    FT_FIELD("decoder_sparse_step", FT_COUNT, mixture.every),
    FT_FIELD("norm_topk_prob", FT_FLAG, mixture.normalise),
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("use_sliding_window", FT_FLAG, use_window),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

#define QWEN3_NAMES(is_turned)                                                                     \
    .names = {.prefix = "model.",                                                                  \
              FT_LLAMA_LAYER,                                                                      \
              .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP, FT_MLP_EXPERTS},                        \
              .layer_norm = {FT_LLAMA_NORMS, FT_QK_NORMS},                                         \
              .router = "mlp.gate",                                                                \
              .experts = "mlp.experts",                                                            \
              FT_LLAMA_EXPERT,                                                                     \
              .turned = is_turned}

const struct ft_family ft_family_qwen3_moe = {
    .architecture = "Qwen3MoeForCausalLM",
    .model_type = "qwen3_moe",
    .fields = {ft_common_fields, ft_mixture_fields, qwen3_fields},
    .rope = {.theta = 1e4},
    .decoder = {.vocab = 151936,
                .hidden = 2048,
                .ffn = 6144,
                .layers = 24,
                .heads = 32,
                .kv_heads = 4,
                .max_positions = 32768,
                .norm_eps = 1e-6,
                .window = 4096,
                .mixture = {.count = 128, .each = 8, .ffn = 768, .balance_rate = 0.001},
                QWEN3_NAMES(false)},
};

static const struct ft_field qwen3_vl_fields[] = {
    FT_FIELD("decoder_sparse_step", FT_COUNT, mixture.every),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static const struct ft_family qwen3_vl_moe_text = {
    .model_type = "qwen3_vl_moe_text",
    .fields = {ft_common_fields, ft_mixture_fields, qwen3_vl_fields},
    .rope = {.theta = 5e5},
    .decoder =
        {.vocab = 151936,
         .hidden = 2048,
         .ffn = 5632,
         .layers = 24,
         .heads = 16,
         .kv_heads = 16,
         .max_positions = 128000,
         .norm_eps = 1e-6,
         .mixture = {.count = 60, .each = 4, .ffn = 1408, .normalise = true, .balance_rate = 0.001},
         QWEN3_NAMES(true)},
};

const struct ft_family ft_family_qwen3_vl_moe = {
    .architecture = "Qwen3VLMoeForConditionalGeneration",
    .model_type = "qwen3_vl_moe",
    .text = {&qwen3_vl_moe_text},
    .decoder = {.names = {.prefix = "model.language_model.",
                          .in_file = {"model.language_model.", "model."},
                          .others = {"visual.", "model.visual."}}},
};

static const struct ft_field olmoe_fields[] = {
    FT_FIELD("norm_topk_prob", FT_FLAG, mixture.normalise),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static int olmoe_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    (void)d;
    if (!ft_json_get(root, "clip_qkv"))
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                      "'clip_qkv' is set: ft does not clip queries, keys and values");
}

const struct ft_family ft_family_olmoe = {
    .architecture = "OlmoeForCausalLM",
    .model_type = "olmoe",
    .pad = 2,
    .fields = {ft_common_fields, ft_mixture_fields, olmoe_fields},
    .rope = {.theta = 1e4},
    .settle = olmoe_settle,
    .decoder = {.vocab = 50304,
                .hidden = 2048,
                .ffn = 2048,
                .layers = 16,
                .heads = 16,
                .max_positions = 4096,
                .norm_eps = 1e-5,
                .qk_norm = FT_QK_WHOLE,
                .mixture = {.count = 64, .each = 8, .balance_rate = 0.01},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_MLP_EXPERTS},
                          .layer_norm = {FT_LLAMA_NORMS, FT_QK_NORMS},
                          .router = "mlp.gate",
                          .experts = "mlp.experts",
                          FT_LLAMA_EXPERT}},
};

const struct ft_family ft_family_granitemoe = {
    .architecture = "GraniteMoeForCausalLM",
    .model_type = "granitemoe",
    .fields = {ft_common_fields, ft_mixture_fields, ft_granite_fields, ft_bias_fields},
    .rope = {.theta = 1e4},
    .settle = ft_granite_settle,
    .decoder = {.vocab = 32000,
                .hidden = 4096,
                .ffn = 11008,
                .layers = 32,
                .heads = 32,
                .max_positions = 2048,
                .norm_eps = 1e-6,
                .attention_scale = 1,
                .mixture = {.count = 8, .each = 2, .normalise = true, .balance_rate = 0.001},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION,
                                     [FT_EXPERTS_IN] = "block_sparse_moe.experts.gate_up_proj",
                                     [FT_EXPERTS_OUT] = "block_sparse_moe.experts.down_proj"},
                          .layer_norm = {FT_LLAMA_NORMS},
                          .router = "block_sparse_moe.router",
                          .router_in_file = "block_sparse_moe.router.layer",
                          .all_in_file = {"block_sparse_moe.input_linear.weight",
                                          "block_sparse_moe.output_linear.weight"}}},
};

static const struct ft_field gpt_oss_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("swiglu_alpha", FT_REAL, mixture.pair_alpha),
    FT_FIELD("swiglu_limit", FT_REAL, mixture.pair_limit),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static int gpt_oss_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    (void)root;
    if (d->mixture.pair_limit > 0)
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                      "'swiglu_limit' is %g, allowed above 0", d->mixture.pair_limit);
}

const struct ft_family ft_family_gpt_oss = {
    .architecture = "GptOssForCausalLM",
    .model_type = "gpt_oss",
    .fields = {ft_common_fields, ft_mixture_fields, gpt_oss_fields},
    .rope = {.theta = 1.5e5,
             .fallback = "{\"rope_type\": \"yarn\", \"factor\": 32.0, \"beta_fast\": 32.0, "
                         "\"beta_slow\": 1.0, \"truncate\": false, "
                         "\"original_max_position_embeddings\": 4096}"},
    .layer_types = true,
    .settle = gpt_oss_settle,
    .decoder = {.vocab = 201088,
                .hidden = 2880,
                .ffn = 2880,
                .layers = 36,
                .heads = 64,
                .kv_heads = 8,
                .head_dim = 64,
                .max_positions = 131072,
                .norm_eps = 1e-5,
                .biased = FT_BITS_ATTEND,
                .window = 128,
                .use_window = true,
                .sliding_every = 2,
                .mixture = {.balance_rate = 0.001,
                            .count = 128,
                            .each = 4,
                            .normalise = true,
                            .biased = true,
                            .pair_alpha = 1.702,
                            .pair_limit = 7},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_MLP_EXPERTS},
                          .layer_norm = {FT_LLAMA_NORMS},
                          .sinks = "self_attn.sinks",
                          .router = "mlp.router",
                          .always_turned = true}},
};

static const struct ft_field llama4_fields[] = {
    FT_FIELD("interleave_moe_layer_step", FT_COUNT, mixture.every),
    FT_FIELD("attention_chunk_size", FT_COUNT_OR_NONE, chunk),
    FT_FIELD("no_rope_layer_interval", FT_COUNT, nope_every),
    FT_FIELD("use_qk_norm", FT_FLAG, qk_length),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

/* Queries of layers without positions grow with theirs; the first release says 4 for true. */
static int llama4_temperature(const json_t *root, const char *file, struct ft_decoder *d)
{
    const json_t *on = ft_json_get(root, "attn_temperature_tuning");
    double scale = 0.1;
    long long floor_scale = 8192;
    if (!ft_json_real(root, file, "attn_scale", &scale) ||
        !ft_json_int(root, file, "floor_scale", &floor_scale))
        return FT_EDATA;
    if (floor_scale < 1 || !(scale >= 0) || scale > 1e6)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'floor_scale' is %lld and 'attn_scale' %g, allowed from 1 and from 0",
                          floor_scale, scale);
    if (json_is_false(on) || (json_is_integer(on) && json_integer_value(on) == 0))
        return FT_OK;
    d->rope[1].still = (double)floor_scale;
    d->rope[1].growth = scale;
    return FT_OK;
}

/* Experts and the shared one are of one width, dense layers of another. */
static int llama4_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    long long dense = 16384;
    if (!ft_json_int(root, file, "intermediate_size_mlp", &dense))
        return FT_EDATA;
    if (dense < 1 || dense > 1 << 24)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'intermediate_size_mlp' is %lld, allowed 1..16777216", dense);
    d->mixture.ffn = d->mixture.shared_ffn = d->ffn;
    d->ffn = dense;
    return llama4_temperature(root, file, d);
}

const struct ft_family ft_family_llama4_text = {
    .architecture = "Llama4ForCausalLM",
    .model_type = "llama4_text",
    .fields = {ft_common_fields, ft_mixture_fields, llama4_fields},
    .rope = {.theta = 5e5},
    .layer_types = true,
    .settle = llama4_settle,
    .decoder =
        {.vocab = 202048,
         .hidden = 5120,
         .ffn = 8192,
         .layers = 48,
         .heads = 40,
         .kv_heads = 8,
         .head_dim = 128,
         .max_positions = 131072,
         .norm_eps = 1e-5,
         .interleaved = true,
         .nope_every = 4,
         .chunk = 8192,
         .qk_length = true,
         .mixture =
             {.plain_loss = true, .count = 16, .each = 1, .sigmoid = true, .weighs_inputs = true},
         .names =
             {.prefix = "model.",
              FT_LLAMA_LAYER,
              .layer_norm = {FT_LLAMA_NORMS},
              .router = "feed_forward.router",
              .linear = {"gate_projs", "up_projs", NULL, "down_projs"}, /* Axolotl's linearised */
              .always_turned = true,
              .crossed = true,
              .module = {FT_LLAMA_ATTENTION, [FT_GATE] = "feed_forward.gate_proj",
                         [FT_UP] = "feed_forward.up_proj", [FT_DOWN] = "feed_forward.down_proj",
                         [FT_SHARED_GATE] = "feed_forward.shared_expert.gate_proj",
                         [FT_SHARED_UP] = "feed_forward.shared_expert.up_proj",
                         [FT_SHARED_DOWN] = "feed_forward.shared_expert.down_proj",
                         [FT_EXPERTS_IN] = "feed_forward.experts.gate_up_proj",
                         [FT_EXPERTS_OUT] = "feed_forward.experts.down_proj"}}},
};

const struct ft_family ft_family_llama4 = {
    .architecture = "Llama4ForConditionalGeneration",
    .model_type = "llama4",
    .text = {&ft_family_llama4_text},
    .decoder = {.names = {.prefix = "language_model.model.",
                          .head = "language_model.lm_head",
                          .in_file = {"language_model.model."},
                          .others = {"vision_model.", "multi_modal_projector."}}},
};
