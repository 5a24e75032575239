/* ft init --from: another tool's config becomes ft's. Recognises whose it is, walks the tool's
 * table, and writes what came of it. */
#define _GNU_SOURCE
#include "cli/from.h"

#include "cli/cli.h"
#include "config/options.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "io/hub.h"
#include "io/records.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- reading the source --- */

const struct ft_yaml *ft_from_get(const struct ft_from *f, const char *key)
{
    const struct ft_yaml *n = ft_yaml_get(f->root, key);
    return n && !ft_yaml_is_null(n) ? n : NULL;
}

bool ft_from_is(const struct ft_from *f, const char *key)
{
    const struct ft_yaml *n = ft_from_get(f, key);
    bool on;
    return n && ft_value_bool(n, &on) && on;
}

/* Quoted or not: the tools take 2e-5 either way. */
bool ft_from_real_of(const struct ft_yaml *n, double *out)
{
    char *end;
    if (!n || n->kind != FT_YAML_SCALAR || !n->text[0] || strpbrk(n->text, "xXpP \t"))
        return false;
    *out = strtod(n->text, &end);
    return *end == 0 && isfinite(*out);
}

double ft_from_number(const struct ft_from *f, const char *key, double absent)
{
    double v;
    return ft_from_real_of(ft_from_get(f, key), &v) ? v : absent;
}

const char *ft_from_word(const struct ft_from *f, const char *key, const char *absent)
{
    const struct ft_yaml *n = ft_from_get(f, key);
    return n && n->kind == FT_YAML_SCALAR ? n->text : absent;
}

/* --- texts of the result --- */

/* Whether YAML reads a text as it stands as that text, in a list too. */
static bool is_plain(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(text, words[i]) == 0)
            return false;
    const size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        const char c = text[i];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '/' && c != '_' && c != '.' &&
            !(i && strchr("-+@=", c)))
            return false;
    }
    return n > 0;
}

/* What a double-quoted text writes for a character; NULL: itself. YAML knows more line ends than
 * JSON, and no half characters. */
static const char *escape_of(int32_t c, char *room)
{
    static const struct {
        int32_t c;
        const char *text;
    } known[] = {{'"', "\\\""}, {'\\', "\\\\"},  {'\n', "\\n"},   {'\t', "\\t"},
                 {0x85, "\\N"}, {0x2028, "\\L"}, {0x2029, "\\P"}, {0xfeff, "\\uFEFF"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].c == c)
            return known[i].text;
    if (c >= 0x20 && (c < 0x7f || c > 0x9f))
        return NULL;
    snprintf(room, 8, "\\x%02X", (unsigned)c & 0xff);
    return room;
}

const char *ft_from_quoted(struct ft_from *f, const char *text)
{
    if (!text || is_plain(text))
        return text ? ft_arena_format(&f->arena, "%s", text) : NULL; /* texts of JSON go away */
    char *out = ft_arena_alloc(&f->arena, 6 * strlen(text) + 3, 1), *p = out;
    if (!out)
        return NULL;
    *p++ = '"';
    while (*text) {
        char room[8];
        int32_t c;
        const int n = ft_code_point(text, &c);
        const char *e = escape_of(c, room);
        const size_t length = e ? strlen(e) : (size_t)n;
        memcpy(p, e ? e : text, length);
        p += length;
        text += n;
    }
    *p = '"';
    return out;
}

const char *ft_from_list(struct ft_from *f, const struct ft_yaml *n)
{
    char *out = ft_arena_format(&f->arena, "[");
    for (const struct ft_yaml *e = n->first; e && out; e = e->next) {
        const char *one = e->kind == FT_YAML_SCALAR ? ft_from_quoted(f, e->text) : NULL;
        if (one)
            out = ft_arena_format(&f->arena, "%s%s%s", out, out[1] ? ", " : "", one);
    }
    return out ? ft_arena_format(&f->arena, "%s]", out) : NULL;
}

/* A comment ends with its line: characters that YAML takes for a line's end become spaces. */
static char *one_line(struct ft_from *f, const char *text, size_t most)
{
    size_t n = strlen(text);
    const bool cut = n > most;
    n = ft_utf8_valid(text, cut ? most : n);
    char *out = ft_arena_format(&f->arena, "%.*s%s", (int)n, text, cut ? "..." : "");
    for (char *p = out; p && *p;) {
        int32_t c;
        const int length = ft_code_point(p, &c);
        if (c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x2028 || c == 0x2029 || c == 0xfeff)
            memset(p, ' ', (size_t)length);
        p += length;
    }
    return out;
}

