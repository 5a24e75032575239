/* Fills the config struct from YAML by the table of options. */
#include "config/options.h"

#include "core/file.h"
#include "core/text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- scalars --- */

static bool is_word(const struct ft_yaml *n, const char *const *words)
{
    for (; *words; words++)
        if (strcasecmp(n->text, *words) == 0)
            return true;
    return false;
}

/* YAML 1.1's booleans, as PyYAML reads them. */
bool ft_value_bool(const struct ft_yaml *n, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on", NULL};
    static const char *const no[] = {"false", "no", "off", NULL};
    if (n->kind != FT_YAML_SCALAR)
        return false;
    *out = is_word(n, yes);
    return *out || is_word(n, no);
}

static bool get_real(const struct ft_yaml *n, double *out)
{
    char *end;
    if (n->kind != FT_YAML_SCALAR || !n->text[0] || strpbrk(n->text, "xXpP \t"))
        return false;
    *out = strtod(n->text, &end);
    return *end == 0 && isfinite(*out);
}

static bool get_int(const struct ft_yaml *n, int64_t *out)
{
    char *end;
    if (n->kind != FT_YAML_SCALAR || !n->text[0] || n->text[0] == ' ')
        return false;
    errno = 0;
    *out = strtoll(n->text, &end, 10);
    return *end == 0 && errno == 0;
}

static const char *shown(const struct ft_yaml *n)
{
    return n->kind == FT_YAML_SCALAR ? n->text : n->kind == FT_YAML_LIST ? "a list" : "a map";
}

int ft_value_refuse(const char *key, const struct ft_yaml *n, const char *allowed)
{
    const bool scalar = n->kind == FT_YAML_SCALAR;
    return ft_fail_at(n->at, FT_ECONFIG, "'%s' is %s%s%s, allowed %s", key, scalar ? "'" : "",
                      shown(n), scalar ? "'" : "", allowed);
}

static int bad_value(const struct ft_option *o, const struct ft_yaml *n, const char *allowed)
{
    ft_value_refuse(o->key, n, allowed);
    if (o->fallback)
        ft_hint("the default is %s; see 'ft config --explain %s'", o->fallback, o->key);
    else
        ft_hint("see 'ft config --explain %s'", o->key);
    return FT_ECONFIG;
}

static int out_of_range(const struct ft_option *o, const struct ft_yaml *n)
{
    char range[96];
    if (o->type == FT_T_INT)
        snprintf(range, sizeof range, "%.0f..%.0f", o->lo, o->hi);
    else
        snprintf(range, sizeof range, "a number %s %g and %s %g", o->open_lo ? "above" : "from",
                 o->lo, o->open_hi ? "below" : "up to", o->hi);
    return bad_value(o, n, range);
}

static bool in_range(const struct ft_option *o, double v)
{
    return (o->open_lo ? v > o->lo : v >= o->lo) && (o->open_hi ? v < o->hi : v <= o->hi);
}

static int read_choice(const struct ft_option *o, const struct ft_yaml *n, void *to)
{
    char list[512] = "one of ";
    for (const struct ft_choice *c = o->choices; c->name; c++) {
        bool same = n->kind == FT_YAML_SCALAR && strcasecmp(c->name, n->text) == 0;
        bool b; /* true and false in YAML's other spellings */
        if (!same && ft_value_bool(n, &b))
            same = strcmp(c->name, b ? "true" : "false") == 0;
        if (same) {
            if (o->type == FT_T_WORD)
                *(const char **)to = c->name;
            else
                *(int *)to = c->value;
            if (c->notice)
                ft_notice(n->at, "'%s: %s': %s", o->key, c->name, c->notice);
            return FT_OK;
        }
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", c == o->choices ? "" : ", ", c->name);
    }
    return bad_value(o, n, list);
}

/* --- lists --- */

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."

