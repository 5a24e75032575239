/* After training: generate, chat, eval and merge, as a user calls them. */
#include "core/file.h"
#include "io/gguf.h"
#include "tests/cli/cli.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODEL FT_ROOT "/datasets/shakespeare-2m"
#define CHATML                                                                                     \
    "{%- for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}{% if "                   \
    "add_generation_prompt %}assistant: {% endif %}"

static void put(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_INT(ft_file_write(path, text, strlen(text)), 0);
}

/* A part of the demo: sanitizers are slow. */
#define DEMO "configs/demo.yaml micro_batch_size=2 'test_datasets.0.split=train[:12]' "

/* An adapter of a few steps in @D/run. */
static const char *train_one(void)
{
    const char *folder = fresh_folder();
    EXPECT(0, "adapter in",
           "@FT train " DEMO "max_steps=6 output_dir=@D/run val_set_size=0 "
           "dataset_prepared_path=@D/prepared save_strategy=no 2>&1");
    return folder;
}

static json_t *line_of(int number)
{
    const char *p = shell_output;
    for (; number > 0 && (p = strchr(p, '\n')); number--)
        p++;
    json_t *o = p ? json_loads(p, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    CHECK(o != NULL);
    return o ? o : json_object();
}

static double number_in(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    CHECK(json_is_number(v));
    return json_number_value(v);
}

CASE(generate_answers_a_prompt_or_a_file)
{
    const char *folder = train_one();
    EXPECT(0, "", "@FT generate " MODEL " -p 'To be' --raw --max-tokens 8 --json 2>/dev/null");
    json_t *o = line_of(0);
    CHECK_INT((long long)json_array_size(json_object_get(o, "tokens")), 8);
    CHECK_HAS(shell_output, "\"finish\":\"length\"");
    CHECK_HAS(shell_output, "\"prompt\":\"To be\"");
    json_decref(o);
    put(folder, "prompts.jsonl",
        "{\"prompt\": \"Of Man's first\"}\n{\"prompt\": \"O\"}\n\n{\"prompt\": \"And the "
        "king\"}\n");
    EXPECT(0, "",
           "@FT generate " MODEL " @D/prompts.jsonl -a @D/run --raw --json --compare "
           "--max-tokens 5 2>/dev/null");
    for (int i = 0; i < 3; i++) {
        o = line_of(i);
        CHECK_INT((long long)json_array_size(json_object_get(o, "tokens")), 5);
        CHECK(json_object_get(json_object_get(o, "base"), "text") != NULL);
        json_decref(o);
    }
    EXPECT(0, "[3] And the king",
           "@FT generate " MODEL " - --raw --max-tokens 3 < @D/prompts.jsonl");
    /* drawn tokens repeat with the seed, whatever the threads */
    CHECK_INT(shell("for t in 1 2; do @FT generate " MODEL
                    " -p Once --raw --temperature 1 --seed 7 "
                    "--top-p 0.9 --max-tokens 20 threads=$t > @D/$t; done; cmp @D/1 @D/2"),
              0);
}

/* An adapter that has rows of its own for new tokens: the base has their mean, as transformers. */
CASE(new_tokens_are_answered_with_and_merged)
{
    static const char *const trained[] = {"peft_trainable_token_indices=[2048,2049]",
                                          "lora_modules_to_save=[embed_tokens,lm_head]"};
    for (int i = 0; i < 2; i++) {
        fresh_text("chat_template", CHAT("Hi", "You"));
        write_template(
            "{% for m in messages %}{% if m.role == 'user' %}<|u|>{{ m.content }}{% else "
            "%}{{ m.content }}<|e|>{% endif %}{% endfor %}");
        EXPECT(0, "",
               "@FT train @D/c.yaml 'tokens=[\"<|u|>\"]' 'special_tokens={eos_token: \"<|e|>\"}' "
               "'eot_tokens=[\"<|e|>\"]' max_steps=40 learning_rate=1e-2 '%s' --quiet 2>&1",
               trained[i]);
        EXPECT(0, "\"text\":\"You\"",
               "@FT generate @D/shake -a @D/out -p Hi --max-tokens 8 --compare --json 2>/dev/null");
        CHECK_HAS(shell_output, "\"finish\":\"stop\"");
        EXPECT(0, "loss", "@FT eval @D/shake -a @D/out @D/data.jsonl 2>/dev/null");
        if (i)
            continue; /* a tied head that was saved by itself cannot be merged */
        EXPECT(0, "in its weights", "@FT merge @D/out -o @D/merged 2>&1");
        EXPECT(0, "\"vocab_size\": 2050", "cat @D/merged/config.json");
        EXPECT(0, "You", "@FT generate @D/merged -p Hi --max-tokens 8 2>/dev/null");
    }
}

/* The model with a chat template, in @D/m. */
static const char *with_template(void)
{
    const char *folder = fresh_folder();
    CHECK_INT(shell("mkdir @D/m && cp " MODEL "/* @D/m/"), 0);
    put(folder, "m/chat_template.jinja", CHATML);
    return folder;
}

CASE(generate_goes_through_a_template)
{
    const char *folder = with_template();
    EXPECT(0, "",
           "@FT generate @D/m -p Hello --system 'Be brief.' --max-tokens 4 --json 2>/dev/null");
    json_t *a = line_of(0);
    put(folder, "one.jsonl",
        "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, "
        "{\"role\": \"user\", \"content\": \"Hello\"}]}\n");
    EXPECT(0, "", "@FT generate @D/m @D/one.jsonl --max-tokens 4 --json 2>/dev/null");
    json_t *b = line_of(0);
    CHECK(json_equal(json_object_get(a, "tokens"), json_object_get(b, "tokens")));
    json_decref(a);
    json_decref(b);
    /* a conversation: what was said before is there, and /new forgets it */
#define TALK "| @FT chat @D/m --max-tokens 4 --system 'Be brief.' 2>/dev/null"
    CHECK_INT(shell("printf 'Hello\\n' " TALK
                    " > @D/a; printf 'Hello\\nAgain\\n/new\\nHello\\n' " TALK
                    " > @D/b; n=$(wc -c < @D/a); head -c $n @D/b | cmp - @D/a && tail -c $n @D/b | "
                    "cmp - @D/a "
                    "&& test $(wc -c < @D/b) -gt $((2 * n))"),
              0);
}

CASE(a_conversation_from_a_pipe_ends_where_it_does_not_fit)
{
    with_template();
    EXPECT(3, "and 16 fit",
           "yes word | head -40 | tr '\\n' ' ' | @FT chat @D/m --context 16 --max-tokens 2 2>&1");
}

CASE(what_cannot_be_answered_is_refused)
{
    const char *folder = fresh_folder();
    EXPECT(2, "'ft generate' needs a model", "@FT generate 2>&1");
    EXPECT(2, "a text behind '-p', or a file", "@FT generate " MODEL " 2>&1");
    EXPECT(2, "'--bogus' is not a flag", "@FT generate " MODEL " -p x --bogus 2>&1");
    EXPECT(3, "no chat template", "@FT generate " MODEL " -p x 2>&1");
    EXPECT(2, "say nothing at temperature 0", "@FT generate " MODEL " -p x --raw --top-k 5 2>&1");
    EXPECT(2, "--temperature' of 'ft generate' is a number from 0",
           "@FT generate " MODEL " -p x --raw --temperature warm 2>&1");
    EXPECT(3, "is no folder with an adapter", "@FT generate " MODEL " -a @D/none -p x --raw 2>&1");
    EXPECT(3, "the model was made for",
           "@FT generate " MODEL " -p \"$(yes word | head -3000 | tr '\\n' ' ')\" --raw 2>&1");
    put(folder, "bad.jsonl", "{\"prompt\": \"x\"}\n{\"text\": \"x\"}\n");
    EXPECT(3, "bad.jsonl:2: error: has neither 'prompt' nor 'messages'",
           "@FT generate " MODEL " @D/bad.jsonl --raw 2>&1");
    EXPECT(2, "'--compare' is for an adapter", "@FT generate " MODEL " -p x --raw --compare 2>&1");
}

CASE(eval_measures_what_training_measured)
{
    const char *folder = fresh_folder();
    EXPECT(0, "last_eval_loss",
           "@FT train " DEMO "max_steps=6 output_dir=@D/run eval_steps=6 "
           "evals_per_epoch=null dataset_prepared_path=@D/prepared save_strategy=no --quiet --json "
           "2>/dev/null");
    json_t *run = line_of(0);
    EXPECT(0, "",
           "@FT eval " DEMO "output_dir=@D/run dataset_prepared_path=@D/prepared "
           "--json 2>/dev/null | tee @D/was.json");
    json_t *o = line_of(0);
    CHECK_NEAR(number_in(o, "loss"), number_in(run, "last_eval_loss"), 1e-5);
    CHECK_NEAR(number_in(json_object_get(o, "base"), "loss"), number_in(run, "first_eval_loss"),
               1e-5);
    CHECK_NEAR(number_in(o, "perplexity"), exp(number_in(o, "loss")), 1e-4);
    json_decref(run);
    json_decref(o);
    EXPECT(0, "token accuracy",
           "@FT eval " DEMO "output_dir=@D/run dataset_prepared_path=@D/prepared "
           "--baseline @D/was.json 2>&1");
    CHECK_INT(shell("sed -i 's/\"loss\":[0-9]/\"loss\":1/' @D/was.json"), 0);
    EXPECT(6, "'loss' was 1",
           "@FT eval " DEMO "output_dir=@D/run dataset_prepared_path=@D/prepared "
           "--baseline @D/was.json 2>&1");
    put(folder, "bad.json", "{}");
    EXPECT(3, "has no 'loss'",
           "@FT eval " DEMO "output_dir=@D/run dataset_prepared_path=@D/prepared "
           "--baseline @D/bad.json 2>&1");
}

CASE(eval_of_questions_and_texts)
{
    const char *folder = fresh_folder();
    put(folder, "mixed.jsonl",
        "{\"prompt\": \"O Romeo,\", \"choices\": [\"Romeo\", \"zzzzqqqq xxkk\"], \"answer\": 0}\n"
        "{\"prompt\": \"\", \"choices\": [\"the\", \"a king \"], \"answer\": 1}\n"
        "{\"text\": \"Now is the winter of our discontent\"}\n"
        "{\"prompt\": \"To be, or not\", \"completion\": \" to be\"}\n");
    EXPECT(0, "", "@FT eval " MODEL " @D/mixed.jsonl --json 2>/dev/null");
    json_t *o = line_of(0);
    CHECK_INT((long long)number_in(o, "questions"), 2);
    CHECK_INT((long long)number_in(o, "documents"), 2);
    CHECK(number_in(o, "acc") >= 0.5); /* the first is plain */
    json_decref(o);
    CHECK_INT(shell("awk 'BEGIN {printf \"{\\\"text\\\": \\\"\"; for (i = 0; i < 600; i++) "
                    "printf \"oh, \"; print \"\\\"}\"}' > @D/long.jsonl"),
              0);
    EXPECT(0, "1 of 1 texts are longer than the model's 512 positions",
           "@FT eval " MODEL " @D/long.jsonl 2>&1");
    put(folder, "bad.jsonl", "{\"prompt\": \"x\", \"choices\": [\"a\"], \"answer\": 1}\n");
    EXPECT(3, "bad.jsonl:1: error: the record cannot be evaluated",
           "@FT eval " MODEL " @D/bad.jsonl 2>&1");
    EXPECT(3, "has 'messages', and the model has no chat template",
           "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}' | @FT eval " MODEL
           " - 2>&1");
    EXPECT(2, "needs a config, or a model and a file", "@FT eval " MODEL " 2>&1");
    EXPECT(3, "none.json: error: does not exist",
           "@FT eval " MODEL " @D/mixed.jsonl --baseline none.json 2>&1");
}

CASE(merge_puts_the_adapter_into_the_weights)
{
    const char *folder = train_one();
    CHECK_INT(shell("mkdir @D/run/additional_chat_templates && "
                    "echo tools > @D/run/additional_chat_templates/tool_use.jinja"),
              0);
    EXPECT(0, "with 1 adapter in its weights", "@FT merge @D/run -o @D/merged/ 2>&1");
    CHECK_INT(shell("cmp @D/run/tokenizer.json @D/merged/tokenizer.json"), 0);
    CHECK_INT(shell("cmp @D/run/additional_chat_templates/tool_use.jinja "
                    "@D/merged/additional_chat_templates/tool_use.jinja"),
              0);
    put(folder, "t.jsonl", "{\"text\": \"Of Man's first disobedience, and the fruit\"}\n");
    EXPECT(0, "", "@FT eval " MODEL " -a @D/run @D/t.jsonl --json 2>/dev/null");
    json_t *with = line_of(0);
    EXPECT(0, "", "@FT eval @D/merged @D/t.jsonl --json 2>/dev/null");
    json_t *merged = line_of(0);
    const double base = number_in(json_object_get(with, "base"), "loss");
    CHECK_NEAR(number_in(merged, "loss"), number_in(with, "loss"), 0.01);
    CHECK(fabs(base - number_in(with, "loss")) > 0.02);
    json_decref(with);
    json_decref(merged);
    EXPECT(2, "is there already", "@FT merge @D/run -o @D/merged 2>&1");
    EXPECT(0, "in its weights", "@FT merge @D/run -o @D/merged --force 2>&1");
    /* halves of it, twice, are all of it */
    EXPECT(0, "with 2 adapters", "@FT merge @D/run @D/run --weights 0.5,0.5 -o @D/halves 2>&1");
    EXPECT(0, "", "@FT eval @D/halves @D/t.jsonl --json 2>/dev/null");
    json_t *halves = line_of(0);
    EXPECT(0, "", "@FT eval @D/merged @D/t.jsonl --json 2>/dev/null");
    merged = line_of(0);
    CHECK_NEAR(number_in(halves, "loss"), number_in(merged, "loss"), 1e-4);
    json_decref(halves);
    json_decref(merged);
}

/* A model of text in another says there what ends its answers. */
CASE(a_text_model_inside_has_its_own_ends)
{
    fresh_folder();
    EXPECT(0, "", "@FT generate " MODEL " -p 'To be' --raw --max-tokens 3 --json 2>/dev/null");
    json_t *o = line_of(0);
    const long long second = json_integer_value(json_array_get(json_object_get(o, "tokens"), 1));
    json_decref(o);
    CHECK_INT(shell("mkdir @D/m && cp " MODEL "/* @D/m/ && rm -f @D/m/generation_config.json && "
                    "sed -i '/eos_token_id/d; s/^{/{\"text_config\": {\"eos_token_id\": "
                    "%lld},/' @D/m/config.json",
                    second),
              0);
    EXPECT(0, "\"finish\":\"stop\"",
           "@FT generate @D/m -p 'To be' --raw --max-tokens 3 --json 2>/dev/null");
}

/* What a QLoRA was trained over is what it is merged into, and what that costs is told. */
CASE(merge_writes_what_quantised_weights_stand_for)
{
    const char *folder = fresh_folder();
    EXPECT(0, "adapter in",
           "@FT train " DEMO "adapter=qlora load_in_4bit=true max_steps=6 "
           "output_dir=@D/run val_set_size=0 dataset_prepared_path=@D/prepared save_strategy=no "
           "2>&1");
    put(folder, "t.jsonl", "{\"text\": \"Of Man's first disobedience, and the fruit\"}\n");
    EXPECT(3, "'--dtype bf16' ('ft export'", "@FT merge @D/run -o @D/x load_in_4bit=true 2>&1");
    EXPECT(2, "'--dtype q4': f32, f16 or bf16", "@FT merge @D/run -o @D/x --dtype q4 2>&1");
    EXPECT(0, "beside the weights",
           "@FT merge @D/run -o @D/merged --dtype f32 load_in_4bit=true --eval @D/t.jsonl 2>&1");
    CHECK_HAS(shell_output, "merged (");
    EXPECT(0, "\"torch_dtype\": \"float32\"", "cat @D/merged/config.json");
    EXPECT(0, "", "@FT eval " MODEL " -a @D/run @D/t.jsonl load_in_4bit=true --json 2>/dev/null");
    json_t *beside = line_of(0);
    EXPECT(0, "", "@FT eval @D/merged @D/t.jsonl --json 2>/dev/null");
    json_t *merged = line_of(0);
    CHECK_NEAR(number_in(merged, "loss"), number_in(beside, "loss"), 1e-5);
    EXPECT(0, "", "@FT eval " MODEL " -a @D/run @D/t.jsonl load_in_8bit=true --json 2>/dev/null");
    json_decref(beside);
    json_decref(merged);
}

CASE(merge_refuses_what_would_be_wrong)
{
    train_one();
    /* other weights under the same name */
    CHECK_INT(shell("cp -r " MODEL
                    " @D/other && printf '\\001\\002' | dd of=@D/other/model.safetensors "
                    "bs=1 seek=100000 conv=notrunc 2>/dev/null"),
              0);
    EXPECT(3, "is another file than the one that the adapter was trained on",
           "@FT merge @D/run -m @D/other -o @D/x 2>&1");
    EXPECT(0, "in its weights", "@FT merge @D/run -m @D/other -o @D/x --force 2>&1");
    EXPECT(3, "the weights are quantised",
           "@FT merge tests/golden/bnb-nf4 -m tests/golden/bnb-nf4 -o @D/y 2>&1");
    EXPECT(3, "which are one weight in this model",
           "@FT merge tests/golden/ends-tied -m tests/golden/ends-tied -o @D/y 2>&1");
    EXPECT(3, "is a DoRA adapter, which is not added",
           "@FT merge tests/golden/dora -m tests/golden/dora --weights 0.5 -o @D/y 2>&1");
    EXPECT(3, "is a DoRA adapter, which is not added",
           "@FT merge tests/golden/dora tests/golden/dora -m tests/golden/dora -o @D/y 2>&1");
    CHECK_INT(shell("test ! -e @D/y && test -z \"$(ls -d @D/y* 2>/dev/null)\""), 0);
    EXPECT(2, "needs a folder to write", "@FT merge @D/run 2>&1");
    EXPECT(2, "not one number for each adapter", "@FT merge @D/run -o @D/y --weights 1,2 2>&1");
}

/* The model with the adapter: in f32 to rounding, in 8 bits nearly, in 4 roughly. */
static void export_whole_models(void)
{
    EXPECT(0, "", "@FT eval " MODEL " -a @D/run @D/t.jsonl --json 2>/dev/null");
    json_t *with = line_of(0);
    static const struct {
        const char *type;
        double near;
    } types[] = {{"f32", 1e-5}, {"q8_0", 0.05}, {"q4_0", 0.5}};
    for (int i = 0; i < 3; i++) {
        EXPECT(0, "llama.cpp", "@FT export @D/run -o @D/m%d.gguf --to gguf --type %s 2>&1", i,
               types[i].type);
        EXPECT(0, "", "@FT eval @D/m%d.gguf @D/t.jsonl --json 2>/dev/null", i);
        json_t *whole = line_of(0);
        CHECK_NEAR(number_in(whole, "loss"), number_in(with, "loss"), types[i].near);
        json_decref(whole);
    }
    json_decref(with);
}

CASE(export_for_other_programs)
{
    const char *folder = fresh_folder();
    char path[512];
    struct ft_gguf g;
    EXPECT(0, "adapter in",
           "@FT train " DEMO "max_steps=4 output_dir=@D/run val_set_size=0 "
           "dataset_prepared_path=@D/prepared save_strategy=no peft_use_rslora=true "
           "lora_target_linear=false lora_target_modules='[k_proj, up_proj]' "
           "lora_rank_pattern='{up_proj: 4}' lora_alpha_pattern='{up_proj: 5}' 2>&1");
    put(folder, "t.jsonl", "{\"text\": \"Of Man's first disobedience, and the fruit\"}\n");
    EXPECT(0, "", "@FT eval " MODEL " -a @D/run @D/t.jsonl --json 2>/dev/null");
    json_t *with = line_of(0);
    EXPECT(0, "vLLM", "@FT export @D/run -o @D/portable --to portable 2>&1");
    EXPECT(0, "\"use_rslora\": false", "cat @D/portable/adapter_config.json");
    EXPECT(0, "\"q_proj\"", "cat @D/portable/adapter_config.json");
    EXPECT(0, "", "@FT eval " MODEL " -a @D/portable @D/t.jsonl --json 2>/dev/null");
    json_t *portable = line_of(0);
    CHECK_NEAR(number_in(portable, "loss"), number_in(with, "loss"), 1e-5);
    json_decref(with);
    json_decref(portable);
    EXPECT(0, "llama.cpp", "@FT export @D/run -o @D/a.gguf --to gguf-adapter 2>&1");
    snprintf(path, sizeof path, "%s/a.gguf", folder);
    CHECK_INT(ft_gguf_open(&g, path), 0);
    CHECK_INT(g.n % 4, 0); /* two tensors of each of two modules a layer */
    CHECK(strcmp(g.tensors[0].name, "blk.0.attn_k.weight.lora_a") == 0);
    CHECK_NEAR(json_number_value(json_object_get(g.metadata, "adapter.lora.alpha")), 32, 0);
    ft_gguf_close(&g);
    EXPECT(2, "is there already", "@FT export @D/run -o @D/a.gguf --to gguf-adapter 2>&1");
    /* mlx-lm's A and B are turned */
    EXPECT(0, "mlx-lm", "@FT export @D/run -o @D/mlx --to mlx 2>&1");
    EXPECT(0, "\"self_attn.q_proj\"", "cat @D/mlx/adapter_config.json");
    CHECK_HAS(shell_output, "\"scale\": 1.0");
    EXPECT(0, "model.layers.0.mlp.up_proj.lora_a\":{\"dtype\":\"F32\",\"shape\":[192,16]",
           "head -c 4096 @D/mlx/adapters.safetensors | strings");
    export_whole_models();
    EXPECT(2, "f32, f16, bf16, q8_0, q4_0 or mxfp4",
           "@FT export @D/run -o @D/x --to gguf --type q4 2>&1");
    EXPECT(2, "'--type' is for '--to gguf'",
           "@FT export @D/run -o @D/x --to portable --type f16 2>&1");
    EXPECT(3, "with such windows of attention",
           "@FT export tests/golden/mistral -m tests/golden/mistral -o @D/x --to gguf 2>&1");
    EXPECT(2, "'--to' is gguf-adapter, gguf, portable, mlx or sbom",
           "@FT export @D/run -o @D/x --to onnx 2>&1");
    EXPECT(3, "it is no plain LoRA",
           "@FT export tests/golden/dora -m tests/golden/dora -o @D/x --to portable 2>&1");
    EXPECT(3, "the embedding has an adapter",
           "@FT export tests/golden/ends -m tests/golden/ends -o @D/x --to gguf-adapter 2>&1");
}

/* Gemma's norms, windows and rotations, and SentencePiece: the file read back is the model. */
CASE(export_of_gemma_and_sentencepiece)
{
    static const char *const cases[] = {"gemma", "gemma2"};
    const char *folder = fresh_folder();
    put(folder, "t.jsonl", "{\"text\": \"a ab\"}\n{\"text\": \"ba\\nab c\"}\n");
    put(folder, "tokenizer.json",
        "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\", "
        "\"special\": "
        "true, \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": "
        "false}], \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
        "\"content\": \"\u2581\"}, \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": "
        "{\"String\": \" \"}, \"behavior\": \"MergedWithPrevious\", \"invert\": false}, "
        "\"post_processor\": null, \"decoder\": null, \"model\": {\"type\": \"BPE\", "
        "\"unk_token\": "
        "\"<unk>\", \"fuse_unk\": true, \"byte_fallback\": true, \"vocab\": {\"<unk>\": 0, \"a\": "
        "1, "
        "\"b\": 2, \"\u2581\": 3, \"ab\": 4, \"\u2581ab\": 5, \"<0x0A>\": 6, \"<0x63>\": 7}, "
        "\"merges\": [[\"a\", \"b\"], [\"\u2581\", \"ab\"]]}}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        shell(
            "rm -rf @D/g; cp -r tests/golden/%s @D/g && chmod -R u+w @D/g && cp @D/tokenizer.json "
            "@D/g && echo '{}' > @D/g/tokenizer_config.json; sed -i 's/\\(query_pre_attn_scalar.*: "
            "\\)[0-9]*/\\112/' @D/g/config.json",
            cases[i]);
        EXPECT(0, "llama.cpp",
               "@FT export @D/g -m @D/g -o @D/g.gguf --to gguf --type f32 --force 2>&1");
        EXPECT(0, "", "@FT eval @D/g -a @D/g @D/t.jsonl --json 2>/dev/null");
        json_t *with = line_of(0);
        EXPECT(0, "", "@FT eval @D/g.gguf @D/t.jsonl --json 2>/dev/null");
        json_t *file = line_of(0);
        CHECK_INT((long long)number_in(file, "tokens"), (long long)number_in(with, "tokens"));
        CHECK_NEAR(number_in(file, "loss"), number_in(with, "loss"), 2e-5);
        json_decref(with);
        json_decref(file);
    }
}

