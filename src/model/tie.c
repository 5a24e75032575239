/* Whether the head is the embedding: what config.json says, and what the weights do. */
#include "model/internal.h"

#include <string.h>

#define EMBED "model.embed_tokens.weight"
#define HEAD  "lm_head.weight"

struct place {
    const struct ft_st *f;
    const struct ft_st_entry *e;
};

static struct place find(const struct ft_model *m, const char *name)
{
    struct place p = {NULL, NULL};
    for (int i = 0; i < m->n_files && !p.e; i++)
        p = (struct place){m->files[i], ft_st_find(m->files[i], name)};
    return p;
}

static float widened(const void *data, size_t i, enum ft_dtype dtype)
{
    float f;
    if (dtype != FT_F32)
        return dtype == FT_BF16 ? ft_bf16_to_f32(((const uint16_t *)data)[i])
                                : ft_f16_to_f32(((const uint16_t *)data)[i]);
    memcpy(&f, (const char *)data + i * sizeof f, sizeof f);
    return f;
}

static bool same_values(const void *a, enum ft_dtype x, const void *b, enum ft_dtype y, size_t n)
{
    if (x == y)
        return memcmp(a, b, n * ft_dtype_size(x)) == 0;
    for (size_t i = 0; i < n; i++)
        if (widened(a, i, x) != widened(b, i, y))
            return false;
    return true;
}

static bool is_weight(const struct ft_st_entry *e)
{
    return e->dtype == FT_F32 || e->dtype == FT_BF16 || e->dtype == FT_F16;
}

/* Reads both, up to the first difference. */
static int compare(const struct place *a, const struct place *b, bool *same)
{
    enum { CHUNK = 1 << 18 };
    const size_t x = ft_dtype_size(a->e->dtype), y = ft_dtype_size(b->e->dtype);
    const size_t n = (size_t)(a->e->end - a->e->begin) / x;
    char *buffer;
    *same = (size_t)(b->e->end - b->e->begin) / y == n;
    FT_TRY(ft_alloc(&buffer, CHUNK, x + y));
    int rc = FT_OK;
    for (size_t at = 0; at < n && *same && !rc; at += CHUNK) {
        const size_t part = n - at < CHUNK ? n - at : CHUNK;
        rc = ft_st_read(a->f, a->e, (int64_t)(at * x), part * x, buffer);
        if (!rc)
            rc = ft_st_read(b->f, b->e, (int64_t)(at * y), part * y, buffer + CHUNK * x);
        *same = rc || same_values(buffer, a->e->dtype, buffer + CHUNK * x, b->e->dtype, part);
    }
    ft_free(buffer);
    return rc;
}

int ft_model_settle_tie(struct ft_model *m)
{
    const struct place embed = find(m, EMBED), head = find(m, HEAD);
    bool same = true;
    m->embed_name = EMBED;
    m->head_name = HEAD;
    if (!m->config.tied || !head.e)
        return FT_OK;
    if (!embed.e) /* one matrix, under its other name */
        m->embed_name = HEAD;
    else if (is_weight(embed.e) && is_weight(head.e))
        FT_TRY(compare(&embed, &head, &same));
    if (same)
        return FT_OK;
    m->config.tied = false;
    ft_notice((struct ft_where){.file = ft_st_path(head.f)},
              "config.json says that '" HEAD "' is '" EMBED
              "' (tie_word_embeddings), but the file has two different ones: both are used, as "
              "transformers does; set it to false to say so");
    return FT_OK;
}
