/* Owns the way from a config's dataset entries to tokenized files. */
#define _GNU_SOURCE
#include "train/texts.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/sha256.h"
#include "core/text.h"
#include "io/hub.h"
#include "io/records.h"
#include "text/builtin.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

/* --- what the model's folder says --- */

/* The config's own special tokens in the place of the model's. */
static int set_special(struct ft_texts *t)
{
    const char **p = t->config->special_tokens;
    for (; p && *p; p += 2) {
        if (ft_tokenizer_id(t->tokenizer, p[1]) < 0) {
            ft_fail_at(ft_config_where(t->config, "special_tokens"), FT_ECONFIG,
                       "'special_tokens' has '%s' as %s, which is not in the model's vocabulary",
                       p[1], p[0]);
            ft_hint("a new token would need an embedding of its own, and adapters do not train "
                    "those; choose a token that the tokenizer has");
            return FT_ECONFIG;
        }
        if (json_object_set_new(t->special, p[0], json_string(p[1])))
            return ft_fail(FT_ERESOURCE, "out of memory");
    }
    return FT_OK;
}

static int32_t special_id(const struct ft_texts *t, const char *name)
{
    const char *token = json_string_value(json_object_get(t->special, name));
    return token ? ft_tokenizer_id(t->tokenizer, token) : -1;
}

int ft_texts_open(struct ft_texts *t, const struct ft_config *c, const char *folder,
                  struct ft_pool *pool)
{
    t->config = c;
    t->pool = pool;
    t->folder = ft_strdup(folder);
    char *path = ft_path_join(folder, "tokenizer.json");
    int rc = path && t->folder ? FT_OK : FT_ERESOURCE;
    if (!rc && !ft_file_exists(path)) {
        rc = ft_fail_at((struct ft_where){.file = folder}, FT_EDATA,
                        "has no tokenizer.json, which text datasets need");
        ft_hint("with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...) writes "
                "one; or give a tokenized dataset");
    }
    if (!rc)
        rc = ft_tokenizer_open(&t->tokenizer, path);
    if (!rc)
        rc = ft_special_tokens(&t->special, folder);
    if (!rc)
        rc = set_special(t);
    ft_free(path);
    if (!rc) {
        t->bos = special_id(t, "bos_token");
        t->eos = special_id(t, "eos_token");
    }
    return rc;
}

void ft_texts_close(struct ft_texts *t)
{
    ft_tokenizer_close(t->tokenizer);
    json_decref(t->special);
    ft_free(t->folder);
    *t = (struct ft_texts){0};
}

/* --- the files of an entry --- */

struct names {
    char **v;
    size_t n, room;
};

static int add_name(struct names *l, char *path)
{
    if (l->n + 2 > l->room) {
        const size_t room = 2 * l->room + 16;
        if (!path || ft_grow(&l->v, room, sizeof *l->v)) {
            ft_free(path);
            return FT_ERESOURCE;
        }
        l->room = room;
    }
    l->v[l->n++] = path;
    l->v[l->n] = NULL;
    return path ? FT_OK : FT_ERESOURCE;
}

static void free_names(char **v)
{
    for (char **p = v; p && *p; p++)
        ft_free(*p);
    ft_free(v);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "train" in "train-00000.jsonl" or "my.train.json", but not in "trained.json". */
static bool has_word(const char *name, const char *word, size_t n)
{
    for (const char *p = name; (p = strstr(p, word)); p++) {
        const bool begins = p == name || strchr("-_. /", p[-1]);
        if (begins && (strchr("-_. /", p[n]) || (p[n] >= '0' && p[n] <= '9')))
            return true;
    }
    return false;
}

static bool is_of_split(const char *name, const char *split, size_t n)
{
    char word[64];
    if (n >= sizeof word)
        return false;
    memcpy(word, split, n);
    word[n] = 0;
    return has_word(name, word, n);
}

static bool is_of_any_split(const char *name)
{
    static const char *const splits[] = {"train", "training", "test", "testing", "validation",
                                         "valid", "val",      "dev",  "eval"};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++)
        if (has_word(name, splits[i], strlen(splits[i])))
            return true;
    return false;
}

/* Names in a folder (or its data/) that `takes` likes, in order. */
static int list_folder(struct names *out, const char *folder,
                       bool (*takes)(const char *name, const void *ctx), const void *ctx)
{
    const size_t first = out->n;
    DIR *dir = opendir(folder);
    int rc = FT_OK;
    if (!dir)
        return FT_OK;
    for (struct dirent *e; !rc && (e = readdir(dir));)
        if (e->d_name[0] != '.' && takes(e->d_name, ctx))
            rc = add_name(out, ft_path_join(folder, e->d_name));
    closedir(dir);
    if (!rc && out->n > first)
        qsort(out->v + first, out->n - first, sizeof *out->v, by_name);
    return rc;
}

