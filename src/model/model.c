/* Opens model folders: finds the family, reads config.json, declares weights in a graph. */
#include "model/internal.h"

#include "core/file.h"
#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ft_where in_folder(const struct ft_model *m)
{
    return (struct ft_where){.file = m->folder};
}

int ft_model_open(struct ft_model **out, const char *folder)
{
    struct ft_model *m;
    *out = NULL;
    FT_TRY(ft_alloc(&m, 1, sizeof *m));
    int rc = (m->folder = ft_strdup(folder)) ? FT_OK : FT_ERESOURCE;
    if (!rc && !ft_is_folder(folder)) {
        rc = ft_fail_at(in_folder(m), FT_EDATA, "is not a model folder");
        ft_hint("'base_model' names a folder with config.json and .safetensors files");
    }
    if (!rc)
        rc = ft_model_read_config(m);
    if (!rc)
        rc = ft_model_open_files(m);
    if (!rc)
        rc = ft_model_settle_prefix(m);
    if (!rc)
        rc = ft_model_settle_tie(m);
    if (!rc)
        rc = ft_decoder_weights(m);
    if (!rc)
        rc = ft_model_find_tensors(m);
    if (rc) {
        ft_model_close(m);
        return rc;
    }
    *out = m;
    return FT_OK;
}

bool ft_model_balance(struct ft_model *m, bool balanced, double rate)
{
    struct ft_mixture *e = &m->decoder.mixture;
    if (!e->count || e->plain_loss)
        return false;
    e->balanced = balanced;
    e->balance_rate = rate;
    return true;
}

/* The shape's numbers in its family's row. */
static int make_decoder(struct ft_model *m, const struct ft_shape *shape)
{
    const unsigned since = ft_alloc_failures();
    json_t *o = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:f, s:I}", "vocab_size",
        (json_int_t)shape->vocab, "hidden_size", (json_int_t)shape->hidden, "num_hidden_layers",
        (json_int_t)shape->layers, "num_attention_heads", (json_int_t)shape->heads,
        "num_key_value_heads", (json_int_t)shape->kv_heads, "head_dim", (json_int_t)shape->head_dim,
        "intermediate_size", (json_int_t)shape->ffn, "tie_word_embeddings", shape->tied,
        "rope_theta", shape->theta, "max_position_embeddings", (json_int_t)1 << 17);
    int rc = ft_alloc_check(since);
    m->family = ft_family_find(shape->architecture, NULL);
    FT_ASSERT(m->family);
    m->decoder = m->family->decoder;
    if (!rc)
        rc = ft_config_to_decoder(o, shape->name, m->family, m);
    json_decref(o);
    return rc;
}

int ft_model_make(struct ft_model **out, const struct ft_shape *shape)
{
    struct ft_model *m;
    *out = NULL;
    FT_TRY(ft_alloc(&m, 1, sizeof *m));
    int rc = (m->folder = ft_strdup(shape->name)) ? FT_OK : FT_ERESOURCE;
    if (!rc)
        rc = make_decoder(m, shape);
    if (!rc)
        rc = ft_model_settle_prefix(m);
    if (!rc)
        rc = ft_model_settle_tie(m);
    if (!rc)
        rc = ft_decoder_weights(m);
    if (rc) {
        ft_model_close(m);
        return rc;
    }
    for (int i = 0; i < m->n_weights; i++)
        m->weights[i].dtype = FT_BF16;
    *out = m;
    return FT_OK;
}

void ft_model_close(struct ft_model *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->n_files; i++)
        ft_st_close(m->files[i]);
    ft_free(m->files);
    ft_free(m->weights);
    ft_free(m->modules);
    ft_free(m->stacks);
    ft_free(m->layers);
    ft_free(m->folder);
    ft_arena_fini(&m->arena);
    ft_free(m);
}

const struct ft_decoder *ft_model_decoder(const struct ft_model *m)
{
    return &m->decoder;
}

const char *ft_model_scope(const struct ft_model *m)
{
    return m->family->text[0] ? m->decoder.names.prefix : NULL;
}

const char *ft_model_architecture(const struct ft_model *m)
{
    return m->family->architecture;
}

int ft_model_modules(const struct ft_model *m, const struct ft_module **out)
{
    *out = m->modules;
    return m->n_modules;
}

int64_t ft_model_parameters(const struct ft_model *m)
{
    int64_t n = 0;
    for (int i = 0; i < m->n_weights; i++)
        n += m->weights[i].rows * (m->weights[i].cols ? m->weights[i].cols : 1);
    return n;
}

int64_t ft_model_active(const struct ft_model *m)
{
    const struct ft_mixture *e = &m->decoder.mixture;
    int64_t n = ft_model_parameters(m);
    for (int i = 0; i < m->n_weights; i++) {
        const struct ft_weight *w = &m->weights[i];
        if (w->kind == FT_W_EXPERTS || (w->kind == FT_W_BUFFER && w->cols > 0)) /* their biases */
            n -= w->rows / e->count * (e->count - e->each) * w->cols;
    }
    return n;
}

int ft_model_weights(const struct ft_model *m)
{
    return m->n_weights;
}

struct ft_model_weight ft_model_weight(const struct ft_model *m, int i)
{
    const struct ft_weight *w = &m->weights[i];
    return (struct ft_model_weight){w->path, w->kind, w->rows, w->cols};
}

int ft_model_weight_find(const struct ft_model *m, const char *path)
{
    const struct ft_decoder *d = &m->decoder;
    const size_t n = strlen(d->names.head);
    const bool head = strncmp(path, d->names.head, n) == 0 && strcmp(path + n, ".weight") == 0;
    for (int i = 0; i < m->n_weights; i++)
        if (head && d->tied ? m->weights[i].slot == &m->embed
                            : strcmp(m->weights[i].path, path) == 0)
            return i;
    return -1;
}

