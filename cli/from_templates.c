/* LLaMA-Factory's chat templates: what of ft's renders the same. */
#define _GNU_SOURCE
#include "cli/from.h"

#include "core/mem.h"
#include "text/builtin.h"
#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INSIDE = 1, /* the system text stands within the first user's turn */
    ONCE = 2,   /* one end token, at the very end */
    THINKS = 4, /* an empty block of thoughts before answers that have none */
};

/* A template: one row. {{content}} are the words, {bos} and {eos} the tokenizer's tokens; eos: the
 * token that is taken for the tokenizer's, or NULL. near: what to write if the model is not there
 * and nothing renders the same; NULL: the template's own text. */
struct form {
    const char *names, *prefix, *system, *user, *assistant, *standard, *eos;
    int flags;
    const char *near;
};

#define CHATML                                                                                     \
    "<|im_start|>system\n{{content}}<|im_end|>\n",                                                 \
        "<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n",                        \
        "{{content}}<|im_end|>\n"
static const struct form templates[] = {
    {"alpaca", "", "{{content}}", "### Instruction:\n{{content}}\n\n### Response:\n",
     "{{content}}{eos}\n\n",
     "Below is an instruction that describes a task. Write a response that appropriately completes "
     "the request.\n\n",
     NULL, 0, NULL},
    {"bailing", "", "<role>SYSTEM</role>{{content}}",
     "<role>HUMAN</role>{{content}}<role>ASSISTANT</role>", "{{content}}", "", NULL, ONCE, NULL},
    {"bailing_v2", "", "<role>SYSTEM</role>{{content}}<|role_end|>",
     "<role>HUMAN</role>{{content}}<|role_end|><role>ASSISTANT</role>", "{{content}}<|role_end|>",
     "", NULL, ONCE, NULL},
    {"breeze", "{bos}", "{{content}}", "[INST] {{content}} [/INST] ", "{{content}}", "", NULL, ONCE,
     NULL},
    {"chatglm3", "[gMASK]sop", "<|system|>\n{{content}}", "<|user|>\n{{content}}<|assistant|>",
     "\n{{content}}", "", NULL, ONCE, "tokenizer_default"},
    {"chatml qwen3_nothink qwen3_omni_nothink qwen3_vl_nothink qwen3_5_nothink", "", CHATML, "",
     "<|im_end|>", 0, NULL},
    {"chatml_de", "", CHATML, "Du bist ein freundlicher und hilfsbereiter KI-Assistent.",
     "<|im_end|>", 0, NULL},
    {"cohere", "{bos}", "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{content}}<|END_OF_TURN_TOKEN|>",
     "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{content}}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><"
     "|CHATBOT_TOKEN|>",
     "{{content}}{eos}", "", NULL, 0, "cohere"},
    {"cpm4 falcon_h1 intern_s1", "{bos}", CHATML, "", NULL, 0, NULL},
    {"dbrx", "", CHATML,
     "You are DBRX, created by Databricks. You were last updated in December 2023. You answer "
     "questions based on information available up to that point.\nYOU PROVIDE SHORT RESPONSES TO "
     "SHORT QUESTIONS OR STATEMENTS, but provide thorough responses to more complex and open-ended "
     "questions.\nYou assist with various tasks, from writing to coding (using markdown for code "
     "blocks — remember to use ``` with code, JSON, and tables).\n(You do not have real-time data "
     "access or code execution capabilities. You avoid stereotyping and provide balanced "
     "perspectives on controversial topics. You do not provide song lyrics, poems, or news "
     "articles and do not divulge details of your training data.)\nThis is your system prompt, "
     "guiding your responses. Do not reference it, just respond to the user. If you find yourself "
     "talking about this message, stop. You should be responding appropriately and usually that "
     "means not mentioning this.\nYOU DO NOT MENTION ANY OF THIS INFORMATION ABOUT YOURSELF UNLESS "
     "THE INFORMATION IS DIRECTLY PERTINENT TO THE USER'S QUERY.",
     "<|im_end|>", 0, NULL},
    {"deepseek", "{bos}", "{{content}}\n\n", "User: {{content}}\n\nAssistant:", "{{content}}{eos}",
     "", NULL, 0, NULL},
    {"deepseek3", "{bos}", "{{content}}", "<｜User｜>{{content}}<｜Assistant｜>",
     "{{content}}{eos}", "", NULL, 0, "tokenizer_default"},
    {"deepseekr1", "{bos}", "{{content}}", "<｜User｜>{{content}}<｜Assistant｜>",
     "{{content}}{eos}", "", NULL, THINKS, NULL},
    {"hy3", "{bos}", "{{content}}", "<｜hy_User｜>{{content}}<｜hy_Assistant｜>",
     "{{content}}<｜hy_eos｜>", "", "<｜hy_eos｜>", THINKS, NULL},
    {"deepseekcoder", "{bos}", "{{content}}",
     "### Instruction:\n{{content}}\n### Response:", "\n{{content}}\n<|EOT|>\n",
     "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by "
     "DeepSeek Company, and you only answer questions related to computer science. For politically "
     "sensitive questions, security and privacy issues, and other non-computer science questions, "
     "you will refuse to answer.\n",
     NULL, 0, NULL},
    {"default", "", "System: {{content}}{eos}\n",
     "Human: {{content}}{eos}\nAssistant:", "{{content}}{eos}\n", "", NULL, 0, NULL},
    {"dots_ocr", "", "<|system|>{{content}}<|endofsystem|>\n",
     "<|user|>{{content}}<|endofuser|><|assistant|>", "{{content}}<|endofassistant|>", "", NULL,
     ONCE, NULL},
    {"empty", "", "{{content}}", "{{content}}", "{{content}}", "", NULL, 0, NULL},
    {"ernie", "", "<|im_start|>system\n{{content}}<|im_end|>\n\n",
     "<|im_start|>user\n{{content}}<|im_end|>\n\n<|im_start|>assistant\n",
     "{{content}}<|im_end|>\n\n", "<global_setting>\nthink_mode=True\n</global_setting>", NULL, 0,
     NULL},
    {"ernie_nothink", "<|begin_of_sentence|>", "{{content}}\n",
     "User: {{content}}\nAssistant: ", "{{content}}<|end_of_sentence|>", "", NULL, 0, NULL},
    {"ernie_vl", "", "{{content}}\n", "User: {{content}}",
     "\nAssistant: {{content}}<|end_of_sentence|>", "", "<|end_of_sentence|>", THINKS, NULL},
    {"exaone", "", "[|system|]{{content}}[|endofturn|]\n", "[|user|]{{content}}\n[|assistant|]",
     "{{content}}{eos}\n", "", NULL, 0, NULL},
    {"falcon", "", "{{content}}", "User: {{content}}\nFalcon:", "{{content}}\n", "", NULL, ONCE,
     NULL},
    {"fewshot", "", "{{content}}", "{{content}}", "{{content}}\n\n", "", NULL, ONCE, NULL},
    {"gemma gemma3 gemma3n", "{bos}", "{{content}}\n\n",
     "<start_of_turn>user\n{{content}}<end_of_turn>\n<start_of_turn>model\n",
     "{{content}}<end_of_turn>\n", "", "<end_of_turn>", INSIDE, "tokenizer_default"},
    {"gemma2", "{bos}", "{{content}}\n\n",
     "<start_of_turn>user\n{{content}}<end_of_turn>\n<start_of_turn>model\n",
     "{{content}}<end_of_turn>\n", "", NULL, INSIDE | ONCE, "gemma"},
    {"gemma4 gemma4n", "{bos}", "<|turn>system\n<|think|>{{content}}<turn|>\n",
     "<|turn>user\n{{content}}<turn|>\n<|turn>model\n", "{{content}}<turn|>\n",
     "You are a helpful assistant.", "<turn|>", THINKS, "tokenizer_default"},
    {"glm4", "[gMASK]<sop>", "<|system|>\n{{content}}", "<|user|>\n{{content}}<|assistant|>",
     "\n{{content}}", "", NULL, ONCE, "tokenizer_default"},
    {"glm4_moe glm4v glm4_5v glm4_7 glmz1", "[gMASK]<sop>", "<|system|>\n{{content}}",
     "<|user|>\n{{content}}<|assistant|>", "\n{{content}}", "", NULL, ONCE | THINKS, NULL},
    {"glm_ocr", "[gMASK]<sop>", "<|system|>\n{{content}}", "<|user|>\n{{content}}<|assistant|>",
     "\n{{content}}", "", NULL, ONCE, NULL},
    {"gpt_oss", "", "<|start|>system<|message|>{{content}}<|end|>",
     "<|start|>user<|message|>{{content}}<|end|><|start|>assistant", "{{content}}",
     "You are ChatGPT, a large language model trained by OpenAI.", NULL, ONCE | THINKS, NULL},
    {"granite3", "", "<|start_of_role|>system<|end_of_role|>{{content}}<|end_of_text|>\n",
     "<|start_of_role|>user<|end_of_role|>{{content}}<|end_of_text|>\n<|start_of_role|>assistant<|"
     "end_of_role|>",
     "{{content}}<|end_of_text|>\n", "", NULL, 0, NULL},
    {"granite3_vision", "", "<|system|>\n{{content}}\n", "<|user|>\n{{content}}\n<|assistant|>\n",
     "{{content}}{eos}",
     "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
     "helpful, detailed, and polite answers to the user's questions.",
     NULL, 0, NULL},
    {"granite4", "", "<|start_of_role|>system<|end_of_role|>{{content}}<|end_of_text|>\n",
     "<|start_of_role|>user<|end_of_role|>{{content}}<|end_of_text|>\n<|start_of_role|>assistant<|"
     "end_of_role|>",
     "{{content}}<|end_of_text|>\n",
     "You are Granite, developed by IBM. You are a helpful AI assistant.", NULL, 0, NULL},
    {"index", "", "<unk>{{content}}", "reserved_0{{content}}reserved_1", "{{content}}", "", NULL,
     ONCE, NULL},
    {"hunyuan", "<|startoftext|>", "{{content}}<|extra_4|>", "{{content}}<|extra_0|>",
     "{{content}}<|eos|>", "", NULL, 0, NULL},
    {"hunyuan_small", "<｜hy_begin▁of▁sentence｜>", "{{content}}<｜hy_place▁holder▁no▁3｜>",
     "<｜hy_User｜>{{content}}<｜hy_place▁holder▁no▁8｜>", "{{content}}<｜hy_place▁holder▁no▁2｜>",
     "", NULL, 0, NULL},
    {"intern2", "{bos}", CHATML,
     "You are an AI assistant whose name is InternLM (书生·浦语).\n- InternLM (书生·浦语) is a "
     "conversational language model that is developed by Shanghai AI Laboratory "
     "(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n- InternLM "
     "(书生·浦语) can understand and communicate fluently in the language chosen by the user such "
     "as English and 中文.",
     NULL, 0, NULL},
    {"intern_vl", "{bos}", CHATML,
     "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模"
     "态大语言模型。",
     NULL, 0, NULL},
    {"keye_vl qwen3 qwen3_omni qwen3_vl qwen3_5 qwen3_6", "", CHATML, "", "<|im_end|>", THINKS,
     NULL},
    {"kimi_vl", "", "<|im_system|>system<|im_middle|>{{content}}<|im_end|>",
     "<|im_user|>user<|im_middle|>{{content}}<|im_end|><|im_assistant|>assistant<|im_middle|>",
     "{{content}}<|im_end|>", "You are a helpful assistant", NULL, THINKS, NULL},
    {"lfm2", "", CHATML, "You are a helpful AI assistant.", "<|im_end|>", 0, NULL},
    {"lfm2_vl", "", CHATML, "You are a helpful multimodal assistant by Liquid AI.", "<|im_end|>", 0,
     NULL},
    {"llama2", "", "<<SYS>>\n{{content}}\n<</SYS>>\n\n", "{bos}[INST] {{content}} [/INST]",
     "{{content}}{eos}", "", NULL, INSIDE, NULL},
    {"llama2_zh", "", "<<SYS>>\n{{content}}\n<</SYS>>\n\n", "{bos}[INST] {{content}} [/INST]",
     "{{content}}{eos}", "You are a helpful assistant. 你是一个乐于助人的助手。", NULL, INSIDE,
     NULL},
    {"llama3", "{bos}", "<|start_header_id|>system<|end_header_id|>\n\n{{content}}<|eot_id|>",
     "<|start_header_id|>user<|end_header_id|>\n\n{{content}}<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\n",
     "{{content}}<|eot_id|>", "", "<|eot_id|>", 0, "llama3"},
    {"llama4", "{bos}", "<|header_start|>system<|header_end|>\n\n{{content}}<|eot|>",
     "<|header_start|>user<|header_end|>\n\n{{content}}<|eot|><|header_start|>assistant<|header_"
     "end|>\n\n",
     "{{content}}<|eot|>", "", "<|eot|>", 0, NULL},
    {"mllama llava_next_llama3", "{bos}",
     "<|start_header_id|>system<|end_header_id|>\n\n{{content}}<|eot_id|>",
     "<|start_header_id|>user<|end_header_id|>\n\n{{content}}<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\n",
     "{{content}}<|eot_id|>", "", "<|eot_id|>", 0, NULL},
    {"moonlight", "", "<|im_system|>system<|im_middle|>{{content}}<|im_end|>",
     "<|im_user|>user<|im_middle|>{{content}}<|im_end|><|im_assistant|>assistant<|im_middle|>",
     "{{content}}<|im_end|>", "You are a helpful assistant provided by Moonshot-AI.", "<|im_end|>",
     0, NULL},
    {"llava llava_next llava_next_video vicuna video_llava", "", "{{content}}",
     "USER: {{content}} ASSISTANT:", "{{content}}{eos}",
     "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
     "helpful, detailed, and polite answers to the user's questions.",
     NULL, 0, NULL},
    {"llava_next_mistral llava_next_video_mistral", "{bos}", "{{content}}\n\n",
     "[INST] {{content}}[/INST]", " {{content}}{eos}", "", NULL, INSIDE, NULL},
    {"llava_next_qwen qwen2_audio qwen2_omni qwen2_vl", "", CHATML, "You are a helpful assistant.",
     "<|im_end|>", 0, NULL},
    {"llava_next_yi llava_next_video_yi smollm yi", "", CHATML, "", NULL, 0, NULL},
    {"mimo", "", CHATML, "You are a helpful assistant.", "<|im_end|>", THINKS, NULL},
    {"mimo_v2", "", CHATML, "You are MiMo, a helpful AI assistant engineered by Xiaomi.",
     "<|im_end|>", THINKS, NULL},
    {"mimo_vl", "", CHATML, "You are MiMo, an AI assistant developed by Xiaomi.", "<|im_end|>",
     THINKS, NULL},
    {"minicpm_v minicpm_v_4_6", "", CHATML, "You are a helpful assistant.", NULL, 0, NULL},
    {"minicpm_o", "", CHATML,
     "You are a helpful assistant. You can accept audio and text input and output voice and text.",
     NULL, 0, NULL},
    {"minimax1", "",
     "<beginning_of_sentence>system ai_setting=assistant\n{{content}}<end_of_sentence>\n",
     "<beginning_of_sentence>user "
     "name=user\n{{content}}<end_of_sentence>\n<beginning_of_sentence>ai name=assistant\n",
     "{{content}}<end_of_sentence>\n", "You are a helpful assistant.", NULL, 0, NULL},
    {"minimax2", "", "]~!b[]~b]system\n{{content}}[e~[\n", "]~b]user\n{{content}}[e~[\n]~b]ai\n",
     "{{content}}[e~[\n",
     "You are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax.", NULL,
     THINKS, NULL},
    {"ministral ministral3 pixtral", "{bos}", "{{content}}\n\n", "[INST]{{content}}[/INST]",
     "{{content}}{eos}", "", NULL, INSIDE, "mistral_v3_tekken"},
    {"mistral", "{bos}", "{{content}}\n\n", "[INST] {{content}}[/INST]", " {{content}}{eos}", "",
     NULL, INSIDE, "mistral_v2v3"},
    {"mistral_small", "{bos}", "[SYSTEM_PROMPT]{{content}}[/SYSTEM_PROMPT]",
     "[INST]{{content}}[/INST]", "{{content}}{eos}", "", NULL, 0, NULL},
    {"olmo", "{eos}", "{{content}}", "<|user|>\n{{content}}<|assistant|>\n", "{{content}}{eos}", "",
     NULL, 0, NULL},
    {"openchat", "{bos}", "{{content}}",
     "GPT4 Correct User: {{content}}{eos}GPT4 Correct Assistant:", "{{content}}{eos}", "", NULL, 0,
     NULL},
    {"openchat-3.6", "{bos}", "{{content}}",
     "<|start_header_id|>GPT4 Correct "
     "User<|end_header_id|>\n\n{{content}}<|eot_id|><|start_header_id|>GPT4 Correct "
     "Assistant<|end_header_id|>\n\n",
     "{{content}}{eos}", "", NULL, 0, NULL},
    {"opencoder", "", CHATML, "You are OpenCoder, created by OpenCoder Team.", NULL, 0, NULL},
    {"paligemma", "{bos}", "{{content}}", "{{content}}\n", "{{content}}{eos}", "", NULL, INSIDE,
     NULL},
    {"paligemma_chat", "{bos}", "{{content}}",
     "<start_of_turn>user\n{{content}}<end_of_turn>\n<start_of_turn>model\n",
     "{{content}}<end_of_turn>\n", "", "<end_of_turn>", INSIDE, NULL},
    {"phi", "", "<|system|>\n{{content}}<|end|>\n", "<|user|>\n{{content}}<|end|>\n<|assistant|>\n",
     "{{content}}<|end|>\n", "", "<|end|>", 0, NULL},
    {"phi4", "", "<|im_start|>system<|im_sep|>{{content}}<|im_end|>",
     "<|im_start|>user<|im_sep|>{{content}}<|im_end|><|im_start|>assistant<|im_sep|>",
     "{{content}}<|im_end|>", "", "<|im_end|>", 0, "tokenizer_default"},
    {"phi4_mini", "", "<|system|>{{content}}<|end|>", "<|user|>{{content}}<|end|><|assistant|>",
     "{{content}}<|end|>", "", "<|end|>", 0, NULL},
    {"qwen", "", CHATML, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     "<|im_end|>", 0, NULL},
    {"sailor", "", "<|im_start|>system\n{{content}}<|im_end|>\n",
     "<|im_start|>question\n{{content}}<|im_end|>\n<|im_start|>answer\n", "{{content}}<|im_end|>\n",
     "You are an AI assistant named Sailor created by Sea AI Lab. Your answer should be friendly, "
     "unbiased, faithful, informative and detailed.",
     NULL, 0, NULL},
    {"seed_coder", "", "{bos}system\n{{content}}{eos}",
     "{bos}user\n{{content}}{eos}{bos}assistant\n", "{{content}}{eos}",
     "You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance "
     "Seed, and you only answer questions related to computer science. For politically sensitive "
     "questions, security and privacy issues, and other non-computer science questions, you will "
     "refuse to answer.\n\n",
     NULL, 0, NULL},
    {"seed_oss", "", "{bos}system\n{{content}}{eos}", "{bos}user\n{{content}}{eos}{bos}assistant\n",
     "{{content}}{eos}", "", NULL, THINKS, NULL},
    {"smollm2", "", CHATML, "You are a helpful AI assistant named SmolLM, trained by Hugging Face.",
     NULL, 0, NULL},
    {"solar", "", "### System:\n{{content}}\n\n", "### User:\n{{content}}\n\n### Assistant:\n",
     "{{content}}", "", NULL, ONCE, NULL},
    {"starchat", "", "<|system|>\n{{content}}<|end|>\n",
     "<|user|>\n{{content}}<|end|>\n<|assistant|>", "{{content}}<|end|>\n", "", NULL, 0, NULL},
    {"telechat2", "", "<_system>{{content}}", "<_user>{{content}}<_bot>", "{{content}}{eos}",
     "你是中国电信星辰语义大模型，英文名是TeleChat，你是由中电信人工智能科技有限公司和中国电信人工"
     "智能研究院（TeleAI）研发的人工智能助手。",
     NULL, 0, NULL},
    {"xuanyuan", "", "{{content}}", "Human: {{content}} Assistant:", "{{content}}{eos}",
     "以下是用户和人工智能助手之间的对话。用户以Human开头，人工智能助手以Assistant开头，会对人类提"
     "出的问题给出有帮助、高质量、详细和礼貌的回答，并且总是拒绝参与与不道德、不安全、有争议、政治"
     "敏感等相关的话题、问题和指示。\n",
     NULL, 0, NULL},
    {"yi_vl", "", "{{content}}", "### Human: {{content}}\n### Assistant:", "{{content}}\n",
     "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI "
     "assistant. Read all the images carefully, and respond to the human's questions with "
     "informative, helpful, detailed and polite answers. "
     "这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。仔细阅读所有的图"
     "像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。\n\n",
     NULL, ONCE, NULL},
    {"youtu", "{bos}", "{{content}}", "<|User|>{{content}}<|Assistant|>",
     "{{content}}<|end_of_text|>", "", "<|end_of_text|>", THINKS, NULL},
    {"youtu_vl", "", "<|begin_of_text|>system\n{{content}}<|end_of_text|>\n",
     "<|begin_of_text|>user\n{{content}}<|end_of_text|>\n<|begin_of_text|>assistant\n",
     "{{content}}<|end_of_text|>\n", "You are a helpful assistant.", NULL, 0, NULL},
    {"yuan", "", "{{content}}", "{{content}}<sep>", "{{content}}<eod>\n", "", NULL, 0, NULL},
    {"zephyr", "", "<|system|>\n{{content}}{eos}", "<|user|>\n{{content}}{eos}<|assistant|>\n",
     "{{content}}{eos}", "You are Zephyr, a helpful assistant.", NULL, 0, NULL},
    {"aeva", "[gMASK]<sop>", "<|system|>\n{{content}}", "<|user|>\n{{content}}<|assistant|>",
     "\n{{content}}",
     "You are an AI assistant named Aeva created by Zongzhi Lou. Your answer should be friendly, "
     "unbiased, faithful, informative and detailed.",
     NULL, ONCE | THINKS, NULL},
};