/* "q_proj,v_proj" is a list, and so is a name alone. */
static int split_targets(struct ft_config *c, const struct ft_yaml *n)
{
    const size_t length = strlen(n->text);
    char *text = ft_arena_format(&c->arena, "%s", n->text);
    const char **list = ft_arena_alloc(&c->arena, length + 2, sizeof *list);
    if (!text || !list)
        return FT_ERESOURCE;
    int i = 0;
    for (char *p = text; *p;) {
        p += strspn(p, ", ");
        const size_t part = strcspn(p, ", ");
        if (part)
            list[i++] = p;
        p += part;
        if (*p)
            *p++ = 0;
    }
    if (i == 0)
        return ft_value_refuse("lora_target_modules", n, "names of modules");
    c->lora_target_modules = list;
    return FT_OK;
}

static int read_targets(struct ft_config *c, const struct ft_option *o, const struct ft_yaml *n)
{
    if (n->kind == FT_YAML_SCALAR && strcmp(n->text, "all-linear") == 0) {
        c->lora_target_linear = true;
        return FT_OK;
    }
    if (n->kind == FT_YAML_SCALAR && n->text[strspn(n->text, NAME_CHARACTERS ", ")] == 0)
        return split_targets(c, n);
    if (n->kind == FT_YAML_SCALAR) {
        c->lora_target_regex = n->text;
        return FT_OK;
    }
    if (n->kind == FT_YAML_MAP || n->count == 0)
        return bad_value(o, n, "a list of module names, or one regular expression");
    c->lora_target_modules =
        ft_arena_alloc(&c->arena, (size_t)n->count + 1, sizeof *c->lora_target_modules);
    if (!c->lora_target_modules)
        return FT_ERESOURCE;
    int i = 0;
    for (const struct ft_yaml *e = n->first; e; e = e->next) {
        if (e->kind != FT_YAML_SCALAR || ft_yaml_is_null(e))
            return bad_value(o, e, "module names");
        c->lora_target_modules[i++] = e->text;
    }
    return FT_OK;
}

int ft_value_path(const char **out, struct ft_arena *arena, const char *key,
                  const struct ft_yaml *n)
{
    const char *home;
    if (n->kind != FT_YAML_SCALAR)
        return ft_value_refuse(key, n, "text");
    *out = n->text;
    if (n->text[0] != '~' || strchr(n->text, '\n'))
        return FT_OK;
    if (n->text[1] && n->text[1] != '/') {
        ft_fail_at(n->at, FT_ECONFIG,
                   "'%s' is '%s': '~' is your own home folder, not another user's", key, n->text);
        ft_hint("write the whole path");
        return FT_ECONFIG;
    }
    if (!(home = ft_path_home(n->text)))
        return ft_fail_at(n->at, FT_ECONFIG, "'%s' is '%s', and HOME is not set", key, n->text);
    *out = ft_arena_format(arena, "%s%s", home, n->text + 1);
    return *out ? FT_OK : FT_ERESOURCE;
}

int ft_value_texts(const char ***out, struct ft_arena *arena, const char *key,
                   const struct ft_yaml *n)
{
    const int count = n->kind == FT_YAML_LIST ? n->count : 1;
    int i = 0;
    if (n->kind == FT_YAML_MAP)
        return ft_value_refuse(key, n, "a list of texts, or one");
    *out = ft_arena_alloc(arena, (size_t)count + 1, sizeof **out);
    if (!*out)
        return FT_ERESOURCE;
    for (const struct ft_yaml *e = n->kind == FT_YAML_LIST ? n->first : n; i < count; e = e->next) {
        if (e->kind != FT_YAML_SCALAR)
            return ft_value_refuse(key, e, "a list of texts, or one");
        (*out)[i++] = e->text;
    }
    return FT_OK;
}

int ft_value_pairs(const char ***out, struct ft_arena *arena, const char *key,
                   const struct ft_yaml *n)
{
    int i = 0;
    if (n->kind != FT_YAML_MAP)
        return ft_value_refuse(key, n, "a map of texts");
    *out = ft_arena_alloc(arena, 2 * (size_t)n->count + 1, sizeof **out);
    if (!*out)
        return FT_ERESOURCE;
    for (const struct ft_yaml *e = n->first; e; e = e->next) {
        if (e->kind != FT_YAML_SCALAR)
            return ft_value_refuse(e->key, e, "a text");
        if (ft_yaml_is_null(e))
            continue;
        (*out)[i++] = e->key;
        (*out)[i++] = e->text;
    }
    return FT_OK;
}

