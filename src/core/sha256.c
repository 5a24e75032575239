/* Owns SHA-256. */
#include "core/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(FT_HAVE_X86)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(FT_HAVE_ARM)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void mix_plain(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] +
               (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], last = h[7];
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        uint32_t t1 = last + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i];
        uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        last = g, g = f, f = e, e = d + t1;
        d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t v[8] = {a, b, c, d, e, f, g, last};
    for (int i = 0; i < 8; i++)
        h[i] += v[i];
}

#if defined(FT_HAVE_X86)
/* With the processor's SHA instructions: about eight times as fast. Four rounds at a time; the two
 * halves of the state lie as the instructions want them, (a,b,e,f) and (c,d,g,h). */
__attribute__((target("sha,sse4.1,ssse3"))) static void mix_fast(uint32_t h[8], const uint8_t *p)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w[16], abcd = _mm_loadu_si128((const __m128i *)h);
    __m128i efgh = _mm_loadu_si128((const __m128i *)(h + 4));
    abcd = _mm_shuffle_epi32(abcd, 0xb1);
    efgh = _mm_shuffle_epi32(efgh, 0x1b);
    __m128i abef = _mm_alignr_epi8(abcd, efgh, 8), cdgh = _mm_blend_epi16(efgh, abcd, 0xf0);
    const __m128i abef_was = abef, cdgh_was = cdgh;
    for (int i = 0; i < 16; i++) {
        if (i < 4) {
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
        } else {
            __m128i part = _mm_sha256msg1_epu32(w[i - 4], w[i - 3]);
            part = _mm_add_epi32(part, _mm_alignr_epi8(w[i - 1], w[i - 2], 4));
            w[i] = _mm_sha256msg2_epu32(part, w[i - 1]);
        }
        __m128i m = _mm_add_epi32(w[i], _mm_loadu_si128((const __m128i *)(k + 4 * i)));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, m);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(m, 0x0e));
    }
    abef = _mm_shuffle_epi32(_mm_add_epi32(abef, abef_was), 0x1b);
    cdgh = _mm_shuffle_epi32(_mm_add_epi32(cdgh, cdgh_was), 0xb1);
    _mm_storeu_si128((__m128i *)h, _mm_blend_epi16(abef, cdgh, 0xf0));
    _mm_storeu_si128((__m128i *)(h + 4), _mm_alignr_epi8(cdgh, abef, 8));
}

/* CPUID leaf 7, EBX bit 29; SSE4.1 is older than every processor with it. */
static bool has_sha(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}
#elif defined(FT_HAVE_ARM)
/* The same with ARM's. */
__attribute__((target("+crypto"))) static void mix_fast(uint32_t h[8], const uint8_t *p)
{
    uint32x4_t w[16], abcd = vld1q_u32(h), efgh = vld1q_u32(h + 4);
    const uint32x4_t abcd_was = abcd, efgh_was = efgh;
    for (int i = 0; i < 16; i++) {
        if (i < 4)
            w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16 * i)));
        else
            w[i] = vsha256su1q_u32(vsha256su0q_u32(w[i - 4], w[i - 3]), w[i - 2], w[i - 1]);
        const uint32x4_t m = vaddq_u32(w[i], vld1q_u32(k + 4 * i)), before = abcd;
        abcd = vsha256hq_u32(abcd, efgh, m);
        efgh = vsha256h2q_u32(efgh, before, m);
    }
    vst1q_u32(h, vaddq_u32(abcd, abcd_was));
    vst1q_u32(h + 4, vaddq_u32(efgh, efgh_was));
}

static bool has_sha(void)
{
    enum { SHA2 = 1 << 6 }; /* HWCAP_SHA2, of Linux's arch/arm64/include/uapi/asm/hwcap.h */
    return (getauxval(AT_HWCAP) & SHA2) != 0;
}
#endif

static void mix(uint32_t h[8], const uint8_t *p)
{
#if defined(FT_HAVE_X86) || defined(FT_HAVE_ARM)
    static _Atomic int known; /* 0: not asked yet, 1: no, 2: yes */
    if (!known)
        known = has_sha() ? 2 : 1;
    if (known == 2) {
        mix_fast(h, p);
        return;
    }
#endif
    mix_plain(h, p);
}

void ft_sha256_init(struct ft_sha256 *s)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, start, sizeof start);
    s->len = 0;
}

void ft_sha256_add(struct ft_sha256 *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t at = s->len % 64;
    s->len += n;
    while (n > 0) {
        size_t take = 64 - at < n ? 64 - at : n;
        if (take == 64) {
            mix(s->h, p);
        } else {
            memcpy(s->block + at, p, take);
            if (at + take == 64)
                mix(s->h, s->block);
        }
        at = (at + take) % 64;
        p += take;
        n -= take;
    }
}

void ft_sha256_hex(struct ft_sha256 *s, char out[65])
{
    uint8_t end[72] = {0x80};
    uint64_t bits = s->len * 8;
    size_t pad = (s->len % 64 < 56 ? 56 : 120) - s->len % 64;
    for (int i = 0; i < 8; i++)
        end[pad + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    ft_sha256_add(s, end, pad + 8);
    for (int i = 0; i < 8; i++)
        snprintf(out + 8 * i, 9, "%08x", s->h[i]);
}

bool ft_sha256_file(const char *path, char out[65], const _Atomic bool *stop)
{
    struct ft_sha256 s;
    uint8_t buf[65536];
    ssize_t n;
    out[0] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ft_sha256_init(&s);
    do {
        n = read(fd, buf, sizeof buf);
        if (n > 0)
            ft_sha256_add(&s, buf, (size_t)n);
    } while ((n > 0 || (n < 0 && errno == EINTR)) && !(stop && *stop));
    close(fd);
    if (n != 0)
        return false;
    ft_sha256_hex(&s, out);
    return true;
}
