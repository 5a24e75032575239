/* Owns the project's use of libyaml. */
#include "config/yaml.h"

#include "core/file.h"
#include "core/mem.h"
#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

enum { MAX_DEPTH = 16, MAX_FILE = 4 << 20 };

struct reader {
    yaml_parser_t parser;
    struct ft_arena *arena;
    const char *file;
    bool command_line;
};

static struct ft_where place(const struct reader *r, yaml_mark_t m)
{
    if (r->command_line)
        return (struct ft_where){.file = r->file};
    return (struct ft_where){r->file, (int)m.line + 1, (int)m.column + 1};
}

static int next(struct reader *r, yaml_event_t *e)
{
    if (yaml_parser_parse(&r->parser, e))
        return FT_OK;
    const yaml_parser_t *p = &r->parser;
    yaml_mark_t mark = p->problem_mark;
    if (p->error == YAML_MEMORY_ERROR)
        return ft_short_of_memory();
    if (p->error == YAML_READER_ERROR)
        mark = p->mark;
    int rc = ft_fail_at(place(r, mark), FT_ECONFIG, "not valid YAML: %s",
                        p->problem ? p->problem : "unknown");
    if (p->problem && strstr(p->problem, "cannot start any token"))
        ft_hint("YAML indents with spaces, never tabs; quote text that begins with %%, @ or `");
    return rc;
}

static int build(struct reader *r, yaml_event_t *e, int depth, struct ft_yaml **out);

static void append(struct ft_yaml *parent, struct ft_yaml *child)
{
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    parent->count++;
}

static int build_map(struct reader *r, int depth, struct ft_yaml *map)
{
    for (;;) {
        yaml_event_t e;
        struct ft_yaml *key, *value, *twin;
        FT_TRY(next(r, &e));
        if (e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return FT_OK;
        }
        FT_TRY(build(r, &e, depth + 1, &key));
        if (key->kind != FT_YAML_SCALAR)
            return ft_fail_at(key->at, FT_ECONFIG, "a key must be plain text");
        if ((twin = ft_yaml_get(map, key->text)))
            return ft_fail_at(key->at, FT_ECONFIG,
                              "'%s' stands here a second time; first in line %d", key->text,
                              twin->key_at.line);
        FT_TRY(next(r, &e));
        FT_TRY(build(r, &e, depth + 1, &value));
        value->key = key->text;
        value->key_at = key->at;
        append(map, value);
    }
}

static int build_list(struct reader *r, int depth, struct ft_yaml *list)
{
    for (;;) {
        yaml_event_t e;
        struct ft_yaml *item;
        FT_TRY(next(r, &e));
        if (e.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&e);
            return FT_OK;
        }
        FT_TRY(build(r, &e, depth + 1, &item));
        append(list, item);
    }
}

/* The node that event e begins; e is deleted. */
static int build(struct reader *r, yaml_event_t *e, int depth, struct ft_yaml **out)
{
    struct ft_yaml *n = ft_arena_alloc(r->arena, 1, sizeof *n);
    struct ft_where at = place(r, e->start_mark);
    yaml_event_type_t type = e->type;
    bool anchored = type == YAML_ALIAS_EVENT ||
                    (type == YAML_SCALAR_EVENT && e->data.scalar.anchor) ||
                    (type == YAML_SEQUENCE_START_EVENT && e->data.sequence_start.anchor) ||
                    (type == YAML_MAPPING_START_EVENT && e->data.mapping_start.anchor);
    int rc = n ? FT_OK : FT_ERESOURCE;
    if (!rc && anchored)
        rc = ft_fail_at(at, FT_ECONFIG, "anchors and aliases (& and *) are not supported");
    if (!rc && depth > MAX_DEPTH)
        rc = ft_fail_at(at, FT_ECONFIG, "nested more than %d levels deep", MAX_DEPTH);
    if (!rc) {
        n->at = at;
        *out = n;
        if (type == YAML_SCALAR_EVENT) {
            n->text = ft_arena_format(r->arena, "%s", (const char *)e->data.scalar.value);
            n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
            if (!n->text)
                rc = FT_ERESOURCE;
            else if (strlen(n->text) != e->data.scalar.length)
                rc = ft_fail_at(at, FT_ECONFIG, "text with a zero byte in it");
        }
    }
    yaml_event_delete(e);
    FT_TRY(rc);
    if (type == YAML_MAPPING_START_EVENT) {
        n->kind = FT_YAML_MAP;
        return build_map(r, depth, n);
    }
    if (type == YAML_SEQUENCE_START_EVENT) {
        n->kind = FT_YAML_LIST;
        return build_list(r, depth, n);
    }
    return FT_OK;
}

