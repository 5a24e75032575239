/* bitsandbytes' dynamic map of 8 bits: Dettmers et al. 2021, arXiv 2110.02861. Between 0 and 1 lie
 * seven decades, each with twice the numbers of the one below it. One definition for the CPU and
 * for CUDA. */
#ifndef FT_KERNELS_DYNAMIC_H
#define FT_KERNELS_DYNAMIC_H

#include <math.h>
#include <stdbool.h>

#ifndef FT_DYNAMIC
#define FT_DYNAMIC static inline
#endif

enum { FT_DYNAMIC_CODES = 256 };

/* k-th of n places between 0.1 and 1, as torch.linspace has them. */
FT_DYNAMIC float ft_dynamic_place(int k, int n)
{
    const float step = (1.f - 0.1f) / (float)n;
    return k < (n + 1) / 2 ? fmaf(step, (float)k, 0.1f) : fmaf(-step, (float)(n - k), 1.f);
}

/* What a code stands for; they ascend. with_sign: from -1 (without it itself) to 1; otherwise from
 * 0, in steps half as large. */
FT_DYNAMIC float ft_dynamic(int code, bool with_sign)
{
    const int zero = with_sign ? 127 : 0, at = code > zero ? code - zero : zero - code;
    const float powers[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.f};
    int n = with_sign ? 1 : 2, first = 1, decade = 0;
    if (code == 255)
        return 1;
    if (at == 0)
        return 0;
    for (; at >= first + n; decade++) {
        first += n;
        n *= 2;
    }
    const int k = at - first;
    const float v = powers[decade] * ((ft_dynamic_place(k, n) + ft_dynamic_place(k + 1, n)) / 2.f);
    return code > zero ? v : -v;
}

#endif
