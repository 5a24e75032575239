/* The templates are written for ft; what they render is what the models were trained on, and what
 * Axolotl's of the same names render. */
#include "text/builtin.h"
#include "text/builtin_texts.h"

#include <stddef.h>
#include <string.h>

/* Qwen's list of tools, to the end of its turn. */
#define TOOLS                                                                                      \
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou "         \
    "are provided with function signatures within <tools></tools> XML tags:\n<tools>{% "           \
    "for t in tools %}{{ '\\n' }}{{ t | tojson }}{% endfor %}{{ '\\n' }}</tools>\n\nFor "          \
    "each function call, return a json object with function name and arguments within "            \
    "<tool_call></tool_call> XML tags:\n<tool_call>\n{{ '{\"name\": <function-name>, "             \
    "\"arguments\": <args-json-object>}' }}\n</tool_call><|im_end|>{{ '\\n' }}"
/* Tools' answers, those that follow one another in one turn. */
#define ANSWERS(answer)                                                                            \
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif "     \
    "%}{{ '\\n' }}<tool_response>\n" answer                                                        \
    "\n</tool_response>{% if loop.last or messages[loop.index0 + 1].role != 'tool' "               \
    "%}<|im_end|>{{ '\\n' }}{% endif %}"
/* Within a loop over parts p: Qwen's pictures and videos, and what is set before them. */
#define SEEN(picture, video)                                                                       \
    "{% if p.type == 'image' or 'image' in p or 'image_url' in p %}" picture                       \
    "<|vision_start|><|image_pad|><|vision_end|>{% elif p.type == 'video' or 'video' in p "        \
    "%}" video                                                                                     \
    "<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in p %}{{ p.text }}{% endif %}"

/* Qwen's that think: how contents are written, and when a message's reasoning is one. */
#define QWEN3(system, asked, words, reasons, answer)                                               \
    FIRST "{% if tools or first %}<|im_start|>system\n{% if first %}" system                       \
          "{% if tools %}{{ '\\n\\n' }}{% endif %}{% endif %}{% if tools %}" TOOLS                 \
          "{% else %}<|im_end|>{{ '\\n' }}{% endif %}{% endif %}{% set end = messages | length - " \
          "1 %}{% set ns = namespace(last=end, asked=false) %}{% for m in messages[::-1] %}{% if " \
          "not ns.asked and m.role == 'user' and not (m.content is string and "                    \
          "m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) "   \
          "%}{% set ns.asked = true %}{% set ns.last = end - loop.index0 %}{% endif %}{% endfor "  \
          "%}{% if real_last_index is defined and real_last_index is not none %}{% set end = "     \
          "real_last_index %}{% endif %}{% for m in messages %}{% if m.role == 'user' or (m.role " \
          "== 'system' and not loop.first) %}<|im_start|>{{ m.role }}\n" asked                     \
          "<|im_end|>{{ '\\n' }}{% elif m.role == 'assistant' %}{% set words = " words             \
          " %}{% set thought = '' %}{% if m.reasoning_content " reasons                            \
          " %}{% set thought = m.reasoning_content %}{% elif '</think>' in words %}{% set "        \
          "thought = words.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') " \
          "%}{% set words = words.split('</think>')[-1].lstrip('\\n') %}{% endif "                 \
          "%}<|im_start|>assistant\n{% if loop.index0 > ns.last and (loop.index0 == end or "       \
          "thought) %}<think>\n{{ thought.strip('\\n') }}\n</think>\n\n{{ words.lstrip('\\n') "    \
          "}}{% else %}{{ words }}{% endif %}{% for c in m.tool_calls or [] %}{% if words or not " \
          "loop.first %}{{ '\\n' }}{% endif %}{% set f = c.function or c "                         \
          "%}<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {% if f.arguments is "       \
          "string %}{{ f.arguments }}{% else %}{{ f.arguments | tojson }}{% endif "                \
          "%}}\n</tool_call>{% endfor %}<|im_end|>{{ '\\n' }}{% elif m.role == 'tool' %}" ANSWERS( \
              answer) "{% endif %}{% endfor %}{% if add_generation_prompt "                        \
                      "%}<|im_start|>assistant\n<think>\n\n{% if enable_thinking is defined and "  \
                      "enable_thinking is false %}</think>{{ '\\n\\n' }}{% endif %}{% endif %}"
