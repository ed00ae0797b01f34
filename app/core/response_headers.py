"""Which headers of an upstream's answer callers get, and whether they can be sent.

An upstream may send what no server takes from an application: gunicorn answers such a
header with a 500, and the answer, which was paid for, would be lost.

Source: https://www.rfc-editor.org/rfc/rfc9110#section-5
"""

import re
from collections.abc import Mapping

# What callers read of it: limits, waits, and who answered.
_PREFIXES = ("openai-", "x-ratelimit-", "retry-after")
_NAMES = ("x-request-id", "x-should-retry")

# What says when to ask again and is for the gateway alone (Azure).
_WAIT = "x-ms-retry-after-ms"

# A token of RFC 9110; and what can be seen of Latin-1, blanks included, no controls.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")
_VALUE = re.compile(r"[ -~\xa0-\xff]{0,4096}")

# How many, and characters of all of them: proxies refuse an answer with more.
_MAX_COUNT = 32
_MAX_TOTAL = 2**14


def caller_headers(upstream: Mapping[str, str]) -> dict[str, str]:
    """Those headers of an upstream's answer that callers read, in lower case.

    What cannot be sent is left out, and so is what comes after too many or too long
    ones.
    """
    kept: dict[str, str] = {}
    left = _MAX_TOTAL
    for given, value in upstream.items():
        name = given.lower()
        if not (name.startswith(_PREFIXES) or name in _NAMES):
            continue
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            continue
        left -= len(name) + len(value)
        if left < 0 or len(kept) == _MAX_COUNT:
            break
        kept[name] = value
    return kept


def error_headers(upstream: Mapping[str, str]) -> dict[str, str]:
    """Those of an answer that is an error: what callers read, and when to ask again."""
    waits = (value for name, value in upstream.items() if name.lower() == _WAIT)
    wait = next(waits, None)
    return caller_headers(upstream) | ({} if wait is None else {_WAIT: wait})
