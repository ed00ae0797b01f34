"""The attributes of a request's span and of its attempts' spans.

Names are those of the semantic conventions for generative AI and for HTTP; what they
have no name for begins with `lastword.`. docs/traces.md lists all of them. No attribute
holds a key, and none a text: a prompt only if the operator asks for that, cut and
redacted as in the log.

Source: https://github.com/open-telemetry/semantic-conventions-genai
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from ..core.caching import CacheStatus
from ..core.routing import Target
from ..errors import GatewayError, UpstreamStatus
from ..gateway.request_record import MAX_COUNT, MAX_TEXT, End, RequestRecord
from ..gateway.retries import Attempt
from ..gateway.tracing import RequestSpan
from ..providers import PROVIDERS
from ..upstream.target_secrets import redactor

Attributes = Mapping[str, Any]

OPERATION = "text_completion"

# Providers that the conventions name otherwise than configs do.
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

# Parameters of a request, and their names in the conventions.
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


def request_attributes(
    record: RequestRecord, span: RequestSpan, *, prompts: bool
) -> Attributes:
    """The attributes of a request's span; with *prompts*, its prompt too."""
    trace, usage = record.trace, record.usage
    messages = None
    if prompts:
        parts = [{"type": "text", "content": record.redacted_prompt()}]
        messages = orjson.dumps([{"role": "user", "parts": parts}]).decode()
    attributes = {
        "http.request.method": "POST",
        "url.path": span.path[:MAX_TEXT],
        "http.response.status_code": record.status,
        "error.type": _request_error_type(record),
        **_model_call(trace.target, record.model_name),
        **_model_response(record, span),
        "gen_ai.usage.input_tokens": _token_count(record.prompt_tokens),
        "gen_ai.usage.output_tokens": _token_count(record.completion_tokens),
        "gen_ai.usage.cache_read.input_tokens": _token_count(
            usage.cached_tokens or None
        ),
        "gen_ai.usage.reasoning.output_tokens": _token_count(
            usage.reasoning_tokens or None
        ),
        "gen_ai.input.messages": messages,
        "lastword.trace_id": record.trace_id,
        "lastword.end": record.end.value,
        "lastword.key": trace.key,
        "lastword.config": trace.config,
        "lastword.virtual_key": record.virtual_key,
        "lastword.target": record.target_path,
        "lastword.via": record.via or None,
        "lastword.alias": record.alias,
        "lastword.cache": record.cache,
        "lastword.cost_usd": None if record.cost is None else float(record.cost),
        "lastword.usage_estimated": usage.estimated or None,
    }
    return _without_none(attributes)


def attempt_attributes(
    target: Target,
    attempt: Attempt,
    record: RequestRecord,
    span: RequestSpan,
    *,
    answered: bool,
) -> Attributes:
    """The attributes of an attempt's span. The one that *answered* ends as the request
    does, which may still fail in the middle of its stream.
    """
    model = target.request.model[:MAX_TEXT] if target.request else ""
    # The status is the provider's only if it answered; other failures get one from us.
    is_status = attempt.failure == UpstreamStatus.__name__
    status = attempt.status if is_status else None
    if answered:
        # A cache hit called nobody, so that there is no status.
        status = None if record.trace.cache is CacheStatus.HIT else attempt.status
        error = _request_error_type(record)
    else:
        error = str(attempt.status) if is_status else attempt.failure
    attributes = {
        **_model_call(target, model),
        **_server_address(target),
        **(_model_response(record, span) if answered else {}),
        "http.response.status_code": status,
        "error.type": error,
        "lastword.target": attempt.path[:MAX_TEXT],
    }
    return _without_none(attributes)


def _request_error_type(record: RequestRecord) -> str | None:
    """A provider's own status, else the class name of our error."""
    error = record.error
    if error is not None:
        is_status = error.kind == UpstreamStatus.__name__
        return str(error.status) if is_status else error.kind
    if record.end == End.WHOLE:
        return None
    return "CallerLeft" if record.end == End.LEFT else "_OTHER"


def _model_call(target: Target | None, model: str) -> Attributes:
    """Provider, model and parameters of a call."""
    if target is None or target.request is None:
        return {"gen_ai.operation.name": OPERATION}
    request = target.request
    # OpenTelemetry's integers have 64 bits; the exporter fails on longer ones, and with
    # them the whole batch.
    params = {
        f"gen_ai.request.{attribute}": value
        for name, attribute in _PARAMS.items()
        if isinstance(value := request.params.get(name), (int, float))
        and -(2**63) <= value < 2**63
    }
    return params | {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": _PROVIDERS.get(target.provider, target.provider),
        "gen_ai.request.model": model or None,
        "gen_ai.request.stream": request.stream or None,
        "gen_ai.request.stop_sequences": (
            [str(stop)[:MAX_TEXT] for stop in request.stops] or None
        ),
    }


def _server_address(target: Target) -> Attributes:
    """Host and port of a target; nothing if its URL cannot be built or read."""
    try:
        url = urlsplit(PROVIDERS[target.provider].address(target))
        port = url.port or (80 if url.scheme == "http" else 443)
    except (GatewayError, KeyError, ValueError):
        return {}
    if not url.hostname:
        return {}
    return {"server.address": url.hostname[:MAX_TEXT], "server.port": port}


def _model_response(record: RequestRecord, span: RequestSpan) -> Attributes:
    """Id, model and finish reasons of the answer.

    All of them are the provider's own texts, which may quote a key: they are redacted.
    """
    target = record.trace.target
    redact = redactor(target).text if target else str
    try:
        document = orjson.loads(span.answer or b"{}")
    except ValueError:
        document = None
    # A provider may answer with any JSON.
    answer = document if isinstance(document, dict) else {}
    texts = {
        name: redact(value)[:MAX_TEXT] if value and isinstance(value, str) else None
        for name, value in ((name, answer.get(name)) for name in ("id", "model"))
    }
    if not record.stream:
        reasons = _finish_reasons(answer)
    elif span.finish_reasons or record.end == End.WHOLE:
        reasons = [each.decode("utf-8", "replace") for each in span.finish_reasons]
    else:
        # A stream that was cut, or failed, before any finish reason. The conventions
        # have "error" for it.
        reasons = ["error"]
    return {
        "gen_ai.response.id": texts["id"],
        "gen_ai.response.model": texts["model"],
        "gen_ai.response.finish_reasons": [redact(each) for each in reasons] or None,
        "gen_ai.response.time_to_first_chunk": record.first if record.stream else None,
    }


def _finish_reasons(answer: Mapping[str, Any]) -> Sequence[str]:
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return []
    values = (each.get("finish_reason") for each in choices if isinstance(each, dict))
    return [value[:MAX_TEXT] for value in values if isinstance(value, str)]


def _token_count(count: int | None) -> int | None:
    """*count*, if it is one: some providers report negative or absurd numbers."""
    return None if count is None or count < 0 else min(count, MAX_COUNT)


def _without_none(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}
