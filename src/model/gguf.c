/* A GGUF file as a model folder: config.json from its metadata, its tensors under transformers'
 * names. A family of llama.cpp's is a row of `kinds`; the names come from ft's own row of the
 * family. */
#include "model/gguf.h"

#include "kernels/blocks.h"
#include "model/quantised.h"

#include "core/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* llama.cpp's architecture, and transformers'. permuted: rows of q and k lie as pairs that rotate.
 * windowed, mixture: what it is with a window of attention or with experts, where that is another
 * one. written: ft writes such files too. every: llama.cpp gives all layers a window but each so
 * many-th, where the file has no list of them; 0: it knows no windows there. */
static const struct kind {
    const char *name, *architecture;
    bool permuted;
    const char *windowed;
    bool written;
    const char *mixture;
    int every;
} kinds[] = {
    {"llama", "LlamaForCausalLM", true, "MistralForCausalLM", true, "MixtralForCausalLM", 0},
    {"mistral3", "Ministral3ForCausalLM", true, NULL, true, NULL, 0},
    {"qwen2", "Qwen2ForCausalLM", false, NULL, true, NULL, 0},
    {"qwen3", "Qwen3ForCausalLM", false, NULL, true, NULL, 0},
    {"gemma", "GemmaForCausalLM", false, NULL, true, NULL, 0},
    {"gemma2", "Gemma2ForCausalLM", false, NULL, true, NULL, 2},
    {"gemma3", "Gemma3ForCausalLM", false, NULL, true, NULL, 6},
    {"phi3", "Phi3ForCausalLM", false, NULL, true, NULL, 0},
    {"smollm3", "SmolLM3ForCausalLM", true, NULL, true, NULL, 0},
    {"granite", "GraniteForCausalLM", true, NULL, true, NULL, 0},
    {"arcee", "ArceeForCausalLM", true, NULL, true, NULL, 0},
    {"olmo2", "Olmo2ForCausalLM", false, "Olmo3ForCausalLM", true, NULL, 4},
    {"starcoder2", "Starcoder2ForCausalLM", false, NULL, true, NULL, 0},
    {"seed_oss", "SeedOssForCausalLM", false, NULL, true, NULL, 0},
    {"command-r", "CohereForCausalLM", false, NULL, true, NULL, 0},
    {"cohere2", "Cohere2ForCausalLM", false, NULL, true, NULL, 4},
    {"glm4", "Glm4ForCausalLM", false, NULL, true, NULL, 0},
    {"chatglm", "GlmForCausalLM", false, NULL, false, NULL, 0},
    {"gpt2", "GPT2LMHeadModel", false, NULL, false, NULL, 0},
    {"gptneox", "GPTNeoXForCausalLM", false, NULL, true, NULL, 0},
    {"falcon", "FalconForCausalLM", false, NULL, false, NULL, 0},
    {"qwen2vl", "Qwen2_5_VLForConditionalGeneration", false, NULL, false, NULL, 0},
    {"qwen3vl", "Qwen3VLForConditionalGeneration", false, NULL, false, NULL, 0},
    {"qwen2moe", "Qwen2MoeForCausalLM", false, NULL, true, NULL, 0},
    {"qwen3moe", "Qwen3MoeForCausalLM", false, NULL, true, NULL, 0},
    {"olmoe", "OlmoeForCausalLM", false, NULL, true, NULL, 0},
};

/* Keys of the metadata, behind the architecture's name and a dot, and config.json's for them. */
static const char *const keys[][2] = {
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"feed_forward_length", "n_inner"},
    {"feed_forward_length", "ffn_hidden_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.head_count_kv", "num_kv_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"attention.layer_norm_epsilon", "layer_norm_eps"},
    {"attention.layer_norm_epsilon", "norm_epsilon"},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon"},
    {"use_parallel_residual", "use_parallel_residual"},
    {"attention.key_length", "head_dim"},
    {"attention.sliding_window", "sliding_window"},
    {"rope.freq_base", "rope_theta"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"logit_scale", "logit_scale"},
    {"logit_scale", "logits_scaling"},
    {"embedding_scale", "embedding_multiplier"},
    {"residual_scale", "residual_multiplier"},
    {"attention.scale", "attention_multiplier"},
    {"expert_count", "num_experts"},
    {"expert_count", "num_local_experts"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
};

/* What llama.cpp's code of an architecture does, and no key says: whether the weights of a row's
 * experts are made to sum to 1. */
static const struct {
    const char *kind;
    bool normalised;
} weights[] = {{"qwen2moe", false}, {"qwen3moe", true}, {"olmoe", false}};

/* Flags of config.json's, which one such tensor is the sign of. */
static const char *const flags[][2] = {
    {"blk.0.attn_q.bias", "attention_bias"},          {"blk.0.attn_qkv.bias", "attention_bias"},
    {"blk.0.attn_output.bias", "attention_out_bias"}, {"blk.0.ffn_down.bias", "mlp_bias"},
    {"blk.0.attn_q_norm.weight", "use_qk_norm"},
};

/* Numbers of tokens, as config.json has them. */
static const char *const tokens[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                        {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                                        {"tokenizer.ggml.padding_token_id", "pad_token_id"}};

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

static bool is_kind(const struct kind *k, const char *name)
{
    return strcmp(k->name, name) == 0;
}

static const json_t *of_kind(const struct ft_gguf *g, const struct kind *k, const char *key)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", k->name, key);
    return json_object_get(g->metadata, full);
}

static const struct ft_gguf_tensor *find_tensor(const struct ft_gguf *g, const char *name)
{
    for (int i = 0; i < g->n; i++)
        if (strcmp(g->tensors[i].name, name) == 0)
            return &g->tensors[i];
    return NULL;
}

/* Factors that divide the frequencies, as a list; NULL: the file has none such. */
static int read_factors(const struct ft_gguf *g, const char *path, const char *name, json_t **out)
{
    const struct ft_gguf_tensor *t = find_tensor(g, name);
    struct ft_st_entry e = {.name = name, .begin = 0, .end = 0};
    struct ft_st *f;
    float *numbers;
    *out = NULL;
    if (!t)
        return FT_OK;
    if (t->dtype != FT_F32 || t->n_dims != 1 || t->dims[0] > 4096)
        return ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                          "tensor '%s' is not a vector of F32", name);
    e.begin = t->begin;
    e.end = t->end;
    FT_TRY(ft_alloc(&numbers, (size_t)t->dims[0], sizeof *numbers));
    int rc = ft_st_of(&f, path, g->metadata, &e, 1);
    if (!rc)
        rc = ft_st_read(f, ft_st_at(f, 0), 0, (size_t)(t->end - t->begin), numbers);
    ft_st_close(f);
    *out = json_array();
    for (int64_t i = 0; i < t->dims[0] && !rc; i++)
        json_array_append_new(*out, json_real((double)numbers[i]));
    ft_free(numbers);
    return rc;
}

