/* Vocabularies, and the table of models. */
#include "text/internal.h"

#include <stdio.h>

/* FNV-1a, folded. */
static size_t hash(const char *p, size_t n)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * 1099511628211u;
    return (size_t)(h ^ h >> 29);
}

int ft_vocab_init(struct ft_vocab *v, size_t n)
{
    size_t room = 64;
    while (room < 2 * n)
        room *= 2;
    FT_TRY(ft_alloc(&v->slots, room, sizeof *v->slots));
    for (size_t i = 0; i < room; i++)
        v->slots[i].id = -1;
    v->mask = room - 1;
    return FT_OK;
}

void ft_vocab_fini(struct ft_vocab *v)
{
    ft_free(v->slots);
    *v = (struct ft_vocab){0};
}

static struct ft_vocab_slot *slot_of(const struct ft_vocab *v, const char *p, size_t n)
{
    size_t i = hash(p, n) & v->mask;
    for (; v->slots[i].id >= 0; i = (i + 1) & v->mask)
        if (v->slots[i].length == n && memcmp(v->slots[i].p, p, n) == 0)
            break;
    return &v->slots[i];
}

void ft_vocab_put(struct ft_vocab *v, const char *p, size_t n, int32_t id)
{
    *slot_of(v, p, n) = (struct ft_vocab_slot){p, (uint32_t)n, id};
}

int32_t ft_vocab_get(const struct ft_vocab *v, const char *p, size_t n)
{
    return v->slots ? slot_of(v, p, n)->id : -1;
}

/* The bytes that a byte-level token stands for; false if a character stands for none. */
static bool to_bytes(const char *token, size_t length, char *out, size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < length;) {
        int32_t c;
        i += (size_t)ft_code_point(token + i, &c);
        int byte = ft_char_byte(c);
        if (byte < 0)
            return false;
        out[(*n)++] = (char)byte;
    }
    return true;
}

int ft_text_model_token(struct ft_text_model *m, const char *token, size_t length, int64_t id,
                        const struct ft_place *at)
{
    if (id < 0 || id > 1 << 24)
        return ft_refuse(at, "gives '%s' the id %lld", token, (long long)id);
    if (id >= m->size) {
        const int32_t size = (int32_t)id + 1, room = size > 1024 ? size + size / 2 : 2048;
        if (!m->tokens || m->room < size) {
            FT_TRY(ft_grow(&m->tokens, (size_t)room, sizeof *m->tokens));
            memset(m->tokens + m->size, 0, (size_t)(room - m->size) * sizeof *m->tokens);
            m->room = room;
        }
        m->size = size;
    }
    char *kept = ft_arena_alloc(&m->arena, length + 1, 1), *bytes;
    size_t n;
    if (!kept)
        return FT_ERESOURCE;
    memcpy(kept, token, length);
    m->tokens[id] = kept;
    if (!m->bytes) {
        ft_vocab_put(&m->vocab, kept, length, (int32_t)id);
        return FT_OK;
    }
    bytes = ft_arena_alloc(&m->arena, length + 1, 1);
    if (!bytes)
        return FT_ERESOURCE;
    if (to_bytes(token, length, bytes, &n))
        ft_vocab_put(&m->vocab, bytes, n, (int32_t)id);
    return FT_OK;
}

bool ft_byte_tokens(const struct ft_text_model *m, int32_t ids[256])
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        ids[b] = ft_vocab_get(&m->vocab, name, 6);
    }
    for (int b = 0; b < 256; b++)
        if (ids[b] < 0)
            return false;
    return true;
}

int ft_text_model_open(struct ft_text_model *m, const json_t *spec, bool bytes,
                       const struct ft_place *at)
{
    static const struct ft_model_row *const rows[] = {&ft_bpe_row, &ft_unigram_row};
    const char *type = json_string_value(ft_json_get(spec, "type"));
    if (!type) /* as old files have it */
        type = ft_json_get(spec, "merges") ? "BPE" : "(none)";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(type, rows[i]->type) == 0)
            m->row = rows[i];
    if (!m->row)
        return ft_refuse(at, "is a '%s', which ft does not have", type);
    m->bytes = bytes;
    m->unknown = -1;
    m->prefix = m->suffix = "";
    return m->row->open(m, spec, at);
}

void ft_text_model_close(struct ft_text_model *m)
{
    if (m->row)
        m->row->close(m);
    ft_vocab_fini(&m->vocab);
    ft_free(m->tokens);
    ft_arena_fini(&m->arena);
}
