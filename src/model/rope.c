/* Rotary position frequencies of every type, in the float precision that transformers uses. */
#include "model/rope.h"

#include <math.h>
#include <string.h>

static void plain(double base, int dim, float *inv)
{
    for (int i = 0; i < dim / 2; i++)
        inv[i] = 1.f / powf((float)base, (float)(2 * i) / (float)dim);
}

static void linear(const struct ft_rope_spec *s, int64_t length, float *inv)
{
    (void)length;
    plain(s->theta, s->dim, inv);
    for (int i = 0; i < s->dim / 2; i++)
        inv[i] /= (float)s->factor;
}

static void standard(const struct ft_rope_spec *s, int64_t length, float *inv)
{
    (void)length;
    plain(s->theta, s->dim, inv);
}

/* "NTK-aware" scaling: the base grows with documents longer than the trained context. */
static void dynamic(const struct ft_rope_spec *s, int64_t length, float *inv)
{
    double seen = (double)length > s->max_positions ? (double)length : s->max_positions;
    double stretch = s->factor * seen / s->max_positions - (s->factor - 1);
    plain(s->theta * pow(stretch, (double)s->dim / (s->dim - 2)), s->dim, inv);
}

static void llama3(const struct ft_rope_spec *s, int64_t length, float *inv)
{
    (void)length;
    plain(s->theta, s->dim, inv);
    const double low = s->original_max_positions / s->low_freq_factor;
    const double high = s->original_max_positions / s->high_freq_factor;
    const float pi2 = (float)(2 * M_PI), factor = (float)s->factor;
    for (int i = 0; i < s->dim / 2; i++) {
        float wave = pi2 / inv[i];
        if ((double)wave > low) {
            inv[i] /= factor;
        } else if ((double)wave >= high) {
            float smooth = ((float)s->original_max_positions / wave - (float)s->low_freq_factor) /
                           (float)(s->high_freq_factor - s->low_freq_factor);
            inv[i] = (1 - smooth) * inv[i] / factor + smooth * inv[i];
        }
    }
}

/* Peng et al. 2023, arXiv 2309.00071. */
static void yarn(const struct ft_rope_spec *s, int64_t length, float *inv)
{
    (void)length;
    double bound[2], rotations[2] = {s->beta_fast, s->beta_slow};
    for (int i = 0; i < 2; i++)
        bound[i] = s->dim * log(s->original_max_positions / (rotations[i] * 2 * M_PI)) /
                   (2 * log(s->theta));
    double low = s->truncate ? floor(bound[0]) : bound[0];
    double high = s->truncate ? ceil(bound[1]) : bound[1];
    low = fmax(low, 0);
    high = fmin(high, s->dim - 1);
    if (low == high)
        high += 0.001;
    for (int i = 0; i < s->dim / 2; i++) {
        float freq = powf((float)s->theta, (float)(2 * i) / (float)s->dim);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1.f - fminf(fmaxf(ramp, 0), 1);
        inv[i] = 1.f / ((float)s->factor * freq) * (1 - keep) + 1.f / freq * keep;
    }
}

static bool is_long(const struct ft_rope_spec *s, int64_t length)
{
    return (double)length > s->original_max_positions;
}

static void longrope(const struct ft_rope_spec *s, int64_t length, float *inv)
{
    const float *ext = is_long(s, length) ? s->long_factor : s->short_factor;
    for (int i = 0; i < s->dim / 2; i++)
        inv[i] = 1.f / (ext[i] * powf((float)s->theta, (float)(2 * i) / (float)s->dim));
}

typedef void frequencies_fn(const struct ft_rope_spec *s, int64_t length, float *inv);
static frequencies_fn *const types[] = {
    [FT_ROPE_DEFAULT] = standard, [FT_ROPE_LINEAR] = linear, [FT_ROPE_DYNAMIC] = dynamic,
    [FT_ROPE_LLAMA3] = llama3,    [FT_ROPE_YARN] = yarn,     [FT_ROPE_LONGROPE] = longrope,
};

void ft_rope_frequencies(const struct ft_rope_spec *s, int64_t length, float *inv_freq)
{
    types[s->type](s, length, inv_freq);
}

bool ft_rope_by_length(const struct ft_rope_spec *s)
{
    return s->type == FT_ROPE_DYNAMIC || s->type == FT_ROPE_LONGROPE;
}

bool ft_rope_changes(const struct ft_rope_spec *s, int64_t a, int64_t b)
{
    return s->type == FT_ROPE_LONGROPE && is_long(s, a) != is_long(s, b);
}

void ft_rope_fill(const struct ft_rope_spec *s, int64_t length, float *cos_out, float *sin_out)
{
    float inv[FT_ROPE_MAX_HALF];
    const int half = s->dim / 2;
    const float scale = (float)s->attention_factor;
    for (int64_t p = 0; p < length && s->still > 0; p++)
        for (int i = 0; i < half; i++) {
            cos_out[p * half + i] =
                1 + (float)s->growth * log1pf(floorf(((float)p + 1) / (float)s->still));
            sin_out[p * half + i] = 0;
        }
    if (s->still > 0)
        return;
    ft_rope_frequencies(s, length, inv);
    for (int64_t p = 0; p < length; p++) {
        const float grown =
            s->growth > 0 ? 1 + (float)s->growth *
                                    logf(1 + floorf((float)p / (float)s->original_max_positions))
                          : 1;
        for (int i = 0; i < half; i++) {
            float angle = (float)p * inv[i];
            cos_out[p * half + i] = cosf(angle) * scale * grown;
            sin_out[p * half + i] = sinf(angle) * scale * grown;
        }
    }
}