static json_t *shared(const json_t *value)
{
    return json_incref((json_t *)(uintptr_t)value);
}

/* A rule that the positions are scaled by. FT_EDATA for one that ft does not read. */
static int put_rule(const struct ft_gguf *g, const struct kind *k, const char *path, json_t *rope)
{
    static const char *const said[][2] = {
        {"rope.scaling.factor", "factor"},
        {"rope.scaling.yarn_attn_factor", "attention_factor"},
        {"rope.scaling.yarn_beta_fast", "beta_fast"},
        {"rope.scaling.yarn_beta_slow", "beta_slow"},
        {"rope.scaling.yarn_log_multiplier", "mscale"},
        {"rope.scaling.yarn_log_multiplier", "mscale_all_dim"},
        {"attention.temperature_scale", "llama_4_scaling_beta"},
    };
    const char *name = json_string_value(of_kind(g, k, "rope.scaling.type"));
    if (!name || strcmp(name, "none") == 0)
        return FT_OK;
    if (strcmp(name, "linear") != 0 && strcmp(name, "yarn") != 0)
        return ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                          "'%s.rope.scaling.type' is '%s'; ft reads linear, yarn, and factors of "
                          "their own",
                          k->name, name);
    json_object_set_new(rope, "rope_type", json_string(name));
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (of_kind(g, k, said[i][0]))
            json_object_set_new(rope, said[i][1], shared(of_kind(g, k, said[i][0])));
    return FT_OK;
}

/* What the positions are scaled by: factors of their own, or a rule. */
static int put_rope(const struct ft_gguf *g, const struct kind *k, const char *path, json_t *config)
{
    const json_t *before = of_kind(g, k, "rope.scaling.original_context_length");
    const json_t *attention = of_kind(g, k, "rope.scaling.attn_factor");
    json_t *one = NULL, *longer = NULL, *shorter = NULL, *rope = json_object();
    int rc = read_factors(g, path, "rope_freqs.weight", &one);
    if (!rc)
        rc = read_factors(g, path, "rope_factors_long.weight", &longer);
    if (!rc)
        rc = read_factors(g, path, "rope_factors_short.weight", &shorter);
    if (rc) {
        /* said already */
    } else if (one || (longer && shorter)) {
        json_object_set_new(rope, "rope_type", json_string("longrope"));
        json_object_set(rope, "short_factor", one ? one : shorter);
        json_object_set(rope, "long_factor", one ? one : longer);
        json_object_set_new(rope, "attention_factor",
                            attention ? json_real(json_number_value(attention)) : json_real(1));
    } else {
        rc = put_rule(g, k, path, rope);
    }
    if (before && json_object_size(rope))
        json_object_set(rope, "original_max_position_embeddings", (json_t *)(uintptr_t)before);
    if (json_object_size(rope))
        json_object_set(config, "rope_scaling", rope);
    json_decref(rope);
    json_decref(one);
    json_decref(longer);
    json_decref(shorter);
    return rc;
}

static double number(const struct ft_gguf *g, const struct kind *k, const char *key)
{
    return json_number_value(of_kind(g, k, key));
}

/* What the file says otherwise than config.json, and what llama.cpp goes by the size for. */
static void put_rest(const struct ft_gguf *g, const struct kind *k, json_t *config)
{
    const double hidden = number(g, k, "embedding_length"),
                 heads = number(g, k, "attention.head_count");
    const double own = number(g, k, "attention.key_length"),
                 turned = number(g, k, "rope.dimension_count");
    const double head = own > 0 ? own : heads > 0 ? hidden / heads : 0;
    const json_t *pattern = of_kind(g, k, "attention.sliding_window_pattern");
    const bool gemma2 = is_kind(k, "gemma2"), gemma3 = is_kind(k, "gemma3");
    const double layers = number(g, k, "block_count");
    if (head > 0)
        json_object_set_new(config, "head_dim", json_integer((json_int_t)head));
    if (turned > 0 && head > 0)
        json_object_set_new(config, "partial_rotary_factor", json_real(turned / head));
    const bool large = (gemma2 && layers == 46) || (gemma3 && layers == 62); /* the 27 billions */
    if (gemma2 || gemma3)
        json_object_set_new(config, "query_pre_attn_scalar",
                            json_real(large ? hidden / heads : head));
    if (number(g, k, "attention.sliding_window") <=
        0) /* Phi-3's files say so where there is none */
        json_object_del(config, "sliding_window");
    if (json_is_integer(pattern))
        json_object_set_new(config, "sliding_window_pattern", shared(pattern));
    if (!json_is_array(pattern))
        return;
    json_t *types = json_array();
    for (size_t i = 0; i < json_array_size(pattern); i++)
        json_array_append_new(types, json_string(json_is_true(json_array_get(pattern, i))
                                                     ? "sliding_attention"
                                                     : "full_attention"));
    json_object_set_new(config, "layer_types", types);
}