struct wanted {
    const char *split; /* NULL: files of no split */
    size_t n;
    const char *pattern; /* or files of this form */
};

static bool takes_wanted(const char *name, const void *ctx)
{
    const struct wanted *w = ctx;
    if (w->pattern)
        return fnmatch(w->pattern, name, 0) == 0;
    return ft_records_known(name) &&
           (w->split ? is_of_split(name, w->split, w->n) : !is_of_any_split(name));
}

static bool takes_parquet(const char *name, const void *ctx)
{
    (void)ctx;
    return ft_ends_with(name, ".parquet");
}

/* The split's files; if no file is of any split, all are its "train". */
static int find_in_folder(struct names *out, const struct ft_dataset_config *d, const char *folder,
                          const char *split, size_t n)
{
    const struct wanted of_split = {.split = split, .n = n}, rest = {.split = NULL};
    char *data = ft_path_join(folder, "data");
    int rc = data ? FT_OK : FT_ERESOURCE;
    for (int k = 0; k < 2 && !rc && !out->n; k++)
        rc = list_folder(out, k ? data : folder, takes_wanted, &of_split);
    for (int k = 0; k < 2 && !rc && !out->n && n == 5 && memcmp(split, "train", 5) == 0; k++)
        rc = list_folder(out, k ? data : folder, takes_wanted, &rest);
    if (!rc && !out->n) {
        struct names parquet = {0};
        for (int k = 0; k < 2 && !rc && !parquet.n; k++)
            rc = list_folder(&parquet, k ? data : folder, takes_parquet, NULL);
        struct ft_records *r;
        if (!rc && parquet.n)
            rc = ft_records_open(&r, parquet.v[0], "parquet");
        else if (!rc)
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' has no data file of split '%.*s'", folder,
                            (int)n, split);
        free_names(parquet.v);
    }
    ft_free(data);
    return rc;
}

/* data_files: names within the folder, in which * stands for any characters. */
static int find_named(struct names *out, const struct ft_dataset_config *d, const char *folder)
{
    for (const char **p = d->data_files; *p; p++) {
        const size_t before = out->n;
        const char *slash = strrchr(*p, '/');
        char *within =
            slash ? ft_format("%s/%.*s", folder, (int)(slash - *p), *p) : ft_strdup(folder);
        const struct wanted like = {.pattern = slash ? slash + 1 : *p};
        int rc = within ? list_folder(out, within, takes_wanted, &like) : FT_ERESOURCE;
        ft_free(within);
        if (!rc && out->n == before)
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' has no file '%s'", folder, *p);
        FT_TRY(rc);
    }
    return FT_OK;
}

static int find_files(struct ft_source *s, const struct ft_config *c)
{
    const struct ft_dataset_config *d = s->entry;
    const char *split = d->split ? d->split : "train";
    struct names out = {0};
    char *path = NULL, *within;
    size_t n;
    bool cached;
    FT_TRY(ft_slice_parse(&s->prepare.slice, &n, split));
    int rc = ft_hub_find(&path, &cached, "dataset", d->path, d->revision, c->folder);
    if (rc == FT_EDATA)
        ft_fail_at(d->at, FT_EDATA, "dataset '%s' does not exist", d->path);
    if (!rc && d->name && ft_is_folder(path)) {
        within = ft_path_join(path, d->name);
        if (!within)
            rc = FT_ERESOURCE;
        else if (!ft_is_folder(within))
            rc = ft_fail_at(d->at, FT_EDATA, "'%s' has no subset '%s': no folder of this name",
                            d->path, d->name);
        ft_free(path);
        path = within;
    }
    if (!rc && !ft_is_folder(path)) {
        if (n != 5 || memcmp(split, "train", 5) != 0)
            rc =
                ft_fail_at(d->at, FT_EDATA, "'%s' is a file: its only split is 'train', not '%.*s'",
                           d->path, (int)n, split);
        else
            rc = add_name(&out, ft_strdup(path));
    } else if (!rc && d->data_files) {
        rc = find_named(&out, d, path);
    } else if (!rc) {
        rc = find_in_folder(&out, d, path, split, n);
    }
    ft_free(path);
    s->files = out.v;
    return rc;
}

/* --- the template of an entry --- */

