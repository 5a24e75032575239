/* The faults that a user's files, machine and habits bring: each must end with its exit code and a
 * message that names the thing, and leave no half-written output. The numbers are those of the
 * fault table in docs/faults.md. */
#include "tests/cli/cli.h"

#include "core/file.h"
#include "io/safetensors.h"

#include <stdlib.h>
#include <unistd.h>

/* The output folder was never made, or is empty. */
static void check_no_output(void)
{
    CHECK_INT(shell("test ! -e @D/out || test -z \"$(ls -A @D/out)\""), 0);
}

/* A one-tensor edit of the config: replaces a line's value in model/config.json. */
static void set_model_config(const char *key, const char *value)
{
    shell("sed -i -E 's|\"%s\": [^,]*(,?)$|\"%s\": %s\\1|' @D/model/config.json", key, key, value);
}

CASE(f01_config_missing_or_a_folder)
{
    fresh_folder();
    EXPECT(2, "No such file", "@FT train @D/none.yaml 2>&1");
    EXPECT(2, "a folder", "@FT train @D 2>&1");
    EXPECT(2, "needs a config file", "@FT train 2>&1");
}

CASE(f02_to_f07_bad_configs_are_refused_by_the_program_too)
{
    fresh_folder();
    EXPECT(2, "did you mean 'lora_r'", "@FT train @D/ok.yaml lorar=3 2>&1");
    EXPECT(2, "first in line 1", "echo 'base_model: x' >> @D/ok.yaml; @FT train @D/ok.yaml 2>&1");
    fresh_folder();
    EXPECT(2, "allowed 1..1024", "@FT plan @D/ok.yaml lora_r=0 2>&1");
    EXPECT(2, "not a flag", "@FT train @D/ok.yaml --fast 2>&1");
    EXPECT(2, "did you mean 'ft train'", "@FT trian 2>&1");
    EXPECT(2, "usage", "@FT 2>&1");
    check_no_output();
}

CASE(f08_model_folder_lacks_things)
{
    fresh_folder();
    EXPECT(3, "does not exist", "@FT train @D/ok.yaml base_model=@D/nothing/at/all 2>&1");
    EXPECT(3, "hf download org/name", "@FT train @D/ok.yaml base_model=org/name 2>&1");
    EXPECT(3, "not a model folder", "@FT train @D/ok.yaml base_model=@D/ok.yaml 2>&1");
    EXPECT(3, "config.json", "rm @D/model/config.json; @FT train @D/ok.yaml 2>&1");
    fresh_folder();
    EXPECT(3, "neither 'model.safetensors' nor",
           "rm @D/model/model.safetensors; @FT train @D/ok.yaml 2>&1");
    EXPECT(3, "unpickling", "touch @D/model/pytorch_model.bin; @FT train @D/ok.yaml 2>&1");
    check_no_output();
}

CASE(f09_unknown_architecture_rope_or_quantisation)
{
    fresh_folder();
    shell("sed -i s/LlamaForCausalLM/LlamoForCausalLM/ @D/model/config.json");
    EXPECT(3, "'LlamoForCausalLM'", "@FT train @D/ok.yaml 2>&1");
    CHECK_HAS(shell_output, "nearest supported one is 'LlamaForCausalLM'");
    fresh_folder();
    set_model_config("rope_type", "\"spiral\"");
    EXPECT(3, "'rope_type' is 'spiral'", "@FT train @D/ok.yaml 2>&1");
    fresh_folder();
    set_model_config("hidden_act", "\"mish\"");
    EXPECT(3, "'hidden_act' is 'mish'", "@FT train @D/ok.yaml 2>&1");
    fresh_folder();
    shell("sed -i 's|^{|{\"quantization_config\": {\"quant_method\": \"hqq\"},|' "
          "@D/model/config.json");
    EXPECT(3, "'hqq'", "@FT train @D/ok.yaml 2>&1");
    fresh_folder();
    EXPECT(3, "not valid JSON", "echo x >> @D/model/config.json; @FT train @D/ok.yaml 2>&1");
    fresh_folder();
    set_model_config("num_attention_heads", "3");
    EXPECT(3, "num_attention_heads", "@FT train @D/ok.yaml 2>&1");
    check_no_output();
}

/* A golden case's folder or file, on its own data. */
#define GOLDEN(name)                                                                               \
    " datasets.0.path=" FT_ROOT "/tests/golden/" name "/data.safetensors output_dir=@D/out "       \
    "device=cpu 2>&1"

