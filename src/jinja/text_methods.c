/* The methods of texts, as Python has them. */
#define _GNU_SOURCE
#include "jinja/run.h"

#include <oniguruma.h>
#include <utf8proc.h>

/* --- characters --- */

static bool in_set(struct jr *r, const struct jv *set, const char *p, size_t n)
{
    int32_t c;
    ft_code_point(p, &c);
    if (!set)
        return ft_is_blank(c);
    if (!jr_work(r, 8 * set->n))
        return false;
    for (size_t i = 0; i < set->n; i += (size_t)ft_char_length(set->s[i]))
        if ((size_t)ft_char_length(set->s[i]) == n && memcmp(set->s + i, p, n) == 0)
            return true;
    return false;
}

/* The byte at which the character before `end` begins. */
static size_t before(const struct jv *v, size_t end)
{
    end--;
    while (end > 0 && ((unsigned char)v->s[end] & 0xc0) == 0x80)
        end--;
    return end;
}

/* Unicode's Uppercase and Lowercase: letters, and what looks like one. */
static bool is_upper(int32_t c)
{
    return ONIGENC_IS_CODE_UPPER(ONIG_ENCODING_UTF8, (OnigCodePoint)c);
}

static bool is_lower(int32_t c)
{
    return ONIGENC_IS_CODE_LOWER(ONIG_ENCODING_UTF8, (OnigCodePoint)c);
}

static bool is_cased(int32_t c)
{
    return is_upper(c) || is_lower(c) || utf8proc_category(c) == UTF8PROC_CATEGORY_LT;
}

/* --- upper and lower --- */

static void put_letter(struct jr *r, struct ft_bytes *b, int32_t c)
{
    char text[4];
    jr_put(r, b, text, (size_t)ft_put_code_point(text, c));
}

/* The letters that a character becomes where cases do not count; 0: itself. */
static int folded(int32_t c, int32_t out[4])
{
    int last = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, out, 4, UTF8PROC_CASEFOLD, &last);
    return n > 0 && n <= 4 && !(n == 1 && out[0] == c) ? (int)n : 0;
}

/* The capital of a small letter; several where Unicode has no single one (as of the German sharp
 * s). first: of a word. */
static void put_capital(struct jr *r, struct ft_bytes *b, int32_t c, bool first)
{
    int32_t parts[4];
    const bool small = utf8proc_category(c) == UTF8PROC_CATEGORY_LL ||
                       (!first && utf8proc_category(c) == UTF8PROC_CATEGORY_LT);
    const int32_t title = utf8proc_totitle(c);
    const int n = small ? folded(c, parts) : 0;
    if (n < 2) {
        put_letter(r, b, first ? title : utf8proc_toupper(c));
    } else if (first && title != c && utf8proc_category(title) == UTF8PROC_CATEGORY_LT) {
        put_letter(r, b, title);
    } else {
        bool done = false; /* of a word the first letter alone */
        for (int i = 0; i < n; i++) {
            const int32_t capital = utf8proc_toupper(parts[i]);
            put_letter(r, b, done ? parts[i] : capital);
            done = first && (done || capital != parts[i]);
        }
    }
}

/* Greek's sigma at the end of a word: a letter before it, none behind. */
static bool ends_word(const struct jv *v, size_t at, size_t n)
{
    int32_t c;
    bool letter = false;
    for (size_t i = at; i > 0 && !letter;) {
        i = before(v, i);
        ft_code_point(v->s + i, &c);
        const utf8proc_category_t k = utf8proc_category(c);
        if (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_CF || c == '\'' || c == '.')
            continue;
        if (!is_cased(c))
            break;
        letter = true;
    }
    for (size_t i = at + n; i < v->n && letter;) {
        i += (size_t)ft_code_point(v->s + i, &c);
        const utf8proc_category_t k = utf8proc_category(c);
        if (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_CF || c == '\'' || c == '.')
            continue;
        return !is_cased(c);
    }
    return letter;
}

