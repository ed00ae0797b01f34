"""What all answers have, and providers spell differently: id, time, model, finish
reasons, usage.

Sources of the finish reasons: the enumerations in each provider's documentation, whose
address is at the top of its file; the table of the Portkey gateway 1.15.2. Of the
usage: CompletionUsage in https://github.com/openai/openai-openapi, a shape that most
providers share.
"""

from collections.abc import Mapping
from typing import Any

from ...core.completion import Usage
from ...errors import UpstreamCut
from ..upstream_request import UpstreamRequest

# A call of a tool ends the text as well.
_WORDS = {
    "stop": """
        stop eos eos_token end_turn stop_sequence pause_turn stop_criteria_met finished
        finish complete completed endoftext tool_use tool_call tool_calls function_call
        malformed_function_call unexpected_tool_call too_many_tool_calls
    """,
    "length": """
        length max_tokens max_output_tokens model_length max_length
        model_context_window_exceeded
    """,
    "content_filter": """
        content_filter content_filtered refusal safety blocklist prohibited_content spii
        recitation language image_safety image_prohibited_content image_recitation
        guardrail_intervened error_toxic sensitive model_armor
    """,
}
_TABLE = {word: reason for reason, words in _WORDS.items() for word in words.split()}

# Reasons that say that the text is not complete.
# Sources: SGLang's `abort`; Fireworks' and Mistral's `error`; DeepSeek's
# `insufficient_system_resource`; Bedrock's `malformed_model_output`; Zhipu's
# `network_error`; Cohere's `ERROR` and `TIMEOUT`; Gemini's `MALFORMED_RESPONSE`.
_FAILURES = {
    "abort",
    "error",
    "timeout",
    "network_error",
    "insufficient_system_resource",
    "malformed_model_output",
    "malformed_response",
}

# What streams send while a choice goes on, beside null.
_NOT_YET = {"", "null", "finish_reason_unspecified"}


def answer_head(
    document: Mapping[str, Any], upstream: UpstreamRequest
) -> tuple[str, int, str]:
    """Id, time and model of an answer. An id gets the prefix of a text completion."""
    upstream_id = document.get("id")
    bare = str(upstream_id).removeprefix("chat").removeprefix("cmpl-")
    return (
        f"cmpl-{bare}" if upstream_id else upstream.request.id,
        created(document, upstream),
        str(document.get("model") or upstream.request.model),
    )


def created(document: Mapping[str, Any], upstream: UpstreamRequest) -> int:
    """The time of an answer in Unix seconds; the request's, if the answer has none.

    SambaNova sends fractions.
    """
    seconds = document.get("created")
    if isinstance(seconds, (int, float)) and 0 < seconds < 2**53:
        return int(seconds)
    return upstream.request.created


def finish_reason(word: Any, *, strict: bool = True) -> str | None:
    """OpenAI's reason for *word*; None while the choice goes on.

    Not *strict*: the provider's own word. Raises UpstreamCut if the provider says that
    it gave up.
    """
    lowered = str(word or "").lower()
    if lowered in _NOT_YET:
        return None
    if lowered in _FAILURES:
        raise UpstreamCut(f"upstream gave up with finish_reason {str(word)[:40]!r}")
    # An unknown word is an end all the same.
    return _TABLE.get(lowered, "stop") if strict else str(word)


def parse_usage(counts: Any) -> Usage | None:
    """The usage; None without any counts, or with zeros only, as Ollama sends."""
    if not isinstance(counts, dict):
        return None
    prompt_tokens = _count(counts, "prompt_tokens")
    completion_tokens = _count(counts, "completion_tokens")
    if not (prompt_tokens or completion_tokens):
        return None
    completion_details = counts.get("completion_tokens_details")
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        # SGLang has it outside of the details.
        reasoning_tokens=_count(completion_details, "reasoning_tokens")
        or _count(counts, "reasoning_tokens"),
        cached_tokens=_count(counts.get("prompt_tokens_details"), "cached_tokens"),
    )


def _count(counts: Any, key: str) -> int:
    value = counts.get(key) if isinstance(counts, dict) else None
    return int(value) if isinstance(value, (int, float)) else 0
