/* What the parts of the templates' interpreter share: the run, making and looking at values, the
 * tables of filters, tests, methods and functions. Values live as long as the run. An error is kept
 * in the run (rc), and everything goes on, doing nothing, with values that may be looked at. */
#ifndef FT_JINJA_RUN_H
#define FT_JINJA_RUN_H

#include "jinja/jinja.h"

enum jr_flow { JR_GO_ON, JR_BREAK, JR_CONTINUE };

struct jr {
    const struct ft_template *t;
    const struct jn *at; /* what is being run */
    struct ft_arena arena;
    struct scope *scope, *top;
    struct ft_bytes *out;
    struct ft_rendered *marks; /* NULL inside captured blocks */
    size_t room_marks;
    long long now;
    int rc, calls, depth;
    size_t work;  /* bytes and values looked at */
    size_t taken; /* of memory */
    enum jr_flow flow;
};

/* --- jinja_value.c --- */

extern struct jv jv_undefined;

void *jr_take(struct jr *r, size_t n, size_t size);
/* Counts what is looked at, in bytes or as much; false: it was too much, or the run has failed. */
bool jr_work(struct jr *r, size_t n);
/* FT_EDATA at n's place in the template; returns &jv_undefined. */
struct jv *jr_fail(struct jr *r, const struct jn *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct jv *jv_new(struct jr *r, enum jv_kind kind);
struct jv *jv_int(struct jr *r, long long i);
struct jv *jv_bool(struct jr *r, bool b);
struct jv *jv_float(struct jr *r, double f);
struct jv *jv_text(struct jr *r, const char *s, size_t n);
struct jv *jv_taken(struct jr *r, struct ft_bytes *b); /* b's text; b is freed */
struct jv *jv_from_json(struct jr *r, const json_t *j);
void jv_add(struct jr *r, struct jv *list, struct jv *value);
void jv_put(struct jr *r, struct jv *dict, struct jv *key, struct jv *value);
struct jv *jv_pair(struct jr *r, struct jv *a, struct jv *b);
struct jv *jv_view(struct jr *r, const char *which);
/* A list becomes what is gone through once. */
struct jv *jv_iterator(struct jv *list);

const char *jv_kind_name(const struct jv *v);
bool jv_is_number(const struct jv *v);
bool jv_is_list(const struct jv *v); /* or a tuple */
bool jv_is_range(const struct jv *v);
bool jv_has_members(const struct jv *v);
bool jv_is(const struct jv *v, const char *text);
/* A text as a name: "" if there are zero bytes in it. */
const char *jv_name(const struct jv *text);
/* False and an error: it is a list, or holds one. */
bool jv_check_key(struct jr *r, const struct jv *key);
/* False and an error: '|safe' made it, and Jinja would escape what is put to it. */
bool jv_check_safe(struct jr *r, const struct jn *at, const struct jv *v);
double jv_real(const struct jv *v);
bool jv_truth(const struct jv *v);
bool jv_equal(struct jr *r, const struct jv *a, const struct jv *b);
struct jv *jv_member(struct jr *r, const struct jv *dict, const struct jv *key); /* or NULL */
size_t jv_characters(struct jr *r, const struct jv *text);
/* The members of anything that can be looped over; an iterator is then at its end. */
struct jv *jv_members(struct jr *r, const struct jn *at, struct jv *v);
struct jv *jv_attribute(struct jr *r, const struct jn *at, struct jv *v, const char *name);
struct jv *jv_item(struct jr *r, const struct jn *at, struct jv *v, struct jv *key);
/* part: begin, end, step; NULL or None: not given */
struct jv *jv_slice(struct jr *r, const struct jn *at, struct jv *v, struct jv *const part[3]);

/* --- jinja_operator.c --- */

struct jv *jv_arithmetic(struct jr *r, const struct jn *at, const char *op, struct jv *a,
                         struct jv *b);
/* op: "==", "<", "not in", ... */
bool jv_compare(struct jr *r, const struct jn *at, const char *op, struct jv *a, struct jv *b);
int jv_order(struct jr *r, const struct jn *at, const struct jv *a, const struct jv *b);
struct jv *jv_percent(struct jr *r, const struct jn *at, const struct jv *format,
                      struct jv *values);

/* --- jinja_write.c --- */

/* A text's i: what '|safe' gave. */
enum { JV_SAFE = 1 };
void jr_put(struct jr *r, struct ft_bytes *b, const char *s, size_t n);
/* Python's str(), or repr() inside of containers. */
void jv_write(struct jr *r, struct ft_bytes *b, const struct jn *at, const struct jv *v,
              bool inside);
struct jv *jv_text_of(struct jr *r, const struct jn *at, struct jv *v);

/* --- filters, tests, methods, functions --- */

enum { JV_PARAMETERS = 5, JV_ARGUMENTS = 16, JV_UNSAFE = -1 };

/* The arguments of a call, as they stand there. */
struct jv_args {
    struct jv *v[JV_ARGUMENTS];
    int n;
    const char *const *names;
    struct jv *named[JV_ARGUMENTS];
    int n_named;
};
struct jv_call {
    struct jr *r;
    const struct jn *at;
    const struct jv_builtin *of;
    struct jv *self;               /* what is filtered or tested, whose method it is */
    struct jv *arg[JV_PARAMETERS]; /* by the row's parameters; NULL: not given */
    const struct jv_args *all;
};
/* One row. parameters: names, one space between; "old new count=": the last may be left out;
 * "/ " first: not by name; "*": all as they come. run NULL: not supported; which JV_UNSAFE: never.
 */
struct jv_builtin {
    const char *name;
    struct jv *(*run)(const struct jv_call *c);
    const char *parameters;
    int which; /* what run tells its rows apart by */
};
/* The row of that name; NULL if there is none. Rows end with a NULL name. */
const struct jv_builtin *jv_find(const struct jv_builtin *rows, const char *name);
struct jv *jv_run(struct jr *r, const struct jn *at, const struct jv_builtin *row, struct jv *self,
                  const struct jv_args *args);

struct jv *jv_to_json(const struct jv_call *c); /* jinja_json.c */

extern const struct jv_builtin jv_text_methods[], jv_dict_methods[], jv_list_methods[],
    jv_tuple_methods[], jv_loop_methods[], jv_functions[], jv_filters[], jv_tests[];

/* --- jinja_text.c: what filters share with the methods of texts --- */

enum jv_letters { JV_UPPER, JV_LOWER, JV_CAPITALIZE, JV_TITLE, JV_SWAPCASE };
struct jv *jv_letters(struct jr *r, const struct jv *text, enum jv_letters how);
bool jv_all_upper(struct jr *r, const struct jv *text, bool lower); /* or all lower */
/* set NULL: white space */
struct jv *jv_strip(struct jr *r, const struct jv *text, const struct jv *set, bool left,
                    bool right);
struct jv *jv_lines(struct jr *r, const struct jv *text, bool keep_ends);
struct jv *jv_replace(struct jr *r, const struct jv *text, const struct jv *from,
                      const struct jv *to, long long most);
struct jv *jv_pad(struct jr *r, const struct jn *at, const struct jv *text, long long width,
                  char side, const struct jv *fill); /* side: l, r, c */

#endif
