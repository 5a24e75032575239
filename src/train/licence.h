/* The licence of a base model, and what it asks of those who share what was made from it. */
#ifndef FT_TRAIN_LICENCE_H
#define FT_TRAIN_LICENCE_H

#include <jansson.h>

/* As the model's card says: "license", "license_name" and "license_link" of the head of README.md.
 * "" where it says nothing, or nothing that fits on a line. */
struct ft_licence {
    char id[64], name[96], link[256];
};

/* FT_ERESOURCE. A card that cannot be read says nothing. */
int ft_licence_read(struct ft_licence *l, const char *model_folder);

/* {"licence": id or null, "licence_name", "licence_link"} put into o; and read from it. */
void ft_licence_to_json(const struct ft_licence *l, json_t *o);
void ft_licence_from_json(struct ft_licence *l, const json_t *o);

/* What it asks, as a sentence without its subject; NULL: ft does not know it. */
const char *ft_licence_asks(const struct ft_licence *l);

/* Its identifier in the list of SPDX; NULL: it has none that ft knows. */
const char *ft_licence_spdx(const struct ft_licence *l);

/* The lines for the head of a card, the empty text without a licence. Caller frees. */
char *ft_licence_head(const struct ft_licence *l);
/* The section of a card on it. NULL: memory is short. Caller frees. */
char *ft_licence_section(const struct ft_licence *l, const char *model);

#endif
