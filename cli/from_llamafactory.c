/* LLaMA-Factory's SFT configs, and the dataset_info.json that names their data. */
#include "cli/from.h"

#include "config/options.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"
#include "io/hub.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the keys --- */

static int refuse_value(const struct ft_yaml *n, const char *why)
{
    ft_fail_at(n->at, FT_ECONFIG, "'%s: %s': %s", n->key,
               n->kind == FT_YAML_SCALAR ? n->text : "...", why);
    ft_hint("ft trains LoRA adapters on texts and conversations (stage sft or pt)");
    return FT_ECONFIG;
}

static int stage(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    (void)f;
    (void)r;
    if (n->kind == FT_YAML_SCALAR && (strcmp(n->text, "sft") == 0 || strcmp(n->text, "pt") == 0))
        return FT_OK;
    return refuse_value(n, "preference and reward training is another objective");
}

static int method(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    if (n->kind != FT_YAML_SCALAR || strcmp(n->text, "lora") != 0)
        return refuse_value(n, "ft trains LoRA adapters only");
    ft_from_put(f, r->to, ft_from_number(f, "quantization_bit", 16) == 4 ? "qlora" : "lora", NULL);
    return FT_OK;
}

static int bits(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    const double count = ft_from_number(f, r->key, 16);
    if (count == 8)
        ft_from_put(f, "load_in_8bit", "true", NULL);
    else if (count != 4)
        ft_from_note(f, n, "ft quantises to 4 or 8 bits");
    if (count != 4)
        return FT_OK;
    ft_from_put(f, "load_in_4bit", "true", NULL);
    ft_from_put(f, "bnb_config_kwargs",
                ft_arena_format(
                    &f->arena, "{bnb_4bit_quant_type: %s, bnb_4bit_use_double_quant: %s}",
                    ft_from_word(f, "quantization_type", "nf4"),
                    ft_from_get(f, "double_quantization") && !ft_from_is(f, "double_quantization")
                        ? "false"
                        : "true"),
                NULL);
    return FT_OK;
}

static int pissa(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    bool on;
    if (!ft_value_bool(n, &on))
        return ft_value_refuse(r->key, n, "true or false");
    if (on)
        ft_from_put(f, r->to, "pissa", NULL);
    return FT_OK;
}

/* 0 and null are the default too. */
static void put_alpha(struct ft_from *f)
{
    const struct ft_yaml *n = ft_from_get(f, "lora_alpha");
    double v = 0;
    if (ft_from_real_of(n, &v) && v != 0)
        ft_from_put(f, "lora_alpha", n->text, NULL);
    else
        ft_from_put(f, "lora_alpha",
                    ft_arena_format(&f->arena, "%.0f", 2 * ft_from_number(f, "lora_rank", 8)),
                    "LLaMA-Factory's default: twice the rank");
}

/* The parts between commas, trimmed, of a text; or the list's. Calls each with every one. */
static int each_name(struct ft_from *f, const struct ft_yaml *n,
                     int (*each)(void *ctx, const char *name, struct ft_where at), void *ctx)
{
    if (n->kind == FT_YAML_MAP)
        return ft_value_refuse(n->key, n, "names with commas between them, or a list");
    for (const struct ft_yaml *e = n->kind == FT_YAML_LIST ? n->first : n; e;
         e = n->kind == FT_YAML_LIST ? e->next : NULL) {
        if (e->kind != FT_YAML_SCALAR)
            return ft_value_refuse(n->key, e, "names");
        for (const char *p = e->text; *p; p += strspn(p, ",")) {
            size_t length = strcspn(p, ",");
            const char *begin = p;
            p += length;
            ft_strip(&begin, &length, true, true);
            const char *name = ft_arena_format(&f->arena, "%.*s", (int)length, begin);
            if (!name)
                return FT_ERESOURCE;
            if (*name)
                FT_TRY(each(ctx, name, e->at));
        }
    }
    return FT_OK;
}

struct joined {
    struct ft_from *f;
    const char *text;
    bool all;
};