static const struct form *find(const char *name)
{
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        for (const char *p = templates[i].names; *p; p += strspn(p, " ")) {
            const size_t length = strcspn(p, " ");
            if (length == n && memcmp(p, name, n) == 0)
                return &templates[i];
            p += length;
        }
    return NULL;
}

/* --- a template as Jinja --- */

/* Text within a literal of Jinja's. */
static void put_escaped(FILE *o, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *e = text[i] == '\\' ? "\\\\" : text[i] == '\'' ? "\\'" : NULL;
        if (text[i] == '\n')
            e = "\\n";
        if (e)
            fputs(e, o);
        else
            fputc(text[i], o);
    }
}

static void put_literal(FILE *o, const char *text)
{
    fputc('\'', o);
    put_escaped(o, text, strlen(text));
    fputc('\'', o);
}

/* 'a' ~ words ~ 'b' */
static void put_slot(FILE *o, const struct form *t, const char *slot, const char *words)
{
    static const char *const marks[] = {"{{content}}", "{bos}", "{eos}"};
    bool any = false;
    while (*slot) {
        const char *next = slot + strlen(slot);
        int which = -1;
        for (int i = 0; i < 3; i++) {
            const char *at = strstr(slot, marks[i]);
            if (at && at < next) {
                next = at;
                which = i;
            }
        }
        if (next > slot) {
            fputs(any ? " ~ '" : "'", o);
            put_escaped(o, slot, (size_t)(next - slot));
            fputc('\'', o);
            any = true;
        }
        slot = next;
        if (which < 0)
            break;
        fputs(any ? " ~ " : "", o);
        any = true;
        if (which == 2 && t->eos)
            put_literal(o, t->eos);
        else
            fputs(which == 0 ? words : which == 1 ? "bos_token" : "eos_token", o);
        slot += strlen(marks[which]);
    }
    fputs(any ? "" : "''", o);
}

