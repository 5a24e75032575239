/* Decodes the pages of a Parquet column: compression, levels, encodings. */
#include "io/parquet_page.h"

#include "core/file.h"
#include "io/snappy.h"
#include "io/thrift.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { MOST_PAGE = 1 << 28, MOST_VALUES = 1 << 24, MOST_HEADER = 1 << 24 };

static int damaged(const struct ft_parquet_column *c, const char *what)
{
    return ft_fail_at((struct ft_where){.file = c->path}, FT_EDATA,
                      "is a damaged Parquet file: column '%s': %s", c->node->name, what);
}

/* By the format's number, with its name if there is one. */
static int unknown(const struct ft_parquet_column *c, const char *what, int number,
                   const char *name)
{
    ft_fail_at((struct ft_where){.file = c->path}, FT_EDATA,
               "column '%s' has a Parquet %s that ft does not read: %s (%d)", c->node->name, what,
               name ? name : "of a later format", number);
    ft_hint("read are the encodings PLAIN, dictionary, RLE, DELTA_* and BYTE_STREAM_SPLIT, "
            "uncompressed or by snappy, gzip or zstd");
    return FT_EDATA;
}

static int reserve(struct ft_parquet_bytes *b, size_t n)
{
    if (n > b->room) {
        ft_free(b->p);
        b->p = NULL;
        b->room = 0;
        FT_TRY(ft_alloc(&b->p, n, 1));
        b->room = n;
    }
    b->n = n;
    return FT_OK;
}

/* Bytes that are decoded from. */
struct span {
    const uint8_t *p, *end;
};

