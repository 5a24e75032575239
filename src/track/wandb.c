/* The W&B sink: an offline run, a folder that `wandb sync` uploads and `wandb leet` shows. Its file
 * has a head of 7 bytes and a log of protocol buffers in blocks as LevelDB lays them, with zlib's
 * CRC-32. Of wandb_internal.proto these fields are written: Record 1 num, 2 history, 3 summary,
 * 12 metric, 17 run, 18 exit, 21 header; the rest where it is put. A run that goes on is written
 * anew, from metrics.jsonl. Source: wandb/proto and core/internal of wandb 0.31. */
#include "track/wandb.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "track/internal.h"
#include "track/protobuf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK = 1 << 15, HEAD = 7, ROW = 4096 };
enum { NUM = 1, HISTORY = 2, SUMMARY = 3, METRIC = 12, RUN = 17, EXIT = 18, HEADER = 21 };
#define STEP_NAME "train/global_step"
#define PREFIX    "offline-run-"

struct wandb {
    int fd;
    size_t at; /* bytes of the file */
    uint64_t records, rows;
    double began, seconds; /* since 1970; of the run, as the last event has it */
    struct ft_bytes record;
    char id[128], folder[4096];
};

static double now(void)
{
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

/* --- the log --- */

/* A record, cut where blocks end; what is left of a block that has no room for a head is zeros. */
static bool append(struct wandb *w, const char *p, size_t n)
{
    static const char zeros[HEAD] = {0};
    enum { FULL = 1, FIRST = 2, MIDDLE = 3, LAST = 4 };
    for (bool first = true; first || n; first = false) {
        const size_t left = BLOCK - w->at % BLOCK;
        if (left < HEAD && !ft_sink_write(w->fd, zeros, left))
            return false;
        w->at += left < HEAD ? left : 0;
        const size_t room = BLOCK - w->at % BLOCK - HEAD, take = n < room ? n : room;
        const unsigned char type = (unsigned char)(take == n ? first ? FULL : LAST
                                                   : first   ? FIRST
                                                             : MIDDLE);
        const uint16_t length = (uint16_t)take;
        uint32_t crc = (uint32_t)crc32(crc32(0, &type, 1), (const void *)p, (uInt)take);
        unsigned char head[HEAD];
        memcpy(head, &crc, 4);
        memcpy(head + 4, &length, 2);
        head[6] = type;
        const struct iovec both[] = {{head, HEAD}, {(void *)(uintptr_t)p, take}};
        ssize_t done;
        do
            done = writev(w->fd, both, 2);
        while (done < 0 && errno == EINTR);
        if (done != (ssize_t)(HEAD + take))
            return false;
        w->at += HEAD + take;
        p += take;
        n -= take;
    }
    return true;
}

static size_t begin(struct wandb *w, int kind)
{
    w->record.n = 0;
    ft_pb_int(&w->record, NUM, ++w->records);
    return ft_pb_begin(&w->record, kind);
}

static bool end(struct wandb *w, size_t begun)
{
    ft_pb_end(&w->record, begun);
    return append(w, w->record.p, w->record.n);
}

/* --- records --- */

/* name: field 1 is a key, 2 a part of a nested one. */
static void put_item(struct wandb *w, int item, int name, const char *key, const char *json)
{
    const size_t begun = ft_pb_begin(&w->record, item);
    ft_pb_text(&w->record, name, key);
    ft_pb_text(&w->record, 16, json);
    ft_pb_end(&w->record, begun);
}

static void put_number(struct wandb *w, const char *key, double v, int digits)
{
    char text[32];
    snprintf(text, sizeof text, "%.*g", digits, v);
    put_item(w, 1, 2, key, text);
}

/* A row of the history, or what is last known of all that it has. */
static bool put_row(struct wandb *w, int kind, const struct ft_event *e,
                    const struct ft_value *values, int n)
{
    const size_t row = begin(w, kind);
    for (int i = 0; i < n; i++)
        put_number(w, values[i].name, values[i].v, 9); /* as in metrics.jsonl */
    put_number(w, STEP_NAME, (double)e->step, 17);
    put_number(w, "_step", (double)w->rows, 17);
    put_number(w, "_runtime", w->seconds, 9);
    put_number(w, "_timestamp", w->began + w->seconds, 15);
    if (kind == HISTORY) {
        const size_t step = ft_pb_begin(&w->record, 2);
        ft_pb_int(&w->record, 1, w->rows);
        ft_pb_end(&w->record, step);
    }
    return end(w, row);
}

static bool put_event(struct wandb *w, const struct ft_event *e)
{
    struct ft_value values[FT_VALUES];
    const int n = ft_event_values(e, values);
    if (!n)
        return true;
    const bool done = put_row(w, SUMMARY, e, values, n) && put_row(w, HISTORY, e, values, n);
    w->rows++;
    return done;
}

static bool put_header(struct wandb *w)
{
    const size_t header = begin(w, HEADER), version = ft_pb_begin(&w->record, 1);
    ft_pb_text(&w->record, 1, "ft " FT_VERSION);
    ft_pb_text(&w->record, 2, "0.70.0"); /* the oldest client that reads it */
    ft_pb_end(&w->record, version);
    return end(w, header);
}

/* All curves are over the step. */
static bool put_metrics(struct wandb *w)
{
    size_t metric = begin(w, METRIC), options;
    ft_pb_text(&w->record, 1, STEP_NAME);
    options = ft_pb_begin(&w->record, 6);
    ft_pb_int(&w->record, 3, 1); /* defined */
    ft_pb_end(&w->record, options);
    if (!end(w, metric))
        return false;
    metric = begin(w, METRIC);
    ft_pb_text(&w->record, 2, "*");
    ft_pb_text(&w->record, 4, STEP_NAME);
    options = ft_pb_begin(&w->record, 6);
    ft_pb_int(&w->record, 1, 1); /* step_sync */
    ft_pb_int(&w->record, 3, 1);
    ft_pb_end(&w->record, options);
    return end(w, metric);
}

static void put_config(struct wandb *w, const json_t *config)
{
    const char *key;
    json_t *v;
    const size_t begun = ft_pb_begin(&w->record, 4);
    json_object_foreach((json_t *)(uintptr_t)config, key, v)
    {
        char *text = json_is_null(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
        if (text)
            put_item(w, 1, 1, key, text);
        ft_json_free(text);
    }
    ft_pb_end(&w->record, begun);
}

static bool put_run(struct wandb *w, const struct ft_wandb_options *o)
{
    char host[128] = "host";
    gethostname(host, sizeof host - 1);
    const size_t run = begin(w, RUN);
    ft_pb_text(&w->record, 1, w->id);
    if (o->entity)
        ft_pb_text(&w->record, 2, o->entity);
    ft_pb_text(&w->record, 3, o->project);
    put_config(w, o->config);
    ft_pb_text(&w->record, 8, o->name);
    ft_pb_text(&w->record, 13, host);
    const size_t start = ft_pb_begin(&w->record, 17);
    ft_pb_int(&w->record, 1, (uint64_t)w->began);
    ft_pb_int(&w->record, 2, (uint64_t)((w->began - floor(w->began)) * 1e9));
    ft_pb_end(&w->record, start);
    return end(w, run);
}

static bool put_exit(struct wandb *w)
{
    const size_t exit = begin(w, EXIT);
    ft_pb_int(&w->record, 2, (uint64_t)w->seconds);
    return end(w, exit);
}

/* --- the rows of a run that goes on --- */

static bool parse_event(struct ft_event *e, const char *line, size_t n)
{
    json_t *o = json_loadb(line, n, 0, NULL);
    const json_t *eval = json_object_get(o, "eval_loss");
    const char *names[] = {"loss",  "grad_norm",         "learning_rate",
                           "epoch", "tokens_per_second", "seconds"};
    *e = (struct ft_event){.kind = eval ? FT_EVENT_EVAL : FT_EVENT_STEP, .log = true};
    double *const to[] = {&e->loss,  &e->grad_norm,         &e->learning_rate,
                          &e->epoch, &e->tokens_per_second, &e->seconds};
    for (size_t i = 0; i < sizeof to / sizeof *to; i++) {
        const json_t *v = json_object_get(o, names[i]);
        *to[i] = json_is_number(v) ? json_number_value(v) : (double)NAN;
    }
    e->eval_loss = json_is_number(eval) ? json_number_value(eval) : (double)NAN;
    e->step = json_integer_value(json_object_get(o, "step"));
    json_decref(o);
    return o != NULL;
}

/* The lines of metrics.jsonl in turn; each is put, or w is NULL, and only the seconds are asked
 * for. */
static bool each_line(struct wandb *w, const char *log, double *seconds)
{
    struct ft_event e;
    for (const char *end; (end = strchr(log, '\n')); log = end + 1) {
        if (!parse_event(&e, log, (size_t)(end - log)))
            continue;
        if (isfinite(e.seconds))
            *seconds = e.seconds;
        if (w && !put_event(w, &e))
            return false;
    }
    return true;
}

/* --- the sink --- */

int ft_wandb_check(const char *id, struct ft_where at)
{
    if (*id && strlen(id) <= 64 && !strpbrk(id, "/\\#?%: \t\n"))
        return FT_OK;
    ft_fail_at(at, FT_ECONFIG, "'%s' is no id of a W&B run", id);
    ft_hint("1 to 64 characters without spaces and / \\ # ? %% :");
    return FT_ECONFIG;
}

/* The newest run in the folder, and its id. */
static bool find_run(struct wandb *w, const struct ft_wandb_options *o)
{
    enum { STAMP = sizeof PREFIX - 1 + sizeof "20260101_000000-" - 1 };
    char newest[256] = "";
    DIR *d = opendir(o->folder);
    for (const struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, PREFIX, sizeof PREFIX - 1) == 0 && strlen(e->d_name) > STAMP &&
            strlen(e->d_name) < STAMP + sizeof w->id && strcmp(e->d_name, newest) > 0 &&
            (!o->run || strcmp(e->d_name + STAMP, o->run) == 0))
            snprintf(newest, sizeof newest, "%s", e->d_name);
    if (d)
        closedir(d);
    if (!newest[0])
        return false;
    memcpy(w->id, newest + STAMP, strlen(newest + STAMP) + 1);
    snprintf(w->folder, sizeof w->folder, "%s/%s", o->folder, newest);
    return true;
}

void ft_wandb_remove(const char *folder)
{
    char path[4096];
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, PREFIX, sizeof PREFIX - 1) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s/files", folder, e->d_name);
        ft_remove_folder(path);
        *strrchr(path, '/') = 0;
        ft_remove_folder(path);
    }
    if (d)
        closedir(d);
    rmdir(folder); /* unless there is more in it */
}

