/* The backend interface: memory and a full table of ops. */
#ifndef FT_KERNELS_BACKEND_H
#define FT_KERNELS_BACKEND_H

#include "kernels/ops.h"

#include <string.h>

/* What a device adds to a backend: memory of its own, and a queue that runs behind the host's back.
 * Functions that return int give 0, or -1 with the reason in error(). Errors of queued work surface
 * in the next call that waits. */
struct ft_device_fns {
    /* What the device reports: its name, which one it is of all in the world ("": not known), bytes
     * free now and in all. */
    char name[128], id[64];
    int (*memory)(const struct ft_backend *b, size_t *free_bytes, size_t *total_bytes);
    /* Host memory that copies run from at full speed. */
    int (*host_alloc)(const struct ft_backend *b, void **out, size_t bytes);
    void (*host_free)(const struct ft_backend *b, void *ptr);
    /* Queues a copy of `rows` rows to the device; src must stay as it is until a mark behind it has
     * been waited for. */
    int (*copy_in)(const struct ft_backend *b, void *dst, size_t dst_pitch, const void *src,
                   size_t src_pitch, size_t row_bytes, size_t rows);
    /* Waits for everything queued, then copies to the host. */
    int (*copy_out)(const struct ft_backend *b, void *dst, const void *src, size_t bytes);
    /* A place in the queue, one of FT_DEVICE_MARKS, and waiting for it to be reached. */
    int (*mark)(const struct ft_backend *b, int mark);
    int (*wait)(const struct ft_backend *b, int mark);
    int (*sync)(const struct ft_backend *b); /* waits for everything */
    /* Between begin and end, ops are recorded instead of run; end gives a recording to replay. */
    int (*record_begin)(const struct ft_backend *b);
    int (*record_end)(const struct ft_backend *b, void **recording);
    int (*replay)(const struct ft_backend *b, void *recording);
    void (*record_free)(const struct ft_backend *b, void *recording);
    /* How products are computed. Without a file: the library's first answer for a shape. tune(on):
     * from now on all its answers are timed and the fastest is kept; save writes what was chosen;
     * load takes a file's choices, if it was written for this card, driver and library, and tells
     * how many there are. */
    int (*products_tune)(const struct ft_backend *b, int on);
    int (*products_save)(const struct ft_backend *b, const char *path);
    int (*products_load)(const struct ft_backend *b, const char *path, int *count);
    /* The first failure: what failed; and the node that ran last. */
    const char *(*error)(const struct ft_backend *b);
    int (*last_node)(const struct ft_backend *b);
    void (*close)(const struct ft_backend *b);
};
enum { FT_DEVICE_MARKS = 8 };

struct ft_backend {
    const char *device;     /* "cpu", "cuda" */
    const char *isa;        /* what its kernels were compiled for: "avx512", "sm_90", "emulated" */
    enum ft_dtype act;      /* of activations */
    enum ft_dtype products; /* what products take; their sums are f32 */
    ft_op_fn *ops[FT_OP_COUNT];
    /* bytes of scratch an op needs; NULL: none */
    size_t (*scratch[FT_OP_COUNT])(const union ft_op_args *);
    /* zeroed; not 0 if refused: use ft_backend_alloc */
    int (*alloc)(const struct ft_backend *b, void **out, size_t bytes);
    void (*free)(const struct ft_backend *b, void *ptr, size_t bytes);
    /* a row of a matrix as it is stored, quantised or not, in f32; NULL on a device */
    void (*widen_row)(float *out, const struct ft_tensor *w, int64_t row);
    const struct ft_device_fns *dev; /* NULL: tensors lie in the host's memory, ops run at once */
};

/* The CPU backend for an instruction set: "auto" (the best this machine has), "avx512", "avx2" or
 * "generic"; with bf16, one whose products take bf16, where this machine has units for it that are
 * faster than fp32's (its `products` tells). FT_ERESOURCE if this machine or this build lacks it.
 * avx2 and avx512 give the same bits in fp32. */
int ft_cpu_backend(const struct ft_backend **out, const char *isa, bool bf16);

/* The processor's own name, "" if unknown. */
const char *ft_cpu_model(void);

/* Opens a CUDA device by number (-1: the first one visible; the only one visible is every
 * number's), from the shared object ft_cuda beside the program or in ../lib/ft, or the file that
 * FT_CUDA_LIBRARY names. FT_ERESOURCE with what is missing. Close with ft_backend_close. */
int ft_cuda_backend(const struct ft_backend **out, int device);
/* The file of `ft bench --tune` on this machine: FT_CUDA_PRODUCTS, or ft/products.txt in the user's
 * cache folder. "" if there is no such folder. */
const char *ft_cuda_products_file(void);
/* Memory for tensors, zeroed; FT_ERESOURCE, reported. */
int ft_backend_alloc(const struct ft_backend *b, void **out, size_t bytes);
void ft_backend_close(const struct ft_backend *b); /* NULL and host backends: nothing */

/* What a program and a shared object must have in common: worked out by the compiler on both sides,
 * so that no number has to be raised by hand when a struct changes. */
struct ft_interface {
    size_t self, version, ops, backend, device_fns, ctx, tensor, args;
};
static inline struct ft_interface ft_interface_here(void)
{
    struct ft_interface i = {sizeof(struct ft_interface),
                             0,
                             FT_OP_COUNT,
                             sizeof(struct ft_backend),
                             sizeof(struct ft_device_fns),
                             sizeof(struct ft_kernel_ctx),
                             sizeof(struct ft_tensor),
                             0};
    for (const char *c = FT_VERSION; *c; c++)
        i.version = 31 * i.version + (unsigned char)*c;
        /* ops of the same size may have been renamed or moved */
#define X(name, ins, outs)                                                                         \
    i.args = 31 * i.args + sizeof(struct ft_##name##_args);                                        \
    for (const char *c = #name; *c; c++)                                                           \
        i.args = 31 * i.args + (unsigned char)*c;
    FT_OPS(X)
#undef X
    return i;
}

/* What the shared object exports as "ft_cuda_open": NULL with a reason in why, also where the
 * caller's interface is another. */
typedef const struct ft_backend *ft_cuda_open_fn(const struct ft_interface *caller, int device,
                                                 char *why, size_t why_room);

static inline bool ft_interface_fits(const struct ft_interface *caller)
{
    const struct ft_interface here = ft_interface_here();
    return caller->self == here.self && memcmp(caller, &here, sizeof here) == 0;
}

/* Rows of logits that head_loss holds at a time, for a buffer of at most `bytes` of f32. */
static inline int64_t ft_head_chunk_rows(int64_t tokens, int64_t vocab, int64_t bytes)
{
    int64_t most = bytes / (4 * vocab);
    if (most < 64)
        most = 64;
    if (most >= tokens)
        return tokens;
    int64_t chunks = (tokens + most - 1) / most; /* equal ones, whole register tiles */
    return ((tokens + chunks - 1) / chunks + 7) / 8 * 8;
}

#endif
