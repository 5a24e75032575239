/* The TensorBoard sink: an event file, as TensorFlow's record format and event.proto lay it. A
 * record is its length and its bytes, each with a masked CRC-32C behind; of the protocol buffers
 * these fields are written: Event 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log;
 * Summary 1 value; Value 1 tag, 2 simple_value; SessionLog 1 status. */
#include "track/internal.h"

#include "core/file.h"
#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

struct tensorboard {
    int fd;
    uint32_t crc[256];
};

enum { ROOM = 512 };
struct message {
    unsigned char p[ROOM];
    size_t n;
};

/* --- protocol buffers --- */

static void put(struct message *m, const void *p, size_t n)
{
    FT_ASSERT(m->n + n <= ROOM);
    memcpy(m->p + m->n, p, n);
    m->n += n;
}

static void put_varint(struct message *m, uint64_t v)
{
    do {
        const unsigned char b = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
        put(m, &b, 1);
        v >>= 7;
    } while (v);
}

enum wire { VARINT = 0, BITS64 = 1, BYTES = 2, BITS32 = 5 };

static void put_field(struct message *m, int field, enum wire wire)
{
    put_varint(m, (uint64_t)field << 3 | wire);
}

static void put_bytes(struct message *m, int field, const void *p, size_t n)
{
    put_field(m, field, BYTES);
    put_varint(m, n);
    put(m, p, n);
}

/* An event of now; its step if it has one. */
static void begin_event(struct message *m, int64_t step)
{
    struct timeval now;
    m->n = 0;
    gettimeofday(&now, NULL);
    const double seconds = (double)now.tv_sec + (double)now.tv_usec * 1e-6;
    put_field(m, 1, BITS64);
    put(m, &seconds, sizeof seconds);
    if (step > 0) {
        put_field(m, 2, VARINT);
        put_varint(m, (uint64_t)step);
    }
}

static void add_value(struct message *summary, const char *tag, double v)
{
    struct message value = {.n = 0};
    const float single = (float)v;
    put_bytes(&value, 1, tag, strlen(tag));
    put_field(&value, 2, BITS32);
    put(&value, &single, sizeof single);
    put_bytes(summary, 1, value.p, value.n);
}

/* --- records --- */

static void make_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1; /* Castagnoli's, reflected */
        table[i] = c;
    }
}

static uint32_t masked_crc(const struct tensorboard *t, const unsigned char *p, size_t n)
{
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++)
        c = c >> 8 ^ t->crc[(c ^ p[i]) & 255];
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static bool write_record(const struct tensorboard *t, const struct message *m)
{
    unsigned char record[ROOM + 16];
    const uint64_t length = m->n;
    memcpy(record, &length, sizeof length);
    uint32_t crc = masked_crc(t, record, sizeof length);
    memcpy(record + 8, &crc, sizeof crc);
    memcpy(record + 12, m->p, m->n);
    crc = masked_crc(t, m->p, m->n);
    memcpy(record + 12 + m->n, &crc, sizeof crc);
    const size_t n = m->n + 16;
    ssize_t done;
    do
        done = write(t->fd, record, n);
    while (done < 0 && errno == EINTR);
    return done == (ssize_t)n;
}

/* --- the sink --- */

/* The version, and where a run goes on: what an earlier file has behind that is no longer shown. */
static bool write_head(const struct tensorboard *t, int64_t first_step)
{
    static const char version[] = "brain.Event:2";
    static const unsigned char started[] = {1 << 3, 1}; /* SessionLog's status: START */
    struct message m;
    begin_event(&m, 0);
    put_bytes(&m, 3, version, sizeof version - 1);
    if (!write_record(t, &m))
        return false;
    begin_event(&m, first_step + 1);
    put_bytes(&m, 7, started, sizeof started);
    return first_step <= 0 || write_record(t, &m);
}

static int open_file(struct tensorboard *t, const struct ft_track_options *o)
{
    struct timeval now;
    char host[128] = "host", path[4096];
    gettimeofday(&now, NULL);
    gethostname(host, sizeof host - 1);
    snprintf(path, sizeof path, "%s/events.out.tfevents.%010lld.%s.%ld.0", o->tensorboard,
             (long long)now.tv_sec, host, (long)getpid());
    FT_TRY(ft_make_folders(o->tensorboard));
    t->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (t->fd < 0 || !write_head(t, o->first_step))
        return ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot be written: %s",
                          strerror(errno));
    return FT_OK;
}

int ft_tensorboard_open(void **state, const struct ft_track_options *o)
{
    struct tensorboard *t;
    *state = NULL;
    if (!o->tensorboard)
        return FT_OK;
    FT_TRY(ft_alloc(&t, 1, sizeof *t));
    t->fd = -1;
    make_table(t->crc);
    int rc = open_file(t, o);
    if (rc) {
        ft_tensorboard_close(t);
        return rc;
    }
    *state = t;
    return FT_OK;
}

bool ft_tensorboard_event(void *state, const struct ft_event *e)
{
    const struct tensorboard *t = state;
    const bool step = e->kind == FT_EVENT_STEP && e->log;
    const struct {
        const char *tag;
        double v;
        bool there;
    } values[] = {{"train/loss", e->loss, step},
                  {"train/grad_norm", e->grad_norm, step},
                  {"train/learning_rate", e->learning_rate, step},
                  {"train/epoch", e->epoch, step},
                  {"train/tokens_per_second", e->tokens_per_second, step},
                  {"eval/loss", e->eval_loss, e->kind == FT_EVENT_EVAL}};
    struct message m, summary = {.n = 0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (values[i].there && isfinite(values[i].v))
            add_value(&summary, values[i].tag, values[i].v);
    if (!summary.n)
        return true;
    begin_event(&m, e->step);
    put_bytes(&m, 5, summary.p, summary.n);
    return write_record(t, &m);
}

void ft_tensorboard_close(void *state)
{
    struct tensorboard *t = state;
    if (t->fd >= 0)
        close(t->fd);
    ft_free(t);
}
