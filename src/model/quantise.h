/* Quantising a weight in memory. */
#ifndef FT_MODEL_QUANTISE_H
#define FT_MODEL_QUANTISE_H

#include "core/mem.h"
#include "core/quant.h"
#include "core/threads.h"

/* Fills all planes of q (FT_BNB4 or FT_BNB4_NESTED: NF4, or FP4) from its rows x cols elements,
 * which are finite. FT_ERESOURCE. */
int ft_quantise_4bit(const struct ft_planes *q, bool fp4, struct ft_pool *pool, const void *data,
                     enum ft_dtype dtype);
/* The same for FT_INT8_ROWS. */
void ft_quantise_8bit(const struct ft_planes *q, struct ft_pool *pool, const void *data,
                      enum ft_dtype dtype);

#endif
