/* Owns heap accounting, arenas and page blocks. */
#include "core/mem.h"

#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Thread_local unsigned failures;

unsigned ft_alloc_failures(void)
{
    return failures;
}

void ft_alloc_failed(void)
{
    failures++;
}

int ft_short_of_memory(void)
{
    return ft_fail(FT_ERESOURCE, "out of memory");
}

int ft_alloc_check(unsigned since)
{
    return failures == since ? FT_OK : ft_short_of_memory();
}

static int out_of_memory(size_t n, size_t size)
{
    failures++;
    return ft_fail(FT_ERESOURCE, "out of memory: %zu x %zu bytes refused", n, size);
}

int ft_alloc(void *out, size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    memcpy(out, &p, sizeof p);
    return p ? FT_OK : out_of_memory(n, size);
}

int ft_grow(void *ptr, size_t n, size_t size)
{
    void *old, *p = NULL;
    size_t bytes;
    memcpy(&old, ptr, sizeof old);
    if (!__builtin_mul_overflow(n, size, &bytes))
        p = realloc(old, bytes ? bytes : 1);
    if (!p)
        return out_of_memory(n, size);
    memcpy(ptr, &p, sizeof p);
    return FT_OK;
}

void ft_free(void *ptr)
{
    free(ptr);
}

char *ft_strdup(const char *s)
{
    char *copy;
    if (!s || ft_alloc(&copy, strlen(s) + 1, 1))
        return NULL;
    return strcpy(copy, s);
}

static char *vformat(struct ft_arena *a, const char *fmt, va_list ap)
{
    va_list again;
    char *s;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    FT_ASSERT(n >= 0);
    if (a)
        s = ft_arena_alloc(a, (size_t)n + 1, 1);
    else if (ft_alloc(&s, (size_t)n + 1, 1))
        s = NULL;
    if (s)
        vsnprintf(s, (size_t)n + 1, fmt, ap);
    return s;
}

char *ft_format(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = vformat(NULL, fmt, ap);
    va_end(ap);
    return s;
}

char *ft_arena_format(struct ft_arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = vformat(a, fmt, ap);
    va_end(ap);
    return s;
}

int ft_printed_open(struct ft_printed *p)
{
    *p = (struct ft_printed){.since = failures};
    p->o = open_memstream(&p->text, &p->n);
    return p->o ? FT_OK : ft_short_of_memory();
}

/* fclose shrinks the text, and says nothing where that fails. */
int ft_printed_close(struct ft_printed *p)
{
    const bool bad = ferror(p->o) != 0;
    const bool lost = fclose(p->o) || bad || !p->text;
    p->o = NULL;
    return lost ? ft_short_of_memory() : ft_alloc_check(p->since);
}

void ft_printed_free(struct ft_printed *p)
{
    if (p->o)
        fclose(p->o);
    free(p->text);
    *p = (struct ft_printed){0};
}

struct ft_arena_chunk {
    struct ft_arena_chunk *next;
    size_t used, size;
    _Alignas(16) char data[];
};

void *ft_arena_alloc(struct ft_arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2) {
        out_of_memory(n, size);
        return NULL;
    }
    bytes = (bytes + 15) / 16 * 16;
    struct ft_arena_chunk *c = a->chunks;
    if (!c || c->size - c->used < bytes) {
        size_t want = c ? 2 * c->size : 4096; /* small at first: many arenas hold little */
        want = want > 65536 ? 65536 : want;
        want = bytes > want ? bytes : want;
        if (ft_alloc(&c, 1, sizeof *c + want))
            return NULL;
        c->size = want;
        c->next = a->chunks;
        a->chunks = c;
    }
    void *p = c->data + c->used;
    c->used += bytes;
    return p;
}

void ft_arena_fini(struct ft_arena *a)
{
    for (struct ft_arena_chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        ft_free(c);
    }
    a->chunks = NULL;
}

int ft_pages_alloc(void **out, size_t bytes)
{
    *out = NULL;
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return ft_fail(FT_ERESOURCE, "out of memory: a block of %.1f MB refused",
                       (double)bytes / 1e6);
    madvise(p, bytes, MADV_HUGEPAGE); /* fewer faults; a kernel without them says no, and no harm */
    *out = p;
    return FT_OK;
}

void ft_pages_free(void *ptr, size_t bytes)
{
    if (ptr)
        munmap(ptr, bytes ? bytes : 1);
}
