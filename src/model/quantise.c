/* Quantising a weight, byte for byte as bitsandbytes 0.50.2 does on a CPU with AVX2: its rounding
 * and its shortcuts are part of the format (its CUDA kernels round a few bytes in a thousand
 * otherwise). Dettmers et al. 2023, arXiv 2305.14314; for 8 bits 2022, arXiv 2208.07339. */
#include "model/quantise.h"

#include "core/status.h"
#include "kernels/dynamic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

static const float nf4_code[16] = {-1.0f,
                                   -0.6961928009986877f,
                                   -0.5250730514526367f,
                                   -0.39491748809814453f,
                                   -0.28444138169288635f,
                                   -0.18477343022823334f,
                                   -0.09105003625154495f,
                                   0.0f,
                                   0.07958029955625534f,
                                   0.16093020141124725f,
                                   0.24611230194568634f,
                                   0.33791524171829224f,
                                   0.44070982933044434f,
                                   0.5626170039176941f,
                                   0.7229568362236023f,
                                   1.0f};
static const float fp4_code[16] = {0.f,
                                   0.0052083334885537624f,
                                   0.6666666865348816f,
                                   1.f,
                                   0.3333333432674408f,
                                   0.5f,
                                   0.1666666716337204f,
                                   0.25f,
                                   0.f,
                                   -0.0052083334885537624f,
                                   -0.6666666865348816f,
                                   -1.f,
                                   -0.3333333432674408f,
                                   -0.5f,
                                   -0.1666666716337204f,
                                   -0.25f};
