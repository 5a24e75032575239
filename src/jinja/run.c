/* Runs templates: variables, expressions, macros, statements. */
#include "jinja/run.h"

enum { MOST_CALLS = 150, MOST_DEPTH = 1500, OF_STEP = 400 }; /* OF_STEP: the work of one */

/* Names and values of one scope, the latest first. */
struct variable {
    const char *name;
    struct jv *value;
    struct variable *before;
};
struct scope {
    struct variable *vars;
    struct scope *outer;
};

static struct jv *eval(struct jr *r, const struct jn *n);
static void run_list(struct jr *r, const struct jn_list *l);

/* --- variables --- */

static void set_variable(struct jr *r, const char *name, struct jv *value)
{
    if (r->rc)
        return;
    for (struct variable *v = r->scope->vars; v; v = v->before)
        if (strcmp(v->name, name) == 0) {
            v->value = value;
            return;
        }
    struct variable *v = jr_take(r, 1, sizeof *v);
    if (r->rc)
        return;
    *v = (struct variable){name, value, r->scope->vars};
    r->scope->vars = v;
}

static struct jv *find_variable(struct jr *r, const char *name)
{
    for (const struct scope *s = r->rc ? NULL : r->scope; s; s = s->outer)
        for (struct variable *v = s->vars; v; v = v->before, r->work += 4)
            if (strcmp(v->name, name) == 0)
                return v->value;
    return NULL;
}

static struct scope *open_scope(struct jr *r, struct scope *outer)
{
    static _Thread_local struct scope none; /* where memory is short: nothing is put there */
    struct scope *s = jr_take(r, 1, sizeof *s);
    s = r->rc ? &none : s;
    *s = (struct scope){.outer = outer};
    return s;
}

static struct jv *name(struct jr *r, const struct jn *n)
{
    struct jv *v = find_variable(r, n->text);
    const struct jv_builtin *f = v ? NULL : jv_find(jv_functions, n->text);
    if (v)
        return v;
    if (strcmp(n->text, "varargs") == 0 || strcmp(n->text, "kwargs") == 0 ||
        strcmp(n->text, "self") == 0)
        return jr_fail(r, n, "'%s' is not supported", n->text);
    if (!f)
        return &jv_undefined;
    v = jv_new(r, JV_FUNCTION);
    v->builtin = f;
    return v;
}

/* --- calls --- */

static void add_argument(struct jr *r, const struct jn *n, struct jv_args *a, struct jv *v)
{
    if (a->n == JV_ARGUMENTS)
        jr_fail(r, n, "more than %d arguments", JV_ARGUMENTS);
    else
        a->v[a->n++] = v;
}

static struct jv_args arguments(struct jr *r, const struct jn *n)
{
    struct jv_args a = {.names = n->texts};
    for (int i = 0; i < n->list.n && !r->rc; i++) {
        const struct jn *one = n->list.v[i];
        struct jv *v = eval(r, one->kind == JN_SPREAD ? one->a : one);
        if (one->kind != JN_SPREAD) {
            add_argument(r, n, &a, v);
            continue;
        }
        const struct jv *all = jv_members(r, n, v);
        for (size_t k = 0; k < all->n && !r->rc; k++)
            add_argument(r, n, &a, all->v[k]);
    }
    for (int i = 0; i < n->more.n && !r->rc; i++) {
        if (i == JV_ARGUMENTS)
            jr_fail(r, n, "more than %d arguments", JV_ARGUMENTS);
        else
            a.named[a.n_named++] = eval(r, n->more.v[i]);
    }
    return a;
}

/* Runs statements in a scope of their own, with their output into a text. */
static struct jv *captured(struct jr *r, const struct jn_list *l)
{
    struct ft_bytes b = {0}, *out = r->out;
    struct ft_rendered *marks = r->marks;
    struct scope *outer = r->scope;
    r->scope = open_scope(r, outer);
    r->out = &b;
    r->marks = NULL;
    run_list(r, l);
    r->out = out;
    r->marks = marks;
    r->scope = outer;
    return jv_taken(r, &b);
}

/* The argument for a macro's parameter i; NULL: not given. */
static struct jv *macro_argument(struct jr *r, const struct jn *n, const struct jn *macro,
                                 const struct jv_args *a, int i)
{
    for (int k = 0; k < a->n_named; k++)
        if (strcmp(a->names[k], macro->texts[i]) == 0)
            return i < a->n ? jr_fail(r, n, "'%s' is given '%s' twice", macro->text, a->names[k])
                            : a->named[k];
    return i < a->n ? a->v[i] : NULL;
}

