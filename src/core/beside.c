/* Where the program lies, and what was installed with it. */
#define _GNU_SOURCE
#include "core/beside.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The program's folder, with '/' behind; false if it cannot be told. */
static bool own_folder(char out[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (n <= 0)
        return false;
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (!slash)
        return false;
    slash[1] = 0;
    return true;
}

bool ft_beside(const char *name, char path[FT_BESIDE_ROOM])
{
    static const char *const places[] = {"", "../lib/ft/", "../lib/"};
    char folder[PATH_MAX];
    if (!own_folder(folder))
        return false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, FT_BESIDE_ROOM, "%s%s%.40s", folder, places[i], name);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}