const char *ft_from_shown(struct ft_from *f, const struct ft_yaml *n)
{
    enum { MOST = 60 };
    if (n->kind == FT_YAML_SCALAR)
        return one_line(f, n->text, MOST);
    const unsigned since = ft_alloc_failures();
    json_t *v = ft_value_json(n);
    char *text = ft_json_dumps(v, JSON_ENCODE_ANY, since);
    const char *shown = text ? one_line(f, text, MOST) : NULL;
    ft_json_free(text);
    json_decref(v);
    return shown;
}

/* --- putting into the result --- */

void ft_from_put_in(struct ft_from *f, struct ft_from_lines *to, const char *key, const char *value,
                    const char *note)
{
    struct ft_from_line *l = ft_arena_alloc(&f->arena, 1, sizeof *l);
    if (!l || (key && !value))
        return;
    *l = (struct ft_from_line){key, value, note, NULL};
    if (to->last)
        to->last->next = l;
    else
        to->first = l;
    to->last = l;
}

void ft_from_put(struct ft_from *f, const char *key, const char *value, const char *note)
{
    ft_from_drop(f, key);
    ft_from_put_in(f, &f->config, key, value, note);
}

void ft_from_put_text(struct ft_from *f, struct ft_from_lines *to, const char *key,
                      const char *text)
{
    ft_from_put_in(f, to, key, ft_from_quoted(f, text), NULL);
}

void ft_from_put_unread(struct ft_from *f, struct ft_from_lines *to, const char *key,
                        const char *field, const json_t *record)
{
    if (!record || ft_json_get(record, field))
        ft_from_put_in(f, to, key, "not_read",
                       ft_arena_format(&f->arena, "%s reads no such field", f->tool->name));
}

void ft_from_drop(struct ft_from *f, const char *key)
{
    struct ft_from_line *before = NULL;
    for (struct ft_from_line *l = f->config.first; l; before = l, l = l->next) {
        if (strcmp(l->key, key) != 0)
            continue;
        *(before ? &before->next : &f->config.first) = l->next;
        if (f->config.last == l)
            f->config.last = before;
        return;
    }
}

void ft_from_note(struct ft_from *f, const struct ft_yaml *n, const char *why)
{
    const char *key = one_line(f, n->key, 60), *value = ft_from_shown(f, n);
    if (key && value)
        ft_from_put_in(
            f, &f->notes, NULL, NULL,
            ft_arena_format(&f->arena, "%s: %s%s%s", key, value, why ? ": " : "", why ? why : ""));
}

struct ft_from_lines *ft_from_entry(struct ft_from *f, struct ft_from_entries *to)
{
    struct ft_from_entry *e = ft_arena_alloc(&f->arena, 1, sizeof *e);
    if (!e)
        return &f->nowhere;
    if (to->last)
        to->last->next = e;
    else
        to->first = e;
    to->last = e;
    return &e->lines;
}

/* --- conversions of rows --- */

static const char *note_of(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    if (r->note || n->at.file)
        return r->note;
    return ft_arena_format(&f->arena, "%s's default", f->tool->name);
}

int ft_from_text(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    if (n->kind != FT_YAML_SCALAR)
        return ft_value_refuse(r->key, n, "a text");
    ft_from_put(f, r->to, ft_from_quoted(f, n->text), note_of(f, r, n));
    return FT_OK;
}

int ft_from_whole(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    double v;
    if (!ft_from_real_of(n, &v) || v != floor(v) || fabs(v) > 9007199254740992.0)
        return ft_value_refuse(r->key, n, "a whole number");
    ft_from_put(f, r->to, ft_arena_format(&f->arena, "%.0f", v), note_of(f, r, n));
    return FT_OK;
}

int ft_from_real(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    double v;
    if (!ft_from_real_of(n, &v))
        return ft_value_refuse(r->key, n, "a number");
    ft_from_put(f, r->to, n->text, note_of(f, r, n));
    return FT_OK;
}

int ft_from_bool(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    bool on;
    if (!ft_value_bool(n, &on))
        return ft_value_refuse(r->key, n, "true or false");
    if (on)
        ft_from_put(f, r->to, "true", r->note);
    return FT_OK;
}

