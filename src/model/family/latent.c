/* Latent attention, most with experts: DeepSeek V2 and V3 (and Kimi K2, which is one), GLM 4.7
 * Flash. */
#include "model/family/family.h"

#include <math.h>
#include <string.h>

static const struct ft_field latent_fields[] = {
    FT_FIELD("q_lora_rank", FT_COUNT_OR_NONE, latent.q),
    FT_FIELD("kv_lora_rank", FT_COUNT, latent.kv),
    FT_FIELD("qk_nope_head_dim", FT_COUNT, latent.still),
    FT_FIELD("qk_rope_head_dim", FT_COUNT, latent.rotated),
    FT_FIELD("v_head_dim", FT_COUNT, latent.v),
    FT_BIASED("attention_bias", FT_BIT(FT_Q_DOWN) | FT_BIT(FT_KV_DOWN) | FT_BIT(FT_O)),
    FT_NO_MORE,
};

/* yarn's 'mscale_all_dim' makes scores larger. */
static int read_scale(const json_t *root, const char *file, struct ft_decoder *d)
{
    const json_t *o = ft_json_get(root, "rope_scaling");
    const char *type = "default";
    double all = 0, factor = 1;
    o = json_object_size(o) ? o : ft_json_get(root, "rope_parameters");
    if (!ft_json_str(o, file, "type", &type) || !ft_json_str(o, file, "rope_type", &type) ||
        !ft_json_real(o, file, "mscale_all_dim", &all) || !ft_json_real(o, file, "factor", &factor))
        return FT_EDATA;
    const double more =
        all != 0 && strcmp(type, "default") != 0 && factor > 1 ? 0.1 * all * log(factor) + 1 : 1;
    if (!(more > 0) || !isfinite((float)(more * more)))
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "rope: 'mscale_all_dim' is %g with a 'factor' of %g", all, factor);
    d->attention_scale = more * more / sqrt((double)d->head_dim);
    return FT_OK;
}

/* The widths, names and scale that follow from the fields. */
static int latent_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    const struct ft_where at = {.file = file};
    struct ft_latent *l = &d->latent;
    d->head_dim = l->still + l->rotated;
    if (d->kv_heads && d->kv_heads != d->heads)
        return ft_fail_at(at, FT_EDATA,
                          "'num_key_value_heads' is %lld and 'num_attention_heads' %lld: each head "
                          "has keys of its own here",
                          (long long)d->kv_heads, (long long)d->heads);
    if (l->v > d->head_dim || l->rotated % 2)
        return ft_fail_at(at, FT_EDATA,
                          "'v_head_dim' is %lld and 'qk_rope_head_dim' %lld, allowed up to %lld, "
                          "and an even number",
                          (long long)l->v, (long long)l->rotated, (long long)d->head_dim);
    if (l->q > FT_NORM_COLS_MAX || l->kv > FT_NORM_COLS_MAX)
        return ft_fail_at(at, FT_EDATA,
                          "'q_lora_rank' is %lld and 'kv_lora_rank' %lld, ft supports up to %d",
                          (long long)l->q, (long long)l->kv, FT_NORM_COLS_MAX);
    d->names.module[l->q ? FT_Q : FT_Q_DOWN] = NULL;
    if (!l->q)
        d->names.module[FT_Q_UP] = d->names.layer_norm[FT_NORM_Q_NARROW] = NULL;
    return read_scale(root, file, d);
}

#define LATENT_ATTENTION                                                                           \
    [FT_Q] = "self_attn.q_proj", [FT_Q_DOWN] = "self_attn.q_a_proj",                               \
    [FT_Q_UP] = "self_attn.q_b_proj", [FT_KV_DOWN] = "self_attn.kv_a_proj_with_mqa",               \
    [FT_KV_UP] = "self_attn.kv_b_proj", [FT_O] = "self_attn.o_proj"
#define LATENT_NAMES                                                                               \
    .prefix = "model.", FT_LLAMA_LAYER,                                                            \
    .module = {LATENT_ATTENTION, FT_LLAMA_MLP, FT_SHARED_EXPERTS, FT_MLP_EXPERTS},                 \
    .layer_norm = {FT_LLAMA_NORMS, [FT_NORM_Q_NARROW] = "self_attn.q_a_layernorm",                 \
                   [FT_NORM_KV_NARROW] = "self_attn.kv_a_layernorm"},                              \
    .router = "mlp.gate", .more_layers = true, .experts = "mlp.experts", FT_LLAMA_EXPERT
