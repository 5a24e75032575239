/* What the golden and end-to-end tests share: jobs from overrides, runs, adapter files. */
#ifndef FT_TESTS_GOLDEN_GOLDEN_H
#define FT_TESTS_GOLDEN_GOLDEN_H

#include "io/safetensors.h"
#include "tests/check.h"
#include "train/train.h"

enum { MAX_OVERRIDES = 32 };

/* A config from overrides, NULL-terminated; later ones win. */
struct setup {
    const char *list[MAX_OVERRIDES];
    char text[MAX_OVERRIDES][512];
    int n;
};
void setup_add(struct setup *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Continue the golden case's adapter over all of its documents in one window. */
void setup_golden(struct setup *s, const char *name);

struct opened {
    struct ft_config config;
    struct ft_job job;
};
/* Opens, places and loads; on failure prints the report and fails the case. */
bool open_setup(struct opened *o, const struct setup *s);
void close_setup(struct opened *o);

/* Trains in a fresh folder under the system's temporary one; its path goes to `folder`. */
bool train_setup(const struct setup *s, char folder[256], struct ft_train_result *r);
/* Losses of metrics.jsonl's training lines. */
int read_losses(const char *folder, double *out, int most);
void make_folder(char folder[256]); /* under the system's temporary one */
void remove_folder(const char *folder);

/* All f32 (or F64) elements of a tensor of a file; NULL and a failure if absent. Caller frees. */
double *read_values(const struct ft_st *f, const char *name, int64_t *n);
bool same_files(const char *a, const char *b);

/* Runs one pass (or evaluation) over all documents of the job, as one batch. */
void run_all(struct ft_job *j, enum ft_program p);

/* A f32 tensor's values, from wherever it lies. Caller frees. */
float *read_floats(struct ft_job *j, const struct ft_tensor *t);

/* The names of the golden cases. */
enum { MAX_CASES = 256 };
/* Whether the case trains the model itself. */
bool golden_is_full(const char *name);
int golden_cases(char names[MAX_CASES][64]);

#endif
