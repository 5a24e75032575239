/* Checkpoints: folders checkpoint-N in the run folder, each a whole adapter (or model) with the
 * state that decides the rest of the run. One is written under another name, its manifest last,
 * and renamed; only then are older ones removed. */
#define _GNU_SOURCE
#include "train/internal.h"

#include "core/file.h"
#include "core/json.h"
#include "core/quant.h"
#include "io/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define MANIFEST "manifest.json"
#define STATE    "ft_state.safetensors"
#define PREFIX   "checkpoint-"

enum { FORMAT = 1 };

static struct ft_where in(const char *path)
{
    return (struct ft_where){.file = path};
}

/* --- numbers, which JSON has no words for where they are not finite --- */

static json_t *real_json(double v)
{
    return isfinite(v) ? json_real(v) : json_string(isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
}

static bool read_real(double *out, const json_t *value)
{
    const char *text = json_string_value(value);
    if (!json_is_number(value) && !text)
        return false;
    *out = text ? strtod(text, NULL) : json_number_value(value);
    return true;
}

static json_t *counter_json(const struct ft_counter *c)
{
    if (c->whole)
        return json_integer((json_int_t)*c->whole);
    if (!c->n)
        return real_json(*c->real);
    json_t *list = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(list, real_json(c->real[i]));
    return list;
}

static bool read_counter(const struct ft_counter *c, const json_t *value)
{
    if (c->whole) {
        *c->whole = json_integer_value(value);
        return json_is_integer(value);
    }
    if (!c->n)
        return read_real(c->real, value);
    bool right = json_array_size(value) == (size_t)c->n;
    for (int i = 0; i < c->n && right; i++)
        right = read_real(&c->real[i], json_array_get(value, (size_t)i));
    return right;
}

/* --- the state: parameters, moments --- */

/* The i-th part that is in the graph, and its name in the file. */
struct part {
    struct ft_tensor *t;
    char name[32];
};

static int count_parts(const struct ft_job *j)
{
    return 1 + j->n_states;
}

static struct part part_of(const struct ft_job *j, int i)
{
    struct part p = {.t = i ? j->states[i - 1] : ft_adapter_values(j->adapter)};
    if (i)
        snprintf(p.name, sizeof p.name, "optimizer.%d", i - 1);
    else
        snprintf(p.name, sizeof p.name, "parameters");
    return p;
}

size_t ft_checkpoint_bytes(const struct ft_job *j)
{
    size_t bytes = 1 << 16;
    for (int i = 0; i < count_parts(j); i++)
        bytes += ft_tensor_bytes(part_of(j, i).t);
    return bytes;
}

/* A part as the file has it: numbers, or the bytes of codes and scales. */
static struct ft_st_item item_of(const struct part *p)
{
    const enum ft_dtype dtype = ft_is_quant(p->t->dtype) ? FT_U8 : FT_F32;
    return (struct ft_st_item){
        .name = p->name,
        .dtype = dtype,
        .n_dims = 1,
        .dims = {(int64_t)(ft_tensor_bytes(p->t) / ft_dtype_size(dtype))},
        .data = p->t->data,
    };
}

/* On a device every part is copied first. */
static int write_parts(const struct ft_job *j, const char *path, struct part *parts,
                       struct ft_st_item *items, void **copies)
{
    static const char *const meta[][2] = {{"format", "ft"}};
    const int n = count_parts(j);
    int rc = FT_OK;
    for (int i = 0; i < n && !rc; i++) {
        parts[i] = part_of(j, i);
        items[i] = item_of(&parts[i]);
        if (!j->backend->dev)
            continue;
        rc = ft_alloc(&copies[i], ft_tensor_bytes(parts[i].t), 1);
        items[i].data = copies[i];
        if (!rc)
            rc = ft_graph_read(j->graph, parts[i].t, copies[i]);
    }
    return rc ? rc : ft_st_write(path, items, n, meta, 1);
}

static int write_state(const struct ft_job *j, const char *folder)
{
    struct part *parts = NULL;
    struct ft_st_item *items = NULL;
    void **copies = NULL;
    const int n = count_parts(j);
    char *path = ft_path_join(folder, STATE);
    int rc = path ? ft_alloc(&parts, (size_t)n, sizeof *parts) : FT_ERESOURCE;
    if (!rc)
        rc = ft_alloc(&items, (size_t)n, sizeof *items);
    if (!rc)
        rc = ft_alloc(&copies, (size_t)n, sizeof *copies);
    if (!rc)
        rc = write_parts(j, path, parts, items, copies);
    for (int i = 0; i < n && copies; i++)
        ft_free(copies[i]);
    ft_free(copies);
    ft_free(items);
    ft_free(parts);
    ft_free(path);
    return rc;
}

static int read_part(struct ft_job *j, const struct ft_st *f, int i)
{
    const struct part p = part_of(j, i);
    const struct ft_st_item item = item_of(&p);
    const struct ft_st_entry *e = ft_st_find(f, p.name);
    const size_t n = ft_tensor_bytes(p.t);
    void *host = p.t->data;
    if (!e || e->dtype != item.dtype || e->end - e->begin != (int64_t)n)
        return ft_fail_at(in(ft_st_path(f)), FT_EDATA,
                          "'%s' is not there with %lld numbers: the checkpoint is of another run",
                          p.name, (long long)item.dims[0]);
    if (!j->backend->dev)
        return ft_st_read(f, e, 0, n, host);
    FT_TRY(ft_alloc(&host, n, 1));
    int rc = ft_st_read(f, e, 0, n, host);
    if (!rc)
        rc = ft_graph_write(j->graph, p.t, host);
    ft_free(host);
    return rc;
}

static int read_state(struct ft_job *j, const char *folder)
{
    struct ft_st *f = NULL;
    char *path = ft_path_join(folder, STATE);
    int rc = path ? ft_st_open(&f, path) : FT_ERESOURCE;
    for (int i = 0; i < count_parts(j) && !rc; i++)
        rc = read_part(j, f, i);
    if (!rc)
        rc = ft_graph_run(j->graph, FT_START, j->pool, &(struct ft_run){0}, NULL);
    if (!rc) /* again: the start of a method (DoRA's) sets parameters of its own */
        rc = read_part(j, f, 0);
    ft_st_close(f);
    ft_free(path);
    return rc;
}

/* --- what the files are --- */

struct sum {
    int64_t bytes;
    uint32_t crc;
};

static int sum_file(const char *path, struct sum *s)
{
    enum { PIECE = 1 << 20 };
    struct stat st;
    char *buffer;
    *s = (struct sum){0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        const int error = fd < 0 ? errno : EINVAL;
        if (fd >= 0)
            close(fd);
        return ft_fail_at(in(path), FT_EDATA, "cannot be read: %s", strerror(error));
    }
    int rc = ft_alloc(&buffer, PIECE, 1);
    while (!rc && s->bytes < st.st_size) {
        const int64_t left = st.st_size - s->bytes;
        const size_t n = left < PIECE ? (size_t)left : PIECE;
        rc = ft_pread(fd, path, buffer, n, s->bytes);
        if (!rc)
            s->crc = (uint32_t)crc32_z(s->crc, (const Bytef *)buffer, n);
        s->bytes += (int64_t)n;
    }
    ft_free(buffer);
    close(fd);
    return rc;
}

/* {"name": {"bytes": N, "crc32": N}} of a folder's files. */
static int list_files(const char *folder, json_t *out)
{
    DIR *d = opendir(folder);
    int rc =
        d ? FT_OK : ft_fail_at(in(folder), FT_ERESOURCE, "cannot be read: %s", strerror(errno));
    for (const struct dirent *e; !rc && (e = readdir(d));) {
        struct sum s;
        if (e->d_name[0] == '.')
            continue;
        char *path = ft_path_join(folder, e->d_name);
        rc = path ? sum_file(path, &s) : FT_ERESOURCE;
        ft_free(path);
        if (!rc)
            json_object_set_new(
                out, e->d_name,
                json_pack("{sI sI}", "bytes", (json_int_t)s.bytes, "crc32", (json_int_t)s.crc));
    }
    if (d)
        closedir(d);
    return rc;
}

static int check_file(const char *folder, const char *name, const json_t *said)
{
    struct sum s;
    char *path = strchr(name, '/') ? NULL : ft_path_join(folder, name);
    if (!path)
        return ft_fail_at(in(folder), FT_EDATA, "the manifest names '%s', which is no file of it",
                          name);
    int rc = sum_file(path, &s);
    const int64_t bytes = json_integer_value(json_object_get(said, "bytes"));
    if (!rc && s.bytes != bytes)
        rc = ft_fail_at(in(path), FT_EDATA, "has %lld bytes, the manifest says %lld",
                        (long long)s.bytes, (long long)bytes);
    if (!rc && (json_int_t)s.crc != json_integer_value(json_object_get(said, "crc32")))
        rc = ft_fail_at(in(path), FT_EDATA, "is damaged: its checksum is not the manifest's");
    ft_free(path);
    return rc;
}

/* --- the folders --- */

/* N of a name checkpoint-N; -1: another name. */
static int64_t number_of(const char *name)
{
    const size_t n = strlen(PREFIX);
    char *end;
    if (strncmp(name, PREFIX, n) != 0 || name[n] < '0' || name[n] > '9' || strlen(name) > n + 18)
        return -1;
    const long long number = strtoll(name + n, &end, 10);
    return *end ? -1 : (int64_t)number;
}

static char *path_of(const char *folder, int64_t step, const char *end)
{
    return ft_format("%s/" PREFIX "%lld%s", folder, (long long)step, end);
}

/* The largest N below `below`; -1: none. */
static int64_t next_below(const char *folder, int64_t below)
{
    int64_t most = -1;
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        const int64_t n = number_of(e->d_name);
        if (n < below && n > most)
            most = n;
    }
    if (d)
        closedir(d);
    return most;
}

