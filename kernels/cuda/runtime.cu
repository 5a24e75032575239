/* The CUDA backend on a real device: memory, the queue, recordings, errors. */
#include "kernels/cuda/product.h"

#include <stdio.h>
#include <stdlib.h>

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

int ft_cuda_check(struct ft_cuda *c, cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return 0;
    ft_cuda_fail(c, what, cudaGetErrorString(e));
    return -1;
}

/* Every function reports an earlier failure too. */
static int check(struct ft_cuda *c, cudaError_t e, const char *what)
{
    return ft_cuda_check(c, e, what) || c->failed ? -1 : 0;
}

static int take(const struct ft_backend *b, void **out, size_t bytes)
{
    struct ft_cuda *c = cuda_of(b);
    *out = NULL;
    if (check(c, cudaMalloc(out, bytes), "taking device memory"))
        return -1;
    return check(c, cudaMemsetAsync(*out, 0, bytes, c->stream), "clearing device memory");
}

static void give(const struct ft_backend *b, void *ptr, size_t bytes)
{
    (void)b, (void)bytes;
    cudaFree(ptr);
}

static int memory(const struct ft_backend *b, size_t *free_bytes, size_t *total_bytes)
{
    return check(cuda_of(b), cudaMemGetInfo(free_bytes, total_bytes), "asking for free memory");
}

static int host_alloc(const struct ft_backend *b, void **out, size_t bytes)
{
    return check(cuda_of(b), cudaHostAlloc(out, bytes, cudaHostAllocDefault),
                 "taking pinned host memory");
}

static void host_free(const struct ft_backend *b, void *ptr)
{
    (void)b;
    cudaFreeHost(ptr);
}

static int copy_in(const struct ft_backend *b, void *dst, size_t dst_pitch, const void *src,
                   size_t src_pitch, size_t row_bytes, size_t rows)
{
    struct ft_cuda *c = cuda_of(b);
    if (dst_pitch == row_bytes && src_pitch == row_bytes)
        return check(c,
                     cudaMemcpyAsync(dst, src, row_bytes * rows, cudaMemcpyHostToDevice, c->stream),
                     "a copy to the device");
    return check(c,
                 cudaMemcpy2DAsync(dst, dst_pitch, src, src_pitch, row_bytes, rows,
                                   cudaMemcpyHostToDevice, c->stream),
                 "a copy to the device");
}

static int sync_stream(const struct ft_backend *b)
{
    struct ft_cuda *c = cuda_of(b);
    return check(c, cudaStreamSynchronize(c->stream), "the device's work");
}

static int copy_out(const struct ft_backend *b, void *dst, const void *src, size_t bytes)
{
    struct ft_cuda *c = cuda_of(b);
    if (sync_stream(b))
        return -1;
    return check(c, cudaMemcpy(dst, src, bytes, cudaMemcpyDeviceToHost), "a copy from the device");
}

static int mark(const struct ft_backend *b, int i)
{
    struct ft_cuda *c = cuda_of(b);
    return check(c, cudaEventRecord((cudaEvent_t)c->events[i], c->stream), "an event");
}

static int wait_for(const struct ft_backend *b, int i)
{
    struct ft_cuda *c = cuda_of(b);
    return check(c, cudaEventSynchronize((cudaEvent_t)c->events[i]), "the device's work");
}

static int record_begin(const struct ft_backend *b)
{
    struct ft_cuda *c = cuda_of(b);
    return check(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed),
                 "recording a program");
}

static int record_end(const struct ft_backend *b, void **recording)
{
    struct ft_cuda *c = cuda_of(b);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    *recording = NULL;
    int rc = check(c, cudaStreamEndCapture(c->stream, &graph), "recording a program");
    if (!rc)
        rc = check(c, cudaGraphInstantiate(&exec, graph, 0), "preparing a recorded program");
    if (graph)
        cudaGraphDestroy(graph);
    *recording = exec;
    return rc;
}

static int replay(const struct ft_backend *b, void *recording)
{
    struct ft_cuda *c = cuda_of(b);
    return check(c, cudaGraphLaunch((cudaGraphExec_t)recording, c->stream),
                 "starting a recorded program");
}

static void record_free(const struct ft_backend *b, void *recording)
{
    sync_stream(b);
    cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

static const char *error(const struct ft_backend *b)
{
    return cuda_of(b)->error;
}

static int last_node(const struct ft_backend *b)
{
    return (int)*cuda_of(b)->mark;
}

void ft_cuda_zero(const struct ft_kernel_ctx *ctx, void *p, size_t bytes)
{
    struct ft_cuda *c = ft_cuda_of(ctx);
    if (!c->failed)
        ft_cuda_check(c, cudaMemsetAsync(p, 0, bytes, c->stream), "clearing device memory");
}

static void close_device(const struct ft_backend *b)
{
    struct ft_cuda *c = cuda_of(b);
    ft_products_close(c);
    for (int i = 0; i < FT_DEVICE_MARKS; i++)
        if (c->events[i])
            cudaEventDestroy((cudaEvent_t)c->events[i]);
    if (c->mark)
        cudaFreeHost((void *)c->mark);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c);
}