/* Which of Falcon's decoders it is: the first one's sequential layers are none of llama.cpp's. */
static void put_falcon(const struct ft_gguf *g, const struct kind *k, json_t *config)
{
    const bool one_key_head = number(g, k, "attention.head_count_kv") <= 1;
    json_object_del(config, "head_dim"); /* its class works that out */
    json_object_set_new(config, "multi_query", json_boolean(one_key_head));
    json_object_set_new(config, "new_decoder_architecture", json_boolean(!one_key_head));
    json_object_set_new(config, "num_ln_in_parallel_attn",
                        json_integer(find_tensor(g, "blk.0.attn_norm_2.weight") ? 2 : 1));
}

static const char *architecture_of(const struct ft_gguf *g, const struct kind *k)
{
    if (k->mixture && number(g, k, "expert_count") > 0)
        return k->mixture;
    return k->windowed && number(g, k, "attention.sliding_window") > 0 ? k->windowed
                                                                       : k->architecture;
}

int ft_gguf_config(const struct ft_gguf *g, const char *path, json_t **out)
{
    const char *name = json_string_value(json_object_get(g->metadata, "general.architecture"));
    const struct kind *k = find_kind(name);
    const unsigned since = ft_alloc_failures();
    if (!k) {
        ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                   "'general.architecture' is '%s', which ft does not read from GGUF",
                   name ? name : "(missing)");
        ft_hint("ft reads llama, mistral3, qwen2, qwen3, gemma, gemma2, gemma3, phi3, smollm3, "
                "granite, arcee, olmo2, starcoder2, seed_oss, command-r, cohere2, glm4, chatglm, "
                "gpt2, gptneox, falcon, qwen2vl, qwen3vl, qwen2moe, qwen3moe and olmoe");
        return FT_EDATA;
    }
    json_t *config = json_object();
    json_object_set_new(config, "architectures", json_pack("[s]", architecture_of(g, k)));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (of_kind(g, k, keys[i][0]))
            json_object_set_new(config, keys[i][1], shared(of_kind(g, k, keys[i][0])));
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        if (json_object_get(g->metadata, tokens[i][0]))
            json_object_set_new(config, tokens[i][1],
                                shared(json_object_get(g->metadata, tokens[i][0])));
    const struct ft_gguf_tensor *embedding = find_tensor(g, "token_embd.weight");
    if (embedding)
        json_object_set_new(config, "vocab_size", json_integer(embedding->dims[0]));
    json_object_set_new(config, "tie_word_embeddings",
                        json_boolean(!find_tensor(g, "output.weight")));
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (find_tensor(g, flags[i][0]) || !json_object_get(config, flags[i][1]))
            json_object_set_new(config, flags[i][1], json_boolean(find_tensor(g, flags[i][0])));
    put_rest(g, k, config);
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        if (is_kind(k, weights[i].kind))
            json_object_set_new(config, "norm_topk_prob", json_boolean(weights[i].normalised));
    if (is_kind(k, "falcon"))
        put_falcon(g, k, config);
    int rc = put_rope(g, k, path, config);
    if (!rc)
        rc = ft_alloc_check(since);
    if (rc) {
        json_decref(config);
        return rc;
    }
    *out = config;
    return FT_OK;
}

/* --- tensors --- */