static uint64_t little_endian(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* --- compression --- */

static bool gunzip(uint8_t *out, size_t n, const uint8_t *in, size_t in_n)
{
    z_stream z = {.next_in = (uint8_t *)(uintptr_t)in,
                  .avail_in = (uInt)in_n,
                  .next_out = out,
                  .avail_out = (uInt)n};
    if (inflateInit2(&z, 15 + 32) != Z_OK)
        return false;
    const int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return rc == Z_STREAM_END && z.avail_out == 0;
}

static bool unzstd(uint8_t *out, size_t n, const uint8_t *in, size_t in_n)
{
    return ZSTD_decompress(out, n, in, in_n) == n;
}

static bool copy(uint8_t *out, size_t n, const uint8_t *in, size_t in_n)
{
    if (n == in_n && n)
        memcpy(out, in, n);
    return n == in_n;
}

/* By the format's numbers. */
static const struct {
    const char *name;
    bool (*decompress)(uint8_t *out, size_t n, const uint8_t *in,
                       size_t in_n); /* NULL: not there */
} codecs[] = {{"none", copy},   {"SNAPPY", ft_snappy_decompress},
              {"GZIP", gunzip}, {"LZO", NULL},
              {"BROTLI", NULL}, {"LZ4", NULL},
              {"ZSTD", unzstd}, {"LZ4_RAW", NULL}};
enum { CODECS = sizeof codecs / sizeof *codecs };

static int decompress(struct ft_parquet_column *c, uint8_t *out, size_t n, const uint8_t *in,
                      size_t in_n)
{
    const bool known = c->codec >= 0 && c->codec < CODECS;
    if (!known || !codecs[c->codec].decompress)
        return unknown(c, "compression", c->codec, known ? codecs[c->codec].name : NULL);
    return n == 0 || codecs[c->codec].decompress(out, n, in, in_n)
               ? FT_OK
               : damaged(c, "a compressed page");
}

/* --- runs and packed bits: levels, dictionary indices, booleans --- */

/* Numbers of `bits` bits from packed bytes, the lowest first. */
static uint32_t unpack(const uint8_t *p, int64_t i, int bits)
{
    const int64_t bit = i * bits;
    uint64_t v = 0;
    const int bytes = (int)((bit % 8 + bits + 7) / 8);
    for (int k = 0; k < bytes; k++)
        v |= (uint64_t)p[bit / 8 + k] << 8 * k;
    return (uint32_t)(v >> bit % 8 & ((UINT64_C(1) << bits) - 1));
}

typedef void put_fn(void *out, int64_t at, uint32_t v);

static void put_level(void *out, int64_t at, uint32_t v)
{
    ((uint8_t *)out)[at] = (uint8_t)v;
}

static void put_index(void *out, int64_t at, uint32_t v)
{
    ((struct ft_parquet_value *)out)[at].i = v;
}

/* n numbers, none above `most`; false: they are not there. */
static bool read_runs(struct span *s, int bits, int64_t n, uint32_t most, put_fn *put, void *out)
{
    for (int64_t at = 0; at < n;) {
        struct ft_thrift t = {s->p, s->end, false};
        const uint64_t head = ft_thrift_varint(&t);
        s->p = t.p;
        if (t.bad || head >> 1 == 0 || head >> 1 > INT32_MAX)
            return false;
        int64_t run = (int64_t)(head >> 1);
        if (head & 1) { /* groups of eight, packed */
            const int64_t bytes = run * bits;
            run *= 8;
            const int64_t used = run < n - at ? run : n - at;
            if ((used * bits + 7) / 8 > s->end - s->p)
                return false;
            for (int64_t i = 0; i < used; i++) {
                const uint32_t v = bits ? unpack(s->p, i, bits) : 0;
                if (v > most)
                    return false;
                put(out, at++, v);
            }
            s->p += bytes < s->end - s->p ? bytes : s->end - s->p;
        } else {
            const int bytes = (bits + 7) / 8;
            if (bytes > s->end - s->p)
                return false;
            const uint32_t v = (uint32_t)little_endian(s->p, bytes);
            s->p += bytes;
            if (v > most)
                return false;
            for (const int64_t end = run < n - at ? at + run : n; at < end;)
                put(out, at++, v);
        }
    }
    return true;
}

static int bits_of(int most)
{
    int bits = 0;
    for (; most >> bits; bits++)
        ;
    return bits;
}

/* --- encodings of values --- */

static int bytes_of(enum ft_parquet_type type, int size)
{
    static const int bytes[] = {[FT_PQ_INT32] = 4, [FT_PQ_INT64] = 8,  [FT_PQ_INT96] = 12,
                                [FT_PQ_FLOAT] = 4, [FT_PQ_DOUBLE] = 8, [FT_PQ_BYTES] = 0};
    return type == FT_PQ_FIXED ? size : bytes[type];
}

static struct ft_parquet_value number(enum ft_parquet_type type, const uint8_t *p)
{
    struct ft_parquet_value v = {.i = 0};
    const uint64_t bits = little_endian(p, type == FT_PQ_INT32 || type == FT_PQ_FLOAT ? 4 : 8);
    const uint32_t half = (uint32_t)bits;
    float f;
    memcpy(&f, &half, sizeof f);
    if (type == FT_PQ_FLOAT)
        v.d = (double)f;
    else if (type == FT_PQ_DOUBLE)
        memcpy(&v.d, &bits, sizeof v.d);
    else
        v.i = type == FT_PQ_INT32 ? (int64_t)(int32_t)half : (int64_t)bits;
    return v;
}

static bool plain_bytes(struct span *s, struct ft_parquet_value *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (s->end - s->p < 4)
            return false;
        const uint64_t length = little_endian(s->p, 4);
        s->p += 4;
        if (length > (uint64_t)(s->end - s->p))
            return false;
        out[i] = (struct ft_parquet_value){.p = s->p, .n = (uint32_t)length};
        s->p += length;
    }
    return true;
}

/* n values as they are. */
static bool plain(const struct ft_parquet_column *c, struct span *s, struct ft_parquet_value *out,
                  int64_t n)
{
    const enum ft_parquet_type type = c->node->type;
    if (type == FT_PQ_BYTES)
        return plain_bytes(s, out, n);
    if (type == FT_PQ_BOOLEAN) {
        if ((n + 7) / 8 > s->end - s->p)
            return false;
        for (int64_t i = 0; i < n; i++)
            out[i].i = s->p[i / 8] >> i % 8 & 1;
        return true;
    }
    const int size = bytes_of(type, c->node->size);
    if (n > (s->end - s->p) / size)
        return false;
    for (int64_t i = 0; i < n; i++, s->p += size) {
        if (type == FT_PQ_FIXED || type == FT_PQ_INT96)
            out[i] = (struct ft_parquet_value){.p = s->p, .n = (uint32_t)size};
        else
            out[i] = number(type, s->p);
    }
    return true;
}

