/* ft data */
#include "cli/cli.h"

#include "core/clock.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "data/data.h"
#include "train/job.h"
#include "train/texts.h"
#include "train/base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- progress --- */

static void show_progress(void *ctx, double share, int64_t documents, int64_t tokens)
{
    enum { WIDTH = 24 };
    static double began, last;
    static double before;
    const double now = ft_now();
    (void)ctx;
    if (share < before || !began)
        began = now; /* another file */
    before = share;
    const double spent = now - began;
    if (share >= 1 && last > 0) {
        fprintf(stderr, "\r\033[K");
        last = 0;
    } else if (share < 1 && isatty(2) && spent > 0.5 && now - last > 0.1) {
        const int full = (int)(share * WIDTH);
        fprintf(stderr, "\r\033[Ktokenizing [%.*s%*s] %3.0f %%  %lld documents, %.1f M tokens",
                full, "########################", WIDTH - full, "", 100 * share,
                (long long)documents, (double)tokens * 1e-6);
        if (share > 0.02)
            fprintf(stderr, ", %.0f s left", spent / share - spent);
        fflush(stderr);
        last = now;
    }
}

const struct ft_job_hooks ft_data_hooks = {.progress = show_progress};

/* --- the audit --- */

static void line(const char *name, const char *text)
{
    printf("  %-22s %s\n", name, text);
}

static void count(const char *name, int64_t n)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)n);
    line(name, text);
}

