/* The model card of a run folder: what was trained, on what, from what, and under which licence. It
 * says what run.json says. */
#include "train/internal.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct card {
    FILE *o;
    const struct ft_job *j;
    const json_t *run;
    const char *folder;
};

static const json_t *in(const json_t *o, const char *part, const char *key)
{
    return json_object_get(json_object_get(o, part), key);
}

/* A text of YAML's head: in quotes where it is more than a name or a path. */
static void put_yaml(FILE *o, const char *key, const char *text)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
    if (text[0] && text[strspn(text, plain)] == 0) {
        fprintf(o, "%s: %s\n", key, text);
        return;
    }
    fprintf(o, "%s: \"", key);
    for (; *text; text++)
        fprintf(o, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    fputs("\"\n", o);
}

static void put_head(const struct card *c, const struct ft_licence *l)
{
    const bool whole = ft_job_trains_model(c->j);
    char *licence = ft_licence_head(l);
    fputs("---\n", c->o);
    put_yaml(c->o, "base_model", c->j->base_name);
    fprintf(c->o, "base_model_relation: %s\nlibrary_name: %s\n%spipeline_tag: text-generation\n",
            whole ? "finetune" : "adapter", whole ? "transformers" : "peft",
            licence ? licence : "");
    fprintf(c->o, "tags:\n%s- ft\n---\n\n", whole ? "" : "- lora\n");
    ft_free(licence);
    fprintf(c->o, "# %s\n\n", ft_path_name(c->folder));
    if (whole)
        fprintf(c->o, "`%s`, trained further with ft " FT_VERSION ": all of its weights.\n",
                c->j->base_name);
    else
        fprintf(c->o,
                "A %s adapter for `%s`, trained with ft " FT_VERSION ": rank %lld on %d modules.\n",
                ft_adapter_title(c->j->adapter), c->j->base_name,
                (long long)ft_adapter_max_rank(c->j->adapter), ft_adapter_modules(c->j->adapter));
}

/* --- the parts --- */

static void put_use(const struct card *c)
{
    const char *base = c->j->base_name;
    fputs("\n## Use\n\n```python\n", c->o);
    if (ft_job_trains_model(c->j)) {
        fprintf(c->o,
                "from transformers import AutoModelForCausalLM\n"
                "model = AutoModelForCausalLM.from_pretrained(\"%s\")\n```\n",
                c->folder);
        return;
    }
    fprintf(c->o,
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
            "base = AutoModelForCausalLM.from_pretrained(\"%s\")\n",
            base);
    if (c->j->new_rows)
        fprintf(c->o, "base.resize_token_embeddings(%lld)\n",
                (long long)ft_model_decoder(c->j->model)->vocab);
    fprintf(c->o, "model = PeftModel.from_pretrained(base, \"%s\")\n```\n", c->folder);
}

/* Of a data file: what its audit counted, if it was text. */
static const json_t *audit_of(const struct card *c, const char *path)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(c->run, "data"), i, entry)
    {
        const char *file = json_string_value(json_object_get(entry, "file"));
        if (file && strcmp(file, path) == 0)
            return json_object_get(entry, "audit");
    }
    return NULL;
}

static void put_count(FILE *o, const json_t *audit, const char *key)
{
    const json_t *v = json_object_get(audit, key);
    if (v)
        fprintf(o, " %lld |", (long long)json_integer_value(v));
    else
        fputs(" |", o);
}

static void put_data(const struct card *c)
{
    const json_t *template = json_object_get(c->run, "template");
    const char *path, *name = json_string_value(json_object_get(template, "name"));
    json_t *hash;
    fputs("\n## Data\n\n| file | records | tokens | of them trained | SHA-256 "
          "|\n|---|--:|--:|--:|---|"
          "\n",
          c->o);
    json_object_foreach((json_t *)(uintptr_t)in(c->run, "sha256", "dataset"), path, hash)
    {
        const json_t *audit = audit_of(c, path);
        fprintf(c->o, "| `%s` |", ft_path_name(path));
        put_count(c->o, audit, "records");
        put_count(c->o, audit, "tokens");
        put_count(c->o, audit, "trained");
        fprintf(c->o, " `%s` |\n", json_string_value(hash));
    }
    if (name)
        fprintf(c->o,
                "\nConversations went through the template `%s`, SHA-256 `%s`; it lies beside this "
                "card.\n",
                name, json_string_value(json_object_get(template, "sha256")));
}

