/* Merging: the model's files are written again, weight after weight. */
#include "train/merge.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/sha256.h"
#include "train/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct ft_where in(const char *path)
{
    return (struct ft_where){.file = path};
}

/* --- whether they belong together --- */

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* *known: run.json has the hashes of the weights; FT_EDATA if one is another. */
static int check_hashes(const struct ft_job *j, const char *adapter, bool *known)
{
    char *path = ft_path_join(adapter, "run.json"), hex[65];
    const char *name;
    json_t *run = NULL, *value;
    int rc = path ? FT_OK : FT_ERESOURCE;
    *known = false;
    if (!rc && ft_file_exists(path))
        rc = ft_json_file(path, FT_EDATA, &run);
    json_t *weights = json_object_get(json_object_get(run, "sha256"), "weights");
    json_object_foreach(weights, name, value)
    {
        char *own = ft_path_join(j->model_path, base_of(name));
        *known = true;
        if (!rc && own && ft_file_exists(own) && ft_sha256_file(own, hex, NULL) &&
            strcmp(hex, json_string_value(value) ? json_string_value(value) : "") != 0)
            rc = ft_fail_at(in(own), FT_EDATA,
                            "is another file than the one that the adapter was trained on");
        else if (!rc && !(own && ft_file_exists(own)))
            rc = ft_fail_at(in(j->model_path), FT_EDATA,
                            "has no '%s', which the adapter was trained on", base_of(name));
        ft_free(own);
    }
    json_decref(run);
    ft_free(path);
    return rc;
}

static int check_base(const struct ft_job *j, const char *adapter)
{
    const char *said = ft_adapter_base(j->adapter);
    bool known;
    int rc = check_hashes(j, adapter, &known);
    if (!rc && !known && said && *said && strcmp(base_of(said), base_of(j->base_name)) != 0)
        rc = ft_fail_at(in(adapter), FT_EDATA, "was trained on '%s', and the model is '%s'", said,
                        j->base_name);
    if (rc == FT_EDATA)
        ft_hint("'-m MODEL' names the model that it was trained on; '--force' merges all the same");
    return rc;
}

static int check_adds(const struct ft_job *j, const char *adapter)
{
    if (ft_adapter_adds(j->adapter))
        return FT_OK;
    return ft_fail_at(in(adapter), FT_EDATA,
                      "is a %s adapter, which is not added to the weights: it can be merged whole "
                      "and alone only",
                      ft_adapter_title(j->adapter));
}

/* What a merged weight could not say. */
static int check_kind(const struct ft_merge *m, const struct ft_job *j, const char *adapter)
{
    const struct ft_decoder *d = ft_model_decoder(j->model);
    if (!m->whole && (ft_model_is_quantised(j->model) || ft_model_is_gguf(j->model))) {
        ft_fail_at(in(j->base_name), FT_EDATA,
                   "the weights are quantised, or GGUF's: nothing is merged into such files");
        ft_hint("'-m MODEL' names the original, with weights of 16 or 32 bits; '--dtype bf16' ('ft "
                "export': '--type f16') writes what these stand for, with the adapter, in 16 bits");
        return FT_EDATA;
    }
    if (d->tied && (ft_adapter_has(j->adapter, FT_SITE_EMBEDDING) ||
                    ft_adapter_has(j->adapter, FT_SITE_HEAD) || j->token_rows[FT_HEAD_ROWS].n))
        return ft_fail_at(in(adapter), FT_EDATA,
                          "changes the embedding or the head, which are one weight in this model: "
                          "merged, both would change");
    if (j->untied)
        return ft_fail_at(in(adapter), FT_EDATA,
                          "has an embedding or a head of its own, and the model has one weight for "
                          "both");
    if (m->n > 0 || m->share[m->n] != 1)
        FT_TRY(check_adds(j, adapter));
    if (m->n == 1)
        FT_TRY(check_adds(&m->jobs[0], m->jobs[0].config->lora_model_dir));
    return FT_OK;
}

int ft_merge_add(struct ft_merge *m, const struct ft_config *c, double share, bool force)
{
    struct ft_job *j = &m->jobs[m->n];
    char *adapter = ft_config_path(c, c->lora_model_dir);
    m->share[m->n] = share;
    int rc = adapter ? ft_job_open_model(j, c, &m->none) : FT_ERESOURCE;
    if (!rc)
        rc = check_kind(m, j, adapter);
    if (!rc && !force)
        rc = check_base(j, adapter);
    const size_t n = rc ? 0 : (size_t)ft_adapter_parameters(j->adapter);
    float *values = NULL;
    if (!rc)
        rc = ft_alloc(&values, n + 1, sizeof *values);
    m->values[m->n++] = values;
    if (!rc)
        rc = ft_adapter_read(j->adapter, values);
    if (!rc)
        rc = ft_adapter_check_finite(j->adapter, values);
    ft_free(adapter);
    return rc;
}

/* --- the weights --- */

/* One adapter's part in the weight that is at work. */
struct part {
    const struct ft_job *j;
    const float *values;
    float *to;
    int64_t cols;
    int site;
    float share;
};