/* The one document of the stream; *out NULL if it is empty. */
static int build_document(struct reader *r, struct ft_yaml **out)
{
    yaml_event_t e;
    *out = NULL;
    for (;;) {
        FT_TRY(next(r, &e));
        yaml_event_type_t type = e.type;
        if (type == YAML_STREAM_END_EVENT || type == YAML_STREAM_START_EVENT ||
            type == YAML_DOCUMENT_END_EVENT || type == YAML_DOCUMENT_START_EVENT) {
            struct ft_where at = place(r, e.start_mark);
            yaml_event_delete(&e);
            if (type == YAML_STREAM_END_EVENT)
                return FT_OK;
            if (type == YAML_DOCUMENT_START_EVENT && *out)
                return ft_fail_at(at, FT_ECONFIG, "a second document begins here; a config is one");
            continue;
        }
        FT_TRY(build(r, &e, 0, out));
    }
}

static int parse(struct reader *r, const char *text, size_t len, struct ft_yaml **out)
{
    if (!yaml_parser_initialize(&r->parser))
        return ft_short_of_memory();
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, len);
    int rc = build_document(r, out);
    yaml_parser_delete(&r->parser);
    return rc;
}

/* libyaml reports bad UTF-8 without a line; tabs it accepts in places where they mislead. */
static int check_bytes(const char *file, const char *text, size_t len)
{
    int line = 1;
    size_t start = 0;
    bool indent = true;
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        ft_fail_at((struct ft_where){file, 1, 1}, FT_ECONFIG, "begins with a byte order mark");
        ft_hint("save the file as UTF-8 without BOM");
        return FT_ECONFIG;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        struct ft_where at = {file, line, (int)(i - start) + 1};
        const size_t length = ft_utf8_length(text + i, len - i, NULL);
        if (!length)
            return ft_fail_at(at, FT_ECONFIG, "not UTF-8 (byte 0x%02x)", c);
        if (c == '\t' && indent) {
            ft_fail_at(at, FT_ECONFIG, "a tab in the indentation");
            ft_hint("YAML indents with spaces, never tabs");
            return FT_ECONFIG;
        }
        i += length - 1;
        indent = c == '\n' || (indent && c == ' ');
        if (c == '\n') {
            line++;
            start = i + 1;
        }
    }
    return FT_OK;
}

int ft_yaml_file(struct ft_yaml **out, struct ft_arena *arena, const char *path, const char *name)
{
    struct reader r = {.arena = arena, .file = ft_arena_format(arena, "%s", name)};
    char *text;
    size_t len;
    *out = NULL;
    if (!r.file)
        return FT_ERESOURCE;
    FT_TRY(ft_file_read(path, MAX_FILE, FT_ECONFIG, &text, &len));
    int rc = check_bytes(r.file, text, len);
    if (!rc)
        rc = parse(&r, text, len, out);
    ft_free(text);
    if (!rc && !*out)
        rc = ft_fail_at((struct ft_where){.file = r.file}, FT_ECONFIG, "is empty");
    else if (!rc && (*out)->kind != FT_YAML_MAP)
        rc = ft_fail_at((*out)->at, FT_ECONFIG, "a config is 'key: value' lines");
    return rc;
}

