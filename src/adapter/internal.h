/* What the files of adapter/ share. */
#ifndef FT_ADAPTER_INTERNAL_H
#define FT_ADAPTER_INTERNAL_H

#include "adapter/adapter.h"

#include "core/json.h"
#include "core/mem.h"
#include "io/safetensors.h"

/* What a parameter of a module is. */
enum ft_role {
    FT_LORA_A,
    FT_LORA_B,
    FT_MAGNITUDE,
    FT_VERA_B = FT_LORA_A,
    FT_VERA_D = FT_LORA_B,
    FT_IA3_L = FT_LORA_A,
    FT_HADA_1A = 0,
    FT_HADA_1B,
    FT_HADA_2A,
    FT_HADA_2B,
    FT_LOKR_1 = 0,
    FT_LOKR_2,
    FT_LOKR_2A,
    FT_LOKR_2B,
    FT_ROLES
};

/* Which learning rate a parameter takes: LoRA+ gives the others one of their own. */
enum ft_rate_kind { FT_RATE_FIRST, FT_RATE_SECOND, FT_RATE_EMBEDDING, FT_RATE_KINDS };

/* A tensor of PEFT's file, in the flat block of all that is trained. */
struct ft_parameter {
    const char *name; /* in the file */
    int64_t rows, cols;
    int n_dims;                /* in the file: 1 where cols is 1 */
    bool vector;               /* a row for ops, however it lies in the file */
    bool end;                  /* see struct ft_trained_parameter */
    int64_t experts;           /* so many matrices, below each other; 1 */
    bool turned;               /* the file has each as (cols, rows) */
    bool beside;               /* the file has them side by side, column by column by turns */
    int64_t at;                /* its first element in the block */
    const struct ft_slot *old; /* whose file has a tensor of each expert's modules instead; NULL */
    /* once declared: what products read, the master or a bf16 copy of it; NULL where several
     * modules are stacked */
    struct ft_tensor *value;
    struct ft_tensor *frozen; /* what it began with, if that is taken away again; or NULL */
};

/* A part of the flat block, and what the learning rate is multiplied with there. */
struct ft_rates_range {
    int64_t first, n;
    double rate;
    bool decays;
};

/* A frozen matrix that all modules share, in the frozen block and in PEFT's file. */
struct ft_frozen_matrix {
    const char *name;
    int64_t rows, cols, at;
};
enum { FT_FROZEN = 2 };

/* One adapted module. */
struct ft_slot {
    int site;
    enum ft_site_kind kind;
    bool feedforward, apart;
    const char *const *once; /* see struct ft_site */
    const char *once_in;
    bool crossed;
    bool old; /* its file has it as modules of each expert */
    char *name;
    int64_t in, out, experts, r;
    int64_t in_factor[2], out_factor[2]; /* LoKr's, the smaller first */
    double alpha;
    float scale;
    int group;
    struct ft_parameter *p[FT_ROLES]; /* NULL: the method has none such */
    struct ft_tensor *w;              /* the frozen weight, once built */
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
    int n_sites, n_layers;
    struct ft_parameter *parameters; /* those of the slots, then the wholes */
    int n_parameters;
    struct ft_parameter **wholes; /* in the order of the options */
    struct ft_tensor **whole_copies;
    int n_wholes;
    int64_t size, slot_size; /* elements of all; of the slots' */
    double rate[FT_RATE_KINDS];
    struct ft_rates_range ranges[FT_RATE_KINDS + 2];
    int n_ranges;
    int64_t r; /* the config's own, before patterns; and so alpha */
    double alpha;
    double dropout;
    bool rslora;
    bool conv1d;   /* the model's modules are */
    bool by_layer; /* of a parameter of experts some layers are adapted, and others not */
    char *scope;   /* see struct ft_site; or NULL */
    uint64_t seed;
    bool imported; /* from PEFT's files, whose patterns may match nothing */
    bool overlap;  /* patterns give a module two values: the first one counts */
    json_t *peft;  /* adapter_config.json as it will be written */
    char *folder;  /* opened from, or NULL */
    const struct ft_lora_start *start;
    struct ft_lapack *lapack; /* while it starts */
    /* what is frozen: the part of the weights that the adapter began with, as the slots' values
     * lie; or the matrices that all modules share. On the host, and what products read */
    int64_t frozen_size;
    struct ft_frozen_matrix shared[FT_FROZEN];
    int n_shared;
    float *frozen_values, *frozen_copy; /* the second: of a device */
    struct ft_tensor *frozen;
    struct ft_tensor *values, *gradients;
    struct ft_tensor *copies; /* (1,P) bf16, where products are not stacked; or NULL */
    struct ft_tensor *table;  /* of the refresh op; or NULL */
};

