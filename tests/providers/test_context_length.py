"""Prompts that are too long, in the words of each provider."""

import time
from typing import Any

import orjson
import pytest

from app.providers import PROVIDERS
from app.providers.parsing.context_length import is_context_overflow


def openai(message: str, **fields: Any) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message} | fields}


# Status and body.
TOO_LONG: dict[str, tuple[int, Any]] = {
    "openai": (
        400,
        openai(
            "This model's maximum context length is 4097 tokens, however you requested "
            "5012 tokens (12 in your prompt; 5000 for the completion). Please reduce "
            "your prompt; or completion length.",
            type="invalid_request_error",
            code=None,
        ),
    ),
    "openai responses": (
        400,
        openai("Your input exceeds the context window of this model. Please adjust."),
    ),
    "azure": (
        400,
        openai("Input tokens exceed the configured limit of 272000 tokens."),
    ),
    "anthropic": (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 213462 tokens > 200000 maximum",
            },
        },
    ),
    "anthropic budget": (
        400,
        openai(
            "input length and `max_tokens` exceed context limit: 199759 + 8192 > "
            "200000, decrease input length or `max_tokens` and try again"
        ),
    ),
    "google": (
        400,
        openai(
            "The input token count (1196265) exceeds the maximum number of tokens "
            "allowed (1048575).",
            status="INVALID_ARGUMENT",
            code=400,
        ),
    ),
    "vertex": (
        400,
        [
            openai(
                "Unable to submit request because the input token count is 35868 but "
                "model only supports up to 32768. Reduce the input token count."
            )
        ],
    ),
    "cohere": (
        400,
        {
            "error_type": "TOO_MANY_TOKENS",
            "message": "too many tokens: size limit exceeded by 25836 tokens. Try "
            "using shorter or fewer inputs.",
        },
    ),
    "cohere v1": (
        400,
        {
            "message": "too many tokens: total number of tokens in the prompt cannot "
            "exceed 4081 - received 4999."
        },
    ),
    "mistral": (
        400,
        {
            "object": "error",
            "message": "Prompt contains 65673 tokens and 0 draft tokens, too large for "
            "model with 32768 maximum context length",
            "type": "invalid_request_error",
            "code": "3051",
        },
    ),
    "bedrock converse": (
        400,
        {
            "message": "The model returned the following errors: Input is too long for "
            "requested model."
        },
    ),
    "bedrock nova": (
        400,
        {
            "message": "Input Tokens Exceeded: Number of input tokens exceeds maximum "
            "length. Please update the input to try again."
        },
    ),
    "bedrock titan": (
        400,
        {"message": "400 Bad Request: Too many input tokens. Max input tokens: 8192"},
    ),
    "bedrock max length": (
        400,
        {
            "message": "Malformed input request: expected maxLength: 20480, actual: "
            "30000, please reformat your input and try again."
        },
    ),
    "vllm": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, "
            "you requested 5000 tokens in the messages, Please reduce the length.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "vllm decoder": (
        400,
        openai(
            "The decoder prompt (length 12324) is longer than the maximum model length "
            "of 8192."
        ),
    ),
    "sglang": (
        400,
        {
            "object": "error",
            "message": "The input (5000 tokens) is longer than the model's context "
            "length (4096 tokens).",
        },
    ),
    "llama.cpp": (
        400,
        openai(
            "the request exceeds the available context size, try increasing it",
            type="exceed_context_size_error",
            code=400,
            n_prompt_tokens=9,
            n_ctx=8,
        ),
    ),
    "llama.cpp in other words": (
        400,
        openai("some other sentence", type="exceed_context_size_error", code=400),
    ),
    "llama-cpp-python": (
        400,
        openai("Requested tokens (5000) exceed context window of 2048"),
    ),
    "tgi": (
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must "
            "be <= 2048. Given: 3474 `inputs` tokens and 60 `max_new_tokens`",
            "error_type": "validation",
        },
    ),
    "tgi inputs": (
        422,
        {
            "error": "Input validation error: `inputs` must have less than 1024 "
            "tokens. Given: 2000",
            "error_type": "validation",
        },
    ),
    "ollama": (
        400,
        {"error": "prompt too long; exceeded max context length by 4 tokens"},
    ),
    "ollama of llama.cpp": (
        400,
        {
            "error": '{"error":{"code":400,"message":"the request exceeds the '
            'available context size","type":"exceed_context_size_error"}}'
        },
    ),
    "lm studio": (
        400,
        openai(
            "Trying to keep the first 5000 tokens when context overflows. However, the "
            "number of tokens to keep from the initial prompt is greater than the "
            "context length."
        ),
    ),
    "groq": (
        400,
        openai(
            "Please reduce the length of the messages or completion.",
            code="context_length_exceeded",
        ),
    ),
    "cerebras": (
        400,
        {
            "message": "Please reduce the length of the messages or completion. "
            "Current length is 9000 while limit is 8192",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        },
    ),
    "together": (
        422,
        openai(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= "
            "32769. Given: 40000 `inputs` tokens and 10 `max_new_tokens`"
        ),
    ),
    "fireworks": (
        400,
        openai(
            "The prompt is too long: 1200012, model maximum context length: 1048573"
        ),
    ),
    "deepseek": (
        400,
        openai(
            "This model's maximum context length is 131072 tokens. However, you "
            "requested 131134 tokens (122942 in the messages, 8192 in the completion).",
            code="invalid_request_error",
        ),
    ),
    "x-ai": (
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request "
            "contains 537812 tokens.",
        },
    ),
    "openrouter": (
        400,
        openai(
            "This endpoint's maximum context length is 32768 tokens. However, you "
            "requested about 42832 tokens (42832 of text input).",
            code=400,
        ),
    ),
    "openrouter's provider": (
        400,
        openai(
            "Provider returned error",
            code=400,
            metadata={
                "provider_name": "Anthropic",
                "raw": '{"type":"error","error":{"type":"invalid_request_error",'
                '"message":"prompt is too long: 9 tokens > 8 maximum"}}',
            },
        ),
    ),
    "moonshot": (
        400,
        openai("Invalid request: Your request exceeded model token limit: 262144"),
    ),
    "dashscope": (
        400,
        openai(
            "<400> InternalError.Algo.InvalidParameter: Range of input length should "
            "be [1, 30720]",
            code="invalid_parameter_error",
        ),
    ),
    "zhipu": (400, openai("Prompt 超长", code="1261")),
    "minimax": (400, openai("invalid params, context window exceeds limit (2013)")),
    "workers-ai": (
        400,
        {
            "success": False,
            "errors": [
                {
                    "code": 5021,
                    "message": "AiError: The estimated number of input and maximum "
                    "output tokens (30000) exceeded this model context window limit "
                    "(24000).",
                }
            ],
        },
    ),
    "github": (
        413,
        openai(
            "Request body too large for gpt-4o model. Max size: 8000 tokens.",
            code="tokens_limit_reached",
        ),
    ),
    "sambanova": (
        400,
        openai("The maximum context length of Llama is 4096. Please reduce it."),
    ),
    "tensorrt": (
        400,
        openai("Prompt length (5000) exceeds maximum input length (4096)"),
    ),
}