static bool is_off(const struct ft_yaml *n)
{
    bool on;
    double v;
    if (n->kind != FT_YAML_SCALAR)
        return n->count == 0 || (n->kind == FT_YAML_LIST && n->count == 1 && is_off(n->first));
    return !n->text[0] || strcasecmp(n->text, "none") == 0 || (ft_value_bool(n, &on) && !on) ||
           (ft_from_real_of(n, &v) && v == 0);
}

int ft_from_lacks(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const bool usual = r->absent && n->kind == FT_YAML_SCALAR && strcmp(n->text, r->absent) == 0;
    if (!usual && !is_off(n))
        ft_from_note(f, n, r->note);
    return FT_OK;
}

/* Whether ft has this tracker, or there is none. */
static bool put_tracker(struct ft_from *f, const struct ft_yaml *n)
{
    static const char *const all[][2] = {
        {"wandb", "use_wandb"}, {"tensorboard", "use_tensorboard"}, {"mlflow", "use_mlflow"}};
    for (size_t i = 0; n->kind == FT_YAML_SCALAR && i < sizeof all / sizeof *all; i++)
        if (strcmp(n->text, all[i][0]) == 0) {
            ft_from_put(f, all[i][1], "true", NULL);
            return true;
        }
    return is_off(n);
}

int ft_from_trackers(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const bool list = n->kind == FT_YAML_LIST;
    bool known = true;
    for (const struct ft_yaml *e = list ? n->first : n; e; e = list ? e->next : NULL)
        known &= put_tracker(f, e);
    if (!known)
        ft_from_note(f, n, r->note);
    return FT_OK;
}

const struct ft_from_choice *ft_from_find_choice(const struct ft_from_choice *all, const char *name)
{
    for (; all->name; all++)
        if (strcmp(all->name, name) == 0)
            return all;
    return NULL;
}

/* --- files --- */

bool ft_from_forgive(struct ft_from *f, int rc)
{
    f->starved = f->starved || rc == FT_ERESOURCE;
    if (rc)
        ft_status_clear_errors();
    return rc == FT_OK;
}

const char *ft_from_path(struct ft_from *f, const char *path)
{
    if (path[0] == '/' || path[0] == '~' || ft_file_exists(path) || ft_is_folder(path))
        return path;
    char *beside = ft_arena_format(&f->arena, "%s/%s", f->folder, path);
    return beside && (ft_file_exists(beside) || ft_is_folder(beside)) ? beside : path;
}

const char *ft_from_model(struct ft_from *f, const char *name)
{
    bool cached;
    if (!f->model && name)
        ft_from_forgive(f, ft_hub_find(&f->model, &cached, "model", name, NULL, f->folder));
    return f->model; /* most of the result can be made without it */
}

/* The model's config.json; NULL: not there. Caller json_decref()s. */
static json_t *model_config(struct ft_from *f, const char *name)
{
    const char *folder = ft_from_model(f, name);
    json_t *root = NULL;
    char *path = folder ? ft_path_join(folder, "config.json") : NULL;
    if (path)
        ft_from_forgive(f, ft_json_config(path, FT_EDATA, &root));
    ft_free(path);
    return root;
}

int64_t ft_from_model_number(struct ft_from *f, const char *name, const char *key)
{
    json_t *root = model_config(f, name);
    const json_t *n = ft_json_get(root, key);
    if (!n)
        n = ft_json_get(json_object_get(root, "text_config"), key);
    const double v = json_is_number(n) ? json_number_value(n) : -1;
    json_decref(root);
    return v >= 0 && v < 1e9 ? (int64_t)v : -1;
}

char *ft_from_model_text(struct ft_from *f, const char *name, const char *key)
{
    json_t *root = model_config(f, name);
    const char *text = json_string_value(ft_json_get(root, key));
    char *kept = text ? ft_arena_format(&f->arena, "%s", text) : NULL;
    json_decref(root);
    return kept;
}

/* A data file of the folder; one of the split's name is better than another. */
static char *find_data(struct ft_from *f, const char *folder, const char *split)
{
    errno = 0;
    DIR *dir = opendir(folder);
    char *best = NULL;
    bool named = false;
    f->starved = f->starved || (!dir && errno == ENOMEM);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        const bool has = strncmp(e->d_name, split, strcspn(split, "[")) == 0;
        if (e->d_name[0] == '.' || !ft_records_kind(e->d_name) ||
            ft_starts_with(e->d_name, "dataset_info") || (best && (named || !has)))
            continue;
        named = has;
        best = ft_arena_format(&f->arena, "%s/%s", folder, e->d_name);
    }
    if (dir)
        closedir(dir);
    return best;
}