static int unknown_template(const struct ft_source *s, const char *name)
{
    const char *names[64], *one;
    char list[1024] = "";
    size_t n = 0;
    for (; (one = ft_builtin_name((int)n)) && n < 64; n++) {
        const size_t at = strlen(list);
        names[n] = one;
        snprintf(list + at, sizeof list - at, "%s%s", n ? ", " : "", one);
    }
    const char *near = ft_nearest(name, names, n);
    ft_fail_at(s->entry->at, FT_ECONFIG, "'chat_template' is '%s', which ft does not have", name);
    ft_hint("%s%s%stokenizer_default is the model's own, jinja is that of chat_template_jinja; "
            "built in are %s",
            near ? "did you mean '" : "", near ? near : "", near ? "'? " : "", list);
    return FT_ECONFIG;
}

static int own_template(struct ft_source *s, const struct ft_texts *t, const char *jinja)
{
    char *path = jinja ? ft_config_path(t->config, jinja) : NULL;
    size_t n;
    if (!jinja)
        return ft_fail_at(s->entry->at, FT_ECONFIG,
                          "'chat_template' is 'jinja', and there is no 'chat_template_jinja'");
    if (path && strlen(jinja) < PATH_MAX && ft_file_exists(path)) {
        int rc = ft_file_read(path, 1 << 24, FT_EDATA, &s->template_text, &n);
        s->template_name = path;
        return rc;
    }
    ft_free(path);
    s->template_text = ft_strdup(jinja);
    s->template_name = ft_strdup("chat_template_jinja");
    return s->template_text && s->template_name ? FT_OK : FT_ERESOURCE;
}

static int open_template(struct ft_source *s, const struct ft_texts *t)
{
    static const char fallback[] = "tokenizer_default_fallback_";
    const struct ft_config *c = t->config;
    const bool own = s->entry->chat_template || s->entry->chat_template_jinja;
    const char *jinja = own ? s->entry->chat_template_jinja : c->chat_template_jinja;
    const char *name = own ? s->entry->chat_template : c->chat_template;
    if ((!name && jinja) || (name && strcmp(name, "jinja") == 0))
        return own_template(s, t, jinja);
    const bool falls_back = name && ft_starts_with(name, fallback);
    if (!name || falls_back || strcmp(name, "tokenizer_default") == 0) {
        FT_TRY(ft_chat_template(&s->template_text, &s->template_name, t->folder));
        if (s->template_text)
            return FT_OK;
        if (!falls_back) {
            ft_fail_at((struct ft_where){.file = t->folder}, FT_EDATA,
                       "the model has no chat template, which '%s' needs", s->entry->path);
            ft_hint("name one: chat_template: chatml (or llama3, ...; see 'ft config --explain "
                    "chat_template')");
            return FT_EDATA;
        }
        name += sizeof fallback - 1;
    }
    const char *text = ft_builtin_template(name);
    if (!text)
        return unknown_template(s, name);
    s->template_text = ft_strdup(text);
    s->template_name = ft_format("chat_template %s", name);
    return s->template_text && s->template_name ? FT_OK : FT_ERESOURCE;
}

/* --- an entry --- */

bool ft_source_is_text(const struct ft_dataset_config *entry)
{
    return !ft_ends_with(entry->path, ".safetensors");
}

/* message_property_mappings, with the older keys for the same. */
static int find_properties(struct ft_source *s)
{
    const struct ft_dataset_config *d = s->entry;
    size_t n = 0, at = 0;
    while (d->message_property_mappings && d->message_property_mappings[n])
        n++;
    FT_TRY(ft_alloc(&s->properties, n + 5, sizeof *s->properties));
    for (; at < n; at++)
        s->properties[at] = d->message_property_mappings[at];
    if (d->message_field_role) {
        s->properties[at++] = "role";
        s->properties[at++] = d->message_field_role;
    }
    if (d->message_field_content) {
        s->properties[at++] = "content";
        s->properties[at++] = d->message_field_content;
    }
    return FT_OK;
}

static long long now(void)
{
    const char *fixed = getenv("SOURCE_DATE_EPOCH");
    return fixed && *fixed ? atoll(fixed) : (long long)time(NULL);
}

