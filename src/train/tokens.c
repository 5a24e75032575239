/* Rows of the embedding, or of the head, that are trained beside an adapter: they stand in the
 * place of the frozen rows. A head that is the embedding follows. PEFT's trainable tokens. */
#include "train/internal.h"

#include "core/mem.h"

#include <stdio.h>
#include <string.h>

static struct ft_where asked_at(const struct ft_job *j)
{
    return ft_config_where(j->config, j->config->lora_model_dir ? "lora_model_dir"
                                                                : "peft_trainable_token_indices");
}

/* What the config asks for, as PEFT's adapter_config.json would say it; NULL: nothing. */
static json_t *asked(const struct ft_config *c)
{
    const struct ft_rows_config *r = c->peft_trainable_token_indices;
    json_t *all = r && r->module ? json_object() : NULL;
    for (; r && r->rows; r++) {
        json_t *list = json_array();
        for (const int64_t *row = r->rows; *row >= 0; row++)
            json_array_append_new(list, json_integer(*row));
        if (!r->module)
            return list;
        json_object_set_new(all, r->module, list);
    }
    return all;
}

static int check_rows(const struct ft_job *j, struct ft_token_rows *t)
{
    const int64_t vocab = ft_model_decoder(j->model)->vocab;
    FT_TRY(ft_alloc(&t->place, (size_t)vocab, sizeof *t->place));
    for (int64_t i = 0; i < vocab; i++)
        t->place[i] = -1;
    for (int64_t i = 0; i < t->n; i++) {
        if (t->ids[i] < 0 || t->ids[i] >= vocab)
            return ft_fail_at(asked_at(j), FT_ECONFIG,
                              "the trained token %lld is not below the model's vocabulary of %lld",
                              (long long)t->ids[i], (long long)vocab);
        if (t->place[t->ids[i]] >= 0)
            return ft_fail_at(asked_at(j), FT_ECONFIG, "the trained token %lld is named twice",
                              (long long)t->ids[i]);
        t->place[t->ids[i]] = (int32_t)i;
    }
    return FT_OK;
}

/* The rows of a list. */
static int take(const struct ft_job *j, struct ft_token_rows *t, const json_t *list)
{
    t->n = (int64_t)json_array_size(list);
    if (!t->n)
        return ft_fail_at(asked_at(j), FT_ECONFIG, "the list of trained tokens is empty");
    FT_TRY(ft_alloc(&t->ids, (size_t)t->n, sizeof *t->ids));
    for (int64_t i = 0; i < t->n; i++)
        t->ids[i] = json_integer_value(json_array_get(list, (size_t)i));
    return check_rows(j, t);
}

/* Whether a name in the map means a module: the end of its path. */
static bool means(const char *name, const char *prefix, const char *module)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s", prefix, module);
    const size_t n = strlen(path), m = strlen(name);
    return m <= n && strcmp(path + n - m, name) == 0 && (m == n || path[n - m - 1] == '.');
}

static int take_map(struct ft_job *j, const json_t *map)
{
    const struct ft_names *names = &ft_model_decoder(j->model)->names;
    const char *key;
    json_t *list;
    json_object_foreach((json_t *)(uintptr_t)map, key, list)
    {
        if (means(key, names->prefix, names->embed))
            FT_TRY(take(j, &j->token_rows[FT_EMBEDDING_ROWS], list));
        else if (means(key, "", names->head))
            FT_TRY(take(j, &j->token_rows[FT_HEAD_ROWS], list));
        else
            return ft_fail_at(asked_at(j), FT_ECONFIG,
                              "'%s' is neither the embedding nor the head of this model ('%s%s', "
                              "'%s')",
                              key, names->prefix, names->embed, names->head);
    }
    return FT_OK;
}

/* A head that is the embedding has its rows, unless it was given others. */
static void settle_tie(struct ft_job *j)
{
    struct ft_token_rows *embed = &j->token_rows[FT_EMBEDDING_ROWS],
                         *head = &j->token_rows[FT_HEAD_ROWS];
    const bool same = head->n == embed->n && head->n &&
                      memcmp(head->ids, embed->ids, (size_t)head->n * sizeof *head->ids) == 0;
    j->head_follows = ft_model_decoder(j->model)->tied && embed->n && (!head->n || same);
    if (j->head_follows && same) {
        ft_free(head->ids);
        ft_free(head->place);
        *head = (struct ft_token_rows){0};
    }
}