static void check_names(struct jr *r, const struct jn *n, const struct jn *macro,
                        const struct jv_args *a)
{
    if (a->n > macro->n_texts)
        jr_fail(r, n, "'%s' takes %d arguments", macro->text, macro->n_texts);
    for (int k = 0; k < a->n_named; k++) {
        bool known = false;
        for (int i = 0; i < macro->n_texts; i++)
            known = known || strcmp(a->names[k], macro->texts[i]) == 0;
        if (!known)
            jr_fail(r, n, "'%s' has no argument '%s'", macro->text, a->names[k]);
    }
}

static struct jv *call_macro(struct jr *r, const struct jn *n, const struct jv *m,
                             const struct jv_args *a, struct jv *caller)
{
    const struct jn *macro = m->node;
    if (r->calls >= MOST_CALLS)
        return jr_fail(r, n, "macros call one another more than %d deep", MOST_CALLS);
    check_names(r, n, macro, a);
    struct scope *outer = r->scope, *inner = open_scope(r, m->scope ? m->scope : r->top);
    for (int i = 0; i < macro->n_texts && !r->rc; i++) {
        struct jv *v = macro_argument(r, n, macro, a, i);
        r->scope = inner; /* defaults may name the arguments before them */
        if (!v)
            v = macro->more.v[i] ? eval(r, macro->more.v[i]) : &jv_undefined;
        set_variable(r, macro->texts[i], v);
        r->scope = outer;
    }
    if (r->rc)
        return &jv_undefined;
    r->scope = inner;
    if (caller)
        set_variable(r, "caller", caller);
    r->calls++;
    struct jv *out = captured(r, &macro->list);
    r->calls--;
    r->scope = outer;
    r->flow = JR_GO_ON;
    return out;
}

static void run_loop(struct jr *r, const struct jn *n, struct jv *over, struct scope *outer,
                     size_t depth);

/* loop(list), in a recursive loop: its body over another list, as a text. */
static struct jv *call_loop(struct jr *r, const struct jn *n, const struct jv *loop,
                            const struct jv_args *a)
{
    struct ft_bytes b = {0}, *out = r->out;
    struct ft_rendered *marks = r->marks;
    struct scope *scope = r->scope;
    if (!loop->node->flag)
        return jr_fail(r, n, "only a loop that is 'recursive' can be called");
    if (a->n != 1 || a->n_named)
        return jr_fail(r, n, "'loop' is called with one list");
    if (r->calls >= MOST_CALLS)
        return jr_fail(r, n, "loops call themselves more than %d deep", MOST_CALLS);
    r->out = &b;
    r->marks = NULL;
    r->calls++;
    run_loop(r, loop->node, a->v[0], loop->scope, loop->n + 1);
    r->calls--;
    r->out = out;
    r->marks = marks;
    r->scope = scope;
    return jv_taken(r, &b);
}

static struct jv *call(struct jr *r, const struct jn *n)
{
    struct jv *f = eval(r, n->a);
    const struct jv_args a = arguments(r, n);
    if (r->rc)
        return &jv_undefined;
    if (f->kind == JV_METHOD || f->kind == JV_FUNCTION)
        return jv_run(r, n, f->builtin, f->self, &a);
    if (f->kind == JV_MACRO)
        return call_macro(r, n, f, &a, NULL);
    if (f->kind == JV_LOOP)
        return call_loop(r, n, f, &a);
    if (n->a->kind == JN_NAME || n->a->kind == JN_ATTR)
        return jr_fail(r, n, "'%s' cannot be called", n->a->text);
    return jr_fail(r, n, "a value that is %s cannot be called", jv_kind_name(f));
}

/* --- expressions --- */

static struct jv *container(struct jr *r, const struct jn *n)
{
    struct jv *v = jv_new(r, n->kind == JN_LIST    ? JV_LIST
                             : n->kind == JN_TUPLE ? JV_TUPLE
                                                   : JV_DICT);
    const int step = n->kind == JN_DICT ? 2 : 1;
    for (int i = 0; i + step <= n->list.n && !r->rc; i += step) {
        struct jv *x = eval(r, n->list.v[i]);
        if (step == 1)
            jv_add(r, v, x);
        else
            jv_put(r, v, x, eval(r, n->list.v[i + 1]));
    }
    return v;
}