/* All first bytes, then all second ones, ... */
static bool split_bytes(struct ft_parquet_column *c, struct span *s, int64_t n)
{
    const int size = bytes_of(c->node->type, c->node->size);
    if (!size || n > (s->end - s->p) / size)
        return false;
    if (reserve(&c->pieces, (size_t)n * (size_t)size + 1))
        return false;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < size; k++)
            c->pieces.p[i * size + k] = s->p[k * n + i];
    return plain(c, &(struct span){c->pieces.p, c->pieces.p + n * size}, c->values, n);
}

/* DELTA_BINARY_PACKED: the first number, then blocks of differences, packed above their least.
 * Exactly n of them. */
static bool delta_numbers(struct span *s, struct ft_parquet_value *out, int64_t n)
{
    struct ft_thrift t = {s->p, s->end, false};
    const uint64_t block = ft_thrift_varint(&t), minis = ft_thrift_varint(&t);
    const uint64_t total = ft_thrift_varint(&t);
    uint64_t last = (uint64_t)ft_thrift_int(&t);
    if (t.bad || !minis || minis > 512 || !block || block > 1 << 20 || block % minis ||
        block / minis % 8 || total != (uint64_t)n)
        return false;
    int64_t at = 0;
    if (n)
        out[at++].i = (int64_t)last;
    while (at < n) {
        const uint64_t least = (uint64_t)ft_thrift_int(&t);
        const uint8_t *widths = t.p;
        if (t.bad || minis > (uint64_t)(t.end - t.p))
            return false;
        t.p += minis;
        for (uint64_t m = 0; m < minis && at < n; m++) {
            const int bits = widths[m];
            const int64_t each = (int64_t)(block / minis), bytes = each / 8 * bits;
            if (bits > 64 || bytes > t.end - t.p)
                return false;
            for (int64_t i = 0; i < each && at < n; i++) {
                uint64_t v = 0;
                for (int b = 0; b < bits; b++) {
                    const int64_t bit = i * bits + b;
                    v |= (uint64_t)(t.p[bit / 8] >> bit % 8 & 1) << b;
                }
                last += least + v;
                out[at++].i = (int64_t)last;
            }
            t.p += bytes;
        }
    }
    s->p = t.p;
    return true;
}

/* DELTA_LENGTH_BYTE_ARRAY: all lengths, then all bytes. */
static bool delta_lengths(struct span *s, struct ft_parquet_value *out, int64_t n)
{
    if (!delta_numbers(s, out, n))
        return false;
    for (int64_t i = 0; i < n; i++) {
        const int64_t length = out[i].i;
        if (length < 0 || length > s->end - s->p)
            return false;
        out[i] = (struct ft_parquet_value){.p = s->p, .n = (uint32_t)length};
        s->p += length;
    }
    return true;
}

/* DELTA_BYTE_ARRAY: how much each has of the one before, and what follows. */
static int delta_texts(struct ft_parquet_column *c, struct span *s, int64_t n, bool *good)
{
    struct ft_parquet_value *rest = NULL;
    *good = delta_numbers(s, c->values, n);
    FT_TRY(ft_alloc(&rest, (size_t)n, sizeof *rest));
    *good = *good && delta_lengths(s, rest, n);
    size_t all = 1;
    int64_t before = 0;
    for (int64_t i = 0; i < n && *good; i++) {
        const int64_t prefix = c->values[i].i;
        *good = prefix >= 0 && prefix <= before;
        before = prefix + rest[i].n;
        all += (size_t)before;
        *good = *good && all <= MOST_PAGE;
    }
    int rc = *good ? reserve(&c->pieces, all) : FT_OK;
    uint8_t *to = c->pieces.p, *last = to;
    for (int64_t i = 0; i < n && *good && !rc; i++) {
        const size_t prefix = (size_t)c->values[i].i;
        uint8_t *begin = to;
        memmove(to, last, prefix);
        if (rest[i].n)
            memcpy(to + prefix, rest[i].p, rest[i].n);
        to += prefix + rest[i].n;
        last = begin;
        c->values[i] = (struct ft_parquet_value){.p = begin, .n = (uint32_t)(to - begin)};
    }
    ft_free(rest);
    return rc;
}

