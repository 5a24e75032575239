/* A library for LD_PRELOAD: the FT_FAIL_AT-th call that opens, writes, syncs, renames, cuts or
 * closes a file fails, and with FT_FAIL_EVER all that follow. How many there were goes to the file
 * FT_FAIL_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long made;

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

/* Whether this call fails, with that error. */
static int fails(int error)
{
    const long at = number("FT_FAIL_AT"), n = atomic_fetch_add(&made, 1) + 1;
    if (at == 0 || n < at || (n > at && !getenv("FT_FAIL_EVER")))
        return 0;
    errno = error;
    return 1;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("FT_FAIL_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (f) {
        fprintf(f, "%ld\n", atomic_load(&made));
        fclose(f);
    }
}

#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

int open(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    const mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    return fails(flags & O_CREAT ? ENOSPC : EIO) ? -1 : REAL(open)(path, flags, mode);
}

ssize_t write(int fd, const void *data, size_t n)
{
    return fails(ENOSPC) ? -1 : REAL(write)(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    return fails(ENOSPC) ? -1 : REAL(pwrite)(fd, data, n, at);
}

int fsync(int fd)
{
    return fails(EIO) ? -1 : REAL(fsync)(fd);
}

int rename(const char *from, const char *to)
{
    return fails(EIO) ? -1 : REAL(rename)(from, to);
}

int link(const char *from, const char *to)
{
    return fails(EIO) ? -1 : REAL(link)(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    return fails(ENOSPC) ? -1 : REAL(mkdir)(path, mode);
}

int truncate(const char *path, off_t n)
{
    return fails(EIO) ? -1 : REAL(truncate)(path, n);
}

int ftruncate(int fd, off_t n)
{
    return fails(EIO) ? -1 : REAL(ftruncate)(fd, n);
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    return fails(ENOSPC) ? -1 : REAL(fallocate)(fd, mode, at, n);
}

/* It is closed all the same. */
int close(int fd)
{
    const int failed = fails(EIO);
    const int rc = REAL(close)(fd);
    if (failed)
        errno = EIO;
    return failed ? -1 : rc;
}
