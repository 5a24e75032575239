/* Snappy's raw format: https://github.com/google/snappy/blob/main/format_description.txt */
#ifndef FT_IO_SNAPPY_H
#define FT_IO_SNAPPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exactly n bytes into out; false: they are not what is compressed there. */
bool ft_snappy_decompress(uint8_t *out, size_t n, const uint8_t *in, size_t in_n);

#endif
