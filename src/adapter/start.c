/* How a LoRA begins: peft_init_lora_weights. Those that begin with a part of the weight itself take
 * it away again by a second, frozen pair, so that the weight stays as it is: y = x W^T + s x (B A -
 * B0 A0)^T, where PEFT has W - s B0 A0 in the weight's place. */
#include "adapter/internal.h"

#include "adapter/lapack.h"
#include "core/rng.h"
#include "core/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Normal (0, 1), by Box and Muller. */
static float normal(struct ft_rng *rng)
{
    const double u = 1 - (double)ft_rng_f32(rng), v = (double)ft_rng_f32(rng);
    return (float)(sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v));
}

static struct ft_rng stream(const struct ft_adapter *a, const struct ft_slot *s)
{
    return ft_rng_init(a->seed, FT_RNG_INIT, (uint32_t)s->site, 0);
}

/* PEFT's: kaiming_uniform_(A, a=sqrt(5)), which is uniform in +-1/sqrt(in); B zero. An embedding's:
 * A zero, B normal. */
static int plain(const struct ft_adapter *a, const struct ft_slot *s, const float *w, float *p,
                 float *q)
{
    struct ft_rng rng = stream(a, s);
    const float bound = (float)(1 / sqrt((double)s->in));
    const bool embedding = s->kind == FT_SITE_EMBEDDING;
    (void)w;
    for (int64_t i = 0; i < s->r * s->in; i++)
        p[i] = embedding ? 0 : (2 * ft_rng_f32(&rng) - 1) * bound;
    for (int64_t i = 0; i < s->out * s->r; i++)
        q[i] = embedding ? normal(&rng) : 0;
    return FT_OK;
}

/* A normal with a deviation of 1/r. */
static int gaussian(const struct ft_adapter *a, const struct ft_slot *s, const float *w, float *p,
                    float *q)
{
    struct ft_rng rng = stream(a, s);
    if (s->kind == FT_SITE_EMBEDDING)
        return plain(a, s, w, p, q);
    for (int64_t i = 0; i < s->r * s->in; i++)
        p[i] = normal(&rng) / (float)s->r;
    memset(q, 0, (size_t)(s->out * s->r) * sizeof *q);
    return FT_OK;
}

/* Row k of A and column k of B from vectors of any sign: the largest element of the row of A is
 * positive, whatever computed them. */
static void put_pair(const struct ft_slot *s, int64_t k, const double *row, double row_scale,
                     const double *column, double column_scale, float *p, float *q)
{
    double most = 0;
    for (int64_t i = 0; i < s->in; i++)
        most = fabs(row[i]) > fabs(most) ? row[i] : most;
    const double sign = most < 0 ? -1 : 1;
    for (int64_t i = 0; i < s->in; i++)
        p[k * s->in + i] = (float)(sign * row_scale * row[i]);
    for (int64_t i = 0; i < s->out; i++)
        q[i * s->r + k] = (float)(sign * column_scale * column[i]);
}

/* The r largest singular values of the weight, shared out. Meng et al. 2024, arXiv 2404.02948. */
static int pissa(const struct ft_adapter *a, const struct ft_slot *s, const float *w, float *p,
                 float *q)
{
    double *values, *left = NULL, *right = NULL;
    FT_TRY(ft_alloc(&values, (size_t)s->r, sizeof *values));
    int rc = ft_alloc(&left, (size_t)(s->r * s->out), sizeof *left);
    if (!rc)
        rc = ft_alloc(&right, (size_t)(s->r * s->in), sizeof *right);
    if (!rc)
        rc = ft_lapack_top(a->lapack, w, s->out, s->in, s->r, values, left, right);
    for (int64_t k = 0; k < s->r && !rc; k++) {
        const double root = sqrt(values[k] / (double)s->scale);
        put_pair(s, k, right + k * s->in, root, left + k * s->out, root, p, q);
    }
    ft_free(values);
    ft_free(left);
    ft_free(right);
    return rc;
}

/* Takes the parts along q[0..k) out of v (twice, for what rounding leaves), and gives it length 1.
 */