static void put_jinja(FILE *o, const struct form *t, const char *standard)
{
    if (*t->prefix) {
        fputs("{{ ", o);
        put_slot(o, t, t->prefix, "");
        fputs(" }}", o);
    }
    fputs("{% set first = messages[0].role == 'system' %}{% set system = messages[0].content if "
          "first and messages[0].content else ",
          o);
    put_literal(o, standard);
    fputs(" %}", o);
    if (!(t->flags & INSIDE)) {
        fputs("{% if system %}{{ ", o);
        put_slot(o, t, t->system, "system");
        fputs(" }}{% endif %}", o);
    }
    fputs("{% for m in (messages[1:] if first else messages) %}{% if m.role == 'user' %}{% set "
          "said = ",
          o);
    if (t->flags & INSIDE) {
        fputc('(', o);
        put_slot(o, t, t->system, "system");
        fputs(" if loop.first and system else '') ~ ", o);
    }
    fputs("m.content %}{{ ", o);
    put_slot(o, t, t->user, "said");
    fputs(" }}{% elif m.role == 'assistant' %}{{ ", o);
    put_slot(o, t, t->assistant, "m.content");
    fputs(" }}{% endif %}{% endfor %}", o);
    if (t->flags & ONCE) {
        fputs("{% if not add_generation_prompt %}{{ ", o);
        put_slot(o, t, "{eos}", "");
        fputs(" }}{% endif %}", o);
    }
}

