/* A GGUF file as a model folder: config.json from its metadata, its tensors under transformers'
 * names. The names come from ft's own row of the family. */
#include "model/gguf.h"

#include "kernels/blocks.h"
#include "model/gguf_kinds.h"
#include "model/quantised.h"

#include "core/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    {"expert_count", "n_routed_experts"},
    {"expert_shared_count", "n_shared_experts"},
    {"leading_dense_block_count", "first_k_dense_replace"},
    {"expert_weights_scale", "routed_scaling_factor"},
    {"expert_group_count", "n_group"},
    {"expert_group_used_count", "topk_group"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
    {"n_deepstack_layers", "n_deepstack_layers"},
};

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

static const json_t *of_kind(const struct ft_gguf *g, const struct ft_gguf_kind *k, const char *key)
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
static int put_rule(const struct ft_gguf *g, const struct ft_gguf_kind *k, const char *path,
                    json_t *rope)
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
    if (ft_gguf_is_kind(k, "gpt-oss")) /* as published; files cannot say it */
        json_object_set_new(rope, "truncate", json_false());
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (of_kind(g, k, said[i][0]))
            json_object_set_new(rope, said[i][1], shared(of_kind(g, k, said[i][0])));
    return FT_OK;
}

/* What the positions are scaled by: factors of their own, or a rule. */
static int put_rope(const struct ft_gguf *g, const struct ft_gguf_kind *k, const char *path,
                    json_t *config)
{
    const json_t *before = of_kind(g, k, "rope.scaling.original_context_length");
    const json_t *attention = of_kind(g, k, "rope.scaling.attn_factor");
    const json_t *sections = of_kind(g, k, "rope.dimension_sections");
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
        json_object_set_new(rope, "original_max_position_embeddings", shared(before));
    if (sections)
        json_object_set_new(rope, "mrope_section", shared(sections));
    if (json_object_size(rope))
        json_object_set(config, "rope_scaling", rope);
    json_decref(rope);
    json_decref(one);
    json_decref(longer);
    json_decref(shorter);
    return rc;
}

static double number(const struct ft_gguf *g, const struct ft_gguf_kind *k, const char *key)
{
    return json_number_value(of_kind(g, k, key));
}

/* What the file says otherwise than config.json, and what llama.cpp goes by the size for. */
static void put_rest(const struct ft_gguf *g, const struct ft_gguf_kind *k, json_t *config)
{
    const double hidden = number(g, k, "embedding_length"),
                 heads = number(g, k, "attention.head_count");
    const double own = number(g, k, "attention.key_length"),
                 turned = number(g, k, "rope.dimension_count");
    const double head = own > 0 ? own : heads > 0 ? hidden / heads : 0;
    const json_t *pattern = of_kind(g, k, "attention.sliding_window_pattern");
    const bool gemma2 = ft_gguf_is_kind(k, "gemma2"), gemma3 = ft_gguf_is_kind(k, "gemma3");
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
static void put_falcon(const struct ft_gguf *g, const struct ft_gguf_kind *k, json_t *config)
{
    const bool one_key_head = number(g, k, "attention.head_count_kv") <= 1;
    json_object_del(config, "head_dim"); /* its class works that out */
    json_object_set_new(config, "multi_query", json_boolean(one_key_head));
    json_object_set_new(config, "new_decoder_architecture", json_boolean(!one_key_head));
    json_object_set_new(config, "num_ln_in_parallel_attn",
                        json_integer(find_tensor(g, "blk.0.attn_norm_2.weight") ? 2 : 1));
}

/* What a mixture's file leaves to llama.cpp's code, and layers that only guess further tokens. */
static void put_experts(const struct ft_gguf *g, const struct ft_gguf_kind *k, json_t *config)
{
    const json_t *normed = of_kind(g, k, "expert_weights_norm");
    const json_int_t guessing = json_integer_value(of_kind(g, k, "nextn_predict_layers"));
    if (number(g, k, "expert_count") > 0)
        json_object_set_new(config, "norm_topk_prob",
                            json_boolean(k->normalised || json_is_true(normed)));
    if (guessing > 0)
        json_object_set_new(
            config, "num_hidden_layers",
            json_integer(json_integer_value(of_kind(g, k, "block_count")) - guessing));
    if (ft_gguf_is_kind(k, "glm4moe") && !of_kind(g, k, "leading_dense_block_count"))
        json_object_set_new(config, "first_k_dense_replace", json_integer(0));
}

/* Other ways to route than the family's. */
static int check_gating(const struct ft_gguf *g, const struct ft_gguf_kind *k, const char *path)
{
    const json_t *said = of_kind(g, k, "expert_gating_func");
    const int own = ft_gguf_is_kind(k, "glm4moe") ? FT_GGUF_SIGMOID : FT_GGUF_SOFTMAX;
    if (!said || json_number_value(said) == 0 || json_number_value(said) == own)
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                      "'%s.expert_gating_func' is %g, ft knows %d there", k->name,
                      json_number_value(said), own);
}

