/* Decoders with LayerNorm, most of them with an MLP without a gate: GPT-2, OPT, GPT-NeoX, Falcon,
 * StarCoder 2, Nemotron, StableLM. */
#include "model/family/family.h"

/* --- GPT-2: learned positions, weights stored as (in, out) --- */

static const struct ft_field gpt2_fields[] = {
    FT_FIELD("vocab_size", FT_COUNT, vocab),
    FT_FIELD("hidden_size", FT_COUNT, hidden),
    FT_FIELD("n_embd", FT_COUNT, hidden),
    FT_FIELD("num_hidden_layers", FT_COUNT, layers),
    FT_FIELD("n_layer", FT_COUNT, layers),
    FT_FIELD("num_attention_heads", FT_COUNT, heads),
    FT_FIELD("n_head", FT_COUNT, heads),
    FT_FIELD("n_inner", FT_COUNT_OR_NONE, ffn), /* 0: 4 x hidden */
    FT_FIELD("max_position_embeddings", FT_COUNT, max_positions),
    FT_FIELD("n_positions", FT_COUNT, max_positions),
    FT_FIELD("layer_norm_epsilon", FT_REAL, norm_eps),
    FT_FIELD("activation_function", FT_ACTIVATION, act),
    FT_FIELD("tie_word_embeddings", FT_FLAG, tied),
    FT_MUST_BE("scale_attn_weights", true),
    FT_MUST_BE("scale_attn_by_inverse_layer_idx", false),
    FT_MUST_BE("add_cross_attention", false),
    FT_NO_MORE,
};

static int gpt2_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    (void)root, (void)file;
    d->positions = d->max_positions;
    d->ffn = d->ffn ? d->ffn : 4 * d->hidden;
    return FT_OK;
}

const struct ft_family ft_family_gpt2 = {
    .architecture = "GPT2LMHeadModel",
    .model_type = "gpt2",
    .fields = {gpt2_fields},
    .settle = gpt2_settle,
    .decoder = {.vocab = 50257,
                .hidden = 768,
                .layers = 12,
                .heads = 12,
                .max_positions = 1024,
                .norm_eps = 1e-5,
                .norm_centred = true,
                .norm_biased = true,
                .tied = true,
                .act = FT_GELU_TANH,
                .biased = FT_BITS_ATTEND | FT_BITS_MLP,
                .conv1d = true,
                .pad_is_trained = true,
                .names = {.prefix = "transformer.",
                          .in_file = {"transformer.", ""},
                          .layers = "h",
                          .embed = "wte",
                          .positions = "wpe",
                          .norm = "ln_f",
                          .head = "lm_head",
                          .module = {[FT_QKV] = "attn.c_attn",
                                     [FT_O] = "attn.c_proj",
                                     [FT_UP] = "mlp.c_fc",
                                     [FT_DOWN] = "mlp.c_proj"},
                          .layer_norm = {[FT_NORM_ATTENTION] = "ln_1", [FT_NORM_MLP] = "ln_2"},
                          .buffers = {".attn.bias", ".attn.masked_bias"}}},
};

/* --- OPT: positions count from 2 --- */

static const struct ft_field opt_fields[] = {
    FT_FIELD("vocab_size", FT_COUNT, vocab),
    FT_FIELD("hidden_size", FT_COUNT, hidden),
    FT_FIELD("num_hidden_layers", FT_COUNT, layers),
    FT_FIELD("num_attention_heads", FT_COUNT, heads),
    FT_FIELD("ffn_dim", FT_COUNT, ffn),
    FT_FIELD("max_position_embeddings", FT_COUNT, max_positions),
    FT_FIELD("activation_function", FT_ACTIVATION, act),
    FT_FIELD("tie_word_embeddings", FT_FLAG, tied),
    FT_BIASED("enable_bias", FT_BITS_ATTEND | FT_BITS_MLP),
    FT_MUST_BE("do_layer_norm_before", true),
    FT_MUST_BE("layer_norm_elementwise_affine", true),
    FT_NO_MORE,
};

