/* ft train */
#include "cli/chart.h"
#include "cli/compare.h"
#include "cli/engines.h"

#include "core/clock.h"
#include "core/json.h"
#include "core/mem.h"
#include "train/train.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void print_start(FILE *out, const struct ft_job *j)
{
    char a[32], ranks[64] = "";
    if (j->world)
        snprintf(ranks, sizeof ranks, ", as each of %d ranks", ft_world_size(j->world));
    const struct ft_run_length *l = &j->length;
    if (ft_job_trains_model(j))
        fprintf(out, "%s: %.1f M parameters, of which %.1f M are trained\n", j->model_path,
                (double)ft_model_parameters(j->model) / 1e6,
                (double)ft_adapter_parameters(j->adapter) / 1e6);
    else
        fprintf(out, "%s: %.1f M parameters, adapter on %d modules with %.2f M (%.2f %%)\n",
                j->base_name, (double)ft_model_parameters(j->model) / 1e6,
                ft_adapter_modules(j->adapter), (double)ft_adapter_parameters(j->adapter) / 1e6,
                100.0 * (double)ft_adapter_parameters(j->adapter) /
                    (double)ft_model_parameters(j->model));
    fprintf(out, "%lld document%s, %lld tokens to train on; %lld step%s of %.1f document%s\n",
            (long long)j->train.n_docs, j->train.n_docs == 1 ? "" : "s",
            (long long)j->train.trained_tokens, (long long)l->steps, l->steps == 1 ? "" : "s",
            l->docs_per_step, l->docs_per_step == 1 ? "" : "s");
    if (j->backend->dev)
        fprintf(out, "on %s (%s), %s of its memory, %s%s\n", j->backend->dev->name, j->backend->isa,
                ft_bytes_text(a, (double)ft_job_device_memory(j)),
                ft_recompute_labels[j->recompute], ranks);
    else
        fprintf(out, "on the CPU (%s), %d thread%s, %s of memory%s\n", j->backend->isa,
                ft_pool_size(j->pool), ft_pool_size(j->pool) == 1 ? "" : "s",
                ft_bytes_text(a, (double)ft_job_memory(j)), ranks);
    fflush(out);
}

/* What the log has of the run, where that is enough to be seen. */
static void print_losses(FILE *out, const struct ft_job *j)
{
    enum { LEAST = 8 }; /* losses */
    struct ft_run_record r;
    if (ft_run_record_open(&r, j->config->output_dir) == FT_OK && r.curves[FT_LOSS].n >= LEAST)
        ft_chart_print(
            out, r.curves[FT_EVAL_LOSS].n ? "loss (*) and evaluation loss (o)" : "loss",
            (struct ft_chart_curve[]){{&r.curves[FT_LOSS], '*'}, {&r.curves[FT_EVAL_LOSS], 'o'}}, 2,
            'o');
    ft_status_clear_errors();
    ft_run_record_close(&r);
}

static void print_end(FILE *out, const struct ft_job *j, const struct ft_train_result *r)
{
    const char *dir = j->config->output_dir;
    print_losses(out, j);
    fputc('\n', out);
    if (r->best_written)
        fprintf(out, "the best evaluation's parameters were written: step %lld, eval loss %.4f\n",
                (long long)r->best_step, r->best_eval);
    fprintf(out, "loss %.4f -> %.4f", r->first_loss, r->last_loss);
    if (!isnan(r->first_eval))
        fprintf(out, ", eval loss %.4f -> %.4f", r->first_eval, r->last_eval);
    if (ft_job_trains_model(j)) {
        fprintf(out, "\nmodel in %s, losses in %s/metrics.jsonl\n\n", dir, dir);
        fprintf(out, "  transformers  AutoModelForCausalLM.from_pretrained(\"%s\")\n", dir);
        fprintf(out, "  vLLM          vllm serve %s\n", dir);
        fprintf(out, "  llama.cpp     convert_hf_to_gguf.py %s\n", dir);
        return;
    }
    fprintf(out, "\nadapter in %s, losses in %s/metrics.jsonl\n\n", dir, dir);
    ft_print_engines(out, j);
}

