"""What is said of a request in its span, and of each try in its own.

Names are those of the conventions for generative AI and for HTTP; what they have no
name for begins with `lastword.`. docs/traces.md lists all there is. No key is told, and
no text: a prompt only if the operator asks for that, cut as in the log.

Source: https://github.com/open-telemetry/semantic-conventions-genai
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from ..core.caching import CacheStatus
from ..core.request import CompletionRequest
from ..core.routing import Target
from ..errors import GatewayError
from ..gateway.request_record import End, RequestRecord
from ..gateway.retries import Attempt
from ..gateway.tracing import RequestSpan
from ..providers import PROVIDERS
from ..upstream.target_secrets import redactor
from .logs import prompt

Attributes = Mapping[str, Any]

OPERATION = "text_completion"

# What the conventions call a provider otherwise than its configs do.
_PROVIDERS = {
    "azure-ai": "azure.ai.inference",
    "azure-openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "codestral": "mistral_ai",
    "google": "gcp.gemini",
    "mistral-ai": "mistral_ai",
    "perplexity-ai": "perplexity",
    "vertex-ai": "gcp.vertex_ai",
    "x-ai": "x_ai",
}

# Parameters by their legacy names, and what the conventions call them.
_PARAMS = {
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "n": "choice.count",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}

# Characters of a name that somebody else has made up.
_LONGEST = 200


def of_request(
    finished: RequestRecord, span: RequestSpan, *, prompts: bool
) -> Attributes:
    """What is said of a request; with *prompts*, what was asked."""
    return {
        **_http(span, finished),
        **_asked(finished.trace.target, finished.model),
        **_answered(finished, span),
        **_used(finished),
        **_way(finished),
        **(_content(finished) if prompts else {}),
    }


def of_try(
    target: Target,
    attempt: Attempt,
    finished: RequestRecord,
    span: RequestSpan,
    *,
    answered: bool,
) -> Attributes:
    """What is said of a try, which may be the one that has *answered*."""
    request = target.request
    return {
        **_asked(target, request.model if request else ""),
        **_place(target),
        **(_answered(finished, span) if answered else {}),
        **_given("http.response.status_code", _status(attempt, finished, answered)),
        **_given("error.type", _ending(attempt, finished, answered)),
        "lastword.target": attempt.path[:_LONGEST],
    }


def _http(span: RequestSpan, finished: RequestRecord) -> Attributes:
    """What a server says of a request."""
    return {
        "http.request.method": "POST",
        "url.path": span.path[:_LONGEST],
        "http.response.status_code": finished.status,
        **_given("error.type", _error(finished)),
    }


def _asked(target: Target | None, model: str) -> Attributes:
    """Who is asked for what."""
    if target is None or target.request is None:
        return {"gen_ai.operation.name": OPERATION}
    request = target.request
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": _PROVIDERS.get(target.provider, target.provider),
        **_given("gen_ai.request.model", model[:_LONGEST] or None),
        **dict(_params(request)),
        **({"gen_ai.request.stream": True} if request.stream else {}),
        **_given("gen_ai.request.stop_sequences", _stops(request) or None),
    }


def _params(request: CompletionRequest) -> Iterator[tuple[str, int | float]]:
    for name, theirs in _PARAMS.items():
        value = request.params.get(name)
        if isinstance(value, (int, float)) and -(2**63) <= value < 2**63:
            yield f"gen_ai.request.{theirs}", value


def _stops(request: CompletionRequest) -> Sequence[str]:
    return [str(stop)[:_LONGEST] for stop in request.stops]


def _place(target: Target) -> Attributes:
    """Where a target lies; nothing if that cannot be told."""
    try:
        address = urlsplit(PROVIDERS[target.provider].address(target))
        port = address.port or (80 if address.scheme == "http" else 443)
    except (GatewayError, KeyError, ValueError):
        return {}
    if not address.hostname:
        return {}
    return {"server.address": address.hostname[:_LONGEST], "server.port": port}


def _answered(finished: RequestRecord, span: RequestSpan) -> Attributes:
    """What is known of the answer. A choice that was cut has not ended well."""
    document = _document(span.answer)
    reasons = _ended(finished, span) if finished.stream else _reasons(document)
    first = finished.first if finished.stream else None
    target = finished.trace.target
    # A provider may say anything in there.
    clean = redactor(target).text if target else str
    id, model = _text(document.get("id"), clean), _text(document.get("model"), clean)
    reasons = [clean(reason) for reason in reasons]
    return {
        **_given("gen_ai.response.id", id),
        **_given("gen_ai.response.model", model),
        **_given("gen_ai.response.finish_reasons", reasons or None),
        **_given("gen_ai.response.time_to_first_chunk", first),
    }


def _ended(finished: RequestRecord, span: RequestSpan) -> Sequence[str]:
    """Why the choices of a stream have ended."""
    if finished.end != End.WHOLE and not span.reasons:
        return ["error"]
    return [reason.decode("utf-8", "replace") for reason in span.reasons]


def _used(finished: RequestRecord) -> Attributes:
    """The tokens of all tries together."""
    usage = finished.usage
    counted = {
        "input_tokens": usage.paid_prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read.input_tokens": usage.cached_tokens or None,
        "reasoning.output_tokens": usage.reasoning_tokens or None,
    }
    return {
        f"gen_ai.usage.{name}": min(count, 2**62)
        for name, count in counted.items()
        if count is not None and count >= 0
    }


def _way(finished: RequestRecord) -> Attributes:
    """What only this gateway says."""
    trace, target = finished.trace, finished.trace.target
    told = {
        "trace_id": trace.id[:_LONGEST],
        "end": finished.end.value,
        "key": trace.key,
        "config": trace.config,
        "virtual_key": target.virtual_key if target else None,
        "target": target.path[:_LONGEST] if target else None,
        "via": finished.via or None,
        "alias": (target.alias[:_LONGEST] or None) if target else None,
        "cache": trace.cache.value.lower(),
        "cost_usd": float(finished.cost) if finished.cost is not None else None,
        "usage_estimated": finished.usage.estimated or None,
    }
    return {f"lastword.{k}": v for k, v in told.items() if v is not None}


def _content(finished: RequestRecord) -> Attributes:
    """What was asked, in the conventions' form for it."""
    parts = [{"type": "text", "content": prompt(finished)}]
    message = {"role": "user", "parts": parts}
    return {"gen_ai.input.messages": orjson.dumps([message]).decode()}


