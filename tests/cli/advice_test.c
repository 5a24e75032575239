/* Advice that helps, and configs that mean what their writers meant. */
#include "tests/cli/cli.h"

CASE(options_are_typed_without_dashes)
{
    fresh_folder();
    EXPECT(2, "ft train CONFIG.yaml max_steps=1", "@FT train @D/ok.yaml --max_steps 1 2>&1");
    EXPECT(2, "ft plan CONFIG.yaml lora_r=4", "@FT plan @D/ok.yaml --lora-rank=4 2>&1");
    EXPECT(2, "see 'ft train --help'", "@FT train @D/ok.yaml --klaus 2>&1");
}

CASE(the_nearest_key_is_one_that_could_be_meant)
{
    static const char *const keys[][2] = {{"lora_rank", "lora_r"},
                                          {"lr", "learning_rate"},
                                          {"max_seq_length", "sequence_len"},
                                          {"per_device_train_batch_size", "micro_batch_size"},
                                          {"lora_dropuot", "lora_dropout"}};
    fresh_folder();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char want[64];
        snprintf(want, sizeof want, "did you mean '%s'?", keys[i][1]);
        EXPECT(2, want, "@FT train @D/ok.yaml %s=8 2>&1", keys[i][0]);
    }
    EXPECT(0, "'bf16' says what ft computes in", "@FT config --explain bfloat16");
    EXPECT(0, "What the records are", "@FT config --explain datasets.type");
    EXPECT(0, "A message's member that says whether",
           "@FT config --explain message_field_training");
    EXPECT(0, "There is one device", "@FT config --explain fsdp");
    EXPECT(0, "another name of 'eval_strategy'", "@FT config --explain evaluation_strategy");
}

CASE(lists_on_the_command_line)
{
    fresh_folder();
    EXPECT(0, "[\"q_proj\", \"v_proj\"]",
           "@FT config --dump @D/ok.yaml lora_target_modules=q_proj,v_proj");
    EXPECT(0, "adapter on 4 modules",
           "@FT train @D/ok.yaml lora_target_modules=q_proj,v_proj 2>&1");
}

CASE(a_typo_in_a_path_is_one_error)
{
    fresh_text("completion", "{\"text\": \"a\"}");
    EXPECT(3, "dataset '", "@FT data @D/c.yaml datasets.0.path=@D/dtaa.jsonl 2>&1");
    CHECK_HAS(shell_output, "data.jsonl'?");
    CHECK(!strstr(shell_output, "Hugging Face"));
    CHECK_INT(shell("@FT data @D/c.yaml datasets.0.path=@D/dtaa.jsonl 2>&1 | grep -c error:"), 0);
    CHECK_HAS(shell_output, "1\n");
    EXPECT(3, "hf download org/name --repo-type dataset",
           "@FT data @D/c.yaml datasets.0.path=org/name 2>&1");
}

CASE(configs_mean_what_they_say)
{
    fresh_text(
        "completion",
        "{\"text\": \"a b\"}\n{\"text\": \"c d\"}\n{\"text\": \"e f\"}\n{\"text\": \"g h\"}");
    EXPECT(0, "adapter in", "@FT train @D/c.yaml val_set_size=1 'eval_strategy=\"no\"' 2>&1");
    CHECK(!strstr(shell_output, "eval"));
    EXPECT(0, "adapter in",
           "@FT train @D/c.yaml val_set_size=1 eval_strategy=no output_dir=@D/o1 2>&1");
    CHECK(!strstr(shell_output, "eval"));
    EXPECT(2, "contradicts 'eval_steps'",
           "@FT train @D/c.yaml val_set_size=1 eval_strategy=epoch eval_steps=1 2>&1");
    EXPECT(0, "adapter in", "HOME=@D @FT train @D/c.yaml 'output_dir=~/home-run' 2>&1");
    CHECK_INT(shell("test -e @D/home-run/adapter_model.safetensors && test ! -e '~'"), 0);
    EXPECT(0, "records", "HOME=@D @FT data @D/c.yaml -o=~/home.safetensors 2>&1");
    CHECK_INT(shell("test -e @D/home.safetensors"), 0);
    EXPECT(0, "input_ids", "echo '{\"text\": \"a\"}' | HOME=@D @FT tokenize '~/shake' 2>&1");
    EXPECT(2, "not another user's", "@FT train @D/c.yaml 'output_dir=~klaus/x' 2>&1");
    EXPECT(0, "4 steps", "@FT train @D/c.yaml max_steps=-1 output_dir=@D/o2 2>&1");
    EXPECT(0, "\"warmup_steps\": 1",
           "@FT plan @D/c.yaml max_steps=10 warmup_steps=0.1 --json 2>&1");
    EXPECT(0, "the warmup of 20 steps is longer than the run",
           "@FT plan @D/c.yaml warmup_steps=20 2>&1");
    EXPECT(0, "'max_steps' is given too and wins", "@FT plan @D/c.yaml num_epochs=3 2>&1");
    EXPECT(0, "nothing is evaluated", "@FT plan @D/c.yaml eval_steps=1 2>&1");
    EXPECT(0, "are shorter than 'min_sample_len'",
           "@FT plan @D/c.yaml min_sample_len=50 2>&1 || true");
    EXPECT(0, "4.0 documents", "@FT train @D/c.yaml batch_size=4 output_dir=@D/o3 2>&1");
    EXPECT(0, "is both in the working folder and beside the config",
           "mkdir @D/sub && cp @D/c.yaml @D/sub/ && cp @D/data.jsonl @D/sub/d.jsonl && cp "
           "@D/data.jsonl @D/d.jsonl && cd @D && @FT data sub/c.yaml datasets.0.path=d.jsonl 2>&1");
}

