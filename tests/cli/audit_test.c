/* What the label audit says of what a template leaves out. */
#include "tests/cli/cli.h"

static void text_with(const char *lines, const char *template)
{
    fresh_text("chat_template", lines);
    write_template(template);
}

static const char tools[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Weather?\"}, {\"role\": \"assistant\", "
    "\"content\": \"\", \"tool_calls\": [{\"type\": \"function\", \"function\": {\"name\": "
    "\"get\", "
    "\"arguments\": {\"city\": \"Ulm\"}}}]}, {\"role\": \"tool\", \"name\": \"get\", \"content\": "
    "\"12 "
    "C\"}, {\"role\": \"assistant\", \"content\": \"12.\", \"reasoning_content\": \"so\"}], "
    "\"tools\": "
    "[{\"type\": \"function\", \"function\": {\"name\": \"get\", \"parameters\": {}}}]}";

CASE(what_the_template_leaves_out_is_reported)
{
    text_with(tools, "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}");
    EXPECT(3, "tools in 1 documents; the first: ", "@FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "tool_calls of 'assistant' messages in 1 documents");
    CHECK_HAS(shell_output, "reasoning_content of 'assistant' messages in 1 documents");
    CHECK_HAS(shell_output, "name of 'tool' messages in 1 documents");
    CHECK_HAS(shell_output, "data.jsonl:1: error: 1 of 1 documents have a trained turn without a "
                            "trained word");
    EXPECT(3, "error: 1 of 1 documents have a trained turn without", "@FT train @D/c.yaml 2>&1");
    EXPECT(0, "the template leaves out tool_calls of 'assistant' messages",
           "@FT train @D/c.yaml 'allow_data_problems=[empty_turns]' 2>&1");
    EXPECT(0, "\"assistant.tool_calls\":[1,",
           "@FT data @D/c.yaml --json 'allow_data_problems=[empty_turns]' 2>/dev/null");
    /* a template that has it all */
    write_template("{{ tools | tojson if tools }}{% for m in messages %}{{ m.name }}{{ "
                   "m.reasoning_content }}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls "
                   "}}</s>{% endfor %}");
    EXPECT(0, "documents              1", "@FT data @D/c.yaml sequence_len=256 2>&1");
    CHECK(!strstr(shell_output, "unrendered"));
}

CASE(whole_messages_may_be_left_out)
{
    text_with(
        "{\"messages\": [{\"role\": \"system\", \"content\": \"be brief\"}, {\"role\": \"user\", "
        "\"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}",
        "{% for m in messages if m.role != 'system' %}{{ m.content }}</s>{% endfor %}");
    EXPECT(0, "content of 'system' messages in 1 documents", "@FT data @D/c.yaml 2>&1");
}

#define TWO_CALLS                                                                                  \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"developer\", "         \
    "\"content\": "                                                                                \
    "\"d\"}, {\"role\": \"assistant\", \"content\": \"c\", \"mood\": \"sad\", \"tool_calls\": "    \
    "[{\"function\": {\"name\": \"ff\", \"arguments\": {\"q\": 1}}}, {\"function\": {\"name\": "   \
    "\"gg\", \"arguments\": {}}}]}], \"documents\": [{\"t\": 1}], \"functions\": [{\"name\": "     \
    "\"ff\"}]}"
#define SAID "{{ m.content if m.role != 'developer' }}"

CASE(parts_of_parts_are_looked_at)
{
    text_with(TWO_CALLS, "{% for m in messages %}" SAID "{{ m.tool_calls[0].function if "
                         "m.tool_calls }}</s>{% endfor %}");
    EXPECT(0, "unrendered: tool_calls of 'assistant' messages", "@FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "unrendered: content of 'others' messages");
    CHECK_HAS(shell_output, "data.jsonl:1, 'developer'");
    CHECK_HAS(shell_output, "data.jsonl:1, 'mood'");
    CHECK_HAS(shell_output, "unrendered: documents of the record in 1");
    CHECK_HAS(shell_output, "unrendered: tools in 1");
    text_with(TWO_CALLS, "{% for m in messages %}" SAID "{% for c in m.tool_calls %}{{ "
                         "c.function.name }}{% endfor %}</s>{% endfor %}");
    EXPECT(0, "unrendered: tool_calls of 'assistant' messages", "@FT data @D/c.yaml 2>&1");
    text_with(TWO_CALLS,
              "{% for m in messages %}" SAID "{% for c in m.tool_calls %}{{ "
              "c.function.name }}{{ c.function.arguments }}{% endfor %}</s>{% endfor %}");
    EXPECT(0, "'developer'", "@FT data @D/c.yaml 2>&1");
    CHECK(!strstr(shell_output, "unrendered: tool_calls"));
}

CASE(thoughts_within_words_may_be_left_out)
{
    text_with(CHAT("x", "<think>deep</think>4"),
              "{% for m in messages %}{{ m.content.split('</think>')[-1] }}</s>{% endfor %}");
    EXPECT(0, "unrendered: reasoning_content of 'assistant' messages", "@FT data @D/c.yaml 2>&1");
    text_with(CHAT("x", "<think>deep</think>4"),
              "{% for m in messages %}{{ m.content }}</s>{% endfor %}");
    EXPECT(0, "documents", "@FT data @D/c.yaml 2>&1");
    CHECK(!strstr(shell_output, "unrendered"));
}

CASE(empty_answers_are_no_lesson)
{
    fresh_text("chat_template", CHAT("a", "") "\n" CHAT("a", "b"));
    EXPECT(3, "1 of 2 documents have a trained turn without a trained word",
           "@FT data @D/c.yaml chat_template=alpaca 2>&1");
    CHECK_HAS(shell_output, "allow_data_problems: [empty_turns]");
}

/* A template that moves thoughts to their place, with what stands behind the opener and what begins
 * an answer. */
#define MOVES(space, prompt)                                                                       \
    "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% set parts = "            \
    "m.content.split('</think>') %}<think>{{ '" space                                              \
    "' }}{{ parts[0].split('<think>')[-1] if parts | length > 1 }}</think>{{ parts[-1] }}{% else " \
    "%}{{ m.content }}{% endif %}</s>{% endfor %}{{ '" prompt "' if add_generation_prompt }}"

CASE(an_opener_that_the_record_has_is_trained)
{
    text_with(CHAT("2+2?", "<think>easy</think>4"), MOVES("", "assistant:"));
    EXPECT(0, "assistant:\u27e6<think>easy</think>4", "@FT data @D/c.yaml --show 1 2>&1");
    write_template(MOVES("\\n", "assistant:"));
    EXPECT(0, "assistant:\u27e6<think>\neasy</think>4", "@FT data @D/c.yaml --show 1 2>&1");
    write_template(MOVES("\\n", "assistant:<think>\\n\\n"));
    /* the text does not go on from that prompt: whoever writes it writes the opener */
    EXPECT(0, "assistant:\u27e6<think>\neasy</think>4", "@FT data @D/c.yaml --show 1 2>&1");
    write_template(MOVES("", "assistant:<think>"));
    EXPECT(0, "assistant:<think>\u27e6easy</think>4", "@FT data @D/c.yaml --show 1 2>&1");
}

static const char call_with_null[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
    "\"content\": "
    "null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {}}}]}]}";
static const char call_alone[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
    "\"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {}}}]}]}";

CASE(messages_without_a_text)
{
    const char *const records[] = {call_with_null, call_alone};
    for (int i = 0; i < 2; i++) {
        text_with(records[i], "{% for m in messages %}{{ m.role + m.content }}{{ m.tool_calls | "
                              "tojson if m.tool_calls }}</s>{% endfor %}");
        EXPECT(0, "assistant\u27e6[{\"function\"", "@FT data @D/c.yaml --show 1 2>&1");
        /* a template that asks whether there is a text is answered as the record has it */
        write_template(
            "{% for m in messages %}{{ 'NOTHING' if m.content is not string else m.content "
            "}}{{ m.tool_calls | tojson if m.tool_calls }}</s>{% endfor %}");
        EXPECT(0, "NOTHING", "@FT data @D/c.yaml --show 1 2>&1");
    }
    text_with(call_with_null, "{% for m in messages %}{{ m.content[0] + m.role }}</s>{% endfor %}");
    EXPECT(3,
           "data.jsonl:1: error: message 2 ('assistant') has no 'content', and the template needs "
           "one",
           "@FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "skip_bad_records");
}

CASE(a_template_that_refuses_names_the_message)
{
    text_with(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\"}, {\"role\": \"klaus\", \"content\": \"c\"}]}",
        "{% for m in messages %}{% if m.role == 'klaus' %}{{ raise_exception('who') }}{% endif "
        "%}{{ m.content }}</s>{% endfor %}");
    EXPECT(3, "data.jsonl:1: error: message 3 ('klaus') is not taken by the template",
           "@FT data @D/c.yaml 2>&1");
    CHECK_HAS(shell_output, "1 of 1 records cannot be used\nhint: all of them");
    text_with(CHAT("a", "b"),
              "{% for m in messages %}{% if loop.first and m.role == 'user' %}{{ "
              "raise_exception('who') }}{% endif %}{{ m.content }}</s>{% endfor %}");
    EXPECT(3, "data.jsonl:1: error: message 1 ('user') is not taken by the template",
           "@FT data @D/c.yaml 2>&1");
}

CASE(truncation_that_leaves_nothing)
{
    fresh_text("prompt_completion",
               "{\"prompt\": \"one two three four five six seven\", \"completion\": \" eight\"}");
    EXPECT(3, "1 have them all beyond",
           "@FT data @D/c.yaml sequence_len=4 excess_length_strategy=truncate 2>&1");
    CHECK_HAS(shell_output, "cuts every answer off");
    EXPECT(3, "1 have them all beyond",
           "@FT train @D/c.yaml sequence_len=4 excess_length_strategy=truncate 2>&1");
    CHECK(!strstr(shell_output, "loss_mask"));
    EXPECT(3, "more than 'sequence_len'",
           "@FT train @D/c.yaml sequence_len=4 excess_length_strategy=raise 2>&1");
    CHECK(!strstr(shell_output, "delete it"));
}
