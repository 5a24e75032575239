/* Damaged input for the parsers of what strangers write: tokenizer files, chat templates, records
 * of data files, configs of ft and of models, weights, adapters, tokenized datasets, GGUF files,
 * checkpoints' manifests, logs. As a test a second of each; FT_FUZZ_SECONDS=600 FT_FUZZ=template
 * test_fuzz_fuzz for long. The input of the moment is in
 * FT_FUZZ_FILE (default /tmp/ft-fuzz-PID) if it crashes. */
#include "core/clock.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "io/gguf.h"
#include "io/records.h"
#include "model/gguf.h"
#include "model/model.h"
#include "tests/check.h"
#include "jinja/template.h"
#include "text/gguf.h"
#include "text/tokenizer.h"
#include "train/compare.h"
#include "train/internal.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t state;
static int seed_at; /* the seed that the input was made from */
static char input_file[256];

static uint32_t pick(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return n ? (uint32_t)(state >> 33) % n : 0;
}

/* --- damage to bytes --- */

struct bytes {
    char *p;
    size_t n, room;
};

static void append(struct bytes *b, const char *p, size_t n)
{
    if (b->room < b->n + n + 4096) {
        CHECK_INT(ft_grow(&b->p, b->n + n + 8192, 1), FT_OK);
        b->room = b->n + n + 8192;
    }
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void set(struct bytes *b, const char *p, size_t n)
{
    b->n = 0;
    append(b, p, n);
}

static const char *const pieces[] = {
    "{",           "}",       "[",        "]",     "\"",     "\\",           ",",
    ":",           "\n",      "null",     "true",  "-1",     "1e308",        "9999999999999999999",
    "\\u0000",     "\\ud800", "\xff",     "\xc3",  "\0",     "\xef\xbb\xbf", "{%",
    "%}",          "{{",      "}}",       "{#",    "-%}",    " for x in ",   " if ",
    " set ",       "endfor",  "|",        "loop.", "**",     "//",           "~",
    "namespace()", "macro",   "range(9)", "*",     "\r\n",   "(?i:",         "\\p{L}",
    "(",           ")",       "+",        "{1,3}", "<0x0A>", "\xe2\x96\x81", "\"\"",
    ",,",          "\x1f\x8b"};

static void damage(struct bytes *b)
{
    for (uint32_t k = 1 + pick(6); k > 0; k--) {
        const size_t at = pick((uint32_t)b->n + 1);
        size_t length = 1 + pick(pick(4) ? 8 : 200);
        const char *piece = pieces[pick(sizeof pieces / sizeof *pieces)];
        switch (pick(5)) {
        case 0: /* another byte */
            if (at < b->n)
                b->p[at] = (char)pick(256);
            break;
        case 1: /* a piece put in */
            length = strlen(piece) ? strlen(piece) : 1;
            if (b->n + length < b->room) {
                memmove(b->p + at + length, b->p + at, b->n - at);
                memcpy(b->p + at, piece, length);
                b->n += length;
            }
            break;
        case 2: /* some taken out */
            if (at + length <= b->n) {
                memmove(b->p + at, b->p + at + length, b->n - at - length);
                b->n -= length;
            }
            break;
        case 3: /* some twice */
            if (at + length <= b->n && b->n + length < b->room) {
                memmove(b->p + at + length, b->p + at, b->n - at);
                b->n += length;
            }
            break;
        default: /* the end cut off */
            if (pick(8) == 0)
                b->n = at;
        }
    }
}

/* --- damage to JSON that stays JSON --- */

static json_t *any_value(void)
{
    switch (pick(9)) {
    case 0:
        return json_null();
    case 1:
        return json_integer((json_int_t)pick(5) - 2);
    case 2:
        return json_integer(INT64_C(1) << pick(63));
    case 3:
        return json_real(pick(2) ? 0.5 : -1e300);
    case 4:
        return json_string("");
    case 5:
        return json_string(pick(2) ? "\xe2\x96\x81" : "a");
    case 6:
        return json_array();
    case 7:
        return json_object();
    default:
        return json_boolean(pick(2));
    }
}

/* Changes one place, found by walking down at random. */
static void damage_json(json_t *v, int depth)
{
    const char *key;
    json_t *member, *inner = NULL;
    if (json_is_object(v) && json_object_size(v)) {
        size_t at = pick((uint32_t)json_object_size(v));
        json_object_foreach(v, key, member)
        {
            if (at-- > 0)
                continue;
            if (depth > 0 && pick(4)) {
                inner = member;
            } else if (pick(3) == 0) {
                json_object_del(v, key);
            } else {
                char copy[256];
                snprintf(copy, sizeof copy, "%s", key);
                json_object_set_new(v, copy, any_value());
            }
            break;
        }
    } else if (json_is_array(v) && json_array_size(v)) {
        const size_t at = pick((uint32_t)json_array_size(v));
        if (depth > 0 && pick(4))
            inner = json_array_get(v, at);
        else if (pick(3) == 0)
            json_array_remove(v, at);
        else if (pick(2))
            json_array_set_new(v, at, any_value());
        else
            json_array_append(v, json_array_get(v, at));
    }
    if (inner)
        damage_json(inner, depth - 1);
}

/* --- the targets --- */

static void remember(const struct bytes *b)
{
    FILE *f = fopen(input_file, "wb");
    if (f) {
        fwrite(b->p, 1, b->n, f);
        fclose(f);
    }
}

static void try_tokenizer(const struct bytes *b)
{
    static const char text[] =
        "Hello, wörld! <s> 12345 \xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd  don't\n\n\tx";
    struct ft_tokenizer *t;
    struct ft_ids ids = {0};
    struct ft_spans spans = {0};
    char *back = NULL;
    size_t n;
    remember(b);
    if (ft_tokenizer_open(&t, input_file) == FT_OK) {
        if (ft_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &spans) == FT_OK) {
            CHECK_INT(spans.n, ids.n);
            ft_tokenizer_decode(t, ids.v, ids.n, false, &back, &n);
        }
        ft_tokenizer_close(t);
    }
    ft_free(back);
    ft_ids_free(&ids);
    ft_spans_free(&spans);
}

