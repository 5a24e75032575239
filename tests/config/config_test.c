/* The config: types, ranges, places, overrides, notices, refusals. */
#include "config/config.h"
#include "config/options.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define NEEDED "base_model: m\noutput_dir: o\ndatasets:\n  - path: d.safetensors\n"

static char path[64];

/* Reads a config with this text; the report and notices stay. */
static int read_text(struct ft_config *c, const char *text, size_t n)
{
    strcpy(path, "/tmp/ft-config-XXXXXX");
    int fd = mkstemp(path);
    FT_ASSERT(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    close(fd);
    ft_status_clear();
    int rc = ft_config_read(c, path, NULL, 0);
    unlink(path);
    return rc;
}

static void expect_error(const char *text, const char *place, const char *part)
{
    struct ft_config c;
    char where[96];
    CHECK_INT(read_text(&c, text, strlen(text)), FT_ECONFIG);
    snprintf(where, sizeof where, "%s%s", path, place);
    CHECK_HAS(ft_status_report(), where);
    CHECK_HAS(ft_status_report(), part);
    ft_config_fini(&c);
}

CASE(values_of_every_type)
{
    struct ft_config c;
    static const char text[] =
        NEEDED "learning_rate: 2e-5\nlora_r: 8\nlora_dropout: 0.1\nsample_packing: yes\n"
               "lora_target_modules: [q_proj, v_proj]\npeft_layers_to_transform: 3\n"
               "lora_rank_pattern: {q_proj: 4}\noptimizer: adamw_torch\nlr_scheduler: linear\n"
               "gradient_checkpointing: auto\nwarmup_ratio:\nmax_steps: null\nval_set_size: 0.05\n"
               "bf16: auto\nseed: ~\n";
    CHECK_INT(read_text(&c, text, sizeof text - 1), FT_OK);
    CHECK_NEAR(c.learning_rate, 2e-5, 0);
    CHECK_INT(c.lora_r, 8);
    CHECK_INT(c.lora_alpha, 16); /* follows the rank */
    CHECK_NEAR(c.lora_dropout, 0.1, 0);
    CHECK(c.sample_packing);
    CHECK_TEXT(c.lora_target_modules[1], "v_proj");
    CHECK(c.lora_target_modules[2] == NULL && !c.lora_target_linear);
    CHECK(c.peft_layers_to_transform[0] == 3 && c.peft_layers_to_transform[1] == -1);
    CHECK_TEXT(c.lora_rank_pattern[0].key, "q_proj");
    CHECK_INT(c.lora_rank_pattern[0].value, 4);
    CHECK_INT(c.lr_scheduler, FT_LINEAR);
    CHECK_INT(c.gradient_checkpointing, FT_AUTO);
    CHECK(isnan(c.warmup_ratio) && c.max_steps == -1);
    CHECK_INT(c.seed, 42);
    CHECK(ft_config_is_set(&c, "lora_r") && !ft_config_is_set(&c, "seed"));
    CHECK_INT(ft_config_where(&c, "lora_r").line, 6);
    ft_config_fini(&c);
}

CASE(errors_name_the_place_the_value_and_the_range)
{
    expect_error(NEEDED "lora_r: 0\n", ":5:9", "'lora_r' is '0', allowed 1..1024");
    expect_error(NEEDED "lora_r: 0\n", "", "ft config --explain lora_r");
    expect_error(NEEDED "lora_r: sixteen\n", ":5:9", "'sixteen'");
    expect_error(NEEDED "lora_r: 1.5\n", ":5:9", "'1.5'");
    expect_error(NEEDED "lora_r: [1]\n", ":5:9", "a list");
    expect_error(NEEDED "learning_rate: .nan\n", ":5:16", "'.nan'");
    expect_error(NEEDED "learning_rate: nan\n", ":5:16", "'nan'");
    expect_error(NEEDED "learning_rate: inf\n", ":5:16", "'inf'");
    expect_error(NEEDED "learning_rate: -1\n", ":5:16", "from 0");
    expect_error(NEEDED "lora_dropout: 1\n", ":5:15", "up to 0.999");
    expect_error(NEEDED "sample_packing: maybe\n", ":5:17", "true or false");
    expect_error(NEEDED "optimizer: adam\n", ":5:12", "adamw");
    expect_error(NEEDED "lora_rnak: 8\n", ":5:1", "did you mean 'lora_r");
    expect_error(NEEDED "learning_rte: 1\n", ":5:1", "did you mean 'learning_rate'");
    expect_error("base_model: m\noutput_dir: o\ndatasets:\n  - pth: x\n", ":4:5", "'pth'");
    expect_error("base_model: m\noutput_dir: o\ndatasets: x\n", ":3:11", "a list of entries");
    expect_error("output_dir: o\n", "", "'base_model' is missing");
}

CASE(all_problems_in_one_pass)
{
    struct ft_config c;
    static const char text[] = NEEDED "lora_r: 0\nlearning_rate: x\nlora_rnak: 1\n";
    CHECK_INT(read_text(&c, text, sizeof text - 1), FT_ECONFIG);
    CHECK_INT(ft_status_errors(), 3);
    ft_config_fini(&c);
}

CASE(yaml_that_is_refused)
{
    struct ft_config c;
    expect_error(NEEDED "lora_r: 8\nlora_r: 9\n", ":6:1", "first in line 5");
    expect_error(NEEDED "a: &x 1\n", ":5", "anchors");
    expect_error(NEEDED "lora_target_modules: [*x]\n", ":5", "anchors");
    expect_error("\xef\xbb\xbf" NEEDED, ":1:1", "byte order mark");
    expect_error(NEEDED "\tlora_r: 8\n", ":5:1", "tab");
    expect_error(NEEDED "seed: \xff\n", ":5:7", "not UTF-8");
    expect_error(NEEDED "---\n" NEEDED, ":5:1", "second document");
    expect_error(NEEDED "x: [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n", ":5", "nested");
    expect_error(NEEDED "lora_r: [1\n", "", "not valid YAML");
    expect_error("- a\n", ":1:1", "'key: value'");
    CHECK_INT(read_text(&c, "", 0), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "is empty");
    ft_config_fini(&c);
    ft_status_clear();
    CHECK_INT(ft_config_read(&c, "/nonexistent/x.yaml", NULL, 0), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "/nonexistent/x.yaml: error: cannot open: No such file");
    ft_config_fini(&c);
    ft_status_clear();
    CHECK_INT(ft_config_read(&c, "/tmp", NULL, 0), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "a folder");
    ft_config_fini(&c);
}

CASE(options_that_contradict_each_other)
{
    expect_error(NEEDED "warmup_steps: 1\nwarmup_ratio: 0.1\n", ":6:15", "exclude");
    expect_error(NEEDED "lora_target_modules: q.*\npeft_layers_to_transform: [1]\n", ":6:27",
                 "list");
    expect_error(NEEDED "eval_steps: 1\nevals_per_epoch: 2\n", ":6:18", "exclude");
    expect_error(NEEDED "val_set_size: 1.5\n", ":5:15", "share below 1");
    expect_error(NEEDED "device: cuda\nbf16: false\n", ":6:7", "exclude each other");
    expect_error(NEEDED "cpu_isa: amx\n", ":5:10", "has bf16 products alone");
    expect_error(NEEDED "bf16: false\ncpu_isa: amx\n", ":6:10", "has bf16 products alone");
    expect_error(NEEDED "adapter: lora\nload_in_4bit: true\n", ":6:15", "contradict each other");
    expect_error(NEEDED "adapter: qlora\nload_in_8bit: true\n", ":6:15", "goes with 4 bits");
    expect_error(NEEDED "load_in_4bit: true\nload_in_8bit: true\n", ":6:15", "exclude");
    expect_error(NEEDED "adapter: full\nload_in_8bit: true\n", ":6:15", "trained themselves");
    expect_error(NEEDED "adapter: lora\nbnb_config_kwargs: {a: b}\n", ":6:20", "neither");
    expect_error(NEEDED "adapter: qlora\nload_in_4bit: true\n"
                        "bnb_config_kwargs: {bnb_4bit_quant_type: nf5}\n",
                 ":7:42", "nf4 or fp4");
    expect_error(NEEDED "adapter: qlora\nload_in_4bit: true\nbnb_config_kwargs: {bnb_4bit: 1}\n",
                 ":7:21", "no key that ft knows");
    expect_error(NEEDED "embedding_lr: 1e-4\n", ":5:1", "not supported yet");
    expect_error(NEEDED "peft_trainable_token_indices: [1, x]\n", ":5:35", "whole numbers from 0");
    expect_error(NEEDED "peft_trainable_token_indices: {lm_head: a}\n", ":5:41",
                 "whole numbers from 0");
    expect_error(NEEDED "bias: lora\n", ":5:7", "lora_only");
    expect_error(NEEDED "rl: dpo\n", ":5:1", "not supported");
    expect_error(NEEDED "plugins: [mine.Plugin]\n", ":5:11", "mine.Plugin");
#define TEXT "base_model: m\noutput_dir: o\ndatasets:\n  - path: x.jsonl\n    "
    expect_error(TEXT "type: alpaca\n    feild: z\n", ":6:5", "has no key 'feild'");
    expect_error(TEXT "type: alpaca\n    shards: 2\n", ":6:13", "not supported");
    expect_error(TEXT "type: chat_template\n    train_on_eos: never\n", ":6:19", "last or none");
    expect_error(TEXT "type: {fild_output: x}\n", ":5:12", "has no key 'fild_output'");
    expect_error("base_model: m\noutput_dir: o\ndatasets:\n  - {path: x.safetensors, type: "
                 "alpaca}\n",
                 ":4", "is tokenized");
}

CASE(entries_of_text_datasets)
{
    struct ft_config c;
    static const char text[] =
        "base_model: m\noutput_dir: o\nroles_to_train: [assistant, tool]\ntrain_on_eos: last\n"
        "special_tokens: {eos_token: <end>}\neot_tokens: <end>\ndatasets:\n"
        "  - path: a.jsonl\n    type: chat_template\n    field_messages: conversations\n"
        "    message_property_mappings: {role: from, content: value}\n"
        "    roles: {user: [human, customer], assistant: gpt}\n    train_on_eos: all\n"
        "    train_on_inputs: yes\n    data_files: [x.jsonl, y.jsonl]\n    drop_system_message: "
        "on\n"
        "  - path: b.csv\n    type: {field_instruction: ask, format: '{instruction}!'}\n";
    CHECK_INT(read_text(&c, text, sizeof text - 1), FT_OK);
    CHECK_INT(c.n_datasets, 2);
    const struct ft_dataset_config *d = c.datasets;
    CHECK_TEXT(d[0].message_property_mappings[2], "content");
    CHECK_TEXT(d[0].message_property_mappings[3], "value");
    CHECK_TEXT(d[0].roles[2], "customer");
    CHECK_TEXT(d[0].roles[3], "user");
    CHECK_TEXT(d[0].roles[5], "assistant");
    CHECK(d[0].roles[6] == NULL);
    CHECK_TEXT(d[0].data_files[1], "y.jsonl");
    CHECK_INT(d[0].train_on_eos, 1);
    CHECK_INT(d[0].train_on_inputs, 1);
    CHECK(d[0].drop_system_message);
    CHECK_INT(d[1].train_on_eos, 4);
    CHECK_INT(d[1].train_on_inputs, -1);
    CHECK_TEXT(d[1].type, "user_defined");
    CHECK_TEXT(d[1].format, "{instruction}!");
    CHECK_INT(c.train_on_eos, 2);
    CHECK_TEXT(c.roles_to_train[1], "tool");
    CHECK_TEXT(c.special_tokens[1], "<end>");
    CHECK_TEXT(c.eot_tokens[0], "<end>");
    CHECK_TEXT(c.dataset_prepared_path, "last_run_prepared");
    ft_config_fini(&c);
}

CASE(switches_of_others_are_noticed)
{
    struct ft_config c;
    static const char text[] =
        NEEDED "adapter: lora\ntf32: true\nflash_attention: true\nwandb_watch: x\nload_in_8bit: "
               "false\nfsdp:\n"
               "plugins: [axolotl.integrations.liger.LigerPlugin]\noptimizer: adamw_torch_4bit\n"
               "dpo_beta:\nhf_mlflow_log_artifacts: true\nbf16: true\n";
    CHECK_INT(read_text(&c, text, sizeof text - 1), FT_OK);
    CHECK_HAS(ft_status_notices(), "these keys change nothing here: tf32, flash_attention, "
                                   "wandb_watch, fsdp, plugins, "
                                   "dpo_beta; not there yet, and the adapter is the same: "
                                   "hf_mlflow_log_artifacts");
    CHECK_HAS(ft_status_notices(), "kept in 8 bits");
    ft_config_fini(&c);
}

CASE(overrides_win_and_nest)
{
    struct ft_config c;
    const char *list[] = {"base_model=m",
                          "output_dir=o",
                          "datasets.0.path=a.safetensors",
                          "datasets.1.path=b.safetensors",
                          "lora_r=32",
                          "lora_target_modules=[q_proj]",
                          "learning_rate=1e-4"};
    ft_status_clear();
    CHECK_INT(ft_config_read(&c, NULL, list, 7), FT_OK);
    CHECK_INT(c.n_datasets, 2);
    CHECK_TEXT(c.datasets[1].path, "b.safetensors");
    CHECK_INT(c.lora_r, 32);
    CHECK_TEXT(c.lora_target_modules[0], "q_proj");
    CHECK_TEXT(ft_config_where(&c, "lora_r").file, "command line");
    ft_config_fini(&c);
    const char *bad[] = {"base_model=m", "datasets.3.path=x", "lora_r", "=1", "lora_r=0"};
    CHECK_INT(ft_config_read(&c, NULL, bad, 5), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "'lora_r' is not an override");
    CHECK_HAS(ft_status_report(), "command line: error: 'lora_r' is '0'");
    ft_config_fini(&c);
}

CASE(every_row_is_sound)
{
    for (int i = 0; i < ft_option_count; i++) {
        const struct ft_option *o = &ft_options[i];
        CHECK(o->help && o->help[0] && o->group[0]);
        CHECK_INT(ft_option_find(o->key), i); /* no key twice */
        FILE *f = fopen("/dev/null", "w");
        CHECK_INT(ft_config_explain(f, o->key), FT_OK);
        fclose(f);
    }
    CHECK_INT(ft_config_explain(stdout, "lora_rank"), FT_ECONFIG);
    CHECK_HAS(ft_status_report(), "did you mean");
}

static char *printed(int (*print)(FILE *f, const struct ft_config *c), const struct ft_config *c)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    CHECK_INT(print(f, c), FT_OK);
    fclose(f);
    return text;
}

