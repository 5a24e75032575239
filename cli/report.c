/* ft report: one page that needs nothing else. */
#include "cli/responder.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "train/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 8, POINTS = 500 }; /* at most; of a curve */

static const char style[] =
    ":root{--bg:#fff;--fg:#1b1f24;--soft:#5b6470;--line:#d8dee4;--c0:#0b62c4;--c1:#c2410c;"
    "--c2:#15803d;--c3:#7c3aed;--c4:#be185d;--c5:#0e7490;--c6:#854d0e;--c7:#475569}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e9ec;--soft:#9aa4af;"
    "--line:#333a41;--c0:#6cb2ff;--c1:#ff9d5c;--c2:#6ee7a0;--c3:#c4a5ff;--c4:#ff8cc0;"
    "--c5:#67d8ef;--c6:#e3b75f;--c7:#a8b3c0}}\n"
    "@media print{:root{--bg:#fff;--fg:#000;--soft:#444;--line:#bbb}details{display:none}}\n"
    "body{background:var(--bg);color:var(--fg);font:16px/1.45 system-ui,sans-serif;margin:0 auto;"
    "max-width:72rem;padding:1rem}\n"
    "h1{font-size:1.4rem;margin:.3rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}\n"
    "p{margin:.3rem 0;color:var(--soft)}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));"
    "gap:1rem}\n"
    "figure{margin:0;break-inside:avoid}figcaption{font-weight:600}svg{width:100%;height:auto}\n"
    "svg text{fill:var(--soft);font:12px system-ui,sans-serif}svg .axis{stroke:var(--line)}\n"
    "svg polyline{fill:none;stroke-width:1.6}svg .eval{stroke-dasharray:5 3}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem}\n"
    "th,td{text-align:left;padding:.2rem .7rem .2rem 0;border-bottom:1px solid var(--line);"
    "vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}\n"
    "code{font-size:.9em;overflow-wrap:anywhere}.key{display:inline-block;width:1.6em;height:.25em;"
    "margin-right:.4em;vertical-align:middle}\n"
    "td:first-child{min-width:11rem}td.said{white-space:pre-wrap;min-width:14rem;padding-right:"
    "1rem}\n"
    "@media(max-width:40rem){svg text{font-size:20px}}\n";

struct report {
    FILE *o;
    struct ft_run_record runs[RUNS];
    const char *names[RUNS];
    int n;
};

/* --- text --- */

static void escape(FILE *o, const char *text)
{
    for (; text && *text; text++)
        if (*text == '<')
            fputs("&lt;", o);
        else if (*text == '>')
            fputs("&gt;", o);
        else if (*text == '&')
            fputs("&amp;", o);
        else if (*text == '"')
            fputs("&quot;", o);
        else
            fputc(*text, o);
}

/* A value as JSON writes it, texts without their quotes. */
static void put_value(FILE *o, const json_t *v)
{
    char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    escape(o, json_is_string(v) ? json_string_value(v) : text ? text : "");
    ft_json_free(text);
}

static const json_t *in(const json_t *o, const char *part, const char *key)
{
    return json_object_get(part ? json_object_get(o, part) : o, key);
}

/* --- charts --- */

struct range {
    double x0, x1, y0, y1;
};

static void widen(struct range *r, const struct ft_curve *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        if (!isfinite(c->value[i]))
            continue;
        r->x0 = fmin(r->x0, (double)c->step[i]);
        r->x1 = fmax(r->x1, (double)c->step[i]);
        r->y0 = fmin(r->y0, c->value[i]);
        r->y1 = fmax(r->y1, c->value[i]);
    }
}

enum { TICKS = 20 }; /* at most, whatever the numbers */
enum { WIDTH = 640, HEIGHT = 260, LEFT = 70, RIGHT = 20, TOP = 18, BOTTOM = 28 };

