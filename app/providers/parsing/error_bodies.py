"""The errors of upstreams, in whatever shape they come, as OpenAI's.

Shapes seen, with the servers that send them:
  {"error": {"message", "type", "param", "code"}}  OpenAI; vLLM, llama.cpp: int codes
  {"error": {..., "innererror": {...}}}            Azure: which filter said no
  {"error": {..., "metadata": {"raw", ...}}}       OpenRouter: its provider's own error
  {"error": "text", "error_type": "..."}           text-generation-inference
  {"object": "error", "message", "type", ...}      SGLang
  {"detail": "text" or [{"loc", "msg"}, ...]}      FastAPI
  {"message": "text"}, {"Message": "text"}         Cohere, AWS, and many others
  {"success": false, "errors": [{"message"}]}      Cloudflare
  {"base_resp": {"status_code", "status_msg"}}     MiniMax
  [{"error": {...}}]                               Google, for a stream without SSE
  text, HTML, nothing                              proxies in between

An answer with status 200 may hold one as well: in place of the answer, of an event, or
of one choice; see `raise_in_band_error` and `raise_error_event`.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from ... import safe_json
from ...core.sse import ERROR, Event
from ...errors import UpstreamInBand, UpstreamStatus
from . import context_length
from .answer_fields import parse_usage
from .excerpts import excerpt
from .retry_hints import retry_headers

# What an error says besides its four fields, and callers can use: why Azure's filters
# refused a prompt, what OpenRouter's provider answered, how long llama.cpp's context
# is. Sources: https://learn.microsoft.com/azure/ai-foundry/openai/concepts/
# content-filter, https://openrouter.ai/docs/api/reference/errors-and-debugging
_DETAILS = (
    "innererror",
    "inner_error",
    "content_filter_result",
    "content_filter_results",
    "content_filters",
    "metadata",
    "n_prompt_tokens",
    "n_ctx",
)

# Where servers put the message, in the order of preference.
_MESSAGES = ("message", "Message", "detail", "msg", "error_message", "errors")

# Statuses of errors within an answer, which name a type, and no status.
# Sources: https://platform.claude.com/docs/en/api/errors,
# https://platform.openai.com/docs/guides/error-codes,
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
_TYPE_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "throttlingexception": 429,
    "validationexception": 400,
    "serviceunavailableexception": 503,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

# A document that has no other fields than these is an error, if it has a message.
_ERROR_FIELDS = {
    *_MESSAGES,
    *("code", "type", "object", "param", "status", "status_code", "statusCode"),
    *("error_code", "error_type", "success", "title", "path", "timestamp", "details"),
    *("id", "request_id", "requestId", "__type"),
}

_NEWS = {
    *("heartbeat", "info", "keepalive", "message", "ping", "processing", "progress"),
    *("queued", "status", "warning"),
}

# Characters of a text that stands in place of a message.
_QUOTED = 1000


def error(status: int, body: bytes) -> UpstreamStatus:
    """An upstream's answer with an error *status*, in OpenAI's shape."""
    document = _load(body)
    if not isinstance(document, dict):
        return UpstreamStatus(f"upstream answered {status}: {excerpt(body)}", status)
    return UpstreamStatus(**_error_fields(status, document))


def raise_in_band_error(
    document: Mapping[str, Any], counts: Mapping[str, Any] | None = None
) -> None:
    """Raise the error that an answer with status 200 contains, if any.

    *counts* is the `usage` that came before it.
    """
    kinds = document.get("object"), document.get("type")
    if document.get("error") or "error" in kinds:
        raise in_band_error(document, counts)
    groq, minimax = document.get("x_groq"), document.get("base_resp")
    if isinstance(groq, dict) and groq.get("error"):
        raise in_band_error({"error": groq["error"], "usage": groq.get("usage")})
    if isinstance(minimax, dict) and minimax.get("status_code"):
        raise in_band_error(document, counts)
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        # OpenRouter, beside the finish reason `error`.
        if isinstance(choice, dict) and choice.get("error"):
            raise in_band_error({**document, "error": choice["error"]}, counts)
    if document.get("success") is False or _is_only_error(document):
        raise in_band_error(document, counts)


def in_band_error(
    document: Mapping[str, Any], counts: Mapping[str, Any] | None = None
) -> UpstreamInBand:
    """An error inside an answer with status 200.

    The document may name its status, and the `usage` that is paid for all the same;
    *counts* is an earlier one.
    """
    status = _in_band_status(document)
    # An unknown error may be anything; 502 lets other targets try.
    fields = _error_fields(status or 502, document)
    if status is None and fields["code"] == context_length.CODE:
        fields["status"] = 400
    usage = parse_usage(document.get("usage")) or parse_usage(counts)
    return UpstreamInBand(**fields, usage=usage.to_body() if usage else None)


def raise_error_event(event: Event) -> None:
    """Raise the error that *event* is if its name is `error`, whatever its data: no
    reader knows all that servers put there.
    """
    if event.name.lower() != ERROR:
        return
    data, document = event.data, _load(event.data)
    if isinstance(document, dict):
        raise in_band_error(document)
    text = document if isinstance(document, str) else excerpt(data, _QUOTED)
    raise in_band_error({"error": text if data.strip() else "no message"})


def _load(body: bytes) -> Any:
    """The JSON in *body*; None if it is none. Of a list, what is first."""
    try:
        document, _ = safe_json.load_lenient(body)
    except ValueError:
        return None
    return document[0] if isinstance(document, list) and document else document


def _is_only_error(document: Mapping[str, Any]) -> bool:
    """Whether there is a message in *document*, and no field of any answer."""
    message = document.get("message") or document.get("detail")
    if not isinstance(message, (str, list)) or not _ERROR_FIELDS.issuperset(document):
        return False
    # Servers also send news of a queue, or signs of life.
    kinds = (document.get("type"), document.get("object"), document.get("status"))
    return _NEWS.isdisjoint(kind for kind in kinds if isinstance(kind, str))


def _in_band_status(document: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error within an answer names, or its type stands for."""
    details = _details(document)
    # Fields of these names also hold words, or codes of the provider's own: the first
    # that can be an HTTP status counts.
    statuses = document.get("status_code"), details.get("status"), details.get("code")
    for text in map(str, statuses):
        if len(text) == 3 and text.isdecimal() and text[0] in "45":
            return int(text)
    for word in (details.get("code"), details.get("type")):
        if isinstance(word, str) and word.lower() in _TYPE_STATUSES:
            return _TYPE_STATUSES[word.lower()]
    return None