CASE(quantised_bases_that_cannot_be)
{
    fresh_folder();
    shell("rm -rf @D/q; cp -r " FT_ROOT "/tests/golden/bnb-nf4 @D/q; chmod -R u+w @D/q");
    EXPECT(3, "needs a quantised base, and the weights are not",
           "@FT train @D/ok.yaml adapter=qlora 2>&1");
    EXPECT(3, "8 bits are asked for, but the model's weights are quantised already",
           "@FT train base_model=@D/q adapter=lora load_in_8bit=true" GOLDEN("bnb-nf4"));
    EXPECT(3, "they cannot be trained themselves",
           "@FT train base_model=@D/q adapter=full" GOLDEN("bnb-nf4"));
    shell("sed -i 's/bitsandbytes/hqq/' @D/q/config.json");
    EXPECT(3, "quantised with 'hqq', which ft does not read",
           "@FT train base_model=@D/q adapter=qlora" GOLDEN("bnb-nf4"));
    shell("cp " FT_ROOT "/tests/golden/gptq/* @D/q; sed -i 's/\"bits\": 4/\"bits\": 8/' "
          "@D/q/config.json");
    EXPECT(3, "'bits' is 8; ft reads 4", "@FT train base_model=@D/q adapter=qlora" GOLDEN("gptq"));
    shell("sed -i 's/\"bits\": 8/\"bits\": 4/; s/\"group_size\": 8/\"group_size\": 16/' "
          "@D/q/config.json");
    EXPECT(3, "belong to a weight of", "@FT train base_model=@D/q adapter=qlora" GOLDEN("gptq"));
    check_no_output();
}

CASE(latent_attention_by_other_names_and_numbers)
{
    fresh_folder();
    shell("mkdir @D/k && cp " FT_ROOT "/tests/golden/deepseek-v3-yarn/* @D/k; "
          "sed -i 's/deepseek_v3/kimi_k2/' @D/k/config.json");
    EXPECT(0, "adapter in",
           "@FT train base_model=@D/k adapter=lora max_steps=1" GOLDEN("deepseek-v3-yarn"));
    shell("rm -r @D/out; sed -i 's/kimi_k2/kimi_k9/' @D/k/config.json");
    EXPECT(3, "whose type is 'deepseek_v3'",
           "@FT train base_model=@D/k adapter=lora" GOLDEN("deepseek-v3-yarn"));
    shell("sed -i 's/kimi_k9/kimi_k2/; s/\"kv_lora_rank\": 28/\"kv_lora_rank\": 200000/' "
          "@D/k/config.json");
    EXPECT(3, "'kv_lora_rank' 200000, ft supports up to",
           "@FT train base_model=@D/k adapter=lora" GOLDEN("deepseek-v3-yarn"));
    shell("sed -i 's/\"kv_lora_rank\": 200000/\"kv_lora_rank\": 28/; "
          "s/\"mscale_all_dim\": 1.0/\"mscale_all_dim\": 1e200/' @D/k/config.json");
    EXPECT(3, "'mscale_all_dim' is 1e+200",
           "@FT train base_model=@D/k adapter=lora" GOLDEN("deepseek-v3-yarn"));
    check_no_output();
}

/* One number of a mixture's config.json. */
static void set_mixture(const char *key, const char *value)
{
    shell("rm -rf @D/m; cp -r " FT_ROOT "/tests/golden/qwen3-moe @D/m; chmod -R u+w @D/m; "
          "sed -i -E 's|\"%s\": [^,]*(,?)$|\"%s\": %s\\1|' @D/m/config.json",
          key, key, value);
}

/* A tensor's name in the folder is another one, as long. */
static void rename_tensor(const char *golden, const char *from, const char *to)
{
    shell("rm -rf @D/m; cp -r " FT_ROOT "/tests/golden/%s @D/m; chmod -R u+w @D/m; "
          "LC_ALL=C sed -i 's/%s/%s/' @D/m/model.safetensors",
          golden, from, to);
}

