/* The W&B sink: its file is read back as the client reads it, block by block and field by field. */
#include "track/wandb.h"

#include "core/file.h"
#include "core/mem.h"
#include "tests/check.h"
#include "track/track.h"

#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    BLOCK = 1 << 15,
    MOST = 1 << 21,
    HISTORY = 2,
    SUMMARY = 3,
    METRIC = 12,
    RUN = 17,
    EXIT = 18
};

static char folder[64];

struct log {
    unsigned char *bytes; /* records, end to end */
    size_t begin[4096], n;
};

static struct log read_log(const char *path)
{
    struct log l = {.bytes = malloc(MOST)};
    char *file;
    size_t size, at = 7, end = 0;
    CHECK_INT(ft_file_read(path, MOST, FT_EDATA, &file, &size), FT_OK);
    CHECK(memcmp(file, ":W&B\xe1\xbe", 7) == 0);
    while (at < size) {
        if (BLOCK - at % BLOCK < 7) {
            at += BLOCK - at % BLOCK;
            continue;
        }
        uint32_t crc;
        uint16_t n;
        memcpy(&crc, file + at, 4);
        memcpy(&n, file + at + 4, 2);
        const int type = file[at + 6];
        CHECK(at + 7 + n <= size && type >= 1 && type <= 4);
        CHECK(at / BLOCK == (at + 6 + n) / BLOCK);
        CHECK(crc == crc32(0, (unsigned char *)file + at + 6, n + 1u));
        memcpy(l.bytes + end, file + at + 7, n);
        end += n;
        if (type == 1 || type == 4)
            l.begin[++l.n] = end;
        at += 7u + n;
    }
    CHECK(end == l.begin[l.n]);
    ft_free(file);
    return l;
}

static uint64_t varint(const unsigned char **p)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        v |= (uint64_t)(**p & 127) << shift;
        if (*(*p)++ < 128)
            return v;
    }
}

/* The record's kind; CHECKs that its number is right and nothing is behind it. */
static int kind_of(const struct log *l, size_t i, const unsigned char **body, size_t *n)
{
    const unsigned char *p = l->bytes + l->begin[i];
    CHECK(*p++ == 1 << 3);
    CHECK(varint(&p) == i + 1);
    const int kind = (int)(varint(&p) >> 3);
    *n = varint(&p);
    *body = p;
    CHECK(p + *n == l->bytes + l->begin[i + 1]);
    return kind;
}

static bool has(const unsigned char *p, size_t n, const char *text)
{
    return memmem(p, n, text, strlen(text)) != NULL;
}

static struct log read_only(char *path_out)
{
    glob_t g;
    char pattern[128];
    snprintf(pattern, sizeof pattern, "%s/offline-run-*/run-*.wandb", folder);
    CHECK(glob(pattern, 0, NULL, &g) == 0 && g.gl_pathc == 1);
    snprintf(path_out, 512, "%s", g.gl_pathv[0]);
    globfree(&g);
    return read_log(path_out);
}

static int count(const struct log *l, int kind, const char *text)
{
    int found = 0;
    for (size_t i = 0, n; i < l->n; i++) {
        const unsigned char *p;
        found += kind_of(l, i, &p, &n) == kind && has(p, n, text);
    }
    return found;
}

static struct ft_track *open_sink(const struct ft_wandb_options *w, const char *metrics,
                                  int64_t first_step)
{
    struct ft_track *t;
    const struct ft_track_options o = {
        .wandb = w, .metrics_path = metrics, .first_step = first_step};
    CHECK_INT(ft_track_open(&t, &o), FT_OK);
    return t;
}

static void steps(struct ft_track *t, int from, int to, int of)
{
    for (int i = from; i <= to; i++)
        ft_track_event(t, &(struct ft_event){.kind = FT_EVENT_STEP,
                                             .step = i,
                                             .steps = of,
                                             .log = true,
                                             .loss = 3.0 / i,
                                             .seconds = i,
                                             .grad_norm = i == 5 ? (double)NAN : 1});
}

CASE(a_run_is_kept_and_goes_on)
{
    enum { LONG = 100000, STEPS = 600 };
    char metrics[96], path[512], again[512];
    char *text = malloc(LONG + 1);
    snprintf(folder, sizeof folder, "/tmp/ft-wandb-%ld", (long)getpid());
    CHECK_INT(ft_make_folders(folder), FT_OK);
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", folder);
    memset(text, 'x', LONG);
    text[LONG] = 0;
    json_t *config = json_pack("{ss sf sn}", "long", text, "lr", 0.5, "unset");
    const struct ft_wandb_options w = {
        .folder = folder, .project = "p q", .name = "the name", .config = config};

    struct ft_track *t = open_sink(&w, metrics, 0);
    steps(t, 1, STEPS, STEPS + 1);
    ft_track_event(t, &(struct ft_event){.kind = FT_EVENT_EVAL, .step = STEPS, .eval_loss = 2});
    ft_track_close(t); /* killed: nothing says its end */
    struct log l = read_only(path);
    CHECK_INT(count(&l, RUN, text), 1);
    CHECK_INT(count(&l, RUN, "p q"), 1);
    CHECK_INT(count(&l, RUN, "unset"), 0);
    CHECK_INT(count(&l, METRIC, "train/global_step"), 2);
    CHECK_INT(count(&l, HISTORY, "train/loss"), STEPS);
    CHECK_INT(count(&l, SUMMARY, "train/loss"), STEPS);
    CHECK_INT(count(&l, HISTORY, "train/grad_norm"), STEPS - 1);
    CHECK_INT(count(&l, HISTORY, "eval/loss"), 1);
    CHECK_INT(count(&l, EXIT, ""), 0);
    free(l.bytes);

    t = open_sink(&w, metrics, STEPS);
    steps(t, STEPS + 1, STEPS + 1, STEPS + 1);
    ft_track_event(t,
                   &(struct ft_event){.kind = FT_EVENT_END, .step = STEPS + 1, .steps = STEPS + 1});
    ft_track_close(t);
    l = read_only(again);
    CHECK(strcmp(path, again) == 0);
    CHECK_INT(count(&l, HISTORY, "train/loss"), STEPS + 1);
    CHECK_INT(count(&l, HISTORY, "train/grad_norm"), STEPS);
    CHECK_INT(count(&l, HISTORY, "eval/loss"), 1);
    CHECK_INT(count(&l, EXIT, ""), 1);
    free(l.bytes);
    json_decref(config);
    free(text);
    snprintf(again, sizeof again, "rm -r %s", folder);
    CHECK_INT(system(again), 0);
}

CASE(ids_that_the_client_refuses)
{
    const struct ft_where at = {.file = "c.yaml", .line = 3};
    CHECK_INT(ft_wandb_check("abc-1_2.x", at), FT_OK);
    for (const char *const *bad = (const char *const[]){"", "a/b", "a b", NULL}; *bad; bad++) {
        CHECK_INT(ft_wandb_check(*bad, at), FT_ECONFIG);
        ft_status_clear_errors();
    }
}
