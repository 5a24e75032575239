/* The config: one table of options, and the checked struct it fills.
 *
 * Every option is one row of ft_options[] (options.c), which drives parsing, type and range checks,
 * defaults, suggestions, --explain, the JSON schema and the dump. Only cli/ and train/ see the
 * whole struct. */
#ifndef FT_CONFIG_CONFIG_H
#define FT_CONFIG_CONFIG_H

#include "config/yaml.h"

#include <stdint.h>
#include <jansson.h>
#include <stdio.h>

enum ft_auto { FT_FALSE, FT_TRUE, FT_AUTO, FT_UNSET };
enum ft_device { FT_DEVICE_AUTO, FT_DEVICE_CPU, FT_DEVICE_CUDA };
enum ft_optimizer { FT_ADAMW, FT_SGD, FT_LION, FT_ADAFACTOR, FT_MUON, FT_ADAMW_8BIT, FT_LION_8BIT };
enum ft_eval_strategy { FT_EVAL_UNSET, FT_EVAL_NO, FT_EVAL_STEPS, FT_EVAL_EPOCH };
enum ft_save_strategy { FT_SAVE_UNSET, FT_SAVE_NO, FT_SAVE_STEPS, FT_SAVE_EPOCH, FT_SAVE_BEST };
enum ft_schedule { FT_COSINE, FT_LINEAR, FT_CONSTANT, FT_CONSTANT_WARMUP };

/* An entry of datasets or test_datasets; members are named as its keys. Lists end with NULL. */
struct ft_dataset_config {
    const char *path,
        *type; /* type: "user_defined" where it is a map; NULL: what the records say */
    const char **data_files, *ds_type, *name, *split, *revision;
    const char *field, *field_messages, *field_system, *field_tools;
    const char *field_instruction, *field_input, *field_output;
    const char *format, *no_input_format, *system_format, *system_prompt;
    const char **message_property_mappings; /* pairs: the template's name, the record's */
    const char **roles;                     /* pairs: the record's, the template's */
    const char **roles_to_train, **eot_tokens;
    const char *message_field_role, *message_field_content, *message_field_training;
    const char *chat_template, *chat_template_jinja;
    const struct ft_yaml *chat_template_kwargs;
    const char *message_field_training_detail, *field_thinking, *template_thinking_key;
    const char *field_history;
    int train_on_eos;    /* 0 to 3: turn, all, last, none, as enum ft_train_on; 4: unset */
    int train_on_eot;    /* the same; once read, train_on_eos has it */
    int train_on_inputs; /* -1: unset */
    bool drop_system_message, split_thinking;
    struct ft_where at;
};

enum ft_biases { FT_BIASES_NONE, FT_BIASES_ALL, FT_BIASES_LORA_ONLY };

/* An entry of lora_rank_pattern or lora_alpha_pattern. */
struct ft_pattern_config {
    const char *key;
    double value;
};

/* Rows of an embedding or a head: an entry of peft_trainable_token_indices. */
struct ft_rows_config {
    const char *module; /* NULL: the embedding */
    int64_t *rows;      /* -1 ends; NULL ends the entries */
};

/* Members are named as their keys. Strings and lists live in arena; an unset string is NULL, an
 * unset list has length 0. Numbers without a fixed default hold NAN or -1 until resolved. */