/* Not one that another program has made in the same folder. */
static bool is_own(const char *folder, int64_t step)
{
    char *path = path_of(folder, step, "/" MANIFEST);
    const bool own = path && ft_file_exists(path);
    ft_free(path);
    return own;
}

/* Out of sight first: half of a checkpoint is never seen under its name. */
static int remove_one(const char *folder, int64_t step)
{
    char *path = path_of(folder, step, ""), *aside = path_of(folder, step, ".tmp.0");
    if (path && aside && rename(path, aside) == 0)
        ft_remove_folder(aside);
    const int rc = path && aside ? FT_OK : FT_ERESOURCE;
    ft_free(path);
    ft_free(aside);
    return rc;
}

void ft_checkpoint_sweep(const char *folder)
{
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        const char *end = strstr(e->d_name, ".tmp.");
        char *path = end && strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0
                         ? ft_path_join(folder, e->d_name)
                         : NULL;
        if (path)
            ft_remove_folder(path);
        ft_free(path);
    }
    if (d)
        closedir(d);
}

int ft_checkpoint_remove_all(const char *folder)
{
    for (int64_t n = INT64_MAX; (n = next_below(folder, n)) >= 0;)
        if (is_own(folder, n))
            FT_TRY(remove_one(folder, n));
    return FT_OK;
}

