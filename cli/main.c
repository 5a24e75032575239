/* ft: the command table, help and exit codes. */
#include "cli/responder.h"

#include "core/clock.h"
#include "core/file.h"
#include "core/mem.h"
#include "core/text.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

double ft_started;

#define OVERRIDES                                                                                  \
    "Single options can be set behind the file:\n"                                                 \
    "  ft train config.yaml lora_r=32 datasets.0.path=x.safetensors\n"

const struct ft_command ft_commands[] = {
    {"train", "CONFIG.yaml [KEY=VALUE ...]", "fine-tune a model with an adapter",
     "Reads the base model and the datasets that the config names, trains an adapter, and writes\n"
     "into output_dir: adapter_model.safetensors and adapter_config.json (PEFT's format),\n"
     "metrics.jsonl (one line a step), run.json (what was trained, from what, how) and "
     "checkpoints.\n"
     "Interrupted (Ctrl-C, SIGTERM, SIGUSR1, SIGHUP, the end of a Slurm job's time), it finishes\n"
     "its step, saves and exits with 75; the same command goes on from there, to the same bits.\n\n"
     "  --quiet      no progress\n"
     "  --profile    time every kind of op and print a table at the end\n"
     "  --json       print the result as one JSON object on the last line\n"
     "  --sweep      a run for every combination of the options that have a list of values\n"
     "               (learning_rate: [1e-4, 2e-4]), in a folder each of output_dir, and a table\n"
     "  --array      with --sweep: print a Slurm array of those runs instead\n\n" OVERRIDES
     "\nA first config:\n\n"
     "  base_model: path/to/a/hugging/face/folder\n"
     "  adapter: lora\n"
     "  datasets:\n"
     "    - path: chats.jsonl\n"
     "      type: chat_template\n"
     "  output_dir: out/first\n\n"
     "'ft init DATA' writes one that fits a file; 'ft config --explain' lists every option;\n"
     "'ft plan' says what a run will need.\n",
     ft_cmd_train},
    {"plan", "CONFIG.yaml [KEY=VALUE ...]", "what a run will need: memory, steps, time",
     "Opens and checks everything that a run would, without reading a weight: parameters, "
     "documents,\n"
     "steps, every block of memory by the code that will place it, the time by this machine's\n"
     "measured rates, and the #SBATCH lines for a Slurm job.\n\n"
     "  --json       as one JSON object\n\n" OVERRIDES,
     ft_cmd_plan},
    {"bench", "SHAPE | CONFIG.yaml [KEY=VALUE ...]", "what this machine reaches: tokens a second",
     "Runs optimizer steps of a job, without logs or files, and prints tokens a second, the share\n"
     "of the rate that one large product reaches on this device in the same run, and memory.\n"
     "SHAPE is a well-known model's, whose weights are made on the spot: nothing is downloaded.\n\n"
     "  --list       the shapes\n"
     "  --rows N     tokens a micro-batch of a shape (default: as the list shows; 1024 on a CPU)\n"
     "  --steps N    measured steps, at least (default 5, and at least three seconds)\n"
     "  --profile    then time every kind of op in two more steps\n"
     "  --tune       on a GPU: time the ways to compute each product first, and keep the choices\n"
     "               in a file that later runs on this machine use (FT_CUDA_PRODUCTS, or\n"
     "               ft/products.txt in the cache folder); they may change the last bits\n"
     "  --json       as one JSON object\n\n"
     "A shape's job is LoRA of rank 16 on all linear modules, on documents of 2048 tokens (256 on\n"
     "a CPU); options change it: ft bench llama-3-8b lora_r=64 sequence_len=4096\n",
     ft_cmd_bench},
    {"compare", "BASELINE RUN", "whether a run has the numbers of another one",
     "BASELINE and RUN are run folders, or their metrics.jsonl. Every step that the baseline's "
     "log\n"
     "has is compared: loss, evaluation loss, gradient norm, trained tokens. Where version, "
     "device,\n"
     "instruction set, threads and card are the same (run.json says so), every bit counts; else "
     "the\n"
     "tolerance. Exits with 0 if nothing differs, with 6 if something does.\n\n"
     "  --tolerance X  relative, of losses, where bits may differ (default 0.01); of gradient "
     "norms\n"
     "                 ten times that\n"
     "  --speed X      the run must have X times the baseline's tokens a second at least\n"
     "  --memory X     and at most X times its peak memory\n"
     "  --junit FILE   the result as JUnit's XML, for CI\n"
     "  --quiet        no table and no chart\n\n"
     "'baseline: FOLDER' in a config does this at the end of ft train.\n",
     ft_cmd_compare},
    {"init", "MODEL DATA [KEY=VALUE ...] | --from FILE.yaml",
     "a first config from a model and a data file",
     "Recognises what the records of DATA are (messages, conversations, instruction and output,\n"
     "prompt and completion, question and answer, text, segments), measures how long they are,\n"
     "chooses a batch that fits this machine, writes a commented config, and shows two documents\n"
     "with what is trained on. DATA is a file, a folder of files, or a dataset in the local "
     "Hugging\n"
     "Face cache. KEY=VALUE sets options of the config: ft init MODEL DATA lora_r=32\n\n"
     "  -o FILE.yaml   where to write it (default: DATA's name with .yaml, in this folder)\n"
     "  --force        replace it if it is there\n"
     "  --from FILE    turn a config of LLaMA-Factory's (and its dataset_info.json), TRL's or\n"
     "                 mlx-lm's into ft's; what has no counterpart is a comment in it\n"
     "                 (default name: FILE's with -ft.yaml)\n",
     ft_cmd_init},
    {"data", "CONFIG.yaml [KEY=VALUE ...]", "text to tokens, with an audit of what is trained on",
     "Tokenizes the text datasets of the config as 'ft train' would, and says of each how many\n"
     "tokens are trained on, of whose turns, and what is wrong with the labels: documents with\n"
     "nothing to train on, turns whose end is not trained, doubled beginnings, and more. What\n"
     "would spoil training is an error (exit 3) with the record's file and line.\n\n"
     "  -o FILE.safetensors   write the tokenized dataset (of 'datasets') there\n"
     "  --show N              print the first N documents of each dataset, trained text in colour\n"
     "                        (between \u27e6 and \u27e7 where the output is not a terminal)\n"
     "  --json                the audit as JSON\n\n" OVERRIDES,
     ft_cmd_data},
    {"tokenize", "MODEL [FILE.jsonl]", "text to token ids, and back",
     "MODEL is a model folder, an id in the local Hugging Face cache, or a tokenizer.json. For "
     "each\n"
     "record {\"text\": ...} of the file (or standard input) prints {\"input_ids\": [...]}, the "
     "ids\n"
     "that Hugging Face's tokenizers gives. {\"messages\": [...]} goes through the model's chat\n"
     "template, and has a \"loss_mask\" too: 1 for the words of the assistant's turns and what\n"
     "ends them.\n\n"
     "  --no-special-tokens   without the tokens around the text; with --decode: without any\n"
     "  --offsets             which characters of the text each id stands for, too\n"
     "  --render              the text that the chat template makes, instead of its ids\n"
     "  --generation-prompt   with what begins the assistant's next answer\n"
     "  --raw                 lines are plain text, not JSON\n"
     "  --decode              from {\"input_ids\": [...]} or [...] back to {\"text\": ...}\n",
     ft_cmd_tokenize},
    {"generate", "MODEL [-a ADAPTER] [-p TEXT | FILE.jsonl | -] [KEY=VALUE ...]",
     "what a model answers, with its adapter",
     "MODEL is a model folder, an id in the local Hugging Face cache, or a .gguf file; ADAPTER an\n"
     "adapter's folder, as ft train writes it. A text, or each record {\"prompt\": ...} or\n"
     "{\"messages\": [...]} of a file, goes through the chat template of the adapter's folder, or\n"
     "else the model's, and is answered up to the first end token of generation_config.json. One\n"
     "answer appears as it is made; Ctrl-C ends it.\n\n"
     "  -a ADAPTER        the adapter's folder\n"
     "  -p TEXT           the prompt\n"
     "  --system TEXT     what the system says first\n"
     "  --raw             no template: the text is gone on with\n"
     "  --compare         what the model says without the adapter, too\n"
     "  --json            one object a record: prompt, text, tokens, finish (stop or "
     "length)\n" FT_SAMPLER_HELP
     "\nKEY=VALUE sets options of the config, for example device=cpu or threads=4; "
     "a base that is\nquantised while it is loaded: load_in_4bit=true.\n",
     ft_cmd_generate},
    {"chat", "MODEL [-a ADAPTER] [KEY=VALUE ...]", "a conversation with a model, in the terminal",
     "Each line is a turn; what was said before is kept, and not computed again. /new begins\n"
     "another conversation, /exit or Ctrl-D ends, Ctrl-C ends an answer.\n\n"
     "  -a ADAPTER        the adapter's folder\n"
     "  --system TEXT     what the system says first\n"
     "  --context N       tokens of a conversation, at most (default: the model's own, up to "
     "4096)\n" FT_SAMPLER_HELP "\nKEY=VALUE sets options of the config, as for ft generate.\n",
     ft_cmd_chat},
    {"eval", "CONFIG.yaml [KEY=VALUE ...] | MODEL [-a ADAPTER] FILE.jsonl [KEY=VALUE ...]",
     "loss, perplexity and accuracy, with the adapter and without",
     "The evaluation set of a config, by the adapter in its output_dir; or a file's records:\n"
     "{\"messages\": ...} (the assistant's turns count), {\"prompt\": ..., \"completion\": ...},\n"
     "{\"text\": ...}, and questions {\"prompt\": ..., \"choices\": [...], \"answer\": N} with N "
     "from 0,\n"
     "whose acc and acc_norm are those of lm-eval. With an adapter, the base model is measured "
     "too:\n"
     "the difference stands with its standard error.\n\n"
     "  -a ADAPTER        the adapter's folder\n"
     "  --json            as one JSON object\n"
     "  --baseline FILE   a saved --json: exits with 6 if something is worse\n"
     "  --tolerance X     by more than X, of the loss relative (default 0.01)\n",
     ft_cmd_eval},
    {"merge", "ADAPTER ... -o DIR [-m MODEL] [--dtype bf16] [KEY=VALUE ...]",
     "a model folder with an adapter in its weights",
     "Writes the model's files again, in f32 and rounded once to what they were, sharded alike, a\n"
     "tensor at a time; tokenizer, template and generation_config are the adapter's, or else the\n"
     "model's. LoRA and DoRA, VeRA, IA3, LoHa and LoKr, modules and biases that were trained "
     "whole.\n"
     "An adapter that was trained on other weights (by the hashes in its run.json, or else by the\n"
     "name of its base) is refused. Quantised weights, of which a merge into them would be "
     "rounded\n"
     "away, are refused too, unless --dtype says what else to write.\n\n"
     "  -o DIR          the folder to write\n"
     "  -m MODEL        the model (default: the one that the adapter names)\n"
     "  --dtype TYPE    f32, f16 or bf16 for all weights; of quantised ones and GGUF files what\n"
     "                  they stand for, as a folder of transformers'; 'load_in_4bit=true' behind "
     "it\n"
     "                  quantises first, as a QLoRA was trained\n"
     "  --eval FILE     then the loss on a file of records (as ft eval has them): with the "
     "adapter\n"
     "                  beside the weights, and merged\n"
     "  --weights X,Y   a share of each of several adapters: W + X dW1 + Y dW2\n"
     "  --force         into a folder that is there, or for another base\n",
     ft_cmd_merge},
    {"export", "ADAPTER -o PATH --to gguf-adapter | gguf | portable | mlx | sbom",
     "an adapter in the form that another program reads",
     "gguf-adapter  llama.cpp's LoRA file\n"
     "gguf          the model with the adapter in its weights, as one file with its tokenizer and\n"
     "              template, of every architecture that ft reads from GGUF\n"
     "portable      a PEFT folder with one rank, its scale folded in and every layer there, which\n"
     "              engines that ignore patterns and rsLoRA read rightly too\n"
     "mlx           the same as mlx-lm has it\n"
     "sbom          a bill of materials (CycloneDX) of a run folder: base, data, hashes, "
     "licence\n\n"
     "What a form cannot hold (other methods, modules trained whole) is refused: 'ft merge' "
     "can.\n\n"
     "  -o PATH         the file or folder to write\n"
     "  --to FORM       gguf-adapter, gguf, portable, mlx or sbom\n"
     "  --type TYPE     of a gguf file's matrices: f32, f16 (the default), bf16, q8_0, q4_0;\n"
     "                  mxfp4: of experts, the rest q8_0\n"
     "  -m MODEL        the model (default: the one that the adapter names)\n"
     "  --force         replace what is there; gguf: for another base, too\n",
     ft_cmd_export},
    {"report", "RUN ... -o report.html",
     "one page with the curves of runs, what differs, their data",
     "RUN is a run folder, or its metrics.jsonl; up to 8 lie over one another. The page needs "
     "nothing\n"
     "else: no network, no script; it is readable on a phone, in the dark and on paper. The same "
     "runs\n"
     "give the same page, byte for byte. What the model said before and after is there where the "
     "run\n"
     "folder has it: ft generate MODEL -a RUN prompts.jsonl --compare --json > "
     "RUN/samples.jsonl\n\n"
     "  -o FILE.html    the page\n",
     ft_cmd_report},
    {"config", "--explain [KEY] | --schema | --dump | --dvc CONFIG.yaml [KEY=VALUE ...]",
     "options: what they mean, and what a file resolves to",
     "  --explain KEY   what an option means, its type, range and default; without KEY: all "
     "options\n"
     "  --schema        a JSON schema of the config, for editors\n"
     "  --dump FILE     every option's value after defaults and overrides, and where it was set\n"
     "  --dvc FILE      the run as a stage of DVC: ft config --dvc config.yaml > dvc.yaml\n",
     ft_cmd_config},
    {"completions", "bash | zsh | fish", "a script that completes commands and options in a shell",
     "  bash: ft completions bash > ~/.local/share/bash-completion/completions/ft\n"
     "  zsh:  ft completions zsh > a folder of $fpath/_ft\n"
     "  fish: ft completions fish > ~/.config/fish/completions/ft.fish\n",
     ft_cmd_completions},
    {"man", "", "the manual page", "ft man | man -l -     (it is installed as ft.1)\n", ft_cmd_man},
    {NULL, NULL, NULL, NULL, NULL},
};
enum { COMMANDS = sizeof ft_commands / sizeof *ft_commands - 1 };

