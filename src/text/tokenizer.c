/* The whole tokenizer: reads tokenizer.json, and walks text through its parts. */
#include "text/internal.h"

#include "core/file.h"

#include <stdio.h>
#include <stdlib.h>

int ft_ids_add(struct ft_ids *ids, int32_t id)
{
    if (ids->n == ids->room) {
        size_t room = ids->room ? 2 * ids->room : 256;
        FT_TRY(ft_grow(&ids->v, room, sizeof *ids->v));
        ids->room = room;
    }
    ids->v[ids->n++] = id;
    return FT_OK;
}

void ft_ids_free(struct ft_ids *ids)
{
    ft_free(ids->v);
    *ids = (struct ft_ids){0};
}

struct ft_tokenizer {
    struct ft_arena arena;
    struct ft_text_model model;
    struct ft_step *normalizer, *pretokenizer, *decoder;
    bool has_decoder;
    struct ft_added *added;
    int n_added;
    int32_t *added_of; /* by id: number among added, -1: none */
    int32_t size, own_size;
    struct ft_trie *raw, *normalized;
    struct ft_ids before, after; /* the post-processor's tokens */
    bool shares;                 /* all of the above, and the model but for its state */
    /* working memory */
    struct ft_bytes text, spare_text;
    struct ft_ranges outer, inner, pieces, spare;
    struct ft_ids outer_numbers, inner_numbers;
};

/* --- reading --- */

static int read_added(struct ft_tokenizer *t, const json_t *list, const struct ft_place *at)
{
    const size_t n = json_array_size(list);
    t->added = ft_arena_alloc(&t->arena, n + 1, sizeof *t->added);
    if (!t->added)
        return FT_ERESOURCE;
    for (size_t i = 0; i < n; i++) {
        const json_t *spec = json_array_get(list, i);
        struct ft_added *a = &t->added[t->n_added];
        const char *content = json_string_value(json_object_get(spec, "content"));
        long long id = -1;
        a->normalized = false;
        if (!content || !ft_json_int(spec, at->file, "id", &id) || id < 0 || id > 1 << 24)
            return ft_refuse(at, "has an entry %zu without 'content' or a sound 'id'", i);
        if (!ft_json_bool(spec, at->file, "single_word", &a->single_word) ||
            !ft_json_bool(spec, at->file, "lstrip", &a->lstrip) ||
            !ft_json_bool(spec, at->file, "rstrip", &a->rstrip) ||
            !ft_json_bool(spec, at->file, "normalized", &a->normalized) ||
            !ft_json_bool(spec, at->file, "special", &a->special))
            return FT_EDATA;
        a->id = (int32_t)id;
        a->content = ft_arena_format(&t->arena, "%s", content);
        if (!a->content)
            return FT_ERESOURCE;
        t->n_added++;
    }
    return FT_OK;
}

static struct ft_added *added_like(const struct ft_tokenizer *t, const char *content)
{
    for (int i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].content, content) == 0)
            return &t->added[i];
    return NULL;
}

static bool same_flags(const struct ft_added *a, const struct ft_added *b)
{
    return a->single_word == b->single_word && a->lstrip == b->lstrip && a->rstrip == b->rstrip &&
           a->normalized == b->normalized && a->special == b->special;
}

/* The id that tokenizers gives a token: that of its content, or the next one. */
static int32_t id_for(const struct ft_tokenizer *t, const char *content)
{
    const struct ft_added *known = added_like(t, content);
    int32_t next = t->model.size;
    if (known)
        return known->id;
    for (int32_t i = 0; i < t->model.size; i++)
        if (t->model.tokens[i] && strcmp(t->model.tokens[i], content) == 0)
            return i;
    for (int i = 0; i < t->n_added; i++)
        next = t->added[i].id >= next ? t->added[i].id + 1 : next;
    return next;
}

/* fixed: so many tokens are known by tokenizer.json or with an id, and names do not change them. Of
 * several names for one other token, the last one's flags count. */
static int add_one(struct ft_tokenizer *t, const struct ft_beside *one, int fixed,
                   const char *folder)
{
    struct ft_added *known = added_like(t, one->token.content);
    const int32_t id = id_for(t, one->token.content);
    if (one->listed && one->token.id != id) {
        ft_fail_at((struct ft_where){.file = folder}, FT_EDATA,
                   "the token '%s' has the id %d beside tokenizer.json, and %d by it",
                   one->token.content, one->token.id, id);
        ft_hint("tokenizer_config.json ('added_tokens_decoder') or added_tokens.json contradicts "
                "tokenizer.json: one of them is of another tokenizer");
        return FT_EDATA;
    }
    if (known && (one->listed ? same_flags(known, &one->token) : known - t->added < fixed))
        return FT_OK;
    if (!known) {
        known = &t->added[t->n_added++];
        known->content = ft_arena_format(&t->arena, "%s", one->token.content);
        if (!known->content)
            return FT_ERESOURCE;
    }
    const char *content = known->content;
    *known = one->token;
    known->content = content;
    known->id = id;
    return FT_OK;
}

