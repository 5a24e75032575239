/* This instruction set's backend: the full table. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"

#include "core/mem.h"

#define STR_(x) #x
#define STR(x)  STR_(x)

extern const struct ft_backend FT_CAT(ft_cpu_, FT_ISA, _, backend);
const struct ft_backend FT_CAT(ft_cpu_, FT_ISA, _, backend) = {
    .device = "cpu",
    .isa = STR(FT_ISA),
    .ops =
        {
#define X(name, ins, outs) [FT_OP_##name] = K(name),
            FT_OPS(X)
#undef X
        },
    .alloc = ft_pages_alloc,
    .free = ft_pages_free,
};
