/* Owns the run folder: its lock, the adapter, the tokenizer's files, run.json. */
#define _GNU_SOURCE
#include "train/internal.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/sha256.h"
#include "track/wandb.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME ".ft.lock"
#define ROOM_NAME ".ft.room"

/* What a run writes, or has been said of it; an earlier run's go. */
static const char *const own_files[] = {"adapter_model.safetensors",
                                        "adapter_config.json",
                                        "metrics.jsonl",
                                        "run.json",
                                        "README.md",
                                        "samples.jsonl"};
const char *const ft_text_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
    "additional_chat_templates/tool_use.jinja",
    NULL,
};
#define COUNT(a) (int)(sizeof(a) / sizeof *(a))
enum { TEXT_FILES = COUNT(ft_text_files) - 1 };

static struct ft_where in(const char *path)
{
    return (struct ft_where){.file = path};
}

/* --- the folder and its lock --- */

/* A name in the folder, "" if there is none; `own` may be in it, a folder that this run has filled.
 */
static int first_entry(const char *folder, const char *own, char out[256])
{
    DIR *d = opendir(folder);
    out[0] = 0;
    if (!d)
        return ft_fail_at(in(folder), FT_ERESOURCE, "cannot be read: %s", strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        char path[4352];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            strncmp(e->d_name, LOCK_NAME, strlen(LOCK_NAME)) != 0 && !ft_same_file(path, own))
            snprintf(out, 256, "%s", e->d_name);
    }
    closedir(d);
    return FT_OK;
}

/* A run must not overwrite what it reads. */
static int check_inputs(const struct ft_job *j, struct ft_where at)
{
    const struct ft_config *c = j->config;
    char *adapter = c->lora_model_dir ? ft_config_path(c, c->lora_model_dir) : NULL;
    int rc = FT_OK;
    if (ft_same_file(c->output_dir, j->model_path))
        rc = ft_fail_at(at, FT_ECONFIG, "'output_dir' is the folder of 'base_model'");
    if (ft_same_file(c->output_dir, adapter))
        rc = ft_fail_at(at, FT_ECONFIG, "'output_dir' is the folder of 'lora_model_dir'");
    ft_free(adapter);
    return rc;
}

/* What killed runs left of writing; this one holds the lock. */
static int sweep(const char *folder)
{
    for (int i = 0; i < COUNT(own_files) + TEXT_FILES; i++) {
        char *path = ft_path_join(
            folder, i < COUNT(own_files) ? own_files[i] : ft_text_files[i - COUNT(own_files)]);
        if (!path)
            return FT_ERESOURCE;
        ft_writer_sweep(path);
        ft_free(path);
    }
    return FT_OK;
}

/* --- what the folder has of this run --- */

/* run.json of the last run there; NULL: none that can be read. */
static json_t *read_past(const struct ft_output *o)
{
    json_t *past = NULL;
    char *path = ft_path_join(o->folder, "run.json");
    if (path && ft_file_exists(path) && ft_json_file(path, FT_EDATA, &past))
        ft_status_clear_errors();
    ft_free(path);
    return past;
}

static int refuse_other(const struct ft_output *o, struct ft_where at, const char *why)
{
    ft_fail_at(at, FT_ECONFIG, "'%s' holds another run: %s", o->folder, why);
    ft_hint("choose another 'output_dir'; 'overwrite_output_dir: true' replaces the run there; "
            "'resume_with_changes: [...]' goes on with it all the same");
    return FT_ECONFIG;
}