static const char *architecture_of(const struct ft_gguf *g, const struct ft_gguf_kind *k)
{
    if (k->mixture && number(g, k, "expert_count") > 0)
        return k->mixture;
    return k->windowed && number(g, k, "attention.sliding_window") > 0 ? k->windowed
                                                                       : k->architecture;
}

int ft_gguf_config(const struct ft_gguf *g, const char *path, json_t **out)
{
    const char *name = json_string_value(json_object_get(g->metadata, "general.architecture"));
    const struct ft_gguf_kind *k = ft_gguf_kind(name);
    const unsigned since = ft_alloc_failures();
    char known[512];
    if (!k) {
        ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                   "'general.architecture' is '%s', which ft does not read from GGUF",
                   name ? name : "(missing)");
        ft_gguf_list_kinds(known, sizeof known);
        ft_hint("ft reads %s", known);
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
    put_experts(g, k, config);
    if (ft_gguf_is_kind(k, "falcon"))
        put_falcon(g, k, config);
    int rc = check_gating(g, k, path);
    if (!rc)
        rc = put_rope(g, k, path, config);
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

/* transformers' name of blk.N.`what`.`end`; NULL: none. */
static const char *layer_name(const struct ft_model *m, const char *what, size_t length)
{
    const struct ft_names *n = &m->decoder.names;
    for (int i = 0; i < FT_KINDS; i++)
        if (n->module[i] && ft_gguf_modules[i] && ft_gguf_named(ft_gguf_modules[i], what, length))
            return n->module[i];
    if (n->router && ft_gguf_named(FT_GGUF_ROUTER, what, length))
        return n->router_in_file ? n->router_in_file : n->router;
    for (int i = 0; i < FT_NORM_SITES; i++)
        if (n->layer_norm[i] && ft_gguf_named(ft_gguf_norm(m, i), what, length))
            return n->layer_norm[i];
    return NULL;
}

/* What is added to all experts' products. */
static const char *experts_bias(struct ft_model *m, long layer, const char *what)
{
    const struct ft_names *n = &m->decoder.names;
    const char *end = strrchr(what, '.');
    for (size_t i = 0; i < FT_GGUF_EXPERTS && end && strcmp(end, ".bias") == 0; i++) {
        if (!ft_gguf_named(ft_gguf_experts[i].name, what, (size_t)(end - what)))
            continue;
        return i < 2 ? ft_decoder_expert(m, n->prefix, (int)layer, -1, ft_gguf_experts[i].expert,
                                         "bias")
                     : ft_arena_format(&m->arena, "%s%s.%ld.%s_bias", n->prefix, n->layers, layer,
                                       n->module[FT_EXPERTS_OUT]);
    }
    return NULL;
}

static const char *name_of(struct ft_model *m, const char *name)
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
    const char *what = *after == '.' ? after + 1 : "";
    if (n->more_layers && layer >= m->decoder.layers && *what) /* which only guess further tokens */
        return ft_arena_format(&m->arena, "%s%s.%ld.%s", n->prefix, n->layers, layer, what);
    const char *buffer = n->sinks && strcmp(what, FT_GGUF_SINKS) == 0             ? n->sinks
                         : n->correction && strcmp(what, FT_GGUF_CORRECTION) == 0 ? n->correction
                                                                                  : NULL;
    if (buffer)
        return ft_arena_format(&m->arena, "%s%s.%ld.%s", n->prefix, n->layers, layer, buffer);
    const char *bias = m->decoder.mixture.biased ? experts_bias(m, layer, what) : NULL;
    if (bias)
        return bias;
    const char *own = *what && end > what ? layer_name(m, what, (size_t)(end - what)) : NULL;
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
static int experts_of(const struct ft_gguf_tensor *t, long *layer)
{
    char *after = NULL;
    if (!ft_starts_with(t->name, "blk.") || t->n_dims != 3)
        return -1;
    *layer = strtol(t->name + 4, &after, 10);
    const char *what = after + (*after == '.'), *end = strrchr(what, '.');
    for (size_t i = 0; end && i < FT_GGUF_EXPERTS; i++)
        if (ft_gguf_named(ft_gguf_experts[i].name, what, (size_t)(end - what)) &&
            strcmp(end, ".weight") == 0)
            return ft_gguf_experts[i].expert;
    return -1;
}

/* Each expert's matrix as a tensor of its own, as transformers' files have them. */
static int add_experts(struct ft_model *m, const struct ft_gguf_tensor *t, long layer, int expert,
                       struct ft_st_entry *out)
{
    const int64_t bytes = (t->end - t->begin) / t->dims[0];
    for (int64_t i = 0; i < t->dims[0]; i++) {
        out[i] = (struct ft_st_entry){
            .name = ft_decoder_expert(m, m->decoder.names.prefix, (int)layer, i, expert, "weight"),
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
    if (t->n_dims == 1 &&
        strstr(t->name, ft_gguf_modules[FT_SHARED_SCALE])) { /* a matrix of one row */
        out->n_dims = 2;
        out->dims[1] = out->dims[0];
        out->dims[0] = 1;
    }
    return out->name ? FT_OK : FT_ERESOURCE;
}

/* At least one. */
static int count_entries(const struct ft_model *m, const struct ft_gguf *g, const char *path,
                         size_t *out)
{
    long layer;
    *out = 1;
    for (int i = 0; i < g->n; i++) {
        const bool experts = experts_of(&g->tensors[i], &layer) >= 0;
        const int64_t count = m->decoder.mixture.count, has = g->tensors[i].dims[0];
        *out += experts ? (size_t)count : 1;
        if (experts && has != count)
            return ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                              "tensor '%s' is of %lld experts, the metadata says %lld",
                              g->tensors[i].name, (long long)has, (long long)count);
    }
    return FT_OK;
}

int ft_gguf_tensors(struct ft_model *m, const char *path, struct ft_st **out)
{
    struct ft_gguf g;
    struct ft_st_entry *entries = NULL;
    int n = 0;
    long layer;
    FT_TRY(ft_gguf_open(&g, path));
    const struct ft_gguf_kind *k =
        ft_gguf_kind(json_string_value(json_object_get(g.metadata, "general.architecture")));
    m->gguf = true;
    if (k) /* the parts of a split file may not say */
        m->permuted = k->permuted;
    size_t room;
    int rc = count_entries(m, &g, path, &room);
    if (!rc)
        rc = ft_alloc(&entries, room, sizeof *entries);
    for (int i = 0; i < g.n && !rc; i++) {
        const struct ft_gguf_tensor *t = &g.tensors[i];
        const int expert = experts_of(t, &layer);
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

int64_t ft_gguf_row(const struct ft_model *m, const struct ft_weight *w, int64_t row)
{
    return w->order == FT_GROUPED  ? ft_gguf_grouped_row(&m->decoder, row)
           : w->order == FT_PAIRED ? ft_gguf_paired_row(&m->decoder, row)
                                   : row;
}

enum ft_row_order ft_gguf_order(const struct ft_model *m, enum ft_kind kind)
{
    return m->permuted && (kind == FT_Q || kind == FT_K)          ? FT_PAIRED
           : m->gguf && kind == FT_QKV && m->decoder.qkv_by_group ? FT_GROUPED
                                                                  : FT_IN_ORDER;
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
