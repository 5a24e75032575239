#include "tests/cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>

char shell_output[1 << 18];
static char folder[64];

/* Writes cmd to out with @FT and @D replaced. */
static void expand(char *out, size_t room, const char *cmd)
{
    const char *ft = getenv("FT_PROGRAM");
    size_t n = 0;
    while (*cmd && n < room - 600) {
        if (strncmp(cmd, "@FT", 3) == 0) {
            n += (size_t)snprintf(out + n, room - n, "%s", ft ? ft : "build/release/ft");
            cmd += 3;
        } else if (strncmp(cmd, "@D", 2) == 0) {
            n += (size_t)snprintf(out + n, room - n, "%s", folder);
            cmd += 2;
        } else {
            out[n++] = *cmd++;
        }
    }
    out[n] = 0;
}

int shell(const char *fmt, ...)
{
    char cmd[8192], full[16384];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    expand(full, sizeof full - 32, cmd);
    FILE *f = popen(full, "r");
    size_t n = f ? fread(shell_output, 1, sizeof shell_output - 1, f) : 0;
    shell_output[n] = 0;
    int status = f ? pclose(f) : -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void remove_fresh_folder(void)
{
    if (folder[0])
        shell("rm -rf @D");
    folder[0] = 0;
}

const char *fresh_folder(void)
{
    remove_fresh_folder();
    strcpy(folder, "/tmp/ft-cli-XXXXXX");
    if (!mkdtemp(folder))
        check_fail(__FILE__, __LINE__, "no folder in /tmp");
    shell("cp -r " FT_ROOT "/tests/golden/base @D/model && chmod -R u+w @D/model && "
          "printf 'base_model: @D/model\\nadapter: lora\\ndatasets:\\n  - path: "
          "@D/model/data.safetensors\\n"
          "output_dir: @D/out\\nmax_steps: 2\\n' > @D/ok.yaml");
    return folder;
}

void fresh_text(const char *type, const char *lines)
{
    fresh_folder();
    shell("cp -r datasets/shakespeare-2m @D/shake && chmod -R u+w @D/shake");
    shell("printf 'base_model: @D/shake\\nadapter: lora\\ndatasets:\\n  - path: @D/data.jsonl\\n   "
          " type: %s\\n"
          "dataset_prepared_path: @D/prepared\\noutput_dir: @D/out\\nmax_steps: 2\\n"
          "sequence_len: 64\\n' > @D/c.yaml; printf '%%s\\n' '%s' > @D/data.jsonl",
          type, lines);
}

void write_template(const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/t.jinja", folder);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f))
        check_fail(__FILE__, __LINE__, "%s cannot be written", path);
    shell(
        "sed -i '/^chat_template/d' @D/c.yaml; printf 'chat_template: jinja\\nchat_template_jinja: "
        "@D/t.jinja\\n' >> @D/c.yaml");
}
