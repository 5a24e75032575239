/* Llama and what differs from it in numbers, biases and windows: Mistral, Ministral 3, SmolLM3,
 * Granite, Seed-OSS; Arcee, whose MLP has no gate; Helium and ERNIE 4.5, which rotate neighbours;
 * Hunyuan, which norms what is rotated. The text of Mistral 3 and Voxtral. */
#include "model/family/family.h"

#include <string.h>

/* kv_heads 0: as many as heads; head_dim 0: hidden / heads */
#define SIZES                                                                                      \
    FT_FIELD("vocab_size", FT_COUNT, vocab), FT_FIELD("hidden_size", FT_COUNT, hidden),            \
        FT_FIELD("intermediate_size", FT_COUNT, ffn),                                              \
        FT_FIELD("num_hidden_layers", FT_COUNT, layers),                                           \
        FT_FIELD("num_attention_heads", FT_COUNT, heads),                                          \
        FT_FIELD("num_key_value_heads", FT_COUNT_OR_NONE, kv_heads),                               \
        FT_FIELD("head_dim", FT_COUNT_OR_NONE, head_dim),                                          \
        FT_FIELD("max_position_embeddings", FT_COUNT, max_positions),                              \
        FT_FIELD("rms_norm_eps", FT_REAL, norm_eps),                                               \
        FT_FIELD("tie_word_embeddings", FT_FLAG, tied)

const struct ft_field ft_size_fields[] = {SIZES, FT_NO_MORE};

const struct ft_field ft_common_fields[] = {SIZES, FT_FIELD("hidden_act", FT_ACTIVATION, act),
                                            FT_NO_MORE};

const struct ft_field ft_bias_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_BIASED("mlp_bias", FT_BITS_MLP),
    FT_NO_MORE,
};

const struct ft_family ft_family_llama = {
    .architecture = "LlamaForCausalLM",
    .model_type = "llama",
    .fields = {ft_common_fields, ft_bias_fields},
    .rope = {.theta = 1e4},
    .decoder = {.vocab = 32000,
                .hidden = 4096,
                .ffn = 11008,
                .layers = 32,
                .heads = 32,
                .max_positions = 2048,
                .norm_eps = 1e-6,
                FT_LLAMA_NAMES},
};

static const struct ft_field mistral_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_NO_MORE,
};

const struct ft_family ft_family_mistral = {
    .architecture = "MistralForCausalLM",
    .model_type = "mistral",
    .fields = {ft_common_fields, mistral_fields},
    .rope = {.theta = 1e4},
    .decoder = {.vocab = 32000,
                .hidden = 4096,
                .ffn = 14336,
                .layers = 32,
                .heads = 32,
                .kv_heads = 8,
                .max_positions = 131072,
                .norm_eps = 1e-6,
                .window = 4096,
                .use_window = true,
                FT_LLAMA_NAMES},
};

const struct ft_family ft_family_ministral3 = {
    .architecture = "Ministral3ForCausalLM",
    .model_type = "ministral3",
    .pad = 12,
    .fields = {ft_common_fields, mistral_fields},
    .rope = {.theta = 1e4,
             .fallback = "{\"type\": \"yarn\", \"rope_theta\": 1000000.0, \"factor\": 16.0, "
                         "\"original_max_position_embeddings\": 16384, \"beta_fast\": 32.0, "
                         "\"beta_slow\": 1.0, \"mscale_all_dim\": 1.0, \"mscale\": 1.0, "
                         "\"llama_4_scaling_beta\": 0.1}"},
    .decoder = {.vocab = 131072,
                .hidden = 4096,
                .ffn = 14336,
                .layers = 34,
                .heads = 32,
                .kv_heads = 8,
                .head_dim = 128,
                .max_positions = 262144,
                .norm_eps = 1e-5,
                .use_window = true,
                FT_LLAMA_NAMES},
};

static const struct ft_field smollm3_fields[] = {
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_FIELD("use_sliding_window", FT_FLAG, use_window),
    FT_FIELD("no_rope_layer_interval", FT_COUNT, nope_every),
    FT_NO_MORE,
};

const struct ft_family ft_family_smollm3 = {
    .architecture = "SmolLM3ForCausalLM",
    .model_type = "smollm3",
    .pad = 128005,
    .fields = {ft_common_fields, ft_bias_fields, smollm3_fields},
    .rope = {.theta = 2e6},
    .layer_types = true,
    .decoder = {.vocab = 128256,
                .hidden = 2048,
                .ffn = 11008,
                .layers = 36,
                .heads = 16,
                .kv_heads = 4,
                .max_positions = 32768,
                .norm_eps = 1e-6,
                .tied = true,
                .nope_every = 4,
                FT_LLAMA_NAMES},
};