def _error_fields(status: int, document: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an UpstreamStatus."""
    details = _details(document)
    message = _message(details)
    if not message:
        quoted = excerpt(orjson.dumps(document, default=str))
        message = f"upstream answered {status}: {quoted}"
    kind = _text(details.get("type")) or _text(details.get("error_type"))
    code = details.get("code")
    # A code that only repeats the status says nothing.
    if isinstance(code, (dict, list, bool)) or str(code) == str(status):
        code = None
    code = None if code is None else str(code) or None
    if context_length.is_context_overflow(status, message, (code, kind)):
        # What names it in the type's place is no type of OpenAI's.
        kind = None if context_length.is_code(kind) else kind
        code = context_length.CODE
    return {
        "message": message,
        "type": kind,
        "param": _text(details.get("param")),
        "code": code,
        "status": status,
        "headers": retry_headers(status, details, message),
        "details": {key: details[key] for key in _DETAILS if details.get(key)},
    }


def _details(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that holds `message`, wherever this upstream puts it."""
    inner = document.get("error")
    if isinstance(inner, str) and inner.lstrip()[:1] == "{":
        # An error as text, of a server behind this one.
        nested = _load(inner.encode("utf-8", "replace"))
        inner = _details(nested) if isinstance(nested, dict) else inner
    if isinstance(inner, dict):
        return inner
    if isinstance(inner, str) and inner:
        return {"message": inner, **{k: v for k, v in document.items() if k != "error"}}
    response = document.get("base_resp")
    if isinstance(response, dict):
        code, message = response.get("status_code"), response.get("status_msg")
        return {"message": message, "code": code}
    return document


def _message(details: Mapping[str, Any]) -> str | None:
    """The message, with that of the provider behind a router, if it says more."""
    message = _own_message(details)
    metadata = details.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if not (message and raw and isinstance(metadata, dict)):
        return message
    # "Provider returned error" alone would help nobody.
    text = raw if isinstance(raw, str) else orjson.dumps(raw, default=str).decode()
    nested = _load(text.encode("utf-8", "replace"))
    inner = _own_message(_details(nested)) if isinstance(nested, dict) else None
    inner = inner or excerpt(text.encode("utf-8", "replace"), _QUOTED)
    name = _text(metadata.get("provider_name"))
    source = f" ({name})" if name else ""
    return message if inner in message else f"{message}{source}: {inner}"


def _own_message(details: Mapping[str, Any]) -> str | None:
    for key in _MESSAGES:
        value = details.get(key)
        # FastAPI's `detail`, and lists of objects with a message each.
        if isinstance(value, list):
            text = "; ".join(filter(None, map(_validation_message, value)))
            if text:
                return text
        elif value:
            return value if isinstance(value, str) else orjson.dumps(value).decode()
    return None


def _validation_message(item: object) -> str:
    """One entry of a list of errors."""
    if not isinstance(item, dict):
        return str(item)
    loc = item.get("loc")
    field = ".".join(map(str, loc)) if isinstance(loc, list) else ""
    message = str(item.get("msg") or item.get("message") or item)
    return f"{field}: {message}" if field else message


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
