/* ft init --from: configs of LLaMA-Factory, TRL and mlx-lm become ft's. */
#include "tests/cli/cli.h"

#include "core/file.h"

#include <stdlib.h>

static void put(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_INT(ft_file_write(path, text, strlen(text)), 0);
}

/* The result has these lines, whatever stands behind them. */
static void check_lines(const char *const *lines)
{
    shell("sed 's/ *# .*//' @D/ft.yaml");
    for (; *lines; lines++) {
        char whole[1024];
        snprintf(whole, sizeof whole, "\n%s\n", *lines);
        CHECK_HAS(shell_output, whole);
    }
}

/* It has these comments. */
static void check_comments(const char *const *parts)
{
    shell("grep -o '# .*' @D/ft.yaml");
    for (; *parts; parts++)
        CHECK_HAS(shell_output, *parts);
}

#define LINES(...)    check_lines((const char *const[]){__VA_ARGS__, NULL})
#define COMMENTS(...) check_comments((const char *const[]){__VA_ARGS__, NULL})

/* From its own folder, as the paths say; and ft takes it. */
static void convert(void)
{
    shell("rm -f @D/ft.yaml");
    EXPECT(0, "Next:  ft data ft.yaml",
           "p=$(realpath @FT); cd @D && $p init --from in.yaml -o ft.yaml 2>&1");
    EXPECT(0, "", "@FT config --dump @D/ft.yaml 2>&1");
}

static void refused(const char *folder, const char *text, const char *why)
{
    put(folder, "in.yaml", text);
    shell("rm -f @D/ft.yaml");
    EXPECT(2, why, "p=$(realpath @FT); cd @D && $p init --from in.yaml -o ft.yaml 2>&1");
    CHECK_INT(shell("test -e @D/ft.yaml"), 1);
}

/* --- LLaMA-Factory --- */

static void write_llamafactory_data(const char *folder)
{
    shell("mkdir -p @D/data");
    put(folder, "data/dataset_info.json",
        "{\"identity\": {\"file_name\": \"identity.json\"},\n"
        " \"asked\": {\"file_name\": \"asked.jsonl\", \"columns\": {\"prompt\": \"question\", "
        "\"response\": \"answer\", \"system\": \"rule\", "
        "\"history\": \"before\"}},\n"
        " \"shared\": {\"file_name\": \"shared.jsonl\", \"formatting\": \"sharegpt\", \"columns\": "
        "{\"messages\": \"conversations\", \"tools\": \"tools\"}},\n"
        " \"named\": {\"file_name\": \"named.jsonl\", \"formatting\": \"sharegpt\", \"columns\": "
        "{\"messages\": \"turns\"}, \"tags\": {\"role_tag\": \"who\", \"content_tag\": \"what\", "
        "\"user_tag\": \"client\", \"assistant_tag\": \"agent\", \"function_tag\": "
        "\"function_call\"}},\n"
        " \"ranked\": {\"file_name\": \"identity.json\", \"ranking\": true},\n"
        " \"hub\": {\"hf_hub_url\": \"org/chats\", \"split\": \"train_sft\", \"subset\": \"en\", "
        "\"formatting\": \"sharegpt\", \"columns\": {\"messages\": \"messages\"}, \"tags\": "
        "{\"role_tag\": \"role\", \"content_tag\": \"content\", \"user_tag\": \"user\", "
        "\"assistant_tag\": \"assistant\", \"system_tag\": \"system\"}}}\n");
    put(folder, "data/identity.json",
        "[{\"instruction\": \"hi\", \"input\": \"\", \"output\": \"I am Elbe.\"}]");
    put(folder, "data/asked.jsonl",
        "{\"question\": \"2+2?\", \"input\": \"x\", \"answer\": \"4\"}\n");
    put(folder, "data/shared.jsonl",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"hi\"}, {\"from\": \"gpt\", "
        "\"value\": \"ho\"}], \"system\": \"Be brief.\", \"tools\": \"[]\"}\n");
    put(folder, "data/named.jsonl",
        "{\"turns\": [{\"who\": \"client\", \"what\": \"hi\"}, {\"who\": \"agent\", \"what\": "
        "\"ho\"}]}\n");
}

