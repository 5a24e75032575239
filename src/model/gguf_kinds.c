/* A row an architecture of llama.cpp's. */
#include "model/gguf_kinds.h"

#include "model/gguf.h"

#include <stdio.h>
#include <string.h>

static const struct ft_gguf_kind kinds[] = {
    {.name = "llama",
     .architecture = "LlamaForCausalLM",
     .windowed = "MistralForCausalLM",
     .mixture = "MixtralForCausalLM",
     .permuted = true,
     .normalised = true},
    {.name = "mistral3", .architecture = "Ministral3ForCausalLM", .permuted = true},
    {.name = "qwen2", .architecture = "Qwen2ForCausalLM"},
    {.name = "qwen3", .architecture = "Qwen3ForCausalLM"},
    {.name = "gemma", .architecture = "GemmaForCausalLM"},
    {.name = "gemma2", .architecture = "Gemma2ForCausalLM", .every = 2},
    {.name = "gemma3", .architecture = "Gemma3ForCausalLM", .every = 6},
    {.name = "phi3", .architecture = "Phi3ForCausalLM"},
    {.name = "smollm3", .architecture = "SmolLM3ForCausalLM", .permuted = true},
    {.name = "granite", .architecture = "GraniteForCausalLM", .permuted = true},
    {.name = "arcee", .architecture = "ArceeForCausalLM", .permuted = true},
    {.name = "olmo2",
     .architecture = "Olmo2ForCausalLM",
     .windowed = "Olmo3ForCausalLM",
     .every = 4},
    {.name = "starcoder2", .architecture = "Starcoder2ForCausalLM"},
    {.name = "seed_oss", .architecture = "SeedOssForCausalLM", .mlp_norm = "post_attention_norm"},
    {.name = "command-r", .architecture = "CohereForCausalLM"},
    {.name = "cohere2", .architecture = "Cohere2ForCausalLM", .every = 4},
    {.name = "glm4", .architecture = "Glm4ForCausalLM"},
    {.name = "chatglm", .architecture = "GlmForCausalLM"},
    {.name = "gpt2", .architecture = "GPT2LMHeadModel"},
    {.name = "gptneox", .architecture = "GPTNeoXForCausalLM"},
    {.name = "falcon", .architecture = "FalconForCausalLM"},
    {.name = "qwen2vl",
     .architecture = "Qwen2_5_VLForConditionalGeneration",
     .sections = {16, 24, 24}},
    {.name = "qwen3vl",
     .architecture = "Qwen3VLForConditionalGeneration",
     .sections = {24, 20, 20}},
    {.name = "qwen3vlmoe",
     .architecture = "Qwen3VLMoeForConditionalGeneration",
     .normalised = true,
     .sections = {24, 20, 20}},
    {.name = "qwen2moe", .architecture = "Qwen2MoeForCausalLM"},
    {.name = "qwen3moe", .architecture = "Qwen3MoeForCausalLM", .normalised = true},
    {.name = "olmoe", .architecture = "OlmoeForCausalLM"},
    {.name = "granitemoe",
     .architecture = "GraniteMoeForCausalLM",
     .permuted = true,
     .normalised = true},
    {.name = "glm4moe", .architecture = "Glm4MoeForCausalLM", .mlp_norm = "post_attention_norm"},
    {.name = "gpt-oss",
     .architecture = "GptOssForCausalLM",
     .every = 2,
     .normalised = true,
     .mlp_norm = "post_attention_norm"},
};

const struct ft_gguf_kind *ft_gguf_kind(const char *name)
{
    for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

bool ft_gguf_is_kind(const struct ft_gguf_kind *k, const char *name)
{
    return strcmp(k->name, name) == 0;
}

void ft_gguf_list_kinds(char *out, size_t room)
{
    size_t n = sizeof kinds / sizeof *kinds, at = 0;
    for (size_t i = 0; i < n && at < room; i++)
        at += (size_t)snprintf(out + at, room - at, "%s%s",
                               !at          ? ""
                               : i == n - 1 ? " and "
                                            : ", ",
                               kinds[i].name);
}

static const struct ft_gguf_kind *kind_of_family(const struct ft_family *f)
{
    const char *own = f->architecture;
    for (size_t i = 0; own && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].architecture, own) == 0 ||
            (kinds[i].windowed && strcmp(kinds[i].windowed, own) == 0) ||
            (kinds[i].mixture && strcmp(kinds[i].mixture, own) == 0))
            return &kinds[i];
    return NULL;
}

