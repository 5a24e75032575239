/* malloc and its kin in the place of the C library's (or the sanitizers'), and blocks of pages
 * as ft_pages_alloc asks for them. */
#include "tests/failing.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *p, size_t n);

static _Thread_local long made, left;

void fail_at(long n)
{
    left = n;
}

long allocations_made(void)
{
    return made;
}

/* ThreadSanitizer's malloc cannot be called from another: there allocations are not counted. */
#if !defined(__SANITIZE_THREAD__)
static int must_fail(void)
{
    made++;
    if (left == 0 || --left > 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n)
{
    return must_fail() ? NULL : REAL(malloc)(n);
}

void *calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : REAL(calloc)(n, size);
}

void *realloc(void *p, size_t n)
{
    return must_fail() ? NULL : REAL(realloc)(p, n);
}

#if !defined(__SANITIZE_ADDRESS__)
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_NORESERVE) && must_fail())
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}
#endif
#endif
