"""What a line of the log looks like: as JSON, for collectors; or for people.

This module is imported in the gunicorn master, so it loads nothing that gevent patches
later.
"""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.redaction import without_likely_keys

# Characters of a text in a line, of which somebody else may have made up some; and of a
# traceback.
_LONGEST = 2000
_LONGEST_TRACE = 20_000

# What every record of Python's has.
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONLines(logging.Formatter):
    """A record as one line of JSON, with what is extra in it."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "event": _short(record.getMessage()),
            "logger": record.name,
            "process": record.process,
            **_extra(record),
        }
        if record.exc_info:
            told["traceback"] = _traceback(self, record)
        return _json(told)


def _json(told: Mapping[str, Any]) -> str:
    """*told* on one line, whatever is in it: half characters, numbers of any length."""
    try:
        return orjson.dumps(told, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(told, default=str)


class Console(logging.Formatter):
    """A record for people: the time, what happened, what is extra as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        words = " ".join(f"{k}={_word(v)}" for k, v in _extra(record).items())
        event = _short(record.getMessage())
        line = f"{rfc3339(record.created)} {record.levelname:<7} {event}"
        if record.exc_info:
            words += "\n" + _traceback(self, record)
        return f"{line} {words}".rstrip()


def rfc3339(seconds: float) -> str:
    """As RFC 3339 writes it, in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    return {k: _short(v) for k, v in vars(record).items() if k not in _USUAL}


def _short(value: Any) -> Any:
    """*value*; only the beginning of a text that is too long."""
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "..."
    return value


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback of *record*: the messages in it may quote what was at hand."""
    assert record.exc_info
    text = formatter.formatException(record.exc_info)
    if len(text) > _LONGEST_TRACE:
        half = _LONGEST_TRACE // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return without_likely_keys(text)


class Bounded(logging.Filter):
    """Has a logger of somebody else's write short lines, without what looks like a key.

    gunicorn quotes a head that it cannot read, all 64 KiB of a line of it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if len(text) > _LONGEST_QUOTED:
            text = text[:_LONGEST_QUOTED] + "..."
        record.msg, record.args = without_likely_keys(text), ()
        return True


_LONGEST_QUOTED = 500

# One for all: a logger takes the same one only once.
BOUNDED = Bounded()


def _word(value: Any) -> str:
    text = ",".join(value) if isinstance(value, list) else str(value)
    plain = text and " " not in text and text.isprintable()
    return text if plain else repr(text)
