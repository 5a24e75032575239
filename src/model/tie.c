/* Whether the head is the embedding: what config.json says, and what the weights do. */
#include "model/internal.h"

#include <string.h>

struct place {
    const struct ft_st *f;
    const struct ft_st_entry *e;
};

static struct place find(const struct ft_model *m, const char *name)
{
    struct ft_st *f = NULL;
    const struct ft_st_entry *e = ft_model_entry(m, name, &f);
    return (struct place){f, e};
}

/* The head's tensor under the first name that the files have, or the first of all. */
static int name_head(struct ft_model *m)
{
    const struct ft_names *n = &m->decoder.names;
    const char *const own[] = {n->head, NULL};
    const char *const *names = n->head_in_file[0] ? n->head_in_file : own;
    for (m->head_name = NULL; *names && (!m->head_name || !find(m, m->head_name).e); names++) {
        char *name = ft_arena_format(&m->arena, "%s.weight", *names);
        if (!name)
            return FT_ERESOURCE;
        if (!m->head_name || find(m, name).e)
            m->head_name = name;
    }
    return FT_OK;
}

static bool same_values(const void *a, enum ft_dtype x, const void *b, enum ft_dtype y, size_t n)
{
    if (x == y)
        return memcmp(a, b, n * ft_dtype_size(x)) == 0;
    for (size_t i = 0; i < n; i++)
        if (ft_element_get(a, i, x) != ft_element_get(b, i, y))
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
    m->embed_name = ft_arena_format(&m->arena, "%s%s.weight", m->in_file, m->decoder.names.embed);
    if (!m->embed_name)
        return FT_ERESOURCE;
    FT_TRY(name_head(m));
    const struct place embed = find(m, m->embed_name), head = find(m, m->head_name);
    bool same = true;
    if (!m->decoder.tied || !head.e)
        return FT_OK;
    if (!embed.e) /* one matrix, under its other name */
        m->embed_name = m->head_name;
    else if (is_weight(embed.e) && is_weight(head.e))
        FT_TRY(compare(&embed, &head, &same));
    if (same)
        return FT_OK;
    m->decoder.tied = false;
    ft_notice((struct ft_where){.file = ft_st_path(head.f)},
              "config.json says that '%s' is '%s' (tie_word_embeddings), but the file has two "
              "different ones: both are used, as transformers does; set it to false to say so",
              m->head_name, m->embed_name);
    return FT_OK;
}
