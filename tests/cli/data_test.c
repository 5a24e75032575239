/* Text in: ft data, ft init, ft train from text, and the faults of text (18, 19, 21 to 25). */
#include "tests/cli/cli.h"

#include <stdlib.h>

CASE(data_writes_shows_and_counts)
{
    fresh_text("completion", "{\"text\": \"To be\"}\n{\"text\": \"or not\"}");
    EXPECT(0, "documents              2", "@FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "4 (66.7 %)"); /* the first token of a document has no loss */
    CHECK_HAS(shell_output, "prepared in");
    EXPECT(0, "data.jsonl:2: ", "@FT data @D/c.yaml --show 2 2>&1");
    CHECK_HAS(shell_output, "\u27e6To be</s>\u27e7");
    EXPECT(0, "\"documents\": 2", "@FT data @D/c.yaml --json 2>&1 | sed 's/\":/\": /g'");
    EXPECT(0, "written to", "@FT data @D/c.yaml -o @D/o.safetensors 2>&1");
    /* training on either gives the same bits */
    EXPECT(0, "adapter in", "@FT train @D/c.yaml 2>&1");
    EXPECT(0, "adapter in",
           "@FT train @D/c.yaml 'datasets=[{path: @D/o.safetensors}]' output_dir=@D/out2 2>&1");
    CHECK_INT(shell("cmp @D/out/adapter_model.safetensors @D/out2/adapter_model.safetensors"), 0);
    /* tokens may be kept within the run's folder */
    EXPECT(0, "adapter in",
           "@FT train @D/c.yaml output_dir=@D/out3 dataset_prepared_path=@D/out3/tokens 2>&1");
    EXPECT(0, "\"unended_turns\"", "cat @D/out3/run.json");
    EXPECT(2, "is a .safetensors file", "@FT data @D/c.yaml -o x.bin 2>&1");
    EXPECT(2, "no text to tokenize",
           "@FT data @D/c.yaml 'datasets=[{path: @D/o.safetensors}]' 2>&1");
}

CASE(init_writes_a_config_that_trains)
{
    static const struct {
        const char *record, *what, *yaml;
    } cases[] = {
        {CHAT("a", "b"), "messages", "chat_template: alpaca"},
        {"{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", "
         "\"value\": "
         "\"b\"}]}",
         "ShareGPT", "role: from"},
        {"{\"instruction\": \"a\", \"output\": \"b\"}", "instruction and output", "type: alpaca"},
        {"{\"prompt\": \"a\", \"completion\": \"b\"}", "prompt and completion",
         "prompt_completion"},
        {"{\"question\": \"a\", \"answer\": \"b\"}", "question and answer", "field_output: answer"},
        {"{\"text\": \"a b c\", \"n\": 1}", "text", "type: completion"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fresh_text("x", cases[i].record);
        EXPECT(0, cases[i].what, "@FT init @D/shake @D/data.jsonl -o @D/i.yaml 2>&1");
        CHECK_HAS(shell_output, "\u27e6");
        EXPECT(0, cases[i].yaml, "cat @D/i.yaml");
        EXPECT(
            0, "adapter in",
            "@FT train @D/i.yaml output_dir=@D/out dataset_prepared_path=@D/prepared max_steps=1 "
            "micro_batch_size=1 2>&1");
    }
    EXPECT(2, "exists already", "@FT init @D/shake @D/data.jsonl -o @D/i.yaml 2>&1");
    fresh_text("x", "{\"foo\": 1, \"bar\": 2}");
    EXPECT(3, "the fields foo, bar", "@FT init @D/shake @D/data.jsonl -o @D/i.yaml 2>&1");
    CHECK_INT(shell("test ! -e @D/i.yaml"), 0);
}

CASE(init_takes_what_records_have)
{
    static const struct {
        const char *record, *yaml;
    } cases[] = {
        {"{\"messages\": [{\"role\": \"customer\", \"content\": \"hi\"}, {\"role\": \"model\", "
         "\"content\": \"yo\"}]}",
         "roles: {assistant: [model], user: [customer]}"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
         "\"content\": \"yo\", \"weight\": 1}]}",
         "message_field_training: weight"},
        {"{\"messages\": [{\"from\": \"human\", \"value\": \"hi\"}, {\"from\": \"gpt\", \"value\": "
         "\"yo\"}]}",
         "message_property_mappings: {role: from, content: value}"},
        {"{\"instruction\": \"a\", \"context\": \"b\", \"response\": \"c\"}",
         "field_input: context"},
        {"{\"system\": \"s\", \"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}",
         "type: alpaca_w_system"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fresh_text("x", cases[i].record);
        EXPECT(0, "1 documents", "@FT init @D/shake @D/data.jsonl -o @D/i.yaml 2>&1");
        EXPECT(0, cases[i].yaml, "cat @D/i.yaml");
    }
    fresh_text("x", "{\"messages\": [{\"role\": \"klaus\", \"content\": \"hi\"}]}");
    EXPECT(3, "i.yaml:4:11: error: nothing to train on",
           "@FT init @D/shake @D/data.jsonl -o @D/i.yaml 2>&1");
    CHECK_HAS(shell_output, "the data is not fit to train on");
}

CASE(data_keeps_what_must_not_be_lost)
{
    /* lines without a text are documents without a token */
    fresh_text("completion", "");
    shell("printf 'hello\\n\\nworld\\n' > @D/data.txt; sed -i s/data.jsonl/data.txt/ @D/c.yaml");
    EXPECT(0, "documents              3", "@FT data @D/c.yaml 2>&1");
    EXPECT(0, "documents              3", "@FT data @D/c.yaml 2>&1");
    EXPECT(0, "1 of 3 documents are empty", "@FT train @D/c.yaml 2>&1");

    /* a file that was good stays when the data is not */
    fresh_text("completion", "{\"text\": \"a\"}");
    EXPECT(0, "written to", "@FT data @D/c.yaml -o @D/t.safetensors 2>&1");
    EXPECT(3, "nothing to train on",
           "sha1sum @D/t.safetensors > @D/sum; echo '{\"text\": \"\"}' > @D/data.jsonl; "
           "@FT data @D/c.yaml -o @D/t.safetensors 2>&1");
    CHECK_INT(shell("sha1sum -c @D/sum"), 0);
    EXPECT(2, "lies in the model's folder",
           "@FT data @D/c.yaml -o @D/shake/model.safetensors 2>&1");
    EXPECT(2, "is a data file that is read",
           "mv @D/data.jsonl @D/in.safetensors; @FT data @D/c.yaml datasets.0.path=json "
           "datasets.0.data_files=@D/in.safetensors -o @D/in.safetensors 2>&1");
    CHECK_INT(shell("grep -q text @D/in.safetensors"), 0);
    fresh_text("completion", "{\"text\": \"a\"}");
    EXPECT(3, "nothing to train on", ": > @D/data.jsonl; @FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "the data has no record");
    EXPECT(4, "the output cannot be written",
           "echo '{\"text\": \"a\"}' > @D/data.jsonl; @FT data @D/c.yaml > /dev/full 2>@D/err; "
           "code=$?; cat @D/err; exit $code");
}

CASE(formats_of_ones_own_are_checked)
{
    fresh_text("x", "{\"q\": \"Q\", \"a\": \"A\"}");
    shell("sed -i 's/type: x/type: {field_instruction: q, field_output: a, format: "
          "\"{{x}} {instruction}\", no_input_format: \"{instruction}>\"}/' @D/c.yaml");
    EXPECT(0, "Q>\u27e6A", "@FT data @D/c.yaml --show 1 2>&1");
    EXPECT(2, "'no_input_format' has '{instuction}', which nothing is put in place of",
           "sed -i 's/{instruction}>/{instuction}>/' @D/c.yaml; @FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "did you mean '{instruction}'?");
}

CASE(tokenize_says_what_it_cannot_read)
{
    fresh_text("completion", "{\"text\": \"a\"}");
    EXPECT(3, "cannot be read: Is a directory", "@FT tokenize @D/shake @D 2>&1");
    EXPECT(3, "cannot be read: No such file", "@FT tokenize @D/shake @D/none 2>&1");
    EXPECT(2, "'--render' is for records",
           "@FT tokenize @D/shake @D/data.jsonl --raw --render 2>&1");
    EXPECT(0, "input_ids",
           "printf '\\357\\273\\277{\"text\": \"a\"}\\n' | @FT tokenize @D/shake 2>&1");
}

CASE(f18_tokenizers_with_unknown_parts)
{
    fresh_text("completion", "{\"text\": \"x\"}");
    EXPECT(3, "tokenizer.json: error: 'pre_tokenizer' is a 'Telepathy'",
           "sed -i 's/\"type\": \"ByteLevel\"/\"type\": \"Telepathy\"/' @D/shake/tokenizer.json; "
           "@FT train @D/c.yaml 2>&1");
    EXPECT(3, "has no tokenizer.json", "rm @D/shake/tokenizer.json; @FT train @D/c.yaml 2>&1");
    CHECK_INT(shell("test ! -e @D/out"), 0);
}

CASE(tokens_that_are_new_get_ids_and_rows)
{
    fresh_text("completion", "{\"text\": \"a<|one|>b<|two|>\"}");
    EXPECT(0, "gets 1 new token: '<|new|>' (2048)",
           "@FT data @D/c.yaml 'special_tokens={eos_token: <|new|>}' 2>&1");
    EXPECT(0, "gets 1 new token: '<|new|>' (2048)",
           "@FT data @D/c.yaml 'eot_tokens=[<|new|>]' 2>&1");
    EXPECT(0, "gets 2 new tokens: '<|one|>' (2048), '<|two|>' (2049)",
           "@FT data @D/c.yaml 'tokens=[<|one|>,<|two|>]' 2>&1");
    CHECK_HAS(shell_output, "longest document       5"); /* a, one, b, two, the end */
    EXPECT(2, "'<|one|>' (id 2048) adds a row to the embedding, which is not trained",
           "@FT train @D/c.yaml 'tokens=[<|one|>,<|two|>]' 2>&1");
    CHECK_HAS(shell_output, "'peft_trainable_token_indices: [2048, 2049]'");
    EXPECT(2, "adds a row to the embedding and the head, which is not trained",
           "@FT train @D/c.yaml 'tokens=[<|one|>]' 'lora_modules_to_save=[embed_tokens]' 2>&1");
    EXPECT(2, "'unfrozen_parameters' must name 'embed_tokens' and 'lm_head' too",
           "@FT train @D/c.yaml 'tokens=[<|one|>]' adapter=full "
           "'unfrozen_parameters=[model.layers.0]' 2>&1");
    EXPECT(0, "\"vocab_size\": 2049",
           "@FT train @D/c.yaml 'tokens=[<|one|>]' adapter=full output_dir=@D/full 2>&1 && "
           "grep vocab_size @D/full/config.json");
    EXPECT(0, "longest document       10",
           "@FT train @D/c.yaml base_model=@D/full adapter=full "
           "output_dir=@D/full2 2>&1; @FT data @D/c.yaml "
           "base_model=@D/full 2>&1");
    EXPECT(0, "resize_token_embeddings(2080)",
           "@FT train @D/c.yaml 'tokens=[<|one|>,<|two|>]' resize_token_embeddings_to_32x=true "
           "'lora_modules_to_save=[embed_tokens, lm_head]' 2>&1");
    EXPECT(0, "[2080,192]", "head -c 20000 @D/out/adapter_model.safetensors | tr -d '\\000'");
    EXPECT(0, "\"<|two|>\"", "grep -A1 '\"id\": 2049' @D/out/tokenizer.json");
    EXPECT(0, "longest document       5",
           "@FT data @D/c.yaml base_model=@D/out 2>&1"); /* its own */
    EXPECT(0, "documents", "@FT data @D/c.yaml 'special_tokens={eos_token: <s>}' 2>&1");
}

CASE(f21_f22_text_without_anything_to_train_on)
{
    fresh_text("completion", "{\"text\": \"\"}");
    EXPECT(3, "nothing to train on: of 1 documents 1 are empty", "@FT train @D/c.yaml 2>&1");
    EXPECT(3, "nothing to train on: of 0 documents",
           "printf '' > @D/data.jsonl; @FT train @D/c.yaml 2>&1");
    fresh_text("chat_template", CHAT("a", "") "\n" CHAT("q", "a"));
    EXPECT(0, "1 of 2 documents have nothing to train on",
           "@FT train @D/c.yaml chat_template=alpaca train_on_eos=none 2>&1");
}

CASE(f23_malformed_records)
{
    static const struct {
        const char *make, *message;
    } cases[] = {{"printf '{\"text\": \"a\"}\\n{\"text\": \\n'", "data.jsonl:2:"},
                 {"printf '{\"text\": \"a\"}\\n{\"text\": \"b\\0c\"}\\n'",
                  "data.jsonl:2:12: error: has a zero byte"},
                 {"printf '\\n{\"text\": \"\\377\"}\\n'", "data.jsonl:2:"},
                 {"printf '{\"text\": [1]}\\n'", "data.jsonl:1: error: 'text' is not a text"},
                 {"printf '7\\n'", "data.jsonl:1: error: is not a JSON object"},
                 {"head -c 70000000 /dev/zero | tr '\\0' a",
                  "data.jsonl:1: error: a record of more than 64 MiB"}};
    fresh_text("completion", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        EXPECT(3, cases[i].message, "%s > @D/data.jsonl; @FT train @D/c.yaml 2>&1", cases[i].make);
    CHECK_INT(shell("test ! -e @D/out && test -z \"$(ls @D/prepared)\""), 0);
    EXPECT(
        0, "1 records cannot be used and are skipped; the first: ",
        "printf '{\"text\": \"a\"}\\n{\\n{\"text\": \"b\"}\\n' > @D/data.jsonl; @FT data @D/c.yaml "
        "skip_bad_records=1 2>&1");
    EXPECT(0, "adapter in", "@FT train @D/c.yaml skip_bad_records=1 2>&1");
}

CASE(f24_text_longer_than_allowed)
{
    fresh_text("prompt_completion",
               "{\"prompt\": \"p\", \"completion\": \"a\"}\n{\"prompt\": \"p\", \"completion\": "
               "\"one two three four five six seven eight nine ten eleven twelve\"}");
    EXPECT(0, "1 documents are longer than 'sequence_len' (16) and dropped",
           "@FT data @D/c.yaml sequence_len=16 2>&1");
    EXPECT(0, "and cut", "@FT data @D/c.yaml sequence_len=16 excess_length_strategy=truncate 2>&1");
    EXPECT(3, "data.jsonl:2: error: has ",
           "@FT train @D/c.yaml sequence_len=16 excess_length_strategy=raise 2>&1");
    CHECK_INT(shell("test ! -e @D/out"), 0);
}

CASE(f25_conversations_that_the_template_refuses)
{
    fresh_text("chat_template", CHAT("a", "b") "\n" CHAT("a", "b"));
    shell("sed -i '2s/user/assistant/' @D/data.jsonl");
    EXPECT(3, "the template refuses: roles must alternate",
           "@FT train @D/c.yaml chat_template=gemma allow_data_problems=[unended_turns] 2>&1");
    CHECK_HAS(shell_output, "data.jsonl:2: error: the template does not take the record");
    EXPECT(0, "adapter in",
           "@FT train @D/c.yaml chat_template=gemma 'allow_data_problems=[unended_turns]' "
           "skip_bad_records=1 2>&1");
    EXPECT(3, "has no chat template", "@FT data @D/c.yaml 2>&1");
    EXPECT(2, "'chat_template' is 'chatmll'", "@FT data @D/c.yaml chat_template=chatmll 2>&1");
    CHECK_HAS(shell_output, "did you mean 'chatml'?");
    EXPECT(3, "1:30",
           "@FT data @D/c.yaml chat_template=jinja "
           "'chat_template_jinja=\"{%% for m in messages %%}{{ m. }}{%% endfor %%}\"' 2>&1");
}

CASE(datasets_are_found_in_the_local_hugging_face_cache)
{
    fresh_text("completion", "{\"text\": \"a\"}");
    shell(
        "mkdir -p @D/hub/datasets--org--set/snapshots/abc/en @D/hub/datasets--org--set/refs && "
        "printf abc > @D/hub/datasets--org--set/refs/main && "
        "cp @D/data.jsonl @D/hub/datasets--org--set/snapshots/abc/train.jsonl && "
        "cat @D/data.jsonl @D/data.jsonl > @D/hub/datasets--org--set/snapshots/abc/en/train.jsonl");
    EXPECT(0, "documents              1",
           "HF_HUB_CACHE=@D/hub @FT data @D/c.yaml datasets.0.path=org/set 2>&1");
    EXPECT(
        0, "documents              2",
        "HF_HUB_CACHE=@D/hub @FT data @D/c.yaml datasets.0.path=org/set datasets.0.name=en 2>&1");
    EXPECT(3, "hf download org/none --repo-type dataset",
           "HF_HUB_CACHE=@D/hub @FT data @D/c.yaml datasets.0.path=org/none 2>&1");
}