int ft_value_map(const struct ft_yaml **out, const char *key, const struct ft_yaml *n)
{
    if (n->kind != FT_YAML_MAP)
        return ft_value_refuse(key, n, "a map");
    *out = n;
    return FT_OK;
}

json_t *ft_value_json(const struct ft_yaml *n)
{
    int64_t i;
    double f;
    bool b;
    if (ft_yaml_is_null(n))
        return json_null();
    if (n->kind == FT_YAML_SCALAR)
        return n->quoted              ? json_string(n->text)
               : ft_value_bool(n, &b) ? json_boolean(b)
               : get_int(n, &i)       ? json_integer(i)
               : get_real(n, &f)      ? json_real(f)
                                      : json_string(n->text);
    json_t *all = n->kind == FT_YAML_MAP ? json_object() : json_array();
    for (const struct ft_yaml *e = n->first; e && all; e = e->next)
        if (n->kind == FT_YAML_MAP ? json_object_set_new(all, e->key, ft_value_json(e))
                                   : json_array_append_new(all, ft_value_json(e))) {
            json_decref(all);
            return NULL;
        }
    return all;
}

static int read_ints(struct ft_config *c, const struct ft_option *o, const struct ft_yaml *n,
                     int64_t **to)
{
    int count = n->kind == FT_YAML_LIST ? n->count : 1, i = 0;
    *to = ft_arena_alloc(&c->arena, (size_t)count + 1, sizeof **to);
    if (!*to)
        return FT_ERESOURCE;
    const struct ft_yaml *e = n->kind == FT_YAML_LIST ? n->first : n;
    if (n->kind == FT_YAML_MAP || count == 0)
        return bad_value(o, n, "a list of whole numbers from 0");
    for (; i < count; i++, e = e->next)
        if (!get_int(e, &(*to)[i]) || (*to)[i] < 0)
            return bad_value(o, e, "whole numbers from 0");
    (*to)[i] = -1;
    return FT_OK;
}

/* A list for the embedding, or a map from modules to lists. */
static int read_rows(struct ft_config *c, const struct ft_option *o, const struct ft_yaml *n,
                     struct ft_rows_config **to)
{
    const bool map = n->kind == FT_YAML_MAP;
    *to = ft_arena_alloc(&c->arena, (size_t)(map ? n->count : 1) + 1, sizeof **to);
    if (!*to)
        return FT_ERESOURCE;
    if (!map)
        return read_ints(c, o, n, &(*to)[0].rows);
    int i = 0;
    for (const struct ft_yaml *e = n->first; e; e = e->next, i++) {
        (*to)[i].module = e->key;
        FT_TRY(read_ints(c, o, e, &(*to)[i].rows));
    }
    return FT_OK;
}

static int read_patterns(struct ft_config *c, const struct ft_option *o, const struct ft_yaml *n,
                         struct ft_pattern_config **to)
{
    if (n->kind != FT_YAML_MAP)
        return bad_value(o, n, "a map from patterns to whole numbers");
    *to = ft_arena_alloc(&c->arena, (size_t)n->count + 1, sizeof **to);
    if (!*to)
        return FT_ERESOURCE;
    int i = 0;
    for (const struct ft_yaml *e = n->first; e; e = e->next, i++) {
        (*to)[i].key = e->key;
        const bool ranks = strcmp(o->key, "lora_rank_pattern") == 0;
        double *v = &(*to)[i].value;
        if (!get_real(e, v) || !(*v > 0) || *v > 1 << 20 || (ranks && *v != floor(*v)))
            return bad_value(o, e, ranks ? "whole numbers from 1" : "numbers above 0");
    }
    return FT_OK;
}

/* --- one option --- */

