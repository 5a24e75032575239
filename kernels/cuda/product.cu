/* Products by cuBLASLt. The algorithm for a shape is the library's first answer that it says will
 * work, asked for once and kept: so that the same build on the same card gives the same bits. Only
 * when tuning are answers timed; what was chosen then is kept in a file. */
#include "kernels/cuda/product.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>

/* Everything an answer depends on. */
struct key {
    int64_t m, n, k, lda, ldb, ldc, ldd;
    int32_t a_trans, b_trans, out, flags; /* flags: 1 c, 2 bias, 4 c is d, 8 workspace */
    int32_t align[5];                     /* of a, b, c, d, bias, in bytes */
    int32_t pad;
};

struct entry {
    struct key key;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
    bool used;
};

enum { ENTRIES = 1024, ANSWERS = 16, TIMED = 5 };

struct products {
    cublasLtHandle_t handle;
    bool tuning;
    struct entry entries[ENTRIES];
};

static int check(struct ft_cuda *c, cublasStatus_t s, const char *what)
{
    if (s == CUBLAS_STATUS_SUCCESS)
        return 0;
    ft_cuda_fail(c, what, cublasLtGetStatusString(s));
    return -1;
}

/* The largest power of two up to 256 that divides the address. */
static int32_t alignment(const void *p)
{
    int32_t a = 256;
    while (p && (uintptr_t)p % (uintptr_t)a)
        a /= 2;
    return a;
}

static struct key key_of(const struct ft_product *p, bool workspace)
{
    struct key k;
    memset(&k, 0, sizeof k);
    k.m = p->m;
    k.n = p->n;
    k.k = p->k;
    k.lda = p->lda;
    k.ldb = p->ldb;
    k.ldc = p->c ? p->ldc : p->ldd;
    k.ldd = p->ldd;
    k.a_trans = p->a_trans;
    k.b_trans = p->b_trans;
    k.out = p->out;
    k.flags = (p->c ? 1 : 0) | (p->bias ? 2 : 0) | (p->c == p->d ? 4 : 0) | (workspace ? 8 : 0);
    k.align[0] = alignment(p->a);
    k.align[1] = alignment(p->b);
    k.align[2] = alignment(p->c ? p->c : p->d);
    k.align[3] = alignment(p->d);
    k.align[4] = alignment(p->bias);
    return k;
}

/* A slot for the key: its own, or a free one. */
static struct entry *slot_of(struct products *all, const struct key *key)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *key; i++)
        h = (h ^ ((const unsigned char *)key)[i]) * 1099511628211u;
    for (int i = 0; i < ENTRIES; i++) {
        struct entry *e = &all->entries[(h + (uint64_t)i) % ENTRIES];
        if (!e->used || memcmp(&e->key, key, sizeof *key) == 0)
            return e;
    }
    struct entry *e = &all->entries[h % ENTRIES]; /* full: the shape's own place is taken over */
    e->used = false;
    return e;
}

/* The library is column-major: it sees d^T = op(b)^T op(a)^T, so b comes first. */
struct descriptors {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t first, second, c, d;
};

static void drop(struct descriptors *s)
{
    if (s->op)
        cublasLtMatmulDescDestroy(s->op);
    if (s->first)
        cublasLtMatrixLayoutDestroy(s->first);
    if (s->second)
        cublasLtMatrixLayoutDestroy(s->second);
    if (s->c)
        cublasLtMatrixLayoutDestroy(s->c);
    if (s->d)
        cublasLtMatrixLayoutDestroy(s->d);
}

static cublasStatus_t layout(cublasLtMatrixLayout_t *l, cudaDataType_t type, bool trans,
                             int64_t rows, int64_t cols, int64_t ld)
{
    return cublasLtMatrixLayoutCreate(l, type, (uint64_t)(trans ? rows : cols),
                                      (uint64_t)(trans ? cols : rows), ld);
}

static cublasStatus_t describe(struct descriptors *s, const struct ft_product *p)
{
    const cudaDataType_t out = p->out == FT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t first = p->b_trans ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = p->a_trans ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t e = cublasLtMatmulDescCreate(&s->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!e)
        e = cublasLtMatmulDescSetAttribute(s->op, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                           sizeof first);
    if (!e)
        e = cublasLtMatmulDescSetAttribute(s->op, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                           sizeof second);
    if (!e && p->bias) {
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        const cudaDataType_t type = CUDA_R_16BF;
        e = cublasLtMatmulDescSetAttribute(s->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                           sizeof epilogue);
        if (!e)
            e = cublasLtMatmulDescSetAttribute(s->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type,
                                               sizeof type);
        if (!e)
            e = cublasLtMatmulDescSetAttribute(s->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias,
                                               sizeof p->bias);
    }
    if (!e) /* b is (k,n), or (n,k) if transposed; column-major: its transpose */
        e = layout(&s->first, CUDA_R_16BF, p->b_trans, p->k, p->n, p->ldb);
    if (!e)
        e = layout(&s->second, CUDA_R_16BF, p->a_trans, p->m, p->k, p->lda);
    if (!e)
        e = layout(&s->c, out, false, p->m, p->n, p->c ? p->ldc : p->ldd);
    if (!e)
        e = layout(&s->d, out, false, p->m, p->n, p->ldd);
    return e;
}