static const char *number(char out[32], double v)
{
    snprintf(out, 32, isfinite(v) ? "%.9g" : "null", v);
    return out;
}

/* Why it ended. */
static const char *reason_of(const struct ft_train_result *r)
{
    return r->finished      ? "was finished already"
           : r->interrupted ? "asked to end"
           : r->stopped     ? "stopped by its losses"
                            : "all steps made";
}

static void print_json(FILE *out, const struct ft_job *j, const struct ft_train_result *r)
{
    char a[32], b[32], c[32], d[32];
    json_t *path = json_string(j->config->output_dir);
    char *dir = path ? json_dumps(path, JSON_ENCODE_ANY) : NULL;
    fprintf(out,
            "{\"status\": \"%s\", \"reason\": \"%s\", \"output_dir\": %s, \"first_eval_loss\": %s, "
            "\"last_eval_loss\": %s, \"resumed_from\": %lld, \"steps\": %lld, \"tokens\": %lld, "
            "\"seconds\": %.6f, \"startup_seconds\": %.6f, "
            "\"tokens_per_second\": %.3f, \"first_loss\": %s, \"last_loss\": %s, "
            "\"peak_bytes\": %zu, \"planned_bytes\": %zu, \"flops_per_token\": %.6g}\n",
            r->interrupted ? "interrupted" : "finished", reason_of(r), dir ? dir : "null",
            number(c, r->first_eval), number(d, r->last_eval), (long long)r->resumed,
            (long long)r->steps, (long long)r->tokens, r->seconds, r->startup_seconds,
            r->tokens_per_second, number(a, r->first_loss), number(b, r->last_loss), r->peak_bytes,
            ft_job_memory(j), ft_job_flops_per_token(j));
    ft_json_free(dir);
    json_decref(path);
}

/* --- signals --- */

static volatile sig_atomic_t asked, stepping, mute; /* mute: another rank says it */

static void note_steps(void)
{
    ft_print_notices();
    stepping = 1;
}

/* The first ends the run after its step, with a checkpoint; the second at once, and so does one
 * before the steps begin. */
static void on_signal(int sig)
{
    static const char text[] =
        "\nft: this step is finished and saved, then the run ends; again: it ends at once\n";
    (void)sig;
    if (asked || !stepping)
        _exit(FT_EREQUEUE);
    asked = 1;
    if (!mute && write(STDERR_FILENO, text, sizeof text - 1) < 0)
        return; /* a closed terminal is no reason to do otherwise */
}

/* Those that are ignored stay so: nohup's SIGHUP, SIGINT of what a shell runs behind itself. */
static void listen_to_signals(void)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};
    struct sigaction now = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, was;
    sigemptyset(&now.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaction(signals[i], &now, NULL);
}

/* --- the other ranks --- */

static void lose(int rank, const char *host, int seconds)
{
    fprintf(stderr,
            "error: rank %d on '%s' has not been heard of for %d s: it hangs, has died, or its "
            "machine is gone; the run ends\nhint: the same command goes on from the last "
            "checkpoint\n",
            rank, host, seconds);
    _exit(FT_ERESOURCE);
}

/* It has said why. */
static void follow(int code)
{
    _exit(code);
}

/* The ranks leave together, or with the first that failed, which says why; where all fail alike,
 * rank 0 does. How a run ended that did not fail, its exit code alone tells. */
static int leave_world(struct ft_world *w, int rc)
{
    const int rank = ft_world_rank(w);
    const bool failed = rc && rc != FT_EREQUEUE && rc != FT_EREGRESSED;
    if (!w)
        return rc;
    if (failed && rank) {
        ft_world_give_way(w);
        ft_hint("this was rank %d of %d, on '%s'", rank, ft_world_size(w), ft_world_host(w, rank));
    }
    if (failed)
        fputs(ft_status_report(), stderr);
    ft_status_clear_errors();
    ft_world_close(w, failed ? rc : FT_OK);
    if (failed) { /* MPI may still wait for a rank that does not come, in a thread of its own */
        fflush(NULL);
        _exit(rc);
    }
    return rank ? FT_OK : rc;
}