/* In the arena; NULL: out of memory. */
static const char *jinja_of(struct ft_from *f, const struct form *t, const char *standard)
{
    struct ft_printed p;
    const char *kept = NULL;
    if (ft_printed_open(&p) == FT_OK) {
        put_jinja(p.o, t, standard);
        if (ft_printed_close(&p) == FT_OK)
            kept = ft_arena_format(&f->arena, "%s", p.text);
    }
    if (!kept)
        ft_alloc_failed();
    ft_printed_free(&p);
    return kept;
}

/* --- what renders the same --- */

/* One round and two, without a system text and with one; then the first two with the standard
 * text, which LLaMA-Factory puts where there is none. */
static json_t *conversation(int i, const char *standard)
{
    json_t *messages = json_array();
    const char *system = i >= 2 ? "Be brief." : standard;
    if (system)
        json_array_append_new(messages, json_pack("{ssss}", "role", "system", "content", system));
    for (int round = 0; round <= i % 2; round++) {
        json_array_append_new(messages, json_pack("{ssss}", "role", "user", "content",
                                                  round ? "Of coal?" : "Colour of snow?"));
        json_array_append_new(messages, json_pack("{ssss}", "role", "assistant", "content",
                                                  round ? "Black." : "White."));
    }
    return json_pack("{so}", "messages", messages);
}