struct ft_config {
    struct ft_arena arena;
    /* model */
    const char *base_model, *base_model_name, *revision_of_model;
    bool allow_nonfinite_weights;
    bool quantize_moe_experts, load_in_4bit, load_in_8bit;
    const struct ft_yaml *bnb_config_kwargs; /* or NULL; read: bnb */
    struct ft_bnb_config {
        bool fp4, nested;
        const char **skip; /* modules; NULL ends, or NULL */
    } bnb;
    /* adapter */
    const char *adapter;
    int64_t lora_r;
    double lora_alpha;
    double lora_dropout;
    const char **lora_target_modules;    /* NULL-terminated, or NULL */
    const char **lora_target_parameters; /* likewise */
    const char *lora_target_regex;       /* lora_target_modules given as one text */
    bool lora_target_linear, peft_use_rslora, peft_use_dora;
    const char *peft_init_lora_weights;
    double loraplus_lr_ratio; /* 0: none */
    double loraplus_lr_embedding;
    const char **lora_modules_to_save, **unfrozen_parameters;         /* NULL ends; or NULL */
    struct ft_rows_config *peft_trainable_token_indices;              /* or NULL */
    int bias;                                                         /* enum ft_biases */
    int64_t *peft_layers_to_transform;                                /* -1 ends, or NULL */
    struct ft_pattern_config *lora_rank_pattern, *lora_alpha_pattern; /* key NULL ends, or NULL */
    const char *lora_model_dir;
    /* data */
    struct ft_dataset_config *datasets, *test_datasets;
    int n_datasets, n_test_datasets;
    double val_set_size;
    int64_t sequence_len, min_sample_len;
    int excess_length_strategy; /* enum ft_excess of data/ */
    bool sample_packing, curriculum_sampling, dataset_exact_deduplication;
    bool train_on_inputs;
    const char **roles_to_train, **eot_tokens; /* NULL ends, or NULL */
    int train_on_eos;                          /* enum ft_train_on */
    const char *chat_template, *chat_template_jinja, *default_system_message;
    const struct ft_yaml *overrides_of_model_config;
    const struct ft_yaml *chat_template_kwargs;
    const char **special_tokens; /* pairs: name, token */
    const char **tokens;         /* NULL ends, or NULL */
    bool resize_token_embeddings_to_32x;
    const char *dataset_prepared_path;
    int64_t skip_bad_records;
    const char **allow_data_problems;
    /* training */
    int64_t micro_batch_size, gradient_accumulation_steps;
    int64_t batch_size; /* -1: unset */
    double num_epochs;
    int64_t max_steps; /* below 1: unset */
    double learning_rate;
    int lr_scheduler;    /* enum ft_schedule */
    double warmup_steps; /* NAN: unset; below 1: a share */
    double warmup_ratio; /* NAN: unset */
    double cosine_min_lr_ratio, cosine_constant_lr_ratio;
    bool lr_quadratic_warmup;
    int optimizer;              /* enum ft_optimizer */
    double neftune_noise_alpha; /* 0: none */
    double weight_decay, adam_beta1, adam_beta2, adam_epsilon, momentum, max_grad_norm;
    int gradient_checkpointing; /* enum ft_auto */
    int64_t seed;
    /* evaluation */
    double eval_steps;       /* NAN: unset */
    int64_t evals_per_epoch; /* below 1: unset */
    bool eval_on_start;
    int eval_strategy;              /* enum ft_eval_strategy */
    double loss_watchdog_threshold; /* NAN: unset */
    int64_t loss_watchdog_patience; /* below 1: 3 */
    /* machine */
    int device;      /* enum ft_device */
    int bf16;        /* enum ft_auto */
    int64_t threads; /* 0: as many as the process may use */
    const char *cpu_isa;
    /* output */
    const char *output_dir;
    bool overwrite_output_dir, use_tensorboard, use_mlflow;
    const char *mlflow_tracking_uri, *mlflow_experiment_name, *mlflow_run_name;
    int use_wandb;          /* enum ft_auto */
    const char *wandb_mode; /* "disabled": none */
    const char *wandb_project, *wandb_entity, *wandb_name, *wandb_run_id;
    int64_t logging_steps;
    const char *baseline;
    double baseline_tolerance;
    /* checkpoints */
    double save_steps;        /* NAN: unset */
    int64_t saves_per_epoch;  /* below 1: unset */
    int save_strategy;        /* enum ft_save_strategy */
    int64_t save_total_limit; /* below 1: unset */
    bool save_first_step, auto_resume_from_checkpoints;
    const char *resume_from_checkpoint;
    const char **resume_with_changes;
    bool load_best_model_at_end, greater_is_better;
    const char *metric_for_best_model;
    int64_t early_stopping_patience; /* below 1: unset */
    /* where each option was set: index into ft_options; file NULL: default */
    struct ft_where *set_at;
    const char *folder; /* of the config file, for relative paths */
    const char *file;
    struct ft_yaml *root;
};

/* Reads a config file and overrides ("key=value", "datasets.0.path=x"), reports every problem it
 * finds in one pass, and fills *c with checked values. FT_ECONFIG. Notices say what is ignored. The
 * file may be NULL: overrides alone. */
int ft_config_read(struct ft_config *c, const char *path, const char *const *overrides,
                   int n_overrides);
/* The same of a file that messages call `name`, in whose folder relative paths may lie. */
int ft_config_read_as(struct ft_config *c, const char *path, const char *name,
                      const char *const *overrides, int n_overrides);
void ft_config_fini(struct ft_config *c);

/* `adapter`, where qlora is lora: over a quantised base. */
const char *ft_config_adapter(const struct ft_config *c);

/* Whether the option was given (and not null). */
bool ft_config_is_set(const struct ft_config *c, const char *key);
/* Where it was given, for messages; the file alone if it was not. */
struct ft_where ft_config_where(const struct ft_config *c, const char *key);
/* path as given if it exists there, else in the config's folder; caller frees. */
char *ft_config_path(const struct ft_config *c, const char *path);

/* `ft config`: one option's page (FT_ECONFIG with the nearest name if there is none such), the JSON
 * schema, the resolved config with each value's origin. */
/* The option of this name, or whose other name it is; NULL: none. */
const char *ft_config_option(const char *name);
int ft_config_explain(FILE *out, const char *key);
void ft_config_list(FILE *out);
int ft_config_schema(FILE *out);
int ft_config_dump(FILE *out, const struct ft_config *c);
/* A value as JSON: what is not quoted may be a number, true, false or null. Caller json_decref()s;
 * NULL: out of memory. */
json_t *ft_value_json(const struct ft_yaml *n);
/* The resolved values as one JSON object, for run.json; caller json_decref()s. */
json_t *ft_config_json(const struct ft_config *c);

#endif
