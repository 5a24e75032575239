/* How long a run will take: the ops' costs over this machine's measured rates. */
#include "train/job.h"

#include "core/clock.h"
#include "core/mem.h"

#include <string.h>

/* Seconds of the fastest of a few runs, over about a third of a second. */
static double fastest(const struct ft_job *j, enum ft_op op, const union ft_op_args *args,
                      int64_t rows, void *scratch)
{
    struct ft_kernel_ctx ctx = {j->pool, rows, 1, scratch};
    double best = 1e30, begin = ft_now();
    for (int i = 0; i < 3 || (ft_now() - begin < 0.3 && i < 1000); i++) {
        double t = ft_now();
        j->backend->ops[op](&ctx, args);
        t = ft_now() - t;
        best = t < best ? t : best;
    }
    return best;
}

/* One product and one elementwise op, of the model's own shapes. */
int ft_rates_measure(struct ft_rates *r, const struct ft_job *j)
{
    const struct ft_model_config *c = ft_model_config(j->model);
    const int64_t t = j->capacity < 512 ? j->capacity : 512;
    size_t floats = (size_t)t * (size_t)(c->hidden + 3 * c->ffn), w = (size_t)(c->hidden * c->ffn);
    size_t bytes = floats * 4 + w * 2 + FT_GEMM_SCRATCH;
    void *block;
    FT_TRY(j->backend->alloc(&block, bytes));
    float *p = block;
    memset(block, 0, bytes);
    struct ft_tensor x = {p, t, c->hidden, FT_F32, true, -1, "x"};
    struct ft_tensor gate = {p + t * c->hidden, t, c->ffn, FT_F32, true, -1, "gate"}, up = gate;
    up.data = (float *)gate.data + t * c->ffn;
    struct ft_tensor y = up, weight = {p + floats, c->ffn, c->hidden, FT_BF16, false, -1, "w"};
    y.data = (float *)up.data + t * c->ffn;
    void *scratch = (char *)block + floats * 4 + w * 2;
    const union ft_op_args product = {.linear = {.x = &x, .w = &weight, .y = &gate, .alpha = 1}};
    const union ft_op_args swiglu = {.swiglu = {&gate, &up, &y}};
    double a = fastest(j, FT_OP_linear, &product, t, scratch);
    double b = fastest(j, FT_OP_swiglu, &swiglu, t, scratch);
    r->flops = ft_op_rows[FT_OP_linear].cost(&product, t, 1).flops / a;
    r->bytes = ft_op_rows[FT_OP_swiglu].cost(&swiglu, t, 1).bytes / b;
    j->backend->free(block, bytes);
    return FT_OK;
}

static bool is_product(int op)
{
    return op == FT_OP_linear || op == FT_OP_linear_dx || op == FT_OP_linear_dw ||
           op == FT_OP_head_loss || op == FT_OP_attention || op == FT_OP_attention_dx;
}

static double tokens_of(const struct ft_dataset *d)
{
    double n = 0;
    for (int64_t i = 0; i < d->n_docs; i++)
        n += d->docs[i].length;
    return n;
}

/* How many documents of the data's mean length a full pass holds. */
static int64_t documents(const struct ft_job *j)
{
    double n = (double)j->capacity * (double)j->train.n_docs / tokens_of(&j->train);
    return n > 1 ? (int64_t)(n + 0.5) : 1;
}

/* Seconds of one run of a program with all rows live. */
static double program_seconds(const struct ft_job *j, enum ft_program p, const struct ft_rates *r)
{
    double flops[FT_OP_COUNT] = {0}, products = 0;
    struct ft_cost all = ft_graph_cost(j->graph, p, j->capacity, documents(j), flops);
    for (int i = 0; i < FT_OP_COUNT; i++)
        products += is_product(i) ? flops[i] : 0;
    return products / r->flops + (all.bytes / r->bytes) / 4; /* products stream most of the bytes */
}

double ft_job_seconds(const struct ft_job *j, const struct ft_rates *r)
{
    const struct ft_run_length *l = &j->length;
    double pass = program_seconds(j, FT_PASS, r) / (double)j->capacity; /* a token */
    double update = program_seconds(j, FT_UPDATE, r);
    double seconds = (double)l->steps * (l->tokens_per_step * pass + update);
    if (l->eval_every >= 0) {
        double evals = 1 + (l->eval_every > 0 ? (double)l->steps / (double)l->eval_every
                                              : (double)l->steps / (double)l->first_epoch_steps);
        double eval = program_seconds(j, FT_EVAL, r) / (double)j->capacity;
        seconds += (evals + 1) * tokens_of(&j->held) * eval;
    }
    return seconds;
}

double ft_job_flops_per_token(const struct ft_job *j)
{
    double flops[FT_OP_COUNT] = {0}, products = 0;
    ft_graph_cost(j->graph, FT_PASS, j->capacity, documents(j), flops);
    for (int i = 0; i < FT_OP_COUNT; i++)
        products += is_product(i) ? flops[i] : 0;
    return products / (double)j->capacity;
}
