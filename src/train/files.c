/* Which files a dataset entry names. */
#define _GNU_SOURCE
#include "train/internal.h"

#include "core/file.h"
#include "core/text.h"
#include "io/hub.h"
#include "io/records.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct names {
    char **v;
    size_t n, room;
};

static int add_name(struct names *l, char *path)
{
    if (l->n + 2 > l->room) {
        const size_t room = 2 * l->room + 16;
        if (!path || ft_grow(&l->v, room, sizeof *l->v)) {
            ft_free(path);
            return FT_ERESOURCE;
        }
        l->room = room;
    }
    l->v[l->n++] = path;
    l->v[l->n] = NULL;
    return path ? FT_OK : FT_ERESOURCE;
}

void ft_free_names(char **v)
{
    for (char **p = v; p && *p; p++)
        ft_free(*p);
    ft_free(v);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "train" in "train-00000.jsonl" or "my.train.json", but not in "trained.json". */
static bool has_word(const char *name, const char *word, size_t n)
{
    for (const char *p = name; (p = strstr(p, word)); p++) {
        const bool begins = p == name || strchr("-_. /", p[-1]);
        if (begins && (strchr("-_. /", p[n]) || (p[n] >= '0' && p[n] <= '9')))
            return true;
    }
    return false;
}

static bool is_of_split(const char *name, const char *split, size_t n)
{
    char word[64];
    if (n >= sizeof word)
        return false;
    memcpy(word, split, n);
    word[n] = 0;
    return has_word(name, word, n);
}

static bool is_of_any_split(const char *name)
{
    static const char *const splits[] = {"train", "training", "test", "testing", "validation",
                                         "valid", "val",      "dev",  "eval"};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++)
        if (has_word(name, splits[i], strlen(splits[i])))
            return true;
    return false;
}

/* Names in a folder (or its data/) that `takes` likes, in order. */
static int list_folder(struct names *out, const char *folder,
                       bool (*takes)(const char *name, const void *ctx), const void *ctx)
{
    const size_t first = out->n;
    DIR *dir = opendir(folder);
    int rc = FT_OK;
    if (!dir)
        return errno == ENOENT || errno == ENOTDIR
                   ? FT_OK
                   : ft_fail_at((struct ft_where){.file = folder},
                                errno == ENOMEM ? FT_ERESOURCE : FT_EDATA, "cannot be read: %s",
                                strerror(errno));
    for (struct dirent *e; !rc && (e = readdir(dir));)
        if (e->d_name[0] != '.' && takes(e->d_name, ctx))
            rc = add_name(out, ft_path_join(folder, e->d_name));
    closedir(dir);
    if (!rc && out->n > first)
        qsort(out->v + first, out->n - first, sizeof *out->v, by_name);
    return rc;
}

struct wanted {
    const char *split; /* NULL: files of no split */
    size_t n;
    const char *pattern; /* or files of this form */
};

/* What stands beside the data in folders of datasets. */
static bool is_about_data(const char *name)
{
    static const char *const about[] = {"README",     "LICENSE",          "dataset_info",
                                        "state.json", "requirements.txt", "dataset_dict"};
    for (size_t i = 0; i < sizeof about / sizeof *about; i++)
        if (ft_starts_with(name, about[i]))
            return true;
    return false;
}

static bool takes_wanted(const char *name, const void *ctx)
{
    const struct wanted *w = ctx;
    if (w->pattern)
        return fnmatch(w->pattern, name, 0) == 0;
    return ft_records_kind(name) && !is_about_data(name) &&
           (w->split ? is_of_split(name, w->split, w->n) : !is_of_any_split(name));
}

/* Folders within one (ctx) that nobody names; "data" is read. */
static bool takes_folder(const char *name, const void *ctx)
{
    char *path = ft_path_join(ctx, name);
    const bool is = path && strcmp(name, "data") != 0 && ft_is_folder(path);
    ft_free(path);
    return is;
}

