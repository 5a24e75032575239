/* Mixtures whose experts are chosen by the scores' sigmoid and a correction: GLM 4.5, dots.llm1,
 * MiniMax M2, Trinity (AFMoE). */
#include "model/family/family.h"

#include <math.h>

int ft_shared_settle(const json_t *root, const char *file, struct ft_decoder *d,
                     const char *shared_key, long long shared, const char *first_key,
                     long long first)
{
    if (!ft_json_int(root, file, shared_key, &shared) ||
        !ft_json_int(root, file, first_key, &first))
        return FT_EDATA;
    if (shared < 1 || shared > 1024 || first < 0 || first > 1 << 24)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'%s' is %lld and '%s' %lld, allowed 1..1024 and 0..16777216", shared_key,
                          shared, first_key, first);
    d->mixture.shared_ffn = shared * d->mixture.ffn;
    d->mixture.first = first;
    return FT_OK;
}

const struct ft_field ft_grouped_fields[] = {
    FT_FIELD("n_routed_experts", FT_COUNT, mixture.count),
    FT_FIELD("norm_topk_prob", FT_FLAG, mixture.normalise),
    FT_FIELD("routed_scaling_factor", FT_REAL, mixture.scale),
    FT_FIELD("n_group", FT_COUNT, mixture.groups),
    FT_FIELD("topk_group", FT_COUNT, mixture.kept_groups),
    FT_NO_MORE,
};

static const struct ft_field glm_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_QKV),
    FT_NO_MORE,
};

static int glm_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    bool normed = false;
    FT_TRY(ft_shared_settle(root, file, d, "n_shared_experts", 1, "first_k_dense_replace", 1));
    if (!ft_json_bool(root, file, "use_qk_norm", &normed))
        return FT_EDATA;
    if (!normed)
        d->names.layer_norm[FT_NORM_Q] = d->names.layer_norm[FT_NORM_K] = NULL;
    return FT_OK;
}

const struct ft_family ft_family_glm4_moe = {
    .architecture = "Glm4MoeForCausalLM",
    .model_type = "glm4_moe",
    .fields = {ft_common_fields, ft_mixture_fields, ft_grouped_fields, glm_fields},
    .rope = {.theta = 1e4, .partial = 0.5},
    .settle = glm_settle,
    .decoder = {.vocab = 151552,
                .hidden = 4096,
                .ffn = 10944,
                .layers = 46,
                .heads = 96,
                .kv_heads = 8,
                .max_positions = 131072,
                .norm_eps = 1e-5,
                .mixture = {.plain_loss = true,
                            .count = 128,
                            .each = 8,
                            .ffn = 1408,
                            .groups = 1,
                            .kept_groups = 1,
                            .sigmoid = true,
                            .normalise = true,
                            .scale = 1},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP, FT_SHARED_EXPERTS,
                                     FT_MLP_EXPERTS},
                          .layer_norm = {FT_LLAMA_NORMS, FT_QK_NORMS},
                          .router = "mlp.gate",
                          .correction = "mlp.gate.e_score_correction_bias",
                          .more_layers = true,
                          .experts = "mlp.experts",
                          FT_LLAMA_EXPERT}},
};

static const struct ft_field dots_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("max_window_layers", FT_COUNT_OR_ZERO, sliding_from),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static int dots_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    return ft_shared_settle(root, file, d, "n_shared_experts", 0, "first_k_dense_replace", 0);
}

const struct ft_family ft_family_dots1 = {
    .architecture = "Dots1ForCausalLM",
    .model_type = "dots1",
    .fields = {ft_common_fields, ft_mixture_fields, ft_grouped_fields, dots_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .settle = dots_settle,
    .decoder = {.vocab = 152064,
                .hidden = 4608,
                .ffn = 10944,
                .layers = 62,
                .heads = 32,
                .kv_heads = 32,
                .max_positions = 2048,
                .norm_eps = 1e-6,
                .window = 4096,
                .use_window = true,
                .sliding_from = 62,
                .mixture = {.plain_loss = true,
                            .ffn = 1408,
                            .groups = 1,
                            .kept_groups = 1,
                            .sigmoid = true,
                            .scale = 1},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP, FT_SHARED_EXPERTS,
                                     FT_MLP_EXPERTS},
                          .layer_norm = {FT_LLAMA_NORMS, FT_QK_NORMS},
                          .router = "mlp.gate",
                          .correction = "mlp.gate.e_score_correction_bias",
                          .experts = "mlp.experts",
                          FT_LLAMA_EXPERT}},
};

