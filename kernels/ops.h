/* Every op: its contract, its arguments, its row.
 *
 * An op's arguments are a struct whose first members are pointers to tensors: the inputs, then the
 * outputs, in the order the row counts them; a member marked ? may be NULL. Scalars follow. Shapes:
 * T is the token capacity (activations are (T, C), whatever the number of documents), and an op
 * reads and writes only the rows below the count that its tensors' extent names (a device may round
 * that count up, see ft_kernel_ctx). "act" is the backend's dtype of activations: f32 on the CPU,
 * bf16 on CUDA. Frozen weights may be f32, bf16 or f16 on the CPU and are bf16 on CUDA; trained
 * ones are f32 on the CPU and on CUDA bf16 copies of f32 masters, which `refresh` makes. Nothing is
 * allocated, nothing fails: shapes were checked when the graph was built, and an op that disagrees
 * is a bug. Rows may lie further apart than they are long (ft_tensor.ld), but for I32 and I64
 * tables and for the flat blocks of optimizers.
 *
 * Aliasing: an output may share memory with an input only where the row's `overwrites` says so;
 * only the memory plan makes use of it.
 *
 * Every op gives the same bits for any number of threads: work is cut by shape, each output element
 * is summed in one fixed order. */
#ifndef FT_KERNELS_OPS_H
#define FT_KERNELS_OPS_H

#include "core/tensor.h"
#include "core/threads.h"

/*     name            inputs outputs */
#define FT_OPS(X)                                                                                  \
    X(embed, 3, 1)                                                                                 \
    X(norm, 3, 3)                                                                                  \
    X(norm_dx, 6, 1)                                                                               \
    X(linear, 8, 1)                                                                                \
    X(linear_dx, 7, 1)                                                                             \
    X(linear_dw, 4, 1)                                                                             \
    X(rope, 4, 1)                                                                                  \
    X(attention, 6, 2)                                                                             \
    X(attention_dx, 7, 3)                                                                          \
    X(glu, 2, 1)                                                                                   \
    X(glu_dx, 3, 2)                                                                                \
    X(glu_pairs, 1, 1)                                                                             \
    X(glu_pairs_dx, 2, 1)                                                                          \
    X(dropout_mask, 1, 1)                                                                          \
    X(dropout, 3, 1)                                                                               \
    X(noise, 3, 1)                                                                                 \
    X(add, 2, 1)                                                                                   \
    X(store, 2, 1)                                                                                 \
    X(gather, 2, 1)                                                                                \
    X(route, 2, 5)                                                                                 \
    X(route_dx, 4, 1)                                                                              \
    X(balance, 3, 1)                                                                               \
    X(balance_dx, 2, 1)                                                                            \
    X(balance_loss, 1, 2)                                                                          \
    X(spread, 4, 1)                                                                                \
    X(collect, 5, 1)                                                                               \
    X(collect_dw, 3, 1)                                                                            \
    X(gate_rows, 3, 1)                                                                             \
    X(gate_rows_dx, 3, 2)                                                                          \
    X(regroup, 1, 1)                                                                               \
    X(pick_heads, 2, 1)                                                                            \
    X(pick_heads_dx, 2, 2)                                                                         \
    X(compose, 4, 1)                                                                               \
    X(compose_dx, 5, 4)                                                                            \
    X(row_norms, 3, 1)                                                                             \
    X(scale_columns, 5, 1)                                                                         \
    X(columns_dw, 3, 1)                                                                            \
    X(norm_dw, 4, 2)                                                                               \
    X(embed_dw, 2, 1)                                                                              \
    X(head_loss, 6, 5)                                                                             \
    X(grad_norm, 1, 1)                                                                             \
    X(adamw, 1, 4)                                                                                 \
    X(sgd, 1, 3)                                                                                   \
    X(lion, 1, 3)                                                                                  \
    X(adafactor, 1, 4)                                                                             \
    X(muon, 1, 3)                                                                                  \
    X(refresh, 2, 0)

