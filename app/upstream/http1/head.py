"""Heads of HTTP/1 messages: requests' headers encoded, responses' heads parsed.

http.client writes a head line by line, and parses one as if it were a mail. This module
does either in one go, and more strictly: no folded lines, no header without a name.

Source: https://www.rfc-editor.org/rfc/rfc9112
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
    """The response is not HTTP/1, or could be read in more than one way."""


class Lines(Protocol):
    """The source of a head, such as a buffered socket."""

    def readline(self, limit: int, /) -> bytes: ...


class Headers(CaseInsensitiveDict[str]):
    """requests' headers, filled at once. Values of a repeated one are joined."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._store = store = OrderedDict[str, tuple[str, str]]()
        for name, value in fields:
            key = name.lower()
            if key in store:
                name, first = store[key]
                value = f"{first}, {value}"
            store[key] = name, value

    def get(self, key: str, default: Any = None) -> Any:
        # Mapping's own would raise and catch a KeyError for each that is missing.
        _, value = self._store.get(key.lower(), (key, default))
        return value

    def items(self) -> Any:
        # Mapping's own would look each of them up.
        return self._store.values()


class ResponseHead(NamedTuple):
    """Minor version of HTTP/1, status and headers of a response."""

    minor: int
    status: int
    headers: Headers

    @property
    def is_last(self) -> bool:
        """Whether the server closes the connection after this response."""
        options = self.headers.get("Connection", "").lower()
        if self.minor:
            return "close" in options
        options += self.headers.get("Proxy-Connection", "").lower()
        return not (self.headers.get("Keep-Alive") or "keep-alive" in options)


# Interim responses (1xx, such as "103 Early Hints") before the final one.
_MAX_INTERIM = 100
# As http.client: bytes in a line, and headers in a head.
LONGEST_LINE = 2**16
MAX_FIELDS = 99

# The reason phrase is optional, and ignored. Some servers call their HTTP/1.0 0.9.
_STATUS_LINE = re.compile(
    rb"HTTP/(?:1\.([0-9]+)|0\.9)[ \t]+([1-9][0-9]{2})(?:[ \t][^\n]*)?\r?\n"
)
# A name is any visible characters but a colon, with no blank before it: a line that
# begins with one would continue the header before (obs-fold), and of "Name : value" two
# readers may see two names. A value has no control characters but tabs.
_FIELD_LINE = re.compile(rb"([!-9;-~]+):[ \t]*([^\0-\x08\n-\x1f\x7f]*)\r?\n")
_END_OF_HEAD = (b"\r\n", b"\n", b"")


def read_head(source: Lines) -> ResponseHead:
    """Read the head of the final response from *source*, past interim ones.

    Raises ConnectionResetError if not even its first byte comes, and Malformed. The end
    of *source* ends a head as well: whether it was cut, the caller has to see.
    """
    for _ in range(_MAX_INTERIM):
        line = source.readline(LONGEST_LINE + 1)
        if not line:
            raise ConnectionResetError("closed without an answer")
        match = _STATUS_LINE.fullmatch(line)
        if match is None or len(line) > LONGEST_LINE:
            raise Malformed("no status")
        minor, status = int(match[1] or 0), int(match[2])
        if status >= 200:
            fields = map(_parse_field, read_lines(source))
            return ResponseHead(minor, status, Headers(fields))
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            break
        read_lines(source)
    raise Malformed("no answer, only announcements")


def read_lines(source: Lines) -> list[bytes]:
    """Read the lines of headers, or trailers, up to a blank line or the end.

    Raises Malformed if one is too long, or they are too many.
    """
    lines: list[bytes] = []
    while (line := source.readline(LONGEST_LINE + 1)) not in _END_OF_HEAD:
        if len(line) > LONGEST_LINE or len(lines) == MAX_FIELDS:
            raise Malformed("a head, or a line of it, without end")
        lines.append(line)
    return lines


def _parse_field(line: bytes) -> tuple[str, str]:
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        raise Malformed("a header that is none")
    return match[1].decode("ascii"), match[2].decode("latin-1")


# As http.client checks a name before it sends it (_is_legal_header_name).
_FIELD_NAME = re.compile(r"[^:\s][^:\r\n]*", re.ASCII)


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """*headers* as lines of a head.

    Raises ValueError for a name that is none, a value that would end its line, and one
    that latin-1 cannot express.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # One CR and one LF for each: no value brings a line of its own.
    line_ends = lines.count("\r"), lines.count("\n")
    if line_ends != (len(headers), len(headers)) or not all(map(_is_name, headers)):
        raise ValueError("a header that is none")
    return lines.encode("latin-1")


@cached_by_text
def _is_name(name: str) -> bool:
    return name.isascii() and _FIELD_NAME.fullmatch(name) is not None
