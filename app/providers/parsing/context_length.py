"""How providers say that a prompt is too long for the model.

OpenAI has a code for it, `context_length_exceeded`, by which clients know when to
shorten the prompt. Others have codes of their own, or a sentence only.
"""

import re

CODE = "context_length_exceeded"

# Codes and types that mean the same.
# Sources: llama.cpp (tools/server/README.md); z.ai's finish reason; GitHub's models;
# GitHub Copilot; Cohere's `error_type`, as recorded; Zhipu (https://docs.bigmodel.cn/
# cn/api/api-code); MiniMax (https://platform.minimax.io/docs/api-reference/errorcode).
_CODES = {
    CODE,
    "exceed_context_size_error",
    "context_window_exceeded",
    "model_context_window_exceeded",
    "tokens_limit_reached",
    "model_max_prompt_tokens_exceeded",
    "too_many_tokens",
    "1261",
    "1039",
}

# A sentence of each kind, with who writes it and where that was seen. Most are also in
# https://github.com/badlogic/pi-mono/blob/main/packages/ai/src/utils/overflow.ts or
# https://github.com/BerriAI/litellm/blob/main/litellm/litellm_core_utils/
# exception_mapping_utils.py, which map these errors, too.
_SENTENCES = (
    # OpenAI, Azure, DeepSeek, vLLM, OpenRouter, SambaNova: "This model's maximum
    # context length is 4097 tokens, however you requested ...". Mistral: "Prompt
    # contains 65673 tokens ... too large for model with 32768 maximum context length".
    # Fireworks: "The prompt is too long: 1200012, model maximum context length: ...".
    # Sources: https://github.com/evalstate/fast-agent/issues/621 (DeepSeek),
    # https://github.com/anomalyco/models.dev/pull/6508 (Fireworks)
    r"maximum context length",
    # OpenAI: "Your input exceeds the context window of this model". Anthropic: "input
    # length and `max_tokens` exceed context limit: 199759 + 8192 > 200000". llama.cpp:
    # "the request exceeds the available context size". llama-cpp-python: "Requested
    # tokens (9) exceed context window of 8". Workers AI: "... exceeded this model
    # context window limit (24000)".
    # Sources: https://github.com/continuedev/continue/issues/6080 (Anthropic),
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server-context.cpp
    r"exceed\w* (?:[\w'’]+ ){0,4}context[ _](?:window|length|limit|size)",
    # MiniMax: "invalid params, context window exceeds limit"; others, in codes.
    r"context[ _](?:window|length|size|limit)[ _]exceed",
    # Anthropic: "prompt is too long: 209353 tokens > 199999 maximum". Bedrock: "Input
    # is too long for requested model." Zhipu: "Prompt too long". Ollama: "prompt too
    # long; exceeded max context length by 4 tokens". Google: "Your input context is
    # too long". Moonshot: "Input token length too long".
    # Sources: https://github.com/entropy-research/Devon/issues/88 (Anthropic),
    # https://github.com/aws-samples/bedrock-chat/issues/95 (Bedrock)
    r"\b(?:prompt|input|context|(?:prompt|input)(?: token)? length|messages?"
    r"|tokens in the request)(?: is| are)? too (?:long|large)\b",
    # Google: "The input token count (1196265) exceeds the maximum number of tokens
    # allowed (1048575)."; "... input token count is 35868 but model only supports up to
    # 32768". GitHub: "prompt token count of 51808 exceeds the limit of 12288".
    # Source: https://github.com/arkavo-org/arkavo-edge/issues/371
    r"token count (?:\S+ ){0,4}(?:exceeds|but (?:the )?model only supports)",
    r"contains \d+ tokens, which exceeds",
    # GitHub's models: "Request body too large for gpt-4o model. Max size: 8000 tokens."
    r"too large for \S+ model\. max size: \d+ tokens",
    # xAI: "This model's maximum prompt length is 131072 but the request contains ...".
    r"maximum prompt length is \d+",
    # Groq, Cerebras: "Please reduce the length of the messages or completion. Current
    # length is 9000 while limit is 8192".
    r"reduce the length of the (?:input )?(?:messages|prompt|input)",
    r"current length is \d+ while limit is",
    # Cohere, as recorded: "too many tokens: size limit exceeded by 25836 tokens".
    # Bedrock: "Too many input tokens. Max input tokens: 8192, request input token
    # count: 9000". Not AWS' "Too many tokens, please wait", which is a rate.
    r"too many (?:input )?tokens[:.] ",
    # Azure: "Input tokens exceed the configured limit of 272000 tokens." Bedrock:
    # "Input Tokens Exceeded: Number of input tokens exceeds maximum length."
    r"input tokens? exceed",
    # Bedrock's InvokeModel: "Malformed input request: expected maxLength: 20480,
    # actual: 30000, please reformat your input and try again."
    r"malformed input request: (?:#/(?:prompt|inputText): )?expected maxlength",
    # vLLM: "The decoder prompt (length 12324) is longer than the maximum model length
    # of 8192." SGLang: "The input (5000 tokens) is longer than the model's context
    # length (4096 tokens)."; "Input length (5000 tokens) exceeds the maximum allowed
    # length (4090 tokens)". LM Studio: "... tokens to keep from the initial prompt is
    # greater than the context length". TensorRT-LLM: "Prompt length (5000) exceeds
    # maximum input length (4096)"; "The sum of prompt length (5000), ...".
    r"(?:longer|greater) than the (?:maximum model|(?:model's )?(?:maximum )?context) "
    r"length",
    r"(?:prompt|input) length (?:\(\d+(?: tokens)?\)|\d+) (?:exceeds|is greater|is l)",
    r"sum of prompt length",
    # text-generation-inference, Together, Hugging Face: "Input validation error:
    # `inputs` tokens + `max_new_tokens` must be <= 2048. Given: ...".
    # Source: https://github.com/huggingface/llm-vscode/issues/94
    r"`inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than",
    # Moonshot: "Your request exceeded model token limit: 262144"; "model max length
    # exceeded". Source: https://github.com/MoonshotAI/MoonshotAI-Cookbook/issues/18
    r"exceeded model token limit|model max length exceeded",
    # DashScope: "Range of input length should be [1, 30720]".
    # Source: https://github.com/QwenLM/Qwen-Agent/issues/615
    r"range of input length should be",
    # MiniMax, all of the message: https://github.com/MiniMax-AI/MiniMax-01/issues/15
    r"\A(?:invalid params, )?token limit\Z",
    # Snowflake: "max tokens of 8192 exceeded".
    r"max tokens of \d+ exceeded",
    # Zhipu, in Chinese: "Prompt 超长".
    r"prompt ?超长|输入(?:内容)?(?:长度)?(?:超过|超出|过长)",
)
_TOO_LONG = re.compile("|".join(_SENTENCES), re.I)

# What such a sentence may also stand in: rates, which waiting cures.
_RATE = re.compile(
    r"per (?:minute|hour|day)|rate.?limit|quota|throttl|please wait|\bTPM\b", re.I
)

# Statuses that say something else: credentials, money, paths, rates, load.
_OTHER_STATUSES = {401, 402, 403, 404, 408, 429, 503, 504, 529}

# Characters of a message that are looked at.
_LOOKED_AT = 4096


def is_code(word: str | None) -> bool:
    """Whether *word* is the name of this error at any provider."""
    return word is not None and word.lower() in _CODES


def is_context_overflow(
    status: int, message: str, codes: tuple[str | None, ...]
) -> bool:
    """Whether an error says that the prompt, or prompt and budget, is too long.

    *codes* are its code and type.
    """
    if status in _OTHER_STATUSES:
        return False
    if any(map(is_code, codes)):
        return True
    beginning = message[:_LOOKED_AT]
    return bool(_TOO_LONG.search(beginning)) and not _RATE.search(beginning)