static const char *const modules[FT_KINDS] = {[FT_Q] = "attn_q",
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
static const char router[] = "ffn_gate_inp";
/* All experts' matrices, one behind the other; their places in ft_names.expert. */
static const struct {
    const char *name;
    int expert;
} experts[] = {{"ffn_gate_exps", 0}, {"ffn_up_exps", 1}, {"ffn_down_exps", 3}};
static const char after_attention[] = "post_attention_norm";
static const char *const norms[FT_NORM_SITES] = {
    [FT_NORM_ATTENTION] = "attn_norm", [FT_NORM_ATTENTION_OUT] = after_attention,
    [FT_NORM_MLP] = "ffn_norm",        [FT_NORM_MLP_OUT] = "post_ffw_norm",
    [FT_NORM_Q] = "attn_q_norm",       [FT_NORM_K] = "attn_k_norm",
};

static bool is(const char *name, const char *what, size_t length)
{
    return strlen(name) == length && strncmp(name, what, length) == 0;
}

/* transformers' name of blk.N.`what`.`end`; NULL: none. */
static const char *layer_name(const struct ft_names *n, const char *what, size_t length)
{
    const char *attention = n->layer_norm[FT_NORM_ATTENTION], *mlp = n->layer_norm[FT_NORM_MLP];
    for (int i = 0; i < FT_KINDS; i++)
        if (n->module[i] && modules[i] && is(modules[i], what, length))
            return n->module[i];
    if (n->router && is(router, what, length))
        return n->router_in_file ? n->router_in_file : n->router;
    if (!n->layer_norm[FT_NORM_ATTENTION_OUT] && is(after_attention, what, length))
        return mlp;                        /* Seed-OSS, whose norm has that name of the other's */
    if (mlp && strcmp(mlp, "ln_mlp") == 0) /* Falcon with two norms beside one another */
        return is("attn_norm_2", what, length)              ? attention
               : is(norms[FT_NORM_ATTENTION], what, length) ? mlp
                                                            : NULL;
    for (int i = 0; i < FT_NORM_SITES; i++)
        if (n->layer_norm[i] && is(norms[i], what, length))
            return n->layer_norm[i];
    return NULL;
}

static char *name_of(struct ft_model *m, const char *name)
{
    const struct ft_names *n = &m->decoder.names;
    const char *end = strrchr(name, '.');
    char *after;
    if (strcmp(name, "token_embd.weight") == 0)
        return ft_arena_format(&m->arena, "%s%s.weight", n->prefix, n->embed);
    if (strcmp(name, "position_embd.weight") == 0 && n->positions)
        return ft_arena_format(&m->arena, "%s%s.weight", n->prefix, n->positions);
    if (strcmp(name, "output.weight") == 0)
        return ft_arena_format(&m->arena, "%s.weight", n->head);
    if (ft_starts_with(name, "output_norm."))
        return ft_arena_format(&m->arena, "%s%s%s", n->prefix, n->norm, end);
    if (!ft_starts_with(name, "blk."))
        return ft_arena_format(&m->arena, "%s", name);
    const long layer = strtol(name + 4, &after, 10);
    const char *what = after + 1;
    const char *own =
        *after == '.' && end > what ? layer_name(n, what, (size_t)(end - what)) : NULL;
    if (!own)
        return ft_arena_format(&m->arena, "%s", name);
    return ft_arena_format(&m->arena, "%s%s.%ld.%s%s", n->prefix, n->layers, layer, own, end);
}

/* What the config has taken already. */
static bool is_factors(const char *name)
{
    return strcmp(name, "rope_freqs.weight") == 0 || ft_starts_with(name, "rope_factors_");
}

/* Which of an expert's matrices the tensor has of all experts, one behind the other, and its layer;
 * -1: none. */
static int experts_of(const struct ft_model *m, const struct ft_gguf_tensor *t, long *layer)
{
    char *after = NULL;
    if (!ft_starts_with(t->name, "blk.") || t->n_dims != 3 || !m->decoder.names.expert[0] ||
        t->dims[0] != m->decoder.mixture.count)
        return -1;
    *layer = strtol(t->name + 4, &after, 10);
    const char *what = after + (*after == '.'), *end = strrchr(what, '.');
    for (size_t i = 0; end && i < sizeof experts / sizeof *experts; i++)
        if (is(experts[i].name, what, (size_t)(end - what)) && strcmp(end, ".weight") == 0)
            return experts[i].expert;
    return -1;
}

/* Each expert's matrix as a tensor of its own, as transformers' files have them. */
static int add_experts(struct ft_model *m, const struct ft_gguf_tensor *t, long layer, int expert,
                       struct ft_st_entry *out)
{
    const struct ft_names *n = &m->decoder.names;
    const int64_t bytes = (t->end - t->begin) / t->dims[0];
    for (int64_t i = 0; i < t->dims[0]; i++) {
        out[i] = (struct ft_st_entry){
            .name = ft_arena_format(&m->arena, "%s%s.%ld.%s.%lld.%s.weight", n->prefix, n->layers,
                                    layer, n->experts, (long long)i, n->expert[expert]),
            .dtype = t->dtype,
            .dtype_name = t->type_name,
            .n_dims = 2,
            .dims = {t->dims[1], t->dims[2]},
            .begin = t->begin + i * bytes,
            .end = t->begin + (i + 1) * bytes};
        if (!out[i].name)
            return FT_ERESOURCE;
    }
    return FT_OK;
}

static int add_tensor(struct ft_model *m, const struct ft_gguf_tensor *t, struct ft_st_entry *out)
{
    *out = (struct ft_st_entry){.name = name_of(m, t->name),
                                .dtype = t->dtype,
                                .dtype_name = t->type_name,
                                .n_dims = t->n_dims,
                                .begin = t->begin,
                                .end = t->end};
    memcpy(out->dims, t->dims, sizeof t->dims);
    if (t->n_dims == 1 && strstr(t->name, modules[FT_SHARED_SCALE])) { /* a matrix of one row */
        out->n_dims = 2;
        out->dims[1] = out->dims[0];
        out->dims[0] = 1;
    }
    return out->name ? FT_OK : FT_ERESOURCE;
}

int ft_gguf_tensors(struct ft_model *m, const char *path, struct ft_st **out)
{
    struct ft_gguf g;
    struct ft_st_entry *entries;
    int n = 0;
    long layer;
    FT_TRY(ft_gguf_open(&g, path));
    const struct kind *k =
        find_kind(json_string_value(json_object_get(g.metadata, "general.architecture")));
    m->gguf = true;
    if (k) /* the parts of a split file may not say */
        m->permuted = k->permuted;
    size_t room = 1;
    for (int i = 0; i < g.n; i++)
        room += experts_of(m, &g.tensors[i], &layer) < 0 ? 1 : (size_t)g.tensors[i].dims[0];
    int rc = ft_alloc(&entries, room, sizeof *entries);
    for (int i = 0; i < g.n && !rc; i++) {
        const struct ft_gguf_tensor *t = &g.tensors[i];
        const int expert = experts_of(m, t, &layer);
        if (is_factors(t->name))
            continue;
        rc = expert < 0 ? add_tensor(m, t, &entries[n])
                        : add_experts(m, t, layer, expert, &entries[n]);
        n += expert < 0 ? 1 : (int)t->dims[0];
    }
    json_t *header = json_object();
    if (!rc)
        rc = ft_st_of(out, path, header, entries, n);
    json_decref(header);
    ft_free(entries);
    ft_gguf_close(&g);
    return rc;
}

/* All queries, then all keys, then all values; the model has them by group. */
static int64_t grouped_row(const struct ft_decoder *d, int64_t row)
{
    const int64_t queries = d->heads / d->kv_heads * d->head_dim;
    const int64_t group = row / (queries + 2 * d->head_dim), at = row % (queries + 2 * d->head_dim);
    if (at < queries)
        return group * queries + at;
    const int64_t kind = (at - queries) / d->head_dim; /* 0: a key, 1: a value */
    return (d->heads + kind * d->kv_heads + group) * d->head_dim + (at - queries) % d->head_dim;
}

/* Halves of a head; the file has pairs. */
static int64_t paired_row(const struct ft_decoder *d, int64_t row)
{
    const int64_t n = d->head_dim;
    return row / n * n + row % n % (n / 2) * 2 + row % n / (n / 2);
}

int64_t ft_gguf_row(const struct ft_model *m, const struct ft_weight *w, int64_t row)
{
    return w->order == FT_GROUPED  ? grouped_row(&m->decoder, row)
           : w->order == FT_PAIRED ? paired_row(&m->decoder, row)
                                   : row;
}

enum ft_row_order ft_gguf_order(const struct ft_model *m, enum ft_kind kind)
{
    return m->permuted && (kind == FT_Q || kind == FT_K)          ? FT_PAIRED
           : m->gguf && kind == FT_QKV && m->decoder.qkv_by_group ? FT_GROUPED
                                                                  : FT_IN_ORDER;
}

static const struct kind *kind_of(const struct ft_model *m)
{
    const char *own = m->family->architecture;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].architecture, own) == 0 ||
            (kinds[i].windowed && strcmp(kinds[i].windowed, own) == 0) ||
            (kinds[i].mixture && strcmp(kinds[i].mixture, own) == 0))
            return &kinds[i];
    return NULL;
}