static void name_run(struct wandb *w, const struct ft_wandb_options *o)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    char stamp[32];
    struct tm local;
    const time_t t = time(NULL);
    uint64_t random = (uint64_t)getpid() ^ (uint64_t)t * 0x9e3779b97f4a7c15u;
    if (getrandom(&random, sizeof random, 0) < 0)
        errno = 0; /* the time and the process must do */
    for (size_t i = 0; i < 8; i++, random /= sizeof letters - 1)
        w->id[i] = letters[random % (sizeof letters - 1)];
    if (o->run)
        snprintf(w->id, sizeof w->id, "%s", o->run);
    strftime(stamp, sizeof stamp, "%Y%m%d_%H%M%S", localtime_r(&t, &local));
    snprintf(w->folder, sizeof w->folder, "%s/" PREFIX "%s-%s", o->folder, stamp, w->id);
}

static int write_begin(struct wandb *w, const struct ft_track_options *o, const char *log)
{
    static const unsigned char head[HEAD] = {':', 'W', '&', 'B', 0xe1, 0xbe, 0};
    char path[4400];
    const unsigned since = ft_alloc_failures();
    w->began = now();
    double before = 0;
    if (log)
        each_line(NULL, log, &before);
    w->began -= before;
    snprintf(path, sizeof path, "%s/files", w->folder); /* which the client expects */
    FT_TRY(ft_make_folders(path));
    snprintf(path, sizeof path, "%s/run-%s.wandb", w->folder, w->id);
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    bool done = w->fd >= 0 && ft_sink_write(w->fd, head, HEAD);
    w->at = HEAD;
    done = done && put_header(w) && put_run(w, o->wandb) && put_metrics(w) &&
           (!log || each_line(w, log, &w->seconds));
    FT_TRY(ft_alloc_check(since));
    return done ? FT_OK
                : ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot be written: %s",
                             strerror(errno));
}

