/* Chat templates against what transformers renders (scripts/make-golden-templates). */
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "tests/check.h"
#include "text/template.h"

#include <string.h>

static void one_case(const json_t *c, json_t *context)
{
    const char *source = json_string_value(json_object_get(c, "template"));
    const char *want = json_string_value(json_object_get(c, "text"));
    const json_t *marks = json_object_get(c, "marks");
    struct ft_template *t;
    struct ft_rendered r = {0};
    json_object_set(context, "add_generation_prompt", json_object_get(c, "prompt"));
    int rc = ft_template_open(&t, source, "golden");
    if (!rc)
        rc = ft_template_render(t, context, 0, &r);
    if (rc) {
        check_fail(source, rc, "%s", ft_status_report());
        ft_status_clear();
    } else if (strcmp(r.text, want) != 0) {
        check_fail(source, 0, "rendered '%s', expected '%s'", r.text, want);
    } else {
        CHECK_INT(r.n_marks, json_array_size(marks));
        for (size_t i = 0; i < r.n_marks; i++) {
            const json_t *m = json_array_get(marks, i);
            CHECK_INT(r.marks[i].begin, json_integer_value(json_array_get(m, 0)));
            CHECK_INT(r.marks[i].end, json_integer_value(json_array_get(m, 1)));
        }
    }
    ft_rendered_free(&r);
    ft_template_close(t);
}

CASE(templates_render_as_transformers_does)
{
    json_t *root = read_json(FT_ROOT "/tests/text/templates.json"),
           *context = json_object_get(root, "context");
    const json_t *cases = json_object_get(root, "cases");
    CHECK(json_array_size(cases) >= 40);
    for (size_t i = 0; i < json_array_size(cases); i++)
        one_case(json_array_get(cases, i), context);
    json_decref(root);
}

CASE(what_jinja_refuses_is_refused)
{
    json_t *root = read_json(FT_ROOT "/tests/text/templates.json");
    const json_t *list = json_object_get(root, "refused");
    CHECK(json_array_size(list) >= 10);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *source = json_string_value(json_array_get(list, i));
        struct ft_template *t = NULL;
        struct ft_rendered r = {0};
        int rc = ft_template_open(&t, source, "refused");
        if (!rc)
            rc = ft_template_render(t, json_object_get(root, "context"), 0, &r);
        if (rc != FT_EDATA || !strstr(ft_status_report(), "refused:1:"))
            check_fail(source, rc, "was not refused with its place: %s", ft_status_report());
        ft_rendered_free(&r);
        ft_template_close(t);
        ft_status_clear();
    }
    json_decref(root);
}

CASE(damaged_templates_never_crash)
{
    json_t *root = read_json(FT_ROOT "/tests/text/templates.json"),
           *context = json_object_get(root, "context");
    const json_t *cases = json_object_get(root, "cases");
    uint32_t state = 7;
    for (int i = 0; i < 3000; i++) {
        const json_t *c = json_array_get(cases, (size_t)i % json_array_size(cases));
        char *source = ft_strdup(json_string_value(json_object_get(c, "template")));
        struct ft_template *t = NULL;
        struct ft_rendered r = {0};
        const size_t n = strlen(source);
        for (int k = 0; k < 2; k++) {
            state = state * 1664525u + 1013904223u;
            char *at = &source[(state >> 8) % n];
            if ((unsigned char)*at < 0x80) /* keep it UTF-8 */
                *at = "{}%#()[]|.,:~-+*/'\" =nax0"[state % 26];
        }
        if (ft_template_open(&t, source, "damaged") == FT_OK)
            ft_template_render(t, context, 0, &r);
        ft_rendered_free(&r);
        ft_template_close(t);
        ft_free(source);
        ft_status_clear();
    }
    json_decref(root);
}