static int say_folders(const struct ft_dataset_config *d, const char *folder)
{
    struct names within = {0};
    int rc = list_folder(&within, folder, takes_folder, folder);
    if (!rc && within.n)
        ft_notice(d->at,
                  "'%s' has folders that are not read: '%s'%s; 'data_files' names files in "
                  "them",
                  d->path, within.v[0], within.n > 1 ? " and others" : "");
    ft_free_names(within.v);
    return rc;
}

static bool takes_arrow(const char *name, const void *ctx)
{
    (void)ctx;
    return ft_ends_with(name, ".arrow") || strcmp(name, "dataset_dict.json") == 0;
}

static int refuse_arrow(const struct ft_dataset_config *d, const char *folder)
{
    ft_fail_at(d->at, FT_EDATA, "'%s' is a dataset in Arrow files, which ft does not read", folder);
    ft_hint("with datasets: load_from_disk('%s')['train'].to_json('data.jsonl', force_ascii=False)",
            folder);
    return FT_EDATA;
}

/* Files of the kind that most are of; the others are left out. */
static void keep_commonest(struct names *l, const struct ft_dataset_config *d)
{
    const char *best = NULL;
    size_t most = 0, kept = 0;
    for (size_t i = 0; i < l->n; i++) {
        size_t same = 0;
        for (size_t k = 0; k < l->n; k++)
            same += ft_records_kind(l->v[k]) == ft_records_kind(l->v[i]);
        if (same > most) {
            most = same;
            best = ft_records_kind(l->v[i]);
        }
    }
    for (size_t i = 0; i < l->n; i++) {
        if (ft_records_kind(l->v[i]) == best)
            l->v[kept++] = l->v[i];
        else
            ft_free(l->v[i]);
    }
    if (kept < l->n)
        ft_notice(d->at, "'%s': %zu files that are not %s, as most are, are left out", d->path,
                  l->n - kept, best);
    l->n = kept;
    if (l->v)
        l->v[kept] = NULL;
}

/* The split's files; "train" has those of no split where none has its name. */
static int find_in_folder(struct names *out, const struct ft_dataset_config *d, const char *folder,
                          const char *split, size_t n)
{
    const struct wanted of_split = {.split = split, .n = n}, rest = {.split = NULL};
    char *data = ft_path_join(folder, "data");
    int rc = data ? FT_OK : FT_ERESOURCE;
    for (int k = 0; k < 2 && !rc && !out->n; k++)
        rc = list_folder(out, k ? data : folder, takes_wanted, &of_split);
    for (int k = 0; k < 2 && !rc && !out->n && n == 5 && memcmp(split, "train", 5) == 0; k++)
        rc = list_folder(out, k ? data : folder, takes_wanted, &rest);
    keep_commonest(out, d);
    if (!rc)
        rc = say_folders(d, folder);
    if (!rc && !out->n) {
        struct names arrow = {0};
        rc = list_folder(&arrow, folder, takes_arrow, NULL);
        if (!rc && arrow.n)
            rc = refuse_arrow(d, folder);
        else if (!rc)
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' has no data file of split '%.*s'", folder,
                            (int)n, split);
        ft_free_names(arrow.v);
    }
    ft_free(data);
    return rc;
}

/* Files of a name in whose last part * stands for any characters. */
static int find_like(struct names *out, const struct ft_dataset_config *d, const char *folder,
                     const char *name)
{
    const size_t before = out->n;
    const char *slash = strrchr(name, '/');
    const struct wanted like = {.pattern = slash ? slash + 1 : name};
    char *parent =
        slash ? ft_format("%.*s", slash > name ? (int)(slash - name) : 1, name) : ft_strdup(".");
    char *within = parent && folder ? ft_path_join(folder, parent) : ft_strdup(parent);
    int rc = within ? list_folder(out, within, takes_wanted, &like) : FT_ERESOURCE;
    ft_free(parent);
    ft_free(within);
    if (!rc && out->n == before)
        rc = folder ? ft_fail_at(d->at, FT_EDATA, "'%s' has no file '%s'", folder, name)
                    : ft_fail_at(d->at, FT_EDATA, "there is no file '%s'", name);
    return rc;
}

