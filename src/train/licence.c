/* Reads a model card's licence, and knows what the usual ones ask. */
#include "train/licence.h"

#include "core/file.h"
#include "core/mem.h"
#include "core/text.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ATTRIBUTION "to name its authors, link the licence, and say what was changed"
#define RAIL        "to pass the licence and its use restrictions on, and say what was changed"
#define LLAMA                                                                                      \
    "to give a copy of the licence and the notice file it words along, to show \"Built with "      \
    "Llama\", "                                                                                    \
    "begin the name of the model with \"Llama\", and follow its acceptable use policy; above 700 " \
    "million monthly users Meta's permission is needed"

/* By the first letters of Hugging Face's identifiers, or of license_name. */
static const struct {
    const char *begin, *asks;
} known[] = {
    {"apache-2.0", "to keep its text and notices, and say that the files were changed"},
    {"mit", "to keep its text and the copyright notice"},
    {"bsd", "to keep its text and the copyright notice"},
    {"cc0", "nothing"},
    {"unlicense", "nothing"},
    {"cc-by-nc-sa", ATTRIBUTION "; share only under the same licence, and not commercially"},
    {"cc-by-nc-nd", "to share nothing that was made from it"},
    {"cc-by-nc", ATTRIBUTION "; not for commercial use"},
    {"cc-by-nd", "to share nothing that was made from it"},
    {"cc-by-sa", ATTRIBUTION "; share only under the same licence"},
    {"cc-by", ATTRIBUTION},
    {"llama2",
     "to give a copy of the licence and the notice file it words along, improve no other language "
     "model with it, and follow its acceptable use policy; above 700 million monthly users Meta's "
     "permission is needed"},
    {"llama3.", LLAMA},
    {"llama4", LLAMA},
    {"llama3",
     "to give a copy of the licence and the notice file it words along, show \"Built with Meta "
     "Llama "
     "3\", begin the name of the model with \"Llama 3\", improve no other language model with it, "
     "and follow its acceptable use policy; above 700 million monthly users Meta's permission is "
     "needed"},
    {"gemma", "to pass the Gemma Terms of Use and their use restrictions on, say that the files "
              "were changed, "
              "and add a notice that names the terms"},
    {"qwen-research",
     "to use it for research alone, give a copy of the licence along, show \"Built "
     "with Qwen\", and say that the files were changed"},
    {"qwen",
     "to give a copy of the licence and its notice along, show \"Built with Qwen\", and say "
     "that the files were changed; above 100 million monthly users permission is needed"},
    {"tongyi-qianwen", "to give a copy of the licence and its notice along, show \"Built with "
                       "Qwen\", and say that the "
                       "files were changed; above 100 million monthly users permission is needed"},
    {"mrl", "to use it for research alone, and pass the licence on"},
    {"mnpl", "to use it for nothing commercial, and pass the licence on"},
    {"deepseek", RAIL},
    {"openrail", RAIL},
    {"bigscience-", RAIL},
    {"bigcode-openrail", RAIL},
    {"creativeml-openrail", RAIL},
    {"nvidia-open-model", "to give a copy of the licence and its notice along"},
    {"gpl", "to share only under the same licence"},
    {"agpl", "to share only under the same licence, over a network too"},
    {"lgpl", "to share only under the same licence"},
};

static const char *find(const char *id)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ft_starts_with(id, known[i].begin))
            return known[i].asks;
    return NULL;
}

const char *ft_licence_asks(const struct ft_licence *l)
{
    const char *asks = find(l->id);
    return asks ? asks : find(l->name);
}

const char *ft_licence_spdx(const struct ft_licence *l)
{
    static const char *const names[] = {
        "Apache-2.0",   "MIT",          "BSD-2-Clause",    "BSD-3-Clause", "CC0-1.0",   "CC-BY-3.0",
        "CC-BY-4.0",    "CC-BY-SA-3.0", "CC-BY-SA-4.0",    "CC-BY-NC-4.0", "Unlicense", "WTFPL",
        "CC-BY-NC-3.0", "CC-BY-ND-4.0", "CC-BY-NC-SA-4.0", "MPL-2.0",      "ISC",       "AFL-3.0",
        "ECL-2.0",      "EUPL-1.1",     "EUPL-1.2",        "Zlib"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(names[i], l->id) == 0)
            return names[i];
    return NULL;
}

