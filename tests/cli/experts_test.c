/* Mixtures of experts from the command line: adapters on their parameters and on the modules that
 * they were, in and out; what a plan says of them; merging. */
#include "tests/cli/cli.h"

#include "io/gguf.h"
#include "io/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIXTURE FT_ROOT "/tests/golden/qwen3-moe"
#define DATA    " datasets.0.path=" MIXTURE "/data.safetensors device=cpu overwrite_output_dir=true"
#define BOTH                                                                                       \
    " lora_target_modules=[q_proj,v_proj] "                                                        \
    "lora_target_parameters=[mlp.experts.gate_up_proj,mlp.experts.down_proj]"

/* The model alone: the folder of the case is an adapter's too. */
static void take_model(void)
{
    fresh_folder();
    CHECK_INT(shell("mkdir @D/m; cp " MIXTURE "/config.json " MIXTURE "/model.safetensors @D/m"),
              0);
}

static double loss_at(const char *folder, int step)
{
    CHECK_INT(shell("grep '\"loss\"' @D/%s/metrics.jsonl | sed -n %dp", folder, step), 0);
    json_t *o = json_loads(shell_output, 0, NULL);
    const double loss = json_number_value(json_object_get(o, "loss"));
    CHECK(loss > 0);
    json_decref(o);
    return loss;
}

CASE(experts_go_out_module_by_module_and_come_back)
{
    take_model();
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora lora_r=4 max_steps=6 "
           "learning_rate=5e-3" BOTH DATA " output_dir=@D/run 2>&1");
    EXPECT(0, "", "@FT export @D/run -o @D/portable --to portable 2>&1");
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m lora_model_dir=@D/run max_steps=1" DATA
           " output_dir=@D/one 2>&1");
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m lora_model_dir=@D/portable max_steps=1" DATA
           " output_dir=@D/other 2>&1");
    CHECK_NEAR(loss_at("other", 1), loss_at("one", 1), 1e-6);
    EXPECT(0, "\"model.layers.1.mlp.experts.gate_up_proj\": 8", "cat @D/other/adapter_config.json");
    CHECK_HAS(shell_output, "\"mlp.experts.down_proj\"");
    EXPECT(3, "experts have adapters", "@FT export @D/run -o @D/x --to mlx 2>&1");
}

/* vLLM asks for all three. */
CASE(experts_with_one_matrix_adapted_go_out_with_all)
{
    take_model();
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora lora_r=4 max_steps=4 learning_rate=5e-3 "
           "'lora_target_parameters=[mlp.experts.down_proj]'" DATA " output_dir=@D/run 2>&1");
    EXPECT(0, "", "@FT export @D/run -o @D/portable --to portable 2>&1");
    EXPECT(0, "experts.3.gate_proj.lora_A", "strings @D/portable/adapter_model.safetensors");
    for (int i = 0; i < 2; i++)
        EXPECT(0, "",
               "@FT train --quiet base_model=@D/m lora_model_dir=@D/%s max_steps=1" DATA
               " output_dir=@D/%s 2>&1",
               i ? "portable" : "run", i ? "other" : "one");
    CHECK_NEAR(loss_at("other", 1), loss_at("one", 1), 1e-6);
}

