/* Scratch of the CPU ops: the same for every instruction set. */
#include "kernels/cpu/cpu.h"

size_t ft_cpu_scratch_product(const union ft_op_args *a)
{
    (void)a;
    return FT_GEMM_SCRATCH;
}

/* A bias that is not f32 is widened behind the words. */
size_t ft_cpu_scratch_linear(const union ft_op_args *a)
{
    const struct ft_tensor *bias = a->linear.bias;
    return FT_GEMM_SCRATCH + (bias && bias->dtype != FT_F32 ? (size_t)bias->cols * 4 : 0);
}

/* A result whose rows are x is summed aside and then added transposed. */
size_t ft_cpu_scratch_linear_dw(const union ft_op_args *a)
{
    return FT_GEMM_SCRATCH +
           (size_t)(a->linear_dw.dw->rows * a->linear_dw.dw->cols) * sizeof(float);
}

size_t ft_cpu_scratch_attention(const union ft_op_args *a)
{
    const struct ft_attention_args *t = &a->attention;
    const size_t each = (size_t)t->heads * ((size_t)t->head_dim + 2) * sizeof(float);
    return t->cached ? FT_CPU_ATTENTION_PARTS * each : 0;
}

size_t ft_cpu_scratch_attention_dx(const union ft_op_args *a)
{
    const struct ft_attention_dx_args *t = &a->attention_dx;
    const size_t rows = (size_t)t->q->rows, heads = (size_t)t->heads;
    const size_t parts = t->heads > t->kv_heads ? 2 * rows * heads * (size_t)t->head_dim : 0;
    return ((rows * heads + 15) / 16 * 16 + parts) * sizeof(float);
}

int64_t ft_cpu_head_rows(const struct ft_head_loss_args *h)
{
    /* as many rows as keep packing the head worth it, where they take no more than that */
    const int64_t enough = 256 * 4 * h->w->rows, most = (int64_t)128 << 20;
    const int64_t bytes = h->logit_bytes ? h->logit_bytes : enough < most ? enough : most;
    return ft_head_chunk_rows(h->h->rows, h->w->rows, bytes);
}

size_t ft_cpu_scratch_head_loss(const union ft_op_args *a)
{
    const struct ft_head_loss_args *h = &a->head_loss;
    size_t rows = (size_t)ft_cpu_head_rows(h);
    size_t low = h->u ? (size_t)h->u->cols : 0;
    size_t floats = rows * ((size_t)h->w->rows + (size_t)h->h->cols + low);
    return FT_GEMM_SCRATCH + (floats * sizeof(float) + 63) / 64 * 64 + rows * sizeof(double);
}

static size_t part_bytes(const struct ft_tensor *a, const struct ft_tensor *b)
{
    return (size_t)(a->rows * (b ? b->cols : a->cols)) * sizeof(float);
}

size_t ft_cpu_scratch_compose(const union ft_op_args *a)
{
    const struct ft_compose_args *c = &a->compose;
    return FT_GEMM_SCRATCH + part_bytes(c->pa, c->pb) + part_bytes(c->qa, c->qb);
}

size_t ft_cpu_scratch_compose_dx(const union ft_op_args *a)
{
    const struct ft_compose_dx_args *c = &a->compose_dx;
    return FT_GEMM_SCRATCH + 2 * (part_bytes(c->pa, c->pb) + part_bytes(c->qa, c->qb));
}

size_t ft_cpu_scratch_muon(const union ft_op_args *a)
{
    const size_t rows = (size_t)a->muon.p->rows, cols = (size_t)a->muon.p->cols;
    const size_t small = rows < cols ? rows : cols;
    return FT_GEMM_SCRATCH + (rows + 8) * sizeof(double) +
           2 * (rows * cols + small * small + 32) * sizeof(float);
}

size_t ft_cpu_scratch_adafactor(const union ft_op_args *a)
{
    return (size_t)a->adafactor.p->rows * sizeof(double);
}

size_t ft_cpu_scratch_grad_norm(const union ft_op_args *a)
{
    return ((size_t)a->grad_norm.grad->cols / 16384 + 1) * sizeof(double);
}