/* The codes by what they stand for; of FP4's two zeros the first is used. */
static const uint8_t nf4_order[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const uint8_t fp4_order[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

/* Compiled for AVX2 too, and taken where the processor has it. The bits are the same: FMA is not in
 * it. (ThreadSanitizer cannot run what chooses.) */
#if defined(FT_HAVE_X86) && !defined(__SANITIZE_THREAD__)
#define ON_AVX2 __attribute__((target_clones("avx2", "default")))
#else
#define ON_AVX2
#endif

/* --- 4 bits --- */

struct four {
    const struct ft_planes *q;
    const void *data;
    enum ft_dtype dtype;
    const uint8_t *order;
    float bounds[15]; /* between the values of codes that follow each other */
    float *scales;
};

enum { PIECE_BLOCKS = 256, BLOCK_MOST = 4096 };

/* Elements from.. as f32. */
static void widen(float *out, const void *data, enum ft_dtype dtype, int64_t from, int64_t n)
{
    if (dtype == FT_BF16) {
        const uint16_t *p = (const uint16_t *)data + from;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t u = (uint32_t)p[i] << 16;
            memcpy(&out[i], &u, sizeof u);
        }
    } else {
        for (int64_t i = 0; i < n; i++)
            out[i] = ft_element_get(data, (size_t)(from + i), dtype);
    }
}

/* The largest magnitude; of numbers that are finite, that of the bits. */
static float largest(const float *x, int64_t n)
{
    int32_t most = 0;
    float v;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    memcpy(&v, &most, sizeof v);
    return v;
}

static float within_one(float x)
{
    return x < -1 ? -1 : x > 1 ? 1 : x;
}

ON_AVX2 static void four_block(const struct four *f, int64_t block, int64_t total)
{
    const int64_t from = block * f->q->block;
    const int64_t n = total - from < f->q->block ? total - from : f->q->block;
    uint8_t *codes = (uint8_t *)f->q->p[FT_CODES] + from / 2;
    float x[BLOCK_MOST + 1];
    int32_t below[BLOCK_MOST + 1];
    widen(x, f->data, f->dtype, from, n);
    const bool whole = n == f->q->block;
    const float most = largest(x, n), safe = most > 1e-38f ? most : 1e-38f, per = 1.f / safe;
    f->scales[block] = whole ? most : safe;
    for (int64_t i = 0; i < n && whole; i++)
        x[i] = within_one(x[i] * per);
    for (int64_t i = 0; i < n && !whole; i++)
        x[i] = within_one(x[i] / safe);
    x[n] = 0; /* an odd count is filled up */
    const int64_t even = n + n % 2;
    for (int64_t i = 0; i < even; i++) {
        int32_t count = 0;
        for (int k = 0; k < 15; k++)
            count += f->bounds[k] < x[i];
        below[i] = count;
    }
    for (int64_t i = 0; i < n; i += 2)
        codes[i / 2] = (uint8_t)(f->order[below[i]] << 4 | f->order[below[i + 1]]);
}

static void four_piece(void *arg, int64_t piece, void *scratch)
{
    (void)scratch;
    const struct four *f = arg;
    const int64_t n = f->q->rows * f->q->cols, blocks = (n + f->q->block - 1) / f->q->block;
    for (int64_t b = piece * PIECE_BLOCKS; b < blocks && b < (piece + 1) * PIECE_BLOCKS; b++)
        four_block(f, b, n);
}

/* The sum of n numbers as torch adds them up with AVX2 on one thread: 4 rows of 8 lanes, a cascade
 * of levels each. */
static float torch_sum(const float *x, int64_t n)
{
    enum { LANES = 8, ROWS = 4, LEVELS = 4 };
    float acc[LEVELS][ROWS][LANES] = {{{0}}}, sum = 0;
    const int64_t vectors = n / LANES, size = vectors / ROWS;
    int power = 0, i = 0;
    while (((int64_t)1 << power) < size)
        power++;
    power = power / LEVELS > 4 ? power / LEVELS : 4;
    const int64_t step = (int64_t)1 << power, mask = step - 1;
    int64_t done = 0;
    while (done < size) {
        const int64_t stop = done + step <= size ? done + step : size;
        for (; done < stop; done++)
            for (i = 0; i < ROWS * LANES; i++)
                acc[0][i / LANES][i % LANES] += x[done * ROWS * LANES + i];
        for (int level = 1; level < LEVELS && done % step == 0; level++) {
            for (i = 0; i < ROWS * LANES; i++) {
                acc[level][i / LANES][i % LANES] += acc[level - 1][i / LANES][i % LANES];
                acc[level - 1][i / LANES][i % LANES] = 0;
            }
            if (done & (mask << (level * power)))
                break;
        }
    }
    for (int level = 1; level < LEVELS; level++)
        for (i = 0; i < ROWS * LANES; i++)
            acc[0][i / LANES][i % LANES] += acc[level][i / LANES][i % LANES];
    for (int64_t v = size * ROWS; v < vectors; v++)
        for (i = 0; i < LANES; i++)
            acc[0][0][i] += x[v * LANES + i];
    for (int row = 1; row < ROWS; row++)
        for (i = 0; i < LANES; i++)
            acc[0][0][i] += acc[0][row][i];
    for (int64_t k = vectors * LANES; k < n; k++)
        sum += x[k];
    for (i = 0; i < LANES; i++)
        sum += acc[0][0][i];
    return sum;
}

/* The dynamic map, and the code of each of 65,536 places between -1 and 1. */
enum { TABLE = 65536 };
static struct {
    once_flag made;
    float code[FT_DYNAMIC_CODES];
    uint8_t at[TABLE];
} dynamic = {.made = ONCE_FLAG_INIT};

static void make_dynamic(void)
{
    const float *code = dynamic.code;
    for (int i = 0; i < FT_DYNAMIC_CODES; i++)
        dynamic.code[i] = ft_dynamic(i, true);
    for (int i = 0, at = 0; i < TABLE; i++) {
        const float x = -1.f + 2.f * (float)i / (float)(TABLE - 1);
        while (at < 255 && 0.5f * (code[at] + code[at + 1]) < x)
            at++;
        dynamic.at[i] = (uint8_t)at;
    }
}

/* The scales less their mean, in blocks of 256. */
static void nest(const struct ft_planes *q, float *scales, int64_t n)
{
    float *second = q->p[FT_SECOND];
    uint8_t *out = q->p[FT_SCALES];
    const float mean = torch_sum(scales, n) / (float)n;
    call_once(&dynamic.made, make_dynamic);
    memcpy(q->p[FT_SECOND_CODE], dynamic.code, sizeof dynamic.code);
    *(float *)q->p[FT_OFFSET] = mean;
    for (int64_t from = 0; from < n; from += FT_NESTED_BLOCK) {
        const int64_t end = from + FT_NESTED_BLOCK < n ? from + FT_NESTED_BLOCK : n;
        float most = 0;
        for (int64_t i = from; i < end; i++)
            most = fmaxf(most, fabsf(scales[i] - mean));
        second[from / FT_NESTED_BLOCK] = most;
        for (int64_t i = from; i < end; i++) {
            const float x = within_one((scales[i] - mean) * (1.f / most));
            out[i] = most == 0 ? 0 : dynamic.at[(int)fmaf((x + 1.f) * 0.5f, TABLE - 1, 0.5f)];
        }
    }
}

int ft_quantise_4bit(const struct ft_planes *q, bool fp4, struct ft_pool *pool, const void *data,
                     enum ft_dtype dtype)
{
    const float *code = fp4 ? fp4_code : nf4_code;
    const int64_t n = q->rows * q->cols, blocks = (n + q->block - 1) / q->block;
    struct four f = {.q = q, .data = data, .dtype = dtype, .scales = q->p[FT_SCALES]};
    f.order = fp4 ? fp4_order : nf4_order;
    for (int i = 0; i < 15; i++)
        f.bounds[i] = (code[f.order[i]] + code[f.order[i + 1]]) / 2.f;
    memcpy(q->p[FT_CODE], code, sizeof nf4_code);
    if (q->dtype == FT_BNB4_NESTED)
        FT_TRY(ft_alloc(&f.scales, (size_t)blocks, sizeof *f.scales));
    ft_pool_run(pool, (blocks + PIECE_BLOCKS - 1) / PIECE_BLOCKS, four_piece, &f);
    if (q->dtype == FT_BNB4)
        return FT_OK;
    nest(q, f.scales, blocks);
    ft_free(f.scales);
    return FT_OK;
}

/* --- 8 bits --- */

struct eight {
    const struct ft_planes *q;
    const void *data;
    enum ft_dtype dtype;
};

/* Through f16, as LLM.int8 does; numbers of bf16 that are normal there are what they were. */
ON_AVX2 static void eight_row(void *arg, int64_t row, void *scratch)
{
    (void)scratch;
    const struct eight *e = arg;
    const int64_t cols = e->q->cols;
    int8_t *out = (int8_t *)e->q->p[FT_CODES] + row * cols;
    float x[BLOCK_MOST], most = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t at = 0, n; at < cols; at += n) {
            n = cols - at < BLOCK_MOST ? cols - at : BLOCK_MOST;
            widen(x, e->data, e->dtype, row * cols + at, n);
            for (int64_t i = 0; i < n; i++)
                if (e->dtype == FT_F32 || !(fabsf(x[i]) >= 0x1p-14f && fabsf(x[i]) < 65504.f))
                    x[i] = ft_f16_to_f32(ft_f32_to_f16(x[i]));
            if (pass == 0) {
                const float here = largest(x, n);
                most = here > most ? here : most;
                continue;
            }
            const float per = 127.f * (1.f / most), magic = 0x1.8p23f; /* rounds to nearest even */
            for (int64_t i = 0; i < n; i++)
                out[at + i] = most > 0 ? (int8_t)(x[i] * per + magic - magic) : 0;
        }
    ((float *)e->q->p[FT_SCALES])[row] = most;
}

void ft_quantise_8bit(const struct ft_planes *q, struct ft_pool *pool, const void *data,
                      enum ft_dtype dtype)
{
    struct eight e = {q, data, dtype};
    ft_pool_run(pool, q->rows, eight_row, &e);
}