#define CORRECTED .correction = "mlp.gate.e_score_correction_bias"

/* --- DeepSeek V2: a softmax chooses --- */

static const struct ft_field v2_fields[] = {
    FT_FIELD("n_routed_experts", FT_COUNT_OR_NONE, mixture.count),
    FT_FIELD("routed_scaling_factor", FT_REAL, mixture.scale),
    FT_BIASED("mlp_bias", FT_BITS_MLP),
    FT_NO_MORE,
};

static int v2_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    const char *method = "greedy";
    FT_TRY(latent_settle(root, file, d));
    if (!ft_json_str(root, file, "topk_method", &method))
        return FT_EDATA;
    if (strcmp(method, "greedy") != 0)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'topk_method' is '%s', ft supports 'greedy'", method);
    return ft_shared_settle(root, file, d, "n_shared_experts", 2, "first_k_dense_replace", 0);
}

const struct ft_family ft_family_deepseek_v2 = {
    .architecture = "DeepseekV2ForCausalLM",
    .model_type = "deepseek_v2",
    .fields = {ft_common_fields, ft_mixture_fields, latent_fields, v2_fields},
    .rope = {.theta = 1e4},
    .settle = v2_settle,
    .decoder = {.vocab = 102400,
                .hidden = 4096,
                .ffn = 11008,
                .layers = 32,
                .heads = 32,
                .max_positions = 2048,
                .norm_eps = 1e-6,
                .interleaved = true,
                .latent = {.q = 1536, .kv = 512, .still = 128, .rotated = 64, .v = 128},
                .mixture = {.plain_loss = true, .count = 64, .ffn = 1407, .scale = 1},
                .names = {LATENT_NAMES}},
};

/* --- DeepSeek V3: their sigmoid with a correction, in groups --- */

static const struct ft_field interleave_fields[] = {
    FT_FIELD("rope_interleave", FT_FLAG, interleaved),
    FT_NO_MORE,
};

static int v3_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    FT_TRY(latent_settle(root, file, d));
    return ft_shared_settle(root, file, d, "n_shared_experts", 1, "first_k_dense_replace", 3);
}

const struct ft_family ft_family_deepseek_v3 = {
    .architecture = "DeepseekV3ForCausalLM",
    .model_type = "deepseek_v3",
    .alias = "kimi_k2",
    .fields = {ft_common_fields, ft_mixture_fields, latent_fields, ft_grouped_fields,
               interleave_fields},
    .rope = {.theta = 1e4},
    .settle = v3_settle,
    .decoder = {.vocab = 129280,
                .hidden = 7168,
                .ffn = 18432,
                .layers = 61,
                .heads = 128,
                .kv_heads = 128,
                .max_positions = 4096,
                .norm_eps = 1e-6,
                .interleaved = true,
                .latent = {.q = 1536, .kv = 512, .still = 128, .rotated = 64, .v = 128},
                .mixture = {.plain_loss = true,
                            .count = 256,
                            .each = 8,
                            .ffn = 2048,
                            .groups = 8,
                            .kept_groups = 4,
                            .sigmoid = true,
                            .normalise = true,
                            .scale = 2.5},
                .names = {LATENT_NAMES, CORRECTED}},
};

/* --- GLM 4.7 Flash: the same; which layers have experts may be listed --- */

static int flash_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    FT_TRY(latent_settle(root, file, d));
    return ft_shared_settle(root, file, d, "n_shared_experts", 1, "first_k_dense_replace", 1);
}

const struct ft_family ft_family_glm4_moe_lite = {
    .architecture = "Glm4MoeLiteForCausalLM",
    .model_type = "glm4_moe_lite",
    .fields = {ft_common_fields, ft_mixture_fields, latent_fields, ft_grouped_fields,
               interleave_fields},
    .rope = {.theta = 1e4},
    .settle = flash_settle,
    .decoder = {.vocab = 154880,
                .hidden = 2048,
                .ffn = 10240,
                .layers = 47,
                .heads = 20,
                .kv_heads = 20,
                .max_positions = 202752,
                .norm_eps = 1e-5,
                .interleaved = true,
                .latent = {.q = 768, .kv = 512, .still = 192, .rotated = 64, .v = 256},
                .mixture = {.plain_loss = true,
                            .listed = true,
                            .count = 64,
                            .each = 4,
                            .ffn = 1536,
                            .groups = 1,
                            .kept_groups = 1,
                            .sigmoid = true,
                            .normalise = true,
                            .scale = 1.8},
                .names = {LATENT_NAMES, CORRECTED}},
};