static int join_name(void *ctx, const char *name, struct ft_where at)
{
    struct joined *j = ctx;
    const char *quoted = ft_from_quoted(j->f, name);
    (void)at;
    j->all = j->all || strcmp(name, "all") == 0;
    j->text = ft_arena_format(&j->f->arena, "%s%s%s", j->text ? j->text : "", j->text ? ", " : "",
                              quoted ? quoted : "");
    return j->text ? FT_OK : FT_ERESOURCE;
}

static int targets(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    struct joined j = {.f = f};
    (void)r;
    FT_TRY(each_name(f, n, join_name, &j));
    if (j.all)
        ft_from_put(f, "lora_target_linear", "true", "lora_target: all");
    else if (j.text)
        ft_from_put(f, "lora_target_modules", ft_arena_format(&f->arena, "[%s]", j.text), NULL);
    return FT_OK;
}

static int saved(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    struct joined j = {.f = f};
    FT_TRY(each_name(f, n, join_name, &j));
    if (j.text)
        ft_from_put(f, r->to, ft_arena_format(&f->arena, "[%s]", j.text), NULL);
    return FT_OK;
}

/* Above 1 it is a count there too, cut to a whole number. */
static int held_out(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    double v;
    if (!ft_from_real_of(n, &v) || v < 0)
        return ft_value_refuse(r->key, n, "a share below 1, or a number of documents");
    if (v > 0)
        ft_from_put(f, r->to, v > 1 ? ft_arena_format(&f->arena, "%.0f", floor(v)) : n->text, NULL);
    return FT_OK;
}

static int packing(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    bool on;
    if (!ft_value_bool(n, &on))
        return ft_value_refuse(r->key, n, "true or false");
    if (on && !ft_from_is(f, "neat_packing"))
        ft_from_put(f, r->to, "true",
                    "there documents of a sequence see one another; in ft they do not");
    return FT_OK;
}

/* LLaMA-Factory then takes rank, targets and all from the adapter; ft refuses contradictions. */
static int adapter(struct ft_from *f, const struct ft_from_row *r, const struct ft_yaml *n)
{
    (void)r;
    if (n->kind != FT_YAML_SCALAR || strchr(n->text, ','))
        ft_from_note(f, n, "merge all adapters but the last into the model first");
    else if (ft_from_is(f, "create_new_adapter"))
        ft_from_note(f, n, "create_new_adapter: merge it into the model first");
    else
        ft_from_put_text(f, &f->config, "lora_model_dir", ft_from_path(f, n->text));
    return FT_OK;
}

static void leave_to_adapter(struct ft_from *f)
{
    static const char *const keys[] = {"lora_r",          "lora_alpha",
                                       "lora_dropout",    "lora_target_linear",
                                       "peft_use_rslora", "lora_target_modules"};
    bool continues = false;
    for (const struct ft_from_line *l = f->config.first; l; l = l->next)
        continues = continues || strcmp(l->key, "lora_model_dir") == 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && continues; i++)
        ft_from_drop(f, keys[i]);
}

/* --- dataset_info.json --- */

struct lf {
    struct ft_from *f;
    struct ft_from_entries *to;
    const char *dir;  /* of the data files */
    const char *path; /* of the info */
    json_t *info;     /* NULL: names are ids */
    bool tools;
};

/* dataset_dir is relative to where LLaMA-Factory was started: this folder, the config's, or one of
 * those above it. */
static const char *find_dir(struct ft_from *f, const char *dir)
{
    enum { LEVELS = 8 };
    const char *base = "";
    if (dir[0] == '/')
        return dir;
    for (int i = 0; i < LEVELS && base; i++) {
        const char *at = *base ? ft_arena_format(&f->arena, "%s/%s", base, dir) : dir;
        const char *file = at ? ft_arena_format(&f->arena, "%s/dataset_info.json", at) : NULL;
        if (file && ft_file_exists(file))
            return at;
        const char *slash = strrchr(base, '/'), *last = slash ? slash + 1 : base;
        if (i == 0)
            base = f->folder;
        else if (strcmp(base, "/") == 0 || strcmp(base, "") == 0)
            break;
        else if (strcmp(last, "..") == 0)
            base = ft_arena_format(&f->arena, "%s/..", base);
        else if (strcmp(base, ".") == 0)
            base = "..";
        else
            base = slash ? ft_arena_format(&f->arena, "%.*s",
                                           slash > base ? (int)(slash - base) : 1, base)
                         : ".";
    }
    return NULL;
}