static int add_beside(struct ft_tokenizer *t, const char *folder)
{
    struct ft_token_list l;
    struct ft_added *all;
    int rc = ft_tokens_beside(&l, folder);
    if (!rc) {
        all = ft_arena_alloc(&t->arena, (size_t)t->n_added + l.n + 1, sizeof *all);
        rc = all ? FT_OK : FT_ERESOURCE;
    }
    if (!rc) {
        memcpy(all, t->added, (size_t)t->n_added * sizeof *all);
        t->added = all;
    }
    int fixed = t->n_added;
    for (size_t i = 0; i < l.n && !rc; i++) {
        rc = add_one(t, &l.v[i], fixed, folder);
        fixed = l.v[i].listed ? t->n_added : fixed;
    }
    ft_token_list_free(&l);
    return rc;
}

static int add_more(struct ft_tokenizer *t, const struct ft_new_token *more, const char *folder)
{
    int n = 0;
    while (more && more[n].content)
        n++;
    struct ft_added *all = ft_arena_alloc(&t->arena, (size_t)(t->n_added + n + 1), sizeof *all);
    if (!all)
        return FT_ERESOURCE;
    memcpy(all, t->added, (size_t)t->n_added * sizeof *all);
    t->added = all;
    for (int i = 0; i < n; i++) {
        const struct ft_beside one = {
            .token = {.content = more[i].content, .id = -1, .special = more[i].special}};
        if (!more[i].if_missing || id_for(t, more[i].content) >= t->own_size)
            FT_TRY(add_one(t, &one, t->n_added, folder));
    }
    return FT_OK;
}

static void find_size(struct ft_tokenizer *t)
{
    for (int i = 0; i < t->n_added; i++)
        t->size = t->added[i].id >= t->size ? t->added[i].id + 1 : t->size;
}

/* What is looked up among the added tokens, once all are there. */
static int index_added(struct ft_tokenizer *t)
{
    find_size(t);
    t->added_of = ft_arena_alloc(&t->arena, (size_t)t->size + 1, sizeof *t->added_of);
    if (!t->added_of)
        return FT_ERESOURCE;
    for (int32_t i = 0; i < t->size; i++)
        t->added_of[i] = -1;
    for (int i = 0; i < t->n_added; i++)
        t->added_of[t->added[i].id] = i;
    FT_TRY(ft_added_trie(&t->raw, t->added, t->n_added, false, t->normalizer));
    return ft_added_trie(&t->normalized, t->added, t->n_added, true, t->normalizer);
}

/* --- post-processors: tokens before and after the text --- */

static int put_before(struct ft_tokenizer *t, const struct ft_ids *ids)
{
    struct ft_ids all = {0};
    int rc = FT_OK;
    for (size_t i = 0; i < ids->n && !rc; i++)
        rc = ft_ids_add(&all, ids->v[i]);
    for (size_t i = 0; i < t->before.n && !rc; i++)
        rc = ft_ids_add(&all, t->before.v[i]);
    ft_ids_free(&t->before);
    t->before = all;
    return rc;
}

static int open_template(struct ft_tokenizer *t, const json_t *spec, const struct ft_place *at)
{
    const json_t *single = ft_json_get(spec, "single");
    const json_t *specials = ft_json_get(spec, "special_tokens");
    struct ft_ids before = {0};
    bool behind = false;
    int rc = FT_OK;
    if (!json_is_array(single))
        return ft_refuse(at, "has no template 'single' that is a list");
    for (size_t i = 0; i < json_array_size(single) && !rc; i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *token = json_object_get(piece, "SpecialToken");
        if (!token) {
            const char *which =
                json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
            if (behind || !which || strcmp(which, "A") != 0)
                rc = ft_refuse(at, "has a template that ft does not understand");
            behind = true;
            continue;
        }
        const char *name = json_string_value(json_object_get(token, "id"));
        const json_t *ids = name ? json_object_get(json_object_get(specials, name), "ids") : NULL;
        if (!json_is_array(ids))
            rc = ft_refuse(at, "names the token '%s' without ids for it", name ? name : "");
        for (size_t k = 0; k < json_array_size(ids) && !rc; k++)
            rc = ft_ids_add(behind ? &t->after : &before,
                            (int32_t)json_integer_value(json_array_get(ids, k)));
    }
    if (!rc && !behind)
        rc = ft_refuse(at, "has a template without the text itself");
    if (!rc)
        rc = put_before(t, &before);
    ft_ids_free(&before);
    return rc;
}

