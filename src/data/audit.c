/* The label audit: counts and problems. */
#include "data/audit.h"

#include "core/json.h"

#include <stdio.h>
#include <string.h>

const struct ft_problem_row ft_problems[FT_PROBLEMS] = {
    [FT_BAD_RECORD] = {"bad_records", "records cannot be used and are skipped", NULL, false},
    [FT_NO_TEXT] = {"no_text", "documents have no text", NULL, false},
    [FT_NOT_TRAINED] = {"not_trained", "documents have nothing to train on", NULL, false},
    [FT_UNENDED_TURN] =
        {"unended_turns",
         "documents have a trained turn whose end is not trained: the model would not learn to "
         "stop",
         "the template should end each trained turn with a token ('eot_tokens' names it), within "
         "its {% generation %} marks if it has these",
         true},
    [FT_DOUBLE_BOS] = {"double_bos", "documents begin with the beginning-of-text token twice",
                       "the text brings the token that the tokenizer adds: take it out of the data",
                       true},
    [FT_EMPTY_TURN] =
        {"empty_turns",
         "documents have a trained turn without a trained word: only what ends it is left, so the "
         "model would learn to say nothing",
         "an answer is empty, or the template leaves out what it says (see 'unrendered')", true},
    [FT_UNRENDERED] = {"unrendered", "documents have parts that the template leaves out", NULL,
                       false},
    [FT_PROMPT_BORDER] = {"prompt_border",
                          "documents have a token that is partly prompt and partly answer, or "
                          "another than the whole text would have there",
                          NULL, false},
};

static void find(struct ft_found *f, const char *file, int line, const char *name)
{
    if (f->count++ == 0)
        snprintf(f->first, sizeof f->first, name[0] ? "%.440s:%d, '%s'" : "%.440s:%d", file, line,
                 name);
}

void ft_audit_find(struct ft_audit *a, enum ft_problem p, const char *file, int line)
{
    find(&a->found[p], file, line, "");
}

void ft_audit_add_turns(struct ft_audit *a, const struct ft_sample *s, const char *file, int line)
{
    bool any = false;
    for (int i = 0; i < FT_ENDS && s->ends[i].count; i++)
        ft_ends_add(a->ends, s->ends[i].id, s->ends[i].count);
    for (int who = 0; who < FT_SPEAKERS; who++)
        for (int part = 0; part < FT_PARTS; part++)
            if (s->unrendered[who] & 1u << part) {
                const char *name = who == FT_OF_TEMPLATE   ? ""
                                   : part == FT_PART_OTHER ? s->other_member
                                   : who == FT_OF_OTHERS   ? s->other_role
                                                           : "";
                find(&a->unrendered[who][part], file, line, name);
                any = true;
            }
    if (any)
        ft_audit_find(a, FT_UNRENDERED, file, line);
}

const char *ft_unrendered_name(char out[64], int speaker, int part)
{
    if (part == FT_PART_TOOLS)
        snprintf(out, 64, "%s", ft_part_names[part]);
    else if (speaker == FT_OF_TEMPLATE)
        snprintf(
            out, 64,
            "documents of the record"); /* the only other member of a record that is looked at */
    else
        snprintf(out, 64, "%s of '%s' messages", ft_part_names[part], ft_speaker_names[speaker]);
    return out;
}

/* Trained are tokens that have a loss: the first of a document has none, since nothing is before
 * it.
 */
void ft_audit_add(struct ft_audit *a, const struct ft_sample *s, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        const int trained = i > from && s->mask[i];
        a->tokens_of[s->speaker[i]]++;
        a->trained_of[s->speaker[i]] += trained;
        a->trained += trained;
    }
    a->documents++;
    a->tokens += (int64_t)(to - from);
    a->longest = (int64_t)(to - from) > a->longest ? (int64_t)(to - from) : a->longest;
}

/* --- as JSON --- */

/* The counts by name. */
#define COUNTS(X) X(records) X(documents) X(tokens) X(trained) X(longest)

