/* What the files of text/ share. */
#ifndef FT_TEXT_INTERNAL_H
#define FT_TEXT_INTERNAL_H

#include "text/tokenizer.h"

#include "core/bytes.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/text.h"

#include <string.h>

/* --- a place in the file, for messages: "pre_tokenizer.pretokenizers.0" --- */

struct ft_place {
    const char *file;
    const char *path;
};
/* FT_EDATA: 'path': what */
int ft_refuse(const struct ft_place *at, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* --- pattern.c: {"String": ...} and {"Regex": ...} --- */

/* What \w is in the library's own expressions (Rust's), which is more than Oniguruma's. */
#define FT_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"
bool ft_is_word(int32_t c);

struct ft_pattern_code;
int ft_pattern_open(struct ft_pattern_code **out, const json_t *spec, const struct ft_place *at);
int ft_pattern_regex(struct ft_pattern_code **out, const char *regex, const struct ft_place *at);
void ft_pattern_close(struct ft_pattern_code *p);
/* The matches of text[begin, end) and what lies between them, in order. */
int ft_pattern_find(const struct ft_pattern_code *p, const char *text, size_t begin, size_t end,
                    struct ft_ranges *out);

/* Appends text[0, n) with `content` in place of every match. */
int ft_pattern_replace(const struct ft_pattern_code *p, const char *text, size_t n,
                       const char *content, struct ft_bytes *out);

/* --- normalize.c --- */

struct ft_step; /* a normalizer, pre-tokenizer or decoder: a list, in order */
int ft_normalizer_open(struct ft_step **out, const json_t *spec, const struct ft_place *at);
void ft_step_close(struct ft_step *s);
/* b becomes its normal form; spare is working memory. */
int ft_normalize(const struct ft_step *s, struct ft_bytes *b, struct ft_bytes *spare);

/* --- pretokenize.c --- */

int ft_pretokenizer_open(struct ft_step **out, const json_t *spec, const struct ft_place *at);
/* If the last step maps bytes to characters: from now on it does not, and the model works on bytes.
 */
bool ft_pretokenizer_is_bytes(struct ft_step *s);
struct ft_pieces;
/* The pieces of p->text, which may be rewritten. */
int ft_pretokenize(const struct ft_step *s, struct ft_pieces *p);

/* The character that stands for a byte in byte-level vocabularies, and back (-1: none). */
int32_t ft_byte_char(uint8_t byte);
int ft_char_byte(int32_t c);

/* --- vocabulary --- */

/* Strings to ids. */
struct ft_vocab {
    struct ft_vocab_slot {
        const char *p;
        uint32_t length;
        int32_t id; /* -1: free */
    } * slots;
    size_t mask; /* slots - 1 */
};
int ft_vocab_init(struct ft_vocab *v, size_t n);
void ft_vocab_fini(struct ft_vocab *v);
/* Keeps p. */
void ft_vocab_put(struct ft_vocab *v, const char *p, size_t n, int32_t id);
int32_t ft_vocab_get(const struct ft_vocab *v, const char *p, size_t n); /* -1: none */

/* --- models --- */

struct ft_model_row;
struct ft_text_model {
    const struct ft_model_row *row;
    struct ft_arena arena;
    struct ft_vocab vocab; /* as the model sees text: bytes where `bytes` */
    const char **tokens;   /* by id, as the file has them; NULL: none */
    int32_t size, room;    /* ids below size */
    bool bytes;            /* text comes as raw bytes, the file's tokens as mapped characters */
    const char *prefix, *suffix; /* of tokens inside and at the end of words, or "" */
    int32_t unknown;             /* -1: none */
    void *state;
};
/* A model: one row. */
struct ft_model_row {
    const char *type;
    int (*open)(struct ft_text_model *m, const json_t *spec, const struct ft_place *at);
    void (*close)(struct ft_text_model *m);
    int (*encode)(struct ft_text_model *m, const char *p, size_t n, struct ft_ids *out);
    /* m is a copy: gets a state of its own that shares what encode does not change; unshare frees
     * that state */
    int (*share)(struct ft_text_model *m);
    void (*unshare)(struct ft_text_model *m);
};
extern const struct ft_model_row ft_bpe_row, ft_unigram_row;
int ft_text_model_open(struct ft_text_model *m, const json_t *spec, bool bytes,
                       const struct ft_place *at);
void ft_text_model_close(struct ft_text_model *m);
/* Adds a token of the file; n: ids there will be room for. */
int ft_text_model_token(struct ft_text_model *m, const char *token, size_t length, int64_t id,
                        const struct ft_place *at);
/* The ids of <0x00> to <0xFF>; false if one is missing. */
bool ft_byte_tokens(const struct ft_text_model *m, int32_t ids[256]);

/* --- spans.c: which bytes of a piece its tokens stand for --- */

/* Appends, for the n ids that text[begin, end) became, the places that they stand for. */
int ft_spans_of(const struct ft_text_model *m, const int32_t *ids, size_t n,
                const struct ft_bytes *text, size_t begin, size_t end, struct ft_spans *out);
int ft_spans_add(struct ft_spans *s, size_t begin, size_t end);
/* What text[i] stands for; i may be the text's end. */
static inline size_t ft_bytes_from(const struct ft_bytes *text, size_t i)
{
    return i < text->n ? text->from[i] : text->end;
}

/* --- trie.c: byte strings, found by their beginnings --- */

struct ft_trie;
int ft_trie_new(struct ft_trie **out, size_t bytes); /* room for strings of so many bytes in all */
void ft_trie_free(struct ft_trie *t);
int ft_trie_put(struct ft_trie *t, const char *p, size_t n, int32_t value); /* value >= 0 */
/* One step from node (0: the root) by a byte; -1 if nothing goes on there. */
int32_t ft_trie_step(const struct ft_trie *t, int32_t node, unsigned char byte);
int32_t ft_trie_value(const struct ft_trie *t, int32_t node); /* -1: no string ends here */

/* --- added.c: added tokens --- */

struct ft_added {
    const char *content;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
/* special.c: what stands beside tokenizer.json, in the order in which transformers adds it. */
struct ft_beside {
    struct ft_added token; /* id: as said there, -1: not said */
    bool listed;           /* with an id; else it is added only where no token has its content */
};
struct ft_token_list {
    struct ft_beside *v;
    size_t n, room;
    struct ft_arena arena;
};
int ft_tokens_beside(struct ft_token_list *l, const char *folder); /* FT_EDATA; freed in any case */
void ft_token_list_free(struct ft_token_list *l);

/* Of the tokens whose `normalized` is as asked; contents of normalized ones go through s. NULL if
 * there are none. */
int ft_added_trie(struct ft_trie **out, const struct ft_added *tokens, int n, bool normalized,
                  const struct ft_step *s);
/* Cuts text into tokens (match; their number among tokens is in `numbers`, in order) and what lies
 * between. */
int ft_added_split(const struct ft_trie *t, const struct ft_added *tokens, const char *text,
                   size_t length, struct ft_ranges *out, struct ft_ids *numbers);

/* --- decode.c --- */

int ft_decoder_open(struct ft_step **out, const json_t *spec, const struct ft_place *at);
struct ft_strings;
/* What the tokens' strings become; the text is all of them end to end. */
int ft_decode(const struct ft_step *s, struct ft_strings *p);

/* --- steps.c: what normalizers, pre-tokenizers and decoders have in common --- */

/* What a pre-tokenizer works on. */
struct ft_pieces {
    struct ft_bytes *text, *spare_text;
    struct ft_ranges *ranges, *spare;
    bool first; /* the text's first piece begins the whole text */
};
/* What a decoder works on: strings, end to end. */
struct ft_strings {
    struct ft_bytes text;
    struct ft_ranges ranges;
};

struct ft_step_row {
    const char *type;
    int (*open)(struct ft_step *s, const json_t *spec, const struct ft_place *at); /* or NULL */
    int (*normalize)(const struct ft_step *s, const char *p, size_t n, struct ft_bytes *out);
    int (*pretokenize)(const struct ft_step *s, struct ft_pieces *p);
    int (*decode)(const struct ft_step *s, struct ft_strings *p);
};
struct ft_step {
    const struct ft_step_row *row;
    struct ft_step *next;
    struct ft_pattern_code *pattern;
    char *text; /* content, replacement, ... as the row says */
    int choice;
    bool flag, flag2;
    long long number, number2;
    void *data;
    size_t data_bytes;
};
/* One step, or for {"type": "Sequence", list: [...]} all of them; spec null: none (*out NULL). */
int ft_steps_open(struct ft_step **out, const json_t *spec, const char *list,
                  const struct ft_step_row *rows, int n_rows, const struct ft_place *at);
/* A text member, copied to *out; reported if it is absent and otherwise is NULL. */
int ft_step_text(char **out, const json_t *spec, const char *key, const char *otherwise,
                 const struct ft_place *at);
/* A member that is one of names (NULL ends); its number, -1 and a report if it is none. */
int ft_step_choice(const json_t *spec, const char *key, const char *const *names, int otherwise,
                   const struct ft_place *at);

#endif