/* Stands for all kernels of this build. */
static __global__ void probe(void)
{
}

/* The queue and its marks. */
static int open_queue(struct ft_cuda *c)
{
    void *mapped = NULL, *host = NULL;
    if (check(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "opening the GPU") ||
        check(c, cudaHostAlloc(&host, sizeof(uint32_t), cudaHostAllocMapped), "opening the GPU"))
        return -1;
    c->mark = (volatile uint32_t *)host;
    *c->mark = UINT32_MAX; /* nothing has begun */
    if (check(c, cudaHostGetDevicePointer(&mapped, host, 0), "opening the GPU"))
        return -1;
    const char *marks = getenv("FT_CUDA_MARKS"); /* 0: to measure what they cost */
    c->mark_device = marks && strcmp(marks, "0") == 0 ? NULL : (volatile uint32_t *)mapped;
    for (int i = 0; i < FT_DEVICE_MARKS; i++) {
        cudaEvent_t event = NULL;
        if (check(c, cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "opening the GPU"))
            return -1;
        c->events[i] = event;
    }
    return 0;
}

/* Whether there is a driver with devices, and which of them is this one's. */
static int find_device(struct ft_cuda *c)
{
    int driver = 0, count = 0;
    cudaDriverGetVersion(&driver);
    cudaError_t e = cudaGetDeviceCount(&count);
    if (driver == 0) {
        ft_cuda_fail(c, "looking for a GPU", "this machine has no NVIDIA driver");
        return -1;
    }
    if (e == cudaErrorInsufficientDriver) {
        char why[128];
        snprintf(why, sizeof why, "the driver is for CUDA %d.%d, this build needs %d.%d",
                 driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000,
                 CUDART_VERSION % 1000 / 10);
        ft_cuda_fail(c, "looking for a GPU", why);
        return -1;
    }
    if (e != cudaErrorNoDevice && check(c, e, "looking for a GPU"))
        return -1;
    if (e == cudaErrorNoDevice || count == 0) {
        ft_cuda_fail(c, "looking for a GPU", "none is visible (CUDA_VISIBLE_DEVICES?)");
        return -1;
    }
    if (c->device < 0 || count == 1)
        c->device = 0;
    if (c->device >= count) {
        char why[128];
        snprintf(why, sizeof why, "there are more ranks on this host than the %d GPUs it shows",
                 count);
        ft_cuda_fail(c, "opening the GPU", why);
        return -1;
    }
    return 0;
}

static int open_device(struct ft_cuda *c)
{
    struct cudaDeviceProp p;
    if (find_device(c))
        return -1;
    if (check(c, cudaGetDeviceProperties(&p, c->device), "asking for the GPU's properties"))
        return -1;
    if (p.major < 8) {
        char why[256];
        snprintf(why, sizeof why, "%.100s has compute capability %d.%d, ft needs 8.0 or later",
                 p.name, p.major, p.minor);
        ft_cuda_fail(c, "opening the GPU", why);
        return -1;
    }
    snprintf(c->fns.name, sizeof c->fns.name, "%.100s", p.name);
    for (int i = 0; i < 16; i++)
        snprintf(c->fns.id + 2 * i, 3, "%02x", (unsigned char)p.uuid.bytes[i]);
    snprintf(c->isa, sizeof c->isa, "sm_%d%d", p.major, p.minor);
    c->processors = p.multiProcessorCount;
    c->shared_limit = p.sharedMemPerBlockOptin;
    if (check(c, cudaSetDevice(c->device), "opening the GPU"))
        return -1;
    struct cudaFuncAttributes attributes;
    if (cudaFuncGetAttributes(&attributes, probe) != cudaSuccess) {
        char why[256];
        snprintf(why, sizeof why,
                 "this build has no kernels for %.100s (%s); build with "
                 "-DFT_CUDA_ARCHITECTURES=%d%d, or all",
                 p.name, c->isa, p.major, p.minor);
        ft_cuda_fail(c, "opening the GPU", why);
        return -1;
    }
    return open_queue(c) ? -1 : ft_products_open(c);
}

extern "C" __attribute__((visibility("default"))) const struct ft_backend *
ft_cuda_open(const struct ft_interface *caller, int device, char *why, size_t why_room)
{
    struct ft_cuda *c = NULL;
    if (!ft_interface_fits(caller)) {
        snprintf(why, why_room, "the CUDA backend beside ft is of another version");
        return NULL;
    }
    c = (struct ft_cuda *)calloc(1, sizeof *c);
    if (!c) {
        snprintf(why, why_room, "out of memory");
        return NULL;
    }
    c->device = device;
    if (open_device(c)) {
        snprintf(why, why_room, "%s", c->error);
        close_device(&c->base);
        return NULL;
    }
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
    c->fns.wait = wait_for;
    c->fns.sync = sync_stream;
    c->fns.record_begin = record_begin;
    c->fns.record_end = record_end;
    c->fns.replay = replay;
    c->fns.record_free = record_free;
    c->fns.error = error;
    c->fns.last_node = last_node;
    c->fns.close = close_device;
    ft_cuda_fill_table(c);
    return &c->base;
}