/* Whether a run that says so of itself is this one; goes on with its checkpoint, if it has one. */
static int settle(struct ft_output *o, const struct ft_job *j, const json_t *past, const json_t *is)
{
    char why[512];
    const struct ft_config *c = j->config;
    const struct ft_where at = ft_config_where(c, "output_dir");
    const char *status = json_string_value(json_object_get(past, "status"));
    const json_t *was = o->manifest ? json_object_get(o->manifest, "identity") : past;
    const bool finished = status && strcmp(status, "finished") == 0;
    const bool other = ft_identity_differs(j, was, is, why, sizeof why);
    if (finished && !c->overwrite_output_dir &&
        !ft_identity_differs(j, past, is, why, sizeof why) && !c->resume_with_changes) {
        o->finished = true;
        return FT_OK;
    }
    const bool go_on = o->manifest && !other && c->auto_resume_from_checkpoints &&
                       !(finished && c->overwrite_output_dir);
    if (go_on || (!o->manifest && !other && !finished))
        return FT_OK;
    json_decref(o->manifest);
    ft_free(o->resume);
    o->manifest = NULL;
    o->resume = NULL;
    if (c->overwrite_output_dir)
        return FT_OK;
    if (!other && finished)
        snprintf(why, sizeof why, "it is finished");
    else if (!other)
        snprintf(why, sizeof why, "'auto_resume_from_checkpoints' is false");
    return refuse_other(o, at, why);
}

static int not_empty(const struct ft_output *o, const struct ft_config *c, const char *entry)
{
    ft_fail_at(ft_config_where(c, "output_dir"), FT_ECONFIG, "'%s' is not empty (it has '%s')",
               o->folder, entry);
    ft_hint("choose another 'output_dir', or set 'overwrite_output_dir: true' to replace an "
            "earlier run's files");
    return FT_ECONFIG;
}

/* A checkpoint that the config names, of whichever folder. */
static int open_named(struct ft_output *o, const struct ft_job *j, const json_t *is)
{
    char why[512];
    const struct ft_config *c = j->config;
    const struct ft_where at = ft_config_where(c, "resume_from_checkpoint");
    if (!(o->resume = ft_config_path(c, c->resume_from_checkpoint)))
        return FT_ERESOURCE;
    if (!ft_is_folder(o->resume))
        return ft_fail_at(at, FT_ECONFIG, "'%s' is not a folder", o->resume);
    FT_TRY(ft_checkpoint_open(&o->manifest, o->resume));
    if (!ft_identity_differs(j, json_object_get(o->manifest, "identity"), is, why, sizeof why))
        return FT_OK;
    ft_fail_at(at, FT_ECONFIG, "'%s' is of another run: %s", o->resume, why);
    ft_hint("'resume_with_changes: [...]' names what may differ");
    return FT_ECONFIG;
}

static int look_for_run(struct ft_output *o, const struct ft_job *j, struct ft_hashes **h,
                        const char *entry)
{
    const struct ft_config *c = j->config;
    const char *named = c->resume_from_checkpoint;
    const bool path = named && strcmp(named, "true") != 0 && strcmp(named, "false") != 0;
    const unsigned since = ft_alloc_failures();
    json_t *past = read_past(o);
    int rc = path ? FT_OK : ft_checkpoint_newest(&o->resume, &o->manifest, o->folder);
    const bool compares = !rc && (past || o->manifest || path);
    if (compares)
        rc = ft_hashes_start(h, j);
    json_t *is = NULL;
    if (compares && !rc)
        rc = ft_identity(&is, j, *h, true);
    const bool of_ft = json_object_get(past, "status") || o->manifest;
    if (!rc && path)
        rc = open_named(o, j, is);
    else if (!rc && of_ft)
        rc = settle(o, j, past, is);
    else if (!rc && entry[0] && !c->overwrite_output_dir)
        rc = not_empty(o, c, entry);
    if (!rc && named && !o->resume && !o->finished && strcmp(named, "false") != 0)
        rc = ft_fail_at(ft_config_where(c, "resume_from_checkpoint"), FT_ECONFIG,
                        "'%s' has no checkpoint of this run", o->folder);
    json_decref(is);
    json_decref(past);
    const int memory = ft_alloc_check(since); /* what was compared may not have been whole */
    return memory ? memory : rc;
}