enum ft_op {
#define X(name, ins, outs) FT_OP_##name,
    FT_OPS(X)
#undef X
        FT_OP_COUNT
};

/* y[t] = w[first + ids[t]] * scale + add[t], or add[t] alone where ids[t] < 0
 * ids I32 (T,1); w (V,C); add, y (T,C); first + ids < V */
struct ft_embed_args {
    struct ft_tensor *ids, *w, *add /*?*/, *y;
    float scale;
    int first;
    int pad; /* the id whose row gets no gradient, as torch's padding_idx; -1: none */
};

/* Each row is cut into G groups of D columns, G = 1 but for norms of heads:
 *   y = (x - mean) * rstd * (w + offset) + bias,  rstd = 1 / sqrt(mean_c (x - mean)^2 + eps)
 * with mean = 0 where there is no tensor for it (RMSNorm; Zhang & Sennrich 2019, arXiv 1910.07467),
 * else the group's mean (LayerNorm; Ba et al. 2016, arXiv 1607.06450).
 * x, y (T,G*D); w (1,D), or (G,D) if the groups have weights of their own; bias (1,D); mean, rstd
 * (T,G) f32 are kept for backward. */
struct ft_norm_args {
    struct ft_tensor *x, *w, *bias /*?*/, *y, *rstd, *mean /*?*/;
    float eps, offset; /* offset: Llama 0, Gemma 1 */
};

/* dx = add + rstd * (g - mean_c(g) - xhat * mean_c(g * xhat)),  g = dy * (w + offset),
 * xhat = (x - mean) * rstd; without mean_c(g) where there is no mean. dx may overwrite dy or add.
 */
struct ft_norm_dx_args {
    struct ft_tensor *dy, *x, *w, *rstd, *mean /*?*/, *add /*?*/, *dx;
    float offset;
};

/* y = alpha x w^T + bias + add + beta u b^T
 * x (T,K); w (N,K); bias (1,N); add, y (T,N); u (T,R); b (N,R). The low-rank pair u, b comes
 * together; on the host it is summed behind the K products of w, so that fusing it changes no bit.
 * On a device, where u lies behind the columns of x and b behind those of w, both are one product;
 * likewise du behind dy, and a below w. y may overwrite add.
 * Where keys are cached (FT_KEYS counts some), few rows may be summed in an order of their own.
 * mask U8 (T, n ceil(K/8)): n masks side by side; bit c%8 of byte c/8 is 0 where x counts as 0. Row
 * r of w reads x through mask r / (N/n); where n > 1, N/n is a multiple of 8. There is no bias, add
 * or u then.
 * offsets I32 (1,E+1), as of route: a product of each expert. w, b and bias are E matrices one
 * below the other, w (E N,K), b (E N,R), bias (E,N); rows offsets[e] to offsets[e+1]-1 of x, u and
 * y are multiplied with the e-th. There is no mask then. */
struct ft_linear_args {
    struct ft_tensor *x, *w, *bias /*?*/, *add /*?*/, *u /*?*/, *b /*?*/, *mask /*?*/,
        *offsets /*?*/, *y;
    float alpha, beta;
};

/* How many masks of rows of `cols` columns lie side by side. */
static inline int64_t ft_masks(const struct ft_tensor *mask, int64_t cols)
{
    return mask->cols / ((cols + 7) / 8);
}

/* dx = add + alpha dy w + beta du a
 * dy (T,N); w (N,K); add, dx (T,K); du (T,R); a (R,K). dx may overwrite add. mask: as in
 * ft_linear_args, of the rows of a for what is added of du a; of w where there is no du. offsets:
 * as in ft_linear_args; w (E N,K), a (E R,K) then. */
struct ft_linear_dx_args {
    struct ft_tensor *dy, *w, *add /*?*/, *du /*?*/, *a /*?*/, *mask /*?*/, *offsets /*?*/, *dx;
    float alpha, beta;
};