static int prune(const char *folder, int64_t keep, int64_t best)
{
    int64_t n = INT64_MAX;
    while ((n = next_below(folder, n)) >= 0)
        if (n != best && is_own(folder, n) && --keep < 0)
            FT_TRY(remove_one(folder, n));
    return FT_OK;
}

/* --- writing one --- */

static int write_manifest(const char *folder, const struct ft_checkpoint *c)
{
    const unsigned since = ft_alloc_failures();
    json_t *files = json_object(), *progress = json_object();
    for (int i = 0; i < c->n_counters; i++)
        json_object_set_new(progress, c->counters[i].name, counter_json(&c->counters[i]));
    int rc = list_files(folder, files);
    json_t *root = json_pack("{si ss sI so sO so}", "format", FORMAT, "ft_version", FT_VERSION,
                             "step", (json_int_t)c->step, "progress", progress, "identity",
                             c->identity, "files", files);
    char *path = ft_path_join(folder, MANIFEST);
    char *text = ft_json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17), since);
    if (!rc)
        rc = path && text ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    ft_json_free(text);
    ft_free(path);
    json_decref(root);
    return rc;
}

int ft_checkpoint_write(const struct ft_output *o, const struct ft_job *j,
                        const struct ft_checkpoint *c)
{
    char end[32];
    snprintf(end, sizeof end, ".tmp.%ld", (long)getpid());
    char *temp = path_of(o->folder, c->step, end), *path = path_of(o->folder, c->step, "");
    int rc = temp && path ? ft_make_folders(temp) : FT_ERESOURCE;
    if (!rc)
        rc = ft_output_adapter(j, temp);
    if (!rc)
        rc = write_state(j, temp);
    if (!rc)
        rc = write_manifest(temp, c);
    if (!rc)
        rc = ft_lock_check(o->lock);
    if (!rc && ft_file_exists(path)) /* of this step already: after resuming */
        rc = remove_one(o->folder, c->step);
    if (!rc && rename(temp, path))
        rc = ft_fail_at(in(path), FT_ERESOURCE, "cannot rename to: %s", strerror(errno));
    if (!rc)
        rc = ft_sync_folder_of(path);
    if (rc && temp)
        ft_remove_folder(temp);
    if (!rc)
        rc = prune(o->folder, c->keep, c->best);
    ft_free(temp);
    ft_free(path);
    return rc;
}

