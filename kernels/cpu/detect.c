/* Chooses the CPU backend by what the processor can do. */
#include "kernels/backend.h"

#include "core/status.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern const struct ft_backend ft_cpu_generic_backend;
#ifdef FT_HAVE_X86
extern const struct ft_backend ft_cpu_avx2_backend, ft_cpu_avx512_backend;
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
#endif

/* Best first. */
static const struct {
    const char *name;
    const struct ft_backend *backend;
    bool (*supported)(void);
} sets[] = {
#ifdef FT_HAVE_X86
    {"avx512", &ft_cpu_avx512_backend, has_avx512},
    {"avx2", &ft_cpu_avx2_backend, has_avx2},
#endif
    {"generic", &ft_cpu_generic_backend, always},
};

int ft_cpu_backend(const struct ft_backend **out, const char *isa)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        bool wanted = strcmp(isa, "auto") == 0 || strcmp(isa, sets[i].name) == 0;
        if (wanted && sets[i].supported()) {
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
