/* ft train --sweep: a process for each combination of the values in a config, one after the other.
 */
#define _GNU_SOURCE
#include "cli/cli.h"

#include "config/sweep.h"
#include "core/json.h"
#include "core/mem.h"
#include "dist/world.h"
#include "train/compare.h"
#include "train/job.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* The words behind 'ft train' as they came, and the flags that runs get too. */
struct words {
    char **v, *flags[2];
    int n, n_flags;
};

/* --- a run --- */

static volatile sig_atomic_t child, asked;

/* A run is in a group of its own: what a terminal tells this process is passed on, once. */
static void pass_on(int sig)
{
    asked = 1;
    if (child)
        kill((pid_t)child, sig);
}

static void listen_to_signals(void)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};
    struct sigaction now = {.sa_handler = pass_on};
    sigemptyset(&now.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &now, NULL);
}

/* ft's exit code; 128 and the number of a signal that ended it. */
static int start(char **words)
{
    int status = 0;
    fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0)
        return ft_fail(FT_ERESOURCE, "cannot start a run: %s", strerror(errno));
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execv("/proc/self/exe", words);
        _exit(FT_ERESOURCE);
    }
    child = pid;
    if (asked)
        kill(pid, SIGTERM);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    child = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* "ft train", the words as they came, the run's changes; behind them the flags. Caller frees. */
static int make_words(char ***out, const struct words *is, const struct ft_sweep *s, int run)
{
    static char ft[] = "ft", train[] = "train";
    char **w;
    int at = 0;
    FT_TRY(ft_alloc(&w, (size_t)(is->n + s->n_changes + is->n_flags) + 3, sizeof *w));
    w[at++] = ft;
    w[at++] = train;
    for (int i = 0; i < is->n; i++)
        w[at++] = is->v[i];
    for (int i = 0; i < s->n_changes; i++)
        w[at++] = s->runs[run].changes[i];
    for (int i = 0; i < is->n_flags; i++)
        w[at++] = is->flags[i];
    *out = w;
    return FT_OK;
}

static int run_one(const struct words *is, const struct ft_sweep *s, int run)
{
    char **w;
    FT_TRY(make_words(&w, is, s, run));
    const int code = start(w);
    ft_free(w);
    return code;
}

/* --- the table --- */

struct outcome {
    bool was_run;
    int code;
    double loss, eval, speed; /* NAN: not known */
};

