/* Finds the lists of values in a config, and makes their combinations. */
#include "config/sweep.h"

#include "config/options.h"
#include "core/file.h"
#include "core/json.h"

#include <string.h>

enum { MAX_RUNS = 1000, MAX_KEYS = 16, NAME_PART = 48, NAME_ROOM = 160 };

/* --- what is swept --- */

/* Whether one value of the option is a list or a map by itself. */
static bool takes_many(const struct ft_option *o)
{
    switch (o->type) {
    case FT_T_TARGETS:
    case FT_T_INTS:
    case FT_T_PATTERNS:
    case FT_T_ROWS:
    case FT_T_DATASETS:
    case FT_T_TEXTS:
    case FT_T_TOKENS:
    case FT_T_MAP:
        return true;
    case FT_T_TEXT:
    case FT_T_PATH:
    case FT_T_INT:
    case FT_T_REAL:
    case FT_T_BOOL:
    case FT_T_CHOICE:
    case FT_T_WORD:
        return false;
    }
    return false;
}

static bool is_swept(const struct ft_yaml *n)
{
    bool same = false;
    const char *other = ft_option_other_name(n->key, &same);
    const int i = ft_option_find(other && same ? other : n->key);
    if (i < 0 || n->kind != FT_YAML_LIST)
        return false;
    if (!takes_many(&ft_options[i]))
        return true;
    const enum ft_yaml_kind one =
        ft_options[i].type == FT_T_DATASETS ? FT_YAML_MAP : FT_YAML_SCALAR;
    return n->first && n->first->kind != one;
}

/* A value as an override has it: as it was written, or as JSON, which YAML reads alike. */
static char *value_text(struct ft_arena *arena, const struct ft_yaml *v)
{
    if (v->kind == FT_YAML_SCALAR && !v->quoted)
        return ft_arena_format(arena, "%s", v->text);
    const unsigned since = ft_alloc_failures();
    json_t *o = ft_value_json(v);
    char *json = ft_json_dumps(o, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15), since);
    char *text = json ? ft_arena_format(arena, "%s", json) : NULL;
    ft_json_free(json);
    json_decref(o);
    return text;
}

struct key {
    const char *name;
    char **values;
    int n;
};

static int read_key(struct key *k, struct ft_arena *arena, const struct ft_yaml *n)
{
    if (n->count == 0)
        return ft_fail_at(n->at, FT_ECONFIG, "'%s' has an empty list of values", n->key);
    *k = (struct key){n->key, ft_arena_alloc(arena, (size_t)n->count, sizeof *k->values), 0};
    if (!k->values)
        return FT_ERESOURCE;
    for (const struct ft_yaml *v = n->first; v; v = v->next) {
        char *text = k->values[k->n++] = value_text(arena, v);
        if (!text)
            return FT_ERESOURCE;
        for (int i = 0; i < k->n - 1; i++)
            if (strcmp(k->values[i], text) == 0)
                return ft_fail_at(v->at, FT_ECONFIG, "'%s' has the value %s twice", n->key, text);
    }
    return FT_OK;
}

/* --- names --- */

/* Behind what name has: the part, without brackets and quotes, commas as '+', and what no folder's
 * name should have as '-'. */
static void append(char *name, const char *part, size_t most)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-=";
    size_t at = strlen(name);
    for (size_t i = 0; part[i] && i < most && at < NAME_ROOM - 1; i++)
        if (!strchr("\"[]{}", part[i]))
            name[at++] = strchr(plain, part[i]) ? part[i] : part[i] == ',' ? '+' : '-';
    name[at] = 0;
}

static char *name_of(struct ft_sweep *s, const struct key *keys, int n, const int *at)
{
    char name[NAME_ROOM + 1] = "";
    for (int i = 0; i < n; i++) {
        if (i && strlen(name) < NAME_ROOM - 1)
            strcat(name, ",");
        append(name, keys[i].name, NAME_PART);
        append(name, "=", 1);
        append(name, keys[i].values[at[i]], NAME_PART);
    }
    for (int i = 0; i < s->n_runs; i++)
        if (strcmp(s->runs[i].name, name) == 0)
            return ft_arena_format(&s->arena, "%s.%d", name, s->n_runs + 1);
    return ft_arena_format(&s->arena, "%s", name);
}

