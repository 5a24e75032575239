/* The commands as a user meets them: help, plan, config, the files a run leaves, continuing. */
#include "tests/cli/cli.h"

#include <jansson.h>
#include <stdlib.h>

CASE(help_teaches)
{
    EXPECT(0, "usage: ft COMMAND", "@FT --help");
    EXPECT(0, "A first config", "@FT train --help");
    EXPECT(0, "#SBATCH", "@FT help plan");
    EXPECT(0, "ft 0.", "@FT --version");
    EXPECT(0, "range:   1..1024", "@FT config --explain lora_r");
    EXPECT(2, "did you mean 'lora_r'", "@FT config --explain lora_rr 2>&1");
    EXPECT(0, "not supported yet", "@FT config --explain fp8");
    EXPECT(0, "\"additionalProperties\": false", "@FT config --schema");
    EXPECT(2, "needs --explain", "@FT config 2>&1");
}

CASE(every_shipped_config_runs)
{
    fresh_folder();
    EXPECT(0, "adapter in",
           "@FT train configs/demo.yaml max_steps=2 output_dir=@D/demo "
           "dataset_prepared_path=@D/prepared "
           "2>&1");
    EXPECT(0, "adapter in",
           "@FT train configs/ci-regression.yaml max_steps=2 output_dir=@D/ci "
           "dataset_prepared_path=@D/prepared 2>&1");
    EXPECT(0, "adapter in",
           "@FT train configs/lora-8gb.yaml max_steps=2 output_dir=@D/8gb base_model=@D/model "
           "datasets.0.path=datasets/milton-train.jsonl datasets.0.type=completion val_set_size=0 "
           "dataset_prepared_path=@D/prepared "
           "base_model=datasets/shakespeare-2m 2>&1");
    EXPECT(
        0, "adapter in",
        "@FT train configs/lora-gpu.yaml max_steps=2 output_dir=@D/gpu val_set_size=0 device=cpu "
        "datasets.0.path=datasets/milton-train.jsonl datasets.0.type=completion "
        "gradient_accumulation_steps=1 dataset_prepared_path=@D/prepared "
        "micro_batch_size=1 sequence_len=256 base_model=datasets/shakespeare-2m 2>&1");
    EXPECT(0, "adapter in",
           "@FT train configs/qlora-gpu.yaml max_steps=2 output_dir=@D/q val_set_size=0 device=cpu "
           "datasets.0.path=datasets/milton-train.jsonl datasets.0.type=completion "
           "gradient_accumulation_steps=1 dataset_prepared_path=@D/prepared "
           "sequence_len=256 base_model=datasets/shakespeare-2m 2>&1");
    CHECK_INT(shell("test $(ls configs/*.yaml | wc -l) -eq 5"), 0); /* all of them are above */
}

static json_t *output_json(void)
{
    json_t *o = json_loads(shell_output, 0, NULL);
    CHECK(o != NULL);
    return o;
}

CASE(plan_says_what_the_run_does)
{
    fresh_folder();
    EXPECT(0, "steps", "@FT plan @D/ok.yaml max_steps=7 val_set_size=1 --json 2>/dev/null");
    json_t *plan = output_json();
    CHECK_INT(json_integer_value(json_object_get(plan, "steps")), 7);
    CHECK_INT(json_integer_value(json_object_get(plan, "documents")), 2);
    CHECK_INT(json_integer_value(json_object_get(plan, "trained_parameters")), 14464);
    json_int_t bytes = json_integer_value(json_object_get(plan, "memory_bytes"));
    json_decref(plan);
    EXPECT(0, "planned_bytes",
           "@FT train @D/ok.yaml max_steps=7 val_set_size=1 --quiet --json 2>/dev/null");
    json_t *run = output_json();
    CHECK_INT(json_integer_value(json_object_get(run, "planned_bytes")), bytes);
    CHECK_INT(json_integer_value(json_object_get(run, "steps")), 7);
    json_decref(run);
    EXPECT(0, "#SBATCH --mem=", "@FT plan @D/ok.yaml 2>&1");
    EXPECT(0, "largest at the peak", "@FT plan @D/ok.yaml 2>&1");
}