int ft_output_open(struct ft_output *o, const struct ft_job *j, struct ft_hashes **h)
{
    char entry[256];
    const struct ft_config *c = j->config;
    const struct ft_where at = ft_config_where(c, "output_dir");
    *o = (struct ft_output){0};
    o->folder = ft_strdup(c->output_dir);
    o->metrics = o->folder ? ft_path_join(o->folder, "metrics.jsonl") : NULL;
    o->room = o->metrics ? ft_path_join(o->folder, ROOM_NAME) : NULL;
    o->tensorboard = o->room ? ft_path_join(o->folder, "tensorboard") : NULL;
    o->wandb = o->tensorboard ? ft_path_join(o->folder, "wandb") : NULL;
    o->lock_path = o->wandb ? ft_path_join(o->folder, LOCK_NAME) : NULL;
    if (!o->lock_path)
        return FT_ERESOURCE;
    FT_TRY(check_inputs(j, at));
    o->made_folder = !ft_file_exists(o->folder);
    FT_TRY(ft_make_folders(o->folder));
    FT_TRY(ft_lock_take(&o->lock, o->lock_path, o->folder, at));
    FT_TRY(sweep(o->folder));
    ft_checkpoint_sweep(o->folder);
    unlink(o->room);
    FT_TRY(first_entry(o->folder, c->dataset_prepared_path, entry));
    return look_for_run(o, j, h, entry);
}

static int remove_files(const char *folder, const char *const *names, int n)
{
    int rc = FT_OK;
    for (int i = 0; i < n; i++) {
        char *path = ft_path_join(folder, names[i]);
        if (!path)
            return FT_ERESOURCE;
        if (unlink(path) && errno != ENOENT)
            rc = ft_fail_at(in(path), FT_ERESOURCE, "cannot remove: %s", strerror(errno));
        ft_free(path);
    }
    return rc;
}

/* Cuts the log to what it had at the checkpoint. */
static int cut_log(const struct ft_output *o)
{
    const json_t *progress = json_object_get(o->manifest, "progress");
    const int64_t bytes = json_integer_value(json_object_get(progress, "log_bytes"));
    struct stat st;
    if (stat(o->metrics, &st) || st.st_size < bytes) {
        ft_notice(in(o->metrics), "has less than the checkpoint says: lines are missing in it");
        return FT_OK;
    }
    return truncate(o->metrics, bytes)
               ? ft_fail_at(in(o->metrics), FT_ERESOURCE, "cannot be cut: %s", strerror(errno))
               : FT_OK;
}

int ft_output_begin(struct ft_output *o, const struct ft_job *j)
{
    FT_TRY(ft_output_reserve(o, j));
    if (o->resume)
        return cut_log(o);
    FT_TRY(ft_checkpoint_remove_all(o->folder));
    ft_remove_folder(o->tensorboard);
    ft_wandb_remove(o->wandb);
    FT_TRY(remove_files(o->folder, ft_text_files, TEXT_FILES));
    return remove_files(o->folder, own_files, COUNT(own_files));
}

void ft_output_close(struct ft_output *o)
{
    if (o->lock && o->room)
        unlink(o->room);
    ft_lock_free(o->lock);
    if (o->made_folder)
        rmdir(o->folder); /* which does nothing if there is something in it */
    ft_free(o->folder);
    ft_free(o->metrics);
    ft_free(o->tensorboard);
    ft_free(o->wandb);
    ft_free(o->room);
    ft_free(o->lock_path);
    ft_free(o->resume);
    json_decref(o->manifest);
    *o = (struct ft_output){0};
}

/* --- room on the disk --- */

/* The adapter (or model), and a checkpoint, which has it too. */
static size_t room_needed(const struct ft_job *j)
{
    size_t result = (size_t)ft_adapter_parameters(j->adapter) * sizeof(float);
    if (ft_job_trains_model(j))
        result = ft_model_bytes_as(j->model, &(struct ft_quantisation){0}, false);
    return 2 * result + ft_checkpoint_bytes(j) + (1 << 20);
}