CASE(llamafactory_with_its_data)
{
    const char *folder = fresh_folder();
    write_llamafactory_data(folder);
    put(folder, "in.yaml",
        "### model\nmodel_name_or_path: org/absent\ntrust_remote_code: true\n\n### method\n"
        "stage: sft\ndo_train: true\nfinetuning_type: lora\nlora_rank: 8\nlora_target: all\n"
        "use_galore: true\nuse_dora: true\nquantization_bit: 4\n\n### dataset\ndataset: identity, "
        "asked,shared\neval_dataset: named\n"
        "template: qwen3_nothink\ncutoff_len: 1024\nmax_samples: 1000\nneat_packing: true\n"
        "mask_history: true\npreprocessing_num_workers: 16\n\n### output\noutput_dir: saves/x\n"
        "logging_steps: 10\nsave_steps: 500\nplot_loss: true\noverwrite_output_dir: true\n"
        "report_to: none\n\n### train\nper_device_train_batch_size: 1\n"
        "gradient_accumulation_steps: 8\nlearning_rate: 1.0e-4\nnum_train_epochs: 3.0\n"
        "lr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\nddp_timeout: 180000000\n"
        "resume_from_checkpoint: null\neval_strategy: steps\neval_steps: 500\n"
        "learning_rat: 5\n");
    convert();
    LINES("base_model: org/absent", "adapter: qlora", "load_in_4bit: true", "peft_use_dora: true",
          "lora_r: 8", "lora_alpha: 16", "lora_target_linear: true", "sequence_len: 1024",
          "excess_length_strategy: truncate", "sample_packing: true", "micro_batch_size: 1",
          "gradient_accumulation_steps: 8", "learning_rate: 1.0e-4", "num_epochs: 3",
          "lr_scheduler: cosine", "warmup_ratio: 0.1", "bf16: auto", "eval_steps: 500",
          "logging_steps: 10", "save_steps: 500", "output_dir: saves/x",
          "overwrite_output_dir: true");
    LINES("datasets:\n  - path: data/identity.json\n    split: \"train[:1000]\"\n"
          "    type: instruction\n  - path: data/asked.jsonl\n    split: \"train[:1000]\"\n"
          "    type: instruction\n    field_instruction: question\n    field_input: not_read\n"
          "    field_output: answer\n    field_system: rule\n    field_history: before\n  - path: "
          "data/shared.jsonl\n"
          "    split: \"train[:1000]\"\n    type: chat_template\n"
          "    field_messages: conversations\n"
          "    message_property_mappings: {role: from, content: value}\n"
          "    field_system: not_read",
          "test_datasets:\n  - path: data/named.jsonl\n    split: \"train[:1000]\"\n"
          "    type: chat_template\n    field_messages: turns\n"
          "    message_property_mappings: {role: who, content: what}\n"
          "    roles: {user: [client], assistant: [agent, function_call]}");
    COMMENTS("Made by ft init from in.yaml, a config of LLaMA-Factory's",
             "use_galore: true: another", "mask_history: true: there only",
             "learning_rat: 5: not a key of LLaMA-Factory's", "no system_tag",
             "LLaMA-Factory's default: twice the rank");
    CHECK(!strstr(shell_output, "resume_from_checkpoint") && !strstr(shell_output, "report_to"));
}