static bool from_dictionary(struct ft_parquet_column *c, struct span *s, int64_t n)
{
    if (n == 0)
        return true;
    if (s->p == s->end || *s->p > 32 || !c->n_dictionary)
        return false;
    const int bits = *s->p++;
    if (!read_runs(s, bits, n, (uint32_t)c->n_dictionary - 1, put_index, c->values))
        return false;
    for (int64_t i = 0; i < n; i++)
        c->values[i] = c->dictionary[c->values[i].i];
    return true;
}

static bool run_booleans(const struct ft_parquet_column *c, struct span *s, int64_t n)
{
    if (c->node->type != FT_PQ_BOOLEAN || s->end - s->p < 4)
        return false;
    s->p += 4; /* how many bytes follow */
    return read_runs(s, 1, n, 1, put_index, c->values);
}

/* n values, by the format's number for their encoding. */
static int read_values(struct ft_parquet_column *c, struct span s, int encoding, int64_t n)
{
    const enum ft_parquet_type type = c->node->type;
    const bool whole = type == FT_PQ_INT32 || type == FT_PQ_INT64;
    const bool bytes = type == FT_PQ_BYTES || type == FT_PQ_FIXED;
    bool good = false;
    switch (encoding) {
    case 0:
        good = plain(c, &s, c->values, n);
        break;
    case 2:
    case 8:
        good = from_dictionary(c, &s, n);
        break;
    case 3:
        good = run_booleans(c, &s, n);
        break;
    case 5:
        good = whole && delta_numbers(&s, c->values, n);
        for (int64_t i = 0; i < n && good && type == FT_PQ_INT32; i++)
            c->values[i].i = (int32_t)c->values[i].i;
        break;
    case 6:
        good = type == FT_PQ_BYTES && delta_lengths(&s, c->values, n);
        break;
    case 7:
        if (bytes)
            FT_TRY(delta_texts(c, &s, n, &good));
        break;
    case 9:
        good = split_bytes(c, &s, n);
        break;
    default:
        return unknown(c, "encoding", encoding, NULL);
    }
    return good ? FT_OK : damaged(c, "a page's values");
}

/* --- pages --- */

enum { DATA = 0, DICTIONARY = 2, DATA_V2 = 3 };

struct header {
    int64_t type, bytes, packed, crc; /* crc -1: none */
    int64_t values, encoding, def_encoding, rep_encoding;
    int64_t def_bytes, rep_bytes; /* of DATA_V2 */
    bool plain;                   /* DATA_V2, not compressed */
};

/* The struct of the page's own type. */
static void read_kind(struct ft_thrift *t, struct header *h, bool v2)
{
    struct ft_thrift_field f = {0};
    while (ft_thrift_next(t, &f)) {
        int64_t *number = f.id == 1              ? &h->values
                          : f.id == (v2 ? 4 : 2) ? &h->encoding
                          : v2 && f.id == 5      ? &h->def_bytes
                          : v2 && f.id == 6      ? &h->rep_bytes
                          : !v2 && f.id == 3     ? &h->def_encoding
                          : !v2 && f.id == 4     ? &h->rep_encoding
                                                 : NULL;
        if (number && f.type == FT_THRIFT_I32)
            *number = ft_thrift_int(t);
        else if (v2 && f.id == 7 && f.type <= FT_THRIFT_FALSE)
            h->plain = !ft_thrift_bool(&f);
        else
            ft_thrift_skip(t, f.type);
    }
}