static void orthonormal(double *v, const double *q, int64_t k, int64_t n)
{
    double length = 0;
    for (int64_t j = 0; j < 2 * k; j++) {
        const double *other = q + j % k * n;
        double dot = 0;
        for (int64_t i = 0; i < n; i++)
            dot += v[i] * other[i];
        for (int64_t i = 0; i < n; i++)
            v[i] -= dot * other[i];
    }
    for (int64_t i = 0; i < n; i++)
        length += v[i] * v[i];
    for (int64_t i = 0; i < n && length > 0; i++)
        v[i] /= sqrt(length);
}

/* W = Q R: the first columns of Q, which are those of W made orthonormal, and the first rows of R,
 * which are Q^T W. Buyukakyuz 2024, arXiv 2406.01775. */
static int olora(const struct ft_adapter *a, const struct ft_slot *s, const float *w, float *p,
                 float *q)
{
    double *columns, *row = NULL;
    (void)a;
    FT_TRY(ft_alloc(&columns, (size_t)(s->r * s->out), sizeof *columns));
    int rc = ft_alloc(&row, (size_t)s->in, sizeof *row);
    for (int64_t k = 0; k < s->r && !rc; k++) {
        double *column = columns + k * s->out;
        for (int64_t i = 0; i < s->out; i++)
            column[i] = (double)w[i * s->in + k];
        orthonormal(column, columns, k, s->out);
        memset(row, 0, (size_t)s->in * sizeof *row);
        for (int64_t i = 0; i < s->out; i++)
            for (int64_t c = 0; c < s->in; c++)
                row[c] += column[i] * (double)w[i * s->in + c];
        put_pair(s, k, row, 1, column, 1, p, q);
    }
    ft_free(columns);
    ft_free(row);
    return rc;
}

static const struct ft_lora_start starts[] = {
    {"true", false, false, plain},
    {"gaussian", false, false, gaussian},
    {"pissa", true, true, pissa},
    {"olora", true, false, olora},
};

/* pissa_niter_N asks for N rounds of an iteration towards what is computed here. */
const struct ft_lora_start *ft_lora_start(const char *name)
{
    static const char niter[] = "pissa_niter_";
    if (ft_starts_with(name, niter) && name[sizeof niter - 1] &&
        strspn(name + sizeof niter - 1, "0123456789") == strlen(name + sizeof niter - 1))
        name = "pissa";
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (strcmp(starts[i].name, name) == 0)
            return &starts[i];
    return NULL;
}

bool ft_adapter_init_known(const char *name)
{
    return ft_lora_start(name) != NULL;
}

size_t ft_adapter_start_bytes(const struct ft_adapter *a, bool device)
{
    size_t most = 0;
    for (int i = 0; i < a->n_slots && a->start->residual && !a->folder; i++) {
        const struct ft_slot *s = &a->slots[i];
        const size_t own = 2 * (size_t)(s->in * s->out) * sizeof(float); /* as stored, and as f32 */
        const size_t more = a->start->lapack ? ft_lapack_bytes(s->out, s->in, s->r)
                                             : (size_t)(s->r * s->out + s->in) * sizeof(double);
        most = own + more > most ? own + more : most;
    }
    return most + (device ? 6 * (size_t)a->frozen_size : 0);
}

static int start_slot(const struct ft_adapter *a, const struct ft_slot *s, float *values,
                      float *frozen, ft_site_weight_fn *weight, void *ctx)
{
    const struct ft_parameter *p = s->p[FT_LORA_A], *q = s->p[FT_LORA_B];
    float *w = NULL;
    if (a->start->residual) {
        FT_TRY(ft_alloc(&w, (size_t)(s->in * s->out), sizeof *w));
        int rc = weight(ctx, s->name, w);
        if (rc) {
            ft_free(w);
            return rc;
        }
    }
    int rc = a->start->fill(a, s, w, values + p->at, values + q->at);
    ft_free(w);
    if (!rc && a->start->residual) {
        memcpy(frozen + p->at, values + p->at, (size_t)(s->r * s->in) * sizeof(float));
        memcpy(frozen + q->at, values + q->at, (size_t)(s->r * s->out) * sizeof(float));
    }
    return rc;
}

int ft_lora_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx)
{
    int rc = FT_OK;
    if (a->start->lapack)
        FT_TRY(ft_lapack_open(&a->lapack));
    for (int i = 0; i < a->n_slots && !rc; i++)
        rc = start_slot(a, &a->slots[i], values, a->frozen_values, weight, ctx);
    ft_lapack_close(a->lapack);
    a->lapack = NULL;
    return rc;
}
