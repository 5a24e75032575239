/* The templates are written for ft; what they render is what the models were trained on, and what
 * Axolotl's of the same names render. */
#include "text/builtin.h"

#include <stddef.h>
#include <string.h>

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
/* Qwen's list of tools, to the end of its turn. */
#define TOOLS                                                                                      \
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou "         \
    "are provided with function signatures within <tools></tools> XML tags:\n<tools>{% "           \
    "for t in tools %}{{ '\\n' }}{{ t | tojson }}{% endfor %}{{ '\\n' }}</tools>\n\nFor "          \
    "each function call, return a json object with function name and arguments within "            \
    "<tool_call></tool_call> XML tags:\n<tool_call>\n{{ '{\"name\": <function-name>, "             \
    "\"arguments\": <args-json-object>}' }}\n</tool_call><|im_end|>{{ '\\n' }}"
/* Tools' answers, those that follow one another in one turn. */
#define ANSWERS                                                                                    \
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}"                              \
    "<|im_start|>user{% endif %}{{ '\\n' }}<tool_response>\n{{ said(m.content) "                   \
    "}}\n</tool_response>{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}"           \
    "<|im_end|>{{ '\\n' }}{% endif %}"

/* Mistral's with tools: what stands behind opening tags, and how an answer is written. */
#define MISTRAL(gap, answer)                                                                       \
    SAID FIRST                                                                                     \
        "{% set ns = namespace(turn=0, asked=none) %}{% for m in rest %}"                          \
        "{% if m.role == 'user' %}{% set ns.asked = m %}{% endif %}{% if m.role not in "           \
        "['tool', 'tool_results'] and not (m.tool_calls is defined and m.tool_calls is not "       \
        "none) %}{% if (m.role == 'user') != (ns.turn % 2 == 0) %}{{ raise_exception('roles "      \
        "must alternate: user, assistant, user, ...') }}{% endif %}{% set ns.turn = ns.turn "      \
        "+ 1 %}{% endif %}{% endfor %}{{ bos_token }}{% for m in rest %}"                          \
        "{% if m.role == 'user' %}{% if tools is defined and tools is not none and m == "          \
        "ns.asked %}[AVAILABLE_TOOLS]" gap "[{% for t in tools %}{{ '{\"type\": \"function\", "    \
        "\"function\": {' }}{% for k, v in t.function.items() if k != 'return' %}"                 \
        "\"{{ k }}\": {% if v is string %}\"{{ v }}\"{% else %}{{ v | tojson }}{% endif %}"        \
        "{{ ', ' if not loop.last }}{% endfor %}{{ '}}' }}{{ ', ' if not loop.last else ']' "      \
        "}}{% endfor %}[/AVAILABLE_TOOLS]{% endif %}[INST]" gap "{% if first and loop.last %}"     \
        "{{ said(messages[0].content) }}\n\n{% endif %}{{ said(m.content) }}[/INST]{% elif "       \
        "m.tool_calls is defined and m.tool_calls is not none %}[TOOL_CALLS]" gap "[{% for c in "  \
        "m.tool_calls %}{% if c.id is not defined or c.id | length != 9 %}"                        \
        "{{ raise_exception('ids of tool calls must have 9 characters') }}{% endif %}"             \
        "{{ (c.function | tojson)[:-1] }}, \"id\": \"{{ c.id }}\"}{{ ', ' if not loop.last "       \
        "else ']' + eos_token }}{% endfor %}{% elif m.role == 'assistant' %}" answer               \
        "{{ eos_token }}{% elif m.role in ['tool', 'tool_results'] %}"                             \
        "{% if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}"                   \
        "{{ raise_exception('ids of tool calls must have 9 characters') }}{% endif %}"             \
        "[TOOL_RESULTS]" gap                                                                       \
        "{\"content\": {{ (m.content.content if m.content.content is defined "                     \
        "else m.content) | string }}, \"call_id\": \"{{ m.tool_call_id "                           \
        "}}\"}[/TOOL_RESULTS]{% else %}{{ raise_exception('the template has no role ' ~ "          \
        "m.role) }}{% endif %}{% endfor %}"

