/* bnb_config_kwargs: how load_in_4bit and load_in_8bit quantise. A key is a row. */
#include "config/options.h"

#include <string.h>

static int quant_type(struct ft_config *c, const struct ft_yaml *n)
{
    const bool fp4 = n->kind == FT_YAML_SCALAR && strcmp(n->text, "fp4") == 0;
    if (!fp4 && (n->kind != FT_YAML_SCALAR || strcmp(n->text, "nf4") != 0))
        return ft_value_refuse(n->key, n, "nf4 or fp4");
    c->bnb.fp4 = fp4;
    return FT_OK;
}

static int double_quant(struct ft_config *c, const struct ft_yaml *n)
{
    return ft_value_bool(n, &c->bnb.nested) ? FT_OK : ft_value_refuse(n->key, n, "true or false");
}

static int skip_modules(struct ft_config *c, const struct ft_yaml *n)
{
    return ft_value_texts(&c->bnb.skip, &c->arena, n->key, n);
}

static int must_be_off(struct ft_config *c, const struct ft_yaml *n)
{
    (void)c;
    return ft_value_is_off(n)
               ? FT_OK
               : ft_fail_at(n->at, FT_ECONFIG, "'%s': ft keeps no 16-bit weights beside", n->key);
}

/* ft computes with what the weights stand for, in the precision of `device`. */
static int changes_nothing(struct ft_config *c, const struct ft_yaml *n)
{
    (void)c;
    ft_notice(n->at,
              "'bnb_config_kwargs.%s' changes nothing here: products read what the quantised "
              "weights stand for, in the arithmetic of 'device'",
              n->key);
    return FT_OK;
}

static const struct {
    const char *key;
    int (*read)(struct ft_config *c, const struct ft_yaml *n);
} keys[] = {{"bnb_4bit_quant_type", quant_type},
            {"bnb_4bit_use_double_quant", double_quant},
            {"llm_int8_skip_modules", skip_modules},
            {"llm_int8_has_fp16_weight", must_be_off},
            {"bnb_4bit_compute_dtype", changes_nothing},
            {"bnb_4bit_quant_storage", changes_nothing},
            {"llm_int8_threshold", changes_nothing},
            {"llm_int8_enable_fp32_cpu_offload", changes_nothing}};

int ft_bnb_read(struct ft_config *c)
{
    c->bnb.nested = true;
    if (!c->bnb_config_kwargs)
        return FT_OK;
    if (!c->load_in_4bit && !c->load_in_8bit)
        return ft_fail_at(
            ft_config_where(c, "bnb_config_kwargs"), FT_ECONFIG,
            "'bnb_config_kwargs' says how to quantise, and neither 'load_in_4bit' nor "
            "'load_in_8bit' asks for it");
    for (const struct ft_yaml *n = c->bnb_config_kwargs->first; n; n = n->next) {
        size_t i = 0;
        while (i < sizeof keys / sizeof *keys && strcmp(keys[i].key, n->key) != 0)
            i++;
        if (i == sizeof keys / sizeof *keys)
            return ft_fail_at(n->key_at, FT_ECONFIG,
                              "'bnb_config_kwargs.%s' is no key that ft knows", n->key);
        if (!ft_yaml_is_null(n))
            FT_TRY(keys[i].read(c, n));
    }
    return FT_OK;
}
