/* Owns file access: whole reads, exact reads, atomic writes. */
#define _GNU_SOURCE
#include "core/file.h"

#include "core/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

bool ft_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool ft_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What lies in the place of files that were not downloaded: one row. */
static const struct {
    const char *begin, *what, *hint;
} foreign[] = {
    {"version https://git-lfs", "is a Git LFS pointer, not the file itself",
     "run 'git lfs pull' in its folder, or download the file with 'hf download'"},
    {"<!doctype html", "is an HTML page, not the file itself",
     "a download saved the page about the file (a login, an error): download the file itself"},
    {"<html", "is an HTML page, not the file itself",
     "a download saved the page about the file (a login, an error): download the file itself"},
};

int ft_file_foreign(const char *path, const void *head, size_t n, enum ft_code code)
{
    const char *p = head;
    for (; n && strchr(" \t\r\n", *p) && *p; n--)
        p++;
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        const size_t length = strlen(foreign[i].begin);
        if (n < length || strncasecmp(p, foreign[i].begin, length) != 0)
            continue;
        ft_fail_at((struct ft_where){.file = path}, code, "%s", foreign[i].what);
        ft_hint("%s", foreign[i].hint);
        return code;
    }
    return FT_OK;
}

int ft_file_read(const char *path, size_t most, enum ft_code code, char **data, size_t *len)
{
    struct stat st;
    struct ft_where at = {.file = path};
    *data = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return ft_fail_at(at, code, "cannot open: %s", strerror(errno));
    int rc = FT_OK;
    if (fstat(fd, &st))
        rc = ft_fail_at(at, code, "cannot read: %s", strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = ft_fail_at(at, code, "is %s, not a file",
                        S_ISDIR(st.st_mode) ? "a folder" : "a special file");
    else if ((uint64_t)st.st_size > most)
        rc = ft_fail_at(at, code, "has %lld bytes, at most %zu are expected", (long long)st.st_size,
                        most);
    if (!rc)
        rc = ft_alloc(data, (size_t)st.st_size + 1, 1);
    size_t got = 0;
    while (!rc && got < (size_t)st.st_size) {
        ssize_t n = read(fd, *data + got, (size_t)st.st_size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = ft_fail_at(at, code, "cannot read: %s", strerror(errno));
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    close(fd);
    if (!rc)
        rc = ft_file_foreign(path, *data, got, code);
    if (rc) {
        ft_free(*data);
        *data = NULL;
    } else {
        *len = got;
    }
    return rc;
}

int ft_pread(int fd, const char *path, void *buf, size_t n, int64_t offset)
{
    char *p = buf;
    while (n > 0) {
        ssize_t got = pread(fd, p, n, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot read: %s",
                              strerror(errno));
        if (got == 0)
            return ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE,
                              "ends at byte %lld: it was cut while being read", (long long)offset);
        p += got;
        n -= (size_t)got;
        offset += got;
    }
    return FT_OK;
}

static int write_error(const char *path, const char *what)
{
    return ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot %s: %s", what,
                      strerror(errno));
}

int ft_pwrite(int fd, const char *path, const void *data, size_t n, int64_t offset)
{
    const char *p = data;
    while (n > 0) {
        const ssize_t put = pwrite(fd, p, n, offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put == 0)
            errno = ENOSPC;
        if (put <= 0)
            return write_error(path, "write");
        p += put;
        n -= (size_t)put;
        offset += put;
    }
    return FT_OK;
}

int ft_writer_open(struct ft_writer *w, const char *path)
{
    w->fd = -1;
    if (strlen(path) >= sizeof w->path) {
        errno = ENAMETOOLONG;
        return write_error(path, "write");
    }
    strcpy(w->path, path);
    snprintf(w->temp, sizeof w->temp, "%s.tmp.%ld", path, (long)getpid());
    w->fd = open(w->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0)
        return write_error(path, "create");
    return FT_OK;
}

void ft_writer_sweep(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t n = strlen(name);
    char folder[4096] = ".";
    if (slash)
        snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));)
        if (strncmp(e->d_name, name, n) == 0 && strncmp(e->d_name + n, ".tmp.", 5) == 0 &&
            e->d_name[n + 5 + strspn(e->d_name + n + 5, "0123456789")] == 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
}

static const volatile sig_atomic_t *heeded;

void ft_writer_heed(const volatile sig_atomic_t *stop)
{
    heeded = stop;
}

int ft_writer_put(struct ft_writer *w, const void *data, size_t len)
{
    const char *p = data;
    if (heeded && *heeded)
        return ft_fail_at((struct ft_where){.file = w->path}, FT_EREQUEUE,
                          "interrupted: nothing of it is kept");
    while (len > 0) {
        ssize_t n = write(w->fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = ENOSPC;
            return write_error(w->path, "write");
        }
        p += n;
        len -= (size_t)n;
    }
    return FT_OK;
}

int ft_sync_folder_of(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(n ? n : 1) : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return write_error(folder, "open");
    int bad = fsync(fd) && errno != EINVAL; /* some file systems cannot sync a folder */
    int saved = errno;
    close(fd);
    errno = saved;
    return bad ? write_error(folder, "sync") : FT_OK;
}

int ft_writer_commit(struct ft_writer *w)
{
    int rc = fsync(w->fd) ? write_error(w->path, "sync") : FT_OK;
    if (close(w->fd) && !rc)
        rc = write_error(w->path, "close");
    w->fd = -1;
    if (!rc && rename(w->temp, w->path))
        rc = write_error(w->path, "rename to");
    if (rc)
        unlink(w->temp);
    return rc ? rc : ft_sync_folder_of(w->path);
}