static bool parse_header(struct ft_thrift *t, struct header *h)
{
    struct ft_thrift_field f = {0};
    *h = (struct header){.type = -1, .crc = -1, .def_encoding = 3, .rep_encoding = 3};
    while (ft_thrift_next(t, &f)) {
        int64_t *number = f.id == 1   ? &h->type
                          : f.id == 2 ? &h->bytes
                          : f.id == 3 ? &h->packed
                                      : NULL;
        if (number && f.type == FT_THRIFT_I32)
            *number = ft_thrift_int(t);
        else if (f.id == 4 && f.type == FT_THRIFT_I32)
            h->crc = (uint32_t)ft_thrift_int(t);
        else if ((f.id == 5 || f.id == 7 || f.id == 8) && f.type == FT_THRIFT_STRUCT)
            read_kind(t, h, f.id == 8);
        else
            ft_thrift_skip(t, f.type);
    }
    return !t->bad;
}

/* How long it is stands nowhere: statistics in it may have texts. */
static int read_header(struct ft_parquet_column *c, struct header *h)
{
    const int64_t left = c->end - c->at;
    for (int64_t n = 256; n <= MOST_HEADER; n *= 16) {
        const size_t take = (size_t)(n < left ? n : left);
        FT_TRY(reserve(&c->packed, take));
        FT_TRY(ft_pread(c->fd, c->path, c->packed.p, take, c->at));
        struct ft_thrift t = {c->packed.p, c->packed.p + take, false};
        if (parse_header(&t, h)) {
            c->at += t.p - c->packed.p;
            return FT_OK;
        }
        if (n >= left)
            break;
    }
    return damaged(c, "a page's header");
}

/* The next page's header, and its bytes as they stand in the file. */
static int read_page(struct ft_parquet_column *c, struct header *h)
{
    FT_TRY(read_header(c, h));
    if (h->packed < 0 || h->bytes < 0 || h->values < 0)
        return damaged(c, "a page's header");
    if (h->packed > c->end - c->at)
        return damaged(c, "a page is longer than its column");
    if (h->bytes > MOST_PAGE || h->packed > MOST_PAGE || h->values > MOST_VALUES)
        return damaged(c, "a page of more than 256 MiB, or 16 million values");
    FT_TRY(reserve(&c->packed, (size_t)h->packed + 1));
    FT_TRY(ft_pread(c->fd, c->path, c->packed.p, (size_t)h->packed, c->at));
    c->at += h->packed;
    if (h->crc >= 0 && (int64_t)crc32(0, c->packed.p, (uInt)h->packed) != h->crc)
        return damaged(c, "a page's checksum");
    return FT_OK;
}

static int reserve_values(struct ft_parquet_value **v, size_t *room, int64_t n)
{
    if ((size_t)n <= *room)
        return FT_OK;
    ft_free(*v);
    *v = NULL;
    *room = 0;
    FT_TRY(ft_alloc(v, (size_t)n, sizeof **v));
    *room = (size_t)n;
    return FT_OK;
}

static int read_dictionary(struct ft_parquet_column *c, const struct header *h)
{
    if (h->encoding != 0 && h->encoding != 2)
        return unknown(c, "encoding", (int)h->encoding, NULL);
    FT_TRY(reserve(&c->words, (size_t)h->bytes + 1));
    FT_TRY(decompress(c, c->words.p, (size_t)h->bytes, c->packed.p, (size_t)h->packed));
    FT_TRY(reserve_values(&c->dictionary, &c->dictionary_room, h->values));
    c->n_dictionary = h->values;
    return plain(c, &(struct span){c->words.p, c->words.p + h->bytes}, c->dictionary, h->values)
               ? FT_OK
               : damaged(c, "its dictionary");
}

/* Levels of a column that has none are zero. bytes < 0: they say how many they are. */
static bool read_levels(struct span *s, uint8_t *out, int64_t n, int most, int64_t bytes)
{
    if (!most) {
        if (n)
            memset(out, 0, (size_t)n);
        if (bytes <= 0)
            return true;
        if (bytes > s->end - s->p) /* older writers have some all the same */
            return false;
        s->p += bytes;
        return true;
    }
    if (bytes < 0) {
        if (s->end - s->p < 4)
            return false;
        bytes = (int64_t)little_endian(s->p, 4);
        s->p += 4;
    }
    if (bytes > s->end - s->p)
        return false;
    struct span own = {s->p, s->p + bytes};
    s->p += bytes;
    return read_runs(&own, bits_of(most), n, (uint32_t)most, put_level, out);
}