CASE(mixtures_that_cannot_be)
{
    fresh_folder();
    set_mixture("num_local_experts", "7");
    EXPECT(3, "mlp.experts.6.gate_proj.weight' is missing",
           "@FT train base_model=@D/m" GOLDEN("qwen3-moe"));
    set_mixture("num_local_experts", "4");
    EXPECT(3, "mlp.experts.4.down_proj.weight' is not part of a 'Qwen3MoeForCausalLM'",
           "@FT train base_model=@D/m" GOLDEN("qwen3-moe"));
    set_mixture("num_experts_per_tok", "9");
    EXPECT(3, "'num_experts_per_tok' is 9; there are 6 experts",
           "@FT train base_model=@D/m" GOLDEN("qwen3-moe"));
    set_mixture("output_router_logits", "3");
    EXPECT(3, "'output_router_logits'", "@FT train base_model=@D/m" GOLDEN("qwen3-moe"));
    rename_tensor("qwen3-moe", "experts.3.up_proj", "experts.3.xx_proj");
    EXPECT(3, "mlp.experts.3.up_proj.weight' is missing",
           "@FT train base_model=@D/m" GOLDEN("qwen3-moe"));
    rename_tensor("qwen2-moe", "shared_expert_gate", "shared_expert_xxxx");
    EXPECT(3, "mlp.shared_expert_gate.weight' is missing",
           "@FT train base_model=@D/m" GOLDEN("qwen2-moe"));
    rename_tensor("gpt-oss-mxfp4", "down_proj_scales", "down_proj_scalex");
    EXPECT(3, "mlp.experts.down_proj' is missing",
           "@FT train base_model=@D/m" GOLDEN("gpt-oss-mxfp4"));
    check_no_output();
}

CASE(adapters_on_experts_that_cannot_be)
{
#define EXPERTS                                                                                    \
    "@FT train base_model=" FT_ROOT "/tests/golden/qwen3-moe adapter=lora "                        \
    "lora_target_parameters=[mlp.experts.gate_up_proj]"
    fresh_folder();
    EXPECT(2, "exclude lora_dropout, as in PEFT", EXPERTS " lora_dropout=0.1" GOLDEN("qwen3-moe"));
    EXPECT(2, "exclude DoRA, as in PEFT", EXPERTS " peft_use_dora=true" GOLDEN("qwen3-moe"));
    EXPECT(2, "exclude 'muon'", EXPERTS " optimizer=muon" GOLDEN("qwen3-moe"));
    EXPECT(2, "exclude bias, as in PEFT", EXPERTS " bias=all" GOLDEN("qwen3-moe"));
    EXPECT(2, "'lora_target_parameters': 'mlp.up' matches no parameter of experts",
           "@FT train base_model=" FT_ROOT "/tests/golden/qwen3-moe adapter=lora "
           "lora_target_parameters=[mlp.up]" GOLDEN("qwen3-moe"));
    EXPECT(2, "this model has no experts",
           "@FT train base_model=" FT_ROOT "/tests/golden/base adapter=lora "
           "lora_target_parameters=[mlp.experts.down_proj]" GOLDEN("base"));
    EXPECT(2, "'lora_target_modules' has 'gate_proj' without 'up_proj'",
           "@FT train base_model=" FT_ROOT "/tests/golden/qwen3-moe adapter=lora "
           "lora_target_modules=[q_proj,gate_proj]" GOLDEN("qwen3-moe"));
    EXPECT(2, "is not for mixtures of experts",
           "@FT train base_model=" FT_ROOT
           "/tests/golden/qwen3-moe adapter=full" GOLDEN("qwen3-moe"));
    EXPECT(2, "goes with 'load_in_4bit' or 'load_in_8bit'",
           EXPERTS " quantize_moe_experts=true" GOLDEN("qwen3-moe"));
    check_no_output();
}

