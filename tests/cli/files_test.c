/* Files as people have them: suffixes, lists, pointers and pages in the place of files, other
 * tools' records, ft init. */
#include "tests/cli/cli.h"

#include "kernels/backend.h"

CASE(records_are_read_whatever_the_suffix)
{
    fresh_text("completion", "[{\"text\": \"hi there\"},\n {\"text\": \"you\"}]");
    EXPECT(0, "documents              2", "@FT data @D/c.yaml 2>&1");
    fresh_text("completion",
               "{\n  \"text\": \"hi there\",\n  \"n\": NaN\n}\n{\n  \"text\": \"you\"\n}");
    EXPECT(0, "documents              2", "@FT data @D/c.yaml 2>&1");
    fresh_text("completion", "{\"text\": \"a\", \"x\": [NaN, -Infinity]}\n{\"text\": \"NaN\"}");
    EXPECT(0, "documents              2",
           "mv @D/data.jsonl @D/data.JSONL; @FT data @D/c.yaml datasets.0.path=@D/data.JSONL 2>&1");
    EXPECT(0, "documents              2",
           "gzip -c @D/data.JSONL > @D/d.Jsonl.GZ; @FT data @D/c.yaml "
           "datasets.0.path=@D/d.Jsonl.GZ 2>&1");
}

#define POINTER                                                                                    \
    "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:4d7a\\nsize 12345\\n' > "
#define PAGE "printf '<!DOCTYPE html>\\n<html><body>Sign in</body></html>\\n' > "

CASE(pointers_and_pages_in_the_place_of_files)
{
    static const char *const names[] = {"data.jsonl",
                                        "shake/config.json",
                                        "shake/tokenizer.json",
                                        "shake/model.safetensors",
                                        "shake/tokenizer_config.json",
                                        "c.yaml"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fresh_text("completion", "{\"text\": \"a\"}");
        EXPECT(i == 5 ? 2 : 3, "is a Git LFS pointer", POINTER "@D/%s; @FT train @D/c.yaml 2>&1",
               names[i]);
        CHECK_HAS(shell_output, "git lfs pull");
        CHECK_HAS(shell_output, names[i]);
        fresh_text("completion", "{\"text\": \"a\"}");
        EXPECT(i == 5 ? 2 : 3, "is an HTML page", PAGE "@D/%s; @FT train @D/c.yaml 2>&1", names[i]);
    }
    fresh_text("completion", "{\"text\": \"a\"}");
    EXPECT(3, "is a Git LFS pointer",
           POINTER "@D/d.txt; @FT data @D/c.yaml datasets.0.path=@D/d.txt 2>&1");
    EXPECT(0, "documents              2",
           PAGE "@D/d.txt; @FT data @D/c.yaml datasets.0.path=@D/d.txt 2>&1");
    fresh_folder();
    EXPECT(3, "it is an adapter, not a model",
           "rm @D/model/config.json; @FT train @D/ok.yaml 2>&1");
    CHECK_HAS(shell_output, "'lora_model_dir' continues an adapter");
}

CASE(prompts_and_completions_as_messages)
{
    static const char record[] =
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}], \"completion\": "
        "[{\"role\": "
        "\"assistant\", \"content\": \"d\"}]}";
    fresh_text("prompt_completion", record);
    write_template("{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}");
    EXPECT(0, "[assistant]b</s>[user]c</s>[assistant]\u27e6d</s>\u27e7",
           "@FT data @D/c.yaml --show 1 2>&1");
    write_template("{% for m in messages %}[{{ m.role }}]{% generation %}{{ m.content }}</s>{% "
                   "endgeneration %}{% endfor %}");
    EXPECT(0, "[assistant]b</s>[user]c</s>[assistant]\u27e6d</s>\u27e7",
           "@FT data @D/c.yaml --show 1 2>&1");
}

CASE(calls_and_observations_of_sharegpt)
{
    fresh_text(
        "chat_template",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": "
        "\"function_call\", \"value\": \"{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": "
        "{\\\"x\\\": 1}}\"}, {\"from\": \"observation\", \"value\": \"o\"}, {\"from\": \"gpt\", "
        "\"value\": \"b\"}], \"tools\": \"[{\\\"name\\\": \\\"f\\\"}]\"}");
    shell("sed -i 's/    type: .*/&\\n    field_messages: conversations\\n    "
          "message_property_mappings: {role: from, content: value}/' @D/c.yaml");
    write_template(
        "{{ tools | tojson }}{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{{ "
        "m.tool_calls | tojson if m.tool_calls }}</s>{% endfor %}");
    EXPECT(0, "[assistant]\u27e6[{\"type\": \"function\", \"function\": {\"name\": \"f\"",
           "@FT data @D/c.yaml --show 1 sequence_len=256 2>&1");
    CHECK_HAS(shell_output, "[tool]o</s>");
    CHECK_HAS(shell_output, "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]");
    EXPECT(0, "[assistant]\u27e6not json</s>\u27e7",
           "sed 's/{.\"name.\": .\"f.\".*1}}/not json/' @D/data.jsonl > @D/n.jsonl; @FT data "
           "@D/c.yaml datasets.0.path=@D/n.jsonl sequence_len=256 --show 1 2>&1");
}

