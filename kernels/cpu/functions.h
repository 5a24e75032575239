/* Functions of vectors. */
#ifndef FT_KERNELS_CPU_FUNCTIONS_H
#define FT_KERNELS_CPU_FUNCTIONS_H

#include "kernels/cpu/vectors.h"

/* exp(x) to about 1 ulp for -87 <= x <= 88; below, 2^-126 or so; above, 2^127 or so. NaN stays NaN.
 * x = n ln2 + r, |r| <= ln2/2, with Cephes' expf polynomial for exp(r). */
FT_INLINE vf vf_exp(vf x)
{
    const vf hi = vf_set(88.3762626647949f), lo = vf_set(-87.3365478515625f);
    x = vf_max(vf_min(x, hi), lo);
    const float magic = 12582912.f; /* 1.5 * 2^23: adding it rounds to an integer */
    vf shifted = vf_fma(x, vf_set(1.44269504088896341f), vf_set(magic));
    vf n = shifted - magic;
    vf r = vf_fma(n, vf_set(-0.693359375f), x);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + 1.0f;
    vi scale = ((vi)shifted - 0x4b400000 + 127) << 23;
    return p * (vf)scale;
}

FT_INLINE vf vf_sigmoid(vf x)
{
    return 1.f / (1.f + vf_exp(-x));
}

/* To about 2 ulp: near 0 by Cephes' tanhf polynomial, else by exp. NaN stays NaN. */
FT_INLINE vf vf_tanh(vf x)
{
    const vf z = x * x;
    vf p = vf_set(-5.70498872745e-3f);
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const vf near = p * z * x + x, far = 1.f - 2.f / (vf_exp(2.f * x) + 1.f);
    return vf_select(z < 0.625f * 0.625f, near, far);
}

/* To about 3e-7: the rational approximation of Eigen and XLA, x P(x^2) / Q(x^2) up to |x| = 4. */
FT_INLINE vf vf_erf(vf x)
{
    const vf four = vf_set(4.f);
    x = vf_max(vf_min(x, four), -four);
    const vf z = x * x;
    vf p = vf_set(-2.72614225801306e-10f);
    p = p * z + 2.77068142495902e-08f;
    p = p * z - 2.10102402082508e-06f;
    p = p * z - 5.69250639462346e-05f;
    p = p * z - 7.34990630326855e-04f;
    p = p * z - 2.95459980854025e-03f;
    p = p * z - 1.60960333262415e-02f;
    vf q = vf_set(-1.45660718464996e-05f);
    q = q * z - 2.13374055278905e-04f;
    q = q * z - 1.68282697438203e-03f;
    q = q * z - 7.37332916720468e-03f;
    q = q * z - 1.42647390514189e-02f;
    return x * p / q;
}

#endif