/* --- reading --- */

/* "key: value" of a line, without quotes; nothing where it is more than a name or an address. */
static void take(const char *line, size_t n, const char *key, char *out, size_t room)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                ".+-_/:?=&%~#";
    const size_t length = strlen(key);
    if (n <= length || strncmp(line, key, length) != 0 || line[length] != ':')
        return;
    const char *value = line + length + 1, *end = line + n;
    while (value < end && strchr(" \"'", *value))
        value++;
    while (end > value && strchr(" \"'\r", end[-1]))
        end--;
    const size_t is = (size_t)(end - value);
    if (is > 0 && is < room && strspn(value, plain) >= is)
        snprintf(out, room, "%.*s", (int)is, value);
}

int ft_licence_read(struct ft_licence *l, const char *model_folder)
{
    char *path = ft_path_join(model_folder, "README.md"), *text = NULL;
    size_t n;
    *l = (struct ft_licence){0};
    if (!path)
        return FT_ERESOURCE;
    int rc = ft_file_exists(path) ? ft_file_read(path, 1 << 24, FT_EDATA, &text, &n) : FT_OK;
    ft_free(path);
    if (rc == FT_EDATA) {
        ft_status_clear_errors();
        return FT_OK;
    }
    const char *line = text && ft_starts_with(text, "---\n") ? text + 4 : NULL;
    while (line && !ft_starts_with(line, "---")) {
        const char *end = strchr(line, '\n');
        n = end ? (size_t)(end - line) : strlen(line);
        take(line, n, "license", l->id, sizeof l->id);
        take(line, n, "license_name", l->name, sizeof l->name);
        take(line, n, "license_link", l->link, sizeof l->link);
        line = end ? end + 1 : NULL;
    }
    ft_free(text);
    return rc;
}

/* --- as JSON, and in a card --- */

static json_t *text_or_null(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

void ft_licence_to_json(const struct ft_licence *l, json_t *o)
{
    json_object_set_new(o, "licence", text_or_null(l->id));
    if (l->name[0])
        json_object_set_new(o, "licence_name", json_string(l->name));
    if (l->link[0])
        json_object_set_new(o, "licence_link", json_string(l->link));
}

static void get(const json_t *o, const char *key, char *out, size_t room)
{
    const char *text = json_string_value(json_object_get(o, key));
    snprintf(out, room, "%s", text ? text : "");
}

void ft_licence_from_json(struct ft_licence *l, const json_t *o)
{
    get(o, "licence", l->id, sizeof l->id);
    get(o, "licence_name", l->name, sizeof l->name);
    get(o, "licence_link", l->link, sizeof l->link);
}

char *ft_licence_section(const struct ft_licence *l, const char *model)
{
    const char *asks = ft_licence_asks(l), *name = l->name[0] ? l->name : l->id;
    if (!name[0])
        return ft_format(
            "\n## Licence\n\nThe folder of `%s` names no licence: whether and how this "
            "may be shared, its makers say.\n",
            model);
    char *where = ft_format("\n## Licence\n\n`%s` is under `%s`%s%s%s", model, name,
                            l->link[0] ? " (" : "", l->link, l->link[0] ? ")" : "");
    char *all =
        !where ? NULL
        : asks
            ? ft_format("%s. Of those who share what was made from it, it asks in short: %s. "
                        "The licence itself decides.\n",
                        where, asks)
            : ft_format("%s: read there what it asks of those who share what was made from it.\n",
                        where);
    ft_free(where);
    return all;
}

char *ft_licence_head(const struct ft_licence *l)
{
    return ft_format("%s%s%s%s%s%s%s%s%s", l->id[0] ? "license: " : "", l->id, l->id[0] ? "\n" : "",
                     l->name[0] ? "license_name: " : "", l->name, l->name[0] ? "\n" : "",
                     l->link[0] ? "license_link: " : "", l->link, l->link[0] ? "\n" : "");
}