CASE(gguf_files_that_cannot_be)
{
    fresh_folder();
    shell("cp " FT_ROOT "/tests/golden/gguf-llama/model.gguf @D/m.gguf; head -c 1000 @D/m.gguf > "
          "@D/cut.gguf; head -c -3000 @D/m.gguf > @D/end.gguf; LC_ALL=C sed 's/llama/xxxxx/g' "
          "@D/m.gguf > @D/arch.gguf; LC_ALL=C sed 's/gpt-2/gpt-9/' @D/m.gguf > @D/pre.gguf");
    EXPECT(3, "is cut: its header goes on",
           "@FT train base_model=@D/cut.gguf" GOLDEN("gguf-llama"));
    EXPECT(3, "ends behind its", "@FT train base_model=@D/end.gguf" GOLDEN("gguf-llama"));
    EXPECT(3, "4 bits are asked for, but the model's weights are quantised already",
           "@FT train base_model=@D/m.gguf adapter=qlora load_in_4bit=true" GOLDEN("gguf-llama"));
    EXPECT(3, "'general.architecture' is 'xxxxx'",
           "@FT train base_model=@D/arch.gguf" GOLDEN("gguf-llama"));
    EXPECT(3, "'tokenizer.ggml.pre' is 'gpt-9': ft cannot rebuild",
           "@FT tokenize @D/pre.gguf < /dev/null 2>&1");
    shell("LC_ALL=C sed 's/yarn\\([^_]\\)/zzzz\\1/' " FT_ROOT
          "/tests/golden/gguf-ministral3/model.gguf > @D/rope.gguf");
    EXPECT(3, "'mistral3.rope.scaling.type' is 'zzzz'",
           "@FT train base_model=@D/rope.gguf" GOLDEN("gguf-ministral3"));
    EXPECT(2, "of a .gguf file cannot be trained themselves",
           "@FT train base_model=" FT_ROOT
           "/tests/golden/gguf-f32/model.gguf adapter=full" GOLDEN("gguf-starcoder2"));
    EXPECT(2, "the norms of a .gguf file",
           "@FT train base_model=@D/m.gguf adapter=qlora "
           "lora_modules_to_save.0=norm" GOLDEN("gguf-llama"));
    EXPECT(4, "set XDG_CACHE_HOME or HOME",
           "env -u HOME -u XDG_CACHE_HOME @FT plan base_model=@D/m.gguf "
           "adapter=qlora" GOLDEN("gguf-llama"));
    check_no_output();
}

CASE(f10_git_lfs_pointer)
{
    fresh_folder();
    EXPECT(3, "Git LFS pointer",
           "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:00\\nsize 1\\n' > "
           "@D/model/model.safetensors; @FT train @D/ok.yaml 2>&1");
}

CASE(f11_f12_cut_extended_and_overlapping_weights)
{
    fresh_folder();
    EXPECT(3, "is cut", "truncate -s -10 @D/model/model.safetensors; @FT train @D/ok.yaml 2>&1");
    fresh_folder();
    EXPECT(3, "behind its tensors",
           "echo x >> @D/model/model.safetensors; @FT train @D/ok.yaml 2>&1");
    fresh_folder();
    EXPECT(3, "model.norm.weight",
           "sed -i 's/model.norm.weight/model.norm.weighs/' @D/model/model.safetensors; "
           "@FT train @D/ok.yaml 2>&1");
    CHECK_HAS(shell_output, "'model.norm.weighs' is not part of");
    check_no_output();
}

CASE(f13_index_names_missing_or_escaping_shards)
{
    fresh_folder();
    shell("rm -rf @D/model; cp -r " FT_ROOT
          "/tests/golden/f16-sharded @D/model; chmod -R u+w @D/model");
    EXPECT(0, "loss", "@FT train @D/ok.yaml 2>&1");
    EXPECT(3, "model-00002-of-00003.safetensors",
           "mv @D/model/model-00002-of-00003.safetensors @D/x.safetensors; "
           "@FT train @D/ok.yaml output_dir=@D/out2 2>&1");
    EXPECT(3, "'../x.safetensors'",
           "sed -i s,model-00002-of-00003,../x, @D/model/model.safetensors.index.json; "
           "@FT train @D/ok.yaml output_dir=@D/out2 2>&1");
    CHECK_INT(shell("test ! -e @D/out2"), 0);
}

CASE(f14_wrong_shapes_are_all_listed)
{
    fresh_folder();
    set_model_config("intermediate_size", "45");
    EXPECT(3,
           "'model.layers.0.mlp.gate_proj.weight' has shape (44, 32), config.json implies (45, 32)",
           "@FT train @D/ok.yaml 2>&1");
    CHECK_HAS(shell_output, "'model.layers.1.mlp.down_proj.weight'");
    check_no_output();
}

CASE(f15_unsupported_dtype)
{
    fresh_folder();
    /* I16 has BF16's size, so only the dtype is wrong */
    EXPECT(3, "I16; ft reads",
           "sed -i 's/\"BF16\"/\"I16\" /' @D/model/model.safetensors; @FT train @D/ok.yaml 2>&1");
}

CASE(f16_nan_in_weights)
{
    fresh_folder();
    shell("printf '\\377\\377' | dd of=@D/model/model.safetensors bs=1 conv=notrunc "
          "seek=$(($(stat -c %%s @D/model/model.safetensors) - 40)) 2>/dev/null");
    EXPECT(3, "NaN or infinite", "@FT train @D/ok.yaml 2>&1");
    check_no_output();
    EXPECT(5, "not finite", "@FT train @D/ok.yaml allow_nonfinite_weights=true max_steps=9 2>&1");
}

