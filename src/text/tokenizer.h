/* Hugging Face's tokenizer.json: text to ids and back, exactly as the `tokenizers` library does it.
 *
 * text -> added tokens cut out -> normalizer -> pre-tokenizer -> model (BPE, Unigram) -> the
 * post-processor's special tokens. What the file asks for and ft does not have is refused with its
 * place in the file. */
#ifndef FT_TEXT_TOKENIZER_H
#define FT_TEXT_TOKENIZER_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

struct ft_tokenizer;

/* Reads tokenizer.json alone, as the tokenizers library does. FT_EDATA. */
int ft_tokenizer_open(struct ft_tokenizer **out, const char *path);
/* A token to be added to a folder's, as transformers' add_tokens and add_special_tokens do it. */
struct ft_new_token {
    const char *content; /* NULL ends a list */
    bool special;
    bool if_missing; /* one that the tokenizer has stays as it is */
};
/* A model folder's tokenizer as transformers' AutoTokenizer has it: with the tokens and flags that
 * stand in tokenizer_config.json, special_tokens_map.json and added_tokens.json; then with `more`
 * (NULL: none). FT_EDATA, also where the files contradict one another. */
int ft_tokenizer_open_folder(struct ft_tokenizer **out, const char *folder,
                             const struct ft_new_token *more);
/* Ids from here on are those of `more`. */
int32_t ft_tokenizer_own_size(const struct ft_tokenizer *t);
void ft_tokenizer_close(struct ft_tokenizer *t);
/* The same tokenizer for another thread, with working memory of its own; t must outlive it. */
int ft_tokenizer_share(struct ft_tokenizer **out, const struct ft_tokenizer *t);

/* A growing list of ids; starts zeroed, freed with ft_ids_free. */
struct ft_ids {
    int32_t *v;
    size_t n, room;
};
int ft_ids_add(struct ft_ids *ids, int32_t id);
void ft_ids_free(struct ft_ids *ids);

/* The bytes of the text that each token stands for; a special token that is not in the text, none.
 * Starts zeroed, freed with ft_spans_free. */
struct ft_spans {
    struct ft_span {
        uint32_t begin, end;
    } * v;
    size_t n, room;
};
void ft_spans_free(struct ft_spans *s);

/* Appends the ids of valid UTF-8 text; special: with the post-processor's tokens around it. Not
 * reentrant: a tokenizer keeps working memory and a cache of words. spans: NULL, or as many as ids
 * are appended. FT_EDATA if the model has no token for something and no unknown token. */
int ft_tokenizer_encode(struct ft_tokenizer *t, const char *text, size_t length, bool special,
                        struct ft_ids *out, struct ft_spans *spans);
/* The text of ids, to be freed with ft_free; skip_special leaves special tokens out. */
int ft_tokenizer_decode(const struct ft_tokenizer *t, const int32_t *ids, size_t n,
                        bool skip_special, char **text, size_t *length);

/* -1 if there is none. */
int32_t ft_tokenizer_id(const struct ft_tokenizer *t, const char *token);
/* One of the file's added tokens, as special tokens are. */
bool ft_tokenizer_is_added(const struct ft_tokenizer *t, int32_t id);
/* One that the file calls special: not text, as "\n" may be among the added ones. */
bool ft_tokenizer_is_special(const struct ft_tokenizer *t, int32_t id);
/* NULL if there is none. */
const char *ft_tokenizer_token(const struct ft_tokenizer *t, int32_t id);
/* One more than the largest id. */
int32_t ft_tokenizer_size(const struct ft_tokenizer *t);

#endif
