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


# Far below 2**63: the sum of thousands of counts has to be serializable, too.
_MAX_COUNT = 2**40


def count_of(value: Any) -> int:
    """*value* as a count of tokens; 0 for what is none.

    Recorded, besides integers: floats (`197.0`, Titan on Bedrock), null, texts, and
    negative numbers.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    # Not isinstance: a JSON true is no number. NaN is not within the bounds either.
    is_count = type(value) in (int, float) and 0 <= value < _MAX_COUNT
    return int(value) if is_count else 0


def usage_of(
    prompt: Any,
    completion: Any,
    total: Any = None,
    *,
    reasoning: Any = None,
    cached: Any = None,
) -> Usage | None:
    """The usage of these counts, each as a provider sends it; None without any count.

    *reasoning* is part of *completion*, unless *total* says that it comes on top. A
    part that is not counted is what the other one leaves of *total*, or else 0, which
    is estimated once the text is known.
    """
    prompt_tokens, completion_tokens = count_of(prompt), count_of(completion)
    reasoning_tokens, total_tokens = count_of(reasoning), count_of(total)
    # xAI: "reasoning token consumption will be counted separately from
    # completion_tokens, but will be counted in the total_tokens".
    # Source: https://docs.x.ai/docs/key-information/consumption-and-rate-limits
    if prompt_tokens and (
        total_tokens == prompt_tokens + completion_tokens + reasoning_tokens
    ):
        completion_tokens += reasoning_tokens
    elif prompt_tokens and not completion_tokens:
        completion_tokens = max(total_tokens - prompt_tokens, 0)
    elif completion_tokens and not prompt_tokens:
        prompt_tokens = max(total_tokens - completion_tokens, 0)
    if not (prompt_tokens or completion_tokens):
        return None
    cached_tokens = count_of(cached)
    if prompt_tokens:
        cached_tokens = min(cached_tokens, prompt_tokens)
    return Usage(
        prompt_tokens,
        completion_tokens,
        reasoning_tokens=reasoning_tokens,
        cached_tokens=cached_tokens,
    )


def parse_usage(counts: Any) -> Usage | None:
    """The usage in OpenAI's shape; None without any count."""
    if not isinstance(counts, dict):
        return None
    completion_details = counts_in(counts.get("completion_tokens_details"))
    return usage_of(
        counts.get("prompt_tokens"),
        counts.get("completion_tokens"),
        counts.get("total_tokens"),
        # SGLang has it outside of the details.
        reasoning=completion_details.get("reasoning_tokens")
        or counts.get("reasoning_tokens"),
        cached=counts_in(counts.get("prompt_tokens_details")).get("cached_tokens"),
    )


def usage_body(counts: Any, usage: Usage) -> dict[str, Any]:
    """*usage* in OpenAI's shape, with all else that a provider says in its *counts*."""
    own = counts if isinstance(counts, dict) else {}
    sums = usage.to_body()
    return {**own, **{name: sums[name] for name in USAGE_SUMS}}


USAGE_SUMS = ("prompt_tokens", "completion_tokens", "total_tokens")


def counts_in(value: Any) -> dict[str, Any]:
    """*value*, if it is an object that may hold counts; else an empty one."""
    return value if isinstance(value, dict) else {}
