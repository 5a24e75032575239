/* Fibers, their scheduler, and the warp's instructions. */
#include "kernels/cuda/device.cuh"

#include <deque>
#include <memory>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
static void __sanitizer_start_switch_fiber(void **, const void *, size_t)
{
}
static void __sanitizer_finish_switch_fiber(void *, const void **, size_t *)
{
}
#endif

/* --- switching stacks --- */

#if defined(__x86_64__)

extern "C" void ft_host_switch(void **save, void *load);
asm(".text\n"
    ".p2align 4\n"
    ".type ft_host_switch, @function\n"
    "ft_host_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq "
    "%r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size ft_host_switch, .-ft_host_switch\n");

struct context {
    void *sp;
};
static void context_make(struct context *c, char *stack, size_t size, void (*entry)(void))
{
    uint64_t *top = (uint64_t *)(((uintptr_t)stack + size) & ~(uintptr_t)15);
    *--top = 0;                          /* entry sees a stack as after a call */
    *--top = (uint64_t)(uintptr_t)entry; /* ret goes here */
    for (int i = 0; i < 6; i++)
        *--top = 0;
    c->sp = top;
}
static void context_switch(struct context *from, struct context *to)
{
    ft_host_switch(&from->sp, to->sp);
}

#else

#include <ucontext.h>
struct context {
    ucontext_t u;
};
static void context_make(struct context *c, char *stack, size_t size, void (*entry)(void))
{
    getcontext(&c->u);
    c->u.uc_stack.ss_sp = stack;
    c->u.uc_stack.ss_size = size;
    c->u.uc_link = NULL;
    makecontext(&c->u, entry, 0);
}
static void context_switch(struct context *from, struct context *to)
{
    swapcontext(&from->u, &to->u);
}

#endif

/* --- a block --- */

enum { STACK = 256 << 10, MOST_THREADS = 1024 };

struct copy {
    void *to;
    const void *from; /* NULL: zeros */
};

struct fiber {
    struct context context;
    std::unique_ptr<char[]> stack;
    void *fake_stack; /* the sanitizer's */
    bool done;
    std::deque<std::vector<struct copy>> copies; /* a vector a commit; the last one is open */
};

/* Lanes of a warp on their way to a rendezvous. */
struct meeting {
    int come;
    const void *what; /* the function that will compute: all lanes must mean the same */
    void *lanes[32];
};

struct ft_host_launch_info ft_host_launch;
size_t ft_host_shared_limit;

static struct {
    std::vector<struct fiber> fibers;
    std::vector<int> ready; /* to run, in this order */
    std::vector<int> at_barrier;
    struct meeting warps[MOST_THREADS / 32];
    int now, left;
    struct context scheduler;
    void *fake_stack;
    const void *scheduler_stack;
    size_t scheduler_size;
    unsigned char *shared;
    const std::function<void()> *kernel;
    uint64_t seed;
} block;

[[noreturn]] static void stop(const char *why)
{
    fprintf(stderr, "host emulation: %s (block %lld,%d,%d, thread %d)\n", why,
            (long long)ft_host_launch.block_x, ft_host_launch.block_y, ft_host_launch.block_z,
            block.now);
    abort();
}

static void to_scheduler(bool for_good)
{
    struct fiber *f = &block.fibers[(size_t)block.now];
    __sanitizer_start_switch_fiber(for_good ? NULL : &f->fake_stack, block.scheduler_stack,
                                   block.scheduler_size);
    context_switch(&f->context, &block.scheduler);
    __sanitizer_finish_switch_fiber(f->fake_stack, &block.scheduler_stack, &block.scheduler_size);
}

static void fiber_main(void)
{
    __sanitizer_finish_switch_fiber(NULL, &block.scheduler_stack, &block.scheduler_size);
    (*block.kernel)();
    struct fiber *f = &block.fibers[(size_t)block.now];
    for (const auto &group : f->copies)
        if (!group.empty())
            stop("a thread ended with a copy in flight");
    f->done = true;
    block.left--;
    to_scheduler(true);
    stop("a finished thread went on");
}