CASE(parquet_is_read_as_what_it_says)
{
#define DATA                                                                                       \
    "@FT data @D/c.yaml chat_template=chatml 'allow_data_problems=[unended_turns]' "               \
    "datasets.0.path="
    fresh_text("chat_template", CHAT("a", "b"));
    /* as `hf download` leaves it */
    CHECK_INT(shell("mkdir -p @D/set/data && cp " FT_ROOT "/tests/io/parquet/chat.parquet "
                    "@D/set/data/train-00000-of-00001.parquet && echo '# card' > @D/set/README.md"),
              0);
    EXPECT(0, "", DATA FT_ROOT "/tests/io/parquet/chat.jsonl -o @D/a.safetensors 2>&1");
    EXPECT(0, "", DATA FT_ROOT "/tests/io/parquet/chat.parquet -o @D/b.safetensors 2>&1");
    EXPECT(0, "", DATA "@D/set -o @D/c.safetensors 2>&1");
    EXPECT(0, "3 ",
           "for x in a b c; do grep -ao '\"crc32\":\"[0-9a-f]*\"' @D/$x.safetensors; "
           "done | sort | uniq -c"); /* the tokens */
    EXPECT(0, "chat_template", "@FT init @D/shake @D/set -o @D/new.yaml 2>&1 && cat @D/new.yaml");
}

CASE(folders_of_data)
{
    fresh_folder();
    EXPECT(3, "has no adapter_config.json: it is no adapter's folder, but a model's",
           "rm @D/model/adapter_config.json; @FT plan @D/ok.yaml lora_model_dir=@D/model 2>&1");
    fresh_text("completion", "{\"text\": \"a b\"}");
    shell("cd @D && mkdir -p f/sub g prepared && mv data.jsonl f/x.jsonl && cp f/x.jsonl f/sub && "
          "touch g/data.arrow prepared/killed.lock");
    EXPECT(0, "has folders that are not read", "@FT data @D/c.yaml datasets.0.path=@D/f 2>&1");
    CHECK_INT(shell("test ! -e @D/prepared/killed.lock"), 0);
    EXPECT(3, "is a dataset in Arrow files", "@FT data @D/c.yaml datasets.0.path=@D/g 2>&1");
}

CASE(names_that_do_not_say_what_a_file_is)
{
    fresh_text("completion", "{\"text\": \"a b\"}\n{\"text\": \"c\"}");
    shell(
        "cd @D && cp data.jsonl x.data && cp data.jsonl plain && cp data.jsonl x.jsonlines && gzip "
        "-k data.jsonl && cp data.jsonl.gz packed && echo hello > words");
    static const char *const names[] = {"x.data", "plain", "x.jsonlines", "packed"};
    for (int i = 0; i < 4; i++)
        EXPECT(0, "documents              2", "@FT data @D/c.yaml datasets.0.path=@D/%s 2>&1",
               names[i]);
    EXPECT(3, "words: error: is no kind of file that ft reads",
           "@FT data @D/c.yaml datasets.0.path=@D/words 2>&1");
}

CASE(instructions_through_the_template)
{
    fresh_text("instruction",
               "{\"instruction\": \"Name\", \"input\": \"a river\", \"output\": \"Elbe\", \"h\": "
               "[[\"q\", \"a\"]], \"s\": \"be brief\"}");
    write_template("{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}");
    EXPECT(0, "[user]Name\na river</s>[assistant]\u27e6Elbe</s>\u27e7",
           "@FT data @D/c.yaml --show 1 datasets.0.field_history=h datasets.0.field_system=s 2>&1");
    CHECK_HAS(shell_output, "[system]be brief</s>[user]q</s>[assistant]\u27e6a</s>\u27e7");
}

CASE(formats_in_another_style)
{
    fresh_text("alpaca:chat", "{\"instruction\": \"a\", \"output\": \"b\"}");
    EXPECT(0, "USER: a\nASSISTANT:\u27e6b", "@FT data @D/c.yaml --show 1 2>&1");
    fresh_text("alpaca:phi", "{\"instruction\": \"a\", \"output\": \"b\"}");
    EXPECT(0, "<|user|>\na<|end|>\n<|assistant|>\n\u27e6b",
           "@FT data @D/c.yaml --show 1 sequence_len=256 2>&1");
    fresh_text("alpaca:klaus", "{\"instruction\": \"a\", \"output\": \"b\"}");
    EXPECT(2, "'alpaca:klaus' is not a dataset 'type'", "@FT data @D/c.yaml 2>&1");
}

