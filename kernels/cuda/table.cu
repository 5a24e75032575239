/* The CUDA backend's ops and their scratch. */
#include "kernels/cuda/product.h"

size_t ft_cuda_head_scratch(const union ft_op_args *args);
size_t ft_cuda_grad_norm_scratch(const union ft_op_args *args);
size_t ft_cuda_update_scratch(const union ft_op_args *args);
size_t ft_cuda_adafactor_scratch(const union ft_op_args *args);
size_t ft_cuda_muon_scratch(const union ft_op_args *args);
size_t ft_cuda_compose_dx_scratch(const union ft_op_args *args);
size_t ft_cuda_linear_scratch(const union ft_op_args *args);
size_t ft_cuda_linear_dx_scratch(const union ft_op_args *args);
size_t ft_cuda_row_norms_scratch(const union ft_op_args *args);
size_t ft_cuda_linear_dw_scratch(const union ft_op_args *args);
size_t ft_cuda_route_scratch(const union ft_op_args *args);
size_t ft_cuda_attention_dx_scratch(const union ft_op_args *args);

void ft_cuda_fill_table(struct ft_cuda *c)
{
#define X(name, ins, outs) c->base.ops[FT_OP_##name] = ft_cuda_##name;
    FT_OPS(X)
#undef X
    c->base.scratch[FT_OP_linear] = ft_cuda_linear_scratch;
    c->base.scratch[FT_OP_linear_dx] = ft_cuda_linear_dx_scratch;
    c->base.scratch[FT_OP_row_norms] = ft_cuda_row_norms_scratch;
    c->base.scratch[FT_OP_linear_dw] = ft_cuda_linear_dw_scratch;
    c->base.scratch[FT_OP_route] = ft_cuda_route_scratch;
    c->base.scratch[FT_OP_attention_dx] = ft_cuda_attention_dx_scratch;
    c->base.scratch[FT_OP_head_loss] = ft_cuda_head_scratch;
    c->base.scratch[FT_OP_grad_norm] = ft_cuda_grad_norm_scratch;
    c->base.scratch[FT_OP_adamw] = ft_cuda_update_scratch;
    c->base.scratch[FT_OP_sgd] = ft_cuda_update_scratch;
    c->base.scratch[FT_OP_lion] = ft_cuda_update_scratch;
    c->base.scratch[FT_OP_adafactor] = ft_cuda_adafactor_scratch;
    c->base.scratch[FT_OP_muon] = ft_cuda_muon_scratch;
    c->base.scratch[FT_OP_compose_dx] = ft_cuda_compose_dx_scratch;
}
