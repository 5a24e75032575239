/* A run as a bill of materials: CycloneDX 1.6 (ECMA-424), with its model card's members. It says
 * what run.json says, and hashes the weights that lie in the folder now. */
#define _GNU_SOURCE
#include "train/export.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/sha256.h"
#include "core/text.h"
#include "train/licence.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *hashes(const char *hex)
{
    return json_pack("[{ss ss}]", "alg", "SHA-256", "content", hex);
}

static json_t *file_component(const char *name, const char *hex)
{
    return json_pack("{ss ss so}", "type", "file", "name", name, "hashes", hashes(hex));
}

/* --- what the run was made from --- */

static json_t *base_component(const json_t *run)
{
    static const char *const kinds[] = {"config", "tokenizer", "weights"};
    const json_t *base = json_object_get(run, "base_model");
    const char *name;
    json_t *hash, *files = json_array();
    struct ft_licence l;
    ft_licence_from_json(&l, base);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        json_object_foreach(json_object_get(json_object_get(run, "sha256"), kinds[i]), name, hash)
        {
            json_array_append_new(files, file_component(name, json_string_value(hash)));
        }
    json_t *o =
        json_pack("{ss ss ss* so}", "type", "machine-learning-model", "bom-ref", "base", "name",
                  json_string_value(json_object_get(base, "name")), "components", files);
    const char *spdx = ft_licence_spdx(&l), *title = l.name[0] ? l.name : l.id;
    if (spdx)
        json_object_set_new(o, "licenses", json_pack("[{s{ss}}]", "license", "id", spdx));
    else if (title[0])
        json_object_set_new(
            o, "licenses",
            json_pack("[{s{ss ss*}}]", "license", "name", title, "url", l.link[0] ? l.link : NULL));
    return o;
}

static void add_data(json_t *components, json_t *refs, json_t *needs, const json_t *run)
{
    const char *path;
    json_t *hash;
    int n = 0;
    json_object_foreach(json_object_get(json_object_get(run, "sha256"), "dataset"), path, hash)
    {
        char ref[32];
        snprintf(ref, sizeof ref, "data-%d", ++n);
        json_array_append_new(components,
                              json_pack("{ss ss ss so s[{ss ss}]}", "type", "data", "bom-ref", ref,
                                        "name", ft_path_name(path), "hashes",
                                        hashes(json_string_value(hash)), "data", "type", "dataset",
                                        "name", ft_path_name(path)));
        json_array_append_new(refs, json_pack("{ss}", "ref", ref));
        json_array_append_new(needs, json_string(ref));
    }
}

/* --- the run itself --- */

static void add_property(json_t *list, const char *name, const json_t *v)
{
    char text[64];
    if (json_is_real(v))
        snprintf(text, sizeof text, "%.9g", json_real_value(v));
    else if (json_is_integer(v))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    if (json_is_number(v) || json_is_string(v))
        json_array_append_new(list, json_pack("{ss ss}", "name", name, "value",
                                              json_is_string(v) ? json_string_value(v) : text));
}

static json_t *metrics(const json_t *run)
{
    static const char *const keys[] = {"first_loss", "last_loss", "first_eval_loss",
                                       "last_eval_loss"};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char value[32];
        const json_t *v = json_object_get(json_object_get(run, "result"), keys[i]);
        if (!json_is_number(v))
            continue;
        snprintf(value, sizeof value, "%.9g", json_number_value(v));
        json_array_append_new(list, json_pack("{ss ss}", "type", keys[i], "value", value));
    }
    return list;
}

static json_t *properties(const json_t *run)
{
    static const char *const options[] = {"adapter",          "lora_r",       "lora_alpha",
                                          "learning_rate",    "lr_scheduler", "optimizer",
                                          "micro_batch_size", "sequence_len", "seed"};
    json_t *list = json_array();
    char name[64];
    add_property(list, "ft:status", json_object_get(run, "status"));
    add_property(list, "ft:steps", json_object_get(json_object_get(run, "result"), "steps"));
    add_property(list, "ft:tokens", json_object_get(json_object_get(run, "result"), "tokens"));
    add_property(list, "ft:template_sha256",
                 json_object_get(json_object_get(run, "template"), "sha256"));
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        snprintf(name, sizeof name, "ft:config.%s", options[i]);
        add_property(list, name, json_object_get(json_object_get(run, "config"), options[i]));
    }
    return list;
}

static int is_weights(const struct dirent *e)
{
    return ft_ends_with(e->d_name, ".safetensors");
}

