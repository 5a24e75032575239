/* Every family's row, by its model_type. */
#ifndef FT_MODEL_FAMILY_FAMILY_H
#define FT_MODEL_FAMILY_FAMILY_H

#include "model/internal.h"

extern const struct ft_family ft_family_llama, ft_family_mistral, ft_family_ministral3,
    ft_family_qwen2, ft_family_qwen3, ft_family_phi3, ft_family_gemma, ft_family_gemma2,
    ft_family_gemma3_text, ft_family_smollm3, ft_family_glm, ft_family_glm4, ft_family_olmo2,
    ft_family_olmo3, ft_family_granite, ft_family_cohere, ft_family_cohere2, ft_family_starcoder2,
    ft_family_gpt_neox, ft_family_gpt2, ft_family_opt, ft_family_falcon, ft_family_qwen2_5_vl,
    ft_family_qwen3_vl, ft_family_gemma3, ft_family_mistral3, ft_family_arcee, ft_family_seed_oss,
    ft_family_helium, ft_family_mixtral, ft_family_qwen2_moe, ft_family_qwen3_moe, ft_family_olmoe,
    ft_family_granitemoe, ft_family_glm4_moe, ft_family_qwen3_vl_moe, ft_family_gpt_oss,
    ft_family_llama4_text, ft_family_llama4, ft_family_nemotron, ft_family_stablelm,
    ft_family_exaone4, ft_family_ernie4_5, ft_family_hunyuan_v1_dense, ft_family_granitemoehybrid,
    ft_family_dots1, ft_family_minimax_m2, ft_family_afmoe, ft_family_deepseek_v2,
    ft_family_deepseek_v3, ft_family_glm4_moe_lite, ft_family_qwen2_vl, ft_family_voxtral;

#endif