/* --- the command --- */

/* How it ended, where that is not its last step. */
static int end_of(FILE *out, const struct ft_job *j, const struct ft_train_result *r)
{
    const char *dir = j->config->output_dir;
    if (r->finished && out)
        fprintf(out,
                "this run is finished already: its results are in %s\n"
                "'overwrite_output_dir=true' trains it again\n",
                dir);
    if (!r->interrupted)
        return FT_OK;
    if (out && r->steps)
        fprintf(out,
                "interrupted after step %lld of %lld: the same command goes on from there; the "
                "adapter as it stands is in %s\n",
                (long long)r->steps, (long long)j->length.steps, dir);
    else if (out)
        fprintf(out, "interrupted before the first step: nothing was trained\n");
    return FT_EREQUEUE;
}

static int compare_with_baseline(FILE *out, const struct ft_config *c)
{
    const struct ft_compare_options o = {.tolerance = c->baseline_tolerance};
    char *path = ft_config_path(c, c->baseline);
    const int rc = path ? ft_compare_runs(out, path, c->output_dir, &o, NULL) : FT_ERESOURCE;
    ft_free(path);
    return rc;
}

static int train(struct ft_world *w, const struct ft_command *self, int n, char **words,
                 struct ft_shown show)
{
    struct ft_job_hooks hooks = show.quiet ? (struct ft_job_hooks){0} : ft_data_hooks;
    struct ft_config c;
    struct ft_job j = {0};
    struct ft_train_result r;
    FILE *out = show.quiet ? NULL : stdout;
    hooks.world = w;
    int rc = ft_read_config_words(&c, self, n, words);
    if (!rc)
        rc = ft_job_open(&j, &c, &hooks);
    ft_print_notices();
    if (!rc && out)
        print_start(out, &j);
    if (!rc)
        rc = ft_train(&j,
                      &(struct ft_train_options){.console = out,
                                                 .profile = show.profile,
                                                 .started = ft_started,
                                                 .begins = note_steps,
                                                 .stop = &asked},
                      &r);
    const bool ended = !rc && !r.finished && !r.interrupted;
    if (!rc)
        rc = end_of(out, &j, &r);
    if (ended && out)
        print_end(out, &j, &r);
    if (ended && c.baseline && ft_world_rank(w) == 0)
        rc = compare_with_baseline(out, &c);
    if (ended && show.profile)
        ft_print_profile(stdout, &r.profile);
    if (show.json && (rc == FT_OK || rc == FT_EREQUEUE || rc == FT_EREGRESSED))
        print_json(stdout, &j, &r);
    ft_job_close(&j);
    ft_config_fini(&c);
    return rc;
}

int ft_cmd_train(const struct ft_command *self, int n, char **words)
{
    struct ft_shown show = {.quiet = ft_take_flag(&n, words, "--quiet"),
                            .json = ft_take_flag(&n, words, "--json"),
                            .profile = ft_take_flag(&n, words, "--profile")};
    const bool sweep = ft_take_flag(&n, words, "--sweep"),
               array = ft_take_flag(&n, words, "--array");
    struct ft_world *w;
    if (array && !sweep)
        return ft_fail(FT_ECONFIG, "'--array' is for 'ft train --sweep'");
    if (sweep)
        return ft_sweep(self, n, words, show, array);
    listen_to_signals();
    int rc = ft_world_open(&w, &(struct ft_world_watch){lose, follow});
    if (ft_world_rank(w) > 0) {
        ft_silence_notices();
        mute = 1;
        show = (struct ft_shown){.quiet = true};
    }
    if (!rc)
        rc = train(w, self, n, words, show);
    return leave_world(w, rc);
}
