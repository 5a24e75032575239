/* What the tests of the program share: running ft and looking at what it says. */
#ifndef FT_TESTS_CLI_H
#define FT_TESTS_CLI_H

#include "tests/check.h"

/* The exit code of a shell command; its output (both streams) is in shell_output. @FT stands for
 * the program, @D for the test's own folder. -signal if it was killed by one. */
int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern char shell_output[1 << 18];

/* A fresh folder for this case, holding model/ (a copy of the golden case "base", a model and an
 * adapter) and ok.yaml, a config that trains on it for two steps; the last one is removed. */
const char *fresh_folder(void);
void remove_fresh_folder(void);
/* A fresh folder with shake/ (a copy of the small model that ships), data.jsonl with these lines,
 * and c.yaml, a config that trains on them for two steps. */
void fresh_text(const char *type, const char *lines);

/* Makes this the template of fresh_text's config. */
void write_template(const char *text);

/* A record with a question and an answer. */
#define CHAT(question, answer)                                                                     \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"" question "\"}, {\"role\": "             \
    "\"assistant\", \"content\": \"" answer "\"}]}"

/* The command exits with `code` and its output has `part`. */
#define EXPECT(code, part, ...)                                                                    \
    do {                                                                                           \
        CHECK_INT(shell(__VA_ARGS__), code);                                                       \
        CHECK_HAS(shell_output, part);                                                             \
    } while (0)

#endif