const struct ft_field ft_granite_fields[] = {
    FT_FIELD("embedding_multiplier", FT_REAL, embed_scale),
    FT_FIELD("residual_multiplier", FT_REAL, residual_scale),
    FT_FIELD("attention_multiplier", FT_REAL, attention_scale),
    FT_FIELD("logits_scaling", FT_REAL, logit_scale),
    FT_NO_MORE,
};

/* Logits are divided. */
int ft_granite_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    (void)root;
    if (d->logit_scale == 0)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'logits_scaling' is 0, by which logits would be divided");
    d->logit_scale = 1 / d->logit_scale;
    return FT_OK;
}

const struct ft_family ft_family_granite = {
    .architecture = "GraniteForCausalLM",
    .model_type = "granite",
    .fields = {ft_common_fields, ft_bias_fields, ft_granite_fields},
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
                FT_LLAMA_NAMES},
};

const struct ft_family ft_family_arcee = {
    .architecture = "ArceeForCausalLM",
    .model_type = "arcee",
    .fields = {ft_common_fields, ft_bias_fields},
    .rope = {.theta = 1e4},
    .decoder =
        {.vocab = 32000,
         .hidden = 2560,
         .ffn = 18432,
         .layers = 32,
         .heads = 32,
         .max_positions = 4096,
         .norm_eps = 1e-5,
         .act = FT_RELU2,
         .names =
             {.prefix = "model.",
              FT_LLAMA_LAYER,
              .module = {FT_LLAMA_ATTENTION, [FT_UP] = "mlp.up_proj", [FT_DOWN] = "mlp.down_proj"},
              .layer_norm = {FT_LLAMA_NORMS}}},
};

static const struct ft_field seed_oss_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_QKV),
    FT_BIASED("attention_out_bias", FT_BIT(FT_O)),
    FT_BIASED("mlp_bias", FT_BITS_MLP),
    FT_NO_MORE,
};

const struct ft_family ft_family_seed_oss = {
    .architecture = "SeedOssForCausalLM",
    .model_type = "seed_oss",
    .pad = 2,
    .fields = {ft_common_fields, seed_oss_fields},
    .rope = {.theta = 1e4},
    .decoder = {.vocab = 155136,
                .hidden = 4096,
                .ffn = 27648,
                .layers = 64,
                .heads = 80,
                .kv_heads = 8,
                .head_dim = 128,
                .max_positions = 524288,
                .norm_eps = 1e-6,
                .biased = FT_BITS_QKV,
                FT_LLAMA_NAMES},
};

/* The output projection has no bias, whatever attention_bias is. */
static const struct ft_field helium_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_QKV),
    FT_BIASED("mlp_bias", FT_BITS_MLP),
    FT_NO_MORE,
};

const struct ft_family ft_family_helium = {
    .architecture = "HeliumForCausalLM",
    .model_type = "helium",
    .pad = 4,
    .fields = {ft_common_fields, helium_fields},
    .rope = {.theta = 1e5},
    .decoder = {.vocab = 48000,
                .hidden = 2560,
                .ffn = 7040,
                .layers = 24,
                .heads = 20,
                .kv_heads = 20,
                .head_dim = 128,
                .max_positions = 4096,
                .norm_eps = 1e-8,
                .interleaved = true,
                FT_LLAMA_NAMES},
};

static const struct ft_field ernie4_5_fields[] = {
    FT_BIASED("use_bias", FT_BITS_ATTEND | FT_BITS_MLP),
    FT_NO_MORE,
};

const struct ft_family ft_family_ernie4_5 = {
    .architecture = "Ernie4_5ForCausalLM",
    .model_type = "ernie4_5",
    .pad = 1,
    .fields = {ft_common_fields, ernie4_5_fields},
    .rope = {.theta = 5e5},
    .decoder = {.vocab = 103424,
                .hidden = 1024,
                .ffn = 3072,
                .layers = 18,
                .heads = 16,
                .kv_heads = 2,
                .head_dim = 128,
                .max_positions = 131072,
                .norm_eps = 1e-5,
                .tied = true,
                .interleaved = true,
                FT_LLAMA_NAMES},
};

static const struct ft_field hunyuan_fields[] = {
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

const struct ft_family ft_family_hunyuan_v1_dense = {
    .architecture = "HunYuanDenseV1ForCausalLM",
    .model_type = "hunyuan_v1_dense",
    .pad = 1,
    .fields = {ft_common_fields, hunyuan_fields},
    .rope = {.theta = 1e4, .fixed_alpha = true},
    .decoder = {.vocab = 290943,
                .hidden = 4096,
                .ffn = 11008,
                .layers = 32,
                .heads = 32,
                .max_positions = 2048,
                .norm_eps = 1e-5,
                .qk_norm_rotated = true,
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, FT_LLAMA_MLP},
                          .layer_norm = {FT_LLAMA_NORMS, [FT_NORM_Q] = "self_attn.query_layernorm",
                                         [FT_NORM_K] = "self_attn.key_layernorm"}}},
};