static int opt_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    long long width = (long long)d->hidden;
    bool no_norm = false;
    if (!ft_json_int(root, file, "word_embed_proj_dim", &width) ||
        !ft_json_bool(root, file, "_remove_final_layer_norm", &no_norm))
        return FT_EDATA;
    if (width != d->hidden)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'word_embed_proj_dim' is %lld, ft supports 'hidden_size' (%lld) only",
                          width, (long long)d->hidden);
    d->first_position = 2;
    d->positions = d->max_positions + d->first_position;
    if (no_norm)
        d->names.norm = NULL;
    return FT_OK;
}

const struct ft_family ft_family_opt = {
    .architecture = "OPTForCausalLM",
    .model_type = "opt",
    .pad = 2,
    .fields = {opt_fields},
    .settle = opt_settle,
    .decoder = {.vocab = 50272,
                .hidden = 768,
                .ffn = 3072,
                .layers = 12,
                .heads = 12,
                .max_positions = 2048,
                .norm_eps = 1e-5,
                .norm_centred = true,
                .norm_biased = true,
                .tied = true,
                .act = FT_RELU,
                .biased = FT_BITS_ATTEND | FT_BITS_MLP,
                .names = {.prefix = "model.decoder.",
                          .in_file = {"model.decoder.", "decoder."},
                          .layers = "layers",
                          .embed = "embed_tokens",
                          .positions = "embed_positions",
                          .norm = "final_layer_norm",
                          .head = "lm_head",
                          .module = {[FT_Q] = "self_attn.q_proj",
                                     [FT_K] = "self_attn.k_proj",
                                     [FT_V] = "self_attn.v_proj",
                                     [FT_O] = "self_attn.out_proj",
                                     [FT_UP] = "fc1",
                                     [FT_DOWN] = "fc2"},
                          .layer_norm = {[FT_NORM_ATTENTION] = "self_attn_layer_norm",
                                         [FT_NORM_MLP] = "final_layer_norm"}}},
};

/* --- GPT-NeoX: q, k and v by head in one product, a quarter of a head rotated --- */

static const struct ft_field neox_fields[] = {
    FT_FIELD("vocab_size", FT_COUNT, vocab),
    FT_FIELD("hidden_size", FT_COUNT, hidden),
    FT_FIELD("intermediate_size", FT_COUNT, ffn),
    FT_FIELD("num_hidden_layers", FT_COUNT, layers),
    FT_FIELD("num_attention_heads", FT_COUNT, heads),
    FT_FIELD("max_position_embeddings", FT_COUNT, max_positions),
    FT_FIELD("layer_norm_eps", FT_REAL, norm_eps),
    FT_FIELD("hidden_act", FT_ACTIVATION, act),
    FT_FIELD("tie_word_embeddings", FT_FLAG, tied),
    FT_FIELD("use_parallel_residual", FT_FLAG, parallel),
    FT_BIASED("attention_bias", FT_BITS_ATTEND),
    FT_NO_MORE,
};

const struct ft_family ft_family_gpt_neox = {
    .architecture = "GPTNeoXForCausalLM",
    .model_type = "gpt_neox",
    .fields = {neox_fields},
    .rope = {.theta = 1e4,
             .theta_key = "rotary_emb_base",
             .partial = 0.25,
             .partial_key = "rotary_pct"},
    .decoder = {.vocab = 50432,
                .hidden = 6144,
                .ffn = 24576,
                .layers = 44,
                .heads = 64,
                .max_positions = 2048,
                .norm_eps = 1e-5,
                .norm_centred = true,
                .norm_biased = true,
                .act = FT_GELU,
                .biased = FT_BITS_ATTEND | FT_BITS_MLP,
                .qkv_by_group = true,
                .parallel = true,
                .pad_is_trained = true,
                .names = {.prefix = "gpt_neox.",
                          .layers = "layers",
                          .embed = "embed_in",
                          .norm = "final_layer_norm",
                          .head = "lm_head",
                          .head_in_file = {"embed_out", "lm_head"},
                          .module = {[FT_QKV] = "attention.query_key_value",
                                     [FT_O] = "attention.dense",
                                     [FT_UP] = "mlp.dense_h_to_4h",
                                     [FT_DOWN] = "mlp.dense_4h_to_h"},
                          .layer_norm = {FT_LLAMA_NORMS},
                          .buffers = {".attention.bias", ".attention.masked_bias"}}},
};