void ft_writer_abort(struct ft_writer *w)
{
    if (w->fd < 0)
        return;
    close(w->fd);
    w->fd = -1;
    unlink(w->temp);
}

int ft_file_write(const char *path, const void *data, size_t len)
{
    struct ft_writer w;
    FT_TRY(ft_writer_open(&w, path));
    int rc = ft_writer_put(&w, data, len);
    if (rc) {
        ft_writer_abort(&w);
        return rc;
    }
    return ft_writer_commit(&w);
}

enum { SPOOL_BUFFER = 1 << 18 };

int ft_spool_open(struct ft_spool *s, const char *path)
{
    char name[4200];
    const char *slash = strrchr(path, '/');
    *s = FT_SPOOL_CLOSED;
    snprintf(name, sizeof name, "%.*s.spool.XXXXXX", slash ? (int)(slash - path) + 1 : 0, path);
    FT_TRY(ft_alloc(&s->buffer, SPOOL_BUFFER, 1));
    if (!(s->beside = ft_strdup(path))) {
        ft_spool_close(s);
        return FT_ERESOURCE;
    }
    s->fd = mkostemp(name, O_CLOEXEC);
    if (s->fd < 0) {
        write_error(path, "write beside");
        ft_spool_close(s);
        return FT_ERESOURCE;
    }
    unlink(name);
    return FT_OK;
}

static int flush_spool(struct ft_spool *s)
{
    size_t done = 0;
    while (done < s->n) {
        ssize_t n = write(s->fd, s->buffer + done, s->n - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = ENOSPC;
            return write_error(s->beside, "write a temporary file beside it");
        }
        done += (size_t)n;
    }
    s->n = 0;
    return FT_OK;
}

int ft_spool_put(struct ft_spool *s, const void *data, size_t len)
{
    const char *p = data;
    s->bytes += (int64_t)len;
    while (len > 0) {
        const size_t n = len < SPOOL_BUFFER - s->n ? len : SPOOL_BUFFER - s->n;
        memcpy(s->buffer + s->n, p, n);
        s->n += n;
        p += n;
        len -= n;
        if (s->n == SPOOL_BUFFER)
            FT_TRY(flush_spool(s));
    }
    return FT_OK;
}

int ft_spool_copy(struct ft_spool *s, struct ft_writer *w)
{
    FT_TRY(flush_spool(s));
    for (int64_t at = 0; at < s->bytes;) {
        const int64_t left = s->bytes - at;
        const size_t n = left < SPOOL_BUFFER ? (size_t)left : SPOOL_BUFFER;
        FT_TRY(ft_pread(s->fd, s->beside, s->buffer, n, at));
        FT_TRY(ft_writer_put(w, s->buffer, n));
        at += (int64_t)n;
    }
    return FT_OK;
}

void ft_spool_close(struct ft_spool *s)
{
    if (s->fd >= 0)
        close(s->fd);
    ft_free(s->buffer);
    ft_free(s->beside);
    *s = FT_SPOOL_CLOSED;
}

int ft_file_copy(const char *from, const char *to)
{
    char *data;
    size_t n;
    FT_TRY(ft_file_read(from, (size_t)1 << 28, FT_EDATA, &data, &n));
    const int rc = ft_file_write(to, data, n);
    ft_free(data);
    return rc;
}

void ft_remove_folder(const char *path)
{
    DIR *d = opendir(path);
    d = d ? d : opendir(path); /* which may have been short of memory */
    for (const struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(path);
}

int ft_make_folders(const char *path)
{
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part) {
        errno = ENAMETOOLONG;
        return write_error(path, "create");
    }
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return write_error(part, "create");
    }
    errno = ENOTDIR;
    return ft_is_folder(path) ? FT_OK : write_error(path, "create");
}

const char *ft_path_home(const char *path)
{
    const char *home = path[0] == '~' && (!path[1] || path[1] == '/') ? getenv("HOME") : NULL;
    return home && *home ? home : NULL;
}

const char *ft_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

char *ft_path_join(const char *a, const char *b)
{
    if (b[0] == '/' || !a || !a[0] || strcmp(a, ".") == 0)
        return ft_strdup(b);
    return ft_format("%s%s%s", a, a[strlen(a) - 1] == '/' ? "" : "/", b);
}

/* The path of "configs/../data/x", from here if it is below: "data/x". */
static char *without_steps_up(char *path)
{
    char real[PATH_MAX], here[PATH_MAX];
    if (!strstr(path, "../") || !realpath(path, real) || !getcwd(here, sizeof here))
        return path;
    const size_t n = strlen(here);
    const bool below = strncmp(real, here, n) == 0 && real[n] == '/';
    char *plain = ft_strdup(below ? real + n + 1 : real);
    ft_free(path);
    return plain;
}

char *ft_path_find(const char *folder, const char *path)
{
    if (!folder || path[0] == '/')
        return ft_strdup(path);
    char *beside = ft_path_join(folder, path);
    if (!beside)
        return NULL;
    const bool here = ft_file_exists(path), there = ft_file_exists(beside);
    if (here && there && !ft_same_file(path, beside))
        ft_notice((struct ft_where){0},
                  "'%s' is both in the working folder and beside the config: the first is taken",
                  path);
    if (!here && there)
        return without_steps_up(beside);
    ft_free(beside);
    return ft_strdup(path);
}

bool ft_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_ino == y.st_ino &&
           x.st_dev == y.st_dev;
}