CASE(bench_measures_a_shape_or_a_config)
{
    fresh_folder();
    EXPECT(0, "llama-3-8b", "@FT bench --list");
    EXPECT(0, "tokens_per_second",
           "@FT bench @D/ok.yaml --steps 1 --json device=cpu max_steps=1000 2>/dev/null");
    json_t *o = output_json();
    CHECK(json_number_value(json_object_get(o, "tokens_per_second")) > 0);
    CHECK(json_number_value(json_object_get(o, "share")) > 0);
    json_decref(o);
    EXPECT(0, "attention_dx", "@FT bench @D/ok.yaml --steps 1 --profile device=cpu 2>/dev/null");
    EXPECT(2, "needs a whole number", "@FT bench smollm2-135m --rows many 2>&1");
    EXPECT(2, "'--tune' is for GPUs", "@FT bench @D/ok.yaml --tune device=cpu 2>&1");
    EXPECT(2, "is not a flag", "@FT bench smollm2-135m --row 3 2>&1");
}

CASE(a_run_leaves_what_the_readme_says)
{
    fresh_folder();
    EXPECT(0, "PeftModel.from_pretrained",
           "@FT train @D/ok.yaml max_steps=3 test_datasets.0.path=@D/model/data.safetensors 2>&1");
    CHECK_HAS(shell_output, "--max-lora-rank 16");
    EXPECT(0, "", "cat @D/out/metrics.jsonl");
    static const char *const keys[] = {"\"step\": 3",
                                       "\"epoch\": 1",
                                       "\"loss\": ",
                                       "\"grad_norm\": ",
                                       "\"learning_rate\": ",
                                       "\"trained_tokens\": ",
                                       "\"tokens_seen\": ",
                                       "\"tokens_per_second\": ",
                                       "\"seconds\": ",
                                       "\"step\": 0, \"eval_loss\": ",
                                       "\"step\": 3, \"eval_loss\": "};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        CHECK_HAS(shell_output, keys[i]);
    EXPECT(0, "\"weights\"", "cat @D/out/run.json");
    json_t *run = output_json();
    json_t *sums = json_object_get(run, "sha256");
    const char *sum =
        json_string_value(json_object_get(json_object_get(sums, "weights"), "model.safetensors"));
    CHECK_INT(shell("echo '%s  @D/model/model.safetensors' | sha256sum -c --quiet", sum ? sum : ""),
              0);
    json_decref(run);
    CHECK_INT(shell("ls -A @D/out | tr '\\n' ' '"), 0);
    CHECK_TEXT(shell_output,
               "README.md adapter_config.json adapter_model.safetensors checkpoint-3 metrics.jsonl "
               "run.json ");
}

CASE(f45_what_engines_do_not_load_is_said)
{
    static const struct {
        const char *option, *vllm, *llama;
    } rows[] = {
        {"lora_r=8", "vllm serve", "--to gguf-adapter"},
        {"peft_use_dora=true", "loads plain LoRA only", "loads plain LoRA only"},
        {"lora_modules_to_save=[lm_head]", "does not load modules_to_save",
         "does not load modules_to_save"},
        {"peft_use_rslora=true", "vllm serve", "--to gguf-adapter"},
        {"lora_rank_pattern={q_proj: 4}", "may ignore rank and alpha patterns",
         "--to gguf-adapter"},
    };
    fresh_folder();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        EXPECT(0, "vLLM       ", "@FT train @D/ok.yaml output_dir=@D/e%zu '%s' 2>&1", i,
               rows[i].option);
        const char *vllm = strstr(shell_output, "vLLM       ");
        const char *llama = strstr(shell_output, "llama.cpp  ");
        CHECK(vllm && llama && strstr(vllm, rows[i].vllm) < llama);
        CHECK_HAS(vllm ? vllm : "", rows[i].vllm);
        CHECK_HAS(llama ? llama : "", rows[i].llama);
    }
}

CASE(f45_what_engines_read_otherwise_is_said_of_the_portable_form)
{
    static const struct {
        const char *name, *what;
    } rows[] = {{"glm4", "does not find GLM-4's gate_up_proj"},
                {"qwen2-moe", "passes over shared_expert_gate"},
                {"qwen2-moe", "PEFT passes over Qwen2-MoE's experts"}};
    fresh_folder();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        EXPECT(0, rows[i].what,
               "@FT export " FT_ROOT "/tests/golden/%s -m " FT_ROOT
               "/tests/golden/%s --force -o @D/p%zu --to portable 2>&1",
               rows[i].name, rows[i].name, i);
}

