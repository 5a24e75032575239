/* What an adapter makes of the weights, row by row of a module's outputs: as PEFT merges, in f32.
 */
#include "adapter/internal.h"

#include <math.h>

static const float *of(const float *values, const struct ft_slot *s, enum ft_role role)
{
    return values + s->p[role]->at;
}

enum { CHUNK = 256 }; /* columns at a time */

/* Columns first.. of one row of a product: left (r) times right (r, cols). */
static void product(float *out, const float *left, const float *right, int64_t r, int64_t cols,
                    int64_t first, int64_t n)
{
    for (int64_t c = 0; c < n; c++)
        out[c] = 0;
    for (int64_t k = 0; k < r; k++)
        for (int64_t c = 0; c < n; c++)
            out[c] += left[k] * right[k * cols + first + c];
}

static int64_t chunk(int64_t all, int64_t first)
{
    return all - first < CHUNK ? all - first : CHUNK;
}

/* A row of the table is an input here. */
static void merge_embedding(const float *values, const struct ft_slot *s, float scale, int64_t row,
                            float *w)
{
    const float *down = of(values, s, FT_LORA_A), *up = of(values, s, FT_LORA_B);
    for (int64_t c = 0; c < s->out; c++) {
        float sum = 0;
        for (int64_t k = 0; k < s->r; k++)
            sum += up[c * s->r + k] * down[row * s->r + k];
        w[c] += scale * sum;
    }
}

void ft_lora_merge(const struct ft_adapter *a, const float *values, const struct ft_slot *s,
                   float share, int64_t row, float *w)
{
    const float *up = of(values, s, FT_LORA_B) + row * s->r;
    const float scale = s->scale * share;
    const int64_t expert = row / s->out; /* of others 0 */
    const float *down = of(values, s, FT_LORA_A) + expert * s->r * s->in;
    float change[CHUNK];
    (void)a;
    if (s->kind == FT_SITE_EMBEDDING) {
        merge_embedding(values, s, scale, row, w);
        return;
    }
    for (int64_t c = 0; c < s->in; c += CHUNK) {
        const int64_t n = chunk(s->in, c);
        product(change, up, down, s->r, s->in, c, n);
        for (int64_t i = 0; i < n; i++)
            w[c + i] += scale * change[i];
    }
}

void ft_dora_merge(const struct ft_adapter *a, const float *values, const struct ft_slot *s,
                   float share, int64_t row, float *w)
{
    double square = 0;
    ft_lora_merge(a, values, s, share, row, w);
    for (int64_t c = 0; c < s->in; c++)
        square += (double)w[c] * (double)w[c];
    const float factor = of(values, s, FT_MAGNITUDE)[row] / (float)sqrt(square);
    for (int64_t c = 0; c < s->in; c++)
        w[c] *= factor;
}

void ft_vera_merge(const struct ft_adapter *a, const float *values, const struct ft_slot *s,
                   float share, int64_t row, float *w)
{
    const struct ft_frozen_matrix *all = a->shared;
    const float *down = a->frozen_values + all[0].at, *up = a->frozen_values + all[1].at;
    const float *d = of(values, s, FT_VERA_D), b = share * of(values, s, FT_VERA_B)[row];
    for (int64_t c = 0; c < s->in; c++) {
        float sum = 0;
        for (int64_t k = 0; k < s->r; k++)
            sum += up[row * s->r + k] * (d[k] * down[k * all[0].cols + c]);
        w[c] += b * sum;
    }
}

void ft_ia3_merge(const struct ft_adapter *a, const float *values, const struct ft_slot *s,
                  float share, int64_t row, float *w)
{
    const float *l = of(values, s, FT_IA3_L);
    (void)a, (void)share;
    for (int64_t c = 0; c < s->in; c++)
        w[c] *= l[s->feedforward ? c : row];
}

void ft_loha_merge(const struct ft_adapter *a, const float *values, const struct ft_slot *s,
                   float share, int64_t row, float *w)
{
    float one[CHUNK], other[CHUNK];
    (void)a;
    for (int64_t c = 0; c < s->in; c += CHUNK) {
        const int64_t n = chunk(s->in, c);
        product(one, of(values, s, FT_HADA_1A) + row * s->r, of(values, s, FT_HADA_1B), s->r, s->in,
                c, n);
        product(other, of(values, s, FT_HADA_2A) + row * s->r, of(values, s, FT_HADA_2B), s->r,
                s->in, c, n);
        for (int64_t i = 0; i < n; i++)
            w[c + i] += s->scale * share * (one[i] * other[i]);
    }
}

void ft_lokr_merge(const struct ft_adapter *a, const float *values, const struct ft_slot *s,
                   float share, int64_t row, float *w)
{
    const int64_t in = s->in_factor[1], out = s->out_factor[1], at = row % out;
    const float *small = of(values, s, FT_LOKR_1) + row / out * s->in_factor[0];
    float large[CHUNK];
    (void)a;
    for (int64_t c = 0; c < in; c += CHUNK) {
        const int64_t n = chunk(in, c);
        if (s->p[FT_LOKR_2])
            for (int64_t i = 0; i < n; i++)
                large[i] = of(values, s, FT_LOKR_2)[at * in + c + i];
        else
            product(large, of(values, s, FT_LOKR_2A) + at * s->r, of(values, s, FT_LOKR_2B), s->r,
                    in, c, n);
        for (int64_t k = 0; k < s->in_factor[0]; k++)
            for (int64_t i = 0; i < n; i++)
                w[k * in + c + i] += s->scale * share * (small[k] * large[i]);
    }
}

int ft_adapter_read(struct ft_adapter *a, float *values)
{
    FT_ASSERT(a->folder && !a->frozen);
    if (a->frozen_size && !a->frozen_copy)
        FT_TRY(ft_alloc(&a->frozen_copy, (size_t)a->frozen_size, sizeof *a->frozen_copy));
    a->frozen_values = a->frozen_copy;
    return ft_adapter_read_values(a, values);
}

bool ft_adapter_adds(const struct ft_adapter *a)
{
    return a->method->adds;
}

bool ft_adapter_changes(const struct ft_adapter *a, int site)
{
    return a->slot_of_site[site] >= 0;
}

void ft_adapter_merge(const struct ft_adapter *a, const float *values, int site, float share,
                      int64_t row, float *w)
{
    a->method->merge(a, values, &a->slots[a->slot_of_site[site]], share, row, w);
}

bool ft_adapter_pair(const struct ft_adapter *a, const float *values, int site,
                     struct ft_lora_pair *out)
{
    if (a->slot_of_site[site] < 0 || a->method->merge != ft_lora_merge)
        return false;
    const struct ft_slot *s = &a->slots[a->slot_of_site[site]];
    *out = (struct ft_lora_pair){.a = of(values, s, FT_LORA_A),
                                 .b = of(values, s, FT_LORA_B),
                                 .r = s->r,
                                 .in = s->in,
                                 .out = s->out,
                                 .experts = s->experts,
                                 .scale = s->scale};
    return true;
}

float ft_adapter_merge_bias(const struct ft_adapter *a, const float *values, int site, int64_t row)
{
    const struct ft_slot *s = &a->slots[a->slot_of_site[site]];
    const bool scales = a->method->merge == ft_ia3_merge && !s->feedforward;
    return scales ? of(values, s, FT_IA3_L)[row] : 1;
}