int ft_yaml_value(struct ft_yaml **out, struct ft_arena *arena, const char *text,
                  const char *origin)
{
    struct reader r = {.arena = arena, .file = origin, .command_line = true};
    FT_TRY(check_bytes(origin, text, strlen(text)));
    FT_TRY(parse(&r, text, strlen(text), out));
    if (!*out) { /* "key=": null */
        *out = ft_arena_alloc(arena, 1, sizeof **out);
        if (!*out)
            return FT_ERESOURCE;
        (*out)->text = "";
        (*out)->at = (struct ft_where){.file = origin};
    }
    return FT_OK;
}

struct ft_yaml *ft_yaml_get(const struct ft_yaml *map, const char *key)
{
    for (struct ft_yaml *n = map->first; n; n = n->next)
        if (n->key && strcmp(n->key, key) == 0)
            return n;
    return NULL;
}

bool ft_yaml_is_null(const struct ft_yaml *n)
{
    return n->kind == FT_YAML_SCALAR && !n->quoted &&
           (!n->text[0] || strcmp(n->text, "~") == 0 || strcasecmp(n->text, "null") == 0);
}

/* Puts `value` in the place of `old`, or at the end if old is NULL. */
static void replace(struct ft_yaml *parent, struct ft_yaml *old, struct ft_yaml *value)
{
    if (!old) {
        append(parent, value);
        return;
    }
    struct ft_yaml **link = &parent->first;
    while (*link != old)
        link = &(*link)->next;
    *link = value;
    value->next = old->next;
    if (parent->last == old)
        parent->last = value;
}

/* The child of n that a path's part names: *slot is it, or NULL if it would come at the end. */
static int step(struct ft_yaml *n, const char *part, size_t len, struct ft_yaml **slot)
{
    *slot = NULL;
    if (n->kind == FT_YAML_LIST) {
        char *end;
        long i = strtol(part, &end, 10);
        if (end != part + len || i < 0 || i > n->count)
            return ft_fail_at(n->at, FT_ECONFIG, "'%.*s': the list has entries 0 to %d", (int)len,
                              part, n->count - 1);
        for (*slot = n->first; *slot && i > 0; i--)
            *slot = (*slot)->next;
        return FT_OK;
    }
    for (struct ft_yaml *c = n->first; c; c = c->next)
        if (strlen(c->key) == len && memcmp(c->key, part, len) == 0)
            *slot = c;
    return FT_OK;
}

int ft_yaml_set(struct ft_yaml *root, struct ft_arena *arena, const char *path,
                struct ft_yaml *value)
{
    struct ft_yaml *n = root;
    for (const char *part = path;; part = strchr(part, '.') + 1) {
        size_t len = strcspn(part, ".");
        bool is_last = part[len] == 0;
        struct ft_yaml *child;
        if (len == 0)
            return ft_fail_at(value->at, FT_ECONFIG, "'%s' is not the name of an option", path);
        FT_TRY(step(n, part, len, &child));
        const char *key = child ? child->key : NULL;
        if (!child && n->kind == FT_YAML_MAP &&
            !(key = ft_arena_format(arena, "%.*s", (int)len, part)))
            return FT_ERESOURCE;
        if (is_last) {
            value->key = key;
            value->key_at = value->at;
            replace(n, child, value);
            return FT_OK;
        }
        if (!child || child->kind == FT_YAML_SCALAR) {
            struct ft_yaml *fresh = ft_arena_alloc(arena, 1, sizeof *fresh);
            if (!fresh)
                return FT_ERESOURCE;
            char after = part[len + 1];
            fresh->kind = after >= '0' && after <= '9' ? FT_YAML_LIST : FT_YAML_MAP;
            fresh->at = fresh->key_at = value->at;
            fresh->key = key;
            replace(n, child, fresh);
            child = fresh;
        }
        n = child;
    }
}