/* A parameter that each module of a method has: its tensor's name behind the module's, and shape.
 */
struct ft_parameter_row {
    const char *suffix; /* NULL ends */
    enum ft_role role;
    enum ft_size {
        FT_SIZE_R,
        FT_SIZE_IN,
        FT_SIZE_OUT,
        FT_SIZE_RANKS, /* of all experts */
        FT_SIZE_OUTS,
        FT_SIZE_OUT_SMALL, /* the factors of both */
        FT_SIZE_OUT_LARGE,
        FT_SIZE_IN_SMALL,
        FT_SIZE_IN_LARGE,
        FT_SIZE_ONE,
        FT_SIZE_NONE /* no such dimension in the file */
    } rows,
        cols;
    enum ft_rate_kind rate;
    bool master;                           /* ops read it as f32 on every backend */
    bool turned;                           /* the file has (cols, rows) */
    bool (*when)(const struct ft_slot *s); /* the modules that have it; NULL: all */
};

enum { FT_PARAMETER_ROWS = 5 };

/* How a LoRA begins: one row. */
struct ft_lora_start {
    const char *name;
    bool residual; /* with a part of the weight, which a frozen pair takes away */
    bool lapack;
    /* A (r, in) and B (out, r), from the weight (out, in) if it is residual */
    int (*fill)(const struct ft_adapter *a, const struct ft_slot *s, const float *w, float *p,
                float *q);
};
const struct ft_lora_start *ft_lora_start(const char *name); /* NULL: none */
/* The first values of all slots. */
int ft_lora_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx);

/* An adapter method: one row. */
struct ft_adapter_method {
    const char *name, *title;
    const char *peft_type; /* adapter_config.json; NULL: no adapter, the model itself is trained */
    struct ft_parameter_row parameters[FT_PARAMETER_ROWS];
    const char *rank, *alpha, *dropout; /* keys of adapter_config.json; NULL: it has none */
    long long default_rank;             /* PEFT's */
    /* those of a module that is the last of an MLP, where they are others */
    struct ft_parameter_row feedforward[FT_PARAMETER_ROWS];
    struct ft_parameter_row embedding[FT_PARAMETER_ROWS]; /* those of an embedding's; none: it can
                                                             have no adapter */
    struct ft_parameter_row experts[FT_PARAMETER_ROWS];   /* those of experts'; none: likewise */
    /* module i of the group, which has slot s */
    struct ft_tensor *(*linear)(const struct ft_adapter *a, struct ft_graph *g,
                                const struct ft_slot *s, const struct ft_linears *l, int i);
    enum ft_role zero; /* of LoHa and LoKr: what begins with zeros */
    /* what sizes follow from a module's, once its rank is known; NULL: none */
    void (*shape)(struct ft_slot *s);
    bool conv1d; /* PEFT has it for transposed weights too */
    /* the frozen matrices of all modules, once these are known: their number; NULL: none */
    int (*share)(const struct ft_adapter *a, struct ft_frozen_matrix out[FT_FROZEN]);
    /* all of the group at once, which its slots come in: products that they share; NULL: there is
     * no such form, and the modules are computed one by one */
    void (*stacked)(struct ft_adapter *a, struct ft_graph *g, struct ft_linears *l);
    /* the same for the embedding and the head; NULL: they can have none */
    struct ft_tensor *(*embed)(struct ft_graph *g, const struct ft_slot *s,
                               const struct ft_embed_args *base, struct ft_tensor *h);
    void (*head)(const struct ft_adapter *a, struct ft_graph *g, const struct ft_slot *s,
                 struct ft_tensor *keys, struct ft_head_loss_args *head);
    /* the first values of a fresh adapter, in the block `values`; what ops make of the weights
     * follows in FT_START; NULL: nothing does */
    int (*init)(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx);
    void (*start)(const struct ft_adapter *a, struct ft_graph *g, const struct ft_slot *s);
    /* row `row` of a slot's weight, f32, becomes what the adapter makes of it (merge.c); adds: by
     * adding, so that a share of it can be taken, and several follow each other */
    void (*merge)(const struct ft_adapter *a, const float *values, const struct ft_slot *s,
                  float share, int64_t row, float *w);
    bool adds;
    /* what its adapter_config.json says beside what all say */
    json_t *(*config)(const struct ft_adapter *a, const struct ft_adapter_options *o);
};
extern const struct ft_adapter_method ft_adapter_methods[];