int ft_output_reserve(const struct ft_output *o, const struct ft_job *j)
{
    const size_t bytes = room_needed(j);
    struct statvfs v;
    const int fd = open(o->room, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return ft_fail_at(in(o->room), FT_ERESOURCE, "cannot create: %s", strerror(errno));
    int error = fallocate(fd, 0, 0, (off_t)bytes) ? errno : 0;
    if (error == EOPNOTSUPP || error == ENOSYS) /* what is free now may be taken by others */
        error = fstatvfs(fd, &v) == 0 && v.f_bavail < bytes / v.f_frsize ? ENOSPC : 0;
    close(fd);
    if (!error)
        return FT_OK;
    unlink(o->room);
    ft_fail_at(in(o->folder), FT_ERESOURCE, "the adapter and a checkpoint need %.1f MB there: %s",
               (double)bytes / 1e6, strerror(error));
    ft_hint("free some, or choose another 'output_dir'");
    return FT_ERESOURCE;
}

void ft_output_release(const struct ft_output *o)
{
    unlink(o->room);
}

int64_t ft_output_log_bytes(const struct ft_output *o)
{
    struct stat st;
    const int fd = open(o->metrics, O_WRONLY | O_CLOEXEC);
    int64_t bytes = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && fsync(fd) == 0)
        bytes = st.st_size;
    if (fd >= 0)
        close(fd);
    return bytes;
}

/* --- what a finished run leaves --- */

static int write_values(const struct ft_job *j, const float *values, const char *folder)
{
    if (ft_job_trains_model(j))
        return ft_wholes_save(j, values, folder);
    return ft_adapter_save(j->adapter, values, folder, j->base_name);
}

int ft_output_adapter(const struct ft_job *j, const char *folder)
{
    const struct ft_tensor *t = ft_adapter_values(j->adapter);
    float *host;
    if (!j->backend->dev)
        return write_values(j, t->data, folder);
    FT_TRY(ft_alloc(&host, (size_t)t->cols, sizeof *host));
    int rc = ft_graph_read(j->graph, t, host);
    if (!rc)
        rc = write_values(j, host, folder);
    ft_free(host);
    return rc;
}

/* Where the folder fails, the temporary folder may not. */
static int write_result(const struct ft_output *o, const struct ft_job *j)
{
    const char *set = getenv("TMPDIR");
    int rc = ft_output_adapter(j, o->folder);
    if (rc != FT_ERESOURCE)
        return rc;
    char *there = ft_format("%s/ft-result-%ld", set && *set ? set : "/tmp", (long)getpid());
    if (there && !ft_make_folders(there) && !ft_output_adapter(j, there))
        ft_hint("the result is safe: it was written to '%s' instead", there);
    ft_free(there);
    return rc;
}

int ft_output_write(const struct ft_output *o, const struct ft_job *j)
{
    ft_output_release(o);
    FT_TRY(write_result(o, j)); /* first: it is what cost time */
    return ft_served_write(&j->served, j->config, j->model_path, o->folder);
}

/* --- run.json --- */

static json_t *real_or_null(double v)
{
    return v == v ? json_real(v) : json_null();
}

static json_t *result_json(const struct ft_train_result *r)
{
    return json_pack("{sI sI sI sI sI sf sf sf so so so so sI}", "steps", (json_int_t)r->steps,
                     "tokens", (json_int_t)r->tokens, "trained_tokens",
                     (json_int_t)r->trained_tokens, "skipped_steps", (json_int_t)r->skipped,
                     "moved", (json_int_t)r->moved, "seconds", r->seconds, "startup_seconds",
                     r->startup_seconds, "tokens_per_second", r->tokens_per_second, "first_loss",
                     real_or_null(r->first_loss), "last_loss", real_or_null(r->last_loss),
                     "first_eval_loss", real_or_null(r->first_eval), "last_eval_loss",
                     real_or_null(r->last_eval), "peak_bytes", (json_int_t)r->peak_bytes);
}

