/* Chooses the CPU backend by what the processor can do. */
#include "kernels/backend.h"

#include "core/blas.h"
#include "core/status.h"
#include "kernels/cpu/cpu.h"

#ifdef FT_HAVE_X86
#include <cpuid.h>
#endif
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#ifdef FT_HAVE_ARM
#include <sys/auxv.h>
#endif
#include <sys/syscall.h>
#include <unistd.h>

extern const struct ft_backend ft_cpu_generic_backend, ft_cpu_openblas_backend;
#ifdef FT_HAVE_X86
extern const struct ft_backend ft_cpu_avx2_backend, ft_cpu_avx512_backend,
    ft_cpu_avx512_bf16_backend, ft_cpu_amx_backend;
#endif
#ifdef FT_HAVE_ARM
extern const struct ft_backend ft_cpu_neon_backend, ft_cpu_neon_bf16_backend;
#endif

ft_sgemm_fn *ft_cpu_sgemm;

static bool has_openblas(void)
{
    void *library = ft_cpu_sgemm ? NULL : ft_blas_open(); /* open until the process ends */
    if (library && dlsym(library, "openblas_get_config")) /* others are slower than generic */
        *(void **)&ft_cpu_sgemm = dlsym(library, "sgemm_");
    else if (library)
        dlclose(library);
    return ft_cpu_sgemm != NULL;
}

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

#ifdef FT_HAVE_ARM
/* bfdot: wherever it is, it has twice the rate of fp32's multiply-adds. */
static bool has_neon_bf16(void)
{
    enum { BF16 = 1 << 14 }; /* HWCAP2_BF16, of Linux's arch/arm64/include/uapi/asm/hwcap.h */
    return (getauxval(AT_HWCAP2) & BF16) != 0;
}
#endif

/* Best first: OpenBLAS's products where there are none of ft's own for the processor. A name may
 * stand for two sets, one with bf16 products. */
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
#ifdef FT_HAVE_ARM
    {"neon", &ft_cpu_neon_bf16_backend, has_neon_bf16},
    {"neon", &ft_cpu_neon_backend, always},
#endif
    {"openblas", &ft_cpu_openblas_backend, has_openblas},
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
    ft_hint(strcmp(isa, "openblas") == 0
                ? "install OpenBLAS (on Debian: apt-get install libopenblas0)"
                : "'cpu_isa: auto' takes the best there is");
    return FT_ERESOURCE;
}

/* The value of the first line of /proc/cpuinfo that begins with a word; "" without one. */
static void copy_value(char out[64], const char *text, const char *word)
{
    const char *line = strstr(text, word), *value = line ? strchr(line, ':') : NULL;
    out[0] = 0;
    if (value)
        value += 1 + strspn(value + 1, " ");
    if (value)
        snprintf(out, 64, "%.*s", (int)strcspn(value, "\n"), value);
}

/* Without stdio, whose buffer could not be had. ARM's processors have numbers in place of a name.
 */
const char *ft_cpu_model(void)
{
    static _Thread_local char name[160];
    char text[4096], maker[64], part[64];
    const int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    copy_value(name, text, "model name");
    copy_value(maker, text, "CPU implementer");
    copy_value(part, text, "CPU part");
    if (!name[0] && part[0])
        snprintf(name, sizeof name, "implementer %s, part %s", maker, part);
    if (fd >= 0)
        close(fd);
    return name;
}
