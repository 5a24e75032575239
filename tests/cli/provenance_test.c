/* What a run was made from: its card, its bill of materials, and its stage of DVC. */
#include "tests/cli/cli.h"

#include <jansson.h>
#include <string.h>

#define TRAIN "@FT train @D/ok.yaml --quiet output_dir=@D/"

static const json_t *at(const json_t *o, const char *path)
{
    char part[64];
    for (; o && *path; path += strcspn(path, ".") + (strchr(path, '.') != NULL)) {
        snprintf(part, sizeof part, "%.*s", (int)strcspn(path, "."), path);
        o = json_is_array(o) ? json_array_get(o, (size_t)(part[0] - '0'))
                             : json_object_get(o, part);
    }
    return o;
}

static const char *text_at(const json_t *o, const char *path)
{
    const char *text = json_string_value(at(o, path));
    return text ? text : "";
}

CASE(the_card_says_what_the_run_was_made_from)
{
    fresh_folder();
    EXPECT(0, "", TRAIN "none 2>&1");
    EXPECT(0, "names no licence", "cat @D/none/README.md");
    CHECK_HAS(shell_output, "| steps | 2 of 2 |");
    CHECK_HAS(shell_output, "| `data.safetensors` |");
    CHECK_INT(shell("for f in model/config.json model/model.safetensors model/data.safetensors "
                    "none/adapter_model.safetensors; do grep -q $(sha256sum @D/$f | cut -c1-64) "
                    "@D/none/README.md || exit 1; done"),
              0);
    CHECK_INT(shell("head -1 @D/none/README.md | grep -qx -e ---"), 0);
}

CASE(the_licence_of_the_base_and_what_it_asks)
{
    static const struct {
        const char *head, *says[2];
    } rows[] = {
        {"license: apache-2.0", {"license: apache-2.0\n", "to keep its text and notices"}},
        {"license: other\nlicense_name: qwen-research\nlicense_link: https://example.org/L",
         {"license_link: https://example.org/L\n", "for research alone"}},
        {"license: \"llama3.2\"", {"license: llama3.2\n", "Built with Llama"}},
        {"license: other\nlicense_name: house-licence", {"`house-licence`: read there", ""}},
        {"license: [a, b]", {"names no licence", ""}},
    };
    fresh_folder();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        shell("printf -- '---\\n%s\\ntags: [x]\\n---\\n# A model\\n' > @D/model/README.md",
              rows[i].head);
        EXPECT(0, "", TRAIN "run overwrite_output_dir=true 2>&1");
        EXPECT(0, rows[i].says[0], "cat @D/run/README.md");
        CHECK_HAS(shell_output, rows[i].says[1]);
    }
}

CASE(a_merged_model_has_the_licence_too)
{
    fresh_folder();
    shell("printf -- '---\\nlicense: gemma\\n---\\n' > @D/model/README.md");
    EXPECT(0, "", TRAIN "run 2>&1");
    EXPECT(0, "", "@FT merge @D/run -o @D/merged 2>&1");
    EXPECT(0, "license: gemma\n", "cat @D/merged/README.md");
    CHECK_HAS(shell_output, "Gemma Terms of Use");
}

CASE(a_bill_of_materials)
{
    fresh_folder();
    shell("printf -- '---\\nlicense: mit\\n---\\n' > @D/model/README.md");
    EXPECT(0, "", TRAIN "run 2>&1");
    EXPECT(0, "CycloneDX", "@FT export @D/run/ --to sbom -o @D/bom.json");
    CHECK_INT(shell("@FT export @D/run --to sbom -o @D/again.json; cmp @D/bom.json @D/again.json"),
              0);
    shell("cat @D/bom.json");
    json_t *o = json_loads(shell_output, 0, NULL);
    CHECK_TEXT(text_at(o, "bomFormat"), "CycloneDX");
    CHECK_TEXT(text_at(o, "metadata.component.name"), "run");
    CHECK_TEXT(text_at(o, "metadata.component.modelCard.modelParameters.modelArchitecture"),
               "LlamaForCausalLM");
    CHECK_TEXT(text_at(o, "metadata.component.modelCard.modelParameters.datasets.0.ref"), "data-1");
    CHECK_TEXT(text_at(o, "components.0.licenses.0.license.id"), "MIT");
    CHECK_TEXT(text_at(o, "components.1.type"), "data");
    CHECK_INT((long long)json_array_size(at(o, "dependencies.0.dependsOn")), 2);
    shell("sha256sum < @D/run/adapter_model.safetensors | head -c 64");
    CHECK_TEXT(text_at(o, "metadata.component.components.0.hashes.0.content"), shell_output);
    json_decref(o);
}

CASE(a_bill_of_what_is_not_the_run_is_refused)
{
    fresh_folder();
    EXPECT(3, "has no run.json", "@FT export @D/model --to sbom -o @D/bom.json 2>&1");
    EXPECT(0, "", TRAIN "run 2>&1");
    EXPECT(2, "'-m' is not for", "@FT export @D/run --to sbom -m @D/model -o @D/bom.json 2>&1");
    shell("cp @D/model/model.safetensors @D/run/adapter_model.safetensors");
    EXPECT(3, "is not what the run wrote", "@FT export @D/run --to sbom -o @D/bom.json 2>&1");
    shell("rm @D/run/adapter_model.safetensors");
    EXPECT(3, "has no weights", "@FT export @D/run --to sbom -o @D/bom.json 2>&1");
    CHECK_INT(shell("test -e @D/bom.json"), 1);
}

CASE(a_stage_of_dvc)
{
    fresh_folder();
    EXPECT(0, "deps:\n      - \"ok.yaml\"\n      - \"model\"\n      - \"model/data.safetensors\"\n",
           "cd @D && @FT config --dvc ok.yaml lora_r=4 base_model=model "
           "datasets.0.path=model/data.safetensors output_dir=out");
    CHECK_HAS(shell_output, "output_dir=out overwrite_output_dir=true --quiet\n");
    CHECK_HAS(shell_output, "- \"out/adapter_model.safetensors\":\n          persist: true\n");
    /* the command is one that a shell runs */
    CHECK_INT(shell("cd @D && $(@FT config --dvc ok.yaml | sed -n 's#^      ft #@FT #p') 2>&1"), 0);
    CHECK_INT(shell("test -f @D/out/adapter_model.safetensors"), 0);
}