static int read_value(struct ft_config *c, const struct ft_option *o, const struct ft_yaml *n)
{
    void *to = (char *)c + o->offset;
    switch (o->type) {
    case FT_T_PATH:
        return ft_value_path(to, &c->arena, o->key, n);
    case FT_T_TEXT:
        if (n->kind != FT_YAML_SCALAR)
            return bad_value(o, n, "text");
        *(const char **)to = n->text;
        return FT_OK;
    case FT_T_INT:
        if (!get_int(n, to) || !in_range(o, (double)*(int64_t *)to))
            return out_of_range(o, n);
        return FT_OK;
    case FT_T_REAL:
        if (!get_real(n, to) || !in_range(o, *(double *)to))
            return out_of_range(o, n);
        return FT_OK;
    case FT_T_BOOL:
        return ft_value_bool(n, to) ? FT_OK : bad_value(o, n, "true or false");
    case FT_T_CHOICE:
    case FT_T_WORD:
        return read_choice(o, n, to);
    case FT_T_TARGETS:
        return read_targets(c, o, n);
    case FT_T_INTS:
        return read_ints(c, o, n, to);
    case FT_T_PATTERNS:
        return read_patterns(c, o, n, to);
    case FT_T_ROWS:
        return read_rows(c, o, n, to);
    case FT_T_DATASETS:
        return ft_datasets_read(c, o->key, n, to,
                                strcmp(o->key, "datasets") == 0 ? &c->n_datasets
                                                                : &c->n_test_datasets);
    case FT_T_TEXTS:
        return ft_value_texts(to, &c->arena, o->key, n);
    case FT_T_TOKENS:
        return ft_value_pairs(to, &c->arena, o->key, n);
    case FT_T_MAP:
        return ft_value_map(to, o->key, n);
    }
    return FT_OK;
}

bool ft_value_is_off(const struct ft_yaml *n)
{
    bool b;
    double r;
    return (ft_value_bool(n, &b) && !b) || (get_real(n, &r) && r == 0) ||
           (n->kind == FT_YAML_SCALAR && !n->text[0]) ||
           (n->kind != FT_YAML_SCALAR && n->count == 0);
}

/* What is not used, said in one line. */
struct unused {
    const char *file;
    char nothing[2048], later[1024]; /* names: change nothing; not there yet */
};

static void note(char *list, size_t room, const char *key)
{
    const size_t at = strlen(list);
    snprintf(list + at, room - at, "%s%s", at ? ", " : "", key);
}

static int apply_other(const struct ft_other *o, const struct ft_yaml *n, struct unused *u)
{
    if (o->check && !ft_yaml_is_null(n))
        FT_TRY(o->check(n));
    if (o->state == FT_NOTICE || ft_value_is_off(n) || ft_yaml_is_null(n)) {
        note(u->nothing, sizeof u->nothing, n->key);
        return FT_OK;
    }
    if (o->state == FT_LATER_OK) {
        note(u->later, sizeof u->later, n->key);
        return FT_OK;
    }
    return ft_fail_at(n->key_at, FT_ECONFIG, "'%s' is %s: %s", n->key,
                      o->state == FT_LATER ? "not supported yet" : "not supported", o->help);
}

static void say_unused(const struct unused *u)
{
    const bool both = u->nothing[0] && u->later[0];
    if (u->nothing[0] || u->later[0])
        ft_notice(
            (struct ft_where){.file = u->file}, "%s%s%s%s%s; 'ft config --explain KEY' says why",
            u->nothing[0] ? "these keys change nothing here: " : "", u->nothing, both ? "; " : "",
            u->later[0] ? "not there yet, and the adapter is the same: " : "", u->later);
}

/* Another program's key that differs by a letter or two. */
static const char *near_other(struct ft_arena *arena, const char *key)
{
    const char *at;
    size_t n;
    for (int i = 0; i < ft_other_count; i++)
        for (at = NULL; (at = ft_other_key(&ft_others[i], at, &n));) {
            char *name = ft_arena_format(arena, "%.*s", (int)n, at);
            if (name && ft_edit_distance(key, name) <= 2)
                return name;
        }
    return NULL;
}

/* The shortest option that begins with key, of five letters or more. */
static const char *begins_with(const char *key)
{
    const char *best = NULL;
    for (int i = 0; i < ft_option_count && strlen(key) > 4; i++)
        if (ft_starts_with(ft_options[i].key, key) &&
            (!best || strlen(ft_options[i].key) < strlen(best)))
            best = ft_options[i].key;
    return best;
}