/* data_files: names within the folder. */
static int find_named(struct names *out, const struct ft_dataset_config *d, const char *folder)
{
    for (const char **p = d->data_files; *p; p++)
        FT_TRY(find_like(out, d, folder, *p));
    return FT_OK;
}

/* "path: json" with data_files, as the datasets library has it: path is what they are. */
static bool is_kind_with_files(const struct ft_dataset_config *d)
{
    static const char *const kinds[] = {"json", "text", "csv"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (d->data_files && strcmp(d->path, kinds[i]) == 0 && !ft_file_exists(d->path))
            return true;
    return false;
}

/* Each file once, and a file that can be read through. */
static int check_files(const struct ft_dataset_config *d, struct names *l)
{
    struct stat st;
    size_t kept = 0;
    int rc = FT_OK;
    for (size_t i = 0; i < l->n; i++) {
        bool again = false;
        for (size_t k = 0; k < kept; k++)
            again = again || strcmp(l->v[k], l->v[i]) == 0;
        if (again)
            ft_free(l->v[i]);
        else
            l->v[kept++] = l->v[i];
    }
    l->n = kept;
    if (l->v)
        l->v[kept] = NULL;
    for (size_t i = 0; i < l->n && !rc; i++) {
        if (stat(l->v[i], &st))
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' cannot be read: %s", l->v[i], strerror(errno));
        else if (!S_ISREG(st.st_mode))
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' is %s, not a file", l->v[i],
                            S_ISDIR(st.st_mode) ? "a folder" : "a special file");
    }
    return rc;
}

/* Paths of their own, from here or from the config's folder. */
static int find_paths(struct names *out, const struct ft_dataset_config *d,
                      const struct ft_config *c)
{
    for (const char **p = d->data_files; *p; p++) {
        const bool one = strpbrk(*p, "*?[") == NULL;
        char *path = one ? ft_config_path(c, *p) : ft_strdup(*p);
        int rc = path ? find_like(out, d, NULL, path) : FT_ERESOURCE;
        ft_free(path);
        FT_TRY(rc);
    }
    return FT_OK;
}

int ft_source_files(struct ft_source *s, const struct ft_config *c)
{
    const struct ft_dataset_config *d = s->entry;
    const char *split = d->split ? d->split : "train";
    struct names out = {0};
    char *path = NULL, *within;
    size_t n;
    bool cached;
    FT_TRY(ft_slice_parse(&s->prepare.slice, &n, split));
    s->prepare.file_type = d->ds_type;
    if (is_kind_with_files(d)) {
        s->prepare.file_type = d->path;
        int bad = find_paths(&out, d, c);
        if (!bad)
            bad = check_files(d, &out);
        s->files = out.v;
        return bad;
    }
    int rc = ft_hub_find(&path, &cached, "dataset", d->path, d->revision, c->folder);
    if (!rc && d->name && ft_is_folder(path)) {
        within = ft_path_join(path, d->name);
        if (!within)
            rc = FT_ERESOURCE;
        else if (!ft_is_folder(within))
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' has no subset '%s': no folder of this name",
                            d->path, d->name);
        ft_free(path);
        path = within;
    }
    if (!rc && !ft_is_folder(path)) {
        if (d->data_files || d->name)
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' is a file: it has no '%s'", d->path,
                            d->data_files ? "data_files" : "name");
        else if (n != 5 || memcmp(split, "train", 5) != 0)
            rc =
                ft_fail_at(d->at, FT_EDATA, "'%s' is a file: its only split is 'train', not '%.*s'",
                           d->path, (int)n, split);
        else
            rc = add_name(&out, ft_strdup(path));
    } else if (!rc && d->data_files) {
        rc = find_named(&out, d, path);
    } else if (!rc) {
        rc = find_in_folder(&out, d, path, split, n);
    }
    if (!rc)
        rc = check_files(d, &out);
    ft_free(path);
    s->files = out.v;
    return rc;
}