/* merge.c */
#define MERGE(name)                                                                                \
    void ft_##name##_merge(const struct ft_adapter *a, const float *values,                        \
                           const struct ft_slot *s, float share, int64_t row, float *w);
MERGE(lora)
MERGE(dora)
MERGE(vera)
MERGE(ia3)
MERGE(loha)
MERGE(lokr)
#undef MERGE
extern const int ft_adapter_method_count;
const struct ft_adapter_method *ft_adapter_method(const char *name); /* NULL: none */

/* The parameters that a module of this kind has. */
static inline const struct ft_parameter_row *
ft_method_rows(const struct ft_adapter_method *m, enum ft_site_kind kind, bool feedforward)
{
    return kind == FT_SITE_EMBEDDING                 ? m->embedding
           : kind == FT_SITE_EXPERTS                 ? m->experts
           : feedforward && m->feedforward[0].suffix ? m->feedforward
                                                     : m->parameters;
}

static inline bool ft_method_covers(const struct ft_adapter_method *m, enum ft_site_kind kind)
{
    return kind == FT_SITE_LINEAR || (kind == FT_SITE_EMBEDDING && m->embed) ||
           (kind == FT_SITE_HEAD && m->head) || (kind == FT_SITE_EXPERTS && m->experts[0].suffix);
}

static inline int ft_adapter_slots_of(const struct ft_adapter *a, enum ft_site_kind kind)
{
    int n = 0;
    for (int i = 0; i < a->n_slots; i++)
        n += a->slots[i].kind == kind;
    return n;
}

static inline struct ft_slot *ft_adapter_slot(const struct ft_adapter *a, int site)
{
    return a->slot_of_site[site] < 0 ? NULL : &a->slots[a->slot_of_site[site]];
}

/* Where the gradient of a parameter is summed; a vector is a row. */
/* With dropout, the columns that each of these modules takes in their stack: the largest rank,
 * rounded up to 8; without, 0: each its rank. */
int64_t ft_adapter_pitch(const struct ft_adapter *a, int first, int n);
struct ft_tensor *ft_parameter_gradient(const struct ft_adapter *a, struct ft_graph *g,
                                        const struct ft_parameter *p);

/* Chooses modules: appends to a->slots (name, in, out, site). */
int ft_adapter_match(struct ft_adapter *a, const struct ft_site *sites, int n,
                     const struct ft_adapter_options *o);
/* Whether the name is one that adapted experts had when they were modules. */
bool ft_adapter_means_experts(const struct ft_adapter *a, const char *target);
/* PEFT: the name itself, or a whole-component suffix of it. */
bool ft_adapter_name_matches(const char *module, const char *target);
int ft_adapter_add_experts(struct ft_adapter *a, const struct ft_site *sites, int site, bool old);
int ft_adapter_add_slot(struct ft_adapter *a, const struct ft_site *sites, int site);
/* Rank, alpha and scale of every slot, and the parameters. */
int ft_adapter_resolve(struct ft_adapter *a, const struct ft_pattern *ranks,
                       const struct ft_pattern *alphas, const struct ft_whole *wholes,
                       int n_wholes);
