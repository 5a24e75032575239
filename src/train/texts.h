/* The datasets of a config: from its entries to tokenized files. */
#ifndef FT_TRAIN_TEXTS_H
#define FT_TRAIN_TEXTS_H

#include "config/config.h"
#include "data/prepare.h"

/* What the base model's folder says about text. */
struct ft_texts {
    const struct ft_config *config;
    char *folder;
    struct ft_tokenizer *tokenizer;
    json_t *special; /* special tokens by name, with the config's own */
    int32_t bos, eos;
    int64_t embeddings;   /* config.json's vocab_size; 0: it does not say */
    struct ft_pool *pool; /* not owned */
    ft_prepare_progress_fn *progress;
    void *progress_ctx;
};
/* folder: the base model's. FT_EDATA, FT_ECONFIG. */
int ft_texts_open(struct ft_texts *t, const struct ft_config *c, const char *folder,
                  struct ft_pool *pool);
void ft_texts_close(struct ft_texts *t);
/* The tokens that the config adds to the tokenizer, or gives it another name for; the caller frees
 * the list, not the texts. */
int ft_texts_new_tokens(const struct ft_config *c, struct ft_new_token **out);
/* SHA-256 of a model folder's tokenizer.json, which tokenized files carry as tokenizer_sha256; ""
 * if there is none. FT_ERESOURCE. */
int ft_tokenizer_sha256(const char *folder, char hex[65]);

/* What the config's entries name, without looking at a file: formats and templates. FT_ECONFIG. */
int ft_texts_check(const struct ft_config *c);

/* One entry of datasets, opened: which files, how they are read. */
struct ft_source {
    const struct ft_dataset_config *entry;
    const char *type; /* the entry's, or "tokenized" where it has none and the records have ids */
    char **files;     /* NULL ends */
    struct ft_format_options options;
    json_t *names; /* what templates are given besides messages: special tokens and more */
    struct ft_chat *chat;
    struct ft_format *format;
    struct ft_prepare prepare;
    const char **properties;
    char *template_text, *template_name, *tools_text, *tools_name;
    bool says_date;
};
/* Finds the files; for text, opens format and template with t, which may be NULL for tokenized
 * files. */
int ft_source_open(struct ft_source *s, const struct ft_texts *t, const struct ft_config *c,
                   const struct ft_dataset_config *entry);
void ft_source_close(struct ft_source *s);
/* Which files s->entry names (files.c): sets s->files and the slice of s->prepare. FT_EDATA,
 * FT_ECONFIG. */
int ft_source_files(struct ft_source *s, const struct ft_config *c);
/* Whether an entry needs ft_texts. */
bool ft_source_is_text(const struct ft_dataset_config *entry);

/* The tokenized file of a text source in dataset_prepared_path: the one that is there for this very
 * tokenizer, template, format and content, or a new one. Of processes that ask at the same time one
 * builds and the others wait. Caller frees *path. */
int ft_source_prepared(char **path, const struct ft_source *s, const struct ft_texts *t,
                       struct ft_audit *audit);

#endif
