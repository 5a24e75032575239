/* OLMo 2 and 3: norms behind attention and MLP instead of before, and over all of q and k. */
#include "model/family/family.h"

static const struct ft_field bias_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static const struct ft_field window_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_NO_MORE,
};

#define OLMO                                                                                       \
    .vocab = 50304, .hidden = 4096, .ffn = 11008, .layers = 32, .heads = 32,                       \
    .max_positions = 2048, .norm_eps = 1e-5, .qk_norm = FT_QK_WHOLE,                               \
    .names = {.prefix = "model.",                                                                  \
              FT_LLAMA_LAYER,                                                                      \
              .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},                                        \
              .layer_norm = {[FT_NORM_ATTENTION_OUT] = "post_attention_layernorm",                 \
                             [FT_NORM_MLP_OUT] = "post_feedforward_layernorm",                     \
                             [FT_NORM_Q] = "self_attn.q_norm",                                     \
                             [FT_NORM_K] = "self_attn.k_norm"}}

const struct ft_family ft_family_olmo2 = {
    .architecture = "Olmo2ForCausalLM",
    .model_type = "olmo2",
    .pad = 2,
    .fields = {ft_common_fields, bias_fields},
    .rope = {.theta = 1e4},
    .decoder = {OLMO},
};

const struct ft_family ft_family_olmo3 = {
    .architecture = "Olmo3ForCausalLM",
    .model_type = "olmo3",
    .pad = 2,
    .fields = {ft_common_fields, bias_fields, window_fields},
    .rope = {.theta = 5e5, .local_theta = 5e5},
    .layer_types = true,
    .decoder = {.window = 4096, .use_window = true, .sliding_every = 4, OLMO},
};
