/* A whole model as llama.cpp's: its metadata, what of it llama.cpp would not load or read
 * otherwise, and the tensors that its weights become. */
#include "model/gguf.h"

#include "model/gguf_kinds.h"

#include "core/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
static double yarn_attention(const struct ft_rope_spec *r, const struct ft_gguf_kind *k)
{
    return ft_gguf_is_kind(k, "mistral3") || r->factor <= 1 ? 1 : 0.1 * log(r->factor) + 1;
}

static int put_real_of(struct ft_gguf_out *o, const struct ft_gguf_kind *k, const char *name,
                       double v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", k->name, name);
    return ft_gguf_put_real(o, key, (float)v);
}

static int put_scaling(struct ft_gguf_out *o, const struct ft_model *m,
                       const struct ft_gguf_kind *k)
{
    const struct ft_decoder *d = &m->decoder;
    const struct ft_rope_spec *r = main_rope(d);
    const enum ft_rope_type type = r->type;
    char key[96];
    if (type == FT_ROPE_YARN || type == FT_ROPE_LONGROPE || ft_gguf_is_kind(k, "phi3") ||
        ft_gguf_is_kind(k, "mistral3")) {
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
    if (!r->truncate)
        ft_notice((struct ft_where){.file = m->folder},
                  "llama.cpp rounds the frequencies from which, and up to which, yarn acts; this "
                  "model does not: answers differ a little, as with any GGUF file of it");
    FT_TRY(put_real_of(o, k, "rope.scaling.yarn_beta_fast", r->beta_fast));
    FT_TRY(put_real_of(o, k, "rope.scaling.yarn_beta_slow", r->beta_slow));
    return ft_gguf_is_kind(k, "mistral3") ? put_real_of(o, k, "rope.scaling.yarn_log_multiplier", 1)
                                          : FT_OK;
}

/* Whether llama.cpp's code for the architecture knows windows (Mistral's it passes over), or cannot
 * do without. */
static bool windows_fit(const struct ft_decoder *d, const struct ft_gguf_kind *k)
{
    bool any = false, shorter = false;
    for (int64_t i = 0; i < d->layers; i++) {
        any |= d->layer[i].window != 0;
        shorter |= d->layer[i].window && d->layer[i].window < d->max_positions;
    }
    if (!k->every)
        return !d->use_window || !shorter;
    return d->use_window ? any : ft_gguf_is_kind(k, "olmo2");
}

/* Which layers have a window, where they are not the ones that it takes by itself. */
static int put_windows(struct ft_gguf_out *o, const struct ft_decoder *d,
                       const struct ft_gguf_kind *k)
{
    char key[96];
    bool usual = true;
    const unsigned since = ft_alloc_failures();
    json_t *list = json_array();
    for (int64_t i = 0; i < d->layers; i++) {
        usual &= !k->every || (d->layer[i].window != 0) == ((i + 1) % k->every != 0);
        json_array_append_new(list, json_boolean(d->layer[i].window != 0));
    }
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", k->name);
    json_t *all = usual || !d->use_window ? json_object() : json_pack("{sO}", key, list);
    int rc = ft_alloc_check(since);
    if (!rc)
        rc = ft_gguf_put_all(o, all);
    json_decref(all);
    json_decref(list);
    return rc;
}

static bool are_sections(const json_t *said)
{
    const size_t n = json_array_size(said);
    bool all = n == 3 || n == 4; /* of a GGUF file: a fourth, which is 0 */
    for (size_t i = 0; i < 3; i++)
        all &= json_integer_value(json_array_get(said, i)) > 0;
    return all;
}

/* How positions of images are rotated, and how many layers take what was seen: text asks for
 * neither, but the same file serves the part that sees. */
static int put_seen(struct ft_gguf_out *o, const struct ft_model *m, const struct ft_gguf_kind *k)
{
    char *path = ft_path_join(m->folder, "config.json"), key[96];
    const unsigned since = ft_alloc_failures();
    json_t *root = NULL, *all = json_object(), *list = json_array();
    int rc = path ? ft_json_file(path, FT_EDATA, &root) : FT_ERESOURCE;
    const json_t *text = ft_json_get(root, "text_config") ? ft_json_get(root, "text_config") : root;
    const json_t *rope = ft_json_get(text, "rope_parameters") ? ft_json_get(text, "rope_parameters")
                                                              : ft_json_get(text, "rope_scaling");
    const json_t *said = ft_json_get(rope, "mrope_section");
    if (!rc && said && !are_sections(said))
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                        "'mrope_section' is no list of three whole numbers from 1 on");
    for (size_t i = 0; i < 4; i++) {
        const json_t *v = json_array_get(said, i);
        json_array_append_new(list, json_integer(v               ? json_integer_value(v)
                                                 : said || i > 2 ? 0
                                                                 : k->sections[i]));
    }
    snprintf(key, sizeof key, "%s.rope.dimension_sections", k->name);
    json_object_set(all, key, list);
    const json_t *layers =
        json_object_get(ft_json_get(root, "vision_config"), "deepstack_visual_indexes");
    const json_t *number = ft_json_get(root, "n_deepstack_layers");
    snprintf(key, sizeof key, "%s.n_deepstack_layers", k->name);
    if (!ft_gguf_is_kind(k, "qwen2vl"))
        json_object_set_new(all, key,
                            json_integer(number ? json_integer_value(number)
                                                : (json_int_t)json_array_size(layers)));
    if (!rc)
        rc = ft_alloc_check(since);
    if (!rc)
        rc = ft_gguf_put_all(o, all);
    json_decref(list);
    json_decref(all);
    json_decref(root);
    ft_free(path);
    return rc;
}