/* REMOTE:org/name: the info lies in a dataset of the Hub. */
static int find_remote(struct lf *l, const char *name)
{
    char *folder = NULL;
    bool cached;
    FT_TRY(ft_hub_find(&folder, &cached, "dataset", name, NULL, l->f->folder));
    l->dir = ft_arena_format(&l->f->arena, "%s", folder);
    ft_free(folder);
    return l->dir ? FT_OK : FT_ERESOURCE;
}

static int open_info(struct lf *l)
{
    struct ft_from *f = l->f;
    const struct ft_yaml *n = ft_from_get(f, "dataset_dir");
    const struct ft_where at = n ? n->at : (struct ft_where){.file = f->file};
    if (n && n->kind == FT_YAML_MAP) {
        l->info = ft_value_json(n);
        l->dir = "data";
        l->path = f->file;
        return l->info ? FT_OK : ft_short_of_memory();
    }
    const char *dir = n && n->kind == FT_YAML_SCALAR ? n->text : "data";
    if (strcmp(dir, "ONLINE") == 0)
        return FT_OK;
    if (ft_starts_with(dir, "REMOTE:"))
        FT_TRY(find_remote(l, dir + 7));
    else
        l->dir = find_dir(f, dir);
    if (!l->dir) {
        ft_fail_at(at, FT_ECONFIG, "'dataset_dir': there is no '%s/dataset_info.json'", dir);
        ft_hint("it says what the datasets are; it was looked for here, beside the config and in "
                "the folders above it: start ft where LLaMA-Factory was started");
        return FT_ECONFIG;
    }
    l->path = ft_arena_format(&f->arena, "%s/dataset_info.json", l->dir);
    return l->path ? ft_json_file(l->path, FT_ECONFIG, &l->info) : FT_ERESOURCE;
}

static int no_such_dataset(const struct lf *l, const char *name, struct ft_where at)
{
    enum { MOST = 512 };
    const char *names[MOST], *key;
    const json_t *value;
    size_t n = 0;
    json_object_foreach(l->info, key, value) if (n < MOST) names[n++] = key;
    const char *near = ft_nearest(name, names, n);
    ft_fail_at(at, FT_ECONFIG, "the dataset '%s' is not in %s", name, l->path);
    if (near)
        ft_hint("did you mean '%s'?", near);
    return FT_ECONFIG;
}

/* A member of columns or tags: where the map is there, what it does not name is nothing. */
static const char *named(const json_t *info, const char *map, const char *key, const char *absent)
{
    const json_t *names = ft_json_get(info, map);
    return names ? json_string_value(json_object_get(names, key)) : absent;
}

static const char *text_of(const json_t *info, const char *key)
{
    return json_string_value(ft_json_get(info, key));
}

/* --- an entry --- */

/* Where the data is, by LLaMA-Factory's precedence. */
static const struct {
    const char *key, *note;
    bool file;
} sources[] = {{"hf_hub_url", NULL, false},
               {"ms_hub_url", "of ModelScope: download it, and write its folder here", false},
               {"om_hub_url", "of Modelers: download it, and write its folder here", false},
               {"script_url", "a script, which ft does not run: write the data's file here", true},
               {"cloud_file_name", "download this file, and write its path here", false},
               {"file_name", NULL, true}};

