/* Whole files, exact reads, atomic writes. */
#ifndef FT_CORE_FILE_H
#define FT_CORE_FILE_H

#include "core/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool ft_file_exists(const char *path);
bool ft_is_folder(const char *path);

/* Writes a small file anew under another name, as ft_file_write() does. */
int ft_file_copy(const char *from, const char *to);

/* The whole of a regular file, with a zero byte behind it; caller frees *data with ft_free. Errors
 * are reported with `code` and name the path and the reason. most: refuse larger files. */
int ft_file_read(const char *path, size_t most, enum ft_code code, char **data, size_t *len);

/* If a file that begins with these bytes is no file of its own name's kind, but a Git LFS pointer
 * or an HTML page that was saved in its place: says so (code, with a hint), else FT_OK. */
int ft_file_foreign(const char *path, const void *head, size_t n, enum ft_code code);

/* Exactly n bytes at offset; FT_ERESOURCE if the file is shorter by now or cannot be read. */
int ft_pread(int fd, const char *path, void *buf, size_t n, int64_t offset);

/* Exactly n bytes at offset. FT_ERESOURCE. */
int ft_pwrite(int fd, const char *path, const void *data, size_t n, int64_t offset);

/* Writes path by way of a temporary file beside it, fsynced and renamed, then fsyncs the folder:
 * the file is either the old one or the whole new one. FT_ERESOURCE; the temporary is removed. */
int ft_file_write(const char *path, const void *data, size_t len);

/* The same in parts, for contents too large to hold: */
struct ft_writer {
    int fd;
    char path[4096], temp[4200];
};
int ft_writer_open(struct ft_writer *w, const char *path);
int ft_writer_put(struct ft_writer *w, const void *data, size_t len);
int ft_writer_commit(struct ft_writer *w); /* closes w in any case */
void ft_writer_abort(struct ft_writer *w); /* removes the temporary; harmless after commit */
/* From now on every put fails with FT_EREQUEUE once *stop is not 0, so that who writes leaves as
 * after any failure; NULL: none does. */
void ft_writer_heed(const volatile sig_atomic_t *stop);

/* Removes what processes that were killed left of writing path; nobody else may be writing it. */
void ft_writer_sweep(const char *path);

/* A nameless file in the folder of `path`, for what is too large to hold: gone when it is closed.
 * Starts as FT_SPOOL_CLOSED. FT_ERESOURCE. */
struct ft_spool {
    int fd; /* -1: closed */
    int64_t bytes;
    char *buffer, *beside; /* beside: what messages name */
    size_t n;
};
#define FT_SPOOL_CLOSED ((struct ft_spool){.fd = -1})
int ft_spool_open(struct ft_spool *s, const char *path);
int ft_spool_put(struct ft_spool *s, const void *data, size_t len);
/* Appends all of it to w. */
int ft_spool_copy(struct ft_spool *s, struct ft_writer *w);
void ft_spool_close(struct ft_spool *s);

/* Fsyncs the folder that path lies in. FT_ERESOURCE. */
int ft_sync_folder_of(const char *path);

/* Removes a folder and the files in it; folders in it stay, and it then. */
void ft_remove_folder(const char *path);

/* Creates a folder and its parents; FT_ERESOURCE. */
int ft_make_folders(const char *path);

/* Whether both are there (and not NULL), and are one file or folder. */
bool ft_same_file(const char *a, const char *b);

/* A path as given if it is there, else in `folder` (may be NULL) if it is there, else as given.
 * Where both are there and are not one, says which is taken. NULL if memory is short. */
char *ft_path_find(const char *folder, const char *path);

/* The home folder, where a path is "~" or begins with "~/"; NULL if not, or HOME is not set. */
const char *ft_path_home(const char *path);

/* What is behind the last '/', or the whole where nothing is. */
const char *ft_path_name(const char *path);

/* "a/b": b appended to folder a, or b alone where it is absolute. NULL if memory is short. */
char *ft_path_join(const char *a, const char *b);

#endif
