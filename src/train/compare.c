/* Compares two runs: what a CI job looks at. */
#include "train/compare.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <math.h>
#include <string.h>

/* Of each measure: its key in the log, and what its tolerance is multiplied with; 0: always exact.
 */
static const struct {
    const char *key;
    double factor;
} measures[FT_CURVES] = {
    [FT_LOSS] = {"loss", 1},
    [FT_EVAL_LOSS] = {"eval_loss", 1},
    [FT_GRAD_NORM] = {"grad_norm", 10},
    [FT_TRAINED_TOKENS] = {"trained_tokens", 0},
    [FT_LEARNING_RATE] = {"learning_rate", 0},
    [FT_SPEED] = {"tokens_per_second", 0},
    [FT_MEMORY] = {"peak_bytes", 0},
};

/* --- reading --- */

static int add_point(struct ft_curve *c, int64_t step, double value)
{
    if (c->n == c->room) {
        const int64_t room = 2 * c->room + 256;
        FT_TRY(ft_grow(&c->step, (size_t)room, sizeof *c->step));
        FT_TRY(ft_grow(&c->value, (size_t)room, sizeof *c->value));
        c->room = room;
    }
    c->step[c->n] = step;
    c->value[c->n++] = value;
    return FT_OK;
}

static int add_line(struct ft_run_record *r, const json_t *line, struct ft_where at)
{
    const json_t *step = json_object_get(line, "step");
    if (!json_is_integer(step))
        return ft_fail_at(at, FT_EDATA, "is not a line of a log: it has no 'step'");
    for (int i = 0; i < FT_CURVES; i++) {
        const json_t *value = json_object_get(line, measures[i].key);
        struct ft_curve *c = &r->curves[i];
        if (!value)
            continue;
        if (!json_is_number(value) && !json_is_null(value))
            return ft_fail_at(at, FT_EDATA, "'%s' is no number", measures[i].key);
        if (c->n && json_integer_value(step) <= c->step[c->n - 1])
            return ft_fail_at(at, FT_EDATA, "step %lld is there twice, or out of order",
                              (long long)json_integer_value(step));
        FT_TRY(add_point(c, json_integer_value(step),
                         json_is_null(value) ? (double)NAN : json_number_value(value)));
    }
    return FT_OK;
}

static int read_log(struct ft_run_record *r)
{
    enum { MOST = 1 << 30 };
    char *text;
    size_t length;
    struct ft_where at = {.file = r->path, .line = 1};
    FT_TRY(ft_file_read(r->path, MOST, FT_EDATA, &text, &length));
    int rc = FT_OK;
    for (size_t i = 0; i < length && !rc; at.line++) {
        const char *end = memchr(text + i, '\n', length - i);
        const size_t n = end ? (size_t)(end - text) - i : length - i;
        json_t *line = NULL;
        if (n)
            rc = ft_json_record(text + i, n, at, FT_EDATA, &line);
        if (!rc && n)
            rc = add_line(r, line, at);
        json_decref(line);
        i += n + 1;
    }
    ft_free(text);
    if (!rc && !r->curves[FT_LOSS].n && !r->curves[FT_EVAL_LOSS].n)
        rc = ft_fail_at((struct ft_where){.file = r->path}, FT_EDATA, "has no losses");
    return rc;
}

int ft_run_record_open(struct ft_run_record *r, const char *path)
{
    *r = (struct ft_run_record){0};
    char *run = NULL;
    if (ft_is_folder(path)) {
        r->path = ft_path_join(path, "metrics.jsonl");
        run = ft_path_join(path, "run.json");
    } else {
        const char *slash = strrchr(path, '/');
        r->path = ft_strdup(path);
        run = ft_format("%.*srun.json", slash ? (int)(slash - path) + 1 : 0, path);
    }
    int rc = r->path && run ? FT_OK : FT_ERESOURCE;
    if (!rc && ft_file_exists(run))
        rc = ft_json_file(run, FT_EDATA, &r->run);
    if (!rc)
        rc = read_log(r);
    ft_free(run);
    return rc;
}

