/* What the files of quantised weights share: a way of quantising is a struct ft_way in the file of
 * its library, and a row of `ways` in quantised.c. */
#ifndef FT_MODEL_QUANTISED_H
#define FT_MODEL_QUANTISED_H

#include "model/internal.h"
#include "model/quantise.h"

struct ft_way {
    const char *method; /* quant_method of config.json; NULL: made while loading */
    /* Tensors by what stands behind a module's name: one that only weights of this way have, the
     * codes, and all that belong to it. */
    const char *mark, *codes, *planes[8];
    /* Reads quantization_config into m->said; may be NULL. FT_EDATA */
    int (*config)(struct ft_model *m, const json_t *q, const char *file);
    /* Checks what the files have, and sets w->as and w->block. FT_EDATA */
    int (*open)(const struct ft_model *m, struct ft_weight *w);
    /* Fills the planes, on the host. scan: numbers that are not finite are an error */
    int (*load)(const struct ft_model *m, const struct ft_weight *w, struct ft_pool *pool,
                bool scan, const struct ft_planes *q);
    size_t (*room)(const struct ft_weight *w); /* host memory while it is loaded; NULL: none */
};
extern const struct ft_way ft_bnb4_way, ft_bnb8_way;                /* bnb.c */
extern const struct ft_way ft_fp8_way, ft_ct_fp8_way;               /* fp8.c */
extern const struct ft_way ft_mxfp4_way;                            /* mxfp4.c */
extern const struct ft_way ft_ct_int4_way, ft_gptq_way, ft_awq_way; /* int4.c */

extern const struct ft_way ft_gguf_way; /* gguf.c; of files of their own */

struct ft_where ft_plane_where(const struct ft_weight *w); /* the file of its codes */
/* The tensor `suffix` of a weight's module; NULL: there is none. */
const struct ft_st_entry *ft_plane_find(const struct ft_model *m, const struct ft_weight *w,
                                        const char *suffix, struct ft_st **file);
static inline size_t ft_plane_size(const struct ft_st_entry *e)
{
    return (size_t)(e->end - e->begin);
}
int ft_plane_missing(const struct ft_weight *w, const char *suffix);
/* Reads a plane of exactly `bytes`, whatever it says that its elements are; to NULL: only checks.
 * FT_EDATA, FT_ERESOURCE. */
int ft_plane_read(const struct ft_model *m, const struct ft_weight *w, const char *suffix, void *to,
                  size_t bytes);
/* Reads a plane of n floating-point numbers as f32; out NULL: only checks. scan: they are finite.
 */
int ft_plane_numbers(const struct ft_model *m, const struct ft_weight *w, const char *suffix,
                     float *out, size_t n, bool scan);
/* FT_EDATA unless all n numbers are finite. */
int ft_plane_finite(const struct ft_weight *w, const char *suffix, const float *numbers, size_t n);
/* Its tensor in memory, with no data. */
static inline struct ft_tensor ft_weight_tensor(const struct ft_weight *w)
{
    return (struct ft_tensor){
        .rows = w->rows, .cols = w->cols, .dtype = w->as, .block = w->block, .parts = w->parts};
}

#endif
