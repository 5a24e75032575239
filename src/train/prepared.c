/* The tokenized file of a text source: found by everything that its tokens depend on, or built by
 * one of the processes that want it. */
#define _GNU_SOURCE
#include "train/internal.h"

#include "core/file.h"
#include "core/json.h"
#include "core/sha256.h"
#include "core/text.h"
#include "io/records.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- the key --- */

/* Absent is not empty. */
static void add_text(struct ft_sha256 *h, const char *name, const char *text)
{
    ft_sha256_add(h, name, strlen(name) + 1);
    ft_sha256_add(h, text ? "=" : "-", 1);
    ft_sha256_add(h, text ? text : "", text ? strlen(text) + 1 : 0);
}

static void add_list(struct ft_sha256 *h, const char *name, const char *const *list)
{
    add_text(h, name, list ? "" : NULL);
    for (; list && *list; list++)
        add_text(h, name, *list);
}

/* The date as templates say it; the time, too, for templates that might say that. */
static void add_date(struct ft_sha256 *h, const struct ft_source *s)
{
    static const char *const times[] = {"%H", "%I", "%M", "%S", "%c", "%X", "%T", "%R", "%r", "%s"};
    const time_t now = (time_t)s->options.now;
    struct tm tm;
    char text[64] = "";
    if (!s->says_date)
        return;
    const char *format = "%Y-%m-%d %Z";
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (strstr(s->template_text, times[i]))
            format = "%Y-%m-%d %H:%M:%S %Z";
    if (localtime_r(&now, &tm))
        strftime(text, sizeof text, format, &tm);
    add_text(h, "date", text);
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

/* The files that say more of tokens than tokenizer.json. */
static int add_beside(struct ft_sha256 *h, const char *folder)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    int rc = FT_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && !rc; i++) {
        char *path = ft_path_join(folder, names[i]);
        rc = !path ? FT_ERESOURCE : ft_file_exists(path) ? add_file(h, names[i], path) : FT_OK;
        ft_free(path);
    }
    return rc;
}

static int find_key(char key[65], const struct ft_source *s, const struct ft_texts *t)
{
    const struct ft_format_options *o = &s->options;
    const struct {
        const char *name, *text;
    } texts[] = {{"ft", FT_VERSION " 3"},
                 {"type", o->type},
                 {"template", s->template_text},
                 {"template with tools", s->tools_text},
                 {"file type", s->prepare.file_type},
                 {"split", s->entry->split},
                 {"field", o->field},
                 {"field_messages", o->field_messages},
                 {"field_system", o->field_system},
                 {"field_tools", o->field_tools},
                 {"field_history", o->field_history},
                 {"field_instruction", o->field_instruction},
                 {"field_input", o->field_input},
                 {"field_output", o->field_output},
                 {"format", o->format},
                 {"no_input_format", o->no_input_format},
                 {"system_format", o->system_format},
                 {"system_prompt", o->system_prompt},
                 {"training", o->message_field_training},
                 {"training detail", o->message_field_training_detail},
                 {"thinking", o->thinking_key},
                 {"default_system", o->default_system}};
    const unsigned since = ft_alloc_failures();
    struct ft_sha256 h;
    char numbers[160], *tokenizer = ft_path_join(t->folder, "tokenizer.json");
    ft_sha256_init(&h);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_text(&h, texts[i].name, texts[i].text);
    add_list(&h, "property", o->properties);
    add_list(&h, "role", o->roles);
    add_list(&h, "trained", o->roles_to_train);
    add_list(&h, "end", o->end_tokens);
    add_list(&h, "new", (const char *const *)t->config->tokens);
    add_list(&h, "new end", (const char *const *)t->config->eot_tokens);
    snprintf(numbers, sizeof numbers, "%d %d %d %d %lld %lld", o->train_on_eos, o->train_on_inputs,
             o->drop_system_message, o->split_thinking,
             ft_format_cuts(s->format) ? (long long)s->prepare.sequence_len : 0,
             (long long)s->prepare.skip_bad);
    add_text(&h, "numbers", numbers);
    char *special =
        ft_json_dumps(s->names ? s->names : t->special, JSON_SORT_KEYS | JSON_COMPACT, since);
    add_text(&h, "special", special);
    add_date(&h, s);
    int rc = special && tokenizer ? add_file(&h, "tokenizer", tokenizer) : FT_ERESOURCE;
    ft_json_free(special);
    if (!rc)
        rc = add_beside(&h, t->folder);
    for (char **f = s->files; *f && !rc; f++) {
        add_text(&h, "kind", ft_records_kind(*f));
        add_text(&h, "name", *f); /* which messages give */
        rc = add_file(&h, "data", *f);
    }
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

/* Locks that killed jobs left: nobody holds them. */
static void sweep_locks(const char *folder)
{
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        int fd = -1;
        char *path = ft_ends_with(e->d_name, ".lock") ? ft_path_join(folder, e->d_name) : NULL;
        if (path && try_lock(&fd, path) == FT_OK && fd >= 0) {
            unlink(path);
            close(fd);
        }
        ft_free(path);
    }
    if (d)
        closedir(d);
    ft_status_clear_errors(); /* of another's files: the next job tries again */
}