/* Returns the path, or NULL: the info names none. */
static const char *put_path(struct lf *l, struct ft_from_lines *e, const json_t *info)
{
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        const char *name = text_of(info, sources[i].key);
        if (!name)
            continue;
        const char *path = sources[i].file && name[0] != '/' && l->dir
                               ? ft_arena_format(&l->f->arena, "%s/%s", l->dir, name)
                               : name;
        const bool table = ft_ends_with(name, ".arrow");
        ft_from_put_in(l->f, e, "path", ft_from_quoted(l->f, path),
                       table ? "ft reads JSON, CSV, Parquet and text: convert it"
                             : sources[i].note);
        return path;
    }
    return NULL;
}

/* max_samples takes the first of every dataset. */
static void put_split(struct lf *l, struct ft_from_lines *e, const json_t *info)
{
    const char *split = text_of(info, "split"), *subset = text_of(info, "subset");
    const json_t *drawn = ft_json_get(info, "num_samples");
    double most = ft_from_number(l->f, "max_samples", 0);
    const bool fewer = json_is_number(drawn) && (most <= 0 || json_number_value(drawn) < most);
    if (fewer)
        most = json_number_value(drawn);
    if (!subset)
        subset = text_of(info, "folder");
    if (subset)
        ft_from_put_text(l->f, e, "name", subset);
    split = split ? split : "train";
    if (most > 0 && !strchr(split, '['))
        ft_from_put_in(
            l->f, e, "split",
            ft_from_quoted(l->f, ft_arena_format(&l->f->arena, "%s[:%.0f]", split, most)),
            fewer ? "num_samples: there drawn at random" : "max_samples");
    else if (strcmp(split, "train") != 0)
        ft_from_put_text(l->f, e, "split", split);
}

static void put_alpaca(struct lf *l, struct ft_from_lines *e, const json_t *info,
                       const json_t *record)
{
    static const struct {
        const char *column, *absent, *field, *usual;
    } rows[] = {{"prompt", "instruction", "field_instruction", "instruction"},
                {"query", "input", "field_input", "input"},
                {"response", "output", "field_output", "output"},
                {"system", NULL, "field_system", NULL},
                {"history", NULL, "field_history", NULL}};
    ft_from_put_in(l->f, e, "type", "instruction", NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *name = named(info, "columns", rows[i].column, rows[i].absent);
        if (name && (!rows[i].usual || strcmp(name, rows[i].usual) != 0))
            ft_from_put_text(l->f, e, rows[i].field, name);
        else if (!name && strcmp(rows[i].column, "query") == 0)
            ft_from_put_unread(l->f, e, rows[i].field, rows[i].usual, record);
    }
}

static const struct tag {
    const char *tag, *absent, *role, *known[2];
} tags[] = {{"user_tag", "human", "user", {"human", "user"}},
            {"assistant_tag", "gpt", "assistant", {"gpt", "assistant"}},
            {"observation_tag", "observation", "tool", {"observation", "tool"}},
            {"system_tag", "system", "system", {"system", "system"}}};

/* Only where ft does not know all of the names. */
static void put_roles(struct lf *l, struct ft_from_lines *e, const json_t *info)
{
    const char *roles = NULL, *call = named(info, "tags", "function_tag", NULL);
    const bool calls = call && strcmp(call, "function_call") == 0;
    bool all_known = true;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        const char *name = named(info, "tags", tags[i].tag, tags[i].absent);
        const char *quoted = ft_from_quoted(l->f, name);
        if (!quoted)
            continue;
        all_known = all_known &&
                    (strcmp(name, tags[i].known[0]) == 0 || strcmp(name, tags[i].known[1]) == 0);
        /* a table of one's own takes the place of all that ft knows */
        roles = ft_arena_format(
            &l->f->arena, "%s%s%s: [%s%s]", roles ? roles : "", roles ? ", " : "", tags[i].role,
            quoted, calls && strcmp(tags[i].role, "assistant") == 0 ? ", function_call" : "");
    }
    if (!all_known && roles)
        ft_from_put_in(l->f, e, "roles", ft_arena_format(&l->f->arena, "{%s}", roles), NULL);
}

