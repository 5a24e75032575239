#include "tests/golden/golden.h"

#include "core/file.h"
#include "core/mem.h"

#include <dirent.h>
#include <ftw.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

void setup_add(struct setup *s, const char *fmt, ...)
{
    va_list ap;
    FT_ASSERT(s->n < MAX_OVERRIDES);
    va_start(ap, fmt);
    vsnprintf(s->text[s->n], sizeof s->text[0], fmt, ap);
    va_end(ap);
    s->list[s->n] = s->text[s->n];
    s->n++;
}

bool golden_is_full(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/adapter_config.json", name);
    return !ft_file_exists(path);
}

/* What the case asks of the config beside its adapter: a line each. */
static void add_overrides(struct setup *s, const char *name)
{
    char path[512], line[256];
    snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/overrides", name);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        setup_add(s, "%.*s", (int)strcspn(line, "\n"), line);
    if (f)
        fclose(f);
}

void setup_golden(struct setup *s, const char *name)
{
    const char *dir = FT_ROOT "/tests/golden";
    setup_add(s, "base_model=%s/%s", dir, name);
    setup_add(s, "device=cpu");
    if (golden_is_full(name))
        setup_add(s, "adapter=full");
    else
        setup_add(s, "lora_model_dir=%s/%s", dir, name);
    setup_add(s, "datasets.0.path=%s/%s/data.safetensors", dir, name);
    setup_add(s, "output_dir=unused");
    setup_add(s, "curriculum_sampling=true");
    setup_add(s, "gradient_accumulation_steps=100");
    setup_add(s, "learning_rate=1e-3");
    setup_add(s, "weight_decay=0.01");
    setup_add(s, "lr_scheduler=constant");
    setup_add(s, "max_steps=20");
    setup_add(s, "save_strategy=no");
    add_overrides(s, name);
}

bool open_setup(struct opened *o, const struct setup *s)
{
    o->job = (struct ft_job){0};
    int rc = ft_config_read(&o->config, NULL, s->list, s->n);
    if (!rc)
        rc = ft_job_open(&o->job, &o->config, NULL);
    if (!rc)
        rc = ft_job_place(&o->job, NULL, NULL);
    if (rc) {
        check_fail(s->list[0], rc, "%s", ft_status_report());
        close_setup(o);
    }
    return rc == FT_OK;
}

void close_setup(struct opened *o)
{
    ft_job_close(&o->job);
    ft_config_fini(&o->config);
}

void make_folder(char folder[256])
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, 256, "%s/ft-test-XXXXXX", tmp ? tmp : "/tmp");
    FT_ASSERT(mkdtemp(folder));
}

bool train_setup(const struct setup *s, char folder[256], struct ft_train_result *r)
{
    struct setup mine = *s;
    struct opened o = {0};
    make_folder(folder);
    for (int i = 0; i < mine.n; i++)
        mine.list[i] = mine.text[i];
    setup_add(&mine, "output_dir=%s", folder);
    int rc = ft_config_read(&o.config, NULL, mine.list, mine.n);
    if (!rc)
        rc = ft_job_open(&o.job, &o.config, NULL);
    if (!rc)
        rc = ft_train(&o.job, &(struct ft_train_options){0}, r);
    close_setup(&o);
    if (rc)
        check_fail(s->list[0], rc, "%s", ft_status_report());
    return rc == FT_OK;
}

int read_losses(const char *folder, double *out, int most)
{
    char path[512], line[1024];
    int n = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    FILE *f = fopen(path, "r");
    while (f && n < most && fgets(line, sizeof line, f)) {
        json_t *o = json_loads(line, 0, NULL), *loss = json_object_get(o, "loss");
        if (loss)
            out[n++] = json_number_value(loss);
        json_decref(o);
    }
    if (f)
        fclose(f);
    return n;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *w)
{
    (void)st, (void)type, (void)w;
    return remove(path);
}

void remove_folder(const char *folder)
{
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

double *read_values(const struct ft_st *f, const char *name, int64_t *n)
{
    const struct ft_st_entry *e = ft_st_find(f, name);
    double *out;
    if (!e || (e->dtype != FT_F32 && e->dtype != FT_F64)) {
        check_fail(ft_st_path(f), 0, "no tensor '%s'", name);
        return NULL;
    }
    size_t bytes = (size_t)(e->end - e->begin);
    *n = (int64_t)(bytes / ft_dtype_size(e->dtype));
    FT_ASSERT(ft_alloc(&out, (size_t)*n, sizeof *out) == FT_OK);
    if (e->dtype == FT_F64) {
        FT_ASSERT(ft_st_read(f, e, 0, bytes, out) == FT_OK);
        return out;
    }
    float *narrow = (float *)out + *n; /* the upper half, widened from the front */
    FT_ASSERT(ft_st_read(f, e, 0, bytes, narrow) == FT_OK);
    for (int64_t i = 0; i < *n; i++) {
        float v;
        memcpy(&v, &narrow[i], sizeof v);
        double d = (double)v;
        memcpy(&out[i], &d, sizeof d);
    }
    return out;
}

bool same_files(const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 1;
    int bad =
        ft_file_read(a, 1 << 28, FT_EDATA, &x, &n) || ft_file_read(b, 1 << 28, FT_EDATA, &y, &m);
    bool same = !bad && n == m && memcmp(x, y, n) == 0;
    ft_free(x);
    ft_free(y);
    return same;
}

void run_all(struct ft_job *j, enum ft_program p)
{
    const struct ft_dataset *d = p == FT_EVAL ? &j->held : &j->train;
    int32_t docs[256];
    FT_ASSERT(d->n_docs <= 256);
    for (int i = 0; i < d->n_docs; i++)
        docs[i] = i;
    for (int64_t at = 0; at < d->n_docs;) {
        struct ft_run r;
        FT_ASSERT(ft_job_fill(j, d, docs + at, d->n_docs - at, 0, &r) == FT_OK);
        at += r.counts[FT_DOCUMENTS];
        ft_graph_poison(j->graph);
        if (ft_graph_run(j->graph, p, j->pool, &r, NULL))
            check_fail("run_all", 0, "%s", ft_status_report());
    }
}

float *read_floats(struct ft_job *j, const struct ft_tensor *t)
{
    float *out;
    FT_ASSERT(t->dtype == FT_F32 && ft_alloc(&out, ft_tensor_bytes(t), 1) == FT_OK);
    if (ft_graph_read(j->graph, t, out))
        check_fail("read_floats", 0, "%s", ft_status_report());
    return out;
}

int golden_cases(char names[MAX_CASES][64])
{
    struct dirent **list;
    int n = 0, found = scandir(FT_ROOT "/tests/golden", &list, NULL, alphasort);
    for (int i = 0; i < found; i++) {
        char path[512];
        snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/golden.safetensors", list[i]->d_name);
        if (ft_file_exists(path)) {
            FT_ASSERT(n < MAX_CASES && strlen(list[i]->d_name) < 64);
            strcpy(names[n++], list[i]->d_name);
        }
        free(list[i]);
    }
    if (found >= 0)
        free(list);
    return n;
}