static double place_x(const struct range *r, double x)
{
    return LEFT + (x - r->x0) / (r->x1 > r->x0 ? r->x1 - r->x0 : 1) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct range *r, double y)
{
    return HEIGHT - BOTTOM -
           (y - r->y0) / (r->y1 > r->y0 ? r->y1 - r->y0 : 1) * (HEIGHT - TOP - BOTTOM);
}

/* A step of 1, 2 or 5 times a power of ten that cuts the range in about n. */
static double nice_step(double range, int n)
{
    const double raw = range / n, power = pow(10, floor(log10(raw)));
    const double lead = raw / power;
    return (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10) * power;
}

/* A tick's number into 32 bytes, short enough for a phone: 4e+07 is 40 M, 0.0002 is 2e-4. */
static const char *tick_text(char out[32], double v)
{
    const bool large = fabs(v) >= 1e5, larger = fabs(v) >= 1e9;
    if (v != 0 && fabs(v) < 1e-2) {
        const int power = (int)floor(log10(fabs(v)) + 1e-9);
        snprintf(out, 32, "%.3ge%d", v / pow(10, power), power);
        return out;
    }
    snprintf(out, 32, "%.4g%s",
             v / (larger  ? 1e9
                  : large ? 1e6
                          : 1),
             larger  ? " G"
             : large ? " M"
                     : "");
    return out;
}

static void put_axes(FILE *o, const struct range *r)
{
    const double y_step = nice_step(r->y1 > r->y0 ? r->y1 - r->y0 : 1, 5),
                 x_step = nice_step(r->x1 > r->x0 ? r->x1 - r->x0 : 1, 6);
    const double y0 = ceil(r->y0 / y_step) * y_step, x0 = ceil(r->x0 / x_step) * x_step;
    for (int i = 0; i < TICKS && y0 + i * y_step <= r->y1 + y_step * 1e-9; i++) {
        const double y = y0 + i * y_step;
        char text[32];
        fprintf(o,
                "<line class=axis x1=%d x2=%d y1=%.1f y2=%.1f /><text x=%d y=%.1f "
                "text-anchor=end>%s</text>\n",
                LEFT, WIDTH - RIGHT, place_y(r, y), place_y(r, y), LEFT - 6, place_y(r, y) + 4,
                tick_text(text, fabs(y) < y_step * 1e-6 ? 0 : y));
    }
    for (int i = 0; i < TICKS && x0 + i * x_step <= r->x1 + x_step * 1e-9; i++)
        fprintf(o, "<text x=%.1f y=%d text-anchor=middle>%.6g</text>\n",
                place_x(r, x0 + i * x_step), HEIGHT - 8, x0 + i * x_step);
}

/* Long curves as the means of pieces of so many points. */
static void put_curve(FILE *o, const struct range *r, const struct ft_curve *c, int color,
                      bool eval)
{
    const int64_t piece = (c->n + POINTS - 1) / POINTS;
    fprintf(o, "<polyline%s style=\"stroke:var(--c%d)\" points=\"", eval ? " class=eval" : "",
            color);
    for (int64_t i = 0; i < c->n; i += piece) {
        double sum = 0, at = 0;
        int64_t n = 0;
        for (int64_t k = i; k < c->n && k < i + piece; k++)
            if (isfinite(c->value[k])) {
                sum += c->value[k];
                at += (double)c->step[k];
                n++;
            }
        if (n)
            fprintf(o, "%.1f,%.1f ", place_x(r, at / (double)n), place_y(r, sum / (double)n));
    }
    fputs("\"/>\n", o);
    for (int64_t i = 0; i < c->n && eval; i++)
        if (isfinite(c->value[i]))
            fprintf(o, "<circle r=2.6 cx=%.1f cy=%.1f style=\"fill:var(--c%d)\" />\n",
                    place_x(r, (double)c->step[i]), place_y(r, c->value[i]), color);
}

