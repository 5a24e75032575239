/* Two inputs that say the same thing and differ: named, never settled in silence. */
#include "tests/cli/cli.h"

/* --- models --- */

CASE(a_model_contradicts_itself)
{
    fresh_folder();
    EXPECT(3, "'model_type' is 'mistral', the architecture is 'LlamaForCausalLM'",
           "sed -i 's/\"llama\"/\"mistral\"/' @D/model/config.json; @FT plan @D/ok.yaml 2>&1");
    fresh_folder();
    EXPECT(0, "the first is read, as transformers does",
           "echo '{}' > @D/model/model.safetensors.index.json; @FT plan @D/ok.yaml 2>&1");
    EXPECT(0, "says that the weights have 0 bytes; they have",
           "@FT plan @D/ok.yaml base_model=tests/golden/f16-sharded lora_r=2 2>&1");
    shell("cp -r tests/golden/f16-sharded @D/sharded && chmod -R u+w @D/sharded");
    EXPECT(3, "does not list tensor 'model.layers.0.input_layernorm.weight'",
           "sed -i '/layers.0.input_layernorm.weight/d' @D/sharded/model.safetensors.index.json; "
           "@FT plan "
           "@D/ok.yaml base_model=@D/sharded 2>&1");
    EXPECT(0, "both are used, as transformers does",
           "@FT plan @D/ok.yaml base_model=tests/golden/own-head 2>&1");
}

CASE(a_gguf_file_and_its_model)
{
    fresh_folder();
    shell("cp " FT_ROOT "/tests/golden/gguf-llama/model.gguf @D/m.gguf; "
          "LC_ALL=C sed 's/general.source/general.xxxxxx/g' @D/m.gguf > @D/unsaid.gguf");
#define GGUF(file)                                                                                 \
    "base_model=@D/" file " adapter=qlora datasets.0.path=" FT_ROOT                                \
    "/tests/golden/gguf-llama/data.safetensors output_dir=@D/out device=cpu max_steps=1 2>&1"
    EXPECT(0, "'base_model_name' gives PEFT the model's folder or id",
           "@FT plan " GGUF("unsaid.gguf"));
    EXPECT(0, "\"base_model_name_or_path\": \"org/tiny\"",
           "@FT train " GGUF("m.gguf") "; cat @D/out/adapter_config.json");
    EXPECT(0, "\"base_model_name_or_path\": \"org/name\"",
           "@FT train overwrite_output_dir=true base_model_name=org/name " GGUF(
               "unsaid.gguf") "; cat @D/out/adapter_config.json");
#undef GGUF
}

CASE(two_places_for_rope)
{
    fresh_folder();
    EXPECT(0, "'rope_theta' is 10000, and 5000 among the parameters of rope; the second counts",
           "sed -i '0,/{/s/{/{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"linear\", "
           "\"rope_type\": \"default\", \"rope_theta\": 5000}, /' @D/model/config.json; "
           "sed -i '/rope_parameters/,/}/d; /^ *\"rope_theta\": [0-9.]*,$/d' @D/model/config.json; "
           "@FT plan @D/ok.yaml 2>&1");
    CHECK_HAS(shell_output, "'type' of rope is 'linear', and 'rope_type' 'default'");
}

/* --- adapters --- */