CASE(an_adapter_can_be_continued)
{
    fresh_folder();
    EXPECT(0, "adapter in",
           "@FT train @D/ok.yaml lora_r=3 lora_alpha=5 'lora_target_modules=[q_proj]' 2>&1");
    EXPECT(0, "adapter on 2 modules",
           "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/out2 2>&1");
    EXPECT(0, "", "grep -q '\"r\": 3' @D/out2/adapter_config.json");
    EXPECT(2, "'lora_r' is 8, the adapter in 'lora_model_dir' has 3",
           "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/out3 lora_r=8 2>&1");
    EXPECT(3, "lora_magnitude_vector' is missing",
           "sed -i 's/\"use_dora\": false/\"use_dora\": true/' @D/out/adapter_config.json; "
           "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/out3 2>&1");
    EXPECT(3, "adapter_config.json",
           "@FT train @D/ok.yaml lora_model_dir=@D output_dir=@D/out3 2>&1");
}

CASE(models_are_found_in_the_local_hugging_face_cache)
{
    fresh_folder();
    shell("mkdir -p @D/hub/models--org--tiny/refs @D/hub/models--org--tiny/snapshots && "
          "printf abc > @D/hub/models--org--tiny/refs/main && "
          "cp -r @D/model @D/hub/models--org--tiny/snapshots/abc");
    EXPECT(0, "org/tiny", "HF_HUB_CACHE=@D/hub @FT train @D/ok.yaml base_model=org/tiny 2>&1");
    EXPECT(0, "", "grep -q '\"base_model_name_or_path\": \"org/tiny\"' @D/out/adapter_config.json");
    EXPECT(0, "org/tiny",
           "mkdir @D/home; mv @D/hub @D/home/hub; HF_HUB_CACHE= HF_HOME=@D/home "
           "@FT train @D/ok.yaml base_model=org/tiny output_dir=@D/out2 2>&1");
    EXPECT(3, "hf download org/other",
           "HF_HOME=@D/home @FT train @D/ok.yaml base_model=org/other output_dir=@D/out3 2>&1");
}

CASE(relative_paths_fall_back_to_the_configs_folder)
{
    fresh_folder();
    shell("sed -i 's|@D/||' @D/ok.yaml");
    EXPECT(0, "adapter in", "@FT train @D/ok.yaml output_dir=@D/out 2>&1");
}

CASE(killed_at_any_moment_nothing_is_half_written)
{
    fresh_folder();
    for (int ms = 0; ms < 60; ms += 4) {
        shell("@FT train @D/ok.yaml overwrite_output_dir=true max_steps=4 >/dev/null 2>&1 & "
              "sleep 0.%03d; kill -9 $! 2>/dev/null; wait 2>/dev/null",
              ms);
        /* what stands there under its own name is whole: the program itself must accept it */
        CHECK_INT(shell("test ! -e @D/out/adapter_model.safetensors || test ! -e "
                        "@D/out/adapter_config.json || "
                        "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/again "
                        "overwrite_output_dir=true >/dev/null 2>&1"),
                  0);
        CHECK_INT(shell("test ! -e @D/out/run.json || grep -q '^}$' @D/out/run.json"), 0);
    }
    remove_fresh_folder();
}

CASE(valgrind_finds_nothing)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    check_skip("the sanitizers look already");
#endif
    if (shell("command -v valgrind >/dev/null"))
        check_skip("valgrind is not installed");
    fresh_folder();
    CHECK_INT(shell("valgrind -q --error-exitcode=9 --leak-check=full "
                    "--errors-for-leak-kinds=definite,indirect @FT train @D/ok.yaml val_set_size=1 "
                    "gradient_checkpointing=true lora_dropout=0.1 2>&1"),
              0);
    remove_fresh_folder();
}

CASE(pages_are_made_from_the_tables)
{
    EXPECT(0, ".SS ft train", "@FT man");
    CHECK_HAS(shell_output, ".B lora_r\n");
    CHECK_HAS(shell_output, "\\-\\-profile");
    EXPECT(2, "needs bash, zsh or fish", "@FT completions tcsh 2>&1");
    EXPECT(0, "complete -c ft -n '__fish_seen_subcommand_from data' -l show",
           "@FT completions fish");
    EXPECT(0, "train) compadd -- --help --quiet --profile --json", "@FT completions zsh");
    EXPECT(
        0, "lora_alpha=\nlora_alpha_pattern=\n",
        "@FT completions bash > /tmp/ft-complete-$$ && bash -c '. /tmp/ft-complete-'$$'; compopt() "
        "{ :; }; COMP_WORDS=(ft train lora_al) COMP_CWORD=2; _ft; printf \"%%s\\n\" "
        "\"${COMPREPLY[@]}\"'; rm /tmp/ft-complete-$$");
}