/* One measure of all runs, and another, dashed, in the same frame (-1: none). */
static void put_chart(const struct report *p, const char *title, int measure, int dashed)
{
    struct range r = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (int i = 0; i < p->n; i++) {
        widen(&r, &p->runs[i].curves[measure]);
        if (dashed >= 0)
            widen(&r, &p->runs[i].curves[dashed]);
    }
    if (!isfinite(r.x0))
        return;
    if (r.y1 == r.y0) {
        r.y0 -= fabs(r.y0) / 2 + 1e-9;
        r.y1 += fabs(r.y1) / 2 + 1e-9;
    }
    fprintf(p->o,
            "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 %d %d\" role=img "
            "aria-label=\"%s\">\n",
            title, WIDTH, HEIGHT, title);
    put_axes(p->o, &r);
    for (int i = 0; i < p->n; i++) {
        put_curve(p->o, &r, &p->runs[i].curves[measure], i, false);
        if (dashed >= 0)
            put_curve(p->o, &r, &p->runs[i].curves[dashed], i, true);
    }
    fputs("</svg></figure>\n", p->o);
}

/* --- tables --- */

static void begin_table(const struct report *p, const char *title)
{
    fprintf(p->o, "<h2>%s</h2>\n<div class=scroll><table>\n<tr><th></th>", title);
    for (int i = 0; i < p->n; i++) {
        fprintf(p->o, "<th><span class=key style=\"background:var(--c%d)\"></span>", i);
        escape(p->o, p->names[i]);
        fputs("</th>", p->o);
    }
    fputs("</tr>\n", p->o);
}

static void put_summary(const struct report *p)
{
    static const struct {
        const char *title, *part, *key;
    } rows[] = {{"base model", "base_model", "name"},
                {"status", NULL, "status"},
                {"steps", "result", "steps"},
                {"tokens", "result", "tokens"},
                {"first loss", "result", "first_loss"},
                {"last loss", "result", "last_loss"},
                {"first evaluation", "result", "first_eval_loss"},
                {"last evaluation", "result", "last_eval_loss"},
                {"seconds", "result", "seconds"},
                {"tokens a second", "result", "tokens_per_second"},
                {"peak memory, bytes", "result", "peak_bytes"},
                {"trained parameters", NULL, "trained_parameters"},
                {"device", NULL, "device"},
                {"processor", NULL, "cpu"},
                {"instruction set", NULL, "isa"},
                {"threads", NULL, "threads"},
                {"ft", NULL, "ft_version"},
                {"licence of the base", "base_model", "licence"}};
    begin_table(p, "Summary");
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        bool any = false;
        for (int i = 0; i < p->n; i++)
            any = any || in(p->runs[i].run, rows[k].part, rows[k].key);
        if (!any)
            continue;
        fprintf(p->o, "<tr><th>%s</th>", rows[k].title);
        for (int i = 0; i < p->n; i++) {
            const json_t *v = in(p->runs[i].run, rows[k].part, rows[k].key);
            fprintf(p->o, "<td%s>", json_is_number(v) ? " class=n" : "");
            if (json_is_real(v))
                fprintf(p->o, "%.6g", json_real_value(v));
            else if (v && !json_is_null(v))
                put_value(p->o, v);
            fputs("</td>", p->o);
        }
        fputs("</tr>\n", p->o);
    }
    fputs("</table></div>\n", p->o);
}

