/* Lists of normalizers, pre-tokenizers and decoders, from their JSON. */
#include "text/internal.h"

#include <stdio.h>

int ft_step_text(char **out, const json_t *spec, const char *key, const char *otherwise,
                 const struct ft_place *at)
{
    const json_t *v = ft_json_get(spec, key);
    const char *text = v ? json_string_value(v) : otherwise;
    *out = NULL;
    if (!text)
        return ft_refuse(at, "has no text '%s'", key);
    *out = ft_strdup(text);
    return *out ? FT_OK : FT_ERESOURCE;
}

int ft_step_choice(const json_t *spec, const char *key, const char *const *names, int otherwise,
                   const struct ft_place *at)
{
    const json_t *v = ft_json_get(spec, key);
    const char *text = json_string_value(v);
    for (int i = 0; text && names[i]; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    if (!v && otherwise >= 0)
        return otherwise;
    ft_refuse(at, "has a '%s' of '%s', which ft does not know", key, text ? text : "(no text)");
    return -1;
}

static int open_one(struct ft_step ***tail, const json_t *spec, const char *list,
                    const struct ft_step_row *rows, int n_rows, const struct ft_place *at)
{
    const char *type = json_string_value(ft_json_get(spec, "type"));
    if (!type)
        return ft_refuse(at, "has no 'type'");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *all = ft_json_get(spec, list);
        if (!json_is_array(all))
            return ft_refuse(at, "is a Sequence without '%s'", list);
        for (size_t i = 0; i < json_array_size(all); i++) {
            char path[512];
            snprintf(path, sizeof path, "%.400s.%s.%zu", at->path, list, i);
            FT_TRY(open_one(tail, json_array_get(all, i), list, rows, n_rows,
                            &(struct ft_place){at->file, path}));
        }
        return FT_OK;
    }
    for (int i = 0; i < n_rows; i++) {
        struct ft_step *s;
        if (strcmp(type, rows[i].type) != 0)
            continue;
        FT_TRY(ft_alloc(&s, 1, sizeof *s));
        s->row = &rows[i];
        **tail = s;
        *tail = &s->next;
        return rows[i].open ? rows[i].open(s, spec, at) : FT_OK;
    }
    return ft_refuse(at, "is a '%s', which ft does not have", type);
}

int ft_steps_open(struct ft_step **out, const json_t *spec, const char *list,
                  const struct ft_step_row *rows, int n_rows, const struct ft_place *at)
{
    struct ft_step **tail = out;
    *out = NULL;
    return spec ? open_one(&tail, spec, list, rows, n_rows, at) : FT_OK;
}

void ft_step_close(struct ft_step *s)
{
    while (s) {
        struct ft_step *next = s->next;
        ft_pattern_close(s->pattern);
        ft_free(s->text);
        ft_free(s->data);
        ft_free(s);
        s = next;
    }
}
