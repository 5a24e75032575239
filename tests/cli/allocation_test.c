/* Allocations of the whole program are made to fail in turn (FT_STRIDE=1: every one), the
 * libraries' own too: each must end with exit code 4, or in the same files as if none had failed;
 * never in a crash, a half-written file or another result. */
#include "tests/cli/cli.h"

#include "core/file.h"
#include "core/mem.h"
#include "tests/failing.h"
#include "tests/golden/golden.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

int ft_main(int argc, char **argv); /* cli/main.c's, by another name */

/* AddressSanitizer stops at the double free within Oniguruma that ends the program in an ordinary
 * way otherwise (core/regex.h): there, nothing is compiled by it. It is slow, too. */
#if defined(__SANITIZE_ADDRESS__)
#define PATTERN "null"
#define RANKS   ""
enum { STRIDE = 9 };
#else
#define PATTERN                                                                                    \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s+|[^\\\\s]+\"}, \"behavior\": "         \
    "\"Isolated\", \"invert\": false}"
#define RANKS "lora_rank_pattern: {q_proj: 4}\n"
enum { STRIDE = 5 };
#endif

static const char *folder;

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_INT(ft_file_write(path, text, strlen(text)), FT_OK);
}

/* A tokenizer of single characters, which fits the model's 61 rows. */
static void write_tokenizer(void)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz .,:!?'|[]{}";
    char text[4096];
    size_t n = (size_t)snprintf(
        text, sizeof text,
        "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 0, \"content\": \"<s>\", \"special\": "
        "true}, {\"id\": 1, \"content\": \"</s>\", \"special\": true}], \"pre_tokenizer\": %s, "
        "\"model\": {\"type\": \"BPE\", \"unk_token\": \"<u>\", \"merges\": [], \"vocab\": "
        "{\"<s>\": 0, \"</s>\": 1, \"<u>\": 2",
        PATTERN);
    for (int i = 0; letters[i]; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, ", \"%c\": %d", letters[i], i + 3);
    snprintf(text + n, sizeof text - n, "}}}");
    write_file("model/tokenizer.json", text);
    write_file(
        "model/tokenizer_config.json",
        "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"added_tokens_decoder\": {\"1\": "
        "{\"content\": \"</s>\", \"special\": true, \"rstrip\": true}}}");
    write_file("model/README.md", "---\nlicense: mit\n---\n");
}

static void write_configs(void)
{
    write_file("d.jsonl",
               "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": "
               "\"assistant\", \"content\": \"you\", \"reasoning_content\": \"so\"}]}\n"
               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
               "\"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
               "\"f\", \"arguments\": \"{}\"}}]}], \"tools\": \"[]\"}\n");
    write_file("t.jsonl", "{\"text\": \"hi you\"}\n");
    write_file("chat.yaml",
               "base_model: model\nadapter: lora\ndatasets:\n  - {path: d.jsonl, type: "
               "chat_template}\nchat_template: jinja\nchat_template_jinja: \"{% for m in messages "
               "%}{{ m.role }}{{ m.reasoning_content }}{{ m.content }}{{ m.tool_calls | tojson if "
               "m.tool_calls else '' }}{{ eos_token }}{% endfor %}\"\nspecial_tokens: {pad_token: "
               "</s>}\nval_set_size: 1\noutput_dir: out\ndataset_prepared_path: prep\nmax_steps: "
               "1\nwandb_project: p\nthreads: 1\ndevice: cpu\n" RANKS);
    write_file("a.jsonl",
               "{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\", \"n\": NaN}\n");
    write_file(
        "own.yaml",
        "base_model: model\nadapter: lora\ndatasets:\n  - {path: a.jsonl, type: alpaca}\n  - "
        "path: a.jsonl\n    type: {format: \"{instruction} {input}:\", no_input_format: "
        "\"{instruction}:\"}\noutput_dir: out\ndataset_prepared_path: prep\nthreads: 1\ndevice: "
        "cpu\n");
    write_file("again.yaml",
               "base_model: model\nlora_model_dir: model\ndatasets:\n  - {path: "
               "model/data.safetensors}\noutput_dir: out\nmax_steps: 1\nthreads: 1\ndevice: "
               "cpu\n");
    write_file("dataset_info.json",
               "{\"d\": {\"file_name\": \"d.jsonl\", \"formatting\": \"sharegpt\", "
               "\"columns\": {\"messages\": \"messages\"}, \"tags\": {\"role_tag\": "
               "\"role\", \"content_tag\": \"content\", \"user_tag\": \"user\", "
               "\"assistant_tag\": \"assistant\"}}}");
    write_file("sft.yaml", "model_name_or_path: model\nstage: sft\ndataset: d\ndataset_dir: .\n"
                           "template: llama2\nlora_target: q_proj,v_proj\nuse_dora: true\n"
                           "fsdp: [a, b]\noutput_dir: out\n");
}

