"""What is written down: a line for each request, and what else there is to say.

As JSON, for collectors; or for people. No key stands in either: a request is told by
its trace id, and its prompt only if the operator asks for that, cut, and without what
looks like a key.
"""

import logging
import sys
import threading
from dataclasses import fields
from typing import Any

from ..core.redaction import without_likely_keys
from ..gateway.request_record import RequestRecord
from ..upstream.target_secrets import redactor
from .log_format import Console, JSONLines, rfc3339

logger = logging.getLogger("lastword")

# Characters of a prompt that are shown.
_SHOWN = 200

# Tries of a request that are named, the last ones.
_SHOWN_ATTEMPTS = 32


def configure(kind: str) -> None:
    """Have the gateway's own lines go to standard error, as *kind* says.

    So do warnings of libraries, unless somebody else looks after those.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines() if kind == "json" else Console())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def capture() -> None:
    """Have what Python itself would print go into the log."""
    logging.captureWarnings(True)
    sys.excepthook = lambda *raised: _uncaught("the process", raised)
    threading.excepthook = lambda failed: _uncaught(
        f"thread {failed.thread.name if failed.thread else ''}",
        (failed.exc_type, failed.exc_value, failed.exc_traceback),
    )


def _uncaught(what: str, raised: Any) -> None:
    if not issubclass(raised[0], (KeyboardInterrupt, SystemExit)):
        logger.critical("%s failed", what, exc_info=raised)


def begun(version: str, settings: Any) -> None:
    """Say that a process has begun, and how it is set; not what is secret."""
    told = {f.name: getattr(settings, f.name) for f in fields(settings) if f.repr}
    logger.info("lastword has begun", extra={"version": version, "settings": told})


class RequestLog:
    """Writes a line for each request; with *prompts*, what was asked."""

    def __init__(self, *, prompts: bool = False) -> None:
        self._prompts = prompts

    def note(self, finished: RequestRecord) -> None:
        told = line(finished)
        if self._prompts:
            told["prompt"] = prompt(finished)
        logger.info("request", extra=told)

    def publish(self) -> None:
        """There is nothing to do: a line is out when it is written."""

    def close(self) -> None:
        """There is nothing to let go of."""


def line(finished: RequestRecord) -> dict[str, Any]:
    """What is said of a request; what there is not is left out."""
    trace, target, usage = finished.trace, finished.trace.target, finished.usage
    told = {
        "trace_id": trace.id,
        "otel_trace_id": trace.span.trace_id if trace.span else None,
        "status": finished.status,
        "end": finished.end.value,
        "error": _short(finished.error.code) if finished.error else None,
        "key": trace.key,
        "config": trace.config,
        "provider": target.provider if target else None,
        "virtual_key": target.virtual_key if target else None,
        "target": _short(target.path) if target else None,
        "via": finished.via or None,
        "model": finished.model[:_SHOWN],
        "alias": (_short(target.alias) or None) if target else None,
        "stream": finished.stream,
        "cache": trace.cache.value.lower(),
        "began": rfc3339(finished.began),
        "took_ms": _milliseconds(finished.took),
        "first_ms": _milliseconds(finished.first),
        "gap_ms": _milliseconds(finished.gap),
        "prompt_tokens": usage.paid_prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "estimated": usage.estimated or None,
        "cost_usd": str(finished.cost) if finished.cost is not None else None,
        "attempts": [_short(str(a)) for a in trace.attempts[-_SHOWN_ATTEMPTS:]],
    }
    return {name: value for name, value in told.items() if value is not None}


def prompt(finished: RequestRecord) -> str:
    """As much of what was asked as may be shown, without what looks like a key."""
    target = finished.trace.target
    asked = target.request.prompt if target and target.request else ""
    text = asked if isinstance(asked, str) else str(asked)[: 10 * _SHOWN]
    text = text[: 10 * _SHOWN]
    if target:
        text = redactor(target).text(text)
    return without_likely_keys(text)[:_SHOWN]


def _short(text: str | None) -> str | None:
    return text[:_SHOWN] if text else text


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