/* Whether b renders as a does; standard: a system text for b, where a has it of its own. A template
 * that refuses a conversation is another one. */
static bool same(struct ft_from *f, const struct ft_chat *a, const struct ft_chat *b,
                 const char *standard)
{
    bool good = true;
    for (int i = 0; i < 4 && good; i++) {
        struct ft_rendered x = {0}, y = {0};
        json_t *plain = conversation(i, NULL), *with = conversation(i, standard);
        int rc = ft_chat_render(a, plain, false, 0, &x);
        if (!rc)
            rc = ft_chat_render(b, with, false, 0, &y);
        good = ft_from_forgive(f, rc) && strcmp(x.text, y.text) == 0;
        ft_rendered_free(&x);
        ft_rendered_free(&y);
        json_decref(plain);
        json_decref(with);
    }
    return good;
}

struct choice {
    struct ft_from *f;
    struct ft_chat *theirs;
    json_t *tokens;
    const char *standard; /* the system text, or NULL */
    bool given;           /* by the config: then ft writes it in any case */
    bool add;             /* ft must write it */
};

/* Whether a template of this text does, with the system text put there by ft or without. */
static bool fits(struct choice *c, const char *text, const char *name, bool add)
{
    struct ft_chat *chat = NULL;
    const bool asked = add ? c->standard != NULL : !c->given;
    bool good = false;
    if (text && asked && ft_from_forgive(c->f, ft_chat_new(&chat, text, name, c->tokens)))
        good = same(c->f, c->theirs, chat, add ? c->standard : NULL);
    ft_chat_close(chat);
    c->add = add;
    return good;
}