/* --- one run of the program, in a process of its own --- */

static int run(char *const *words, long n, long *made)
{
    int argc = 0, status;
    while (words[argc])
        argc++;
    const pid_t child = fork();
    if (child == 0) {
        const int null = open("/dev/null", O_WRONLY);
        char *argv[16];
        memcpy(argv, words, (size_t)(argc + 1) * sizeof *argv);
        if (chdir(folder) || dup2(null, 1) < 0 || dup2(null, 2) < 0)
            _exit(99);
        const long before = allocations_made();
        fail_at(n);
        const int rc = ft_main(argc, argv);
        *made = allocations_made() - before;
        _exit(rc);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A sum over the names and contents of what a run leaves, but for what tells the time. */
static const char *left_behind(void)
{
    static char sum[128];
    shell("cd @D && { find out prep x.safetensors d.yaml -type f ! -name run.json ! -name "
          "metrics.jsonl ! -name manifest.json ! -name '*.wandb' 2>/dev/null | sort | xargs -r "
          "sha256sum; } | "
          "sha256sum");
    snprintf(sum, sizeof sum, "%.64s", shell_output);
    return sum;
}

static int look(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)at;
    if (type == FTW_F && (strstr(path, ".tmp.") || strstr(path, ".spool.")))
        check_fail(path, 0, "a temporary file is left");
    return 0;
}

static void clear(void)
{
    static const char *const made[] = {"out", "prep", "last_run_prepared", "x.safetensors",
                                       "d.yaml"};
    char path[256];
    nftw(folder, look, 16, FTW_PHYS);
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, made[i]);
        remove_folder(path);
    }
}

static void prepare(bool resumed)
{
    clear();
    if (resumed)
        shell("cp -r @D/half @D/out");
}

/* Allocations of a command, in turn; resumed: over a run that has a checkpoint. */
static void fail_some(char *const *words, bool resumed, int usual)
{
    const char *set = getenv("FT_STRIDE"); /* 1: every allocation */
    const int stride = set ? atoi(set) : usual;
    long *made =
        mmap(NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char good[128];
    int tried = 0, same = 0;
    prepare(resumed);
    CHECK_INT(run(words, 0, made), FT_OK);
    snprintf(good, sizeof good, "%s", left_behind());
    const long all = *made;
    prepare(resumed);
    for (long n = 1; n <= all; n += stride) {
        const int rc = run(words, n, made);
        tried++;
        if (rc == FT_OK && strcmp(left_behind(), good) == 0)
            same++;
        else if (rc != FT_ERESOURCE)
            check_fail(words[1], (int)n, "allocation %ld: ends with %d", n, rc);
        prepare(resumed);
    }
    CHECK(all > 100 && same < tried / 20);
    fflush(stdout);
    printf("  %s: %d of %ld allocations failed in turn, %d of them without an effect\n", words[1],
           tried, all, same);
    munmap(made, sizeof *made);
}

static void fail_all(char *const *words)
{
    fail_some(words, false, STRIDE);
}

/* A run that was killed behind its first checkpoint. */
static void make_half(void)
{
    write_file("half.yaml",
               "base_model: model\nadapter: lora\nlora_r: 2\ndatasets:\n  - {path: "
               "model/data.safetensors}\noutput_dir: out\nmax_steps: 2\nsave_steps: 1\nthreads: "
               "1\ndevice: cpu\n");
    CHECK_INT(shell("ft=$(realpath @FT); cd @D && $ft train half.yaml 2>&1"), 0);
    CHECK_INT(
        shell("cd @D && mv out half && rm -r half/checkpoint-2 half/adapter* half/README.md && "
              "sed -i 's/\"finished\"/\"running\"/' half/run.json"),
        0);
}

#define COMMAND(...) ((char *[]){"ft", __VA_ARGS__, NULL})

CASE(every_allocation_of_the_program_may_fail)
{
    setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
    folder = fresh_folder();
    write_tokenizer();
    write_configs();
    fail_all(COMMAND("train", "chat.yaml", "--quiet", "overwrite_output_dir=true"));
    fail_all(COMMAND("train", "again.yaml", "--quiet", "overwrite_output_dir=true"));
    make_half();
    fail_some(COMMAND("train", "half.yaml", "--quiet"), true, 4 * STRIDE);
    fail_all(COMMAND("data", "chat.yaml", "-o", "x.safetensors"));
    fail_all(COMMAND("data", "own.yaml"));
    fail_all(COMMAND("tokenize", "model", "t.jsonl"));
    fail_all(COMMAND("init", "--from", "sft.yaml", "-o", "d.yaml"));
    fail_all(COMMAND("config", "--schema"));
    fail_all(COMMAND("config", "--dump", "chat.yaml"));
    remove_fresh_folder();
}