static int open_format(struct ft_source *s, const struct ft_texts *t, const struct ft_config *c)
{
    const struct ft_dataset_config *d = s->entry;
    FT_TRY(find_properties(s));
    s->options = (struct ft_format_options){
        .type = d->type,
        .field = d->field,
        .field_messages = d->field_messages,
        .field_system = d->field_system,
        .field_tools = d->field_tools,
        .field_instruction = d->field_instruction,
        .field_input = d->field_input,
        .field_output = d->field_output,
        .format = d->format,
        .no_input_format = d->no_input_format,
        .system_format = d->system_format,
        .system_prompt = d->system_prompt,
        .properties = s->properties,
        .roles = d->roles,
        .roles_to_train = d->roles_to_train ? d->roles_to_train : c->roles_to_train,
        .message_field_training = d->message_field_training,
        .end_tokens = d->eot_tokens ? d->eot_tokens : c->eot_tokens,
        .default_system = c->default_system_message,
        .train_on_eos = (enum ft_train_on)(d->train_on_eos != FT_TRAIN_UNSET ? d->train_on_eos
                                                                             : c->train_on_eos),
        .train_on_inputs = d->train_on_inputs >= 0 ? d->train_on_inputs : c->train_on_inputs,
        .drop_system_message = d->drop_system_message,
        .bos = t->bos,
        .eos = t->eos,
        .now = now(),
    };
    if (ft_format_needs_chat(d->type)) {
        FT_TRY(open_template(s, t));
        FT_TRY(ft_chat_new(&s->chat, s->template_text, s->template_name, t->special));
        s->says_date = strstr(s->template_text, "strftime_now") != NULL;
    }
    return ft_format_open(&s->format, &s->options, t->tokenizer, s->chat);
}

int ft_source_open(struct ft_source *s, const struct ft_texts *t, const struct ft_config *c,
                   const struct ft_dataset_config *entry)
{
    *s = (struct ft_source){.entry = entry};
    FT_TRY(find_files(s, c));
    if (!ft_source_is_text(entry))
        return FT_OK;
    FT_TRY(open_format(s, t, c));
    s->prepare.files = (const char *const *)s->files;
    s->prepare.file_type = entry->ds_type;
    s->prepare.format = s->format;
    s->prepare.tokenizer = t->tokenizer;
    s->prepare.bos = t->bos;
    s->prepare.sequence_len = c->sequence_len;
    s->prepare.skip_bad = c->skip_bad_records;
    s->prepare.pool = t->pool;
    s->prepare.progress = t->progress;
    s->prepare.progress_ctx = t->progress_ctx;
    return FT_OK;
}

void ft_source_close(struct ft_source *s)
{
    ft_format_close(s->format);
    ft_chat_close(s->chat);
    free_names(s->files);
    ft_free(s->properties);
    ft_free(s->template_text);
    ft_free(s->template_name);
    *s = (struct ft_source){0};
}

/* --- the key: everything that tokens depend on --- */

static void add_text(struct ft_sha256 *h, const char *name, const char *text)
{
    ft_sha256_add(h, name, strlen(name) + 1);
    ft_sha256_add(h, text ? text : "", text ? strlen(text) + 1 : 0);
}

static void add_list(struct ft_sha256 *h, const char *name, const char *const *list)
{
    for (; list && *list; list++)
        add_text(h, name, *list);
}

static int add_file(struct ft_sha256 *h, const char *name, const char *path)
{
    char hex[65];
    if (!ft_sha256_file(path, hex, NULL))
        return ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "cannot be read: %s",
                          strerror(errno));
    add_text(h, name, hex);
    return FT_OK;
}

static int find_key(char key[65], const struct ft_source *s, const struct ft_texts *t)
{
    const struct ft_format_options *o = &s->options;
    const struct {
        const char *name, *text;
    } texts[] = {{"ft", FT_VERSION " 1"},
                 {"type", o->type},
                 {"template", s->template_text},
                 {"file type", s->entry->ds_type},
                 {"split", s->entry->split},
                 {"field", o->field},
                 {"field_messages", o->field_messages},
                 {"field_system", o->field_system},
                 {"field_tools", o->field_tools},
                 {"field_instruction", o->field_instruction},
                 {"field_input", o->field_input},
                 {"field_output", o->field_output},
                 {"format", o->format},
                 {"no_input_format", o->no_input_format},
                 {"system_format", o->system_format},
                 {"system_prompt", o->system_prompt},
                 {"training", o->message_field_training},
                 {"default_system", o->default_system}};
    struct ft_sha256 h;
    char numbers[160], *tokenizer = ft_path_join(t->folder, "tokenizer.json");
    ft_sha256_init(&h);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_text(&h, texts[i].name, texts[i].text);
    add_list(&h, "property", o->properties);
    add_list(&h, "role", o->roles);
    add_list(&h, "trained", o->roles_to_train);
    add_list(&h, "end", o->end_tokens);
    snprintf(numbers, sizeof numbers, "%d %d %d %lld %lld %lld", o->train_on_eos,
             o->train_on_inputs, o->drop_system_message,
             ft_format_cuts(s->format) ? (long long)s->prepare.sequence_len : 0,
             (long long)s->prepare.skip_bad, s->says_date ? o->now / 86400 : 0);
    add_text(&h, "numbers", numbers);
    char *special = json_dumps(t->special, JSON_SORT_KEYS | JSON_COMPACT);
    add_text(&h, "special", special);
    free(special);
    int rc = tokenizer ? add_file(&h, "tokenizer", tokenizer) : FT_ERESOURCE;
    for (char **f = s->files; *f && !rc; f++)
        rc = add_file(&h, "data", *f);
    ft_sha256_hex(&h, key);
    ft_free(tokenizer);
    return rc;
}

