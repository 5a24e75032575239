/* The family table: a row a transformers architecture, in family/. */
#include "model/family/family.h"

const struct ft_family *const ft_families[] = {
    &ft_family_llama,       &ft_family_mistral,    &ft_family_ministral3,   &ft_family_qwen2,
    &ft_family_qwen3,       &ft_family_phi3,       &ft_family_gemma,        &ft_family_gemma2,
    &ft_family_gemma3_text, &ft_family_smollm3,    &ft_family_glm,          &ft_family_glm4,
    &ft_family_olmo2,       &ft_family_olmo3,      &ft_family_granite,      &ft_family_cohere,
    &ft_family_cohere2,     &ft_family_starcoder2, &ft_family_gpt_neox,     &ft_family_gpt2,
    &ft_family_opt,         &ft_family_falcon,     &ft_family_arcee,        &ft_family_seed_oss,
    &ft_family_helium,      &ft_family_mixtral,    &ft_family_qwen2_moe,    &ft_family_qwen3_moe,
    &ft_family_olmoe,       &ft_family_granitemoe, &ft_family_glm4_moe,     &ft_family_gpt_oss,
    &ft_family_qwen2_5_vl,  &ft_family_qwen3_vl,   &ft_family_gemma3,       &ft_family_llama4_text,
    &ft_family_llama4,      &ft_family_mistral3,   &ft_family_qwen3_vl_moe,
};
const int ft_family_count = sizeof ft_families / sizeof *ft_families;
