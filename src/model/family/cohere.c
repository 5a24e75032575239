/* Cohere's Command models: attention and MLP side by side on one LayerNorm without a bias. */
#include "model/family/family.h"

static const struct ft_field cohere_fields[] = {
    FT_FIELD("layer_norm_eps", FT_REAL, norm_eps),
    FT_FIELD("logit_scale", FT_REAL, logit_scale),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static const struct ft_field window_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("sliding_window_pattern", FT_COUNT, sliding_every),
    FT_NO_MORE,
};

#define COHERE                                                                                     \
    .vocab = 256000, .hidden = 8192, .ffn = 22528, .layers = 40, .heads = 64,                      \
    .max_positions = 8192, .norm_eps = 1e-5, .norm_centred = true, .tied = true,                   \
    .logit_scale = 0.0625, .interleaved = true, .parallel = true

/* Each head's queries and keys have weights of their own; most models have no such norms. */
static int cohere_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    bool normed = false;
    if (!ft_json_bool(root, file, "use_qk_norm", &normed))
        return FT_EDATA;
    if (!normed)
        d->names.layer_norm[FT_NORM_Q] = d->names.layer_norm[FT_NORM_K] = NULL;
    return FT_OK;
}

const struct ft_family ft_family_cohere = {
    .architecture = "CohereForCausalLM",
    .model_type = "cohere",
    .pad = 1,
    .fields = {ft_common_fields, cohere_fields},
    .rope = {.theta = 5e5},
    .settle = cohere_settle,
    .decoder = {COHERE, .qk_norm = FT_QK_EACH_HEAD,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},
                          .layer_norm = {[FT_NORM_ATTENTION] = "input_layernorm",
                                         [FT_NORM_Q] = "self_attn.q_norm",
                                         [FT_NORM_K] = "self_attn.k_norm"}}},
};

const struct ft_family ft_family_cohere2 = {
    .architecture = "Cohere2ForCausalLM",
    .model_type = "cohere2",
    .pad = 1,
    .fields = {ft_common_fields, cohere_fields, window_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .decoder = {COHERE, .window = 4096, .use_window = true, .sliding_every = 4,
                .rope_sliding_only = true,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},
                          .layer_norm = {[FT_NORM_ATTENTION] = "input_layernorm"}}},
};
