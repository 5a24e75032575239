/* What the commands share. */
#ifndef FT_CLI_H
#define FT_CLI_H

#include "config/config.h"

#include <pthread.h>
#include <stdio.h>

/* A command: its row in main.c's table. run gets the words behind the command's name. */
struct ft_command {
    const char *name, *arguments, *summary, *help;
    int (*run)(const struct ft_command *self, int n, char **words);
};

int ft_cmd_train(const struct ft_command *self, int n, char **words);
int ft_cmd_plan(const struct ft_command *self, int n, char **words);
int ft_cmd_bench(const struct ft_command *self, int n, char **words);
int ft_cmd_init(const struct ft_command *self, int n, char **words);
int ft_cmd_data(const struct ft_command *self, int n, char **words);
int ft_cmd_tokenize(const struct ft_command *self, int n, char **words);
int ft_cmd_generate(const struct ft_command *self, int n, char **words);
int ft_cmd_chat(const struct ft_command *self, int n, char **words);
int ft_cmd_eval(const struct ft_command *self, int n, char **words);
int ft_cmd_merge(const struct ft_command *self, int n, char **words);
int ft_cmd_export(const struct ft_command *self, int n, char **words);
int ft_cmd_report(const struct ft_command *self, int n, char **words);
int ft_cmd_compare(const struct ft_command *self, int n, char **words);
int ft_cmd_config(const struct ft_command *self, int n, char **words);
int ft_cmd_man(const struct ft_command *self, int n, char **words);
int ft_cmd_completions(const struct ft_command *self, int n, char **words);

extern const struct ft_command ft_commands[]; /* a name of NULL ends */
extern const char ft_exit_codes[];

/* Prints a command's help page. */
void ft_command_help(FILE *out, const struct ft_command *c);

/* data.c: shows on a terminal how far text is tokenized, and what is waited for. */
struct ft_job_hooks;
extern const struct ft_job_hooks ft_data_hooks;
/* The first documents of all text datasets of a config, their trained text in colour, or marked. */
int ft_show_documents(const struct ft_config *c, int64_t n);

/* "--flag" among words: removes it and returns true. */
bool ft_take_flag(int *n, char **words, const char *flag);
/* "--flag TEXT" or "--flag=TEXT": removes both; FT_ECONFIG if there is no text. */
int ft_take_text(const struct ft_command *self, int *n, char **words, const char *flag,
                 const char **out);
/* "--flag N" or "--flag=N": removes both; FT_ECONFIG if N is not a whole number from 1. */
int ft_take_number(const struct ft_command *self, int *n, char **words, const char *flag,
                   int64_t *out);
/* --- scratch.c: a temporary folder that goes with the command, whatever ends it --- */

struct ft_scratch {
    char path[512]; /* "": not open */
    int lock;
    bool waits;
    pthread_t waiter; /* for signals */
};
/* Before threads are made. FT_ERESOURCE. s must not move while it is open. */
int ft_scratch_open(struct ft_scratch *s);
void ft_scratch_close(struct ft_scratch *s);

/* A word that begins with "-" and was taken by nothing: FT_ECONFIG. */
int ft_refuse_flags(const struct ft_command *self, int n, char **words);
/* Whether the words are a config file and overrides: *path is the first, or NULL. FT_ECONFIG */
int ft_config_words(const struct ft_command *self, int n, char **words, const char **path);
/* The config file and overrides among words. */
int ft_read_config_words(struct ft_config *c, const struct ft_command *self, int n, char **words);

/* A word as a shell reads it, whatever is in it. */
void ft_put_shell_word(FILE *out, const char *text);

/* Notices so far, to stderr; they are then forgotten. */
void ft_print_notices(void);
/* From now on they are forgotten unseen: another process says the same. */
void ft_silence_notices(void);

/* Seconds at which the program began. */
extern double ft_started;

/* A table of the time each kind of op took. */
struct ft_profile;
void ft_print_profile(FILE *out, const struct ft_profile *p);

/* What a training prints. */
struct ft_shown {
    bool quiet, json, profile;
};
/* sweep.c: the runs of a config with lists of values, a process each, one after the other; or
 * (array) a Slurm array of them on stdout. FT_EREQUEUE: interrupted; else the first code of a run
 * that failed. */
int ft_sweep(const struct ft_command *self, int n, char **words, struct ft_shown show, bool array);

/* plan.c: what a job needs of Slurm. */
struct ft_slurm_needs {
    bool gpu;
    int processors;
    long megabytes, minutes;
};
struct ft_job;
struct ft_slurm_needs ft_slurm_needs(const struct ft_job *j, double seconds);
void ft_print_slurm(FILE *out, const char *indent, const struct ft_slurm_needs *needs);

/* "12.3 MB" into a buffer of 32 bytes. */
const char *ft_bytes_text(char *out, double bytes);

#endif
