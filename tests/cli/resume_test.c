/* Runs that end before their end: they go on to the same bits, or say why not. */
#include "tests/cli/cli.h"

#include "io/safetensors.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The sanitizer is slow. */
#if defined(__SANITIZE_ADDRESS__)
enum { KILLS = 8 };
#else
enum { KILLS = 50 };
#endif

/* Steps that look at every state: shuffling, packing, dropout, windows of two micro-batches, the
 * last of an epoch shorter; evaluation between. */
#define RUN                                                                                        \
    "@FT train @D/ok.yaml datasets.0.path=@D/few.safetensors sequence_len=24 sample_packing=true " \
    "micro_batch_size=1 gradient_accumulation_steps=2 lora_dropout=0.1 max_steps=400 "             \
    "save_steps=28 test_datasets.0.path=@D/few.safetensors eval_steps=50 threads=2 device=cpu "    \
    "learning_rate=1e-3 "
#define OUT(folder) RUN "output_dir=@D/" folder " "

/* What must be the same: the adapter, the newest checkpoint's moments, the log but for times. */
#define SAME(a, b)                                                                                 \
    "cmp @D/" a "/adapter_model.safetensors @D/" b "/adapter_model.safetensors && "                \
    "cmp @D/" a "/checkpoint-392/ft_state.safetensors @D/" b                                       \
    "/checkpoint-392/ft_state.safetensors && for x in " a " " b "; do sed "                        \
    "'s/\"tokens_per_second.*//' @D/$x/metrics.jsonl > @D/$x.log; done; cmp @D/" a ".log @D/" b    \
    ".log"

/* 25 documents of 3 to 20 tokens of the 61 that the model has. */
static void write_documents(const char *path)
{
    enum { DOCUMENTS = 25, MOST = 20 };
    int32_t ids[DOCUMENTS * MOST];
    uint8_t mask[DOCUMENTS * MOST];
    int64_t offsets[DOCUMENTS + 1] = {0}, n = 0;
    srand(1);
    for (int d = 0; d < DOCUMENTS; d++) {
        for (int k = 3 + rand() % (MOST - 2); k > 0; k--, n++) {
            ids[n] = rand() % 61;
            mask[n] = 1;
        }
        offsets[d + 1] = n;
    }
    struct ft_st_item items[] = {
        {.name = "input_ids", .dtype = FT_I32, .n_dims = 1, .dims = {n}, .data = ids},
        {.name = "offsets", .dtype = FT_I64, .n_dims = 1, .dims = {DOCUMENTS + 1}, .data = offsets},
        {.name = "loss_mask", .dtype = FT_U8, .n_dims = 1, .dims = {n}, .data = mask}};
    CHECK_INT(ft_st_write(path, items, 3, NULL, 0), FT_OK);
}

/* The run that nothing disturbs, in @D/whole. */
static void begin(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s/few.safetensors", fresh_folder());
    write_documents(path);
    EXPECT(0, "adapter in", OUT("whole") "2>&1");
}

CASE(killed_at_any_moment_it_goes_on_to_the_same_bits)
{
    const char *set = getenv("FT_KILLS");
    const int kills = set ? atoi(set) : KILLS;
    int done = 0, finished = 0;
    begin();
    srand(12345);
    while (done < kills) {
        const int ms = 10 + rand() % 500;
        const int rc =
            shell("timeout -s KILL %d.%03d " OUT("killed") "--quiet 2>&1", ms / 1000, ms % 1000);
        if (rc == 137) {
            done++;
            continue;
        }
        CHECK_INT(rc, 0);
        if (rc)
            break;
        finished++;
        EXPECT(0, "", SAME("whole", "killed"));
        CHECK_INT(shell("rm -r @D/killed"), 0);
    }
    EXPECT(0, "", OUT("killed") "--quiet 2>&1");
    EXPECT(0, "", SAME("whole", "killed"));
    CHECK_INT(shell("ls -a @D/killed | grep -E 'tmp|room|lock'"), 1);
    printf("  killed %d times, %d runs came to their end between\n", done, finished);
}