CASE(llamafactory_left_to_its_defaults)
{
    const char *folder = fresh_folder();
    write_llamafactory_data(folder);
    shell("mkdir -p @D/examples/train");
    put(folder, "examples/train/in.yaml",
        "model_name_or_path: org/absent\nlora_alpha: 0\ndataset: hub\ntemplate: llama2\n"
        "output_dir: out\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: "
        "5.0e-6}\nmax_steps: 20\nwarmup_steps: 0.1\nval_size: 30.7\noptim: galore_adamw\n"
        "lora_target: [q_proj, v_proj]\n");
    /* the data's folder is above the config's */
    EXPECT(
        0, "",
        "p=$(realpath @FT); cd @D/examples/train && $p init --from in.yaml -o ../../ft.yaml 2>&1");
    LINES("lora_r: 8", "lora_alpha: 16", "lora_target_modules: [q_proj, v_proj]",
          "sequence_len: 2048", "micro_batch_size: 8", "learning_rate: 5e-5", "max_steps: 20",
          "lr_scheduler: cosine", "cosine_min_lr_ratio: 0.1", "warmup_ratio: 0.1",
          "val_set_size: 30", "optimizer: adamw", "logging_steps: 500", "chat_template: jinja",
          "  - path: org/chats\n    name: en\n    split: train_sft\n    type: chat_template");
    COMMENTS("optim: galore_adamw: another optimizer");
    EXPECT(0, "[INST] ' ~ said ~ ' [/INST]", "cat @D/ft.yaml");
    put(folder, "in.yaml",
        "model_name_or_path: org/absent\nstage: pt\ndataset: identity\nfinetuning_type: lora\n"
        "output_dir: out\nneftune_noise_alpha: 5\nadditional_target: embed_tokens,lm_head\n");
    convert();
    LINES("    type: completion\n    field: instruction", "lr_scheduler: linear", "warmup_steps: 0",
          "num_epochs: 3", "neftune_noise_alpha: 5",
          "lora_modules_to_save: [embed_tokens, lm_head]");
}

CASE(llamafactory_templates_are_compared_by_rendering)
{
    static const struct {
        const char *own, *template, *line;
    } cases[] = {
        {"{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% endfor "
         "%}",
         "qwen3_nothink", "chat_template: tokenizer_default"},
        {"{{ messages[0].content }}", "qwen3_nothink", "chat_template: chatml"},
        {"{{ messages[0].content }}", "qwen", "chat_template: qwen_25"},
        {"{{ messages[0].content }}", "smollm2",
         "chat_template: chatml\ndefault_system_message: \"You are a helpful AI assistant named "
         "SmolLM, trained by Hugging Face.\""},
        {"{{ messages[0].content }}", "llama3", "chat_template: llama3"},
        {"{{ messages[0].content }}", "phi", "chat_template: phi_35"},
        {"{{ messages[0].content }}", "mistral", "chat_template: jinja"},
        {"{{ messages[0].content }}", "qwen3", "chat_template: tokenizer_default"},
        {"{{ messages[0].content }}", "mine", "chat_template: tokenizer_default"}};
    const char *folder = fresh_folder();
    write_llamafactory_data(folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"chat_template\": \"%s\"}",
                 cases[i].own);
        put(folder, "model/tokenizer_config.json", text);
        snprintf(text, sizeof text,
                 "model_name_or_path: model\ntemplate: %s\ndataset: identity\noutput_dir: out\n"
                 "use_galore: true\n",
                 cases[i].template);
        put(folder, "in.yaml", text);
        convert();
        LINES(cases[i].line);
    }
}

CASE(llamafactory_refusals)
{
    const char *folder = fresh_folder();
    write_llamafactory_data(folder);
    refused(folder, "model_name_or_path: model\nstage: dpo\ndataset: identity\n",
            "in.yaml:2:8: error: 'stage: dpo': preference");
    refused(folder, "model_name_or_path: model\nfinetuning_type: full\ndataset: identity\n",
            "'finetuning_type: full': ft trains LoRA adapters only");
    refused(folder, "model_name_or_path: model\nstage: sft\ndataset: identiti\n",
            "did you mean 'identity'");
    refused(folder, "model_name_or_path: model\nstage: sft\ndataset: ranked\n", "rankings");
    refused(folder, "model_name_or_path: model\nstage: sft\ndataset: x\ndataset_dir: none\n",
            "there is no 'none/dataset_info.json'");
    refused(folder, "stage: sft\ndataset: identity\n", "has no 'model_name_or_path'");
    refused(folder, "model_name_or_path: model\nlora_rank: many\nstage: sft\ndataset: identity\n",
            "'lora_rank' is 'many', allowed a whole number");
}