static bool positions_fit(const struct ft_decoder *d, const struct ft_gguf_kind *k)
{
    const struct ft_rope_spec *r = d->n_ropes ? main_rope(d) : NULL, *other = window_rope(d);
    const bool gemma3 = ft_gguf_is_kind(k, "gemma3"), mistral3 = ft_gguf_is_kind(k, "mistral3");
    if (ft_gguf_is_kind(k, "gpt2"))
        return d->positions == d->max_positions && !d->first_position;
    if (!r || (growth(d) > 0) != mistral3)
        return false;
    if (d->n_ropes > 1 + (gemma3 || ft_gguf_is_kind(k, "olmo2") || mistral3))
        return false;
    if (k->every && other && other != r &&
        (other->type != FT_ROPE_DEFAULT || other->theta != (gemma3 ? 10000 : r->theta)))
        return false;
    switch (r->type) {
    case FT_ROPE_LLAMA3: /* where it loads factors */
        return mistral3 || ft_gguf_is_kind(k, "llama") || ft_starts_with(k->name, "granite") ||
               ft_gguf_is_kind(k, "arcee");
    case FT_ROPE_YARN: /* Gemma 3's windows would be scaled too; the betas are told Mistral's code
                        */
        return (r->truncate || ft_gguf_is_kind(k, "gpt-oss")) && !gemma3 &&
               fabs(r->attention_factor - yarn_attention(r, k)) < 1e-6 &&
               (mistral3 || (r->beta_fast == 32 && r->beta_slow == 1));
    case FT_ROPE_LONGROPE:
        return ft_gguf_is_kind(k, "phi3");
    default:
        return r->type == FT_ROPE_DEFAULT || r->type == FT_ROPE_LINEAR;
    }
}

/* Granite's is told, and 0 is none; Gemma's 27 billions have one of their own, which llama.cpp
 * knows by their layers. */
static bool scale_fits(const struct ft_decoder *d, const struct ft_gguf_kind *k)
{
    if (d->attention_softcap > 0 && !ft_gguf_is_kind(k, "gemma2"))
        return false;
    if (ft_starts_with(k->name, "granite"))
        return d->embed_scale && d->residual_scale && d->logit_scale && d->attention_scale;
    if (!(d->attention_scale > 0))
        return true;
    if (!ft_starts_with(k->name, "gemma"))
        return fabs(d->attention_scale * sqrt((double)d->head_dim) - 1) < 1e-6;
    return fabs(d->attention_scale * sqrt((double)d->head_dim) - 1) < 1e-6 || d->layers == 46 ||
           d->layers == 62;
}