/* dw += alpha dy^T x, or (fresh) dw = alpha dy^T x.
 * dy (T,N); x (T,K); dw (N,K) f32; mask: as in ft_linear_args, one, of x; offsets: likewise, with
 * dw (E N,K) */
struct ft_linear_dw_args {
    struct ft_tensor *dy, *x, *mask /*?*/, *offsets /*?*/, *dw;
    float alpha;
    bool fresh;
};

/* Rotates pairs (i, i + R/2), or (2i, 2i + 1) if interleaved, of R = 2 * cos.cols columns, from
 * `first` on, of each of the first `heads` heads by the angles of table row angles[t]; sign -1
 * undoes it (backward). Columns behind those heads are copied. x, y (T, C), C >= heads*head_dim;
 * cos, sin (P, R/2) f32; angles I32 (T,1), in [0, P). Su et al. 2021, arXiv 2104.09864. y may
 * overwrite x. */
struct ft_rope_args {
    struct ft_tensor *x, *cos, *sin, *angles, *y;
    int heads, head_dim, first;
    float sign;
    bool interleaved;
};

/* o = softmax(scale q k^T + mask) v within each document, causal.
 * q, o (T, heads*head_dim); k, v (T, kv_heads*head_dim); spans I32 (T,2): the first row of the
 * row's document and the row behind its last; lse (T, heads) f32 = log of the softmax's
 * denominator, for backward. Head h reads key head h / (heads/kv_heads). window > 0: a row sees
 * itself and window-1 before it. softcap > 0: scores s become softcap tanh(s / softcap) before the
 * mask. Dao 2023, arXiv 2307.08691.
 * cached I32 (T,2): keys and values of earlier passes are seen too; k, v have rows of their own
 * then. A query's document has its first key in row cached[t][0], one behind the other from there;
 * before its own there are cached[t][1] of them.
 * sinks (1,heads): a score of each head that takes part in the softmax, and in lse, and whose value
 * is 0; it has no gradient. */
struct ft_attention_args {
    struct ft_tensor *q, *k, *v, *spans, *cached /*?*/, *sinks /*?*/, *o, *lse;
    int heads, kv_heads, head_dim, window;
    float scale, softcap;
};

struct ft_attention_dx_args {
    struct ft_tensor *q, *k, *v, *o, *lse, *dout, *spans, *dq, *dk, *dv;
    int heads, kv_heads, head_dim, window;
    float scale, softcap;
};

/* Activation functions, as transformers names them. */
enum ft_activation {
    FT_SILU,       /* x / (1 + exp(-x)) */
    FT_GELU,       /* x (1 + erf(x / sqrt 2)) / 2 */
    FT_GELU_TANH,  /* x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 */
    FT_GELU_QUICK, /* x / (1 + exp(-1.702 x)) */
    FT_RELU,
    FT_RELU2,   /* relu(x)^2 */
    FT_SIGMOID, /* 1 / (1 + exp(-x)) */
};

/* y = act(gate) * up; all (T,F); without up, act(gate). y may overwrite either input. */
struct ft_glu_args {
    struct ft_tensor *gate, *up /*?*/, *y;
    enum ft_activation act;
};

/* dgate, dup from dy; they may overwrite gate and up. dup comes with up. */
struct ft_glu_dx_args {
    struct ft_tensor *gate, *up /*?*/, *dy, *dgate, *dup /*?*/;
    enum ft_activation act;
};

/* y[c] = (u + 1) g / (1 + exp(-alpha g)), g = min(x[2c], limit), u = x[2c+1] within -limit to
 * limit. x (T,2F); y (T,F). gpt-oss, arXiv 2508.10925. */
struct ft_glu_pairs_args {
    struct ft_tensor *x, *y;
    float alpha, limit;
};

/* dx from dy; 0 where x was cut. */
struct ft_glu_pairs_dx_args {
    struct ft_tensor *x, *dy, *dx;
    float alpha, limit;
};