/* ft reads system and tools by themselves, LLaMA-Factory only what columns name. */
static void put_beside(struct lf *l, struct ft_from_lines *e, const json_t *info,
                       const json_t *record)
{
    static const char *const beside[][2] = {{"system", "field_system"}, {"tools", "field_tools"}};
    for (size_t i = 0; i < 2; i++) {
        const char *name = named(info, "columns", beside[i][0], NULL);
        if (name && strcmp(name, beside[i][0]) != 0)
            ft_from_put_text(l->f, e, beside[i][1], name);
        else if (!name && record)
            ft_from_put_unread(l->f, e, beside[i][1], beside[i][0], record);
    }
    l->tools = l->tools || named(info, "columns", "tools", NULL);
}

static void put_messages(struct lf *l, struct ft_from_lines *e, const json_t *info,
                         const json_t *record)
{
    struct ft_from *f = l->f;
    const char *messages = named(info, "columns", "messages", "conversations");
    const char *role = ft_from_quoted(f, named(info, "tags", "role_tag", "from"));
    const char *content = ft_from_quoted(f, named(info, "tags", "content_tag", "value"));
    const char *call = named(info, "tags", "function_tag", NULL);
    ft_from_put_in(f, e, "type", "chat_template", NULL);
    if (messages && strcmp(messages, "messages") != 0)
        ft_from_put_text(f, e, "field_messages", messages);
    if (role && content && (strcmp(role, "role") != 0 || strcmp(content, "content") != 0))
        ft_from_put_in(f, e, "message_property_mappings",
                       ft_arena_format(&f->arena, "{role: %s, content: %s}", role, content), NULL);
    put_roles(l, e, info);
    put_beside(l, e, info, record);
    if (call && strcmp(call, "function_call") != 0 && strcmp(role ? role : "", "role") != 0)
        ft_from_put_in(f, e, NULL, NULL, "function_tag: ft knows calls as function_call");
    if (ft_json_get(info, "tags") && !named(info, "tags", "system_tag", NULL))
        ft_from_put_in(f, e, NULL, NULL,
                       "no system_tag: LLaMA-Factory skips records that begin with a system "
                       "message");
}

static void put_openai(struct lf *l, struct ft_from_lines *e, const json_t *info,
                       const json_t *record)
{
    put_messages(l, e, info, record);
    ft_from_put_in(l->f, e, NULL, NULL,
                   "formatting openai: LLaMA-Factory adds \"detailed thinking off\" to system "
                   "texts");
}

static const struct {
    const char *name;
    void (*put)(struct lf *l, struct ft_from_lines *e, const json_t *info, const json_t *record);
} formats[] = {{"alpaca", put_alpaca}, {"sharegpt", put_messages}, {"openai", put_openai}};

/* Pre-training takes the prompt column as a text. */
static void put_plain(struct lf *l, struct ft_from_lines *e, const json_t *info)
{
    const char *field = named(info, "columns", "prompt", "instruction");
    ft_from_put_in(l->f, e, "type", "completion", NULL);
    ft_from_put_text(l->f, e, "field", field);
}

static void put_format(struct lf *l, struct ft_from_lines *e, const json_t *info, const char *path)
{
    static const char *const media[] = {"images", "videos", "audios"};
    const char *formatting = text_of(info, "formatting");
    json_t *record = ft_from_record(l->f, path, text_of(info, "split"));
    if (strcmp(ft_from_word(l->f, "stage", "sft"), "pt") == 0)
        put_plain(l, e, info);
    else
        for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
            if (strcmp(formats[i].name, formatting ? formatting : "alpaca") == 0)
                formats[i].put(l, e, info, record);
    for (size_t i = 0; i < 3; i++)
        if (named(info, "columns", media[i], NULL))
            ft_from_put_in(l->f, e, NULL, NULL,
                           ft_arena_format(&l->f->arena, "%s: ft trains on text", media[i]));
    json_decref(record);
}

