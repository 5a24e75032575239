/* The built-in chat templates against what Axolotl's of the same names render
 * (scripts/make-golden-formats). */
#include "text/builtin.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "tests/check.h"
#include "text/chat.h"

#include <string.h>

static void one_template(const char *name, const json_t *conversations, const json_t *texts,
                         long long now)
{
    json_t *tokens = json_pack("{ssss}", "bos_token", "<s>", "eos_token", "</s>");
    const char *source = ft_builtin_template(name);
    struct ft_chat *c = NULL;
    CHECK(source != NULL);
    CHECK_INT(ft_chat_new(&c, source ? source : "", name, tokens), FT_OK);
    CHECK_INT(json_array_size(texts), 2 * json_array_size(conversations));
    for (size_t i = 0; c && i < json_array_size(texts); i++) {
        const char *want = json_string_value(json_array_get(texts, i));
        struct ft_rendered r = {0};
        int rc = ft_chat_render(c, json_array_get(conversations, i / 2), i % 2 == 1, now, &r);
        if ((rc == FT_OK) != (want != NULL))
            check_fail(name, (int)i, "ends with %d: %s", rc, ft_status_report());
        else if (want && strcmp(r.text, want) != 0)
            check_fail(name, (int)i, "rendered '%s', expected '%s'", r.text, want);
        ft_status_clear();
        ft_rendered_free(&r);
    }
    ft_chat_close(c);
    json_decref(tokens);
}

CASE(builtin_templates_render_as_axolotls_do)
{
    json_t *root = read_json(FT_ROOT "/tests/text/builtin.json");
    const json_t *list = json_object_get(root, "texts");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        one_template(json_string_value(json_object_get(one, "name")),
                     json_object_get(root, "conversations"), json_object_get(one, "texts"),
                     json_integer_value(json_object_get(root, "now")));
    }
    int names = 0;
    while (ft_builtin_name(names))
        names++;
    CHECK_INT(names, json_array_size(list));
    CHECK(ft_builtin_template("nosuch") == NULL);
    json_decref(root);
}