/* --- Falcon: 7B (one key head, norm shared), its later decoder, and its first one --- */

static const struct ft_field falcon_fields[] = {
    FT_FIELD("vocab_size", FT_COUNT, vocab),
    FT_FIELD("hidden_size", FT_COUNT, hidden),
    FT_FIELD("n_embed", FT_COUNT, hidden),
    FT_FIELD("num_hidden_layers", FT_COUNT, layers),
    FT_FIELD("num_attention_heads", FT_COUNT, heads),
    FT_FIELD("num_kv_heads", FT_COUNT_OR_NONE, kv_heads),
    FT_FIELD("ffn_hidden_size", FT_COUNT_OR_NONE, ffn), /* 0: 4 x hidden */
    FT_FIELD("max_position_embeddings", FT_COUNT, max_positions),
    FT_FIELD("layer_norm_epsilon", FT_REAL, norm_eps),
    FT_FIELD("activation", FT_ACTIVATION, act),
    FT_FIELD("tie_word_embeddings", FT_FLAG, tied),
    FT_FIELD("parallel_attn", FT_FLAG, parallel),
    FT_BIASED("bias", FT_BITS_ATTEND | FT_BITS_MLP),
    FT_MUST_BE("alibi", false),
    FT_NO_MORE,
};

static int falcon_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    bool later = false, one_key_head = true;
    long long norms = 0;
    if (!ft_json_bool(root, file, "new_decoder_architecture", &later) ||
        !ft_json_bool(root, file, "multi_query", &one_key_head) ||
        !ft_json_int(root, file, "num_ln_in_parallel_attn", &norms))
        return FT_EDATA;
    if (!later)
        d->kv_heads = one_key_head ? 1 : d->heads;
    d->qkv_by_group = later || !one_key_head;
    d->ffn = d->ffn ? d->ffn : 4 * d->hidden;
    norms = norms ? norms : later ? 2 : 1;
    if (later && !d->parallel)
        return ft_fail_at((struct ft_where){.file = file}, FT_EDATA,
                          "'parallel_attn' is false beside 'new_decoder_architecture', which ft "
                          "does not support");
    if (d->parallel)
        d->names.layer_norm[FT_NORM_MLP] = norms == 2 ? "ln_mlp" : NULL;
    if (d->parallel && norms == 2)
        d->names.layer_norm[FT_NORM_ATTENTION] = "ln_attn";
    return FT_OK;
}

const struct ft_family ft_family_falcon = {
    .architecture = "FalconForCausalLM",
    .model_type = "falcon",
    .fields = {falcon_fields},
    .rope = {.theta = 1e4},
    .settle = falcon_settle,
    .decoder = {.vocab = 65024,
                .hidden = 4544,
                .layers = 32,
                .heads = 71,
                .max_positions = 2048,
                .norm_eps = 1e-5,
                .norm_centred = true,
                .norm_biased = true,
                .tied = true,
                .act = FT_GELU,
                .parallel = true,
                .pad_is_trained = true,
                .names = {.prefix = "transformer.",
                          .layers = "h",
                          .embed = "word_embeddings",
                          .norm = "ln_f",
                          .head = "lm_head",
                          .module = {[FT_QKV] = "self_attention.query_key_value",
                                     [FT_O] = "self_attention.dense",
                                     [FT_UP] = "mlp.dense_h_to_4h",
                                     [FT_DOWN] = "mlp.dense_4h_to_h"},
                          .layer_norm = {FT_LLAMA_NORMS}}},
};

