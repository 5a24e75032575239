/* Hashes the base weights, tokenizer and datasets in a thread beside the training. */
#define _GNU_SOURCE
#include "train/internal.h"

#include "core/file.h"
#include "core/sha256.h"

#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct item {
    const char *kind;
    char *path, hex[65];
    _Atomic bool done;
};

struct ft_hashes {
    pthread_t thread;
    bool running;
    _Atomic bool stop; /* nobody waits for the result any more */
    struct item *items;
    int n;
};

static void *work(void *arg)
{
    struct ft_hashes *h = arg;
    /* behind the training in the scheduler's eyes */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
    for (int i = 0; i < h->n; i++)
        h->items[i].done = ft_sha256_file(h->items[i].path, h->items[i].hex, &h->stop);
    return NULL;
}

static int add(struct ft_hashes *h, const char *kind, char *path)
{
    if (!path)
        return FT_ERESOURCE;
    if (!ft_file_exists(path)) {
        ft_free(path);
        return FT_OK;
    }
    h->items[h->n].kind = kind;
    h->items[h->n++].path = path;
    return FT_OK;
}

static int collect(struct ft_hashes *h, const struct ft_job *j)
{
    FT_TRY(add(h, "config", ft_path_join(j->model_path, "config.json")));
    FT_TRY(add(h, "tokenizer", ft_path_join(j->model_path, "tokenizer.json")));
    for (int i = 0; i < j->n_data; i++)
        for (char **file = j->data[i].files; file && *file; file++)
            FT_TRY(add(h, "dataset", ft_strdup(*file)));
    for (int i = 0; i < ft_model_files(j->model); i++)
        FT_TRY(add(h, "weights", ft_strdup(ft_model_file(j->model, i))));
    return FT_OK;
}

int ft_hashes_start(struct ft_hashes **out, const struct ft_job *j)
{
    struct ft_hashes *h;
    if (*out)
        return FT_OK;
    FT_TRY(ft_alloc(&h, 1, sizeof *h));
    size_t most = 2 + (size_t)ft_model_files(j->model);
    for (int i = 0; i < j->n_data; i++)
        for (char **file = j->data[i].files; file && *file; file++)
            most++;
    int rc = ft_alloc(&h->items, most, sizeof *h->items);
    if (!rc)
        rc = collect(h, j);
    if (!rc && pthread_create(&h->thread, NULL, work, h))
        rc = ft_fail(FT_ERESOURCE, "cannot start a thread");
    if (rc) {
        ft_hashes_free(h);
        return rc;
    }
    h->running = true;
    *out = h;
    return FT_OK;
}

/* All of a kind, or a file that cannot be read. */
static bool is_known(const struct ft_hashes *h, const char *kind)
{
    for (int i = 0; i < h->n; i++)
        if (strcmp(h->items[i].kind, kind) == 0 && !h->items[i].done)
            return false;
    return true;
}

/* Says so where it takes longer than a moment. */
static void join(struct ft_hashes *h)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2;
    if (pthread_timedjoin_np(h->thread, NULL, &until) == 0)
        return;
    ft_waiting("waiting for the hashes of the model and the data");
    pthread_join(h->thread, NULL);
}

json_t *ft_hashes_json(struct ft_hashes *h, bool wait)
{
    json_t *root = json_object();
    if (!h)
        return root;
    if (h->running && wait) {
        join(h);
        h->running = false;
    }
    for (int i = 0; i < h->n; i++) {
        if (!is_known(h, h->items[i].kind))
            continue;
        json_t *kind = json_object_get(root, h->items[i].kind);
        /* datasets by their paths; the model's files by their names */
        bool whole = strcmp(h->items[i].kind, "dataset") == 0;
        const char *slash = whole ? NULL : strrchr(h->items[i].path, '/');
        if (!kind) {
            kind = json_object();
            json_object_set_new(root, h->items[i].kind, kind);
        }
        json_object_set_new(kind, slash ? slash + 1 : h->items[i].path,
                            json_string(h->items[i].hex));
    }
    return root;
}

void ft_hashes_free(struct ft_hashes *h)
{
    if (!h)
        return;
    h->stop = true;
    if (h->running)
        pthread_join(h->thread, NULL);
    for (int i = 0; i < h->n; i++)
        ft_free(h->items[i].path);
    ft_free(h->items);
    ft_free(h);
}