static int reserve_entries(struct ft_parquet_column *c, int64_t n)
{
    if ((size_t)n > c->room) {
        ft_free(c->def);
        ft_free(c->rep);
        c->def = c->rep = NULL;
        c->room = 0;
        FT_TRY(ft_alloc(&c->def, (size_t)n, 1));
        FT_TRY(ft_alloc(&c->rep, (size_t)n, 1));
        c->room = (size_t)n;
    }
    return reserve_values(&c->values, &c->values_room, n);
}

/* The page's bytes, decompressed; levels of DATA_V2 are in front, as they are. */
static int unpack_page(struct ft_parquet_column *c, const struct header *h)
{
    const bool v2 = h->type == DATA_V2;
    if (h->def_bytes < 0 || h->rep_bytes < 0 || h->def_bytes > h->packed ||
        h->rep_bytes > h->packed)
        return damaged(c, "a page's levels");
    const int64_t levels = v2 ? h->def_bytes + h->rep_bytes : 0;
    if (levels > h->packed || levels > h->bytes)
        return damaged(c, "a page's levels");
    FT_TRY(reserve(&c->page, (size_t)h->bytes + 1));
    memcpy(c->page.p, c->packed.p, (size_t)levels);
    uint8_t *out = c->page.p + levels;
    const uint8_t *in = c->packed.p + levels;
    const size_t n = (size_t)(h->bytes - levels), in_n = (size_t)(h->packed - levels);
    if (v2 && h->plain)
        return copy(out, n, in, in_n) ? FT_OK : damaged(c, "a page's length");
    return decompress(c, out, n, in, in_n);
}

static int read_data(struct ft_parquet_column *c, const struct header *h)
{
    const bool v2 = h->type == DATA_V2;
    const struct ft_parquet_node *node = c->node;
    if (h->values > c->left)
        return damaged(c, "more values than it says");
    if (!v2 && ((node->def && h->def_encoding != 3) || (node->rep && h->rep_encoding != 3)))
        return unknown(c, "encoding of levels",
                       (int)(h->def_encoding != 3 ? h->def_encoding : h->rep_encoding), NULL);
    FT_TRY(unpack_page(c, h));
    FT_TRY(reserve_entries(c, h->values));
    struct span s = {c->page.p, c->page.p + h->bytes};
    if (!read_levels(&s, c->rep, h->values, node->rep, v2 ? h->rep_bytes : -1) ||
        !read_levels(&s, c->def, h->values, node->def, v2 ? h->def_bytes : -1))
        return damaged(c, "a page's levels");
    int64_t there = 0;
    for (int64_t i = 0; i < h->values; i++)
        there += c->def[i] == node->def;
    c->n = h->values;
    c->entry = c->value = 0;
    c->left -= h->values;
    return read_values(c, s, (int)h->encoding, there);
}

void ft_parquet_column_begin(struct ft_parquet_column *c, const struct ft_parquet_node *node,
                             const struct ft_parquet_chunk *chunk, int fd, const char *path)
{
    c->node = node;
    c->path = path;
    c->fd = fd;
    c->at = chunk->at;
    c->end = chunk->at + chunk->bytes;
    c->codec = chunk->codec;
    c->left = chunk->values;
    c->n = c->entry = c->value = c->n_dictionary = 0;
}

int ft_parquet_column_look(struct ft_parquet_column *c, bool *more)
{
    struct header h;
    while (c->entry == c->n && c->left > 0) {
        if (c->at >= c->end)
            return damaged(c, "fewer values than it says");
        FT_TRY(read_page(c, &h));
        if (h.type == DATA || h.type == DATA_V2)
            FT_TRY(read_data(c, &h));
        else if (h.type == DICTIONARY)
            FT_TRY(read_dictionary(c, &h));
    }
    *more = c->entry < c->n;
    return FT_OK;
}

void ft_parquet_column_fini(struct ft_parquet_column *c)
{
    ft_free(c->def);
    ft_free(c->rep);
    ft_free(c->values);
    ft_free(c->dictionary);
    ft_free(c->packed.p);
    ft_free(c->page.p);
    ft_free(c->words.p);
    ft_free(c->pieces.p);
    *c = (struct ft_parquet_column){.node = NULL};
}