/* Options that not all runs have alike; of one run all that are set, to be unfolded. */
static void put_config(const struct report *p)
{
    const json_t *first = json_object_get(p->runs[0].run, "config");
    const char *key;
    json_t *value;
    if (!first)
        return;
    if (p->n == 1)
        fputs("<details><summary>The whole config</summary>\n", p->o);
    begin_table(p, p->n == 1 ? "Config" : "What differs in the configs");
    json_object_foreach((json_t *)(uintptr_t)first, key, value)
    {
        bool show = p->n == 1 && !json_is_null(value);
        for (int i = 1; i < p->n; i++)
            show = show || !json_equal(value, in(p->runs[i].run, "config", key));
        if (!show)
            continue;
        fputs("<tr><th><code>", p->o);
        escape(p->o, key);
        fputs("</code></th>", p->o);
        for (int i = 0; i < p->n; i++) {
            fputs("<td><code>", p->o);
            put_value(p->o, in(p->runs[i].run, "config", key));
            fputs("</code></td>", p->o);
        }
        fputs("</tr>\n", p->o);
    }
    fputs(p->n == 1 ? "</table></div></details>\n" : "</table></div>\n", p->o);
}

/* The problems of a file's labels, as the audit names them. */
static void put_problems(FILE *o, const json_t *audit)
{
    const char *name;
    json_t *v;
    bool any = false;
    json_object_foreach(json_object_get(audit, "problems"), name, v)
    {
        const json_int_t count = json_integer_value(json_array_get(v, 0));
        if (!count)
            continue;
        fprintf(o, "%s%lld ", any ? ", " : "", (long long)count);
        escape(o, name);
        any = true;
    }
    if (!any)
        fputs("none", o);
}

/* Of run i, where there are others. */
static void put_heading(const struct report *p, int i, const char *title)
{
    fprintf(p->o, "<h2>%s", title);
    if (p->n > 1) {
        fputs(" of ", p->o);
        escape(p->o, p->names[i]);
    }
    fputs("</h2>\n", p->o);
}

static void put_data(const struct report *p)
{
    for (int i = 0; i < p->n; i++) {
        const json_t *list = json_object_get(p->runs[i].run, "data");
        size_t k;
        json_t *d;
        if (!json_array_size(list))
            continue;
        put_heading(p, i, "Data");
        fputs("<div class=scroll><table><tr><th>file</th><th>documents</th><th>tokens</th>"
              "<th>trained</th><th>longest</th><th>problems of the labels</th></tr>\n",
              p->o);
        json_array_foreach((json_t *)(uintptr_t)list, k, d)
        {
            static const char *const numbers[] = {"documents", "tokens", "trained", "longest"};
            const json_t *audit = json_object_get(d, "audit");
            fputs("<tr><td><code>", p->o);
            put_value(p->o, json_object_get(d, "file"));
            fputs("</code></td>", p->o);
            for (size_t c = 0; c < sizeof numbers / sizeof *numbers; c++) {
                fputs("<td class=n>", p->o);
                if (json_object_get(audit, numbers[c]))
                    put_value(p->o, json_object_get(audit, numbers[c]));
                fputs("</td>", p->o);
            }
            fputs("<td>", p->o);
            if (audit)
                put_problems(p->o, audit);
            fputs("</td></tr>\n", p->o);
        }
        fputs("</table></div>\n", p->o);
    }
}

/* --- samples --- */

/* A record of `ft generate --compare --json`: the prompt, the base's answer, and the run's. */
static int put_sample(void *ctx, json_t *record, struct ft_where at)
{
    const struct report *p = ctx;
    const json_t *prompt = json_object_get(record, "prompt"),
                 *messages = json_object_get(record, "messages"),
                 *after = json_object_get(record, "text"), *before = in(record, "base", "text");
    if (!json_is_string(after))
        return ft_fail_at(at, FT_EDATA,
                          "has no 'text': 'ft generate --compare --json' writes them");
    if (!prompt && json_array_size(messages))
        prompt =
            json_object_get(json_array_get(messages, json_array_size(messages) - 1), "content");
    const json_t *const cells[] = {prompt, before, after};
    fputs("<tr>", p->o);
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
        fputs("<td class=said>", p->o);
        if (cells[i])
            put_value(p->o, cells[i]);
        fputs("</td>", p->o);
    }
    fputs("</tr>\n", p->o);
    return FT_OK;
}

