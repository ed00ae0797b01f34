"""Which headers of an upstream response are passed on to callers.

An upstream may send headers that no server accepts from an application: gunicorn
replaces such a response with a 500, and an answer that was paid for would be lost.

Source: https://www.rfc-editor.org/rfc/rfc9110#section-5
"""

import re
from collections.abc import Mapping

# What clients read: limits, waits, and who answered.
_PREFIXES = ("openai-", "x-ratelimit-", "retry-after")
_NAMES = ("x-request-id", "x-should-retry")

# When to retry, in milliseconds; read by the gateway only (Azure).
_RETRY_AFTER_MS = "x-ms-retry-after-ms"

# A token of RFC 9110; and the printable characters of Latin-1.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")
_VALUE = re.compile(r"[ -~\xa0-\xff]{0,4096}")

# Count, and characters in total: proxies refuse a response with more.
_MAX_COUNT = 32
_MAX_TOTAL = 2**14


def caller_headers(upstream: Mapping[str, str]) -> dict[str, str]:
    """The headers of an upstream response that callers get, in lower case.

    Invalid headers are left out, and so is what exceeds the limits of size.
    """
    headers: dict[str, str] = {}
    remaining = _MAX_TOTAL
    for name, value in upstream.items():
        name = name.lower()
        if not (name.startswith(_PREFIXES) or name in _NAMES):
            continue
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            continue
        remaining -= len(name) + len(value)
        if remaining < 0 or len(headers) == _MAX_COUNT:
            break
        headers[name] = value
    return headers


def has_wait(headers: Mapping[str, str]) -> bool:
    """Whether *headers*, of `error_headers`, say when to retry."""
    return _RETRY_AFTER_MS in headers or any(
        name.startswith("retry-after") for name in headers
    )


def error_headers(upstream: Mapping[str, str]) -> dict[str, str]:
    """The same of an error response, with when to retry."""
    headers = caller_headers(upstream)
    for name, value in upstream.items():
        if name.lower() == _RETRY_AFTER_MS:
            return headers | {_RETRY_AFTER_MS: value}
    return headers
