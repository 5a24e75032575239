/* The MLflow sink: a thread sends what happens to a tracking server over REST, plain HTTP, in
 * batches. Training never waits for it: what the server does not take is tried again, at the end
 * for some seconds more, and then a line says how much was lost. */
#include "track/mlflow.h"

#include "core/clock.h"
#include "core/json.h"
#include "core/mem.h"
#include "track/internal.h"

#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    RING = 1 << 14, /* numbers that wait */
    BATCH = 500,    /* of a request */
    PARAMS = 100,   /* of a request, as the server has it */
    PARAM = 6000,   /* bytes of one, as the server has it */
    ANSWER = 1 << 16,
    TIMEOUT = 10, /* seconds that a request may take */
    LAST = 15,    /* seconds that are left to it once training has ended */
    LONGEST = 20, /* seconds between two tries */
};

struct number {
    const char *key; /* a text of the program's */
    double value;
    int64_t step, when; /* milliseconds since 1970 */
};

struct mlflow {
    char host[256], port[16], path[256];
    char experiment[64], run[64]; /* ids, once they are known */
    struct ft_mlflow_options o;
    json_t *params;
    size_t params_sent;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct number *ring;
    int64_t first, n, lost;
    bool closing, finished;
    double until; /* by ft_now(), once it closes */
    char *answer;
    char why[160]; /* what went wrong last */
};

/* --- the address --- */

static bool parse_uri(struct mlflow *m, const char *uri)
{
    int at = 0;
    if (strncmp(uri, "http://", 7) != 0)
        return false;
    snprintf(m->port, sizeof m->port, "80");
    m->path[0] = 0;
    if (sscanf(uri + 7, "%255[^:/]%n", m->host, &at) != 1)
        return false;
    const char *rest = uri + 7 + at;
    if (*rest == ':' && sscanf(rest + 1, "%15[0-9]%n", m->port, &at) == 1)
        rest += 1 + at;
    snprintf(m->path, sizeof m->path, "%s", rest);
    for (size_t n = strlen(m->path); n && m->path[n - 1] == '/'; n--)
        m->path[n - 1] = 0;
    return !*rest || *rest == '/';
}

int ft_mlflow_check(const char *uri)
{
    struct mlflow m;
    if (parse_uri(&m, uri))
        return FT_OK;
    ft_fail(FT_ECONFIG, "'mlflow_tracking_uri' is '%s'; ft speaks to http://HOST:PORT only", uri);
    ft_hint("'mlflow server' on this machine listens at http://127.0.0.1:5000");
    return FT_ECONFIG;
}

/* --- HTTP --- */

static int fail(struct mlflow *m, const char *what)
{
    snprintf(m->why, sizeof m->why, "%s", what);
    return -1;
}

static int dial(struct mlflow *m)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    const struct timeval limit = {.tv_sec = TIMEOUT};
    struct addrinfo *list = NULL;
    int fd = -1;
    if (getaddrinfo(m->host, m->port, &hints, &list))
        return fail(m, "its name is not known");
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if (connect(fd, a->ai_addr, a->ai_addrlen)) {
            close(fd);
            fd = -1;
        }
    }
    const int why = errno;
    freeaddrinfo(list);
    return fd >= 0 ? fd : fail(m, why == EINPROGRESS ? "it does not answer" : strerror(why));
}

static bool send_all(int fd, const char *p, size_t n)
{
    while (n) {
        const ssize_t put = send(fd, p, n, MSG_NOSIGNAL);
        if (put <= 0)
            return false;
        p += put;
        n -= (size_t)put;
    }
    return true;
}

/* The whole answer; its status, or -1. */
static int receive(struct mlflow *m, int fd)
{
    const double until = ft_now() + TIMEOUT; /* also for one that comes byte by byte */
    size_t n = 0;
    ssize_t got;
    int status = -1;
    while (n + 1 < ANSWER && ft_now() < until &&
           (got = recv(fd, m->answer + n, ANSWER - 1 - n, 0)) > 0)
        n += (size_t)got;
    m->answer[n] = 0;
    if (sscanf(m->answer, "HTTP/1.%*d %d", &status) != 1)
        return fail(m, n ? "it does not answer in HTTP" : "it does not answer");
    return status;
}