int ft_token_rows_choose(struct ft_job *j)
{
    const json_t *own = ft_json_get(j->continued, "trainable_token_indices");
    json_t *want = asked(j->config);
    if (j->continued && want && (!own || !json_equal(own, want))) {
        json_decref(want);
        return ft_contradiction(j, "peft_trainable_token_indices");
    }
    if (j->continued && own)
        want = json_deep_copy(own);
    j->token_indices = want;
    if (!want)
        return FT_OK;
    FT_TRY(json_is_array(want) ? take(j, &j->token_rows[FT_EMBEDDING_ROWS], want)
                               : take_map(j, want));
    settle_tie(j);
    return FT_OK;
}

void ft_token_rows_free(struct ft_job *j)
{
    for (int k = 0; k < FT_ROWS_OF; k++) {
        ft_free(j->token_rows[k].ids);
        ft_free(j->token_rows[k].place);
    }
    json_decref(j->token_indices);
}

static const char *path_of(const struct ft_job *j, int k, const char *end, char *room, size_t n)
{
    const struct ft_names *names = &ft_model_decoder(j->model)->names;
    snprintf(room, n, "%s%s%s", k == FT_HEAD_ROWS ? "" : names->prefix,
             k == FT_HEAD_ROWS ? names->head : names->embed, end);
    return room;
}

void ft_token_rows_list(struct ft_job *j)
{
    for (int k = 0; k < FT_ROWS_OF; k++) {
        struct ft_token_rows *t = &j->token_rows[k];
        if (!t->n)
            continue;
        path_of(j, k, ".token_adapter.trainable_tokens_delta", t->name, sizeof t->name);
        t->whole = j->n_wholes;
        j->wholes[j->n_wholes++] = (struct ft_whole){.name = t->name,
                                                     .rows = t->n,
                                                     .cols = ft_model_decoder(j->model)->hidden,
                                                     .n_dims = 2,
                                                     .decays = true};
    }
}

int ft_token_rows_check(const struct ft_job *j)
{
    const struct {
        bool rows;
        enum ft_site_kind kind;
        const char *what;
    } both[] = {{j->token_rows[FT_EMBEDDING_ROWS].n > 0, FT_SITE_EMBEDDING, "embedding"},
                {j->token_rows[FT_HEAD_ROWS].n > 0 || j->head_follows, FT_SITE_HEAD, "head"}};
    for (int k = 0; k < 2; k++)
        if (both[k].rows && ft_adapter_has(j->adapter, both[k].kind))
            return ft_fail_at(asked_at(j), FT_ECONFIG,
                              "the %s has an adapter and trained tokens: choose one of "
                              "'lora_target_modules' and 'peft_trainable_token_indices' for it",
                              both[k].what);
    for (int i = 0; i < ft_model_weights(j->model); i++) {
        const enum ft_weight_kind kind = ft_model_weight(j->model, i).kind;
        if (j->whole_of[i] >= 0 &&
            ((kind == FT_W_EMBED && both[0].rows) || (kind == FT_W_HEAD && both[1].rows)))
            return ft_fail_at(asked_at(j), FT_ECONFIG,
                              "'%s' is trained whole and has trained tokens: choose one of the two",
                              ft_model_weight(j->model, i).path);
    }
    return FT_OK;
}

/* Row after row of the frozen weight, as f32. */
int ft_token_rows_read(const struct ft_job *j, const struct ft_token_rows *t, float *out)
{
    char path[256];
    const int i = ft_model_weight_find(
        j->model, path_of(j, t == &j->token_rows[FT_HEAD_ROWS], ".weight", path, sizeof path));
    const int64_t cols = ft_model_decoder(j->model)->hidden;
    for (int64_t r = 0; r < t->n; r++)
        FT_TRY(ft_model_weight_rows(j->model, i, t->ids[r], 1, j->config->allow_nonfinite_weights,
                                    out + r * cols));
    return FT_OK;
}

/* The rows that the head takes, its own or the embedding's; NULL: none. */
static struct ft_token_rows *of_head(struct ft_job *j)
{
    return j->head_follows                     ? &j->token_rows[FT_EMBEDDING_ROWS]
           : j->token_rows[FT_HEAD_ROWS].n > 0 ? &j->token_rows[FT_HEAD_ROWS]
                                               : NULL;
}

