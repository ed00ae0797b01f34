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
from ..parsing.answer_fields import created, finish_reason, parse_usage
from ..parsing.stream_ending import choice_indices, expected_choices
from ..upstream_request import UpstreamRequest
from .openai_chat import text_of


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
        "text": _text(choice),
        "index": index,
        "logprobs": choice.get("logprobs"),
        "finish_reason": reason or default_reason,
    }
    changed = any(k not in choice or choice[k] != v for k, v in repaired.items())
    choice.update(repaired)
    return changed


def _text(choice: Mapping[str, Any]) -> str:
    """The text, also of servers that send messages even here (Mistral's FIM)."""
    text = choice.get("text")
    if text is None:
        message = choice.get("delta") or choice.get("message")
        return text_of(message.get("content")) if isinstance(message, dict) else ""
    return str(text)


def repair_usage(document: dict[str, Any], upstream: UpstreamRequest) -> bool:
    """Estimate `usage` where upstream counts nothing, and say so in the answer.

    LangChain fails on an answer without it.
    """
    if isinstance(document.get("usage"), dict):
        return False
    completion_tokens = sum(estimate(choice["text"]) for choice in document["choices"])
    document["usage"] = estimated_usage(upstream, completion_tokens)
    document["usage_estimated"] = True
    return True


def estimated_usage(
    upstream: UpstreamRequest, completion_tokens: int
) -> dict[str, int]:
    """The `usage` of an answer for which upstream counted nothing."""
    prompt_tokens = sum(map(prompt_estimate, upstream.request.prompts))
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def read_usage(document: Mapping[str, Any]) -> Usage | None:
    """The usage of a whole answer, which may be an estimate of `repair_usage`."""
    counts = parse_usage(document["usage"])
    estimated = "usage_estimated" in document
    return replace(counts, estimated=True) if counts and estimated else counts


def check_prompt_logprobs(choice: Mapping[str, Any], upstream: UpstreamRequest) -> None:
    """Refuse scores of the answer alone where those of the prompt were requested.

    Evaluations would take one for the other in silence: ggml-org/llama.cpp#27174.
    """
    request = upstream.request
    if not request.echo or request.logprobs is None:
        return
    # Choices come prompt by prompt, n for each.
    prompt = request.prompts[choice["index"] // request.n % len(request.prompts)]
    logprobs = choice["logprobs"]
    tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
        tokens = []
    # Of a text, all characters have to be there; of token ids, all tokens.
    covered = len("".join(tokens)) if isinstance(prompt, str) else len(tokens)
    if covered < len(prompt or ()):
        raise UpstreamProtocol(
            "upstream sent no log probabilities of the prompt, though 'echo' and "
            "'logprobs' ask for them"
        )