/* Which columns of a row are kept: each with probability 1 - p, rounded to 2^-16, from the Philox
 * counter (column/8, document, position, site) and the key (seed, epoch): column c takes the lower
 * (c even) or upper half of word c%8/2. keys I32 (T,3) = epoch, document, position; mask U8
 * (T, n ceil(K/8)) as in ft_linear_args, of n sites. */
enum { FT_MASKS = 4 };
struct ft_dropout_mask_args {
    struct ft_tensor *keys, *mask;
    float p;
    int n;
    uint32_t sites[FT_MASKS];
    uint64_t seed;
};

/* Of 2^16: a number below is dropped. */
static inline uint32_t ft_dropout_least(float p)
{
    return (uint32_t)((double)p * 65536 + 0.5);
}

/* y = add + x * m / (1-p), m = 0 where struct ft_dropout_mask_args drops. Its own backward. y may
 * overwrite x or add. */
struct ft_dropout_args {
    struct ft_tensor *x, *keys, *add /*?*/, *y;
    float p;
    uint32_t site;
    uint64_t seed;
};

/* y = x + alpha / sqrt(L C) u: uniform noise u in (-1, 1), by 2^-15, for a document of L rows of C
 * columns; drawn as struct ft_dropout_mask_args draws. keys I32 (T,3); spans I32 (T,2): as of
 * attention. Its gradient is y's. y may overwrite x. Jain et al. 2023, arXiv 2310.05914. */
struct ft_noise_args {
    struct ft_tensor *x, *keys, *spans, *y;
    float alpha;
    uint64_t seed;
};

/* One number of 16 bits as what noise is made of. */
static inline float ft_noise_of(uint32_t number)
{
    return ((float)number + 0.5f) * 0x1p-15f - 1.f;
}

/* y = a + beta b; y may overwrite either. */
struct ft_add_args {
    struct ft_tensor *a /*?*/, *b, *y;
    float beta;
};

/* y[places[t]] = x[t]; other rows stay. x (T,C); places I32 (T,1), each another row of y (S,C). */
struct ft_store_args {
    struct ft_tensor *x, *places, *y;
};

/* y[s] = x[picked[s]]. x (T,C); picked I32 (S,1); y (S,C). */
struct ft_gather_args {
    struct ft_tensor *x, *picked, *y;
};

/* Which experts each row goes to, how much each counts, and where its rows lie among all that are
 * routed: R = T k rows, sorted by expert, those of an expert in the order of the slots t k + j.
 * The k experts of row t are those with the largest score + bias, or logits where there are no bias
 * and no groups, the lower number where these are equal; score is softmax(logits) or (sigmoid) 1 /
 * (1 + exp(-logits)). With groups > 1 only experts of the kept_groups groups count whose two
 * largest score + bias have the largest sum. weights = scale * score, or (normalise) scale * score
 * / (the sum of the k scores). logits (T,E) f32; bias (1,E). weights (T,k) f32; chosen I32 (T,k):
 * experts; places I32 (T,k): the routed row of a slot; slots I32 (R,1): the slot of a routed row;
 * offsets I32 (1,E+1): the first routed row of each expert, and R. FT_ROUTED counts k FT_ROWS. */
struct ft_route_args {
    struct ft_tensor *logits, *bias /*?*/, *weights, *chosen, *places, *slots, *offsets;
    int groups, kept_groups;
    bool sigmoid, normalise;
    float scale;
};

/* dlogits from dweights (T,k) f32; the choice itself has no gradient. dlogits (T,E) act. */
struct ft_route_dx_args {
    struct ft_tensor *dweights, *logits, *weights, *chosen, *dlogits;
    bool sigmoid, normalise;
    float scale;
};

/* Adds up how a mixture's rows are spread over its experts: sums[0][e] = so_far[0][e] + the rows
 * that chose e, sums[1][e] = so_far[1][e] + the sum of softmax(logits)[e] over all rows. logits
 * (T,E) f32; chosen I32 (T,k); so_far, sums (2,E) f32. */