/* The adapter of a case that lies in GGUF, beside its model and in a file with it. */
CASE(a_gguf_file_holds_what_was_trained)
{
    static const char *const cases[] = {
        "gguf-qwen3-moe",    "gguf-qwen2-moe", "gguf-mixtral",    "gguf-olmoe",
        "gguf-phi3",         "gguf-olmo2",     "gguf-olmo3",      "gguf-glm4",
        "gguf-starcoder2",   "gguf-gpt-neox",  "gguf-ministral3", "gguf-falcon",
        "gguf-falcon-later", "gguf-glm",       "gguf-gpt2",       "gguf-qwen2-5-vl",
        "gguf-qwen3-vl",     "gguf-glm4-moe",  "gguf-granitemoe", "gguf-gpt-oss"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
#define CASE_AT FT_ROOT "/tests/golden/%s"
#define ONE_STEP                                                                                   \
    "@FT train --quiet adapter=lora max_steps=1 learning_rate=0 device=cpu "                       \
    "datasets.0.path=" CASE_AT "/data.safetensors "
        fresh_folder();
        EXPECT(0, "",
               ONE_STEP "base_model=" CASE_AT "/model.gguf lora_model_dir=" CASE_AT
                        " output_dir=@D/beside 2>&1",
               cases[i], cases[i], cases[i]);
        EXPECT(0, "llama.cpp",
               "@FT export " CASE_AT " --force -m " CASE_AT
               "/model.gguf -o @D/x.gguf --to gguf --type f32 2>&1",
               cases[i], cases[i]);
        EXPECT(0, "", ONE_STEP "base_model=@D/x.gguf lora_target_linear=true output_dir=@D/in 2>&1",
               cases[i]);
        CHECK_NEAR(loss_at("in", 1), loss_at("beside", 1), 1e-5);
#undef ONE_STEP
    }
    EXPECT(3, "no model with such a head, norms or biases", /* llama.cpp has Command R+ alone with
                                                               those */
           "@FT export " CASE_AT " --force -m " CASE_AT
           "/model.gguf -o @D/y.gguf --to gguf --type f32 2>&1",
           "gguf-cohere", "gguf-cohere");
    EXPECT(3,
           "is of 5 experts, the metadata says 4", /* counts are little-endian, behind their type */
           "LC_ALL=C sed 's/\\(oss.expert_count....\\)\\x05/\\1\\x04/' " CASE_AT
           "/model.gguf >@D/z.gguf && @FT train base_model=@D/z.gguf adapter=lora "
           "datasets.0.path=" CASE_AT "/data.safetensors output_dir=@D/z device=cpu 2>&1",
           "gguf-gpt-oss", "gguf-gpt-oss");
#undef CASE_AT
}

/* What lies so already stays what it is. */
CASE(experts_in_mxfp4)
{
#define CASE_AT FT_ROOT "/tests/golden/gguf-qwen3-moe"
#define ONE_STEP                                                                                   \
    "@FT train --quiet adapter=lora max_steps=1 learning_rate=0 device=cpu "                       \
    "lora_target_modules=[q_proj] datasets.0.path=" CASE_AT "/data.safetensors "
    fresh_folder();
    EXPECT(0, "", ONE_STEP "base_model=" CASE_AT "/model.gguf output_dir=@D/a 2>&1");
    EXPECT(0, "llama.cpp",
           "@FT export @D/a -m " CASE_AT
           "/model.gguf --force -o @D/b.gguf --to gguf --type mxfp4 2>&1");
    EXPECT(0, "", ONE_STEP "base_model=@D/b.gguf output_dir=@D/b 2>&1");
    EXPECT(0, "llama.cpp", "@FT export @D/b -m @D/b.gguf -o @D/c.gguf --to gguf --type mxfp4 2>&1");
    EXPECT(0, "", ONE_STEP "base_model=@D/c.gguf output_dir=@D/c 2>&1");
    CHECK_NEAR(loss_at("a", 1), loss_at("b", 1), 0.2);
    CHECK(fabs(loss_at("a", 1) - loss_at("b", 1)) > 1e-5);
    CHECK_NEAR(loss_at("b", 1), loss_at("c", 1), 1e-6);
    EXPECT(2, "this model has none",
           "@FT export " FT_ROOT "/tests/golden/gguf-phi3 --force -m " FT_ROOT
           "/tests/golden/gguf-phi3/model.gguf -o @D/y.gguf --to gguf --type mxfp4 2>&1");
#undef ONE_STEP
#undef CASE_AT
}

static const char *test_folder;

/* A tensor of the model's folder, or of the GGUF file, which is all F32; the caller's. */
static float *in_folder(const char *name)
{
    char path[512];
    struct ft_st *f;
    snprintf(path, sizeof path, "%s/m/model.safetensors", test_folder);
    CHECK_INT(ft_st_open(&f, path), 0);
    const struct ft_st_entry *e = ft_st_find(f, name);
    const size_t n = e ? (size_t)(e->end - e->begin) / ft_dtype_size(e->dtype) : 0;
    void *stored = calloc(n + 1, 4);
    float *out = calloc(n + 1, sizeof *out);
    CHECK(e && !ft_st_read(f, e, 0, n * ft_dtype_size(e->dtype), stored));
    for (size_t i = 0; i < n; i++)
        out[i] = ft_element_get(stored, i, e->dtype);
    free(stored);
    ft_st_close(f);
    return out;
}

