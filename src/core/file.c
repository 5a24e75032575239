/* Owns file access: whole reads, exact reads, atomic writes. */
#include "core/file.h"

#include "core/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int ft_writer_put(struct ft_writer *w, const void *data, size_t len)
{
    const char *p = data;
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

static int sync_folder_of(const char *path)
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
    return rc ? rc : sync_folder_of(w->path);
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

char *ft_path_join(const char *a, const char *b)
{
    if (b[0] == '/' || !a || !a[0] || strcmp(a, ".") == 0)
        return ft_strdup(b);
    return ft_format("%s%s%s", a, a[strlen(a) - 1] == '/' ? "" : "/", b);
}