const char ft_exit_codes[] =
    "0 done, 2 usage or config, 3 model or data invalid, 4 resources or I/O, 5 diverged,\n6 not "
    "like the baseline, 70 a bug in ft, 75 interrupted: run it again.\n";

static void usage(FILE *out)
{
    fprintf(out,
            "ft " FT_VERSION ": fine-tunes open-weight language models with low-rank adapters\n\n"
            "usage: ft COMMAND ...\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-11s %s\n", ft_commands[i].name, ft_commands[i].summary);
    fprintf(out, "\n'ft COMMAND --help' tells more. Exit codes: %s", ft_exit_codes);
}

void ft_command_help(FILE *out, const struct ft_command *c)
{
    fprintf(out, "usage: ft %s %s\n\n%s.\n\n%s", c->name, c->arguments, c->summary, c->help);
}

static const struct ft_command *find(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(ft_commands[i].name, name) == 0)
            return &ft_commands[i];
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++)
        names[i] = ft_commands[i].name;
    const char *near = ft_nearest(name, names, COMMANDS);
    ft_fail(FT_ECONFIG, "'%s' is not a command of ft", name);
    if (near)
        ft_hint("did you mean 'ft %s'?", near);
    else
        ft_hint("'ft --help' lists them");
    return FT_ECONFIG;
}

