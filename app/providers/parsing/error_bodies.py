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
from .json_bodies import excerpt


def error(status: int, body: bytes) -> UpstreamStatus:
    """An upstream's answer with an error *status*, in OpenAI's shape."""
    return UpstreamStatus(**_read(status, body))


def _read(status: int, body: bytes) -> dict[str, Any]:
    """What an error is made of."""
    details = _details(body)
    return {
        "message": _message(details) or f"upstream answered {status}: {excerpt(body)}",
        "type": _text(details.get("type")) or _text(details.get("error_type")),
        "param": _text(details.get("param")),
        "code": _code(details, status),
        "status": status,
    }


def in_band(document: Mapping[str, Any]) -> UpstreamInBand:
    """An error that came inside an answer with status 200; it names its own status."""
    details = _flat(document)
    seen = [document.get("status_code"), details.get("status"), details.get("code")]
    status = next((s for s in map(_as_status, seen) if s), 502)
    return UpstreamInBand(**_read(status, orjson.dumps(document)))


def _as_status(value: object) -> int | None:
    text = str(value)
    return (
        int(text) if text.isdecimal() and text[:1] in "45" and len(text) == 3 else None
    )


def _details(body: bytes) -> Mapping[str, Any]:
    try:
        document = safe_json.load(body)
    except ValueError:
        return {}
    return _flat(document) if isinstance(document, dict) else {}


def _flat(document: Mapping[str, Any]) -> Mapping[str, Any]:
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
        if isinstance(value, list):
            return "; ".join(_complaint(item) for item in value)
        if value:
            return value if isinstance(value, str) else orjson.dumps(value).decode()
    return None


def _complaint(item: object) -> str:
    """One entry of FastAPI's list of validation errors."""
    if not isinstance(item, dict):
        return str(item)
    loc = item.get("loc")
    where = ".".join(map(str, loc)) if isinstance(loc, list) else ""
    return f"{where}: {item.get('msg', item)}" if where else str(item.get("msg", item))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _code(details: Mapping[str, Any], status: int) -> str | None:
    """The code as a string; None if it only repeats the status."""
    code = details.get("code")
    if code is None or isinstance(code, (dict, list, bool)) or str(code) == str(status):
        return None
    return str(code) or None
