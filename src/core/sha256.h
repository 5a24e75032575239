/* SHA-256 (FIPS 180-4). */
#ifndef FT_CORE_SHA256_H
#define FT_CORE_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ft_sha256 {
    uint32_t h[8];
    uint64_t len;
    uint8_t block[64];
};

void ft_sha256_init(struct ft_sha256 *s);
void ft_sha256_add(struct ft_sha256 *s, const void *data, size_t n);
/* 64 hex digits and a zero byte. */
void ft_sha256_hex(struct ft_sha256 *s, char out[65]);

/* Of a file; false if it cannot be read, or *stop becomes true (stop may be NULL). */
bool ft_sha256_file(const char *path, char out[65], const _Atomic bool *stop);

#endif