static int read_first(json_t **out, const char *file)
{
    struct ft_records *r;
    struct ft_raw raw = {0};
    bool more = false;
    int rc = ft_records_open(&r, file, NULL);
    if (!rc)
        rc = ft_records_next(r, &raw, &more);
    if (!rc && more)
        rc = ft_record_parse(r, &raw, out);
    ft_records_close(r);
    ft_raw_free(&raw);
    return rc;
}

json_t *ft_from_record(struct ft_from *f, const char *path, const char *split)
{
    char *found = NULL;
    bool cached;
    json_t *record = NULL;
    if (!ft_from_forgive(f, ft_hub_find(&found, &cached, "dataset", path, NULL, f->folder)))
        return NULL;
    const char *file = found;
    if (ft_is_folder(found)) {
        char *data = ft_path_join(found, "data");
        file = find_data(f, found, split ? split : "train");
        if (!file && data && ft_is_folder(data))
            file = find_data(f, data, split ? split : "train");
        ft_free(data);
    }
    if (file) /* what is wrong with it 'ft data' says */
        ft_from_forgive(f, read_first(&record, file));
    ft_free(found);
    return record;
}

/* --- whose file it is --- */

static const struct ft_from_tool *const tools[] = {&ft_from_mlx, &ft_from_llamafactory,
                                                   &ft_from_trl};

static bool has_any(const struct ft_yaml *root, const char *const *keys)
{
    for (; *keys; keys++)
        if (ft_yaml_get(root, *keys))
            return true;
    return false;
}

/* Whose files are none of these, by a key. */
static const struct {
    const char *key, *what;
} others[] = {
    {"base_model", "this is a config of ft or Axolotl already, there is nothing to convert"},
    {"peft_config", "this is a config of LLaMA-Factory v1, which is another program"}};

static int refuse_others(const struct ft_from *f)
{
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const struct ft_yaml *n = ft_yaml_get(f->root, others[i].key);
        if (n)
            return ft_fail_at(n->key_at, FT_ECONFIG, "'%s': %s", others[i].key, others[i].what);
    }
    return FT_OK;
}

static int recognise(struct ft_from *f)
{
    FT_TRY(refuse_others(f));
    for (int likely = 0; likely < 2; likely++)
        for (size_t i = 0; i < sizeof tools / sizeof *tools && !f->tool; i++)
            if (has_any(f->root, likely ? tools[i]->likely : tools[i]->sure))
                f->tool = tools[i];
    if (!f->tool) {
        ft_fail_at((struct ft_where){.file = f->file}, FT_ECONFIG,
                   "is no config that ft init knows");
        ft_hint("it reads LLaMA-Factory's, TRL's and mlx-lm's; see docs/from-others.md");
        return FT_ECONFIG;
    }
    if (f->tool->needs && !ft_from_get(f, f->tool->needs))
        return ft_fail_at((struct ft_where){.file = f->file}, FT_ECONFIG,
                          "has no '%s', as %s's configs have", f->tool->needs, f->tool->name);
    return FT_OK;
}

/* --- walking the tables --- */

static const struct ft_from_row *find_row(const struct ft_from_row *rows, const char *key)
{
    for (; rows && rows->key; rows++)
        if (strcmp(rows->key, key) == 0)
            return rows;
    return NULL;
}

static int walk(struct ft_from *f, const struct ft_from_row *rows, const struct ft_from_row *before)
{
    for (const struct ft_from_row *r = rows; r && r->key; r++) {
        const struct ft_yaml *n = ft_from_get(f, r->key);
        const struct ft_yaml absent = {.kind = FT_YAML_SCALAR, .key = r->key, .text = r->absent};
        if (r->convert && (n || r->absent) && !find_row(before, r->key))
            FT_TRY(r->convert(f, r, n ? n : &absent));
    }
    return FT_OK;
}

/* Whether a word stands among others, with spaces between them. */
static bool is_among(const char *words, const char *key)
{
    const size_t n = strlen(key);
    for (const char *p = words; p && (p = strstr(p, key)); p += n)
        if (n && (p == words || p[-1] == ' ') && (!p[n] || p[n] == ' '))
            return true;
    return false;
}

