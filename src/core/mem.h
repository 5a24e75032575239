/* Heap memory. Every allocation of ft goes through here, so that a failing one is a status. */
#ifndef FT_CORE_MEM_H
#define FT_CORE_MEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* n * size zeroed bytes in *out (caller frees with ft_free); FT_ERESOURCE and *out = NULL if there
 * is not enough memory or the product overflows. n * size == 0 gives a valid pointer. */
int ft_alloc(void *out, size_t n, size_t size);
/* Grows *ptr to n * size bytes; on failure *ptr is untouched. */
int ft_grow(void *ptr, size_t n, size_t size);
void ft_free(void *ptr);
char *ft_strdup(const char *s); /* NULL if s is NULL or memory is short (reported) */
char *ft_format(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* NULL likewise */

/* A stream into memory: what is printed is a text. */
struct ft_printed {
    FILE *o;
    char *text;
    size_t n;
    unsigned since;
};
int ft_printed_open(struct ft_printed *p);
/* The stream's end. FT_ERESOURCE, reported: something was lost, or an allocation has failed since
 * it was opened. The text is freed by ft_printed_free in any case. */
int ft_printed_close(struct ft_printed *p);
void ft_printed_free(struct ft_printed *p);

/* An arena: many small allocations freed together. Zeroed memory, 16-byte aligned. */
struct ft_arena {
    struct ft_arena_chunk *chunks;
};
void *ft_arena_alloc(struct ft_arena *a, size_t n, size_t size); /* NULL if memory is short */
char *ft_arena_format(struct ft_arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void ft_arena_fini(struct ft_arena *a);

/* How many allocations of this thread have failed so far: ft's, and jansson's, many of whose
 * functions do not say so. Whoever builds something of many parts compares before it is used. */
unsigned ft_alloc_failures(void);
/* FT_ERESOURCE, reported, if one has failed since ft_alloc_failures() was `since`. */
int ft_alloc_check(unsigned since);
/* Reports that memory is short: FT_ERESOURCE. */
int ft_short_of_memory(void);
/* A library's allocation has failed. */
void ft_alloc_failed(void);

/* A block of zeroed pages straight from the kernel, aligned to a page; pages that are never touched
 * are never resident. FT_ERESOURCE if refused. */
int ft_pages_alloc(void **out, size_t bytes);
void ft_pages_free(void *ptr, size_t bytes);

#endif
