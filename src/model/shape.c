/* The shapes of well-known models, for benchmarks: from their config.json. The query, key and value
 * biases of Qwen2.5 stand for its family; ft's rows give its output projection one too. */
#include "model/model.h"

#include <string.h>

#define SHAPE(label, v, c, l, h, kv, d, f, is_tied, biased, theta_, rows_)                         \
    {                                                                                              \
        .name = label,                                                                             \
        .config = {.vocab = v,                                                                     \
                   .hidden = c,                                                                    \
                   .layers = l,                                                                    \
                   .heads = h,                                                                     \
                   .kv_heads = kv,                                                                 \
                   .head_dim = d,                                                                  \
                   .ffn = f,                                                                       \
                   .max_positions = 1 << 17,                                                       \
                   .norm_eps = 1e-5,                                                               \
                   .tied = is_tied,                                                                \
                   .attention_bias = biased,                                                       \
                   .rope = {.type = FT_ROPE_DEFAULT,                                               \
                            .dim = d,                                                              \
                            .theta = theta_,                                                       \
                            .factor = 1,                                                           \
                            .attention_factor = 1},                                                \
                   .eos_id = -1,                                                                   \
                   .bos_id = -1},                                                                  \
        .rows = rows_                                                                              \
    }

/* vocabulary, hidden, layers, heads, key heads, head size, ffn, tied, biases, theta, rows */
const struct ft_shape ft_shapes[] = {
    SHAPE("smollm2-135m", 49152, 576, 30, 9, 3, 64, 1536, true, false, 1e5, 32768),
    SHAPE("smollm2-360m", 49152, 960, 32, 15, 5, 64, 2560, true, false, 1e5, 32768),
    SHAPE("qwen2.5-0.5b", 151936, 896, 24, 14, 2, 64, 4864, true, true, 1e6, 32768),
    SHAPE("llama-3.2-1b", 128256, 2048, 16, 32, 8, 64, 8192, true, false, 5e5, 16384),
    SHAPE("qwen2.5-1.5b", 151936, 1536, 28, 12, 2, 128, 8960, true, true, 1e6, 16384),
    SHAPE("smollm2-1.7b", 49152, 2048, 24, 32, 32, 64, 8192, true, false, 1.3e5, 16384),
    SHAPE("llama-3.2-3b", 128256, 3072, 28, 24, 8, 128, 8192, true, false, 5e5, 16384),
    SHAPE("mistral-7b", 32768, 4096, 32, 32, 8, 128, 14336, false, false, 1e6, 8192),
    SHAPE("qwen2.5-7b", 152064, 3584, 28, 28, 4, 128, 18944, false, true, 1e6, 8192),
    SHAPE("llama-3-8b", 128256, 4096, 32, 32, 8, 128, 14336, false, false, 5e5, 8192),
    SHAPE("qwen2.5-14b", 152064, 5120, 48, 40, 8, 128, 13824, false, true, 1e6, 8192),
};
const int ft_shape_count = sizeof ft_shapes / sizeof *ft_shapes;

const struct ft_shape *ft_shape_find(const char *name)
{
    for (int i = 0; i < ft_shape_count; i++)
        if (strcmp(ft_shapes[i].name, name) == 0)
            return &ft_shapes[i];
    return NULL;
}
