/* ft compare, and the baseline of a config. */
#include "tests/cli/cli.h"

#define RUN                                                                                        \
    "@FT train @D/ok.yaml max_steps=8 eval_steps=4 threads=1 device=cpu learning_rate=1e-3 "       \
    "test_datasets.0.path=@D/model/data.safetensors "

static void two_runs(void)
{
    fresh_folder();
    EXPECT(0, "adapter in", RUN "output_dir=@D/a 2>&1");
    EXPECT(0, "adapter in", RUN "output_dir=@D/b 2>&1");
}

CASE(the_same_run_has_every_bit)
{
    two_runs();
    EXPECT(0, "every bit counts", "@FT compare @D/a @D/b 2>&1");
    CHECK_HAS(shell_output, "eval_loss                 3  0          exact     ok");
    CHECK_HAS(shell_output, "loss (b: baseline, r: run, *: both)");
    EXPECT(0, "x ", "@FT compare @D/a/metrics.jsonl @D/b --speed 0.001 --memory 100 2>&1");
    EXPECT(0, "", "@FT compare @D/a @D/b --quiet 2>&1");
    CHECK_TEXT(shell_output, "");
}

CASE(f46_what_differs_is_named)
{
    two_runs();
    shell("sed -i '/\"step\": 5,/s/\"loss\": ./\"loss\": 1/' @D/b/metrics.jsonl");
    EXPECT(6, "'loss' is not that of the baseline", "@FT compare @D/a @D/b --junit @D/j.xml 2>&1");
    CHECK_HAS(shell_output, "FAILED at step 5:");
    EXPECT(0, "tests=\"4\" failures=\"1\"", "cat @D/j.xml");
    EXPECT(0, "bits may differ ('isa'): tolerances are used",
           "sed -i 's/\"isa\": \"[a-z0-9]*\"/\"isa\": \"other\"/' @D/b/run.json; @FT compare @D/a "
           "@D/b --tolerance 2 2>&1");
    EXPECT(6, "tolerances are used", "@FT compare @D/a @D/b 2>&1");
    EXPECT(6, "the run has no such step: 8",
           "sed -i '/\"step\": 8/d' @D/b/metrics.jsonl; @FT compare @D/a @D/b --tolerance 2 2>&1");
    EXPECT(0, "ok", "@FT compare @D/b @D/a --tolerance 2 2>&1");
    EXPECT(6, "'tokens_per_second' is not", "@FT compare @D/a @D/a --speed 1.5 2>&1");
    EXPECT(6, "'peak_bytes' is not", "@FT compare @D/a @D/a --memory 0.5 2>&1");
}

CASE(a_config_names_its_baseline)
{
    two_runs();
    EXPECT(0, "every bit counts", RUN "output_dir=@D/c baseline=@D/a 2>&1");
    EXPECT(6, "'loss' is not that of the baseline",
           RUN "output_dir=@D/d learning_rate=2e-3 baseline=@D/a --json 2>&1");
    CHECK_HAS(shell_output, "\"status\": \"finished\"");
    CHECK_INT(shell("test -s @D/d/adapter_model.safetensors"), 0);
}

CASE(logs_that_are_none)
{
    two_runs();
    EXPECT(3, "cannot open", "@FT compare @D/a @D/nothing 2>&1");
    EXPECT(3, "metrics.jsonl:3", "sed -i '3s/{/[/' @D/b/metrics.jsonl; @FT compare @D/a @D/b 2>&1");
    EXPECT(3, "has no losses", ": > @D/b/metrics.jsonl; @FT compare @D/a @D/b 2>&1");
    EXPECT(3, "it has no 'step'", "echo '{}' > @D/b/metrics.jsonl; @FT compare @D/a @D/b 2>&1");
    EXPECT(3, "is there twice, or out of order",
           "cat @D/a/metrics.jsonl @D/a/metrics.jsonl > @D/b/metrics.jsonl; @FT compare @D/a @D/b "
           "2>&1");
    EXPECT(2, "needs a baseline and a run", "@FT compare @D/a 2>&1");
    EXPECT(2, "is not a number from 0", "@FT compare @D/a @D/a --speed fast 2>&1");
    EXPECT(4, "cannot create", "@FT compare @D/a @D/a --junit @D/no/j.xml 2>&1");
}
