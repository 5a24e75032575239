/* The lock of a run folder: a file, made in one step, that names its holder, who touches it again
 * and again. flock does nothing on some shared file systems. */
#define _GNU_SOURCE
#include "train/internal.h"

#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A holder touches its lock every BEAT seconds; one on another machine that has not for PATIENCE
 * is gone. */
enum { BEAT = 10, PATIENCE = 45, LINE = 512 };

struct ft_lock {
    char path[4096], own[LINE];
    pthread_t thread;
    bool beats, locked;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool end;
};

/* --- who holds it --- */

struct holder {
    long pid;
    unsigned long long start; /* as /proc says: a number is used again */
    char host[128], job[128]; /* job: of Slurm, "-" outside */
};

static unsigned long long start_of(long pid)
{
    char path[64], text[1024];
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    const size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    if (f)
        fclose(f);
    const char *p = strrchr(text, ')'); /* behind the name, which may hold anything */
    if (p && (p[2] == 'Z' || p[2] == 'X'))
        return 0; /* it has ended */
    for (int i = 0; p && i < 20; i++)
        p = strchr(p + 1, ' ');
    if (p)
        start = strtoull(p, NULL, 10);
    return start;
}

static struct holder self(void)
{
    const char *job = getenv("SLURM_JOB_ID"), *again = getenv("SLURM_RESTART_COUNT");
    struct holder h = {.pid = (long)getpid(), .start = start_of(getpid())};
    if (gethostname(h.host, sizeof h.host - 1) || !h.host[0])
        strcpy(h.host, "localhost");
    if (job && strlen(job) < 64)
        snprintf(h.job, sizeof h.job, "%s.%.16s", job, again ? again : "0");
    else
        strcpy(h.job, "-");
    return h;
}

static void put_line(char line[LINE], const struct holder *h)
{
    snprintf(line, LINE, "%ld %llu %s %s\n", h->pid, h->start, h->host, h->job);
}

static bool parse(struct holder *h, const char *line)
{
    return sscanf(line, "%ld %llu %127s %127s", &h->pid, &h->start, h->host, h->job) == 4;
}

/* The lock's line and when it was touched; false: there is none. */
static bool look(const char *path, char line[LINE], struct timespec *touched)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const ssize_t n = read(fd, line, LINE - 1);
    line[n > 0 ? n : 0] = 0;
    const bool there = fstat(fd, &st) == 0;
    *touched = there ? st.st_mtim : (struct timespec){0};
    close(fd);
    return there;
}

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
}

/* Whether nobody touches or changes it for so long. */
static bool stands_still(const char *path, double seconds)
{
    char first[LINE], line[LINE];
    struct timespec was, is;
    if (!look(path, first, &was))
        return true;
    for (const double until = ft_now() + seconds; ft_now() < until;) {
        wait_a_little();
        if (!look(path, line, &is))
            return true;
        if (strcmp(first, line) != 0 || was.tv_sec != is.tv_sec || was.tv_nsec != is.tv_nsec)
            return false;
    }
    return true;
}

/* The first run of a job that was requeued is over, wherever it ran. */
static bool is_same_job(const struct holder *a, const struct holder *b)
{
    const char *x = strchr(a->job, '.'), *y = strchr(b->job, '.');
    return x && y && x - a->job == y - b->job &&
           strncmp(a->job, b->job, (size_t)(x - a->job)) == 0 && strcmp(x, y) != 0;
}

/* One that has been killed may take a moment to be gone. */
static bool is_running(const struct holder *h)
{
    for (int i = 0; i < 5 && h->start && start_of(h->pid) == h->start; i++)
        wait_a_little();
    return h->start && start_of(h->pid) == h->start;
}

static bool is_gone(const char *path, const char *line)
{
    const struct holder own = self();
    struct holder h;
    if (!parse(&h, line))
        return stands_still(path, 2); /* it is being written, or was never */
    if (strcmp(h.host, own.host) == 0)
        return !is_running(&h);
    if (is_same_job(&h, &own))
        return true;
    ft_waiting("waiting for a sign of life of process %ld on %s, which holds '%s': %d s at most",
               h.pid, h.host, path, PATIENCE);
    return stands_still(path, PATIENCE);
}

/* --- taking it --- */

