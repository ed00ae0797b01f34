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

# What every record of Python's has.
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONLines(logging.Formatter):
    """A record as one line of JSON, with what is extra in it."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            "process": record.process,
            **_extra(record),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
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
        line = f"{rfc3339(record.created)} {record.levelname:<7} {record.getMessage()}"
        if record.exc_info:
            words += "\n" + self.formatException(record.exc_info)
        return f"{line} {words}".rstrip()


def rfc3339(seconds: float) -> str:
    """As RFC 3339 writes it, in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    return {k: v for k, v in vars(record).items() if k not in _USUAL}


def _word(value: Any) -> str:
    text = ",".join(value) if isinstance(value, list) else str(value)
    plain = text and " " not in text and text.isprintable()
    return text if plain else repr(text)