static int check_info(const struct lf *l, const json_t *info, const char *name)
{
    const struct ft_where at = {.file = l->path};
    const char *formatting = text_of(info, "formatting");
    bool known = !formatting;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        known = known || strcmp(formats[i].name, formatting) == 0;
    if (!json_is_object(info))
        return ft_fail_at(at, FT_ECONFIG, "'%s' is not an object", name);
    if (json_is_true(json_object_get(info, "ranking")))
        return ft_fail_at(at, FT_ECONFIG, "'%s' has rankings, which are for preference training",
                          name);
    return known ? FT_OK
                 : ft_fail_at(at, FT_ECONFIG,
                              "'%s': 'formatting' is '%s', not alpaca, sharegpt or "
                              "openai",
                              name, formatting);
}

static int add_dataset(void *ctx, const char *name, struct ft_where at)
{
    struct lf *l = ctx;
    const unsigned since = ft_alloc_failures();
    const json_t *info = json_object_get(l->info, name);
    if (l->info && !info)
        return no_such_dataset(l, name, at);
    json_t *own = info ? NULL : json_pack("{ss}", "hf_hub_url", name);
    int rc = ft_alloc_check(since);
    info = info ? info : own;
    if (!rc)
        rc = check_info(l, info, name);
    if (!rc) {
        struct ft_from_lines *e = ft_from_entry(l->f, l->to);
        const char *path = put_path(l, e, info);
        if (path) {
            put_split(l, e, info);
            put_format(l, e, info, path);
        } else {
            rc = ft_fail_at((struct ft_where){.file = l->path}, FT_ECONFIG,
                            "'%s' does not say where the data is", name);
        }
    }
    json_decref(own);
    return rc;
}

static int put_data(struct lf *l)
{
    struct ft_from *f = l->f;
    const struct ft_yaml *train = ft_from_get(f, "dataset"), *eval = ft_from_get(f, "eval_dataset");
    if (!train)
        return ft_fail_at((struct ft_where){.file = f->file}, FT_ECONFIG, "has no 'dataset'");
    FT_TRY(open_info(l));
    l->to = &f->datasets;
    FT_TRY(each_name(f, train, add_dataset, l));
    l->to = &f->test_datasets;
    if (eval)
        FT_TRY(each_name(f, eval, add_dataset, l));
    if (f->test_datasets.first)
        ft_from_drop(f, "val_set_size"); /* LLaMA-Factory refuses both */
    return FT_OK;
}

static int finish(struct ft_from *f)
{
    struct lf l = {.f = f};
    put_alpha(f);
    leave_to_adapter(f);
    ft_from_put(f, "excess_length_strategy", "truncate", "ft drops documents unless it is told");
    FT_TRY(ft_from_trainer_finish(f));
    int rc = put_data(&l);
    json_decref(l.info);
    if (rc || strcmp(ft_from_word(f, "stage", "sft"), "pt") == 0)
        return rc;
    const char *template = ft_from_word(f, "template", NULL);
    if (template)
        return ft_from_template(f, template, l.tools);
    ft_from_put(f, "chat_template", "tokenizer_default", NULL);
    ft_from_put(f, "default_system_message",
                ft_from_quoted(f, ft_from_word(f, "default_system", NULL)), NULL);
    return FT_OK;
}

/* --- the table --- */

#define LACKS(key, note)                                                                           \
    {                                                                                              \
        key, ft_from_lacks, NULL, NULL, note                                                       \
    }
#define READ(key)                                                                                  \
    {                                                                                              \
        key, NULL, NULL, NULL, NULL                                                                \
    }
#define OTHER_MODEL "ft trains the model as it is stored"