/* Makes the lock, whole; false with errno. */
static bool make(const struct ft_lock *l)
{
    char temp[4400];
    const struct holder own = self();
    snprintf(temp, sizeof temp, "%s.%s.%ld", l->path, own.host, own.pid);
    unlink(temp);
    const int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return false;
    const size_t n = strlen(l->own);
    bool made = write(fd, l->own, n) == (ssize_t)n;
    int error = errno;
    if (close(fd) && made) {
        error = errno;
        made = false;
    }
    if (made && link(temp, l->path)) {
        error = errno;
        made = false;
        if (error == EPERM || error == EOPNOTSUPP || error == ENOSYS) { /* no links there */
            const int direct = open(l->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            error = errno;
            made = direct >= 0 && write(direct, l->own, n) == (ssize_t)n;
            if (direct >= 0)
                close(direct);
        }
    }
    unlink(temp);
    errno = error;
    return made;
}

/* Takes away what a holder who is gone has left; what another has made meanwhile goes back. */
static void clear(const struct ft_lock *l, const char *stale)
{
    char aside[4400], line[LINE];
    struct timespec touched;
    const struct holder own = self();
    snprintf(aside, sizeof aside, "%s.gone.%s.%ld", l->path, own.host, own.pid);
    if (rename(l->path, aside))
        return;
    if (look(aside, line, &touched) && strcmp(line, stale) != 0 && link(aside, l->path))
        wait_a_little();
    unlink(aside);
}

static int in_use(const char *folder, struct ft_where at, const char *line)
{
    struct holder h;
    if (parse(&h, line))
        ft_fail_at(at, FT_ECONFIG, "'%s' is in use by process %ld on %s", folder, h.pid, h.host);
    else
        ft_fail_at(at, FT_ECONFIG, "'%s' is in use by another process", folder);
    ft_hint("give each run its own 'output_dir'");
    return FT_ECONFIG;
}

static int take(struct ft_lock *l, const char *folder, struct ft_where at)
{
    char line[LINE];
    struct timespec touched;
    for (int i = 0; i < 100; i++) {
        if (make(l)) {
            l->locked = true;
            return FT_OK;
        }
        if (errno != EEXIST)
            return ft_fail_at((struct ft_where){.file = l->path}, FT_ERESOURCE, "cannot create: %s",
                              strerror(errno));
        if (!look(l->path, line, &touched))
            continue;
        if (strcmp(line, l->own) == 0 || !is_gone(l->path, line))
            return in_use(folder, at, line);
        clear(l, line);
    }
    return in_use(folder, at, "");
}

/* --- holding it --- */

static void *beat(void *arg)
{
    struct ft_lock *l = arg;
    pthread_mutex_lock(&l->mutex);
    while (!l->end) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += BEAT;
        pthread_cond_timedwait(&l->ended, &l->mutex, &until);
        if (!l->end)
            utimensat(AT_FDCWD, l->path, NULL, 0);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

int ft_lock_take(struct ft_lock **out, const char *path, const char *folder, struct ft_where at)
{
    const struct holder own = self();
    struct ft_lock *l;
    *out = NULL;
    FT_TRY(ft_alloc(&l, 1, sizeof *l));
    snprintf(l->path, sizeof l->path, "%s", path);
    put_line(l->own, &own);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&l->ended, &clock);
    pthread_condattr_destroy(&clock);
    int rc = take(l, folder, at);
    if (!rc && pthread_create(&l->thread, NULL, beat, l))
        rc = ft_fail(FT_ERESOURCE, "cannot start a thread");
    l->beats = !rc;
    if (rc) {
        ft_lock_free(l);
        return rc;
    }
    *out = l;
    return FT_OK;
}

int ft_lock_check(const struct ft_lock *l)
{
    char line[LINE];
    struct timespec touched;
    if (look(l->path, line, &touched) && strcmp(line, l->own) == 0)
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = l->path}, FT_ERESOURCE,
                      "is not this run's any more: another one has taken the folder");
}

void ft_lock_free(struct ft_lock *l)
{
    if (!l)
        return;
    if (l->beats) {
        pthread_mutex_lock(&l->mutex);
        l->end = true;
        pthread_cond_signal(&l->ended);
        pthread_mutex_unlock(&l->mutex);
        pthread_join(l->thread, NULL);
    }
    if (l->locked) {
        char line[LINE];
        struct timespec touched;
        if (look(l->path, line, &touched) && strcmp(line, l->own) == 0)
            unlink(l->path);
    }
    pthread_mutex_destroy(&l->mutex);
    pthread_cond_destroy(&l->ended);
    ft_free(l);
}