/* Waits for a line of the log, then does something to the process. */
#define WHEN_RUNNING(folder, steps)                                                                \
    "for i in $(seq 300); do grep -q '\"step\": " steps "' @D/" folder                             \
    "/metrics.jsonl 2>/dev/null && break; sleep 0.02; done; "

CASE(f39_signals_save_and_ask_to_be_requeued)
{
    static const char *const signals[] = {"TERM", "INT", "USR1", "HUP"};
    begin();
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        shell("rm -rf @D/asked");
        EXPECT(75, "interrupted after step",
               "env --default-signal=INT " OUT("asked") "> @D/said 2>&1 & pid=$!; " WHEN_RUNNING(
                   "asked", "1,") "kill -%s $pid; wait $pid; rc=$?; cat @D/said; exit $rc",
               signals[i]);
        CHECK_INT(shell("test -s @D/asked/adapter_model.safetensors && grep -q "
                        "'\"status\": \"interrupted\"' @D/asked/run.json"),
                  0);
        EXPECT(0, "adapter in", OUT("asked") "2>&1");
        EXPECT(0, "", SAME("whole", "asked"));
    }
}

CASE(a_second_signal_ends_at_once)
{
    begin();
    EXPECT(75, "",
           OUT("twice") "max_steps=10000000 > /dev/null 2>&1 & pid=$!; " WHEN_RUNNING(
               "twice", "50,") "kill -TERM $pid; kill -TERM $pid; wait $pid");
    CHECK_INT(shell("ls @D/twice | grep -q checkpoint-28"), 0);
}

CASE(f43_a_closed_terminal_does_not_end_a_run)
{
    begin();
    CHECK_INT(shell(OUT("closed") "2>/dev/full | head -c 1 > /dev/null; "
                                  "grep -q finished @D/closed/run.json"),
              0);
    EXPECT(0, "", SAME("whole", "closed"));
}

CASE(f44_clocks_that_jump)
{
    const char *clock = getenv("FT_JUMPING_CLOCK");
    CHECK(clock != NULL);
    begin();
    EXPECT(75, "",
           "export ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 LD_PRELOAD=%s; " OUT(
               "jumps") "> /dev/null 2>&1 & pid=$!; " WHEN_RUNNING("jumps", "30,") "kill -TERM "
                                                                                   "$pid; wait "
                                                                                   "$pid",
           clock);
    EXPECT(0, "goes on from step",
           "ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 LD_PRELOAD=%s " OUT("jumps") "2>&1",
           clock);
    EXPECT(0, "", SAME("whole", "jumps"));
    EXPECT(1, "",
           "grep -E '\"(seconds|tokens_per_second)\": (-|0[,}])|\"seconds\": [0-9]{6}|"
           "\"tokens_per_second\": [0-9]{8}' @D/jumps/metrics.jsonl");
}

CASE(f35_f36_a_damaged_checkpoint_is_reported_and_the_one_before_used)
{
    begin();
    EXPECT(75, "",
           OUT("hurt") "> /dev/null 2>&1 & pid=$!; " WHEN_RUNNING(
               "hurt", "30,") "kill -TERM $pid; wait $pid");
    shell("cd @D/hurt; n=$(ls -d checkpoint-* | sort -V | tail -1); printf x | dd of=$n/ft_state."
          "safetensors bs=1 seek=4000 conv=notrunc 2>/dev/null; mkdir checkpoint-999.tmp.1; touch "
          "checkpoint-999.tmp.1/x");
    EXPECT(0, "is damaged: its checksum is not the manifest's: the checkpoint before it is used",
           OUT("hurt") "2>&1");
    EXPECT(0, "", SAME("whole", "hurt"));
    CHECK_INT(shell("test ! -e @D/hurt/checkpoint-999.tmp.1"), 0);
    /* the manifest itself: cut, not there, of a newer program; a file short, or gone */
    shell("cd @D; for x in cut none newer short gone; do cp -r hurt $x; sed -i 's/\"finished\"/"
          "\"running\"/' $x/run.json; done; truncate -s 100 cut/checkpoint-392/manifest.json; rm "
          "none/checkpoint-392/manifest.json; sed -i 's/\"format\": 1/\"format\": 2/' "
          "newer/checkpoint-392/manifest.json; truncate -s -1 "
          "short/checkpoint-392/*model.safetensors; "
          "rm gone/checkpoint-392/adapter_config.json");
    EXPECT(0, "manifest.json", OUT("cut") "2>&1");
    EXPECT(0, "", SAME("whole", "cut"));
    EXPECT(0, "has no manifest.json", OUT("none") "2>&1");
    EXPECT(0, "", SAME("whole", "none"));
    EXPECT(2, "is of a newer ft", OUT("newer") "2>&1");
    EXPECT(0, "bytes, the manifest says", OUT("short") "2>&1");
    EXPECT(0, "", SAME("whole", "short"));
    EXPECT(0, "cannot be read", OUT("gone") "2>&1");
    EXPECT(0, "", SAME("whole", "gone"));
}