static double real_in(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void read_outcome(struct outcome *o, const char *folder)
{
    struct ft_run_record r;
    o->loss = o->eval = o->speed = NAN;
    if (ft_run_record_open(&r, folder) == FT_OK) {
        const json_t *result = json_object_get(r.run, "result");
        o->loss = real_in(result, "last_loss");
        o->eval = real_in(result, "last_eval_loss");
        o->speed = real_in(result, "tokens_per_second");
    }
    ft_status_clear_errors();
    ft_run_record_close(&r);
}

/* By evaluation, where all that ended well have one. -1: none did. */
static int best_of(const struct outcome *o, int n)
{
    bool by_eval = true;
    int best = -1;
    for (int i = 0; i < n; i++)
        by_eval = by_eval && (!o[i].was_run || o[i].code || !isnan(o[i].eval));
    for (int i = 0; i < n; i++) {
        const double is = by_eval ? o[i].eval : o[i].loss;
        if (o[i].was_run && !o[i].code && !isnan(is) &&
            (best < 0 || is < (by_eval ? o[best].eval : o[best].loss)))
            best = i;
    }
    return best;
}

static const char *ending(char out[48], const struct outcome *o)
{
    if (!o->was_run)
        return "not begun";
    if (o->code > 128)
        snprintf(out, 48, "killed by signal %d", o->code - 128);
    else if (o->code && o->code != FT_EREQUEUE)
        snprintf(out, 48, "failed with %d", o->code);
    return !o->code ? "" : o->code == FT_EREQUEUE ? "interrupted" : out;
}

static void print_number(const char *format, double v)
{
    char text[32] = "-";
    if (!isnan(v))
        snprintf(text, sizeof text, format, v);
    printf(" %9s", text);
}

/* The names last: they may be long. */
static void print_table(const struct ft_sweep *s, const struct outcome *o)
{
    const int best = best_of(o, s->n_runs);
    char why[48];
    printf("\n  %9s %9s %9s  run\n", "loss", "eval loss", "tokens/s");
    for (int i = 0; i < s->n_runs; i++) {
        const char *end = ending(why, &o[i]);
        putchar(i == best ? '*' : ' ');
        print_number("%.4f", o[i].loss);
        print_number("%.4f", o[i].eval);
        print_number("%.0f", o[i].speed);
        printf("  %s%s%s\n", s->runs[i].name, *end ? ": " : "", end);
    }
    if (best >= 0)
        printf("\n* the lowest %sloss: %s\n", isnan(o[best].eval) ? "" : "evaluation ",
               s->runs[best].folder);
}

static json_t *number(double v)
{
    return isnan(v) ? json_null() : json_real(v);
}

static json_t *run_json(const struct ft_sweep *s, int run, const struct outcome *o)
{
    json_t *changes = json_array();
    for (int i = 0; i < s->n_changes - 1; i++)
        json_array_append_new(changes, json_string(s->runs[run].changes[i]));
    return json_pack("{ss so so so so so}", "output_dir", s->runs[run].folder, "changes", changes,
                     "exit_code", o->was_run ? json_integer(o->code) : json_null(), "last_loss",
                     number(o->loss), "last_eval_loss", number(o->eval), "tokens_per_second",
                     number(o->speed));
}

static int print_json(const struct ft_sweep *s, const struct outcome *o)
{
    const unsigned since = ft_alloc_failures();
    const int best = best_of(o, s->n_runs);
    json_t *runs = json_array();
    for (int i = 0; i < s->n_runs; i++)
        json_array_append_new(runs, run_json(s, i, &o[i]));
    json_t *root = json_pack("{so so}", "runs", runs, "best",
                             best < 0 ? json_null() : json_string(s->runs[best].folder));
    char *text = ft_json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9), since);
    if (text)
        puts(text);
    ft_json_free(text);
    json_decref(root);
    return text ? FT_OK : FT_ERESOURCE;
}

/* --- a Slurm array --- */

static void print_array(const struct ft_sweep *s, const struct words *is,
                        const struct ft_slurm_needs *needs)
{
    printf("#!/usr/bin/env bash\n"
           "# %d runs, a folder each. To submit, four at a time:  sbatch --array=0-%d%%4 FILE\n"
           "#SBATCH --job-name=ft-sweep\n#SBATCH --array=0-%d\n#SBATCH --ntasks=1\n",
           s->n_runs, s->n_runs - 1, s->n_runs - 1);
    ft_print_slurm(stdout, "", needs);
    printf("#SBATCH --requeue\n#SBATCH --open-mode=append\n#SBATCH --output=%%x-%%A_%%a.out\n"
           "set -u\ncase $SLURM_ARRAY_TASK_ID in\n");
    for (int i = 0; i < s->n_runs; i++) {
        printf("%d) set --", i);
        for (int k = 0; k < s->n_changes; k++) {
            putchar(' ');
            ft_put_shell_word(stdout, s->runs[i].changes[k]);
        }
        printf(" ;;\n");
    }
    printf("*) echo \"no run has the number $SLURM_ARRAY_TASK_ID\" >&2; exit 2 ;;\nesac\n"
           "trap : TERM USR1 # Slurm tells this shell too: it waits for ft to have saved\n"
           "srun --kill-on-bad-exit=1 \"${FT:-ft}\" train");
    for (int i = 0; i < is->n; i++) {
        putchar(' ');
        ft_put_shell_word(stdout, is->v[i]);
    }
    printf(" \"$@\"\ncode=$?\n"
           "# 75: interrupted and saved. A job that was cancelled is not running any more.\n"
           "if [ $code = 75 ] && scontrol show job -o \"$SLURM_JOB_ID\" | grep -q "
           "'JobState=RUNNING'; then\n"
           "    scontrol requeue \"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID\"\nfi\n"
           "exit $code\n");
}

static long larger(long a, long b)
{
    return a > b ? a : b;
}

