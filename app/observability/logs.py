"""The log: one line for each request, and the process's own events.

No line holds a key. A request is named by its trace id; its prompt is logged only if
the operator asks for that, cut and redacted.
"""

import logging
import sys
import threading
from dataclasses import fields
from typing import Any

from ..gateway.request_record import MAX_TEXT, RequestRecord
from .log_format import Console, JSONLines, rfc3339

logger = logging.getLogger("lastword")


def configure(kind: str) -> None:
    """Write the gateway's own lines to standard error, as "json" or as text.

    Warnings of libraries go there, too, unless the root logger is configured already.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines() if kind == "json" else Console())
    # Replaced and not added: where this is called twice, each line would be written
    # twice.
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def capture() -> None:
    """Log warnings and uncaught exceptions, which Python would only print."""
    logging.captureWarnings(True)
    sys.excepthook = lambda *exc_info: _log_uncaught("the process", exc_info)
    threading.excepthook = lambda args: _log_uncaught(
        f"thread {args.thread.name if args.thread else ''}",
        (args.exc_type, args.exc_value, args.exc_traceback),
    )


def _log_uncaught(what: str, exc_info: Any) -> None:
    if not issubclass(exc_info[0], (KeyboardInterrupt, SystemExit)):
        logger.critical("%s failed", what, exc_info=exc_info)


def log_start(version: str, settings: Any) -> None:
    """Log that a process has started, with all settings that are not secret."""
    # A secret is a field with repr=False (settings.py).
    public = {f.name: getattr(settings, f.name) for f in fields(settings) if f.repr}
    logger.info("lastword has begun", extra={"version": version, "settings": public})


class RequestLog:
    """Writes a line for each request; with *prompts*, the prompt too."""

    def __init__(self, *, prompts: bool = False) -> None:
        self._prompts = prompts

    def note(self, record: RequestRecord) -> None:
        extra = log_fields(record)
        if self._prompts:
            extra["prompt"] = record.redacted_prompt()
        logger.info("request", extra=extra)

    def publish(self) -> None:
        """Nothing to do: each line is written at once."""

    def close(self) -> None:
        """Nothing to release."""


def log_fields(record: RequestRecord) -> dict[str, Any]:
    """The fields of a request's line; those without a value are left out."""
    trace, span = record.trace, record.trace.span
    values = {
        "trace_id": trace.id,
        "otel_trace_id": span.trace_id if span else None,
        "status": record.status,
        "end": record.end.value,
        "error": record.error_code,
        "key": trace.key,
        "config": trace.config,
        "provider": record.provider,
        "virtual_key": record.virtual_key,
        "target": record.target_path,
        "via": record.via or None,
        "model": record.model_name,
        "alias": record.alias,
        "stream": record.stream,
        "cache": record.cache,
        "began": rfc3339(record.began),
        "took_ms": _milliseconds(record.took),
        "first_ms": _milliseconds(record.first),
        "gap_ms": _milliseconds(record.gap),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "estimated": record.usage.estimated or None,
        # A text: as a number, a collector would round it to a binary fraction.
        "cost_usd": None if record.cost is None else str(record.cost),
        "attempts": [str(attempt)[:MAX_TEXT] for attempt in record.attempts],
    }
    return {name: value for name, value in values.items() if value is not None}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