CASE(all_bad_records_are_counted)
{
    fresh_text("completion", "{\"text\": \"a\"}\nx\n{}\n{}\n{}\n{}\n{}\n{\"text\": \"b\"}");
    EXPECT(3, "6 of 8 records cannot be used; the first five are above", "@FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "data.jsonl:2:1: error:");
    CHECK_HAS(shell_output, "data.jsonl:6: error:");
    CHECK(!strstr(shell_output, "data.jsonl:7"));
    CHECK_HAS(shell_output, "'skip_bad_records: 6' leaves them out");
    EXPECT(0, "documents              2", "@FT data @D/c.yaml skip_bad_records=6 2>&1");
    EXPECT(3, "'skip_bad_records' allows 5", "@FT data @D/c.yaml skip_bad_records=5 2>&1");
}

/* Where the CPU it is for has units for them. */
CASE(init_proposes_bf16_products)
{
    const struct ft_backend *b;
    fresh_text("x", "{\"text\": \"a b c\"}");
    CHECK_INT(ft_cpu_backend(&b, "auto", true), 0);
    EXPECT(0, "data.jsonl", "cd @D && @FT init shake data.jsonl device=cpu 2>&1");
    CHECK_INT(shell("grep -q '^bf16: auto ' @D/data.yaml"), b->products != FT_BF16);
    EXPECT(0, "data.jsonl", "cd @D && @FT init shake data.jsonl --force cpu_isa=generic 2>&1");
    CHECK_INT(shell("grep -q bf16 @D/data.yaml"), 1);
    EXPECT(0, "", "cd @D && @FT init shake data.jsonl --force device=cpu bf16=false 2>&1");
    EXPECT(0, "1\n", "grep -c '^bf16: false' @D/data.yaml");
}

CASE(init_takes_what_people_have)
{
    fresh_text("x", "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"completion\": "
                    "[{\"role\": \"assistant\", \"content\": \"b\"}]}");
    EXPECT(0, "as messages", "cd @D && @FT init shake data.jsonl 2>&1");
    EXPECT(0, "type: prompt_completion", "cat @D/data.yaml");
    EXPECT(0, "", "cd @D && test ! -e last_run_prepared && ls");
    EXPECT(2, "'--force' replaces it", "cd @D && @FT init shake data.jsonl 2>&1");
    EXPECT(2, "the config is a file", "cd @D && @FT init shake data.jsonl -o - 2>&1");
    EXPECT(0, "data.jsonl", "cd @D && @FT init shake data.jsonl --force lora_r=4 seed=9 2>&1");
    EXPECT(0, "seed: 9", "cat @D/data.yaml");
    EXPECT(0, "lora_r: 4 ", "cat @D/data.yaml");
    EXPECT(2, "not KEY=VALUE", "cd @D && @FT init shake data.jsonl --force datasets.0.type=x 2>&1");
    fresh_text("x", "{\"instruction\": \"a\", \"output\": \"b\", \"id\": 7, \"source\": \"s\"}");
    EXPECT(
        0, "not used: the fields id, source",
        "cd @D && mkdir folder && mv data.jsonl folder/train.jsonl && @FT init shake folder 2>&1");
    EXPECT(0, "path: \"folder\"", "cat @D/folder.yaml");
    /* what a killed one left, and not another's that still runs */
    CHECK_INT(shell("mkdir -p @D/tmp/ft-scratch-old @D/tmp/ft-scratch-now && touch -d '1 hour ago' "
                    "@D/tmp/ft-scratch-old @D/tmp/ft-scratch-now && cd @D && flock "
                    "tmp/ft-scratch-now env TMPDIR=@D/tmp @FT init shake folder --force && ls tmp"),
              0);
    CHECK_HAS(shell_output, "ft-scratch-now");
    CHECK(!strstr(shell_output, "ft-scratch-old"));
    fresh_text("x", "{\"text\": \"a\"}");
    EXPECT(0, "", "cd @D && @FT init shake data.jsonl sequence_len=2 >/dev/null 2>&1; ls");
    fresh_text("x",
               "{\"input\": \"a b c d e f g\", \"output\": \"b\"}\n{\"input\": \"a\", \"output\": "
               "\"b\"}");
    EXPECT(0, "1 of 2 documents are longer than sequence_len",
           "cd @D && @FT init shake data.jsonl sequence_len=8 2>&1");
    fresh_text("x", "{\"foo\": 1}");
    EXPECT(3, "does not recognise", "cd @D && @FT init shake data.jsonl 2>&1");
    CHECK_INT(shell("cd @D && test ! -e data.yaml && test ! -e last_run_prepared"), 0);
}
