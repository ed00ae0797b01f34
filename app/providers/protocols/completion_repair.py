"""What legacy clients need in an answer of the legacy shape, and servers leave out.

Most that speak OpenAI's completions have small gaps: no `usage`, a `created` in
fractions, finish reasons of their own. The functions here close them in place, and say
whether they had to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...core.completion import Usage, estimate
from ...core.post_processing import prompt_estimate
from ...errors import UpstreamProtocol
from ..parsing.answer_fields import (
    USAGE_SUMS,
    created,
    finish_reason,
    parse_usage,
    usage_body,
)
from ..parsing.stream_ending import choice_indices, expected_choices
from ..upstream_request import UpstreamRequest
from .openai_chat import choice_text


def repair_head(document: dict[str, Any], upstream: UpstreamRequest) -> bool:
    """Set `object`, and what else is absent. True if anything changed."""
    head = {
        "id": document.get("id") or upstream.request.id,
        "object": "text_completion",
        "created": created(document, upstream),
        "model": document.get("model") or upstream.request.model,
    }
    changed = False
    for key, value in head.items():
        present = document.get(key)
        # 5.0 equals the integer 5, and some clients take only the latter.
        changed |= type(present) is not type(value) or present != value
    document.update(head)
    return changed


def number_choices(
    choices: Sequence[Any], upstream: UpstreamRequest, *, whole: bool = True
) -> bool:
    """Set the indices that are missing, or cannot be right, among choices that stand
    together. True if anything changed.
    """
    if not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamProtocol("a choice of the answer is no object")
    present = [choice.get("index") for choice in choices]
    indices = choice_indices(present, expected_choices(upstream), whole=whole)
    for choice, index in zip(choices, indices, strict=True):
        choice["index"] = index
    return list(indices) != present


def repair_choice(
    choice: dict[str, Any], upstream: UpstreamRequest, default_reason: str | None = None
) -> bool:
    """Fill what clients index or compare. True if anything changed."""
    # With x-portkey-strict-open-ai-compliance: false it keeps the provider's own word.
    reason = finish_reason(choice.get("finish_reason"), strict=upstream.target.strict)
    index = choice["index"]
    # Not 1.0 or "1" either: clients put choices into lists by it.
    if type(index) is not int:
        raise UpstreamProtocol(f"a choice of the answer has no number: {index!r:.40}")
    repaired = {
        "text": choice_text(choice),
        "index": index,
        "logprobs": choice.get("logprobs"),
        "finish_reason": reason or default_reason,
    }
    changed = any(k not in choice or choice[k] != v for k, v in repaired.items())
    choice.update(repaired)
    return changed


def repair_usage(document: dict[str, Any], upstream: UpstreamRequest) -> bool:
    """Give `usage` the sums that clients count on. True if anything changed.

    What upstream has not counted is estimated, and the answer says so. LangChain fails
    on an answer without usage.
    """
    counts = document.get("usage")
    usage = parse_usage(counts) or Usage(estimated=True)
    if not (usage.prompt_tokens and usage.completion_tokens):
        text_tokens = sum(estimate(choice["text"]) for choice in document["choices"])
        usage = estimate_uncounted(usage, upstream, text_tokens)
    body = usage_body(counts, usage)
    if isinstance(counts, dict) and not usage.estimated and _equal(counts, body):
        return False
    document["usage"] = body
    if usage.estimated:
        document["usage_estimated"] = True
    return True


def _equal(counts: dict[str, Any], body: dict[str, Any]) -> bool:
    # 197.0 equals the integer 197, and some clients take only the latter.
    return counts == body and all(
        type(counts[name]) is int for name in USAGE_SUMS if name in counts
    )


def estimate_uncounted(
    usage: Usage, upstream: UpstreamRequest, text_tokens: int
) -> Usage:
    """*usage* with estimates of what upstream has not counted.

    *text_tokens* are those of all texts, which begin with the prompt after an echo.
    """
    request = upstream.request
    prompt_tokens = sum(map(prompt_estimate, request.prompts))
    if request.max_tokens == 0:
        text_tokens = 0
    elif request.echo:
        text_tokens = max(text_tokens - request.n * prompt_tokens, 0)
    return usage.with_estimates(prompt_tokens, text_tokens)


def read_usage(document: Mapping[str, Any]) -> Usage | None:
    """The usage of an answer or a frame, which may be an estimate of `repair_usage`."""
    usage = parse_usage(document.get("usage"))
    estimated = document.get("usage_estimated") is True
    return replace(usage, estimated=True) if usage and estimated else usage