CASE(an_adapters_config_and_tensors_must_agree)
{
    fresh_folder();
    EXPECT(0, "adapter in", "@FT train @D/ok.yaml lora_model_dir=@D/model output_dir=@D/same 2>&1");
    shell("mkdir @D/less && cp @D/model/adapter_* @D/less/ && python3 -c 1 2>/dev/null; sed -i "
          "'s/\"up_proj\",\\?//' @D/less/adapter_config.json; sed -i ':a;N;$!ba;s/,\\s*\\]/]/' "
          "@D/less/adapter_config.json");
    EXPECT(3, "'target_modules' does not cover 'model.layers.0.mlp.up_proj'",
           "@FT train @D/ok.yaml lora_model_dir=@D/less 2>&1");
    CHECK_HAS(shell_output, "leave these tensors out");
    shell("cp -r tests/golden/few-modules @D/few && chmod -R u+w @D/few && sed -i "
          "'s/\"q_proj\"/\"q_proj\", \"k_proj\"/' @D/few/adapter_config.json");
    EXPECT(3, "'target_modules' covers 'model.layers.1.self_attn.k_proj'",
           "@FT train @D/ok.yaml base_model=@D/few lora_model_dir=@D/few "
           "datasets.0.path=@D/few/data.safetensors 2>&1");
    EXPECT(3, "'target_modules' covers 'lm_head'",
           "sed -i 's/\"k_proj\"/\"lm_head\"/; s/\"layers_to_transform\": \\[/&/' "
           "@D/few/adapter_config.json; sed -i ':a;N;$!ba;s/\"layers_to_transform\": "
           "\\[[^]]*\\]/\"layers_to_transform\": null/' @D/few/adapter_config.json; sed -i "
           "'s/\"q_proj\", //; s/\"down_proj\"/\"model.layers.1.self_attn.q_proj\", "
           "\"model.layers.1.mlp.down_proj\"/' @D/few/adapter_config.json; @FT train @D/ok.yaml "
           "base_model=@D/few lora_model_dir=@D/few datasets.0.path=@D/few/data.safetensors 2>&1");
    EXPECT(0, "adapter in",
           "@FT train @D/ok.yaml base_model=tests/golden/fraction "
           "lora_model_dir=tests/golden/fraction output_dir=@D/fraction 2>&1");
    EXPECT(0, "\"lora_alpha\": 2.5", "cat @D/fraction/adapter_config.json");
    EXPECT(0, "\"v_proj\": 0.75", "cat @D/fraction/adapter_config.json");
}

/* --- tokenized data --- */

static void expect_tokens(int code, const char *said, const char *record)
{
    fresh_text("tokenized", record);
    if (shell("@FT train @D/c.yaml 2>&1") != code || !strstr(shell_output, said))
        check_fail(record, code, "is told: %s", shell_output);
}

CASE(tokenized_records_must_say_one_thing)
{
    expect_tokens(0, "3 tokens to train on",
                  "{\"input_ids\": [5,6,7,8], \"labels\": [-100,6,7,8]}");
    expect_tokens(3, "labels[0] is 6 and input_ids[0] is 5",
                  "{\"input_ids\": [5,6,7,8], \"labels\": [6,7,8,-100]}");
    CHECK_HAS(shell_output, "shifted by one already");
    expect_tokens(3, "says otherwise",
                  "{\"input_ids\": [5,6], \"labels\": [-100,6], \"loss_mask\": [0,0]}");
    expect_tokens(3, "neither 0 nor 1", "{\"input_ids\": [5,6], \"loss_mask\": [0,2]}");
    expect_tokens(0, "2 tokens to train on",
                  "{\"input_ids\": [5,6,7,0,0], \"attention_mask\": [1,1,1,0,0], \"labels\": "
                  "[5,6,7,-100,-100]}");
    expect_tokens(3, "attention_mask[2] is 1 behind a 0",
                  "{\"input_ids\": [5,6,7], \"attention_mask\": [1,0,1]}");
    expect_tokens(3, "attention_mask calls it padding",
                  "{\"input_ids\": [5,6,7], \"attention_mask\": [1,1,0], \"labels\": [5,6,7]}");
    expect_tokens(0, "1 tokens to train on", "{\"input_ids\": [5,6], \"position_ids\": [0,1]}");
    expect_tokens(3, "position_ids[1] is not 1", "{\"input_ids\": [5,6], \"position_ids\": [0,0]}");
    expect_tokens(0, "2 tokens to train on",
                  "{\"input_ids\": [5,6,7,8], \"completion_mask\": [0,0,1,1]}");
    expect_tokens(0, "1 tokens to train on",
                  "{\"input_ids\": [5,6,7,8], \"labels\": [-100,6,7,8], \"completion_mask\": "
                  "[0,0,1,1], \"assistant_masks\": [0,1,0,1]}");
    expect_tokens(3, "assistant_masks[1] is neither 0 nor 1",
                  "{\"input_ids\": [5,6], \"assistant_masks\": [0,2]}");
    expect_tokens(3, "'labels' is not a list as long", "{\"input_ids\": [5,6], \"labels\": [5]}");
}