/* The option that was probably meant: near in its letters, or called so elsewhere. */
const char *ft_option_nearest(struct ft_arena *arena, const char *key)
{
    const char *names[512];
    size_t count = 0;
    bool same;
    const char *known = ft_option_other_name(key, &same);
    for (int i = 0; i < ft_option_count && count < 512; i++)
        names[count++] = ft_options[i].key;
    known = known ? known : begins_with(key);
    const char *near = known ? known : ft_nearest(key, names, count);
    if (near && (known || ft_is_near(key, near)))
        return near;
    near = ft_option_other_near(key);
    return near ? near : near_other(arena, key);
}

static int unknown_key(struct ft_config *c, const struct ft_yaml *n, struct unused *u)
{
    if (ft_yaml_is_null(n) || ft_value_is_off(n)) { /* a switch that is off, whatever it is */
        note(u->nothing, sizeof u->nothing, n->key);
        return FT_OK;
    }
    const char *near = ft_option_nearest(&c->arena, n->key);
    ft_fail_at(n->key_at, FT_ECONFIG, "'%s' is not an option", n->key);
    if (near)
        ft_hint("did you mean '%s'?", near);
    else
        ft_hint("'ft config --explain' lists all options");
    return FT_ECONFIG;
}

static void set_defaults(struct ft_config *c)
{
    for (int i = 0; i < ft_option_count; i++) {
        const struct ft_option *o = &ft_options[i];
        if (o->fallback) {
            struct ft_yaml n = {.kind = FT_YAML_SCALAR, .text = o->fallback};
            int rc = read_value(c, o, &n);
            FT_ASSERT(rc == FT_OK);
        } else if (o->type == FT_T_INT) {
            *(int64_t *)((char *)c + o->offset) = -1;
        } else if (o->type == FT_T_REAL) {
            *(double *)((char *)c + o->offset) = NAN;
        }
    }
}

/* --- the whole --- */

bool ft_config_is_set(const struct ft_config *c, const char *key)
{
    int i = ft_option_find(key);
    FT_ASSERT(i >= 0);
    return c->set_at[i].file != NULL;
}

struct ft_where ft_config_where(const struct ft_config *c, const char *key)
{
    int i = ft_option_find(key);
    FT_ASSERT(i >= 0);
    return c->set_at[i].file ? c->set_at[i] : (struct ft_where){.file = c->file};
}

static int conflict(const struct ft_config *c, const char *key, const char *text)
{
    return ft_fail_at(ft_config_where(c, key), FT_ECONFIG, "%s", text);
}

const char *ft_config_adapter(const struct ft_config *c)
{
    return strcmp(c->adapter, "qlora") == 0 ? "lora" : c->adapter;
}

/* Once the adapter is known. */
static int check_quantisation(struct ft_config *c)
{
    const bool any = c->load_in_4bit || c->load_in_8bit;
    int rc = ft_bnb_read(c);
    if (c->load_in_4bit && c->load_in_8bit)
        rc = conflict(c, "load_in_8bit", "'load_in_8bit' and 'load_in_4bit' exclude each other");
    if (strcmp(c->adapter, "qlora") == 0 && c->load_in_8bit)
        rc = conflict(c, "load_in_8bit",
                      "'adapter: qlora' goes with 4 bits; 'adapter: lora' with 'load_in_8bit'");
    if (any && strcmp(c->adapter, "full") == 0)
        rc = conflict(c, c->load_in_4bit ? "load_in_4bit" : "load_in_8bit",
                      "quantised weights cannot be trained themselves: 'adapter: qlora' trains one "
                      "over them");
    if (c->quantize_moe_experts && !any)
        rc =
            conflict(c, "quantize_moe_experts",
                     "'quantize_moe_experts' goes with 'load_in_4bit' or 'load_in_8bit', which say "
                     "to how many bits");
    if (c->load_in_4bit && ft_config_is_set(c, "adapter") && strcmp(c->adapter, "lora") == 0) {
        rc =
            conflict(c, "load_in_4bit", "'load_in_4bit' and 'adapter: lora' contradict each other");
        ft_hint(
            "'adapter: qlora' trains a LoRA over 4-bit weights; Axolotl takes 'lora' as 16 bits, "
            "whatever 'load_in_4bit' says");
    }
    return rc;
}