/* Granite 4: those of its models that have attention in all layers, and no experts. */
static const struct ft_field granite4_fields[] = {
    FT_FIELD("num_local_experts", FT_COUNT_OR_ZERO, mixture.count),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

static int granite4_layers(const json_t *root, const char *file, const struct ft_decoder *d)
{
    const json_t *types = ft_json_get(root, "layer_types");
    types = types ? types : ft_json_get(root, "layers_block_type");
    if (!types)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "there is no 'layer_types', which would mean Mamba layers throughout; of "
                          "Granite 4 ft trains the models whose layers all have attention");
    for (int64_t i = 0; i < d->layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        if (!type || (strcmp(type, "attention") != 0 && strcmp(type, "full_attention") != 0))
            return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                              "layer %lld is of type '%s'; of Granite 4 ft trains the models "
                              "whose layers all have attention, not those with Mamba layers",
                              (long long)i, type ? type : "(no text)");
    }
    return FT_OK;
}

static int granite4_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    const struct ft_where at = {.file = file};
    const char *positions = NULL;
    long long width = 1024;
    FT_TRY(granite4_layers(root, file, d));
    if (d->mixture.count)
        return ft_fail_at(at, FT_EDATA, "'num_local_experts' is %lld, allowed 0 here",
                          (long long)d->mixture.count);
    if (!ft_json_int(root, file, "shared_intermediate_size", &width) ||
        !ft_json_str(root, file, "position_embedding_type", &positions))
        return FT_EDATA;
    if (width < 1 || width > 1 << 24)
        return ft_fail_at(at, FT_EDATA, "'shared_intermediate_size' is %lld, allowed 1..16777216",
                          width);
    d->ffn = width;
    d->nope_every = positions && strcmp(positions, "rope") == 0 ? 0 : 1; /* 1: none is rotated */
    return ft_granite_settle(root, file, d);
}

const struct ft_family ft_family_granitemoehybrid = {
    .architecture = "GraniteMoeHybridForCausalLM",
    .model_type = "granitemoehybrid",
    .fields = {ft_common_fields, granite4_fields, ft_granite_fields},
    .rope = {.theta = 1e4},
    .settle = granite4_settle,
    .decoder = {.vocab = 32000,
                .hidden = 4096,
                .ffn = 1024,
                .layers = 32,
                .heads = 32,
                .max_positions = 2048,
                .norm_eps = 1e-6,
                .attention_scale = 1,
                .mixture = {.count = 8},
                .names = {.prefix = "model.",
                          FT_LLAMA_LAYER,
                          .module = {FT_LLAMA_ATTENTION, [FT_GATE_UP] = "shared_mlp.input_linear",
                                     [FT_DOWN] = "shared_mlp.output_linear"},
                          .layer_norm = {FT_LLAMA_NORMS}}},
};

/* Beside towers that see, and that hear. */
const struct ft_family ft_family_mistral3 = {
    .architecture = "Mistral3ForConditionalGeneration",
    .model_type = "mistral3",
    .text = {&ft_family_mistral, &ft_family_ministral3},
    .decoder = {.tied = true,
                .names = {.prefix = "model.language_model.",
                          .in_file = {"model.language_model.", "language_model.model."},
                          .head_in_file = {"lm_head", "language_model.lm_head"},
                          .others = {"vision_tower.", "model.vision_tower.",
                                     "multi_modal_projector.", "model.multi_modal_projector."}}},
};

/* Its text is Llama's, with defaults of its own. */
static const struct ft_family voxtral_text = {
    .model_type = "llama",
    .fields = {ft_common_fields, ft_bias_fields},
    .rope = {.theta = 1e8},
    .decoder = {.vocab = 131072,
                .hidden = 3072,
                .ffn = 8192,
                .layers = 30,
                .heads = 32,
                .kv_heads = 8,
                .head_dim = 128,
                .max_positions = 131072,
                .norm_eps = 1e-5,
                FT_LLAMA_NAMES},
};

const struct ft_family ft_family_voxtral = {
    .architecture = "VoxtralForConditionalGeneration",
    .model_type = "voxtral",
    .text = {&voxtral_text},
    .decoder = {.names = {.prefix = "model.language_model.",
                          .in_file = {"model.language_model.", "language_model.model."},
                          .head_in_file = {"lm_head", "language_model.lm_head"},
                          .others = {"audio_tower.", "model.audio_tower.", "multi_modal_projector.",
                                     "model.multi_modal_projector."}}},
};