CASE(tensorboard_files_follow_the_log)
{
    fresh_folder();
    EXPECT(0, "adapter in",
           "@FT train @D/ok.yaml max_steps=5 use_tensorboard=true save_strategy=no 2>&1");
    EXPECT(0, "brain.Event:2", "cat @D/out/tensorboard/events.out.tfevents.* | strings -n 8");
    CHECK_INT(shell("test $(cat @D/out/tensorboard/* | grep -ao train/grad_norm | wc -l) -eq 5"),
              0);
    /* the first record: 24 bytes, whose masked checksum is known */
    CHECK_INT(shell("cat @D/out/tensorboard/* | head -c 12 | od -An -tx1 | "
                    "grep -q '18 00 00 00 00 00 00 00 a3 7f 4b 22'"),
              0);
    EXPECT(0, "adapter in",
           "@FT train @D/ok.yaml max_steps=3 save_strategy=no "
           "overwrite_output_dir=true 2>&1");
    CHECK_INT(shell("test ! -e @D/out/tensorboard"), 0);
}

CASE(offline_runs_are_kept_where_the_config_has_a_project)
{
    fresh_folder();
    EXPECT(0, "/out/wandb/offline-run-",
           "@FT train @D/ok.yaml max_steps=2 wandb_project=p wandb_run_id=id7 save_strategy=no "
           "2>&1");
    CHECK_INT(shell("cat @D/out/wandb/offline-run-*-id7/run-id7.wandb | head -c 7 | od -An -tx1 | "
                    "grep -q '3a 57 26 42 e1 be 00'"),
              0);
    EXPECT(0, "1\n",
           "@FT train @D/ok.yaml max_steps=2 wandb_project=p overwrite_output_dir=true --quiet "
           "2>/dev/null && ls "
           "@D/out/wandb | grep -c offline-run-");
    EXPECT(2, "'a/b' is no id",
           "@FT train @D/ok.yaml max_steps=2 output_dir=@D/no use_wandb=true wandb_run_id=a/b "
           "2>&1");
    EXPECT(0, "adapter in",
           "@FT train @D/ok.yaml max_steps=2 output_dir=@D/no wandb_project=p "
           "wandb_mode=disabled 2>&1");
    CHECK_INT(shell("test ! -e @D/no/wandb"), 0);
}