static cublasStatus_t run(struct ft_cuda *c, struct products *all, const struct descriptors *s,
                          const struct ft_product *p, float beta, void *workspace,
                          const cublasLtMatmulAlgo_t *algorithm, size_t bytes)
{
    const bool apart = p->c && p->c != p->d; /* in place: one descriptor for both */
    return cublasLtMatmul(all->handle, s->op, &p->alpha, p->b, s->first, p->a, s->second, &beta,
                          apart ? p->c : p->d, apart ? s->c : s->d, p->d, s->d, algorithm,
                          workspace, bytes, c->stream);
}

/* Milliseconds of one answer, negative if it fails. What is summed in place is not added to, so
 * that trying many answers leaves one result. */
static float time_answer(struct ft_cuda *c, struct products *all, const struct descriptors *s,
                         const struct ft_product *p, void *workspace,
                         const cublasLtMatmulHeuristicResult_t *answer, cudaEvent_t events[2])
{
    const float beta = p->c && p->c != p->d ? p->beta : 0;
    float ms = -1;
    bool bad = false;
    for (int k = 0; k <= TIMED && !bad; k++) { /* the first one warms up */
        if (k == 1)
            bad = cudaEventRecord(events[0], c->stream) != cudaSuccess;
        bad = bad || run(c, all, s, p, beta, workspace, &answer->algo, answer->workspaceSize);
    }
    bad = bad || cudaEventRecord(events[1], c->stream) || cudaEventSynchronize(events[1]) ||
          cudaEventElapsedTime(&ms, events[0], events[1]);
    if (bad) { /* not this one, then */
        cudaStreamSynchronize(c->stream);
        cudaGetLastError();
    }
    return bad ? -1 : ms;
}

/* The fastest of the answers, -1 if none works; the sums they give differ in their order. */
static int fastest(struct ft_cuda *c, struct products *all, const struct descriptors *s,
                   const struct ft_product *p, void *workspace,
                   const cublasLtMatmulHeuristicResult_t *answers, int n, const size_t most)
{
    cudaEvent_t events[2] = {};
    float best = 0;
    int which = -1;
    if (ft_cuda_check(c, cudaEventCreate(&events[0]), "timing") ||
        ft_cuda_check(c, cudaEventCreate(&events[1]), "timing"))
        return -1;
    for (int i = 0; i < n; i++) {
        if (answers[i].state != CUBLAS_STATUS_SUCCESS || answers[i].workspaceSize > most)
            continue;
        const float ms = time_answer(c, all, s, p, workspace, &answers[i], events);
        if (ms >= 0 && (which < 0 || ms < best)) {
            best = ms;
            which = i;
        }
    }
    cudaEventDestroy(events[0]);
    cudaEventDestroy(events[1]);
    return which;
}

/* Asks the library how to compute this shape, and keeps the first answer that it vouches for, or
 * when tuning the fastest. */
static int choose(struct ft_cuda *c, struct products *all, const struct descriptors *s,
                  const struct ft_product *p, const struct key *key, void *workspace,
                  struct entry *e)
{
    const size_t most = workspace ? FT_PRODUCT_SCRATCH : 0;
    cublasLtMatmulPreference_t prefer = NULL;
    cublasLtMatmulHeuristicResult_t answers[ANSWERS];
    const uint32_t in_f32 = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int n = 0, which = -1;
    static const cublasLtMatmulPreferenceAttributes_t names[4] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint32_t aligned[4] = {(uint32_t)key->align[1], (uint32_t)key->align[0],
                                 (uint32_t)key->align[2], (uint32_t)key->align[3]};
    cublasStatus_t st = cublasLtMatmulPreferenceCreate(&prefer);
    if (!st)
        st = cublasLtMatmulPreferenceSetAttribute(prefer, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                  &most, sizeof most);
    if (!st) /* partial sums meet in f32, never in bf16 */
        st = cublasLtMatmulPreferenceSetAttribute(
            prefer, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &in_f32, sizeof in_f32);
    for (int i = 0; i < 4 && !st; i++)
        st = cublasLtMatmulPreferenceSetAttribute(prefer, names[i], &aligned[i], sizeof aligned[i]);
    if (!st)
        st = cublasLtMatmulAlgoGetHeuristic(all->handle, s->op, s->first, s->second, s->c, s->d,
                                            prefer, ANSWERS, answers, &n);
    if (prefer)
        cublasLtMatmulPreferenceDestroy(prefer);
    if (!st && all->tuning)
        which = fastest(c, all, s, p, workspace, answers, n, most);
    for (int i = 0; i < n && !st && which < 0; i++)
        if (answers[i].state == CUBLAS_STATUS_SUCCESS && answers[i].workspaceSize <= most)
            which = i;
    if (which >= 0) {
        e->algorithm = answers[which].algo;
        e->workspace = answers[which].workspaceSize;
        e->key = *key;
        e->used = true;
        return 0;
    }
    char what[160];
    snprintf(what, sizeof what, "choosing a product of %lld x %lld x %lld", (long long)key->m,
             (long long)key->n, (long long)key->k);
    ft_cuda_fail(c, what,
                 st ? cublasLtGetStatusString(st) : "the library has no way to compute it");
    return -1;
}