/* --- combinations --- */

static int add_run(struct ft_sweep *s, const struct key *keys, int n, const int *at,
                   const char *folder)
{
    struct ft_sweep_run *r = &s->runs[s->n_runs];
    r->changes = ft_arena_alloc(&s->arena, (size_t)n + 1, sizeof *r->changes);
    r->name = name_of(s, keys, n, at);
    r->folder = r->name ? ft_arena_format(&s->arena, "%s/%s", folder, r->name) : NULL;
    if (!r->changes || !r->folder)
        return FT_ERESOURCE;
    for (int i = 0; i < n; i++)
        if (!(r->changes[i] =
                  ft_arena_format(&s->arena, "%s=%s", keys[i].name, keys[i].values[at[i]])))
            return FT_ERESOURCE;
    r->changes[n] = ft_arena_format(&s->arena, "output_dir=%s", r->folder);
    s->n_runs++;
    return r->changes[n] ? FT_OK : FT_ERESOURCE;
}

/* The last key's value changes from run to run; false: that was the last combination. */
static bool advance(const struct key *keys, int n, int *at)
{
    for (int i = n - 1; i >= 0; at[i--] = 0)
        if (++at[i] < keys[i].n)
            return true;
    return false;
}

static int combine(struct ft_sweep *s, const struct ft_config *c, const struct key *keys, int n)
{
    const struct ft_yaml *folder = ft_yaml_get(c->root, "output_dir");
    int at[MAX_KEYS] = {0};
    int64_t runs = 1;
    for (int i = 0; i < n; i++)
        if ((runs *= keys[i].n) > MAX_RUNS)
            return ft_fail_at((struct ft_where){.file = c->file}, FT_ECONFIG,
                              "the lists of values make more than %d runs", MAX_RUNS);
    if (!folder || folder->kind != FT_YAML_SCALAR || !folder->text[0])
        return ft_fail_at((struct ft_where){.file = c->file}, FT_ECONFIG,
                          "a sweep needs one 'output_dir', in which each run has a folder");
    s->n_changes = n + 1;
    s->runs = ft_arena_alloc(&s->arena, (size_t)runs, sizeof *s->runs);
    if (!s->runs)
        return FT_ERESOURCE;
    do
        FT_TRY(add_run(s, keys, n, at, folder->text));
    while (advance(keys, n, at));
    return FT_OK;
}

static int find(struct ft_sweep *s, const struct ft_config *c)
{
    struct key keys[MAX_KEYS];
    int n = 0;
    for (const struct ft_yaml *e = c->root->first; e; e = e->next) {
        if (!is_swept(e))
            continue;
        if (n == MAX_KEYS)
            return ft_fail_at(e->key_at, FT_ECONFIG, "more than %d options are swept", MAX_KEYS);
        FT_TRY(read_key(&keys[n++], &s->arena, e));
    }
    if (n)
        return combine(s, c, keys, n);
    ft_fail_at((struct ft_where){.file = c->file}, FT_ECONFIG,
               "nothing is swept: no option has a list of values");
    ft_hint("for example learning_rate: [1e-4, 2e-4], or lora_target_modules: [[q_proj], [q_proj, "
            "v_proj]]");
    return FT_ECONFIG;
}

int ft_sweep_read(struct ft_sweep *s, const char *path, const char *const *overrides,
                  int n_overrides)
{
    struct ft_config c;
    *s = (struct ft_sweep){0};
    int rc = ft_config_tree(&c, path, overrides, n_overrides);
    if (!rc)
        rc = find(s, &c);
    ft_config_fini(&c);
    return rc;
}

void ft_sweep_fini(struct ft_sweep *s)
{
    ft_arena_fini(&s->arena);
    *s = (struct ft_sweep){0};
}
