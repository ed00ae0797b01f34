"""What is written down: a line for each request, and what else there is to say.

As JSON, for collectors; or for people. No key stands in either: a request is told by
its trace id, and its prompt only if the operator asks for that, cut, and without what
looks like a key.
"""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import orjson

from ..gateway.events import Finished

logger = logging.getLogger("lastword")

# Characters of a prompt that are shown.
_SHOWN = 200

# Keys of providers and of this gateway, tokens, and what is behind "Bearer".
_KEY = re.compile(
    r"\b(?:sk|pk|lw|gsk|xai|hf|AIza|AKIA|eyJ)[-_\w.]{12,}|(?<=Bearer )\S+"
)

# What every record of Python's has.
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONLines(logging.Formatter):
    """A record as one line of JSON, with what is extra in it."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            "process": record.process,
            **_extra(record),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(told, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class Console(logging.Formatter):
    """A record for people: the time, what happened, what is extra as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        words = " ".join(f"{k}={_word(v)}" for k, v in _extra(record).items())
        line = f"{_time(record.created)} {record.levelname:<7} {record.getMessage()}"
        if record.exc_info:
            words += "\n" + self.formatException(record.exc_info)
        return f"{line} {words}".rstrip()


def configure(kind: str) -> None:
    """Have the gateway's own lines go to standard error, as *kind* says."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines() if kind == "json" else Console())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def begun(version: str, settings: Any) -> None:
    """Say that a process has begun, and how it is set; not what is secret."""
    told = {f.name: getattr(settings, f.name) for f in fields(settings) if f.repr}
    logger.info("lastword has begun", extra={"version": version, "settings": told})


class RequestLog:
    """Writes a line for each request; with *prompts*, what was asked."""

    def __init__(self, *, prompts: bool = False) -> None:
        self._prompts = prompts

    def note(self, finished: Finished) -> None:
        told = line(finished)
        if self._prompts:
            told["prompt"] = prompt(finished)
        logger.info("request", extra=told)

    def publish(self) -> None:
        """There is nothing to do: a line is out when it is written."""

    def close(self) -> None:
        """There is nothing to let go of."""


def line(finished: Finished) -> dict[str, Any]:
    """What is said of a request; what there is not is left out."""
    trace, target, usage = finished.trace, finished.trace.target, finished.usage
    told = {
        "trace_id": trace.id,
        "status": finished.status,
        "end": finished.end.value,
        "error": finished.error.code if finished.error else None,
        "key": trace.key,
        "config": trace.config,
        "provider": target.provider if target else None,
        "virtual_key": target.virtual_key if target else None,
        "target": target.path if target else None,
        "via": finished.via or None,
        "model": finished.model[:_SHOWN],
        "alias": (target.alias or None) if target else None,
        "stream": finished.stream,
        "cache": trace.cache.value.lower(),
        "began": _time(finished.began),
        "took_ms": _milliseconds(finished.took),
        "first_ms": _milliseconds(finished.first),
        "gap_ms": _milliseconds(finished.gap),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "estimated": usage.estimated or None,
        "cost_usd": str(finished.cost) if finished.cost is not None else None,
        "attempts": [str(attempt) for attempt in trace.attempts],
    }
    return {name: value for name, value in told.items() if value is not None}


def prompt(finished: Finished) -> str:
    """As much of what was asked as may be shown, without what looks like a key."""
    target = finished.trace.target
    asked = target.request.prompt if target and target.request else ""
    text = asked if isinstance(asked, str) else str(asked)[: 10 * _SHOWN]
    return _KEY.sub("[redacted]", text[: 10 * _SHOWN])[:_SHOWN]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _time(seconds: float) -> str:
    """As RFC 3339 writes it, in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    return {k: v for k, v in vars(record).items() if k not in _USUAL}


def _word(value: Any) -> str:
    text = ",".join(value) if isinstance(value, list) else str(value)
    plain = text and " " not in text and text.isprintable()
    return text if plain else repr(text)
