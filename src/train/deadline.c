/* When a Slurm job's time is over. */
#define _GNU_SOURCE
#include "train/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The first word of what a command prints. */
static bool ask(const char *command, char *out, size_t room)
{
    FILE *f = popen(command, "re");
    const bool said = f && fgets(out, (int)room, f);
    if (f)
        pclose(f);
    if (said)
        out[strcspn(out, " \n")] = 0;
    return said && out[0];
}

/* Slurm's own name for "2026-11-25T12:00:00", in local time. */
static bool end_of(const char *job, time_t *end)
{
    char command[256], said[128];
    struct tm tm = {.tm_isdst = -1};
    if (strspn(job, "0123456789_") != strlen(job) || strlen(job) > 40)
        return false;
    snprintf(command, sizeof command,
             "timeout 10 scontrol show job -o %s 2>/dev/null | sed -n 's/.* EndTime=\\([^ "
             "]*\\).*/\\1/p'",
             job);
    if (!ask(command, said, sizeof said)) {
        snprintf(command, sizeof command, "timeout 10 squeue -h -j %s -o %%e 2>/dev/null", job);
        if (!ask(command, said, sizeof said))
            return false;
    }
    const char *rest = strptime(said, "%Y-%m-%dT%H:%M:%S", &tm);
    *end = rest && !*rest ? mktime(&tm) : (time_t)-1;
    return *end != (time_t)-1;
}

double ft_deadline(void)
{
    const char *job = getenv("SLURM_JOB_ID"), *set = getenv("SLURM_JOB_END_TIME");
    time_t end = 0;
    char *rest = NULL;
    if (set && *set)
        end = (time_t)strtoll(set, &rest, 10);
    if (!(rest && !*rest && end > 0) && !(job && end_of(job, &end)))
        return INFINITY;
    return ft_now() + difftime(end, time(NULL));
}