static struct jv *comparisons(struct jr *r, const struct jn *n)
{
    struct jv *a = eval(r, n->a);
    bool all = true;
    for (int i = 0; i < n->list.n && all && !r->rc; i++) {
        struct jv *b = eval(r, n->list.v[i]);
        all = !r->rc && jv_compare(r, n, n->texts[i], a, b);
        a = b;
    }
    return jv_bool(r, all);
}

static struct jv *negated(struct jr *r, const struct jn *n)
{
    struct jv *v = eval(r, n->a);
    if (*n->text == 'n')
        return jv_bool(r, !jv_truth(v));
    if (!jv_is_number(v) || v->i == INT64_MIN)
        return jr_fail(r, n, "'%s' of %s", n->text, jv_kind_name(v));
    const int sign = *n->text == '-' ? -1 : 1;
    return v->kind == JV_FLOAT ? jv_float(r, sign * v->f) : jv_int(r, sign * v->i);
}

static struct jv *slice(struct jr *r, const struct jn *n)
{
    struct jv *v = eval(r, n->a), *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = n->list.v[i] ? eval(r, n->list.v[i]) : NULL;
    return r->rc ? &jv_undefined : jv_slice(r, n, v, part);
}

/* A filter or a test. */
static struct jv *apply(struct jr *r, const struct jn *n, const struct jv_builtin *rows)
{
    struct jv *v = n->a ? eval(r, n->a) : find_variable(r, "(block)");
    const struct jv_args a = arguments(r, n);
    const struct jv_builtin *row = jv_find(rows, n->text);
    if (r->rc)
        return &jv_undefined;
    if (!row)
        return jr_fail(r, n, "the %s '%s' is not supported", rows == jv_tests ? "test" : "filter",
                       n->text);
    return jv_run(r, n, row, v ? v : &jv_undefined, &a);
}

/* Counts what calls itself, on the stack; false: it is too much. */
static bool enter(struct jr *r, const struct jn *n)
{
    r->at = n;
    if (r->depth >= MOST_DEPTH)
        jr_fail(r, n, "the template calls itself more than %d deep", MOST_DEPTH);
    return jr_work(r, OF_STEP);
}

static struct jv *value_of(struct jr *r, const struct jn *n);

static struct jv *eval(struct jr *r, const struct jn *n)
{
    if (!enter(r, n))
        return &jv_undefined;
    r->depth++;
    struct jv *v = value_of(r, n);
    r->depth--;
    return v;
}

/* Jinja makes -2 ** x of (-2) ** x where x is not known beforehand. */
static bool folds_wrongly(const struct jn *n)
{
    return strcmp(n->text, "**") == 0 && n->a->kind == JN_UNARY && *n->a->text == '-' &&
           n->a->a->kind == JN_CONST && n->b->kind != JN_CONST;
}

static struct jv *value_of(struct jr *r, const struct jn *n)
{
    struct jv *a, *b;
    switch (n->kind) {
    case JN_CONST:
        return n->value;
    case JN_NAME:
        return name(r, n);
    case JN_LIST:
    case JN_TUPLE:
    case JN_DICT:
        return container(r, n);
    case JN_UNARY:
        return negated(r, n);
    case JN_BINARY:
        if (folds_wrongly(n))
            return jr_fail(r, n, "a negative number to such a power is not supported");
        a = eval(r, n->a);
        b = eval(r, n->b);
        return r->rc ? &jv_undefined : jv_arithmetic(r, n, n->text, a, b);
    case JN_AND:
        a = eval(r, n->a);
        return jv_truth(a) ? eval(r, n->b) : a;
    case JN_OR:
        a = eval(r, n->a);
        return jv_truth(a) ? a : eval(r, n->b);
    case JN_COMPARE:
        return comparisons(r, n);
    case JN_IF_ELSE:
        if (jv_truth(eval(r, n->b)))
            return eval(r, n->a);
        return n->c ? eval(r, n->c) : &jv_undefined;
    case JN_ATTR:
        a = eval(r, n->a);
        return r->rc ? a : jv_attribute(r, n, a, n->text);
    case JN_ITEM:
        a = eval(r, n->a);
        b = eval(r, n->b);
        return r->rc ? a : jv_item(r, n, a, b);
    case JN_SLICE:
        return slice(r, n);
    case JN_CALL:
        return call(r, n);
    case JN_FILTER:
        return apply(r, n, jv_filters);
    case JN_TEST:
        return jv_bool(r, jv_truth(apply(r, n, jv_tests)) != n->flag);
    default:
        return jr_fail(r, n, "this is no expression");
    }
}