static double percent(int64_t part, int64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_audit(const struct ft_source *s, const struct ft_audit *a)
{
    char text[96];
    printf("%s (%s", s->entry->path, s->type);
    if (s->template_name)
        printf(", %s", s->template_name);
    printf(")\n");
    count("records", a->records);
    count("documents", a->documents);
    count("tokens", a->tokens);
    snprintf(text, sizeof text, "%lld (%.1f %%)", (long long)a->trained,
             percent(a->trained, a->tokens));
    line("trained", text);
    for (int i = 0; i < FT_SPEAKERS; i++) {
        if (!a->tokens_of[i])
            continue;
        snprintf(text, sizeof text, "%lld, %.1f %% of them trained", (long long)a->tokens_of[i],
                 percent(a->trained_of[i], a->tokens_of[i]));
        printf("    %-20s %s\n", ft_speaker_names[i], text);
    }
    count("longest document", a->longest);
    for (int i = 0; i < FT_PROBLEMS; i++)
        if (a->found[i].count)
            printf("  %s: %lld %s; the first: %s\n", ft_problems[i].spoils ? "problem" : "note",
                   (long long)a->found[i].count, ft_problems[i].what, a->found[i].first);
    for (int k = 0; k < FT_SPEAKERS * FT_PARTS; k++) {
        const struct ft_found *f = &a->unrendered[k / FT_PARTS][k % FT_PARTS];
        char name[64];
        if (f->count)
            printf("    unrendered: %s in %lld documents; the first: %s\n",
                   ft_unrendered_name(name, k / FT_PARTS, k % FT_PARTS), (long long)f->count,
                   f->first);
    }
}

static void print_cut(const struct ft_dataset *d, int64_t sequence_len)
{
    if (d->dropped)
        printf("  note: %lld documents are longer than 'sequence_len' (%lld) and dropped\n",
               (long long)d->dropped, (long long)sequence_len);
    if (d->truncated)
        printf("  note: %lld documents are longer than 'sequence_len' (%lld) and cut\n",
               (long long)d->truncated, (long long)sequence_len);
    if (d->cut_off)
        printf("  note: %lld documents have all they train on beyond 'sequence_len': left out\n",
               (long long)d->cut_off);
    if (d->repeated)
        printf("  note: %lld documents have been there before: left out\n", (long long)d->repeated);
}

/* --- documents, shown --- */

struct show {
    struct ft_tokenizer *tokenizer;
    int64_t left;
    bool color;
    int rc;
};

/* Data must not write to the terminal what moves its cursor or worse. */
static void print_plain(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)p[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

/* The text of ids[from, to), as it continues that of ids[0, from): some decoders drop a space at a
 * text's beginning. */
static int print_run(const struct show *w, const struct ft_sample *s, size_t first, size_t from,
                     size_t to)
{
    char *before, *all;
    size_t n, m;
    FT_TRY(ft_tokenizer_decode(w->tokenizer, s->ids.v + first, from - first, false, &before, &n));
    int rc = ft_tokenizer_decode(w->tokenizer, s->ids.v + first, to - first, false, &all, &m);
    if (!rc && m > n) {
        const char *on = w->color ? "\033[32m" : "\u27e6", *off = w->color ? "\033[0m" : "\u27e7";
        printf("%s", s->mask[from] ? on : "");
        print_plain(all + n, m - n);
        printf("%s", s->mask[from] ? off : "");
    }
    ft_free(before);
    if (!rc)
        ft_free(all);
    return rc;
}

static bool show_document(void *ctx, const struct ft_sample *s, size_t from, size_t to,
                          const char *file, int number)
{
    struct show *w = ctx;
    int64_t trained = 0;
    for (size_t i = from; i < to; i++)
        trained += i > from && s->mask[i]; /* the first has no loss */
    printf("--- %s:%d: %zu tokens, %lld trained\n", file, number, to - from, (long long)trained);
    for (size_t i = from, end; i < to && !w->rc; i = end) {
        for (end = i + 1; end < to && s->mask[end] == s->mask[i]; end++)
            ;
        w->rc = print_run(w, s, from, i, end);
    }
    printf("\n");
    return --w->left > 0 && !w->rc;
}

static int show_source(const struct ft_source *s, const struct ft_texts *t, int64_t n)
{
    struct show w = {.tokenizer = t->tokenizer, .left = n, .color = isatty(1) == 1};
    struct ft_audit audit;
    struct ft_prepare p = s->prepare;
    p.progress = NULL;
    FT_TRY(ft_prepare_each(&p, show_document, &w, &audit));
    return w.rc;
}

/* --- the command --- */

struct run {
    const struct ft_config *c;
    bool json;
    bool writes; /* all of `datasets` into one file */
    struct ft_texts texts;
    struct ft_pool *pool;
    struct ft_source *sources; /* text: datasets, then test_datasets */
    struct ft_audit *audits;
    struct ft_seen seen[2];    /* documents, where repeated ones are left out */
    struct ft_dataset kept[2]; /* counts alone: what is left to train on, and to evaluate on */
    int n, n_train, n_done;    /* opened, of them `datasets`, and those with an audit */
};

static int open_sources(struct run *r, const struct ft_dataset_config *list, int n)
{
    for (int i = 0; i < n; i++) {
        if (!ft_source_is_text(&list[i])) {
            if (r->writes)
                return ft_fail_at(list[i].at, FT_ECONFIG,
                                  "'%s' is tokenized already: '-o' writes text datasets",
                                  list[i].path);
            ft_notice(list[i].at, "'%s' is tokenized already", list[i].path);
            continue;
        }
        FT_TRY(ft_source_open(&r->sources[r->n++], &r->texts, r->c, &list[i]));
    }
    return FT_OK;
}

static int open_run(struct run *r, const struct ft_config *c)
{
    char *folder = NULL;
    bool cached;
    const size_t most = (size_t)(c->n_datasets + c->n_test_datasets);
    r->c = c;
    FT_TRY(ft_alloc(&r->sources, most + 1, sizeof *r->sources));
    FT_TRY(ft_alloc(&r->audits, most + 1, sizeof *r->audits));
    FT_TRY(ft_pool_new(&r->pool, c->threads > 0 ? (int)c->threads : ft_cpu_allowance(1)));
    FT_TRY(ft_base_find(&folder, &cached, NULL, c->base_model, c->revision_of_model, c->folder));
    int rc = ft_texts_open(&r->texts, c, folder, r->pool);
    ft_free(folder);
    FT_TRY(rc);
    r->texts.progress = ft_data_hooks.progress;
    FT_TRY(open_sources(r, c->datasets, c->n_datasets));
    r->n_train = r->n;
    if (!r->writes)
        FT_TRY(open_sources(r, c->test_datasets, c->n_test_datasets));
    if (r->n == 0)
        return ft_fail_at(ft_config_where(c, "datasets"), FT_ECONFIG,
                          "there is no text to tokenize: all datasets are tokenized already");
    return FT_OK;
}

static void close_run(struct run *r)
{
    for (int i = 0; i < r->n; i++)
        ft_source_close(&r->sources[i]);
    ft_texts_close(&r->texts);
    ft_pool_free(r->pool);
    ft_seen_fini(&r->seen[0]);
    ft_seen_fini(&r->seen[1]);
    ft_free(r->sources);
    ft_free(r->audits);
}

/* How the documents fit sequence_len. */
static int check_lengths(struct run *r, bool test, const char *path, bool json)
{
    struct ft_dataset d = {0};
    const struct ft_limits limits = {r->c->min_sample_len, r->c->sequence_len,
                                     (enum ft_excess)r->c->excess_length_strategy,
                                     r->c->dataset_exact_deduplication ? &r->seen[test] : NULL};
    int rc = ft_dataset_read(&d, path, ft_tokenizer_size(r->texts.tokenizer), &limits);
    if (!rc && !json)
        print_cut(&d, r->c->sequence_len);
    struct ft_dataset *all = &r->kept[test];
    all->n_docs += d.n_docs;
    all->read += d.read;
    all->empty += d.empty;
    all->untrained += d.untrained;
    all->cut_off += d.cut_off;
    all->dropped += d.dropped;
    all->too_short += d.too_short;
    all->repeated += d.repeated;
    ft_dataset_fini(&d);
    return rc;
}

static int prepare_one(struct run *r, int i, bool json)
{
    char *path;
    FT_TRY(ft_source_prepared(&path, &r->sources[i], &r->texts, &r->audits[i]));
    if (!json)
        print_audit(&r->sources[i], &r->audits[i]);
    int rc = check_lengths(r, i >= r->n_train, path, json);
    if (!rc && !json)
        printf("  prepared in %s\n", path);
    ft_free(path);
    return rc;
}

static int check_audits(const struct run *r, int n)
{
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++) {
        ft_status_place(r->sources[i].entry->at);
        rc = ft_audit_check(&r->audits[i], r->c->allow_data_problems);
    }
    ft_status_place((struct ft_where){0});
    return rc;
}

/* The tokens get their name only if they are fit to train on. */
static int look_at_audits(void *ctx, const struct ft_audit *audits, int n)
{
    const struct run *r = ctx;
    for (int i = 0; i < n && !r->json; i++)
        print_audit(&r->sources[i], &audits[i]);
    return check_audits(r, n);
}

/* The output must not be what is read: a data file, or a file of the model's folder. */
static int check_output(const struct run *r, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? ft_format("%.*s", (int)(slash - path + 1), path) : ft_strdup(".");
    const bool models = folder && ft_same_file(folder, r->texts.folder);
    int rc = !folder  ? FT_ERESOURCE
             : models ? ft_fail(FT_ECONFIG, "'-o %s' lies in the model's folder", path)
                      : FT_OK;
    ft_free(folder);
    for (int i = 0; i < r->n_train && !rc; i++)
        for (char **f = r->sources[i].files; *f && !rc; f++)
            if (ft_same_file(*f, path))
                rc = ft_fail(FT_ECONFIG, "'-o %s' is a data file that is read", path);
    return rc;
}

/* All of `datasets` into one file. */
static int write_file(struct run *r, const char *path, bool json)
{
    FT_TRY(check_output(r, path));
    struct ft_prepare *all;
    char tokenizer[65];
    const char *const meta[][2] = {{"tokenizer_sha256", tokenizer}};
    FT_TRY(ft_alloc(&all, (size_t)r->n_train + 1, sizeof *all));
    for (int i = 0; i < r->n_train; i++)
        all[i] = r->sources[i].prepare;
    int rc = r->n_train ? FT_OK : ft_fail(FT_ECONFIG, "'datasets' has no text to tokenize");
    if (!rc)
        rc = ft_tokenizer_sha256(r->texts.folder, tokenizer);
    ft_writer_sweep(path);
    if (!rc)
        rc = ft_prepare_file(all, r->n_train, path, meta, 1, r->audits, look_at_audits, r);
    ft_free(all);
    FT_TRY(rc);
    FT_TRY(check_lengths(r, false, path, json));
    if (!json)
        printf("  written to %s\n", path);
    r->n_done = r->n_train;
    return FT_OK;
}

static int print_json(const struct run *r)
{
    const unsigned since = ft_alloc_failures();
    json_t *list = json_array();
    for (int i = 0; i < r->n_done; i++) {
        json_t *one = ft_audit_json(&r->audits[i]);
        json_object_set_new(one, "path", json_string(r->sources[i].entry->path));
        json_array_append_new(list, one);
    }
    char *text = ft_json_dumps(list, JSON_COMPACT, since);
    json_decref(list);
    if (!text)
        return FT_ERESOURCE;
    printf("%s\n", text);
    ft_json_free(text);
    return FT_OK;
}

static int run_data(struct run *r, const char *out, int64_t show, bool json)
{
    int rc = FT_OK;
    for (int i = 0; i < r->n && show > 0 && !rc; i++)
        rc = show_source(&r->sources[i], &r->texts, show);
    if (!rc && out)
        rc = write_file(r, out, json);
    for (int i = 0; i < r->n && !out && !rc; i++)
        rc = prepare_one(r, i, json);
    r->n_done = out ? r->n_done : r->n;
    if (!rc && json)
        rc = print_json(r);
    if (!rc)
        rc = check_audits(r, r->n_done);
    if (!rc && r->n_train == r->c->n_datasets) /* else there are tokenized ones too */
        rc = ft_dataset_check(&r->kept[0], ft_config_where(r->c, "datasets"));
    if (!rc && !out && r->n > r->n_train && r->n - r->n_train == r->c->n_test_datasets)
        rc = ft_dataset_check(&r->kept[1], ft_config_where(r->c, "test_datasets"));
    return rc;
}

int ft_show_documents(const struct ft_config *c, int64_t n)
{
    struct run r = {.c = c};
    int rc = open_run(&r, c);
    for (int i = 0; i < r.n_train && !rc; i++)
        rc = show_source(&r.sources[i], &r.texts, n);
    close_run(&r);
    return rc;
}

int ft_cmd_data(const struct ft_command *self, int n, char **words)
{
    const bool json = ft_take_flag(&n, words, "--json");
    const char *out = NULL;
    int64_t show = 0;
    struct ft_config c;
    struct run r = {.n = 0};
    FT_TRY(ft_take_text(self, &n, words, "-o", &out));
    FT_TRY(ft_take_number(self, &n, words, "--show", &show));
    if (out && !ft_ends_with(out, ".safetensors")) {
        ft_fail(FT_ECONFIG, "'-o %s': a tokenized dataset is a .safetensors file", out);
        return FT_ECONFIG;
    }
    int rc = ft_read_config_words(&c, self, n, words);
    r.writes = out != NULL;
    r.json = json;
    if (!rc)
        rc = open_run(&r, &c);
    ft_print_notices();
    if (!rc)
        rc = run_data(&r, out, show, json);
    close_run(&r);
    ft_config_fini(&c);
    return rc;
}
