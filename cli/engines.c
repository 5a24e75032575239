/* Which programs load an adapter that was trained, and how. What each of them refuses or ignores:
 * PEFT reads all that ft writes; of vLLM it is what vLLM 0.32 did with such adapters, or what the
 * source of 0.33 says (StableLM, dots.llm1, and the families that came with them), of llama.cpp
 * what its source says (llama-adapter.cpp). */
#include "cli/engines.h"

#include "core/text.h"
#include "model/gguf.h"
#include "model/model.h"

#include <string.h>

/* A trait, and why a program does not load it; NULL: it does. The first that fits is said. */
static const struct obstacle {
    unsigned trait;
    const char *vllm, *llama;
} obstacles[] = {
    {FT_TRAIT_METHOD, "loads plain LoRA only", "loads plain LoRA only"},
    {FT_TRAIT_MODULES, "does not load modules_to_save", "does not load modules_to_save"},
    {FT_TRAIT_BIASES, "does not load trained biases", "does not load trained biases"},
    {FT_TRAIT_TOKENS, "does not load trained tokens", "does not load trained tokens"},
    {FT_TRAIT_EMBEDDING | FT_TRAIT_HEAD, NULL,
     "is not given adapters of the embedding or the head"},
    {FT_TRAIT_EXPERTS, "reads experts' adapters one by one", "is not given adapters of experts"},
    {FT_TRAIT_RANKS, "may ignore rank and alpha patterns, in older versions", NULL},
};

enum { OBSTACLES = sizeof obstacles / sizeof *obstacles };

/* What vLLM does not load, or takes for something else, of an architecture: adapters of these kinds
 * of modules. */
static const struct quirk {
    const char *architecture; /* or how it begins */
    unsigned kinds;
    const char *why;
} quirks[] = {
    {"Glm4ForCausalLM", 1u << FT_GATE_UP, "does not find GLM-4's gate_up_proj"},
    {"Llama4", 1u << FT_Q | 1u << FT_K,
     "turns Llama 4's q_proj and k_proj, and not their adapters"},
    {"Qwen2MoeForCausalLM", 1u << FT_SHARED_SCALE, "passes over shared_expert_gate"},
    {"GPT2LMHeadModel", ~0u, "has no LoRA for GPT-2"},
    {"FalconForCausalLM", ~0u, "has no LoRA for Falcon"},
    {"StableLmForCausalLM", ~0u, "has no LoRA for StableLM"},
    {"Dots1ForCausalLM", ~0u, "has no dots.llm1 any more"},
};

/* Of these it loads adapters of the embedding and the head. */
static const char *const ends[] = {
    "LlamaForCausalLM",   "MistralForCausalLM",  "Phi3ForCausalLM",
    "Qwen3ForCausalLM",   "GraniteForCausalLM",  "CohereForCausalLM",
    "MixtralForCausalLM", "Qwen3MoeForCausalLM", "GraniteMoeForCausalLM"};

/* Kinds of modules that have an adapter, as bits. */
static unsigned kinds_of(const struct ft_job *j)
{
    const struct ft_module *modules;
    const int n = ft_model_modules(j->model, &modules);
    unsigned kinds = 0;
    for (int i = 0; i < n; i++)
        if (ft_adapter_has_site(j->adapter, i))
            kinds |= 1u << modules[i].kind;
    return kinds;
}

static const char *vllm_quirk(const struct ft_job *j)
{
    const char *is = ft_model_architecture(j->model);
    const unsigned kinds = kinds_of(j);
    bool has_ends = false;
    for (size_t i = 0; i < sizeof quirks / sizeof *quirks; i++)
        if (ft_starts_with(is, quirks[i].architecture) && (kinds & quirks[i].kinds))
            return quirks[i].why;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        has_ends |= strcmp(is, ends[i]) == 0;
    return !has_ends && (ft_adapter_traits(j->adapter) & (FT_TRAIT_EMBEDDING | FT_TRAIT_HEAD))
               ? "loads no adapters of this model's embedding or head"
               : NULL;
}

/* gpt-oss's experts it takes as PEFT has them, all matrices or none. */
static unsigned vllm_traits(const struct ft_job *j)
{
    const unsigned both = 1u << FT_EXPERTS_IN | 1u << FT_EXPERTS_OUT;
    const bool whole = strcmp(ft_model_architecture(j->model), "GptOssForCausalLM") == 0 &&
                       (kinds_of(j) & both) == both;
    return ft_adapter_traits(j->adapter) & ~(whole ? (unsigned)FT_TRAIT_EXPERTS : 0u);
}