static json_t *context;

static void try_template(const struct bytes *b)
{
    struct ft_template *t;
    struct ft_rendered r = {0};
    char *source = NULL;
    json_t *text = json_stringn(b->p, b->n); /* templates are UTF-8 */
    if (!text)
        return;
    remember(b);
    source = ft_strdup(json_string_value(text));
    json_decref(text);
    if (ft_template_open(&t, source, "fuzz") == FT_OK)
        ft_template_render(t, context, 0, &r);
    ft_rendered_free(&r);
    ft_template_close(t);
    ft_free(source);
}

static void read_records(const struct bytes *b, const char *type)
{
    struct ft_records *r;
    struct ft_raw raw = {0};
    bool more = true;
    remember(b);
    if (ft_records_open(&r, input_file, type) == FT_OK) {
        for (int i = 0; more && i < 10000 && ft_records_next(r, &raw, &more) == FT_OK && more;
             i++) {
            json_t *v;
            if (ft_record_parse(r, &raw, &v) == FT_OK)
                json_decref(v);
            ft_status_clear();
        }
        ft_records_close(r);
    }
    ft_raw_free(&raw);
}

static void try_records(const struct bytes *b)
{
    static const char *const types[] = {"json", "text", "csv", "jsonl"};
    read_records(b, types[pick(4)]);
}

static void try_parquet(const struct bytes *b)
{
    read_records(b, "parquet");
}

/* Opens and loads the folder, as far as it goes. */
static void try_model(const char *folder)
{
    const struct ft_backend *b;
    struct ft_model *m;
    struct ft_graph *g = NULL;
    struct ft_pool *pool;
    FT_ASSERT(ft_cpu_backend(&b, "auto", false) == FT_OK && ft_pool_new(&pool, 1) == FT_OK);
    if (ft_model_open(&m, folder) == FT_OK) {
        if (ft_graph_new(&g, b) == FT_OK &&
            ft_model_declare(m, g, NULL, NULL, NULL, NULL) == FT_OK &&
            ft_graph_plan(g, NULL) == FT_OK && ft_graph_place(g) == FT_OK)
            ft_model_load(m, g, pool, false, NULL, NULL);
        ft_graph_free(g);
        ft_model_close(m);
    }
    ft_pool_free(pool);
}

static void in_folder(char *out, size_t room, const char *name)
{
    snprintf(out, room, "%s.d/%s", input_file, name);
}

