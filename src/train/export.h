/* An adapter in other programs' forms. */
#ifndef FT_TRAIN_EXPORT_H
#define FT_TRAIN_EXPORT_H

#include "train/merge.h"

/* What the run in the folder was made from, as CycloneDX's JSON. FT_EDATA: it is no run of ft, or
 * its weights are not those that run.json speaks of. */
int ft_export_sbom(const char *run_folder, const char *path);

/* j is open by ft_job_open_model, values are the adapter's. FT_EDATA: the form cannot hold it. */

/* llama.cpp's LoRA file: one alpha, a rank a tensor; what scales otherwise is folded into B. */
int ft_export_gguf_adapter(const struct ft_job *j, const float *values, const char *path);
/* A PEFT folder that every engine reads rightly: one rank, alpha equal to it, the scale folded into
 * B, each kind of module in all layers. */
int ft_export_portable(const struct ft_job *j, const float *values, const char *folder);
/* The same as mlx-lm has it. */
int ft_export_mlx(const struct ft_job *j, const float *values, const char *folder);

/* The model with its adapters merged as one file: matrices of `type` (F32, F16, BF16, Q8_0 or
 * Q4_0, embedding and head then Q8_0; F16 where a row is not in whole blocks), vectors of F32; the
 * tokenizer and the template are those that ft merge would write. */
int ft_export_gguf(struct ft_merge *m, enum ft_dtype type, const char *path);

#endif