/* {"cls": [token, id], "sep": [token, id]} around the text */
static int open_pair(struct ft_tokenizer *t, const json_t *spec, const struct ft_place *at)
{
    const json_t *cls = json_array_get(ft_json_get(spec, "cls"), 1);
    const json_t *sep = json_array_get(ft_json_get(spec, "sep"), 1);
    struct ft_ids before = {0};
    if (!json_is_integer(cls) || !json_is_integer(sep))
        return ft_refuse(at, "has no 'cls' and 'sep' with ids");
    int rc = ft_ids_add(&before, (int32_t)json_integer_value(cls));
    if (!rc)
        rc = put_before(t, &before);
    ft_ids_free(&before);
    return rc ? rc : ft_ids_add(&t->after, (int32_t)json_integer_value(sep));
}

static int open_post(struct ft_tokenizer *t, const json_t *spec, const struct ft_place *at)
{
    const char *type = json_string_value(ft_json_get(spec, "type"));
    if (!spec)
        return FT_OK;
    if (!type)
        return ft_refuse(at, "has no 'type'");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = ft_json_get(spec, "processors");
        for (size_t i = 0; i < json_array_size(list); i++) {
            char path[512];
            snprintf(path, sizeof path, "%.400s.processors.%zu", at->path, i);
            FT_TRY(open_post(t, json_array_get(list, i), &(struct ft_place){at->file, path}));
        }
        return FT_OK;
    }
    if (strcmp(type, "ByteLevel") == 0)
        return FT_OK; /* trims offsets only */
    if (strcmp(type, "TemplateProcessing") == 0)
        return open_template(t, spec, at);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return open_pair(t, spec, at);
    return ft_refuse(at, "is a '%s', which ft does not have", type);
}

static int read_parts(struct ft_tokenizer *t, const json_t *root, const char *file)
{
    FT_TRY(ft_normalizer_open(&t->normalizer, ft_json_get(root, "normalizer"),
                              &(struct ft_place){file, "normalizer"}));
    FT_TRY(ft_pretokenizer_open(&t->pretokenizer, ft_json_get(root, "pre_tokenizer"),
                                &(struct ft_place){file, "pre_tokenizer"}));
    const json_t *decoder = ft_json_get(root, "decoder");
    t->has_decoder = decoder != NULL;
    FT_TRY(ft_decoder_open(&t->decoder, decoder, &(struct ft_place){file, "decoder"}));
    const json_t *model = ft_json_get(root, "model");
    if (!json_is_object(model))
        return ft_refuse(&(struct ft_place){file, "model"}, "is missing");
    const char *prefix = json_string_value(ft_json_get(model, "continuing_subword_prefix"));
    const char *suffix = json_string_value(ft_json_get(model, "end_of_word_suffix"));
    bool bytes = json_is_object(ft_json_get(model, "vocab")) && !(prefix && *prefix) &&
                 !(suffix && *suffix) && ft_pretokenizer_is_bytes(t->pretokenizer);
    FT_TRY(ft_text_model_open(&t->model, model, bytes, &(struct ft_place){file, "model"}));
    t->size = t->model.size;
    FT_TRY(open_post(t, ft_json_get(root, "post_processor"),
                     &(struct ft_place){file, "post_processor"}));
    return read_added(t, ft_json_get(root, "added_tokens"),
                      &(struct ft_place){file, "added_tokens"});
}

/* folder: whose other files count too; NULL: none do. */
static int open_file(struct ft_tokenizer **out, const char *path, const char *folder,
                     const struct ft_new_token *more)
{
    const unsigned since = ft_alloc_failures();
    struct ft_tokenizer *t;
    json_t *root = NULL;
    *out = NULL;
    FT_TRY(ft_alloc(&t, 1, sizeof *t));
    int rc = ft_json_file(path, FT_EDATA, &root);
    if (!rc && !json_is_object(root))
        rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "is not a JSON object");
    if (!rc)
        rc = read_parts(t, root, path);
    json_decref(root);
    if (!rc && folder)
        rc = add_beside(t, folder);
    find_size(t);
    t->own_size = t->size;
    if (!rc && more)
        rc = add_more(t, more, folder);
    if (!rc)
        rc = index_added(t);
    if (!rc)
        rc = ft_alloc_check(since);
    if (rc) {
        ft_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return FT_OK;
}