/* The folder beside the input, with links to files of a golden case; NULL ends. */
static void link_case(const char *name, const char *const *files)
{
    char to[512], from[512];
    snprintf(to, sizeof to, "%s.d", input_file);
    CHECK_INT(ft_make_folders(to), FT_OK);
    for (; *files; files++) {
        snprintf(from, sizeof from, FT_ROOT "/tests/golden/%s/%s", name, *files);
        in_folder(to, sizeof to, *files);
        unlink(to);
        CHECK_INT(symlink(from, to), 0);
    }
}

static void link_input(const char *name)
{
    char to[512];
    in_folder(to, sizeof to, name);
    unlink(to);
    CHECK_INT(symlink(input_file, to), 0);
}

static void try_weights(const struct bytes *b)
{
    char folder[300];
    remember(b);
    link_case("base", (const char *[]){"config.json", NULL});
    link_input("model.safetensors");
    snprintf(folder, sizeof folder, "%s.d", input_file);
    try_model(folder);
}

static const char *const families[] = {
    "base",    "gemma2",     "gemma3",        "gpt2",    "gpt-neox",   "falcon", "phi3",
    "qwen3",   "rope-yarn",  "rope-longrope", "cohere2", "qwen2-5-vl", "glm4",   "olmo3",
    "granite", "starcoder2", "mistral3-vl",   "bnb-nf4", "fp8",        "gptq"};
enum { FAMILIES = sizeof families / sizeof *families };

/* A config.json over the weights it was written for. */
static void try_model_config(const struct bytes *b)
{
    char folder[300];
    remember(b);
    link_case(families[seed_at], (const char *[]){"model.safetensors", NULL});
    link_input("config.json");
    snprintf(folder, sizeof folder, "%s.d", input_file);
    try_model(folder);
}

static void try_config(const struct bytes *b)
{
    struct ft_config c;
    remember(b);
    if (ft_config_read(&c, input_file, NULL, 0) == FT_OK && pick(8) == 0) {
        FILE *f = fopen("/dev/null", "w");
        ft_config_dump(f, &c);
        fclose(f);
    }
    ft_config_fini(&c);
}

static void try_dataset(const struct bytes *b)
{
    struct ft_dataset d = {0};
    remember(b);
    if (ft_dataset_read(&d, input_file, 61, &(struct ft_limits){2, 16, FT_EXCESS_DROP, NULL}) ==
            FT_OK &&
        d.n_docs) {
        int32_t ids[16];
        uint8_t mask[16];
        ft_dataset_tokens(&d, &d.docs[pick((uint32_t)d.n_docs)], ids, mask);
    }
    ft_dataset_fini(&d);
}

static const char *const adapters[] = {"base",          "dora", "loraplus", "patterns",
                                       "dora-loraplus", "vera", "ia3",      "loha",
                                       "lokr",          "ends", "tokens"};
enum { ADAPTERS = sizeof adapters / sizeof *adapters };

/* Goes on from an adapter, as far as it goes, over the model it is of. */
static void go_on_from(const char *name)
{
    char model[512], data[512], adapter[600];
    struct ft_config c;
    struct ft_job j = {0};
    snprintf(model, sizeof model, "base_model=" FT_ROOT "/tests/golden/%s", name);
    snprintf(data, sizeof data, "datasets.0.path=" FT_ROOT "/tests/golden/%s/data.safetensors",
             name);
    snprintf(adapter, sizeof adapter, "lora_model_dir=%s.d", input_file);
    const char *words[] = {
        model,          data,         adapter,     "adapter=lora",
        "num_epochs=1", "device=cpu", "threads=1", "output_dir=/nonexistent/out"};
    if (ft_config_read(&c, NULL, words, sizeof words / sizeof *words) == FT_OK &&
        ft_job_open(&j, &c, NULL) == FT_OK)
        ft_job_place(&j, NULL, NULL);
    ft_job_close(&j);
    ft_config_fini(&c);
}

static void try_adapter_config(const struct bytes *b)
{
    remember(b);
    link_case(adapters[seed_at], (const char *[]){"adapter_model.safetensors", NULL});
    link_input("adapter_config.json");
    go_on_from(adapters[seed_at]);
}

static void try_adapter(const struct bytes *b)
{
    remember(b);
    link_case(adapters[seed_at], (const char *[]){"adapter_config.json", NULL});
    link_input("adapter_model.safetensors");
    go_on_from(adapters[seed_at]);
}

