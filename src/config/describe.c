/* The table of options for readers: explanations, the JSON schema, the dump. */
#include "config/options.h"

#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *type_text(const struct ft_option *o)
{
    static const char *const names[] = {
        [FT_T_TEXT] = "text",
        [FT_T_PATH] = "path",
        [FT_T_INT] = "whole number",
        [FT_T_REAL] = "number",
        [FT_T_BOOL] = "true or false",
        [FT_T_CHOICE] = "one of",
        [FT_T_WORD] = "one of",
        [FT_T_TARGETS] = "list of names, or one regular expression",
        [FT_T_INTS] = "list of whole numbers, or one",
        [FT_T_PATTERNS] = "map from regular expressions to numbers",
        [FT_T_ROWS] = "list of whole numbers, or a map from modules to such lists",
        [FT_T_DATASETS] = "list of entries with a path",
        [FT_T_TEXTS] = "list of texts, or one",
        [FT_T_TOKENS] = "map from names to texts",
        [FT_T_MAP] = "map",
    };
    return names[o->type];
}

static const char *state_text(enum ft_option_state state)
{
    static const char *const names[] = {
        [FT_LATER] = "not supported yet: an error when set",
        [FT_LATER_OK] = "not there yet: ignored with a notice",
        [FT_NOTICE] = "accepted and ignored with a notice",
        [FT_REFUSED] = "not supported: an error when set",
    };
    return names[state];
}

