"""When to retry, where the body of an error says so, and not its headers.

Google's errors have a `RetryInfo` among their details, OpenRouter's the headers of its
own provider, and some servers a field, or the end of a sentence.

Sources: https://github.com/googleapis/googleapis/blob/master/google/rpc/
error_details.proto, https://protobuf.dev/reference/protobuf/google.protobuf/#duration,
https://openrouter.ai/docs/api/reference/errors-and-debugging
"""

import re
from collections.abc import Mapping
from email.utils import formatdate
from math import ceil
from typing import Any

# Statuses that waiting may cure.
_STATUSES = (429, 503, 529)

# A week: longer waits are no waits, but mistakes.
_LONGEST = 604_800.0

# Fields of an error, or of its `metadata`, and what divides their values to seconds.
_FIELDS = {
    "retry_after": 1,
    "retryAfter": 1,
    "retry_after_seconds": 1,
    "retry_after_ms": 1000,
}

# "Please try again in 1m0.36s." (Groq, OpenAI), "Please retry in 58.9s." (Google),
# "Please retry after 26 seconds." (Azure).
# Source: https://github.com/Aider-AI/aider/issues/3265
_SENTENCE = re.compile(
    r"(?:try again|retry) (?:in|after) (?:(\d{1,3})h)?(?:(\d{1,4})m(?!s))?"
    r"(?:(\d{1,7}(?:\.\d{1,12})?) ?(ms|min(?:ute)?s?|s(?:ec(?:ond)?s?)?)\b)?",
    re.I,
)


def retry_headers(
    status: int, details: Mapping[str, Any], message: str
) -> dict[str, str]:
    """`retry-after`, as far as an error's *details* or its *message* tell a wait.

    It is in whole seconds, as HTTP has it; a fraction is in `retry-after-ms` besides.
    """
    metadata = details.get("metadata")
    holders = [details, metadata] if isinstance(metadata, dict) else [details]
    seconds = _retry_info(details.get("details"))
    for holder in holders:
        for name, divisor in _FIELDS.items():
            seconds = seconds or _seconds(holder.get(name), divisor)
    if seconds is None and status in _STATUSES:
        seconds = _sentence_seconds(message)
    if seconds is not None:
        headers = {"retry-after": str(ceil(seconds))}
        if seconds != ceil(seconds):
            headers["retry-after-ms"] = str(ceil(seconds * 1000))
        return headers
    return _reset_header(holders[-1].get("headers")) if status in _STATUSES else {}


def _retry_info(details: Any) -> float | None:
    """The delay of Google's RetryInfo: "37s", "45.837906927s", {"seconds": 37}."""
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        delay = detail.get("retryDelay") or detail.get("retry_delay")
        if isinstance(delay, dict):
            nanos = _seconds(delay.get("nanos"), 10**9) or 0.0
            return ((_seconds(delay.get("seconds"), 1) or 0.0) + nanos) or None
        if isinstance(delay, str):
            return _seconds(delay.strip().removesuffix("s"), 1)
    return None


def _seconds(value: Any, divisor: int) -> float | None:
    """*value* in seconds, if it is a positive number, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value) / divisor
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds <= _LONGEST else None


def _sentence_seconds(message: str) -> float | None:
    match = _SENTENCE.search(message[:4096])
    if not match:
        return None
    hours, minutes, seconds, unit = match.groups()
    total = 3600 * int(hours or 0) + 60 * int(minutes or 0)
    scale = {"ms": 0.001, "mi": 60}.get((unit or "")[:2].lower(), 1)
    return _seconds(total + float(seconds or 0) * scale, 1)


def _reset_header(headers: Any) -> dict[str, str]:
    """When OpenRouter's limit ends, as a date: its header is in Unix milliseconds."""
    if not isinstance(headers, dict):
        return {}
    lower = {str(name).lower(): value for name, value in headers.items()}
    if "retry-after" in lower:
        seconds = _seconds(lower["retry-after"], 1)
        return {"retry-after": str(ceil(seconds))} if seconds else {}
    try:
        milliseconds = int(lower.get("x-ratelimit-reset", ""))
    except (TypeError, ValueError):
        return {}
    # From 2001 to 2286; what is smaller is no time in milliseconds.
    if not 10**12 <= milliseconds < 10**13:
        return {}
    return {"retry-after": formatdate(ceil(milliseconds / 1000), usegmt=True)}