static const char *const quantised[] = {"bnb-nf4", "bnb-fp4", "bnb-int8",   "fp8",
                                        "ct-fp8",  "ct-int4", "gptq-order", "awq"};
enum { QUANTISED = sizeof quantised / sizeof *quantised };

/* The weights of one case, under the config of another, mostly the same. */
static void try_quantised(const struct bytes *b)
{
    static uint32_t last;
    char folder[300];
    remember(b);
    last = pick(4) ? last : pick(QUANTISED);
    link_case(quantised[last], (const char *[]){"config.json", NULL});
    link_input("model.safetensors");
    snprintf(folder, sizeof folder, "%s.d", input_file);
    try_model(folder);
}

static void try_gguf(const struct bytes *b)
{
    char folder[300], path[512];
    struct ft_gguf g;
    json_t *config = NULL, *tokenizer = NULL, *said = NULL;
    snprintf(folder, sizeof folder, "%s.d", input_file);
    remember(b);
    if (ft_gguf_open(&g, input_file))
        return;
    ft_gguf_tokenizer(g.metadata, input_file, &tokenizer, &said);
    if (ft_gguf_config(&g, input_file, &config) == FT_OK) {
        link_case(NULL, (const char *[]){NULL});
        link_input("model-00001.gguf");
        snprintf(path, sizeof path, "%s/config.json", folder);
        CHECK_INT(json_dump_file(config, path, 0), 0);
        try_model(folder);
    }
    json_decref(config);
    json_decref(tokenizer);
    json_decref(said);
    ft_gguf_close(&g);
}

static void try_manifest(const struct bytes *b)
{
    char folder[300], command[2048];
    json_t *manifest;
    remember(b);
    snprintf(folder, sizeof folder, "%s.d", input_file);
    snprintf(command, sizeof command,
             "mkdir -p %s && printf abc > %s/x && ln -sf %s %s/manifest.json", folder, folder,
             input_file, folder);
    if (!ft_is_folder(folder))
        CHECK_INT(system(command), 0);
    if (ft_checkpoint_open(&manifest, folder) == FT_OK)
        json_decref(manifest);
}

static void try_log(const struct bytes *b)
{
    struct ft_run_record r;
    struct ft_comparison rows[FT_COMPARISONS];
    const struct ft_compare_options o = {.tolerance = 1, .speed = 1, .memory = 1};
    const char *machine;
    remember(b);
    if (ft_run_record_open(&r, input_file) == FT_OK)
        ft_compare(rows, &machine, &r, &r, &o);
    ft_run_record_close(&r);
}

/* --- the seeds --- */

struct seeds {
    struct bytes v[2048];
    int n;
};

static void add_seed(struct seeds *s, const char *p, size_t n)
{
    if (s->n < (int)(sizeof s->v / sizeof *s->v))
        set(&s->v[s->n++], p, n);
}

static void add_file(struct seeds *s, const char *path)
{
    char *text;
    size_t n;
    if (ft_file_read(path, 1 << 24, FT_EDATA, &text, &n) == FT_OK)
        add_seed(s, text, n);
    ft_free(text);
}

static void add_folder(struct seeds *s, const char *folder, const char *ending)
{
    struct dirent **list = NULL;
    int n = scandir(folder, &list, NULL, alphasort);
    CHECK(n > 0);
    for (int i = 0; i < n; i++) {
        char path[768];
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (strstr(path, ending))
            add_file(s, path);
        free(list[i]);
    }
    free(list);
}

static void add_tokenizers(struct seeds *s)
{
    add_folder(s, FT_ROOT "/tests/text/golden", ".tokenizer.json");
}

static void add_templates(struct seeds *s)
{
    json_t *root = read_json(FT_ROOT "/tests/text/templates.json");
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *t = json_object_get(json_array_get(cases, i), "template");
        add_seed(s, json_string_value(t), json_string_length(t));
    }
    context = json_incref(json_object_get(root, "context"));
    json_decref(root);
    static const char *const lists[] = {"cases", "random"};
    root = read_json(FT_ROOT "/tests/text/jinja.json");
    for (int l = 0; l < 2; l++) {
        cases = json_object_get(root, lists[l]);
        for (size_t i = 0; i < json_array_size(cases); i++) {
            const json_t *t = json_array_get(json_array_get(cases, i), 0);
            add_seed(s, json_string_value(t), json_string_length(t));
        }
    }
    json_object_update_missing(context, json_object_get(root, "context"));
    json_decref(root);
}

