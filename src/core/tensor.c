/* Owns the dtype table and scalar conversions. */
#include "core/tensor.h"

#include "core/quant.h"
#include "core/status.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
#define X(name, size, st) {st, size},
    FT_DTYPES(X)
#undef X
};

size_t ft_dtype_size(enum ft_dtype d)
{
    FT_ASSERT(d < FT_DTYPE_COUNT);
    return dtypes[d].size;
}

const char *ft_dtype_name(enum ft_dtype d)
{
    static const char *const quants[] = {
#define X(name, text) text,
        FT_QUANTS(X)
#undef X
    };
    FT_ASSERT(d < FT_DTYPE_END && d != FT_DTYPE_COUNT);
    return ft_is_quant(d) ? quants[d - FT_DTYPE_COUNT - 1] : dtypes[d].name;
}

bool ft_dtype_parse(const char *name, enum ft_dtype *out)
{
    for (int i = 0; i < FT_DTYPE_COUNT; i++)
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (enum ft_dtype)i;
            return true;
        }
    return false;
}

size_t ft_tensor_bytes(const struct ft_tensor *t)
{
    if (ft_is_quant(t->dtype))
        return t->parts > 1 ? (size_t)t->parts * ft_part_bytes(t) : ft_planes_of(t).bytes;
    return (size_t)t->rows * (size_t)ft_tensor_ld(t) * ft_dtype_size(t->dtype);
}

struct ft_tensor ft_tensor_part(const struct ft_tensor *t, int64_t n, int64_t i)
{
    struct ft_tensor part = ft_first_part(t, n);
    FT_ASSERT(t->parts <= 1 || t->parts == n);
    if (n > 1)
        part.data = (char *)t->data +
                    (size_t)i * (ft_is_quant(t->dtype) ? ft_part_bytes(t) : ft_tensor_bytes(&part));
    return part;
}

float ft_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t ft_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) /* NaN stays NaN */
        return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

float ft_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mant = h & 0x3ff, exp = (h >> 10) & 31;
    float f;
    if (exp == 0) { /* zero and subnormals: mant * 2^-24 */
        f = (float)mant * 0x1p-24f;
        return sign ? -f : f;
    }
    uint32_t u = sign | ((exp == 31 ? 255 : exp + 112) << 23) | (mant << 13);
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t ft_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    const uint32_t magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return sign | 0x7e00; /* NaN */
    if (magnitude >= 0x477ff000)
        return sign | 0x7c00;     /* 65520 and more round to infinity */
    if (magnitude < 0x38800000) { /* subnormal: in units of 2^-24, rounded by the addition */
        float units;
        memcpy(&units, &magnitude, sizeof units);
        units = units * 0x1p24f + 0x1.8p23f;
        memcpy(&u, &units, sizeof u);
        return (uint16_t)(sign | (u & 0x7ff));
    }
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000) >> 13));
}

float ft_element_get(const void *data, size_t i, enum ft_dtype dtype)
{
    float f;
    if (dtype != FT_F32)
        return dtype == FT_BF16 ? ft_bf16_to_f32(((const uint16_t *)data)[i])
                                : ft_f16_to_f32(((const uint16_t *)data)[i]);
    memcpy(&f, (const char *)data + i * sizeof f, sizeof f);
    return f;
}

void ft_element_put(void *data, size_t i, enum ft_dtype dtype, float v)
{
    if (dtype == FT_F32)
        memcpy((char *)data + i * sizeof v, &v, sizeof v);
    else
        ((uint16_t *)data)[i] = dtype == FT_BF16 ? ft_f32_to_bf16(v) : ft_f32_to_f16(v);
}
