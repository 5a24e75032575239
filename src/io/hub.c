/* Owns looking models up in the local Hugging Face cache. */
#include "io/hub.h"

#include "core/file.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

/* "org/name" or "name", of the characters that the Hub allows. */
static bool is_id(const char *s)
{
    int slashes = 0;
    if (!*s || *s == '.' || *s == '/')
        return false;
    for (const char *p = s; *p; p++) {
        slashes += *p == '/';
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-_./", *p);
        if (!plain)
            return false;
    }
    return slashes <= 1 && s[strlen(s) - 1] != '/';
}

static char *cache_folder(void)
{
    const char *v = getenv("HF_HUB_CACHE");
    if (v && *v)
        return ft_strdup(v);
    if ((v = getenv("HF_HOME")) && *v)
        return ft_path_join(v, "hub");
    if ((v = getenv("XDG_CACHE_HOME")) && *v)
        return ft_path_join(v, "huggingface/hub");
    return ft_path_join((v = getenv("HOME")) ? v : ".", ".cache/huggingface/hub");
}

/* The repository's folder in the cache: models--org--name */
static char *repository(const char *cache, const char *kind, const char *id)
{
    const char *slash = strchr(id, '/');
    if (slash)
        return ft_format("%s/%ss--%.*s--%s", cache, kind, (int)(slash - id), id, slash + 1);
    return ft_format("%s/%ss--%s", cache, kind, id);
}

/* The snapshot that a branch or tag names. *out NULL if there is none. */
static int snapshot(char **out, const char *repo, const char *revision)
{
    char *ref = ft_format("%s/refs/%s", repo, revision ? revision : "main"), *hash = NULL;
    size_t len;
    int rc = ref ? FT_OK : FT_ERESOURCE;
    *out = NULL;
    if (!rc && ft_file_exists(ref)) {
        rc = ft_file_read(ref, 4096, FT_EDATA, &hash, &len);
        if (!rc) {
            hash[strcspn(hash, " \r\n")] = 0;
            *out = strchr(hash, '/') ? NULL : ft_format("%s/snapshots/%s", repo, hash);
            ft_free(hash);
        }
    }
    ft_free(ref);
    if (!rc && !*out && revision) /* a commit's own name */
        *out = ft_format("%s/snapshots/%s", repo, revision);
    if (*out && !ft_is_folder(*out)) {
        ft_free(*out);
        *out = NULL;
    }
    return rc;
}

int ft_hub_find(char **out, bool *cached, const char *kind, const char *name, const char *revision,
                const char *folder)
{
    *out = NULL;
    *cached = false;
    if (ft_file_exists(name))
        return (*out = ft_strdup(name)) ? FT_OK : FT_ERESOURCE;
    if (folder && name[0] != '/') {
        char *beside = ft_path_join(folder, name);
        if (!beside || ft_file_exists(beside))
            return (*out = beside) ? FT_OK : FT_ERESOURCE;
        ft_free(beside);
    }
    if (!is_id(name))
        return ft_fail(FT_EDATA, "'%s' does not exist", name);
    char *cache = cache_folder(), *repo = cache ? repository(cache, kind, name) : NULL;
    int rc = repo ? snapshot(out, repo, revision) : FT_ERESOURCE;
    *cached = !rc && *out;
    if (!rc && !*out) {
        rc = ft_fail(FT_EDATA, "'%s' is neither a path nor in the Hugging Face cache (%s)", name,
                     cache);
        ft_hint("ft never uses the network; download it with: hf download %s%s%s%s", name,
                strcmp(kind, "model") == 0 ? "" : " --repo-type dataset",
                revision ? " --revision " : "", revision ? revision : "");
    }
    ft_free(repo);
    ft_free(cache);
    return rc;
}