struct ft_balance_args {
    struct ft_tensor *logits, *chosen, *so_far /*?*/, *sums;
};

/* scalars[LOSS_SUM] += trained rows * L, which is least where all experts have as much to do:
 * L = rate * E * sum_e sums[0][e] sums[1][e] / n^2, n = sum_e sums[0][e] / each, the rows of all
 * mixtures. dshares (1,E) f32: its gradient where sums[1] is changed; the choice has none. Source:
 * load_balancing_loss_func of transformers; Fedus et al., arXiv 2101.03961. */
struct ft_balance_loss_args {
    struct ft_tensor *sums, *scalars, *dshares;
    int each;
    float rate;
};

/* dlogits (T,E) act where every row's softmax has the gradient dshares (1,E). */
struct ft_balance_dx_args {
    struct ft_tensor *dshares, *logits, *dlogits;
};

/* y[r] = x[slots[r] / k], times weights[slots[r]] if there. x (T,C); y (R,C); the tables as of
 * route; places is for backward. */
struct ft_spread_args {
    struct ft_tensor *x, *slots, *places, *weights /*?*/, *y;
};

/* y[t] = add[t] + sum_j weights[t][j] x[places[t][j]], summed in the order of the slots; without
 * weights, undiminished. x (R,C); add, y (T,C); slots is for backward. y may overwrite add. */
struct ft_collect_args {
    struct ft_tensor *x, *places, *slots, *weights /*?*/, *add /*?*/, *y;
};

/* dw[t][j] = the inner product of y[t] and x[places[t][j]]. y (T,C); x (R,C); dw (T,k) f32. */
struct ft_collect_dw_args {
    struct ft_tensor *y, *x, *places, *dw;
};

/* y[t] = x[t] / (1 + exp(-gate[t])) + add[t]. gate (T,1); x, add, y (T,C). y may overwrite x or
 * add. */
struct ft_gate_rows_args {
    struct ft_tensor *gate, *x, *add /*?*/, *y;
};

/* dgate and dx from dy; dx may overwrite dy. */
struct ft_gate_rows_dx_args {
    struct ft_tensor *gate, *x, *dy, *dgate, *dx;
};

/* Brings columns that lie by key head, `per_group` query heads and then one key and one value head
 * of head_dim columns each, into the order all queries, all keys, all values; inverse: back.
 * x, y (T, groups * (per_group + 2) * head_dim). */
struct ft_regroup_args {
    struct ft_tensor *x, *y;
    int groups, per_group, head_dim;
    bool inverse;
};

/* Heads of other widths: y's are n columns of x's, from `first` on, then the columns of rest, the
 * same ones for all heads, then zeros. x (T, heads * X), rest (T, R), y (T, heads * Y), n + R <= Y;
 * without rest R is 0. DeepSeek-V2, arXiv 2405.04434. */
struct ft_pick_heads_args {
    struct ft_tensor *x, *rest /*?*/, *y;
    int heads, first, n;
};

/* dx = add and, in the columns that were picked, dy; drest is the sum over the heads. drest is
 * there where rest was; dx may overwrite add. */
struct ft_pick_heads_dx_args {
    struct ft_tensor *dy, *add /*?*/, *dx, *drest /*?*/;
    int heads, first, n;
};

/* A matrix from two: y = alpha P * Q, element by element, or their Kronecker product (element (i j,
 * k l) is P[i][k] Q[j][l]). P is pa pb, or pa alone; so Q. pa (N1,R) or (N1,K1); pb (R,K1); so qa,
 * qb with N2, K2; y (N,K): N = N1 = N2, or N1 N2. */
struct ft_compose_args {
    struct ft_tensor *pa, *pb /*?*/, *qa, *qb /*?*/, *y;
    float alpha;
    bool kronecker;
};

/* The gradients of all parts from dy (N,K), which is f32: dpa += alpha ..., and so on; f32. */
struct ft_compose_dx_args {
    struct ft_tensor *dy, *pa, *pb /*?*/, *qa, *qb /*?*/, *dpa, *dpb /*?*/, *dqa, *dqb /*?*/;
    float alpha;
    bool kronecker;
};

