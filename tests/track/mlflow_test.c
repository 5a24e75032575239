/* The MLflow sink against a server of the test's own, which answers as MLflow does and fails now
 * and then. */
#include "track/mlflow.h"

#include "tests/check.h"
#include "track/track.h"

#include <arpa/inet.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
    int fd, port, requests;
    int numbers, params, created, runs;
    char status[32];
    pthread_t thread;
};

static void answer(int fd, int status, const char *body)
{
    char text[512];
    const int n = snprintf(text, sizeof text, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n%s",
                           status, strlen(body), body);
    CHECK(write(fd, text, (size_t)n) == n);
}

/* Head and body of a request. */
static const char *read_request(int fd, char *text, size_t room)
{
    size_t n = 0, length = 0;
    const char *body = NULL;
    for (ssize_t got; n + 1 < room && (got = read(fd, text + n, room - 1 - n)) > 0;) {
        n += (size_t)got;
        text[n] = 0;
        body = strstr(text, "\r\n\r\n");
        const char *says = strstr(text, "Content-Length: ");
        if (says)
            sscanf(says, "Content-Length: %zu", &length);
        if (body && n - (size_t)(body + 4 - text) >= length)
            break;
    }
    return body ? body + 4 : "";
}

static void serve(struct server *s, int fd)
{
    static char text[1 << 18];
    const char *body = read_request(fd, text, sizeof text);
    json_t *o = json_loads(body, 0, NULL);
    if (s->requests++ % 4 == 1) { /* every now and then it is not well */
        answer(fd, 503, "busy");
    } else if (strstr(text, "get-by-name?experiment_name=a%20b")) {
        answer(fd, 404, "{\"error_code\": \"RESOURCE_DOES_NOT_EXIST\"}");
    } else if (strstr(text, "experiments/create")) {
        s->created++;
        answer(fd, 200, "{\"experiment_id\": \"7\"}");
    } else if (strstr(text, "runs/create")) {
        s->runs += strcmp(json_string_value(json_object_get(o, "experiment_id")), "7") == 0;
        answer(fd, 200, "{\"run\": {\"info\": {\"run_id\": \"abc\"}}}");
    } else if (strstr(text, "runs/log-batch")) {
        s->numbers += (int)json_array_size(json_object_get(o, "metrics"));
        s->params += (int)json_array_size(json_object_get(o, "params"));
        answer(fd, 200, "{}");
    } else if (strstr(text, "runs/update")) {
        snprintf(s->status, sizeof s->status, "%s",
                 json_string_value(json_object_get(o, "status")));
        answer(fd, 200, "{}");
    } else {
        check_fail(__FILE__, __LINE__, "asked for: %.80s", text);
    }
    json_decref(o);
}

static void *run_server(void *arg)
{
    struct server *s = arg;
    for (int fd; (fd = accept(s->fd, NULL, NULL)) >= 0; close(fd))
        serve(s, fd);
    return NULL;
}

static void open_server(struct server *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(s->fd >= 0 && bind(s->fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(s->fd, 8) == 0);
    CHECK(getsockname(s->fd, (struct sockaddr *)&a, &n) == 0);
    s->port = ntohs(a.sin_port);
    CHECK(pthread_create(&s->thread, NULL, run_server, s) == 0);
}

CASE(numbers_arrive_though_the_server_fails_now_and_then)
{
    static struct server s;
    struct ft_track *t;
    char uri[64];
    open_server(&s);
    snprintf(uri, sizeof uri, "http://127.0.0.1:%d/", s.port);
    json_t *params = json_pack("{ss si sn sb}", "base_model", "m", "lora_r", 8, "unset", "flag", 1);
    const struct ft_mlflow_options mlflow = {
        .uri = uri, .experiment = "a b", .run = "r", .params = params};
    const struct ft_track_options o = {.mlflow = &mlflow};
    CHECK_INT(ft_track_open(&t, &o), FT_OK);
    json_decref(params);
    for (int i = 1; i <= 700; i++)
        ft_track_event(t, &(struct ft_event){.kind = FT_EVENT_STEP,
                                             .step = i,
                                             .steps = 700,
                                             .log = true,
                                             .loss = 3.0 / i,
                                             .grad_norm = i == 5 ? (double)NAN : 1});
    ft_track_event(t, &(struct ft_event){.kind = FT_EVENT_EVAL, .step = 700, .eval_loss = 2});
    ft_track_event(t, &(struct ft_event){.kind = FT_EVENT_END, .step = 700, .steps = 700});
    ft_track_close(t);
    shutdown(s.fd, SHUT_RDWR);
    close(s.fd);
    pthread_join(s.thread, NULL);
    CHECK_INT(s.created, 1);
    CHECK_INT(s.runs, 1);
    CHECK_INT(s.params, 3);
    CHECK_INT(s.numbers, 700 * 5 - 1 + 1);
    CHECK(strcmp(s.status, "FINISHED") == 0);
    CHECK(!strstr(ft_status_notices(), "did not get"));
}

CASE(other_addresses_are_refused)
{
    static const char *const bad[] = {"https://x", "x:5000", "http://", "file:///tmp",
                                      "http://h:p"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(ft_mlflow_check(bad[i]), FT_ECONFIG);
        ft_status_clear_errors();
    }
    CHECK_INT(ft_mlflow_check("http://h"), FT_OK);
    CHECK_INT(ft_mlflow_check("http://h:80/mlflow/"), FT_OK);
}
