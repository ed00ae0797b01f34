"""The usage of an answer, in OpenAI's shape, which most providers share.

Source: CompletionUsage in https://github.com/openai/openai-openapi
"""

from typing import Any

from ...core.completion import Usage


def parse_usage(counts: Any) -> Usage | None:
    """The usage; None without any counts, or with zeros only, as Ollama sends."""
    # Most chunks have none. `dict` is what JSON gives; `Mapping` takes 0.2 µs to check.
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