/* norm[n] = |w[n] + scale b[n] a|, the lengths of the rows of an adapted weight; no gradient.
 * w (N,K); a (R,K); b (N,R); norm (1,N) f32. */
struct ft_row_norms_args {
    struct ft_tensor *w, *a, *b, *norm;
    float scale;
};

/* y = x * m / norm + bias + add, column by column; without norm, x * m + ...
 * x, add, y (T,N); m, norm (1,N) f32; bias (1,N). y may overwrite x or add. */
struct ft_scale_columns_args {
    struct ft_tensor *x, *m, *norm /*?*/, *bias /*?*/, *add /*?*/, *y;
};

/* dw += sum_t dy * x / norm, column by column; without x, sum_t dy; without norm, undivided.
 * dy, x (T,N); norm, dw (1,N) f32. */
struct ft_columns_dw_args {
    struct ft_tensor *dy, *x /*?*/, *norm /*?*/, *dw;
};

/* dw += sum_t dy * xhat, db += sum_t dy, xhat as in struct ft_norm_args; over all groups where they
 * share one weight.
 * dy, x (T,G*D); rstd, mean (T,G) f32; dw (1,D) or (G,D) f32; db (1,D) f32. */
struct ft_norm_dw_args {
    struct ft_tensor *dy, *x, *rstd, *mean /*?*/, *dw /*?*/, *db /*?*/;
};

/* dw[first + ids[t]] += scale * dy[t], row after row, but for ids[t] < 0 or = pad.   ids I32 (T,1);
 * dy (T,C); dw (V,C) f32 */
struct ft_embed_dw_args {
    struct ft_tensor *dy, *ids, *dw;
    float scale;
    int first, pad;
};

/* Cross-entropy of the output head, on trained rows only, in chunks of rows; `picked` lists them,
 * ascending, and FT_TRAINED counts them:
 *   logits = scale h w^T + beta u b^T (never whole), or softcap tanh of that / softcap if softcap
 *   > 0;
 * scalars[LOSS_SUM] += sum_t -log softmax(logits[t])[targets[t]]; scalars[TRAINED] += number of
 * trained rows;  dh = d LOSS_SUM / d h and du = d LOSS_SUM / d u (0 on other rows). h, dh (T,C);
 * w (V,C); targets, picked I32 (T,1); the low-rank pair u (T,R), b (V,R) comes together, du with it
 * and dh. dh NULL: forward only, into EVAL_SUM and EVAL_COUNT. dw (V,C), db (V,R) f32, if there: +=
 * d LOSS_SUM / d w, / d b. Chunking as Liger's fused linear cross-entropy, arXiv 2410.10989. */
struct ft_head_loss_args {
    struct ft_tensor *h, *w, *targets, *picked, *u /*?*/, *b /*?*/;
    struct ft_tensor *dh /*?*/, *scalars, *dw /*?*/, *du /*?*/, *db /*?*/;
    float scale, softcap, beta;
    int64_t logit_bytes; /* room for logits at a time; 0: what suits the backend */
};

/* What changes between steps, in one F64 tensor (1, FT_SCALARS). */
enum ft_scalar {
    FT_S_LR,             /* in */
    FT_S_STEP,           /* updates made so far, counted by grad_norm */
    FT_S_LOSS_SUM,       /* summed by head_loss over the window; grad_norm clears it */
    FT_S_TRAINED,        /* likewise */
    FT_S_EVAL_SUM,       /* summed by an evaluating head_loss */
    FT_S_EVAL_COUNT,     /* likewise */
    FT_S_LOSS,           /* of the finished window: mean over its trained tokens */
    FT_S_TOKENS,         /* of the finished window: its trained tokens */
    FT_S_NORM,           /* norm of the mean gradient, before clipping */
    FT_S_FACTOR,         /* what the optimizer multiplies the summed gradient with */
    FT_S_FINITE,         /* 1 if loss and gradient are finite; else the optimizer changes nothing */
    FT_S_SKIPPED,        /* windows that were not finite, so far */
    FT_S_SKIPPED_IN_ROW, /* ... since the last update */
    FT_S_MOST_IN_ROW,    /* the most there were so far */
    FT_SCALARS = 16
};

