/* Finds and opens the CUDA backend: a shared object, so that one program runs with and without it.
 */
#define _GNU_SOURCE
#include "kernels/backend.h"

#include "core/beside.h"
#include "core/status.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static const char library[] = "libft_cuda.so";

/* The shared object. On failure why tells the reason. */
static void *open_library(char *why, size_t room)
{
    const char *given = getenv("FT_CUDA_LIBRARY");
    char path[FT_BESIDE_ROOM];
    void *handle = NULL;
    if (given && *given) {
        handle = dlopen(given, RTLD_NOW | RTLD_LOCAL);
        snprintf(why, room, "%s", handle ? "" : dlerror());
        return handle;
    }
    if (!ft_beside(library, path)) {
        snprintf(
            why, room,
            "this build of ft has no CUDA backend: it is built where CMake finds nvcc, of the CUDA "
            "Toolkit");
        return NULL;
    }
    /* the libraries that the backend needs take 150 MB: not for machines without a GPU */
    if (!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
        snprintf(why, room, "looking for a GPU failed: this machine has no NVIDIA driver");
        return NULL;
    }
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        snprintf(why, room, "%s", dlerror());
    return handle;
}

int ft_cuda_backend(const struct ft_backend **out, int device)
{
    char why[512];
    const struct ft_interface here = ft_interface_here();
    *out = NULL;
    void *handle = open_library(why, sizeof why); /* stays open: its code may hold threads */
    ft_cuda_open_fn *open = NULL;
    if (handle) {
        *(void **)&open = dlsym(handle, "ft_cuda_open");
        if (!open)
            snprintf(why, sizeof why, "%s is not ft's CUDA backend", library);
    }
    if (open)
        *out = open(&here, device, why, sizeof why);
    if (*out)
        return FT_OK;
    ft_fail(FT_ERESOURCE, "no CUDA device can be used: %s", why);
    ft_hint("'device: cpu' trains on the processor; a GPU needs compute capability 8.0 (Ampere) or "
            "later and a recent driver (580 for a build with CUDA 13, 525 for one with CUDA 12)");
    return FT_ERESOURCE;
}

const char *ft_cuda_products_file(void)
{
    static char path[PATH_MAX];
    const char *given = getenv("FT_CUDA_PRODUCTS"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (given)
        snprintf(path, sizeof path, "%s", given);
    else if (cache && *cache)
        snprintf(path, sizeof path, "%s/ft/products.txt", cache);
    else
        snprintf(path, sizeof path, "%s%s", home ? home : "",
                 home ? "/.cache/ft/products.txt" : "");
    return path;
}

int ft_backend_alloc(const struct ft_backend *b, void **out, size_t bytes)
{
    int rc = b->alloc(b, out, bytes);
    if (!rc || !b->dev)
        return rc;
    return ft_fail(FT_ERESOURCE, "%s: %s (%.2f GB were asked for)", b->dev->name, b->dev->error(b),
                   (double)bytes / 1e9);
}

void ft_backend_close(const struct ft_backend *b)
{
    if (b && b->dev)
        b->dev->close(b);
}
