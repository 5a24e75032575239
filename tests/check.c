/* Runs the registered cases; with arguments, those whose name contains one of them. */
#include "tests/check.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include "core/status.h"

#include <stdlib.h>
#include <setjmp.h>
#include <stdarg.h>

static struct check_case *first, **last = &first;
static int failures, skipped;
static jmp_buf skip_point;

void check_register(struct check_case *c)
{
    *last = c;
    last = &c->next;
}

void check_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (failures++ < 50) {
        printf("  %s:%d: ", file, line);
        vprintf(fmt, ap);
        printf("\n");
    }
    va_end(ap);
}

void check_skip(const char *why)
{
    printf("  skipped: %s\n", why);
    skipped++;
    longjmp(skip_point, 1);
}

static bool wanted(const char *name, int n, char **words)
{
    for (int i = 1; i < n; i++)
        if (strstr(name, words[i]))
            return true;
    return n <= 1;
}

int main(int argc, char **argv)
{
    volatile int run = 0, bad = 0;
    for (struct check_case *volatile c = first; c; c = c->next) {
        if (!wanted(c->name, argc, argv))
            continue;
        printf("%s\n", c->name);
        fflush(stdout);
        int before = failures;
        ft_status_clear();
        if (setjmp(skip_point) == 0)
            c->run();
        run++;
        bad += failures != before;
    }
    printf("%d cases, %d failed, %d skipped\n", run, bad, skipped);
    if (bad || run == 0)
        return 1;
    return skipped && getenv("FT_TEST_DEVICE") ? 77 : 0; /* there is no device: ctest's "skipped" */
}

struct json_t *read_json(const char *path)
{
    char *text = NULL;
    size_t n;
    json_t *root = NULL;
    int rc = ft_file_read(path, 1 << 24, FT_EDATA, &text, &n);
    if (!rc)
        rc = ft_json_record(text, n, (struct ft_where){.file = path}, FT_EDATA, &root);
    if (rc)
        check_fail(path, rc, "%s", ft_status_report());
    ft_free(text);
    return root;
}