int ft_tokenizer_open(struct ft_tokenizer **out, const char *path)
{
    return open_file(out, path, NULL, NULL);
}

int32_t ft_tokenizer_own_size(const struct ft_tokenizer *t)
{
    return t->own_size;
}

int ft_tokenizer_open_folder(struct ft_tokenizer **out, const char *folder,
                             const struct ft_new_token *more)
{
    char *path = ft_path_join(folder, "tokenizer.json");
    *out = NULL;
    int rc = path ? open_file(out, path, folder, more) : FT_ERESOURCE;
    ft_free(path);
    return rc;
}

int ft_tokenizer_share(struct ft_tokenizer **out, const struct ft_tokenizer *t)
{
    struct ft_tokenizer *own;
    *out = NULL;
    ft_is_word(' '); /* looks its tables up */
    FT_TRY(ft_alloc(&own, 1, sizeof *own));
    *own = (struct ft_tokenizer){.model = t->model,
                                 .normalizer = t->normalizer,
                                 .pretokenizer = t->pretokenizer,
                                 .decoder = t->decoder,
                                 .has_decoder = t->has_decoder,
                                 .added = t->added,
                                 .n_added = t->n_added,
                                 .added_of = t->added_of,
                                 .size = t->size,
                                 .raw = t->raw,
                                 .normalized = t->normalized,
                                 .before = t->before,
                                 .after = t->after,
                                 .shares = true};
    int rc = own->model.row->share(&own->model);
    if (rc && own->model.state == t->model.state)
        ft_free(own);
    else if (rc)
        ft_tokenizer_close(own);
    else
        *out = own;
    return rc;
}

static void close_parts(struct ft_tokenizer *t)
{
    ft_text_model_close(&t->model);
    ft_step_close(t->normalizer);
    ft_step_close(t->pretokenizer);
    ft_step_close(t->decoder);
    ft_trie_free(t->raw);
    ft_trie_free(t->normalized);
    ft_ids_free(&t->before);
    ft_ids_free(&t->after);
    ft_arena_fini(&t->arena);
}

void ft_tokenizer_close(struct ft_tokenizer *t)
{
    if (!t)
        return;
    if (t->shares)
        t->model.row->unshare(&t->model);
    else
        close_parts(t);
    ft_ids_free(&t->outer_numbers);
    ft_ids_free(&t->inner_numbers);
    ft_bytes_free(&t->text);
    ft_bytes_free(&t->spare_text);
    ft_free(t->outer.v);
    ft_free(t->inner.v);
    ft_free(t->pieces.v);
    ft_free(t->spare.v);
    ft_free(t);
}

/* --- encoding --- */

/* What one call works for. */
struct encoding {
    struct ft_ids *ids;
    struct ft_spans *spans; /* or NULL */
};

static int put_token(const struct encoding *e, int32_t id, size_t begin, size_t end)
{
    FT_TRY(ft_ids_add(e->ids, id));
    return e->spans ? ft_spans_add(e->spans, begin, end) : FT_OK;
}

/* t->text[begin, end): normalized, without added tokens. */
static int encode_stretch(struct ft_tokenizer *t, size_t begin, size_t end, bool first,
                          const struct encoding *e)
{
    struct ft_bytes own = {.track = e->spans != NULL};
    struct ft_pieces pieces = {.text = &own,
                               .spare_text = &t->spare_text,
                               .ranges = &t->pieces,
                               .spare = &t->spare,
                               .first = first};
    int rc = ft_bytes_add(&own, t->text.p + begin, end - begin);
    for (size_t i = 0; own.track && i < own.n; i++)
        own.from[i] = t->text.from[begin + i];
    if (own.track)
        own.end = ft_bytes_from(&t->text, end);
    if (!rc)
        rc = ft_pretokenize(t->pretokenizer, &pieces);
    for (size_t i = 0; i < t->pieces.n && !rc; i++) {
        const struct ft_range *r = &t->pieces.v[i];
        const size_t n = e->ids->n;
        if (r->end == r->begin)
            continue;
        rc = t->model.row->encode(&t->model, own.p + r->begin, r->end - r->begin, e->ids);
        if (!rc && e->spans)
            rc = ft_spans_of(&t->model, e->ids->v + n, e->ids->n - n, &own, r->begin, r->end,
                             e->spans);
    }
    ft_bytes_free(&own);
    return rc;
}