/* The JSON of the answer; NULL: there is none. */
static json_t *answered(const struct mlflow *m)
{
    const char *body = strstr(m->answer, "\r\n\r\n");
    const char *open = body ? strchr(body, '{') : NULL, *end = body ? strrchr(body, '}') : NULL;
    return open && end > open ? json_loadb(open, (size_t)(end - open) + 1, 0, NULL) : NULL;
}

/* A request; its status and, in *out, what was answered. body is released. */
static int ask(struct mlflow *m, const char *method, const char *what, json_t *body, json_t **out)
{
    char head[1024];
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    const size_t n = text ? strlen(text) : 0;
    json_decref(body);
    *out = NULL;
    snprintf(
        head, sizeof head,
        "%s %s/api/2.0/mlflow/%s HTTP/1.1\r\nHost: %s:%s\r\nUser-Agent: ft/" FT_VERSION
        "\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
        method, m->path, what, m->host, m->port, n);
    const int fd = dial(m);
    int status = -1;
    if (fd >= 0 && send_all(fd, head, strlen(head)) && (!n || send_all(fd, text, n)))
        status = receive(m, fd);
    else if (fd >= 0)
        fail(m, "the connection breaks");
    if (fd >= 0)
        close(fd);
    ft_json_free(text);
    if (status >= 0)
        *out = answered(m);
    if (status >= 300)
        snprintf(m->why, sizeof m->why, "it answers %d: %.120s", status,
                 json_string_value(json_object_get(*out, "message"))
                     ? json_string_value(json_object_get(*out, "message"))
                     : "");
    return status;
}

static int post(struct mlflow *m, const char *what, json_t *body)
{
    json_t *out;
    const int status = ask(m, "POST", what, body, &out);
    json_decref(out);
    return status;
}

static bool posted(struct mlflow *m, const char *what, json_t *body)
{
    const int status = post(m, what, body);
    return status >= 200 && status < 300;
}

/* --- the run --- */

static int64_t now_ms(void)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    return (int64_t)now.tv_sec * 1000 + now.tv_usec / 1000;
}

static bool take_id(struct mlflow *m, const json_t *o, const char *part, const char *key, char *to,
                    size_t room)
{
    const json_t *in = part ? json_object_get(o, part) : o;
    in = part && strcmp(part, "run") == 0 ? json_object_get(in, "info") : in;
    const char *id = json_string_value(json_object_get(in, key));
    if (!id || strlen(id) >= room)
        return fail(m, "its answer has no id"), false;
    memcpy(to, id, strlen(id) + 1);
    return true;
}

static void escape_query(char *out, size_t room, const char *text)
{
    size_t n = 0;
    for (; *text && n + 4 < room; text++)
        n += (size_t)snprintf(out + n, room - n,
                              strchr("-_.~", *text) || (*text >= '0' && *text <= '9') ||
                                      ((*text | 32) >= 'a' && (*text | 32) <= 'z')
                                  ? "%c"
                                  : "%%%02X",
                              (unsigned char)*text);
    out[n] = 0;
}

static bool find_experiment(struct mlflow *m)
{
    char name[600], what[700];
    json_t *out;
    escape_query(name, sizeof name, m->o.experiment);
    snprintf(what, sizeof what, "experiments/get-by-name?experiment_name=%s", name);
    int status = ask(m, "GET", what, NULL, &out);
    bool there = status == 200 && take_id(m, out, "experiment", "experiment_id", m->experiment,
                                          sizeof m->experiment);
    json_decref(out);
    if (there || status != 404)
        return there;
    status = ask(m, "POST", "experiments/create", json_pack("{ss}", "name", m->o.experiment), &out);
    there = status == 200 &&
            take_id(m, out, NULL, "experiment_id", m->experiment, sizeof m->experiment);
    json_decref(out);
    return there;
}

