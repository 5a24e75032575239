/* Tests: x is name. */
#include "jinja/run.h"

static struct jv *is_kind(const struct jv_call *c)
{
    return jv_bool(c->r, c->self->kind == (enum jv_kind)c->of->which);
}

static struct jv *is_defined(const struct jv_call *c)
{
    return jv_bool(c->r, c->self->kind != JV_UNDEFINED);
}

static struct jv *is_number(const struct jv_call *c)
{
    return jv_bool(c->r, jv_is_number(c->self));
}

static struct jv *is_bool(const struct jv_call *c)
{
    return jv_bool(c->r, c->self->kind == JV_BOOL && c->self->i == c->of->which);
}

static struct jv *is_iterable(const struct jv_call *c)
{
    const struct jv *v = c->self;
    const bool indexed = jv_is_list(v) || v->kind == JV_STRING || v->kind == JV_DICT ||
                         v->kind == JV_UNDEFINED || jv_is_range(v);
    return jv_bool(c->r, indexed || (c->of->which && (v->kind == JV_VIEW || v->kind == JV_LOOP ||
                                                      v->kind == JV_ITERATOR)));
}

static struct jv *is_callable(const struct jv_call *c)
{
    return jv_bool(c->r, c->self->kind >= JV_LOOP || c->self->kind == JV_UNDEFINED);
}

static struct jv *is_rest(const struct jv_call *c)
{
    struct jv two = {.kind = JV_INT, .i = 2}, rest = {.kind = JV_INT, .i = c->of->which};
    if (!jv_is_number(c->self))
        return jr_fail(c->r, c->at, "'%s' needs a number, not %s", c->of->name,
                       jv_kind_name(c->self));
    return jv_bool(
        c->r, jv_equal(c->r, jv_arithmetic(c->r, c->at, "%", c->self, c->arg[0] ? c->arg[0] : &two),
                       &rest));
}

static struct jv *is_compared(const struct jv_call *c)
{
    static const char *const operators[] = {"==", "!=", "<", "<=", ">", ">=", "in"};
    return jv_bool(c->r, jv_compare(c->r, c->at, operators[c->of->which], c->self, c->arg[0]));
}

static struct jv *is_same(const struct jv_call *c)
{
    const struct jv *a = c->self, *b = c->arg[0];
    if (a->kind == b->kind && (a->kind == JV_INT || a->kind == JV_FLOAT || a->kind == JV_STRING))
        return jr_fail(c->r, c->at, "'sameas' of texts and numbers is not supported: use '=='");
    const bool one = a->kind == JV_NONE || (a->kind == JV_BOOL && a->i == b->i);
    return jv_bool(c->r, a->kind == b->kind && (one || a == b));
}

static struct jv *is_cased(const struct jv_call *c)
{
    return jv_bool(c->r, jv_all_upper(c->r, jv_text_of(c->r, c->at, c->self), c->of->which));
}

static struct jv *is_row(const struct jv_call *c)
{
    return jv_bool(c->r, c->self->kind == JV_STRING &&
                             jv_find(c->of->which ? jv_tests : jv_filters, jv_name(c->self)));
}

const struct jv_builtin jv_tests[] = {{"defined", is_defined, "", 0},
                                      {"undefined", is_kind, "", JV_UNDEFINED},
                                      {"none", is_kind, "", JV_NONE},
                                      {"string", is_kind, "", JV_STRING},
                                      {"mapping", is_kind, "", JV_DICT},
                                      {"integer", is_kind, "", JV_INT},
                                      {"float", is_kind, "", JV_FLOAT},
                                      {"boolean", is_kind, "", JV_BOOL},
                                      {"true", is_bool, "", 1},
                                      {"false", is_bool, "", 0},
                                      {"number", is_number, "", 0},
                                      {"iterable", is_iterable, "", 1},
                                      {"sequence", is_iterable, "", 0},
                                      {"callable", is_callable, "", 0},
                                      {"odd", is_rest, "", 1},
                                      {"even", is_rest, "", 0},
                                      {"divisibleby", is_rest, "num", 0},
                                      {"eq", is_compared, "/ b", 0},
                                      {"equalto", is_compared, "/ b", 0},
                                      {"==", is_compared, "/ b", 0},
                                      {"ne", is_compared, "/ b", 1},
                                      {"!=", is_compared, "/ b", 1},
                                      {"lt", is_compared, "/ b", 2},
                                      {"lessthan", is_compared, "/ b", 2},
                                      {"<", is_compared, "/ b", 2},
                                      {"le", is_compared, "/ b", 3},
                                      {"<=", is_compared, "/ b", 3},
                                      {"gt", is_compared, "/ b", 4},
                                      {"greaterthan", is_compared, "/ b", 4},
                                      {">", is_compared, "/ b", 4},
                                      {"ge", is_compared, "/ b", 5},
                                      {">=", is_compared, "/ b", 5},
                                      {"in", is_compared, "seq", 6},
                                      {"sameas", is_same, "other", 0},
                                      {"lower", is_cased, "", 1},
                                      {"upper", is_cased, "", 0},
                                      {"filter", is_row, "", 0},
                                      {"test", is_row, "", 1},
                                      {"escaped", NULL, "*", 0},
                                      {NULL, NULL, NULL, 0}};
