/* Every call that opens, writes, syncs, renames, cuts or closes a file is made to fail in turn,
 * once and from then on: each must end with a clear error or in the same files, and the same
 * command must then go on to the same adapter. */
#include "tests/cli/cli.h"

#include <stdlib.h>

/* The sanitizer is slow. */
#if defined(__SANITIZE_ADDRESS__)
enum { STRIDE = 19 };
#else
enum { STRIDE = 4 };
#endif

#define TRAIN                                                                                      \
    "@FT train @D/ok.yaml max_steps=6 save_steps=2 save_total_limit=9 learning_rate=1e-3 "         \
    "threads=1 device=cpu output_dir=@D/"
#define FAILING                                                                                    \
    "env LD_PRELOAD=\"$FT_FAILING_IO\" ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "

static long count_calls(const char *prepare)
{
    CHECK_INT(shell("rm -rf @D/out; %s; " FAILING "FT_FAIL_COUNT=@D/count " TRAIN
                    "out --quiet 2>&1",
                    prepare),
              0);
    shell("cat @D/count");
    return atol(shell_output);
}

/* From a folder that `prepare` makes. */
static void fail_all(const char *what, const char *prepare)
{
    const char *set = getenv("FT_STRIDE"); /* 1: every call */
    const long all = count_calls(prepare), stride = set ? atol(set) : STRIDE;
    int tried = 0, unharmed = 0;
    CHECK(all > 50);
    for (int ever = 0; ever < 2; ever++)
        for (long n = 1; n <= all; n += stride) {
            const int rc = shell("rm -rf @D/out; %s; " FAILING "FT_FAIL_AT=%ld %s TMPDIR=@D " TRAIN
                                 "out --quiet 2>&1",
                                 prepare, n, ever ? "FT_FAIL_EVER=1" : "");
            tried++;
            unharmed += rc == 0;
            if (rc != 0 && (rc < 2 || rc > 4 || !strstr(shell_output, "error: ")))
                check_fail(what, (int)n, "call %ld: ends with %d: %s", n, rc, shell_output);
            if (shell(TRAIN "out --quiet 2>&1") ||
                shell("cmp @D/out/adapter_model.safetensors @D/whole/adapter_model.safetensors"))
                check_fail(what, (int)n, "after call %ld it does not go on: %s", n, shell_output);
            if (shell("ls -A @D/out | grep -E 'tmp|lock|room'") == 0)
                check_fail(what, (int)n, "after call %ld something is left: %s", n, shell_output);
        }
    printf("  %s: %ld calls, %d tried, %d without harm\n", what, all, tried, unharmed);
}

CASE(every_call_on_files_may_fail)
{
    fresh_folder();
    EXPECT(0, "adapter in", TRAIN "whole 2>&1");
    fail_all("a new run", "true");
    /* one that was killed behind its first checkpoint */
    fail_all(
        "a resumed run",
        "cp -r @D/whole @D/out; cd @D/out; rm -r checkpoint-4 checkpoint-6 adapter* README.md; "
        "sed -i 's/\"finished\"/\"running\"/' run.json; cd - > /dev/null");
}
