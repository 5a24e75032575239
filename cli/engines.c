/* Which programs load an adapter that was trained, and how. What each of them refuses or ignores:
 * PEFT reads all that ft writes; of vLLM (lora/peft_helper.py, lora_model.py) and llama.cpp
 * (llama-adapter.cpp) it is what their sources say. */
#include "cli/engines.h"

#include "model/gguf.h"
#include "model/model.h"

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
    {FT_TRAIT_RANKS, "ignores rank and alpha patterns", NULL},
};

enum { OBSTACLES = sizeof obstacles / sizeof *obstacles };

static const char *obstacle_of(const struct ft_job *j, bool llama)
{
    const unsigned traits = ft_adapter_traits(j->adapter);
    for (int i = 0; i < OBSTACLES; i++) {
        const char *why = llama ? obstacles[i].llama : obstacles[i].vllm;
        if (why && (traits & obstacles[i].trait))
            return why;
    }
    return llama && !ft_gguf_architecture(j->model) ? "does not have this architecture" : NULL;
}

/* Whether vLLM loads it once it is exported as a portable adapter. */
static bool is_portable(const struct ft_job *j)
{
    const bool one_by_one = ft_model_decoder(j->model)->names.expert[0] != NULL;
    const unsigned left = ft_adapter_traits(j->adapter) & ~(unsigned)FT_TRAIT_RANKS &
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
    const char *dir = j->config->output_dir, *why = obstacle_of(j, false);
    const int rank = vllm_rank(ft_adapter_max_rank(j->adapter));
    bool differs = false;
    if (ft_served_differs(&j->served, j->model_path, &differs))
        ft_status_clear_errors();
    if (why && is_portable(j))
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
