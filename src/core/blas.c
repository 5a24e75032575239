/* BLAS is opened when it is needed: OpenBLAS starts a thread for each core as soon as it is loaded,
 * and most runs have no use for it. */
#include "core/blas.h"

#include <dlfcn.h>
#include <stddef.h>

void *ft_blas_open(void)
{
    static const char *const names[] = {"libopenblas.so.0", "liblapack.so.3"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library) {
        void (*threads)(int);
        *(void **)&threads = dlsym(library, "openblas_set_num_threads");
        if (threads)
            threads(1); /* its threads wait by yielding, and starve on a busy machine */
    }
    return library;
}