static void say_wait(const char *lock, const char *path)
{
    char builder[128] = "another process";
    int fd = open(lock, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, builder, sizeof builder - 1) : 0;
    if (n > 0)
        builder[n] = 0;
    if (fd >= 0)
        close(fd);
    ft_waiting("waiting for %s, which prepares %s", builder, path);
}

/* Whether the prepared file is there and sound; FT_ERESOURCE if that cannot be told. */
static int look(bool *sound, const char *path, const char *key, struct ft_audit *audit)
{
    *sound = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? FT_OK
                               : ft_fail_at((struct ft_where){.file = path}, FT_ERESOURCE,
                                            "cannot be read: %s", strerror(errno));
    close(fd);
    const unsigned since = ft_alloc_failures();
    *sound = ft_prepared_audit(path, key, audit);
    return ft_alloc_check(since);
}

/* Waits until it holds the lock, or a sound file is there (*fd -1). */
static int lock_or_file(int *fd, const char *lock, const char *path, const char *key,
                        struct ft_audit *audit)
{
    const struct timespec moment = {0, 100 * 1000 * 1000};
    bool said = false, sound;
    for (*fd = -1;;) {
        FT_TRY(look(&sound, path, key, audit));
        if (sound)
            return FT_OK;
        errno = 0;
        FT_TRY(try_lock(fd, lock));
        if (*fd >= 0)
            break;
        if (!said)
            say_wait(lock, path);
        said = true;
        nanosleep(&moment, NULL);
    }
    /* who holds it is only said, never relied on */
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    if (ftruncate(*fd, 0) == 0)
        dprintf(*fd, "process %ld on %s", (long)getpid(), host);
    return FT_OK;
}

/* The files' sizes and times: changed while they are read means that the key is not theirs. */
static void stamp(struct ft_sha256 *h, const struct ft_source *s)
{
    ft_sha256_init(h);
    for (char **f = s->files; *f; f++) {
        struct stat st;
        memset(&st, 0, sizeof st);
        if (stat(*f, &st) == 0) {
            ft_sha256_add(h, &st.st_size, sizeof st.st_size);
            ft_sha256_add(h, &st.st_mtim, sizeof st.st_mtim);
            ft_sha256_add(h, &st.st_ino, sizeof st.st_ino);
        }
    }
}

static int build(const struct ft_source *s, const struct ft_texts *t, const char *path,
                 const char *key, struct ft_audit *audit)
{
    char tokenizer[65], template[65];
    struct ft_sha256 h;
    FT_TRY(ft_tokenizer_sha256(t->folder, tokenizer));
    ft_sha256_init(&h);
    add_text(&h, "", s->template_text);
    ft_sha256_hex(&h, template);
    const char *const meta[][2] = {{"key", key},
                                   {"tokenizer_sha256", tokenizer},
                                   {"template_sha256", s->template_text ? template : ""},
                                   {"type", s->options.type}};
    return ft_prepare_file(&s->prepare, 1, path, meta, 4, audit, NULL, NULL);
}

int ft_source_prepared(char **path, const struct ft_source *s, const struct ft_texts *t,
                       struct ft_audit *audit)
{
    const char *folder = t->config->dataset_prepared_path;
    char key[65], before[65], after[65], *lock = NULL;
    struct ft_sha256 h;
    bool sound = false;
    int fd = -1, rc;
    *path = NULL;
    stamp(&h, s);
    ft_sha256_hex(&h, before);
    FT_TRY(find_key(key, s, t));
    FT_TRY(ft_make_folders(folder));
    *path = ft_format("%s/%.32s.safetensors", folder, key);
    lock = ft_format("%s/%.32s.lock", folder, key);
    FT_GO(*path && lock ? FT_OK : FT_ERESOURCE);
    FT_GO(lock_or_file(&fd, lock, *path, key, audit));
    if (fd >= 0)
        FT_GO(look(&sound, *path, key, audit));
    if (fd < 0 || sound)
        goto out;
    unlink(*path); /* a damaged one */
    ft_writer_sweep(*path);
    sweep_locks(folder);
    FT_GO(build(s, t, *path, key, audit));
    stamp(&h, s);
    ft_sha256_hex(&h, after);
    if (strcmp(before, after) != 0) {
        unlink(*path);
        rc = ft_fail_at(s->entry->at, FT_ERESOURCE, "'%s' has changed while it was read",
                        s->entry->path);
    }
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
