/* The test harness: CASE(name) { ... CHECK(...) } in any number of files linked with check.c. */
#ifndef FT_TESTS_CHECK_H
#define FT_TESTS_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct check_case {
    const char *name;
    void (*run)(void);
    struct check_case *next;
};
void check_register(struct check_case *c);
/* Prints what failed and marks the running case as failed; the case goes on. */
void check_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ends the running case as skipped. */
void check_skip(const char *why);

#define CASE(name)                                                                                 \
    static void case_##name(void);                                                                 \
    __attribute__((constructor)) static void register_##name(void)                                 \
    {                                                                                              \
        static struct check_case c = {#name, case_##name, NULL};                                   \
        check_register(&c);                                                                        \
    }                                                                                              \
    static void case_##name(void)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            check_fail(__FILE__, __LINE__, "%s", #cond);                                           \
    } while (0)
#define CHECK_INT(got, want)                                                                       \
    do {                                                                                           \
        long long g_ = (long long)(got), w_ = (long long)(want);                                   \
        if (g_ != w_)                                                                              \
            check_fail(__FILE__, __LINE__, "%s is %lld, expected %lld", #got, g_, w_);             \
    } while (0)
#define CHECK_NEAR(got, want, allowed)                                                             \
    do {                                                                                           \
        double g_ = (got), w_ = (want), a_ = (allowed);                                            \
        if (!(g_ - w_ <= a_ && w_ - g_ <= a_))                                                     \
            check_fail(__FILE__, __LINE__, "%s is %.9g, expected %.9g +- %.2g", #got, g_, w_, a_); \
    } while (0)
#define CHECK_TEXT(got, want)                                                                      \
    do {                                                                                           \
        const char *g_ = (got), *w_ = (want);                                                      \
        if (!g_ || strcmp(g_, w_) != 0)                                                            \
            check_fail(__FILE__, __LINE__, "%s is \"%s\", expected \"%s\"", #got,                  \
                       g_ ? g_ : "(null)", w_);                                                    \
    } while (0)
#define CHECK_HAS(text, part)                                                                      \
    do {                                                                                           \
        const char *t_ = (text), *p_ = (part);                                                     \
        if (!t_ || !strstr(t_, p_))                                                                \
            check_fail(__FILE__, __LINE__, "%s lacks \"%s\": %s", #text, p_, t_ ? t_ : "(null)");  \
    } while (0)

/* A golden file (texts in it may hold U+0000); a failed check and NULL if it cannot be read. */
struct json_t *read_json(const char *path);

#endif