static void note_unknown(struct ft_from *f)
{
    const struct ft_from_tool *t = f->tool;
    for (const struct ft_yaml *n = f->root->first; n; n = n->next)
        if (!find_row(t->rows, n->key) && !find_row(t->shared, n->key) &&
            !is_among(t->same[0], n->key) && !is_among(t->same[1], n->key))
            ft_from_note(f, n, ft_arena_format(&f->arena, "not a key of %s's", t->name));
}

static int convert(struct ft_from *f)
{
    FT_TRY(recognise(f));
    FT_TRY(walk(f, f->tool->rows, NULL));
    FT_TRY(walk(f, f->tool->shared, f->tool->rows));
    FT_TRY(f->tool->finish(f));
    note_unknown(f);
    return f->datasets.first ? FT_OK
                             : ft_fail_at((struct ft_where){.file = f->file}, FT_ECONFIG,
                                          "names no data to train on");
}

/* --- writing --- */

/* ft's keys in the order in which a reader looks for them; "" is an empty line. */
static const char *const order[] = {"base_model",
                                    "load_in_4bit",
                                    "load_in_8bit",
                                    "bnb_config_kwargs",
                                    "special_tokens",
                                    "",
                                    "adapter",
                                    "lora_model_dir",
                                    "lora_r",
                                    "lora_alpha",
                                    "lora_dropout",
                                    "lora_target_linear",
                                    "lora_target_modules",
                                    "peft_layers_to_transform",
                                    "peft_use_rslora",
                                    "peft_use_dora",
                                    "peft_init_lora_weights",
                                    "loraplus_lr_ratio",
                                    "loraplus_lr_embedding",
                                    "lora_modules_to_save",
                                    "",
                                    "chat_template",
                                    "chat_template_jinja",
                                    "default_system_message",
                                    "datasets",
                                    "test_datasets",
                                    "val_set_size",
                                    "train_on_inputs",
                                    "sequence_len",
                                    "excess_length_strategy",
                                    "sample_packing",
                                    "curriculum_sampling",
                                    "",
                                    "micro_batch_size",
                                    "gradient_accumulation_steps",
                                    "num_epochs",
                                    "max_steps",
                                    "optimizer",
                                    "momentum",
                                    "adam_beta1",
                                    "adam_beta2",
                                    "adam_epsilon",
                                    "weight_decay",
                                    "learning_rate",
                                    "lr_scheduler",
                                    "cosine_min_lr_ratio",
                                    "warmup_steps",
                                    "warmup_ratio",
                                    "max_grad_norm",
                                    "neftune_noise_alpha",
                                    "seed",
                                    "bf16",
                                    "",
                                    "eval_steps",
                                    "logging_steps",
                                    "save_strategy",
                                    "save_steps",
                                    "save_total_limit",
                                    "load_best_model_at_end",
                                    "early_stopping_patience",
                                    "output_dir",
                                    "overwrite_output_dir",
                                    "use_tensorboard",
                                    "use_mlflow",
                                    "use_wandb",
                                    "wandb_project",
                                    "wandb_name"};

static void write_line(FILE *o, const char *indent, const struct ft_from_line *l)
{
    enum { NOTES_AT = 40 };
    const bool block = l->value && strchr(l->value, '\n');
    if (l->note && (!l->key || block))
        fprintf(o, "%s# %s\n", indent, l->note);
    if (!l->key)
        return;
    const int n = fprintf(o, "%s%s: %s", indent, l->key, l->value);
    if (l->note && !block)
        fprintf(o, "%*s# %s", n < NOTES_AT - 1 ? NOTES_AT - n : 2, "", l->note);
    fputc('\n', o);
}

static void write_entries(FILE *o, const char *key, const struct ft_from_entries *all)
{
    if (all->first)
        fprintf(o, "%s:\n", key);
    for (const struct ft_from_entry *e = all->first; e; e = e->next)
        for (const struct ft_from_line *l = e->lines.first; l; l = l->next)
            write_line(o, l == e->lines.first ? "  - " : "    ", l);
}