static int check_saving(const struct ft_config *c)
{
    const bool by_steps = !isnan(c->save_steps), by_epoch = c->saves_per_epoch > 0;
    int rc = FT_OK;
    if (by_steps && by_epoch)
        rc =
            conflict(c, "saves_per_epoch", "'saves_per_epoch' and 'save_steps' exclude each other");
    if ((by_steps || by_epoch) && c->save_strategy != FT_SAVE_UNSET &&
        c->save_strategy != FT_SAVE_STEPS)
        rc =
            conflict(c, "save_strategy",
                     "'save_strategy' contradicts 'save_steps' or 'saves_per_epoch', which are for "
                     "'steps'");
    if (c->save_steps > 1 && c->save_steps != floor(c->save_steps))
        rc = conflict(c, "save_steps", "'save_steps' is a share below 1 or a whole number");
    if (c->greater_is_better)
        rc = conflict(c, "greater_is_better",
                      "'greater_is_better: true' would keep the worst: the metric is a loss");
    if (c->resume_from_checkpoint && !c->auto_resume_from_checkpoints &&
        strcmp(c->resume_from_checkpoint, "true") == 0)
        rc = conflict(c, "resume_from_checkpoint",
                      "'resume_from_checkpoint: true' and 'auto_resume_from_checkpoints: false' "
                      "contradict each other");
    return rc;
}

static int check_schedule(struct ft_config *c)
{
    int rc = FT_OK;
    if (c->warmup_steps > 0 && c->warmup_ratio > 0)
        rc = conflict(c, "warmup_ratio", "'warmup_ratio' and 'warmup_steps' exclude each other");
    if (c->warmup_steps > 1 && c->warmup_steps != floor(c->warmup_steps))
        rc = conflict(c, "warmup_steps", "'warmup_steps' is a share below 1 or a whole number");
    if (c->lr_quadratic_warmup && c->lr_scheduler != FT_COSINE)
        rc = conflict(c, "lr_quadratic_warmup",
                      "'lr_quadratic_warmup' is for 'lr_scheduler: cosine'");
    if (c->cosine_constant_lr_ratio > 0 &&
        (c->lr_scheduler != FT_COSINE || c->cosine_min_lr_ratio == 0))
        rc = conflict(c, "cosine_constant_lr_ratio",
                      "'cosine_constant_lr_ratio' is for 'lr_scheduler: cosine' with a "
                      "'cosine_min_lr_ratio' above 0, where the learning rate stays");
    return rc;
}

/* What single rows cannot say. */
static int check_together(struct ft_config *c)
{
    int rc = FT_OK;
    if (!c->base_model || !c->base_model[0])
        rc = conflict(c, "base_model", "'base_model' is missing: the model to adapt");
    if (!c->n_datasets && !ft_config_is_set(c, "datasets"))
        rc = conflict(c, "datasets", "'datasets' is missing: what to train on");
    if (!c->output_dir || !c->output_dir[0])
        rc = conflict(c, "output_dir", "'output_dir' is missing: where the adapter goes");
    if (c->device == FT_DEVICE_CUDA && c->bf16 == FT_FALSE) {
        rc = conflict(c, "bf16",
                      "'bf16: false' and 'device: cuda' exclude each other: CUDA "
                      "arithmetic is bf16 with fp32 sums");
        ft_hint("remove 'bf16', or train in fp32 with 'device: cpu'");
    }
    if (strcmp(c->cpu_isa, "amx") == 0 && c->bf16 != FT_TRUE && c->bf16 != FT_AUTO) {
        rc = conflict(c, "cpu_isa",
                      "'cpu_isa: amx' has bf16 products alone, which 'bf16' is not for");
        ft_hint("add 'bf16: true', or remove 'cpu_isa'");
    }
    if (c->lora_target_regex && c->peft_layers_to_transform)
        rc = conflict(c, "peft_layers_to_transform",
                      "'peft_layers_to_transform' needs 'lora_target_modules' as a list, not as a "
                      "regular expression");
    if (c->val_set_size > 0 && c->n_test_datasets)
        rc = conflict(c, "val_set_size", "'val_set_size' and 'test_datasets' exclude each other");
    if (c->val_set_size > 1 && c->val_set_size != floor(c->val_set_size))
        rc = conflict(c, "val_set_size", "'val_set_size' is a share below 1 or a whole number");
    if (!isnan(c->eval_steps) && c->evals_per_epoch > 0)
        rc =
            conflict(c, "evals_per_epoch", "'evals_per_epoch' and 'eval_steps' exclude each other");
    if (c->eval_strategy != FT_EVAL_UNSET && c->eval_strategy != FT_EVAL_STEPS &&
        (!isnan(c->eval_steps) || c->evals_per_epoch > 0))
        rc = conflict(c, "eval_strategy",
                      "'eval_strategy' contradicts 'eval_steps' or "
                      "'evals_per_epoch', which are for 'steps'");
    const int saving = check_saving(c), schedule = check_schedule(c);
    rc = rc ? rc : saving ? saving : schedule;
    if (c->batch_size > 0 && ft_config_is_set(c, "gradient_accumulation_steps") &&
        c->batch_size != c->micro_batch_size * c->gradient_accumulation_steps)
        rc = conflict(c, "batch_size",
                      "'batch_size' is not micro_batch_size x "
                      "gradient_accumulation_steps");
    if (c->batch_size > 0 && c->batch_size % c->micro_batch_size)
        rc = conflict(c, "batch_size", "'batch_size' is not a multiple of 'micro_batch_size'");
    if (c->chat_template && c->chat_template_jinja && strcmp(c->chat_template, "jinja") != 0)
        rc = conflict(c, "chat_template_jinja",
                      "'chat_template_jinja' is there, and 'chat_template' "
                      "names another template: it would be 'jinja'");
    if (!isnan(c->eval_steps) && c->eval_steps > 1 && c->eval_steps != floor(c->eval_steps))
        rc = conflict(c, "eval_steps", "'eval_steps' is a share below 1 or a whole number");
    return rc;
}