static void put_small(struct jr *r, struct ft_bytes *b, const struct jv *v, size_t at, int32_t c)
{
    if (c == 0x130) { /* I with a dot */
        put_letter(r, b, 'i');
        put_letter(r, b, 0x307);
    } else if (c == 0x3a3) {
        put_letter(r, b, ends_word(v, at, 2) ? 0x3c2 : 0x3c3);
    } else {
        put_letter(r, b, utf8proc_tolower(c));
    }
}

struct jv *jv_letters(struct jr *r, const struct jv *v, enum jv_letters how)
{
    struct ft_bytes b = {0};
    bool inside = false;
    jr_work(r, 24 * v->n);
    for (size_t i = 0; i < v->n && !r->rc;) {
        int32_t c;
        const size_t n = (size_t)ft_code_point(v->s + i, &c);
        const bool first = (how == JV_TITLE && !inside) || (how == JV_CAPITALIZE && i == 0);
        const bool up = how == JV_UPPER || first || (how == JV_SWAPCASE && is_lower(c));
        if (how == JV_SWAPCASE && !up && !is_upper(c))
            put_letter(r, &b, c);
        else if (up)
            put_capital(r, &b, c, first);
        else
            put_small(r, &b, v, i, c);
        inside = is_cased(c);
        i += n;
    }
    return jv_taken(r, &b);
}

bool jv_all_upper(struct jr *r, const struct jv *v, bool lower)
{
    bool any = false;
    jr_work(r, 40 * v->n);
    for (size_t i = 0; i < v->n;) {
        int32_t c;
        i += (size_t)ft_code_point(v->s + i, &c);
        if (utf8proc_category(c) == UTF8PROC_CATEGORY_LT || (lower ? is_upper(c) : is_lower(c)))
            return false;
        any = any || (lower ? is_lower(c) : is_upper(c));
    }
    return any;
}

static struct jv *letters(const struct jv_call *c)
{
    return jv_letters(c->r, c->self, (enum jv_letters)c->of->which);
}

/* --- is...() --- */

enum { ALPHA, DIGIT, DECIMAL, ALNUM, SPACE, ASCII };

static bool is_of(int32_t c, int which)
{
    const utf8proc_category_t k = utf8proc_category(c);
    const bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
    switch (which) {
    case ALPHA:
        return letter;
    case ALNUM:
        return letter || ft_is_numeric(c);
    case SPACE:
        return ft_is_blank(c);
    case ASCII:
        return c < 0x80;
    case DIGIT: /* and digits above and below the line */
        if (c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
            (c >= 0x2080 && c <= 0x2089))
            return true; /* fall through */
    default:
        return k == UTF8PROC_CATEGORY_ND;
    }
}

static struct jv *all_are(const struct jv_call *c)
{
    bool all = c->self->n > 0 || c->of->which == ASCII;
    jr_work(c->r, 32 * c->self->n);
    for (size_t i = 0; i < c->self->n && all;) {
        int32_t letter;
        i += (size_t)ft_code_point(c->self->s + i, &letter);
        all = is_of(letter, c->of->which);
    }
    return jv_bool(c->r, all);
}

static struct jv *all_upper(const struct jv_call *c)
{
    return jv_bool(c->r, jv_all_upper(c->r, c->self, c->of->which));
}

/* --- arguments --- */

/* The argument must be a text. */
static const struct jv *text_argument(const struct jv_call *c, int i)
{
    if (c->arg[i] && c->arg[i]->kind != JV_STRING)
        jr_fail(c->r, c->at, "'%s' needs a text, not %s", c->of->name, jv_kind_name(c->arg[i]));
    return c->r->rc ? &jv_undefined : c->arg[i];
}