/* Words of `text` in lines of at most 78 columns. */
static void wrap(FILE *out, const char *text)
{
    int col = 0;
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (col && col + 1 + len > 76) {
            fputc('\n', out);
            col = 0;
        }
        fprintf(out, "%s%.*s", col ? " " : "  ", len, text);
        col += len + 1;
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void explain_option(FILE *out, const struct ft_option *o)
{
    fprintf(out, "%s\n", o->key);
    wrap(out, o->help);
    fprintf(out, "  type:    %s", type_text(o));
    for (const struct ft_choice *c = o->choices; c && c->name; c++)
        fprintf(out, "%s%s", c == o->choices ? " " : ", ", c->name);
    fputc('\n', out);
    if (o->type == FT_T_INT)
        fprintf(out, "  range:   %.0f..%.0f\n", o->lo, o->hi);
    if (o->type == FT_T_REAL)
        fprintf(out, "  range:   %s %g, %s %g\n", o->open_lo ? "above" : "from", o->lo,
                o->open_hi ? "below" : "up to", o->hi);
    fprintf(out, "  default: %s\n", o->fallback ? o->fallback : "unset");
    const char *one, *help;
    for (int k = 0; o->type == FT_T_DATASETS && (one = ft_dataset_key(k, &help)); k++) {
        fprintf(out, "\n  %s\n", one);
        wrap(out, help);
    }
}

static int explain_other(FILE *out, const char *key)
{
    bool same;
    const struct ft_other *o = ft_other_find(key);
    const char *known = ft_option_other_name(key, &same), *near;
    if (o) {
        fprintf(out, "%s\n", key);
        wrap(out, o->help);
        fprintf(out, "  state:   %s\n", state_text(o->state));
        return FT_OK;
    }
    if (known && same) {
        fprintf(out, "%s\n  another name of '%s':\n\n", key, known);
        return ft_config_explain(out, known);
    }
    ft_fail(FT_ECONFIG, "'%s' is not an option", key);
    struct ft_arena arena = {NULL};
    if ((near = ft_option_nearest(&arena, key)))
        ft_hint("did you mean '%s'?", near);
    ft_arena_fini(&arena);
    return FT_ECONFIG;
}

/* "datasets.type", "test_datasets.path"; or the key alone, where no option has its name. */
static bool explain_dataset(FILE *out, const char *key)
{
    const char *dot = strchr(key, '.'), *own = dot ? dot + 1 : key;
    const bool of_list =
        dot && (ft_starts_with(key, "datasets.") || ft_starts_with(key, "test_datasets."));
    while (of_list && *own >= '0' && *own <= '9' && strchr(own, '.')) /* datasets.0.type */
        own = strchr(own, '.') + 1;
    const char *help = !dot || of_list ? ft_dataset_help(own) : NULL;
    if (!help)
        return false;
    fprintf(out, "%s (of an entry of datasets)\n", own);
    wrap(out, help);
    return true;
}

const char *ft_config_option(const char *name)
{
    bool same;
    return ft_option_find(name) >= 0 ? name : ft_option_other_name(name, &same);
}

int ft_config_explain(FILE *out, const char *key)
{
    const int i = ft_option_find(key);
    if (i >= 0)
        explain_option(out, &ft_options[i]);
    if (explain_dataset(out, key) || i >= 0)
        return FT_OK;
    return explain_other(out, key);
}

void ft_config_list(FILE *out)
{
    const char *group = "", *at;
    size_t n;
    for (int i = 0; i < ft_option_count; i++) {
        const struct ft_option *o = &ft_options[i];
        if (strcmp(group, o->group) != 0)
            fprintf(out, "%s%s:\n", i ? "\n" : "", o->group);
        group = o->group;
        fprintf(out, "  %-30s %s\n", o->key, o->fallback ? o->fallback : "");
    }
    for (int state = FT_LATER; state <= FT_REFUSED; state++) {
        fprintf(out, "\n%s:\n", state_text((enum ft_option_state)state));
        for (int i = 0; i < ft_other_count; i++)
            for (at = NULL;
                 (int)ft_others[i].state == state && (at = ft_other_key(&ft_others[i], at, &n));)
                fprintf(out, "  %.*s\n", (int)n, at);
    }
}

/* --- JSON schema (draft 2020-12) --- */

static json_t *schema_of_entry(void)
{
    json_t *keys = json_object();
    const char *key, *help;
    for (int i = 0; (key = ft_dataset_key(i, &help)); i++)
        json_object_set_new(keys, key, json_pack("{ss}", "description", help));
    return json_pack("{sssos[s]}", "type", "object", "properties", keys, "required", "path");
}

static json_t *schema_of(const struct ft_option *o)
{
    json_t *s = json_object(), *types;
    json_object_set_new(s, "description", json_string(o->help));
    switch (o->type) {
    case FT_T_TEXT:
    case FT_T_PATH:
        json_object_set_new(s, "type", json_pack("[ss]", "string", "null"));
        break;
    case FT_T_INT:
    case FT_T_REAL:
        /* numbers may be written as text: YAML 1.1 reads 2e-5 as a string */
        types = o->type == FT_T_INT ? json_pack("[ss]", "integer", "null")
                                    : json_pack("[sss]", "number", "string", "null");
        json_object_set_new(s, "type", types);
        json_object_set_new(s, o->open_lo ? "exclusiveMinimum" : "minimum", json_real(o->lo));
        json_object_set_new(s, o->open_hi ? "exclusiveMaximum" : "maximum", json_real(o->hi));
        break;
    case FT_T_BOOL:
        json_object_set_new(s, "type", json_pack("[ss]", "boolean", "null"));
        break;
    case FT_T_CHOICE:
    case FT_T_WORD:
        types = json_array();
        for (const struct ft_choice *c = o->choices; c->name; c++) {
            bool is_bool = strcmp(c->name, "true") == 0 || strcmp(c->name, "false") == 0;
            json_array_append_new(types,
                                  is_bool ? json_boolean(c->name[0] == 't') : json_string(c->name));
        }
        json_array_append_new(types, json_null());
        json_object_set_new(s, "enum", types);
        break;
    case FT_T_INTS:
        json_object_set_new(s, "type", json_pack("[sss]", "array", "integer", "null"));
        json_object_set_new(s, "items", json_pack("{sssi}", "type", "integer", "minimum", 0));
        break;
    case FT_T_PATTERNS:
        json_object_set_new(s, "type", json_pack("[ss]", "object", "null"));
        json_object_set_new(s, "additionalProperties",
                            json_pack("{sssi}", "type", "integer", "minimum", 1));
        break;
    case FT_T_ROWS:
        json_object_set_new(s, "type", json_pack("[ssss]", "array", "object", "integer", "null"));
        break;
    case FT_T_DATASETS:
        json_object_set_new(s, "type", json_pack("[ss]", "array", "null"));
        json_object_set_new(s, "items", schema_of_entry());
        break;
    case FT_T_TARGETS:
    case FT_T_TEXTS:
        json_object_set_new(s, "type", json_pack("[sss]", "array", "string", "null"));
        json_object_set_new(s, "items", json_pack("{ss}", "type", "string"));
        break;
    case FT_T_TOKENS:
    case FT_T_MAP:
        json_object_set_new(s, "type", json_pack("[ss]", "object", "null"));
        break;
    }
    return s;
}

int ft_config_schema(FILE *out)
{
    const unsigned since = ft_alloc_failures();
    json_t *properties = json_object();
    for (int i = 0; i < ft_option_count; i++)
        json_object_set_new(properties, ft_options[i].key, schema_of(&ft_options[i]));
    const char *at;
    size_t n;
    for (int i = 0; i < ft_other_count; i++)
        for (at = NULL; (at = ft_other_key(&ft_others[i], at, &n));) {
            char key[64];
            snprintf(key, sizeof key, "%.*s", (int)n, at);
            json_object_set_new(
                properties, key,
                json_pack("{ss sb}", "description", ft_others[i].help, "deprecated", 1));
        }
    json_t *root = json_pack(
        "{ss ss ss sb s[sss] so}", "$schema", "https://json-schema.org/draft/2020-12/schema",
        "title", "ft train config", "type", "object", "additionalProperties", 0, "required",
        "base_model", "datasets", "output_dir", "properties", properties);
    char *text = ft_json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12), since);
    json_decref(root);
    if (!text)
        return FT_ERESOURCE;
    fprintf(out, "%s\n", text);
    ft_json_free(text);
    return FT_OK;
}

