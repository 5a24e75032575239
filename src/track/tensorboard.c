/* The TensorBoard sink: an event file, as TensorFlow's record format and event.proto lay it. A
 * record is its length and its bytes, each with a masked CRC-32C behind; of the protocol buffers
 * these fields are written: Event 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log;
 * Summary 1 value; Value 1 tag, 2 simple_value; SessionLog 1 status. */
#include "track/internal.h"

#include "core/file.h"
#include "core/mem.h"
#include "track/protobuf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { ROOM = 1024 };

struct tensorboard {
    int fd;
    uint32_t crc[256];
    struct ft_bytes event, record;
};

/* --- events --- */

/* An event of now; its step if it has one. */
static void begin_event(struct ft_bytes *m, int64_t step)
{
    struct timeval now;
    m->n = 0;
    gettimeofday(&now, NULL);
    ft_pb_double(m, 1, (double)now.tv_sec + (double)now.tv_usec * 1e-6);
    if (step > 0)
        ft_pb_int(m, 2, (uint64_t)step);
}

static void add_value(struct ft_bytes *m, const struct ft_value *v)
{
    const size_t value = ft_pb_begin(m, 1);
    ft_pb_text(m, 1, v->name);
    ft_pb_float(m, 2, (float)v->v);
    ft_pb_end(m, value);
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

static uint32_t masked_crc(const struct tensorboard *t, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++)
        c = c >> 8 ^ t->crc[(c ^ p[i]) & 255];
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* The event, as a record of the file. */
static bool write_record(struct tensorboard *t)
{
    struct ft_bytes *r = &t->record;
    const unsigned since = ft_alloc_failures();
    const uint64_t length = t->event.n;
    uint32_t crc = masked_crc(t, &length, sizeof length);
    r->n = 0;
    ft_bytes_add(r, (const char *)&length, sizeof length);
    ft_bytes_add(r, (const char *)&crc, sizeof crc);
    ft_bytes_add(r, t->event.p, t->event.n);
    crc = masked_crc(t, t->event.p, t->event.n);
    ft_bytes_add(r, (const char *)&crc, sizeof crc);
    return since == ft_alloc_failures() && ft_sink_write(t->fd, r->p, r->n);
}

/* --- the sink --- */

/* The version, and where a run goes on: what an earlier file has behind that is no longer shown. */
static bool write_head(struct tensorboard *t, int64_t first_step)
{
    begin_event(&t->event, 0);
    ft_pb_text(&t->event, 3, "brain.Event:2");
    if (!write_record(t))
        return false;
    if (first_step <= 0)
        return true;
    begin_event(&t->event, first_step + 1);
    const size_t log = ft_pb_begin(&t->event, 7);
    ft_pb_int(&t->event, 1, 1); /* SessionLog's status: START */
    ft_pb_end(&t->event, log);
    return write_record(t);
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
    static const char room[ROOM];
    int rc = ft_bytes_add(&t->event, room, ROOM); /* what any event takes */
    if (!rc)
        rc = ft_bytes_add(&t->record, room, ROOM);
    if (!rc)
        rc = open_file(t, o);
    if (rc) {
        ft_tensorboard_close(t);
        return rc;
    }
    *state = t;
    return FT_OK;
}

bool ft_tensorboard_event(void *state, const struct ft_event *e)
{
    struct tensorboard *t = state;
    struct ft_value values[FT_VALUES];
    const int n = ft_event_values(e, values);
    if (!n)
        return true;
    begin_event(&t->event, e->step);
    const size_t summary = ft_pb_begin(&t->event, 5);
    for (int i = 0; i < n; i++)
        add_value(&t->event, &values[i]);
    ft_pb_end(&t->event, summary);
    return write_record(t);
}

void ft_tensorboard_close(void *state)
{
    struct tensorboard *t = state;
    if (t->fd >= 0)
        close(t->fd);
    ft_bytes_free(&t->event);
    ft_bytes_free(&t->record);
    ft_free(t);
}