# Errors


def _error(finished: RequestRecord) -> str | None:
    """The kind of failure that a request has ended with."""
    if finished.error is not None:
        return _failure(finished.error.status, finished.error.kind)
    if finished.end == End.WHOLE:
        return None
    return "CallerLeft" if finished.end == End.LEFT else "_OTHER"


def _failure(status: int, kind: str | None) -> str | None:
    """A provider's own status, else the name of our error."""
    return str(status) if kind in _ANSWERED else kind


# Errors that are the provider's answer, with its status.
_ANSWERED = ("UpstreamStatus",)


def _ending(attempt: Attempt, finished: RequestRecord, answered: bool) -> str | None:
    """The kind of failure of a try. One that has answered ends with the request."""
    if answered:
        return _error(finished)
    return _failure(attempt.status, attempt.failure)


def _status(attempt: Attempt, finished: RequestRecord, answered: bool) -> int | None:
    """The status of the provider; None where it was not asked, or has not answered."""
    if answered:
        return None if finished.trace.cache is CacheStatus.HIT else attempt.status
    return attempt.status if attempt.failure in _ANSWERED else None


# Values


def _given(name: str, value: Any) -> Attributes:
    return {} if value is None else {name: value}


def _text(value: Any, clean: Callable[[str], str]) -> str | None:
    return clean(value)[:_LONGEST] if value and isinstance(value, str) else None


def _document(answer: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(answer or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reasons(document: Mapping[str, Any]) -> Sequence[str]:
    choices = document.get("choices")
    each = choices if isinstance(choices, list) else []
    found = (choice.get("finish_reason") for choice in each if isinstance(choice, dict))
    return [reason[:_LONGEST] for reason in found if isinstance(reason, str)]