/* What the run that needs most needs. */
static int add_needs(struct ft_slurm_needs *most, struct ft_rates *rates, const struct ft_config *c,
                     bool first)
{
    struct ft_job j = {0};
    int rc = ft_job_open(&j, c, &ft_data_hooks);
    if (!rc && first)
        rc = ft_rates_measure(rates, &j);
    if (!rc) {
        const struct ft_slurm_needs is = ft_slurm_needs(&j, ft_job_seconds(&j, rates));
        most->gpu = most->gpu || is.gpu;
        most->processors = is.processors;
        most->megabytes = larger(most->megabytes, is.megabytes);
        most->minutes = larger(most->minutes, is.minutes);
    }
    ft_job_close(&j);
    return rc;
}

/* --- the whole --- */

/* Every run's config is right before the first begins; their needs too, if they are wanted. */
static int check_runs(const struct ft_command *self, const struct words *is,
                      const struct ft_sweep *s, struct ft_slurm_needs *needs)
{
    struct ft_rates rates;
    int rc = FT_OK;
    for (int i = 0; i < s->n_runs && !rc; i++) {
        struct ft_config c;
        char **w;
        FT_TRY(make_words(&w, &(struct words){is->v, .n = is->n}, s, i));
        rc = ft_read_config_words(&c, self, is->n + s->n_changes, w + 2);
        if (!rc && needs)
            rc = add_needs(needs, &rates, &c, i == 0);
        if (rc)
            ft_hint("this is the run '%s'", s->runs[i].name);
        ft_config_fini(&c);
        ft_free(w);
        ft_status_clear_notices(); /* each run says its own */
    }
    return rc;
}

static int run_all(const struct words *is, const struct ft_sweep *s, bool quiet, struct outcome *o)
{
    int rc = FT_OK;
    listen_to_signals();
    for (int i = 0; i < s->n_runs; i++)
        o[i].loss = o[i].eval = o[i].speed = NAN;
    for (int i = 0; i < s->n_runs && !asked && rc != FT_EREQUEUE; i++) {
        if (!quiet)
            printf("%s--- run %d of %d: %s ---\n", i ? "\n" : "", i + 1, s->n_runs,
                   s->runs[i].name);
        o[i].code = run_one(is, s, i);
        o[i].was_run = true;
        read_outcome(&o[i], s->runs[i].folder);
        rc = o[i].code == FT_EREQUEUE || !rc ? o[i].code : rc;
    }
    return asked ? FT_EREQUEUE : rc > 128 ? FT_ERESOURCE : rc;
}

static int run_and_show(const struct words *is, const struct ft_sweep *s, struct ft_shown show)
{
    struct outcome *o;
    FT_TRY(ft_alloc(&o, (size_t)s->n_runs, sizeof *o));
    int rc = run_all(is, s, show.quiet, o);
    if (!show.quiet)
        print_table(s, o);
    if (show.json && print_json(s, o))
        rc = FT_ERESOURCE;
    ft_free(o);
    return rc;
}

int ft_sweep(const struct ft_command *self, int n, char **words, struct ft_shown show, bool array)
{
    static char quiet[] = "--quiet", profile[] = "--profile";
    struct words is = {words, .n = n};
    struct ft_sweep s;
    struct ft_slurm_needs needs = {0};
    const char *path;
    FT_TRY(ft_config_words(self, n, words, &path));
    if (!array && ft_world_announced() > 1) {
        ft_fail(FT_ECONFIG, "'--sweep' is one process, and this is one of %d",
                ft_world_announced());
        ft_hint("start it alone, or submit what 'ft train --sweep --array' prints");
        return FT_ECONFIG;
    }
    const int first = path ? 1 : 0;
    if (show.quiet)
        is.flags[is.n_flags++] = quiet;
    if (show.profile)
        is.flags[is.n_flags++] = profile;
    int rc = ft_sweep_read(&s, path, (const char *const *)words + first, n - first);
    if (!rc)
        rc = check_runs(self, &is, &s, array ? &needs : NULL);
    if (!rc && array)
        print_array(&s, &is, &needs);
    else if (!rc)
        rc = run_and_show(&is, &s, show);
    ft_sweep_fini(&s);
    return rc;
}