# Errors about other limits.
LIMIT_REACHED: dict[str, tuple[int, Any]] = {
    "rate of aws": (
        429,
        {"message": "Too many tokens, please wait before trying again."},
    ),
    "rate of groq": (
        413,
        openai(
            "Request too large for model `llama` on tokens per minute (TPM): Limit "
            "6000, Requested 7000, please reduce the length of the messages.",
            code="rate_limit_exceeded",
        ),
    ),
    "user": (
        400,
        openai(
            "Invalid 'user': string too long. Expected a string with maximum length "
            "64, but got a string with length 123 instead.",
            code="string_above_max_length",
        ),
    ),
    "budget": (
        400,
        openai(
            "max_tokens is too large: 99999. This model supports at most 4096 "
            "completion tokens.",
            code="invalid_value",
        ),
    ),
    "budget of dashscope": (
        400,
        openai("Range of max_tokens should be [1, 8192]"),
    ),
    "unknown model": (404, openai("The model `gpt-9` does not exist")),
    "key": (401, openai("Incorrect API key: prompt is too long for you")),
    "stop": (400, openai("stop: List should have at most 4 items")),
    "reached": (400, openai("Token limit reached", code=400)),
}


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_has_openais_code(name: str) -> None:
    for status, body in TOO_LONG.values():
        error = PROVIDERS[name].error(status, orjson.dumps(body))
        assert (error.status, error.code) == (status, "context_length_exceeded")


@pytest.mark.parametrize("name", PROVIDERS)
def test_other_limits_are_none_of_length(name: str) -> None:
    for status, body in LIMIT_REACHED.values():
        error = PROVIDERS[name].error(status, orjson.dumps(body))
        assert error.status == status
        assert error.code != "context_length_exceeded"


def test_long_message_is_searched_quickly() -> None:
    """No pattern backtracks without bounds, however long the text."""
    start = time.perf_counter()
    for text in ("exceed " + "a b " * 5000, "token count " * 5000, "a" * 10**6):
        is_context_overflow(400, text, (None,))

    assert time.perf_counter() - start < 0.5