const char *ft_gguf_architecture(const struct ft_model *m)
{
    const struct kind *k = kind_of(m);
    return k ? k->name : NULL;
}

void ft_gguf_module(const struct ft_module *p, char *out, size_t room)
{
    snprintf(out, room, "blk.%d.%s", p->layer, modules[p->kind]);
}

int64_t ft_gguf_module_row(const struct ft_model *m, const struct ft_module *p, int64_t row)
{
    const struct ft_decoder *d = &m->decoder;
    if (kind_of(m)->permuted && (p->kind == FT_Q || p->kind == FT_K))
        return paired_row(d, row);
    return p->kind == FT_QKV && d->qkv_by_group ? grouped_row(d, row) : row;
}

void ft_gguf_widen(float *out, enum ft_dtype type, const char *blocks, int64_t n)
{
    const struct ft_block_size size = ft_block_size(type);
    for (int64_t i = 0; i < n; i += 8)
        ft_block_run(out + i, type, (const uint8_t *)blocks + i / size.elements * size.bytes,
                     (int)(i % size.elements));
}

static int open_blocks(const struct ft_model *m, struct ft_weight *w)
{
    (void)m;
    w->as = w->entry->dtype;
    w->block = 0;
    return FT_OK;
}

/* Scales that are not finite make numbers that are not. */
static int scan_blocks(const struct ft_weight *w, const struct ft_planes *q)
{
    const struct ft_block_size size = ft_block_size(w->as);
    const uint8_t *block = q->p[FT_CODES], *end = block + ft_plane_size(w->entry);
    bool finite = true;
    for (; block < end; block += size.bytes)
        for (int i = 0; i < size.scales; i++)
            finite &= (block[size.scales_at + 2 * i + 1] & 0x7c) != 0x7c;
    return finite ? FT_OK
                  : ft_fail_at(ft_plane_where(w), FT_EDATA,
                               "tensor '%s' holds NaN or infinite values", w->name);
}

static int load_blocks(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                       bool scan, const struct ft_planes *q)
{
    const size_t row = ft_plane_size(w->entry) / (size_t)w->stored;
    (void)pool;
    if (w->order == FT_IN_ORDER)
        FT_TRY(ft_st_read(w->file, w->entry, 0, ft_plane_size(w->entry), q->p[FT_CODES]));
    for (int64_t r = 0; r < w->stored && w->order != FT_IN_ORDER; r++)
        FT_TRY(ft_st_read(w->file, w->entry, ft_gguf_row(m, w, r) * (int64_t)row, row,
                          (char *)q->p[FT_CODES] + (size_t)r * row));
    return scan ? scan_blocks(w, q) : FT_OK;
}

const struct ft_way ft_gguf_way = {.method = "gguf", .open = open_blocks, .load = load_blocks};

/* --- writing --- */

/* Of the layers without a window, if there are such: the one that the file speaks of. */
static const struct ft_rope_spec *main_rope(const struct ft_decoder *d)
{
    int rope = 0;
    for (int64_t i = 0; i < d->layers; i++)
        if (!d->layer[i].window && d->layer[i].rope >= 0)
            rope = d->layer[i].rope;
    return &d->rope[rope];
}

