/* Jinja's expressions and statements against Jinja itself (scripts/make-golden-jinja). */
#include "core/json.h"
#include "core/mem.h"
#include "tests/check.h"
#include "tests/failing.h"
#include "jinja/template.h"

#include <stdlib.h>
#include <string.h>

static json_t *golden(void)
{
    const char *file = getenv("FT_JINJA");
    return read_json(file ? file : FT_ROOT "/tests/text/jinja.json");
}

/* FT_OK, or why not; whether the text is as it should be is checked. */
static int render(const json_t *root, const char *source, const json_t *want)
{
    struct ft_template *t = NULL;
    struct ft_rendered r = {0};
    int rc = ft_template_open(&t, source, "jinja");
    if (!rc)
        rc = ft_template_render(t, json_object_get(root, "context"), 0, &r);
    if (!rc && want &&
        (r.length != json_string_length(want) || memcmp(r.text, json_string_value(want), r.length)))
        check_fail(source, 0, "rendered '%s', expected '%s'", r.text, json_string_value(want));
    ft_rendered_free(&r);
    ft_template_close(t);
    return rc;
}

CASE(statements_expressions_filters_tests_and_methods)
{
    json_t *root = golden();
    const json_t *list = json_object_get(root, "cases");
    CHECK(json_array_size(list) >= 50);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *source = json_string_value(json_array_get(json_array_get(list, i), 0));
        if (render(root, source, json_array_get(json_array_get(list, i), 1)))
            check_fail(source, 0, "%s", ft_status_report());
        ft_status_clear();
    }
    json_decref(root);
}

/* A few are refused, on purpose: none may have another text. */
CASE(what_chance_put_together)
{
    json_t *root = golden();
    const json_t *list = json_object_get(root, "random");
    size_t refused = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *source = json_string_value(json_array_get(json_array_get(list, i), 0));
        refused += render(root, source, json_array_get(json_array_get(list, i), 1)) != FT_OK;
        ft_status_clear();
    }
    CHECK(json_array_size(list) >= 1000);
    CHECK(refused * 20 < json_array_size(list));
    json_decref(root);
}

CASE(what_jinja_refuses)
{
    json_t *root = golden();
    const json_t *list = json_object_get(root, "refused");
    CHECK(json_array_size(list) >= 30);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *source = json_string_value(json_array_get(list, i));
        const int rc = render(root, source, NULL);
        if (rc != FT_EDATA || !strstr(ft_status_report(), "jinja:1:"))
            check_fail(source, rc, "was not refused, with its place: %s", ft_status_report());
        ft_status_clear();
    }
    json_decref(root);
}

CASE(every_allocation_may_fail)
{
    json_t *root = golden();
    const json_t *list = json_object_get(root, "cases");
    int failed = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        int rc = FT_ERESOURCE;
        for (long n = 1; rc && n < 10000; n++) {
            ft_status_clear();
            fail_at(n);
            rc = render(root, json_string_value(json_array_get(one, 0)), NULL);
            fail_at(0);
            failed += rc != FT_OK;
            if (rc && rc != FT_ERESOURCE)
                check_fail(json_string_value(json_array_get(one, 0)), (int)n, "ends with %d: %s",
                           rc, ft_status_report());
        }
        CHECK_INT(rc, FT_OK);
    }
    CHECK(failed > 500);
    printf("  %d allocations failed in turn\n", failed);
    ft_status_clear();
    json_decref(root);
}

/* Lists within lists, made in a loop: written and compared by functions that call themselves. */
CASE(nesting_has_a_limit)
{
    static const char *const sources[] = {
        "{% set n = namespace(x=[]) %}{% for i in range(100000) %}{% set n.x = [n.x] %}{% endfor %}"
        "{{ n.x }}",
        "{% set n = namespace(x={}) %}{% for i in range(100000) %}{% set n.x = {'a': n.x} %}"
        "{% endfor %}{{ n.x | tojson }}",
        "{% set n = namespace(x=[]) %}{% for i in range(1000) %}"
        "{% set n.x = [n.x] | batch(1) | list %}{% endfor %}{{ n.x == n.x }}",
        "{% set a = 'x' * 1000000 %}{% for i in range(300) %}{{ a }}{% endfor %}",
        "{% for i in range(90000) %}{% for i in range(90000) %}{% endfor %}{% endfor %}",
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{{ [1] * 1000000000 }}"};
    json_t *root = golden();
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        if (render(root, sources[i], NULL) != FT_EDATA || !strstr(ft_status_report(), "jinja:1:"))
            check_fail(sources[i], 0, "was not stopped, with its place: %s", ft_status_report());
        ft_status_clear();
    }
    json_decref(root);
}

/* What parser and interpreter call themselves for, 30,000 times. */
CASE(long_chains_have_a_limit)
{
    static const struct {
        const char *begin, *part, *end;
    } chains[] = {{"{{ ", "-", "1 }}"},         {"{{ ", "not ", "1 }}"},  {"{{ 1", "+1", " }}"},
                  {"{{ n", "()", " }}"},        {"{{ n", "|e", " }}"},    {"{{ n", "[0]", " }}"},
                  {"{{ 1", " and 1", " }}"},    {"{{ 1", " if 1", " }}"}, {"{{ ", "[", "1 }}"},
                  {"{% for ", "(", "a in l %}"}};
    enum { TIMES = 30000 };
    json_t *root = golden();
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        const size_t n = strlen(chains[i].begin), m = strlen(chains[i].part);
        char *source;
        CHECK_INT(ft_alloc(&source, n + TIMES * m + strlen(chains[i].end) + 1, 1), FT_OK);
        strcpy(source, chains[i].begin);
        for (size_t k = 0; k < TIMES; k++)
            memcpy(source + n + k * m, chains[i].part, m);
        strcpy(source + n + TIMES * m, chains[i].end);
        if (render(root, source, NULL) != FT_EDATA)
            check_fail(chains[i].part, 0, "was not stopped: %s", ft_status_report());
        ft_status_clear();
        ft_free(source);
    }
    json_decref(root);
}
