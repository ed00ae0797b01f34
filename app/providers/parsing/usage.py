"""The usage of an answer, in the shape that OpenAI gave it and most have taken over.

Source: CompletionUsage in https://github.com/openai/openai-openapi
"""

from collections.abc import Mapping
from typing import Any

from ...core.completion import Usage


def usage(given: Any) -> Usage | None:
    """The counts in *given*; None without any, or with zeros only, as Ollama's."""
    if not isinstance(given, Mapping) or not (
        _count(given, "prompt_tokens") or _made(given)
    ):
        return None
    made = given.get("completion_tokens_details") or {}
    sent = given.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=_count(given, "prompt_tokens"),
        completion_tokens=_made(given),
        # SGLang has it outside of the details.
        reasoning_tokens=_count(made, "reasoning_tokens")
        or _count(given, "reasoning_tokens"),
        cached_tokens=_count(sent, "cached_tokens"),
    )


def _made(given: Mapping[str, Any]) -> int:
    return _count(given, "completion_tokens")


def _count(given: Any, key: str) -> int:
    value = given.get(key) if isinstance(given, Mapping) else None
    return int(value) if isinstance(value, (int, float)) else 0