static bool begin_run(struct mlflow *m)
{
    json_t *out,
        *body = json_pack("{ss sI s[{ss ss}{ss ss}]}", "experiment_id", m->experiment, "start_time",
                          (json_int_t)now_ms(), "tags", "key", "mlflow.source.name", "value", "ft",
                          "key", "mlflow.source.type", "value", "LOCAL");
    if (m->o.run)
        json_object_set_new(body, "run_name", json_string(m->o.run));
    const int status = ask(m, "POST", "runs/create", body, &out);
    const bool there = status == 200 && take_id(m, out, "run", "run_id", m->run, sizeof m->run);
    json_decref(out);
    return there;
}

/* The next parameters that are set; those that it refuses are left, as they would be again. */
static bool send_params(struct mlflow *m)
{
    const size_t all = json_array_size(m->params);
    while (m->params_sent < all) {
        json_t *list = json_array();
        size_t i = m->params_sent;
        for (; i < all && json_array_size(list) < PARAMS; i++)
            json_array_append(list, json_array_get(m->params, i));
        const int status =
            post(m, "runs/log-batch", json_pack("{ss so}", "run_id", m->run, "params", list));
        if (status < 200 || status >= 500)
            return false;
        m->params_sent = i;
    }
    return true;
}

static bool send_batch(struct mlflow *m)
{
    struct number batch[BATCH];
    pthread_mutex_lock(&m->lock);
    const int64_t n = m->n < BATCH ? m->n : BATCH, first = m->first;
    for (int64_t i = 0; i < n; i++)
        batch[i] = m->ring[(first + i) % RING];
    pthread_mutex_unlock(&m->lock);
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list,
                              json_pack("{ss sf sI sI}", "key", batch[i].key, "value",
                                        batch[i].value, "timestamp", (json_int_t)batch[i].when,
                                        "step", (json_int_t)batch[i].step));
    if (!posted(m, "runs/log-batch", json_pack("{ss so}", "run_id", m->run, "metrics", list)))
        return false;
    pthread_mutex_lock(&m->lock);
    const int64_t gone = m->first - first; /* pushed out meanwhile */
    if (n > gone) {
        m->first += n - gone;
        m->n -= n - gone;
    }
    pthread_mutex_unlock(&m->lock);
    return true;
}

static bool send_end(struct mlflow *m)
{
    return posted(m, "runs/update",
                  json_pack("{ss ss sI}", "run_id", m->run, "status",
                            m->finished ? "FINISHED" : "KILLED", "end_time", (json_int_t)now_ms()));
}

/* Whatever is next; false: it failed. */
static bool one_step(struct mlflow *m)
{
    return !m->experiment[0]                             ? find_experiment(m)
           : !m->run[0]                                  ? begin_run(m)
           : m->params_sent < json_array_size(m->params) ? send_params(m)
                                                         : send_batch(m);
}

/* Waits for numbers, or for the end, or some seconds (0: not). */
static void wait_for_more(struct mlflow *m, int seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds ? seconds : 3600;
    pthread_mutex_lock(&m->lock);
    while (!m->closing && (seconds || !m->n))
        if (pthread_cond_timedwait(&m->more, &m->lock, &until))
            break;
    pthread_mutex_unlock(&m->lock);
}

static void *work(void *arg)
{
    struct mlflow *m = arg;
    int pause = 1;
    sigset_t all;
    sigfillset(&all); /* they are for the training's thread */
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (;;) {
        pthread_mutex_lock(&m->lock);
        const bool closing = m->closing,
                   idle = m->run[0] && !m->n && m->params_sent >= json_array_size(m->params);
        const double until = m->until;
        pthread_mutex_unlock(&m->lock);
        if (closing && (ft_now() > until || (idle && send_end(m))))
            return NULL;
        if (idle && !closing) {
            wait_for_more(m, 0);
        } else if (idle || !one_step(m)) {
            if (closing)
                usleep(300 * 1000);
            else
                wait_for_more(m, pause);
            pause = pause * 2 > LONGEST ? LONGEST : pause * 2;
        } else {
            pause = 1;
        }
    }
}