/* The part of the loss for even routing is of the scores' softmax, which nothing else here is. */
static const struct ft_field minimax_fields[] = {
    FT_FIELD("num_local_experts", FT_COUNT, mixture.count),
    FT_FIELD("num_experts_per_tok", FT_COUNT, mixture.each),
    FT_MUST_BE("output_router_logits", false),
    FT_NO_MORE,
};

const struct ft_family ft_family_minimax_m2 = {
    .architecture = "MiniMaxM2ForCausalLM",
    .model_type = "minimax_m2",
    .fields = {ft_common_fields, minimax_fields},
    .rope = {.theta = 5e6, .partial = 1, .dim_key = "rotary_dim"},
    .decoder = {.vocab = 200064,
                .hidden = 3072,
                .ffn = 1536,
                .layers = 62,
                .heads = 48,
                .kv_heads = 8,
                .head_dim = 128,
                .max_positions = 196608,
                .norm_eps = 1e-6,
                .qk_norm = FT_QK_WHOLE,
                .mixture = {.plain_loss = true,
                            .count = 256,
                            .each = 8,
                            .sigmoid = true,
                            .normalise = true},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_MLP_EXPERTS},
                          .layer_norm = {FT_LLAMA_NORMS, FT_QK_NORMS},
                          .router = "mlp.gate",
                          .router_in_file = "block_sparse_moe.gate",
                          .correction = "block_sparse_moe.e_score_correction_bias",
                          .more_layers = true,
                          .experts = "block_sparse_moe.experts",
                          .expert = {"w1", "w3", NULL, "w2", NULL}}},
};

static const struct ft_field afmoe_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("global_attn_every_n_layers", FT_COUNT, sliding_every),
    FT_FIELD("route_scale", FT_REAL, mixture.scale),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static int afmoe_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    bool scaled = false;
    FT_TRY(ft_shared_settle(root, file, d, "num_shared_experts", 2, "num_dense_layers", 1));
    if (!ft_json_bool(root, file, "mup_enabled", &scaled))
        return FT_EDATA;
    if (scaled)
        d->embed_scale = sqrt((double)d->hidden);
    return FT_OK;
}

const struct ft_family ft_family_afmoe = {
    .architecture = "AfmoeForCausalLM",
    .model_type = "afmoe",
    .fields = {ft_common_fields, ft_mixture_fields, afmoe_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .settle = afmoe_settle,
    .decoder = {.vocab = 200192,
                .hidden = 2048,
                .ffn = 6144,
                .layers = 32,
                .heads = 16,
                .head_dim = 128,
                .max_positions = 16384,
                .norm_eps = 1e-5,
                .window = 1024,
                .use_window = true,
                .sliding_every = 4,
                .rope_sliding_only = true,
                .mixture = {.plain_loss = true,
                            .count = 64,
                            .each = 6,
                            .ffn = 1408,
                            .sigmoid = true,
                            .normalise = true,
                            .scale = 1},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, [FT_O_GATE] = "self_attn.gate_proj",
                                     FT_LLAMA_MLP, FT_SHARED_EXPERTS, FT_MLP_EXPERTS},
                          .layer_norm = {[FT_NORM_ATTENTION] = "input_layernorm",
                                         [FT_NORM_ATTENTION_OUT] = "post_attention_layernorm",
                                         [FT_NORM_MLP] = "pre_mlp_layernorm",
                                         [FT_NORM_MLP_OUT] = "post_mlp_layernorm",
                                         FT_QK_NORMS},
                          .router = "mlp.router.gate",
                          .correction = "mlp.expert_bias",
                          .experts = "mlp.experts",
                          FT_LLAMA_EXPERT}},
};
