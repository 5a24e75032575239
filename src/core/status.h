/* Status codes and the message that goes with them.
 *
 * A function that can fail returns int: 0, or one of the codes below, which are also ft's exit
 * codes. It records what went wrong with ft_fail(), which appends one "error:" line to a
 * thread-local report; several problems may be reported before a function returns. Nothing below
 * cli/ prints the report or exits. */
#ifndef FT_CORE_STATUS_H
#define FT_CORE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

enum ft_code {
    FT_OK = 0,
    FT_ECONFIG = 2,   /* usage or config */
    FT_EDATA = 3,     /* model or data invalid */
    FT_ERESOURCE = 4, /* memory, disk, I/O */
    FT_EDIVERGED = 5, /* loss or gradient not finite */
    FT_EREGRESSED = 6,
    FT_EBUG = 70,
    FT_EREQUEUE = 75, /* interrupted, checkpoint saved */
};

/* A place in a file; line and col count from 1, 0 when unknown; file may be NULL. */
struct ft_where {
    const char *file;
    int line, col;
};

/* Appends "error: ..." (with the place in front where there is one) and returns code. */
int ft_fail(enum ft_code code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int ft_fail_at(struct ft_where at, enum ft_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Where this thread works: the place of errors that have none of their own. The name must live
 * until another place, or none ({0}), takes its place. */
void ft_status_place(struct ft_where at);
/* Appends another thread's report, as its ft_status_report() gave it. */
void ft_status_add(const char *report);
/* Appends a "hint: ..." line to the error just reported. */
void ft_hint(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Warnings and notices are kept apart from errors and shown once by cli. */
void ft_notice(struct ft_where at, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What is waited for, told as the wait begins to whoever listens: cli prints it. Before threads are
 * made; NULL: nobody. */
void ft_status_listen(void (*listener)(const char *text));
void ft_waiting(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

const char *ft_status_report(void);  /* all error and hint lines so far, "" if none */
const char *ft_status_notices(void); /* all notice lines so far, "" if none */
int ft_status_errors(void);          /* how many errors are in the report */
void ft_status_clear(void);          /* forgets errors, hints and notices of this thread */
void ft_status_clear_errors(void);
void ft_status_clear_notices(void);

_Noreturn void ft_bug(const char *file, int line, const char *what);

/* For our own mistakes only; stays on in release builds. */
#define FT_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ft_bug(__FILE__, __LINE__, #cond);                                                     \
    } while (0)

#define FT_TRY(expr)                                                                               \
    do {                                                                                           \
        int ft_try_ = (expr);                                                                      \
        if (ft_try_)                                                                               \
            return ft_try_;                                                                        \
    } while (0)

/* Same, for functions that clean up behind one `out:` label; needs an `int rc`. */
#define FT_GO(expr)                                                                                \
    do {                                                                                           \
        rc = (expr);                                                                               \
        if (rc)                                                                                    \
            goto out;                                                                              \
    } while (0)

#endif