/* --- TRL --- */

CASE(trl_with_a_chat_dataset)
{
    const char *folder = fresh_folder();
    shell("mkdir -p @D/chat");
    put(folder, "chat/train.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
        "\"content\": \"ho\"}]}\n");
    put(folder, "chat/test.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\"}]}\n");
    put(folder, "in.yaml",
        "model_name_or_path: model\ndtype: bfloat16\nuse_peft: true\nlora_r: 32\n"
        "lora_alpha: 16\nlora_target_modules: all-linear\ndataset_name: chat\n"
        "assistant_only_loss: true\nmax_length: 512\npacking: true\nlearning_rate: 2.0e-4\n"
        "num_train_epochs: 1\nlr_scheduler_type: cosine\nwarmup_ratio: 0.03\n"
        "eval_strategy: steps\neval_steps: 100\noutput_dir: out\nreport_to: [wandb, comet]\n"
        "push_to_hub: true\nhub_model_id: a/b\neos_token: <|end|>\ncolour: red\n");
    convert();
    LINES("base_model: model", "lora_r: 32", "lora_alpha: 16", "lora_dropout: 0.05",
          "lora_target_linear: true", "special_tokens: {eos_token: \"<|end|>\"}",
          "datasets:\n  - path: chat\n    type: chat_template",
          "test_datasets:\n  - path: chat\n    split: test\n    type: chat_template",
          "sequence_len: 512", "excess_length_strategy: truncate", "sample_packing: true",
          "micro_batch_size: 8", "learning_rate: 2.0e-4", "warmup_ratio: 0.03", "eval_steps: 100",
          "logging_steps: 10", "use_wandb: true");
    COMMENTS("push_to_hub: true: ft never uploads", "colour: red: not a key of TRL's");
}

CASE(trl_left_to_its_defaults)
{
    const char *folder = fresh_folder();
    put(folder, "pc.jsonl", "{\"prompt\": \"The sky is\", \"completion\": \" blue.\"}\n");
    put(folder, "text.jsonl", "{\"content\": \"The quick brown fox.\"}\n");
    put(folder, "in.yaml",
        "env: {WANDB_MODE: offline}\nmodel_name_or_path: model\nuse_peft: true\ndatasets:\n"
        "  - path: json\n    data_files: pc.jsonl\n    fraction: 0.5\n"
        "  - path: org/chats\n    name: en\ntest_split_size: 0.05\nload_in_4bit: true\n"
        "output_dir: out\nmax_length: null\n");
    convert();
    LINES("lora_r: 16", "lora_alpha: 32", "lora_target_modules: [q_proj, v_proj]",
          "  - path: json\n    data_files: [pc.jsonl]\n    type: prompt_completion",
          "  - path: org/chats\n    name: en\n    type: chat_template\n    train_on_inputs: true",
          "val_set_size: 0.05", "learning_rate: 2e-5", "lr_scheduler: linear", "num_epochs: 3");
    LINES("adapter: qlora", "load_in_4bit: true",
          "bnb_config_kwargs: {bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: false}");
    COMMENTS("fraction: 0.5", "env: {\"WANDB_MODE\": \"offline\"}",
             "no limit there: the model's own");
    put(folder, "in.yaml",
        "model_name_or_path: model\nuse_peft: true\ndataset_text_field: content\ndatasets:\n"
        "  - {path: json, data_files: [text.jsonl]}\noutput_dir: out\nmax_seq_length: 512\n"
        "use_dora: true\nlora_modules_to_save: [lm_head]\nrouter_aux_loss_coef: 0.1\n");
    convert();
    LINES("    type: completion\n    field: content", "sequence_len: 512", "peft_use_dora: true",
          "lora_modules_to_save: [lm_head]");
    refused(folder, "model_name_or_path: model\ndataset_name: chat\n", "'use_peft' is not true");
    refused(folder, "model_name_or_path: model\nuse_peft: true\nlora_r: 8\n",
            "has neither 'dataset_name' nor 'datasets'");
}

