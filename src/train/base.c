/* Finds base models. A GGUF file becomes a folder in the cache, so that everything else sees one
 * kind of model. */
#define _GNU_SOURCE
#include "train/base.h"

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/sha256.h"
#include "core/text.h"
#include "io/gguf.h"
#include "io/hub.h"
#include "model/gguf.h"
#include "text/gguf.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int cache_folder(char **out)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const bool own = cache && *cache;
    if (!own && !(home && *home))
        return ft_fail_at((struct ft_where){0}, FT_ERESOURCE,
                          "a .gguf file's tokenizer is kept in the user's cache: set "
                          "XDG_CACHE_HOME or HOME");
    *out = own ? ft_format("%s/ft/gguf", cache) : ft_format("%s/.cache/ft/gguf", home);
    return *out ? FT_OK : FT_ERESOURCE;
}

/* The file's own folder there: by its place, size and time, and by this version of ft. */
static int own_folder(char **out, const char *real, const struct stat *st)
{
    char *all = NULL;
    FT_TRY(cache_folder(&all));
    char *key = ft_format("%s %lld %lld.%09ld " FT_VERSION " 1", real, (long long)st->st_size,
                          (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
    char hex[65];
    struct ft_sha256 h;
    *out = NULL;
    if (key) {
        ft_sha256_init(&h);
        ft_sha256_add(&h, key, strlen(key));
        ft_sha256_hex(&h, hex);
        *out = ft_format("%s/%.32s", all, hex);
    }
    ft_free(all);
    ft_free(key);
    return *out ? FT_OK : FT_ERESOURCE;
}

static int link_part(const char *folder, int number, const char *to)
{
    char *path = ft_format("%s/model-%05d.gguf", folder, number);
    int rc = path ? FT_OK : FT_ERESOURCE;
    if (!rc && symlink(to, path) && errno != EEXIST)
        rc = ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot be made: %s",
                        strerror(errno));
    ft_free(path);
    return rc;
}

/* name-00001-of-00003.gguf is the first of three. */
static int link_parts(const char *folder, const char *real, const json_t *metadata)
{
    const json_t *count = json_object_get(metadata, "split.count");
    const int n = count ? (int)json_integer_value(count) : 1;
    const size_t length = strlen(real), tail = strlen("-00001-of-00001.gguf");
    if (n < 2)
        return link_part(folder, 1, real);
    if (n > 99999 || length < tail || strncmp(real + length - tail, "-00001-of-", 10) != 0)
        return ft_fail_at(
            (struct ft_where){.file = real}, FT_EDATA,
            "is one of %d parts, and not called ...-00001-of-%05d.gguf: name the first", n, n);
    for (int i = 1; i <= n; i++) {
        char *part = ft_format("%.*s-%05d-of-%05d.gguf", (int)(length - tail), real, i, n);
        int rc = part ? FT_OK : FT_ERESOURCE;
        if (!rc && !ft_file_exists(part))
            rc = ft_fail_at((struct ft_where){.file = part}, FT_EDATA, "is missing: part %d of %d",
                            i, n);
        if (!rc)
            rc = link_part(folder, i, part);
        ft_free(part);
        FT_TRY(rc);
    }
    return FT_OK;
}

static int write_tokenizer(const struct ft_gguf *g, const char *real, const char *folder)
{
    const unsigned since = ft_alloc_failures();
    json_t *tokenizer = NULL, *said = NULL;
    int rc = ft_gguf_tokenizer(g->metadata, real, &tokenizer, &said);
    if (!rc)
        rc = ft_json_write(folder, "tokenizer.json", tokenizer, JSON_COMPACT, since);
    if (!rc)
        rc = ft_json_write(folder, "tokenizer_config.json", said, JSON_COMPACT, since);
    json_decref(tokenizer);
    json_decref(said);
    return rc;
}

/* The licence that the file names, where a model's folder would. */
static int write_card(const struct ft_gguf *g, const char *folder)
{
    static const char *const keys[][2] = {{"license", "general.license"},
                                          {"license_name", "general.license.name"},
                                          {"license_link", "general.license.link"}};
    char text[1024] = "---\n", *path = ft_path_join(folder, "README.md");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *is = json_string_value(json_object_get(g->metadata, keys[i][1]));
        const size_t at = strlen(text);
        if (is && !strchr(is, '\n'))
            snprintf(text + at, sizeof text - at - 8, "%s: %s\n", keys[i][0], is);
    }
    strcat(text, "---\n");
    int rc = path ? ft_file_write(path, text, strlen(text)) : FT_ERESOURCE;
    ft_free(path);
    return rc;
}

/* The tokenizer, which takes a second for the largest, is made once; the rest each time. */
static int fill(const struct ft_gguf *g, const char *real, const char *folder)
{
    const unsigned since = ft_alloc_failures();
    json_t *config = NULL;
    char *made = ft_path_join(folder, "tokenizer_config.json");
    int rc = made ? ft_gguf_config(g, real, &config) : FT_ERESOURCE;
    if (!rc)
        rc = ft_make_folders(folder);
    if (!rc && !ft_file_exists(made))
        rc = write_tokenizer(g, real, folder);
    if (!rc)
        rc = link_parts(folder, real, g->metadata);
    if (!rc)
        rc = ft_json_write(folder, "config.json", config, JSON_COMPACT, since);
    if (!rc)
        rc = write_card(g, folder);
    json_decref(config);
    ft_free(made);
    return rc;
}

/* "https://huggingface.co/org/name" is org/name. */
static char *origin_of(const json_t *metadata)
{
    static const char *const keys[] = {"general.source.huggingface.repository",
                                       "general.source.repo_url", "general.source.url",
                                       "general.repo_url"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *url = json_string_value(json_object_get(metadata, keys[i]));
        const char *host = url ? strstr(url, "huggingface.co/") : NULL;
        if (url)
            return ft_strdup(host ? host + strlen("huggingface.co/") : url);
    }
    return NULL;
}

static int unfold(const char *path, char **out, char **origin)
{
    char *real = realpath(path, NULL);
    struct ft_gguf g;
    struct stat st;
    if (!real || stat(real, &st)) {
        free(real);
        return ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "cannot open: %s",
                          strerror(errno));
    }
    int rc = own_folder(out, real, &st);
    if (!rc)
        rc = ft_gguf_open(&g, path);
    if (!rc) {
        rc = fill(&g, real, *out);
        if (!rc && origin)
            *origin = origin_of(g.metadata);
        ft_gguf_close(&g);
    }
    free(real);
    if (rc) {
        ft_free(*out);
        *out = NULL;
    }
    return rc;
}

int ft_base_find(char **out, bool *cached, char **origin, const char *name, const char *revision,
                 const char *folder)
{
    char *found;
    if (origin)
        *origin = NULL;
    FT_TRY(ft_hub_find(&found, cached, "model", name, revision, folder));
    if (!ft_gguf_is(found)) {
        *out = found;
        return FT_OK;
    }
    int rc = unfold(found, out, origin);
    ft_free(found);
    return rc;
}