CASE(f19_tokenizer_beyond_the_embedding)
{
    fresh_folder();
    EXPECT(
        3, "'<x>' 61",
        "echo '{\"model\": {\"vocab\": {\"a\": 0, \"<x>\": 61}}, \"added_tokens\": [{\"id\": 99, "
        "\"content\": \"<y>\"}]}' > @D/model/tokenizer.json; @FT train @D/ok.yaml 2>&1");
    CHECK_HAS(shell_output, "'<y>' 99");
}

/* A dataset of `docs` documents of four tokens at @D/bad.safetensors. */
static void write_dataset(int docs, int length, int32_t last_id, uint8_t mask)
{
    int32_t ids[128] = {0};
    int64_t offsets[17] = {0};
    uint8_t masks[128];
    char path[128];
    memset(masks, mask, sizeof masks);
    for (int i = 0; i < docs; i++)
        offsets[i + 1] = length * (i + 1);
    if (docs)
        ids[length * docs - 1] = last_id;
    struct ft_st_item items[] = {
        {.name = "input_ids", .dtype = FT_I32, .n_dims = 1, .dims = {length * docs}, .data = ids},
        {.name = "offsets", .dtype = FT_I64, .n_dims = 1, .dims = {docs + 1}, .data = offsets},
        {.name = "loss_mask", .dtype = FT_U8, .n_dims = 1, .dims = {length * docs}, .data = masks}};
    shell("echo @D/bad.safetensors");
    shell_output[strcspn(shell_output, "\n")] = 0;
    snprintf(path, sizeof path, "%.100s", shell_output);
    CHECK_INT(ft_st_write(path, items, 3, NULL, 0), FT_OK);
}

CASE(f20_to_f22_data_that_cannot_be_trained_on)
{
    fresh_folder();
    write_dataset(3, 4, 61, 1);
    EXPECT(3, "bad.safetensors: error: document 2, position 3: token id 61 is outside",
           "@FT train @D/ok.yaml datasets.0.path=@D/bad.safetensors 2>&1");
    write_dataset(3, 4, 1, 0);
    EXPECT(3, "nothing to train on: of 3 documents 0 are empty, 3 have no trained token",
           "@FT train @D/ok.yaml datasets.0.path=@D/bad.safetensors 2>&1");
    write_dataset(0, 4, 0, 1);
    EXPECT(3, "nothing to train on: of 0 documents",
           "@FT train @D/ok.yaml datasets.0.path=@D/bad.safetensors 2>&1");
    write_dataset(3, 4, 1, 1);
    EXPECT(3, "3 documents are fewer than one micro-batch of 4",
           "@FT train @D/ok.yaml datasets.0.path=@D/bad.safetensors micro_batch_size=4 2>&1");
    EXPECT(3, "none.safetensors' does not exist",
           "@FT train @D/ok.yaml datasets.0.path=@D/none.safetensors 2>&1");
    check_no_output();
    EXPECT(0, "adapter in", "@FT train @D/ok.yaml datasets.0.path=@D/bad.safetensors 2>&1");
}

CASE(f24_long_documents_follow_the_policy)
{
    fresh_folder();
    EXPECT(0, "longer than 'sequence_len' and dropped",
           "@FT train @D/ok.yaml sequence_len=10 2>&1");
    EXPECT(0, "longer than 'sequence_len' and cut",
           "@FT train @D/ok.yaml sequence_len=10 excess_length_strategy=truncate "
           "output_dir=@D/out2 2>&1");
    EXPECT(3, "more than 'sequence_len'",
           "@FT train @D/ok.yaml sequence_len=10 excess_length_strategy=raise output_dir=@D/out3 "
           "2>&1");
    EXPECT(3, "nothing to train on", "@FT train @D/ok.yaml sequence_len=2 output_dir=@D/out3 2>&1");
    CHECK_INT(shell("test ! -e @D/out3"), 0);
}

