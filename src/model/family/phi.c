/* Phi 3: fused projections. GLM and GLM 4: a fused MLP, and neighbours of half a head are rotated.
 */
#include "model/family/family.h"

static const struct ft_field phi3_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_NO_MORE,
};

const struct ft_family ft_family_phi3 = {
    .architecture = "Phi3ForCausalLM",
    .model_type = "phi3",
    .pad = 32001,
    .fields = {ft_common_fields, phi3_fields},
    .rope = {.theta = 1e4, .partial = 1, .yarn_is_longrope = true},
    .decoder = {.vocab = 32064,
                .hidden = 3072,
                .ffn = 8192,
                .layers = 32,
                .heads = 32,
                .max_positions = 4096,
                .norm_eps = 1e-5,
                .use_window = true,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {[FT_QKV] = "self_attn.qkv_proj",
                                     [FT_O] = "self_attn.o_proj",
                                     [FT_GATE_UP] = "mlp.gate_up_proj",
                                     [FT_DOWN] = "mlp.down_proj"},
                          .layer_norm = {FT_LLAMA_NORMS}}},
};

static const struct ft_field glm_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_QKV),
    FT_NO_MORE,
};

#define GLM                                                                                        \
    .vocab = 151552, .hidden = 4096, .ffn = 13696, .layers = 40, .heads = 32, .kv_heads = 2,       \
    .head_dim = 128, .max_positions = 131072, .norm_eps = 1.5625e-7, .biased = FT_BITS_QKV,        \
    .interleaved = true
#define GLM_MODULES                                                                                \
    FT_LLAMA_ATTENTION, [FT_GATE_UP] = "mlp.gate_up_proj", [FT_DOWN] = "mlp.down_proj"

const struct ft_family ft_family_glm = {
    .architecture = "GlmForCausalLM",
    .model_type = "glm",
    .pad = 151330,
    .fields = {ft_common_fields, glm_fields},
    .rope = {.theta = 1e4, .partial = 0.5},
    .decoder = {GLM, .names = {.prefix = "model.",
                               FT_LLAMA_LAYER,
                               .module = {GLM_MODULES},
                               .layer_norm = {FT_LLAMA_NORMS}}},
};

const struct ft_family ft_family_glm4 = {
    .architecture = "Glm4ForCausalLM",
    .model_type = "glm4",
    .pad = 151330,
    .fields = {ft_common_fields, glm_fields},
    .rope = {.theta = 1e4, .partial = 0.5},
    .decoder = {GLM,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {GLM_MODULES},
                          .layer_norm =
                              {FT_LLAMA_NORMS, [FT_NORM_ATTENTION_OUT] = "post_self_attn_layernorm",
                               [FT_NORM_MLP_OUT] = "post_mlp_layernorm"}}},
};