static int print_schema(FILE *f, const struct ft_config *c)
{
    (void)c;
    return ft_config_schema(f);
}

CASE(schema_and_dump)
{
    struct ft_config c;
    CHECK_INT(read_text(&c, NEEDED "lora_r: 8\n", strlen(NEEDED) + 10), FT_OK);
    char *text = printed(print_schema, &c);
    json_t *schema = json_loads(text, 0, NULL), *properties = json_object_get(schema, "properties");
    CHECK(json_object_size(properties) > 500);
    const json_t *rank = json_object_get(properties, "lora_r");
    CHECK_TEXT(json_string_value(json_array_get(json_object_get(rank, "type"), 0)), "integer");
    CHECK_NEAR(json_number_value(json_object_get(rank, "maximum")), 1024, 0);
    const json_t *entry = json_object_get(json_object_get(properties, "datasets"), "items");
    CHECK_TEXT(json_string_value(json_array_get(json_object_get(entry, "required"), 0)), "path");
    json_decref(schema);
    free(text);
    text = printed(ft_config_dump, &c);
    CHECK_HAS(text, "lora_r: 8");
    CHECK_HAS(text, ":5\n");
    CHECK_HAS(text, "seed: 42");
    CHECK_HAS(text, "# default");
    free(text);
    ft_config_fini(&c);
}

CASE(random_bytes_never_crash)
{
    static const char seed[] = NEEDED "lora_r: 8\nlora_rank_pattern: {a: 1}\nx: [1, {y: 2}]\n";
    unsigned state = 1;
    for (int round = 0; round < 3000; round++) {
        char text[sizeof seed];
        struct ft_config c;
        memcpy(text, seed, sizeof seed);
        for (int k = 0; k < 3; k++) {
            state = state * 1664525u + 1013904223u;
            static const char odd[] = "\n :-[]{},&*#|>'\"%@`!?\xff\t x1";
            text[(state >> 8) % (sizeof seed - 1)] = odd[(state >> 27) % (sizeof odd - 1)];
        }
        int rc = read_text(&c, text, sizeof seed - 1);
        CHECK(rc == FT_OK || (rc == FT_ECONFIG && ft_status_errors() > 0));
        ft_config_fini(&c);
    }
}