const struct ft_gguf_kind *ft_gguf_kind_of(const struct ft_model *m)
{
    const struct ft_gguf_kind *k = kind_of_family(m->family);
    return k ? k : kind_of_family(m->text);
}

const char *ft_gguf_architecture(const struct ft_model *m)
{
    const struct ft_gguf_kind *k = ft_gguf_kind_of(m);
    return k ? k->name : NULL;
}

void ft_gguf_module(const struct ft_module *p, char *out, size_t room)
{
    snprintf(out, room, "blk.%d.%s", p->layer, ft_gguf_modules[p->kind]);
}

int64_t ft_gguf_module_row(const struct ft_model *m, const struct ft_module *p, int64_t row)
{
    const struct ft_decoder *d = &m->decoder;
    if (ft_gguf_kind_of(m)->permuted && (p->kind == FT_Q || p->kind == FT_K))
        return ft_gguf_paired_row(d, row);
    return p->kind == FT_QKV && d->qkv_by_group ? ft_gguf_grouped_row(d, row) : row;
}

const char *const ft_gguf_modules[FT_KINDS] = {[FT_Q] = "attn_q",
                                               [FT_K] = "attn_k",
                                               [FT_V] = "attn_v",
                                               [FT_QKV] = "attn_qkv",
                                               [FT_O] = "attn_output",
                                               [FT_GATE] = "ffn_gate",
                                               [FT_UP] = "ffn_up",
                                               [FT_GATE_UP] = "ffn_up",
                                               [FT_DOWN] = "ffn_down",
                                               [FT_SHARED_GATE] = "ffn_gate_shexp",
                                               [FT_SHARED_UP] = "ffn_up_shexp",
                                               [FT_SHARED_DOWN] = "ffn_down_shexp",
                                               [FT_SHARED_SCALE] = "ffn_gate_inp_shexp"};
const struct ft_gguf_experts ft_gguf_experts[FT_GGUF_EXPERTS] = {
    {"ffn_gate_exps", 0}, {"ffn_up_exps", 1}, {"ffn_down_exps", 3}};
static const char *const norms[FT_NORM_SITES] = {
    [FT_NORM_ATTENTION] = "attn_norm", [FT_NORM_ATTENTION_OUT] = "post_attention_norm",
    [FT_NORM_MLP] = "ffn_norm",        [FT_NORM_MLP_OUT] = "post_ffw_norm",
    [FT_NORM_Q] = "attn_q_norm",       [FT_NORM_K] = "attn_k_norm",
};

const char *ft_gguf_norm(const struct ft_model *m, int site)
{
    const struct ft_gguf_kind *k = ft_gguf_kind_of(m);
    const char *mlp = m->decoder.names.layer_norm[FT_NORM_MLP];
    if (k && ft_gguf_is_kind(k, "falcon") && mlp) /* its two norms beside one another */
        return site == FT_NORM_MLP         ? norms[FT_NORM_ATTENTION]
               : site == FT_NORM_ATTENTION ? "attn_norm_2"
                                           : norms[site];
    return site == FT_NORM_MLP && k && k->mlp_norm ? k->mlp_norm : norms[site];
}

bool ft_gguf_named(const char *name, const char *what, size_t length)
{
    return strlen(name) == length && strncmp(name, what, length) == 0;
}

int64_t ft_gguf_grouped_row(const struct ft_decoder *d, int64_t row)
{
    const int64_t queries = d->heads / d->kv_heads * d->head_dim;
    const int64_t group = row / (queries + 2 * d->head_dim), at = row % (queries + 2 * d->head_dim);
    if (at < queries)
        return group * queries + at;
    const int64_t kind = (at - queries) / d->head_dim; /* 0: a key, 1: a value */
    return (d->heads + kind * d->kv_heads + group) * d->head_dim + (at - queries) % d->head_dim;
}

int64_t ft_gguf_paired_row(const struct ft_decoder *d, int64_t row)
{
    const int64_t n = d->head_dim;
    return row / n * n + row % n % (n / 2) * 2 + row % n / (n / 2);
}