static void run_fiber(int i)
{
    struct fiber *f = &block.fibers[(size_t)i];
    block.now = i;
    __sanitizer_start_switch_fiber(&block.fake_stack, f->stack.get(), STACK);
    context_switch(&block.scheduler, &f->context);
    __sanitizer_finish_switch_fiber(block.fake_stack, NULL, NULL);
}

/* Puts fibers first..first+n-1 on the list, beginning with a different one each time. */
static void release(const int *list, int n)
{
    block.seed = block.seed * 6364136223846793005u + 1442695040888963407u;
    const int turn = (int)((block.seed >> 33) % (uint64_t)n);
    for (int i = 0; i < n; i++)
        block.ready.push_back(list[(i + turn) % n]);
}

static void release_barrier(void)
{
    if (block.left == 0 || (int)block.at_barrier.size() < block.left)
        return;
    const std::vector<int> all = std::move(block.at_barrier);
    block.at_barrier.clear();
    release(all.data(), (int)all.size());
}

static void run_block(int threads, size_t shared)
{
    std::vector<int> all((size_t)threads);
    if (block.fibers.size() < (size_t)threads)
        block.fibers.resize((size_t)threads);
    for (int i = 0; i < threads; i++) {
        struct fiber *f = &block.fibers[(size_t)i];
        if (!f->stack)
            f->stack.reset(new char[STACK]);
        /* fiber_main never returns: what the sanitizer marked of its frame is still there */
        ASAN_UNPOISON_MEMORY_REGION(f->stack.get() + STACK - 4096, 4096);
        f->done = false;
        f->fake_stack = NULL;
        f->copies.assign(1, {});
        context_make(&f->context, f->stack.get(), STACK, fiber_main);
        all[(size_t)i] = i;
    }
    block.shared = (unsigned char *)malloc(shared + !shared); /* exactly: the sanitizer looks */
    memset(block.shared, 0xff, shared);
    memset(block.warps, 0, sizeof block.warps);
    block.ready.clear();
    block.at_barrier.clear();
    block.left = threads;
    release(all.data(), threads);
    for (size_t next = 0; block.left > 0; next++) {
        if (next == block.ready.size())
            stop("no thread can go on: a barrier or a warp's instruction is not reached by all");
        run_fiber(block.ready[next]);
        release_barrier();
        if (next > 65536) { /* keep the list short */
            block.ready.erase(block.ready.begin(), block.ready.begin() + (long)next + 1);
            next = (size_t)-1;
        }
    }
    free(block.shared);
}

static void run_grid(int64_t x, int y, int z, int threads, size_t shared,
                     const std::function<void()> &kernel)
{
    if (threads % 32 || threads > MOST_THREADS)
        stop("a block must be whole warps, 1024 threads at most");
    if (shared > ft_host_shared_limit)
        stop("more shared memory than a block can have");
    block.kernel = &kernel;
    for (int64_t i = 0; i < x; i++)
        for (int j = 0; j < y; j++)
            for (int k = 0; k < z; k++) {
                ft_host_launch = {threads, j, k, y, i, x};
                run_block(threads, shared);
            }
}

void ft_host_submit(struct ft_cuda *c, int64_t x, int y, int z, int threads, size_t shared,
                    std::function<void()> kernel)
{
    ft_host_submit_plain(c, [=] { run_grid(x, y, z, threads, shared, kernel); });
}

/* --- what a thread may do --- */

int ft_host_thread(void)
{
    return block.now;
}

void *ft_host_shared(void)
{
    return block.shared;
}

void ft_host_sync_block(void)
{
    block.at_barrier.push_back(block.now);
    to_scheduler(false);
}

typedef void meet_fn(void *const lanes[32]);

static void meet(meet_fn *fn, void *mine)
{
    struct meeting *m = &block.warps[block.now / 32];
    if (m->come > 0 && m->what != (const void *)fn)
        stop("the lanes of a warp are at different instructions");
    m->what = (const void *)fn;
    m->lanes[block.now % 32] = mine;
    if (++m->come < 32) {
        to_scheduler(false);
        return;
    }
    fn(m->lanes);
    m->come = 0;
    int others[31], n = 0;
    for (int i = 0; i < 32; i++)
        if (i != block.now % 32)
            others[n++] = block.now / 32 * 32 + i;
    release(others, n);
}