void ft_token_rows_declare(struct ft_job *j)
{
    struct ft_graph *g = j->graph;
    const enum ft_dtype act = ft_graph_backend(g)->act;
    const struct ft_decoder *d = ft_model_decoder(j->model);
    struct ft_token_rows *head = of_head(j);
    for (int k = 0; k < FT_ROWS_OF; k++) {
        struct ft_token_rows *t = &j->token_rows[k];
        struct ft_tensor *grad;
        if (!t->n)
            continue;
        ft_adapter_whole(j->adapter, t->whole, g, &t->rows, &grad);
        if (!t->rows) {
            t->rows = ft_graph_value(g, FT_M_ADAPTER, t->name, act, t->n, d->hidden);
            ft_adapter_copy(j->adapter, t->whole, t->rows);
        }
        ft_graph_train(g, t->rows, 0, 0, grad, 1);
    }
    if (j->token_rows[FT_EMBEDDING_ROWS].n)
        j->batch.tokens = ft_graph_input(g, "batch.tokens", FT_I32, j->capacity, 1, FT_ROWS);
    if (!head)
        return;
    head->frozen = ft_graph_value(g, FT_M_ADAPTER, "token rows", act, head->n, d->hidden);
    head->places = ft_graph_value(g, FT_M_ADAPTER, "token places", FT_BF16, d->vocab, head->n);
}

/* The frozen rows, and a one in each of their columns. */
int ft_token_rows_write(struct ft_job *j)
{
    struct ft_token_rows *t = of_head(j);
    const int64_t vocab = ft_model_decoder(j->model)->vocab;
    uint16_t *places;
    float *rows = NULL;
    if (!t)
        return FT_OK;
    const size_t n = (size_t)(t->n * ft_model_decoder(j->model)->hidden);
    FT_TRY(ft_alloc(&places, (size_t)(vocab * t->n), sizeof *places));
    for (int64_t i = 0; i < t->n; i++)
        places[t->ids[i] * t->n + i] = ft_f32_to_bf16(1);
    int rc = ft_graph_write(j->graph, t->places, places);
    if (!rc)
        rc = ft_alloc(&rows, n, sizeof *rows);
    if (!rc)
        rc = ft_token_rows_read(j, t, rows);
    for (size_t i = 0; i < n && !rc && t->frozen->dtype != FT_F32; i++)
        ft_element_put(rows, i, t->frozen->dtype, rows[i]); /* never ahead of what is read */
    if (!rc)
        rc = ft_graph_write(j->graph, t->frozen, rows);
    ft_free(places);
    ft_free(rows);
    return rc;
}

void ft_token_rows_fill(const struct ft_job *j, int32_t *ids, int32_t *tokens, int64_t n)
{
    const int32_t *place = j->token_rows[FT_EMBEDDING_ROWS].place;
    for (int64_t i = 0; i < n; i++) {
        tokens[i] = place[ids[i]];
        ids[i] = tokens[i] < 0 ? ids[i] : -1;
    }
}

struct ft_tensor *ft_token_rows_embed(const struct ft_job *j, struct ft_graph *g,
                                      const struct ft_embed_args *base, struct ft_tensor *h)
{
    const struct ft_token_rows *t = &j->token_rows[FT_EMBEDDING_ROWS];
    if (!t->n)
        return h;
    return ft_embed(g, (struct ft_embed_args){.ids = j->batch.tokens,
                                              .w = t->rows,
                                              .add = h,
                                              .scale = base->scale,
                                              .pad = base->pad < 0 ? -1 : t->place[base->pad]});
}

/* logits += (h rows^T - h frozen^T), in their columns. */
void ft_token_rows_head(struct ft_job *j, struct ft_graph *g, struct ft_head_loss_args *head)
{
    const struct ft_token_rows *t = of_head(j);
    if (!t)
        return;
    struct ft_tensor *was = ft_linear(g, head->h, t->frozen, NULL, NULL, -1);
    head->u = ft_graph_name(g, ft_linear(g, head->h, t->rows, NULL, was, 1), "token logits");
    head->b = t->places;
    head->beta = head->scale;
}
