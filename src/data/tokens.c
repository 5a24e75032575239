/* Records that are tokenized already: input_ids with loss_mask or labels, TRL's completion_mask and
 * assistant_masks, attention_mask, position_ids. */
#include "core/json.h"
#include "data/internal.h"

/* The lists of a tokenized record beside input_ids; NULL: not there. */
struct token_lists {
    const json_t *ids, *mask, *labels, *attention, *positions;
    const json_t *narrow[2]; /* of what is trained, only what these have, too */
};
static const char *const narrowing[] = {"completion_mask", "assistant_masks"};

static int get_list(const json_t *record, const char *key, size_t n, const json_t **out)
{
    *out = ft_json_get(record, key);
    if (!*out || (json_is_array(*out) && json_array_size(*out) == n))
        return FT_OK;
    return ft_fail(FT_EDATA, "'%s' is not a list as long as 'input_ids'", key);
}

static int get_lists(const json_t *record, struct token_lists *l)
{
    l->ids = json_object_get(record, "input_ids");
    const size_t n = json_array_size(l->ids);
    if (!json_is_array(l->ids))
        return ft_fail(FT_EDATA, "has no list 'input_ids'");
    FT_TRY(get_list(record, "loss_mask", n, &l->mask));
    FT_TRY(get_list(record, "labels", n, &l->labels));
    FT_TRY(get_list(record, "attention_mask", n, &l->attention));
    for (int k = 0; k < 2; k++)
        FT_TRY(get_list(record, narrowing[k], n, &l->narrow[k]));
    return get_list(record, "position_ids", n, &l->positions);
}

/* 0, 1, false or true. */
static int get_bit(const json_t *list, const char *key, size_t i, bool *out)
{
    const json_t *v = json_array_get(list, i);
    const json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    if (!json_is_boolean(v) && n != 0 && n != 1)
        return ft_fail(FT_EDATA, "%s[%zu] is neither 0 nor 1", key, i);
    *out = json_is_true(v) || n == 1;
    return FT_OK;
}

/* Whether the labels are those of the next token: shifted before they were saved. */
static bool is_shifted(const struct token_lists *l)
{
    const size_t n = json_array_size(l->labels);
    size_t same = 0, trained = 0;
    for (size_t i = 0; i < n; i++) {
        const json_int_t label = json_integer_value(json_array_get(l->labels, i));
        trained += label != -100;
        same += label != -100 && i + 1 < n &&
                label == json_integer_value(json_array_get(l->ids, i + 1));
    }
    return trained > 1 && same + 1 >= trained;
}

/* A label is its token's id, or -100. */
static int get_label(const struct token_lists *l, size_t i, bool *out)
{
    const json_t *label = json_array_get(l->labels, i), *id = json_array_get(l->ids, i);
    *out = json_integer_value(label) != -100;
    if (!json_is_integer(label))
        return ft_fail(FT_EDATA, "labels[%zu] is not a number", i);
    if (!*out || json_integer_value(label) == json_integer_value(id))
        return FT_OK;
    ft_fail(
        FT_EDATA,
        "labels[%zu] is %lld and input_ids[%zu] is %lld: a label is its own token's id, or -100", i,
        (long long)json_integer_value(label), i, (long long)json_integer_value(id));
    if (is_shifted(l))
        ft_hint("these labels are shifted by one already: models shift them themselves, so save "
                "them unshifted, or give a 'loss_mask' of 0 and 1 instead");
    else
        ft_hint("ft trains each token as it stands; to say which ones, -100 or a 'loss_mask' of 0 "
                "and 1");
    return FT_EDATA;
}

/* How many tokens there are without the padding at the end. */
static int without_padding(const struct token_lists *l, size_t *n)
{
    bool seen = true, is = false;
    *n = json_array_size(l->ids);
    for (size_t i = 0; l->attention && i < json_array_size(l->ids); i++) {
        FT_TRY(get_bit(l->attention, "attention_mask", i, &is));
        if (is && !seen) {
            ft_fail(FT_EDATA,
                    "attention_mask[%zu] is 1 behind a 0: only padding at the end can be "
                    "left out",
                    i);
            ft_hint("save the tokens without padding: ft never pads");
            return FT_EDATA;
        }
        *n = is ? i + 1 : seen ? i : *n;
        seen = is;
    }
    return FT_OK;
}

static int check_position(const struct token_lists *l, size_t i)
{
    const json_t *at = json_array_get(l->positions, i);
    if (!l->positions || (json_is_integer(at) && json_integer_value(at) == (json_int_t)i))
        return FT_OK;
    ft_fail(FT_EDATA,
            "position_ids[%zu] is not %zu: ft gives each document the positions 0, 1, 2, "
            "...",
            i, i);
    ft_hint("one record is one document; documents that were packed must be taken apart");
    return FT_EDATA;
}

static int add_token(const struct token_lists *l, size_t i, bool padding, int32_t vocab,
                     struct ft_sample *s)
{
    const json_t *id = json_array_get(l->ids, i);
    const json_int_t value = json_integer_value(id);
    bool masked = true, labelled = true;
    if (!json_is_integer(id) || value < 0 || value >= vocab)
        return ft_fail(FT_EDATA, "input_ids[%zu] is no id of the tokenizer (0..%d)", i, vocab - 1);
    if (l->mask)
        FT_TRY(get_bit(l->mask, "loss_mask", i, &masked));
    if (l->labels)
        FT_TRY(get_label(l, i, &labelled));
    if (l->mask && l->labels && masked != labelled)
        return ft_fail(FT_EDATA, "loss_mask[%zu] is %d, and labels[%zu] says otherwise", i, masked,
                       i);
    bool trained = masked && labelled, kept = true;
    for (int k = 0; k < 2; k++) {
        if (l->narrow[k])
            FT_TRY(get_bit(l->narrow[k], narrowing[k], i, &kept));
        trained = trained && kept;
    }
    if (padding && trained && (l->mask || l->labels))
        return ft_fail(FT_EDATA, "token %zu is trained on, and attention_mask calls it padding", i);
    if (padding)
        return FT_OK;
    FT_TRY(check_position(l, i));
    FT_TRY(ft_ids_add(&s->ids, (int32_t)value));
    return ft_sample_label(s, trained, trained ? FT_OF_ASSISTANT : FT_OF_USER);
}

int ft_tokens_sample(struct ft_sample *s, const json_t *record, int32_t vocab)
{
    struct token_lists l = {.ids = NULL};
    size_t n = 0;
    ft_sample_clear(s);
    FT_TRY(get_lists(record, &l));
    FT_TRY(without_padding(&l, &n));
    for (size_t i = 0; i < json_array_size(l.ids); i++)
        FT_TRY(add_token(&l, i, i >= n, vocab, s));
    return FT_OK;
}
