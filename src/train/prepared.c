/* The tokenized file of a text source: found by everything that its tokens depend on, or built by
 * one of the processes that want it. */
#define _GNU_SOURCE
#include "train/internal.h"

#include "core/file.h"
#include "core/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- the key --- */

static void add_text(struct ft_sha256 *h, const char *name, const char *text)
{
    ft_sha256_add(h, name, strlen(name) + 1);
    ft_sha256_add(h, text ? text : "", text ? strlen(text) + 1 : 0);
}

static void add_list(struct ft_sha256 *h, const char *name, const char *const *list)
{
    for (; list && *list; list++)
        add_text(h, name, *list);
}

static int add_file(struct ft_sha256 *h, const char *name, const char *path)
{
    char hex[65];
    if (!ft_sha256_file(path, hex, NULL))
        return ft_fail_at((struct ft_where){.file = path}, FT_EDATA, "cannot be read: %s",
                          strerror(errno));
    add_text(h, name, hex);
    return FT_OK;
}

static int find_key(char key[65], const struct ft_source *s, const struct ft_texts *t)
{
    const struct ft_format_options *o = &s->options;
    const struct {
        const char *name, *text;
    } texts[] = {{"ft", FT_VERSION " 1"},
                 {"type", o->type},
                 {"template", s->template_text},
                 {"file type", s->prepare.file_type},
                 {"split", s->entry->split},
                 {"field", o->field},
                 {"field_messages", o->field_messages},
                 {"field_system", o->field_system},
                 {"field_tools", o->field_tools},
                 {"field_instruction", o->field_instruction},
                 {"field_input", o->field_input},
                 {"field_output", o->field_output},
                 {"format", o->format},
                 {"no_input_format", o->no_input_format},
                 {"system_format", o->system_format},
                 {"system_prompt", o->system_prompt},
                 {"training", o->message_field_training},
                 {"default_system", o->default_system}};
    struct ft_sha256 h;
    char numbers[160], *tokenizer = ft_path_join(t->folder, "tokenizer.json");
    ft_sha256_init(&h);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_text(&h, texts[i].name, texts[i].text);
    add_list(&h, "property", o->properties);
    add_list(&h, "role", o->roles);
    add_list(&h, "trained", o->roles_to_train);
    add_list(&h, "end", o->end_tokens);
    snprintf(numbers, sizeof numbers, "%d %d %d %lld %lld %lld", o->train_on_eos,
             o->train_on_inputs, o->drop_system_message,
             ft_format_cuts(s->format) ? (long long)s->prepare.sequence_len : 0,
             (long long)s->prepare.skip_bad, s->says_date ? o->now / 86400 : 0);
    add_text(&h, "numbers", numbers);
    char *special = json_dumps(t->special, JSON_SORT_KEYS | JSON_COMPACT);
    add_text(&h, "special", special);
    free(special);
    int rc = tokenizer ? add_file(&h, "tokenizer", tokenizer) : FT_ERESOURCE;
    for (char **f = s->files; *f && !rc; f++)
        rc = add_file(&h, "data", *f);
    ft_sha256_hex(&h, key);
    ft_free(tokenizer);
    return rc;
}

/* --- one builds, the others wait --- */

/* The lock is the kernel's: it is gone with the process that held it. */
static int try_lock(int *fd, const char *path)
{
    struct stat mine, there;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot be written: %s",
                          strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0 && fstat(*fd, &mine) == 0 && stat(path, &there) == 0 &&
        mine.st_ino == there.st_ino)
        return FT_OK;
    const bool busy = errno == EWOULDBLOCK || errno == EINTR || errno == ENOENT || errno == 0;
    close(*fd);
    *fd = -1;
    return busy ? FT_OK
                : ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE, "cannot be locked: %s",
                             strerror(errno));
}

static void say_wait(const struct ft_texts *t, const char *lock, const char *path)
{
    char builder[128] = "another process";
    int fd = open(lock, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, builder, sizeof builder - 1) : 0;
    if (n > 0)
        builder[n] = 0;
    if (fd >= 0)
        close(fd);
    if (t->wait)
        t->wait(t->progress_ctx, path, builder);
}

/* Waits until it holds the lock, or `path` is there (*fd -1). */
static int lock_or_file(int *fd, const char *lock, const char *path, const struct ft_texts *t)
{
    const struct timespec moment = {0, 100 * 1000 * 1000};
    bool said = false;
    for (*fd = -1;;) {
        if (ft_file_exists(path))
            return FT_OK;
        errno = 0;
        FT_TRY(try_lock(fd, lock));
        if (*fd >= 0)
            break;
        if (!said)
            say_wait(t, lock, path);
        said = true;
        nanosleep(&moment, NULL);
    }
    char host[64] = "", who[128];
    gethostname(host, sizeof host - 1);
    const int n = snprintf(who, sizeof who, "process %ld on %s", (long)getpid(), host);
    if (ftruncate(*fd, 0) == 0 && write(*fd, who, (size_t)n) == n)
        return FT_OK; /* who holds it is only said, never relied on */
    return FT_OK;
}

static int build(const struct ft_source *s, const struct ft_texts *t, const char *path,
                 const char *key, struct ft_audit *audit)
{
    char tokenizer[65] = "", template[65] = "", *file = ft_path_join(t->folder, "tokenizer.json");
    struct ft_sha256 h;
    if (!file || !ft_sha256_file(file, tokenizer, NULL))
        tokenizer[0] = 0;
    ft_free(file);
    ft_sha256_init(&h);
    add_text(&h, "", s->template_text);
    ft_sha256_hex(&h, template);
    const char *const meta[][2] = {{"key", key},
                                   {"tokenizer_sha256", tokenizer},
                                   {"template_sha256", s->template_text ? template : ""},
                                   {"type", s->options.type}};
    return ft_prepare_file(&s->prepare, 1, path, meta, 4, audit);
}

int ft_source_prepared(char **path, const struct ft_source *s, const struct ft_texts *t,
                       struct ft_audit *audit)
{
    const char *folder = t->config->dataset_prepared_path;
    char key[65], *lock = NULL;
    int fd = -1, rc;
    *path = NULL;
    FT_TRY(find_key(key, s, t));
    FT_TRY(ft_make_folders(folder));
    *path = ft_format("%s/%.32s.safetensors", folder, key);
    lock = ft_format("%s/%.32s.lock", folder, key);
    FT_GO(*path && lock ? FT_OK : FT_ERESOURCE);
    /* a file that cannot be read is built again */
    if (ft_file_exists(*path) && ft_prepared_audit(*path, audit))
        goto out;
    unlink(*path);
    FT_GO(lock_or_file(&fd, lock, *path, t));
    if (ft_file_exists(*path)) {
        if (!ft_prepared_audit(*path, audit))
            rc = ft_fail_at((struct ft_where){.file = *path}, FT_EDATA,
                            "is not a dataset that ft prepared; delete it");
        goto out;
    }
    rc = build(s, t, *path, key, audit);
out:
    if (fd >= 0) {
        unlink(lock);
        close(fd);
    }
    ft_free(lock);
    if (rc) {
        ft_free(*path);
        *path = NULL;
    }
    return rc;
}
