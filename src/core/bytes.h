/* Growing bytes that remember where they came from, ranges of a text, code points. */
#ifndef FT_CORE_BYTES_H
#define FT_CORE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* While a text is rewritten it may be asked where its bytes come from: with `track`, from[i] is the
 * place in the text before that byte i stands for. */
struct ft_bytes {
    char *p;
    size_t n, room;
    bool track;
    size_t at; /* the place that the bytes of ft_bytes_add stand for */
    uint32_t *from;
    size_t from_room, end; /* end: what the end of the text stands for */
};
int ft_bytes_add(struct ft_bytes *b, const char *p, size_t n);
/* Bytes that are the same as those at `at` of the text before. */
int ft_bytes_keep(struct ft_bytes *b, const char *p, size_t n, size_t at);
void ft_bytes_free(struct ft_bytes *b);
/* b becomes what it was rewritten to, `to`, and its bytes stand for what b's stood for; the two
 * change memory. */
void ft_bytes_follow(struct ft_bytes *b, struct ft_bytes *to);

/* Ranges of a text: pieces on their way through the pre-tokenizers. */
struct ft_range {
    size_t begin, end;
    bool match; /* of a pattern, while it is being split by one */
    int number; /* of an added token */
};
struct ft_ranges {
    struct ft_range *v;
    size_t n, room;
};
int ft_ranges_add(struct ft_ranges *r, size_t begin, size_t end, bool match);

int ft_put_code_point(char *p, int32_t c); /* returns its length */
bool ft_is_numeric(int32_t c);             /* Nd, Nl, No */
bool ft_is_punctuation(int32_t c);         /* P*, and ASCII's symbols */

#endif