/* Ends a window: LOSS, TOKENS, NORM, FACTOR and FINITE from the summed gradient (1,P) and the sums:
 * NORM = |grad| / TRAINED; FACTOR = min(1, max_norm / (NORM + 1e-6)) / TRAINED (max_norm 0: no
 * clip). Counts the update or the skip, and clears the sums. */
struct ft_grad_norm_args {
    struct ft_tensor *grad, *scalars;
    float max_norm;
};

/* Loshchilov & Hutter, arXiv 1711.05101, in torch's order of operations; grad is zeroed after use.
 * p, m, v (1,P). What is kept, m and v here, is F32 or DYNAMIC8, v without signs: widened, and put
 * back as the nearest codes after the step, block by block. */
struct ft_adamw_args {
    struct ft_tensor *scalars, *grad, *p, *m, *v;
    float beta1, beta2, eps, weight_decay;
    float rate; /* times the learning rate */
};

/* b = momentum b + g; p -= lr (b + decay p ...) as torch's SGD (no dampening, no Nesterov); mom may
 * be NULL when momentum is 0. grad is zeroed after use. */
struct ft_sgd_args {
    struct ft_tensor *scalars, *grad, *p, *mom /*?*/;
    float momentum, weight_decay;
    float rate; /* times the learning rate */
};

/* Chen et al., arXiv 2302.06675, as bitsandbytes takes it: p decays, then p -= lr sign(beta1 m + (1
 * - beta1) g), then m = beta2 m + (1 - beta2) g. grad is zeroed after use. p, m (1,P); m F32 or
 * DYNAMIC8. */
struct ft_lion_args {
    struct ft_tensor *scalars, *grad, *p, *m;
    float beta1, beta2, weight_decay;
    float rate; /* times the learning rate */
};

/* Shazeer & Stern, arXiv 1804.04235, as transformers takes it with relative_step and
 * scale_parameter off: of one parameter (rows, cols). row (1,rows) and col (1,cols) are the running
 * means of grad^2
 * + 1e-30 along rows and columns, with decay 1 - STEP^-0.8; u = grad / sqrt(row col / mean(row)),
 * or without row (a vector: rows = 1) grad / sqrt(col), and no longer than 1 in the root mean
 * square. p decays, then p -= lr u; grad is zeroed after use. */
struct ft_adafactor_args {
    struct ft_tensor *scalars, *grad, *p, *row /*?*/, *col;
    float weight_decay;
    float rate; /* times the learning rate */
};

/* Jordan et al. 2024, with the scale of Moonlight (arXiv 2502.16982), as Axolotl takes it: of one
 * parameter (rows, cols). m = momentum m + grad, u = grad + momentum m, brought towards its nearest
 * orthogonal matrix by five Newton-Schulz steps (bf16 on a device); p decays, then p -= lr 0.2
 * sqrt(max(rows, cols)) u. grad is zeroed after use. m (rows, cols). */
struct ft_muon_args {
    struct ft_tensor *scalars, *grad, *p, *m;
    float momentum, weight_decay;
    float rate; /* times the learning rate */
};

/* The copies that products read, from the f32 masters `values` (1,P): for each row of the table I64
 * (S, FT_SEGMENT): rows x cols elements from values[first] become, times scale, the bf16 matrix at
 * `address` whose rows are ld elements apart. */
enum ft_segment { FT_G_FIRST, FT_G_ADDRESS, FT_G_ROWS, FT_G_COLS, FT_G_LD, FT_G_SCALE, FT_SEGMENT };
struct ft_refresh_args {
    struct ft_tensor *values, *table; /* FT_G_SCALE holds the bits of a double */
};

