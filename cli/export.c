/* ft export */
#include "cli/responder.h"

#include "core/file.h"
#include "core/mem.h"
#include "train/export.h"

#include <string.h>

/* What an adapter can become: a row a form. */
static const struct form {
    const char *name, *what;
    bool folder;
    int (*write)(const struct ft_job *j, const float *values, const char *path);
} forms[] = {
    {"gguf-adapter", "llama.cpp: llama-cli -m MODEL.gguf --lora", false, ft_export_gguf_adapter},
    {"portable", "PEFT, vLLM, SGLang, LoRAX and llama.cpp's converter read it alike", true,
     ft_export_portable},
};
enum { FORMS = sizeof forms / sizeof *forms };

static const struct form *find_form(const char *name)
{
    for (int i = 0; i < FORMS && name; i++)
        if (strcmp(forms[i].name, name) == 0)
            return &forms[i];
    return NULL;
}

static int write_form(const struct form *form, const char *model, char *adapter, const char *out)
{
    static char cpu[] = "device=cpu";
    char *more[] = {cpu};
    struct ft_responder r = {0};
    struct ft_serving none = {0};
    struct ft_job j = {0};
    float *values = NULL;
    int rc = ft_responder_config(&r, model, adapter, 1, more);
    if (!rc)
        rc = ft_job_open_model(&j, &r.config, &none);
    ft_print_notices();
    if (!rc)
        rc = ft_alloc(&values, (size_t)ft_adapter_parameters(j.adapter) + 1, sizeof *values);
    if (!rc)
        rc = ft_adapter_read(j.adapter, values);
    if (!rc)
        rc = ft_adapter_check_finite(j.adapter, values);
    if (!rc)
        rc = form->write(&j, values, out);
    ft_free(values);
    ft_job_close(&j);
    ft_responder_close(&r);
    return rc;
}

int ft_cmd_export(const struct ft_command *self, int n, char **words)
{
    const bool force = ft_take_flag(&n, words, "--force");
    const char *out = NULL, *model = NULL, *to = NULL;
    char *base = NULL;
    FT_TRY(ft_take_text(self, &n, words, "-o", &out));
    FT_TRY(ft_take_text(self, &n, words, "-m", &model));
    FT_TRY(ft_take_text(self, &n, words, "--to", &to));
    FT_TRY(ft_refuse_flags(self, n, words));
    const struct form *form = find_form(to);
    if (n != 1 || !out || !form) {
        ft_fail(FT_ECONFIG, n != 1 ? "'ft export' needs one adapter"
                            : !out ? "'ft export' needs what to write, behind '-o'"
                                   : "'--to' is gguf-adapter or portable");
        ft_hint("usage: ft %s %s", self->name, self->arguments);
        return FT_ECONFIG;
    }
    if (!force && (ft_file_exists(out) || ft_is_folder(out))) {
        ft_fail_at((struct ft_where){.file = out}, FT_ECONFIG, "is there already");
        ft_hint("'--force' replaces it");
        return FT_ECONFIG;
    }
    int rc = model ? FT_OK : ft_named_base(words[0], &base);
    if (!rc)
        rc = write_form(form, model ? model : base, words[0], out);
    if (!rc)
        printf("%s: for %s\n", out, form->what);
    ft_free(base);
    return rc;
}