CASE(f37_another_run_is_refused_with_the_difference)
{
    begin();
    EXPECT(75, "",
           OUT("mine") "> /dev/null 2>&1 & pid=$!; " WHEN_RUNNING(
               "mine", "1,") "kill -TERM $pid; wait $pid");
    EXPECT(2, "'learning_rate' was 0.001 and is 0.002", OUT("mine") "learning_rate=2e-3 2>&1");
    EXPECT(2, "'lora_dropout' was 0.1 and is 0.0", OUT("mine") "lora_dropout=0 2>&1");
    EXPECT(2, "the datasets' files are others now",
           "cp @D/few.safetensors @D/kept; printf '\\1' | dd of=@D/few.safetensors bs=1 seek=600 "
           "conv=notrunc 2>/dev/null; " OUT("mine") "2>&1");
    shell("mv @D/kept @D/few.safetensors; cp -r @D/model @D/base; printf '\\1' | dd "
          "of=@D/base/model.safetensors bs=1 seek=20000 conv=notrunc 2>/dev/null");
    EXPECT(2, "the model's weights are others now", OUT("mine") "base_model=@D/base 2>&1");
    /* a model that has only moved is the same */
    EXPECT(0, "adapter in",
           "cp @D/model/model.safetensors @D/base; cp -r @D/mine "
           "@D/moved; " OUT("moved") "base_model=@D/base 2>&1");
    EXPECT(0, "", SAME("whole", "moved"));
    EXPECT(0, "adapter in",
           OUT("mine") "learning_rate=2e-3 resume_with_changes='[learning_rate]' 2>&1");
    EXPECT(2, "'learning_rate' was", OUT("mine") "2>&1");
    EXPECT(0, "adapter in", OUT("mine") "overwrite_output_dir=true 2>&1");
    EXPECT(0, "", SAME("whole", "mine"));
}

CASE(f40_a_finished_run_says_so)
{
    begin();
    shell("cp -r @D/whole @D/before");
    EXPECT(0, "this run is finished already", OUT("whole") "2>&1");
    EXPECT(0, "", "diff -r @D/before @D/whole");
    EXPECT(2, "'auto_resume_from_checkpoints' is false",
           "sed -i 's/\"finished\"/\"running\"/' @D/whole/run.json; " OUT(
               "whole") "auto_resume_from_checkpoints=false 2>&1");
    EXPECT(2, "has no checkpoint of this run", OUT("new") "resume_from_checkpoint=true 2>&1");
}

CASE(a_checkpoint_that_is_named)
{
    begin();
    EXPECT(0, "adapter in", OUT("copy") "resume_from_checkpoint=@D/whole/checkpoint-336 2>&1");
    EXPECT(0, "", "cmp @D/whole/adapter_model.safetensors @D/copy/adapter_model.safetensors");
    EXPECT(2, "is not a folder", OUT("no") "resume_from_checkpoint=@D/whole/checkpoint-1 2>&1");
    EXPECT(3, "is no checkpoint of ft", OUT("no") "resume_from_checkpoint=@D/whole 2>&1");
    EXPECT(2, "is of another run: 'seed'",
           OUT("no") "seed=5 resume_from_checkpoint=@D/whole/checkpoint-336 2>&1");
}

