/* Several ranks: they train as one does, fail together, and are never fewer than was asked for. */
#include "tests/cli/cli.h"

#include <stdlib.h>
#include <unistd.h>

/* Documents of 3 to 13 tokens; a window of 3 of them: of five ranks, two have none. */
#define RUN                                                                                        \
    "@FT train @D/ok.yaml micro_batch_size=1 gradient_accumulation_steps=3 lora_dropout=0.1 "      \
    "max_steps=12 learning_rate=1e-3 threads=1 save_steps=5 save_total_limit=9 device=cpu "        \
    "test_datasets.0.path=@D/model/data.safetensors eval_steps=4 --quiet "
#define RANKS "timeout 100 mpirun --oversubscribe -np "

/* Skips where there is no MPI. */
static void begin(void)
{
    const char *asan = getenv("ASAN_OPTIONS");
    char options[512];
    fresh_folder();
    if (shell("command -v mpirun && test -e $(dirname @FT)/libft_mpi.so") != 0)
        check_skip("ft is built without MPI here (Debian: openmpi-bin, libopenmpi-dev)");
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    /* MPI keeps memory until the end */
    snprintf(options, sizeof options, "%s:detect_leaks=0", asan ? asan : "");
    setenv("ASAN_OPTIONS", options, 1);
    setenv("TSAN_OPTIONS", "detect_deadlocks=0", 1); /* its TCP takes two locks in both orders */
}

CASE(any_number_trains_like_one)
{
    begin();
    EXPECT(0, "", RUN "output_dir=@D/one 2>&1");
    for (int n = 2; n <= 5; n += 3) {
        EXPECT(0, "", RANKS "%d " RUN "output_dir=@D/n%d 2>&1", n, n);
        EXPECT(0, "ok", "@FT compare @D/one @D/n%d --tolerance 1e-6 2>&1", n);
    }
    EXPECT(0, "\"ranks\": 5", "cat @D/n5/run.json");
    EXPECT(0, "", RANKS "5 " RUN "output_dir=@D/again 2>&1");
    EXPECT(0, "", "cmp @D/n5/adapter_model.safetensors @D/again/adapter_model.safetensors");
}

CASE(methods_whose_start_sets_parameters_too)
{
    begin();
    EXPECT(0, "", RUN "peft_use_dora=true output_dir=@D/one 2>&1");
    EXPECT(0, "", RANKS "2 " RUN "peft_use_dora=true output_dir=@D/two 2>&1");
    EXPECT(0, "ok", "@FT compare @D/one @D/two --tolerance 1e-6 2>&1");
}

CASE(devices_too)
{
    begin();
    const char *library = getenv("FT_CUDA_LIBRARY");
    if (!library || strcmp(library, "none") == 0)
        check_skip("no emulated device");
    EXPECT(0, "", RUN "device=cuda output_dir=@D/one 2>&1");
    EXPECT(0, "", RANKS "2 " RUN "device=cuda output_dir=@D/two 2>&1");
    EXPECT(0, "ok", "@FT compare @D/one @D/two --tolerance 1e-3 2>&1");
}

/* As if it had been interrupted after step 5. */
static void interrupt(const char *run, const char *as)
{
    CHECK_INT(shell("cp -r @D/%s @D/%s && cd @D/%s && rm -r checkpoint-1* && sed -i "
                    "'s/\"finished\"/\"interrupted\"/' run.json",
                    run, as, as),
              0);
}

CASE(resumed_by_as_many_it_has_the_same_bits_and_by_others_nearly)
{
    begin();
    EXPECT(0, "", RANKS "2 " RUN "output_dir=@D/whole 2>&1");
    interrupt("whole", "same");
    interrupt("whole", "fewer");
    interrupt("whole", "more");
    EXPECT(0, "goes on from step 5", RANKS "2 " RUN "output_dir=@D/same 2>&1");
    EXPECT(0, "", "cmp @D/whole/adapter_model.safetensors @D/same/adapter_model.safetensors");
    EXPECT(0, "begun by 2 ranks and goes on with 1", RUN "output_dir=@D/fewer 2>&1");
    EXPECT(0, "went on elsewhere", "@FT compare @D/whole @D/fewer --tolerance 1e-6 2>&1");
    EXPECT(0, "begun by 2 ranks and goes on with 3", RANKS "3 " RUN "output_dir=@D/more 2>&1");
    EXPECT(0, "ok", "@FT compare @D/whole @D/more --tolerance 1e-6 2>&1");
    EXPECT(0, "", RANKS "2 " RUN "output_dir=@D/whole 2>&1"); /* finished: nothing is done */
}

CASE(a_signal_to_one_ends_all_and_saves)
{
    begin();
    EXPECT(75, "",
           RANKS "2 sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && (sleep 2; kill -TERM $$) & "
                 "exec " RUN "max_steps=99999999 output_dir=@D/out' 2>&1");
    EXPECT(0, "\"interrupted\"", "cat @D/out/run.json");
    CHECK_INT(shell("ls @D/out/checkpoint-*/manifest.json"), 0);
}

CASE(f41_a_rank_that_dies_or_hangs_ends_all)
{
    begin();
    EXPECT(137, "rank 1",
           RANKS "2 sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && (sleep 2; kill -KILL "
                 "$$) & exec " RUN "max_steps=99999999 output_dir=@D/died' 2>&1");
    EXPECT(4, "error: rank 1 on '",
           RANKS "2 sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && (sleep 2; "
                 "kill -STOP $$) & exec " RUN "max_steps=99999999 output_dir=@D/hung' 2>&1");
    CHECK_HAS(shell_output, "has not been heard of for 20 s");
}

CASE(what_all_find_wrong_is_said_once)
{
    begin();
    EXPECT(2, "'lora_rr' is not an option", RANKS "2 " RUN "lora_rr=1 output_dir=@D/out 2>&1");
    const char *first = strstr(shell_output, "lora_rr");
    CHECK(first && !strstr(first + 1, "lora_rr"));
    CHECK_INT(shell("mkdir @D/full && touch @D/full/x"), 0);
    EXPECT(2, "is not empty", RANKS "2 " RUN "output_dir=@D/full 2>&1");
}

CASE(ranks_of_different_runs_are_refused)
{
    begin();
    EXPECT(3, "rank 1 on '",
           RANKS "2 sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && more=max_steps=7; "
                 "exec " RUN "output_dir=@D/out $more' 2>&1");
    CHECK_HAS(shell_output, "has other steps than rank 0");
}

/* Never a world of one in silence. */
CASE(a_world_that_is_not_what_launchers_say_is_refused)
{
    static const char *const names[] = {"SLURM_NTASKS", "WORLD_SIZE", "SLURM_JOB_NUM_NODES"};
    fresh_folder();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        EXPECT(2, "this process knows of no other", "%s=2 " RUN "output_dir=@D/out 2>&1", names[i]);
        CHECK_HAS(shell_output, names[i]);
        EXPECT(0, "", "%s=1 " RUN "output_dir=@D/out%zu 2>&1", names[i], i);
    }
    EXPECT(4, "this process cannot work with the others",
           "FT_MPI_LIBRARY=none OMPI_COMM_WORLD_SIZE=2 " RUN "output_dir=@D/out 2>&1");
    begin();
    EXPECT(2, "'SLURM_NTASKS' says 3, and MPI knows of 2 processes",
           "SLURM_NTASKS=3 " RANKS "2 " RUN "output_dir=@D/out 2>&1");
    EXPECT(0, "", "SLURM_NTASKS=2 " RANKS "2 " RUN "output_dir=@D/out 2>&1");
}