CASE(an_entry_without_a_type_has_token_ids)
{
    fresh_text("", "{\"input_ids\": [5,6,7], \"labels\": [-100,6,7]}");
    EXPECT(0, "(tokenized)", "@FT data @D/c.yaml 2>&1");
    fresh_text("", "{\"text\": \"a\"}");
    EXPECT(2, "has no 'type'", "@FT data @D/c.yaml 2>&1");
}

CASE(tokens_of_another_tokenizer_are_refused)
{
    fresh_text("completion", "{\"text\": \"To be or not\"}");
    EXPECT(0, "written to", "@FT data @D/c.yaml -o @D/o.safetensors 2>&1");
    EXPECT(0, "adapter in",
           "@FT train @D/c.yaml 'datasets=[{path: @D/o.safetensors}]' max_steps=1 2>&1");
    EXPECT(3, "was tokenized with another tokenizer",
           "echo ' ' >> @D/shake/tokenizer.json; @FT train @D/c.yaml 'datasets=[{path: "
           "@D/o.safetensors}]' output_dir=@D/out2 2>&1");
}

/* --- what is served --- */

CASE(a_text_ends_with_a_token_that_is_served_too)
{
    fresh_text("alpaca", "{\"instruction\": \"a\", \"output\": \"b c\"}");
    EXPECT(0, "is trained ends with '</s>'",
           "echo '{\"eos_token_id\": 7}' > @D/shake/generation_config.json; @FT train @D/c.yaml "
           "sequence_len=256 2>&1");
    EXPECT(0, "[7,1]", "tr -d ' \n' < @D/out/generation_config.json");
    EXPECT(0, "has 99999, which is no token of the model",
           "echo '{\"eos_token_id\": [1, 99999]}' > @D/shake/generation_config.json; @FT plan "
           "@D/c.yaml sequence_len=256 2>&1");
    EXPECT(3, "shake/generation_config.json: error: 'eos_token_id' is neither",
           "echo '{\"eos_token_id\": \"x\"}' > @D/shake/generation_config.json; @FT plan @D/c.yaml "
           "sequence_len=256 2>&1");
}

/* Found before a step is made, not when the adapter is there. */
CASE(files_that_are_served_are_read_first)
{
    fresh_text("completion", "{\"text\": \"a b c\"}");
    EXPECT(3, "shake/generation_config.json: error: is a Git LFS pointer",
           "cp @D/shake/generation_config.json @D/g 2>/dev/null; printf 'version "
           "https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n' > "
           "@D/shake/generation_config.json; @FT train @D/c.yaml 2>&1");
    EXPECT(3, "shake/generation_config.json:1",
           "echo '{nope' > @D/shake/generation_config.json; @FT plan @D/c.yaml 2>&1");
    EXPECT(3, "chat_template.jinja: error: is a Git LFS pointer",
           "rm @D/shake/generation_config.json; printf 'version "
           "https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n' > "
           "@D/shake/chat_template.jinja; @FT train @D/c.yaml 2>&1");
    EXPECT(0, "nothing", "test ! -e @D/out/adapter_model.safetensors && echo nothing");
}

CASE(a_token_without_an_embedding_is_a_bad_record)
{
    fresh_text("completion", "{\"text\": \"a <|end|> b\"}");
    EXPECT(3, "'<|end|>' (2048), for which the model has no embedding",
           "echo '{\"<|end|>\": 2048}' > @D/shake/added_tokens.json; @FT data @D/c.yaml 2>&1");
}