static bool silent;

void ft_silence_notices(void)
{
    silent = true;
}

static void say(const char *text)
{
    if (!silent)
        fprintf(stderr, "%s\n", text);
}

void ft_print_notices(void)
{
    if (!silent)
        fputs(ft_status_notices(), stderr);
    ft_status_clear_notices();
}

static bool is_word(const char *s, const char *a, const char *b)
{
    return strcmp(s, a) == 0 || strcmp(s, b) == 0;
}

/* A word with a path in the home folder, of which shells leave some as they are: '~/x', -o=~/x. */
static int find_home(char **word, char **own)
{
    char *equals = (*word)[0] == '-' ? strchr(*word, '=') : NULL;
    const char *path = equals ? equals + 1 : *word, *home = ft_path_home(path);
    if (!home)
        return FT_OK;
    *own = ft_format("%.*s%s%s", (int)(path - *word), *word, home, path + 1);
    *word = *own ? *own : *word;
    return *own ? FT_OK : FT_ERESOURCE;
}

static int run_at_home(const struct ft_command *c, int n, char **words)
{
    char **own = NULL; /* the words that were made here */
    int rc = ft_alloc(&own, (size_t)n + 1, sizeof *own);
    for (int i = 0; i < n && !rc; i++)
        rc = find_home(&words[i], &own[i]);
    if (!rc)
        rc = c->run(c, n, words);
    for (int i = 0; own && i < n; i++)
        ft_free(own[i]);
    ft_free(own);
    return rc;
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return FT_ECONFIG;
    }
    if (is_word(argv[1], "--version", "-V")) {
        puts("ft " FT_VERSION);
        return FT_OK;
    }
    if (is_word(argv[1], "--help", "-h") || strcmp(argv[1], "help") == 0) {
        const struct ft_command *c = argc > 2 ? find(argv[2]) : NULL;
        if (c)
            ft_command_help(stdout, c);
        else
            usage(stdout);
        return FT_OK;
    }
    const struct ft_command *c = find(argv[1]);
    if (!c)
        return unknown(argv[1]);
    int n = argc - 2;
    if (ft_take_flag(&n, argv + 2, "--help") || ft_take_flag(&n, argv + 2, "-h")) {
        ft_command_help(stdout, c);
        return FT_OK;
    }
    return run_at_home(c, n, argv + 2);
}

int main(int argc, char **argv)
{
    ft_started = ft_now();
    ft_status_listen(say);
    signal(SIGPIPE, SIG_IGN); /* a closed terminal is no reason to lose a run */
    signal(SIGXFSZ, SIG_IGN); /* a limit to files is an error of the write */
    int rc = run(argc, argv);
    bool trains = argc > 1 && strcmp(argv[1], "train") == 0; /* whose output is the folder */
    if ((fflush(stdout) || ferror(stdout)) && !rc && !trains)
        rc = ft_fail(FT_ERESOURCE, "the output cannot be written");
    ft_print_notices();
    fputs(ft_status_report(), stderr);
    return rc;
}
