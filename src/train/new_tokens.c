/* Tokens that the config adds to the tokenizer: their ids, the rows that the model gets for them,
 * and whether those rows are trained. */
#include "train/internal.h"
#include "train/serving.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "io/safetensors.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <string.h>

static struct ft_where asked_at(const struct ft_job *j)
{
    const char *const keys[] = {"tokens", "special_tokens", "eot_tokens"};
    for (int i = 0; i < 2; i++)
        if (ft_config_is_set(j->config, keys[i]))
            return ft_config_where(j->config, keys[i]);
    return ft_config_where(j->config, keys[2]);
}

/* Those of the list that the tokenizer did not have. */
static int note_new(struct ft_job *j, const struct ft_tokenizer *t, const struct ft_new_token *list,
                    int n)
{
    struct ft_served *v = &j->served;
    FT_TRY(ft_alloc(&v->added, (size_t)n + 1, sizeof *v->added));
    for (int i = 0; i < n; i++) {
        const int32_t id = ft_tokenizer_id(t, list[i].content);
        bool known = id < ft_tokenizer_own_size(t);
        for (int k = 0; k < v->n_added; k++)
            known = known || v->added[k].id == id;
        if (known)
            continue;
        char *content = ft_strdup(list[i].content);
        if (!content)
            return FT_ERESOURCE;
        v->added[v->n_added++] = (struct ft_added_token){content, id, list[i].special};
    }
    return FT_OK;
}

static int read_tokens(struct ft_job *j, const struct ft_new_token *list, int n)
{
    struct ft_tokenizer *t = NULL;
    char *path = ft_path_join(j->model_path, "tokenizer.json");
    int rc = path ? FT_OK : FT_ERESOURCE;
    if (!rc && !ft_file_exists(path))
        rc = j->config->tokens ? ft_fail_at((struct ft_where){.file = j->model_path}, FT_EDATA,
                                            "has no tokenizer.json that tokens can be added to")
                               : FT_OK;
    else if (!rc)
        rc = ft_tokenizer_open_folder(&t, j->model_path, list);
    ft_free(path);
    if (!rc && t)
        rc = note_new(j, t, list, n);
    if (!rc && t) {
        int64_t rows = ft_tokenizer_size(t);
        if (j->config->resize_token_embeddings_to_32x)
            rows = (rows + 31) / 32 * 32;
        const int64_t vocab = ft_model_decoder(j->model)->vocab;
        j->new_rows = rows > vocab ? rows - vocab : 0;
        ft_model_enlarge(j->model, vocab + j->new_rows);
    }
    ft_tokenizer_close(t);
    return rc;
}

/* The largest id of a list, or of a map's lists. */
static int64_t largest_id(const json_t *indices)
{
    int64_t most = -1;
    const char *module;
    json_t *v;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)indices, i, v)
    {
        most = json_integer_value(v) > most ? json_integer_value(v) : most;
    }
    json_object_foreach((json_t *)(uintptr_t)indices, module, v)
    {
        const int64_t id = largest_id(v);
        most = id > most ? id : most;
    }
    return most;
}

/* The rows of an embedding or a head that was saved whole. */
static int64_t saved_rows(const struct ft_st *f, const struct ft_names *names)
{
    const char *const modules[] = {names->embed, names->head};
    int64_t most = 0;
    for (int i = 0; i < ft_st_count(f); i++) {
        const struct ft_st_entry *e = ft_st_at(f, i);
        const char *end = strrchr(e->name, '.');
        for (int k = 0; k < 2; k++) {
            const size_t n = strlen(modules[k]);
            if (e->n_dims == 2 && end && strcmp(end, ".weight") == 0 &&
                (size_t)(end - e->name) > n && strncmp(end - n, modules[k], n) == 0)
                most = e->dims[0] > most ? e->dims[0] : most;
        }
    }
    return most;
}

int ft_new_tokens_rows(const char *adapter, const struct ft_model *m, int64_t *rows)
{
    char *config = ft_path_join(adapter, "adapter_config.json"),
         *weights = ft_path_join(adapter, "adapter_model.safetensors");
    json_t *root = NULL;
    struct ft_st *f = NULL;
    int rc = config && weights ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(config))
        rc = ft_json_file(config, FT_EDATA, &root);
    if (!rc && ft_file_exists(weights))
        rc = ft_st_open(&f, weights);
    const int64_t trained = largest_id(json_object_get(root, "trainable_token_indices")) + 1,
                  saved = f ? saved_rows(f, &ft_model_decoder(m)->names) : 0,
                  vocab = ft_model_decoder(m)->vocab;
    *rows = trained > saved ? trained : saved;
    *rows = *rows > vocab ? *rows : vocab;
    ft_st_close(f);
    json_decref(root);
    ft_free(config);
    ft_free(weights);
    return rc;
}