/* Of the vocabulary. */
static bool is_end(const struct ft_model *m, const struct ft_weight *w)
{
    return w->slot == &m->embed || w->slot == &m->head;
}

void ft_model_enlarge(struct ft_model *m, int64_t rows)
{
    FT_ASSERT(rows >= m->decoder.vocab);
    for (int i = 0; i < m->n_weights; i++)
        if (is_end(m, &m->weights[i])) {
            m->weights[i].rows = rows;
            if (rows > m->weights[i].stored)
                m->weights[i].way = NULL; /* the new ones are not in the blocks' form */
        }
    m->decoder.vocab = rows;
}

int ft_model_untie(struct ft_model *m)
{
    const struct ft_decoder *d = &m->decoder;
    const struct ft_weight *embed = m->weights;
    if (!d->tied)
        return FT_OK;
    while (embed->slot != &m->embed)
        embed++;
    struct ft_weight head = *embed;
    head.path = ft_arena_format(&m->arena, "%s.weight", d->names.head);
    head.kind = FT_W_HEAD;
    head.slot = &m->head;
    if (!head.path)
        return FT_ERESOURCE;
    FT_TRY(ft_grow(&m->weights, (size_t)m->n_weights + 1, sizeof *m->weights));
    m->weights[m->n_weights++] = head;
    m->room_weights = m->n_weights;
    m->decoder.tied = false;
    return FT_OK;
}

struct ft_tensor *ft_model_weight_value(const struct ft_model *m, int i)
{
    return *m->weights[i].slot;
}

int ft_model_files(const struct ft_model *m)
{
    return m->n_files;
}

const char *ft_model_file(const struct ft_model *m, int i)
{
    return ft_st_path(m->files[i]);
}

/* One matrix for a group's weights, and one vector for its biases if any module has one. */
static void declare_group(struct ft_model *m, struct ft_graph *g, int first, int n, int64_t rank)
{
    struct ft_module *p = &m->modules[first];
    struct ft_stack *s = &m->stacks[first];
    bool biased = false;
    *s = (struct ft_stack){.in = p[0].in, .rank = rank};
    for (int i = 0; i < n; i++) {
        FT_ASSERT(p[i].in == s->in && p[i].group == first);
        s->out += p[i].out;
        biased |= p[i].bias != NULL;
    }
    s->w = ft_graph_value(g, FT_M_WEIGHTS, p[0].name, FT_BF16, s->out + rank, s->in + rank);
    s->w->ld = (s->in + rank + 7) / 8 * 8;
    if (biased)
        s->bias = ft_graph_value(g, FT_M_WEIGHTS, p[0].name, FT_BF16, 1, s->out);
    int64_t row = 0;
    for (int i = 0; i < n; i++) {
        p[i].w = ft_graph_part(g, s->w, p[i].name, p[i].out, p[i].in, row * s->w->ld, s->w->ld);
        if (p[i].bias)
            p[i].bias = ft_graph_view(g, s->bias, p[i].name, 1, p[i].out, row);
        row += p[i].out;
    }
}

static int group_size(const struct ft_model *m, int first)
{
    int n = 1;
    while (first + n < m->n_modules && m->modules[first + n].group == first)
        n++;
    return n;
}

bool ft_model_is_apart(const struct ft_model *m, int first)
{
    const int n = group_size(m, first);
    if (m->modules[first].experts > 1)
        return true;
    for (int i = 0; i < m->n_weights; i++)
        for (int k = first; k < first + n && m->weights[i].way; k++)
            if (m->weights[i].slot == &m->modules[k].w)
                return true;
    return false;
}

int ft_model_declare(struct ft_model *m, struct ft_graph *g, ft_model_rank_fn *rank, void *ctx,
                     ft_model_place_fn *place, void *place_ctx)
{
    static struct ft_tensor wanted; /* a place that stands for "to be declared" */
    const bool stacked = ft_graph_backend(g)->act == FT_BF16;
    for (int i = 0; i < m->n_weights; i++) {
        *m->weights[i].slot = &wanted;
        if (stacked && m->weights[i].kind != FT_W_LINEAR && m->weights[i].kind != FT_W_EXPERTS)
            m->weights[i].way = NULL; /* a device widens those of modules only */
    }
    for (int i = 0, n; stacked && i < m->n_modules; i += n) {
        n = group_size(m, i);
        m->stacks[i].w = NULL;
        if (!ft_model_is_apart(m, i))
            declare_group(m, g, i, n, rank ? rank(ctx, i, n) : 0);
    }
    for (int i = 0; i < m->n_weights; i++) {
        struct ft_weight *w = &m->weights[i];
        struct ft_tensor *own = place && *w->slot == &wanted ? place(place_ctx, g, i) : NULL;
        w->elsewhere = own != NULL;
        if (own)
            *w->slot = own;
        if (*w->slot == &wanted) {
            const bool exact = w->kind == FT_W_SCORE && w->dtype == FT_F32; /* on devices too */
            *w->slot = ft_graph_value(g, FT_M_WEIGHTS, w->name,
                                      w->way              ? w->as
                                      : stacked && !exact ? FT_BF16
                                                          : w->dtype,
                                      w->cols ? w->rows : 1, w->cols ? w->cols : w->rows);
            (*w->slot)->block = w->way ? w->block : 0;
            (*w->slot)->parts = w->way ? w->parts : 0;
        }
    }
    return FT_OK;
}

const struct ft_stack *ft_model_stack(const struct ft_model *m, int first)
{
    return m->stacks[first].w ? &m->stacks[first] : NULL;
}

struct ft_tensor *ft_model_head(const struct ft_model *m)
{
    return m->decoder.tied ? m->embed : m->head;
}
