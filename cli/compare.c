/* ft compare */
#include "cli/compare.h"

#include "cli/chart.h"

#include "core/file.h"
#include "core/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the table --- */

/* The run's share of the baseline's. */
static void print_share(FILE *out, const struct ft_comparison *c, const char *limit)
{
    fprintf(out, "%-18s %8s  x %-8.3g %s %-6.3g %s%s%s\n", c->name, "", c->difference, limit,
            c->allowed, c->passed ? "ok" : "FAILED", c->why ? " " : "", c->why ? c->why : "");
}

static void print_row(FILE *out, const struct ft_comparison *c)
{
    char at[64] = "", allowed[32];
    if (c->difference > 0)
        snprintf(at, sizeof at, " at step %lld: %.6g, %.6g", (long long)c->step, c->baseline,
                 c->run);
    snprintf(allowed, sizeof allowed, c->exact ? "exact" : "%.3g", c->allowed);
    if (c->why)
        snprintf(at, sizeof at, " %s: %lld", c->why, (long long)c->step);
    fprintf(out, "%-18s %8lld  %-10.3g %-9s %s%s\n", c->name, (long long)c->points, c->difference,
            allowed, c->passed ? "ok" : "FAILED", at);
}

static void print_comparison(FILE *out, const struct ft_run_record *a,
                             const struct ft_run_record *b,
                             const struct ft_comparison rows[FT_COMPARISONS], const char *machine)
{
    if (machine)
        fprintf(out, "bits may differ ('%s'): tolerances are used\n", machine);
    else
        fprintf(out, "the same version, device and threads: every bit counts\n");
    fprintf(out, "%-18s %8s  %-10s %-9s\n", "", "compared", "difference", "allowed");
    for (int i = 0; i < FT_MEASURES; i++)
        if (rows[i].looked_at)
            print_row(out, &rows[i]);
    if (rows[FT_COMPARE_SPEED].looked_at)
        print_share(out, &rows[FT_COMPARE_SPEED], ">=");
    if (rows[FT_COMPARE_MEMORY].looked_at)
        print_share(out, &rows[FT_COMPARE_MEMORY], "<=");
    ft_chart_print(
        out, "loss (b: baseline, r: run, *: both)",
        (struct ft_chart_curve[]){{&a->curves[FT_LOSS], 'b'}, {&b->curves[FT_LOSS], 'r'}}, 2, '*');
}

/* --- JUnit --- */

static int write_junit(const char *path, const struct ft_comparison rows[FT_COMPARISONS])
{
    char text[4096], row[512];
    int tests = 0, failures = 0;
    size_t n = 0;
    for (int i = 0; i < FT_COMPARISONS; i++) {
        tests += rows[i].looked_at;
        failures += rows[i].looked_at && !rows[i].passed;
    }
    n = (size_t)snprintf(text, sizeof text,
                         "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite "
                         "name=\"ft compare\" tests=\"%d\" failures=\"%d\">\n",
                         tests, failures);
    for (int i = 0; i < FT_COMPARISONS; i++) {
        const struct ft_comparison *c = &rows[i];
        if (!c->looked_at)
            continue;
        if (c->passed)
            snprintf(row, sizeof row, "<testcase classname=\"ft.compare\" name=\"%s\"/>\n",
                     c->name);
        else
            snprintf(row, sizeof row,
                     "<testcase classname=\"ft.compare\" name=\"%s\"><failure message=\"%s%.6g, "
                     "allowed %.6g; step %lld: baseline %.9g, run %.9g\"/></testcase>\n",
                     c->name, c->why ? c->why : "difference ", c->difference, c->allowed,
                     (long long)c->step, c->baseline, c->run);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", row);
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "</testsuite>\n</testsuites>\n");
    return ft_file_write(path, text, n);
}

/* --- the command --- */

int ft_compare_runs(FILE *out, const char *baseline, const char *run,
                    const struct ft_compare_options *o, const char *junit)
{
    struct ft_run_record a, b = {0};
    struct ft_comparison rows[FT_COMPARISONS];
    const char *machine, *first = NULL;
    int rc = ft_run_record_open(&a, baseline);
    if (!rc)
        rc = ft_run_record_open(&b, run);
    if (!rc) {
        ft_compare(rows, &machine, &a, &b, o);
        if (out)
            print_comparison(out, &a, &b, rows, machine);
        for (int i = 0; i < FT_COMPARISONS && !first; i++)
            if (rows[i].looked_at && !rows[i].passed)
                first = rows[i].name;
        if (junit)
            rc = write_junit(junit, rows);
    }
    if (!rc && first) {
        rc = ft_fail_at((struct ft_where){.file = b.path}, FT_EREGRESSED,
                        "'%s' is not that of the baseline '%s'", first, baseline);
        ft_hint("if that is meant, let the new run be the baseline");
    }
    ft_run_record_close(&a);
    ft_run_record_close(&b);
    return rc;
}

static int take_share(const struct ft_command *self, int *n, char **words, const char *flag,
                      double *out)
{
    const char *text = NULL;
    char *end;
    FT_TRY(ft_take_text(self, n, words, flag, &text));
    if (!text)
        return FT_OK;
    *out = strtod(text, &end);
    if (*end || end == text || !(*out >= 0))
        return ft_fail(FT_ECONFIG, "'%s %s' is not a number from 0", flag, text);
    return FT_OK;
}

int ft_cmd_compare(const struct ft_command *self, int n, char **words)
{
    struct ft_compare_options o = {.tolerance = FT_COMPARE_TOLERANCE};
    const bool quiet = ft_take_flag(&n, words, "--quiet");
    const char *junit = NULL;
    FT_TRY(take_share(self, &n, words, "--tolerance", &o.tolerance));
    FT_TRY(take_share(self, &n, words, "--speed", &o.speed));
    FT_TRY(take_share(self, &n, words, "--memory", &o.memory));
    FT_TRY(ft_take_text(self, &n, words, "--junit", &junit));
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n != 2) {
        ft_fail(FT_ECONFIG, "'ft compare' needs a baseline and a run");
        ft_hint("see 'ft compare --help'");
        return FT_ECONFIG;
    }
    return ft_compare_runs(quiet ? NULL : stdout, words[0], words[1], &o, junit);
}