static const char *obstacle_of(const struct ft_job *j, bool llama)
{
    const unsigned traits = llama ? ft_adapter_traits(j->adapter) : vllm_traits(j);
    for (int i = 0; i < OBSTACLES; i++) {
        const char *why = llama ? obstacles[i].llama : obstacles[i].vllm;
        if (why && (traits & obstacles[i].trait))
            return why;
    }
    return llama && !ft_gguf_architecture(j->model) ? "is not given adapters of this architecture"
                                                    : NULL;
}

/* Whether vLLM loads it once it is exported as a portable adapter. */
static bool is_portable(const struct ft_job *j)
{
    const bool one_by_one = ft_model_decoder(j->model)->names.expert[0] != NULL;
    const unsigned left = vllm_traits(j) & ~(unsigned)FT_TRAIT_RANKS &
                          ~(one_by_one ? (unsigned)FT_TRAIT_EXPERTS : 0U);
    for (int i = 0; i < OBSTACLES; i++)
        if (obstacles[i].vllm && (left & obstacles[i].trait))
            return false;
    return true;
}

/* vLLM takes these as --max-lora-rank. */
static int vllm_rank(int64_t r)
{
    static const int choices[] = {1, 8, 16, 32, 64, 128, 256, 320, 512};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (r <= choices[i])
            return choices[i];
    return 0;
}

static void print_vllm(FILE *out, const struct ft_job *j)
{
    const char *dir = j->config->output_dir, *quirk = vllm_quirk(j);
    const char *why = quirk ? quirk : obstacle_of(j, false);
    const int rank = vllm_rank(ft_adapter_max_rank(j->adapter));
    bool differs = false;
    if (ft_served_differs(&j->served, j->model_path, &differs))
        ft_status_clear_errors();
    if (why && !quirk && is_portable(j))
        fprintf(out, "  vLLM       %s: ft export %s -o portable --to portable\n", why, dir);
    else if (why)
        fprintf(out, "  vLLM       %s: ft merge %s -o merged\n", why, dir);
    else if (rank)
        fprintf(out,
                "  vLLM       vllm serve %s --enable-lora --max-lora-rank %d --lora-modules "
                "name=%s%s%s\n",
                j->base_name, rank, dir, differs ? " --tokenizer " : "", differs ? dir : "");
    else
        fprintf(out, "  vLLM       loads ranks up to 512 only\n");
}

/* Whose experts' modules PEFT 0.21 does not make into parameters, and passes over. */
static const struct {
    const char *architecture, *name; /* how it begins; as people call it */
} passed_over[] = {{"Qwen2Moe", "Qwen2-MoE"}, {"Qwen3VLMoe", "Qwen3-VL-MoE"}};

void ft_note_portable(const struct ft_job *j)
{
    const char *quirk = vllm_quirk(j);
    const struct ft_where at = {.file = j->config->lora_model_dir};
    if (quirk)
        ft_notice(at, "vLLM %s: give it what 'ft merge' writes", quirk);
    for (size_t i = 0; i < sizeof passed_over / sizeof *passed_over; i++)
        if (ft_starts_with(ft_model_architecture(j->model), passed_over[i].architecture) &&
            (ft_adapter_traits(j->adapter) & FT_TRAIT_EXPERTS))
            ft_notice(at,
                      "PEFT passes over %s's experts one by one: give it the adapter as it was "
                      "trained",
                      passed_over[i].name);
}

void ft_print_engines(FILE *out, const struct ft_job *j)
{
    const char *dir = j->config->output_dir, *why = obstacle_of(j, true);
    fprintf(out, "  PEFT       PeftModel.from_pretrained(model, \"%s\")\n", dir);
    if (j->new_rows)
        fprintf(out, "             after model.resize_token_embeddings(%lld)\n",
                (long long)ft_model_decoder(j->model)->vocab);
    print_vllm(out, j);
    if (why)
        fprintf(out, "  llama.cpp  %s: ft merge %s -o merged\n", why, dir);
    else
        fprintf(out, "  llama.cpp  ft export %s -o adapter.gguf --to gguf-adapter\n", dir);
}