/* Gemma's from the third on: what stands for parts that are no text. */
#define GEMMA3(media)                                                                              \
    SAID FIRST                                                                                     \
        "{{ bos_token }}{% set head = said(messages[0].content) + '\\n\\n' if first else '' %}{% " \
        "for m in rest %}" ALTERNATE                                                               \
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ head if "           \
        "loop.first }}{% if m.content is string %}{{ m.content | trim }}{% elif m.content is "     \
        "iterable %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text | trim }}" media    \
        "{% endif %}{% endfor %}{% else %}{{ raise_exception('a content must be a text or "        \
        "parts') }}{% endif %}<end_of_turn>{{ '\\n' }}{% endfor %}{% if add_generation_prompt "    \
        "%}<start_of_turn>model{{ '\\n' }}{% endif %}"

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
    {"llama3",
     "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ "
     "(m.content if m.content is string else m.content | map(attribute='text') | join) | trim "
     "}}<|eot_id|>{% endfor %}{% if add_generation_prompt "
     "%}<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}{% endif %}"},
    {"llama3_2_vision", ft_builtin_llama3_2_vision},
    {"llama4", ft_builtin_llama4},
    {"llava",
     "{% for m in messages %}{% if m.role != 'system' %}{{ m.role.upper() + ': ' }}{% endif %}{% "
     "set parts = [{'type': 'text', 'text': m.content}] if m.content is string else m.content %}{% "
     "for p in parts | selectattr('type', 'equalto', 'image') %}<image>{{ '\\n' }}{% endfor %}{% "
     "for p in parts | selectattr('type', 'equalto', 'text') %}{% if m.role == 'assistant' %}{% "
     "generation %}{{ p.text + ' ' }}{% endgeneration %}{% else %}{{ p.text + ' ' }}{% endif %}{% "
     "endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"},
    {"gemma", "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('the "
              "template has no system role') }}{% endif %}{% for m in messages %}" ALTERNATE
              "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{% if m.content "
              "is string %}{{ m.content | trim }}{% else %}{% for p in m.content if p.text is "
              "defined %}{{ p.text | trim }}{% endfor %}{% endif %}<end_of_turn>{{ '\\n' }}{% "
              "endfor %}{% if add_generation_prompt %}<start_of_turn>model{{ '\\n' }}{% endif %}"},
    {"gemma3", GEMMA3("{% elif p.type == 'image' %}<start_of_image>")},
    {"gemma3n", GEMMA3("{% elif p.type in ['audio', 'image'] %}<{{ p.type }}_soft_token>")},
    {"gemma4", ft_builtin_gemma4},
    {"gemma4_unified", ft_builtin_gemma4},
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
    {"pixtral",
     "{% macro said(c, system) %}{% if c is string %}{{ c }}{% else %}{% for p in c %}{% if p.type "
     "== 'text' %}{{ p.content if 'content' in p else p.text }}{% elif p.type == 'image' %}{{ "
     "'[IMG]' if not system }}{% elif not system %}{{ raise_exception('a part must be a text') "
     "}}{% endif %}{% endfor %}{% endif %}{% endmacro %}" FIRST
     "{% set head = said(messages[0].content, true) + '\\n\\n' if first else '' %}{{ bos_token "
     "}}{% for m in rest %}" ALTERNATE
     "{% if m.role == 'user' %}[INST]{{ head if loop.last }}{{ said(m.content) }}[/INST]{% elif "
     "m.role == 'assistant' %}{{ said(m.content) }}{{ eos_token }}{% else %}{{ "
     "raise_exception('the template has no role ' ~ m.role) }}{% endif %}{% endfor %}"},
    {"qwen_25",
     FIRST "<|im_start|>system\n{% if first %}{{ '' + messages[0].content }}{% else %}"
           "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.{% endif %}"
           "{% if tools %}{{ '\\n\\n' }}" TOOLS
           "{% else %}<|im_end|>{{ '\\n' }}{% endif %}{% for m in messages %}"
           "{% if m.role == 'user' or (m.role == 'system' and not loop.first) or (m.role == "
           "'assistant' and not m.tool_calls) %}<|im_start|>{{ m.role }}\n{{ '' + m.content "
           "}}<|im_end|>{{ '\\n' }}{% elif m.role == 'assistant' %}<|im_start|>assistant{% if "
           "m.content %}{{ '\\n' }}{{ '' + m.content }}{% endif %}{% for c in m.tool_calls %}"
           "{% set f = c.function if c.function is defined else c %}{{ '\\n' "
           "}}<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson "
           "}}}\n</tool_call>{% endfor %}<|im_end|>{{ '\\n' }}{% elif m.role == 'tool' %}" ANSWERS(
               "{{ m.content }}") "{% endif %}{% endfor %}{% if add_generation_prompt "
                                  "%}<|im_start|>assistant{{ '\\n' "
                                  "}}{% endif %}"},
    {"qwen3", SAID QWEN3("{{ said(messages[0].content) }}", "{{ said(m.content) }}",
                         "'' if m.content is none else said(m.content)", "is string",
                         "{{ said(m.content) }}")},
    {"qwen3_5",
     SAID QWEN3(
         "{% if messages[0].content is string %}{{ messages[0].content }}{% else %}{% for p in "
         "messages[0].content %}{{ p if p is string else p.text or p.content or p.value or '' if p "
         "is mapping }}{% endfor %}{% endif %}",
         "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}" SEEN(
             "", "") "{% endfor %}{% endif %}",
         "said(m.content)", "is defined and m.reasoning_content is not none", "{{ m.content }}")},
    {"qwen2_vl",
     "{% set ns = namespace(pictures=0, videos=0) %}{% for m in messages %}{% if loop.first and "
     "m.role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>{{ '\\n' }}{% "
     "endif %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}{% "
     "for p in m.content %}" SEEN(
         "{% set ns.pictures = ns.pictures + 1 %}{% if add_vision_id %}Picture {{ ns.pictures }}: "
         "{% endif %}",
         "{% set ns.videos = ns.videos + 1 %}{% if add_vision_id %}Video {{ ns.videos }}: {% endif "
         "%}") "{% endfor %}{% endif %}<|im_end|>{{ '\\n' }}{% endfor %}{% if "
               "add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"},
    {"deepseek_v2",
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
     "<｜User｜>{{ '' + m.content }}{% elif m.role == 'assistant' %}<｜Assistant｜>{{ '' + "
     "m.content }}{{ eos_token }}{% elif m.role == 'system' %}{{ '' + m.content }}{{ "
     "'\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
     "<｜Assistant｜>{% endif %}"},
    {"deepseek_v3", ft_builtin_deepseek_v3},
    {"exaone",
     "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
     "[|system|][|endofturn|]{{ '\\n' }}{% endif %}[|{{ m.role }}|]{{ '' + m.content }}{{ "
     "'\\n' if m.role == 'user' else '[|endofturn|]\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}[|assistant|]{% endif %}"},
    {"exaone4", ft_builtin_exaone4},
    {"falcon_h1", FIRST
     "{{ bos_token }}{% if tools or first %}<|im_start|>system\n{% if first %}{{ '' + "
     "messages[0].content }}{{ '\\n\\n' if tools else '<|im_end|>\\n' }}{% endif %}{% endif %}{% "
     "if tools %}You are a function calling AI model. You are provided with function signature "
     "within <tools> </tools> XML tags. You may call one or more functions to assist with the user "
     "query. Don't make assumptions about what values to plug into functions.\n<tools>\n{% for t "
     "in tools %}[{{ t | tojson }}]{% endfor %}{{ '\\n' }}</tools>\nFor each function call, return "
     "a json object with function name and arguments within <tool_call> </tool_call> tags with the "
     "following schema:\n<tool_call>\n{'arguments': <args-dict>, 'name': "
     "<function-name>}\n</tool_call>{{ '\\n' }}{% endif %}{% for m in messages if m.role != "
     "'system' %}<|im_start|>{{ m.role }}\n{{ '' + m.content }}<|im_end|>{{ '\\n' }}{% endfor %}{% "
     "if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"},
    {"nemotron_h",
     "{% for m in messages %}{% if m.role in ['user', 'assistant'] or (m.role == 'system' and "
     "loop.first) %}<|im_start|>{{ m.role }}\n{{ '' + m.content }}<|im_end|>{{ '\\n' }}{% else "
     "%}{{ raise_exception('the template has no role ' ~ m.role) }}{% endif %}{% endfor %}{% if "
     "add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"},
    {"jamba", ft_builtin_jamba},
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
    {"command_a", ft_builtin_command_a},
    {"command_a_rag", ft_builtin_command_a_rag},
    {"command_a_tool_use", ft_builtin_command_a_tool_use},
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