/* What its queries grow by. */
static double growth(const struct ft_decoder *d)
{
    return d->layers && d->layer[0].rope_q >= 0 ? d->rope[d->layer[0].rope_q].growth : 0;
}

/* Of the layers with a window, where they have one of their own. */
static const struct ft_rope_spec *window_rope(const struct ft_decoder *d)
{
    for (int64_t i = 0; i < d->layers; i++)
        if (d->layer[i].window && d->layer[i].rope >= 0)
            return &d->rope[d->layer[i].rope];
    return NULL;
}

/* What llama.cpp multiplies cosines and sines by for such a rule, without being told. */
static double yarn_attention(const struct ft_rope_spec *r, const struct kind *k)
{
    return is_kind(k, "mistral3") || r->factor <= 1 ? 1 : 0.1 * log(r->factor) + 1;
}

static int put_real_of(struct ft_gguf_out *o, const struct kind *k, const char *name, double v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", k->name, name);
    return ft_gguf_put_real(o, key, (float)v);
}

static int put_scaling(struct ft_gguf_out *o, const struct ft_decoder *d, const struct kind *k)
{
    const struct ft_rope_spec *r = main_rope(d);
    const enum ft_rope_type type = r->type;
    char key[96];
    if (type == FT_ROPE_YARN || type == FT_ROPE_LONGROPE || is_kind(k, "phi3") ||
        is_kind(k, "mistral3")) {
        snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", k->name);
        FT_TRY(ft_gguf_put_count(o, key,
                                 (uint32_t)(r->original_max_positions > 0
                                                ? r->original_max_positions
                                                : (double)d->max_positions)));
    }
    if (type == FT_ROPE_LONGROPE)
        return put_real_of(o, k, "rope.scaling.attn_factor", r->attention_factor);
    if (type != FT_ROPE_LINEAR && type != FT_ROPE_YARN)
        return FT_OK;
    snprintf(key, sizeof key, "%s.rope.scaling.type", k->name);
    FT_TRY(ft_gguf_put_text(o, key, type == FT_ROPE_LINEAR ? "linear" : "yarn"));
    FT_TRY(put_real_of(o, k, "rope.scaling.factor", r->factor));
    if (type == FT_ROPE_LINEAR)
        return FT_OK;
    FT_TRY(put_real_of(o, k, "rope.scaling.yarn_beta_fast", r->beta_fast));
    FT_TRY(put_real_of(o, k, "rope.scaling.yarn_beta_slow", r->beta_slow));
    return is_kind(k, "mistral3") ? put_real_of(o, k, "rope.scaling.yarn_log_multiplier", 1)
                                  : FT_OK;
}

/* Whether llama.cpp's code for the architecture knows windows (Mistral's it passes over). */
static bool windows_fit(const struct ft_decoder *d, const struct kind *k)
{
    bool any = false;
    for (int64_t i = 0; i < d->layers; i++)
        any |= d->layer[i].window && d->layer[i].window < d->max_positions;
    return !d->use_window || !any || k->every;
}

/* Which layers have a window, where they are not the ones that it takes by itself. */
static int put_windows(struct ft_gguf_out *o, const struct ft_decoder *d, const struct kind *k)
{
    char key[96];
    bool usual = true;
    json_t *list = json_array();
    for (int64_t i = 0; i < d->layers; i++) {
        usual &= !k->every || (d->layer[i].window != 0) == ((i + 1) % k->every != 0);
        json_array_append_new(list, json_boolean(d->layer[i].window != 0));
    }
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", k->name);
    json_t *all = usual || !d->use_window ? json_object() : json_pack("{sO}", key, list);
    int rc = ft_gguf_put_all(o, all);
    json_decref(all);
    json_decref(list);
    return rc;
}

static bool positions_fit(const struct ft_decoder *d, const struct kind *k)
{
    const struct ft_rope_spec *r = d->n_ropes ? main_rope(d) : NULL, *other = window_rope(d);
    const bool gemma3 = is_kind(k, "gemma3"), mistral3 = is_kind(k, "mistral3");
    if (!r || (growth(d) > 0) != mistral3)
        return false;
    if (d->n_ropes > 1 + (gemma3 || is_kind(k, "olmo2") || mistral3))
        return false;
    if (k->every && other && other != r &&
        (other->type != FT_ROPE_DEFAULT || other->theta != (gemma3 ? 10000 : r->theta)))
        return false;
    switch (r->type) {
    case FT_ROPE_LLAMA3: /* where it loads factors */
        return mistral3 || is_kind(k, "llama") || is_kind(k, "granite") || is_kind(k, "arcee");
    case FT_ROPE_YARN: /* Gemma 3's windows would be scaled too; the betas are told Mistral's code
                        */
        return r->truncate && !gemma3 && fabs(r->attention_factor - yarn_attention(r, k)) < 1e-6 &&
               (mistral3 || (r->beta_fast == 32 && r->beta_slow == 1));
    case FT_ROPE_LONGROPE:
        return is_kind(k, "phi3");
    default:
        return r->type == FT_ROPE_DEFAULT || r->type == FT_ROPE_LINEAR;
    }
}

/* The 27 billions have a scale of their own, which llama.cpp knows by their layers. */
static bool scale_fits(const struct ft_decoder *d, const struct kind *k)
{
    if (!ft_starts_with(k->name, "gemma") || !(d->attention_scale > 0))
        return true;
    return fabs(d->attention_scale * sqrt((double)d->head_dim) - 1) < 1e-6 || d->layers == 46 ||
           d->layers == 62;
}

