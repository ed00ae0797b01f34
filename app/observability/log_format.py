"""Formats lines of the log: JSON for collectors, or text for people.

The gunicorn master imports this module, so it must not load anything that gevent
patches later in the workers.
"""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.redaction import without_likely_keys

# Characters of one value, which a caller may have chosen, and of a traceback.
_MAX_VALUE = 2000
_MAX_TRACEBACK = 20_000

# Characters of a line of another library's logger.
_MAX_FOREIGN_LINE = 500

# Attributes that every LogRecord has; all others came in `extra`.
# There is no list of them in `logging`, hence those of an empty record. Three are only
# set later: two by Formatter.format, `taskName` from Python 3.12 on.
_STANDARD_ATTRIBUTES = set(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
}


class JSONLines(logging.Formatter):
    """A log record as one line of JSON, with its extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "event": _shorten(record.getMessage()),
            "logger": record.name,
            "process": record.process,
            # Last: a field that has the name of one above replaces it.
            **_extra_fields(record),
        }
        if record.exc_info:
            fields["traceback"] = _traceback(self, record)
        try:
            content = orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            # orjson refuses lone surrogates and integers beyond 64 bits.
            return json.dumps(fields, default=str)
        return content.decode()


class Console(logging.Formatter):
    """A log record for people: time, level, event, extra fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        extra = _extra_fields(record).items()
        fields = " ".join(f"{name}={_quote_value(value)}" for name, value in extra)
        event = _shorten(record.getMessage())
        line = f"{rfc3339(record.created)} {record.levelname:<7} {event}"
        if record.exc_info:
            fields += "\n" + _traceback(self, record)
        return f"{line} {fields}".rstrip()


def rfc3339(seconds: float) -> str:
    """Unix *seconds* as RFC 3339 writes them, in UTC, with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"


def _extra_fields(record: logging.LogRecord) -> Mapping[str, Any]:
    return {
        name: _shorten(value)
        for name, value in vars(record).items()
        if name not in _STANDARD_ATTRIBUTES
    }


def _shorten(value: Any) -> Any:
    """*value*; only the beginning of a text that is too long."""
    if isinstance(value, str) and len(value) > _MAX_VALUE:
        return value[:_MAX_VALUE] + "..."
    return value


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback of *record*, redacted: messages in it may quote a key."""
    assert record.exc_info
    text = formatter.formatException(record.exc_info)
    # The middle is the least of use: the ends have the entry point and the error.
    if len(text) > _MAX_TRACEBACK:
        half = _MAX_TRACEBACK // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return without_likely_keys(text)


def _quote_value(value: Any) -> str:
    # A value with a blank or a control character is quoted by repr, so that no caller
    # can write a line of its own into the log.
    text = ",".join(value) if isinstance(value, list) else str(value)
    is_plain = text and " " not in text and text.isprintable()
    return text if is_plain else repr(text)


class Bounded(logging.Filter):
    """Shortens and redacts the lines of another library's logger.

    gunicorn quotes a request head that it cannot parse, up to 64 KiB of it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if len(text) > _MAX_FOREIGN_LINE:
            text = text[:_MAX_FOREIGN_LINE] + "..."
        # Without the arguments, the message is not formatted with them again.
        record.msg, record.args = without_likely_keys(text), ()
        return True


# One instance: a logger that is configured twice adds the same filter only once.
BOUNDED = Bounded()