json_t *ft_audit_json(const struct ft_audit *a)
{
    json_t *o = json_object(), *speakers = json_object(), *problems = json_object();
    int bad = 0;
#define X(name) bad |= json_object_set_new(o, #name, json_integer(a->name));
    COUNTS(X)
#undef X
    for (int i = 0; i < FT_SPEAKERS; i++)
        bad |= json_object_set_new(
            speakers, ft_speaker_names[i],
            json_pack("[II]", (json_int_t)a->tokens_of[i], (json_int_t)a->trained_of[i]));
    for (int i = 0; i < FT_PROBLEMS; i++)
        bad |= json_object_set_new(
            problems, ft_problems[i].name,
            json_pack("[Is]", (json_int_t)a->found[i].count, a->found[i].first));
    json_t *lost = json_object(), *ends = json_array();
    for (int k = 0; k < FT_SPEAKERS * FT_PARTS; k++) {
        const struct ft_found *f = &a->unrendered[k / FT_PARTS][k % FT_PARTS];
        char name[64];
        snprintf(name, sizeof name, "%s.%s", ft_speaker_names[k / FT_PARTS],
                 ft_part_names[k % FT_PARTS]);
        if (f->count)
            bad |=
                json_object_set_new(lost, name, json_pack("[Is]", (json_int_t)f->count, f->first));
    }
    for (int i = 0; i < FT_ENDS && a->ends[i].count; i++)
        bad |= json_array_append_new(
            ends, json_pack("[iI]", (int)a->ends[i].id, (json_int_t)a->ends[i].count));
    bad |= json_object_set_new(o, "unrendered", lost);
    bad |= json_object_set_new(o, "ends", ends);
    bad |= json_object_set_new(o, "speakers", speakers);
    bad |= json_object_set_new(o, "problems", problems);
    if (bad) {
        json_decref(o);
        return NULL;
    }
    return o;
}

bool ft_audit_from_json(struct ft_audit *a, const json_t *o)
{
    const json_t *speakers = json_object_get(o, "speakers"), *problems;
    *a = (struct ft_audit){0};
    problems = json_object_get(o, "problems");
    if (!json_is_object(speakers) || !json_is_object(problems))
        return false;
#define X(name) a->name = json_integer_value(json_object_get(o, #name));
    COUNTS(X)
#undef X
    for (int i = 0; i < FT_SPEAKERS; i++) {
        const json_t *pair = json_object_get(speakers, ft_speaker_names[i]);
        a->tokens_of[i] = json_integer_value(json_array_get(pair, 0));
        a->trained_of[i] = json_integer_value(json_array_get(pair, 1));
    }
    for (int i = 0; i < FT_PROBLEMS; i++) {
        const json_t *pair = json_object_get(problems, ft_problems[i].name);
        const char *first = json_string_value(json_array_get(pair, 1));
        a->found[i].count = json_integer_value(json_array_get(pair, 0));
        snprintf(a->found[i].first, sizeof a->found[i].first, "%s", first ? first : "");
    }
    for (int k = 0; k < FT_SPEAKERS * FT_PARTS; k++) {
        struct ft_found *f = &a->unrendered[k / FT_PARTS][k % FT_PARTS];
        char name[64];
        snprintf(name, sizeof name, "%s.%s", ft_speaker_names[k / FT_PARTS],
                 ft_part_names[k % FT_PARTS]);
        const json_t *pair = json_object_get(json_object_get(o, "unrendered"), name);
        const char *first = json_string_value(json_array_get(pair, 1));
        f->count = json_integer_value(json_array_get(pair, 0));
        snprintf(f->first, sizeof f->first, "%s", first ? first : "");
    }
    for (int i = 0; i < FT_ENDS; i++) {
        const json_t *pair = json_array_get(json_object_get(o, "ends"), (size_t)i);
        a->ends[i].id = (int32_t)json_integer_value(json_array_get(pair, 0));
        a->ends[i].count = json_integer_value(json_array_get(pair, 1));
    }
    return true;
}

/* --- the verdict --- */

static bool is_among(const char *name, const char *const *list)
{
    for (; list && *list; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

int ft_audit_check(const struct ft_audit *a, const char *const *allowed)
{
    int rc = FT_OK;
    if (a->found[FT_NO_TEXT].count + a->found[FT_NOT_TRAINED].count == a->documents) {
        ft_fail(FT_EDATA,
                "nothing to train on: of %lld documents %lld are empty, %lld have no trained token",
                (long long)a->documents, (long long)a->found[FT_NO_TEXT].count,
                (long long)a->found[FT_NOT_TRAINED].count);
        if (!a->records)
            ft_hint("the data has no record: is it the right file, and the right split?");
        else if (a->documents)
            ft_hint("the first: %s; are the roles, or the fields, those of the data?",
                    a->found[a->found[FT_NOT_TRAINED].count ? FT_NOT_TRAINED : FT_NO_TEXT].first);
        return FT_EDATA;
    }
    for (int i = 0; i < FT_PROBLEMS; i++) {
        const struct ft_problem_row *p = &ft_problems[i];
        if (!p->spoils || !a->found[i].count || is_among(p->name, allowed))
            continue;
        rc = ft_fail_at((struct ft_where){.file = a->found[i].first}, FT_EDATA,
                        "%lld of %lld %s; this is the first", (long long)a->found[i].count,
                        (long long)a->documents, p->what);
        ft_hint("%s%sor, if it is meant: allow_data_problems: [%s]", p->hint ? p->hint : "",
                p->hint ? "; " : "", p->name);
    }
    return rc;
}