static const struct ft_from_row rows[] = {
    {"stage", stage, NULL, NULL, NULL},
    {"finetuning_type", method, "adapter", "lora", NULL},
    {"model_name_or_path", ft_from_text, "base_model", NULL, NULL},
    {"model_revision", ft_from_lacks, NULL, "main", "ft takes what the cache's main names"},
    {"lora_rank", ft_from_whole, "lora_r", "8", NULL},
    READ("lora_alpha"),
    {"lora_dropout", ft_from_real, "lora_dropout", NULL, NULL},
    {"lora_target", targets, NULL, "all", NULL},
    {"use_rslora", ft_from_bool, "peft_use_rslora", NULL, NULL},
    {"adapter_name_or_path", adapter, "lora_model_dir", NULL, NULL},
    READ("create_new_adapter"),
    {"use_dora", ft_from_bool, "peft_use_dora", NULL, NULL},
    {"pissa_init", pissa, "peft_init_lora_weights", NULL, NULL},
    {"loraplus_lr_ratio", ft_from_real, "loraplus_lr_ratio", NULL, NULL},
    {"loraplus_lr_embedding", ft_from_real, "loraplus_lr_embedding", NULL, NULL},
    {"additional_target", saved, "lora_modules_to_save", NULL, NULL},
    LACKS("module_dropout", "of another method"),
    LACKS("use_llama_pro", OTHER_MODEL),
    LACKS("use_galore", "another optimizer: adamw is used"),
    LACKS("use_apollo", "another optimizer: adamw is used"),
    LACKS("use_badam", "another optimizer: adamw is used"),
    LACKS("use_muon", "another optimizer: adamw is used"),
    LACKS("use_adam_mini", "another optimizer: adamw is used"),
    LACKS("use_dft_loss", "ft's loss is plain cross-entropy"),
    LACKS("use_asft_loss", "ft's loss is plain cross-entropy"),
    LACKS("use_eaft_loss", "ft's loss is plain cross-entropy"),
    {"early_stopping_steps", ft_from_whole, "early_stopping_patience", NULL, NULL},
    LACKS("use_swanlab", "ft writes metrics.jsonl, and calls no tracker"),
    {"quantization_bit", bits, NULL, NULL, NULL},
    READ("quantization_type"),
    READ("double_quantization"),
    LACKS("fp8", "ft computes in bf16 on a GPU, in fp32 on a CPU"),
    LACKS("rope_scaling", OTHER_MODEL),
    LACKS("shift_attn", OTHER_MODEL),
    LACKS("mixture_of_depths", OTHER_MODEL),
    LACKS("moe_aux_loss_coef", "ft's loss is plain cross-entropy"),
    LACKS("resize_vocab", "ft leaves the vocabulary as it is"),
    LACKS("add_tokens", "ft leaves the vocabulary as it is"),
    LACKS("add_special_tokens", "ft leaves the vocabulary as it is"),
    LACKS("new_special_tokens_config", "ft leaves the vocabulary as it is"),
    LACKS("split_special_tokens", "ft takes special tokens in texts as such"),
    LACKS("train_from_scratch", "ft trains adapters on a trained model"),
    READ("template"),
    READ("default_system"),
    READ("enable_thinking"),
    LACKS("preserve_thinking", "ft's templates do with thoughts as the model's do"),
    LACKS("tool_format", "ft writes tools as the template does"),
    READ("dataset"),
    READ("dataset_dir"),
    READ("eval_dataset"),
    {"val_size", held_out, "val_set_size", NULL, NULL},
    READ("max_samples"),
    {"mix_strategy", ft_from_lacks, NULL, "concat",
     "ft takes every document of all datasets once an epoch"},
    {"cutoff_len", ft_from_whole, "sequence_len", "2048", NULL},
    {"packing", packing, "sample_packing", NULL, NULL},
    {"neat_packing", ft_from_bool, "sample_packing", NULL, "neat_packing"},
    {"train_on_prompt", ft_from_bool, "train_on_inputs", NULL,
     "there the template's own words are trained too"},
    LACKS("mask_history", "there only the last answer is trained; ft trains every answer"),
    {"disable_shuffling", ft_from_bool, "curriculum_sampling", NULL, NULL},
    LACKS("ray_num_workers", "ft trains on one device"),
    LACKS("use_kt", OTHER_MODEL),
    {NULL, NULL, NULL, NULL, NULL},
};