CASE(the_run_folder_has_the_template_and_the_end_of_turns)
{
    fresh_text("chat_template", CHAT("a", "b"));
    EXPECT(0, " --tokenizer ", "@FT train @D/c.yaml chat_template=alpaca 2>&1");
    EXPECT(0, "### Instruction", "cat @D/out/chat_template.jinja");
    EXPECT(0, "### Instruction", "cat @D/out/tokenizer_config.json");
    EXPECT(0, "1", "tr -d ' \\n' < @D/out/generation_config.json");
    EXPECT(0, "'default_system_message' is not part of the template",
           "@FT plan @D/c.yaml chat_template=alpaca default_system_message=sir 2>&1");
    /* turns that end with another token than the tokenizer's own: <s> here */
    write_template("{% for m in messages %}{{ m.content }}<s>{% endfor %}");
    EXPECT(0, "what is trained ends with '<s>'", "@FT train @D/c.yaml output_dir=@D/out2 2>&1");
    EXPECT(0, "\"eos_token\": \"<s>\"", "cat @D/out2/tokenizer_config.json");
    EXPECT(0, "[1,0]", "tr -d ' \\n' < @D/out2/generation_config.json");
    /* the config's own special tokens */
    EXPECT(0, "\"pad_token\": \"</s>\"",
           "@FT train @D/c.yaml output_dir=@D/out3 'special_tokens={pad_token: "
           "</s>}' >/dev/null 2>&1; cat @D/out3/tokenizer_config.json");
}

CASE(two_templates_or_special_tokens)
{
    fresh_text("chat_template", CHAT("a", "b"));
    EXPECT(2, "'chat_template_jinja' is there, and 'chat_template' names another",
           "@FT data @D/c.yaml chat_template=chatml chat_template_jinja=x.jinja 2>&1");
    EXPECT(0, "special_tokens_map.json '<s>'; the second counts",
           "echo '{\"eos_token\": \"<s>\"}' > @D/shake/special_tokens_map.json; @FT data @D/c.yaml "
           "chat_template=alpaca 'allow_data_problems=[unended_turns]' 2>&1");
}

CASE(ends_and_templates_in_two_places)
{
    fresh_text("chat_template", CHAT("a", "b"));
    EXPECT(0, "is another template than that of tokenizer_config.json; the file counts",
           "printf '{%%%% for m in messages %%%%}{{ m.content }}</s>{%%%% endfor %%%%}' > "
           "@D/shake/chat_template.jinja; sed -i 's/\"bos_token\"/\"chat_template\": \"x\", &/' "
           "@D/shake/tokenizer_config.json; @FT data @D/c.yaml 2>&1");
    EXPECT(0, "is trained ends with '</s>', at which its eos_token_id does not stop",
           "sed -i 's/\"eos_token_id\": *1/\"eos_token_id\": 9/' @D/shake/config.json; @FT plan "
           "@D/c.yaml 2>&1");
    fresh_folder();
    EXPECT(0, "the adapter was trained on 'other', the base is",
           "sed -i 's/\"base_model_name_or_path\": [^,]*/\"base_model_name_or_path\": \"other\"/' "
           "@D/model/adapter_config.json; @FT plan @D/ok.yaml lora_model_dir=@D/model 2>&1");
}

CASE(a_limit_to_files_is_an_error)
{
    fresh_folder();
    EXPECT(0, "File too large", "(ulimit -f 0; @FT train @D/ok.yaml; echo rc=$?) 2>&1 | cat");
    CHECK_HAS(shell_output, "rc=4");
}

CASE(what_killed_runs_leave_is_removed)
{
    fresh_folder();
    EXPECT(0, "adapter in",
           "mkdir @D/out && touch @D/out/adapter_model.safetensors.tmp.123 @D/out/run.json.tmp.9; "
           "@FT train @D/ok.yaml 2>&1");
    EXPECT(0, "", "! ls @D/out | grep -q tmp");
}