/* The audits of what was text. */
static json_t *data_json(const struct ft_job *j)
{
    json_t *list = json_array();
    for (int i = 0; i < j->n_data; i++)
        if (j->data[i].text)
            json_array_append_new(list, json_pack("{ss so}", "file", j->data[i].files[0], "audit",
                                                  ft_audit_json(&j->data[i].audit)));
    return list;
}

/* The template that conversations went through. */
static json_t *template_json(const struct ft_job *j)
{
    const char *name = j->config->chat_template;
    struct ft_sha256 h;
    char hex[65];
    if (!j->served.template)
        return json_null();
    ft_sha256_init(&h);
    ft_sha256_add(&h, j->served.template, strlen(j->served.template));
    ft_sha256_hex(&h, hex);
    return json_pack("{ss ss}", "name", name ? name : "tokenizer_default", "sha256", hex);
}

static json_t *base_json(const struct ft_job *j, const struct ft_licence *l)
{
    json_t *o =
        json_pack("{ss ss}", "name", j->base_name, "architecture", ft_model_architecture(j->model));
    if (o)
        ft_licence_to_json(l, o);
    return o;
}

/* All of it. r and h as for ft_output_run_json(). */
static json_t *run_json(const struct ft_output *o, const struct ft_job *j, const char *status,
                        const struct ft_train_result *r, struct ft_hashes *h,
                        const struct ft_licence *l)
{
    char hex[65];
    char *adapter = ft_path_join(o->folder, "adapter_model.safetensors");
    json_t *hashes = ft_hashes_json(h, r != NULL);
    if (r && !ft_job_trains_model(j) && adapter && ft_sha256_file(adapter, hex, NULL))
        json_object_set_new(hashes, "adapter", json_pack("{ss}", "adapter_model.safetensors", hex));
    json_t *root =
        json_pack("{ss ss ss ss ss si so so so so so so sI sI}", "status", status, "ft_version",
                  FT_VERSION, "device", j->backend->device, "cpu", ft_cpu_model(), "isa",
                  j->backend->isa, "threads", ft_pool_size(j->pool), "base_model", base_json(j, l),
                  "config", ft_config_json(j->config), "data", data_json(j), "template",
                  template_json(j), "sha256", hashes, "result", r ? result_json(r) : json_null(),
                  "trained_parameters", (json_int_t)ft_adapter_parameters(j->adapter),
                  "planned_bytes", (json_int_t)ft_job_memory(j));
    if (root && j->world)
        json_object_set_new(root, "ranks", json_integer(ft_world_size(j->world)));
    if (root && j->backend->dev) {
        json_object_set_new(root, "gpu", json_string(j->backend->dev->name));
        json_object_set_new(root, "planned_gpu_bytes", json_integer((json_int_t)j->plan.total));
        json_object_set_new(root, "kept_for_backward",
                            json_string(ft_recompute_labels[j->recompute]));
        json_object_set_new(root, "tuned_products", json_integer(j->tuned_products));
    }
    ft_free(adapter);
    return root;
}

int ft_output_run_json(const struct ft_output *o, const struct ft_job *j, const char *status,
                       const struct ft_train_result *r, struct ft_hashes *h)
{
    const unsigned since = ft_alloc_failures();
    struct ft_licence licence;
    char *path = ft_path_join(o->folder, "run.json");
    json_t *root = NULL;
    char *text = NULL;
    int rc = path ? ft_licence_read(&licence, j->model_path) : FT_ERESOURCE;
    if (!rc) {
        root = run_json(o, j, status, r, h, &licence);
        text = ft_json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(15), since);
        rc = text ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    }
    if (!rc && r)
        rc = ft_card_write(j, o->folder, root);
    ft_json_free(text);
    json_decref(root);
    ft_free(path);
    return rc;
}