static const char same[] =
    "adapter_folder apollo_layerwise apollo_proj apollo_proj_type apollo_rank apollo_scale "
    "apollo_scale_front apollo_scale_type apollo_target apollo_update_interval asft_alpha "
    "audio_sampling_rate badam_mask_mode badam_mode badam_start_block badam_switch_interval "
    "badam_switch_mode badam_update_ratio badam_verbose block_diag_attn buffer_size cache_dir "
    "compute_accuracy compute_dtype crop_to_patches data_shared_file_system device_map "
    "disable_gradient_checkpointing do_sample dpo_label_smoothing "
    "eaft_alpha enable_liger_kernel enable_torch_profiler eval_num_beams eval_on_each_dataset "
    "export_device export_dir export_hub_model_id export_legacy_format "
    "export_quantization_bit export_quantization_dataset export_quantization_maxlen "
    "export_quantization_nsamples export_size flash_attn fp8_backend "
    "fp8_enable_fsdp_float8_all_gather freeze_extra_modules freeze_language_model "
    "freeze_multi_modal_projector freeze_trainable_layers freeze_trainable_modules "
    "freeze_vision_tower galore_layerwise galore_proj_type galore_rank galore_scale "
    "galore_target galore_update_interval hf_hub_token hyper_parallel_args "
    "ignore_pad_token_for_loss image_do_pan_and_scan image_max_pixels image_min_pixels "
    "include_effective_tokens_per_second infer_backend infer_dtype init_special_tokens "
    "interleave_probs kt_expert_checkpoint_path kt_lora_expert_intermediate_size "
    "kt_lora_expert_num kt_use_lora_experts kt_weight_path kto_chosen_weight "
    "kto_rejected_weight ld_alpha length_penalty low_cpu_mem_usage "
    "master_addr master_port max_length max_new_tokens media_dir model_max_length "
    "ms_hub_token num_beams offload_folder oft_block_size oft_rank oft_target om_hub_token "
    "overwrite_cache pissa_convert pissa_iter plot_loss ppo_buffer_size ppo_epochs "
    "ppo_score_norm ppo_target ppo_whiten_rewards predict_with_generate pref_bco_weight "
    "pref_beta pref_ftx pref_loss preprocessing_batch_size preprocessing_num_workers "
    "print_param_status profile_modules profiler_active_steps profiler_output_dir "
    "profiler_profile_memory profiler_record_shapes profiler_repeat profiler_wait_steps "
    "profiler_warmup_steps profiler_with_stack pure_bf16 quantization_device_map "
    "quantization_method ray_init_kwargs ref_model ref_model_adapters "
    "ref_model_quantization_bit repetition_penalty reward_model reward_model_adapters "
    "reward_model_quantization_bit reward_model_type sglang_config sglang_lora_backend "
    "sglang_maxlen sglang_mem_fraction sglang_tp_size simpo_gamma skip_special_tokens "
    "streaming swanlab_api_key swanlab_lark_secret swanlab_lark_webhook_url swanlab_logdir "
    "swanlab_mode swanlab_project swanlab_run_name swanlab_workspace temperature "
    "tokenized_path top_k top_p trust_remote_code upcast_layernorm upcast_lmhead_output "
    "use_audio_in_video use_fast_tokenizer use_hyper_parallel use_kv_cache use_mca "
    "use_reentrant_gc use_unsloth use_unsloth_gc use_v1_kernels video_fps video_max_pixels "
    "video_maxlen video_min_pixels vllm_config vllm_enforce_eager vllm_gpu_util "
    "vllm_max_lora_rank vllm_maxlen";

static const char *const sure[] = {"finetuning_type", "stage",       "lora_rank", "lora_target",
                                   "cutoff_len",      "dataset_dir", "template",  NULL};
static const char *const likely[] = {"dataset", NULL};

const struct ft_from_tool ft_from_llamafactory = {.name = "LLaMA-Factory",
                                                  .sure = sure,
                                                  .likely = likely,
                                                  .needs = "model_name_or_path",
                                                  .rows = rows,
                                                  .shared = ft_from_trainer,
                                                  .same = {same, ft_from_trainer_same},
                                                  .finish = finish};