/* Whether those layers have experts that llama.cpp's code for the architecture takes to have some,
 * and rows go to them as it has it. */
static bool experts_fit(const struct ft_decoder *d, const struct ft_gguf_kind *k)
{
    const struct ft_mixture *x = &d->mixture;
    const bool glm = ft_gguf_is_kind(k, "glm4moe");
    for (int64_t i = 0; x->count && i < d->layers; i++)
        if (d->layer[i].experts != (!glm || i >= x->first))
            return false;
    if (glm)
        return x->groups <= 1 && x->sigmoid && x->scale && x->shared_ffn % x->ffn == 0;
    if (ft_gguf_is_kind(k, "gpt-oss"))
        return x->pair_limit == 7 && fabs(x->pair_alpha - 1.702) < 1e-6;
    return !x->count || x->each == 1 || x->normalise == k->normalised;
}

/* What llama.cpp's code for the architecture asks of the tensors: a head of its own, or none;
 * biases; norms of queries and keys in the largest Command R alone; windows in Cohere 2; Falcon's
 * attention and MLP beside one another. */
static bool tensors_fit(const struct ft_model *m, const struct ft_gguf_kind *k)
{
    const struct ft_decoder *d = &m->decoder;
    if (ft_gguf_is_kind(k, "command-r"))
        return d->tied && !d->biased &&
               (d->names.layer_norm[FT_NORM_Q] != NULL) == (d->layers >= 64);
    if (ft_gguf_is_kind(k, "cohere2"))
        return d->tied && !d->biased && d->use_window && d->window;
    if (ft_gguf_is_kind(k, "gptneox") || ft_gguf_is_kind(k, "starcoder2"))
        return d->biased == m->text->decoder.biased && !(d->tied && ft_gguf_is_kind(k, "gptneox"));
    if (ft_gguf_is_kind(k, "falcon"))
        return !d->biased && d->parallel;
    if (ft_gguf_is_kind(k, "gpt-oss"))
        return d->biased == FT_BITS_ATTEND && !d->tied;
    if (ft_gguf_is_kind(k, "chatglm"))
        return d->heads * d->head_dim == d->hidden;
    if (ft_gguf_is_kind(k, "olmo2") || ft_gguf_is_kind(k, "seed_oss") ||
        ft_gguf_is_kind(k, "glm4moe"))
        return !(d->biased & ~(unsigned)FT_BITS_QKV) && !(d->tied && ft_gguf_is_kind(k, "olmo2"));
    return d->tied || !ft_starts_with(k->name, "gemma");
}

static bool is_gelu(enum ft_activation act)
{
    return act == FT_GELU || act == FT_GELU_TANH;
}

/* The family's own, which llama.cpp does not ask for. */
static bool activation_fits(const struct ft_model *m)
{
    const enum ft_activation act = m->decoder.act, own = m->text->decoder.act;
    return act == own || (is_gelu(act) && is_gelu(own));
}

static int check_written(const struct ft_model *m, const struct ft_gguf_kind *k)
{
    const struct ft_decoder *d = &m->decoder;
    const char *why = !k                                    ? "of its architecture"
                      : !experts_fit(d, k)                  ? "with such experts"
                      : !tensors_fit(m, k)                  ? "with such a head, norms or biases"
                      : !activation_fits(m)                 ? "with such an activation"
                      : !windows_fit(d, k)                  ? "with such windows of attention"
                      : !scale_fits(d, k)                   ? "with such scales or caps"
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

static int put_counts(struct ft_gguf_out *o, const struct ft_decoder *d,
                      const struct ft_gguf_kind *k)
{
    const bool glm = ft_gguf_is_kind(k, "glm4moe"), phi3 = ft_gguf_is_kind(k, "phi3");
    char key[96];
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
                  {"expert_shared_count", glm ? d->mixture.shared_ffn / d->mixture.ffn : 0},
                  {"leading_dense_block_count", glm ? d->mixture.first : 0},
                  {"expert_gating_func", d->mixture.sigmoid ? FT_GGUF_SIGMOID : 0},
                  {"attention.head_count", d->heads},
                  {"attention.head_count_kv", d->kv_heads},
                  {"attention.key_length", d->head_dim},
                  {"attention.value_length", d->head_dim},
                  {"vocab_size", d->vocab},
                  {"attention.sliding_window", d->use_window ? d->window : 0},
                  {"rope.dimension_count", d->rope[0].dim}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(key, sizeof key, "%s.%s", k->name, counts[i].key);
        if (counts[i].v || (phi3 && strstr(key, "sliding"))) /* 0: it has none */
            FT_TRY(ft_gguf_put_count(o, key, (uint32_t)counts[i].v));
    }
    return FT_OK;
}

