"""The heads of requests and of answers: written whole, and read to the letter.

http.client writes a head line by line, and reads one as if it were a mail. This does
either at once, and allows less: no folded lines, no header without a name.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, NamedTuple, Protocol

from requests.structures import CaseInsensitiveDict

from ...core.text_cache import cached_by_text


class Malformed(HTTPException):
    """What came is not HTTP, or could be read in more than one way."""


class Lines(Protocol):
    """Where a head is read from."""

    def readline(self, limit: int, /) -> bytes: ...


class Headers(CaseInsensitiveDict[str]):
    """requests' headers, made at once. One that comes twice has both values, in one."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._store = store = OrderedDict[str, tuple[str, str]]()
        for name, value in fields:
            key = name.lower()
            if key in store:
                name, first = store[key]
                value = f"{first}, {value}"
            store[key] = name, value

    def get(self, key: str, default: Any = None) -> Any:
        """As Mapping's, which would raise and catch a KeyError for each that is not."""
        _, value = self._store.get(key.lower(), (key, default))
        return value

    def items(self) -> Any:
        """As Mapping's, which would look each of them up."""
        return self._store.values()


class ResponseHead(NamedTuple):
    """The head of an answer."""

    minor: int
    status: int
    headers: Headers

    @property
    def is_last(self) -> bool:
        """Whether it says that no other answer follows on its connection."""
        told = self.headers.get("Connection", "").lower()
        if self.minor:
            return "close" in told
        proxys = self.headers.get("Proxy-Connection", "").lower()
        kept = self.headers.get("Keep-Alive") or "keep-alive" in told + proxys
        return not kept


# Heads before the one that counts ("103 Early Hints"), and no more of them.
_MOST_INTERIM = 100
LONGEST_LINE = 2**16
MOST_FIELDS = 99

_STATUS = re.compile(
    rb"HTTP/(?:1\.([0-9]+)|0\.9)[ \t]+([1-9][0-9]{2})(?:[ \t][^\n]*)?\r?\n"
)
_FIELD = re.compile(rb"([!-9;-~]+):[ \t]*([^\0-\x08\n-\x1f\x7f]*)\r?\n")
_ENDS = (b"\r\n", b"\n", b"")


def read_head(source: Lines) -> ResponseHead:
    """The head of the answer, past those that say that it will come.

    Raises ConnectionResetError if not even the first byte of one comes, Malformed. A
    head may also have ended because *source* did.
    """
    for _ in range(_MOST_INTERIM):
        minor, status = _read_status(source)
        if status >= 200:
            return ResponseHead(minor, status, Headers(map(_field, read_lines(source))))
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            break
        read_lines(source)
    raise Malformed("no answer, only announcements")


def _read_status(source: Lines) -> tuple[int, int]:
    """The minor version of the protocol, and the status."""
    line = source.readline(LONGEST_LINE + 1)
    if not line:
        raise ConnectionResetError("closed without an answer")
    found = _STATUS.fullmatch(line)
    if found is None or len(line) > LONGEST_LINE:
        raise Malformed("no status")
    return int(found[1] or 0), int(found[2])


def read_lines(source: Lines) -> list[bytes]:
    """Those of headers, or trailers, before the blank line, or the end of *source*.

    Raises Malformed if one is too long, or they are too many.
    """
    lines: list[bytes] = []
    while (line := source.readline(LONGEST_LINE + 1)) not in _ENDS:
        if len(line) > LONGEST_LINE or len(lines) == MOST_FIELDS:
            raise Malformed("a head, or a line of it, without end")
        lines.append(line)
    return lines


def _field(line: bytes) -> tuple[str, str]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise Malformed("a header that is none")
    return found[1].decode("ascii"), found[2].decode("latin-1")


# What http.client takes for a name.
_NAME = re.compile(r"[^:\s][^:\r\n]*", re.ASCII)


def written(headers: Mapping[str, str]) -> bytes:
    """*headers* as lines. Raises ValueError if they would be others, or cannot be."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    ends = lines.count("\r"), lines.count("\n")
    if ends != (len(headers), len(headers)) or not all(map(_is_name, headers)):
        raise ValueError("a header that is none")
    return lines.encode("latin-1")


@cached_by_text
def _is_name(name: str) -> bool:
    return name.isascii() and _NAME.fullmatch(name) is not None