static long long number_argument(const struct jv_call *c, int i, long long otherwise)
{
    if (c->arg[i] && c->arg[i]->kind != JV_INT && c->arg[i]->kind != JV_BOOL)
        jr_fail(c->r, c->at, "'%s' needs a whole number, not %s", c->of->name,
                jv_kind_name(c->arg[i]));
    return c->arg[i] ? c->arg[i]->i : otherwise;
}

/* The part of the text between the arguments 1 and 2, in characters; *first: where it begins.
 * False: it begins behind its end. */
static bool part(const struct jv_call *c, struct jv *out, long long *first)
{
    if (!c->arg[1] && !c->arg[2]) {
        *first = 0;
        *out = *c->self;
        return true;
    }
    const long long n = (long long)jv_characters(c->r, c->self);
    long long bound[2] = {0, n};
    for (int i = 0; i < 2; i++) {
        if (!c->arg[1 + i] || c->arg[1 + i]->kind == JV_NONE)
            continue;
        bound[i] = number_argument(c, 1 + i, 0);
        bound[i] += bound[i] < 0 ? n : 0;
        bound[i] = bound[i] < 0 ? 0 : i == 1 && bound[i] > n ? n : bound[i];
    }
    *first = bound[0];
    if (bound[0] > n || bound[0] > bound[1])
        return false;
    size_t begin = 0, end;
    long long k = 0;
    for (; k < bound[0]; k++)
        begin += (size_t)ft_char_length(c->self->s[begin]);
    for (end = begin; k < bound[1]; k++)
        end += (size_t)ft_char_length(c->self->s[end]);
    *out = (struct jv){.kind = JV_STRING, .s = c->self->s + begin, .n = end - begin};
    return true;
}

/* --- looking for texts --- */

/* The last place of x in v. */
static const char *last_hit(struct jr *r, const char *s, size_t n, const struct jv *x)
{
    for (size_t i = n; i >= x->n && jr_work(r, 1 + (x->n && s[i - x->n] == *x->s ? x->n : 0));
         i--) {
        if (memcmp(s + i - x->n, x->s, x->n) == 0)
            return s + i - x->n;
        if (i == 0)
            break;
    }
    return NULL;
}

static struct jv *find(const struct jv_call *c)
{
    const struct jv *x = text_argument(c, 0);
    const bool last = c->of->name[0] == 'r', must = c->of->which;
    struct jv v;
    long long first;
    const char *hit = NULL;
    if (part(c, &v, &first) && !c->r->rc)
        hit = last          ? last_hit(c->r, v.s, v.n, x)
              : x->n == 0   ? v.s
              : v.n >= x->n ? memmem(v.s, v.n, x->s, x->n)
                            : NULL;
    if (!hit)
        return must ? jr_fail(c->r, c->at, "the text looked for is not there") : jv_int(c->r, -1);
    const struct jv in_front = {.kind = JV_STRING, .s = v.s, .n = (size_t)(hit - v.s)};
    return jv_int(c->r, first + (long long)jv_characters(c->r, &in_front));
}

static struct jv *count(const struct jv_call *c)
{
    const struct jv *x = text_argument(c, 0);
    struct jv v;
    long long first, n = 0;
    if (!part(c, &v, &first) || c->r->rc)
        return jv_int(c->r, 0);
    if (x->n == 0)
        return jv_int(c->r, (long long)jv_characters(c->r, &v) + 1);
    for (size_t i = 0; i + x->n <= v.n && jr_work(c->r, 8); n++) {
        const char *hit = memmem(v.s + i, v.n - i, x->s, x->n);
        if (!hit)
            break;
        i = (size_t)(hit - v.s) + x->n;
    }
    return jv_int(c->r, n);
}

static bool begins(const struct jv_call *c, const struct jv *v, const struct jv *with, bool end)
{
    if (with->kind == JV_TUPLE) {
        for (size_t i = 0; i < with->n; i++)
            if (begins(c, v, with->v[i], end))
                return true;
        return false;
    }
    if (with->kind != JV_STRING)
        jr_fail(c->r, c->at, "'%s' needs a text or a tuple of texts, not %s", c->of->name,
                jv_kind_name(with));
    return with->kind == JV_STRING && with->n <= v->n && jr_work(c->r, with->n) &&
           memcmp(v->s + (end ? v->n - with->n : 0), with->s, with->n) == 0;
}