/* --- one builds, the others wait --- */

/* The lock is the kernel's: it is gone with the process that held it. */
static int try_lock(int *fd, const char *path)
{
    struct stat mine, there;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot be written: %s",
                          strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0 && fstat(*fd, &mine) == 0 && stat(path, &there) == 0 &&
        mine.st_ino == there.st_ino)
        return FT_OK;
    const bool busy = errno == EWOULDBLOCK || errno == EINTR || errno == ENOENT || errno == 0;
    close(*fd);
    *fd = -1;
    return busy ? FT_OK
                : ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot be locked: %s",
                             strerror(errno));
}

static void say_wait(const struct ft_texts *t, const char *lock, const char *path)
{
    char builder[128] = "another process";
    int fd = open(lock, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, builder, sizeof builder - 1) : 0;
    if (n > 0)
        builder[n] = 0;
    if (fd >= 0)
        close(fd);
    if (t->wait)
        t->wait(t->progress_ctx, path, builder);
}

/* Waits until it holds the lock, or `path` is there (*fd -1). */
static int lock_or_file(int *fd, const char *lock, const char *path, const struct ft_texts *t)
{
    const struct timespec moment = {0, 100 * 1000 * 1000};
    bool said = false;
    for (*fd = -1;;) {
        if (ft_file_exists(path))
            return FT_OK;
        errno = 0;
        FT_TRY(try_lock(fd, lock));
        if (*fd >= 0)
            break;
        if (!said)
            say_wait(t, lock, path);
        said = true;
        nanosleep(&moment, NULL);
    }
    char host[64] = "", who[128];
    gethostname(host, sizeof host - 1);
    const int n = snprintf(who, sizeof who, "process %ld on %s", (long)getpid(), host);
    if (ftruncate(*fd, 0) == 0 && write(*fd, who, (size_t)n) == n)
        return FT_OK; /* who holds it is only said, never relied on */
    return FT_OK;
}

static int build(const struct ft_source *s, const struct ft_texts *t, const char *path,
                 const char *key, struct ft_audit *audit)
{
    char tokenizer[65] = "", template[65] = "", *file = ft_path_join(t->folder, "tokenizer.json");
    struct ft_sha256 h;
    if (!file || !ft_sha256_file(file, tokenizer, NULL))
        tokenizer[0] = 0;
    ft_free(file);
    ft_sha256_init(&h);
    add_text(&h, "", s->template_text);
    ft_sha256_hex(&h, template);
    const char *const meta[][2] = {{"key", key},
                                   {"tokenizer_sha256", tokenizer},
                                   {"template_sha256", s->template_text ? template : ""},
                                   {"type", s->options.type}};
    return ft_prepare_file(&s->prepare, 1, path, meta, 4, audit);
}

int ft_source_prepared(char **path, const struct ft_source *s, const struct ft_texts *t,
                       struct ft_audit *audit)
{
    const char *folder = t->config->dataset_prepared_path;
    char key[65], *lock = NULL;
    int fd = -1, rc;
    *path = NULL;
    FT_TRY(find_key(key, s, t));
    FT_TRY(ft_make_folders(folder));
    *path = ft_format("%s/%.32s.safetensors", folder, key);
    lock = ft_format("%s/%.32s.lock", folder, key);
    FT_GO(*path && lock ? FT_OK : FT_ERESOURCE);
    /* a file that cannot be read is built again */
    if (ft_file_exists(*path) && ft_prepared_audit(*path, audit))
        goto out;
    unlink(*path);
    FT_GO(lock_or_file(&fd, lock, *path, t));
    if (ft_file_exists(*path)) {
        if (!ft_prepared_audit(*path, audit))
            rc = ft_fail_at((struct ft_where){.file = *path}, FT_EDATA,
                            "is not a dataset that ft prepared; delete it");
        goto out;
    }
    rc = build(s, t, *path, key, audit);
out:
    if (fd >= 0) {
        unlink(lock);
        close(fd);
    }
    ft_free(lock);
    if (rc) {
        ft_free(*path);
        *path = NULL;
    }
    return rc;
}