/* --- mlx-lm --- */

CASE(mlx_with_a_schedule)
{
    const char *folder = fresh_folder();
    static const char record[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, "
                                 "{\"role\": \"assistant\", \"content\": \"ho\"}]}\n";
    shell("mkdir -p @D/chat");
    put(folder, "chat/train.jsonl", record);
    put(folder, "chat/valid.jsonl", record);
    put(folder, "in.yaml",
        "model: model\ntrain: true\nfine_tune_type: lora\noptimizer: adamw\noptimizer_config:\n"
        "  adamw: {betas: [0.9, 0.98], eps: 1e-6, weight_decay: 0.05, bias_correction: true}\n"
        "data: chat\nmask_prompt: true\nseed: 0\nnum_layers: 1\nbatch_size: 4\niters: 1000\n"
        "val_batches: 25\nlearning_rate: 3e-5\nsteps_per_report: 10\nsteps_per_eval: 200\n"
        "grad_accumulation_steps: 2\nresume_adapter_file: null\nadapter_path: adapters\n"
        "save_every: 100\nmax_seq_length: 1024\nlora_parameters:\n"
        "  keys: [self_attn.q_proj, self_attn.v_proj]\n  rank: 8\n  scale: 20.0\n  dropout: 0.1\n"
        "lr_schedule:\n  name: cosine_decay\n  warmup: 100\n  warmup_init: 1e-7\n"
        "  arguments: [1e-5, 1000, 1e-7]\nflavour: sweet\n");
    convert();
    LINES("base_model: model", "lora_r: 8", "lora_alpha: 160", "lora_dropout: 0.1",
          "lora_target_modules: [self_attn.q_proj, self_attn.v_proj]",
          "peft_layers_to_transform: [1]", "sequence_len: 1024", "micro_batch_size: 4",
          "gradient_accumulation_steps: 2", "max_steps: 500", "optimizer: adamw", "adam_beta1: 0.9",
          "adam_beta2: 0.98", "adam_epsilon: 1e-6", "weight_decay: 0.05", "learning_rate: 1e-5",
          "lr_scheduler: cosine", "cosine_min_lr_ratio: 0.01", "warmup_steps: 100",
          "max_grad_norm: 0", "seed: 0", "eval_steps: 100", "logging_steps: 5",
          "output_dir: adapters", "datasets:\n  - path: chat/train.jsonl\n    type: chat_template",
          "test_datasets:\n  - path: chat/valid.jsonl\n    type: chat_template");
    COMMENTS("scale 20 x rank 8", "mask_prompt: there only the last message",
             "there it ends after 1100 updates; ft's ends with the run, after 500",
             "warmup_init: 1e-7", "flavour: sweet: not a key of mlx-lm's");
}

CASE(mlx_left_to_its_defaults)
{
    const char *folder = fresh_folder();
    shell("mkdir -p @D/pairs");
    put(folder, "pairs/train.jsonl", "{\"input\": \"2+2?\", \"output\": \"4\"}\n");
    put(folder, "in.yaml",
        "model: model\ntrain: true\ndata: pairs\nprompt_feature: input\n"
        "completion_feature: output\niters: 600\nlora_parameters: {rank: 16, scale: 2.5, dropout: "
        "0.05}\n");
    convert();
    LINES("lora_r: 16", "lora_alpha: 40", "lora_target_linear: true",
          "  - path: pairs/train.jsonl\n    type: instruction\n    field_instruction: input\n"
          "    field_input: not_read\n    field_output: output\n    train_on_inputs: true",
          "max_steps: 600", "micro_batch_size: 4", "learning_rate: 1e-5", "lr_scheduler: constant",
          "warmup_steps: 0", "optimizer: adamw", "weight_decay: 0", "max_grad_norm: 0", "seed: 0",
          "output_dir: adapters");
    COMMENTS("bias_correction: mlx-lm's adam has none");
    CHECK_INT(shell("grep -E 'peft_layers|eval_steps' @D/ft.yaml"), 1);
    put(folder, "in.yaml",
        "model: org/absent-4bit\nfine_tune_type: dora\nhf_dataset:\n  - {path: org/bills, "
        "train_split: \"train[:1000]\", valid_split: \"train[-100:]\", text_feature: body}\n"
        "optimizer: muon\niters: 10\n");
    convert();
    LINES("  - path: org/bills\n    split: \"train[:1000]\"\n    type: completion\n    field: body",
          "lora_alpha: 160", "peft_use_dora: true", "optimizer: adamw", "eval_steps: 200");
    COMMENTS("quantised format", "num_layers: 16: the last layers only",
             "optimizer: muon: another optimizer");
    refused(folder, "model: model\nfine_tune_type: full\ndata: pairs\n",
            "'fine_tune_type: full': ft trains LoRA adapters only");
}

/* --- the command --- */

CASE(what_is_not_another_tools_is_told)
{
    const char *folder = fresh_folder();
    refused(folder, "base_model: model\ndatasets:\n  - path: x.jsonl\n",
            "in.yaml:1:1: error: 'base_model': this is a config of ft or Axolotl already");
    refused(folder, "model: x\ntrain_dataset: y\npeft_config: {r: 8}\n", "LLaMA-Factory v1");
    refused(folder, "colour: red\n", "is no config that ft init knows");
    refused(folder, "- a\n", "key: value");
    EXPECT(2, "needs a text", "@FT init --from 2>&1");
    EXPECT(2, "takes model and data from its file", "@FT init --from @D/in.yaml model 2>&1");
    EXPECT(2, "names no data",
           "printf 'iters: 5\\nhf_dataset: []\\n' > @D/in.yaml; "
           "@FT init --from @D/in.yaml -o @D/ft.yaml 2>&1");
    EXPECT(2, "absent.yaml", "@FT init --from @D/absent.yaml -o @D/ft.yaml 2>&1");
    put(folder, "in.yaml", "model: model\niters: 5\ndata: pairs/\n");
    EXPECT(2, "exists already", "@FT init --from @D/in.yaml -o @D/ok.yaml 2>&1");
    EXPECT(2, "is what --from reads", "@FT init --from @D/in.yaml -o @D/in.yaml --force 2>&1");
    EXPECT(0, "ok.yaml", "@FT init --from @D/in.yaml -o @D/ok.yaml --force 2>&1");
    EXPECT(0, "in-ft.yaml", "p=$(realpath @FT); cd @D && $p init --from in.yaml && cat in-ft.yaml");
}

/* What YAML would read otherwise is quoted, and a comment stays one line. */
CASE(texts_stay_what_they_are)
{
    const char *folder = fresh_folder();
    put(folder, "in.yaml",
        "model: \"a: b # c\"\niters: 5\ndata: pairs/\nadapter_path: \"x\\n\\\"y\\\"\\u2028z\"\n"
        "odd: \"one\\ntwo: 2\\u2028three: 3\"\n\"k\\ney\": 1\n");
    convert();
    EXPECT(0, "a: b # c", "@FT config --dump @D/ft.yaml");
    EXPECT(0, "# odd: one two: 2", "cat @D/ft.yaml");
    CHECK_HAS(shell_output, "output_dir: \"x\\n\\\"y\\\"\\Lz\"");
    CHECK_HAS(shell_output, "# k ey: 1: not a key");
    remove_fresh_folder();
}