union ft_op_args {
#define X(name, ins, outs) struct ft_##name##_args name;
    FT_OPS(X)
#undef X
    struct ft_tensor *slots[11]; /* FT_SLOTS */
};

/* An op that has run; args NULL: none. */
struct ft_op_run {
    enum ft_op op;
    const union ft_op_args *args;
    const void *scratch;
};

/* How an op is run. counts are the batch's. A device whose launches are recorded gets FT_ROWS and
 * FT_TRAINED rounded up to a bucket, and finds the true ones in `live`; then activations of rows
 * between the two hold zeros or finite values, and gradients hold zeros. */
struct ft_backend;
struct ft_kernel_ctx {
    const struct ft_backend *backend;
    struct ft_pool *pool;
    int64_t counts[FT_EXTENTS];
    const int32_t *live; /* device memory: FT_EXTENTS counts; NULL on the CPU */
    void *scratch;       /* as many bytes as the backend's scratch() asked for, 64-byte aligned */
    int node;            /* position in the program, for messages */
    struct ft_op_run before; /* the last one: what it left in the same scratch is still there */
};

typedef void ft_op_fn(const struct ft_kernel_ctx *ctx, const union ft_op_args *args);

struct ft_cost {
    double flops, bytes; /* of one run; products count 2 a multiply-add */
};

/* What an op's time is bounded by, and how it is cut. */
enum ft_op_class {
    FT_ROWWISE,    /* elementwise or a sum along the row: memory */
    FT_PRODUCT,    /* matrix products: the matrix units */
    FT_PARAMETERS, /* over flat blocks of parameters: memory */
};
/* Whether backward computes an output again rather than keeping it. */
enum ft_again {
    FT_AGAIN_NEVER,
    FT_AGAIN_LAYER, /* where whole layers are */
    FT_AGAIN_CHEAP, /* also where only what is cheap is */
};

enum { FT_SLOTS = 11 }; /* inputs and outputs of an op at most */

struct ft_op_row {
    const char *name;
    int n_in, n_out;
    enum ft_op_class bound;
    enum ft_again again;
    unsigned optional; /* bit i: slot i may be NULL */
    /* pairs {output, input}, both counted among their kind; {-1,-1} ends */
    signed char overwrites[4][2];
    double flops; /* for each element of the first input, where there is no cost function */
    /* NULL: `flops`, and the bytes of all inputs and outputs */
    struct ft_cost (*cost)(const union ft_op_args *, const int64_t *counts);
    void (*check)(const union ft_op_args *); /* asserts the shapes of slots that are there */
};

extern const struct ft_op_row ft_op_rows[FT_OP_COUNT];

struct ft_cost ft_op_cost(enum ft_op op, const union ft_op_args *args, const int64_t *counts);
/* Asserts that the slots that must be there are, and their shapes. */
void ft_op_check(enum ft_op op, const union ft_op_args *args);

/* Whether an op's work is matrix products. */
static inline bool ft_op_is_product(enum ft_op op)
{
    return ft_op_rows[op].bound == FT_PRODUCT;
}

/* Rows of a tensor that hold data in this batch. */
static inline int64_t ft_live_rows(const struct ft_kernel_ctx *ctx, const struct ft_tensor *t)
{
    return t->extent ? ctx->counts[t->extent] : t->rows;
}

/* How many experts these offsets are of: 1 without. */
static inline int64_t ft_experts(const struct ft_tensor *offsets)
{
    return offsets ? offsets->cols - 1 : 1;
}

/* Limits of routing. */
#define FT_EXPERTS_MAX       1024
#define FT_EXPERTS_EACH_MAX  32
#define FT_EXPERT_GROUPS_MAX 64
/* Limits of the attention ops. */
#define FT_HEAD_DIM_MAX      256
#define FT_HEAD_GROUP_MAX    64
/* Of the norms: weights and biases that are not f32 are widened into a thread's scratch. */
#define FT_NORM_COLS_MAX     131072

#endif