static void merge_row(void *arg, int64_t row, void *scratch)
{
    const struct part *p = arg;
    (void)scratch;
    ft_adapter_merge(p->j->adapter, p->values, p->site, p->share, row, p->to + row * p->cols);
}

/* The site of a module's weight or bias, of the embedding or the head; -1: none. */
static int site_of(const struct ft_job *j, const struct ft_model_weight *w)
{
    const struct ft_module *modules;
    const int n = ft_model_modules(j->model, &modules);
    const size_t length = w->kind == FT_W_EXPERTS /* its path is the module's */
                              ? strlen(w->path)
                              : strlen(w->path) - strlen(base_of(w->path)) +
                                    (size_t)(strrchr(base_of(w->path), '.') - base_of(w->path));
    if (w->kind == FT_W_EMBED || w->kind == FT_W_HEAD)
        return w->kind == FT_W_EMBED ? n : n + 1;
    for (int i = 0; i < n; i++)
        if (strlen(modules[i].name) == length && strncmp(modules[i].name, w->path, length) == 0)
            return i;
    return -1;
}

/* A share of the way from what is there to values of one's own. */
static void go_to(float *to, const float *own, int64_t n, float share)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = share == 1 ? own[i] : to[i] + share * (own[i] - to[i]);
}

/* Rows of tokens that were trained by themselves. */
static void put_tokens(const struct ft_job *j, const float *values, const struct ft_model_weight *w,
                       float share, float *to)
{
    const int kind = w->kind == FT_W_EMBED ? FT_EMBEDDING_ROWS : FT_HEAD_ROWS;
    const struct ft_token_rows *t = &j->token_rows[kind];
    if (w->kind != FT_W_EMBED && w->kind != FT_W_HEAD)
        return;
    for (int64_t i = 0; i < t->n; i++)
        go_to(to + t->ids[i] * w->cols,
              values + ft_adapter_whole_at(j->adapter, t->whole) + i * w->cols, w->cols, share);
}

static bool touches(const struct ft_job *j, int weight)
{
    const struct ft_model_weight w = ft_model_weight(j->model, weight);
    const int site = site_of(j, &w);
    return j->whole_of[weight] >= 0 || (site >= 0 && ft_adapter_changes(j->adapter, site)) ||
           (w.kind == FT_W_EMBED && j->token_rows[FT_EMBEDDING_ROWS].n) ||
           (w.kind == FT_W_HEAD && j->token_rows[FT_HEAD_ROWS].n);
}

static void merge_part(const struct ft_merge *m, int i, int weight, float *to)
{
    const struct ft_job *j = &m->jobs[i];
    const struct ft_model_weight w = ft_model_weight(j->model, weight);
    const float share = (float)m->share[i];
    const int64_t cols = w.cols ? w.cols : 1;
    struct part p = {j, m->values[i], to, w.cols, site_of(j, &w), share};
    if (j->whole_of[weight] >= 0)
        go_to(to, m->values[i] + ft_adapter_whole_at(j->adapter, j->whole_of[weight]),
              w.rows * cols, share);
    put_tokens(j, m->values[i], &w, share, to);
    if (p.site < 0 || !ft_adapter_changes(j->adapter, p.site))
        return;
    if (w.kind == FT_W_BIAS)
        for (int64_t k = 0; k < w.rows; k++)
            to[k] *= ft_adapter_merge_bias(j->adapter, m->values[i], p.site, k);
    else
        ft_pool_run(m->jobs[0].pool, w.rows, merge_row, &p);
}

static bool is_finite(const float *values, int64_t n)
{
    bool finite = true;
    for (int64_t i = 0; i < n; i++)
        finite &= values[i] - values[i] == 0;
    return finite;
}

static void drop_values(struct ft_merge *m, int place)
{
    ft_free(m->merged[place]);
    m->merged[place] = NULL;
}

static int merge_weight(struct ft_merge *m, int weight, int place)
{
    const struct ft_model *model = m->jobs[0].model;
    const struct ft_model_weight w = ft_model_weight(model, weight);
    const int64_t n = w.rows * (w.cols ? w.cols : 1);
    drop_values(m, place);
    FT_TRY(ft_alloc(&m->merged[place], (size_t)n, sizeof *m->merged[place]));
    FT_TRY(ft_model_weight_read(model, weight, true, m->merged[place]));
    for (int i = 0; i < m->n; i++)
        if (touches(&m->jobs[i], weight))
            merge_part(m, i, weight, m->merged[place]);
    if (!is_finite(m->merged[place], n))
        return ft_fail(FT_EDATA, "'%s' would have values that are not finite", w.path);
    m->weight[place] = weight;
    return FT_OK;
}

int ft_merge_values(struct ft_merge *m, int weight, const float **out)
{
    const bool experts = ft_model_weight(m->jobs[0].model, weight).kind == FT_W_EXPERTS;
    int place = 0;
    while (place < 2 && !(m->merged[place] && m->weight[place] == weight))
        place++;
    if (place == 2) {
        place = experts ? !m->last : 0;
        if (!experts)
            drop_values(m, 1);
        FT_TRY(merge_weight(m, weight, place));
    }
    m->last = place;
    *out = m->merged[place];
    return FT_OK;
}

