/* Gemma 1 to 3, and the text of Gemma 3 with a vision tower. Weights of norms are stored less 1,
 * embeddings are multiplied with the root of their width. */
#include "model/family/family.h"

#include <math.h>

static const struct ft_field bias_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_MUST_BE("use_bidirectional_attention", false),
    FT_NO_MORE,
};

/* Their activation has a key of its own. */
static const struct ft_field later_fields[] = {
    FT_FIELD("hidden_activation", FT_ACTIVATION, act),
    FT_FIELD("query_pre_attn_scalar", FT_REAL, attention_scale),
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("sliding_window_pattern", FT_COUNT, sliding_every),
    FT_FIELD("attn_logit_softcapping", FT_REAL_OR_NONE, attention_softcap),
    FT_FIELD("final_logit_softcapping", FT_REAL_OR_NONE, logit_softcap),
    FT_NO_MORE,
};

static int settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    (void)root;
    d->embed_scale = sqrt((double)d->hidden);
    if (d->act == FT_GELU) /* its first files meant the approximation */
        d->act = FT_GELU_TANH;
    if (d->attention_scale < 0)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'query_pre_attn_scalar' is %g, allowed above 0", d->attention_scale);
    if (d->attention_scale > 0)
        d->attention_scale = 1 / sqrt(d->attention_scale);
    return FT_OK;
}

static int settle_later(const json_t *root, const char *file, struct ft_decoder *d)
{
    const enum ft_activation said = d->act;
    FT_TRY(settle(root, file, d));
    d->act = said;
    return FT_OK;
}

const struct ft_family ft_family_gemma = {
    .architecture = "GemmaForCausalLM",
    .model_type = "gemma",
    .pad = 1,
    .fields = {ft_common_fields, bias_fields},
    .rope = {.theta = 1e4},
    .settle = settle,
    .decoder = {.vocab = 256000,
                .hidden = 3072,
                .ffn = 24576,
                .layers = 28,
                .heads = 16,
                .kv_heads = 16,
                .head_dim = 256,
                .max_positions = 8192,
                .norm_eps = 1e-6,
                .norm_offset = 1,
                .tied = true,
                .act = FT_GELU_TANH,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},
                          .layer_norm = {FT_LLAMA_NORMS}}},
};

#define FOUR_NORMS                                                                                 \
    [FT_NORM_ATTENTION] = "input_layernorm", [FT_NORM_ATTENTION_OUT] = "post_attention_layernorm", \
    [FT_NORM_MLP] = "pre_feedforward_layernorm", [FT_NORM_MLP_OUT] = "post_feedforward_layernorm"
#define LATER                                                                                      \
    .hidden = 2304, .ffn = 9216, .layers = 26, .heads = 8, .kv_heads = 4, .head_dim = 256,         \
    .norm_eps = 1e-6, .norm_offset = 1, .tied = true, .act = FT_GELU_TANH, .attention_scale = 256, \
    .window = 4096, .use_window = true

const struct ft_family ft_family_gemma2 = {
    .architecture = "Gemma2ForCausalLM",
    .model_type = "gemma2",
    .pad = 1,
    .fields = {ft_size_fields, bias_fields, later_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .settle = settle_later,
    .decoder = {.vocab = 256000,
                .max_positions = 8192,
                LATER,
                .sliding_every = 2,
                .attention_softcap = 50,
                .logit_softcap = 30,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},
                          .layer_norm = {FOUR_NORMS}}},
};

const struct ft_family ft_family_gemma3_text = {
    .architecture = "Gemma3ForCausalLM",
    .model_type = "gemma3_text",
    .pad = 1,
    .fields = {ft_size_fields, bias_fields, later_fields},
    .rope = {.theta = 1e6, .local_theta = 1e4, .local_key = "rope_local_base_freq"},
    .layer_types = true,
    .settle = settle_later,
    .decoder = {.vocab = 262208,
                .max_positions = 131072,
                LATER,
                .sliding_every = 6,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},
                          .layer_norm = {FOUR_NORMS, [FT_NORM_Q] = "self_attn.q_norm",
                                         [FT_NORM_K] = "self_attn.k_norm"}}},
};

const struct ft_family ft_family_gemma3 = {
    .architecture = "Gemma3ForConditionalGeneration",
    .model_type = "gemma3",
    .text = {&ft_family_gemma3_text},
    .decoder = {.tied = true,
                .names = {.prefix = "model.language_model.",
                          .in_file = {"model.language_model.", "language_model.model."},
                          .head_in_file = {"lm_head", "language_model.lm_head"},
                          .others = {"vision_tower.", "model.vision_tower.",
                                     "multi_modal_projector.", "model.multi_modal_projector."}}},
};