/* text[begin, end), without raw added tokens: normalized, then cut at the normalized ones. */
static int encode_raw(struct ft_tokenizer *t, const char *text, size_t begin, size_t end,
                      const struct encoding *e)
{
    size_t token = 0;
    t->text.n = 0;
    t->text.track = e->spans != NULL;
    t->text.end = end;
    t->inner.n = t->inner_numbers.n = 0;
    FT_TRY(ft_bytes_keep(&t->text, text + begin, end - begin, begin));
    FT_TRY(ft_normalize(t->normalizer, &t->text, &t->spare_text));
    FT_TRY(ft_added_split(t->normalized, t->added, t->text.p, t->text.n, &t->inner,
                          &t->inner_numbers));
    for (size_t i = 0; i < t->inner.n; i++) {
        const struct ft_range *r = &t->inner.v[i];
        if (!r->match) {
            FT_TRY(encode_stretch(t, r->begin, r->end, begin == 0 && r->begin == 0, e));
            continue;
        }
        const int32_t id = t->added[t->inner_numbers.v[token++]].id;
        FT_TRY(e->spans ? put_token(e, id, ft_bytes_from(&t->text, r->begin),
                                    ft_bytes_from(&t->text, r->end))
                        : put_token(e, id, 0, 0));
    }
    return FT_OK;
}

int ft_tokenizer_encode(struct ft_tokenizer *t, const char *text, size_t length, bool special,
                        struct ft_ids *out, struct ft_spans *spans)
{
    const struct encoding e = {out, spans};
    size_t token = 0;
    if (spans && length >= UINT32_MAX)
        return ft_fail(FT_EDATA, "a text of %zu bytes is too long", length);
    t->outer.n = t->outer_numbers.n = 0;
    for (size_t i = 0; special && i < t->before.n; i++)
        FT_TRY(put_token(&e, t->before.v[i], 0, 0));
    FT_TRY(ft_added_split(t->raw, t->added, text, length, &t->outer, &t->outer_numbers));
    for (size_t i = 0; i < t->outer.n; i++) {
        const struct ft_range *r = &t->outer.v[i];
        if (r->match)
            FT_TRY(put_token(&e, t->added[t->outer_numbers.v[token++]].id, r->begin, r->end));
        else
            FT_TRY(encode_raw(t, text, r->begin, r->end, &e));
    }
    for (size_t i = 0; special && i < t->after.n; i++)
        FT_TRY(put_token(&e, t->after.v[i], length, length));
    return FT_OK;
}

/* --- decoding --- */

const char *ft_tokenizer_token(const struct ft_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->size)
        return NULL;
    if (t->added_of[id] >= 0)
        return t->added[t->added_of[id]].content;
    return id < t->model.size ? t->model.tokens[id] : NULL;
}

int ft_tokenizer_decode(const struct ft_tokenizer *t, const int32_t *ids, size_t n,
                        bool skip_special, char **text, size_t *length)
{
    struct ft_strings s = {{0}, {0}};
    int rc = FT_OK;
    *text = NULL;
    for (size_t i = 0; i < n && !rc; i++) {
        const char *token = ft_tokenizer_token(t, ids[i]);
        if (!token ||
            (skip_special && t->added_of[ids[i]] >= 0 && t->added[t->added_of[ids[i]]].special))
            continue;
        if (!t->has_decoder && s.ranges.n)
            rc = ft_bytes_add(&s.text, " ", 1);
        const size_t begin = s.text.n;
        if (!rc)
            rc = ft_bytes_add(&s.text, token, strlen(token));
        if (!rc)
            rc = ft_ranges_add(&s.ranges, begin, s.text.n, false);
    }
    if (!rc)
        rc = ft_decode(t->decoder, &s);
    *length = s.text.n;
    if (!rc)
        rc = ft_bytes_add(&s.text, "", 1);
    ft_free(s.ranges.v);
    if (rc)
        ft_bytes_free(&s.text);
    *text = s.text.p;
    return rc;
}

int32_t ft_tokenizer_id(const struct ft_tokenizer *t, const char *token)
{
    for (int i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].content, token) == 0)
            return t->added[i].id;
    for (int32_t i = 0; i < t->model.size; i++)
        if (t->model.tokens[i] && strcmp(t->model.tokens[i], token) == 0)
            return i;
    return -1;
}

int32_t ft_tokenizer_size(const struct ft_tokenizer *t)
{
    return t->size;
}

bool ft_tokenizer_is_added(const struct ft_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && t->added_of[id] >= 0;
}

bool ft_tokenizer_is_special(const struct ft_tokenizer *t, int32_t id)
{
    return ft_tokenizer_is_added(t, id) && t->added[t->added_of[id]].special;
}