static float *in_gguf(const char *name, int64_t rows, int64_t more, int64_t cols)
{
    char path[512];
    struct ft_gguf g;
    float *out = calloc((size_t)(rows * more * cols), sizeof *out);
    snprintf(path, sizeof path, "%s/x.gguf", test_folder);
    if (ft_gguf_open(&g, path)) {
        CHECK(false);
        return out;
    }
    FILE *f = fopen(path, "rb");
    bool found = false;
    for (int i = 0; i < g.n; i++)
        if (strcmp(g.tensors[i].name, name) == 0) {
            const struct ft_gguf_tensor *t = &g.tensors[i];
            found = t->dtype == FT_F32 && t->dims[0] == rows &&
                    t->end - t->begin == rows * more * cols * 4;
            CHECK(found && !fseek(f, t->begin, SEEK_SET) &&
                  fread(out, 4, (size_t)(rows * more * cols), f) == (size_t)(rows * more * cols));
        }
    CHECK(found);
    fclose(f);
    ft_gguf_close(&g);
    return out;
}

/* Whether number (e, r, c) of one is (e, first + step * r, c), or (e, c, that) if turned, of the
 * other, which has `of` such rows. */
static void same_rows(const float *gguf, const float *folder, int64_t experts, int64_t rows,
                      int64_t cols, int64_t of, int64_t first, int64_t step, bool turned)
{
    int64_t wrong = 0;
    for (int64_t e = 0; e < experts; e++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                const int64_t row = first + step * r;
                const float want =
                    folder[turned ? (e * cols + c) * of + row : (e * of + row) * cols + c];
                wrong += memcmp(&gguf[(e * rows + r) * cols + c], &want, sizeof want) != 0;
            }
    CHECK_INT(wrong, 0);
}

/* One that is not read again: its gates and ups, which lie by turns or below each other, what is
 * added to them, and the scores of attention. */
static void check_written(const char *name, int64_t experts, int64_t ffn, int64_t hidden,
                          const char *in, bool by_turns)
{
    test_folder = fresh_folder();
    shell("mkdir @D/m; cp tests/golden/%s/config.json tests/golden/%s/model.safetensors @D/m", name,
          name);
    shell("printf '{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, "
          "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
          "\"trim_offsets\": true, \"use_regex\": true}, \"post_processor\": null, "
          "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
          "\"trim_offsets\": true, \"use_regex\": true}, \"model\": {\"type\": \"BPE\", "
          "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [[\"a\", \"b\"]]}}' "
          "> @D/m/tokenizer.json; echo '{}' > @D/m/tokenizer_config.json; "
          "sed -i 's/\"swiglu_limit\": 1.0/\"swiglu_limit\": 7.0/' @D/m/config.json");
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora lora_target_linear=true max_steps=1 "
           "learning_rate=0 device=cpu datasets.0.path=tests/golden/%s/data.safetensors "
           "output_dir=@D/run 2>&1",
           name);
    EXPECT(0, "llama.cpp", "@FT export @D/run -o @D/x.gguf --to gguf --type f32 2>&1");
    float *both = in_folder(in),
          *gate = in_gguf("blk.0.ffn_gate_exps.weight", experts, ffn, hidden),
          *up = in_gguf("blk.0.ffn_up_exps.weight", experts, ffn, hidden);
    const int64_t step = by_turns ? 2 : 1;
    same_rows(gate, both, experts, ffn, hidden, 2 * ffn, 0, step, by_turns);
    same_rows(up, both, experts, ffn, hidden, 2 * ffn, by_turns ? 1 : ffn, step, by_turns);
    free(both);
    free(gate);
    free(up);
}

