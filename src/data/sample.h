/* One document as it is trained on: ids, which of them are trained, and whose words they are. */
#ifndef FT_DATA_SAMPLE_H
#define FT_DATA_SAMPLE_H

#include "text/chat.h"
#include "text/tokenizer.h"

/* Whose tokens: FT_OF_TEMPLATE what stands around the messages; a text that is no conversation has
 * prompt and answer, as user and assistant. */
enum ft_speaker {
    FT_OF_TEMPLATE,
    FT_OF_SYSTEM,
    FT_OF_USER,
    FT_OF_ASSISTANT,
    FT_OF_TOOL,
    FT_OF_OTHERS,
    FT_SPEAKERS
};
extern const char *const ft_speaker_names[FT_SPEAKERS];
enum ft_speaker ft_speaker_of(const char *role);

/* Parts of a record that a template may leave out. */
enum ft_part {
    FT_PART_CONTENT,
    FT_PART_REASONING,
    FT_PART_CALLS,
    FT_PART_NAME,
    FT_PART_OTHER, /* of FT_OF_TEMPLATE: the record's documents */
    FT_PART_TOOLS, /* of FT_OF_TEMPLATE: the record's */
    FT_PARTS
};
extern const char *const ft_part_names[FT_PARTS];

/* Tokens that end what is trained, turns or texts, and how often. */
enum { FT_ENDS = 4 };
struct ft_ends {
    int32_t id;
    int64_t count; /* 0: no more of them */
};
/* ends: FT_ENDS of them; more kinds than that are not kept. */
void ft_ends_add(struct ft_ends *ends, int32_t id, int64_t count);

/* Starts zeroed; ft_sample_clear keeps its memory, ft_sample_free gives it back. */
struct ft_sample {
    struct ft_ids ids;
    uint8_t *mask;    /* 1: trained */
    uint8_t *speaker; /* enum ft_speaker */
    size_t labelled, room;
    int turns, ended; /* trained turns, and how many of them end in a trained terminator */
    int wordless;     /* trained turns of which no word is trained, only what ends them */
    int borders;      /* where a prompt's last token is another one than the model would be given */
    struct ft_ends ends[FT_ENDS];
    uint8_t unrendered[FT_SPEAKERS];       /* bits by enum ft_part */
    char other_role[32], other_member[32]; /* the first of FT_OF_OTHERS, of FT_PART_OTHER */
};
void ft_sample_clear(struct ft_sample *s);
void ft_sample_free(struct ft_sample *s);
/* Ids that were appended to s->ids get mask and speaker. */
int ft_sample_label(struct ft_sample *s, uint8_t mask, enum ft_speaker speaker);

enum ft_train_on { FT_TRAIN_TURN, FT_TRAIN_ALL, FT_TRAIN_LAST, FT_TRAIN_NONE, FT_TRAIN_UNSET };

/* Which turns of a conversation are trained on, and which of the tokens that end turns. */
struct ft_turn_rules {
    const char *const *roles;  /* NULL ends; NULL itself: the assistant's */
    bool inputs;               /* every turn */
    enum ft_train_on end;      /* of turns; unset: each trained turn's, unless the template marks */
    const char *field;         /* a message's member that says whether it is trained; may be NULL */
    const int32_t *end_tokens; /* what may end a turn; none: any special token that does */
    int n_end_tokens;
    bool look; /* for what the template leaves out, too */
};

/* Renders record's messages, encodes them and finds the trained turns: by the template's
 * {% generation %} marks, else by rendering with other words in a message's place and comparing. */
int ft_conversation_sample(struct ft_sample *s, struct ft_tokenizer *t, const struct ft_chat *c,
                           const json_t *record, const struct ft_turn_rules *rules, long long now);

#endif