static void add_records(struct seeds *s)
{
    static const char *const texts[] = {
        "{\"text\": \"a\"}\n{\"messages\": [{\"role\": \"user\", \"content\": "
        "\"x\\n\\u00e9\"}]}\n\n"
        "{\"n\": [1, 2.5, null, true]}\n",
        "[\n {\"a\": \"x, ]\\\"\"},\n {\"b\": [1, {\"c\": \"}\"}]}\n]\n",
        "{\"a\": 1}\n{\n \"b\": 2\n}\n",
        "name,text,\"quo\"\"ted\"\r\n1,\"two, three\nlines\",\r\n,\"\",x\r\n\r\nshort\r\n",
        "line one\nline two\r\n\n\xc3\xa9\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_seed(s, texts[i], strlen(texts[i]));
}

static void add_quantised(struct seeds *s)
{
    char path[512];
    for (int i = 0; i < QUANTISED; i++) {
        snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/model.safetensors", quantised[i]);
        add_file(s, path);
    }
}

static void add_cases(struct seeds *s, const char *const *names, int n, const char *file)
{
    char path[512];
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/%s", names[i], file);
        add_file(s, path);
        CHECK_INT(s->n, i + 1);
    }
}

static void add_weights(struct seeds *s)
{
    add_cases(s, families, 1, "model.safetensors");
}

static void add_model_configs(struct seeds *s)
{
    add_cases(s, families, FAMILIES, "config.json");
}

static void add_datasets(struct seeds *s)
{
    add_cases(s, families, 1, "data.safetensors");
}

static void add_adapter_configs(struct seeds *s)
{
    add_cases(s, adapters, ADAPTERS, "adapter_config.json");
}

static void add_adapters(struct seeds *s)
{
    add_cases(s, adapters, ADAPTERS, "adapter_model.safetensors");
}

static void add_parquet(struct seeds *s)
{
    add_folder(s, FT_ROOT "/tests/io/parquet", ".parquet");
}

static void add_configs(struct seeds *s)
{
    add_folder(s, FT_ROOT "/configs", ".yaml");
    add_folder(s, FT_ROOT "/tests/config/axolotl", ".yaml");
}

static void add_gguf(struct seeds *s)
{
    static const char *const cases[] = {"gguf-llama", "gguf-f32", "gguf-gemma3", "gguf-phi3"};
    char path[512];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, FT_ROOT "/tests/golden/%s/model.gguf", cases[i]);
        add_file(s, path);
    }
}

static void add_manifests(struct seeds *s)
{
    static const char text[] =
        "{\"format\": 1, \"ft_version\": \"0.1.0\", \"step\": 7, \"progress\": {\"step\": 7, "
        "\"first_eval\": \"nan\", \"scalars\": [0.5, 1e-4, 3]}, \"identity\": {\"config\": "
        "{\"seed\": 42}, \"sha256\": {}}, \"files\": {\"x\": {\"bytes\": 3, \"crc32\": "
        "891568578}}}";
    add_seed(s, text, sizeof text - 1);
}

static void add_logs(struct seeds *s)
{
    static const char text[] =
        "{\"step\": 0, \"eval_loss\": 4.5}\n{\"step\": 1, \"epoch\": 0.5, \"loss\": 4.25, "
        "\"grad_norm\": 1.5, \"trained_tokens\": 12}\n{\"step\": 2, \"loss\": null, "
        "\"grad_norm\": null, \"trained_tokens\": 9, \"skipped\": true}\n";
    add_seed(s, text, sizeof text - 1);
}

/* --- the cases --- */

static double seconds(const char *target)
{
    const char *text = getenv("FT_FUZZ_SECONDS"), *only = getenv("FT_FUZZ");
    if (only && strcmp(only, target) != 0)
        return 0;
    return text ? atof(text) : 1;
}

/* Puts a part of another seed somewhere into b. */
static void mix(struct bytes *b, const struct bytes *other)
{
    const size_t from = pick((uint32_t)other->n + 1), at = pick((uint32_t)b->n + 1);
    size_t n = pick((uint32_t)(other->n - from) + 1);
    n = n > 2000 ? 2000 : n;
    memmove(b->p + at + n, b->p + at, b->n - at);
    memcpy(b->p + at, other->p + from, n);
    b->n += n;
}