CASE(experts_go_to_gguf_as_llama_cpp_has_them)
{
    check_written("granitemoe", 5, 44, 32, "model.layers.0.block_sparse_moe.input_linear.weight",
                  false);
    check_written("gpt-oss", 5, 44, 32, "model.layers.0.mlp.experts.gate_up_proj", true);
    float *both = in_folder("model.layers.0.mlp.experts.gate_up_proj_bias"),
          *up = in_gguf("blk.0.ffn_up_exps.bias", 5, 44, 1),
          *sinks = in_folder("model.layers.0.self_attn.sinks"),
          *there = in_gguf("blk.0.attn_sinks.weight", 4, 1, 1);
    same_rows(up, both, 5, 44, 1, 88, 1, 2, false);
    same_rows(there, sinks, 4, 1, 1, 1, 0, 1, false);
    free(both);
    free(up);
    free(sinks);
    free(there);
    static const char *const changes[][2] = {
        {"s/\"swiglu_limit\": 7.0/\"swiglu_limit\": 6.0/", "with such experts"},
        {"s/\"sliding_window\": 5/\"sliding_window\": null/", "with such windows"},
        {"s/\"sliding_attention\"/\"full_attention\"/", "with such windows"}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        shell("cp @D/m/config.json @D/config.json; sed -i '%s' @D/m/config.json", changes[i][0]);
        EXPECT(3, changes[i][1], "@FT export @D/run -o @D/y.gguf --to gguf --force 2>&1");
        shell("mv @D/config.json @D/m/config.json");
    }
}

CASE(names_of_modules_in_experts_mean_their_parameters)
{
    take_model();
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora lora_r=3 max_steps=1 "
           "lora_target_modules=[q_proj,gate_proj,up_proj,down_proj]" DATA
           " output_dir=@D/run 2>&1");
    EXPECT(0, "\"model.layers.0.mlp.experts.gate_up_proj\": 6", "cat @D/run/adapter_config.json");
    EXPECT(0, "\"mlp.experts.gate_up_proj\"",
           "grep -A3 target_parameters @D/run/adapter_config.json");
    EXPECT(1, "", "grep -A4 target_modules @D/run/adapter_config.json | grep gate_proj");
}

/* Else the adapter would be read back for every layer. */
CASE(a_parameter_of_one_layer_is_named_with_it)
{
    take_model();
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora lora_r=4 max_steps=1 "
           "'lora_target_parameters=[layers.1.mlp.experts.gate_up_proj]'" DATA
           " output_dir=@D/run 2>&1");
    EXPECT(0, "\"layers.1.mlp.experts.gate_up_proj\"",
           "grep -A2 target_parameters @D/run/adapter_config.json");
    EXPECT(0, "1 adapter", "@FT merge @D/run -o @D/merged 2>&1");
    EXPECT(0, "", "@FT export @D/run -o @D/portable --to portable 2>&1");
    shell("sed -i 's/\"lora_dropout\": 0.0/\"lora_dropout\": 0.1/' @D/run/adapter_config.json");
    EXPECT(3, "'lora_dropout' above 0 excludes adapters on experts' parameters",
           "@FT merge @D/run -o @D/other 2>&1");
}

/* As modules experts may have had dropout; as parameters they have none. */
CASE(dropout_over_old_experts_is_given_up)
{
    take_model();
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora lora_r=4 max_steps=1" BOTH DATA
           " output_dir=@D/run 2>&1");
    EXPECT(0, "", "@FT export @D/run -o @D/portable --to portable 2>&1");
    shell("sed -i 's/\"lora_dropout\": 0.0/\"lora_dropout\": 0.1/' "
          "@D/portable/adapter_config.json");
    EXPECT(0, "'lora_dropout' counts as 0",
           "@FT train base_model=@D/m lora_model_dir=@D/portable max_steps=1" DATA
           " output_dir=@D/on 2>&1");
    EXPECT(0, "\"lora_dropout\": 0.0", "cat @D/on/adapter_config.json");
    EXPECT(0, "1 adapter", "@FT merge @D/on -m @D/m -o @D/merged 2>&1");
}

