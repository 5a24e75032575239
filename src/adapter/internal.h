/* What the files of adapter/ share. */
#ifndef FT_ADAPTER_INTERNAL_H
#define FT_ADAPTER_INTERNAL_H

#include "adapter/adapter.h"

#include "core/json.h"
#include "core/mem.h"
#include "io/safetensors.h"

/* One adapted module. */
struct ft_slot {
    int site;
    char *name;
    int64_t in, out, r;
    double alpha;
    float scale;
    int group;
    int64_t a_at, b_at;      /* where A (r,in) and B (out,r) begin in the flat block */
    struct ft_tensor *a, *b; /* what products read: the masters, or bf16 copies; NULL: stacked */
    struct ft_tensor *stack; /* the matrix that holds the copies: see struct ft_linears; or NULL */
    int64_t stack_out, stack_in, first_out, first_rank;
};

struct ft_adapter {
    const struct ft_adapter_method *method;
    struct ft_arena arena;
    struct ft_slot *slots;
    int n_slots;
    int *slot_of_site;  /* -1: none */
    int64_t *sites_out; /* columns of every site's output */
    int n_sites;
    int64_t parameters;
    int64_t r; /* the config's own, before patterns; and so alpha */
    double alpha;
    double dropout;
    bool rslora;
    bool conv1d; /* the model's modules are */
    uint64_t seed;
    bool imported; /* from PEFT's files, whose patterns may match nothing */
    bool overlap;  /* patterns give a module two values: the first one counts */
    json_t *peft;  /* adapter_config.json as it will be written */
    char *folder;  /* opened from, or NULL */
    struct ft_tensor *values, *gradients;
    struct ft_tensor *copies; /* (1,P) bf16, where products are not stacked; or NULL */
    struct ft_tensor *table;  /* of the refresh op; or NULL */
};

/* An adapter method: one row. */
struct ft_adapter_method {
    const char *name;      /* config: adapter */
    const char *peft_type; /* adapter_config.json */
    /* module i of the group, which has slot s */
    struct ft_tensor *(*linear)(const struct ft_adapter *a, struct ft_graph *g,
                                const struct ft_slot *s, const struct ft_linears *l, int i);
    /* all of the group at once, which its slots come in: products that they share; NULL: there is
     * no such form, and the modules are computed one by one */
    void (*stacked)(struct ft_adapter *a, struct ft_graph *g, struct ft_linears *l);
    void (*init)(const struct ft_adapter *a, const struct ft_slot *s, float *values);
};
extern const struct ft_adapter_method ft_adapter_methods[];
extern const int ft_adapter_method_count;

static inline struct ft_slot *ft_adapter_slot(const struct ft_adapter *a, int site)
{
    return a->slot_of_site[site] < 0 ? NULL : &a->slots[a->slot_of_site[site]];
}

/* Chooses modules: appends to a->slots (name, in, out, site). */
int ft_adapter_match(struct ft_adapter *a, const struct ft_site *sites, int n,
                     const struct ft_adapter_options *o);
/* PEFT: the name itself, or a whole-component suffix of it. */
bool ft_adapter_name_matches(const char *module, const char *target);
int ft_adapter_add_slot(struct ft_adapter *a, const struct ft_site *sites, int site);
/* Rank, alpha and scale of every slot. */
int ft_adapter_resolve(struct ft_adapter *a, const struct ft_pattern *ranks,
                       const struct ft_pattern *alphas);
/* The adapter_config.json of a fresh adapter. */
int ft_adapter_describe(struct ft_adapter *a, const struct ft_adapter_options *o);
/* From PEFT's files: everything but the values. */
int ft_adapter_import(struct ft_adapter *a, const struct ft_site *sites, int n, const char *folder);
/* claims.c: FT_EDATA if the modules that the opened adapter's config (`file`) names are not those
 * that have tensors. */
int ft_adapter_check_claims(const struct ft_adapter *a, const char *file,
                            const struct ft_site *sites, int n);
int ft_adapter_read_values(const struct ft_adapter *a, float *values);

#endif