CASE(f26_targets_that_match_nothing)
{
    fresh_folder();
    EXPECT(2, "'query_proj' matches no module",
           "@FT train @D/ok.yaml 'lora_target_modules=[query_proj,v_proj]' 2>&1");
    CHECK_HAS(shell_output, "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj");
    EXPECT(2, "matches no module", "@FT train @D/ok.yaml 'lora_target_modules=.*query.*' 2>&1");
    EXPECT(2, "not a valid regular expression",
           "@FT train @D/ok.yaml 'lora_target_modules=\"(\"' 2>&1");
    EXPECT(2, "layers are 0 to 1", "@FT train @D/ok.yaml peft_layers_to_transform=7 2>&1");
    EXPECT(2, "matches no adapted module",
           "@FT train @D/ok.yaml 'lora_rank_pattern={nope: 3}' 2>&1");
    EXPECT(2, "the method 'dora' is for the linear modules of the layers",
           "@FT train @D/ok.yaml peft_use_dora=true 'lora_target_modules=[lm_head]' 2>&1");
    check_no_output();
}

CASE(how_an_adapter_begins_must_be_possible)
{
    EXPECT(2, "'peft_init_lora_weights' is 'eva'",
           "@FT train @D/ok.yaml peft_init_lora_weights=eva 2>&1");
    EXPECT(2, "takes rank 40 out of",
           "@FT train @D/ok.yaml peft_init_lora_weights=pissa lora_r=40 2>&1");
    EXPECT(2, "exclude each other",
           "@FT train @D/ok.yaml peft_init_lora_weights=olora peft_use_dora=true 2>&1");
    EXPECT(
        2, "the method 'pissa' is for the linear modules of the layers",
        "@FT train @D/ok.yaml peft_init_lora_weights=pissa 'lora_target_modules=[lm_head]' 2>&1");
    check_no_output();
}

CASE(pissa_needs_lapack)
{
    CHECK_INT(shell("mkdir @D/lib && for x in libopenblas.so.0 liblapack.so.3; do ln -s "
                    "$(ldd @FT | sed -n 's/.*=> \\([^ ]*libyaml[^ ]*\\).*/\\1/p') @D/lib/$x; done"),
              0);
    EXPECT(4, "'peft_init_lora_weights: pissa' needs LAPACK, which is not here",
           "LD_LIBRARY_PATH=@D/lib @FT train @D/ok.yaml peft_init_lora_weights=pissa 2>&1");
    CHECK_HAS(shell_output, "libopenblas0");
}

CASE(positions_that_a_model_does_not_have)
{
    write_dataset(1, 70, 5, 1);
    EXPECT(3, "the longest document has 70 tokens, and the model has learned 64 positions",
           "@FT train base_model=" FT_ROOT "/tests/golden/gpt2 adapter=lora sequence_len=128 "
           "datasets.0.path=@D/bad.safetensors output_dir=@D/out 2>&1");
    CHECK_HAS(shell_output, "'sequence_len' to 64");
}

CASE(f29_half_precision_is_not_taken_up)
{
    EXPECT(0, "ft computes in bf16 on a GPU, in fp32 on a CPU", "@FT config --explain fp16");
    EXPECT(0, "these keys change nothing here: fp16",
           "@FT train @D/ok.yaml fp16=true output_dir=@D/half 2>&1");
    EXPECT(0, "", "@FT train @D/ok.yaml output_dir=@D/none 2>&1");
    EXPECT(0, "", "cmp @D/half/adapter_model.safetensors @D/none/adapter_model.safetensors");
}

CASE(keys_of_another_method_are_refused)
{
    EXPECT(2, "'lora_r' says nothing to 'adapter: ia3'",
           "@FT train @D/ok.yaml adapter=ia3 lora_r=8 2>&1");
    EXPECT(2, "'peft_use_dora' says nothing to 'adapter: vera'",
           "@FT train @D/ok.yaml adapter=vera peft_use_dora=true 2>&1");
    EXPECT(2, "the method 'ia3' is for the linear modules of the layers",
           "@FT train @D/ok.yaml adapter=ia3 'lora_target_modules=[lm_head]' 2>&1");
    EXPECT(2, "'adapter' is 'lora', the one in 'lora_model_dir' is 'ia3'",
           "@FT train base_model=" FT_ROOT "/tests/golden/ia3 lora_model_dir=" FT_ROOT
           "/tests/golden/ia3 datasets.0.path=" FT_ROOT
           "/tests/golden/ia3/data.safetensors output_dir=@D/out adapter=lora 2>&1");
    check_no_output();
}

