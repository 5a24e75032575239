/* ft export */
#include "cli/engines.h"
#include "cli/responder.h"

#include "core/file.h"
#include "core/mem.h"
#include "train/export.h"

#include <string.h>

/* What an adapter can become: a row a form, which has one of the three. */
static const struct form {
    const char *name, *what;
    int (*of_adapter)(const struct ft_job *j, const float *values, const char *path);
    int (*of_model)(struct ft_merge *m, enum ft_dtype type, const char *path);
    int (*of_run)(const char *folder, const char *path);
} forms[] = {
    {"gguf-adapter", "llama.cpp: llama-cli -m MODEL.gguf --lora",
     .of_adapter = ft_export_gguf_adapter},
    {"gguf", "llama.cpp, the model with the adapter in its weights", .of_model = ft_export_gguf},
    {"portable", "PEFT, vLLM, SGLang, LoRAX and llama.cpp's converter",
     .of_adapter = ft_export_portable},
    {"mlx", "mlx-lm: mlx_lm.generate --adapter-path", .of_adapter = ft_export_mlx},
    {"sbom", "CycloneDX 1.6: what the run was made from", .of_run = ft_export_sbom},
};
enum { FORMS = sizeof forms / sizeof *forms };

static const struct form *find_form(const char *name)
{
    for (int i = 0; i < FORMS && name; i++)
        if (strcmp(forms[i].name, name) == 0)
            return &forms[i];
    return NULL;
}

static int find_type(const char *name, enum ft_dtype *out)
{
    static const struct {
        const char *name;
        enum ft_dtype type;
    } types[] = {{"f32", FT_F32},   {"f16", FT_F16},   {"bf16", FT_BF16},
                 {"q8_0", FT_Q8_0}, {"q4_0", FT_Q4_0}, {"mxfp4", FT_MXFP4}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) {
            *out = types[i].type;
            return FT_OK;
        }
    return ft_fail(FT_ECONFIG, "'--type %s': f32, f16, bf16, q8_0, q4_0 or mxfp4", name);
}

static int write_adapter(const struct form *form, const struct ft_config *c, const char *out)
{
    struct ft_serving none = {0};
    struct ft_job j = {0};
    float *values = NULL;
    int rc = ft_job_open_model(&j, c, &none);
    ft_print_notices();
    if (!rc)
        rc = ft_alloc(&values, (size_t)ft_adapter_parameters(j.adapter) + 1, sizeof *values);
    if (!rc)
        rc = ft_adapter_read(j.adapter, values);
    if (!rc)
        rc = ft_adapter_check_finite(j.adapter, values);
    if (!rc)
        rc = form->of_adapter(&j, values, out);
    if (!rc && form->of_adapter == ft_export_portable)
        ft_note_portable(&j);
    ft_print_notices();
    ft_free(values);
    ft_job_close(&j);
    return rc;
}

/* Quantised weights are written too where the type was asked for. */
static int write_model(const struct form *form, const struct ft_config *c,
                       const enum ft_dtype *type, bool force, const char *out)
{
    struct ft_merge m = {.whole = type != NULL};
    int rc = ft_merge_add(&m, c, 1, force);
    ft_print_notices();
    if (!rc)
        rc = form->of_model(&m, type ? *type : FT_F16, out);
    ft_merge_close(&m);
    return rc;
}

/* model NULL: the one that the adapter names; type NULL: none was asked for. */
static int write(const struct form *form, const char *adapter, const char *model,
                 const enum ft_dtype *type, bool force, const char *out)
{
    static char cpu[] = "device=cpu";
    char *base = NULL, *more[] = {cpu};
    struct ft_responder r = {0};
    int rc = model ? FT_OK : ft_named_base(adapter, &base);
    ft_writer_heed(ft_listen_to_stop());
    if (!rc)
        rc = ft_responder_config(&r, model ? model : base, adapter, 1, more);
    if (!rc)
        rc = form->of_model ? write_model(form, &r.config, type, force, out)
                            : write_adapter(form, &r.config, out);
    ft_responder_close(&r);
    ft_free(base);
    return rc;
}

int ft_cmd_export(const struct ft_command *self, int n, char **words)
{
    const bool force = ft_take_flag(&n, words, "--force");
    const char *out = NULL, *model = NULL, *to = NULL, *type = NULL;
    enum ft_dtype dtype = FT_F16;
    FT_TRY(ft_take_text(self, &n, words, "-o", &out));
    FT_TRY(ft_take_text(self, &n, words, "-m", &model));
    FT_TRY(ft_take_text(self, &n, words, "--to", &to));
    FT_TRY(ft_take_text(self, &n, words, "--type", &type));
    FT_TRY(ft_refuse_flags(self, n, words));
    if (type)
        FT_TRY(find_type(type, &dtype));
    const struct form *form = find_form(to);
    if (n != 1 || !out || !form) {
        ft_fail(FT_ECONFIG, n != 1 ? "'ft export' needs one adapter"
                            : !out ? "'ft export' needs what to write, behind '-o'"
                                   : "'--to' is gguf-adapter, gguf, portable, mlx or sbom");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    if (!force && (ft_file_exists(out) || ft_is_folder(out))) {
        ft_fail_at((struct ft_where){.file = out}, FT_ECONFIG, "is there already");
        ft_hint("'--force' replaces it");
        return FT_ECONFIG;
    }
    if (type && !form->of_model)
        return ft_fail(FT_ECONFIG, "'--type' is for '--to gguf': adapters are written in f32");
    if (form->of_run && model)
        return ft_fail(FT_ECONFIG, "'-m' is not for '--to %s', which speaks of a run", form->name);
    int rc = form->of_run ? form->of_run(words[0], out)
                          : write(form, words[0], model, type ? &dtype : NULL, force, out);
    if (!rc)
        printf("%s: for %s\n", out, form->what);
    return rc;
}
