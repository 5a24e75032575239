/* The characters that stand for bytes in byte-level vocabularies. */
#include "text/internal.h"

/* --- the characters that byte-level vocabularies write bytes with (GPT-2's bytes_to_unicode) ---
 */

static bool is_itself(int b)
{
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

int32_t ft_byte_char(uint8_t byte)
{
    int32_t others = 0;
    if (is_itself(byte))
        return byte;
    for (int b = 0; b < byte; b++)
        others += !is_itself(b);
    return 256 + others;
}

int ft_char_byte(int32_t c)
{
    if (c < 256)
        return is_itself(c) ? c : -1;
    for (int b = 0, next = 256; b < 256; b++)
        if (!is_itself(b) && next++ == c)
            return b;
    return -1;
}