static void put_number(const struct card *c, const char *title, const char *part, const char *key)
{
    const json_t *v = in(c->run, part, key);
    if (json_is_real(v) && isfinite(json_real_value(v)))
        fprintf(c->o, "| %s | %.6g |\n", title, json_real_value(v));
    else if (json_is_integer(v))
        fprintf(c->o, "| %s | %lld |\n", title, (long long)json_integer_value(v));
    else if (json_is_string(v))
        fprintf(c->o, "| %s | %s |\n", title, json_string_value(v));
}

static void put_training(const struct card *c)
{
    static const struct {
        const char *title, *part, *key;
    } rows[] = {{"first loss", "result", "first_loss"},
                {"last loss", "result", "last_loss"},
                {"first evaluation loss", "result", "first_eval_loss"},
                {"last evaluation loss", "result", "last_eval_loss"},
                {"tokens seen", "result", "tokens"},
                {"learning rate", "config", "learning_rate"},
                {"schedule", "config", "lr_scheduler"},
                {"optimizer", "config", "optimizer"},
                {"micro-batch", "config", "micro_batch_size"},
                {"micro-batches a step", "config", "gradient_accumulation_steps"},
                {"tokens a document at most", "config", "sequence_len"},
                {"seed", "config", "seed"}};
    const char *status = json_string_value(json_object_get(c->run, "status"));
    fprintf(c->o, "\n## Training\n\n| | |\n|---|---|\n| steps | %lld of %lld%s |\n",
            (long long)json_integer_value(in(c->run, "result", "steps")),
            (long long)c->j->length.steps,
            status && strcmp(status, "interrupted") == 0 ? ", interrupted" : "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        put_number(c, rows[i].title, rows[i].part, rows[i].key);
    const json_t *gpu = json_object_get(c->run, "gpu");
    const char *cpu = json_string_value(json_object_get(c->run, "cpu"));
    fprintf(c->o, "| on | %s (%s) |\n",
            gpu   ? json_string_value(gpu)
            : cpu ? cpu
                  : "",
            c->j->backend->isa);
    fputs("\n`run.json` has the whole config, `metrics.jsonl` the losses.\n", c->o);
}

static void put_hashes(const struct card *c)
{
    static const char *const kinds[] = {"config", "tokenizer", "weights", "adapter"};
    const char *name;
    json_t *hash;
    fputs("\n## Made from\n\n| file | SHA-256 |\n|---|---|\n", c->o);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        json_object_foreach((json_t *)(uintptr_t)in(c->run, "sha256", kinds[i]), name, hash)
        {
            fprintf(c->o, "| %s`%s` | `%s` |\n",
                    strcmp(kinds[i], "adapter") == 0 ? "this adapter: " : "", name,
                    json_string_value(hash));
        }
}

static void put_licence(const struct card *c, const struct ft_licence *l)
{
    char *section = ft_licence_section(l, c->j->base_name);
    fprintf(c->o, "%s\nThe data has its own terms, of which ft knows nothing.\n",
            section ? section : "");
    ft_free(section);
}

int ft_card_write(const struct ft_job *j, const char *folder, const json_t *run)
{
    struct ft_licence licence;
    struct ft_printed p;
    char *path = ft_path_join(folder, "README.md");
    int rc = path ? ft_printed_open(&p) : FT_ERESOURCE;
    if (!rc) {
        const struct card c = {p.o, j, run, folder};
        ft_licence_from_json(&licence, json_object_get(run, "base_model"));
        put_head(&c, &licence);
        put_use(&c);
        put_data(&c);
        put_training(&c);
        put_hashes(&c);
        put_licence(&c, &licence);
        rc = ft_printed_close(&p);
        if (!rc)
            rc = ft_file_write(path, p.text, p.n);
        ft_printed_free(&p);
    }
    ft_free(path);
    return rc;
}