/* The name of a template that does: the model's own, or a built-in one; NULL: none. tools: it must
 * know tools. */
static const char *find_same(struct choice *c, const char *folder, bool tools)
{
    char *text = NULL, *name = NULL;
    const char *found = NULL;
    if (folder)
        ft_from_forgive(c->f, ft_chat_template(&text, &name, folder, false));
    for (int add = 0; add < 2 && !found; add++) {
        if (fits(c, text, "the model's template", add))
            found = "tokenizer_default";
        for (int i = 0; ft_builtin_name(i) && !found; i++) {
            const char *builtin = ft_builtin_template(ft_builtin_name(i));
            if ((!tools || strstr(builtin, "in tools")) &&
                fits(c, builtin, ft_builtin_name(i), add))
                found = ft_builtin_name(i);
        }
    }
    ft_free(text);
    ft_free(name);
    return found;
}

static json_t *tokens_of(struct ft_from *f, const struct form *t, const char *folder)
{
    json_t *tokens = NULL;
    if (!folder)
        return json_pack("{ssss}", "bos_token", "<BOS>", "eos_token", t->eos ? t->eos : "<EOS>");
    ft_from_forgive(f, ft_special_tokens(&tokens, folder));
    return tokens ? tokens : json_object();
}

static void put_thinking(struct ft_from *f)
{
    const char *on = ft_from_word(f, "enable_thinking", "true");
    ft_from_put(f, "chat_template", "tokenizer_default", NULL);
    if (strcasecmp(on, "false") != 0)
        ft_from_put_in(f, &f->notes, NULL, NULL,
                       ft_arena_format(&f->arena,
                                       "template: %s: LLaMA-Factory also trains the empty block of "
                                       "thoughts before answers without",
                                       ft_from_word(f, "template", "")));
}