void ft_cuda_product(const struct ft_kernel_ctx *ctx, const struct ft_product *p, void *workspace)
{
    struct ft_cuda *c = ft_cuda_of(ctx);
    struct products *all = (struct products *)c->products;
    struct descriptors s = {};
    if (c->failed || p->m == 0 || p->n == 0)
        return;
    const struct key key = key_of(p, workspace != NULL);
    struct entry *e = slot_of(all, &key);
    if (!check(c, describe(&s, p), "describing a product") &&
        (e->used || !choose(c, all, &s, p, &key, workspace, e)))
        check(c, run(c, all, &s, p, p->c ? p->beta : 0, workspace, &e->algorithm, e->workspace),
              "a product");
    drop(&s);
}

/* --- the file of choices: a line that says for what, then a line of hexadecimal bytes a shape ---
 */

/* What one line holds. */
struct line {
    struct key key;
    cublasLtMatmulAlgo_t algorithm;
    uint64_t workspace;
};

static void header_of(const struct ft_cuda *c, char *out, size_t room)
{
    int driver = 0;
    cudaDriverGetVersion(&driver);
    snprintf(out, room, "ft products 1: %s, driver %d, cublasLt %zu\n", c->fns.name, driver,
             cublasLtGetVersion());
}

static int save(const struct ft_backend *b, const char *path)
{
    const struct ft_cuda *c = (const struct ft_cuda *)b;
    const struct products *all = (const struct products *)c->products;
    char header[256];
    FILE *f = fopen(path, "we");
    if (!f)
        return -1;
    header_of(c, header, sizeof header);
    fputs(header, f);
    for (int i = 0; i < ENTRIES; i++) {
        struct line l;
        if (!all->entries[i].used)
            continue;
        memset(&l, 0, sizeof l);
        l.key = all->entries[i].key;
        l.algorithm = all->entries[i].algorithm;
        l.workspace = all->entries[i].workspace;
        for (size_t k = 0; k < sizeof l; k++)
            fprintf(f, "%02x", ((const unsigned char *)&l)[k]);
        fputc('\n', f);
    }
    const bool bad = ferror(f) != 0;
    return fclose(f) || bad ? -1 : 0;
}

static bool parse(const char *text, struct line *l)
{
    if (strspn(text, "0123456789abcdef") != 2 * sizeof *l)
        return false;
    for (size_t k = 0; k < sizeof *l; k++) {
        const char digits[3] = {text[2 * k], text[2 * k + 1], 0};
        ((unsigned char *)l)[k] = (unsigned char)strtoul(digits, NULL, 16);
    }
    return l->workspace <= FT_PRODUCT_SCRATCH;
}

static int load(const struct ft_backend *b, const char *path, int *count)
{
    const struct ft_cuda *c = (const struct ft_cuda *)b;
    struct products *all = (struct products *)c->products;
    char header[256], text[2 * sizeof(struct line) + 64];
    FILE *f = fopen(path, "re");
    *count = 0;
    if (!f)
        return 0;
    header_of(c, header, sizeof header);
    if (fgets(text, sizeof text, f) && strcmp(text, header) == 0)
        while (fgets(text, sizeof text, f)) {
            struct line l;
            if (!parse(text, &l))
                continue;
            struct entry *e = slot_of(all, &l.key);
            e->key = l.key;
            e->algorithm = l.algorithm;
            e->workspace = (size_t)l.workspace;
            e->used = true;
            ++*count;
        }
    fclose(f);
    return 0;
}

static int tune(const struct ft_backend *b, int on)
{
    struct products *all = (struct products *)((const struct ft_cuda *)b)->products;
    all->tuning = on;
    for (int i = 0; i < ENTRIES && on; i++)
        all->entries[i].used = false; /* choose again */
    return 0;
}

int ft_products_open(struct ft_cuda *c)
{
    struct products *all = (struct products *)calloc(1, sizeof *all);
    if (!all) {
        ft_cuda_fail(c, "opening cuBLASLt", "out of memory");
        return -1;
    }
    c->products = all;
    c->fns.products_tune = tune;
    c->fns.products_save = save;
    c->fns.products_load = load;
    return check(c, cublasLtCreate(&all->handle), "opening cuBLASLt");
}

void ft_products_close(struct ft_cuda *c)
{
    struct products *all = (struct products *)c->products;
    if (all && all->handle)
        cublasLtDestroy(all->handle);
    free(all);
    c->products = NULL;
}