/* Defaults that depend on other options. */
static void resolve(struct ft_config *c)
{
    if (!c->lora_target_modules && !c->lora_target_regex && !c->lora_model_dir &&
        !c->lora_target_parameters && !ft_config_is_set(c, "lora_target_linear"))
        c->lora_target_linear = true;
    if (c->batch_size > 0 && !ft_config_is_set(c, "gradient_accumulation_steps"))
        c->gradient_accumulation_steps = c->batch_size / c->micro_batch_size;
    if (strcmp(c->adapter, "full") == 0 && !ft_config_is_set(c, "learning_rate"))
        c->learning_rate = 2e-5; /* what adapters need is too much for all weights */
    if (!ft_config_is_set(c, "lora_alpha") && ft_config_is_set(c, "lora_r"))
        c->lora_alpha = 2 * (double)c->lora_r;
}

/* Unset means what it means in Axolotl's files: the model itself is trained. A config that speaks
 * of a LoRA all the same gets one. Either is said. */
static int check_adapter(struct ft_config *c)
{
    bool lora = c->lora_model_dir != NULL;
    for (const struct ft_yaml *n = c->root->first; n; n = n->next)
        lora = lora || ((ft_starts_with(n->key, "lora") || ft_starts_with(n->key, "peft_")) &&
                        ft_option_find(n->key) >= 0 && !ft_yaml_is_null(n) && !ft_value_is_off(n));
    if (ft_config_is_set(c, "adapter") && lora && strcmp(c->adapter, "full") == 0) {
        ft_fail_at(ft_config_where(c, "adapter"), FT_ECONFIG,
                   "'adapter' is 'full', and other keys speak of a LoRA");
        ft_hint("'adapter: lora' trains one; without it remove the keys that begin with 'lora' and "
                "'peft_'");
        return FT_ECONFIG;
    }
    if (ft_config_is_set(c, "adapter"))
        return FT_OK;
    c->adapter = lora ? "lora" : "full";
    if (lora && c->folder)
        ft_notice((struct ft_where){.file = c->file}, "'adapter' is not set: a LoRA is trained");
    if (!lora)
        ft_notice((struct ft_where){.file = c->file},
                  "'adapter' is not set: all weights of the model are trained, as in Axolotl; "
                  "'adapter: lora' trains a LoRA");
    return FT_OK;
}