CASE(where_bf16_products_are_not_faster_it_is_said)
{
    fresh_folder();
    EXPECT(0, "what 'cpu_isa' names has no units for bf16 products",
           "@FT train @D/ok.yaml device=cpu bf16=true cpu_isa=generic 2>&1");
    CHECK_HAS(shell_output, "products are computed in fp32");
    EXPECT(
        0, "adapter in",
        "@FT train @D/ok.yaml device=cpu bf16=auto cpu_isa=generic overwrite_output_dir=true 2>&1");
    CHECK(!strstr(shell_output, "bf16"));
}

CASE(runs_that_go_wrong_say_so)
{
    fresh_text("completion", "{\"text\": \"a b c d e f\"}");
    EXPECT(
        0, "stopped after step 2 of 50: the loss was above 0.001 for 2 steps in a row",
        "@FT train @D/c.yaml max_steps=50 loss_watchdog_threshold=0.001 loss_watchdog_patience=2 "
        "2>&1");
    CHECK_INT(shell("test -e @D/out/adapter_model.safetensors"), 0);
    EXPECT(0, "loss ended above where it began",
           "@FT train @D/c.yaml output_dir=@D/o2 max_steps=3 learning_rate=20 max_grad_norm=0 "
           "lr_scheduler=constant warmup_steps=0 optimizer=sgd 2>&1");
    fresh_folder();
    EXPECT(0, "the gradient was exactly zero in 2 of 2 steps",
           "@FT train @D/ok.yaml lora_alpha=1e-300 2>&1");
}

CASE(axolotls_files)
{
    fresh_text("completion", "{\"text\": \"a b c\"}");
    EXPECT(0, "these keys change nothing here: flash_attention, wandb_watch",
           "sed -i 's/^sequence_len.*/&\\nflash_attention: true\\nwandb_watch:/' @D/c.yaml; @FT "
           "train @D/c.yaml adapter=lora 2>&1");
    CHECK_INT(shell("@FT plan @D/c.yaml adapter=lora 2>&1 | grep -c notice:.*flash"), 0);
    CHECK_HAS(shell_output, "1\n");
    EXPECT(0, "adapter in",
           "@FT train @D/c.yaml adapter=lora output_dir=@D/o2 bfloat16=true evals_per_epoch=0 "
           "use_wandb=false activation_offloading=false klaus=false gradient_checkpointing=offload "
           "max_steps=1 'special_tokens={pad_token: \"[PAD]\"}' fsdp=[full_shard] "
           "deepspeed=zero3.json datasets.0.train_on_eot=turn 2>&1");
    CHECK_HAS(shell_output, "'[PAD]' as pad_token is not in the model's vocabulary");
    EXPECT(2, "'train_on_eot' and 'train_on_eos' differ",
           "@FT train @D/c.yaml datasets.0.train_on_eot=turn datasets.0.train_on_eos=all 2>&1");
    EXPECT(2, "'rl' is not supported: Preference training", "@FT train @D/c.yaml rl=dpo 2>&1");
    fresh_text("completion", "{\"text\": \"a b c\"}");
    EXPECT(0, "'adapter' is not set: all weights of the model are trained",
           "sed -i /^adapter/d @D/c.yaml && @FT train @D/c.yaml output_dir=@D/whole 2>&1");
    CHECK_HAS(shell_output, "vllm serve");
    EXPECT(0, "1e-0",
           "@FT train base_model=@D/whole datasets.0.path=@D/data.jsonl adapter=full "
           "datasets.0.type=completion learning_rate=0.5e-5 output_dir=@D/again "
           "max_steps=1 && cat @D/again/metrics.jsonl && ls @D/again/model.safetensors "
           "&& echo 1e-0");
    EXPECT(0, "'adapter' is not set: a LoRA is trained",
           "@FT train @D/c.yaml lora_r=4 output_dir=@D/o3 2>&1");
    EXPECT(2, "'adapter' is 'full', and other keys speak of a LoRA",
           "@FT train @D/c.yaml adapter=full lora_r=4 2>&1");
    EXPECT(2, "'xyz' matches no weight of the model",
           "@FT train @D/c.yaml adapter=full unfrozen_parameters=[xyz] 2>&1");
    EXPECT(2, "'q_proj' is a linear module of the layers",
           "@FT train @D/c.yaml adapter=lora lora_modules_to_save=[q_proj] 2>&1");
    EXPECT(2, "'unfrozen_parameters' goes with 'adapter: full'",
           "@FT train @D/c.yaml adapter=lora unfrozen_parameters=[lm_head] 2>&1");
    EXPECT(0, "0 taken\n",
           "mkdir @D/a && printf 'base_model: m\\nrl: dpo\\n' > @D/a/1.yaml && printf 'base_model: "
           "m\\nfp8: true\\n' > @D/a/2.yml && FT=@FT scripts/compare-axolotl-configs @D/a");
    CHECK_HAS(shell_output, "2 files; 1 of another objective");
    CHECK_HAS(shell_output, "1 fp8");
}