/* Whether a row's experts have weights that sum to 1, in llama.cpp's code. */
static bool normalises(const struct kind *k)
{
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        if (is_kind(k, weights[i].kind))
            return weights[i].normalised;
    return true;
}

/* Whether all layers have experts, as llama.cpp's code for the architecture routes to them. */
static bool experts_fit(const struct ft_decoder *d, const struct kind *k)
{
    for (int64_t i = 0; d->mixture.count && i < d->layers; i++)
        if (!d->layer[i].experts)
            return false;
    return !d->mixture.count || d->mixture.each == 1 || d->mixture.normalise == normalises(k);
}

/* What llama.cpp's code for the architecture asks of the tensors: a head of its own, or none;
 * biases; norms of queries and keys in the largest Command R alone; windows in Cohere 2. */
static bool tensors_fit(const struct ft_model *m, const struct kind *k)
{
    const struct ft_decoder *d = &m->decoder;
    if (is_kind(k, "command-r"))
        return d->tied && !d->biased &&
               (d->names.layer_norm[FT_NORM_Q] != NULL) == (d->layers >= 64);
    if (is_kind(k, "cohere2"))
        return d->tied && !d->biased && d->use_window && d->window;
    if (is_kind(k, "gptneox") || is_kind(k, "starcoder2"))
        return d->biased == m->family->decoder.biased && !(d->tied && is_kind(k, "gptneox"));
    if (is_kind(k, "olmo2") || is_kind(k, "seed_oss"))
        return !(d->biased & ~(unsigned)FT_BITS_QKV) && !(d->tied && is_kind(k, "olmo2"));
    return d->tied || !ft_starts_with(k->name, "gemma");
}

static bool is_gelu(enum ft_activation act)
{
    return act == FT_GELU || act == FT_GELU_TANH;
}

/* The family's own, which llama.cpp does not ask for. */
static bool activation_fits(const struct ft_model *m)
{
    const enum ft_activation act = m->decoder.act, own = m->family->decoder.act;
    return act == own || (is_gelu(act) && is_gelu(own));
}

static int check_written(const struct ft_model *m, const struct kind *k)
{
    const struct ft_decoder *d = &m->decoder;
    const char *why = !k || !k->written                     ? "of its architecture"
                      : !experts_fit(d, k)                  ? "with such experts"
                      : !tensors_fit(m, k)                  ? "with such a head, norms or biases"
                      : !activation_fits(m)                 ? "with such an activation"
                      : !windows_fit(d, k)                  ? "with such windows of attention"
                      : !scale_fits(d, k)                   ? "with such a scale of attention"
                      : !positions_fit(d, k)                ? "with such rotary positions"
                      : d->nope_every && d->nope_every != 4 ? "with such layers unrotated"
                                                            : NULL;
    if (!why)
        return FT_OK;
    ft_fail_at((struct ft_where){.file = m->folder}, FT_EDATA,
               "'%s' cannot be written as GGUF: ft writes no model %s", m->family->architecture,
               why);
    ft_hint("llama.cpp's convert_hf_to_gguf.py reads what 'ft merge' writes");
    return FT_EDATA;
}

int ft_gguf_put_model(struct ft_gguf_out *o, const struct ft_model *m)
{
    const struct ft_decoder *d = &m->decoder;
    const struct kind *k = kind_of(m);
    char key[96];
    FT_TRY(check_written(m, k));
    const bool granite = is_kind(k, "granite"),
               cohere = is_kind(k, "command-r") || is_kind(k, "cohere2");
    const struct {
        const char *key;
        int64_t v;
    } counts[] = {{"block_count", d->layers},
                  {"context_length", d->max_positions},
                  {"embedding_length", d->hidden},
                  {"feed_forward_length", d->ffn},
                  {"expert_count", d->mixture.count},
                  {"expert_used_count", d->mixture.each},
                  {"expert_feed_forward_length", d->mixture.count ? d->mixture.ffn : 0},
                  {"expert_shared_feed_forward_length", d->mixture.shared_ffn},
                  {"attention.head_count", d->heads},
                  {"attention.head_count_kv", d->kv_heads},
                  {"attention.key_length", d->head_dim},
                  {"attention.value_length", d->head_dim},
                  {"vocab_size", d->vocab},
                  {"attention.sliding_window", d->use_window ? d->window : 0},
                  {"rope.dimension_count", d->rope[0].dim}};
    const struct {
        const char *key;
        double v;
        bool there;
    } reals[] = {{"rope.freq_base", main_rope(d)->theta, true},
                 {"attn_logit_softcapping", d->attention_softcap, d->attention_softcap > 0},
                 {"final_logit_softcapping", d->logit_softcap, d->logit_softcap > 0},
                 {"attention.layer_norm_rms_epsilon", d->norm_eps, !d->norm_centred},
                 {"attention.layer_norm_epsilon", d->norm_eps, d->norm_centred},
                 {"attention.temperature_scale", growth(d), is_kind(k, "mistral3")},
                 {"attention.scale", d->attention_scale, granite},
                 {"embedding_scale", d->embed_scale, granite},
                 {"residual_scale", d->residual_scale, granite},
                 {"logit_scale", cohere ? d->logit_scale : 1 / d->logit_scale, cohere || granite}};
    FT_TRY(ft_gguf_put_text(o, "general.architecture", k->name));
    FT_TRY(ft_gguf_put_text(o, "general.type", "model"));
    FT_TRY(ft_gguf_put_count(o, "general.quantization_version", 2));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(key, sizeof key, "%s.%s", k->name, counts[i].key);
        if (counts[i].v || (is_kind(k, "phi3") && strstr(key, "sliding"))) /* 0: it has none */
            FT_TRY(ft_gguf_put_count(o, key, (uint32_t)counts[i].v));
    }
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (reals[i].there)
            FT_TRY(put_real_of(o, k, reals[i].key, reals[i].v));
    if (is_kind(k, "gptneox"))
        FT_TRY(ft_gguf_put_flag(o, "gptneox.use_parallel_residual", d->parallel));
    FT_TRY(put_windows(o, d, k));
    return put_scaling(o, d, k);
}

