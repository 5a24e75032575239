/* Owns the set of documents that were taken, by the first half of the SHA-256 of their tokens. */
#include "data/data.h"

#include "core/mem.h"
#include "core/sha256.h"

#include <stdlib.h>
#include <string.h>

/* The place of a hash, or the empty one (zeros) where it would be. */
static uint64_t *place_of(const struct ft_seen *s, const uint64_t hash[2])
{
    size_t i = (size_t)hash[0] & (s->room - 1);
    while ((s->slots[i][0] || s->slots[i][1]) && memcmp(s->slots[i], hash, sizeof s->slots[i]) != 0)
        i = (i + 1) & (s->room - 1);
    return s->slots[i];
}

static int make_room(struct ft_seen *s)
{
    const struct ft_seen old = *s;
    if (2 * s->n < s->room)
        return FT_OK;
    s->room = s->room ? 2 * s->room : 1024;
    s->slots = NULL;
    if (ft_alloc(&s->slots, s->room, sizeof *s->slots)) {
        *s = old;
        return FT_ERESOURCE;
    }
    for (size_t i = 0; i < old.room; i++)
        memcpy(place_of(s, old.slots[i]), old.slots[i], sizeof *s->slots);
    ft_free(old.slots);
    return FT_OK;
}

int ft_seen_add(struct ft_seen *s, const int32_t *ids, const uint8_t *mask, size_t n, bool *known)
{
    struct ft_sha256 sha;
    char hex[65], half[17] = "";
    uint64_t hash[2];
    FT_TRY(make_room(s));
    ft_sha256_init(&sha);
    ft_sha256_add(&sha, ids, n * sizeof *ids);
    ft_sha256_add(&sha, mask, n);
    ft_sha256_hex(&sha, hex);
    for (int i = 0; i < 2; i++)
        hash[i] = strtoull(memcpy(half, hex + 16 * i, 16), NULL, 16);
    uint64_t *place = place_of(s, hash);
    *known = memcmp(place, hash, sizeof hash) == 0;
    s->n += !*known;
    memcpy(place, hash, sizeof hash);
    return FT_OK;
}

void ft_seen_fini(struct ft_seen *s)
{
    ft_free(s->slots);
    *s = (struct ft_seen){0};
}