static const struct builtin {
    const char *name, *text;
} builtins[] = {
    {"chatml", "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '' + m.content }}<|im_end|>{{ "
               "'\\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' "
               "}}{% endif %}"},
    {"llama3", SAID "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role "
                    "}}<|end_header_id|>\n\n{{ said(m.content) | trim }}<|eot_id|>{% endfor %}"
                    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{{ "
                    "'\\n\\n' }}{% endif %}"},
    {"gemma", "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('the "
              "template has no system role') }}{% endif %}{% for m in messages %}" ALTERNATE
              "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{% if m.content "
              "is string %}{{ m.content | trim }}{% else %}{% for p in m.content if p.text is "
              "defined %}{{ p.text | trim }}{% endfor %}{% endif %}<end_of_turn>{{ '\\n' }}{% "
              "endfor %}{% if add_generation_prompt %}<start_of_turn>model{{ '\\n' }}{% endif %}"},
    {"phi_3", "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
              "<|system|>\n{{ '' + m.content }}<|end|>{{ '\\n' }}{% elif m.role == 'user' %}"
              "<|user|>\n{{ '' + m.content }}<|end|>\n<|assistant|>{{ '\\n' }}{% elif m.role == "
              "'assistant' %}{{ '' + m.content }}<|end|>{{ '\\n' }}{% endif %}{% endfor %}"},
    {"phi_35",
     "{% for m in messages %}{% if m.role in ['user', 'assistant'] or (m.role == 'system' "
     "and m.content) %}<|{{ m.role }}|>\n{{ '' + m.content }}<|end|>{{ '\\n' }}{% endif %}"
     "{% endfor %}{% if add_generation_prompt %}<|assistant|>{{ '\\n' }}{% endif %}"},
    {"phi_4", "{% set own = messages[0].role == 'system' %}<|im_start|>system<|im_sep|>{% if own %}"
              "{{ '' + messages[0].content }}{% else %}You are Phi, a language model trained by "
              "Microsoft to help users. Your role as an assistant involves thoroughly exploring "
              "questions through a systematic thinking process before providing the final precise "
              "and accurate solutions. This requires engaging in a comprehensive cycle of "
              "analysis, summarizing, exploration, reassessment, reflection, backtracing, and "
              "iteration to develop well-considered thinking process. Please structure your "
              "response into two main sections: Thought and Solution using the specified format: "
              "<think> {Thought section} </think> {Solution section}. In the Thought section, "
              "detail your reasoning process in steps. Each step should include detailed "
              "considerations such as analysing questions, summarizing relevant findings, "
              "brainstorming new ideas, verifying the accuracy of the current steps, refining any "
              "errors, and revisiting previous steps. In the Solution section, based on various "
              "attempts, explorations, and reflections from the Thought section, systematically "
              "present the final solution that you deem correct. The Solution section should be "
              "logical, accurate, and concise and detail necessary steps needed to reach the "
              "conclusion. Now, try to solve the following question through the above "
              "guidelines:{% endif %}<|im_end|>{% for m in (messages[1:] if own else messages) %}"
              "{% if m.role in ['user', 'assistant'] %}<|im_start|>{{ m.role }}<|im_sep|>{{ '' + "
              "m.content }}<|im_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}"
              "<|im_start|>assistant<|im_sep|>{% endif %}"},
    {"mistral_v1", SAID FIRST
     "{{ bos_token }}{% for m in rest %}" ALTERNATE
     "{% if m.role == 'user' %} [INST] {% if first and loop.first %}"
     "{{ said(messages[0].content) }}\n\n{% endif %}{{ said(m.content) }} [/INST]{% elif "
     "m.role == 'assistant' %} {{ said(m.content) }}{{ eos_token }}{% else %}"
     "{{ raise_exception('the template has no role ' ~ m.role) }}{% endif %}{% endfor %}"},
    {"mistral_v2v3", MISTRAL(" ", " {{ said(m.content) | trim }}")},
    {"mistral_v3_tekken", MISTRAL("", "{{ said(m.content) }}")},
    {"mistral_v7_tekken", SAID FIRST
     "{{ bos_token }}[SYSTEM_PROMPT]{% if first %}{{ said(messages[0].content) }}{% else "
     "%}You are Mistral Small 3, a Large Language Model (LLM) created by Mistral AI, a "
     "French startup headquartered in Paris.\nYour knowledge base was last updated on "
     "2023-10-01. The current date is {{ strftime_now('%Y-%m-%d') }}.\n\nWhen you're not "
     "sure about some information, you say that you don't have the information and don't "
     "make up anything.\nIf the user's question is not clear, ambiguous, or does not "
     "provide enough context for you to accurately answer the question, you do not try to "
     "answer it right away and you rather ask the user to clarify their request (e.g. "
     "\"What are some good restaurants around me?\" => \"Where are you?\" or \"When is "
     "the next flight to Tokyo\" => \"Where do you travel from?\"){% endif %}"
     "[/SYSTEM_PROMPT]{% for m in rest %}{% if m.role == 'user' %}[INST]{{ "
     "said(m.content) }}[/INST]{% elif m.role == 'system' %}[SYSTEM_PROMPT]{{ "
     "said(m.content) }}[/SYSTEM_PROMPT]{% elif m.role == 'assistant' %}"
     "{{ said(m.content) }}{{ eos_token }}{% else %}{{ raise_exception('the template has "
     "no role ' ~ m.role) }}{% endif %}{% endfor %}"},
    {"qwen_25",
     "{% macro said(c) %}{{ c }}{% endmacro %}" FIRST
     "<|im_start|>system\n{% if first %}{{ '' + messages[0].content }}{% else %}"
     "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.{% endif %}"
     "{% if tools %}{{ '\\n\\n' }}" TOOLS
     "{% else %}<|im_end|>{{ '\\n' }}{% endif %}{% for m in messages %}"
     "{% if m.role == 'user' or (m.role == 'system' and not loop.first) or (m.role == "
     "'assistant' and not m.tool_calls) %}<|im_start|>{{ m.role }}\n{{ '' + m.content "
     "}}<|im_end|>{{ '\\n' }}{% elif m.role == 'assistant' %}<|im_start|>assistant{% if "
     "m.content %}{{ '\\n' }}{{ '' + m.content }}{% endif %}{% for c in m.tool_calls %}"
     "{% set f = c.function if c.function is defined else c %}{{ '\\n' "
     "}}<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson "
     "}}}\n</tool_call>{% endfor %}<|im_end|>{{ '\\n' }}{% elif m.role == 'tool' %}" ANSWERS
     "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' "
     "}}{% endif %}"},
    {"qwen3", SAID FIRST
     "{% if tools or first %}<|im_start|>system\n{% if first %}{{ "
     "said(messages[0].content) }}{% if tools %}{{ '\\n\\n' }}{% endif %}{% endif %}"
     "{% if tools %}" TOOLS "{% else %}<|im_end|>{{ '\\n' }}{% endif %}{% endif %}{% set ns = "
     "namespace(last=messages | length - 1, asked=false) %}{% for m in messages[::-1] %}"
     "{% if not ns.asked and m.role == 'user' and not (m.content is string and "
     "m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) "
     "%}{% set ns.asked = true %}{% set ns.last = messages | length - 1 - loop.index0 %}"
     "{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'user' or (m.role == "
     "'system' and not loop.first) %}<|im_start|>{{ m.role }}\n{{ said(m.content) "
     "}}<|im_end|>{{ '\\n' }}{% elif m.role == 'assistant' %}{% set words = '' if "
     "m.content is none else said(m.content) %}{% set thought = '' %}"
     "{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}"
     "{% elif '</think>' in words %}{% set thought = "
     "words.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
     "{% set words = words.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
     "<|im_start|>assistant\n{% if loop.index0 > ns.last and (loop.last or thought) %}"
     "<think>\n{{ thought.strip('\\n') }}\n</think>\n\n{{ words.lstrip('\\n') }}{% else %}"
     "{{ words }}{% endif %}{% for c in m.tool_calls or [] %}{% if words or not "
     "loop.first %}{{ '\\n' }}{% endif %}{% set f = c.function or c %}"
     "<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {% if f.arguments is "
     "string %}{{ f.arguments }}{% else %}{{ f.arguments | tojson }}{% endif %}"
     "}\n</tool_call>{% endfor %}<|im_end|>{{ '\\n' }}{% elif m.role == 'tool' %}" ANSWERS
     "{% endif %}{% endfor %}{% if add_generation_prompt "
     "%}<|im_start|>assistant\n<think>\n\n{% if enable_thinking is defined and "
     "enable_thinking is false %}</think>{{ '\\n\\n' }}{% endif %}{% endif %}"},
    {"deepseek_v2",
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
     "<｜User｜>{{ '' + m.content }}{% elif m.role == 'assistant' %}<｜Assistant｜>{{ '' + "
     "m.content }}{{ eos_token }}{% elif m.role == 'system' %}{{ '' + m.content }}{{ "
     "'\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
     "<｜Assistant｜>{% endif %}"},
    {"exaone",
     "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
     "[|system|][|endofturn|]{{ '\\n' }}{% endif %}[|{{ m.role }}|]{{ '' + m.content }}{{ "
     "'\\n' if m.role == 'user' else '[|endofturn|]\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}[|assistant|]{% endif %}"},
    {"alpaca",
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' and loop.first %}"
     "{{ '' + m.content }}{% elif m.role == 'user' %}### Instruction:\n{{ '' + m.content "
     "}}{% elif m.role == 'assistant' %}### Response:\n{{ '' + m.content }}{{ eos_token "
     "}}{% endif %}{{ '\\n\\n' if not loop.last }}{% endfor %}{% if add_generation_prompt "
     "%}{{ '\\n\\n' }}### Response:{{ '\\n' }}{% endif %}"},
    {"metharme",
     FIRST "{{ bos_token }}<|system|>{{ messages[0].content if first else 'Enter RP mode. You "
           "shall reply to the user while staying in character. Your responses must be "
           "detailed, creative, immersive, and drive the scenario forward.' }}{% for m in rest "
           "%}{% if m.role == 'user' %}<|user|>{{ m.content.strip() }}{% elif m.role == "
           "'assistant' %}<|model|>{{ m.content.strip() }}{% endif %}{% endfor %}"
           "{{ '<|model|>' if add_generation_prompt else eos_token }}"},
    {"cohere",
     FIRST "{{ bos_token }}{% if first %}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{ "
           "messages[0].content }}<|END_OF_TURN_TOKEN|>{% endif %}{% for m in rest %}" ALTERNATE
           "{% if m.role in ['user', 'assistant'] %}<|START_OF_TURN_TOKEN|><|{{ 'USER' if "
           "m.role == 'user' else 'CHATBOT' }}_TOKEN|>{{ m.content.strip() "
           "}}<|END_OF_TURN_TOKEN|>{% endif %}{% endfor %}{% if add_generation_prompt %}"
           "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"},
    {"aya",
     FIRST "{{ bos_token }}{% if first %}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{ "
           "messages[0].content }}<|END_OF_TURN_TOKEN|>{% endif %}{% for m in rest %}" ALTERNATE
           "{% if m.role in ['user', 'assistant'] %}<|START_OF_TURN_TOKEN|><|{{ 'USER' if "
           "m.role == 'user' else 'CHATBOT' }}_TOKEN|>{{ m.content.strip() "
           "}}<|END_OF_TURN_TOKEN|>{% endif %}{% endfor %}{% if add_generation_prompt %}"
           "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"},
};
enum { BUILTINS = sizeof builtins / sizeof *builtins };

const char *ft_builtin_template(const char *name)
{
    for (int i = 0; i < BUILTINS; i++)
        if (strcmp(builtins[i].name, name) == 0)
            return builtins[i].text;
    return NULL;
}

const char *ft_builtin_name(int i)
{
    return i < BUILTINS ? builtins[i].name : NULL;
}
