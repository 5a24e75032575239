/* Qwen 2 and 3, and the text of Qwen 2 VL, 2.5 VL and 3 VL. */
#include "model/family/family.h"

static const struct ft_field window_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("use_sliding_window", FT_FLAG, use_window),
    FT_FIELD("max_window_layers", FT_COUNT_OR_ZERO, sliding_from),
    FT_NO_MORE,
};

static const struct ft_field bias_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

/* Queries and keys are normed by head. */
#define NAMES3                                                                                     \
    .names = {                                                                                     \
        .prefix = "model.",                                                                        \
        FT_LLAMA_LAYER,                                                                            \
        .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},                                              \
        .layer_norm = {                                                                            \
            FT_LLAMA_NORMS, [FT_NORM_Q] = "self_attn.q_norm", [FT_NORM_K] = "self_attn.k_norm"}}

const struct ft_family ft_family_qwen2 = {
    .architecture = "Qwen2ForCausalLM",
    .model_type = "qwen2",
    .fields = {ft_common_fields, window_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .decoder = {.vocab = 151936,
                .hidden = 4096,
                .ffn = 22016,
                .layers = 32,
                .heads = 32,
                .kv_heads = 32,
                .max_positions = 32768,
                .norm_eps = 1e-6,
                .biased = FT_BITS_QKV,
                .window = 4096,
                .sliding_from = 28,
                FT_LLAMA_NAMES},
};

const struct ft_family ft_family_qwen3 = {
    .architecture = "Qwen3ForCausalLM",
    .model_type = "qwen3",
    .fields = {ft_common_fields, window_fields, bias_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .decoder = {.vocab = 151936,
                .hidden = 4096,
                .ffn = 22016,
                .layers = 32,
                .heads = 32,
                .kv_heads = 32,
                .head_dim = 128,
                .max_positions = 32768,
                .norm_eps = 1e-6,
                .window = 4096,
                .sliding_from = 28,
                NAMES3},
};

#define QWEN2_VL_TEXT                                                                              \
    .fields = {ft_common_fields, window_fields}, .rope = {.theta = 1e6}, .layer_types = true,      \
    .decoder = {.vocab = 152064,                                                                   \
                .hidden = 8192,                                                                    \
                .ffn = 29568,                                                                      \
                .layers = 80,                                                                      \
                .heads = 64,                                                                       \
                .kv_heads = 8,                                                                     \
                .max_positions = 32768,                                                            \
                .norm_eps = 1e-5,                                                                  \
                .biased = FT_BITS_QKV,                                                             \
                .window = 4096,                                                                    \
                .sliding_from = 80,                                                                \
                FT_LLAMA_NAMES}
/* Where their decoder lies, and Qwen 3 VL's. */
#define QWEN_VL_DECODER                                                                            \
    .decoder = {.names = {.prefix = "model.language_model.",                                       \
                          .in_file = {"model.language_model.", "model."},                          \
                          .others = {"visual.", "model.visual."}}}

static const struct ft_family qwen2_vl_text = {.model_type = "qwen2_vl_text", QWEN2_VL_TEXT},
                              qwen2_5_vl_text = {.model_type = "qwen2_5_vl_text", QWEN2_VL_TEXT};

const struct ft_family ft_family_qwen2_vl = {
    .architecture = "Qwen2VLForConditionalGeneration",
    .model_type = "qwen2_vl",
    .text = {&qwen2_vl_text},
    QWEN_VL_DECODER,
};

const struct ft_family ft_family_qwen2_5_vl = {
    .architecture = "Qwen2_5_VLForConditionalGeneration",
    .model_type = "qwen2_5_vl",
    .text = {&qwen2_5_vl_text},
    QWEN_VL_DECODER,
};

static const struct ft_family qwen3_vl_text = {
    .model_type = "qwen3_vl_text",
    .fields = {ft_common_fields, bias_fields},
    .rope = {.theta = 5e5},
    .decoder = {.vocab = 151936,
                .hidden = 4096,
                .ffn = 22016,
                .layers = 32,
                .heads = 32,
                .kv_heads = 32,
                .head_dim = 128,
                .max_positions = 128000,
                .norm_eps = 1e-6,
                NAMES3},
};

const struct ft_family ft_family_qwen3_vl = {
    .architecture = "Qwen3VLForConditionalGeneration",
    .model_type = "qwen3_vl",
    .text = {&qwen3_vl_text},
    QWEN_VL_DECODER,
};
