/* A decoder-only transformer as data: what its family reads from config.json, and what one builder
 * (decoder.c) walks. A layer is
 *
 *     x = norm(h);  a = attention(q, k, v of x);   h += residual_scale * norm(o(a))
 *     x = norm(h);  m = down(act(gate(x)) * up(x)); h += residual_scale * norm(m)
 *
 * where each norm is there or not, a may be multiplied by a sigmoid of x's, and a parallel one
 * computes both from the layer's input. */
#ifndef FT_MODEL_DECODER_H
#define FT_MODEL_DECODER_H

#include "model/rope.h"

#include "graph/graph.h"

/* What a linear module of a layer is for. Fused ones hold their parts one behind the other. */
enum ft_kind {
    FT_Q,
    FT_K,
    FT_V,
    FT_QKV,
    /* of attention whose queries, keys and values come from narrow ones (struct ft_latent): down to
     * those, and up from them; behind the narrow keys and values, a part of the keys */
    FT_Q_DOWN,
    FT_Q_UP,
    FT_KV_DOWN,
    FT_KV_UP,
    FT_O_GATE, /* of the attention's input: its sigmoid multiplies what o reads */
    FT_O,
    FT_GATE,
    FT_UP, /* also the first of an MLP that has no gate */
    FT_GATE_UP,
    FT_DOWN,
    /* of a layer with experts: those of the one that all rows go to, and its gate (a number a row);
     * all experts' gates and ups, each one's below each other, and their downs */
    FT_SHARED_GATE,
    FT_SHARED_UP,
    FT_SHARED_DOWN,
    FT_SHARED_SCALE,
    FT_EXPERTS_IN,
    FT_EXPERTS_OUT,
    FT_KINDS
};

static inline bool ft_is_experts(enum ft_kind kind)
{
    return kind == FT_EXPERTS_IN || kind == FT_EXPERTS_OUT;
}

enum ft_norm_site {
    FT_NORM_ATTENTION,     /* of what attention reads */
    FT_NORM_ATTENTION_OUT, /* of what it adds */
    FT_NORM_MLP,
    FT_NORM_MLP_OUT,
    FT_NORM_Q, /* of queries and keys, before they are rotated, or after */
    FT_NORM_K,
    FT_NORM_Q_NARROW, /* of what FT_Q_UP and FT_KV_UP read */
    FT_NORM_KV_NARROW,
    FT_NORM_SITES
};

/* Names of modules and tensors; NULL: the decoder has none such. */
struct ft_names {
    const char *prefix;     /* of module paths, as transformers and PEFT have them: "model." */
    const char *in_file[4]; /* the same of tensors in files, the first that fits; NULL ends */
    const char *layers;     /* "layers" */
    const char *embed, *positions, *norm;
    const char *head;            /* without the prefix */
    const char *head_in_file[3]; /* NULL ends */
    const char *module[FT_KINDS], *layer_norm[FT_NORM_SITES];
    const char *sinks;               /* scores that attention adds, one a head */
    const char *router, *correction; /* of a layer with experts; what is added for the choice */
    const char *router_in_file;      /* NULL: as it is called */
    /* experts in files: all in one tensor, where that is not called as the module is; or one by
     * one, behind this and a number: the gate, up and down */
    const char *all_in_file[2], *experts, *expert[5]; /* NULL behind the up and the down */
    const char *linear[4]; /* or the number behind these: the gate, up, (NULL) and down */
    bool turned;           /* those of one tensor may be stored as (experts, in, out) */
    bool always_turned;
    bool crossed; /* PEFT takes the inputs of stored experts for outputs: A and B change places */
    bool more_layers;       /* files may have layers behind the last, which nothing reads */
    const char *others[6];  /* beginnings of tensors that are not the decoder's; NULL ends */
    const char *buffers[4]; /* ends of tensors that old files have and nothing reads; NULL ends */
};

enum { FT_ROPES = 3 }; /* tables of rotary positions at most */

struct ft_decoder_layer {
    int window;       /* keys that a query sees; 0: all before it */
    int rope, rope_q; /* tables for keys and for queries; -1: not rotated */
    bool chunked;     /* a query sees its own chunk of the document alone */
    bool experts;     /* its MLP is a mixture */
};

/* Multi-head latent attention, arXiv 2405.04434. A head's queries and keys are `still` columns and
 * then `rotated` ones, which all heads' keys share; head_dim is both. */
struct ft_latent {
    int64_t q, kv;          /* widths of what is narrow; kv 0: none of this, q 0: queries are not */
    int64_t still, rotated; /* columns of a head */
    int64_t v;              /* of a head's values, at most head_dim */
};

/* A mixture of experts: see struct ft_route_args. */
struct ft_mixture {
    int64_t count, each, ffn; /* experts, those of a row, and the width of one; count 0: none */
    int64_t shared_ffn;       /* of the expert that all rows go to; 0: none */
    int64_t first, every;     /* layer i has experts if i >= first and (i + 1) % every is 0 */
    bool listed;              /* or if config.json's mlp_layer_types say so */
    int64_t groups, kept_groups;
    bool sigmoid, normalise, biased; /* the router, and the experts */
    bool weighs_inputs;              /* what experts read, not what they give */
    double scale;
    bool balanced;       /* the loss has a part that is least where experts have as much to do */
    double balance_rate; /* what that is multiplied by */
    bool plain_loss;     /* the family's class has no such part, whatever config.json says */
    double pair_alpha, pair_limit; /* limit > 0: gates and ups by turns, see ft_glu_pairs_args */
};

struct ft_decoder {
    int64_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, max_positions;
    bool tied;
    long long pad_id;    /* whose embedding gets no gradient from being read; -1: none */
    bool pad_is_trained; /* the family's embedding knows of no padding */
    struct ft_names names;
    /* norms */
    double norm_eps;
    double norm_offset; /* added to the weights: 1 for Gemma */
    bool norm_centred, norm_biased;
    bool qk_norm_rotated; /* queries and keys are normed after they are rotated */
    enum {
        FT_QK_HEAD,
        FT_QK_EACH_HEAD,
        FT_QK_WHOLE
    } qk_norm; /* one weight for all heads of D; a
                  weight each; over all columns */
    /* modules */
    unsigned biased; /* bit kind: has a bias */
    bool qkv_by_group, conv1d, parallel;
    enum ft_activation act;
    /* scales */
    double embed_scale, residual_scale, logit_scale, attention_scale; /* the last 0: 1/sqrt(D) */
    double attention_softcap, logit_softcap;                          /* 0: none */
    /* positions */
    bool interleaved;                  /* neighbours are rotated, not halves */
    int64_t positions, first_position; /* rows of a learned table; the row of position 0 */
    int n_ropes;
    struct ft_rope_spec rope[FT_ROPES];
    /* layers: which are of the sliding kind, and what that means */
    int64_t window;
    bool use_window;
    int64_t sliding_every; /* layer i is sliding if (i + 1) % this is not 0; 0: by sliding_from */
    int64_t sliding_from;
    int64_t sliding_before; /* and i is less than this; 0: any */
    bool rope_sliding_only;
    int64_t chunk;      /* of sliding layers that are chunked; 0: none are */
    bool qk_length;     /* rotated queries and keys are brought to length sqrt(D) */
    int64_t nope_every; /* layer i is not rotated if (i + 1) % this is 0; 0: all are */
    struct ft_latent latent;
    struct ft_mixture mixture;
    struct ft_decoder_layer *layer;
};

static inline bool ft_decoder_has(const struct ft_decoder *d, enum ft_kind kind)
{
    return d->names.module[kind] != NULL;
}

#endif