static struct jv *starts_or_ends(const struct jv_call *c)
{
    struct jv v;
    long long first;
    return jv_bool(c->r, part(c, &v, &first) && begins(c, &v, c->arg[0], c->of->which));
}

static struct jv *remove_affix(const struct jv_call *c)
{
    const struct jv *v = c->self, *x = text_argument(c, 0);
    const bool end = c->of->which, hit = !c->r->rc && begins(c, v, x, end);
    return jv_text(c->r, v->s + (hit && !end ? x->n : 0), v->n - (hit ? x->n : 0));
}

/* --- strip, split, join, replace --- */

struct jv *jv_strip(struct jr *r, const struct jv *v, const struct jv *set, bool left, bool right)
{
    size_t begin = 0, end = v->n;
    if (!set) {
        const char *p = v->s;
        ft_strip(&p, &end, left, right);
        jr_work(r, 8 * (v->n - end));
        return jv_text(r, p, end);
    }
    while (left && begin < end && in_set(r, set, v->s + begin, (size_t)ft_char_length(v->s[begin])))
        begin += (size_t)ft_char_length(v->s[begin]);
    while (right && end > begin) {
        const size_t at = before(v, end);
        if (!in_set(r, set, v->s + at, end - at))
            break;
        end = at;
    }
    return jv_text(r, v->s + begin, end - begin);
}

static struct jv *strip(const struct jv_call *c)
{
    const bool none = !c->arg[0] || c->arg[0]->kind == JV_NONE;
    const struct jv *set = none ? NULL : text_argument(c, 0);
    return jv_strip(c->r, c->self, set, c->of->which != 'r', c->of->which != 'l');
}

static void add_part(struct jr *r, struct jv *l, const struct jv *v, size_t begin, size_t end)
{
    jv_add(r, l, jv_text(r, v->s + begin, end - begin));
}

/* Words; after `most` cuts the rest is one, with its spaces. most < 0: all. */
static struct jv *words(struct jr *r, const struct jv *v, long long most)
{
    struct jv *l = jv_new(r, JV_LIST);
    for (size_t i = 0; i < v->n && !r->rc;) {
        size_t begin = i;
        const size_t n = (size_t)ft_char_length(v->s[i]);
        if (in_set(r, NULL, v->s + i, n)) {
            i += n;
            continue;
        }
        while (i < v->n && !in_set(r, NULL, v->s + i, (size_t)ft_char_length(v->s[i])))
            i += (size_t)ft_char_length(v->s[i]);
        if (most == 0)
            i = v->n;
        add_part(r, l, v, begin, i);
        most -= most > 0;
    }
    return l;
}