int ft_gguf_factors(const struct ft_model *m, struct ft_gguf_factors out[FT_GGUF_FACTORS])
{
    struct ft_rope_spec plain = *main_rope(&m->decoder);
    float scaled[FT_ROPE_MAX_HALF];
    const int half = plain.dim / 2;
    if (plain.type == FT_ROPE_LONGROPE) {
        out[0] = (struct ft_gguf_factors){.name = "rope_factors_long.weight", .n = half};
        out[1] = (struct ft_gguf_factors){.name = "rope_factors_short.weight", .n = half};
        memcpy(out[0].v, plain.long_factor, sizeof out[0].v);
        memcpy(out[1].v, plain.short_factor, sizeof out[1].v);
        return 2;
    }
    if (plain.type != FT_ROPE_LLAMA3)
        return 0;
    out[0] = (struct ft_gguf_factors){.name = "rope_freqs.weight", .n = half};
    ft_rope_frequencies(&plain, 1, scaled);
    plain.type = FT_ROPE_DEFAULT;
    ft_rope_frequencies(&plain, 1, out[0].v);
    for (int i = 0; i < half; i++)
        out[0].v[i] /= scaled[i];
    return 1;
}

static const char *layer_tensor(const struct ft_model *m, const char *what, size_t length)
{
    const struct ft_names *n = &m->decoder.names;
    const char *mlp = n->layer_norm[FT_NORM_MLP];
    const char *own = n->router && is(n->router, what, length) ? router : NULL;
    for (int i = 0; i < FT_KINDS; i++)
        if (n->module[i] && is(n->module[i], what, length))
            own = modules[i];
    for (int i = 0; i < FT_NORM_SITES; i++)
        if (n->layer_norm[i] && is(n->layer_norm[i], what, length))
            own = norms[i];
    return mlp && is_kind(kind_of(m), "seed_oss") && is(mlp, what, length) ? after_attention : own;
}

int ft_gguf_places(const struct ft_model *m, int weight)
{
    const struct ft_model_weight w = ft_model_weight(m, weight);
    const char *in = m->decoder.names.module[FT_EXPERTS_IN];
    return w.kind == FT_W_EXPERTS && ft_ends_with(w.path, in) ? 2 : 1;
}

bool ft_gguf_place(const struct ft_model *m, int weight, int i, struct ft_gguf_place *out)
{
    const struct ft_names *n = &m->decoder.names;
    const struct ft_model_weight w = ft_model_weight(m, weight);
    const int places = ft_gguf_places(m, weight);
    const char *end = strrchr(w.path, '.'), *rest = w.path;
    char *after;
    out->of = w.kind == FT_W_EXPERTS ? w.rows / m->decoder.mixture.count : w.rows;
    out->rows = out->of / places;
    out->first = i * out->rows;
    const bool matrix = w.cols && (w.rows > 1 || w.kind == FT_W_NORM); /* of one row: a vector */
    out->n_dims = matrix ? 2 : 1;
    out->dims[0] = w.cols && !matrix ? w.cols : w.rows;
    out->dims[1] = w.cols;
    if (w.kind == FT_W_EMBED || w.kind == FT_W_HEAD) {
        snprintf(out->name, sizeof out->name, "%s%s",
                 w.kind == FT_W_EMBED ? "token_embd" : "output", end);
        return true;
    }
    rest += ft_starts_with(rest, n->prefix) ? strlen(n->prefix) : 0;
    if (!ft_starts_with(rest, n->layers) || rest[strlen(n->layers)] != '.') {
        snprintf(out->name, sizeof out->name, "output_norm%s", end);
        return is(n->norm, rest, (size_t)(end - rest));
    }
    const long layer = strtol(rest + strlen(n->layers) + 1, &after, 10);
    if (w.kind == FT_W_EXPERTS) {
        out->n_dims = 3;
        out->dims[0] = m->decoder.mixture.count;
        out->dims[1] = out->rows;
        out->dims[2] = w.cols;
        snprintf(out->name, sizeof out->name, "blk.%ld.%s.weight", layer,
                 experts[places == 2 ? i : 2].name);
        return true;
    }
    const char *own = layer_tensor(m, after + 1, (size_t)(end - after) - 1);
    snprintf(out->name, sizeof out->name, "blk.%ld.%s%s", layer, own ? own : "?", end);
    return own != NULL;
}

int64_t ft_gguf_weight_row(const struct ft_model *m, int weight, int64_t row)
{
    const struct ft_model_weight w = ft_model_weight(m, weight);
    const struct ft_module *all;
    const int n = ft_model_modules(m, &all);
    const size_t length = (size_t)(strrchr(w.path, '.') - w.path);
    for (int i = 0; i < n; i++)
        if (is(all[i].name, w.path, length))
            return ft_gguf_module_row(m, &all[i], row);
    return row;
}
