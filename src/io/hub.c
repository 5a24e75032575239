/* Owns looking models up in the local Hugging Face cache. */
#include "io/hub.h"

#include "core/file.h"
#include "core/mem.h"
#include "core/text.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* A name's length without its ending. */
static int stem(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? (int)(dot - name) : (int)strlen(name);
}

/* How far a name is from another: 0 but for its case, -1 if it is another word. */
static int distance(const char *a, const char *b)
{
    char own[256], other[256];
    if (strcasecmp(a, b) == 0)
        return 0;
    snprintf(own, sizeof own, "%.*s", stem(a), a);
    snprintf(other, sizeof other, "%.*s", stem(b), b);
    const int far = ft_edit_distance(own, other);
    return far > ((int)strlen(own) + 1) / 3 ? -1 : 1 + ft_edit_distance(a, b);
}

/* The folder of a path, and the name in it that was probably meant ("": none). */
static void find_meant(const char *name, char folder[4096], char best[256])
{
    const char *slash = strrchr(name, '/'), *own = slash ? slash + 1 : name;
    int least = -1;
    snprintf(folder, 4096, "%.*s", slash ? (int)(slash - name) + (slash == name) : 1,
             slash ? name : ".");
    best[0] = 0;
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        const int far = e->d_name[0] == '.' ? -1 : distance(own, e->d_name);
        if (far >= 0 && (least < 0 || far < least)) {
            least = far;
            snprintf(best, 256, "%s", e->d_name);
        }
    }
    if (d)
        closedir(d);
}

/* What looks like a path and no id: it has a data file's ending, its folder is there, or a file
 * that is called nearly so is here. */
static bool is_path(const char *name)
{
    static const char *const endings[] = {".jsonl",       ".json", ".ndjson", ".txt",
                                          ".text",        ".csv",  ".gz",     ".parquet",
                                          ".safetensors", ".yaml", ".yml",    ".arrow"};
    const char *slash = strrchr(name, '/');
    char folder[4096], best[256];
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (n > strlen(endings[i]) && strcasecmp(name + n - strlen(endings[i]), endings[i]) == 0)
            return true;
    if (!slash) {
        find_meant(name, folder, best);
        return best[0] != 0;
    }
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
    return ft_is_folder(folder);
}

/* There is no such path. */
static int no_path(const char *kind, const char *name)
{
    const char *slash = strrchr(name, '/');
    char folder[4096], best[256];
    find_meant(name, folder, best);
    ft_fail(FT_EDATA, "%s '%s' does not exist", kind, name);
    if (*best)
        ft_hint("did you mean '%.*s%s'?", slash ? (int)(slash - name) + 1 : 0, name, best);
    else if (!ft_is_folder(folder))
        ft_hint(
            "there is no folder '%s'; relative paths begin in the working folder, or else in the "
            "config's",
            folder);
    return FT_EDATA;
}

int ft_hub_find(char **out, bool *cached, const char *kind, const char *name, const char *revision,
                const char *folder)
{
    *out = NULL;
    *cached = false;
    *out = ft_path_find(folder, name);
    if (!*out || ft_file_exists(*out))
        return *out ? FT_OK : FT_ERESOURCE;
    ft_free(*out);
    *out = NULL;
    if (!is_id(name) || is_path(name))
        return no_path(kind, name);
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
