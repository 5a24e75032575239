/* Memory: what there is, and what is used. */
#define _GNU_SOURCE
#include "train/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* A number from a file of "key value" lines, or the first number if key is NULL; -1: none. */
static double read_number(const char *path, const char *key)
{
    char line[256];
    double v = -1;
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        const char *at = line;
        if (key && strncmp(line, key, strlen(key)) != 0)
            continue;
        at += key ? strcspn(line, " \t") : 0;
        char *end;
        v = strtod(at, &end);
        if (end == at)
            v = -1; /* "max" */
        break;
    }
    if (f)
        fclose(f);
    return v;
}

static double least(double a, double b)
{
    return b >= 0 && b < a ? b : a;
}

static double limit_left(int what, const char *status_key)
{
    struct rlimit l;
    if (getrlimit(what, &l) || l.rlim_cur == RLIM_INFINITY)
        return -1;
    double used = read_number("/proc/self/status", status_key) * 1024;
    double left = (double)l.rlim_cur - (used > 0 ? used : 0);
    return left > 0 ? left : 0;
}

/* The path of this process's cgroup (version 2), "" if unknown. */
static void own_cgroup(char out[512])
{
    char line[512];
    FILE *f = fopen("/proc/self/cgroup", "re");
    out[0] = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, 512, "%s", line + 3);
        }
    if (f)
        fclose(f);
}

/* The tightest limit from the process's cgroup up to the root. */
static double cgroup_left(void)
{
    char group[512], path[640];
    double left = -1;
    own_cgroup(group);
    for (;;) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
        double limit = read_number(path, NULL);
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
        double used = read_number(path, NULL);
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", group);
        double cached = read_number(path, "inactive_file"); /* the kernel gives it back */
        if (limit >= 0) {
            double here = limit - (used > 0 ? used : 0) + (cached > 0 ? cached : 0);
            left = left < 0 || here < left ? here : left;
        }
        char *slash = strrchr(group, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    if (left < 0) {
        double limit = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", NULL);
        double used = read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", NULL);
        if (limit >= 0 && limit < 1e15)
            left = limit - (used > 0 ? used : 0);
    }
    return left;
}

size_t ft_memory_available(void)
{
    double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    bytes = least(bytes, read_number("/proc/meminfo", "MemAvailable:") * 1024);
    bytes = least(bytes, cgroup_left());
    bytes = least(bytes, limit_left(RLIMIT_AS, "VmSize:"));
    bytes = least(bytes, limit_left(RLIMIT_DATA, "VmData:"));
    return bytes > 0 ? (size_t)bytes : 0;
}

size_t ft_memory_resident(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%*d %ld", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}