/* Of what answers: the adapter's, or as many as are asked for. */
static int enlarge_served(struct ft_job *j)
{
    const struct ft_config *c = j->config;
    const int64_t vocab = ft_model_decoder(j->model)->vocab;
    int64_t rows = vocab;
    if (c->lora_model_dir) {
        char *adapter = ft_config_path(c, c->lora_model_dir);
        int rc = adapter ? ft_new_tokens_rows(adapter, j->model, &rows) : FT_ERESOURCE;
        ft_free(adapter);
        FT_TRY(rc);
    }
    rows = j->serving->vocab > rows ? j->serving->vocab : rows;
    j->new_rows = rows - vocab;
    ft_model_enlarge(j->model, rows);
    return FT_OK;
}

int ft_new_tokens_open(struct ft_job *j)
{
    struct ft_new_token *list;
    int n = 0;
    if (j->serving)
        return enlarge_served(j);
    FT_TRY(ft_texts_new_tokens(j->config, &list));
    while (list[n].content)
        n++;
    int rc = n || j->config->resize_token_embeddings_to_32x ? read_tokens(j, list, n) : FT_OK;
    ft_free(list);
    return rc;
}

/* Whether the rows of all new tokens are trained: in the embedding, or in the head. */
static bool is_trained(const struct ft_job *j, bool head)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    const struct ft_token_rows *t =
        &j->token_rows[head && !j->head_follows ? FT_HEAD_ROWS : FT_EMBEDDING_ROWS];
    char path[256];
    snprintf(path, sizeof path, "%s%s.weight", head ? "" : d->names.prefix,
             head ? d->names.head : d->names.embed);
    if (j->whole_of[ft_model_weight_find(j->model, path)] >= 0)
        return true;
    for (int64_t r = d->vocab - j->new_rows; r < d->vocab; r++)
        if (!t->place || t->place[r] < 0)
            return false;
    for (int i = 0; i < j->served.n_added; i++)
        if (!t->place || t->place[j->served.added[i].id] < 0)
            return false;
    return true;
}

/* How the new rows would be trained. */
static void hint_of_rows(const struct ft_job *j)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    char ids[160] = "";
    size_t at = 0;
    for (int64_t r = d->vocab - j->new_rows; r < d->vocab && at < sizeof ids - 32; r++)
        at += (size_t)snprintf(ids + at, sizeof ids - at, "%s%lld", at ? ", " : "", (long long)r);
    if (at >= sizeof ids - 32)
        snprintf(ids + at, sizeof ids - at, ", ...");
    if (ft_job_trains_model(j))
        ft_hint("'unfrozen_parameters' must name '%s' and '%s' too", d->names.embed, d->names.head);
    else if (d->tied)
        ft_hint("'lora_modules_to_save: [%s, %s]' trains all rows, 'peft_trainable_token_indices: "
                "[%s]' the new ones",
                d->names.embed, d->names.head, ids);
    else
        ft_hint("'lora_modules_to_save: [%s, %s]' trains all rows, 'peft_trainable_token_indices: "
                "{%s: [%s], %s: [%s]}' the new ones",
                d->names.embed, d->names.head, d->names.embed, ids, d->names.head, ids);
}

int ft_new_tokens_check(const struct ft_job *j)
{
    const struct ft_served *v = &j->served;
    const struct ft_decoder *d = ft_model_decoder(j->model);
    if (j->serving || (!v->n_added && !j->new_rows))
        return FT_OK;
    const char *first = v->n_added ? v->added[0].content : "(filling up)";
    const int32_t id = v->n_added ? v->added[0].id : (int32_t)(d->vocab - j->new_rows);
    if (is_trained(j, false) && is_trained(j, true))
        return FT_OK;
    if (!j->new_rows) {
        ft_notice(asked_at(j),
                  "the new token '%s' takes id %d, a spare row of the model that is not trained: "
                  "'peft_trainable_token_indices: [%d]' trains it",
                  first, id, id);
        return FT_OK;
    }
    ft_fail_at(asked_at(j), FT_ECONFIG,
               "the new token '%s' (id %d) adds a row to the embedding%s, which is not trained",
               first, id, d->tied ? "" : " and the head");
    hint_of_rows(j);
    return FT_ECONFIG;
}