static void reverse(struct jv *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        struct jv *t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

/* The same from the end. */
static struct jv *last_words(struct jr *r, const struct jv *v, long long most)
{
    struct jv *l = jv_new(r, JV_LIST);
    for (size_t i = v->n; i > 0 && !r->rc;) {
        const size_t end = i;
        i = before(v, end);
        if (in_set(r, NULL, v->s + i, end - i))
            continue;
        while (i > 0 && !in_set(r, NULL, v->s + before(v, i), i - before(v, i)))
            i = before(v, i);
        if (most == 0)
            i = 0;
        add_part(r, l, v, i, end);
        most -= most > 0;
    }
    reverse(l);
    return l;
}

/* The parts between separators. */
static struct jv *parts(struct jr *r, const struct jv *v, const struct jv *sep, long long most)
{
    struct jv *l = jv_new(r, JV_LIST);
    size_t begin = 0;
    for (; most != 0 && !r->rc; most -= most > 0) {
        const char *hit = memmem(v->s + begin, v->n - begin, sep->s, sep->n);
        if (!hit)
            break;
        add_part(r, l, v, begin, (size_t)(hit - v->s));
        begin = (size_t)(hit - v->s) + sep->n;
    }
    add_part(r, l, v, begin, v->n);
    return l;
}

static struct jv *last_parts(struct jr *r, const struct jv *v, const struct jv *sep, long long most)
{
    struct jv *l = jv_new(r, JV_LIST);
    size_t end = v->n;
    for (; most != 0 && !r->rc; most -= most > 0) {
        const char *hit = last_hit(r, v->s, end, sep);
        if (!hit)
            break;
        add_part(r, l, v, (size_t)(hit - v->s) + sep->n, end);
        end = (size_t)(hit - v->s);
    }
    add_part(r, l, v, 0, end);
    reverse(l);
    return l;
}

static struct jv *split(const struct jv_call *c)
{
    const long long most = number_argument(c, 1, -1);
    const bool back = c->of->which;
    if (!c->arg[0] || c->arg[0]->kind == JV_NONE)
        return back ? last_words(c->r, c->self, most) : words(c->r, c->self, most);
    const struct jv *sep = text_argument(c, 0);
    if (!c->r->rc && sep->n == 0)
        jr_fail(c->r, c->at, "'%s' by an empty text", c->of->name);
    if (c->r->rc)
        return &jv_undefined;
    return back ? last_parts(c->r, c->self, sep, most) : parts(c->r, c->self, sep, most);
}

static struct jv *partition(const struct jv_call *c)
{
    const struct jv *v = c->self, *sep = text_argument(c, 0);
    const bool back = c->of->which;
    if (!c->r->rc && sep->n == 0)
        jr_fail(c->r, c->at, "'%s' by an empty text", c->of->name);
    if (c->r->rc)
        return &jv_undefined;
    const char *hit = back ? last_hit(c->r, v->s, v->n, sep) : memmem(v->s, v->n, sep->s, sep->n);
    struct jv *t = jv_new(c->r, JV_TUPLE);
    const size_t none = back ? 0 : v->n;
    const size_t begin = hit ? (size_t)(hit - v->s) : none, end = hit ? begin + sep->n : none;
    add_part(c->r, t, v, 0, begin);
    add_part(c->r, t, v, begin, end);
    add_part(c->r, t, v, end, v->n);
    return t;
}

/* The bytes of a line's end at p; 0: none is there. */
static size_t line_end(const char *p, size_t n)
{
    int32_t c;
    const size_t length = (size_t)ft_code_point(p, &c);
    if (c == '\r' && n > 1 && p[1] == '\n')
        return 2;
    return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
                   c == 0x2029
               ? length
               : 0;
}

struct jv *jv_lines(struct jr *r, const struct jv *v, bool keep_ends)
{
    struct jv *l = jv_new(r, JV_LIST);
    size_t begin = 0;
    for (size_t i = 0; i < v->n && !r->rc;) {
        const size_t end = line_end(v->s + i, v->n - i);
        if (end) {
            add_part(r, l, v, begin, keep_ends ? i + end : i);
            begin = i + end;
        }
        i += end ? end : (size_t)ft_char_length(v->s[i]);
    }
    if (begin < v->n)
        add_part(r, l, v, begin, v->n);
    return l;
}

static struct jv *split_lines(const struct jv_call *c)
{
    return jv_lines(c->r, c->self, c->arg[0] && jv_truth(c->arg[0]));
}

static struct jv *join(const struct jv_call *c)
{
    const struct jv *list = jv_members(c->r, c->at, c->arg[0]);
    struct ft_bytes b = {0};
    for (size_t i = 0; i < list->n && !c->r->rc; i++) {
        if (i)
            jr_put(c->r, &b, c->self->s, c->self->n);
        if (list->v[i]->kind != JV_STRING)
            jr_fail(c->r, c->at, "only texts can be joined, not %s", jv_kind_name(list->v[i]));
        jr_put(c->r, &b, list->v[i]->s, list->v[i]->n);
    }
    return jv_taken(c->r, &b);
}

struct jv *jv_replace(struct jr *r, const struct jv *v, const struct jv *from, const struct jv *to,
                      long long most)
{
    struct ft_bytes b = {0};
    size_t begin = 0;
    while (from->n == 0 && begin < v->n && most != 0 && !r->rc) { /* before every character */
        const size_t n = (size_t)ft_char_length(v->s[begin]);
        jr_put(r, &b, to->s, to->n);
        jr_put(r, &b, v->s + begin, n);
        begin += n;
        most -= most > 0;
    }
    for (; from->n && most != 0 && !r->rc; most -= most > 0) {
        const char *hit = memmem(v->s + begin, v->n - begin, from->s, from->n);
        if (!hit)
            break;
        jr_put(r, &b, v->s + begin, (size_t)(hit - v->s) - begin);
        jr_put(r, &b, to->s, to->n);
        begin = (size_t)(hit - v->s) + from->n;
    }
    jr_put(r, &b, v->s + begin, v->n - begin);
    if (from->n == 0 && most != 0)
        jr_put(r, &b, to->s, to->n);
    return jv_taken(r, &b);
}

static struct jv *replace(const struct jv_call *c)
{
    const struct jv *from = text_argument(c, 0), *to = text_argument(c, 1);
    const long long most = number_argument(c, 2, -1);
    return c->r->rc ? &jv_undefined : jv_replace(c->r, c->self, from, to, most);
}

/* --- to a width --- */

struct jv *jv_pad(struct jr *r, const struct jn *at, const struct jv *v, long long width, char side,
                  const struct jv *fill)
{
    const long long n = (long long)jv_characters(r, v), room = width > n ? width - n : 0;
    const long long left = side == 'r' ? room : side == 'l' ? 0 : room / 2 + (room & width & 1);
    struct ft_bytes b = {0};
    if (fill && jv_characters(r, fill) != 1)
        jr_fail(r, at, "what fills must be one character");
    for (long long i = 0; i <= room && !r->rc; i++)
        if (i == left)
            jr_put(r, &b, v->s, v->n);
        else
            jr_put(r, &b, fill ? fill->s : " ", fill ? fill->n : 1);
    return jv_taken(r, &b);
}

static struct jv *pad(const struct jv_call *c)
{
    const long long width = number_argument(c, 0, 0);
    const struct jv *fill = text_argument(c, 1);
    return c->r->rc ? &jv_undefined : jv_pad(c->r, c->at, c->self, width, (char)c->of->which, fill);
}

static struct jv *zero_fill(const struct jv_call *c)
{
    const struct jv zero = {.kind = JV_STRING, .s = "0", .n = 1};
    const bool sign = c->self->n && strchr("+-", *c->self->s);
    const struct jv digits = {.kind = JV_STRING, .s = c->self->s + sign, .n = c->self->n - sign};
    const long long width = number_argument(c, 0, 0);
    struct jv *out = jv_pad(c->r, c->at, &digits, width > 0 ? width - sign : 0, 'r', &zero);
    struct ft_bytes b = {0};
    jr_put(c->r, &b, c->self->s, sign);
    jr_put(c->r, &b, out->s, out->n);
    return jv_taken(c->r, &b);
}

/* --- "{} and {name}".format(...) --- */

/* The value of the field [p, end); *next: of those without number. */
static struct jv *field(const struct jv_call *c, const char *p, const char *end, int *next)
{
    const size_t n = (size_t)(end - p);
    if (n == 0) /* not beside numbered ones */
        return *next >= 0 && *next < c->all->n ? c->all->v[(*next)++] : NULL;
    if (n == 1 && *p >= '0' && *p <= '9') {
        const bool mixed = *next > 0;
        *next = -1;
        return !mixed && *p - '0' < c->all->n ? c->all->v[*p - '0'] : NULL;
    }
    for (int i = 0; i < c->all->n_named; i++)
        if (strlen(c->all->names[i]) == n && memcmp(c->all->names[i], p, n) == 0)
            return c->all->named[i];
    return NULL;
}

static struct jv *format(const struct jv_call *c)
{
    struct ft_bytes b = {0};
    int next = 0;
    const char *p = c->self->s, *const end = p + c->self->n;
    while (p < end && !c->r->rc) {
        const char *close = *p == '{' ? memchr(p, '}', (size_t)(end - p)) : NULL;
        if ((*p == '{' || *p == '}') && p + 1 < end && p[1] == *p) {
            jr_put(c->r, &b, p, 1);
            p += 2;
        } else if (*p != '{' && *p != '}') {
            jr_put(c->r, &b, p++, 1);
        } else {
            struct jv *v = close ? field(c, p + 1, close, &next) : NULL;
            if (!v)
                jr_fail(c->r, c->at, "the field '%.*s' is not supported, or has no value",
                        close ? (int)(close - p) + 1 : 1, p);
            else
                jv_write(c->r, &b, c->at, v, false);
            p = close ? close + 1 : end;
        }
    }
    return jv_taken(c->r, &b);
}

const struct jv_builtin jv_text_methods[] = {
    {"capitalize", letters, "", JV_CAPITALIZE},
    {"center", pad, "/ width fill=", 'c'},
    {"count", count, "/ sub start= end=", 0},
    {"endswith", starts_or_ends, "/ suffix start= end=", 1},
    {"find", find, "/ sub start= end=", 0},
    {"format", format, "*", 0},
    {"index", find, "/ sub start= end=", 1},
    {"isalnum", all_are, "", ALNUM},
    {"isalpha", all_are, "", ALPHA},
    {"isascii", all_are, "", ASCII},
    {"isdecimal", all_are, "", DECIMAL},
    {"isdigit", all_are, "", DIGIT},
    {"islower", all_upper, "", 1},
    {"isspace", all_are, "", SPACE},
    {"isupper", all_upper, "", 0},
    {"join", join, "/ iterable", 0},
    {"ljust", pad, "/ width fill=", 'l'},
    {"lower", letters, "", JV_LOWER},
    {"lstrip", strip, "/ chars=", 'l'},
    {"partition", partition, "/ sep", 0},
    {"removeprefix", remove_affix, "/ prefix", 0},
    {"removesuffix", remove_affix, "/ suffix", 1},
    {"replace", replace, "old new count=", 0},
    {"rfind", find, "/ sub start= end=", 0},
    {"rindex", find, "/ sub start= end=", 1},
    {"rjust", pad, "/ width fill=", 'r'},
    {"rpartition", partition, "/ sep", 1},
    {"rsplit", split, "sep= maxsplit=", 1},
    {"rstrip", strip, "/ chars=", 'r'},
    {"split", split, "sep= maxsplit=", 0},
    {"splitlines", split_lines, "keepends=", 0},
    {"startswith", starts_or_ends, "/ prefix start= end=", 0},
    {"strip", strip, "/ chars=", 0},
    {"swapcase", letters, "", JV_SWAPCASE},
    {"title", letters, "", JV_TITLE},
    {"upper", letters, "", JV_UPPER},
    {"zfill", zero_fill, "/ width", 0},
    {"casefold", NULL, "*", 0},
    {"encode", NULL, "*", 0},
    {"expandtabs", NULL, "*", 0},
    {"format_map", NULL, "*", 0},
    {"isidentifier", NULL, "*", 0},
    {"isnumeric", NULL, "*", 0},
    {"isprintable", NULL, "*", 0},
    {"istitle", NULL, "*", 0},
    {"maketrans", NULL, "*", 0},
    {"translate", NULL, "*", 0},
    {NULL, NULL, NULL, 0}};