/* --- the resolved config --- */

/* As it was written. */
static json_t *tree_json(const struct ft_yaml *n)
{
    json_t *list;
    if (!n || ft_yaml_is_null(n))
        return json_null();
    if (n->kind == FT_YAML_SCALAR)
        return json_string(n->text);
    list = n->kind == FT_YAML_MAP ? json_object() : json_array();
    for (const struct ft_yaml *e = n->first; e; e = e->next)
        if (n->kind == FT_YAML_MAP)
            json_object_set_new(list, e->key, tree_json(e));
        else
            json_array_append_new(list, tree_json(e));
    return list;
}

static json_t *value_of(const struct ft_config *c, const struct ft_option *o)
{
    const void *at = (const char *)c + o->offset;
    json_t *list = NULL;
    switch (o->type) {
    case FT_T_TEXT:
    case FT_T_PATH:
    case FT_T_WORD:
        return *(const char *const *)at ? json_string(*(const char *const *)at) : json_null();
    case FT_T_INT:
        return !o->fallback && *(const int64_t *)at < 0 ? json_null()
                                                        : json_integer(*(const int64_t *)at);
    case FT_T_REAL:
        return isnan(*(const double *)at) ? json_null() : json_real(*(const double *)at);
    case FT_T_BOOL:
        return json_boolean(*(const bool *)at);
    case FT_T_CHOICE:
        for (const struct ft_choice *k = o->choices; k->name; k++)
            if (k->value == *(const int *)at)
                return json_string(k->name);
        return json_null();
    case FT_T_TARGETS:
        if (c->lora_target_regex)
            return json_string(c->lora_target_regex);
        list = c->lora_target_modules ? json_array() : json_null();
        for (const char **t = c->lora_target_modules; t && *t; t++)
            json_array_append_new(list, json_string(*t));
        return list;
    case FT_T_INTS:
        list = *(int64_t *const *)at ? json_array() : json_null();
        for (const int64_t *p = *(int64_t *const *)at; p && *p >= 0; p++)
            json_array_append_new(list, json_integer(*p));
        return list;
    case FT_T_PATTERNS:
        list = *(struct ft_pattern_config *const *)at ? json_object() : json_null();
        for (const struct ft_pattern_config *p = *(struct ft_pattern_config *const *)at;
             p && p->key; p++)
            json_object_set_new(list, p->key, json_real(p->value));
        return list;
    case FT_T_ROWS:
    case FT_T_DATASETS:
        return tree_json(ft_yaml_get(c->root, o->key));
    case FT_T_TEXTS:
        list = *(const char **const *)at ? json_array() : json_null();
        for (const char **p = *(const char **const *)at; p && *p; p++)
            json_array_append_new(list, json_string(*p));
        return list;
    case FT_T_TOKENS:
        list = *(const char **const *)at ? json_object() : json_null();
        for (const char **p = *(const char **const *)at; p && *p; p += 2)
            json_object_set_new(list, p[0], json_string(p[1]));
        return list;
    case FT_T_MAP:
        return tree_json(*(const struct ft_yaml *const *)at);
    }
    return json_null();
}

json_t *ft_config_json(const struct ft_config *c)
{
    json_t *root = json_object();
    for (int i = 0; i < ft_option_count; i++)
        json_object_set_new(root, ft_options[i].key, value_of(c, &ft_options[i]));
    return root;
}

int ft_config_dump(FILE *out, const struct ft_config *c)
{
    for (int i = 0; i < ft_option_count; i++) {
        const struct ft_option *o = &ft_options[i];
        const struct ft_where at = c->set_at[i];
        const unsigned since = ft_alloc_failures();
        json_t *v = value_of(c, o);
        char *text = ft_json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12), since);
        json_decref(v);
        if (!text)
            return FT_ERESOURCE;
        int n = fprintf(out, "%s: %s", o->key, text);
        ft_json_free(text);
        fprintf(out, "%*s# ", n < 44 ? 44 - n : 1, "");
        if (at.file && at.line)
            fprintf(out, "%s:%d\n", at.file, at.line);
        else
            fprintf(out, "%s\n", at.file ? at.file : "default");
    }
    return FT_OK;
}