CASE(report_is_one_page)
{
    train_one();
    EXPECT(0, "2 runs", "@FT report @D/run @D/run/metrics.jsonl -o @D/a.html 2>&1");
    EXPECT(0, "What differs in the configs", "cat @D/a.html");
    EXPECT(0, "var(--c1)", "cat @D/a.html");
    CHECK_INT(
        shell("@FT report @D/run @D/run/metrics.jsonl -o @D/b.html && cmp @D/a.html @D/b.html"), 0);
    /* nothing from elsewhere */
    CHECK_INT(shell("grep -E 'https?:|<script|<link|@import|src=' @D/a.html"), 1);
    CHECK_INT(shell("mkdir '@D/<b>' && cp @D/run/* '@D/<b>/' 2>/dev/null; @FT report '@D/<b>' -o "
                    "@D/c.html && "
                    "grep -q '&lt;b&gt;' @D/c.html && ! grep -q '<b>' @D/c.html"),
              0);
    /* what the model said, where the run folder has it */
    CHECK_INT(shell("@FT generate " MODEL
                    " -a @D/run -p '<i>Of' --raw --compare --json --max-tokens "
                    "3 > @D/run/samples.jsonl 2>/dev/null && @FT report @D/run -o @D/s.html"),
              0);
    EXPECT(0, "<h2>Samples</h2>", "cat @D/s.html");
    CHECK_HAS(shell_output, "<td class=said>&lt;i&gt;Of</td>");
    shell("echo '{\"prompt\": \"a\"}' > @D/run/samples.jsonl");
    EXPECT(3, "samples.jsonl:1: error: has no 'text'", "@FT report @D/run -o @D/t.html 2>&1");
    EXPECT(2, "needs a file to write", "@FT report @D/run 2>&1");
    EXPECT(0, "1 run", "@FT report @D/run/metrics.jsonl -o @D/a.html 2>&1"); /* made anew */
    EXPECT(2, "is there already, and is no page",
           "@FT report @D/run/metrics.jsonl -o @D/run/run.json 2>&1");
    EXPECT(3, "cannot open", "@FT report @D/none -o @D/x.html 2>&1");
}