static void put_choice(struct choice *c, const struct form *t, const char *jinja, bool tools)
{
    struct ft_from *f = c->f;
    const char *folder = ft_from_model(f, ft_from_word(f, "model_name_or_path", NULL));
    const char *name = ft_from_word(f, "template", ""), *one = find_same(c, folder, tools);
    const char *note =
        folder ? "renders the same" : "not compared with the model's, which is not here";
    if (!one && (tools || (!folder && t->near))) {
        one = tools ? "tokenizer_default" : t->near;
        note = tools ? "not compared with tools" : note;
        c->add = c->given;
    }
    ft_from_put(f, "chat_template", one ? one : "jinja",
                ft_arena_format(&f->arena, "template: %s; %s", name,
                                one      ? note
                                : folder ? "the model's own renders otherwise"
                                         : "as LLaMA-Factory renders it"));
    if (!one)
        ft_from_put(f, "chat_template_jinja",
                    ft_arena_format(&f->arena, "|-\n  %s", jinja ? jinja : ""), NULL);
    else if (c->add)
        ft_from_put(f, "default_system_message", ft_from_quoted(f, c->standard),
                    c->given ? NULL : "of the template");
}

int ft_from_template(struct ft_from *f, const char *name, bool tools)
{
    const struct form *t = find(name);
    const char *given = ft_from_word(f, "default_system", NULL);
    struct choice c = {.f = f, .standard = given && *given ? given : NULL};
    c.given = c.standard != NULL;
    if (!t || t->flags & THINKS) {
        if (c.standard)
            ft_from_put(f, "default_system_message", ft_from_quoted(f, c.standard), NULL);
        if (t)
            put_thinking(f);
        else
            ft_from_put(f, "chat_template", "tokenizer_default",
                        "the template that the config names is not known here");
        return FT_OK;
    }
    if (!c.standard && *t->standard)
        c.standard = t->standard;
    const char *jinja = jinja_of(f, t, c.standard ? c.standard : "");
    c.tokens = tokens_of(f, t, ft_from_model(f, ft_from_word(f, "model_name_or_path", NULL)));
    int rc = jinja ? ft_chat_new(&c.theirs, jinja, name, c.tokens) : FT_ERESOURCE;
    if (!rc)
        put_choice(&c, t, jinja, tools);
    ft_chat_close(c.theirs);
    json_decref(c.tokens);
    return rc;
}