/* NULL: as it was; or it failed, which m->rc says. */
static const float *merged_values(void *ctx, int weight)
{
    struct ft_merge *m = ctx;
    const float *values = NULL;
    bool any = false;
    for (int i = 0; i < m->n; i++)
        any = any || touches(&m->jobs[i], weight);
    if (!any || m->rc)
        return NULL;
    m->rc = ft_merge_values(m, weight, &values);
    return m->rc ? NULL : values;
}

/* --- the folder --- */

int ft_merge_file(const struct ft_merge *m, const char *name, char **out)
{
    char *own = ft_path_join(m->jobs[0].config->lora_model_dir, name),
         *base = ft_path_join(m->jobs[0].model_path, name);
    *out = NULL;
    if (!own || !base) {
        ft_free(own);
        ft_free(base);
        return FT_ERESOURCE;
    }
    *out = ft_file_exists(own) ? own : ft_file_exists(base) ? base : NULL;
    if (*out != own)
        ft_free(own);
    if (*out != base)
        ft_free(base);
    return FT_OK;
}

/* The folder that a file is in. */
static int make_parent(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return FT_OK;
    *slash = 0;
    const int rc = ft_make_folders(path);
    *slash = '/';
    return rc;
}

static int copy_beside(const struct ft_merge *m, const char *folder, const char *name)
{
    char *from;
    FT_TRY(ft_merge_file(m, name, &from));
    if (!from)
        return FT_OK;
    char *to = ft_path_join(folder, name);
    int rc = to ? make_parent(to) : FT_ERESOURCE;
    if (!rc)
        rc = ft_file_copy(from, to);
    ft_free(from);
    ft_free(to);
    return rc;
}

static int write_card(const struct ft_merge *m, const char *folder)
{
    const char *base = m->jobs[0].base_name;
    struct ft_licence licence;
    FT_TRY(ft_licence_read(&licence, m->jobs[0].model_path));
    char *path = ft_path_join(folder, "README.md"), *head = ft_licence_head(&licence),
         *section = ft_licence_section(&licence, base);
    char *text =
        head && section
            ? ft_format("---\nbase_model: %s\nbase_model_relation: finetune\n%s---\n\n`%s` "
                        "with %s merged into its weights by ft " FT_VERSION ".\n%s",
                        base, head, base, m->n == 1 ? "an adapter" : "adapters", section)
            : NULL;
    int rc = path && text ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    ft_free(head);
    ft_free(section);
    ft_free(path);
    ft_free(text);
    return rc;
}

static int values_of(void *ctx, int weight, const float **out)
{
    return ft_merge_values(ctx, weight, out);
}

static int fill(struct ft_merge *m, const char *folder)
{
    const struct ft_model *model = m->jobs[0].model;
    int rc = m->whole ? ft_model_save_as(model, folder, m->dtype, values_of, m)
                      : ft_model_save(model, folder, merged_values, m);
    rc = m->rc ? m->rc : rc;
    for (const char *const *name = ft_text_files; *name && !rc; name++)
        rc = copy_beside(m, folder, *name);
    return rc ? rc : write_card(m, folder);
}

/* What was written before it failed. */
static void remove_made(const char *made)
{
    for (const char *const *name = ft_text_files; *name; name++) {
        char *path = strchr(*name, '/') ? ft_path_join(made, *name) : NULL;
        if (path) {
            *strrchr(path, '/') = 0;
            ft_remove_folder(path);
        }
        ft_free(path);
    }
    ft_remove_folder(made);
}

/* A folder that is not there yet is made under another name, and has its own once it is whole. */
static int write_anew(struct ft_merge *m, const char *folder)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    char *made = ft_format("%.*s.ft-%ld", (int)n, folder, (long)getpid());
    int rc = made ? ft_make_folders(made) : FT_ERESOURCE;
    if (!rc)
        rc = fill(m, made);
    if (!rc && rename(made, folder))
        rc = ft_fail_at(in(folder), FT_ERESOURCE, "cannot be made: %s", strerror(errno));
    if (rc && made)
        remove_made(made);
    ft_free(made);
    return rc;
}

int ft_merge_write(struct ft_merge *m, const char *folder, bool force)
{
    struct stat st;
    const bool there = stat(folder, &st) == 0;
    if (there && ft_same_file(folder, m->jobs[0].model_path))
        return ft_fail_at(in(folder), FT_ECONFIG, "is the model itself");
    if (there && !force) {
        ft_fail_at(in(folder), FT_ECONFIG, "is there already");
        ft_hint("'--force' writes into it");
        return FT_ECONFIG;
    }
    return there ? fill(m, folder) : write_anew(m, folder);
}

void ft_merge_close(struct ft_merge *m)
{
    for (int i = 0; i < m->n; i++) {
        ft_job_close(&m->jobs[i]);
        ft_free(m->values[i]);
    }
    drop_values(m, 0);
    drop_values(m, 1);
    *m = (struct ft_merge){0};
}