CASE(what_is_trained_beside_an_adapter_must_be_there_once)
{
    EXPECT(2, "the trained token 61 is not below the model's vocabulary of 61",
           "@FT train @D/ok.yaml 'peft_trainable_token_indices=[61]' 2>&1");
    EXPECT(2, "the trained token 5 is named twice",
           "@FT train @D/ok.yaml 'peft_trainable_token_indices=[5,6,5]' 2>&1");
    EXPECT(2, "'wte' is neither the embedding nor the head",
           "@FT train @D/ok.yaml 'peft_trainable_token_indices={wte: [5]}' 2>&1");
    EXPECT(2, "the embedding has an adapter and trained tokens",
           "@FT train @D/ok.yaml 'peft_trainable_token_indices=[5]' "
           "'lora_target_modules=[embed_tokens]' 2>&1");
    EXPECT(2, "the head has an adapter and trained tokens",
           "@FT train @D/ok.yaml 'peft_trainable_token_indices=[5]' "
           "'lora_target_modules=[lm_head]' 2>&1");
    EXPECT(2, "is trained whole and has trained tokens",
           "@FT train @D/ok.yaml 'peft_trainable_token_indices=[5]' "
           "'lora_modules_to_save=[embed_tokens]' 2>&1");
    EXPECT(2, "other keys speak of a LoRA",
           "@FT train @D/ok.yaml adapter=full 'peft_trainable_token_indices=[5]' 2>&1");
    check_no_output();
    EXPECT(2, "'bias' goes with an adapter; 'adapter' is 'full'",
           "@FT train @D/ok.yaml adapter=full bias=all 2>&1");
    EXPECT(0, "", "@FT train @D/ok.yaml 'peft_trainable_token_indices=[5]' --quiet 2>&1");
    EXPECT(2, "'peft_trainable_token_indices' is not what the adapter in 'lora_model_dir' has",
           "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/out2 "
           "'peft_trainable_token_indices=[6]' 2>&1");
    EXPECT(2, "'bias' is not what the adapter in 'lora_model_dir' has",
           "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/out2 bias=all 2>&1");
    EXPECT(2, "'lora_modules_to_save' is not what the adapter in 'lora_model_dir' has",
           "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/out2 "
           "'lora_modules_to_save=[norm]' 2>&1");
}

CASE(a_copy_of_a_base_weight_must_be_the_base_s)
{
    EXPECT(3, "'base_model.model.model.embed_tokens.base_layer.weight' is not the base model's",
           "@FT train @D/ok.yaml lora_model_dir=" FT_ROOT "/tests/golden/ends-tied 2>&1");
}

CASE(f27_rank_above_the_module)
{
    fresh_folder();
    EXPECT(0, "rank 40 is above the rank of the module itself for 2 modules",
           "@FT train @D/ok.yaml lora_r=40 'lora_target_modules=[q_proj]' 2>&1");
}

CASE(f28_divergence_is_skipped_then_ends_with_5)
{
    fresh_folder();
    /* the last norm's weights near the largest bf16: finite, but the logits are not */
    shell("head -c 40 /dev/zero | tr '\\0' '\\177' | dd of=@D/model/model.safetensors bs=1 "
          "conv=notrunc seek=$(($(stat -c %%s @D/model/model.safetensors) - 40)) 2>/dev/null");
    EXPECT(5, "step 3: loss or gradient is not finite", "@FT train @D/ok.yaml max_steps=60 2>&1");
    CHECK_INT(shell("test ! -e @D/out/adapter_model.safetensors"), 0);
    CHECK_INT(shell("grep -q '\"loss\": null' @D/out/metrics.jsonl"), 0);
    CHECK_INT(shell("grep -qi nan @D/out/metrics.jsonl"), 1);
}

CASE(f30_memory_that_is_not_there)
{
#if defined(__SANITIZE_ADDRESS__)
    check_skip("the sanitizer needs address space of its own");
#endif
    fresh_folder();
    /* about 95 MB, in 60 MB of address space of which the program itself takes a third */
    EXPECT(
        4, "training needs",
        "ulimit -v 60000; @FT train configs/demo.yaml lora_r=256 threads=1 output_dir=@D/out 2>&1");
    CHECK_HAS(shell_output, "are available");
    check_no_output();
}

CASE(f34_disk_full_and_unwritable_folders)
{
    fresh_folder();
    EXPECT(4, "cannot create", "@FT train @D/ok.yaml output_dir=/proc/nothing 2>&1");
    EXPECT(4, "Not a directory", "@FT train @D/ok.yaml output_dir=@D/ok.yaml/out 2>&1");
    /* a limit on the file's size stands for a full disk, which is found before the first step */
    EXPECT(4, "the adapter and a checkpoint need",
           "trap '' XFSZ; ulimit -f 8; @FT train @D/ok.yaml lora_r=64 2>&1");
    CHECK_INT(shell("test ! -e @D/out/metrics.jsonl"), 0);
    CHECK_INT(shell("ls @D/out | grep -q tmp"), 1);
    CHECK_INT(shell("test ! -e @D/out/adapter_model.safetensors"), 0);
}

