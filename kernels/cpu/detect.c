/* Chooses the CPU backend by what the processor can do. */
#include "kernels/backend.h"

#include "core/status.h"

#ifdef FT_HAVE_X86
#include <cpuid.h>
#endif
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern const struct ft_backend ft_cpu_generic_backend;
#ifdef FT_HAVE_X86
extern const struct ft_backend ft_cpu_avx2_backend, ft_cpu_avx512_backend,
    ft_cpu_avx512_bf16_backend, ft_cpu_amx_backend;
#endif

static bool always(void)
{
    return true;
}

#ifdef FT_HAVE_X86
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* vdpbf16ps has twice the rate of fp32's multiply-adds on AMD's processors, half of it on Intel's.
 */
static bool has_fast_avx512_bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
}
/* The processor has it, the system saves its tiles, and lets this process use them. */
static bool has_amx(void)
{
    enum { TILE = 1 << 24, BF16 = 1 << 22, SAVES_TILES = 3 << 17, ASK = 0x1023, TILES = 18 };
    unsigned a, b, c, d, saved, high;
    if (!has_avx512() || !__builtin_cpu_supports("avx512bf16") ||
        !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (TILE | BF16)) != (TILE | BF16))
        return false;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    return (saved & SAVES_TILES) == SAVES_TILES && syscall(SYS_arch_prctl, ASK, TILES) == 0;
}
#endif

/* Best first. A name may stand for two sets, one with bf16 products. */
static const struct {
    const char *name;
    const struct ft_backend *backend;
    bool (*supported)(void);
} sets[] = {
#ifdef FT_HAVE_X86
    {"amx", &ft_cpu_amx_backend, has_amx},
    {"avx512", &ft_cpu_avx512_bf16_backend, has_fast_avx512_bf16},
    {"avx512", &ft_cpu_avx512_backend, has_avx512},
    {"avx2", &ft_cpu_avx2_backend, has_avx2},
#endif
    {"generic", &ft_cpu_generic_backend, always},
};

int ft_cpu_backend(const struct ft_backend **out, const char *isa, bool bf16)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const bool wanted = strcmp(isa, "auto") == 0 || strcmp(isa, sets[i].name) == 0;
        if (wanted && (bf16 || sets[i].backend->products == FT_F32) && sets[i].supported()) {
            *out = sets[i].backend;
            return FT_OK;
        }
    }
    ft_fail(FT_ERESOURCE, "'cpu_isa' is '%s', which this machine does not have", isa);
    ft_hint("'cpu_isa: auto' takes the best there is");
    return FT_ERESOURCE;
}

/* Without stdio, whose buffer could not be had. */
const char *ft_cpu_model(void)
{
    static _Thread_local char name[128];
    char text[4096];
    const int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    const char *line = strstr(text, "model name"), *value = line ? strchr(line, ':') : NULL;
    name[0] = 0;
    if (value)
        snprintf(name, sizeof name, "%.*s", (int)strcspn(value + 1, "\n"), value + 1);
    if (fd >= 0)
        close(fd);
    return name[0] == ' ' ? name + 1 : name;
}