static void nothing(void *const lanes[32])
{
    (void)lanes;
}

void ft_host_sync_warp(void)
{
    meet(nothing, NULL);
}

struct shuffle {
    float in, out;
    int mask;
};

static void shuffle_all(void *const lanes[32])
{
    for (int i = 0; i < 32; i++) {
        struct shuffle *s = (struct shuffle *)lanes[i];
        s->out = ((struct shuffle *)lanes[i ^ s->mask])->in;
    }
}

float ft_host_shuffle_xor(float v, int mask)
{
    struct shuffle s = {v, 0, mask};
    meet(shuffle_all, &s);
    return s.out;
}

struct matrices {
    const uint16_t *row;
    uint32_t *out;
    bool trans;
};

static void load_matrices(void *const lanes[32])
{
    for (int l = 0; l < 32; l++) {
        const struct matrices *mine = (const struct matrices *)lanes[l];
        for (int m = 0; m < 4; m++) {
            uint32_t v[2];
            for (int e = 0; e < 2; e++) {
                const int row = mine->trans ? l % 4 * 2 + e : l / 4;
                const int col = mine->trans ? l / 4 : l % 4 * 2 + e;
                const struct matrices *at = (const struct matrices *)lanes[8 * m + row];
                if ((uintptr_t)at->row % 16)
                    stop("ldmatrix needs rows at 16 bytes");
                v[e] = at->row[col];
            }
            mine->out[m] = v[0] | v[1] << 16;
        }
    }
}

void ft_host_ldmatrix(uint32_t r[4], const bf16 *row, bool trans)
{
    struct matrices m = {(const uint16_t *)row, r, trans};
    meet(load_matrices, &m);
}

struct product {
    float *d;
    const uint32_t *a;
    uint32_t b[2];
};

static float half_of(uint32_t pair, int which)
{
    const uint32_t u = which ? pair & 0xffff0000u : pair << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static void multiply(void *const lanes[32])
{
    float a[16][16], b[16][8];
    for (int l = 0; l < 32; l++) {
        const struct product *p = (const struct product *)lanes[l];
        for (int e = 0; e < 8; e++)
            a[l / 4 + e / 2 % 2 * 8][l % 4 * 2 + e % 2 + e / 4 * 8] = half_of(p->a[e / 2], e % 2);
        for (int e = 0; e < 4; e++)
            b[l % 4 * 2 + e % 2 + e / 2 * 8][l / 4] = half_of(p->b[e / 2], e % 2);
    }
    for (int l = 0; l < 32; l++) {
        const struct product *p = (const struct product *)lanes[l];
        for (int e = 0; e < 4; e++) {
            float sum = 0;
            for (int k = 0; k < 16; k++)
                sum += a[l / 4 + e / 2 * 8][k] * b[k][l % 4 * 2 + e % 2];
            p->d[e] += sum;
        }
    }
}

void ft_host_mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    struct product p = {d, a, {b0, b1}};
    meet(multiply, &p);
}

void ft_host_copy_async(bf16 *shared, const bf16 *from, bool valid)
{
    if ((uintptr_t)shared % 16 || (valid && (uintptr_t)from % 16))
        stop("an asynchronous copy needs addresses at 16 bytes");
    memset((void *)shared, 0xff, 16);
    block.fibers[(size_t)block.now].copies.back().push_back({shared, valid ? from : NULL});
}

void ft_host_copy_commit(void)
{
    block.fibers[(size_t)block.now].copies.push_back({});
}

void ft_host_copy_wait(int pending)
{
    auto &copies = block.fibers[(size_t)block.now].copies;
    while ((int)copies.size() > pending + 1) {
        for (const struct copy &c : copies.front()) {
            if (c.from)
                memcpy(c.to, c.from, 16);
            else
                memset(c.to, 0, 16);
        }
        copies.pop_front();
    }
}