/* What a low-rank part reads of x: drop(x) w^T; of experts, each its rows. */
struct ft_tensor *ft_adapter_down(const struct ft_adapter *a, struct ft_graph *g,
                                  const struct ft_slot *s, struct ft_tensor *w, struct ft_tensor *x,
                                  struct ft_tensor *keys, struct ft_tensor *offsets);

/* vera.c, ia3.c: the functions of their rows */
int ft_vera_share(const struct ft_adapter *a, struct ft_frozen_matrix out[FT_FROZEN]);
struct ft_tensor *ft_vera_linear(const struct ft_adapter *a, struct ft_graph *g,
                                 const struct ft_slot *s, const struct ft_linears *l, int i);
int ft_vera_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx);
json_t *ft_vera_config(const struct ft_adapter *a, const struct ft_adapter_options *o);
struct ft_tensor *ft_ia3_linear(const struct ft_adapter *a, struct ft_graph *g,
                                const struct ft_slot *s, const struct ft_linears *l, int i);
int ft_ia3_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx);
json_t *ft_ia3_config(const struct ft_adapter *a, const struct ft_adapter_options *o);

/* lycoris.c */
struct ft_tensor *ft_loha_linear(const struct ft_adapter *a, struct ft_graph *g,
                                 const struct ft_slot *s, const struct ft_linears *l, int i);
struct ft_tensor *ft_lokr_linear(const struct ft_adapter *a, struct ft_graph *g,
                                 const struct ft_slot *s, const struct ft_linears *l, int i);
void ft_lokr_shape(struct ft_slot *s);
bool ft_lokr_is_whole(const struct ft_slot *s); /* its second matrix */
bool ft_lokr_is_narrow(const struct ft_slot *s);
int ft_lycoris_init(struct ft_adapter *a, float *values, ft_site_weight_fn *weight, void *ctx);
json_t *ft_loha_config(const struct ft_adapter *a, const struct ft_adapter_options *o);
json_t *ft_lokr_config(const struct ft_adapter *a, const struct ft_adapter_options *o);

/* peft.c: ranks or alphas that differ */
json_t *ft_pattern_config(const struct ft_adapter *a, const struct ft_pattern *p, bool ranks);
/* peft.c: the layers that were chosen by number, or null */
json_t *ft_layers_config(const struct ft_adapter *a, const struct ft_adapter_options *o);
/* peft.c: of LoRA and DoRA. */
json_t *ft_lora_config(const struct ft_adapter *a, const struct ft_adapter_options *o);
/* The adapter_config.json of a fresh adapter. */
int ft_adapter_describe(struct ft_adapter *a, const struct ft_adapter_options *o);
/* From PEFT's files: everything but the values. */
int ft_adapter_import(struct ft_adapter *a, const struct ft_site *sites, int n, const char *folder,
                      const struct ft_adapter_options *o);
/* claims.c: FT_EDATA if the modules that the opened adapter's config (`file`) names are not those
 * that have tensors. */
int ft_adapter_check_claims(const struct ft_adapter *a, const char *file,
                            const struct ft_site *sites, int n);
int ft_adapter_read_values(const struct ft_adapter *a, float *values);
/* once.c: a parameter of experts whose file has them as modules of their own, expert by expert: the
 * tensors are there, as large as they must be; whether a tensor is one of them; its values; and a
 * config that says what ft will write instead. */
int ft_once_check(const struct ft_parameter *p, const struct ft_st *f);
bool ft_once_has(const struct ft_adapter *a, const char *tensor);
int ft_once_read(const struct ft_parameter *p, const struct ft_st *f, float *out);
int ft_once_convert(struct ft_adapter *a);
/* peft.c: the names of the experts' parameters that are adapted, or null; and whether they have to
 * say their layers (by_layer). */
json_t *ft_target_parameters(const struct ft_adapter *a);
void ft_adapter_compare_layers(struct ft_adapter *a, const struct ft_site *sites, int n);
int ft_adapter_read_f32(const struct ft_st *f, const struct ft_st_entry *e, int64_t n, float *out);

#endif
