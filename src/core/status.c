/* Owns the thread-local error report and the notices. */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fixed size: reporting an out-of-memory must not itself need memory. */
struct report {
    char text[16384];
    size_t len;
    int count;
    bool full;
};

static _Thread_local struct report errors, notices;
static _Thread_local struct ft_where place;

static void append(struct report *r, const char *line)
{
    const size_t len = strlen(line);
    if (r->full)
        return;
    static const char more[] = "(further problems not shown)\n";
    if (r->len + len + 2 + sizeof more > sizeof r->text) {
        memcpy(r->text + r->len, more, sizeof more);
        r->full = true;
        return;
    }
    memcpy(r->text + r->len, line, len);
    r->len += len;
    r->text[r->len++] = '\n';
    r->text[r->len] = 0;
}

static void put(struct report *r, struct ft_where at, const char *kind, const char *fmt, va_list ap)
{
    char line[2048];
    size_t n = 0;
    if (at.file && at.line > 0 && at.col > 0)
        n = (size_t)snprintf(line, sizeof line, "%s:%d:%d: ", at.file, at.line, at.col);
    else if (at.file && at.line > 0)
        n = (size_t)snprintf(line, sizeof line, "%s:%d: ", at.file, at.line);
    else if (at.file)
        n = (size_t)snprintf(line, sizeof line, "%s: ", at.file);
    if (n >= sizeof line)
        n = sizeof line - 1;
    n += (size_t)snprintf(line + n, sizeof line - n, "%s: ", kind);
    if (n >= sizeof line)
        n = sizeof line - 1;
    vsnprintf(line + n, sizeof line - n, fmt, ap);
    append(r, line);
}

static void (*listens)(const char *text);

void ft_status_listen(void (*listener)(const char *text))
{
    listens = listener;
}

void ft_waiting(const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (listens)
        listens(text);
}

int ft_fail(enum ft_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put(&errors, place, "error", fmt, ap);
    va_end(ap);
    errors.count++;
    return code;
}

int ft_fail_at(struct ft_where at, enum ft_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put(&errors, at, "error", fmt, ap);
    va_end(ap);
    errors.count++;
    return code;
}

void ft_status_place(struct ft_where at)
{
    place = at;
}

void ft_status_add(const char *report)
{
    if (!*report)
        return;
    const size_t n = strlen(report);
    char line[sizeof errors.text];
    snprintf(line, sizeof line, "%.*s", (int)(report[n - 1] == '\n' ? n - 1 : n), report);
    append(&errors, line);
    errors.count++;
}

void ft_hint(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put(&errors, (struct ft_where){0}, "hint", fmt, ap);
    va_end(ap);
}

void ft_notice(struct ft_where at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put(&notices, at, "notice", fmt, ap);
    va_end(ap);
    notices.count++;
}

const char *ft_status_report(void)
{
    return errors.text;
}

const char *ft_status_notices(void)
{
    return notices.text;
}

int ft_status_errors(void)
{
    return errors.count;
}

void ft_status_clear_notices(void)
{
    notices.len = 0;
    notices.count = 0;
    notices.full = false;
    notices.text[0] = 0;
}

void ft_status_clear_errors(void)
{
    errors.len = 0;
    errors.count = 0;
    errors.full = false;
    errors.text[0] = 0;
}

void ft_status_clear(void)
{
    ft_status_clear_errors();
    ft_status_clear_notices();
}

_Noreturn void ft_bug(const char *file, int line, const char *what)
{
    fprintf(stderr, "ft: bug at %s:%d: %s\n", file, line, what);
    fflush(NULL);
    _Exit(FT_EBUG);
}