void ft_run_record_close(struct ft_run_record *r)
{
    for (int i = 0; i < FT_CURVES; i++) {
        ft_free(r->curves[i].step);
        ft_free(r->curves[i].value);
    }
    json_decref(r->run);
    ft_free(r->path);
    *r = (struct ft_run_record){0};
}

/* --- comparing --- */

static double difference(double a, double b)
{
    if (a == b || (isnan(a) && isnan(b)))
        return 0;
    const double d = fabs(a - b) / fmax(fabs(a), 1e-30);
    return isfinite(d) ? d : INFINITY;
}

static void compare_curves(struct ft_comparison *c, const struct ft_curve *a,
                           const struct ft_curve *b)
{
    int64_t k = 0;
    c->step = -1;
    for (int64_t i = 0; i < a->n; i++) {
        while (k < b->n && b->step[k] < a->step[i])
            k++;
        if (k == b->n || b->step[k] != a->step[i]) {
            c->why = "the run has no such step";
            c->step = a->step[i];
            return;
        }
        const double d = difference(a->value[i], b->value[k]);
        c->points++;
        if (d > c->difference || i == 0) {
            c->difference = d;
            c->step = a->step[i];
            c->baseline = a->value[i];
            c->run = b->value[k];
        }
    }
}

static const json_t *result(const struct ft_run_record *r, const char *key)
{
    return json_object_get(json_object_get(r->run, "result"), key);
}

static void compare_share(struct ft_comparison *c, const struct ft_run_record *a,
                          const struct ft_run_record *b, const char *key, double limit)
{
    const double was = json_number_value(result(a, key)), is = json_number_value(result(b, key));
    *c = (struct ft_comparison){.name = key,
                                .looked_at = limit > 0,
                                .allowed = limit,
                                .step = -1,
                                .baseline = was,
                                .run = is};
    c->points = was > 0 && is > 0;
    c->difference = c->points ? is / was : 0;
    if (c->looked_at && !c->points)
        c->why = "run.json does not say it of both";
}

/* Whether parts of a run were made by another version, processor or number of ranks. */
static bool was_moved(const json_t *run)
{
    return json_integer_value(json_object_get(json_object_get(run, "result"), "moved")) > 0;
}

/* What differs of what decides bits. */
static const char *machine_difference(const struct ft_run_record *a, const struct ft_run_record *b)
{
    static const char *const keys[] = {"ft_version", "device", "isa", "threads", "ranks", "gpu"};
    if (!a->run || !b->run)
        return "run.json is not there";
    if (was_moved(a->run) || was_moved(b->run))
        return "a run went on elsewhere";
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *x = json_object_get(a->run, keys[i]), *y = json_object_get(b->run, keys[i]);
        if ((x || y) && !(x && y && json_equal(x, y)))
            return keys[i];
    }
    return NULL;
}

void ft_compare(struct ft_comparison out[FT_COMPARISONS], const char **machine,
                const struct ft_run_record *baseline, const struct ft_run_record *run,
                const struct ft_compare_options *o)
{
    *machine = machine_difference(baseline, run);
    for (int i = 0; i < FT_MEASURES; i++) {
        struct ft_comparison *c = &out[i];
        *c = (struct ft_comparison){.name = measures[i].key,
                                    .looked_at = baseline->curves[i].n > 0,
                                    .exact = !*machine || measures[i].factor == 0};
        c->allowed = c->exact ? 0 : o->tolerance * measures[i].factor;
        compare_curves(c, &baseline->curves[i], &run->curves[i]);
        c->passed = !c->why && c->difference <= c->allowed;
    }
    struct ft_comparison *speed = &out[FT_COMPARE_SPEED], *memory = &out[FT_COMPARE_MEMORY];
    compare_share(speed, baseline, run, "tokens_per_second", o->speed);
    speed->passed = !speed->looked_at || (!speed->why && speed->difference >= o->speed);
    compare_share(memory, baseline, run, "peak_bytes", o->memory);
    memory->passed = !memory->looked_at || (!memory->why && memory->difference <= o->memory);
}