CASE(which_checkpoints_are_kept)
{
    begin();
    CHECK_INT(shell("ls @D/whole | grep checkpoint | sort -V | tr '\\n' ' '"), 0);
    CHECK_TEXT(shell_output, "checkpoint-308 checkpoint-336 checkpoint-364 checkpoint-392 ");
    EXPECT(0, "checkpoint-1 checkpoint-392 ",
           OUT("two") "save_first_step=true save_total_limit=1 max_steps=393 --quiet 2>&1; mkdir "
                      "@D/two/checkpoint-1; ls @D/two | grep checkpoint | sort -V | tr '\\n' ' '");
    /* another program's are left alone */
    EXPECT(0, "weights",
           OUT("two") "save_total_limit=1 overwrite_output_dir=true seed=5 --quiet 2>&1; mkdir "
                      "@D/two/checkpoint-3; echo weights > @D/two/checkpoint-3/x; " OUT(
                          "two") "save_total_limit=1 overwrite_output_dir=true --quiet 2>&1; cat "
                                 "@D/two/checkpoint-3/x");
    CHECK_INT(shell(OUT("none") "save_steps=null save_strategy=no max_steps=5 --quiet 2>&1 && ls "
                                "@D/none | grep checkpoint"),
              1);
    EXPECT(2, "exclude each other", OUT("none") "saves_per_epoch=2 2>&1");
    EXPECT(2, "'save_strategy' contradicts", OUT("none") "save_strategy=epoch 2>&1");
}

CASE(the_best_evaluation_is_kept_and_patience_ends)
{
    begin();
    EXPECT(0, "evaluations were not better than that of step",
           OUT("best") "learning_rate=0.05 save_steps=null save_strategy=best "
                       "eval_steps=5 load_best_model_at_end=true early_stopping_patience=2 "
                       "2>&1");
    CHECK_HAS(shell_output, "the best evaluation's parameters were written: step");
    CHECK_INT(shell("n=$(ls @D/best | grep checkpoint | sort -V | tail -1); cmp "
                    "@D/best/adapter_model.safetensors @D/best/$n/adapter_model.safetensors"),
              0);
    EXPECT(2, "would keep the worst", OUT("no") "greater_is_better=true 2>&1");
    EXPECT(2, "'metric_for_best_model'", OUT("no") "metric_for_best_model=accuracy 2>&1");
    EXPECT(2, "goes by evaluations, and nothing is evaluated",
           OUT("no") "test_datasets=null eval_steps=null early_stopping_patience=2 2>&1");
}

CASE(the_end_of_a_slurm_job_is_an_interruption)
{
    begin();
    EXPECT(75, "interrupted after step",
           "SLURM_JOB_END_TIME=$(($(date +%%s) + 26)) " OUT(
               "slurm") "max_steps=10000000 logging_steps=1000 2>&1");
    EXPECT(75, "interrupted before the first step",
           "SLURM_JOB_END_TIME=$(date +%%s) " OUT("late") "2>&1");
    CHECK_INT(shell("ls @D/late | tr '\\n' ' '"), 0);
    CHECK_TEXT(shell_output, "metrics.jsonl run.json ");
    EXPECT(0, "adapter in", OUT("late") "2>&1");
}