/* --- reading one --- */

int ft_checkpoint_open(json_t **manifest, const char *folder)
{
    const char *name;
    json_t *said, *root = NULL;
    char *path = ft_path_join(folder, MANIFEST);
    *manifest = NULL;
    if (!path)
        return FT_ERESOURCE;
    int rc = FT_OK;
    if (!ft_file_exists(path))
        rc = ft_fail_at(in(folder), FT_EDATA, "is no checkpoint of ft: it has no " MANIFEST);
    if (!rc)
        rc = ft_json_file(path, FT_EDATA, &root);
    const json_int_t format = json_integer_value(json_object_get(root, "format"));
    if (!rc && format > FORMAT)
        rc = ft_fail_at(in(path), FT_ECONFIG, "is of a newer ft (%s), whose format is %lld",
                        json_string_value(json_object_get(root, "ft_version")), (long long)format);
    if (!rc && (format != FORMAT || !json_is_object(json_object_get(root, "files")) ||
                !json_is_object(json_object_get(root, "progress")) ||
                !json_is_object(json_object_get(root, "identity"))))
        rc = ft_fail_at(in(path), FT_EDATA, "is not a checkpoint's manifest");
    json_object_foreach(rc ? NULL : json_object_get(root, "files"), name, said)
    {
        if (!rc)
            rc = check_file(folder, name, said);
    }
    ft_free(path);
    if (rc)
        json_decref(root);
    else
        *manifest = root;
    return rc;
}

int ft_checkpoint_newest(char **path, json_t **manifest, const char *folder)
{
    *path = NULL;
    *manifest = NULL;
    for (int64_t n = INT64_MAX; (n = next_below(folder, n)) >= 0;) {
        char *own = path_of(folder, n, "");
        if (!own)
            return FT_ERESOURCE;
        int rc = ft_checkpoint_open(manifest, own);
        if (!rc) {
            *path = own;
            return FT_OK;
        }
        if (rc != FT_EDATA) {
            ft_free(own);
            return rc;
        }
        const char *why = ft_status_report();
        ft_notice((struct ft_where){0}, "%.*s: the checkpoint before it is used",
                  (int)strcspn(why, "\n"), why);
        ft_status_clear_errors();
        ft_free(own);
    }
    return FT_OK;
}

int ft_checkpoint_restore(const struct ft_checkpoint *c, struct ft_job *j, const char *folder,
                          const json_t *manifest)
{
    const json_t *progress = json_object_get(manifest, "progress");
    for (int i = 0; i < c->n_counters; i++)
        if (!read_counter(&c->counters[i], json_object_get(progress, c->counters[i].name)))
            return ft_fail_at(in(folder), FT_EDATA, "the manifest's '%s' is missing or no number",
                              c->counters[i].name);
    return read_state(j, folder);
}
