/* ft train --sweep: every combination, a folder each, one table; and its Slurm array. */
#include "core/file.h"
#include "tests/cli/cli.h"

#include <jansson.h>
#include <string.h>

#define SWEEP "@FT train @D/ok.yaml --sweep 'learning_rate=[1e-3, 2e-4]' "

CASE(every_combination_is_a_run)
{
    fresh_folder();
    EXPECT(0, "run 4 of 4: lora_target_modules=q_proj+v_proj,learning_rate=2e-4",
           "@FT train @D/ok.yaml --sweep 'lora_target_modules=[[q_proj], [q_proj, v_proj]]' "
           "'learning_rate=[1e-3, 2e-4]' 2>&1");
    CHECK_HAS(shell_output, "* the lowest loss: ");
    for (int i = 0; i < 4; i++)
        CHECK_INT(shell("test -f '@D/out/lora_target_modules=q_proj%s,learning_rate=%s/"
                        "adapter_model.safetensors'",
                        i & 1 ? "+v_proj" : "", i & 2 ? "1e-3" : "2e-4"),
                  0);
    CHECK_INT(shell("@FT train @D/ok.yaml lora_target_modules=[q_proj,v_proj] learning_rate=1e-3 "
                    "output_dir=@D/one --quiet 2>&1; cmp @D/one/adapter_model.safetensors "
                    "'@D/out/lora_target_modules=q_proj+v_proj,learning_rate=1e-3/"
                    "adapter_model.safetensors'"),
              0);
}

CASE(the_same_sweep_again_is_finished)
{
    fresh_folder();
    EXPECT(0, "loss", SWEEP "2>&1");
    EXPECT(0, "is finished already", SWEEP "2>&1");
    EXPECT(0, "\"exit_code\":0", SWEEP "--quiet --json 2>/dev/null");
    json_t *o = json_loads(shell_output, 0, NULL);
    CHECK_INT((long long)json_array_size(json_object_get(o, "runs")), 2);
    CHECK(json_is_string(json_object_get(o, "best")));
    json_decref(o);
}

CASE(a_run_that_fails_leaves_the_others)
{
    fresh_folder();
    shell("mkdir -p '@D/out/learning_rate=1e-3'; echo > '@D/out/learning_rate=1e-3/mine'");
    EXPECT(2, "failed with 2", SWEEP "2>&1");
    CHECK_INT(shell("test -f '@D/out/learning_rate=2e-4/adapter_model.safetensors'"), 0);
}

/* A signal to the sweep ends its run in the usual way, and begins no other. */
CASE(a_signal_ends_the_run_and_the_sweep)
{
    fresh_folder();
    EXPECT(
        75, "not begun",
        "{ timeout -s TERM 3 @FT train @D/ok.yaml --sweep 'learning_rate=[1e-3, 2e-4]' "
        "max_steps=1000000000 logging_steps=1000; echo \"code $?\"; } > @D/log 2>&1; cat @D/log; "
        "exit 75");
    CHECK_HAS(shell_output, "interrupted");
    CHECK_INT(shell("test -e '@D/out/learning_rate=2e-4'"), 1);
    CHECK_INT(shell("ls -d '@D/out/learning_rate=1e-3/checkpoint-'*"), 0);
}

CASE(what_cannot_be_swept_is_refused)
{
    fresh_folder();
    EXPECT(2, "nothing is swept", "@FT train @D/ok.yaml --sweep 2>&1");
    EXPECT(2, "empty list of values", "@FT train @D/ok.yaml --sweep 'lora_r=[]' 2>&1");
    EXPECT(2, "'lora_r' has the value 4 twice",
           "@FT train @D/ok.yaml --sweep 'lora_r=[4, 4]' 2>&1");
    EXPECT(2, "more than 1000 runs",
           "@FT train @D/ok.yaml --sweep \"seed=[$(seq -s, 1001)]\" 2>&1");
    EXPECT(2, "one 'output_dir'", "@FT train @D/ok.yaml --sweep 'output_dir=[@D/a, @D/b]' 2>&1");
    /* all of a sweep's configs are looked at before its first run */
    EXPECT(2, "this is the run 'lora_r=0'", "@FT train @D/ok.yaml --sweep 'lora_r=[4, 0]' 2>&1");
    CHECK_INT(shell("test -e @D/out"), 1);
    EXPECT(2, "is for 'ft train --sweep'", "@FT train @D/ok.yaml --array 2>&1");
    EXPECT(2, "one of 2", "WORLD_SIZE=2 " SWEEP "2>&1");
    EXPECT(2, "'lora_r' is a list", "@FT train @D/ok.yaml 'lora_r=[4, 8]' 2>&1");
}

/* srun's place is taken by a script that starts what is behind its flags. */
CASE(an_array_runs_each_combination)
{
    fresh_folder();
    CHECK_INT(shell(SWEEP "--array > @D/array.sh"), 0);
    EXPECT(0, "#SBATCH --array=0-1\n", "cat @D/array.sh");
    CHECK_HAS(shell_output, "#SBATCH --mem=");
    shell("mkdir @D/bin; printf '#!/bin/sh\\nshift; exec \"$@\"\\n' > @D/bin/srun; chmod +x "
          "@D/bin/srun");
    for (int i = 0; i < 2; i++)
        CHECK_INT(shell("PATH=@D/bin:$PATH FT=@FT SLURM_ARRAY_TASK_ID=%d bash @D/array.sh", i), 0);
    CHECK_INT(shell("ls '@D/out/learning_rate=1e-3/run.json' '@D/out/learning_rate=2e-4/run.json'"),
              0);
    EXPECT(2, "no run has the number 2", "SLURM_ARRAY_TASK_ID=2 bash @D/array.sh 2>&1");
}
