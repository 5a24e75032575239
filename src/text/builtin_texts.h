/* What the files of built-in templates share. */
#ifndef FT_TEXT_BUILTIN_TEXTS_H
#define FT_TEXT_BUILTIN_TEXTS_H

/* What a content says that may be in parts. */
#define SAID                                                                                       \
    "{% macro said(c) %}{% if c is string %}{{ c }}{% else %}{% for p in c if p.text is "          \
    "defined %}{{ p.text }}{% endfor %}{% endif %}{% endmacro %}"
/* Whether the system speaks first, and the messages behind it. */
#define FIRST                                                                                      \
    "{% set first = messages[0].role == 'system' %}{% set rest = messages[1:] if first "           \
    "else messages %}"
/* Within a loop over messages m. */
#define ALTERNATE                                                                                  \
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must "         \
    "alternate: user, assistant, user, ...') }}{% endif %}"
/* Those whose tools have notations of their own. */
extern const char ft_builtin_llama4[], ft_builtin_llama3_2_vision[], ft_builtin_deepseek_v3[],
    ft_builtin_exaone4[], ft_builtin_jamba[], ft_builtin_gemma4[], ft_builtin_command_a[],
    ft_builtin_command_a_rag[], ft_builtin_command_a_tool_use[];

#endif