CASE(an_expert_that_is_missing_in_an_adapter_is_named)
{
    take_model();
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora lora_r=4 max_steps=1" BOTH DATA
           " output_dir=@D/run 2>&1");
    EXPECT(0, "", "@FT export @D/run -o @D/portable --to portable 2>&1");
    shell("LC_ALL=C sed -i 's/layers.1.mlp.experts.2.up_proj.lora_A/layers.1.mlp.experts.2.up_proj."
          "lora_X/' @D/portable/adapter_model.safetensors");
    EXPECT(3, "mlp.experts.2.up_proj.lora_A.weight' is missing",
           "@FT train --quiet base_model=@D/m lora_model_dir=@D/portable" DATA
           " output_dir=@D/x 2>&1");
}

CASE(an_expert_that_is_quantised_otherwise_is_named)
{
#define FP8 FT_ROOT "/tests/golden/qwen3-moe-fp8"
    fresh_folder();
    CHECK_INT(shell("mkdir @D/m; cp " FP8 "/config.json " FP8 "/model.safetensors @D/m"), 0);
    EXPECT(0, "",
           "@FT train --quiet base_model=@D/m adapter=lora max_steps=1" BOTH DATA
           " output_dir=@D/run 2>&1");
    shell("LC_ALL=C sed -i 's/layers.1.mlp.experts.2.up_proj.weight_scale_inv/"
          "layers.1.mlp.experts.2.up_proj.weight_scale_xxx/' @D/m/model.safetensors");
    EXPECT(3, "mlp.experts.2.up_proj.weight' is not quantised as that of the first expert is",
           "@FT train --quiet base_model=@D/m adapter=lora max_steps=1" BOTH DATA
           " output_dir=@D/run 2>&1");
#undef FP8
}

CASE(the_loss_of_even_routing_can_be_asked_for)
{
#define BALANCED FT_ROOT "/tests/golden/mixtral-balanced"
#define ONE                                                                                        \
    "@FT train --quiet adapter=lora lora_target_modules=[q_proj] max_steps=1 learning_rate=0 "     \
    "device=cpu datasets.0.path=" BALANCED "/data.safetensors "
    static const char *const rows[] = {"", "{output_router_logits: false}",
                                       "{router_aux_loss_coef: 0.25}"};
    double loss[3];
    fresh_folder();
    CHECK_INT(shell("mkdir @D/m; cp " BALANCED "/config.json " BALANCED "/model.safetensors @D/m"),
              0);
    for (int i = 0; i < 3; i++) {
        EXPECT(0, "", ONE "base_model=@D/m output_dir=@D/%d%s%s%s 2>&1", i,
               i ? " 'model_config=" : "", rows[i], i ? "'" : "");
        char folder[8];
        snprintf(folder, sizeof folder, "%d", i);
        loss[i] = loss_at(folder, 1);
    }
    CHECK(loss[0] > loss[1] + 0.5); /* 0.5 times what is 2 or more, of 2 experts a row */
    CHECK_NEAR(loss[2], (loss[0] + loss[1]) / 2, 1e-5);
    EXPECT(2, "'hidden_size' of config.json would be another model's",
           ONE "base_model=@D/m output_dir=@D/x 'model_config={hidden_size: 8}' 2>&1");
    EXPECT(2, "'output_router_logits' is true or false",
           ONE "base_model=@D/m output_dir=@D/x 'model_config={output_router_logits: 3}' 2>&1");
    EXPECT(2, "has no part for even routing",
           ONE "base_model=" FT_ROOT "/tests/golden/glm4-moe output_dir=@D/x "
               "'overrides_of_model_config={output_router_logits: true}' 2>&1");
#undef ONE
#undef BALANCED
}

CASE(a_plan_counts_what_a_token_meets)
{
    take_model();
    EXPECT(0, "active parameters",
           "@FT plan base_model=@D/m adapter=lora output_dir=@D/x" DATA " 2>&1");
    CHECK_HAS(shell_output, "6, 2 a token, in 2 of 2 layers");
    CHECK_HAS(shell_output, "rows an expert");
    CHECK_HAS(shell_output, "and quantize_moe_experts");
    EXPECT(0, "the experts keep 16 bits",
           "@FT plan base_model=@D/m adapter=qlora load_in_4bit=true output_dir=@D/x" DATA " 2>&1");
}
