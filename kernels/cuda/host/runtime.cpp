/* The CUDA backend's runtime for the host build: memory is the heap, queued work runs at once, and
 * a recording is a list of what would have run. FT_EMULATED_MEMORY sets how many bytes the
 * pretended device has, FT_EMULATED_FAULT makes the n-th piece of work fail: for tests. */
#include "kernels/cuda/host/fibers.h"
#include "kernels/cuda/product.h"

#include <stdio.h>
#include <stdlib.h>
#include <vector>

typedef std::vector<std::function<void()>> recording;

struct ft_host_queue {
    recording *noted; /* what is being recorded; NULL: work runs at once */
    uint32_t mark;
    size_t used, total;
    long fault; /* pieces of work until the pretended fault; 0: none */
};

static struct ft_cuda *cuda_of(const struct ft_backend *b)
{
    return (struct ft_cuda *)(uintptr_t)b;
}

void ft_cuda_fail(struct ft_cuda *c, const char *what, const char *why)
{
    if (c->failed)
        return;
    c->failed = true;
    snprintf(c->error, sizeof c->error, "%s failed: %s", what, why);
}

static int state(const struct ft_backend *b)
{
    return cuda_of(b)->failed ? -1 : 0;
}

static void run(struct ft_cuda *c, const std::function<void()> &work)
{
    if (c->failed)
        return;
    work();
    if (c->stream->fault && --c->stream->fault == 0)
        ft_cuda_fail(c, "the device's work", "an emulated fault");
}

void ft_host_submit_plain(struct ft_cuda *c, std::function<void()> work)
{
    if (c->stream->noted)
        c->stream->noted->push_back(std::move(work));
    else
        run(c, work);
}

void ft_cuda_zero(const struct ft_kernel_ctx *ctx, void *p, size_t bytes)
{
    ft_host_submit_plain(ft_cuda_of(ctx), [=] { memset(p, 0, bytes); });
}

static int take(const struct ft_backend *b, void **out, size_t bytes)
{
    struct ft_host_queue *q = cuda_of(b)->stream;
    *out = NULL;
    if (bytes <= q->total - q->used)
        *out = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*out) {
        ft_cuda_fail(cuda_of(b), "taking device memory", "out of memory");
        return -1;
    }
    memset(*out, 0, bytes);
    q->used += bytes;
    return state(b);
}

static void give(const struct ft_backend *b, void *ptr, size_t bytes)
{
    if (ptr)
        cuda_of(b)->stream->used -= bytes;
    free(ptr);
}

static int memory(const struct ft_backend *b, size_t *free_bytes, size_t *total_bytes)
{
    const struct ft_host_queue *q = cuda_of(b)->stream;
    *free_bytes = q->total - q->used;
    *total_bytes = q->total;
    return state(b);
}

static int host_alloc(const struct ft_backend *b, void **out, size_t bytes)
{
    *out = malloc(bytes ? bytes : 1);
    if (!*out)
        ft_cuda_fail(cuda_of(b), "taking pinned host memory", "out of memory");
    return state(b);
}

static void host_free(const struct ft_backend *b, void *ptr)
{
    (void)b;
    free(ptr);
}

static int copy_in(const struct ft_backend *b, void *dst, size_t dst_pitch, const void *src,
                   size_t src_pitch, size_t row_bytes, size_t rows)
{
    for (size_t r = 0; r < rows; r++)
        memcpy((char *)dst + r * dst_pitch, (const char *)src + r * src_pitch, row_bytes);
    return state(b);
}

static int copy_out(const struct ft_backend *b, void *dst, const void *src, size_t bytes)
{
    if (state(b))
        return -1;
    memcpy(dst, src, bytes);
    return 0;
}

static int mark(const struct ft_backend *b, int i)
{
    (void)i;
    return state(b);
}

static int record_begin(const struct ft_backend *b)
{
    cuda_of(b)->stream->noted = new recording;
    return state(b);
}

static int record_end(const struct ft_backend *b, void **out)
{
    *out = cuda_of(b)->stream->noted;
    cuda_of(b)->stream->noted = NULL;
    return state(b);
}

static int replay(const struct ft_backend *b, void *what)
{
    for (const auto &work : *(recording *)what)
        run(cuda_of(b), work);
    return state(b);
}

static void record_free(const struct ft_backend *b, void *what)
{
    (void)b;
    delete (recording *)what;
}

static const char *error(const struct ft_backend *b)
{
    return cuda_of(b)->error;
}

static int last_node(const struct ft_backend *b)
{
    return (int)*cuda_of(b)->mark;
}

static void close_device(const struct ft_backend *b)
{
    struct ft_cuda *c = cuda_of(b);
    delete c->stream;
    free(c);
}

static size_t number(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? (size_t)strtoull(text, NULL, 10) : otherwise;
}

extern "C" __attribute__((visibility("default"))) const struct ft_backend *
ft_cuda_open(const struct ft_interface *caller, int device, char *why, size_t why_room)
{
    (void)device;
    struct ft_cuda *c = (struct ft_cuda *)calloc(1, sizeof *c);
    if (!ft_interface_fits(caller) || !c) {
        snprintf(why, why_room, "the emulated device cannot be opened");
        free(c);
        return NULL;
    }
    c->stream = new ft_host_queue{};
    c->stream->total = number("FT_EMULATED_MEMORY", (size_t)1 << 40);
    c->stream->fault = (long)number("FT_EMULATED_FAULT", 0);
    if (c->stream->total == 0) {
        snprintf(why, why_room, "the emulated machine has no GPU");
        close_device(&c->base);
        return NULL;
    }
    c->stream->mark = UINT32_MAX;
    c->mark = c->mark_device = &c->stream->mark;
    c->processors = 1;
    c->shared_limit = ft_host_shared_limit = number("FT_EMULATED_SHARED", 227 << 10);
    snprintf(c->isa, sizeof c->isa, "emulated");
    snprintf(c->fns.name, sizeof c->fns.name, "an emulated GPU (for tests)");
    c->base.device = "cuda";
    c->base.isa = c->isa;
    c->base.act = c->base.products = FT_BF16;
    c->base.alloc = take;
    c->base.free = give;
    c->base.dev = &c->fns;
    c->fns.memory = memory;
    c->fns.host_alloc = host_alloc;
    c->fns.host_free = host_free;
    c->fns.copy_in = copy_in;
    c->fns.copy_out = copy_out;
    c->fns.mark = mark;
    c->fns.wait = mark;
    c->fns.sync = state;
    c->fns.record_begin = record_begin;
    c->fns.record_end = record_end;
    c->fns.replay = replay;
    c->fns.record_free = record_free;
    c->fns.error = error;
    c->fns.last_node = last_node;
    c->fns.close = close_device;
    ft_products_open(c);
    ft_cuda_fill_table(c);
    return &c->base;
}