/* An option under its other name is that option. */
static int read_node(struct ft_config *c, const struct ft_yaml *n, struct unused *u)
{
    bool same = false;
    const char *other = ft_option_other_name(n->key, &same);
    const char *key = other && same ? other : n->key;
    const int i = ft_option_find(key);
    const struct ft_other *o = i < 0 ? ft_other_find(n->key) : NULL;
    if (o)
        return apply_other(o, n, u);
    if (i < 0)
        return unknown_key(c, n, u);
    if (ft_yaml_is_null(n))
        return FT_OK;
    if (key != n->key && ft_yaml_get(c->root, key) && !ft_yaml_is_null(ft_yaml_get(c->root, key)))
        return ft_fail_at(n->key_at, FT_ECONFIG, "'%s' is another name of '%s', which is there too",
                          n->key, key);
    c->set_at[i] = n->at;
    return read_value(c, &ft_options[i], n);
}

static int read_all(struct ft_config *c)
{
    struct unused u = {.file = c->file};
    int rc = FT_OK;
    for (const struct ft_yaml *n = c->root->first; n; n = n->next) {
        int bad = read_node(c, n, &u);
        rc = rc ? rc : bad;
    }
    say_unused(&u);
    int bad = check_together(c);
    rc = rc ? rc : bad;
    bad = check_adapter(c);
    rc = rc ? rc : bad;
    bad = check_quantisation(c);
    return rc ? rc : bad;
}

static int apply_override(struct ft_config *c, const char *text)
{
    const char *eq = strchr(text, '=');
    struct ft_yaml *value;
    if (!eq || eq == text) {
        ft_fail(FT_ECONFIG, "'%s' is not an override", text);
        ft_hint("overrides are written key=value, for example lora_r=32 or datasets.0.path=x");
        return FT_ECONFIG;
    }
    char *key = ft_arena_format(&c->arena, "%.*s", (int)(eq - text), text);
    if (!key)
        return FT_ERESOURCE;
    FT_TRY(ft_yaml_value(&value, &c->arena, eq + 1, "command line"));
    return ft_yaml_set(c->root, &c->arena, key, value);
}

int ft_config_read(struct ft_config *c, const char *path, const char *const *overrides,
                   int n_overrides)
{
    return ft_config_read_as(c, path, path, overrides, n_overrides);
}

static int open_tree(struct ft_config *c, const char *path, const char *name)
{
    *c = (struct ft_config){.file = "command line"};
    c->set_at = ft_arena_alloc(&c->arena, (size_t)ft_option_count, sizeof *c->set_at);
    c->root = ft_arena_alloc(&c->arena, 1, sizeof *c->root);
    if (!c->set_at || !c->root)
        return FT_ERESOURCE;
    c->root->kind = FT_YAML_MAP;
    if (path) {
        const char *slash = strrchr(name, '/');
        c->file = ft_arena_format(&c->arena, "%s", name);
        c->folder = ft_arena_format(&c->arena, "%.*s", slash ? (int)(slash - name) + 1 : 1,
                                    slash ? name : ".");
        if (!c->file || !c->folder)
            return FT_ERESOURCE;
        FT_TRY(ft_yaml_file(&c->root, &c->arena, path, c->file));
    }
    return FT_OK;
}

static int apply_overrides(struct ft_config *c, const char *const *overrides, int n)
{
    int rc = FT_OK;
    for (int i = 0; i < n; i++) {
        int bad = apply_override(c, overrides[i]);
        rc = rc ? rc : bad;
    }
    return rc;
}

int ft_config_tree(struct ft_config *c, const char *path, const char *const *overrides,
                   int n_overrides)
{
    FT_TRY(open_tree(c, path, path));
    return apply_overrides(c, overrides, n_overrides);
}

int ft_config_read_as(struct ft_config *c, const char *path, const char *name,
                      const char *const *overrides, int n_overrides)
{
    FT_TRY(open_tree(c, path, name));
    set_defaults(c);
    int rc = apply_overrides(c, overrides, n_overrides);
    int bad = read_all(c);
    rc = rc ? rc : bad;
    if (!rc)
        resolve(c);
    return rc;
}

void ft_config_fini(struct ft_config *c)
{
    ft_arena_fini(&c->arena);
}

char *ft_config_path(const struct ft_config *c, const char *path)
{
    return ft_path_find(c->folder, path);
}
