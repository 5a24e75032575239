/* Owns temporary folders: gone when the command ends, by a signal too; what a killed one leaves is
 * removed by the next. */
#include "cli/cli.h"

#include "core/file.h"
#include "core/mem.h"
#include "core/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char prefix[] = "ft-scratch-";

/* A folder is locked as long as its process lives. */
static int lock(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void sweep(const char *base)
{
    DIR *d = opendir(base);
    for (const struct dirent *e; d && (e = readdir(d));) {
        char *path = ft_starts_with(e->d_name, prefix) ? ft_path_join(base, e->d_name) : NULL;
        const int fd = path ? lock(path) : -1;
        struct stat is;
        if (fd >= 0 && fstat(fd, &is) == 0 && time(NULL) - is.st_mtime > 5) /* else it may be new */
            ft_remove_folder(path);
        if (fd >= 0)
            close(fd);
        ft_free(path);
    }
    if (d)
        closedir(d);
    ft_status_clear_errors(); /* short of memory: the next one sweeps */
}

enum { WAKE = SIGUSR1 }; /* the waiter: it is no longer needed */

static sigset_t ending(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, WAKE);
    return set;
}

static void *end_with_signal(void *ctx)
{
    const struct ft_scratch *s = ctx;
    const sigset_t set = ending();
    int sig;
    if (sigwait(&set, &sig) || sig == WAKE)
        return NULL;
    ft_remove_folder(s->path);
    signal(sig, SIG_DFL);
    kill(getpid(), sig);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return NULL;
}

int ft_scratch_open(struct ft_scratch *s)
{
    const char *base = getenv("TMPDIR");
    const sigset_t set = ending();
    base = base && *base ? base : "/tmp";
    sweep(base);
    const int n = snprintf(s->path, sizeof s->path, "%s/%sXXXXXX", base, prefix);
    errno = ENAMETOOLONG;
    if (n >= (int)sizeof s->path || !mkdtemp(s->path)) {
        ft_fail_at((struct ft_where){.file = s->path}, FT_ERESOURCE, "cannot be made: %s",
                   strerror(errno));
        s->path[0] = 0;
        return FT_ERESOURCE;
    }
    s->lock = lock(s->path);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    s->waits = pthread_create(&s->waiter, NULL, end_with_signal, s) == 0;
    if (!s->waits)
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return FT_OK;
}

void ft_scratch_close(struct ft_scratch *s)
{
    const sigset_t set = ending();
    if (!s->path[0])
        return;
    ft_remove_folder(s->path);
    if (s->waits) {
        pthread_kill(s->waiter, WAKE);
        pthread_join(s->waiter, NULL);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    }
    if (s->lock >= 0)
        close(s->lock);
    s->path[0] = 0;
}
