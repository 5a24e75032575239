/* Norms behind attention and MLP instead of before: OLMo 2 and 3, which norm all of q and k too;
 * EXAONE 4, which norms each head. */
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

static const struct ft_field exaone4_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_NO_MORE,
};

/* With a window, only sliding layers are rotated. Their pattern may be a number, or text of which
 * the layers are made already. */
static int exaone4_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    long long every = d->sliding_every;
    d->rope_sliding_only = d->window > 0;
    if (!d->window || json_is_array(ft_json_get(root, "layer_types")))
        return FT_OK;
    if (json_is_string(ft_json_get(root, "sliding_window_pattern")))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'sliding_window_pattern' is text, which needs 'layer_types' beside it");
    if (!ft_json_int(root, file, "sliding_window_pattern", &every))
        return FT_EDATA;
    if (every < 1 || every > 1 << 24)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'sliding_window_pattern' is %lld, allowed from 1", every);
    d->sliding_every = every;
    return FT_OK;
}

const struct ft_family ft_family_exaone4 = {
    .architecture = "Exaone4ForCausalLM",
    .model_type = "exaone4",
    .fields = {ft_common_fields, exaone4_fields},
    .rope = {.theta = 1e4},
    .layer_types = true,
    .settle = exaone4_settle,
    .decoder = {.vocab = 102400,
                .hidden = 4096,
                .ffn = 16384,
                .layers = 32,
                .heads = 32,
                .kv_heads = 32,
                .max_positions = 2048,
                .norm_eps = 1e-5,
                .window = 4096,
                .use_window = true,
                .sliding_every = 4,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},
                          .layer_norm = {[FT_NORM_ATTENTION_OUT] = "post_attention_layernorm",
                                         [FT_NORM_MLP_OUT] = "post_feedforward_layernorm",
                                         FT_QK_NORMS}}},
};