/* The weights in the folder, which must be those that the run ended with. */
static int add_weights(json_t *files, const json_t *run, const char *folder)
{
    struct dirent **names;
    const int n = scandir(folder, &names, is_weights, alphasort);
    int rc = n < 0 ? ft_fail_at((struct ft_where){.file = folder}, FT_EDATA, "cannot be read: %s",
                                strerror(errno))
             : n == 0 ? ft_fail_at((struct ft_where){.file = folder}, FT_EDATA,
                                   "has no weights: the run has not written any yet")
                      : FT_OK;
    const json_t *said = json_object_get(json_object_get(run, "sha256"), "adapter");
    for (int i = 0; i < n; i++) {
        char hex[65], *path = ft_path_join(folder, names[i]->d_name);
        const char *was = json_string_value(json_object_get(said, names[i]->d_name));
        if (!rc && !path)
            rc = FT_ERESOURCE;
        if (!rc && !ft_sha256_file(path, hex, NULL))
            rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "cannot be read");
        if (!rc && was && strcmp(was, hex) != 0)
            rc = ft_fail_at((struct ft_where){.file = path}, FT_EDATA,
                            "is not what the run wrote: run.json has another SHA-256 of it");
        if (!rc)
            json_array_append_new(files, file_component(names[i]->d_name, hex));
        ft_free(path);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return rc;
}

static json_t *model_component(const json_t *run, const char *folder, json_t *files, json_t *refs)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    char *trimmed = ft_format("%.*s", (int)n, folder);
    json_t *o = json_pack(
        "{ss ss ss so so s{s{s{ss} ss ss ss* so s[{ss}] s[{ss}]} s{so}}}", "type",
        "machine-learning-model", "bom-ref", "model", "name", trimmed ? ft_path_name(trimmed) : "",
        "components", files, "properties", properties(run), "modelCard", "modelParameters",
        "approach", "type", "supervised", "task", "text-generation", "architectureFamily",
        "transformer", "modelArchitecture",
        json_string_value(json_object_get(json_object_get(run, "base_model"), "architecture")),
        "datasets", refs, "inputs", "format", "text", "outputs", "format", "text",
        "quantitativeAnalysis", "performanceMetrics", metrics(run));
    ft_free(trimmed);
    return o;
}

/* --- the whole --- */

/* The same run, the same number: a UUID of what the bill says. */
static int set_number(json_t *bom, unsigned since)
{
    struct ft_sha256 h;
    char hex[65], number[64], *text = ft_json_dumps(bom, JSON_COMPACT, since);
    if (!text)
        return FT_ERESOURCE;
    ft_sha256_init(&h);
    ft_sha256_add(&h, text, strlen(text));
    ft_sha256_hex(&h, hex);
    ft_json_free(text);
    snprintf(number, sizeof number, "urn:uuid:%.8s-%.4s-8%.3s-a%.3s-%.12s", hex, hex + 8, hex + 13,
             hex + 17, hex + 20);
    json_object_set_new(bom, "serialNumber", json_string(number));
    return FT_OK;
}

static json_t *build(const json_t *run, const char *folder, json_t *files)
{
    json_t *components = json_array(), *refs = json_array(), *needs = json_array();
    json_array_append_new(components, base_component(run));
    json_array_append_new(needs, json_string("base"));
    add_data(components, refs, needs, run);
    return json_pack("{ss ss ss si s{s{s[{ss ss ss}]} so} so s[{ss so}]}", "$schema",
                     "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat", "CycloneDX",
                     "specVersion", "1.6", "version", 1, "metadata", "tools", "components", "type",
                     "application", "name", "ft", "version", FT_VERSION, "component",
                     model_component(run, folder, files, refs), "components", components,
                     "dependencies", "ref", "model", "dependsOn", needs);
}

int ft_export_sbom(const char *folder, const char *path)
{
    const unsigned since = ft_alloc_failures();
    json_t *run = NULL, *files = json_array();
    char *record = ft_path_join(folder, "run.json");
    int rc = record ? FT_OK : FT_ERESOURCE;
    if (!rc && !ft_file_exists(record)) {
        rc = ft_fail_at((struct ft_where){.file = folder}, FT_EDATA,
                        "has no run.json: a bill of materials says what a run of ft was made from");
    }
    if (!rc)
        rc = ft_json_file(record, FT_EDATA, &run);
    if (!rc)
        rc = add_weights(files, run, folder);
    json_t *bom = rc ? NULL : build(run, folder, json_incref(files));
    if (!rc)
        rc = set_number(bom, since);
    char *text = rc ? NULL : ft_json_dumps(bom, JSON_INDENT(2), since);
    if (!rc)
        rc = text ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    ft_json_free(text);
    json_decref(bom);
    json_decref(files);
    json_decref(run);
    ft_free(record);
    return rc;
}
