/* Whether a model folder's tokenizer fits its embedding. */
#ifndef FT_IO_TOKENIZER_CHECK_H
#define FT_IO_TOKENIZER_CHECK_H

#include "core/status.h"

#include <stdint.h>

/* Every id of tokenizer.json (vocabulary and added tokens) must be below `rows`; the ones that are
 * not are named (FT_EDATA). A folder without tokenizer.json passes: the data is tokenized already.
 */
int ft_tokenizer_check(const char *folder, int64_t rows);

#endif