CASE(f38_locks_of_holders_who_are_gone)
{
    begin();
    shell("mkdir @D/dead @D/other @D/job");
    EXPECT(0, "adapter in",
           "echo \"4194304 77 $(hostname) -\" > @D/dead/.ft.lock; " OUT("dead") "2>&1");
    /* the number of a living process that began at another time */
    EXPECT(0, "adapter in",
           "rm -r @D/dead; mkdir @D/dead; echo \"$$ 77 $(hostname) -\" > "
           "@D/dead/.ft.lock; " OUT("dead") "2>&1");
    EXPECT(0, "adapter in",
           "echo '77 77 elsewhere 123.0' > @D/job/.ft.lock; SLURM_JOB_ID=123 "
           "SLURM_JOB_END_TIME=4000000000 SLURM_RESTART_COUNT=1 " OUT("job") "2>&1");
    EXPECT(2, "is in use by process 77 on elsewhere",
           "echo '77 77 elsewhere -' > @D/other/.ft.lock; (for i in 1 2 3 4; do sleep 0.5; touch "
           "@D/other/.ft.lock; done) & " OUT("other") "2>&1");
    CHECK_HAS(shell_output, "waiting for a sign of life of process 77 on elsewhere");
    EXPECT(0, "adapter in",
           "rm -r @D/dead; mkdir @D/dead; : > @D/dead/.ft.lock; " OUT("dead") "2>&1");
}

CASE(a_log_that_is_not_what_the_checkpoint_says)
{
    begin();
    EXPECT(75, "",
           OUT("log") "> /dev/null 2>&1 & pid=$!; " WHEN_RUNNING(
               "log", "1,") "kill -TERM $pid; wait $pid");
    EXPECT(0, "lines are missing in it",
           "cp -r @D/log @D/short; truncate -s 100 @D/short/metrics.jsonl; " OUT("short") "2>&1");
    EXPECT(0, "adapter in", "echo '{\"step\": 99}' >> @D/log/metrics.jsonl; " OUT("log") "2>&1");
    EXPECT(0, "", SAME("whole", "log"));
}

CASE(a_result_that_cannot_be_written_is_written_elsewhere)
{
    begin();
    shell("mkdir @D/elsewhere");
    EXPECT(4, "the result is safe: it was written to '",
           "TMPDIR=@D/elsewhere " OUT(
               "lost") "save_steps=null save_strategy=no > @D/said 2>&1 & "
                       "pid=$!; " WHEN_RUNNING(
                           "lost", "1,") "mv @D/lost "
                                         "@D/gone; touch @D/lost; wait $pid; rc=$?; cat "
                                         "@D/said; exit $rc");
    EXPECT(0, "",
           "cmp @D/whole/adapter_model.safetensors @D/elsewhere/*/adapter_model.safetensors");
}

/* What methods and optimizers keep: a run that was killed behind its first checkpoint. */
CASE(every_state_is_kept)
{
    static const char *const kinds[] = {
        "adapter=lora optimizer=sgd momentum=0.9",
        "adapter=lora optimizer=lion",
        "adapter=lora lora_r=64 optimizer=adamw_8bit",
        "adapter=lora optimizer=adafactor",
        "adapter=lora optimizer=muon",
        "adapter=lora peft_use_dora=true lora_dropout=0.1",
        "adapter=lora loraplus_lr_ratio=8 bias=all",
        "adapter=lora lora_modules_to_save=[embed_tokens,lm_head]",
        "adapter=lora peft_trainable_token_indices=[3,7] neftune_noise_alpha=5",
        "adapter=vera",
        "adapter=ia3",
        "adapter=full",
        "adapter=qlora load_in_4bit=true",
    };
    fresh_folder();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
#define SHORT                                                                                      \
    "@FT train @D/ok.yaml max_steps=6 save_steps=2 save_total_limit=9 learning_rate=1e-3 "         \
    "threads=2 device=cpu %s output_dir=@D/"
        CHECK_INT(shell("rm -rf @D/one @D/two; " SHORT "one 2>&1", kinds[i]), 0);
        CHECK_INT(shell("cp -r @D/one @D/two; cd @D/two; rm -r checkpoint-4 checkpoint-6 "
                        "*.safetensors; sed -i 's/\"finished\"/\"running\"/' run.json"),
                  0);
        EXPECT(0, "step 3/6", SHORT "two 2>&1", kinds[i]);
#undef SHORT
        EXPECT(
            0, "",
            "cmp @D/one/checkpoint-6/ft_state.safetensors "
            "@D/two/checkpoint-6/ft_state.safetensors && cd @D/one && for f in *.safetensors; do "
            "cmp $f ../two/$f || exit 1; done");
    }
}
