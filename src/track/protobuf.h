/* Messages of protocol buffers, field by field. Where memory runs out fields are missing: compare
 * ft_alloc_failures(). Source: protobuf.dev/programming-guides/encoding. */
#ifndef FT_TRACK_PROTOBUF_H
#define FT_TRACK_PROTOBUF_H

#include "core/bytes.h"

void ft_pb_int(struct ft_bytes *m, int field, uint64_t v);
void ft_pb_float(struct ft_bytes *m, int field, float v);
void ft_pb_double(struct ft_bytes *m, int field, double v);
void ft_pb_text(struct ft_bytes *m, int field, const char *text);
/* A message in the message: what is added until the end is in it. */
size_t ft_pb_begin(struct ft_bytes *m, int field);
void ft_pb_end(struct ft_bytes *m, size_t begun);

#endif