static int put_reals(struct ft_gguf_out *o, const struct ft_decoder *d,
                     const struct ft_gguf_kind *k)
{
    const bool granite = ft_starts_with(k->name, "granite"), glm = ft_gguf_is_kind(k, "glm4moe"),
               cohere = ft_gguf_is_kind(k, "command-r") || ft_gguf_is_kind(k, "cohere2");
    const struct {
        const char *key;
        double v;
        bool there;
    } reals[] = {{"rope.freq_base", main_rope(d)->theta, d->n_ropes > 0},
                 {"attn_logit_softcapping", d->attention_softcap, d->attention_softcap > 0},
                 {"final_logit_softcapping", d->logit_softcap, d->logit_softcap > 0},
                 {"attention.layer_norm_rms_epsilon", d->norm_eps, !d->norm_centred},
                 {"attention.layer_norm_epsilon", d->norm_eps, d->norm_centred},
                 {"attention.temperature_scale", growth(d), ft_gguf_is_kind(k, "mistral3")},
                 {"expert_weights_scale", d->mixture.scale, glm},
                 {"attention.scale", d->attention_scale, granite},
                 {"embedding_scale", d->embed_scale, granite},
                 {"residual_scale", d->residual_scale, granite},
                 {"logit_scale", cohere ? d->logit_scale : 1 / d->logit_scale, cohere || granite}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (reals[i].there)
            FT_TRY(put_real_of(o, k, reals[i].key, reals[i].v));
    return FT_OK;
}

int ft_gguf_put_model(struct ft_gguf_out *o, const struct ft_model *m)
{
    const struct ft_decoder *d = &m->decoder;
    const struct ft_gguf_kind *k = ft_gguf_kind_of(m);
    FT_TRY(check_written(m, k));
    FT_TRY(ft_gguf_put_text(o, "general.architecture", k->name));
    FT_TRY(ft_gguf_put_text(o, "general.type", "model"));
    FT_TRY(ft_gguf_put_count(o, "general.quantization_version", 2));
    FT_TRY(put_counts(o, d, k));
    FT_TRY(put_reals(o, d, k));
    if (ft_gguf_is_kind(k, "gptneox"))
        FT_TRY(ft_gguf_put_flag(o, "gptneox.use_parallel_residual", d->parallel));
    if (ft_gguf_is_kind(k, "glm4moe"))
        FT_TRY(ft_gguf_put_flag(o, "glm4moe.expert_weights_norm", d->mixture.normalise));
    FT_TRY(put_windows(o, d, k));
    if (k->sections[0])
        FT_TRY(put_seen(o, m, k));
    return d->n_ropes ? put_scaling(o, m, k) : FT_OK;
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
    const char *own = n->router && ft_gguf_named(n->router, what, length) ? FT_GGUF_ROUTER : NULL;
    for (int i = 0; i < FT_KINDS; i++)
        if (n->module[i] && ft_gguf_named(n->module[i], what, length))
            own = ft_gguf_modules[i];
    for (int i = 0; i < FT_NORM_SITES; i++)
        if (n->layer_norm[i] && ft_gguf_named(n->layer_norm[i], what, length))
            own = ft_gguf_norm(m, i);
    return own;
}

/* What has no name of a module's or norm's, with its end. */
static const char *buffer_tensor(const struct ft_names *n, const char *what)
{
    return n->sinks && strcmp(n->sinks, what) == 0             ? FT_GGUF_SINKS
           : n->correction && strcmp(n->correction, what) == 0 ? FT_GGUF_CORRECTION
                                                               : NULL;
}

/* Whether they are all experts' gates and ups, or what is added to them; or what follows those. */
static bool is_experts(const struct ft_model *m, const struct ft_model_weight *w, enum ft_kind kind)
{
    const char *name = m->decoder.names.module[kind];
    const char *found = name ? strstr(w->path, name) : NULL;
    return found && (w->kind == FT_W_EXPERTS || w->kind == FT_W_BUFFER);
}

/* Gates and ups lie below each other, or by turns. */
static void place_experts(const struct ft_model *m, const struct ft_model_weight *w, long layer,
                          int i, struct ft_gguf_place *out)
{
    const struct ft_mixture *x = &m->decoder.mixture;
    const bool both = is_experts(m, w, FT_EXPERTS_IN), bias = w->kind == FT_W_BUFFER;
    const bool turns = both && x->pair_limit > 0;
    out->cols = bias ? 1 : w->cols;
    out->of = bias ? w->cols : w->rows / x->count;
    out->rows = both ? out->of / 2 : out->of;
    out->first = turns ? i : i * out->rows;
    out->step = turns ? 2 : 1;
    out->n_dims = bias ? 2 : 3;
    out->dims[0] = x->count;
    out->dims[1] = out->rows;
    out->dims[2] = w->cols;
    snprintf(out->name, sizeof out->name, "blk.%ld.%s.%s", layer,
             ft_gguf_experts[both ? i : 2].name, bias ? "bias" : "weight");
}

int ft_gguf_places(const struct ft_model *m, int weight)
{
    const struct ft_model_weight w = ft_model_weight(m, weight);
    return is_experts(m, &w, FT_EXPERTS_IN) ? 2 : 1;
}

/* What all layers share. */
static const char *shared_tensor(enum ft_weight_kind kind)
{
    return kind == FT_W_EMBED       ? "token_embd"
           : kind == FT_W_HEAD      ? "output"
           : kind == FT_W_POSITIONS ? "position_embd"
                                    : NULL;
}

bool ft_gguf_place(const struct ft_model *m, int weight, int i, struct ft_gguf_place *out)
{
    const struct ft_names *n = &m->decoder.names;
    const struct ft_model_weight w = ft_model_weight(m, weight);
    const char *end = strrchr(w.path, '.'), *rest = w.path, *own = shared_tensor(w.kind);
    const bool matrix = w.cols && (w.rows > 1 || w.kind == FT_W_NORM); /* of one row: a vector */
    char *after;
    *out = (struct ft_gguf_place){.n_dims = matrix ? 2 : 1,
                                  .dims = {w.cols && !matrix ? w.cols : w.rows, w.cols},
                                  .step = 1,
                                  .rows = w.rows,
                                  .of = w.rows,
                                  .cols = w.cols ? w.cols : 1};
    if (own) {
        snprintf(out->name, sizeof out->name, "%s%s", own, end);
        return true;
    }
    rest += ft_starts_with(rest, n->prefix) ? strlen(n->prefix) : 0;
    if (!ft_starts_with(rest, n->layers) || rest[strlen(n->layers)] != '.') {
        snprintf(out->name, sizeof out->name, "output_norm%s", end);
        return ft_gguf_named(n->norm, rest, (size_t)(end - rest));
    }
    const long layer = strtol(rest + strlen(n->layers) + 1, &after, 10);
    if (is_experts(m, &w, FT_EXPERTS_IN) || is_experts(m, &w, FT_EXPERTS_OUT)) {
        place_experts(m, &w, layer, i, out);
        return true;
    }
    own = buffer_tensor(n, after + 1);
    end = own ? "" : end;
    own = own ? own : layer_tensor(m, after + 1, (size_t)(end - after) - 1);
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
        if (ft_gguf_named(all[i].name, w.path, length))
            return ft_gguf_module_row(m, &all[i], row);
    return row;
}