/* Those that lie in the run folder. */
static int put_samples(struct report *p)
{
    int rc = FT_OK;
    for (int i = 0; i < p->n && !rc; i++) {
        char *path = ft_is_folder(p->names[i]) ? ft_path_join(p->names[i], "samples.jsonl") : NULL;
        if (path && ft_file_exists(path)) {
            put_heading(p, i, "Samples");
            fputs("<div class=scroll><table><tr><th>prompt</th><th>before</th><th>after</th>"
                  "</tr>\n",
                  p->o);
            rc = ft_read_records(path, put_sample, p);
            fputs("</table></div>\n", p->o);
        }
        ft_free(path);
    }
    return rc;
}

#define MARK "<meta name=generator content=ft>"

/* FT_EDATA: samples that are none. */
static int put_page(struct report *p)
{
    fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n"
          "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n" MARK "\n<title>",
          p->o);
    escape(p->o, p->names[0]);
    fprintf(p->o, "</title>\n<style>\n%s</style></head><body>\n<h1>", style);
    for (int i = 0; i < p->n; i++) {
        fputs(i ? ", " : "", p->o);
        escape(p->o, p->names[i]);
    }
    fputs("</h1>\n<p>Made by ft " FT_VERSION
          " from metrics.jsonl and run.json. Dashed: the loss of "
          "evaluations.</p>\n<div class=grid>\n",
          p->o);
    put_chart(p, "Loss by step", FT_LOSS, FT_EVAL_LOSS);
    put_chart(p, "Norm of the gradient", FT_GRAD_NORM, -1);
    put_chart(p, "Learning rate", FT_LEARNING_RATE, -1);
    put_chart(p, "Tokens a second", FT_SPEED, -1);
    put_chart(p, "Bytes of memory, at most until then", FT_MEMORY, -1);
    fputs("</div>\n", p->o);
    put_summary(p);
    put_config(p);
    put_data(p);
    int rc = put_samples(p);
    fputs("</body></html>\n", p->o);
    return rc;
}

/* --- the command --- */

/* A page may be made anew; anything else stays. */
static int check_place(const char *out)
{
    char begins[512];
    FILE *f = fopen(out, "re");
    const size_t n = f ? fread(begins, 1, sizeof begins - 1, f) : 0;
    begins[n] = 0;
    if (f)
        fclose(f);
    if (!f || strstr(begins, MARK))
        return FT_OK;
    return ft_fail_at((struct ft_where){.file = out}, FT_ECONFIG,
                      "is there already, and is no page of 'ft report'");
}

static int write_page(struct report *p, const char *out)
{
    struct ft_printed page;
    FT_TRY(ft_printed_open(&page));
    p->o = page.o;
    int rc = put_page(p);
    const int lost = ft_printed_close(&page);
    rc = rc ? rc : lost;
    if (!rc)
        rc = ft_file_write(out, page.text, page.n);
    ft_printed_free(&page);
    return rc;
}

int ft_cmd_report(const struct ft_command *self, int n, char **words)
{
    struct report p = {0};
    const char *out = NULL;
    FT_TRY(ft_take_text(self, &n, words, "-o", &out));
    FT_TRY(ft_refuse_flags(self, n, words));
    if (n < 1 || n > RUNS || !out) {
        ft_fail(FT_ECONFIG, !out ? "'ft report' needs a file to write, behind '-o'"
                                 : "'ft report' needs one run folder, or up to 8");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    int rc = check_place(out);
    for (int i = 0; i < n && !rc; i++) {
        p.names[i] = words[i];
        rc = ft_run_record_open(&p.runs[i], words[i]);
        p.n++;
    }
    if (!rc)
        rc = write_page(&p, out);
    for (int i = 0; i < p.n; i++)
        ft_run_record_close(&p.runs[i]);
    if (!rc)
        printf("%s: %d run%s\n", out, n, n == 1 ? "" : "s");
    return rc;
}
