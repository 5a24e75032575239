/* Adapters from before experts were parameters: modules of each expert, a gate, an up and a down.
 * PEFT turns them into the parameters' when it loads them, gate and up side by side: A's below each
 * other, B's on the diagonal. So does ft, and writes the parameters'. */
#include "adapter/internal.h"

#include "core/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Matrix k of an expert in a parameter: the tensor's name, and the part of the expert's rows and
 * columns that it is. */
struct piece {
    char name[512];
    int64_t rows, cols, row, col;
};

static int count_pieces(const struct ft_slot *s)
{
    return s->once[1] ? 2 : 1;
}

static struct piece piece_of(const struct ft_parameter *p, int64_t expert, int k)
{
    const struct ft_slot *s = p->old;
    const int n = count_pieces(s);
    const bool down = p == s->p[FT_LORA_A];
    const int64_t r = s->r / n, out = s->out / n;
    struct piece t = {.rows = down ? r : out,
                      .cols = down ? s->in : r,
                      .row = down ? k * r : k * out,
                      .col = down ? 0 : k * r};
    snprintf(t.name, sizeof t.name, "base_model.model.%s.%lld.%s.lora_%s.weight", s->once_in,
             (long long)expert, s->once[k], down ? "A" : "B");
    return t;
}

int ft_once_check(const struct ft_parameter *p, const struct ft_st *f)
{
    const struct ft_where at = {.file = ft_st_path(f)};
    for (int64_t e = 0; e < p->old->experts; e++)
        for (int k = 0; k < count_pieces(p->old); k++) {
            const struct piece t = piece_of(p, e, k);
            const struct ft_st_entry *is = ft_st_find(f, t.name);
            if (!is)
                return ft_fail_at(at, FT_EDATA, "tensor '%s' is missing", t.name);
            if ((is->dtype != FT_F32 && is->dtype != FT_BF16 && is->dtype != FT_F16) ||
                is->n_dims != 2 || is->dims[0] != t.rows || is->dims[1] != t.cols)
                return ft_fail_at(at, FT_EDATA,
                                  "tensor '%s' is not %lld x %lld numbers of F32, F16 or BF16, as "
                                  "adapter_config.json and this model imply",
                                  t.name, (long long)t.rows, (long long)t.cols);
        }
    return FT_OK;
}

/* The expert whose number follows the module's name in a tensor's; -1: none does. */
static int64_t expert_in(const struct ft_slot *s, const char *tensor)
{
    static const char prefix[] = "base_model.model.";
    if (!s->old || !ft_starts_with(tensor, prefix) ||
        !ft_starts_with(tensor + sizeof prefix - 1, s->once_in))
        return -1;
    const char *number = tensor + sizeof prefix - 1 + strlen(s->once_in);
    if (number[0] != '.' || number[1] < '0' || number[1] > '9')
        return -1;
    const long long e = strtoll(number + 1, NULL, 10);
    return e < s->experts ? e : -1;
}

bool ft_once_has(const struct ft_adapter *a, const char *tensor)
{
    for (int i = 0; i < a->n_slots; i++) {
        const struct ft_slot *s = &a->slots[i];
        const int64_t e = expert_in(s, tensor);
        for (int k = 0; e >= 0 && k < count_pieces(s); k++)
            if (strcmp(piece_of(s->p[FT_LORA_A], e, k).name, tensor) == 0 ||
                strcmp(piece_of(s->p[FT_LORA_B], e, k).name, tensor) == 0)
                return true;
    }
    return false;
}

int ft_once_read(const struct ft_parameter *p, const struct ft_st *f, float *out)
{
    const int64_t each = p->rows / p->old->experts;
    float *part;
    FT_TRY(ft_alloc(&part, (size_t)(each * p->cols), sizeof *part));
    memset(out, 0, (size_t)(p->rows * p->cols) * sizeof *out);
    int rc = FT_OK;
    for (int64_t e = 0; e < p->old->experts; e++)
        for (int k = 0; k < count_pieces(p->old) && !rc; k++) {
            const struct piece t = piece_of(p, e, k);
            rc = ft_adapter_read_f32(f, ft_st_find(f, t.name), t.rows * t.cols, part);
            for (int64_t i = 0; i < t.rows * t.cols && !rc; i++) {
                out[(e * each + t.row + i / t.cols) * p->cols + t.col + i % t.cols] = part[i];
                if (!isfinite(part[i]))
                    rc = ft_fail_at((struct ft_where){.file = ft_st_path(f)}, FT_EDATA,
                                    "tensor '%s' holds NaN or infinite values", t.name);
            }
        }
    ft_free(part);
    return rc;
}

int ft_once_convert(struct ft_adapter *a)
{
    const unsigned since = ft_alloc_failures();
    const json_t *was = json_object_get(a->peft, "target_modules");
    json_t *modules = json_array();
    bool old = false;
    for (int i = 0; i < a->n_slots; i++)
        old = old || a->slots[i].old;
    for (size_t i = 0; i < json_array_size(was); i++) {
        json_t *one = json_array_get(was, i);
        if (!ft_adapter_means_experts(a, json_string_value(one)))
            json_array_append(modules, one);
    }
    if (old) {
        json_object_set(a->peft, "target_modules", modules);
        json_object_set_new(a->peft, "target_parameters", ft_target_parameters(a));
        json_object_set_new(a->peft, "rank_pattern", ft_pattern_config(a, NULL, true));
        json_object_set_new(a->peft, "alpha_pattern", ft_pattern_config(a, NULL, false));
    }
    json_decref(modules);
    return ft_alloc_check(since);
}