static void write_yaml(FILE *o, struct ft_from *f)
{
    const char *file = one_line(f, f->file, 4096);
    int written = 0, all = 0;
    fprintf(o,
            "# Made by ft init from %s, a config of %s's.\n# 'ft plan' says what it needs, 'ft "
            "config --explain KEY' what a key means.\n",
            file ? file : "", f->tool->name);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        if (!order[i][0])
            fputc('\n', o);
        if (strcmp(order[i], "datasets") == 0)
            write_entries(o, order[i], &f->datasets);
        if (strcmp(order[i], "test_datasets") == 0)
            write_entries(o, order[i], &f->test_datasets);
        for (const struct ft_from_line *l = f->config.first; l; l = l->next)
            if (strcmp(l->key, order[i]) == 0) {
                write_line(o, "", l);
                written++;
            }
    }
    for (const struct ft_from_line *l = f->config.first; l; l = l->next)
        all++;
    FT_ASSERT(written == all); /* a key of a table that order[] lacks */
    if (f->notes.first)
        fprintf(o, "\n# What ft does otherwise:\n");
    for (const struct ft_from_line *l = f->notes.first; l; l = l->next)
        write_line(o, "", l);
}

static int save(struct ft_from *f, const char *path, unsigned since)
{
    struct ft_printed p;
    FT_TRY(ft_alloc_check(since));
    if (f->starved)
        return ft_short_of_memory();
    FT_TRY(ft_printed_open(&p));
    write_yaml(p.o, f);
    int rc = ft_printed_close(&p);
    if (!rc)
        rc = ft_file_write(path, p.text, p.n);
    ft_printed_free(&p);
    return rc;
}

/* --- the command --- */

/* runs/sft.yaml -> sft-ft.yaml, here. */
static const char *default_name(struct ft_from *f)
{
    const char *slash = strrchr(f->file, '/'), *name = slash ? slash + 1 : f->file;
    const char *dot = strrchr(name, '.');
    const int n = dot && dot > name ? (int)(dot - name) : (int)strlen(name);
    return ft_arena_format(&f->arena, "%.*s-ft.yaml", n, name);
}

static int check_out(const struct ft_from *f, const char *out, bool force)
{
    const bool same = ft_same_file(f->file, out);
    if (!same && (force || !ft_file_exists(out)))
        return FT_OK;
    ft_fail_at((struct ft_where){.file = out}, FT_ECONFIG,
               same ? "is what --from reads" : "exists already");
    ft_hint("write elsewhere with -o FILE.yaml%s", same ? "" : ", or replace it with --force");
    return FT_ECONFIG;
}

static int read_source(struct ft_from *f)
{
    struct ft_yaml *root;
    const char *slash = strrchr(f->file, '/');
    if (ft_utf8_valid(f->file, strlen(f->file)) != strlen(f->file))
        return ft_fail(FT_ECONFIG, "the name of --from's file is not UTF-8");
    f->folder =
        ft_arena_format(&f->arena, "%.*s", slash ? (int)(slash - f->file) + !(slash - f->file) : 1,
                        slash ? f->file : ".");
    FT_TRY(ft_yaml_file(&root, &f->arena, f->file, f->file));
    f->root = root;
    return f->folder ? FT_OK : FT_ERESOURCE;
}

/* The result must be a config; what the source had wrong is said at its place there. */
static int read_back(const struct ft_from *f, const char *out)
{
    struct ft_config c;
    int notes = 0, rc = ft_config_read(&c, out, NULL, 0);
    for (const struct ft_from_line *l = f->notes.first; l; l = l->next)
        notes++;
    printf("%s: from %s, a config of %s's", out, f->file, f->tool->name);
    if (notes)
        printf("; comments at its end say what ft does otherwise (%d)", notes);
    printf("\n\nNext:  ft data %s     what is trained on, and what is wrong with it\n"
           "       ft plan %s     memory and time\n"
           "       ft train %s\n",
           out, out, out);
    ft_config_fini(&c);
    return rc;
}

int ft_init_from(const char *from, const char *out, bool force)
{
    struct ft_from f = {.file = from};
    const unsigned since = ft_alloc_failures();
    if (!out)
        out = default_name(&f);
    int rc = out ? check_out(&f, out, force) : FT_ERESOURCE;
    if (!rc)
        rc = read_source(&f);
    if (!rc)
        rc = convert(&f);
    if (rc && (f.starved || ft_alloc_failures() != since))
        rc = FT_ERESOURCE; /* what is missing for want of memory may look like a mistake */
    if (!rc)
        rc = save(&f, out, since);
    if (!rc)
        rc = read_back(&f, out);
    ft_free(f.model);
    ft_arena_fini(&f.arena);
    return rc;
}