/* --- StarCoder 2: Llama's attention, with biases --- */

static const struct ft_field starcoder2_fields[] = {
    FT_FIELD("norm_epsilon", FT_REAL, norm_eps),
    FT_FIELD("sliding_window", FT_COUNT_OR_NONE, window),
    FT_BIASED("use_bias", FT_BITS_ATTEND | FT_BITS_MLP),
    FT_NO_MORE,
};

const struct ft_family ft_family_starcoder2 = {
    .architecture = "Starcoder2ForCausalLM",
    .model_type = "starcoder2",
    .fields = {ft_common_fields, starcoder2_fields},
    .rope = {.theta = 1e4},
    .decoder =
        {.vocab = 49152,
         .hidden = 3072,
         .ffn = 12288,
         .layers = 30,
         .heads = 24,
         .kv_heads = 2,
         .max_positions = 4096,
         .norm_eps = 1e-5,
         .norm_centred = true,
         .norm_biased = true,
         .tied = true,
         .act = FT_GELU_TANH,
         .biased = FT_BITS_ATTEND | FT_BITS_MLP,
         .use_window = true,
         .names = {.prefix = "model.",
                   FT_LLAMA_LAYER,
                   .module = {FT_LLAMA_ATTENTION, [FT_UP] = "mlp.c_fc", [FT_DOWN] = "mlp.c_proj"},
                   .layer_norm = {FT_LLAMA_NORMS}}},
};

/* --- Nemotron: 1 is added to the norms' weights, half a head is rotated --- */

static const struct ft_field nemotron_fields[] = {
    FT_FIELD("norm_eps", FT_REAL, norm_eps),
    FT_NO_MORE,
};

const struct ft_family ft_family_nemotron = {
    .architecture = "NemotronForCausalLM",
    .model_type = "nemotron",
    .fields = {ft_common_fields, ft_bias_fields, nemotron_fields},
    .rope = {.theta = 1e4, .partial = 0.5},
    .decoder =
        {.vocab = 256000,
         .hidden = 6144,
         .ffn = 24576,
         .layers = 32,
         .heads = 48,
         .max_positions = 4096,
         .norm_eps = 1e-5,
         .norm_offset = 1,
         .norm_centred = true,
         .norm_biased = true,
         .act = FT_RELU2,
         .names =
             {.prefix = "model.",
              FT_LLAMA_LAYER,
              .module = {FT_LLAMA_ATTENTION, [FT_UP] = "mlp.up_proj", [FT_DOWN] = "mlp.down_proj"},
              .layer_norm = {FT_LLAMA_NORMS}}},
};

/* --- StableLM: Llama with LayerNorm, a quarter of a head is rotated --- */

static const struct ft_field stablelm_fields[] = {
    FT_FIELD("layer_norm_eps", FT_REAL, norm_eps),
    FT_FIELD("use_parallel_residual", FT_FLAG, parallel),
    FT_BIASED("use_qkv_bias", FT_BITS_QKV),
    FT_MUST_BE("qk_layernorm", false),
    FT_NO_MORE,
};

/* Side by side, attention and MLP read one norm. */
static int stablelm_settle(const json_t *root, const char *file, struct ft_decoder *d)
{
    (void)root, (void)file;
    if (d->parallel)
        d->names.layer_norm[FT_NORM_MLP] = NULL;
    return FT_OK;
}

const struct ft_family ft_family_stablelm = {
    .architecture = "StableLmForCausalLM",
    .model_type = "stablelm",
    .fields = {ft_common_fields, stablelm_fields},
    .rope = {.theta = 1e4, .partial = 0.25},
    .settle = stablelm_settle,
    .decoder = {.vocab = 50304,
                .hidden = 2560,
                .ffn = 6912,
                .layers = 32,
                .heads = 32,
                .kv_heads = 32,
                .max_positions = 4096,
                .norm_eps = 1e-5,
                .norm_centred = true,
                .norm_biased = true,
                FT_LLAMA_NAMES},
};