/* --- statements --- */

static void assign(struct jr *r, const struct jn *target, struct jv *v)
{
    if (r->rc)
        return;
    if (target->kind == JN_NAME) {
        set_variable(r, target->text, v);
    } else if (target->kind == JN_ATTR) {
        struct jv *of = eval(r, target->a);
        if (of->kind != JV_NAMESPACE) {
            jr_fail(r, target, "only a namespace's members can be set");
            return;
        }
        if (*target->text == '_')
            jr_fail(r, target, "a namespace's names cannot begin with '_'");
        jv_put(r, of, jv_text(r, target->text, strlen(target->text)), v);
    } else {
        struct jv *l = jv_members(r, target, v);
        if ((int)l->n != target->list.n) {
            jr_fail(r, target, "%d names for %zu values", target->list.n, l->n);
            return;
        }
        for (int i = 0; i < target->list.n; i++)
            assign(r, target->list.v[i], l->v[i]);
    }
}

/* The body for every member of `over`, in scopes of their own within `outer`. */
static void run_loop(struct jr *r, const struct jn *n, struct jv *over, struct scope *outer,
                     size_t depth)
{
    struct jv *all = jv_members(r, n, over), *kept = all;
    struct jv **changed = jr_take(r, 1, sizeof *changed);
    *changed = NULL;
    if (n->c) { /* the condition chooses before the loop counts */
        kept = jv_new(r, JV_LIST);
        for (size_t i = 0; i < all->n && !r->rc; i++) {
            r->scope = open_scope(r, outer);
            assign(r, n->a, all->v[i]);
            if (jv_truth(eval(r, n->c)))
                jv_add(r, kept, all->v[i]);
        }
    }
    struct jv *loop = jv_new(r, JV_LOOP);
    bool ended = false; /* any iteration, which is what 'else' asks for */
    loop->n = depth;
    loop->self = kept;
    loop->node = n;
    loop->scope = outer;
    loop->keys = changed;
    for (size_t i = 0; i < kept->n && !r->rc; i++) {
        loop->i = (long long)i;
        r->scope = open_scope(r, outer);
        set_variable(r, "loop", loop);
        assign(r, n->a, kept->v[i]);
        run_list(r, &n->list);
        const enum jr_flow flow = r->flow;
        r->flow = JR_GO_ON;
        ended = ended || flow == JR_GO_ON;
        if (flow == JR_BREAK)
            break;
    }
    if (!ended) {
        r->scope = open_scope(r, outer);
        run_list(r, &n->more);
    }
    r->scope = outer;
}

static void run_for(struct jr *r, const struct jn *n)
{
    struct jv *over = eval(r, n->b);
    if (!r->rc)
        run_loop(r, n, over, r->scope, 1);
}

static void run_if(struct jr *r, const struct jn *n)
{
    for (int i = 0; i < n->more.n && !r->rc; i++)
        if (i >= n->list.n || !n->list.v[i] || jv_truth(eval(r, n->list.v[i]))) {
            if (!r->rc)
                run_list(r, &n->more.v[i]->list);
            return;
        }
}

static void run_generation(struct jr *r, const struct jn *n)
{
    const size_t begin = r->out->n;
    struct scope *outer = r->scope;
    r->scope = open_scope(r, outer);
    run_list(r, &n->list);
    r->scope = outer;
    struct ft_rendered *m = r->marks;
    if (r->rc || !m)
        return;
    if (m->n_marks == r->room_marks) {
        const size_t room = r->room_marks ? 2 * r->room_marks : 8;
        if (ft_grow(&m->marks, room, sizeof *m->marks)) {
            r->rc = FT_ERESOURCE;
            return;
        }
        r->room_marks = room;
    }
    m->marks[m->n_marks++] = (struct ft_mark_range){begin, r->out->n};
}

/* A filter chain whose innermost filter takes the block's text. */
static void run_filter_block(struct jr *r, const struct jn *n)
{
    struct scope *outer = r->scope;
    struct jv *text = captured(r, &n->list);
    if (r->flow != JR_GO_ON) /* the loop goes on, and the text is gone */
        return;
    r->scope = open_scope(r, outer);
    set_variable(r, "(block)", text);
    jv_write(r, r->out, n, eval(r, n->a), false);
    r->scope = outer;
}