/* What a file is, as far as damage goes. */
enum form { BYTES, JSON, SAFETENSORS };

/* Damage to the tree of a JSON file, or to that in front of a safetensors file. */
static bool damage_tree(struct bytes *b, const struct bytes *from, enum form form)
{
    uint64_t length = 0;
    const size_t skip = form == SAFETENSORS ? sizeof length : 0;
    size_t n = from->n;
    if (skip) {
        FT_ASSERT(from->n > skip);
        memcpy(&length, from->p, sizeof length);
        n = (size_t)length;
    }
    json_t *tree = json_loadb(from->p + skip, n, 0, NULL);
    if (!tree)
        return false;
    for (uint32_t k = 1 + pick(3); k > 0; k--)
        damage_json(tree, 6);
    char *text = json_dumps(tree, JSON_COMPACT);
    json_decref(tree);
    length = text ? strlen(text) : 0;
    set(b, (const char *)&length, skip);
    append(b, text, (size_t)length);
    append(b, from->p + skip + n, from->n - skip - n);
    free(text);
    return true;
}

static void fuzz(const char *target, void (*add)(struct seeds *), void (*run)(const struct bytes *),
                 enum form form)
{
    static struct seeds s;
    struct bytes b = {NULL, 0, 0};
    const double end = ft_now() + seconds(target);
    const char *seed = getenv("FT_FUZZ_SEED");
    long long runs = 0;
    const char *file = getenv("FT_FUZZ_FILE");
    if (file)
        snprintf(input_file, sizeof input_file, "%s", file);
    else
        snprintf(input_file, sizeof input_file, "/tmp/ft-fuzz-%ld", (long)getpid());
    state = seed ? strtoull(seed, NULL, 10) : 1;
    memset(&s, 0, sizeof s);
    add(&s);
    CHECK(s.n > 0);
    for (; s.n && ft_now() < end; runs++) {
        seed_at = (int)pick((uint32_t)s.n);
        const struct bytes *from = &s.v[seed_at];
        if (form == BYTES || pick(3) == 0 || !damage_tree(&b, from, form)) {
            set(&b, from->p, from->n);
            if (pick(2))
                mix(&b, &s.v[pick((uint32_t)s.n)]);
            if (pick(4))
                damage(&b);
        }
        run(&b);
        ft_status_clear();
    }
    printf("  %s: %lld runs\n", target, runs);
    unlink(input_file);
    char folder[512];
    snprintf(folder, sizeof folder, "rm -rf %s.d", input_file);
    CHECK_INT(system(folder), 0);
    for (int i = 0; i < s.n; i++)
        ft_free(s.v[i].p);
    ft_free(b.p);
    json_decref(context);
    context = NULL;
}

CASE(damaged_tokenizer_files)
{
    fuzz("tokenizer", add_tokenizers, try_tokenizer, JSON);
}

CASE(damaged_templates)
{
    fuzz("template", add_templates, try_template, BYTES);
}

CASE(damaged_records)
{
    fuzz("records", add_records, try_records, BYTES);
}

CASE(damaged_parquet_files)
{
    fuzz("parquet", add_parquet, try_parquet, BYTES);
}

CASE(damaged_configs)
{
    fuzz("config", add_configs, try_config, BYTES);
}

CASE(damaged_weights)
{
    fuzz("weights", add_weights, try_weights, SAFETENSORS);
}

CASE(damaged_model_configs)
{
    fuzz("model-config", add_model_configs, try_model_config, JSON);
}

CASE(damaged_datasets)
{
    fuzz("dataset", add_datasets, try_dataset, SAFETENSORS);
}

CASE(damaged_adapter_configs)
{
    fuzz("adapter-config", add_adapter_configs, try_adapter_config, JSON);
}

CASE(damaged_adapters)
{
    fuzz("adapter", add_adapters, try_adapter, SAFETENSORS);
}

CASE(damaged_quantised_weights)
{
    fuzz("quantised", add_quantised, try_quantised, SAFETENSORS);
}

CASE(damaged_gguf_files)
{
    fuzz("gguf", add_gguf, try_gguf, BYTES);
}

CASE(damaged_manifests)
{
    fuzz("manifest", add_manifests, try_manifest, JSON);
}

CASE(damaged_logs)
{
    fuzz("log", add_logs, try_log, BYTES);
}
