"""The errors of upstreams, in whatever shape they come, as OpenAI's.

Shapes seen, with the servers that send them:
  {"error": {"message", "type", "param", "code"}}  OpenAI; vLLM, llama.cpp: int codes
  {"error": "text", "error_type": "..."}           text-generation-inference
  {"object": "error", "message", "type", ...}      SGLang
  {"detail": "text" or [{"loc", "msg"}, ...]}      FastAPI
  {"message": "text"}                              Cohere and many others
  text, HTML, nothing                              proxies in between
"""

from collections.abc import Mapping
from typing import Any

import orjson

from ... import safe_json
from ...errors import UpstreamInBand, UpstreamStatus
from .json_answers import excerpt


def error(status: int, body: bytes) -> UpstreamStatus:
    """An upstream's answer with an error *status*, in OpenAI's shape."""
    return UpstreamStatus(**_error_fields(status, body))


def raise_in_band_error(document: Mapping[str, Any]) -> None:
    """Raise the error that an answer with status 200 contains, if any."""
    if document.get("error") or document.get("object") == "error":
        raise in_band_error(document)
    if error := (document.get("x_groq") or {}).get("error"):
        raise in_band_error({"error": error})


def in_band_error(document: Mapping[str, Any]) -> UpstreamInBand:
    """An error inside an answer with status 200. The document may name its status."""
    details = _details(document)
    # Fields of these names also hold words, or codes of the provider's own: the first
    # that can be an HTTP status counts.
    status = 502
    statuses = document.get("status_code"), details.get("status"), details.get("code")
    for text in map(str, statuses):
        if len(text) == 3 and text.isdecimal() and text[0] in "45":
            status = int(text)
            break
    return UpstreamInBand(**_error_fields(status, orjson.dumps(document)))


def _error_fields(status: int, body: bytes) -> dict[str, Any]:
    """The arguments of an UpstreamStatus."""
    try:
        document, _ = safe_json.load_lenient(body)
    except ValueError:
        document = None
    details = _details(document) if isinstance(document, dict) else {}
    code = details.get("code")
    # A code that only repeats the status says nothing.
    if isinstance(code, (dict, list, bool)) or str(code) == str(status):
        code = None
    return {
        "message": _message(details) or f"upstream answered {status}: {excerpt(body)}",
        "type": _text(details.get("type")) or _text(details.get("error_type")),
        "param": _text(details.get("param")),
        "code": None if code is None else str(code) or None,
        "status": status,
    }


def _details(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that holds `message`, wherever this upstream puts it."""
    inner = document.get("error")
    if isinstance(inner, dict):
        return inner
    if isinstance(inner, str) and inner:
        return {"message": inner, **{k: v for k, v in document.items() if k != "error"}}
    return document


def _message(details: Mapping[str, Any]) -> str | None:
    for key in ("message", "detail"):
        value = details.get(key)
        # FastAPI's `detail`.
        if isinstance(value, list):
            return "; ".join(map(_validation_message, value))
        if value:
            return value if isinstance(value, str) else orjson.dumps(value).decode()
    return None


def _validation_message(item: object) -> str:
    """One entry of FastAPI's list of validation errors."""
    if not isinstance(item, dict):
        return str(item)
    loc = item.get("loc")
    field = ".".join(map(str, loc)) if isinstance(loc, list) else ""
    message = str(item.get("msg", item))
    return f"{field}: {message}" if field else message


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