/* --- the sink --- */

static void note(struct mlflow *m, const char *key, double value, int64_t step)
{
    if (!isfinite(value))
        return;
    pthread_mutex_lock(&m->lock);
    if (m->n == RING) {
        m->first++;
        m->n--;
        m->lost++;
    }
    m->ring[(m->first + m->n++) % RING] = (struct number){key, value, step, now_ms()};
    pthread_cond_signal(&m->more);
    pthread_mutex_unlock(&m->lock);
}

/* A value as a text that the server takes. */
static json_t *param_of(const json_t *v)
{
    char *dumped = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    const char *text = dumped ? dumped : json_string_value(v);
    size_t n = text ? strlen(text) : 0;
    if (n > PARAM)
        for (n = PARAM; n && (text[n] & 0xc0) == 0x80; n--)
            ;
    json_t *out = json_stringn(text ? text : "", n);
    ft_json_free(dumped);
    return out;
}

static int list_params(struct mlflow *m)
{
    const unsigned since = ft_alloc_failures();
    const char *key;
    json_t *v;
    m->params = json_array();
    json_object_foreach((json_t *)(uintptr_t)m->o.params, key, v)
    {
        if (!json_is_null(v))
            json_array_append_new(m->params,
                                  json_pack("{ss so}", "key", key, "value", param_of(v)));
    }
    return ft_alloc_check(since);
}

int ft_mlflow_open(void **state, const struct ft_track_options *o)
{
    struct mlflow *m;
    *state = NULL;
    if (!o->mlflow)
        return FT_OK;
    FT_TRY(ft_mlflow_check(o->mlflow->uri));
    FT_TRY(ft_alloc(&m, 1, sizeof *m));
    m->o = *o->mlflow;
    parse_uri(m, m->o.uri);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->more, NULL);
    int rc = ft_alloc(&m->ring, RING, sizeof *m->ring);
    if (!rc)
        rc = ft_alloc(&m->answer, ANSWER, 1);
    if (!rc)
        rc = list_params(m);
    if (!rc && pthread_create(&m->thread, NULL, work, m))
        rc = ft_fail(FT_ERESOURCE, "no thread can be made");
    if (rc) {
        json_decref(m->params);
        ft_free(m->ring);
        ft_free(m->answer);
        ft_free(m);
        return rc;
    }
    *state = m;
    return FT_OK;
}

bool ft_mlflow_event(void *state, const struct ft_event *e)
{
    struct mlflow *m = state;
    if (e->kind == FT_EVENT_STEP && e->log) {
        note(m, "loss", e->loss, e->step);
        note(m, "grad_norm", e->grad_norm, e->step);
        note(m, "learning_rate", e->learning_rate, e->step);
        note(m, "epoch", e->epoch, e->step);
        note(m, "tokens_per_second", e->tokens_per_second, e->step);
    } else if (e->kind == FT_EVENT_EVAL) {
        note(m, "eval_loss", e->eval_loss, e->step);
    } else if (e->kind == FT_EVENT_END) {
        m->finished = e->step >= e->steps;
    }
    return true;
}

void ft_mlflow_close(void *state)
{
    struct mlflow *m = state;
    pthread_mutex_lock(&m->lock);
    m->closing = true;
    m->until = ft_now() + LAST;
    pthread_cond_signal(&m->more);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    if (m->n + m->lost > 0 || !m->run[0])
        ft_notice((struct ft_where){0},
                  "MLflow at '%s' did not get %lld numbers: %s; metrics.jsonl has them", m->o.uri,
                  (long long)(m->n + m->lost), m->why[0] ? m->why : "it was too slow");
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->more);
    json_decref(m->params);
    ft_free(m->ring);
    ft_free(m->answer);
    ft_free(m);
}
