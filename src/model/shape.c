/* The shapes of well-known models, for benchmarks: from their config.json. */
#include "model/model.h"

#include <string.h>

/* vocabulary, hidden, layers, heads, key heads, head size, ffn, tied, theta, rows */
const struct ft_shape ft_shapes[] = {
    {"smollm2-135m", "LlamaForCausalLM", 49152, 576, 30, 9, 3, 64, 1536, true, 1e5, 32768},
    {"smollm2-360m", "LlamaForCausalLM", 49152, 960, 32, 15, 5, 64, 2560, true, 1e5, 32768},
    {"qwen2.5-0.5b", "Qwen2ForCausalLM", 151936, 896, 24, 14, 2, 64, 4864, true, 1e6, 32768},
    {"llama-3.2-1b", "LlamaForCausalLM", 128256, 2048, 16, 32, 8, 64, 8192, true, 5e5, 16384},
    {"qwen2.5-1.5b", "Qwen2ForCausalLM", 151936, 1536, 28, 12, 2, 128, 8960, true, 1e6, 16384},
    {"smollm2-1.7b", "LlamaForCausalLM", 49152, 2048, 24, 32, 32, 64, 8192, true, 1.3e5, 16384},
    {"llama-3.2-3b", "LlamaForCausalLM", 128256, 3072, 28, 24, 8, 128, 8192, true, 5e5, 16384},
    {"mistral-7b", "LlamaForCausalLM", 32768, 4096, 32, 32, 8, 128, 14336, false, 1e6, 8192},
    {"qwen2.5-7b", "Qwen2ForCausalLM", 152064, 3584, 28, 28, 4, 128, 18944, false, 1e6, 8192},
    {"llama-3-8b", "LlamaForCausalLM", 128256, 4096, 32, 32, 8, 128, 14336, false, 5e5, 8192},
    {"qwen2.5-14b", "Qwen2ForCausalLM", 152064, 5120, 48, 40, 8, 128, 13824, false, 1e6, 8192},
};
const int ft_shape_count = sizeof ft_shapes / sizeof *ft_shapes;

const struct ft_shape *ft_shape_find(const char *name)
{
    for (int i = 0; i < ft_shape_count; i++)
        if (strcmp(ft_shapes[i].name, name) == 0)
            return &ft_shapes[i];
    return NULL;
}
