/* This instruction set's backend: the full table. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"

#include "core/mem.h"

#define STR_(x) #x
#define STR(x)  STR_(x)

static int take(const struct ft_backend *b, void **out, size_t bytes)
{
    (void)b;
    return ft_pages_alloc(out, bytes);
}

static void give(const struct ft_backend *b, void *ptr, size_t bytes)
{
    (void)b;
    ft_pages_free(ptr, bytes);
}

#pragma GCC diagnostic ignored "-Woverride-init" /* a set's own products, over its base's */
extern const struct ft_backend FT_CAT(ft_cpu_, FT_ISA, _, backend);
const struct ft_backend FT_CAT(ft_cpu_, FT_ISA, _, backend) = {
    .device = "cpu",
    .isa = STR(FT_ISA),
    .act = FT_F32,
#ifdef FT_PAIRS
    .products = FT_BF16,
#else
    .products = FT_F32,
#endif
    .ops =
        {
#define X(name, ins, outs) [FT_OP_##name] = BASE(name),
            FT_OPS(X)
#undef X
#ifdef FT_BASE
#define X(name) [FT_OP_##name] = K(name),
                FT_PRODUCTS(X)
#undef X
#endif
        },
    .scratch =
        {
            [FT_OP_linear] = ft_cpu_scratch_linear,
            [FT_OP_linear_dx] = ft_cpu_scratch_product,
            [FT_OP_linear_dw] = ft_cpu_scratch_linear_dw,
            [FT_OP_attention] = ft_cpu_scratch_attention,
            [FT_OP_attention_dx] = ft_cpu_scratch_attention_dx,
            [FT_OP_head_loss] = ft_cpu_scratch_head_loss,
            [FT_OP_grad_norm] = ft_cpu_scratch_grad_norm,
            [FT_OP_adafactor] = ft_cpu_scratch_adafactor,
            [FT_OP_muon] = ft_cpu_scratch_muon,
            [FT_OP_compose] = ft_cpu_scratch_compose,
            [FT_OP_compose_dx] = ft_cpu_scratch_compose_dx,
        },
    .alloc = take,
    .free = give,
    .widen_row = BASE(widen_row),
};