static void run_call_block(struct jr *r, const struct jn *n)
{
    struct jn *inner = jr_take(r, 1, sizeof *inner);
    struct jv *caller = jv_new(r, JV_MACRO), *f;
    *inner = (struct jn){.kind = JN_MACRO, .text = "caller", .list = n->list};
    caller->node = inner;
    caller->scope = r->scope;
    if (n->a->kind != JN_CALL) {
        jr_fail(r, n, "a call block needs a call");
        return;
    }
    f = eval(r, n->a->a);
    const struct jv_args a = arguments(r, n->a);
    if (!r->rc && f->kind != JV_MACRO)
        jr_fail(r, n, "a call block calls macros only");
    else if (!r->rc && !f->node->flag)
        jr_fail(r, n, "'%s' does not use 'caller'", f->node->text);
    if (!r->rc)
        jv_write(r, r->out, n, call_macro(r, n, f, &a, caller), false);
}

/* Names of its own for the body; their values do not see one another. */
static void run_with(struct jr *r, const struct jn *n)
{
    struct scope *outer = r->scope, *inner = open_scope(r, outer);
    for (int i = 0; i < n->more.n && !r->rc; i++) {
        struct jv *v = eval(r, n->more.v[i]);
        r->scope = inner;
        set_variable(r, n->texts[i], v);
        r->scope = outer;
    }
    r->scope = inner;
    run_list(r, &n->list);
    r->scope = outer;
}

static void run_set(struct jr *r, const struct jn *n)
{
    struct jv *v = n->b ? eval(r, n->b) : captured(r, &n->list);
    if (r->flow != JR_GO_ON)
        return;
    if (n->c && !r->rc) {
        struct scope *outer = r->scope;
        r->scope = open_scope(r, outer);
        set_variable(r, "(block)", v);
        v = eval(r, n->c);
        r->scope = outer;
    }
    if (!r->rc)
        assign(r, n->a, v);
}

static void run_one(struct jr *r, const struct jn *n)
{
    struct jv *v;
    switch (n->kind) {
    case JN_TEXT:
        jr_put(r, r->out, n->text, n->length);
        break;
    case JN_PRINT:
        v = eval(r, n->a);
        if (!r->rc)
            jv_write(r, r->out, n, v, false);
        break;
    case JN_IF:
        run_if(r, n);
        break;
    case JN_FOR:
        run_for(r, n);
        break;
    case JN_SET:
        run_set(r, n);
        break;
    case JN_MACRO:
        v = jv_new(r, JV_MACRO);
        v->node = n;
        v->scope = r->scope;
        set_variable(r, n->text, v);
        break;
    case JN_GENERATION:
        run_generation(r, n);
        break;
    case JN_FILTERBLOCK:
        run_filter_block(r, n);
        break;
    case JN_WITH:
        run_with(r, n);
        break;
    case JN_CALLBLOCK:
        run_call_block(r, n);
        break;
    default:
        r->flow = n->kind == JN_BREAK ? JR_BREAK : JR_CONTINUE;
    }
}

static void run_list(struct jr *r, const struct jn_list *l)
{
    for (int i = 0; i < l->n && !r->rc && r->flow == JR_GO_ON; i++) {
        if (!enter(r, l->v[i]))
            break;
        r->depth++;
        run_one(r, l->v[i]);
        r->depth--;
    }
}

int ft_template_render(const struct ft_template *t, const json_t *context, long long now,
                       struct ft_rendered *out)
{
    struct ft_bytes text = {0};
    const char *key;
    json_t *value;
    *out = (struct ft_rendered){0};
    struct jr r = {.t = t, .out = &text, .marks = out, .now = now};
    r.scope = r.top = open_scope(&r, NULL);
    json_object_foreach((json_t *)context, key, value)
        set_variable(&r, key, jv_from_json(&r, value));
    run_list(&r, &t->body);
    if (!r.rc && ft_bytes_add(&text, "", 1))
        r.rc = FT_ERESOURCE;
    ft_arena_fini(&r.arena);
    if (r.rc) {
        ft_bytes_free(&text);
        ft_rendered_free(out);
        return r.rc;
    }
    out->text = text.p;
    out->length = text.n - 1;
    return FT_OK;
}

void ft_rendered_free(struct ft_rendered *r)
{
    ft_free(r->text);
    ft_free(r->marks);
    *r = (struct ft_rendered){0};
}