int ft_wandb_open(void **state, const struct ft_track_options *o)
{
    struct wandb *w;
    char *log = NULL;
    size_t n;
    *state = NULL;
    if (!o->wandb)
        return FT_OK;
    FT_TRY(ft_alloc(&w, 1, sizeof *w));
    w->fd = -1;
    if (o->first_step <= 0 || !find_run(w, o->wandb))
        name_run(w, o->wandb);
    static const char room[ROW];
    int rc = ft_bytes_add(&w->record, room, ROW); /* what any row takes */
    if (!rc && o->first_step > 0)
        rc = ft_file_read(o->metrics_path, SIZE_MAX, FT_ERESOURCE, &log, &n);
    if (!rc)
        rc = write_begin(w, o, log);
    ft_free(log);
    if (rc) {
        ft_wandb_close(w);
        return rc;
    }
    ft_notice((struct ft_where){0}, "W&B: 'wandb sync %s' uploads the run; ft does not", w->folder);
    *state = w;
    return FT_OK;
}

bool ft_wandb_event(void *state, const struct ft_event *e)
{
    struct wandb *w = state;
    w->seconds = now() - w->began;
    if (e->kind == FT_EVENT_END)
        return e->interrupted || put_exit(w);
    return put_event(w, e);
}

void ft_wandb_close(void *state)
{
    struct wandb *w = state;
    if (w->fd >= 0)
        close(w->fd);
    ft_bytes_free(&w->record);
    ft_free(w);
}