CASE(f38_output_in_use_or_not_empty)
{
    fresh_folder();
    EXPECT(0, "adapter in", "@FT train @D/ok.yaml 2>&1");
    EXPECT(2, "holds another run: 'lora_r' was", "@FT train @D/ok.yaml lora_r=3 2>&1");
    EXPECT(2, "is not empty",
           "mkdir @D/full; touch @D/full/x; @FT train @D/ok.yaml "
           "output_dir=@D/full 2>&1");
    EXPECT(0, "adapter in", "@FT train @D/ok.yaml overwrite_output_dir=true 2>&1");
    EXPECT(2, "is in use by process",
           "@FT train @D/ok.yaml output_dir=@D/busy max_steps=20000 >/dev/null 2>&1 & "
           "for i in $(seq 100); do test -s @D/busy/metrics.jsonl && break; sleep 0.1; done; "
           "@FT train @D/ok.yaml output_dir=@D/busy overwrite_output_dir=true 2>&1; code=$?; "
           "kill $!; wait $! 2>/dev/null; exit $code");
}

CASE(f38_a_run_never_overwrites_what_it_reads)
{
    fresh_folder();
    EXPECT(2, "is the folder of 'base_model'",
           "@FT train @D/ok.yaml output_dir=@D/model overwrite_output_dir=true 2>&1");
    EXPECT(0, "adapter in", "@FT train @D/ok.yaml 2>&1");
    EXPECT(2, "is the folder of 'lora_model_dir'",
           "@FT train @D/ok.yaml lora_model_dir=@D/out overwrite_output_dir=true 2>&1");
    EXPECT(2, "contradict the adapter",
           "@FT train @D/ok.yaml lora_model_dir=@D/out output_dir=@D/out2 "
           "'lora_target_modules=[q_proj]' 2>&1");
    EXPECT(2, "'output_dir' is missing", "@FT train @D/ok.yaml output_dir= 2>&1");
    CHECK_INT(shell("test -e @D/out/adapter_model.safetensors && test ! -e @D/out2"), 0);
}

CASE(huge_shapes_are_refused_not_attempted)
{
    fresh_folder();
    set_model_config("num_hidden_layers", "16000000");
    EXPECT(3, "'num_hidden_layers' is 16000000", "@FT train @D/ok.yaml 2>&1");
    fresh_folder();
    set_model_config("hidden_size", "300000");
    EXPECT(3, "'hidden_size' is 300000", "@FT train @D/ok.yaml 2>&1");
    EXPECT(
        2, "'datasets' is missing",
        "mkdir -p @D/lr=1; cp @D/ok.yaml @D/lr=1/c.yaml; @FT train @D/lr=1/c.yaml datasets= 2>&1");
}

CASE(f43_a_closed_terminal_does_not_stop_training)
{
    fresh_folder();
    CHECK_INT(
        shell("@FT train @D/ok.yaml max_steps=50 2>/dev/null | head -n 1 >/dev/null; "
              "for i in $(seq 100); do test -e @D/out/run.json && exit 0; sleep 0.1; done; exit 1"),
        0);
    CHECK_INT(shell("test $(grep -c loss @D/out/metrics.jsonl) -eq 50"), 0);
    CHECK_INT(shell("@FT train @D/ok.yaml output_dir=@D/out2 >&- 2>&-"), 0);
    CHECK_INT(shell("test -e @D/out2/adapter_model.safetensors"), 0);
    remove_fresh_folder();
}

CASE(f31_no_gpu)
{
    fresh_folder();
    EXPECT(4, "no CUDA device can be used", "@FT train @D/ok.yaml device=cuda 2>&1");
    CHECK_HAS(shell_output, "compute capability 8.0");
    CHECK_INT(shell("test ! -e @D/out/adapter_model.safetensors"), 0);
    EXPECT(0, "'device: auto' took the CPU: no CUDA device can be used",
           "@FT train @D/ok.yaml device=auto 2>&1");
    EXPECT(2, "exclude each other", "@FT train @D/ok.yaml device=cuda bf16=false 2>&1");
}
